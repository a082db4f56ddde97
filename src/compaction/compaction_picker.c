/* SPDX-License-Identifier: MIT */
/*
 * What to merge next: a pure function of the level tables, so that it can be
 * tested by tables of text (testdata/) and by simulation.
 *
 * Shape. Leveled, with targets computed from the bottom, as RocksDB's dynamic
 * level bytes: the last level may be as large as the largest is, each level
 * above it 1/fanout of the one below. The base level, into which level 0 is
 * merged, is the shallowest one whose target is at least base_bytes, but never
 * deeper than a level that holds something. A fresh database so works with
 * level 0 and the last level only, and grows levels upwards. What of level 0 is more
 * than an empty base level may hold passes it by.
 *
 * Level 0 is a stack of tiers (compaction_tiers.c): sorted runs, each made by one
 * flush or by one merge of neighbours in age. Merging it down rewrites most of the
 * base level, so it is done when that is worth it: when level 0 is large enough beside
 * the base level. Until then, and while the base level is busy, its newest tiers are
 * merged with one another: down to the oldest that is no larger than all newer ones
 * together.
 *
 * Urgency. Level 0: tiers / trigger. Others: bytes that nobody claimed /
 * target. The highest score of 1 or more that can be served wins. Within a
 * level: the segment that drags along the fewest bytes of the next level per
 * byte of its own, with a bonus for deletes and for age; then neighbours that
 * drag along nothing more. If nothing is due, segments that consist mostly of
 * droppable deletes are sent on, and rewritten once at the bottom; and so are those,
 * level 0 included, in whose deletes iterators have lost as many steps as a merge of
 * them would take.
 *
 * Invariants of every plan
 *  I1 No input and no overlap is claimed.
 *  I2 The overlaps are all segments of the output level that may share a key
 *     with the hull of the inputs: an output may span gaps between inputs. Key
 *     bounds are rounded outwards, so a neighbour may come along needlessly.
 *  I3 From level 0 the oldest tiers are taken, whole and without gaps: what stays
 *     behind is newer than what goes down. One merge of level 0 downwards at a time.
 *     Tiers that are merged with one another are neighbours in age, nothing between
 *     them stays behind.
 *  I4 The output level is the next one, or for level 0 the base level, above
 *     which there is nothing: no version ever passes an older one.
 *  I5 Plans that run at once and write into one level have disjoint hulls (of
 *     inputs and overlaps). What a plan claims covers its hull, since neighbours
 *     are joined by an overlap that both meet; so the next plan need only see to
 *     it that nothing claimed, in the level that it takes from or the one that
 *     it writes to, meets its own hull. Otherwise a segment could come down into
 *     a gap of another plan's inputs, and an output would lie across it.
 *     Level 0 needs no cover: into the base level only level 0 writes, one
 *     merge at a time (I3, I4).
 *  I6 What is written into a level comes behind all that stays there in the list, which decides
 *     where bounds do not (db_install.c, I4). So nothing stays that lies behind what is written and
 *     whose bounds meet those of what is taken: it comes along.
 *
 * Bytes of damaged or hostile manifests can make bounds lie about order; then
 * plans are useless, but every index stays inside its table.
 */
#include "base/assert.h"
#include "compaction/compaction_picker.h"

enum {
    PICKER_LAST = ESKER_LEVELS_MAX - 1,
    PICKER_JOB_SEGMENTS = 16,      /* a merge is not extended beyond this many full segments */
    PICKER_DISJOINT_CHECK_MAX = 64 /* more inputs of level 0 than these are not moved but merged */
};

/* ---- Ranges ------------------------------------------------------------------ */

bool
picker_max_is_below(struct bytes max, struct bytes key)
{
    return max.len > 0 && bytes_compare(max, key) < 0;
}

static struct picker_range
picker_range_of(const struct segment_meta *meta)
{
    return (struct picker_range){.min = meta->min_key, .max = meta->max_key};
}

static bool
picker_ranges_meet(struct picker_range a, struct picker_range b)
{
    return !picker_max_is_below(a.max, b.min) && !picker_max_is_below(b.max, a.min);
}

