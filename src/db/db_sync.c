/* SPDX-License-Identifier: MIT */
/*
 * From visible to durable: what a leader does (who leads: db_lead.c). It writes
 * what the log file lacks, syncs, and moves the watermark.
 *
 * Durability: `durable` moves only after every write of the group completed
 * at full length and a later sync of every file touched returned success. A
 * failed write or sync poisons the database for writes: the first cause is
 * kept, nothing is retried on that file and no LSN is used again.
 *
 * The next group carries the proof: a SYNCMARK frame with the durable LSN, by
 * which recovery tells damage from a torn tail.
 */
#include "db/db.h"
#include "base/mutant.h"

void
db_poison(esker_db *db)
{
    mutex_lock(&db->mu);
    bool first = db->poison_cause.status == ESKER_OK;
    if (first) {
        db->poison_cause = *status_last();
        /* relaxed: the cause is read under mu; who was led by the one that failed sees the flag (LEADER). */
        store_relaxed(&db->poisoned, 1);
        cond_broadcast(&db->changed);
    }
    esker_error cause = db->poison_cause;
    mutex_unlock(&db->mu);
    if (first) {
        db_emit(db, ESKER_EVENT_POISONED, 0, 0, &cause);
    }
}

static NOINLINE esker_status
sync_poison_story(esker_db *db)
{
    mutex_lock(&db->mu);
    esker_error story = db->poison_cause;
    mutex_unlock(&db->mu);
    return status_because(ESKER_POISONED, "writes are refused until reopened; first cause", &story);
}

esker_status
db_poison_status(esker_db *db)
{
    /* relaxed: see db_poison. */
    return LIKELY(load_relaxed(&db->poisoned) == 0) ? ESKER_OK : sync_poison_story(db);
}

/* The windows of `version` that reach into [from, to), oldest first, their logs pinned. */
static uint32_t
sync_collect(esker_db *db, const struct version *version, uint64_t from, uint64_t to,
             struct window *windows[WINDOWS_MAX])
{
    uint32_t count = 0;
    mutex_lock(&db->mu);
    for (uint32_t i = version->window_count; i-- > 0;) {
        struct window *window = version->windows[i];
        if (window->base_lsn < to && window->end_lsn > from && window->log != NULL && !window->log_released &&
            !window->recovered) {
            window->log_pins++;
            windows[count++] = window;
        }
    }
    mutex_unlock(&db->mu);
    return count;
}

static void
sync_unpin(esker_db *db, struct window *const *windows, uint32_t count)
{
    mutex_lock(&db->mu);
    for (uint32_t i = 0; i < count; i++) {
        db_unpin_log_locked(db, windows[i]);
    }
    mutex_unlock(&db->mu);
}

/* Frame bytes of [from, to) into the log files, for windows that are not mapped. */
static esker_status
sync_write(esker_db *db, struct window *const *windows, uint32_t count, uint64_t from, uint64_t to)
{
    for (uint32_t i = 0; i < count; i++) {
        struct window *window = windows[i];
        uint64_t first = MAX(from, window->base_lsn);
        uint64_t last = MIN(to, window->end_lsn);
        if (window->map != NULL || first >= last) {
            continue;
        }
        uint64_t from_byte = (first - window->base_lsn) * LSN_BYTES;
        uint64_t to_byte = (last - window->base_lsn) * LSN_BYTES;
        TRY(log_file_write(window->log, window->data, from_byte, to_byte));
        add_relaxed(&db->log_bytes_written, to_byte - from_byte); /* relaxed: statistic */
    }
    return ESKER_OK;
}

esker_status
db_sync_group(esker_db *db, struct thread_state *self, bool sync)
{
    /* pairs: DURABLE */
    uint64_t from = load_acquire(&db->durable);
    if (sync && from > db->marked_lsn) {
        uint8_t body[16];
        le64_store(body, from);
        le64_store(body + 8, db->io->ops->wall_ns(db->io));
        if (db_append_frame(db, self, FRAME_SYNCMARK, body, sizeof body)) {
            db->marked_lsn = from;
        }
    }
    struct version *version = db_current_ref(db, self);
    /* pairs: VISIBLE */
    uint64_t to = MIN(load_acquire(&db->visible), version->end_lsn);
    uint64_t logged = db_logged(db);
    struct window *windows[WINDOWS_MAX];
    uint32_t count = sync_collect(db, version, sync ? MIN(from, logged) : logged, to, windows);
    esker_status status = ESKER_OK;
    for (uint32_t i = 0; MUTANT(7) && sync && i < count; i++) {
        TRY_OUT(log_file_sync(windows[i]->log));
    }
    if (!db->tail_mode && logged < to) {
        TRY_OUT(sync_write(db, windows, count, logged, to));
        /* pairs: LOGGED — the bytes are in the file before the watermark says so. */
        store_release(&db->logged, to);
    }
    for (uint32_t i = 0; sync && i < count; i++) {
        if (MUTANT(6) || MUTANT(7) || (MUTANT(14) && i + 1 < count)) {
            continue;
        }
        TRY_OUT(log_file_sync(windows[i]->log));
        add_relaxed(&db->log_syncs, 1); /* relaxed: statistic */
    }
    if (sync) {
        db_durable_advance(db, to);
    }
out:
    sync_unpin(db, windows, count);
    version_unref(version);
    if (status != ESKER_OK) {
        db_poison(db);
        /* The batch is visible and its fate open: IO and POISONED say that, another status would deny it. */
        return status == ESKER_IO ? status : db_poison_status(db);
    }
    return ESKER_OK;
}

static esker_status
sync_public_wait(esker_db *db, struct thread_state *self, esker_lsn lsn, int64_t timeout_ms)
{
    /* pairs: VISIBLE */
    if (lsn > load_acquire(&db->visible)) {
        return FAIL(ESKER_INVALID, "LSN %llu is beyond what was written", (unsigned long long)lsn);
    }
    uint64_t deadline_ns = 0;
    if (timeout_ms >= 0 && timeout_ms <= INT64_MAX / 2 / 1000000) { /* beyond it: centuries */
        deadline_ns = io_monotonic_ns(db->io) + (uint64_t)timeout_ms * 1000000 + 1;
    }
    return db_wait_durable(db, self, lsn, deadline_ns);
}

esker_status
esker_wait_durable(esker_db *db, esker_lsn lsn, int64_t timeout_ms)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    esker_status status = sync_public_wait(db, call.self, lsn, timeout_ms);
    db_call_exit(&call);
    return status;
}

esker_status
esker_sync(esker_db *db)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    /* pairs: VISIBLE */
    esker_status status = sync_public_wait(db, call.self, load_acquire(&db->visible), -1);
    db_call_exit(&call);
    return status;
}

esker_lsn
esker_durable_lsn(const esker_db *db)
{
    struct db_call call;
    if (db_call_enter(db, &call) != ESKER_OK) {
        return 0;
    }
    uint64_t lsn = load_acquire(&db->durable); /* pairs: DURABLE */
    db_call_exit(&call);
    return lsn;
}

esker_lsn
esker_visible_lsn(const esker_db *db)
{
    struct db_call call;
    if (db_call_enter(db, &call) != ESKER_OK) {
        return 0;
    }
    uint64_t lsn = load_acquire(&db->visible); /* pairs: VISIBLE */
    db_call_exit(&call);
    return lsn;
}

int
esker_durable_eventfd(esker_db *db)
{
    struct db_call call;
    if (db_call_enter(db, &call) != ESKER_OK) {
        return -1;
    }
    int fd = db_event_fd(db);
    db_call_exit(&call);
    return fd;
}
