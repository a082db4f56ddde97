/* SPDX-License-Identifier: MIT */
/*
 * The end of a segment: index, filter, properties, footer, sync.
 *
 * The index is one block while it is small (a search in it costs as many
 * cache misses as one in two levels), else two levels with leaves of equal
 * target size, large enough that the root stays within one block.
 *
 * It goes in steps (the index; some keys of the filter at a time; the rest), so that
 * a merge is never long at one thing.
 */
#include "esker/version.h"
#include "segment/segment_props.h"
#include "segment/segment_writer_internal.h"
#include "base/mutant.h"

enum {
    SEGMENT_INDEX_LEAVES = BLOCK_ROWS_MAX / 2,
    SEGMENT_INDEX_ROW_BYTES = 48, /* a row's columns and handle, without the key */
    SEGMENT_INDEX_PACKED_FREE_BYTES = 1 << 20,
    SEGMENT_FILTER_STEP_KEYS = 1 << 15
};

enum segment_finish_stage { SEGMENT_AT_INDEX, SEGMENT_AT_FILTER, SEGMENT_AT_REST };

struct segment_finish {
    struct segment_writer *writer;
    struct block_builder *leaf;
    struct block_builder *root;
    struct buf raw;
    enum segment_finish_stage stage;
    struct segment_footer footer;
    size_t filter_keys;     /* so many are in the filter, which is in raw */
    enum block_codec codec; /* of index blocks */
    /* the last row that went into the leaf: the root's row for it */
    struct bytes last_key;
    uint64_t last_lsn;
};

/* ---- Index -------------------------------------------------------------- */

/* Row at *offset of the writer's index rows; moves *offset behind it. */
static struct bytes
segment_finish_row(const struct segment_writer *writer, size_t *offset, struct segment_index_row *out)
{
    memcpy(out, writer->index_rows.ptr + *offset, sizeof *out);
    *offset += sizeof *out;
    struct bytes key = bytes_make(writer->index_rows.ptr + *offset, out->key_len);
    *offset += out->key_len;
    return key;
}

/* The row must fit into what a block may be. */
static esker_status
segment_finish_add(struct segment_finish *finish, struct block_builder *builder, struct bytes key,
                   uint64_t lsn, const struct block_handle *handle)
{
    if (!block_builder_fits(builder, key, lsn, ENTRY_PUT, BLOCK_HANDLE_BYTES, BLOCK_RAW_MAX)) {
        return FAIL_AT(ESKER_TOO_LARGE, finish->writer->name, segment_writer_offset(finish->writer),
                       "a segment's index is too large");
    }
    uint8_t value[BLOCK_HANDLE_BYTES];
    block_handle_encode(handle, value);
    return block_builder_add(builder, key, lsn, ENTRY_PUT, bytes_make(value, sizeof value));
}

/* Closes the leaf and gives it a row in the root. */
static esker_status
segment_finish_leaf(struct segment_finish *finish)
{
    struct block_handle handle;
    uint32_t rows = block_builder_row_count(finish->leaf);
    if (rows == 0) {
        return ESKER_OK;
    }
    TRY(block_builder_finish(finish->leaf, &finish->raw));
    TRY(segment_writer_store(finish->writer, buf_bytes(&finish->raw), BLOCK_INDEX, finish->codec, &handle));
    handle.row_count = rows;
    block_builder_reset(finish->leaf);
    return segment_finish_add(finish, finish->root, finish->last_key, finish->last_lsn, &handle);
}

static esker_status
segment_finish_leaves(struct segment_finish *finish, uint64_t leaf_bytes)
{
    const struct segment_writer *writer = finish->writer;
    for (size_t at = 0; at < writer->index_rows.len;) {
        struct segment_index_row row;
        struct bytes key = segment_finish_row(writer, &at, &row);
        if (!block_builder_fits(finish->leaf, key, row.lsn, ENTRY_PUT, BLOCK_HANDLE_BYTES, leaf_bytes)) {
            TRY(segment_finish_leaf(finish));
        }
        TRY(segment_finish_add(finish, finish->leaf, key, row.lsn, &row.handle));
        finish->last_key = key;
        finish->last_lsn = row.lsn;
    }
    return segment_finish_leaf(finish);
}

/* A reader unpacks an index of at most 1 MiB or four times the file; `total`: about what its leaves
 * have, the root has less. Where that might not do, the index is stored as it is. */
static enum block_codec
segment_finish_codec(const struct segment_writer *writer, uint64_t total)
{
    bool fits = total <= SEGMENT_INDEX_PACKED_FREE_BYTES / 4 || total <= segment_writer_offset(writer);
    return fits ? writer->codec : BLOCK_CODEC_NONE;
}

