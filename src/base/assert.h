/* SPDX-License-Identifier: MIT */
/*
 * ASSERT: an internal invariant; stays on in release. Memory can break it,
 * a disk or a caller must never be able to: those get a status.
 * ASSERT_SLOW: the same where checking costs more than O(1); debug builds only.
 */
#ifndef ESKER_BASE_ASSERT_H
#define ESKER_BASE_ASSERT_H

#include "base/compiler.h"

_Noreturn void assert_failed(const char *file, int line, const char *text);

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (UNLIKELY(!(condition))) {                                                              \
            assert_failed(__FILE__, __LINE__, #condition);                                         \
        }                                                                                          \
    } while (0)

#ifdef ESKER_DEBUG
#define ASSERT_SLOW(condition) ASSERT(condition)
#else
#define ASSERT_SLOW(condition) ((void)sizeof(condition))
#endif

#define UNREACHABLE() assert_failed(__FILE__, __LINE__, "unreachable")

#endif
