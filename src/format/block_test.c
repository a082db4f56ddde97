/* SPDX-License-Identifier: MIT */
/*
 * Goal: blocks give back what went in, answer seeks and finds as a sorted
 * array does.
 * Method: seeded random blocks of awkward keys against the model of
 * test_rows.h, in buffers of exact size so that ASan sees a step outside.
 */
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdarg.h>
#include <cmocka.h>

#include "format/block_layout.h"
#include "format/test_rows.h"

static void
block__round_trips_and_answers_like_the_model(void **state)
{
    (void)state;
    struct rng rng = {.state = 1};
    struct buf raw;
    buf_init(&raw, &mem_default);
    for (uint32_t round = 0; round < 400; round++) {
        struct test_rows rows;
        const struct test_key_style *style = &test_key_styles[round % COUNTOF(test_key_styles)];
        test_random_rows(&rows, style, 1 + (uint32_t)rng_below(&rng, round % 50 == 49 ? 700 : 90), &rng);
        test_rows_build(&rows, BLOCK_DATA, &raw);
        struct bytes bytes;
        uint8_t *copy = test_exact_copy(buf_bytes(&raw), &bytes);
        struct block block;
        assert_int_equal(block_open(bytes, BLOCK_DATA, &block), ESKER_OK);
        test_rows_equal(&rows, &block);
        test_block_sound(&block);
        for (uint32_t i = 0; i < rows.count; i++) {
            test_rows_probe_around(&rows, &block, rows.at[i].key, rows.at[i].lsn, &rng);
            test_rows_probe(&rows, &block, test_random_key(&rows, style, &rng),
                            1 + rng_below(&rng, style->lsn_range));
        }
        test_rows_probe(&rows, &block, bytes_make("", 0), UINT64_MAX);
        test_rows_probe(&rows, &block, bytes_make(NULL, 0), UINT64_MAX);
        free(copy);
        test_rows_fini(&rows);
    }
    buf_fini(&raw);
}

/* Builds, opens and asks for every row and what lies around it. */
static void
check_rows(struct test_rows *rows)
{
    struct rng rng = {.state = 77};
    struct buf raw;
    struct bytes bytes;
    struct block block;
    buf_init(&raw, &mem_default);
    test_rows_build(rows, BLOCK_DATA, &raw);
    uint8_t *copy = test_exact_copy(buf_bytes(&raw), &bytes);
    assert_int_equal(block_open(bytes, BLOCK_DATA, &block), ESKER_OK);
    test_rows_equal(rows, &block);
    test_block_sound(&block);
    for (uint32_t i = 0; i < rows->count; i++) {
        test_rows_probe_around(rows, &block, rows->at[i].key, rows->at[i].lsn, &rng);
    }
    free(copy);
    buf_fini(&raw);
}

static void
block__keeps_apart_keys_that_differ_in_length_only(void **state)
{
    (void)state;
    struct test_row at[] = {
        test_row_of("\0", 1, 5, ENTRY_PUT, ""),
        test_row_of("\0\0", 2, 5, ENTRY_PUT, "a"),
        test_row_of("k", 1, 9, ENTRY_DELETE, ""),
        test_row_of("k", 1, 8, ENTRY_PUT, "b"),
        test_row_of("k\0", 2, 9, ENTRY_PUT, "c"),
        test_row_of("k\0\0\0\0\0\0", 7, 1, ENTRY_PUT, "d"),
        test_row_of("k\0\0\0\0\0\0\0", 8, 1, ENTRY_PUT, "e"),
        test_row_of("k\0\0\0\0\0\0\0\0", 9, 1, ENTRY_PUT, "f"),
        test_row_of("k\0\0\0\0\0\0\0\0", 9, 0, ENTRY_PUT, "f"),
        test_row_of("k\0\0\0\0\0\0\0\0\0", 10, 1, ENTRY_PUT, "g"),
        test_row_of("k\0\0\0\0\0\0\0\1", 9, 1, ENTRY_PUT, "g"),
        test_row_of("\377\377\377\377\377\377\377", 7, 3, ENTRY_PUT, "h"),
        test_row_of("\377\377\377\377\377\377\377\377", 8, 3, ENTRY_PUT, "i"),
        test_row_of("\377\377\377\377\377\377\377\377\377", 9, 3, ENTRY_PUT, "j"),
    };
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    check_rows(&rows);
    for (uint32_t from = 0; from < COUNTOF(at); from++) {
        for (uint32_t count = 1; from + count <= COUNTOF(at); count++) {
            rows = (struct test_rows){.at = at + from, .count = count};
            check_rows(&rows);
        }
    }
}

