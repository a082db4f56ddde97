/* SPDX-License-Identifier: MIT */
/*
 * Cells in processes of their own, on directories below one that the benchmark
 * made. A loaded database per engine is built once and copied, or read in place.
 */
#ifndef ESKER_TOOLS_BENCH_CELL_H
#define ESKER_TOOLS_BENCH_CELL_H

#include <signal.h>

#include "tools/bench_run.h"

enum { BENCH_ENGINES_MAX = 8, BENCH_PATH_MAX = 512 };

struct bench_cells {
    struct bench_config config;
    char dir[BENCH_PATH_MAX];    /* made by bench_cells_open */
    char cgroup[BENCH_PATH_MAX]; /* "" or a directory whose cgroup.procs every cell joins */
    const struct bench_engine *const *engines;
    uint32_t engine_count;
    bool no_fork;                      /* run in this process: for profilers */
    int base_state[BENCH_ENGINES_MAX]; /* 0 not built, 1 built, -1 failed */
    char base_reason[BENCH_ENGINES_MAX][128];
    struct bench_result *result; /* shared with the cell's process */
};

/* Set by a signal that asks the program to end: the running cell is stopped. */
extern volatile sig_atomic_t bench_interrupted;

/* parent: where to make the directory. Says what is wrong on stderr. */
int bench_cells_open(struct bench_cells *cells, const char *parent);
void bench_cells_close(struct bench_cells *cells, bool keep);

/* Runs one cell; cells->result holds what came of it. */
void bench_cell_run(struct bench_cells *cells, uint32_t engine, const struct bench_workload *workload,
                    uint64_t round);

/* The setup a workload gets, for the report too. */
void bench_cell_setup(const struct bench_config *config, const struct bench_workload *workload,
                      struct bench_setup *setup_out, struct bench_config *config_out);

#endif
