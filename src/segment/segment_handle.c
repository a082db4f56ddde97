/* SPDX-License-Identifier: MIT */
/*
 * The handle: its life, its references, and the door to what it loads.
 *
 * Invariants
 *  I1 `loaded` goes from NULL to a value under load_mutex, and back to NULL when
 *     the cache evicts it or the last reference is dropped; a load that fails
 *     leaves it NULL.
 *  I2 Nobody reads through the handle when the last reference goes: readers
 *     hold a version, and versions hold the references.
 */
#include <inttypes.h>
#include <stdio.h>

#include "segment/segment_internal.h"

void
segment_file_name(uint64_t id, char out[40])
{
    snprintf(out, SEGMENT_NAME_BYTES, "%016" PRIx64 ".seg", id);
}

static struct bytes
segment_keep_bound(uint8_t *at, struct bytes key)
{
    if (key.len > 0) {
        memcpy(at, key.ptr, key.len);
    }
    return bytes_make(at, key.len);
}

esker_status
segment_create(const struct segment_open_options *options, const struct segment_meta *meta,
               struct segment **out)
{
    ASSERT(options->cache != NULL);
    if (meta->min_key.len > EDIT_KEY_BYTES_MAX || meta->max_key.len > EDIT_KEY_BYTES_MAX) {
        return FAIL(ESKER_INVALID, "a segment's key bound is longer than %d bytes", EDIT_KEY_BYTES_MAX);
    }
    struct segment *segment = mem_zalloc(options->mem, sizeof *segment);
    if (segment == NULL) {
        return FAIL_NO_MEMORY("a segment's handle");
    }
    segment->io = options->io;
    segment->mem = options->mem;
    segment->cache = options->cache;
    memcpy(segment->uuid, options->uuid, sizeof segment->uuid);
    segment->gone = options->gone;
    segment->gone_ctx = options->gone_ctx;
    segment->meta = *meta;
    segment->meta.min_key = segment_keep_bound(segment->bounds, meta->min_key);
    segment->meta.max_key = segment_keep_bound(segment->bounds + EDIT_KEY_BYTES_MAX, meta->max_key);
    segment->min_prefix = bytes_prefix64(meta->min_key.ptr, meta->min_key.len);
    segment->max_prefix =
        meta->max_key.len == 0 ? UINT64_MAX : bytes_prefix64(meta->max_key.ptr, meta->max_key.len);
    segment_file_name(meta->id, segment->name);
    mutex_init(&segment->load_mutex);
    atomic_init(&segment->refs, 1);
    *out = segment;
    return ESKER_OK;
}

void
segment_ref(struct segment *segment)
{
    /* relaxed: the caller's own reference, or its section, keeps the count above 0 meanwhile. */
    uint32_t before = add_relaxed(&segment->refs, 1);
    ASSERT(before != 0 && before != UINT32_MAX);
}

void
segment_loaded_unref(struct segment_loaded *loaded)
{
    /* pairs: LOADED_REFS — every use comes before the free. */
    if (loaded != NULL && sub_acq_rel(&loaded->refs, 1) == 1) {
        segment_loaded_destroy(loaded);
    }
}

static void
segment_loaded_retired(struct epoch_node *node)
{
    struct segment_loaded *loaded = CONTAINER_OF(node, struct segment_loaded, node);
    cache_holder_retired(loaded->frames.cache, loaded->holder.bytes);
    segment_loaded_unref(loaded);
}

static bool
segment_loaded_in_use(struct cache_holder *holder)
{
    struct segment_loaded *loaded = CONTAINER_OF(holder, struct segment_loaded, holder);
    return load_relaxed(&loaded->refs) > 1; /* relaxed: a hint; one is the pointer's */
}

/* The clock took it: sections that began before may still use it. */
static bool
segment_evict_loaded(struct cache_holder *holder)
{
    struct segment_loaded *loaded = CONTAINER_OF(holder, struct segment_loaded, holder);
    /* pairs: SEGMENT_LOADED — seq_cst, so that a section that begins later cannot load it any more. */
    struct segment_loaded *held = exchange_seq(&loaded->segment->loaded, NULL);
    ASSERT(held == loaded || held == NULL);
    if (held != NULL) {
        epoch_retire(&loaded->node, segment_loaded_retired);
    }
    return held != NULL;
}

