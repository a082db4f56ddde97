/* SPDX-License-Identifier: MIT */
/*
 * Goal: the builder predicts the size of its block, refuses rows out of order,
 * keeps its contents when memory runs out; separators separate and are as
 * short as can be.
 * Method: random rows, sizes compared after every add; an allocator that fails
 * at the k-th call, for every k; all pairs of short keys against brute force.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/test_failing_mem.h"
#include "format/test_rows.h"

#include "format/block_layout.h"

/* ---- Sizes ----------------------------------------------------------------- */

static size_t
finished_bytes(struct block_builder *builder, struct buf *raw)
{
    assert_int_equal(block_builder_finish(builder, raw), ESKER_OK);
    struct block block;
    assert_int_equal(block_open(buf_bytes(raw), BLOCK_DATA, &block), ESKER_OK);
    return raw->len;
}

static void
block_builder__knows_its_size_before_and_after_each_add(void **state)
{
    (void)state;
    struct rng rng = {.state = 11};
    struct buf raw;
    struct block_builder *builder = NULL;
    buf_init(&raw, &mem_default);
    assert_int_equal(block_builder_create(&mem_default, BLOCK_DATA, &builder), ESKER_OK);
    for (uint32_t round = 0; round < 200; round++) {
        uint8_t key[64] = {0};
        size_t common = (size_t)rng_below(&rng, 30);
        bool long_keys = round % 3 == 0, fixed_lsn = round % 4 == 1, deletes = round % 5 == 2;
        uint64_t lsn_range = round % 2 == 0 ? 1000 : UINT64_MAX - 1;
        block_builder_reset(builder);
        assert_int_equal(block_builder_raw_bytes(builder), 0);
        for (uint32_t row = 0; row < 60; row++) {
            key[common] = (uint8_t)row;
            if (row == 59 && common > 0) {
                key[0] = 1; /* takes the common prefix away */
            }
            size_t len = common + 1 + (long_keys ? 8 : 0) + (size_t)rng_below(&rng, 20);
            uint64_t lsn = fixed_lsn ? 5 : rng_below(&rng, lsn_range);
            enum entry_op op = deletes && row % 7 == 6 ? ENTRY_DELETE : ENTRY_PUT;
            struct bytes value = bytes_make(key, op == ENTRY_PUT ? (size_t)rng_below(&rng, 64) : 0);
            size_t before = block_builder_raw_bytes(builder);
            struct bytes added = bytes_make(key, len);
            assert_int_equal(block_builder_add(builder, added, lsn, op, value), ESKER_OK);
            size_t bound = block_builder_raw_bytes(builder), real = finished_bytes(builder, &raw);
            assert_true(bound >= real && bound <= real + 8 * (size_t)(row + 1) + 8);
            assert_true(!long_keys || bound == real);
            assert_true(before == 0 || bound > 0);
        }
    }
    block_builder_destroy(builder);
    buf_fini(&raw);
}

static void
block_builder__fits_is_the_size_with_the_row(void **state)
{
    (void)state;
    struct block_builder *builder = NULL;
    assert_int_equal(block_builder_create(&mem_default, BLOCK_DATA, &builder), ESKER_OK);
    uint8_t key[1000] = {0};
    uint32_t rows = 0;
    for (uint32_t i = 0; i < 200; i++) {
        key[990] = (uint8_t)i;
        struct bytes next = bytes_make(key, sizeof key), value = bytes_make("1234567890", 10);
        bool fits = block_builder_fits(builder, next, 3 * i, ENTRY_PUT, value.len, 4096);
        /* A key that shares nothing would bring every key's 1000 bytes back. */
        bool other_fits = block_builder_fits(builder, bytes_make("\1", 1), 1, ENTRY_DELETE, 0, 4096);
        assert_true(rows == 0 || other_fits == (rows * 1000 + 100 < 4096));
        if (!fits) {
            break;
        }
        assert_int_equal(block_builder_add(builder, next, 3 * i, ENTRY_PUT, value), ESKER_OK);
        assert_true(block_builder_raw_bytes(builder) <= 4096);
        rows++;
    }
    assert_in_range(rows, 120, 140);
    block_builder_destroy(builder);
}

