/* SPDX-License-Identifier: MIT */
/*
 * An insert-only adaptive radix tree over the anchors of a memtable. Private
 * to this room.
 *
 * Leis, Kemper, Neumann: "The Adaptive Radix Tree: ARTful Indexing for
 * Main-Memory Databases" (ICDE 2013). Leis, Scheibner, Kemper, Neumann: "The
 * ART of Practical Synchronization" (DaMoN 2016), variant ROWEX: readers take
 * no lock and never retry, writers exclude each other per node.
 *
 * A reference is 32 bits: 0 = none, bit 31 set = a leaf (the anchor's vnode
 * index), else a node (its unit number in the arena).
 *
 * Path compression without a stored length: a node knows its `level`, the
 * depth of the key byte that it branches on. Who comes to it at depth d has
 * skipped bytes [d, level), the same for all keys below: the last 8 of them
 * stand in the node, the rest in the key of `anyleaf`. Level and prefix never
 * change, so a prefix split puts a node in between and leaves the lower one
 * as it is: nothing is copied, no reader is ever between two lengths.
 *
 * Invariants
 *  I1 A child slot is filled once, from then on it only changes to a node that
 *     leads to everything the old reference led to. Slots do not move inside a
 *     node, and bytes of one key map to one slot of a node forever.
 *  I2 A node becomes obsolete only when it is replaced by a larger copy, under
 *     its own lock and the lock that guards the slot that named it. It is never
 *     changed after that; readers in it see what was there.
 *  I3 Levels grow strictly from root to leaf, so a descent ends.
 *  I4 Locks are taken from the root downwards, at most two, adjacent.
 *  I5 Every allocation is linked into the tree: nothing is allocated before the
 *     locks are held and the place was looked at again.
 *
 * Space: ART_KEY_BYTES_MAX bytes per key are always enough. Each insertion
 * either fills `term` (no space), adds a child to one node, or makes one
 * node4. Charge it to that node. A node with c children (c >= 2) was charged
 * at least c - 1 insertions: the one that made it gave it two references
 * (children, or a child and `term`), each later child one more. What it took
 * in its life, all sizes that it grew through included (nothing is reused):
 *     c <= 4     48                          =   48 <= 48 *  1
 *     c <= 16    48 + 104                    =  152 <= 48 *  4
 *     c <= 48    48 + 104 + 472              =  624 <= 48 * 16
 *     c <= 256   48 + 104 + 472 + 1048       = 1672 <= 48 * 48
 * where the factor is c - 1 at the least c that needs the size. A node with
 * one child and `term` was charged its maker and took 48. So the sum is at
 * most 48 bytes per insertion that changed the tree, of which there is one for
 * each key (the first takes nothing).
 */
#ifndef ESKER_MEMTABLE_ART_H
#define ESKER_MEMTABLE_ART_H

#include "base/mem.h"
#include "memtable/index_arena.h"
#include "memtable/vnode.h"

enum { ART_KEY_BYTES_MAX = 48 };

#define ART_LEAF 0x80000000U

enum art_type { ART_NODE4 = 0, ART_NODE16 = 1, ART_NODE48 = 2, ART_NODE256 = 3 };

struct art_node {
    /* immutable once linked */
    uint8_t type;
    /* atomic */
    _Atomic uint8_t count; /* children that are in place (not in node256); pairs: ART_COUNT */
    /* immutable once linked */
    uint16_t level;   /* depth of the byte that this node branches on */
    uint32_t anyleaf; /* vnode index of some key below */
    uint64_t tail;    /* key bytes [level - 8, level), the last one lowest; zeros before the key's start */
    /* atomic */
    _Atomic uint32_t lock; /* pairs: ART_LOCK */
    _Atomic uint32_t term; /* leaf of the key that ends at `level`; pairs: ART_TERM */
};

/* Children in order of arrival; byte i of `bytes` (lowest first) belongs to child i. */
struct art_node4 {
    struct art_node node;
    _Atomic uint32_t bytes;       /* relaxed: read after count */
    _Atomic uint32_t children[4]; /* pairs: ART_CHILD, here and below */
};

struct art_node16 {
    struct art_node node;
    _Atomic uint64_t bytes[2]; /* relaxed: read after count */
    _Atomic uint32_t children[16];
};

/* Byte b's place is in byte b % 8 of word b / 8: 0 = no child, else child + 1. */
struct art_node48 {
    struct art_node node;
    _Atomic uint64_t index[32]; /* pairs: ART_INDEX */
    _Atomic uint32_t children[48];
};

struct art_node256 {
    struct art_node node;
    _Atomic uint32_t children[256];
};

