/* SPDX-License-Identifier: MIT */
/*
 * The simulated disk: a directory in memory that can lose power, tear, lie
 * and fail on demand, and does all of it the same way for the same seed.
 *
 * A `struct sim_disk` is the machine: it outlives the crashes that kill the
 * handles opened on it with io_sim_open. Every file has two images, what the
 * page cache holds and what the platter holds, compared in atoms of 512 bytes;
 * so has the table of names. A sync moves a file from the first to the second,
 * a directory sync the names.
 *
 * What a power cut may leave of a file: each atom changed since its last good
 * sync holds the old bytes, the new ones, or ones it held in between; the
 * length is the old, the new, or one in between; blocks that the file grew by
 * and that were not written out hold zeros or garbage. Of the names: the
 * changes since the last directory sync up to some point (as journalled file
 * systems do it). Bytes that a write did not touch survive it. Of stores into
 * a mapped file only the contents at syncs and at the crash are known, not
 * those in between.
 *
 * Requests of one `run` take effect in a seeded order, syncs first: a sync
 * covers nothing of its own batch.
 *
 * Threads: every call locks the disk. Stores into mapped files do not, like
 * on any machine; stop the threads before a crash.
 */
#ifndef ESKER_IO_IO_SIM_H
#define ESKER_IO_IO_SIM_H

#include "io/io.h"

struct sim_disk;

enum { SIM_ATOM_BYTES = 512, SIM_FILE_BYTES_MAX = 1 << 30 };

/* Never NULL. The disk lives in mem_default, so that a test that fails the
 * engine's allocations does not fail the disk's; it aborts if that runs out,
 * being an instrument of tests. Handles live in the engine's memory. */
struct sim_disk *sim_disk_create(uint64_t seed);
/* Every handle must be closed. */
void sim_disk_destroy(struct sim_disk *disk);
/* A second machine in the same state: images, names, clock and seed, without
 * handles, lock, faults, counters and log. The original may be in use. */
struct sim_disk *sim_disk_clone(struct sim_disk *disk);

/* Opens a handle. IO while the power is off (sim_disk_crash_at has struck).
 * Closing it, dead or alive, asserts that its files and mappings were closed. */
NODISCARD esker_status io_sim_open(struct sim_disk *disk, const struct mem *mem, struct io **out);

/* ---- Crashes ------------------------------------------------------------ */

enum sim_crash {
    SIM_CRASH_KILL,        /* the process dies; what it wrote or stored stays in the cache */
    SIM_CRASH_POWER_NONE,  /* power cut: only what was synced is left */
    SIM_CRASH_POWER_ALL,   /* power cut just after everything was written out */
    SIM_CRASH_POWER_RANDOM /* power cut: any legal state, chosen by the seed */
};

/* All handles die: their calls return -EIO, their mappings become private
 * memory. A power cut also starts a new boot. Then the disk can be opened. */
void sim_disk_crash(struct sim_disk *disk, enum sim_crash mode, uint64_t seed);
/* From the nth mutating operation on (1 = the next) nothing changes any more
 * and every call returns -EIO, until sim_disk_crash. Mutating: creating opens,
 * writes, truncations, syncs, renames, unlinks, directory syncs. */
void sim_disk_crash_at(struct sim_disk *disk, uint64_t nth);
bool sim_disk_is_off(struct sim_disk *disk);
/* Mutating operations so far. */
uint64_t sim_disk_mutations(struct sim_disk *disk);
/* An orderly shutdown and a new boot: nothing is lost, handles die. */
void sim_disk_reboot(struct sim_disk *disk);

/* ---- Faults ------------------------------------------------------------- */

enum sim_kind {
    SIM_OPEN, /* and lock */
    SIM_READ,
    SIM_WRITE,
    SIM_SYNC,
    SIM_SYNC_DIR,
    SIM_RENAME,
    SIM_UNLINK,
    SIM_TRUNCATE,
    SIM_SIZE,
    SIM_LIST,
    SIM_MAP,
    SIM_MEMORY, /* page memory */
    SIM_AHEAD,  /* a read that is begun */
    SIM_KINDS
};

