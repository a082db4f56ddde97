/* SPDX-License-Identifier: MIT */
/*
 * Reads every byte of a segment and checks what a reader takes on trust: that
 * rows ascend across blocks, separators separate, the filter knows every key,
 * and all counts agree. Structure and checksums are checked by the ordinary
 * loading code, on a private copy: the file is judged as it is on disk now.
 */
#include "format/filter.h"
#include "segment/segment_internal.h"
#include "segment/segment_props.h"

struct segment_verify {
    const struct segment *segment;
    struct segment_loaded *loaded;
    struct segment_ahead ahead;
    uint8_t *key;  /* KEY_BYTES_MAX; the present row's */
    uint8_t *last; /* KEY_BYTES_MAX; the row's before */
    size_t last_len;
    uint64_t last_lsn;
    uint64_t rows, tombstones, min_lsn, max_lsn, key_bytes, value_bytes;
    uint64_t expiring, expiry_last_ms;
    segment_damage_fn *each; /* nullable: the first damage ends it */
    void *each_ctx;
    bool incomplete; /* a block was passed over: sums say nothing */
    bool stopped;    /* `each` does not want to know more */
};

static esker_status
segment_verify_fail(const struct segment_verify *verify, uint64_t offset, const char *what)
{
    return FAIL_AT(ESKER_CORRUPT, verify->segment->name, offset, "%s", what);
}

/* Counts the row and compares it with the one before; swaps `key` and `last`. */
static esker_status
segment_verify_row(struct segment_verify *verify, const struct block *block, uint32_t row, uint64_t offset)
{
    struct bytes key = bytes_make(verify->key, block_key(block, row, verify->key));
    uint64_t lsn = block_lsn(block, row);
    enum entry_op op = block_op(block, row);
    bool new_key = true;
    if (verify->rows > 0) {
        int order = bytes_compare(bytes_make(verify->last, verify->last_len), key);
        new_key = order != 0;
        if (order > 0 || (order == 0 && verify->last_lsn <= lsn)) {
            return segment_verify_fail(verify, offset, "rows are out of order");
        }
    }
    const struct segment_loaded *loaded = verify->loaded;
    const uint8_t *filter = segment_loaded_filter(loaded);
    if (new_key && filter != NULL &&
        !filter_may_contain(filter, loaded->footer.filter_pages, segment_filter_hash(key))) {
        return segment_verify_fail(verify, loaded->footer.filter.offset, "the filter lacks a key");
    }
    size_t value_len = block_value(block, row).len;
    if (!entry_op_fits(op, value_len)) {
        return segment_verify_fail(verify, offset, "a row of an unknown kind");
    }
    verify->rows++;
    verify->tombstones += op == ENTRY_DELETE;
    if (op == ENTRY_PUT_EXPIRING) {
        uint64_t expiry_ms = entry_expiry_ms(block_value(block, row));
        verify->expiring++;
        verify->expiry_last_ms = MAX(verify->expiry_last_ms, expiry_ms);
    }
    verify->min_lsn = MIN(verify->min_lsn, lsn);
    verify->max_lsn = MAX(verify->max_lsn, lsn);
    verify->key_bytes += key.len;
    verify->value_bytes += value_len;
    uint8_t *spare = verify->last;
    verify->last = verify->key;
    verify->last_len = key.len;
    verify->last_lsn = lsn;
    verify->key = spare;
    return ESKER_OK;
}

/* Against the separator of this block, whose last row is the present one. */
static esker_status
segment_verify_separator(const struct segment_verify *verify, struct segment_at at)
{
    const struct block *index = &verify->loaded->parts[at.part].block;
    uint64_t offset = verify->loaded->footer.root.offset;
    int order = block_key_compare(index, at.row, bytes_make(verify->last, verify->last_len));
    uint64_t lsn = block_lsn(index, at.row);
    if (order < 0 || (lsn != 0 && (order != 0 || lsn != verify->last_lsn))) {
        return segment_verify_fail(verify, offset, "a separator lies below its block");
    }
    return ESKER_OK;
}

/* Against the separator of the block before, whose next row is the first of `block`. */
static esker_status
segment_verify_entry(struct segment_verify *verify, struct segment_at before, const struct block *block)
{
    const struct block *index = &verify->loaded->parts[before.part].block;
    uint64_t offset = verify->loaded->footer.root.offset;
    struct bytes key = bytes_make(verify->key, block_key(block, 0, verify->key));
    int order = block_key_compare(index, before.row, key);
    bool goes_on = bytes_equal(bytes_make(verify->last, verify->last_len), key);
    if (goes_on ? order != 0 || block_lsn(index, before.row) == 0 : order >= 0) {
        return segment_verify_fail(verify, offset, "a separator reaches into the next block");
    }
    return ESKER_OK;
}

/* A damaged block was told and is passed over. */
static bool
segment_verify_passes(struct segment_verify *verify, esker_status status)
{
    if (status != ESKER_CORRUPT || verify->each == NULL) {
        return false;
    }
    verify->incomplete = true;
    verify->stopped = !verify->each(verify->each_ctx);
    return true;
}

/* The rows of the block at `at`. before: the block before it; NULL when that one was not read. */
static esker_status
segment_verify_block(struct segment_verify *verify, struct segment_at at, const struct segment_at *before,
                     const struct block *block)
{
    uint64_t offset = segment_at_handle(verify->loaded, at).offset;
    if (before != NULL) {
        TRY(segment_verify_entry(verify, *before, block));
    }
    for (uint32_t row = 0; row < block->row_count; row++) {
        TRY(segment_verify_row(verify, block, row, offset));
        if (verify->rows == 1 &&
            bytes_compare(verify->segment->meta.min_key, bytes_make(verify->last, verify->last_len)) > 0) {
            return segment_verify_fail(verify, offset, "the first key lies below the manifest's bound");
        }
    }
    return segment_verify_separator(verify, at);
}

