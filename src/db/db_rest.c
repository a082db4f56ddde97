/* SPDX-License-Identifier: MIT */
/*
 * What a database looks like at rest, idle or closed. While there is work the
 * windows grow and their files with them. A second after the last commit of a
 * busy spell log files take at most 768 KiB or a quarter of the live data: the
 * spare ones are dropped, and the active window is given up for a small one if
 * its file alone is too large. After ten seconds, after esker_compact and at
 * close it is a fortieth of the live data, so that a merged database takes
 * little more than its segments. Whoever comes back sooner finds large files to
 * write on in; later ones are written anew while the windows grow.
 *
 * The rest job never waits (all workers might be resting at once): it does one
 * step, and kicks itself for the next.
 */
#include <sched.h>

#include "db/db.h"

enum {
    REST_LOG_BYTES = 768 << 10,
    REST_STEP_NS = 50000000,
    REST_SHARE_SOON = 4,
    REST_SHARE = 40,
    REST_ROUNDS = 4
};

#define REST_LONG_NS ((uint64_t)10000000000)

static uint64_t
rest_log_bytes(esker_db *db)
{
    mutex_lock(&db->mu);
    uint64_t bytes = db->log_file_bytes;
    mutex_unlock(&db->mu);
    return bytes;
}

static uint64_t
rest_limit(esker_db *db, struct thread_state *self, uint64_t share)
{
    struct version *version = db_current_ref(db, self);
    uint64_t live = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        live += version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
    }
    version_unref(version);
    return MAX((uint64_t)REST_LOG_BYTES, live / share);
}

/* The next window is a small one, with a small file. True when it is prepared. may_wait: for one
 * that is in the making, and may be of another size. */
static bool
rest_want_small(esker_db *db, bool may_wait)
{
    mutex_lock(&db->mu);
    while (may_wait && db->preparing) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    uint32_t small = 0;
    while (small < PREPARED_MAX && db->prepared[small] != NULL &&
           db->prepared[small]->log->space_bytes <= db->window_bytes_first) {
        small++;
    }
    db_discard_prepared_locked(db, small);
    db->window_bytes_want = db->window_bytes_first;
    mutex_unlock(&db->mu);
    return small > 0;
}

/* A sealed log that nobody has continued yet stays as it is. */
static bool
rest_active_stays(esker_db *db)
{
    mutex_lock(&db->mu);
    const struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT */
    /* A small window may have got a large file out of the pool. */
    bool small = active->log == NULL || active->log->space_bytes <= db->window_bytes_first;
    bool sealed = db->reopen_pending;
    mutex_unlock(&db->mu);
    return small || sealed;
}

static esker_status
rest_step(esker_db *db, struct thread_state *self, uint64_t share)
{
    uint64_t limit = rest_limit(db, self, share);
    db_reserve_rest(db);
    window_spare_drop(&db->spare_memory, db->io, db->cache);
    db_iterate_drop_spares(db);
    if (rest_log_bytes(db) <= limit) {
        return ESKER_OK;
    }
    bool ready = rest_want_small(db, false);
    TRY(db_drop_pool(db, limit, 0));
    if (rest_log_bytes(db) <= limit || rest_active_stays(db)) {
        return ESKER_OK;
    }
    if (ready) {
        uint64_t end_lsn = 0;
        TRY(db_replace_active(db, self, 1, &end_lsn));
        db->rest_seen_lsn = load_acquire(&db->visible); /* pairs: VISIBLE — the seal's own PAD moved it */
    } else {
        job_kick(&db->prepare_job);
    }
    job_kick_after(&db->rest_job, REST_STEP_NS);
    return ESKER_OK;
}

void
db_rest_soon(esker_db *db)
{
    store_relaxed(&db->rest_asked, true); /* relaxed: a wish; the kick orders it */
    job_kick_after(&db->rest_job, REST_STEP_NS);
}

/* False: there were commits since the last look, and there will be another. */
static bool
rest_is_calm(esker_db *db)
{
    uint64_t visible = load_acquire(&db->visible); /* pairs: VISIBLE */
    uint64_t now_ns = workers_timer_ns();
    bool asked = load_relaxed(&db->rest_asked); /* relaxed: a wish */
    store_relaxed(&db->rest_asked, false); /* relaxed: as above; one that comes now is kicked for again */
    if (visible != db->rest_seen_lsn) {
        db->rest_seen_lsn = visible;
        db->rest_since_ns = now_ns;
        db->rest_long = asked;
        job_kick_after(&db->rest_job, asked ? (uint64_t)REST_STEP_NS : (uint64_t)DB_REST_NS);
        return false;
    }
    db->rest_long |= asked || now_ns - db->rest_since_ns >= REST_LONG_NS;
    return true;
}

void
db_rest_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, rest_job);
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        job_kick_after(job, DB_REST_NS);
        return;
    }
    if (!rest_is_calm(db)) {
        return;
    }
    if (db_poison_status(db) == ESKER_OK && db_append_begin(db)) {
        IGNORE_STATUS(rest_step(db, self, db->rest_long ? REST_SHARE : REST_SHARE_SOON),
                      "larger logs at rest are no loss");
        db_append_end(db);
    }
    if (!db->rest_long) {
        job_kick_after(job, REST_LONG_NS);
    }
}

/* A leader pins the logs that it syncs, also one that was flushed meanwhile: only then is it in the pool. */
static void
rest_wait_for_leader(esker_db *db)
{
    while (load_acquire(&db->sync_inflight) != 0) { /* pairs: LEADER */
        sched_yield();
    }
}

esker_status
db_shrink_logs(esker_db *db, struct thread_state *self)
{
    uint64_t limit = rest_limit(db, self, REST_SHARE);
    db_reserve_rest(db);
    window_spare_drop(&db->spare_memory, db->io, db->cache);
    db_iterate_drop_spares(db);
    /* More than once: the next window may have been in the making, as large as the last. */
    for (unsigned round = 0; round < REST_ROUNDS && rest_log_bytes(db) > limit; round++) {
        (void)rest_want_small(db, true);
        TRY(db_drop_pool(db, limit, 0));
        if (rest_log_bytes(db) <= limit || rest_active_stays(db)) {
            return ESKER_OK;
        }
        uint64_t end_lsn = 0;
        TRY(db_replace_active(db, self, 0, &end_lsn));
        TRY(db_flush_until(db, end_lsn));
        rest_wait_for_leader(db);
    }
    (void)rest_want_small(db, true);
    return db_drop_pool(db, limit, 0);
}
