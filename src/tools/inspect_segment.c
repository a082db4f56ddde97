/* SPDX-License-Identifier: MIT */
/*
 * A segment: header and footer, then the index, and each block that it points
 * to. Without a valid footer there is no way to the blocks.
 */
#include <stdio.h>

#include "base/status.h"
#include "format/block.h"
#include "format/segment_format.h"
#include "segment/segment_props.h"
#include "tools/inspect.h"

typedef unsigned long long ull;

struct inspect_segment_walk {
    struct inspect *inspect;
    struct segment_footer footer;
    uint64_t blocks, rows;
    /* Where the next block may begin, by depth. Blocks stand in the order of the
     * index; one that pointed back could make a small file endless. */
    uint64_t next_at[3];
};

static const char *
inspect_codec(enum block_codec codec)
{
    return codec == BLOCK_CODEC_LZ4 ? "lz4" : codec == BLOCK_CODEC_ZSTD ? "zstd" : "raw";
}

/* A damaged header is told, and the footer then vouches for itself. */
static esker_status
inspect_segment_ends(struct inspect *inspect, bool told, struct segment_footer *out)
{
    uint8_t uuid[16];
    struct bytes bytes;
    TRY(inspect_view(inspect, 0, SEGMENT_HEADER_BYTES, &bytes));
    uint64_t id = le64_load(bytes.ptr + 32);
    memcpy(uuid, bytes.ptr + 16, sizeof uuid);
    bool has_header = segment_header_decode(bytes, uuid, id) == ESKER_OK;
    if (!has_header && told) {
        inspect_damage(inspect, 0, "the header is not valid");
    }
    if (inspect->size < SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, inspect->name, inspect->size, "the file is too short for a footer");
    }
    uint64_t footer_at = inspect->size - SEGMENT_FOOTER_BYTES;
    TRY(inspect_view(inspect, footer_at, SEGMENT_FOOTER_BYTES, &bytes));
    if (!has_header) {
        id = le64_load(bytes.ptr + 160);
        memcpy(uuid, bytes.ptr + 144, sizeof uuid);
    }
    esker_status status = segment_footer_decode(bytes, inspect->size, uuid, id, out);
    if (status == ESKER_UNSUPPORTED) {
        return FAIL_AT(status, inspect->name, footer_at,
                       "written in a format that this version of the library does not read");
    }
    return status == ESKER_OK ? ESKER_OK
                              : FAIL_AT(ESKER_CORRUPT, inspect->name, footer_at, "the footer is not valid");
}

static void
inspect_segment_footer(struct inspect *inspect, const struct segment_footer *footer)
{
    char uuid[INSPECT_UUID_TEXT];
    inspect_line(inspect, "database %s, segment %016llx", inspect_uuid(footer->uuid, uuid), (ull)footer->id);
    inspect_line(inspect, "%llu rows of which %llu deletes, LSN %llu to %llu", (ull)footer->row_count,
                 (ull)footer->tombstone_count, (ull)footer->min_lsn, (ull)footer->max_lsn);
    inspect_line(inspect,
                 "%u data blocks, %llu bytes raw, %llu in the file; index of depth %u; %u filter pages",
                 footer->data_block_count, (ull)footer->data_raw_bytes,
                 (ull)(footer->data_end - SEGMENT_HEADER_BYTES), footer->index_depth, footer->filter_pages);
}

/* ---- Blocks ---------------------------------------------------------------- */

/* Reads, checks and unpacks a stored block. raw: filled. */
static esker_status
inspect_block_raw(struct inspect_segment_walk *walk, const struct block_handle *handle, enum block_kind kind,
                  struct buf *raw, enum block_codec *codec_out)
{
    struct inspect *inspect = walk->inspect;
    struct bytes bytes;
    struct block_stored stored;
    TRY(inspect_view(inspect, handle->offset, handle->stored_len, &bytes));
    esker_status status = block_stored_open(bytes, kind, walk->footer.id, handle->offset, &stored);
    if (status == ESKER_OK && stored.raw_len != handle->raw_len) {
        return FAIL_AT(ESKER_CORRUPT, inspect->name, handle->offset,
                       "the block's size is not what the index says");
    }
    if (status != ESKER_OK) {
        return FAIL_AT(status, inspect->name, handle->offset,
                       "the block's checksum or trailer does not agree");
    }
    buf_clear(raw);
    TRY(buf_append_zeros(raw, stored.raw_len));
    status = block_stored_unpack(&stored, &mem_default, raw->ptr);
    if (status != ESKER_OK) {
        return FAIL_AT(status, inspect->name, handle->offset, "the block does not unpack");
    }
    *codec_out = stored.codec;
    return ESKER_OK;
}

