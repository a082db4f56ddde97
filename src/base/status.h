/* SPDX-License-Identifier: MIT */
/*
 * Failures: a status travels up as the return value, its story (which file,
 * which offset, which errno) waits in a per-thread slot, written once at the
 * origin by FAIL. Successes leave the slot alone.
 *
 * TRY propagates: 0 is the only value it lets pass, so a function that may
 * return ESKER_NOT_FOUND or ESKER_END is called without it.
 */
#ifndef ESKER_BASE_STATUS_H
#define ESKER_BASE_STATUS_H

#include "base/compiler.h"
#include "esker/esker.h"

/* Records the failure and returns `status`. file may be NULL. */
NODISCARD esker_status status_fail(esker_status status, int os_errno, const char *file, uint64_t offset,
                                   const char *format, ...) PRINTF_LIKE(5, 6);

/* The slot itself: read by esker_last_error, copied into sticky background
 * errors and put back by status_restore in the thread that meets them. */
const esker_error *status_last(void);
esker_status status_restore(const esker_error *error);
/* The same story as the cause of another status, with words in front of it. */
esker_status status_because(esker_status status, const char *words, const esker_error *cause);
/* Did it fail for want of descriptors? */
bool status_lacks_files(const esker_error *error);

/* What goes in comes out, and said here the compiler sees it: after a failure nobody reads what only a
 * success has written. */
#define STATUS_FAIL(status, ...)                                                                             \
    ({                                                                                                       \
        const esker_status failed_ = (status);                                                               \
        const esker_status told_ = status_fail(failed_, __VA_ARGS__);                                        \
        (void)told_;                                                                                         \
        failed_;                                                                                             \
    })
#ifdef __clang_analyzer__
#define STATUS_OF_ERRNO(os_errno) ESKER_IO /* the analyzer does not see into status_from_errno */
#else
#define STATUS_OF_ERRNO(os_errno) status_from_errno(os_errno)
#endif

/* FAIL(status, "sentence", ...): no file involved. */
#define FAIL(status, ...) STATUS_FAIL((status), 0, NULL, 0, __VA_ARGS__)
/* FAIL_AT: damage or refusal at a byte of a file. */
#define FAIL_AT(status, file, offset, ...) STATUS_FAIL((status), 0, (file), (offset), __VA_ARGS__)
/* FAIL_OS: an errno; the status follows from it (ENOSPC and EDQUOT: NO_SPACE, ENOMEM: NO_MEMORY, else IO). */
#define FAIL_OS(os_errno, file, offset, ...)                                                                 \
    STATUS_FAIL(STATUS_OF_ERRNO(os_errno), (os_errno), (file), (offset), __VA_ARGS__)
#define FAIL_NO_MEMORY(what) STATUS_FAIL(ESKER_NO_MEMORY, 0, NULL, 0, "no memory for %s", (what))

esker_status status_from_errno(int os_errno);

#define TRY(expression)                                                                                      \
    do {                                                                                                     \
        esker_status try_status_ = (expression);                                                             \
        if (UNLIKELY(try_status_ != ESKER_OK)) {                                                             \
            return try_status_;                                                                              \
        }                                                                                                    \
    } while (0)

/* The same inside a function with an `out:` label and a `status` variable. */
#define TRY_OUT(expression)                                                                                  \
    do {                                                                                                     \
        status = (expression);                                                                               \
        if (UNLIKELY(status != ESKER_OK)) {                                                                  \
            goto out;                                                                                        \
        }                                                                                                    \
    } while (0)

#define IGNORE_STATUS(expression, why)                                                                       \
    do {                                                                                                     \
        esker_status ignored_ = (expression);                                                                \
        (void)ignored_;                                                                                      \
        (void)sizeof(why);                                                                                   \
    } while (0)

#endif
