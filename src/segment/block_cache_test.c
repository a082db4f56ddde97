/* SPDX-License-Identifier: MIT */
/*
 * Goal: the cache keeps to its budget, drops what was not used lately, never
 * frees what is pinned or may still be read, and loads a block once however
 * many threads ask for it.
 * Method: frames and tables by hand for the clock and the budget; then a
 * segment under a tiny capacity, read by several threads with pins that cross
 * threads, while segments come and go. Runs under the address and thread
 * sanitizers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <pthread.h>

#include "format/filter.h"
#include "segment/segment_internal.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum { CACHE_DATA_BYTES = 1000, CACHE_TABLE_BLOCKS = 1200 };

/* ---- By hand ------------------------------------------------------------ */

struct cache_fixture {
    struct test_mem mem;
    struct block_cache *cache;
    struct frame_table table;
    uint64_t frame_bytes; /* of one frame */
    uint64_t table_bytes; /* charged for the table and its first chunk */
};

static struct block_cache_stats
cache_stats(const struct cache_fixture *fixture)
{
    struct block_cache_stats stats;
    block_cache_get_stats(fixture->cache, &stats);
    return stats;
}

static void
cache_fixture_init(struct cache_fixture *fixture, uint64_t frames)
{
    memset(fixture, 0, sizeof *fixture);
    test_mem_init(&fixture->mem);
    assert_ok(epoch_runtime_acquire(true));
    fixture->frame_bytes = align_up(sizeof(struct frame_ref), CACHE_LINE_BYTES) + CACHE_DATA_BYTES;
    fixture->table_bytes =
        3 * sizeof(void *) + sizeof(struct frame_chunk) + FRAME_CHUNK_SLOTS * sizeof(void *);
    assert_ok(block_cache_create(&fixture->mem.base, frames * fixture->frame_bytes + fixture->table_bytes,
                                 &fixture->cache));
    assert_ok(frame_table_init(&fixture->table, fixture->cache, CACHE_TABLE_BLOCKS));
}

static void
cache_fixture_fini(struct cache_fixture *fixture)
{
    frame_table_fini(&fixture->table);
    epoch_drain();
    assert_int_equal(cache_stats(fixture).used_bytes, 0);
    block_cache_destroy(fixture->cache);
    assert_int_equal(load_relaxed(&fixture->mem.live_bytes), 0); /* relaxed: one thread. */
    epoch_runtime_release();
}

/* Links a frame marked with its number; returns it pinned. */
static struct frame_ref *
cache_link_pinned(struct cache_fixture *fixture, uint32_t block_no)
{
    struct frame_ref *frame = frame_create(fixture->cache, CACHE_DATA_BYTES);
    assert_non_null(frame);
    memset(frame_data(frame), (int)block_no, CACHE_DATA_BYTES);
    return frame_table_link(&fixture->table, block_no, frame);
}

static void
cache_link(struct cache_fixture *fixture, uint32_t block_no)
{
    frame_unpin(cache_link_pinned(fixture, block_no));
}

static bool
cache_has(const struct cache_fixture *fixture, uint32_t block_no)
{
    struct frame_ref *frame = frame_table_pin(&fixture->table, block_no);
    if (frame == NULL) {
        return false;
    }
    assert_int_equal(frame_data(frame)[CACHE_DATA_BYTES - 1], (uint8_t)block_no);
    frame_unpin(frame);
    return true;
}

static void
block_cache__keeps_to_its_budget(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 5);
    for (uint32_t block = 0; block < 20; block++) {
        cache_link(&fixture, block);
        epoch_drain();
        struct block_cache_stats stats = cache_stats(&fixture);
        assert_true(stats.used_bytes <= stats.capacity_bytes);
        assert_int_equal(stats.evictions, block < 5 ? 0 : block - 4);
        assert_true(cache_has(&fixture, block));
    }
    for (uint32_t block = 0; block < 20; block++) {
        assert_int_equal(cache_has(&fixture, block), block >= 15);
    }
    cache_fixture_fini(&fixture);
}

