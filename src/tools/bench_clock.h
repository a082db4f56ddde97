/* SPDX-License-Identifier: MIT */
/*
 * Two clocks: CLOCK_MONOTONIC for phases, and for single operations the
 * processor's time stamp counter where the kernel trusts it too (a quarter of
 * the cost, which matters beside reads of 300 ns). Ticks are converted with a
 * factor measured at the start.
 */
#ifndef ESKER_TOOLS_BENCH_CLOCK_H
#define ESKER_TOOLS_BENCH_CLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

struct bench_clock {
    bool counter; /* ticks come from the processor */
    uint64_t mul; /* ns = ticks * mul >> 32 */
    double ticks_per_ns;
};

extern struct bench_clock bench_clock;

/* Takes about 20 ms. */
void bench_clock_init(void);

static inline uint64_t
bench_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static inline uint64_t
bench_ticks(void)
{
    if (!bench_clock.counter) {
        return bench_now_ns();
    }
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return bench_now_ns();
#endif
}

static inline uint64_t
bench_ticks_to_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * bench_clock.mul) >> 32);
}

static inline uint64_t
bench_ns_to_ticks(uint64_t ns)
{
    return (uint64_t)((double)ns * bench_clock.ticks_per_ns);
}

#endif
