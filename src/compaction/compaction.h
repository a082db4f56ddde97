/* SPDX-License-Identifier: MIT */
/*
 * Turning sorted rows into segments: flush (source: a memtable) and merge
 * (source: segments) are the same work. And the picker, which decides what to
 * merge; it is a pure function of level tables, tested by text.
 *
 * Which versions survive: snapshot LSNs cut time into stripes; of each key the
 * newest version of each stripe is kept, older ones of the same stripe are
 * dropped. A delete is dropped too when it is the oldest kept version of its
 * key, below every stripe boundary, and nothing deeper can hold that key.
 */
#ifndef ESKER_COMPACTION_COMPACTION_H
#define ESKER_COMPACTION_COMPACTION_H

#include "segment/segment.h"
#include "sync/atomic.h"

/* ---- The job ------------------------------------------------------------ */

typedef uint64_t compaction_next_id_fn(void *ctx);
/* True if a level deeper than the output may hold `key`. NULL in the spec =
 * not known: deletes stay, unless drop_deletes says that there is nothing deeper. */
typedef bool compaction_deeper_fn(void *ctx, struct bytes key);

struct compaction_spec {
    struct io *io;
    const struct mem *mem;
    struct iter *source;     /* rows in iterator order; not owned */
    const uint64_t *stripes; /* ascending LSNs of live snapshots: a reader at s sees lsn < s */
    size_t stripe_count;
    uint32_t output_level;
    uint64_t now_ms;   /* rows that expired until then are deletes */
    bool drop_deletes; /* nothing deeper exists: the bottom; else `deeper` is asked */
    compaction_deeper_fn *deeper;
    uint64_t segment_bytes_max; /* a new output begins beyond it, never inside one key */
    /* Only keys of [lower, upper): one part of a merge that several threads share. Empty: no bound. */
    struct bytes lower, upper;
    /* Of the level below the output, in key order: outputs end where they would
     * overlap too much of it, so that a later merge of one output stays small. */
    const struct segment_meta *const *below;
    size_t below_count;
    uint64_t step_work; /* how much one step does; 0 = COMPACTION_STEP_WORK */
    uint8_t uuid[16];
    int compression;
    uint32_t block_bytes;
    struct block_cache *cache; /* nullable: where the outputs' buffers are charged */
    bool warm;                 /* outputs keep blocks that readers want for the cache */
    compaction_next_id_fn *next_id;
    void *ctx;                  /* for next_id and deeper */
    const _Atomic bool *cancel; /* nullable: looked at by every step; ESKER_BUSY */
};

/* Work is counted in bytes of keys and values and so many for each row; a step
 * of the default takes well under a millisecond (a single value may be larger). */
enum { COMPACTION_ROW_WORK = 64, COMPACTION_STEP_WORK = 256 << 10 };

struct compaction_output {
    struct segment_meta meta; /* min_key and max_key point into `keys` */
    uint8_t keys[2 * EDIT_KEY_BYTES_MAX];
    struct segment_warm *warm; /* nullable; for segment_adopt */
    struct segment *segment;   /* its handle; NULL: it has none yet */
    int compression;
};

struct compaction_result {
    struct compaction_output **outputs; /* in key order, synced, the directory not */
    size_t output_count;
    size_t adopted; /* so many have a handle, and the cache their blocks */
    uint64_t rows_in, rows_out, bytes_written;
    uint64_t rows_expired; /* of rows_in: puts that became deletes, or nothing */
};

/* A merge in steps, so that whoever runs it can turn to something more urgent
 * in between, or go on with it on another thread. The spec and what it points
 * to outlive the job. */
struct compaction_job;

NODISCARD esker_status compaction_job_create(const struct compaction_spec *spec, struct compaction_job **out);
/* Some rows, or the end of one output. OK: there is more to do. END: everything
 * is merged, compaction_job_take is next. A failure: every output file has been
 * removed, and the job is good for nothing but to be destroyed. */
NODISCARD esker_status compaction_job_step(struct compaction_job *job);
/* What the next step will do: ESKER_STEP_ROWS, _END or _SYNC. */
int compaction_job_next(const struct compaction_job *job);
/* Rows judged so far. */
uint64_t compaction_job_rows(const struct compaction_job *job);
void compaction_job_take(struct compaction_job *job, struct compaction_result *out);
/* Removes the files of a job that was not taken. NULL is fine. */
void compaction_job_destroy(struct compaction_job *job);

