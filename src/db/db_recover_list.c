/* SPDX-License-Identifier: MIT */
/*
 * The segments that a manifest describes, while its edits are replayed: a list,
 * and an index over it by id, since an edit names what it drops by id and ten
 * thousand segments come with as many drops.
 *
 * The index is a table with linear probing. An id keeps its slot for good; place 0
 * says that it is not in the list now. Its size is bounded by the manifest's.
 */
#include <stdlib.h>

#include "base/hash.h"
#include "db/db_recover.h"

enum { RECOVER_INDEX_MIN = 128 };

/* The id's slot, or the empty one where it would be. The index has room. */
static struct recover_place *
recover_index_at(const struct recover_state *state, uint64_t id)
{
    size_t at = hash_mix(id, 0) & (state->index_cap - 1);
    while (state->index[at].is_used && state->index[at].id != id) {
        at = (at + 1) & (state->index_cap - 1);
    }
    return &state->index[at];
}

static void
recover_index_set(struct recover_state *state, uint64_t id, size_t place)
{
    struct recover_place *slot = recover_index_at(state, id);
    state->index_used += slot->is_used ? 0 : 1;
    *slot = (struct recover_place){.id = id, .place = place, .is_used = true};
}

/* Room for one more id; at most half of the slots are used. */
static esker_status
recover_index_reserve(struct recover_state *state)
{
    if (state->index_used + 1 <= state->index_cap / 2) {
        return ESKER_OK;
    }
    struct recover_place *old = state->index;
    size_t old_cap = state->index_cap;
    size_t cap = MAX(old_cap * 2, (size_t)RECOVER_INDEX_MIN);
    struct recover_place *index = mem_zalloc_array(&state->db->mem, cap, sizeof *index);
    if (index == NULL) {
        return FAIL_NO_MEMORY("the list of segments");
    }
    state->index = index;
    state->index_cap = cap;
    state->index_used = 0;
    for (size_t i = 0; i < old_cap; i++) {
        if (old[i].is_used && old[i].place != 0) {
            recover_index_set(state, old[i].id, old[i].place);
        }
    }
    mem_free(&state->db->mem, old);
    return ESKER_OK;
}

struct recover_segment *
recover_find_segment(const struct recover_state *state, uint64_t id)
{
    const struct recover_place *slot = state->index_cap > 0 ? recover_index_at(state, id) : NULL;
    return slot != NULL && slot->place != 0 ? state->segments[slot->place - 1] : NULL;
}

esker_status
recover_add_segment(struct recover_state *state, const struct segment_meta *meta)
{
    const struct mem *mem = &state->db->mem;
    if (state->segment_count == state->segment_cap) {
        size_t cap = MAX(state->segment_cap * 2, (size_t)64);
        struct recover_segment **grown = mem_alloc_array(mem, cap, sizeof *grown);
        if (grown == NULL) {
            return FAIL_NO_MEMORY("the list of segments");
        }
        if (state->segment_count > 0) {
            memcpy(grown, state->segments, state->segment_count * sizeof *grown);
        }
        mem_free(mem, state->segments);
        state->segments = grown;
        state->segment_cap = cap;
    }
    TRY(recover_index_reserve(state));
    struct recover_segment *segment = mem_alloc(mem, sizeof *segment);
    if (segment == NULL) {
        return FAIL_NO_MEMORY("the list of segments");
    }
    segment->meta = *meta;
    segment->added = state->added++;
    segment->is_there = false;
    if (meta->min_key.len > 0) {
        memcpy(segment->keys, meta->min_key.ptr, meta->min_key.len);
    }
    if (meta->max_key.len > 0) {
        memcpy(segment->keys + EDIT_KEY_BYTES_MAX, meta->max_key.ptr, meta->max_key.len);
    }
    segment->meta.min_key = bytes_make(segment->keys, meta->min_key.len);
    segment->meta.max_key = bytes_make(segment->keys + EDIT_KEY_BYTES_MAX, meta->max_key.len);
    state->segments[state->segment_count++] = segment;
    recover_index_set(state, meta->id, state->segment_count);
    return ESKER_OK;
}

void
recover_drop_segment(struct recover_state *state, uint64_t id)
{
    struct recover_place *slot = state->index_cap > 0 ? recover_index_at(state, id) : NULL;
    if (slot == NULL || slot->place == 0) {
        return;
    }
    size_t at = slot->place - 1;
    slot->place = 0;
    mem_free(&state->db->mem, state->segments[at]);
    state->segments[at] = state->segments[--state->segment_count];
    if (at < state->segment_count) {
        recover_index_set(state, state->segments[at]->meta.id, at + 1);
    }
}

static int
recover_order(const void *a, const void *b)
{
    uint64_t left = (*(struct recover_segment *const *)a)->added;
    uint64_t right = (*(struct recover_segment *const *)b)->added;
    return (left > right) - (left < right);
}

void
recover_order_segments(struct recover_state *state)
{
    if (state->segment_count > 1) {
        qsort(state->segments, state->segment_count, sizeof *state->segments, recover_order);
    }
    for (size_t i = 0; i < state->segment_count; i++) {
        recover_index_set(state, state->segments[i]->meta.id, i + 1);
    }
}

void
recover_state_fini(struct recover_state *state)
{
    for (size_t i = 0; i < state->segment_count; i++) {
        mem_free(&state->db->mem, state->segments[i]);
    }
    mem_free(&state->db->mem, state->segments);
    mem_free(&state->db->mem, state->index);
    state->segments = NULL;
    state->index = NULL;
    state->index_cap = 0;
    state->index_used = 0;
    state->segment_count = 0;
}
