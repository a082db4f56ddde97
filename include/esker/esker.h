/* SPDX-License-Identifier: MIT */
/*
 * esker: an embedded, ordered key-value store for programs in which many
 * threads read while data is being written.
 *
 * Said once, for every call below:
 *  - Pointers are non-NULL unless the comment says "nullable"; a NULL where
 *    none is allowed is ESKER_INVALID. Sizes are in bytes. Keys are byte
 *    strings ordered by memcmp; a shorter key sorts before its extensions.
 *  - Threads: any number of threads may call anything on one database at the
 *    same time. Batches, iterators and values belong to one thread at a time.
 *    No thread registers; a thread may exit at any moment. One that is
 *    cancelled (pthread_cancel, of the deferred type) finishes its call and
 *    ends at its next cancellation point behind it; no call here is one.
 *  - Errors: a result below 0 is a failure; esker_last_error() then has the
 *    story in one sentence. Output parameters are untouched by a failure.
 *    A write that failed with ESKER_IO or ESKER_POISONED after it was handed
 *    to the disk has an unknown outcome, decided at the next open. Every
 *    other failure wrote nothing.
 *  - Limits: key 1 B to 32 KiB, value 0 B to 256 MiB, batch up to half the
 *    memory budget. Beyond them: ESKER_TOO_LARGE, nothing written.
 *  - The library never aborts or exits on a caller's or a disk's mistake,
 *    installs no signal handler and opens no network connection.
 */
#ifndef ESKER_H
#define ESKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "esker/version.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define ESKER_API __attribute__((visibility("default")))
#define ESKER_NODISCARD __attribute__((warn_unused_result))
#else
#define ESKER_API
#define ESKER_NODISCARD
#endif

/* ---- Status ------------------------------------------------------------ */

/* Stable numbers: a value never changes its meaning. X(name, number, sentence) */
#define ESKER_STATUS_LIST(X)                                                                                 \
    X(OK, 0, "done")                                                                                         \
    X(NOT_FOUND, 1, "no such key")                                                                           \
    X(END, 2, "no entry in that direction")                                                                  \
    X(TRUNCATED, 3, "the buffer was smaller than the value")                                                 \
    X(INVALID, -10, "an argument is not allowed; nothing changed")                                           \
    X(UNSUPPORTED, -11, "this build or this format version cannot do that")                                  \
    X(TOO_LARGE, -12, "beyond a limit; nothing was written")                                                 \
    X(BUSY, -20, "in use elsewhere")                                                                         \
    X(CONFLICT, -21, "a required key has changed")                                                           \
    X(READ_ONLY, -22, "opened for reading only")                                                             \
    X(FORKED, -23, "the handle belongs to the parent process")                                               \
    X(POISONED, -24, "an earlier write could not be made durable; reopen to write")                          \
    X(TIMED_OUT, -25, "the time limit passed first")                                                         \
    X(IO, -40, "the operating system reported an I/O error")                                                 \
    X(NO_SPACE, -41, "the file system is full")                                                              \
    X(CORRUPT, -50, "bytes on disk are damaged")                                                             \
    X(NO_MEMORY, -60, "out of memory")

typedef enum esker_status {

#define ESKER_STATUS_ENUM(name, number, sentence) ESKER_##name = (number),
    ESKER_STATUS_LIST(ESKER_STATUS_ENUM)
#undef ESKER_STATUS_ENUM
} esker_status;

/* The status's name without prefix, such as "NOT_FOUND"; "UNKNOWN" for other
 * numbers. Owns: static storage. */
ESKER_API const char *esker_status_name(esker_status status);

/* One failure. Owns: nothing; plain data. */
typedef struct esker_error {
    size_t struct_size; /* set by esker_error_init */
    esker_status status;
    int os_errno;      /* 0 when the operating system was not involved */
    uint64_t offset;   /* byte offset in `file`; 0 when there is none */
    char file[64];     /* file name inside the directory; "" when there is none */
    char message[192]; /* one plain sentence */
} esker_error;