/* All steps of one job. On failure every output file has been removed. A damaged source: its CORRUPT. */
NODISCARD esker_status compaction_run(const struct compaction_spec *spec, struct compaction_result *out);
void compaction_result_fini(struct compaction_result *result, const struct mem *mem);

/* ---- The picker --------------------------------------------------------- */

struct level_table {
    const struct segment_meta *const *segments; /* level 0: newest first; others by key */
    const bool *claimed;                        /* part of a running job, as input or as overlap */
    const bool *damaged;                        /* nullable: never touched, as if claimed for ever */
    const uint64_t *skipped;                    /* nullable: how many of its deletes iterators stepped over */
    const bool *stored_otherwise;               /* nullable: than the levels below; so not moved as it is */
    size_t count;
};

struct picker_config {
    uint32_t l0_trigger;    /* merge level 0 from this many segments on */
    uint32_t l0_inputs_max; /* so many of them in one merge, which opens them all; 0 = no limit */
    /* It goes down when it holds at least so many eighths of the bytes of its base level; until
     * then its tiers are merged with one another. 0: it always goes down. */
    uint32_t l0_eighths;
    uint64_t
        l0_bytes; /* it is due from so many bytes on too, however few its segments are; 0 = by number alone */
    uint64_t l0_tier_bytes; /* no merge of tiers makes one that is larger; 0 = no limit */
    /* It is weighed against all that is below instead: tiers over one level at the bottom, and
     * nothing between them but what is there from other times. */
    bool lazy;
    /* Nothing else is asked for than a merge of new tiers with one another, beside a merge that goes down. */
    bool tiers_only;
    uint64_t base_bytes; /* target of the first level below 0 that is in use */
    uint32_t fanout;
    uint64_t segment_bytes;
    /* Deletes below it can be dropped at the bottom: the oldest live snapshot,
     * or `visible` when there is none. With it, segments that are mostly deletes
     * move on, and are rewritten in place at the bottom; so do those whose deletes
     * iterators have stepped over as often as they have rows. 0 = they are left alone. */
    uint64_t gc_lsn;
    uint64_t now_ms; /* segments whose rows have expired until then, and shadow nothing, are dropped */
};

enum { COMPACTION_INPUTS_MAX = 16384 };

struct compaction_plan {
    /* Equal: at the bottom a rewrite in place, to drop deletes; in level 0 a merge of tiers. */
    uint32_t input_level, output_level;
    size_t input_count;   /* of input_level: indexes into its table, ascending */
    size_t overlap_count; /* of output_level, ascending */
    uint32_t inputs[COMPACTION_INPUTS_MAX];
    uint32_t overlaps[COMPACTION_INPUTS_MAX];
    bool trivial_move; /* the inputs (any number) can change their level as they are */
    bool drop;         /* the inputs can go unread: of one level, which is the output's, too */
    double score;      /* >= 1.0 means due */
};

/* How large each level may be (index 0: 0), by the bytes that the levels hold. */
void compaction_targets(const uint64_t level_bytes[ESKER_LEVELS_MAX], const struct picker_config *config,
                        uint64_t targets_out[ESKER_LEVELS_MAX]);

/* The most urgent merge whose inputs nobody claimed. False: none is due, or
 * (score >= 1.0) what is due has to wait until a running job has ended; nothing
 * but the score is set then. */
bool compaction_pick(const struct level_table levels[ESKER_LEVELS_MAX], const struct picker_config *config,
                     struct compaction_plan *out);

/* About how many of its rows have expired. */
uint64_t compaction_expired_rows(const struct segment_meta *meta, uint64_t now_ms);
/* Segments of one level of which every row is a delete or has expired, which no snapshot needs
 * as evidence, and under which nothing lies that they hide. */
bool compaction_pick_expired(const struct level_table levels[ESKER_LEVELS_MAX],
                             const struct picker_config *config, struct compaction_plan *out);

/* A merge of what overlaps [lower, upper) (empty = no bound) one level further
 * down, starting at the shallowest level that has something; as much of it as
 * fits one plan. False when all of it lies in one sorted level already, or
 * (score >= 1.0) when claims are in the way. */
bool compaction_pick_range(const struct level_table levels[ESKER_LEVELS_MAX],
                           const struct picker_config *config, struct bytes lower, struct bytes upper,
                           struct compaction_plan *out);

#endif
