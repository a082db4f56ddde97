/* SPDX-License-Identifier: MIT */
/*
 * Windows and the log files under them: making them, making the next one the
 * active one, giving files back. Which are made ahead: db_prepare.c.
 *
 * Invariants
 *  I1 A window becomes active only when its log file is listed in the manifest,
 *     fully written and begun (both header pages synced): from then on commits
 *     into it cannot fail for want of space.
 *  I2 Windows tile the LSN space: base of the next = end of the active one.
 *  I3 A log file goes back to the pool when its window was flushed and no
 *     leader writes or syncs it.
 *  I4 Rotation waits for flush and merge progress, never for a reader.
 *  I5 One window is in the making at a time (`preparing`, `rotating`). Of two logs
 *     that follow the same one recovery believes the one begun last, so a log
 *     begun beside the one that becomes active would take its place.
 *  I6 The log begun last is reached by prev_gen links from those in use, at every
 *     moment; recovery takes it for lost otherwise (wal/log_file.h).
 */
#include "db/db.h"
#include "db/db_windows.h"
#include "base/mutant.h"

/* ---- The pool of log files ------------------------------------------------ */

void
db_pool_add_locked(esker_db *db, struct log_file *log)
{
    if (db->pool.count == db->pool.cap) {
        size_t cap = MAX(db->pool.cap * 2, (size_t)8);
        struct log_file **files = mem_alloc_array(&db->mem, cap, sizeof *files);
        if (files == NULL) { /* the file stays listed; the next open finds it again, and looks for the way */
            db->lost_gen = MAX(db->lost_gen, log->header.gen);
            log_file_destroy(log);
            return;
        }
        if (db->pool.count > 0) {
            memcpy(files, db->pool.files, db->pool.count * sizeof *files);
        }
        mem_free(&db->mem, db->pool.files);
        db->pool.files = files;
        db->pool.cap = cap;
    }
    db->pool.files[db->pool.count++] = log;
}

/* The smallest file with enough space, or NULL. */
static struct log_file *
rotate_pool_take(esker_db *db, uint64_t cap_bytes)
{
    mutex_lock(&db->mu);
    size_t best = db->pool.count;
    for (size_t i = 0; i < db->pool.count; i++) {
        struct log_file *log = db->pool.files[i];
        if (log->space_bytes >= cap_bytes &&
            (best == db->pool.count || log->space_bytes < db->pool.files[best]->space_bytes)) {
            best = i;
        }
    }
    struct log_file *taken = NULL;
    if (best < db->pool.count) {
        taken = db->pool.files[best];
        db->pool.files[best] = db->pool.files[--db->pool.count];
        db->beginning_behind = taken->header.prev_gen;
    }
    mutex_unlock(&db->mu);
    return taken;
}

/* A taken one was begun anew, or goes back. */
static void
rotate_pool_settle(esker_db *db, struct log_file *back)
{
    mutex_lock(&db->mu);
    db->beginning_behind = 0;
    if (back != NULL) {
        db_pool_add_locked(db, back);
    }
    mutex_unlock(&db->mu);
}

/* Lists a new file, its header begun: a listed file always has a valid header. */
static esker_status
rotate_list_log(esker_db *db, struct log_file *log)
{
    uint64_t number = log->number;
    struct edit edit = {.add_logs = &number, .add_log_count = 1};
    TRY(io_sync_dir(db->io));
    TRY(db_manifest_append(db, &edit));
    mutex_lock(&db->mu);
    db->log_file_count++;
    db->log_file_bytes += LOG_HEADER_BYTES + log->space_bytes;
    mutex_unlock(&db->mu);
    return ESKER_OK;
}

/* A file that could not be listed. Only where the disk had no room for the edit it is
 * known not to be on it; else the file stays: an orphan is removed at the next open. */
static void
rotate_abandon_log(esker_db *db, struct log_file *log)
{
    esker_error story = *status_last();
    char name[40];
    log_file_name(log->number, name);
    log_file_destroy(log);
    mutex_lock(&db->manifest_mu);
    bool absent = story.status == ESKER_NO_SPACE && !manifest_is_dead(db->manifest);
    mutex_unlock(&db->manifest_mu);
    if (absent) {
        IGNORE_STATUS(io_unlink(db->io, name), "an orphan is removed at the next open");
    }
    IGNORE_STATUS(status_restore(&story), "keeps the first story");
}

