/* SPDX-License-Identifier: MIT */
/* Insertion. The tree's invariants and its space proof are in art.h. */
#include "memtable/art.h"

#include <sched.h>

enum { ART_LOCKED = 1, ART_OBSOLETE = 2, ART_SPINS = 128 };

enum { ART_FEW = 4096 }; /* nodes that are in the cache, most likely */

void
art_init(struct art *art, const struct vnodes *vnodes, struct index_arena *arena)
{
    art->vnodes = vnodes;
    art->arena = arena;
    atomic_init(&art->root, 0);
    atomic_init(&art->root_lock, 0);
}

/* False: the node is obsolete; what it led to is found from the root. */
static bool
art_lock(_Atomic uint32_t *lock)
{
    for (uint32_t spins = 1;; spins++) {
        uint32_t found = load_acquire(lock); /* pairs: ART_LOCK */
        if ((found & ART_OBSOLETE) != 0) {
            return false;
        }
        if (found == 0 && cas_acq_rel(lock, &found, ART_LOCKED)) { /* pairs: ART_LOCK */
            return true;
        }
        cpu_relax();
        if (spins % ART_SPINS == 0) {
            (void)sched_yield(); /* the owner may be preempted */
        }
    }
}

static void
art_unlock(_Atomic uint32_t *lock)
{
    store_release(lock, 0); /* pairs: ART_LOCK */
}

/* Locks the place if it still names `ref`. */
static bool
art_lock_place(const struct art_place *place, uint32_t ref)
{
    ESKER_RACE_POINT("art_lock_place");
    if (!art_lock(place->lock)) {
        return false;
    }
    /* relaxed: slots change only under the lock that is held now. */
    if (load_relaxed(place->slot) != ref) {
        art_unlock(place->lock);
        return false;
    }
    return true;
}

/* ---- Keys ----------------------------------------------------------------- */

/* Key bytes [level - 8, level), the last one lowest; zeros before the key's start. */
static uint64_t
art_tail(const uint8_t *key, size_t level)
{
    if (LIKELY(level >= sizeof(uint64_t))) {
        return bytes_prefix64(key + level - sizeof(uint64_t), sizeof(uint64_t));
    }
    uint64_t word = 0;
    for (size_t i = 0; i < level; i++) {
        word = word << 8 | key[i];
    }
    return word;
}

/* The first depth in [from, until] at which a and b differ; `until` if none. */
static size_t
art_differ(const uint8_t *a, const uint8_t *b, size_t from, size_t until)
{
    while (until - from >= sizeof(uint64_t)) {
        uint64_t diff = bytes_prefix64(a + from, 8) ^ bytes_prefix64(b + from, 8);
        if (diff != 0) {
            return from + (size_t)__builtin_clzll(diff) / 8;
        }
        from += sizeof(uint64_t);
    }
    while (from < until && a[from] == b[from]) {
        from++;
    }
    return from;
}

size_t
art_match(const struct art *art, const struct art_node *node, struct bytes key, size_t depth)
{
    size_t level = node->level;
    if (level == depth) {
        return depth;
    }
    if (LIKELY(key.len >= level && level - depth <= sizeof(uint64_t))) {
        uint64_t skipped = ~(uint64_t)0 >> (64 - 8 * (level - depth));
        uint64_t diff = (art_tail(key.ptr, level) ^ node->tail) & skipped;
        return diff == 0 ? level : level - 1 - (size_t)(63 - __builtin_clzll(diff)) / 8;
    }
    struct bytes other = vnode_key(art->vnodes, node->anyleaf);
    return art_differ(key.ptr, other.ptr, depth, MIN(level, key.len));
}

/* ---- Nodes ---------------------------------------------------------------- */

/* A number whose byte i has bit 7 set where byte i of `word` equals `byte`. */
static inline uint64_t
art_equal_bytes(uint64_t word, uint8_t byte)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7fULL;
    uint64_t diff = word ^ (0x0101010101010101ULL * byte);
    return ~(((diff & low) + low) | diff | low);
}

