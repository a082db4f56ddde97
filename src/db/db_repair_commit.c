/* SPDX-License-Identifier: MIT */
/* Repair: copies of what goes, the new state, CURRENT; only then the old files. Invariants: db_repair.h. */
#include <errno.h>
#include <stdio.h>

#include "db/db_repair.h"

enum { REPAIR_COPY_BYTES = 1 << 20, REPAIR_COPIES_MAX = 99, REPAIR_LOG_BYTES = WINDOW_BYTES_MIN };

static const char repair_copy_tmp[] = "repair.tmp";

/* ---- Copies (R1) ------------------------------------------------------------------ */

/* "NAME.lost", or "NAME.lost2"... when that is taken. */
static esker_status
repair_copy_name(struct repair *repair, const char *name, char out[40])
{
    struct io *io = repair->db->io;
    for (unsigned i = 1; i <= REPAIR_COPIES_MAX; i++) {
        struct io_file *file = NULL;
        if (i == 1) {
            snprintf(out, 40, "%.28s.lost", name);
        } else {
            snprintf(out, 40, "%.28s.lost%u", name, i);
        }
        int failed = io->ops->open_file(io, out, IO_OPEN_READ, &file);
        if (failed == 0) {
            io_close_file(io, file);
        }
        if (failed == -ENOENT) {
            return ESKER_OK;
        }
    }
    return FAIL_AT(ESKER_IO, name, 0, "there are %d copies of earlier repairs already; move them away",
                   REPAIR_COPIES_MAX);
}

static esker_status
repair_copy_bytes(struct repair *repair, struct io_file *from, struct io_file *to)
{
    struct io *io = repair->db->io;
    uint64_t size = 0;
    TRY(io_file_size(io, from, &size));
    uint8_t *buffer = mem_alloc(&repair->db->mem, REPAIR_COPY_BYTES);
    if (buffer == NULL) {
        return FAIL_NO_MEMORY("a copy");
    }
    esker_status status = ESKER_OK;
    for (uint64_t at = 0; at < size && status == ESKER_OK;) {
        size_t len = (size_t)MIN(size - at, (uint64_t)REPAIR_COPY_BYTES);
        status = io_read_full(io, from, at, buffer, len);
        if (status == ESKER_OK) {
            status = io_write_full(io, to, at, buffer, len);
        }
        at += len;
    }
    mem_free(&repair->db->mem, buffer);
    return status == ESKER_OK ? io_sync(io, to) : status;
}

static esker_status
repair_copy(struct repair *repair, const char *name)
{
    struct io *io = repair->db->io;
    struct io_file *from = NULL;
    struct io_file *to = NULL;
    char copy_name[40];
    esker_status status = io_open_file(io, name, IO_OPEN_READ, &from);
    if (status != ESKER_OK && repair_is_damage(status)) { /* there is no such file, or it is none */
        repair_say(repair, "%s cannot be read and is not copied: %s", name, status_last()->message);
        return ESKER_OK;
    }
    TRY(status);
    status = repair_copy_name(repair, name, copy_name);
    if (status == ESKER_OK) {
        status = io_unlink(io, repair_copy_tmp);
    }
    if (status == ESKER_OK) {
        status = io_open_file(io, repair_copy_tmp, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE, &to);
    }
    if (status == ESKER_OK) {
        status = repair_copy_bytes(repair, from, to);
    }
    io_close_file(io, to);
    io_close_file(io, from);
    return status == ESKER_OK ? io_rename(io, repair_copy_tmp, copy_name) : status;
}

/* ---- The new state (R2) ------------------------------------------------------------- */

static esker_status
repair_new_log(struct repair *repair, uint64_t number, uint64_t gen, uint64_t base_lsn)
{
    esker_db *db = repair->db;
    struct log_file *log = NULL;
    struct io_machine_id id;
    struct log_header header = {
        .gen = gen, .base_lsn = base_lsn, .cap_bytes = REPAIR_LOG_BYTES, .durable_lsn = base_lsn};
    memcpy(header.uuid, db->uuid, sizeof header.uuid);
    db->io->ops->machine_id(db->io, &id);
    memcpy(header.boot_id, id.boot_id, sizeof header.boot_id);
    header.mount_id = id.mount_id;
    TRY(log_file_create(db->io, &db->mem, number, REPAIR_LOG_BYTES, true, &log));
    esker_status status = log_file_settle(log);
    if (status == ESKER_OK) {
        status = log_file_begin(log, &header);
    }
    log_file_destroy(log);
    return status;
}

static esker_status
repair_write_state(struct repair *repair)
{
    esker_db *db = repair->db;
    uint64_t log_number = repair->next_id++;
    uint64_t gen = repair->salvaged.gen_max + 1;
    uint64_t base_lsn = align_up(repair->lsn_max + 1, LOG_PAGE_BYTES / LSN_BYTES);
    struct manifest *manifest = NULL;
    if (repair->manifest_no_max >= UINT32_MAX) {
        return FAIL(ESKER_TOO_LARGE, "no manifest number is left");
    }
    TRY(repair_new_log(repair, log_number, gen, base_lsn));
    TRY(io_sync_dir(db->io));
    struct edit snapshot = {.edit_no = repair->edit_no + 1,
                            .is_snapshot = true,
                            .next_file_id = repair->next_id,
                            .wal_min_gen = gen,
                            .wal_min_lsn = base_lsn,
                            .durable_lsn = base_lsn,
                            .add_segments = (void *)repair->listed.ptr,
                            .add_segment_count = repair->listed.len / sizeof(struct segment_meta),
                            .add_logs = &log_number,
                            .add_log_count = 1};
    esker_status status =
        manifest_create(db->io, &db->mem, db->uuid, repair->manifest_no_max + 1, &snapshot, &manifest);
    manifest_destroy(manifest);
    return status;
}

esker_status
repair_commit(struct repair *repair)
{
    struct io *io = repair->db->io;
    const struct db_file *gone = (const void *)repair->gone.ptr;
    size_t count = repair->gone.len / sizeof *gone;
    for (size_t i = 0; i < count; i++) {
        TRY(repair_copy(repair, gone[i].name));
    }
    TRY(io_sync_dir(io));
    TRY(repair_write_state(repair));
    /* From here on the repaired state is the database. What cannot be removed is an orphan. */
    for (size_t i = 0; i < count; i++) {
        if (gone[i].kind != DB_FILE_CURRENT) {
            IGNORE_STATUS(io_unlink(io, gone[i].name), "an orphan with a copy; the next open removes it");
        }
    }
    return io_sync_dir(io);
}
