/* SPDX-License-Identifier: MIT */
/*
 * The process's background threads, shared by all open databases, and the one
 * way to wait for what they do.
 *
 * A job is embedded in its owner and is kicked, not queued: kicks that arrive
 * before it runs coalesce; a kick while it runs makes it run once more. So a
 * job's function looks at the state of the world and does what is needed.
 *
 * Concurrency
 *  - job_kick: any thread, also inside an epoch section or with locks held
 *    (it takes only the pool's own mutex, last in every order).
 *  - One job never runs on two threads at once.
 *  - Threads of two kinds prefer lower `urgency`: two for what writers may wait
 *    for, and as many as there are processors (4 at most) for merges, which so
 *    never stand in the way of a flush. Merging threads are a little nice; JOB_COMPACT_PRESS
 *    has as many of its own that are not: what a writer waits for must not be less urgent
 *    than whoever keeps the processors busy. Threads cannot change back and forth by themselves.
 *  - A long job is a job of many short runs: each run does a step and kicks the
 *    job again, so that what is more urgent comes in between. In between, and
 *    only then, it may change its urgency (job_set_urgency).
 *  - JOB_COMPACT_IDLE runs on a thread of its own with the policy SCHED_IDLE,
 *    which gets what nobody else wants. A thread without privileges cannot
 *    leave that policy again, so it is the job that changes threads.
 *
 * Manual mode: no threads. Kicked jobs run when somebody waits (workers_wait)
 * or calls workers_run_one; order is by urgency, then by kick. The simulator
 * is deterministic because of it.
 */
#ifndef ESKER_SYNC_WORKERS_H
#define ESKER_SYNC_WORKERS_H

#include "base/status.h"
#include "sync/mutex.h"

enum job_urgency {
    JOB_LOG = 0,
    JOB_FLUSH = 1,
    JOB_PURGE = 2,
    JOB_COMPACT_PRESS = 3, /* merges that writers wait for; the first that is a merge */
    JOB_COMPACT_L0 = 4,    /* merges that writers will have to wait for */
    JOB_COMPACT = 5,
    JOB_COMPACT_IDLE = 6
};

enum { JOB_URGENCIES = 7 };

struct job_owner;

struct job {
    /* immutable after job_init */
    void (*run)(struct job *job);
    struct job_owner *owner;
    /* guarded by the pool's mutex; changed by the job itself, while it runs */
    enum job_urgency urgency;
    struct job *next;
    uint64_t due_ns; /* 0 = now */
    bool queued, running, again;
};

/* Groups one database's jobs: bounds how many run at once and lets it stop them. */
struct job_owner {
    /* guarded by the pool's mutex */
    uint32_t running_count;
    uint32_t compact_count; /* those of them that are merges */
    uint32_t running_limit; /* binds merges only: more urgent jobs may always run */
    bool stopping;
    uint32_t generation; /* immutable: fork_generation at init; in a child all calls for it do nothing */
};

/* Counted. manual as in epoch_runtime_acquire. Starts up to 11 threads, by the machine. */
NODISCARD esker_status workers_acquire(bool manual);
void workers_release(void);
/* How many jobs more urgent than merges can run at once; 1 in manual mode. */
uint32_t workers_count(void);
/* How many merges can run at once. */
uint32_t workers_compact_count(void);
bool workers_manual(void);
/* How often a thread has looked for work and found none, for tests. */
uint64_t workers_vain_looks(void);
/* Is this thread running a job? */
bool workers_in_job(void);

void job_owner_init(struct job_owner *owner, uint32_t running_limit);
/* No job of the owner starts any more; returns when none runs. Queued ones are dropped. */
void job_owner_stop(struct job_owner *owner); /* not from one of its own jobs */
void job_init(struct job *job, struct job_owner *owner, enum job_urgency urgency,
              void (*run)(struct job *job));
/* For the following runs. Only by the job itself, from its function. */
void job_set_urgency(struct job *job, enum job_urgency urgency);
void job_kick(struct job *job);
/* What delays are measured by where there are threads: CLOCK_MONOTONIC. */
uint64_t workers_clock_ns(void);
/* What delayed jobs are due by: that clock, or without threads one that goes from timer to timer. */
uint64_t workers_timer_ns(void);
/* Runs no earlier than delay_ns from now; an earlier pending kick stays. */
void job_kick_after(struct job *job, uint64_t delay_ns);
bool job_idle(struct job *job);

/* Waits on cond as cond_wait does; in manual mode runs one kicked job instead
 * (the mutex released meanwhile). deadline_ns: CLOCK_MONOTONIC, 0 = none.
 * false: the deadline has passed. In manual mode with nothing to run and no
 * deadline the wait could never end: a broken invariant. */
bool workers_wait(struct cond *cond, struct mutex *mutex, uint64_t deadline_ns);
/* Manual mode: runs one kicked job; false if there was none. Timed jobs count as due. */
bool workers_run_one(void);

#endif
