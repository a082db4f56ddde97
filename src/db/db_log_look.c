/* SPDX-License-Identifier: MIT */
/* What a log's first bytes say, listed or not: whose it is, which life of it, and was it written to. */
#include "db/db_recover.h"

/* Of its two header pages the one with the higher gen that is valid and this database's. */
static esker_status
look_at_header(const esker_db *db, struct io_file *file, uint64_t size, struct log_header *out)
{
    uint8_t pages[LOG_HEADER_BYTES];
    size_t len = (size_t)MIN(size, (uint64_t)sizeof pages);
    if (len > 0) {
        TRY(io_read_full(db->io, file, 0, pages, len));
    }
    for (size_t at = 0; at + LOG_PAGE_BYTES <= len; at += LOG_PAGE_BYTES) {
        struct log_header header;
        bool unsupported;
        if (log_header_decode(bytes_make(pages + at, LOG_PAGE_BYTES), &header, &unsupported) &&
            memcmp(header.uuid, db->uuid, sizeof header.uuid) == 0 && header.gen > out->gen) {
            *out = header;
        }
    }
    return ESKER_OK;
}

static esker_status
look_at_frame(esker_db *db, struct io_file *file, uint64_t size, struct log_look *out)
{
    uint8_t head[FRAME_HEADER_BYTES];
    uint64_t seed = log_file_seed(&out->header);
    uint64_t room = size - MIN(size, (uint64_t)LOG_HEADER_BYTES);
    struct frame frame;
    if (room < sizeof head) {
        return ESKER_OK;
    }
    TRY(io_read_full(db->io, file, LOG_HEADER_BYTES, head, sizeof head));
    uint64_t len = frame_peek(head, out->header.cap_bytes, seed, out->header.base_lsn);
    out->begun = len != 0;
    if (len == 0 || len > room) {
        return ESKER_OK;
    }
    uint8_t *bytes = mem_alloc(&db->mem, (size_t)len);
    if (bytes == NULL) {
        return FAIL_NO_MEMORY("a log's first frame");
    }
    esker_status status = io_read_full(db->io, file, LOG_HEADER_BYTES, bytes, (size_t)len);
    out->used = status == ESKER_OK &&
                frame_decode(bytes_make(bytes, (size_t)len), seed, out->header.base_lsn, &frame);
    mem_free(&db->mem, bytes);
    return status;
}

esker_status
recover_look_at_log(esker_db *db, const struct db_file *file, uint64_t above_gen, struct log_look *out)
{
    struct io_file *handle = NULL;
    uint64_t size = 0;
    *out = (struct log_look){.used = false};
    TRY(io_open_file(db->io, file->name, IO_OPEN_READ, &handle));
    esker_status status = io_file_size(db->io, handle, &size);
    if (status == ESKER_OK) {
        status = look_at_header(db, handle, size, &out->header);
    }
    if (status == ESKER_OK && out->header.gen > above_gen) {
        status = look_at_frame(db, handle, size, out);
    }
    io_close_file(db->io, handle);
    return status;
}
