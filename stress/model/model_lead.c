/* rooms: db */
/* SPDX-License-Identifier: MIT */
/* Who leads (src/db/db_lead.c): two threads commit and wait, one until it is logged, then both until it is
 * durable; a third takes the eventfd and looks at `durable`. One leader at a time; what a watermark tells has
 * happened; nobody sleeps on (falling asleep is a barrier too, as in the kernel); who has the eventfd and
 * found `durable` low is told when it moves. Deadlines and poison are not played. */
#define MODEL_MUTANTS(X)                                                                                     \
    X(LEADER_RELAXED, TSAN)                                                                                  \
    X(LOGGED_RELAXED, TSAN)                                                                                  \
    X(DURABLE_RELAXED, TSAN)                                                                                 \
    X(EVENT_FD_RELAXED, TSAN)                                                                                \
    X(LEADER_IN_TWO_STEPS, ANY) X(LEADER_THEN_LOOK, BY_HAND) X(FD_THEN_LOOK, ANY)
#define MODEL_FUTEX
#define db_sync_group model_sync_group
#include "model.h"
#include "db/db.h"
#include "io/io_event.h"
#define db_poison_status(db) ((void)(db), ESKER_OK)
#define io_event_create() (event_made = 1, 5)
#define io_event_signal(fd) MODEL_CHECK((fd) == 5 && event_made == 1 && (told = load_relaxed(moves)) > 0)

static uint32_t event_made, written[2], synced[2]; /* plain: what creation leaves; by commit */
static uint64_t seen, told;                        /* of `durable`: by the third thread, to it */
static _Atomic uint64_t *moves;
#include "db/db_lead.c"
static esker_db db;

static int
model_order(uintptr_t word)
{
    bool flag = model_at(word, db.sync_inflight), seq = model_at(word, db.sync_seq);
    bool followers = model_at(word, db.sync_followers), event_fd = model_at(word, db.event_fd);
    bool relax = (model_is(LEADER_RELAXED) && (flag || seq || followers)) ||
                 (model_is(LOGGED_RELAXED) && model_at(word, db.logged)) ||
                 (model_is(DURABLE_RELAXED) && model_at(word, db.durable)) ||
                 (model_is(EVENT_FD_RELAXED) && event_fd);
    bool split = (model_is(LEADER_IN_TWO_STEPS) && flag) || (model_is(LEADER_THEN_LOOK) && seq) ||
                 (model_is(FD_THEN_LOOK) && event_fd);
    return relax ? RELAX : split ? SPLIT : KEEP;
}

esker_status
model_sync_group(esker_db *of, struct thread_state *self, bool sync)
{
    MODEL_CHECK(self == NULL && of->marked_lsn++ == 0); /* the leader's own */
    uint64_t to = load_acquire(&of->visible);
    for (uint64_t lsn = load_acquire(&of->logged); lsn < to; lsn++) {
        written[lsn] = 1;
    }
    store_release(&of->logged, to);
    model_pause();
    for (uint64_t lsn = load_acquire(&of->durable); sync && lsn < to; lsn++) {
        synced[lsn] = 1;
    }
    if (sync) {
        db_durable_advance(of, to);
    }
    of->marked_lsn--;
    return ESKER_OK;
}

static void
commit(void)
{
    uint64_t lsn = add_seq(&db.visible, 1);
    if (lsn == 0) {
        MODEL_CHECK(db_wait_logged(&db, NULL, lsn + 1) == ESKER_OK && written[lsn] == 1);
    }
    MODEL_CHECK(db_wait_watermark(&db, NULL, lsn + 1, true, 0) == ESKER_OK && synced[lsn] == 1);
}

static void
watch(void)
{
    MODEL_CHECK(db_event_fd(&db) == 5);
    seen = load_acquire(&db.durable);
}

static void
model_reset(void)
{
    store_relaxed(&db.visible, 0);
    store_relaxed(&db.logged, 0);
    store_relaxed(&db.durable, 0);
    store_relaxed(&db.event_fd, -1);
    store_relaxed(&db.sync_followers, 0);
    told = 0;
    moves = &db.durable;
    event_made = written[0] = written[1] = synced[0] = synced[1] = 0;
}

static void
model_verify(void)
{
    MODEL_CHECK(!model_asleep[0] && !model_asleep[1]);
    MODEL_CHECK(load_relaxed(&db.durable) == MAX(seen, told));
}
MODEL_MAIN(commit, commit, watch)