static void
build_pair(const char *first, uint64_t first_lsn, const char *second, uint64_t second_lsn, struct buf *raw)
{
    struct test_row at[] = {
        {.key = bytes_make(first, strlen(first)), .lsn = first_lsn, .op = ENTRY_PUT},
        {.key = bytes_make(second, strlen(second)), .lsn = second_lsn, .op = ENTRY_PUT},
    };
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    struct block block;
    test_rows_build(&rows, BLOCK_DATA, raw);
    assert_int_equal(block_open(buf_bytes(raw), BLOCK_DATA, &block), ESKER_OK);
    test_rows_equal(&rows, &block);
}

static void
block_builder__leaves_out_columns_that_say_nothing(void **state)
{
    (void)state;
    struct buf raw;
    buf_init(&raw, &mem_default);
    build_pair("common:12345678", 5, "common:22345678", 5, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_FLAGS], 0);
    assert_int_equal(raw.ptr[BLOCK_AT_LSN_BYTES], 0);
    assert_int_equal(raw.ptr[BLOCK_AT_KOFF_BYTES], 0);
    assert_int_equal(raw.ptr[BLOCK_AT_VOFF_BYTES], 0);
    assert_int_equal(raw.len, align_up(BLOCK_HEADER_BYTES + 7, 8) + 32 + 2 * 8);
    build_pair("common:1234567", 5, "common:22345678", 5, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_FLAGS], BLOCK_FLAG_PLEN);
    assert_int_equal(raw.ptr[BLOCK_AT_KOFF_BYTES], 0);
    build_pair("common:12345678", 5, "common:223456789", 5, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_FLAGS], 0);
    assert_int_equal(raw.ptr[BLOCK_AT_KOFF_BYTES], 2);
    buf_fini(&raw);
}

static void
block_builder__gives_lsns_the_bytes_they_need(void **state)
{
    (void)state;
    struct buf raw;
    buf_init(&raw, &mem_default);
    for (uint32_t bits = 0; bits <= 64; bits++) {
        uint64_t range = bits == 0 ? 0 : UINT64_MAX >> (64 - bits);
        build_pair("a", 0, "b", range, &raw);
        assert_int_equal(raw.ptr[BLOCK_AT_LSN_BYTES], (bits + 7) / 8);
        build_pair("a", UINT64_MAX, "b", UINT64_MAX - range, &raw);
        assert_int_equal(raw.ptr[BLOCK_AT_LSN_BYTES], (bits + 7) / 8);
    }
    buf_fini(&raw);
}

static void
check_offset_bytes(const struct test_row *at, uint32_t count, uint32_t koff_bytes, uint32_t voff_bytes)
{
    struct test_rows rows = {.at = (struct test_row *)(uintptr_t)at, .count = count};
    struct block block;
    struct buf raw;
    buf_init(&raw, &mem_default);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(raw.ptr[BLOCK_AT_KOFF_BYTES], koff_bytes);
    assert_int_equal(raw.ptr[BLOCK_AT_VOFF_BYTES], voff_bytes);
    assert_int_equal(block_open(buf_bytes(&raw), BLOCK_DATA, &block), ESKER_OK);
    test_rows_equal(&rows, &block);
    buf_fini(&raw);
}

static void
block_builder__gives_offsets_the_bytes_they_need(void **state)
{
    (void)state;
    uint8_t *bytes = calloc(1, UINT16_MAX);
    uint8_t *keys = calloc(3, KEY_BYTES_MAX);
    assert_true(bytes != NULL && keys != NULL);
    for (uint8_t i = 0; i < 3; i++) {
        keys[i * (size_t)KEY_BYTES_MAX] = (uint8_t)(i + 1); /* no common prefix: tails are all but 8 bytes */
    }
    for (size_t total = UINT16_MAX - 3; total <= (size_t)UINT16_MAX + 3; total++) {
        uint32_t wanted = total <= UINT16_MAX ? 2 : 4;
        const struct test_row values[] = {
            {.key = bytes_make("a", 1), .op = ENTRY_PUT, .value = bytes_make(bytes, 5)},
            {.key = bytes_make("b", 1), .op = ENTRY_PUT, .value = bytes_make(bytes, total - 5)},
        };
        check_offset_bytes(values, COUNTOF(values), 0, wanted);
        size_t rest = 8 + total - 2 * (KEY_BYTES_MAX - 8);
        const struct test_row tails[] = {
            {.key = bytes_make(keys, KEY_BYTES_MAX), .op = ENTRY_PUT},
            {.key = bytes_make(keys + KEY_BYTES_MAX, rest), .op = ENTRY_PUT},
            {.key = bytes_make(keys + 2 * (size_t)KEY_BYTES_MAX, KEY_BYTES_MAX), .op = ENTRY_PUT},
        };
        check_offset_bytes(tails, COUNTOF(tails), wanted, 0);
    }
    free(bytes);
    free(keys);
}

