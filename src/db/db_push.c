/* SPDX-License-Identifier: MIT */
/*
 * INTERVAL and MEMORY: what was acknowledged is pushed on after a while, by a
 * job that writes leave their wishes for.
 *
 * Invariant: no write is left behind. A write is visible, then looks for its
 * wish; the job takes the wishes, then looks at `visible`. Each stores before
 * it looks, sequentially consistent: either the write finds no wish, makes it
 * and kicks the job, or the run that takes the wish covers the write.
 */
#include "db/db.h"

enum { PUSH_RETRY_NS = 1000000000 };

void
db_push_on(esker_db *db, uint64_t end_lsn, uint32_t wanted)
{
    uint64_t logged = db_logged(db);
    if (end_lsn > logged && (end_lsn - logged) * LSN_BYTES >= PUSH_BYTES) {
        wanted |= PUSH_NOW;
    }
    /* pairs: PUSH_WANTED — `visible` moved over this write before the look; the job
     * takes the wishes before it looks at `visible` (Dekker). */
    if ((load_seq(&db->push_wanted) & wanted) == wanted) {
        return;
    }
    uint32_t before = or_seq(&db->push_wanted, wanted); /* pairs: PUSH_WANTED */
    if ((wanted & PUSH_NOW) != 0 && (before & PUSH_NOW) == 0) {
        job_kick(&db->sync_job);
    } else if (before == 0) {
        job_kick_after(&db->sync_job, (uint64_t)db->options.sync_interval_ms * 1000000);
    }
}

void
db_sync_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, sync_job);
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        job_kick_after(job, PUSH_RETRY_NS);
        return;
    }
    if (!db_append_begin(db)) {
        return;
    }
    /* pairs: PUSH_WANTED — a later write wishes again and kicks again. */
    uint32_t wanted = exchange_seq(&db->push_wanted, 0);
    bool durable = (wanted & PUSH_SYNC) != 0 || db->options.durability != ESKER_DURABLE_MEMORY;
    if (durable && load_acquire(&db->recovered_end_lsn) != 0) { /* pairs: RECOVERED */
        /* The flush comes first. A worker that waited for it could be the one that it needs. */
        (void)or_seq(&db->push_wanted, PUSH_SOON | PUSH_SYNC); /* pairs: PUSH_WANTED — for its own next run */
        job_kick(&db->flush_job);
        job_kick_after(job, (uint64_t)db->options.sync_interval_ms * 1000000);
        durable = false;
    }
    /* pairs: VISIBLE, PUSH_WANTED */
    uint64_t lsn = load_seq(&db->visible);
    IGNORE_STATUS(durable ? db_wait_durable(db, self, lsn, 0) : db_wait_logged(db, self, lsn),
                  "a failure poisons the database, which the next write reports");
    db_append_end(db);
}
