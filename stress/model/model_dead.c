/* rooms: version */
/* SPDX-License-Identifier: MIT */
/* Dead ranges (src/memtable/dead.c, I2): a writer puts a key into a stretch over which readers walk; who sees
 * it is never told that the stretch is dead. In a round: one put, and three walks in two threads; the range
 * is new, or proven and widened meanwhile. */
#define MODEL_MUTANTS(X) X(DEAD_RANGE_RELAXED, GENMC) X(DEAD_TAIL_RELAXED, GENMC) X(TAIL_TOO_EARLY, ANY)
#include <string.h>
#define model_verify walk    /* who comes last sees the key */
#define memcmp words_compare /* of keys in the words in which they are stored */
static int words_compare(const void *a, const void *b, size_t len);
#include "model.h"
#include "keys.h"
#include "memtable/memtable_priv.h"
#define buf_assign(buf, value) ((void)(buf), (void)(value), ESKER_OK)
#ifdef MODEL_GENMC /* of writers those go on whose first look meets no change */
#define cpu_relax() __VERIFIER_assume(0)
#define memcpy(to, from, len) model_copy((char *)(to), (const char *)(from), len, false)
#endif
#include "memtable/dead.c"
#define mem_free(mem, ptr) ((void)(mem), (void)(ptr))
#include "version/window.c"

enum { BASE_LSN = 64 };

static struct window window = {.cap_bytes = 8 * WINDOW_GRANULE, .base_lsn = BASE_LSN, .op_cap = 8};
static struct memtable table = {.base_lsn = BASE_LSN};
static _Atomic uint64_t visible;
/* What lies before the key is longer: halves of two bounds are a bound behind the key. */
static const uint64_t words[] = {'a', 'a', 'b', 'c'};
static const struct bytes before = {(const uint8_t *)words, 16}, key = {(const uint8_t *)&words[2], 8},
                          behind = {(const uint8_t *)&words[3], 8};
static struct bytes from; /* where walks begin */
static const uintptr_t tail_word = (uintptr_t)&window.tail;

static int
words_compare(const void *a, const void *b, size_t len)
{
    const uint64_t *left = a, *right = b;
    size_t last = len > sizeof *left && *left == *right ? 1 : 0;
    return (left[last] > right[last]) - (left[last] < right[last]);
}

static int
model_order(uintptr_t word)
{
    bool range = word - (uintptr_t)table.dead.slots < sizeof table.dead.slots;
    bool relax = range ? model_is(DEAD_RANGE_RELAXED) : word == tail_word && model_is(DEAD_TAIL_RELAXED);
    return relax ? RELAX : KEEP;
}

static uint64_t
tail(void *ctx)
{
    return model_is(TAIL_TOO_EARLY) ? BASE_LSN : window_tail_lsn(ctx);
}

static void
put(void)
{
    uint64_t offset = 0;
    MODEL_CHECK(window_reserve(&window, 1, WINDOW_GRANULE, &offset) == WINDOW_TAKEN);
    model_pause();
    dead_put(&table.dead, key);
    store_release(&visible, BASE_LSN + WINDOW_GRANULE / LSN_BYTES);
}

static void
walk(void)
{
    uint64_t lsn = load_acquire(&visible);
    if (lsn == BASE_LSN) {
        memtable_dead_note(&table, from, behind, lsn, tail, &window);
    } else {
        MODEL_CHECK(!memtable_dead_find(&table, key, lsn, false, NULL));
    }
}

static void
walk_twice(void)
{
    walk();
    walk();
}

static void
model_reset(void)
{
    memset(&table.dead, 0, sizeof table.dead);
    store_relaxed(&window.tail, 0);
    store_relaxed(&visible, BASE_LSN);
    from = key;
    if (model_next_case(2) == 1) {
        walk_twice();
        from = before;
    }
}
MODEL_MAIN(put, walk_twice, walk)
