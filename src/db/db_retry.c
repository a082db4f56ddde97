/* SPDX-License-Identifier: MIT */
/*
 * What background work fails with, and when it is tried again.
 *
 * Failures are of two classes: of logs and flushes, and of merges, which hold up
 * nobody until level 0 is full. Each class is tried again after a pause that
 * doubles while it keeps failing; a success or a call that asks for the work ends
 * the pause. When a disk was full, its free space is looked at in between: as soon
 * as there is more of it than when the work failed, everything is tried at once.
 *
 * Too few descriptors: those that only the cache has open are given back, and some
 * pauses go by before writers are told.
 *
 * Damage is a class of its own. Merges leave damaged segments alone, so waiting
 * helps nobody: its story is kept until the last damaged segment has left the tree,
 * whatever merges elsewhere succeed meanwhile, and writes that only a merge of
 * damaged segments could make room for are answered with it.
 */
#include "db/db.h"

enum {
    RETRY_FIRST_NS = 100000000,
    RETRY_DOUBLINGS = 6,        /* up to 6.4 seconds */
    RETRY_UNTOLD = 3,           /* pauses before writers are told that descriptors are short */
    RETRY_SPACE_NS = 100000000, /* between two looks at a full disk */
    RETRY_SPACE_BYTES = 4096    /* less than this is no more space than before */
};

static bool
retry_is_merge(const struct job *job)
{
    return job->urgency >= JOB_COMPACT_PRESS;
}

static esker_error *
retry_failure_of(esker_db *db, const struct job *job)
{
    return retry_is_merge(job) ? &db->merge_failure : &db->background;
}

static struct db_retry *
retry_of(esker_db *db, const struct job *job)
{
    return retry_is_merge(job) ? &db->merge_retry : &db->background_retry;
}

/* The clock of the timers that end the pauses. A simulated disk has one of its own,
 * which stands still while nobody uses the disk. */
static uint64_t
retry_now_ns(const esker_db *db)
{
    return db->manual ? io_monotonic_ns(db->io) : workers_clock_ns();
}

/* The pause after one more failure. Jobs of one class that fail within a pause are one failure. */
static uint64_t
retry_pause_locked(struct db_retry *retry, uint64_t now_ns)
{
    if (now_ns >= retry->due_ns) {
        uint64_t pause_ns = (uint64_t)RETRY_FIRST_NS << MIN(retry->failures, (uint32_t)RETRY_DOUBLINGS);
        retry->failures++;
        retry->due_ns = now_ns + pause_ns;
    }
    return retry->due_ns - now_ns;
}

uint64_t
db_background_begin(esker_db *db)
{
    mutex_lock(&db->mu);
    uint64_t attempt = db->attempt;
    mutex_unlock(&db->mu);
    return attempt;
}

/* Descriptors come and go with what else the process does: for a few pauses that is
 * nobody's answer. Without threads there are no timers to wait for. mu held. */
static bool
retry_may_pass_locked(const esker_db *db, const struct db_retry *retry, const esker_error *story)
{
    return status_lacks_files(story) && !db->manual && retry->failures < RETRY_UNTOLD;
}

/* Is it told to whom it concerns? Not what is damage, which has a story of its own,
 * nor an answer to what was asked before somebody asked anew. mu held. */
static bool
retry_is_told_locked(const esker_db *db, const struct job *job, const esker_error *story, uint64_t attempt)
{
    if (retry_is_merge(job) && story->status == ESKER_CORRUPT) {
        return false;
    }
    return attempt == db->attempt || story->status == ESKER_CORRUPT;
}

void
db_background_failed(esker_db *db, struct job *again, uint64_t attempt)
{
    esker_error story = *status_last();
    uint64_t free_bytes = UINT64_MAX;
    if (story.status == ESKER_NO_SPACE && io_free_bytes(db->io, &free_bytes) != ESKER_OK) {
        free_bytes = UINT64_MAX; /* then there is only the pause */
    }
    if (status_lacks_files(&story)) {
        block_cache_shed_holders(db->cache);
    }
    mutex_lock(&db->mu);
    struct db_retry *retry = retry_of(db, again);
    retry->untold = retry_may_pass_locked(db, retry, &story);
    if (!retry->untold && retry_is_told_locked(db, again, &story, attempt)) {
        *retry_failure_of(db, again) = story;
    }
    db->space_seen_bytes = free_bytes;
    uint64_t pause_ns = retry_pause_locked(retry, retry_now_ns(db));
    if (!retry->untold) { /* else those who wait would only kick the job again, at once */
        cond_broadcast(&db->changed);
    }
    mutex_unlock(&db->mu);
    db_emit(db, ESKER_EVENT_BACKGROUND, 0, 0, &story);
    if (!db->manual) {
        job_kick_after(again, pause_ns);
    }
    if (!db->manual && free_bytes != UINT64_MAX) {
        job_kick_after(&db->space_job, RETRY_SPACE_NS);
    }
}

