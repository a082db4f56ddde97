/* SPDX-License-Identifier: MIT */
/*
 * Who merges when. Background jobs take parts of running merges first, then
 * plan new ones; each run of a job is one step, so that what is more urgent
 * comes in between. An explicit esker_compact lets running merges finish, holds
 * new ones back, and merges in the calling thread, with the jobs' help.
 *
 * A merge that meets damage stops and keeps its inputs; the failure is told,
 * the background leaves the damaged segment alone from then on, and writes go
 * on until level 0 is full of what cannot be merged. Other failures, a full disk
 * above all, are told and tried again later (db_retry.c).
 *
 * Urgency. A merge of level 0 comes before others. While there is little debt
 * (db_pace.c) all of it is done by the idle thread, but for the end of a merge,
 * which takes locks that writers take too. While there is so much that writers are
 * slowed down, all of it is done by threads as urgent as theirs.
 */
#include "db/db_compact.h"

enum {
    COMPACT_IDLE_STEPS = 16 /* between two looks at the pool, whose lock an idle thread should seldom hold */
};

void
db_kick_compaction(esker_db *db)
{
    for (uint32_t i = 0; i < db->compact_job_count; i++) {
        job_kick(&db->compact_jobs[i].job);
    }
}

/* ---- Background ----------------------------------------------------------------- */

static enum job_urgency
compact_urgency(esker_db *db, const struct compact_job *self)
{
    const struct compact_run *run = self->part != NULL ? self->part->run : self->begun;
    if (run == NULL) {
        /* The end of a run, or a look at the tree. Looks are kicked by all who wait,
         * and must not go before the steps that these wait for. */
        bool ends = self->ended != NULL;
        bool press = load_relaxed(&db->merges_press); /* relaxed: a hint */
        return ends && press ? JOB_COMPACT_PRESS : ends ? JOB_COMPACT_L0 : JOB_COMPACT;
    }
    /* relaxed: a hint */
    if (!run->awaited && load_relaxed(&db->merges_are_idle)) {
        return JOB_COMPACT_IDLE;
    }
    if (load_relaxed(&db->merges_press)) { /* relaxed: the same */
        return JOB_COMPACT_PRESS;
    }
    return run->plan->input_level == 0 ? JOB_COMPACT_L0 : JOB_COMPACT;
}

/* Something to do for the job: a part that waits, else a new plan. */
static esker_status
compact_find_work(struct compact_job *self)
{
    esker_db *db = self->db;
    if (load_relaxed(&db->cancel)) { /* relaxed: a request to stop, sooner or later */
        return ESKER_OK;
    }
    self->attempt = db_background_begin(db);
    self->part = compact_take_part(db, NULL);
    if (self->part != NULL) {
        return ESKER_OK;
    }
    struct compact_run *run = NULL;
    uint64_t pause_ns;
    if (db_merges_pause(db, &pause_ns)) {
        job_kick_after(&self->job, pause_ns);
        return ESKER_OK;
    }
    TRY(compact_plan(db, NULL, false, &run));
    if (run != NULL) {
        run->attempt = self->attempt;
        self->begun = run;
    }
    return ESKER_OK;
}

static esker_status
compact_choose(struct compact_job *self)
{
    struct db_step begun = db_step_begin(self->db);
    esker_status status = compact_find_work(self);
    if (self->part != NULL || self->begun != NULL) { /* else it was but a look */
        db_step_end(self->db, &begun, ESKER_STEP_CHOOSE);
    }
    return status;
}

/* One step of a beginning. A run that fails there is given up: *gone_out, and OK if it is worth
 * another plan. */
static esker_status
compact_begin_or_give_up(struct compact_run *run, bool *gone_out)
{
    esker_status status = compact_begin_step(run);
    *gone_out = status < ESKER_OK;
    return *gone_out ? compact_give_up(run) : status;
}

static esker_status
compact_begin_some(struct compact_job *self)
{
    struct compact_run *run = self->begun;
    bool moves =
        run->plan->trivial_move || run->plan->drop; /* once there are parts, others may end the run */
    bool gone = false;
    esker_status status = compact_begin_or_give_up(run, &gone);
    if (status == ESKER_OK && !gone) {
        return ESKER_OK;
    }
    self->begun = NULL;
    if (status == ESKER_OK) {
        job_kick(&self->job);
    }
    if (status == ESKER_END && moves) {
        self->ended = run;
    } else if (status == ESKER_END) {
        self->part = compact_take_part(self->db, run);
    }
    return status == ESKER_END ? ESKER_OK : status;
}

