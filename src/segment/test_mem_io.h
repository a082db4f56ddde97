/* SPDX-License-Identifier: MIT */
/*
 * Files in memory behind a struct io, for tests and fuzz targets of this room:
 * quick enough to open thousands of damaged files, and every request can be
 * made to fail, to come back short or to be interrupted. Reads may come from
 * several threads; everything else is for one. Crashes are not modelled.
 */
#ifndef ESKER_SEGMENT_TEST_MEM_IO_H
#define ESKER_SEGMENT_TEST_MEM_IO_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "io/io.h"
#include "sync/atomic.h"

enum { MEM_IO_FILES = 8, MEM_IO_NOTES = 512 };

/* A read, made or only begun. */
struct mem_io_note {
    uint64_t from, to;
    bool begun;
};

struct mem_io_file {
    struct io_file base;
    bool exists;
    uint8_t *bytes;
    size_t size, room;
};

struct mem_io {
    struct io base;
    struct mem_io_file files[MEM_IO_FILES];
    _Atomic uint64_t calls; /* opens, sizes, requests and syncs so far */
    uint64_t fail_at;       /* the call with this number (from 1) fails once; 0 = none */
    bool fail_on;           /* ... and every later one */
    int fail_errno;
    uint32_t short_bytes; /* no request moves more than this; 0 = no limit */
    bool interrupt;       /* every second request is interrupted first */
    bool begin_fails;     /* reads cannot be begun */
    bool notes_on;        /* reads are noted; from one thread, and at most MEM_IO_NOTES */
    size_t note_count;
    struct mem_io_note notes[MEM_IO_NOTES];
    uint32_t delay_us; /* of every request, so that threads meet at it */
};

static inline int
mem_io_call(struct mem_io *mio)
{
    uint64_t call = add_relaxed(&mio->calls, 1) + 1; /* relaxed: a count. */
    bool fails = mio->fail_at != 0 && (mio->fail_on ? call >= mio->fail_at : call == mio->fail_at);
    return fails ? -mio->fail_errno : 0;
}

static inline struct mem_io *
mem_io_of(struct io *io)
{
    return CONTAINER_OF(io, struct mem_io, base);
}

static inline struct mem_io_file *
mem_io_find(struct mem_io *mio, const char *name)
{
    for (size_t i = 0; i < MEM_IO_FILES; i++) {
        if (mio->files[i].exists && strcmp(mio->files[i].base.name, name) == 0) {
            return &mio->files[i];
        }
    }
    return NULL;
}

static inline struct mem_io_file *
mem_io_add(struct mem_io *mio, const char *name)
{
    for (size_t i = 0; i < MEM_IO_FILES; i++) {
        struct mem_io_file *file = &mio->files[i];
        if (!file->exists) {
            free(file->bytes);
            *file = (struct mem_io_file){.exists = true};
            snprintf(file->base.name, sizeof file->base.name, "%s", name);
            return file;
        }
    }
    UNREACHABLE();
}

static inline int
mem_io_open_file(struct io *io, const char *name, unsigned flags, struct io_file **out)
{
    struct mem_io *mio = mem_io_of(io);
    int failed = mem_io_call(mio);
    if (failed != 0) {
        return failed;
    }
    struct mem_io_file *file = mem_io_find(mio, name);
    if (file != NULL && (flags & IO_OPEN_EXCLUSIVE) != 0) {
        return -EEXIST;
    }
    if (file == NULL && (flags & IO_OPEN_CREATE) == 0) {
        return -ENOENT;
    }
    *out = file != NULL ? &file->base : &mem_io_add(mio, name)->base;
    return 0;
}

static inline void
mem_io_close_file(struct io *io, struct io_file *file)
{
    (void)io;
    (void)file;
}

static inline int
mem_io_file_size(struct io *io, struct io_file *file, uint64_t *out)
{
    int failed = mem_io_call(mem_io_of(io));
    if (failed == 0) {
        *out = CONTAINER_OF(file, struct mem_io_file, base)->size;
    }
    return failed;
}

static inline void
mem_io_resize(struct mem_io_file *file, size_t size)
{
    if (size > file->room) {
        size_t room = MAX(size, 2 * file->room);
        file->bytes = realloc(file->bytes, room);
        ASSERT(file->bytes != NULL);
        file->room = room;
    }
    if (size > file->size) {
        memset(file->bytes + file->size, 0, size - file->size);
    }
    file->size = size;
}

