/* SPDX-License-Identifier: MIT */
/*
 * Goal: a memtable answers every point read and every walk at every LSN like a
 * sorted array of its entries does, in whatever order they were inserted, also
 * while other threads insert.
 * Method: random histories over keys that are hard on a radix tree, LSN edges
 * -1, 0 and +1 of every version, walks with random changes of direction; then
 * writer threads that overtake each other with readers checking what `visible`
 * promises them.
 */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "memtable/memtable_testing.h"

enum { BASE_LSN = 1000 };

#define SEED 0x5eedULL

struct history {
    struct io io;
    struct testing_window window;
    struct memtable *table;
    uint64_t *offsets;
    size_t count;
};

static struct history *
history_make(size_t capacity, uint64_t window_bytes)
{
    struct history *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->io = testing_io(&mem_default);
    h->window = testing_window_make(window_bytes);
    h->offsets = calloc(capacity + 1, sizeof *h->offsets);
    assert_non_null(h->offsets);
    assert_int_equal(
        memtable_create(&h->io, h->window.data, window_bytes, BASE_LSN, (uint32_t)capacity, SEED, &h->table),
        ESKER_OK);
    return h;
}

static void
history_free(struct history *h)
{
    memtable_destroy(h->table);
    free(h->window.data);
    free(h->offsets);
    free(h);
}

static void
history_add(struct history *h, enum entry_op op, struct bytes key, struct bytes value)
{
    h->offsets[h->count++] = testing_window_add(&h->window, op, key, value);
}

/* Random puts and deletes over keys of one sort (or all). */
static void
history_fill(struct history *h, size_t count, uint32_t sort, uint64_t variety, uint64_t seed)
{
    struct rng rng = {.state = seed};
    uint8_t room[TESTING_KEY_BYTES];
    for (size_t i = 0; i < count; i++) {
        uint32_t mixed = sort == TESTING_KEY_SORTS ? (uint32_t)rng_next(&rng) : sort;
        struct bytes key = testing_key(&rng, mixed, variety, room);
        uint64_t number = i;
        bool put = rng_below(&rng, 4) != 0;
        history_add(h, put ? ENTRY_PUT : ENTRY_DELETE, key,
                    bytes_make(&number, put ? rng_below(&rng, 9) : 0));
    }
}

/* Indexes everything, in an order that is off by up to `reach` entries. */
static void
history_index(struct history *h, size_t reach, uint64_t seed)
{
    struct rng rng = {.state = seed};
    uint64_t *order = malloc((h->count + 1) * sizeof *order);
    assert_non_null(order);
    memcpy(order, h->offsets, h->count * sizeof *order);
    for (size_t i = 0; i + 1 < h->count; i++) {
        size_t other = i + rng_below(&rng, MIN(reach, h->count - i));
        uint64_t swapped = order[i];
        order[i] = order[other];
        order[other] = swapped;
    }
    for (size_t i = 0; i < h->count; i++) {
        testing_insert(h->table, order[i]);
    }
    free(order);
}

/* The model's answer to a point read. */
static const struct testing_row *
model_get(const struct testing_model *model, struct bytes key, uint64_t snapshot)
{
    for (size_t i = testing_model_seek(model, key); i < model->count; i++) {
        if (!bytes_equal(model->rows[i].key, key)) {
            return NULL;
        }
        if (model->rows[i].lsn < snapshot) {
            return &model->rows[i];
        }
    }
    return NULL;
}

static void
check_get(const struct history *h, const struct testing_model *model, struct bytes key, uint64_t snapshot)
{
    struct memtable_hit hit = {.entry = NULL, .lsn = 0};
    uint64_t hash = memtable_hash(key, SEED);
    memtable_prefetch(h->table, hash);
    bool found = memtable_get(h->table, key, hash, snapshot, &hit);
    const struct testing_row *row = model_get(model, key, snapshot);
    assert_int_equal(found, row != NULL);
    if (row != NULL) {
        assert_ptr_equal(hit.entry, row->entry);
        assert_int_equal(hit.lsn, row->lsn);
    } else {
        assert_null(hit.entry); /* outputs untouched */
    }
}

