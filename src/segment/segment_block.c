/* SPDX-License-Identifier: MIT */
/*
 * From bytes on disk to a checked block: read, checksum, unpack, structure,
 * and agreement with the index row that pointed there. Whatever fails names
 * the file and the block's offset. Frames are made here.
 */
#include "format/filter.h"
#include "segment/segment_internal.h"

enum { SEGMENT_NEAR_BYTES = 16 << 10 }; /* of stack, for what a block is unpacked from */

esker_status
segment_damaged(const struct segment *segment, esker_status status, uint64_t offset, const char *what)
{
    if (status == ESKER_NO_MEMORY) {
        return FAIL_NO_MEMORY("a segment's block");
    }
    return FAIL_AT(status, segment->name, offset, "%s", what);
}

esker_status
segment_read(const struct segment *segment, struct io_file *file, uint64_t offset, uint8_t *data,
             uint64_t len)
{
    while (len > 0) {
        struct io_req reqs[SEGMENT_PIECES];
        size_t count = 0;
        /* Four equal pieces of what is left, within sensible sizes. */
        uint64_t piece = align_up(len / SEGMENT_PIECES, 4096);
        piece = MIN(MAX(piece, (uint64_t)SEGMENT_PIECE_BYTES), (uint64_t)(64 << 20));
        for (; count < SEGMENT_PIECES && len > 0; count++) {
            uint32_t part = (uint32_t)MIN(piece, len);
            reqs[count] =
                (struct io_req){.op = IO_READ, .file = file, .offset = offset, .data = data, .len = part};
            offset += part;
            data += part;
            len -= part;
        }
        TRY(io_run_full(segment->io, reqs, count));
    }
    return ESKER_OK;
}

esker_status
segment_stored_open(const struct segment *segment, struct bytes stored, const struct block_handle *handle,
                    enum block_kind kind, struct block_stored *out)
{
    struct block_stored opened;
    esker_status status = block_stored_open(stored, kind, segment->meta.id, handle->offset, &opened);
    if (status != ESKER_OK) {
        return segment_damaged(segment, status, handle->offset,
                               status == ESKER_UNSUPPORTED ? "a block of a newer format"
                                                           : "a block's checksum fails");
    }
    if (opened.raw_len != handle->raw_len) {
        return segment_damaged(segment, ESKER_CORRUPT, handle->offset,
                               "a block's size differs from the index");
    }
    *out = opened;
    return ESKER_OK;
}

esker_status
segment_raw_open(const struct segment *segment, struct bytes raw, const struct block_handle *handle,
                 enum block_kind kind, struct block *out)
{
    struct block block;
    esker_status status = block_open(raw, kind, &block);
    if (status != ESKER_OK) {
        return segment_damaged(segment, status, handle->offset, "a block is not well formed");
    }
    if (handle->row_count != 0 && block.row_count != handle->row_count) {
        return segment_damaged(segment, ESKER_CORRUPT, handle->offset,
                               "a block's row count differs from the index");
    }
    *out = block;
    return ESKER_OK;
}

esker_status
segment_filter_page_open(const struct segment *segment, uint64_t offset, struct bytes stored,
                         struct bytes *out)
{
    struct block_handle handle = {
        .offset = offset, .stored_len = SEGMENT_FILTER_PAGE_STORED, .raw_len = FILTER_PAGE_BYTES};
    struct block_stored opened;
    TRY(segment_stored_open(segment, stored, &handle, BLOCK_FILTER, &opened));
    if (opened.codec != BLOCK_CODEC_NONE || opened.payload.len != FILTER_PAGE_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, offset, "a page of the filter is not stored raw");
    }
    *out = opened.payload;
    return ESKER_OK;
}

/* ---- Into frames ---------------------------------------------------------- */

static enum block_kind
segment_place_kind(const struct segment_place *place)
{
    return place->stage == SEGMENT_STAGE_INDEX ? BLOCK_INDEX : BLOCK_DATA;
}

/* segment_raw_open of a block whose stored bytes have this checksum. Where half of
 * it is what it was when the block passed all checks, these are the same bytes:
 * the whole of it has just been found right. */
static esker_status
segment_frame_open(const struct segment *segment, const struct segment_loaded *loaded,
                   const struct segment_place *place, struct bytes raw, uint64_t checksum,
                   struct frame_ref *frame)
{
    enum block_kind kind = segment_place_kind(place);
    uint32_t checked = frame_table_checked(&loaded->frames, place->slot);
    frame->checked = (uint32_t)checksum;
    if (checked != 0 && checked == frame->checked && block_open_again(raw, kind, &frame->block) == ESKER_OK &&
        frame->block.row_count == place->handle.row_count) {
        return ESKER_OK;
    }
    TRY(segment_raw_open(segment, raw, &place->handle, kind, &frame->block));
    return kind == BLOCK_INDEX ? segment_part_check(segment, loaded, place, &frame->block) : ESKER_OK;
}