static esker_status
inspect_block_open(struct inspect_segment_walk *walk, const struct block_handle *handle, enum block_kind kind,
                   struct buf *raw, struct block *block, enum block_codec *codec_out)
{
    TRY(inspect_block_raw(walk, handle, kind, raw, codec_out));
    esker_status status = block_open(buf_bytes(raw), kind, block);
    return status == ESKER_OK
               ? ESKER_OK
               : FAIL_AT(status, walk->inspect->name, handle->offset, "the block's columns are not valid");
}

static const char *
inspect_block_key(const struct block *block, uint32_t row, char out[INSPECT_KEY_TEXT])
{
    uint8_t key[KEY_BYTES_MAX];
    size_t len = block_key(block, row, key);
    return inspect_key(bytes_make(key, len), out);
}

static void
inspect_data_rows(struct inspect *inspect, const struct block *block)
{
    char key[INSPECT_KEY_TEXT];
    for (uint32_t row = 0; row < block->row_count && text_out_alive(&inspect->out); row++) {
        if (block_op(block, row) == ENTRY_PUT) {
            inspect_line(inspect, "    %s LSN %llu put, %zu bytes", inspect_block_key(block, row, key),
                         (ull)block_lsn(block, row), block_value(block, row).len);
        } else if (block_op(block, row) == ENTRY_PUT_EXPIRING) {
            struct bytes value = block_value(block, row);
            inspect_line(inspect, "    %s LSN %llu put, %zu bytes, expires at %llu ms",
                         inspect_block_key(block, row, key), (ull)block_lsn(block, row),
                         entry_expiring_value(value).len, (ull)entry_expiry_ms(value));
        } else {
            inspect_line(inspect, "    %s LSN %llu delete", inspect_block_key(block, row, key),
                         (ull)block_lsn(block, row));
        }
    }
}

static esker_status
inspect_data_block(struct inspect_segment_walk *walk, const struct block_handle *handle, struct buf *raw)
{
    struct block block;
    enum block_codec codec;
    char first[INSPECT_KEY_TEXT];
    char last[INSPECT_KEY_TEXT];
    TRY(inspect_block_open(walk, handle, BLOCK_DATA, raw, &block, &codec));
    inspect_line(walk->inspect, "byte %llu: block %llu, %u bytes from %u raw (%s), %u rows, %s to %s",
                 (ull)handle->offset, (ull)walk->blocks, handle->stored_len, handle->raw_len,
                 inspect_codec(codec), block.row_count, inspect_block_key(&block, 0, first),
                 inspect_block_key(&block, block.row_count - 1, last));
    if (walk->inspect->rows) {
        inspect_data_rows(walk->inspect, &block);
    }
    walk->rows += block.row_count;
    return ESKER_OK;
}

/* ---- Index ----------------------------------------------------------------- */

/* Every block that the index block at `handle` points to; depth 1: data
 * blocks. False: the reading failed. */
static bool inspect_index_rows(struct inspect_segment_walk *walk, const struct block *index,
                               uint64_t index_at, uint32_t depth);

static bool
inspect_index_block(struct inspect_segment_walk *walk, const struct block_handle *handle, uint32_t depth)
{
    struct buf raw;
    struct block block;
    enum block_codec codec;
    bool done = true;
    if (handle->offset < walk->next_at[depth] || handle->offset > walk->inspect->size) {
        inspect_damage(walk->inspect, handle->offset, "the index points here out of order");
        return true;
    }
    walk->next_at[depth] = handle->offset + handle->stored_len;
    buf_init(&raw, &mem_default);
    if (depth == 0) {
        done = inspect_data_block(walk, handle, &raw) == ESKER_OK || inspect_story(walk->inspect);
        walk->blocks++;
    } else if (inspect_block_open(walk, handle, BLOCK_INDEX, &raw, &block, &codec) == ESKER_OK) {
        inspect_line(walk->inspect, "byte %llu: index of %u rows, %u bytes from %u raw (%s)",
                     (ull)handle->offset, block.row_count, handle->stored_len, handle->raw_len,
                     inspect_codec(codec));
        done = inspect_index_rows(walk, &block, handle->offset, depth);
    } else {
        done = inspect_story(walk->inspect);
    }
    buf_fini(&raw);
    return done;
}

