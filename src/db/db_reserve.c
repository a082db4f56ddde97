/* SPDX-License-Identifier: MIT */
/*
 * The reserve: a file of zeros that holds space on the disk for the one thing
 * that must go on when the disk is full, making room (ADR 0023).
 *
 * On a full disk no window can be made, so writes are refused, deletes too; no
 * window can be flushed, so no delete would reach a merge; and no merge could
 * write. While much is free there is no reserve; one is kept from when the free
 * space is a few times as large. The first deletes that a full disk refuses give
 * it up: its space takes small windows for deletes, the flush of the oldest
 * window, whose log file then goes for the next flush, and so on, and then
 * merges, one at a time. Meanwhile other writes are refused. They are let through
 * again when nothing waits to be merged out of level 0 and there is room to keep
 * the reserve anew; before that it would compete with the merges that make room.
 *
 * Invariants
 *  I1 One thread at a time works on the file (reserve_busy); mu is not held
 *     meanwhile.
 *  I2 Nothing but its head is ever read: missing, short or long it is as good.
 *  I3 Nobody waits for room longer than for the end of one merge or flush, unless
 *     that one succeeded (reserve_await_locked).
 */
#include <errno.h>

#include "base/mutant.h"
#include "db/db_compact.h"
#include "db/db_files.h"

enum {
    RESERVE_CHUNK = 64 << 10,
    RESERVE_FROM_BYTES = 1 << 20, /* smaller databases have none */
    RESERVE_SHARE = 8,            /* this part of the data, too, for merges */
    RESERVE_SHARE_MOST = 64 << 20,
    RESERVE_AMPLE = 16,        /* with so many times its size free there is no need of it */
    RESERVE_RESTORE_AMPLE = 4, /* with so many times its size it does not compete with merges */
    RESERVE_TOMBSTONES = 8     /* one delete in so many rows of a merge makes room worth the reserve */
};

/* The flush of a full window, and two small windows for deletes and what the manifest takes. */
static uint64_t
reserve_least(const esker_db *db, uint64_t cap_bytes)
{
    return cap_bytes + cap_bytes / 8 + 2 * (db->window_bytes_first + LOG_HEADER_BYTES);
}

static uint64_t
reserve_live_bytes_locked(esker_db *db)
{
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT — mu keeps it current */
    uint64_t live = db->log_file_bytes;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        live += version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
    }
    return live;
}

/* For windows of cap_bytes, and for what a merge leaves of what it reads. mu held. */
static uint64_t
reserve_wanted_locked(esker_db *db, uint64_t cap_bytes)
{
    uint64_t share = reserve_live_bytes_locked(db) / RESERVE_SHARE;
    return reserve_least(db, cap_bytes) + MIN(share, (uint64_t)RESERVE_SHARE_MOST);
}

/* mu held. */
static bool
reserve_is_exempt_locked(esker_db *db)
{
    return db->reserve_off || (!db->reserve_tiny && reserve_live_bytes_locked(db) < RESERVE_FROM_BYTES);
}

/* ---- The file --------------------------------------------------------------- */

/* Its head is synced before the file grows: by that an open knows it, whatever a crash makes of the rest. */
static esker_status
reserve_write(esker_db *db, struct io_file *file, uint64_t from, uint64_t to)
{
    static const uint8_t zeros[RESERVE_CHUNK];
    if (from < DB_FILE_HEAD_BYTES) {
        size_t len = (size_t)MIN(to - from, (uint64_t)DB_FILE_HEAD_BYTES);
        TRY(io_write_full(db->io, file, from, zeros, len));
        TRY(io_sync(db->io, file));
        from += len;
    }
    while (from < to) {
        size_t len = (size_t)MIN(to - from, (uint64_t)RESERVE_CHUNK);
        TRY(io_write_full(db->io, file, from, zeros, len));
        from += len;
    }
    return io_sync(db->io, file);
}

static esker_status
reserve_remove(struct io *io)
{
    TRY(io_unlink(io, DB_RESERVE_NAME));
    return io_sync_dir(io); /* else its space may not be free yet */
}

/* The file gets `to` bytes; a failure leaves it at `from`. */
static esker_status
reserve_resize(esker_db *db, uint64_t from, uint64_t to)
{
    struct io_file *file = NULL;
    if (to == 0) {
        return reserve_remove(db->io);
    }
    TRY(io_open_file(db->io, DB_RESERVE_NAME, IO_OPEN_WRITE | IO_OPEN_CREATE, &file));
    esker_status status = to > from ? reserve_write(db, file, from, to) : io_truncate(db->io, file, to);
    esker_error story = *status_last();
    if (status != ESKER_OK && to > from) {
        IGNORE_STATUS(io_truncate(db->io, file, from), "what it grew by is given back another time");
    }
    io_close_file(db->io, file);
    if (status != ESKER_OK) {
        return status_restore(&story);
    }
    return from == 0 ? io_sync_dir(db->io) : ESKER_OK;
}

