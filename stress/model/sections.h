/* SPDX-License-Identifier: MIT */
/*
 * Sections and retirement for harnesses whose code under test uses them but is
 * not them (that is model_epoch.c). As a program: the real ones, with the real
 * reclaimer. Under the model checker, which cannot read ck's assembly: a grace
 * period in its shortest form, run by the retirer.
 *
 * A harness may define model_no_section and model_no_grace as its mutants.
 */
#ifndef ESKER_STRESS_MODEL_SECTIONS_H
#define ESKER_STRESS_MODEL_SECTIONS_H

#include "sync/epoch.h"

#ifndef model_no_section
#define model_no_section() false
#endif
#ifndef model_no_grace
#define model_no_grace() false
#endif

#ifdef MODEL_GENMC
_Thread_local struct thread_state *thread_state_self;
_Atomic uint32_t fork_generation;
static struct thread_state model_states[MODEL_THREADS_MAX];
static _Atomic uint32_t model_inside[MODEL_THREADS_MAX];

struct thread_state *
thread_state_create(void)
{
    return &model_states[model_self];
}

bool
thread_state_any(const void *db)
{
    for (uint32_t i = 0; i < MODEL_THREADS_MAX; i++) {
        if (load_seq(&model_states[i].in_call) == db ||            /* pairs: CALL_CLOSE */
            load_acquire(&model_states[i].outer_calls[0]) == db) { /* pairs: CALL_CLOSE */
            return true;
        }
    }
    return false;
}

/* As ck_epoch_begin: a store and a full barrier. */
static inline void
model_enter(struct thread_state *self)
{
    (void)self;
    if (!model_no_section()) {
        store_relaxed(&model_inside[model_self], 1);
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
}

static inline void
model_exit(struct thread_state *self)
{
    (void)self;
    atomic_store_explicit(&model_inside[model_self], 0, memory_order_release);
}

static inline void
model_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *node))
{
    for (uint32_t i = 0; i < MODEL_THREADS_MAX && !model_no_grace(); i++) {
        __VERIFIER_assume(i == model_self || atomic_load(&model_inside[i]) == 0);
    }
    free_fn(node);
}

static inline void
model_epoch_start(void)
{
}

#define epoch_drain() ((void)0)
#else
static inline void
model_enter(struct thread_state *self)
{
    if (!model_no_section()) {
        epoch_enter(self);
    }
}

static inline void
model_exit(struct thread_state *self)
{
    if (!model_no_section()) {
        epoch_exit(self);
    }
}

static inline void
model_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *node))
{
    if (model_no_grace()) {
        free_fn(node);
    } else {
        epoch_retire(node, free_fn);
    }
}

/* Before the first round. */
static inline void
model_epoch_start(void)
{
    static bool started;
    if (!started) {
        esker_status status = epoch_runtime_acquire(false);
        ASSERT(status == ESKER_OK);
        started = true;
    }
}
#endif

#define epoch_enter model_enter
#define epoch_exit model_exit
#define epoch_retire model_retire

#endif