static void
block_cache__spares_what_was_used(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 8);
    cache_link(&fixture, 0);
    cache_link(&fixture, 1);
    struct frame_ref *used = frame_table_pin(&fixture.table, 1);
    assert_non_null(used);
    frame_unpin(used);
    for (uint32_t block = 2; block < 100; block++) {
        /* A scan: each block once. The one that lookups touch stays. */
        frame_touch(used);
        cache_link(&fixture, block);
        epoch_drain();
        assert_true(cache_has(&fixture, 1));
    }
    assert_false(cache_has(&fixture, 0));
    /* Use wears off: when all were used, the hand clears and then takes. */
    for (uint32_t block = 100; block < 130; block++) {
        cache_link(&fixture, block);
        used = frame_table_pin(&fixture.table, block);
        assert_non_null(used);
        frame_touch(used);
        frame_unpin(used);
        epoch_drain();
        assert_true(cache_stats(&fixture).used_bytes <= cache_stats(&fixture).capacity_bytes);
    }
    assert_false(cache_has(&fixture, 1));
    cache_fixture_fini(&fixture);
}

/* A thread of its own: to link takes a lock, which no section may. */
static void *
cache_link_others(void *arg)
{
    for (uint32_t block = 20; block < 40; block++) {
        cache_link(arg, block);
    }
    return NULL;
}

static void
block_cache__never_frees_what_is_pinned(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 3);
    struct frame_ref *pinned[6];
    for (uint32_t block = 0; block < 6; block++) {
        pinned[block] = cache_link_pinned(&fixture, block);
    }
    /* Evicting them would give nothing back: they stay linked, over budget. */
    for (uint32_t block = 0; block < 6; block++) {
        assert_true(cache_has(&fixture, block));
    }
    for (uint32_t block = 0; block < 6; block++) {
        frame_unpin(pinned[block]);
    }
    cache_link(&fixture, 7);
    epoch_drain();
    assert_true(cache_stats(&fixture).used_bytes <= cache_stats(&fixture).capacity_bytes);

    /* Evicted between a lookup and its pin: the table's reference goes last. */
    struct frame_ref *frame = cache_link_pinned(&fixture, 8);
    frame_unpin(frame);
    struct thread_state *self = thread_state_get();
    epoch_enter(self);
    struct frame_ref *seen = frame_table_get(&fixture.table, 8);
    assert_ptr_equal(seen, frame);
    pthread_t linker;
    assert_int_equal(pthread_create(&linker, NULL, cache_link_others, &fixture), 0);
    assert_int_equal(pthread_join(linker, NULL), 0);
    assert_null(frame_table_get(&fixture.table, 8));
    frame_pin(seen);
    epoch_exit(self);
    epoch_drain();
    assert_int_equal(frame_data(seen)[0], 8);
    frame_unpin(seen);
    cache_fixture_fini(&fixture);
}

static void
block_cache__charges_shrink_the_room_for_frames(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 10);
    for (uint32_t block = 0; block < 10; block++) {
        cache_link(&fixture, block);
    }
    assert_int_equal(cache_stats(&fixture).evictions, 0);
    block_cache_charge(fixture.cache, MEMORY_WINDOWS, 6 * fixture.frame_bytes);
    epoch_drain();
    assert_int_equal(cache_stats(&fixture).evictions, 6);
    assert_int_equal(cache_stats(&fixture).used_bytes, cache_stats(&fixture).capacity_bytes);
    /* More than everything: nothing stays linked, pins work all the same. */
    block_cache_charge(fixture.cache, MEMORY_WINDOWS, 60 * fixture.frame_bytes);
    struct frame_ref *frame = cache_link_pinned(&fixture, 3);
    assert_int_equal(frame_data(frame)[0], 3);
    frame_unpin(frame);
    cache_link(&fixture, 4);
    cache_link(&fixture, 5);
    epoch_drain();
    assert_true(cache_stats(&fixture).evictions >= 12);
    block_cache_discharge(fixture.cache, MEMORY_WINDOWS, 66 * fixture.frame_bytes);
    cache_fixture_fini(&fixture);
}

