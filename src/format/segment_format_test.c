/* SPDX-License-Identifier: MIT */
/*
 * Goal: headers and footers come back as written, and nothing else passes: no
 * changed bit, no other file's, none with places or counts that cannot be.
 * Method: every bit of both changed; each rule broken alone under a checksum
 * that is right; hostile numbers in every field.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/endian.h"
#include "base/hash.h"
#include "format/segment_format.h"

enum { FILE_SIZE = 1 << 20, ID = 0x1234 };

static const uint8_t uuid[16] = "0123456789abcdef";

static struct segment_footer
sample_footer(void)
{
    struct segment_footer footer = {
        .root = {.offset = 1000000, .stored_len = 500, .raw_len = 900},
        .filter = {.offset = 1000500, .stored_len = 8224, .raw_len = 8192},
        .props = {.offset = 1008724, .stored_len = 100, .raw_len = 84},
        .row_count = 5000,
        .tombstone_count = 17,
        .min_lsn = 3,
        .max_lsn = 1ULL << 60,
        .filter_pages = 2,
        .filter_kind = SEGMENT_FILTER_SPLIT_BLOCK,
        .data_block_count = 60,
        .index_depth = 2,
        .data_raw_bytes = 5000000,
        .data_end = 990000,
        .id = ID,
    };
    memcpy(footer.uuid, uuid, sizeof uuid);
    return footer;
}

/* In an allocation of exact size. */
static esker_status
decode_bytes(const void *raw, size_t len, uint64_t file_size, struct segment_footer *out)
{
    uint8_t *copy = malloc(len + 1);
    assert_non_null(copy);
    memcpy(copy + 1, raw, len);
    esker_status status = segment_footer_decode(bytes_make(copy + 1, len), file_size, uuid, ID, out);
    free(copy);
    return status;
}

static esker_status
decode_footer(const struct segment_footer *footer)
{
    uint8_t raw[SEGMENT_FOOTER_BYTES];
    struct segment_footer out = {.row_count = 4711};
    segment_footer_encode(footer, raw);
    esker_status status = decode_bytes(raw, sizeof raw, FILE_SIZE, &out);
    assert_true(status == ESKER_OK || out.row_count == 4711);
    return status;
}

static void
rehash(uint8_t *raw)
{
    le64_store(raw + 176, hash64(raw, 176, ID));
}

static void
segment_footer__round_trips(void **state)
{
    (void)state;
    struct segment_footer footer = sample_footer(), out;
    uint8_t raw[SEGMENT_FOOTER_BYTES], again[SEGMENT_FOOTER_BYTES];
    segment_footer_encode(&footer, raw);
    assert_int_equal(decode_bytes(raw, sizeof raw, FILE_SIZE, &out), ESKER_OK);
    segment_footer_encode(&out, again);
    assert_memory_equal(raw, again, sizeof raw);
    assert_memory_equal(&out.root, &footer.root, sizeof out.root);
    assert_memory_equal(&out.filter, &footer.filter, sizeof out.filter);
    assert_memory_equal(&out.props, &footer.props, sizeof out.props);
    assert_true(out.row_count == 5000 && out.tombstone_count == 17 && out.min_lsn == 3);
    assert_true(out.max_lsn == 1ULL << 60 && out.filter_pages == 2 && out.filter_kind == 1);
    assert_true(out.data_block_count == 60 && out.index_depth == 2 && out.data_raw_bytes == 5000000);
    assert_true(out.data_end == 990000 && out.id == ID);
    assert_memory_equal(out.uuid, uuid, sizeof uuid);
    /* Where the table has them. */
    assert_memory_equal(raw + 184, "ESKEREND", 8);
    assert_int_equal(le64_load(raw), 1000000);
    assert_int_equal(le32_load(raw + 24), 8224);
    assert_int_equal(le64_load(raw + 80), 5000);
    assert_int_equal(le32_load(raw + 124), 2);
    assert_int_equal(le64_load(raw + 136), 990000);
    assert_int_equal(le32_load(raw + 168), SEGMENT_FORMAT);
}