static void
picker_range_widen(struct picker_range *range, const struct segment_meta *meta)
{
    if (bytes_compare(meta->min_key, range->min) < 0) {
        range->min = meta->min_key;
    }
    if (range->max.len > 0 && (meta->max_key.len == 0 || bytes_compare(range->max, meta->max_key) < 0)) {
        range->max = meta->max_key;
    }
}

struct picker_range
picker_hull(const struct level_table *level, size_t begin, size_t end)
{
    ASSERT(begin < end);
    struct picker_range hull = picker_range_of(level->segments[begin]);
    for (size_t i = begin + 1; i < end; i++) {
        picker_range_widen(&hull, level->segments[i]);
    }
    return hull;
}

/* The first segment of a sorted level whose bound does not lie before `key`:
 * its max, or with by_min its min (then: not before and not equal). */
static size_t
picker_search(const struct level_table *level, struct bytes key, bool by_min)
{
    size_t low = 0;
    size_t high = level->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct segment_meta *meta = level->segments[middle];
        bool before =
            by_min ? bytes_compare(meta->min_key, key) <= 0 : picker_max_is_below(meta->max_key, key);
        if (before) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct picker_span
picker_span_of(const struct level_table *level, struct picker_range range)
{
    struct picker_span span;
    span.begin = picker_search(level, range.min, false);
    span.end = range.max.len == 0 ? level->count : picker_search(level, range.max, true);
    span.end = MAX(span.begin, span.end);
    return span;
}

struct picker_span
picker_with_next(const struct level_table *level, struct picker_span span)
{
    while (span.begin < span.end && span.end < level->count &&
           !picker_max_is_below(level->segments[span.end - 1]->max_key, level->segments[span.end]->min_key)) {
        span.end++;
    }
    return span;
}

bool
picker_is_taken(const struct level_table *level, size_t index)
{
    return level->claimed[index] || (level->damaged != NULL && level->damaged[index]);
}

static bool
picker_span_is_claimed(const struct level_table *level, struct picker_span span)
{
    for (size_t i = span.begin; i < span.end; i++) {
        if (picker_is_taken(level, i)) {
            return true;
        }
    }
    return false;
}

bool
picker_is_in_the_way(const struct level_table *level, struct picker_range inputs,
                     const struct level_table *output, struct picker_span overlaps)
{
    struct picker_range hull = inputs;
    if (overlaps.begin < overlaps.end) {
        picker_range_widen(&hull, output->segments[overlaps.begin]);
        picker_range_widen(&hull, output->segments[overlaps.end - 1]);
    }
    return picker_span_is_claimed(level, picker_span_of(level, hull));
}

uint64_t
picker_span_bytes(const struct level_table *level, struct picker_span span)
{
    uint64_t bytes = 0;
    for (size_t i = span.begin; i < span.end; i++) {
        bytes += level->segments[i]->size_bytes;
    }
    return bytes;
}

/* ---- Targets and scores --------------------------------------------------------- */

uint64_t
picker_level_bytes(const struct level_table *level, bool unclaimed_only)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < level->count; i++) {
        if (!unclaimed_only || !picker_is_taken(level, i)) {
            bytes += level->segments[i]->size_bytes;
        }
    }
    return bytes;
}

/* Returns the base level, were there nothing in shallower ones. */
static uint32_t
picker_targets_of(const uint64_t level_bytes[ESKER_LEVELS_MAX], const struct picker_config *config,
                  uint64_t targets_out[ESKER_LEVELS_MAX])
{
    uint64_t base_bytes = MAX(config->base_bytes, (uint64_t)1);
    uint64_t fanout = MAX(config->fanout, 2U);
    uint64_t target = 0;
    for (uint32_t level = PICKER_LAST; level > 0; level--) {
        target = MAX(target, level_bytes[level]);
    }
    uint32_t base = PICKER_LAST;
    /* A level that is too shallow for so little data empties itself, but not for every trifle. */
    uint64_t least = MAX(base_bytes / fanout, (uint64_t)1);
    targets_out[0] = 0;
    for (uint32_t level = PICKER_LAST; level > 0; level--) {
        base = target >= base_bytes ? level : base;
        targets_out[level] = MAX(target, least);
        target /= fanout;
    }
    return base;
}