static void
block_cache__second_copy_loses(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 10);
    struct frame_ref *first = cache_link_pinned(&fixture, 600);
    struct frame_ref *second = cache_link_pinned(&fixture, 600);
    assert_ptr_equal(first, second);
    frame_unpin(first);
    frame_unpin(second);
    cache_link(&fixture, CACHE_TABLE_BLOCKS - 1);
    assert_true(cache_has(&fixture, 600) && cache_has(&fixture, CACHE_TABLE_BLOCKS - 1));
    assert_false(cache_has(&fixture, 601));

    /* No memory for a chunk: the frame serves its owner and is not kept. */
    fixture.mem.fail_at = 1;
    fixture.mem.fail_on = true;
    assert_null(frame_create(fixture.cache, CACHE_DATA_BYTES));
    fixture.mem.fail_on = false;
    store_relaxed(&fixture.mem.calls, 0); /* relaxed: one thread. */
    fixture.mem.fail_at = 2;
    struct frame_ref *unkept = cache_link_pinned(&fixture, 5);
    assert_int_equal(frame_data(unkept)[0], 5);
    assert_false(cache_has(&fixture, 5));
    frame_unpin(unkept);
    fixture.mem.fail_at = 0;
    cache_fixture_fini(&fixture);
}

/* ---- Admission ---------------------------------------------------------- */

static bool
cache_admits(struct cache_fixture *fixture, uint32_t block_no, bool walk)
{
    return frame_table_admits(&fixture->table, block_no, fixture->frame_bytes, walk);
}

static void
block_cache__admits_what_is_missed_twice(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 8);
    for (uint32_t block = 0; block < 8; block++) {
        assert_true(cache_admits(&fixture, block, block % 2 == 0)); /* there is room */
        cache_link(&fixture, block);
    }
    /* Full: a first miss is turned away, a second soon after is not. */
    assert_false(cache_admits(&fixture, 20, false));
    assert_true(cache_admits(&fixture, 20, false));
    /* A walk leaves no note, and finds none that it would use. */
    assert_false(cache_admits(&fixture, 21, true));
    assert_false(cache_admits(&fixture, 21, true));
    assert_false(cache_admits(&fixture, 21, false));
    assert_false(cache_admits(&fixture, 21, true));
    /* More than a cache's worth of other misses later the note is too old. (Its clock counts KiB.) */
    for (uint32_t block = 100; block < 112; block++) {
        assert_false(cache_admits(&fixture, block, false));
    }
    assert_false(cache_admits(&fixture, 21, false));
    /* What was evicted is remembered like what was missed. */
    cache_link(&fixture, 20);
    epoch_drain();
    uint32_t gone = 0;
    while (cache_has(&fixture, gone)) {
        gone++;
    }
    assert_true(gone < 8);
    assert_true(cache_admits(&fixture, gone, false));
    /* A note does not stand in the way of a link, nor a link in that of a note. */
    cache_link(&fixture, gone);
    assert_true(cache_has(&fixture, gone));
    cache_fixture_fini(&fixture);
}

static void
block_cache__remembers_what_was_checked(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    cache_fixture_init(&fixture, 2);
    assert_int_equal(frame_table_checked(&fixture.table, 1000), 0);
    frame_table_set_checked(&fixture.table, 1000, 77); /* no note to keep it in */
    assert_int_equal(frame_table_checked(&fixture.table, 1000), 0);
    cache_link(&fixture, 1);
    cache_link(&fixture, 2);
    assert_false(cache_admits(&fixture, 3, false));
    frame_table_set_checked(&fixture.table, 3, 0xfedcba98);
    assert_int_equal(frame_table_checked(&fixture.table, 3), 0xfedcba98);
    assert_true(cache_admits(&fixture, 3, false)); /* the note is as old as before */
    for (uint32_t block = 100; block < 110; block++) {
        assert_false(cache_admits(&fixture, block, false));
    }
    assert_false(cache_admits(&fixture, 3, false)); /* renewed, the checksum kept */
    assert_int_equal(frame_table_checked(&fixture.table, 3), 0xfedcba98);
    struct frame_ref *frame = frame_create(fixture.cache, CACHE_DATA_BYTES);
    frame->checked = 5;
    frame = frame_table_link(&fixture.table, 3, frame);
    assert_int_equal(frame_table_checked(&fixture.table, 3), 0); /* it is here: nothing to check */
    frame_unpin(frame);
    for (uint32_t block = 10; block < 20; block++) {
        cache_link(&fixture, block);
    }
    assert_false(cache_has(&fixture, 3));
    assert_int_equal(frame_table_checked(&fixture.table, 3), 5);
    cache_fixture_fini(&fixture);
}

