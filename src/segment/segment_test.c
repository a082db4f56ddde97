/* SPDX-License-Identifier: MIT */
/*
 * Goal: a segment gives back exactly the rows that were written, by point
 * lookups at every snapshot edge and by iteration from every place in both
 * directions, whatever the keys, sizes, codec and block size.
 * Method: awkward rows in a sorted array are the model; every answer is
 * compared with it. Files live in memory, once also in a real directory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <unistd.h>

#include "format/segment_format.h"
#include "iter/iter_run.h"
#include "segment/segment_internal.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

struct segment_fixture {
    struct mem_io mio;
    struct io *io;
    struct block_cache *cache;
    struct test_rows rows;
    struct test_segment written;
    struct segment *segment;
};

static void
segment_fixture_init(struct segment_fixture *fixture, uint64_t cache_bytes)
{
    memset(fixture, 0, sizeof *fixture);
    mem_io_init(&fixture->mio);
    fixture->io = &fixture->mio.base;
    assert_ok(epoch_runtime_acquire(true));
    assert_ok(block_cache_create(&mem_default, cache_bytes, &fixture->cache));
}

static void
segment_fixture_build(struct segment_fixture *fixture, uint64_t id, int compression, uint32_t block_bytes)
{
    /* Odd ones with an index of two levels, however small they are. */
    assert_ok(test_segment_write_as(fixture->io, &mem_default, &fixture->rows, id, compression, block_bytes,
                                    id % 2 != 0, &fixture->written));
    fixture->segment = test_segment_handle(fixture->io, &mem_default, fixture->cache, &fixture->written.meta);
    assert_non_null(fixture->segment);
}

static void
segment_fixture_drop(struct segment_fixture *fixture)
{
    segment_unref(fixture->segment);
    fixture->segment = NULL;
}

static void
segment_fixture_fini(struct segment_fixture *fixture)
{
    if (fixture->segment != NULL) {
        segment_fixture_drop(fixture);
    }
    epoch_drain();
    block_cache_destroy(fixture->cache);
    epoch_runtime_release();
    test_rows_fini(&fixture->rows);
    mem_io_fini(&fixture->mio);
}

/* ---- Comparing ---------------------------------------------------------- */

static void
assert_row(const struct iter *it, const struct test_row *row)
{
    assert_true(bytes_equal(it->key, row->key));
    assert_true(bytes_equal(it->value, row->value));
    assert_int_equal(it->lsn, row->lsn);
    assert_int_equal(it->op, row->op);
}

static void
check_scans(const struct segment_fixture *fixture, bool through_cache)
{
    const struct test_rows *rows = &fixture->rows;
    struct iter *it = NULL;
    assert_ok(segment_iter_create(fixture->segment, through_cache, &it));
    esker_status status = iter_first(it);
    for (uint32_t i = 0; i < rows->count; i++) {
        assert_ok(status);
        assert_row(it, &rows->at[i]);
        status = iter_next(it);
    }
    assert_int_equal(status, ESKER_END);
    status = iter_last(it);
    for (uint32_t i = rows->count; i > 0; i--) {
        assert_ok(status);
        assert_row(it, &rows->at[i - 1]);
        status = iter_prev(it);
    }
    assert_int_equal(status, ESKER_END);
    iter_destroy(it);
}

/* What rows say of their neighbours and blocks of their borders, also where the next block tells. */
static void
check_runs(const struct segment_fixture *fixture)
{
    const struct test_rows *rows = &fixture->rows;
    uint64_t max_lsn = segment_meta(fixture->segment)->max_lsn;
    struct iter *it = NULL;
    assert_ok(segment_iter_create(fixture->segment, true, &it));
    esker_status status = iter_first(it);
    for (uint32_t i = 0; i < rows->count; i++) {
        struct iter_run run;
        assert_ok(status);
        assert_false(it->ops->run(it, max_lsn, &run));
        assert_true(it->ops->run(it, max_lsn + 1, &run));
        uint32_t first = i - run.row;
        assert_int_equal(run.from, 0);
        assert_true(run.row <= run.to);
        assert_int_equal(block_key_compare(run.block, run.row, rows->at[i].key), 0);
        assert_int_equal(run.starts_key,
                         first == 0 || !bytes_equal(rows->at[first - 1].key, rows->at[first].key));
        bool starts = i == 0 || !bytes_equal(rows->at[i - 1].key, rows->at[i].key);
        bool ends = i + 1 == rows->count || !bytes_equal(rows->at[i + 1].key, rows->at[i].key);
        assert_int_equal(it->only, starts && ends);
        it->ops->run_end(it, run.to);
        assert_row(it, &rows->at[first + run.to]);
        it->ops->run_end(it, run.row);
        status = iter_next(it);
    }
    assert_int_equal(status, ESKER_END);
    iter_destroy(it);
}

