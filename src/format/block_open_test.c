/* SPDX-License-Identifier: MIT */
/*
 * Goal: block_open lets nothing pass that a reader could trip over.
 * Method: damage to every byte, hostile numbers in every field, and each rule
 * of block.h broken alone, with fingerprints put right so that only that rule
 * is in the way; in buffers of exact size so that ASan sees a step outside.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "format/block_layout.h"
#include "format/test_rows.h"

/* ---- Where things are -------------------------------------------------------- */

static struct block_layout
layout_of(const struct buf *raw)
{
    struct block_shape shape = block_shape_of(raw->ptr);
    return block_layout_of(&shape);
}

/* Of a block that is whole. */
static size_t
values_of(const struct buf *raw, enum block_kind kind)
{
    struct block block;
    assert_int_equal(block_open(buf_bytes(raw), kind, &block), ESKER_OK);
    return (size_t)(block.values - raw->ptr);
}

/* ---- Damage ---------------------------------------------------------------- */

/* Either refused, or a block whose accessors keep their promises. */
static esker_status
open_damaged(struct bytes damaged, enum block_kind kind)
{
    struct bytes bytes;
    struct block block = {.row_count = 12345};
    uint8_t *copy = test_exact_copy(damaged, &bytes);
    esker_status status = block_open(bytes, kind, &block);
    if (status == ESKER_OK) {
        test_block_sound(&block);
    } else {
        assert_true(status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
        assert_int_equal(block.row_count, 12345);
    }
    free(copy);
    return status;
}

static void
block_open__survives_any_changed_byte(void **state)
{
    (void)state;
    struct rng rng = {.state = 3};
    struct buf raw;
    buf_init(&raw, &mem_default);
    for (uint32_t style = 0; style < COUNTOF(test_key_styles); style++) {
        struct test_rows rows;
        test_random_rows(&rows, &test_key_styles[style], 1 + (uint32_t)rng_below(&rng, 12), &rng);
        test_rows_build(&rows, BLOCK_DATA, &raw);
        size_t values_at = values_of(&raw, BLOCK_DATA);
        for (size_t at = 0; at < raw.len; at++) {
            uint8_t good = raw.ptr[at];
            for (uint32_t change = 1; change < 256;
                 change = change < 8 || change > 248 ? change + 1 : change * 2 + 1) {
                raw.ptr[at] = (uint8_t)(good ^ change);
                esker_status status = open_damaged(buf_bytes(&raw), BLOCK_DATA);
                assert_true(at < values_at || status == ESKER_OK);
            }
            raw.ptr[at] = good;
        }
        assert_int_equal(open_damaged(buf_bytes(&raw), BLOCK_INDEX), ESKER_CORRUPT);
        assert_int_equal(open_damaged(buf_bytes(&raw), BLOCK_DATA), ESKER_OK);
        test_rows_fini(&rows);
    }
    buf_fini(&raw);
}

static void
block_open__refuses_every_other_length(void **state)
{
    (void)state;
    struct rng rng = {.state = 4};
    struct test_rows rows;
    struct buf raw;
    buf_init(&raw, &mem_default);
    test_random_rows(&rows, &test_key_styles[1], 20, &rng);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    size_t len = raw.len;
    for (size_t cut = 0; cut < len; cut++) {
        assert_int_equal(open_damaged(bytes_make(raw.ptr, cut), BLOCK_DATA), ESKER_CORRUPT);
        /* Also where the header agrees with the length. */
        if (cut >= BLOCK_HEADER_BYTES) {
            le32_store(raw.ptr + BLOCK_AT_RAW_LEN, (uint32_t)cut);
            assert_int_equal(open_damaged(bytes_make(raw.ptr, cut), BLOCK_DATA), ESKER_CORRUPT);
        }
    }
    le32_store(raw.ptr + BLOCK_AT_RAW_LEN, (uint32_t)len);
    assert_int_equal(buf_append_zeros(&raw, 1), ESKER_OK);
    assert_int_equal(open_damaged(buf_bytes(&raw), BLOCK_DATA), ESKER_CORRUPT);
    le32_store(raw.ptr + BLOCK_AT_RAW_LEN, (uint32_t)len + 1);
    assert_int_equal(open_damaged(buf_bytes(&raw), BLOCK_DATA), ESKER_CORRUPT);
    test_rows_fini(&rows);
    buf_fini(&raw);
}

static void
block_open__survives_hostile_numbers(void **state)
{
    (void)state;
    static const uint64_t hostile[] = {0,
                                       1,
                                       7,
                                       31,
                                       32,
                                       33,
                                       63,
                                       64,
                                       4095,
                                       4096,
                                       4097,
                                       32767,
                                       32768,
                                       32769,
                                       65535,
                                       65536,
                                       0x7fffffff,
                                       0x80000000,
                                       0xfffffff8,
                                       0xffffffff,
                                       0x7fffffffffffffff,
                                       0x8000000000000000,
                                       0xffffffff00000000,
                                       UINT64_MAX - 1,
                                       UINT64_MAX};
    struct rng rng = {.state = 5};
    struct buf raw;
    buf_init(&raw, &mem_default);
    for (uint32_t style = 0; style < COUNTOF(test_key_styles); style++) {
        struct test_rows rows;
        test_random_rows(&rows, &test_key_styles[style], 6, &rng);
        test_rows_build(&rows, BLOCK_INDEX, &raw);
        size_t values_at = values_of(&raw, BLOCK_INDEX);
        for (size_t at = 0; at + 8 <= values_at; at += 2) {
            uint64_t good = le64_load(raw.ptr + at);
            for (uint32_t i = 0; i < COUNTOF(hostile); i++) {
                for (size_t width = 2; width <= 8; width *= 2) {
                    memcpy(raw.ptr + at, &hostile[i], width);
                    (void)!open_damaged(buf_bytes(&raw), BLOCK_INDEX);
                    le64_store(raw.ptr + at, good);
                }
            }
        }
        test_rows_fini(&rows);
    }
    buf_fini(&raw);
}

/* ---- One rule at a time ------------------------------------------------------ */

/* Two rows whose bytes the test then changes. */
static void
two_rows(struct buf *raw, const char *first, const char *second)
{
    struct test_row at[] = {
        test_row_of(first, strlen(first), 9, ENTRY_PUT, "1"),
        test_row_of(second, strlen(second), 5, ENTRY_DELETE, ""),
    };
    struct test_rows rows = {.at = at, .count = 2};
    test_rows_build(&rows, BLOCK_DATA, raw);
}

static void
expect(const struct buf *raw, esker_status want)
{
    assert_int_equal(open_damaged(buf_bytes(raw), BLOCK_DATA), want);
}

static void
block_open__knows_what_a_later_format_may_use(void **state)
{
    (void)state;
    struct buf raw;
    buf_init(&raw, &mem_default);
    for (uint8_t version = 0; version < 8; version++) {
        two_rows(&raw, "abc", "abd");
        raw.ptr[BLOCK_AT_VERSION] = version;
        expect(&raw, version == BLOCK_VERSION ? ESKER_OK : ESKER_UNSUPPORTED);
    }
    for (uint32_t flag = 4; flag < 256; flag *= 2) {
        two_rows(&raw, "abc", "abd");
        raw.ptr[BLOCK_AT_FLAGS] |= (uint8_t)flag;
        expect(&raw, ESKER_UNSUPPORTED);
    }
    for (uint32_t bit = 0; bit < 32; bit++) {
        two_rows(&raw, "abc", "abd");
        le32_store(raw.ptr + BLOCK_AT_RESERVED, 1U << bit);
        expect(&raw, ESKER_UNSUPPORTED);
    }
    two_rows(&raw, "abc", "abd");
    raw.ptr[layout_of(&raw).types] = ENTRY_MERGE;
    expect(&raw, ESKER_UNSUPPORTED);
    two_rows(&raw, "abc", "abd"); /* whose value is too short to begin with an expiry */
    raw.ptr[layout_of(&raw).types] = ENTRY_PUT_EXPIRING;
    expect(&raw, ESKER_CORRUPT);
    buf_fini(&raw);
}

/* Three rows with tails and values of several lengths: every column is there. */
static void
three_rows(struct buf *raw)
{
    struct test_row at[] = {
        test_row_of("abc", 3, 900, ENTRY_PUT, "1"),
        test_row_of("abd12345678", 11, 5, ENTRY_PUT, "22"),
        test_row_of("abdefghijklmnopq", 16, 70000, ENTRY_DELETE, ""),
    };
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    test_rows_build(&rows, BLOCK_DATA, raw);
}

static void
block_open__wants_its_columns_where_they_belong(void **state)
{
    (void)state;
    static const size_t one_byte[] = {BLOCK_AT_FLAGS, BLOCK_AT_LSN_BYTES, BLOCK_AT_KOFF_BYTES,
                                      BLOCK_AT_VOFF_BYTES};
    struct buf raw;
    buf_init(&raw, &mem_default);
    /* Another width, another set of columns: what follows is not where it would be. */
    for (size_t i = 0; i < COUNTOF(one_byte); i++) {
        three_rows(&raw);
        uint8_t good = raw.ptr[one_byte[i]];
        for (uint32_t other = 0; other < 256; other++) {
            three_rows(&raw);
            raw.ptr[one_byte[i]] = (uint8_t)other;
            esker_status status = open_damaged(buf_bytes(&raw), BLOCK_DATA);
            /* The LSNs' bytes may be read otherwise, where the zeros allow it. */
            assert_true((status == ESKER_OK) == (other == good) || one_byte[i] == BLOCK_AT_LSN_BYTES);
        }
    }
    /* Lengths beside a column that says them. */
    three_rows(&raw);
    le16_store(raw.ptr + BLOCK_AT_TAIL_LEN, 1);
    expect(&raw, ESKER_CORRUPT);
    three_rows(&raw);
    le32_store(raw.ptr + BLOCK_AT_VALUE_LEN, 1);
    expect(&raw, ESKER_CORRUPT);
    three_rows(&raw);
    le32_store(raw.ptr + BLOCK_AT_RAW_LEN, (uint32_t)raw.len - 1);
    expect(&raw, ESKER_CORRUPT);
    le32_store(raw.ptr + BLOCK_AT_RAW_LEN, (uint32_t)raw.len + 1);
    expect(&raw, ESKER_CORRUPT);
    buf_fini(&raw);
}

static void
block_open__wants_offsets_that_begin_at_zero_and_ascend(void **state)
{
    (void)state;
    struct buf raw;
    buf_init(&raw, &mem_default);
    three_rows(&raw);
    struct block_layout at = layout_of(&raw);
    uint64_t columns[] = {at.koff, at.voff};
    for (size_t c = 0; c < COUNTOF(columns); c++) {
        for (uint32_t row = 0; row < 4; row++) {
            for (int32_t shift = -40; shift <= 40; shift++) {
                three_rows(&raw);
                uint8_t *offset = raw.ptr + columns[c] + 2 * (size_t)row;
                le16_store(offset, (uint16_t)(le16_load(offset) + shift));
                esker_status status = open_damaged(buf_bytes(&raw), BLOCK_DATA);
                /* Values may be cut elsewhere; nothing else may move. */
                assert_true(shift == 0 || status == ESKER_CORRUPT || (c == 1 && row > 0 && row < 3));
            }
        }
    }
    /* A gap that is not zero. */
    two_rows(&raw, "abc", "abd");
    raw.ptr[BLOCK_HEADER_BYTES + 2] = 1;
    expect(&raw, ESKER_CORRUPT);
    buf_fini(&raw);
}

static void
block_open__wants_equal_lengths_that_fill_the_block(void **state)
{
    (void)state;
    struct test_row at[] = {
        test_row_of("k12345678aaa", 12, 3, ENTRY_PUT, "four"),
        test_row_of("k12345678aab", 12, 2, ENTRY_PUT, "long"),
        test_row_of("k12345678aac", 12, 1, ENTRY_PUT, "rows"),
    };
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    struct buf raw;
    buf_init(&raw, &mem_default);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_KOFF_BYTES] + raw.ptr[BLOCK_AT_VOFF_BYTES], 0);
    uint32_t tail_len = le16_load(raw.ptr + BLOCK_AT_TAIL_LEN);
    uint32_t value_len = le32_load(raw.ptr + BLOCK_AT_VALUE_LEN);
    assert_int_equal(value_len, 4);
    for (uint32_t other = 0; other < 70000; other++) {
        le32_store(raw.ptr + BLOCK_AT_VALUE_LEN, other * 65521);
        assert_true(open_damaged(buf_bytes(&raw), BLOCK_DATA) == ESKER_CORRUPT);
        le32_store(raw.ptr + BLOCK_AT_VALUE_LEN, value_len);
        le16_store(raw.ptr + BLOCK_AT_TAIL_LEN, (uint16_t)other);
        assert_true((open_damaged(buf_bytes(&raw), BLOCK_DATA) == ESKER_OK) == ((uint16_t)other == tail_len));
        le16_store(raw.ptr + BLOCK_AT_TAIL_LEN, (uint16_t)tail_len);
    }
    buf_fini(&raw);
}

