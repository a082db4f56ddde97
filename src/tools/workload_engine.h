/* SPDX-License-Identifier: MIT */
/*
 * The calls that clients make of the database, in one place, so that a mistake
 * can be made on purpose there (enum workload_inject) while the client records
 * what it was told. Without one these are the plain calls.
 */
#ifndef ESKER_TOOLS_WORKLOAD_ENGINE_H
#define ESKER_TOOLS_WORKLOAD_ENGINE_H

#include "tools/workload_area.h"

struct workload_engine {
    esker_db *db;
    enum workload_inject inject;
    uint32_t value_bytes;
    _Atomic uint64_t commits, snapshots, gets;
    esker_snapshot *stale; /* of before any client's first; only for that mistake */
};

NODISCARD esker_status workload_engine_snapshot(struct workload_engine *engine, esker_snapshot **out);

/* Around the clients' work. */
NODISCARD esker_status workload_engine_begin(struct workload_engine *engine);
void workload_engine_end(struct workload_engine *engine);

/* buf has value_bytes. Returns OK, NOT_FOUND, or the failure. nth: 0 is the snapshot's first read. */
NODISCARD esker_status workload_engine_get(struct workload_engine *engine, esker_snapshot *snapshot,
                                           uint32_t nth, uint32_t key, uint8_t *buf, size_t *size_out);

/* Puts and deletes what op's touches say, and requires what they read to be as it was at op's
 * snapshot. `batch` and `value` are the caller's to lend. */
NODISCARD esker_status workload_engine_commit(struct workload_engine *engine, esker_batch *batch,
                                              uint8_t *value, const struct workload_op *op,
                                              esker_lsn *lsn_out);

#endif
