/* SPDX-License-Identifier: MIT */
/* What the compiler offers beyond C17, under one name each. */
#ifndef ESKER_BASE_COMPILER_H
#define ESKER_BASE_COMPILER_H

#include <stddef.h>
#include <stdint.h>

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)
#define NODISCARD __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_at, first_at) __attribute__((format(printf, format_at, first_at)))
#define NOINLINE __attribute__((noinline))
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define CLEANUP(fn) __attribute__((cleanup(fn)))
#define COUNTOF(array) (sizeof(array) / sizeof((array)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr) - offsetof(type, member)))
#define PREFETCH_READ(ptr) __builtin_prefetch((ptr), 0, 3)
#define PREFETCH_WRITE(ptr) __builtin_prefetch((ptr), 1, 3)

enum { CACHE_LINE_BYTES = 64 };
#define CACHE_ALIGNED __attribute__((aligned(64)))

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* Rounds up to a multiple of a power of two. The caller knows it cannot wrap. */
static inline uint64_t
align_up(uint64_t value, uint64_t power)
{
    return (value + power - 1) & ~(power - 1);
}

#endif