static void
block_open__wants_keys_that_agree_with_their_columns(void **state)
{
    (void)state;
    struct buf raw;
    buf_init(&raw, &mem_default);
    /* The fingerprint of another key. */
    two_rows(&raw, "abc", "abd");
    struct block_layout at = layout_of(&raw);
    raw.ptr[at.fp + 1]++;
    expect(&raw, ESKER_CORRUPT);
    /* pfx has a byte beyond plen. */
    two_rows(&raw, "abc", "abd");
    uint64_t pfx = le64_load(raw.ptr + at.pfx) + 1;
    le64_store(raw.ptr + at.pfx, pfx);
    raw.ptr[at.fp] = block_fingerprint(pfx, 1, NULL, 0);
    expect(&raw, ESKER_CORRUPT);
    /* An empty key. */
    two_rows(&raw, "a", "b");
    at = layout_of(&raw);
    raw.ptr[at.plen] = 0;
    le64_store(raw.ptr + at.pfx, 0);
    raw.ptr[at.fp] = block_fingerprint(0, 0, NULL, 0);
    expect(&raw, ESKER_CORRUPT);
    /* A tail behind a prefix that is not full, and a prefix that is more than full. */
    for (uint8_t plen = 0; plen <= 16; plen++) {
        two_rows(&raw, "a\1\1\1\1\1\1\1tail", "b");
        at = layout_of(&raw);
        raw.ptr[at.plen] = plen;
        pfx = plen < 8 ? ~(UINT64_MAX >> (8 * plen)) & le64_load(raw.ptr + at.pfx)
                       : le64_load(raw.ptr + at.pfx);
        le64_store(raw.ptr + at.pfx, pfx);
        raw.ptr[at.fp] = block_fingerprint(pfx, plen, raw.ptr + at.tails, 4);
        expect(&raw, plen == 8 ? ESKER_OK : ESKER_CORRUPT);
    }
    buf_fini(&raw);
}

