/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/* Additions to one node of the tree (src/memtable/art.c), here a small one, in model_art48.c a node48: two
 * writers add a child each, a reader looks for both. Owners of the node's lock see what the last one did, and
 * who finds a child's place finds what was written before the child was added. In a round: one addition or
 * two looks each. Nodes that are split and replaced: model_tree.c. */
#ifndef ART_OLD
#define ART_OLD 2 /* keys that are there before the round */
#endif
#define MODEL_MUTANTS(X)                                                                                     \
    X(CHILD_RELAXED, TSAN)                                                                                   \
    X(LOCK_RELAXED, ART_OLD > 16 ? TSAN : GENMC) X(LOCK_IN_TWO_STEPS, BY_HAND)
#define ESKER_RACE_POINT_HELD(name) model_held()
static void model_held(void);

#include "model.h"
#include "keys.h"
#include "memtable/art.c"

static struct vnode nodes[MODEL_KEYS + 1];
static struct vnodes vnodes;
static CACHE_ALIGNED uint64_t memory[200];
static struct index_arena arena;
static struct art art;
static struct art_node *node;
static uint32_t before_child[2]; /* plain; each writer's own */
static uint32_t held;            /* plain; the lock's owner's */

/* A reader finds a child by the count, in a node48 by its index. */
static int
model_order(uintptr_t word)
{
    const struct art_node48 *node48 = (const struct art_node48 *)node;
    bool lock = node != NULL && model_at(word, node->lock);
    bool child = node != NULL && (model_at(word, node->count) ||
                                  (ART_OLD > 16 && word - (uintptr_t)node48->index < sizeof node48->index));
    bool relax = model_is(LOCK_RELAXED) ? lock : model_is(CHILD_RELAXED) && child;
    return relax ? RELAX : model_is(LOCK_IN_TWO_STEPS) && lock ? SPLIT : KEEP;
}

static void
model_held(void)
{
    if (node != NULL) {
        MODEL_CHECK(held == 0);
        held = 1;
        model_pause();
        held = 0;
    }
}

static void
add(void)
{
    before_child[model_self] = 7;
    model_pause();
    art_insert(&art, ART_OLD + model_self + 1, 0);
}

static void
look(void)
{
    for (uint32_t which = 0; which < 2; which++) {
        if (art_child(node, (uint8_t)model_entries[ART_OLD + which + 1].key[0]) != NULL) {
            MODEL_CHECK(before_child[which] == 7);
        }
    }
}

static void
model_reset(void)
{
    node = NULL;
    memset(memory, 0, sizeof memory);
    vnodes.array = nodes;
    vnodes.data = (const uint8_t *)model_entries;
    vnodes.count_max = MODEL_KEYS;
    index_arena_init(&arena, (uint8_t *)memory, sizeof memory);
    art_init(&art, &vnodes, &arena);
    for (uint32_t i = 1; i <= ART_OLD + 2; i++) {
        model_key_set(i - 1, (const char[]){(char)('A' + i), 0});
        nodes[i].entry = i * MODEL_UNITS;
        if (i <= ART_OLD) {
            art_insert(&art, i, 0);
        }
    }
    node = art_node_at(&art, load_relaxed(&art.root));
    before_child[0] = before_child[1] = 0;
}

static void
model_verify(void)
{
    for (uint32_t i = 1; i <= ART_OLD + 2; i++) {
        _Atomic uint32_t *slot = art_child(node, (uint8_t)model_entries[i].key[0]);
        MODEL_CHECK(slot != NULL && load_relaxed(slot) == (ART_LEAF | i));
    }
}
MODEL_MAIN(add, add, look)
