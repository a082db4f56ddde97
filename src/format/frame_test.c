/* SPDX-License-Identifier: MIT */
/*
 * Goal: a frame is valid exactly where and as it was sealed.
 * Method: seal small frames, then flip every bit, cut every length, move them,
 * and decode; the example in frame.h is checked byte for byte.
 */
#include "format/frame.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"

static const uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static uint64_t
sample(uint8_t frame[64], enum frame_type type, uint16_t back)
{
    uint64_t seed = frame_file_seed(uuid, 7);
    memset(frame, 0, 64);
    for (size_t i = 16; i < 48; i++) {
        frame[i] = (uint8_t)(i * 7);
    }
    frame_seal(frame, 48, type, back, seed, 34);
    return seed;
}

static void
frame__round_trip(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t seed = sample(bytes, FRAME_BATCH, 5);
    struct frame frame;
    assert_true(frame_decode(bytes_make(bytes, sizeof bytes), seed, 34, &frame));
    assert_int_equal(frame.len_bytes, 48);
    assert_int_equal(frame.type, FRAME_BATCH);
    assert_int_equal(frame.codec, 0);
    assert_int_equal(frame.back, 5);
    assert_int_equal(frame.body.len, 32);
    assert_ptr_equal(frame.body.ptr, bytes + 16);
    assert_int_equal(frame_peek(bytes, 48, seed, 34), 48);
    assert_int_equal(frame_peek(bytes, 47, seed, 34), 0);
}

static void
frame__example_of_the_header_comment(void **state)
{
    (void)state;
    uint8_t bytes[32] = {0};
    bytes[16] = 2;
    frame_seal(bytes, 32, FRAME_SYNCMARK, FRAME_BACK_NO_CLAIM, frame_file_seed(uuid, 7), 2);
    static const uint8_t expected[32] = {0x02, 0,    0,    0,    0x03, 0,    0xff, 0xff, 0x51,
                                         0xad, 0x80, 0x97, 0x51, 0x81, 0x46, 0xdc, 2};
    assert_memory_equal(bytes, expected, sizeof expected);
}

static void
frame__every_flipped_bit_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t seed = sample(bytes, FRAME_BATCH, 5);
    for (size_t bit = 0; bit < 48 * 8; bit++) {
        struct frame frame;
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        assert_false(frame_decode(bytes_make(bytes, sizeof bytes), seed, 34, &frame));
        bytes[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
}

static void
frame__every_truncation_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t seed = sample(bytes, FRAME_BATCH, 5);
    for (size_t len = 0; len < 48; len++) {
        /* A heap copy of exactly that length lets the sanitizer see any read beyond. */
        uint8_t *copy = test_malloc(MAX(len, (size_t)1));
        memcpy(copy, bytes, len);
        struct frame frame;
        assert_false(frame_decode(bytes_make(copy, len), seed, 34, &frame));
        test_free(copy);
    }
}

static void
frame__another_place_number_or_database_is_refused(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t seed = sample(bytes, FRAME_BATCH, 5);
    struct frame frame;
    uint8_t other[16];
    memcpy(other, uuid, sizeof other);
    other[3] ^= 1;
    assert_false(frame_decode(bytes_make(bytes, 64), seed, 36, &frame));
    assert_false(frame_decode(bytes_make(bytes, 64), frame_file_seed(uuid, 8), 34, &frame));
    assert_false(frame_decode(bytes_make(bytes, 64), frame_file_seed(other, 7), 34, &frame));
}

static void
frame__pad_does_not_depend_on_what_it_skips(void **state)
{
    (void)state;
    uint8_t bytes[64];
    uint64_t seed = sample(bytes, FRAME_PAD, FRAME_BACK_NO_CLAIM);
    struct frame frame;
    memset(bytes + 16, 0xA5, 32);
    assert_true(frame_decode(bytes_make(bytes, 64), seed, 34, &frame));
    assert_int_equal(frame.len_bytes, 48);
    assert_int_equal(frame.body.len, 0);
    assert_false(frame_decode(bytes_make(bytes, 47), seed, 34, &frame));
}

static void
frame__shortest_is_one_granule(void **state)
{
    (void)state;
    uint8_t bytes[16] = {0};
    struct frame frame;
    assert_false(frame_decode(bytes_make(bytes, 16), 1, 0, &frame));
    frame_seal(bytes, 16, FRAME_BATCH, FRAME_BACK_NO_CLAIM, 1, 0);
    assert_true(frame_decode(bytes_make(bytes, 16), 1, 0, &frame));
    assert_int_equal(frame.body.len, 0);
}

static void
frame__head_check_refuses_what_only_looks_like_a_header(void **state)
{
    (void)state;
    /* PUT entries of one byte each double as headers of long BATCH frames. */
    struct rng rng = {.state = 5};
    unsigned passed = 0;
    for (uint64_t granule = 0; granule < 100000; granule++) {
        uint8_t bytes[16] = {1, 0, 1, 0, 1, 0, 0, 0};
        le64_store(bytes + 8, rng_next(&rng));
        passed += frame_peek(bytes, UINT64_MAX, 99, granule * 2) != 0;
    }
    assert_true(passed <= 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame__round_trip),
        cmocka_unit_test(frame__example_of_the_header_comment),
        cmocka_unit_test(frame__every_flipped_bit_is_refused),
        cmocka_unit_test(frame__every_truncation_is_refused),
        cmocka_unit_test(frame__another_place_number_or_database_is_refused),
        cmocka_unit_test(frame__pad_does_not_depend_on_what_it_skips),
        cmocka_unit_test(frame__shortest_is_one_granule),
        cmocka_unit_test(frame__head_check_refuses_what_only_looks_like_a_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
