/* SPDX-License-Identifier: MIT */
/*
 * Goal: the statistics say what long readers keep: the oldest state that was
 * replaced and is still read, for how long, and what it costs. And what is in
 * memory alone does not wait for the timer when it is much. And which back-end
 * is in use, and why.
 * Method: the simulated disk and clock, one thread; iterators over states that
 * flushes and merges replace; a seccomp filter that refuses rings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "db/db.h"
#include "io/io_sim.h"

struct pinned {
    struct sim_disk *disk;
    esker_db *db;
};

static int
pinned_setup(void **state)
{
    static struct pinned pinned;
    static const struct db_tuning tuning = {
        .window_bytes_first = 65536, .window_bytes_max = 65536, .segment_bytes = 65536};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    pinned.disk = sim_disk_create(1);
    assert_non_null(pinned.disk);
    assert_int_equal(io_sim_open(pinned.disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, true, &pinned.db), ESKER_OK);
    *state = &pinned;
    return 0;
}

static int
pinned_teardown(void **state)
{
    struct pinned *pinned = *state;
    assert_int_equal(esker_close(pinned->db), ESKER_OK);
    sim_disk_destroy(pinned->disk);
    return 0;
}

static esker_stats
pinned_stats(struct pinned *pinned)
{
    esker_stats stats;
    esker_stats_init(&stats);
    epoch_drain();
    assert_int_equal(esker_get_stats(pinned->db, &stats), ESKER_OK);
    return stats;
}

static void
pinned_put(struct pinned *pinned, int from, int count)
{
    static const uint8_t zeros[100];
    for (int i = from; i < from + count; i++) {
        char key[16];
        int len = snprintf(key, sizeof key, "%08d", i);
        assert_int_equal(
            esker_put(pinned->db, esker_bytes(key, (size_t)len), esker_bytes(zeros, sizeof zeros), NULL),
            ESKER_OK);
    }
}

static esker_iter *
pinned_iter(struct pinned *pinned)
{
    esker_iter *it = NULL;
    assert_int_equal(esker_iter_create(pinned->db, NULL, &it), ESKER_OK);
    return it;
}

static void
oldest_version__is_what_an_iterator_keeps(void **state)
{
    struct pinned *pinned = *state;
    pinned_put(pinned, 0, 200);
    esker_stats stats = pinned_stats(pinned);
    assert_int_equal(stats.oldest_version_id, 0);
    assert_int_equal(stats.oldest_version_bytes, 0);
    uint64_t memtable_bytes = stats.memtable_bytes;

    esker_iter *it = pinned_iter(pinned);
    stats = pinned_stats(pinned);
    assert_int_equal(stats.oldest_version_id, 0); /* it reads the newest state: it keeps nothing */
    assert_int_equal(esker_flush(pinned->db), ESKER_OK);
    sim_disk_advance(pinned->disk, 5000000000);
    stats = pinned_stats(pinned);
    assert_true(stats.oldest_version_id > 0);
    assert_true(stats.oldest_version_age_ns >= 5000000000 && stats.oldest_version_age_ns < 6000000000);
    assert_true(stats.oldest_version_bytes >= memtable_bytes); /* the memtable that was flushed */
    assert_true(stats.oldest_version_bytes < memtable_bytes + 65536);

    /* A later reader is not the oldest; when the older one goes, it is. */
    uint64_t first_id = stats.oldest_version_id;
    esker_iter *later = pinned_iter(pinned);
    pinned_put(pinned, 100, 200);
    assert_int_equal(esker_flush(pinned->db), ESKER_OK);
    assert_int_equal(pinned_stats(pinned).oldest_version_id, first_id);
    esker_iter_destroy(it);
    stats = pinned_stats(pinned);
    assert_true(stats.oldest_version_id > first_id);
    assert_true(stats.oldest_version_age_ns < 1000000000);

    /* What a refresh lets go is kept no longer. */
    assert_int_equal(esker_iter_refresh(later), ESKER_OK);
    stats = pinned_stats(pinned);
    assert_int_equal(stats.oldest_version_id, 0);
    assert_int_equal(stats.oldest_version_age_ns, 0);
    assert_int_equal(stats.oldest_version_bytes, 0);
    assert_int_equal(stats.versions_live, 1);
    esker_iter_destroy(later);
}

static void
oldest_version__counts_segments_that_were_merged_away(void **state)
{
    struct pinned *pinned = *state;
    for (int i = 0; i < 3; i++) {
        pinned_put(pinned, i * 50, 100);
        assert_int_equal(esker_flush(pinned->db), ESKER_OK);
    }
    uint64_t segment_bytes = pinned_stats(pinned).segment_bytes;
    assert_true(segment_bytes > 0);
    esker_iter *it = pinned_iter(pinned);
    assert_int_equal(esker_compact(pinned->db, NULL, NULL), ESKER_OK);
    esker_stats stats = pinned_stats(pinned);
    assert_true(stats.oldest_version_id > 0);
    assert_int_equal(stats.oldest_version_bytes, segment_bytes); /* every one of them was replaced */
    esker_iter_destroy(it);
    assert_int_equal(pinned_stats(pinned).oldest_version_bytes, 0);
}