_Atomic uint32_t *
art_child(struct art_node *node, uint8_t byte)
{
    if (node->type == ART_NODE256) {
        _Atomic uint32_t *child = &((struct art_node256 *)node)->children[byte];
        /* relaxed: only whether there is one; who follows it loads it again. */
        return load_relaxed(child) != 0 ? child : NULL;
    }
    if (node->type == ART_NODE48) {
        struct art_node48 *node48 = (struct art_node48 *)node;
        /* pairs: ART_INDEX -- the child is in its place. */
        uint32_t place = (load_acquire(&node48->index[byte / 8]) >> (byte % 8 * 8)) & 0xff;
        return place != 0 ? &node48->children[place - 1] : NULL;
    }
    uint32_t count = load_acquire(&node->count); /* pairs: ART_COUNT */
    if (node->type == ART_NODE4) {
        struct art_node4 *node4 = (struct art_node4 *)node;
        /* relaxed: the first `count` bytes never change and were released by count. */
        uint64_t equal = art_equal_bytes(load_relaxed(&node4->bytes), byte) & 0xffffffffU;
        uint32_t at = equal != 0 ? (uint32_t)__builtin_ctzll(equal) / 8 : count;
        return at < count ? &node4->children[at] : NULL;
    }
    struct art_node16 *node16 = (struct art_node16 *)node;
    for (uint32_t half = 0; half < 2; half++) {
        /* relaxed: as above. */
        uint64_t equal = art_equal_bytes(load_relaxed(&node16->bytes[half]), byte);
        if (equal != 0) {
            uint32_t at = half * 8 + (uint32_t)__builtin_ctzll(equal) / 8;
            return at < count ? &node16->children[at] : NULL;
        }
    }
    return NULL;
}

static bool
art_is_full(const struct art_node *node)
{
    static const uint32_t cap[] = {
        [ART_NODE4] = 4, [ART_NODE16] = 16, [ART_NODE48] = 48, [ART_NODE256] = 257};
    /* relaxed: a full node stays full, a free place is looked for again under the lock. */
    return load_relaxed(&node->count) == cap[node->type];
}

/* Adds a child that is not there yet to a node that is not full. The node's
 * lock is held, or it is not linked yet. */
static void
art_put(struct art_node *node, uint8_t byte, uint32_t ref)
{
    if (node->type == ART_NODE256) {
        store_release(&((struct art_node256 *)node)->children[byte], ref); /* pairs: ART_CHILD */
        return;
    }
    /* relaxed: only the lock's holder changes count and bytes. */
    uint32_t at = load_relaxed(&node->count);
    if (node->type == ART_NODE48) {
        struct art_node48 *node48 = (struct art_node48 *)node;
        store_release(&node48->children[at], ref); /* pairs: ART_CHILD */
        _Atomic uint64_t *word = &node48->index[byte / 8];
        /* relaxed: as above. */
        store_release(word, load_relaxed(word) | (uint64_t)(at + 1) << (byte % 8 * 8)); /* pairs: ART_INDEX */
    } else if (node->type == ART_NODE4) {
        struct art_node4 *node4 = (struct art_node4 *)node;
        store_release(&node4->children[at], ref); /* pairs: ART_CHILD */
        /* relaxed: released by count; as above. */
        store_relaxed(&node4->bytes, load_relaxed(&node4->bytes) | (uint32_t)byte << at * 8);
    } else {
        struct art_node16 *node16 = (struct art_node16 *)node;
        store_release(&node16->children[at], ref); /* pairs: ART_CHILD */
        _Atomic uint64_t *word = &node16->bytes[at / 8];
        /* relaxed: released by count; as above. */
        store_relaxed(word, load_relaxed(word) | (uint64_t)byte << at % 8 * 8);
    }
    ESKER_RACE_POINT_HELD("art_put");
    store_release(&node->count, (uint8_t)(at + 1)); /* pairs: ART_COUNT */
}

