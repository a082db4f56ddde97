/* SPDX-License-Identifier: MIT */
/*
 * What every back-end shares: the choice between them, and the helpers that
 * turn a table's raw results (short transfers, EINTR, EAGAIN, errno) into
 * statuses that name the file.
 *
 * Invariants
 *  I1 A transfer is reported complete only when each of its bytes was; what is
 *     missing is asked for again, at most IO_TRIES_MAX times without progress.
 *  I2 A sync that failed is never asked for again: the kernel may have dropped
 *     the dirty pages, and a second sync would succeed over the loss
 *     (Rebello et al., "Can applications recover from fsync failures?", 2020).
 */
#include "io/io.h"
#include "sync/thread.h"

#include <errno.h>
#include <stdio.h>

#include "base/mutant.h"
#include "base/assert.h"
#include "io/io_posix.h"

enum {
    IO_TRIES_MAX = 64,
    IO_PIECE_MAX = 1 << 30 /* what one request may carry: its result must fit in 31 bits */
};

/* ---- Directory ---------------------------------------------------------- */

esker_status
io_open_dir(const char *path, bool create, int kind, const struct mem *mem, struct io **out)
{
    struct io_posix *posix = NULL;
    TRY(io_posix_open(path, create, mem, &posix));
    if (kind == ESKER_IO_POSIX) {
        snprintf(posix->base.reason, sizeof posix->base.reason, "asked for posix");
    } else {
        int failed = io_uring_attach(posix);
        (void)failed; /* the reason says it; plain calls do the same work */
    }
    *out = &posix->base;
    return ESKER_OK;
}

void
io_close_dir(struct io *io)
{
    if (io != NULL) {
        io->ops->destroy(io);
    }
}

void
io_describe(struct io *io, const char **label_out, char *reason, size_t size)
{
    if (io->ops->describe != NULL) {
        io->ops->describe(io, label_out, reason, size);
        return;
    }
    *label_out = io->ops->label;
    snprintf(reason, size, "%s", io->reason);
}

esker_status
io_lock(struct io *io, const char *name)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = io->ops->lock(io, name);
    if (failed == -EWOULDBLOCK) {
        return FAIL_AT(ESKER_BUSY, name, 0, "the directory is in use");
    }
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, name, 0, "cannot lock the directory");
}

esker_status
io_sync_dir(struct io *io)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = -EINTR;
    for (int tries = 0; failed == -EINTR && tries < IO_TRIES_MAX; tries++) {
        failed = io->ops->sync_dir(io);
    }
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, NULL, 0, "cannot sync the directory");
}

esker_status
io_rename(struct io *io, const char *from, const char *to)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = io->ops->rename_file(io, from, to);
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, from, 0, "cannot rename to %s", to);
}

esker_status
io_unlink(struct io *io, const char *name)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = io->ops->unlink_file(io, name);
    return failed == 0 || failed == -ENOENT ? ESKER_OK : FAIL_OS(-failed, name, 0, "cannot remove");
}

/* ---- Files -------------------------------------------------------------- */

esker_status
io_open_file(struct io *io, const char *name, unsigned flags, struct io_file **out)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = -EINTR;
    for (int tries = 0; failed == -EINTR && tries < IO_TRIES_MAX; tries++) {
        failed = io->ops->open_file(io, name, flags, out);
    }
    switch (-failed) {
    case 0:
        return ESKER_OK;
    case ENOENT:
        return FAIL_AT(ESKER_NOT_FOUND, name, 0, "the file does not exist");
    case EINVAL:
        return FAIL_AT(ESKER_CORRUPT, name, 0, "not a regular file");
    default:
        return FAIL_OS(-failed, name, 0, "cannot open");
    }
}

void
io_close_file(struct io *io, struct io_file *file)
{
    if (file != NULL) {
        ASSERT_SLOW(thread_may_wait());
        io->ops->close_file(io, file);
    }
}