/* Was it begun behind one that has been begun anew since, or is gone? What was begun later hides it. */
static bool
rotate_pool_is_astray_locked(esker_db *db, const struct log_file *log, uint64_t active_gen)
{
    uint64_t prev_gen = log->header.prev_gen;
    bool found = log->header.gen <= active_gen || prev_gen <= active_gen;
    for (size_t i = 0; i < db->pool.count && !found; i++) {
        found = db->pool.files[i]->header.gen == prev_gen;
    }
    for (size_t i = 0; i < PREPARED_MAX && !found; i++) {
        found = db->prepared[i] != NULL && db->prepared[i]->gen == prev_gen;
    }
    return !found;
}

/* I6: logs that were never used go in this order: first those that nothing leads to, which would be the ones
 * begun last once the others are gone; then of those that were begun one behind the other the last one, and
 * none that the one in the making follows, or that its file followed before: until it is begun anew, that is
 * what the disk says. Nor any while one that cannot be seen here may follow it. False: not this one now. */
static bool
rotate_pool_last_behind_locked(esker_db *db, size_t *index)
{
    /* pairs: CURRENT — installers hold mu. */
    uint64_t active_gen = load_acquire(&db->current)->windows[0]->gen;
    uint64_t gen = db->pool.files[*index]->header.gen;
    if (gen > active_gen && db->lost_gen > active_gen) {
        return false;
    }
    for (size_t i = 0; i < db->pool.count && gen > active_gen; i++) {
        if (rotate_pool_is_astray_locked(db, db->pool.files[i], active_gen)) {
            *index = i;
            return true;
        }
    }
    for (size_t i = 0; i < db->pool.count; i++) {
        gen = db->pool.files[*index]->header.gen;
        if (gen > active_gen && db->pool.files[i]->header.prev_gen == gen) {
            *index = i;
            i = (size_t)-1; /* from the start: a link only leads to a higher generation */
        }
    }
    gen = db->pool.files[*index]->header.gen;
    return gen <= active_gen || (gen != db->preparing_behind && gen != db->beginning_behind);
}

/* A pool file that is too many or too small; off the pool, NULL if there is none. */
static struct log_file *
rotate_pool_excess(esker_db *db, uint64_t keep_bytes, uint64_t useful_bytes)
{
    struct log_file *log = NULL;
    mutex_lock(&db->mu);
    for (size_t i = 0; i < db->pool.count && log == NULL; i++) {
        size_t last = i;
        bool excess = db->log_file_bytes > keep_bytes || db->pool.files[i]->space_bytes < useful_bytes;
        if (excess && rotate_pool_last_behind_locked(db, &last)) {
            log = db->pool.files[last];
            db->pool.files[last] = db->pool.files[--db->pool.count];
            db->log_file_count--;
            db->log_file_bytes -= LOG_HEADER_BYTES + log->space_bytes;
        }
    }
    mutex_unlock(&db->mu);
    return log;
}

/* A file that is still listed goes back: what leads to it must not go before it (I6). */
static esker_status
rotate_drop_log(esker_db *db, struct log_file *log)
{
    uint64_t number = log->number;
    struct edit edit = {.drop_logs = &number, .drop_log_count = 1};
    char name[40];
    log_file_name(number, name);
    if (MUTANT(5)) {
        TRY(io_unlink(db->io, name));
    }
    esker_status status = db_manifest_append(db, &edit);
    if (status != ESKER_OK) {
        mutex_lock(&db->mu);
        db->log_file_count++;
        db->log_file_bytes += LOG_HEADER_BYTES + log->space_bytes;
        db_pool_add_locked(db, log);
        mutex_unlock(&db->mu);
        return status;
    }
    log_file_destroy(log);
    return io_unlink(db->io, name);
}

esker_status
db_drop_pool(esker_db *db, uint64_t keep_bytes, uint64_t useful_bytes)
{
    struct log_file *log;
    esker_status status = ESKER_OK;
    mutex_lock(&db->drop_mu); /* edits come in the order of choice */
    while (status == ESKER_OK && (log = rotate_pool_excess(db, keep_bytes, useful_bytes)) != NULL) {
        status = rotate_drop_log(db, log);
    }
    mutex_unlock(&db->drop_mu);
    return status;
}

void
db_unpin_log_locked(esker_db *db, struct window *window)
{
    ASSERT(window->log_pins > 0);
    window->log_pins--;
    if (window->log_pins == 0 && window->log_released) {
        db_pool_add_locked(db, window->log);
        window->log = NULL;
        window->map = NULL;
    }
}

