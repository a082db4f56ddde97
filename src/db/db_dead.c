/* SPDX-License-Identifier: MIT */
/*
 * What iterators learn of deleted keys: the newest window is told where nothing is
 * visible, so that the next iterator need not walk there (memtable/dead.h); and the
 * segments that hold the deletes count what they cost, so that merges take them
 * before others (compaction_picker.c).
 */
#include "db/db.h"

static bool
dead_note_segment(struct segment *segment, struct bytes from, struct bytes to, uint64_t deletes)
{
    const struct segment_meta *meta = segment_meta(segment);
    bool below = meta->max_key.len > 0 && bytes_compare(meta->max_key, from) < 0;
    if (below || bytes_compare(meta->min_key, to) >= 0 || meta->tombstone_count + meta->expiring_count == 0) {
        return false;
    }
    return segment_note_skipped(segment, MIN(deletes, meta->tombstone_count + meta->expiring_count));
}

/* Deletes of [from, to) were walked over: which segments they came from is not known, so all that
 * have some there count them. True: one of them is worth a merge now. */
static bool
dead_note_segments(const struct version *version, struct bytes from, struct bytes to, uint64_t deletes)
{
    bool due = false;
    const struct level_run *level0 = version->levels[0];
    for (uint32_t i = 0; level0 != NULL && i < level0->count; i++) {
        due |= dead_note_segment(level0->segments[i], from, to, deletes);
    }
    for (uint32_t level = 1; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = run != NULL ? level_run_seek(run, from) : 0; run != NULL && i < run->count; i++) {
            if (bytes_compare(segment_meta(run->segments[i])->min_key, to) >= 0) {
                break;
            }
            due |= dead_note_segment(run->segments[i], from, to, deletes);
        }
    }
    return due;
}

void
db_dead_note(esker_db *db, const struct version *version, uint64_t lsn, struct bytes from, struct bytes to,
             uint64_t deletes)
{
    window_dead_note(version->windows[0], from, to, lsn);
    if (dead_note_segments(version, from, to, deletes)) {
        db_kick_compaction(db);
    }
}

void
db_dead_settle(const struct version *version, uint64_t visible)
{
    for (uint32_t i = version->window_count; i > 1; i--) {
        struct window *newer = version->windows[i - 2];
        if (visible >= newer->base_lsn) {
            memtable_dead_settle(newer->table, version->windows[i - 1]->table);
        }
    }
}
