/* SPDX-License-Identifier: MIT */
/* What of the budget is left for blocks and for indexes. Hints: charges change without a mutex. */
#include "segment/block_cache_internal.h"

/* What is no frame. With a heap: all that is resident there, named or not. */
static uint64_t
block_cache_others(const struct block_cache *cache)
{
    uint64_t charged = 0;
    for (size_t role = 0; role < MEMORY_ROLES; role++) {
        charged += load_relaxed(&cache->charged_bytes[role]); /* relaxed: a sum that may be a little off */
    }
    if (cache->heap == NULL) {
        return charged;
    }
    /* relaxed: sums that may be a little off */
    uint64_t windows = load_relaxed(&cache->charged_bytes[MEMORY_WINDOWS]);
    uint64_t frames = load_relaxed(&cache->frame_bytes); /* relaxed: the same */
    uint64_t resident = page_heap_resident_bytes(cache->heap);
    return windows + MAX(charged - MIN(charged, windows), resident - MIN(resident, frames));
}

uint64_t
block_cache_left(const struct block_cache *cache, bool after_indexes)
{
    uint64_t others = block_cache_others(cache);
    if (!after_indexes) {
        /* relaxed: a sum that may be a little off */
        others -= MIN(others, load_relaxed(&cache->charged_bytes[MEMORY_INDEXES]));
    }
    return cache->capacity_bytes - MIN(cache->capacity_bytes, others);
}
