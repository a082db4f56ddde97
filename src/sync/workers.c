/* SPDX-License-Identifier: MIT */
/*
 * The background threads. workers.h has the contract; here is how it is kept.
 *
 * Invariants (all under pool.mutex)
 *  I1 A job is in at most one list: the ready list of its urgency (in the
 *     order of kicks) or the timed list (by due_ns). `queued` says so.
 *  I2 A running job is in no list; a kick leaves `again` and the due time of
 *     the rerun, and whoever ran the job queues it when it returns.
 *  I3 After a job's function has returned and its owner's running_count was
 *     lowered, nobody touches the job or the owner: job_owner_stop may return.
 *  I4 Each kind of thread runs jobs of its urgencies only, so merges never keep
 *     both kinds of threads busy.
 *  I5 A thread that takes a job while more is listed wakes the next one. A job that
 *     goes on on the thread that ran it wakes nobody: merges are jobs of many runs.
 *  I6 While a job is timed, an urgent thread is awake, or sleeps no longer than until
 *     the first one is due.
 *
 * Manual mode has no threads and its own clock, which jumps to a timed job's
 * due time when nothing else is left to run: delays order jobs but cost no time.
 *
 * pool.mutex is the last in every order; no code of others runs under it.
 */
#include "sync/workers.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "sync/atomic.h"
#include "sync/epoch.h"
#include "sync/fork.h"
#include "sync/thread.h"

enum { WORKERS_URGENT = 2, WORKERS_MERGE_MAX = 4, WORKERS_MAX = WORKERS_URGENT + 2 * WORKERS_MERGE_MAX + 1 };

/* What a thread of a kind runs: jobs of urgencies [first, end). Merges yield a
 * little to those who write, who otherwise lose their processor for a tick or
 * two now and then; idle ones yield to everybody. */
struct worker_kind {
    int first, end, nice;
    bool idle;
    const char *name;
};

enum {
    WORKER_URGENT = 0,
    WORKER_PRESS = 1,
    WORKER_MERGE = 2,
    WORKER_IDLE = 3,
    WORKER_KINDS = 4,
    WORKER_MERGE_NICE = 5
};

static const struct worker_kind worker_kinds[WORKER_KINDS] = {
    {.first = 0, .end = JOB_COMPACT_PRESS, .name = "work"},
    {.first = JOB_COMPACT_PRESS, .end = JOB_COMPACT_L0, .name = "press"},
    {.first = JOB_COMPACT_L0, .end = JOB_COMPACT_IDLE, .nice = WORKER_MERGE_NICE, .name = "merge"},
    {.first = JOB_COMPACT_IDLE, .end = JOB_URGENCIES, .idle = true, .name = "idle"},
};

struct job_list {
    struct job *first;
    struct job *last;
};

static pthread_once_t pool_once = PTHREAD_ONCE_INIT;
static int pool_once_errno; /* immutable after pool_once */
static _Atomic bool pool_manual;

static struct {
    struct mutex mutex;
    struct cond work[WORKER_KINDS]; /* a job was listed, or the threads shall stop */
    struct cond stopped;            /* a job of a stopping owner has returned */
    /* guarded by mutex */
    struct job_list ready[JOB_URGENCIES];
    struct job *timed;
    uint64_t urgent_until_ns[WORKERS_URGENT]; /* how long they sleep: 0 = awake, or not there; I6 */
    uint32_t urgent_started;
    uint64_t vain_looks;
    uint32_t holder_count;
    uint32_t thread_count;
    uint32_t merge_count; /* threads of that kind */
    bool stopping;
    uint64_t manual_now_ns;
    pthread_t threads[WORKERS_MAX];
} pool;

/* Serialises the first acquire and the last release, which let the pool's own
 * mutex go; before it in the order. */
static struct mutex pool_holders_mutex = MUTEX_INIT;

/* The innermost job that this thread runs. */
static _Thread_local struct job *job_of_this_thread;

