/* SPDX-License-Identifier: MIT */
/*
 * Segments that have expired whole. What a segment's rows say of their time stands in
 * the manifest (SEGMENT_EXPIRY), so that one can go unread.
 *
 * It may go when
 *  E1 each of its rows is a delete or a put whose time is up: no reader sees a value there;
 *  E2 nothing deeper, and in level 0 nothing older, overlaps it: there is nothing that
 *     its rows hide, which would come back;
 *  E3 all its rows are older than every live snapshot: none is evidence that a
 *     conditional batch may ask for (compaction_gc.c, R2).
 * A merge at work does not change that: what it takes from above stays above, or
 * takes this segment along and so has claimed it.
 */
#include "compaction/compaction.h"

uint64_t
compaction_expired_rows(const struct segment_meta *meta, uint64_t now_ms)
{
    if (meta->expiring_count == 0 || now_ms < meta->expiry_first_ms) {
        return 0;
    }
    if (now_ms >= meta->expiry_last_ms) {
        return meta->expiring_count;
    }
    /* Between the first and the last they are taken to be spread evenly. Where they are not, a rewrite drops
     * at least the first, and the share begins at 0 again. */
    double share =
        (double)(now_ms - meta->expiry_first_ms) / (double)(meta->expiry_last_ms - meta->expiry_first_ms);
    return (uint64_t)(share * (double)meta->expiring_count);
}

/* E1, E3. */
static bool
expiry_is_over(const struct segment_meta *meta, const struct picker_config *config)
{
    return meta->expiring_count > 0 && meta->expiring_count + meta->tombstone_count == meta->row_count &&
           meta->expiry_last_ms <= config->now_ms && meta->max_lsn < config->gc_lsn;
}

static bool
expiry_overlaps(const struct segment_meta *a, const struct segment_meta *b)
{
    bool a_below = a->max_key.len > 0 && bytes_compare(a->max_key, b->min_key) < 0;
    bool b_below = b->max_key.len > 0 && bytes_compare(b->max_key, a->min_key) < 0;
    return !a_below && !b_below;
}

/* E2. */
static bool
expiry_hides(const struct level_table levels[ESKER_LEVELS_MAX], uint32_t level, size_t index)
{
    const struct segment_meta *meta = levels[level].segments[index];
    for (uint32_t below = level == 0 ? 0 : level + 1; below < ESKER_LEVELS_MAX; below++) {
        for (size_t i = below == 0 ? index + 1 : 0; i < levels[below].count; i++) {
            if (expiry_overlaps(meta, levels[below].segments[i])) {
                return true;
            }
        }
    }
    return false;
}

bool
compaction_pick_expired(const struct level_table levels[ESKER_LEVELS_MAX], const struct picker_config *config,
                        struct compaction_plan *out)
{
    for (uint32_t level = ESKER_LEVELS_MAX; level-- > 0;) {
        const struct level_table *table = &levels[level];
        size_t count = 0;
        for (size_t i = 0; i < table->count && count < COMPACTION_INPUTS_MAX; i++) {
            bool damaged = table->damaged != NULL && table->damaged[i];
            if (expiry_is_over(table->segments[i], config) && !table->claimed[i] && !damaged &&
                !expiry_hides(levels, level, i)) {
                out->inputs[count++] = (uint32_t)i;
            }
        }
        if (count > 0) {
            out->input_level = level;
            out->output_level = level;
            out->input_count = count;
            out->overlap_count = 0;
            out->trivial_move = false;
            out->drop = true;
            out->score = 1.0;
            return true;
        }
    }
    return false;
}