static void
block_open__wants_rows_in_order(void **state)
{
    (void)state;
    struct buf raw;
    buf_init(&raw, &mem_default);
    two_rows(&raw, "abc", "abd");
    struct block_layout at = layout_of(&raw);
    uint8_t *pfx = raw.ptr + at.pfx, *fp = raw.ptr + at.fp, *lsns = raw.ptr + at.lsns;
    assert_int_equal(raw.ptr[BLOCK_AT_LSN_BYTES], 1);
    uint64_t c = le64_load(pfx), d = le64_load(pfx + 8);
    le64_store(pfx, d);
    le64_store(pfx + 8, c);
    fp[0] = block_fingerprint(d, 1, NULL, 0);
    fp[1] = block_fingerprint(c, 1, NULL, 0);
    expect(&raw, ESKER_CORRUPT);
    /* One key twice: legal only while the LSNs descend. */
    le64_store(pfx, c);
    fp[0] = fp[1];
    expect(&raw, ESKER_OK);
    lsns[0] = lsns[1];
    expect(&raw, ESKER_CORRUPT);
    lsns[1] = 7;
    expect(&raw, ESKER_CORRUPT);
    /* The sum of base and delta may not wrap. */
    two_rows(&raw, "abc", "abd");
    le64_store(raw.ptr + BLOCK_AT_LSN_BASE, UINT64_MAX - 4);
    expect(&raw, ESKER_OK);
    le64_store(raw.ptr + BLOCK_AT_LSN_BASE, UINT64_MAX - 3);
    expect(&raw, ESKER_CORRUPT);
    buf_fini(&raw);
}

