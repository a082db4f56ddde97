/* SPDX-License-Identifier: MIT */
/*
 * The one internal iterator contract. Rows are ordered by key ascending, then
 * LSN descending (the newest version of a key first). key, value, lsn and op
 * are plain fields, refreshed by every successful step and valid until the
 * next one; after ESKER_END or a failure they are undefined.
 *
 * Steps return ESKER_OK (positioned), ESKER_END, or a failure. next and prev
 * are called only on a positioned iterator.
 *
 * value: `value.ptr` is set together with the key (sources hold whole rows in
 * memory); its bytes are not touched by a step.
 */
#ifndef ESKER_ITER_ITER_H
#define ESKER_ITER_ITER_H

#include "base/bytes.h"
#include "base/status.h"

struct iter;
struct iter_run;

struct iter_ops {
    esker_status (*first)(struct iter *it);
    esker_status (*last)(struct iter *it);
    /* The first row with row.key >= key (so the newest version of `key`, if any). */
    esker_status (*seek)(struct iter *it, struct bytes key);
    /* The last row with row.key < key. */
    esker_status (*seek_before)(struct iter *it, struct bytes key);
    esker_status (*next)(struct iter *it);
    esker_status (*prev)(struct iter *it);
    void (*destroy)(struct iter *it);
    /* Nullable, with the next: sources whose rows stand in blocks. Positioned: rows around this one, all
     * with LSNs below snapshot_lsn, that the caller may walk by himself (iter/iter_run.h). False: there are
     * none, *out untouched. */
    bool (*run)(struct iter *it, uint64_t snapshot_lsn, struct iter_run *out);
    /* Ends that walk: the iterator stands on this row of the run that it gave out last. */
    void (*run_end)(struct iter *it, uint32_t row);
};

/* What readers have to do with a row's place, as far as its source tells; for merges. */
enum iter_heat {
    ITER_COLD = 0,
    ITER_FRESH = 1, /* in a memtable: written just now */
    ITER_USED = 2   /* in a cached block that readers have used lately */
};

struct iter {
    const struct iter_ops *ops;
    struct bytes key;
    struct bytes value;
    uint64_t lsn;
    uint8_t op;   /* enum entry_op: PUT, DELETE or PUT_EXPIRING, whose value begins with the expiry */
    uint8_t heat; /* enum iter_heat */
    /* No row that follows, in the direction of the last step, has this row's key; of those that the
     * walk has met some may. False: that is not known. */
    bool only;
};

/* Whoever walks will not ask for keys outside of [lower, upper); len 0 = none. */
struct iter_bounds {
    struct bytes lower, upper;
};

static inline esker_status
iter_first(struct iter *it)
{
    return it->ops->first(it);
}

static inline esker_status
iter_last(struct iter *it)
{
    return it->ops->last(it);
}

static inline esker_status
iter_seek(struct iter *it, struct bytes key)
{
    return it->ops->seek(it, key);
}

static inline esker_status
iter_seek_before(struct iter *it, struct bytes key)
{
    return it->ops->seek_before(it, key);
}

static inline esker_status
iter_next(struct iter *it)
{
    return it->ops->next(it);
}

static inline esker_status
iter_prev(struct iter *it)
{
    return it->ops->prev(it);
}

/* it may be NULL. */
static inline void
iter_destroy(struct iter *it)
{
    if (it != NULL) {
        it->ops->destroy(it);
    }
}

#endif
