/* SPDX-License-Identifier: MIT */
/*
 * Goal: any bytes become one line of harmless text and come back as they were;
 * what the encoders never write is refused.
 * Method: every byte, every pair of bytes, every code point, seeded random
 * bytes; tables of examples and of spellings that must fail. Buffers are of
 * exact size for ASan.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "tools/text_escape.h"
#include "tools/text_units.h"

static void
assert_bytes(const struct buf *buf, const void *ptr, size_t len)
{
    assert_int_equal(buf->len, len);
    assert_true(len == 0 || memcmp(buf->ptr, ptr, len) == 0);
}

static struct bytes
text(const char *string)
{
    return bytes_make(string, strlen(string));
}

/* A copy of exactly that size, so that a read past it is seen. */
static struct bytes
exact(const struct buf *buf, uint8_t **owned)
{
    *owned = malloc(buf->len == 0 ? 1 : buf->len);
    assert_non_null(*owned);
    if (buf->len > 0) {
        memcpy(*owned, buf->ptr, buf->len);
    }
    return bytes_make(*owned, buf->len);
}

static void
check_tsv(struct bytes raw, struct buf *line, struct buf *back)
{
    size_t bad_at = 0;
    uint8_t *owned = NULL;
    buf_clear(line);
    buf_clear(back);
    assert_int_equal(text_tsv_escape(line, raw), ESKER_OK);
    assert_true(text_is_utf8(buf_bytes(line)));
    for (size_t i = 0; i < line->len; i++) {
        assert_true(line->ptr[i] >= 0x20 && line->ptr[i] != 0x7f);
    }
    assert_int_equal(text_tsv_unescape(back, exact(line, &owned), &bad_at), ESKER_OK);
    assert_bytes(back, raw.ptr, raw.len);
    free(owned);
}

static void
check_base64(struct bytes raw, struct buf *line, struct buf *back)
{
    size_t bad_at = 0;
    uint8_t *owned = NULL;
    buf_clear(line);
    buf_clear(back);
    assert_int_equal(text_base64_encode(line, raw), ESKER_OK);
    assert_int_equal(line->len, (raw.len + 2) / 3 * 4);
    assert_int_equal(text_base64_decode(back, exact(line, &owned), &bad_at), ESKER_OK);
    assert_bytes(back, raw.ptr, raw.len);
    free(owned);
}

static void
escapes__bring_back_any_bytes(void **state)
{
    (void)state;
    struct rng rng = {.state = 3};
    struct buf line;
    struct buf back;
    buf_init(&line, &mem_default);
    buf_init(&back, &mem_default);
    for (unsigned pair = 0; pair < 0x10000; pair++) {
        uint8_t bytes[2] = {(uint8_t)(pair >> 8), (uint8_t)pair};
        check_tsv(bytes_make(bytes, 2), &line, &back);
        check_base64(bytes_make(bytes, 1 + (pair & 1)), &line, &back);
    }
    for (int round = 0; round < 2000; round++) {
        uint8_t bytes[300];
        size_t len = (size_t)rng_below(&rng, sizeof bytes + 1);
        bool texty = rng_below(&rng, 2) == 0;
        for (size_t i = 0; i < len; i++) {
            bytes[i] = (uint8_t)(texty ? rng_below(&rng, 128) : rng_next(&rng));
        }
        check_tsv(bytes_make(bytes, len), &line, &back);
        check_base64(bytes_make(bytes, len), &line, &back);
    }
    buf_fini(&line);
    buf_fini(&back);
}

static void
tsv_escape__writes_what_the_contract_says(void **state)
{
    (void)state;

    static const struct {
        const char *raw;
        size_t len;
        const char *line;
    } examples[] = {
        {"plain text", 10, "plain text"},
        {"a\tb\nc\rd\\e", 9, "a\\tb\\nc\\rd\\\\e"},
        {"\0\x1b\x7f", 3, "\\x00\\x1b\\x7f"},
        {"gr\xc3\xbc\xc3\x9f", 6, "gr\xc3\xbc\xc3\x9f"}, /* UTF-8 as it is */
        {"\xc2\x9b", 2, "\\xc2\\x9b"},                   /* but not a C1 control */
        {"\xff\xc3", 2, "\\xff\\xc3"},
        {"", 0, ""},
    };
    struct buf line;
    buf_init(&line, &mem_default);
    for (size_t i = 0; i < COUNTOF(examples); i++) {
        buf_clear(&line);
        assert_int_equal(text_tsv_escape(&line, bytes_make(examples[i].raw, examples[i].len)), ESKER_OK);
        assert_bytes(&line, examples[i].line, strlen(examples[i].line));
    }
    buf_fini(&line);
}

static void
decoders__refuse_what_is_never_written(void **state)
{
    (void)state;

    static const struct {
        const char *line;
        size_t bad_at;
    } tsv[] = {{"a\\", 1}, {"\\q", 0}, {"ab\\x", 2}, {"\\x4", 0}, {"\\xg0", 0}, {"\\t\\x0g", 2}, {"\\N", 0}};

    static const struct {
        const char *line;
        size_t bad_at;
    } base64[] = {{"A", 0},        {"AA", 0},    {"AAA", 0},  {"AB==", 0},   {"AAB=", 0},
                  {"A===", 0},     {"====", 0},  {"AA=A", 0}, {"AAAA=", 4},  {"AA A", 0},
                  {"AA==AAAA", 0}, {"AAA\n", 0}, {"AA-_", 0}, {"AAAAAA", 4}, {"AAAAAAA*", 4}};
    struct buf out;
    size_t bad_at = 0;
    buf_init(&out, &mem_default);
    for (size_t i = 0; i < COUNTOF(tsv); i++) {
        assert_int_equal(text_tsv_unescape(&out, text(tsv[i].line), &bad_at), ESKER_INVALID);
        assert_int_equal(bad_at, tsv[i].bad_at);
    }
    for (size_t i = 0; i < COUNTOF(base64); i++) {
        assert_int_equal(text_base64_decode(&out, text(base64[i].line), &bad_at), ESKER_INVALID);
        assert_int_equal(bad_at, base64[i].bad_at);
    }
    buf_fini(&out);
}

