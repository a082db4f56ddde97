/* SPDX-License-Identifier: MIT */
/*
 * The room's side of the block cache: what a frame is, and the table of frame
 * pointers that each segment keeps, indexed by data block number.
 *
 * Invariants
 *  I1 A slot holds NULL or a linked frame; it changes only under the cache's
 *     ring mutex, by CAS (link) or exchange (unlink). Lookups take no lock.
 *  I2 A linked frame is in the ring, and the link itself counts as one
 *     reference. Unlinking hands that reference to the reclaimer (eviction) or
 *     drops it at once (the segment is gone, so no section can see the slot).
 *  I3 `refs` alone decides when a frame is freed: whoever takes it to 0, be it
 *     the reclaimer or the last frame_unpin, frees it.
 *  I4 A frame's block and bytes never change after it was linked.
 *
 * Concurrency by role
 *  Readers: inside an epoch section, two acquire loads (chunk, slot).
 *  Loaders: hold the load mutex of (table, block) over the disk read, so that
 *     one block is read once; then link under the ring mutex.
 *  Evictors: loaders that find the cache over budget, under the ring mutex.
 * Lock order: load mutex, then ring mutex.
 */
#ifndef ESKER_SEGMENT_FRAME_TABLE_H
#define ESKER_SEGMENT_FRAME_TABLE_H

#include "format/block.h"
#include "segment/block_cache.h"
#include "sync/atomic.h"
#include "sync/epoch.h"
#include "sync/mutex.h"

enum { FRAME_CHUNK_SLOTS = 512 };

struct frame_ref {
    /* Two cache lines that every lookup reads. The block is immutable once linked. */
    struct block block;
    _Atomic uint8_t recent; /* the clock's bit; stored only when clear, so that hits do not dirty the line */
    /* A line that pins write. */
    CACHE_ALIGNED _Atomic uint32_t refs; /* pairs: FRAME_REFS */
    /* immutable once linked */
    struct block_cache *cache;
    uint64_t size_bytes; /* this struct and the data behind it */
    /* guarded by the cache's ring mutex; slot NULL = not linked */
    _Atomic(struct frame_ref *) *slot;
    struct frame_ref *ring_next, *ring_prev;
    /* owned by whoever unlinked it */
    struct epoch_node node;
};

_Static_assert(offsetof(struct frame_ref, recent) < 2 * CACHE_LINE_BYTES,
               "a lookup reads two lines of a frame");

struct frame_chunk {
    uint64_t size_bytes;
    _Atomic(struct frame_ref *) slots[];
};

struct frame_table {
    /* immutable after init */
    struct block_cache *cache;
    uint32_t block_count;
    uint32_t chunk_count;
    /* each NULL until a frame of the chunk is linked; pairs: FRAME_CHUNK */
    _Atomic(struct frame_chunk *) *chunks;
};

/* A frame with room for data_bytes (at frame_data, 64-aligned), pinned once
 * for the caller. NULL: no memory. */
struct frame_ref *frame_create(struct block_cache *cache, size_t data_bytes);

static inline uint8_t *
frame_data(struct frame_ref *frame)
{
    return (uint8_t *)frame + align_up(sizeof *frame, CACHE_LINE_BYTES);
}

/* Starts the misses of a lookup in the frame: its two lines and the
 * fingerprints, which follow the raw block's header. */
static inline void
frame_prefetch(struct frame_ref *frame)
{
    const uint8_t *data = frame_data(frame);
    PREFETCH_READ(frame);
    PREFETCH_READ((const uint8_t *)frame + CACHE_LINE_BYTES);
    PREFETCH_READ(data + CACHE_LINE_BYTES);
    PREFETCH_READ(data + 2 * CACHE_LINE_BYTES);
}

/* Marks a frame as used since the clock's hand passed. */
static inline void
frame_touch(struct frame_ref *frame)
{
    /* relaxed: a hint for the evictor; nothing is read through it. */
    if (load_relaxed(&frame->recent) == 0) {
        store_relaxed(&frame->recent, 1);
    }
}

NODISCARD esker_status frame_table_init(struct frame_table *table, struct block_cache *cache,
                                        uint32_t block_count);
/* Drops every frame; pinned ones live on until their last frame_unpin. No
 * reader may be inside the table. A zeroed table is fine. */
void frame_table_fini(struct frame_table *table);

/* Inside a section: the frame, usable until the section ends, or NULL. */
static inline struct frame_ref *
frame_table_get(const struct frame_table *table, uint32_t block_no)
{
    /* pairs: FRAME_CHUNK — the chunk's zeroed slots are seen before it is used. */
    struct frame_chunk *chunk = load_acquire(&table->chunks[block_no / FRAME_CHUNK_SLOTS]);
    if (UNLIKELY(chunk == NULL)) {
        return NULL;
    }
    /* pairs: FRAME_SLOT — the frame's block and bytes are seen before it is used. */
    return load_acquire(&chunk->slots[block_no % FRAME_CHUNK_SLOTS]);
}

/* Not inside a section: the frame, pinned, or NULL. */
struct frame_ref *frame_table_pin(const struct frame_table *table, uint32_t block_no);

/* Puts a frame that the caller has pinned into the table, evicting others as
 * the budget asks. Returns what the table now holds, pinned for the caller:
 * `frame`, or the one that was there before (`frame` is then unpinned). With
 * no memory for the table's chunk the frame stays unlinked. */
struct frame_ref *frame_table_link(struct frame_table *table, uint32_t block_no, struct frame_ref *frame);

/* Held while a block is read from disk, so that others wait for it instead of reading it too. */
struct mutex *frame_table_load_mutex(const struct frame_table *table, uint32_t block_no);

/* Memory of a segment that is not a frame: makes the room for frames smaller. */
void block_cache_charge(struct block_cache *cache, uint64_t bytes);
void block_cache_discharge(struct block_cache *cache, uint64_t bytes);

/* Statistics; threads share a stripe only beyond BLOCK_CACHE_STRIPES of them,
 * and may then lose a count. */
void block_cache_count_hit(struct block_cache *cache);
void block_cache_count_miss(struct block_cache *cache);

#endif
