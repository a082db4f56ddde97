/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: whatever is asked of a database, in any order, at the newest state or at
 * an older one, across flush, merge and reopen, the answer is that of a naive
 * versioned map; and it does not depend on what stands below the I/O seam.
 * Method: random operations with windows of a few KiB, checked one by one
 * against the map; the same operations on the simulated disk, posix and
 * io_uring in one thread each, with equal digests of all answers; and once more
 * with background threads, where only the map is asked. Each run mixes some shapes of
 * keys that lie at a border of something: of the prefixes that are compared first, of
 * bounds in the manifest, of what a key may be; and values at the borders of blocks,
 * windows and batches with a window of their own. From time to time every key is asked
 * for in every way there is.
 *
 *   prop_db_model [seed [runs [operations]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/rng.h"
#include "db/db.h"
#include "io/io_sim.h"
#include "db_map.h"

enum { KEY_MAX = KEY_BYTES_MAX, BATCH_MAX = 24, SNAPSHOTS_MAX = 6, ITERS_MAX = 5 };

enum { WINDOW_FIRST = 4096, WINDOW_MOST = 16384 };

/* ---- The database under test ------------------------------------------------------ */

enum below { BELOW_SIM, BELOW_POSIX, BELOW_URING, BELOW_THREADS };

static const char *const below_names[] = {"the simulated disk", "posix", "io_uring", "io_uring with threads"};

struct held_iter {
    esker_iter *it;
    uint32_t at; /* the commit that it sees */
    bool on_snapshot, keys_only;
    uint32_t from, to; /* keys [from, to) are within its bounds */

    enum { NOWHERE, ON_KEY, AT_END, AT_START } where;

    uint32_t key;
};

struct held_snapshot {
    esker_snapshot *snapshot;
    uint32_t at;
};

struct world {
    enum below below;
    struct sim_disk *disk;
    char path[64];
    esker_db *db;
    struct rng rng;
    uint64_t digest;
    struct held_snapshot snapshots[SNAPSHOTS_MAX];
    struct held_iter iters[ITERS_MAX];
};

static void
note(struct world *world, const void *bytes, size_t len)
{
    world->digest = hash64(bytes, len, world->digest);
}

static esker_status
note_status(struct world *world, esker_status status)
{
    int32_t number = status;
    note(world, &number, sizeof number);
    return status;
}

static uint64_t
pick(struct world *world, uint64_t below)
{
    return rng_below(&world->rng, below);
}

static uint32_t
pick_key(struct world *world)
{
    return (uint32_t)pick(world, map.key_count);
}

static void
world_open(struct world *world)
{
    esker_options options;
    esker_options_init(&options);
    struct db_tuning tuning = {.window_bytes_first = WINDOW_FIRST,
                               .window_bytes_max = WINDOW_MOST,
                               .segment_bytes = (uint64_t)WINDOW_MOST >> (run_seed / 3 % 4 * 2)};
    options.memory_budget_bytes = 8 << 20;
    options.compression = (int)((run_seed + run_seed / 4) % 4);
    options.durability = 1 + (int)(run_seed % 4);
    struct io *io = NULL;
    int kind = world->below == BELOW_POSIX ? ESKER_IO_POSIX : ESKER_IO_URING;
    esker_status status = world->below == BELOW_SIM ? io_sim_open(world->disk, &mem_default, &io)
                                                    : io_open_dir(world->path, true, kind, &mem_default, &io);
    check(status == ESKER_OK, "no directory");
    status = db_open_on(io, &options, &tuning, world->below != BELOW_THREADS, &world->db);
    check(status == ESKER_OK, "the database does not open");
}

/* ---- Writing ---------------------------------------------------------------------------- */

static esker_write_options
pick_write_options(struct world *world)
{
    esker_write_options options;
    esker_write_options_init(&options);
    options.durability = pick(world, 12) == 0 ? ESKER_DURABLE_SYNC : (int)pick(world, 4);
    return options;
}

static uint32_t
pick_size(struct world *world)
{
    static const uint32_t edges[] = {
        WINDOW_FIRST / 4, WINDOW_FIRST, WINDOW_MOST / 4, WINDOW_MOST, 2 * WINDOW_MOST, 64, 256};
    uint64_t kind = pick(world, 40);
    if (kind == 1) { /* with the headers before it, or without */
        uint32_t edge = edges[pick(world, COUNTOF(edges))];
        return edge + 2 - (uint32_t)pick(world, pick(world, 2) == 0 ? 5 : 80) % edge;
    }
    return (uint32_t)(kind == 0 ? pick(world, 6000) : kind < 4 ? pick(world, 900) : pick(world, 50));
}

static void
committed(struct world *world, esker_lsn begin, esker_lsn end)
{
    map.begin[map.commits] = begin;
    map.end[map.commits] = end;
    check(end > map.end[map.commits - 1] || map.commits == 1, "an LSN does not grow");
    check(esker_visible_lsn(world->db) >= end, "what was written is not visible");
}

static void
do_put_or_delete(struct world *world)
{
    static uint8_t value[VALUE_MAX];
    uint32_t key = pick_key(world);
    uint32_t size = pick_size(world);
    bool is_delete = pick(world, 4) == 0;
    esker_write_options options = pick_write_options(world);
    esker_lsn begin = esker_visible_lsn(world->db);
    map.commits++;
    map_add(key, is_delete, size, 0);
    value_make(key, map.commits, size, value);
    esker_slice bytes = esker_bytes(value, size);
    esker_status status = is_delete ? esker_delete(world->db, key_slice(key), &options)
                                    : esker_put(world->db, key_slice(key), bytes, &options);
    check(note_status(world, status) == ESKER_OK, "a write failed");
    committed(world, begin, esker_visible_lsn(world->db));
}

static uint32_t
pick_commit(struct world *world)
{
    uint64_t back = pick(world, pick(world, 4) == 0 ? map.commits + 1 : MIN(map.commits + 1, 30U));
    return map.commits - (uint32_t)back;
}

struct plan {
    uint32_t count, keys[BATCH_MAX], sizes[BATCH_MAX];
    bool deletes[BATCH_MAX];
    uint64_t expires[BATCH_MAX]; /* 0: never; 1: before it is written */
    bool changed;                /* a required key has changed */
    bool excusable;              /* one is absent, so that the engine may not know any more */
};

static void
plan_requires(struct world *world, esker_batch *batch, struct plan *plan)
{
    uint32_t requires = pick(world, 3) == 0 ? 1 + (uint32_t)pick(world, 3) : 0;
    for (uint32_t i = 0; i < requires; i++) {
        uint32_t key = pick_key(world);
        uint32_t since = pick(world, 2) == 0 ? map.commits : pick_commit(world);
        esker_lsn lsn = since == map.commits ? esker_visible_lsn(world->db) : map.end[since];
        check(esker_batch_require(batch, key_slice(key), lsn) == ESKER_OK, "a requirement is refused");
        plan->changed = plan->changed || map_changed_after(key, since);
        plan->excusable = plan->excusable || map_find(key, map.commits) == NULL;
    }
}

static void
plan_add(struct world *world, esker_batch *batch, struct plan *plan, uint32_t i, esker_slice value)
{
    static const uint64_t ends[] = {1, 1, ESKER_TTL_NONE / 2, ESKER_TTL_NONE / 2 - 1, ESKER_TTL_NONE - 1};
    esker_slice key = key_slice(plan->keys[i]);
    esker_status status;
    if (plan->deletes[i]) {
        status = esker_batch_delete(batch, key);
    } else if (pick(world, 6) == 0) {
        uint64_t end = ends[pick(world, COUNTOF(ends))];
        status = esker_batch_put_until(batch, key, value, end);
        plan->expires[i] = end >= ESKER_TTL_NONE / 2 ? 0 : end;
    } else {
        status = esker_batch_put(batch, key, value);
    }
    check(status == ESKER_OK, "a batch does not grow");
}

static void
do_batch(struct world *world)
{
    static uint8_t value[VALUE_MAX];
    esker_batch *batch = NULL;
    struct plan plan = {.count = (uint32_t)pick(world, BATCH_MAX)};
    check(esker_batch_create(&batch) == ESKER_OK, "no batch");
    plan_requires(world, batch, &plan);
    for (uint32_t i = 0; i < plan.count; i++) {
        plan.keys[i] = pick_key(world);
        plan.sizes[i] = pick_size(world) / 4;
        plan.deletes[i] = pick(world, 4) == 0;
        value_make(plan.keys[i], map.commits + 1, plan.sizes[i], value);
        plan_add(world, batch, &plan, i, esker_bytes(value, plan.sizes[i]));
    }
    esker_lsn end = 0;
    esker_write_options options = pick_write_options(world);
    esker_status status = note_status(world, esker_write(world->db, batch, &options, &end));
    esker_batch_destroy(batch);
    if (status == ESKER_CONFLICT) {
        check(plan.changed || plan.excusable, "a conflict without a change");
        check(end == 0, "an output was touched");
    } else {
        check(status == ESKER_OK, "a batch failed");
        check(!plan.changed, "a conflict was missed");
        if (plan.count > 0) {
            map.commits++;
            for (uint32_t i = 0; i < plan.count; i++) {
                map_add(plan.keys[i], plan.deletes[i], plan.sizes[i], plan.expires[i]);
            }
            committed(world, end, end);
        }
    }
}

/* ---- Point reads --------------------------------------------------------------------------- */

static struct held_snapshot *
pick_snapshot(struct world *world)
{
    struct held_snapshot *held = &world->snapshots[pick(world, SNAPSHOTS_MAX)];
    return held->snapshot != NULL && pick(world, 2) == 0 ? held : NULL;
}

static uint32_t
reader_options(struct world *world, esker_read_options *options)
{
    struct held_snapshot *held = pick_snapshot(world);
    esker_read_options_init(options);
    options->snapshot = held != NULL ? held->snapshot : NULL;
    options->fill_cache = pick(world, 4) != 0;
    return held != NULL ? held->at : map.commits;
}

static void
do_get(struct world *world)
{
    static uint8_t buf[VALUE_MAX];
    uint32_t key = pick_key(world);
    esker_read_options options;
    uint32_t at = reader_options(world, &options);
    const struct version_of *version = map_find(key, at);
    esker_value value = {0};
    size_t size = 12345;
    size_t cap = pick(world, 2) == 0 ? sizeof buf : pick(world, 60);
    esker_status status = note_status(world, esker_get(world->db, key_slice(key), &options, &value));
    check(status == (version != NULL ? ESKER_OK : ESKER_NOT_FOUND), "a get is wrong");
    esker_status copied =
        note_status(world, esker_get_copy(world->db, key_slice(key), &options, buf, cap, &size));
    if (version == NULL) {
        check(copied == ESKER_NOT_FOUND && size == 12345 && value.data == NULL, "an output was touched");
        return;
    }
    value_check(key, version, value.data, value.size);
    check(size == value.size, "a copy of another size");
    check(copied == (size > cap ? ESKER_TRUNCATED : ESKER_OK), "a copy with another status");
    check(memcmp(buf, value.data, MIN(cap, size)) == 0, "a copy differs");
    note(world, value.data, value.size);
    esker_value_release(&value);
}

static void
do_multi_get(struct world *world)
{
    esker_slice keys[BATCH_MAX];
    uint32_t indexes[BATCH_MAX];
    esker_value values[BATCH_MAX];
    esker_status statuses[BATCH_MAX];
    esker_read_options options;
    uint32_t at = reader_options(world, &options);
    uint32_t count = (uint32_t)pick(world, BATCH_MAX);
    for (uint32_t i = 0; i < count; i++) {
        indexes[i] = pick_key(world);
        keys[i] = key_slice(indexes[i]);
    }
    check(note_status(world, esker_multi_get(world->db, count, keys, &options, values, statuses)) == ESKER_OK,
          "a multi-get failed");
    for (uint32_t i = 0; i < count; i++) {
        const struct version_of *version = map_find(indexes[i], at);
        check(statuses[i] == (version != NULL ? ESKER_OK : ESKER_NOT_FOUND), "a multi-get is wrong");
        if (version != NULL) {
            value_check(indexes[i], version, values[i].data, values[i].size);
            esker_value_release(&values[i]);
        }
        (void)note_status(world, statuses[i]);
    }
}

/* ---- Snapshots -------------------------------------------------------------------------------- */

static void
do_snapshot(struct world *world)
{
    struct held_snapshot *held = &world->snapshots[pick(world, SNAPSHOTS_MAX)];
    if (held->snapshot != NULL) {
        esker_snapshot_release(held->snapshot);
        held->snapshot = NULL;
        return;
    }
    if (pick(world, 2) == 0) {
        check(esker_snapshot_create(world->db, &held->snapshot) == ESKER_OK, "no snapshot");
        held->at = map.commits;
        check(map_commit_at(esker_snapshot_lsn(held->snapshot)) == held->at, "a snapshot of another moment");
        return;
    }
    esker_lsn visible = esker_visible_lsn(world->db);
    esker_lsn lsn = map.end[pick_commit(world)] + pick(world, 12);
    esker_status status = note_status(world, esker_snapshot_create_at(world->db, lsn, &held->snapshot));
    if (lsn > visible) {
        check(status == ESKER_INVALID, "a snapshot in the future");
    } else if (status == ESKER_OK && map_is_unsure_at(esker_snapshot_lsn(held->snapshot))) {
        esker_snapshot_release(held->snapshot);
        held->snapshot = NULL;
    } else if (status == ESKER_OK) {
        held->at = map_commit_at(lsn);
        check(esker_snapshot_lsn(held->snapshot) <= lsn, "a snapshot is rounded up");
        check(map_commit_at(esker_snapshot_lsn(held->snapshot)) == held->at, "a snapshot cuts a batch");
    } else {
        check(status == ESKER_NOT_FOUND, "a snapshot of the past failed");
    }
}

/* ---- Iterators ----------------------------------------------------------------------------------- */

static uint32_t
first_key_not_below(esker_slice bound)
{
    uint32_t key = 0;
    while (key < map.key_count && bytes_compare(bytes_of_slice(key_slice(key)), bytes_of_slice(bound)) < 0) {
        key++;
    }
    return key;
}

/* A key, the beginning of one, or one that nobody has. */
static esker_slice
pick_bound(struct world *world, uint8_t buf[KEY_MAX + 1])
{
    const struct key *key = &map.keys[pick_key(world)];
    size_t len = pick(world, 3) == 0 ? pick(world, key->len + 1) : key->len;
    memcpy(buf, key->bytes, len);
    uint64_t how = pick(world, 16);
    if (how < 4) {
        buf[len++] = how == 0 ? 0x00 : how == 1 ? 0xFF : (uint8_t)pick(world, 256);
    } else if (how == 4 && len > 0) {
        buf[len - 1]++;
    } else if (how == 5 && len > 0) {
        buf[len - 1]--;
    } else if (how == 6) {
        len = pick(world, 2) == 0 ? pick(world, 10) : EDIT_KEY_BYTES_MAX - 1 + pick(world, 3);
        memset(buf, pick(world, 2) == 0 ? 0xFF : 0x00, len);
    }
    return esker_bytes(buf, len);
}

static void
iter_bounds(struct world *world, struct held_iter *held, esker_read_options *options,
            uint8_t buf[3][KEY_MAX + 1])
{
    held->from = 0;
    held->to = map.key_count;
    if (pick(world, 3) == 0) {
        options->lower = pick_bound(world, buf[0]);
        held->from = first_key_not_below(options->lower);
    }
    if (pick(world, 3) == 0) {
        options->upper = pick_bound(world, buf[1]);
        held->to = options->upper.size > 0 ? first_key_not_below(options->upper) : held->to;
    }
    if (pick(world, 4) == 0) {
        options->prefix = pick_bound(world, buf[2]);
        size_t most = pick(world, 3) == 0 ? KEY_MAX : 1 + pick(world, 3);
        options->prefix.size = MIN(options->prefix.size, most);
        struct bytes prefix = bytes_of_slice(options->prefix);
        uint32_t from = first_key_not_below(options->prefix);
        uint32_t to = from;
        while (to < map.key_count && bytes_start_with(bytes_of_slice(key_slice(to)), prefix)) {
            to++;
        }
        held->from = MAX(held->from, from);
        held->to = MIN(held->to, to);
    }
}

static void
do_iter_create(struct world *world, struct held_iter *held)
{
    static uint8_t buf[3][KEY_MAX + 1];
    esker_read_options options;
    held->at = reader_options(world, &options);
    held->on_snapshot = options.snapshot != NULL;
    options.keys_only = pick(world, 5) == 0;
    held->keys_only = options.keys_only;
    iter_bounds(world, held, &options, buf);
    check(esker_iter_create(world->db, &options, &held->it) == ESKER_OK, "no iterator");
    memset(buf, 0xAA, sizeof buf); /* bounds are copied */
    held->where = NOWHERE;
}

/* The first key of [key, to) that is there; false if none is. */
static bool
iter_forward(struct held_iter *held, uint32_t key)
{
    for (key = MAX(key, held->from); key < held->to; key++) {
        if (map_find(key, held->at) != NULL) {
            held->where = ON_KEY;
            held->key = key;
            return true;
        }
    }
    held->where = AT_END;
    return false;
}

/* The last key of [from, end). */
static bool
iter_backward(struct held_iter *held, uint32_t end)
{
    for (end = MIN(end, held->to); end > held->from; end--) {
        if (map_find(end - 1, held->at) != NULL) {
            held->where = ON_KEY;
            held->key = end - 1;
            return true;
        }
    }
    held->where = AT_START;
    return false;
}

static void
iter_look(struct world *world, const struct held_iter *held, esker_status status, bool found)
{
    check(note_status(world, status) == (found ? ESKER_OK : ESKER_END), "an iterator ends elsewhere");
    esker_slice key = esker_iter_key(held->it);
    esker_slice value = {0};
    if (!found) {
        check(key.size == 0 && esker_iter_value(held->it, &value) == ESKER_INVALID, "a row behind the end");
        return;
    }
    const struct version_of *version = map_find(held->key, held->at);
    check(bytes_equal(bytes_of_slice(key), bytes_of_slice(key_slice(held->key))), "another key");
    check(esker_iter_value_size(held->it) == version->size, "an iterator's value has another size");
    check(esker_iter_expires_ms(held->it) == version->expires_ms, "a row that expires at another time");
    status = esker_iter_value(held->it, &value);
    if (held->keys_only) {
        check(status == ESKER_INVALID, "keys only, and yet a value");
    } else {
        check(status == ESKER_OK, "an iterator has no value");
        value_check(held->key, version, value.data, value.size);
        note(world, value.data, value.size);
    }
    note(world, key.data, key.size);
}

static void
iter_step(struct world *world, struct held_iter *held)
{
    static uint8_t buf[KEY_MAX + 1];
    uint64_t what = pick(world, 20);
    if (what == 0) {
        esker_status status = esker_iter_first(held->it);
        iter_look(world, held, status, iter_forward(held, held->from));
    } else if (what == 1) {
        esker_status status = esker_iter_last(held->it);
        iter_look(world, held, status, iter_backward(held, held->to));
    } else if (what <= 3) {
        esker_slice bound = pick_bound(world, buf);
        esker_status status = esker_iter_seek(held->it, bound);
        iter_look(world, held, status, iter_forward(held, first_key_not_below(bound)));
    } else if (what <= 5) {
        esker_slice bound = pick_bound(world, buf);
        esker_status status = esker_iter_seek_for_prev(held->it, bound);
        uint32_t end = first_key_not_below(bound);
        bool is_key =
            end < map.key_count && bytes_equal(bytes_of_slice(key_slice(end)), bytes_of_slice(bound));
        end += is_key ? 1 : 0;
        iter_look(world, held, status, iter_backward(held, end));
    } else if (held->where == NOWHERE) {
        check(esker_iter_next(held->it) == ESKER_INVALID && esker_iter_prev(held->it) == ESKER_INVALID,
              "a step from nowhere");
    } else if (what < 13) {
        esker_status status = esker_iter_next(held->it);
        bool found =
            held->where != AT_END && iter_forward(held, held->where == ON_KEY ? held->key + 1 : held->from);
        iter_look(world, held, status, found);
    } else {
        esker_status status = esker_iter_prev(held->it);
        bool found =
            held->where != AT_START && iter_backward(held, held->where == ON_KEY ? held->key : held->to);
        iter_look(world, held, status, found);
    }
}

static void
do_iter(struct world *world)
{
    struct held_iter *held = &world->iters[pick(world, ITERS_MAX)];
    if (held->it == NULL) {
        do_iter_create(world, held);
    } else if (pick(world, 12) == 0) {
        esker_iter_destroy(held->it);
        held->it = NULL;
        return;
    } else if (held->where == ON_KEY && pick(world, 8) == 0) {
        uint32_t key = held->key;
        held->at = held->on_snapshot ? held->at : map.commits;
        esker_status status = esker_iter_refresh(held->it);
        iter_look(world, held, status, iter_forward(held, key));
    }
    for (uint64_t steps = pick(world, 24); steps > 0; steps--) {
        iter_step(world, held);
    }
}

/* ---- Everything, in every way -------------------------------------------------------------------- */

static void
sweep_gets(struct world *world, const esker_read_options *options, uint32_t at)
{
    static esker_slice keys[2 * KEYS_WANTED];
    static esker_value values[2 * KEYS_WANTED];
    static esker_status statuses[2 * KEYS_WANTED];
    uint32_t count = 2 * map.key_count; /* each of them twice */
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = key_slice(i % map.key_count);
    }
    check(esker_multi_get(world->db, count, keys, options, values, statuses) == ESKER_OK,
          "a multi-get failed");
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = i % map.key_count;
        const struct version_of *version = map_find(key, at);
        esker_value value = {0};
        size_t size = 0;
        check(statuses[i] == (version != NULL ? ESKER_OK : ESKER_NOT_FOUND), "a sweep's multi-get is wrong");
        check(esker_get(world->db, keys[i], options, &value) == statuses[i], "a sweep's get is wrong");
        esker_status copied = esker_get_copy(world->db, keys[i], options, NULL, 0, &size);
        check((copied == ESKER_NOT_FOUND) == (version == NULL), "a sweep's copy is wrong");
        if (version != NULL) {
            value_check(key, version, values[i].data, values[i].size);
            value_check(key, version, value.data, value.size);
            check(size == version->size, "a sweep's copy has another size");
            esker_value_release(&values[i]);
            esker_value_release(&value);
        }
    }
}

