/* SPDX-License-Identifier: MIT */
/*
 * Goal: jobs run once per burst of kicks, in the promised order and number, and never after their owner
 * stopped.
 * Method: in manual mode the exact order of runs; with threads, jobs that wait for each other, so that a
 * broken promise is a wrong count or a test that never ends.
 */
#include "sync/workers.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"
#include "sync/epoch.h"

#include <cmocka.h>

enum { WORKERS_TEST_HOUR_NS_SHIFT = 42 }; /* 2^42 ns: more than an hour */

struct workers_test_job {
    struct job job;
    char name;
    _Atomic uint32_t run_count;
    _Atomic uint32_t inside;
    struct workers_test_job *other; /* kicked by workers_test_nest */
};

static const uint64_t workers_test_far_ns = 1ull << WORKERS_TEST_HOUR_NS_SHIFT;

/* What ran, in order; manual mode only. */
static char workers_test_log[64];
static size_t workers_test_log_len;

/* What jobs and tests tell each other. */
static struct mutex workers_test_mutex = MUTEX_INIT;
static struct cond workers_test_changed;
static bool workers_test_open;
static uint32_t workers_test_inside_count;
static uint32_t workers_test_inside_max;

static struct workers_test_job *
workers_test_job_of(struct job *job)
{
    return CONTAINER_OF(job, struct workers_test_job, job);
}

static uint32_t
workers_test_runs(struct workers_test_job *job)
{
    return load_acquire(&job->run_count); /* pairs: WORKERS_TEST */
}

static void
workers_test_note(struct job *job)
{
    struct workers_test_job *self = workers_test_job_of(job);
    workers_test_log[workers_test_log_len++] = self->name;
    add_acq_rel(&self->run_count, 1); /* pairs: WORKERS_TEST */
}

static void
workers_test_setup_job(struct workers_test_job *job, struct job_owner *owner, enum job_urgency urgency,
                       char name, void (*run)(struct job *job))
{
    *job = (struct workers_test_job){.name = name};
    job_init(&job->job, owner, urgency, run);
}

static void
workers_test_acquire(bool manual)
{
    memset(workers_test_log, 0, sizeof workers_test_log);
    workers_test_log_len = 0;
    workers_test_open = false;
    workers_test_inside_count = 0;
    workers_test_inside_max = 0;
    assert_int_equal(workers_acquire(manual), ESKER_OK);
}

static void
workers_test_set_open(bool open)
{
    mutex_lock(&workers_test_mutex);
    workers_test_open = open;
    cond_broadcast(&workers_test_changed);
    mutex_unlock(&workers_test_mutex);
}

static void
workers_test_wait_runs(struct workers_test_job *job, uint32_t count)
{
    mutex_lock(&workers_test_mutex);
    while (workers_test_runs(job) < count) {
        assert_true(workers_wait(&workers_test_changed, &workers_test_mutex, 0));
    }
    mutex_unlock(&workers_test_mutex);
}

static void
workers_test_wait_inside(uint32_t count)
{
    mutex_lock(&workers_test_mutex);
    while (workers_test_inside_count < count) {
        assert_true(workers_wait(&workers_test_changed, &workers_test_mutex, 0));
    }
    mutex_unlock(&workers_test_mutex);
}

/* ---- Manual mode -------------------------------------------------------- */

/* Goal: kicks coalesce. Method: many kicks, then count the runs. */
static void
job_kick__coalesces(void **unused)
{
    (void)unused;
    workers_test_acquire(true);
    assert_true(workers_manual());
    assert_int_equal(workers_count(), 1);
    struct job_owner owner;
    struct workers_test_job job;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&job, &owner, JOB_FLUSH, 'a', workers_test_note);
    assert_true(job_idle(&job.job));
    assert_false(workers_run_one());
    for (int round = 0; round < 10; round++) {
        job_kick(&job.job);
        job_kick_after(&job.job, workers_test_far_ns);
    }
    assert_false(job_idle(&job.job));
    assert_true(workers_run_one());
    assert_false(workers_run_one());
    assert_true(job_idle(&job.job));
    assert_int_equal(workers_test_runs(&job), 1);
    job_owner_stop(&owner);
    workers_release();
}

