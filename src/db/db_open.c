/* SPDX-License-Identifier: MIT */
/* Opening: the handle, the lock, a fresh database or recovery; and the way back when something fails. */
#include <errno.h>

#include "db/db.h"
#include "db/db_explain.h"
#include "db/db_files.h"
#include "db/db_handle.h"

static void
open_init_jobs(esker_db *db)
{
    uint32_t threads = db->options.background_threads;
    threads = threads != 0 ? threads : workers_compact_count();
    db->compact_job_count = MIN(MAX(threads, (uint32_t)1), (uint32_t)COMPACT_JOBS_MAX);
    job_owner_init(&db->jobs, db->compact_job_count);
    job_init(&db->prepare_job, &db->jobs, JOB_LOG, db_prepare_job);
    job_init(&db->populate_job, &db->jobs, JOB_LOG, db_populate_job);
    job_init(&db->sync_job, &db->jobs, JOB_LOG, db_sync_job);
    job_init(&db->flush_job, &db->jobs, JOB_FLUSH, db_flush_job);
    job_init(&db->purge_job, &db->jobs, JOB_PURGE, db_purge_job);
    job_init(&db->space_job, &db->jobs, JOB_PURGE, db_space_job);
    job_init(&db->rest_job, &db->jobs, JOB_PURGE, db_rest_job);
    job_init(&db->load_job, &db->jobs, JOB_PURGE, db_load_job);
    for (uint32_t i = 0; i < db->compact_job_count; i++) {
        db->compact_jobs[i].db = db;
        job_init(&db->compact_jobs[i].job, &db->jobs, JOB_COMPACT, db_compact_job);
    }
}

/* ---- A fresh database --------------------------------------------------------- */

static esker_status
open_has_current(struct io *io, bool *has_out)
{
    struct io_file *file = NULL;
    int failed = io->ops->open_file(io, DB_CURRENT_NAME, IO_OPEN_READ, &file);
    *has_out = failed != -ENOENT;
    if (failed == 0) {
        io_close_file(io, file);
    }
    /* -EINVAL: something that is no file has the name; recovery says so. */
    bool known = failed == 0 || failed == -ENOENT || failed == -EINVAL;
    return known ? ESKER_OK : FAIL_OS(-failed, DB_CURRENT_NAME, 0, "cannot open");
}

/* Without CURRENT: either nothing of ours is here, or a creation that was cut
 * short (nothing can have been acknowledged), or a database that lost it. */
static esker_status
open_check_unborn(esker_db *db, const struct db_file_list *files)
{
    bool has_manifest = false;
    for (size_t i = 0; i < db_file_count(files); i++) {
        has_manifest = has_manifest || db_file_at(files, i)->kind == DB_FILE_MANIFEST;
    }
    for (size_t i = 0; i < db_file_count(files); i++) {
        const struct db_file *file = db_file_at(files, i);
        bool unborn = file->kind == DB_FILE_LOCK;
        if (!unborn) {
            TRY(db_file_is_unborn(db->io, file, has_manifest, &unborn));
        }
        if (!unborn) {
            return FAIL_AT(ESKER_CORRUPT, DB_CURRENT_NAME, 0,
                           "CURRENT is missing but %s is here; nothing was changed", file->name);
        }
    }
    return ESKER_OK;
}

static esker_status
open_is_missing(esker_db *db)
{
    struct db_file_list files;
    TRY(db_file_list(db->io, &db->mem, &files));
    esker_status status = open_check_unborn(db, &files);
    db_file_list_fini(&files);
    return status != ESKER_OK ? status
                              : FAIL(ESKER_INVALID, "there is no database and create_if_missing is off");
}

static esker_status
open_clear_unborn(esker_db *db)
{
    struct db_file_list files;
    TRY(db_file_list(db->io, &db->mem, &files));
    bool removed = false;
    esker_status status = open_check_unborn(db, &files);
    for (size_t i = 0; i < db_file_count(&files) && status == ESKER_OK; i++) {
        const struct db_file *file = db_file_at(&files, i);
        if (file->kind != DB_FILE_LOCK) {
            status = io_unlink(db->io, file->name);
            removed = true;
        }
    }
    if (removed && status == ESKER_OK) {
        /* Names may survive in any order: an old manifest beside a new log would look like more than an
         * attempt at a creation. */
        status = io_sync_dir(db->io);
    }
    db_file_list_fini(&files);
    return status;
}

