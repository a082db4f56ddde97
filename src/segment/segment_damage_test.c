/* SPDX-License-Identifier: MIT */
/*
 * Goal: damage is reported and never turns into a wrong answer; failed reads,
 * writes and allocations are reported, undone and can be tried again; hostile
 * files cost bounded memory.
 * Method: a small segment in memory with every byte changed, with every
 * length, with swapped blocks and foreign names; then the same damage with
 * checksums computed anew. Faults are injected at the n-th call for every n.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "format/filter.h"
#include "io/io_sim.h"
#include "segment/segment_internal.h"
#include "segment/test_forge.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

enum { DAMAGE_ID = 0x21 };

static const char damage_name[] = "0000000000000021.seg";

struct damage_fixture {
    struct mem_io mio;
    struct test_mem mem;
    struct block_cache *cache;
    struct test_rows rows;
    struct test_segment written;
    uint8_t *good; /* the file as it was written */
    size_t size;
};

static void
damage_init(struct damage_fixture *fixture, uint32_t row_count, int compression)
{
    memset(fixture, 0, sizeof *fixture);
    mem_io_init(&fixture->mio);
    test_mem_init(&fixture->mem);
    assert_ok(epoch_runtime_acquire(true));
    assert_ok(block_cache_create(&fixture->mem.base, 1 << 20, &fixture->cache));
    struct rng rng = {11};
    test_rows_init(&fixture->rows, row_count, 4 << 20);
    for (uint32_t i = 0; i < row_count; i++) {
        char key[32];
        int len = snprintf(key, sizeof key, "key %02u", i / 4 * 2);
        test_segment_row(&fixture->rows, bytes_make(key, (size_t)len), 1 + i * 3,
                         i % 7 == 6 ? SIZE_MAX : rng_below(&rng, 60));
    }
    test_rows_settle(&fixture->rows);
    /* Two index levels where the blocks are compressed, one where they are not. */
    assert_ok(test_segment_write_as(&fixture->mio.base, &mem_default, &fixture->rows, DAMAGE_ID, compression,
                                    256, compression != ESKER_COMPRESS_NONE, &fixture->written));
    struct mem_io_file *file = mem_io_find(&fixture->mio, damage_name);
    fixture->size = file->size;
    fixture->good = malloc(file->size);
    assert_non_null(fixture->good);
    memcpy(fixture->good, file->bytes, file->size);
}

static void
damage_fini(struct damage_fixture *fixture)
{
    epoch_drain();
    block_cache_destroy(fixture->cache);
    assert_int_equal(load_relaxed(&fixture->mem.live_bytes), 0); /* relaxed: one thread. */
    epoch_runtime_release();
    test_rows_fini(&fixture->rows);
    mem_io_fini(&fixture->mio);
    free(fixture->good);
}

static void
damage_put(struct damage_fixture *fixture, const uint8_t *bytes, size_t size)
{
    (void)mem_io_put(&fixture->mio, damage_name, bytes_make(bytes, size));
}

static struct segment *
damage_handle(struct damage_fixture *fixture, const struct segment_meta *meta)
{
    return test_segment_handle(&fixture->mio.base, &fixture->mem.base, fixture->cache, meta);
}

static bool
damage_is_reported(esker_status status)
{
    return status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED;
}

/* Zeros among zeros are most of a small file's filter: not each is worth everything. */
static bool
damage_is_dull(const struct damage_fixture *fixture, size_t at)
{
    return at > 0 && fixture->good[at - 1] == 0 && fixture->good[at] == 0;
}

/* The story names the file; the offset lies within it. */
static void
damage_check_story(const struct damage_fixture *fixture)
{
    const esker_error *story = status_last();
    assert_string_equal(story->file, damage_name);
    assert_true(story->offset <= fixture->size);
    assert_true(story->message[0] != '\0');
}

