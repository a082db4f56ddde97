/* SPDX-License-Identifier: MIT */
/*
 * Many blocks at once: what is missing is asked for in one call of the seam, so
 * that a device works on all of it at the same time. Blocks that are wanted
 * twice are read once, and neighbours in a file share a request.
 *
 * Unlike a single load this does not hold the load mutexes: two threads that
 * want the same block may both read it, and frame_table_link keeps one.
 */
#include <stdlib.h>

#include "segment/segment_internal.h"

enum { SEGMENT_MANY_BLOCKS = 64, SEGMENT_MANY_BYTES = 1 << 20 };

/* One missing block of a batch. */
struct segment_missing {
    struct segment_loaded *loaded; /* referenced */
    size_t stored_at;              /* in the batch's buffer */
    struct segment_fetch *fetch;
};

struct segment_batch {
    struct segment_missing missing[SEGMENT_MANY_BLOCKS];
    size_t count;
    size_t stored_bytes;
    bool fill_cache;
};

static int
segment_fetch_compare(const void *left, const void *right)
{
    const struct segment_fetch *a = left;
    const struct segment_fetch *b = right;
    uint64_t id_a = a->segment->meta.id;
    uint64_t id_b = b->segment->meta.id;
    if (id_a != id_b) {
        return id_a < id_b ? -1 : 1;
    }
    return a->place.slot < b->place.slot ? -1 : a->place.slot > b->place.slot;
}

static esker_status
segment_batch_read(const struct segment_batch *batch, uint8_t *stored)
{
    struct io_req reqs[SEGMENT_MANY_BLOCKS];
    size_t count = 0;
    for (size_t i = 0; i < batch->count; i++) {
        const struct segment_missing *missing = &batch->missing[i];
        const struct block_handle *handle = &missing->fetch->place.handle;
        struct io_req *last = count > 0 ? &reqs[count - 1] : NULL;
        if (last != NULL && last->file == missing->loaded->file &&
            last->offset + last->len == handle->offset) {
            last->len += handle->stored_len; /* its place in the buffer follows, too */
            continue;
        }
        reqs[count++] = (struct io_req){.op = IO_READ,
                                        .file = missing->loaded->file,
                                        .offset = handle->offset,
                                        .data = stored + missing->stored_at,
                                        .len = handle->stored_len};
    }
    return io_run_full(batch->missing[0].fetch->segment->io, reqs, count);
}

/* From the batch's buffer into a frame. */
static esker_status
segment_missing_open(const struct segment_missing *missing, bool fill_cache, const uint8_t *stored)
{
    struct segment_fetch *fetch = missing->fetch;
    struct segment_loaded *loaded = missing->loaded;
    const struct segment *segment = fetch->segment;
    const struct segment_place *place = &fetch->place;
    struct frame_ref *frame;
    struct bytes bytes = bytes_make(stored + missing->stored_at, place->handle.stored_len);
    TRY(segment_place_open(segment, loaded, place, bytes, &frame));
    if (fill_cache && frame_table_admits(&loaded->frames, place->slot, place->handle.raw_len, false)) {
        frame = frame_table_link(&loaded->frames, place->slot, frame);
    } else {
        frame_table_set_checked(&loaded->frames, place->slot, frame->checked);
    }
    fetch->frame = frame;
    return ESKER_OK;
}

/* Reads what was collected and empties the batch. A read that fails spoils the
 * whole batch, so then each block is asked for alone and gets its own answer. */
static void
segment_batch_run(struct segment_batch *batch, const struct mem *mem)
{
    if (batch->count == 0) {
        return;
    }
    block_cache_settle(batch->missing[0].fetch->segment->cache);
    uint8_t *stored = batch->count > 1 ? mem_alloc(mem, batch->stored_bytes) : NULL;
    bool together = stored != NULL && segment_batch_read(batch, stored) == ESKER_OK;
    for (size_t i = 0; i < batch->count; i++) {
        const struct segment_missing *missing = &batch->missing[i];
        struct segment_fetch *fetch = missing->fetch;
        fetch->status = together ? segment_missing_open(missing, batch->fill_cache, stored)
                                 : segment_pin_place(fetch->segment, missing->loaded, &fetch->place,
                                                     batch->fill_cache, &fetch->frame);
        if (together) {
            block_cache_count_miss(fetch->segment->cache);
        }
        segment_loaded_unref(missing->loaded);
    }
    mem_free(mem, stored);
    batch->count = 0;
    batch->stored_bytes = 0;
}

static void
segment_batch_add(struct segment_batch *batch, struct segment_fetch *fetch, const struct mem *mem)
{
    struct segment_loaded *loaded;
    fetch->status = segment_load(fetch->segment, &loaded);
    if (fetch->status != ESKER_OK) {
        return;
    }
    fetch->frame = frame_table_pin(&loaded->frames, fetch->place.slot);
    if (fetch->frame != NULL) {
        block_cache_count_hit(fetch->segment->cache);
        segment_loaded_unref(loaded);
        return;
    }
    uint32_t stored_len = fetch->place.handle.stored_len;
    if (batch->count == SEGMENT_MANY_BLOCKS ||
        (batch->count > 0 && batch->stored_bytes + stored_len > SEGMENT_MANY_BYTES)) {
        segment_batch_run(batch, mem);
    }
    batch->missing[batch->count++] =
        (struct segment_missing){.loaded = loaded, .stored_at = batch->stored_bytes, .fetch = fetch};
    batch->stored_bytes += stored_len;
}

static bool
segment_fetch_same(const struct segment_fetch *a, const struct segment_fetch *b)
{
    return a->segment == b->segment && a->place.slot == b->place.slot;
}

void
segment_fetch_many(struct segment_fetch *fetches, size_t count, const struct mem *mem, bool fill_cache)
{
    struct segment_batch batch;
    batch.count = 0;
    batch.stored_bytes = 0;
    batch.fill_cache = fill_cache;
    qsort(fetches, count, sizeof *fetches, segment_fetch_compare);
    for (size_t i = 0; i < count; i++) {
        fetches[i].frame = NULL;
        if (i == 0 || !segment_fetch_same(&fetches[i], &fetches[i - 1])) {
            segment_batch_add(&batch, &fetches[i], mem);
        }
    }
    segment_batch_run(&batch, mem);
    for (size_t i = 1; i < count; i++) {
        if (segment_fetch_same(&fetches[i], &fetches[i - 1])) {
            fetches[i].status = fetches[i - 1].status;
            fetches[i].frame = fetches[i - 1].frame;
            if (fetches[i].frame != NULL) {
                frame_pin(fetches[i].frame);
            }
        }
    }
}
