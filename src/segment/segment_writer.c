/* SPDX-License-Identifier: MIT */
/*
 * Builds a segment in one pass: rows fill a block, full blocks are stored into
 * a buffer that leaves for the disk in batches of 256 KiB; index rows and filter
 * hashes are kept in memory until the end, where segment_finish.c writes them.
 *
 * Invariants
 *  I1 A block is cut when the row after it is known, so its separator can be
 *     chosen there and then.
 *  I2 Rows are checked for order here, with a status: they may come from
 *     damaged files.
 *  I3 After a failure nothing more is written, and destroy removes the file.
 *
 * Memory: one block, the 256 KiB buffer, about 8 bytes per distinct key and one
 * separator per block.
 *
 * Durability: segment_writer_finish returns OK after the file was synced. Its
 * name is durable when the caller has synced the directory.
 */
#include "segment/segment_writer_internal.h"

enum {
    SEGMENT_WRITER_BLOCK_BYTES = 16 << 10,
    SEGMENT_WRITER_BATCH_BYTES =
        SEGMENT_PIECE_BYTES,             /* still in the processor's cache when the kernel copies it */
    SEGMENT_WRITER_BACK_BYTES = 1 << 20, /* the disk is told to begin with so much at once */
    SEGMENT_WRITER_KEEP_BYTES = 4 << 20,
    SEGMENT_WRITER_EXPECTED_MAX = 1 << 20
};

/* ---- Create and destroy ------------------------------------------------- */

static enum block_codec
segment_writer_codec(int compression)
{
    switch (compression) {
    case ESKER_COMPRESS_LZ4:
        return BLOCK_CODEC_LZ4;
    case ESKER_COMPRESS_ZSTD:
        return BLOCK_CODEC_ZSTD;
    default:
        return BLOCK_CODEC_NONE;
    }
}

static esker_status
segment_writer_open(struct segment_writer *writer)
{
    const struct segment_writer_options *options = &writer->options;
    TRY(block_builder_create(writer->mem, BLOCK_DATA, &writer->builder));
    TRY(buf_reserve(&writer->pending, writer->batch_bytes + 2 * (size_t)options->block_bytes));
    uint64_t expected = MIN(options->expected_rows, (uint64_t)SEGMENT_WRITER_EXPECTED_MAX);
    TRY(buf_reserve(&writer->hashes, (size_t)expected * sizeof(uint64_t)));
    uint8_t header[SEGMENT_HEADER_BYTES];
    segment_header_encode(options->uuid, options->id, header);
    TRY(buf_append(&writer->pending, header, sizeof header));
    return io_open_file(writer->io, writer->name, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE,
                        &writer->file);
}

esker_status
segment_writer_create(struct io *io, const struct mem *mem, const struct segment_writer_options *options,
                      struct segment_writer **out)
{
    struct segment_writer *writer = mem_zalloc(mem, sizeof *writer);
    if (writer == NULL) {
        return FAIL_NO_MEMORY("a segment writer");
    }
    writer->io = io;
    writer->mem = mem;
    writer->options = *options;
    if (writer->options.block_bytes == 0) {
        writer->options.block_bytes = SEGMENT_WRITER_BLOCK_BYTES;
    }
    writer->options.block_bytes = MIN(writer->options.block_bytes, (uint32_t)1 << 20);
    writer->codec = segment_writer_codec(options->compression);
    writer->batch_bytes = SEGMENT_WRITER_BATCH_BYTES;
    if (options->cache != NULL) {
        writer->batch_bytes =
            block_cache_buffer_bytes(options->cache, MEMORY_MERGES, SEGMENT_WRITER_BATCH_BYTES);
    }
    bool small = writer->options.block_bytes <= SEGMENT_BLOCK_BYTES_SMALL;
    writer->index_root_bytes = small ? SEGMENT_INDEX_ROOT_BYTES_SMALL : SEGMENT_INDEX_ROOT_BYTES;
    writer->index_leaf_bytes = small ? SEGMENT_INDEX_LEAF_BYTES_SMALL : SEGMENT_INDEX_LEAF_BYTES;
    writer->min_lsn = UINT64_MAX;
    segment_file_name(options->id, writer->name);
    buf_init(&writer->pending, mem);
    buf_init(&writer->raw, mem);
    buf_init(&writer->index_rows, mem);
    buf_init(&writer->hashes, mem);
    buf_init(&writer->first_key, mem);
    buf_init(&writer->last_key, mem);
    buf_init(&writer->scratch, mem);
    esker_status status = segment_writer_open(writer);
    if (status != ESKER_OK) {
        segment_writer_destroy(writer);
        return status;
    }
    *out = writer;
    return ESKER_OK;
}

static void
segment_writer_charge(struct segment_writer *writer, uint64_t bytes)
{
    struct block_cache *cache = writer->options.cache;
    if (cache == NULL || bytes == writer->charged_bytes) {
        return;
    }
    if (bytes > writer->charged_bytes) {
        block_cache_charge(cache, MEMORY_MERGES, bytes - writer->charged_bytes);
        block_cache_settle(cache); /* readers alone may not meet what merges pushed out for a while */
    } else {
        block_cache_discharge(cache, MEMORY_MERGES, writer->charged_bytes - bytes);
    }
    writer->charged_bytes = bytes;
}

