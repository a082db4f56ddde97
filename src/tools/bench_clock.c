/* SPDX-License-Identifier: MIT */
/* Chooses the clock for single operations and measures its pace. */
#include "tools/bench_clock.h"

#include <stdio.h>
#include <string.h>

struct bench_clock bench_clock = {.counter = false, .mul = 1ULL << 32, .ticks_per_ns = 1.0};

/* The kernel uses the counter itself only when it is steady across cores and sleep. */
static bool
clock_counter_trusted(void)
{
#if defined(__aarch64__)
    return true;
#else
    char name[32] = "";
    FILE *file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
    if (file == NULL) {
        return false;
    }
    size_t len = fread(name, 1, sizeof name - 1, file);
    (void)fclose(file);
    name[len] = 0;
    return strcmp(name, "tsc\n") == 0;
#endif
}

void
bench_clock_init(void)
{
    bench_clock = (struct bench_clock){.counter = false, .mul = 1ULL << 32, .ticks_per_ns = 1.0};
    if (!clock_counter_trusted()) {
        return;
    }
    bench_clock.counter = true;
    uint64_t ns_first = bench_now_ns();
    uint64_t ticks_first = bench_ticks();
    uint64_t ns_last = ns_first;
    while (ns_last - ns_first < 20000000) {
        ns_last = bench_now_ns();
    }
    uint64_t ticks = bench_ticks() - ticks_first;
    if (ticks == 0) {
        bench_clock.counter = false;
        return;
    }
    bench_clock.ticks_per_ns = (double)ticks / (double)(ns_last - ns_first);
    bench_clock.mul = (uint64_t)(4294967296.0 / bench_clock.ticks_per_ns);
}
