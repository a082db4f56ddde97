/* SPDX-License-Identifier: MIT */
/*
 * Bump allocation by one atomic add, in units of 8 bytes. Nothing is freed
 * before the whole arena is, and the caller has proved how much it can take,
 * so running out is a broken invariant. Memory comes zeroed. Unit 0 is never
 * handed out: 0 can mean "none". Private to this room.
 */
#ifndef ESKER_MEMTABLE_INDEX_ARENA_H
#define ESKER_MEMTABLE_INDEX_ARENA_H

#include "base/assert.h"
#include "sync/atomic.h"

enum { INDEX_UNIT_BYTES = 8, INDEX_ARENA_UNUSED_BYTES = 64 };

struct index_arena {
    /* immutable */
    uint8_t *base;
    uint64_t cap_units;
    /* atomic */
    _Atomic uint64_t used_units CACHE_ALIGNED; /* relaxed: hands out space, publishes nothing */
};

static inline void
index_arena_init(struct index_arena *arena, uint8_t *base, uint64_t cap_bytes)
{
    ASSERT(cap_bytes / INDEX_UNIT_BYTES < (1U << 31));
    arena->base = base;
    arena->cap_units = cap_bytes / INDEX_UNIT_BYTES;
    atomic_init(&arena->used_units, INDEX_ARENA_UNUSED_BYTES / INDEX_UNIT_BYTES);
}

/* bytes: a multiple of the unit. Returns the first unit's number, below 2^31. */
static inline uint32_t
index_arena_take(struct index_arena *arena, uint32_t bytes)
{
    uint64_t units = bytes / INDEX_UNIT_BYTES;
    /* relaxed: only uniqueness matters; whoever links the node publishes it. */
    uint64_t first = add_relaxed(&arena->used_units, units);
    ASSERT(first + units <= arena->cap_units);
    return (uint32_t)first;
}

static inline void *
index_arena_at(const struct index_arena *arena, uint32_t unit)
{
    return arena->base + (uint64_t)unit * INDEX_UNIT_BYTES;
}

static inline uint64_t
index_arena_used_bytes(const struct index_arena *arena)
{
    /* relaxed: statistics. */
    return load_relaxed(&arena->used_units) * INDEX_UNIT_BYTES;
}

#endif