static esker_status
segment_finish_index(struct segment_finish *finish, struct segment_footer *footer)
{
    struct segment_writer *writer = finish->writer;
    uint64_t total = writer->index_key_bytes + (uint64_t)writer->block_count * SEGMENT_INDEX_ROW_BYTES;
    TRY(block_builder_create(writer->mem, BLOCK_INDEX, &finish->root));
    finish->codec = segment_finish_codec(writer, total);
    if (writer->block_count <= BLOCK_ROWS_MAX && total <= writer->index_root_bytes) {
        footer->index_depth = 1;
        for (size_t at = 0; at < writer->index_rows.len;) {
            struct segment_index_row row;
            struct bytes key = segment_finish_row(writer, &at, &row);
            TRY(segment_finish_add(finish, finish->root, key, row.lsn, &row.handle));
        }
    } else {
        footer->index_depth = 2;
        TRY(block_builder_create(writer->mem, BLOCK_INDEX, &finish->leaf));
        TRY(segment_finish_leaves(finish, MAX(total / SEGMENT_INDEX_LEAVES, writer->index_leaf_bytes)));
    }
    TRY(block_builder_finish(finish->root, &finish->raw));
    struct block_handle handle;
    TRY(segment_writer_store(writer, buf_bytes(&finish->raw), BLOCK_INDEX, finish->codec, &handle));
    footer->root = (struct segment_handle){handle.offset, handle.stored_len, handle.raw_len};
    if (segment_writer_offset(writer) - footer->data_end > SEGMENT_INDEX_STORED_MAX) {
        return FAIL_AT(ESKER_TOO_LARGE, writer->name, handle.offset, "a segment's index is too large");
    }
    return ESKER_OK;
}

/* ---- Filter, properties, footer ----------------------------------------- */

/* Room for the filter, in raw; none where there is less data than one page: it would cost more than it
 * could spare. */
static esker_status
segment_finish_filter_begin(struct segment_finish *finish)
{
    const struct segment_writer *writer = finish->writer;
    buf_clear(&finish->raw);
    if (writer->data_raw_bytes < FILTER_PAGE_BYTES) {
        return ESKER_OK;
    }
    uint32_t pages = filter_page_count(writer->hashes.len / sizeof(uint64_t));
    /* One block holds it; a larger segment has a coarser filter. */
    pages = MIN(pages, (uint32_t)(BLOCK_RAW_MAX / FILTER_PAGE_BYTES));
    finish->footer.filter_pages = pages;
    return buf_append_zeros(&finish->raw, (size_t)pages * FILTER_PAGE_BYTES);
}

/* False: more keys are left. */
static bool
segment_finish_filter_keys(struct segment_finish *finish)
{
    const struct segment_writer *writer = finish->writer;
    size_t keys = writer->hashes.len / sizeof(uint64_t);
    size_t some = MIN(keys - finish->filter_keys, (size_t)SEGMENT_FILTER_STEP_KEYS);
    if (finish->footer.filter_pages == 0) {
        return true;
    }
    const uint64_t *hashes = (const uint64_t *)(const void *)writer->hashes.ptr;
    filter_add_many(finish->raw.ptr, finish->footer.filter_pages, hashes + finish->filter_keys, some);
    finish->filter_keys += some;
    return finish->filter_keys == keys;
}

static esker_status
segment_finish_filter_store(struct segment_finish *finish)
{
    struct segment_footer *footer = &finish->footer;
    if (footer->filter_pages == 0) {
        return ESKER_OK;
    }
    footer->filter =
        (struct segment_handle){.offset = segment_writer_offset(finish->writer),
                                .stored_len = footer->filter_pages * (uint32_t)SEGMENT_FILTER_PAGE_STORED,
                                .raw_len = footer->filter_pages * (uint32_t)FILTER_PAGE_BYTES};
    for (uint32_t page = 0; page < footer->filter_pages; page++) { /* each is read, checked and lost alone */
        struct block_handle handle;
        struct bytes bytes =
            bytes_make(finish->raw.ptr + (size_t)page * FILTER_PAGE_BYTES, FILTER_PAGE_BYTES);
        TRY(segment_writer_store(finish->writer, bytes, BLOCK_FILTER, BLOCK_CODEC_NONE, &handle));
    }
    footer->filter_kind = SEGMENT_FILTER_SPLIT_BLOCK;
    return ESKER_OK;
}

static esker_status
segment_finish_props(struct segment_finish *finish, struct segment_footer *footer)
{
    struct segment_writer *writer = finish->writer;
    struct segment_props props = {
        .writer = bytes_make(ESKER_VERSION_STRING, sizeof ESKER_VERSION_STRING - 1),
        .created_ns = writer->io->ops->wall_ns(writer->io),
        .compression = (uint32_t)writer->options.compression,
        .block_bytes = writer->options.block_bytes,
        .key_bytes = writer->key_bytes,
        .value_bytes = writer->value_bytes,
    };
    TRY(segment_props_encode(&props, &finish->raw));
    struct block_handle handle;
    TRY(segment_writer_store(writer, buf_bytes(&finish->raw), BLOCK_PROPS, BLOCK_CODEC_NONE, &handle));
    footer->props = (struct segment_handle){handle.offset, handle.stored_len, handle.raw_len};
    return ESKER_OK;
}

