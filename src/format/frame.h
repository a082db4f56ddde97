/* SPDX-License-Identifier: MIT */
/*
 * The checksummed frame that log and manifest are made of. 16-byte granules.
 *
 *   OFFSET SIZE FIELD
 *        0    4 len       whole frame, in granules of 16 bytes; >= 1
 *        4    1 type      enum frame_type; never renumber
 *        5    1 codec     0; other values: ESKER_UNSUPPORTED
 *        6    2 back      log: granules from this frame's start down to `logged`
 *                         as read before the frame was copied; 0xFFFF = no claim
 *        8    8 checksum  seed = mix(mix(file seed, position), bytes [0,8) as u64), where
 *                         file seed = mix(uuid_lo ^ uuid_hi, number) and mix is hash_mix;
 *                         low 24 bits: those of seed (the head check),
 *                         high 40 bits: those of xxh3_64(bytes [16, 16*len), seed)
 *       16    - body      zero padded to the granule
 *
 * number: the log's generation, or the manifest's number. position: the
 * frame's LSN in a log, its byte offset in a manifest. So a frame that was
 * left by an earlier life of a recycled file, or moved, is not valid.
 * A PAD frame's checksum is taken over an empty body: what it skips was never
 * written.
 *
 * Why a head check: recovery looks for frames behind a hole at every granule.
 * Stored values may look like frame headers, by chance or by malice; the head
 * check refuses them before their claimed length costs a hash of megabytes.
 *
 * A frame is valid iff (1) 16 bytes are left, (2) 1 <= len and 16*len bytes
 * are left, (3) the checksum agrees. Type and codec are judged after that.
 *
 * An example: uuid bytes 00 01 .. 0f, number 7, position 2, a SYNCMARK with
 * durable_lsn 2 and wall_ns 0, no claim:
 *   02 00 00 00 03 00 ff ff | 51 ad 80 97 51 81 46 dc
 *   02 00 00 00 00 00 00 00 | 00 00 00 00 00 00 00 00
 * Fuzz target: fuzz/fuzz_log_frame.c.
 */
#ifndef ESKER_FORMAT_FRAME_H
#define ESKER_FORMAT_FRAME_H

#include <stdbool.h>

#include "base/mutant.h"
#include "base/bytes.h"
#include "base/cursor.h"
#include "base/hash.h"

enum {
    FRAME_GRANULE = 16,
    FRAME_HEADER_BYTES = 16,
    FRAME_BACK_NO_CLAIM = 0xFFFF,
    FRAME_HEAD_CHECK_MASK = 0xFFFFFF
};

/* On disk; never renumber. */
enum frame_type {
    FRAME_BATCH = 1,
    FRAME_PAD = 2,
    FRAME_SYNCMARK = 3, /* u64 durable_lsn, u64 wall_ns */
    FRAME_PREPARE = 4,  /* reserved */
    FRAME_COMMIT = 5,   /* reserved */
    FRAME_ABORT = 6,    /* reserved */
    FRAME_LARGE = 7,    /* reserved */
    FRAME_SEAL = 8,     /* u64 end_lsn, u64 zero: a clean close; everything below was synced */
    FRAME_REOPEN = 9,   /* u8 boot_id[16], u64 mount_id, u64 zero: the sealed log is continued in place */
    FRAME_EDIT = 16     /* manifest */
};

struct frame {
    uint64_t len_bytes;
    uint8_t type;
    uint8_t codec;
    uint16_t back;
    struct bytes body; /* with its padding; empty for PAD */
};

/* The part of the seed that a file's frames share. */
static inline uint64_t
frame_file_seed(const uint8_t uuid[16], uint64_t number)
{
    return hash_mix(le64_load(uuid) ^ le64_load(uuid + 8), number);
}

/* Writes the 16 header bytes of a frame whose body already stands at
 * start + 16. len_bytes: a multiple of 16, whole frame. */
void frame_seal(uint8_t *start, uint64_t len_bytes, enum frame_type type, uint16_t back, uint64_t file_seed,
                uint64_t position);

/* Looks at the frame at the start of `bytes`. False: not valid, *out undefined. */
bool frame_decode(struct bytes bytes, uint64_t file_seed, uint64_t position, struct frame *out);

static inline uint64_t
frame_seed(uint64_t file_seed, uint64_t position, uint64_t head)
{
    if (MUTANT(11)) {
        return hash_mix(position % 512, head);
    }
    return hash_mix(hash_mix(file_seed, position), head);
}

/* Looks at 16 header bytes alone: the frame's length in bytes when it fits into
 * room_bytes and the head check agrees (then it is a frame's header but for one
 * chance in 2^24), else 0. */
static inline uint64_t
frame_peek(const uint8_t *header, uint64_t room_bytes, uint64_t file_seed, uint64_t position)
{
    uint64_t head = le64_load(header);
    uint64_t len = (head & 0xFFFFFFFF) * FRAME_GRANULE;
    if (len == 0 || len > room_bytes) {
        return 0;
    }
    uint64_t differs = le64_load(header + 8) ^ frame_seed(file_seed, position, head);
    return (differs & FRAME_HEAD_CHECK_MASK) == 0 ? len : 0;
}

#endif
