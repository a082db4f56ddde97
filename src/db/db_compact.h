/* SPDX-License-Identifier: MIT */
/*
 * A merge from plan to installation.
 *
 * A run is one plan: its inputs are claimed, so no other run touches them. Its
 * work is cut by key into parts, which threads take from the list of waiting
 * parts and do in steps. Whoever ends the last part finishes the run: all
 * outputs go into one edit, or none does.
 *
 * Concurrency
 *  - A part is one thread's at a time. Parts share the run's version, stripes
 *    and claims, which do not change.
 *  - mu guards the lists and what is said there at the fields.
 */
#ifndef ESKER_DB_DB_COMPACT_H
#define ESKER_DB_DB_COMPACT_H

#include "db/db.h"

enum { COMPACT_PARTS_MAX = 8, COMPACT_FANOUT = 8, COMPACT_PROGRESS_SHARES = 16 };

struct compact_part {
    struct compact_run *run;
    struct compact_part *next; /* of those that wait; guarded by mu */
    struct bytes lower, upper; /* point into the run's `borders`; empty = no bound */
    struct iter *source;
    struct compaction_spec spec;
    struct compaction_job *job; /* NULL before the first step and after the last */
    struct compaction_result result;
    uint64_t rows_told; /* of the job's, in the run's rows_done */
};

struct compact_run {
    struct compact_run *next; /* of db->compact_runs; guarded by mu */
    esker_db *db;
    /* immutable once the run has begun */
    struct compaction_plan *plan;
    struct version *version; /* the levels as they were; a merge may take longer than windows should stay */
    struct level_run *inputs, *overlaps; /* NULL before */
    uint32_t level0_tiers;               /* so many of level 0 are inputs */
    uint64_t *drop_ids;                  /* everything claimed: inputs and overlaps */
    size_t drop_count;
    uint64_t max_lsn;
    uint64_t bytes_in, rows_in, started_ns;
    uint32_t opened; /* of inputs and overlaps: their indexes are in memory, or not needed */
    uint64_t input_rows, input_tombstones; /* of the input level */
    struct db_merge merge;
    const struct segment_meta **below; /* the level under the output */
    size_t below_count;
    struct buf borders;
    uint64_t attempt;                /* db_background_begin's */
    bool awaited;                    /* an explicit call waits for the run, and finishes it itself */
    _Atomic uint64_t rows_done;      /* of rows_in; relaxed: told only */
    _Atomic uint32_t shares_told;    /* of COMPACT_PROGRESS_SHARES; relaxed: who raises it tells */
    _Atomic bool stop;               /* a part has failed, or the database is being closed */
    struct compaction_result result; /* of all parts, once they have ended */
    bool gathered;
    uint32_t part_count;
    struct compact_part parts[COMPACT_PARTS_MAX];
    /* guarded by mu */
    uint32_t parts_left;
    uint64_t reserved_bytes; /* of disk space */
    esker_error failure;     /* of the part that failed first; status OK = none */
};

/* What an explicit call merges: keys of [lower, upper) that were there when it began. */
struct compact_range {
    struct bytes lower, upper;
    uint64_t end_lsn;
};

/* ---- db_compact_plan.c ------------------------------------------------------ */

/* range: NULL for the background's choice, of merges of new tiers alone if tiers_only. *out NULL: there is
 * nothing to do, or nothing that claims allow. */
NODISCARD esker_status compact_plan(esker_db *db, const struct compact_range *range, bool tiers_only,
                                    struct compact_run **out);
/* Enough new tiers in level 0 for a merge of their own, beside one that is under way? mu held. */
bool compact_tiers_wait_locked(const esker_db *db, const struct version *version, uint32_t trigger);
/* Gives claims, references and memory back. */
void compact_release(struct compact_run *run);
/* After CORRUPT: the background leaves alone what is damaged, else it would meet it again and again. */
void compact_mark_damaged(struct compact_run *run, const esker_error *story);

/* ---- db_compact_apart.c ----------------------------------------------------- */

/* Is what the run reads and writes disjoint from what all others in db->compact_runs do? mu held. */
bool compact_is_apart_locked(const struct compact_run *run);

/* ---- db_compact_split.c ----------------------------------------------------- */

/* Does the split look into the indexes of what is merged? */
bool compact_split_reads(const struct compact_run *run);
/* Cuts the run by key into part_count parts of about equal size, fewer where
 * that is not possible: sets bounds, borders and part_count. */
NODISCARD esker_status compact_split(struct compact_run *run, uint32_t part_count);

/* ---- db_compact_run.c ------------------------------------------------------- */

/* A step towards the run's parts: opens one of its inputs, and at last lists the parts for whoever takes
 * them. OK: there is more to do. END: it has begun. On failure the run can only be abandoned. */
NODISCARD esker_status compact_begin_step(struct compact_run *run);
/* A part that waits, of this run or (NULL) of any; NULL: none. */
struct compact_part *compact_take_part(esker_db *db, const struct compact_run *run);
/* Sets a part aside that has begun, maybe: the next who takes one goes on with it. */
void compact_put_part_back(esker_db *db, struct compact_part *part);
/* OK: there is more to do. END or a failure: the part has ended, compact_part_ended is next. */
NODISCARD esker_status compact_part_step(struct compact_part *part);
/* True when it was the last one and the caller has to finish the run. */
bool compact_part_ended(struct compact_part *part, esker_status status);
/* When all parts have ended: what readers want goes into the cache, some at a time. OK: there is more to do.
 * END: compact_finish is next, whatever was met. */
NODISCARD esker_status compact_hand_over(struct compact_run *run);
/* Installs what the parts made, or removes it; gives everything back. OK also after a
 * merge that found too few descriptors or too little room, when the next plan may get by
 * with what there is. */
NODISCARD esker_status compact_finish(struct compact_run *run);
/* The same for one that could not begin. */
NODISCARD esker_status compact_give_up(struct compact_run *run);
/* For a run that will not be finished. story: why; NULL: the database is being closed. */
void compact_abandon(struct compact_run *run, const esker_error *story);

#endif
