/* SPDX-License-Identifier: MIT */
/*
 * The handle, its fields grouped by how they are synchronised, and what the
 * files of this room offer one another. Life of a write: docs/architecture.md.
 *
 * Locks, in the order in which they may be taken:
 *   drop_mu > manifest_mu > mu > snap_mu > (sync/workers.c's own)
 * drop_mu and manifest_mu are held across manifest I/O; the others never across I/O, nor
 * inside an epoch section.
 *
 * Watermarks, all LSNs, all monotone: visible >= logged >= durable.
 */
#ifndef ESKER_DB_DB_H
#define ESKER_DB_DB_H

#include "base/buf.h"
#include "compaction/compaction.h"
#include "manifest/manifest.h"
#include "sync/futex.h"
#include "sync/mutex.h"
#include "sync/workers.h"
#include "version/version.h"

enum {
    DB_MAGIC_OPEN = 0x6b6f7365,
    DB_MAGIC_CLOSED = 0x64656164,
    STRIPE_COUNT = 64,
    HEAP_IDLE_SHARE = 64, /* of the budget: what the heap keeps present for the next who asks */
    HEAP_IDLE_LEAST = 256 << 10,
    WINDOW_BYTES_FIRST = 256 << 10,
    WINDOW_BYTES_MIN = 64 << 10,
    WINDOW_BUDGET_SMALL = 64 << 20,
    WINDOW_BYTES_MOST = 64 << 20,
    SEGMENT_BYTES_MIN = 2 << 20,
    SEGMENT_BYTES_MOST = 64 << 20,
    WINDOWS_LIVE_MAX = 3, /* active + waiting for flush; more: db_windows.h, recovery, oversize batches */
    PREPARED_MAX = 2,
    WINDOWS_RECOVERED_MAX = 8, /* more are flushed before open returns */
    L0_TRIGGER = 4,
    L0_STALL_FILES = 4, /* of the descriptors for the segments of level 0, at most */
    L0_STALL_LEAST = 16,
    L0_STALL = 128, /* writers wait for merges from here on; they are slowed down long before (db_pace.c) */
    COMPACT_JOBS_MAX = 4,
    DB_FILES_RESERVED = 48,   /* descriptors for logs, inputs and outputs of merges, and the process's own */
    DB_FILES_SHARE = 4,       /* a quarter of the others for segments that nobody reads just now */
    DB_FILES_MERGE_SHARE = 2, /* and half for those that a merge reads */
    DB_FILES_MIN = 8,
    BLOCK_BYTES_WARM = 16 << 10,
    BLOCK_BYTES_COLD = 4 << 10,  /* where most reads are expected to need the disk */
    VALUE_COPY_BYTES_MAX = 4096, /* esker_get copies up to this, pins beyond */
    REOPEN_FRAME_BYTES = FRAME_HEADER_BYTES + REOPEN_BODY_BYTES,
    DB_UNSURE_MAX = 64,
    CLOSED_KEPT = 32 /* closed handles kept so that late calls get INVALID */
};

/* Counters per thread stripe, a write's in one cache line: plain loads and stores, so two
 * threads that share a stripe may lose a count. */
struct stripe {
    _Atomic uint64_t gets, gets_from_memtable;
    _Atomic uint64_t commits, puts, bytes_written;
    _Atomic uint64_t log_bytes;     /* of frames copied into mapped logs */
    _Atomic uint64_t visible_seen;  /* a value that `visible` had */
    _Atomic uint64_t puts_in_place; /* the last so many single ones, of few, were of keys in the window */
    _Atomic uint64_t deletes, gets_not_found;
    _Atomic uint64_t walks; /* iterators made, or brought to the newest state */
    /* Memory of an iterator that is gone, for the next one; stays charged. NULL: none; pairs: ITER_SPARE */
    _Atomic(struct slab *) iter_spare;
} CACHE_ALIGNED;

/* ASKED: close looks whether anything is in use; calls wait that moment out. */
enum closing { CLOSING_NO = 0, CLOSING_ASKED = 1, CLOSING_YES = 2 };

/* db_compact_plan.c says what they are. */
enum merge_policy { MERGES_AS_MEASURED = 0, MERGES_AT_REST, MERGES_LEVELED, MERGES_LAZY };

enum { SNAPSHOT_HEIGHT_MAX = 10 };

/* In LSN order, with shortcuts: on height 0 all of them, on each height above a
 * quarter of those below. */
struct snapshot_list {
    struct esker_snapshot *oldest[SNAPSHOT_HEIGHT_MAX], *newest[SNAPSHOT_HEIGHT_MAX];
    uint64_t count;
};

struct snapshot_links {
    struct esker_snapshot *older, *newer;
};

struct db_log_pool {
    struct log_file **files; /* every log file that the manifest lists and no window holds */
    size_t count, cap;
};

/* When failed work is tried again. */
struct db_retry {
    uint32_t failures; /* in a row */
    uint64_t due_ns;   /* 0 = at once */
    bool untold;       /* it may pass soon; whoever waits goes on waiting */
};

/* What is taken away, over the time that it took: db_drain_add. */
struct db_drain {
    uint64_t bytes, us, seen_ns;
};

struct db_merge;