void
db_release_log_locked(esker_db *db, struct window *window)
{
    ASSERT(!window->log_released);
    window->log_pins++;
    window->log_released = true;
    db_unpin_log_locked(db, window);
}

/* ---- Making a window ------------------------------------------------------ */

static esker_status
rotate_begin_log(esker_db *db, struct log_file *log, uint64_t cap_bytes, uint64_t base_lsn, uint64_t prev_gen,
                 uint64_t prev_end_lsn)
{
    struct log_header header = {.base_lsn = base_lsn,
                                .cap_bytes = cap_bytes,
                                .prev_gen = prev_gen,
                                .prev_end_lsn = prev_end_lsn,
                                .durable_lsn = db_durable_proof(db)};
    memcpy(header.uuid, db->uuid, sizeof header.uuid);
    struct io_machine_id id;
    db->io->ops->machine_id(db->io, &id);
    memcpy(header.boot_id, id.boot_id, sizeof header.boot_id);
    header.mount_id = id.mount_id;
    /* The header claims that this edit is durable, and the edit that drops this file may have failed. */
    TRY(db_manifest_settle(db, &header.manifest_no, &header.edit_no));
    mutex_lock(&db->mu);
    header.gen = ++db->log_gen_max;
    mutex_unlock(&db->mu);
    return log_file_begin(log, &header);
}

static void
rotate_unmapped(void *ctx, uint64_t bytes)
{
    esker_db *db = ctx;
    block_cache_discharge(db->cache, MEMORY_WINDOWS, bytes);
}

void
db_charge_log(esker_db *db, struct log_file *log, uint64_t bytes)
{
    if (log == NULL || log->map == NULL) {
        return;
    }
    if (log->unmapped == NULL) {
        log->unmapped = rotate_unmapped;
        log->unmapped_ctx = db;
    }
    /* relaxed: each caller settles its own difference */
    uint64_t before = load_relaxed(&log->touched_bytes);
    while (bytes > before && !cas_relaxed(&log->touched_bytes, &before, bytes)) {
    }
    block_cache_charge(db->cache, MEMORY_WINDOWS, bytes - MIN(bytes, before));
}

esker_status
db_map_log(esker_db *db, struct window *window)
{
    if (!db->tail_mode) {
        return ESKER_OK;
    }
    /* A file from the pool keeps its mapping: no unmap under mu, no faults again. */
    esker_status status = window->log->map != NULL ? ESKER_OK : log_file_map(window->log);
    if (status == ESKER_UNSUPPORTED &&
        load_relaxed(&db->magic) != DB_MAGIC_OPEN) { /* relaxed: set before open returns */
        db->tail_mode = false;                       /* still opening: leaders will write the log */
        return ESKER_OK;
    }
    TRY(status);
    window->map = window->log->map;
    return ESKER_OK;
}

/* Are syncs expected, so that new log files should be filled ahead of them? One of 16 MiB costs 25 ms of
 * a processor and as many MiB of the disk, while writers may be waiting for it. */
static bool
rotate_prewrites(esker_db *db)
{
    return db->options.durability >= ESKER_DURABLE_INTERVAL ||
           load_relaxed(&db->log_syncs) != 0; /* relaxed: a guess */
}

esker_status
db_make_window(esker_db *db, uint64_t cap_bytes, uint32_t op_cap, uint64_t base_lsn, uint64_t prev_gen,
               uint64_t prev_end_lsn, struct window **out)
{
    ASSERT(cap_bytes % LOG_PAGE_BYTES == 0);
    struct window *window = NULL;
    TRY(window_create_spare(db->io, &db->mem, db->cache, &db->spare_memory, cap_bytes, base_lsn, op_cap,
                            db->hash_seed, &window));
    struct log_file *log = rotate_pool_take(db, cap_bytes);
    esker_status status = ESKER_OK;
    bool listed = log != NULL;
    if (!listed) {
        TRY_OUT(
            log_file_create(db->io, &db->mem, db_next_file_id(db), cap_bytes, rotate_prewrites(db), &log));
        add_relaxed(&db->log_bytes_prepared, log->prewritten_bytes); /* relaxed: statistic */
    }
    TRY_OUT(rotate_begin_log(db, log, cap_bytes, base_lsn, prev_gen, prev_end_lsn));
    rotate_pool_settle(db, NULL);
    if (!listed) {
        TRY_OUT(rotate_list_log(db, log));
        listed = true;
    }
    window->gen = log->header.gen;
    window->file_seed = log_file_seed(&log->header);
    window->log = log;
    TRY_OUT(db_map_log(db, window));
    db_charge_log(db, log, cap_bytes);
    *out = window;
    return ESKER_OK;
out:
    window->log = NULL;
    if (log != NULL && listed) {
        rotate_pool_settle(db, log);
    } else if (log != NULL) {
        rotate_abandon_log(db, log);
    }
    window_unref(window);
    return status;
}

