/* SPDX-License-Identifier: MIT */
/* What a run of the workload shows: lines for people, CSV for `esker plot`. */
#ifndef ESKER_TOOLS_WORKLOAD_REPORT_H
#define ESKER_TOOLS_WORKLOAD_REPORT_H

#include <stdio.h>

#include "tools/workload.h"

/* A row's roles: counts and latencies. */
void workload_report_row(FILE *out, const struct workload_config *config,
                         const struct workload_result *result);
/* One line per property over all rows, PASS or FAIL. Returns whether all passed. */
bool workload_report_verdicts(FILE *out, const struct workload_config *configs,
                              const struct workload_result *const *results, uint32_t count);

/* The revised plan's 17 columns in its order, more after them. Times are milliseconds, but
 * rates and durations are the plan's. */
void workload_csv_header(FILE *out);
void workload_csv_row(FILE *out, const struct workload_config *config, const struct workload_result *result);

/* Latency over time: config_label, role, second (of the plan), ops and quantiles. */
void workload_series_header(FILE *out);
void workload_series_rows(FILE *out, const struct workload_config *config,
                          const struct workload_result *result);

#endif