ESKER_API void esker_error_init_sized(void *error, size_t size);

/* Copies this thread's last failure to *out, filled up to out->struct_size.
 * A call that succeeds leaves it untouched; status ESKER_OK if none failed. */
ESKER_API void esker_last_error(esker_error *out);

/* ---- Types ------------------------------------------------------------- */

typedef struct esker_db esker_db;
typedef struct esker_batch esker_batch;
typedef struct esker_snapshot esker_snapshot;
typedef struct esker_iter esker_iter;

/* Position in the log, version number and durability cursor in one. Grows
 * with every write, is never reused, not even across a crash. A version is
 * visible at S when its LSN < S. */
typedef uint64_t esker_lsn;

/* Borrowed bytes. Owns: nothing. data may be NULL when size is 0. */
typedef struct esker_slice {
    const void *data;
    size_t size;
} esker_slice;

/* Bytes held for the caller. Owns: valid until esker_value_release. */
typedef struct esker_value {
    const void *data;
    size_t size;
    void *pin; /* private */
} esker_value;

static inline esker_slice
esker_bytes(const void *data, size_t size)
{
    esker_slice slice;
    slice.data = data;
    slice.size = size;
    return slice;
}

/* The bytes of a C string without its terminating zero. */
static inline esker_slice
esker_str(const char *string)
{
    return esker_bytes(string, strlen(string));
}

/* Memory functions for one database. All three must be set; they are called
 * from any thread and may return NULL, which becomes ESKER_NO_MEMORY. The
 * struct is copied at open; ctx must live as long as the database. */
typedef struct esker_allocator {
    void *(*alloc)(void *ctx, size_t size);
    void *(*aligned_alloc)(void *ctx, size_t alignment, size_t size);
    void (*free)(void *ctx, void *ptr);
    void *ctx;
} esker_allocator;

/* ---- Events ------------------------------------------------------------ */

typedef enum esker_event_kind {
    ESKER_EVENT_FLUSH = 1,      /* a memtable became a segment; bytes, duration_ns */
    ESKER_EVENT_COMPACTION = 2, /* segments were merged; bytes written, duration_ns */
    ESKER_EVENT_STALL = 3, /* writes waited since the last such event; duration_ns, wait_cause, wait_level */
    ESKER_EVENT_POISONED = 4,   /* writes are refused from now on; error */
    ESKER_EVENT_BACKGROUND = 5, /* background work failed and will be tried again; error */
    ESKER_EVENT_PROGRESS = 6    /* a merge goes on, by sixteenths at most; bytes read so far, bytes_total */
} esker_event_kind;

/* Why a write waited before it was written. */
enum {
    ESKER_WAIT_NONE = 0,
    ESKER_WAIT_MEMORY = 1, /* all memtables are full or about to be, and none has been flushed yet */
    ESKER_WAIT_LOG = 2,    /* the next log file is not ready */
    ESKER_WAIT_LEVEL0 = 3, /* level 0 has as many segments as it may */
    ESKER_WAIT_DEBT = 4    /* writes are slowed down since merges of a level are behind */
};

#define ESKER_WAIT_CAUSES 5

typedef struct esker_event {
    size_t struct_size;
    esker_event_kind kind;
    uint64_t bytes;
    uint64_t duration_ns;
    const esker_error *error; /* nullable; valid during the call */
    int wait_cause;           /* ESKER_WAIT_* */
    uint32_t wait_level;
    uint64_t bytes_total; /* of _PROGRESS: what the merge reads in all */
} esker_event;

/* Called from an engine thread that holds no lock. May read from the
 * database; must not close it, and must return: the thread is the engine's,
 * not one that may exit. */
typedef void esker_event_fn(void *ctx, const esker_event *event);

/* ---- Options ----------------------------------------------------------- */

/* What an acknowledged write survives. At every level what survives is a
 * prefix of the commit order, made of whole batches. */
