/* SPDX-License-Identifier: MIT */
#include "tools/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "base/compiler.h"
#include "tools/text_units.h"
#include "tools/tool.h"

enum { PROGRESS_STEP_NS = 100000000 };

void
progress_begin(struct progress *progress, uint64_t total_bytes)
{
    uint64_t now = tool_now_ns();
    *progress = (struct progress){.shown = isatty(STDERR_FILENO) == 1,
                                  .total_bytes = total_bytes,
                                  .started_ns = now,
                                  .printed_ns = now};
}

static uint64_t
progress_per_second(uint64_t amount, uint64_t ns)
{
    return ns == 0 ? 0 : (uint64_t)((double)amount * 1e9 / (double)ns);
}

void
progress_step(struct progress *progress, uint64_t records, uint64_t bytes)
{
    if (!progress->shown) {
        return;
    }
    uint64_t now = tool_now_ns();
    if (now - progress->printed_ns < PROGRESS_STEP_NS) {
        return;
    }
    progress->printed_ns = now;
    char count[TEXT_UNIT_BYTES];
    char rate[TEXT_UNIT_BYTES];
    char left[TEXT_UNIT_BYTES];
    uint64_t elapsed = now - progress->started_ns;
    (void)fprintf(stderr, "\r\033[K%s records  %s/s", text_count(records, count),
                  text_bytes(progress_per_second(bytes, elapsed), rate));
    if (progress->total_bytes > 0 && bytes > 0) {
        uint64_t done = MIN(bytes, progress->total_bytes);
        double share = (double)done / (double)progress->total_bytes;
        uint64_t left_ns = (uint64_t)((double)elapsed * (1 - share) / share);
        (void)fprintf(stderr, "  %d %%  %s left", (int)(share * 100), text_duration(left_ns, left));
    }
    (void)fflush(stderr);
}

void
progress_end(struct progress *progress, const char *done, uint64_t records, uint64_t bytes)
{
    if (!progress->shown) {
        return;
    }
    char count[TEXT_UNIT_BYTES];
    char size[TEXT_UNIT_BYTES];
    char time[TEXT_UNIT_BYTES];
    char rate[TEXT_UNIT_BYTES];
    uint64_t elapsed = tool_now_ns() - progress->started_ns;
    (void)fprintf(stderr, "\r\033[K%s records, %s %s in %s (%s/s)\n", text_count(records, count),
                  text_bytes(bytes, size), done, text_duration(elapsed, time),
                  text_bytes(progress_per_second(bytes, elapsed), rate));
}