static esker_status
segment_verify_data(struct segment_verify *verify)
{
    const struct segment_loaded *loaded = verify->loaded;
    struct segment_at before = segment_at_first();
    struct segment_at at = before;
    bool chained = false; /* `before` was read */
    for (bool more = true; more && !verify->stopped;) {
        struct block block;
        esker_status status = segment_ahead_block(&verify->ahead, at, false, &block);
        if (status == ESKER_OK) {
            TRY(segment_verify_block(verify, at, chained ? &before : NULL, &block));
        } else if (!segment_verify_passes(verify, status)) {
            return status;
        }
        chained = status == ESKER_OK;
        before = at;
        more = segment_at_next(loaded, &at);
    }
    struct bytes bound = verify->segment->meta.max_key;
    if (bound.len > 0 && bytes_compare(bytes_make(verify->last, verify->last_len), bound) > 0) {
        return segment_verify_fail(verify, segment_at_handle(loaded, at).offset,
                                   "the last key lies above the manifest's bound");
    }
    return ESKER_OK;
}

static esker_status
segment_verify_props(const struct segment_verify *verify)
{
    const struct segment *segment = verify->segment;
    const struct segment_handle *props = &verify->loaded->footer.props;
    struct block_handle handle = {
        .offset = props->offset, .stored_len = props->stored_len, .raw_len = props->raw_len};
    if (handle.stored_len == 0) {
        return ESKER_OK;
    }
    struct block_stored stored;
    struct segment_props decoded;
    uint8_t *raw = NULL;
    esker_status status = ESKER_OK;
    uint8_t *bytes = mem_alloc(segment->mem, handle.stored_len);
    if (bytes == NULL) {
        return FAIL_NO_MEMORY("a segment's properties");
    }
    TRY_OUT(segment_read(segment, verify->loaded->file, handle.offset, bytes, handle.stored_len));
    TRY_OUT(
        segment_stored_open(segment, bytes_make(bytes, handle.stored_len), &handle, BLOCK_PROPS, &stored));
    raw = mem_alloc(segment->mem, stored.raw_len);
    if (raw == NULL) {
        status = FAIL_NO_MEMORY("a segment's properties");
        goto out;
    }
    status = block_stored_unpack(&stored, segment->mem, raw);
    if (status == ESKER_OK) {
        status = segment_props_decode(bytes_make(raw, stored.raw_len), &decoded);
    }
    if (status != ESKER_OK) {
        status = segment_damaged(segment, status, handle.offset, "the properties are not well formed");
        goto out;
    }
    if (verify->incomplete) {
        goto out;
    }
    if (decoded.key_bytes != verify->key_bytes || decoded.value_bytes != verify->value_bytes) {
        status = segment_verify_fail(verify, handle.offset, "the properties disagree with the rows");
    }
out:
    mem_free(segment->mem, raw);
    mem_free(segment->mem, bytes);
    return status;
}

static esker_status
segment_verify_counts(const struct segment_verify *verify)
{
    const struct segment_footer *footer = &verify->loaded->footer;
    if (verify->incomplete) {
        return ESKER_OK;
    }
    if (verify->rows != footer->row_count || verify->tombstones != footer->tombstone_count ||
        verify->min_lsn != footer->min_lsn || verify->max_lsn != footer->max_lsn) {
        return segment_verify_fail(verify, verify->segment->meta.size_bytes - SEGMENT_FOOTER_BYTES,
                                   "the footer's counts disagree with the rows");
    }
    const struct segment_meta *meta = &verify->segment->meta; /* on whose word a segment is dropped */
    if (meta->expiring_count > 0 &&
        (meta->expiring_count != verify->expiring || meta->expiry_last_ms != verify->expiry_last_ms)) {
        return segment_verify_fail(verify, 0, "the manifest's times of expiry disagree with the rows");
    }
    return ESKER_OK;
}

esker_status
segment_verify_each(struct segment *segment, segment_damage_fn *each, void *ctx)
{
    struct segment_verify verify = {.segment = segment, .min_lsn = UINT64_MAX, .each = each, .each_ctx = ctx};
    TRY(segment_loaded_create_strict(segment, &verify.loaded));
    segment_ahead_init(&verify.ahead, segment, verify.loaded, SEGMENT_AHEAD_BYTES, MEMORY_MERGES);
    uint8_t *keys = mem_alloc_array(segment->mem, 2, KEY_BYTES_MAX);
    esker_status status = ESKER_OK;
    if (keys == NULL) {
        status = FAIL_NO_MEMORY("verifying a segment");
        goto out;
    }
    verify.key = keys;
    verify.last = keys + KEY_BYTES_MAX;
    TRY_OUT(segment_verify_data(&verify));
    if (!verify.stopped) {
        TRY_OUT(segment_verify_counts(&verify));
        TRY_OUT(segment_verify_props(&verify));
    }
out:
    mem_free(segment->mem, keys);
    segment_ahead_fini(&verify.ahead);
    segment_loaded_unref(verify.loaded);
    return status;
}

esker_status
segment_verify(struct segment *segment)
{
    return segment_verify_each(segment, NULL, NULL);
}
