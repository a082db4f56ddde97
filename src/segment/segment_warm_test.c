/* SPDX-License-Identifier: MIT */
/*
 * Goal: a new segment's blocks are in the cache from the start where readers
 * want their rows, and only there; the budget holds on the way; what is not taken
 * over is given back, and without memory everything still reads.
 * Method: rows marked by hand, the fast path as the judge of what is cached.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "segment/segment_writer_internal.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum { WARM_ROWS = 4000, WARM_BLOCK_BYTES = 4096, WARM_PLENTY = 64 << 20 };

struct warm_fixture {
    struct mem_io mio;
    struct test_mem mem;
    struct block_cache *cache;
    struct test_rows rows;
    struct test_segment written;
    struct segment *segment;
};

static void
warm_init(struct warm_fixture *fixture, uint64_t cache_bytes)
{
    memset(fixture, 0, sizeof *fixture);
    mem_io_init(&fixture->mio);
    test_mem_init(&fixture->mem);
    assert_ok(epoch_runtime_acquire(true));
    assert_ok(block_cache_create(&fixture->mem.base, cache_bytes, &fixture->cache));
    test_rows_init(&fixture->rows, WARM_ROWS, (size_t)WARM_ROWS * 256);
    for (uint32_t i = 0; i < WARM_ROWS; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "%08u", (unsigned)i);
        test_segment_row(&fixture->rows, bytes_make(key, (size_t)len), 1 + i, 100);
    }
    test_rows_settle(&fixture->rows);
}

static void
warm_fini(struct warm_fixture *fixture)
{
    if (fixture->segment != NULL) {
        segment_unref(fixture->segment);
    }
    epoch_drain();
    block_cache_destroy(fixture->cache);
    epoch_runtime_release();
    test_rows_fini(&fixture->rows);
    mem_io_fini(&fixture->mio);
    assert_int_equal(load_relaxed(&fixture->mem.live_bytes), 0);
}

/* Rows [from, to) have that heat, the others none. */
static struct segment_warm *
warm_write(struct warm_fixture *fixture, uint32_t from, uint32_t to, enum iter_heat heat)
{
    struct segment_writer_options options = {.id = 1,
                                             .compression = ESKER_COMPRESS_LZ4,
                                             .block_bytes = WARM_BLOCK_BYTES,
                                             .cache = fixture->cache,
                                             .warm = true};
    struct segment_writer *writer = NULL;
    memcpy(options.uuid, test_segment_uuid, sizeof options.uuid);
    assert_ok(segment_writer_create(&fixture->mio.base, &fixture->mem.base, &options, &writer));
    for (uint32_t i = 0; i < WARM_ROWS; i++) {
        const struct test_row *row = &fixture->rows.at[i];
        assert_ok(segment_writer_add(writer, row->key, row->lsn, row->op, row->value));
        segment_writer_note_heat(writer, i >= from && i < to ? heat : ITER_COLD);
    }
    assert_ok(segment_writer_finish(writer, &fixture->written.meta, fixture->written.keys));
    struct segment_warm *warm = segment_writer_take_warm(writer);
    segment_writer_destroy(writer);
    fixture->segment =
        test_segment_handle(&fixture->mio.base, &fixture->mem.base, fixture->cache, &fixture->written.meta);
    assert_non_null(fixture->segment);
    return warm;
}

/* Every row of [from, to) is answered by the fast path, rightly; returns how many are. */
static uint32_t
warm_count(const struct warm_fixture *fixture, uint32_t from, uint32_t to)
{
    uint32_t count = 0;
    for (uint32_t i = from; i < to; i++) {
        const struct test_row *row = &fixture->rows.at[i];
        struct segment_hit hit = {0};
        uint64_t hash = 0;
        if (test_segment_get(fixture->segment, row->key, UINT64_MAX, &hit, &hash) == SEGMENT_FOUND) {
            assert_true(hash == hash64(row->value.ptr, row->value.len, 0));
            assert_int_equal(hit.lsn, row->lsn);
            count++;
        }
    }
    return count;
}

static uint64_t
warm_frame_bytes(const struct warm_fixture *fixture)
{
    struct block_cache_stats stats;
    block_cache_get_stats(fixture->cache, &stats);
    return stats.frame_bytes;
}

static void
warm__blocks_of_wanted_rows_are_there_at_once(void **state)
{
    static const enum iter_heat heats[] = {ITER_FRESH, ITER_USED};

    (void)state;
    for (size_t i = 0; i < COUNTOF(heats); i++) {
        struct warm_fixture fixture;
        warm_init(&fixture, WARM_PLENTY);
        struct segment_warm *warm = warm_write(&fixture, 1000, 2000, heats[i]);
        assert_non_null(warm);
        assert_true(segment_adopt(fixture.segment, warm, SIZE_MAX));
        /* A block at either border is on one side or the other. */
        assert_int_equal(warm_count(&fixture, 1050, 1950), 900);
        assert_int_equal(warm_count(&fixture, 0, 950), 0);
        assert_int_equal(warm_count(&fixture, 2050, WARM_ROWS), 0);
        uint64_t calls = load_relaxed(&fixture.mio.calls);
        struct segment_hit hit = {0};
        const struct test_row *row = &fixture.rows.at[1500];
        assert_int_equal(segment_get_slow(fixture.segment, row->key, segment_filter_hash(row->key),
                                          UINT64_MAX, true, &hit),
                         SEGMENT_FOUND);
        frame_unpin(hit.frame);
        assert_int_equal(load_relaxed(&fixture.mio.calls), calls);
        warm_fini(&fixture);
    }
}

