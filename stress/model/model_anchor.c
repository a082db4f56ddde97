/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/*
 * Two versions of a new key (src/memtable/memtable.c, I3): the later may take the directory's slot and be
 * preempted before its key is in the tree; then the writer of the earlier puts it there. A reader that takes
 * `visible` as the commit path publishes it finds the key in the tree, and under it the newest version below.
 * In a round: 3 threads, one insertion or one look each.
 */
#define MODEL_MUTANTS(X) X(ANCHOR_LEFT_OUT, ANY)
#define MODEL_ORDER(ptr) KEEP
#include "model.h"
#include "keys.h"
#include "memtable/memtable_priv.h"
#include "memtable/art.c"
#include "memtable/hashdir.c"

enum { SLOTS = 64, HASH = 7 };

static CACHE_ALIGNED uint64_t slots[SLOTS], memory[200];
static struct vnode nodes[3];
static struct memtable subject;

static void
put_into_tree(struct art *art, uint32_t anchor, const struct art_place *from, uint32_t stripe)
{
    bool own = nodes[anchor].entry == (model_self + 1) * MODEL_UNITS;
    if (own || !model_is(ANCHOR_LEFT_OUT)) {
        art_insert_from(art, anchor, from, stripe);
    }
}

#define art_insert_from put_into_tree
#include "memtable/memtable.c"

static void
insert(void)
{
    struct memtable_way way = {.hash = HASH, .lock = &subject.art.root_lock, .slot = &subject.art.root};
    (void)memtable_insert(&subject, (model_self + 1) * MODEL_UNITS * LSN_BYTES, &way, 0);
    model_publish(0);
}

static void
find(uint32_t count)
{
    uint32_t anchor = load_acquire(&subject.art.root) & ~ART_LEAF;
    MODEL_CHECK(anchor != 0 && nodes[anchor].anchor == anchor);
    uint32_t newest = load_acquire(&nodes[anchor].head); /* pairs: VNODE_HEAD */
    uint32_t found = vnode_older_than(&subject.vnodes, newest, (count + 1) * MODEL_UNITS);
    MODEL_CHECK(found != 0 && nodes[found].entry == count * MODEL_UNITS);
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
    memset(slots, 0, sizeof slots);
    memset(memory, 0, sizeof memory);
    memset(nodes, 0, sizeof nodes);
    subject.data_bytes = sizeof model_entries;
    hashdir_init(&subject.dir, slots, SLOTS / 2);
    subject.vnodes.array = nodes;
    subject.vnodes.data = (const uint8_t *)model_entries;
    subject.vnodes.count_max = 2;
    store_relaxed(&subject.vnodes.used, 0);
    index_arena_init(&subject.arena, (uint8_t *)memory, sizeof memory);
    art_init(&subject.art, &subject.vnodes, &subject.arena);
    model_key_set(0, "k");
    model_key_set(1, "k");
    model_visible_reset(0);
}

static void
model_verify(void)
{
    find(2);
}
MODEL_MAIN(insert, insert, look)
