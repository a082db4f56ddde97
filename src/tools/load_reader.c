/* SPDX-License-Identifier: MIT */
/*
 * Cuts the input into units and hands them to the parsers. The text buffer
 * holds the unit at hand and whatever was read beyond it; it moves down when
 * more is read, so positions inside a unit are kept relative to its start.
 */
#include "tools/load_reader.h"

#include <errno.h>
#include <unistd.h>

#include "base/status.h"

enum { READER_CHUNK_BYTES = 256 << 10 };

void
load_reader_init(struct load_reader *reader, enum load_format format, const char *name, load_read_fn *read,
                 void *ctx)
{
    *reader = (struct load_reader){.format = format, .name = name, .read = read, .ctx = ctx, .line_no = 1};
    buf_init(&reader->text, &mem_default);
    buf_init(&reader->record.key, &mem_default);
    buf_init(&reader->record.value, &mem_default);
}

void
load_reader_fini(struct load_reader *reader)
{
    buf_fini(&reader->text);
    buf_fini(&reader->record.key);
    buf_fini(&reader->record.value);
}

int64_t
load_read_fd(void *ctx, void *data, size_t len)
{
    ssize_t done;
    do {
        done = read(*(int *)ctx, data, len);
    } while (done < 0 && errno == EINTR);
    return done < 0 ? -errno : done;
}

bool
load_format_parse(const char *name, enum load_format *out)
{
    static const char *const names[] = {"tsv", "jsonl", "deb822"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            *out = (enum load_format)i;
            return true;
        }
    }
    return false;
}

enum load_format
load_format_guess(const char *path)
{
    static const struct {
        const char *ending;
        enum load_format format;
    } endings[] = {
        {".jsonl", LOAD_JSONL}, {".ndjson", LOAD_JSONL}, {"Packages", LOAD_DEB822}, {".deb822", LOAD_DEB822}};

    size_t len = strlen(path);
    for (size_t i = 0; i < COUNTOF(endings); i++) {
        size_t ending_len = strlen(endings[i].ending);
        if (len >= ending_len && strcmp(path + len - ending_len, endings[i].ending) == 0) {
            return endings[i].format;
        }
    }
    return LOAD_TSV;
}

/* ---- Text ------------------------------------------------------------------ */

static size_t
reader_left(const struct load_reader *reader)
{
    return reader->text.len - reader->at;
}

static void
reader_consume(struct load_reader *reader, size_t len, uint64_t lines)
{
    reader->at += len;
    reader->offset += len;
    reader->line_no += lines;
}

/* Reads more behind what is there, or sets `ended`. */
static esker_status
reader_fill(struct load_reader *reader)
{
    struct buf *text = &reader->text;
    size_t left = reader_left(reader);
    if (left > LOAD_UNIT_BYTES_MAX) {
        return FAIL_AT(ESKER_TOO_LARGE, reader->name, reader->offset, "the record at line %llu does not end",
                       (unsigned long long)reader->line_no);
    }
    if (reader->at > 0) {
        if (left > 0) {
            memmove(text->ptr, text->ptr + reader->at, left);
        }
        text->len = left;
        reader->at = 0;
    }
    TRY(buf_reserve(text, READER_CHUNK_BYTES));
    int64_t done = reader->read(reader->ctx, text->ptr + text->len, READER_CHUNK_BYTES);
    if (done < 0) {
        return FAIL_OS((int)-done, reader->name, reader->offset + left, "cannot read %s", reader->name);
    }
    text->len += (size_t)done;
    reader->ended = done == 0;
    return ESKER_OK;
}

/* The line that starts `from` bytes behind the unit's start, without its end;
 * *next_out is where the one after it starts. At the end of the input: empty,
 * and *next_out = from. */
static esker_status
reader_line(struct load_reader *reader, size_t from, struct bytes *line_out, size_t *next_out)
{
    size_t seen = from;
    for (;;) {
        const uint8_t *start = reader->text.len > 0 ? reader->text.ptr + reader->at : NULL;
        size_t left = reader_left(reader);
        const uint8_t *newline = left > seen ? memchr(start + seen, '\n', left - seen) : NULL;
        if (newline != NULL || reader->ended) {
            size_t end = newline != NULL ? (size_t)(newline - start) : left;
            *line_out = bytes_make(left > from ? start + from : NULL, end - from);
            *next_out = newline != NULL ? end + 1 : end;
            return ESKER_OK;
        }
        seen = left;
        TRY(reader_fill(reader));
    }
}