/* A merge that goes down takes long where much is below, and new tiers pile up meanwhile: to merge them with
 * one another comes first. The part in hand is set aside, and taken up again afterwards. */
static bool
compact_turns_to_tiers(struct compact_job *self)
{
    esker_db *db = self->db;
    struct compact_run *run = NULL;
    if (!load_relaxed(&db->tiers_wait) || self->part->run->plan->output_level == 0) { /* relaxed: a hint */
        return false;
    }
    if (db_merges_fail(db)) {
        return false; /* the part in hand may be all that can be merged */
    }
    store_relaxed(&db->tiers_wait, false); /* relaxed: the next flush says it again */
    esker_status status = compact_plan(db, NULL, true, &run);
    IGNORE_STATUS(status, "the part in hand goes on");
    if (status != ESKER_OK || run == NULL) {
        return false;
    }
    compact_put_part_back(db, self->part);
    self->part = NULL;
    self->attempt = db_background_begin(db);
    run->attempt = self->attempt;
    self->begun = run;
    return true;
}

/* Steps of the part in hand; one, or some on the idle thread. */
static void
compact_do_steps(struct compact_job *self)
{
    struct compact_part *part = self->part;
    esker_status status = ESKER_OK;
    int steps = self->job.urgency == JOB_COMPACT_IDLE ? COMPACT_IDLE_STEPS : 1;
    for (int i = 0; i < steps && status == ESKER_OK; i++) {
        status = compact_part_step(part);
        if (!load_relaxed(&self->db->merges_are_idle)) { /* relaxed: a hint */
            break;
        }
    }
    if (status != ESKER_OK) {
        struct compact_run *run = part->run;
        bool awaited = run->awaited; /* once the last part has ended an awaited run is its caller's */
        self->part = NULL;
        bool last = compact_part_ended(part, status);
        self->ended = last && !awaited ? run : NULL;
    }
}

/* A pause is for new plans: a part that was set aside goes on, and without threads nobody else takes it. */
static void
compact_failed(struct compact_job *self, uint64_t attempt)
{
    esker_db *db = self->db;
    if (load_relaxed(&db->cancel)) { /* relaxed: what the merge saw, this sees */
        return;
    }
    db_background_failed(db, &self->job, attempt);
    mutex_lock(&db->mu);
    bool waits = db->compact_parts != NULL;
    mutex_unlock(&db->mu);
    if (waits) {
        job_kick(&self->job);
    }
}

/* True when the job has more to do. */
static bool
compact_end_run(struct compact_job *self)
{
    esker_db *db = self->db;
    struct compact_run *run = self->ended;
    uint64_t attempt = run->attempt;
    if (compact_hand_over(run) == ESKER_OK) {
        return true;
    }
    self->ended = NULL;
    if (compact_finish(run) == ESKER_OK) {
        db_background_ok(db, &self->job);
        db_kick_compaction(db);
        return true;
    }
    compact_failed(self, attempt);
    return false;
}

/* What is not due while writes come in may be when they rest. */
static void
compact_look_again(esker_db *db, struct job *job)
{
    mutex_lock(&db->mu);
    const struct level_run *level0 = load_acquire(&db->current)->levels[0]; /* pairs: CURRENT */
    bool later = !db->writes_rest && level0 != NULL;
    uint64_t delay_ns = db_expiry_next_ns(db, load_acquire(&db->current)); /* pairs: CURRENT */
    mutex_unlock(&db->mu);
    delay_ns = later ? MIN(delay_ns, (uint64_t)DB_LOOK_NS) : delay_ns;
    if (delay_ns != UINT64_MAX && job == &db->compact_jobs[0].job) {
        job_kick_after(job, delay_ns);
    }
}

