/* SPDX-License-Identifier: MIT */
/* The demo's report: lines that appear as the work goes on. */
#include <stdarg.h>
#include <stdio.h>

#include "tools/demo_run.h"
#include "tools/text_units.h"

void
demo_report(const char *name, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    (void)printf("  %-24s%s\n", name, text);
    (void)fflush(stdout);
}

void
demo_report_heading(const char *text)
{
    (void)printf("\n%s\n", text);
    (void)fflush(stdout);
}

void
demo_report_latency(const char *name, const struct histogram *histogram, uint64_t elapsed_ns)
{
    char count[TEXT_UNIT_BYTES];
    char rate[TEXT_UNIT_BYTES];
    char p50[TEXT_UNIT_BYTES];
    char p99[TEXT_UNIT_BYTES];
    char max[TEXT_UNIT_BYTES];
    double per_second = elapsed_ns == 0 ? 0 : (double)histogram->count * 1e9 / (double)elapsed_ns;
    demo_report(
        name, "%s (%s/s): p50 %s, p99 %s, max %s", text_count(histogram->count, count),
        text_count((uint64_t)per_second, rate), text_duration(histogram_quantile(histogram, 1, 2), p50),
        text_duration(histogram_quantile(histogram, 99, 100), p99), text_duration(histogram->max, max));
}
