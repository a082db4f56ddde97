/* SPDX-License-Identifier: MIT */
/*
 * From a directory to an open database: manifest, logs, memtables, orphans.
 *
 * Invariants
 *  I1 Nothing is written before everything has been read and believed: damage
 *     and refusals leave the directory as it was.
 *  I2 No LSN is used again: the first new window begins at or above the end of
 *     every window that any log header speaks of.
 *  I3 Rows of a log that was not closed cleanly count as durable only after
 *     they were flushed: after a failed sync in the previous life they may read
 *     fine from the page cache and yet not be on disk.
 */
#include "db/db_recover.h"

#include "db/db_files.h"

/* No counter of ours gets there by itself; a stranger's file may have any number. */
#define FILE_ID_SEEN_MAX (EDIT_NUMBER_MAX / 4) /* files beyond it do not move the counter */
#define FILE_ID_NEXT_MAX (EDIT_NUMBER_MAX / 2)

/* ---- Manifest ------------------------------------------------------------- */

esker_status
recover_apply(void *ctx, const struct edit *edit)
{
    struct recover_state *state = ctx;
    for (size_t i = 0; i < edit->drop_segment_count; i++) {
        recover_drop_segment(state, edit->drop_segments[i]);
    }
    for (size_t i = 0; i < edit->add_segment_count; i++) {
        TRY(recover_add_segment(state, &edit->add_segments[i]));
    }
    TRY(db_note_logs(state->db, edit));
    state->next_file_id = MAX(state->next_file_id, edit->next_file_id);
    state->durable_lsn = MAX(state->durable_lsn, edit->durable_lsn);
    if (edit->wal_min_gen != 0) {
        state->wal_min_gen = edit->wal_min_gen;
        state->wal_min_lsn = edit->wal_min_lsn;
    }
    return ESKER_OK;
}

static esker_status
recover_levels(struct recover_state *state, struct version *version)
{
    esker_db *db = state->db;
    struct segment **segments = mem_zalloc_array(&db->mem, state->segment_count, sizeof *segments);
    if (segments == NULL) {
        return FAIL_NO_MEMORY("the list of segments");
    }
    esker_status status = ESKER_OK;
    recover_order_segments(state);
    /* Everything flushed; segments say less, since a put and its delete may both have gone. */
    db->history_floor = state->wal_min_lsn;
    for (size_t i = 0; i < state->segment_count; i++) {
        TRY_OUT(db_open_segment(db, &state->segments[i]->meta, &segments[i]));
    }
    status = db_fill_levels(db, version, segments, state->segment_count);
out:
    for (size_t i = 0; i < state->segment_count; i++) {
        if (segments[i] != NULL) {
            segment_unref(segments[i]);
        }
    }
    mem_free(&db->mem, segments);
    return status;
}

/* ---- Logs ----------------------------------------------------------------- */

static esker_status
recover_image(void *ctx, const struct log_header *header, uint8_t **image_out)
{
    esker_db *db = ctx;
    void *memory = NULL;
    int failed = db->io->ops->map_memory(db->io, header->cap_bytes, &memory);
    if (failed != 0) {
        return FAIL_NO_MEMORY("a recovered memtable");
    }
    *image_out = memory;
    return ESKER_OK;
}

static void
recover_image_release(void *ctx, const struct log_header *header, uint8_t *image)
{
    esker_db *db = ctx;
    db->io->ops->unmap_memory(db->io, image, header->cap_bytes);
}

esker_status
recover_read_logs(struct recover_state *state, struct wal_recovered *out)
{
    esker_db *db = state->db;
    struct wal_recover_input input = {.io = db->io,
                                      .mem = &db->mem,
                                      .log_numbers = db->log_numbers,
                                      .log_count = db->log_number_count,
                                      .wal_min_gen = state->wal_min_gen,
                                      .wal_min_lsn = state->wal_min_lsn,
                                      .manifest_no = manifest_number(db->manifest),
                                      .edit_no = manifest_edit_no(db->manifest),
                                      .durable_lsn = state->durable_lsn,
                                      .correct_bytes = db->correct_bytes,
                                      .read_only = state->read_only,
                                      .image = recover_image,
                                      .image_release = recover_image_release,
                                      .image_ctx = db};
    memcpy(input.uuid, db->uuid, sizeof input.uuid);
    TRY(wal_recover(&input, out));
    esker_status status = recover_check_unlisted(state, out->gen_max);
    if (status != ESKER_OK) {
        esker_error story = *status_last();
        recover_release_logs(db, out);
        return status_restore(&story);
    }
    return ESKER_OK;
}

