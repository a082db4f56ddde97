/* SPDX-License-Identifier: MIT */
#include "db/db_explain.h"

#include "db/db.h"
#include "version/window.h"

/* The largest power of two times the least size that is at most a sixteenth of the budget; of
 * one below 64 MiB a 32nd, since there indexes and buffers take as much as they would of a larger one. */
static uint64_t
explain_window_bytes(uint64_t budget)
{
    uint64_t share = budget < WINDOW_BUDGET_SMALL ? 32 : 16;
    uint64_t bytes = (uint64_t)WINDOW_BYTES_MIN;
    while (bytes * 2 <= budget / share && bytes < WINDOW_BYTES_MOST) {
        bytes *= 2;
    }
    return bytes;
}

void
db_sizes_derive(const esker_options *options, struct db_sizes *out)
{
    uint64_t budget = options->memory_budget_bytes;
    uint64_t window = explain_window_bytes(budget);
    *out = (struct db_sizes){
        .window_bytes_first = MIN((uint64_t)WINDOW_BYTES_FIRST, window),
        .window_bytes_max = window,
        .windows_live = WINDOWS_LIVE_MAX,
        .window_memory_max = window_bytes_max(window, window_op_capacity(window)),
        .segment_bytes = MIN(MAX(window * 2, (uint64_t)SEGMENT_BYTES_MIN), (uint64_t)SEGMENT_BYTES_MOST),
        .cache_bytes = budget - budget / 16,
        .batch_bytes_max = budget / 2,
    };
}

esker_status
db_explain(const esker_options *options, struct db_sizes *out)
{
    esker_options resolved;
    TRY(db_options_resolve(options, &resolved));
    db_sizes_derive(&resolved, out);
    return ESKER_OK;
}
