/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: merges change no answer. Whatever the sizes, the threads, the policy, the
 * length of a step and the way steps and writes interleave: the same operations give the
 * same answers; no two merges overlap; levels stay sorted; what any of 1,000
 * snapshots sees is kept, and nothing else; a full disk, damage and a close in
 * the middle of merges lose nothing.
 * Method: one script of operations, checked against plain arrays, under 36 sets
 * of options, with digests of all answers compared; merges by steps of a few
 * rows, between any two operations; rows counted after a full merge.
 *
 *   prop_compaction [seed [operations]]
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/rng.h"
#include "db/db_compact.h"
#include "io/io_sim.h"

enum { KEYS = 2400, FEW_KEYS = 200, HELD = 12, SNAPSHOTS = 1000, VALUE_MAX = 120, SETS = 36, LEAST_RUNS = 3 };

static uint64_t run_seed;
static const char *run_what = "";

static void
check(bool holds, const char *what)
{
    if (!holds) {
        esker_error error;
        esker_error_init(&error);
        esker_last_error(&error);
        fprintf(stderr, "seed %llu, %s: %s (last error: %s %s %s)\n", (unsigned long long)run_seed, run_what,
                what, esker_status_name(error.status), error.file, error.message);
        abort();
    }
}

/* ---- The database and its model ------------------------------------------------- */

struct view {
    uint32_t id[KEYS]; /* of the value; 0 = absent */
};

struct held {
    esker_snapshot *snapshot;
    struct view view;
};

struct world {
    struct sim_disk *disk;
    esker_db *db;
    bool manual;
    struct db_tuning tuning;
    esker_options options;
    struct rng rng;
    uint32_t keys; /* in use */
    struct view now;
    uint32_t next_id;
    uint64_t digest;
    struct held held[HELD];
    uint64_t most_runs, most_parts, tier_merges;
    bool policy_changes;
};

static size_t
key_make(uint32_t key, char out[16])
{
    return (size_t)snprintf(out, 16, "key%05u", key);
}

static esker_slice
key_slice(uint32_t key, char buf[16])
{
    return (esker_slice){buf, key_make(key, buf)};
}

static size_t
value_make(uint32_t key, uint32_t id, uint8_t out[VALUE_MAX])
{
    size_t size = 4 + (key * 7 + id * 13) % (VALUE_MAX - 4);
    memset(out, (int)(id % 251), size);
    memcpy(out, &id, sizeof id);
    return size;
}

static void
world_open(struct world *world)
{
    struct io *io = NULL;
    check(io_sim_open(world->disk, &mem_default, &io) == ESKER_OK, "no disk");
    check(db_open_on(io, &world->options, &world->tuning, world->manual, &world->db) == ESKER_OK,
          "the database does not open");
}

static void
world_init(struct world *world, uint64_t seed)
{
    *world = (struct world){.disk = sim_disk_create(seed), .manual = true, .rng = {seed}, .keys = KEYS};
    esker_options_init(&world->options);
    world->options.memory_budget_bytes = 8 << 20;
    world->options.background_threads = 4;
    world->tuning = (struct db_tuning){
        .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 8192, .merge_step_work = 500};
}

static void
world_fini(struct world *world)
{
    for (uint32_t i = 0; i < HELD; i++) {
        esker_snapshot_release(world->held[i].snapshot);
    }
    check(esker_close(world->db) == ESKER_OK, "a close failed");
    sim_disk_destroy(world->disk);
}

static void
put(struct world *world, uint32_t key)
{
    char buf[16];
    uint8_t value[VALUE_MAX];
    uint32_t id = ++world->next_id;
    size_t size = value_make(key, id, value);
    check(esker_put(world->db, key_slice(key, buf), (esker_slice){value, size}, NULL) == ESKER_OK, "put");
    world->now.id[key] = id;
}

static void
put_or_delete(struct world *world, uint32_t key)
{
    char buf[16];
    if (rng_below(&world->rng, 5) != 0) {
        put(world, key);
        return;
    }
    check(esker_delete(world->db, key_slice(key, buf), NULL) == ESKER_OK, "delete");
    world->now.id[key] = 0;
}