/* A hit of either path against the model's row. */
static void
check_hit(enum segment_result result, const struct segment_hit *hit, uint64_t value_hash,
          const struct test_row *row)
{
    if (row == NULL) {
        assert_int_equal(result, SEGMENT_ABSENT);
        return;
    }
    assert_int_equal(result, SEGMENT_FOUND);
    assert_int_equal(hit->lsn, row->lsn);
    assert_int_equal(hit->op, row->op);
    assert_int_equal(hit->value.len, row->value.len);
    assert_int_equal(value_hash, hash64(row->value.ptr, row->value.len, 0));
}

static void
check_get(const struct segment_fixture *fixture, struct bytes key, uint64_t snapshot_lsn, bool fill_cache)
{
    const struct test_row *row = test_segment_visible(&fixture->rows, key, snapshot_lsn);
    struct segment_hit hit = {0};
    uint64_t value_hash = 0;
    enum segment_result result = test_segment_get(fixture->segment, key, snapshot_lsn, &hit, &value_hash);
    if (result != SEGMENT_NEEDS_IO) {
        check_hit(result, &hit, value_hash, row);
    }
    /* From where the fast path got to, or from the start. */
    struct segment_hit slow = {0};
    if (result == SEGMENT_NEEDS_IO && snapshot_lsn % 2 == 0) {
        slow = hit;
    }
    uint64_t hash = segment_filter_hash(key);
    result = segment_get_slow(fixture->segment, key, hash, snapshot_lsn, fill_cache, &slow);
    value_hash = result == SEGMENT_FOUND ? hash64(slow.value.ptr, slow.value.len, 0) : 0;
    check_hit(result, &slow, value_hash, row);
    if (result == SEGMENT_FOUND) {
        frame_unpin(slow.frame);
    }
    if (fill_cache && load_relaxed(&fixture->segment->loaded) != NULL) { /* relaxed: one thread. */
        /* What the slow path loaded the fast path finds, with this roomy cache. */
        result = test_segment_get(fixture->segment, key, snapshot_lsn, &hit, &value_hash);
        check_hit(result, &hit, value_hash, row);
    }
}

/* key with one byte more, one less, and its last byte changed. */
static void
check_around(const struct segment_fixture *fixture, struct bytes key,
             void (*check)(const struct segment_fixture *fixture, struct bytes key, struct iter *it),
             struct iter *it)
{
    uint8_t *near = malloc(key.len + 1);
    assert_non_null(near);
    memcpy(near, key.ptr, key.len);
    check(fixture, key, it);
    near[key.len] = 0;
    if (key.len < KEY_BYTES_MAX) {
        check(fixture, bytes_make(near, key.len + 1), it);
    }
    if (key.len > 1) {
        check(fixture, bytes_make(near, key.len - 1), it);
    }
    near[key.len - 1]++;
    check(fixture, bytes_make(near, key.len), it);
    near[key.len - 1] = (uint8_t)(near[key.len - 1] - 2);
    check(fixture, bytes_make(near, key.len), it);
    free(near);
}