/* The flush that is under way: between two steps it is nobody's but the flush job's. */
struct db_flush {
    struct window *window;   /* NULL: there is none */
    struct version *version; /* what was older when it began */
    struct db_merge *merge;
    struct iter *source;
    struct compaction_spec spec;
    struct compaction_job *job;
    struct compaction_result result; /* of the job, once it has ended */
    bool ended;
    uint64_t attempt, started_ns;
};

struct compact_part;
struct compact_run;

/* What writes that do not wait ask of the sync job. */
enum push {
    PUSH_SOON = 1, /* into the log within sync_interval_ms */
    PUSH_SYNC = 2, /* and durable */
    PUSH_NOW = 4   /* much is in memory alone */
};

enum { PUSH_BYTES = 256 << 10 };

struct compact_job {
    struct job job;
    struct esker_db *db;
    /* owned by the job */
    struct compact_run *begun; /* what it has planned, and is opening; nullable */
    struct compact_part *part; /* what it is merging; nullable */
    struct compact_run *ended; /* what it has to install; nullable */
    uint64_t attempt;          /* of the last look for work */
};

struct esker_db {
    _Atomic uint32_t magic; /* a late call may read it while close changes it */
    /* immutable after open */
    struct mem mem;
    struct mem block_mem;   /* blocks, indexes, buffers: of the heap; mem where there is none */
    struct page_heap *heap; /* nullable */
    struct io *io;
    struct esker_options options; /* allocator and struct_size already resolved */
    uint8_t uuid[16];
    uint64_t hash_seed;
    uint32_t fork_generation;
    uint64_t seal_lsn, seal_end_lsn; /* the SEAL frame that this life began behind; 0 = none */
    bool tail_mode;                  /* commits are copied into the mapped log; else a leader writes them */
    bool manual;                     /* simulator: no threads */
    bool populate;                   /* memory is made present ahead of the writers */
    bool populate_map;               /* the mapped log too */
    uint64_t window_bytes_first, window_bytes_max; /* windows start small and double with use */
    uint64_t segment_bytes;                        /* target size of merge outputs */
    uint32_t l0_stall;                             /* writers wait from so many segments in level 0 on */
    uint64_t merge_step_work;                      /* of one step of a merge; 0 = as it comes */
    struct block_cache *cache;
    struct job_owner jobs;
    struct job prepare_job, populate_job, flush_job, sync_job, purge_job, rest_job, space_job, load_job;
    struct compact_job compact_jobs[COMPACT_JOBS_MAX];
    uint32_t compact_job_count;
    uint32_t merge_files_max; /* inputs that the parts of one merge may have open together */

    /* atomic */
    _Atomic(struct version *) current CACHE_ALIGNED; /* pairs: CURRENT */
    _Atomic uint64_t pace_ns_per_mib;                /* what writers' bytes cost; 0 = no debt, no waits */
    _Atomic uint32_t closing;                        /* enum closing; pairs: CALL_CLOSE */
    _Atomic uint64_t visible CACHE_ALIGNED;          /* pairs: VISIBLE */
    /* Looked at by every writer that moved `visible`, changed by sleepers: not in its line. */
    _Atomic uint32_t visible_waiters CACHE_ALIGNED; /* pairs: VISIBLE_WAIT */
    _Atomic uint32_t visible_seq;                   /* futex; pairs: VISIBLE_WAIT */
    _Atomic uint64_t logged CACHE_ALIGNED;          /* pairs: LOGGED; unused in tail mode */
    _Atomic uint64_t durable;                       /* pairs: DURABLE */
    _Atomic uint32_t sync_inflight;                 /* pairs: LEADER */
    _Atomic uint32_t sync_seq;                      /* futex; pairs: LEADER */
    _Atomic uint32_t sync_followers;                /* asleep on it, or about to be; pairs: LEADER */
    _Atomic uint32_t push_wanted; /* enum push bits, since the sync job ran; pairs: PUSH_WANTED */
    _Atomic uint32_t poisoned;   /* relaxed: the cause is read under mu; who failed a group orders the rest */
    _Atomic bool cancel;         /* relaxed: stops merges at close */
    _Atomic uint32_t load_asked; /* relaxed: how often a reader met a segment that was not loaded */
    /* Away from what every write reads. */
    _Atomic uint64_t iterators_live CACHE_ALIGNED, values_live, snapshots_live; /* pairs: HANDLES_LIVE */
    _Atomic uint64_t recovered_end_lsn; /* rows below become durable by a flush; 0 = none left */
    _Atomic int event_fd;               /* -1 = none; pairs: EVENT_FD */
    _Atomic uint64_t log_syncs, log_bytes_written, log_bytes_prepared, flushes, flush_bytes_written,
        compactions;
    _Atomic uint64_t compaction_bytes_read, compaction_bytes_written, stalls, stall_ns;
    _Atomic uint64_t compactions_failed, compactions_damaged, rows_skipped;
    _Atomic uint64_t rows_expired, segments_expired;
    _Atomic uint64_t time_seen_ms; /* of the wall clock, by steps of a second; see db_now_ms */
    /* db_pace.c */
    _Atomic uint64_t pace_due_ns CACHE_ALIGNED; /* when what was written so far is paid for */
    _Atomic uint64_t wait_count[ESKER_WAIT_CAUSES], wait_ns[ESKER_WAIT_CAUSES];
    _Atomic uint64_t wait_untold_ns[ESKER_WAIT_CAUSES];
    _Atomic uint64_t debt_bytes;
    _Atomic uint32_t pace_level;  /* with the most debt */
    _Atomic bool merges_are_idle; /* little debt, or late flushes: merges wait for idle processors */
    _Atomic bool merges_press;    /* writers are slowed down: merges are as urgent as they are */
    _Atomic bool tiers_wait;      /* level 0 has enough for a merge of new tiers beside the one under way */
    /* db_step.c; see esker_stats */
    _Atomic uint64_t step_count[ESKER_STEPS], step_cpu_ns[ESKER_STEPS], step_cpu_longest_ns[ESKER_STEPS];
    _Atomic uint64_t steps_by_cpu[ESKER_STEP_LENGTHS], steps_by_time[ESKER_STEP_LENGTHS];
    _Atomic uint64_t next_file_id, next_snapshot;
    uint64_t recovery_ns, recovery_bytes;
    uint64_t correct_bytes; /* of db_tuning */
    struct stripe *stripes;
    uint32_t iter_spares; /* so many of them may have an iter_spare */

