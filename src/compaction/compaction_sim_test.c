/* SPDX-License-Identifier: MIT */
/*
 * Goal: whatever the picker plans, and however its jobs overlap in time, every
 * key keeps its newest version on top, levels stay sorted, and the tree comes
 * to rest in the shape that it promises.
 * Method: a database of toy segments, written to at random; up to eight plans
 * run at once and are installed in random order, merged as the real job does;
 * after each installation every key is read through the levels and the order
 * of versions is checked. Key bounds are cut short at random, as bounds of
 * long keys are.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/rng.h"
#include "compaction/compaction.h"

enum { KEYS = 200, KEY_LEN = 3, SEGMENTS_MAX = 600, JOBS_MAX = 8, ROW_BYTES = 1 };

struct toy_row {
    uint32_t key;
    uint64_t lsn; /* 0 = this segment has no row of the key */
    bool is_delete;
};

struct toy_segment {
    struct segment_meta meta;
    uint8_t bounds[2][KEY_LEN];
    bool claimed;
    struct toy_row rows[KEYS]; /* indexed by key */
};

struct toy_level {
    struct toy_segment *segments[SEGMENTS_MAX];
    size_t count;
};

struct toy_job {
    uint32_t input_level, output_level;
    struct toy_segment *sources[2 * SEGMENTS_MAX]; /* inputs, then overlaps */
    size_t input_count, source_count;
    bool is_move;
};

struct toy_db {
    struct rng rng;
    struct toy_level levels[ESKER_LEVELS_MAX];
    struct toy_row newest[KEYS]; /* the model */
    struct picker_config config;
    bool cut_bounds;
    uint64_t lsn, next_id;
    uint64_t held_lsn; /* deletes from here on stay, as if a snapshot were live; UINT64_MAX = none is */
    struct toy_job jobs[JOBS_MAX];
    size_t job_count;
    uint64_t rows_written, moves, rewrites, tier_merges, tier_segments, waits;
};

static void
key_text(uint32_t key, uint8_t out[KEY_LEN])
{
    out[0] = (uint8_t)('a' + key / 100);
    out[1] = (uint8_t)('0' + key / 10 % 10);
    out[2] = (uint8_t)('0' + key % 10);
}

/* Bounds as edit_bound_lower and _upper make them, were the limit two bytes. */
static void
segment_seal(struct toy_db *db, struct toy_segment *segment, uint32_t level)
{
    uint32_t first = KEYS;
    uint32_t last = 0;
    struct segment_meta *meta = &segment->meta;
    *meta = (struct segment_meta){.id = db->next_id++, .level = level, .min_lsn = UINT64_MAX};
    for (uint32_t key = 0; key < KEYS; key++) {
        const struct toy_row *row = &segment->rows[key];
        if (row->lsn == 0) {
            continue;
        }
        first = MIN(first, key);
        last = key;
        meta->row_count++;
        meta->tombstone_count += row->is_delete;
        meta->min_lsn = MIN(meta->min_lsn, row->lsn);
        meta->max_lsn = MAX(meta->max_lsn, row->lsn);
    }
    assert_true(meta->row_count > 0);
    meta->size_bytes = meta->row_count * ROW_BYTES;
    key_text(first, segment->bounds[0]);
    key_text(last, segment->bounds[1]);
    meta->min_key = bytes_make(segment->bounds[0], KEY_LEN);
    meta->max_key = bytes_make(segment->bounds[1], KEY_LEN);
    if (db->cut_bounds) {
        meta->min_key.len = 2;
        segment->bounds[1][1]++;
        meta->max_key.len = last / 10 == KEYS / 10 - 1 ? 0 : 2; /* no upper bound for the last ones */
    }
}

static struct toy_segment *
segment_new(void)
{
    struct toy_segment *segment = calloc(1, sizeof *segment);
    assert_non_null(segment);
    return segment;
}

