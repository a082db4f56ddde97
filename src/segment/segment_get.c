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
 *
 * Where index and filter are paged, a lookup goes in steps: each looks into one
 * block, a page of the filter, a part of the index, rows, and says which is the
 * next. What is not in memory of them is read one by one, or together with what
 * other lookups wait for.
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
    const uint8_t *filter = loaded != NULL ? segment_loaded_filter(loaded) : NULL;
    if (filter != NULL) {
        PREFETCH_READ(filter_line(filter, loaded->footer.filter_pages, filter_hash));
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
    const uint8_t *filter = segment_loaded_filter(loaded);
    return filter != NULL && !filter_may_contain(filter, loaded->footer.filter_pages, filter_hash);
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

/* The same in one index block: what it points at. row_count: nothing that it does. */
static uint32_t
segment_get_row(const struct block *index, struct bytes key, uint64_t snapshot_lsn)
{
    uint32_t row = block_seek(index, key);
    for (; row < index->row_count; row++) {
        uint64_t last_lsn = block_lsn(index, row);
        if (last_lsn < snapshot_lsn || last_lsn == 0 || block_key_compare(index, row, key) != 0) {
            break;
        }
    }
    return row;
}

static enum segment_result
segment_get_found(const struct block *block, uint32_t row, struct segment_hit *hit)
{
    hit->op = block_op(block, row);
    hit->lsn = block_lsn(block, row);
    hit->value = block_value(block, row);
    return SEGMENT_FOUND;
}

/* ---- Step by step --------------------------------------------------------- */

static NOINLINE void
segment_get_to_data(const struct segment_loaded *loaded, struct segment_at at, struct segment_place *place)
{
    bool fits = segment_part_data(loaded, &loaded->parts[at.part].block, at.part, at.row, place);
    ASSERT(fits); /* checked when the index was loaded */
}

/* Behind the filter: which data block, or which part of the index says so. */
static enum segment_result
segment_get_to_index(const struct segment_loaded *loaded, struct bytes key, uint64_t snapshot_lsn,
                     struct segment_place *place)
{
    struct segment_at at;
    if (loaded->parts != NULL) {
        if (!segment_get_seek(loaded, key, snapshot_lsn, &at)) {
            return SEGMENT_ABSENT;
        }
        segment_get_to_data(loaded, at, place);
        return SEGMENT_NEEDS_IO;
    }
    uint32_t part = segment_get_row(&loaded->root, key, snapshot_lsn);
    if (part == loaded->part_count) {
        return SEGMENT_ABSENT;
    }
    *place = segment_part_place(loaded, part);
    return SEGMENT_NEEDS_IO;
}

/* What the block of the place at hand, pinned or in a section, says; without one, where a lookup
 * begins. NEEDS_IO: the place is now that of the next block. */
static enum segment_result
segment_get_step(const struct segment_loaded *loaded, struct frame_ref *frame, struct bytes key,
                 uint64_t filter_hash, uint64_t snapshot_lsn, struct segment_hit *hit)
{
    struct segment_place *place = &hit->place;
    uint32_t part;
    uint32_t row;
    switch ((enum segment_stage)place->stage) {
    case SEGMENT_STAGE_NONE:
        if (loaded->filter_paged) {
            *place = segment_filter_place(loaded, filter_hash);
            return SEGMENT_NEEDS_IO;
        }
        if (segment_get_filtered_out(loaded, filter_hash)) {
            return SEGMENT_ABSENT;
        }
        return segment_get_to_index(loaded, key, snapshot_lsn, place);
    case SEGMENT_STAGE_FILTER:
        if (!filter_may_contain(frame_data(frame), 1, filter_hash)) {
            return SEGMENT_ABSENT;
        }
        return segment_get_to_index(loaded, key, snapshot_lsn, place);
    case SEGMENT_STAGE_INDEX:
        part = place->slot - loaded->footer.data_block_count;
        row = segment_get_row(&frame->block, key, snapshot_lsn);
        return row < frame->block.row_count && segment_part_data(loaded, &frame->block, part, row, place)
                   ? SEGMENT_NEEDS_IO
                   : SEGMENT_ABSENT;
    case SEGMENT_STAGE_DATA:
        break;
    }
    row = block_find(&frame->block, key, snapshot_lsn, NULL);
    if (row == frame->block.row_count) {
        return SEGMENT_ABSENT;
    }
    hit->frame = frame;
    hit->status = ESKER_OK;
    return segment_get_found(&frame->block, row, hit);
}

/* As far as frames go that are in memory. */
static NOINLINE enum segment_result
segment_get_paged(struct segment *segment, struct segment_loaded *loaded, struct bytes key,
                  uint64_t filter_hash, uint64_t snapshot_lsn, struct segment_hit *hit)
{
    struct frame_ref *frame = NULL;
    enum segment_result result;
    hit->place.stage = SEGMENT_STAGE_NONE;
    do {
        result = segment_get_step(loaded, frame, key, filter_hash, snapshot_lsn, hit);
        if (result != SEGMENT_NEEDS_IO) {
            return result;
        }
        frame = frame_table_get(&loaded->frames, hit->place.slot);
        if (frame != NULL) {
            frame_touch(frame);
            block_cache_count_hit(segment->cache);
        }
    } while (frame != NULL);
    return result;
}

/* ---- In memory -------------------------------------------------------------- */

/* Its block does not hold the key. A filter would have said so: where it is late, it comes now. */
static enum segment_result
segment_get_missed(const struct segment_loaded *loaded, struct segment_hit *hit)
{
    if (LIKELY(!segment_lacks_filter(loaded))) {
        return SEGMENT_ABSENT;
    }
    hit->place.stage = SEGMENT_STAGE_NONE;
    return SEGMENT_NEEDS_IO;
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
    if (UNLIKELY(loaded->paged)) {
        return segment_get_paged(segment, loaded, key, filter_hash, snapshot_lsn, hit);
    }
    if (segment_get_filtered_out(loaded, filter_hash)) {
        return SEGMENT_ABSENT;
    }
    struct segment_at at;
    if (!segment_get_seek(loaded, key, snapshot_lsn, &at)) {
        return SEGMENT_ABSENT;
    }
    struct frame_ref *frame = frame_table_get(&loaded->frames, loaded->parts[at.part].first_block + at.row);
    if (frame == NULL) {
        segment_get_to_data(loaded, at, &hit->place);
        return SEGMENT_NEEDS_IO;
    }
    frame_prefetch(frame, loaded->head_lines);
    frame_touch(frame);
    block_cache_count_hit(segment->cache);
    uint32_t row = block_find(&frame->block, key, snapshot_lsn, NULL);
    if (row == frame->block.row_count) {
        return segment_get_missed(loaded, hit);
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

enum segment_result
segment_get_in_frame(struct segment *segment, struct frame_ref *frame, struct bytes key, uint64_t filter_hash,
                     uint64_t snapshot_lsn, struct segment_hit *hit)
{
    struct segment_loaded *loaded = NULL;
    if (hit->place.stage != SEGMENT_STAGE_DATA) {
        esker_status status = segment_load(segment, &loaded);
        if (status != ESKER_OK) {
            return segment_get_failed(hit, status);
        }
    }
    enum segment_result result = segment_get_step(loaded, frame, key, filter_hash, snapshot_lsn, hit);
    segment_loaded_unref(loaded);
    if (result == SEGMENT_ABSENT && loaded == NULL) {
        segment_miss_filter_of(segment);
    }
    return result;
}

esker_status
segment_warm(struct segment *segment)
{
    struct segment_loaded *loaded;
    TRY(segment_load(segment, &loaded));
    segment_loaded_unref(loaded);
    return ESKER_OK;
}

bool
segment_is_loaded(const struct segment *segment)
{
    return load_relaxed(&segment->loaded) != NULL; /* relaxed: nothing behind it is looked at */
}

/* From where the fast path ended, or from the start. */
static enum segment_result
segment_get_from(struct segment *segment, struct segment_loaded *loaded, struct bytes key,
                 uint64_t filter_hash, uint64_t snapshot_lsn, bool fill_cache, struct segment_hit *hit)
{
    enum segment_result result = SEGMENT_NEEDS_IO;
    if (hit->place.stage == SEGMENT_STAGE_NONE) {
        result = segment_get_step(loaded, NULL, key, filter_hash, snapshot_lsn, hit);
    }
    while (result == SEGMENT_NEEDS_IO) {
        struct frame_ref *frame;
        esker_status status = segment_pin_place(segment, loaded, &hit->place, fill_cache, &frame);
        if (status != ESKER_OK) {
            return segment_get_failed(hit, status);
        }
        result = segment_get_step(loaded, frame, key, filter_hash, snapshot_lsn, hit);
        if (result != SEGMENT_FOUND) {
            frame_unpin(frame);
        }
    }
    if (result == SEGMENT_ABSENT) {
        segment_miss_filter(segment, loaded);
    }
    return result;
}

enum segment_result
segment_get_slow(struct segment *segment, struct bytes key, uint64_t filter_hash, uint64_t snapshot_lsn,
                 bool fill_cache, struct segment_hit *hit)
{
    if (hit->place.stage == SEGMENT_STAGE_NONE && !segment_get_in_bounds(segment, key)) {
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
