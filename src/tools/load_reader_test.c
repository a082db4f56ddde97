/* SPDX-License-Identifier: MIT */
/*
 * Goal: records come out of text as they went in, whatever the pieces in which
 * the text arrives; what is no record is named by line and byte and changes
 * nothing else.
 * Method: tables of good and bad lines; random records through the writers of
 * dump and back; every read size; every byte of samples flipped, every cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/text_escape.h"

struct memory_text {
    const char *ptr;
    size_t len, at, piece;
    int fails_at_end; /* an errno; 0 = the end is the end */
};

static int64_t
memory_read(void *ctx, void *data, size_t len)
{
    struct memory_text *text = ctx;
    size_t done = MIN(MIN(len, text->piece), text->len - text->at);
    if (done == 0) {
        return -text->fails_at_end;
    }
    memcpy(data, text->ptr + text->at, done);
    text->at += done;
    return (int64_t)done;
}

/* What a whole text comes to: how many records, a hash over them, and how it ended. */
struct outcome {
    size_t count;
    uint64_t hash, offset;
    esker_status status;
};

static struct outcome
read_all(enum load_format format, const char *ptr, size_t len, size_t piece)
{
    struct memory_text text = {.ptr = ptr, .len = len, .piece = piece};
    struct load_reader reader;
    struct outcome outcome = {0};
    const struct load_record *record = NULL;
    load_reader_init(&reader, format, "text", memory_read, &text);
    while ((outcome.status = load_reader_next(&reader, &record)) == ESKER_OK) {
        outcome.count++;
        outcome.hash = hash64(record->key.ptr, record->key.len, outcome.hash + record->key.len);
        outcome.hash = hash64(record->value.ptr, record->value.len, outcome.hash) + record->expires_ms;
    }
    outcome.offset = outcome.status == ESKER_END ? reader.offset : status_last()->offset;
    load_reader_fini(&reader);
    return outcome;
}

static void
assert_one(enum load_format format, const char *line, const char *key, const char *value, size_t value_len)
{
    struct memory_text text = {.ptr = line, .len = strlen(line), .piece = 3};
    struct load_reader reader;
    const struct load_record *record = NULL;
    load_reader_init(&reader, format, "text", memory_read, &text);
    if (load_reader_next(&reader, &record) != ESKER_OK) {
        fail_msg("%s: %s", line, status_last()->message);
    }
    assert_int_equal(record->key.len, strlen(key));
    assert_memory_equal(record->key.ptr, key, strlen(key));
    assert_int_equal(record->value.len, value_len);
    assert_true(value_len == 0 || memcmp(record->value.ptr, value, value_len) == 0);
    assert_int_equal(load_reader_next(&reader, &record), ESKER_END);
    assert_int_equal(load_reader_next(&reader, &record), ESKER_END);
    load_reader_fini(&reader);
}

static void
assert_refused(enum load_format format, const char *line, const char *reason)
{
    struct outcome outcome = read_all(format, line, strlen(line), 1000);
    if (outcome.status != ESKER_INVALID || strstr(status_last()->message, reason) == NULL) {
        fail_msg("%s: status %d, %s", line, outcome.status, status_last()->message);
    }
}

static void
tsv__takes_lines_of_key_and_value(void **state)
{
    (void)state;
    assert_one(LOAD_TSV, "k\tv\n", "k", "v", 1);
    assert_one(LOAD_TSV, "k\tv", "k", "v", 1);
    assert_one(LOAD_TSV, "\n\nk\t\n\n", "k", "", 0);
    assert_one(LOAD_TSV, "a b\tv\tw\n", "a b", "v\tw", 3);
    assert_one(LOAD_TSV, "\\t\\n\\r\\\\\t\\x00\\xfF\n", "\t\n\r\\", "\0\xff", 2);
    assert_refused(LOAD_TSV, "no tab\n", "no tab");
    assert_refused(LOAD_TSV, "\tv\n", "key is empty");
    assert_refused(LOAD_TSV, "k\t\\z\n", "backslash");
    assert_refused(LOAD_TSV, "k\\\tv\n", "backslash");
}

