/* SPDX-License-Identifier: MIT */
/* How a model checker plays model.h's one round: a thread that sleeps ends there. */
#ifndef ESKER_STRESS_MODEL_GENMC_ONE_ROUND_H
#define ESKER_STRESS_MODEL_GENMC_ONE_ROUND_H

#include <assert.h>
#include <genmc.h>

#include "genmc/stubs.h"

#define MODEL_CHECK(condition) assert(condition)
#define model_wait_until(condition) __VERIFIER_assume(condition)
#define model_kernel_barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define cpu_relax() ((void)0)
#define sched_yield() 0

_Noreturn void
assert_failed(const char *file, int line, const char *text)
{
    (void)file, (void)line, (void)text;
    assert(0);
    __builtin_unreachable();
}

static inline void
model_pause(void)
{
}

#ifndef model_times_out
#define model_times_out(timeout_ns) false
#endif

/* model_kernel held. */
#define model_sleep(all_idle)                                                                                \
    do {                                                                                                     \
        pthread_mutex_unlock(&model_kernel);                                                                 \
        pthread_exit(NULL);                                                                                  \
    } while (0)

#define MODEL_MAIN(...)                                                                                      \
    static void (*const model_threads[])(void) = {__VA_ARGS__};                                              \
    static void *model_start(void *arg)                                                                      \
    {                                                                                                        \
        model_self = *(const uint32_t *)arg;                                                                 \
        model_threads[model_self]();                                                                         \
        return NULL;                                                                                         \
    }                                                                                                        \
    int main(void)                                                                                           \
    {                                                                                                        \
        static const uint32_t numbers[MODEL_THREADS_MAX] = {0, 1, 2};                                        \
        pthread_t threads[MODEL_THREADS_MAX];                                                                \
        model_reset();                                                                                       \
        for (uint32_t i = 0; i < COUNTOF(model_threads); i++) {                                              \
            pthread_create(&threads[i], NULL, model_start, (void *)(uintptr_t)&numbers[i]);                  \
        }                                                                                                    \
        for (uint32_t i = 0; i < COUNTOF(model_threads); i++) {                                              \
            pthread_join(threads[i], NULL);                                                                  \
        }                                                                                                    \
        model_verify();                                                                                      \
        return 0;                                                                                            \
    }

#endif