void
db_compact_job(struct job *job)
{
    struct compact_job *self = CONTAINER_OF(job, struct compact_job, job);
    bool more = true;
    if (self->ended != NULL) {
        more = compact_end_run(self);
    } else if (self->part != NULL) {
        if (!compact_turns_to_tiers(self)) {
            compact_do_steps(self);
        }
    } else if ((self->begun != NULL ? compact_begin_some(self) : compact_choose(self)) != ESKER_OK) {
        more = false;
        compact_failed(self, self->attempt);
    } else {
        more = self->part != NULL || self->ended != NULL || self->begun != NULL;
        if (!more) {
            compact_look_again(self->db, job);
        }
    }
    enum job_urgency urgency = compact_urgency(self->db, self);
    if (urgency != job->urgency) {
        job_set_urgency(job, urgency);
    }
    if (more) {
        job_kick(job);
    }
}

void
db_compact_stop(esker_db *db)
{
    for (uint32_t i = 0; i < db->compact_job_count; i++) {
        db->compact_jobs[i].begun = NULL;
        db->compact_jobs[i].part = NULL;
        db->compact_jobs[i].ended = NULL;
    }
    db->compact_parts = NULL;
    while (db->compact_runs != NULL) {
        compact_abandon(db->compact_runs, NULL);
    }
}

/* One file in a run: it may take the file system milliseconds, and logs and flushes come before. */
void
db_purge_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, purge_job);
    db_pace_tell(db);
    db_event_tell_untold(db);
    mutex_lock(&db->mu);
    bool any = db->obsolete_count > 0;
    uint64_t id = any ? db->obsolete_ids[--db->obsolete_count] : 0;
    mutex_unlock(&db->mu);
    if (!any) {
        db_reserve_make_room(db);
        return;
    }
    char name[40];
    segment_file_name(id, name);
    IGNORE_STATUS(io_unlink(db->io, name), "an orphan is removed at the next open");
    job_kick(job);
}

/* ---- The explicit call ------------------------------------------------------ */

/* Does what parts of the run nobody else has taken, then waits for the others. */
static esker_status
compact_run_here(struct compact_run *run)
{
    esker_db *db = run->db;
    bool gone = false;
    esker_status status;
    do {
        status = compact_begin_or_give_up(run, &gone);
    } while (status == ESKER_OK && !gone);
    if (gone) {
        return status;
    }
    struct compact_part *part;
    while ((part = compact_take_part(db, run)) != NULL) {
        do {
            status = compact_part_step(part);
        } while (status == ESKER_OK);
        (void)compact_part_ended(part, status);
    }
    mutex_lock(&db->mu);
    while (run->parts_left > 0) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    mutex_unlock(&db->mu);
    while (compact_hand_over(run) == ESKER_OK) {
    }
    return compact_finish(run);
}

static esker_status
compact_all_of(esker_db *db, const struct compact_range *range)
{
    mutex_lock(&db->mu);
    while (db->manual_compactions > 0) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    db->manual_compactions = 1;
    while (db->claimed_count > 0) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    mutex_unlock(&db->mu);
    esker_status status = ESKER_OK;
    struct compact_run *run = NULL;
    do {
        status = compact_plan(db, range, false, &run);
        if (status == ESKER_OK && run != NULL) {
            status = compact_run_here(run);
        }
    } while (status == ESKER_OK && run != NULL);
    esker_error story = *status_last();
    mutex_lock(&db->mu);
    db->manual_compactions = 0;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    db_kick_compaction(db);
    return status == ESKER_OK ? ESKER_OK : status_restore(&story);
}

esker_status
esker_compact(esker_db *db, const esker_slice *lower, const esker_slice *upper)
{
    struct compact_range range = {0};
    if (lower != NULL) {
        range.lower = bytes_of_slice(*lower);
    }
    if (upper != NULL) {
        range.upper = bytes_of_slice(*upper);
    }
    if ((range.lower.ptr == NULL && range.lower.len > 0) ||
        (range.upper.ptr == NULL && range.upper.len > 0)) {
        return FAIL(ESKER_INVALID, "a bound is NULL");
    }
    struct db_call call;
    TRY(db_call_enter(db, &call));
    db_damage_try_again(db);
    esker_status status = db_seal_active(db, call.self, 0, &range.end_lsn);
    if (status == ESKER_OK) {
        status = db_flush_until(db, range.end_lsn);
    }
    if (status == ESKER_OK) {
        status = compact_all_of(db, &range);
    }
    db_rest_soon(db);
    db_call_exit(&call);
    return status;
}
