/* rooms: sync */
/* SPDX-License-Identifier: MIT */
/*
 * Thread states (src/sync/epoch.c): two threads take a state, use it and hand it back, twice; a third looks
 * at all of them, as close does. A state has one owner at a time; what the last one did to it is seen by
 * the next; a listed state is complete.
 * In a round: 3 threads, two lives of one state each, one walk.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(THREAD_LIST_RELAXED, TSAN)                                                                             \
    X(THREAD_STATE_RELAXED, TSAN) X(TAKE_IN_TWO_STEPS, ANY) X(LIST_IN_TWO_STEPS, ANY)
#define MODEL_MEM
#include "model.h"
#include "sync/epoch.c"

enum { LIVES = MODEL_BOUND(2, 1) };

static uint32_t nobody; /* no call is in it */
static _Atomic uint32_t listed;

static int
model_order(uintptr_t word)
{
    bool list = word == (uintptr_t)&thread_states;
    bool used = !list && word != (uintptr_t)&thread_stripes && word != (uintptr_t)&listed;
    if ((model_is(THREAD_LIST_RELAXED) && list) || (model_is(THREAD_STATE_RELAXED) && used)) {
        return RELAX;
    }
    return (model_is(LIST_IN_TWO_STEPS) && list) || (model_is(TAKE_IN_TWO_STEPS) && used) ? SPLIT : KEEP;
}

static void
model_spoil(void *ptr)
{
    (void)ptr;
}

static void
live(void)
{
    for (uint32_t life = 0; life < LIVES; life++) {
        struct thread_state *state = thread_state_recycle();
        if (state == NULL) {
            state = thread_state_make();
            atomic_fetch_add_explicit(&listed, 1, memory_order_relaxed);
        }
        MODEL_CHECK(!state->in_section);
        state->in_section = true; /* plain: the owner's */
        model_pause();
        MODEL_CHECK(state->in_section);
        state->in_section = false;
        thread_state_hand_back(state);
    }
}

static void
look(void)
{
    MODEL_CHECK(MODEL_BOUND(!thread_state_any(&nobody), true)); /* its many looks multiply executions */
    for (struct thread_state *state = load_acquire(&thread_states); state != NULL; state = state->next) {
        MODEL_CHECK(state->stripe < MODEL_THREADS_MAX);
    }
}

static void
model_reset(void)
{
    int failed = epoch_prepare();
    ASSERT(failed == 0);
    model_pool_reset(&model_pool_default);
    ck_epoch_init(&process_epoch);
    store_relaxed(&thread_states, NULL);
    store_relaxed(&thread_stripes, 0);
    store_relaxed(&listed, 0);
}

static void
model_verify(void)
{
    uint32_t count = 0;
    for (struct thread_state *state = load_relaxed(&thread_states); state != NULL; state = state->next) {
        MODEL_CHECK(load_relaxed(&state->used) == 0);
        count++;
    }
    MODEL_CHECK(count == load_relaxed(&listed));
}

MODEL_MAIN(live, live, look)
