/* SPDX-License-Identifier: MIT */
/*
 * "%016x.seg": header, blocks one after the other, footer.
 *
 * Header, 64 bytes
 *        0    8 magic "ESKERSEG"
 *        8    4 format version (3)
 *       12    4 feature bits a reader must know (0)
 *       16   16 db_uuid
 *       32    8 segment id
 *       40   16 zero
 *       56    8 xxh3_64 of bytes [0,56), seed 0
 *
 * Valid iff magic, checksum, version, features and zeros agree, and uuid and
 * id are those of the database and of the file's name.
 *
 * Blocks: data blocks; then index blocks (level 1), the root index block, the
 * filter (each of its pages a stored block of its own, kind FILTER, raw), the
 * properties (TLV: u16 tag, u16 zero, u32 len, bytes, zeros to 8; unknown tags
 * are skipped).
 *
 * Footer, the last 192 bytes; handles are {u64 offset, u32 stored_len, u32 raw_len}
 *        0   16 root index      16   16 filter      32   16 properties
 *       48   16 range deletes (zero)    64   16 blob references (zero)
 *       80    8 row count       88    8 tombstone count
 *       96    8 min_lsn        104    8 max_lsn
 *      112    4 filter pages   116    4 filter kind (1 = split block, 0 = none)
 *      120    4 data block count  124  4 index depth (1: the root points at data blocks; 2: at index blocks)
 *      128    8 data bytes raw 136    8 data end: the offset behind the last data block
 *      144   16 db_uuid        160    8 segment id
 *      168    4 format version 172    4 feature bits
 *      176    8 xxh3_64 of bytes [0,176) seeded with the segment id
 *      184    8 magic "ESKEREND"
 *
 * Valid iff (segment_footer_decode checks all of it)
 *  1 magic, checksum, uuid and id agree; version, features, filter kind and the
 *    two reserved handles are known (else UNSUPPORTED: a later format wrote it)
 *  2 data end lies in [64, size - 192]; each handle that is not all zero has
 *    stored_len > 16 and lies in [data end, size - 192); no two overlap
 *  3 the root is there; filter and its kind are there or absent together, and
 *    its raw_len is 4096 times its pages, its stored_len 4112 times
 *  4 depth is 1 or 2; 1 <= data blocks <= (data end - 64) / 24; data blocks <=
 *    rows <= 4096 x data blocks; tombstones <= rows; min_lsn <= max_lsn
 * Fuzz target: fuzz/fuzz_segment_footer.c.
 */
#ifndef ESKER_FORMAT_SEGMENT_FORMAT_H
#define ESKER_FORMAT_SEGMENT_FORMAT_H

#include "base/bytes.h"
#include "base/status.h"

enum {
    SEGMENT_FILTER_PAGE_STORED = 4096 + 16, /* a page of the filter and its trailer */
    SEGMENT_HEADER_BYTES = 64,
    SEGMENT_FOOTER_BYTES = 192,
    SEGMENT_FORMAT = 3
};

/* On disk; never renumber. */
enum segment_filter_kind { SEGMENT_FILTER_NONE = 0, SEGMENT_FILTER_SPLIT_BLOCK = 1 };

struct segment_handle {
    uint64_t offset;
    uint32_t stored_len, raw_len; /* all zero: absent */
};

struct segment_footer {
    struct segment_handle root, filter, props;
    uint64_t row_count, tombstone_count, min_lsn, max_lsn;
    uint32_t filter_pages, filter_kind, data_block_count, index_depth;
    uint64_t data_raw_bytes, data_end;
    uint8_t uuid[16];
    uint64_t id;
};

void segment_header_encode(const uint8_t uuid[16], uint64_t id, uint8_t out[SEGMENT_HEADER_BYTES]);
/* OK, CORRUPT, UNSUPPORTED; no story. */
esker_status segment_header_decode(struct bytes bytes, const uint8_t uuid[16], uint64_t id);
void segment_footer_encode(const struct segment_footer *footer, uint8_t out[SEGMENT_FOOTER_BYTES]);
/* file_size bounds every handle. OK, CORRUPT, UNSUPPORTED; no story. */
esker_status segment_footer_decode(struct bytes bytes, uint64_t file_size, const uint8_t uuid[16],
                                   uint64_t id, struct segment_footer *out);

#endif