static void
block_open__wants_a_base_only_where_it_is_used(void **state)
{
    (void)state;
    struct test_row at[] = {
        test_row_of("a", 1, UINT64_MAX - 1, ENTRY_PUT, ""),
        test_row_of("b", 1, 0, ENTRY_PUT, ""),
    };
    struct test_rows rows = {.at = at, .count = 2};
    struct buf raw;
    buf_init(&raw, &mem_default);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_LSN_BYTES], 8);
    expect(&raw, ESKER_OK);
    le64_store(raw.ptr + BLOCK_AT_LSN_BASE, 1);
    expect(&raw, ESKER_CORRUPT);
    at[0].lsn = 0;
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_LSN_BYTES], 0);
    le64_store(raw.ptr + BLOCK_AT_LSN_BASE, 12345);
    expect(&raw, ESKER_OK);
    raw.ptr[BLOCK_AT_LSN_BYTES] = 8;
    expect(&raw, ESKER_CORRUPT);
    le64_store(raw.ptr + BLOCK_AT_LSN_BASE, 0);
    expect(&raw, ESKER_CORRUPT);
    buf_fini(&raw);
}

/* ---- Limits ------------------------------------------------------------------ */

/* Rows that the builder would refuse: a common prefix of zeros, 8 bytes more
 * that count up from 1, and one value, all of it valid but for its size. */
