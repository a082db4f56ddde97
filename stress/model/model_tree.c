/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/*
 * Growth of the tree (src/memtable/art.c): two writers insert a key each, the last two of a case; a reader
 * takes `visible` as the commit path publishes it and finds what is below. Nothing that was inserted is lost
 * when nodes are split and replaced, and what is found is whole. Additions to one node: model_art.c.
 * In a round: 3 threads, one key or one look each. A node48 and larger grow as the small ones do.
 */
#define MODEL_MUTANTS(X) X(PATH_RELAXED, TSAN) X(LOCK_IN_TWO_STEPS, BY_HAND)
/* all exchanges are of locks; model_art.c relaxes these */
#define MODEL_ORDER(ptr) (model_is(PATH_RELAXED) ? RELAX : model_is(LOCK_IN_TWO_STEPS) ? SPLIT : KEEP)
#include "model.h"
#include "keys.h"
#include "memtable/art.c"

static const char *const cases[][6] = {
    {"a", "k", "l"},                           /* two new keys, one leaf is the root */
    {"aaa", "aab", "aca"},                     /* a leaf is split twice */
    {"a", "b", "c", "d"},                      /* two additions to one node */
    {"a", "b", "c", "d", "e"},                 /* the last free place, and the growth that follows */
    {"a", "b", "c", "d", "e", "f"},            /* two growths of one node */
    {"xya", "xyb", "xz", "xyc"},               /* a prefix split above an addition */
    {"xya", "xyb", "xyc", "xyd", "xz", "xye"}, /* a prefix split above a growth */
    {"xa", "xb", "x", "xc"},                   /* a key that ends in a node, and an addition to it */
};

static struct vnode nodes[MODEL_KEYS + 1];
static struct vnodes vnodes;
static CACHE_ALIGNED uint64_t memory[200];
static struct index_arena arena;
static struct art art;
static uint32_t old; /* keys that are there before the round */

/* A descent like the cursor's, which sorts with vectors that the model checker does not know. */
static uint32_t
find(uint32_t entry)
{
    struct bytes key = vnode_key(&vnodes, entry + 1);
    size_t depth = 0;
    uint32_t ref = load_acquire(&art.root); /* pairs: ART_CHILD */
    while (ref != 0 && (ref & ART_LEAF) == 0) {
        struct art_node *node = art_node_at(&art, ref);
        size_t matched = art_match(&art, node, key, depth);
        if (matched < node->level) {
            return 0;
        }
        _Atomic uint32_t *slot = key.len == matched ? &node->term : art_child(node, key.ptr[matched]);
        ref = slot != NULL ? load_acquire(slot) : 0;
        depth = matched + 1;
    }
    return ref != 0 && bytes_equal(vnode_key(&vnodes, ref & ~ART_LEAF), key) ? ref & ~ART_LEAF : 0;
}

static void
insert(void)
{
    struct art_place from = art_approach(&art, vnode_key(&vnodes, old + model_self + 1));
    model_pause();
    art_insert_from(&art, old + model_self + 1, &from, 0);
    model_publish(old);
}

static void
look(void)
{
    uint32_t count = load_acquire(&model_visible);
    uint32_t entry = MAX(count, old + 1) - 1;
    uint32_t found = find(entry);
    MODEL_CHECK(found == entry + 1 || (found == 0 && entry >= count));
}

static void
model_reset(void)
{
    const char *const *keys = cases[model_next_case(COUNTOF(cases))];
    memset(memory, 0, sizeof memory);
    vnodes.array = nodes;
    vnodes.data = (const uint8_t *)model_entries;
    index_arena_init(&arena, (uint8_t *)memory, sizeof memory);
    art_init(&art, &vnodes, &arena);
    for (old = 0; old < COUNTOF(cases[0]) && keys[old] != NULL; old++) {
        model_key_set(old, keys[old]);
        nodes[old + 1].entry = (old + 1) * MODEL_UNITS;
    }
    old -= 2;
    for (uint32_t i = 1; i <= old; i++) {
        art_insert(&art, i, 0);
    }
    model_visible_reset(old);
}

static void
model_verify(void)
{
    for (uint32_t entry = 0; entry < old + 2; entry++) {
        MODEL_CHECK(find(entry) == entry + 1);
    }
}
MODEL_MAIN(insert, insert, look)