enum {
    ESKER_DURABLE_DEFAULT = 0,  /* in esker_write_options: the database's level */
    ESKER_DURABLE_MEMORY = 1,   /* nothing until the next flush or sync (write-back) */
    ESKER_DURABLE_PROCESS = 2,  /* the death of the process (kill -9) */
    ESKER_DURABLE_INTERVAL = 3, /* power loss, but for the last sync_interval_ms */
    ESKER_DURABLE_SYNC = 4      /* power loss */
};

enum { ESKER_COMPRESS_AUTO = 0, ESKER_COMPRESS_NONE = 1, ESKER_COMPRESS_LZ4 = 2, ESKER_COMPRESS_ZSTD = 3 };

enum { ESKER_IO_AUTO = 0, ESKER_IO_URING = 1, ESKER_IO_POSIX = 2 };

typedef struct esker_options {
    size_t struct_size;               /* set by esker_options_init */
    bool create_if_missing;           /* true */
    bool error_if_exists;             /* false */
    uint64_t memory_budget_bytes;     /* 256 MiB; at least 8 MiB; memtables + cache + filters + buffers */
    int durability;                   /* ESKER_DURABLE_PROCESS */
    uint32_t sync_interval_ms;        /* 10; for ESKER_DURABLE_INTERVAL */
    int compression;                  /* ESKER_COMPRESS_AUTO */
    uint32_t background_threads;      /* 0 = from the machine; how many may work for this database */
    int io_backend;                   /* ESKER_IO_AUTO: io_uring where it works, posix elsewhere */
    const esker_allocator *allocator; /* nullable: malloc */
    esker_event_fn *on_event;         /* nullable */
    void *event_ctx;
    uint64_t default_ttl_ms; /* 0 = puts stay; else how long those that say nothing else live */
} esker_options;

typedef struct esker_write_options {
    size_t struct_size;        /* set by esker_write_options_init */
    int durability;            /* ESKER_DURABLE_DEFAULT */
    uint32_t stall_timeout_ms; /* 0 = wait for memory as long as it takes; else TIMED_OUT, nothing written */
    /* How long what is put lives, from the time of the write on; 0 = the database's default_ttl_ms, or
     * ESKER_TTL_NONE. In a batch it is for the puts that were given no time of their own. */
    uint64_t ttl_ms;
} esker_write_options;

/* As a time to live: for ever, whatever the default is. */
#define ESKER_TTL_NONE UINT64_MAX

typedef struct esker_read_options {
    size_t struct_size;             /* set by esker_read_options_init */
    const esker_snapshot *snapshot; /* nullable: the newest state */
    esker_slice lower;              /* iterators: keys >= lower; empty = none; copied at create */
    esker_slice upper;              /* iterators: keys < upper; empty = none; copied at create */
    esker_slice prefix;             /* iterators: keys that start with it; empty = none; copied at create */
    bool fill_cache;                /* true */
    bool keys_only;                 /* iterators: values are not read; esker_iter_value is ESKER_INVALID */
} esker_read_options;

ESKER_API void esker_options_init_sized(void *options, size_t size);
ESKER_API void esker_write_options_init_sized(void *options, size_t size);
ESKER_API void esker_read_options_init_sized(void *options, size_t size);

/* Applies text such as "memory=256M;durability=interval:10ms;compression=lz4;
 * io=posix;threads=2" to *options. Keys: memory, durability (memory, process,
 * interval[:TIME], sync), compression (auto, none, lz4, zstd), io (auto,
 * uring, posix), threads, create, exclusive (yes, no), ttl (0, or a time in ms, s, m, h, d).
 * Returns: OK; INVALID names the word, *options untouched. */
ESKER_API ESKER_NODISCARD esker_status esker_options_parse(esker_options *options, const char *text);

/* ---- Open and close ---------------------------------------------------- */