/* The order makes every crash in it a directory without CURRENT that
 * open_clear_unborn recognises: log file, then manifest, then CURRENT. */
esker_status
db_create_fresh(esker_db *db)
{
    le64_store(db->uuid, db->io->ops->random64(db->io));
    le64_store(db->uuid + 8, db->io->ops->random64(db->io));
    uint64_t cap_bytes = db->window_bytes_first;
    uint64_t base_lsn = LOG_PAGE_BYTES / LSN_BYTES;
    uint64_t number = 1;
    store_relaxed(&db->next_file_id, 2); /* relaxed: not shared yet */
    struct log_header header = {
        .gen = 1, .base_lsn = base_lsn, .cap_bytes = cap_bytes, .durable_lsn = base_lsn};
    memcpy(header.uuid, db->uuid, sizeof header.uuid);
    struct io_machine_id id;
    db->io->ops->machine_id(db->io, &id);
    memcpy(header.boot_id, id.boot_id, sizeof header.boot_id);
    header.mount_id = id.mount_id;
    struct window *window = NULL;
    struct version *version = NULL;
    struct edit snapshot = {.is_snapshot = true,
                            .next_file_id = 2,
                            .wal_min_gen = 1,
                            .wal_min_lsn = base_lsn,
                            .durable_lsn = base_lsn,
                            .add_logs = &number,
                            .add_log_count = 1};
    TRY(window_create(db->io, &db->mem, db->cache, NULL, cap_bytes, base_lsn, window_op_capacity(cap_bytes),
                      db->hash_seed, &window));
    esker_status status = ESKER_OK;
    TRY_OUT(log_file_create(db->io, &db->mem, number, cap_bytes, true, &window->log));
    add_relaxed(&db->log_bytes_prepared, window->log->prewritten_bytes); /* relaxed: statistic */
    TRY_OUT(log_file_settle(window->log));
    TRY_OUT(log_file_begin(window->log, &header));
    TRY_OUT(manifest_create(db->io, &db->mem, db->uuid, 1, &snapshot, &db->manifest));
    TRY_OUT(db_note_logs(db, &snapshot));
    TRY_OUT(db_map_log(db, window));
    window_charge(window, window_expected_bytes(window, 0));
    db_charge_log(db, window->log, cap_bytes);
    window->gen = 1;
    window->file_seed = log_file_seed(&header);
    db->wal_min_gen = 1;
    db->wal_min_lsn = base_lsn;
    db->log_gen_max = 1;
    db->log_file_count = 1;
    db->log_file_bytes = LOG_HEADER_BYTES + cap_bytes;
    store_relaxed(&db->visible, base_lsn); /* relaxed: not shared yet */
    store_relaxed(&db->logged, base_lsn);  /* relaxed: not shared yet */
    store_relaxed(&db->durable, base_lsn); /* relaxed: not shared yet */
    db->marked_lsn = base_lsn;
    TRY_OUT(version_create(&db->mem, &db->versions, &version));
    version_set_windows(version, &window, 1);
    version_publish(&db->current, version, io_monotonic_ns(db->io));
out:
    window_unref(window);
    return status;
}

/* ---- Start -------------------------------------------------------------------- */

static esker_status
open_lock(esker_db *db)
{
    int failed = db->io->ops->lock(db->io, DB_LOCK_NAME);
    if (failed == -EWOULDBLOCK) {
        return FAIL_AT(ESKER_BUSY, DB_LOCK_NAME, 0, "the database is open in this process or another one");
    }
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, DB_LOCK_NAME, 0, "cannot lock the database");
}

/* A copy into the mapped log instead of a write per group: where the level
 * promises to survive the process, and the file system maps as it should. */
static bool
open_wants_tail(const esker_db *db)
{
    return db->options.durability == ESKER_DURABLE_PROCESS ||
           db->options.durability == ESKER_DURABLE_INTERVAL;
}

