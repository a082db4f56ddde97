/* SPDX-License-Identifier: MIT */
/*
 * Goal: edits, manifest headers and CURRENT read back as written; everything
 * else is refused, at the right offset, without a leak.
 * Method: round trips, a table of hand-made fields, every flip and every cut
 * of a full edit, and an allocator that fails at the n-th call.
 */
#include "format/edit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/endian.h"
#include "base/hash.h"
#include "base/test_failing_mem.h"

static void
encode_sample(struct buf *body, bool is_snapshot)
{
    struct segment_meta segments[] = {
        {.id = 4,
         .size_bytes = 1000,
         .row_count = 10,
         .tombstone_count = 10,
         .min_lsn = 2,
         .max_lsn = 90,
         .level = 0,
         .expiring_count = 5,
         .expiry_first_ms = 77,
         .expiry_last_ms = UINT64_MAX,
         .tier_lsn = 95,
         .tier_id = 3,
         .min_key = bytes_make("aa", 2),
         .max_key = bytes_make("b", 1)},
        {.id = 5,
         .size_bytes = 70000,
         .row_count = 700,
         .max_lsn = 50,
         .level = 6,
         .min_key = bytes_make("k", 1)},
    };
    uint64_t drops[] = {1, 2, 3};
    uint64_t add_logs[] = {7};
    uint64_t drop_logs[] = {6, 8};
    struct edit edit = {
        .edit_no = 12,
        .prev_hash = 0xABCD,
        .is_snapshot = is_snapshot,
        .next_file_id = 99,
        .wal_min_gen = 3,
        .wal_min_lsn = 4096,
        .durable_lsn = 5000,
        .add_segments = segments,
        .add_segment_count = 2,
        .drop_segments = drops,
        .drop_segment_count = 3,
        .add_logs = add_logs,
        .add_log_count = 1,
        .drop_logs = drop_logs,
        .drop_log_count = 2,
    };
    buf_init(body, &mem_default);
    assert_int_equal(edit_encode(&edit, body), ESKER_OK);
}

static void
edit__round_trip(void **state)
{
    (void)state;
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        struct buf body;
        encode_sample(&body, snapshot != 0);
        assert_int_equal(body.len % 8, 0);
        struct edit edit;
        uint64_t offset = 0;
        assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_OK);
        assert_int_equal(edit.edit_no, 12);
        assert_int_equal(edit.prev_hash, 0xABCD);
        assert_int_equal(edit.is_snapshot, snapshot);
        assert_int_equal(edit.next_file_id, 99);
        assert_int_equal(edit.wal_min_gen, 3);
        assert_int_equal(edit.wal_min_lsn, 4096);
        assert_int_equal(edit.durable_lsn, 5000);
        assert_int_equal(edit.add_segment_count, 2);
        assert_int_equal(edit.add_segments[0].tombstone_count, 10);
        assert_int_equal(edit.add_segments[0].expiring_count, 5);
        assert_int_equal(edit.add_segments[0].expiry_first_ms, 77);
        assert_int_equal(edit.add_segments[0].expiry_last_ms, UINT64_MAX);
        assert_int_equal(edit.add_segments[1].expiring_count, 0);
        assert_int_equal(edit.add_segments[0].tier_lsn, 95);
        assert_int_equal(edit.add_segments[0].tier_id, 3);
        assert_int_equal(edit.add_segments[1].tier_id, 0);
        assert_true(bytes_equal(edit.add_segments[0].max_key, bytes_make("b", 1)));
        assert_int_equal(edit.add_segments[1].level, 6);
        assert_int_equal(edit.add_segments[1].max_key.len, 0);
        assert_int_equal(edit.drop_segment_count, 3);
        assert_int_equal(edit.drop_segments[2], 3);
        assert_int_equal(edit.add_logs[0], 7);
        assert_int_equal(edit.drop_logs[1], 8);

        struct buf again;
        buf_init(&again, &mem_default);
        assert_int_equal(edit_encode(&edit, &again), ESKER_OK);
        assert_true(bytes_equal(buf_bytes(&body), buf_bytes(&again)));
        buf_fini(&again);
        edit_fini(&edit, &mem_default);
        buf_fini(&body);
    }
}