static void
workers_test_rekick(struct job *job)
{
    struct workers_test_job *self = workers_test_job_of(job);
    if (workers_test_runs(self) < 3) {
        job_kick(job);
        job_kick_after(job, workers_test_far_ns);
        job_kick(job);
        assert_false(job_idle(job));
    }
    workers_test_note(job);
}

/* Goal: a kick while the job runs makes it run once more. Method: a job that kicks itself a few times. */
static void
job_kick__while_running_runs_once_more(void **unused)
{
    (void)unused;
    workers_test_acquire(true);
    struct job_owner owner;
    struct workers_test_job job;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&job, &owner, JOB_LOG, 'a', workers_test_rekick);
    job_kick(&job.job);
    while (workers_run_one()) {
    }
    assert_int_equal(workers_test_runs(&job), 4);
    job_owner_stop(&owner);
    workers_release();
}

/* Goal: manual mode runs by urgency, then by kick; timed jobs when nothing else is left, by their times.
 * Method: kick in another order and read the log of names. */
static void
workers__manual_order_is_by_urgency_then_kick(void **unused)
{
    (void)unused;
    workers_test_acquire(true);
    struct job_owner owner;
    job_owner_init(&owner, 4);

    static const enum job_urgency urgencies[] = {JOB_LOG, JOB_FLUSH, JOB_PURGE, JOB_COMPACT};
    struct workers_test_job jobs[12];
    for (size_t idx = 0; idx < COUNTOF(jobs); idx++) {
        workers_test_setup_job(&jobs[idx], &owner, urgencies[idx % 4], (char)('a' + idx), workers_test_note);
    }
    job_kick_after(&jobs[11].job, 2000); /* l */
    job_kick_after(&jobs[8].job, 3000);  /* i: more urgent, but later */
    job_kick_after(&jobs[9].job, 3000);  /* j: the same time, kicked after i */
    job_kick_after(&jobs[10].job, 0);    /* k: at once */
    for (size_t idx = 8; idx > 0; idx--) {
        job_kick(&jobs[idx - 1].job);
    }
    while (workers_run_one()) {
    }
    assert_string_equal(workers_test_log, "eafbkgchdlij");
    job_owner_stop(&owner);
    workers_release();
}

static void
workers_test_delay_itself(struct job *job)
{
    workers_test_note(job);
    if (workers_test_runs(workers_test_job_of(job)) == 1) {
        job_kick_after(job, 1000);
        job_kick_after(job, 100);
        job_kick_after(job, 500);
    }
}

/* Goal: of a timed and an earlier kick the earlier stays, whichever came first. Method: the order of runs. */
static void
job_kick_after__keeps_the_earlier_time(void **unused)
{
    (void)unused;
    workers_test_acquire(true);
    struct job_owner owner;
    job_owner_init(&owner, 4);
    struct workers_test_job jobs[6];
    for (size_t idx = 0; idx < COUNTOF(jobs); idx++) {
        workers_test_setup_job(&jobs[idx], &owner, JOB_PURGE, (char)('a' + idx), workers_test_note);
    }
    jobs[5].job.run = workers_test_delay_itself;
    job_kick_after(&jobs[0].job, 500); /* later made sooner: 100 */
    job_kick_after(&jobs[1].job, 200);
    job_kick_after(&jobs[4].job, 200); /* the same time, kicked later */
    job_kick_after(&jobs[5].job, 60);
    job_kick_after(&jobs[2].job, 50); /* a later kick changes nothing */
    job_kick_after(&jobs[3].job, UINT64_MAX);
    job_kick_after(&jobs[0].job, 100);
    job_kick_after(&jobs[2].job, 900);
    job_kick(&jobs[3].job); /* and at once beats any time */
    while (workers_run_one()) {
    }
    assert_string_equal(workers_test_log, "dcfafbe");
    job_owner_stop(&owner);
    workers_release();
}

static void
workers_test_nest(struct job *job)
{
    workers_test_note(job);
    job_kick(&workers_test_job_of(job)->other->job);
    while (workers_run_one()) {
    }
}

/* Goal: running_limit binds JOB_COMPACT jobs of one owner and nothing else.
 * Method: a running compaction runs what it may: the flush and another owner's compaction, not its sister. */
