/* SPDX-License-Identifier: MIT */
/*
 * Every row of a segment, in both directions. One block is open at a time:
 * through the cache as a pinned frame, else in a read-ahead buffer of its own.
 * Through the cache, too, a longer walk reads ahead what is missing; the frames
 * are made from the buffer when the walk gets there.
 *
 * A seek that finds index and block in memory is one section and one pin. What is
 * loaded of the segment is held only by who goes on to another block; its index
 * says the same whenever it is loaded, so a place in it stays what it is.
 *
 * Keys are put together in key_buf: the block's common prefix is copied once
 * per block, so a step writes eight prefix bytes and the tail. Where key_near is too
 * short it is made when a block is entered, with room for any key of that block.
 *
 * Owned by one thread at a time; not safe for sharing.
 */
#include "iter/iter_run.h"
#include "segment/segment_internal.h"

enum {
    SEGMENT_KEY_ROOM = KEY_BYTES_MAX + 8 + ITER_RUN_TAIL_BYTES, /* prefix word and tail are stored whole */
    SEGMENT_KEY_NEAR = 128
};

struct segment_iter {
    struct iter base;
    struct segment *segment;
    const struct mem *mem;
    struct segment_loaded *loaded; /* NULL until it is needed; then referenced */
    uint64_t charged_bytes;        /* for the iterator itself */
    bool through_cache;
    bool open; /* block is the one at `at` */
    /* Of the open block: the key of its first row does not stand in the block before, that of its last one
     * not in the block behind. */
    bool starts_key, ends_key;
    struct segment_at at;
    uint32_t row;
    uint32_t borders; /* blocks entered by stepping since the last seek */
    struct block block;
    struct frame_ref *frame; /* through_cache: pinned while open */
    struct iter_bounds bounds;
    struct segment_ahead ahead; /* its buffers are made at first need */
    uint8_t *key_buf;           /* key_near, or a longer one */
    size_t key_cap;
    uint8_t key_near[SEGMENT_KEY_NEAR];
};

static struct segment_iter *
segment_iter_of(struct iter *it)
{
    return CONTAINER_OF(it, struct segment_iter, base);
}

/* ---- Blocks ------------------------------------------------------------- */

static void
segment_iter_close_block(struct segment_iter *it)
{
    it->open = false;
    if (it->frame != NULL) {
        frame_unpin(it->frame);
        it->frame = NULL;
    }
}

static inline void
segment_iter_prefetch(uintptr_t at, uint32_t lines)
{
    for (uint32_t line = 0; line < lines; line++) {
        PREFETCH_READ((const void *)(at + line * CACHE_LINE_BYTES));
    }
}

/* Starts the misses of the block that a walk backwards will come to next, if it is cached: the ends of
 * its columns, which are where those of the open block are, or nearly. (Where a walk upwards goes
 * processors see by themselves: there it costs a fifth of the rows per second.) */
static void
segment_iter_prefetch_before(const struct segment_iter *it)
{
    enum { COLUMN_LINES = 2, VALUE_LINES = 6 };

    struct segment_at at = it->at;
    if (it->loaded->parts == NULL || !segment_at_prev(it->loaded, &at)) {
        return; /* where the index is paged there is the disk to wait for */
    }
    uintptr_t frame = frame_table_address(&it->loaded->frames, segment_at_block_no(it->loaded, at));
    if (frame == 0) {
        return;
    }
    const struct block *block = &it->block;
    struct block_handle handle = segment_at_handle(it->loaded, at);
    uintptr_t data = frame + align_up(sizeof(struct frame_ref), CACHE_LINE_BYTES);
    uint32_t end = handle.row_count;
    uintptr_t pfx_end = data + (uintptr_t)(block->pfx - block->raw) + 8 * (size_t)end;
    uintptr_t tails_end = data + (uintptr_t)(block->tails - block->raw) + (size_t)block->tail_len * end;
    segment_iter_prefetch(frame, 3);
    segment_iter_prefetch(data, 1);
    segment_iter_prefetch(pfx_end - COLUMN_LINES * CACHE_LINE_BYTES, COLUMN_LINES);
    segment_iter_prefetch(tails_end - COLUMN_LINES * CACHE_LINE_BYTES, COLUMN_LINES);
    segment_iter_prefetch(data + handle.raw_len - VALUE_LINES * CACHE_LINE_BYTES, VALUE_LINES);
}

