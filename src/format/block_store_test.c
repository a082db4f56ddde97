/* SPDX-License-Identifier: MIT */
/*
 * Goal: a stored block comes back whole or is refused: damaged in any bit,
 * moved, swapped, cut, or made to claim more memory than it may.
 * Method: every byte of small stored blocks changed, once with the checksum as
 * it was and once with it put right again, which leaves the decompressors and
 * block_open as the only gate; buffers of exact size for ASan.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <lz4.h>
#include <stdio.h>

#include "base/test_failing_mem.h"
#include "format/block_layout.h"
#include "format/test_rows.h"
#include "format/zstd_seat.h"

#include "base/hash.h"

enum { SEGMENT_ID = 77, FILE_OFFSET = 64 };

static const enum block_codec codecs[] = {BLOCK_CODEC_NONE, BLOCK_CODEC_LZ4, BLOCK_CODEC_ZSTD};

static void
rehash(uint8_t *stored, size_t len)
{
    uint8_t *trailer = stored + len - BLOCK_TRAILER_BYTES;
    uint64_t seed = hash_mix(hash_mix(SEGMENT_ID, FILE_OFFSET), le64_load(trailer));
    le64_store(trailer + 8, hash64(stored, len - BLOCK_TRAILER_BYTES, seed));
}

/* A data block of so many rows with values that compress well. */
static void
sample_block(uint32_t row_count, struct buf *raw)
{
    struct test_rows rows;
    test_rows_init(&rows, row_count, row_count * 64);
    for (uint32_t i = 0; i < row_count; i++) {
        char key[24];
        snprintf(key, sizeof key, "user:%06u:name", i * 3);
        struct test_row *row = &rows.at[rows.count++];
        row->key = test_rows_keep(&rows, key, strlen(key));
        row->lsn = 1000 + i * 7;
        row->op = ENTRY_PUT;
        row->value = test_rows_keep(&rows, "valuevaluevaluevaluevalue", 25);
    }
    test_rows_build(&rows, BLOCK_DATA, raw);
    test_rows_fini(&rows);
}

static esker_status
open_stored(const struct buf *stored, struct block_stored *out)
{
    return block_stored_open(buf_bytes(stored), BLOCK_DATA, SEGMENT_ID, FILE_OFFSET, out);
}

/* Opens, unpacks and checks as the segment room does, in buffers of exact size. */
static esker_status
load_stored(struct bytes bytes)
{
    uint8_t *copy = malloc(bytes.len + 1);
    uint8_t *raw = NULL;
    assert_non_null(copy);
    memcpy(copy + 1, bytes.ptr, bytes.len);
    struct block_stored stored;
    struct block block;
    esker_status status =
        block_stored_open(bytes_make(copy + 1, bytes.len), BLOCK_DATA, SEGMENT_ID, FILE_OFFSET, &stored);
    if (status == ESKER_OK) {
        assert_true(stored.raw_len <= MAX((size_t)1 << 20, 256 * bytes.len));
        raw = malloc(MAX(stored.raw_len, 1U));
        assert_non_null(raw);
        status = block_stored_unpack(&stored, &mem_default, raw);
    }
    if (status == ESKER_OK) {
        status = block_open(bytes_make(raw, stored.raw_len), BLOCK_DATA, &block);
    }
    if (status == ESKER_OK) {
        test_block_sound(&block);
    }
    free(raw);
    free(copy);
    return status;
}

static void
block_store__round_trips_with_each_codec(void **state)
{
    (void)state;
    static const uint32_t counts[] = {1, 2, 50, 300, 4000};
    struct buf raw, out;
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    for (uint32_t i = 0; i < COUNTOF(counts); i++) {
        sample_block(counts[i], &raw);
        for (uint32_t c = 0; c < COUNTOF(codecs); c++) {
            assert_int_equal(buf_assign(&out, bytes_make("before", 6)), ESKER_OK);
            assert_int_equal(
                block_store(buf_bytes(&raw), BLOCK_DATA, codecs[c], SEGMENT_ID, FILE_OFFSET, &out), ESKER_OK);
            assert_memory_equal(out.ptr, "before", 6);
            memmove(out.ptr, out.ptr + 6, out.len - 6);
            out.len -= 6;
            struct block_stored stored;
            assert_int_equal(open_stored(&out, &stored), ESKER_OK);
            assert_int_equal(stored.raw_len, raw.len);
            assert_int_equal(stored.codec, counts[i] >= 50 ? codecs[c] : stored.codec);
            uint8_t *back = malloc(stored.raw_len);
            assert_non_null(back);
            assert_int_equal(block_stored_unpack(&stored, &mem_default, back), ESKER_OK);
            assert_memory_equal(back, raw.ptr, raw.len);
            free(back);
            assert_int_equal(load_stored(buf_bytes(&out)), ESKER_OK);
        }
    }
    buf_fini(&raw);
    buf_fini(&out);
}

