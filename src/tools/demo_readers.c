/* SPDX-License-Identifier: MIT */
/*
 * Threads that read while one writer writes, and check what they read:
 *  - what was acknowledged before a get began is found, with its own bytes;
 *  - what a get finds was handed to the database;
 *  - a snapshot is the first m records for one m between what was acknowledged
 *    before and what was begun when it was taken; m is the end of a batch; a
 *    scan forwards, single gets and a scan backwards all see that same m.
 */
#include <string.h>

#include "base/rng.h"
#include "base/status.h"
#include "tools/demo.h"
#include "tools/tool.h"

/* Reads between two snapshots, and on each. */
enum { READERS_GETS = 4000, READERS_SNAPSHOT_GETS = 200 };

static bool
readers_stopped(struct demo_readers *readers)
{
    return load_acquire(&readers->stop); /* pairs: DEMO_STOP */
}

/* A record somewhere below what is acknowledged, or, one time in eight, anywhere. */
static esker_status
readers_get(struct demo_reader *self, struct rng *rng)
{
    struct demo_readers *readers = self->readers;
    uint64_t acked = load_acquire(&readers->acked); /* pairs: DEMO_ACKED */
    uint64_t bound = acked > 0 && rng_below(rng, 8) != 0 ? acked : readers->records->count;
    uint64_t record = rng_below(rng, bound);
    bool found = false;
    uint64_t started = tool_now_ns();
    TRY(demo_check_get(readers->db, readers->records, record, NULL, &found));
    histogram_add(&self->gets, tool_now_ns() - started);
    if (!found && record < acked) {
        return FAIL(ESKER_CORRUPT, "record %llu was acknowledged and is not found",
                    (unsigned long long)record);
    }
    if (found && record >= load_acquire(&readers->begun)) { /* pairs: DEMO_BEGUN */
        return FAIL(ESKER_CORRUPT, "record %llu is found before it was written", (unsigned long long)record);
    }
    return ESKER_OK;
}

static bool
readers_is_batch_end(const struct demo_readers *readers, uint64_t prefix)
{
    return prefix >= readers->batched_until || prefix % readers->batch_records == 0;
}

static esker_status
readers_check_snapshot(struct demo_reader *self, struct rng *rng, const esker_snapshot *snapshot,
                       uint64_t acked, uint64_t begun)
{
    struct demo_readers *readers = self->readers;
    uint64_t prefix = 0;
    uint64_t again = 0;
    TRY(demo_check_scan(readers->db, readers->records, snapshot, false, &prefix));
    if (prefix < acked || prefix > begun || !readers_is_batch_end(readers, prefix)) {
        return FAIL(ESKER_CORRUPT, "a snapshot has %llu records; %llu were acknowledged and %llu begun",
                    (unsigned long long)prefix, (unsigned long long)acked, (unsigned long long)begun);
    }
    for (int i = 0; i < READERS_SNAPSHOT_GETS; i++) {
        uint64_t record = rng_below(rng, readers->records->count);
        bool found = false;
        TRY(demo_check_get(readers->db, readers->records, record, snapshot, &found));
        if (found != (record < prefix)) {
            return FAIL(ESKER_CORRUPT, "a snapshot of %llu records answers wrongly about record %llu",
                        (unsigned long long)prefix, (unsigned long long)record);
        }
    }
    TRY(demo_check_scan(readers->db, readers->records, snapshot, true, &again));
    if (again != prefix) {
        return FAIL(ESKER_CORRUPT, "one snapshot had %llu records, then %llu", (unsigned long long)prefix,
                    (unsigned long long)again);
    }
    self->snapshots++;
    self->rows += prefix + again;
    return ESKER_OK;
}

static esker_status
readers_snapshot(struct demo_reader *self, struct rng *rng)
{
    struct demo_readers *readers = self->readers;
    esker_snapshot *snapshot = NULL;
    uint64_t acked = load_acquire(&readers->acked); /* pairs: DEMO_ACKED */
    TRY(esker_snapshot_create(readers->db, &snapshot));
    uint64_t begun = load_acquire(&readers->begun); /* pairs: DEMO_BEGUN */
    esker_status status = readers_check_snapshot(self, rng, snapshot, acked, begun);
    esker_snapshot_release(snapshot);
    return status;
}

static esker_status
readers_work(struct demo_reader *self)
{
    struct rng rng = {.state = self->seed};
    while (!readers_stopped(self->readers)) {
        TRY(readers_snapshot(self, &rng));
        for (int i = 0; i < READERS_GETS && !readers_stopped(self->readers); i++) {
            TRY(readers_get(self, &rng));
        }
    }
    return ESKER_OK;
}

static void *
readers_main(void *arg)
{
    struct demo_reader *self = arg;
    if (readers_work(self) != ESKER_OK) {
        self->failure = *status_last();
        store_release(&self->readers->failed, true); /* pairs: DEMO_FAILED */
    }
    return NULL;
}

esker_status
demo_readers_start(struct demo_readers *readers)
{
    for (size_t i = 0; i < DEMO_READERS; i++) {
        struct demo_reader *reader = &readers->each[i];
        reader->readers = readers;
        reader->seed = i + 1;
        int failed = pthread_create(&reader->thread, NULL, readers_main, reader);
        if (failed != 0) {
            return FAIL_OS(failed, NULL, 0, "cannot start a reader thread");
        }
        reader->started = true;
    }
    return ESKER_OK;
}

esker_status
demo_readers_stop(struct demo_readers *readers)
{
    esker_status status = ESKER_OK;
    store_release(&readers->stop, true); /* pairs: DEMO_STOP */
    for (size_t i = 0; i < DEMO_READERS; i++) {
        struct demo_reader *reader = &readers->each[i];
        if (reader->started) {
            (void)pthread_join(reader->thread, NULL);
            reader->started = false;
        }
        if (status == ESKER_OK && reader->failure.status != ESKER_OK) {
            status = status_restore(&reader->failure);
        }
    }
    return status;
}