/* What the buffers take, the builder's estimated by the block that it made last. */
static uint64_t
segment_writer_memory(const struct segment_writer *writer)
{
    return writer->pending.cap + 3 * writer->raw.cap + writer->index_rows.cap + writer->hashes.cap;
}

void
segment_writer_destroy(struct segment_writer *writer)
{
    if (writer == NULL) {
        return;
    }
    if (writer->file != NULL) {
        io_close_file(writer->io, writer->file);
        if (!writer->finished) {
            esker_error story = *status_last();
            IGNORE_STATUS(io_unlink(writer->io, writer->name),
                          "no manifest lists it; the next open removes it");
            IGNORE_STATUS(status_restore(&story), "the story of what failed first is kept");
        }
    }
    segment_writer_charge(writer, 0);
    segment_finish_destroy(writer->finish);
    segment_warm_destroy(writer->warm);
    block_builder_destroy(writer->builder);
    buf_fini(&writer->scratch);
    buf_fini(&writer->last_key);
    buf_fini(&writer->first_key);
    buf_fini(&writer->hashes);
    buf_fini(&writer->index_rows);
    buf_fini(&writer->raw);
    buf_fini(&writer->pending);
    mem_free(writer->mem, writer);
}

/* ---- Writing ------------------------------------------------------------ */

/* Writes len bytes from the front of pending. */
static esker_status
segment_writer_write(struct segment_writer *writer, size_t len)
{
    size_t done = 0;
    while (done < len) {
        struct io_req reqs[SEGMENT_PIECES];
        size_t count = 0;
        for (; count < SEGMENT_PIECES && done < len; count++) {
            size_t piece = MIN(len - done, (size_t)SEGMENT_PIECE_BYTES);
            reqs[count] = (struct io_req){.op = IO_WRITE,
                                          .file = writer->file,
                                          .offset = writer->written + done,
                                          .data = writer->pending.ptr + done,
                                          .len = (uint32_t)piece};
            done += piece;
        }
        TRY(io_run_full(writer->io, reqs, count));
    }
    writer->written += len;
    return ESKER_OK;
}

/* The disk starts now, or the sync at the end would bring all of it at once,
 * and the small syncs of logs and manifest would wait behind it. */
static void
segment_writer_start_disk(struct segment_writer *writer, bool all)
{
    uint64_t len = writer->written - writer->begun;
    if (len >= SEGMENT_WRITER_BACK_BYTES || (all && len > 0)) {
        io_start_writeback(writer->io, writer->file, writer->begun, len);
        writer->begun = writer->written;
    }
}

esker_status
segment_writer_flush(struct segment_writer *writer, bool all)
{
    struct buf *pending = &writer->pending;
    size_t len = all ? pending->len : pending->len - pending->len % writer->batch_bytes;
    if (len == 0) {
        return ESKER_OK;
    }
    TRY(segment_writer_write(writer, len));
    segment_writer_start_disk(writer, all);
    size_t rest = pending->len - len;
    if (rest > 0) {
        memmove(pending->ptr, pending->ptr + len, rest);
    }
    pending->len = rest;
    if (pending->cap > SEGMENT_WRITER_KEEP_BYTES) {
        /* An oversize block made it grow; the memory is worth more elsewhere. */
        struct buf small;
        buf_init(&small, writer->mem);
        TRY(buf_append_bytes(&small, buf_bytes(pending)));
        buf_fini(pending);
        *pending = small;
    }
    return ESKER_OK;
}

esker_status
segment_writer_store(struct segment_writer *writer, struct bytes raw, enum block_kind kind,
                     enum block_codec codec, struct block_handle *out)
{
    uint64_t offset = segment_writer_offset(writer);
    size_t before = writer->pending.len;
    TRY(block_store(raw, kind, codec, writer->options.id, offset, &writer->pending));
    out->offset = offset;
    out->stored_len = (uint32_t)(writer->pending.len - before);
    out->raw_len = (uint32_t)raw.len;
    out->row_count = 0;
    return segment_writer_flush(writer, false);
}

/* ---- Rows --------------------------------------------------------------- */

static esker_status
segment_writer_index_row(struct segment_writer *writer, struct bytes key, uint64_t lsn,
                         const struct block_handle *handle)
{
    struct segment_index_row head = {.key_len = (uint32_t)key.len, .lsn = lsn, .handle = *handle};
    TRY(buf_reserve(&writer->index_rows, sizeof head + key.len));
    TRY(buf_append(&writer->index_rows, &head, sizeof head));
    writer->index_key_bytes += key.len;
    return buf_append_bytes(&writer->index_rows, key);
}

