/* SPDX-License-Identifier: MIT */
/*
 * Goal: what is retired is freed once, after every section that might see it and before a drain returns;
 * threads come and go without leaving anything behind that grows or blocks.
 * Method: objects that are spoiled when they are freed, read by threads that check them; counters; churn.
 *
 * Negative control: compiled with -DEPOCH_TEST_FREE_AT_ONCE the writers free what they unlink without a grace
 * period. Seen red that way: heap-use-after-free under ASan, a data race under TSan, and the check of the
 * object's words in a plain build.
 */
#include "sync/epoch.h"

#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/rng.h"
#include "sync/epoch_testing.h"
#include "sync/futex.h"
#include "sync/mutex.h"

#include <cmocka.h>

enum { EPOCH_TEST_READERS = 3, EPOCH_TEST_WRITERS = 2, EPOCH_TEST_SWAPS = 10000, EPOCH_TEST_WAVE = 8 };

static _Atomic(struct epoch_test_object *) epoch_test_current;
static _Atomic uint32_t epoch_test_stop;

static void
epoch_test_unlink(struct epoch_test_object *object)
{
#ifdef EPOCH_TEST_FREE_AT_ONCE
    epoch_test_free(&object->node);
#else
    epoch_retire(&object->node, epoch_test_free);
#endif
}

static void *
epoch_test_read(void *arg)
{
    (void)arg;
    uint64_t sum = 0;
    while (load_relaxed(&epoch_test_stop) == 0) { /* relaxed: only ends the loop */
        struct thread_state *self = thread_state_get();
        epoch_enter(self);
        /* pairs: EPOCH_TEST_PUBLISH */
        struct epoch_test_object *object = load_acquire(&epoch_test_current);
        for (int round = 0; round < 4; round++) {
            if (*(volatile uint64_t *)&object->value != ~object->check) {
                abort(); /* read after free */
            }
            sum += 1;
            if (sum % 64 == 0) {
                sched_yield(); /* as if preempted inside the section */
            }
        }
        epoch_exit(self);
    }
    return NULL;
}

static void *
epoch_test_write(void *arg)
{
    (void)arg;
    for (uint64_t round = 0; round < EPOCH_TEST_SWAPS; round++) {
        /* pairs: EPOCH_TEST_PUBLISH */
        struct epoch_test_object *old = exchange_seq(&epoch_test_current, epoch_test_make(round));
        epoch_test_unlink(old);
        if (round % 2500 == 0) {
            epoch_drain();
        }
        if (round % 16 == 0) {
            sched_yield();
        }
    }
    return NULL;
}

static void
epoch_test_swaps(bool manual)
{
    assert_int_equal(epoch_runtime_acquire(manual), ESKER_OK);
    uint32_t freed = epoch_test_freed_count();
    store_relaxed(&epoch_test_stop, 0);                     /* relaxed: before the threads exist */
    store_relaxed(&epoch_test_current, epoch_test_make(0)); /* relaxed: before the threads exist */
    pthread_t readers[EPOCH_TEST_READERS];
    pthread_t writers[EPOCH_TEST_WRITERS];
    for (int idx = 0; idx < EPOCH_TEST_READERS; idx++) {
        assert_int_equal(pthread_create(&readers[idx], NULL, epoch_test_read, NULL), 0);
    }
    for (int idx = 0; idx < EPOCH_TEST_WRITERS; idx++) {
        assert_int_equal(pthread_create(&writers[idx], NULL, epoch_test_write, NULL), 0);
    }
    for (int idx = 0; idx < EPOCH_TEST_WRITERS; idx++) {
        assert_int_equal(pthread_join(writers[idx], NULL), 0);
    }
    store_relaxed(&epoch_test_stop, 1); /* relaxed: only ends the loops */
    for (int idx = 0; idx < EPOCH_TEST_READERS; idx++) {
        assert_int_equal(pthread_join(readers[idx], NULL), 0);
    }
    epoch_drain();
    assert_int_equal(epoch_test_freed_count() - freed, EPOCH_TEST_WRITERS * EPOCH_TEST_SWAPS);
    epoch_test_unlink(exchange_seq(&epoch_test_current, NULL)); /* pairs: EPOCH_TEST_PUBLISH */
    epoch_runtime_release();
    assert_int_equal(epoch_test_freed_count() - freed, EPOCH_TEST_WRITERS * EPOCH_TEST_SWAPS + 1);
}

/* Goal: readers never see a freed object.
 * Method: writers swap and retire while readers check what they load. */
static void
epoch__readers_never_see_a_freed_object(void **unused)
{
    (void)unused;
    epoch_test_swaps(false);
}