void
db_background_ok(esker_db *db, const struct job *job)
{
    mutex_lock(&db->mu);
    retry_failure_of(db, job)->status = ESKER_OK;
    *retry_of(db, job) = (struct db_retry){0};
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
}

void
db_try_again_locked(esker_db *db)
{
    db->attempt++;
    db->background.status = ESKER_OK;
    db->merge_failure.status = ESKER_OK;
    db->background_retry = (struct db_retry){0};
    db->merge_retry = (struct db_retry){0};
}

bool
db_merges_pause(esker_db *db, uint64_t *left_ns_out)
{
    uint64_t now_ns = retry_now_ns(db);
    mutex_lock(&db->mu);
    bool failed = db->merge_failure.status != ESKER_OK || db->merge_retry.untold;
    uint64_t due_ns = failed ? db->merge_retry.due_ns : 0;
    mutex_unlock(&db->mu);
    *left_ns_out = due_ns > now_ns ? due_ns - now_ns : 0;
    return due_ns > now_ns && !db->manual; /* without threads there are no timers */
}

bool
db_merges_fail(esker_db *db)
{
    uint64_t left_ns;
    mutex_lock(&db->mu);
    bool failed = db->merge_retry.failures > 0;
    mutex_unlock(&db->mu);
    return db->manual ? failed : db_merges_pause(db, &left_ns);
}

/* ---- A full disk ------------------------------------------------------------------ */

/* Does anything wait for space, and is there more of it? mu held. */
static bool
retry_space_grew_locked(esker_db *db, uint64_t free_bytes)
{
    uint64_t seen = db->space_seen_bytes;
    db->space_seen_bytes = MIN(seen, free_bytes);
    return free_bytes > seen && free_bytes - seen >= RETRY_SPACE_BYTES;
}

void
db_space_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, space_job);
    uint64_t free_bytes = 0;
    if (io_free_bytes(db->io, &free_bytes) != ESKER_OK) {
        return; /* the pauses are left */
    }
    mutex_lock(&db->mu);
    bool waits = db->background.status == ESKER_NO_SPACE || db->merge_failure.status == ESKER_NO_SPACE;
    bool grew = waits && retry_space_grew_locked(db, free_bytes);
    if (grew) {
        db->space_seen_bytes = free_bytes;
        db->background_retry = (struct db_retry){0};
        db->merge_retry = (struct db_retry){0};
    }
    mutex_unlock(&db->mu);
    if (grew) {
        job_kick(&db->prepare_job);
        job_kick(&db->flush_job);
        db_kick_compaction(db);
    }
    if (waits && !db->manual) {
        job_kick_after(job, RETRY_SPACE_NS);
    }
}

/* ---- Damage ------------------------------------------------------------------------ */

void
db_damage_note_locked(esker_db *db, const esker_error *story)
{
    if (db->damage.status == ESKER_OK) {
        db->damage = *story;
    }
}

/* Whoever asks for a merge of everything has what is damaged tried anew: the disk may have healed. */
void
db_damage_try_again(esker_db *db)
{
    mutex_lock(&db->mu);
    db->damaged_count = 0;
    db->damage.status = ESKER_OK;
    db->level0_stuck = false;
    mutex_unlock(&db->mu);
}

/* Segments that left the tree; a move keeps them there. */
void
db_damage_forget_locked(esker_db *db, const struct edit *edit)
{
    db->level0_stuck = false; /* the tree is another: the next look says */
    for (size_t i = 0; i < edit->drop_segment_count && db->damaged_count > 0; i++) {
        bool stays = false;
        for (size_t k = 0; k < edit->add_segment_count; k++) {
            stays = stays || edit->add_segments[k].id == edit->drop_segments[i];
        }
        for (size_t at = 0; at < db->damaged_count && !stays; at++) {
            if (db->damaged_ids[at] == edit->drop_segments[i]) {
                db->damaged_ids[at] = db->damaged_ids[--db->damaged_count];
                break;
            }
        }
    }
    if (db->damaged_count == 0) {
        db->damage.status = ESKER_OK;
    }
}
