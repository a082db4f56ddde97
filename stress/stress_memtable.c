/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/*
 * stress_memtable [SECONDS [SEED]]: 2 to 4 writers index the frames of one
 * window in any order, 2 readers check what `visible` promises them: walks in
 * both directions, searches and point reads, at the newest LSN and at older
 * ones. Rounds differ in keys, versions per key and frame sizes.
 *
 * The room's code is compiled in here with hooks at its race points, where
 * threads yield or sleep by chance, also while they hold a node's lock. Each
 * round names its seed when it fails; the schedule itself is up to the machine.
 */
#define ESKER_RACE_POINT(name) race_point()
#define ESKER_RACE_POINT_HELD(name) race_point()
static void race_point(void);

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "memtable/art.c"
#include "memtable/art_iter.c"
#include "memtable/dead.c"
#include "memtable/hashdir.c"
#include "memtable/memtable.c"
#include "memtable/memtable_iter.c"
#include "memtable/memtable_testing.h"

enum { BASE_LSN = 500, FRAMES = 1500, FRAME_ENTRIES_MAX = 6, WRITERS_MAX = 4, READERS = 2 };

enum { STRIPED_CAPACITY = 64 << 10 };

#define HASH_SEED 0x5eedULL

struct round {
    uint64_t seed;
    uint32_t writers;
    struct testing_window window;
    struct memtable *table;
    uint64_t starts[FRAMES + 1]; /* byte offset of each frame's first entry */
    uint64_t offsets[FRAMES * FRAME_ENTRIES_MAX];
    size_t count;
    struct testing_model all; /* every version, in iterator order */
    _Atomic uint32_t next;    /* frame to take */
    _Atomic uint32_t applied[FRAMES];
    _Atomic uint64_t visible; /* frames */
    _Atomic uint32_t writers_left;
    _Atomic uint32_t thread_no;
    _Atomic uint64_t checks;
};

static _Thread_local struct rng chance;

static void
race_point(void)
{
    uint64_t draw = rng_below(&chance, 4096);
    if (draw < 2) {
        struct timespec nap = {.tv_nsec = 20000};
        (void)nanosleep(&nap, NULL);
    } else if (draw < 64) {
        (void)sched_yield();
    }
}

#define CHECK(round, condition)                                                                              \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s is wrong; seed %llu\n", __FILE__, __LINE__, #condition,               \
                    (unsigned long long)(round)->seed);                                                      \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* ---- Writers ---------------------------------------------------------------- */

static void
round_ratchet(struct round *round)
{
    for (;;) {
        uint64_t frame = load_seq(&round->visible);
        if (frame == FRAMES || load_seq(&round->applied[frame]) == 0) {
            return;
        }
        (void)cas_seq(&round->visible, &frame, frame + 1);
    }
}

/* Entries as puts index them: looked for first, then other writers may change the tree. */
static void
round_put_each(struct round *round, uint64_t from, uint64_t to, uint32_t stripe)
{
    for (uint64_t at = from; at < to;) {
        const uint8_t *entry = round->window.data + at;
        struct memtable_way way = memtable_approach(round->table, entry_key_trusted(entry), at % 32 == 0);
        race_point();
        (void)memtable_insert(round->table, at, &way, stripe);
        at += entry_size_bytes(entry_key_trusted(entry).len, entry_value_trusted(entry).len);
    }
}

static void *
round_write(void *arg)
{
    struct round *round = arg;
    uint32_t me = add_relaxed(&round->thread_no, 1); /* relaxed: only uniqueness */
    chance.state = round->seed * 31 + me;
    for (;;) {
        uint32_t frame = add_relaxed(&round->next, 1); /* relaxed: only uniqueness */
        if (frame >= FRAMES) {
            break;
        }
        uint64_t start = round->starts[frame];
        uint64_t end = round->starts[frame + 1];
        if (frame % 2 == 0) {
            memtable_insert_batch(round->table, start, end - start, me);
        } else {
            round_put_each(round, start, end, me);
        }
        race_point();
        (void)exchange_seq(&round->applied[frame], 1);
        round_ratchet(round);
    }
    sub_acq_rel(&round->writers_left, 1);
    return NULL;
}

