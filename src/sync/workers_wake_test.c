/* SPDX-License-Identifier: MIT */
/*
 * Goal: a job of many short runs, as a merge is, wakes no thread but the one that runs
 * it, whatever is timed meanwhile; the processors are others'.
 * Method: looks of threads that found nothing, counted over a thousand runs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "sync/workers.h"

enum { WAKE_STEPS = 1000, WAKE_STEP_US = 50 };

static const uint64_t wake_far_ns = 1ull << 42; /* more than an hour */

struct wake_job {
    struct job job;
    uint32_t runs; /* guarded by wake_mutex */
};

static struct mutex wake_mutex = MUTEX_INIT;
static struct cond wake_changed;

static void
wake_step(struct job *job)
{
    struct wake_job *self = CONTAINER_OF(job, struct wake_job, job);
    /* A step takes longer than it takes to wake somebody, who would look and find nothing. */
    (void)usleep(WAKE_STEP_US);
    mutex_lock(&wake_mutex);
    bool more = ++self->runs < WAKE_STEPS;
    if (!more) {
        cond_broadcast(&wake_changed);
    }
    mutex_unlock(&wake_mutex);
    if (more) {
        job_kick(job);
    }
}

static void
wake_never(struct job *job)
{
    (void)job;
    fail();
}

static void
workers__steps_of_one_job_wake_nobody(void **state)
{
    static const enum job_urgency urgencies[] = {JOB_FLUSH, JOB_COMPACT, JOB_COMPACT_IDLE};

    (void)state;
    cond_init(&wake_changed);
    for (size_t i = 0; i < COUNTOF(urgencies); i++) {
        struct job_owner owner;
        struct wake_job steps = {.runs = 0};
        struct wake_job far = {.runs = 0};
        assert_int_equal(workers_acquire(false), ESKER_OK);
        job_owner_init(&owner, 2);
        job_init(&steps.job, &owner, urgencies[i], wake_step);
        job_init(&far.job, &owner, JOB_LOG, wake_never);
        job_kick_after(&far.job, wake_far_ns);
        uint64_t before = workers_vain_looks();
        job_kick(&steps.job);
        mutex_lock(&wake_mutex);
        while (steps.runs < WAKE_STEPS) {
            (void)workers_wait(&wake_changed, &wake_mutex, 0);
        }
        mutex_unlock(&wake_mutex);
        assert_true(workers_vain_looks() - before < WAKE_STEPS / 20);
        job_owner_stop(&owner);
        workers_release();
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(workers__steps_of_one_job_wake_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