void
db_discard_window_locked(esker_db *db, struct window *window)
{
    db_pool_add_locked(db, window->log);
    window->log = NULL;
    window->map = NULL;
    window_unref(window);
}

/* ---- Rotation ------------------------------------------------------------- */

static esker_status
rotate_sync_reopen(esker_db *db, struct window *active)
{
    uint64_t offset = db->reopen_offset;
    ASSERT(active->cap_bytes - offset >= REOPEN_FRAME_BYTES); /* recovery begins a new log otherwise */
    struct io_machine_id id;
    db->io->ops->machine_id(db->io, &id);
    uint8_t *body = active->data + offset + FRAME_HEADER_BYTES;
    memcpy(body, id.boot_id, sizeof id.boot_id);
    le64_store(body + 16, id.mount_id);
    le64_store(body + 24, 0);
    db_write_frame(db, active, offset, REOPEN_FRAME_BYTES, FRAME_REOPEN, FRAME_BACK_NO_CLAIM);
    if (active->map == NULL) {
        uint64_t seal_offset = (db->seal_lsn - active->base_lsn) * LSN_BYTES; /* not surely on the disk */
        TRY(log_file_write(active->log, active->data, seal_offset, offset + REOPEN_FRAME_BYTES));
    }
    return log_file_sync(active->log);
}

/* The REOPEN frame, before the first write behind a SEAL; mu is held, and let
 * go meanwhile. The frame is synced before anything may stand behind it: a power
 * cut that took every trace of it would leave a sealed log, and the next life
 * would give out the same LSNs again. false: poisoned. */
static bool
rotate_reopen_locked(esker_db *db)
{
    struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT */
    while (db->reopening) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    if (!db->reopen_pending || load_relaxed(&db->poisoned) != 0) { /* relaxed: set under mu */
        return !db->reopen_pending;
    }
    /* A window that an earlier, larger budget made holds what it has and no more:
     * the first commit fills the rest and goes on in one of the right size. */
    bool too_large = active->cap_bytes > db->window_bytes_max;
    uint32_t ops = too_large ? active->op_cap : db->reopen_ops;
    db->reopening = true;
    mutex_unlock(&db->mu);
    if (!too_large) {
        window_charge(active, window_expected_bytes(active, 0));
        db_charge_log(db, active->log, active->cap_bytes);
    }
    esker_status status = rotate_sync_reopen(db, active);
    if (status != ESKER_OK) {
        db_poison(db);
    }
    mutex_lock(&db->mu);
    db->reopening = false;
    if (status == ESKER_OK) {
        window_set_applied(active, db->reopen_offset);
        db->reopen_pending = false;
        /* relaxed: the frame itself is published by its applied bit. */
        store_relaxed(&active->tail, window_tail(ops, db->reopen_offset + REOPEN_FRAME_BYTES));
    }
    cond_broadcast(&db->changed);
    return status == ESKER_OK;
}

static esker_status
rotate_install_locked(esker_db *db, struct window *next)
{
    /* pairs: CURRENT — installers hold mu. */
    const struct version *version = load_acquire(&db->current);
    ASSERT(next->base_lsn == version->end_lsn);
    db_dead_settle(version, load_acquire(&db->visible)); /* pairs: VISIBLE */
    memtable_dead_inherit(next->table, version->windows[0]->table);
    struct window *windows[WINDOWS_MAX];
    windows[0] = next;
    memcpy(windows + 1, version->windows, version->window_count * sizeof *windows);
    TRY(db_publish_windows_locked(db, windows, version->window_count + 1));
    window_unref(next); /* the version holds it now */
    db->window_began_ns = io_monotonic_ns(db->io);
    return ESKER_OK;
}

