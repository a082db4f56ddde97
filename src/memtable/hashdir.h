/* SPDX-License-Identifier: MIT */
/*
 * A lock-free hash directory from keys to their newest version. Slots of 8
 * bytes in buckets of one cache line, linear probing from the first slot of a
 * bucket to the next buckets; sized so that at most 3/4 of the slots fill. Private
 * to this room.
 *
 *   slot   63..48 tag (the hash's top bits) | 47..24 entry granule | 23..0 vnode
 *          0 = empty. A granule that does not fit is stored as 0xFFFFFF and
 *          read from the vnode.
 *
 * Invariants
 *  I1 A slot goes from empty to a key once and stays with that key; later
 *     stores only put a newer version of it. So a probe may end at the first
 *     empty slot, and a key never has two slots: a writer fills a slot by CAS
 *     from empty and looks again when it lost.
 *  I2 What a slot names is complete: entry, vnode.entry and vnode.anchor.
 *  I3 Entries grow within a slot. A version that is not the newest goes into
 *     the list behind the slot's vnode instead, at its place by LSN.
 *
 * Concurrency: any number of writers and readers. A reader takes one pass and
 * never waits; a writer's retries mean that another writer's step succeeded.
 */
#ifndef ESKER_MEMTABLE_HASHDIR_H
#define ESKER_MEMTABLE_HASHDIR_H

#include "memtable/vnode.h"

enum {
    HASHDIR_BUCKET_SLOTS = 8,
    HASHDIR_ENTRY_SATURATED = (1 << 24) - 1,
    HASHDIR_VNODE_MASK = (1 << 24) - 1,
    HASHDIR_TAG_SHIFT = 48,
    HASHDIR_ENTRY_SHIFT = 24
};

struct hashdir {
    /* immutable */
    _Atomic uint64_t *slots; /* pairs: HASHDIR_SLOT; 64-aligned */
    uint64_t bucket_mask;    /* bucket count - 1 */
};

/* Slot memory for op_capacity keys. */
uint64_t hashdir_bytes(uint32_t op_capacity);
/* slots: hashdir_bytes(op_capacity) zeroed bytes, 64-aligned. */
void hashdir_init(struct hashdir *dir, void *slots, uint32_t op_capacity);

static inline uint64_t
hashdir_word(uint64_t hash, uint32_t entry, uint32_t vnode)
{
    uint64_t packed = MIN(entry, (uint32_t)HASHDIR_ENTRY_SATURATED);
    return (hash >> HASHDIR_TAG_SHIFT << HASHDIR_TAG_SHIFT) | packed << HASHDIR_ENTRY_SHIFT | vnode;
}

static inline uint32_t
hashdir_word_vnode(uint64_t word)
{
    return (uint32_t)word & HASHDIR_VNODE_MASK;
}

/* The newest version's granule. */
static inline uint32_t
hashdir_word_entry(const struct vnodes *vnodes, uint64_t word)
{
    uint32_t packed = (uint32_t)(word >> HASHDIR_ENTRY_SHIFT) & HASHDIR_ENTRY_SATURATED;
    if (UNLIKELY(packed == HASHDIR_ENTRY_SATURATED)) {
        return vnodes->array[hashdir_word_vnode(word)].entry;
    }
    return packed;
}

static inline bool
hashdir_word_is(const struct vnodes *vnodes, uint64_t word, uint64_t hash, struct bytes key)
{
    if (word >> HASHDIR_TAG_SHIFT != hash >> HASHDIR_TAG_SHIFT) {
        return false;
    }
    const uint8_t *entry = vnode_entry_at(vnodes, hashdir_word_entry(vnodes, word));
    PREFETCH_READ(entry + CACHE_LINE_BYTES); /* the value, most likely: comes with the key */
    return bytes_equal(entry_key_trusted(entry), key);
}

static inline uint64_t
hashdir_first_slot(const struct hashdir *dir, uint64_t hash)
{
    return (hash & dir->bucket_mask) * HASHDIR_BUCKET_SLOTS;
}

static inline const void *
hashdir_bucket(const struct hashdir *dir, uint64_t hash)
{
    return (const void *)(uintptr_t)&dir->slots[hashdir_first_slot(dir, hash)]; /* the cast drops _Atomic */
}

static inline void
hashdir_prefetch(const struct hashdir *dir, uint64_t hash)
{
    PREFETCH_READ(&dir->slots[hashdir_first_slot(dir, hash)]);
    __asm__ volatile(""); /* gcc takes a function of prefetches for one without effect and drops its calls */
}

/* The word of the key's slot; 0 = the key has none. */
uint64_t hashdir_find(const struct hashdir *dir, const struct vnodes *vnodes, struct bytes key,
                      uint64_t hash);

/* Links vnode `index` (its entry set, everything else open) as a version of
 * `key`. Returns the key's anchor; `index` itself when the key is new. */
uint32_t hashdir_link(const struct hashdir *dir, const struct vnodes *vnodes, struct bytes key, uint64_t hash,
                      uint32_t index);

#endif
