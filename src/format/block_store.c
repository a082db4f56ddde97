/* SPDX-License-Identifier: MIT */
/*
 * Blocks on disk: compressed where that pays, always with a checksum that
 * binds them to their file and place, so that a block that was moved, swapped
 * or is left from an older file does not pass for this one.
 *
 * lz4's state is on the stack (16 KiB), zstd's is lent by zstd_seat.h. Any
 * thread may call.
 */
#include "base/assert.h"
#include "format/block_layout.h"
#include "format/zstd_seat.h"

#include <lz4.h>
#include <zstd.h>
#include <zstd_errors.h>

enum {
    STORE_ZSTD_LEVEL = 1,
    STORE_BOMB_FREE_BYTES = 1 << 20, /* raw_len up to here needs no payload to speak for it */
    STORE_BOMB_RATIO = 256
};

/* Offsets of the trailer's fields. */
enum {
    TRAILER_AT_CODEC = 0,
    TRAILER_AT_KIND = 1,
    TRAILER_AT_ZERO = 2,
    TRAILER_AT_RAW_LEN = 4,
    TRAILER_AT_HASH = 8
};

_Static_assert(TRAILER_AT_HASH + 8 == BLOCK_TRAILER_BYTES, "the checksum ends the trailer");

static uint64_t
store_checksum(struct bytes payload, uint64_t segment_id, uint64_t file_offset, const uint8_t *trailer)
{
    return hash64(payload.ptr, payload.len, hash_mix(hash_mix(segment_id, file_offset), le64_load(trailer)));
}

/* A compressed payload of this length may claim that it unpacks to raw_len bytes. */
static bool
store_ratio_allowed(uint64_t raw_len, uint64_t payload_len)
{
    return raw_len >= 1 && raw_len <= BLOCK_RAW_MAX &&
           (raw_len <= STORE_BOMB_FREE_BYTES || raw_len <= STORE_BOMB_RATIO * payload_len);
}

/* ---- Planes ---------------------------------------------------------------- */

/* Where the pfx column of a data or index block is; false: what is there is no such block, and
 * stays as it is. The bytes that this looks at keep their places. */
static bool
store_pfx_place(const uint8_t *raw, uint64_t len, uint64_t *at_out, uint32_t *rows_out)
{
    if (len < BLOCK_HEADER_BYTES || raw[BLOCK_AT_VERSION] != BLOCK_VERSION) {
        return false;
    }
    struct block_shape shape = block_shape_of(raw);
    if (shape.row_count == 0 || shape.row_count > BLOCK_ROWS_MAX) {
        return false;
    }
    *at_out = block_layout_of(&shape).pfx;
    *rows_out = shape.row_count;
    return *at_out + 8 * (uint64_t)shape.row_count <= len;
}

/* Byte i of word k changes places with byte k of word i. */
ALWAYS_INLINE void
store_transpose(uint64_t word[8])
{
    for (int i = 0; i < 4; i++) {
        uint64_t swap = (word[i] >> 32 ^ word[i + 4]) & 0x00000000ffffffff;
        word[i + 4] ^= swap;
        word[i] ^= swap << 32;
    }
    for (int i = 0; i < 8; i += i % 4 == 0 ? 1 : 3) {
        uint64_t swap = (word[i] >> 16 ^ word[i + 2]) & 0x0000ffff0000ffff;
        word[i + 2] ^= swap;
        word[i] ^= swap << 16;
    }
    for (int i = 0; i < 8; i += 2) {
        uint64_t swap = (word[i] >> 8 ^ word[i + 1]) & 0x00ff00ff00ff00ff;
        word[i + 1] ^= swap;
        word[i] ^= swap << 8;
    }
}

/* One group: rows of 8 bytes to planes of `rows` bytes, and back. */
static void
store_group_to_planes(uint8_t *group, uint32_t rows)
{
    uint8_t from[8 * BLOCK_PLANE_ROWS];
    uint32_t row = 0;
    memcpy(from, group, 8 * (size_t)rows);
    for (; row + 8 <= rows; row += 8) {
        uint64_t word[8];
        memcpy(word, from + 8 * (size_t)row, sizeof word);
        store_transpose(word);
        for (uint32_t k = 0; k < 8; k++) {
            le64_store(group + (size_t)k * rows + row, word[k]);
        }
    }
    for (; row < rows; row++) {
        for (uint32_t k = 0; k < 8; k++) {
            group[k * rows + row] = from[8 * row + k];
        }
    }
}