/* Deletes that are to make room come into level 0 even if it is full. */
static bool
rotate_level0_full(const esker_db *db, const struct version *version)
{
    uint32_t full = db->l0_stall + (db->reserve_spent ? L0_STALL_LEAST : 0);
    return level_run_tiers(version->levels[0]) >= full;
}

static bool
rotate_has_room_locked(const esker_db *db, const struct version *version)
{
    return version->window_count < db_windows_live_locked(db, version) && !rotate_level0_full(db, version);
}

/* Prepared windows that the frame would not fit are given back and a larger one is asked for. */
static void
rotate_fit_prepared_locked(esker_db *db, uint64_t need_bytes, uint32_t need_ops)
{
    uint64_t want = db->window_bytes_want;
    if (db->prepared[0] != NULL && db->prepared[0]->deletes_only && !db->reserve_spent) {
        db_discard_prepared_locked(db, 0);
    }
    while (want < db->window_bytes_max && (want < need_bytes * 4 || window_op_capacity(want) < need_ops)) {
        want = MIN(want * 2, db->window_bytes_max);
    }
    const struct window *next = db->prepared[0];
    if (next != NULL && (next->cap_bytes < need_bytes || next->op_cap < need_ops)) {
        db_discard_prepared_locked(db, 0);
    }
    if (db->prepared[0] == NULL) {
        db->window_bytes_want = want;
    }
}

/* What a writer waits for, and since when. */
struct rotate_stall {
    uint64_t since_ns;
    int cause;
};

/* One wait for background work; mu held. */
static esker_status
rotate_wait_locked(esker_db *db, uint64_t deadline_ns, struct rotate_stall *stall)
{
    /* pairs: CURRENT */
    const struct version *version = load_acquire(&db->current);
    bool level0_full = rotate_level0_full(db, version);
    if (db->manual && stall->since_ns == 0) {
        db_try_again_locked(db); /* no timer does */
    }
    if (db->background.status != ESKER_OK) {
        return status_restore(&db->background);
    }
    if (level0_full && db->merge_failure.status != ESKER_OK) {
        return status_restore(&db->merge_failure);
    }
    if (level0_full && db->level0_stuck) {
        return status_restore(&db->damage);
    }
    if (level0_full && load_relaxed(&db->cancel)) { /* relaxed: close set it on this thread */
        return FAIL(ESKER_BUSY, "the database is being closed, and merges that would make room have ended");
    }
    if (stall->since_ns == 0) {
        stall->since_ns = io_monotonic_ns(db->io);
        bool no_memory = version->window_count >= db_windows_live_locked(db, version);
        stall->cause = no_memory ? ESKER_WAIT_MEMORY : level0_full ? ESKER_WAIT_LEVEL0 : ESKER_WAIT_LOG;
    }
    if (db->prepared[0] == NULL && !db->rotating) {
        job_kick(&db->prepare_job);
    }
    if (version->window_count > 1) { /* else it would be in the way of merges for nothing */
        job_kick(&db->flush_job);
    }
    if (level0_full) {
        db_kick_compaction(db);
    }
    if (!workers_wait(&db->changed, &db->mu, deadline_ns)) {
        return FAIL(ESKER_TIMED_OUT, "no memory for the write became free in time");
    }
    return ESKER_OK;
}

/* Fills what is left of the active window; the caller holds `rotating` or does not mind company. */
static esker_status
rotate_seal_active(esker_db *db, struct thread_state *self, uint64_t *end_lsn_out)
{
    mutex_lock(&db->mu);
    bool open = rotate_reopen_locked(db);
    mutex_unlock(&db->mu);
    if (!open) {
        return db_poison_status(db);
    }
    epoch_enter(self);
    struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT */
    uint64_t end_lsn = active->end_lsn;
    uint64_t offset = 0;
    enum window_room room = window_reserve(active, 0, active->cap_bytes + WINDOW_GRANULE, &offset);
    if (room == WINDOW_STRADDLE && offset < active->cap_bytes) {
        db_write_frame(db, active, offset, active->cap_bytes - offset, FRAME_PAD, FRAME_BACK_NO_CLAIM);
        window_set_applied(active, offset);
    }
    epoch_exit(self);
    db_ratchet(db, self);
    *end_lsn_out = end_lsn;
    return ESKER_OK;
}

/* While the reserve is spent, writes that are not deletes wait for nothing. The
 * background is asked to look whether there is room again; and if nothing else is
 * under way, it gets the deletes that wait in memory. mu held, let go meanwhile. */