static void
segment_footer__detects_every_changed_bit(void **state)
{
    (void)state;
    struct segment_footer footer = sample_footer(), out;
    uint8_t raw[SEGMENT_FOOTER_BYTES];
    segment_footer_encode(&footer, raw);
    for (size_t bit = 0; bit < 8 * sizeof raw; bit++) {
        raw[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        assert_int_equal(decode_bytes(raw, sizeof raw, FILE_SIZE, &out), ESKER_CORRUPT);
        raw[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    for (size_t len = 0; len < sizeof raw; len++) {
        assert_int_equal(decode_bytes(raw, len, FILE_SIZE, &out), ESKER_CORRUPT);
    }
    assert_int_equal(segment_footer_decode(bytes_make(raw, sizeof raw), FILE_SIZE, uuid, ID + 1, &out),
                     ESKER_CORRUPT);
    assert_int_equal(segment_footer_decode(bytes_make(raw, sizeof raw), FILE_SIZE, raw, ID, &out),
                     ESKER_CORRUPT);
    assert_int_equal(decode_bytes(raw, sizeof raw, FILE_SIZE, &out), ESKER_OK);
    /* The file is shorter than its handles say: down to their last byte it is fine. */
    uint64_t least = 1008724 + 100 + SEGMENT_FOOTER_BYTES;
    assert_int_equal(decode_bytes(raw, sizeof raw, least, &out), ESKER_OK);
    assert_int_equal(decode_bytes(raw, sizeof raw, least - 1, &out), ESKER_CORRUPT);
    for (uint64_t size = 0; size < 600; size++) {
        assert_int_equal(decode_bytes(raw, sizeof raw, size, &out), ESKER_CORRUPT);
    }
}

#define EXPECT_FOOTER(want, change)                                                                          \
    do {                                                                                                     \
        struct segment_footer f = sample_footer();                                                           \
        change;                                                                                              \
        assert_int_equal(decode_footer(&f), want);                                                           \
    } while (0)

static void
segment_footer__refuses_places_that_cannot_be(void **state)
{
    (void)state;
    uint64_t end = FILE_SIZE - SEGMENT_FOOTER_BYTES;
    EXPECT_FOOTER(ESKER_OK, (void)f);
    EXPECT_FOOTER(ESKER_OK, f.props = (struct segment_handle){0});
    EXPECT_FOOTER(ESKER_OK, f.filter = (struct segment_handle){0}; f.filter_pages = 0; f.filter_kind = 0);
    EXPECT_FOOTER(ESKER_CORRUPT, f.root = (struct segment_handle){0});
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter = (struct segment_handle){0});
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter_pages = 0);
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter_pages = 3);
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter.stored_len = 8208);
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter_pages = 2 + (1U << 20));
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter_pages = 0; f.filter.raw_len = 0);
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter_kind = 0);
    EXPECT_FOOTER(ESKER_UNSUPPORTED, f.filter_kind = 2);

    EXPECT_FOOTER(ESKER_OK, f.root.offset = f.data_end; f.data_end = f.root.offset);
    EXPECT_FOOTER(ESKER_CORRUPT, f.root.offset = f.data_end - 1);
    EXPECT_FOOTER(ESKER_CORRUPT, f.root.offset = UINT64_MAX);
    EXPECT_FOOTER(ESKER_CORRUPT, f.root.offset = UINT64_MAX - 499);
    EXPECT_FOOTER(ESKER_CORRUPT, f.root.stored_len = 501);
    EXPECT_FOOTER(ESKER_CORRUPT, f.root.stored_len = 16);
    EXPECT_FOOTER(ESKER_OK, f.root.stored_len = 17);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props.offset = 1000499);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props.offset = 1000500);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props.offset = 1008707);
    EXPECT_FOOTER(ESKER_CORRUPT, f.filter.offset = 1000499);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props.offset = 1000400);
    EXPECT_FOOTER(ESKER_OK, f.props.offset = 999900);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props.offset = 999901);
    EXPECT_FOOTER(ESKER_OK, f.props.offset = end - 100);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props.offset = end - 99);
    EXPECT_FOOTER(ESKER_CORRUPT, f.props = (struct segment_handle){.raw_len = 1});
    EXPECT_FOOTER(ESKER_CORRUPT, f.props = (struct segment_handle){.offset = 999999});

    EXPECT_FOOTER(ESKER_CORRUPT, f.data_end = 1000001);
    EXPECT_FOOTER(ESKER_CORRUPT, f.data_end = 63);
    EXPECT_FOOTER(ESKER_CORRUPT, f.data_end = 0);
    EXPECT_FOOTER(ESKER_CORRUPT, f.data_end = UINT64_MAX);
    EXPECT_FOOTER(ESKER_CORRUPT, f.data_end = end + 1);
}

