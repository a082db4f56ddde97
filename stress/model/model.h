/* SPDX-License-Identifier: MIT */
/*
 * What the harnesses of this directory share. A harness includes the code
 * under test unchanged, by its .c files, and gives
 *   MODEL_MUTANTS(X)   X(NAME, WHO) for each seeded fault, and who can see it: ANY run, TSAN's
 *                      alone, GENMC alone, or nobody reliably (BY_HAND)
 *   model_order(word)  what a mutant makes of the orderings at a word: KEEP, RELAX, or SPLIT;
 *                      MODEL_ORDER(ptr) where that is more than a function
 *   model_reset, model_threads, model_verify, and what the threads may not see
 *
 * One source, two uses. As a program it plays rounds: all threads start at
 * once, jitter a little, and what one of them may not see ends the program
 * with exit status 3 (the race detector's is 66).
 *   model_x                 a second of rounds, or two; must find nothing
 *   model_x NAME            rounds with that fault until it is seen, two minutes at most
 *   model_x --mutants       the names of those that this build can see
 * With MODEL_GENMC the same file goes to a model checker, one round, every
 * execution that the memory model allows (genmc.sh).
 *
 * SPLIT: a read-modify-write becomes a load and a store, a sequentially
 * consistent store a release, and later loads of the thread may go before it.
 */
#ifndef ESKER_STRESS_MODEL_H
#define ESKER_STRESS_MODEL_H

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#ifdef MODEL_GENMC
#include "genmc/lacking.h"
#endif

#include "base/assert.h"
#include "sync/atomic.h"
#include "sync/futex.h"
#ifdef MODEL_GENMC
#define prefetch_own(ptr) ((void)(ptr)) /* the model checker knows no assembly */
#endif

/* ---- Mutants ------------------------------------------------------------------ */

#define MODEL_NAME_NO(name, who) name,

enum model_name { NO_MUTANT, MODEL_MUTANTS(MODEL_NAME_NO) };

enum { KEEP, RELAX, SPLIT };

#define model_at(word, object) ((word) == (uintptr_t)&object)
#ifndef MODEL_ORDER
static int model_order(uintptr_t word);
#define MODEL_ORDER(ptr) model_order((uintptr_t)(ptr))
#endif

#ifdef MODEL_GENMC
#define model_is(name) (MODEL_MUTANT == (name))
#else
static enum model_name model_mutant;
#define model_is(name) (model_mutant == (name))
#endif

#define MODEL_PICK(ptr, keep, relax, split)                                                                  \
    (MODEL_ORDER(ptr) == KEEP ? (keep) : MODEL_ORDER(ptr) == RELAX ? (relax) : (split))
/* What was loaded grows old before it is used. */
#define MODEL_LOAD(ptr, order)                                                                               \
    __extension__({                                                                                          \
        __typeof__(load_relaxed(ptr)) load_value =                                                           \
            MODEL_ORDER(ptr) == RELAX ? load_relaxed(ptr) : atomic_load_explicit(ptr, order);                \
        model_pause();                                                                                       \
        model_store_perhaps();                                                                               \
        load_value;                                                                                          \
    })