/* ---- Holders ------------------------------------------------------------ */

struct cache_thing {
    struct cache_holder holder;
    struct block_cache *cache;
    bool evicted, in_use;
};

static bool
cache_thing_evict(struct cache_holder *holder)
{
    struct cache_thing *thing = CONTAINER_OF(holder, struct cache_thing, holder);
    assert_false(thing->evicted);
    thing->evicted = true;
    return true;
}

static bool
cache_thing_in_use(struct cache_holder *holder)
{
    return CONTAINER_OF(holder, struct cache_thing, holder)->in_use;
}

static void
cache_thing_add(struct cache_fixture *fixture, struct cache_thing *thing, uint64_t bytes)
{
    *thing = (struct cache_thing){.cache = fixture->cache};
    thing->holder.evict = cache_thing_evict;
    thing->holder.in_use = cache_thing_in_use;
    thing->holder.bytes = bytes;
    thing->holder.can_page = true;
    block_cache_charge(fixture->cache, MEMORY_INDEXES, bytes);
    cache_holder_add(fixture->cache, &thing->holder);
}

static void
block_cache__evicts_holders_beyond_their_share(void **state)
{
    (void)state;
    struct cache_fixture fixture;
    struct cache_thing things[12];
    cache_fixture_init(&fixture, 100);
    uint64_t capacity = cache_stats(&fixture).capacity_bytes;
    block_cache_charge(fixture.cache, MEMORY_WINDOWS, capacity / 3);
    uint64_t each = capacity / 12; /* of 2/3, 3/4 are for them: six, less the table's own */
    for (size_t i = 0; i < 5; i++) {
        cache_thing_add(&fixture, &things[i], each);
        assert_int_equal(cache_stats(&fixture).holder_evictions, 0);
    }
    cache_holder_touch(&things[0].holder);
    cache_thing_add(&fixture, &things[5], 2 * each);
    assert_false(things[0].evicted); /* used */
    assert_true(things[1].evicted);
    assert_false(things[5].evicted); /* new */
    uint64_t evictions = cache_stats(&fixture).holder_evictions;
    assert_true(evictions >= 1 && evictions <= 3);
    assert_int_equal(cache_stats(&fixture).holders, 6 - evictions);
    for (size_t i = 0; i < 6; i++) {
        cache_holder_remove(fixture.cache, &things[i].holder);
        cache_holder_remove(fixture.cache, &things[i].holder); /* is out: nothing happens */
    }
    block_cache_discharge(fixture.cache, MEMORY_INDEXES, 7 * each);
    block_cache_discharge(fixture.cache, MEMORY_WINDOWS, capacity / 3);
    assert_int_equal(cache_stats(&fixture).holders, 0);
    /* So many files, however little memory. */
    block_cache_limit_holders(fixture.cache, 3);
    for (size_t i = 0; i < 12; i++) {
        cache_thing_add(&fixture, &things[i], 1);
        assert_int_equal(cache_stats(&fixture).holders, MIN(i + 1, (size_t)3));
    }
    for (size_t i = 0; i < 12; i++) {
        assert_int_equal(things[i].evicted, i < 9);
    }
    block_cache_shed_holders(fixture.cache);
    assert_int_equal(cache_stats(&fixture).holders, 0);
    for (size_t i = 0; i < 12; i++) {
        assert_true(things[i].evicted);
        cache_holder_remove(fixture.cache, &things[i].holder);
    }
    block_cache_discharge(fixture.cache, MEMORY_INDEXES, 12);
    cache_fixture_fini(&fixture);
}

/* ---- Threads ------------------------------------------------------------ */

enum { RACE_THREADS = 4, RACE_ROWS = 600, RACE_STEPS = 400, RACE_SHELF = 16 };

struct race {
    struct mem_io mio;
    struct block_cache *cache;
    struct test_rows rows;
    struct test_segment written;
    _Atomic(struct segment *) segment; /* swapped under the mutex */
    struct mutex mutex;
    _Atomic(struct frame_ref *) shelf[RACE_SHELF]; /* pins that change hands */
    uint32_t steps, swaps;
    pthread_barrier_t together;
    _Atomic uint64_t wrong, found;
};

