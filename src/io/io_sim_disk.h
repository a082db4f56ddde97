/* SPDX-License-Identifier: MIT */
/* Private to the simulated disk: its state. All of it is guarded by `guard`. */
#ifndef ESKER_IO_IO_SIM_DISK_H
#define ESKER_IO_IO_SIM_DISK_H

#include "base/rng.h"
#include "io/io_sim.h"
#include "sync/atomic.h"
#include "sync/mutex.h"

enum { SIM_NAME_BYTES = 40 };

/* Cut where it does not fit. Names are copied for every call: too often for a printf. */
static inline void
sim_name_copy(char out[SIM_NAME_BYTES], const char *name)
{
    size_t len = strnlen(name, SIM_NAME_BYTES - 1);
    memcpy(out, name, len);
    out[len] = '\0';
}

/* The bytes of an image, shared by whoever has the same ones, also among disks
 * (that is what makes a clone cheap), and copied before a write. Mappings point
 * into one: it stays where it is while a mapping is left, even after the file
 * has moved on without it. */
struct sim_blob {
    _Atomic uint32_t refs; /* pairs: SIM_BLOB */
    uint64_t cap;
    uint8_t *bytes;
};

enum sim_atom { SIM_ATOM_DIRTY = 1, SIM_ATOM_MIDDLE = 2 };

/*
 * Invariants
 *  D1 Every image has cache->cap bytes, a multiple of an atom; beyond its
 *     length it holds zeros.
 *  D2 An atom without DIRTY is equal in `cache` and in the clean image (for a
 *     mapped file: since the last sim_inode_scan).
 *  D3 The cache image of a mapped file belongs to that file alone.
 */
struct sim_inode {
    struct sim_inode *next;
    uint64_t id;
    uint32_t refs; /* names, durable names, name changes, open files, mappings */
    uint32_t maps;
    struct sim_blob *cache;   /* NULL until the first byte */
    struct sim_blob *durable; /* the platter; NULL = zeros */
    struct sim_blob *clean;   /* what the kernel believes the platter holds; NULL = `durable` */
    struct sim_blob *middle;  /* for atoms with MIDDLE: a content between two syncs */
    struct sim_blob *seen;    /* while recording and mapped: what the log of operations knows */
    uint8_t *flags;           /* per atom */
    uint64_t len;
    uint64_t durable_len;
    uint64_t len_min, len_max; /* since the last sync */
    bool len_dirty;
    int late_err;           /* what the next sync returns whatever it does */
    struct sim_inode *twin; /* while cloning */
    bool counted;           /* while space is counted */
};

struct sim_name {
    char name[40];
    struct sim_inode *inode;
};

struct sim_names {
    struct sim_name *items;
    size_t count, cap;
};

/* A change of names that no directory sync has covered yet: `name` now means
 * `inode`, or nothing if that is NULL; a rename also ends `old`. */
struct sim_change {
    char name[40], old[40];
    struct sim_inode *inode;
};

struct sim_map {
    struct sim_map *next;
    struct io *io;
    struct sim_blob *blob;
    struct sim_inode *inode; /* NULL after a crash */
};

struct sim_file {
    struct io_file base;
    struct sim_inode *inode; /* NULL after a crash */
    bool writable;
    struct sim_file *next;
};

enum { SIM_FAULTS_MAX = 16 };

struct sim_disk {
    struct mutex guard;
    uint64_t seed;
    struct rng rng;
    /* Images. */
    struct sim_inode *inodes;
    uint64_t next_inode;
    struct sim_names names, durable_names;
    struct sim_change *changes;
    size_t change_count, change_cap;
    uint64_t capacity; /* 0 = unlimited */
    /* Handles. */
    uint64_t life; /* a handle of an earlier life is dead */
    bool off;
    size_t handles;
    struct io *lock_owner;
    struct sim_file *files;
    struct sim_map *maps;
    /* The clocks. Not guarded: they are looked at inside epoch sections, too. */
    _Atomic uint64_t now_ns, boot_ns, wall_offset_ns;
    uint64_t boot;
    /* Faults and counters. */
    uint64_t counts[SIM_KINDS], mutations, fired, cut_at; /* cut_at: 0 = never */
    struct sim_fault faults[SIM_FAULTS_MAX];
    char fault_prefixes[SIM_FAULTS_MAX][40];
    size_t fault_count;
    enum sim_sync_failure sync_failure;
    bool lying;
    /* Log. */
    bool logging, recording;
    struct sim_log_entry *log;
    size_t log_count, log_cap;
    uint64_t log_hash;
    uint64_t point, batch_submit; /* batch_submit: of the run under way, 0 = none */
    sim_watch_fn *watch;
    void *watch_ctx;
};