/* Rows in one direction: the model's, up to a failure or the end. Returns the last status. */
static esker_status
damage_scan(const struct damage_fixture *fixture, struct segment *segment, bool through_cache, bool backwards,
            bool truthful)
{
    const struct test_rows *rows = &fixture->rows;
    struct iter *it = NULL;
    esker_status status = segment_iter_create(segment, through_cache, &it);
    if (status != ESKER_OK) {
        return status;
    }
    uint32_t seen = 0;
    for (status = backwards ? iter_last(it) : iter_first(it); status == ESKER_OK;
         status = backwards ? iter_prev(it) : iter_next(it)) {
        if (truthful) {
            assert_true(seen < rows->count);
            const struct test_row *row = &rows->at[backwards ? rows->count - 1 - seen : seen];
            assert_true(bytes_equal(it->key, row->key) && bytes_equal(it->value, row->value));
            assert_true(it->lsn == row->lsn && it->op == row->op);
        } else {
            volatile uint64_t sink =
                hash64(it->key.ptr, it->key.len, 0) ^ hash64(it->value.ptr, it->value.len, 0);
            (void)sink;
        }
        seen++;
    }
    if (truthful && status == ESKER_END) {
        assert_int_equal(seen, rows->count);
    }
    iter_destroy(it);
    return status;
}

/* Every key, slow path, then fast. Counts failures. */
static uint32_t
damage_gets(const struct damage_fixture *fixture, struct segment *segment, bool truthful)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < fixture->rows.count; i++) {
        const struct test_row *row = &fixture->rows.at[i];
        struct segment_hit hit = {0};
        uint64_t hash = segment_filter_hash(row->key);
        enum segment_result result =
            segment_get_slow(segment, row->key, hash, row->lsn + 1, i % 2 == 0, &hit);
        if (result == SEGMENT_FAILED) {
            assert_true(damage_is_reported(hit.status) || hit.status == ESKER_IO ||
                        hit.status == ESKER_NO_MEMORY);
            failed++;
            continue;
        }
        if (truthful) {
            assert_int_equal(result, SEGMENT_FOUND);
            assert_true(hit.lsn == row->lsn && hit.op == row->op && bytes_equal(hit.value, row->value));
        }
        if (result == SEGMENT_FOUND) {
            frame_unpin(hit.frame);
        }
        result = test_segment_get(segment, row->key, row->lsn + 1, &hit, NULL);
        if (truthful) {
            assert_true(result == SEGMENT_NEEDS_IO || (result == SEGMENT_FOUND && hit.lsn == row->lsn));
        }
    }
    return failed;
}

/* ---- Damage with checksums in the way ----------------------------------- */

static void
damage_flip__is_reported_by_verify_and_never_believed(void **state)
{
    (void)state;
    static const int codecs[] = {ESKER_COMPRESS_NONE, ESKER_COMPRESS_LZ4, ESKER_COMPRESS_ZSTD};
    for (size_t codec = 0; codec < COUNTOF(codecs); codec++) {
        struct damage_fixture fixture;
        damage_init(&fixture, 80, codecs[codec]);
        uint8_t *bad = malloc(fixture.size);
        assert_non_null(bad);
        memcpy(bad, fixture.good, fixture.size);
        for (size_t at = 0; at < fixture.size; at++) {
            if (codec > 0 && damage_is_dull(&fixture, at) && at % 8 != 0) {
                continue;
            }
            bad[at] ^= (uint8_t)(1U << (at % 8));
            damage_put(&fixture, bad, fixture.size);
            struct segment *segment = damage_handle(&fixture, &fixture.written.meta);
            assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
            damage_check_story(&fixture);
            /* What is touched is reported, what is not is right. */
            esker_status forwards = damage_scan(&fixture, segment, at % 2 == 0, false, true);
            assert_true(forwards == ESKER_END || forwards == ESKER_CORRUPT);
            if (forwards == ESKER_CORRUPT) {
                damage_check_story(&fixture);
            }
            assert_int_equal(damage_scan(&fixture, segment, at % 2 != 0, true, true), forwards);
            if (!damage_is_dull(&fixture, at) || at % 32 == 0) {
                uint32_t failed = damage_gets(&fixture, segment, true);
                assert_true((failed > 0) == (forwards == ESKER_CORRUPT));
            }
            segment_unref(segment);
            bad[at] = fixture.good[at];
        }
        free(bad);
        damage_fini(&fixture);
    }
}