static esker_status
segment_iter_open_block(struct segment_iter *it, struct segment_at at, bool backwards)
{
    if (it->open && it->at.part == at.part && it->at.row == at.row) {
        return ESKER_OK;
    }
    segment_iter_close_block(it);
    if (it->through_cache && it->borders < 2) {
        struct segment_place place;
        TRY(segment_index_place(&it->ahead.index, at, &place));
        TRY(segment_pin_place(it->segment, it->loaded, &place, true, &it->frame));
        it->block = it->frame->block;
    } else if (it->through_cache) {
        /* Whoever crossed two borders will cross more. */
        TRY(segment_pin_block_ahead(&it->ahead, at, backwards, &it->frame));
        it->block = it->frame->block;
    } else {
        TRY(segment_ahead_block(&it->ahead, at, backwards, &it->block));
        bool used = frame_table_is_used(&it->loaded->frames, segment_at_block_no(it->loaded, at));
        it->base.heat = used ? ITER_USED : ITER_COLD;
    }
    struct segment_at before = at;
    TRY(segment_index_hold(&it->ahead.index, at.part));
    it->starts_key =
        !segment_at_prev(it->loaded, &before) || !segment_index_key_goes_on(&it->ahead.index, before);
    it->ends_key = !segment_index_key_goes_on(&it->ahead.index, at);
    it->at = at;
    it->open = true;
    if (it->through_cache && backwards && it->borders > 0) {
        segment_iter_prefetch_before(it);
    }
    return ESKER_OK;
}

/* Before each new positioning. */
static void
segment_iter_leave(struct segment_iter *it)
{
    it->borders = 0;
    if (it->loaded != NULL && it->through_cache) {
        segment_ahead_leave(&it->ahead);
    }
}

/* Before anything but what stands in the open block. */
static esker_status
segment_iter_hold(struct segment_iter *it)
{
    if (LIKELY(it->loaded != NULL)) {
        return ESKER_OK;
    }
    TRY(segment_load(it->segment, &it->loaded));
    segment_ahead_init(&it->ahead, it->segment, it->loaded,
                       it->through_cache ? SEGMENT_AHEAD_CACHED_BYTES : SEGMENT_AHEAD_BYTES,
                       it->through_cache ? MEMORY_ITERATORS : MEMORY_MERGES);
    segment_ahead_set_bounds(&it->ahead, it->bounds);
    return ESKER_OK;
}

static esker_status
segment_iter_start(struct segment_iter *it)
{
    segment_iter_leave(it);
    return segment_iter_hold(it);
}

/* ---- In memory ---------------------------------------------------------- */

enum segment_near { SEGMENT_NEAR, SEGMENT_NEAR_END, SEGMENT_NEAR_NOT };

/* In a section, with what is loaded: opens the block that a seek leads to, if it is cached. */
static enum segment_near
segment_iter_open_near(struct segment_iter *it, const struct segment_loaded *loaded, struct bytes key)
{
    struct segment_at at;
    if (!segment_at_seek(loaded, key, &at)) {
        return SEGMENT_NEAR_END;
    }
    struct frame_ref *frame = frame_table_get(&loaded->frames, segment_at_block_no(loaded, at));
    if (frame == NULL) {
        return SEGMENT_NEAR_NOT;
    }
    frame_prefetch(frame, 1);
    struct segment_at before = at;
    it->starts_key =
        !segment_at_prev(loaded, &before) || block_lsn(&loaded->parts[before.part].block, before.row) == 0;
    it->ends_key = block_lsn(&loaded->parts[at.part].block, at.row) == 0;
    frame_pin(frame);
    frame_touch(frame);
    it->frame = frame;
    it->block = frame->block;
    it->at = at;
    it->open = true;
    return SEGMENT_NEAR;
}

/* The block that may hold the first key >= key, without waiting for anything. NOT: it is not in memory. */
static enum segment_near
segment_iter_seek_near(struct segment_iter *it, struct bytes key)
{
    struct thread_state *self = it->through_cache ? thread_state_get() : NULL;
    if (self == NULL) {
        return SEGMENT_NEAR_NOT;
    }
    segment_iter_leave(it);
    segment_iter_close_block(it);
    enum segment_near near = SEGMENT_NEAR_NOT;
    epoch_enter(self);
    struct segment_loaded *loaded = it->loaded;
    if (loaded == NULL) {
        loaded = load_acquire(&it->segment->loaded); /* pairs: SEGMENT_LOADED */
    }
    if (LIKELY(loaded != NULL && loaded->parts != NULL)) {
        cache_holder_touch(&loaded->holder);
        near = segment_iter_open_near(it, loaded, key);
    }
    epoch_exit(self);
    if (near == SEGMENT_NEAR) {
        block_cache_count_hit(it->segment->cache);
    }
    return near;
}