static void
job_owner__limit_binds_compactions_only(void **unused)
{
    (void)unused;
    for (uint32_t limit = 1; limit <= 2; limit++) {
        workers_test_acquire(true);
        struct job_owner owner;
        struct job_owner other;
        job_owner_init(&owner, limit);
        job_owner_init(&other, 1);
        struct workers_test_job jobs[4];
        workers_test_setup_job(&jobs[0], &owner, JOB_COMPACT, 'a', workers_test_nest);
        workers_test_setup_job(&jobs[1], &owner, JOB_COMPACT, 'b', workers_test_note);
        workers_test_setup_job(&jobs[2], &owner, JOB_FLUSH, 'c', workers_test_note);
        workers_test_setup_job(&jobs[3], &other, JOB_COMPACT, 'd', workers_test_note);
        job_kick(&jobs[0].job);
        job_kick(&jobs[1].job);
        job_kick(&jobs[3].job);
        jobs[0].other = &jobs[2];
        while (workers_run_one()) {
        }
        assert_string_equal(workers_test_log, limit == 1 ? "acdb" : "acbd");
        job_owner_stop(&owner);
        job_owner_stop(&other);
        workers_release();
    }
}

static void
workers_test_take_mutex(struct job *job)
{
    mutex_lock(&workers_test_mutex);
    workers_test_note(job);
    mutex_unlock(&workers_test_mutex);
}

/* Goal: a wait in manual mode runs one job with the mutex released, and a wait with a deadline and nothing
 * to do says that the deadline passed. Method: a job that takes the waiter's mutex. */
static void
workers_wait__runs_jobs_in_manual_mode(void **unused)
{
    (void)unused;
    workers_test_acquire(true);
    struct job_owner owner;
    struct workers_test_job job;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&job, &owner, JOB_FLUSH, 'a', workers_test_take_mutex);
    mutex_lock(&workers_test_mutex);
    job_kick(&job.job);
    assert_true(workers_wait(&workers_test_changed, &workers_test_mutex, 0));
    assert_int_equal(workers_test_runs(&job), 1);
    assert_false(workers_wait(&workers_test_changed, &workers_test_mutex, UINT64_MAX));
    job_kick(&job.job);
    assert_false(workers_wait(&workers_test_changed, &workers_test_mutex, 1)); /* long past */
    assert_int_equal(workers_test_runs(&job), 1);
    assert_true(workers_wait(&workers_test_changed, &workers_test_mutex, UINT64_MAX));
    assert_int_equal(workers_test_runs(&job), 2);
    mutex_unlock(&workers_test_mutex);
    job_owner_stop(&owner);
    workers_release();
}

/* Goal: stop drops the owner's listed jobs, ready and timed, and no other's; later kicks are ignored.
 * Method: two owners whose jobs are interleaved in every list. */
static void
job_owner_stop__drops_only_its_own(void **unused)
{
    (void)unused;
    workers_test_acquire(true);
    struct job_owner owners[2];
    struct workers_test_job jobs[16];
    job_owner_init(&owners[0], 1);
    job_owner_init(&owners[1], 1);
    for (size_t idx = 0; idx < COUNTOF(jobs); idx++) {
        workers_test_setup_job(&jobs[idx], &owners[(idx + idx / 8) % 2], JOB_PURGE, (char)('a' + idx),
                               workers_test_note);
        if (idx < 8) {
            job_kick(&jobs[idx].job);
        } else {
            job_kick_after(&jobs[idx].job, 10 + idx);
        }
    }
    job_owner_stop(&owners[0]);
    job_owner_stop(&owners[0]);
    for (size_t idx = 0; idx < COUNTOF(jobs); idx++) {
        bool dropped = (idx + idx / 8) % 2 == 0;
        assert_true(job_idle(&jobs[idx].job) == dropped);
        if (dropped) {
            job_kick(&jobs[idx].job);
            job_kick_after(&jobs[idx].job, 1);
            assert_true(job_idle(&jobs[idx].job));
        }
    }
    while (workers_run_one()) {
    }
    assert_string_equal(workers_test_log, "bdfhikmo");
    job_owner_stop(&owners[1]);
    workers_release();
}

