/* SPDX-License-Identifier: MIT */
/*
 * Repair: a damaged database made one that opens again, by an explicit act. What
 * the manifest lists and is whole stays as it is; of damaged segments and logs
 * what is provable is written into new ones. Without a manifest that can be
 * believed every segment and log in the directory that proves to be this
 * database's is merged into a new sorted run. Invariants: db_repair.h.
 */
#include <stdio.h>

#include "db/db_closed.h"
#include "db/db_repair.h"
#include "format/segment_format.h"

enum { REPAIR_OWNERS_MAX = 16 };

/* ---- Whose files are these? ---------------------------------------------------- */

struct repair_owner {
    uint8_t uuid[16];
    uint32_t votes;
};

static void
repair_vote(struct repair_owner owners[REPAIR_OWNERS_MAX], const uint8_t uuid[16], uint32_t votes)
{
    for (size_t i = 0; i < REPAIR_OWNERS_MAX; i++) {
        if (owners[i].votes == 0) {
            memcpy(owners[i].uuid, uuid, sizeof owners[i].uuid);
        }
        if (owners[i].votes == 0 || memcmp(owners[i].uuid, uuid, sizeof owners[i].uuid) == 0) {
            owners[i].votes += votes;
            return;
        }
    }
}

/* The uuid that a file's own first bytes prove. */
static bool
repair_file_uuid(const struct db_file *file, const uint8_t *head, size_t len, uint8_t uuid_out[16])
{
    struct file_head named;
    struct log_header header;
    bool unsupported;
    switch (file->kind) {
    case DB_FILE_CURRENT:
        if (current_decode(bytes_make(head, MIN(len, (size_t)CURRENT_BYTES)), &named) != ESKER_OK) {
            return false;
        }
        memcpy(uuid_out, named.uuid, sizeof named.uuid);
        return true;
    case DB_FILE_MANIFEST:
        if (manifest_header_decode(bytes_make(head, MIN(len, (size_t)MANIFEST_HEADER_BYTES)), &named) !=
                ESKER_OK ||
            named.number != file->number) {
            return false;
        }
        memcpy(uuid_out, named.uuid, sizeof named.uuid);
        return true;
    case DB_FILE_LOG:
        for (size_t at = 0; at + LOG_PAGE_BYTES <= len; at += LOG_PAGE_BYTES) {
            if (log_header_decode(bytes_make(head + at, LOG_PAGE_BYTES), &header, &unsupported)) {
                memcpy(uuid_out, header.uuid, sizeof header.uuid);
                return true;
            }
        }
        return false;
    case DB_FILE_SEGMENT:
        if (len < SEGMENT_HEADER_BYTES || segment_header_decode(bytes_make(head, SEGMENT_HEADER_BYTES),
                                                                head + 16, file->number) != ESKER_OK) {
            return false;
        }
        memcpy(uuid_out, head + 16, 16);
        return true;
    default:
        return false;
    }
}

esker_status
repair_read_head(struct repair *repair, const struct db_file *file, uint8_t head[LOG_HEADER_BYTES],
                 size_t *len_out)
{
    struct io *io = repair->db->io;
    struct io_file *handle = NULL;
    uint64_t size = 0;
    *len_out = 0;
    esker_status status = io_open_file(io, file->name, IO_OPEN_READ, &handle);
    if (status != ESKER_OK) {
        return repair_is_damage(status) ? ESKER_OK : status;
    }
    status = io_file_size(io, handle, &size);
    size_t len = (size_t)MIN(size, (uint64_t)LOG_HEADER_BYTES);
    if (status == ESKER_OK && len > 0) {
        status = io_read_full(io, handle, 0, head, len);
    }
    io_close_file(io, handle);
    TRY(status);
    *len_out = len;
    return ESKER_OK;
}