void
compaction_targets(const uint64_t level_bytes[ESKER_LEVELS_MAX], const struct picker_config *config,
                   uint64_t targets_out[ESKER_LEVELS_MAX])
{
    (void)picker_targets_of(level_bytes, config, targets_out);
}

static void
picker_set_targets(struct picker *picker)
{
    uint64_t level_bytes[ESKER_LEVELS_MAX] = {0};
    uint32_t first = PICKER_LAST;
    for (uint32_t level = PICKER_LAST; level > 0; level--) {
        first = picker->levels[level].count > 0 ? level : first;
        level_bytes[level] = picker_level_bytes(&picker->levels[level], false);
    }
    picker->base = MIN(picker_targets_of(level_bytes, picker->config, picker->target), first);
    /* What is more than the base level may hold would only pass through it. */
    uint64_t level0 = picker_level_bytes(&picker->levels[0], false);
    while (picker->base < MIN(first, (uint32_t)PICKER_LAST) && level0 > picker->target[picker->base]) {
        picker->base++;
    }
}

static void
picker_init(struct picker *picker, const struct level_table *levels, const struct picker_config *config)
{
    *picker = (struct picker){.levels = levels, .config = config};
    picker_set_targets(picker);
    picker->score[0] = (double)picker_tier_count(&levels[0]) / MAX(config->l0_trigger, 1U);
    if (config->l0_bytes > 0) {
        double by_bytes = (double)picker_level_bytes(&levels[0], false) / (double)config->l0_bytes;
        picker->score[0] = MAX(picker->score[0], by_bytes);
    }
    for (uint32_t level = 1; level < PICKER_LAST; level++) {
        picker->score[level] =
            (double)picker_level_bytes(&levels[level], true) / (double)picker->target[level];
    }
}

/* ---- Making plans ----------------------------------------------------------------- */

static bool
picker_is_mostly_deletes(const struct segment_meta *meta, uint64_t now_ms)
{
    return meta->tombstone_count + compaction_expired_rows(meta, now_ms) > meta->row_count / 2;
}

bool
picker_is_worn(const struct level_table *level, size_t index)
{
    const struct segment_meta *meta = level->segments[index];
    bool deletes = meta->tombstone_count > 0 || meta->expiring_count > 0;
    return level->skipped != NULL && deletes && level->skipped[index] >= meta->row_count;
}

/* Inputs of level 0 that overlap must be merged; so should crumbs be, and what nobody would write again
 * as the levels below are written. */
static bool
picker_l0_can_move(const struct picker *picker, const struct compaction_plan *plan)
{
    const struct level_table *level = &picker->levels[0];
    for (size_t i = 0; level->stored_otherwise != NULL && i < plan->input_count; i++) {
        if (level->stored_otherwise[plan->inputs[i]]) {
            return false;
        }
    }
    if (plan->input_count == 1) {
        return true;
    }
    if (plan->input_count > PICKER_DISJOINT_CHECK_MAX) {
        return false;
    }
    for (size_t i = 0; i < plan->input_count; i++) {
        const struct segment_meta *meta = level->segments[plan->inputs[i]];
        if (meta->size_bytes < picker->config->segment_bytes / 4) {
            return false;
        }
        for (size_t j = 0; j < i; j++) {
            if (picker_ranges_meet(picker_range_of(meta),
                                   picker_range_of(level->segments[plan->inputs[j]]))) {
                return false;
            }
        }
    }
    return true;
}

/* Deletes that reach the bottom are worth a rewrite if they can go there. */
static bool
picker_is_move(const struct picker *picker, const struct compaction_plan *plan)
{
    if (plan->overlap_count > 0 || plan->input_level == plan->output_level) {
        return false;
    }
    uint64_t gc_lsn = picker->config->gc_lsn;
    const struct level_table *level = &picker->levels[plan->input_level];
    for (size_t i = 0; plan->output_level >= PICKER_LAST && i < plan->input_count; i++) {
        const struct segment_meta *meta = level->segments[plan->inputs[i]];
        if ((picker_is_mostly_deletes(meta, picker->config->now_ms) ||
             picker_is_worn(level, plan->inputs[i])) &&
            (gc_lsn == 0 || meta->max_lsn < gc_lsn)) {
            return false;
        }
    }
    return plan->input_level > 0 || picker_l0_can_move(picker, plan);
}

