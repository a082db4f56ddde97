/* SPDX-License-Identifier: MIT */
/* Mutexes and conditions that cannot fail: misuse is a broken invariant. */
#ifndef ESKER_SYNC_MUTEX_H
#define ESKER_SYNC_MUTEX_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/assert.h"
#include "sync/thread.h"

struct mutex {
    pthread_mutex_t raw;
};

struct cond {
    pthread_cond_t raw; /* measures CLOCK_MONOTONIC */
};

#define MUTEX_INIT                                                                                           \
    {                                                                                                        \
        PTHREAD_MUTEX_INITIALIZER                                                                            \
    }

void mutex_init(struct mutex *mutex);
void mutex_fini(struct mutex *mutex);
void cond_init(struct cond *cond);
void cond_fini(struct cond *cond);

static inline void
mutex_lock(struct mutex *mutex)
{
    ASSERT_SLOW(thread_may_wait());
    int failed = pthread_mutex_lock(&mutex->raw);
    ASSERT(failed == 0);
}

static inline bool
mutex_try_lock(struct mutex *mutex)
{
    ASSERT_SLOW(thread_may_wait());
    return pthread_mutex_trylock(&mutex->raw) == 0;
}

static inline void
mutex_unlock(struct mutex *mutex)
{
    int failed = pthread_mutex_unlock(&mutex->raw);
    ASSERT(failed == 0);
}

/* Plain waits. Code that waits for background work uses workers_wait instead,
 * which also serves the single-threaded simulator. */
void cond_wait(struct cond *cond, struct mutex *mutex);
/* false: deadline_ns (CLOCK_MONOTONIC) has passed. */
bool cond_wait_until(struct cond *cond, struct mutex *mutex, uint64_t deadline_ns);
void cond_signal(struct cond *cond);
void cond_broadcast(struct cond *cond);

#endif