static void
segment_footer__refuses_counts_that_cannot_be(void **state)
{
    (void)state;
    uint32_t most = (990000 - 64) / 24;
    EXPECT_FOOTER(ESKER_CORRUPT, f.index_depth = 0);
    EXPECT_FOOTER(ESKER_OK, f.index_depth = 1);
    EXPECT_FOOTER(ESKER_CORRUPT, f.index_depth = 3);
    EXPECT_FOOTER(ESKER_CORRUPT, f.data_block_count = 0);
    EXPECT_FOOTER(ESKER_OK, f.data_block_count = most; f.row_count = most);
    EXPECT_FOOTER(ESKER_CORRUPT, f.data_block_count = most + 1; f.row_count = most + 1);
    EXPECT_FOOTER(ESKER_CORRUPT, f.row_count = 59);
    EXPECT_FOOTER(ESKER_OK, f.row_count = 60);
    EXPECT_FOOTER(ESKER_OK, f.row_count = 60 * 4096);
    EXPECT_FOOTER(ESKER_CORRUPT, f.row_count = 60 * 4096 + 1);
    EXPECT_FOOTER(ESKER_CORRUPT, f.row_count = UINT64_MAX);
    EXPECT_FOOTER(ESKER_OK, f.tombstone_count = 5000);
    EXPECT_FOOTER(ESKER_CORRUPT, f.tombstone_count = 5001);
    EXPECT_FOOTER(ESKER_OK, f.min_lsn = f.max_lsn);
    EXPECT_FOOTER(ESKER_CORRUPT, f.min_lsn = f.max_lsn + 1);
}

static void
segment_footer__knows_what_a_later_format_may_use(void **state)
{
    (void)state;
    static const size_t reserved[] = {48, 56, 60, 64, 72, 79, 169, 172, 175};
    struct segment_footer footer = sample_footer(), out;
    uint8_t raw[SEGMENT_FOOTER_BYTES];
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        segment_footer_encode(&footer, raw);
        raw[reserved[i]] ^= 1;
        rehash(raw);
        assert_int_equal(decode_bytes(raw, sizeof raw, FILE_SIZE, &out), ESKER_UNSUPPORTED);
    }
}

static void
segment_footer__survives_hostile_numbers(void **state)
{
    (void)state;
    static const uint64_t hostile[] = {0,
                                       1,
                                       15,
                                       16,
                                       63,
                                       64,
                                       65,
                                       FILE_SIZE,
                                       0x7fffffff,
                                       0x80000000,
                                       0xfffffff0,
                                       UINT32_MAX,
                                       UINT64_MAX,
                                       1ULL << 63,
                                       UINT64_MAX - 191,
                                       UINT64_MAX - 500,
                                       FILE_SIZE - 192};
    struct segment_footer footer = sample_footer(), out;
    uint8_t raw[SEGMENT_FOOTER_BYTES], again[SEGMENT_FOOTER_BYTES];
    for (size_t at = 0; at < 176; at += 4) {
        for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
            for (size_t width = 4; width <= 8; width += 4) {
                segment_footer_encode(&footer, raw);
                memcpy(raw + at, &hostile[i], width);
                rehash(raw);
                if (decode_bytes(raw, sizeof raw, FILE_SIZE, &out) == ESKER_OK) {
                    segment_footer_encode(&out, again);
                    assert_memory_equal(raw, again, sizeof raw);
                }
            }
        }
    }
}

static void
segment_header__passes_only_its_own(void **state)
{
    (void)state;
    uint8_t raw[SEGMENT_HEADER_BYTES], other[16] = {0};
    segment_header_encode(uuid, ID, raw);
    assert_memory_equal(raw, "ESKERSEG", 8);
    assert_int_equal(segment_header_decode(bytes_make(raw, sizeof raw), uuid, ID), ESKER_OK);
    assert_int_equal(segment_header_decode(bytes_make(raw, sizeof raw), uuid, ID + 1), ESKER_CORRUPT);
    assert_int_equal(segment_header_decode(bytes_make(raw, sizeof raw), other, ID), ESKER_CORRUPT);
    for (size_t bit = 0; bit < 8 * sizeof raw; bit++) {
        raw[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        assert_int_equal(segment_header_decode(bytes_make(raw, sizeof raw), uuid, ID), ESKER_CORRUPT);
        le64_store(raw + 56, hash64(raw, 56, 0));
        bool later = bit / 8 >= 8 && bit / 8 < 16;
        esker_status want = bit / 8 >= 56 ? ESKER_OK : (later ? ESKER_UNSUPPORTED : ESKER_CORRUPT);
        assert_int_equal(segment_header_decode(bytes_make(raw, sizeof raw), uuid, ID), want);
        segment_header_encode(uuid, ID, raw);
    }
    for (size_t len = 0; len < sizeof raw; len++) {
        uint8_t *copy = malloc(len + 1);
        assert_non_null(copy);
        memcpy(copy, raw, len);
        assert_int_equal(segment_header_decode(bytes_make(copy, len), uuid, ID), ESKER_CORRUPT);
        free(copy);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segment_footer__round_trips),
        cmocka_unit_test(segment_footer__detects_every_changed_bit),
        cmocka_unit_test(segment_footer__refuses_places_that_cannot_be),
        cmocka_unit_test(segment_footer__refuses_counts_that_cannot_be),
        cmocka_unit_test(segment_footer__knows_what_a_later_format_may_use),
        cmocka_unit_test(segment_footer__survives_hostile_numbers),
        cmocka_unit_test(segment_header__passes_only_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
