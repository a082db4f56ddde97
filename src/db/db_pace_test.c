/* SPDX-License-Identifier: MIT */
/*
 * Goal: however slow the disk is, and if it becomes slow all of a sudden, writers are slowed down step by
 * step and never come to where they have to stop for level 0.
 * Method: a writer that knows no rest, windows that become segments of level 0 at once, and merges that
 * share what the disk gives, by a clock of their own; what is merged is the picker's choice, how
 * fast the writer may go is what db_pace.c says. The same without pacing meets the stop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "db/db_compact.h"
#include "db/db_pace.h"

enum {
    PACE_WINDOW = 1 << 20,
    PACE_SEGMENTS = 2048,
    PACE_JOBS = 2,
    PACE_FLUSHES = 3000,
    PACE_FAST = 600 << 20,  /* a writer who is not held up, bytes per second */
    PACE_LEAST = 250 * 140, /* what small writes do at least: each sleeps 4 ms at most */
    PACE_KEYS = 1 << 30
};

struct pace_segment {
    struct segment_meta meta;
    uint32_t from, to;
    uint8_t keys[2][4];
    bool claimed;
};

struct pace_level {
    struct pace_segment *segments[PACE_SEGMENTS];
    size_t count;
};

struct pace_merge {
    bool runs;
    uint32_t input_level, output_level;
    struct pace_segment *sources[PACE_SEGMENTS];
    size_t input_count, source_count;
    double left_bytes;
    uint64_t began_ns;
};

struct pace_sim {
    struct pace_level levels[ESKER_LEVELS_MAX];
    struct level_table tables[ESKER_LEVELS_MAX];
    const struct segment_meta *metas[ESKER_LEVELS_MAX][PACE_SEGMENTS];
    bool claimed[ESKER_LEVELS_MAX][PACE_SEGMENTS];
    struct pace_merge merges[PACE_JOBS + 1]; /* the last: tiers, beside a merge that goes down */
    struct compaction_plan plan;
    struct picker_config config;
    struct db_drain drain;
    uint64_t now_ns, next_id, distinct_bytes;
    double filled_bytes, disk_bytes_per_s;
    bool paced;
    uint32_t flushes, level0_most;
    uint64_t blocked_ns;
};

/* ---- The tree ------------------------------------------------------------------------- */

static void
pace_key(uint32_t number, uint8_t out[4])
{
    for (int i = 0; i < 4; i++) {
        out[i] = (uint8_t)(number >> (24 - 8 * i));
    }
}

/* Of a level below 0: where it belongs; of level 0: as the newest. */
static void
pace_add(struct pace_sim *sim, uint32_t level, uint64_t bytes, uint32_t from, uint32_t to)
{
    struct pace_level *run = &sim->levels[level];
    assert_true(run->count < PACE_SEGMENTS);
    struct pace_segment *segment = calloc(1, sizeof *segment);
    assert_non_null(segment);
    segment->from = from;
    segment->to = to;
    pace_key(from, segment->keys[0]);
    pace_key(to, segment->keys[1]);
    segment->meta = (struct segment_meta){.id = ++sim->next_id,
                                          .size_bytes = bytes,
                                          .row_count = bytes / 100,
                                          .level = level,
                                          .min_key = bytes_make(segment->keys[0], 4),
                                          .max_key = bytes_make(segment->keys[1], 4)};
    size_t at = 0;
    while (level > 0 && at < run->count && run->segments[at]->from < from) {
        at++;
    }
    memmove(&run->segments[at + 1], &run->segments[at], (run->count - at) * sizeof *run->segments);
    run->segments[at] = segment;
    run->count++;
}

static size_t
pace_place(const struct pace_level *run, const struct pace_segment *segment)
{
    size_t at = 0;
    while (run->segments[at] != segment) {
        at++;
        assert_true(at < run->count);
    }
    return at;
}

static void
pace_remove(struct pace_level *run, struct pace_segment *segment)
{
    size_t at = pace_place(run, segment);
    run->count--;
    memmove(&run->segments[at], &run->segments[at + 1], (run->count - at) * sizeof *run->segments);
    free(segment);
}

/* Below, what overwrites goes: a part of the keys takes its part of the bytes there. */
static void
pace_outputs(struct pace_sim *sim, uint32_t level, uint64_t bytes, uint32_t from, uint32_t to)
{
    double most = (double)sim->distinct_bytes * (double)(to - from) / (double)PACE_KEYS;
    bytes = level > 0 ? MIN(bytes, (uint64_t)most + 1) : bytes;
    uint32_t count = level > 0 ? (uint32_t)(bytes / sim->config.segment_bytes) + 1 : 1;
    uint32_t step = (to - from) / count;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t first = from + i * step;
        pace_add(sim, level, MAX(bytes / count, (uint64_t)1), first, i + 1 < count ? first + step - 1 : to);
    }
}

/* ---- Merges --------------------------------------------------------------------------- */

