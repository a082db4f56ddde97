/* SPDX-License-Identifier: MIT */
/*
 * Goal: a short read brings its own blocks and nothing else; a long walk has the disk
 * at work before it needs what comes, in both directions, within bounds, with memory that
 * is bounded and given back; and a read that could not be begun changes nothing.
 * Method: files in memory that note every read, made or begun, as ranges.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "segment/segment_internal.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum {
    ROWS = 60000,
    VALUE_LEN = 100,
    BLOCK_BYTES = 4096,
    LEAST = 128 << 10,
    MOST = 1 << 20,
    CACHE_BYTES = 32 << 20
};

struct fixture {
    struct mem_io mio;
    struct block_cache *cache;
    struct test_segment written;
    struct segment *segment;
    struct segment_loaded *loaded;
    uint8_t keys[ROWS][8];
};

static struct bytes
key_of(struct fixture *fixture, uint32_t row)
{
    uint8_t *key = fixture->keys[row];
    for (int i = 0; i < 8; i++) {
        key[i] = (uint8_t)((uint64_t)row >> (56 - 8 * i));
    }
    return bytes_make(key, 8);
}

/* A cache in which there is no room for frames: every walk goes to the disk. */
static void
fixture_init(struct fixture *fixture)
{
    static const uint8_t value[VALUE_LEN] = {1, 2, 3};
    memset(fixture, 0, sizeof *fixture);
    mem_io_init(&fixture->mio);
    assert_ok(epoch_runtime_acquire(true));
    assert_ok(block_cache_create(&mem_default, CACHE_BYTES, &fixture->cache));
    block_cache_charge(fixture->cache, MEMORY_WINDOWS, CACHE_BYTES);
    struct test_rows rows = {.at = calloc(ROWS, sizeof *rows.at), .count = ROWS};
    assert_non_null(rows.at);
    for (uint32_t i = 0; i < ROWS; i++) {
        rows.at[i] = (struct test_row){.key = key_of(fixture, i),
                                       .lsn = i + 1,
                                       .op = ENTRY_PUT,
                                       .value = bytes_make(value, sizeof value)};
    }
    assert_ok(test_segment_write(&fixture->mio.base, &mem_default, &rows, 1, ESKER_COMPRESS_NONE, BLOCK_BYTES,
                                 &fixture->written));
    free(rows.at);
    fixture->segment =
        test_segment_handle(&fixture->mio.base, &mem_default, fixture->cache, &fixture->written.meta);
    assert_ok(segment_load(fixture->segment, &fixture->loaded));
    fixture->mio.notes_on = true;
}

static void
fixture_fini(struct fixture *fixture)
{
    segment_loaded_unref(fixture->loaded);
    segment_unref(fixture->segment);
    epoch_drain();
    block_cache_discharge(fixture->cache, MEMORY_WINDOWS, CACHE_BYTES);
    block_cache_destroy(fixture->cache);
    epoch_runtime_release();
    mem_io_fini(&fixture->mio);
}

static struct iter *
walker(struct fixture *fixture, struct iter_bounds bounds)
{
    struct iter *it;
    assert_ok(segment_iter_create(fixture->segment, true, &it));
    segment_iter_set_bounds(it, bounds);
    fixture->mio.note_count = 0;
    return it;
}

/* From row `from` on or down, `rows` of them. */
static void
walk(struct fixture *fixture, struct iter *it, uint32_t from, uint32_t rows, bool backward)
{
    assert_ok(iter_seek(it, key_of(fixture, from)));
    for (uint32_t i = 0; i < rows; i++) {
        uint32_t row = backward ? from - i : from + i;
        assert_true(bytes_equal(it->key, key_of(fixture, row)));
        if (i + 1 < rows) {
            assert_ok(backward ? iter_prev(it) : iter_next(it));
        }
    }
}

static uint64_t
offset_of(struct fixture *fixture, uint32_t row, bool end)
{
    struct segment_at at;
    assert_true(segment_at_seek(fixture->loaded, key_of(fixture, row), &at));
    struct block_handle handle = segment_at_handle(fixture->loaded, at);
    return handle.offset + (end ? handle.stored_len : 0);
}

static uint64_t
noted_bytes(const struct mem_io *mio, bool begun)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < mio->note_count; i++) {
        bytes += mio->notes[i].begun == begun ? mio->notes[i].to - mio->notes[i].from : 0;
    }
    return bytes;
}

