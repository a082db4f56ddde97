/* rooms: sync */
/* SPDX-License-Identifier: MIT */
/*
 * The sleep of the reclaimer, and drains (src/sync/epoch.c). One thread is the reclaimer; one retires a node
 * and drains; one retires a node and goes. A drain returns when what was retired before it is freed; a
 * reclaimer that sleeps has nothing to do. When nobody can go on the reclaimer is told to stop, as the last
 * holder does.
 * In a round: 3 threads, 2 retirements, 1 drain. Naps end at once.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(EPOCH_DRAIN_RELAXED, GENMC)                                                                            \
    X(SLEEP_THEN_LOOK, BY_HAND) X(RECLAIMER_SLEEP_RELAXED, GENMC) X(RETIRE_THEN_LOOK, ANY)
#define MODEL_FUTEX
#define MODEL_IDLE
#define model_times_out(timeout_ns) ((timeout_ns) != 0)
#include "model.h"
#include "sync/epoch.c"

static struct epoch_node nodes[2];
static uint32_t freed[2]; /* plain */

static int
model_order(uintptr_t word)
{
    bool drain = model_at(word, drain_wanted) || model_at(word, drain_done);
    bool state = model_at(word, reclaimer_state);
    if ((model_is(EPOCH_DRAIN_RELAXED) && drain) || (model_is(RECLAIMER_SLEEP_RELAXED) && state)) {
        return RELAX;
    }
    bool late = model_is(RETIRE_THEN_LOOK) && model_at(word, retired_head);
    return late || (model_is(SLEEP_THEN_LOOK) && state) ? SPLIT : KEEP;
}

static void
model_free(struct epoch_node *node)
{
    freed[node == &nodes[1]] = 1;
}

static void
reclaim(void)
{
    (void)reclaimer_run(NULL);
}

static void
retire_and_drain(void)
{
    epoch_retire(&nodes[0], model_free);
    epoch_drain();
    MODEL_CHECK(freed[0] == 1);
}

static void
retire_and_go(void)
{
    MODEL_BOUND(epoch_retire(&nodes[1], model_free), (void)(freed[1] = 1));
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
    freed[0] = freed[1] = 0;
    epoch_runtime.has_thread = true;
    store_relaxed(&reclaimer_stopping, 0);
    store_relaxed(&reclaimer_state, RECLAIMER_AWAKE);
}

/* A reclaimer that was woken goes on: by itself, or where sleeping ended its thread, here. */
static void
model_verify(void)
{
    MODEL_CHECK(!model_asleep[0] || load_relaxed(&retired_head) == NULL);
    store_relaxed(&reclaimer_stopping, 1);
    if (!model_asleep[0]) {
        reclaim();
    }
    MODEL_CHECK(!model_asleep[1] && freed[0] + freed[1] == 2);
}
MODEL_MAIN(reclaim, retire_and_drain, retire_and_go)