static void
store_group_to_rows(uint8_t *group, uint32_t rows)
{
    uint8_t from[8 * BLOCK_PLANE_ROWS];
    uint32_t row = 0;
    memcpy(from, group, 8 * (size_t)rows);
    for (; row + 8 <= rows; row += 8) {
        uint64_t word[8];
        for (uint32_t k = 0; k < 8; k++) {
            word[k] = le64_load(from + (size_t)k * rows + row);
        }
        store_transpose(word);
        memcpy(group + 8 * (size_t)row, word, sizeof word);
    }
    for (; row < rows; row++) {
        for (uint32_t k = 0; k < 8; k++) {
            group[8 * row + k] = from[k * rows + row];
        }
    }
}

/* The pfx column of a block, whole, to planes or back. */
static void
store_turn_pfx(uint8_t *raw, uint64_t len, bool to_planes)
{
    uint64_t at;
    uint32_t rows;
    if (!store_pfx_place(raw, len, &at, &rows)) {
        return;
    }
    for (uint32_t first = 0; first < rows; first += BLOCK_PLANE_ROWS) {
        uint32_t count = MIN(rows - first, (uint32_t)BLOCK_PLANE_ROWS);
        uint8_t *group = raw + at + 8 * (size_t)first;
        if (to_planes) {
            store_group_to_planes(group, count);
        } else {
            store_group_to_rows(group, count);
        }
    }
}

static bool
store_has_pfx(enum block_kind kind)
{
    return kind == BLOCK_DATA || kind == BLOCK_INDEX;
}

/* ---- Writing --------------------------------------------------------------- */

/* The compressed length, or 0: it did not fit into `room`. */
static esker_status
store_zstd(struct bytes raw, uint8_t *at, size_t room, const struct mem *mem, size_t *len_out)
{
    struct zstd_lease lease;
    if (!zstd_seat_take(ZSTD_SEAT_PACK, mem, &lease)) {
        return FAIL_NO_MEMORY("compression");
    }
    size_t len = ZSTD_compressCCtx(lease.context, at, room, raw.ptr, raw.len, STORE_ZSTD_LEVEL);
    bool no_memory = ZSTD_isError(len) && ZSTD_getErrorCode(len) == ZSTD_error_memory_allocation;
    zstd_seat_give(&lease, !no_memory);
    if (no_memory) {
        return FAIL_NO_MEMORY("compression");
    }
    *len_out = ZSTD_isError(len) ? 0 : len;
    return ESKER_OK;
}

/* Into at[0, room); *len_out = 0: it does not fit there. */
static esker_status
store_compress(struct bytes raw, enum block_codec codec, uint8_t *at, size_t room, const struct mem *mem,
               size_t *len_out)
{
    *len_out = 0;
    if (codec == BLOCK_CODEC_LZ4) {
        int len = LZ4_compress_default((const char *)raw.ptr, (char *)at, (int)raw.len, (int)room);
        *len_out = (size_t)len;
    } else if (codec == BLOCK_CODEC_ZSTD) {
        return store_zstd(raw, at, room, mem, len_out);
    }
    return ESKER_OK;
}

esker_status
block_store(struct bytes raw, enum block_kind kind, enum block_codec codec, uint64_t segment_id,
            uint64_t file_offset, struct buf *out)
{
    ASSERT(raw.len <= BLOCK_ONE_ROW_RAW_MAX);
    uint64_t pfx_at;
    uint32_t rows;
    /* One row's planes are the row; the others' are made in a copy behind the payload. */
    bool turn = codec != BLOCK_CODEC_NONE && store_has_pfx(kind) &&
                store_pfx_place(raw.ptr, raw.len, &pfx_at, &rows) && rows > 1;
    TRY(buf_reserve(out, (turn ? 2 : 1) * raw.len + BLOCK_TRAILER_BYTES));
    uint8_t *at = out->ptr + out->len;
    size_t room = raw.len - raw.len / 8;
    size_t payload_len = 0;
    if (raw.len <= BLOCK_RAW_MAX) {
        struct bytes packed = raw;
        if (turn) {
            uint8_t *copy = at + raw.len + BLOCK_TRAILER_BYTES;
            memcpy(copy, raw.ptr, raw.len);
            store_turn_pfx(copy, raw.len, true);
            packed.ptr = copy;
        }
        TRY(store_compress(packed, codec, at, room, out->mem, &payload_len));
    }
    if (payload_len == 0 || !store_ratio_allowed(raw.len, payload_len)) {
        codec = BLOCK_CODEC_NONE;
        payload_len = raw.len;
        if (raw.len > 0) {
            memcpy(at, raw.ptr, raw.len);
        }
    }
    uint8_t *trailer = at + payload_len;
    trailer[TRAILER_AT_CODEC] = (uint8_t)codec;
    trailer[TRAILER_AT_KIND] = (uint8_t)kind;
    le16_store(trailer + TRAILER_AT_ZERO, 0);
    le32_store(trailer + TRAILER_AT_RAW_LEN, (uint32_t)raw.len);
    le64_store(trailer + TRAILER_AT_HASH,
               store_checksum(bytes_make(at, payload_len), segment_id, file_offset, trailer));
    out->len += payload_len + BLOCK_TRAILER_BYTES;
    return ESKER_OK;
}

