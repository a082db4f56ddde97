/* SPDX-License-Identifier: MIT */
/*
 * What a database looks like at rest, idle or closed: log files take at most
 * 768 KiB or a quarter of the live data. While there is work the windows grow
 * and their files with them; a second after the last commit of a busy spell the
 * spare ones are dropped, and the active window is flushed if its file alone is
 * too large.
 *
 * The rest job never waits (all workers might be resting at once): it does one
 * step, and kicks itself for the next.
 */
#include "db/db.h"

enum { REST_LOG_BYTES = 768 << 10, REST_STEP_NS = 50000000 };

static uint64_t
rest_log_bytes(esker_db *db)
{
    mutex_lock(&db->mu);
    uint64_t bytes = db->log_file_bytes;
    mutex_unlock(&db->mu);
    return bytes;
}

static uint64_t
rest_limit(esker_db *db, struct thread_state *self)
{
    struct version *version = db_current_ref(db, self);
    uint64_t live = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        live += version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
    }
    version_unref(version);
    return MAX((uint64_t)REST_LOG_BYTES, live / 4);
}

/* The next window is a small one. True when it is prepared. */
static bool
rest_want_small(esker_db *db)
{
    mutex_lock(&db->mu);
    bool grown = false;
    for (uint32_t i = 0; i < PREPARED_MAX; i++) {
        grown = grown || (db->prepared[i] != NULL && db->prepared[i]->cap_bytes > db->window_bytes_first);
    }
    if (grown) {
        db_discard_prepared_locked(db);
    }
    bool ready = db->prepared[0] != NULL;
    if (!ready) {
        db->window_bytes_want = db->window_bytes_first;
    }
    mutex_unlock(&db->mu);
    return ready;
}

static bool
rest_active_is_small_or_empty(esker_db *db)
{
    mutex_lock(&db->mu);
    const struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT */
    bool small = active->cap_bytes <= db->window_bytes_first;
    bool empty = load_acquire(&db->visible) == active->base_lsn; /* pairs: VISIBLE */
    bool sealed = db->reopen_pending;
    mutex_unlock(&db->mu);
    return small || empty || sealed;
}

static esker_status
rest_step(esker_db *db, struct thread_state *self)
{
    uint64_t limit = rest_limit(db, self);
    if (rest_log_bytes(db) <= limit) {
        return ESKER_OK;
    }
    bool ready = rest_want_small(db);
    TRY(db_drop_pool(db, limit, 0));
    if (rest_log_bytes(db) <= limit || rest_active_is_small_or_empty(db)) {
        return ESKER_OK;
    }
    if (ready) {
        uint64_t end_lsn = 0;
        TRY(db_seal_active(db, self, 1, &end_lsn));
        db->rest_seen_lsn = load_acquire(&db->visible); /* pairs: VISIBLE — the seal's own PAD moved it */
    } else {
        job_kick(&db->prepare_job);
    }
    job_kick_after(&db->rest_job, REST_STEP_NS);
    return ESKER_OK;
}

void
db_rest_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, rest_job);
    struct thread_state *self = thread_state_get();
    uint64_t visible = load_acquire(&db->visible); /* pairs: VISIBLE */
    if (self == NULL || visible != db->rest_seen_lsn) {
        db->rest_seen_lsn = visible;
        job_kick_after(job, DB_REST_NS);
        return;
    }
    if (db_poison_status(db) == ESKER_OK && db_append_begin(db)) {
        IGNORE_STATUS(rest_step(db, self), "larger logs at rest are no loss");
        db_append_end(db);
    }
}

esker_status
db_shrink_logs(esker_db *db, struct thread_state *self)
{
    uint64_t limit = rest_limit(db, self);
    if (rest_log_bytes(db) <= limit) {
        return ESKER_OK;
    }
    (void)rest_want_small(db);
    TRY(db_drop_pool(db, limit, 0));
    if (rest_log_bytes(db) <= limit || rest_active_is_small_or_empty(db)) {
        return ESKER_OK;
    }
    uint64_t end_lsn = 0;
    TRY(db_seal_active(db, self, 0, &end_lsn));
    TRY(db_flush_until(db, end_lsn));
    (void)rest_want_small(db);
    return db_drop_pool(db, limit, 0);
}