/* Compressed, the bytes of the prefixes stand as docs/format.md says, and no other byte moves. */
static void
block_store__puts_the_bytes_of_prefixes_together(void **state)
{
    (void)state;
    static const uint32_t counts[] = {7, 8, 9, 64, 255, 256, 257, 600, 4000};
    struct buf raw, out;
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    for (uint32_t i = 0; i < COUNTOF(counts); i++) {
        struct block_stored stored;
        sample_block(counts[i], &raw);
        buf_clear(&out);
        assert_int_equal(
            block_store(buf_bytes(&raw), BLOCK_DATA, BLOCK_CODEC_LZ4, SEGMENT_ID, FILE_OFFSET, &out),
            ESKER_OK);
        assert_int_equal(open_stored(&out, &stored), ESKER_OK);
        assert_int_equal(stored.codec, BLOCK_CODEC_LZ4);
        uint8_t *packed = malloc(raw.len);
        assert_non_null(packed);
        assert_int_equal(LZ4_decompress_safe((const char *)stored.payload.ptr, (char *)packed,
                                             (int)stored.payload.len, (int)raw.len),
                         raw.len);
        struct block_shape shape = block_shape_of(raw.ptr);
        size_t pfx = block_layout_of(&shape).pfx;
        for (uint32_t row = 0; row < counts[i]; row++) {
            uint32_t first = row / 256 * 256;
            uint32_t group = MIN(counts[i] - first, 256U);
            for (uint32_t k = 0; k < 8; k++) {
                size_t at = pfx + 8 * (size_t)first + (size_t)k * group + row - first;
                assert_int_equal(packed[at], raw.ptr[pfx + 8 * (size_t)row + k]);
            }
        }
        assert_memory_equal(packed, raw.ptr, pfx);
        pfx += 8 * (size_t)counts[i];
        assert_memory_equal(packed + pfx, raw.ptr + pfx, raw.len - pfx);
        free(packed);
    }
    buf_fini(&raw);
    buf_fini(&out);
}

static enum block_codec
codec_chosen(const uint8_t *ptr, size_t len, enum block_codec wish, size_t *stored_len_out)
{
    struct buf out;
    struct block_stored stored;
    buf_init(&out, &mem_default);
    assert_int_equal(block_store(bytes_make(ptr, len), BLOCK_FILTER, wish, SEGMENT_ID, FILE_OFFSET, &out),
                     ESKER_OK);
    assert_int_equal(block_stored_open(buf_bytes(&out), BLOCK_FILTER, SEGMENT_ID, FILE_OFFSET, &stored),
                     ESKER_OK);
    uint8_t *back = malloc(len + 1);
    assert_non_null(back);
    assert_int_equal(stored.raw_len, len);
    assert_int_equal(block_stored_unpack(&stored, &mem_default, back), ESKER_OK);
    assert_memory_equal(back, ptr, len);
    free(back);
    *stored_len_out = out.len;
    buf_fini(&out);
    return stored.codec;
}