/* A new frame, pinned once, from a block whose checksum agreed. */
static esker_status
segment_frame_unpack(const struct segment *segment, const struct segment_loaded *loaded,
                     const struct segment_place *place, const struct block_stored *stored,
                     struct frame_ref **out)
{
    struct frame_ref *frame = frame_create(segment->cache, stored->raw_len);
    if (frame == NULL) {
        return FAIL_NO_MEMORY("a block");
    }
    struct bytes raw = bytes_make(frame_data(frame), stored->raw_len);
    esker_status status = block_stored_unpack(stored, segment->mem, frame_data(frame));
    if (status != ESKER_OK) {
        status = segment_damaged(segment, status, place->handle.offset, "a block does not decompress");
    } else {
        status = segment_frame_open(segment, loaded, place, raw, stored->checksum, frame);
    }
    if (status != ESKER_OK) {
        frame_unpin(frame);
        return status;
    }
    *out = frame;
    return ESKER_OK;
}

/* The page at the start of the frame, whatever stands in `stored`: of a damaged one every bit is set, so
 * that its keys are looked for where they may be. */
static void
segment_frame_filter(const struct segment *segment, const struct segment_place *place, struct bytes stored,
                     struct frame_ref *frame)
{
    struct bytes page;
    esker_status status = segment_filter_page_open(segment, place->handle.offset, stored, &page);
    if (status != ESKER_OK) {
        memset(frame_data(frame), 0xff, FILTER_PAGE_BYTES);
        block_cache_count_damaged(segment->cache);
    } else if (page.ptr != frame_data(frame)) {
        memcpy(frame_data(frame), page.ptr, FILTER_PAGE_BYTES);
    }
    IGNORE_STATUS(status, "it is counted, and verify tells where it is");
}

esker_status
segment_place_open(const struct segment *segment, const struct segment_loaded *loaded,
                   const struct segment_place *place, struct bytes stored, struct frame_ref **out)
{
    struct block_stored opened;
    if (place->stage != SEGMENT_STAGE_FILTER) {
        TRY(segment_stored_open(segment, stored, &place->handle, segment_place_kind(place), &opened));
        return segment_frame_unpack(segment, loaded, place, &opened, out);
    }
    struct frame_ref *frame = frame_create(segment->cache, FILTER_PAGE_BYTES);
    if (frame == NULL) {
        return FAIL_NO_MEMORY("a page of a filter");
    }
    segment_frame_filter(segment, place, stored, frame);
    *out = frame;
    return ESKER_OK;
}

/* Through a buffer of its own: what is stored packed has to be unpacked somewhere else. */
static NOINLINE esker_status
segment_block_read_packed(const struct segment *segment, const struct segment_loaded *loaded,
                          const struct segment_place *place, struct frame_ref **out)
{
    const struct block_handle *handle = &place->handle;
    uint8_t near_buf[SEGMENT_NEAR_BYTES];
    struct bytes bytes = bytes_make(near_buf, handle->stored_len);
    uint8_t *far_buf = NULL;
    if (handle->stored_len > sizeof near_buf) {
        far_buf = mem_alloc(segment->mem, handle->stored_len);
        if (far_buf == NULL) {
            return FAIL_NO_MEMORY("a block");
        }
        bytes.ptr = far_buf;
    }
    esker_status status = segment_read(segment, loaded->file, handle->offset,
                                       far_buf != NULL ? far_buf : near_buf, handle->stored_len);
    if (status == ESKER_OK) {
        status = segment_place_open(segment, loaded, place, bytes, out);
    }
    mem_free(segment->mem, far_buf);
    return status;
}

/* What was read into the frame itself. May leave it for a new one. */
static esker_status
segment_frame_settle(const struct segment *segment, const struct segment_loaded *loaded,
                     const struct segment_place *place, struct frame_ref **frame)
{
    struct bytes bytes = bytes_make(frame_data(*frame), place->handle.stored_len);
    struct block_stored stored;
    if (place->stage == SEGMENT_STAGE_FILTER) {
        segment_frame_filter(segment, place, bytes, *frame);
        return ESKER_OK;
    }
    TRY(segment_stored_open(segment, bytes, &place->handle, segment_place_kind(place), &stored));
    if (stored.codec == BLOCK_CODEC_NONE) {
        return segment_frame_open(segment, loaded, place, stored.payload, stored.checksum, *frame);
    }
    /* A packed block of the raw one's size: no writer of ours makes one, but it reads like any other. */
    struct frame_ref *unpacked;
    TRY(segment_frame_unpack(segment, loaded, place, &stored, &unpacked));
    frame_unpin(*frame);
    *frame = unpacked;
    return ESKER_OK;
}

