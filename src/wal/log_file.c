/* SPDX-License-Identifier: MIT */
/*
 * One log file: creation, header pages, writes.
 *
 * Invariants
 *  I1 From the first log_file_begin on, at every moment at least one header
 *     page on the disk is valid: a page is overwritten only while the other one
 *     is known to be whole and synced.
 *  I2 Before the file is first listed there is room for every byte of it. Where syncs are
 *     expected every byte is written as well, in 4 KiB writes: later syncs then change
 *     no file-system metadata, and the page cache holds small folios, so a small write
 *     dirties a small one.
 *
 * Concurrency: one thread at a time for everything but log_file_write and
 * log_file_sync, which the caller's leader lock orders.
 */
#include "wal/log_file.h"

#include <errno.h>
#include <stdio.h>

#include "base/mutant.h"
#include "base/assert.h"

enum { LOG_PREWRITE_BATCH = 64, LOG_WRITE_BATCH = 16, LOG_WRITE_REQ_BYTES = 256 * 1024 };

static const _Alignas(LOG_PAGE_BYTES) uint8_t log_zero_page[LOG_PAGE_BYTES];

/* A request's data is not const because reads share the type; writes only read it. */
static void *
log_write_data(const uint8_t *data)
{
    return (void *)(uintptr_t)data;
}

void
log_file_name(uint64_t number, char out[40])
{
    snprintf(out, 40, "log-%06llu", (unsigned long long)number);
}

static esker_status
log_file_alloc(struct io *io, const struct mem *mem, uint64_t number, struct log_file **out)
{
    struct log_file *log = mem_zalloc(mem, sizeof *log);
    if (log == NULL) {
        return FAIL_NO_MEMORY("a log file");
    }
    log->io = io;
    log->mem = mem;
    log->number = number;
    *out = log;
    return ESKER_OK;
}

void
log_file_destroy(struct log_file *log)
{
    if (log == NULL) {
        return;
    }
    log_file_unmap(log);
    io_close_file(log->io, log->file);
    mem_free(log->mem, log);
}

/* *reserved_out: there is room for every byte, none of which is written. */
static esker_status
log_file_reserve(struct log_file *log, uint64_t file_bytes, bool *reserved_out)
{
    esker_status status = io_reserve(log->io, log->file, file_bytes);
    *reserved_out = status == ESKER_OK;
    return status == ESKER_UNSUPPORTED ? ESKER_OK : status;
}

static esker_status
log_file_prewrite(struct log_file *log, uint64_t file_bytes)
{
    struct io_req reqs[LOG_PREWRITE_BATCH];
    for (uint64_t offset = 0; offset < file_bytes;) {
        size_t count = 0;
        for (; count < LOG_PREWRITE_BATCH && offset < file_bytes; offset += LOG_PAGE_BYTES) {
            reqs[count++] = (struct io_req){
                .op = IO_WRITE,
                .file = log->file,
                .offset = offset,
                .data = log_write_data(log_zero_page),
                .len = LOG_PAGE_BYTES,
            };
        }
        TRY(io_run_full(log->io, reqs, count));
    }
    return ESKER_OK;
}

/* I2 */
static esker_status
log_file_make_room(struct log_file *log, uint64_t file_bytes, bool prewrite)
{
    bool reserved = false;
    if (!prewrite) {
        TRY(log_file_reserve(log, file_bytes, &reserved));
    }
    if (reserved) {
        return ESKER_OK;
    }
    log->prewritten_bytes = file_bytes;
    return log_file_prewrite(log, file_bytes);
}

esker_status
log_file_create(struct io *io, const struct mem *mem, uint64_t number, uint64_t space_bytes, bool prewrite,
                struct log_file **out)
{
    ASSERT(space_bytes > 0 && space_bytes % LOG_PAGE_BYTES == 0 && space_bytes / LSN_BYTES <= LSN_MAX);
    struct log_file *log = NULL;
    char name[40];
    log_file_name(number, name);
    TRY(log_file_alloc(io, mem, number, &log));
    unsigned flags = IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE;
    esker_status status = io_open_file(io, name, flags, &log->file);
    if (status != ESKER_OK) {
        if (status_last()->os_errno == EEXIST) {
            status = FAIL_AT(ESKER_BUSY, name, 0, "a file of that name exists");
        }
        log_file_destroy(log);
        return status;
    }
    status = log_file_make_room(log, LOG_HEADER_BYTES + space_bytes, prewrite);
    if (status != ESKER_OK) {
        esker_error first = *status_last();
        log_file_destroy(log);
        IGNORE_STATUS(io_unlink(io, name), "the first failure is the story; the file is listed nowhere");
        return status_restore(&first);
    }
    log->space_bytes = space_bytes;
    log->fresh = true;
    *out = log;
    return ESKER_OK;
}

