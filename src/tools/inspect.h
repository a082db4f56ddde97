/* SPDX-License-Identifier: MIT */
/*
 * `esker inspect`: any file of ours as lines that people can read, damaged or
 * not. It trusts nothing in the file: what it reads is bounded by the file's
 * size, memory is asked for after checks, and it goes on behind damage as far
 * as the format lets it. It writes nothing and takes no lock, so a file of an
 * open database may change under it.
 */
#ifndef ESKER_TOOLS_INSPECT_H
#define ESKER_TOOLS_INSPECT_H

#include <stdbool.h>

#include "base/buf.h"
#include "tools/text_out.h"

struct inspect {
    struct text_out out;
    const char *path;
    const char *name; /* its last component */
    int fd;
    uint64_t size;
    bool rows;        /* print every entry and row, not only what holds them */
    uint64_t damages; /* told so far */
    struct buf window;
    uint64_t window_at; /* the file's bytes [window_at, window_at + window.len) */
};

enum inspect_kind { INSPECT_FOREIGN, INSPECT_CURRENT, INSPECT_MANIFEST, INSPECT_LOG, INSPECT_SEGMENT };

/* A whole file, opened and closed here; *inspect has `out` and `rows` set, and
 * fd -1. Returns an exit code: TOOL_FAILED also when damage was told. */
int inspect_file(struct inspect *inspect, const char *path);

/* Returns an exit code; TOOL_FAILED after saying why. */
int inspect_open(struct inspect *inspect, const char *path);
void inspect_close(struct inspect *inspect);
/* By the first bytes, or else by the name. */
enum inspect_kind inspect_kind_of(struct inspect *inspect);

/* The file's bytes, valid until the next call. Returns OK; CORRUPT when the
 * file ends before; IO; NO_MEMORY: with a story. */
NODISCARD esker_status inspect_view(struct inspect *inspect, uint64_t offset, uint64_t len,
                                    struct bytes *out);

void inspect_line(struct inspect *inspect, const char *format, ...) PRINTF_LIKE(2, 3);
/* "DAMAGED at byte N: …" */
void inspect_damage(struct inspect *inspect, uint64_t offset, const char *format, ...) PRINTF_LIKE(3, 4);
/* The same with the story of a failed call; false if that was no damage but
 * the disk or memory, and inspection cannot go on. */
bool inspect_story(struct inspect *inspect);

enum { INSPECT_KEY_TEXT = 300, INSPECT_UUID_TEXT = 33 };

/* The first bytes of a key, escaped and in quotes. */
const char *inspect_key(struct bytes key, char out[INSPECT_KEY_TEXT]);
const char *inspect_uuid(const uint8_t uuid[16], char out[INSPECT_UUID_TEXT]);

/* One each: everything in the file. Return false when the reading failed, with a story. */
bool inspect_current(struct inspect *inspect);
bool inspect_manifest(struct inspect *inspect);
bool inspect_log(struct inspect *inspect);
bool inspect_segment(struct inspect *inspect);

/* In a few words, from the head and foot of the file alone; for a listing. */
void inspect_head_summary(struct inspect *inspect, bool current, char *out, size_t size);
void inspect_log_summary(struct inspect *inspect, char *out, size_t size);
void inspect_segment_summary(struct inspect *inspect, char *out, size_t size);

#endif
