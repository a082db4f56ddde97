/* SPDX-License-Identifier: MIT */
/*
 * Closing: refuse while anything is in use, make everything durable, leave
 * small logs, seal, and take the handle apart.
 *
 * Durability: after an OK everything acknowledged is durable and the last log
 * ends with a SEAL frame that says so; the next open continues that log.
 */
#include <sched.h>

#include "io/io_event.h"

#include "db/db_files.h"
#include "db/db_handle.h"

/* ---- The seal ----------------------------------------------------------------------- */

static bool
close_append_seal(esker_db *db, struct thread_state *self)
{
    epoch_enter(self);
    const struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT */
    /* relaxed: no other writer is left */
    uint64_t lsn =
        window_lsn(active, window_tail_bytes(load_relaxed(&active->tail))); /* relaxed: no writer left */
    epoch_exit(self);
    uint8_t body[16] = {0};
    le64_store(body, lsn);
    return db_append_frame(db, self, FRAME_SEAL, body, sizeof body);
}

/* Nothing but a REOPEN may follow the SEAL: from here on only this thread appends. */
static void
close_stop_appenders(esker_db *db)
{
    mutex_lock(&db->mu);
    db->sealing = true;
    while (db->appending > 0) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    mutex_unlock(&db->mu);
}

static esker_status
close_make_durable(esker_db *db, struct thread_state *self)
{
    close_stop_appenders(db);
    TRY(db_poison_status(db));
    mutex_lock(&db->mu);
    bool untouched = db->reopen_pending;
    mutex_unlock(&db->mu);
    db->marked_lsn = UINT64_MAX; /* no SYNCMARK may follow the SEAL */
    /* pairs: VISIBLE */
    TRY(db_wait_durable(db, self, load_acquire(&db->visible), 0));
    if (untouched) {
        return ESKER_OK; /* the seal of the last close stands */
    }
    IGNORE_STATUS(db_shrink_logs(db, self), "larger logs at rest are no loss");
    TRY(db_wait_durable(db, self, load_acquire(&db->visible), 0)); /* pairs: VISIBLE */
    if (!close_append_seal(db, self)) {
        uint64_t end_lsn = 0;
        if (db_seal_active(db, self, 0, &end_lsn) != ESKER_OK) {
            return db_poison_status(db); /* no room for a seal, but everything is durable */
        }
        TRY(db_wait_durable(db, self, load_acquire(&db->visible), 0)); /* pairs: VISIBLE */
        if (!close_append_seal(db, self)) {
            return ESKER_OK; /* no seal: the next open recovers as after a crash */
        }
    }
    return db_wait_durable(db, self, load_acquire(&db->visible), 0); /* pairs: VISIBLE */
}

/* ---- Taking apart --------------------------------------------------------------------- */

static void
teardown_files(esker_db *db)
{
    for (size_t i = 0; i < db->obsolete_count; i++) {
        char name[40];
        segment_file_name(db->obsolete_ids[i], name);
        IGNORE_STATUS(io_unlink(db->io, name), "an orphan is removed at the next open");
    }
    for (size_t i = 0; i < db->pool.count; i++) {
        log_file_destroy(db->pool.files[i]);
    }
    manifest_destroy(db->manifest);
    db->manifest = NULL;
}

void
db_teardown(esker_db *db)
{
    store_relaxed(&db->cancel, true); /* relaxed: ends merges early, nothing else */
    job_owner_stop(&db->jobs);
    db_compact_stop(db);
    db_flush_stop(db);
    epoch_drain();
    for (uint32_t i = 0; i < PREPARED_MAX; i++) {
        if (db->prepared[i] != NULL) {
            window_unref(db->prepared[i]);
            db->prepared[i] = NULL;
        }
    }
    struct version *version = exchange_seq(&db->current, NULL); /* pairs: CURRENT */
    if (version != NULL) {
        version_unref(version); /* no reader is left */
    }
    epoch_drain(); /* frames that segments retired, and what those free */
    /* relaxed: who dropped a version was ordered before by what ended its use: a job's stop, a
     * drain, a call's exit (CALL_CLOSE), a handle's end (HANDLES_LIVE). */
    ASSERT(version_list_count(&db->versions) == 0);
    teardown_files(db);
    db_iterate_drop_spares(db);
    window_spare_drop(&db->spare_memory, db->io, db->cache);
    if (db->cache != NULL) {
        block_cache_destroy(db->cache);
    }
    page_heap_destroy(db->heap);
    mem_free(&db->mem, db->stripes);
    mem_free(&db->mem, db->pool.files);
    mem_free(&db->mem, db->log_numbers);
    mem_free(&db->mem, db->claimed_ids);
    mem_free(&db->mem, db->damaged_ids);
    mem_free(&db->mem, db->obsolete_ids);
    io_event_close(exchange_seq(&db->event_fd, -1)); /* pairs: EVENT_FD */
    db->io->ops->unlock(db->io);
    io_close_dir(db->io);
    db->io = NULL;
    workers_release();
    epoch_runtime_release();
    db_count_open(-1);
}

esker_status
esker_close(esker_db *db)
{
    if (db == NULL) {
        return ESKER_OK;
    }
    if (load_relaxed(&db->magic) != DB_MAGIC_OPEN) { /* relaxed: close_claim decides */
        return FAIL(ESKER_INVALID, "the database handle is closed");
    }
    /* relaxed: set in the child before fork returns there. */
    if (load_relaxed(&fork_generation) != db->fork_generation) {
        return FAIL(ESKER_FORKED, "the database was opened by the parent process");
    }
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    if (db_in_event(db)) {
        return FAIL(ESKER_BUSY, "close was called from the event function");
    }
    TRY(db_call_claim_close(db));
    store_relaxed(&db->cancel, true); /* relaxed: merges stop at the next row group, nothing else */
    esker_status status = close_make_durable(db, self);
    esker_error story = *status_last();
    db_event_wait_until_told(db);
    db_teardown(db);
    db_handle_retire(db);
    return status == ESKER_OK ? ESKER_OK : status_restore(&story);
}
