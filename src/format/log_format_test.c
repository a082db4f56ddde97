/* SPDX-License-Identifier: MIT */
/*
 * Goal: log headers and batch entries read back as written; anything else is
 * refused with the right status.
 * Method: tables of bad fields re-sealed with a good checksum; every bit
 * flipped and every length cut of a small sample.
 */
#include "format/log_format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct log_header
sample_header(void)
{
    struct log_header header = {
        .gen = 9,
        .base_lsn = 65536,
        .cap_bytes = 262144,
        .prev_gen = 8,
        .prev_end_lsn = 65500,
        .durable_lsn = 1234,
        .manifest_no = 3,
        .edit_no = 77,
        .mount_id = 42,
    };
    for (size_t i = 0; i < 16; i++) {
        header.uuid[i] = (uint8_t)(i + 1);
        header.boot_id[i] = (uint8_t)(i + 100);
    }
    return header;
}

static void
log_header__round_trip(void **state)
{
    (void)state;
    uint8_t page[LOG_PAGE_BYTES];
    struct log_header in = sample_header();
    struct log_header out;
    bool unsupported = true;
    log_header_encode(&in, page);
    assert_true(log_header_decode(bytes_make(page, sizeof page), &out, &unsupported));
    assert_false(unsupported);
    assert_memory_equal(&in, &out, sizeof in);
    assert_memory_equal(page, "ESKERLOG", 8);
    assert_int_equal(le64_load(page + 32), 9);
    assert_int_equal(le64_load(page + 88), 77);
    for (size_t i = LOG_HEADER_FIELDS_BYTES; i < sizeof page; i++) {
        assert_int_equal(page[i], 0);
    }
}

