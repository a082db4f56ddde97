/* SPDX-License-Identifier: MIT */
/* Clients at work: what one thread does, and one attempt of one transaction. */
#ifndef ESKER_TOOLS_WORKLOAD_CLIENT_H
#define ESKER_TOOLS_WORKLOAD_CLIENT_H

#include <pthread.h>

#include "base/rng.h"
#include "tools/workload_engine.h"

/* What the clients of one opening have in common. */
struct workload_crew {
    struct workload_area *area;
    struct workload_engine engine;
    _Atomic bool broken; /* the database refused something; everybody stops */
    _Atomic uint32_t running;
};

struct workload_worker {
    struct workload_crew *crew;
    struct workload_client *client;
    pthread_t thread;
    bool started;
    struct rng rng;
    esker_batch *batch;
    uint8_t *value, *buf; /* value_bytes each */
};

NODISCARD esker_status workload_worker_init(struct workload_worker *worker, struct workload_crew *crew,
                                            struct workload_client *client);
void workload_worker_fini(struct workload_worker *worker);

/* For pthread_create: works through the client's transactions until the end or until the
 * crew is broken. */
void *workload_worker_main(void *worker);

/* One attempt: snapshot, reads, pause, commit. op is begun; its outcome is set here.
 * Returns OK, CONFLICT, or what stops the crew. */
NODISCARD esker_status workload_attempt(struct workload_worker *worker, struct workload_op *op);

/* Ends an entry of the log. */
static inline void
workload_op_end(struct workload_op *op, enum workload_outcome outcome, uint64_t now_ns)
{
    op->ended_ns = now_ns;
    store_release(&op->outcome, (uint8_t)outcome); /* pairs: WORKLOAD_LOG */
}

bool workload_crew_stopped(struct workload_crew *crew);

/* Sleeps until then, CLOCK_MONOTONIC; returns false when the crew broke before. */
bool workload_wait_until(struct workload_crew *crew, uint64_t then_ns);

#endif