static bool
pace_pick(struct pace_sim *sim, bool tiers_only)
{
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        for (size_t i = 0; i < sim->levels[level].count; i++) {
            sim->metas[level][i] = &sim->levels[level].segments[i]->meta;
            sim->claimed[level][i] = sim->levels[level].segments[i]->claimed;
        }
        sim->tables[level] = (struct level_table){
            .segments = sim->metas[level], .claimed = sim->claimed[level], .count = sim->levels[level].count};
    }
    sim->config.tiers_only = tiers_only;
    return compaction_pick(sim->tables, &sim->config, &sim->plan);
}

static void
pace_start(struct pace_sim *sim, struct pace_merge *merge, bool tiers_only)
{
    if (merge->runs || !pace_pick(sim, tiers_only)) {
        return;
    }
    const struct compaction_plan *plan = &sim->plan;
    *merge = (struct pace_merge){.runs = true,
                                 .input_level = plan->input_level,
                                 .output_level = plan->output_level,
                                 .input_count = plan->input_count,
                                 .source_count = plan->input_count + plan->overlap_count,
                                 .left_bytes = 2.0,
                                 .began_ns = sim->now_ns};
    assert_true(merge->source_count <= PACE_SEGMENTS);
    for (size_t i = 0; i < merge->source_count; i++) {
        bool input = i < plan->input_count;
        uint32_t level = input ? plan->input_level : plan->output_level;
        uint32_t at = input ? plan->inputs[i] : plan->overlaps[i - plan->input_count];
        merge->sources[i] = sim->levels[level].segments[at];
        merge->sources[i]->claimed = true; /* read and written */
        merge->left_bytes += plan->trivial_move ? 0.0 : 2.0 * (double)merge->sources[i]->meta.size_bytes;
    }
}

static uint64_t
pace_gone_bytes(const struct pace_merge *merge)
{
    uint64_t tiers = merge->input_count - (merge->output_level == 0 ? 1 : 0);
    return merge->runs && merge->input_level == 0 ? tiers * PACE_WINDOW : 0;
}

static void
pace_finish(struct pace_sim *sim, struct pace_merge *merge)
{
    uint64_t bytes = 0;
    uint32_t from = UINT32_MAX;
    uint32_t to = 0;
    struct pace_level *level0 = &sim->levels[0];
    size_t newer = merge->input_level == 0 ? pace_place(level0, merge->sources[0]) : 0;
    for (size_t i = 0; i < merge->source_count; i++) {
        bytes += merge->sources[i]->meta.size_bytes;
        from = MIN(from, merge->sources[i]->from);
        to = MAX(to, merge->sources[i]->to);
        pace_remove(&sim->levels[i < merge->input_count ? merge->input_level : merge->output_level],
                    merge->sources[i]);
    }
    pace_outputs(sim, merge->output_level, bytes, from, to);
    for (size_t i = 0; merge->output_level == 0 && i < newer; i++) {
        struct pace_segment *segment = level0->segments[i];
        level0->segments[i] = level0->segments[i + 1];
        level0->segments[i + 1] = segment;
    }
    if (pace_gone_bytes(merge) > 0) {
        db_drain_add(&sim->drain, pace_gone_bytes(merge), merge->began_ns, sim->now_ns);
    }
    merge->runs = false;
}

/* ---- Time ------------------------------------------------------------------------------- */

static double
pace_rate(const struct pace_sim *sim)
{
    uint32_t count = (uint32_t)sim->levels[0].count;
    uint64_t share = db_pace_level0_share(count, sim->config.l0_trigger, L0_STALL);
    uint64_t doing = 0;
    uint64_t since_ns = UINT64_MAX;
    for (size_t i = 0; i < COUNTOF(sim->merges); i++) {
        uint64_t gone = pace_gone_bytes(&sim->merges[i]);
        doing += gone;
        since_ns = gone > 0 ? MIN(since_ns, sim->merges[i].began_ns) : since_ns;
    }
    uint64_t drain = db_drain_rate_now(&sim->drain, doing, since_ns, sim->now_ns);
    if (!sim->paced || share == 0 || drain == 0) {
        return (double)PACE_FAST;
    }
    return MAX(MIN((double)db_pace_rate(drain, share), (double)PACE_FAST), (double)PACE_LEAST);
}

/* What each of them gets of the disk. */
static double
pace_start_merges(struct pace_sim *sim)
{
    bool down = false;
    uint32_t running = 0;
    for (size_t i = 0; i < PACE_JOBS; i++) {
        pace_start(sim, &sim->merges[i], false);
        down = down || (sim->merges[i].runs && sim->merges[i].output_level > 0);
    }
    if (down) {
        pace_start(sim, &sim->merges[PACE_JOBS], true);
    }
    for (size_t i = 0; i < COUNTOF(sim->merges); i++) {
        running += sim->merges[i].runs ? 1 : 0;
    }
    assert_true(running > 0 || sim->levels[0].count < L0_STALL);
    return sim->disk_bytes_per_s / (double)MAX(running, 1U);
}