enum sim_action {
    SIM_ACT_FAIL,      /* `err`; or, if that is 0, a transfer of at most `bytes` */
    SIM_ACT_TORN,      /* a write's first `bytes` bytes land, then it fails with EIO */
    SIM_ACT_FLIP,      /* one bit of what is read or written is another one */
    SIM_ACT_MISDIRECT, /* one atom of a write lands at another atom's place */
    SIM_ACT_LIE,       /* OK is returned and nothing was done: writes, syncs, renames, unlinks */
    SIM_ACT_DELAY      /* the call takes `delay_ns` longer */
};

struct sim_fault {
    enum sim_kind kind;
    uint64_t nth;       /* 1 = the next one that matches */
    int err;            /* the errno, positive; 0: a transfer of at most `bytes` */
    uint32_t bytes;     /* 0 is allowed: a write that writes nothing */
    bool sticky;        /* that one and all after it */
    const char *prefix; /* of the file's name; NULL = any; at most 39 bytes, copied */
    enum sim_action action;
    uint64_t delay_ns;
};

/* Up to 16 at a time. */
void sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault);
/* Faults as text, separated by blanks: OP[@PREFIX]:NTH:ACTION[:sticky].
 *   OP      open read write sync syncdir rename unlink truncate size list map memory
 *   ACTION  EIO ENOSPC EMFILE ENOMEM EINTR EAGAIN EACCES, short=BYTES, torn=BYTES,
 *           flip, misdirect, lie, delay=MILLISECONDS
 * for instance "write@log-:3:torn=512 sync:1:EIO:sticky". false, with nothing
 * changed: not of this form, or too many. */
bool sim_disk_script(struct sim_disk *disk, const char *text);
/* The plain form: any file, an errno. */
void sim_disk_fail(struct sim_disk *disk, enum sim_kind kind, uint64_t nth, int err, bool sticky);
void sim_disk_heal(struct sim_disk *disk);
/* How many calls a fault has hit: a sweep over n ends when this stays 0. */
uint64_t sim_disk_fired(struct sim_disk *disk);
/* Calls of one kind so far, requests of a batch counted singly. */
uint64_t sim_disk_count(struct sim_disk *disk, enum sim_kind kind);

/* What systems are known to do. */
enum sim_sync_failure {
    SIM_SYNC_STAYS_DIRTY, /* a failed sync changed nothing; a second one could succeed */
    SIM_SYNC_MARKS_CLEAN, /* the data stays readable, counts as clean, and is lost in a power cut */
    SIM_SYNC_REVERTS,     /* reads find the old content again; such a disk maps no files */
    SIM_SYNC_LATE         /* the sync returns OK and did nothing; the next one of that file fails */
};

void sim_disk_set_sync_failure(struct sim_disk *disk, enum sim_sync_failure how);
/* Syncs return OK and do nothing: a control, under which durability tests must fail. */
void sim_disk_set_lying(struct sim_disk *disk, bool lying);
/* Sum of all file sizes; a write beyond it is short, then ENOSPC. 0 = no limit. */
void sim_disk_set_capacity(struct sim_disk *disk, uint64_t bytes);

/* ---- Clocks ------------------------------------------------------------- */

/* Both clocks; besides, each call on a handle takes a virtual microsecond. */
void sim_disk_advance(struct sim_disk *disk, uint64_t ns);
/* Somebody sets the wall clock; it may go back. */
void sim_disk_set_wall(struct sim_disk *disk, uint64_t ns);

/* ---- Looking and damaging (cache and platter alike, durable at once) ------ */

struct sim_file_info {
    char name[40];
    uint64_t bytes;         /* as a reader sees it */
    uint64_t durable_bytes; /* as POWER_NONE would leave it */
};