static void
level_add(struct toy_level *level, struct toy_segment *segment, size_t at)
{
    assert_true(level->count < SEGMENTS_MAX);
    memmove(&level->segments[at + 1], &level->segments[at], (level->count - at) * sizeof level->segments[0]);
    level->segments[at] = segment;
    level->count++;
}

static uint32_t
first_key(const struct toy_segment *segment)
{
    uint32_t key = 0;
    while (segment->rows[key].lsn == 0) {
        key++;
    }
    return key;
}

/* Level 0: the newest tier first, each by key. */
static bool
is_before(const struct toy_segment *a, const struct toy_segment *b)
{
    int order = a->meta.level == 0 ? segment_meta_compare_tiers(&a->meta, &b->meta) : 0;
    return order != 0 ? order < 0 : first_key(a) < first_key(b);
}

static void
level_insert(struct toy_level *level, struct toy_segment *segment)
{
    size_t at = 0;
    while (at < level->count && is_before(level->segments[at], segment)) {
        at++;
    }
    level_add(level, segment, at);
}

static void
level_remove(struct toy_level *level, const struct toy_segment *segment)
{
    for (size_t i = 0; i < level->count; i++) {
        if (level->segments[i] == segment) {
            level->count--;
            memmove(&level->segments[i], &level->segments[i + 1],
                    (level->count - i) * sizeof level->segments[0]);
            return;
        }
    }
    fail_msg("a segment that was claimed has gone");
}

/* From the newest to the oldest source LSNs of a key only fall; the first is
 * the model's, unless a dropped delete left nothing; sorted levels do not share keys. */
static void
assert_tree_is_right(const struct toy_db *db)
{
    for (uint32_t key = 0; key < KEYS; key++) {
        uint64_t above = UINT64_MAX;
        const struct toy_row *found = NULL;
        for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
            unsigned holders = 0;
            for (size_t j = 0; j < db->levels[i].count; j++) {
                const struct toy_row *row = &db->levels[i].segments[j]->rows[key];
                if (row->lsn == 0) {
                    continue;
                }
                assert_true(row->lsn < above);
                above = row->lsn;
                found = found == NULL ? row : found;
                holders++;
            }
            assert_true(i == 0 || holders <= 1);
        }
        const struct toy_row *newest = &db->newest[key];
        if (found != NULL) {
            assert_int_equal(found->lsn, newest->lsn);
        } else {
            assert_true(newest->lsn == 0 || newest->is_delete);
        }
    }
    for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
        for (size_t j = 1; j < db->levels[i].count; j++) {
            const struct toy_segment *left = db->levels[i].segments[j - 1];
            const struct toy_segment *right = db->levels[i].segments[j];
            if (i == 0 && (right->meta.tier_id == 0 || left->meta.tier_id != right->meta.tier_id)) {
                continue;
            }
            uint32_t last = KEYS - 1;
            while (left->rows[last].lsn == 0) {
                last--;
            }
            assert_true(last < first_key(right));
        }
    }
}

static void
flush(struct toy_db *db, uint32_t row_count, unsigned deletes_in_8)
{
    struct toy_segment *segment = segment_new();
    bool narrow = rng_below(&db->rng, 2) == 0;
    uint32_t base = (uint32_t)rng_below(&db->rng, KEYS);
    for (uint32_t i = 0; i < row_count; i++) {
        uint32_t key =
            narrow ? (base + (uint32_t)rng_below(&db->rng, 12)) % KEYS : (uint32_t)rng_below(&db->rng, KEYS);
        struct toy_row row = {
            .key = key, .lsn = ++db->lsn, .is_delete = rng_below(&db->rng, 8) < deletes_in_8};
        segment->rows[key] = row;
        db->newest[key] = row;
    }
    segment_seal(db, segment, 0);
    level_add(&db->levels[0], segment, 0);
}

/* ---- Jobs ------------------------------------------------------------------- */

struct toy_tables {
    struct level_table levels[ESKER_LEVELS_MAX];
    const struct segment_meta *metas[ESKER_LEVELS_MAX][SEGMENTS_MAX];
    bool claimed[ESKER_LEVELS_MAX][SEGMENTS_MAX];
};

