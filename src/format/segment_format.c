/* SPDX-License-Identifier: MIT */
/* See segment_format.h. Nothing here allocates or keeps state; any thread may call. */
#include "format/segment_format.h"

#include "base/assert.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/block.h"
#include "format/filter.h"

enum {
    SEGMENT_MAGIC_BYTES = 8,
    SEGMENT_UUID_BYTES = 16,
    SEGMENT_HEADER_HASHED_BYTES = 56,
    SEGMENT_FOOTER_HASHED_BYTES = 176,
    SEGMENT_FOOTER_MAGIC_AT = 184,
    SEGMENT_STORED_BYTES_MIN = 24 /* of a data block: trailer and more than any codec needs for a header */
};

static const char segment_header_magic[SEGMENT_MAGIC_BYTES + 1] = "ESKERSEG";
static const char segment_footer_magic[SEGMENT_MAGIC_BYTES + 1] = "ESKEREND";

/* Offsets of the footer's fields. */
enum {
    FOOTER_AT_ROOT = 0,
    FOOTER_AT_FILTER = 16,
    FOOTER_AT_PROPS = 32,
    FOOTER_AT_ROW_COUNT = 80,
    FOOTER_AT_TOMBSTONE_COUNT = 88,
    FOOTER_AT_MIN_LSN = 96,
    FOOTER_AT_MAX_LSN = 104,
    FOOTER_AT_FILTER_PAGES = 112,
    FOOTER_AT_FILTER_KIND = 116,
    FOOTER_AT_DATA_BLOCK_COUNT = 120,
    FOOTER_AT_INDEX_DEPTH = 124,
    FOOTER_AT_DATA_RAW_BYTES = 128,
    FOOTER_AT_DATA_END = 136,
    FOOTER_AT_UUID = 144,
    FOOTER_AT_ID = 160,
    FOOTER_AT_FORMAT = 168
};

/* ---- Header ---------------------------------------------------------------- */

void
segment_header_encode(const uint8_t uuid[16], uint64_t id, uint8_t out[SEGMENT_HEADER_BYTES])
{
    memset(out, 0, SEGMENT_HEADER_BYTES);
    memcpy(out, segment_header_magic, SEGMENT_MAGIC_BYTES);
    le32_store(out + 8, SEGMENT_FORMAT);
    memcpy(out + 16, uuid, SEGMENT_UUID_BYTES);
    le64_store(out + 32, id);
    le64_store(out + SEGMENT_HEADER_HASHED_BYTES, hash64(out, SEGMENT_HEADER_HASHED_BYTES, 0));
}

esker_status
segment_header_decode(struct bytes bytes, const uint8_t uuid[16], uint64_t id)
{
    struct cursor cursor = cursor_make(bytes.ptr, bytes.len);
    struct bytes magic = cursor_bytes(&cursor, SEGMENT_MAGIC_BYTES);
    uint32_t format = cursor_u32(&cursor);
    uint32_t features = cursor_u32(&cursor);
    struct bytes its_uuid = cursor_bytes(&cursor, SEGMENT_UUID_BYTES);
    uint64_t its_id = cursor_u64(&cursor);
    uint64_t zeros = cursor_u64(&cursor);
    zeros |= cursor_u64(&cursor);
    uint64_t checksum = cursor_u64(&cursor);
    if (!cursor.ok || cursor_left(&cursor) != 0 ||
        memcmp(magic.ptr, segment_header_magic, SEGMENT_MAGIC_BYTES) != 0 ||
        checksum != hash64(bytes.ptr, SEGMENT_HEADER_HASHED_BYTES, 0)) {
        return ESKER_CORRUPT;
    }
    if (format != SEGMENT_FORMAT || features != 0) {
        return ESKER_UNSUPPORTED;
    }
    bool agrees = zeros == 0 && its_id == id && memcmp(its_uuid.ptr, uuid, SEGMENT_UUID_BYTES) == 0;
    return agrees ? ESKER_OK : ESKER_CORRUPT;
}

/* ---- Footer ---------------------------------------------------------------- */

