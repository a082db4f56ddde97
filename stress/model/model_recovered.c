/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * Rows from recovery (src/db/db_recovered.c): two flushes make them durable, oldest first; two threads wait
 * for durability of the first and of all. Whoever goes on finds them flushed and the edit written.
 * In a round: 3 threads, two flushes, one wait each. Failures and deadlines are not played.
 */
#define MODEL_MUTANTS(X) X(RECOVERED_RELAXED, TSAN) X(DURABLE_RELAXED, BY_HAND) X(PROVED_BEFORE_FLUSH, ANY)
#include "model.h"
#include "db/db.h"
#define db_wait_watermark(db, self, lsn, durable, deadline_ns) ((void)(self), (void)(lsn), ESKER_OK)
#define db_durable_advance(db, lsn) store_release(&(db)->durable, lsn) /* pairs: DURABLE */
#define job_kick(job) ((void)(job))
#define workers_wait(cond, mutex, deadline_ns) (model_wait_flushed(mutex), (deadline_ns) == 0)
static void model_wait_flushed(struct mutex *mutex);
#include "db/db_recovered.c"

enum { FIRST = 10, LAST = 20 };

static esker_db db;
static uint32_t flushed[2]; /* plain: on the disk */

static int
model_order(uintptr_t word)
{
    bool relax = (model_is(RECOVERED_RELAXED) && model_at(word, db.recovered_end_lsn)) ||
                 (model_is(DURABLE_RELAXED) && model_at(word, db.durable));
    return relax ? RELAX : KEEP;
}

/* Told once all is. */
static void
model_wait_flushed(struct mutex *mutex)
{
    mutex_unlock(mutex);
    model_wait_until(load_relaxed(&db.durable) == LAST);
    mutex_lock(mutex);
}

static void
flush(void)
{
    for (uint32_t i = 0; i < 2; i++) {
        struct window window = {.end_lsn = i == 0 ? FIRST : LAST};
        bool late = model_is(PROVED_BEFORE_FLUSH);
        flushed[i] = late ? 0 : 1;
        mutex_lock(&db.mu);
        db_flush_proved(&db, &window, i == 1);
        mutex_unlock(&db.mu);
        model_pause();
        if (late) {
            flushed[i] = 1;
        }
    }
}

static void
wait_first(void)
{
    MODEL_CHECK(db_wait_durable(&db, NULL, FIRST, 0) == ESKER_OK && flushed[0] == 1);
}

static void
wait_last(void)
{
    MODEL_CHECK(db_wait_durable(&db, NULL, LAST + 1, 0) == ESKER_OK && flushed[0] + flushed[1] == 2);
}

static void
model_reset(void)
{
    store_relaxed(&db.durable, 0);
    store_relaxed(&db.recovered_end_lsn, LAST);
    flushed[0] = flushed[1] = 0;
}

static void
model_verify(void)
{
    MODEL_CHECK(load_relaxed(&db.recovered_end_lsn) == 0 && load_relaxed(&db.durable) == LAST);
}

MODEL_MAIN(flush, wait_first, wait_last)