    struct db_flush flush; /* owned by the flush job */

    /* owned by the rest job */
    uint64_t rest_seen_lsn, rest_since_ns; /* no commit since then */
    bool rest_long;                        /* as long that logs are made as small as they can be */
    _Atomic bool rest_asked;               /* for the rest job: not to wait as long */

    /* owned by the flush job */
    uint64_t flush_seen_gets;

    /* owned by the load job */
    uint32_t load_level, load_index; /* counted from the end */
    uint64_t load_count;

    /* owned by the sync leader (whoever holds sync_inflight) */
    uint64_t marked_lsn; /* the highest durable LSN that a SYNCMARK in the log carries */

    struct mutex drop_mu; /* held by who drops log files from the list: one after the other */
    struct mutex manifest_mu CACHE_ALIGNED; /* guards: */
    struct manifest *manifest;
    uint64_t wal_min_gen, wal_min_lsn, *log_numbers; /* of every log file that the manifest lists */
    size_t log_number_count, log_number_cap;
    uint64_t unsure_ids[DB_UNSURE_MAX]; /* of edits that may be on disk: gone once a manifest is written */
    uint32_t unsure_count;

    /* guarded by mu */
    struct mutex mu CACHE_ALIGNED;
    struct cond changed; /* a version was installed, a window prepared, a job failed or ended */
    struct window *prepared[PREPARED_MAX]; /* the next windows, their log files begun; NULL behind the last */
    struct db_log_pool pool;
    uint64_t log_gen_max;
    uint64_t log_file_count, log_file_bytes;
    bool reopen_pending; /* the active window is a sealed log: REOPEN comes before the first frame */
    bool reopening;      /* and is being written and synced; the others wait */
    uint64_t reopen_offset;
    uint32_t reopen_ops;
    bool preparing;             /* the prepare job makes a window; nobody else begins a log */
    uint64_t preparing_behind;  /* the generation that it follows; 0 = not preparing */
    uint64_t beginning_behind;  /* what a pool file followed that is being begun anew; 0 = none is */
    uint64_t lost_gen;          /* the highest of listed files that are not in the pool for want of memory */
    bool rotating;              /* an oversize window is being made; nobody else rotates or prepares */
    bool sealing;               /* close is about to write the last frame: no job appends any more */
    uint32_t appending;         /* running jobs that may append frames; close waits them out */
    uint64_t window_bytes_want; /* size of the next window */
    uint64_t window_began_ns;   /* when the active one became so */
    esker_error background;     /* what logs and flushes are failing with; status OK = nothing */
    esker_error merge_failure;  /* and merges, which hold up nobody until level 0 is full */
    struct db_retry background_retry, merge_retry;
    uint64_t space_seen_bytes; /* free on the disk when work failed for want of space */
    esker_error damage;        /* what merges met first; as long as a damaged segment is in the tree */
    uint32_t l0_inputs_max;    /* of one merge: merge_files_max, fewer while descriptors are short */
    bool merge_files_shed;     /* that was tried for the last merge */
    bool merge_space_short;    /* merges of level 0 were made smaller for want of room on the disk */
    bool level0_stuck;         /* full, and nothing that is not damaged can be merged */
    uint64_t attempt;          /* how often callers have asked that failed work be tried again */
    esker_error poison_cause;
    bool poison_untold, merge_untold;             /* events that a caller's thread left to the purge job */
    uint64_t merge_untold_bytes, merge_untold_ns; /* of merges that it made, together */
    uint64_t progress_untold_bytes, progress_untold_total; /* the newest; total 0 = nothing */
    bool events_at_once;                                   /* tests: on whatever thread they happen */
    uint64_t *claimed_ids;                                 /* segments that running merges read */
    size_t claimed_count, claimed_cap;
    uint64_t *damaged_ids; /* segments that a merge failed on: the background leaves them alone */
    size_t damaged_count, damaged_cap;
    struct compact_run *compact_runs;     /* every merge that was planned and has not ended */
    struct compact_part *compact_parts;   /* what of them waits for a thread */
    uint64_t installs, merges_ended;      /* what a wait for room sees of progress */
    uint64_t reserve_bytes;               /* of the file that holds space for deletes (db_reserve.c) */
    bool reserve_busy;                    /* somebody works on it */
    bool reserve_spent;                   /* given up: deletes alone are taken until it is whole again */
    bool reserve_off;                     /* never: tests, or a file of that name is not ours */
    bool reserve_tiny;                    /* tests: for the smallest databases, too */
    uint64_t merge_reserved_bytes;        /* disk space that running merges may still take */
    struct db_drain merge_drain;          /* what merges take out of level 0, in windows' bytes */
    struct db_drain flush_drain;          /* and flushes out of memory */
    uint64_t flush_since_ns;              /* since when a flush has been wanted without a break */
    uint64_t flush_window_bytes;          /* of the last window that was flushed */
    uint64_t rest_look_ns, rest_look_lsn; /* the last look at whether writes come in */
    bool writes_rest;                     /* none did */
    bool merges_lazy;                     /* fewer rows were read than written */
    enum merge_policy merge_policy;       /* AS_MEASURED but in tests */
    uint64_t tier_bytes;                  /* immutable */
    uint64_t look_rows, look_reads;       /* at that look */
    uint64_t *obsolete_ids;               /* segments whose files can go */
    size_t obsolete_count, obsolete_cap;
    uint32_t manual_compactions;