/* ---- Rows --------------------------------------------------------------- */

/* Its neighbours have other keys. */
static inline bool
segment_iter_row_is_only(const struct segment_iter *it, uint32_t row)
{
    const struct block *block = &it->block;
    return (row > 0 ? !iter_run_is_same_key(block, row - 1) : it->starts_key) &&
           (row + 1 < block->row_count ? !iter_run_is_same_key(block, row) : it->ends_key);
}

/* Presents a row of the block whose common prefix key_buf holds. */
static inline void
segment_iter_show(struct segment_iter *it, uint32_t row)
{
    const struct block *block = &it->block;
    iter_run_show(block, row, it->key_buf, &it->base);
    it->row = row;
    it->base.lsn = block_lsn(block, row);
    it->base.op = (uint8_t)block_op(block, row);
    it->base.only = segment_iter_row_is_only(it, row);
}

static void
segment_iter_drop_key(struct segment_iter *it)
{
    if (it->key_buf != it->key_near) {
        block_cache_discharge(it->segment->cache, MEMORY_ITERATORS, it->key_cap);
        mem_free(it->segment->mem, it->key_buf);
    }
    it->key_buf = it->key_near;
    it->key_cap = sizeof it->key_near;
}

/* Room for every key of the block. Tails of different lengths are taken for one: an index
 * of their lengths would have to be looked through. */
static esker_status
segment_iter_key_room(struct segment_iter *it)
{
    const struct block *block = &it->block;
    size_t tail = block->koff == NULL ? block->tail_len : (size_t)(block->values - block->tails);
    size_t needed = block->common_len + sizeof(uint64_t) + tail + ITER_RUN_TAIL_BYTES;
    needed = MIN(needed, (size_t)SEGMENT_KEY_ROOM);
    if (LIKELY(needed <= it->key_cap)) {
        return ESKER_OK;
    }
    segment_iter_drop_key(it);
    size_t cap = MIN(needed + needed / 2, (size_t)SEGMENT_KEY_ROOM);
    uint8_t *room = mem_alloc(it->segment->mem, cap);
    if (room == NULL) {
        return FAIL_NO_MEMORY("an iterator's key");
    }
    it->key_buf = room;
    it->key_cap = cap;
    block_cache_charge(it->segment->cache, MEMORY_ITERATORS, cap);
    return ESKER_OK;
}

/* Presents a row of a block that was entered just now. Not before here is
 * key_buf written: the key that a caller seeks may stand in it. */
static esker_status
segment_iter_enter(struct segment_iter *it, uint32_t row)
{
    TRY(segment_iter_key_room(it));
    if (it->block.common_len > 0) {
        memcpy(it->key_buf, block_common(&it->block), it->block.common_len);
    }
    segment_iter_show(it, row);
    return ESKER_OK;
}

static esker_status
segment_iter_end(struct segment_iter *it)
{
    segment_iter_close_block(it);
    return ESKER_END;
}

/* To the first row of the block after `at`, or the end. */
static esker_status
segment_iter_enter_next(struct segment_iter *it, struct segment_at at)
{
    TRY(segment_iter_hold(it));
    if (!segment_at_next(it->loaded, &at)) {
        return segment_iter_end(it);
    }
    it->borders++;
    TRY(segment_iter_open_block(it, at, false));
    return segment_iter_enter(it, 0);
}

/* To the last row of the block before `at`, or the end. */
static esker_status
segment_iter_enter_prev(struct segment_iter *it, struct segment_at at)
{
    TRY(segment_iter_hold(it));
    if (!segment_at_prev(it->loaded, &at)) {
        return segment_iter_end(it);
    }
    it->borders++;
    TRY(segment_iter_open_block(it, at, true));
    return segment_iter_enter(it, it->block.row_count - 1);
}

static esker_status
segment_iter_last(struct iter *base)
{
    struct segment_iter *it = segment_iter_of(base);
    TRY(segment_iter_start(it));
    TRY(segment_iter_open_block(it, segment_at_last(it->loaded), true));
    return segment_iter_enter(it, it->block.row_count - 1);
}

static esker_status
segment_iter_first(struct iter *base)
{
    struct segment_iter *it = segment_iter_of(base);
    TRY(segment_iter_start(it));
    TRY(segment_iter_open_block(it, segment_at_first(), false));
    return segment_iter_enter(it, 0);
}