esker_status
io_file_size(struct io *io, struct io_file *file, uint64_t *out)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = io->ops->file_size(io, file, out);
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, file->name, 0, "cannot ask for the size");
}

esker_status
io_truncate(struct io *io, struct io_file *file, uint64_t size)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = -EINTR;
    for (int tries = 0; failed == -EINTR && tries < IO_TRIES_MAX; tries++) {
        failed = io->ops->truncate_file(io, file, size);
    }
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, file->name, size, "cannot set the size");
}

esker_status
io_reserve(struct io *io, struct io_file *file, uint64_t size)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = io->ops->reserve_file != NULL ? -EINTR : -EOPNOTSUPP;
    for (int tries = 0; failed == -EINTR && tries < IO_TRIES_MAX; tries++) {
        failed = io->ops->reserve_file(io, file, size);
    }
    if (failed == -EOPNOTSUPP) {
        return FAIL_AT(ESKER_UNSUPPORTED, file->name, 0, "this file system does not reserve room for a file");
    }
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, file->name, size, "cannot reserve room");
}

esker_status
io_free_bytes(struct io *io, uint64_t *out)
{
    ASSERT_SLOW(thread_may_wait());
    *out = UINT64_MAX;
    int failed = io->ops->free_bytes == NULL ? 0 : io->ops->free_bytes(io, out);
    return failed == 0 ? ESKER_OK : FAIL_OS(-failed, NULL, 0, "cannot ask for free space");
}

/* ---- Transfers ---------------------------------------------------------- */

static bool
io_req_is_whole(const struct io_req *req)
{
    if (MUTANT(9) && req->op == IO_WRITE && req->result > 0) {
        return true;
    }
    return req->op == IO_SYNC ? req->result == 0 : req->result >= 0 && (uint32_t)req->result == req->len;
}

static esker_status
io_req_failed(const struct io_req *req, uint64_t offset, int result)
{
    const char *name = req->file->name;
    switch (req->op) {
    case IO_READ:
        if (result == 0) {
            return FAIL_AT(ESKER_CORRUPT, name, offset, "the file ends too early");
        }
        return FAIL_OS(-result, name, offset, "cannot read");
    case IO_WRITE:
    case IO_WRITE_SYNC:
        if (result == 0) {
            return FAIL_AT(ESKER_IO, name, offset, "a write of 0 bytes: no progress");
        }
        return FAIL_OS(-result, name, offset, "cannot write");
    case IO_SYNC:
        return FAIL_OS(-result, name, 0, "cannot sync");
    }
    UNREACHABLE();
}

/* Asks for what is missing of one request whose first answer is in result.
 * The request's result becomes its length, or the errno that ended it. */
static esker_status
io_finish(struct io *io, struct io_req *req)
{
    struct io_req rest = *req;
    for (int tries = 0; !io_req_is_whole(&rest);) {
        bool syncs = rest.op == IO_SYNC || rest.op == IO_WRITE_SYNC;
        bool asleep = rest.result == -EINTR || (rest.result == -EAGAIN && !syncs);
        bool moved = rest.op != IO_SYNC && rest.result > 0;
        if ((!asleep && !moved) || tries == IO_TRIES_MAX) {
            req->result = rest.result;
            return io_req_failed(&rest, rest.offset, rest.result);
        }
        if (moved) {
            uint32_t done = (uint32_t)rest.result;
            ASSERT(done < rest.len);
            rest.offset += done;
            rest.data = (uint8_t *)rest.data + done;
            rest.len -= done;
        }
        tries = moved ? 0 : tries + 1;
        io->ops->run(io, &rest, 1);
    }
    req->result = req->op == IO_SYNC ? 0 : (int32_t)req->len;
    return ESKER_OK;
}

