/* SPDX-License-Identifier: MIT */
/*
 * The seam. Everything the engine asks of the machine goes through one
 * `struct io`: the files of one directory, clocks, randomness and page memory
 * (threads and waits are sync/workers.h, heap is base/mem.h). Three back-ends
 * pass one conformance suite (io_test.c): posix, io_uring, and the simulated
 * disk of io_sim.h. No other file includes <fcntl.h>, <unistd.h>,
 * <liburing.h> or <time.h>.
 *
 * Conventions
 *  - Calls on the table return 0 or a byte count, or a negated errno: short
 *    transfers, EINTR and EAGAIN are visible here, so that the helpers below,
 *    which turn them into statuses, can be tested against them.
 *  - `name` is one path component of this directory. Files are opened with
 *    O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK and must be regular files
 *    (-EINVAL otherwise). New files have mode 0600.
 *  - Threads: every call may be made by any thread; one file may be read and
 *    written by many threads at once.
 *
 * Durability: a write is durable when it completed at full length and a later
 * io_sync of that file returned OK, or at once if it was an IO_WRITE_SYNC; a
 * name (create, rename, unlink) when a later io_sync_dir did. After a failed
 * sync nothing about that file may be believed and the sync is not tried again.
 */
#ifndef ESKER_IO_IO_H
#define ESKER_IO_IO_H

#include <stdbool.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/mem.h"
#include "base/status.h"

struct io;

/* Opaque to callers but for the name (for error messages); made by the back-end. */
struct io_file {
    char name[40];
};

enum io_open_flags {
    IO_OPEN_READ = 0,
    IO_OPEN_WRITE = 1,    /* read and write */
    IO_OPEN_CREATE = 2,   /* with WRITE */
    IO_OPEN_EXCLUSIVE = 4 /* with CREATE: -EEXIST when the name exists */
};

enum io_op {
    IO_READ = 1,
    IO_WRITE = 2,
    IO_SYNC = 3, /* fdatasync; offset, data, len unused */
    /* A write and the sync of what it wrote, and of nothing else of the file: what else is
     * dirty there stays in memory. A negative result says as little as one of IO_SYNC. */
    IO_WRITE_SYNC = 4
};

struct io_req {
    enum io_op op;
    struct io_file *file;
    uint64_t offset;
    void *data;
    uint32_t len;
    int32_t result; /* bytes, or a negated errno */
};

struct io_machine_id {
    uint8_t boot_id[16]; /* all zero = unknown: equal to nothing, not even to itself */
    uint64_t mount_id;   /* 0 = unknown */
};

/* Non-zero stops the listing, which then returns 0 all the same. Names come in
 * no particular order, each name of the directory once, "." and ".." never. */
typedef int io_list_fn(void *ctx, const char *name);

enum {
    IO_HUGE_FROM = 4 << 20, /* map_memory asks for huge pages: below, one wastes more than it saves */
    IO_HUGE_BYTES = 2 << 20
};