static const struct level_table *
make_tables(const struct toy_db *db)
{
    static struct toy_tables tables;
    for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
        for (size_t j = 0; j < db->levels[i].count; j++) {
            tables.metas[i][j] = &db->levels[i].segments[j]->meta;
            tables.claimed[i][j] = db->levels[i].segments[j]->claimed;
        }
        tables.levels[i] = (struct level_table){
            .segments = tables.metas[i], .claimed = tables.claimed[i], .count = db->levels[i].count};
    }
    return tables.levels;
}

static void
claim(struct toy_job *job, struct toy_segment *segment)
{
    assert_false(segment->claimed);
    segment->claimed = true;
    job->sources[job->source_count++] = segment;
}

static void
start_job(struct toy_db *db, const struct compaction_plan *plan)
{
    assert_true(plan->score >= 1.0);
    assert_true(plan->input_count > 0);
    assert_true(plan->output_level > plan->input_level ||
                (plan->output_level == plan->input_level && plan->overlap_count == 0 && !plan->trivial_move));
    struct toy_job *job = &db->jobs[db->job_count++];
    *job = (struct toy_job){
        .input_level = plan->input_level, .output_level = plan->output_level, .is_move = plan->trivial_move};
    for (size_t i = 0; i < plan->input_count; i++) {
        claim(job, db->levels[plan->input_level].segments[plan->inputs[i]]);
    }
    job->input_count = job->source_count;
    for (size_t i = 0; i < plan->overlap_count; i++) {
        claim(job, db->levels[plan->output_level].segments[plan->overlaps[i]]);
    }
}

/* In level 0: what is older than the oldest input. */
static bool
deeper_may_hold(const struct toy_db *db, uint32_t level, const struct segment_meta *oldest, uint32_t key)
{
    uint8_t text[KEY_LEN];
    key_text(key, text);
    for (size_t i = level == 0 ? 0 : level + 1; i < ESKER_LEVELS_MAX; i++) {
        for (size_t j = 0; j < db->levels[i].count; j++) {
            const struct segment_meta *meta = &db->levels[i].segments[j]->meta;
            if ((i > 0 || segment_meta_compare_tiers(oldest, meta) < 0) &&
                bytes_compare(meta->min_key, bytes_make(text, KEY_LEN)) <= 0 &&
                (meta->max_key.len == 0 || bytes_compare(meta->max_key, bytes_make(text, KEY_LEN)) >= 0)) {
                return true;
            }
        }
    }
    return false;
}

static void
merge_sources(struct toy_db *db, const struct toy_job *job)
{
    struct toy_segment *output = NULL;
    const struct segment_meta *newest_tier = &job->sources[0]->meta;
    const struct segment_meta *oldest = &job->sources[job->input_count - 1]->meta;
    uint64_t tier_id = db->next_id;
    for (uint32_t key = 0; key <= KEYS; key++) {
        if (output != NULL && (key == KEYS || output->meta.row_count >= db->config.segment_bytes)) {
            segment_seal(db, output, job->output_level);
            if (job->output_level == 0) { /* one tier, where the newest of the inputs was */
                output->meta.tier_id = tier_id;
                output->meta.tier_lsn =
                    newest_tier->tier_id != 0 ? newest_tier->tier_lsn : newest_tier->max_lsn;
                db->tier_segments++;
            }
            level_insert(&db->levels[job->output_level], output);
            output = NULL;
        }
        struct toy_row newest = {0};
        for (size_t i = 0; key < KEYS && i < job->source_count; i++) {
            if (job->sources[i]->rows[key].lsn > newest.lsn) {
                newest = job->sources[i]->rows[key];
            }
        }
        if (newest.lsn == 0 || (newest.is_delete && newest.lsn < db->held_lsn &&
                                !deeper_may_hold(db, job->output_level, oldest, key))) {
            continue;
        }
        output = output == NULL ? segment_new() : output;
        output->rows[key] = newest;
        output->meta.row_count++;
        db->rows_written++;
    }
}

