/* SPDX-License-Identifier: MIT */
/*
 * A line of jsonl: one object of two strings. Strict (RFC 8259): nothing but
 * what dump writes and other writers of such lines could write; so a typing
 * error in a name is found, and no value is dropped in silence.
 */
#include <stdbool.h>

#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/text_escape.h"

enum jsonl_member { JSONL_KEY, JSONL_KEY_B64, JSONL_VALUE, JSONL_VALUE_B64, JSONL_EXPIRES, JSONL_MEMBERS };

enum jsonl_part { JSONL_THE_KEY, JSONL_THE_VALUE, JSONL_THE_TIME, JSONL_PARTS };

struct jsonl_parse {
    struct bytes line;
    size_t at;
    struct load_fault *fault;
    struct buf scratch; /* a member's name, or base64 before it is decoded */
};

static esker_status
jsonl_fault(struct jsonl_parse *parse, size_t at, const char *what)
{
    *parse->fault = (struct load_fault){what, at};
    return ESKER_INVALID;
}

static void
jsonl_skip_space(struct jsonl_parse *parse)
{
    while (parse->at < parse->line.len) {
        uint8_t byte = parse->line.ptr[parse->at];
        if (byte != ' ' && byte != '\t' && byte != '\r') {
            return;
        }
        parse->at++;
    }
}

/* Spaces, then `byte`? Only taken if it is that. */
static bool
jsonl_take(struct jsonl_parse *parse, uint8_t byte)
{
    jsonl_skip_space(parse);
    if (parse->at < parse->line.len && parse->line.ptr[parse->at] == byte) {
        parse->at++;
        return true;
    }
    return false;
}

/* Four hexadecimal digits. */
static bool
jsonl_code_unit(struct jsonl_parse *parse, uint32_t *out)
{
    uint32_t code = 0;
    if (parse->line.len - parse->at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        int digit = text_hex_digit(parse->line.ptr[parse->at++]);
        if (digit < 0) {
            return false;
        }
        code = code << 4 | (uint32_t)digit;
    }
    *out = code;
    return true;
}