void
picker_make_plan(const struct picker *picker, uint32_t input_level, struct picker_span inputs,
                 uint32_t output_level, struct picker_span overlaps, double score,
                 struct compaction_plan *out)
{
    ASSERT(inputs.begin < inputs.end && inputs.end - inputs.begin <= COMPACTION_INPUTS_MAX);
    ASSERT(overlaps.begin <= overlaps.end && overlaps.end - overlaps.begin <= COMPACTION_INPUTS_MAX);
    out->input_level = input_level;
    out->output_level = output_level;
    out->input_count = inputs.end - inputs.begin;
    out->overlap_count = overlaps.end - overlaps.begin;
    for (size_t i = 0; i < out->input_count; i++) {
        out->inputs[i] = (uint32_t)(inputs.begin + i);
    }
    for (size_t i = 0; i < out->overlap_count; i++) {
        out->overlaps[i] = (uint32_t)(overlaps.begin + i);
    }
    out->score = score;
    out->trivial_move = picker_is_move(picker, out);
    out->drop = false;
}

bool
picker_span_fits(struct picker_span span)
{
    return span.end - span.begin <= COMPACTION_INPUTS_MAX;
}

/* The overlaps of segment `index` in the next level; false if claims or their number are in the way. */
static bool
picker_can_push(const struct picker *picker, uint32_t level_no, size_t index, struct picker_span *overlaps)
{
    const struct level_table *level = &picker->levels[level_no];
    const struct level_table *next = &picker->levels[level_no + 1];
    struct picker_range range = picker_range_of(level->segments[index]);
    *overlaps = picker_with_next(next, picker_span_of(next, range));
    return picker_span_fits(*overlaps) && !picker_is_in_the_way(next, range, next, *overlaps) &&
           !picker_is_in_the_way(level, range, next, *overlaps); /* I5; the segment itself included */
}

static void
picker_id_bounds(const struct level_table *level, uint64_t *min_out, uint64_t *max_out)
{
    *min_out = UINT64_MAX;
    *max_out = 0;
    for (size_t i = 0; i < level->count; i++) {
        *min_out = MIN(*min_out, level->segments[i]->id);
        *max_out = MAX(*max_out, level->segments[i]->id);
    }
}

/* What pushing a segment down costs per byte of it; deletes and age make it cheaper. */
static double
picker_push_cost(const struct segment_meta *meta, uint64_t overlap_bytes, uint64_t min_id, uint64_t max_id)
{
    double ratio = (double)overlap_bytes / (double)MAX(meta->size_bytes, (uint64_t)1);
    double deletes =
        (double)MIN(meta->tombstone_count, meta->row_count) / (double)MAX(meta->row_count, (uint64_t)1);
    double age = max_id > min_id ? (double)(max_id - meta->id) / (double)(max_id - min_id) : 0.0;
    return ratio * (1.0 - 0.75 * deletes) * (1.0 - 0.25 * age);
}

/* Takes neighbours along that have overlaps and whose overlaps are all part of the merge anyway. */
static struct picker_span
picker_extend(const struct picker *picker, uint32_t level_no, size_t index, struct picker_span overlaps)
{
    const struct level_table *level = &picker->levels[level_no];
    struct picker_span inputs = {index, index + 1};
    uint64_t bytes = level->segments[index]->size_bytes;
    bytes += picker_span_bytes(&picker->levels[level_no + 1], overlaps);
    uint64_t bytes_max =
        MIN(picker->config->segment_bytes, UINT64_MAX / PICKER_JOB_SEGMENTS) * PICKER_JOB_SEGMENTS;
    bool leftwards = true;
    while (inputs.end - inputs.begin < COMPACTION_INPUTS_MAX) {
        if (leftwards && inputs.begin == 0) {
            leftwards = false;
        }
        if (!leftwards && inputs.end == level->count) {
            break;
        }
        size_t at = leftwards ? inputs.begin - 1 : inputs.end;
        struct picker_span more;
        uint64_t size = level->segments[at]->size_bytes;
        if (bytes + size > bytes_max || !picker_can_push(picker, level_no, at, &more) ||
            more.begin == more.end || more.begin < overlaps.begin ||
            more.end > overlaps.end) { /* I5, and nothing more dragged along */
            if (!leftwards) {
                break;
            }
            leftwards = false;
            continue;
        }
        bytes += size;
        inputs.begin -= leftwards;
        inputs.end += !leftwards;
    }
    return inputs;
}