static void
finish_job(struct toy_db *db, size_t index)
{
    struct toy_job job = db->jobs[index];
    db->jobs[index] = db->jobs[--db->job_count];
    for (size_t i = 0; i < job.source_count; i++) {
        level_remove(&db->levels[i < job.input_count ? job.input_level : job.output_level], job.sources[i]);
    }
    if (job.is_move) {
        assert_int_equal(job.source_count, job.input_count);
        for (size_t i = 0; i < job.source_count; i++) {
            job.sources[i]->claimed = false;
            job.sources[i]->meta.level = job.output_level;
            job.sources[i]->meta.tier_id = 0;
            level_insert(&db->levels[job.output_level], job.sources[i]);
        }
        db->moves++;
    } else {
        merge_sources(db, &job);
        db->rewrites += job.input_level == job.output_level && job.input_level > 0;
        db->tier_merges += job.input_level == job.output_level && job.input_level == 0;
        for (size_t i = 0; i < job.source_count; i++) {
            free(job.sources[i]);
        }
    }
    assert_tree_is_right(db);
}

static bool
try_start(struct toy_db *db)
{
    static struct compaction_plan plan;
    if (db->job_count == JOBS_MAX) {
        return false;
    }
    db->config.gc_lsn = MIN(db->held_lsn, db->lsn + 1);
    db->config.tiers_only = db->job_count > 0 && rng_below(&db->rng, 8) == 0;
    if (!compaction_pick(make_tables(db), &db->config, &plan)) {
        db->waits += plan.score >= 1.0;
        assert_true(plan.score < 1.0 || db->job_count > 0);
        return false;
    }
    start_job(db, &plan);
    return true;
}

static void
finish_all(struct toy_db *db)
{
    while (db->job_count > 0) {
        finish_job(db, rng_below(&db->rng, db->job_count));
    }
}

static size_t
tier_count(const struct toy_db *db)
{
    const struct toy_level *level = &db->levels[0];
    size_t count = level->count;
    for (size_t i = 1; i < level->count; i++) {
        uint64_t tier_id = level->segments[i]->meta.tier_id;
        count -= tier_id != 0 && tier_id == level->segments[i - 1]->meta.tier_id;
    }
    return count;
}

static void
come_to_rest(struct toy_db *db)
{
    unsigned steps = 0;
    db->held_lsn = UINT64_MAX;
    do {
        finish_all(db);
        assert_true(++steps < 5000);
    } while (try_start(db));
    assert_true(tier_count(db) < db->config.l0_trigger);
}

static void
merge_range(struct toy_db *db, struct bytes lower, struct bytes upper)
{
    static struct compaction_plan plan;
    finish_all(db);
    for (unsigned steps = 0; compaction_pick_range(make_tables(db), &db->config, lower, upper, &plan);
         steps++) {
        assert_true(steps < 5000);
        start_job(db, &plan);
        finish_all(db);
    }
    assert_true(plan.score < 1.0);
}

static void
change_policy(struct toy_db *db)
{
    static const uint32_t eighths[] = {0, 1, 4, 8, 16, 40};
    db->config.l0_trigger = 2 + (uint32_t)rng_below(&db->rng, 4);
    db->config.l0_eighths = eighths[rng_below(&db->rng, COUNTOF(eighths))];
    db->config.l0_inputs_max = rng_below(&db->rng, 4) == 0 ? 3 : 0;
    db->config.l0_bytes = rng_below(&db->rng, 2) * rng_below(&db->rng, 200);
    db->config.l0_tier_bytes = rng_below(&db->rng, 2) * rng_below(&db->rng, 100);
    db->config.lazy = rng_below(&db->rng, 2) == 0;
}

