/* SPDX-License-Identifier: MIT */
/*
 * The properties block of a segment: what people and tools want to know about
 * a file, and nothing that reading it depends on.
 *
 * Fields {u16 tag, u16 zero, u32 len, len bytes, zeros to 8}; unknown tags are
 * skipped. Tags, never renumber:
 *   1 WRITER       text: the library version that wrote the file
 *   2 CREATED      u64: wall clock, nanoseconds since 1970
 *   3 COMPRESSION  u32: ESKER_COMPRESS_NONE, _LZ4 or _ZSTD, as asked for
 *   4 KEY_BYTES    u64: sum of all rows' key lengths
 *   5 VALUE_BYTES  u64: sum of all rows' value lengths
 *   6 BLOCK_BYTES  u32: the raw size data blocks were aimed at
 */
#ifndef ESKER_SEGMENT_SEGMENT_PROPS_H
#define ESKER_SEGMENT_SEGMENT_PROPS_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/status.h"

struct segment_props {
    struct bytes writer; /* decoded: points into the block */
    uint64_t created_ns;
    uint32_t compression;
    uint32_t block_bytes;
    uint64_t key_bytes, value_bytes;
};

NODISCARD esker_status segment_props_encode(const struct segment_props *props, struct buf *out);
/* OK or CORRUPT; no story. Missing fields are zero. */
esker_status segment_props_decode(struct bytes bytes, struct segment_props *out);

#endif
