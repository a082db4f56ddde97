/* SPDX-License-Identifier: MIT */
/* What the two ways of getting share: one key (db_read.c), many (db_read_many.c). */
#ifndef ESKER_DB_DB_READ_INTERNAL_H
#define ESKER_DB_DB_READ_INTERNAL_H

#include "db/db.h"

/* Where a lookup stands and what it found. */
struct lookup {
    esker_db *db;
    struct version *version;
    struct bytes key;
    uint64_t snapshot_lsn;
    uint64_t filter_hash;
    bool fill_cache;
    bool from_memtable;
    bool again;        /* its time is that of a look before, at an earlier state */
    bool past_windows; /* the key is in none of them; the slow path goes on in the runs */
    uint64_t now_ms;   /* what expiring rows are judged by; 0 = the time at which the first is met */
    struct bytes value;
    struct frame_ref *frame; /* pinned (slow path) or NULL */
    /* Which segment is next, or is being asked. */
    uint32_t level, index; /* index: in level 0, and where by_next says so */
    struct segment_hit hit;
};

/* Field by field: clearing all of it would cost more than the rest of a call's entry. */
static inline void
read_lookup_init(struct lookup *lookup, esker_db *db, struct bytes key)
{
    lookup->db = db;
    lookup->version = NULL;
    lookup->key = key;
    lookup->snapshot_lsn = 0;
    lookup->filter_hash = 0;
    lookup->fill_cache = true;
    lookup->from_memtable = false;
    lookup->again = false;
    lookup->past_windows = false;
    lookup->now_ms = 0;
    lookup->value = bytes_make(NULL, 0);
    lookup->frame = NULL;
    lookup->level = 0;
    lookup->index = 0;
    lookup->hit.place.stage = SEGMENT_STAGE_NONE;
    lookup->hit.frame = NULL;
    lookup->hit.status = ESKER_OK;
}

/* What was found gives the key a value, which is now as it was put. */
static inline bool
read_is_put(struct lookup *lookup, enum entry_op op)
{
    return LIKELY(op == ENTRY_PUT) ||
           (op == ENTRY_PUT_EXPIRING && db_expiring_lives(lookup->db, &lookup->value, &lookup->now_ms));
}

/* The segment at the lookup's place, or the next that may hold the key; NULL: there is none. */
static inline struct segment *
read_segment_at(struct lookup *lookup)
{
    const struct version *version = lookup->version;
    if (lookup->level == 0) { /* mostly each tier is one segment */
        const struct level_run *level0 = version->levels[0];
        if (level0 != NULL && !level0->by_next && lookup->index < level0->count) {
            return level0->segments[lookup->index];
        }
    }
    uint32_t ahead = version->levels_used >> lookup->level << lookup->level;
    for (; ahead != 0; ahead &= ahead - 1) {
        uint32_t level = (uint32_t)__builtin_ctz(ahead);
        const struct level_run *run = version->levels[level];
        uint32_t from = level == lookup->level ? lookup->index : 0;
        uint32_t index = UNLIKELY(run->by_next) ? level_run_next(run, lookup->key, from)
                         : level == 0           ? from
                                                : level_run_seek(run, lookup->key);
        if (index < run->count) {
            lookup->level = level;
            lookup->index = index;
            return run->segments[index];
        }
    }
    lookup->level = ESKER_LEVELS_MAX;
    return NULL;
}

/* The segment at the lookup's place does not have the key. */
static inline void
read_next_segment(struct lookup *lookup)
{
    lookup->hit.place.stage = SEGMENT_STAGE_NONE;
    if (lookup->level == 0 || UNLIKELY(lookup->version->levels[lookup->level]->by_next)) {
        lookup->index++;
    } else {
        lookup->level++;
        lookup->index = 0;
    }
}

/* Inside a section: version first, then the LSN (version.h says why). */
void read_begin(struct lookup *lookup, const struct esker_snapshot *snapshot);
bool read_windows(struct lookup *lookup, enum entry_op *op_out);
void read_count(esker_db *db, const struct thread_state *self, bool found, bool from_memtable);
NODISCARD esker_status read_check(const esker_db *db, esker_slice key, const esker_read_options *options,
                                  const struct esker_snapshot **snapshot_out, bool *fill_out);
/* With the version referenced and no section; gives the reference back or into
 * the value, and so the frame's pin. */
NODISCARD esker_status read_value_held(struct lookup *lookup, esker_value *value_out);

#endif