/* Recurses once for depth 2, which is the deepest that a footer may say. */
static bool
inspect_index_rows(struct inspect_segment_walk *walk, const struct block *index, uint64_t index_at,
                   uint32_t depth)
{
    for (uint32_t row = 0; row < index->row_count && text_out_alive(&walk->inspect->out); row++) {
        struct block_handle handle;
        if (!block_handle_decode(block_value(index, row), &handle)) {
            inspect_damage(walk->inspect, index_at, "row %u of the index is no handle", row);
        } else if (!inspect_index_block(walk, &handle, depth - 1)) {
            return false;
        }
    }
    return true;
}

static esker_status
inspect_segment_props(struct inspect_segment_walk *walk)
{
    const struct segment_handle *at = &walk->footer.props;
    struct block_handle handle = {.offset = at->offset, .stored_len = at->stored_len, .raw_len = at->raw_len};
    struct segment_props props;
    enum block_codec codec;
    struct buf raw;
    if (at->stored_len == 0) {
        return ESKER_OK;
    }
    buf_init(&raw, &mem_default);
    esker_status status = inspect_block_raw(walk, &handle, BLOCK_PROPS, &raw, &codec);
    if (status == ESKER_OK) {
        status = segment_props_decode(buf_bytes(&raw), &props);
        status = status == ESKER_OK
                     ? status
                     : FAIL_AT(status, walk->inspect->name, at->offset, "the properties are not valid");
    }
    if (status == ESKER_OK) {
        char writer[INSPECT_KEY_TEXT];
        inspect_line(walk->inspect, "written by %s; keys %llu bytes, values %llu bytes",
                     inspect_key(props.writer, writer), (ull)props.key_bytes, (ull)props.value_bytes);
    }
    buf_fini(&raw);
    return status;
}

static esker_status
inspect_segment_filter(struct inspect_segment_walk *walk)
{
    const struct segment_handle *at = &walk->footer.filter;
    if (at->stored_len == 0) {
        return ESKER_OK;
    }
    for (uint32_t page = 0; page < walk->footer.filter_pages; page++) {
        uint64_t offset = at->offset + (uint64_t)page * SEGMENT_FILTER_PAGE_STORED;
        struct block_stored stored;
        struct bytes bytes;
        TRY(inspect_view(walk->inspect, offset, SEGMENT_FILTER_PAGE_STORED, &bytes));
        if (block_stored_open(bytes, BLOCK_FILTER, walk->footer.id, offset, &stored) != ESKER_OK) {
            return FAIL_AT(ESKER_CORRUPT, walk->inspect->name, offset,
                           "the checksum or trailer of a page of the filter does not agree");
        }
    }
    inspect_line(walk->inspect, "byte %llu: filter of %u pages", (ull)at->offset, walk->footer.filter_pages);
    return ESKER_OK;
}

bool
inspect_segment(struct inspect *inspect)
{
    struct inspect_segment_walk walk = {.inspect = inspect};
    if (inspect_segment_ends(inspect, true, &walk.footer) != ESKER_OK) {
        return inspect_story(inspect);
    }
    const struct segment_handle *at = &walk.footer.root;
    struct block_handle root = {.offset = at->offset, .stored_len = at->stored_len, .raw_len = at->raw_len};
    inspect_segment_footer(inspect, &walk.footer);
    if (inspect_segment_props(&walk) != ESKER_OK && !inspect_story(inspect)) {
        return false;
    }
    if (!inspect_index_block(&walk, &root, walk.footer.index_depth)) {
        return false;
    }
    if (inspect_segment_filter(&walk) != ESKER_OK && !inspect_story(inspect)) {
        return false;
    }
    inspect_line(inspect, "%llu blocks, %llu rows", (ull)walk.blocks, (ull)walk.rows);
    return true;
}

void
inspect_segment_summary(struct inspect *inspect, char *out, size_t size)
{
    struct segment_footer footer;
    if (inspect_segment_ends(inspect, false, &footer) == ESKER_OK) {
        (void)snprintf(out, size, "%llu rows, LSN %llu to %llu", (ull)footer.row_count, (ull)footer.min_lsn,
                       (ull)footer.max_lsn);
    } else {
        (void)snprintf(out, size, "no valid footer");
    }
}
