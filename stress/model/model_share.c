/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/* Numbers handed out in stretches (src/memtable/share.h): three writers of one stripe take vnodes, from the
 * stripe's stretch, which has one left, from the next one, or from the counter. No vnode is given out twice,
 * and no stretch is begun beside another. In a round: 3 threads, one or two vnodes each. */
#define MODEL_MUTANTS(X) X(SHARE_IN_TWO_STEPS, ANY) X(COUNTER_IN_TWO_STEPS, ANY)
#include "model.h"
#include "keys.h"
#include "memtable/share.h"
#include "memtable/vnode.h"

enum { TAKES = MODEL_BOUND(2, 1), COUNT = 4 * VNODE_STRETCH };

static struct shares shares[SHARE_STRIPES];
static struct vnodes vnodes = {.count_max = COUNT, .shares = shares};
static uint8_t owners[COUNT + 1]; /* plain: two owners race */

static int
model_order(uintptr_t word)
{
    bool split = model_is(SHARE_IN_TWO_STEPS)     ? model_at(word, shares[0].vnodes)
                 : model_is(COUNTER_IN_TWO_STEPS) ? model_at(word, vnodes.used)
                                                  : false;
    return split ? SPLIT : KEEP;
}

static void
take(void)
{
    for (uint32_t i = 0; i < TAKES; i++) {
        owners[vnode_take(&vnodes, 1, 0)]++;
        model_pause();
    }
}

static void
model_reset(void)
{
    memset(owners, 0, sizeof owners);
    store_relaxed(&vnodes.used, 1); /* the stretch before, of which the last is left */
    store_relaxed(&shares[0].vnodes, 1);
}

static void
model_verify(void)
{
    uint32_t total = 0;
    for (uint32_t i = 1; i <= COUNT; i++) {
        MODEL_CHECK(owners[i] <= 1);
        total += owners[i];
    }
    MODEL_CHECK(total == TAKES * 3);
    MODEL_CHECK(load_relaxed(&vnodes.used) <= 1 + VNODE_STRETCH + TAKES * 3); /* one stretch at most */
}
MODEL_MAIN(take, take, take)
