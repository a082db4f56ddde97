/* SPDX-License-Identifier: MIT */
/*
 * The room's side of the block cache: what a frame is, and the table of frame
 * pointers that each segment keeps, indexed by data block number.
 *
 * Invariants
 *  I1 A slot holds a linked frame, or 0, or a note about its block (an odd
 *     number): when it was missed or evicted, and half of the checksum that its
 *     bytes had when they passed all checks. Frames come and go only under the cache's ring mutex,
 *     by CAS (link) or exchange (unlink); a note is left without it, by a CAS
 *     that never replaces a frame. Lookups take no lock.
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
    uint32_t checked;    /* half of the checksum of the stored bytes, for the note when it goes */
    uint64_t size_bytes; /* this struct and the data behind it */
    /* guarded by the cache's ring mutex; slot NULL = not linked */
    _Atomic uintptr_t *slot;
    struct frame_ref *ring_next, *ring_prev;
    /* owned by whoever unlinked it */
    struct epoch_node node;
};

_Static_assert(offsetof(struct frame_ref, recent) < 2 * CACHE_LINE_BYTES,
               "a lookup reads two lines of a frame");

/* What a segment keeps in memory beside its frames, and its open file. */
struct cache_holder {
    _Atomic uint8_t recent; /* the clock's bit */
    /* guarded by the cache's ring mutex; next NULL = not in the ring */
    struct cache_holder *next, *prev;
    uint64_t bytes; /* what it takes; set before it is added */
    bool can_page;  /* set before it is added: what it takes could be frames instead */
    /* Called with the ring mutex held: somebody holds on to it. A hint. */
    bool (*in_use)(struct cache_holder *holder);
    /* Called with the ring mutex held: makes the holder unreachable for new
     * users and retires it; its free then calls cache_holder_retired. False: its
     * owner was faster, and does all that. */
    bool (*evict)(struct cache_holder *holder);
};

/* Puts a holder into the ring and evicts others as their share asks. */
void cache_holder_add(struct block_cache *cache, struct cache_holder *holder);
/* Takes it out, if it is in: after that evict is not called any more. */
void cache_holder_remove(struct block_cache *cache, struct cache_holder *holder);

void cache_holder_retired(struct block_cache *cache, uint64_t bytes);

/* Marks a holder as used since the clock's hand passed. */
static inline void
cache_holder_touch(struct cache_holder *holder)
{
    /* relaxed: a hint for the evictor; nothing is read through it. */
    if (load_relaxed(&holder->recent) == 0) {
        store_relaxed(&holder->recent, 1);
    }
}

struct frame_chunk {
    uint64_t size_bytes;
    _Atomic uintptr_t slots[];
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

/* Starts the misses of a lookup in the frame: its two lines and the first so many of
 * the raw block, which begins with what a lookup compares. The data may end before. */
static inline void
frame_prefetch(struct frame_ref *frame, uint32_t lines)
{
    const uint8_t *data = frame_data(frame);
    PREFETCH_READ(frame);
    PREFETCH_READ((const uint8_t *)frame + CACHE_LINE_BYTES);
    for (uint32_t line = 0; line < lines; line++) {
        PREFETCH_READ(data + (size_t)line * CACHE_LINE_BYTES);
    }
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
    uintptr_t held = load_acquire(&chunk->slots[block_no % FRAME_CHUNK_SLOTS]);
    return (held & 1) == 0 ? (struct frame_ref *)held : NULL;
}

/* Where the block's frame stands, or 0; not inside a section, so only to be prefetched. */
static inline uintptr_t
frame_table_address(const struct frame_table *table, uint32_t block_no)
{
    struct frame_chunk *chunk =
        load_acquire(&table->chunks[block_no / FRAME_CHUNK_SLOTS]); /* pairs: FRAME_CHUNK */
    /* relaxed: nothing is read through it. */
    uintptr_t held = chunk != NULL ? load_relaxed(&chunk->slots[block_no % FRAME_CHUNK_SLOTS]) : 0;
    return (held & 1) == 0 ? held : 0;
}

/* Not inside a section: is the block cached, and was it used since the clock's hand passed? */
bool frame_table_is_used(const struct frame_table *table, uint32_t block_no);

/* Not inside a section: the frame, pinned, or NULL. */
struct frame_ref *frame_table_pin(const struct frame_table *table, uint32_t block_no);

/* Whether a block of so many bytes, which was just missed, should be linked. While
 * the cache has room: yes. Then only a block that was missed before, and that not
 * longer ago than a cache's worth of other misses; for any other a note is left.
 * So what is read once passes by, without a lock, and does not push out what is
 * used. walk: the reader goes from block to block; it leaves no note. */
bool frame_table_admits(struct frame_table *table, uint32_t block_no, uint64_t bytes, bool walk);

/* A frame that has no slot yet: may it be kept? Then its bytes, said in *counted_out,
 * count as linked until they are released, which is before it is linked. used: for
 * what is in use others may go, up to BLOCK_CACHE_WARM_SHARE; else there must be room. */
bool block_cache_warm_admits(struct block_cache *cache, size_t data_bytes, bool used, uint64_t *counted_out);
void block_cache_warm_release(struct block_cache *cache, uint64_t counted);

/* What frame_table_checked says from now on, where the slot holds a note. */
void frame_table_set_checked(struct frame_table *table, uint32_t block_no, uint32_t checked);
/* Half of the checksum that the block had when it was checked last; 0: not known. */
uint32_t frame_table_checked(const struct frame_table *table, uint32_t block_no);

/* Puts a frame that the caller has pinned into the table, evicting others as
 * the budget asks. Returns what the table now holds, pinned for the caller:
 * `frame`, or the one that was there before (`frame` is then unpinned). With
 * no memory for the table's chunk the frame stays unlinked. */
struct frame_ref *frame_table_link(struct frame_table *table, uint32_t block_no, struct frame_ref *frame);

/* Held while a block is read from disk, so that others wait for it instead of reading it too. */
struct mutex *frame_table_load_mutex(const struct frame_table *table, uint32_t block_no);

/* Statistics; threads share a stripe only beyond BLOCK_CACHE_STRIPES of them,
 * and may then lose a count. */
void block_cache_count_hit(struct block_cache *cache);
void block_cache_count_miss(struct block_cache *cache);

#endif