static void
db_init(struct toy_db *db, uint64_t seed)
{
    memset(db, 0, sizeof *db);
    db->rng.state = seed;
    db->next_id = 1;
    db->held_lsn = UINT64_MAX;
    db->cut_bounds = seed % 2 == 0;
    db->config = (struct picker_config){.l0_trigger = 2 + (uint32_t)rng_below(&db->rng, 4),
                                        .base_bytes = 4 + rng_below(&db->rng, 20),
                                        .fanout = 2 + (uint32_t)rng_below(&db->rng, 4),
                                        .segment_bytes = 3 + rng_below(&db->rng, 8)};
    change_policy(db);
}

static void
db_fini(struct toy_db *db)
{
    for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
        for (size_t j = 0; j < db->levels[i].count; j++) {
            free(db->levels[i].segments[j]);
        }
    }
}

static void
random_life(struct toy_db *db, unsigned steps)
{
    unsigned deletes_in_8 = (unsigned)rng_below(&db->rng, 7);
    for (unsigned i = 0; i < steps; i++) {
        uint64_t choice = rng_below(&db->rng, 100);
        if (i % 100 == 0) {
            deletes_in_8 = (unsigned)rng_below(&db->rng, 9);
            db->held_lsn = rng_below(&db->rng, 2) ? db->lsn + 1 : UINT64_MAX;
            change_policy(db);
        }
        if (choice < 30 && tier_count(db) < 30) {
            flush(db, 1 + (uint32_t)rng_below(&db->rng, 20), deletes_in_8);
        } else if (choice < 65) {
            (void)try_start(db);
        } else if (choice < 99 && db->job_count > 0) {
            finish_job(db, rng_below(&db->rng, db->job_count));
        } else if (choice == 99) {
            uint8_t text[2][KEY_LEN];
            key_text((uint32_t)rng_below(&db->rng, KEYS), text[0]);
            key_text((uint32_t)rng_below(&db->rng, KEYS), text[1]);
            merge_range(db, bytes_make(text[0], rng_below(&db->rng, 4)),
                        bytes_make(text[1], rng_below(&db->rng, 4)));
        }
    }
}

static void
compaction_pick__tree_is_right_whatever_runs_at_once(void **state)
{
    (void)state;
    struct toy_db *db = malloc(sizeof *db);
    uint64_t moves = 0;
    uint64_t rewrites = 0;
    uint64_t tier_merges = 0;
    uint64_t tier_segments = 0;
    uint64_t waits = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        db_init(db, seed);
        random_life(db, 600);
        moves += db->moves;
        rewrites += db->rewrites;
        tier_merges += db->tier_merges;
        tier_segments += db->tier_segments;
        waits += db->waits;
        finish_all(db);
        db_fini(db);
    }
    assert_true(moves > 100 && rewrites > 100 && tier_merges > 100 && waits > 100);
    assert_true(tier_segments > 2 * tier_merges); /* many of them are of several */
    free(db);
}

static void
compaction_pick__comes_to_rest_in_shape(void **state)
{
    (void)state;
    struct toy_db *db = malloc(sizeof *db);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        db_init(db, seed * 7);
        random_life(db, 300);
        come_to_rest(db);
        uint64_t bottom = 0;
        uint64_t above = 0;
        for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
            for (size_t j = 0; j < db->levels[i].count; j++) {
                uint64_t size = db->levels[i].segments[j]->meta.size_bytes;
                above += i > 0 && i < ESKER_LEVELS_MAX - 1 ? size : 0;
                bottom += i == ESKER_LEVELS_MAX - 1 ? size : 0;
            }
        }
        /* A geometric series of levels over the bottom, and levels that hold a trifle. */
        uint64_t fanout = db->config.fanout;
        assert_true(above <= bottom / (fanout - 1) + ESKER_LEVELS_MAX * (db->config.base_bytes / fanout + 1));
        db_fini(db);
    }
    free(db);
}

