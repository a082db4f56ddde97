/* SPDX-License-Identifier: MIT */
/*
 * Numbers and space that are handed out from a shared counter, a stretch at a
 * time to each stripe of threads, and from there one by one. Two writers that
 * took neighbours would write to the same lines, and would write to the counter
 * for each entry: such a line takes 30 to 170 ns to come over. Private to this room.
 *
 * A share is {next:32, left:32}. Whoever refills one claims it first: others of
 * its stripe meanwhile take theirs from the counter. So nothing is ever lost but
 * what does not fit at a stretch's end.
 *
 * Concurrency: any number of threads. All of it is relaxed: only uniqueness
 * matters; whoever links what stands there publishes it.
 */
#ifndef ESKER_MEMTABLE_SHARE_H
#define ESKER_MEMTABLE_SHARE_H

#include "sync/atomic.h"

/* Steps of a writer after which anything may happen: memtable_race_test.c runs
 * other writers and readers there. HELD: a node is locked, so readers only. */
#ifndef ESKER_RACE_POINT
#define ESKER_RACE_POINT(name) ((void)0)
#define ESKER_RACE_POINT_HELD(name) ((void)0)
#endif

enum { SHARE_STRIPES = 64 };

struct shares {
    _Atomic uint64_t vnodes; /* relaxed: see above */
    _Atomic uint64_t arena;  /* relaxed: see above */
} CACHE_ALIGNED;

#define SHARE_CLAIMED ((uint64_t)UINT32_MAX << 32) /* next of no stretch, nothing left */

static inline uint32_t
share_left(uint64_t share)
{
    return (uint32_t)share;
}

/* `count` of the stretch; false: take them from the counter. least: what is left of a
 * stretch below that is given up. stretch > count. */
static inline bool
share_take(_Atomic uint64_t *share, _Atomic uint64_t *counter, uint32_t count, uint32_t least,
           uint32_t stretch, uint32_t *first_out)
{
    uint64_t found = load_relaxed(share); /* relaxed: the CAS decides */
    if (share_left(found) >= count) {
        *first_out = (uint32_t)(found >> 32);
        ESKER_RACE_POINT("share_take");
        /* relaxed: see above */
        return cas_relaxed(share, &found, found + ((uint64_t)count << 32) - count);
    }
    if (share_left(found) >= least || found == SHARE_CLAIMED ||
        !cas_relaxed(share, &found, SHARE_CLAIMED)) { /* relaxed: see above */
        return false;
    }
    uint64_t first = add_relaxed(counter, stretch); /* relaxed: see above */
    ESKER_RACE_POINT("share_refill");
    /* relaxed: see above */
    store_relaxed(share, (first + count) << 32 | (stretch - count));
    *first_out = (uint32_t)first;
    return true;
}

#endif
