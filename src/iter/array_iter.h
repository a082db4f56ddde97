/* SPDX-License-Identifier: MIT */
/*
 * A sorted array of rows as an iterator: the simplest source there is. It
 * stands in for memtables and segments wherever rows are needed without files,
 * in tests above all, and so it is stricter than the contract asks: stepping
 * an unpositioned one is an ASSERT, and on request it fails at a chosen step
 * or hands out rows that die with the next step.
 */
#ifndef ESKER_ITER_ARRAY_ITER_H
#define ESKER_ITER_ARRAY_ITER_H

#include "base/mem.h"
#include "iter/iter.h"

struct array_row {
    struct bytes key, value;
    uint64_t lsn;
    uint8_t op; /* enum entry_op */
};

/* The order of every internal iterator: key ascending, LSN descending. */
static inline int
array_row_compare(const struct array_row *a, const struct array_row *b)
{
    int order = bytes_compare(a->key, b->key);
    return order != 0 ? order : (a->lsn < b->lsn) - (a->lsn > b->lsn);
}

/* rows: in iterator order; borrowed, with what they point to, for the iterator's life. */
NODISCARD esker_status array_iter_create(const struct array_row *rows, size_t count, const struct mem *mem,
                                         struct iter **out);

/* After `steps` more calls of any operation the one after them fails once
 * with `status`; the iterator is then unpositioned. */
void array_iter_fail_after(struct iter *it, uint64_t steps, esker_status status);

/* Every row is handed out in memory of its own that the next step frees, so
 * that a memory checker sees who holds on to a row for too long. */
void array_iter_hand_out_copies(struct iter *it);

#endif