static void
damage_truncate__is_reported_at_every_length(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 60, ESKER_COMPRESS_NONE);
    for (size_t size = 0; size < fixture.size; size++) {
        damage_put(&fixture, fixture.good, size);
        /* Once with the manifest that remembers the true size, once with one that agrees. */
        for (int agrees = 0; agrees < 2; agrees++) {
            struct segment_meta meta = fixture.written.meta;
            meta.size_bytes = agrees != 0 ? size : meta.size_bytes;
            struct segment *segment = damage_handle(&fixture, &meta);
            assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
            damage_check_story(&fixture);
            assert_int_equal(damage_scan(&fixture, segment, false, false, true), ESKER_CORRUPT);
            assert_int_equal(damage_gets(&fixture, segment, true), fixture.rows.count);
            segment_unref(segment);
        }
    }
    /* Longer than it was is damage too. */
    uint8_t *longer = calloc(1, fixture.size + 1);
    assert_non_null(longer);
    memcpy(longer, fixture.good, fixture.size);
    damage_put(&fixture, longer, fixture.size + 1);
    struct segment *segment = damage_handle(&fixture, &fixture.written.meta);
    assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
    segment_unref(segment);
    free(longer);
    damage_fini(&fixture);
}

static void
damage_place__blocks_and_files_do_not_pass_for_others(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_NONE);
    struct segment *segment = damage_handle(&fixture, &fixture.written.meta);
    struct segment_loaded *loaded = NULL;
    assert_ok(segment_loaded_create(segment, &loaded));
    uint8_t *bad = malloc(fixture.size);
    assert_non_null(bad);
    uint32_t swaps = 0;
    struct segment_at left = segment_at_first();
    do {
        for (struct segment_at right = left; segment_at_next(loaded, &right);) {
            struct block_handle a = segment_at_handle(loaded, left);
            struct block_handle b = segment_at_handle(loaded, right);
            size_t len = MIN(a.stored_len, b.stored_len);
            memcpy(bad, fixture.good, fixture.size);
            memcpy(bad + a.offset, fixture.good + b.offset, len);
            memcpy(bad + b.offset, fixture.good + a.offset, len);
            damage_put(&fixture, bad, fixture.size);
            assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
            assert_int_equal(damage_scan(&fixture, segment, false, false, true), ESKER_CORRUPT);
            swaps += a.stored_len == b.stored_len;
        }
    } while (segment_at_next(loaded, &left));
    assert_true(swaps > 0);
    segment_loaded_unref(loaded);
    segment_unref(segment);

    /* Another file's content under this name, and another database's. */
    struct segment_meta meta = fixture.written.meta;
    meta.id = DAMAGE_ID + 1;
    (void)mem_io_put(&fixture.mio, "0000000000000022.seg", bytes_make(fixture.good, fixture.size));
    segment = damage_handle(&fixture, &meta);
    assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
    segment_unref(segment);
    damage_put(&fixture, fixture.good, fixture.size);
    struct segment_open_options options = {
        .io = &fixture.mio.base, .mem = &fixture.mem.base, .cache = fixture.cache, .uuid = "another uuid"};
    assert_ok(segment_create(&options, &fixture.written.meta, &segment));
    assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
    segment_unref(segment);
    meta.id = 0x99;
    segment = damage_handle(&fixture, &meta);
    assert_int_equal(segment_verify(segment), ESKER_CORRUPT); /* no such file */
    assert_string_equal(status_last()->file, "0000000000000099.seg");
    segment_unref(segment);
    free(bad);
    damage_fini(&fixture);
}