#define MODEL_RMW(ptr, change, order, value)                                                                 \
    MODEL_PICK(ptr, atomic_fetch_##change##_explicit(ptr, value, order),                                     \
               atomic_fetch_##change##_explicit(ptr, value, memory_order_relaxed),                           \
               model_split_##change(ptr, value))
#define model_split_add(ptr, value) model_split(ptr, split_old + (value))
#define model_split_sub(ptr, value) model_split(ptr, split_old - (value))
#define model_split_or(ptr, value) model_split(ptr, split_old | (value))
#define model_split(ptr, changed)                                                                            \
    __extension__({                                                                                          \
        __auto_type split_old = load_relaxed(ptr);                                                           \
        model_pause();                                                                                       \
        MODEL_STORE_LATE(ptr, changed);                                                                      \
        split_old;                                                                                           \
    })
#ifdef MODEL_GENMC
#define MODEL_STORE_LATE(ptr, value) atomic_store_explicit(ptr, value, memory_order_release)
#define model_store_now() ((void)0)
#define model_store_perhaps() ((void)0)
#else
/* A store buffer of one: a few of the thread's later loads go first, wherever this runs. */
#define MODEL_STORE_LATE(ptr, value) model_store_late((uintptr_t)(ptr), sizeof *(ptr), (uint64_t)(value))
static void model_store_late(uintptr_t word, size_t size, uint64_t value);
static void model_store_now(void);
static inline void model_store_perhaps(void);
#endif

#define MODEL_CAS(ptr, expected, desired, order, failed)                                                     \
    __extension__({                                                                                          \
        bool cas_done;                                                                                       \
        if (MODEL_ORDER(ptr) == SPLIT) {                                                                     \
            __auto_type cas_found = load_relaxed(ptr);                                                       \
            cas_done = cas_found == *(expected);                                                             \
            *(expected) = cas_found;                                                                         \
            model_pause();                                                                                   \
            if (cas_done) {                                                                                  \
                MODEL_STORE_LATE(ptr, desired);                                                              \
            }                                                                                                \
        } else if (MODEL_ORDER(ptr) == RELAX) {                                                              \
            cas_done = atomic_compare_exchange_strong_explicit(ptr, expected, desired, memory_order_relaxed, \
                                                               memory_order_relaxed);                        \
        } else {                                                                                             \
            MODEL_CAS_KEPT(ptr, expected, desired, order, failed)                                            \
        }                                                                                                    \
        model_pause();                                                                                       \
        cas_done;                                                                                            \
    })
#ifdef MODEL_GENMC /* takes a failed exchange for as weak as the load of a successful one */
#define MODEL_CAS_KEPT(ptr, expected, desired, order, failed)                                                \
    cas_done = atomic_compare_exchange_strong_explicit(ptr, expected, desired, order, memory_order_relaxed); \
    if (!cas_done) {                                                                                         \
        *(expected) = atomic_load_explicit(ptr, failed);                                                     \
    }
#else
#define MODEL_CAS_KEPT(ptr, expected, desired, order, failed)                                                \
    cas_done = atomic_compare_exchange_strong_explicit(ptr, expected, desired, order, failed);
#endif

#undef load_acquire
#undef load_seq
#undef store_release
#undef store_seq
#undef exchange_seq
#undef add_relaxed
#undef add_acq_rel
#undef add_seq
#undef sub_acq_rel
#undef or_seq
#undef cas_relaxed
#undef cas_release
#undef cas_acq_rel
#undef cas_seq
#define load_acquire(ptr) MODEL_LOAD(ptr, memory_order_acquire)
#define load_seq(ptr) MODEL_LOAD(ptr, memory_order_seq_cst)
#define store_release(ptr, value)                                                                            \
    (model_store_now(), MODEL_ORDER(ptr) == RELAX ? store_relaxed(ptr, value)                                \
                                                  : atomic_store_explicit(ptr, value, memory_order_release))
#define store_seq(ptr, value)                                                                                \
    MODEL_PICK(ptr, atomic_store_explicit(ptr, value, memory_order_seq_cst), store_relaxed(ptr, value),      \
               MODEL_STORE_LATE(ptr, value))
#define exchange_seq(ptr, value)                                                                             \
    MODEL_PICK(ptr, atomic_exchange_explicit(ptr, value, memory_order_seq_cst),                              \
               atomic_exchange_explicit(ptr, value, memory_order_relaxed), model_split(ptr, value))
#define add_relaxed(ptr, value)                                                                              \
    (MODEL_ORDER(ptr) == SPLIT ? model_split_add(ptr, value)                                                 \
                               : atomic_fetch_add_explicit(ptr, value, memory_order_relaxed))
#define add_acq_rel(ptr, value) MODEL_RMW(ptr, add, memory_order_acq_rel, value)
#define add_seq(ptr, value) MODEL_RMW(ptr, add, memory_order_seq_cst, value)
#define sub_acq_rel(ptr, value) MODEL_RMW(ptr, sub, memory_order_acq_rel, value)
#define or_seq(ptr, value) MODEL_RMW(ptr, or, memory_order_seq_cst, value)
#define cas_relaxed(ptr, expected, desired)                                                                  \
    MODEL_CAS(ptr, expected, desired, memory_order_relaxed, memory_order_relaxed)
#define cas_release(ptr, expected, desired)                                                                  \
    MODEL_CAS(ptr, expected, desired, memory_order_release, memory_order_acquire)
#define cas_acq_rel(ptr, expected, desired)                                                                  \
    MODEL_CAS(ptr, expected, desired, memory_order_acq_rel, memory_order_acquire)
#define cas_seq(ptr, expected, desired)                                                                      \
    MODEL_CAS(ptr, expected, desired, memory_order_seq_cst, memory_order_seq_cst)

/* ---- Rounds --------------------------------------------------------------------- */

enum { MODEL_THREADS_MAX = 3 };

/* How often something is done in a round, and how often where every execution of it is looked at. */
#ifdef MODEL_GENMC
#define MODEL_BOUND(often, every) (every)
#else
#define MODEL_BOUND(often, every) (often)
#endif

static void model_reset(void);  /* before a round; alone */
static void model_verify(void); /* after it; alone */

static _Thread_local uint32_t model_self;
static pthread_mutex_t model_kernel = PTHREAD_MUTEX_INITIALIZER; /* the model's own; guards what follows */
#ifdef MODEL_FUTEX
static bool model_asleep[MODEL_THREADS_MAX];
#endif
static uint32_t model_idle_count; /* threads that sleep or are done */

#ifdef MODEL_GENMC
#include "genmc/one_round.h"
#else
#include "rounds.h"
#endif

/* ---- Sleep: a futex that never times out and never wakes by chance. Who falls asleep or wakes
 * others has passed a full barrier in the kernel. ---- */

#ifdef MODEL_FUTEX
/* Nobody can do anything any more: a sleeper was left behind, unless it has no reason to wake
 * (then the harness has this function, and defines MODEL_IDLE). */
#ifdef MODEL_IDLE
static void model_all_idle(void);
#else
static void
model_all_idle(void)
{
    static const bool sleeper_woken = false;
    MODEL_CHECK(sleeper_woken);
}
#endif

void
futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    model_store_now();
    if (model_times_out(timeout_ns)) {
        return;
    }
    pthread_mutex_lock(&model_kernel);
    model_kernel_barrier();
    if (load_relaxed(word) == expected) {
        model_asleep[model_self] = true;
        model_idle_count++;
        model_sleep(model_all_idle);
    }
    pthread_mutex_unlock(&model_kernel);
}

