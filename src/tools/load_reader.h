/* SPDX-License-Identifier: MIT */
/*
 * Records from text, one at a time, from a file, a pipe or memory.
 *
 *   tsv     one record per line: key, tab, value, both escaped (text_escape.h).
 *           Further tabs belong to the value. Empty lines are skipped.
 *   jsonl   one object per line with exactly "key" or "key_b64" and "value" or
 *           "value_b64", all strings, and perhaps "expires_ms", a number: when the
 *           value's time is up, milliseconds since 1970 UTC. Blank lines are skipped.
 *   deb822  the format of Debian's Packages and status files: stanzas between
 *           blank lines. key = Package, "/" and Version if there is one, "/"
 *           and Architecture if there is one; value = the stanza.
 *
 * The input is not trusted: a unit (line or stanza) has a bound, memory is
 * asked for as the bytes arrive and never by a number in the text, nothing
 * recurses, and every pass is linear. Fuzz target: fuzz/fuzz_load.c.
 */
#ifndef ESKER_TOOLS_LOAD_READER_H
#define ESKER_TOOLS_LOAD_READER_H

#include <stdbool.h>

#include "base/buf.h"

enum load_format { LOAD_TSV, LOAD_JSONL, LOAD_DEB822 };

enum { LOAD_KEY_BYTES_MAX = 32 << 10, LOAD_VALUE_BYTES_MAX = 256 << 20 };

/* The longest that a record can be as text: six characters for each byte. */
#define LOAD_UNIT_BYTES_MAX ((size_t)6 * (LOAD_KEY_BYTES_MAX + (size_t)LOAD_VALUE_BYTES_MAX) + 4096)

struct load_record {
    struct buf key, value;
    uint64_t expires_ms; /* 0 = never; as the parsers of formats that cannot say it leave it */
};

/* Why a unit is no record, and where in it. */
struct load_fault {
    const char *what;
    size_t at;
};

/* One unit each, without the end of its line. The record's buffers are replaced.
 * Returns OK, INVALID with *fault set, or NO_MEMORY. */
NODISCARD esker_status load_tsv_parse(struct bytes line, struct load_record *record,
                                      struct load_fault *fault);
NODISCARD esker_status load_jsonl_parse(struct bytes line, struct load_record *record,
                                        struct load_fault *fault);
NODISCARD esker_status load_deb822_parse(struct bytes stanza, struct load_record *record,
                                         struct load_fault *fault);

/* Up to len bytes; 0 at the end; a negated errno. */
typedef int64_t load_read_fn(void *ctx, void *data, size_t len);

struct load_reader {
    enum load_format format;
    const char *name; /* for messages */
    load_read_fn *read;
    void *ctx;
    struct buf text; /* read and not yet parsed, from `at` on */
    size_t at;
    bool ended;
    uint64_t offset;  /* of text.ptr[at] in the input */
    uint64_t line_no; /* of that byte, from 1 */
    struct load_record record;
};

void load_reader_init(struct load_reader *reader, enum load_format format, const char *name,
                      load_read_fn *read, void *ctx);
void load_reader_fini(struct load_reader *reader);
/* The next record, valid until the next call. Returns OK; END; INVALID or
 * TOO_LARGE, the story naming file, line and byte; IO; NO_MEMORY. After a
 * failure the reader stays where it is. */
esker_status load_reader_next(struct load_reader *reader, const struct load_record **out);
/* A load_read_fn over the descriptor in *(int *)ctx. */
int64_t load_read_fd(void *ctx, void *data, size_t len);

bool load_format_parse(const char *name, enum load_format *out);
/* By what the file is called; tsv where that says nothing. */
enum load_format load_format_guess(const char *path);

#endif
