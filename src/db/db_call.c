/* SPDX-License-Identifier: MIT */
/*
 * The door of every public call that takes a database: is the handle open, is
 * this still the process that opened it, and which database is this thread in.
 * And how close shuts it.
 *
 * Which database a thread is in lets close find calls in flight without any shared write on
 * the read path: a call stores the database into its own thread's state, then
 * looks at `closing`; close sets `closing`, then looks at every thread's state.
 * Both sides store before they load, sequentially consistent, so at least one
 * of them sees the other. (On x86-64 the call's store is an xchg on a line that
 * only this thread writes.)
 *
 * A callback may call the library inside a call. Then the outer call's database
 * goes to outer_calls at its depth, before the inner one's takes its place, and
 * stays there until the outer call itself ends: close, which looks at in_call
 * first, finds it in one place or the other whatever begins or ends meanwhile.
 */
#include <sched.h>

#include "db/db.h"

/* A call begins inside another. */
static NOINLINE esker_status
call_nest(struct thread_state *self, const void *outer)
{
    if (self->call_depth == THREAD_CALLS_MAX - 1) {
        return FAIL(ESKER_INVALID, "calls are made inside one another, more than %d deep", THREAD_CALLS_MAX);
    }
    /* pairs: CALL_CLOSE — before the inner call's database takes the place of this one. */
    store_release(&self->outer_calls[self->call_depth], outer);
    self->call_depth++;
    return ESKER_OK;
}

static inline esker_status
call_check(const esker_db *db, struct db_call *call)
{
    if (UNLIKELY(db == NULL)) {
        return FAIL(ESKER_INVALID, "the database handle is NULL");
    }
    /* relaxed: tells handles that are gone; while close goes on, `closing` decides. */
    if (UNLIKELY(load_relaxed(&db->magic) != DB_MAGIC_OPEN)) {
        return FAIL(ESKER_INVALID, "the database handle is closed");
    }
    /* relaxed: set in the child before fork returns there. */
    if (UNLIKELY(load_relaxed(&fork_generation) != db->fork_generation)) {
        return FAIL(ESKER_FORKED, "the database was opened by the parent process");
    }
    struct thread_state *self = thread_state_get();
    if (UNLIKELY(self == NULL)) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    call->self = self;
    call->outer = load_relaxed(&self->in_call); /* relaxed: only this thread writes it */
    return LIKELY(call->outer == NULL) ? ESKER_OK : call_nest(self, call->outer);
}

/* The end of a call that was inside another, or had others inside: nothing holds its database any more. */
static NOINLINE void
call_unnest(struct thread_state *self, bool inside)
{
    uint32_t own = self->call_depth;
    self->call_depth = inside ? own - 1 : 0;
    if (own < COUNTOF(self->outer_calls)) {
        store_release(&self->outer_calls[own], NULL); /* pairs: CALL_CLOSE */
    }
}

/* The call that `call` is inside of, or none, is the innermost again. */
static inline void
call_leave(struct db_call *call)
{
    /* pairs: CALL_CLOSE — everything the call did happens before close goes on. */
    store_release(&call->self->in_call, call->outer);
}

void
db_call_exit(struct db_call *call)
{
    struct thread_state *self = call->self;
    call_leave(call);
    /* relaxed: only this thread writes it */
    if (UNLIKELY(call->outer != NULL || load_relaxed(&self->outer_calls[0]) != NULL)) {
        call_unnest(self, call->outer != NULL);
    }
}

esker_status
db_call_enter(const esker_db *db, struct db_call *call)
{
    TRY(call_check(db, call));
    for (;;) {
        /* pairs: CALL_CLOSE — visible to close before `closing` is read. */
        store_seq(&call->self->in_call, db);
        uint32_t closing = load_seq(&db->closing); /* pairs: CALL_CLOSE */
        if (LIKELY(closing == CLOSING_NO)) {
            return ESKER_OK;
        }
        if (closing == CLOSING_YES) {
            db_call_exit(call);
            return FAIL(ESKER_INVALID, "the database is being closed");
        }
        call_leave(call);
        sched_yield();
    }
}

esker_status
db_call_enter_section(const esker_db *db, struct db_call *call)
{
    TRY(call_check(db, call));
    /* pairs: CALL_CLOSE — the store is ordered before the load of `closing` by the
     * full barrier inside epoch_enter (an xchg on x86-64), so it needs none of its own. */
    store_release(&call->self->in_call, db);
    epoch_enter(call->self);
    if (LIKELY(load_seq(&db->closing) == CLOSING_NO)) { /* pairs: CALL_CLOSE */
        return ESKER_OK;
    }
    epoch_exit(call->self);
    db_call_exit(call);
    TRY(db_call_enter(db, call));
    epoch_enter(call->self);
    return ESKER_OK;
}

static bool
call_is_handle_live(esker_db *db)
{
    /* pairs: HANDLES_LIVE — what they held is given back before. */
    return load_acquire(&db->iterators_live) != 0 ||
           load_acquire(&db->snapshots_live) != 0 || /* pairs: HANDLES_LIVE */
           load_acquire(&db->values_live) != 0;      /* pairs: HANDLES_LIVE */
}

esker_status
db_call_claim_close(esker_db *db)
{
    uint32_t open = CLOSING_NO;
    if (!cas_seq(&db->closing, &open, CLOSING_ASKED)) { /* pairs: CALL_CLOSE */
        return FAIL(ESKER_BUSY, "another thread is closing the database");
    }
    if (thread_state_any(db) || call_is_handle_live(db)) {
        store_seq(&db->closing, CLOSING_NO); /* pairs: CALL_CLOSE */
        return FAIL(ESKER_BUSY, "iterators, snapshots, values or calls are still in use");
    }
    store_seq(&db->closing, CLOSING_YES); /* pairs: CALL_CLOSE */
    return ESKER_OK;
}