/* The disk returned garbage once: the same iterator can be placed again and reads anew. */
static void
damage_iter__recovers_when_the_bytes_do(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_LZ4);
    uint8_t *bad = malloc(fixture.size);
    assert_non_null(bad);
    for (int through_cache = 0; through_cache < 2; through_cache++) {
        struct segment *segment = damage_handle(&fixture, &fixture.written.meta);
        struct segment_loaded *loaded = NULL;
        assert_ok(segment_load(segment, &loaded));
        /* Every data block but the first is damaged. */
        memcpy(bad, fixture.good, fixture.size);
        for (struct segment_at at = segment_at_first(); segment_at_next(loaded, &at);) {
            bad[segment_at_handle(loaded, at).offset] ^= 1;
        }
        segment_loaded_unref(loaded);
        struct iter *it = NULL;
        assert_ok(segment_iter_create(segment, through_cache != 0, &it));
        for (int round = 0; round < 3; round++) {
            damage_put(&fixture, bad, fixture.size);
            esker_status status = iter_first(it);
            uint32_t seen = 0;
            for (; status == ESKER_OK; status = iter_next(it)) {
                seen++;
            }
            /* What was read well before may still be known. */
            assert_true(status == ESKER_CORRUPT || (round > 0 && status == ESKER_END));
            assert_true(seen > 0);
            damage_put(&fixture, fixture.good, fixture.size);
            seen = 0;
            for (status = iter_first(it); status == ESKER_OK; status = iter_next(it)) {
                seen++;
            }
            assert_int_equal(status, ESKER_END);
            assert_int_equal(seen, fixture.rows.count);
        }
        iter_destroy(it);
        segment_unref(segment);
    }
    free(bad);
    damage_fini(&fixture);
}

static void
damage_meta__must_agree_with_the_footer(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 40, ESKER_COMPRESS_NONE);
    for (int field = 0; field < 6; field++) {
        struct segment_meta meta = fixture.written.meta;
        meta.row_count += field == 0;
        meta.tombstone_count += field == 1;
        meta.min_lsn += field == 2;
        meta.max_lsn += field == 3;
        meta.size_bytes += field == 4;
        struct segment *segment = damage_handle(&fixture, &meta);
        esker_status expected = field == 5 ? ESKER_OK : ESKER_CORRUPT;
        assert_int_equal(segment_verify(segment), expected);
        assert_int_equal(damage_gets(&fixture, segment, true), field == 5 ? 0 : fixture.rows.count);
        segment_unref(segment);
    }
    /* Bounds that are too narrow are found by verify alone. */
    for (int upper = 0; upper < 2; upper++) {
        struct segment_meta meta = fixture.written.meta;
        meta.min_key = upper != 0 ? meta.min_key : bytes_make("key 02", 6);
        meta.max_key = upper == 0 ? meta.max_key : bytes_make("key 02", 6);
        struct segment *segment = damage_handle(&fixture, &meta);
        assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
        segment_unref(segment);
    }
    damage_fini(&fixture);
}

/* ---- Damage behind checksums -------------------------------------------- */

/* Everything a reader can do with a file that may lie; only crashes and memory count. */
static void
damage_exercise(struct damage_fixture *fixture, const struct segment_meta *meta)
{
    struct segment *segment = damage_handle(fixture, meta);
    esker_status verified = segment_verify(segment);
    bool truthful = false;
    assert_true(verified == ESKER_OK || damage_is_reported(verified));
    for (int how = 0; how < 4; how++) {
        esker_status status = damage_scan(fixture, segment, how % 2 != 0, how / 2 != 0, truthful);
        assert_true(status == ESKER_END || damage_is_reported(status));
        assert_true(verified != ESKER_OK || status == ESKER_END);
    }
    (void)damage_gets(fixture, segment, truthful);
    segment_unref(segment);
    epoch_drain();
}