static void
base64__knows_the_vectors_of_the_standard(void **state)
{
    (void)state;
    static const char *const vectors[][2] = {{"", ""},
                                             {"f", "Zg=="},
                                             {"fo", "Zm8="},
                                             {"foo", "Zm9v"},
                                             {"foob", "Zm9vYg=="},
                                             {"fooba", "Zm9vYmE="},
                                             {"foobar", "Zm9vYmFy"}};
    struct buf line;
    buf_init(&line, &mem_default);
    for (size_t i = 0; i < COUNTOF(vectors); i++) {
        buf_clear(&line);
        assert_int_equal(text_base64_encode(&line, text(vectors[i][0])), ESKER_OK);
        assert_bytes(&line, vectors[i][1], strlen(vectors[i][1]));
    }
    buf_fini(&line);
}

static void
utf8__is_what_can_be_written_and_nothing_else(void **state)
{
    (void)state;
    struct buf out;
    buf_init(&out, &mem_default);
    for (uint32_t code = 0; code <= 0x10ffff; code++) {
        uint32_t read = 0;
        buf_clear(&out);
        assert_int_equal(text_utf8_append(&out, code), ESKER_OK);
        size_t len = text_utf8(buf_bytes(&out), &read);
        if (code >= 0xd800 && code <= 0xdfff) {
            assert_int_equal(len, 0);
            continue;
        }
        assert_int_equal(len, out.len);
        assert_int_equal(read, code);
        for (size_t cut = 1; cut < len; cut++) {
            assert_int_equal(text_utf8(bytes_make(out.ptr, cut), &read), 0);
        }
    }
    static const char *const bad[] = {"\x80",
                                      "\xbf",
                                      "\xc0\x80",
                                      "\xc1\xbf",
                                      "\xe0\x80\x80",
                                      "\xe0\x9f\xbf",
                                      "\xf0\x80\x80\x80",
                                      "\xf0\x8f\xbf\xbf",
                                      "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff",
                                      "\xc3(",
                                      "\xe2\x82(",
                                      "\xf0\x9f\x98("};
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        assert_false(text_is_utf8(text(bad[i])));
    }
    buf_fini(&out);
}

static void
json_record__is_json_for_any_bytes(void **state)
{
    (void)state;

    static const struct {
        const char *key, *value, *line;
        size_t value_len;
        uint64_t expires_ms;
    } examples[] = {
        {"k", "v", "{\"key\": \"k\", \"value\": \"v\"}\n", 1, 0},
        {"a\"b\\c", "\b\f\n\r\t\x01\x7f",
         "{\"key\": \"a\\\"b\\\\c\", \"value\": \"\\b\\f\\n\\r\\t\\u0001\\u007f\"}\n", 7, 0},
        {"\xc3\xbc", "\xff\0", "{\"key\": \"\xc3\xbc\", \"value_b64\": \"/wA=\"}\n", 2, 0},
        {"\x80", "", "{\"key_b64\": \"gA==\", \"value\": \"\"}\n", 0, 0},
        {"k", "v", "{\"key\": \"k\", \"value\": \"v\", \"expires_ms\": 18446744073709551615}\n", 1,
         UINT64_MAX},
    };
    struct buf line;
    buf_init(&line, &mem_default);
    for (size_t i = 0; i < COUNTOF(examples); i++) {
        struct bytes value = bytes_make(examples[i].value, examples[i].value_len);
        buf_clear(&line);
        assert_int_equal(text_json_record(&line, text(examples[i].key), value, examples[i].expires_ms),
                         ESKER_OK);
        assert_bytes(&line, examples[i].line, strlen(examples[i].line));
    }
    buf_fini(&line);
}

static void
units__are_short_and_right(void **state)
{
    (void)state;
    char out[TEXT_UNIT_BYTES];
    assert_string_equal(text_count(0, out), "0");
    assert_string_equal(text_count(999, out), "999");
    assert_string_equal(text_count(1000, out), "1,000");
    assert_string_equal(text_count(UINT64_MAX, out), "18,446,744,073,709,551,615");
    assert_string_equal(text_bytes(999, out), "999 B");
    assert_string_equal(text_bytes(1000, out), "1.00 kB");
    assert_string_equal(text_bytes(99960, out), "100 kB");
    assert_string_equal(text_bytes(999499, out), "999 kB");
    assert_string_equal(text_bytes(999999, out), "1.00 MB");
    assert_string_equal(text_memory(65536, out), "64 KiB");
    assert_string_equal(text_memory((uint64_t)3 << 19, out), "1.50 MiB");
    assert_string_equal(text_memory(1023, out), "1023 B");
    assert_string_equal(text_duration(870, out), "870 ns");
    assert_string_equal(text_duration(12340, out), "12.3 us");
    assert_string_equal(text_duration(4560000, out), "4.56 ms");
    assert_string_equal(text_duration(150000000000U, out), "150 s");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(escapes__bring_back_any_bytes),
        cmocka_unit_test(tsv_escape__writes_what_the_contract_says),
        cmocka_unit_test(decoders__refuse_what_is_never_written),
        cmocka_unit_test(base64__knows_the_vectors_of_the_standard),
        cmocka_unit_test(utf8__is_what_can_be_written_and_nothing_else),
        cmocka_unit_test(json_record__is_json_for_any_bytes),
        cmocka_unit_test(units__are_short_and_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
