/* SPDX-License-Identifier: MIT */
/*
 * Who leads. Whoever needs durability first becomes the leader for everybody,
 * and wakes all when done. Writers that arrive during a sync are covered by
 * the next one, so batching comes by itself and one writer alone pays no
 * hand-off.
 *
 * Invariants
 *  I1 One leader at a time: whoever moved sync_inflight from 0 to 1.
 *  I2 No follower is left behind. It reads sync_seq, then the watermark and the
 *     flag; a leader moves the watermark, lowers the flag, then raises sync_seq,
 *     on which the follower sleeps.
 *  I3 Only who sleeps is woken. A follower counts itself, then sleeps unless
 *     sync_seq has moved; a leader raises sync_seq, then looks at the count. So
 *     a writer alone makes no system call but for what it writes.
 *  I4 Whoever has the eventfd, then looks at `durable`, misses no signal. The
 *     eventfd is stored, then `durable` looked at; who moved `durable` then looks
 *     for the eventfd. Each stores before it looks, sequentially consistent.
 */
#include "io/io_event.h"

#include "db/db.h"

enum { LEADER_SLEEP_NS = 1000000000 };

void
db_durable_advance(esker_db *db, uint64_t lsn)
{
    uint64_t before = load_acquire(&db->durable); /* pairs: DURABLE */
    while (before < lsn) {
        /* pairs: DURABLE — the sync that proves it happened before. */
        if (cas_seq(&db->durable, &before, lsn)) {
            int fd = load_seq(&db->event_fd); /* pairs: EVENT_FD — after `durable` moved */
            if (fd >= 0) {
                io_event_signal(fd);
            }
            return;
        }
    }
}

int
db_event_fd(esker_db *db)
{
    mutex_lock(&db->mu);
    int fd = load_acquire(&db->event_fd); /* pairs: EVENT_FD */
    if (fd < 0) {
        fd = io_event_create();
        if (fd >= 0) {
            store_seq(&db->event_fd, fd); /* pairs: EVENT_FD */
            /* pairs: EVENT_FD — what moved without seeing the eventfd is seen here, so also by whoever
             * looks at `durable` when he has it. */
            (void)load_seq(&db->durable);
        }
    }
    mutex_unlock(&db->mu);
    return fd;
}

esker_status
db_wait_watermark(esker_db *db, struct thread_state *self, uint64_t lsn, bool durable, uint64_t deadline_ns)
{
    for (;;) {
        uint32_t seq = load_seq(&db->sync_seq); /* pairs: LEADER */
        /* pairs: DURABLE, LOGGED */
        uint64_t reached = durable ? load_acquire(&db->durable) : db_logged(db);
        if (reached >= lsn) {
            return ESKER_OK;
        }
        TRY(db_poison_status(db));
        uint32_t idle = 0;
        if (cas_seq(&db->sync_inflight, &idle, 1)) { /* pairs: LEADER */
            esker_status status = db_sync_group(db, self, durable);
            store_seq(&db->sync_inflight, 0);         /* pairs: LEADER */
            add_seq(&db->sync_seq, 1);                /* pairs: LEADER */
            if (load_seq(&db->sync_followers) != 0) { /* pairs: LEADER */
                futex_wake_all(&db->sync_seq);
            }
            TRY(status);
            continue;
        }
        uint64_t timeout_ns = LEADER_SLEEP_NS;
        if (deadline_ns != 0) {
            uint64_t now = io_monotonic_ns(db->io);
            if (now >= deadline_ns) {
                return FAIL(ESKER_TIMED_OUT, "the sync did not complete in time");
            }
            timeout_ns = MIN(timeout_ns, deadline_ns - now);
        }
        add_seq(&db->sync_followers, 1); /* pairs: LEADER */
        futex_wait(&db->sync_seq, seq, timeout_ns);
        (void)sub_acq_rel(&db->sync_followers, 1); /* pairs: LEADER */
    }
}

esker_status
db_wait_logged(esker_db *db, struct thread_state *self, uint64_t lsn)
{
    return db_wait_watermark(db, self, lsn, false, 0);
}