static uint32_t
art_new_node(struct art *art, enum art_type type, size_t level, uint64_t tail, uint32_t anyleaf,
             uint32_t stripe)
{
    static const uint32_t size[] = {[ART_NODE4] = sizeof(struct art_node4),
                                    [ART_NODE16] = sizeof(struct art_node16),
                                    [ART_NODE48] = sizeof(struct art_node48),
                                    [ART_NODE256] = sizeof(struct art_node256)};
    uint32_t ref = index_arena_take(art->arena, size[type], stripe);
    struct art_node *node = art_node_at(art, ref);
    ASSERT_SLOW(load_relaxed(&node->count) == 0); /* relaxed: not linked yet */
    node->type = (uint8_t)type;
    node->level = (uint16_t)level;
    node->tail = tail;
    node->anyleaf = anyleaf;
    return ref;
}

/* A copy of the full `node` (locked) with room for more. */
static uint32_t
art_larger_copy(struct art *art, const struct art_node *node, uint32_t stripe)
{
    enum art_type type = (enum art_type)(node->type + 1);
    uint32_t ref = art_new_node(art, type, node->level, node->tail, node->anyleaf, stripe);
    struct art_node *larger = art_node_at(art, ref);
    /* relaxed: all that is read here changes only under the lock that is held,
     * and the copy is not linked yet. */
    store_relaxed(&larger->term, load_relaxed(&node->term));
    if (node->type == ART_NODE48) {
        const struct art_node48 *node48 = (const struct art_node48 *)node;
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t place =
                (load_relaxed(&node48->index[byte / 8]) >> (byte % 8 * 8)) & 0xff; /* relaxed: as above */
            if (place != 0) {
                art_put(larger, (uint8_t)byte,
                        load_relaxed(&node48->children[place - 1])); /* relaxed: as above */
            }
        }
        return ref;
    }
    for (uint32_t at = 0; at < (node->type == ART_NODE4 ? 4 : 16); at++) {
        const struct art_node4 *node4 = (const struct art_node4 *)node;
        const struct art_node16 *node16 = (const struct art_node16 *)node;
        if (node->type == ART_NODE4) {
            /* relaxed: as above */
            art_put(larger, (uint8_t)(load_relaxed(&node4->bytes) >> at * 8),
                    load_relaxed(&node4->children[at]));
        } else {
            /* relaxed: as above */
            art_put(larger, (uint8_t)(load_relaxed(&node16->bytes[at / 8]) >> at % 8 * 8),
                    load_relaxed(&node16->children[at])); /* relaxed: as above */
        }
    }
    return ref;
}

/* ---- Insertion ------------------------------------------------------------ */

/* Puts a node4 that branches at `level` between the place and the child `ref`
 * that it names, with leaf `index` beside it. `other` is any key under `ref`. */
static bool
art_branch(struct art *art, const struct art_place *place, uint32_t ref, struct bytes other, struct bytes key,
           size_t level, uint32_t index, uint32_t stripe)
{
    if (!art_lock_place(place, ref)) {
        return false;
    }
    uint32_t branch = art_new_node(art, ART_NODE4, level, art_tail(key.ptr, level), index, stripe);
    struct art_node *node = art_node_at(art, branch);
    if (level == other.len) {
        store_release(&node->term, ref); /* pairs: ART_TERM */
    } else {
        art_put(node, other.ptr[level], ref);
    }
    if (level == key.len) {
        store_release(&node->term, ART_LEAF | index); /* pairs: ART_TERM */
    } else {
        art_put(node, key.ptr[level], ART_LEAF | index);
    }
    ESKER_RACE_POINT_HELD("art_branch");
    store_release(place->slot, branch); /* pairs: ART_CHILD */
    art_unlock(place->lock);
    return true;
}

/* The key ends at the node's level. */
static bool
art_set_term(struct art_node *node, uint32_t leaf)
{
    if (load_acquire(&node->term) == leaf) { /* pairs: ART_TERM */
        return true;
    }
    ESKER_RACE_POINT("art_set_term");
    if (!art_lock(&node->lock)) {
        return false;
    }
    /* relaxed: changes only under the lock that is held. */
    uint32_t found = load_relaxed(&node->term);
    ASSERT(found == 0 || found == leaf);
    store_release(&node->term, leaf); /* pairs: ART_TERM */
    art_unlock(&node->lock);
    return true;
}

