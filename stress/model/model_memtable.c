/* SPDX-License-Identifier: MIT */
/*
 * The memtable under a model checker: GenMC (Kokologiannakis, Vafeiadis, CAV
 * 2021) runs every execution that a memory model allows of two writers, which
 * insert the last two entries of a SCENARIO, and a reader. The reader takes
 * `visible` as the commit path publishes it and must find, by directory and by
 * tree, the newest version below it; afterwards every key must be found. Run
 * by model_memtable.sh. All scenarios are exhausted, without bounds on loops:
 * seconds for 1 and 2, minutes for the others.
 *
 * Seen red: without the anchor rule (1), without raising the head for a version
 * in the middle (2); with the releases or the acquires of HASHDIR_SLOT (1),
 * VNODE_PREV and VNODE_HEAD (2), ART_LOCK and ART_CHILD (4) relaxed, with the
 * releases of ART_TERM relaxed (10); without looking again at the place (4) or
 * the node (6) after locking. Not reached here: walks, which sort with vectors
 * that GenMC does not know and for which ART_COUNT is there; node48, node256.
 */
#include <assert.h>
#include <genmc.h>
#include <pthread.h>
#include <sched.h>
#define ESKER_BASE_HASH_H /* the model chooses its hashes; GenMC does not know the vector code */
#define hash64(ptr, len, seed) ((uint64_t)(uintptr_t)(ptr) + (len) + (seed))
#define hash_mix(a, b) ((a) ^ (b))

#include "sync/atomic.h"
/* Whoever finds a node locked waits: only executions in which it is free then go on. A restart goes on. */
#define cpu_relax() __VERIFIER_assume(__func__[4] != 'l')
#define sched_yield() 0
/* GenMC takes a failed exchange for as weak as the load of a successful one. */
#undef cas_release
#define cas_release(ptr, expected, desired)                                                                  \
    ({                                                                                                       \
        bool done = atomic_compare_exchange_strong_explicit((ptr), (expected), (desired),                    \
                                                            memory_order_release, memory_order_relaxed);     \
        if (!done) {                                                                                         \
            *(expected) = load_acquire(ptr);                                                                 \
        }                                                                                                    \
        done;                                                                                                \
    })

#include "memtable/art.c"
#include "memtable/hashdir.c"
#include "memtable/memtable.c"

static const char *const keys[] = {
#if SCENARIO == 1 /* the later LSN may come first (anchor rule) */
    "k", "k"
#elif SCENARIO == 2  /* the middle version may come behind the newest (head rule) */
    "k", "k", "k"
#elif SCENARIO == 3  /* two new keys, one leaf is the root */
    "a", "k", "l"
#elif SCENARIO == 4  /* a leaf is split twice */
    "aaa", "aab", "aca"
#elif SCENARIO == 5  /* two additions to one node */
    "a", "b", "c", "d"
#elif SCENARIO == 6  /* the last free place, and the growth that follows */
    "a", "b", "c", "d", "e"
#elif SCENARIO == 7  /* two growths of one node */
    "a", "b", "c", "d",
    "e", "f"
#elif SCENARIO == 8  /* a prefix split above an addition */
    "xya", "xyb", "xz", "xyc"
#elif SCENARIO == 9  /* a prefix split above a growth */
    "xya", "xyb", "xyc", "xyd",
    "xz",  "xye"
#elif SCENARIO == 10 /* a key that ends in a node, and an addition to it */
    "xa", "xb", "x", "xc"
#endif
};

enum { COUNT = COUNTOF(keys), OLD = COUNT - 2, CAPACITY = 24, UNITS = 2 };

struct model_entry {
    uint8_t op, flags;
    uint16_t klen;
    uint32_t vlen;
    char key[8];
};

static struct model_entry window[COUNT + 1]; /* entry i at [i + 1] */
static CACHE_ALIGNED uint64_t slots[64];
static struct vnode nodes[CAPACITY + 1];
static CACHE_ALIGNED uint64_t arena[200];
static struct memtable table;
static _Atomic uint32_t applied[2];
static _Atomic uint32_t visible = OLD; /* entries */

_Noreturn void
assert_failed(const char *file, int line, const char *text)
{
    (void)file, (void)line, (void)text;
    assert(0);
    __builtin_unreachable();
}

int
memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *left = a;
    const uint8_t *right = b;
    for (size_t i = 0; i < len; i++) {
        if (left[i] != right[i]) {
            return left[i] - right[i];
        }
    }
    return 0;
}