static void
edit__every_flip_and_cut_is_refused_or_sane(void **state)
{
    (void)state;
    struct buf body;
    encode_sample(&body, true);
    for (size_t len = 0; len <= body.len; len++) {
        uint8_t *copy = test_malloc(MAX(len, (size_t)1));
        memcpy(copy, body.ptr, len);
        for (size_t bit = len < body.len ? len * 8 : 0; bit <= len * 8; bit++) {
            if (bit < len * 8) {
                copy[bit / 8] ^= (uint8_t)(1U << (bit % 8));
            }
            struct edit edit;
            uint64_t offset = UINT64_MAX;
            if (edit_decode(bytes_make(copy, len), &mem_default, &edit, &offset) == ESKER_OK) {
                edit_fini(&edit, &mem_default);
            } else {
                assert_true(offset <= len);
            }
            if (bit < len * 8) {
                copy[bit / 8] ^= (uint8_t)(1U << (bit % 8));
            }
        }
        test_free(copy);
    }
    buf_fini(&body);
}

/* ---- Hand-made fields ---------------------------------------------------- */

struct field {
    uint16_t tag, zero;
    uint32_t len;
    uint64_t words[12];
};

static void
put_field(struct buf *body, const struct field *field)
{
    assert_int_equal(buf_append_u16(body, field->tag), ESKER_OK);
    assert_int_equal(buf_append_u16(body, field->zero), ESKER_OK);
    assert_int_equal(buf_append_u32(body, field->len), ESKER_OK);
    uint32_t len = MIN(field->len, (uint32_t)sizeof field->words);
    assert_int_equal(buf_append(body, field->words, len), ESKER_OK);
    assert_int_equal(buf_pad(body, 8), ESKER_OK);
}

struct edit_case {
    const char *name;
    struct field field; /* behind EDIT_NO and PREV_HASH */
    esker_status status;
};

#define SEGMENT(id, size, rows, tombs, min_lsn, max_lsn, level_flags, klens, keys)                           \
    {                                                                                                        \
        6, 0, 72,                                                                                            \
        {                                                                                                    \
            id, size, rows, tombs, min_lsn, max_lsn, level_flags, klens, keys                                \
        }                                                                                                    \
    }