static esker_status
open_forged(uint32_t row_count, uint32_t common_len, size_t value_len)
{
    struct block_shape shape = {.row_count = row_count, .common_len = common_len, .voff_bytes = 4};
    struct block_layout at = block_layout_of(&shape);
    size_t len = at.tails + value_len;
    uint8_t *raw = calloc(1, len);
    assert_non_null(raw);
    raw[BLOCK_AT_KIND] = BLOCK_DATA;
    raw[BLOCK_AT_VERSION] = BLOCK_VERSION;
    raw[BLOCK_AT_VOFF_BYTES] = 4;
    le16_store(raw + BLOCK_AT_ROWS, (uint16_t)row_count);
    le32_store(raw + BLOCK_AT_RAW_LEN, (uint32_t)len);
    le16_store(raw + BLOCK_AT_COMMON_LEN, (uint16_t)common_len);
    for (uint32_t i = 0; i < row_count; i++) {
        le64_store(raw + at.pfx + 8 * (size_t)i, i + 1);
        raw[at.fp + i] = block_fingerprint(i + 1, 8, NULL, 0);
        le32_store(raw + at.voff + 4 * (size_t)i + 4, (uint32_t)value_len);
    }
    struct block block;
    esker_status status = block_open(bytes_make(raw, len), BLOCK_DATA, &block);
    free(raw);
    return status;
}

static void
block_open__keeps_the_limits(void **state)
{
    (void)state;
    assert_int_equal(open_forged(BLOCK_ROWS_MAX, 0, 0), ESKER_OK);
    assert_int_equal(open_forged(BLOCK_ROWS_MAX + 1, 0, 0), ESKER_CORRUPT);
    assert_int_equal(open_forged(65535, 0, 0), ESKER_CORRUPT);
    assert_int_equal(open_forged(1, KEY_BYTES_MAX - 8, 0), ESKER_OK);
    assert_int_equal(open_forged(1, KEY_BYTES_MAX - 7, 0), ESKER_CORRUPT);
    assert_int_equal(open_forged(1, 65535, 0), ESKER_CORRUPT);
    size_t room =
        (size_t)BLOCK_RAW_MAX - block_layout_of(&(struct block_shape){.row_count = 2, .voff_bytes = 4}).tails;
    assert_int_equal(open_forged(2, 0, room), ESKER_OK);
    assert_int_equal(open_forged(2, 0, room + 1), ESKER_CORRUPT);
    assert_int_equal(open_forged(1, 0, VALUE_BYTES_MAX), ESKER_OK);
    assert_int_equal(open_forged(1, 0, VALUE_BYTES_MAX + 1), ESKER_CORRUPT);
    assert_int_equal(open_forged(1, KEY_BYTES_MAX - 8, VALUE_BYTES_MAX), ESKER_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_open__survives_any_changed_byte),
        cmocka_unit_test(block_open__refuses_every_other_length),
        cmocka_unit_test(block_open__survives_hostile_numbers),
        cmocka_unit_test(block_open__knows_what_a_later_format_may_use),
        cmocka_unit_test(block_open__wants_its_columns_where_they_belong),
        cmocka_unit_test(block_open__wants_offsets_that_begin_at_zero_and_ascend),
        cmocka_unit_test(block_open__wants_equal_lengths_that_fill_the_block),
        cmocka_unit_test(block_open__wants_keys_that_agree_with_their_columns),
        cmocka_unit_test(block_open__wants_rows_in_order),
        cmocka_unit_test(block_open__wants_a_base_only_where_it_is_used),
        cmocka_unit_test(block_open__keeps_the_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