    struct mutex populate_mu; /* one thread at a time makes memory of windows present */
    struct window_spare spare_memory;

    struct version_list versions CACHE_ALIGNED; /* guarded by its own mutex */

    /* guarded by snap_mu */
    struct mutex snap_mu CACHE_ALIGNED;
    struct snapshot_list snapshots;
    uint64_t history_floor; /* an LSN below it is readable only through a live snapshot of the same LSN */
};

struct esker_snapshot {
    uint32_t magic;
    esker_db *db;
    uint64_t lsn;
    uint64_t created_ns;
    uint32_t height; /* on how many lists it stands */
    /* guarded by snap_mu */
    uint32_t refs; /* the handle and iterators */
    struct snapshot_links links[];
};

enum { SNAPSHOT_MAGIC = 0x70616e73, ITER_MAGIC = 0x72657469, BATCH_MAGIC = 0x68637462 };

struct batch_require {
    uint64_t key_offset; /* in require_keys */
    uint32_t key_len;
    esker_lsn unchanged_since;
};

#define BATCH_UNTIL ((uint64_t)1 << 63)

struct esker_batch {
    uint32_t magic;
    uint32_t count;
    uint32_t put_count;
    uint32_t ttl_count; /* of the puts: with a time to live of their own */
    /* Entries in wire format. What stands where a PUT_EXPIRING's expiry will be is how long it lives; from
     * BATCH_UNTIL on, what is above that is the expiry itself, and ESKER_TTL_NONE is none. */
    struct buf body;
    struct buf require_keys;
    struct buf requires; /* struct batch_require */
};

/* ---- db_call.c: entering and leaving a public call ------------------------ */

struct db_call {
    struct thread_state *self;
    const void *outer; /* the database of the call that this one is inside of; nullable */
};

/* INVALID, FORKED, NO_MEMORY or OK. Every OK is followed by db_call_exit. Calls may be
 * made inside others, by an allocator or an event function. */
NODISCARD esker_status db_call_enter(const esker_db *db, struct db_call *call);
void db_call_exit(struct db_call *call);
/* The same for reads: inside an epoch section on OK, at the price of the section alone. */
NODISCARD esker_status db_call_enter_section(const esker_db *db, struct db_call *call);

/* OK: nothing is in use and no call gets in any more. BUSY: nothing has changed. */
NODISCARD esker_status db_call_claim_close(esker_db *db);

/* An iterator, snapshot or value keeps its database from closing. Made inside a
 * call; let go of when everything that it held has been given back. */
static inline void
db_handle_made(_Atomic uint64_t *live)
{
    add_relaxed(live, 1); /* relaxed: close reads it after the call ended (CALL_CLOSE) */
}

static inline void
db_handle_gone(_Atomic uint64_t *live)
{
    sub_acq_rel(live, 1); /* pairs: HANDLES_LIVE — freed before close goes on */
}

static inline struct stripe *
db_stripe(esker_db *db, const struct thread_state *self)
{
    return &db->stripes[self->stripe % STRIPE_COUNT];
}

/* ---- db_commit.c ---------------------------------------------------------- */

struct commit {
    struct bytes body; /* entries in wire format, or one entry to encode: */
    bool single;
    enum entry_op op;
    struct bytes key, value;
    uint32_t op_count;
    bool deletes; /* and nothing else: taken from the reserve on a full disk */
    bool any_delete;
    const struct esker_batch *batch; /* for its requirements; nullable */
    int level;
    uint64_t deadline_ns; /* for memory; 0 = none */
    uint64_t ttl_ms;      /* of puts that say nothing; 0 = they stay */
};

NODISCARD esker_status db_commit(esker_db *db, struct thread_state *self, const struct commit *commit,
                                 uint64_t *end_lsn_out);
/* Appends an engine frame (SYNCMARK, SEAL) if it fits the active window; false
 * if not. The body is a multiple of 16 bytes. */
bool db_append_frame(esker_db *db, struct thread_state *self, enum frame_type type, const uint8_t *body,
                     size_t body_bytes);
void db_write_frame(esker_db *db, struct window *window, uint64_t offset, uint64_t bytes,
                    enum frame_type type, uint16_t back);