/* Frames were checked by wal_recover; here they are only counted or indexed. */
static uint32_t
recover_walk(struct window *window, const uint8_t *image, uint64_t index_from, uint64_t bytes)
{
    uint32_t ops = 0;
    uint64_t rows_from = bytes;
    for (uint64_t offset = 0; offset < bytes;) {
        uint64_t frame_bytes = (uint64_t)le32_load(image + offset) * FRAME_GRANULE;
        ASSERT(frame_bytes > 0 && frame_bytes <= bytes - offset);
        if (image[offset + 4] == FRAME_BATCH) {
            struct bytes body =
                bytes_make(image + offset + FRAME_HEADER_BYTES, frame_bytes - FRAME_HEADER_BYTES);
            struct entry entry;
            uint64_t at = 0;
            while (entry_decode(body, &at, &entry) == ESKER_OK) {
                ops++;
            }
            if (window != NULL && offset >= index_from) {
                memtable_insert_batch(window->table, offset + FRAME_HEADER_BYTES,
                                      frame_bytes - FRAME_HEADER_BYTES, 0);
                rows_from = MIN(rows_from, offset);
            }
        }
        if (window != NULL) {
            window_note_frame(window, offset, offset + frame_bytes);
        }
        offset += frame_bytes;
    }
    if (window != NULL) {
        window->rows_lsn = window->base_lsn + rows_from / LSN_BYTES;
    }
    return ops;
}

/* Made by an earlier, larger budget: nothing but what is there will be in it. Large
 * enough for huge pages, of which it would then take more than it needs. */
static bool
recover_is_too_large(const esker_db *db, const struct log_header *header)
{
    return header->cap_bytes > db->window_bytes_max && header->cap_bytes >= IO_HUGE_FROM;
}

/* Reading the file touched every page of the image. A log that is continued
 * moves to fresh memory, of which only what is used takes space. */
static esker_status
recover_fresh_image(esker_db *db, const struct log_header *header, uint64_t bytes, uint8_t **image)
{
    void *fresh = NULL;
    bool small = recover_is_too_large(db, header) && db->io->ops->map_aligned != NULL;
    int failed = small ? db->io->ops->map_aligned(db->io, header->cap_bytes, LOG_PAGE_BYTES, &fresh)
                       : db->io->ops->map_memory(db->io, header->cap_bytes, &fresh);
    if (failed != 0) {
        return FAIL_NO_MEMORY("a recovered memtable");
    }
    memcpy(fresh, *image, bytes);
    db->io->ops->unmap_memory(db->io, *image, header->cap_bytes);
    *image = fresh;
    return ESKER_OK;
}

/* Takes over image and log. */
static esker_status
recover_window(esker_db *db, struct wal_recovered_log *recovered, bool continued, uint64_t min_lsn,
               struct window **out)
{
    const struct log_header *header = &recovered->log->header;
    uint64_t bytes = (recovered->end_lsn - header->base_lsn) * LSN_BYTES;
    uint32_t ops = recover_walk(NULL, recovered->image, 0, bytes);
    if (continued) {
        TRY(recover_fresh_image(db, header, bytes, &recovered->image));
    }
    bool grows = continued && !recover_is_too_large(db, header);
    uint32_t op_cap = grows ? MAX(window_op_capacity(header->cap_bytes), ops) : MAX(ops, (uint32_t)1);
    struct window *window = NULL;
    uint8_t *image = recovered->image;
    recovered->image = NULL;
    TRY(window_create(db->io, &db->mem, db->cache, image, header->cap_bytes, header->base_lsn, op_cap,
                      db->hash_seed, &window));
    window->log = recovered->log;
    recovered->log = NULL;
    window->gen = header->gen;
    window->file_seed = log_file_seed(header);
    uint64_t index_from = min_lsn > header->base_lsn ? (min_lsn - header->base_lsn) * LSN_BYTES : 0;
    (void)recover_walk(window, window->data, index_from, bytes);
    if (continued) {
        window->small_pages = !grows;
        window_charge(window, window_resident_bytes(window, bytes));
        db->reopen_pending = true;
        db->reopen_offset = bytes;
        db->reopen_ops = ops;
        /* relaxed: not shared yet. Full until the REOPEN frame is written. */
        store_relaxed(&window->tail, window_tail((uint64_t)op_cap + 1, window->cap_bytes + WINDOW_GRANULE));
    } else {
        window_charge(window, window_resident_bytes(window, window->cap_bytes));
        window->end_lsn = MAX(window->base_lsn, header->base_lsn + bytes / LSN_BYTES);
        window->recovered = true;
        store_relaxed(&window->tail, window_tail(ops, bytes)); /* relaxed: not shared yet */
    }
    *out = window;
    return ESKER_OK;
}