/* Goal: the same without a reclaimer thread, where the writers' drains free. */
static void
epoch__readers_never_see_a_freed_object_in_manual_mode(void **unused)
{
    (void)unused;
    epoch_test_swaps(true);
}

/* ---- Sections that last ------------------------------------------------- */

/* Goal: a node is not freed while a section that began before its retirement lasts, however long.
 * Method: one thread stays inside; the reclaimer gets many rounds; then it leaves and a drain ends. */
static void
epoch__a_section_holds_back_what_it_may_see(void **unused)
{
    (void)unused;
    struct epoch_test_gate gate = {.entered = 0};
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    pthread_t stayer;
    assert_int_equal(pthread_create(&stayer, NULL, epoch_test_stay, &gate), 0);
    epoch_test_gate_await(&gate);
    uint32_t freed = epoch_test_freed_count();
    for (uint64_t round = 0; round < 50; round++) {
        epoch_retire(&epoch_test_make(round)->node, epoch_test_free);
        usleep(200);
        assert_int_equal(epoch_test_freed_count(), freed);
    }
    epoch_test_gate_open(&gate);
    epoch_drain();
    assert_int_equal(epoch_test_freed_count(), freed + 50);
    assert_int_equal(pthread_join(stayer, NULL), 0);
    epoch_runtime_release();
}

/* Goal: the reclaimer frees without anybody asking, also after it slept. Method: wait for the count. */
static void
epoch__reclaimer_frees_unasked(void **unused)
{
    (void)unused;
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    for (uint64_t round = 0; round < 200; round++) {
        uint32_t freed = epoch_test_freed_count();
        epoch_retire(&epoch_test_make(round)->node, epoch_test_free);
        while (epoch_test_freed_count() == freed) {
            usleep(round % 3 == 0 ? 2000 : 10);
        }
    }
    epoch_runtime_release();
}

/* ---- Drains ------------------------------------------------------------- */

static struct epoch_test_object *
epoch_test_chain(uint32_t count)
{
    struct epoch_test_object *object = NULL;
    for (uint32_t idx = 0; idx < count; idx++) {
        struct epoch_test_object *parent = epoch_test_make(idx);
        parent->child = object;
        object = parent;
    }
    return object;
}

/* Goal: a drain covers what the frees retire in turn, with and without a reclaimer, and without any holder.
 * Method: chains whose every link is retired by the free of the link before. */
static void
epoch__drain_is_transitive(void **unused)
{
    (void)unused;
    for (int mode = 0; mode < 3; mode++) {
        if (mode < 2) {
            assert_int_equal(epoch_runtime_acquire(mode == 1), ESKER_OK);
        }
        for (uint32_t length = 1; length < 20; length++) {
            uint32_t freed = epoch_test_freed_count();
            epoch_retire(&epoch_test_chain(length)->node, epoch_test_free);
            epoch_retire(&epoch_test_chain(length)->node, epoch_test_free);
            epoch_drain();
            assert_int_equal(epoch_test_freed_count(), freed + 2 * length);
        }
        if (mode < 2) {
            epoch_runtime_release();
        }
    }
}

/* Goal: in manual mode nothing is freed before the drain. Method: retire, look, drain, look. */
static void
epoch__manual_mode_frees_in_drain_only(void **unused)
{
    (void)unused;
    assert_int_equal(epoch_runtime_acquire(true), ESKER_OK);
    assert_int_equal(epoch_runtime_acquire(true), ESKER_OK);
    assert_int_equal(epoch_runtime_acquire(false), ESKER_INVALID);
    uint32_t freed = epoch_test_freed_count();
    epoch_retire(&epoch_test_make(1)->node, epoch_test_free);
    assert_int_equal(epoch_test_freed_count(), freed);
    epoch_drain();
    assert_int_equal(epoch_test_freed_count(), freed + 1);
    epoch_retire(&epoch_test_make(2)->node, epoch_test_free);
    epoch_runtime_release();
    assert_int_equal(epoch_test_freed_count(), freed + 1);
    epoch_runtime_release();
    assert_int_equal(epoch_test_freed_count(), freed + 2);
}

static uint64_t epoch_test_order[64];
static size_t epoch_test_order_count;

static void
epoch_test_free_in_order(struct epoch_node *node)
{
    struct epoch_test_object *object = CONTAINER_OF(node, struct epoch_test_object, node);
    epoch_test_order[epoch_test_order_count++] = object->value;
    free(object);
}

