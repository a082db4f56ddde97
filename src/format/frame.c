/* SPDX-License-Identifier: MIT */
/* Sealing and checking of frames; the format is described in frame.h. */
#include "format/frame.h"

#include "base/mutant.h"
#include "base/assert.h"

enum { FRAME_TYPE_OFF = 4, FRAME_CODEC_OFF = 5, FRAME_BACK_OFF = 6, FRAME_CHECKSUM_OFF = 8 };

static uint64_t
frame_checksum(const uint8_t *start, uint64_t len_bytes, uint64_t file_seed, uint64_t position)
{
    uint64_t seed = frame_seed(file_seed, position, le64_load(start));
    uint64_t body_len = start[FRAME_TYPE_OFF] == FRAME_PAD ? 0 : len_bytes - FRAME_HEADER_BYTES;
    uint64_t skipped = MUTANT(20) ? MIN(body_len, (uint64_t)16) : 0;
    uint64_t sum = hash64(start + FRAME_HEADER_BYTES + skipped, body_len - skipped, seed);
    return (sum & ~(uint64_t)FRAME_HEAD_CHECK_MASK) | (seed & FRAME_HEAD_CHECK_MASK);
}

void
frame_seal(uint8_t *start, uint64_t len_bytes, enum frame_type type, uint16_t back, uint64_t file_seed,
           uint64_t position)
{
    ASSERT(len_bytes >= FRAME_HEADER_BYTES && len_bytes % FRAME_GRANULE == 0);
    ASSERT(len_bytes / FRAME_GRANULE <= UINT32_MAX);
    le32_store(start, (uint32_t)(len_bytes / FRAME_GRANULE));
    start[FRAME_TYPE_OFF] = (uint8_t)type;
    start[FRAME_CODEC_OFF] = 0;
    le16_store(start + FRAME_BACK_OFF, back);
    le64_store(start + FRAME_CHECKSUM_OFF, frame_checksum(start, len_bytes, file_seed, position));
}

bool
frame_decode(struct bytes bytes, uint64_t file_seed, uint64_t position, struct frame *out)
{
    if (bytes.len < FRAME_HEADER_BYTES) {
        return false;
    }
    uint64_t len = frame_peek(bytes.ptr, bytes.len, file_seed, position);
    if (len == 0) {
        return false;
    }
    if (le64_load(bytes.ptr + FRAME_CHECKSUM_OFF) != frame_checksum(bytes.ptr, len, file_seed, position)) {
        return false;
    }
    *out = (struct frame){
        .len_bytes = len,
        .type = bytes.ptr[FRAME_TYPE_OFF],
        .codec = bytes.ptr[FRAME_CODEC_OFF],
        .back = le16_load(bytes.ptr + FRAME_BACK_OFF),
        .body = bytes_make(bytes.ptr + FRAME_HEADER_BYTES, (size_t)(len - FRAME_HEADER_BYTES)),
    };
    if (out->type == FRAME_PAD) {
        out->body = bytes_make(NULL, 0);
    }
    return true;
}
