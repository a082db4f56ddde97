/* SPDX-License-Identifier: MIT */
/*
 * The index in two levels, read part by part where it does not fit into memory:
 * the root says which part, and how many data blocks are in front of it; the part
 * is a frame like a data block. Where it is whole, the same calls cost a pointer.
 *
 * What a part has to agree with is in memory already: the root's rows for it and
 * for the part before. So a part can be trusted without the others, and the damage
 * of one costs only the keys between two rows of the root.
 */
#include "format/filter.h"
#include "segment/segment_internal.h"

/* ---- Places ------------------------------------------------------------- */

bool
segment_part_data(const struct segment_loaded *loaded, const struct block *block, uint32_t part, uint32_t row,
                  struct segment_place *out)
{
    out->stage = SEGMENT_STAGE_DATA;
    out->slot = segment_at_block_no(loaded, (struct segment_at){part, row});
    return block_handle_decode(block_value(block, row), &out->handle);
}

struct segment_place
segment_part_place(const struct segment_loaded *loaded, uint32_t part)
{
    struct segment_place place = {.slot = loaded->footer.data_block_count + part,
                                  .stage = SEGMENT_STAGE_INDEX};
    bool fits = block_handle_decode(block_value(&loaded->root, part), &place.handle);
    ASSERT(fits); /* checked when the root was loaded */
    return place;
}

struct segment_place
segment_filter_place(const struct segment_loaded *loaded, uint64_t filter_hash)
{
    const struct segment_footer *footer = &loaded->footer;
    uint32_t page = filter_page_of(footer->filter_pages, filter_hash);
    return (struct segment_place){
        .handle = {.offset = footer->filter.offset + (uint64_t)page * SEGMENT_FILTER_PAGE_STORED,
                   .stored_len = SEGMENT_FILTER_PAGE_STORED,
                   .raw_len = FILTER_PAGE_BYTES},
        .slot = footer->data_block_count + loaded->part_count + page,
        .stage = SEGMENT_STAGE_FILTER};
}

/* ---- What is found in a part ---------------------------------------------- */

bool
segment_part_fits(const struct segment_loaded *loaded, uint32_t part_no, const struct block *part)
{
    uint8_t key[KEY_BYTES_MAX];
    uint32_t last = part->row_count - 1;
    size_t len = block_key(part, last, key);
    if (block_key_compare(&loaded->root, part_no, bytes_make(key, len)) != 0 ||
        block_lsn(&loaded->root, part_no) != block_lsn(part, last)) {
        return false;
    }
    if (part_no == 0) {
        return true;
    }
    len = block_key(part, 0, key);
    int order = block_key_compare(&loaded->root, part_no - 1, bytes_make(key, len));
    return order < 0 || (order == 0 && block_lsn(&loaded->root, part_no - 1) > block_lsn(part, 0));
}

esker_status
segment_index_handle(const struct segment *segment, const struct block *index, uint32_t row,
                     uint64_t index_at, uint64_t *end, uint64_t limit, struct block_handle *out)
{
    struct block_handle handle;
    bool fits = block_handle_decode(block_value(index, row), &handle);
    if (!fits || handle.offset != *end || *end > limit || handle.stored_len <= BLOCK_TRAILER_BYTES ||
        handle.stored_len > limit - *end || handle.row_count == 0 || handle.row_count > BLOCK_ROWS_MAX) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, index_at, "row %u of the index points nowhere", row);
    }
    *end += handle.stored_len;
    *out = handle;
    return ESKER_OK;
}

esker_status
segment_part_check(const struct segment *segment, const struct segment_loaded *loaded,
                   const struct segment_place *place, const struct block *part)
{
    struct block_handle handle;
    uint32_t part_no = place->slot - loaded->footer.data_block_count;
    if (!segment_part_fits(loaded, part_no, part)) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, place->handle.offset,
                       "an index block disagrees with the root");
    }
    /* Where its first block is, only the part before could tell; but for the first and the last. */
    bool fits = block_handle_decode(block_value(part, 0), &handle);
    uint64_t end = part_no == 0 ? SEGMENT_HEADER_BYTES : handle.offset;
    if (!fits || end < SEGMENT_HEADER_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, place->handle.offset, "an index block points nowhere");
    }
    for (uint32_t row = 0; row < part->row_count; row++) {
        TRY(segment_index_handle(segment, part, row, place->handle.offset, &end, loaded->footer.data_end,
                                 &handle));
    }
    if (part_no + 1 == loaded->part_count && end != loaded->footer.data_end) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, place->handle.offset,
                       "the index does not cover the data blocks");
    }
    return ESKER_OK;
}

/* ---- A walker's hold ------------------------------------------------------ */

struct segment_index
segment_index_make(const struct segment *segment, struct segment_loaded *loaded, bool fill_cache)
{
    return (struct segment_index){.segment = segment, .loaded = loaded, .fill_cache = fill_cache};
}

void
segment_index_drop(struct segment_index *index)
{
    if (index->frame != NULL) {
        frame_unpin(index->frame);
    }
    index->frame = NULL;
    index->block = NULL;
}

esker_status
segment_index_hold(struct segment_index *index, uint32_t part)
{
    struct segment_loaded *loaded = index->loaded;
    if (index->block != NULL && index->part == part) {
        return ESKER_OK;
    }
    if (loaded->parts != NULL) {
        index->block = &loaded->parts[part].block;
        index->part = part;
        return ESKER_OK;
    }
    segment_index_drop(index);
    struct segment_place place = segment_part_place(loaded, part);
    TRY(segment_pin_place(index->segment, loaded, &place, index->fill_cache, &index->frame));
    index->block = &index->frame->block;
    index->part = part;
    return ESKER_OK;
}

esker_status
segment_index_seek(struct segment_index *index, struct bytes key, struct segment_at *at)
{
    const struct segment_loaded *loaded = index->loaded;
    at->part = loaded->part_count == 1 ? 0 : block_seek(&loaded->root, key);
    if (at->part == loaded->part_count) {
        return ESKER_END;
    }
    TRY(segment_index_hold(index, at->part));
    at->row = block_seek(index->block, key);
    return at->row < index->block->row_count ? ESKER_OK : ESKER_END;
}

bool
segment_index_key_goes_on(const struct segment_index *index, struct segment_at at)
{
    const struct segment_loaded *loaded = index->loaded;
    if (loaded->parts != NULL) {
        return block_lsn(&loaded->parts[at.part].block, at.row) != 0;
    }
    if (at.row + 1 == segment_part_rows(loaded, at.part)) {
        return block_lsn(&loaded->root, at.part) != 0; /* it repeats the part's last row */
    }
    ASSERT(index->block != NULL && index->part == at.part);
    return block_lsn(index->block, at.row) != 0;
}

esker_status
segment_index_place(struct segment_index *index, struct segment_at at, struct segment_place *out)
{
    TRY(segment_index_hold(index, at.part));
    bool fits = segment_part_data(index->loaded, index->block, at.part, at.row, out);
    ASSERT(fits); /* checked when the part was loaded */
    return ESKER_OK;
}