/* ---- Header pages -------------------------------------------------------- */

/* Decides between the two pages; sets header and begin_page. */
static esker_status
log_file_judge_headers(struct log_file *log, const uint8_t *pages, const uint8_t uuid[16])
{
    struct log_header found[2];
    bool valid[2];
    for (uint32_t i = 0; i < 2; i++) {
        bool unsupported;
        valid[i] = log_header_decode(bytes_make(pages + (size_t)i * LOG_PAGE_BYTES, LOG_PAGE_BYTES),
                                     &found[i], &unsupported);
        if (unsupported) {
            return FAIL_AT(ESKER_UNSUPPORTED, log->file->name, (uint64_t)i * LOG_PAGE_BYTES,
                           "the log has a format version or feature that this build does not know");
        }
        if (valid[i] && memcmp(found[i].uuid, uuid, sizeof found[i].uuid) != 0) {
            return FAIL_AT(ESKER_CORRUPT, log->file->name, (uint64_t)i * LOG_PAGE_BYTES,
                           "the log belongs to another database");
        }
    }
    if (!valid[0] && !valid[1]) {
        return FAIL_AT(ESKER_CORRUPT, log->file->name, 0, "both header pages are damaged");
    }
    if (valid[0] && valid[1] && found[0].gen == found[1].gen &&
        memcmp(pages, pages + LOG_PAGE_BYTES, LOG_HEADER_FIELDS_BYTES) != 0) {
        return FAIL_AT(ESKER_CORRUPT, log->file->name, 0, "the two header pages contradict each other");
    }
    uint32_t newest = valid[0] && (!valid[1] || found[0].gen >= found[1].gen) ? 0 : 1;
    log->header = found[newest];
    bool both = valid[0] && valid[1] && found[0].gen == found[1].gen;
    log->begin_page = both ? 0 : 1 - newest;
    log->unsure = true;
    return ESKER_OK;
}

static esker_status
log_file_read_headers(struct log_file *log, const uint8_t uuid[16])
{
    uint64_t file_bytes = 0;
    uint8_t pages[LOG_HEADER_BYTES];
    TRY(io_file_size(log->io, log->file, &file_bytes));
    if (file_bytes < LOG_HEADER_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, log->file->name, file_bytes,
                       "the log is shorter than its header pages");
    }
    TRY(io_read_full(log->io, log->file, 0, pages, sizeof pages));
    TRY(log_file_judge_headers(log, pages, uuid));
    log->space_bytes = (file_bytes - LOG_HEADER_BYTES) & ~(uint64_t)(LOG_PAGE_BYTES - 1);
    if (log->header.cap_bytes > log->space_bytes) {
        return FAIL_AT(ESKER_CORRUPT, log->file->name, file_bytes, "the log is shorter than its header says");
    }
    return ESKER_OK;
}

esker_status
log_file_open(struct io *io, const struct mem *mem, uint64_t number, const uint8_t uuid[16],
              unsigned io_flags, struct log_file **out)
{
    struct log_file *log = NULL;
    char name[40];
    log_file_name(number, name);
    TRY(log_file_alloc(io, mem, number, &log));
    esker_status status = io_open_file(io, name, io_flags, &log->file);
    if (status == ESKER_NOT_FOUND) {
        status = FAIL_AT(ESKER_CORRUPT, name, 0, "a log file that the manifest lists is missing");
    }
    if (status == ESKER_OK) {
        status = log_file_read_headers(log, uuid);
    }
    if (status != ESKER_OK) {
        log_file_destroy(log);
        return status;
    }
    *out = log;
    return ESKER_OK;
}