/* ---- db_expiry.c ---------------------------------------------------------- */

/* By which puts expire: the wall clock, milliseconds since 1970 UTC. Any thread. */
uint64_t db_now_ms(esker_db *db);
/* A PUT_EXPIRING's value: true, and cut to what was put, while it lives by *now_ms; 0: the clock sets it. */
bool db_expiring_lives(esker_db *db, struct bytes *value, uint64_t *now_ms);
/* In how long the next segment will have expired whole, DB_LOOK_NS to an hour; UINT64_MAX: none will. */
uint64_t db_expiry_next_ns(esker_db *db, const struct version *version);
/* Does the commit put something that expires? */
bool db_expiry_applies(const struct commit *commit, uint32_t put_count);
/* Then what it puts is built in `room`, each with its expiry, and is the commit's body from now on. */
NODISCARD esker_status db_expiry_resolve(esker_db *db, struct commit *commit, struct buf *room);

/* ---- db_visible.c --------------------------------------------------------- */

/* Moves `visible` over applied frames. */
void db_ratchet(esker_db *db, struct thread_state *self);
/* A frame that the caller wrote is complete. Returns when it is visible. The caller is
 * inside a section, which it ends; version: current since it began. */
void db_make_visible(esker_db *db, struct thread_state *self, const struct version *version,
                     struct window *window, uint64_t offset, uint64_t bytes);
/* Until visible >= lsn, for a frame of the caller that is applied, or for all before it. */
void db_wait_visible(esker_db *db, struct thread_state *self, uint64_t lsn);

static inline uint64_t
db_logged(esker_db *db)
{
    /* pairs: LOGGED, VISIBLE — in tail mode what is visible has been copied into the log. */
    return db->tail_mode ? load_acquire(&db->visible) : load_acquire(&db->logged);
}

/* ---- db_lead.c, db_sync.c, db_recovered.c ------------------------------------------------- */

/* What headers and edits may call durable. Readers are told that everything
 * before a SEAL is, which they take for everything there was; but the SEAL
 * itself may be in the page cache alone until the next sync of that log. */
static inline uint64_t
db_durable_proof(esker_db *db)
{
    uint64_t durable = load_acquire(&db->durable); /* pairs: DURABLE */
    return durable == db->seal_end_lsn ? db->seal_lsn : durable;
}

/* Until logged (or durable) >= lsn, leading if nobody does. deadline_ns: 0 = none. */
NODISCARD esker_status db_wait_watermark(esker_db *db, struct thread_state *self, uint64_t lsn, bool durable,
                                         uint64_t deadline_ns);
/* One group, as the leader. sync: make it durable too. */
NODISCARD esker_status db_sync_group(esker_db *db, struct thread_state *self, bool sync);
NODISCARD esker_status db_wait_logged(esker_db *db, struct thread_state *self, uint64_t lsn);
NODISCARD esker_status db_wait_durable(esker_db *db, struct thread_state *self, uint64_t lsn,
                                       uint64_t deadline_ns);
void db_poison(esker_db *db);                /* with this thread's last error as the cause */
esker_status db_poison_status(esker_db *db); /* OK, or POISONED with the first cause's story */
void db_durable_advance(esker_db *db, uint64_t lsn);
/* The eventfd that tells each move of `durable`, made at the first call; -1 if that fails. */
int db_event_fd(esker_db *db);

/* ---- db_push.c ------------------------------------------------------------- */

/* A write is pushed on without its waiting. wanted: enum push. The first write since the
 * job ran kicks it; for the others this is two loads. */
void db_push_on(esker_db *db, uint64_t end_lsn, uint32_t wanted);
void db_sync_job(struct job *job);

/* ---- db_recovered.c -------------------------------------------------------- */

/* The oldest window became durable segments. last_recovered: of those from recovery. mu held. */
void db_flush_proved(esker_db *db, const struct window *flushed, bool last_recovered);
/* While opening: db_flush_until, with the reserve if there is no other room. */
NODISCARD esker_status db_flush_recovered(esker_db *db, uint64_t end_lsn);

/* ---- db_rotate.c ---------------------------------------------------------- */

/* Who needs room: on a full disk deletes are given the reserve, and a flush goes on in it. */
enum rotate_for { ROTATE_FOR_WRITE, ROTATE_FOR_DELETES, ROTATE_FOR_FLUSH };

/* The active window has no room (or waits for its REOPEN frame): makes the next
 * one active, with room for need_bytes, waiting for memory until the deadline.
 * Fails before anything is reserved. */
NODISCARD esker_status db_rotate(esker_db *db, struct thread_state *self, uint64_t need_bytes,
                                 uint32_t need_ops, enum rotate_for why, uint64_t deadline_ns);
/* Makes a window of its own for one frame of frame_bytes and op_count entries. */
NODISCARD esker_status db_rotate_oversize(esker_db *db, struct thread_state *self, uint64_t frame_bytes,
                                          uint32_t op_count, uint64_t deadline_ns, struct window **out);
/* Fills the rest of the active window so that it can be flushed; flushed up to
 * *end_lsn_out means that everything written before the call is. */
NODISCARD esker_status db_seal_active(esker_db *db, struct thread_state *self, uint64_t deadline_ns,
                                      uint64_t *end_lsn_out);