static void
block__takes_keys_of_32_kib(void **state)
{
    (void)state;
    uint8_t *long_key = malloc(2 * KEY_BYTES_MAX);
    assert_non_null(long_key);
    memset(long_key, 'a', 2 * KEY_BYTES_MAX);
    uint8_t *other = long_key + KEY_BYTES_MAX;
    other[KEY_BYTES_MAX - 1] = 'b';
    struct test_row at[] = {
        test_row_of(long_key, KEY_BYTES_MAX - 9, 1, ENTRY_PUT, "shorter"),
        test_row_of(long_key, KEY_BYTES_MAX - 1, 2, ENTRY_PUT, ""),
        test_row_of(long_key, KEY_BYTES_MAX, 4, ENTRY_PUT, "x"),
        test_row_of(long_key, KEY_BYTES_MAX, 3, ENTRY_DELETE, ""),
        test_row_of(other, KEY_BYTES_MAX, 1, ENTRY_PUT, "y"),
        test_row_of("b", 1, 1, ENTRY_PUT, "no common prefix"),
    };
    for (uint32_t from = 0; from < COUNTOF(at); from++) {
        for (uint32_t count = 1; from + count <= COUNTOF(at); count++) {
            struct test_rows rows = {.at = at + from, .count = count};
            check_rows(&rows);
        }
    }
    free(long_key);
}

static void
block__says_when_older_rows_may_follow(void **state)
{
    (void)state;
    struct test_row at[4096];
    for (uint32_t i = 0; i < COUNTOF(at); i++) {
        at[i] = test_row_of("one key", 7, 100000 - i, ENTRY_PUT, "");
    }
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    struct buf raw;
    struct block block;
    bool last = true;
    buf_init(&raw, &mem_default);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(block_open(buf_bytes(&raw), BLOCK_DATA, &block), ESKER_OK);
    struct bytes key = bytes_make("one key", 7);
    uint64_t oldest = at[4095].lsn;
    assert_int_equal(block_find(&block, key, oldest, &last), 4096);
    assert_true(last);
    assert_int_equal(block_find(&block, key, oldest + 1, &last), 4095);
    assert_false(last);
    assert_int_equal(block_find(&block, key, UINT64_MAX, &last), 0);
    assert_int_equal(block_find(&block, bytes_make("one kez", 7), oldest, &last), 4096);
    assert_false(last);
    assert_int_equal(block_seek(&block, key), 0);
    assert_int_equal(block_seek(&block, bytes_make("one key\0", 8)), 4096);
    buf_fini(&raw);
}

/* Behind the last fingerprint follow zeros that look like fingerprints of rows
 * which are not there; what stands where their keys would be is made to match. */
static void
block_find__ignores_rows_behind_the_last(void **state)
{
    (void)state;
    /* With 17 rows of full prefixes, row 18's pfx is koff[4..7], and where its tail would be zeros stand. */
    uint64_t tail_len = 1;
    while (block_fingerprint(tail_len * 0x0001000100010001, 8, NULL, 0) != 0) {
        tail_len++;
    }
    assert_in_range(tail_len, 1, KEY_BYTES_MAX - 8);
    struct test_row at[17];
    uint8_t *keys = calloc(COUNTOF(at), 8 + tail_len);
    assert_non_null(keys);
    for (uint32_t i = 0; i < COUNTOF(at); i++) {
        uint8_t *key = keys + i * (8 + tail_len);
        key[0] = (uint8_t)(0x10 + i);
        at[i] = (struct test_row){.key = bytes_make(key, i == 0 ? 8 + tail_len : 8), .op = ENTRY_PUT};
    }
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    struct buf raw;
    struct block block;
    buf_init(&raw, &mem_default);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(block_open(buf_bytes(&raw), BLOCK_DATA, &block), ESKER_OK);
    assert_int_equal(le64_load(block.pfx + 8 * 18), tail_len * 0x0001000100010001);
    assert_int_equal(le32_load(block.koff + 2 * 18), 0);
    uint64_t absent = __builtin_bswap64(tail_len * 0x0001000100010001);
    test_rows_probe(&rows, &block, bytes_make(&absent, 8), UINT64_MAX);
    buf_fini(&raw);
    free(keys);
}