static void
log_header__every_flip_and_cut_is_refused(void **state)
{
    (void)state;
    uint8_t page[LOG_PAGE_BYTES];
    struct log_header in = sample_header();
    struct log_header out;
    bool unsupported;
    log_header_encode(&in, page);
    for (size_t bit = 0; bit < (size_t)LOG_HEADER_FIELDS_BYTES * 8; bit++) {
        page[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        assert_false(log_header_decode(bytes_make(page, sizeof page), &out, &unsupported));
        assert_false(unsupported);
        page[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    for (size_t len = 0; len < LOG_HEADER_FIELDS_BYTES; len++) {
        assert_false(log_header_decode(bytes_make(page, len), &out, &unsupported));
    }
    assert_true(log_header_decode(bytes_make(page, LOG_HEADER_FIELDS_BYTES), &out, &unsupported));
}

struct header_case {
    const char *name;
    size_t offset;
    uint64_t value;
    bool unsupported;
};

static void
log_header__numbers_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    static const struct header_case cases[] = {
        {"version 2", 8, 2, true},
        {"feature bit", 8, LOG_FORMAT | (1ULL << 32), true},
        {"gen 0", 32, 0, false},
        {"huge gen", 32, LSN_MAX + 1, false},
        {"gen = prev_gen", 32, 8, false},
        {"odd base", 40, 65537, false},
        {"base beyond the end of LSNs", 40, UINT64_MAX - 1, false},
        {"no space", 48, 0, false},
        {"space not in pages", 48, 4097, false},
        {"space beyond the end of LSNs", 48, UINT64_MAX - 4095, false},
        {"prev_gen above gen", 56, 10, false},
        {"odd prev_end", 64, 65499, false},
        {"prev_end above base", 64, 65538, false},
        {"durable above base", 72, 65537, false},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        uint8_t page[LOG_PAGE_BYTES];
        struct log_header in = sample_header();
        struct log_header out;
        bool unsupported;
        log_header_encode(&in, page);
        le64_store(page + cases[i].offset, cases[i].value);
        le64_store(page + 120, hash64(page, 120, 0));
        if (log_header_decode(bytes_make(page, sizeof page), &out, &unsupported) ||
            unsupported != cases[i].unsupported) {
            fail_msg("%s", cases[i].name);
        }
    }
}

static void
entry__example_of_the_header_comment(void **state)
{
    (void)state;
    static const uint8_t expected[16] = {1, 0, 3, 0, 1, 0, 0, 0, 'a', 'b', 'c', 'x'};
    uint8_t bytes[16];
    memset(bytes, 0xEE, sizeof bytes);
    assert_int_equal(entry_size_bytes(3, 1), 16);
    entry_encode(bytes, ENTRY_PUT, bytes_make("abc", 3), bytes_make("x", 1));
    assert_memory_equal(bytes, expected, sizeof expected);
    assert_true(bytes_equal(entry_key_trusted(bytes), bytes_make("abc", 3)));
    assert_true(bytes_equal(entry_value_trusted(bytes), bytes_make("x", 1)));
    uint8_t expiring[24];
    static const uint8_t expect[24] = {5,    0,    3,    0,    9,    0,    0,    0,   'a', 'b', 'c', 0x88,
                                       0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 'x', 0,   0,   0,   0};
    assert_int_equal(entry_size_bytes(3, EXPIRY_BYTES + 1), sizeof expiring);
    memset(expiring, 0xEE, sizeof expiring);
    entry_encode_expiring(expiring, bytes_make("abc", 3), 0x1122334455667788, bytes_make("x", 1));
    assert_memory_equal(expiring, expect, sizeof expect);
    struct bytes value = entry_value_trusted(expiring);
    assert_int_equal(entry_expiry_ms(value), 0x1122334455667788);
    assert_true(bytes_equal(entry_expiring_value(value), bytes_make("x", 1)));
}

static void
entry__a_run_reads_back(void **state)
{
    (void)state;
    uint8_t body[64] = {0};
    entry_encode(body, ENTRY_PUT, bytes_make("abc", 3), bytes_make("0123456789", 10));
    entry_encode(body + 24, ENTRY_DELETE, bytes_make("k", 1), bytes_make(NULL, 0));
    entry_encode(body + 40, ENTRY_PUT, bytes_make("empty", 5), bytes_make(NULL, 0));
    struct entry entry;
    uint64_t offset = 0;
    struct bytes whole = bytes_make(body, sizeof body);
    assert_int_equal(entry_decode(whole, &offset, &entry), ESKER_OK);
    assert_int_equal(entry.op, ENTRY_PUT);
    assert_int_equal(entry.size_bytes, 24);
    assert_true(bytes_equal(entry.value, bytes_make("0123456789", 10)));
    assert_int_equal(entry_decode(whole, &offset, &entry), ESKER_OK);
    assert_int_equal(entry.op, ENTRY_DELETE);
    assert_int_equal(entry_decode(whole, &offset, &entry), ESKER_OK);
    assert_true(bytes_equal(entry.key, bytes_make("empty", 5)));
    assert_int_equal(offset, 56);
    assert_int_equal(entry_decode(whole, &offset, &entry), ESKER_END);
    assert_int_equal(offset, 56);
    assert_int_equal(entry_decode(bytes_make(body, 56), &offset, &entry), ESKER_END);
    assert_int_equal(entry_decode(bytes_make(body, 48), &offset, &entry), ESKER_CORRUPT);
}

struct entry_case {
    const char *name;
    uint64_t head; /* the 8 header bytes */
    size_t body_bytes;
    esker_status status;
};

static void
entry__bad_heads_are_refused(void **state)
{
    (void)state;
    static const struct entry_case cases[] = {
        {"merge is reserved", 0x0000000100030003, 64, ESKER_UNSUPPORTED},
        {"range delete is reserved", 0x0000000100030004, 64, ESKER_UNSUPPORTED},
        {"unknown op", 0x00000001000300FF, 64, ESKER_UNSUPPORTED},
        {"flags", 0x0000000100030101, 64, ESKER_UNSUPPORTED},
        {"empty key", 0x0000000100000001, 64, ESKER_CORRUPT},
        {"long key", 0x0000000080010001, 65536, ESKER_CORRUPT},
        {"key does not fit", 0x0000000000400001, 64, ESKER_CORRUPT},
        {"value does not fit", 0x0000004000010001, 64, ESKER_CORRUPT},
        {"value of 4 GiB", 0xFFFFFFFF00010001, 64, ESKER_CORRUPT},
        {"delete with a value", 0x0000000100010002, 64, ESKER_CORRUPT},
        {"expires but does not say when", 0x0000000700010005, 64, ESKER_CORRUPT},
        {"expires, of no bytes", 0x0000000800010005, 64, ESKER_OK},
        {"padding does not fit", 0x0000000100010001, 10, ESKER_CORRUPT},
        {"head does not fit", 0x0000000100010001, 7, ESKER_CORRUPT},
        {"end", 0, 64, ESKER_END},
        {"fits exactly", 0x0000000400040001, 16, ESKER_OK},
    };
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        uint8_t *body = test_calloc(1, MAX(cases[i].body_bytes, (size_t)8));
        le64_store(body, cases[i].head);
        struct entry entry;
        uint64_t offset = 0;
        esker_status status = entry_decode(bytes_make(body, cases[i].body_bytes), &offset, &entry);
        if (status != cases[i].status || (status != ESKER_OK && offset != 0)) {
            fail_msg("%s: %s", cases[i].name, esker_status_name(status));
        }
        test_free(body);
    }
}

static void
entry__every_flip_and_cut_stays_inside(void **state)
{
    (void)state;
    uint8_t body[40] = {0};
    entry_encode(body, ENTRY_PUT, bytes_make("abc", 3), bytes_make("0123456789", 10));
    entry_encode(body + 24, ENTRY_PUT, bytes_make("k", 1), bytes_make("v", 1));
    for (size_t len = 0; len <= sizeof body; len++) {
        for (size_t bit = 0; bit <= len * 8; bit++) {
            uint8_t *copy = test_malloc(MAX(len, (size_t)1));
            memcpy(copy, body, len);
            if (bit < len * 8) {
                copy[bit / 8] ^= (uint8_t)(1U << (bit % 8));
            }
            uint64_t offset = 0;
            struct entry entry;
            while (entry_decode(bytes_make(copy, len), &offset, &entry) == ESKER_OK) {
                assert_true(entry.key.ptr + entry.key.len <= copy + len);
                assert_true(entry.value.ptr + entry.value.len <= copy + len);
            }
            assert_true(offset <= len);
            test_free(copy);
        }
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_header__round_trip),
        cmocka_unit_test(log_header__every_flip_and_cut_is_refused),
        cmocka_unit_test(log_header__numbers_that_make_no_sense_are_refused),
        cmocka_unit_test(entry__example_of_the_header_comment),
        cmocka_unit_test(entry__a_run_reads_back),
        cmocka_unit_test(entry__bad_heads_are_refused),
        cmocka_unit_test(entry__every_flip_and_cut_stays_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
