/* SPDX-License-Identifier: MIT */
/* What memtable.c and memtable_iter.c share. */
#ifndef ESKER_MEMTABLE_MEMTABLE_PRIV_H
#define ESKER_MEMTABLE_MEMTABLE_PRIV_H

#include "memtable/art.h"
#include "memtable/dead.h"
#include "memtable/hashdir.h"
#include "memtable/memtable.h"

struct memtable {
    /* immutable */
    struct io *io;
    void *region; /* directory, vnodes, arena */
    uint64_t region_bytes;
    uint64_t data_bytes;
    uint64_t base_lsn;
    uint64_t hash_seed;
    uint64_t dir_bytes;
    uint64_t arena_bytes;
    struct hashdir dir;
    /* parts with their own rules */
    struct vnodes vnodes;
    struct index_arena arena;
    struct art art;
    struct dead_ranges dead;
    /* bytes from the start of each; written by whoever populates, one thread at a time */
    _Atomic uint64_t populated_dir, populated_vnodes, populated_arena;
};

/* Entries below this granule have LSN < lsn. */
static inline uint64_t
memtable_granule_limit(const struct memtable *table, uint64_t lsn)
{
    return lsn > table->base_lsn ? lsn - table->base_lsn : 0;
}

#endif