static void
race_check(struct race *race, const struct test_row *row, enum segment_result result,
           const struct segment_hit *hit)
{
    bool right = result == SEGMENT_FOUND && hit->lsn == row->lsn && bytes_equal(hit->value, row->value);
    add_relaxed(right ? &race->found : &race->wrong, 1); /* relaxed: a count. */
}

/* The segment of now, with a reference. */
static struct segment *
race_grab(struct race *race)
{
    mutex_lock(&race->mutex);
    struct segment *segment = load_relaxed(&race->segment); /* relaxed: under the mutex. */
    segment_ref(segment);
    mutex_unlock(&race->mutex);
    return segment;
}

static void
race_get(struct race *race, struct segment *segment, struct rng *rng, struct thread_state *self)
{
    const struct test_row *row = &race->rows.at[rng_below(rng, race->rows.count)];
    uint64_t hash = segment_filter_hash(row->key);
    struct segment_hit hit = {0};
    bool keep = rng_below(rng, 4) == 0;
    epoch_enter(self);
    enum segment_result result = segment_get(segment, row->key, hash, row->lsn + 1, &hit);
    if (result != SEGMENT_NEEDS_IO) {
        race_check(race, row, result, &hit);
        if (result == SEGMENT_FOUND && keep) {
            frame_pin(hit.frame);
        }
    }
    epoch_exit(self);
    if (result == SEGMENT_NEEDS_IO) {
        result = segment_get_slow(segment, row->key, hash, row->lsn + 1, rng_below(rng, 8) != 0, &hit);
        race_check(race, row, result, &hit);
        if (result == SEGMENT_FOUND && !keep) {
            frame_unpin(hit.frame);
        }
    }
    if (result == SEGMENT_FOUND && keep) {
        /* Another thread will drop it. pairs: RACE_SHELF */
        struct frame_ref *other = exchange_seq(&race->shelf[rng_below(rng, RACE_SHELF)], hit.frame);
        if (other != NULL) {
            add_relaxed(&race->found, frame_data(other)[0] & 0); /* relaxed: touches it before the drop. */
            frame_unpin(other);
        }
    }
}

/* A key that is not there: the first of them makes a late filter come, beside others that look. */
static void
race_get_absent(struct race *race, struct segment *segment, struct rng *rng, struct thread_state *self)
{
    char key[24];
    int len = snprintf(key, sizeof key, "key %06ux", (uint32_t)rng_below(rng, RACE_ROWS / 2));
    struct bytes absent = bytes_make(key, (size_t)len);
    uint64_t hash = segment_filter_hash(absent);
    struct segment_hit hit = {0};
    epoch_enter(self);
    enum segment_result result = segment_get(segment, absent, hash, UINT64_MAX, &hit);
    epoch_exit(self);
    if (result == SEGMENT_NEEDS_IO) {
        result = segment_get_slow(segment, absent, hash, UINT64_MAX, true, &hit);
    }
    add_relaxed(&race->wrong, result != SEGMENT_ABSENT); /* relaxed: a count. */
}

static void
race_scan(struct race *race, struct segment *segment, struct rng *rng)
{
    struct iter *it = NULL;
    uint32_t at = (uint32_t)rng_below(rng, race->rows.count);
    esker_status status = segment_iter_create(segment, rng_below(rng, 2) == 0, &it);
    ASSERT(status == ESKER_OK);
    status = iter_seek(it, race->rows.at[at].key);
    at = test_segment_lower(&race->rows, race->rows.at[at].key);
    for (uint32_t i = 0; i < 60 && status == ESKER_OK && at < race->rows.count; i++, at++) {
        bool right =
            bytes_equal(it->key, race->rows.at[at].key) && bytes_equal(it->value, race->rows.at[at].value);
        add_relaxed(right ? &race->found : &race->wrong, 1); /* relaxed: a count. */
        status = iter_next(it);
    }
    add_relaxed(&race->wrong, status != ESKER_OK && status != ESKER_END); /* relaxed: a count. */
    iter_destroy(it);
}

static void *
race_read(void *arg)
{
    struct race *race = arg;
    struct thread_state *self = thread_state_get();
    struct rng rng = {(uint64_t)(uintptr_t)&rng};
    ASSERT(self != NULL);
    for (uint32_t step = 0; step < race->steps; step++) {
        struct segment *segment = race_grab(race);
        for (int i = 0; i < 20; i++) {
            race_get(race, segment, &rng, self);
            if (i % 8 == 7) {
                race_get_absent(race, segment, &rng, self);
            }
        }
        if (step % 16 == 0) {
            race_scan(race, segment, &rng);
        }
        segment_unref(segment);
    }
    return NULL;
}

