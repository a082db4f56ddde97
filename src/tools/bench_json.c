/* SPDX-License-Identifier: MIT */
/*
 * A strict reader: a stack of open containers, and one state that says what
 * may come next. Numbers go to strtod after their characters were checked.
 */
#include "tools/bench_json.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"

enum { JSON_DEPTH_MAX = 16, JSON_PATH_MAX = 256, JSON_NUMBER_MAX = 40 };

struct json_reader {
    const char *at, *end;
    bench_json_visitor *visitor;
    void *ctx;
    uint32_t depth;
    bool is_array[JSON_DEPTH_MAX];
    size_t path_len[JSON_DEPTH_MAX]; /* of the path up to the container */
    char path[JSON_PATH_MAX];
    char string[BENCH_JSON_STRING_MAX];
};

static void
json_skip_space(struct json_reader *reader)
{
    while (reader->at < reader->end && memchr(" \t\r\n", *reader->at, 4) != NULL) {
        reader->at++;
    }
}

static bool
json_take(struct json_reader *reader, char wanted)
{
    json_skip_space(reader);
    if (reader->at < reader->end && *reader->at == wanted) {
        reader->at++;
        return true;
    }
    return false;
}

static bool
json_hex4(struct json_reader *reader, uint32_t *out)
{
    uint32_t value = 0;
    if (reader->end - reader->at < 4) {
        return false;
    }
    for (int i = 0; i < 4; i++) {
        char c = *reader->at++;
        uint32_t digit = 0;
        if (c >= '0' && c <= '9') {
            digit = (uint32_t)(c - '0');
        } else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
            digit = (uint32_t)((c | 0x20) - 'a' + 10);
        } else {
            return false;
        }
        value = value * 16 + digit;
    }
    *out = value;
    return true;
}

/* The byte behind a backslash; what is beyond Latin-1 becomes '?'. */
static bool
json_escape(struct json_reader *reader, char *out)
{
    static const char from[] = "\"\\/bfnrt";
    static const char to[] = "\"\\/\b\f\n\r\t";
    if (reader->at == reader->end) {
        return false;
    }
    char c = *reader->at++;
    if (c == 'u') {
        uint32_t code = 0;
        if (!json_hex4(reader, &code)) {
            return false;
        }
        *out = code != 0 && code < 256 ? (char)code : '?';
        return true;
    }
    const char *found = memchr(from, c, sizeof from - 1);
    if (found == NULL) {
        return false;
    }
    *out = to[found - from];
    return true;
}

/* The opening quote has been taken. */
static bool
json_string(struct json_reader *reader)
{
    size_t len = 0;
    while (reader->at < reader->end) {
        char c = *reader->at++;
        if (c == '"') {
            reader->string[len] = 0;
            return true;
        }
        if ((unsigned char)c < 0x20 || (c == '\\' && !json_escape(reader, &c))) {
            return false;
        }
        if (len < sizeof reader->string - 1) {
            reader->string[len++] = c == 0 ? '?' : c;
        }
    }
    return false;
}

/* Puts a name behind the container's path. */
static bool
json_path_set(struct json_reader *reader, const char *name)
{
    size_t base = reader->path_len[reader->depth - 1];
    size_t len = strlen(name);
    size_t slash = base > 0 ? 1 : 0;
    if (len >= JSON_PATH_MAX - base - slash) {
        return false;
    }
    if (slash != 0) {
        reader->path[base] = '/';
    }
    memcpy(reader->path + base + slash, name, len + 1);
    return true;
}

static bool
json_visit(struct json_reader *reader, const struct bench_json_value *value)
{
    return reader->visitor(reader->ctx, reader->path, value);
}

static bool
json_number(struct json_reader *reader)
{
    char text[JSON_NUMBER_MAX];
    size_t len = 0;
    while (reader->at < reader->end && memchr("+-.0123456789eE", *reader->at, 15) != NULL) {
        if (len == sizeof text - 1) {
            return false;
        }
        text[len++] = *reader->at++;
    }
    text[len] = 0;
    char *end = NULL;
    double number = strtod(text, &end);
    bool good = len > 0 && *end == 0 && text[0] != '+' && text[0] != '.';
    return good &&
           json_visit(reader, &(struct bench_json_value){.kind = BENCH_JSON_NUMBER, .number = number});
}

static bool
json_word(struct json_reader *reader)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < COUNTOF(words); i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(reader->end - reader->at) >= len && memcmp(reader->at, words[i], len) == 0) {
            reader->at += len;
            return json_visit(reader, &(struct bench_json_value){.kind = BENCH_JSON_WORD, .text = words[i]});
        }
    }
    return json_number(reader);
}

static bool
json_open(struct json_reader *reader, bool is_array)
{
    if (reader->depth == JSON_DEPTH_MAX) {
        return false;
    }
    reader->is_array[reader->depth] = is_array;
    reader->path_len[reader->depth] = strlen(reader->path);
    reader->depth++;
    return true;
}

static bool
json_close(struct json_reader *reader)
{
    reader->depth--;
    reader->path[reader->path_len[reader->depth]] = 0;
    return reader->is_array[reader->depth] ||
           json_visit(reader, &(struct bench_json_value){.kind = BENCH_JSON_OBJECT_END});
}

/* Takes a scalar, or opens a container. */
static bool
json_value(struct json_reader *reader, bool *opened)
{
    *opened = true;
    if (json_take(reader, '{')) {
        return json_open(reader, false);
    }
    if (json_take(reader, '[')) {
        return json_open(reader, true);
    }
    *opened = false;
    if (json_take(reader, '"')) {
        return json_string(reader) && json_visit(reader, &(struct bench_json_value){.kind = BENCH_JSON_STRING,
                                                                                    .text = reader->string});
    }
    return json_word(reader);
}

/* Before a member: its name, or the star of an array. */
static bool
json_name(struct json_reader *reader)
{
    if (reader->is_array[reader->depth - 1]) {
        return json_path_set(reader, "*");
    }
    return json_take(reader, '"') && json_string(reader) && json_path_set(reader, reader->string) &&
           json_take(reader, ':');
}

bool
bench_json_read(const char *text, size_t len, bench_json_visitor *visitor, void *ctx)
{
    struct json_reader reader = {.at = text, .end = text + len, .visitor = visitor, .ctx = ctx};
    bool opened = false;
    bool good = json_value(&reader, &opened);
    while (good && reader.depth > 0) {
        char closer = reader.is_array[reader.depth - 1] ? ']' : '}';
        if (json_take(&reader, closer)) {
            good = json_close(&reader);
            opened = false;
        } else {
            good = (opened || json_take(&reader, ',')) && json_name(&reader) && json_value(&reader, &opened);
        }
    }
    json_skip_space(&reader);
    return good && reader.at == reader.end;
}