static esker_status
rotate_refuse_locked(esker_db *db, struct thread_state *self, struct rotate_stall *stall)
{
    uint64_t end_lsn = 0;
    job_kick(&db->prepare_job);
    if (db_reserve_wants_seal_locked(db)) {
        mutex_unlock(&db->mu);
        IGNORE_STATUS(db_seal_active(db, self, 1, &end_lsn), "the next write tries again");
        mutex_lock(&db->mu);
    }
    if (db->manual && stall->since_ns == 0) {
        stall->since_ns = io_monotonic_ns(db->io);
        stall->cause = ESKER_WAIT_LOG;
        db_try_again_locked(db);
        (void)workers_wait(&db->changed, &db->mu, 0);
        return ESKER_OK;
    }
    return db_reserve_refuse();
}

/* A write meets the reserve in use, or the window that was made from it. mu held, let go meanwhile. */
static esker_status
rotate_leave_reserve_locked(esker_db *db, struct thread_state *self, enum rotate_for why,
                            struct rotate_stall *stall)
{
    if (db->reserve_spent && why == ROTATE_FOR_WRITE) {
        return rotate_refuse_locked(db, self, stall);
    }
    uint64_t end_lsn = 0; /* there is room again: the deletes' window ends here */
    mutex_unlock(&db->mu);
    esker_status status = rotate_seal_active(db, self, &end_lsn);
    mutex_lock(&db->mu);
    return status;
}

static void
rotate_count_stall(esker_db *db, const struct rotate_stall *stall)
{
    if (stall->since_ns != 0) {
        db_pace_note(db, stall->cause, 0, io_monotonic_ns(db->io) - stall->since_ns);
    }
}

/* From `filled` to `next`, the one prepared first; both are referenced, if that goes well. */
static esker_status
rotate_go_on_locked(esker_db *db, struct window *next, struct window *filled, enum rotate_for why)
{
    if (why != ROTATE_FOR_FLUSH && filled->cap_bytes >= db->window_bytes_max) {
        db_plan_note_filled_locked(db, io_monotonic_ns(db->io) - db->window_began_ns);
    }
    bool none_waits = load_acquire(&db->current)->window_count == 1; /* pairs: CURRENT */
    TRY(rotate_install_locked(db, next));
    db->flush_since_ns = none_waits ? db->window_began_ns : db->flush_since_ns;
    db_prepared_shift_locked(db);
    db_pace_update_locked(db);
    window_ref(next);
    window_ref(filled);
    cond_broadcast(&db->changed);
    job_kick(&db->flush_job);
    job_kick_after(&db->rest_job, DB_REST_NS);
    return ESKER_OK;
}

esker_status
db_rotate(esker_db *db, struct thread_state *self, uint64_t need_bytes, uint32_t need_ops,
          enum rotate_for why, uint64_t deadline_ns)
{
    esker_status status = ESKER_OK;
    struct rotate_stall stall = {0};
    struct reserve_wait wait = {0};
    struct window *installed = NULL;
    struct window *filled = NULL;
    mutex_lock(&db->mu);
    for (;;) {
        /* pairs: CURRENT — installers hold mu. */
        const struct version *version = load_acquire(&db->current);
        struct window *active = version->windows[0];
        if (db->reopen_pending && !db->rotating) {
            (void)rotate_reopen_locked(db); /* poisoned: the caller's own check reports it */
            break;
        }
        if (!window_is_full(active) && (!active->deletes_only || why != ROTATE_FOR_WRITE)) {
            break;
        }
        if (load_relaxed(&db->poisoned) != 0) { /* relaxed: set under mu */
            break;                              /* the caller's own check reports it */
        }
        if (!window_is_full(active) || (db->reserve_spent && why == ROTATE_FOR_WRITE)) {
            status = rotate_leave_reserve_locked(db, self, why, &stall);
            if (status != ESKER_OK) {
                break;
            }
            continue;
        }
        rotate_fit_prepared_locked(db, need_bytes, need_ops);
        if (db->prepared[0] != NULL && !db->rotating && rotate_has_room_locked(db, version)) {
            installed = db->prepared[0];
            filled = active;
            status = rotate_go_on_locked(db, installed, filled, why);
            break;
        }
        status = rotate_wait_locked(db, deadline_ns, &stall);
        if (status == ESKER_NO_SPACE &&
            db_reserve_finds_room_locked(db, why == ROTATE_FOR_DELETES, deadline_ns, &wait)) {
            status = ESKER_OK;
        }
        if (status != ESKER_OK) {
            break;
        }
    }
    rotate_count_stall(db, &stall);
    mutex_unlock(&db->mu);
    if (installed != NULL && status == ESKER_OK) {
        window_charge(installed, window_expected_bytes(installed, window_bytes_per_op(filled)));
        if (filled->cap_bytes <= db->window_bytes_max) { /* else it was not filled: rotate_reopen_locked */
            window_charge(filled, window_resident_bytes(filled, filled->cap_bytes));
        }
        window_unref(installed);
        window_unref(filled);
    }
    db_ratchet(db, self);
    return status;
}

