/* SPDX-License-Identifier: MIT */
/*
 * Goal: files whose checksums are all right but whose parts contradict one
 * another are refused, by the first reader where memory safety or the walk
 * over the index depends on it, by verify otherwise.
 * Method: surgery on small segments (test_forge.h): gaps between the parts,
 * separators, LSNs, handles and counts changed one at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "segment/segment_internal.h"
#include "segment/test_forge.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum { HOSTILE_ID = 0x31 };

static const char hostile_name[] = "0000000000000031.seg";

struct hostile_fixture {
    struct mem_io mio;
    struct test_mem mem;
    struct block_cache *cache;
    struct test_rows rows;
    struct test_segment written;
    struct buf good;
};

static void
hostile_init(struct hostile_fixture *fixture, bool two_levels)
{
    memset(fixture, 0, sizeof *fixture);
    mem_io_init(&fixture->mio);
    test_mem_init(&fixture->mem);
    assert_ok(epoch_runtime_acquire(true));
    assert_ok(block_cache_create(&fixture->mem.base, 1 << 20, &fixture->cache));
    test_rows_init(&fixture->rows, 400, 4 << 20);
    for (uint32_t i = 0; i < 80; i++) {
        char key[32];
        int len = snprintf(key, sizeof key, "key %03u", i * 7);
        test_segment_row(&fixture->rows, bytes_make(key, (size_t)len), 50 + i, 60);
    }
    /* One key over several blocks. */
    for (uint32_t i = 0; i < 20; i++) {
        test_segment_row(&fixture->rows, bytes_make("key 100", 7), 1000 - i, 60);
    }
    test_rows_settle(&fixture->rows);
    assert_ok(test_segment_write_as(&fixture->mio.base, &mem_default, &fixture->rows, HOSTILE_ID,
                                    ESKER_COMPRESS_NONE, 400, two_levels, &fixture->written));
    struct mem_io_file *file = mem_io_find(&fixture->mio, hostile_name);
    buf_init(&fixture->good, &mem_default);
    assert_ok(buf_append(&fixture->good, file->bytes, file->size));
}

static void
hostile_fini(struct hostile_fixture *fixture)
{
    epoch_drain();
    block_cache_destroy(fixture->cache);
    assert_int_equal(load_relaxed(&fixture->mem.live_bytes), 0); /* relaxed: one thread. */
    epoch_runtime_release();
    test_rows_fini(&fixture->rows);
    mem_io_fini(&fixture->mio);
    buf_fini(&fixture->good);
}

/* What verify and the first step of a reader say about a file; *bad is freed. */
static void
hostile_judge(struct hostile_fixture *fixture, struct buf *bad, const struct segment_meta *meta,
              esker_status verified, esker_status read)
{
    (void)mem_io_put(&fixture->mio, hostile_name, buf_bytes(bad));
    struct segment *segment =
        test_segment_handle(&fixture->mio.base, &fixture->mem.base, fixture->cache, meta);
    assert_int_equal(segment_verify(segment), verified);
    if (verified != ESKER_OK) {
        assert_string_equal(status_last()->file, hostile_name);
    }
    struct iter *it = NULL;
    assert_ok(segment_iter_create(segment, true, &it));
    assert_int_equal(iter_first(it), read);
    iter_destroy(it);
    segment_unref(segment);
    buf_fini(bad);
}

/* ---- Gaps --------------------------------------------------------------- */

static void
hostile_gap__is_refused_between_any_two_parts(void **state)
{
    (void)state;
    for (int levels = 1; levels <= 2; levels++) {
        struct hostile_fixture fixture;
        hostile_init(&fixture, levels == 2);
        struct bytes good = buf_bytes(&fixture.good);
        const uint8_t *footer = good.ptr + good.len - SEGMENT_FOOTER_BYTES;
        uint64_t data_end = le64_load(footer + 136);
        /* In front of index, root, filter, properties and footer; last, behind the data. */
        const uint64_t places[] = {data_end,
                                   le64_load(footer),
                                   le64_load(footer + 16),
                                   le64_load(footer + 32),
                                   good.len - SEGMENT_FOOTER_BYTES,
                                   data_end};
        for (size_t place = 0; place < COUNTOF(places); place++) {
            struct segment_meta meta = fixture.written.meta;
            bool last = place + 1 == COUNTOF(places);
            struct buf same = forge_gap(good, HOSTILE_ID, places[place], 0, last, &meta);
            hostile_judge(&fixture, &same, &meta, ESKER_OK, ESKER_OK);
            struct buf bad = forge_gap(good, HOSTILE_ID, places[place], 32, last, &meta);
            hostile_judge(&fixture, &bad, &meta, ESKER_CORRUPT, ESKER_CORRUPT);
        }
        hostile_fini(&fixture);
    }
}