/* Windows for all recovered logs, newest first at windows[first]. */
static esker_status
recover_windows(esker_db *db, struct wal_recovered *recovered, uint64_t min_lsn, struct window **windows,
                uint32_t first)
{
    for (size_t i = 0; i < recovered->log_count; i++) {
        size_t from = recovered->log_count - 1 - i;
        bool continued = recovered->sealed && i == 0;
        TRY(recover_window(db, &recovered->logs[from], continued, min_lsn, &windows[first + i]));
        if (recovered->sealed) {
            windows[first + i]->recovered = false; /* all of it was synced before the seal */
        }
    }
    return ESKER_OK;
}

/* The SEAL may be in the page cache alone: it goes out again with the first group. */
static esker_status
recover_continue(esker_db *db, const struct wal_recovered *recovered, struct window *active)
{
    TRY(db_map_log(db, active));
    if (active->map != NULL) {
        uint64_t offset = (recovered->seal_lsn - active->base_lsn) * LSN_BYTES;
        memcpy(active->map + offset, active->data + offset, db->reopen_offset - offset);
    }
    return ESKER_OK;
}

static void
recover_set_watermarks(esker_db *db, const struct wal_recovered *recovered, const struct window *active)
{
    uint64_t visible = recovered->sealed ? recovered->end_lsn : active->base_lsn;
    uint64_t durable = MIN(recovered->durable_lsn, recovered->end_lsn);
    /* relaxed: nobody else has the handle yet, here and below */
    store_relaxed(&db->visible, visible); /* relaxed: not shared yet */
    /* relaxed: not shared yet */
    store_relaxed(&db->logged,
                  recovered->sealed ? recovered->seal_lsn : visible); /* relaxed: not shared yet */
    store_relaxed(&db->durable, durable);                             /* relaxed: not shared yet */
    db->marked_lsn = durable;
    if (recovered->sealed) {
        db->seal_lsn = recovered->seal_lsn;
        db->seal_end_lsn = recovered->end_lsn;
    }
    bool pending = !recovered->sealed && recovered->end_lsn > durable;
    store_relaxed(&db->recovered_end_lsn, pending ? recovered->end_lsn : 0); /* relaxed: not shared yet */
}

static void
recover_adopt_logs(esker_db *db, struct wal_recovered *recovered)
{
    for (size_t i = 0; i < recovered->log_count; i++) {
        db->log_file_count++;
        db->log_file_bytes += LOG_HEADER_BYTES + recovered->logs[i].log->space_bytes;
    }
    mutex_lock(&db->mu);
    for (size_t i = 0; i < recovered->spare_count; i++) {
        db->log_file_count++;
        db->log_file_bytes += LOG_HEADER_BYTES + recovered->spare[i]->space_bytes;
        db_pool_add_locked(db, recovered->spare[i]);
        recovered->spare[i] = NULL;
    }
    mutex_unlock(&db->mu);
    db->log_gen_max = recovered->gen_max;
}