static void
check_seeks(const struct segment_fixture *fixture, struct bytes key, struct iter *it)
{
    const struct test_rows *rows = &fixture->rows;
    uint32_t lower = test_segment_lower(rows, key);
    esker_status status = iter_seek(it, key);
    assert_int_equal(status, lower < rows->count ? ESKER_OK : ESKER_END);
    if (status == ESKER_OK) {
        assert_row(it, &rows->at[lower]);
        status = iter_prev(it);
        assert_int_equal(status, lower > 0 ? ESKER_OK : ESKER_END);
        if (status == ESKER_OK) {
            assert_row(it, &rows->at[lower - 1]);
        }
    }
    status = iter_seek_before(it, key);
    assert_int_equal(status, lower > 0 ? ESKER_OK : ESKER_END);
    if (status == ESKER_OK) {
        assert_row(it, &rows->at[lower - 1]);
        status = iter_next(it);
        assert_int_equal(status, lower < rows->count ? ESKER_OK : ESKER_END);
        if (status == ESKER_OK) {
            assert_row(it, &rows->at[lower]);
        }
    }
}

static void
check_gets(const struct segment_fixture *fixture, struct bytes key, struct iter *it)
{
    (void)it;
    check_get(fixture, key, UINT64_MAX, true);
    check_get(fixture, key, 0, true);
}

/* ---- Tests -------------------------------------------------------------- */

static void
segment_scan__gives_back_every_row(void **state)
{
    (void)state;
    static const int codecs[] = {ESKER_COMPRESS_NONE, ESKER_COMPRESS_LZ4, ESKER_COMPRESS_ZSTD};
    static const uint32_t block_bytes[] = {64, 700, 4096, 0};
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 64 << 20);
    test_segment_awkward_rows(&fixture.rows, 3000, 1);
    uint64_t id = 1;
    for (size_t codec = 0; codec < COUNTOF(codecs); codec++) {
        for (size_t size = 0; size < COUNTOF(block_bytes); size++) {
            segment_fixture_build(&fixture, id++, codecs[codec], block_bytes[size]);
            assert_int_equal(segment_meta(fixture.segment)->row_count, fixture.rows.count);
            assert_ok(segment_verify(fixture.segment));
            check_scans(&fixture, false);
            check_scans(&fixture, true);
            check_runs(&fixture);
            assert_ok(io_unlink(fixture.io, fixture.segment->name));
            segment_fixture_drop(&fixture);
        }
    }
    segment_fixture_fini(&fixture);
}

static void
segment_get__sees_the_newest_version_below_the_snapshot(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 256 << 20);
    test_segment_awkward_rows(&fixture.rows, 2500, 2);
    for (uint64_t id = 1; id <= 2; id++) {
        segment_fixture_build(&fixture, id, id == 1 ? ESKER_COMPRESS_NONE : ESKER_COMPRESS_LZ4,
                              id == 1 ? 256 : 2048);
        for (uint32_t i = 0; i < fixture.rows.count; i++) {
            const struct test_row *row = &fixture.rows.at[i];
            check_get(&fixture, row->key, row->lsn, i % 2 == 0);
            check_get(&fixture, row->key, row->lsn + 1, i % 3 == 0);
            check_get(&fixture, row->key, row->lsn + 2, true);
        }
        for (uint32_t i = 0; i < fixture.rows.count; i++) {
            check_around(&fixture, fixture.rows.at[i].key, check_gets, NULL);
        }
        segment_fixture_drop(&fixture);
    }
    segment_fixture_fini(&fixture);
}

static void
segment_seek__finds_both_neighbours_of_every_key_and_gap(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 64 << 20);
    test_segment_awkward_rows(&fixture.rows, 1500, 3);
    segment_fixture_build(&fixture, 1, ESKER_COMPRESS_LZ4, 512);
    for (int through_cache = 0; through_cache < 2; through_cache++) {
        struct iter *it = NULL;
        assert_ok(segment_iter_create(fixture.segment, through_cache != 0, &it));
        check_seeks(&fixture, bytes_make(NULL, 0), it);
        for (uint32_t i = 0; i < fixture.rows.count; i++) {
            check_around(&fixture, fixture.rows.at[i].key, check_seeks, it);
        }
        iter_destroy(it);
    }
    segment_fixture_fini(&fixture);
}