struct io_ops {
    const char *label; /* "uring", "posix", "sim" */
    int (*open_file)(struct io *io, const char *name, unsigned flags, struct io_file **out);
    void (*close_file)(struct io *io, struct io_file *file);
    int (*file_size)(struct io *io, struct io_file *file, uint64_t *out);
    int (*truncate_file)(struct io *io, struct io_file *file, uint64_t size);
    /* The file becomes [0, size), with room on the disk for every byte of it, so that no write there
     * fails for want of it; what was not written before are zeros. Durable, as a size is, after
     * IO_SYNC. -EOPNOTSUPP where that cannot be had; nullable: the same. */
    int (*reserve_file)(struct io *io, struct io_file *file, uint64_t size);
    /* Runs all of them, in no particular order and possibly at the same time,
     * and returns when every one has its result. Requests do not wait for one
     * another: a sync that must cover a write goes into a later call. */
    void (*run)(struct io *io, struct io_req *reqs, size_t count);
    int (*sync_dir)(struct io *io);
    int (*rename_file)(struct io *io, const char *from, const char *to);
    int (*unlink_file)(struct io *io, const char *name);
    int (*list)(struct io *io, io_list_fn *each, void *ctx);
    /* An exclusive lock on `name` (created if missing) for this process and
     * this handle: -EWOULDBLOCK when held elsewhere, also by this process. */
    int (*lock)(struct io *io, const char *name);
    int (*lock_shared)(struct io *io, const char *name); /* beside other readers; the file exists */
    /* The lock is dropped without touching the file; also called in a forked child. */
    void (*unlock)(struct io *io);
    /* Bytes [0, len) of the file, shared and writable, not inherited by fork.
     * Stores reach the file at the latest when the process dies; IO_SYNC makes
     * them durable. -EOPNOTSUPP where that is not promised. */
    int (*map_file)(struct io *io, struct io_file *file, uint64_t len, void **out);
    void (*unmap_file)(struct io *io, void *ptr, uint64_t len);
    /* Zeroed anonymous page memory; huge pages where len allows. */
    int (*map_memory)(struct io *io, uint64_t len, void **out);
    void (*unmap_memory)(struct io *io, void *ptr, uint64_t len);
    /* The same at a multiple of `alignment`, a power of two of at least a page, and in small
     * pages only, so that what was never touched takes nothing. unmap_memory takes it back, too,
     * from IO_HUGE_FROM on. Nullable, with the next two. */
    int (*map_aligned)(struct io *io, uint64_t len, uint64_t alignment, void **out);
    void (*unmap_aligned)(struct io *io, void *ptr, uint64_t len);
    /* Whether [ptr, ptr + len) of such a mapping, whole stretches of IO_HUGE_BYTES, may take huge pages:
     * then touching a byte of one may make all of it present. A wish. Nullable. */
    void (*allow_huge)(struct io *io, void *ptr, uint64_t len, bool allow);
    /* Gives the memory of whole pages of such a mapping back until they are touched again: then
     * they are zeros, or as they were. Where the process has locked its memory it does nothing. */
    void (*discard)(struct io *io, void *ptr, uint64_t len);
    /* Makes the pages of [ptr, ptr + len) present and writable, so that a later store meets no
     * fault; ptr is from map_memory or map_file. Only a hint: may do nothing. NULL: never does. */
    void (*populate)(struct io *io, void *ptr, uint64_t len);
    uint64_t (*monotonic_ns)(struct io *io);
    uint64_t (*wall_ns)(struct io *io);
    uint64_t (*random64)(struct io *io);
    void (*machine_id)(struct io *io, struct io_machine_id *out);
    /* Begins to write [offset, offset + len) to the disk, so that a later sync
     * has little left to do; promises nothing. Nullable. */
    void (*start_writeback)(struct io *io, struct io_file *file, uint64_t offset, uint64_t len);
    /* Begins to read [offset, offset + len) into the machine's memory and returns at once, so that
     * a later read of it has less to wait for; 0, or a negated errno, which is of no consequence:
     * that read is made in any case and reports for itself. Nullable. */
    int (*start_read)(struct io *io, struct io_file *file, uint64_t offset, uint64_t len);
    /* What files of this directory can still take; nullable: not known. */
    int (*free_bytes)(struct io *io, uint64_t *out);
    uint64_t (*files_max)(struct io *io); /* nullable; see io_files_max */
    /* Nullable: `label` and `reason` stay what they were at open. */
    void (*describe)(struct io *io, const char **label_out, char *reason, size_t size);
    void (*destroy)(struct io *io);
};

struct io {
    const struct io_ops *ops;
    const struct mem *mem;
    char reason[96]; /* why this back-end, one sentence; as it was at open */
};

/* Opens directory `path` (created with mode 0700 if `create`; only the last
 * component). kind: ESKER_IO_*. AUTO takes io_uring if a ring can be set up
 * and does a read, else posix, and says why in `reason`; URING falls back too
 * (an embedder in a container must not fail), POSIX never tries.
 * Returns: NOT_FOUND (missing, not created), IO (not a directory, no permission). */
