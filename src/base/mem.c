/* SPDX-License-Identifier: MIT */
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

static void *
default_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void *
default_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    return aligned_alloc(alignment, size);
}

static void
default_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

const struct mem mem_default = {
    .hooks = {.alloc = default_alloc, .aligned_alloc = default_aligned_alloc, .free = default_free},
};

void
mem_init(struct mem *mem, const esker_allocator *allocator)
{
    mem->hooks = allocator != NULL ? *allocator : mem_default.hooks;
}

void *
mem_alloc(const struct mem *mem, size_t size)
{
    return mem->hooks.alloc(mem->hooks.ctx, MAX(size, (size_t)1));
}

void *
mem_zalloc(const struct mem *mem, size_t size)
{
    void *ptr = mem_alloc(mem, size);
    if (ptr != NULL) {
        memset(ptr, 0, size);
    }
    return ptr;
}

void *
mem_alloc_array(const struct mem *mem, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    return mem_alloc(mem, total);
}

void *
mem_zalloc_array(const struct mem *mem, size_t count, size_t size)
{
    size_t total;
    if (__builtin_mul_overflow(count, size, &total)) {
        return NULL;
    }
    return mem_zalloc(mem, total);
}

void *
mem_alloc_aligned(const struct mem *mem, size_t alignment, size_t size)
{
    ASSERT(alignment != 0 && (alignment & (alignment - 1)) == 0);
    size_t rounded = (size + alignment - 1) & ~(alignment - 1);
    if (rounded < size) {
        return NULL;
    }
    return mem->hooks.aligned_alloc(mem->hooks.ctx, alignment, MAX(rounded, alignment));
}

void
mem_free(const struct mem *mem, void *ptr)
{
    if (ptr != NULL) {
        mem->hooks.free(mem->hooks.ctx, ptr);
    }
}
