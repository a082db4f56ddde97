/* SPDX-License-Identifier: MIT */
/*
 * Decoded blocks in memory: per segment an array of atomic frame pointers (a
 * lookup is one load), and one clock ring over all frames for eviction.
 *
 * The cache also keeps the books of the memory budget: whatever else takes
 * memory is charged here by role, and frames have what is left. Indexes and
 * filters of segments (holders) have a clock of their own: they are evicted when
 * they take more than their share, or when too many files are open.
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
#include "io/page_heap.h"

struct block_cache;
struct frame_ref; /* one cached block */

NODISCARD esker_status block_cache_create(const struct mem *mem, uint64_t capacity_bytes,
                                          struct block_cache **out);
/* The heap that the cache's mem allocates from, and so does everything else that is charged,
 * but for windows: then what is resident counts, whatever it is for. Before the cache is shared. */
void block_cache_use_heap(struct block_cache *cache, const struct page_heap *heap);
/* For who has a frame in hand and nothing else. Before the cache is shared. */
void block_cache_set_owner(struct block_cache *cache, void *owner);
/* All frames are gone: every segment of it was freed before (epoch_drain). */
void block_cache_destroy(struct block_cache *cache);

void frame_pin(struct frame_ref *frame);   /* inside the section that loaded it, or while pinned */
void frame_unpin(struct frame_ref *frame); /* any time, any thread */
/* What block_cache_set_owner said of the frame's cache. While pinned. */
void *frame_owner(const struct frame_ref *frame);

/* What memory that is no frame is for. */
enum memory_role {
    MEMORY_WINDOWS,   /* windows with their index, and log files as far as they are mapped */
    MEMORY_INDEXES,   /* indexes, filters and frame tables of segments in use */
    MEMORY_ITERATORS, /* iterators over segments, and what they read ahead */
    MEMORY_MERGES,    /* buffers of flushes and merges */
    MEMORY_ROLES
};

struct block_cache_stats {
    uint64_t used_bytes;  /* all frames and charges, and slack */
    uint64_t slack_bytes; /* resident in the heap beyond frames and charges: free, or not charged */
    uint64_t frame_bytes, capacity_bytes, hits, misses, evictions;
    uint64_t charged_bytes[MEMORY_ROLES];
    uint64_t holders, holder_evictions;
    uint64_t filter_pages_damaged;
};

/* Makes the room for frames smaller. Any thread, outside sections. */
void block_cache_charge(struct block_cache *cache, enum memory_role role, uint64_t bytes);
void block_cache_discharge(struct block_cache *cache, enum memory_role role, uint64_t bytes);

/* `wanted` bytes for one more buffer of that role, or less where the budget is small: never
 * more than a 64th of it, nor than a quarter of what the role has left of an
 * eighth of it; but 32 KiB. */
uint64_t block_cache_buffer_bytes(const struct block_cache *cache, enum memory_role role, uint64_t wanted);

/* How many holders, each with a file open, are kept at most; at first there is no
 * limit. Before the cache is shared. */
void block_cache_limit_holders(struct block_cache *cache, uint64_t count);

/* Is there room for so many bytes of index and filter, without anything else having to go for it? */
bool block_cache_index_fits(struct block_cache *cache, uint64_t bytes);
/* Are fewer than half of the holders there that may be? */
bool block_cache_holder_fits(const struct block_cache *cache);
/* A page of a filter was damaged, and is done without. */
void block_cache_count_damaged(struct block_cache *cache);

/* Waits for the reclaimer if too much waits for it. Outside sections; with no
 * lock that the reclaimer may want. */
void block_cache_settle(struct block_cache *cache);

/* Evicts all holders, and returns when the files that nobody else uses are closed. Outside sections. */
void block_cache_shed_holders(struct block_cache *cache);

/* What nothing takes now: neither frames nor what is charged. */
uint64_t block_cache_room(const struct block_cache *cache);
void block_cache_get_stats(const struct block_cache *cache, struct block_cache_stats *out);

#endif
