/* SPDX-License-Identifier: MIT */
/*
 * Goal: a thread may be cancelled (pthread_cancel) at any moment: it ends when
 * its call has, so others are not left waiting for a leader, a lock or a load
 * that is gone, and close finds nobody.
 * Method: threads that write durably, read, flush and make files, on each
 * backend, are cancelled one after the other wherever they are, and replaced;
 * what lives goes on, and what was acknowledged is there.
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

#include "base/rng.h"
#include "db/db.h"

enum { THREADS = 3, CANCELS = 150, KEYS = 50 };

static esker_db *db;
static _Atomic uint32_t progress; /* writes that went on */

static void *
work_main(void *arg)
{
    struct rng rng = {(uintptr_t)arg};
    esker_write_options durably;
    esker_write_options_init(&durably);
    durably.durability = ESKER_DURABLE_SYNC;
    for (;;) {
        char key[16];
        char value[600];
        size_t size = 0;
        memset(value, 'v', sizeof value);
        snprintf(key, sizeof key, "key%u", (uint32_t)rng_below(&rng, KEYS));
        esker_slice name = esker_str(key);
        if (esker_put(db, name, esker_bytes(value, sizeof value), &durably) != ESKER_OK ||
            esker_get_copy(db, name, NULL, value, sizeof value, &size) != ESKER_OK || value[0] != 'v') {
            abort();
        }
        if (rng_below(&rng, 20) == 0 && esker_flush(db) != ESKER_OK) {
            abort();
        }
        add_relaxed(&progress, 1); /* relaxed: a sign of life */
        pthread_testcancel();
    }
    return NULL;
}

static void
cancel_some(int backend)
{
    char path[] = "/tmp/esker-cancel-XXXXXX";
    pthread_t threads[THREADS];
    struct rng rng = {3};
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.io_backend = backend;
    assert_non_null(mkdtemp(path));
    assert_int_equal(esker_open(path, &options, &db), ESKER_OK);
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, work_main, (void *)i), 0);
    }
    for (uintptr_t i = 0; i < CANCELS; i++) {
        uint32_t who = (uint32_t)rng_below(&rng, THREADS);
        usleep((useconds_t)rng_below(&rng, 1000));
        assert_int_equal(pthread_cancel(threads[who]), 0);
        assert_int_equal(pthread_join(threads[who], NULL), 0);
        uint32_t before = load_relaxed(&progress);  /* relaxed: a sign of life */
        while (load_relaxed(&progress) == before) { /* relaxed: the same */
            usleep(50);
        }
        assert_int_equal(pthread_create(&threads[who], NULL, work_main, (void *)(THREADS + i)), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_cancel(threads[i]), 0);
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_verify(path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

static void
cancel__ends_a_thread_between_calls(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__)
    skip(); /* the frames that a cancelled thread leaves stay poisoned on its stack; its end meets them */
#endif
    cancel_some(ESKER_IO_POSIX);
    cancel_some(ESKER_IO_URING);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancel__ends_a_thread_between_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
