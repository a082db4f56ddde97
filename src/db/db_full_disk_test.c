/* SPDX-License-Identifier: MIT */
/*
 * Goal: on a real disk that is full deletes are taken and make room: writes go on
 * with the same handle and nothing else is lost.
 * Method: a tmpfs of a few MiB in a mount namespace of its own (no root needed
 * where the system allows that; skipped elsewhere), filled to NO_SPACE, its rows
 * deleted, and filled again, three times.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "esker/esker.h"

#include "base/rng.h"

enum {
    FULL_VALUE_BYTES = 4000,
    FULL_LARGE_BYTES = 100000, /* for each a window of its own */
    FULL_LEFT = 100,           /* rows that are not deleted */
    FULL_ROWS_MAX = 20000,
    FULL_TRIES = 3000,
    FULL_TRY_US = 10000,
    FULL_ROUNDS = 3
};

static char full_dir[] = "/tmp/esker-full-XXXXXX";
static bool full_mounted;

struct full_rows {
    esker_db *db;
    size_t value_bytes;
    uint32_t left;      /* after deletes */
    uint32_t from, end; /* rows that are there */
};

/* A small disk of this process's own; false: not here. */
static bool
full_mount(void)
{
    if (mkdtemp(full_dir) == NULL) {
        return false;
    }
    bool own = unshare(CLONE_NEWNS) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    if (own) {
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
    }
    if (!own || mount("tmpfs", full_dir, "tmpfs", 0, "size=24m") != 0) {
        (void)rmdir(full_dir);
        return false;
    }
    return true;
}

static void
full_row(const struct full_rows *rows, uint32_t number, char key[16], uint8_t value[FULL_LARGE_BYTES])
{
    struct rng rng = {number};
    snprintf(key, 16, "row%08u", number);
    for (size_t at = 0; at < rows->value_bytes; at += sizeof(uint64_t)) {
        uint64_t word = rng_next(&rng); /* nothing to compress */
        memcpy(value + at, &word, sizeof word);
    }
}

static esker_status
full_put(struct full_rows *rows)
{
    char key[16];
    uint8_t value[FULL_LARGE_BYTES];
    assert_true(rows->end < FULL_ROWS_MAX);
    full_row(rows, rows->end, key, value);
    esker_status status = esker_put(rows->db, esker_str(key), esker_bytes(value, rows->value_bytes), NULL);
    assert_true(status == ESKER_OK || status == ESKER_NO_SPACE);
    rows->end += status == ESKER_OK;
    return status;
}

static void
full_check(const struct full_rows *rows)
{
    for (uint32_t i = 0; i < rows->end; i++) {
        char key[16];
        uint8_t expected[FULL_LARGE_BYTES];
        uint8_t found[FULL_LARGE_BYTES];
        size_t size = 0;
        full_row(rows, i, key, expected);
        esker_status status = esker_get_copy(rows->db, esker_str(key), NULL, found, sizeof found, &size);
        assert_int_equal(status, i >= rows->from ? ESKER_OK : ESKER_NOT_FOUND);
        assert_true(i < rows->from || memcmp(found, expected, rows->value_bytes) == 0);
    }
}

static void
full_delete_all_but_some(struct full_rows *rows)
{
    for (; rows->from + rows->left < rows->end; rows->from++) {
        char key[16];
        snprintf(key, sizeof key, "row%08u", rows->from);
        esker_status status = esker_delete(rows->db, esker_str(key), NULL);
        for (int tries = 0; status == ESKER_NO_SPACE && tries < FULL_TRIES; tries++) {
            usleep(FULL_TRY_US); /* a merge may hold for a moment what is free */
            status = esker_delete(rows->db, esker_str(key), NULL);
        }
        assert_int_equal(status, ESKER_OK);
    }
}

static void
full_rounds(struct full_rows *rows)
{
    char path[64];
    esker_options options;
    if (!full_mounted) {
        skip();
    }
    snprintf(path, sizeof path, "%s/db", full_dir);
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    assert_int_equal(esker_open(path, &options, &rows->db), ESKER_OK);
    for (int round = 0; round < FULL_ROUNDS; round++) {
        uint32_t before = rows->end;
        for (int tries = 0; full_put(rows) != ESKER_OK && tries < FULL_TRIES; tries++) {
            usleep(FULL_TRY_US); /* merges are on their way */
        }
        assert_true(rows->end > before);
        while (full_put(rows) == ESKER_OK) {
        }
        full_delete_all_but_some(rows);
        full_check(rows);
    }
    assert_int_equal(esker_close(rows->db), ESKER_OK);
    assert_int_equal(esker_verify(path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_open(path, &options, &rows->db), ESKER_OK);
    full_check(rows);
    assert_int_equal(esker_close(rows->db), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

static void
full__deletes_make_room_on_a_small_disk(void **state)
{
    (void)state;
    full_rounds(&(struct full_rows){.value_bytes = FULL_VALUE_BYTES, .left = FULL_LEFT});
}

/* The deletes stand in the only window, which nothing else fills. */
static void
full__deletes_make_room_for_large_values(void **state)
{
    (void)state;
    full_rounds(&(struct full_rows){.value_bytes = FULL_LARGE_BYTES});
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(full__deletes_make_room_on_a_small_disk),
        cmocka_unit_test(full__deletes_make_room_for_large_values),
    };
    full_mounted = full_mount();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (full_mounted) {
        (void)umount2(full_dir, MNT_DETACH);
        (void)rmdir(full_dir);
    }
    return failed;
}