/* Opens the database in directory `path`, recovering what a crash left.
 * One process opens a directory for writing; the second open, in this process
 * or another, gets BUSY at once.
 * Blocks: reads the log (about 0.3 s per 64 MiB).
 * Returns: OK; INVALID (exists and error_if_exists, missing without
 * create_if_missing, bad option); BUSY; IO (not a directory, no permission);
 * CORRUPT (damage, or files of ours without CURRENT); UNSUPPORTED (another
 * format); NO_SPACE; NO_MEMORY. Nothing is written on INVALID, BUSY, CORRUPT
 * or UNSUPPORTED. */
ESKER_API ESKER_NODISCARD esker_status esker_open(const char *path,
                                                  const esker_options *options /* nullable */,
                                                  esker_db **db_out);

/* Makes everything durable, seals the log and frees the handle.
 * Blocks: at most one block of background work and two device syncs.
 * Returns: OK; BUSY with live iterators, snapshots, values or calls in
 * flight, and nothing changed; IO or POISONED when the last writes could not
 * be made durable: the handle is freed all the same. */
ESKER_API esker_status esker_close(esker_db *db /* nullable */);

/* Removes the database's files, and the directory if that leaves it empty.
 * Only files that are provably esker's are removed.
 * Returns: OK; NOT_FOUND; BUSY when open; IO; CORRUPT when a file that looks
 * like ours cannot be proven ours (it stays). */
ESKER_API ESKER_NODISCARD esker_status esker_destroy(const char *path);

/* ---- Writes ------------------------------------------------------------ */

ESKER_API ESKER_NODISCARD esker_status esker_put(esker_db *db, esker_slice key, esker_slice value,
                                                 const esker_write_options *options /* nullable */);

/* ---- Time to live: a put may say how long its value lives (ttl_ms). From then on
 * it reads as if it had been deleted, at once and everywhere: by gets, iterators
 * (all steps behind one positioning judge by one time) and snapshots, which do not
 * stop the clock. Nothing older comes back. Its space is given back by merges, and
 * without one where whole segments have expired. Time is the machine's wall clock
 * (CLOCK_REALTIME), by which the database, while it is open, goes back by no more than a second,
 * however the clock is set. Such a value may have 8 bytes less than others. */

/* Deleting a key that does not exist is OK. */
ESKER_API ESKER_NODISCARD esker_status esker_delete(esker_db *db, esker_slice key,
                                                    const esker_write_options *options /* nullable */);

/* Applies the whole batch atomically; *lsn_out = the first LSN after it, the
 * ticket for esker_wait_durable. The batch is unchanged and can be reused.
 * Blocks: for memory (see stall_timeout_ms) and for the durability level.
 * Returns: OK; CONFLICT (a required key has changed; nothing written);
 * INVALID; TOO_LARGE; TIMED_OUT; NO_SPACE; NO_MEMORY; IO; POISONED. */
ESKER_API ESKER_NODISCARD esker_status esker_write(esker_db *db, const esker_batch *batch,
                                                   const esker_write_options *options /* nullable */,
                                                   esker_lsn *lsn_out /* nullable */);

ESKER_API ESKER_NODISCARD esker_status esker_batch_create(esker_batch **out);
ESKER_API void esker_batch_destroy(esker_batch *batch /* nullable */);
ESKER_API void esker_batch_clear(esker_batch *batch);
ESKER_API ESKER_NODISCARD esker_status esker_batch_put(esker_batch *batch, esker_slice key,
                                                       esker_slice value);
/* A put that lives for ttl_ms from each write of the batch on. 0: what the write says;
 * ESKER_TTL_NONE: for ever. */
ESKER_API ESKER_NODISCARD esker_status esker_batch_put_ttl(esker_batch *batch, esker_slice key,
                                                           esker_slice value, uint64_t ttl_ms);
