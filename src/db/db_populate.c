/* SPDX-License-Identifier: MIT */
/*
 * Memory that is present before writers come to it. A page fault between a
 * reservation and its applied bit holds up every later writer: it took a fifth
 * of a put, and a quarter with two writers.
 *
 * The first part of a window is made present when it is the next one, the rest a
 * few MiB ahead of the writers, so a window that is never filled does not take
 * its whole size. Small windows are left alone: small databases stay small.
 */
#include "db/db.h"

enum { POPULATE_AHEAD = 4 << 20, POPULATE_WINDOW_MIN = 1 << 20, POPULATE_OP_BYTES = 128 };

void
db_populate_window(esker_db *db, struct window *window, uint64_t bytes_per_op)
{
    if (db->populate && window->cap_bytes >= POPULATE_WINDOW_MIN) {
        uint64_t per_op = bytes_per_op != 0 ? bytes_per_op : POPULATE_OP_BYTES;
        uint64_t first = MIN(window->cap_bytes, (uint64_t)POPULATE_AHEAD);
        uint64_t index_bytes = window_expected_bytes(window, per_op) - window->cap_bytes;
        window_charge_more(window, index_bytes + first);
        block_cache_settle(db->cache); /* what was evicted for it is free before it is needed */
        mutex_lock(&db->populate_mu);
        window_populate(window, POPULATE_AHEAD, per_op, db->populate_map);
        mutex_unlock(&db->populate_mu);
    }
}

void
db_populate_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, populate_job);
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return; /* writers will meet faults, that is all */
    }
    struct version *version = db_current_ref(db, self);
    struct window *window = version->windows[0];
    uint64_t bytes_per_op = window_bytes_per_op(window);
    /* Where it cannot tell yet, what was made present at first is still ahead. */
    if (window->cap_bytes >= POPULATE_WINDOW_MIN && !window->recovered && bytes_per_op != 0) {
        /* relaxed: how far the writers are, about */
        uint64_t tail = load_relaxed(&window->tail);
        mutex_lock(&db->populate_mu);
        window_populate(window, window_tail_bytes(tail) + POPULATE_AHEAD, bytes_per_op, db->populate_map);
        mutex_unlock(&db->populate_mu);
    }
    version_unref(version);
}