/* Most files of a directory belong to one database; that is the one. */
static esker_status
repair_find_owner(struct repair *repair)
{
    struct repair_owner owners[REPAIR_OWNERS_MAX] = {0};
    uint8_t head[LOG_HEADER_BYTES];
    size_t best = 0;
    bool any = false;
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        uint8_t uuid[16];
        if (file->kind == DB_FILE_MANIFEST) {
            repair->manifest_no_max = MAX(repair->manifest_no_max, file->number);
        } else {
            repair->next_id = MAX(repair->next_id, MIN(file->number, EDIT_NUMBER_MAX / 4) + 1);
        }
        any = any || file->kind != DB_FILE_LOCK;
        size_t len = 0;
        TRY(repair_read_head(repair, file, head, &len));
        if (repair_file_uuid(file, head, len, uuid)) {
            /* Of two files of two databases the manifest says more. */
            repair_vote(owners, uuid, file->kind == DB_FILE_MANIFEST ? 3 : 2);
        }
    }
    for (size_t i = 1; i < REPAIR_OWNERS_MAX; i++) {
        best = owners[i].votes > owners[best].votes ? i : best;
    }
    if (owners[best].votes == 0) {
        return any ? FAIL_AT(ESKER_CORRUPT, DB_CURRENT_NAME, 0,
                             "no file here proves to which database it belongs: nothing can be salvaged")
                   : FAIL(ESKER_NOT_FOUND, "there is no database in that directory");
    }
    memcpy(repair->db->uuid, owners[best].uuid, sizeof repair->db->uuid);
    return ESKER_OK;
}

/* ---- The manifest ------------------------------------------------------------------ */

/* Forgets what a manifest said that is not believed after all. */
static void
repair_forget(struct repair *repair)
{
    esker_db *db = repair->db;
    manifest_destroy(db->manifest);
    db->manifest = NULL;
    recover_state_fini(&repair->state);
    repair->state = (struct recover_state){.db = db};
    db->log_number_count = 0;
}

static esker_status
repair_try_manifest(struct repair *repair, uint64_t number, bool *good_out)
{
    esker_db *db = repair->db;
    struct file_head head = {.number = number};
    memcpy(head.uuid, db->uuid, sizeof head.uuid);
    esker_status status =
        manifest_open_at(db->io, &db->mem, &head, recover_apply, &repair->state, &db->manifest);
    if (status != ESKER_OK && !repair_is_damage(status)) {
        return status;
    }
    if (status != ESKER_OK) {
        repair_say(repair, "%s is damaged at byte %llu: %s", status_last()->file,
                   (unsigned long long)status_last()->offset, status_last()->message);
    }
    bool cut = false;
    if (status == ESKER_OK) {
        TRY(repair_is_cut(repair, &cut));
    }
    *good_out = status == ESKER_OK && !cut;
    if (!*good_out) {
        repair_forget(repair);
    }
    return ESKER_OK;
}

esker_status
repair_note_drops(void *ctx, const struct edit *edit)
{
    struct repair *repair = ctx;
    for (size_t i = 0; i < edit->drop_segment_count; i++) {
        bool moved = false;
        for (size_t k = 0; k < edit->add_segment_count; k++) {
            moved = moved || edit->add_segments[k].id == edit->drop_segments[i];
        }
        if (!moved) {
            TRY(buf_append(&repair->dropped, &edit->drop_segments[i], sizeof edit->drop_segments[i]));
        }
    }
    return ESKER_OK;
}

/* What the edits that are left of it still say. */
static esker_status
repair_scan_edit(void *ctx, const struct edit *edit)
{
    struct repair *repair = ctx;
    TRY(repair_note_drops(repair, edit));
    repair->edit_no = MAX(repair->edit_no, edit->edit_no);
    repair->next_id = MAX(repair->next_id, MIN(edit->next_file_id, EDIT_NUMBER_MAX / 4));
    repair->state.wal_min_lsn = MAX(repair->state.wal_min_lsn, edit->wal_min_lsn);
    repair->state.durable_lsn = MAX(repair->state.durable_lsn, edit->durable_lsn);
    return ESKER_OK;
}

static esker_status
repair_lose_manifest(struct repair *repair)
{
    struct file_head head = {0};
    memcpy(head.uuid, repair->db->uuid, sizeof head.uuid);
    repair->rebuild = true;
    repair_say(repair, "the list of files is lost: what proves to be this database's is taken from the"
                       " directory; of merges that the lost list knew of, a deleted key may be seen again");
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        if (file->kind == DB_FILE_MANIFEST) {
            head.number = file->number;
            esker_status status =
                manifest_scan(repair->db->io, &repair->db->mem, &head, repair_scan_edit, repair);
            if (status != ESKER_OK && !repair_is_damage(status)) {
                return status;
            }
        }
    }
    repair->losses++;
    return ESKER_OK;
}

