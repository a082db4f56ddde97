/* rooms: format */
/* SPDX-License-Identifier: MIT */
/*
 * Frames, their entries, and log headers. The first byte chooses: bit 0, the
 * rest is walked as frames; else it is a header page; bit 1, checksums are made
 * to fit first. Oracles: what is valid seals to the same bytes, is not valid
 * elsewhere or with a bit flipped; entries and headers survive being encoded
 * again.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "format/log_format.h"

enum { FUZZ_FRAMES = 1, FUZZ_FIX = 2, FUZZ_GEN = 3 };

static const uint8_t fuzz_uuid[16] = "fuzz-log-frames!";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fuzz_entries(struct bytes body)
{
    uint64_t at = 0;
    for (;;) {
        struct entry entry, again;
        uint64_t from = at, again_at = 0;
        esker_status status = entry_decode(body, &at, &entry);
        if (status != ESKER_OK) {
            ASSERT(at == from);
            ASSERT(status == ESKER_END || status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
            return;
        }
        ASSERT(at == from + entry.size_bytes && at <= body.len);
        uint8_t *copy = malloc(entry.size_bytes);
        ASSERT(copy != NULL && entry_size_bytes(entry.key.len, entry.value.len) == entry.size_bytes);
        entry_encode(copy, entry.op, entry.key, entry.value);
        ASSERT(entry_decode(bytes_make(copy, entry.size_bytes), &again_at, &again) == ESKER_OK);
        ASSERT(again.op == entry.op && bytes_equal(again.key, entry.key) &&
               bytes_equal(again.value, entry.value));
        ASSERT(bytes_equal(entry_key_trusted(copy), entry.key));
        ASSERT(bytes_equal(entry_value_trusted(copy), entry.value));
        free(copy);
    }
}

/* The frame is valid: only as it is, only where it is. */
static void
fuzz_valid_frame(uint8_t *start, const struct frame *frame, uint64_t seed, uint64_t lsn)
{
    struct frame other;
    uint8_t head[FRAME_HEADER_BYTES];
    memcpy(head, start, sizeof head);
    ASSERT(frame_peek(start, frame->len_bytes, seed, lsn) == frame->len_bytes);
    ASSERT(frame_peek(start, frame->len_bytes - 1, seed, lsn) == 0);
    ASSERT(!frame_decode(bytes_make(start, frame->len_bytes), seed, lsn + 2, &other));
    ASSERT(!frame_decode(bytes_make(start, frame->len_bytes), seed + 1, lsn, &other));
    uint64_t sealed = frame->type == FRAME_PAD ? sizeof head : frame->len_bytes;
    uint64_t bit = hash64(start, sizeof head, 1) % (sealed * 8);
    start[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    ASSERT(!frame_decode(bytes_make(start, frame->len_bytes), seed, lsn, &other));
    start[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    if (frame->codec == 0) {
        frame_seal(start, frame->len_bytes, frame->type, frame->back, seed, lsn);
        ASSERT(memcmp(head, start, sizeof head) == 0);
    }
}

static void
fuzz_frames(uint8_t *space, size_t size, bool fix)
{
    uint64_t seed = frame_file_seed(fuzz_uuid, FUZZ_GEN);
    for (uint64_t at = 0; size - at >= FRAME_HEADER_BYTES;) {
        struct frame frame;
        uint64_t lsn = 512 + at / LSN_BYTES;
        if (fix) {
            uint64_t granules = (size - at) / FRAME_GRANULE;
            uint64_t len = (1 + le32_load(space + at) % granules) * FRAME_GRANULE;
            frame_seal(space + at, len, space[at + 4], le16_load(space + at + 6), seed, lsn);
        }
        if (!frame_decode(bytes_make(space + at, size - at), seed, lsn, &frame)) {
            ASSERT(!fix);
            at += FRAME_GRANULE;
            continue;
        }
        fuzz_valid_frame(space + at, &frame, seed, lsn);
        fuzz_entries(frame.body);
        at += frame.len_bytes;
    }
}

static void
fuzz_header(uint8_t *page, size_t size, bool fix)
{
    struct log_header header, again;
    bool unsupported;
    uint8_t copy[LOG_PAGE_BYTES];
    if (fix && size >= LOG_HEADER_FIELDS_BYTES) {
        memcpy(page, "ESKERLOG", 8);
        le64_store(page + 120, hash64(page, 120, 0));
    }
    bool valid = log_header_decode(bytes_make(page, size), &header, &unsupported);
    ASSERT(!valid || !unsupported);
    if (valid) {
        ASSERT(log_header_is_sane(&header));
        log_header_encode(&header, copy);
        ASSERT(memcmp(copy, page, LOG_HEADER_FIELDS_BYTES) == 0);
        ASSERT(log_header_decode(bytes_make(copy, sizeof copy), &again, &unsupported));
        ASSERT(memcmp(&header, &again, sizeof header) == 0);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    uint8_t mode = data[0];
    uint8_t *copy = malloc(size);
    ASSERT(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    if ((mode & FUZZ_FRAMES) != 0) {
        fuzz_frames(copy, size - 1, (mode & FUZZ_FIX) != 0);
        fuzz_entries(bytes_make(copy, size - 1));
    } else {
        fuzz_header(copy, size - 1, (mode & FUZZ_FIX) != 0);
    }
    free(copy);
    return 0;
}