static esker_status
log_file_put_header(struct log_file *log, uint32_t page_idx, const struct log_header *header)
{
    uint8_t page[LOG_PAGE_BYTES];
    log_header_encode(header, page);
    /* Of a recycled file the old life's frames are dirty, maybe; nobody needs them on the disk. */
    return io_write_sync(log->io, log->file, (uint64_t)page_idx * LOG_PAGE_BYTES, page, sizeof page);
}

esker_status
log_file_settle(struct log_file *log)
{
    TRY(io_sync(log->io, log->file));
    log->fresh = false;
    return ESKER_OK;
}

/* Every byte of the file and its header pages in one sync: each sync is a sleep, and writers may
 * be waiting for it. Before it is done the manifest does not list the file (I1, I2). */
static esker_status
log_file_begin_fresh(struct log_file *log, const struct log_header *header)
{
    uint8_t page[LOG_PAGE_BYTES];
    log_header_encode(header, page);
    for (uint64_t i = 0; i < 2; i++) {
        TRY(io_write_full(log->io, log->file, i * LOG_PAGE_BYTES, page, sizeof page));
    }
    TRY(io_sync(log->io, log->file));
    log->fresh = false;
    log->begin_page = 0;
    log->header = *header;
    return ESKER_OK;
}

esker_status
log_file_begin(struct log_file *log, const struct log_header *header)
{
    ASSERT(header->cap_bytes <= log->space_bytes && header->gen > log->header.gen);
    if (!log_header_is_sane(header)) {
        return FAIL_AT(ESKER_TOO_LARGE, log->file->name, 0, "the log's numbers have come to their end");
    }
    if (log->fresh) {
        return log_file_begin_fresh(log, header);
    }
    if (log->unsure) {
        TRY(log_file_put_header(log, 1 - log->begin_page, &log->header));
        log->unsure = false;
    }
    for (int i = 0; i < 2; i++) {
        TRY(log_file_put_header(log, log->begin_page, header));
        log->begin_page = 1 - log->begin_page; /* what was just synced is the page to keep (I1) */
    }
    log->header = *header;
    return ESKER_OK;
}

/* ---- Frame space --------------------------------------------------------- */

esker_status
log_file_map(struct log_file *log)
{
    ASSERT(log->map == NULL);
    void *whole = NULL;
    int failed = log->io->ops->map_file(log->io, log->file, LOG_HEADER_BYTES + log->space_bytes, &whole);
    if (failed == -EOPNOTSUPP) {
        return FAIL_AT(ESKER_UNSUPPORTED, log->file->name, 0,
                       "this file system does not offer safe mappings");
    }
    if (failed != 0) {
        return FAIL_OS(-failed, log->file->name, 0, "cannot map");
    }
    log->map = (uint8_t *)whole + LOG_HEADER_BYTES;
    log->map_bytes = log->space_bytes;
    return ESKER_OK;
}

void
log_file_unmap(struct log_file *log)
{
    if (log->map != NULL) {
        log->io->ops->unmap_file(log->io, log->map - LOG_HEADER_BYTES, LOG_HEADER_BYTES + log->map_bytes);
        if (log->unmapped != NULL) {
            /* relaxed: nobody else uses the file any more */
            log->unmapped(log->unmapped_ctx, load_relaxed(&log->touched_bytes));
        }
        log->map = NULL;
        log->map_bytes = 0;
    }
}

esker_status
log_file_write(struct log_file *log, const uint8_t *data, uint64_t from, uint64_t to)
{
    ASSERT(from <= to && to <= log->header.cap_bytes);
    struct io_req reqs[LOG_WRITE_BATCH];
    while (from < to) {
        size_t count = 0;
        for (; count < LOG_WRITE_BATCH && from < to; count++) {
            uint64_t len = MIN(to - from, (uint64_t)LOG_WRITE_REQ_BYTES);
            reqs[count] = (struct io_req){
                .op = IO_WRITE,
                .file = log->file,
                .offset = LOG_HEADER_BYTES + from,
                .data = log_write_data(data + from),
                .len = (uint32_t)len,
            };
            from += len;
        }
        if (MUTANT(8)) {
            log->io->ops->run(log->io, reqs, count);
            continue;
        }
        TRY(io_run_full(log->io, reqs, count));
    }
    return ESKER_OK;
}

esker_status
log_file_sync(struct log_file *log)
{
    return io_sync(log->io, log->file);
}