static void
segment_handle_encode(const struct segment_handle *handle, uint8_t *out)
{
    le64_store(out, handle->offset);
    le32_store(out + 8, handle->stored_len);
    le32_store(out + 12, handle->raw_len);
}

static struct segment_handle
segment_handle_decode(struct cursor *cursor)
{
    struct segment_handle handle;
    handle.offset = cursor_u64(cursor);
    handle.stored_len = cursor_u32(cursor);
    handle.raw_len = cursor_u32(cursor);
    return handle;
}

static bool
segment_handle_absent(const struct segment_handle *handle)
{
    return handle->offset == 0 && handle->stored_len == 0 && handle->raw_len == 0;
}

void
segment_footer_encode(const struct segment_footer *footer, uint8_t out[SEGMENT_FOOTER_BYTES])
{
    memset(out, 0, SEGMENT_FOOTER_BYTES);
    segment_handle_encode(&footer->root, out + FOOTER_AT_ROOT);
    segment_handle_encode(&footer->filter, out + FOOTER_AT_FILTER);
    segment_handle_encode(&footer->props, out + FOOTER_AT_PROPS);
    le64_store(out + FOOTER_AT_ROW_COUNT, footer->row_count);
    le64_store(out + FOOTER_AT_TOMBSTONE_COUNT, footer->tombstone_count);
    le64_store(out + FOOTER_AT_MIN_LSN, footer->min_lsn);
    le64_store(out + FOOTER_AT_MAX_LSN, footer->max_lsn);
    le32_store(out + FOOTER_AT_FILTER_PAGES, footer->filter_pages);
    le32_store(out + FOOTER_AT_FILTER_KIND, footer->filter_kind);
    le32_store(out + FOOTER_AT_DATA_BLOCK_COUNT, footer->data_block_count);
    le32_store(out + FOOTER_AT_INDEX_DEPTH, footer->index_depth);
    le64_store(out + FOOTER_AT_DATA_RAW_BYTES, footer->data_raw_bytes);
    le64_store(out + FOOTER_AT_DATA_END, footer->data_end);
    memcpy(out + FOOTER_AT_UUID, footer->uuid, SEGMENT_UUID_BYTES);
    le64_store(out + FOOTER_AT_ID, footer->id);
    le32_store(out + FOOTER_AT_FORMAT, SEGMENT_FORMAT);
    le64_store(out + SEGMENT_FOOTER_HASHED_BYTES, hash64(out, SEGMENT_FOOTER_HASHED_BYTES, footer->id));
    memcpy(out + SEGMENT_FOOTER_MAGIC_AT, segment_footer_magic, SEGMENT_MAGIC_BYTES);
}

/* Rule 2 for one handle: absent, or a block between the data and the footer. */
static bool
segment_handle_valid(const struct segment_handle *handle, uint64_t lower, uint64_t upper)
{
    uint64_t end;
    return segment_handle_absent(handle) ||
           (handle->stored_len > BLOCK_TRAILER_BYTES && handle->offset >= lower &&
            !__builtin_add_overflow(handle->offset, (uint64_t)handle->stored_len, &end) && end <= upper);
}

/* Both are valid, so the sums do not wrap; an absent one is empty. */
static bool
segment_handles_overlap(const struct segment_handle *a, const struct segment_handle *b)
{
    return a->offset < b->offset + b->stored_len && b->offset < a->offset + a->stored_len;
}

/* Rules 2 and 3. */
static bool
segment_footer_places_valid(const struct segment_footer *footer, uint64_t file_size)
{
    uint64_t upper = file_size - SEGMENT_FOOTER_BYTES;
    uint64_t lower = footer->data_end;
    if (lower < SEGMENT_HEADER_BYTES || segment_handle_absent(&footer->root) ||
        !segment_handle_valid(&footer->root, lower, upper) ||
        !segment_handle_valid(&footer->filter, lower, upper) ||
        !segment_handle_valid(&footer->props, lower, upper) ||
        segment_handles_overlap(&footer->root, &footer->filter) ||
        segment_handles_overlap(&footer->root, &footer->props) ||
        segment_handles_overlap(&footer->filter, &footer->props)) {
        return false;
    }
    if (footer->filter_kind == SEGMENT_FILTER_NONE) {
        return footer->filter_pages == 0 && segment_handle_absent(&footer->filter);
    }
    _Static_assert(SEGMENT_FILTER_PAGE_STORED == FILTER_PAGE_BYTES + BLOCK_TRAILER_BYTES,
                   "a page is a block");
    return footer->filter_pages > 0 && !segment_handle_absent(&footer->filter) &&
           footer->filter.raw_len == (uint64_t)footer->filter_pages * FILTER_PAGE_BYTES &&
           footer->filter.stored_len == (uint64_t)footer->filter_pages * SEGMENT_FILTER_PAGE_STORED;
}

