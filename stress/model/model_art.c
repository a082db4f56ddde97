/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/*
 * Additions to one node of the tree (src/memtable/art.c), small or a node48 in turns: two writers add a
 * child each, a reader looks for both. Owners of the node's lock see what the last one did, and who finds
 * a child's place finds what was written before the child was added. What the tree as a whole promises is
 * shown by model_memtable.c and stress_memtable.c.
 * In a round: 3 threads, one addition or two looks each.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(ART_COUNT_RELAXED, TSAN)                                                                               \
    X(ART_INDEX_RELAXED, TSAN) X(ART_LOCK_RELAXED, TSAN) X(LOCK_IN_TWO_STEPS, BY_HAND)
#define MODEL_THREADS 3
#define ESKER_RACE_POINT(name) model_pause()
#define ESKER_RACE_POINT_HELD(name) model_held()
static void model_held(void);

#include "model.h"
#include "memtable/art.c"

enum { SMALL = 2, LARGE = 17, KEYS = LARGE + 2, ARENA_WORDS = 200 };

static struct {
    uint8_t op, flags;
    uint16_t klen;
    uint32_t vlen;
    char key[8];
} entries[KEYS + 1];

static struct vnode nodes[KEYS + 1];
static struct vnodes vnodes;
static CACHE_ALIGNED uint64_t memory[ARENA_WORDS];
static struct index_arena arena;
static struct art art;
static struct art_node *node;
static uint32_t old = SMALL;     /* keys that are there before the round */
static uint32_t before_child[2]; /* plain; each writer's own */
static uint32_t held;            /* plain; the lock's owner's */

static int
model_order(uintptr_t word)
{
    if (node == NULL) {
        return KEEP;
    }
    const struct art_node48 *node48 = (const struct art_node48 *)node;
    bool lock = word == (uintptr_t)&node->lock;
    bool index = word >= (uintptr_t)node48->index && word < (uintptr_t)(node48->index + 32) && old == LARGE;
    if ((model_is(ART_LOCK_RELAXED) && lock) ||
        (model_is(ART_COUNT_RELAXED) && word == (uintptr_t)&node->count) ||
        (model_is(ART_INDEX_RELAXED) && index)) {
        return RELAX;
    }
    return model_is(LOCK_IN_TWO_STEPS) && lock ? SPLIT : KEEP;
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
add(uint32_t which)
{
    before_child[which] = 7;
    model_pause();
    art_insert(&art, old + which + 1);
}

static void
add_first(void)
{
    add(0);
}

static void
add_second(void)
{
    add(1);
}

static void
look(void)
{
    for (uint32_t which = 0; which < 2; which++) {
        if (art_child(node, (uint8_t)entries[old + which + 1].key[0]) != NULL) {
            MODEL_CHECK(before_child[which] == 7);
        }
    }
}

static void
model_reset(void)
{
    node = NULL;
    old = old == SMALL ? LARGE : SMALL;
    for (uint32_t i = 0; i < ARENA_WORDS; i++) {
        memory[i] = 0;
    }
    vnodes.array = nodes;
    vnodes.data = (const uint8_t *)entries;
    vnodes.count_max = KEYS;
    index_arena_init(&arena, (uint8_t *)memory, sizeof memory);
    art_init(&art, &vnodes, &arena);
    for (uint32_t i = 1; i <= KEYS; i++) {
        entries[i].op = ENTRY_PUT;
        entries[i].klen = 1;
        entries[i].key[0] = (char)('A' + i);
        nodes[i].entry = i * (uint32_t)sizeof entries[0] / LSN_BYTES;
        if (i <= old) {
            art_insert(&art, i);
        }
    }
    node = art_node_at(&art, load_relaxed(&art.root));
    before_child[0] = 0;
    before_child[1] = 0;
}

static void
model_verify(void)
{
    for (uint32_t i = 1; i <= old + 2; i++) {
        _Atomic uint32_t *slot = art_child(node, (uint8_t)entries[i].key[0]);
        MODEL_CHECK(slot != NULL && load_relaxed(slot) == (ART_LEAF | i));
    }
}

MODEL_MAIN(add_first, add_second, look)