esker_status
block_stored_open(struct bytes stored, enum block_kind kind, uint64_t segment_id, uint64_t file_offset,
                  struct block_stored *out)
{
    if (stored.len < BLOCK_TRAILER_BYTES) {
        return ESKER_CORRUPT;
    }
    struct bytes payload = bytes_make(stored.ptr, stored.len - BLOCK_TRAILER_BYTES);
    const uint8_t *trailer = stored.ptr + payload.len;
    uint64_t checksum = store_checksum(payload, segment_id, file_offset, trailer);
    if (le64_load(trailer + TRAILER_AT_HASH) != checksum) {
        return ESKER_CORRUPT;
    }
    uint32_t raw_len = le32_load(trailer + TRAILER_AT_RAW_LEN);
    uint32_t codec = trailer[TRAILER_AT_CODEC];
    if (codec > BLOCK_CODEC_ZSTD || le16_load(trailer + TRAILER_AT_ZERO) != 0) {
        return ESKER_UNSUPPORTED;
    }
    if (trailer[TRAILER_AT_KIND] != kind) {
        return ESKER_CORRUPT;
    }
    bool allowed = codec == BLOCK_CODEC_NONE ? raw_len == payload.len && raw_len <= BLOCK_ONE_ROW_RAW_MAX
                                             : store_ratio_allowed(raw_len, payload.len);
    if (!allowed) {
        return ESKER_CORRUPT;
    }
    *out = (struct block_stored){.codec = (enum block_codec)codec,
                                 .kind = kind,
                                 .payload = payload,
                                 .raw_len = raw_len,
                                 .checksum = checksum};
    return ESKER_OK;
}

static esker_status
store_unzstd(const struct block_stored *stored, const struct mem *mem, uint8_t *raw_out)
{
    struct zstd_lease lease;
    if (!zstd_seat_take(ZSTD_SEAT_UNPACK, mem, &lease)) {
        return ESKER_NO_MEMORY;
    }
    size_t len = ZSTD_decompressDCtx(lease.context, raw_out, stored->raw_len, stored->payload.ptr,
                                     stored->payload.len);
    bool no_memory = ZSTD_isError(len) && ZSTD_getErrorCode(len) == ZSTD_error_memory_allocation;
    zstd_seat_give(&lease, !no_memory);
    if (no_memory) {
        return ESKER_NO_MEMORY;
    }
    return len == stored->raw_len ? ESKER_OK : ESKER_CORRUPT;
}

static esker_status
store_unlz4(const struct block_stored *stored, uint8_t *raw_out)
{
    const struct bytes payload = stored->payload;
    /* More than an int holds cannot be the payload of 64 MiB. */
    if (payload.len > INT32_MAX) {
        return ESKER_CORRUPT;
    }
    int len = LZ4_decompress_safe((const char *)payload.ptr, (char *)raw_out, (int)payload.len,
                                  (int)stored->raw_len);
    return len >= 0 && (uint32_t)len == stored->raw_len ? ESKER_OK : ESKER_CORRUPT;
}

esker_status
block_stored_unpack(const struct block_stored *stored, const struct mem *mem, uint8_t *raw_out)
{
    esker_status status = ESKER_OK;
    switch (stored->codec) {
    case BLOCK_CODEC_NONE:
        if (stored->payload.len > 0) {
            memcpy(raw_out, stored->payload.ptr, stored->payload.len);
        }
        return ESKER_OK;
    case BLOCK_CODEC_LZ4:
        status = store_unlz4(stored, raw_out);
        break;
    case BLOCK_CODEC_ZSTD:
        status = store_unzstd(stored, mem, raw_out);
        break;
    }
    if (status == ESKER_OK && store_has_pfx(stored->kind)) {
        store_turn_pfx(raw_out, stored->raw_len, false);
    }
    return status;
}
