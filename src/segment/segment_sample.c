/* SPDX-License-Identifier: MIT */
/* Keys at even distances through a segment, taken from its index alone. */
#include "segment/segment_internal.h"

/* The part of the index that has the data block. */
static uint32_t
segment_sample_part(const struct segment_loaded *loaded, uint32_t block_no)
{
    uint32_t low = 0;
    uint32_t high = loaded->part_count;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (segment_at_block_no(loaded, (struct segment_at){middle, 0}) <= block_no) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

esker_status
segment_sample(struct segment *segment, uint32_t pieces, segment_sample_fn *each, void *ctx)
{
    struct segment_loaded *loaded = NULL;
    TRY(segment_load(segment, &loaded));
    struct segment_index index = segment_index_make(segment, loaded, false);
    uint32_t blocks = loaded->footer.data_block_count;
    struct buf key;
    buf_init(&key, segment->mem);
    esker_status status = ESKER_OK;
    uint32_t before = 0;
    for (uint32_t i = 1; i < pieces && status == ESKER_OK; i++) {
        uint32_t block_no = (uint32_t)((uint64_t)blocks * i / pieces);
        if (block_no == before) {
            continue; /* fewer blocks than pieces */
        }
        before = block_no;
        uint32_t part = segment_sample_part(loaded, block_no - 1);
        uint32_t row = block_no - 1 - segment_at_block_no(loaded, (struct segment_at){part, 0});
        TRY_OUT(segment_index_hold(&index, part));
        buf_clear(&key);
        TRY_OUT(buf_reserve(&key, block_key_len(index.block, row)));
        key.len = block_key(index.block, row, key.ptr);
        status = each(ctx, buf_bytes(&key));
    }
out:
    buf_fini(&key);
    segment_index_drop(&index);
    segment_loaded_unref(loaded);
    return status;
}
