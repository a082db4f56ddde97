/* SPDX-License-Identifier: MIT */
/*
 * Rows that recovery found in a log that was not closed cleanly are in the page
 * cache at best: they become durable by being flushed, and whoever waits for
 * durability waits for that first.
 *
 * On a full disk that flush may have the reserve where durability is waited for, and while
 * opening (ADR 0023): it gives back its log, and without it nothing at all would become durable.
 * esker_flush and esker_compact tell of NO_SPACE instead.
 *
 * Invariant: recovered_end_lsn becomes 0 when the segments with the last of
 * them, and the edit that names these, are durable. Only then do waits go to
 * the log, which proves nothing of those rows.
 */
#include "base/mutant.h"
#include "db/db.h"

/* The flush failed so: may there be room now? mu held, let go meanwhile. */
static bool
recovered_finds_room_locked(esker_db *db, esker_status failed)
{
    return !MUTANT(23) && failed == ESKER_NO_SPACE && db_reserve_release_locked(db);
}

static esker_status
recovered_wait(esker_db *db, uint64_t lsn, uint64_t deadline_ns)
{
    esker_status status = ESKER_OK;
    mutex_lock(&db->mu);
    db->background.status = ESKER_OK; /* what failed before is tried again */
    for (;;) {
        uint64_t end = load_relaxed(&db->recovered_end_lsn); /* relaxed: guarded by mu here */
        /* pairs: DURABLE */
        if (end == 0 || load_acquire(&db->durable) >= MIN(lsn, end)) {
            break;
        }
        if (recovered_finds_room_locked(db, db->background.status)) {
            continue;
        }
        if (db->background.status != ESKER_OK) {
            /* What waits here is visible: NO_SPACE and the like would say that nothing was written. */
            status = status_because(ESKER_IO, "recovered rows cannot be flushed", &db->background);
            break;
        }
        job_kick(&db->flush_job);
        if (!workers_wait(&db->changed, &db->mu, deadline_ns)) {
            status = FAIL(ESKER_TIMED_OUT, "recovered rows were not flushed in time");
            break;
        }
    }
    mutex_unlock(&db->mu);
    return status;
}

esker_status
db_wait_durable(esker_db *db, struct thread_state *self, uint64_t lsn, uint64_t deadline_ns)
{
    if (UNLIKELY(load_acquire(&db->recovered_end_lsn) != 0)) { /* pairs: RECOVERED */
        TRY(recovered_wait(db, lsn, deadline_ns));
    }
    return db_wait_watermark(db, self, lsn, true, deadline_ns);
}

esker_status
db_flush_recovered(esker_db *db, uint64_t end_lsn)
{
    esker_status status = db_flush_until(db, end_lsn);
    if (status == ESKER_OK) {
        return ESKER_OK;
    }
    esker_error story = *status_last();
    mutex_lock(&db->mu);
    bool room = recovered_finds_room_locked(db, story.status);
    mutex_unlock(&db->mu);
    return room ? db_flush_until(db, end_lsn) : status_restore(&story);
}

void
db_flush_proved(esker_db *db, const struct window *flushed, bool last_recovered)
{
    if (last_recovered) {
        store_release(&db->recovered_end_lsn, 0); /* pairs: RECOVERED */
    }
    db_durable_advance(db, flushed->end_lsn);
}
