/* SPDX-License-Identifier: MIT */
/*
 * Goal: whatever writers do between two steps of another writer, a reader at
 * `visible` finds every version below it and nothing is lost afterwards.
 * Method: one thread plays all of them. At the race points of the real code,
 * compiled in here with hooks, it lets other insertions run from start to end
 * (each of which may be interrupted in turn) and reads at the LSN that the
 * commit path would have published. Seeded, so every schedule can be repeated.
 */
#define ESKER_RACE_POINT(name) race_point(name, false)
#define ESKER_RACE_POINT_HELD(name) race_point(name, true)
static void race_point(const char *name, _Bool held);

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "memtable/art.c"
#include "memtable/art_iter.c"
#include "memtable/dead.c"
#include "memtable/hashdir.c"
#include "memtable/memtable.c"
#include "memtable/memtable_iter.c"
#include "memtable/memtable_testing.h"

enum { BASE_LSN = 64, ENTRIES_MAX = 400, DEPTH_MAX = 3 };

#define SEED 0x5eedULL

/* Entries are numbered in LSN order, each a frame of its own. */
static struct play {
    bool on;
    struct testing_window window;
    struct memtable *table;
    uint64_t offsets[ENTRIES_MAX + 1];
    uint32_t count;
    bool started[ENTRIES_MAX];
    bool applied[ENTRIES_MAX];
    uint32_t visible; /* entries */
    uint32_t unstarted;
    uint32_t depth;
    uint32_t interrupt_percent, read_percent;
    struct rng rng;
} play;

static uint64_t points_seen;
/* Which point to stop at, for the schedules written by hand; NULL: any, by chance. */
static const char *only_point;

static void
play_read_at(uint32_t below)
{
    uint64_t limit = BASE_LSN + play.offsets[below] / LSN_BYTES;
    struct testing_model model = testing_model_make(&play.window, BASE_LSN, play.offsets, below, limit);
    struct iter *it = NULL;
    assert_int_equal(memtable_iter_create(play.table, limit, &mem_default, &it), ESKER_OK);
    size_t at = 0;
    for (esker_status s = iter_first(it); s == ESKER_OK; s = iter_next(it)) {
        assert_true(at < model.count && it->key.ptr == model.rows[at].key.ptr);
        at++;
    }
    assert_int_equal(at, model.count);
    for (esker_status s = iter_last(it); s == ESKER_OK; s = iter_prev(it)) {
        at--;
        assert_true(at < model.count && it->key.ptr == model.rows[at].key.ptr);
    }
    assert_int_equal(at, 0);
    for (size_t i = 0; i < model.count; i++) {
        struct bytes key = model.rows[i].key;
        struct memtable_hit hit;
        assert_true(memtable_get(play.table, key, memtable_hash(key, SEED), limit, &hit));
        if (i == 0 || !bytes_equal(key, model.rows[i - 1].key)) {
            assert_int_equal(hit.lsn, model.rows[i].lsn);
            assert_int_equal(iter_seek(it, key), ESKER_OK);
            assert_int_equal(it->lsn, hit.lsn);
        }
    }
    iter_destroy(it);
    free(model.rows);
}

static void
play_insert(uint32_t entry)
{
    play.started[entry] = true;
    play.unstarted--;
    testing_insert(play.table, play.offsets[entry]);
    play.applied[entry] = true;
    while (play.visible < play.count && play.applied[play.visible]) {
        play.visible++;
    }
}

/* An entry that nobody took yet, near the first such one. */
static uint32_t
play_pick(void)
{
    uint64_t skip = rng_below(&play.rng, MIN(play.unstarted, 6));
    for (uint32_t entry = 0;; entry++) {
        if (!play.started[entry] && skip-- == 0) {
            return entry;
        }
    }
}

static void
race_point(const char *name, _Bool held)
{
    if (!play.on || (only_point != NULL && strcmp(name, only_point) != 0)) {
        return;
    }
    points_seen++;
    if (!held && play.depth < DEPTH_MAX && play.unstarted > 0 &&
        rng_below(&play.rng, 100) < play.interrupt_percent) {
        play.depth++;
        play_insert(play_pick());
        play.depth--;
    }
    if (rng_below(&play.rng, 100) < play.read_percent) {
        play.on = false;
        play_read_at(play.visible);
        play.on = true;
    }
}

