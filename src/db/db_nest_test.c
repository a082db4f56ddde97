/* SPDX-License-Identifier: MIT */
/*
 * Goal: calls that callbacks make inside other calls. A database is in use until
 * the last call of it has ended, however deep the thread is in others meanwhile.
 * Method: each database has an allocator that, when armed, runs a step in the
 * middle of esker_get: another call, a wait at a gate, the thread's end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "db/db.h"

enum { DATABASES = 3, DEPTH_MOST = THREAD_CALLS_MAX + 1 };

struct nest {
    esker_db *dbs[DATABASES];
    char paths[DATABASES][40];
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    uint32_t at; /* the gate that the thread stands at; 0 = none */
    uint32_t through;
};

/* What the thread does in the allocator, by depth: a call of a database, or the end. */
struct plan {
    struct nest *nest;
    int calls[DEPTH_MOST + 1]; /* number of a database; -1 = none */
    uint32_t depth;
    bool gates; /* wait in the innermost allocator at gate 1, and after each call at the next */
    bool dies;
    esker_status results[DEPTH_MOST + 1];
};

static _Thread_local struct plan *plan_now;

static void
nest_gate(struct nest *nest, uint32_t number)
{
    pthread_mutex_lock(&nest->mutex);
    nest->at = number;
    pthread_cond_broadcast(&nest->cond);
    while (nest->through < number) {
        pthread_cond_wait(&nest->cond, &nest->mutex);
    }
    pthread_mutex_unlock(&nest->mutex);
}

/* The thread stands at the next gate, or has gone through the last. */
static void
nest_wait(struct nest *nest, uint32_t number)
{
    pthread_mutex_lock(&nest->mutex);
    while (nest->at != number) {
        pthread_cond_wait(&nest->cond, &nest->mutex);
    }
    pthread_mutex_unlock(&nest->mutex);
}

static void
nest_open_gate(struct nest *nest, uint32_t number)
{
    pthread_mutex_lock(&nest->mutex);
    nest->through = number;
    pthread_cond_broadcast(&nest->cond);
    pthread_mutex_unlock(&nest->mutex);
}

static void
nest_call(struct plan *plan)
{
    int number = plan->calls[plan->depth];
    if (number < 0) {
        if (plan->dies) {
            pthread_exit(NULL);
        }
        if (plan->gates) {
            nest_gate(plan->nest, 1);
        }
        return;
    }
    esker_value value = {0};
    uint32_t depth = plan->depth++;
    plan_now = plan;
    plan->results[depth] = esker_get(plan->nest->dbs[number], esker_str("key"), NULL, &value);
    esker_value_release(&value);
    if (plan->gates) {
        nest_gate(plan->nest, 1 + plan->depth - depth);
    }
}

static void *
nest_alloc(void *ctx, size_t size)
{
    (void)ctx;
    struct plan *plan = plan_now;
    plan_now = NULL; /* once in each call */
    if (plan != NULL) {
        nest_call(plan);
    }
    return malloc(size);
}

static void *
nest_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    return aligned_alloc(alignment, align_up(size, alignment));
}

static void
nest_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static const esker_allocator nest_allocator = {nest_alloc, nest_aligned_alloc, nest_free, NULL};

static void
nest_init(struct nest *nest)
{
    *nest = (struct nest){.mutex = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.allocator = &nest_allocator;
    for (int i = 0; i < DATABASES; i++) {
        snprintf(nest->paths[i], sizeof nest->paths[i], "/tmp/esker-nest-XXXXXX");
        assert_non_null(mkdtemp(nest->paths[i]));
        assert_int_equal(esker_open(nest->paths[i], &options, &nest->dbs[i]), ESKER_OK);
        assert_int_equal(esker_put(nest->dbs[i], esker_str("key"), esker_str("value"), NULL), ESKER_OK);
    }
}

static void
nest_close(struct nest *nest, int number, esker_status expected)
{
    assert_int_equal(esker_close(nest->dbs[number]), expected);
    if (expected == ESKER_OK) {
        nest->dbs[number] = NULL;
        assert_int_equal(esker_destroy(nest->paths[number]), ESKER_OK);
    }
}

static void
nest_fini(struct nest *nest)
{
    for (int i = 0; i < DATABASES; i++) {
        if (nest->dbs[i] != NULL) {
            nest_close(nest, i, ESKER_OK);
        }
    }
}

static void *
nest_main(void *arg)
{
    nest_call(arg);
    return NULL;
}

/* Goal: close finds a call that another one hides. Method: a thread in a call of A, in that in one of B, in
 * that in one of A again; at each step out of it every database is tried. */
static void
close__finds_the_outer_call(void **state)
{
    (void)state;
    struct nest nest;
    nest_init(&nest);
    struct plan plan = {.nest = &nest, .calls = {0, 1, 0, -1}, .gates = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, nest_main, &plan), 0);
    nest_wait(&nest, 1); /* in A, B, A */
    nest_close(&nest, 0, ESKER_BUSY);
    nest_close(&nest, 1, ESKER_BUSY);
    nest_close(&nest, 2, ESKER_OK);
    nest_open_gate(&nest, 1);
    nest_wait(&nest, 2); /* in A, B */
    nest_close(&nest, 0, ESKER_BUSY);
    nest_close(&nest, 1, ESKER_BUSY);
    nest_open_gate(&nest, 2);
    nest_wait(&nest, 3); /* in A */
    nest_close(&nest, 0, ESKER_BUSY);
    nest_close(&nest, 1, ESKER_OK);
    nest_open_gate(&nest, 3);
    nest_wait(&nest, 4);
    nest_close(&nest, 0, ESKER_OK);
    nest_open_gate(&nest, 4);
    assert_int_equal(pthread_join(thread, NULL), 0);
    nest_fini(&nest);
}

/* Goal: a thread that ends inside calls of several databases is in none of them any more. Method: it ends in
 * the innermost allocator. */
static void
close__forgets_a_thread_that_ended_deep_inside(void **state)
{
    (void)state;
    struct nest nest;
    nest_init(&nest);
    struct plan plan = {.nest = &nest, .calls = {0, 1, 2, -1}, .dies = true};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, nest_main, &plan), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    nest_fini(&nest);
}

/* Goal: as many calls inside one another as there may be; one more is refused and changes nothing. Method:
 * one deeper than that, each database in turn; then again, as deep as allowed, in the same thread. */
static void
call__is_refused_too_deep(void **state)
{
    (void)state;
    struct nest nest;
    nest_init(&nest);
    for (uint32_t most = DEPTH_MOST; most >= THREAD_CALLS_MAX; most--) {
        struct plan plan = {.nest = &nest};
        for (uint32_t depth = 0; depth <= DEPTH_MOST; depth++) {
            plan.calls[depth] = depth < most ? (int)(depth % DATABASES) : -1;
        }
        nest_call(&plan);
        for (uint32_t depth = 0; depth < most; depth++) {
            assert_int_equal(plan.results[depth], depth < THREAD_CALLS_MAX ? ESKER_OK : ESKER_INVALID);
        }
        plan_now = NULL;
    }
    nest_fini(&nest);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(close__finds_the_outer_call),
        cmocka_unit_test(close__forgets_a_thread_that_ended_deep_inside),
        cmocka_unit_test(call__is_refused_too_deep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