static esker_status
segment_iter_seek(struct iter *base, struct bytes key)
{
    struct segment_iter *it = segment_iter_of(base);
    enum segment_near near = segment_iter_seek_near(it, key);
    if (near == SEGMENT_NEAR_END) {
        return ESKER_END;
    }
    if (UNLIKELY(near == SEGMENT_NEAR_NOT)) {
        struct segment_at at;
        TRY(segment_iter_start(it));
        esker_status status = segment_index_seek(&it->ahead.index, key, &at);
        if (status != ESKER_OK) {
            return status == ESKER_END ? segment_iter_end(it) : status;
        }
        TRY(segment_iter_open_block(it, at, false));
    }
    uint32_t row = block_seek(&it->block, key);
    return row < it->block.row_count ? segment_iter_enter(it, row) : segment_iter_enter_next(it, it->at);
}

static esker_status
segment_iter_seek_before(struct iter *base, struct bytes key)
{
    struct segment_iter *it = segment_iter_of(base);
    TRY(segment_iter_start(it));
    struct segment_at at;
    esker_status status = segment_index_seek(&it->ahead.index, key, &at);
    if (status != ESKER_OK) {
        return status == ESKER_END ? segment_iter_last(base) : status;
    }
    TRY(segment_iter_open_block(it, at, true));
    uint32_t row = block_seek(&it->block, key);
    return row > 0 ? segment_iter_enter(it, row - 1) : segment_iter_enter_prev(it, at);
}

static esker_status
segment_iter_next(struct iter *base)
{
    struct segment_iter *it = segment_iter_of(base);
    ASSERT(it->open);
    if (LIKELY(it->row + 1 < it->block.row_count)) {
        segment_iter_show(it, it->row + 1);
        return ESKER_OK;
    }
    return segment_iter_enter_next(it, it->at);
}

static esker_status
segment_iter_prev(struct iter *base)
{
    struct segment_iter *it = segment_iter_of(base);
    ASSERT(it->open);
    if (LIKELY(it->row > 0)) {
        segment_iter_show(it, it->row - 1);
        return ESKER_OK;
    }
    return segment_iter_enter_prev(it, it->at);
}

/* ---- Runs --------------------------------------------------------------- */

static bool
segment_iter_run(struct iter *base, uint64_t snapshot_lsn, struct iter_run *out)
{
    struct segment_iter *it = segment_iter_of(base);
    ASSERT(it->open);
    if (it->segment->meta.max_lsn >= snapshot_lsn) {
        return false;
    }
    iter_run_init(out, &it->block, it->row, it->key_buf, it->starts_key);
    return true;
}

static void
segment_iter_run_end(struct iter *base, uint32_t row)
{
    struct segment_iter *it = segment_iter_of(base);
    ASSERT(it->open && row < it->block.row_count);
    segment_iter_show(it, row);
}

static void
segment_iter_destroy(struct iter *base)
{
    struct segment_iter *it = segment_iter_of(base);
    segment_iter_close_block(it);
    segment_ahead_fini(&it->ahead);
    segment_loaded_unref(it->loaded);
    segment_iter_drop_key(it);
    if (it->charged_bytes > 0) {
        block_cache_discharge(it->segment->cache, MEMORY_ITERATORS, it->charged_bytes);
    }
    mem_free(it->mem, it);
}

static const struct iter_ops segment_iter_ops = {
    .first = segment_iter_first,
    .last = segment_iter_last,
    .seek = segment_iter_seek,
    .seek_before = segment_iter_seek_before,
    .next = segment_iter_next,
    .prev = segment_iter_prev,
    .destroy = segment_iter_destroy,
    .run = segment_iter_run,
    .run_end = segment_iter_run_end,
};

esker_status
segment_iter_create_in(const struct mem *mem, struct segment *segment, bool through_cache, struct iter **out)
{
    struct segment_iter *it = mem_zalloc(mem, sizeof *it);
    if (it == NULL) {
        return FAIL_NO_MEMORY("an iterator");
    }
    it->base.ops = &segment_iter_ops;
    it->segment = segment;
    it->mem = mem;
    it->through_cache = through_cache;
    it->key_buf = it->key_near;
    it->key_cap = sizeof it->key_near;
    *out = &it->base;
    return ESKER_OK;
}

esker_status
segment_iter_create(struct segment *segment, bool through_cache, struct iter **out)
{
    TRY(segment_iter_create_in(segment->mem, segment, through_cache, out));
    struct segment_iter *it = segment_iter_of(*out);
    it->charged_bytes = sizeof *it;
    block_cache_charge(segment->cache, MEMORY_ITERATORS, it->charged_bytes);
    return ESKER_OK;
}

void
segment_iter_set_bounds(struct iter *it, struct iter_bounds bounds)
{
    segment_iter_of(it)->bounds = bounds;
}
