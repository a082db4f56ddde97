/* SPDX-License-Identifier: MIT */
/*
 * Looking at a closed database from outside: verify reads every byte and
 * writes none; destroy removes what is provably ours and nothing else.
 */
#include <errno.h>

#include "db/db_closed.h"
#include "db/db_files.h"
#include "db/db_handle.h"
#include "db/db_recover.h"
#include "io/io_path.h"

/* ---- A closed database in hand ---------------------------------------------------- */

/* An existing LOCK is taken; a missing one, or what is no file, means nobody has it open. */
static esker_status
closed_lock(struct io *io, bool shared)
{
    struct io_file *lock = NULL;
    int failed = io->ops->open_file(io, DB_LOCK_NAME, IO_OPEN_READ, &lock);
    if (failed == -ENOENT || failed == -EINVAL) {
        return ESKER_OK;
    }
    if (failed == 0) {
        io_close_file(io, lock);
        failed = shared ? io->ops->lock_shared(io, DB_LOCK_NAME) : io->ops->lock(io, DB_LOCK_NAME);
    }
    if (failed == -EWOULDBLOCK) {
        return FAIL_AT(ESKER_BUSY, DB_LOCK_NAME, 0, "the database is open in this process or another one");
    }
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, DB_LOCK_NAME, 0, "cannot lock the database");
}

esker_status
db_closed_open_on(struct io *io, bool shared, const esker_allocator *allocator, esker_db **out)
{
    esker_options options, defaults;
    esker_db *db = NULL;
    esker_options_init(&defaults);
    defaults.allocator = allocator;
    esker_status status = db_options_resolve(&defaults, &options);
    if (status == ESKER_OK) {
        status = closed_lock(io, shared);
    }
    if (status == ESKER_OK) {
        status = db_handle_alloc(&options, &db);
    }
    if (status != ESKER_OK) {
        io_close_dir(io);
        return status;
    }
    db->io = io;
    *out = db;
    return ESKER_OK;
}

esker_status
db_closed_open(const char *path, bool shared, esker_db **out)
{
    struct io *io = NULL;
    if (path == NULL || *path == 0) {
        return FAIL(ESKER_INVALID, "the path is empty");
    }
    TRY(io_open_dir(path, false, ESKER_IO_POSIX, &mem_default, &io));
    return db_closed_open_on(io, shared, NULL, out);
}

void
db_closed_free(esker_db *db)
{
    manifest_destroy(db->manifest);
    if (db->cache != NULL) {
        block_cache_destroy(db->cache);
    }
    mem_free(&db->mem, db->log_numbers);
    db->io->ops->unlock(db->io);
    io_close_dir(db->io);
    db_handle_free(db);
}

/* ---- Verify ------------------------------------------------------------------------- */

struct verify {
    esker_verify_fn *each;
    void *ctx;
    bool found, stopped;
    esker_error story; /* of the first finding */
};

/* True when the search goes on. Operating system trouble is not a finding. */
static bool
verify_note(struct verify *verify, esker_status status)
{
    if (status == ESKER_OK) {
        return true;
    }
    esker_error finding = *status_last(); /* the callback may fail calls of its own */
    if (!verify->found) {
        verify->story = finding;
    }
    verify->found = true;
    if (verify->each != NULL && verify->each(verify->ctx, &finding) != 0) {
        verify->stopped = true;
    }
    return !verify->stopped;
}

static bool
verify_is_finding(esker_status status)
{
    return status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED;
}

static bool
verify_note_damage(void *ctx)
{
    return verify_note(ctx, status_last()->status);
}

static esker_status
verify_segment(esker_db *db, const struct segment_meta *meta, segment_damage_fn *each, void *ctx)
{
    struct segment *segment = NULL;
    struct segment_open_options options = {.io = db->io, .mem = &db->mem, .cache = db->cache};
    memcpy(options.uuid, db->uuid, sizeof options.uuid);
    TRY(segment_create(&options, meta, &segment));
    esker_status status = segment_verify_each(segment, each, ctx);
    segment_unref(segment);
    return status;
}

esker_status
db_verify_segment(esker_db *db, const struct segment_meta *meta)
{
    return verify_segment(db, meta, NULL, NULL);
}

