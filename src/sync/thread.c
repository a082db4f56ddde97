/* SPDX-License-Identifier: MIT */
/*
 * How the engine starts a thread. Signals are blocked in it, so that the host
 * program's handlers only ever run on the host's own threads. Those that a
 * faulting instruction raises stay open: they cannot go elsewhere, and the
 * host's crash reporter wants them.
 */
#include "sync/thread.h"

#include <signal.h>
#include <time.h>

#include "base/assert.h"
#include "sync/epoch.h"

/* Sanitizers put red zones around locals, which makes frames several times larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { THREAD_STACK_BYTES = 2 << 20 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
enum { THREAD_STACK_BYTES = 2 << 20 };
#else
enum { THREAD_STACK_BYTES = 256 << 10 };
#endif
#else
enum { THREAD_STACK_BYTES = 256 << 10 };
#endif

esker_status
thread_start(pthread_t *thread_out, const char *name, void *(*run)(void *arg), void *arg)
{
    pthread_attr_t attr;
    int failed = pthread_attr_init(&attr);
    if (failed != 0) {
        return FAIL_OS(failed, NULL, 0, "cannot prepare thread %s", name);
    }
    failed = pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
    ASSERT(failed == 0);

    /* A new thread inherits the mask: blocked from its first instruction on. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t blocked;
    sigset_t kept;
    sigfillset(&blocked);
    for (size_t idx = 0; idx < COUNTOF(faults); idx++) {
        sigdelset(&blocked, faults[idx]);
    }
    failed = pthread_sigmask(SIG_SETMASK, &blocked, &kept);
    ASSERT(failed == 0);
    pthread_t thread;
    int refused = pthread_create(&thread, &attr, run, arg);
    failed = pthread_sigmask(SIG_SETMASK, &kept, NULL);
    ASSERT(failed == 0);
    failed = pthread_attr_destroy(&attr);
    ASSERT(failed == 0);
    if (refused != 0) {
        return FAIL_OS(refused, NULL, 0, "cannot start thread %s", name);
    }
    /* The name helps people who look at the process; nothing depends on it. */
    (void)pthread_setname_np(thread, name);
    *thread_out = thread;
    return ESKER_OK;
}

void
thread_join(pthread_t thread)
{
    THREAD_UNCANCELLED;
    int failed = pthread_join(thread, NULL);
    ASSERT(failed == 0);
}

uint64_t
thread_cpu_ns(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    ASSERT(failed == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

bool
thread_may_wait(void)
{
    return thread_state_self == NULL || !thread_state_self->in_section;
}