static inline void
mem_io_note(struct mem_io *mio, uint64_t offset, uint64_t len, bool begun)
{
    if (mio->notes_on) {
        ASSERT(mio->note_count < MEM_IO_NOTES);
        mio->notes[mio->note_count++] = (struct mem_io_note){offset, offset + len, begun};
    }
}

static inline int
mem_io_start_read(struct io *io, struct io_file *file, uint64_t offset, uint64_t len)
{
    (void)file;
    mem_io_note(mem_io_of(io), offset, len, true);
    return mem_io_of(io)->begin_fails ? -EIO : 0;
}

static inline int32_t
mem_io_transfer(struct mem_io *mio, const struct io_req *req)
{
    struct mem_io_file *file = CONTAINER_OF(req->file, struct mem_io_file, base);
    int failed = mem_io_call(mio);
    if (failed != 0) {
        return failed;
    }
    if (mio->delay_us != 0) {
        usleep(mio->delay_us);
    }
    if (mio->interrupt && load_relaxed(&mio->calls) % 2 == 0) { /* relaxed: a count. */
        return -EINTR;
    }
    if (req->op == IO_SYNC) {
        return 0;
    }
    size_t len = mio->short_bytes != 0 ? MIN(req->len, mio->short_bytes) : req->len;
    if (req->op == IO_WRITE) {
        mem_io_resize(file, MAX(file->size, (size_t)req->offset + len));
        memcpy(file->bytes + req->offset, req->data, len);
        return (int32_t)len;
    }
    mem_io_note(mio, req->offset, len, false);
    len = req->offset >= file->size ? 0 : MIN(len, file->size - (size_t)req->offset);
    if (len > 0) {
        memcpy(req->data, file->bytes + req->offset, len);
    }
    return (int32_t)len;
}

static inline void
mem_io_run(struct io *io, struct io_req *reqs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        reqs[i].result = mem_io_transfer(mem_io_of(io), &reqs[i]);
    }
}

static inline int
mem_io_unlink_file(struct io *io, const char *name)
{
    struct mem_io_file *file = mem_io_find(mem_io_of(io), name);
    if (file == NULL) {
        return -ENOENT;
    }
    file->exists = false;
    return 0;
}

static inline uint64_t
mem_io_clock(struct io *io)
{
    return load_relaxed(&mem_io_of(io)->calls); /* relaxed: a count. */
}

static inline int
mem_io_map_memory(struct io *io, uint64_t len, void **out)
{
    (void)io;
    *out = aligned_alloc(4096, (size_t)len);
    if (*out == NULL) {
        return -ENOMEM;
    }
    memset(*out, 0, (size_t)len);
    return 0;
}

static inline void
mem_io_unmap_memory(struct io *io, void *ptr, uint64_t len)
{
    (void)io;
    (void)len;
    free(ptr);
}

static const struct io_ops mem_io_ops = {
    .label = "mem",
    .open_file = mem_io_open_file,
    .close_file = mem_io_close_file,
    .file_size = mem_io_file_size,
    .run = mem_io_run,
    .start_read = mem_io_start_read,
    .unlink_file = mem_io_unlink_file,
    .map_memory = mem_io_map_memory,
    .unmap_memory = mem_io_unmap_memory,
    .monotonic_ns = mem_io_clock,
    .wall_ns = mem_io_clock,
};

static inline void
mem_io_init(struct mem_io *mio)
{
    memset(mio, 0, sizeof *mio);
    mio->base.ops = &mem_io_ops;
    mio->base.mem = &mem_default;
    mio->fail_errno = EIO;
}

static inline void
mem_io_fini(struct mem_io *mio)
{
    for (size_t i = 0; i < MEM_IO_FILES; i++) {
        free(mio->files[i].bytes);
    }
}

/* A file with the given content; replaces one of that name. */
static inline struct mem_io_file *
mem_io_put(struct mem_io *mio, const char *name, struct bytes content)
{
    struct mem_io_file *file = mem_io_find(mio, name);
    if (file == NULL) {
        file = mem_io_add(mio, name);
    }
    mem_io_resize(file, 0);
    mem_io_resize(file, content.len);
    if (content.len > 0) {
        memcpy(file->bytes, content.ptr, content.len);
    }
    return file;
}

#endif
