/* SPDX-License-Identifier: MIT */
/*
 * What a log file holds: two header pages, then frames (format/frame.h), and
 * the entries inside a BATCH frame. LSNs count 8-byte granules: the frame or
 * entry at file offset o has LSN base_lsn + (o - LOG_HEADER_BYTES) / 8.
 *
 * Header page, written at offsets 0 and 4096, one after the other with a sync
 * between them. Of two valid copies the one with the higher gen counts.
 *   OFFSET SIZE FIELD
 *        0    8 magic "ESKERLOG"
 *        8    4 format version (1)
 *       12    4 feature bits a reader must know (0)
 *       16   16 db_uuid
 *       32    8 gen            strictly increasing over all log files, never reused
 *       40    8 base_lsn       even
 *       48    8 cap_bytes      frame space; a multiple of 4096
 *       56    8 prev_gen       0 = the first log
 *       64    8 prev_end_lsn   where the predecessor ends; what lies beyond is discarded for good
 *       72    8 durable_lsn    everything below was synced when this was written
 *       80    8 manifest_no
 *       88    8 edit_no        the last manifest edit that was durable when this was written
 *       96   16 boot_id
 *      112    8 mount_id       0 = unknown
 *      120    8 xxh3_64 of bytes [0,120)
 *      128    - zero; not checked
 * A header is valid iff magic and checksum agree (then version and features
 * decide whether this build may read on), prev_gen < gen <= 2^56, base_lsn and
 * prev_end_lsn are even, 0 < cap_bytes, prev_end_lsn <= base_lsn, durable_lsn <=
 * base_lsn and base_lsn + cap_bytes / 8 <= 2^56.
 *
 * Frame bodies of fixed shape, 16 bytes each unless said otherwise:
 *   SYNCMARK  u64 durable_lsn <= the frame's own LSN; u64 wall_ns
 *   SEAL      u64 end_lsn = the frame's own LSN; u64 zero. Only a REOPEN may follow it.
 *   REOPEN    u8 boot_id[16], u64 mount_id, u64 zero (32 bytes); only behind a SEAL
 *   PAD       none; its len says what is skipped
 *
 * Entry, at 8-byte alignment inside a BATCH body:
 *        0    1 op             enum entry_op; 0 ends the entries, and so does the end of the body
 *        1    1 flags          bit 0 keyspace id, bit 2 compressed: reserved, 0
 *        2    2 klen           1..32768
 *        4    4 vlen           <= 256 MiB; 0 for DELETE
 *        8    - key, value, zeros to 8
 * The value of PUT_EXPIRING begins with its expiry, u64 milliseconds since 1970
 * UTC, which vlen counts; from then on the entry means what a DELETE does.
 * An entry is valid iff op is PUT, DELETE or PUT_EXPIRING and flags are 0 (others:
 * ESKER_UNSUPPORTED), its sizes are in the bounds above and it fits, padded,
 * into the body. An example, PUT "abc" = "x":
 *   01 00 03 00 01 00 00 00 | 61 62 63 78 00 00 00 00
 *
 * Fuzz targets: fuzz/fuzz_log_frame.c, fuzz/fuzz_log_file.c.
 */
#ifndef ESKER_FORMAT_LOG_FORMAT_H
#define ESKER_FORMAT_LOG_FORMAT_H

#include "base/buf.h"
#include "base/status.h"
#include "format/frame.h"

enum {
    LOG_PAGE_BYTES = 4096,
    LOG_HEADER_BYTES = 8192,
    LOG_HEADER_FIELDS_BYTES = 128,
    LOG_FORMAT = 1,
    LSN_BYTES = 8,
    ENTRY_HEADER_BYTES = 8,
    KEY_BYTES_MAX = 32768,
    VALUE_BYTES_MAX = 256 << 20,
    SYNCMARK_BODY_BYTES = 16,
    SEAL_BODY_BYTES = 16,
    REOPEN_BODY_BYTES = 32
};