/* ---- Reading ------------------------------------------------------------------------ */

static void
check_value(struct world *world, uint32_t key, uint32_t id, esker_slice got)
{
    uint8_t value[VALUE_MAX];
    size_t size = value_make(key, id, value);
    check(got.size == size && memcmp(got.data, value, size) == 0, "a value is wrong");
    world->digest = hash64(got.data, got.size, world->digest + key);
}

static void
check_get(struct world *world, const esker_snapshot *snapshot, const struct view *view, uint32_t key)
{
    char buf[16];
    uint8_t got[VALUE_MAX];
    size_t size = 0;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_status status = esker_get_copy(world->db, key_slice(key, buf), &options, got, sizeof got, &size);
    check(status == (view->id[key] != 0 ? ESKER_OK : ESKER_NOT_FOUND), "a key is lost or found");
    if (status == ESKER_OK) {
        check_value(world, key, view->id[key], (esker_slice){got, size});
    }
}

static void
check_scan(struct world *world, const esker_snapshot *snapshot, const struct view *view, bool backwards)
{
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_iter *it = NULL;
    check(esker_iter_create(world->db, &options, &it) == ESKER_OK, "no iterator");
    esker_status status = backwards ? esker_iter_last(it) : esker_iter_first(it);
    for (uint32_t i = 0; i < KEYS; i++) {
        uint32_t key = backwards ? KEYS - 1 - i : i;
        if (view->id[key] == 0) {
            continue;
        }
        char buf[16];
        esker_slice wanted = key_slice(key, buf);
        check(status == ESKER_OK, "a scan ends too early");
        esker_slice found = esker_iter_key(it);
        check(found.size == wanted.size && memcmp(found.data, wanted.data, found.size) == 0, "a wrong key");
        esker_slice value;
        check(esker_iter_value(it, &value) == ESKER_OK, "no value");
        check_value(world, key, view->id[key], value);
        status = backwards ? esker_iter_prev(it) : esker_iter_next(it);
    }
    check(status == ESKER_END, "a scan goes on behind the end");
    esker_iter_destroy(it);
}

/* ---- The tree ------------------------------------------------------------------------- */

static bool
ranges_meet(const struct level_run *a, const struct level_run *b)
{
    for (uint32_t i = 0; i < a->count; i++) {
        for (uint32_t k = 0; k < b->count; k++) {
            const struct segment_meta *left = segment_meta(a->segments[i]);
            const struct segment_meta *right = segment_meta(b->segments[k]);
            if (bytes_compare(left->max_key, right->min_key) >= 0 &&
                bytes_compare(right->max_key, left->min_key) >= 0) {
                return true;
            }
        }
    }
    return false;
}

/* Runs that write into one level share no key; no segment is in two runs. */
static void
check_runs(const struct compact_run *a, const struct compact_run *b)
{
    for (size_t i = 0; i < a->drop_count; i++) {
        for (size_t k = 0; k < b->drop_count; k++) {
            check(a->drop_ids[i] != b->drop_ids[k], "two merges share a segment");
        }
    }
    bool begun = a->overlaps != NULL && b->overlaps != NULL && a->plan->output_level > 0;
    if (begun && a->plan->output_level == b->plan->output_level) {
        check(!ranges_meet(a->inputs, b->inputs) && !ranges_meet(a->inputs, b->overlaps) &&
                  !ranges_meet(a->overlaps, b->inputs),
              "two merges into one level share keys");
    }
}

/* Manual mode: nothing moves meanwhile. */
static void
check_tree(struct world *world)
{
    const struct version *version = load_relaxed(&world->db->current); /* relaxed: one thread */
    for (uint32_t level = 1; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 1; run != NULL && i < run->count; i++) {
            check(bytes_compare(segment_meta(run->segments[i - 1])->max_key,
                                segment_meta(run->segments[i])->min_key) < 0,
                  "a level is not sorted");
        }
    }
    uint64_t runs = 0;
    for (const struct compact_run *run = world->db->compact_runs; run != NULL; run = run->next) {
        runs++;
        world->tier_merges += run->plan->output_level == 0;
        world->most_parts = MAX(world->most_parts, (uint64_t)run->part_count);
        for (const struct compact_run *other = run->next; other != NULL; other = other->next) {
            check_runs(run, other);
        }
    }
    world->most_runs = MAX(world->most_runs, runs);
}