/* Into a new frame, where it then stays: for what is stored as it is. */
static esker_status
segment_block_read_plain(const struct segment *segment, const struct segment_loaded *loaded,
                         const struct segment_place *place, struct frame_ref **out)
{
    struct frame_ref *frame = frame_create(segment->cache, place->handle.stored_len);
    if (frame == NULL) {
        return FAIL_NO_MEMORY("a block");
    }
    esker_status status = segment_read(segment, loaded->file, place->handle.offset, frame_data(frame),
                                       place->handle.stored_len);
    if (status == ESKER_OK) {
        status = segment_frame_settle(segment, loaded, place, &frame);
    }
    if (status != ESKER_OK) {
        frame_unpin(frame);
        return status;
    }
    *out = frame;
    return ESKER_OK;
}

/* ---- From the cache or the disk --------------------------------------------- */

/* A reader that goes from block to block, and where it is. */
struct segment_walk {
    struct segment_ahead *ahead;
    struct segment_at at;
    bool backwards;
};

/* walk: where the bytes come from, or NULL: from the block's own read. A new frame, pinned once. */
static esker_status
segment_block_load(const struct segment *segment, const struct segment_loaded *loaded,
                   const struct segment_place *place, const struct segment_walk *walk, struct frame_ref **out)
{
    if (walk == NULL) {
        return place->handle.stored_len == place->handle.raw_len + BLOCK_TRAILER_BYTES
                   ? segment_block_read_plain(segment, loaded, place, out)
                   : segment_block_read_packed(segment, loaded, place, out);
    }
    struct block_stored stored;
    TRY(segment_ahead_stored(walk->ahead, walk->at, walk->backwards, &stored));
    return segment_frame_unpack(segment, loaded, place, &stored, out);
}

static bool
segment_block_cached(const struct segment *segment, const struct segment_loaded *loaded, uint32_t slot,
                     struct frame_ref **out)
{
    struct frame_ref *frame = frame_table_pin(&loaded->frames, slot);
    if (frame == NULL) {
        return false;
    }
    frame_touch(frame);
    block_cache_count_hit(segment->cache);
    *out = frame;
    return true;
}

/* One thread loads a block, others that want it meanwhile wait and find it in
 * the table, if it was admitted there. */
static esker_status
segment_block_fill(const struct segment *segment, struct segment_loaded *loaded,
                   const struct segment_place *place, const struct segment_walk *walk, struct frame_ref **out)
{
    if (segment_block_cached(segment, loaded, place->slot, out)) {
        return ESKER_OK;
    }
    block_cache_settle(segment->cache);
    struct mutex *mutex = frame_table_load_mutex(&loaded->frames, place->slot);
    esker_status status = ESKER_OK;
    mutex_lock(mutex);
    if (!segment_block_cached(segment, loaded, place->slot, out)) {
        struct frame_ref *frame;
        block_cache_count_miss(segment->cache);
        bool admitted = frame_table_admits(&loaded->frames, place->slot, place->handle.raw_len, walk != NULL);
        status = segment_block_load(segment, loaded, place, walk, &frame);
        if (status == ESKER_OK && !admitted) {
            frame_table_set_checked(&loaded->frames, place->slot, frame->checked);
            *out = frame;
        } else if (status == ESKER_OK) {
            *out = frame_table_link(&loaded->frames, place->slot, frame);
        }
    }
    mutex_unlock(mutex);
    return status;
}

esker_status
segment_pin_place(const struct segment *segment, struct segment_loaded *loaded,
                  const struct segment_place *place, bool fill_cache, struct frame_ref **out)
{
    if (fill_cache) {
        return segment_block_fill(segment, loaded, place, NULL, out);
    }
    if (segment_block_cached(segment, loaded, place->slot, out)) {
        return ESKER_OK;
    }
    block_cache_count_miss(segment->cache);
    return segment_block_load(segment, loaded, place, NULL, out);
}

esker_status
segment_pin_block_ahead(struct segment_ahead *ahead, struct segment_at at, bool backwards,
                        struct frame_ref **out)
{
    struct segment_walk walk = {.ahead = ahead, .at = at, .backwards = backwards};
    struct segment_place place;
    TRY(segment_index_place(&ahead->index, at, &place));
    return segment_block_fill(ahead->segment, ahead->loaded, &place, &walk, out);
}