NODISCARD esker_status io_open_dir(const char *path, bool create, int kind, const struct mem *mem,
                                   struct io **out);
void io_close_dir(struct io *io);
/* Which back-end does the work now ("uring", "posix", "sim"), and why, in one sentence. */
void io_describe(struct io *io, const char **label_out, char *reason, size_t size);
/* BUSY when this or another process holds it; dropped by io_close_dir. */
NODISCARD esker_status io_lock(struct io *io, const char *name);

/* ---- Helpers with statuses; each names the file on failure -------------- */

/* NOT_FOUND when missing; CORRUPT when the name is not a regular file. */
NODISCARD esker_status io_open_file(struct io *io, const char *name, unsigned flags, struct io_file **out);
void io_close_file(struct io *io, struct io_file *file);
NODISCARD esker_status io_file_size(struct io *io, struct io_file *file, uint64_t *out);
NODISCARD esker_status io_truncate(struct io *io, struct io_file *file, uint64_t size);
/* io_ops.reserve_file, of a file that is no longer than `size`. UNSUPPORTED where that cannot be had. */
NODISCARD esker_status io_reserve(struct io *io, struct io_file *file, uint64_t size);
/* Exactly len bytes; the end of the file before that is CORRUPT at that offset. */
NODISCARD esker_status io_read_full(struct io *io, struct io_file *file, uint64_t offset, void *data,
                                    size_t len);
NODISCARD esker_status io_write_full(struct io *io, struct io_file *file, uint64_t offset, const void *data,
                                     size_t len);
/* The same, and durable when it returns OK; other bytes of the file are not (IO_WRITE_SYNC). */
NODISCARD esker_status io_write_sync(struct io *io, struct io_file *file, uint64_t offset, const void *data,
                                     size_t len);
/* All requests at full length: remainders are resubmitted, EINTR and EAGAIN
 * retried a bounded number of times. On failure the first bad request's story. */
NODISCARD esker_status io_run_full(struct io *io, struct io_req *reqs, size_t count);
/* The fdatasync. Never retried but for EINTR. */
NODISCARD esker_status io_sync(struct io *io, struct io_file *file);
NODISCARD esker_status io_sync_dir(struct io *io);
NODISCARD esker_status io_rename(struct io *io, const char *from, const char *to);
/* UINT64_MAX where it is not known. */
NODISCARD esker_status io_free_bytes(struct io *io, uint64_t *out);
/* A missing file is OK. */
NODISCARD esker_status io_unlink(struct io *io, const char *name);
/* The whole file into buf, refused with CORRUPT when larger than `limit`; NOT_FOUND when missing. */
NODISCARD esker_status io_read_file(struct io *io, const char *name, uint64_t limit, struct buf *buf);
/* tmp name, write, sync, rename over `name`, sync the directory. */
NODISCARD esker_status io_replace_file(struct io *io, const char *name, const char *tmp_name,
                                       struct bytes content);

static inline void
io_start_writeback(struct io *io, struct io_file *file, uint64_t offset, uint64_t len)
{
    if (io->ops->start_writeback != NULL) {
        io->ops->start_writeback(io, file, offset, len);
    }
}

/* Only a hint: what comes of it the read that follows says. */
static inline void
io_start_read(struct io *io, struct io_file *file, uint64_t offset, uint64_t len)
{
    if (io->ops->start_read != NULL) {
        int failed = io->ops->start_read(io, file, offset, len);
        (void)failed;
    }
}

static inline uint64_t
io_monotonic_ns(struct io *io)
{
    return io->ops->monotonic_ns(io);
}

/* How many files of this process may be open at the same time, or UINT64_MAX. */
static inline uint64_t
io_files_max(struct io *io)
{
    return io->ops->files_max != NULL ? io->ops->files_max(io) : UINT64_MAX;
}

#endif