/* Some steps of whatever is due. */
static void
run_steps(struct world *world, uint64_t most)
{
    for (uint64_t i = 0; world->manual && i < most && workers_run_one(); i++) {
        check_tree(world);
    }
}

/* ---- The script --------------------------------------------------------------------- */

static void
snapshot_op(struct world *world)
{
    struct held *held = &world->held[rng_below(&world->rng, HELD)];
    if (held->snapshot == NULL) {
        check(esker_snapshot_create(world->db, &held->snapshot) == ESKER_OK, "snapshot");
        held->view = world->now;
    } else if (rng_below(&world->rng, 3) == 0) {
        esker_snapshot_release(held->snapshot);
        held->snapshot = NULL;
    } else {
        check_get(world, held->snapshot, &held->view, (uint32_t)rng_below(&world->rng, world->keys));
        check_scan(world, held->snapshot, &held->view, rng_below(&world->rng, 2) == 0);
    }
}

static void
compact_op(struct world *world)
{
    char buf[2][16];
    uint32_t from = (uint32_t)rng_below(&world->rng, world->keys);
    esker_slice lower = key_slice(from, buf[0]);
    esker_slice upper = key_slice(from + (uint32_t)rng_below(&world->rng, world->keys), buf[1]);
    bool all = rng_below(&world->rng, 3) == 0;
    check(esker_compact(world->db, all ? NULL : &lower, all ? NULL : &upper) == ESKER_OK, "compact");
}

/* The script's choices depend on the seed alone, not on the options. */
static void
one_operation(struct world *world)
{
    uint64_t what = rng_below(&world->rng, 1000);
    uint64_t steps = rng_below(&world->rng, 12);
    if (what < 930) {
        put_or_delete(world, (uint32_t)(rng_below(&world->rng, world->keys) *
                                        rng_below(&world->rng, world->keys) / world->keys));
    } else if (what < 960) {
        check_get(world, NULL, &world->now, (uint32_t)rng_below(&world->rng, world->keys));
    } else if (what < 972) {
        snapshot_op(world);
    } else if (what < 978) {
        check_scan(world, NULL, &world->now, what % 2 == 0);
    } else if (what < 985) {
        check(esker_flush(world->db) == ESKER_OK, "flush");
    } else if (what < 987) {
        compact_op(world);
    }
    if (world->policy_changes && what % 50 == 0) {
        mutex_lock(&world->db->mu);
        world->db->merge_policy = (enum merge_policy)(1 + what / 50 % 3);
        mutex_unlock(&world->db->mu);
    }
    run_steps(world, steps);
}

static void
choose_options(struct world *world, uint32_t set)
{
    static const uint64_t windows[3][2] = {{4096, 4096}, {4096, 32768}, {8192, 8192}};
    static const uint32_t threads[3] = {1, 4, 3};
    uint32_t sizes = set % 3;
    uint32_t thread = set / 3 % 3;
    world->tuning.window_bytes_first = windows[sizes][0];
    world->tuning.window_bytes_max = windows[sizes][1];
    world->tuning.segment_bytes = set / 9 % 2 == 0 ? 8192 : 65536;
    world->tuning.merge_step_work = set / 18 % 2 == 0 ? 500 : 0;
    world->options.background_threads = threads[thread];
    world->manual = thread < 2;
    world->options.compression = ESKER_COMPRESS_AUTO + (int)(set % 4);
    world->tuning.merge_policy = (enum merge_policy)(set % 5 % 4); /* the fifth: one after the other */
    world->policy_changes = set % 5 == 4;
}

