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

esker_status
block_store(struct bytes raw, enum block_kind kind, enum block_codec codec, uint64_t segment_id,
            uint64_t file_offset, struct buf *out)
{
    ASSERT(raw.len <= BLOCK_ONE_ROW_RAW_MAX);
    TRY(buf_reserve(out, raw.len + BLOCK_TRAILER_BYTES));
    uint8_t *at = out->ptr + out->len;
    size_t room = raw.len - raw.len / 8;
    size_t payload_len = 0;
    if (raw.len <= BLOCK_RAW_MAX) {
        if (codec == BLOCK_CODEC_LZ4) {
            payload_len =
                (size_t)LZ4_compress_default((const char *)raw.ptr, (char *)at, (int)raw.len, (int)room);
        } else if (codec == BLOCK_CODEC_ZSTD) {
            TRY(store_zstd(raw, at, room, out->mem, &payload_len));
        }
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
    *out = (struct block_stored){
        .codec = (enum block_codec)codec, .payload = payload, .raw_len = raw_len, .checksum = checksum};
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

esker_status
block_stored_unpack(const struct block_stored *stored, const struct mem *mem, uint8_t *raw_out)
{
    const struct bytes payload = stored->payload;
    switch (stored->codec) {
    case BLOCK_CODEC_NONE:
        if (payload.len > 0) {
            memcpy(raw_out, payload.ptr, payload.len);
        }
        return ESKER_OK;
    case BLOCK_CODEC_LZ4: {
        /* More than an int holds cannot be the payload of 64 MiB. */
        if (payload.len > INT32_MAX) {
            return ESKER_CORRUPT;
        }
        int len = LZ4_decompress_safe((const char *)payload.ptr, (char *)raw_out, (int)payload.len,
                                      (int)stored->raw_len);
        return len >= 0 && (uint32_t)len == stored->raw_len ? ESKER_OK : ESKER_CORRUPT;
    }
    case BLOCK_CODEC_ZSTD:
        return store_unzstd(stored, mem, raw_out);
    }
    UNREACHABLE();
}
