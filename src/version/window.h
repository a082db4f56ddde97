/* SPDX-License-Identifier: MIT */
/*
 * A window: the part of the log that is in memory. Writers reserve space in it
 * with one atomic add, copy a frame, index its entries, and make it visible when
 * everything before it is; or mark it applied, and then whoever moves `visible`
 * up to it moves it on (db/db_visible.c).
 *
 * Invariants
 *  I1 tail counts reserved granules (low 32 bits, 16 bytes each) and reserved
 *     entries (high 32 bits). The one reservation that first exceeds either
 *     capacity is the straddler; it fills the rest with a PAD frame. Nothing is
 *     published by the tail: what stands in a frame is, by `visible` or by its
 *     applied bit (I2).
 *  I2 A frame's applied bit is set after its bytes, its copy in the mapped log
 *     and its index entries are complete; nothing of it changes afterwards. Frames
 *     that became visible when they were complete have none: the line of the bits
 *     would go back and forth between the writers.
 *  I3 Frames tile [base_lsn, end_lsn) without gaps once all are visible.
 *  I4 starts[i] is where the first frame begins that begins in stretch i; 0 if none
 *     does. It is noted with the frame before that one.
 *
 * Concurrency: any number of writers and readers; the memory lives while a
 * version refers to it.
 */
#ifndef ESKER_VERSION_WINDOW_H
#define ESKER_VERSION_WINDOW_H

#include "memtable/memtable.h"
#include "segment/block_cache.h"
#include "sync/mutex.h"
#include "wal/log_file.h"

/* The frame memory of one window that was freed, for the next one of that size: what was touched
 * once need not be made present, and zeroed, again. Charged as it was in the window. */
struct window_spare {
    struct mutex mutex;
    uint8_t *data; /* nullable; guarded */
    uint64_t bytes, charged_bytes;
    uint64_t wanted_bytes; /* 0: nothing is; guarded */
};

struct window {
    /* immutable after creation */
    struct io *io;
    const struct mem *mem;
    uint8_t *data;
    uint64_t cap_bytes;
    uint64_t base_lsn, end_lsn; /* end_lsn = base + cap / 8, or where recovery ended it */
    uint64_t rows_lsn;          /* no row has a smaller LSN: base_lsn, or more where recovery saw none */
    uint64_t gen;
    uint64_t file_seed;
    uint32_t op_cap;
    bool small_pages;  /* in any case */
    bool recovered;    /* its rows become durable by a flush, not by a sync */
    bool deletes_only; /* made from the reserve: writes of deletes alone are let in */
    struct memtable *table;
    struct block_cache *budget; /* nullable: where its memory is charged */
    struct window_spare *spare; /* nullable: gets `data` when the window is freed */
    _Atomic uint64_t charged_bytes;
    uint8_t *map;            /* the log file's frame space as shared memory, or NULL; owned by log */
    uint64_t recycled_bytes; /* of data, present since an earlier window; not zeros */
    /* written by whoever populates: one thread at a time */
    _Atomic uint64_t populated_bytes;
    /* guarded by the database's mutex */
    struct log_file *log; /* NULL once it went back to the pool */
    uint32_t log_pins;    /* leaders that write or sync it */
    bool log_released;    /* flushed: back to the pool when log_pins is 0 */
    /* atomic */
    _Atomic uint64_t
        tail CACHE_ALIGNED; /* {entries:32, granules:32}, hands out space (I1); pairs: DEAD_TAIL */
    _Atomic bool deletes;   /* a hint: somebody deleted something in it */
    _Atomic uint32_t refs CACHE_ALIGNED; /* pairs: WINDOW_REFS */
    _Atomic uint64_t *applied;           /* pairs: APPLIED; one bit per 16-byte granule */
    _Atomic uint32_t *starts;            /* granules; relaxed: read below `visible` alone */
};

enum { WINDOW_GRANULE = 16, WINDOW_STRETCH_BYTES = 16 << 10, WINDOW_PREFETCH_BYTES = 256 };