static void
block__carries_a_value_beyond_64_mib_in_a_block_of_its_own(void **state)
{
    (void)state;
    size_t len = (size_t)BLOCK_RAW_MAX + 12345;
    uint8_t *value = malloc(len);
    assert_non_null(value);
    memset(value, 7, len);
    struct block_builder *builder = NULL;
    struct buf raw;
    struct block block;
    struct bytes big = bytes_make("big", 3), bigger = bytes_make("bigger", 6);
    buf_init(&raw, &mem_default);
    assert_int_equal(block_builder_create(&mem_default, BLOCK_DATA, &builder), ESKER_OK);
    assert_true(block_builder_fits(builder, big, 1, ENTRY_PUT, len, 1));
    assert_int_equal(block_builder_add(builder, big, 1, ENTRY_PUT, bytes_make(value, len)), ESKER_OK);
    assert_false(block_builder_fits(builder, bigger, 1, ENTRY_PUT, 0, SIZE_MAX));
    assert_int_equal(block_builder_finish(builder, &raw), ESKER_OK);
    assert_true(raw.len <= BLOCK_ONE_ROW_RAW_MAX);
    assert_int_equal(block_open(buf_bytes(&raw), BLOCK_DATA, &block), ESKER_OK);
    assert_true(bytes_equal(block_value(&block, 0), bytes_make(value, len)));
    block_builder_reset(builder);
    assert_int_equal(block_builder_add(builder, big, 1, ENTRY_PUT, bytes_make(value, 10)), ESKER_OK);
    assert_false(block_builder_fits(builder, bigger, 1, ENTRY_PUT, len, SIZE_MAX));
    assert_true(block_builder_fits(builder, bigger, 1, ENTRY_PUT, 1000, 2000));
    block_builder_destroy(builder);
    buf_fini(&raw);
    free(value);
}

/* ---- Format ---------------------------------------------------------------- */

static void
block__format_is_what_the_table_says(void **state)
{
    (void)state;
    /* clang-format off */
    static const uint8_t golden[] = {
        1, 2, 2, 0, 0x95, 0, 0, 0,                     /* kind, version, n, raw_len */
        4, 0, 3, 1, 2, 2, 0, 0,                        /* cpl, flags, bytes of LSNs, koff, voff; tail_len */
        0, 0, 0, 0, 0, 0, 0, 0,                        /* value_len, reserved */
        9, 0, 0, 0, 0, 0, 0, 0,                        /* lsn_base */
        'r', 'o', 'w', ':', 0, 0, 0, 0,                /* common prefix */
        0x14, 0x3a, 0, 0, 0, 0, 0, 0,                  /* fp */
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        '8', '7', '6', '5', '4', '3', '2', '1',        /* pfx */
        0, 0, 0, 0, 0, 0, 0, '2',
        8, 1, 0, 0, 0, 0, 0, 0,                        /* plen */
        0, 0, 5, 0, 5, 0, 0, 0,                        /* koff */
        0, 0, 5, 0, 5, 0, 0, 0,                        /* voff */
        0, 0xfe, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* LSNs 9 and 0x107 */
        1, 2, 0, 0, 0, 0, 0, 0,                        /* PUT, DELETE */
        ':', 't', 'a', 'i', 'l', 0, 0, 0,              /* key tails */
        'v', 'a', 'l', 'u', 'e',                       /* values */
    };
    /* clang-format on */
    struct test_row at[] = {
        test_row_of("row:12345678:tail", 17, 9, ENTRY_PUT, "value"),
        test_row_of("row:2", 5, 0x107, ENTRY_DELETE, ""),
    };
    struct test_rows rows = {.at = at, .count = COUNTOF(at)};
    struct buf raw;
    buf_init(&raw, &mem_default);
    test_rows_build(&rows, BLOCK_DATA, &raw);
    assert_int_equal(raw.len, sizeof golden);
    assert_memory_equal(raw.ptr, golden, sizeof golden);
    buf_fini(&raw);
}

static void
block_handle__round_trips(void **state)
{
    (void)state;
    struct block_handle handle = {.offset = 0x1122334455667788,
                                  .stored_len = 5,
                                  .row_count = 6,
                                  .raw_len = 7},
                        got;
    uint8_t raw[BLOCK_HANDLE_BYTES + 1] = {0};
    block_handle_encode(&handle, raw);
    assert_true(block_handle_decode(bytes_make(raw, BLOCK_HANDLE_BYTES), &got));
    assert_true(got.offset == handle.offset && got.stored_len == 5 && got.row_count == 6 && got.raw_len == 7);
    assert_false(block_handle_decode(bytes_make(raw, BLOCK_HANDLE_BYTES - 1), &got));
    assert_false(block_handle_decode(bytes_make(raw, BLOCK_HANDLE_BYTES + 1), &got));
    raw[20] = 1;
    assert_false(block_handle_decode(bytes_make(raw, BLOCK_HANDLE_BYTES), &got));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block__round_trips_and_answers_like_the_model),
        cmocka_unit_test(block__keeps_apart_keys_that_differ_in_length_only),
        cmocka_unit_test(block__takes_keys_of_32_kib),
        cmocka_unit_test(block__says_when_older_rows_may_follow),
        cmocka_unit_test(block_find__ignores_rows_behind_the_last),
        cmocka_unit_test(block__carries_a_value_beyond_64_mib_in_a_block_of_its_own),
        cmocka_unit_test(block__format_is_what_the_table_says),
        cmocka_unit_test(block_handle__round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