/* No log may reach beyond this LSN (512 PiB of log), and no generation beyond this number. */
#define LSN_MAX ((uint64_t)1 << 56)

/* On disk; never renumber. */
enum entry_op {
    ENTRY_END = 0,
    ENTRY_PUT = 1,
    ENTRY_DELETE = 2,
    ENTRY_MERGE = 3,        /* reserved */
    ENTRY_RANGE_DELETE = 4, /* reserved */
    ENTRY_PUT_EXPIRING = 5
};

enum { EXPIRY_BYTES = 8 };

/* A row of this op with a value of so many bytes can be. */
static inline bool
entry_op_fits(unsigned op, size_t value_len)
{
    return op == ENTRY_PUT || (op == ENTRY_DELETE && value_len == 0) ||
           (op == ENTRY_PUT_EXPIRING && value_len >= EXPIRY_BYTES);
}

static inline bool
entry_op_is_known(unsigned op)
{
    return op == ENTRY_PUT || op == ENTRY_DELETE || op == ENTRY_PUT_EXPIRING;
}

/* Of a PUT_EXPIRING's value: milliseconds since 1970 UTC, and what was put. */
static inline uint64_t
entry_expiry_ms(struct bytes value)
{
    return le64_load(value.ptr);
}

static inline struct bytes
entry_expiring_value(struct bytes value)
{
    return bytes_make(value.ptr + EXPIRY_BYTES, value.len - EXPIRY_BYTES);
}

struct log_header {
    uint8_t uuid[16];
    uint64_t gen, base_lsn, cap_bytes;
    uint64_t prev_gen, prev_end_lsn;
    uint64_t durable_lsn;
    uint64_t manifest_no, edit_no;
    uint8_t boot_id[16];
    uint64_t mount_id;
};

struct entry {
    uint8_t op;
    uint8_t flags;
    struct bytes key, value;
    uint64_t size_bytes; /* with header and padding */
};

/* Fills one page (the rest zero). */
void log_header_encode(const struct log_header *header, uint8_t page[LOG_PAGE_BYTES]);
/* The numbers alone: the validity list above without magic and checksum. */
bool log_header_is_sane(const struct log_header *header);
/* One page. False: no valid header (damaged, torn or never written).
 * A valid checksum with an unknown version or feature bit: *unsupported. */
bool log_header_decode(struct bytes page, struct log_header *out, bool *unsupported);
/* The numbers of a page that is no valid header, checked by nothing. For repair. */
void log_header_numbers(const uint8_t page[LOG_PAGE_BYTES], struct log_header *out);

static inline uint64_t
entry_size_bytes(size_t klen, size_t vlen)
{
    return align_up((uint64_t)ENTRY_HEADER_BYTES + klen + vlen, 8);
}

/* Writes one entry at `at` (8-aligned, entry_size_bytes room), padding included. */
void entry_encode(uint8_t *at, enum entry_op op, struct bytes key, struct bytes value);

/* The same for a PUT_EXPIRING; the room is that of a value that is EXPIRY_BYTES longer. */
void entry_encode_expiring(uint8_t *at, struct bytes key, uint64_t expiry_ms, struct bytes value);

/* Reads the entry at *offset of a BATCH body and moves *offset behind it.
 * Returns OK, END (no more entries), CORRUPT (sizes do not fit or are zero,
 * offset untouched), UNSUPPORTED (op or flags unknown). Does not record a
 * story: the caller knows file and offset. */
esker_status entry_decode(struct bytes body, uint64_t *offset, struct entry *out);

/* For bytes that were checked before (a memtable's window): no checks. */
static inline struct bytes
entry_key_trusted(const uint8_t *entry)
{
    return bytes_make(entry + ENTRY_HEADER_BYTES, le16_load(entry + 2));
}

static inline struct bytes
entry_value_trusted(const uint8_t *entry)
{
    return bytes_make(entry + ENTRY_HEADER_BYTES + le16_load(entry + 2), le32_load(entry + 4));
}

#endif
