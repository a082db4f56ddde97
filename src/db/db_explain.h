/* SPDX-License-Identifier: MIT */
/*
 * What follows from the options before any file is touched: one place for the
 * formulas, for the engine and for whoever asks what it would do.
 */
#ifndef ESKER_DB_DB_EXPLAIN_H
#define ESKER_DB_DB_EXPLAIN_H

#include "esker/esker.h"

struct db_sizes {
    uint64_t window_bytes_first, window_bytes_max; /* of log and memtable data; doubles with use */
    uint64_t windows_live;      /* active and waiting for their flush, before writers wait */
    uint64_t window_memory_max; /* of one large window, index included */
    uint64_t segment_bytes;     /* where merges begin a new file */
    uint64_t cache_bytes;       /* all that is counted; blocks have what the rest leaves */
    uint64_t batch_bytes_max;
};

void db_sizes_derive(const esker_options *options, struct db_sizes *out);
/* Defaults filled in; INVALID as esker_open would say it. */
ESKER_NODISCARD esker_status db_explain(const esker_options *options, struct db_sizes *out);

#endif