static void
play_begin(struct io *io, uint64_t seed)
{
    memset(&play, 0, sizeof play);
    play.rng.state = seed;
    play.window = testing_window_make(1 << 18);
    assert_int_equal(
        memtable_create(io, play.window.data, play.window.cap, BASE_LSN, ENTRIES_MAX, SEED, &play.table),
        ESKER_OK);
}

static void
play_add(struct bytes key)
{
    play.offsets[play.count++] = testing_window_add(&play.window, ENTRY_PUT, key, bytes_make(NULL, 0));
    play.offsets[play.count] = play.window.end;
    play.unstarted = play.count;
}

static void
play_end(void)
{
    play.on = false;
    assert_int_equal(play.visible, play.count);
    for (uint32_t below = 0; below <= play.count; below += 1 + play.count / 8) {
        play_read_at(below);
    }
    play_read_at(play.count);
    memtable_destroy(play.table);
    free(play.window.data);
}

/* The later version takes the slot and stops before its tree insert; the
 * earlier one is applied meanwhile and must be found by a walk. */
static void
race__walk_finds_a_key_whose_anchor_is_not_applied(void **state)
{
    (void)state;
    struct io io = testing_io(&mem_default);
    play_begin(&io, 1);
    play_add(bytes_make("k", 1));
    play_add(bytes_make("k", 1));
    play.on = true;
    play.interrupt_percent = 100;
    play.read_percent = 100;
    only_point = "memtable_linked";
    play_insert(1);
    only_point = NULL;
    play_end();
}

/* A version that is linked behind a later one, whose writer stops before it
 * moves the head, must be found by a walk too. */
static void
race__walk_finds_a_version_behind_an_unapplied_newest(void **state)
{
    (void)state;
    struct io io = testing_io(&mem_default);
    play_begin(&io, 1);
    play_add(bytes_make("k", 1));
    play_add(bytes_make("k", 1));
    play_add(bytes_make("k", 1));
    play_insert(0);
    play.on = true;
    play.interrupt_percent = 100;
    play.read_percent = 100;
    only_point = "hashdir_before_head";
    play_insert(2);
    only_point = NULL;
    play_end();
}

static void
race__random_schedules_lose_nothing(void **state)
{
    (void)state;
    struct io io = testing_io(&mem_default);
    points_seen = 0;
    for (uint64_t seed = 0; seed < 3000; seed++) {
        play_begin(&io, seed);
        uint32_t count = 8 + (uint32_t)rng_below(&play.rng, 40);
        uint64_t variety = 1 + rng_below(&play.rng, 40);
        uint64_t sort = rng_below(&play.rng, TESTING_KEY_SORTS + 1);
        for (uint32_t i = 0; i < count; i++) {
            uint8_t room[TESTING_KEY_BYTES];
            uint64_t mixed = sort == TESTING_KEY_SORTS ? rng_next(&play.rng) : sort;
            play_add(testing_key(&play.rng, (uint32_t)mixed, variety, room));
        }
        play.on = true;
        play.interrupt_percent = 5 + (uint32_t)rng_below(&play.rng, 40);
        play.read_percent = 20;
        while (play.unstarted > 0) {
            play_insert(play_pick());
        }
        play_end();
    }
    assert_true(points_seen > 100000);
}

/* Siblings under one node, so that every growth is interrupted by additions to
 * the node that is being replaced. */
static void
race__growth_of_one_node_is_interrupted_at_every_size(void **state)
{
    (void)state;
    struct io io = testing_io(&mem_default);
    for (uint64_t seed = 0; seed < 60; seed++) {
        play_begin(&io, seed);
        for (uint32_t i = 0; i < 256; i++) {
            uint8_t key[4] = {'p', 'q', (uint8_t)(i * 167), 0};
            play_add(bytes_make(key, i == 77 ? 2 : i % 5 == 0 ? 4 : 3));
        }
        play.on = true;
        play.interrupt_percent = 30;
        play.read_percent = 1;
        while (play.unstarted > 0) {
            play_insert(play_pick());
        }
        play_end();
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(race__walk_finds_a_key_whose_anchor_is_not_applied),
        cmocka_unit_test(race__walk_finds_a_version_behind_an_unapplied_newest),
        cmocka_unit_test(race__random_schedules_lose_nothing),
        cmocka_unit_test(race__growth_of_one_node_is_interrupted_at_every_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