static inline uint64_t
window_tail(uint64_t op_count, uint64_t bytes)
{
    return op_count << 32 | bytes / WINDOW_GRANULE;
}

static inline uint64_t
window_tail_bytes(uint64_t tail)
{
    return (tail & 0xffffffffU) * WINDOW_GRANULE;
}

static inline uint64_t
window_tail_ops(uint64_t tail)
{
    return tail >> 32;
}

/* ---- Reserving (I1) --------------------------------------------------------- */

enum window_room {
    WINDOW_TAKEN,    /* [offset, offset + bytes) is the caller's */
    WINDOW_STRADDLE, /* too little was left: the caller, alone, fills [offset, cap) */
    WINDOW_FULL
};

static inline bool
window_tail_is_full(const struct window *window, uint64_t tail)
{
    return window_tail_bytes(tail) > window->cap_bytes || window_tail_ops(tail) > window->op_cap;
}

static inline bool
window_is_full(const struct window *window)
{
    /* relaxed: nothing is read because of it but the tail itself. */
    return window_tail_is_full(window, load_relaxed(&window->tail));
}

/* Where it may well be full window_reserve is to be preferred: each add to a full one is useless. */
static inline enum window_room
window_take(struct window *window, uint32_t op_count, uint64_t bytes, uint64_t *offset_out)
{
    /* pairs: DEAD_TAIL (both ends) — else only uniqueness matters. */
    uint64_t tail = add_acq_rel(&window->tail, window_tail(op_count, bytes));
    uint64_t offset = window_tail_bytes(tail);
    *offset_out = offset;
    if (offset + bytes <= window->cap_bytes && window_tail_ops(tail) + op_count <= window->op_cap) {
        return WINDOW_TAKEN;
    }
    return window_tail_is_full(window, tail) ? WINDOW_FULL : WINDOW_STRADDLE;
}

static inline enum window_room
window_reserve(struct window *window, uint32_t op_count, uint64_t bytes, uint64_t *offset_out)
{
    return window_is_full(window) ? WINDOW_FULL : window_take(window, op_count, bytes, offset_out);
}

/* For frames without entries that need not be written: takes nothing where they do not fit. */
static inline bool
window_reserve_if_fits(struct window *window, uint64_t bytes, uint64_t *offset_out)
{
    uint64_t tail = load_relaxed(&window->tail); /* relaxed: the CAS decides */
    while (window_tail_bytes(tail) + bytes <= window->cap_bytes && !window_tail_is_full(window, tail)) {
        /* relaxed: only uniqueness matters. */
        if (cas_relaxed(&window->tail, &tail, tail + window_tail(0, bytes))) {
            *offset_out = window_tail_bytes(tail);
            return true;
        }
    }
    return false;
}

/* Gets the lines of a frame that is about to be written. Those at its ends were just
 * written to by others. */
static inline void
window_prefetch(const struct window *window, uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + MIN(bytes, (uint64_t)WINDOW_PREFETCH_BYTES);
    for (uint64_t at = offset; at < end; at += CACHE_LINE_BYTES) {
        prefetch_own(window->data + at);
        if (window->map != NULL) {
            prefetch_own(window->map + at);
        }
    }
}

/* ---- Life ------------------------------------------------------------------- */

/* How many entries a window of cap_bytes is made for. */
uint32_t window_op_capacity(uint64_t cap_bytes);
/* Page memory one window may come to use, index included. */
uint64_t window_bytes_max(uint64_t cap_bytes, uint32_t op_cap);

/* data: cap_bytes of page memory from io->ops->map_memory, taken over (also on
 * failure when not NULL); NULL: allocated here. Its memory is charged to budget
 * (nullable), at first nothing. One reference. */
NODISCARD esker_status window_create(struct io *io, const struct mem *mem, struct block_cache *budget,
                                     uint8_t *data, uint64_t cap_bytes, uint64_t base_lsn, uint32_t op_cap,
                                     uint64_t hash_seed, struct window **out);