/* The cheapest segment of a level, and what comes with it, one level down. */
static bool
picker_plan_level(const struct picker *picker, uint32_t level_no, struct compaction_plan *out)
{
    const struct level_table *level = &picker->levels[level_no];
    uint64_t min_id;
    uint64_t max_id;
    picker_id_bounds(level, &min_id, &max_id);
    size_t best = level->count;
    double best_cost = 0.0;
    struct picker_span best_overlaps = {0};
    for (size_t i = 0; i < level->count; i++) {
        struct picker_span overlaps;
        if (!picker_can_push(picker, level_no, i, &overlaps)) {
            continue;
        }
        uint64_t overlap_bytes = picker_span_bytes(&picker->levels[level_no + 1], overlaps);
        double cost = picker_push_cost(level->segments[i], overlap_bytes, min_id, max_id);
        bool older = best < level->count && level->segments[i]->id < level->segments[best]->id;
        if (best == level->count || cost < best_cost || (!(cost > best_cost) && older)) {
            best = i;
            best_cost = cost;
            best_overlaps = overlaps;
        }
    }
    if (best == level->count) {
        return false;
    }
    struct picker_span inputs = {best, best + 1};
    if (best_overlaps.begin < best_overlaps.end) {
        inputs = picker_extend(picker, level_no, best, best_overlaps);
    }
    picker_make_plan(picker, level_no, inputs, level_no + 1, best_overlaps, picker->score[level_no], out);
    return true;
}

/* The oldest segment that is mostly deletes which can go, deepest level first. */
static bool
picker_plan_deletes(struct picker *picker, struct compaction_plan *out)
{
    for (uint32_t level_no = PICKER_LAST; level_no > 0; level_no--) {
        const struct level_table *level = &picker->levels[level_no];
        size_t best = level->count;
        struct picker_span inputs = {0};
        struct picker_span best_overlaps = {0};
        for (size_t i = 0; i < level->count; i++) {
            const struct segment_meta *meta = level->segments[i];
            struct picker_span overlaps = {0};
            struct picker_span span = {i, i + 1};
            span = level_no == PICKER_LAST ? picker_with_next(level, span) : span;
            bool is_older = best == level->count || meta->id < level->segments[best]->id;
            bool wanted = picker_is_mostly_deletes(meta, picker->config->now_ms) || picker_is_worn(level, i);
            if (!is_older || !wanted || meta->max_lsn >= picker->config->gc_lsn) {
                continue;
            }
            if (level_no == PICKER_LAST ? picker_span_fits(span) && !picker_span_is_claimed(level, span)
                                        : picker_can_push(picker, level_no, i, &overlaps)) {
                best = i;
                inputs = span;
                best_overlaps = overlaps;
            }
        }
        if (best < level->count) {
            uint32_t output_level = MIN(level_no + 1, (uint32_t)PICKER_LAST);
            picker_make_plan(picker, level_no, inputs, output_level, best_overlaps, 1.0, out);
            return true;
        }
    }
    return picker_plan_worn_l0(picker, out);
}

/* ---- The two questions -------------------------------------------------------------- */

static bool
picker_plan_most_urgent(struct picker *picker, struct compaction_plan *out)
{
    bool tried[ESKER_LEVELS_MAX] = {false};
    for (uint32_t round = 0; round < PICKER_LAST; round++) {
        uint32_t level = ESKER_LEVELS_MAX;
        for (uint32_t i = 0; i < PICKER_LAST; i++) {
            if (!tried[i] && picker->score[i] >= 1.0 &&
                (level == ESKER_LEVELS_MAX || picker->score[i] > picker->score[level])) {
                level = i;
            }
        }
        if (level == ESKER_LEVELS_MAX) {
            return false;
        }
        tried[level] = true;
        if (level == 0 && picker_plan_level0(picker, out)) {
            return true;
        }
        /* New claims in the base level would keep level 0 waiting for ever. */
        if (level > 0 && !(level == picker->base && picker->l0_waits) &&
            picker_plan_level(picker, level, out)) {
            return true;
        }
    }
    return false;
}

