/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * Who sleeps until `visible` has moved (src/db/db_visible.c): one thread sleeps until both frames are
 * visible, two apply one each and move it. Nobody sleeps on once both are. What moves `visible`, and that
 * nothing is left behind, is model_visible.c's; here a frame is a bit of a window of two granules.
 * In a round: 3 threads, one frame each, one sleep at most. Sleeps end by a wake alone.
 */
#define MODEL_MUTANTS(X) X(WAITER_THEN_LOOK, ANY) X(MOVED_THEN_LOOK, ANY) X(VISIBLE_WAIT_RELAXED, GENMC)
#define MODEL_FUTEX
#include "model.h"
#include "sections.h"
#include "db/db.h"
#define job_kick(job) ((void)(job))
#define window_is_applied(window, offset) ((void)(window), is_applied(offset))
#define window_frame_bytes(window, offset) ((void)(window), (void)(offset), (uint64_t)WINDOW_GRANULE)

static bool is_applied(uint64_t offset);
#include "db/db_visible.c"

enum { BASE_LSN = 64, FRAME_LSNS = WINDOW_GRANULE / LSN_BYTES, END_LSN = BASE_LSN + 2 * FRAME_LSNS };

static struct window window;
static struct version version;
static _Atomic uint32_t applied[2];
static struct stripe stripes[STRIPE_COUNT];
static esker_db db = {.stripes = stripes};

static int
model_order(uintptr_t word)
{
    bool is_waiters = model_at(word, db.visible_waiters), is_seq = model_at(word, db.visible_seq);
    if (model_is(VISIBLE_WAIT_RELAXED) && (is_waiters || is_seq)) {
        return RELAX;
    }
    bool split = (model_is(WAITER_THEN_LOOK) && is_waiters) ||
                 (model_is(MOVED_THEN_LOOK) && model_at(word, db.visible));
    return split ? SPLIT : KEEP;
}

static bool
is_applied(uint64_t offset)
{
    return load_seq(&applied[offset / WINDOW_GRANULE]) != 0;
}

static void
apply(void)
{
    (void)exchange_seq(&applied[model_self], 1);
    db_ratchet(&db, thread_state_get());
}

static void
wait_for_both(void)
{
    visible_sleep(&db, END_LSN);
}

static void
model_reset(void)
{
    window.base_lsn = BASE_LSN;
    window.end_lsn = END_LSN;
    version.windows[0] = &window;
    version.window_count = 1;
    store_relaxed(&applied[0], 0);
    store_relaxed(&applied[1], 0);
    store_relaxed(&db.current, &version);
    store_relaxed(&db.visible, BASE_LSN);
    store_relaxed(&db.visible_waiters, 0);
}

static void
model_verify(void)
{
    MODEL_CHECK(!model_asleep[2] && load_relaxed(&db.visible) == END_LSN);
}
MODEL_MAIN(apply, apply, wait_for_both)