/* ---- Readers ------------------------------------------------------------------ */

static uint64_t
round_limit(struct round *round, uint64_t frame)
{
    return BASE_LSN + round->starts[frame] / LSN_BYTES;
}

static void
check_row(struct round *round, const struct iter *it, size_t at)
{
    CHECK(round, at < round->all.count);
    CHECK(round, it->key.ptr == round->all.rows[at].key.ptr);
    CHECK(round, it->lsn == round->all.rows[at].lsn);
}

/* The first shown row at or behind `at`. */
static size_t
shown_after(const struct round *round, size_t at, uint64_t limit)
{
    while (at < round->all.count && round->all.rows[at].lsn >= limit) {
        at++;
    }
    return at;
}

/* One behind the last shown row before `at`; 0 = none. */
static size_t
shown_before(const struct round *round, size_t at, uint64_t limit)
{
    while (at > 0 && round->all.rows[at - 1].lsn >= limit) {
        at--;
    }
    return at;
}

static void
check_walks(struct round *round, struct iter *it, uint64_t limit)
{
    size_t at = shown_after(round, 0, limit);
    for (esker_status s = iter_first(it); s == ESKER_OK; s = iter_next(it)) {
        check_row(round, it, at);
        at = shown_after(round, at + 1, limit);
    }
    CHECK(round, at == round->all.count);
    at = shown_before(round, at, limit);
    for (esker_status s = iter_last(it); s == ESKER_OK; s = iter_prev(it)) {
        CHECK(round, at > 0);
        check_row(round, it, at - 1);
        at = shown_before(round, at - 1, limit);
    }
    CHECK(round, at == 0);
}

/* Searches for a key, then a few steps either way. */
static void
check_seek(struct round *round, struct iter *it, uint64_t limit, struct bytes key)
{
    size_t from = testing_model_seek(&round->all, key);
    size_t at = shown_after(round, from, limit);
    esker_status status = iter_seek(it, key);
    for (uint64_t steps = rng_below(&chance, 12);; steps--) {
        CHECK(round, (status == ESKER_OK) == (at < round->all.count));
        if (status != ESKER_OK) {
            break;
        }
        check_row(round, it, at);
        if (steps == 0) {
            break;
        }
        status = iter_next(it);
        at = shown_after(round, at + 1, limit);
    }
    if (status != ESKER_OK || rng_below(&chance, 2) == 0) {
        at = from;
        status = iter_seek_before(it, key);
    } else {
        status = iter_prev(it);
    }
    for (uint32_t steps = 0; steps < 12; steps++) {
        at = shown_before(round, at, limit);
        CHECK(round, (status == ESKER_OK) == (at > 0));
        if (status != ESKER_OK) {
            break;
        }
        check_row(round, it, --at);
        status = iter_prev(it);
    }
}

static void
check_get(struct round *round, struct bytes key, uint64_t limit)
{
    struct memtable_hit hit;
    bool found = memtable_get(round->table, key, memtable_hash(key, HASH_SEED), limit, &hit);
    size_t at = shown_after(round, testing_model_seek(&round->all, key), limit);
    bool expected = at < round->all.count && bytes_equal(round->all.rows[at].key, key);
    CHECK(round, found == expected);
    CHECK(round, !found || (hit.entry == round->all.rows[at].entry && hit.lsn == round->all.rows[at].lsn));
}

static void
check_once(struct round *round)
{
    uint64_t frame = load_acquire(&round->visible);
    if (rng_below(&chance, 4) == 0) {
        frame = rng_below(&chance, frame + 1);
    }
    uint64_t limit = round_limit(round, frame);
    struct iter *it = NULL;
    CHECK(round, memtable_iter_create(round->table, limit, &mem_default, &it) == ESKER_OK);
    if (rng_below(&chance, 8) == 0) {
        check_walks(round, it, limit);
    }
    for (uint32_t i = 0; i < 20; i++) {
        uint8_t room[TESTING_KEY_BYTES];
        struct bytes key = round->all.rows[rng_below(&chance, round->all.count)].key;
        check_get(round, key, limit);
        if (i % 4 == 0) {
            key = testing_key(&chance, (uint32_t)rng_next(&chance), 5000, room);
            check_get(round, key, limit);
        }
        check_seek(round, it, limit, key);
    }
    iter_destroy(it);
    add_relaxed(&round->checks, 1); /* relaxed: statistics */
}