bool
compaction_pick(const struct level_table levels[ESKER_LEVELS_MAX], const struct picker_config *config,
                struct compaction_plan *out)
{
    struct picker picker;
    if (config->tiers_only) {
        picker_init(&picker, levels, config);
        out->score = picker.score[0];
        return picker.score[0] >= 1.0 && picker_plan_level0(&picker, out);
    }
    if (compaction_pick_expired(levels, config, out)) {
        return true;
    }
    picker_init(&picker, levels, config);
    if (picker_plan_most_urgent(&picker, out)) {
        return true;
    }
    if (config->gc_lsn > 0 && picker_plan_deletes(&picker, out)) {
        return true;
    }
    out->score = 0.0;
    for (uint32_t level = 0; level < PICKER_LAST; level++) {
        out->score = MAX(out->score, picker.score[level]);
    }
    return false;
}

/* What of a level meets [lower, upper), and for level 0 what lies between. */
static struct picker_span
picker_span_in(const struct picker *picker, uint32_t level_no, struct bytes lower, struct bytes upper)
{
    const struct level_table *level = &picker->levels[level_no];
    struct picker_span span = {level->count, 0};
    for (size_t i = 0; i < level->count; i++) {
        const struct segment_meta *meta = level->segments[i];
        bool below = lower.len > 0 && picker_max_is_below(meta->max_key, lower);
        bool above = upper.len > 0 && bytes_compare(meta->min_key, upper) >= 0;
        if (!below && !above) {
            span.begin = MIN(span.begin, i);
            span.end = i + 1;
        }
    }
    return span.begin < span.end ? span : (struct picker_span){0, 0};
}

/* The leftmost run of segments in `within` that nothing stands in the way of. */
static bool
picker_plan_run(const struct picker *picker, uint32_t level_no, struct picker_span within,
                struct compaction_plan *out)
{
    struct picker_span overlaps = {0};
    struct picker_span inputs = {within.begin, within.begin};
    while (inputs.begin < within.end && !picker_can_push(picker, level_no, inputs.begin, &overlaps)) {
        inputs.begin++;
    }
    if (inputs.begin == within.end) {
        return false;
    }
    bool is_move = overlaps.begin == overlaps.end;
    for (inputs.end = inputs.begin + 1; inputs.end < within.end; inputs.end++) {
        struct picker_span more;
        if (inputs.end - inputs.begin == COMPACTION_INPUTS_MAX ||
            !picker_can_push(picker, level_no, inputs.end, &more) || is_move != (more.begin == more.end)) {
            break;
        }
        if (is_move) {
            continue;
        }
        if (more.begin >= overlaps.end) {
            break; /* I5 */
        }
        more = (struct picker_span){overlaps.begin, MAX(overlaps.end, more.end)};
        if (!picker_span_fits(more)) {
            break;
        }
        overlaps = more;
    }
    picker_make_plan(picker, level_no, inputs, level_no + 1, overlaps, 1.0, out);
    return true;
}

bool
compaction_pick_range(const struct level_table levels[ESKER_LEVELS_MAX], const struct picker_config *config,
                      struct bytes lower, struct bytes upper, struct compaction_plan *out)
{
    struct picker picker;
    picker_init(&picker, levels, config);
    out->score = 0.0;
    uint32_t shallowest = ESKER_LEVELS_MAX;
    struct picker_span within = {0};
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        struct picker_span span = picker_span_in(&picker, level, lower, upper);
        if (span.begin == span.end) {
            continue;
        }
        if (shallowest == ESKER_LEVELS_MAX && level > 0) {
            shallowest = level;
            within = span;
            continue;
        }
        out->score = 1.0; /* there is something to do, if it can be done */
        if (level == 0) {
            return picker_plan_l0(&picker, out);
        }
        return picker_plan_run(&picker, shallowest, within, out);
    }
    return false;
}
