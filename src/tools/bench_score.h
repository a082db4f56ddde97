/* SPDX-License-Identifier: MIT */
/*
 * What a run found: every cell as it was, and per line of the table (one role
 * of one workload on one engine) the rounds side by side with the histogram of
 * all of them.
 */
#ifndef ESKER_TOOLS_BENCH_SCORE_H
#define ESKER_TOOLS_BENCH_SCORE_H

#include <stdio.h>

#include "tools/bench_cell.h"
#include "tools/bench_machine.h"

enum { BENCH_ROUNDS_MAX = 32 };

struct bench_series_summary {
    char name[16];
    uint64_t ops;
    double rate;          /* per second */
    double cpu_ns_per_op; /* of the role's own threads */
    double mean_us, p50_us, p90_us, p99_us, p999_us, max_us;
};

struct bench_cell_record {
    uint32_t workload, engine, round;
    int status;
    char reason[320];
    double value;
    uint64_t wrong, ops, wall_ns, cpu_ns;
    uint32_t series_count, metric_count;
    struct bench_metric metrics[BENCH_METRICS_MAX];
    struct bench_series_summary series[BENCH_SERIES_MAX];
};

/* One line of the table on one engine. */
struct bench_score {
    uint32_t rounds;                 /* that were done */
    double values[BENCH_ROUNDS_MAX]; /* by round; NAN where the round is missing */
    double cpu_ns_per_op[BENCH_ROUNDS_MAX];
    double own_cpu_ns_per_op[BENCH_ROUNDS_MAX]; /* of the threads of this line's role alone */
    struct histogram *latency;                  /* nullable */
};

struct bench_line {
    uint32_t workload, series;
    char name[48]; /* "mixed-2 read" */
    bool lower_is_better;
    struct bench_score scores[BENCH_ENGINES_MAX];
};

struct bench_board {
    const struct bench_cells *cells;
    struct bench_machine machine;
    struct bench_cell_record *records;
    uint32_t record_count, record_cap;
    struct bench_line *lines;
    uint32_t line_count, line_cap;
    uint64_t wrong;
    uint64_t failed; /* cells that failed or were wrong */
    uint32_t rounds; /* the most that any cell had */
    double wall_seconds;
    char started[32];
    int argc;
    char **argv;
};

/* Takes over what cells->result holds. Returns BENCH_OK, or BENCH_FAILED for want of memory. */
int bench_board_add(struct bench_board *board, uint32_t workload, uint32_t engine, uint32_t round);
void bench_board_fini(struct bench_board *board);

/* Of the worst cell behind this line. */
int bench_line_status(const struct bench_board *board, const struct bench_line *line, uint32_t engine);
/* The median of the rounds that are there; NAN when there is none. */
double bench_median(const double *values, uint32_t count);
/* How many times better esker (engine 0) does than `engine`, above 1 is better:
 * the median of the ratios within each round. NAN when there is none. */
double bench_line_ratio(const struct bench_line *line, uint32_t engine);

void bench_board_print(const struct bench_board *board, FILE *out);
/* Writes results.json, results.csv and hgrm/ into dir. */
int bench_board_save(const struct bench_board *board, const char *dir);

#endif