static void
check_gets(const struct history *h)
{
    struct testing_model all = testing_model_make(&h->window, BASE_LSN, h->offsets, h->count, UINT64_MAX);
    uint8_t room[KEY_BYTES_MAX + 1];
    for (size_t i = 0; i < all.count; i++) {
        struct bytes key = all.rows[i].key;
        for (uint64_t snapshot = all.rows[i].lsn - 1; snapshot <= all.rows[i].lsn + 1; snapshot++) {
            check_get(h, &all, key, snapshot);
        }
        check_get(h, &all, key, 0);
        check_get(h, &all, key, BASE_LSN);
        check_get(h, &all, key, UINT64_MAX);
        memcpy(room, key.ptr, key.len);
        room[key.len] = 0;
        check_get(h, &all, bytes_make(room, key.len + 1), UINT64_MAX);
        check_get(h, &all, bytes_make(room, key.len - 1), UINT64_MAX);
    }
    free(all.rows);
}

static void
check_row(const struct iter *it, const struct testing_model *model, size_t at)
{
    assert_true(at < model->count);
    const struct testing_row *row = &model->rows[at];
    assert_ptr_equal(it->key.ptr, row->key.ptr);
    assert_int_equal(it->key.len, row->key.len);
    assert_int_equal(it->lsn, row->lsn);
    assert_int_equal(it->op, row->entry[0]);
    assert_ptr_equal(it->value.ptr, entry_value_trusted(row->entry).ptr);
    assert_int_equal(it->value.len, entry_value_trusted(row->entry).len);
}

/* Both walks whole, then a random walk with searches, against the model at `limit`. */
static void
check_walks(const struct history *h, uint64_t limit, uint64_t seed)
{
    struct testing_model model = testing_model_make(&h->window, BASE_LSN, h->offsets, h->count, limit);
    struct iter *it = NULL;
    assert_int_equal(memtable_iter_create(h->table, limit, &mem_default, &it), ESKER_OK);
    size_t at = 0;
    for (esker_status s = iter_first(it); s == ESKER_OK; s = iter_next(it)) {
        check_row(it, &model, at++);
    }
    assert_int_equal(at, model.count);
    for (esker_status s = iter_last(it); s == ESKER_OK; s = iter_prev(it)) {
        check_row(it, &model, --at);
    }
    assert_int_equal(at, 0);
    struct rng rng = {.state = seed};
    esker_status status = ESKER_END;
    uint8_t room[TESTING_KEY_BYTES];
    for (uint32_t step = 0; step < 2000; step++) {
        uint64_t choice = rng_below(&rng, status == ESKER_OK ? 16 : 2);
        if (choice < 2) {
            struct bytes key = testing_key(&rng, (uint32_t)rng_next(&rng), 4096, room);
            if (model.count > 0 && rng_below(&rng, 2) == 0) {
                key = model.rows[rng_below(&rng, model.count)].key;
            }
            status = choice == 0 ? iter_seek(it, key) : iter_seek_before(it, key);
            at = testing_model_seek(&model, key) - choice;
        } else if (choice < 9) {
            status = iter_next(it);
            at++;
        } else {
            status = iter_prev(it);
            at--;
        }
        assert_int_equal(status, at < model.count ? ESKER_OK : ESKER_END); /* one before 0 wraps */
        if (status == ESKER_OK) {
            check_row(it, &model, at);
        }
    }
    iter_destroy(it);
    free(model.rows);
}

static void
memtable__empty_has_nothing(void **state)
{
    (void)state;
    struct history *h = history_make(0, 4096);
    check_walks(h, UINT64_MAX, 1);
    struct memtable_hit hit;
    assert_false(
        memtable_get(h->table, bytes_make("k", 1), memtable_hash(bytes_make("k", 1), SEED), 1, &hit));
    history_free(h);
    memtable_destroy(NULL);
}