/* ---- Threads ------------------------------------------------------------ */

static void
workers_test_count(struct job *job)
{
    struct workers_test_job *self = workers_test_job_of(job);
    if (exchange_seq(&self->inside, 1) != 0) { /* pairs: WORKERS_TEST */
        abort();                               /* on two threads at once */
    }
    mutex_lock(&workers_test_mutex);
    add_acq_rel(&self->run_count, 1); /* pairs: WORKERS_TEST */
    cond_broadcast(&workers_test_changed);
    mutex_unlock(&workers_test_mutex);
    store_seq(&self->inside, 0); /* pairs: WORKERS_TEST */
}

/* Waits until the test opens the gate, and counts who waits. */
static void
workers_test_gate(struct job *job)
{
    struct workers_test_job *self = workers_test_job_of(job);
    mutex_lock(&workers_test_mutex);
    workers_test_inside_count++;
    workers_test_inside_max = MAX(workers_test_inside_max, workers_test_inside_count);
    cond_broadcast(&workers_test_changed);
    while (!workers_test_open) {
        cond_wait(&workers_test_changed, &workers_test_mutex);
    }
    workers_test_inside_count--;
    add_acq_rel(&self->run_count, 1); /* pairs: WORKERS_TEST */
    cond_broadcast(&workers_test_changed);
    mutex_unlock(&workers_test_mutex);
}

/* Goal: kicks during a run make exactly one rerun. Method: the run waits at a gate while it is kicked. */
static void
workers__rerun_what_was_kicked_meanwhile(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    assert_false(workers_manual());
    assert_true(workers_count() >= 2 && workers_compact_count() >= 1);
    struct job_owner owner;
    struct workers_test_job job;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&job, &owner, JOB_FLUSH, 'a', workers_test_gate);
    job_kick(&job.job);
    workers_test_wait_inside(1);
    for (int round = 0; round < 5; round++) {
        job_kick(&job.job);
    }
    assert_int_equal(workers_test_runs(&job), 0);
    workers_test_set_open(true);
    workers_test_wait_runs(&job, 2);
    while (!job_idle(&job.job)) {
        usleep(100);
    }
    assert_int_equal(workers_test_runs(&job), 2);
    job_owner_stop(&owner);
    workers_release();
}

/* Goal: compactions never keep a flush waiting. Method: more compactions than threads wait at a gate that
 * opens only after a flush has run. */
static void
workers__keep_one_free_of_compactions(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    struct job_owner owner;
    job_owner_init(&owner, 100);
    struct workers_test_job flush;
    struct workers_test_job compactions[8];
    workers_test_setup_job(&flush, &owner, JOB_FLUSH, 'f', workers_test_count);
    for (size_t idx = 0; idx < COUNTOF(compactions); idx++) {
        workers_test_setup_job(&compactions[idx], &owner, JOB_COMPACT, 'c', workers_test_gate);
        job_kick(&compactions[idx].job);
    }
    workers_test_wait_inside(workers_compact_count());
    for (uint32_t round = 1; round <= 20; round++) {
        job_kick(&flush.job);
        workers_test_wait_runs(&flush, round);
    }
    workers_test_set_open(true);
    for (size_t idx = 0; idx < COUNTOF(compactions); idx++) {
        workers_test_wait_runs(&compactions[idx], 1);
    }
    assert_true(workers_test_inside_max <= workers_compact_count());
    job_owner_stop(&owner);
    workers_release();
}

/* Goal: a timed job runs without another kick, also when a later one was listed first; a far one does not
 * keep the pool from ending. Method: short delays are waited for; the far one is dropped by stop. */
