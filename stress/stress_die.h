/* SPDX-License-Identifier: MIT */
/* How a stress program ends when it has seen what may not be: with its name, its
 * seed and the thread's last error, and a core to look at. */
#ifndef ESKER_STRESS_DIE_H
#define ESKER_STRESS_DIE_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/compiler.h"
#include "esker/esker.h"

static uint64_t seed;                /* set before the threads start */
static const char *stress_part = ""; /* what of the program runs now; between threads */

static inline void
die(const char *what)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    fprintf(stderr, "%s: seed %llu: %s%s%s (last error: %s %s)\n", program_invocation_short_name,
            (unsigned long long)seed, stress_part, stress_part[0] != '\0' ? ": " : "", what,
            esker_status_name(error.status), error.message);
    abort();
}

static inline void
must(esker_status status, const char *what)
{
    if (status != ESKER_OK) {
        die(what);
    }
}

#endif
