/* SPDX-License-Identifier: MIT */
/*
 * Two runs against each other. Round i of a cell in B is set against round i of
 * the same cell in A; the median of these ratios is what is shown, above 1 when
 * B is better. Where both runs have peers, their ratios say how much of it was
 * the machine: a peer has not changed, so esker's ratio is divided by theirs.
 *
 * A regression is a cell of the first engine whose ratio is below 1 - threshold
 * and below 1 in every single round; an improvement likewise.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_command.h"
#include "tools/bench_json.h"
#include "tools/bench_score.h"

enum { DIFF_CELLS_MAX = 4096, DIFF_FILE_BYTES_MAX = 256 << 20 };

/* One line of the table on one engine. */
struct diff_entry {
    char name[64]; /* workload, or workload and series */
    char engine[16];
    bool lower_is_better;
    double values[BENCH_ROUNDS_MAX]; /* 0: missing */
};

struct diff_run {
    struct diff_entry *entries;
    uint32_t count;
    bool full;
    /* the cell that is being read */
    char workload[48], engine[16];
    bool done, lower_is_better;
    double round, value;
    uint32_t series_count;
    char series_name[4][16];
    double series_rate[4];
};

/* ---- Reading ------------------------------------------------------------------------- */

static void
diff_put(struct diff_run *run, const char *series, double value)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%.40s%s%.15s", run->workload, series[0] == 0 ? "" : " ", series);
    if (!(run->round >= 0 && run->round < (double)BENCH_ROUNDS_MAX) || !(value > 0.0)) {
        return;
    }
    uint32_t i = 0;
    while (i < run->count &&
           (strcmp(run->entries[i].name, name) != 0 || strcmp(run->entries[i].engine, run->engine) != 0)) {
        i++;
    }
    if (i == DIFF_CELLS_MAX) {
        run->full = true;
        return;
    }
    struct diff_entry *entry = &run->entries[i];
    if (i == run->count) {
        run->count++;
        (void)snprintf(entry->name, sizeof entry->name, "%s", name);
        (void)snprintf(entry->engine, sizeof entry->engine, "%s", run->engine);
        entry->lower_is_better = run->lower_is_better;
    }
    entry->values[(uint32_t)run->round] = value;
}

static void
diff_cell_end(struct diff_run *run)
{
    bool rates = run->series_count > 0 && !run->lower_is_better;
    for (uint32_t i = 0; run->done && rates && i < run->series_count; i++) {
        diff_put(run, run->series_count > 1 ? run->series_name[i] : "", run->series_rate[i]);
    }
    if (run->done && !rates) {
        diff_put(run, "", run->value);
    }
    run->done = run->lower_is_better = false;
    run->series_count = 0;
    run->round = -1.0;
    run->value = 0.0;
    run->workload[0] = run->engine[0] = 0;
    memset(run->series_name, 0, sizeof run->series_name);
    memset(run->series_rate, 0, sizeof run->series_rate);
}

static void
diff_copy(char *out, size_t cap, const struct bench_json_value *value)
{
    (void)snprintf(out, cap, "%s", value->kind == BENCH_JSON_STRING ? value->text : "");
}

static bool
diff_visit(void *ctx, const char *path, const struct bench_json_value *value)
{
    struct diff_run *run = ctx;
    uint32_t series = MIN(run->series_count, 3u);
    if (strcmp(path, "cells/*") == 0 && value->kind == BENCH_JSON_OBJECT_END) {
        diff_cell_end(run);
    } else if (strcmp(path, "cells/*/series/*") == 0 && value->kind == BENCH_JSON_OBJECT_END) {
        run->series_count = series + 1;
    } else if (strcmp(path, "cells/*/series/*/name") == 0) {
        diff_copy(run->series_name[series], sizeof run->series_name[series], value);
    } else if (strcmp(path, "cells/*/series/*/rate") == 0) {
        run->series_rate[series] = value->number;
    } else if (strcmp(path, "cells/*/workload") == 0) {
        diff_copy(run->workload, sizeof run->workload, value);
    } else if (strcmp(path, "cells/*/engine") == 0) {
        diff_copy(run->engine, sizeof run->engine, value);
    } else if (strcmp(path, "cells/*/status") == 0) {
        run->done = value->kind == BENCH_JSON_STRING && strcmp(value->text, "done") == 0;
    } else if (strcmp(path, "cells/*/better") == 0) {
        run->lower_is_better = value->kind == BENCH_JSON_STRING && strcmp(value->text, "lower") == 0;
    } else if (strcmp(path, "cells/*/round") == 0) {
        run->round = value->number;
    } else if (strcmp(path, "cells/*/value") == 0) {
        run->value = value->number;
    }
    return !run->full;
}

static char *
diff_read_file(const char *path, size_t *len_out)
{
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return NULL;
    }
    char *text = NULL;
    size_t len = 0, cap = 0;
    for (;;) {
        if (len == cap) {
            size_t larger = cap == 0 ? 1 << 20 : cap * 2;
            char *grown = larger > DIFF_FILE_BYTES_MAX ? NULL : realloc(text, larger);
            if (grown == NULL) {
                free(text);
                text = NULL;
                break;
            }
            text = grown;
            cap = larger;
        }
        size_t got = fread(text + len, 1, cap - len, file);
        len += got;
        if (got == 0) {
            break;
        }
    }
    (void)fclose(file);
    *len_out = len;
    return text;
}