/* Replaces the full node that the place names by a larger one with the new child. */
static bool
art_grow(struct art *art, const struct art_place *place, uint32_t ref, uint8_t byte, uint32_t leaf,
         uint32_t stripe)
{
    struct art_node *node = art_node_at(art, ref);
    if (!art_lock_place(place, ref)) {
        return false;
    }
    bool locked = art_lock(&node->lock);
    ASSERT(locked); /* I2: it is named by a slot whose lock is held */
    bool missing = art_child(node, byte) == NULL;
    if (missing) {
        uint32_t larger = art_larger_copy(art, node, stripe);
        art_put(art_node_at(art, larger), byte, leaf);
        ESKER_RACE_POINT_HELD("art_grow");
        store_release(place->slot, larger); /* pairs: ART_CHILD */
        ESKER_RACE_POINT_HELD("art_grow_linked");
        store_release(&node->lock, ART_OBSOLETE); /* pairs: ART_LOCK -- who sees it finds the larger node */
    } else {
        art_unlock(&node->lock);
    }
    art_unlock(place->lock);
    return missing;
}

/* Adds the missing child `byte` of the node that the place names. */
static bool
art_add(struct art *art, const struct art_place *place, uint32_t ref, uint8_t byte, uint32_t leaf,
        uint32_t stripe)
{
    struct art_node *node = art_node_at(art, ref);
    ESKER_RACE_POINT("art_add");
    if (art_is_full(node)) {
        return art_grow(art, place, ref, byte, leaf, stripe);
    }
    ESKER_RACE_POINT("art_add_lock");
    if (!art_lock(&node->lock)) {
        return false;
    }
    bool added = !art_is_full(node) && art_child(node, byte) == NULL;
    if (added) {
        art_put(node, byte, leaf);
    }
    art_unlock(&node->lock);
    return added;
}

static bool
art_set_root(const struct art_place *place, uint32_t leaf)
{
    if (!art_lock_place(place, 0)) {
        return false;
    }
    store_release(place->slot, leaf); /* pairs: ART_CHILD */
    art_unlock(place->lock);
    return true;
}

/* False: another writer changed the tree on the way; start again. */
static bool
art_try_insert(struct art *art, struct bytes key, uint32_t index, struct art_place place, uint32_t stripe)
{
    const uint32_t leaf = ART_LEAF | index;
    for (;;) {
        uint32_t ref = load_acquire(place.slot); /* pairs: ART_CHILD */
        if (ref == 0) {
            ASSERT(place.slot == &art->root);
            return art_set_root(&place, leaf);
        }
        if (ref == leaf) {
            return true;
        }
        if ((ref & ART_LEAF) != 0) {
            struct bytes other = vnode_key(art->vnodes, ref & ~ART_LEAF);
            size_t level = art_differ(key.ptr, other.ptr, place.depth, MIN(key.len, other.len));
            ASSERT(level < key.len || level < other.len);
            return art_branch(art, &place, ref, other, key, level, index, stripe);
        }
        struct art_node *node = art_node_at(art, ref);
        size_t matched = art_match(art, node, key, place.depth);
        if (matched < node->level) {
            struct bytes other = vnode_key(art->vnodes, node->anyleaf);
            return art_branch(art, &place, ref, other, key, matched, index, stripe);
        }
        if (key.len == matched) {
            return art_set_term(node, leaf);
        }
        _Atomic uint32_t *slot = art_child(node, key.ptr[matched]);
        if (slot == NULL) {
            return art_add(art, &place, ref, key.ptr[matched], leaf, stripe);
        }
        place = (struct art_place){.lock = &node->lock, .slot = slot, .depth = matched + 1};
    }
}