static void *
round_read(void *arg)
{
    struct round *round = arg;
    chance.state = round->seed * 37 + add_relaxed(&round->thread_no, 1); /* relaxed: only uniqueness */
    do {
        check_once(round);
    } while (load_acquire(&round->writers_left) != 0);
    return NULL;
}

/* ---- Rounds --------------------------------------------------------------------- */

static void
round_fill(struct round *round)
{
    struct rng rng = {.state = round->seed};
    round->writers = 2 + (uint32_t)rng_below(&rng, WRITERS_MAX - 1);
    uint64_t sort = rng_below(&rng, TESTING_KEY_SORTS + 1);
    uint64_t variety = (uint64_t)1 << rng_below(&rng, 17);
    uint64_t entries_max = 1 + rng_below(&rng, FRAME_ENTRIES_MAX);
    for (uint32_t frame = 0; frame < FRAMES; frame++) {
        round->starts[frame] = round->window.end;
        for (uint64_t left = 1 + rng_below(&rng, entries_max); left > 0; left--) {
            uint8_t room[TESTING_KEY_BYTES];
            uint64_t mixed = sort == TESTING_KEY_SORTS ? rng_next(&rng) : sort;
            struct bytes key = testing_key(&rng, (uint32_t)mixed, variety, room);
            enum entry_op op = rng_below(&rng, 5) == 0 ? ENTRY_DELETE : ENTRY_PUT;
            round->offsets[round->count++] = testing_window_add(&round->window, op, key, bytes_make(NULL, 0));
        }
    }
    round->starts[FRAMES] = round->window.end;
    round->all = testing_model_make(&round->window, BASE_LSN, round->offsets, round->count, UINT64_MAX);
    atomic_init(&round->writers_left, round->writers);
}

static uint64_t
round_run(struct io *io, uint64_t seed)
{
    struct round *round = calloc(1, sizeof *round);
    ASSERT(round != NULL);
    round->seed = seed;
    round->window = testing_window_make((uint64_t)FRAMES * FRAME_ENTRIES_MAX * 432);
    round_fill(round);
    /* Now and then one for so many that threads have stretches of the index of their own. */
    uint32_t capacity = seed % 8 == 0 ? STRIPED_CAPACITY : (uint32_t)round->count;
    CHECK(round, memtable_create(io, round->window.data, round->window.cap, BASE_LSN, capacity, HASH_SEED,
                                 &round->table) == ESKER_OK);
    pthread_t threads[WRITERS_MAX + READERS];
    for (uint32_t i = 0; i < round->writers + READERS; i++) {
        CHECK(round, pthread_create(&threads[i], NULL, i < READERS ? round_read : round_write, round) == 0);
    }
    for (uint32_t i = 0; i < round->writers + READERS; i++) {
        CHECK(round, pthread_join(threads[i], NULL) == 0);
    }
    CHECK(round, load_acquire(&round->visible) == FRAMES);
    struct iter *it = NULL;
    CHECK(round, memtable_iter_create(round->table, UINT64_MAX, &mem_default, &it) == ESKER_OK);
    check_walks(round, it, UINT64_MAX);
    iter_destroy(it);
    for (size_t i = 0; i < round->all.count; i++) {
        check_get(round, round->all.rows[i].key, round->all.rows[i].lsn + 1);
    }
    uint64_t checks = load_acquire(&round->checks);
    memtable_destroy(round->table);
    free(round->all.rows);
    free(round->window.data);
    free(round);
    return checks;
}

int
main(int argc, char **argv)
{
    long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 10;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
    struct io io = testing_io(&mem_default);
    time_t end = time(NULL) + seconds;
    uint64_t rounds = 0;
    uint64_t checks = 0;
    printf("seed %llu\n", (unsigned long long)seed);
    do {
        checks += round_run(&io, seed + rounds);
        rounds++;
    } while (time(NULL) < end);
    printf("%llu rounds, %llu checks while writers ran, no difference\n", (unsigned long long)rounds,
           (unsigned long long)checks);
    return 0;
}
