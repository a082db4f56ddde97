/* SPDX-License-Identifier: MIT */
/*
 * The manifest's bytes: file header, edits, and the CURRENT file.
 *
 * manifest-%08x: 64-byte header, then EDIT frames from offset 64 on
 *   OFFSET SIZE FIELD
 *        0    8 magic "ESKERMAN"
 *        8    4 format version (2)
 *       12    4 feature bits (0)
 *       16   16 db_uuid
 *       32    8 manifest number
 *       40   16 zero
 *       56    8 xxh3_64 of bytes [0,56)
 *
 * Both 64-byte headers are valid iff they are whole, magic and checksum agree
 * (then version and features decide), the zeros are zero and the number is in
 * [1, 2^32).
 *
 * An edit is a run of fields {u16 tag, u16 zero, u32 len, len bytes, zeros to 8};
 * at most 8 zero bytes may follow the last one (the frame's padding).
 * Tags with bit 15 set may be skipped by a reader that does not know them, any
 * other unknown tag is ESKER_UNSUPPORTED. An edit is valid iff tags 1 and 2 are
 * there, no tag of 1 to 5 and 10 comes twice, lengths are exactly those below
 * and numbers obey the remarks; no number but PREV_HASH is above 2^56 (so that
 * hostile ones cannot wrap in later arithmetic). Tags, never renumber:
 *   1 EDIT_NO         u64 > 0; previous + 1
 *   2 PREV_HASH       u64; xxh3_64 of the previous edit's frame bytes, 0 for a manifest's first
 *   3 NEXT_FILE_ID    u64 > 0; no file with this number or above exists
 *   4 WAL_MIN         u64 gen > 0, u64 lsn: rows below lsn are in segments; logs of lower gen are not needed
 *   5 DURABLE_LSN     u64 > 0; everything below was synced
 *   6 ADD_SEGMENT     u64 id, u64 size, u64 rows, u64 tombstones, u64 min_lsn, u64 max_lsn,
 *                     u32 level, u32 flags 0, u16 klen_min, u16 klen_max, u32 0, min key, max key
 *                     (bounds are cut to 256 bytes: min rounded down, max rounded up; an
 *                     empty max key is no upper bound). id, size, rows > 0; tombstones <= rows;
 *                     min_lsn <= max_lsn; level < 7; min key <= max key
 *   7 DROP_SEGMENT    u64 id > 0
 *   8 ADD_LOG         u64 file number > 0: the log file exists, header pages written and synced
 *   9 DROP_LOG        u64 file number > 0
 * 0x8001 SEGMENT_EXPIRY u64 rows > 0, u64 first, u64 last: of the segment that the ADD_SEGMENT right before
 *                     adds: how many of its rows expire, and when the first and the last of them do
 *                     (milliseconds since 1970). rows <= that segment's; first <= last
 * 0x8002 SEGMENT_TIER u64 lsn, u64 id > 0: of the segment of level 0 that the ADD_SEGMENT right before
 *                     adds (or before its SEGMENT_EXPIRY): the tier that it belongs to.
 *                     lsn >= that segment's max_lsn
 *  10 SNAPSHOT        empty; first field of a manifest's first edit: what follows is the whole state
 *
 * CURRENT: 64 bytes
 *        0    8 magic "ESKERCUR"
 *        8    4 format version (2), 12 4 zero
 *       16   16 db_uuid
 *       32    8 manifest number
 *       40   16 zero
 *       56    8 xxh3_64 of bytes [0,56)
 *
 * Fuzz targets: fuzz/fuzz_edit.c, fuzz/fuzz_current.c.
 */
#ifndef ESKER_FORMAT_EDIT_H
#define ESKER_FORMAT_EDIT_H

#include "base/buf.h"
#include "base/status.h"

enum {
    MANIFEST_HEADER_BYTES = 64,
    CURRENT_BYTES = 64,
    MANIFEST_FORMAT = 2, /* and so CURRENT's: which formats the listed files have */
    EDIT_KEY_BYTES_MAX = 256,
    EDIT_LEVEL_COUNT = 7
};

