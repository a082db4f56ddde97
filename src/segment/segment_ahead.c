/* SPDX-License-Identifier: MIT */
/*
 * Read-ahead: consecutive data blocks with few requests. Reads grow while the
 * reader moves on in one direction: 128 KiB, then double, up to a limit. A
 * block larger than that is read alone, and its memory is given back with the
 * next one. Owned by one reader; no sharing.
 *
 * While the blocks of a buffer are used up the disk works on what comes next: from
 * the middle of each buffer on, reads of the bytes behind it are begun (io_start_read):
 * at first what the next buffer will take, with each buffer twice as much, until
 * 1 MiB beyond it is under way. The second buffer is the machine's page cache (ADR 0024),
 * so a read that was begun and is not wanted, or fails, is nobody's concern.
 */
#include "segment/segment_internal.h"

enum { SEGMENT_AHEAD_FIRST_BYTES = 128 << 10 };

void
segment_ahead_init(struct segment_ahead *ahead, const struct segment *segment, struct segment_loaded *loaded,
                   uint64_t limit_bytes, enum memory_role role)
{
    *ahead =
        (struct segment_ahead){.segment = segment,
                               .loaded = loaded,
                               .limit_bytes = block_cache_buffer_bytes(segment->cache, role, limit_bytes),
                               .reach_to = loaded->footer.data_end,
                               .role = role,
                               .index = segment_index_make(segment, loaded, role == MEMORY_ITERATORS)};
}

static void
segment_ahead_drop(const struct segment_ahead *ahead, uint8_t **ptr, uint64_t *cap)
{
    if (*ptr != NULL) {
        mem_free(ahead->segment->mem, *ptr);
        block_cache_discharge(ahead->segment->cache, ahead->role, *cap);
    }
    *ptr = NULL;
    *cap = 0;
}

void
segment_ahead_set_bounds(struct segment_ahead *ahead, struct iter_bounds bounds)
{
    ahead->bounds = bounds;
}

void
segment_ahead_leave(struct segment_ahead *ahead)
{
    segment_ahead_drop(ahead, &ahead->stored, &ahead->stored_cap);
    segment_ahead_drop(ahead, &ahead->raw, &ahead->raw_cap);
    ahead->from = 0;
    ahead->to = 0;
    ahead->last_bytes = 0;
    ahead->begun_bytes = 0;
}

void
segment_ahead_fini(struct segment_ahead *ahead)
{
    if (ahead->segment == NULL) {
        return;
    }
    segment_index_drop(&ahead->index);
    segment_ahead_drop(ahead, &ahead->stored, &ahead->stored_cap);
    segment_ahead_drop(ahead, &ahead->raw, &ahead->raw_cap);
    *ahead = (struct segment_ahead){0};
}

/* Room for `needed` bytes whose present content may be lost; gives back what
 * an oversize block took. */
static esker_status
segment_ahead_room(const struct segment_ahead *ahead, uint8_t **ptr, uint64_t *cap, uint64_t needed)
{
    bool wasteful = *cap > 2 * (uint64_t)SEGMENT_AHEAD_BYTES && needed <= SEGMENT_AHEAD_BYTES;
    if (needed <= *cap && !wasteful) {
        return ESKER_OK;
    }
    segment_ahead_drop(ahead, ptr, cap);
    uint64_t rounded = align_up(needed, 4096);
    *ptr = mem_alloc_aligned(ahead->segment->mem, CACHE_LINE_BYTES, rounded);
    if (*ptr == NULL) {
        return FAIL_NO_MEMORY("reading ahead");
    }
    *cap = rounded;
    block_cache_charge(ahead->segment->cache, ahead->role, rounded);
    block_cache_settle(ahead->segment->cache); /* what went for it is free before it is used */
    return ESKER_OK;
}

/* Finds the blocks that the bounds lie in, once, and only for who reads ahead: the index may be paged. */
static void
segment_ahead_find_reach(struct segment_ahead *ahead)
{
    struct iter_bounds bounds = ahead->bounds;
    ahead->bounds = (struct iter_bounds){0};
    /* Not through the cache: a block's load mutex may be held. */
    struct segment_index index = segment_index_make(ahead->segment, ahead->loaded, false);
    struct segment_at at;
    struct segment_place place;
    esker_status status = ESKER_OK;
    if (bounds.lower.len > 0) {
        status = segment_index_seek(&index, bounds.lower, &at);
        if (status == ESKER_OK && (status = segment_index_place(&index, at, &place)) == ESKER_OK) {
            ahead->reach_from = place.handle.offset;
        }
    }
    if (bounds.upper.len > 0) {
        status = segment_index_seek(&index, bounds.upper, &at);
        if (status == ESKER_OK && (status = segment_index_place(&index, at, &place)) == ESKER_OK) {
            ahead->reach_to = place.handle.offset + place.handle.stored_len;
        }
    }
    IGNORE_STATUS(status, "then it reads ahead without a bound, and whoever gets to the damage is told");
    segment_index_drop(&index);
}

/* Chooses [from, to): whole blocks around the one at `at`, in the direction of travel. A part of
 * the index that cannot be read ends it; who gets there is told. */