static void
jsonl__takes_what_json_allows(void **state)
{
    (void)state;
    assert_one(LOAD_JSONL, "{\"key\": \"k\", \"value\": \"v\"}\n", "k", "v", 1);
    assert_one(LOAD_JSONL, " \t\r\n { \"value\" : \"v\" ,\t\"key\":\"k\" } \r\n", "k", "v", 1);
    assert_one(LOAD_JSONL, "{\"key_b64\":\"aw==\",\"value_b64\":\"/wA=\"}", "k", "\xff\0", 2);
    assert_one(LOAD_JSONL,
               "{\"key\":\"\\u006b\\ud83d\\ude00\",\"value\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\u0000\"}",
               "k\xf0\x9f\x98\x80", "\"\\/\b\f\n\r\t\0", 9);
    assert_one(LOAD_JSONL, "{\"\\u006bey\":\"k\",\"value\":\"\"}", "k", "", 0);
}

static void
jsonl__refuses_everything_else(void **state)
{
    (void)state;
    static const char *const bad[][2] = {
        {"[]", "object was expected"},
        {"{}", "string was expected"},
        {"{\"key\":\"k\"}", "no value"},
        {"{\"value\":\"k\"}", "no key"},
        {"{\"key\":\"k\",\"value\":\"v\",\"key_b64\":\"aw==\"}", "second key"},
        {"{\"key\":\"k\",\"value\":\"v\",\"value\":\"v\"}", "second value"},
        {"{\"key\":\"k\",\"value\":\"v\",\"x\":\"v\"}", "name that is none"},
        {"{\"key\":\"k\",\"value\":\"v\",}", "string was expected"},
        {"{\"key\":\"k\",\"value\":\"v\"", "comma or the object's end"},
        {"{\"key\":\"k\" \"value\":\"v\"}", "comma or the object's end"},
        {"{\"key\" \"k\",\"value\":\"v\"}", "colon"},
        {"{\"key\":\"k\",\"value\":1}", "string was expected"},
        {"{\"key\":\"k\",\"value\":null}", "string was expected"},
        {"{\"key\":\"k\",\"value\":\"v\",\"expires_ms\":\"1\"}", "number was expected"},
        {"{\"key\":\"k\",\"value\":\"v\",\"expires_ms\":-1}", "number was expected"},
        {"{\"key\":\"k\",\"value\":\"v\",\"expires_ms\":1.5}", "comma or the object's end"},
        {"{\"key\":\"k\",\"value\":\"v\",\"expires_ms\":18446744073709551616}", "beyond 64 bits"},
        {"{\"key\":\"k\",\"value\":\"v\",\"expires_ms\":1,\"expires_ms\":1}", "second expires_ms"},
        {"{\"key\":\"k\",\"value\":{\"a\":1}}", "string was expected"},
        {"{\"key\":\"k\",\"value\":\"v\"} x", "behind the object"},
        {"{\"key\":\"k\",\"value\":\"v\"}{}", "behind the object"},
        {"{\"key\":\"k\",\"value\":\"v", "ends inside a string"},
        {"{\"key\":\"k\",\"value\":\"v\\", "ends inside a string"},
        {"{\"key\":\"k\",\"value\":\"\\x\"}", "JSON does not have"},
        {"{\"key\":\"k\",\"value\":\"\\u12\"}", "four hexadecimal"},
        {"{\"key\":\"k\",\"value\":\"\\u12g4\"}", "four hexadecimal"},
        {"{\"key\":\"k\",\"value\":\"\\ud800\"}", "surrogate"},
        {"{\"key\":\"k\",\"value\":\"\\ud800\\u0041\"}", "surrogate"},
        {"{\"key\":\"k\",\"value\":\"\\udc00\\ud800\"}", "surrogate"},
        {"{\"key\":\"k\",\"value\":\"a\tb\"}", "control character"},
        {"{\"key\":\"k\",\"value\":\"a\x1f\"}", "control character"},
        {"{\"key\":\"k\",\"value\":\"\xff\"}", "not UTF-8"},
        {"{\"key\":\"k\",\"value_b64\":\"aw=\"}", "not base64"},
        {"{\"key\":\"\",\"value\":\"v\"}", "key is empty"},
        {"\xef\xbb\xbf{\"key\":\"k\",\"value\":\"v\"}", "object was expected"},
    };
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        assert_refused(LOAD_JSONL, bad[i][0], bad[i][1]);
    }
}

