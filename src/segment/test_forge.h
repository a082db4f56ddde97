/* SPDX-License-Identifier: MIT */
/*
 * Makes damaged segments look authentic: every checksum that can be reached
 * from the footer is computed anew, so that what stands behind checksums
 * (structure, handles, counts) is tested too. For tests and fuzz targets.
 */
#ifndef ESKER_SEGMENT_TEST_FORGE_H
#define ESKER_SEGMENT_TEST_FORGE_H

#include <stdlib.h>

#include "base/assert.h"
#include "base/hash.h"
#include "format/block.h"
#include "format/edit.h"
#include "format/segment_format.h"

struct forge {
    uint8_t *bytes;
    size_t size;
    uint64_t id;
};

/* The trailer's checksum of the stored block, if it lies inside the file. */
static inline bool
forge_block(struct forge *forge, uint64_t offset, uint64_t stored_len)
{
    if (stored_len < BLOCK_TRAILER_BYTES || offset > forge->size || stored_len > forge->size - offset) {
        return false;
    }
    uint8_t *at = forge->bytes + offset;
    uint8_t *trailer = at + stored_len - BLOCK_TRAILER_BYTES;
    uint64_t seed = hash_mix(hash_mix(forge->id, offset), le64_load(trailer));
    le64_store(trailer + 8, hash64(at, stored_len - BLOCK_TRAILER_BYTES, seed));
    return true;
}

/* Each page of the filter. */
static inline void
forge_filter(struct forge *forge, uint64_t offset, uint64_t stored_len)
{
    for (uint64_t at = 0; stored_len - at >= SEGMENT_FILTER_PAGE_STORED; at += SEGMENT_FILTER_PAGE_STORED) {
        if (!forge_block(forge, offset + at, SEGMENT_FILTER_PAGE_STORED)) {
            return;
        }
    }
}

/* An index block and all blocks that its rows point to; rows count only if the block opens. */
static inline void
forge_index(struct forge *forge, uint64_t offset, uint64_t stored_len, uint32_t levels)
{
    struct block_stored stored;
    struct block block;
    if (!forge_block(forge, offset, stored_len) || levels == 0 ||
        block_stored_open(bytes_make(forge->bytes + offset, (size_t)stored_len), BLOCK_INDEX, forge->id,
                          offset, &stored) != ESKER_OK) {
        return;
    }
    uint8_t *raw = malloc(stored.raw_len);
    if (raw != NULL && block_stored_unpack(&stored, &mem_default, raw) == ESKER_OK &&
        block_open(bytes_make(raw, stored.raw_len), BLOCK_INDEX, &block) == ESKER_OK) {
        for (uint32_t row = 0; row < block.row_count; row++) {
            struct block_handle handle;
            if (!block_handle_decode(block_value(&block, row), &handle)) {
                continue;
            }
            if (levels > 1) {
                forge_index(forge, handle.offset, handle.stored_len, levels - 1);
            } else {
                (void)forge_block(forge, handle.offset, handle.stored_len);
            }
        }
    }
    free(raw);
}

/* The whole file. *meta gets the counts that the footer claims, so that only
 * what lies behind them can be found wrong. Keys of meta stay. */
static inline void
forge_segment(uint8_t *bytes, size_t size, uint64_t id, struct segment_meta *meta)
{
    struct forge forge = {.bytes = bytes, .size = size, .id = id};
    meta->id = id;
    meta->size_bytes = size;
    if (size < SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) {
        return;
    }
    le64_store(bytes + 56, hash64(bytes, 56, 0));
    uint8_t *footer = bytes + size - SEGMENT_FOOTER_BYTES;
    (void)forge_block(&forge, le64_load(footer), le32_load(footer + 8));
    forge_filter(&forge, le64_load(footer + 16), le32_load(footer + 24));
    (void)forge_block(&forge, le64_load(footer + 32), le32_load(footer + 40));
    uint32_t depth = le32_load(footer + 124);
    forge_index(&forge, le64_load(footer), le32_load(footer + 8), MIN(depth, 2U));
    le64_store(footer + 176, hash64(footer, 176, id));
    meta->row_count = le64_load(footer + 80);
    meta->tombstone_count = le64_load(footer + 88);
    meta->min_lsn = le64_load(footer + 96);
    meta->max_lsn = le64_load(footer + 104);
}

/* ---- Surgery -------------------------------------------------------------- */

/* A row of an index block, to be changed before it is built again. */
struct forge_row {
    uint8_t key[KEY_BYTES_MAX];
    size_t key_len;
    uint64_t lsn;
    struct block_handle handle;
};

