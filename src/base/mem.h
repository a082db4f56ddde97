/* SPDX-License-Identifier: MIT */
/*
 * Every heap allocation of the library goes through a `struct mem`: the
 * database's own allocator, or malloc. Each can fail and says so with NULL.
 * Frees are null-safe. A struct mem is immutable after mem_init and is passed
 * by pointer; it outlives everything allocated from it.
 */
#ifndef ESKER_BASE_MEM_H
#define ESKER_BASE_MEM_H

#include "base/compiler.h"
#include "esker/esker.h"

struct mem {
    esker_allocator hooks;
};

/* malloc and free, for what belongs to no database (batches, statistics text). */
extern const struct mem mem_default;

/* allocator may be NULL: malloc. */
void mem_init(struct mem *mem, const esker_allocator *allocator);

void *mem_alloc(const struct mem *mem, size_t size);
void *mem_zalloc(const struct mem *mem, size_t size);
/* NULL also when count * size does not fit in size_t. */
void *mem_alloc_array(const struct mem *mem, size_t count, size_t size);
void *mem_zalloc_array(const struct mem *mem, size_t count, size_t size);
/* alignment: a power of two; size need not be a multiple of it. */
void *mem_alloc_aligned(const struct mem *mem, size_t alignment, size_t size);
void mem_free(const struct mem *mem, void *ptr);

#endif