/* Up, down, to each key, and round at each. */
static void
sweep_walks(struct world *world, const esker_read_options *options, uint32_t at)
{
    struct held_iter held = {.at = at, .to = map.key_count};
    check(esker_iter_create(world->db, options, &held.it) == ESKER_OK, "no iterator");
    esker_status status = esker_iter_first(held.it);
    for (bool more = iter_forward(&held, 0);; more = iter_forward(&held, held.key + 1)) {
        iter_look(world, &held, status, more);
        if (!more) {
            break;
        }
        status = esker_iter_next(held.it);
    }
    status = esker_iter_last(held.it);
    for (bool more = iter_backward(&held, map.key_count);; more = iter_backward(&held, held.key)) {
        iter_look(world, &held, status, more);
        if (!more) {
            break;
        }
        status = esker_iter_prev(held.it);
    }
    for (uint32_t key = 0; key < map.key_count; key++) {
        status = esker_iter_seek(held.it, key_slice(key));
        bool found = iter_forward(&held, key);
        iter_look(world, &held, status, found);
        status = esker_iter_prev(held.it);
        iter_look(world, &held, status, iter_backward(&held, found ? held.key : map.key_count));
        status = esker_iter_seek_for_prev(held.it, key_slice(key));
        found = iter_backward(&held, key + 1);
        iter_look(world, &held, status, found);
        status = esker_iter_next(held.it);
        iter_look(world, &held, status, iter_forward(&held, found ? held.key + 1 : 0));
    }
    esker_iter_destroy(held.it);
}