/* A put that lives until then, milliseconds since 1970 UTC, as esker_iter_expires_ms says it; 0: for ever. */
ESKER_API ESKER_NODISCARD esker_status esker_batch_put_until(esker_batch *batch, esker_slice key,
                                                             esker_slice value, uint64_t expires_ms);
ESKER_API ESKER_NODISCARD esker_status esker_batch_delete(esker_batch *batch, esker_slice key);
ESKER_API size_t esker_batch_count(const esker_batch *batch);
ESKER_API size_t esker_batch_size_bytes(const esker_batch *batch);

/* The write fails with CONFLICT, whole, if `key` has a version (a put or a
 * delete) with LSN >= unchanged_since. Use the LSN of the snapshot it was
 * read at; 0 asks that there be nothing of the key, neither a value nor a
 * delete that is still kept. Where no version is left, and history since then
 * is not kept (esker_snapshot_create_at would say NOT_FOUND), it is CONFLICT
 * too. Batches with requirements may be as large as others. */
ESKER_API ESKER_NODISCARD esker_status esker_batch_require(esker_batch *batch, esker_slice key,
                                                           esker_lsn unchanged_since);

/* ---- Durability -------------------------------------------------------- */

/* The first LSN that readers do not see yet. 0 on an invalid handle. */
ESKER_API esker_lsn esker_visible_lsn(const esker_db *db);

/* Batches whose end LSN (lsn_out) <= this survive power loss. */
ESKER_API esker_lsn esker_durable_lsn(const esker_db *db);

/* Waits until esker_durable_lsn >= lsn and causes the sync it waits for.
 * timeout_ms: -1 = no limit. It bounds the wait for syncs of others: where none
 * goes on this call makes it, and returns when it is done. Who must not wait
 * writes at ESKER_DURABLE_INTERVAL and looks at the eventfd.
 * Returns: OK; TIMED_OUT; INVALID (lsn beyond what was written); IO; POISONED. */
ESKER_API ESKER_NODISCARD esker_status esker_wait_durable(esker_db *db, esker_lsn lsn, int64_t timeout_ms);

/* Makes every write acknowledged so far durable. */
ESKER_API ESKER_NODISCARD esker_status esker_sync(esker_db *db);

/* An eventfd that becomes readable whenever the durable LSN moved, or -1. One
 * read takes all moves so far, also from who is about to poll: of several waiters
 * none reads, and each has an epoll of its own, edge-triggered. It does not tell
 * of failures: ESKER_EVENT_POISONED does.
 * Owns: the database, whose close ends it; do not close it, but in a forked child. */
ESKER_API int esker_durable_eventfd(esker_db *db);

/* ---- Reads ------------------------------------------------------------- */

/* Returns: OK and *value_out held until esker_value_release; NOT_FOUND;
 * INVALID; IO; CORRUPT; NO_MEMORY. */
ESKER_API ESKER_NODISCARD esker_status esker_get(esker_db *db, esker_slice key,
                                                 const esker_read_options *options /* nullable */,
                                                 esker_value *value_out);
ESKER_API void esker_value_release(esker_value *value /* nullable */);

/* The fastest get: copies into the caller's buffer and allocates nothing when
 * the data is in memory.
 * Returns: OK, *size_out = the value's size; TRUNCATED: cap bytes copied,
 * *size_out = the full size; NOT_FOUND; INVALID; IO; CORRUPT; NO_MEMORY. */
ESKER_API ESKER_NODISCARD esker_status esker_get_copy(esker_db *db, esker_slice key,
                                                      const esker_read_options *options /* nullable */,
                                                      void *buf, size_t cap, size_t *size_out);

/* n gets at one point in time, by the clock too. Each status says what became of its key; values
 * of keys that were found must be released, whatever is returned.
 * Returns: OK when every status is OK or NOT_FOUND, else the first failure. When
 * the call as a whole is a mistake (INVALID, TOO_LARGE: an argument, or any key
 * that no database could hold) or has no memory to begin with, no output is touched. */
