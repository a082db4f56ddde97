/* rooms: sync */
/* SPDX-License-Identifier: MIT */
/*
 * Retiring, draining, and the sleep of the reclaimer (src/sync/epoch.c). One thread is the reclaimer; one
 * retires a node and drains; one retires a node and goes. A drain returns when what was retired before it
 * is freed; every node is freed once, whole; a reclaimer that sleeps has nothing to do. When nobody can go
 * on the reclaimer is told to stop, as the last holder does.
 * In a round: 3 threads, 2 retirements, 1 drain. Naps end at once.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(EPOCH_RETIRE_RELAXED, TSAN)                                                                            \
    X(EPOCH_DRAIN_RELAXED, GENMC)                                                                            \
    X(SLEEP_THEN_LOOK, BY_HAND) X(RECLAIMER_SLEEP_RELAXED, GENMC) X(RETIRE_IN_TWO_STEPS, ANY)
#define MODEL_THREADS 3
#define MODEL_FUTEX
#define MODEL_IDLE
#define model_times_out(timeout_ns) ((timeout_ns) != 0)
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
    bool stack = word == (uintptr_t)&retired_head;
    bool drain = word == (uintptr_t)&drain_wanted || word == (uintptr_t)&drain_done;
    bool state = word == (uintptr_t)&reclaimer_state;
    if ((model_is(EPOCH_RETIRE_RELAXED) && stack) || (model_is(EPOCH_DRAIN_RELAXED) && drain) ||
        (model_is(RECLAIMER_SLEEP_RELAXED) && state)) {
        return RELAX;
    }
    return (model_is(SLEEP_THEN_LOOK) && state) || (model_is(RETIRE_IN_TWO_STEPS) && stack) ? SPLIT : KEEP;
}

static void
model_free(struct epoch_node *node)
{
    struct retiree *retiree = CONTAINER_OF(node, struct retiree, node);
    MODEL_CHECK(retiree->whole == 7 && retiree->freed == 0);
    retiree->freed = 1;
}

static void
retire(uint32_t which)
{
    retirees[which].whole = 7;
    model_pause();
    epoch_retire(&retirees[which].node, model_free);
}

static void
reclaim(void)
{
    (void)reclaimer_run(NULL);
}

static void
retire_and_drain(void)
{
    retire(0);
    epoch_drain();
    MODEL_CHECK(retirees[0].freed == 1);
}

static void
retire_and_go(void)
{
    retire(1);
}

/* The reclaimer sleeps and the others have gone. */
static void
model_all_idle(void)
{
    MODEL_CHECK(load_relaxed(&retired_head) == NULL);
    MODEL_CHECK(!model_asleep[1]);
    store_relaxed(&reclaimer_stopping, 1);
    model_asleep[0] = false;
    model_idle_count--;
}

static void
model_reset(void)
{
    int failed = epoch_prepare();
    ASSERT(failed == 0);
    retirees[0] = retirees[1] = (struct retiree){.whole = 0};
    epoch_runtime.has_thread = true;
    store_relaxed(&reclaimer_stopping, 0);
    store_relaxed(&reclaimer_state, RECLAIMER_AWAKE);
}

static void
model_verify(void)
{
    MODEL_CHECK(!model_asleep[0] || load_relaxed(&retired_head) == NULL);
    MODEL_CHECK(!model_asleep[1]);
}

MODEL_MAIN(reclaim, retire_and_drain, retire_and_go)