static void
do_sweep(struct world *world)
{
    esker_read_options options;
    uint32_t at = reader_options(world, &options);
    sweep_gets(world, &options, at);
    sweep_walks(world, &options, at);
}

/* ---- Upkeep ------------------------------------------------------------------------------------------ */

static void
do_compact(struct world *world)
{
    static uint8_t buf[2][KEY_MAX + 1];
    esker_slice lower = pick_bound(world, buf[0]);
    esker_slice upper = pick_bound(world, buf[1]);
    bool all = pick(world, 2) == 0;
    check(esker_compact(world->db, all ? NULL : &lower, all ? NULL : &upper) == ESKER_OK, "a merge failed");
    if (pick(world, 2) == 0) {
        do_sweep(world);
    }
}

static void
world_let_go(struct world *world)
{
    for (uint32_t i = 0; i < ITERS_MAX; i++) {
        esker_iter_destroy(world->iters[i].it);
        world->iters[i].it = NULL;
    }
    for (uint32_t i = 0; i < SNAPSHOTS_MAX; i++) {
        esker_snapshot_release(world->snapshots[i].snapshot);
        world->snapshots[i].snapshot = NULL;
    }
}

static void
do_reopen(struct world *world)
{
    world_let_go(world);
    check(esker_close(world->db) == ESKER_OK, "a close failed");
    world_open(world);
    do_sweep(world);
}