/* The one that CURRENT names; or else any that is whole, the newest first. */
static esker_status
repair_open_manifest(struct repair *repair)
{
    esker_db *db = repair->db;
    struct file_head head;
    bool good = false;
    esker_status status = manifest_current(db->io, &db->mem, &head);
    if (status != ESKER_OK && !repair_is_damage(status)) {
        return status;
    }
    repair->current_bad = status != ESKER_OK || memcmp(head.uuid, db->uuid, sizeof head.uuid) != 0;
    if (!repair->current_bad) {
        TRY(repair_try_manifest(repair, head.number, &good));
        return good ? ESKER_OK : repair_lose_manifest(repair);
    }
    repair_say(repair, "CURRENT is %s",
               status == ESKER_NOT_FOUND ? "missing"
               : status == ESKER_OK      ? "another database's"
                                         : "damaged");
    for (uint64_t below = UINT64_MAX; !good;) {
        uint64_t number = 0;
        for (size_t i = 0; i < db_file_count(&repair->files); i++) {
            const struct db_file *file = db_file_at(&repair->files, i);
            if (file->kind == DB_FILE_MANIFEST && file->number < below) {
                number = MAX(number, file->number);
            }
        }
        if (number == 0) {
            return repair_lose_manifest(repair);
        }
        TRY(repair_try_manifest(repair, number, &good));
        below = number;
    }
    repair_say(repair, "manifest-%08llx is whole and is taken",
               (unsigned long long)manifest_number(db->manifest));
    return ESKER_OK;
}

/* ---- The plan ------------------------------------------------------------------------ */

static esker_status
repair_set_aside(struct repair *repair, enum db_file_kind kind, uint64_t number, const char *name)
{
    struct db_file file = {.kind = kind, .number = number};
    snprintf(file.name, sizeof file.name, "%s", name);
    return buf_append(&repair->gone, &file, sizeof file);
}

static esker_status
repair_logs_are_whole(struct repair *repair, bool *whole_out)
{
    struct wal_recovered recovered = {0};
    esker_status status = recover_read_logs(&repair->state, &recovered);
    *whole_out = status == ESKER_OK;
    if (status == ESKER_OK) {
        recover_release_logs(repair->db, &recovered);
    }
    return status == ESKER_CORRUPT ? ESKER_OK : status;
}

/* Listed segments: whole ones are kept, of others what is left is written anew. */
static esker_status
repair_segments(struct repair *repair, uint64_t *damaged_out)
{
    recover_order_segments(&repair->state);
    for (size_t i = 0; i < repair->state.segment_count; i++) {
        const struct segment_meta *meta = &repair->state.segments[i]->meta;
        char name[40];
        segment_file_name(meta->id, name);
        repair->lsn_max = MAX(repair->lsn_max, meta->max_lsn);
        esker_status status = db_verify_segment(repair->db, meta);
        if (status == ESKER_OK) {
            TRY(buf_append(&repair->listed, meta, sizeof *meta));
            repair->rows_kept += meta->row_count;
            continue;
        }
        if (!repair_is_damage(status)) {
            return status;
        }
        (*damaged_out)++;
        TRY(repair_salvage_segment(repair, meta));
        TRY(repair_set_aside(repair, DB_FILE_SEGMENT, meta->id, name));
    }
    return ESKER_OK;
}

/* Something is lost. It may be in a segment of ours that nothing lists, left by a crash or by a
 * merge that an edit knew of that is lost; the next open would remove it. */
static esker_status
repair_keep_unlisted(struct repair *repair)
{
    uint8_t head[LOG_HEADER_BYTES];
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        uint8_t uuid[16];
        size_t len = 0;
        if (file->kind != DB_FILE_SEGMENT || recover_find_segment(&repair->state, file->number) != NULL) {
            continue;
        }
        TRY(repair_read_head(repair, file, head, &len));
        if (repair_file_uuid(file, head, len, uuid) && memcmp(uuid, repair->db->uuid, sizeof uuid) == 0) {
            repair_say(repair, "%s is not listed; it is set aside as it is", file->name);
            TRY(repair_set_aside(repair, file->kind, file->number, file->name));
        }
    }
    return ESKER_OK;
}

