/* SPDX-License-Identifier: MIT */
#include "memtable/hashdir.h"

/* At most 3/4 full, a power of two, at least one bucket. */
static uint64_t
hashdir_slot_count(uint32_t op_capacity)
{
    uint64_t needed = ((uint64_t)op_capacity * 4 + 2) / 3;
    uint64_t count = HASHDIR_BUCKET_SLOTS;
    while (count < needed) {
        count *= 2;
    }
    return count;
}

uint64_t
hashdir_bytes(uint32_t op_capacity)
{
    return hashdir_slot_count(op_capacity) * sizeof(uint64_t);
}

void
hashdir_init(struct hashdir *dir, void *slots, uint32_t op_capacity)
{
    ASSERT(((uintptr_t)slots & (CACHE_LINE_BYTES - 1)) == 0);
    dir->slots = (_Atomic uint64_t *)slots;
    dir->bucket_mask = hashdir_slot_count(op_capacity) / HASHDIR_BUCKET_SLOTS - 1;
}

uint64_t
hashdir_find(const struct hashdir *dir, const struct vnodes *vnodes, struct bytes key, uint64_t hash)
{
    uint64_t slot_mask = (dir->bucket_mask + 1) * HASHDIR_BUCKET_SLOTS - 1;
    uint64_t at = hashdir_first_slot(dir, hash);
    for (;;) {
        uint64_t word = load_acquire(&dir->slots[at]); /* pairs: HASHDIR_SLOT */
        if (word == 0 || hashdir_word_is(vnodes, word, hash, key)) {
            return word;
        }
        at = (at + 1) & slot_mask;
    }
}

/* Puts `index` into the list behind vnode `newer`, at its place by LSN. */
static void
hashdir_link_behind(const struct vnodes *vnodes, uint32_t newer, uint32_t index)
{
    uint32_t entry = vnodes->array[index].entry;
    _Atomic uint32_t *link = &vnodes->array[newer].prev;
    uint32_t next = load_acquire(link); /* pairs: VNODE_PREV */
    for (;;) {
        if (next != 0 && vnodes->array[next].entry > entry) {
            link = &vnodes->array[next].prev;
            next = load_acquire(link); /* pairs: VNODE_PREV */
            continue;
        }
        ASSERT(next == 0 || vnodes->array[next].entry != entry);
        /* relaxed: not linked yet; the CAS publishes it. */
        store_relaxed(&vnodes->array[index].prev, next);
        ESKER_RACE_POINT("hashdir_link_behind");
        if (cas_release(link, &next, index)) { /* pairs: VNODE_PREV */
            return;
        }
    }
}

/* Links `index` into the list of the key whose slot holds `word`. Returns the anchor. */
static uint32_t
hashdir_link_known(const struct vnodes *vnodes, _Atomic uint64_t *slot, uint64_t word, uint64_t hash,
                   uint32_t index)
{
    struct vnode *vnode = &vnodes->array[index];
    for (;;) {
        uint32_t newest = hashdir_word_vnode(word);
        uint32_t newest_entry = vnodes->array[newest].entry;
        ASSERT(newest_entry != vnode->entry);
        vnode->anchor = vnodes->array[newest].anchor;
        if (newest_entry > vnode->entry) {
            hashdir_link_behind(vnodes, newest, index);
            return vnode->anchor;
        }
        /* relaxed: not linked yet; the CAS publishes it. */
        store_relaxed(&vnode->prev, newest);
        ESKER_RACE_POINT("hashdir_link_known");
        if (cas_release(slot, &word, hashdir_word(hash, vnode->entry, index))) { /* pairs: HASHDIR_SLOT */
            return vnode->anchor;
        }
    }
}

uint32_t
hashdir_link(const struct hashdir *dir, const struct vnodes *vnodes, struct bytes key, uint64_t hash,
             uint32_t index)
{
    struct vnode *vnode = &vnodes->array[index];
    uint64_t slot_mask = (dir->bucket_mask + 1) * HASHDIR_BUCKET_SLOTS - 1;
    uint64_t first = hashdir_first_slot(dir, hash);
    for (uint64_t step = 0; step <= slot_mask; step++) {
        _Atomic uint64_t *slot = &dir->slots[(first + step) & slot_mask];
        uint64_t word = load_acquire(slot); /* pairs: HASHDIR_SLOT */
        if (word == 0) {
            vnode->anchor = index;
            /* relaxed: not linked yet; the CAS publishes them. */
            store_relaxed(&vnode->prev, 0);
            store_relaxed(&vnode->head, index); /* relaxed: likewise */
            ESKER_RACE_POINT("hashdir_link_new");
            if (cas_release(slot, &word, hashdir_word(hash, vnode->entry, index))) { /* pairs: HASHDIR_SLOT */
                return index;
            }
        }
        if (hashdir_word_is(vnodes, word, hash, key)) {
            uint32_t anchor = hashdir_link_known(vnodes, slot, word, hash, index);
            ESKER_RACE_POINT("hashdir_before_head");
            vnode_raise_head(vnodes, anchor, index);
            return anchor;
        }
    }
    UNREACHABLE(); /* at most 3/4 of the slots are ever taken */
}
