/* SPDX-License-Identifier: MIT */
/* What the files of the block cache share: frames and tables are in block_cache.c, holders in
 * cache_holder.c. */
#ifndef ESKER_SEGMENT_BLOCK_CACHE_INTERNAL_H
#define ESKER_SEGMENT_BLOCK_CACHE_INTERNAL_H

#include "segment/block_cache.h"
#include "segment/frame_table.h"

enum {
    BLOCK_CACHE_STRIPES = 32,
    BLOCK_CACHE_LOAD_MUTEXES = 64,
    BLOCK_CACHE_RETIRED_SHARE = 32 /* of the capacity: the most that waits for the reclaimer */
};

struct block_cache_counters {
    CACHE_ALIGNED _Atomic uint64_t hits;
    _Atomic uint64_t misses;
};

struct block_cache {
    /* immutable */
    const struct mem *mem;
    const struct page_heap *heap; /* nullable */
    void *owner;                  /* nullable */
    uint64_t capacity_bytes;
    /* guarded by ring_mutex */
    CACHE_ALIGNED struct mutex ring_mutex;
    struct frame_ref *hand; /* NULL: the ring is empty */
    uint64_t ring_count;
    /* written under ring_mutex; read without it as hints */
    _Atomic uint64_t linked_bytes;
    _Atomic uint64_t holder_count;
    uint64_t warm_bytes; /* of frames that are counted in linked_bytes but have no slot yet */
    /* guarded by ring_mutex */
    struct cache_holder *holder_hand; /* NULL: no holders */
    uint64_t holders_max;             /* set before the cache is shared */
    _Atomic uint64_t holder_step_at; /* the notes' clock when the holders' hand moves again; a hint outside */
    /* atomic */
    CACHE_ALIGNED _Atomic uint64_t charged_bytes[MEMORY_ROLES];
    _Atomic uint64_t turned_away_bytes; /* the clock of the notes in slots */
    _Atomic uint64_t retired_bytes;     /* frames and holders that wait for the reclaimer */
    _Atomic uint64_t retired_holders;
    /* atomic, statistics only */
    _Atomic uint64_t frame_bytes; /* of every living frame */
    _Atomic uint64_t evictions, holder_evictions, filter_pages_damaged;
    struct mutex load_mutexes[BLOCK_CACHE_LOAD_MUTEXES];
    struct block_cache_counters counters[BLOCK_CACHE_STRIPES];
};

/* What the others leave, with the indexes or without them. A hint: charges are not under the mutex. */
uint64_t block_cache_left(const struct block_cache *cache, bool after_indexes);

/* Under the ring mutex, which is what makes a plain sum of the two right. */
static inline void
block_cache_count_locked(_Atomic uint64_t *bytes, uint64_t change)
{
    store_relaxed(bytes, load_relaxed(bytes) + change); /* relaxed: others read hints */
}

/* One step of the holders' hand now and then: what was not used since its last lap and can be
 * paged goes. */
void cache_holders_step(struct block_cache *cache);

#endif
