/* SPDX-License-Identifier: MIT */
/*
 * Which tiers of level 0 are merged, with the base level or with one another. A tier
 * is a sorted run of one or more segments, which stand together in the table; it
 * counts as one, and is taken whole.
 */
#include "base/assert.h"
#include "compaction/compaction_picker.h"

enum { TIERS_SHARE = 4 /* a merge of tiers takes away at least a fourth of what makes level 0 due */ };

/* Behind the last segment of the tier that begins at `begin`. */
static size_t
tiers_end(const struct level_table *level, size_t begin)
{
    size_t end = begin + 1;
    while (end < level->count && segment_meta_goes_on(level->segments[begin], level->segments[end])) {
        end++;
    }
    return end;
}

static struct picker_span
tiers_at(const struct level_table *level, size_t begin)
{
    return (struct picker_span){begin, tiers_end(level, begin)};
}

size_t
picker_tier_count(const struct level_table *level0)
{
    size_t count = 0;
    for (size_t i = 0; i < level0->count; i = tiers_end(level0, i)) {
        count++;
    }
    return count;
}

static bool
tiers_is_taken(const struct level_table *level, struct picker_span tier)
{
    for (size_t i = tier.begin; i < tier.end; i++) {
        if (picker_is_taken(level, i)) {
            return true;
        }
    }
    return false;
}

static bool
tiers_is_claimed(const struct level_table *level, struct picker_span tier)
{
    for (size_t i = tier.begin; i < tier.end; i++) {
        if (level->claimed[i]) {
            return true;
        }
    }
    return false;
}

/* So many tiers may one merge open. */
static size_t
tiers_most(const struct picker *picker)
{
    uint32_t limit = picker->config->l0_inputs_max;
    return limit != 0 ? MIN(limit, (uint32_t)COMPACTION_INPUTS_MAX) : COMPACTION_INPUTS_MAX;
}

/* How many of the oldest tiers of level 0 can be merged down: none while others are
 * merged, which would only have to follow, and none that are newer than a damaged one,
 * which stays (I3). */
static size_t
tiers_free_count(const struct level_table *level)
{
    size_t count = 0;
    for (size_t i = 0; i < level->count;) {
        struct picker_span tier = tiers_at(level, i);
        if (tiers_is_claimed(level, tier)) {
            return 0;
        }
        count = tiers_is_taken(level, tier) ? 0 : count + 1;
        i = tier.end;
    }
    return count;
}

static struct picker_span
tiers_oldest(const struct level_table *level, size_t count)
{
    size_t skip = picker_tier_count(level) - count;
    size_t begin = 0;
    for (; skip > 0; skip--) {
        begin = tiers_end(level, begin);
    }
    return (struct picker_span){begin, level->count};
}

bool
picker_plan_l0(struct picker *picker, struct compaction_plan *out)
{
    const struct level_table *level = &picker->levels[0];
    const struct level_table *base = &picker->levels[picker->base];
    for (size_t count = MIN(tiers_free_count(level), tiers_most(picker)); count > 0; count /= 2) {
        struct picker_span inputs = tiers_oldest(level, count);
        struct picker_range range = picker_hull(level, inputs.begin, inputs.end);
        struct picker_span overlaps = picker_with_next(base, picker_span_of(base, range));
        if (!picker_span_fits(overlaps) || !picker_span_fits(inputs)) {
            continue;
        }
        if (picker_is_in_the_way(base, range, base, overlaps)) {
            picker->l0_waits = true;
            return false;
        }
        picker_make_plan(picker, 0, inputs, picker->base, overlaps, MAX(picker->score[0], 1.0), out);
        return true;
    }
    return false;
}

/* Which of the newest `count` tiers are merged: down to the oldest that is no larger than
 * all newer ones together, so that a row is rewritten as often as the sizes double. If that
 * would take away few of them, as many as take the least writing for each that goes. */