static void
damage_forged__is_survived_in_bounded_memory(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 60, ESKER_COMPRESS_LZ4);
    uint8_t *bad = malloc(fixture.size);
    assert_non_null(bad);
    static const uint8_t flips[] = {0x01, 0x80, 0xff};
    for (size_t at = 0; at < fixture.size; at++) {
        for (size_t flip = damage_is_dull(&fixture, at) ? at % 16 : 0; flip < COUNTOF(flips); flip++) {
            struct segment_meta meta = fixture.written.meta;
            memcpy(bad, fixture.good, fixture.size);
            bad[at] ^= flips[flip];
            forge_segment(bad, fixture.size, DAMAGE_ID, &meta);
            damage_put(&fixture, bad, fixture.size);
            damage_exercise(&fixture, &meta);
        }
    }
    /* relaxed: one thread. A small file may unpack 1 MiB of index and as much per block. */
    assert_true(load_relaxed(&fixture.mem.peak_bytes) < 6 << 20);
    free(bad);
    damage_fini(&fixture);
}

/* Rows that are well formed but wrong: verify must see it although every checksum is right. */
static void
damage_forged__disagreements_are_found_by_verify(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 60, ESKER_COMPRESS_NONE);
    uint8_t *bad = malloc(fixture.size);
    assert_non_null(bad);
    uint8_t *footer = bad + fixture.size - SEGMENT_FOOTER_BYTES;
    static const size_t counts[] = {80, 88, 96, 104, 120, 124, 128, 136};
    for (size_t field = 0; field < COUNTOF(counts); field++) {
        struct segment_meta meta = fixture.written.meta;
        memcpy(bad, fixture.good, fixture.size);
        footer[counts[field]]++;
        forge_segment(bad, fixture.size, DAMAGE_ID, &meta);
        damage_put(&fixture, bad, fixture.size);
        struct segment *segment = damage_handle(&fixture, &meta);
        assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
        /* Tombstones and LSNs only a look at all rows can tell; the others stop the first reader. */
        bool subtle = counts[field] >= 88 && counts[field] <= 104;
        assert_int_equal(damage_scan(&fixture, segment, false, false, true),
                         subtle ? ESKER_END : ESKER_CORRUPT);
        segment_unref(segment);
    }
    /* A filter that has lost its bits denies keys; verify tells. */
    struct segment_meta meta = fixture.written.meta;
    memcpy(bad, fixture.good, fixture.size);
    memset(bad + le64_load(footer + 16), 0, FILTER_PAGE_BYTES);
    forge_segment(bad, fixture.size, DAMAGE_ID, &meta);
    damage_put(&fixture, bad, fixture.size);
    struct segment *segment = damage_handle(&fixture, &meta);
    assert_int_equal(segment_verify(segment), ESKER_CORRUPT);
    assert_int_equal(status_last()->offset, le64_load(footer + 16));
    segment_unref(segment);
    free(bad);
    damage_fini(&fixture);
}

/* ---- Faults ------------------------------------------------------------- */

/* The n-th call fails. False: there were not that many. What nobody noticed is counted in *healed. */
static bool
fault_read_once(struct damage_fixture *fixture, uint64_t n, int how, esker_status expected, uint64_t *healed)
{
    struct segment *segment = damage_handle(fixture, &fixture->written.meta);
    store_relaxed(&fixture->mio.calls, 0); /* relaxed: one thread. */
    fixture->mio.fail_at = n;
    esker_status status = damage_scan(fixture, segment, how % 2 != 0, how / 2 != 0, true);
    uint32_t failed = damage_gets(fixture, segment, true);
    bool struck = load_relaxed(&fixture->mio.calls) >= n; /* relaxed: one thread. */
    assert_true(status == ESKER_END || status == expected);
    /* Loading tries again where descriptors were missing, and loading comes before all else. */
    if (struck && status == ESKER_END && failed == 0 && fixture->mio.fail_errno == EMFILE) {
        assert_int_equal(*healed, n - 1);
        *healed = n;
    } else {
        assert_int_equal((status != ESKER_END) + failed, struck);
    }
    /* No poison: everything works now. */
    fixture->mio.fail_at = 0;
    assert_int_equal(damage_scan(fixture, segment, true, false, true), ESKER_END);
    assert_int_equal(damage_gets(fixture, segment, true), 0);
    segment_unref(segment);
    return struck;
}