/* ---- Index rows --------------------------------------------------------- */

enum hostile_edit {
    EDIT_NOTHING,
    EDIT_KEY_LOWER,  /* below its block's last key */
    EDIT_KEY_HIGHER, /* the next block's first key */
    EDIT_KEY_LONGER, /* its own with a zero: still separates */
    EDIT_LSN,
    EDIT_LSN_LOST, /* of a key that goes on */
    EDIT_ROWS,     /* one row less here and one more in the next */
    EDIT_RAW_LEN,
    EDIT_RAW_LEN_HUGE,
    EDIT_STORED_LEN, /* reaches into the next block */
    EDIT_STORED_LEN_HUGE,
    EDIT_OFFSET,
    EDIT_OFFSET_HUGE
};

struct hostile_plan {
    enum hostile_edit edit;
    uint32_t row;
    struct bytes before, after; /* neighbours' keys, for KEY_LOWER and KEY_HIGHER */
};

static void
hostile_edit_key(struct forge_row *row, struct bytes key)
{
    memcpy(row->key, key.ptr, key.len);
    row->key_len = key.len;
}

static void
hostile_edit_row(void *ctx, uint32_t row_no, struct forge_row *row)
{
    const struct hostile_plan *plan = ctx;
    if (row_no == plan->row + 1 && plan->edit == EDIT_ROWS) {
        row->handle.row_count++;
    } else if (row_no == plan->row + 1 && plan->edit == EDIT_RAW_LEN) {
        row->handle.raw_len += 8;
    }
    if (row_no != plan->row) {
        return;
    }
    switch (plan->edit) {
    case EDIT_NOTHING:
        return;
    case EDIT_KEY_LOWER:
        hostile_edit_key(row, plan->before);
        return;
    case EDIT_KEY_HIGHER:
        hostile_edit_key(row, plan->after);
        return;
    case EDIT_KEY_LONGER:
        row->key[row->key_len++] = 0;
        return;
    case EDIT_LSN:
        row->lsn += 3;
        return;
    case EDIT_LSN_LOST:
        assert_true(row->lsn > 0);
        row->lsn--;
        return;
    case EDIT_ROWS:
        row->handle.row_count--;
        return;
    case EDIT_RAW_LEN:
        row->handle.raw_len -= 8;
        return;
    case EDIT_RAW_LEN_HUGE:
        row->handle.raw_len = UINT32_MAX;
        return;
    case EDIT_STORED_LEN:
        row->handle.stored_len += 8;
        return;
    case EDIT_STORED_LEN_HUGE:
        row->handle.stored_len = UINT32_MAX;
        return;
    case EDIT_OFFSET:
        row->handle.offset -= 8;
        return;
    case EDIT_OFFSET_HUGE:
        row->handle.offset = UINT64_MAX - 8;
        return;
    }
}

/* Keys of the rows where block `row` ends and the next begins. */
static void
hostile_neighbours(struct hostile_fixture *fixture, struct hostile_plan *plan)
{
    struct segment *segment =
        test_segment_handle(&fixture->mio.base, &fixture->mem.base, fixture->cache, &fixture->written.meta);
    struct segment_loaded *loaded = NULL;
    uint32_t rows = 0;
    assert_ok(segment_load(segment, &loaded));
    for (struct segment_at at = segment_at_first();;) {
        rows += segment_at_handle(loaded, at).row_count;
        if (segment_at_block_no(loaded, at) == plan->row) {
            break;
        }
        assert_true(segment_at_next(loaded, &at));
    }
    plan->before = fixture->rows.at[rows - 2].key;
    plan->after = fixture->rows.at[rows].key;
    segment_loaded_unref(loaded);
    segment_unref(segment);
}

/* Row of the root whose LSN says that its key goes on. */
struct hostile_search {
    uint32_t found;
};

static void
hostile_find_going_on(void *ctx, uint32_t row_no, struct forge_row *row)
{
    struct hostile_search *search = ctx;
    if (row->lsn != 0 && search->found == UINT32_MAX) {
        search->found = row_no;
    }
}