ESKER_API ESKER_NODISCARD esker_status esker_multi_get(esker_db *db, size_t n, const esker_slice keys[],
                                                       const esker_read_options *options /* nullable */,
                                                       esker_value values_out[], esker_status statuses_out[]);

/* ---- Snapshots --------------------------------------------------------- */

ESKER_API ESKER_NODISCARD esker_status esker_snapshot_create(esker_db *db, esker_snapshot **out);

/* At a past or present commit, rounded down to a whole one.
 * Returns: OK; INVALID (lsn in the future); NOT_FOUND (that history may be
 * gone: keep a snapshot to keep history); NO_MEMORY. */
ESKER_API ESKER_NODISCARD esker_status esker_snapshot_create_at(esker_db *db, esker_lsn lsn,
                                                                esker_snapshot **out);
ESKER_API void esker_snapshot_release(esker_snapshot *snapshot /* nullable */);

/* It sees exactly the versions with LSN < this. */
ESKER_API esker_lsn esker_snapshot_lsn(const esker_snapshot *snapshot);

/* ---- Iterators --------------------------------------------------------- */

/* Starts unpositioned, at the newest state or at options->snapshot. */
ESKER_API ESKER_NODISCARD esker_status esker_iter_create(esker_db *db,
                                                         const esker_read_options *options /* nullable */,
                                                         esker_iter **out);
ESKER_API void esker_iter_destroy(esker_iter *iter /* nullable */);

/* Each returns OK (positioned), END, or a failure, so that an error is never
 * mistaken for the end. next after END at the end, or prev after END at the
 * start, is END again; the opposite step returns to the entry at that edge.
 * next and prev before the first positioning, or after a failure: INVALID.
 * seek: first key >= key. seek_for_prev: last key <= key. */
ESKER_API ESKER_NODISCARD esker_status esker_iter_first(esker_iter *iter);
ESKER_API ESKER_NODISCARD esker_status esker_iter_last(esker_iter *iter);
ESKER_API ESKER_NODISCARD esker_status esker_iter_next(esker_iter *iter);
ESKER_API ESKER_NODISCARD esker_status esker_iter_prev(esker_iter *iter);
ESKER_API ESKER_NODISCARD esker_status esker_iter_seek(esker_iter *iter, esker_slice key);
ESKER_API ESKER_NODISCARD esker_status esker_iter_seek_for_prev(esker_iter *iter, esker_slice key);

/* Valid until the next step; an empty slice when not positioned. */
ESKER_API esker_slice esker_iter_key(const esker_iter *iter);

/* Returns: OK and bytes valid until the next step; INVALID when not
 * positioned or keys_only; IO; CORRUPT. */
ESKER_API ESKER_NODISCARD esker_status esker_iter_value(esker_iter *iter, esker_slice *out);
ESKER_API size_t esker_iter_value_size(const esker_iter *iter);

/* When the entry will have expired, milliseconds since 1970 UTC; 0: never, or not positioned. */
ESKER_API uint64_t esker_iter_expires_ms(const esker_iter *iter);

/* To the newest state, or to the same snapshot on the newest files; keeps the
 * position: on the same key, or on the next one if that key is gone (END if
 * there is none), or beyond the end that it stood at: then, and where it was not
 * positioned, it returns OK and is as it was. */
ESKER_API ESKER_NODISCARD esker_status esker_iter_refresh(esker_iter *iter);

/* ---- Maintenance ------------------------------------------------------- */

/* Writes the memtables out as segments. Durable when it returns OK. */
ESKER_API ESKER_NODISCARD esker_status esker_flush(esker_db *db);

/* Merges what overlaps [lower, upper) down to the last level; NULL = no bound. */
ESKER_API ESKER_NODISCARD esker_status esker_compact(esker_db *db, const esker_slice *lower /* nullable */,
                                                     const esker_slice *upper /* nullable */);

/* Called for each thing found; non-zero stops the search. */
typedef int esker_verify_fn(void *ctx, const esker_error *finding);