static void
fault_read__fails_that_call_only(void **state)
{
    (void)state;
    static const int errors[] = {EIO, EMFILE, ENOMEM};
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_LZ4);
    for (size_t error = 0; error < COUNTOF(errors); error++) {
        esker_status expected = errors[error] == ENOMEM ? ESKER_NO_MEMORY : ESKER_IO;
        fixture.mio.fail_errno = errors[error];
        for (int how = 0; how < 4; how++) {
            uint64_t faults = 0;
            uint64_t healed = 0;
            for (uint64_t n = 1; fault_read_once(&fixture, n, how, expected, &healed); n++) {
                faults++;
            }
            assert_true(faults > 6 && healed < faults);
            assert_int_equal(healed > 0, errors[error] == EMFILE);
        }
    }
    damage_fini(&fixture);
}

static void
fault_short__transfers_are_completed(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_NONE);
    fixture.mio.short_bytes = 7;
    fixture.mio.interrupt = true;
    struct test_segment again;
    assert_ok(io_unlink(&fixture.mio.base, damage_name));
    assert_ok(test_segment_write(&fixture.mio.base, &fixture.mem.base, &fixture.rows, DAMAGE_ID,
                                 ESKER_COMPRESS_NONE, 256, &again));
    assert_int_equal(again.meta.size_bytes, fixture.size);
    struct segment *segment = damage_handle(&fixture, &again.meta);
    assert_ok(segment_verify(segment));
    assert_int_equal(damage_scan(&fixture, segment, true, true, true), ESKER_END);
    assert_int_equal(damage_gets(&fixture, segment, true), 0);
    segment_unref(segment);
    damage_fini(&fixture);
}

static void
fault_write__leaves_no_file(void **state)
{
    (void)state;
    static const int errors[] = {EIO, ENOSPC};
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_NONE);
    for (size_t error = 0; error < COUNTOF(errors); error++) {
        esker_status status = ESKER_IO;
        fixture.mio.fail_errno = errors[error];
        for (uint64_t n = 1; status != ESKER_OK; n++) {
            struct test_segment again = {.meta = {.id = 1234}};
            store_relaxed(&fixture.mio.calls, 0); /* relaxed: one thread. */
            fixture.mio.fail_at = n;
            assert_ok(io_unlink(&fixture.mio.base, damage_name));
            status = test_segment_write(&fixture.mio.base, &fixture.mem.base, &fixture.rows, DAMAGE_ID,
                                        ESKER_COMPRESS_NONE, 256, &again);
            if (status != ESKER_OK) {
                assert_int_equal(status, errors[error] == ENOSPC ? ESKER_NO_SPACE : ESKER_IO);
                assert_int_equal(status_last()->status, status);
                assert_string_equal(status_last()->file, damage_name);
                assert_null(mem_io_find(&fixture.mio, damage_name));
                assert_int_equal(again.meta.id, 1234);
            }
        }
        fixture.mio.fail_at = 0;
        assert_non_null(mem_io_find(&fixture.mio, damage_name));
    }
    damage_fini(&fixture);
}