static esker_status
open_load(esker_db *db)
{
    bool has_current = false;
    TRY(open_has_current(db->io, &has_current));
    if (!has_current && !db->options.create_if_missing) {
        return open_is_missing(db);
    }
    TRY(open_lock(db));
    TRY(open_has_current(db->io, &has_current)); /* again: somebody may have made it meanwhile */
    if (has_current && db->options.error_if_exists) {
        return FAIL(ESKER_INVALID, "the database exists and error_if_exists is on");
    }
    if (has_current) {
        return db_recover(db);
    }
    TRY(open_clear_unborn(db));
    return db_create_fresh(db);
}

/* Large recovered memtables are flushed before the budget is handed out again, and
 * many, lest they grow in number when crash follows crash. */
static esker_status
open_shed_recovered(esker_db *db)
{
    uint64_t bytes = 0;
    uint64_t end_lsn = 0;
    bool many = false;
    mutex_lock(&db->mu);
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    for (uint32_t i = 1; i < version->window_count; i++) {
        bytes += (version->windows[i]->end_lsn - version->windows[i]->base_lsn) * LSN_BYTES;
    }
    if (version->window_count > 1) {
        end_lsn = version->windows[1]->end_lsn;
        many = version->window_count - 1 > WINDOWS_RECOVERED_MAX;
        job_kick(&db->flush_job);
    }
    mutex_unlock(&db->mu);
    return many || bytes > db->options.memory_budget_bytes / 4 ? db_flush_recovered(db, end_lsn) : ESKER_OK;
}

static void
open_derive_sizes(esker_db *db, const struct db_tuning *tuning)
{
    struct db_sizes sizes;
    db_sizes_derive(&db->options, &sizes);
    db->window_bytes_max = sizes.window_bytes_max;
    db->window_bytes_first = sizes.window_bytes_first;
    db->segment_bytes = sizes.segment_bytes;
    if (tuning != NULL && tuning->window_bytes_max != 0) {
        db->window_bytes_max = tuning->window_bytes_max;
        db->window_bytes_first = tuning->window_bytes_first;
        db->segment_bytes = tuning->segment_bytes;
        db->merge_step_work = tuning->merge_step_work;
        db->merge_policy = tuning->merge_policy;
        db->tier_bytes = tuning->tier_bytes;
        db->correct_bytes = tuning->correct_bytes;
    }
    db->window_bytes_want = MIN(db->window_bytes_first * 2, db->window_bytes_max);
}

/* A share of the descriptors: the process has others, and other databases. */
static uint64_t
open_segments_max(const esker_db *db)
{
    uint64_t files = io_files_max(db->io);
    return MAX((files - MIN(files, (uint64_t)DB_FILES_RESERVED)) / DB_FILES_SHARE, (uint64_t)DB_FILES_MIN);
}

/* For merges half of what is not reserved; one of level 0 has all its inputs open. */
static void
open_derive_files(esker_db *db)
{
    uint64_t files = io_files_max(db->io);
    block_cache_limit_holders(db->cache, open_segments_max(db));
    uint64_t free_files = files - MIN(files, (uint64_t)DB_FILES_RESERVED);
    uint64_t merge = MAX(free_files / DB_FILES_MERGE_SHARE, (uint64_t)DB_FILES_MIN);
    db->merge_files_max = (uint32_t)MIN(merge, (uint64_t)UINT32_MAX / 2);
    db->l0_inputs_max = db->merge_files_max;
    /* Iterators, too, open all of level 0 at once. */
    db->l0_stall = (uint32_t)MIN(MAX(files / L0_STALL_FILES, (uint64_t)L0_STALL_LEAST), (uint64_t)L0_STALL);
}