/* Moves time on; returns what it then is. */
static inline uint64_t
sim_clock_add(struct sim_disk *disk, uint64_t ns)
{
    return add_relaxed(&disk->now_ns, ns) + ns; /* relaxed: a number */
}

/* ---- The log: io_sim_record.c --------------------------------------------- */

/* A run of requests begins: one submit point for all of them. */
void sim_record_batch(struct sim_disk *disk);
/* Before a change: stores so far, and the watcher. */
void sim_record_before(struct sim_disk *disk, const struct sim_log_entry *entry);
/* After it; data: the bytes, nullable. */
void sim_record(struct sim_disk *disk, struct sim_log_entry *entry, const uint8_t *data);
void sim_record_clear(struct sim_disk *disk);
/* Before a file is mapped: what is stored from now on can be told. */
void sim_record_mapped(const struct sim_disk *disk, struct sim_inode *inode);

/* Memory of the disk itself: zeroed, never NULL. */
void *sim_alloc(size_t size);
/* Room for one more item in an array. */
void sim_grow(void **items, size_t count, size_t *cap, size_t size);

/* ---- Inodes --------------------------------------------------------------- */

/* With one reference. */
struct sim_inode *sim_inode_create(struct sim_disk *disk);
struct sim_inode *sim_inode_ref(struct sim_inode *inode);
/* Frees it with the last one; NULL is fine. */
void sim_inode_unref(struct sim_disk *disk, struct sim_inode *inode);
/* Room for `bytes`; while mapped the place is fixed: -EFBIG. */
int sim_inode_reserve(struct sim_inode *inode, uint64_t bytes);
int sim_inode_write(struct sim_disk *disk, struct sim_inode *inode, uint64_t offset, const void *data,
                    uint32_t len);
/* Bytes read: fewer at the end of the file. */
uint32_t sim_inode_read(const struct sim_inode *inode, uint64_t offset, void *data, uint32_t len);
int sim_inode_truncate(struct sim_disk *disk, struct sim_inode *inode, uint64_t size);
/* Of the bytes [from, to); a whole file ends at UINT64_MAX. */
void sim_inode_sync(struct sim_inode *inode, uint64_t from, uint64_t to);
/* The failed sync of SIM_SYNC_MARKS_CLEAN. */
void sim_inode_mark_clean(struct sim_inode *inode, uint64_t from, uint64_t to);
/* The failed sync of SIM_SYNC_REVERTS: the cache holds again what the platter does. */
void sim_inode_revert(struct sim_inode *inode, uint64_t from, uint64_t to);
/* The cache image, to be written. */
uint8_t *sim_inode_edit(struct sim_inode *inode);
/* Finds out which atoms of a mapped file were stored to. */
void sim_inode_scan(struct sim_inode *inode);
/* A copy of the whole cache image. */
void sim_inode_snapshot(const struct sim_inode *inode, uint8_t *out);
/* The mappings keep the bytes, the file goes on with a copy. */
void sim_inode_detach(struct sim_inode *inode);
/* Its bytes are not yet set. */
struct sim_blob *sim_blob_create(uint64_t cap);
struct sim_blob *sim_blob_ref(struct sim_blob *blob);
void sim_blob_unref(struct sim_blob *blob);
/* The image's bytes, to be written: zeros if there was none, a copy if it was shared. */
uint8_t *sim_image_edit(struct sim_blob **image, uint64_t cap);
/* Copies or compares `len` bytes (whole words) of memory that others may be storing to. */
void sim_device_copy_range(uint8_t *image, const uint8_t *memory, uint64_t len);
bool sim_device_differs_range(const uint8_t *memory, const uint8_t *image, uint64_t len);

/* ---- Names --------------------------------------------------------------- */

/* Borrowed; NULL when there is none. */
struct sim_inode *sim_names_find(const struct sim_names *names, const char *name);
/* Sets (taking a reference of its own) or, with NULL, removes. */
void sim_names_set(struct sim_disk *disk, struct sim_names *names, const char *name, struct sim_inode *inode);
/* Changes the current names and notes the change. old: "" or the name that a rename ends. */
void sim_disk_change_name(struct sim_disk *disk, const char *name, const char *old, struct sim_inode *inode);
/* The first `count` noted changes become durable, the rest stays noted. */
void sim_disk_sync_names(struct sim_disk *disk, size_t count);

/* All handles die now, and what is mapped stays as it is at this moment. */
void sim_disk_freeze(struct sim_disk *disk);

#endif