static uint32_t
hostile_going_on(struct hostile_fixture *fixture)
{
    struct hostile_search search = {UINT32_MAX};
    struct segment_meta meta = fixture->written.meta;
    struct buf same =
        forge_root(buf_bytes(&fixture->good), HOSTILE_ID, hostile_find_going_on, &search, &meta);
    buf_fini(&same);
    assert_true(search.found != UINT32_MAX);
    return search.found;
}

static void
hostile_index__must_describe_the_blocks(void **state)
{
    (void)state;
    struct hostile_fixture fixture;
    hostile_init(&fixture, false);

    struct {
        enum hostile_edit edit;
        bool going_on; /* at a row whose key goes on */
        esker_status verified, read;
    } cases[] = {
        {EDIT_NOTHING, false, ESKER_OK, ESKER_OK},
        {EDIT_KEY_LONGER, false, ESKER_OK, ESKER_OK},
        {EDIT_KEY_LOWER, false, ESKER_CORRUPT, ESKER_OK},
        {EDIT_KEY_HIGHER, false, ESKER_CORRUPT, ESKER_OK},
        {EDIT_LSN, false, ESKER_CORRUPT, ESKER_OK},
        {EDIT_LSN, true, ESKER_CORRUPT, ESKER_OK},
        {EDIT_LSN_LOST, true, ESKER_CORRUPT, ESKER_OK},
        {EDIT_ROWS, false, ESKER_CORRUPT, ESKER_CORRUPT},
        {EDIT_RAW_LEN, false, ESKER_CORRUPT, ESKER_CORRUPT},
        {EDIT_RAW_LEN_HUGE, false, ESKER_CORRUPT, ESKER_CORRUPT},
        {EDIT_STORED_LEN, false, ESKER_CORRUPT, ESKER_CORRUPT},
        {EDIT_STORED_LEN_HUGE, false, ESKER_CORRUPT, ESKER_CORRUPT},
        {EDIT_OFFSET, false, ESKER_CORRUPT, ESKER_CORRUPT},
        {EDIT_OFFSET_HUGE, false, ESKER_CORRUPT, ESKER_CORRUPT},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct segment_meta meta = fixture.written.meta;
        struct hostile_plan plan = {.edit = cases[i].edit};
        plan.row = cases[i].going_on ? hostile_going_on(&fixture) : 0;
        hostile_neighbours(&fixture, &plan);
        struct buf bad = forge_root(buf_bytes(&fixture.good), HOSTILE_ID, hostile_edit_row, &plan, &meta);
        hostile_judge(&fixture, &bad, &meta, cases[i].verified, cases[i].read);
        (void)mem_io_put(&fixture.mio, hostile_name, buf_bytes(&fixture.good));
    }
    /* relaxed: one thread. None of this may ask for memory that the file cannot fill. */
    assert_true(load_relaxed(&fixture.mem.peak_bytes) < 1 << 20);
    hostile_fini(&fixture);
}

static void
hostile_root__must_agree_with_its_index_blocks(void **state)
{
    (void)state;
    struct hostile_fixture fixture;
    hostile_init(&fixture, true);

    static const enum hostile_edit edits[] = {EDIT_KEY_LONGER,      EDIT_LSN,          EDIT_ROWS,
                                              EDIT_RAW_LEN,         EDIT_RAW_LEN_HUGE, EDIT_STORED_LEN,
                                              EDIT_STORED_LEN_HUGE, EDIT_OFFSET,       EDIT_OFFSET_HUGE};

    for (size_t i = 0; i < COUNTOF(edits); i++) {
        struct segment_meta meta = fixture.written.meta;
        struct hostile_plan plan = {.edit = edits[i], .row = 0};
        struct buf bad = forge_root(buf_bytes(&fixture.good), HOSTILE_ID, hostile_edit_row, &plan, &meta);
        hostile_judge(&fixture, &bad, &meta, ESKER_CORRUPT, ESKER_CORRUPT);
    }
    /* relaxed: one thread. */
    assert_true(load_relaxed(&fixture.mem.peak_bytes) < 1 << 20);
    hostile_fini(&fixture);
}

/* ---- Rows and filter ---------------------------------------------------- */

static void
hostile_last_lsn(void *ctx, uint32_t row_no, struct forge_row *row)
{
    (void)ctx;
    row->lsn = row_no == 0 ? 5 : 0;
}