/* The same for a window that nothing stands in, too. */
NODISCARD esker_status db_replace_active(esker_db *db, struct thread_state *self, uint64_t deadline_ns,
                                         uint64_t *end_lsn_out);
/* A window for the log that follows: file from the pool or new, header begun. Not under mu. */
NODISCARD esker_status db_make_window(esker_db *db, uint64_t cap_bytes, uint32_t op_cap, uint64_t base_lsn,
                                      uint64_t prev_gen, uint64_t prev_end_lsn, struct window **out);
/* Tail mode: maps the window's log; where that is not to be had, a database
 * that is being opened gives tail mode up. */
NODISCARD esker_status db_map_log(esker_db *db, struct window *window);
/* So much of its mapping is present from now on, until it is unmapped: resident
 * like other memory, also in the pool. Outside sections and locks. */
void db_charge_log(esker_db *db, struct log_file *log, uint64_t bytes);
/* The window's log goes back to the pool as soon as no leader uses it. mu held. */
void db_release_log_locked(esker_db *db, struct window *window);
void db_unpin_log_locked(esker_db *db, struct window *window);
void db_pool_add_locked(esker_db *db, struct log_file *log);
/* Drops pool files that have less than useful_bytes of space, and any while all
 * log files together exceed keep_bytes. */
NODISCARD esker_status db_drop_pool(esker_db *db, uint64_t keep_bytes, uint64_t useful_bytes);
/* Its file back to the pool, its memory freed. For a window that nobody has seen. */
void db_discard_window_locked(esker_db *db, struct window *window);

/* ---- db_prepare.c --------------------------------------------------------- */

void db_prepare_job(struct job *job);
/* The first of the prepared windows was made active, or all but the first `keep` go back. mu held. */
void db_prepared_shift_locked(esker_db *db);
void db_discard_prepared_locked(esker_db *db, uint32_t keep);

/* ---- db_populate.c -------------------------------------------------------- */

/* Keeps memory present for a while ahead of the active window's writers. */
void db_populate_job(struct job *job);
/* The first part of a prepared window. bytes_per_op: what to expect; 0 = no idea. */
void db_populate_window(esker_db *db, struct window *window, uint64_t bytes_per_op);

/* ---- db_load.c ------------------------------------------------------------- */

void db_load_job(struct job *job);
/* A reader has met a segment whose index is not in memory: others are loaded before he comes to them. */
void db_load_ahead(esker_db *db);

/* ---- db_reserve.c --------------------------------------------------------- */

/* What one who waits for room has seen of progress; zero at first. */
struct reserve_wait {
    bool waited;
    uint64_t installs;
};

/* While opening, when the uuid is known, before anything is written. */
NODISCARD esker_status db_reserve_find(esker_db *db, bool off);
/* While opening, when there is no room for the first window: gives it up; false: there is none.
 * Keeps the story. */
bool db_reserve_open_without(esker_db *db);
/* Makes the reserve large enough for windows of cap_bytes where the disk is not large; false: there is
 * no room for that. */
bool db_reserve_keep(esker_db *db, uint64_t cap_bytes);
/* The largest window that it is enough for. mu held. */
uint64_t db_reserve_supports_locked(const esker_db *db);
/* Gives its space up, and has failed work tried anew; false: there was none. mu held, let go meanwhile. */
bool db_reserve_release_locked(esker_db *db);
/* The same for a merge that does not fit, if it would make room. */
bool db_reserve_release_for_merge(esker_db *db, uint64_t tombstones, uint64_t rows);
/* A full disk, seen by who needs a window: true when there may be room now. mu held, let go meanwhile. */
bool db_reserve_finds_room_locked(esker_db *db, bool for_deletes, uint64_t deadline_ns,
                                  struct reserve_wait *wait);
/* Deletes wait in the active window, and nothing else goes on that would make room. mu held. */
bool db_reserve_wants_seal_locked(esker_db *db);
/* Makes it whole again if it is spent and there is room. */
void db_reserve_restore(esker_db *db);
/* After a flush: while it is spent spare log files go. */
void db_reserve_make_room(esker_db *db);
NODISCARD esker_status db_reserve_refuse(void);
/* With much room again there need not be one. */
void db_reserve_rest(esker_db *db);

/* ---- db_install.c --------------------------------------------------------- */

struct install {
    struct edit edit;       /* segments and logs that come and go; manifest numbers are filled in */
    struct segment **add;   /* handles for edit.add_segments, same order; referenced by the install */
    struct window *flushed; /* the oldest window, leaves; nullable */
    bool unsure;            /* after a failure: the edit may be on disk all the same */
};

/* Writes the edit, then publishes the version that it makes. manifest_mu not held. */
NODISCARD esker_status db_install(esker_db *db, struct install *install);
/* An edit that changes no version (log files). manifest_mu not held. */
NODISCARD esker_status db_manifest_append(esker_db *db, struct edit *edit);
/* Before what relies on the manifest as it is known here: it is confirmed, or written anew if its last edit
 * failed and may be on the disk all the same. manifest_mu not held. */
NODISCARD esker_status db_manifest_settle(esker_db *db, uint64_t *number_out, uint64_t *edit_no_out);
/* Notes what an edit does to the list of log files. manifest_mu held, or during open. */
NODISCARD esker_status db_note_logs(esker_db *db, const struct edit *edit);
/* The file of a segment of an edit that failed and may be on disk all the same goes
 * when a manifest without it is durable. manifest_mu not held. */
