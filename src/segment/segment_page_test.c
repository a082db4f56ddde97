/* SPDX-License-Identifier: MIT */
/*
 * Goal: a segment whose index and filter do not fit into memory answers like
 * one that is whole; a damaged page of the filter costs no answer, a damaged part
 * of the index only the keys between two rows of the root; whole and paged
 * follow the room that there is.
 * Method: segments with tiny index leaves in memory; other charges decide how much
 * room the cache has. Every byte is changed, one at a time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "format/filter.h"
#include "segment/segment_internal.h"
#include "segment/test_forge.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum { PAGE_ID = 0x51, PAGE_CACHE = 4 << 20 };

static const char page_name[] = "0000000000000051.seg";

struct page_fixture {
    struct mem_io mio;
    struct test_mem mem;
    struct block_cache *cache;
    uint64_t taken; /* by nobody in particular */
    struct test_rows rows;
    struct test_segment written;
    struct segment *segment;
    uint8_t *good;
    size_t size;
};

/* Of the cache only so much is left for index, filter and frames. */
static void
page_leave(struct page_fixture *fixture, uint64_t bytes)
{
    block_cache_discharge(fixture->cache, MEMORY_WINDOWS, fixture->taken);
    fixture->taken = PAGE_CACHE - bytes;
    block_cache_charge(fixture->cache, MEMORY_WINDOWS, fixture->taken);
}

static void
page_handle(struct page_fixture *fixture)
{
    struct segment_meta meta = fixture->written.meta;
    meta.level = 1; /* level 0 is whole in any case */
    fixture->segment = test_segment_handle(&fixture->mio.base, &fixture->mem.base, fixture->cache, &meta);
    assert_non_null(fixture->segment);
}

static void
page_drop(struct page_fixture *fixture)
{
    segment_unref(fixture->segment);
    fixture->segment = NULL;
    epoch_drain();
}

/* The rows are there; writes them. */
static void
page_write(struct page_fixture *fixture, int compression, uint32_t block_bytes)
{
    test_rows_settle(&fixture->rows);
    assert_ok(test_segment_write_as(&fixture->mio.base, &mem_default, &fixture->rows, PAGE_ID, compression,
                                    block_bytes, true, &fixture->written));
    const struct mem_io_file *file = mem_io_find(&fixture->mio, page_name);
    fixture->size = file->size;
    fixture->good = malloc(file->size);
    assert_non_null(fixture->good);
    memcpy(fixture->good, file->bytes, file->size);
    page_handle(fixture);
}

static void
page_init(struct page_fixture *fixture, uint64_t room)
{
    memset(fixture, 0, sizeof *fixture);
    mem_io_init(&fixture->mio);
    test_mem_init(&fixture->mem);
    assert_ok(epoch_runtime_acquire(true));
    assert_ok(block_cache_create(&fixture->mem.base, PAGE_CACHE, &fixture->cache));
    page_leave(fixture, room);
}

static void
page_fini(struct page_fixture *fixture)
{
    if (fixture->segment != NULL) {
        page_drop(fixture);
    }
    page_leave(fixture, PAGE_CACHE);
    block_cache_destroy(fixture->cache);
    assert_int_equal(load_relaxed(&fixture->mem.live_bytes), 0); /* relaxed: one thread. */
    epoch_runtime_release();
    test_rows_fini(&fixture->rows);
    mem_io_fini(&fixture->mio);
    free(fixture->good);
}

/* Keys in fours, some with versions over several blocks and so over several parts. */
static void
page_rows(struct page_fixture *fixture, uint32_t count)
{
    test_rows_init(&fixture->rows, count, (size_t)count * 256);
    for (uint32_t i = 0; i < count; i++) {
        char key[32];
        bool long_one = i % 400 < 90;
        int len = snprintf(key, sizeof key, "key %06u", long_one ? i / 400 * 400 : i / 2);
        test_segment_row(&fixture->rows, bytes_make(key, (size_t)len), 1 + i * 3,
                         i % 11 == 6 ? SIZE_MAX : 40);
    }
}

static bool
page_is_paged(struct page_fixture *fixture)
{
    struct segment_loaded *loaded = NULL;
    assert_ok(segment_load(fixture->segment, &loaded));
    assert_int_equal(loaded->footer.index_depth, 2);
    assert_true(loaded->footer.filter_pages > 0);
    bool paged = loaded->paged;
    assert_int_equal(paged, loaded->parts == NULL);
    assert_int_equal(paged, loaded->filter_paged);
    assert_int_equal(!paged, loaded->filter_late);
    segment_loaded_unref(loaded);
    return paged;
}