void
futex_wake_all(_Atomic uint32_t *word)
{
    (void)word;
    model_store_now();
    pthread_mutex_lock(&model_kernel);
    model_kernel_barrier();
    for (uint32_t i = 0; i < MODEL_THREADS_MAX; i++) {
        model_idle_count -= model_asleep[i] ? 1 : 0;
        model_asleep[i] = false;
    }
    pthread_mutex_unlock(&model_kernel);
}
#endif

/* ---- Memory: a pool for one round, spoiled when it is freed ------------------------- */

#ifdef MODEL_MEM
#include "base/mem.h"

enum { MODEL_POOL_WORDS = 8192 };

#ifdef MODEL_GENMC
#define MODEL_CLEARED(size) 0
#else
#define MODEL_CLEARED(size) (size)
#endif

struct model_pool {
    CACHE_ALIGNED uint64_t words[MODEL_POOL_WORDS];
    _Atomic uint32_t used;
};

static struct model_pool model_pool;         /* for one round */
static struct model_pool model_pool_default; /* what outlives it: thread states */
static const struct mem model_mem;
const struct mem mem_default;

static void model_spoil(void *ptr); /* what is freed; makes a later use of it visible */

void *
mem_alloc_aligned(const struct mem *mem, size_t alignment, size_t size)
{
    (void)alignment;
    struct model_pool *pool = mem == &mem_default ? &model_pool_default : &model_pool;
    uint32_t words = (uint32_t)align_up(size, CACHE_LINE_BYTES) / 8;
    uint32_t at = atomic_fetch_add_explicit(&pool->used, words, memory_order_relaxed);
    ASSERT(at + words <= MODEL_POOL_WORDS);
    return &pool->words[at];
}

void *
mem_alloc(const struct mem *mem, size_t size)
{
    return mem_alloc_aligned(mem, 8, size);
}

void *
mem_zalloc(const struct mem *mem, size_t size)
{
    uint64_t *words = mem_alloc_aligned(mem, 8, size);
    for (size_t i = 0; i < MODEL_CLEARED(size) / 8; i++) {
        words[i] = 0; /* it is, already; but the race detector is to see when */
    }
    return words;
}

void *
mem_alloc_array(const struct mem *mem, size_t count, size_t size)
{
    return mem_alloc_aligned(mem, 8, count * size);
}

void *
mem_zalloc_array(const struct mem *mem, size_t count, size_t size)
{
    return mem_zalloc(mem, count * size);
}

void
mem_free(const struct mem *mem, void *ptr)
{
    (void)mem;
    if (ptr != NULL) {
        model_spoil(ptr);
    }
}

void
mem_init(struct mem *mem, const esker_allocator *allocator)
{
    (void)mem, (void)allocator;
}

static void
model_pool_reset(struct model_pool *pool)
{
    uint32_t used = load_relaxed(&pool->used);
    for (uint32_t i = 0; i < used; i++) {
        pool->words[i] = 0;
    }
    store_relaxed(&pool->used, 0);
}
#endif

#endif