esker_status
db_replace_active(esker_db *db, struct thread_state *self, uint64_t deadline_ns, uint64_t *end_lsn_out)
{
    TRY(rotate_seal_active(db, self, end_lsn_out));
    TRY(db_rotate(db, self, 0, 0, ROTATE_FOR_FLUSH, deadline_ns));
    return db_poison_status(db); /* then it may still be the active one, which nobody flushes */
}

esker_status
db_seal_active(esker_db *db, struct thread_state *self, uint64_t deadline_ns, uint64_t *end_lsn_out)
{
    TRY(db_poison_status(db));
    mutex_lock(&db->mu);
    db_try_again_locked(db);
    mutex_unlock(&db->mu);
    epoch_enter(self);
    struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT */
    uint64_t base_lsn = active->base_lsn;
    epoch_exit(self);
    /* pairs: VISIBLE */
    if (load_acquire(&db->visible) == base_lsn) {
        *end_lsn_out = base_lsn; /* nothing in it */
        return ESKER_OK;
    }
    return db_replace_active(db, self, deadline_ns, end_lsn_out);
}

/* Becomes the only one who rotates. mu held. */
static esker_status
rotate_claim_locked(esker_db *db, uint64_t deadline_ns)
{
    struct rotate_stall stall = {0};
    esker_status status = ESKER_OK;
    /* pairs: CURRENT — installers hold mu. */
    while (db->rotating || db->preparing || !rotate_has_room_locked(db, load_acquire(&db->current))) {
        status = rotate_wait_locked(db, deadline_ns, &stall);
        if (status != ESKER_OK) {
            break;
        }
    }
    rotate_count_stall(db, &stall);
    return status;
}

esker_status
db_rotate_oversize(esker_db *db, struct thread_state *self, uint64_t frame_bytes, uint32_t op_count,
                   uint64_t deadline_ns, struct window **out)
{
    struct rotate_stall stall = {0};
    esker_status status = ESKER_OK;
    mutex_lock(&db->mu);
    while (status == ESKER_OK && db->reserve_spent) {
        status = rotate_refuse_locked(db, self, &stall);
    }
    if (status == ESKER_OK) {
        status = rotate_claim_locked(db, deadline_ns);
    }
    if (status == ESKER_OK) {
        db->rotating = true;
        db_discard_prepared_locked(db, 0);
    }
    mutex_unlock(&db->mu);
    TRY(status);

    uint64_t end_lsn = 0;
    status = rotate_seal_active(db, self, &end_lsn);
    mutex_lock(&db->mu);
    struct window *active = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT — nobody else rotates */
    uint64_t base_lsn = active->end_lsn;
    uint64_t prev_gen = active->gen;
    mutex_unlock(&db->mu);
    struct window *window = NULL;
    if (status == ESKER_OK) {
        status = db_make_window(db, align_up(frame_bytes, LOG_PAGE_BYTES), op_count, base_lsn, prev_gen,
                                base_lsn, &window);
    }
    if (status == ESKER_OK) {
        /* relaxed: published with the version below. Full from the start: it is all one frame's. */
        store_relaxed(&window->tail, window_tail((uint64_t)op_count + 1, window->cap_bytes + WINDOW_GRANULE));
        window_charge(window, window_expected_bytes(window, 0));
        window_ref(window);
    }
    mutex_lock(&db->mu);
    if (status == ESKER_OK) {
        status = rotate_install_locked(db, window);
        if (status == ESKER_OK) {
            *out = window;
        } else {
            window_unref(window);
            db_discard_window_locked(db, window);
        }
    }
    db->rotating = false;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    job_kick(&db->prepare_job); /* it is full from the start */
    return status;
}