/* ---- Short reads ------------------------------------------------------------- */

static void
seek__of_ten_rows_reads_its_blocks_alone(void **state)
{
    (void)state;
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_init(fixture);
    for (uint32_t from = 3; from + 20 < ROWS; from += 977) {
        struct iter *it = walker(fixture, (struct iter_bounds){0});
        walk(fixture, it, from, 10, false);
        uint64_t blocks = offset_of(fixture, from + 9, true) - offset_of(fixture, from, false);
        assert_int_equal(noted_bytes(&fixture->mio, false), blocks);
        assert_int_equal(noted_bytes(&fixture->mio, true), 0);
        iter_destroy(it);
    }
    fixture_fini(fixture);
    free(fixture);
}

/* ---- Long walks -------------------------------------------------------------- */

/* What is read in one piece behind the first such read was begun before; more and more of it. */
static void
check_walk(const struct fixture *fixture, bool backward, uint64_t least, uint64_t most)
{
    uint64_t begun_from = 0;
    uint64_t begun_to = 0;
    uint64_t large_reads = 0;
    uint64_t missed = 0;
    uint64_t first = 0;
    uint64_t most_ahead = 0;
    uint64_t read_to = backward ? UINT64_MAX : 0;
    for (size_t i = 0; i < fixture->mio.note_count; i++) {
        const struct mem_io_note *note = &fixture->mio.notes[i];
        uint64_t len = note->to - note->from;
        assert_true(note->from >= least && note->to <= most);
        if (note->begun) {
            assert_true(len > 0 && len <= MOST);
            if (begun_to != 0) { /* without gaps, and nothing twice */
                assert_int_equal(backward ? note->to : note->from, backward ? begun_from : begun_to);
            }
            begun_from = backward || begun_to == 0 ? note->from : begun_from;
            begun_to = backward && begun_to != 0 ? begun_to : note->to;
            first = first == 0 ? len : first;
            most_ahead = MAX(most_ahead, backward ? read_to - note->from : note->to - read_to);
        } else if (len > BLOCK_BYTES * 2) {
            large_reads++;
            read_to = backward ? note->from : note->to;
            missed += note->from < begun_from || note->to > begun_to;
        }
    }
    assert_true(large_reads > 10);
    assert_int_equal(missed, 1);                      /* the first: nobody knew yet */
    assert_true(first > LEAST && first <= 2 * LEAST); /* as much as the buffer after the first */
    assert_int_equal(most_ahead, MOST);
}

static void
walk__has_the_disk_at_work_ahead(void **state)
{
    (void)state;
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_init(fixture);
    uint64_t end = fixture->loaded->footer.data_end;
    for (int backward = 0; backward < 2; backward++) {
        for (int fails = 0; fails < 2; fails++) {
            fixture->mio.begin_fails = fails != 0;
            struct iter *it = walker(fixture, (struct iter_bounds){0});
            walk(fixture, it, backward ? ROWS - 1 : 0, ROWS, backward != 0);
            check_walk(fixture, backward != 0, 0, end);
            iter_destroy(it);
        }
    }
    fixture_fini(fixture);
    free(fixture);
}

static void
walk__reads_nothing_outside_of_its_bounds(void **state)
{
    (void)state;
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_init(fixture);
    static const uint32_t stretches[][2] = {
        {0, 400}, {5000, 5700}, {10000, 50000}, {59000, ROWS}, {700, 740}};
    for (size_t i = 0; i < COUNTOF(stretches); i++) {
        uint32_t lower = stretches[i][0];
        uint32_t upper = stretches[i][1] - 1;
        struct iter_bounds bounds = {.lower = key_of(fixture, lower), .upper = key_of(fixture, upper)};
        for (int backward = 0; backward < 2; backward++) {
            struct iter *it = walker(fixture, bounds);
            walk(fixture, it, backward ? upper : lower, upper - lower + 1, backward != 0);
            for (size_t n = 0; n < fixture->mio.note_count; n++) {
                assert_true(fixture->mio.notes[n].from >= offset_of(fixture, lower, false));
                assert_true(fixture->mio.notes[n].to <= offset_of(fixture, upper, true));
            }
            iter_destroy(it);
        }
    }
    fixture_fini(fixture);
    free(fixture);
}

