/* SPDX-License-Identifier: MIT */
/*
 * No two merges are in each other's way, looked at again whenever one is planned,
 * in builds that check invariants. Every run on db->compact_runs is a register entry:
 * what it reads are segments, what it writes is a level and a range of keys.
 *
 *  A1 No segment is read by two runs.
 *  A2 Runs that write into one level write disjoint ranges.
 *  A3 What a run writes into a level, and what another one takes out of it, is disjoint.
 *  A4 In level 0, whose order is its tiers' age, A1 alone counts, and: of two runs that
 *     take from it the one takes what is newer than all that the other takes, and only
 *     the older one may lead downwards. A run that drops what has expired moves nothing.
 *
 * The picker sees to all of it by claims (compaction_picker.c, I1 to I5); this looks at
 * ranges instead, so that a mistake there shows. A manifest whose levels are not in
 * order, which bytes from a disk may say, makes any plan useless but is no mistake of
 * the picker: nothing is said then.
 */
#include "db/db_compact.h"

struct apart_range {
    struct bytes min, max; /* max empty: no bound */
};

static bool
apart_ranges_meet(struct apart_range a, struct apart_range b)
{
    bool a_below = a.max.len > 0 && bytes_compare(a.max, b.min) < 0;
    bool b_below = b.max.len > 0 && bytes_compare(b.max, a.min) < 0;
    return !a_below && !b_below;
}

static struct apart_range
apart_range_of(const struct segment *segment)
{
    const struct segment_meta *meta = segment_meta(segment);
    return (struct apart_range){.min = meta->min_key, .max = meta->max_key};
}

static const struct segment *
apart_input(const struct compact_run *run, size_t i)
{
    return run->version->levels[run->plan->input_level]->segments[run->plan->inputs[i]];
}

static const struct segment *
apart_overlap(const struct compact_run *run, size_t i)
{
    return run->version->levels[run->plan->output_level]->segments[run->plan->overlaps[i]];
}

static void
apart_widen(struct apart_range *range, struct apart_range more)
{
    if (bytes_compare(more.min, range->min) < 0) {
        range->min = more.min;
    }
    if (range->max.len > 0 && (more.max.len == 0 || bytes_compare(range->max, more.max) < 0)) {
        range->max = more.max;
    }
}

/* Of what a run writes: one range, or as many as it moves segments. */
static size_t
apart_written_count(const struct compact_run *run)
{
    return run->plan->drop ? 0 : run->plan->trivial_move ? run->plan->input_count : 1;
}

static struct apart_range
apart_written(const struct compact_run *run, size_t i)
{
    struct apart_range range = apart_range_of(apart_input(run, run->plan->trivial_move ? i : 0));
    for (size_t k = 1; !run->plan->trivial_move && k < run->plan->input_count; k++) {
        apart_widen(&range, apart_range_of(apart_input(run, k)));
    }
    for (size_t k = 0; k < run->plan->overlap_count; k++) {
        apart_widen(&range, apart_range_of(apart_overlap(run, k)));
    }
    return range;
}

/* A2. */
static bool
apart_writes_meet(const struct compact_run *a, const struct compact_run *b)
{
    for (size_t i = 0; i < apart_written_count(a); i++) {
        struct apart_range range = apart_written(a, i);
        for (size_t k = 0; k < apart_written_count(b); k++) {
            if (apart_ranges_meet(range, apart_written(b, k))) {
                return true;
            }
        }
    }
    return false;
}

/* A3: does `writer` write where `taker` takes from? */
static bool
apart_write_meets_inputs(const struct compact_run *writer, const struct compact_run *taker)
{
    for (size_t i = 0; i < apart_written_count(writer); i++) {
        struct apart_range range = apart_written(writer, i);
        for (size_t k = 0; k < taker->plan->input_count; k++) {
            if (apart_ranges_meet(range, apart_range_of(apart_input(taker, k)))) {
                return true;
            }
        }
    }
    return false;
}

static bool
apart_share_segments(const struct compact_run *a, const struct compact_run *b)
{
    for (size_t i = 0; i < a->drop_count; i++) {
        for (size_t k = 0; k < b->drop_count; k++) {
            if (a->drop_ids[i] == b->drop_ids[k]) {
                return true;
            }
        }
    }
    return false;
}

/* Its outputs are in the tree already, where others may have taken them. */
static bool
apart_is_installed(const struct compact_run *run, const struct version *now)
{
    const struct level_run *level = now->levels[run->plan->input_level];
    for (uint32_t i = 0; level != NULL && i < level->count; i++) {
        if (segment_meta(level->segments[i])->id == run->drop_ids[0]) {
            return false;
        }
    }
    return true;
}

/* Is the tier of a newer than the one of b? */
static bool
apart_is_newer(const struct segment *a, const struct segment *b)
{
    return segment_meta_compare_tiers(segment_meta(a), segment_meta(b)) < 0;
}

/* A4. Level 0 is in order of tiers, the newest first. */
static bool
apart_in_level0(const struct compact_run *a, const struct compact_run *b)
{
    bool a_is_newer = apart_is_newer(apart_input(a, 0), apart_input(b, 0));
    const struct compact_run *newer = a_is_newer ? a : b;
    const struct compact_run *older = a_is_newer ? b : a;
    const struct segment *last = apart_input(newer, newer->plan->input_count - 1);
    return newer->plan->output_level == 0 && apart_is_newer(last, apart_input(older, 0));
}

static bool
apart_from(const struct compact_run *a, const struct compact_run *b)
{
    const struct compaction_plan *one = a->plan;
    const struct compaction_plan *other = b->plan;
    uint32_t into = one->output_level;
    uint32_t other_into = other->output_level;
    bool level0 = one->input_level == 0 && other->input_level == 0 && !one->drop && !other->drop;
    return !apart_share_segments(a, b) && !(level0 && !apart_in_level0(a, b)) &&
           !(into > 0 && into == other_into && apart_writes_meet(a, b)) &&
           !(into > 0 && into == other->input_level && apart_write_meets_inputs(a, b)) &&
           !(other_into > 0 && other_into == one->input_level && apart_write_meets_inputs(b, a));
}

static bool
apart_level_is_sorted(const struct version *version, uint32_t level)
{
    const struct level_run *run = version->levels[level];
    for (uint32_t i = 1; level > 0 && run != NULL && i < run->count; i++) {
        const struct segment_meta *before = segment_meta(run->segments[i - 1]);
        if (before->max_key.len == 0 ||
            bytes_compare(before->max_key, segment_meta(run->segments[i])->min_key) >= 0) {
            return false;
        }
    }
    return true;
}

bool
compact_is_apart_locked(const struct compact_run *run)
{
    if (!apart_level_is_sorted(run->version, run->plan->input_level) ||
        !apart_level_is_sorted(run->version, run->plan->output_level)) {
        return true;
    }
    for (const struct compact_run *other = run->db->compact_runs; other != NULL; other = other->next) {
        if (other != run && !apart_is_installed(other, run->version) && !apart_from(run, other)) {
            return false;
        }
    }
    return true;
}