void db_note_unsure(esker_db *db, uint64_t id);
/* Puts `segments` into runs by their metas' levels (level 0 newest first) and into `version`. */
NODISCARD esker_status db_fill_levels(esker_db *db, struct version *version, struct segment **segments,
                                      size_t count);
/* Replaces current's windows; mu held. Cannot fail but for memory. */
NODISCARD esker_status db_publish_windows_locked(esker_db *db, struct window *const *windows, uint32_t count);

static inline struct version *
db_current_ref(esker_db *db, struct thread_state *self)
{
    return version_current_ref(&db->current, self);
}

NODISCARD esker_status db_open_segment(esker_db *db, const struct segment_meta *meta, struct segment **out);
uint64_t db_next_file_id(void *db);

/* ---- db_pace.c ------------------------------------------------------------- */

/* How fast writers may go by the tree as it is now. mu held. */
void db_pace_update_locked(esker_db *db);
/* A merge left so many tiers fewer in level 0; a window was flushed. */
void db_pace_merged(esker_db *db, uint64_t tiers_gone, uint64_t started_ns);
void db_pace_flushed(esker_db *db, uint64_t window_bytes, uint64_t started_ns);
/* A writer's turn; TIMED_OUT after the deadline (0 = none), before anything is reserved. */
NODISCARD esker_status db_pace_wait(esker_db *db, uint64_t bytes, uint64_t deadline_ns);
/* This thread's write waited. */
void db_pace_note(esker_db *db, int cause, uint32_t level, uint64_t waited_ns);
/* Tells on_event what was noted since the last time. */
void db_pace_tell(esker_db *db);

static inline esker_status
db_pace(esker_db *db, uint64_t bytes, uint64_t deadline_ns)
{
    /* relaxed: a hint, and all that a write without debt pays */
    if (LIKELY(load_relaxed(&db->pace_ns_per_mib) == 0)) {
        return ESKER_OK;
    }
    return db_pace_wait(db, bytes, deadline_ns);
}

/* ---- db_step.c ------------------------------------------------------------- */

/* When a step began, by its thread's processor time and by the clock. */
struct db_step {
    uint64_t cpu_ns, time_ns;
};

struct db_step db_step_begin(esker_db *db);
/* kind: ESKER_STEP_* */
void db_step_end(esker_db *db, const struct db_step *begun, int kind);

/* ---- db_merge.c ------------------------------------------------------------ */

/* What the outputs of a flush or a merge depend on. The context of the spec. */
struct db_merge {
    esker_db *db;
    const struct version *version;
    uint32_t output_level;
    uint32_t older_from; /* in level 0: the first segment that is older than what is merged */
    bool is_flush;       /* one segment, however large */
    bool warm;           /* blocks that readers want stay in memory: segment_warm.c */
    uint64_t *stripes;
    size_t stripe_count;
};

void db_merge_spec(struct db_merge *merge, struct iter *source, struct compaction_spec *out);
/* Makes the outputs' names durable; on failure the files are removed. */
NODISCARD esker_status db_sync_outputs(esker_db *db, struct compaction_result *result);

/* ---- db_flush.c, db_compact.c --------------------------------------------- */

void db_flush_job(struct job *job);
/* At close, when no job runs any more: undoes a flush that has not ended. */
void db_flush_stop(esker_db *db);
/* Until every row below end_lsn is in segments. */
NODISCARD esker_status db_flush_until(esker_db *db, uint64_t end_lsn);
/* Gives the outputs handles, and the cache what was kept of their blocks, some at a time. OK: there is
 * more to do. END: db_install_outputs is next. */
NODISCARD esker_status db_adopt_outputs(esker_db *db, struct compaction_result *result);
/* Installs them with install->edit. On failure
 * their files are gone, unless the edit that names them may be on disk. */
NODISCARD esker_status db_install_outputs(esker_db *db, struct install *install,
                                          struct compaction_result *result);
/* Unlinks output files that no edit names; keeps the last error's story. */
void db_remove_outputs(esker_db *db, struct compaction_result *result);
void db_compact_job(struct job *job);
/* At close, when no job runs any more: undoes what merges have not installed. */
void db_compact_stop(esker_db *db);
/* mu held. */
/* A writer found the active window full, so long after it became that. mu held. */
void db_plan_note_filled_locked(esker_db *db, uint64_t took_ns);
struct picker_config db_picker_config(esker_db *db, const struct version *version);
void db_purge_job(struct job *job);
int db_compression(const esker_db *db);
/* Raw bytes of the blocks to write now: small ones once the data exceed the cache. */
uint32_t db_block_bytes(const esker_db *db, const struct version *version);
void db_kick_compaction(esker_db *db);

/* ---- db_retry.c ------------------------------------------------------------- */

/* For db_background_failed: which of what the callers asked for the work that begins now belongs to. */
uint64_t db_background_begin(esker_db *db);
void db_background_failed(esker_db *db, struct job *again, uint64_t attempt);
void db_background_ok(esker_db *db, const struct job *job);
/* For calls that have the work done anew: failures of what began before are no answer to them. mu held. */
void db_try_again_locked(esker_db *db);
/* Merges failed not long ago; no new one is begun yet. */
bool db_merges_pause(esker_db *db, uint64_t *left_ns_out);
/* The same; without threads, which know no pauses, from a failure to the next success. */
bool db_merges_fail(esker_db *db);
void db_space_job(struct job *job);
void db_damage_note_locked(esker_db *db, const esker_error *story);
void db_damage_try_again(esker_db *db);
/* An edit was installed. */
void db_damage_forget_locked(esker_db *db, const struct edit *edit);

