/* SPDX-License-Identifier: MIT */
/*
 * Blocks of a segment that is being written, on their way into the cache. A
 * reader would have to read them again, check and unpack them: beside a writer
 * that costs readers more than all their other work.
 *
 * Which blocks: those whose rows mostly come from where readers are (enum
 * iter_heat). What was written just now is kept only where there is room; what
 * comes from blocks that readers have used since the clock passed may push
 * others out, as far as BLOCK_CACHE_WARM_SHARE goes. Everything else passes the
 * cache by, as the blocks that a merge reads do.
 *
 * The frames are counted as if linked from the moment they are made, so that
 * the budget holds; they are linked when the segment has a handle.
 *
 * Trust: the bytes are those that were written, so they are not looked at row by
 * row again. Whether they arrived on the disk is seen when they are read there.
 *
 * Concurrency: one thread at a time, the writer's, then the installer's.
 */
#include "segment/segment_writer_internal.h"

enum { SEGMENT_WARM_BLOCKS_MIN = 64 };

struct segment_warm_block {
    struct frame_ref *frame; /* pinned */
    uint64_t counted_bytes;
    uint32_t block_no;
};

struct segment_warm {
    const struct mem *mem;
    struct block_cache *cache;
    struct segment_warm_block *blocks;
    size_t count, cap;
    size_t linked; /* the cache has so many of them */
};

static bool
segment_warm_room(struct segment_warm *warm)
{
    if (warm->count < warm->cap) {
        return true;
    }
    size_t cap = MAX(2 * warm->cap, (size_t)SEGMENT_WARM_BLOCKS_MIN);
    struct segment_warm_block *blocks = mem_alloc_array(warm->mem, cap, sizeof *blocks);
    if (blocks == NULL) {
        return false;
    }
    if (warm->count > 0) {
        memcpy(blocks, warm->blocks, warm->count * sizeof *blocks);
    }
    mem_free(warm->mem, warm->blocks);
    warm->blocks = blocks;
    warm->cap = cap;
    return true;
}

/* A copy of the block as a frame. Without memory for it the block is simply not kept. */
static void
segment_warm_add(struct segment_warm *warm, uint32_t block_no, struct bytes raw, bool used)
{
    uint64_t bytes = 0;
    if (!segment_warm_room(warm) || !block_cache_warm_admits(warm->cache, raw.len, used, &bytes)) {
        return;
    }
    struct frame_ref *frame = frame_create(warm->cache, raw.len);
    if (frame == NULL) {
        block_cache_warm_release(warm->cache, bytes);
        return;
    }
    memcpy(frame_data(frame), raw.ptr, raw.len);
    esker_status status = block_open_again(bytes_make(frame_data(frame), raw.len), BLOCK_DATA, &frame->block);
    ASSERT(status == ESKER_OK); /* the builder made it */
    /* relaxed: not shared yet */
    store_relaxed(&frame->recent, used ? 1 : 0);
    warm->blocks[warm->count++] =
        (struct segment_warm_block){.frame = frame, .counted_bytes = bytes, .block_no = block_no};
}

void
segment_writer_warm(struct segment_writer *writer, struct bytes raw, uint32_t row_count)
{
    bool used = writer->rows_used >= (row_count + 1) / 2;
    bool fresh = writer->rows_used + writer->rows_fresh >= (row_count + 1) / 2;
    writer->rows_used = 0;
    writer->rows_fresh = 0;
    if (!used && !fresh) {
        return;
    }
    if (writer->warm == NULL) {
        writer->warm = mem_zalloc(writer->mem, sizeof *writer->warm);
        if (writer->warm == NULL) {
            return;
        }
        writer->warm->mem = writer->mem;
        writer->warm->cache = writer->options.cache;
    }
    segment_warm_add(writer->warm, writer->block_count, raw, used);
}

void
segment_writer_note_heat(struct segment_writer *writer, enum iter_heat heat)
{
    if (writer->options.warm) {
        writer->rows_used += heat == ITER_USED;
        writer->rows_fresh += heat == ITER_FRESH;
    }
}

struct segment_warm *
segment_writer_take_warm(struct segment_writer *writer)
{
    ASSERT(writer->finished);
    struct segment_warm *warm = writer->warm;
    writer->warm = NULL;
    return warm;
}

void
segment_warm_destroy(struct segment_warm *warm)
{
    if (warm == NULL) {
        return;
    }
    for (size_t i = warm->linked; i < warm->count; i++) {
        block_cache_warm_release(warm->cache, warm->blocks[i].counted_bytes);
        frame_unpin(warm->blocks[i].frame);
    }
    mem_free(warm->mem, warm->blocks);
    mem_free(warm->mem, warm);
}

static void
segment_warm_link(struct segment_warm *warm, struct segment_loaded *loaded, size_t most)
{
    for (; warm->linked < warm->count && most > 0; warm->linked++, most--) {
        const struct segment_warm_block *block = &warm->blocks[warm->linked];
        block_cache_warm_release(warm->cache, block->counted_bytes);
        frame_unpin(frame_table_link(&loaded->frames, block->block_no, block->frame));
    }
}

bool
segment_adopt(struct segment *segment, struct segment_warm *warm, size_t most)
{
    struct segment_loaded *loaded = NULL;
    esker_status status = segment_load(segment, &loaded);
    if (status == ESKER_OK) {
        if (warm != NULL) {
            segment_warm_link(warm, loaded, most);
        }
        segment_loaded_unref(loaded);
    }
    IGNORE_STATUS(status, "whoever reads the segment first tries again, and is told");
    if (status == ESKER_OK && warm != NULL && warm->linked < warm->count) {
        return false;
    }
    segment_warm_destroy(warm);
    return true;
}