/* Slow path, then fast; the answer of the model, or a failure. */
static bool
page_get(struct page_fixture *fixture, struct bytes key, uint64_t snapshot_lsn)
{
    const struct test_row *row = test_segment_visible(&fixture->rows, key, snapshot_lsn);
    struct segment_hit hit = {0};
    uint64_t hash = segment_filter_hash(key);
    enum segment_result result =
        segment_get_slow(fixture->segment, key, hash, snapshot_lsn, snapshot_lsn % 3 != 0, &hit);
    if (result == SEGMENT_FAILED) {
        assert_int_equal(hit.status, ESKER_CORRUPT);
        return false;
    }
    assert_int_equal(result == SEGMENT_FOUND, row != NULL);
    if (row != NULL) {
        assert_true(hit.lsn == row->lsn && hit.op == row->op && bytes_equal(hit.value, row->value));
        frame_unpin(hit.frame);
    }
    hit = (struct segment_hit){0};
    result = test_segment_get(fixture->segment, key, snapshot_lsn, &hit, NULL);
    if (result == SEGMENT_NEEDS_IO) { /* on from where the fast path ended, or from the start */
        result = segment_get_slow(fixture->segment, key, hash, snapshot_lsn, true, &hit);
        if (result == SEGMENT_FOUND) {
            frame_unpin(hit.frame);
        }
    }
    assert_int_equal(result == SEGMENT_FOUND, row != NULL);
    assert_true(row == NULL || hit.lsn == row->lsn);
    return true;
}

static uint32_t
page_gets(struct page_fixture *fixture)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < fixture->rows.count; i++) {
        const struct test_row *row = &fixture->rows.at[i];
        uint8_t absent[64];
        memcpy(absent, row->key.ptr, row->key.len);
        absent[row->key.len] = 'x';
        bool first = page_get(fixture, row->key, row->lsn + 1);
        bool second = page_get(fixture, row->key, row->lsn);
        (void)page_get(fixture, bytes_make(absent, row->key.len + 1), UINT64_MAX);
        failed += !first || !second;
    }
    return failed;
}

/* Rows in one direction: the model's, up to a failure or the end. */
static esker_status
page_scan(struct page_fixture *fixture, bool through_cache, bool backwards)
{
    const struct test_rows *rows = &fixture->rows;
    struct iter *it = NULL;
    uint32_t seen = 0;
    assert_ok(segment_iter_create(fixture->segment, through_cache, &it));
    esker_status status = backwards ? iter_last(it) : iter_first(it);
    for (; status == ESKER_OK; status = backwards ? iter_prev(it) : iter_next(it)) {
        assert_true(seen < rows->count);
        const struct test_row *row = &rows->at[backwards ? rows->count - 1 - seen : seen];
        assert_true(bytes_equal(it->key, row->key) && bytes_equal(it->value, row->value));
        assert_int_equal(it->lsn, row->lsn);
        seen++;
    }
    assert_true(status == ESKER_CORRUPT || (status == ESKER_END && seen == rows->count));
    iter_destroy(it);
    return status;
}

static void
page_seeks(struct page_fixture *fixture)
{
    const struct test_rows *rows = &fixture->rows;
    struct iter *it = NULL;
    assert_ok(segment_iter_create(fixture->segment, true, &it));
    for (uint32_t i = 0; i < rows->count; i += 7) {
        struct bytes key = rows->at[i * 31 % rows->count].key;
        uint32_t lower = test_segment_lower(rows, key);
        assert_ok(iter_seek(it, key));
        assert_int_equal(it->lsn, rows->at[lower].lsn);
        esker_status status = iter_seek_before(it, key);
        assert_int_equal(status, lower == 0 ? ESKER_END : ESKER_OK);
        assert_true(lower == 0 || it->lsn == rows->at[lower - 1].lsn);
    }
    iter_destroy(it);
}

