/* SPDX-License-Identifier: MIT */
/* For tests: an allocator whose n-th call fails, and only that one. */
#ifndef ESKER_BASE_TEST_FAILING_MEM_H
#define ESKER_BASE_TEST_FAILING_MEM_H

#include <stdlib.h>

#include "base/mem.h"

struct failing {
    uint64_t calls_left; /* the call after that fails */
    bool failed;         /* it came to that */
};

/* For whatever else may fail in turn with the allocations. */
static inline bool
failing_now(struct failing *failing)
{
    if (failing->calls_left-- != 0) {
        return false;
    }
    failing->failed = true;
    return true;
}

static inline void *
failing_alloc(void *ctx, size_t size)
{
    return failing_now(ctx) ? NULL : malloc(size);
}

static inline void *
failing_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    return failing_now(ctx) ? NULL : aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static inline void
failing_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static inline struct mem
failing_mem(struct failing *failing)
{
    return (struct mem){.hooks = {.alloc = failing_alloc,
                                  .aligned_alloc = failing_aligned_alloc,
                                  .free = failing_free,
                                  .ctx = failing}};
}

#endif
