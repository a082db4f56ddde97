/* rooms: format */
/* SPDX-License-Identifier: MIT */
/*
 * Segment headers and footers. The first byte: bit 0 chooses footer or header,
 * bit 1 makes the checksum, the magic and the identity right first. Then the
 * file's size (8 bytes, footers only) and the bytes. Oracles: what decodes
 * encodes to the same bytes, and all of its places lie in the file, apart.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/block.h"
#include "format/segment_format.h"

enum { ID = 9 };

static const uint8_t uuid[16] = "fuzz segment id";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fuzz_header(uint8_t *bytes, size_t size, bool forge)
{
    uint8_t again[SEGMENT_HEADER_BYTES];
    if (forge && size == SEGMENT_HEADER_BYTES) {
        memcpy(bytes, "ESKERSEG", 8);
        memcpy(bytes + 16, uuid, sizeof uuid);
        le64_store(bytes + 32, ID);
        le64_store(bytes + 56, hash64(bytes, 56, 0));
    }
    if (segment_header_decode(bytes_make(bytes, size), uuid, ID) == ESKER_OK) {
        segment_header_encode(uuid, ID, again);
        ASSERT(size == sizeof again && memcmp(again, bytes, size) == 0);
    }
}

/* A block between the header and the footer that does not overlap the other one. */
static void
fuzz_handle_sound(const struct segment_handle *handle, const struct segment_handle *other, uint64_t file_size)
{
    if (handle->stored_len == 0) {
        ASSERT(handle->offset == 0 && handle->raw_len == 0);
        return;
    }
    uint64_t end = handle->offset + handle->stored_len;
    ASSERT(handle->offset >= SEGMENT_HEADER_BYTES && end > handle->offset);
    ASSERT(end <= file_size - SEGMENT_FOOTER_BYTES && handle->stored_len > BLOCK_TRAILER_BYTES);
    ASSERT(other->stored_len == 0 || end <= other->offset ||
           other->offset + other->stored_len <= handle->offset);
}

static void
fuzz_footer(uint8_t *bytes, size_t size, uint64_t file_size, bool forge)
{
    struct segment_footer footer;
    uint8_t again[SEGMENT_FOOTER_BYTES];
    if (forge && size == SEGMENT_FOOTER_BYTES) {
        memcpy(bytes + 144, uuid, sizeof uuid);
        le64_store(bytes + 160, ID);
        memset(bytes + 48, 0, 32);
        le32_store(bytes + 168, SEGMENT_FORMAT);
        le32_store(bytes + 172, 0);
        le64_store(bytes + 176, hash64(bytes, 176, ID));
        memcpy(bytes + 184, "ESKEREND", 8);
    }
    if (segment_footer_decode(bytes_make(bytes, size), file_size, uuid, ID, &footer) != ESKER_OK) {
        return;
    }
    segment_footer_encode(&footer, again);
    ASSERT(size == sizeof again && memcmp(again, bytes, size) == 0);
    ASSERT(footer.root.stored_len > 0);
    fuzz_handle_sound(&footer.root, &footer.filter, file_size);
    fuzz_handle_sound(&footer.filter, &footer.props, file_size);
    fuzz_handle_sound(&footer.props, &footer.root, file_size);
    ASSERT(footer.data_block_count >= 1 && footer.data_block_count <= file_size / 24);
    ASSERT(footer.row_count >= footer.data_block_count && footer.tombstone_count <= footer.row_count);
    ASSERT(footer.row_count <= (uint64_t)footer.data_block_count * BLOCK_ROWS_MAX);
    ASSERT((uint64_t)footer.filter_pages * 4096 == footer.filter.raw_len);
    ASSERT(footer.index_depth == 1 || footer.index_depth == 2);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor in = cursor_make(data, size);
    uint8_t mode = cursor_u8(&in);
    uint64_t file_size = (mode & 1) == 0 ? cursor_u64(&in) : 0;
    size_t left = cursor_left(&in);
    struct bytes rest = cursor_bytes(&in, left);
    if (!in.ok) {
        return 0;
    }
    uint8_t *copy = malloc(rest.len + 1);
    ASSERT(copy != NULL);
    memcpy(copy + 1, rest.ptr, rest.len);
    if ((mode & 1) == 0) {
        fuzz_footer(copy + 1, rest.len, file_size, (mode & 2) != 0);
    } else {
        fuzz_header(copy + 1, rest.len, (mode & 2) != 0);
    }
    free(copy);
    return 0;
}