typedef void forge_row_fn(void *ctx, uint32_t row_no, struct forge_row *row);

/* The file with its root index built anew after `edit` has seen each row;
 * what follows the root moves. Index, filter and properties must be stored
 * raw. Checksums and meta are made to fit. */
static inline struct buf
forge_root(struct bytes file, uint64_t id, forge_row_fn *edit, void *ctx, struct segment_meta *meta)
{
    const uint8_t *footer = file.ptr + file.len - SEGMENT_FOOTER_BYTES;
    uint64_t root_at = le64_load(footer);
    uint64_t root_len = le32_load(footer + 8);
    uint64_t rest_at = root_at + root_len;
    struct block_builder *builder = NULL;
    struct block block;
    struct buf raw, out;
    buf_init(&raw, &mem_default);
    buf_init(&out, &mem_default);
    esker_status status = block_open(bytes_make(file.ptr + root_at, (size_t)root_len - BLOCK_TRAILER_BYTES),
                                     BLOCK_INDEX, &block);
    ASSERT(status == ESKER_OK);
    status = block_builder_create(&mem_default, BLOCK_INDEX, &builder);
    ASSERT(status == ESKER_OK);
    struct forge_row *row = malloc(sizeof *row);
    ASSERT(row != NULL);
    for (uint32_t row_no = 0; row_no < block.row_count; row_no++) {
        uint8_t value[BLOCK_HANDLE_BYTES];
        row->key_len = block_key(&block, row_no, row->key);
        row->lsn = block_lsn(&block, row_no);
        bool fits = block_handle_decode(block_value(&block, row_no), &row->handle);
        ASSERT(fits);
        edit(ctx, row_no, row);
        block_handle_encode(&row->handle, value);
        status = block_builder_add(builder, bytes_make(row->key, row->key_len), row->lsn, ENTRY_PUT,
                                   bytes_make(value, sizeof value));
        ASSERT(status == ESKER_OK);
    }
    free(row);
    status = block_builder_finish(builder, &raw);
    ASSERT(status == ESKER_OK);
    block_builder_destroy(builder);
    status = buf_append(&out, file.ptr, (size_t)root_at);
    ASSERT(status == ESKER_OK);
    status = block_store(buf_bytes(&raw), BLOCK_INDEX, BLOCK_CODEC_NONE, id, root_at, &out);
    ASSERT(status == ESKER_OK);
    int64_t moved = (int64_t)out.len - (int64_t)rest_at;
    status = buf_append(&out, file.ptr + rest_at, file.len - (size_t)rest_at);
    ASSERT(status == ESKER_OK);
    uint8_t *new_footer = out.ptr + out.len - SEGMENT_FOOTER_BYTES;
    le32_store(new_footer + 8, (uint32_t)((int64_t)root_len + moved));
    le32_store(new_footer + 12, (uint32_t)raw.len);
    for (size_t handle = 1; handle < 3; handle++) {
        uint64_t offset = le64_load(new_footer + 16 * handle);
        le64_store(new_footer + 16 * handle, offset == 0 ? 0 : (uint64_t)((int64_t)offset + moved));
    }
    buf_fini(&raw);
    forge_segment(out.ptr, out.len, id, meta);
    return out;
}

/* The file with `count` zeros inserted at `at`, a border between its parts;
 * what the footer points to at or behind it moves, data_end if move_data_end. */
static inline struct buf
forge_gap(struct bytes file, uint64_t id, uint64_t at, size_t count, bool move_data_end,
          struct segment_meta *meta)
{
    struct buf out;
    buf_init(&out, &mem_default);
    esker_status status = buf_append(&out, file.ptr, (size_t)at);
    ASSERT(status == ESKER_OK);
    status = buf_append_zeros(&out, count);
    ASSERT(status == ESKER_OK);
    status = buf_append(&out, file.ptr + at, file.len - (size_t)at);
    ASSERT(status == ESKER_OK);
    uint8_t *footer = out.ptr + out.len - SEGMENT_FOOTER_BYTES;
    for (size_t handle = 0; handle < 3; handle++) {
        uint64_t offset = le64_load(footer + 16 * handle);
        le64_store(footer + 16 * handle, offset + (offset >= at && offset != 0 ? count : 0));
    }
    le64_store(footer + 136, le64_load(footer + 136) + (move_data_end ? count : 0));
    forge_segment(out.ptr, out.len, id, meta);
    return out;
}

#endif
