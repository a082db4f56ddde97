/* SPDX-License-Identifier: MIT */
/*
 * Goal: a futex wait ends when the word changes, when it had changed before, and when its limit passes.
 * Method: a waiter and a waker thread that hand a word back and forth.
 */
#include "sync/futex.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum { FUTEX_TEST_ROUNDS = 2000 };

static _Atomic uint32_t futex_test_turn;

static void *
futex_test_partner(void *arg)
{
    (void)arg;
    for (uint32_t round = 0; round < FUTEX_TEST_ROUNDS; round++) {
        uint32_t seen;
        /* pairs: FUTEX_TEST */
        while ((seen = load_acquire(&futex_test_turn)) != 2 * round + 1) {
            futex_wait(&futex_test_turn, seen, 0);
        }
        store_release(&futex_test_turn, 2 * round + 2); /* pairs: FUTEX_TEST */
        futex_wake_all(&futex_test_turn);
    }
    return NULL;
}

/* Goal: no wake-up is lost. Method: two threads alternate; a lost one would hang the test. */
static void
futex__wakes_the_waiter(void **unused)
{
    (void)unused;
    store_release(&futex_test_turn, 0); /* pairs: FUTEX_TEST */
    pthread_t partner;
    assert_int_equal(pthread_create(&partner, NULL, futex_test_partner, NULL), 0);
    for (uint32_t round = 0; round < FUTEX_TEST_ROUNDS; round++) {
        store_release(&futex_test_turn, 2 * round + 1); /* pairs: FUTEX_TEST */
        futex_wake_all(&futex_test_turn);
        uint32_t seen;
        /* pairs: FUTEX_TEST */
        while ((seen = load_acquire(&futex_test_turn)) != 2 * round + 2) {
            futex_wait(&futex_test_turn, seen, 0);
        }
    }
    assert_int_equal(pthread_join(partner, NULL), 0);
    assert_int_equal(load_acquire(&futex_test_turn), 2 * FUTEX_TEST_ROUNDS);
}

/* Goal: a word that already differs does not wait, and errno is left alone. Method: wait on a stale value. */
static void
futex__returns_at_once_when_the_word_differs(void **unused)
{
    (void)unused;
    _Atomic uint32_t word = 7;
    errno = 0;
    futex_wait(&word, 6, 0);
    assert_int_equal(errno, 0);
}

/* Goal: a limit ends a wait that nobody ends. Method: no waker exists. */
static void
futex__limit_ends_the_wait(void **unused)
{
    (void)unused;
    _Atomic uint32_t word = 7;
    futex_wait(&word, 7, 1000000);
    futex_wake_all(&word);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(futex__wakes_the_waiter),
        cmocka_unit_test(futex__returns_at_once_when_the_word_differs),
        cmocka_unit_test(futex__limit_ends_the_wait),
    };
    return cmocka_run_group_tests_name("futex", tests, NULL, NULL);
}
