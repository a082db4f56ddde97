/* SPDX-License-Identifier: MIT */
/*
 * Waiting for a word to change. The kernel compares and sleeps in one step,
 * so a change before the sleep is never missed; every return may be early,
 * and the caller looks at the word again.
 */
#include "sync/futex.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/compiler.h"
#include "sync/thread.h"

void
futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    ASSERT_SLOW(thread_may_wait());
    struct timespec limit = {
        .tv_sec = (time_t)(timeout_ns / 1000000000u),
        .tv_nsec = (long)(timeout_ns % 1000000000u),
    };
    int kept_errno = errno;
    long failed =
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, timeout_ns != 0 ? &limit : NULL, NULL, 0);
    ASSERT(failed == 0 || errno == EAGAIN || errno == EINTR || errno == ETIMEDOUT);
    errno = kept_errno;
}

void
futex_wake_all(_Atomic uint32_t *word)
{
    long failed = syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    ASSERT(failed >= 0);
}
