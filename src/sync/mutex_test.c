/* SPDX-License-Identifier: MIT */
/*
 * Goal: mutexes exclude, conditions wake and honour deadlines of the monotonic clock.
 * Method: counters that only exclusion keeps right, and waits that only one of wake or deadline can end.
 */
#include "sync/mutex.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

enum { MUTEX_TEST_THREADS = 4, MUTEX_TEST_ROUNDS = 5000 };

struct mutex_test_state {
    struct mutex mutex;
    struct cond changed;
    uint64_t counter;
    uint64_t consumed;
};

static uint64_t
mutex_test_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void *
mutex_test_count(void *arg)
{
    struct mutex_test_state *state = (struct mutex_test_state *)arg;
    for (int round = 0; round < MUTEX_TEST_ROUNDS; round++) {
        if (round % 3 != 0 || !mutex_try_lock(&state->mutex)) {
            mutex_lock(&state->mutex);
        }
        state->counter++;
        mutex_unlock(&state->mutex);
    }
    return NULL;
}

/* Goal: lock and try_lock exclude. Method: threads bump a plain counter; lost updates would show. */
static void
mutex__excludes(void **unused)
{
    (void)unused;
    struct mutex_test_state state = {.counter = 0};
    mutex_init(&state.mutex);
    pthread_t threads[MUTEX_TEST_THREADS];
    for (int idx = 0; idx < MUTEX_TEST_THREADS; idx++) {
        assert_int_equal(pthread_create(&threads[idx], NULL, mutex_test_count, &state), 0);
    }
    for (int idx = 0; idx < MUTEX_TEST_THREADS; idx++) {
        assert_int_equal(pthread_join(threads[idx], NULL), 0);
    }
    assert_int_equal(state.counter, MUTEX_TEST_THREADS * MUTEX_TEST_ROUNDS);
    mutex_fini(&state.mutex);
}

/* Goal: try_lock refuses a held mutex and the static initialiser works. Method: hold it and try. */
static void
mutex__try_lock_refuses_a_held_mutex(void **unused)
{
    (void)unused;
    struct mutex mutex = MUTEX_INIT;
    mutex_lock(&mutex);
    assert_false(mutex_try_lock(&mutex));
    mutex_unlock(&mutex);
    assert_true(mutex_try_lock(&mutex));
    mutex_unlock(&mutex);
    mutex_fini(&mutex);
}

/* Goal: a wait that nobody ends returns false after its deadline. Method: one past, one near. */
static void
cond__deadline_ends_the_wait(void **unused)
{
    (void)unused;
    struct mutex mutex = MUTEX_INIT;
    struct cond cond;
    cond_init(&cond);
    mutex_lock(&mutex);
    assert_false(cond_wait_until(&cond, &mutex, 1));
    uint64_t deadline_ns = mutex_test_now_ns() + 2000000;
    while (cond_wait_until(&cond, &mutex, deadline_ns)) {
    }
    assert_true(mutex_test_now_ns() >= deadline_ns);
    mutex_unlock(&mutex);
    cond_fini(&cond);
    mutex_fini(&mutex);
}

static void *
cond_test_consume(void *arg)
{
    struct mutex_test_state *state = (struct mutex_test_state *)arg;
    uint64_t far_ns = mutex_test_now_ns() + 3600ull * 1000000000u;
    mutex_lock(&state->mutex);
    while (state->consumed < MUTEX_TEST_ROUNDS) {
        while (state->counter == state->consumed) {
            if (state->consumed % 2 == 0) {
                assert_true(cond_wait_until(&state->changed, &state->mutex, far_ns));
            } else {
                cond_wait(&state->changed, &state->mutex);
            }
        }
        state->consumed = state->counter;
        cond_signal(&state->changed);
    }
    mutex_unlock(&state->mutex);
    return NULL;
}

/* Goal: signals end both kinds of wait, and none is lost. Method: producer and consumer in lockstep. */
static void
cond__signal_wakes_the_waiter(void **unused)
{
    (void)unused;
    struct mutex_test_state state = {.counter = 0};
    mutex_init(&state.mutex);
    cond_init(&state.changed);
    pthread_t consumer;
    assert_int_equal(pthread_create(&consumer, NULL, cond_test_consume, &state), 0);
    mutex_lock(&state.mutex);
    for (uint64_t round = 1; round <= MUTEX_TEST_ROUNDS; round++) {
        state.counter = round;
        cond_broadcast(&state.changed);
        while (state.consumed != round) {
            cond_wait(&state.changed, &state.mutex);
        }
    }
    mutex_unlock(&state.mutex);
    assert_int_equal(pthread_join(consumer, NULL), 0);
    cond_fini(&state.changed);
    mutex_fini(&state.mutex);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutex__excludes),
        cmocka_unit_test(mutex__try_lock_refuses_a_held_mutex),
        cmocka_unit_test(cond__deadline_ends_the_wait),
        cmocka_unit_test(cond__signal_wakes_the_waiter),
    };
    return cmocka_run_group_tests_name("mutex", tests, NULL, NULL);
}