esker_status
io_run_full(struct io *io, struct io_req *reqs, size_t count)
{
    ASSERT_SLOW(thread_may_wait());
    for (size_t at = 0; at < count; at++) {
        ASSERT(reqs[at].op == IO_SYNC || reqs[at].len <= INT32_MAX);
    }
    io->ops->run(io, reqs, count);
    for (size_t at = 0; at < count; at++) {
        if (UNLIKELY(!io_req_is_whole(&reqs[at]))) {
            TRY(io_finish(io, &reqs[at]));
        }
    }
    return ESKER_OK;
}

static esker_status
io_transfer(struct io *io, enum io_op op, struct io_file *file, uint64_t offset, uint8_t *data, size_t len)
{
    while (len > 0) {
        uint32_t piece = (uint32_t)MIN(len, (size_t)IO_PIECE_MAX);
        struct io_req req = {.op = op, .file = file, .offset = offset, .data = data, .len = piece};
        TRY(io_run_full(io, &req, 1));
        offset += piece;
        data += piece;
        len -= piece;
    }
    return ESKER_OK;
}

esker_status
io_read_full(struct io *io, struct io_file *file, uint64_t offset, void *data, size_t len)
{
    return io_transfer(io, IO_READ, file, offset, data, len);
}

esker_status
io_write_full(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len)
{
    /* One request type serves both directions; a write does not change its data. */
    return io_transfer(io, IO_WRITE, file, offset, (uint8_t *)(uintptr_t)data, len);
}

esker_status
io_write_sync(struct io *io, struct io_file *file, uint64_t offset, const void *data, size_t len)
{
    return io_transfer(io, IO_WRITE_SYNC, file, offset, (uint8_t *)(uintptr_t)data, len);
}

esker_status
io_sync(struct io *io, struct io_file *file)
{
    struct io_req req = {.op = IO_SYNC, .file = file};
    if (MUTANT(10) && io_run_full(io, &req, 1) == ESKER_OK) {
        return ESKER_OK;
    }
    return io_run_full(io, &req, 1);
}

/* ---- Whole files -------------------------------------------------------- */

esker_status
io_read_file(struct io *io, const char *name, uint64_t limit, struct buf *buf)
{
    struct io_file *file = NULL;
    struct buf whole;
    uint64_t size = 0;
    buf_init(&whole, buf->mem);
    esker_status status = io_open_file(io, name, IO_OPEN_READ, &file);
    if (status != ESKER_OK) {
        return status;
    }
    TRY_OUT(io_file_size(io, file, &size));
    if (MUTANT(19)) {
        TRY_OUT(buf_reserve(&whole, (size_t)size));
    }
    if (size > limit) {
        status = FAIL_AT(ESKER_CORRUPT, name, limit, "the file is larger than it can be");
        goto out;
    }
    TRY_OUT(buf_reserve(&whole, (size_t)size));
    TRY_OUT(io_read_full(io, file, 0, whole.ptr, (size_t)size));
    whole.len = (size_t)size;
    buf_fini(buf);
    *buf = whole;
    buf_init(&whole, buf->mem);
out:
    buf_fini(&whole);
    io_close_file(io, file);
    return status;
}

static esker_status
io_write_new(struct io *io, const char *name, struct bytes content)
{
    struct io_file *file = NULL;
    TRY(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &file));
    esker_status status;
    TRY_OUT(io_truncate(io, file, 0)); /* what an earlier, interrupted replacement left */
    TRY_OUT(io_write_full(io, file, 0, content.ptr, content.len));
    if (!MUTANT(4)) {
        TRY_OUT(io_sync(io, file));
    }
out:
    io_close_file(io, file);
    return status;
}

esker_status
io_replace_file(struct io *io, const char *name, const char *tmp_name, struct bytes content)
{
    esker_status status = io_write_new(io, tmp_name, content);
    if (status == ESKER_OK) {
        status = io_rename(io, tmp_name, name);
    }
    if (status != ESKER_OK) {
        /* The first failure is the story; a tmp file left behind is harmless. */
        (void)io->ops->unlink_file(io, tmp_name);
        return status;
    }
    return MUTANT(3) ? ESKER_OK : io_sync_dir(io);
}
