/* SPDX-License-Identifier: MIT */
/*
 * Rows of one block that a reader walks by himself, both ways, without asking the
 * source for each: a step is two loads and a comparison of eight key bytes, and
 * what bounds and other sources have to say was said once for all of them.
 *
 * A source gives out a run (struct iter_ops) around the row it stands on. It then
 * stands still, its fields undefined, until it is told where the walk ended or is
 * positioned anew. Promised of rows [from, to]:
 *
 *  R1 their LSNs are below the snapshot that was asked for;
 *  R2 no other source has a row between any two of them, nor one of their keys.
 *
 * Not promised: that they are puts, and that each is alone of its key. A step looks
 * at both, and where a row is not an entry that can be shown as it stands, it does
 * nothing and says so; the slow way then goes on from the row it is on.
 */
#ifndef ESKER_ITER_ITER_RUN_H
#define ESKER_ITER_ITER_RUN_H

#include "format/block.h"
#include "iter/iter.h"

enum {
    ITER_RUN_TAIL_BYTES = 16, /* a key's tail is copied at this size where it can be */
    ITER_RUN_VALUES_AHEAD =
        8 /* values whose first bytes are fetched early; beyond the block it does no harm */
};

struct iter_run {
    const struct block *block; /* NULL: no run, and then no step is possible */
    const uint8_t *pfx;        /* its column */
    uint32_t row;              /* where the walk is */
    uint32_t from, to;         /* how far it may go, both inclusive */
    /* All rows are puts with keys of the same length and values of the same length, and of each key
     * ITER_RUN_TAIL_BYTES behind the prefix may be read: a step adds numbers. */
    bool even;
    bool starts_key; /* the block's first row is the newest of its key */
    uint16_t tail_len;
    uint32_t value_len;
    const uint8_t *tails;
    uint8_t *rest; /* key + the block's common prefix */
    /* The source's room for a key, in which the block's common prefix stands already; behind the
     * longest key there is room for ITER_RUN_TAIL_BYTES and eight more. */
    uint8_t *key;
};

/* All rows of an open block. */
void iter_run_init(struct iter_run *run, const struct block *block, uint32_t row, uint8_t *key,
                   bool starts_key);
/* A step in a block of any kind. */
bool iter_run_next_any(struct iter_run *run, struct iter *out);
bool iter_run_prev_any(struct iter_run *run, struct iter *out);

/* Rows of one block whose first eight bytes behind the common prefix are equal: the rest. */
static inline bool
iter_run_is_same_rest(const struct block *block, uint32_t a, uint32_t b)
{
    return (block->plen == NULL || block->plen[a] == block->plen[b]) &&
           bytes_equal(block_tail(block, a), block_tail(block, b));
}

static inline uint64_t
iter_run_prefix(const struct block *block, uint32_t row)
{
    return le64_load(block->pfx + 8 * (size_t)row);
}

/* Rows next to each other: are they of the same key? */
ALWAYS_INLINE bool
iter_run_is_same_key(const struct block *block, uint32_t row)
{
    return UNLIKELY(iter_run_prefix(block, row) == iter_run_prefix(block, row + 1)) &&
           iter_run_is_same_rest(block, row, row + 1);
}

/* Puts a row's key together behind the common prefix, and shows key and value. */
ALWAYS_INLINE void
iter_run_show(const struct block *block, uint32_t row, uint8_t *key, struct iter *out)
{
    uint8_t *at = key + block->common_len;
    uint64_t prefix = __builtin_bswap64(iter_run_prefix(block, row));
    struct bytes tail = block_tail(block, row);
    size_t prefix_len = block->plen == NULL ? sizeof prefix : block->plen[row];
    memcpy(at, &prefix, sizeof prefix);
    /* Behind the tails stand the values, so there mostly are so many bytes. */
    if (LIKELY(tail.len <= ITER_RUN_TAIL_BYTES &&
               tail.ptr + ITER_RUN_TAIL_BYTES <= block->raw + block->raw_len)) {
        memcpy(at + sizeof prefix, tail.ptr, ITER_RUN_TAIL_BYTES);
    } else {
        memcpy(at + sizeof prefix, tail.ptr, tail.len);
    }
    out->key = bytes_make(key, block->common_len + prefix_len + tail.len);
    out->value = block_value(block, row);
}

/* Shows a row of an even run, whose key and value are as long as those shown before. */
ALWAYS_INLINE void
iter_run_show_even(struct iter_run *run, uint32_t row, uint64_t prefix)
{
    uint64_t first = __builtin_bswap64(prefix);
    memcpy(run->rest, &first, sizeof first);
    memcpy(run->rest + sizeof first, run->tails + (size_t)row * run->tail_len, ITER_RUN_TAIL_BYTES);
    run->row = row;
}

/* One row on; out shows the row that the walk is on. False: the slow way has to be taken, nothing changed. */
ALWAYS_INLINE bool
iter_run_next(struct iter_run *run, struct iter *out)
{
    uint32_t row = run->row + 1;
    if (UNLIKELY(row > run->to)) {
        return false;
    }
    const uint8_t *at = run->pfx + 8 * (size_t)row;
    uint64_t prefix = le64_load(at);
    if (UNLIKELY(!run->even || prefix == le64_load(at - 8))) {
        return iter_run_next_any(run, out);
    }
    iter_run_show_even(run, row, prefix);
    out->value.ptr += run->value_len;
    return true;
}

/* The same the other way. Where it leads has to be the newest row of its key. */
ALWAYS_INLINE bool
iter_run_prev(struct iter_run *run, struct iter *out)
{
    uint32_t row = run->row;
    if (UNLIKELY(row <= run->from)) {
        return false;
    }
    const uint8_t *at = run->pfx + 8 * (size_t)(row - 1);
    if (UNLIKELY(row == 1 || !run->even || le64_load(at - 8) == le64_load(at))) {
        return iter_run_prev_any(run, out);
    }
    iter_run_show_even(run, row - 1, le64_load(at));
    out->value.ptr -= run->value_len;
    /* Processors see by themselves where a walk upwards goes. */
    PREFETCH_READ(out->value.ptr - (size_t)ITER_RUN_VALUES_AHEAD * run->value_len);
    return true;
}

#endif
