/* SPDX-License-Identifier: MIT */
/*
 * `esker demo`: the main job on this machine's own data. A child process loads
 * half of the package index while readers check what they see; it is killed
 * hard; this process reopens the database, proves that nothing acknowledged is
 * lost, loads the rest, compacts, verifies and reports.
 *
 * The records stand in one shared memory file, so that both processes mean the
 * same by "record i". They are written in that order, in batches of
 * demo_batch_records; so the state at any point of the commit order is "the
 * first m records", m at a batch's end, and that is what every check asks for.
 */
#ifndef ESKER_TOOLS_DEMO_H
#define ESKER_TOOLS_DEMO_H

#include <pthread.h>
#include <stdbool.h>

#include "base/buf.h"
#include "esker/esker.h"
#include "sync/atomic.h"
#include "tools/histogram.h"

/* ---- demo_records.c -------------------------------------------------------- */

struct demo_records {
    int fd;             /* the memory file */
    const uint8_t *map; /* all of it, read-only */
    size_t map_len;
    uint64_t count;
    uint64_t bytes;          /* of keys and values */
    const uint64_t *offsets; /* of each record in `data`, in the order of writing */
    const uint32_t *sorted;  /* record numbers in the order of keys */
    const uint8_t *data;
};

struct demo_records_builder {
    struct buf data, offsets;
};

void demo_builder_init(struct demo_records_builder *builder);
void demo_builder_fini(struct demo_records_builder *builder);
NODISCARD esker_status demo_builder_add(struct demo_records_builder *builder, struct bytes key,
                                        struct bytes value);
/* Drops records whose key came before, and fills a memory file. */
NODISCARD esker_status demo_records_create(const struct demo_records_builder *builder,
                                           struct demo_records *out);
/* What another process created. */
NODISCARD esker_status demo_records_attach(int fd, struct demo_records *out);
void demo_records_fini(struct demo_records *records);

struct bytes demo_record_key(const struct demo_records *records, uint64_t record);
struct bytes demo_record_value(const struct demo_records *records, uint64_t record);

/* 16, fewer where there are not enough records for many batches. */
uint64_t demo_batch_records(const struct demo_records *records);

/* ---- demo_source.c --------------------------------------------------------- */

/* Fills *out from apt's lists or else dpkg's status file; `told` is where the
 * records come from, in a few words. Returns an exit code, having said why. */
int demo_source_read(struct demo_records *out, char *told, size_t told_size);

/* ---- demo_check.c ---------------------------------------------------------- */

/* Each returns OK or, with the story recorded, the failure: CORRUPT when the
 * database answers what it must not. */

/* The value of a record that must be there. snapshot: nullable. */
NODISCARD esker_status demo_check_present(esker_db *db, const struct demo_records *records, uint64_t record,
                                          const esker_snapshot *snapshot);
/* Is the record there, with its own bytes? */
NODISCARD esker_status demo_check_get(esker_db *db, const struct demo_records *records, uint64_t record,
                                      const esker_snapshot *snapshot, bool *found_out);
/* Walks everything: exactly the first *prefix_out records, each with its bytes, in order of keys. */
NODISCARD esker_status demo_check_scan(esker_db *db, const struct demo_records *records,
                                       const esker_snapshot *snapshot, bool backwards, uint64_t *prefix_out);

/* ---- demo_readers.c -------------------------------------------------------- */

enum { DEMO_READERS = 3 };

struct demo_reader {
    struct demo_readers *readers;
    pthread_t thread;
    bool started;
    uint64_t seed;
    /* the thread's own until it is joined */
    struct histogram gets;
    uint64_t snapshots, rows;
    esker_error failure; /* status OK: none */
};

/* One writer tells the readers how far it is, before and after each write. */
struct demo_readers {
    esker_db *db;
    const struct demo_records *records;
    uint64_t batch_records; /* a snapshot's prefix is a multiple of it, or all, from `batched_from` on */
    uint64_t batched_until; /* records beyond are written one by one */
    _Atomic uint64_t begun; /* records handed to the database */
    _Atomic uint64_t acked; /* records acknowledged by it; acked <= begun */
    _Atomic bool stop, failed;
    struct demo_reader each[DEMO_READERS];
};

NODISCARD esker_status demo_readers_start(struct demo_readers *readers);
/* The first failure of any reader. */
NODISCARD esker_status demo_readers_stop(struct demo_readers *readers);

/* ---- demo_child.c ---------------------------------------------------------- */

enum { DEMO_RECORDS_FD = 3, DEMO_ACK_FD = 4 };

/* What the child writes into its pipe: how many records are acknowledged. */
#define DEMO_CHILD_FAILED UINT64_MAX

#endif