static void
workers__run_timed_jobs(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    struct job_owner owner;
    job_owner_init(&owner, 1);
    struct workers_test_job far;
    struct workers_test_job jobs[6];
    workers_test_setup_job(&far, &owner, JOB_LOG, 'z', workers_test_count);
    job_kick_after(&far.job, workers_test_far_ns);
    for (size_t idx = 0; idx < COUNTOF(jobs); idx++) {
        workers_test_setup_job(&jobs[idx], &owner, JOB_PURGE, 'a', workers_test_count);
        job_kick_after(&jobs[idx].job, (6 - idx) * 1000000);
    }
    for (size_t idx = 0; idx < COUNTOF(jobs); idx++) {
        workers_test_wait_runs(&jobs[idx], 1);
    }
    assert_int_equal(workers_test_runs(&far), 0);
    job_kick(&far.job);
    workers_test_wait_runs(&far, 1);
    job_kick_after(&far.job, workers_test_far_ns);
    job_owner_stop(&owner);
    workers_release();
    assert_int_equal(workers_test_runs(&far), 1);
}

static void
workers_test_open_gate(struct job *job)
{
    workers_test_set_open(true);
    workers_test_count(job);
}

/* Goal: a timed job runs on time although all other workers sleep without a limit and the one that knew of it
 * is busy. Method: the worker that wakes first is kept at a gate that only the second timed job opens. */
static void
workers__hand_on_the_next_deadline(void **unused)
{
    (void)unused;
    for (int round = 0; round < 20; round++) {
        workers_test_acquire(false);
        struct job_owner owner;
        job_owner_init(&owner, 1);
        struct workers_test_job first;
        struct workers_test_job second;
        workers_test_setup_job(&first, &owner, JOB_PURGE, 'a', workers_test_gate);
        workers_test_setup_job(&second, &owner, JOB_PURGE, 'b', workers_test_open_gate);
        usleep(round % 2 == 0 ? 300 : 0); /* the workers sleep, or start only now */
        job_kick_after(&first.job, 200000);
        job_kick_after(&second.job, 1000000);
        workers_test_wait_runs(&first, 1);
        workers_test_wait_runs(&second, 1);
        job_owner_stop(&owner);
        workers_release();
    }
}

/* Goal: a wait with a deadline ends. Method: nobody signals. */
static void
workers_wait__deadline_ends_the_wait(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    mutex_lock(&workers_test_mutex);
    assert_false(workers_wait(&workers_test_changed, &workers_test_mutex, 1));
    mutex_unlock(&workers_test_mutex);
    workers_release();
}

static void
workers_test_slow(struct job *job)
{
    struct workers_test_job *self = workers_test_job_of(job);
    store_seq(&self->inside, 1); /* pairs: WORKERS_TEST */
    job_kick(job);               /* before stop is called: no rerun may come of it */
    mutex_lock(&workers_test_mutex);
    workers_test_inside_count++;
    cond_broadcast(&workers_test_changed);
    mutex_unlock(&workers_test_mutex);
    usleep(3000);
    job_kick(job); /* likely after */
    job_kick_after(job, 1);
    store_seq(&self->inside, 0); /* pairs: WORKERS_TEST */
}

/* Goal: stop returns only when no job of the owner runs, and none runs later, though it kicked itself; the
 * memory may then go. Method: jobs on the heap, spoiled and freed right after stop. */
static void
job_owner_stop__waits_for_running_jobs(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    for (uint32_t round = 0; round < 20; round++) {
        struct job_owner *owner = (struct job_owner *)malloc(sizeof *owner);
        struct workers_test_job *job = (struct workers_test_job *)malloc(sizeof *job);
        assert_non_null(owner);
        assert_non_null(job);
        job_owner_init(owner, 1);
        workers_test_setup_job(job, owner, JOB_FLUSH, 'a', workers_test_slow);
        job_kick(&job->job);
        workers_test_wait_inside(round + 1);
        job_owner_stop(owner);
        assert_int_equal(load_seq(&job->inside), 0); /* pairs: WORKERS_TEST */
        assert_true(job_idle(&job->job));
        memset(job, 0xdd, sizeof *job);
        memset(owner, 0xdd, sizeof *owner);
        free(job);
        free(owner);
    }
    workers_release();
}

static void
workers_test_count_forever(struct job *job)
{
    workers_test_count(job);
    job_kick(job);
}

/* Goal: stop ends a job that kicks itself in every run. Method: let it spin, stop, count twice. */
static void
job_owner_stop__ends_a_job_that_kicks_itself(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    struct job_owner owner;
    struct workers_test_job job;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&job, &owner, JOB_PURGE, 'a', workers_test_count_forever);
    job_kick(&job.job);
    workers_test_wait_runs(&job, 100);
    job_owner_stop(&owner);
    uint32_t runs = workers_test_runs(&job);
    usleep(2000);
    assert_int_equal(workers_test_runs(&job), runs);
    workers_release();
}