static void
compaction_pick__mass_deletion_gives_the_space_back(void **state)
{
    (void)state;
    struct toy_db *db = malloc(sizeof *db);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        db_init(db, seed * 13);
        random_life(db, 300);
        come_to_rest(db);
        struct toy_segment *segment = segment_new();
        for (uint32_t key = 0; key < KEYS; key++) {
            db->newest[key] = (struct toy_row){.key = key, .lsn = ++db->lsn, .is_delete = true};
            segment->rows[key] = db->newest[key];
        }
        segment_seal(db, segment, 0);
        level_add(&db->levels[0], segment, 0);
        uint32_t trigger = db->config.l0_trigger;
        db->config.l0_trigger = 1;
        come_to_rest(db);
        db->config.l0_trigger = trigger;
        for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
            assert_int_equal(db->levels[i].count, 0);
        }
        db_fini(db);
    }
    free(db);
}

static void
compaction_pick_range__all_of_it_ends_in_one_level_without_deletes(void **state)
{
    (void)state;
    struct toy_db *db = malloc(sizeof *db);
    for (uint64_t seed = 1; seed <= 40; seed++) {
        db_init(db, seed * 11);
        random_life(db, 300);
        merge_range(db, (struct bytes){0}, (struct bytes){0});
        unsigned levels = 0;
        for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
            levels += db->levels[i].count > 0;
        }
        assert_true(levels <= 1);
        assert_int_equal(db->levels[0].count, 0);
        db_fini(db);
    }
    free(db);
}

/* How much merging costs; a bound that a mistake in choosing would burst. */
static void
compaction_pick__write_amplification_is_bounded(void **state)
{
    (void)state;
    struct toy_db *db = malloc(sizeof *db);
    db_init(db, 1);
    db->config = (struct picker_config){.l0_trigger = 4, .base_bytes = 16, .fanout = 4, .segment_bytes = 4};
    uint64_t flushed = 0;
    for (unsigned i = 0; i < 2000; i++) {
        flush(db, 6, 0);
        flushed += db->levels[0].segments[0]->meta.row_count;
        while (try_start(db)) {
            finish_all(db);
        }
    }
    assert_true(db->rows_written < 8 * flushed);
    db_fini(db);
    free(db);
}

/* New keys alone, lazily merged: a row is rewritten as often as sizes double, about. */
static void
compaction_pick__lazy_writes_less(void **state)
{
    (void)state;
    struct toy_db *db = malloc(sizeof *db);
    uint64_t written[2];
    for (unsigned lazy = 0; lazy < 2; lazy++) {
        db_init(db, 2); /* bounds as they are */
        db->cut_bounds = false;
        db->config =
            (struct picker_config){.l0_trigger = 4, .base_bytes = 16, .fanout = 4, .segment_bytes = 4};
        if (lazy > 0) {
            db->config.lazy = true;
            db->config.l0_eighths = 8;
            db->config.l0_trigger = 8;
        }
        for (uint32_t i = 0; i < KEYS; i += 2) {
            struct toy_segment *segment = segment_new();
            for (uint32_t j = i; j < i + 2; j++) {
                uint32_t key = j * 77 % KEYS; /* 77 and KEYS share no factor: each once */
                segment->rows[key] = db->newest[key] = (struct toy_row){.key = key, .lsn = ++db->lsn};
            }
            segment_seal(db, segment, 0);
            level_add(&db->levels[0], segment, 0);
            while (try_start(db)) {
                finish_all(db);
            }
        }
        written[lazy] = db->rows_written;
        db_fini(db);
    }
    assert_true(written[1] < 4 * KEYS);
    assert_true(written[1] < written[0]);
    free(db);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compaction_pick__tree_is_right_whatever_runs_at_once),
        cmocka_unit_test(compaction_pick__comes_to_rest_in_shape),
        cmocka_unit_test(compaction_pick__mass_deletion_gives_the_space_back),
        cmocka_unit_test(compaction_pick_range__all_of_it_ends_in_one_level_without_deletes),
        cmocka_unit_test(compaction_pick__write_amplification_is_bounded),
        cmocka_unit_test(compaction_pick__lazy_writes_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