static esker_status
open_start(esker_db *db, const struct db_tuning *tuning)
{
    struct db_sizes sizes;
    db_sizes_derive(&db->options, &sizes);
    if (db->options.allocator == NULL && db->io->ops->map_aligned != NULL) {
        uint64_t idle_bytes = MAX(sizes.cache_bytes / HEAP_IDLE_SHARE, (uint64_t)HEAP_IDLE_LEAST);
        TRY(page_heap_create(db->io, idle_bytes, &db->heap));
        page_heap_mem(db->heap, &db->block_mem);
    }
    TRY(block_cache_create(&db->block_mem, sizes.cache_bytes, &db->cache));
    block_cache_use_heap(db->cache, db->heap);
    block_cache_set_owner(db->cache, db);
    open_derive_files(db);
    db->stripes = mem_alloc_aligned(&db->mem, CACHE_LINE_BYTES, STRIPE_COUNT * sizeof *db->stripes);
    if (db->stripes == NULL) {
        return FAIL_NO_MEMORY("counters");
    }
    memset(db->stripes, 0, STRIPE_COUNT * sizeof *db->stripes);
    db_iterate_init(db);
    db->hash_seed = db->io->ops->random64(db->io);
    open_derive_sizes(db, tuning);
    db->tail_mode = open_wants_tail(db);
    db->populate = !db->manual && db->io->ops->populate != NULL;
    /* A sync writes what is dirty, and a page made writable is: not beside syncs all the time. */
    db->populate_map = db->options.durability == ESKER_DURABLE_PROCESS;
    db->reserve_off = tuning != NULL && !tuning->reserve;
    db->reserve_tiny = tuning != NULL && tuning->reserve;
    TRY(open_load(db));
    if (tuning != NULL && tuning->manifest_bytes != 0) {
        manifest_set_rewrite_bytes(db->manifest, tuning->manifest_bytes);
    }
    TRY(open_shed_recovered(db));
    db_kick_compaction(db);
    return ESKER_OK;
}

static esker_status
open_on(esker_db *db, struct io *io, const struct db_tuning *tuning, bool manual)
{
    db->io = io;
    db->manual = manual;
    esker_status status = epoch_runtime_acquire(manual);
    if (status != ESKER_OK) {
        io_close_dir(io);
        db->io = NULL;
        return status;
    }
    status = workers_acquire(manual);
    if (status != ESKER_OK) {
        epoch_runtime_release();
        io_close_dir(io);
        db->io = NULL;
        return status;
    }
    db_count_open(1);
    open_init_jobs(db);
    status = open_start(db, tuning);
    if (status != ESKER_OK) {
        esker_error story = *status_last();
        db_teardown(db);
        return status_restore(&story);
    }
    return ESKER_OK;
}

static esker_status
open_finish(esker_db *db, esker_status status, esker_db **db_out)
{
    if (status != ESKER_OK) {
        db_handle_free(db);
        return status;
    }
    store_relaxed(&db->magic, DB_MAGIC_OPEN); /* relaxed: nobody else has the handle yet */
    *db_out = db;
    return ESKER_OK;
}

esker_status
db_open_on(struct io *io, const esker_options *options, const struct db_tuning *tuning, bool manual,
           esker_db **db_out)
{
    esker_options resolved;
    esker_db *db = NULL;
    esker_status status = db_options_resolve(options, &resolved);
    if (status == ESKER_OK) {
        status = db_handle_alloc(&resolved, &db);
    }
    if (status != ESKER_OK) {
        io_close_dir(io);
        return status;
    }
    return open_finish(db, open_on(db, io, tuning, manual), db_out);
}

esker_status
esker_open(const char *path, const esker_options *options, esker_db **db_out)
{
    if (path == NULL || *path == 0 || db_out == NULL) {
        return FAIL(ESKER_INVALID, "the path is empty or an output pointer is NULL");
    }
    esker_options resolved;
    TRY(db_options_resolve(options, &resolved));
    esker_db *db = NULL;
    TRY(db_handle_alloc(&resolved, &db));
    struct io *io = NULL;
    esker_status status = io_open_dir(path, resolved.create_if_missing, resolved.io_backend, &db->mem, &io);
    if (status == ESKER_NOT_FOUND) {
        status = resolved.create_if_missing
                     ? FAIL_OS(ENOENT, NULL, 0, "cannot create the directory %.100s", path)
                     : FAIL(ESKER_INVALID, "there is no directory %.100s and create_if_missing is off", path);
    }
    if (status == ESKER_OK) {
        status = open_on(db, io, NULL, false);
    }
    return open_finish(db, status, db_out);
}