/* mu held; on true nobody else works on the file until reserve_end_locked. */
static bool
reserve_begin_locked(esker_db *db)
{
    if (db->reserve_off || db->reserve_busy) {
        return false;
    }
    db->reserve_busy = true;
    return true;
}

static void
reserve_end_locked(esker_db *db, uint64_t bytes)
{
    db->reserve_busy = false;
    db->reserve_bytes = bytes;
    cond_broadcast(&db->changed);
}

/* Begun; ended when it returns. */
static esker_status
reserve_set(esker_db *db, uint64_t from, uint64_t to)
{
    esker_status status = reserve_resize(db, from, to);
    mutex_lock(&db->mu);
    reserve_end_locked(db, status == ESKER_OK ? to : from);
    mutex_unlock(&db->mu);
    return status;
}

/* ---- Opening ------------------------------------------------------------------ */

esker_status
db_reserve_find(esker_db *db, bool off)
{
    struct db_file file = {.kind = DB_FILE_RESERVE, .name = DB_RESERVE_NAME};
    struct io_file *handle = NULL;
    bool ours = false;
    uint64_t size = 0;
    db->reserve_off = off;
    int failed = off ? -ENOENT : db->io->ops->open_file(db->io, DB_RESERVE_NAME, IO_OPEN_READ, &handle);
    if (failed != 0) {
        db->reserve_off = off || failed != -ENOENT; /* something else of that name: it is left alone */
        return ESKER_OK;
    }
    esker_status status = io_file_size(db->io, handle, &size);
    io_close_file(db->io, handle);
    TRY(status);
    TRY(db_file_is_ours(db->io, &file, db->uuid, &ours));
    db->reserve_off = !ours;
    db->reserve_bytes = size;
    return ESKER_OK;
}

bool
db_reserve_open_without(esker_db *db)
{
    esker_error story = *status_last();
    bool given = !MUTANT(22) && db->reserve_bytes > 0 && reserve_remove(db->io) == ESKER_OK;
    if (given) {
        db->reserve_bytes = 0;
        db->reserve_spent = true;
        db->window_bytes_want = db->window_bytes_first;
    }
    IGNORE_STATUS(status_restore(&story), "keeps the first story");
    return given;
}

/* ---- Keeping it ---------------------------------------------------------------- */

bool
db_reserve_keep(esker_db *db, uint64_t cap_bytes)
{
    uint64_t free_bytes = 0;
    uint64_t least = reserve_least(db, cap_bytes);
    mutex_lock(&db->mu);
    uint64_t wanted = reserve_wanted_locked(db, cap_bytes);
    uint64_t have = db->reserve_bytes;
    bool enough = reserve_is_exempt_locked(db) || db->reserve_spent ||
                  have >= wanted - (wanted - least) / 8; /* not a little more each time */
    mutex_unlock(&db->mu);
    if (enough || io_free_bytes(db->io, &free_bytes) != ESKER_OK || free_bytes / RESERVE_AMPLE >= wanted) {
        return true;
    }
    mutex_lock(&db->mu);
    have = db->reserve_bytes;
    /* Not the last of the disk: there is room for a window beside it. */
    bool fits = wanted > have && free_bytes >= wanted - have + least;
    bool mine = fits && !db->reserve_spent && reserve_begin_locked(db);
    mutex_unlock(&db->mu);
    if (mine) {
        return reserve_set(db, have, wanted) == ESKER_OK;
    }
    return have >= least;
}

uint64_t
db_reserve_supports_locked(const esker_db *db)
{
    uint64_t cap_bytes = db->window_bytes_first;
    while (reserve_least(db, cap_bytes * 2) <= db->reserve_bytes) {
        cap_bytes *= 2;
    }
    return cap_bytes;
}

void
db_reserve_rest(esker_db *db)
{
    uint64_t free_bytes = 0;
    mutex_lock(&db->mu);
    uint64_t have = db->reserve_bytes;
    uint64_t wanted = reserve_wanted_locked(db, db->window_bytes_first);
    mutex_unlock(&db->mu);
    if (have == 0 || io_free_bytes(db->io, &free_bytes) != ESKER_OK ||
        free_bytes / RESERVE_AMPLE < 2 * wanted) {
        return;
    }
    mutex_lock(&db->mu);
    bool mine = have == db->reserve_bytes && !db->reserve_spent && reserve_begin_locked(db);
    mutex_unlock(&db->mu);
    if (mine) {
        IGNORE_STATUS(reserve_set(db, have, 0), "a reserve too many is no loss");
    }
}

/* ---- Giving it up ---------------------------------------------------------------- */

