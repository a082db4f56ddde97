/* SPDX-License-Identifier: MIT */
/* Facts about the machine that belong to every figure: no names, no addresses. */
#ifndef ESKER_TOOLS_BENCH_MACHINE_H
#define ESKER_TOOLS_BENCH_MACHINE_H

#include <stdint.h>

struct bench_machine {
    char cpu[96];
    uint32_t cores;
    uint64_t memory_bytes;
    char kernel[96];
    char file_system[32]; /* of the benchmark's directory */
    char compiler[64];
    char virtualisation[32]; /* "" when none is seen */
    double load_before;      /* one-minute load average when the run began */
    double instrument_ns;    /* what making a key, checking a value and two clock readings cost */
};

void bench_machine_read(struct bench_machine *machine, const char *dir);

#endif