static void
prop_same_answers(uint64_t seed, uint64_t operations)
{
    uint64_t digest = 0;
    uint64_t most_runs = 0;
    uint64_t most_parts = 0;
    uint64_t tier_merges = 0;
    for (uint32_t set = 0; set < SETS; set++) {
        static struct world world;
        static char what[40];
        snprintf(what, sizeof what, "option set %u", set);
        run_what = what;
        world_init(&world, seed);
        choose_options(&world, set);
        world_open(&world);
        for (uint64_t i = 0; i < operations; i++) {
            one_operation(&world);
        }
        check_scan(&world, NULL, &world.now, false);
        check(set == 0 || world.digest == digest, "the answers differ from those of set 0");
        digest = world.digest;
        most_runs = MAX(most_runs, world.most_runs);
        most_parts = MAX(most_parts, world.most_parts);
        tier_merges += world.tier_merges;
        world_fini(&world);
    }
    run_what = "all sets";
    check(most_runs >= 2, "no two merges ever ran at once: the test has no teeth");
    check(tier_merges >= 20, "tiers were hardly ever merged: the test has no teeth");
    check(most_parts >= 2, "no merge was ever cut into parts: the test has no teeth");
}

/* ---- 1,000 snapshots ------------------------------------------------------------------- */

/* Of each key one version per stripe in which it was written, but for what a
 * delete at the bottom leaves of the oldest stripe. */
struct expected {
    uint64_t puts, deletes;
};

static void
count_rows(const esker_db *db, struct expected *out)
{
    const struct version *version = load_relaxed(&db->current); /* relaxed: one thread */
    *out = (struct expected){0};
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            const struct segment_meta *meta = segment_meta(run->segments[i]);
            out->puts += meta->row_count - meta->tombstone_count;
            out->deletes += meta->tombstone_count;
        }
    }
}

static void
prop_thousand_snapshots(uint64_t seed)
{
    static struct world world;
    static struct held held[SNAPSHOTS];
    run_what = "1,000 snapshots";
    world_init(&world, seed);
    world.keys = FEW_KEYS;
    world_open(&world);
    struct expected wanted = {0};
    struct view last = {{0}};
    bool written[KEYS] = {false};
    bool ever[KEYS] = {false};
    for (uint32_t i = 0; i <= SNAPSHOTS; i++) {
        memset(written, 0, sizeof written);
        for (uint64_t n = rng_below(&world.rng, 6); n > 0; n--) {
            uint32_t key = (uint32_t)rng_below(&world.rng, world.keys);
            put_or_delete(&world, key);
            written[key] = true;
        }
        for (uint32_t key = 0; key < KEYS; key++) { /* what this stripe leaves */
            wanted.puts += written[key] && world.now.id[key] != 0;
            wanted.deletes += written[key] && world.now.id[key] == 0 && (ever[key] || i > 0);
            ever[key] = ever[key] || written[key];
        }
        if (i < SNAPSHOTS) {
            check(esker_snapshot_create(world.db, &held[i].snapshot) == ESKER_OK, "snapshot");
            held[i].view = world.now;
        }
        run_steps(&world, rng_below(&world.rng, 8));
    }
    last = world.now;
    check(esker_compact(world.db, NULL, NULL) == ESKER_OK, "compact");
    struct expected got;
    count_rows(world.db, &got);
    check(got.puts == wanted.puts, "not exactly what somebody sees was kept");
    check(got.deletes <= wanted.deletes, "a delete was kept that nobody needs");
    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        check_scan(&world, held[i].snapshot, &held[i].view, i % 2 == 0);
    }
    check_scan(&world, NULL, &last, false);
    for (uint32_t i = 0; i < SNAPSHOTS; i++) {
        esker_snapshot_release(held[i].snapshot);
    }
    world_fini(&world);
}

/* ---- Trouble -------------------------------------------------------------------------------- */

static void
fill(struct world *world, uint32_t puts)
{
    for (uint32_t i = 0; i < puts; i++) {
        put_or_delete(world, (uint32_t)rng_below(&world->rng, world->keys));
    }
    check(esker_flush(world->db) == ESKER_OK, "flush");
}