/* Goal: one thread's nodes are freed in the order of their retirement, and what the frees wrote is the
 * drainer's to read. Method: number them; the record of the order is not atomic. */
static void
epoch__frees_in_the_order_of_retirement(void **unused)
{
    (void)unused;
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    for (uint64_t idx = 0; idx < COUNTOF(epoch_test_order); idx++) {
        epoch_retire(&epoch_test_make(idx)->node, epoch_test_free_in_order);
    }
    epoch_drain();
    assert_int_equal(epoch_test_order_count, COUNTOF(epoch_test_order));
    for (uint64_t idx = 0; idx < COUNTOF(epoch_test_order); idx++) {
        assert_int_equal(epoch_test_order[idx], idx);
    }
    epoch_runtime_release();
}

static _Atomic uint32_t epoch_test_round;
static _Atomic uint32_t epoch_test_answer;

static void
epoch_test_spin(uint64_t count)
{
    for (uint64_t idx = 0; idx < count; idx++) {
        cpu_relax();
    }
}

static void *
epoch_test_drain_nothing(void *arg)
{
    (void)arg;
    for (int round = 0; round < 3000; round++) {
        epoch_drain();
    }
    return NULL;
}

/* Goal: a ticket that arrives while the reclaimer lies down wakes it. Method: many drains with nothing to
 * free, so that it lies down after each; a lost wake-up would hang. */
static void
epoch__drain_of_nothing_returns(void **unused)
{
    (void)unused;
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, epoch_test_drain_nothing, NULL), 0);
    (void)epoch_test_drain_nothing(NULL);
    assert_int_equal(pthread_join(other, NULL), 0);
    epoch_runtime_release();
}

/* Goal: the last release frees what was retired before and ends the reclaimer wherever it is. Method: release
 * after a wait of random length, while another thread drains; hangs and leftovers would show. */
static void
epoch__release_frees_what_was_retired(void **unused)
{
    (void)unused;
    struct rng rng = {.state = 7};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, epoch_test_drain_nothing, NULL), 0);
    for (int round = 0; round < 1500; round++) {
        assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
        uint32_t freed = epoch_test_freed_count();
        epoch_test_spin(rng_below(&rng, 2000));
        if (round % 3 != 0) {
            epoch_retire(&epoch_test_chain(2)->node, epoch_test_free);
            epoch_test_spin(rng_below(&rng, 100));
        }
        epoch_runtime_release();
        assert_int_equal(epoch_test_freed_count() - freed, round % 3 != 0 ? 2 : 0);
    }
    assert_int_equal(pthread_join(other, NULL), 0);
}

static void *
epoch_test_drain_by_round(void *arg)
{
    uint32_t total = (uint32_t)(uintptr_t)arg;
    for (uint32_t round = 1; round <= total; round++) {
        while (load_acquire(&epoch_test_round) != round) { /* pairs: EPOCH_TEST_ROUND */
            sched_yield();
        }
        epoch_drain();
        store_release(&epoch_test_answer, round); /* pairs: EPOCH_TEST_ROUND */
    }
    return NULL;
}

/* Goal: a retirement that meets the reclaimer lying down wakes it. Method: another thread's empty drain
 * makes it lie down; a node is retired at a random time around that moment, and nobody drains again before
 * it is freed. */
static void
epoch__retirement_wakes_a_reclaimer_that_lies_down(void **unused)
{
    (void)unused;

    enum { ROUNDS = 1500 };
    struct rng rng = {.state = 11};
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    store_relaxed(&epoch_test_round, 0); /* relaxed: before the thread exists */
    pthread_t drainer;
    assert_int_equal(pthread_create(&drainer, NULL, epoch_test_drain_by_round, (void *)(uintptr_t)ROUNDS), 0);
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        uint32_t freed = epoch_test_freed_count();
        struct epoch_test_object *object = epoch_test_make(round);
        store_release(&epoch_test_round, round); /* pairs: EPOCH_TEST_ROUND */
        epoch_test_spin(rng_below(&rng, 5000));
        epoch_retire(&object->node, epoch_test_free);
        while (epoch_test_freed_count() == freed) {
            sched_yield();
        }
        while (load_acquire(&epoch_test_answer) != round) { /* pairs: EPOCH_TEST_ROUND */
            sched_yield();
        }
    }
    assert_int_equal(pthread_join(drainer, NULL), 0);
    epoch_runtime_release();
}

