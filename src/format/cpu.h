/* SPDX-License-Identifier: MIT */
/*
 * What this CPU offers beyond the build's instruction set. Set once before
 * main (or before dlopen returns) and never written again, so it is plain
 * memory to every thread. ESKER_CPU=scalar in the environment hides it all:
 * the portable paths give the same results bit for bit.
 */
#ifndef ESKER_FORMAT_CPU_H
#define ESKER_FORMAT_CPU_H

#include <stdbool.h>

#include "base/compiler.h"

#if defined(__x86_64__)
#define CPU_MAY_HAVE_AVX2 1
#define CPU_TARGET_AVX2   __attribute__((target("avx2,bmi,bmi2")))
#else
#define CPU_MAY_HAVE_AVX2 0
#endif

extern bool cpu_avx2_found;

static inline bool
cpu_has_avx2(void)
{
    return LIKELY(cpu_avx2_found);
}

#endif
