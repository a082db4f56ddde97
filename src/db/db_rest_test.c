/* SPDX-License-Identifier: MIT */
/*
 * Goal: logs of a closed or merged database take hardly any room beside its
 * segments, whatever its windows had grown to, and nothing is lost with them.
 * Method: 12 MB of rows in a fresh directory, of which a quarter, the limit for
 * a short pause, would be more than what is asked for; both I/O back-ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "esker/esker.h"

enum { REST_ROWS = 60000, REST_BYTES = 768 << 10 };

struct rest_fixture {
    char path[64];
    esker_options options;
    esker_db *db;
};

static void
rest_open(struct rest_fixture *f, int backend)
{
    snprintf(f->path, sizeof f->path, "/tmp/esker-rest-test-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    esker_options_init(&f->options);
    f->options.memory_budget_bytes = 16 << 20;
    f->options.io_backend = backend;
    assert_int_equal(esker_open(f->path, &f->options, &f->db), ESKER_OK);
}

static void
rest_reopen(struct rest_fixture *f)
{
    assert_int_equal(esker_close(f->db), ESKER_OK);
    assert_int_equal(esker_open(f->path, &f->options, &f->db), ESKER_OK);
}

static void
rest_close(struct rest_fixture *f)
{
    assert_int_equal(esker_close(f->db), ESKER_OK);
    assert_int_equal(esker_verify(f->path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_destroy(f->path), ESKER_OK);
}

/* Bytes that do not compress, others with each seed. */
static void
rest_fill(const struct rest_fixture *f, uint64_t seed)
{
    struct rng rng = {.state = seed};
    uint64_t value[25];
    char key[16];
    for (uint32_t i = 0; i < REST_ROWS; i++) {
        snprintf(key, sizeof key, "%u", i);
        for (size_t k = 0; k < COUNTOF(value); k++) {
            value[k] = rng_next(&rng);
        }
        assert_int_equal(esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
}

static void
rest_expect(const struct rest_fixture *f, uint64_t seed)
{
    struct rng rng = {.state = seed};
    uint64_t value[25];
    char key[16];
    for (uint32_t i = 0; i < REST_ROWS; i++) {
        uint64_t found[25];
        size_t size = 0;
        snprintf(key, sizeof key, "%u", i);
        for (size_t k = 0; k < COUNTOF(value); k++) {
            value[k] = rng_next(&rng);
        }
        assert_int_equal(esker_get_copy(f->db, esker_str(key), NULL, found, sizeof found, &size), ESKER_OK);
        assert_int_equal(size, sizeof value);
        assert_memory_equal(found, value, sizeof value);
    }
}

static uint64_t
rest_log_bytes(const struct rest_fixture *f)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(f->db, &stats), ESKER_OK);
    return stats.log_file_bytes;
}

static void
rest_closes_small(int backend)
{
    struct rest_fixture f;
    rest_open(&f, backend);
    rest_fill(&f, 1);
    assert_true(rest_log_bytes(&f) > REST_BYTES); /* busy: windows have grown */
    rest_reopen(&f);
    assert_in_range(rest_log_bytes(&f), 0, REST_BYTES);
    rest_expect(&f, 1);
    /* Merged, its windows are empty, and large. */
    rest_fill(&f, 2);
    assert_int_equal(esker_compact(f.db, NULL, NULL), ESKER_OK);
    rest_reopen(&f);
    assert_in_range(rest_log_bytes(&f), 0, REST_BYTES);
    rest_expect(&f, 2);
    rest_close(&f);
}

static void
rest__a_closed_database_has_small_logs(void **state)
{
    (void)state;
    rest_closes_small(ESKER_IO_POSIX);
    rest_closes_small(ESKER_IO_URING);
}

static void
rest__a_merged_database_comes_to_have_small_logs(void **state)
{
    (void)state;
    struct rest_fixture f;
    rest_open(&f, ESKER_IO_POSIX);
    rest_fill(&f, 3);
    assert_int_equal(esker_compact(f.db, NULL, NULL), ESKER_OK);
    for (uint32_t tries = 0; tries < 1200 && rest_log_bytes(&f) > REST_BYTES; tries++) {
        usleep(50000);
    }
    assert_in_range(rest_log_bytes(&f), 0, REST_BYTES);
    rest_fill(&f, 4); /* the windows grow again */
    assert_true(rest_log_bytes(&f) > REST_BYTES);
    rest_expect(&f, 4);
    rest_close(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rest__a_closed_database_has_small_logs),
        cmocka_unit_test(rest__a_merged_database_comes_to_have_small_logs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