static esker_stats
stats_of(struct world *world)
{
    esker_stats stats;
    esker_stats_init(&stats);
    check(esker_get_stats(world->db, &stats) == ESKER_OK, "stats");
    return stats;
}

/* A full disk: a merge says so, everything is there, and with room it is done. */
static void
prop_full_disk(uint64_t seed)
{
    static struct world world;
    run_what = "a full disk";
    world_init(&world, seed);
    world_open(&world);
    fill(&world, 900);
    esker_stats before = stats_of(&world);
    sim_disk_set_capacity(world.disk, 1); /* nothing can grow any more */
    check(esker_compact(world.db, NULL, NULL) == ESKER_NO_SPACE, "a merge found room on a full disk");
    check_scan(&world, NULL, &world.now, false);
    check(stats_of(&world).segment_bytes == before.segment_bytes, "a merge that failed changed the tree");
    check(stats_of(&world).compactions_failed > 0, "the failure is not counted");
    check(world.db->merge_reserved_bytes == 0 && world.db->claimed_count == 0, "a failed merge left claims");
    sim_disk_set_capacity(world.disk, 0);
    check(esker_compact(world.db, NULL, NULL) == ESKER_OK, "a merge fails although there is room");
    check_scan(&world, NULL, &world.now, true);
    world_fini(&world);
}

static void
damage_some_segment(struct world *world)
{
    static struct sim_file_info files[256];
    size_t count = sim_disk_files(world->disk, files, COUNTOF(files));
    for (size_t i = 0; i < MIN(count, COUNTOF(files)); i++) {
        if (strstr(files[i].name, ".seg") != NULL) {
            sim_disk_flip(world->disk, files[i].name, 8 * 200); /* in its first block */
            return;
        }
    }
    check(false, "no segment to damage");
}

/* Damage: told, inputs kept, and the background does not run into it again and again. */
static void
prop_damage(uint64_t seed)
{
    static struct world world;
    run_what = "damage";
    world_init(&world, seed);
    world.options.compression = ESKER_COMPRESS_NONE;
    world.keys = FEW_KEYS;
    world_open(&world);
    fill(&world, 300);
    damage_some_segment(&world);
    uint64_t segments = stats_of(&world).segments;
    check(esker_compact(world.db, NULL, NULL) == ESKER_CORRUPT, "a merge did not see the damage");
    check(stats_of(&world).segments == segments, "a merge that met damage changed the tree");
    check(stats_of(&world).compactions_damaged == 1, "the damage is not counted");
    check(world.db->damaged_count == 1, "the damaged segment is not known by its name");
    for (uint32_t i = 0; i < 400; i++) {
        put(&world, (uint32_t)rng_below(&world.rng, world.keys));
    }
    run_steps(&world, 2000);
    check(stats_of(&world).compactions_damaged == 1, "the background met the same damage again");
    world_fini(&world);
}

/* Closed with merges half done: they vanish, and nothing else. */
static void
prop_close_in_the_middle(uint64_t seed)
{
    static struct world world;
    run_what = "a close in the middle of merges";
    world_init(&world, seed);
    world.tuning.merge_step_work = 1;
    world_open(&world);
    uint32_t caught = 0;
    for (uint32_t round = 0; round < 40; round++) {
        fill(&world, 150);
        run_steps(&world, 20 + rng_below(&world.rng, 60));
        caught += world.db->compact_runs != NULL;
        check(esker_close(world.db) == ESKER_OK, "close");
        world_open(&world);
        check_scan(&world, NULL, &world.now, round % 2 == 0);
    }
    check(caught >= LEAST_RUNS, "no merge was running at a close: the test has no teeth");
    world_fini(&world);
}

int
main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t operations = argc > 2 ? strtoull(argv[2], NULL, 10) : 5000;
    run_seed = seed;
    prop_same_answers(seed, operations);
    prop_thousand_snapshots(seed);
    prop_full_disk(seed);
    prop_damage(seed);
    prop_close_in_the_middle(seed);
    printf("seed %llu: %d sets of options, %d snapshots: merges change no answer\n", (unsigned long long)seed,
           SETS, SNAPSHOTS);
    return 0;
}
