/* SPDX-License-Identifier: MIT */
#include "format/cpu.h"

#include <stdlib.h>
#include <string.h>

bool cpu_avx2_found;

__attribute__((constructor)) static void
cpu_detect(void)
{
#if CPU_MAY_HAVE_AVX2
    const char *wish = secure_getenv("ESKER_CPU");
    if (wish != NULL && strcmp(wish, "scalar") == 0) {
        return;
    }
    __builtin_cpu_init();
    cpu_avx2_found =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#endif
}
