/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * Calls against close (src/db/db_call.c): one thread makes a call, with a call of another database inside,
 * one a call that leaves a handle behind and lets go of it outside, one closes. Whoever is inside, or has a
 * handle, finds the database whole; close gets through only when nobody does, and then nobody gets in.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(CALL_CLOSE_RELAXED, TSAN)                                                                              \
    X(HANDLES_LIVE_RELAXED, TSAN)                                                                            \
    X(CALL_THEN_LOOK, ANY) X(CLOSE_THEN_LOOK, GENMC) X(HANDLE_AFTER_CALL, ANY) X(OUTER_NOT_HELD, ANY)
#include "model.h"
#include "sections.h"
#undef sched_yield
#define sched_yield() model_wait_until(load_relaxed(&db->closing) != CLOSING_ASKED)
#include "db/db_call.c"

static esker_db db, other;
static uint32_t whole; /* plain: what close takes apart */

static int
model_order(uintptr_t word)
{
    bool handles = word == (uintptr_t)&db.values_live;
    bool closing = word == (uintptr_t)&db.closing || word == (uintptr_t)&other.closing;
    if (model_is(HANDLES_LIVE_RELAXED) ? handles : model_is(CALL_CLOSE_RELAXED) && !handles) {
        return RELAX;
    }
    bool split = model_is(CALL_THEN_LOOK) ? !closing && !handles : model_is(CLOSE_THEN_LOOK) && closing;
    return split ? SPLIT : KEEP;
}

static void
put(void)
{
    struct db_call call, inner;
    if (db_call_enter(&db, &call) == ESKER_OK) {
        model_pause();
        MODEL_CHECK(db_call_enter(&other, &inner) == ESKER_OK);
        if (model_is(OUTER_NOT_HELD)) {
            store_release(&call.self->outer_calls[0], NULL);
        }
        model_pause();
        MODEL_CHECK(whole == 1);
        db_call_exit(&inner);
        MODEL_CHECK(whole == 1);
        db_call_exit(&call);
    }
}

static void
get(void)
{
    struct db_call call;
    if (db_call_enter_section(&db, &call) != ESKER_OK) {
        return;
    }
    MODEL_CHECK(whole == 1);
    epoch_exit(call.self);
    if (model_is(HANDLE_AFTER_CALL)) {
        db_call_exit(&call);
        model_pause();
    }
    db_handle_made(&db.values_live);
    if (!model_is(HANDLE_AFTER_CALL)) {
        db_call_exit(&call);
    }
    model_pause();
    MODEL_CHECK(whole == 1);
    db_handle_gone(&db.values_live);
}

static void
shut(void)
{
    if (db_call_claim_close(&db) == ESKER_OK) {
        whole = 0;
    }
}

static void
model_reset(void)
{
    db.magic = DB_MAGIC_OPEN;
    other.magic = DB_MAGIC_OPEN;
    whole = 1;
    store_relaxed(&db.closing, CLOSING_NO);
}

static void
model_verify(void)
{
    MODEL_CHECK(load_relaxed(&db.values_live) == 0);
    MODEL_CHECK((whole == 0) == (load_relaxed(&db.closing) == CLOSING_YES));
}

MODEL_MAIN(put, get, shut)
