/* SPDX-License-Identifier: MIT */
/* Private to this room: the plain system calls, and what io_uring.c builds on. */
#ifndef ESKER_IO_IO_POSIX_H
#define ESKER_IO_IO_POSIX_H

#include "io/io.h"

/* The file that carries the directory's lock; in the process-wide table while it is held. */
struct posix_lock {
    int fd;
    struct posix_lock *next;
};

struct posix_file {
    struct io_file base;
    int fd;
};

struct io_posix {
    struct io base;
    /* Immutable after open. */
    struct io_ops ops; /* a copy, so that io_uring can replace what it does better */
    int dir_fd;
    struct io_machine_id machine;
    uint64_t ring_generation; /* of the process whose rings it may use; 0 = none */
    /* Guarded by the lock table's mutex. */
    struct posix_lock lock;
};

NODISCARD esker_status io_posix_open(const char *path, bool create, const struct mem *mem,
                                     struct io_posix **out);

static inline int
io_posix_fd(const struct io_file *file)
{
    return ((const struct posix_file *)(const void *)file)->fd;
}

/* Takes a descriptor, or -1 with errno, and returns it or another one for the same that is none of 0 to 2,
 * or -1 with errno. A program that has closed those still prints to them, and reopens them with dup2. */
int io_posix_above_stdio(int fd);

enum { IO_POSIX_PENDING = INT32_MIN /* no result of the kernel is this */ };

/* Does what needs no device: writes, and reads of cached bytes. The others
 * stay pending, and for the reads among them the kernel has begun to fetch.
 * Returns how many. */
size_t io_posix_run_ready(struct io_req *reqs, size_t count);
/* One plain call for each request that is pending. */
void io_posix_run_pending(struct io_req *reqs, size_t count);
void io_posix_run(struct io *io, struct io_req *reqs, size_t count);
int io_posix_map_memory(struct io *io, uint64_t len, void **out);
int io_posix_map_aligned(struct io *io, uint64_t len, uint64_t alignment, void **out);
void io_posix_allow_huge(struct io *io, void *ptr, uint64_t len, bool allow);
void io_posix_discard(struct io *io, void *ptr, uint64_t len);
void io_posix_populate(struct io *io, void *ptr, uint64_t len);
void io_posix_unmap(struct io *io, void *ptr, uint64_t len);
void io_posix_destroy(struct io *io);
/* What cannot be found out stays as it is. */
void io_posix_read_machine(int dir_fd, struct io_machine_id *out);

/* Makes `posix` use rings. Returns 0, or a negated errno and nothing changed;
 * either way `reason` says what was tried and found. */
int io_uring_attach(struct io_posix *posix);

#endif