/* The same with the spare memory, if it is as large (then it holds what was in it), and the memory goes
 * back there. The spare outlives its windows. */
NODISCARD esker_status window_create_spare(struct io *io, const struct mem *mem, struct block_cache *budget,
                                           struct window_spare *spare, uint64_t cap_bytes, uint64_t base_lsn,
                                           uint32_t op_cap, uint64_t hash_seed, struct window **out);
void window_spare_init(struct window_spare *spare);
/* What is kept goes, and nothing is kept until the next window_create_spare. */
void window_spare_drop(struct window_spare *spare, struct io *io, struct block_cache *budget);
/* No window is left, and what was kept was dropped. */
void window_spare_fini(struct window_spare *spare);
/* Charges so much instead of what was charged before, until it is freed. Outside
 * sections and locks. */
void window_charge(struct window *window, uint64_t bytes);
/* The same, but never less than what is charged. */
void window_charge_more(struct window *window, uint64_t bytes);
/* Its memory that is present, with the first `bytes` of it filled, index and bitmap included. */
uint64_t window_resident_bytes(const struct window *window, uint64_t bytes);
/* What that will about be when it is full. bytes_per_op: what to expect of entries; 0 = as
 * many as it is made for. */
uint64_t window_expected_bytes(const struct window *window, uint64_t bytes_per_op);
void window_ref(struct window *window);
/* The last one frees the memory; the log file must have gone back to the pool or is destroyed here. */
void window_unref(struct window *window);

/* Makes the memory of the first `upto_bytes` present, and of the index as far as
 * it will be needed for them, so that writers meet no page faults between
 * reserving and applying. bytes_per_op: what to expect. map: the mapped log too.
 * One caller at a time, on a window that the caller refers to; only a hint. */
void window_populate(struct window *window, uint64_t upto_bytes, uint64_t bytes_per_op, bool map);
/* What an entry took so far, frame and all; 0 = too few to tell. */
uint64_t window_bytes_per_op(const struct window *window);

/* I2: marks the frame at byte offset `offset`. */
void window_set_applied(struct window *window, uint64_t offset);
bool window_is_applied(const struct window *window, uint64_t offset);

/* I4: a frame takes [offset, end). By its writer, before it is applied. */
static inline void
window_note_frame(struct window *window, uint64_t offset, uint64_t end)
{
    if (UNLIKELY(offset / WINDOW_STRETCH_BYTES != end / WINDOW_STRETCH_BYTES) && end < window->cap_bytes) {
        /* relaxed: who looks for it has seen the frame visible. */
        store_relaxed(&window->starts[end / WINDOW_STRETCH_BYTES], (uint32_t)(end / WINDOW_GRANULE));
    }
}

/* The caller has seen everything below `offset` visible. The greatest boundary of frames
 * that is not behind it; and where the last BATCH below it ends, 0 = there is none. */
uint64_t window_boundary(const struct window *window, uint64_t offset);
uint64_t window_batches_end(const struct window *window, uint64_t offset);

/* memtable_dead_find and _note of the newest window that a reader at lsn has. */
bool window_dead_find(struct window *window, struct bytes key, uint64_t lsn, bool backward, struct buf *to);
void window_dead_note(struct window *window, struct bytes from, struct bytes to, uint64_t lsn);

static inline uint64_t
window_frame_bytes(const struct window *window, uint64_t offset)
{
    return (uint64_t)le32_load(window->data + offset) * FRAME_GRANULE;
}

/* Page memory of its frames and its index as of now; a statistic. */
static inline uint64_t
window_used_bytes(const struct window *window)
{
    uint64_t tail = load_relaxed(&window->tail); /* relaxed: statistic */
    return MIN(window_tail_bytes(tail), window->cap_bytes) + memtable_used_bytes(window->table);
}

static inline uint64_t
window_lsn(const struct window *window, uint64_t offset)
{
    return window->base_lsn + offset / LSN_BYTES;
}

#endif
