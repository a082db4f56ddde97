/* rooms: format */
/* SPDX-License-Identifier: MIT */
/*
 * Manifest edits, and the cutting of key bounds. The input is an edit's body;
 * it is also taken as a key. Oracles: what is accepted encodes to a body that
 * reads back the same and encodes to the same bytes; memory is in proportion to
 * the input; bounds enclose the key.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "format/edit.h"

enum { FUZZ_MEMORY_FREE_BYTES = 64, FUZZ_MEMORY_RATIO = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *
fuzz_alloc(void *ctx, size_t bytes)
{
    *(size_t *)ctx += bytes;
    return malloc(bytes);
}

static void *
fuzz_aligned_alloc(void *ctx, size_t alignment, size_t bytes)
{
    *(size_t *)ctx += bytes;
    return aligned_alloc(alignment, bytes);
}

static void
fuzz_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static void
fuzz_round_trip(const struct edit *edit)
{
    struct buf body, again;
    struct edit copy;
    uint64_t offset;
    buf_init(&body, &mem_default);
    buf_init(&again, &mem_default);
    ASSERT(edit_encode(edit, &body) == ESKER_OK && body.len % 8 == 0);
    ASSERT(edit_decode(buf_bytes(&body), &mem_default, &copy, &offset) == ESKER_OK);
    ASSERT(copy.edit_no == edit->edit_no && copy.prev_hash == edit->prev_hash);
    ASSERT(copy.is_snapshot == edit->is_snapshot && copy.next_file_id == edit->next_file_id);
    ASSERT(copy.wal_min_gen == edit->wal_min_gen && copy.durable_lsn == edit->durable_lsn);
    ASSERT(copy.add_segment_count == edit->add_segment_count);
    ASSERT(copy.drop_segment_count == edit->drop_segment_count);
    ASSERT(copy.add_log_count == edit->add_log_count && copy.drop_log_count == edit->drop_log_count);
    ASSERT(edit_encode(&copy, &again) == ESKER_OK);
    ASSERT(bytes_equal(buf_bytes(&body), buf_bytes(&again)));
    edit_fini(&copy, &mem_default);
    buf_fini(&body);
    buf_fini(&again);
}

static void
fuzz_bounds(struct bytes key)
{
    uint8_t lower[EDIT_KEY_BYTES_MAX], upper[EDIT_KEY_BYTES_MAX];
    size_t lower_len = edit_bound_lower(key, lower);
    size_t upper_len = edit_bound_upper(key, upper);
    ASSERT(bytes_compare(bytes_make(lower, lower_len), key) <= 0);
    ASSERT(upper_len == 0 || bytes_compare(bytes_make(upper, upper_len), key) >= 0);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t allocated = 0;
    esker_allocator hooks = {fuzz_alloc, fuzz_aligned_alloc, fuzz_free, &allocated};
    struct mem mem;
    struct edit edit;
    uint64_t offset = UINT64_MAX;
    mem_init(&mem, &hooks);
    esker_status status = edit_decode(bytes_make(data, size), &mem, &edit, &offset);
    ASSERT(allocated <= FUZZ_MEMORY_FREE_BYTES + FUZZ_MEMORY_RATIO * size);
    if (status == ESKER_OK) {
        fuzz_round_trip(&edit);
        edit_fini(&edit, &mem);
    } else {
        ASSERT((status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED) && offset <= size);
        ASSERT(allocated == 0);
    }
    fuzz_bounds(bytes_make(data, size));
    return 0;
}
