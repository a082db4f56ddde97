/* rooms: sync */
/* SPDX-License-Identifier: MIT */
/*
 * Retiring (src/sync/epoch.c): two threads retire a node each, a third runs passes, as the reclaimer does.
 * What was retired before a pass is freed by it, every node once, whole. Who wakes the reclaimer and waits
 * for it: model_drain.c.
 * In a round: 3 threads, 2 retirements, 2 passes and one behind them.
 */
#define MODEL_MUTANTS(X) X(EPOCH_RETIRE_RELAXED, TSAN) X(RETIRE_IN_TWO_STEPS, ANY) X(POP_IN_TWO_STEPS, ANY)
#define MODEL_FUTEX
#include "model.h"
#include "sync/epoch.c"

struct retiree {
    struct epoch_node node;
    uint32_t whole; /* plain */
    uint32_t freed; /* plain */
};

static struct retiree retirees[2];

static int
model_order(uintptr_t word)
{
    bool stack = model_at(word, retired_head);
    bool split = stack && model_is(model_self == 2 ? POP_IN_TWO_STEPS : RETIRE_IN_TWO_STEPS);
    return split ? SPLIT : stack && model_is(EPOCH_RETIRE_RELAXED) ? RELAX : KEEP;
}

static void
model_free(struct epoch_node *node)
{
    struct retiree *retiree = CONTAINER_OF(node, struct retiree, node);
    MODEL_CHECK(retiree->whole == 7 && retiree->freed == 0);
    retiree->freed = 1;
}

static void
retire(void)
{
    retirees[model_self].whole = 7;
    model_pause();
    epoch_retire(&retirees[model_self].node, model_free);
}

static void
reclaim(void)
{
    (void)epoch_pass();
    model_pause();
    (void)epoch_pass();
}

static void
model_reset(void)
{
    int failed = epoch_prepare();
    ASSERT(failed == 0);
    for (uint32_t i = 0; i < 2; i++) {
        retirees[i].whole = retirees[i].freed = 0;
    }
}

static void
model_verify(void)
{
    (void)epoch_pass();
    MODEL_CHECK(retirees[0].freed == 1 && retirees[1].freed == 1);
}
MODEL_MAIN(retire, retire, reclaim)