static void *
epoch_test_drain_often(void *arg)
{
    (void)arg;
    for (uint64_t round = 0; round < 300; round++) {
        if (round % 50 == 0) {
            epoch_retire(&epoch_test_chain(3)->node, epoch_test_free);
            if (epoch_runtime_acquire(false) != ESKER_OK) {
                abort();
            }
        }
        epoch_retire(&epoch_test_make(round)->node, epoch_test_free);
        epoch_drain();
        if (round % 50 == 49) {
            epoch_runtime_release();
        }
    }
    return NULL;
}

/* Goal: drains, holders that come and go, and retirements do not lose each other. Method: all at once, from
 * several threads; a lost ticket or wake-up would hang, a lost node would show in the count. */
static void
epoch__drains_survive_starts_and_stops(void **unused)
{
    (void)unused;
    uint32_t made = load_relaxed(&epoch_test_made); /* relaxed: before the threads exist */
    uint32_t freed = epoch_test_freed_count();
    pthread_t threads[4];
    for (size_t idx = 0; idx < COUNTOF(threads); idx++) {
        assert_int_equal(pthread_create(&threads[idx], NULL, epoch_test_drain_often, NULL), 0);
    }
    for (size_t idx = 0; idx < COUNTOF(threads); idx++) {
        assert_int_equal(pthread_join(threads[idx], NULL), 0);
    }
    /* relaxed: after the joins */
    assert_int_equal(epoch_test_freed_count() - freed, load_relaxed(&epoch_test_made) - made);
}

/* ---- Threads ------------------------------------------------------------ */

static void *
epoch_test_visit(void *arg)
{
    uintptr_t number = (uintptr_t)arg;
    struct thread_state *self = thread_state_get();
    if (self == NULL || self->in_section || load_relaxed(&self->in_call) != NULL) { /* relaxed: own */
        abort();
    }
    epoch_enter(self);
    store_relaxed(&self->in_call, &epoch_test_freed); /* relaxed: no close in this test */
    if (number % 3 == 0) {
        epoch_exit(self);
        store_relaxed(&self->in_call, NULL); /* relaxed: own */
    }
    return NULL; /* two of three die inside their section and call */
}

/* Goal: threads that come and go leave a bounded number of states, also those that die inside a section, and
 * none of them delays a grace period. Method: waves of short-lived threads with drains between. */
static void
thread_state__is_recycled_when_threads_die(void **unused)
{
    (void)unused;
    uintptr_t total = getenv("ESKER_LONG_TESTS") != NULL ? 100000 : 10000;
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    uint32_t states = thread_state_count();
    for (uintptr_t number = 0; number < total;) {
        pthread_t wave[EPOCH_TEST_WAVE];
        for (int idx = 0; idx < EPOCH_TEST_WAVE; idx++) {
            assert_int_equal(pthread_create(&wave[idx], NULL, epoch_test_visit, (void *)number++), 0);
        }
        for (int idx = 0; idx < EPOCH_TEST_WAVE; idx++) {
            assert_int_equal(pthread_join(wave[idx], NULL), 0);
        }
        uint32_t freed = epoch_test_freed_count();
        if (number % 512 == 0) {
            epoch_retire(&epoch_test_make(number)->node, epoch_test_free);
            epoch_drain();
            assert_int_equal(epoch_test_freed_count(), freed + 1);
        }
    }
    assert_true(thread_state_count() - states <= EPOCH_TEST_WAVE);
    assert_false(thread_state_any(&epoch_test_freed));
    epoch_runtime_release();
}

static pthread_key_t epoch_test_key;
static _Atomic uint32_t epoch_test_late_visits;

static void
epoch_test_late(void *arg)
{
    uintptr_t again = (uintptr_t)arg;
    struct thread_state *self = thread_state_get();
    if (self == NULL || load_relaxed(&self->used) != 1) { /* relaxed: own */
        abort();
    }
    epoch_enter(self);
    epoch_exit(self);
    add_relaxed(&epoch_test_late_visits, 1); /* relaxed: read after joins */
    if (again > 1) {
        (void)pthread_setspecific(epoch_test_key, (void *)(again - 1));
    }
}

static void *
epoch_test_visit_late(void *arg)
{
    struct thread_state *self = thread_state_get();
    epoch_enter(self);
    if (pthread_setspecific(epoch_test_key, arg) != 0) {
        abort();
    }
    return NULL;
}

/* Goal: a thread that calls the library from another key's destructor, after its state was handed back, works
 * and hands its second state back too. Method: a key made after the library's, whose destructor calls it. */