static void
block_builder__takes_4096_rows(void **state)
{
    (void)state;
    struct block_builder *builder = NULL;
    struct buf raw;
    buf_init(&raw, &mem_default);
    assert_int_equal(block_builder_create(&mem_default, BLOCK_INDEX, &builder), ESKER_OK);
    for (uint32_t i = 0; i < BLOCK_ROWS_MAX; i++) {
        uint8_t key[4] = {0, 0, (uint8_t)(i >> 8), (uint8_t)i};
        struct bytes bytes = bytes_make(key, sizeof key);
        assert_true(block_builder_fits(builder, bytes, 0, ENTRY_PUT, 0, SIZE_MAX));
        assert_int_equal(block_builder_add(builder, bytes, 0, ENTRY_PUT, bytes_make(NULL, 0)), ESKER_OK);
    }
    assert_false(block_builder_fits(builder, bytes_make("b", 1), 0, ENTRY_PUT, 0, SIZE_MAX));
    assert_int_equal(block_builder_finish(builder, &raw), ESKER_OK);
    struct block block;
    assert_int_equal(block_open(buf_bytes(&raw), BLOCK_INDEX, &block), ESKER_OK);
    assert_int_equal(block.row_count, BLOCK_ROWS_MAX);
    block_builder_destroy(builder);
    buf_fini(&raw);
}

/* ---- Refusals -------------------------------------------------------------- */

static void
block_builder__refuses_rows_out_of_order(void **state)
{
    (void)state;

    static const struct {
        const char *key;
        size_t len;
        uint64_t lsn;
    } behind[] = {{"mm", 2, 10}, {"mm", 2, 11}, {"m", 1, 1},
                  {"l", 1, 1},   {"ml", 2, 1},  {"lmmmmmmmmmmmm", 13, 1}};
    struct block_builder *builder = NULL;
    struct buf raw;
    struct block block;
    buf_init(&raw, &mem_default);
    assert_int_equal(block_builder_create(&mem_default, BLOCK_DATA, &builder), ESKER_OK);
    struct bytes none = bytes_make(NULL, 0), key = bytes_make("mm", 2);
    assert_int_equal(block_builder_add(builder, key, 10, ENTRY_PUT, none), ESKER_OK);
    for (uint32_t i = 0; i < COUNTOF(behind); i++) {
        struct bytes wrong = bytes_make(behind[i].key, behind[i].len);
        assert_int_equal(block_builder_add(builder, wrong, behind[i].lsn, ENTRY_PUT, none), ESKER_CORRUPT);
    }
    assert_int_equal(block_builder_add(builder, key, 9, ENTRY_PUT, none), ESKER_OK);
    assert_int_equal(block_builder_add(builder, bytes_make("mm\0", 3), 99, ENTRY_PUT, none), ESKER_OK);
    assert_int_equal(block_builder_finish(builder, &raw), ESKER_OK);
    assert_int_equal(block_open(buf_bytes(&raw), BLOCK_DATA, &block), ESKER_OK);
    assert_int_equal(block.row_count, 3);
    block_builder_destroy(builder);
    buf_fini(&raw);
}

static void
block_builder__keeps_its_rows_when_memory_runs_out(void **state)
{
    (void)state;
    uint32_t failures = 0;
    bool failed = true;
    for (uint32_t nth = 0; failed; nth++) {
        struct failing failing = {.calls_left = nth};
        struct mem mem = failing_mem(&failing);
        struct block_builder *builder = NULL;
        struct buf raw;
        buf_init(&raw, &mem);
        esker_status status = block_builder_create(&mem, BLOCK_DATA, &builder);
        if (status != ESKER_OK) {
            assert_int_equal(status, ESKER_NO_MEMORY);
            assert_null(builder);
            assert_int_equal(block_builder_create(&mem, BLOCK_DATA, &builder), ESKER_OK);
        }
        for (uint32_t row = 0; row < 300; row++) {
            uint8_t key[40] = {(uint8_t)(row >> 8), (uint8_t)row};
            struct bytes bytes = bytes_make(key, sizeof key);
            status = block_builder_add(builder, bytes, row, ENTRY_PUT, bytes);
            if (status != ESKER_OK) {
                assert_int_equal(status, ESKER_NO_MEMORY);
                assert_int_equal(block_builder_row_count(builder), row);
                assert_int_equal(block_builder_add(builder, bytes, row, ENTRY_PUT, bytes), ESKER_OK);
            }
        }
        status = block_builder_finish(builder, &raw);
        if (status != ESKER_OK) {
            assert_int_equal(status, ESKER_NO_MEMORY);
            assert_int_equal(block_builder_finish(builder, &raw), ESKER_OK);
        }
        struct block block;
        assert_int_equal(block_open(buf_bytes(&raw), BLOCK_DATA, &block), ESKER_OK);
        assert_int_equal(block.row_count, 300);
        block_builder_destroy(builder);
        buf_fini(&raw);
        failed = failing.failed;
        failures += failed;
    }
    assert_true(failures >= 5);
}

