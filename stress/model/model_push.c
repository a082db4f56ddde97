/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * Writes that do not wait (src/db/db_push.c): two writers become visible and leave their wishes, the sync job
 * runs when it was kicked. Once nothing is kicked any more, a run has covered both.
 * In a round: 3 threads, one write each, runs of the job as they come. Recovered rows are not played.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(VISIBLE_THEN_LOOK, ANY) X(WISH_THEN_LOOK, ANY) X(KICK_BEFORE_VISIBLE, ANY) X(PUSH_WANTED_RELAXED, GENMC)
#include "model.h"
#include "db/db.h"
#include "sections.h"
#define job_kick(job) ((void)(job), atomic_store(&kicked, 1))
#define job_kick_after(job, delay_ns) ((void)(delay_ns), job_kick(job))
#define db_append_begin(db) ((db) != NULL)
#define db_append_end(db) ((void)(db))
#define db_wait_durable(db, self, lsn, deadline_ns) ((void)(db), (void)(self), covered = (lsn), ESKER_OK)
#define db_wait_logged(db, self, lsn) db_wait_durable(db, self, lsn, 0)

static _Atomic uint32_t kicked;
static uint64_t covered; /* the job's */
#include "db/db_push.c"

enum { JOB_LOOKS = 4 };

static esker_db db;

static int
model_order(uintptr_t word)
{
    bool split = (model_is(VISIBLE_THEN_LOOK) && model_at(word, db.visible)) ||
                 (model_is(WISH_THEN_LOOK) && model_at(word, db.push_wanted));
    return split ? SPLIT : model_is(PUSH_WANTED_RELAXED) && model_at(word, db.push_wanted) ? RELAX : KEEP;
}

static void
commit(void)
{
    if (model_is(KICK_BEFORE_VISIBLE)) {
        db_push_on(&db, load_acquire(&db.visible) + 1, PUSH_SOON);
    }
    uint64_t before = add_seq(&db.visible, 1);
    if (!model_is(KICK_BEFORE_VISIBLE)) {
        db_push_on(&db, before + 1, PUSH_SOON | (before == 0 ? PUSH_SYNC : 0U));
    }
}

static void
work(void)
{
    for (uint32_t looks = 0; looks < JOB_LOOKS; looks++) {
        if (atomic_exchange(&kicked, 0) != 0) {
            db_sync_job(&db.sync_job);
        }
        model_pause();
    }
}

static void
model_reset(void)
{
    store_relaxed(&db.visible, 0);
    store_relaxed(&db.push_wanted, 0);
    db.options.durability = ESKER_DURABLE_MEMORY;
}

static void
model_verify(void)
{
    work();
    MODEL_CHECK(covered == load_relaxed(&db.visible) && load_relaxed(&db.push_wanted) == 0);
}

MODEL_MAIN(commit, commit, work)