/* Around what a job may append frames in: false when the log is being sealed. */
bool db_append_begin(esker_db *db);
void db_append_end(esker_db *db);

enum { DB_LOOK_NS = 100000000 }; /* how often merges look at whether writes come in */

/* ---- db_rest.c ------------------------------------------------------------ */

enum { DB_POPULATE_STEP = 1 << 20 }; /* writers ask for more each time they pass a multiple of it */

enum { DB_REST_NS = 1000000000 }; /* idle that long counts as at rest */

void db_rest_job(struct job *job);
/* Logs need not wait long for a rest: whoever merged everything is through with writing. */
void db_rest_soon(esker_db *db);
/* At close: as the rest job, but waits for the flush that it takes. */
NODISCARD esker_status db_shrink_logs(esker_db *db, struct thread_state *self);

/* ---- db_event.c, db_options.c, db_recover.c -------------------------------- */

/* True inside the event function, on the thread that called it. */
bool db_in_event(const esker_db *db);
void db_emit(esker_db *db, esker_event_kind kind, uint64_t bytes, uint64_t duration_ns,
             const esker_error *error);
/* A merge has read so many bytes of total_bytes. */
void db_emit_progress(esker_db *db, uint64_t bytes, uint64_t total_bytes);
void db_emit_wait(esker_db *db, int cause, uint32_t level, uint64_t waited_ns);
void db_event_tell_untold(esker_db *db);     /* the purge job's part */
void db_event_wait_until_told(esker_db *db); /* at close */
NODISCARD esker_status db_options_resolve(const esker_options *given, esker_options *out);
NODISCARD esker_status db_recover(esker_db *db);
NODISCARD esker_status db_create_fresh(esker_db *db);

/* Sizes that are otherwise derived from the memory budget; 0 = derive. For tests,
 * which want rotation, flush and merges after a few commits. Multiples of 4096. */
struct db_tuning {
    enum merge_policy merge_policy;
    uint64_t tier_bytes; /* see picker_config; 0 = from the window's size */
    uint64_t window_bytes_first, window_bytes_max, segment_bytes;
    uint64_t merge_step_work; /* of compaction_spec */
    uint64_t manifest_bytes;  /* rewritten from this size on */
    bool reserve;             /* a reserve is kept, however small the database; else there is none */
    uint64_t correct_bytes;   /* recovery tries single flipped bits in last frames of up to so many */
};

/* Opens over a given seam, for tests: takes over io (also on failure). manual: no threads. */
NODISCARD esker_status db_open_on(struct io *io, const esker_options *options, const struct db_tuning *tuning,
                                  bool manual, esker_db **db_out);

/* ---- db_verify.c, db_repair.c ---------------------------------------------- */

/* esker_verify over a given seam: takes over io (also on failure). */
NODISCARD esker_status db_verify_on(struct io *io, esker_verify_fn *each_finding, void *ctx);
/* esker_repair over a given seam: takes over io (also on failure). allocator: nullable. */
NODISCARD esker_status db_repair_on(struct io *io, const esker_allocator *allocator, esker_repair_fn *say,
                                    void *ctx);

/* ---- db_iterate.c ----------------------------------------------------------- */

void db_iterate_init(esker_db *db);
/* Memory that waits for the next iterators goes. */
void db_iterate_drop_spares(esker_db *db);

/* ---- db_dead.c ------------------------------------------------------------ */

/* A reader at lsn has walked over so many deletes in [from, to) and seen nothing there. */
void db_dead_note(esker_db *db, const struct version *version, uint64_t lsn, struct bytes from,
                  struct bytes to, uint64_t deletes);

/* Dead ranges that windows got from the ones before them count once those are visible as a whole. */
void db_dead_settle(const struct version *version, uint64_t visible);

/* ---- db_snapshot.c -------------------------------------------------------- */

void db_snapshot_ref(struct esker_snapshot *snapshot);
void db_snapshot_unref(struct esker_snapshot *snapshot);
/* Whether merges have kept exactly what was visible at `lsn`. */
bool db_history_is_exact(esker_db *db, uint64_t lsn);
/* Copies snapshot LSNs into *stripes_out (mem_free) and raises the history floor to floor_lsn. */
NODISCARD esker_status db_collect_stripes(esker_db *db, uint64_t floor_lsn, uint64_t **stripes_out,
                                          size_t *count_out);

/* ---- db_read.c ------------------------------------------------------------ */

NODISCARD esker_status db_check_read_options(const esker_db *db, const esker_read_options *options);
/* Does key have a version (put or delete) with LSN in [since, limit)? Looks at memory only unless rows
 * that new are in segments. Where the answer is lost to history it is yes. The caller holds the version,
 * no section. asked: since when it should be unchanged; below `since` where it is known to be until then. */
NODISCARD esker_status db_changed_since(esker_db *db, struct version *version, struct bytes key,
                                        uint64_t asked, uint64_t since, uint64_t limit, bool *changed_out);

#endif
