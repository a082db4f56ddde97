/* SPDX-License-Identifier: MIT */
/*
 * The vocabulary for words that threads share: C11 atomics, with the ordering
 * in the verb. Rule of the house: every ordered site carries a comment
 * `pairs: NAME`; both ends of a pair use the same name, and
 * docs/concurrency.md lists every name. A relaxed site says why nothing
 * orders on it: `relaxed: ...`.
 *
 * No fences: the race detector does not model them.
 */
#ifndef ESKER_SYNC_ATOMIC_H
#define ESKER_SYNC_ATOMIC_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define load_relaxed(ptr) atomic_load_explicit((ptr), memory_order_relaxed)
#define load_acquire(ptr) atomic_load_explicit((ptr), memory_order_acquire)
#define load_seq(ptr) atomic_load_explicit((ptr), memory_order_seq_cst)
#define store_relaxed(ptr, value) atomic_store_explicit((ptr), (value), memory_order_relaxed)
#define store_release(ptr, value) atomic_store_explicit((ptr), (value), memory_order_release)
#define store_seq(ptr, value) atomic_store_explicit((ptr), (value), memory_order_seq_cst)
#define exchange_seq(ptr, value) atomic_exchange_explicit((ptr), (value), memory_order_seq_cst)
#define add_relaxed(ptr, value) atomic_fetch_add_explicit((ptr), (value), memory_order_relaxed)
#define add_acq_rel(ptr, value) atomic_fetch_add_explicit((ptr), (value), memory_order_acq_rel)
#define add_seq(ptr, value) atomic_fetch_add_explicit((ptr), (value), memory_order_seq_cst)
#define sub_acq_rel(ptr, value) atomic_fetch_sub_explicit((ptr), (value), memory_order_acq_rel)
#define or_seq(ptr, value) atomic_fetch_or_explicit((ptr), (value), memory_order_seq_cst)
/* Compare and swap; on failure *expected is what was found. */
#define cas_relaxed(ptr, expected, desired)                                                        \
    atomic_compare_exchange_strong_explicit((ptr), (expected), (desired), memory_order_relaxed,    \
                                            memory_order_relaxed)
#define cas_release(ptr, expected, desired)                                                        \
    atomic_compare_exchange_strong_explicit((ptr), (expected), (desired), memory_order_release,    \
                                            memory_order_acquire)
#define cas_acq_rel(ptr, expected, desired)                                                        \
    atomic_compare_exchange_strong_explicit((ptr), (expected), (desired), memory_order_acq_rel,    \
                                            memory_order_acquire)
#define cas_seq(ptr, expected, desired)                                                            \
    atomic_compare_exchange_strong_explicit((ptr), (expected), (desired), memory_order_seq_cst,    \
                                            memory_order_seq_cst)

/* A counter for statistics that one thread writes and others read: no RMW. */
#define counter_bump(ptr, value) store_relaxed((ptr), load_relaxed(ptr) + (value))

/* Starts getting the line at ptr to write to it, from whichever processor has it. */
static inline void
prefetch_own(const void *ptr)
{
#if defined(__x86_64__)
    /* __builtin_prefetch is a read's prefetch unless the compiler is told of the processor; where
     * there is no such instruction this is a no-operation. */
    __asm__ volatile("prefetchw %0" : : "m"(*(const char *)ptr));
#else
    __builtin_prefetch(ptr, 1, 3);
#endif
}

static inline void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