static void
memtable__agrees_with_a_sorted_array_at_every_lsn(void **state)
{
    (void)state;
    static const uint64_t varieties[] = {3, 40, 100000};

    enum { COUNT = 500 };

    for (uint32_t sort = 0; sort <= TESTING_KEY_SORTS; sort++) {
        for (size_t v = 0; v < COUNTOF(varieties); v++) {
            for (uint64_t reach = 1; reach <= COUNT; reach = reach == 1 ? 8 : reach * 63) {
                struct history *h = history_make(COUNT, 1 << 19);
                history_fill(h, COUNT, sort, varieties[v], sort * 17 + v);
                history_index(h, reach, reach);
                check_gets(h);
                uint64_t last = BASE_LSN + h->offsets[COUNT - 1] / LSN_BYTES;
                uint64_t middle = BASE_LSN + h->offsets[COUNT / 2] / LSN_BYTES;
                uint64_t limits[] = {0, BASE_LSN, middle - 1, middle, middle + 1, last, last + 1, UINT64_MAX};
                for (size_t i = 0; i < COUNTOF(limits); i++) {
                    check_walks(h, limits[i], sort + i);
                }
                assert_true(memtable_used_bytes(h->table) <= memtable_index_bytes(COUNT) + 3 * 4096);
                history_free(h);
            }
        }
    }
}

static void
memtable__later_lsn_may_come_first(void **state)
{
    (void)state;
    struct history *h = history_make(2, 4096);
    history_add(h, ENTRY_PUT, bytes_make("k", 1), bytes_make("10", 2));
    history_add(h, ENTRY_PUT, bytes_make("k", 1), bytes_make("20", 2));
    testing_insert(h->table, h->offsets[1]);
    testing_insert(h->table, h->offsets[0]);
    check_gets(h);
    uint64_t later = BASE_LSN + h->offsets[1] / LSN_BYTES;
    check_walks(h, later, 1);
    check_walks(h, later + 1, 1);
    history_free(h);
}

static void
memtable__many_versions_of_one_key_walk_backwards(void **state)
{
    (void)state;

    enum { COUNT = 3000 };
    struct history *h = history_make(COUNT, 1 << 17);
    history_fill(h, COUNT, 2, 1, 5);
    history_index(h, 1, 1);
    uint64_t last = BASE_LSN + h->offsets[COUNT - 1] / LSN_BYTES;
    check_walks(h, last + 1, 2);
    check_walks(h, last - 300, 2);
    history_free(h);
}

static void
memtable__batch_indexes_every_entry_of_a_body(void **state)
{
    (void)state;
    for (size_t count = 0; count <= 70; count++) {
        for (uint32_t zero_end = 0; zero_end < 2; zero_end++) {
            struct history *h = history_make(count, 1 << 16);
            history_fill(h, count, TESTING_KEY_SORTS, 30, count);
            uint64_t body = FRAME_HEADER_BYTES;
            uint64_t len = h->window.end - body;
            /* A body ends with its bytes, or with zeros up to the granule. */
            memtable_insert_batch(h->table, body, zero_end != 0 ? align_up(len + 1, 16) : len, 0);
            check_gets(h);
            check_walks(h, UINT64_MAX, count);
            history_free(h);
        }
    }
}

static void
memtable__longest_keys_and_values(void **state)
{
    (void)state;

    enum { COUNT = 40 };
    struct history *h = history_make(COUNT, COUNT * (KEY_BYTES_MAX + 300));
    uint8_t *room = malloc(KEY_BYTES_MAX);
    assert_non_null(room);
    memset(room, 'k', KEY_BYTES_MAX);
    for (uint32_t i = 0; i < COUNT; i++) {
        room[KEY_BYTES_MAX - 1 - i % 5] ^= (uint8_t)i;
        history_add(h, ENTRY_PUT, bytes_make(room, KEY_BYTES_MAX - i % 7), bytes_make(room, i * 7));
    }
    history_index(h, 9, 4);
    check_gets(h);
    check_walks(h, UINT64_MAX, 3);
    free(room);
    history_free(h);
}

