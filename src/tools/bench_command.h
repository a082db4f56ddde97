/* SPDX-License-Identifier: MIT */
/* The benchmark's command line, the same for `esker bench` and for the program with the peers. */
#ifndef ESKER_TOOLS_BENCH_COMMAND_H
#define ESKER_TOOLS_BENCH_COMMAND_H

#include "tools/bench_engine.h"

/* argv[0] is the name to show. engines[0] is the one that others are compared
 * with. Returns an exit code: 0; 1 when an answer was wrong or a cell failed;
 * 2 for a wrong command line; 3 when nothing could be run. */
int bench_command(int argc, char **argv, const struct bench_engine *const *engines, uint32_t engine_count);

/* `diff A.json B.json [--threshold PERCENT]`: B against A, cell by cell. Exit
 * code 1 when B is worse somewhere by more than the threshold. */
int bench_diff_command(int argc, char **argv);

#endif
