/* SPDX-License-Identifier: MIT */
#include <stdio.h>

#include "tools/text_escape.h"

#include "base/assert.h"
#include "base/status.h"

static const char escape_hex[] = "0123456789abcdef";
static const char escape_base64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* ---- UTF-8 ----------------------------------------------------------------- */

size_t
text_utf8(struct bytes bytes, uint32_t *code_out)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (bytes.len == 0) {
        return 0;
    }
    uint8_t lead = bytes.ptr[0];
    if (lead < 0x80) {
        *code_out = lead;
        return 1;
    }
    size_t len = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || bytes.len < len) {
        return 0;
    }
    uint32_t code = lead & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((bytes.ptr[i] & 0xc0) != 0x80) {
            return 0;
        }
        code = code << 6 | (bytes.ptr[i] & 0x3f);
    }
    if (code < least[len] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) {
        return 0;
    }
    *code_out = code;
    return len;
}

bool
text_is_utf8(struct bytes bytes)
{
    size_t at = 0;
    while (at < bytes.len) {
        uint32_t code;
        size_t len = text_utf8(bytes_make(bytes.ptr + at, bytes.len - at), &code);
        if (len == 0) {
            return false;
        }
        at += len;
    }
    return true;
}

esker_status
text_utf8_append(struct buf *out, uint32_t code)
{
    uint8_t bytes[4];
    size_t len = 0;
    ASSERT(code <= 0x10ffff);
    if (code < 0x80) {
        bytes[len++] = (uint8_t)code;
    } else if (code < 0x800) {
        bytes[len++] = (uint8_t)(0xc0 | code >> 6);
        bytes[len++] = (uint8_t)(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        bytes[len++] = (uint8_t)(0xe0 | code >> 12);
        bytes[len++] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        bytes[len++] = (uint8_t)(0x80 | (code & 0x3f));
    } else {
        bytes[len++] = (uint8_t)(0xf0 | code >> 18);
        bytes[len++] = (uint8_t)(0x80 | (code >> 12 & 0x3f));
        bytes[len++] = (uint8_t)(0x80 | (code >> 6 & 0x3f));
        bytes[len++] = (uint8_t)(0x80 | (code & 0x3f));
    }
    return buf_append(out, bytes, len);
}

/* ---- tsv ------------------------------------------------------------------- */

static bool
escape_is_plain(uint8_t byte)
{
    return byte >= 0x20 && byte < 0x7f && byte != '\\';
}

/* The bytes at `at` that may stand for themselves; 0 if the first must be escaped. */
static size_t
escape_tsv_run(struct bytes raw, size_t at)
{
    size_t end = at;
    while (end < raw.len) {
        uint32_t code;
        if (LIKELY(escape_is_plain(raw.ptr[end]))) {
            end++;
            continue;
        }
        size_t len = raw.ptr[end] < 0x80 ? 0 : text_utf8(bytes_make(raw.ptr + end, raw.len - end), &code);
        if (len == 0 || code < 0xa0) {
            break;
        }
        end += len;
    }
    return end - at;
}

static esker_status
escape_tsv_byte(struct buf *out, uint8_t byte)
{
    char text[4] = {'\\', 0, 0, 0};
    switch (byte) {
    case '\t':
        text[1] = 't';
        return buf_append(out, text, 2);
    case '\n':
        text[1] = 'n';
        return buf_append(out, text, 2);
    case '\r':
        text[1] = 'r';
        return buf_append(out, text, 2);
    case '\\':
        text[1] = '\\';
        return buf_append(out, text, 2);
    default:
        text[1] = 'x';
        text[2] = escape_hex[byte >> 4];
        text[3] = escape_hex[byte & 15];
        return buf_append(out, text, 4);
    }
}

esker_status
text_tsv_escape(struct buf *out, struct bytes raw)
{
    for (size_t at = 0; at < raw.len;) {
        size_t run = escape_tsv_run(raw, at);
        if (run > 0) {
            TRY(buf_append(out, raw.ptr + at, run));
            at += run;
        } else {
            TRY(escape_tsv_byte(out, raw.ptr[at++]));
        }
    }
    return ESKER_OK;
}

int
text_hex_digit(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    if (byte >= 'a' && byte <= 'f') {
        return byte - 'a' + 10;
    }
    if (byte >= 'A' && byte <= 'F') {
        return byte - 'A' + 10;
    }
    return -1;
}

/* What the escape at the start of `text` stands for; its length, or 0. */
static size_t
escape_tsv_decode(struct bytes text, uint8_t *byte_out)
{
    if (text.len < 2) {
        return 0;
    }
    switch (text.ptr[1]) {
    case 't':
        *byte_out = '\t';
        return 2;
    case 'n':
        *byte_out = '\n';
        return 2;
    case 'r':
        *byte_out = '\r';
        return 2;
    case '\\':
        *byte_out = '\\';
        return 2;
    case 'x':
        break;
    default:
        return 0;
    }
    int high = text.len >= 4 ? text_hex_digit(text.ptr[2]) : -1;
    int low = text.len >= 4 ? text_hex_digit(text.ptr[3]) : -1;
    if (high < 0 || low < 0) {
        return 0;
    }
    *byte_out = (uint8_t)(high << 4 | low);
    return 4;
}

esker_status
text_tsv_unescape(struct buf *out, struct bytes text, size_t *bad_at)
{
    for (size_t at = 0; at < text.len;) {
        const uint8_t *slash = memchr(text.ptr + at, '\\', text.len - at);
        size_t run = slash != NULL ? (size_t)(slash - (text.ptr + at)) : text.len - at;
        TRY(buf_append(out, text.ptr + at, run));
        at += run;
        if (slash != NULL) {
            uint8_t byte = 0;
            size_t len = escape_tsv_decode(bytes_make(text.ptr + at, text.len - at), &byte);
            if (len == 0) {
                *bad_at = at;
                return ESKER_INVALID;
            }
            TRY(buf_append_u8(out, byte));
            at += len;
        }
    }
    return ESKER_OK;
}

/* ---- JSON ------------------------------------------------------------------ */

static esker_status
escape_json_byte(struct buf *out, uint8_t byte)
{
    char text[6] = {'\\', (char)byte, '0', '0', 0, 0};
    size_t len = 2;
    switch (byte) {
    case '\b':
        text[1] = 'b';
        break;
    case '\f':
        text[1] = 'f';
        break;
    case '\n':
        text[1] = 'n';
        break;
    case '\r':
        text[1] = 'r';
        break;
    case '\t':
        text[1] = 't';
        break;
    case '"':
    case '\\':
        break;
    default:
        text[1] = 'u';
        text[4] = escape_hex[byte >> 4];
        text[5] = escape_hex[byte & 15];
        len = 6;
        break;
    }
    return buf_append(out, text, len);
}

esker_status
text_json_escape(struct buf *out, struct bytes utf8)
{
    for (size_t at = 0; at < utf8.len;) {
        size_t end = at;
        while (end < utf8.len && utf8.ptr[end] != '"' &&
               (escape_is_plain(utf8.ptr[end]) || utf8.ptr[end] >= 0x80)) {
            end++;
        }
        TRY(buf_append(out, utf8.ptr + at, end - at));
        if (end < utf8.len) {
            TRY(escape_json_byte(out, utf8.ptr[end]));
            end++;
        }
        at = end;
    }
    return ESKER_OK;
}

/* ---- Base64 ---------------------------------------------------------------- */

esker_status
text_base64_encode(struct buf *out, struct bytes raw)
{
    for (size_t at = 0; at < raw.len; at += 3) {
        size_t left = MIN(raw.len - at, (size_t)3);
        uint32_t group = (uint32_t)raw.ptr[at] << 16;
        group |= left > 1 ? (uint32_t)raw.ptr[at + 1] << 8 : 0;
        group |= left > 2 ? raw.ptr[at + 2] : 0;
        char text[4] = {escape_base64[group >> 18], escape_base64[group >> 12 & 63],
                        left > 1 ? escape_base64[group >> 6 & 63] : '=',
                        left > 2 ? escape_base64[group & 63] : '='};
        TRY(buf_append(out, text, sizeof text));
    }
    return ESKER_OK;
}

static int
escape_base64_digit(uint8_t byte)
{
    if (byte >= 'A' && byte <= 'Z') {
        return byte - 'A';
    }
    if (byte >= 'a' && byte <= 'z') {
        return byte - 'a' + 26;
    }
    if (byte >= '0' && byte <= '9') {
        return byte - '0' + 52;
    }
    return byte == '+' ? 62 : byte == '/' ? 63 : -1;
}

/* Four characters, `digits` of them before the padding. */
static bool
escape_base64_group(const uint8_t *text, size_t digits, uint8_t out[3])
{
    uint32_t group = 0;
    for (size_t i = 0; i < 4; i++) {
        int digit = i < digits ? escape_base64_digit(text[i]) : 0;
        if (digit < 0) {
            return false;
        }
        group = group << 6 | (uint32_t)digit;
    }
    out[0] = (uint8_t)(group >> 16);
    out[1] = (uint8_t)(group >> 8);
    out[2] = (uint8_t)group;
    return (group & (0xffffffu >> ((digits - 1) * 8))) == 0; /* bits that stand for nothing are zero */
}

esker_status
text_base64_decode(struct buf *out, struct bytes text, size_t *bad_at)
{
    size_t whole = text.len & ~(size_t)3;
    for (size_t at = 0; at < whole; at += 4) {
        size_t digits = 4;
        if (at + 4 == text.len) {
            digits -= text.ptr[at + 3] == '=' ? 1 : 0;
            digits -= digits == 3 && text.ptr[at + 2] == '=' ? 1 : 0;
        }
        uint8_t bytes[3];
        if (!escape_base64_group(text.ptr + at, digits, bytes)) {
            *bad_at = at;
            return ESKER_INVALID;
        }
        TRY(buf_append(out, bytes, digits - 1));
    }
    if (whole != text.len) {
        *bad_at = whole;
        return ESKER_INVALID;
    }
    return ESKER_OK;
}

/* ---- Records --------------------------------------------------------------- */

esker_status
text_tsv_record(struct buf *out, struct bytes key, const struct bytes *value)
{
    TRY(text_tsv_escape(out, key));
    if (value != NULL) {
        TRY(buf_append_u8(out, '\t'));
        TRY(text_tsv_escape(out, *value));
    }
    return buf_append_u8(out, '\n');
}

static esker_status
escape_json_member(struct buf *out, const char *name, struct bytes raw)
{
    bool text = text_is_utf8(raw);
    TRY(buf_append_u8(out, '"'));
    TRY(buf_append(out, name, strlen(name)));
    TRY(text ? buf_append(out, "\": \"", 4) : buf_append(out, "_b64\": \"", 8));
    TRY(text ? text_json_escape(out, raw) : text_base64_encode(out, raw));
    return buf_append_u8(out, '"');
}

esker_status
text_json_record(struct buf *out, struct bytes key, struct bytes value, uint64_t expires_ms)
{
    char text[48];
    TRY(buf_append_u8(out, '{'));
    TRY(escape_json_member(out, "key", key));
    TRY(buf_append(out, ", ", 2));
    TRY(escape_json_member(out, "value", value));
    if (expires_ms != 0) {
        int len = snprintf(text, sizeof text, ", \"expires_ms\": %llu", (unsigned long long)expires_ms);
        TRY(buf_append(out, text, (size_t)len));
    }
    return buf_append(out, "}\n", 2);
}