static void
deb822__takes_stanzas_as_they_are(void **state)
{
    (void)state;
    const char *stanza =
        "Package: a\nStatus: x\nversion:1.0 \nArchitecture: amd64\nDescription: d\n .\n more: text";
    char text[200];
    (void)snprintf(text, sizeof text, "\n \t\n%s\n\n", stanza);
    assert_one(LOAD_DEB822, text, "a/1.0/amd64", stanza, strlen(stanza));
    assert_one(LOAD_DEB822, stanza, "a/1.0/amd64", stanza, strlen(stanza));
    assert_one(LOAD_DEB822, "Package: b", "b", "Package: b", 10);
    assert_one(LOAD_DEB822, "# a comment\nPackage: b\n", "b", "# a comment\nPackage: b", 22);
    assert_one(LOAD_DEB822, "Package: b\nArchitecture: all\n", "b/all", "Package: b\nArchitecture: all", 28);
    assert_refused(LOAD_DEB822, "Version: 1\n", "no Package");
    assert_refused(LOAD_DEB822, "Package: a\nPackage: b\n", "has already");
    assert_refused(LOAD_DEB822, "Package: a\nnonsense\n", "neither");
    assert_refused(LOAD_DEB822, "Package:\n", "no Package");
    struct outcome two = read_all(LOAD_DEB822, "Package: a\n\n\nPackage: b\n \nPackage: c", 36, 5);
    assert_int_equal(two.status, ESKER_END);
    assert_int_equal(two.count, 3);
}

static void
reader__names_line_and_byte_of_a_bad_record(void **state)
{
    (void)state;
    struct outcome outcome = read_all(LOAD_TSV, "a\t1\n\nb\t2\nbad\n", 13, 2);
    assert_int_equal(outcome.status, ESKER_INVALID);
    assert_int_equal(outcome.count, 2);
    assert_int_equal(outcome.offset, 9);
    assert_non_null(strstr(status_last()->message, "line 4:"));
    assert_string_equal(status_last()->file, "text");
    outcome = read_all(LOAD_DEB822, "Package: a\n\nPackage: b\nX: 1\nbad\n", 32, 7);
    assert_int_equal(outcome.offset, 28);
    assert_non_null(strstr(status_last()->message, "line 5:"));
    outcome = read_all(LOAD_JSONL, "\n{\"key\":\"k\",\"value\":7}", 22, 7);
    assert_int_equal(outcome.offset, 20);
    assert_non_null(strstr(status_last()->message, "line 2:"));
}

static void
reader__passes_on_a_failing_read(void **state)
{
    (void)state;
    struct memory_text text = {.ptr = "a\t1\nb\t", .len = 6, .piece = 6, .fails_at_end = EIO};
    struct load_reader reader;
    const struct load_record *record = NULL;
    load_reader_init(&reader, LOAD_TSV, "text", memory_read, &text);
    assert_int_equal(load_reader_next(&reader, &record), ESKER_OK);
    assert_int_equal(load_reader_next(&reader, &record), ESKER_IO);
    assert_int_equal(status_last()->os_errno, EIO);
    load_reader_fini(&reader);
}

static void
reader__holds_keys_to_their_limit(void **state)
{
    (void)state;
    struct buf line;
    buf_init(&line, &mem_default);
    for (size_t len = LOAD_KEY_BYTES_MAX; len <= LOAD_KEY_BYTES_MAX + 1; len++) {
        buf_clear(&line);
        assert_int_equal(buf_append_zeros(&line, len), ESKER_OK);
        memset(line.ptr, 'k', len);
        assert_int_equal(buf_append(&line, "\tv\n", 3), ESKER_OK);
        struct outcome outcome = read_all(LOAD_TSV, (const char *)line.ptr, line.len, SIZE_MAX);
        assert_int_equal(outcome.status, len == LOAD_KEY_BYTES_MAX ? ESKER_END : ESKER_INVALID);
    }
    buf_fini(&line);
}

/* ---- Random records, pieces, damage ------------------------------------------- */

static void
random_bytes(struct rng *rng, struct buf *out, size_t least, size_t most)
{
    static const char *const texts[] = {"\t", "\n", "\\",   "\"", "\r", "\xc3\xbc", "\xf0\x9f\x98\x80",
                                        "{",  " ",  "\\x41"};
    size_t len = least + (size_t)rng_below(rng, most - least + 1);
    bool text = rng_below(rng, 2) == 0;
    buf_clear(out);
    while (out->len < len) {
        const char *piece = texts[rng_below(rng, COUNTOF(texts))];
        uint8_t byte = (uint8_t)rng_next(rng);
        assert_int_equal(text ? buf_append(out, piece, strlen(piece)) : buf_append_u8(out, byte), ESKER_OK);
    }
}