/* Rule 4; data_end is valid. */
static bool
segment_footer_counts_valid(const struct segment_footer *footer)
{
    uint64_t blocks = footer->data_block_count;
    uint64_t rows = footer->row_count;
    return (footer->index_depth == 1 || footer->index_depth == 2) && blocks >= 1 &&
           blocks <= (footer->data_end - SEGMENT_HEADER_BYTES) / SEGMENT_STORED_BYTES_MIN && rows >= blocks &&
           rows <= blocks * BLOCK_ROWS_MAX && footer->tombstone_count <= rows &&
           footer->min_lsn <= footer->max_lsn;
}

esker_status
segment_footer_decode(struct bytes bytes, uint64_t file_size, const uint8_t uuid[16], uint64_t id,
                      struct segment_footer *out)
{
    struct segment_footer footer;
    if (bytes.len != SEGMENT_FOOTER_BYTES || file_size < SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) {
        return ESKER_CORRUPT;
    }
    struct cursor cursor = cursor_make(bytes.ptr, bytes.len);
    footer.root = segment_handle_decode(&cursor);
    footer.filter = segment_handle_decode(&cursor);
    footer.props = segment_handle_decode(&cursor);
    struct segment_handle range_deletes = segment_handle_decode(&cursor);
    struct segment_handle blobs = segment_handle_decode(&cursor);
    footer.row_count = cursor_u64(&cursor);
    footer.tombstone_count = cursor_u64(&cursor);
    footer.min_lsn = cursor_u64(&cursor);
    footer.max_lsn = cursor_u64(&cursor);
    footer.filter_pages = cursor_u32(&cursor);
    footer.filter_kind = cursor_u32(&cursor);
    footer.data_block_count = cursor_u32(&cursor);
    footer.index_depth = cursor_u32(&cursor);
    footer.data_raw_bytes = cursor_u64(&cursor);
    footer.data_end = cursor_u64(&cursor);
    struct bytes its_uuid = cursor_bytes(&cursor, SEGMENT_UUID_BYTES);
    footer.id = cursor_u64(&cursor);
    uint32_t format = cursor_u32(&cursor);
    uint32_t features = cursor_u32(&cursor);
    uint64_t checksum = cursor_u64(&cursor);
    struct bytes magic = cursor_bytes(&cursor, SEGMENT_MAGIC_BYTES);
    ASSERT(cursor.ok && cursor_left(&cursor) == 0);
    if (memcmp(magic.ptr, segment_footer_magic, SEGMENT_MAGIC_BYTES) != 0 ||
        checksum != hash64(bytes.ptr, SEGMENT_FOOTER_HASHED_BYTES, id)) {
        return ESKER_CORRUPT;
    }
    if (format != SEGMENT_FORMAT || features != 0 || footer.filter_kind > SEGMENT_FILTER_SPLIT_BLOCK ||
        !segment_handle_absent(&range_deletes) || !segment_handle_absent(&blobs)) {
        return ESKER_UNSUPPORTED;
    }
    memcpy(footer.uuid, its_uuid.ptr, SEGMENT_UUID_BYTES);
    if (footer.id != id || memcmp(footer.uuid, uuid, SEGMENT_UUID_BYTES) != 0 ||
        !segment_footer_places_valid(&footer, file_size) || !segment_footer_counts_valid(&footer)) {
        return ESKER_CORRUPT;
    }
    *out = footer;
    return ESKER_OK;
}