/* A new handle for the same file; the old one goes when its last reader does. */
static void
race_swap(struct race *race)
{
    struct segment_meta meta = race->written.meta;
    meta.level = race->swaps++ % 4 == 0 ? 0 : 1; /* below level 0 filters are late */
    struct segment *fresh = test_segment_handle(&race->mio.base, &mem_default, race->cache, &meta);
    ASSERT(fresh != NULL);
    mutex_lock(&race->mutex);
    struct segment *old = load_relaxed(&race->segment); /* relaxed: under the mutex. */
    store_relaxed(&race->segment, fresh);
    mutex_unlock(&race->mutex);
    if (old != NULL) {
        segment_unref(old);
    }
}

static void
race_init(struct race *race, uint64_t capacity, uint32_t steps)
{
    memset(race, 0, sizeof *race);
    mem_io_init(&race->mio);
    mutex_init(&race->mutex);
    race->steps = steps;
    test_rows_init(&race->rows, RACE_ROWS, 4 << 20);
    for (uint32_t i = 0; i < RACE_ROWS; i++) {
        char key[24];
        int len = snprintf(key, sizeof key, "key %06u", i / 2);
        test_segment_row(&race->rows, bytes_make(key, (size_t)len), 2 + i % 2, 10 + i % 90);
    }
    test_rows_settle(&race->rows);
    assert_ok(epoch_runtime_acquire(false));
    assert_ok(block_cache_create(&mem_default, capacity, &race->cache));
    assert_ok(test_segment_write(&race->mio.base, &mem_default, &race->rows, 3, ESKER_COMPRESS_LZ4, 512,
                                 &race->written));
    race_swap(race);
}

static void
race_fini(struct race *race)
{
    for (size_t i = 0; i < RACE_SHELF; i++) {
        struct frame_ref *frame = exchange_seq(&race->shelf[i], NULL); /* pairs: RACE_SHELF */
        if (frame != NULL) {
            frame_unpin(frame);
        }
    }
    segment_unref(load_relaxed(&race->segment)); /* relaxed: one thread again. */
    epoch_drain();
    struct block_cache_stats stats;
    block_cache_get_stats(race->cache, &stats);
    assert_int_equal(stats.used_bytes, 0);
    block_cache_destroy(race->cache);
    epoch_runtime_release();
    test_rows_fini(&race->rows);
    mem_io_fini(&race->mio);
    mutex_fini(&race->mutex);
}

static void
block_cache__serves_threads_under_eviction(void **state)
{
    (void)state;
    static const uint64_t capacities[] = {0, 20000, 1 << 20};
    for (size_t capacity = 0; capacity < COUNTOF(capacities); capacity++) {
        struct race race;
        pthread_t threads[RACE_THREADS];
        race_init(&race, capacities[capacity], RACE_STEPS);
        for (size_t i = 0; i < RACE_THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, race_read, &race), 0);
        }
        for (int i = 0; i < 40; i++) {
            race_swap(&race);
            epoch_drain();
        }
        for (size_t i = 0; i < RACE_THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_int_equal(load_relaxed(&race.wrong), 0); /* relaxed: joined. */
        assert_true(load_relaxed(&race.found) >= RACE_THREADS * RACE_STEPS * 20);
        struct block_cache_stats stats;
        block_cache_get_stats(race.cache, &stats);
        assert_true(stats.misses > 0);
        assert_true(capacities[capacity] != 20000 || stats.evictions > 100);
        race_fini(&race);
    }
}

/* ---- A filter that comes later --------------------------------------------- */

enum { LATE_ROUNDS = 12, LATE_LOOKS = 300 };

