/* SPDX-License-Identifier: MIT */
/*
 * Mutexes and conditions over pthreads. Every pthread call that fails here
 * fails because of misuse (unlocking what is not held, destroying what is in
 * use), so each result is asserted.
 */
#include "sync/mutex.h"

#include <errno.h>
#include <time.h>

#include "sync/thread.h"

void
mutex_init(struct mutex *mutex)
{
    pthread_mutexattr_t attr;
    int failed = pthread_mutexattr_init(&attr);
    ASSERT(failed == 0);
#ifdef ESKER_DEBUG
    /* A relock or a foreign unlock then fails, and the callers assert. */
    failed = pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ERRORCHECK);
    ASSERT(failed == 0);
#endif
    failed = pthread_mutex_init(&mutex->raw, &attr);
    ASSERT(failed == 0);
    failed = pthread_mutexattr_destroy(&attr);
    ASSERT(failed == 0);
}

void
mutex_fini(struct mutex *mutex)
{
    int failed = pthread_mutex_destroy(&mutex->raw);
    ASSERT(failed == 0);
}

void
cond_init(struct cond *cond)
{
    pthread_condattr_t attr;
    int failed = pthread_condattr_init(&attr);
    ASSERT(failed == 0);
    /* Deadlines must not move when somebody sets the wall clock. */
    failed = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    ASSERT(failed == 0);
    failed = pthread_cond_init(&cond->raw, &attr);
    ASSERT(failed == 0);
    failed = pthread_condattr_destroy(&attr);
    ASSERT(failed == 0);
}

void
cond_fini(struct cond *cond)
{
    int failed = pthread_cond_destroy(&cond->raw);
    ASSERT(failed == 0);
}

void
cond_wait(struct cond *cond, struct mutex *mutex)
{
    ASSERT_SLOW(thread_may_wait());
    THREAD_UNCANCELLED;
    int failed = pthread_cond_wait(&cond->raw, &mutex->raw);
    ASSERT(failed == 0);
}

bool
cond_wait_until(struct cond *cond, struct mutex *mutex, uint64_t deadline_ns)
{
    ASSERT_SLOW(thread_may_wait());
    THREAD_UNCANCELLED;
    struct timespec until = {
        .tv_sec = (time_t)(deadline_ns / 1000000000u),
        .tv_nsec = (long)(deadline_ns % 1000000000u),
    };
    int failed = pthread_cond_timedwait(&cond->raw, &mutex->raw, &until);
    ASSERT(failed == 0 || failed == ETIMEDOUT);
    return failed == 0;
}

void
cond_signal(struct cond *cond)
{
    int failed = pthread_cond_signal(&cond->raw);
    ASSERT(failed == 0);
}

void
cond_broadcast(struct cond *cond)
{
    int failed = pthread_cond_broadcast(&cond->raw);
    ASSERT(failed == 0);
}
