/* SPDX-License-Identifier: MIT */
#include "db/db_files.h"

#include <errno.h>

#include "base/status.h"
#include "format/edit.h"
#include "format/log_format.h"
#include "format/segment_format.h"
#include "manifest/manifest.h"
#include "segment/segment.h"
#include "wal/log_file.h"

/* Digits of `base` at `at`, all of them; false if there are none or too many. */
static bool
files_number(const char *at, const char *end, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    if (at == end || end - at > 20) {
        return false;
    }
    for (; at < end; at++) {
        unsigned digit = 99;
        if (*at >= '0' && *at <= '9') {
            digit = (unsigned)(*at - '0');
        } else if (*at >= 'a' && *at <= 'f') {
            digit = (unsigned)(*at - 'a') + 10;
        }
        if (digit >= base || __builtin_mul_overflow(value, (uint64_t)base, &value) ||
            __builtin_add_overflow(value, (uint64_t)digit, &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

enum db_file_kind
db_file_classify(const char *name, uint64_t *number_out)
{
    char canonical[40];
    uint64_t number = 0;
    size_t len = strlen(name);
    *number_out = 0;
    if (strcmp(name, DB_CURRENT_NAME) == 0) {
        return DB_FILE_CURRENT;
    }
    if (strcmp(name, DB_CURRENT_TMP_NAME) == 0) {
        return DB_FILE_CURRENT_TMP;
    }
    if (strcmp(name, DB_LOCK_NAME) == 0) {
        return DB_FILE_LOCK;
    }
    if (strcmp(name, DB_RESERVE_NAME) == 0) {
        return DB_FILE_RESERVE;
    }
    enum db_file_kind kind = DB_FILE_FOREIGN;
    if (len > 4 && strncmp(name, "log-", 4) == 0 && files_number(name + 4, name + len, 10, &number)) {
        kind = DB_FILE_LOG;
        log_file_name(number, canonical);
    } else if (len > 9 && strncmp(name, "manifest-", 9) == 0 &&
               files_number(name + 9, name + len, 16, &number)) {
        kind = DB_FILE_MANIFEST;
        manifest_file_name(number, canonical);
    } else if (len > 4 && strcmp(name + len - 4, ".seg") == 0 &&
               files_number(name, name + len - 4, 16, &number)) {
        kind = DB_FILE_SEGMENT;
        segment_file_name(number, canonical);
    }
    if (kind == DB_FILE_FOREIGN || strcmp(canonical, name) != 0) {
        return DB_FILE_FOREIGN;
    }
    *number_out = number;
    return kind;
}

struct files_ctx {
    struct db_file_list *list;
    esker_status status;
};

static int
files_each(void *ctx, const char *name)
{
    struct files_ctx *files = ctx;
    struct db_file file = {0};
    file.kind = db_file_classify(name, &file.number);
    if (file.kind == DB_FILE_FOREIGN || strlen(name) >= sizeof file.name) {
        return 0;
    }
    memcpy(file.name, name, strlen(name) + 1);
    files->status = buf_append(&files->list->buf, &file, sizeof file);
    return files->status == ESKER_OK ? 0 : 1;
}

esker_status
db_file_list(struct io *io, const struct mem *mem, struct db_file_list *out)
{
    buf_init(&out->buf, mem);
    struct files_ctx ctx = {.list = out, .status = ESKER_OK};
    int failed = io->ops->list(io, files_each, &ctx);
    if (ctx.status != ESKER_OK || failed < 0) {
        buf_fini(&out->buf);
        return ctx.status != ESKER_OK ? ctx.status : FAIL_OS(-failed, NULL, 0, "cannot list the directory");
    }
    return ESKER_OK;
}

void
db_file_list_fini(struct db_file_list *list)
{
    buf_fini(&list->buf);
}

static bool
files_all_zero(const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != 0) {
            return false;
        }
    }
    return true;
}

/* Up to `most` bytes from the start; *len_out says how many there are. */
static esker_status
files_read_head(struct io *io, const struct db_file *file, uint8_t *bytes, size_t most, size_t *len_out)
{
    struct io_file *handle = NULL;
    TRY(io_open_file(io, file->name, IO_OPEN_READ, &handle));
    uint64_t size = 0;
    esker_status status = io_file_size(io, handle, &size);
    size_t len = (size_t)MIN(size, (uint64_t)most);
    if (status == ESKER_OK && len > 0) {
        status = io_read_full(io, handle, 0, bytes, len);
    }
    io_close_file(io, handle);
    *len_out = len;
    return status;
}

static bool
files_log_is_ours(const uint8_t *head, size_t len, const uint8_t *uuid)
{
    for (size_t page = 0; page < 2 && (page + 1) * LOG_PAGE_BYTES <= len; page++) {
        struct log_header header;
        bool unsupported = false;
        if (log_header_decode(bytes_make(head + page * LOG_PAGE_BYTES, LOG_PAGE_BYTES), &header,
                              &unsupported) &&
            (uuid == NULL || memcmp(header.uuid, uuid, sizeof header.uuid) == 0)) {
            return true;
        }
    }
    return false;
}

esker_status
db_file_is_ours(struct io *io, const struct db_file *file, const uint8_t *uuid, bool *ours_out)
{
    uint8_t head[DB_FILE_HEAD_BYTES];
    size_t len = 0;
    _Static_assert((int)DB_FILE_HEAD_BYTES >= (int)LOG_HEADER_BYTES, "both pages of a log's header");
    *ours_out = false;
    TRY(files_read_head(io, file, head, sizeof head, &len));
    if (file->kind == DB_FILE_LOCK || file->kind == DB_FILE_CURRENT_TMP) {
        /* A LOCK holds nothing; a CURRENT.tmp may have been written in part. */
        bool begun = len <= CURRENT_BYTES && (files_all_zero(head, len) || current_begins(head, len));
        *ours_out = len == 0 || (file->kind == DB_FILE_CURRENT_TMP && begun);
        return ESKER_OK;
    }
    if (files_all_zero(head, len)) { /* created, nothing written yet */
        *ours_out = file->kind != DB_FILE_CURRENT;
        return ESKER_OK;
    }
    if (file->kind == DB_FILE_RESERVE) { /* it holds nothing but zeros */
        return ESKER_OK;
    }
    struct file_head named;
    bool decoded = false;
    switch (file->kind) {
    case DB_FILE_CURRENT:
        decoded = current_decode(bytes_make(head, MIN(len, (size_t)CURRENT_BYTES)), &named) == ESKER_OK;
        *ours_out = decoded && (uuid == NULL || memcmp(named.uuid, uuid, sizeof named.uuid) == 0);
        break;
    case DB_FILE_MANIFEST:
        decoded = manifest_header_decode(bytes_make(head, MIN(len, (size_t)MANIFEST_HEADER_BYTES)), &named) ==
                  ESKER_OK;
        *ours_out = decoded && named.number == file->number &&
                    (uuid == NULL || memcmp(named.uuid, uuid, sizeof named.uuid) == 0);
        break;
    case DB_FILE_LOG:
        *ours_out = files_log_is_ours(head, len, uuid);
        break;
    default: {
        /* Without a known uuid a segment vouches for itself: its own is at offset 16. */
        struct bytes header = bytes_make(head, MIN(len, (size_t)SEGMENT_HEADER_BYTES));
        const uint8_t *expected = uuid != NULL ? uuid : head + 16;
        *ours_out = segment_header_decode(header, expected, file->number) == ESKER_OK;
    }
    }
    return ESKER_OK;
}

/* A creation writes the log, begins it, and only then writes the manifest. So
 * without a manifest a log without a valid header was not begun yet (its bytes
 * may be anything after a power cut); with a valid one it must be the very first
 * life with nothing in it. */
static esker_status
files_log_is_unborn(struct io *io, const struct db_file *file, bool has_manifest, bool *unborn_out)
{
    uint8_t head[LOG_HEADER_BYTES + FRAME_HEADER_BYTES];
    size_t len = 0;
    TRY(files_read_head(io, file, head, sizeof head, &len));
    struct log_header header;
    bool unsupported = false;
    if (!files_log_is_ours(head, len, NULL)) {
        *unborn_out = !has_manifest;
        return ESKER_OK;
    }
    bool first = log_header_decode(bytes_make(head, MIN(len, (size_t)LOG_PAGE_BYTES)), &header, &unsupported);
    bool no_frame =
        len <= LOG_HEADER_BYTES || files_all_zero(head + LOG_HEADER_BYTES, len - LOG_HEADER_BYTES);
    *unborn_out = first && no_frame && header.gen == 1;
    return ESKER_OK;
}

esker_status
db_file_is_unborn(struct io *io, const struct db_file *file, bool has_manifest, bool *unborn_out)
{
    *unborn_out = false;
    switch (file->kind) {
    case DB_FILE_LOCK:
        *unborn_out = true;
        return ESKER_OK;
    case DB_FILE_CURRENT_TMP:
        return db_file_is_ours(io, file, NULL, unborn_out);
    case DB_FILE_MANIFEST:
        *unborn_out = file->number == 1;
        return ESKER_OK;
    case DB_FILE_LOG:
        return file->number == 1 ? files_log_is_unborn(io, file, has_manifest, unborn_out) : ESKER_OK;
    default:
        return ESKER_OK;
    }
}
