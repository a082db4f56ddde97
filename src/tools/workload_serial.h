/* SPDX-License-Identifier: MIT */
/* The recorded history, given to the checker of tools/history.h. */
#ifndef ESKER_TOOLS_WORKLOAD_SERIAL_H
#define ESKER_TOOLS_WORKLOAD_SERIAL_H

#include "tools/workload_chain.h"

/* Fills looked_at, faults and story. */
void workload_serial_check(const struct workload_chain *chain, struct workload_verdict *verdict);

#endif