esker_status
segment_writer_cut(struct segment_writer *writer, struct bytes next_key)
{
    struct block_handle handle;
    struct bytes last_key = buf_bytes(&writer->last_key);
    uint32_t rows = block_builder_row_count(writer->builder);
    if (rows == 0) {
        return ESKER_OK;
    }
    if (writer->block_count == UINT32_MAX) {
        return FAIL_AT(ESKER_TOO_LARGE, writer->name, segment_writer_offset(writer),
                       "too many blocks in a segment");
    }
    TRY(block_builder_finish(writer->builder, &writer->raw));
    struct bytes raw = buf_bytes(&writer->raw);
    segment_writer_warm(writer, raw, rows);
    TRY(segment_writer_store(writer, raw, BLOCK_DATA, writer->codec, &handle));
    handle.row_count = rows;
    writer->data_raw_bytes += raw.len;
    segment_writer_charge(writer, segment_writer_memory(writer));
    block_builder_reset(writer->builder);
    if (writer->raw.cap > SEGMENT_WRITER_KEEP_BYTES) {
        buf_fini(&writer->raw);
    }
    writer->block_count++;
    if (bytes_equal(last_key, next_key)) {
        /* Its versions go on in the next block; the LSN says so. */
        return segment_writer_index_row(writer, last_key, writer->last_lsn, &handle);
    }
    buf_clear(&writer->scratch);
    TRY(buf_reserve(&writer->scratch, last_key.len + 1));
    size_t len = block_separator(last_key, next_key, writer->scratch.ptr);
    return segment_writer_index_row(writer, bytes_make(writer->scratch.ptr, len), 0, &handle);
}

static esker_status
segment_writer_check(const struct segment_writer *writer, struct bytes key, uint64_t lsn, enum entry_op op,
                     struct bytes value)
{
    if (key.len == 0 || key.len > KEY_BYTES_MAX || value.len > VALUE_BYTES_MAX) {
        return FAIL_AT(ESKER_INVALID, writer->name, segment_writer_offset(writer),
                       "a row's sizes are out of range");
    }
    if (!entry_op_fits(op, value.len)) {
        return FAIL_AT(ESKER_UNSUPPORTED, writer->name, segment_writer_offset(writer),
                       "an unknown kind of row");
    }
    if (writer->row_count > 0) {
        int order = bytes_compare(buf_bytes(&writer->last_key), key);
        if (order > 0 || (order == 0 && writer->last_lsn <= lsn)) {
            return FAIL_AT(ESKER_CORRUPT, writer->name, segment_writer_offset(writer),
                           "rows come out of order");
        }
    }
    return ESKER_OK;
}

static esker_status
segment_writer_add_row(struct segment_writer *writer, struct bytes key, uint64_t lsn, enum entry_op op,
                       struct bytes value)
{
    TRY(segment_writer_check(writer, key, lsn, op, value));
    bool new_key = writer->row_count == 0 || !bytes_equal(buf_bytes(&writer->last_key), key);
    if (!block_builder_fits(writer->builder, key, lsn, op, value.len, writer->options.block_bytes)) {
        TRY(segment_writer_cut(writer, key));
    }
    TRY(block_builder_add(writer->builder, key, lsn, op, value));
    if (new_key) {
        TRY(buf_append_u64(&writer->hashes, segment_filter_hash(key)));
        TRY(buf_assign(&writer->last_key, key));
    }
    if (writer->row_count == 0) {
        TRY(buf_assign(&writer->first_key, key));
    }
    writer->last_lsn = lsn;
    writer->row_count++;
    writer->tombstone_count += op == ENTRY_DELETE;
    if (op == ENTRY_PUT_EXPIRING) {
        uint64_t expiry_ms = entry_expiry_ms(value);
        bool first = writer->expiring_count++ == 0;
        writer->expiry_first_ms = first ? expiry_ms : MIN(writer->expiry_first_ms, expiry_ms);
        writer->expiry_last_ms = MAX(writer->expiry_last_ms, expiry_ms);
    }
    writer->key_bytes += key.len;
    writer->value_bytes += value.len;
    writer->min_lsn = MIN(writer->min_lsn, lsn);
    writer->max_lsn = MAX(writer->max_lsn, lsn);
    return ESKER_OK;
}

esker_status
segment_writer_usable(const struct segment_writer *writer)
{
    if (writer->failed != ESKER_OK) {
        return FAIL_AT(writer->failed, writer->name, segment_writer_offset(writer),
                       "this file could not be written");
    }
    ASSERT(!writer->finished);
    return ESKER_OK;
}

esker_status
segment_writer_add(struct segment_writer *writer, struct bytes key, uint64_t lsn, enum entry_op op,
                   struct bytes value)
{
    TRY(segment_writer_usable(writer));
    writer->failed = segment_writer_add_row(writer, key, lsn, op, value);
    return writer->failed;
}

uint64_t
segment_writer_size_bytes(const struct segment_writer *writer)
{
    uint64_t index = writer->index_rows.len;
    uint64_t filter = writer->hashes.len / sizeof(uint64_t) * FILTER_BITS_PER_KEY / 8;
    return segment_writer_offset(writer) + block_builder_raw_bytes(writer->builder) + index + filter;
}

uint64_t
segment_writer_row_count(const struct segment_writer *writer)
{
    return writer->row_count;
}

uint64_t
segment_writer_written_bytes(const struct segment_writer *writer)
{
    return writer->written;
}