#define EDIT_NUMBER_MAX ((uint64_t)1 << 56)

struct segment_meta {
    uint64_t id, size_bytes, row_count, tombstone_count;
    uint64_t min_lsn, max_lsn;
    uint32_t level;
    /* Rows that expire, and when the first and the last do, ms since 1970 UTC. Zeros: none, or not known. */
    uint64_t expiring_count, expiry_first_ms, expiry_last_ms;
    /* In level 0: segments of one LSN and id are one sorted run. tier_id 0: it is a tier of its own. */
    uint64_t tier_lsn, tier_id;
    struct bytes min_key, max_key; /* conservative, <= 256 B; borrowed from wherever the struct came */
};

/* Level 0: is b of the same tier as a? Tiers are in order by both numbers, so they are told apart by both. */
static inline bool
segment_meta_goes_on(const struct segment_meta *a, const struct segment_meta *b)
{
    return a->tier_id != 0 && a->tier_id == b->tier_id && a->tier_lsn == b->tier_lsn;
}

/* The order of level 0: tiers by LSN, then by id, the newest first; the segments of one by key. */
static inline int
segment_meta_compare_tiers(const struct segment_meta *a, const struct segment_meta *b)
{
    uint64_t a_lsn = a->tier_id != 0 ? a->tier_lsn : a->max_lsn;
    uint64_t b_lsn = b->tier_id != 0 ? b->tier_lsn : b->max_lsn;
    uint64_t a_id = a->tier_id != 0 ? a->tier_id : a->id;
    uint64_t b_id = b->tier_id != 0 ? b->tier_id : b->id;
    return a_lsn != b_lsn ? (a_lsn > b_lsn ? -1 : 1) : (a_id < b_id) - (a_id > b_id);
}

struct edit {
    uint64_t edit_no, prev_hash;
    bool is_snapshot;
    uint64_t next_file_id; /* 0 = not in this edit; the same for the four below */
    uint64_t wal_min_gen, wal_min_lsn;
    uint64_t durable_lsn;
    struct segment_meta *add_segments;
    size_t add_segment_count;
    uint64_t *drop_segments;
    size_t drop_segment_count;
    uint64_t *add_logs;
    size_t add_log_count;
    uint64_t *drop_logs;
    size_t drop_log_count;
};

/* Cuts a key to EDIT_KEY_BYTES_MAX: a prefix for the lower bound; for the
 * upper one the prefix incremented (shorter where it ends in 0xFF), or nothing,
 * "no upper bound", when all of it is 0xFF. A key that fits is copied as it is.
 * out has room for EDIT_KEY_BYTES_MAX bytes; returns the length. */
size_t edit_bound_lower(struct bytes key, uint8_t *out);
size_t edit_bound_upper(struct bytes key, uint8_t *out);

/* Appends to body, which must be empty or 8-aligned. The edit must be valid
 * by the list above (asserted). NO_MEMORY leaves rubbish behind body's old end. */
NODISCARD esker_status edit_encode(const struct edit *edit, struct buf *body);
/* Arrays are allocated from mem, keys point into body. Returns OK, CORRUPT,
 * UNSUPPORTED, NO_MEMORY; *offset_out = where in body on failure. Allocates at
 * most in proportion to body's size. */
esker_status edit_decode(struct bytes body, const struct mem *mem, struct edit *out, uint64_t *offset_out);
void edit_fini(struct edit *edit, const struct mem *mem);

struct file_head {
    uint8_t uuid[16];
    uint64_t number;
};

void manifest_header_encode(const struct file_head *head, uint8_t out[MANIFEST_HEADER_BYTES]);
/* Returns OK, CORRUPT, UNSUPPORTED; no story. */
esker_status manifest_header_decode(struct bytes bytes, struct file_head *out);
/* Are these the first bytes of a CURRENT, as far as they go? */
bool current_begins(const uint8_t *bytes, size_t len);
void current_encode(const struct file_head *head, uint8_t out[CURRENT_BYTES]);
esker_status current_decode(struct bytes bytes, struct file_head *out);

#endif