/* Fills up to `capacity` entries in name order; returns how many files there are. */
size_t sim_disk_files(struct sim_disk *disk, struct sim_file_info *out, size_t capacity);
/* What its files hold together, as readers see them: for a capacity that leaves so much more. */
uint64_t sim_disk_used_bytes(struct sim_disk *disk);
bool sim_disk_exists(struct sim_disk *disk, const char *name);
/* The cached content, borrowed until the disk changes. false: no such file. */
bool sim_disk_get(struct sim_disk *disk, const char *name, struct bytes *out);
/* Creates or replaces the whole file. */
void sim_disk_put(struct sim_disk *disk, const char *name, struct bytes content);
/* Bit 0 is the lowest bit of byte 0. The bit must be inside the file. */
void sim_disk_flip(struct sim_disk *disk, const char *name, uint64_t bit);
void sim_disk_resize(struct sim_disk *disk, const char *name, uint64_t bytes);
void sim_disk_delete(struct sim_disk *disk, const char *name);
/* Also from another disk; `to` is created or replaced. */
void sim_disk_copy(struct sim_disk *from_disk, const char *from, struct sim_disk *to_disk, const char *to);

/* ---- The log of operations ------------------------------------------------ */

/* Besides enum sim_kind. */
enum sim_log_kind {
    SIM_LOG_STORE = SIM_KINDS, /* stores into a mapped file, found out before the call that follows */
    SIM_LOG_MARK               /* sim_disk_mark; `offset` is its value */
};

/* What a sync did to the changes before it. */
enum sim_effect {
    SIM_EFFECT_NONE,
    SIM_EFFECT_DURABLE,
    SIM_EFFECT_DOUBTFUL, /* whether they are on the platter is decided by no later sync */
    SIM_EFFECT_REVERTED
};

struct sim_log_entry {
    uint64_t inode, offset, len, hash; /* hash: of the bytes or names; a sync of len 0 is of the whole file */
    uint32_t kind;                     /* enum sim_kind or sim_log_kind */
    int32_t result;
    uint64_t submit,
        complete; /* points in the sequence of both: a sync covers what completed before its submit */
    enum sim_effect effect;
    const uint8_t *data; /* while recording: the bytes that were changed; else NULL */
    char name[40], other[40];
};

/* Off at first. Only calls that change something, or try to, are entered. */
void sim_disk_set_log(struct sim_disk *disk, bool on);
/* The log with the data, so that io_sim_states.h can say what a crash at any
 * point would leave. What there is must be durable: a disk that is new, or was
 * shut down. Forgets the log so far. */
void sim_disk_record(struct sim_disk *disk);
/* An entry of the caller's own, by which it finds its way about in the log. */
void sim_disk_mark(struct sim_disk *disk, uint64_t value);
/* Called with every entry of a disk that records, the disk locked: `call`
 * before a change is made, and again when it was (`done`). Only the sim_watch_*
 * functions may be called from it. NULL = nobody. */
typedef void sim_watch_fn(void *ctx, struct sim_disk *disk, const struct sim_log_entry *entry, bool done);
void sim_disk_watch(struct sim_disk *disk, sim_watch_fn *watch, void *ctx);
/* Is every byte of that file, and its name, on the platter? */
bool sim_watch_is_durable(struct sim_disk *disk, const char *name);
/* Does the system believe that of the content (a failed sync may have made it)?
 * *out: what is on the platter. */
bool sim_watch_is_clean(struct sim_disk *disk, const char *name, struct bytes *out);
/* The same for the bytes before `to`. */
bool sim_watch_is_clean_to(struct sim_disk *disk, const char *name, uint64_t to);
/* For a look from outside a watcher. */
void sim_disk_lock_for_watch(struct sim_disk *disk, bool locked);
/* The cached, or what is surely on the platter, content. false: no such (durable) name. */
bool sim_watch_get(struct sim_disk *disk, const char *name, bool durable, struct bytes *out);
/* The same seed and the same calls give the same hash. */
uint64_t sim_disk_log_hash(struct sim_disk *disk);
/* Borrowed until the next call on a handle. */
const struct sim_log_entry *sim_disk_log(struct sim_disk *disk, size_t *count_out);

#endif