/* 40 keys together: those that the fast path leaves, fetched, step by step. */
static void
page_many(struct page_fixture *fixture, bool fill_cache)
{
    enum { MANY = 40 };

    struct segment_hit hits[MANY] = {0};
    struct segment_fetch fetches[MANY];
    const struct test_row *rows[MANY];
    enum segment_result results[MANY];
    for (size_t i = 0; i < MANY; i++) {
        rows[i] = &fixture->rows.at[i * 97 % fixture->rows.count];
        results[i] = test_segment_get(fixture->segment, rows[i]->key, rows[i]->lsn + 1, &hits[i], NULL);
    }
    for (int round = 0; round < 4; round++) {
        size_t count = 0;
        for (size_t i = 0; i < MANY; i++) {
            if (results[i] == SEGMENT_NEEDS_IO) {
                fetches[count++] = (struct segment_fetch){
                    .segment = fixture->segment, .place = hits[i].place, .tag = (uint32_t)i};
            }
        }
        assert_true(round < 3 || count == 0);
        segment_fetch_many(fetches, count, &fixture->mem.base, fill_cache);
        for (size_t i = 0; i < count; i++) {
            size_t tag = fetches[i].tag;
            assert_ok(fetches[i].status);
            results[tag] =
                segment_get_in_frame(fixture->segment, fetches[i].frame, rows[tag]->key,
                                     segment_filter_hash(rows[tag]->key), rows[tag]->lsn + 1, &hits[tag]);
            assert_true(results[tag] != SEGMENT_FOUND || hits[tag].lsn == rows[tag]->lsn);
            frame_unpin(fetches[i].frame);
        }
    }
    for (size_t i = 0; i < MANY; i++) {
        assert_int_equal(results[i], SEGMENT_FOUND);
    }
}

/* ---- The same answers -------------------------------------------------------- */

static void
paged__answers_like_whole(void **state)
{
    static const int codecs[] = {ESKER_COMPRESS_NONE, ESKER_COMPRESS_LZ4};
    static const uint64_t rooms[] = {0, 20 << 10, PAGE_CACHE};

    (void)state;
    for (size_t i = 0; i < COUNTOF(codecs) * COUNTOF(rooms); i++) {
        struct page_fixture fixture;
        page_init(&fixture, rooms[i % 3]);
        page_rows(&fixture, 6000);
        page_write(&fixture, codecs[i / 3], 512);
        assert_int_equal(page_is_paged(&fixture), i % 3 < 2);
        page_many(&fixture, true);
        page_many(&fixture, false);
        assert_int_equal(page_gets(&fixture), 0);
        page_seeks(&fixture);
        for (int way = 0; way < 4; way++) {
            assert_int_equal(page_scan(&fixture, way % 2 != 0, way / 2 != 0), ESKER_END);
        }
        assert_ok(segment_verify(fixture.segment));
        page_fini(&fixture);
    }
}

static void
paged__awkward_keys_answer_like_whole(void **state)
{
    (void)state;
    struct page_fixture fixture;
    page_init(&fixture, 30 << 10);
    test_segment_awkward_rows(&fixture.rows, 3000, 77);
    page_write(&fixture, ESKER_COMPRESS_NONE, 700);
    assert_true(page_is_paged(&fixture));
    for (uint32_t i = 0; i < fixture.rows.count; i++) {
        assert_true(page_get(&fixture, fixture.rows.at[i].key, fixture.rows.at[i].lsn + 1));
    }
    page_seeks(&fixture);
    for (int way = 0; way < 4; way++) {
        assert_int_equal(page_scan(&fixture, way % 2 != 0, way / 2 != 0), ESKER_END);
    }
    page_fini(&fixture);
}

/* ---- What it costs ------------------------------------------------------------ */

/* Nothing is kept: a lookup reads a page of the filter, a part of the index, a block. An absent key mostly
 * the first of them. */
static void
paged__a_lookup_reads_one_page_of_each(void **state)
{
    (void)state;
    struct page_fixture fixture;
    page_init(&fixture, 0);
    page_rows(&fixture, 6000);
    page_write(&fixture, ESKER_COMPRESS_NONE, 512);
    assert_true(page_is_paged(&fixture));
    uint64_t calls = load_relaxed(&fixture.mio.calls); /* relaxed: one thread. */
    uint32_t found = 0;
    for (uint32_t i = 0; i < fixture.rows.count; i += 13) {
        struct segment_hit hit = {0};
        struct bytes key = fixture.rows.at[i].key;
        if (segment_get_slow(fixture.segment, key, segment_filter_hash(key), UINT64_MAX, true, &hit) ==
            SEGMENT_FOUND) {
            frame_unpin(hit.frame);
            found++;
        }
    }
    assert_int_equal(found, (fixture.rows.count + 12) / 13);
    assert_int_equal(load_relaxed(&fixture.mio.calls) - calls, 3 * found); /* relaxed: one thread. */
    page_fini(&fixture);
}

