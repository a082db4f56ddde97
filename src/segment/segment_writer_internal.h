/* SPDX-License-Identifier: MIT */
/* What the two halves of the segment writer share: segment_writer.c takes
 * rows, segment_finish.c writes what comes after them. */
#ifndef ESKER_SEGMENT_SEGMENT_WRITER_INTERNAL_H
#define ESKER_SEGMENT_SEGMENT_WRITER_INTERNAL_H

#include "format/filter.h"
#include "segment/segment_internal.h"

/* One level up to so many bytes; leaves of at least so many with two. Blocks are small where most
 * reads need the disk: then parts of the index are read one by one, too. */
enum {
    SEGMENT_INDEX_ROOT_BYTES = 1 << 20,
    SEGMENT_INDEX_LEAF_BYTES = 64 << 10,
    SEGMENT_BLOCK_BYTES_SMALL = 4 << 10,
    SEGMENT_INDEX_ROOT_BYTES_SMALL = 8 << 10,
    SEGMENT_INDEX_LEAF_BYTES_SMALL = 4 << 10
};

struct segment_writer {
    struct io *io;
    const struct mem *mem;
    struct segment_writer_options options;
    enum block_codec codec;
    uint64_t index_root_bytes, index_leaf_bytes; /* tests make them small */
    char name[SEGMENT_NAME_BYTES];
    struct io_file *file;
    struct block_builder *builder;
    struct buf raw;     /* the block just finished */
    struct buf pending; /* bytes of the file from `written` on */
    uint64_t written;
    uint64_t begun;        /* up to here the disk was told to begin */
    struct buf index_rows; /* struct segment_index_row and its key, one after the other, unaligned */
    struct buf hashes;     /* u64 of each distinct key */
    struct buf first_key, last_key, scratch;
    uint64_t last_lsn;
    uint64_t row_count, tombstone_count, min_lsn, max_lsn;
    uint64_t expiring_count, expiry_first_ms, expiry_last_ms;
    uint64_t key_bytes, value_bytes, data_raw_bytes, index_key_bytes;
    uint32_t block_count;
    size_t batch_bytes; /* what is pending leaves in multiples of it */
    uint64_t charged_bytes;
    esker_status failed;           /* sticky */
    struct segment_finish *finish; /* while it is being sealed */
    bool sealed;                   /* all is written, not synced */
    bool finished;
    uint32_t rows_used, rows_fresh; /* of the open block, by their heat */
    struct segment_warm *warm;      /* nullable */
};

struct segment_index_row {
    uint64_t lsn;
    struct block_handle handle;
    uint32_t key_len;
};

static inline uint64_t
segment_writer_offset(const struct segment_writer *writer)
{
    return writer->written + writer->pending.len;
}

void segment_finish_destroy(struct segment_finish *finish);
NODISCARD esker_status segment_writer_usable(const struct segment_writer *writer);
/* Closes the data block, if one is open. next_key: of the row behind it; empty = none. */
NODISCARD esker_status segment_writer_cut(struct segment_writer *writer, struct bytes next_key);
/* Appends a block; writes whole batches of what is pending. row_count is left to the caller. */
NODISCARD esker_status segment_writer_store(struct segment_writer *writer, struct bytes raw,
                                            enum block_kind kind, enum block_codec codec,
                                            struct block_handle *out);
/* segment_warm.c: keeps the block that was just built, if its rows' heat asks for it. */
void segment_writer_warm(struct segment_writer *writer, struct bytes raw, uint32_t row_count);
/* all: also what does not fill a batch. */
NODISCARD esker_status segment_writer_flush(struct segment_writer *writer, bool all);

#endif
