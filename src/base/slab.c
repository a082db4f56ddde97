/* SPDX-License-Identifier: MIT */
#include "base/slab.h"

#include "base/assert.h"
#include "base/poison.h"

static void *
slab_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    struct slab *slab = ctx;
    uintptr_t base = (uintptr_t)slab->bytes;
    size_t from = (size_t)(align_up(base + slab->used, MAX(alignment, (size_t)SLAB_ALIGN)) - base);
    if (from > slab->size || size > slab->size - from) {
        return slab->parent->hooks.aligned_alloc(slab->parent->hooks.ctx, alignment, size);
    }
    slab->last = from;
    slab->used = from + size;
    slab->count++;
    poison_clear(slab->bytes + from, size);
    return slab->bytes + from;
}

static void *
slab_alloc(void *ctx, size_t size)
{
    struct slab *slab = ctx;
    size_t from = (size_t)align_up(slab->used, SLAB_ALIGN); /* as bytes are */
    if (from > slab->size || size > slab->size - from) {
        return mem_alloc(slab->parent, size);
    }
    slab->last = from;
    slab->used = from + size;
    slab->count++;
    poison_clear(slab->bytes + from, size);
    return slab->bytes + from;
}

static void
slab_free(void *ctx, void *ptr)
{
    struct slab *slab = ctx;
    uintptr_t from = (uintptr_t)ptr - (uintptr_t)slab->bytes; /* below bytes: wraps, and is too large */
    if (ptr == NULL || from >= slab->size) {
        mem_free(slab->parent, ptr);
        return;
    }
    ASSERT(slab->count > 0 && from < slab->used);
    slab->count--;
    if (slab->count == 0) {
        slab->used = 0;
        slab->last = 0;
        poison_set(slab->bytes, slab->size);
    } else if (from == slab->last) {
        poison_set(slab->bytes + from, slab->used - from);
        slab->used = from;
    }
}

struct slab *
slab_create(const struct mem *parent, size_t size)
{
    ASSERT(size > sizeof(struct slab));
    struct slab *slab = mem_alloc(parent, size);
    if (slab == NULL) {
        return NULL;
    }
    *slab = (struct slab){.parent = parent, .size = size - sizeof *slab};
    esker_allocator hooks = {
        .alloc = slab_alloc, .aligned_alloc = slab_aligned_alloc, .free = slab_free, .ctx = slab};
    mem_init(&slab->mem, &hooks);
    poison_set(slab->bytes, slab->size);
    return slab;
}

void
slab_destroy(struct slab *slab)
{
    if (slab != NULL) {
        ASSERT(slab->count == 0);
        poison_clear(slab->bytes, slab->size);
        mem_free(slab->parent, slab);
    }
}
