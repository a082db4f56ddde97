/* SPDX-License-Identifier: MIT */
/*
 * Bump allocation by one atomic add, in units of 8 bytes. Nothing is freed
 * before the whole arena is, and the caller has proved how much it can take,
 * so running out is a broken invariant. Memory comes zeroed. Unit 0 is never
 * handed out: 0 can mean "none". Private to this room.
 *
 * Striped (share.h): small nodes come from a stretch of the thread's stripe.
 * Each stretch but the last of each stripe was given up with less than the smallest
 * node left, INDEX_STRETCH_UNITS / 40 at most, hence index_arena_striped_bytes.
 */
#ifndef ESKER_MEMTABLE_INDEX_ARENA_H
#define ESKER_MEMTABLE_INDEX_ARENA_H

#include "base/assert.h"
#include "memtable/share.h"

enum {
    INDEX_UNIT_BYTES = 8,
    INDEX_ARENA_UNUSED_BYTES = 64,
    INDEX_STRETCH_UNITS = 256,
    INDEX_SMALLEST_UNITS = 6, /* of a node */
    INDEX_STRIPED_UNITS = 13  /* larger nodes are few */
};

_Static_assert((INDEX_SMALLEST_UNITS - 1) * 40 <= INDEX_STRETCH_UNITS, "the bound below counts on it");

struct index_arena {
    /* immutable */
    uint8_t *base;
    uint64_t cap_units;
    struct shares *shares; /* SHARE_STRIPES of them; NULL: not striped */
    /* atomic */
    _Atomic uint64_t used_units CACHE_ALIGNED; /* relaxed: hands out space, publishes nothing */
};

static inline void
index_arena_init(struct index_arena *arena, uint8_t *base, uint64_t cap_bytes)
{
    ASSERT(cap_bytes / INDEX_UNIT_BYTES < (1U << 31));
    arena->base = base;
    arena->shares = NULL;
    arena->cap_units = cap_bytes / INDEX_UNIT_BYTES;
    atomic_init(&arena->used_units, INDEX_ARENA_UNUSED_BYTES / INDEX_UNIT_BYTES);
}

/* What a striped arena needs in place of cap_bytes. */
static inline uint64_t
index_arena_striped_bytes(uint64_t cap_bytes)
{
    return cap_bytes + align_up(cap_bytes / 39, INDEX_UNIT_BYTES) +
           (uint64_t)SHARE_STRIPES * INDEX_STRETCH_UNITS * INDEX_UNIT_BYTES;
}

/* bytes: a multiple of the unit. Returns the first unit's number, below 2^31. */
static inline uint32_t
index_arena_take(struct index_arena *arena, uint32_t bytes, uint32_t stripe)
{
    uint64_t units = bytes / INDEX_UNIT_BYTES;
    uint32_t taken;
    if (arena->shares != NULL && units <= INDEX_STRIPED_UNITS &&
        share_take(&arena->shares[stripe % SHARE_STRIPES].arena, &arena->used_units, (uint32_t)units,
                   INDEX_SMALLEST_UNITS, INDEX_STRETCH_UNITS, &taken)) {
        ASSERT(taken + units <= arena->cap_units);
        return taken;
    }
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
