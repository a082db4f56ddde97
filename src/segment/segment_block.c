/* SPDX-License-Identifier: MIT */
/*
 * From bytes on disk to a checked block: read, checksum, unpack, structure,
 * and agreement with the index row that pointed there. Whatever fails names
 * the file and the block's offset. Frames are made here.
 */
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

/* segment_raw_open of a block whose stored bytes have this checksum. Where half of
 * it is what it was when the block passed all checks, these are the same bytes:
 * the whole of it has just been found right. */
static esker_status
segment_frame_open(const struct segment *segment, struct bytes raw, const struct block_handle *handle,
                   uint64_t checksum, uint32_t checked, struct frame_ref *frame)
{
    frame->checked = (uint32_t)checksum;
    if (checked != 0 && checked == frame->checked &&
        block_open_again(raw, BLOCK_DATA, &frame->block) == ESKER_OK &&
        frame->block.row_count == handle->row_count) {
        return ESKER_OK;
    }
    return segment_raw_open(segment, raw, handle, BLOCK_DATA, &frame->block);
}

esker_status
segment_block_unpack(const struct segment *segment, const struct block_stored *stored,
                     const struct block_handle *handle, uint32_t checked, struct frame_ref **out)
{
    struct frame_ref *frame = frame_create(segment->cache, stored->raw_len);
    if (frame == NULL) {
        return FAIL_NO_MEMORY("a block");
    }
    struct bytes raw = bytes_make(frame_data(frame), stored->raw_len);
    esker_status status = block_stored_unpack(stored, segment->mem, frame_data(frame));
    if (status != ESKER_OK) {
        status = segment_damaged(segment, status, handle->offset, "a block does not decompress");
    } else {
        status = segment_frame_open(segment, raw, handle, stored->checksum, checked, frame);
    }
    if (status != ESKER_OK) {
        frame_unpin(frame);
        return status;
    }
    *out = frame;
    return ESKER_OK;
}

/* Through a buffer of its own: what is stored packed has to be unpacked somewhere else. */
static NOINLINE esker_status
segment_block_read_packed(const struct segment *segment, const struct segment_loaded *loaded,
                          const struct block_handle *handle, uint32_t checked, struct frame_ref **out)
{
    uint8_t near_buf[SEGMENT_NEAR_BYTES];
    struct bytes bytes = bytes_make(near_buf, handle->stored_len);
    uint8_t *far_buf = NULL;
    struct block_stored stored;
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
        status = segment_stored_open(segment, bytes, handle, BLOCK_DATA, &stored);
    }
    if (status == ESKER_OK) {
        status = segment_block_unpack(segment, &stored, handle, checked, out);
    }
    mem_free(segment->mem, far_buf);
    return status;
}

/* Into a new frame, where it then stays: for what is stored as it is. */
static esker_status
segment_block_read_plain(const struct segment *segment, const struct segment_loaded *loaded,
                         const struct block_handle *handle, uint32_t checked, struct frame_ref **out)
{
    struct frame_ref *frame = frame_create(segment->cache, handle->stored_len);
    if (frame == NULL) {
        return FAIL_NO_MEMORY("a block");
    }
    struct bytes bytes = bytes_make(frame_data(frame), handle->stored_len);
    struct block_stored stored;
    esker_status status =
        segment_read(segment, loaded->file, handle->offset, frame_data(frame), handle->stored_len);
    if (status == ESKER_OK) {
        status = segment_stored_open(segment, bytes, handle, BLOCK_DATA, &stored);
    }
    if (status == ESKER_OK && stored.codec == BLOCK_CODEC_NONE) {
        status = segment_frame_open(segment, stored.payload, handle, stored.checksum, checked, frame);
        if (status == ESKER_OK) {
            *out = frame;
            return ESKER_OK;
        }
    } else if (status == ESKER_OK) {
        /* A packed block of the raw one's size: no writer of ours makes one, but it reads like any other. */
        status = segment_block_unpack(segment, &stored, handle, checked, out);
    }
    frame_unpin(frame);
    return status;
}

/* ahead: where the bytes come from, or NULL: from the block's own read. A new frame, pinned once. */
static esker_status
segment_block_load(const struct segment *segment, const struct segment_loaded *loaded, struct segment_at at,
                   struct segment_ahead *ahead, bool backwards, struct frame_ref **out)
{
    struct block_handle handle = segment_at_handle(loaded, at);
    uint32_t checked = frame_table_checked(&loaded->frames, segment_at_block_no(loaded, at));
    if (ahead == NULL) {
        return handle.stored_len == handle.raw_len + BLOCK_TRAILER_BYTES
                   ? segment_block_read_plain(segment, loaded, &handle, checked, out)
                   : segment_block_read_packed(segment, loaded, &handle, checked, out);
    }
    struct block_stored stored;
    TRY(segment_ahead_stored(ahead, at, backwards, &stored));
    return segment_block_unpack(segment, &stored, &handle, checked, out);
}

static bool
segment_block_cached(const struct segment *segment, const struct segment_loaded *loaded, uint32_t block_no,
                     struct frame_ref **out)
{
    struct frame_ref *frame = frame_table_pin(&loaded->frames, block_no);
    if (frame == NULL) {
        return false;
    }
    block_cache_count_hit(segment->cache);
    *out = frame;
    return true;
}

/* One thread loads a block, others that want it meanwhile wait and find it in
 * the table, if it was admitted there. */
static esker_status
segment_block_fill(const struct segment *segment, struct segment_loaded *loaded, struct segment_at at,
                   struct segment_ahead *ahead, bool backwards, struct frame_ref **out)
{
    uint32_t block_no = segment_at_block_no(loaded, at);
    if (segment_block_cached(segment, loaded, block_no, out)) {
        return ESKER_OK;
    }
    block_cache_settle(segment->cache);
    struct mutex *mutex = frame_table_load_mutex(&loaded->frames, block_no);
    esker_status status = ESKER_OK;
    mutex_lock(mutex);
    if (!segment_block_cached(segment, loaded, block_no, out)) {
        struct frame_ref *frame;
        block_cache_count_miss(segment->cache);
        bool admitted = frame_table_admits(&loaded->frames, block_no, segment_at_handle(loaded, at).raw_len,
                                           ahead != NULL);
        status = segment_block_load(segment, loaded, at, ahead, backwards, &frame);
        if (status == ESKER_OK && !admitted) {
            frame_table_set_checked(&loaded->frames, block_no, frame->checked);
            *out = frame;
        } else if (status == ESKER_OK) {
            *out = frame_table_link(&loaded->frames, block_no, frame);
        }
    }
    mutex_unlock(mutex);
    return status;
}

esker_status
segment_pin_block(const struct segment *segment, struct segment_loaded *loaded, struct segment_at at,
                  bool fill_cache, struct frame_ref **out)
{
    if (fill_cache) {
        return segment_block_fill(segment, loaded, at, NULL, false, out);
    }
    if (segment_block_cached(segment, loaded, segment_at_block_no(loaded, at), out)) {
        return ESKER_OK;
    }
    block_cache_count_miss(segment->cache);
    return segment_block_load(segment, loaded, at, NULL, false, out);
}

esker_status
segment_pin_block_ahead(struct segment_ahead *ahead, struct segment_at at, bool backwards,
                        struct frame_ref **out)
{
    return segment_block_fill(ahead->segment, ahead->loaded, at, ahead, backwards, out);
}
