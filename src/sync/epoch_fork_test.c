/* SPDX-License-Identifier: MIT */
/*
 * Goal: a forked child starts anew with the epoch, whatever its parent's threads were in the middle of.
 * Method: forks while the reclaimer, a section or retired nodes exist; children that retire and drain.
 */
#include "sync/epoch.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sync/epoch_testing.h"
#include "sync/mutex.h"

#include <cmocka.h>

static int
epoch_test_child(uint32_t generation)
{
    if (load_relaxed(&fork_generation) == generation) { /* relaxed: one thread */
        return 1;
    }
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return 2;
    }
    epoch_runtime_release(); /* the parent's holder */
    epoch_enter(self);
    epoch_exit(self);
    uint32_t freed = epoch_test_freed_count();
    epoch_retire(&epoch_test_make(1)->node, epoch_test_free);
    epoch_drain(); /* the parent's thread inside a section does not exist here */
    if (epoch_test_freed_count() == freed) {
        return 3;
    }
    if (epoch_runtime_acquire(true) != ESKER_OK) { /* the parent's other holder does not count */
        return 6;
    }
    epoch_runtime_release();
#ifndef ESKER_TSAN /* the detector does not follow threads that a forked child starts */
    if (epoch_runtime_acquire(false) != ESKER_OK) {
        return 4;
    }
    freed = epoch_test_freed_count();
    epoch_retire(&epoch_test_make(2)->node, epoch_test_free);
    epoch_drain();
    epoch_runtime_release();
    if (epoch_test_freed_count() != freed + 1) {
        return 5;
    }
#endif
    return 0;
}

/* Goal: a forked child neither hangs nor crashes in the library, although the reclaimer and a thread inside a
 * section stayed behind. Method: fork while both exist; the child releases, drains and starts anew. */
static void
fork__leaves_the_child_usable(void **unused)
{
    (void)unused;
    struct epoch_test_gate gate = {.entered = 0};
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    assert_int_equal(epoch_runtime_acquire(false), ESKER_OK);
    pthread_t stayer;
    assert_int_equal(pthread_create(&stayer, NULL, epoch_test_stay, &gate), 0);
    epoch_test_gate_await(&gate);
    /* The reclaimer waits for the stayer, in the middle of a pass and holding its lock. */
    epoch_retire(&epoch_test_make(3)->node, epoch_test_free);
    usleep(2000);
    uint32_t generation = load_relaxed(&fork_generation); /* relaxed: nobody forks but us */
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)alarm(30);
        _exit(epoch_test_child(generation));
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    assert_int_equal(load_relaxed(&fork_generation), generation); /* relaxed: nobody forks but us */
    epoch_test_gate_open(&gate);
    assert_int_equal(pthread_join(stayer, NULL), 0);
    epoch_runtime_release();
    epoch_runtime_release();
}

/* 0: the child's own node was freed, and nothing of the parent's. */
static int
epoch_test_heir(bool manual)
{
    uint32_t freed = epoch_test_freed_count();
    if (epoch_runtime_acquire(manual) != ESKER_OK) {
        return 1;
    }
    epoch_retire(&epoch_test_make(4)->node, epoch_test_free);
    epoch_drain();
    epoch_runtime_release();
    return epoch_test_freed_count() == freed + 1 ? 0 : 2;
}

static struct mutex epoch_test_held;

/* What frees a node may need a lock, as the version list's does. */
static void
epoch_test_free_locked(struct epoch_node *node)
{
    mutex_lock(&epoch_test_held);
    epoch_test_free(node);
    mutex_unlock(&epoch_test_held);
}

/* Goal: what the parent had retired and not yet freed is not the child's: its frees would
 * take locks that the parent held. Method: two nodes retired without a pass, the lock of
 * one's free held at the fork; the child drains and releases, and only its own nodes go. */
static void
fork__leaves_the_parents_retired_alone(void **unused)
{
    (void)unused;
    mutex_init(&epoch_test_held);
    assert_int_equal(epoch_runtime_acquire(true), ESKER_OK);
    uint32_t freed = epoch_test_freed_count();
    epoch_retire(&epoch_test_make(6)->node, epoch_test_free);
    epoch_retire(&epoch_test_make(7)->node, epoch_test_free_locked);
    mutex_lock(&epoch_test_held);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)alarm(30);
        int failed = epoch_test_heir(true);
#ifndef ESKER_TSAN /* the detector does not follow threads that a forked child starts */
        failed = failed != 0 ? failed : epoch_test_heir(false);
#endif
        _exit(failed);
    }
    mutex_unlock(&epoch_test_held);
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how));
    assert_int_equal(WEXITSTATUS(how), 0);
    assert_int_equal(epoch_test_freed_count(), freed);
    epoch_runtime_release();
    assert_int_equal(epoch_test_freed_count(), freed + 2);
    mutex_fini(&epoch_test_held);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fork__leaves_the_child_usable),
        cmocka_unit_test(fork__leaves_the_parents_retired_alone),
    };
    return cmocka_run_group_tests_name("epoch_fork", tests, NULL, NULL);
}