/* Behind "\u": one code unit, or a pair of surrogates. */
static esker_status
jsonl_unicode(struct jsonl_parse *parse, struct buf *out)
{
    size_t from = parse->at - 2;
    uint32_t code = 0;
    uint32_t low = 0;
    if (!jsonl_code_unit(parse, &code)) {
        return jsonl_fault(parse, from, "\\u without four hexadecimal digits");
    }
    if (code >= 0xd800 && code <= 0xdfff) {
        bool paired = code < 0xdc00 && parse->line.len - parse->at >= 6 &&
                      parse->line.ptr[parse->at] == '\\' && parse->line.ptr[parse->at + 1] == 'u';
        parse->at += paired ? 2 : 0;
        if (!paired || !jsonl_code_unit(parse, &low) || low < 0xdc00 || low > 0xdfff) {
            return jsonl_fault(parse, from, "half of a surrogate pair");
        }
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    return text_utf8_append(out, code);
}

static esker_status
jsonl_escape(struct jsonl_parse *parse, struct buf *out)
{
    static const char letters[] = "\"\\/bfnrt";
    static const char meanings[] = "\"\\/\b\f\n\r\t";
    size_t from = parse->at;
    if (parse->line.len - from < 2) {
        return jsonl_fault(parse, from, "the line ends inside a string");
    }
    uint8_t letter = parse->line.ptr[from + 1];
    parse->at += 2;
    if (letter == 'u') {
        return jsonl_unicode(parse, out);
    }
    const char *found = letter != 0 ? strchr(letters, letter) : NULL;
    if (found == NULL) {
        return jsonl_fault(parse, from, "an escape that JSON does not have");
    }
    return buf_append_u8(out, (uint8_t)meanings[found - letters]);
}

/* The bytes from `at` that stand for themselves inside a string. */
static size_t
jsonl_plain_run(const struct jsonl_parse *parse)
{
    size_t end = parse->at;
    while (end < parse->line.len) {
        uint8_t byte = parse->line.ptr[end];
        size_t len = 1;
        if (byte < 0x20 || byte == '"' || byte == '\\') {
            break;
        }
        if (byte >= 0x80) {
            uint32_t code;
            len = text_utf8(bytes_make(parse->line.ptr + end, parse->line.len - end), &code);
        }
        if (len == 0) {
            break;
        }
        end += len;
    }
    return end - parse->at;
}

/* A whole string, quotes included; its contents replace those of `out`. */
static esker_status
jsonl_string(struct jsonl_parse *parse, struct buf *out)
{
    buf_clear(out);
    if (!jsonl_take(parse, '"')) {
        return jsonl_fault(parse, parse->at, "a string was expected");
    }
    for (;;) {
        size_t run = jsonl_plain_run(parse);
        TRY(buf_append(out, parse->line.ptr + parse->at, run));
        parse->at += run;
        if (parse->at >= parse->line.len) {
            return jsonl_fault(parse, parse->at, "the line ends inside a string");
        }
        uint8_t byte = parse->line.ptr[parse->at];
        if (byte == '"') {
            parse->at++;
            return ESKER_OK;
        }
        if (byte != '\\') {
            return jsonl_fault(parse, parse->at,
                               byte < 0x20 ? "a control character inside a string" : "a string is not UTF-8");
        }
        TRY(jsonl_escape(parse, out));
    }
}

static enum jsonl_member
jsonl_member_named(struct bytes name)
{
    static const char *const names[] = {"key", "key_b64", "value", "value_b64", "expires_ms"};
    int member = 0;
    while (member < JSONL_MEMBERS && !bytes_equal(name, bytes_make(names[member], strlen(names[member])))) {
        member++;
    }
    return (enum jsonl_member)member;
}

static esker_status
jsonl_base64(struct jsonl_parse *parse, struct buf *out)
{
    size_t from = parse->at;
    size_t bad_at = 0;
    TRY(jsonl_string(parse, &parse->scratch));
    buf_clear(out);
    esker_status status = text_base64_decode(out, buf_bytes(&parse->scratch), &bad_at);
    return status == ESKER_INVALID ? jsonl_fault(parse, from, "a string is not base64") : status;
}

/* Digits. */
static esker_status
jsonl_number(struct jsonl_parse *parse, uint64_t *out)
{
    jsonl_skip_space(parse);
    size_t from = parse->at;
    uint64_t number = 0;
    for (; parse->at < parse->line.len; parse->at++) {
        unsigned digit = (unsigned)parse->line.ptr[parse->at] - '0';
        if (digit > 9) {
            break;
        }
        if (__builtin_mul_overflow(number, (uint64_t)10, &number) ||
            __builtin_add_overflow(number, (uint64_t)digit, &number)) {
            return jsonl_fault(parse, from, "a number beyond 64 bits");
        }
    }
    *out = number;
    return parse->at > from ? ESKER_OK : jsonl_fault(parse, from, "a number was expected");
}

static esker_status
jsonl_take_member(struct jsonl_parse *parse, struct load_record *record, bool seen[JSONL_PARTS])
{
    static const enum jsonl_part parts[] = {JSONL_THE_KEY, JSONL_THE_KEY, JSONL_THE_VALUE, JSONL_THE_VALUE,
                                            JSONL_THE_TIME};

    static const char *const twice[] = {"a second key", "a second value", "a second expires_ms"};
    size_t from = parse->at;
    TRY(jsonl_string(parse, &parse->scratch));
    enum jsonl_member member = jsonl_member_named(buf_bytes(&parse->scratch));
    if (member == JSONL_MEMBERS) {
        return jsonl_fault(parse, from, "a name that is none of key, key_b64, value, value_b64, expires_ms");
    }
    enum jsonl_part part = parts[member];
    if (seen[part]) {
        return jsonl_fault(parse, from, twice[part]);
    }
    seen[part] = true;
    if (!jsonl_take(parse, ':')) {
        return jsonl_fault(parse, parse->at, "a colon was expected");
    }
    if (part == JSONL_THE_TIME) {
        return jsonl_number(parse, &record->expires_ms);
    }
    struct buf *out = part == JSONL_THE_VALUE ? &record->value : &record->key;
    return member == JSONL_KEY || member == JSONL_VALUE ? jsonl_string(parse, out) : jsonl_base64(parse, out);
}

static esker_status
jsonl_object(struct jsonl_parse *parse, struct load_record *record)
{
    bool seen[JSONL_PARTS] = {false};
    if (!jsonl_take(parse, '{')) {
        return jsonl_fault(parse, parse->at, "an object was expected");
    }
    do {
        TRY(jsonl_take_member(parse, record, seen));
    } while (jsonl_take(parse, ','));
    if (!jsonl_take(parse, '}')) {
        return jsonl_fault(parse, parse->at, "a comma or the object's end was expected");
    }
    if (!seen[0] || !seen[1]) {
        return jsonl_fault(parse, parse->at, seen[0] ? "the object has no value" : "the object has no key");
    }
    jsonl_skip_space(parse);
    return parse->at == parse->line.len ? ESKER_OK : jsonl_fault(parse, parse->at, "text behind the object");
}

esker_status
load_jsonl_parse(struct bytes line, struct load_record *record, struct load_fault *fault)
{
    struct jsonl_parse parse = {.line = line, .fault = fault};
    buf_init(&parse.scratch, &mem_default);
    record->expires_ms = 0;
    esker_status status = jsonl_object(&parse, record);
    buf_fini(&parse.scratch);
    return status;
}