static void
thread_state__serves_destructors_that_run_later(void **unused)
{
    (void)unused;
    assert_non_null(thread_state_get());
    assert_int_equal(pthread_key_create(&epoch_test_key, epoch_test_late), 0);
    uint32_t states = thread_state_count();
#ifdef ESKER_TSAN
    /* The detector itself leaves a thread in its last round of destructors. */
    uintptr_t again_max = 2;
#else
    uintptr_t again_max = 3;
#endif
    for (uintptr_t round = 0; round < 300; round++) {
        pthread_t thread;
        uintptr_t again = 1 + round % again_max;
        assert_int_equal(pthread_create(&thread, NULL, epoch_test_visit_late, (void *)again), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
    }
    /* relaxed: after the joins */
    assert_int_equal(load_relaxed(&epoch_test_late_visits), 150 * (1 + again_max));
    assert_true(thread_state_count() - states <= 1);
    assert_int_equal(pthread_key_delete(epoch_test_key), 0);
    epoch_drain();
}

/* Goal: a state is aligned, its thread's alone, and shows in thread_state_any. Method: look at it. */
static void
thread_state__belongs_to_one_thread(void **unused)
{
    (void)unused;
    struct thread_state *self = thread_state_get();
    assert_non_null(self);
    assert_ptr_equal(self, thread_state_get());
    assert_int_equal((uintptr_t)self % CACHE_LINE_BYTES, 0);
    assert_true(self->stripe < thread_state_count());
    int here = 0;
    assert_false(thread_state_any(&here));
    store_seq(&self->in_call, &here); /* pairs: CALL_CLOSE */
    assert_true(thread_state_any(&here));
    store_seq(&self->in_call, NULL); /* pairs: CALL_CLOSE */
    assert_false(thread_state_any(&here));
}

enum misuse {
    MISUSE_NESTED = 0,
    MISUSE_DRAIN,
#ifdef ESKER_DEBUG
    MISUSE_LOCK,
    MISUSE_TRY_LOCK,
    MISUSE_SLEEP,
#endif
    MISUSES
};

static void
epoch_test_misuse(enum misuse misuse)
{
    epoch_enter(thread_state_get());
    switch (misuse) {
    case MISUSE_NESTED:
        epoch_enter(thread_state_get());
        break;
    case MISUSE_DRAIN:
        epoch_drain();
        break;
#ifdef ESKER_DEBUG
    case MISUSE_LOCK: {
        struct mutex mutex = MUTEX_INIT;
        mutex_lock(&mutex);
        break;
    }
    case MISUSE_TRY_LOCK: {
        struct mutex mutex = MUTEX_INIT;
        (void)mutex_try_lock(&mutex);
        break;
    }
    case MISUSE_SLEEP: {
        _Atomic uint32_t word = 0;
        futex_wait(&word, 0, 1);
        break;
    }
#endif
    default:
        break;
    }
}

/* Goal: the misuse that would hang or corrupt is refused at once. Method: children that, inside a section,
 * enter another one, drain, and in debug builds lock, try to, or sleep; each must abort. */
static void
epoch__misuse_is_a_broken_invariant(void **unused)
{
    (void)unused;
    for (enum misuse misuse = MISUSE_NESTED; misuse < MISUSES; misuse++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)alarm(30);
            (void)freopen("/dev/null", "w", stderr);
            (void)signal(SIGABRT, SIG_DFL); /* the test framework catches it */
            epoch_test_misuse(misuse);
            _exit(0);
        }
        int how = 0;
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFSIGNALED(how));
        assert_int_equal(WTERMSIG(how), SIGABRT);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(epoch__misuse_is_a_broken_invariant),
        cmocka_unit_test(thread_state__belongs_to_one_thread),
        cmocka_unit_test(thread_state__serves_destructors_that_run_later),
        cmocka_unit_test(thread_state__is_recycled_when_threads_die),
        cmocka_unit_test(epoch__readers_never_see_a_freed_object),
        cmocka_unit_test(epoch__readers_never_see_a_freed_object_in_manual_mode),
        cmocka_unit_test(epoch__a_section_holds_back_what_it_may_see),
        cmocka_unit_test(epoch__reclaimer_frees_unasked),
        cmocka_unit_test(epoch__drain_is_transitive),
        cmocka_unit_test(epoch__manual_mode_frees_in_drain_only),
        cmocka_unit_test(epoch__frees_in_the_order_of_retirement),
        cmocka_unit_test(epoch__drain_of_nothing_returns),
        cmocka_unit_test(epoch__release_frees_what_was_retired),
        cmocka_unit_test(epoch__retirement_wakes_a_reclaimer_that_lies_down),
        cmocka_unit_test(epoch__drains_survive_starts_and_stops),
    };
    return cmocka_run_group_tests_name("epoch", tests, NULL, NULL);
}