static void
segment_iter__walks_like_the_model(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    struct rng rng = {4};
    segment_fixture_init(&fixture, 200 << 10);
    test_segment_awkward_rows(&fixture.rows, 2000, 4);
    segment_fixture_build(&fixture, 1, ESKER_COMPRESS_NONE, 1024);
    for (int through_cache = 0; through_cache < 2; through_cache++) {
        struct iter *it = NULL;
        assert_ok(segment_iter_create(fixture.segment, through_cache != 0, &it));
        int64_t at = -1;
        for (int step = 0; step < 20000; step++) {
            esker_status status;
            uint64_t what = rng_below(&rng, 100);
            if (at < 0 || what < 3) {
                at = (int64_t)test_segment_lower(&fixture.rows,
                                                 fixture.rows.at[rng_below(&rng, fixture.rows.count)].key);
                /* The key that is sought may be the iterator's own. */
                assert_ok(iter_seek(it, fixture.rows.at[at].key));
                status = iter_seek(it, it->key);
                if (what < 2) {
                    /* ... or a part of it, wherever that leads. */
                    size_t len = 1 + (size_t)rng_below(&rng, it->key.len);
                    at = (int64_t)test_segment_lower(&fixture.rows,
                                                     bytes_make(fixture.rows.at[at].key.ptr, len));
                    status = iter_seek(it, bytes_make(it->key.ptr, len));
                }
            } else if (what < 55) {
                at++;
                status = iter_next(it);
            } else {
                at--;
                status = iter_prev(it);
            }
            bool inside = at >= 0 && at < (int64_t)fixture.rows.count;
            assert_int_equal(status, inside ? ESKER_OK : ESKER_END);
            if (inside) {
                assert_row(it, &fixture.rows.at[at]);
            } else {
                at = -1;
            }
        }
        iter_destroy(it);
        epoch_drain();
    }
    segment_fixture_fini(&fixture);
}

static void
segment_get__needs_io_until_something_loaded_it(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    struct segment_hit hit = {0};
    segment_fixture_init(&fixture, 1 << 20);
    test_segment_awkward_rows(&fixture.rows, 300, 5);
    segment_fixture_build(&fixture, 1, ESKER_COMPRESS_NONE, 1024);
    const struct test_row *row = &fixture.rows.at[fixture.rows.count / 2];
    uint64_t hash = segment_filter_hash(row->key);
    assert_int_equal(test_segment_get(fixture.segment, row->key, UINT64_MAX, &hit, NULL), SEGMENT_NEEDS_IO);
    /* Not kept: the next one needs the disk again. */
    assert_int_equal(segment_get_slow(fixture.segment, row->key, hash, UINT64_MAX, false, &hit),
                     SEGMENT_FOUND);
    frame_unpin(hit.frame);
    assert_int_equal(test_segment_get(fixture.segment, row->key, UINT64_MAX, &hit, NULL), SEGMENT_NEEDS_IO);
    assert_int_equal(segment_get_slow(fixture.segment, row->key, hash, UINT64_MAX, true, &hit),
                     SEGMENT_FOUND);
    frame_unpin(hit.frame);
    assert_int_equal(test_segment_get(fixture.segment, row->key, UINT64_MAX, &hit, NULL), SEGMENT_FOUND);
    /* Outside the bounds no file is asked. */
    uint64_t calls = load_relaxed(&fixture.mio.calls); /* relaxed: one thread. */
    struct bytes below = bytes_make("", 0);
    assert_int_equal(test_segment_get(fixture.segment, below, UINT64_MAX, &hit, NULL), SEGMENT_ABSENT);
    assert_int_equal(load_relaxed(&fixture.mio.calls), calls); /* relaxed: one thread. */
    segment_fixture_fini(&fixture);
}

static void
segment_get__pinned_value_outlives_the_segment(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    struct segment_hit hit = {0};
    segment_fixture_init(&fixture, 1 << 20);
    test_segment_awkward_rows(&fixture.rows, 300, 6);
    segment_fixture_build(&fixture, 1, ESKER_COMPRESS_LZ4, 1024);
    const struct test_row *row = &fixture.rows.at[7];
    uint64_t hash = segment_filter_hash(row->key);
    assert_int_equal(segment_get_slow(fixture.segment, row->key, hash, row->lsn + 1, true, &hit),
                     SEGMENT_FOUND);
    segment_fixture_drop(&fixture);
    epoch_drain();
    assert_true(bytes_equal(hit.value, row->value));
    frame_unpin(hit.frame);
    segment_fixture_fini(&fixture);
}