_Static_assert(sizeof(struct art_node) == 24, "node header");
_Static_assert(sizeof(struct art_node4) == 48, "the space proof counts on it");
_Static_assert(sizeof(struct art_node16) == 104, "the space proof counts on it");
_Static_assert(sizeof(struct art_node48) == 472, "the space proof counts on it");
_Static_assert(sizeof(struct art_node256) == 1048, "the space proof counts on it");

struct art {
    /* immutable */
    const struct vnodes *vnodes;
    struct index_arena *arena;
    /* atomic */
    _Atomic uint32_t root CACHE_ALIGNED; /* pairs: ART_CHILD */
    _Atomic uint32_t root_lock;          /* pairs: ART_LOCK; never obsolete */
};

/* Arena memory for `key_count` keys; see "Space" above. */
static inline uint64_t
art_bytes_max(uint32_t key_count)
{
    return INDEX_ARENA_UNUSED_BYTES + (uint64_t)key_count * ART_KEY_BYTES_MAX;
}

void art_init(struct art *art, const struct vnodes *vnodes, struct index_arena *arena);

/* Puts the key of vnode `index` into the tree. Idempotent: the same index may
 * come again, also at the same time from other threads; two indexes of equal
 * keys may not. Waits only for other writers of the same node. stripe: share.h. */
void art_insert(struct art *art, uint32_t index, uint32_t stripe);

/* A child slot, and the lock under which it may be changed. */
struct art_place {
    _Atomic uint32_t *lock;
    _Atomic uint32_t *slot;
    size_t depth; /* of the first key byte below */
};

/* Starts the cache misses of a later art_insert_from of `key`: goes down through nodes of
 * which there are few, so that they are in the cache, and fetches the one below. The place
 * stays good whatever is inserted meanwhile. */
struct art_place art_approach(const struct art *art, struct bytes key);
/* On the path of every key. */
struct art_place art_root_place(const struct art *art);
/* art_insert of a key that `from` is on the path of. */
void art_insert_from(struct art *art, uint32_t index, const struct art_place *from, uint32_t stripe);

enum { ART_WARM_MAX = 16 };

/* Starts the cache misses of art_insert for `count` vnodes (ART_WARM_MAX at
 * most), all paths side by side, so that they overlap. Changes nothing. */
void art_warm(const struct art *art, const uint32_t *indexes, uint32_t count);

static inline struct art_node *
art_node_at(const struct art *art, uint32_t ref)
{
    return (struct art_node *)index_arena_at(art->arena, ref);
}

/* Node of `ref` agrees with key[depth, ...) up to the returned depth: `level`
 * when the whole skipped part does, else the first byte that differs or the
 * key's end. */
size_t art_match(const struct art *art, const struct art_node *node, struct bytes key, size_t depth);

/* The slot of the child at `byte`; NULL = there is none. */
_Atomic uint32_t *art_child(struct art_node *node, uint8_t byte);

/* ---- A cursor over the leaves, in key order (art_iter.c) ----------------- */

/* Where a path leaves a node. Positions: 0 = term, b + 1 = the child at byte b;
 * in a node4 or node16 that was sorted, i + 1 = the i-th child in key order. */
struct art_frame {
    uint32_t node;
    int16_t pos;
    bool sorted;
    uint8_t count; /* children in `order` */

    union {
        uint8_t order[16]; /* sorted: children's places in key order */

        struct {
            uint32_t ahead; /* large nodes: the child to leave by next; 0 = not known */
            int16_t ahead_pos;
        };
    };
};

enum { ART_CURSOR_INLINE_DEPTH = 24 };

struct art_cursor {
    const struct art *art;
    const struct mem *mem;
    uint32_t leaf; /* vnode index of the anchor the cursor stands on */
    bool forward;  /* the direction of the frames' ahead */
    uint32_t depth;
    uint32_t cap;
    struct art_frame *frames; /* the path from the root; inline_frames or owned */
    struct art_frame inline_frames[ART_CURSOR_INLINE_DEPTH];
};

void art_cursor_init(struct art_cursor *cursor, const struct art *art, const struct mem *mem);
void art_cursor_fini(struct art_cursor *cursor);

/* Each returns OK (cursor->leaf), END, or NO_MEMORY; after the last two the
 * cursor stands nowhere and next and prev may not be called. Keys inserted
 * meanwhile may or may not be met; all others are, each once, in order. */
NODISCARD esker_status art_cursor_first(struct art_cursor *cursor);
NODISCARD esker_status art_cursor_last(struct art_cursor *cursor);
/* The first leaf with a key >= `key`. */
NODISCARD esker_status art_cursor_seek(struct art_cursor *cursor, struct bytes key);
/* The last leaf with a key < `key`. */
NODISCARD esker_status art_cursor_seek_before(struct art_cursor *cursor, struct bytes key);
NODISCARD esker_status art_cursor_next(struct art_cursor *cursor);
NODISCARD esker_status art_cursor_prev(struct art_cursor *cursor);

#endif