/* ---- The filter comes later ----------------------------------------------------- */

static bool
late_is_here(struct page_fixture *fixture)
{
    struct segment_loaded *loaded = NULL;
    assert_ok(segment_load(fixture->segment, &loaded));
    bool here = segment_loaded_filter(loaded) != NULL;
    segment_loaded_unref(loaded);
    return here;
}

static uint64_t
late_calls(const struct page_fixture *fixture)
{
    return load_relaxed(&fixture->mio.calls); /* relaxed: one thread. */
}

static struct bytes
late_absent(const struct page_fixture *fixture, uint8_t *buf)
{
    struct bytes key = fixture->rows.at[1000].key;
    memcpy(buf, key.ptr, key.len);
    buf[key.len] = 'x';
    return bytes_make(buf, key.len + 1);
}

/* Looked for slowly: not there. */
static void
late_miss(struct page_fixture *fixture, struct bytes key)
{
    struct segment_hit hit = {0};
    assert_int_equal(
        segment_get_slow(fixture->segment, key, segment_filter_hash(key), UINT64_MAX, true, &hit),
        SEGMENT_ABSENT);
}

/* In memory alone. */
static enum segment_result
late_look(struct page_fixture *fixture, struct bytes key, struct segment_hit *hit)
{
    *hit = (struct segment_hit){0};
    return test_segment_get(fixture->segment, key, UINT64_MAX, hit, NULL);
}

static void
late_init(struct page_fixture *fixture)
{
    page_init(fixture, PAGE_CACHE);
    page_rows(fixture, 6000);
    page_write(fixture, ESKER_COMPRESS_NONE, 512);
}

/* A lookup that finds its key needs no filter; the first that does not brings it, and the next does
 * without the disk. What cannot be read is nobody's failure. */
static void
late_filter__comes_with_the_first_miss(void **state)
{
    (void)state;
    struct page_fixture fixture;
    uint8_t buf[64];
    late_init(&fixture);
    struct bytes absent = late_absent(&fixture, buf);
    for (uint32_t i = 0; i < fixture.rows.count; i += 7) {
        const struct test_row *row = &fixture.rows.at[i];
        struct segment_hit hit = {0};
        assert_int_equal(segment_get_slow(fixture.segment, row->key, segment_filter_hash(row->key),
                                          row->lsn + 1, false, &hit),
                         SEGMENT_FOUND);
        frame_unpin(hit.frame);
    }
    assert_false(late_is_here(&fixture));
    fixture.mio.fail_at = late_calls(&fixture) + 2; /* the block is read, the filter is not */
    late_miss(&fixture, absent);
    assert_int_equal(late_calls(&fixture), fixture.mio.fail_at);
    assert_false(late_is_here(&fixture));
    late_miss(&fixture, absent);
    assert_true(late_is_here(&fixture));
    uint64_t calls = late_calls(&fixture);
    struct segment_hit hit;
    for (uint32_t i = 0; i < 50; i++) {
        assert_int_equal(late_look(&fixture, absent, &hit), SEGMENT_ABSENT);
        late_miss(&fixture, absent);
    }
    assert_int_equal(late_calls(&fixture), calls);
    page_fini(&fixture);
}

/* The same where the block is in memory already, and where many blocks were read together. */
static void
late_filter__comes_where_nothing_is_read(void **state)
{
    (void)state;
    for (int together = 0; together < 2; together++) {
        struct page_fixture fixture;
        uint8_t buf[64];
        struct segment_hit hit;
        late_init(&fixture);
        struct bytes absent = late_absent(&fixture, buf);
        assert_ok(segment_warm(fixture.segment));
        assert_int_equal(late_look(&fixture, absent, &hit), SEGMENT_NEEDS_IO);
        assert_int_equal(hit.place.stage, SEGMENT_STAGE_DATA);
        struct segment_fetch fetch = {.segment = fixture.segment, .place = hit.place};
        segment_fetch_many(&fetch, 1, &fixture.mem.base, true);
        assert_ok(fetch.status);
        if (together != 0) {
            assert_int_equal(segment_get_in_frame(fixture.segment, fetch.frame, absent,
                                                  segment_filter_hash(absent), UINT64_MAX, &hit),
                             SEGMENT_ABSENT);
        } else {
            assert_int_equal(late_look(&fixture, absent, &hit), SEGMENT_NEEDS_IO);
            assert_int_equal(hit.place.stage, SEGMENT_STAGE_NONE);
            assert_false(late_is_here(&fixture));
            late_miss(&fixture, absent);
        }
        assert_true(late_is_here(&fixture));
        frame_unpin(fetch.frame);
        assert_int_equal(late_look(&fixture, absent, &hit), SEGMENT_ABSENT);
        page_fini(&fixture);
    }
}

