/* SPDX-License-Identifier: MIT */
/*
 * Indexes and filters before readers come to them. Opening touches no segment, so after it
 * each segment's first reader waits until its index and filter are there: about as long as for
 * ten blocks. Once readers meet such segments, this job loads others: 4 for the first, 8 for
 * the next and so on, as read-ahead grows, so that a database of which little is read stays
 * small. It begins at the end, since gets and walks come from the front, and ends for good
 * where all were looked at or there is no room to hold the next one whole.
 *
 * Who fails here is silent: the reader who needs the segment is told.
 */
#include "db/db.h"

enum { LOAD_FIRST = 4, LOAD_ASKS_MAX = 20 };

#define LOAD_DONE UINT32_MAX

void
db_load_ahead(esker_db *db)
{
    /* relaxed: hints of how much is wanted; two who ask at once may count as one. */
    uint32_t asked = load_relaxed(&db->load_asked);
    if (asked < LOAD_ASKS_MAX) {
        store_relaxed(&db->load_asked, asked + 1);
        job_kick(&db->load_job);
    }
}

/* The next segment of the walk, from the last one of the deepest level on; NULL: there is none. */
static struct segment *
load_next(esker_db *db, const struct version *version)
{
    for (; db->load_level < ESKER_LEVELS_MAX; db->load_level++) {
        const struct level_run *run = version->levels[ESKER_LEVELS_MAX - 1 - db->load_level];
        uint32_t count = run != NULL ? run->count : 0;
        if (db->load_index < count) {
            return run->segments[count - 1 - db->load_index++];
        }
        db->load_index = 0;
    }
    return NULL;
}

/* 4, 8, 16 and so on, together. */
static uint64_t
load_wanted(uint32_t asked)
{
    return ((uint64_t)LOAD_FIRST << asked) - LOAD_FIRST;
}

void
db_load_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, load_job);
    struct thread_state *self = thread_state_get();
    uint32_t asked = load_relaxed(&db->load_asked); /* relaxed: a hint */
    if (self == NULL || asked == LOAD_DONE || db->load_count >= load_wanted(asked)) {
        return;
    }
    struct version *version = db_current_ref(db, self);
    struct segment *segment = load_next(db, version);
    if (segment == NULL || segment_load_ahead(segment) != ESKER_OK) {
        store_relaxed(&db->load_asked, LOAD_DONE); /* relaxed: a hint; who overwrites it asks once more */
    } else {
        db->load_count++;
        job_kick(job);
    }
    version_unref(version);
}
