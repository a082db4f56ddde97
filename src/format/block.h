/* SPDX-License-Identifier: MIT */
/*
 * The columnar block: rows ordered by (key ascending, LSN descending), each
 * attribute in a column of its own. Data blocks and index blocks share it; an
 * index row's key is a separator >= every key of the block it points to and
 * its value is a struct block_handle.
 *
 * Raw block, little endian; offsets from the start of the block:
 *   OFFSET SIZE FIELD
 *        0    1 kind        enum block_kind; never renumber
 *        1    1 version     2
 *        2    2 n           rows, 1..4096
 *        4    4 raw_len     the whole block
 *        8    2 cpl         length of a prefix common to all keys
 *       10    1 flags       enum block_flags
 *       11    1 lsn_bytes   0..8: bytes of each LSN; 0 = every LSN is lsn_base
 *       12    1 koff_bytes  2 or 4; 0 = every tail is tail_len long
 *       13    1 voff_bytes  2 or 4; 0 = every value is value_len long
 *       14    2 tail_len    0 where there is a koff column
 *       16    4 value_len   0 where there is a voff column
 *       20    4 reserved    0
 *       24    8 lsn_base    0 when the LSNs have all 8 bytes
 *       32    - common prefix, then the columns in this order, each at the next multiple of
 *               8, behind zeros; one that the header leaves out takes no room:
 *
 *   fp     u8[n], zeros to 32: a hash byte of each key, below
 *   pfx    u64[n]: 8 key bytes after the common prefix as a big-endian number, zero padded
 *          (stored little endian)
 *   plen   u8[n] = min(8, key bytes left); absent = all are 8. Order is (pfx, plen, tail),
 *          else "k" and "k\0" would collide
 *   koff   [n+1]: where each key's tail (after those 8 bytes) starts among the tails;
 *          koff[0] = 0, koff[n] = the length of all tails
 *   voff   [n+1]: the same for values
 *   lsn    lsn_bytes of each row's LSN - lsn_base, then 8 - lsn_bytes zeros, so that each
 *          can be loaded as 8 bytes
 *   type   u8[n], enum entry_op: PUT, DELETE or PUT_EXPIRING; absent = all PUT
 *   tails
 *   values they end the block
 *
 * The hash byte looks only at what follows the common prefix, so that checking
 * all of them takes time linear in the block: with m = hash_mix(pfx, plen),
 * fp = the top byte of m if the tail is empty, else of hash64(tail, seed m).
 *
 * Validity (block_open checks all of it, once, when a block is loaded):
 *  1 the header fits, version, flags and kind are known, raw_len is the size given;
 *    it is <= BLOCK_RAW_MAX, or <= BLOCK_ONE_ROW_RAW_MAX where n = 1
 *  2 the columns with their gaps of zeros end where the block ends
 *  3 koff and voff start at 0, ascend and end with their columns; values are <= 256 MiB
 *  4 plen <= 8, and 8 where a tail exists; bytes of pfx beyond plen are zero
 *  5 rows ascend strictly in (key, LSN descending); lsn_base + delta does not wrap
 *  6 fp agrees with each key; types are known; keys are 1..32768 bytes; the value of a
 *    PUT_EXPIRING, which begins with its expiry (log_format.h), has at least 8 bytes
 * After that no reader checks bounds again. (cpl need not be the longest
 * common prefix, and a column that could be absent or narrower need not be.)
 *
 * On disk a block is `payload | trailer`:
 *        0    1 codec     0 none, 1 lz4, 2 zstd, 3 zstd with dictionary (reserved)
 *        1    1 kind
 *        2    2 zero
 *        4    4 raw_len
 *        8    8 xxh3_64(payload, seed = mix(mix(segment id, file offset), trailer bytes [0,8) as u64))
 * Before a data or index block is compressed, the bytes of its pfx column change
 * places: of each 256 rows (the last group may have fewer) first the lowest byte
 * of every number, then the second of every number, up to the highest. What keys
 * have in common then stands together.
 * Uncompressed, raw_len is the payload's length and <= BLOCK_ONE_ROW_RAW_MAX.
 * Compressed, it is in 1..BLOCK_RAW_MAX and <= max(1 MiB, 256 x payload), so
 * that a small file cannot ask for much memory; the writer stores raw where
 * that would not hold. One oversize row may make a block of up to 256 MiB +
 * 64 KiB (BLOCK_ONE_ROW_RAW_MAX), stored raw.
 *
 * A block handle, the value of an index row:
 *        0    8 offset      in the file
 *        8    4 stored_len  payload + trailer
 *       12    4 row_count   of the block pointed to
 *       16    4 raw_len
 *       20    4 zero
 *
 * Fuzz target: fuzz/fuzz_block.c.
 */