static void
warm__nothing_is_kept_that_nobody_wants(void **state)
{
    (void)state;
    struct warm_fixture fixture;
    warm_init(&fixture, WARM_PLENTY);
    assert_null(warm_write(&fixture, 0, 0, ITER_USED));
    assert_int_equal(warm_frame_bytes(&fixture), 0);
    assert_true(segment_adopt(fixture.segment, NULL, 1)); /* index and filter alone */
    struct segment_hit hit = {0};
    const struct test_row *row = &fixture.rows.at[7];
    assert_int_equal(test_segment_get(fixture.segment, row->key, UINT64_MAX, &hit, NULL), SEGMENT_NEEDS_IO);
    assert_int_equal(hit.place.stage, SEGMENT_STAGE_DATA); /* it got as far as the block */
    warm_fini(&fixture);
}

static void
warm__what_is_not_taken_over_is_given_back(void **state)
{
    (void)state;
    struct warm_fixture fixture;
    warm_init(&fixture, WARM_PLENTY);
    struct segment_warm *warm = warm_write(&fixture, 0, WARM_ROWS, ITER_USED);
    assert_true(warm_frame_bytes(&fixture) > WARM_ROWS * 100);
    segment_warm_destroy(warm);
    assert_int_equal(warm_frame_bytes(&fixture), 0);
    warm_fini(&fixture);
}

/* Block by block; what was not handed over in the middle of it is given back. */
static void
warm__is_handed_over_in_pieces(void **state)
{
    (void)state;
    for (uint32_t stop = 0; stop < 2; stop++) {
        struct warm_fixture fixture;
        warm_init(&fixture, WARM_PLENTY);
        struct segment_warm *warm = warm_write(&fixture, 0, WARM_ROWS, ITER_USED);
        uint32_t count = 0;
        uint32_t steps = 0;
        bool all = false;
        while (!all && (stop == 0 || steps < 10)) {
            all = segment_adopt(fixture.segment, warm, 1);
            uint32_t now = warm_count(&fixture, 0, WARM_ROWS);
            assert_true(now > count && now - count <= WARM_BLOCK_BYTES / 100);
            count = now;
            steps++;
        }
        assert_true(stop > 0 ? count < WARM_ROWS && !all : count == WARM_ROWS && steps > 100);
        uint64_t before = warm_frame_bytes(&fixture);
        if (stop > 0) {
            segment_warm_destroy(warm);
            assert_true(warm_frame_bytes(&fixture) < before / 2);
        }
        assert_int_equal(warm_count(&fixture, 0, WARM_ROWS), count);
        warm_fini(&fixture);
    }
}

/* The cache is a quarter of the segment. What was written just now takes the room that
 * there is; what readers use goes on from there, but not far. */
static void
warm__the_budget_holds(void **state)
{
    enum { SMALL = 160 << 10 };

    uint64_t held[2];
    (void)state;
    for (int used = 0; used < 2; used++) {
        struct warm_fixture fixture;
        warm_init(&fixture, SMALL);
        block_cache_charge(fixture.cache, MEMORY_WINDOWS, SMALL - SMALL / 16);
        struct segment_warm *warm = warm_write(&fixture, 0, WARM_ROWS, used != 0 ? ITER_USED : ITER_FRESH);
        held[used] = warm_frame_bytes(&fixture);
        assert_true(held[used] <= SMALL / 8);
        assert_true(segment_adopt(fixture.segment, warm, SIZE_MAX));
        block_cache_discharge(fixture.cache, MEMORY_WINDOWS, SMALL - SMALL / 16);
        warm_fini(&fixture);
    }
    assert_true(held[0] < held[1]);
}

static void
warm__rows_read_the_same_whatever_allocation_fails(void **state)
{
    (void)state;
    for (uint64_t fail_at = 1; fail_at < 60; fail_at++) {
        struct warm_fixture fixture;
        warm_init(&fixture, WARM_PLENTY);
        struct segment_warm *warm = warm_write(&fixture, 0, WARM_ROWS, ITER_USED);
        fixture.mem.fail_at = load_relaxed(&fixture.mem.calls) + fail_at;
        assert_true(segment_adopt(fixture.segment, warm, SIZE_MAX));
        fixture.mem.fail_at = 0;
        for (uint32_t i = 0; i < WARM_ROWS; i += 97) {
            const struct test_row *row = &fixture.rows.at[i];
            struct segment_hit hit = {0};
            assert_int_equal(segment_get_slow(fixture.segment, row->key, segment_filter_hash(row->key),
                                              UINT64_MAX, true, &hit),
                             SEGMENT_FOUND);
            assert_true(bytes_equal(hit.value, row->value));
            frame_unpin(hit.frame);
        }
        warm_fini(&fixture);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warm__blocks_of_wanted_rows_are_there_at_once),
        cmocka_unit_test(warm__nothing_is_kept_that_nobody_wants),
        cmocka_unit_test(warm__what_is_not_taken_over_is_given_back),
        cmocka_unit_test(warm__is_handed_over_in_pieces),
        cmocka_unit_test(warm__the_budget_holds),
        cmocka_unit_test(warm__rows_read_the_same_whatever_allocation_fails),
    };
    return cmocka_run_group_tests_name("segment warm", tests, NULL, NULL);
}