/* What is seen of a filter lets a present key pass. Read by portable code, which the race detector sees. */
static void
race_look_at_filter(struct race *race, struct segment *segment, const struct test_row *row,
                    struct thread_state *self)
{
    epoch_enter(self);
    const struct segment_loaded *loaded = load_acquire(&segment->loaded); /* pairs: SEGMENT_LOADED */
    const uint8_t *filter = loaded != NULL ? segment_loaded_filter(loaded) : NULL;
    bool wrong = filter != NULL && !filter_may_contain_portable(filter, loaded->footer.filter_pages,
                                                                segment_filter_hash(row->key));
    epoch_exit(self);
    add_relaxed(&race->wrong, wrong); /* relaxed: a count. */
}

/* Nothing but the filter's pointer orders these threads: no mutex of the test's own. */
static void *
race_miss(void *arg)
{
    struct race *race = arg;
    struct segment *segment = load_relaxed(&race->segment); /* relaxed: as it was before the threads. */
    struct thread_state *self = thread_state_get();
    struct rng rng = {(uint64_t)(uintptr_t)&rng};
    ASSERT(self != NULL);
    (void)pthread_barrier_wait(&race->together);
    for (uint32_t i = 0; i < LATE_LOOKS; i++) {
        race_look_at_filter(race, segment, &race->rows.at[rng_below(&rng, race->rows.count)], self);
        race_get_absent(race, segment, &rng, self);
    }
    return NULL;
}

static void
late_filter__is_whole_where_it_is_seen(void **state)
{
    (void)state;
    struct race race;
    race_init(&race, 1 << 20, 0);
    assert_int_equal(pthread_barrier_init(&race.together, NULL, RACE_THREADS), 0);
    for (int round = 0; round < LATE_ROUNDS; round++) {
        pthread_t threads[RACE_THREADS];
        race_swap(&race);
        for (size_t i = 0; i < RACE_THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, race_miss, &race), 0);
        }
        for (size_t i = 0; i < RACE_THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
    }
    assert_int_equal(load_relaxed(&race.wrong), 0); /* relaxed: joined. */
    assert_int_equal(pthread_barrier_destroy(&race.together), 0);
    race_fini(&race);
}

/* ---- Coalescing --------------------------------------------------------- */

static void *
race_read_one(void *arg)
{
    struct race *race = arg;
    const struct test_row *row = &race->rows.at[RACE_ROWS / 2];
    struct segment_hit hit = {0};
    struct segment *segment = race_grab(race);
    enum segment_result result =
        segment_get_slow(segment, row->key, segment_filter_hash(row->key), row->lsn + 1, true, &hit);
    race_check(race, row, result, &hit);
    if (result == SEGMENT_FOUND) {
        frame_unpin(hit.frame);
    }
    segment_unref(segment);
    return NULL;
}

static void
block_cache__one_block_is_read_once(void **state)
{
    (void)state;
    for (int round = 0; round < 10; round++) {
        struct race race;
        pthread_t threads[RACE_THREADS];
        race_init(&race, 1 << 20, 0);
        struct segment_loaded *loaded = NULL;
        assert_ok(segment_load(load_relaxed(&race.segment), &loaded)); /* relaxed: one thread. */
        segment_loaded_unref(loaded);
        race.mio.delay_us = 3000;
        uint64_t before = load_relaxed(&race.mio.calls); /* relaxed: one thread. */
        for (size_t i = 0; i < RACE_THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, race_read_one, &race), 0);
        }
        for (size_t i = 0; i < RACE_THREADS; i++) {
            assert_int_equal(pthread_join(threads[i], NULL), 0);
        }
        assert_int_equal(load_relaxed(&race.mio.calls) - before, 1); /* relaxed: joined. */
        assert_int_equal(load_relaxed(&race.found), RACE_THREADS);
        race_fini(&race);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_cache__keeps_to_its_budget),
        cmocka_unit_test(block_cache__spares_what_was_used),
        cmocka_unit_test(block_cache__never_frees_what_is_pinned),
        cmocka_unit_test(block_cache__charges_shrink_the_room_for_frames),
        cmocka_unit_test(block_cache__second_copy_loses),
        cmocka_unit_test(block_cache__admits_what_is_missed_twice),
        cmocka_unit_test(block_cache__remembers_what_was_checked),
        cmocka_unit_test(block_cache__evicts_holders_beyond_their_share),
        cmocka_unit_test(block_cache__serves_threads_under_eviction),
        cmocka_unit_test(late_filter__is_whole_where_it_is_seen),
        cmocka_unit_test(block_cache__one_block_is_read_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