/* What finish synced is there after the power went, once the directory was synced too. */
static void
fault_power__a_finished_segment_stays(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_LZ4);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct sim_disk *disk = sim_disk_create(seed);
        struct io *io = NULL;
        struct test_segment again;
        assert_non_null(disk);
        assert_ok(io_sim_open(disk, &mem_default, &io));
        assert_ok(
            test_segment_write(io, &mem_default, &fixture.rows, DAMAGE_ID, ESKER_COMPRESS_LZ4, 256, &again));
        assert_ok(io_sync_dir(io));
        sim_disk_crash(disk, seed % 2 == 0 ? SIM_CRASH_POWER_NONE : SIM_CRASH_POWER_RANDOM, seed);
        io_close_dir(io);
        assert_ok(io_sim_open(disk, &mem_default, &io));
        struct segment *segment = test_segment_handle(io, &fixture.mem.base, fixture.cache, &again.meta);
        assert_ok(segment_verify(segment));
        assert_int_equal(damage_scan(&fixture, segment, true, false, true), ESKER_END);
        segment_unref(segment);
        io_close_dir(io);
        sim_disk_destroy(disk);
    }
    damage_fini(&fixture);
}

/* Writes, verifies, scans and gets; whatever fails must be for want of memory. Returns the first failure. */
static esker_status
fault_script(struct damage_fixture *fixture, const struct segment_meta *meta)
{
    struct test_segment again;
    const struct mem *mem = &fixture->mem.base;
    esker_status status = test_segment_write(&fixture->mio.base, mem, &fixture->rows, DAMAGE_ID + 2,
                                             ESKER_COMPRESS_ZSTD, 256, &again);
    assert_ok(io_unlink(&fixture->mio.base, "0000000000000023.seg"));
    struct segment *segment = damage_handle(fixture, meta);
    if (segment == NULL) {
        return ESKER_NO_MEMORY;
    }
    for (int how = 0; how < 4 && status == ESKER_OK; how++) {
        esker_status scanned = damage_scan(fixture, segment, how % 2 != 0, how / 2 != 0, true);
        status = scanned == ESKER_END ? ESKER_OK : scanned;
    }
    if (status == ESKER_OK && damage_gets(fixture, segment, true) > 0) {
        status = ESKER_NO_MEMORY;
    }
    if (status == ESKER_OK) {
        status = segment_verify(segment);
    }
    segment_unref(segment);
    return status;
}

static void
fault_memory__is_reported_and_nothing_leaks(void **state)
{
    (void)state;
    struct damage_fixture fixture;
    damage_init(&fixture, 80, ESKER_COMPRESS_ZSTD);
    for (int on = 0; on < 2; on++) {
        fixture.mem.fail_on = on != 0;
        uint64_t failures = 0;
        for (uint64_t n = 1;; n++) {
            store_relaxed(&fixture.mem.calls, 0); /* relaxed: one thread. */
            fixture.mem.fail_at = n;
            esker_status status = fault_script(&fixture, &fixture.written.meta);
            bool struck = load_relaxed(&fixture.mem.calls) >= n; /* relaxed: one thread. */
            fixture.mem.fail_at = 0;
            epoch_drain();
            struct block_cache_stats stats;
            block_cache_get_stats(fixture.cache, &stats);
            assert_int_equal(stats.used_bytes, 0);
            /* A frame table that finds no memory for a chunk only costs speed. */
            assert_true(status == ESKER_OK || (struck && status == ESKER_NO_MEMORY));
            failures += status != ESKER_OK;
            if (!struck) {
                break;
            }
        }
        assert_true(failures > 30);
    }
    damage_fini(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damage_flip__is_reported_by_verify_and_never_believed),
        cmocka_unit_test(damage_truncate__is_reported_at_every_length),
        cmocka_unit_test(damage_place__blocks_and_files_do_not_pass_for_others),
        cmocka_unit_test(damage_iter__recovers_when_the_bytes_do),
        cmocka_unit_test(damage_meta__must_agree_with_the_footer),
        cmocka_unit_test(damage_forged__is_survived_in_bounded_memory),
        cmocka_unit_test(damage_forged__disagreements_are_found_by_verify),
        cmocka_unit_test(fault_read__fails_that_call_only),
        cmocka_unit_test(fault_short__transfers_are_completed),
        cmocka_unit_test(fault_write__leaves_no_file),
        cmocka_unit_test(fault_power__a_finished_segment_stays),
        cmocka_unit_test(fault_memory__is_reported_and_nothing_leaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
