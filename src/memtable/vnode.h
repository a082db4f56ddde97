/* SPDX-License-Identifier: MIT */
/*
 * Version nodes: 16 bytes for every entry of a window, and the chains that
 * they form. Private to this room.
 *
 * The versions of one key are a list from newest to oldest LSN, linked by
 * `prev`. The vnode that came first (not the oldest: writers overtake each
 * other) is the key's anchor: it stands for the key in the radix tree, and its
 * `head` names the newest version that was linked completely.
 *
 * Invariants
 *  I1 A list only grows; following prev from a member reaches every member
 *     that is older, forever.
 *  I2 head is a member of the list and only moves to newer ones. Who links a
 *     version, wherever in the list, raises head to it at least: a reader that
 *     was promised this version walks from head and so cannot miss it.
 *
 * Index 0 is no vnode; of a striped memtable's (share.h) a few are never used. An
 * entry's granule is its byte offset in the window divided by 8, so it orders like
 * the LSN.
 */
#ifndef ESKER_MEMTABLE_VNODE_H
#define ESKER_MEMTABLE_VNODE_H

#include "base/assert.h"
#include "format/log_format.h"
#include "memtable/share.h"

struct vnode {
    uint32_t entry;        /* granule; immutable once linked */
    _Atomic uint32_t prev; /* the next older version; 0 = none; pairs: VNODE_PREV */
    uint32_t anchor;       /* immutable once linked */
    _Atomic uint32_t head; /* the anchor's only; pairs: VNODE_HEAD */
};

_Static_assert(sizeof(struct vnode) == 16, "a vnode is 16 bytes");

enum { VNODE_STRETCH = 16 }; /* four lines */

struct vnodes {
    /* immutable */
    struct vnode *array; /* count_max + 1; [0] unused */
    const uint8_t *data; /* the window */
    uint32_t count_max;
    struct shares *shares; /* SHARE_STRIPES of them; NULL: not striped */
    /* atomic */
    _Atomic uint64_t used CACHE_ALIGNED; /* relaxed: hands out numbers, publishes nothing */
};

/* The first of `count` vnodes in a row. */
static inline uint32_t
vnode_take(struct vnodes *vnodes, uint32_t count, uint32_t stripe)
{
    uint32_t taken;
    if (count == 1 && vnodes->shares != NULL &&
        share_take(&vnodes->shares[stripe % SHARE_STRIPES].vnodes, &vnodes->used, 1, 1, VNODE_STRETCH,
                   &taken)) {
        ASSERT(taken < vnodes->count_max);
        return taken + 1;
    }
    /* relaxed: only uniqueness matters; whoever links the vnode publishes it. */
    uint64_t before = add_relaxed(&vnodes->used, count);
    ASSERT(before <= vnodes->count_max && count <= vnodes->count_max - before);
    return (uint32_t)before + 1;
}

static inline const uint8_t *
vnode_entry_at(const struct vnodes *vnodes, uint32_t granule)
{
    return vnodes->data + (uint64_t)granule * LSN_BYTES;
}

static inline struct bytes
vnode_key(const struct vnodes *vnodes, uint32_t index)
{
    return entry_key_trusted(vnode_entry_at(vnodes, vnodes->array[index].entry));
}

/* The newest member of the list at and behind `index` with entry < limit; 0 = none. */
static inline uint32_t
vnode_older_than(const struct vnodes *vnodes, uint32_t index, uint64_t limit)
{
    while (index != 0 && vnodes->array[index].entry >= limit) {
        /* pairs: VNODE_PREV -- the older vnode is complete. */
        index = load_acquire(&vnodes->array[index].prev);
    }
    return index;
}

/* I2. `index` is linked already. */
static inline void
vnode_raise_head(const struct vnodes *vnodes, uint32_t anchor, uint32_t index)
{
    uint32_t entry = vnodes->array[index].entry;
    _Atomic uint32_t *head = &vnodes->array[anchor].head;
    uint32_t found = load_acquire(head); /* pairs: VNODE_HEAD */
    while (vnodes->array[found].entry < entry) {
        if (cas_release(head, &found, index)) { /* pairs: VNODE_HEAD */
            break;
        }
    }
}

#endif