static struct bytes
model_key(uint32_t entry)
{
    return bytes_make(window[entry + 1].key, window[entry + 1].klen);
}

/* Of equal keys equal; only the tag tells keys of one bucket apart. */
static uint64_t
model_hash(struct bytes key)
{
    return (uint64_t)key.ptr[key.len - 1] << HASHDIR_TAG_SHIFT;
}

static void
model_insert(uint32_t entry)
{
    struct bytes key = model_key(entry);
    memtable_insert_hashed(&table, (entry + 1) * UNITS, key, model_hash(key));
}

static void *
model_write(void *arg)
{
    uint32_t which = *(const uint32_t *)arg;
    model_insert(OLD + which);
    (void)exchange_seq(&applied[which], 1);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t found = OLD + i;
        if (load_seq(&applied[i]) != 0) {
            (void)cas_seq(&visible, &found, OLD + i + 1);
        }
    }
    return NULL;
}

/* A descent like the cursor's, which needs vectors that GenMC does not know. */
static uint32_t
model_find(struct bytes key)
{
    size_t depth = 0;
    uint32_t ref = load_acquire(&table.art.root);
    while (ref != 0 && (ref & ART_LEAF) == 0) {
        struct art_node *node = art_node_at(&table.art, ref);
        size_t matched = art_match(&table.art, node, key, depth);
        if (matched < node->level) {
            return 0;
        }
        if (key.len == matched) {
            ref = load_acquire(&node->term);
            break;
        }
        _Atomic uint32_t *slot = art_child(node, key.ptr[matched]);
        ref = slot != NULL ? load_acquire(slot) : 0;
        depth = matched + 1;
    }
    return ref & ~ART_LEAF;
}

/* If `entry` is below `count`, the newest such version of its key is found by
 * directory and tree. If not, nothing is promised, but what is there is whole. */
static void
model_check(uint32_t entry, uint32_t count)
{
    bool promised = entry < count;
    struct bytes key = model_key(entry);
    uint32_t expected = entry;
    for (uint32_t other = entry + 1; other < count; other++) {
        expected = bytes_equal(model_key(other), key) ? other : expected;
    }
    uint64_t limit = (count + 1) * UNITS;
    uint64_t word = hashdir_find(&table.dir, &table.vnodes, key, model_hash(key));
    uint32_t found = vnode_older_than(&table.vnodes, hashdir_word_vnode(word), limit);
    assert(!promised || (found != 0 && nodes[found].entry == (expected + 1) * UNITS));
    uint32_t leaf = model_find(key);
    assert(!promised || leaf != 0);
    assert(leaf == 0 || nodes[leaf].anchor == leaf);
    found = vnode_older_than(&table.vnodes, leaf != 0 ? load_acquire(&nodes[leaf].head) : 0, limit);
    assert(!promised || (found != 0 && nodes[found].entry == (expected + 1) * UNITS));
}

static void *
model_read(void *arg)
{
    uint32_t count = load_acquire(&visible);
    model_check(MAX(count, OLD + 1U) - 1, count);
    return arg;
}

int
main(void)
{
    static const uint32_t which[] = {0, 1};
    pthread_t threads[3];
    for (uint32_t entry = 0; entry < COUNT; entry++) {
        struct model_entry *at = &window[entry + 1];
        at->op = ENTRY_PUT;
        for (; keys[entry][at->klen] != 0; at->klen++) {
            at->key[at->klen] = keys[entry][at->klen];
        }
    }
    table.data_bytes = sizeof window;
    hashdir_init(&table.dir, slots, CAPACITY);
    table.vnodes.array = nodes;
    table.vnodes.data = (const uint8_t *)window;
    table.vnodes.count_max = CAPACITY;
    index_arena_init(&table.arena, (uint8_t *)arena, sizeof arena);
    art_init(&table.art, &table.vnodes, &table.arena);
    for (uint32_t entry = 0; entry < OLD; entry++) {
        model_insert(entry);
    }
    pthread_create(&threads[0], NULL, model_write, (void *)(uintptr_t)&which[0]);
    pthread_create(&threads[1], NULL, model_write, (void *)(uintptr_t)&which[1]);
    pthread_create(&threads[2], NULL, model_read, NULL);
    for (uint32_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    assert(load_acquire(&visible) == COUNT);
    for (uint32_t entry = 0; entry < COUNT; entry++) {
        model_check(entry, COUNT);
    }
    return 0;
}