static esker_status
verify_files(esker_db *db, struct recover_state *state, struct verify *verify)
{
    for (size_t i = 0; i < state->segment_count && !verify->stopped; i++) {
        const struct segment_meta *meta = &state->segments[i]->meta;
        esker_status status = verify_segment(db, meta, verify_note_damage, verify);
        if (status == ESKER_IO && status_last()->os_errno == ENOENT) {
            char name[40];
            segment_file_name(meta->id, name);
            status = FAIL_AT(ESKER_CORRUPT, name, 0, "%s is listed in the manifest but missing", name);
        }
        if (status != ESKER_OK && !verify_is_finding(status)) {
            return status;
        }
        (void)verify_note(verify, status);
    }
    if (verify->stopped) {
        return ESKER_OK;
    }
    struct wal_recovered recovered = {0};
    esker_status status = recover_read_logs(state, &recovered);
    if (status == ESKER_OK) {
        recover_release_logs(db, &recovered);
    } else if (!verify_is_finding(status)) {
        return status;
    }
    (void)verify_note(verify, status);
    return ESKER_OK;
}

static esker_status
verify_database(esker_db *db, struct verify *verify)
{
    struct recover_state state = {.db = db, .read_only = true};
    TRY(block_cache_create(&db->mem, db->options.memory_budget_bytes / 8, &db->cache));
    esker_status status = manifest_open(db->io, &db->mem, recover_apply, &state, &db->manifest);
    if (status == ESKER_OK) {
        memcpy(db->uuid, manifest_uuid(db->manifest), sizeof db->uuid);
        status = verify_files(db, &state, verify);
    } else if (status == ESKER_NOT_FOUND) {
        struct db_file_list files;
        status = db_file_list(db->io, &db->mem, &files);
        if (status == ESKER_OK) {
            bool any = false;
            for (size_t i = 0; i < db_file_count(&files); i++) {
                any = any || db_file_at(&files, i)->kind != DB_FILE_LOCK;
            }
            db_file_list_fini(&files);
            if (any) {
                (void)verify_note(verify, FAIL_AT(ESKER_CORRUPT, DB_CURRENT_NAME, 0,
                                                  "CURRENT is missing but files of a database are here"));
            } else {
                status = FAIL(ESKER_NOT_FOUND, "there is no database in that directory");
            }
        }
    } else if (verify_is_finding(status)) {
        (void)verify_note(verify, status);
        status = ESKER_OK;
    }
    recover_state_fini(&state);
    epoch_drain();
    return status;
}

static esker_status
verify_closed(esker_db *db, esker_verify_fn *each_finding, void *ctx)
{
    struct verify verify = {.each = each_finding, .ctx = ctx};
    esker_status status = verify_database(db, &verify);
    esker_error story = *status_last();
    db_closed_free(db);
    if (status != ESKER_OK) {
        return status_restore(&story);
    }
    return verify.found ? status_restore(&verify.story) : ESKER_OK;
}

esker_status
db_verify_on(struct io *io, esker_verify_fn *each_finding, void *ctx)
{
    esker_db *db = NULL;
    TRY(db_closed_open_on(io, true, NULL, &db));
    return verify_closed(db, each_finding, ctx);
}

esker_status
esker_verify(const char *path, esker_verify_fn *each_finding, void *ctx)
{
    esker_db *db = NULL;
    TRY(db_closed_open(path, true, &db));
    return verify_closed(db, each_finding, ctx);
}

/* ---- Destroy -------------------------------------------------------------------------- */

static esker_status
destroy_files(esker_db *db, const struct db_file_list *files)
{
    esker_status first = ESKER_OK;
    /* CURRENT goes first: from then on the directory is no database any more. LOCK goes last, if all went. */
    for (int pass = 0; pass < 3; pass++) {
        for (size_t i = 0; i < db_file_count(files); i++) {
            const struct db_file *file = db_file_at(files, i);
            bool ours = false;
            if ((file->kind == DB_FILE_CURRENT) != (pass == 0) ||
                (file->kind == DB_FILE_LOCK) != (pass == 2) || (pass == 2 && first != ESKER_OK)) {
                continue;
            }
            TRY(db_file_is_ours(db->io, file, NULL, &ours));
            if (ours) {
                TRY(io_unlink(db->io, file->name));
            } else if (first == ESKER_OK) {
                first = FAIL_AT(ESKER_CORRUPT, file->name, 0, "%s is not provably esker's and was left alone",
                                file->name);
            }
        }
        TRY(io_sync_dir(db->io));
    }
    return first;
}

esker_status
esker_destroy(const char *path)
{
    esker_db *db = NULL;
    struct db_file_list files;
    TRY(db_closed_open(path, false, &db));
    esker_status status = db_file_list(db->io, &db->mem, &files);
    bool any = status == ESKER_OK && db_file_count(&files) > 0;
    if (status == ESKER_OK) {
        status =
            any ? destroy_files(db, &files) : FAIL(ESKER_NOT_FOUND, "there is no database in that directory");
        db_file_list_fini(&files);
    }
    esker_error story = *status_last();
    db_closed_free(db);
    if (status != ESKER_OK) {
        return status_restore(&story);
    }
    return io_remove_empty_dir(path);
}
