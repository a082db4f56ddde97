/* SPDX-License-Identifier: MIT */
/*
 * What a reader at LSN S sees of a sorted source of versions: of each key the
 * newest version with lsn < S, unless that is a delete or has expired; inside [lower, upper).
 * One row per key. Honours the public iterator's edge rules: next after END at
 * the end, or prev after END at the start, is END again, and the opposite step
 * returns to the entry at that edge.
 */
#ifndef ESKER_ITER_VISIBLE_ITER_H
#define ESKER_ITER_VISIBLE_ITER_H

#include "base/buf.h"
#include "base/mem.h"
#include "iter/iter_run.h"

/* What every visible iterator begins with. */
struct visible_rows {
    struct iter base;
    struct iter_run run; /* while there is one, base shows its row */
    uint64_t expiry_ms;  /* of the entry, milliseconds since 1970 UTC; 0 = it does not expire */
};

/* Steps without a call, while a run lasts: true, and key and value are those of the next entry (lsn is
 * not told). False: nothing changed, and iter_next, or iter_prev, has to be asked. */
ALWAYS_INLINE bool
visible_iter_run_next(struct iter *it)
{
    struct visible_rows *rows = CONTAINER_OF(it, struct visible_rows, base);
    return iter_run_next(&rows->run, it);
}

ALWAYS_INLINE bool
visible_iter_run_prev(struct iter *it)
{
    struct visible_rows *rows = CONTAINER_OF(it, struct visible_rows, base);
    return iter_run_prev(&rows->run, it);
}

struct visible_bounds {
    struct bytes lower, upper; /* len 0 = none */
};

/* Takes over `source` (also when it fails). Bounds are copied. In the result
 * op is always ENTRY_PUT. Unlike the internal contract its next and prev may be
 * called at either END (not before the first positioning: INVALID). */
NODISCARD esker_status visible_iter_create(struct iter *source, uint64_t snapshot_lsn,
                                           struct visible_bounds bounds, const struct mem *mem,
                                           struct iter **out);

/* Stands past the last entry, or before the first one, as after a step that said END. */
void visible_iter_stand(struct iter *it, bool at_end);

/* What the owner knows of stretches of keys in which this reader sees nothing.
 * Called in the midst of a step: neither touches the iterator. */
struct visible_dead {
    /* True: nothing is visible from `key` to *to, which is past the stretch's end
     * (exclusive), or backward its first key. */
    bool (*find)(void *ctx, struct bytes key, bool backward, struct buf *to);
    /* A walk over [from, to) met so many deletes and no entry. */
    void (*note)(void *ctx, struct bytes from, struct bytes to, uint64_t deletes);
    void *ctx;
};

/* `dead` outlives the iterator. */
void visible_iter_set_dead(struct iter *it, const struct visible_dead *dead);

/* Which time it is, milliseconds since 1970 UTC; asked once for each positioning, and only when a
 * row is met that expires. Without it nothing expires. */
typedef uint64_t visible_now_fn(void *ctx);

void visible_iter_set_clock(struct iter *it, visible_now_fn *now_ms, void *ctx);

/* Of the entry; see struct visible_rows. */
static inline uint64_t
visible_iter_expiry_ms(struct iter *it)
{
    return CONTAINER_OF(it, struct visible_rows, base)->expiry_ms;
}

/* Versions and deletes stepped over since the last call; resets. */
uint64_t visible_iter_take_skipped(struct iter *it);

#endif
