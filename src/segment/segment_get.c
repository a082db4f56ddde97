/* SPDX-License-Identifier: MIT */
/*
 * Point lookups. The fast path is bounds, filter line, index search, one frame
 * pointer, fingerprint search; no lock, no pin, no system call. What is not in
 * memory sends the caller to the slow path, which is the same walk with pins.
 *
 * A key's versions may go on in the next blocks. The index row then holds the
 * LSN of its block's last row (segment_internal.h), the oldest version in it:
 * if that is not visible, none in the block is. So the one block that can
 * answer is known before any is loaded.
 */
#include "format/filter.h"
#include "segment/segment_internal.h"

/* Persisted with every filter; never change. */
#define SEGMENT_FILTER_SEED 0x657369746c696631ULL

uint64_t
segment_filter_hash(struct bytes key)
{
    return hash64(key.ptr, key.len, SEGMENT_FILTER_SEED);
}

void
segment_prefetch(const struct segment *segment, uint64_t filter_hash)
{
    /* pairs: SEGMENT_LOADED */
    const struct segment_loaded *loaded = load_acquire(&segment->loaded);
    if (loaded != NULL && loaded->filter != NULL) {
        PREFETCH_READ(filter_line(loaded->filter, loaded->footer.filter_pages, filter_hash));
    }
}

/* By the first bytes of the manifest's bounds, which may be wider than the keys:
 * a key that it lets pass wrongly is not found further down. */
static inline bool
segment_get_in_bounds(const struct segment *segment, struct bytes key)
{
    uint64_t prefix = bytes_prefix64(key.ptr, key.len);
    return segment->min_prefix <= prefix && prefix <= segment->max_prefix;
}

static bool
segment_get_filtered_out(const struct segment_loaded *loaded, uint64_t filter_hash)
{
    return loaded->filter != NULL &&
           !filter_may_contain(loaded->filter, loaded->footer.filter_pages, filter_hash);
}

/* The one block that may hold the newest visible version of key. */
static bool
segment_get_seek(const struct segment_loaded *loaded, struct bytes key, uint64_t snapshot_lsn,
                 struct segment_at *at)
{
    if (!segment_at_seek(loaded, key, at)) {
        return false;
    }
    for (;;) {
        const struct block *index = &loaded->parts[at->part].block;
        uint64_t last_lsn = block_lsn(index, at->row); /* 0: no key goes on */
        if (LIKELY(last_lsn < snapshot_lsn || last_lsn == 0) || block_key_compare(index, at->row, key) != 0) {
            return true;
        }
        if (!segment_at_next(loaded, at)) {
            return false;
        }
    }
}

static enum segment_result
segment_get_found(const struct block *block, uint32_t row, struct segment_hit *hit)
{
    hit->op = block_op(block, row);
    hit->lsn = block_lsn(block, row);
    hit->value = block_value(block, row);
    return SEGMENT_FOUND;
}

enum segment_result
segment_get(struct segment *segment, struct bytes key, uint64_t filter_hash, uint64_t snapshot_lsn,
            struct segment_hit *hit)
{
    if (!segment_get_in_bounds(segment, key)) {
        return SEGMENT_ABSENT;
    }
    /* pairs: SEGMENT_LOADED */
    struct segment_loaded *loaded = load_acquire(&segment->loaded);
    if (UNLIKELY(loaded == NULL)) {
        return SEGMENT_NEEDS_IO;
    }
    cache_holder_touch(&loaded->holder);
    if (segment_get_filtered_out(loaded, filter_hash)) {
        return SEGMENT_ABSENT;
    }
    struct segment_at at;
    if (!segment_get_seek(loaded, key, snapshot_lsn, &at)) {
        return SEGMENT_ABSENT;
    }
    hit->place = (struct segment_place){.part = at.part, .row = at.row, .known = true};
    struct frame_ref *frame = frame_table_get(&loaded->frames, segment_at_block_no(loaded, at));
    if (frame == NULL) {
        return SEGMENT_NEEDS_IO;
    }
    frame_prefetch(frame, loaded->head_lines);
    frame_touch(frame);
    block_cache_count_hit(segment->cache);
    uint32_t row = block_find(&frame->block, key, snapshot_lsn, NULL);
    if (row == frame->block.row_count) {
        return SEGMENT_ABSENT;
    }
    hit->frame = frame;
    return segment_get_found(&frame->block, row, hit);
}

static enum segment_result
segment_get_failed(struct segment_hit *hit, esker_status status)
{
    hit->status = status;
    return SEGMENT_FAILED;
}

/* Filter and index, unless the fast path went through them already. */
static bool
segment_get_place(const struct segment_loaded *loaded, struct bytes key, uint64_t filter_hash,
                  uint64_t snapshot_lsn, struct segment_hit *hit, struct segment_at *at)
{
    if (hit->place.known) {
        *at = (struct segment_at){hit->place.part, hit->place.row};
        return true;
    }
    if (segment_get_filtered_out(loaded, filter_hash) || !segment_get_seek(loaded, key, snapshot_lsn, at)) {
        return false;
    }
    hit->place = (struct segment_place){.part = at->part, .row = at->row, .known = true};
    return true;
}

enum segment_result
segment_get_in_frame(struct frame_ref *frame, struct bytes key, uint64_t snapshot_lsn,
                     struct segment_hit *hit)
{
    uint32_t row = block_find(&frame->block, key, snapshot_lsn, NULL);
    if (row == frame->block.row_count) {
        return SEGMENT_ABSENT;
    }
    hit->frame = frame;
    hit->status = ESKER_OK;
    return segment_get_found(&frame->block, row, hit);
}

esker_status
segment_warm(struct segment *segment)
{
    struct segment_loaded *loaded;
    TRY(segment_load(segment, &loaded));
    segment_loaded_unref(loaded);
    return ESKER_OK;
}

static enum segment_result
segment_get_from(const struct segment *segment, struct segment_loaded *loaded, struct bytes key,
                 uint64_t filter_hash, uint64_t snapshot_lsn, bool fill_cache, struct segment_hit *hit)
{
    struct segment_at at;
    if (!segment_get_place(loaded, key, filter_hash, snapshot_lsn, hit, &at)) {
        return SEGMENT_ABSENT;
    }
    struct frame_ref *frame;
    esker_status status = segment_pin_block(segment, loaded, at, fill_cache, &frame);
    if (status != ESKER_OK) {
        return segment_get_failed(hit, status);
    }
    enum segment_result result = segment_get_in_frame(frame, key, snapshot_lsn, hit);
    if (result != SEGMENT_FOUND) {
        frame_unpin(frame);
    }
    return result;
}

enum segment_result
segment_get_slow(struct segment *segment, struct bytes key, uint64_t filter_hash, uint64_t snapshot_lsn,
                 bool fill_cache, struct segment_hit *hit)
{
    if (!hit->place.known && !segment_get_in_bounds(segment, key)) {
        return SEGMENT_ABSENT;
    }
    struct segment_loaded *loaded;
    esker_status status = segment_load(segment, &loaded);
    if (status != ESKER_OK) {
        return segment_get_failed(hit, status);
    }
    enum segment_result result =
        segment_get_from(segment, loaded, key, filter_hash, snapshot_lsn, fill_cache, hit);
    segment_loaded_unref(loaded);
    return result;
}