/* The same key with a newer version in the later block: only verify compares across blocks. */
static void
hostile_order__is_checked_across_blocks(void **state)
{
    (void)state;
    struct hostile_fixture fixture;
    struct segment_writer_options options = {.id = HOSTILE_ID + 1, .block_bytes = 64};
    struct segment_writer *writer = NULL;
    struct test_segment written;
    hostile_init(&fixture, false);
    memcpy(options.uuid, test_segment_uuid, sizeof options.uuid);
    struct bytes key = bytes_make("key", 3);
    assert_ok(segment_writer_create(&fixture.mio.base, &mem_default, &options, &writer));
    assert_ok(segment_writer_add(writer, key, 5, ENTRY_PUT, bytes_make("value 1", 7)));
    writer->last_lsn = 8; /* so that it does not see what comes */
    assert_ok(segment_writer_add(writer, key, 7, ENTRY_PUT, bytes_make("value 2", 7)));
    assert_ok(segment_writer_finish(writer, &written.meta, written.keys));
    segment_writer_destroy(writer);
    struct mem_io_file *file = mem_io_find(&fixture.mio, "0000000000000032.seg");
    struct segment_meta meta = written.meta;
    struct buf bad =
        forge_root(bytes_make(file->bytes, file->size), HOSTILE_ID + 1, hostile_last_lsn, NULL, &meta);
    (void)mem_io_put(&fixture.mio, "0000000000000032.seg", buf_bytes(&bad));
    buf_fini(&bad);
    struct segment *segment = test_segment_handle(&fixture.mio.base, &fixture.mem.base, fixture.cache, &meta);
    assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
    assert_non_null(strstr(status_last()->message, "out of order"));
    segment_unref(segment);
    hostile_fini(&fixture);
}

/* A page that says it is compressed is not read as if it were raw; readers do without it. */
static void
hostile_filter__must_be_raw(void **state)
{
    (void)state;
    struct hostile_fixture fixture;
    hostile_init(&fixture, false);
    const uint8_t *footer = fixture.good.ptr + fixture.good.len - SEGMENT_FOOTER_BYTES;
    uint64_t filter_end = le64_load(footer + 16) + le32_load(footer + 24);
    struct segment_meta meta = fixture.written.meta;
    struct buf bad;
    buf_init(&bad, &mem_default);
    assert_ok(buf_append_bytes(&bad, buf_bytes(&fixture.good)));
    bad.ptr[filter_end - BLOCK_TRAILER_BYTES] = BLOCK_CODEC_LZ4;
    forge_segment(bad.ptr, bad.len, HOSTILE_ID, &meta);
    hostile_judge(&fixture, &bad, &meta, ESKER_CORRUPT, ESKER_OK);
    struct block_cache_stats stats;
    block_cache_get_stats(fixture.cache, &stats);
    assert_int_equal(stats.filter_pages_damaged, 1);
    hostile_fini(&fixture);
}

static void
hostile_props__must_agree_with_the_rows(void **state)
{
    (void)state;
    struct hostile_fixture fixture;
    hostile_init(&fixture, false);
    const uint8_t *footer = fixture.good.ptr + fixture.good.len - SEGMENT_FOOTER_BYTES;
    uint64_t from = le64_load(footer + 32);
    uint64_t end = from + le32_load(footer + 40) - BLOCK_TRAILER_BYTES;
    uint32_t sums = 0;
    for (uint64_t at = from; at < end;) {
        uint32_t tag = le16_load(fixture.good.ptr + at);
        uint32_t len = le32_load(fixture.good.ptr + at + 4);
        bool is_sum = tag == 4 || tag == 5; /* KEY_BYTES, VALUE_BYTES */
        struct segment_meta meta = fixture.written.meta;
        struct buf bad;
        buf_init(&bad, &mem_default);
        assert_ok(buf_append_bytes(&bad, buf_bytes(&fixture.good)));
        bad.ptr[at + 8]++;
        forge_segment(bad.ptr, bad.len, HOSTILE_ID, &meta);
        /* No reader looks there. */
        hostile_judge(&fixture, &bad, &meta, is_sum ? ESKER_CORRUPT : ESKER_OK, ESKER_OK);
        sums += is_sum;
        at += 8 + align_up(len, 8);
    }
    assert_int_equal(sums, 2);
    hostile_fini(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hostile_gap__is_refused_between_any_two_parts),
        cmocka_unit_test(hostile_index__must_describe_the_blocks),
        cmocka_unit_test(hostile_root__must_agree_with_its_index_blocks),
        cmocka_unit_test(hostile_order__is_checked_across_blocks),
        cmocka_unit_test(hostile_filter__must_be_raw),
        cmocka_unit_test(hostile_props__must_agree_with_the_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
