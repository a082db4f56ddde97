/* SPDX-License-Identifier: MIT */
/*
 * A version: which windows and segments make up the database at one moment.
 * Immutable once published; published by one atomic exchange and retired
 * through the epoch (sync/epoch.h).
 *
 * Concurrency by role
 *  Readers: inside an epoch section, load `current` (acquire) and use it until
 *     the section ends; version_ref inside the section keeps it longer. Read the
 *     version first and `visible` second, and clamp the LSN to version->end_lsn:
 *     a compaction could otherwise take away what the older LSN still needs.
 *  Installers: hold the database's mutex; version_publish.
 *  The reference of `current` is dropped only after a grace period, so a
 *  reader inside a section finds refs >= 1.
 *
 * Level arrays are shared between versions and counted on their own, so a
 * change costs the level that changed.
 */
#ifndef ESKER_VERSION_VERSION_H
#define ESKER_VERSION_VERSION_H

#include "segment/segment.h"
#include "sync/epoch.h"
#include "sync/mutex.h"
#include "version/window.h"

/* One sorted run of segments (level >= 1), or level 0: a stack of sorted runs, its tiers, newest first. */
struct level_run {
    _Atomic uint32_t refs; /* pairs: RUN_REFS */
    uint32_t count;
    const struct mem *mem;
    uint64_t size_bytes;
    uint64_t *upper_prefix; /* bytes_prefix64 of each max key; UINT64_MAX = no bound */
    uint32_t
        *tier_end; /* of each segment: the index behind the last one of its tier; a sorted level is one */
    uint32_t tier_count;
    /* A lookup goes through level_run_next. Level 0: some tier has more than one segment; else each is
     * asked. Others: bounds, which are rounded outwards, meet somewhere though the rows do not: keys that
     * share their first EDIT_KEY_BYTES_MAX bytes lie in neighbours. */
    bool by_next;
    struct segment *segments[];
};

enum { WINDOWS_MAX = 64 };

/* A database's versions that are not freed yet, in the order in which they were
 * published: for statistics and close. Zeroed but for the mutex: empty. */
struct version_list {
    struct mutex mutex; /* nothing is taken under it */
    /* guarded by mutex */
    struct version *oldest, *newest;
    uint64_t count;
};

struct version {
    struct epoch_node node;
    _Atomic uint64_t refs; /* pairs: VERSION_REFS */
    const struct mem *mem;
    /* guarded by list->mutex, but for list itself */
    struct version_list *list; /* NULL: version_create_levels made it */
    struct version *older, *newer;
    uint64_t replaced_ns; /* when it ceased to be `current`; 0 = it is, or never was */
    /* immutable once published */
    uint64_t id;      /* from 1 */
    uint64_t end_lsn; /* where the newest window ends: no reader of this version sees more */
    uint32_t window_count;
    uint32_t levels_used;                       /* a bit for each level that is not empty */
    struct window *windows[WINDOWS_MAX];        /* newest first */
    struct level_run *levels[ESKER_LEVELS_MAX]; /* NULL = empty */
};

/* An empty version with one reference (it becomes that of `current`). */
NODISCARD esker_status version_create(const struct mem *mem, struct version_list *list, struct version **out);
/* The levels of `of` without its windows, whose memory is free once they are flushed: for merges. It is in no
 * list and is not published. One reference. */
NODISCARD esker_status version_create_levels(const struct version *of, struct version **out);
void version_ref(struct version *version);
/* The last one drops windows and level arrays. Not inside an epoch section. */
void version_unref(struct version *version);

/* What `current` names, with a reference. Not inside a section. */
struct version *version_current_ref(_Atomic(struct version *) *current, struct thread_state *self);

/* Fills in (each takes references of its own). */
void version_set_windows(struct version *version, struct window *const *windows, uint32_t count);
void version_set_level(struct version *version, uint32_t level, struct level_run *run /* nullable */);

/* Swaps `current` and retires what was there, replaced at now_ns. Caller holds the database's mutex. */
void version_publish(_Atomic(struct version *) *current, struct version *next, uint64_t now_ns);

uint64_t version_list_count(struct version_list *list);
/* The oldest that was replaced but that somebody still holds, with a reference
 * more; NULL = none. What waits for its grace period alone counts as held. */
struct version *version_list_oldest_ref(struct version_list *list, uint64_t *replaced_ns_out);
/* Bytes of the windows (indexes included) and segments that it keeps and
 * `current` does not. NO_MEMORY. */
NODISCARD esker_status version_kept_bytes(const struct version *version, const struct version *current,
                                          uint64_t *bytes_out);

/* A run of `count` segments, each referenced once more, in their order: by key, or in level 0 as
 * segment_meta_compare_tiers says. One reference. */
NODISCARD esker_status level_run_create(const struct mem *mem, struct segment *const *segments,
                                        uint32_t count, bool is_level0, struct level_run **out);
void level_run_ref(struct level_run *run);
void level_run_unref(struct level_run *run /* nullable */);

/* For sorted levels: the index of the first segment whose max key is >= key; count if there is none.
 * Where bounds touch the key may be in one of those behind it. */
uint32_t level_run_seek(const struct level_run *run, struct bytes key);
/* The same within segments [begin, end), a tier; end if there is none. */
uint32_t level_run_seek_tier(const struct level_run *run, struct bytes key, uint32_t begin, uint32_t end);
/* Any level. Of those that may hold the key the first from `from` on, which is 0 or behind the last one
 * that it gave; count if there is none. */
uint32_t level_run_next(const struct level_run *run, struct bytes key, uint32_t from);

uint32_t level_run_tiers(const struct level_run *run /* nullable */);

/* All rows of segments [begin, end) of a run, which are a sorted level or a tier, opening segments as it
 * goes. The caller keeps the version. */
void level_iter_set_bounds(struct iter *it, struct iter_bounds bounds); /* as segment_iter_set_bounds */
NODISCARD esker_status level_iter_create(const struct level_run *run, uint32_t begin, uint32_t end,
                                         bool through_cache, const struct mem *mem, struct iter **out);
/* The same of the tier that begins at segment *at, which moves behind it. */
NODISCARD esker_status level_iter_create_tier(const struct level_run *run, uint32_t *at, bool through_cache,
                                              struct iter_bounds bounds, const struct mem *mem,
                                              struct iter **out);

/* Every row of the version with LSN < limit_lsn in the windows, merged. bounds: as
 * segment_iter_set_bounds; rows outside are shown all the same. mem, which the caller charges, is
 * used by whoever walks alone. */
NODISCARD esker_status version_iter_create(const struct version *version, uint64_t limit_lsn,
                                           struct iter_bounds bounds, const struct mem *mem,
                                           struct iter **out);

#endif