/* ---- The pool's locks, also across fork --------------------------------- */

static void
pool_locks_init(void)
{
    mutex_init(&pool.mutex);
    for (int kind = 0; kind < WORKER_KINDS; kind++) {
        cond_init(&pool.work[kind]);
    }
    cond_init(&pool.stopped);
}

/* The child has no workers, and the listed jobs are the parent's. */
static void
pool_after_fork(void)
{
    pool_locks_init();
    mutex_init(&pool_holders_mutex);
    for (int urgency = 0; urgency < JOB_URGENCIES; urgency++) {
        pool.ready[urgency] = (struct job_list){.first = NULL};
    }
    pool.timed = NULL;
    memset(pool.urgent_until_ns, 0, sizeof pool.urgent_until_ns);
    pool.urgent_started = 0;
    pool.holder_count = 0;
    pool.thread_count = 0;
    pool.merge_count = 0;
    pool.stopping = false;
    pool.manual_now_ns = 0;
    store_relaxed(&pool_manual, false); /* relaxed: one thread */
}

static void
pool_start(void)
{
    pool_locks_init();
    pool_once_errno = epoch_prepare();
    if (pool_once_errno == 0) {
        pool_once_errno = fork_hooks_add(NULL, NULL, pool_after_fork);
    }
}

static int
pool_start_once(void)
{
    int failed = pthread_once(&pool_once, pool_start);
    ASSERT(failed == 0);
    return pool_once_errno;
}

