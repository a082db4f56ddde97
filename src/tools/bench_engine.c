/* SPDX-License-Identifier: MIT */
/* The sentence that goes with a failed call, kept per thread. */
#include "tools/bench_engine.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char engine_sentence[256] = "no reason given";

const char *
bench_complaint(void)
{
    return engine_sentence;
}

int
bench_complain(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    (void)vsnprintf(engine_sentence, sizeof engine_sentence, format, args);
    va_end(args);
    return BENCH_FAILED;
}