/* ---- Separators ------------------------------------------------------------ */

enum { SEPARATOR_LEN_MAX = 4, SEPARATOR_KEYS_MAX = 4 + 16 + 64 + 256 };

struct short_key {
    uint8_t bytes[SEPARATOR_LEN_MAX];
    size_t len;
};

/* All keys of up to 4 bytes out of an alphabet that has both ends and neighbours. */
static uint32_t
short_keys(struct short_key *keys)
{
    static const uint8_t alphabet[] = {0x00, 0x61, 0x62, 0xff};
    uint32_t count = 0;
    for (size_t len = 1; len <= SEPARATOR_LEN_MAX; len++) {
        for (uint32_t code = 0; code < 1U << (2 * len); code++) {
            struct short_key *key = &keys[count++];
            key->len = len;
            for (size_t i = 0; i < len; i++) {
                key->bytes[i] = alphabet[(code >> (2 * i)) & 3];
            }
        }
    }
    return count;
}

/* Some key of this length is in [left, right): the least one >= left tells. */
static bool
some_key_between(struct bytes left, struct bytes right, size_t len)
{
    uint8_t least[SEPARATOR_LEN_MAX];
    memcpy(least, left.ptr, MIN(len, left.len));
    if (len < left.len) {
        size_t at = len;
        while (at > 0 && least[at - 1] == 0xff) {
            least[--at] = 0;
        }
        if (at == 0) {
            return false;
        }
        least[at - 1]++;
    }
    return right.len == 0 || bytes_compare(bytes_make(least, len), right) < 0;
}

static void
check_separator(struct bytes left, struct bytes right)
{
    uint8_t out[SEPARATOR_LEN_MAX + 1];
    size_t len = block_separator(left, right, out);
    struct bytes got = bytes_make(out, len);
    assert_true(len >= 1 && len <= left.len && bytes_compare(left, got) <= 0);
    assert_true(len < left.len || bytes_equal(got, left));
    if (right.len > 0 && bytes_compare(left, right) >= 0) {
        assert_true(bytes_equal(got, left));
        return;
    }
    assert_true(right.len == 0 || bytes_compare(got, right) < 0);
    for (size_t shorter = 1; shorter < len; shorter++) {
        assert_false(some_key_between(left, right, shorter));
    }
}

static void
block_separator__is_the_shortest_key_between(void **state)
{
    (void)state;
    struct short_key *keys = calloc(SEPARATOR_KEYS_MAX, sizeof *keys);
    assert_non_null(keys);
    uint32_t count = short_keys(keys);
    assert_int_equal(count, SEPARATOR_KEYS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        struct bytes left = bytes_make(keys[i].bytes, keys[i].len);
        check_separator(left, bytes_make(NULL, 0));
        for (uint32_t j = 0; j < count; j++) {
            check_separator(left, bytes_make(keys[j].bytes, keys[j].len));
        }
    }
    free(keys);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_builder__knows_its_size_before_and_after_each_add),
        cmocka_unit_test(block_builder__fits_is_the_size_with_the_row),
        cmocka_unit_test(block_builder__leaves_out_columns_that_say_nothing),
        cmocka_unit_test(block_builder__gives_lsns_the_bytes_they_need),
        cmocka_unit_test(block_builder__gives_offsets_the_bytes_they_need),
        cmocka_unit_test(block_builder__takes_4096_rows),
        cmocka_unit_test(block_builder__refuses_rows_out_of_order),
        cmocka_unit_test(block_builder__keeps_its_rows_when_memory_runs_out),
        cmocka_unit_test(block_separator__is_the_shortest_key_between),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