/* 2.5 MiB of values, 32 KiB keys, and one key with 40 versions of 100 KiB. */
static void
segment_write__takes_large_rows(void **state)
{
    (void)state;
    static const int codecs[] = {ESKER_COMPRESS_NONE, ESKER_COMPRESS_ZSTD};
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 64 << 20);
    test_rows_init(&fixture.rows, 300, 64 << 20);
    uint8_t *key = malloc(KEY_BYTES_MAX);
    assert_non_null(key);
    memset(key, 0xfe, KEY_BYTES_MAX);
    for (uint32_t i = 0; i < 100; i++) {
        le32_store(key + 32000, i * 7919);
        test_segment_row(&fixture.rows, bytes_make(key, KEY_BYTES_MAX - i % 3), i, i % 4 * 10);
        test_segment_row(&fixture.rows, bytes_make(key, 1 + i), i, 20 * (size_t)i);
    }
    for (uint32_t i = 0; i < 40; i++) {
        test_segment_row(&fixture.rows, bytes_make("many versions", 13), i, 100 << 10);
    }
    test_segment_row(&fixture.rows, bytes_make("large", 5), 9, 1 << 20);
    test_segment_row(&fixture.rows, bytes_make("larger", 6), 9, 2500 << 10);
    test_rows_settle(&fixture.rows);
    for (uint64_t id = 1; id <= 2; id++) {
        segment_fixture_build(&fixture, id, codecs[id - 1], 0);
        assert_ok(segment_verify(fixture.segment));
        check_scans(&fixture, false);
        check_scans(&fixture, true);
        for (uint32_t i = 0; i < fixture.rows.count; i++) {
            check_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn + 1, true);
            check_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn, true);
        }
        segment_fixture_drop(&fixture);
    }
    free(key);
    segment_fixture_fini(&fixture);
}

static void
segment_index__has_two_levels_when_large(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 64 << 20);
    test_rows_init(&fixture.rows, 30000, 8 << 20);
    char key[64];
    for (uint32_t i = 0; i < 10000; i++) {
        int len = snprintf(key, sizeof key, "some prefix/%08u", i / 3 * 3);
        test_segment_row(&fixture.rows, bytes_make(key, (size_t)len), 100 - i % 3, 30);
        len = snprintf(key, sizeof key, "other %u", i);
        test_segment_row(&fixture.rows, bytes_make(key, (size_t)len), i, 30);
    }
    test_rows_settle(&fixture.rows);
    segment_fixture_build(&fixture, 2, ESKER_COMPRESS_NONE, 64);
    check_scans(&fixture, false);
    struct segment_loaded *loaded = NULL;
    assert_ok(segment_load(fixture.segment, &loaded));
    assert_int_equal(loaded->footer.index_depth, 2); /* by its size, not because the test asked for it */
    assert_true(loaded->part_count > 4);
    assert_int_equal(loaded->footer.data_block_count, fixture.rows.count);
    check_scans(&fixture, true);
    struct iter *it = NULL;
    assert_ok(segment_iter_create(fixture.segment, true, &it));
    for (uint32_t i = 0; i < fixture.rows.count; i += 3) {
        check_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn + 1, true);
        check_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn, true);
        check_around(&fixture, fixture.rows.at[i].key, check_seeks, it);
    }
    iter_destroy(it);
    segment_loaded_unref(loaded);
    assert_ok(segment_verify(fixture.segment));
    segment_fixture_fini(&fixture);
}

