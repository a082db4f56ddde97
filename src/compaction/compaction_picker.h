/* SPDX-License-Identifier: MIT */
/* What the picker's files share: ranges of keys, spans of a level, plans. */
#ifndef ESKER_COMPACTION_COMPACTION_PICKER_H
#define ESKER_COMPACTION_COMPACTION_PICKER_H

#include "compaction/compaction.h"

/* max.len 0: no upper bound. */
struct picker_range {
    struct bytes min, max;
};

/* Indexes [begin, end) of a sorted level, or of whole tiers of level 0. */
struct picker_span {
    size_t begin, end;
};

struct picker {
    const struct level_table *levels;
    const struct picker_config *config;
    uint64_t target[ESKER_LEVELS_MAX];
    double score[ESKER_LEVELS_MAX];
    uint32_t base; /* where level 0 goes */
    bool l0_waits; /* level 0 is due, but for claims in the base level */
};

/* ---- compaction_picker.c ------------------------------------------------ */

bool picker_max_is_below(struct bytes max, struct bytes key);
/* Of segments [begin, end), which must be some. */
struct picker_range picker_hull(const struct level_table *level, size_t begin, size_t end);
/* What of a sorted level overlaps `range`; an empty span stands where it would be. */
struct picker_span picker_span_of(const struct level_table *level, struct picker_range range);
/* The same with what comes behind it as long as bounds meet (I6). */
struct picker_span picker_with_next(const struct level_table *level, struct picker_span span);
bool picker_span_fits(struct picker_span span);
uint64_t picker_span_bytes(const struct level_table *level, struct picker_span span);
uint64_t picker_level_bytes(const struct level_table *level, bool unclaimed_only);
/* By a running job, or because nobody may touch it. */
bool picker_is_taken(const struct level_table *level, size_t index);
/* Does anything claimed in a sorted level meet the hull of `inputs` and `overlaps`? */
bool picker_is_in_the_way(const struct level_table *level, struct picker_range inputs,
                          const struct level_table *output, struct picker_span overlaps);
/* Iterators have stepped over its deletes as often as a merge would. */
bool picker_is_worn(const struct level_table *level, size_t index);
void picker_make_plan(const struct picker *picker, uint32_t input_level, struct picker_span inputs,
                      uint32_t output_level, struct picker_span overlaps, double score,
                      struct compaction_plan *out);

/* ---- compaction_tiers.c ------------------------------------------------- */

/* Of level 0. */
size_t picker_tier_count(const struct level_table *level0);
/* Level 0, all of it or its oldest tiers, into the base level. */
bool picker_plan_l0(struct picker *picker, struct compaction_plan *out);
/* Level 0 downwards, or its tiers with one another. */
bool picker_plan_level0(struct picker *picker, struct compaction_plan *out);
/* Level 0, if iterators lose time in one of its segments. */
bool picker_plan_worn_l0(struct picker *picker, struct compaction_plan *out);

#endif