struct art_place
art_root_place(const struct art *art)
{
    struct art *mutable = (struct art *)(uintptr_t)art;
    return (struct art_place){.lock = &mutable->root_lock, .slot = &mutable->root};
}

void
art_insert_from(struct art *art, uint32_t index, const struct art_place *from, uint32_t stripe)
{
    struct bytes key = vnode_key(art->vnodes, index);
    ESKER_RACE_POINT("art_insert");
    /* The place's node may be obsolete by now, or what it names: then its lock tells. */
    bool done = art_try_insert(art, key, index, *from, stripe);
    while (!done) {
        cpu_relax();
        done = art_try_insert(art, key, index, art_root_place(art), stripe);
    }
}

void
art_insert(struct art *art, uint32_t index, uint32_t stripe)
{
    struct art_place root = art_root_place(art);
    art_insert_from(art, index, &root, stripe);
}

/* About how many children a node has. */
static uint32_t
art_fan_out(const struct art_node *node)
{
    /* relaxed: an estimate */
    return node->type == ART_NODE256 ? 256 : MAX((uint32_t)load_relaxed(&node->count), 1U);
}

struct art_place
art_approach(const struct art *art, struct bytes key)
{
    struct art_place place = art_root_place(art);
    uint32_t nodes = 1; /* about how many there are at this depth */
    for (;;) {
        uint32_t ref = load_acquire(place.slot); /* pairs: ART_CHILD */
        if (ref == 0 || (ref & ART_LEAF) != 0) {
            PREFETCH_READ(&art->vnodes->array[ref & ~ART_LEAF]);
            return place;
        }
        struct art_node *node = art_node_at(art, ref);
        if (nodes > ART_FEW) {
            prefetch_own(node);
            prefetch_own((const uint8_t *)node + CACHE_LINE_BYTES);
            return place;
        }
        size_t matched = art_match(art, node, key, place.depth);
        if (matched < node->level || key.len == matched) {
            return place;
        }
        _Atomic uint32_t *slot = art_child(node, key.ptr[matched]);
        if (slot == NULL) {
            return place;
        }
        nodes *= art_fan_out(node);
        place = (struct art_place){.lock = &node->lock, .slot = slot, .depth = matched + 1};
    }
}

/* One step of a descent towards `key`; 0 at its end. */
static uint32_t
art_warm_step(const struct art *art, uint32_t ref, struct bytes key)
{
    if ((ref & ART_LEAF) != 0) {
        PREFETCH_READ(vnode_entry_at(art->vnodes, art->vnodes->array[ref & ~ART_LEAF].entry));
        return 0;
    }
    struct art_node *node = art_node_at(art, ref);
    _Atomic uint32_t *slot = node->level < key.len ? art_child(node, key.ptr[node->level]) : NULL;
    uint32_t next = slot != NULL ? load_acquire(slot) : 0; /* pairs: ART_CHILD */
    if ((next & ART_LEAF) != 0) {
        PREFETCH_READ(&art->vnodes->array[next & ~ART_LEAF]);
    } else if (next != 0) {
        const uint8_t *ahead = index_arena_at(art->arena, next);
        PREFETCH_READ(ahead);
        PREFETCH_READ(ahead + CACHE_LINE_BYTES);
    }
    return next;
}

void
art_warm(const struct art *art, const uint32_t *indexes, uint32_t count)
{
    uint32_t refs[ART_WARM_MAX];
    struct bytes keys[ART_WARM_MAX];
    ASSERT(count <= ART_WARM_MAX);
    uint32_t root = load_acquire(&art->root); /* pairs: ART_CHILD */
    for (uint32_t i = 0; i < count; i++) {
        refs[i] = root;
        keys[i] = vnode_key(art->vnodes, indexes[i]);
    }
    /* Each round every path goes down by one node, which the round before fetched. */
    for (bool going = root != 0; going;) {
        going = false;
        for (uint32_t i = 0; i < count; i++) {
            refs[i] = refs[i] != 0 ? art_warm_step(art, refs[i], keys[i]) : 0;
            going = going || refs[i] != 0;
        }
    }
}