static esker_status
segment_ahead_plan(struct segment_ahead *ahead, struct segment_at at, bool backwards, uint64_t want,
                   uint64_t *from_out, uint64_t *to_out)
{
    struct segment_place place;
    const struct block_handle *handle = &place.handle;
    /* Not through the cache: a block's load mutex may be held. */
    struct segment_index index = segment_index_make(ahead->segment, ahead->loaded, false);
    TRY(segment_index_place(&ahead->index, at, &place));
    uint64_t from = handle->offset;
    uint64_t to = handle->offset + handle->stored_len;
    while ((backwards ? segment_at_prev(ahead->loaded, &at) : segment_at_next(ahead->loaded, &at)) &&
           to - from < want) {
        esker_status status =
            segment_index_place(at.part == ahead->index.part ? &ahead->index : &index, at, &place);
        /* Parts that were not compared with one another may contradict each other. */
        bool follows = status == ESKER_OK &&
                       (backwards ? handle->offset + handle->stored_len == from : handle->offset == to);
        IGNORE_STATUS(status, "it is read, and told, when its turn comes");
        bool outside = backwards ? handle->offset < ahead->reach_from
                                 : handle->offset + handle->stored_len > ahead->reach_to;
        if (!follows || outside || to - from + handle->stored_len > want) {
            break;
        }
        if (backwards) {
            from = handle->offset;
        } else {
            to = handle->offset + handle->stored_len;
        }
    }
    segment_index_drop(&index);
    *from_out = from;
    *to_out = to;
    return ESKER_OK;
}

static esker_status
segment_ahead_read(struct segment_ahead *ahead, struct segment_at at, bool backwards)
{
    struct segment_place place;
    TRY(segment_index_place(&ahead->index, at, &place));
    struct block_handle handle = place.handle;
    bool goes_on = backwards ? handle.offset + handle.stored_len == ahead->from : handle.offset == ahead->to;
    uint64_t want = MIN((uint64_t)SEGMENT_AHEAD_FIRST_BYTES, ahead->limit_bytes);
    if (goes_on && ahead->last_bytes != 0) {
        want = MIN(2 * ahead->last_bytes, ahead->limit_bytes);
    } else {
        ahead->begun_bytes = 0;
    }
    if (ahead->bounds.lower.len + ahead->bounds.upper.len > 0) {
        segment_ahead_find_reach(ahead);
    }
    uint64_t from;
    uint64_t to;
    TRY(segment_ahead_plan(ahead, at, backwards, want, &from, &to));
    ahead->from = 0;
    ahead->to = 0;
    ahead->last_bytes = 0;
    TRY(segment_ahead_room(ahead, &ahead->stored, &ahead->stored_cap,
                           MAX(to - from, MIN(want, ahead->loaded->footer.data_end))));
    TRY(segment_read(ahead->segment, ahead->loaded->file, from, ahead->stored, to - from));
    ahead->from = from;
    ahead->to = to;
    ahead->last_bytes = want;
    ahead->begun_here = false;
    return ESKER_OK;
}

/* In the second half of the buffer: has reads begun of what the walk needs after it. */
static void
segment_ahead_begin(struct segment_ahead *ahead, const struct block_handle *handle, bool backwards)
{
    uint64_t middle = ahead->from + (ahead->to - ahead->from) / 2;
    if (ahead->begun_here || (backwards ? handle->offset > middle : handle->offset < middle)) {
        return;
    }
    ahead->begun_here = true;
    if (ahead->begun_bytes == 0) {
        ahead->begun_from = backwards ? ahead->from : ahead->to;
        ahead->begun_to = ahead->begun_from;
    }
    ahead->begun_bytes =
        MIN(MAX(2 * ahead->begun_bytes, 2 * ahead->last_bytes), (uint64_t)SEGMENT_AHEAD_BEGUN_BYTES);
    uint64_t from;
    uint64_t to;
    if (backwards) {
        from = ahead->from - MIN(ahead->from, ahead->begun_bytes);
        from = MAX(from, ahead->reach_from);
        to = MIN(ahead->begun_from, ahead->from);
        ahead->begun_from = MIN(from, to);
    } else {
        from = MAX(ahead->begun_to, ahead->to);
        to = MIN(ahead->to + ahead->begun_bytes, ahead->reach_to);
        ahead->begun_to = MAX(from, to);
    }
    if (from < to) {
        io_start_read(ahead->segment->io, ahead->loaded->file, from, to - from);
    }
}

esker_status
segment_ahead_stored(struct segment_ahead *ahead, struct segment_at at, bool backwards,
                     struct block_stored *out)
{
    struct segment_place place;
    TRY(segment_index_place(&ahead->index, at, &place));
    struct block_handle handle = place.handle;
    if (handle.offset < ahead->from || handle.offset + handle.stored_len > ahead->to) {
        TRY(segment_ahead_read(ahead, at, backwards));
    }
    if (ahead->last_bytes != 0) {
        segment_ahead_begin(ahead, &handle, backwards);
    }
    struct bytes stored = bytes_make(ahead->stored + (handle.offset - ahead->from), handle.stored_len);
    esker_status status = segment_stored_open(ahead->segment, stored, &handle, BLOCK_DATA, out);
    if (status != ESKER_OK) {
        ahead->to = ahead->from; /* a second try reads the disk again */
    }
    return status;
}

esker_status
segment_ahead_block(struct segment_ahead *ahead, struct segment_at at, bool backwards, struct block *out)
{
    const struct segment *segment = ahead->segment;
    struct segment_place place;
    struct block_stored stored;
    TRY(segment_index_place(&ahead->index, at, &place));
    struct block_handle handle = place.handle;
    TRY(segment_ahead_stored(ahead, at, backwards, &stored));
    struct bytes raw = stored.payload;
    if (stored.codec != BLOCK_CODEC_NONE) {
        TRY(segment_ahead_room(ahead, &ahead->raw, &ahead->raw_cap, stored.raw_len));
        esker_status status = block_stored_unpack(&stored, segment->mem, ahead->raw);
        if (status != ESKER_OK) {
            return segment_damaged(segment, status, handle.offset, "a block does not decompress");
        }
        raw = bytes_make(ahead->raw, stored.raw_len);
    }
    return segment_raw_open(segment, raw, &handle, BLOCK_DATA, out);
}