void
recover_release_logs(esker_db *db, struct wal_recovered *recovered)
{
    for (size_t i = 0; i < recovered->log_count; i++) {
        if (recovered->logs[i].image != NULL) {
            db->io->ops->unmap_memory(db->io, recovered->logs[i].image,
                                      recovered->logs[i].log->header.cap_bytes);
        }
        log_file_destroy(recovered->logs[i].log);
    }
    for (size_t i = 0; i < recovered->spare_count; i++) {
        log_file_destroy(recovered->spare[i]);
    }
    wal_recovered_fini(recovered, &db->mem);
}

/* Nothing but a REOPEN may stand behind a SEAL: without room for one the log is
 * full, and the SEAL, which may be in the page cache alone, ends it unproven. */
static void
recover_judge_seal(struct wal_recovered *recovered)
{
    if (recovered->sealed) {
        const struct log_header *last = &recovered->logs[recovered->log_count - 1].log->header;
        uint64_t used_bytes = (recovered->end_lsn - last->base_lsn) * LSN_BYTES;
        recovered->sealed = last->cap_bytes - used_bytes >= REOPEN_FRAME_BYTES;
        recovered->durable_lsn = recovered->sealed ? recovered->end_lsn : recovered->seal_lsn;
    }
}

/* ---- Orphans ---------------------------------------------------------------- */

static bool
recover_is_listed(const struct recover_state *state, const struct db_file *file)
{
    esker_db *db = state->db;
    switch (file->kind) {
    case DB_FILE_SEGMENT:
        return recover_find_segment(state, file->number) != NULL;
    case DB_FILE_LOG:
        for (size_t i = 0; i < db->log_number_count; i++) {
            if (db->log_numbers[i] == file->number) {
                return true;
            }
        }
        return false;
    case DB_FILE_MANIFEST:
        return file->number == manifest_number(db->manifest);
    case DB_FILE_CURRENT_TMP:
        return false;
    default:
        return true;
    }
}

static esker_status
recover_remove_orphans(struct recover_state *state, const struct db_file_list *files)
{
    esker_db *db = state->db;
    for (size_t i = 0; i < db_file_count(files); i++) {
        const struct db_file *file = db_file_at(files, i);
        bool ours = false;
        if (recover_is_listed(state, file)) {
            continue;
        }
        esker_status status = db_file_is_ours(db->io, file, db->uuid, &ours);
        if (status == ESKER_OK && ours) {
            /* What makes it an orphan must not be lost after it is gone. */
            TRY(manifest_confirm(db->manifest));
            IGNORE_STATUS(io_unlink(db->io, file->name), "it is an orphan again at the next open");
        }
    }
    return ESKER_OK;
}

/* ---- Windows -------------------------------------------------------------------- */

/* Reads the logs and publishes their windows. A new log begins only if the last one cannot be
 * continued. Orphans go before it: they may hold the room that it needs, and opens that fail behind
 * it leave no more than one. That they go is the first thing that an open changes (I1). */
static esker_status
recover_logs(struct recover_state *state, const struct db_file_list *files)
{
    esker_db *db = state->db;
    struct wal_recovered recovered = {0};
    TRY(recover_read_logs(state, &recovered));
    struct window *windows[WINDOWS_MAX] = {0};
    esker_status status = ESKER_OK;
    if (recovered.log_count + 1 > WINDOWS_MAX) {
        status = FAIL(ESKER_UNSUPPORTED, "more than %d log files wait to be flushed", WINDOWS_MAX - 1);
        goto out;
    }
    db->recovery_bytes = recovered.bytes_read;
    recover_judge_seal(&recovered);
    recover_adopt_logs(db, &recovered);
    TRY_OUT(recover_remove_orphans(state, files));
    uint32_t first = recovered.sealed ? 0 : 1;
    uint64_t last_gen = recovered.log_count > 0 ? recovered.logs[recovered.log_count - 1].log->header.gen : 0;
    TRY_OUT(recover_windows(db, &recovered, state->wal_min_lsn, windows, first));
    if (recovered.sealed) {
        TRY_OUT(recover_continue(db, &recovered, windows[0]));
    } else {
        uint64_t base_lsn = MAX(recovered.next_base_lsn, recovered.end_lsn);
        uint64_t cap_bytes = db->window_bytes_first;
        status = db_make_window(db, cap_bytes, window_op_capacity(cap_bytes), base_lsn, last_gen,
                                recovered.end_lsn, &windows[0]);
        if (status == ESKER_NO_SPACE && db_reserve_open_without(db)) {
            status = db_make_window(db, cap_bytes, window_op_capacity(cap_bytes), base_lsn, last_gen,
                                    recovered.end_lsn, &windows[0]);
        }
        TRY_OUT(status);
        windows[0]->deletes_only = db->reserve_spent;
        window_charge(windows[0], window_expected_bytes(windows[0], 0));
    }
    recover_set_watermarks(db, &recovered, windows[0]);
    mutex_lock(&db->mu);
    status = db_publish_windows_locked(db, windows, first + (uint32_t)recovered.log_count);
    mutex_unlock(&db->mu);
out:
    for (uint32_t i = 0; i < WINDOWS_MAX; i++) {
        if (windows[i] != NULL) {
            window_unref(windows[i]);
        }
    }
    recover_release_logs(db, &recovered);
    return status;
}

