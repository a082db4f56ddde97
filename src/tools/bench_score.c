/* SPDX-License-Identifier: MIT */
/* Collects cells into lines and prints the table. */
#include "tools/bench_score.h"

#include <math.h>
#include <stdlib.h>

#include "tools/bench_hgrm.h"
#include "tools/bench_work.h"

static void *
score_grow(void *list, uint32_t count, uint32_t *cap, size_t size)
{
    if (count < *cap) {
        return list;
    }
    uint32_t larger = *cap == 0 ? 64 : *cap * 2;
    void *grown = realloc(list, larger * size);
    if (grown != NULL) {
        *cap = larger;
    }
    return grown;
}

static void
score_name_line(struct bench_line *line, const char *series_name)
{
    if (series_name[0] != 0 || line->name[0] == 0) {
        (void)snprintf(line->name, sizeof line->name, "%s%s%s", bench_workloads[line->workload].name,
                       series_name[0] == 0 ? "" : " ", series_name);
    }
}

static struct bench_line *
score_line(struct bench_board *board, uint32_t workload, uint32_t series, const char *series_name)
{
    for (uint32_t i = 0; i < board->line_count; i++) {
        struct bench_line *line = &board->lines[i];
        if (line->workload == workload && line->series == series) {
            /* A line made by a cell that failed did not know its role yet. */
            score_name_line(line, series_name);
            return line;
        }
    }
    struct bench_line *lines = score_grow(board->lines, board->line_count, &board->line_cap, sizeof *lines);
    if (lines == NULL) {
        return NULL;
    }
    board->lines = lines;
    struct bench_line *line = &lines[board->line_count++];
    memset(line, 0, sizeof *line);
    line->workload = workload;
    line->series = series;
    line->lower_is_better = bench_workloads[workload].lower_is_better;
    score_name_line(line, series_name);
    for (uint32_t i = 0; i < BENCH_ENGINES_MAX; i++) {
        for (uint32_t j = 0; j < BENCH_ROUNDS_MAX; j++) {
            line->scores[i].values[j] = (double)NAN;
            line->scores[i].cpu_ns_per_op[j] = (double)NAN;
            line->scores[i].own_cpu_ns_per_op[j] = (double)NAN;
        }
    }
    return line;
}

static void
score_summarise(const struct bench_series *series, struct bench_series_summary *out)
{
    const struct histogram *latency = &series->latency;
    (void)snprintf(out->name, sizeof out->name, "%s", series->name);
    out->ops = series->ops;
    out->rate = series->wall_ns == 0 ? 0.0 : (double)series->ops * 1e9 / (double)series->wall_ns;
    out->cpu_ns_per_op = (double)series->cpu_ns / (double)MAX(series->ops, 1u);
    out->mean_us = bench_histogram_mean(latency) / 1e3;
    out->p50_us = (double)histogram_quantile(latency, 50, 100) / 1e3;
    out->p90_us = (double)histogram_quantile(latency, 90, 100) / 1e3;
    out->p99_us = (double)histogram_quantile(latency, 99, 100) / 1e3;
    out->p999_us = (double)histogram_quantile(latency, 999, 1000) / 1e3;
    out->max_us = (double)latency->max / 1e3;
}

static int
score_add_line(struct bench_board *board, const struct bench_cell_record *record, uint32_t series)
{
    const struct bench_result *result = board->cells->result;
    /* One role needs no name of its own. */
    const char *name = record->series_count > 1 ? record->series[series].name : "";
    struct bench_line *line = score_line(board, record->workload, series, name);
    if (line == NULL) {
        return BENCH_FAILED;
    }
    struct bench_score *score = &line->scores[record->engine];
    if (record->status != BENCH_CELL_DONE || record->round >= BENCH_ROUNDS_MAX) {
        return BENCH_OK;
    }
    score->rounds++;
    bool rate = record->series_count > 0 && !line->lower_is_better;
    score->values[record->round] = rate ? record->series[series].rate : record->value;
    score->cpu_ns_per_op[record->round] = (double)record->cpu_ns / (double)MAX(record->ops, 1u);
    if (record->series_count > 0) {
        score->own_cpu_ns_per_op[record->round] = record->series[series].cpu_ns_per_op;
        if (score->latency == NULL) {
            score->latency = calloc(1, sizeof *score->latency);
        }
        if (score->latency == NULL) {
            return BENCH_FAILED;
        }
        histogram_merge(score->latency, &result->series[series].latency);
    }
    return BENCH_OK;
}

int
bench_board_add(struct bench_board *board, uint32_t workload, uint32_t engine, uint32_t round)
{
    const struct bench_result *result = board->cells->result;
    struct bench_cell_record *records =
        score_grow(board->records, board->record_count, &board->record_cap, sizeof *records);
    if (records == NULL) {
        return BENCH_FAILED;
    }
    board->records = records;
    struct bench_cell_record *record = &records[board->record_count++];
    *record =
        (struct bench_cell_record){.workload = workload,
                                   .engine = engine,
                                   .round = round,
                                   .status = result->status,
                                   .value = result->value,
                                   .wrong = result->wrong,
                                   .ops = result->ops,
                                   .wall_ns = result->wall_ns,
                                   .cpu_ns = result->cpu_ns,
                                   .series_count = MIN(result->series_count, (uint32_t)BENCH_SERIES_MAX),
                                   .metric_count = MIN(result->metric_count, (uint32_t)BENCH_METRICS_MAX)};
    (void)snprintf(record->reason, sizeof record->reason, "%.300s", result->reason);
    memcpy(record->metrics, result->metrics, sizeof record->metrics);
    for (uint32_t i = 0; i < record->series_count; i++) {
        score_summarise(&result->series[i], &record->series[i]);
    }
    board->wrong += record->wrong;
    board->failed += record->status == BENCH_CELL_FAILED || record->status == BENCH_CELL_WRONG ? 1 : 0;
    board->rounds = MAX(board->rounds, round + 1);
    int status = BENCH_OK;
    for (uint32_t i = 0; status == BENCH_OK && i < MAX(record->series_count, 1u); i++) {
        status = score_add_line(board, record, i);
    }
    return status;
}

