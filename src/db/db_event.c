/* SPDX-License-Identifier: MIT */
/* Telling the embedding program what background work does. No lock is held here. */
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

void
db_emit(esker_db *db, esker_event_kind kind, uint64_t bytes, uint64_t duration_ns, const esker_error *error)
{
    esker_event event = {.struct_size = sizeof event,
                         .kind = kind,
                         .bytes = bytes,
                         .duration_ns = duration_ns,
                         .error = error};
    event_tell(db, &event);
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