uint64_t
workers_clock_ns(void)
{
    struct timespec now;
    int failed = clock_gettime(CLOCK_MONOTONIC, &now);
    ASSERT(failed == 0);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t
pool_now_locked(void)
{
    return workers_manual() ? pool.manual_now_ns : workers_clock_ns();
}

/* ---- Lists -------------------------------------------------------------- */

static void
job_ready_push_locked(struct job *job)
{
    struct job_list *list = &pool.ready[job->urgency];
    job->next = NULL;
    if (list->last == NULL) {
        list->first = job;
    } else {
        list->last->next = job;
    }
    list->last = job;
}

static void
job_timed_push_locked(struct job *job)
{
    struct job **at = &pool.timed;
    while (*at != NULL && (*at)->due_ns <= job->due_ns) {
        at = &(*at)->next;
    }
    job->next = *at;
    *at = job;
}

static void
job_list_locked(struct job *job)
{
    ASSERT(!job->queued && !job->running);
    job->queued = true;
    if (job->due_ns == 0) {
        job_ready_push_locked(job);
    } else {
        job_timed_push_locked(job);
    }
}

static void
job_ready_remove_locked(struct job_list *list, struct job *previous, struct job *job)
{
    if (previous == NULL) {
        list->first = job->next;
    } else {
        previous->next = job->next;
    }
    if (list->last == job) {
        list->last = previous;
    }
    job->next = NULL;
    job->queued = false;
}

static void
job_timed_remove_locked(struct job *job)
{
    struct job **at = &pool.timed;
    while (*at != job) {
        ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = job->next;
    job->next = NULL;
    job->queued = false;
}

static int
pool_kind_of(enum job_urgency urgency)
{
    int kind = WORKER_URGENT;
    while ((int)urgency >= worker_kinds[kind].end) {
        kind++;
    }
    return kind;
}

/* Wakes a thread that may run the job. */
static void
pool_wake_for_locked(const struct job *job)
{
    cond_signal(&pool.work[pool_kind_of(job->urgency)]);
}

/* I6: wakes a thread to keep the time if nobody does. Not asked by one that is about to sleep. */
static void
pool_watch_timed_locked(void)
{
    if (pool.timed == NULL) {
        return;
    }
    for (int i = 0; i < WORKERS_URGENT; i++) {
        uint64_t until_ns = pool.urgent_until_ns[i];
        if (until_ns != 0 && until_ns <= pool.timed->due_ns) {
            return;
        }
    }
    cond_signal(&pool.work[WORKER_URGENT]);
}

/* Timed jobs whose time has come become ready, in the order of their times. */
static void
pool_ripen_locked(void)
{
    if (pool.timed == NULL) {
        return;
    }
    uint64_t now_ns = pool_now_locked();
    while (pool.timed != NULL && pool.timed->due_ns <= now_ns) {
        struct job *job = pool.timed;
        pool.timed = job->next;
        job->due_ns = 0;
        job_ready_push_locked(job);
        pool_wake_for_locked(job);
    }
}

static bool
job_may_run_locked(const struct job *job)
{
    if (job->urgency < JOB_COMPACT_PRESS) {
        return true;
    }
    return job->owner->compact_count < job->owner->running_limit;
}

/* The most urgent ready job of [first, end) that the limits allow, off its list, or NULL. */
static struct job *
pool_pick_locked(int first, int end)
{
    pool_ripen_locked();
    for (int urgency = first; urgency < end; urgency++) {
        struct job_list *list = &pool.ready[urgency];
        struct job *previous = NULL;
        for (struct job *job = list->first; job != NULL; previous = job, job = job->next) {
            if (job_may_run_locked(job)) {
                job_ready_remove_locked(list, previous, job);
                return job;
            }
        }
    }
    return NULL;
}

static bool
pool_lists_ready_locked(int kind)
{
    bool listed = false;
    for (int urgency = worker_kinds[kind].first; urgency < worker_kinds[kind].end; urgency++) {
        listed |= pool.ready[urgency].first != NULL;
    }
    return listed;
}

/* ---- Running ------------------------------------------------------------ */

/* Runs one job that pool_pick_locked gave, on a thread of `kind`, which looks for work
 * again afterwards. The mutex is released meanwhile. */
static void
job_run_locked(struct job *job, int kind)
{
    struct job_owner *owner = job->owner;
    bool compact = job->urgency >= JOB_COMPACT_PRESS;
    ASSERT(!job->running && !owner->stopping);
    job->running = true;
    owner->running_count++;
    owner->compact_count += compact;
    mutex_unlock(&pool.mutex);

    struct job *outer = job_of_this_thread;
    job_of_this_thread = job;
    job->run(job);
    job_of_this_thread = outer;
    ASSERT(thread_state_self == NULL || !thread_state_self->in_section);

    mutex_lock(&pool.mutex);
    ASSERT(job->running && owner->running_count > 0);
    job->running = false;
    owner->running_count--;
    owner->compact_count -= compact;
    if (job->again) {
        job->again = false;
        if (!owner->stopping) {
            job_list_locked(job);
            if (job->due_ns != 0) {
                pool_watch_timed_locked();
            } else if (pool_kind_of(job->urgency) != kind) {
                pool_wake_for_locked(job); /* else this thread comes to it */
            }
        }
    }
    if (owner->stopping && owner->running_count == 0) {
        cond_broadcast(&pool.stopped);
    }
}

/* A job of the kind has ended, and with it a limit may be free for a merge that is another kind's. */
static void
pool_pass_limit_on_locked(int kind)
{
    for (int other = WORKER_PRESS; other < WORKER_KINDS; other++) {
        if (kind != WORKER_URGENT && other != kind && pool_lists_ready_locked(other)) {
            cond_signal(&pool.work[other]);
        }
    }
}

/* Until there may be work for an urgent thread; I6. */
static void
worker_sleep_urgent_locked(uint32_t index)
{
    struct cond *work = &pool.work[WORKER_URGENT];
    pool.urgent_until_ns[index] = pool.timed != NULL ? pool.timed->due_ns : UINT64_MAX;
    if (pool.timed != NULL) {
        (void)cond_wait_until(work, &pool.mutex, pool.timed->due_ns);
    } else {
        cond_wait(work, &pool.mutex);
    }
    pool.urgent_until_ns[index] = 0;
}

static void *
worker_run(void *arg)
{
    const struct worker_kind *kind = arg;
    int kind_no = (int)(kind - worker_kinds);
    bool urgent = kind_no == WORKER_URGENT;
    /* Without privileges a thread can go down in both ways, and never up again.
     * Where it is refused the thread is one like the others, which works as well. */
    if (kind->idle) {
        (void)sched_setscheduler(0, SCHED_IDLE, &(struct sched_param){0});
    } else if (kind->nice != 0) {
        (void)setpriority(PRIO_PROCESS, 0, kind->nice); /* 0: on Linux this thread */
    }
    mutex_lock(&pool.mutex);
    uint32_t index = urgent ? pool.urgent_started++ : 0;
    while (!pool.stopping) {
        struct job *job = pool_pick_locked(kind->first, kind->end);
        if (job != NULL) {
            if (pool_lists_ready_locked(kind_no)) {
                cond_signal(&pool.work[kind_no]); /* I5 */
            }
            if (urgent) {
                pool_watch_timed_locked();
            }
            job_run_locked(job, kind_no);
            pool_pass_limit_on_locked(kind_no);
            continue;
        }
        pool.vain_looks++;
        if (urgent) {
            worker_sleep_urgent_locked(index);
        } else {
            cond_wait(&pool.work[kind_no], &pool.mutex);
        }
    }
    mutex_unlock(&pool.mutex);
    return NULL;
}

/* Ends and joins the threads. The mutex is released meanwhile. */
static void
pool_stop_threads_locked(void)
{
    uint32_t thread_count = pool.thread_count;
    pool.stopping = true;
    for (int kind = 0; kind < WORKER_KINDS; kind++) {
        cond_broadcast(&pool.work[kind]);
    }
    mutex_unlock(&pool.mutex);
    for (uint32_t idx = 0; idx < thread_count; idx++) {
        thread_join(pool.threads[idx]);
    }
    mutex_lock(&pool.mutex);
    pool.stopping = false;
    pool.thread_count = 0;
    pool.merge_count = 0;
    pool.urgent_started = 0;
}

static esker_status
pool_start_kind_locked(int kind, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        char name[32]; /* the kernel keeps 15 bytes */
        snprintf(name, sizeof name, "esker-%s-%u", worker_kinds[kind].name, i);
        void *arg = (void *)(uintptr_t)&worker_kinds[kind];
        TRY(thread_start(&pool.threads[pool.thread_count], name, worker_run, arg));
        pool.thread_count++;
    }
    return ESKER_OK;
}

static esker_status
pool_start_threads_locked(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    uint32_t merges = (uint32_t)MIN(MAX(cores, 1L), (long)WORKERS_MERGE_MAX);
    esker_status status = pool_start_kind_locked(WORKER_URGENT, WORKERS_URGENT);
    if (status == ESKER_OK) {
        status = pool_start_kind_locked(WORKER_PRESS, merges);
    }
    if (status == ESKER_OK) {
        status = pool_start_kind_locked(WORKER_MERGE, merges);
    }
    if (status == ESKER_OK) {
        status = pool_start_kind_locked(WORKER_IDLE, 1);
    }
    if (status != ESKER_OK) {
        pool_stop_threads_locked();
        return status;
    }
    pool.merge_count = merges;
    return ESKER_OK;
}

esker_status
workers_acquire(bool manual)
{
    int failed = pool_start_once();
    if (failed != 0) {
        return FAIL_OS(failed, NULL, 0, "cannot prepare the background threads");
    }
    esker_status status = ESKER_OK;
    mutex_lock(&pool_holders_mutex);
    mutex_lock(&pool.mutex);
    if (pool.holder_count > 0 && workers_manual() != manual) {
        status = FAIL(ESKER_INVALID, "databases with and without background threads in one process");
    } else if (pool.holder_count == 0) {
        /* relaxed: set before the first holder exists; holders only read it. */
        store_relaxed(&pool_manual, manual);
        pool.manual_now_ns = 0;
        status = manual ? ESKER_OK : pool_start_threads_locked();
    }
    if (status == ESKER_OK) {
        pool.holder_count++;
    }
    mutex_unlock(&pool.mutex);
    mutex_unlock(&pool_holders_mutex);
    return status;
}

void
workers_release(void)
{
    ASSERT(job_of_this_thread == NULL);
    mutex_lock(&pool_holders_mutex);
    mutex_lock(&pool.mutex);
    if (pool.holder_count == 0) {
        /* A handle of the parent, closed in the child: its threads stayed behind.
         * relaxed: changes only while the process has one thread. */
        ASSERT(load_relaxed(&fork_generation) != 0);
    } else {
        pool.holder_count--;
        if (pool.holder_count == 0) {
            /* Every owner has been stopped before its holder let go. */
            ASSERT(pool.timed == NULL);
            for (int kind = 0; kind < WORKER_KINDS; kind++) {
                ASSERT(!pool_lists_ready_locked(kind));
            }
            pool_stop_threads_locked();
        }
    }
    mutex_unlock(&pool.mutex);
    mutex_unlock(&pool_holders_mutex);
}

uint32_t
workers_count(void)
{
    mutex_lock(&pool.mutex);
    uint32_t count = pool.thread_count > 0 ? WORKERS_URGENT : 1;
    mutex_unlock(&pool.mutex);
    return count;
}

uint32_t
workers_compact_count(void)
{
    mutex_lock(&pool.mutex);
    uint32_t count = MAX(pool.merge_count, 1u);
    mutex_unlock(&pool.mutex);
    return count;
}

uint64_t
workers_vain_looks(void)
{
    mutex_lock(&pool.mutex);
    uint64_t count = pool.vain_looks;
    mutex_unlock(&pool.mutex);
    return count;
}

bool
workers_manual(void)
{
    /* relaxed: set before the first holder exists; holders only read it. */
    return load_relaxed(&pool_manual);
}

/* ---- Jobs --------------------------------------------------------------- */

void
job_owner_init(struct job_owner *owner, uint32_t running_limit)
{
    /* Also the first to use the locks: jobs may be kicked before anybody holds the pool. */
    (void)pool_start_once();
    /* relaxed: changes only while the process has one thread. */
    *owner = (struct job_owner){.running_limit = running_limit, .generation = load_relaxed(&fork_generation)};
}

/* The owner was made before a fork: its jobs run in the parent only. */
static bool
job_owner_is_foreign(const struct job_owner *owner)
{
    /* relaxed: changes only while the process has one thread. */
    return owner->generation != load_relaxed(&fork_generation);
}

static void
job_owner_drop_locked(struct job_owner *owner)
{
    for (int urgency = 0; urgency < JOB_URGENCIES; urgency++) {
        struct job_list *list = &pool.ready[urgency];
        struct job *previous = NULL;
        for (struct job *job = list->first; job != NULL;) {
            struct job *next = job->next;
            if (job->owner == owner) {
                job_ready_remove_locked(list, previous, job);
            } else {
                previous = job;
            }
            job = next;
        }
    }
    for (struct job **at = &pool.timed; *at != NULL;) {
        struct job *job = *at;
        if (job->owner == owner) {
            *at = job->next;
            job->next = NULL;
            job->queued = false;
        } else {
            at = &job->next;
        }
    }
}

void
job_owner_stop(struct job_owner *owner)
{
    if (job_owner_is_foreign(owner)) {
        return;
    }
    /* A job cannot wait for its own end. */
    ASSERT(job_of_this_thread == NULL || job_of_this_thread->owner != owner);
    mutex_lock(&pool.mutex);
    owner->stopping = true;
    job_owner_drop_locked(owner);
    while (owner->running_count > 0) {
        cond_wait(&pool.stopped, &pool.mutex);
    }
    mutex_unlock(&pool.mutex);
}

void
job_init(struct job *job, struct job_owner *owner, enum job_urgency urgency, void (*run)(struct job *job))
{
    ASSERT((unsigned)urgency < JOB_URGENCIES);
    *job = (struct job){.run = run, .owner = owner, .urgency = urgency};
}

/* due_ns: 0 = now. An earlier pending kick wins. */
static void
job_kick_locked(struct job *job, uint64_t due_ns)
{
    if (job->running) {
        job->due_ns = job->again ? MIN(job->due_ns, due_ns) : due_ns;
        job->again = true;
        return;
    }
    if (job->queued) {
        if (job->due_ns <= due_ns) {
            return;
        }
        job_timed_remove_locked(job);
    }
    job->due_ns = due_ns;
    job_list_locked(job);
    if (due_ns == 0) {
        pool_wake_for_locked(job);
    } else {
        pool_watch_timed_locked();
    }
}

void
job_set_urgency(struct job *job, enum job_urgency urgency)
{
    ASSERT((unsigned)urgency < JOB_URGENCIES && job_of_this_thread == job);
    mutex_lock(&pool.mutex);
    job->urgency = urgency; /* I2: it is in no list now */
    mutex_unlock(&pool.mutex);
}

void
job_kick(struct job *job)
{
    if (job_owner_is_foreign(job->owner)) {
        return;
    }
    mutex_lock(&pool.mutex);
    if (!job->owner->stopping) {
        job_kick_locked(job, 0);
    }
    mutex_unlock(&pool.mutex);
}

void
job_kick_after(struct job *job, uint64_t delay_ns)
{
    if (job_owner_is_foreign(job->owner)) {
        return;
    }
    mutex_lock(&pool.mutex);
    if (!job->owner->stopping) {
        uint64_t due_ns;
        if (__builtin_add_overflow(pool_now_locked(), delay_ns, &due_ns)) {
            due_ns = UINT64_MAX;
        }
        job_kick_locked(job, delay_ns == 0 ? 0 : due_ns);
    }
    mutex_unlock(&pool.mutex);
}

bool
workers_in_job(void)
{
    return job_of_this_thread != NULL;
}

bool
job_idle(struct job *job)
{
    mutex_lock(&pool.mutex);
    bool idle = !job->queued && !job->running;
    mutex_unlock(&pool.mutex);
    return idle;
}

/* ---- Waiting ------------------------------------------------------------ */

uint64_t
workers_timer_ns(void)
{
    mutex_lock(&pool.mutex);
    uint64_t now_ns = pool_now_locked();
    mutex_unlock(&pool.mutex);
    return now_ns;
}

bool
workers_run_one(void)
{
    ASSERT(workers_manual());
    mutex_lock(&pool.mutex);
    struct job *job = pool_pick_locked(0, JOB_URGENCIES);
    while (job == NULL && pool.timed != NULL) {
        pool.manual_now_ns = pool.timed->due_ns;
        job = pool_pick_locked(0, JOB_URGENCIES);
    }
    if (job != NULL) {
        job_run_locked(job, pool_kind_of(job->urgency));
    }
    mutex_unlock(&pool.mutex);
    return job != NULL;
}

bool
workers_wait(struct cond *cond, struct mutex *mutex, uint64_t deadline_ns)
{
    if (!workers_manual()) {
        if (deadline_ns != 0) {
            return cond_wait_until(cond, mutex, deadline_ns);
        }
        cond_wait(cond, mutex);
        return true;
    }
    if (deadline_ns != 0 && workers_clock_ns() >= deadline_ns) {
        return false; /* a job that lists itself again and again must not make the wait endless */
    }
    mutex_unlock(mutex);
    bool ran = workers_run_one();
    mutex_lock(mutex);
    /* Nobody else is there who could end the wait. */
    ASSERT(ran || deadline_ns != 0);
    return ran;
}