#ifndef ESKER_FORMAT_BLOCK_H
#define ESKER_FORMAT_BLOCK_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/endian.h"
#include "base/hash.h"
#include "base/status.h"
#include "format/log_format.h"

enum {
    BLOCK_ROWS_MAX = 4096,
    BLOCK_HEADER_BYTES = 32,
    BLOCK_TRAILER_BYTES = 16,
    BLOCK_RAW_MAX = 64 << 20,
    BLOCK_ONE_ROW_RAW_MAX = VALUE_BYTES_MAX + (64 << 10),
    BLOCK_HANDLE_BYTES = 24
};

/* On disk; never renumber. */
enum block_kind {
    BLOCK_DATA = 1,
    BLOCK_INDEX = 2,
    BLOCK_FILTER = 3,
    BLOCK_PROPS = 4,
    BLOCK_RANGE_DELETES = 5
};

enum block_codec { BLOCK_CODEC_NONE = 0, BLOCK_CODEC_LZ4 = 1, BLOCK_CODEC_ZSTD = 2 };

enum block_flags { BLOCK_FLAG_PLEN = 1, BLOCK_FLAG_TYPES = 2 /* the column is there */ };

/* An opened block: columns of a raw block that passed the checks. */
struct block {
    const uint8_t *raw;
    const uint8_t *fp;
    const uint8_t *pfx;
    const uint8_t *plen; /* nullable */
    uint32_t row_count;
    uint32_t value_len; /* of each row, where voff is NULL */
    uint16_t common_len;
    uint16_t tail_len; /* of each row, where koff is NULL */
    uint8_t lsn_bytes;
    bool koff_wide, voff_wide; /* u32, else u16 */
    const uint8_t *tails;
    const uint8_t *values;
    const uint8_t *koff;  /* nullable */
    const uint8_t *voff;  /* nullable */
    const uint8_t *lsns;  /* nullable */
    const uint8_t *types; /* nullable */
    uint64_t lsn_base;
    uint64_t lsn_mask; /* of a load of 8 bytes, the lsn_bytes that count */
    uint32_t raw_len;
};

struct block_handle {
    uint64_t offset;     /* in the file */
    uint32_t stored_len; /* payload + trailer */
    uint32_t row_count;  /* of the block pointed to */
    uint32_t raw_len;
};

/* Checks everything and fills *out, which borrows raw. `kind` is DATA or INDEX.
 * Returns OK, CORRUPT, or UNSUPPORTED (a version, flag or row type of a later
 * format); no story: the caller knows the file. */
esker_status block_open(struct bytes raw, enum block_kind kind, struct block *out);

/* Opens bytes that are known to be those that block_open passed before: only the
 * columns are found again, which costs the same for any number of rows. */
esker_status block_open_again(struct bytes raw, enum block_kind kind, struct block *out);

/* The first row with row.key >= key; row_count when there is none. */
uint32_t block_seek(const struct block *block, struct bytes key);
/* The newest row of `key` with lsn < snapshot_lsn, by the fingerprint column;
 * row_count when there is none. *last_row_out (nullable): none is visible, but
 * the key's rows reach the end of the block, so older ones may follow in the
 * next; false whenever a row is returned. */
uint32_t block_find(const struct block *block, struct bytes key, uint64_t snapshot_lsn, bool *last_row_out);
/* The path of CPUs without AVX2, for tests of equality. */
uint32_t block_find_portable(const struct block *block, struct bytes key, uint64_t snapshot_lsn,
                             bool *last_row_out);
/* Writes row's key into out (room for block_key_len) and returns its length. */
size_t block_key(const struct block *block, uint32_t row, uint8_t *out);
size_t block_key_len(const struct block *block, uint32_t row);
int block_key_compare(const struct block *block, uint32_t row, struct bytes key); /* row's key against key */

/* What all keys begin with, common_len bytes. */
static inline const uint8_t *
block_common(const struct block *block)
{
    return block->raw + BLOCK_HEADER_BYTES;
}

/* Row's piece of what an offset column cuts up: both ends with one load. */
ALWAYS_INLINE struct bytes
block_cut(const uint8_t *offsets, bool wide, const uint8_t *pieces, uint32_t row)
{
    if (LIKELY(!wide)) {
        uint32_t ends = le32_load(offsets + 2 * (size_t)row);
        return bytes_make(pieces + (ends & UINT16_MAX), (ends >> 16) - (ends & UINT16_MAX));
    }
    uint64_t ends = le64_load(offsets + 4 * (size_t)row);
    return bytes_make(pieces + (uint32_t)ends, (uint32_t)(ends >> 32) - (uint32_t)ends);
}