/* By the last who knows the segment. Whoever takes the pointer has its
 * reference: the clock, which then retires it, or we. */
static void
segment_drop_loaded(struct segment *segment)
{
    /* pairs: SEGMENT_LOADED */
    struct segment_loaded *loaded = exchange_seq(&segment->loaded, NULL);
    if (loaded != NULL) {
        cache_holder_remove(segment->cache, &loaded->holder);
        segment_loaded_unref(loaded);
    }
}

void
segment_unref(struct segment *segment)
{
    /* pairs: SEGMENT_REFS — every use of the segment, and the mark, come before its end. */
    uint32_t before = sub_acq_rel(&segment->refs, 1);
    ASSERT(before != 0);
    if (before != 1) {
        return;
    }
    segment_drop_loaded(segment);
    /* relaxed: this is the only thread left that knows the segment. */
    bool obsolete = load_relaxed(&segment->obsolete);
    if (segment->gone != NULL) {
        segment->gone(segment->gone_ctx, segment->meta.id, obsolete);
    }
    mutex_fini(&segment->load_mutex);
    mem_free(segment->mem, segment);
}

void
segment_mark_obsolete(struct segment *segment)
{
    /* relaxed: the caller's later segment_unref publishes it. */
    store_relaxed(&segment->obsolete, true);
}

bool
segment_note_skipped(struct segment *segment, uint64_t deletes)
{
    uint64_t before = add_relaxed(&segment->skipped, deletes); /* relaxed: a statistic */
    return before < segment->meta.row_count && segment->meta.row_count - before <= deletes;
}

int
segment_compression(const struct segment *segment)
{
    return load_relaxed(&segment->compression); /* relaxed: a hint */
}

void
segment_note_compression(struct segment *segment, int compression)
{
    store_relaxed(&segment->compression, compression); /* relaxed: a hint */
}

uint64_t
segment_skipped(const struct segment *segment)
{
    return load_relaxed(&segment->skipped); /* relaxed: a statistic */
}

const struct segment_meta *
segment_meta(const struct segment *segment)
{
    return &segment->meta;
}

/* What is loaded now, referenced, or NULL. */
static struct segment_loaded *
segment_grab_loaded(struct segment *segment, struct thread_state *self)
{
    epoch_enter(self);
    /* pairs: SEGMENT_LOADED */
    struct segment_loaded *loaded = load_acquire(&segment->loaded);
    if (loaded != NULL) {
        /* relaxed: the pointer's reference is dropped only after this section. */
        uint32_t before = add_relaxed(&loaded->refs, 1);
        ASSERT(before != 0 && before != UINT32_MAX);
        cache_holder_touch(&loaded->holder);
    }
    epoch_exit(self);
    return loaded;
}

static void
segment_keep_loaded(struct segment *segment, struct segment_loaded *loaded)
{
    struct segment_loaded *nothing = NULL;
    loaded->segment = segment;
    loaded->holder.bytes = loaded->charged_bytes;
    loaded->holder.can_page = !loaded->paged && segment->meta.level > 0;
    loaded->holder.in_use = segment_loaded_in_use;
    loaded->holder.evict = segment_evict_loaded;
    add_relaxed(&loaded->refs, 1); /* relaxed: nobody else knows it. The pointer's reference. */
    /* pairs: SEGMENT_LOADED — index, filter and table are published with the pointer. */
    bool first = cas_seq(&segment->loaded, &nothing, loaded);
    ASSERT(first);
    cache_holder_touch(&loaded->holder); /* the hand may be right behind it */
    cache_holder_add(segment->cache, &loaded->holder);
}

static void
segment_loaded_replaced(struct epoch_node *node)
{
    segment_loaded_unref(CONTAINER_OF(node, struct segment_loaded, node));
}

/* There is room again for what was paged. With the load mutex held; the frames of *loaded, which
 * is the caller's reference, go with the last who uses it. Without success all stays as it is. */
