/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/*
 * Versions of one key (src/memtable/hashdir.c, vnode.h): two writers link one each, the earlier may come
 * later; a reader takes `visible` as the commit path publishes it. It finds the newest version below, by the
 * directory's slot and by the head that the tree's leaf names.
 * Cases: 0 the key has a version before, 1 it is new. In a round: one version or one look each.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(HASHDIR_SLOT_RELAXED, TSAN)                                                                            \
    X(VNODE_PREV_RELAXED, TSAN)                                                                              \
    X(VNODE_HEAD_RELAXED, TSAN) X(SLOT_IN_TWO_STEPS, ANY) X(HEAD_IN_TWO_STEPS, ANY)
#include "model.h"
#include "keys.h"
#include "memtable/hashdir.c"

enum { SLOTS = 64, VERSIONS = 3, HASH = 7 };

static CACHE_ALIGNED uint64_t slots[SLOTS];
static struct vnode nodes[VERSIONS + 1];
static struct vnodes vnodes;
static struct hashdir dir;
static uint32_t old; /* versions that are there before the round */

static int
model_order(uintptr_t word)
{
    bool slot = word - (uintptr_t)slots < sizeof slots, prev = false, head = false;
    for (uint32_t i = 0; i <= VERSIONS; i++) {
        prev = prev || model_at(word, nodes[i].prev);
        head = head || model_at(word, nodes[i].head);
    }
    bool relax = (model_is(HASHDIR_SLOT_RELAXED) && slot) || (model_is(VNODE_PREV_RELAXED) && prev) ||
                 (model_is(VNODE_HEAD_RELAXED) && head);
    bool split = (model_is(SLOT_IN_TWO_STEPS) && slot) || (model_is(HEAD_IN_TWO_STEPS) && head);
    return relax ? RELAX : split ? SPLIT : KEEP;
}

static void
link_version(uint32_t entry)
{
    nodes[entry + 1].entry = (entry + 1) * MODEL_UNITS;
    (void)hashdir_link(&dir, &vnodes, bytes_make("k", 1), HASH, entry + 1);
}

/* Of the first `count` entries the newest is found. */
static void
find(uint32_t count)
{
    uint64_t limit = (count + 1) * MODEL_UNITS;
    uint32_t newest = hashdir_word_vnode(hashdir_find(&dir, &vnodes, bytes_make("k", 1), HASH));
    MODEL_CHECK(vnode_older_than(&vnodes, newest, limit) == count);
    uint32_t head = load_acquire(&nodes[nodes[newest].anchor].head); /* pairs: VNODE_HEAD */
    MODEL_CHECK(vnode_older_than(&vnodes, head, limit) == count);
}

static void
write_one(void)
{
    link_version(old + model_self);
    model_publish(old);
}

static void
look(void)
{
    uint32_t count = load_acquire(&model_visible);
    if (count > 0) {
        find(count);
    }
}

static void
model_reset(void)
{
    old = 1 - model_next_case(2);
    memset(slots, 0, sizeof slots);
    memset(nodes, 0, sizeof nodes);
    hashdir_init(&dir, slots, SLOTS / 2);
    vnodes.array = nodes;
    vnodes.data = (const uint8_t *)model_entries;
    vnodes.count_max = VERSIONS;
    for (uint32_t entry = 0; entry < old + 2; entry++) {
        model_key_set(entry, "k");
    }
    if (old > 0) {
        link_version(0);
    }
    model_visible_reset(old);
}

static void
model_verify(void)
{
    find(old + 2);
}
MODEL_MAIN(write_one, write_one, look)