static const struct edit_case edit_cases[] = {
    {"second EDIT_NO", {1, 0, 8, {13}}, ESKER_CORRUPT},
    {"second PREV_HASH", {2, 0, 8, {13}}, ESKER_CORRUPT},
    {"good NEXT_FILE_ID", {3, 0, 8, {13}}, ESKER_OK},
    {"zero NEXT_FILE_ID", {3, 0, 8, {0}}, ESKER_CORRUPT},
    {"huge NEXT_FILE_ID", {3, 0, 8, {EDIT_NUMBER_MAX + 1}}, ESKER_CORRUPT},
    {"largest NEXT_FILE_ID", {3, 0, 8, {EDIT_NUMBER_MAX}}, ESKER_OK},
    {"huge generation", {4, 0, 16, {UINT64_MAX, 0}}, ESKER_CORRUPT},
    {"huge LSN", {4, 0, 16, {1, UINT64_MAX}}, ESKER_CORRUPT},
    {"huge segment dropped", {7, 0, 8, {UINT64_MAX}}, ESKER_CORRUPT},
    {"short NEXT_FILE_ID", {3, 0, 4, {13}}, ESKER_CORRUPT},
    {"reserved bits", {3, 1, 8, {13}}, ESKER_CORRUPT},
    {"long NEXT_FILE_ID", {3, 0, 16, {13, 1}}, ESKER_CORRUPT},
    {"good WAL_MIN", {4, 0, 16, {1, 0}}, ESKER_OK},
    {"zero generation", {4, 0, 16, {0, 4096}}, ESKER_CORRUPT},
    {"short WAL_MIN", {4, 0, 8, {1}}, ESKER_CORRUPT},
    {"zero durable", {5, 0, 8, {0}}, ESKER_CORRUPT},
    {"zero segment dropped", {7, 0, 8, {0}}, ESKER_CORRUPT},
    {"zero log added", {8, 0, 8, {0}}, ESKER_CORRUPT},
    {"zero log dropped", {9, 0, 8, {0}}, ESKER_CORRUPT},
    {"late SNAPSHOT", {10, 0, 0, {0}}, ESKER_CORRUPT},
    {"SNAPSHOT with a body", {10, 0, 8, {1}}, ESKER_CORRUPT},
    {"tag 0", {0, 0, 8, {1}}, ESKER_CORRUPT},
    {"unknown tag", {11, 0, 8, {1}}, ESKER_UNSUPPORTED},
    {"unknown tag to skip", {0x8011, 0, 8, {1}}, ESKER_OK},
    {"unknown empty tag to skip", {0x8011, 0, 0, {0}}, ESKER_OK},
    {"expiry of no segment", {0x8001, 0, 24, {1, 2, 3}}, ESKER_CORRUPT},
    {"tier of no segment", {0x8002, 0, 16, {9, 4}}, ESKER_CORRUPT},
    {"length of 4 GiB", {0x8011, 0, UINT32_MAX, {1}}, ESKER_CORRUPT},
    {"good segment", SEGMENT(4, 100, 10, 2, 1, 9, 6, 0x00010001, 0x6261), ESKER_OK},
    {"segment 0", SEGMENT(0, 100, 10, 2, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"no size", SEGMENT(4, 0, 10, 2, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"huge id", SEGMENT(UINT64_MAX, 100, 10, 2, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"huge size", SEGMENT(4, UINT64_MAX, 10, 2, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"huge row count", SEGMENT(4, 100, UINT64_MAX, 2, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"no rows", SEGMENT(4, 100, 0, 0, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"too many tombstones", SEGMENT(4, 100, 10, 11, 1, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"LSNs out of order", SEGMENT(4, 100, 10, 2, 10, 9, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"LSN beyond the end", SEGMENT(4, 100, 10, 2, 1, UINT64_MAX, 0, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"level 7", SEGMENT(4, 100, 10, 2, 1, 9, 7, 0x00010001, 0x6261), ESKER_CORRUPT},
    {"segment flags", SEGMENT(4, 100, 10, 2, 1, 9, 1ULL << 32, 0x00010001, 0x6261), ESKER_UNSUPPORTED},
    {"keys out of order", SEGMENT(4, 100, 10, 2, 1, 9, 0, 0x00010001, 0x6162), ESKER_CORRUPT},
    {"keys do not fit", SEGMENT(4, 100, 10, 2, 1, 9, 0, 0x00100001, 0x6261), ESKER_CORRUPT},
    {"bytes behind the keys", SEGMENT(4, 100, 10, 2, 1, 9, 0, 0x00000001, 0x6261), ESKER_CORRUPT},
    {"reserved word", SEGMENT(4, 100, 10, 2, 1, 9, 0, 0x100010001, 0x6261), ESKER_CORRUPT},
};

static void
edit__fields_one_by_one(void **state)
{
    (void)state;
    static const struct field edit_no = {1, 0, 8, {12}};
    static const struct field prev_hash = {2, 0, 8, {0}};
    for (size_t i = 0; i < COUNTOF(edit_cases); i++) {
        struct buf body;
        buf_init(&body, &mem_default);
        put_field(&body, &edit_no);
        put_field(&body, &prev_hash);
        struct field field = edit_cases[i].field;
        if (field.tag == 6) {
            field.len = 66; /* 64 fixed bytes, two keys of one byte; the rest of the word is padding */
        }
        put_field(&body, &field);
        struct edit edit;
        uint64_t offset = 0;
        esker_status status = edit_decode(buf_bytes(&body), &mem_default, &edit, &offset);
        if (status != edit_cases[i].status || (status != ESKER_OK && offset != 32)) {
            fail_msg("%s: %s at %u", edit_cases[i].name, esker_status_name(status), (unsigned)offset);
        }
        if (status == ESKER_OK) {
            edit_fini(&edit, &mem_default);
        }
        buf_fini(&body);
    }
}

/* What is said of a segment behind it: two fields, of which the last is judged. */
static void
edit__says_more_of_a_segment_right_behind_it(void **state)
{
    (void)state;

    static const struct {
        struct field first, second; /* tag 0: none */
        uint64_t level;
        esker_status status;
    } cases[] = {
        {{0x8002, 0, 16, {9, 4}}, {0}, 0, ESKER_OK},
        {{0x8001, 0, 24, {1, 2, 3}}, {0x8002, 0, 16, {9, 4}}, 0, ESKER_OK},
        {{0x8002, 0, 16, {EDIT_NUMBER_MAX, EDIT_NUMBER_MAX}}, {0}, 0, ESKER_OK},
        {{0x8002, 0, 16, {9, 4}}, {0}, 1, ESKER_CORRUPT}, /* level 0 alone has tiers */
        {{0x8002, 0, 16, {8, 4}}, {0}, 0, ESKER_CORRUPT}, /* below max_lsn */
        {{0x8002, 0, 16, {9, 0}}, {0}, 0, ESKER_CORRUPT}, /* no id */
        {{0x8002, 0, 16, {EDIT_NUMBER_MAX + 1, 4}}, {0}, 0, ESKER_CORRUPT},
        {{0x8002, 0, 16, {9, EDIT_NUMBER_MAX + 1}}, {0}, 0, ESKER_CORRUPT},
        {{0x8002, 0, 8, {9}}, {0}, 0, ESKER_CORRUPT},
        {{0x8002, 0, 24, {9, 4, 0}}, {0}, 0, ESKER_CORRUPT},
        {{0x8002, 0, 16, {9, 4}}, {0x8002, 0, 16, {9, 4}}, 0, ESKER_CORRUPT}, /* twice */
        {{0x8001, 0, 24, {1, 2, 3}}, {0x8001, 0, 24, {1, 2, 3}}, 0, ESKER_CORRUPT},
        {{0x8002, 0, 16, {9, 4}}, {0x8001, 0, 24, {1, 2, 3}}, 0, ESKER_CORRUPT}, /* the other way round */
        {{0x8011, 0, 8, {1}}, {0x8002, 0, 16, {9, 4}}, 0, ESKER_CORRUPT},        /* not right behind it */
    };

    static const struct field edit_no = {1, 0, 8, {12}};
    static const struct field prev_hash = {2, 0, 8, {0}};
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct field segment = SEGMENT(4, 100, 10, 2, 1, 9, cases[i].level, 0x00010001, 0x6261);
        struct buf body;
        buf_init(&body, &mem_default);
        put_field(&body, &edit_no);
        put_field(&body, &prev_hash);
        segment.len = 66;
        put_field(&body, &segment);
        put_field(&body, &cases[i].first);
        if (cases[i].second.tag != 0) {
            put_field(&body, &cases[i].second);
        }
        struct edit edit;
        uint64_t offset = 0;
        esker_status status = edit_decode(buf_bytes(&body), &mem_default, &edit, &offset);
        if (status != cases[i].status) {
            fail_msg("case %zu: %s at %u", i, esker_status_name(status), (unsigned)offset);
        }
        if (status == ESKER_OK) {
            edit_fini(&edit, &mem_default);
        }
        buf_fini(&body);
    }
}

static void
edit__needs_number_and_hash_and_clean_padding(void **state)
{
    (void)state;
    static const struct field edit_no = {1, 0, 8, {12}};
    static const struct field prev_hash = {2, 0, 8, {0}};
    struct buf body;
    struct edit edit;
    uint64_t offset;
    buf_init(&body, &mem_default);
    assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_CORRUPT);
    put_field(&body, &prev_hash);
    assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_CORRUPT);
    put_field(&body, &edit_no);
    assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_OK);
    edit_fini(&edit, &mem_default);
    assert_int_equal(buf_append_zeros(&body, 8), ESKER_OK);
    assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_OK);
    edit_fini(&edit, &mem_default);
    assert_int_equal(buf_append_zeros(&body, 8), ESKER_OK);
    assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_CORRUPT);
    assert_int_equal(offset, 32);

    static const struct field five_bytes = {0x8011, 0, 5, {0x0102030405}};
    body.len = 32;
    put_field(&body, &five_bytes);
    assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_OK);
    edit_fini(&edit, &mem_default);
    for (size_t pad = 45; pad < 48; pad++) {
        body.ptr[pad] = 1;
        assert_int_equal(edit_decode(buf_bytes(&body), &mem_default, &edit, &offset), ESKER_CORRUPT);
        body.ptr[pad] = 0;
    }
    buf_fini(&body);
}

/* ---- Memory -------------------------------------------------------------- */

static void
edit__each_failed_allocation_leaves_nothing(void **state)
{
    (void)state;
    struct buf body;
    encode_sample(&body, true);
    for (size_t n = 0; n < 4; n++) {
        struct failing failing = {.calls_left = n};
        struct mem mem = failing_mem(&failing);
        struct edit edit = {.edit_no = 4711};
        uint64_t offset;
        assert_int_equal(edit_decode(buf_bytes(&body), &mem, &edit, &offset), ESKER_NO_MEMORY);
        assert_int_equal(edit.edit_no, 4711);
    }
    buf_fini(&body);
}

/* ---- Bounds -------------------------------------------------------------- */

static void
edit_bound__long_keys_are_cut_conservatively(void **state)
{
    (void)state;
    uint8_t key[600];
    uint8_t lower[EDIT_KEY_BYTES_MAX];
    uint8_t upper[EDIT_KEY_BYTES_MAX];
    memset(key, 'x', sizeof key);
    assert_int_equal(edit_bound_lower(bytes_make(key, 600), lower), 256);
    assert_int_equal(edit_bound_upper(bytes_make(key, 600), upper), 256);
    assert_true(bytes_compare(bytes_make(lower, 256), bytes_make(key, 600)) < 0);
    assert_true(bytes_compare(bytes_make(upper, 256), bytes_make(key, 600)) > 0);
    assert_int_equal(upper[255], 'y');

    assert_int_equal(edit_bound_upper(bytes_make(key, 256), upper), 256);
    assert_memory_equal(upper, key, 256);

    memset(key + 10, 0xFF, sizeof key - 10);
    assert_int_equal(edit_bound_upper(bytes_make(key, 600), upper), 10);
    assert_true(bytes_compare(bytes_make(upper, 10), bytes_make(key, 600)) > 0);

    memset(key, 0xFF, sizeof key);
    assert_int_equal(edit_bound_upper(bytes_make(key, 600), upper), 0);
    assert_int_equal(edit_bound_upper(bytes_make(key, 256), upper), 256);
    assert_int_equal(edit_bound_lower(bytes_make(NULL, 0), lower), 0);
}

/* ---- The two headers ----------------------------------------------------- */

typedef void encode_fn(const struct file_head *head, uint8_t out[64]);
typedef esker_status decode_fn(struct bytes bytes, struct file_head *out);

static void
check_head(encode_fn *encode, decode_fn *decode, const char *magic)
{
    struct file_head head = {.number = 0x12345678};
    memset(head.uuid, 0x5A, sizeof head.uuid);
    uint8_t bytes[64];
    encode(&head, bytes);
    assert_memory_equal(bytes, magic, 8);
    struct file_head out;
    assert_int_equal(decode(bytes_make(bytes, 64), &out), ESKER_OK);
    assert_memory_equal(&head, &out, sizeof head);
    for (size_t bit = 0; bit < sizeof bytes * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        assert_int_equal(decode(bytes_make(bytes, 64), &out), ESKER_CORRUPT);
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    for (size_t len = 0; len < sizeof bytes; len++) {
        assert_int_equal(decode(bytes_make(bytes, len), &out), ESKER_CORRUPT);
    }

    static const struct {
        size_t offset;
        uint64_t value;
        esker_status status;
    } cases[] = {
        {8, MANIFEST_FORMAT + 1, ESKER_UNSUPPORTED},
        {8, MANIFEST_FORMAT - 1, ESKER_UNSUPPORTED},
        {8, MANIFEST_FORMAT | (1ULL << 32), ESKER_UNSUPPORTED},
        {32, 0, ESKER_CORRUPT},
        {32, 1ULL << 32, ESKER_CORRUPT},
        {40, 1, ESKER_CORRUPT},
        {48, 1, ESKER_CORRUPT},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        encode(&head, bytes);
        le64_store(bytes + cases[i].offset, cases[i].value);
        le64_store(bytes + 56, hash64(bytes, 56, 0));
        assert_int_equal(decode(bytes_make(bytes, 64), &out), cases[i].status);
    }
}

static void
manifest_header__only_what_was_written_is_read(void **state)
{
    (void)state;
    check_head(manifest_header_encode, manifest_header_decode, "ESKERMAN");
}

static void
current__only_what_was_written_is_read(void **state)
{
    (void)state;
    check_head(current_encode, current_decode, "ESKERCUR");
    uint8_t bytes[65] = {0};
    struct file_head head = {.number = 1};
    struct file_head out;
    current_encode(&head, bytes);
    assert_int_equal(current_decode(bytes_make(bytes, 65), &out), ESKER_CORRUPT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edit__round_trip),
        cmocka_unit_test(edit__every_flip_and_cut_is_refused_or_sane),
        cmocka_unit_test(edit__fields_one_by_one),
        cmocka_unit_test(edit__says_more_of_a_segment_right_behind_it),
        cmocka_unit_test(edit__needs_number_and_hash_and_clean_padding),
        cmocka_unit_test(edit__each_failed_allocation_leaves_nothing),
        cmocka_unit_test(edit_bound__long_keys_are_cut_conservatively),
        cmocka_unit_test(manifest_header__only_what_was_written_is_read),
        cmocka_unit_test(current__only_what_was_written_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
