/* SPDX-License-Identifier: MIT */
/*
 * The handle: its life, its references, and the door to what it loads.
 *
 * Invariants
 *  I1 `loaded` goes from NULL to a value once and stays until the last
 *     reference is dropped; a load that fails leaves it NULL.
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
segment_unref(struct segment *segment)
{
    /* pairs: SEGMENT_REFS — every use of the segment, and the mark, come before its end. */
    uint32_t before = sub_acq_rel(&segment->refs, 1);
    ASSERT(before != 0);
    if (before != 1) {
        return;
    }
    /* relaxed: this is the only thread left that knows the segment. */
    struct segment_loaded *loaded = load_relaxed(&segment->loaded);
    bool obsolete = load_relaxed(&segment->obsolete);
    segment_loaded_destroy(segment, loaded);
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

const struct segment_meta *
segment_meta(const struct segment *segment)
{
    return &segment->meta;
}

esker_status
segment_load(struct segment *segment, struct segment_loaded **out)
{
    /* pairs: SEGMENT_LOADED */
    struct segment_loaded *loaded = load_acquire(&segment->loaded);
    if (LIKELY(loaded != NULL)) {
        *out = loaded;
        return ESKER_OK;
    }
    mutex_lock(&segment->load_mutex);
    esker_status status = ESKER_OK;
    /* relaxed: it is set under the mutex, which is held. */
    loaded = load_relaxed(&segment->loaded);
    if (loaded == NULL) {
        status = segment_loaded_create(segment, &loaded);
        if (status == ESKER_OK) {
            struct segment_loaded *nothing = NULL;
            /* pairs: SEGMENT_LOADED — index, filter and table are published with the pointer. */
            bool first = cas_seq(&segment->loaded, &nothing, loaded);
            ASSERT(first);
        }
    }
    mutex_unlock(&segment->load_mutex);
    if (status == ESKER_OK) {
        *out = loaded;
    }
    return status;
}