/* ---- Damage ------------------------------------------------------------------- */

/* Every byte behind the header, changed: no answer is wrong, and what is not told as damage is
 * answered. kinds: how often filter, index and data were hit. */
static void
damage_every_byte(uint64_t room)
{
    struct page_fixture fixture;
    page_init(&fixture, room);
    page_rows(&fixture, 500);
    page_write(&fixture, ESKER_COMPRESS_NONE, 400);
    page_drop(&fixture);
    uint8_t *bad = malloc(fixture.size);
    assert_non_null(bad);
    memcpy(bad, fixture.good, fixture.size);
    const uint8_t *footer = fixture.good + fixture.size - SEGMENT_FOOTER_BYTES;
    uint64_t data_end = le64_load(footer + 136);
    uint64_t root_at = le64_load(footer);
    uint64_t filter_at = le64_load(footer + 16);
    uint64_t filter_end = filter_at + le32_load(footer + 24);
    for (size_t at = SEGMENT_HEADER_BYTES; at < filter_end; at += at < data_end  ? 97
                                                                  : at < root_at ? 3
                                                                                 : 61) {
        bad[at] ^= (uint8_t)(1U << (at % 8));
        (void)mem_io_put(&fixture.mio, page_name, bytes_make(bad, fixture.size));
        page_handle(&fixture);
        uint32_t failed = page_gets(&fixture);
        assert_int_equal(segment_verify(fixture.segment), ESKER_CORRUPT);
        struct block_cache_stats stats;
        block_cache_get_stats(fixture.cache, &stats);
        bool in_filter = at >= filter_at;
        assert_int_equal(stats.filter_pages_damaged > 0, in_filter);
        assert_int_equal(failed > 0, !in_filter);
        assert_true(at < root_at || in_filter || failed == fixture.rows.count);
        /* Of ten parts or more a damaged one costs its own keys. */
        assert_true(at >= root_at || failed < fixture.rows.count / 2);
        assert_int_equal(page_scan(&fixture, at % 2 == 0, at % 3 == 0),
                         in_filter ? ESKER_END : ESKER_CORRUPT);
        page_drop(&fixture);
        bad[at] = fixture.good[at];
        if (in_filter) { /* counts of its own for the next */
            page_leave(&fixture, PAGE_CACHE);
            block_cache_destroy(fixture.cache);
            assert_ok(block_cache_create(&fixture.mem.base, PAGE_CACHE, &fixture.cache));
            fixture.taken = 0;
            page_leave(&fixture, room);
        }
    }
    free(bad);
    page_fini(&fixture);
}

static void
damage__of_a_page_costs_its_own_keys(void **state)
{
    (void)state;
    damage_every_byte(16 << 10);
}

/* What would be whole is paged then, and stays so. */
static void
damage__of_a_page_costs_no_more_where_all_would_fit(void **state)
{
    (void)state;
    damage_every_byte(PAGE_CACHE);
}

/* Parts that are authentic but point elsewhere are refused one by one. */
struct page_edit {
    uint32_t row;
    uint32_t kind;
};

static void
page_edit_row(void *ctx, uint32_t row_no, struct forge_row *row)
{
    const struct page_edit *edit = ctx;
    if (row_no == edit->row) {
        row->key[0] = (uint8_t)(edit->kind == 0 ? row->key[0] + 1 : row->key[0]);
        row->lsn += edit->kind == 1;
    }
}