static void
segment_make_whole(struct segment *segment, struct segment_loaded **loaded)
{
    struct segment_loaded *paged = *loaded;
    struct segment_loaded *whole = NULL;
    esker_status status = segment_loaded_create(segment, &whole);
    if (status == ESKER_OK && !whole->paged) {
        struct segment_loaded *expected = paged;
        cache_holder_remove(segment->cache, &paged->holder); /* the clock does not take it any more */
        /* pairs: SEGMENT_LOADED — seq_cst, so that a section that begins later cannot load it any more. */
        if (cas_seq(&segment->loaded, &expected, NULL)) {
            epoch_retire(&paged->node, segment_loaded_replaced);
        }
        segment_keep_loaded(segment, whole); /* nobody else loads: the mutex is held */
        segment_loaded_unref(paged);
        *loaded = whole;
        return;
    }
    segment_loaded_unref(whole);
    IGNORE_STATUS(status, "paged it serves as before");
}

/* A reader needs the disk; what he has found is paged. */
static void
segment_try_whole(struct segment *segment, struct segment_loaded **loaded)
{
    uint64_t bytes = (*loaded)->whole_bytes;
    if (!(*loaded)->paged || bytes == UINT64_MAX ||
        !block_cache_index_fits(segment->cache, bytes + bytes / 8)) {
        return;
    }
    mutex_lock(&segment->load_mutex);
    /* relaxed: only compared */
    if (load_relaxed(&segment->loaded) == *loaded) {
        segment_make_whole(segment, loaded);
    }
    mutex_unlock(&segment->load_mutex);
}

static esker_status
segment_load_once(struct segment *segment, struct thread_state *self, struct segment_loaded **out)
{
    struct segment_loaded *loaded = NULL;
    mutex_lock(&segment->load_mutex);
    esker_status status = ESKER_OK;
    loaded = segment_grab_loaded(segment, self);
    if (loaded == NULL) {
        status = segment_loaded_create(segment, &loaded);
        if (status == ESKER_OK) {
            segment_keep_loaded(segment, loaded);
        }
    }
    mutex_unlock(&segment->load_mutex);
    if (status == ESKER_OK) {
        *out = loaded;
    }
    return status;
}

esker_status
segment_load(struct segment *segment, struct segment_loaded **out)
{
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    struct segment_loaded *loaded = segment_grab_loaded(segment, self);
    if (LIKELY(loaded != NULL)) {
        segment_try_whole(segment, &loaded);
        *out = loaded;
        return ESKER_OK;
    }
    block_cache_settle(segment->cache); /* files that wait to be closed count, too */
    esker_status status = segment_load_once(segment, self, out);
    if (status != ESKER_OK && status_lacks_files(status_last())) {
        block_cache_shed_holders(segment->cache); /* those that nobody reads just now are closed */
        status = segment_load_once(segment, self, out);
    }
    return status;
}

void
segment_miss_filter(struct segment *segment, struct segment_loaded *loaded)
{
    /* Who comes second has his answer, too: nobody waits for a filter. */
    if (!segment_lacks_filter(loaded) || !mutex_try_lock(&segment->load_mutex)) {
        return;
    }
    if (segment_lacks_filter(loaded)) {
        esker_status status = segment_loaded_add_filter(segment, loaded);
        IGNORE_STATUS(status, "blocks say what it would have said; the next who misses it tries again");
    }
    mutex_unlock(&segment->load_mutex);
}

void
segment_miss_filter_of(struct segment *segment)
{
    struct thread_state *self = thread_state_get();
    struct segment_loaded *loaded = self != NULL ? segment_grab_loaded(segment, self) : NULL;
    if (loaded != NULL) {
        segment_miss_filter(segment, loaded);
        segment_loaded_unref(loaded);
    }
}

esker_status
segment_load_ahead(struct segment *segment)
{
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    struct segment_loaded *loaded = segment_grab_loaded(segment, self);
    esker_status status = ESKER_OK;
    if (loaded == NULL) {
        uint64_t bytes = segment_tail_bytes(&segment->meta);
        bool fits = block_cache_index_fits(segment->cache, bytes + bytes / 4) &&
                    block_cache_holder_fits(segment->cache);
        status = fits ? segment_load_once(segment, self, &loaded) : ESKER_END;
    }
    segment_loaded_unref(loaded);
    return status;
}
