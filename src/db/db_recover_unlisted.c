/* SPDX-License-Identifier: MIT */
/*
 * Logs that the manifest does not list, before they are taken for orphans. A manifest that was
 * cut at the end of an edit reads as a whole one; what was logged after that edit would be
 * removed without a word. Either of these proves the cut, and no crash leaves one of them:
 *  U1 a log of ours names a later edit in its header: it was begun when that one was durable;
 *  U2 a log of ours is younger than all that are listed and begins with a frame: frames go into
 *     logs whose listing is durable, and a log that an edit takes off the list is older than
 *     one that stays.
 * (Of listed logs the first is looked at by wal_recover.)
 */
#include "db/db_recover.h"

#include "db/db_files.h"

static bool
unlisted_is_listed(const esker_db *db, uint64_t number)
{
    for (size_t i = 0; i < db->log_number_count; i++) {
        if (db->log_numbers[i] == number) {
            return true;
        }
    }
    return false;
}

/* Of its two header pages the one with the higher gen; gen 0: neither is valid and this database's. */
static esker_status
unlisted_header(const esker_db *db, struct io_file *file, uint64_t size, struct log_header *out)
{
    uint8_t pages[LOG_HEADER_BYTES];
    *out = (struct log_header){0};
    if (size < sizeof pages) {
        return ESKER_OK;
    }
    TRY(io_read_full(db->io, file, 0, pages, sizeof pages));
    for (size_t at = 0; at < sizeof pages; at += LOG_PAGE_BYTES) {
        struct log_header header;
        bool unsupported;
        if (log_header_decode(bytes_make(pages + at, LOG_PAGE_BYTES), &header, &unsupported) &&
            memcmp(header.uuid, db->uuid, sizeof header.uuid) == 0 && header.gen > out->gen) {
            *out = header;
        }
    }
    return ESKER_OK;
}

/* Is its first frame valid? */
static esker_status
unlisted_has_frame(esker_db *db, struct io_file *file, uint64_t size, const struct log_header *header,
                   bool *has_out)
{
    uint8_t head[FRAME_HEADER_BYTES];
    uint64_t seed = log_file_seed(header);
    uint64_t room = MIN(size - MIN(size, (uint64_t)LOG_HEADER_BYTES), header->cap_bytes);
    struct frame frame;
    *has_out = false;
    if (room < sizeof head) {
        return ESKER_OK;
    }
    TRY(io_read_full(db->io, file, LOG_HEADER_BYTES, head, sizeof head));
    uint64_t len = frame_peek(head, room, seed, header->base_lsn);
    if (len == 0) {
        return ESKER_OK;
    }
    uint8_t *bytes = mem_alloc(&db->mem, (size_t)len);
    if (bytes == NULL) {
        return FAIL_NO_MEMORY("a log's first frame");
    }
    esker_status status = io_read_full(db->io, file, LOG_HEADER_BYTES, bytes, (size_t)len);
    *has_out =
        status == ESKER_OK && frame_decode(bytes_make(bytes, (size_t)len), seed, header->base_lsn, &frame);
    mem_free(&db->mem, bytes);
    return status;
}

static esker_status
unlisted_judge(esker_db *db, const struct db_file *file, struct io_file *handle, uint64_t gen_max)
{
    struct log_header header;
    uint64_t size = 0;
    char manifest[40];
    TRY(io_file_size(db->io, handle, &size));
    TRY(unlisted_header(db, handle, size, &header));
    manifest_file_name(manifest_number(db->manifest), manifest);
    if (header.gen == 0) {
        return ESKER_OK;
    }
    uint64_t edit_no = manifest_edit_no(db->manifest);
    if (header.edit_no > edit_no) { /* U1 */
        return FAIL_AT(ESKER_CORRUPT, manifest, 0, "%s knows of edit %llu, the manifest ends with %llu",
                       file->name, (unsigned long long)header.edit_no, (unsigned long long)edit_no);
    }
    bool used = false;
    if (header.gen > gen_max) {
        TRY(unlisted_has_frame(db, handle, size, &header, &used));
    }
    return used ? FAIL_AT(ESKER_CORRUPT, manifest, 0, /* U2 */
                          "%s was written to and is not listed: the manifest's end is lost", file->name)
                : ESKER_OK;
}

esker_status
recover_check_unlisted(struct recover_state *state, uint64_t gen_max)
{
    esker_db *db = state->db;
    struct db_file_list files;
    esker_status status = db_file_list(db->io, &db->mem, &files);
    for (size_t i = 0; i < db_file_count(&files) && status == ESKER_OK; i++) {
        const struct db_file *file = db_file_at(&files, i);
        struct io_file *handle = NULL;
        bool ours = false;
        if (file->kind != DB_FILE_LOG || unlisted_is_listed(db, file->number)) {
            continue;
        }
        status = db_file_is_ours(db->io, file, db->uuid, &ours);
        if (status != ESKER_OK && status != ESKER_NO_MEMORY && status != ESKER_IO) {
            status = ESKER_OK; /* something else of that name: it is left alone */
            continue;
        }
        if (status == ESKER_OK && ours) {
            status = io_open_file(db->io, file->name, IO_OPEN_READ, &handle);
        }
        if (handle != NULL) {
            status = unlisted_judge(db, file, handle, gen_max);
            io_close_file(db->io, handle);
        }
    }
    db_file_list_fini(&files);
    return status;
}