/* The last data block and the index. */
static esker_status
segment_finish_begin(struct segment_finish *finish)
{
    struct segment_writer *writer = finish->writer;
    if (writer->row_count == 0) {
        return FAIL_AT(ESKER_INVALID, writer->name, 0, "a segment needs at least one row");
    }
    TRY(segment_writer_cut(writer, bytes_make(NULL, 0)));
    finish->footer = (struct segment_footer){
        .row_count = writer->row_count,
        .tombstone_count = writer->tombstone_count,
        .min_lsn = writer->min_lsn,
        .max_lsn = writer->max_lsn,
        .data_block_count = writer->block_count,
        .data_raw_bytes = writer->data_raw_bytes,
        .data_end = segment_writer_offset(writer),
        .id = writer->options.id,
    };
    memcpy(finish->footer.uuid, writer->options.uuid, sizeof finish->footer.uuid);
    TRY(segment_finish_index(finish, &finish->footer));
    return segment_finish_filter_begin(finish);
}

static esker_status
segment_finish_rest(struct segment_finish *finish)
{
    struct segment_writer *writer = finish->writer;
    TRY(segment_finish_filter_store(finish));
    TRY(segment_finish_props(finish, &finish->footer));
    uint8_t encoded[SEGMENT_FOOTER_BYTES];
    segment_footer_encode(&finish->footer, encoded);
    TRY(buf_append(&writer->pending, encoded, sizeof encoded));
    return segment_writer_flush(writer, true);
}

/* OK: there is more to do. END: everything is written. */
static esker_status
segment_finish_step(struct segment_finish *finish)
{
    switch (finish->stage) {
    case SEGMENT_AT_INDEX:
        finish->stage = SEGMENT_AT_FILTER;
        return segment_finish_begin(finish);
    case SEGMENT_AT_FILTER:
        finish->stage = segment_finish_filter_keys(finish) ? SEGMENT_AT_REST : SEGMENT_AT_FILTER;
        return ESKER_OK;
    default:
        TRY(segment_finish_rest(finish));
        return ESKER_END;
    }
}

static esker_status
segment_finish_create(struct segment_writer *writer)
{
    struct segment_finish *finish = mem_zalloc(writer->mem, sizeof *finish);
    if (finish == NULL) {
        return FAIL_NO_MEMORY("the end of a segment");
    }
    finish->writer = writer;
    buf_init(&finish->raw, writer->mem);
    writer->finish = finish;
    return ESKER_OK;
}

void
segment_finish_destroy(struct segment_finish *finish)
{
    if (finish == NULL) {
        return;
    }
    buf_fini(&finish->raw);
    block_builder_destroy(finish->leaf);
    block_builder_destroy(finish->root);
    mem_free(finish->writer->mem, finish);
}

esker_status
segment_writer_seal_step(struct segment_writer *writer)
{
    TRY(segment_writer_usable(writer));
    ASSERT(!writer->sealed);
    esker_status status = writer->finish == NULL ? segment_finish_create(writer) : ESKER_OK;
    if (status == ESKER_OK) {
        status = segment_finish_step(writer->finish);
    }
    if (status == ESKER_OK) {
        return ESKER_OK;
    }
    segment_finish_destroy(writer->finish);
    writer->finish = NULL;
    writer->sealed = status == ESKER_END;
    writer->failed = writer->sealed ? ESKER_OK : status;
    return status;
}

static esker_status
segment_finish_all(struct segment_writer *writer)
{
    esker_status status;
    do {
        status = segment_writer_seal_step(writer);
    } while (status == ESKER_OK);
    return status == ESKER_END ? ESKER_OK : status;
}

bool
segment_writer_is_sealed(const struct segment_writer *writer)
{
    return writer->sealed;
}

esker_status
segment_writer_finish(struct segment_writer *writer, struct segment_meta *meta_out,
                      uint8_t keys_out[2 * EDIT_KEY_BYTES_MAX])
{
    if (!writer->sealed) {
        TRY(segment_finish_all(writer));
    }
    writer->failed = MUTANT(1) ? ESKER_OK : io_sync(writer->io, writer->file);
    TRY(writer->failed);
    writer->finished = true;
    uint8_t *max_key = keys_out + EDIT_KEY_BYTES_MAX;
    size_t min_len = edit_bound_lower(buf_bytes(&writer->first_key), keys_out);
    size_t max_len = edit_bound_upper(buf_bytes(&writer->last_key), max_key);
    *meta_out = (struct segment_meta){
        .id = writer->options.id,
        .size_bytes = writer->written,
        .row_count = writer->row_count,
        .tombstone_count = writer->tombstone_count,
        .min_lsn = writer->min_lsn,
        .max_lsn = writer->max_lsn,
        .expiring_count = writer->expiring_count,
        .expiry_first_ms = writer->expiry_first_ms,
        .expiry_last_ms = writer->expiry_last_ms,
        .min_key = bytes_make(keys_out, min_len),
        .max_key = bytes_make(max_key, max_len),
    };
    return ESKER_OK;
}
