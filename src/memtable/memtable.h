/* SPDX-License-Identifier: MIT */
/*
 * A window of the log, and the index over it: the memtable.
 *
 * The window's bytes are commit frames in log format (format/frame.h); the
 * index only points at the entries inside them. Point reads go through a
 * lock-free hash directory, ordered reads through an insert-only adaptive radix
 * tree (Leis, Kemper, Neumann, "The Adaptive Radix Tree", 2013; Leis et al.,
 * "The ART of Practical Synchronization", 2016, variant ROWEX). Nothing is freed
 * before the whole window is.
 *
 * Invariants
 *  I1 Versions of one key form a chain from newest to oldest LSN.
 *  I2 A reader at S finds every version with LSN < S, because S was read from
 *     `visible`, which passed those frames only after they were indexed. What a
 *     reader finds with LSN >= S it must skip.
 *  I3 Every anchor (first vnode of a key) whose key has a version below
 *     `visible` is in the tree: whoever chains behind a vnode with a later LSN
 *     inserts the anchor into the tree itself.
 *  I4 Index space is bounded by the reservation: `ops` entries need at most
 *     memtable_index_bytes(ops).
 *
 * Concurrency
 *  Writers: any number, each inserting entries of frames it reserved.
 *  Readers: wait-free; no lock, no retry, no shared write.
 *
 * LSN of the entry at byte offset o of the window = base_lsn + o / 8.
 */
#ifndef ESKER_MEMTABLE_MEMTABLE_H
#define ESKER_MEMTABLE_MEMTABLE_H

#include "base/buf.h"
#include "base/bytes.h"
#include "io/io.h"
#include "iter/iter.h"
#include "sync/atomic.h"

struct memtable; /* hash directory + radix tree + vnodes */

/* What the index of `op_count` entries may take, in bytes of page memory reserved. */
uint64_t memtable_index_bytes(uint32_t op_count);

enum { MEMTABLE_OPS_MAX = (1 << 24) - 2 - 1024 }; /* vnodes are counted in 24 bits; some are left over */

/* An empty index over `data` (a window's bytes, 8-aligned, address fixed for
 * the memtable's life), for at most op_capacity entries. hash_seed: secret and
 * random per open, so that keys cannot be chosen to collide. */
NODISCARD esker_status memtable_create(struct io *io, const uint8_t *data, uint64_t data_bytes,
                                       uint64_t base_lsn, uint32_t op_capacity, uint64_t hash_seed,
                                       struct memtable **out);
void memtable_destroy(struct memtable *table);

/* What of an insertion does not wait for the entry to be in the window. */
struct memtable_way {
    uint64_t hash;
    _Atomic uint32_t *lock, *slot; /* of the tree */
    size_t depth;
};

/* Starts an insertion's cache misses; may_be_new, a guess: also those of a key that is not in the table. */
struct memtable_way memtable_approach(const struct memtable *table, struct bytes key, bool may_be_new);

/* Indexes the entry at byte offset `offset` of the window (its bytes complete);
 * way: what memtable_approach found for its key, any time before.
 * stripe: a number that few other threads have (thread_state); threads of different
 * stripes do not get into each other's way.
 * True: the key was new. Cannot fail: space was reserved. The caller publishes afterwards. */
bool memtable_insert(struct memtable *table, uint64_t offset, const struct memtable_way *way,
                     uint32_t stripe);

/* All entries of one BATCH frame body that starts at byte offset body_offset:
 * prefetches the directory lines first. */
void memtable_insert_batch(struct memtable *table, uint64_t body_offset, uint64_t body_bytes,
                           uint32_t stripe);

/* Makes index memory present that `op_count` entries will take; `most` is how
 * many there may come to be in all. One caller at a time; only a hint. */
void memtable_populate(struct memtable *table, uint64_t op_count, uint64_t most);

struct memtable_hit {
    const uint8_t *entry; /* format/log_format.h, in the window */
    uint64_t lsn;
};

static inline uint64_t memtable_hash(struct bytes key, uint64_t hash_seed);

/* The newest version of key with LSN < snapshot_lsn; false if there is none.
 * hash = memtable_hash(key, seed). Wait-free. */
bool memtable_get(const struct memtable *table, struct bytes key, uint64_t hash, uint64_t snapshot_lsn,
                  struct memtable_hit *hit_out);
/* Starts the cache miss of a later memtable_get. */
void memtable_prefetch(const struct memtable *table, uint64_t hash);

/* Every version with LSN < limit_lsn, in iterator order. The memtable must
 * outlive it. keys and values point into the window. */
NODISCARD esker_status memtable_iter_create(const struct memtable *table, uint64_t limit_lsn,
                                            const struct mem *mem, struct iter **out);

/* ---- Dead ranges (dead.h) --------------------------------------------------- */

/* The LSN at which whatever is reserved next will stand at least, taken by a
 * read-modify-write on the word that reservations are made on, acquire and release. */
typedef uint64_t memtable_tail_fn(void *ctx);

/* Is `key` in a range in which a reader at lsn sees nothing, neither here nor in what
 * is older? Then *to is where that ends: its end, exclusive, or its start. */
bool memtable_dead_find(struct memtable *table, struct bytes key, uint64_t lsn, bool backward,
                        struct buf *to);
/* A reader at lsn, which sees everything that is older than this memtable, has walked
 * over [from, to) of all rows here and in what is older, and seen nothing. */
void memtable_dead_note(struct memtable *table, struct bytes from, struct bytes to, uint64_t lsn,
                        memtable_tail_fn *tail, void *ctx);

/* `table`, which nobody has yet, begins where `older` ends, and goes on with its ranges. */
void memtable_dead_inherit(struct memtable *table, struct memtable *older);
/* Everything in `older` is visible: from now on what was inherited from it counts. */
void memtable_dead_settle(struct memtable *table, struct memtable *older);

uint64_t memtable_used_bytes(const struct memtable *table); /* index memory touched so far */
/* The same as the machine sees it: whole pages, huge ones where they are, and what was populated. */
uint64_t memtable_resident_bytes(const struct memtable *table);
/* What that will about be with op_count entries. */
uint64_t memtable_expected_bytes(const struct memtable *table, uint64_t op_count);

#include "base/hash.h"

static inline uint64_t
memtable_hash(struct bytes key, uint64_t hash_seed)
{
    return hash64(key.ptr, key.len, hash_seed);
}

#endif
