/* SPDX-License-Identifier: MIT */
/* Page memory. */
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "io/io_posix.h"

void
io_posix_populate(struct io *io, void *ptr, uint64_t len)
{
    (void)io;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t start = (uint64_t)(uintptr_t)ptr;
    uint64_t first = start - start % page;
    /* Since Linux 5.14; older kernels say EINVAL, and the store faults as it always did. */
    (void)madvise((char *)ptr - (start - first), align_up(start + len, page) - first, MADV_POPULATE_WRITE);
}

int
io_posix_map_memory(struct io *io, uint64_t len, void **out)
{
    (void)io;
    bool huge = len >= IO_HUGE_FROM;
    uint64_t slack = huge ? IO_HUGE_BYTES : 0;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    if (len == 0 || len > INT64_MAX - 2 * (uint64_t)IO_HUGE_BYTES) {
        return len == 0 ? -EINVAL : -ENOMEM;
    }
    uint64_t rounded = align_up(len, page);
    char *whole = mmap(NULL, rounded + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) {
        return -errno;
    }
    if (!huge) {
        *out = whole;
        return 0;
    }
    uint64_t lead = align_up((uint64_t)(uintptr_t)whole, IO_HUGE_BYTES) - (uint64_t)(uintptr_t)whole;
    if (lead > 0) {
        munmap(whole, lead);
    }
    if (slack > lead) {
        munmap(whole + lead + rounded, slack - lead);
    }
    /* A wish: without huge pages it is the same memory, only slower. */
    (void)madvise(whole + lead, rounded, MADV_HUGEPAGE);
    *out = whole + lead;
    return 0;
}

int
io_posix_map_aligned(struct io *io, uint64_t len, uint64_t alignment, void **out)
{
    (void)io;
    if (len == 0 || len > INT64_MAX - 2 * alignment) {
        return len == 0 ? -EINVAL : -ENOMEM;
    }
    uint64_t rounded = align_up(len, (uint64_t)sysconf(_SC_PAGESIZE));
    char *whole = mmap(NULL, rounded + alignment, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (whole == MAP_FAILED) {
        return -errno;
    }
    uint64_t lead = align_up((uint64_t)(uintptr_t)whole, alignment) - (uint64_t)(uintptr_t)whole;
    if (lead > 0) {
        munmap(whole, lead);
    }
    munmap(whole + lead + rounded, alignment - lead);
    (void)madvise(whole + lead, rounded, MADV_NOHUGEPAGE); /* EINVAL where the kernel has none */
    *out = whole + lead;
    return 0;
}

void
io_posix_allow_huge(struct io *io, void *ptr, uint64_t len, bool allow)
{
    (void)io;
    (void)madvise(ptr, (size_t)len, allow ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

void
io_posix_discard(struct io *io, void *ptr, uint64_t len)
{
    (void)io;
    (void)madvise(ptr, (size_t)len, MADV_DONTNEED); /* EINVAL for locked memory */
}

void
io_posix_unmap(struct io *io, void *ptr, uint64_t len)
{
    (void)io;
    if (ptr != NULL) {
        int failed = munmap(ptr, (size_t)len);
        ASSERT(failed == 0);
    }
}
