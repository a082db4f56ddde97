/* SPDX-License-Identifier: MIT */
/*
 * Goal: properties read back as written; what a later version adds is passed over;
 * changed and cut bytes are refused or read as something, inside their bounds.
 * Method: one set of properties with every bit changed and at every length, in
 * allocations of exact size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/endian.h"
#include "segment/segment_props.h"

#define assert_ok(expression) assert_int_equal((expression), ESKER_OK)

static const struct segment_props props_sample = {.writer = {(const uint8_t *)"1.2.3-test", 10},
                                                  .created_ns = 0x0123456789abcdefULL,
                                                  .compression = 2,
                                                  .block_bytes = 4096,
                                                  .key_bytes = UINT64_C(1) << 40,
                                                  .value_bytes = 77};

static void
props_encoded(struct buf *out)
{
    buf_init(out, &mem_default);
    assert_ok(segment_props_encode(&props_sample, out));
}

/* In an allocation of exact size. */
static esker_status
props_decode_exactly(const uint8_t *bytes, size_t len, struct segment_props *out)
{
    uint8_t *copy = malloc(len > 0 ? len : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, len);
    esker_status status = segment_props_decode(bytes_make(copy, len), out);
    if (status == ESKER_OK && out->writer.len > 0) {
        assert_true(out->writer.ptr >= copy && out->writer.ptr + out->writer.len <= copy + len);
        out->writer = bytes_make(bytes + (out->writer.ptr - copy), out->writer.len);
    }
    free(copy);
    return status;
}

static void
props__round_trip(void **state)
{
    (void)state;
    struct segment_props out;
    struct buf encoded;
    props_encoded(&encoded);
    assert_ok(props_decode_exactly(encoded.ptr, encoded.len, &out));
    assert_true(bytes_equal(out.writer, props_sample.writer));
    assert_true(out.created_ns == props_sample.created_ns && out.key_bytes == props_sample.key_bytes);
    assert_int_equal(out.compression, props_sample.compression);
    assert_int_equal(out.block_bytes, props_sample.block_bytes);
    assert_int_equal(out.value_bytes, props_sample.value_bytes);
    buf_fini(&encoded);
    assert_ok(segment_props_decode((struct bytes){0}, &out)); /* nothing depends on them */
    assert_int_equal(out.key_bytes, 0);
}

/* Only the checksum around them knows a changed number from the right one. */
static void
props__every_flip_and_cut_stays_inside(void **state)
{
    (void)state;
    struct segment_props out;
    struct buf encoded;
    props_encoded(&encoded);
    uint32_t refused = 0;
    for (size_t bit = 0; bit < 8 * encoded.len; bit++) {
        encoded.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        esker_status status = props_decode_exactly(encoded.ptr, encoded.len, &out);
        assert_true(status == ESKER_OK || status == ESKER_CORRUPT);
        refused += status != ESKER_OK;
        encoded.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    assert_true(refused > 6 * (16 + 30)); /* each field's two zero bytes, and most of its length */
    uint32_t whole = 0;
    for (size_t len = 0; len < encoded.len; len++) {
        esker_status status = props_decode_exactly(encoded.ptr, len, &out);
        assert_true(status == ESKER_OK || status == ESKER_CORRUPT);
        whole += status == ESKER_OK;
    }
    assert_int_equal(whole, 6); /* between two fields */
    buf_fini(&encoded);
}

static void
props__unknown_tags_are_passed_over(void **state)
{
    (void)state;
    static const uint8_t later[] = {99, 0, 0, 0, 3, 0, 0, 0, 'n', 'e', 'w', 0, 0, 0, 0, 0};
    struct segment_props out;
    struct buf encoded;
    props_encoded(&encoded);
    assert_ok(buf_append(&encoded, later, sizeof later));
    assert_ok(props_decode_exactly(encoded.ptr, encoded.len, &out));
    assert_true(bytes_equal(out.writer, props_sample.writer) && out.value_bytes == 77);
    buf_fini(&encoded);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(props__round_trip),
        cmocka_unit_test(props__every_flip_and_cut_stays_inside),
        cmocka_unit_test(props__unknown_tags_are_passed_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