/* All files of the kinds that a repair replaces. */
static esker_status
repair_replace_kinds(struct repair *repair)
{
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        bool goes = file->kind == DB_FILE_LOG || file->kind == DB_FILE_MANIFEST ||
                    file->kind == DB_FILE_CURRENT || (file->kind == DB_FILE_SEGMENT && repair->rebuild);
        if (goes) {
            TRY(repair_set_aside(repair, file->kind, file->number, file->name));
        }
    }
    return ESKER_OK;
}

static esker_status
repair_listed(struct repair *repair, bool *nothing_out)
{
    esker_db *db = repair->db;
    uint64_t damaged = 0;
    bool whole = false;
    repair->next_id = MAX(repair->next_id, MIN(repair->state.next_file_id, EDIT_NUMBER_MAX / 4));
    repair->edit_no = manifest_edit_no(db->manifest);
    TRY(repair_logs_are_whole(repair, &whole));
    TRY(repair_segments(repair, &damaged));
    *nothing_out = whole && damaged == 0 && !repair->current_bad;
    if (*nothing_out) {
        return ESKER_OK;
    }
    TRY(repair_read_logs(repair, repair->state.wal_min_gen, repair->state.wal_min_lsn));
    TRY(repair_write_logs(repair));
    if (repair->losses > 0) {
        TRY(repair_keep_unlisted(repair));
    }
    return repair_replace_kinds(repair);
}

static esker_status
repair_run(struct repair *repair)
{
    esker_db *db = repair->db;
    bool nothing = false;
    TRY(db_file_list(db->io, &db->mem, &repair->files));
    TRY(repair_find_owner(repair));
    TRY(block_cache_create(&db->mem, REPAIR_BUDGET_BYTES, &db->cache));
    TRY(repair_open_manifest(repair));
    if (repair->rebuild) {
        TRY(repair_write_all(repair));
        TRY(repair_replace_kinds(repair));
    } else {
        TRY(repair_listed(repair, &nothing));
    }
    if (nothing) {
        repair_say(repair, "nothing is damaged, nothing was changed");
        return ESKER_OK;
    }
    TRY(repair_commit(repair));
    repair_say(repair, "the database is whole again, with %llu rows; the files as they were are NAME.lost",
               (unsigned long long)repair->rows_kept);
    if (repair->losses > 0) {
        repair_say(repair, "where what is lost was the newest of a key, an older value may be seen again, or"
                           " a key that was deleted");
    }
    return ESKER_OK;
}

/* ---- The call --------------------------------------------------------------------------- */

static void
repair_fini(struct repair *repair)
{
    struct compaction_result *results = (void *)repair->results.ptr;
    for (size_t i = 0; i < repair->results.len / sizeof *results; i++) {
        compaction_result_fini(&results[i], &repair->db->mem);
    }
    buf_fini(&repair->results);
    wal_salvaged_fini(&repair->salvaged);
    buf_fini(&repair->rows);
    buf_fini(&repair->listed);
    buf_fini(&repair->gone);
    buf_fini(&repair->dropped);
    recover_state_fini(&repair->state);
    db_file_list_fini(&repair->files);
}

static esker_status
repair_closed(esker_db *db, esker_repair_fn *say, void *ctx)
{
    struct repair repair = {.db = db, .say = say, .say_ctx = ctx, .state = {.db = db}, .next_id = 1};
    struct buf *bufs[] = {&repair.dropped, &repair.rows, &repair.listed,
                          &repair.results, &repair.gone, &repair.files.buf};
    for (size_t i = 0; i < COUNTOF(bufs); i++) {
        buf_init(bufs[i], &db->mem);
    }
    esker_status status = repair_run(&repair);
    esker_error story = *status_last();
    repair_fini(&repair);
    epoch_drain();
    db_closed_free(db);
    return status == ESKER_OK ? ESKER_OK : status_restore(&story);
}

esker_status
db_repair_on(struct io *io, const esker_allocator *allocator, esker_repair_fn *say, void *ctx)
{
    esker_db *db = NULL;
    TRY(db_closed_open_on(io, false, allocator, &db));
    return repair_closed(db, say, ctx);
}

esker_status
esker_repair(const char *path, esker_repair_fn *say, void *ctx)
{
    esker_db *db = NULL;
    TRY(db_closed_open(path, false, &db));
    return repair_closed(db, say, ctx);
}