/* ---- All together ------------------------------------------------------------ */

/* A listed segment must be there, even before anyone reads it. */
static esker_status
recover_check_segments(struct recover_state *state, const struct db_file_list *files)
{
    for (size_t i = 0; i < db_file_count(files); i++) {
        const struct db_file *file = db_file_at(files, i);
        struct recover_segment *segment =
            file->kind == DB_FILE_SEGMENT ? recover_find_segment(state, file->number) : NULL;
        if (segment != NULL) {
            segment->is_there = true;
        }
    }
    for (size_t i = 0; i < state->segment_count; i++) {
        if (!state->segments[i]->is_there) {
            char name[40];
            segment_file_name(state->segments[i]->meta.id, name);
            return FAIL_AT(ESKER_CORRUPT, name, 0, "%s is listed in the manifest but missing", name);
        }
    }
    return ESKER_OK;
}

static esker_status
recover_existing(struct recover_state *state)
{
    esker_db *db = state->db;
    struct db_file_list files;
    struct version *version = NULL;
    if (state->next_file_id > FILE_ID_NEXT_MAX) {
        char name[40];
        manifest_file_name(manifest_number(db->manifest), name);
        return FAIL_AT(ESKER_CORRUPT, name, 0, "the manifest names files beyond any number given out");
    }
    memcpy(db->uuid, manifest_uuid(db->manifest), sizeof db->uuid);
    TRY(db_reserve_find(db, db->reserve_off));
    db->wal_min_gen = state->wal_min_gen;
    db->wal_min_lsn = state->wal_min_lsn;
    TRY(db_file_list(db->io, &db->mem, &files));
    for (size_t i = 0; i < db_file_count(&files); i++) {
        const struct db_file *file = db_file_at(&files, i);
        if (file->kind != DB_FILE_MANIFEST && file->number <= FILE_ID_SEEN_MAX) {
            state->seen_file_id = MAX(state->seen_file_id, file->number);
        }
    }
    /* relaxed: not shared yet */
    store_relaxed(&db->next_file_id,
                  MAX(state->next_file_id, state->seen_file_id + 1)); /* relaxed: not shared yet */
    esker_status status = ESKER_OK;
    TRY_OUT(recover_check_segments(state, &files));
    TRY_OUT(version_create(&db->mem, &db->versions, &version));
    TRY_OUT(recover_levels(state, version));
    version_publish(&db->current, version, io_monotonic_ns(db->io));
    version = NULL;
    TRY_OUT(recover_logs(state, &files));
    if (db->reserve_spent) { /* the attempt without it may have left a log that no edit names */
        db_file_list_fini(&files);
        TRY(db_file_list(db->io, &db->mem, &files));
        TRY_OUT(recover_remove_orphans(state, &files));
    }
out:
    if (version != NULL) {
        version_unref(version);
    }
    db_file_list_fini(&files);
    return status;
}

esker_status
db_recover(esker_db *db)
{
    struct recover_state state = {.db = db};
    uint64_t started_ns = io_monotonic_ns(db->io);
    esker_status status = manifest_open(db->io, &db->mem, recover_apply, &state, &db->manifest);
    if (status == ESKER_OK) {
        status = recover_existing(&state);
    }
    recover_state_fini(&state);
    db->recovery_ns = io_monotonic_ns(db->io) - started_ns;
    return status;
}