bool
db_reserve_release_locked(esker_db *db)
{
    while (db->reserve_busy) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    if (db->reserve_bytes == 0 || db->reserve_spent || !reserve_begin_locked(db)) {
        return false;
    }
    db->reserve_spent = true;
    mutex_unlock(&db->mu);
    esker_status status = reserve_remove(db->io);
    mutex_lock(&db->mu);
    reserve_end_locked(db, 0); /* after a failure, too: nobody knows */
    db->window_bytes_want = db->window_bytes_first;
    db_try_again_locked(db);
    job_kick(&db->prepare_job);
    job_kick(&db->flush_job);
    db_kick_compaction(db);
    return status == ESKER_OK;
}

bool
db_reserve_release_for_merge(esker_db *db, uint64_t tombstones, uint64_t rows)
{
    mutex_lock(&db->mu);
    uint32_t tiers = level_run_tiers(load_acquire(&db->current)->levels[0]); /* pairs: CURRENT */
    bool refused = db->background.status == ESKER_NO_SPACE || tiers >= db->l0_stall;
    bool worth = refused && tombstones * RESERVE_TOMBSTONES >= rows;
    bool released = worth && db_reserve_release_locked(db);
    mutex_unlock(&db->mu);
    return released;
}

/* Do windows hold deletes, which a flush and a merge would turn into room? mu held. */
static bool
reserve_has_deletes_locked(esker_db *db)
{
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    bool deletes = false;
    for (uint32_t i = 0; i < version->window_count; i++) {
        deletes = deletes || load_relaxed(&version->windows[i]->deletes); /* relaxed: a hint */
    }
    return deletes;
}

/* I3: the end of the merge under way, which gives back what it took, or more. */
static bool
reserve_await_locked(esker_db *db, uint64_t deadline_ns, struct reserve_wait *wait)
{
    bool progress = !wait->waited || wait->installs != db->installs;
    if (!progress || !db->reserve_spent || db->compact_runs == NULL || db->manual) {
        return false;
    }
    uint64_t ended = db->merges_ended;
    wait->waited = true;
    wait->installs = db->installs;
    while (db->compact_runs != NULL && db->merges_ended == ended && db->installs == wait->installs) {
        if (!workers_wait(&db->changed, &db->mu, deadline_ns)) {
            return false;
        }
    }
    db_try_again_locked(db);
    return true;
}

bool
db_reserve_finds_room_locked(esker_db *db, bool for_deletes, uint64_t deadline_ns, struct reserve_wait *wait)
{
    if ((for_deletes || reserve_has_deletes_locked(db)) && db_reserve_release_locked(db)) {
        return true;
    }
    return for_deletes && reserve_await_locked(db, deadline_ns, wait);
}

bool
db_reserve_wants_seal_locked(esker_db *db)
{
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    return version->window_count == 1 && db->compact_runs == NULL &&
           load_relaxed(&version->windows[0]->deletes); /* relaxed: a hint */
}

esker_status
db_reserve_refuse(void)
{
    return FAIL(ESKER_NO_SPACE, "the disk is full and the reserve is in use: only deletes are taken until "
                                "merges have made room");
}

/* What was flushed is not needed for windows now, but for what comes next. */
void
db_reserve_make_room(esker_db *db)
{
    mutex_lock(&db->mu);
    bool spent = db->reserve_spent;
    if (spent) {
        db_try_again_locked(db); /* what found no room before */
    }
    mutex_unlock(&db->mu);
    if (spent) {
        IGNORE_STATUS(db_drop_pool(db, 0, 0), "a file too many is dropped another time");
        job_kick(&db->prepare_job);
        job_kick(&db->flush_job);
    }
}

/* ---- Whole again ------------------------------------------------------------------ */

/* Nothing is on its way that would need the room. mu held. */
static bool
reserve_is_calm_locked(esker_db *db)
{
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    const struct level_run *level0 = version->levels[0];
    return version->window_count == 1 && db->compact_runs == NULL && (level0 == NULL || level0->count == 0);
}

void
db_reserve_restore(esker_db *db)
{
    uint64_t free_bytes = 0;
    mutex_lock(&db->mu);
    bool spent = db->reserve_spent;
    mutex_unlock(&db->mu);
    if (!spent || io_free_bytes(db->io, &free_bytes) != ESKER_OK) {
        return;
    }
    mutex_lock(&db->mu);
    uint64_t wanted = reserve_wanted_locked(db, db->window_bytes_first);
    uint64_t needed = wanted + reserve_least(db, db->window_bytes_first);
    bool room =
        free_bytes >= needed && (reserve_is_calm_locked(db) || free_bytes / RESERVE_RESTORE_AMPLE >= needed);
    bool mine = room && db->reserve_spent && reserve_begin_locked(db);
    mutex_unlock(&db->mu);
    if (!mine) {
        return;
    }
    bool keep = free_bytes / RESERVE_AMPLE < wanted;
    bool whole = !keep || reserve_resize(db, 0, wanted) == ESKER_OK;
    mutex_lock(&db->mu);
    reserve_end_locked(db, whole && keep ? wanted : 0);
    db->reserve_spent = !whole;
    mutex_unlock(&db->mu);
}
