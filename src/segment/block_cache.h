/* SPDX-License-Identifier: MIT */
/*
 * Decoded blocks in memory: per segment an array of atomic frame pointers (a
 * lookup is one load), and one clock ring over all frames for eviction. The
 * budget is counted in bytes; indexes and filters are charged to it too.
 *
 * Concurrency: readers load a frame pointer inside an epoch section and may
 * use the frame until the section ends; frame_pin inside the section keeps it
 * longer. Eviction unlinks a frame by CAS and retires it; one that is pinned
 * when the grace period has passed is freed by its last frame_unpin.
 */
#ifndef ESKER_SEGMENT_BLOCK_CACHE_H
#define ESKER_SEGMENT_BLOCK_CACHE_H

#include "base/bytes.h"
#include "base/mem.h"
#include "base/status.h"

struct block_cache;
struct frame_ref; /* one cached block */

NODISCARD esker_status block_cache_create(const struct mem *mem, uint64_t capacity_bytes,
                                          struct block_cache **out);
/* All frames are gone: every segment of it was freed before (epoch_drain). */
void block_cache_destroy(struct block_cache *cache);

void frame_pin(struct frame_ref *frame);   /* inside the section that loaded it, or while pinned */
void frame_unpin(struct frame_ref *frame); /* any time, any thread */

struct block_cache_stats {
    uint64_t used_bytes, capacity_bytes, hits, misses, evictions;
};

void block_cache_get_stats(const struct block_cache *cache, struct block_cache_stats *out);

#endif
