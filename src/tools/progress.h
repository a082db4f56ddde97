/* SPDX-License-Identifier: MIT */
/*
 * One line on a terminal's stderr that keeps up with long work: records, rate,
 * and, when the size is known, percent and time left. In a pipe it is silent.
 * One thread.
 */
#ifndef ESKER_TOOLS_PROGRESS_H
#define ESKER_TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool shown; /* stderr is a terminal */
    uint64_t total_bytes;
    uint64_t started_ns, printed_ns;
};

/* total_bytes 0: not known. */
void progress_begin(struct progress *progress, uint64_t total_bytes);
/* Cheap when the last line is younger than a tenth of a second. */
void progress_step(struct progress *progress, uint64_t records, uint64_t bytes);
/* Replaces the line by a last one: what was done, in how long. */
void progress_end(struct progress *progress, const char *done, uint64_t records, uint64_t bytes);

#endif
