/* SPDX-License-Identifier: MIT */
/*
 * What the benchmark asks of a storage engine. One adapter is one file with one
 * `const struct bench_engine`; nothing else in the benchmark knows its name.
 *
 * A database (`void *db`) is opened once per process. A session belongs to one
 * thread; what an engine wants per thread (a cursor, a read transaction) lives
 * there. A snapshot is a fixed state, an iterator a position in one.
 *
 * An int result is BENCH_OK, BENCH_NONE (no such key, no such row) or
 * BENCH_FAILED after bench_complain() has said why.
 */
#ifndef ESKER_TOOLS_BENCH_ENGINE_H
#define ESKER_TOOLS_BENCH_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"

enum { BENCH_FAILED = -1, BENCH_OK = 0, BENCH_NONE = 1 };

/* What an acknowledged write survives. */
enum bench_level {
    BENCH_PROCESS, /* the death of the process: the log reached the kernel */
    BENCH_SYNC     /* power loss: the log reached the disk */
};

/* How blocks are stored. */
enum bench_codec {
    BENCH_CODEC_USUAL, /* lz4, or what comes nearest to it */
    BENCH_CODEC_NONE,
    BENCH_CODEC_LZ4 /* in every file; else an engine may leave out files that live for a short time */
};

/* Everything that is the same for every engine. */
struct bench_setup {
    const char *dir;
    uint64_t memory_bytes;       /* write buffers and caches together */
    uint64_t write_buffer_bytes; /* of that, one of two write buffers, for engines that want to be told */
    uint64_t data_bytes;         /* keys and values expected; for engines that map a file of fixed size */
    enum bench_level level;
    enum bench_codec codec;
    bool bounded;      /* filters and indexes too must stay in memory_bytes, where the engine can do that */
    bool random_reads; /* from the disk: reading ahead does not pay */
    uint32_t sessions_max;
    uint32_t snapshots_max;
};

struct bench_write {
    struct bytes key, value;
    bool remove;
};

/* Looks at a value where the engine keeps it; false if it is not what was written. */
typedef bool bench_look_fn(void *arg, struct bytes value);

/* The same for the value of the key at that place of an array. */
typedef bool bench_each_fn(void *arg, size_t place, struct bytes value);

typedef void bench_tell_fn(void *arg, const char *name, double value);

enum { BENCH_MANY_MAX = 64 }; /* keys of one get_many */

enum bench_step { BENCH_FIRST, BENCH_LAST, BENCH_SEEK, BENCH_NEXT, BENCH_PREV };

/* Valid until the iterator's next step. */
struct bench_row {
    struct bytes key, value;
};

struct bench_engine {
    const char *name;
    uint32_t snapshots_max; /* how many it can hold at once; 0: none */
    bool maps_files;        /* reads a file through a mapping: the page cache is its cache */
    bool merges_runs;       /* compact makes one sorted run of several */
    void (*version)(char *out, size_t cap);
    /* The settings that follow from *setup, in words a reader of the results can repeat. */
    void (*settings)(const struct bench_setup *setup, char *out, size_t cap);

    int (*open)(const struct bench_setup *setup, void **db_out);
    int (*close)(void *db);
    int (*session_open)(void *db, void **session_out);
    void (*session_close)(void *session);

    int (*put)(void *session, struct bytes key, struct bytes value);
    int (*remove)(void *session, struct bytes key);
    /* All or nothing. */
    int (*batch)(void *session, const struct bench_write *writes, size_t count);
    /* Copies the value to buf; snapshot may be NULL: the newest state. */
    int (*get)(void *session, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out);
    /* As get, at the newest state and without the copy: `look` is called on the engine's own bytes, and
     * its answer left in *good_out. */
    int (*look)(void *session, struct bytes key, bench_look_fn *look, void *arg, bool *good_out);

    /* Nullable: looks at the values of several keys, got by one call of the engine. BENCH_NONE: one of
     * them is not there. */
    int (*get_many)(void *session, const struct bytes *keys, size_t count, bench_each_fn *each, void *arg,
                    bool *good_out);

    int (*snapshot_open)(void *session, void **snapshot_out);
    void (*snapshot_close)(void *session, void *snapshot);

    /* An iterator at the newest state or at a snapshot. One per session at a time. */
    int (*iter_open)(void *session, void *snapshot, void **iter_out);
    /* key is read by BENCH_SEEK only: the first row at or after it. */
    int (*iter_step)(void *iter, enum bench_step step, struct bytes key, struct bench_row *row_out);
    void (*iter_close)(void *iter);

    /* What is in memory goes to files. */
    int (*flush)(void *db);
    /* Everything is merged as far as it goes; BENCH_NONE: there is nothing like it. */
    int (*compact)(void *db);
    /* Nullable: figures about background work that only the engine has. */
    void (*tell)(void *db, bench_tell_fn *tell, void *arg);
};

/* The sentence behind the last BENCH_FAILED of this thread. */
const char *bench_complaint(void);
/* Remembers the sentence; returns BENCH_FAILED. */
int bench_complain(const char *format, ...) PRINTF_LIKE(1, 2);

extern const struct bench_engine bench_engine_esker;
/* Text for esker_options_parse, applied after the rest. NULL: none. */
extern const char *bench_engine_esker_options;

#endif