static struct picker_span
tiers_choose(const struct level_table *level, size_t count, size_t least)
{
    struct picker_span tier = tiers_at(level, 0);
    size_t chosen = 0;     /* how many, */
    size_t chosen_end = 0; /* and the end of the last one's segments */
    size_t cheapest_end = 0;
    double cost = 0.0;
    uint64_t sum = picker_span_bytes(level, tier);
    for (size_t i = 1; i < count; i++) {
        tier = tiers_at(level, tier.end);
        uint64_t size = picker_span_bytes(level, tier);
        if (size <= sum) {
            chosen = i + 1;
            chosen_end = tier.end;
        }
        sum += size;
        double each = (double)sum / (double)i;
        if (i + 1 >= least && (cheapest_end == 0 || each < cost)) {
            cheapest_end = tier.end;
            cost = each;
        }
    }
    return (struct picker_span){0, chosen >= least ? chosen_end : cheapest_end};
}

/* The newest tiers of level 0 with one another, if so many can be that it is worth it. */
static bool
tiers_plan(const struct picker *picker, struct compaction_plan *out)
{
    const struct level_table *level = &picker->levels[0];
    const struct picker_config *config = picker->config;
    size_t most = tiers_most(picker);
    uint64_t bytes_max = config->l0_tier_bytes != 0 ? config->l0_tier_bytes : UINT64_MAX;
    size_t count = 0;
    size_t end = 0;
    uint64_t sum = 0;
    while (end < level->count && count < most) {
        struct picker_span tier = tiers_at(level, end);
        uint64_t size = picker_span_bytes(level, tier);
        if (tiers_is_taken(level, tier) || size > bytes_max - sum || tier.end > COMPACTION_INPUTS_MAX) {
            break;
        }
        sum += size;
        end = tier.end;
        count++;
    }
    size_t least = MAX(config->l0_trigger / TIERS_SHARE + 1, 2U);
    if (config->l0_eighths == 0 || count < least) {
        return false;
    }
    /* Those that came while others are merged wait until they make level 0 due by themselves. */
    if (count < config->l0_trigger && end < level->count && tiers_is_claimed(level, tiers_at(level, end))) {
        return false;
    }
    struct picker_span inputs = tiers_choose(level, count, least);
    picker_make_plan(picker, 0, inputs, 0, (struct picker_span){0}, MAX(picker->score[0], 1.0), out);
    return true;
}

/* Is level 0, but for what is claimed, large enough beside the level that it goes into? */
static bool
tiers_go_down(const struct picker *picker)
{
    const struct level_table *level = &picker->levels[0];
    const struct picker_config *config = picker->config;
    uint64_t bytes = picker_level_bytes(level, true);
    bool is_large = config->l0_bytes > 0 && bytes >= config->l0_bytes;
    if (config->l0_eighths == 0 || config->l0_trigger < 2 || is_large) {
        return true;
    }
    uint64_t below = 0;
    for (uint32_t i = picker->base; i < (config->lazy ? ESKER_LEVELS_MAX : picker->base + 1); i++) {
        below += picker_level_bytes(&picker->levels[i], false);
    }
    if (!config->lazy && picker->base < ESKER_LEVELS_MAX - 1) { /* it will soon be as large as it may be */
        below = MAX(below, picker->target[picker->base]);
    }
    return 8.0 * (double)bytes >= (double)config->l0_eighths * (double)below;
}

/* Where the one cannot be the other may: while the base level is busy, and where damage
 * keeps all that is newer up here. */
bool
picker_plan_level0(struct picker *picker, struct compaction_plan *out)
{
    const struct level_table *level = &picker->levels[0];
    if (picker->config->tiers_only) {
        return tiers_plan(picker, out);
    }
    if (tiers_go_down(picker)) {
        return picker_plan_l0(picker, out) || tiers_plan(picker, out);
    }
    if (tiers_plan(picker, out)) {
        return true;
    }
    /* A merge that is under way makes it less. */
    return !tiers_is_claimed(level, (struct picker_span){0, level->count}) && picker_plan_l0(picker, out);
}

bool
picker_plan_worn_l0(struct picker *picker, struct compaction_plan *out)
{
    const struct level_table *level = &picker->levels[0];
    bool worn = false;
    for (size_t i = 0; i < level->count; i++) {
        worn = worn || (picker_is_worn(level, i) && level->segments[i]->max_lsn < picker->config->gc_lsn);
    }
    return worn && picker_plan_l0(picker, out);
}