static void
one_operation(struct world *world)
{
    uint64_t what = pick(world, 400);
    if (what < 150) {
        do_put_or_delete(world);
    } else if (what < 200) {
        do_batch(world);
    } else if (what < 270) {
        do_get(world);
    } else if (what < 285) {
        do_multi_get(world);
    } else if (what < 315) {
        do_snapshot(world);
    } else if (what < 385) {
        do_iter(world);
    } else if (what < 389) {
        check(esker_flush(world->db) == ESKER_OK, "a flush failed");
    } else if (what < 391) {
        do_compact(world);
    } else if (what < 393) {
        check(esker_sync(world->db) == ESKER_OK, "a sync failed");
        check(esker_durable_lsn(world->db) >= map.end[map.commits], "synced and not durable");
    } else if (what < 396) {
        while (world->below != BELOW_THREADS && pick(world, 3) != 0 && workers_run_one()) {
        }
    } else if (what < 398) {
        do_sweep(world);
    } else {
        do_reopen(world);
    }
}

/* The same seed makes the same choices, wherever it runs. */
static uint64_t
one_world(enum below below, uint64_t seed, uint64_t operations)
{
    struct world world = {.below = below, .rng = {seed}};
    run_where = below_names[below];
    map_make_keys(&world.rng);
    if (below == BELOW_SIM) {
        world.disk = sim_disk_create(seed);
    } else {
        snprintf(world.path, sizeof world.path, "/tmp/esker-model-XXXXXX");
        check(mkdtemp(world.path) != NULL, "no directory");
    }
    world_open(&world);
    for (run_step = 0; run_step < operations && map.commits + 2 < COMMITS_MAX; run_step++) {
        one_operation(&world);
    }
    world_let_go(&world);
    check(esker_close(world.db) == ESKER_OK, "the last close failed");
    if (below == BELOW_SIM) {
        sim_disk_destroy(world.disk);
    } else {
        check(esker_verify(world.path, NULL, NULL) == ESKER_OK, "verify finds something");
        check(esker_destroy(world.path) == ESKER_OK, "the directory does not go away");
    }
    return world.digest;
}

int
main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 10) : 8;
    uint64_t operations = argc > 3 ? strtoull(argv[3], NULL, 10) : 400;
    for (uint64_t i = 0; i < runs; i++) {
        run_seed = seed + i;
        uint64_t digest = one_world(BELOW_SIM, run_seed, operations);
        if (one_world(BELOW_POSIX, run_seed, operations) != digest ||
            one_world(BELOW_URING, run_seed, operations) != digest) {
            wrong("the answers differ from those on the simulated disk");
        }
        (void)one_world(BELOW_THREADS, run_seed, operations);
    }
    printf("%llu runs of %llu operations from seed %llu: all answers as in the map, on every back-end\n",
           (unsigned long long)runs, (unsigned long long)operations, (unsigned long long)seed);
    return 0;
}