static void
segment_writer__refuses_what_no_reader_would_take(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    struct segment_meta meta = {.id = 77};
    uint8_t keys[2 * EDIT_KEY_BYTES_MAX];
    struct segment_writer_options options = {.id = 5, .compression = ESKER_COMPRESS_NONE};
    struct bytes key = bytes_make("key", 3);
    struct bytes none = bytes_make(NULL, 0);
    segment_fixture_init(&fixture, 1 << 20);
    static uint8_t long_key[KEY_BYTES_MAX + 1];

    const struct {
        struct bytes key;
        uint64_t lsn;
        enum entry_op op;
        struct bytes value;
        esker_status status;
    } rows[] = {
        {bytes_make("kex", 3), 9, ENTRY_PUT, none, ESKER_CORRUPT},
        {key, 10, ENTRY_PUT, none, ESKER_CORRUPT},
        {key, 11, ENTRY_PUT, none, ESKER_CORRUPT},
        {none, 9, ENTRY_PUT, none, ESKER_INVALID},
        {bytes_make(long_key, sizeof long_key), 9, ENTRY_PUT, none, ESKER_INVALID},
        {bytes_make("z", 1), 9, ENTRY_MERGE, none, ESKER_UNSUPPORTED},
        {bytes_make("z", 1), 9, ENTRY_DELETE, key, ESKER_UNSUPPORTED},
    };

    for (size_t i = 0; i < COUNTOF(rows); i++) {
        struct segment_writer *writer = NULL;
        assert_ok(segment_writer_create(fixture.io, &mem_default, &options, &writer));
        assert_ok(segment_writer_add(writer, key, 10, ENTRY_PUT, none));
        assert_int_equal(segment_writer_add(writer, rows[i].key, rows[i].lsn, rows[i].op, rows[i].value),
                         rows[i].status);
        /* It stays refused, and leaves no file behind. */
        assert_int_equal(segment_writer_add(writer, bytes_make("zz", 2), 1, ENTRY_PUT, none), rows[i].status);
        assert_int_equal(segment_writer_finish(writer, &meta, keys), rows[i].status);
        assert_int_equal(meta.id, 77);
        assert_non_null(mem_io_find(&fixture.mio, "0000000000000005.seg"));
        segment_writer_destroy(writer);
        assert_null(mem_io_find(&fixture.mio, "0000000000000005.seg"));
    }
    /* Order counts across blocks too. */
    options.block_bytes = 64;
    for (uint64_t lsn = 10; lsn < 13; lsn++) {
        struct segment_writer *narrow = NULL;
        assert_ok(segment_writer_create(fixture.io, &mem_default, &options, &narrow));
        assert_ok(segment_writer_add(narrow, key, 11, ENTRY_PUT, bytes_make(long_key, 64)));
        struct bytes second_key = lsn < 12 ? key : bytes_make("a", 1);
        assert_int_equal(segment_writer_add(narrow, second_key, lsn, ENTRY_PUT, bytes_make(long_key, 64)),
                         lsn == 10 ? ESKER_OK : ESKER_CORRUPT);
        segment_writer_destroy(narrow);
    }
    struct segment_writer *writer = NULL;
    assert_ok(segment_writer_create(fixture.io, &mem_default, &options, &writer));
    struct segment_writer *second = NULL;
    assert_int_equal(segment_writer_create(fixture.io, &mem_default, &options, &second), ESKER_IO);
    assert_non_null(mem_io_find(&fixture.mio, "0000000000000005.seg"));
    assert_int_equal(segment_writer_finish(writer, &meta, keys), ESKER_INVALID);
    segment_writer_destroy(writer);
    segment_writer_destroy(NULL);
    segment_fixture_fini(&fixture);
}

static void
segment_writer__tells_what_it_wrote(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 1 << 20);
    test_rows_init(&fixture.rows, 8, 1 << 20);
    uint8_t key[400];
    memset(key, 0xff, sizeof key);
    key[0] = 'm';
    test_segment_row(&fixture.rows, bytes_make(key, 300), 41, SIZE_MAX);
    test_segment_row(&fixture.rows, bytes_make(key, 301), 77, 100);
    test_segment_row(&fixture.rows, bytes_make(key, 301), 12, SIZE_MAX);
    segment_fixture_build(&fixture, 0xabc, ESKER_COMPRESS_NONE, 0);
    const struct segment_meta *meta = segment_meta(fixture.segment);
    assert_int_equal(meta->id, 0xabc);
    assert_int_equal(meta->row_count, 3);
    assert_int_equal(meta->tombstone_count, 2);
    assert_int_equal(meta->min_lsn, 12);
    assert_int_equal(meta->max_lsn, 77);
    assert_int_equal(meta->min_key.len, EDIT_KEY_BYTES_MAX);
    assert_true(bytes_equal(meta->max_key, bytes_make("n", 1)));
    assert_int_equal(meta->size_bytes, mem_io_find(&fixture.mio, "0000000000000abc.seg")->size);
    assert_ok(segment_verify(fixture.segment));
    for (uint32_t i = 0; i < fixture.rows.count; i++) {
        check_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn + 1, true);
    }
    segment_fixture_fini(&fixture);
}