static void
walk__gives_its_memory_back_at_a_seek(void **state)
{
    (void)state;
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_init(fixture);
    struct iter *it = walker(fixture, (struct iter_bounds){0});
    struct block_cache_stats stats;
    assert_ok(iter_seek(it, key_of(fixture, 100)));
    block_cache_get_stats(fixture->cache, &stats);
    uint64_t before = stats.charged_bytes[MEMORY_ITERATORS];
    walk(fixture, it, 100, 20000, false);
    block_cache_get_stats(fixture->cache, &stats);
    assert_true(stats.charged_bytes[MEMORY_ITERATORS] >= before + LEAST);
    assert_true(stats.charged_bytes[MEMORY_ITERATORS] <= before + SEGMENT_AHEAD_CACHED_BYTES + 4096);
    assert_ok(iter_seek(it, key_of(fixture, 40000)));
    block_cache_get_stats(fixture->cache, &stats);
    assert_int_equal(stats.charged_bytes[MEMORY_ITERATORS], before);
    /* And begins anew, small. */
    fixture->mio.note_count = 0;
    walk(fixture, it, 50000, 200, false);
    assert_true(noted_bytes(&fixture->mio, false) + noted_bytes(&fixture->mio, true) <= 2 * LEAST);
    iter_destroy(it);
    fixture_fini(fixture);
    free(fixture);
}

/* Loads the file once more, as a segment of that level. */
static void
load_as(struct fixture *fixture, uint32_t level)
{
    struct segment_meta meta = fixture->written.meta;
    meta.level = level;
    struct segment *segment = test_segment_handle(&fixture->mio.base, &mem_default, fixture->cache, &meta);
    struct segment_loaded *loaded;
    fixture->mio.note_count = 0;
    assert_ok(segment_load(segment, &loaded));
    segment_loaded_unref(loaded);
    segment_unref(segment);
    epoch_drain();
}

/* One read's time for a cold segment: index and filter are on their way before their place is known. */
static void
load__begins_index_and_filter_before_anything_is_read(void **state)
{
    (void)state;
    struct fixture *fixture = malloc(sizeof *fixture);
    assert_non_null(fixture);
    fixture_init(fixture);
    load_as(fixture, 0);
    const struct mem_io_note *notes = fixture->mio.notes;
    const struct segment_footer *footer = &fixture->loaded->footer;
    uint64_t size = fixture->written.meta.size_bytes;
    uint64_t needed = size - footer->data_end;
    assert_true(notes[0].begun && notes[1].begun && notes[2].begun);
    assert_int_equal(notes[0].to, notes[1].from);
    assert_int_equal(notes[1].to, size);
    assert_true(size - notes[0].from >= needed);
    assert_true(size - notes[0].from <= 2 * needed);
    assert_true(notes[2].from == 0 && notes[2].to == SEGMENT_HEADER_BYTES);
    assert_int_equal(noted_bytes(&fixture->mio, true),
                     size - notes[0].from + SEGMENT_HEADER_BYTES); /* nothing else */
    /* Below level 0 the filter is left out. */
    block_cache_discharge(fixture->cache, MEMORY_WINDOWS, CACHE_BYTES);
    load_as(fixture, 1);
    block_cache_charge(fixture->cache, MEMORY_WINDOWS, CACHE_BYTES);
    uint64_t index_end = footer->root.offset + footer->root.stored_len;
    assert_true(notes[0].begun && notes[1].begun && notes[2].begun);
    assert_true(notes[0].from <= footer->data_end && notes[0].to >= index_end);
    assert_true(notes[0].to - notes[0].from <= 2 * (index_end - footer->data_end) + (8 << 10));
    assert_true(notes[1].from >= notes[0].to && notes[1].to == size);
    /* Where it fails all is as without. */
    fixture->mio.begin_fails = true;
    load_as(fixture, 0);
    fixture->mio.begin_fails = false;
    /* Where there is room for the root alone, nothing is begun. */
    load_as(fixture, 1);
    assert_int_equal(noted_bytes(&fixture->mio, true), 0);
    fixture_fini(fixture);
    free(fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(load__begins_index_and_filter_before_anything_is_read),
        cmocka_unit_test(seek__of_ten_rows_reads_its_blocks_alone),
        cmocka_unit_test(walk__has_the_disk_at_work_ahead),
        cmocka_unit_test(walk__reads_nothing_outside_of_its_bounds),
        cmocka_unit_test(walk__gives_its_memory_back_at_a_seek),
    };
    return cmocka_run_group_tests_name("segment ahead", tests, NULL, NULL);
}