/* Reads every byte of a closed database and writes none.
 * Returns: OK; CORRUPT if anything was found; NOT_FOUND; BUSY when open; IO. */
ESKER_API ESKER_NODISCARD esker_status esker_verify(const char *path,
                                                    esker_verify_fn *each_finding /* nullable */,
                                                    void *ctx /* nullable */);

/* Called with each sentence of a repair's report: what was found, kept and lost. */
typedef void esker_repair_fn(void *ctx, const char *sentence);

/* Makes a damaged closed database one that opens again: keeps every row that a
 * checksum proves, and says which keys and LSNs are lost. Whole segments stay as
 * they are; each file that is replaced is first copied to NAME.lost in the same directory, which
 * nothing ever removes. Needs room for that. A crash on the way leaves the old state or the new one.
 * An undamaged database is not touched. Returns: OK; NOT_FOUND; BUSY when open;
 * CORRUPT when nothing is provable, UNSUPPORTED when a later version wrote it
 * (then nothing was changed); NO_SPACE; NO_MEMORY; IO. */
ESKER_API ESKER_NODISCARD esker_status esker_repair(const char *path, esker_repair_fn *say /* nullable */,
                                                    void *ctx /* nullable */);

#define ESKER_LEVELS_MAX 7

/* What a step of a flush or merge does. */
enum {
    ESKER_STEP_CHOOSE = 0,  /* decides what to do, and begins it */
    ESKER_STEP_OPEN = 1,    /* opens what is merged */
    ESKER_STEP_ROWS = 2,    /* some rows */
    ESKER_STEP_END = 3,     /* index and filter of an output */
    ESKER_STEP_SYNC = 4,    /* makes an output durable */
    ESKER_STEP_INSTALL = 5, /* puts the outputs in the place of the inputs */
    ESKER_STEPS = 6
};

#define ESKER_STEP_NS_FIRST 62500 /* of steps_by_cpu and steps_by_time; 2 ms is the border after the sixth */
#define ESKER_STEP_LENGTHS 12