enum { WORKERS_TEST_OWNERS = 12, WORKERS_TEST_JOBS = 5, WORKERS_TEST_KICKS = 400 };

static void *
workers_test_database(void *arg)
{
    struct rng rng = {.state = (uintptr_t)arg};
    if (workers_acquire(false) != ESKER_OK) {
        abort();
    }
    struct job_owner owner;
    struct workers_test_job jobs[WORKERS_TEST_JOBS];
    job_owner_init(&owner, 1 + (uint32_t)rng_below(&rng, 2));
    for (uint32_t idx = 0; idx < WORKERS_TEST_JOBS; idx++) {
        workers_test_setup_job(&jobs[idx], &owner, (enum job_urgency)(idx % JOB_URGENCIES), 'a',
                               workers_test_count);
    }
    for (uint32_t round = 0; round < WORKERS_TEST_KICKS; round++) {
        struct workers_test_job *job = &jobs[rng_below(&rng, WORKERS_TEST_JOBS)];
        uint32_t runs = workers_test_runs(job);
        if (rng_below(&rng, 3) == 0) {
            job_kick_after(&job->job, rng_below(&rng, 100000));
        } else {
            job_kick(&job->job);
        }
        if (rng_below(&rng, 4) == 0) {
            workers_test_wait_runs(job, runs + 1); /* every kick is followed by a run */
        }
    }
    job_owner_stop(&owner);
    for (uint32_t idx = 0; idx < WORKERS_TEST_JOBS; idx++) {
        if (load_seq(&jobs[idx].inside) != 0) { /* pairs: WORKERS_TEST */
            abort();
        }
    }
    workers_release();
    return NULL;
}

/* Goal: many owners share the pool: no kick is lost, no job runs twice at once, stop and the pool's start
 * and end mix. Method: each owner has its thread, which kicks at random and waits for runs. */
static void
workers__serve_many_owners(void **unused)
{
    (void)unused;
    pthread_t threads[WORKERS_TEST_OWNERS];
    for (uintptr_t idx = 0; idx < WORKERS_TEST_OWNERS; idx++) {
        assert_int_equal(pthread_create(&threads[idx], NULL, workers_test_database, (void *)(idx + 1)), 0);
    }
    for (size_t idx = 0; idx < WORKERS_TEST_OWNERS; idx++) {
        assert_int_equal(pthread_join(threads[idx], NULL), 0);
    }
    assert_int_equal(workers_count(), 1); /* the last holder ended the threads */
}

static sigset_t workers_test_mask;
static char workers_test_thread_name[16];

static void
workers_test_look(struct job *job)
{
    (void)pthread_sigmask(SIG_SETMASK, NULL, &workers_test_mask);
    (void)pthread_getname_np(pthread_self(), workers_test_thread_name, sizeof workers_test_thread_name);
    workers_test_count(job);
}

/* Goal: the host's signals stay on the host's threads, faults excepted, and the threads have names.
 * Method: a job looks at its own mask and name; the caller's mask is as before. */
static void
workers__are_named_and_deaf_to_signals(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    struct job_owner owner;
    struct workers_test_job job;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&job, &owner, JOB_LOG, 'a', workers_test_look);
    job_kick(&job.job);
    workers_test_wait_runs(&job, 1);
    job_owner_stop(&owner);
    workers_release();
    assert_int_equal(sigismember(&workers_test_mask, SIGTERM), 1);
    assert_int_equal(sigismember(&workers_test_mask, SIGUSR1), 1);
    assert_int_equal(sigismember(&workers_test_mask, SIGALRM), 1);
    assert_int_equal(sigismember(&workers_test_mask, SIGSEGV), 0);
    assert_int_equal(strncmp(workers_test_thread_name, "esker-work-", 11), 0);
    sigset_t mine;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &mine);
    assert_int_equal(sigismember(&mine, SIGUSR1), 0);
}

/* ---- Modes and fork ----------------------------------------------------- */