static bool
reader_is_blank(struct bytes line)
{
    for (size_t i = 0; i < line.len; i++) {
        if (line.ptr[i] != ' ' && line.ptr[i] != '\t' && line.ptr[i] != '\r') {
            return false;
        }
    }
    return true;
}

/* ---- Units ----------------------------------------------------------------- */

/* One unit of text, and how much of the input it takes. */
struct reader_unit {
    struct bytes text;
    size_t len;
    uint64_t lines;
};

static esker_status
reader_skip_blank(struct load_reader *reader)
{
    for (;;) {
        struct bytes line;
        size_t next;
        TRY(reader_line(reader, 0, &line, &next));
        if (next == 0) {
            return ESKER_END;
        }
        /* Spaces are a tsv record's own: such a line has no tab, or a key of spaces. */
        bool blank = reader->format == LOAD_TSV ? line.len == 0 : reader_is_blank(line);
        if (!blank) {
            return ESKER_OK;
        }
        reader_consume(reader, next, 1);
    }
}

static esker_status
reader_stanza(struct load_reader *reader, struct reader_unit *unit)
{
    size_t from = 0;
    size_t end = 0;
    for (;;) {
        struct bytes line;
        size_t next;
        TRY(reader_line(reader, from, &line, &next));
        if (next == from || reader_is_blank(line)) {
            break;
        }
        end = from + line.len;
        from = next;
        unit->lines++;
    }
    unit->len = from;
    unit->text = bytes_make(reader->text.ptr + reader->at, end);
    return ESKER_OK;
}

static esker_status
reader_unit(struct load_reader *reader, struct reader_unit *unit)
{
    *unit = (struct reader_unit){.lines = 0};
    TRY(reader_skip_blank(reader)); /* passes ESKER_END on */
    if (reader->format == LOAD_DEB822) {
        return reader_stanza(reader, unit);
    }
    unit->lines = 1;
    return reader_line(reader, 0, &unit->text, &unit->len);
}

static esker_status
reader_parse(struct load_reader *reader, struct bytes text, struct load_fault *fault)
{
    switch (reader->format) {
    case LOAD_TSV:
        return load_tsv_parse(text, &reader->record, fault);
    case LOAD_JSONL:
        return load_jsonl_parse(text, &reader->record, fault);
    default:
        return load_deb822_parse(text, &reader->record, fault);
    }
}

static esker_status
reader_check(const struct load_record *record, struct load_fault *fault)
{
    fault->at = 0;
    if (record->key.len == 0) {
        fault->what = "the key is empty";
        return ESKER_INVALID;
    }
    if (record->key.len > LOAD_KEY_BYTES_MAX) {
        fault->what = "the key is longer than 32 KiB";
        return ESKER_INVALID;
    }
    if (record->value.len > LOAD_VALUE_BYTES_MAX) {
        fault->what = "the value is longer than 256 MiB";
        return ESKER_INVALID;
    }
    return ESKER_OK;
}

static uint64_t
reader_count_lines(struct bytes text, size_t until)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < MIN(until, text.len); i++) {
        lines += text.ptr[i] == '\n' ? 1 : 0;
    }
    return lines;
}

esker_status
load_reader_next(struct load_reader *reader, const struct load_record **out)
{
    struct reader_unit unit;
    struct load_fault fault = {0};
    TRY(reader_unit(reader, &unit));
    esker_status status = reader_parse(reader, unit.text, &fault);
    if (status == ESKER_OK) {
        status = reader_check(&reader->record, &fault);
    }
    if (status == ESKER_INVALID) {
        uint64_t line_no = reader->line_no + reader_count_lines(unit.text, fault.at);
        return FAIL_AT(ESKER_INVALID, reader->name, reader->offset + fault.at, "line %llu: %s",
                       (unsigned long long)line_no, fault.what);
    }
    TRY(status);
    reader_consume(reader, unit.len, unit.lines);
    *out = &reader->record;
    return ESKER_OK;
}
