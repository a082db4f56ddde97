/* SPDX-License-Identifier: MIT */
/*
 * Telling the embedding program what background work does. No lock is held here.
 *
 * The event function is called from engine threads alone: the caller of a call
 * that merges, or whose sync fails, may hold a lock of its own that the event
 * function takes. What happens on a caller's thread is told by the purge job.
 */
#include "db/db.h"

/* The database whose event function this thread is in; it must not close it. */
static _Thread_local const esker_db *event_current;

bool
db_in_event(const esker_db *db)
{
    return event_current == db;
}

static void
event_tell(esker_db *db, const esker_event *event)
{
    if (db->options.on_event == NULL) {
        return;
    }
    const esker_db *outer = event_current;
    event_current = db;
    db->options.on_event(db->options.event_ctx, event);
    event_current = outer;
}

/* Merges that happen before the job comes round are told as one. */
static void
event_put_off(esker_db *db, const esker_event *event)
{
    mutex_lock(&db->mu);
    if (event->kind == ESKER_EVENT_POISONED) {
        db->poison_untold = true;
    } else {
        db->progress_untold_total = 0; /* it has ended */
        db->merge_untold = true;
        db->merge_untold_bytes += event->bytes;
        db->merge_untold_ns += event->duration_ns;
    }
    mutex_unlock(&db->mu);
    job_kick(&db->purge_job);
}

void
db_event_tell_untold(esker_db *db)
{
    mutex_lock(&db->mu);
    esker_error cause = db->poison_cause;
    bool poisoned = db->poison_untold;
    bool merged = db->merge_untold;
    esker_event merge = {.struct_size = sizeof merge,
                         .kind = ESKER_EVENT_COMPACTION,
                         .bytes = db->merge_untold_bytes,
                         .duration_ns = db->merge_untold_ns};
    esker_event progress = {.struct_size = sizeof progress,
                            .kind = ESKER_EVENT_PROGRESS,
                            .bytes = db->progress_untold_bytes,
                            .bytes_total = db->progress_untold_total};
    db->progress_untold_total = 0;
    db->merge_untold_bytes = 0;
    db->merge_untold_ns = 0;
    db->merge_untold = false;
    db->poison_untold = false;
    cond_broadcast(&db->changed); /* close goes on, and waits for this job's end */
    mutex_unlock(&db->mu);
    if (progress.bytes_total > 0) {
        event_tell(db, &progress);
    }
    if (merged) {
        event_tell(db, &merge);
    }
    if (poisoned) {
        db_emit(db, ESKER_EVENT_POISONED, 0, 0, &cause);
    }
}

void
db_event_wait_until_told(esker_db *db)
{
    mutex_lock(&db->mu);
    while (db->poison_untold || db->merge_untold) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    mutex_unlock(&db->mu);
}

void
db_emit(esker_db *db, esker_event_kind kind, uint64_t bytes, uint64_t duration_ns, const esker_error *error)
{
    esker_event event = {.struct_size = sizeof event,
                         .kind = kind,
                         .bytes = bytes,
                         .duration_ns = duration_ns,
                         .error = error};
    bool callers = kind == ESKER_EVENT_COMPACTION || kind == ESKER_EVENT_POISONED;
    bool here = !callers || db->manual || db->events_at_once || workers_in_job();
    if (here || db->options.on_event == NULL) {
        event_tell(db, &event);
    } else {
        event_put_off(db, &event);
    }
}

void
db_emit_wait(esker_db *db, int cause, uint32_t level, uint64_t waited_ns)
{
    esker_event event = {.struct_size = sizeof event,
                         .kind = ESKER_EVENT_STALL,
                         .duration_ns = waited_ns,
                         .wait_cause = cause,
                         .wait_level = level};
    event_tell(db, &event);
}

void
db_emit_progress(esker_db *db, uint64_t bytes, uint64_t total_bytes)
{
    esker_event event = {.struct_size = sizeof event,
                         .kind = ESKER_EVENT_PROGRESS,
                         .bytes = bytes,
                         .bytes_total = total_bytes};
    if (db->options.on_event == NULL) {
        return;
    }
    if (db->manual || db->events_at_once || workers_in_job()) {
        event_tell(db, &event);
        return;
    }
    mutex_lock(&db->mu);
    db->progress_untold_bytes = bytes;
    db->progress_untold_total = total_bytes;
    mutex_unlock(&db->mu);
    job_kick(&db->purge_job);
}