/* Until a window is full or a merge at its end; with debt not much longer than until the next look. */
static void
pace_step(struct pace_sim *sim)
{
    double each = pace_start_merges(sim);
    bool stopped = sim->levels[0].count >= L0_STALL;
    double rate = pace_rate(sim);
    double for_s = stopped ? 1e9 : ((double)PACE_WINDOW - sim->filled_bytes) / rate;
    for (size_t i = 0; i < COUNTOF(sim->merges); i++) {
        for_s = sim->merges[i].runs ? MIN(for_s, sim->merges[i].left_bytes / each) : for_s;
    }
    sim->now_ns += (uint64_t)(for_s * 1e9) + 1;
    sim->filled_bytes += stopped ? 0.0 : for_s * rate;
    sim->blocked_ns += stopped ? (uint64_t)(for_s * 1e9) : 0;
    for (size_t i = 0; i < COUNTOF(sim->merges); i++) {
        sim->merges[i].left_bytes -= for_s * each;
        if (sim->merges[i].runs && sim->merges[i].left_bytes < 1.0) {
            pace_finish(sim, &sim->merges[i]);
        }
    }
    if (sim->filled_bytes > (double)PACE_WINDOW - 1.0) {
        sim->filled_bytes = 0.0;
        sim->flushes++;
        pace_add(sim, 0, PACE_WINDOW, 0, PACE_KEYS);
        sim->level0_most = MAX(sim->level0_most, (uint32_t)sim->levels[0].count);
    }
}

/* The disk is `slower` times slower than the writer; half way through by `worse` times more. */
static struct pace_sim *
pace_run(bool paced, bool lazy, uint32_t windows_below, uint32_t slower, uint32_t worse)
{
    struct pace_sim *sim = calloc(1, sizeof *sim);
    assert_non_null(sim);
    sim->paced = paced;
    sim->now_ns = 1000000000;
    sim->distinct_bytes = (uint64_t)windows_below * PACE_WINDOW;
    sim->disk_bytes_per_s = (double)PACE_FAST / (double)slower;
    sim->config = (struct picker_config){.l0_trigger = lazy ? 16 : 12,
                                         .l0_eighths = lazy ? 8 : 4,
                                         .l0_tier_bytes = 64 * (uint64_t)PACE_WINDOW,
                                         .lazy = lazy,
                                         .base_bytes = 4 * (uint64_t)PACE_WINDOW,
                                         .fanout = COMPACT_FANOUT,
                                         .segment_bytes = 2 * (uint64_t)PACE_WINDOW};
    pace_outputs(sim, ESKER_LEVELS_MAX - 1, sim->distinct_bytes, 0, PACE_KEYS);
    while (sim->flushes < PACE_FLUSHES) {
        pace_step(sim);
        if (worse > 1 && sim->flushes == PACE_FLUSHES / 2) {
            sim->disk_bytes_per_s /= (double)worse;
            worse = 1;
        }
    }
    return sim;
}

static void
pace_free(struct pace_sim *sim)
{
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        for (size_t i = 0; i < sim->levels[level].count; i++) {
            free(sim->levels[level].segments[i]);
        }
    }
    free(sim);
}

/* From a disk that is as fast as the writer to one that gives 200 KB/s. */
static void
pace__writers_never_come_to_the_stop(void **state)
{
    static const uint32_t slower[] = {1, 3, 10, 30, 100, 1000, 3000};
    static const uint32_t worse[] = {1, 10, 100};
    static const uint32_t below[] = {40, 400};

    (void)state;
    for (size_t i = 0; i < COUNTOF(slower) * COUNTOF(worse) * COUNTOF(below) * 2; i++) {
        uint32_t by = slower[i / 2 % COUNTOF(slower)];
        uint32_t worse_by = worse[i / 2 / COUNTOF(slower) % COUNTOF(worse)];
        uint32_t windows = below[i / 2 / COUNTOF(slower) / COUNTOF(worse)];
        if (by * worse_by > slower[COUNTOF(slower) - 1]) {
            continue;
        }
        struct pace_sim *sim = pace_run(true, i % 2 == 0, windows, by, worse_by);
        assert_int_equal(sim->blocked_ns, 0);
        assert_true(sim->level0_most < L0_STALL);
        pace_free(sim);
    }
}

static void
pace__without_it_they_do(void **state)
{
    (void)state;
    struct pace_sim *sim = pace_run(false, true, 40, 30, 1);
    assert_int_equal(sim->level0_most, L0_STALL);
    assert_true(sim->blocked_ns > sim->now_ns / 2);
    pace_free(sim);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pace__writers_never_come_to_the_stop),
        cmocka_unit_test(pace__without_it_they_do),
    };
    return cmocka_run_group_tests_name("db pace", tests, NULL, NULL);
}