static inline struct bytes
block_value(const struct block *block, uint32_t row)
{
    if (LIKELY(block->voff == NULL)) {
        return bytes_make(block->values + (size_t)row * block->value_len, block->value_len);
    }
    return block_cut(block->voff, block->voff_wide, block->values, row);
}

/* What is left of the key behind the common prefix and 8 bytes more. */
static inline struct bytes
block_tail(const struct block *block, uint32_t row)
{
    if (LIKELY(block->koff == NULL)) {
        return bytes_make(block->tails + (size_t)row * block->tail_len, block->tail_len);
    }
    return block_cut(block->koff, block->koff_wide, block->tails, row);
}

static inline uint64_t
block_lsn(const struct block *block, uint32_t row)
{
    if (block->lsns == NULL) {
        return block->lsn_base;
    }
    return block->lsn_base + (le64_load(block->lsns + (size_t)row * block->lsn_bytes) & block->lsn_mask);
}

static inline enum entry_op
block_op(const struct block *block, uint32_t row)
{
    return block->types == NULL ? ENTRY_PUT : (enum entry_op)block->types[row];
}

void block_handle_encode(const struct block_handle *handle, uint8_t out[BLOCK_HANDLE_BYTES]);
/* Only the size and the zeros are checked here; offsets are the segment's business. */
bool block_handle_decode(struct bytes value, struct block_handle *out);

/* ---- Building ------------------------------------------------------------ */

struct block_builder;

NODISCARD esker_status block_builder_create(const struct mem *mem, enum block_kind kind,
                                            struct block_builder **out);
void block_builder_destroy(struct block_builder *builder);
void block_builder_reset(struct block_builder *builder);
/* The block with this row would have at most `raw_limit` raw bytes and keep the
 * format's limits; always true for the first row. Ask before each add: one key
 * that shares little with the others takes their common prefix away and so can
 * make a block grow by much more than its own size. */
bool block_builder_fits(const struct block_builder *builder, struct bytes key, uint64_t lsn, enum entry_op op,
                        size_t value_len, size_t raw_limit);
/* Rows strictly in order, else CORRUPT (a merge of damaged inputs can bring
 * that about). Copies key and value. op: PUT, DELETE or PUT_EXPIRING. A row that is not the
 * first must fit into BLOCK_RAW_MAX. */
NODISCARD esker_status block_builder_add(struct block_builder *builder, struct bytes key, uint64_t lsn,
                                         enum entry_op op, struct bytes value);
uint32_t block_builder_row_count(const struct block_builder *builder);
/* The raw block's size if it were finished now, never less than that, and
 * exact unless only some keys end within 8 bytes of the common prefix. */
size_t block_builder_raw_bytes(const struct block_builder *builder);
/* Replaces raw's contents with the block. At least one row. */
NODISCARD esker_status block_builder_finish(struct block_builder *builder, struct buf *raw);
/* The shortest key s with left <= s < right, for index rows; right empty = no
 * upper bound; left itself where nothing shorter fits or left >= right.
 * Returns its length; out has room for left.len + 1. */
size_t block_separator(struct bytes left, struct bytes right, uint8_t *out);

/* ---- Storing ------------------------------------------------------------- */

/* Appends payload and trailer to `out`. codec is a wish: stored raw when it
 * saves less than an eighth or the limits above ask for it. file_offset: where
 * the payload's first byte will be. raw.len <= BLOCK_ONE_ROW_RAW_MAX. */
NODISCARD esker_status block_store(struct bytes raw, enum block_kind kind, enum block_codec codec,
                                   uint64_t segment_id, uint64_t file_offset, struct buf *out);

/* What the trailer of a stored block says, after its checksum agreed. CORRUPT, UNSUPPORTED; no story. */
struct block_stored {
    enum block_codec codec;
    enum block_kind kind;
    struct bytes payload;
    uint32_t raw_len;
    uint64_t checksum; /* of payload and place */
};

esker_status block_stored_open(struct bytes stored, enum block_kind kind, uint64_t segment_id,
                               uint64_t file_offset, struct block_stored *out);
/* Into raw_out, which has room for raw_len bytes. mem: for the decompressor's
 * state. CORRUPT when it does not come out at raw_len; NO_MEMORY. No story. */
NODISCARD esker_status block_stored_unpack(const struct block_stored *stored, const struct mem *mem,
                                           uint8_t *raw_out);

#endif
