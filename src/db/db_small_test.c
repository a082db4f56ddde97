/* SPDX-License-Identifier: MIT */
/*
 * Goal: small databases stay small: what a fresh one takes on disk and in
 * memory, and what a hundred idle ones in one process share.
 * Method: count bytes, threads and resident pages; no time is measured.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "esker/esker.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SMALL_TEST_SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SMALL_TEST_SANITIZED 1
#endif

enum { DATABASES = 100 };

static long
status_number(const char *name)
{
    char line[256];
    long value = -1;
    FILE *file = fopen("/proc/self/status", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0) {
            value = strtol(line + strlen(name), NULL, 10);
        }
    }
    fclose(file);
    return value;
}

static uint64_t
directory_bytes(const char *path, int *files_out)
{
    uint64_t bytes = 0;
    DIR *dir = opendir(path);
    assert_non_null(dir);
    *files_out = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        char name[512];
        struct stat st;
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        assert_int_equal(stat(name, &st), 0);
        if (S_ISREG(st.st_mode)) {
            bytes += (uint64_t)st.st_blocks * 512;
            assert_int_equal(st.st_mode & 0777, 0600);
            (*files_out)++;
        } else if (strcmp(entry->d_name, ".") == 0) {
            assert_int_equal(st.st_mode & 0777, 0700);
        }
    }
    closedir(dir);
    return bytes;
}

static void
fresh__takes_under_a_mebibyte_of_disk(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-small-XXXXXX";
    char inner[64];
    int files = 0;
    assert_non_null(mkdtemp(path));
    snprintf(inner, sizeof inner, "%s/db", path);
    esker_db *db;
    for (int life = 0; life < 3; life++) {
        assert_int_equal(esker_open(inner, NULL, &db), ESKER_OK);
        assert_true(directory_bytes(inner, &files) < 1 << 20);
        assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), NULL), ESKER_OK);
        assert_int_equal(esker_close(db), ESKER_OK);
        assert_true(directory_bytes(inner, &files) < 1 << 20);
        assert_true(files <= 5);
    }
    assert_int_equal(esker_destroy(inner), ESKER_OK);
    assert_int_equal(rmdir(path), 0);
}

static void
idle__databases_share_threads_and_stay_small(void **state)
{
    (void)state;
    static esker_db *dbs[DATABASES];
    char path[] = "/tmp/esker-small-XXXXXX";
    char inner[64];
    assert_non_null(mkdtemp(path));
    long threads = status_number("Threads:");
    for (int life = 0; life < 2; life++) {
        long before_kib = 0;
        for (int i = 0; i < DATABASES; i++) {
            snprintf(inner, sizeof inner, "%s/%d", path, i);
            assert_int_equal(esker_open(inner, NULL, &dbs[i]), ESKER_OK);
            assert_int_equal(esker_put(dbs[i], esker_str("k"), esker_str("v"), NULL), ESKER_OK);
            if (i == 0) {
                before_kib = status_number("VmRSS:"); /* what is shared is there now */
            }
        }
        assert_true(status_number("Threads:") - threads <= 16);
#ifndef SMALL_TEST_SANITIZED /* shadow memory counts too */
        long each_kib = (status_number("VmRSS:") - before_kib) / (DATABASES - 1);
        print_message("%ld KiB of memory for each of %d idle databases\n", each_kib, DATABASES);
        assert_true(each_kib <= 256);
#else
        (void)before_kib;
#endif
        for (int i = 0; i < DATABASES; i++) {
            assert_int_equal(esker_close(dbs[i]), ESKER_OK);
        }
        /* A thread that was joined is counted until the kernel has buried it. */
        for (int tries = 0; status_number("Threads:") != threads && tries < 5000; tries++) {
            (void)usleep(1000);
        }
        assert_int_equal(status_number("Threads:"), threads);
    }
    for (int i = 0; i < DATABASES; i++) {
        snprintf(inner, sizeof inner, "%s/%d", path, i);
        assert_int_equal(esker_destroy(inner), ESKER_OK);
    }
    assert_int_equal(rmdir(path), 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fresh__takes_under_a_mebibyte_of_disk),
        cmocka_unit_test(idle__databases_share_threads_and_stay_small),
    };
    return cmocka_run_group_tests_name("db small", tests, NULL, NULL);
}