void
bench_board_fini(struct bench_board *board)
{
    for (uint32_t i = 0; i < board->line_count; i++) {
        for (uint32_t j = 0; j < BENCH_ENGINES_MAX; j++) {
            free(board->lines[i].scores[j].latency);
        }
    }
    free(board->lines);
    free(board->records);
}

static int
score_order(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double
bench_median(const double *values, uint32_t count)
{
    double sorted[BENCH_ROUNDS_MAX];
    uint32_t n = 0;
    for (uint32_t i = 0; i < MIN(count, (uint32_t)BENCH_ROUNDS_MAX); i++) {
        if (!isnan(values[i])) {
            sorted[n++] = values[i];
        }
    }
    if (n == 0) {
        return (double)NAN;
    }
    qsort(sorted, n, sizeof *sorted, score_order);
    return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0;
}

double
bench_line_ratio(const struct bench_line *line, uint32_t engine)
{
    double ratios[BENCH_ROUNDS_MAX];
    const double *own = line->scores[0].values;
    const double *other = line->scores[engine].values;
    for (uint32_t i = 0; i < BENCH_ROUNDS_MAX; i++) {
        ratios[i] = line->lower_is_better ? other[i] / own[i] : own[i] / other[i];
    }
    return bench_median(ratios, BENCH_ROUNDS_MAX);
}

/* ---- The table --------------------------------------------------------------------- */

static void
score_format(double value, bool seconds, char *out, size_t cap)
{
    if (isnan(value)) {
        (void)snprintf(out, cap, "-");
    } else if (seconds) {
        (void)snprintf(out, cap, value < 0.01 ? "%.2g ms" : "%.3g s", value < 0.01 ? value * 1e3 : value);
    } else if (value >= 999500.0) {
        (void)snprintf(out, cap, "%.3gM", value / 1e6);
    } else if (value >= 999.5) {
        (void)snprintf(out, cap, "%.3gk", value / 1e3);
    } else {
        (void)snprintf(out, cap, "%.3g", value);
    }
}

int
bench_line_status(const struct bench_board *board, const struct bench_line *line, uint32_t engine)
{
    int status = BENCH_CELL_PENDING;
    for (uint32_t i = 0; i < board->record_count; i++) {
        const struct bench_cell_record *record = &board->records[i];
        if (record->workload == line->workload && record->engine == engine) {
            status = MAX(status, record->status);
        }
    }
    return status;
}

static void
score_print_cell(const struct bench_board *board, const struct bench_line *line, uint32_t engine, FILE *out)
{
    static const char *const verdicts[] = {"-", "", "skipped", "FAILED", "WRONG"};
    const struct bench_score *score = &line->scores[engine];
    char text[32], ratio[32] = "";
    int status = bench_line_status(board, line, engine);
    if (status != BENCH_CELL_DONE) {
        (void)snprintf(text, sizeof text, "%s", verdicts[status]);
    } else {
        score_format(bench_median(score->values, BENCH_ROUNDS_MAX), line->lower_is_better, text, sizeof text);
        if (engine != 0 && !isnan(bench_line_ratio(line, engine))) {
            (void)snprintf(ratio, sizeof ratio, " x%.2f", bench_line_ratio(line, engine));
        }
    }
    fprintf(out, " %8s%-8s", text, ratio);
}

void
bench_board_print(const struct bench_board *board, FILE *out)
{
    fprintf(out, "%-24s", "ops/s, median");
    for (uint32_t i = 0; i < board->cells->engine_count; i++) {
        fprintf(out, " %8s%-8s", board->cells->engines[i]->name, "");
    }
    fprintf(out, "\n");
    for (uint32_t i = 0; i < board->line_count; i++) {
        fprintf(out, "%-24s", board->lines[i].name);
        for (uint32_t j = 0; j < board->cells->engine_count; j++) {
            score_print_cell(board, &board->lines[i], j, out);
        }
        fprintf(out, "\n");
    }
    if (board->cells->engine_count > 1) {
        fprintf(out, "xN after a figure: %s does N times as well (median of the ratios within each round).\n",
                board->cells->engines[0]->name);
    }
    for (uint32_t i = 0; i < board->record_count; i++) {
        const struct bench_cell_record *record = &board->records[i];
        if (record->status >= BENCH_CELL_SKIPPED && record->round == 0) {
            fprintf(out, "%s, %s: %s\n", bench_workloads[record->workload].name,
                    board->cells->engines[record->engine]->name, record->reason);
        }
    }
    fprintf(out, "%u rounds, %.0f s, %llu wrong answers, %llu cells failed\n", board->rounds,
            board->wall_seconds, (unsigned long long)board->wrong, (unsigned long long)board->failed);
}