struct gone_record {
    int calls;
    uint64_t id;
    bool obsolete;
};

static void
gone_note(void *ctx, uint64_t id, bool obsolete)
{
    struct gone_record *record = ctx;
    record->calls++;
    record->id = id;
    record->obsolete = obsolete;
}

static void
segment_unref__tells_the_owner_once(void **state)
{
    (void)state;
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 1 << 20);
    for (int obsolete = 0; obsolete < 2; obsolete++) {
        struct gone_record record = {0};
        struct segment_open_options options = {.io = fixture.io,
                                               .mem = &mem_default,
                                               .cache = fixture.cache,
                                               .gone = gone_note,
                                               .gone_ctx = &record};
        struct segment_meta meta = {.id = 9, .min_key = bytes_make("a", 1)};
        struct segment *segment = NULL;
        assert_ok(segment_create(&options, &meta, &segment));
        segment_ref(segment);
        segment_unref(segment);
        assert_int_equal(record.calls, 0);
        if (obsolete != 0) {
            segment_mark_obsolete(segment);
        }
        segment_unref(segment);
        assert_int_equal(record.calls, 1);
        assert_int_equal(record.id, 9);
        assert_int_equal(record.obsolete, obsolete != 0);
    }
    segment_fixture_fini(&fixture);
}

static void
segment_file__survives_a_real_directory(void **state)
{
    (void)state;
    static const int kinds[] = {ESKER_IO_POSIX, ESKER_IO_AUTO};
    struct segment_fixture fixture;
    segment_fixture_init(&fixture, 8 << 20);
    test_segment_awkward_rows(&fixture.rows, 4000, 8);
    for (size_t kind = 0; kind < COUNTOF(kinds); kind++) {
        char path[] = "/tmp/esker-segment-XXXXXX";
        assert_non_null(mkdtemp(path));
        assert_ok(io_open_dir(path, false, kinds[kind], &mem_default, &fixture.io));
        segment_fixture_build(&fixture, 1, ESKER_COMPRESS_LZ4, 0);
        check_scans(&fixture, false);
        check_scans(&fixture, true);
        for (uint32_t i = 0; i < fixture.rows.count; i += 7) {
            check_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn + 1, true);
        }
        assert_ok(segment_verify(fixture.segment));
        assert_ok(io_unlink(fixture.io, fixture.segment->name));
        segment_fixture_drop(&fixture);
        io_close_dir(fixture.io);
        assert_int_equal(rmdir(path), 0);
    }
    segment_fixture_fini(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segment_scan__gives_back_every_row),
        cmocka_unit_test(segment_get__sees_the_newest_version_below_the_snapshot),
        cmocka_unit_test(segment_seek__finds_both_neighbours_of_every_key_and_gap),
        cmocka_unit_test(segment_iter__walks_like_the_model),
        cmocka_unit_test(segment_get__needs_io_until_something_loaded_it),
        cmocka_unit_test(segment_get__pinned_value_outlives_the_segment),
        cmocka_unit_test(segment_write__takes_large_rows),
        cmocka_unit_test(segment_index__has_two_levels_when_large),
        cmocka_unit_test(segment_writer__refuses_what_no_reader_would_take),
        cmocka_unit_test(segment_writer__tells_what_it_wrote),
        cmocka_unit_test(segment_unref__tells_the_owner_once),
        cmocka_unit_test(segment_file__survives_a_real_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