static bool
diff_read(const char *path, struct diff_run *run)
{
    memset(run, 0, sizeof *run);
    run->entries = calloc(DIFF_CELLS_MAX, sizeof *run->entries);
    run->round = -1.0;
    size_t len = 0;
    char *text = run->entries == NULL ? NULL : diff_read_file(path, &len);
    if (text == NULL) {
        fprintf(stderr, "esker: cannot read %s\n", path);
        return false;
    }
    bool good = bench_json_read(text, len, diff_visit, run);
    free(text);
    if (!good || run->count == 0) {
        fprintf(stderr, "esker: %s is not a result of the benchmark\n", path);
        return false;
    }
    return true;
}

/* ---- Comparing ------------------------------------------------------------------------ */

static const struct diff_entry *
diff_find(const struct diff_run *run, const struct diff_entry *wanted, const char *engine)
{
    for (uint32_t i = 0; i < run->count; i++) {
        if (strcmp(run->entries[i].name, wanted->name) == 0 && strcmp(run->entries[i].engine, engine) == 0) {
            return &run->entries[i];
        }
    }
    return NULL;
}

/* The ratios of the rounds that both have; how many there are. Missing ones are NAN. */
static uint32_t
diff_ratios(const struct diff_entry *a, const struct diff_entry *b, double *ratios)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < BENCH_ROUNDS_MAX; i++) {
        ratios[i] = (double)NAN;
        if (a->values[i] > 0.0 && b->values[i] > 0.0) {
            ratios[i] = a->lower_is_better ? a->values[i] / b->values[i] : b->values[i] / a->values[i];
            count++;
        }
    }
    return count;
}

/* What the same line did on the peers: the geometric mean of their medians; 1 without peers. */
static double
diff_peers(const struct diff_run *a, const struct diff_run *b, const struct diff_entry *line,
           uint32_t *count_out)
{
    double sum = 0.0;
    uint32_t count = 0;
    double ratios[BENCH_ROUNDS_MAX];
    for (uint32_t i = 0; i < a->count; i++) {
        const struct diff_entry *peer = &a->entries[i];
        if (strcmp(peer->name, line->name) != 0 || strcmp(peer->engine, "esker") == 0) {
            continue;
        }
        const struct diff_entry *other = diff_find(b, line, peer->engine);
        if (other != NULL && diff_ratios(peer, other, ratios) > 0) {
            sum += log(bench_median(ratios, BENCH_ROUNDS_MAX));
            count++;
        }
    }
    *count_out = count;
    return count == 0 ? 1.0 : exp(sum / count);
}

/* -1 a regression, 1 an improvement, 0 neither. */
static int
diff_line(const struct diff_run *a, const struct diff_run *b, const struct diff_entry *line, double threshold)
{
    double ratios[BENCH_ROUNDS_MAX];
    const struct diff_entry *other = diff_find(b, line, "esker");
    if (other == NULL || diff_ratios(line, other, ratios) == 0) {
        return 0;
    }
    uint32_t peer_count = 0;
    double peers = diff_peers(a, b, line, &peer_count);
    double low = INFINITY, high = 0.0;
    uint32_t rounds = 0;
    for (uint32_t i = 0; i < BENCH_ROUNDS_MAX; i++) {
        if (!isnan(ratios[i])) {
            ratios[i] /= peers;
            low = MIN(low, ratios[i]);
            high = MAX(high, ratios[i]);
            rounds++;
        }
    }
    double ratio = bench_median(ratios, BENCH_ROUNDS_MAX);
    int verdict = ratio < 1.0 - threshold && high < 1.0 ? -1 : ratio > 1.0 + threshold && low > 1.0 ? 1 : 0;
    char peer_text[32] = "-";
    if (peer_count > 0) {
        (void)snprintf(peer_text, sizeof peer_text, "x%.3f", peers);
    }
    printf("%-26s x%.3f  [x%.3f, x%.3f] of %u  peers %-8s %s\n", line->name, ratio, low, high, rounds,
           peer_text,
           verdict < 0   ? "WORSE"
           : verdict > 0 ? "better"
                         : "");
    return verdict;
}

static int
diff_compare(const struct diff_run *a, const struct diff_run *b, double threshold)
{
    uint32_t worse = 0, better = 0, lines = 0;
    printf("B against A, above 1: B is better; what the peers did is divided out\n");
    for (uint32_t i = 0; i < a->count; i++) {
        if (strcmp(a->entries[i].engine, "esker") != 0) {
            continue;
        }
        int verdict = diff_line(a, b, &a->entries[i], threshold);
        worse += verdict < 0 ? 1 : 0;
        better += verdict > 0 ? 1 : 0;
        lines++;
    }
    printf("%u lines: %u worse, %u better by more than %.0f %%\n", lines, worse, better, threshold * 100.0);
    return worse > 0 ? 1 : 0;
}

int
bench_diff_command(int argc, char **argv)
{
    double threshold = 5.0;
    const char *paths[2] = {NULL, NULL};
    uint32_t count = 0;
    for (int i = 1; i < argc; i++) {
        char *end = NULL;
        if (strcmp(argv[i], "--threshold") == 0 && i + 1 < argc) {
            threshold = strtod(argv[i + 1], &end);
            if (end == argv[i + 1] || *end != 0 || !(threshold >= 0.0 && threshold < 100.0)) {
                count = 3;
                break;
            }
            i++;
        } else {
            if (count < 2) {
                paths[count] = argv[i];
            }
            count++;
        }
    }
    if (count != 2) {
        fprintf(stderr, "usage: %s A.json B.json [--threshold PERCENT]\n", argv[0]);
        return 2;
    }
    struct diff_run a = {.entries = NULL}, b = {.entries = NULL};
    int code =
        diff_read(paths[0], &a) && diff_read(paths[1], &b) ? diff_compare(&a, &b, threshold / 100.0) : 3;
    free(a.entries);
    free(b.entries);
    return code;
}