/* `count` random records as text; the hash that read_all must come to. */
static uint64_t
random_text(enum load_format format, uint64_t seed, size_t count, struct buf *out)
{
    struct rng rng = {.state = seed};
    struct buf key;
    struct buf value;
    uint64_t hash = 0;
    buf_init(&key, &mem_default);
    buf_init(&value, &mem_default);
    for (size_t i = 0; i < count; i++) {
        random_bytes(&rng, &key, 1, 20);
        random_bytes(&rng, &value, 0, 60);
        struct bytes value_bytes = buf_bytes(&value);
        uint64_t expires_ms =
            format == LOAD_JSONL && rng_below(&rng, 2) == 0 ? rng_next(&rng) >> rng_below(&rng, 64) : 0;
        assert_int_equal(format == LOAD_TSV ? text_tsv_record(out, buf_bytes(&key), &value_bytes)
                                            : text_json_record(out, buf_bytes(&key), value_bytes, expires_ms),
                         ESKER_OK);
        hash = hash64(key.ptr, key.len, hash + key.len);
        hash = hash64(value.ptr, value.len, hash) + expires_ms;
    }
    buf_fini(&key);
    buf_fini(&value);
    return hash;
}

static void
dump_lines__load_back_in_pieces_of_any_size(void **state)
{
    (void)state;
    static const size_t pieces[] = {1, 2, 3, 7, 64, 4096, SIZE_MAX};

    static const enum load_format formats[] = {LOAD_TSV, LOAD_JSONL};
    struct buf text;
    buf_init(&text, &mem_default);
    for (size_t f = 0; f < COUNTOF(formats); f++) {
        for (uint64_t seed = 1; seed <= 20; seed++) {
            buf_clear(&text);
            uint64_t hash = random_text(formats[f], seed, 100, &text);
            for (size_t p = 0; p < COUNTOF(pieces); p++) {
                struct outcome outcome = read_all(formats[f], (const char *)text.ptr, text.len, pieces[p]);
                assert_int_equal(outcome.status, ESKER_END);
                assert_int_equal(outcome.count, 100);
                assert_int_equal(outcome.hash, hash);
                assert_int_equal(outcome.offset, text.len);
            }
        }
    }
    buf_fini(&text);
}

/* Ends in the end or in a refusal, in the same way whatever the pieces. */
static void
assert_sane(enum load_format format, const uint8_t *ptr, size_t len)
{
    uint8_t *exact = malloc(len == 0 ? 1 : len);
    assert_non_null(exact);
    memcpy(exact, ptr, len);
    struct outcome whole = read_all(format, (const char *)exact, len, SIZE_MAX);
    struct outcome bytes = read_all(format, (const char *)exact, len, 1);
    assert_true(whole.status == ESKER_END || whole.status == ESKER_INVALID);
    assert_int_equal(bytes.status, whole.status);
    assert_int_equal(bytes.hash, whole.hash);
    assert_int_equal(bytes.offset, whole.offset);
    free(exact);
}

static void
parsers__survive_every_flip_and_cut(void **state)
{
    (void)state;
    static const char stanzas[] =
        "Package: a\nVersion: 1\nDescription: x\n .\n\nPackage: b\nArchitecture: all\n";
    struct buf samples[3];
    for (int format = LOAD_TSV; format <= LOAD_DEB822; format++) {
        buf_init(&samples[format], &mem_default);
    }
    (void)random_text(LOAD_TSV, 5, 4, &samples[LOAD_TSV]);
    (void)random_text(LOAD_JSONL, 5, 4, &samples[LOAD_JSONL]);
    assert_int_equal(buf_append(&samples[LOAD_DEB822], stanzas, sizeof stanzas - 1), ESKER_OK);
    for (int format = LOAD_TSV; format <= LOAD_DEB822; format++) {
        struct buf *sample = &samples[format];
        for (size_t at = 0; at < sample->len; at++) {
            assert_sane((enum load_format)format, sample->ptr, at);
            for (unsigned flip = 1; flip < 256; flip += flip < 16 ? 1 : 37) {
                sample->ptr[at] ^= (uint8_t)flip;
                assert_sane((enum load_format)format, sample->ptr, sample->len);
                sample->ptr[at] ^= (uint8_t)flip;
            }
        }
        buf_fini(sample);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tsv__takes_lines_of_key_and_value),
        cmocka_unit_test(jsonl__takes_what_json_allows),
        cmocka_unit_test(jsonl__refuses_everything_else),
        cmocka_unit_test(deb822__takes_stanzas_as_they_are),
        cmocka_unit_test(reader__names_line_and_byte_of_a_bad_record),
        cmocka_unit_test(reader__passes_on_a_failing_read),
        cmocka_unit_test(reader__holds_keys_to_their_limit),
        cmocka_unit_test(dump_lines__load_back_in_pieces_of_any_size),
        cmocka_unit_test(parsers__survive_every_flip_and_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