static void
oldest_version__leaves_out_what_the_newest_keeps_too(void **state)
{
    struct pinned *pinned = *state;
    pinned_put(pinned, 5000, 100);
    assert_int_equal(esker_compact(pinned->db, NULL, NULL), ESKER_OK);
    uint64_t far_bytes = pinned_stats(pinned).segment_bytes; /* in the last level, and nobody moves it */
    pinned_put(pinned, 0, 100);
    assert_int_equal(esker_flush(pinned->db), ESKER_OK);
    pinned_put(pinned, 50, 100);
    assert_int_equal(esker_flush(pinned->db), ESKER_OK);
    uint64_t merged_bytes = pinned_stats(pinned).segment_bytes - far_bytes;
    assert_true(far_bytes > 0 && merged_bytes > 0);
    esker_iter *it = pinned_iter(pinned);
    esker_slice upper = esker_str("00001000");
    assert_int_equal(esker_compact(pinned->db, NULL, &upper), ESKER_OK);
    esker_stats stats = pinned_stats(pinned);
    assert_true(stats.oldest_version_id > 0);
    assert_int_equal(stats.oldest_version_bytes, merged_bytes); /* the far one is still found */
    esker_iter_destroy(it);
}

static void
oldest_version__is_in_every_text(void **state)
{
    struct pinned *pinned = *state;
    pinned_put(pinned, 0, 10);
    esker_iter *it = pinned_iter(pinned);
    assert_int_equal(esker_flush(pinned->db), ESKER_OK);
    for (int format = ESKER_STATS_TEXT; format <= ESKER_STATS_PROMETHEUS; format++) {
        char *text = NULL;
        assert_int_equal(esker_stats_text(pinned->db, format, &text), ESKER_OK);
        assert_non_null(strstr(text, "oldest_version_id"));
        assert_non_null(strstr(text, "oldest_version_age_ns"));
        assert_non_null(strstr(text, "oldest_version_bytes"));
        assert_null(strstr(text, "\"oldest_version_bytes\":0,"));
        esker_free(text);
    }
    esker_iter_destroy(it);
}

/* Write mode, and a timer that does not fire in time. Without the push by bytes this never ends. */
static void
push__happens_by_bytes_before_its_time(void **state)
{
    (void)state;
    static const char value[32 << 10];
    char path[] = "/tmp/esker-push-XXXXXX";
    assert_non_null(mkdtemp(path));
    esker_options options;
    esker_options_init(&options);
    options.durability = ESKER_DURABLE_MEMORY;
    options.sync_interval_ms = 100000000;
    esker_db *db = NULL;
    assert_int_equal(esker_open(path, &options, &db), ESKER_OK);
    uint64_t written = 0;
    for (uint32_t n = 0; written < PUSH_BYTES; n++) {
        assert_true(n < 60000);
        /* A few come to enough bytes. The small ones keep it from coming to rest, which writes too. */
        size_t size = n < 12 ? sizeof value : 1;
        assert_int_equal(esker_put(db, esker_str("k"), esker_bytes(value, size), NULL), ESKER_OK);
        (void)usleep(1000);
        esker_stats stats;
        esker_stats_init(&stats);
        assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
        written = stats.log_bytes_written;
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

/* ---- The back-end -------------------------------------------------------------------- */

static esker_stats
backend_stats(int backend)
{
    char path[] = "db_stats_test_XXXXXX";
    esker_options options;
    esker_options_init(&options);
    options.io_backend = backend;
    esker_stats stats;
    esker_stats_init(&stats);
    esker_db *db = NULL;
    if (mkdtemp(path) == NULL || esker_open(path, &options, &db) != ESKER_OK ||
        esker_get_stats(db, &stats) != ESKER_OK || esker_close(db) != ESKER_OK ||
        esker_destroy(path) != ESKER_OK) {
        stats.io_backend = -1;
    }
    return stats;
}

/* A thread whose kernel refuses rings. Those that the engine starts from here inherit that: the last test. */
static void *
refused_main(void *ctx)
{
    esker_stats *stats = ctx;
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = COUNTOF(steps), .filter = steps};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) {
        *stats = backend_stats(ESKER_IO_URING);
    }
    return NULL;
}

static void
io_backend__and_why_it_is_not_the_one_asked_for_are_told(void **state)
{
    (void)state;
    esker_stats asked = backend_stats(ESKER_IO_POSIX), refused = {.io_backend = -1};
    assert_int_equal(asked.io_backend, ESKER_IO_POSIX);
    assert_string_equal(asked.io_reason, "asked for posix");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, refused_main, &refused), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(refused.io_backend, ESKER_IO_POSIX);
    assert_string_equal(refused.io_reason, "io_uring refused: Operation not permitted; using posix");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(oldest_version__is_what_an_iterator_keeps, pinned_setup,
                                        pinned_teardown),
        cmocka_unit_test_setup_teardown(oldest_version__counts_segments_that_were_merged_away, pinned_setup,
                                        pinned_teardown),
        cmocka_unit_test_setup_teardown(oldest_version__leaves_out_what_the_newest_keeps_too, pinned_setup,
                                        pinned_teardown),
        cmocka_unit_test_setup_teardown(oldest_version__is_in_every_text, pinned_setup, pinned_teardown),
        cmocka_unit_test(push__happens_by_bytes_before_its_time),
        cmocka_unit_test(io_backend__and_why_it_is_not_the_one_asked_for_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