static void
block_store__stores_raw_where_compression_does_not_pay(void **state)
{
    (void)state;
    struct rng rng = {.state = 9};
    size_t room = 4 << 20, stored_len;
    uint8_t *bytes = calloc(1, room);
    assert_non_null(bytes);
    for (uint32_t c = 1; c < COUNTOF(codecs); c++) {
        for (size_t i = 0; i < 16384; i++) {
            bytes[i] = (uint8_t)rng_next(&rng);
        }
        assert_int_equal(codec_chosen(bytes, 16384, codecs[c], &stored_len), BLOCK_CODEC_NONE);
        assert_int_equal(stored_len, 16384 + BLOCK_TRAILER_BYTES);
        assert_int_equal(codec_chosen(bytes, 0, codecs[c], &stored_len), BLOCK_CODEC_NONE);
        assert_int_equal(codec_chosen(bytes, 1, codecs[c], &stored_len), BLOCK_CODEC_NONE);
        /* A sixteenth of zeros saves less than an eighth, a quarter saves more. */
        memset(bytes, 0, 1024);
        assert_int_equal(codec_chosen(bytes, 16384, codecs[c], &stored_len), BLOCK_CODEC_NONE);
        memset(bytes, 0, 4096);
        assert_int_equal(codec_chosen(bytes, 16384, codecs[c], &stored_len), codecs[c]);
        assert_true(stored_len <= 16384 - 16384 / 8 + BLOCK_TRAILER_BYTES);
        memset(bytes, 0, 16384);
    }
    /* 1 MiB of zeros may be a few bytes; 4 MiB may not claim so much of so little. */
    assert_int_equal(codec_chosen(bytes, 1 << 20, BLOCK_CODEC_ZSTD, &stored_len), BLOCK_CODEC_ZSTD);
    assert_true(stored_len < 4096);
    assert_int_equal(codec_chosen(bytes, room, BLOCK_CODEC_ZSTD, &stored_len), BLOCK_CODEC_NONE);
    free(bytes);
}

static void
block_stored__is_bound_to_its_place(void **state)
{
    (void)state;
    struct buf raw, out;
    struct block_stored stored = {.raw_len = 4711};
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    sample_block(20, &raw);
    assert_int_equal(block_store(buf_bytes(&raw), BLOCK_DATA, BLOCK_CODEC_LZ4, SEGMENT_ID, FILE_OFFSET, &out),
                     ESKER_OK);
    struct bytes bytes = buf_bytes(&out);
    assert_int_equal(block_stored_open(bytes, BLOCK_DATA, SEGMENT_ID + 1, FILE_OFFSET, &stored),
                     ESKER_CORRUPT);
    assert_int_equal(block_stored_open(bytes, BLOCK_DATA, SEGMENT_ID, FILE_OFFSET + 8, &stored),
                     ESKER_CORRUPT);
    assert_int_equal(block_stored_open(bytes, BLOCK_DATA, FILE_OFFSET, SEGMENT_ID, &stored), ESKER_CORRUPT);
    assert_int_equal(block_stored_open(bytes, BLOCK_INDEX, SEGMENT_ID, FILE_OFFSET, &stored), ESKER_CORRUPT);
    for (size_t cut = 0; cut < bytes.len; cut++) {
        assert_int_equal(load_stored(bytes_make(bytes.ptr, cut)), ESKER_CORRUPT);
        assert_int_equal(load_stored(bytes_make(bytes.ptr + cut + 1, bytes.len - cut - 1)), ESKER_CORRUPT);
    }
    assert_int_equal(stored.raw_len, 4711);
    assert_int_equal(block_stored_open(bytes, BLOCK_DATA, SEGMENT_ID, FILE_OFFSET, &stored), ESKER_OK);
    buf_fini(&raw);
    buf_fini(&out);
}

static void
block_stored__detects_every_changed_bit(void **state)
{
    (void)state;
    struct buf raw, out;
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    sample_block(20, &raw);
    for (uint32_t c = 0; c < COUNTOF(codecs); c++) {
        buf_clear(&out);
        assert_int_equal(block_store(buf_bytes(&raw), BLOCK_DATA, codecs[c], SEGMENT_ID, FILE_OFFSET, &out),
                         ESKER_OK);
        for (size_t bit = 0; bit < 8 * out.len; bit++) {
            out.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
            assert_int_equal(load_stored(buf_bytes(&out)), ESKER_CORRUPT);
            out.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        }
        assert_int_equal(load_stored(buf_bytes(&out)), ESKER_OK);
    }
    buf_fini(&raw);
    buf_fini(&out);
}