struct starving {
    uint64_t left;
    int64_t live;
};

static void *
starving_alloc(void *ctx, size_t size)
{
    struct starving *starving = ctx;
    if (starving->left == 0) {
        return NULL;
    }
    starving->left--;
    starving->live++;
    return malloc(size);
}

static void *
starving_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    struct starving *starving = ctx;
    if (starving->left == 0) {
        return NULL;
    }
    starving->left--;
    starving->live++;
    return aligned_alloc(alignment, size);
}

static void
starving_free(void *ctx, void *ptr)
{
    struct starving *starving = ctx;
    starving->live--;
    free(ptr);
}

static void
memtable__no_memory_is_a_status_and_leaks_nothing(void **state)
{
    (void)state;
    struct starving starving = {0};
    struct mem mem = {.hooks = {starving_alloc, starving_aligned_alloc, starving_free, &starving}};
    struct io io = testing_io(&mem);
    struct testing_window window = testing_window_make(1 << 16);
    uint8_t room[64];
    memset(room, 'x', sizeof room);
    uint64_t offsets[128];
    for (size_t i = 0; i < COUNTOF(offsets); i++) { /* 64 nested keys, and many versions of the last */
        offsets[i] = testing_window_add(&window, ENTRY_PUT, bytes_make(room, MIN(i + 1, sizeof room)),
                                        bytes_make("", 0));
    }
    bool complete = false;
    for (uint64_t allowed = 0; !complete; allowed++) {
        starving.left = allowed;
        struct memtable *table = NULL;
        esker_status status = memtable_create(&io, window.data, window.cap, 0, 128, SEED, &table);
        struct iter *it = NULL;
        if (status == ESKER_OK) {
            for (size_t i = 0; i < COUNTOF(offsets); i++) {
                testing_insert(table, offsets[i]);
            }
            status = memtable_iter_create(table, UINT64_MAX, &mem, &it);
        } else {
            assert_null(table);
        }
        if (status == ESKER_OK) {
            size_t rows = 0;
            for (status = iter_last(it); status == ESKER_OK; status = iter_prev(it)) {
                rows++;
            }
            complete = status == ESKER_END;
            assert_true(!complete || rows == COUNTOF(offsets));
        } else {
            assert_null(it);
        }
        assert_true(complete || status == ESKER_NO_MEMORY);
        iter_destroy(it);
        memtable_destroy(table);
        assert_int_equal(starving.live, 0);
        assert_true(allowed < 32);
    }
    free(window.data);
}

static void
memtable__index_bytes_hold_for_any_count(void **state)
{
    (void)state;
    /* Creation with exactly the bound; each sort of keys, each count. */
    for (uint32_t count = 1; count < 400; count += 13) {
        for (uint32_t sort = 0; sort < TESTING_KEY_SORTS; sort++) {
            struct history *h = history_make(count, 1 << 19);
            history_fill(h, count, sort, 100000, count);
            history_index(h, count, 1);
            check_walks(h, UINT64_MAX, 1);
            history_free(h);
        }
    }
    assert_true(memtable_index_bytes(MEMTABLE_OPS_MAX) < (uint64_t)2 << 30);
    assert_true(memtable_index_bytes(0) <= 4096);
}

/* ---- Threads ----------------------------------------------------------------- */

enum { FRAMES = 3000, FRAME_ENTRIES_MAX = 4, WRITERS = 3, READERS = 2 };

/* Frames are written and indexed by whoever takes them; `visible` moves over
 * them in order, as the commit path does it. */
struct race {
    struct history *h;
    uint64_t starts[FRAMES + 1]; /* byte offset of frame f's first entry */
    _Atomic uint32_t applied[FRAMES];
    _Atomic uint32_t next;
    _Atomic uint64_t visible; /* frames */
    _Atomic uint32_t writers_left;
};

