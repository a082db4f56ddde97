/* SPDX-License-Identifier: MIT */
/*
 * Goal: in a forked child every call on what the parent had open is refused
 * with FORKED and nothing else, what it must give back without a status does
 * nothing, and the parent goes on as if nothing had been.
 * Method: a child of a process with an open database, iterators, snapshots and
 * values, while other threads of the parent read and write; each call once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db/db.h"

enum { FORKS = 12, BUSY_THREADS = 2 };

struct held {
    esker_db *db;
    esker_iter *it;
    esker_snapshot *snapshot;
    esker_value value;
    esker_batch *batch;
};

static _Atomic bool fork_stop;

/* The child may not use the test library: it reports the line of the first call that was not refused. */
#define REFUSED(call)                                                                                        \
    do {                                                                                                     \
        if ((call) != ESKER_FORKED) {                                                                        \
            return __LINE__;                                                                                 \
        }                                                                                                    \
    } while (0)

static int
child_writes(struct held *held)
{
    esker_lsn lsn = 77;
    REFUSED(esker_put(held->db, esker_str("k"), esker_str("child"), NULL));
    REFUSED(esker_delete(held->db, esker_str("k"), NULL));
    REFUSED(esker_write(held->db, held->batch, NULL, &lsn));
    REFUSED(esker_sync(held->db));
    REFUSED(esker_wait_durable(held->db, 1, -1));
    REFUSED(esker_flush(held->db));
    REFUSED(esker_compact(held->db, NULL, NULL));
    if (esker_visible_lsn(held->db) != 0 || esker_durable_lsn(held->db) != 0 ||
        esker_durable_eventfd(held->db) != -1) {
        return __LINE__;
    }
    return lsn == 77 ? 0 : __LINE__; /* a failure touches no output */
}

static int
child_reads(struct held *held)
{
    char buf[8];
    size_t size = 0;
    esker_value value = {0};
    esker_status status = ESKER_OK;
    esker_slice key = esker_str("k");
    esker_snapshot *snapshot = NULL;
    esker_iter *it = NULL;
    esker_stats stats;
    char *text = NULL;
    esker_stats_init(&stats);
    REFUSED(esker_get(held->db, key, NULL, &value));
    REFUSED(esker_get_copy(held->db, key, NULL, buf, sizeof buf, &size));
    REFUSED(esker_multi_get(held->db, 1, &key, NULL, &value, &status));
    REFUSED(esker_snapshot_create(held->db, &snapshot));
    REFUSED(esker_snapshot_create_at(held->db, 1, &snapshot));
    REFUSED(esker_iter_create(held->db, NULL, &it));
    REFUSED(esker_get_stats(held->db, &stats));
    REFUSED(esker_stats_text(held->db, ESKER_STATS_JSON, &text));
    return value.pin == NULL && snapshot == NULL && it == NULL && text == NULL ? 0 : __LINE__;
}

static int
child_iterates(struct held *held)
{
    esker_slice value;
    REFUSED(esker_iter_first(held->it));
    REFUSED(esker_iter_last(held->it));
    REFUSED(esker_iter_next(held->it));
    REFUSED(esker_iter_prev(held->it));
    REFUSED(esker_iter_seek(held->it, esker_str("k")));
    REFUSED(esker_iter_seek_for_prev(held->it, esker_str("k")));
    REFUSED(esker_iter_value(held->it, &value));
    REFUSED(esker_iter_refresh(held->it));
    esker_iter_destroy(held->it);
    esker_snapshot_release(held->snapshot);
    esker_batch_destroy(held->batch); /* belongs to no database */
    REFUSED(esker_close(held->db));
    return 0;
}

static int
child_calls(struct held *held)
{
    int line = child_writes(held);
    line = line != 0 ? line : child_reads(held);
    return line != 0 ? line : child_iterates(held);
}

static void *
busy_main(void *arg)
{
    esker_db *db = arg;
    for (uint64_t i = 0; !load_relaxed(&fork_stop); i++) { /* relaxed: only ends the loop */
        char key[16];
        char buf[16];
        size_t size = 0;
        int len = snprintf(key, sizeof key, "busy%d", (int)(i % 100));
        if (esker_put(db, esker_bytes(key, (size_t)len), esker_str("v"), NULL) != ESKER_OK ||
            esker_get_copy(db, esker_bytes(key, (size_t)len), NULL, buf, sizeof buf, &size) != ESKER_OK) {
            abort();
        }
        if (i % 64 == 0 && esker_flush(db) != ESKER_OK) {
            abort();
        }
    }
    return NULL;
}

static void
fork_open(const char *path, int backend, struct held *held)
{
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.io_backend = backend;
    assert_int_equal(esker_open(path, &options, &held->db), ESKER_OK);
    assert_int_equal(esker_put(held->db, esker_str("k"), esker_str("parent"), NULL), ESKER_OK);
    assert_int_equal(esker_iter_create(held->db, NULL, &held->it), ESKER_OK);
    assert_int_equal(esker_iter_first(held->it), ESKER_OK);
    assert_int_equal(esker_snapshot_create(held->db, &held->snapshot), ESKER_OK);
    assert_int_equal(esker_get(held->db, esker_str("k"), NULL, &held->value), ESKER_OK);
    assert_int_equal(esker_batch_create(&held->batch), ESKER_OK);
    assert_int_equal(esker_batch_put(held->batch, esker_str("b"), esker_str("v")), ESKER_OK);
}

/* What the parent held before the forks still works, down to a close that waits for nobody. */
static void
fork_check_parent(const char *path, struct held *held)
{
    char buf[16];
    size_t size = 0;
    assert_int_equal(esker_iter_first(held->it), ESKER_OK);
    assert_int_equal(esker_get_copy(held->db, esker_str("k"), NULL, buf, sizeof buf, &size), ESKER_OK);
    assert_memory_equal(buf, "parent", size);
    assert_memory_equal(held->value.data, "parent", held->value.size);
    assert_int_equal(esker_write(held->db, held->batch, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_sync(held->db), ESKER_OK);
    assert_int_equal(esker_close(held->db), ESKER_BUSY);
    esker_iter_destroy(held->it);
    esker_snapshot_release(held->snapshot);
    esker_value_release(&held->value);
    esker_batch_destroy(held->batch);
    assert_int_equal(esker_close(held->db), ESKER_OK);
    assert_int_equal(esker_verify(path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

static void
fork_run(int backend)
{
    char path[] = "/tmp/esker-fork-test-XXXXXX";
    struct held held = {0};
    pthread_t threads[BUSY_THREADS];
    assert_non_null(mkdtemp(path));
    fork_open(path, backend, &held);
    store_relaxed(&fork_stop, false); /* relaxed: no thread yet */
    for (int i = 0; i < BUSY_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, busy_main, held.db), 0);
    }
    for (int i = 0; i < FORKS; i++) {
        usleep(1000);
        pid_t child = fork();
        if (child == 0) {
            int line = child_calls(&held);
            if (line != 0) {
                fprintf(stderr, "line %d: not refused\n", line);
            }
            _exit(line != 0);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    store_relaxed(&fork_stop, true); /* relaxed: only ends the loops */
    for (int i = 0; i < BUSY_THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    fork_check_parent(path, &held);
}

static void
fork__every_call_of_the_child_is_refused(void **state)
{
    (void)state;
    fork_run(ESKER_IO_POSIX);
}

static void
fork__every_call_of_the_child_is_refused_with_rings(void **state)
{
    (void)state;
    fork_run(ESKER_IO_URING);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fork__every_call_of_the_child_is_refused),
        cmocka_unit_test(fork__every_call_of_the_child_is_refused_with_rings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
