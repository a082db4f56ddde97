/* SPDX-License-Identifier: MIT */
/*
 * Dead ranges: stretches of keys in which nothing is visible, so that a reader
 * need not walk over the deletes there (a queue: put at one end, taken away at the
 * other, and each look at the first entry would meet all that was ever taken).
 * Private to this room but for what memtable.h offers.
 *
 * A range [lower, upper) with `since` says: of everything in this window and in
 * what is older, a reader at any S >= since sees no key of it. Deletes cannot change
 * that; a put can, and its writer then kills the range.
 *
 * How a range comes to be. A reader at S walked over [from, to) and saw nothing. It
 * *arms* the range: publishes it, then takes the tail of the window. Whoever
 * reserves space behind that tail finds the range when he looks, so his puts kill
 * it. Puts from before the tail may have missed it; so the range counts only when a
 * second reader, at S2 >= that tail, has walked over it and seen nothing either.
 * From then on it holds for every S >= S2, as far as both have walked. So a range has
 * two spans: the proven one inside the armed one; each walk that touches it proves
 * what was armed before, and arms what it has seen beyond.
 *
 * A new memtable goes on with the ranges of the one before it, whose puts that are
 * still under way may kill them there. So what it got is proven only when it is
 * settled: when everything in the older one is visible and the range has lived.
 *
 * Invariants
 *  I1 A range only grows, and who kills any of it kills it whole, for good; a slot
 *     is given to another range by the holder of the mutex alone.
 *  I2 The put with LSN L has killed the range before L becomes visible, if L is not
 *     before the tail that was taken when the part with its key was armed.
 *
 * Concurrency: readers that look or arm hold the mutex. Writers read the armed span
 * without it: seq is odd while it changes, and another afterwards (a sequence lock
 * over atomic words); whoever meets a change looks again a few times and then kills
 * the range, which is always allowed. So writers never wait for readers.
 */
#ifndef ESKER_MEMTABLE_DEAD_H
#define ESKER_MEMTABLE_DEAD_H

#include "base/buf.h"
#include "sync/atomic.h"
#include "sync/mutex.h"

enum { DEAD_SLOTS = 4, DEAD_KEY_BYTES_MAX = 128, DEAD_KEY_WORDS = DEAD_KEY_BYTES_MAX / 8 };

struct dead_key {
    uint32_t len;                   /* in bytes */
    uint64_t words[DEAD_KEY_WORDS]; /* the bytes, then zeros to the next word */
};

struct dead_shared_key {
    _Atomic uint32_t len; /* pairs: DEAD_RANGE, as the words */
    _Atomic uint64_t words[DEAD_KEY_WORDS];
};

struct dead_slot {
    /* atomic */
    _Atomic uint32_t seq; /* 0: never used; pairs: DEAD_RANGE */
    _Atomic bool killed;  /* relaxed: a killer's frame is applied afterwards, and readers' LSNs say what is */
    struct dead_shared_key armed_lower, armed_upper; /* changed by the holder of the mutex */
    /* guarded by the mutex */
    struct dead_key proven_lower, proven_upper;
    uint64_t since;     /* nothing is visible in the proven span from here on; UINT64_MAX: it is empty */
    uint64_t armed_lsn; /* the tail after it was published */
    uint32_t life;      /* another range, another number */
    uint32_t old_life;  /* that of the older memtable's range which this one goes on; 0 = none, or settled */
};

struct dead_ranges {
    struct mutex mutex;
    uint32_t next_slot; /* guarded by the mutex */
    _Atomic bool any;   /* relaxed: ordered as the slots are (DEAD_TAIL) */
    struct dead_slot slots[DEAD_SLOTS];
};

/* Of zeroed memory. */
void dead_init(struct dead_ranges *dead);
void dead_fini(struct dead_ranges *dead);
void dead_kill(struct dead_ranges *dead, struct bytes key);

/* A writer, after it has reserved and before its frame is applied. */
static inline void
dead_put(struct dead_ranges *dead, struct bytes key)
{
    if (UNLIKELY(load_relaxed(&dead->any))) { /* relaxed: see there */
        dead_kill(dead, key);
    }
}

#endif