static void
race_ratchet(struct race *race)
{
    for (;;) {
        uint64_t frame = load_seq(&race->visible);
        if (frame == FRAMES || load_seq(&race->applied[frame]) == 0) {
            return;
        }
        (void)cas_seq(&race->visible, &frame, frame + 1);
    }
}

static void *
race_write(void *arg)
{
    struct race *race = arg;
    for (;;) {
        uint32_t frame = add_relaxed(&race->next, 1); /* relaxed: only uniqueness */
        if (frame >= FRAMES) {
            break;
        }
        memtable_insert_batch(race->h->table, race->starts[frame],
                              race->starts[frame + 1] - race->starts[frame], frame);
        (void)exchange_seq(&race->applied[frame], 1);
        race_ratchet(race);
        if (frame % 8 == 0) {
            (void)sched_yield(); /* lets readers in where there are few processors */
        }
    }
    sub_acq_rel(&race->writers_left, 1);
    return NULL;
}

static uint64_t
race_limit(struct race *race)
{
    return BASE_LSN + race->starts[load_acquire(&race->visible)] / LSN_BYTES;
}

static void *
race_read(void *arg)
{
    struct race *race = arg;
    struct rng rng = {.state = (uintptr_t)&rng};
    do {
        uint64_t limit = race_limit(race);
        check_walks(race->h, limit, rng_next(&rng));
        struct testing_model model =
            testing_model_make(&race->h->window, BASE_LSN, race->h->offsets, race->h->count, UINT64_MAX);
        for (uint32_t i = 0; i < 500; i++) {
            limit = race_limit(race);
            check_get(race->h, &model, model.rows[rng_below(&rng, model.count)].key,
                      rng_below(&rng, 2) == 0 ? limit : rng_below(&rng, limit + 1));
        }
        free(model.rows);
    } while (load_acquire(&race->writers_left) != 0);
    return NULL;
}

static void
memtable__readers_see_all_below_visible_while_writers_race(void **state)
{
    (void)state;
    static const uint64_t varieties[] = {4, 200, 100000};
    for (size_t v = 0; v < COUNTOF(varieties); v++) {
        struct race *race = calloc(1, sizeof *race);
        assert_non_null(race);
        race->h =
            history_make((size_t)FRAMES * FRAME_ENTRIES_MAX, (uint64_t)FRAMES * FRAME_ENTRIES_MAX * 440);
        struct rng rng = {.state = v};
        for (uint32_t frame = 0; frame < FRAMES; frame++) {
            race->starts[frame] = race->h->window.end;
            history_fill(race->h, 1 + rng_below(&rng, FRAME_ENTRIES_MAX), TESTING_KEY_SORTS, varieties[v],
                         rng_next(&rng));
        }
        race->starts[FRAMES] = race->h->window.end;
        atomic_init(&race->writers_left, WRITERS);
        pthread_t threads[WRITERS + READERS];
        for (uint32_t i = 0; i < WRITERS + READERS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, i < WRITERS ? race_write : race_read, race),
                             0);
        }
        for (uint32_t i = 0; i < WRITERS + READERS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_int_equal(load_acquire(&race->visible), FRAMES);
        check_gets(race->h);
        check_walks(race->h, UINT64_MAX, 7);
        history_free(race->h);
        free(race);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memtable__empty_has_nothing),
        cmocka_unit_test(memtable__agrees_with_a_sorted_array_at_every_lsn),
        cmocka_unit_test(memtable__later_lsn_may_come_first),
        cmocka_unit_test(memtable__many_versions_of_one_key_walk_backwards),
        cmocka_unit_test(memtable__batch_indexes_every_entry_of_a_body),
        cmocka_unit_test(memtable__longest_keys_and_values),
        cmocka_unit_test(memtable__no_memory_is_a_status_and_leaks_nothing),
        cmocka_unit_test(memtable__index_bytes_hold_for_any_count),
        cmocka_unit_test(memtable__readers_see_all_below_visible_while_writers_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