/* Goal: holders are counted and must agree about the mode. Method: acquire in both modes. */
static void
workers__holders_agree_about_the_mode(void **unused)
{
    (void)unused;
    for (int manual = 0; manual < 2; manual++) {
        assert_int_equal(workers_acquire(manual != 0), ESKER_OK);
        assert_int_equal(workers_acquire(manual != 0), ESKER_OK);
        assert_int_equal(workers_acquire(manual == 0), ESKER_INVALID);
        workers_release();
        assert_true(workers_manual() == (manual != 0));
        workers_release();
    }
}

static int
workers_test_child(struct workers_test_job *job, struct job_owner *owner)
{
    job_kick(&job->job);
    job_kick_after(&job->job, 1);
    job_owner_stop(owner);
    workers_release();
    if (workers_count() != 1) {
        return 4;
    }
    struct job_owner own;
    struct workers_test_job fresh;
    if (workers_acquire(true) != ESKER_OK) {
        return 1;
    }
    job_owner_init(&own, 1);
    workers_test_setup_job(&fresh, &own, JOB_FLUSH, 'n', workers_test_note);
    job_kick(&fresh.job);
    if (!workers_run_one() || workers_run_one() || workers_test_runs(&fresh) != 1) {
        return 2;
    }
    job_owner_stop(&own);
    workers_release();
#ifndef ESKER_TSAN /* the detector does not follow threads that a forked child starts */
    workers_test_mutex = (struct mutex)MUTEX_INIT;
    cond_init(&workers_test_changed);
    if (workers_acquire(false) != ESKER_OK) {
        return 3;
    }
    job_owner_init(&own, 1);
    workers_test_setup_job(&fresh, &own, JOB_FLUSH, 'n', workers_test_count);
    job_kick(&fresh.job);
    workers_test_wait_runs(&fresh, 1);
    job_owner_stop(&own);
    workers_release();
#endif
    return 0;
}

/* Goal: a forked child can call everything for its inherited jobs without hanging, and start anew.
 * Method: fork while a job runs and others are listed. */
static void
fork__leaves_the_child_without_jobs(void **unused)
{
    (void)unused;
    workers_test_acquire(false);
    struct job_owner owner;
    struct workers_test_job running;
    struct workers_test_job timed;
    job_owner_init(&owner, 1);
    workers_test_setup_job(&running, &owner, JOB_FLUSH, 'a', workers_test_gate);
    workers_test_setup_job(&timed, &owner, JOB_FLUSH, 'b', workers_test_count);
    job_kick(&running.job);
    job_kick_after(&timed.job, workers_test_far_ns);
    workers_test_wait_inside(1);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)alarm(30);
        _exit(workers_test_child(&running, &owner));
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    workers_test_set_open(true);
    job_owner_stop(&owner);
    workers_release();
}

int
main(void)
{
    cond_init(&workers_test_changed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(job_kick__coalesces),
        cmocka_unit_test(job_kick__while_running_runs_once_more),
        cmocka_unit_test(workers__manual_order_is_by_urgency_then_kick),
        cmocka_unit_test(job_kick_after__keeps_the_earlier_time),
        cmocka_unit_test(job_owner__limit_binds_compactions_only),
        cmocka_unit_test(workers_wait__runs_jobs_in_manual_mode),
        cmocka_unit_test(job_owner_stop__drops_only_its_own),
        cmocka_unit_test(workers__rerun_what_was_kicked_meanwhile),
        cmocka_unit_test(workers__keep_one_free_of_compactions),
        cmocka_unit_test(workers__run_timed_jobs),
        cmocka_unit_test(workers__hand_on_the_next_deadline),
        cmocka_unit_test(workers_wait__deadline_ends_the_wait),
        cmocka_unit_test(job_owner_stop__waits_for_running_jobs),
        cmocka_unit_test(job_owner_stop__ends_a_job_that_kicks_itself),
        cmocka_unit_test(workers__serve_many_owners),
        cmocka_unit_test(workers__are_named_and_deaf_to_signals),
        cmocka_unit_test(workers__holders_agree_about_the_mode),
        cmocka_unit_test(fork__leaves_the_child_without_jobs),
    };
    return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