typedef struct esker_stats {
    size_t struct_size; /* set by esker_stats_init */
    uint64_t visible_lsn, durable_lsn;
    uint64_t commits, puts, deletes, bytes_written; /* bytes: keys and values as given */
    uint64_t gets, gets_from_memtable, gets_not_found;
    uint64_t log_bytes_written; /* frames, written by leaders or copied into mapped logs */
    uint64_t log_syncs, log_files, log_file_bytes;
    uint64_t flushes, flush_bytes_written;
    uint64_t compactions, compaction_bytes_read, compaction_bytes_written;
    uint64_t memtables, memtable_bytes;
    uint64_t cache_bytes, cache_capacity_bytes, cache_hits, cache_misses;
    uint64_t segments, segment_bytes;
    uint64_t level_segments[ESKER_LEVELS_MAX], level_bytes[ESKER_LEVELS_MAX];
    uint64_t snapshots_live, iterators_live, values_live, versions_live;
    uint64_t oldest_snapshot_lsn;         /* 0 = none */
    uint64_t stalls, stall_ns;            /* writes that waited for memory, and how long together */
    uint64_t recovery_ns, recovery_bytes; /* of this open */
    int io_backend;                       /* ESKER_IO_URING or ESKER_IO_POSIX: what runs */
    char io_reason[96];                   /* why, in one sentence, as of now */
    /* Writes that waited and how long together, by ESKER_WAIT_*. */
    uint64_t wait_count[ESKER_WAIT_CAUSES], wait_ns[ESKER_WAIT_CAUSES];
    uint64_t level_target_bytes[ESKER_LEVELS_MAX]; /* level 0 has none */
    uint64_t debt_bytes;          /* what merges have still to move until every level is within its target */
    uint64_t drain_bytes_per_s;   /* what merges take out of level 0, as measured last */
    uint64_t compactions_failed;  /* merges that failed and kept their inputs; most are tried again */
    uint64_t compactions_damaged; /* those of them that met damage, which is left alone from then on */
    /* The oldest state that an iterator, a value or a call still reads though it was replaced: its number
     * (0 = none), how long ago that was, and the bytes of memtables and segments that it alone keeps. */
    uint64_t oldest_version_id, oldest_version_age_ns, oldest_version_bytes;
    /* Memory by what it is for: windows with index and mapped logs, the active one as it will be
     * when full; frames are cached blocks; slack is what the engine's heap holds beyond these. */
    uint64_t memory_budget_bytes;
    uint64_t memory_windows_bytes, memory_indexes_bytes, memory_frames_bytes;
    uint64_t memory_iterators_bytes, memory_merges_bytes;
    uint64_t cache_evictions, segments_open;
    uint64_t rows_skipped; /* deleted and old versions that iterators (counted when they end) stepped over */
    uint64_t memory_slack_bytes;
    /* Flushes and merges go in steps, between which a thread turns to what is more urgent: how many
     * by what they did, the processor time of all of them, and of the longest. */
    uint64_t step_count[ESKER_STEPS], step_cpu_ns[ESKER_STEPS], step_cpu_longest_ns[ESKER_STEPS];
    /* How many took less than ESKER_STEP_NS_FIRST << i of processor time, or of time; the last: longer. */
    uint64_t steps_by_cpu[ESKER_STEP_LENGTHS], steps_by_time[ESKER_STEP_LENGTHS];
    uint64_t log_bytes_prepared; /* new log files are filled once where syncs are expected, and used again */
    uint64_t filter_pages_damaged;         /* met and done without; esker_verify tells where */
    uint64_t rows_expired;                 /* puts whose time was up when a flush or merge met them */
    uint64_t segments_expired;             /* dropped unread, since nothing in them was alive */
    uint64_t level_runs[ESKER_LEVELS_MAX]; /* sorted runs: of level 0 its tiers */
} esker_stats;

ESKER_API void esker_stats_init_sized(void *stats, size_t size);

typedef struct esker_wait {
    size_t struct_size; /* set by esker_wait_init */
    int cause;          /* ESKER_WAIT_*; _NONE: no write of this thread ever waited */
    uint32_t level;     /* of _DEBT: the level that is behind most */
    uint64_t wait_ns;
} esker_wait;

ESKER_API void esker_wait_init_sized(void *wait, size_t size);
/* This thread's last write that waited, in whatever database. Threads: any. */
ESKER_API void esker_last_wait(esker_wait *out);

ESKER_API ESKER_NODISCARD esker_status esker_get_stats(esker_db *db, esker_stats *out);

enum { ESKER_STATS_TEXT = 0, ESKER_STATS_JSON = 1, ESKER_STATS_PROMETHEUS = 2 };

/* Owns: *out is a zero-terminated string for esker_free. */
ESKER_API ESKER_NODISCARD esker_status esker_stats_text(esker_db *db, int format, char **out);
ESKER_API void esker_free(void *ptr /* nullable */);

/* ---- Initialisers that know the caller's struct sizes ------------------- */

static inline void
esker_error_init(esker_error *error)
{
    esker_error_init_sized(error, sizeof *error);
}

static inline void
esker_options_init(esker_options *options)
{
    esker_options_init_sized(options, sizeof *options);
}

static inline void
esker_write_options_init(esker_write_options *options)
{
    esker_write_options_init_sized(options, sizeof *options);
}

static inline void
esker_read_options_init(esker_read_options *options)
{
    esker_read_options_init_sized(options, sizeof *options);
}

static inline void
esker_stats_init(esker_stats *stats)
{
    esker_stats_init_sized(stats, sizeof *stats);
}

static inline void
esker_wait_init(esker_wait *wait)
{
    esker_wait_init_sized(wait, sizeof *wait);
}

#ifdef __cplusplus
}
#endif

#endif
