/* SPDX-License-Identifier: MIT */
#include "iter/iter_run.h"

void
iter_run_init(struct iter_run *run, const struct block *block, uint32_t row, uint8_t *key, bool starts_key)
{
    const uint8_t *end = block->raw + block->raw_len;
    bool even =
        block->plen == NULL && block->koff == NULL && block->voff == NULL && block->types == NULL &&
        block->tail_len <= ITER_RUN_TAIL_BYTES &&
        (size_t)(end - block->tails) >= (size_t)block->row_count * block->tail_len + ITER_RUN_TAIL_BYTES;
    *run = (struct iter_run){.block = block,
                             .pfx = block->pfx,
                             .row = row,
                             .to = block->row_count - 1,
                             .even = even,
                             .starts_key = starts_key,
                             .tail_len = block->tail_len,
                             .value_len = block->value_len,
                             .tails = block->tails,
                             .rest = key + block->common_len,
                             .key = key};
}

bool
iter_run_next_any(struct iter_run *run, struct iter *out)
{
    const struct block *block = run->block;
    uint32_t row = run->row;
    if (row >= run->to || iter_run_is_same_key(block, row) || block_op(block, row + 1) != ENTRY_PUT) {
        return false;
    }
    run->row = row + 1;
    iter_run_show(block, row + 1, run->key, out);
    return true;
}

bool
iter_run_prev_any(struct iter_run *run, struct iter *out)
{
    const struct block *block = run->block;
    uint32_t row = run->row;
    if (row <= run->from || block_op(block, row - 1) != ENTRY_PUT ||
        (row > 1 ? iter_run_is_same_key(block, row - 2) : !run->starts_key)) {
        return false;
    }
    run->row = row - 1;
    iter_run_show(block, row - 1, run->key, out);
    return true;
}
