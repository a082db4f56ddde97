/* SPDX-License-Identifier: MIT */
/*
 * How `visible` moves, and how a writer waits until its own frame is visible.
 *
 * Invariants
 *  I1 `visible` moves over a frame only when it is complete, so readers never see a
 *     hole: its own writer moves it when all before it is visible, or has set the
 *     frame's bit, and then anybody does.
 *  I2 No frame is left behind. A writer sets its bit, then looks at `visible`;
 *     who moves `visible` up to that frame then looks at its bit. Each stores
 *     before it looks, sequentially consistent, so one of them goes on.
 *  I3 No sleeper is left behind. It counts itself, then looks at `visible`; who
 *     moved `visible` then looks at the count. What changes between the look
 *     and the sleep changes visible_seq, on which it sleeps.
 */
#include <sched.h>

#include "db/db.h"

enum { SPINS_FOR_TURN = 64, SPINS_BEFORE_YIELD = 100, YIELDS_BEFORE_SLEEP = 8, SLEEP_NS = 5000000 };

static struct window *
visible_window_at(const struct version *version, uint64_t lsn)
{
    for (uint32_t i = 0; i < version->window_count; i++) {
        struct window *window = version->windows[i];
        if (lsn >= window->base_lsn && lsn < window->end_lsn) {
            return window;
        }
    }
    return NULL;
}

static void
visible_wake(esker_db *db)
{
    /* pairs: VISIBLE_WAIT — `visible` moved before the waiters are counted. */
    if (load_seq(&db->visible_waiters) != 0) {
        add_seq(&db->visible_seq, 1); /* pairs: VISIBLE_WAIT */
        futex_wake_all(&db->visible_seq);
    }
}

/* What is to be done for others when `visible` has moved. */
struct visible_move {
    bool moved;
    bool window_done; /* a window's last frame is visible */
};

/* Goes on over applied frames from lsn, where `visible` was seen or was put, and ends the caller's
 * section; version: current since it began. Whoever put it there does not load it again: the next
 * writer is asking for its line. */
static void
visible_go_on(esker_db *db, struct thread_state *self, const struct version *version, uint64_t lsn,
              struct visible_move move)
{
    for (;;) {
        const struct window *window = visible_window_at(version, lsn);
        if (window == NULL) {
            /* Behind the newest window of this version, or below what it still holds. */
            const struct version *newer = load_acquire(&db->current); /* pairs: CURRENT */
            uint64_t again = load_seq(&db->visible);                  /* pairs: VISIBLE */
            if (newer == version && again == lsn) {
                break;
            }
            version = newer;
            lsn = again;
            continue;
        }
        uint64_t offset = (lsn - window->base_lsn) * LSN_BYTES;
        if (!window_is_applied(window, offset)) {
            break;
        }
        uint64_t next = lsn + window_frame_bytes(window, offset) / LSN_BYTES;
        /* pairs: VISIBLE — index links of the frame before readers' acquire; the
         * other half of the Dekker hand-off with APPLIED. */
        if (cas_seq(&db->visible, &lsn, next)) {
            lsn = next;
            move.moved = true;
            move.window_done = move.window_done || next == window->end_lsn;
        }
    }
    epoch_exit(self);
    /* relaxed: a number, for the claims of this thread's next frames */
    store_relaxed(&db_stripe(db, self)->visible_seen, lsn);
    if (move.window_done) {
        job_kick(&db->flush_job); /* it may have looked already, and left the window for its last frame */
    }
    if (move.moved) {
        visible_wake(db);
    }
}

void
db_ratchet(esker_db *db, struct thread_state *self)
{
    epoch_enter(self);
    /* pairs: CURRENT */
    const struct version *version = load_acquire(&db->current);
    /* pairs: VISIBLE */
    visible_go_on(db, self, version, load_seq(&db->visible), (struct visible_move){0});
}

static void
visible_sleep(esker_db *db, uint64_t lsn)
{
    add_seq(&db->visible_waiters, 1);          /* pairs: VISIBLE_WAIT */
    uint32_t seq = load_seq(&db->visible_seq); /* pairs: VISIBLE_WAIT */
    if (load_seq(&db->visible) < lsn) {        /* pairs: VISIBLE_WAIT */
        futex_wait(&db->visible_seq, seq, SLEEP_NS);
    }
    (void)sub_acq_rel(&db->visible_waiters, 1); /* pairs: VISIBLE_WAIT */
}

void
db_wait_visible(esker_db *db, struct thread_state *self, uint64_t lsn)
{
    for (uint32_t spins = 0;; spins++) {
        /* pairs: VISIBLE */
        if (load_seq(&db->visible) >= lsn) {
            return;
        }
        db_ratchet(db, self);
        if (load_seq(&db->visible) >= lsn) { /* pairs: VISIBLE */
            return;
        }
        if (spins < SPINS_BEFORE_YIELD) {
            cpu_relax();
        } else if (spins < SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP) {
            sched_yield();
        } else {
            visible_sleep(db, lsn);
        }
    }
}

/* `visible` over the caller's frame [lsn, end), if everything before it is visible. */
static bool
visible_take_turn(esker_db *db, uint64_t lsn, uint64_t end)
{
    uint64_t turn = lsn;
    /* relaxed: only spares a useless CAS; nobody but the caller moves it from here. */
    return load_relaxed(&db->visible) == lsn &&
           cas_seq(&db->visible, &turn, end); /* pairs: VISIBLE — as in visible_go_on */
}

void
db_make_visible(esker_db *db, struct thread_state *self, const struct version *version, struct window *window,
                uint64_t offset, uint64_t bytes)
{
    uint64_t lsn = window_lsn(window, offset);
    uint64_t end = lsn + bytes / LSN_BYTES;
    struct visible_move move = {.moved = true, .window_done = end == window->end_lsn};
    if (LIKELY(visible_take_turn(db, lsn, end))) {
        visible_go_on(db, self, version, end, move);
        return;
    }
    /* The window stays without the section: it is in every version until its last frame is visible. */
    epoch_exit(self);
    for (uint32_t spins = 0; spins < SPINS_FOR_TURN; spins++) {
        if (visible_take_turn(db, lsn, end)) {
            epoch_enter(self);
            /* pairs: CURRENT */
            visible_go_on(db, self, load_acquire(&db->current), end, move);
            return;
        }
        cpu_relax();
    }
    window_set_applied(window, offset);
    db_wait_visible(db, self, end);
}