static void
block_stored__survives_forged_checksums(void **state)
{
    (void)state;
    struct buf raw, out;
    struct bytes whole;
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    sample_block(20, &raw);
    for (uint32_t c = 0; c < COUNTOF(codecs); c++) {
        buf_clear(&out);
        assert_int_equal(block_store(buf_bytes(&raw), BLOCK_DATA, codecs[c], SEGMENT_ID, FILE_OFFSET, &out),
                         ESKER_OK);
        whole = buf_bytes(&out);
        for (size_t at = 0; at < whole.len - 8; at++) {
            uint8_t good = out.ptr[at];
            for (uint32_t change = 1; change < 256; change = change * 2 + 1) {
                out.ptr[at] = (uint8_t)(good ^ change);
                rehash(out.ptr, whole.len);
                esker_status status = load_stored(whole);
                assert_true(status == ESKER_OK || status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
            }
            out.ptr[at] = good;
        }
        rehash(out.ptr, whole.len);
        assert_int_equal(load_stored(whole), ESKER_OK);
        /* The payload cut, the trailer moved up. */
        for (size_t cut = whole.len - BLOCK_TRAILER_BYTES; cut-- > 0;) {
            memmove(out.ptr + cut, out.ptr + cut + 1, BLOCK_TRAILER_BYTES);
            rehash(out.ptr, cut + BLOCK_TRAILER_BYTES);
            esker_status status = load_stored(bytes_make(out.ptr, cut + BLOCK_TRAILER_BYTES));
            assert_int_equal(status, ESKER_CORRUPT);
        }
    }
    buf_fini(&raw);
    buf_fini(&out);
}

static esker_status
open_forged(uint8_t *stored, size_t payload_len, uint32_t codec, uint32_t raw_len)
{
    struct block_stored out;
    uint8_t *trailer = stored + payload_len;
    memset(trailer, 0, BLOCK_TRAILER_BYTES);
    trailer[0] = (uint8_t)codec;
    trailer[1] = BLOCK_DATA;
    le32_store(trailer + 4, raw_len);
    rehash(stored, payload_len + BLOCK_TRAILER_BYTES);
    struct bytes bytes = bytes_make(stored, payload_len + BLOCK_TRAILER_BYTES);
    return block_stored_open(bytes, BLOCK_DATA, SEGMENT_ID, FILE_OFFSET, &out);
}

static void
block_stored__bounds_what_it_asks_memory_for(void **state)
{
    (void)state;
    uint8_t *stored = calloc(1, (1 << 20) + BLOCK_TRAILER_BYTES);
    assert_non_null(stored);
    for (uint32_t codec = BLOCK_CODEC_LZ4; codec <= BLOCK_CODEC_ZSTD; codec++) {
        assert_int_equal(open_forged(stored, 8, codec, 1 << 20), ESKER_OK);
        assert_int_equal(open_forged(stored, 8, codec, (1 << 20) + 1), ESKER_CORRUPT);
        assert_int_equal(open_forged(stored, 8192, codec, 8192 * 256), ESKER_OK);
        assert_int_equal(open_forged(stored, 8192, codec, 8192 * 256 + 1), ESKER_CORRUPT);
        assert_int_equal(open_forged(stored, 1 << 20, codec, BLOCK_RAW_MAX), ESKER_OK);
        assert_int_equal(open_forged(stored, 1 << 20, codec, BLOCK_RAW_MAX + 1), ESKER_CORRUPT);
        assert_int_equal(open_forged(stored, 8, codec, 0), ESKER_CORRUPT);
        assert_int_equal(open_forged(stored, 8, codec, UINT32_MAX), ESKER_CORRUPT);
    }
    assert_int_equal(open_forged(stored, 8, BLOCK_CODEC_NONE, 8), ESKER_OK);
    assert_int_equal(open_forged(stored, 8, BLOCK_CODEC_NONE, 7), ESKER_CORRUPT);
    assert_int_equal(open_forged(stored, 8, BLOCK_CODEC_NONE, 9), ESKER_CORRUPT);
    assert_int_equal(open_forged(stored, 8, 3, 8), ESKER_UNSUPPORTED);
    assert_int_equal(open_forged(stored, 8, 255, 8), ESKER_UNSUPPORTED);
    free(stored);
}

static void
block_stored__unpacks_to_the_length_it_says_or_not_at_all(void **state)
{
    (void)state;
    struct buf raw, out;
    struct block_stored stored;
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    sample_block(60, &raw);
    uint8_t *back = malloc(raw.len + 8);
    assert_non_null(back);
    for (uint32_t c = 1; c < COUNTOF(codecs); c++) {
        buf_clear(&out);
        assert_int_equal(block_store(buf_bytes(&raw), BLOCK_DATA, codecs[c], SEGMENT_ID, FILE_OFFSET, &out),
                         ESKER_OK);
        uint8_t *trailer = out.ptr + out.len - BLOCK_TRAILER_BYTES;
        for (uint32_t len = (uint32_t)raw.len - 8; len <= raw.len + 8; len++) {
            le32_store(trailer + 4, len);
            rehash(out.ptr, out.len);
            assert_int_equal(open_stored(&out, &stored), ESKER_OK);
            assert_int_equal(stored.codec, codecs[c]);
            esker_status want = len == raw.len ? ESKER_OK : ESKER_CORRUPT;
            assert_int_equal(block_stored_unpack(&stored, &mem_default, back), want);
        }
        le16_store(trailer + 2, 1);
        rehash(out.ptr, out.len);
        assert_int_equal(open_stored(&out, &stored), ESKER_UNSUPPORTED);
    }
    free(back);
    buf_fini(&raw);
    buf_fini(&out);
}

/* ---- Memory ---------------------------------------------------------------- */

static void
block_store__says_no_memory_and_changes_nothing(void **state)
{
    (void)state;
    struct buf raw;
    struct zstd_lease leases[2 * ZSTD_SEATS];
    buf_init(&raw, &mem_default);
    sample_block(50, &raw);
    uint32_t failures = 0;
    /* With every seat taken zstd asks the buffer's allocator. */
    for (uint32_t i = 0; i < COUNTOF(leases); i++) {
        assert_true(zstd_seat_take(i % 2 == 0 ? ZSTD_SEAT_PACK : ZSTD_SEAT_UNPACK, &mem_default, &leases[i]));
        assert_non_null(leases[i].seat);
    }
    for (uint32_t c = 0; c < COUNTOF(codecs); c++) {
        bool failed = true;
        for (uint32_t nth = 0; failed; nth++) {
            struct failing failing = {.calls_left = nth};
            struct mem mem = failing_mem(&failing);
            struct buf out;
            buf_init(&out, &mem);
            esker_status status =
                block_store(buf_bytes(&raw), BLOCK_DATA, codecs[c], SEGMENT_ID, FILE_OFFSET, &out);
            struct block_stored stored;
            uint8_t *back = malloc(raw.len);
            assert_non_null(back);
            if (status == ESKER_OK) {
                assert_int_equal(open_stored(&out, &stored), ESKER_OK);
                status = block_stored_unpack(&stored, &mem, back);
            } else {
                assert_int_equal(out.len, 0);
            }
            assert_int_equal(status, failing.failed ? ESKER_NO_MEMORY : ESKER_OK);
            free(back);
            buf_fini(&out);
            failed = failing.failed;
            failures += failed;
        }
    }
    assert_true(failures >= 6);
    for (uint32_t i = 0; i < COUNTOF(leases); i++) {
        zstd_seat_give(&leases[i], i % 3 != 0);
    }
    buf_fini(&raw);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_store__round_trips_with_each_codec),
        cmocka_unit_test(block_store__puts_the_bytes_of_prefixes_together),
        cmocka_unit_test(block_store__stores_raw_where_compression_does_not_pay),
        cmocka_unit_test(block_stored__is_bound_to_its_place),
        cmocka_unit_test(block_stored__detects_every_changed_bit),
        cmocka_unit_test(block_stored__survives_forged_checksums),
        cmocka_unit_test(block_stored__bounds_what_it_asks_memory_for),
        cmocka_unit_test(block_stored__unpacks_to_the_length_it_says_or_not_at_all),
        cmocka_unit_test(block_store__says_no_memory_and_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