static void
damage__a_part_that_disagrees_with_the_root_is_refused(void **state)
{
    (void)state;
    for (uint32_t kind = 0; kind < 2; kind++) {
        struct page_fixture fixture;
        page_init(&fixture, 0);
        page_rows(&fixture, 500);
        page_write(&fixture, ESKER_COMPRESS_NONE, 400);
        struct segment_loaded *loaded = NULL;
        assert_ok(segment_load(fixture.segment, &loaded));
        struct page_edit edit = {.row = loaded->part_count - 1, .kind = kind};
        assert_true(edit.row > 3);
        segment_loaded_unref(loaded);
        page_drop(&fixture);
        struct segment_meta meta = fixture.written.meta;
        struct buf bad =
            forge_root(bytes_make(fixture.good, fixture.size), PAGE_ID, page_edit_row, &edit, &meta);
        (void)mem_io_put(&fixture.mio, page_name, buf_bytes(&bad));
        fixture.written.meta = meta;
        page_handle(&fixture);
        struct segment_index index;
        assert_ok(segment_load(fixture.segment, &loaded));
        index = segment_index_make(fixture.segment, loaded, true);
        for (uint32_t part = 0; part < loaded->part_count; part++) {
            esker_status status = segment_index_hold(&index, part);
            assert_int_equal(status, part == edit.row ? ESKER_CORRUPT : ESKER_OK);
        }
        segment_index_drop(&index);
        segment_loaded_unref(loaded);
        buf_fini(&bad);
        page_fini(&fixture);
    }
}

/* ---- Room comes and goes ------------------------------------------------------- */

static void
room__decides_what_is_whole(void **state)
{
    (void)state;
    struct page_fixture fixture;
    page_init(&fixture, 0);
    page_rows(&fixture, 6000);
    page_write(&fixture, ESKER_COMPRESS_NONE, 512);
    assert_true(page_is_paged(&fixture));
    assert_int_equal(page_gets(&fixture), 0);
    page_leave(&fixture, PAGE_CACHE); /* the next who needs the disk finds room */
    assert_false(page_is_paged(&fixture));
    assert_int_equal(page_gets(&fixture), 0);
    page_leave(&fixture, 0); /* what is whole stays while it is used, or nobody needs the room */
    assert_false(page_is_paged(&fixture));
    page_drop(&fixture);
    page_handle(&fixture);
    assert_true(page_is_paged(&fixture));
    page_fini(&fixture);
}

/* Blocks of another segment are turned away; that nobody asks for this one gives its index up. */
static void
room__what_is_not_used_becomes_paged(void **state)
{
    (void)state;
    struct page_fixture fixture;
    page_init(&fixture, PAGE_CACHE);
    page_rows(&fixture, 6000);
    page_write(&fixture, ESKER_COMPRESS_NONE, 512);
    assert_false(page_is_paged(&fixture));
    struct frame_table table;
    assert_ok(frame_table_init(&table, fixture.cache, 1 << 16));
    page_leave(&fixture, 0);
    struct block_cache_stats stats;
    uint64_t turned = 0;
    for (uint32_t block = 0; turned < (uint64_t)16 * PAGE_CACHE; block++, turned += 4096) {
        (void)frame_table_admits(&table, block, 4096, false);
        if (turned < (uint64_t)8 * PAGE_CACHE && block % 256 == 0) { /* for a while it is used */
            struct segment_hit hit = {0};
            struct bytes key = fixture.rows.at[0].key;
            (void)test_segment_get(fixture.segment, key, UINT64_MAX, &hit, NULL);
        }
        block_cache_get_stats(fixture.cache, &stats);
        assert_true(stats.holder_evictions == 0 || turned >= (uint64_t)8 * PAGE_CACHE);
    }
    assert_int_equal(stats.holder_evictions, 1);
    assert_true(page_is_paged(&fixture));
    frame_table_fini(&table);
    page_fini(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paged__answers_like_whole),
        cmocka_unit_test(paged__awkward_keys_answer_like_whole),
        cmocka_unit_test(paged__a_lookup_reads_one_page_of_each),
        cmocka_unit_test(late_filter__comes_with_the_first_miss),
        cmocka_unit_test(late_filter__comes_where_nothing_is_read),
        cmocka_unit_test(damage__of_a_page_costs_its_own_keys),
        cmocka_unit_test(damage__of_a_page_costs_no_more_where_all_would_fit),
        cmocka_unit_test(damage__a_part_that_disagrees_with_the_root_is_refused),
        cmocka_unit_test(room__decides_what_is_whole),
        cmocka_unit_test(room__what_is_not_used_becomes_paged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
