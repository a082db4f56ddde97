/* SPDX-License-Identifier: MIT */
/* The engine's own threads: named, deaf to signals, with small stacks. */
#ifndef ESKER_SYNC_THREAD_H
#define ESKER_SYNC_THREAD_H

#include <pthread.h>

#include "base/status.h"

/* name: at most 15 bytes. The thread must be joined. */
NODISCARD esker_status thread_start(pthread_t *thread_out, const char *name, void *(*run)(void *arg),
                                    void *arg);
void thread_join(pthread_t thread);
/* False inside an epoch section, where nobody takes a lock, sleeps or begins I/O: the reclaimer, and with it
 * all memory that was unlinked, would wait too. For ASSERT_SLOW. */
bool thread_may_wait(void);
/* Processor time that the calling thread has used. */
uint64_t thread_cpu_ns(void);

static inline void
thread_cancel_restore(const int *state)
{
    (void)pthread_setcancelstate(*state, NULL);
}

static inline int
thread_cancel_disable(void)
{
    int state = PTHREAD_CANCEL_ENABLE;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    return state;
}

/* To the end of the block the host may cancel this thread (pthread_cancel), but it goes on: what
 * others wait for, a leader's sync, a lock, is not left behind. In every function that calls what
 * POSIX names a cancellation point, so that a thread in a public call ends behind it. */
#define THREAD_UNCANCELLED                                                                                   \
    __attribute__((cleanup(thread_cancel_restore))) const int thread_cancel_state = thread_cancel_disable(); \
    (void)thread_cancel_state

#endif
