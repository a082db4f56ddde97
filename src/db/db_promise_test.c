/* SPDX-License-Identifier: MIT */
/*
 * Goal: sentences of the contract about writes, durability and snapshots that
 * no other test reads word by word: the first cause of poison is the one that
 * is told, a write that waits for memory gives up in time and leaves nothing,
 * INTERVAL lags by its interval at most, a sync in steady state is one write
 * and one flush, snapshots are exact one LSN before and behind every commit, many absent keys
 * read filters, not blocks, and no descriptor of a database is one that a program prints to.
 * Method: the simulated disk, which counts its calls, mostly single threaded,
 * windows of a few KiB; a real directory where descriptors are the matter.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#include "db/db.h"
#include "io/io_sim.h"

static const struct db_tuning promise_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384};
static const struct db_tuning large_tuning = {
    .window_bytes_first = 65536, .window_bytes_max = 65536, .segment_bytes = 65536};

static esker_db *
promise_open(struct sim_disk *disk, int durability, const struct db_tuning *tuning, bool manual)
{
    struct io *io = NULL;
    esker_db *db = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = durability;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, tuning, manual, &db), ESKER_OK);
    return db;
}

static esker_write_options
promise_level(int durability)
{
    esker_write_options options;
    esker_write_options_init(&options);
    options.durability = durability;
    return options;
}

static esker_error
promise_story(void)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    return error;
}

/* What is due, and what comes later: timed work may list itself for ever. */
static void
promise_run_jobs(void)
{
    for (uint32_t jobs = 0; jobs < 30 && workers_run_one(); jobs++) {
    }
}

static bool
promise_has(esker_db *db, const char *key, const esker_snapshot *snapshot, uint32_t *value_out)
{
    size_t size = 0;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_status status = esker_get_copy(db, esker_str(key), &options, value_out, sizeof *value_out, &size);
    assert_true(status == ESKER_OK || status == ESKER_NOT_FOUND);
    assert_true(status == ESKER_NOT_FOUND || size == sizeof *value_out);
    return status == ESKER_OK;
}

/* ---- Poison ------------------------------------------------------------------------ */

enum { FAILING = 4 };

struct failing {
    pthread_t thread;
    esker_db *db;
    uint32_t number;
    esker_status status;
    esker_error story;
};

static void *
failing_main(void *arg)
{
    struct failing *self = arg;
    char key[16];
    snprintf(key, sizeof key, "key%u", self->number);
    esker_write_options options = promise_level(ESKER_DURABLE_SYNC);
    self->status = esker_put(self->db, esker_str(key), esker_str("value"), &options);
    self->story = promise_story();
    return NULL;
}

/* Several writers at once, and every disk call fails, each kind in its own way. Whatever came
 * first, all are told of the same cause, then and later, the close included; nobody tries the
 * sync again; a new life finds what had been durable. */
static void
poison__keeps_its_first_cause(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 10; seed++) {
        struct sim_disk *disk = sim_disk_create(seed);
        esker_db *db = promise_open(disk, ESKER_DURABLE_MEMORY, &large_tuning, false);
        esker_write_options synced = promise_level(ESKER_DURABLE_SYNC);
        assert_int_equal(esker_put(db, esker_str("before"), esker_str("safe"), &synced), ESKER_OK);
        assert_true(sim_disk_script(disk, seed % 2 == 0
                                              ? "sync@log-:1:EIO:sticky write@log-:2:ENOSPC:sticky"
                                              : "write@log-:1:EIO:sticky sync@log-:1:ENOSPC:sticky"));
        struct failing failing[FAILING];
        for (uint32_t i = 0; i < FAILING; i++) {
            failing[i] = (struct failing){.db = db, .number = i};
            assert_int_equal(pthread_create(&failing[i].thread, NULL, failing_main, &failing[i]), 0);
        }
        for (uint32_t i = 0; i < FAILING; i++) {
            assert_int_equal(pthread_join(failing[i].thread, NULL), 0);
            assert_true(failing[i].status == ESKER_IO || failing[i].status == ESKER_POISONED);
        }
        assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), NULL), ESKER_POISONED);
        esker_error cause = promise_story();
        assert_int_not_equal(cause.file[0], 0);
        uint64_t syncs = sim_disk_count(disk, SIM_SYNC);
        for (uint32_t i = 0; i < FAILING; i++) {
            assert_int_equal(failing[i].story.os_errno, cause.os_errno);
            assert_string_equal(failing[i].story.file, cause.file);
            if (failing[i].status == ESKER_POISONED) {
                assert_string_equal(failing[i].story.message, cause.message);
            }
        }
        /* One who looked before the first failed, and fails after it. */
        assert_int_equal(FAIL_OS(EDOM, "later", 1, "the second failure"), ESKER_IO);
        db_poison(db);
        assert_int_equal(esker_sync(db), ESKER_POISONED);
        assert_string_equal(promise_story().message, cause.message);
        assert_int_equal(esker_wait_durable(db, esker_visible_lsn(db), 100), ESKER_POISONED);
        assert_int_equal(sim_disk_count(disk, SIM_SYNC), syncs);
        uint32_t value = 0;
        assert_true(promise_has(db, "before", NULL, &value)); /* reads go on */
        esker_status closed = esker_close(db);
        assert_true(closed == ESKER_POISONED || closed == ESKER_IO);
        sim_disk_heal(disk);
        sim_disk_crash(disk, SIM_CRASH_POWER_NONE, seed);
        db = promise_open(disk, ESKER_DURABLE_MEMORY, &large_tuning, false);
        assert_true(promise_has(db, "before", NULL, &value));
        assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), &synced), ESKER_OK);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
}

/* ---- Waiting for memory -------------------------------------------------------------- */

static esker_status
promise_large_write(esker_db *db, uint32_t requirements, const esker_write_options *options)
{
    static uint8_t large[6000];
    esker_batch *batch = NULL;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    for (uint32_t i = 0; i < requirements; i++) {
        char key[24];
        snprintf(key, sizeof key, "absent%u", i);
        assert_int_equal(esker_batch_require(batch, esker_str(key), 0), ESKER_OK);
    }
    assert_int_equal(esker_batch_put(batch, esker_str("large"), esker_bytes(large, sizeof large)), ESKER_OK);
    esker_lsn lsn = 77;
    esker_status status = esker_write(db, batch, options, &lsn);
    assert_true((status == ESKER_OK) == (lsn != 77)); /* a failure touches no output */
    esker_batch_destroy(batch);
    return status;
}

static bool
promise_has_large(esker_db *db)
{
    size_t size = 0;
    return esker_get_copy(db, esker_str("large"), NULL, NULL, 0, &size) == ESKER_TRUNCATED;
}

/* No flush succeeds, so memory fills: plain, large and large conditional batches give up when
 * they were told to, and nothing of them was written; when flushes succeed again they go through. */
static void
stall__gives_up_and_leaves_nothing(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(3);
    esker_db *db = promise_open(disk, ESKER_DURABLE_PROCESS, &promise_tuning, true);
    esker_write_options hurried = promise_level(ESKER_DURABLE_DEFAULT);
    hurried.stall_timeout_ms = 1;
    assert_true(sim_disk_script(disk, "write@0:1:EIO:sticky"));
    static const uint8_t filler[500];
    esker_status status = ESKER_OK;
    uint32_t refused = 0; /* in a row, with time for the background in between */
    for (uint32_t i = 0; refused < 3 && i < 1000; i++) {
        status = esker_put(db, esker_str("filler"), esker_bytes(filler, sizeof filler), &hurried);
        assert_true(status == ESKER_OK || status == ESKER_TIMED_OUT);
        refused = status == ESKER_OK ? 0 : refused + 1;
        promise_run_jobs();
    }
    assert_int_equal(refused, 3);
    assert_true(sim_disk_fired(disk) > 0);
    esker_lsn visible = esker_visible_lsn(db);
    assert_int_equal(promise_large_write(db, 0, &hurried), ESKER_TIMED_OUT);
    assert_int_equal(promise_large_write(db, 1, &hurried), ESKER_TIMED_OUT);
    assert_int_equal(promise_large_write(db, 100, &hurried), ESKER_TIMED_OUT);
    assert_false(promise_has_large(db));
    assert_int_equal(esker_visible_lsn(db), visible);
    /* Nor is the full window's tail moved, however often it is tried: it would overflow some day. */
    const struct window *full = load_acquire(&db->current)->windows[0]; /* pairs: CURRENT — no other thread */
    uint64_t tail = load_relaxed(&full->tail);                          /* relaxed: no other thread */
    for (uint32_t i = 0; i < 3; i++) {
        status = esker_put(db, esker_str("filler"), esker_bytes(filler, sizeof filler), &hurried);
        assert_int_equal(status, ESKER_TIMED_OUT);
    }
    assert_true(load_relaxed(&full->tail) == tail); /* relaxed: no other thread */
    sim_disk_heal(disk);
    esker_write_options patient = promise_level(ESKER_DURABLE_DEFAULT);
    assert_int_equal(promise_large_write(db, 100, &patient), ESKER_OK);
    assert_true(promise_has_large(db));
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Durability ------------------------------------------------------------------------ */

/* A job of the test's own, due one interval after a write was acknowledged. */
struct deadline {
    struct job job;
    esker_db *db;
    esker_lsn lsn; /* 0 = none is due */
    uint32_t met;
};

static void
deadline_run(struct job *job)
{
    struct deadline *deadline = CONTAINER_OF(job, struct deadline, job);
    assert_true(esker_durable_lsn(deadline->db) >= deadline->lsn);
    deadline->lsn = 0;
    deadline->met++;
}

/* By the clock of the timers: a write at INTERVAL is durable when it is the interval old. */
static void
interval__lags_by_its_interval_at_most(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(5);
    esker_db *db = promise_open(disk, ESKER_DURABLE_INTERVAL, &promise_tuning, true);
    struct deadline deadline = {.db = db};
    struct job_owner owner;
    job_owner_init(&owner, 1);
    job_init(&deadline.job, &owner, JOB_COMPACT_IDLE, deadline_run);
    for (uint32_t i = 0; i < 600; i++) {
        assert_int_equal(esker_put(db, esker_str("k"), esker_bytes(&i, sizeof i), NULL), ESKER_OK);
        if (deadline.lsn == 0) {
            deadline.lsn = esker_visible_lsn(db);
            job_kick_after(&deadline.job, (uint64_t)db->options.sync_interval_ms * 1000000);
        }
        if (i % 3 == 0) {
            (void)workers_run_one();
        }
    }
    assert_true(deadline.met > 20);
    job_owner_stop(&owner);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

enum { SYNCS = 100, SYNC_VALUE = 150 };

/* Steady state: no file grows, is made, renamed or cut, no directory is synced; a commit is one
 * sync of the log, at most one write, and few bytes. */
static void
sync__is_one_write_and_one_flush(void **state)
{
    (void)state;
    static const uint8_t value[SYNC_VALUE];
    struct sim_disk *disk = sim_disk_create(7);
    esker_db *db = promise_open(disk, ESKER_DURABLE_SYNC, &large_tuning, true);
    for (uint32_t i = 0; i < 2000; i++) { /* some windows, so that log files come back */
        assert_int_equal(esker_put(db, esker_str("warm"), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_put(db, esker_str("first"), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    promise_run_jobs();

    static const enum sim_kind none[] = {SIM_OPEN, SIM_SYNC_DIR, SIM_RENAME, SIM_UNLINK, SIM_TRUNCATE};

    uint64_t before[SIM_KINDS];
    for (uint32_t kind = 0; kind < SIM_KINDS; kind++) {
        before[kind] = sim_disk_count(disk, (enum sim_kind)kind);
    }
    esker_stats stats, after;
    esker_stats_init(&stats);
    esker_stats_init(&after);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    for (uint32_t i = 0; i < SYNCS; i++) {
        assert_int_equal(esker_put(db, esker_str("k"), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
    assert_int_equal(esker_get_stats(db, &after), ESKER_OK);
    for (size_t i = 0; i < COUNTOF(none); i++) {
        assert_int_equal(sim_disk_count(disk, none[i]), before[none[i]]);
    }
    assert_int_equal(sim_disk_count(disk, SIM_SYNC) - before[SIM_SYNC], SYNCS);
    assert_true(sim_disk_count(disk, SIM_WRITE) - before[SIM_WRITE] <= SYNCS);
    assert_int_equal(after.log_syncs - stats.log_syncs, SYNCS);
    /* The frame, and the mark that proves the sync before. */
    assert_true(after.log_bytes_written - stats.log_bytes_written <= SYNCS * (SYNC_VALUE + 128));
    assert_int_equal(after.log_files, stats.log_files);
    assert_int_equal(after.log_file_bytes, stats.log_file_bytes);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* Windows come and go, log files stay: a few, which are made once. */
static void
log_files__are_used_again(void **state)
{
    (void)state;
    static const uint8_t value[SYNC_VALUE];
    struct sim_disk *disk = sim_disk_create(9);
    esker_db *db = promise_open(disk, ESKER_DURABLE_PROCESS, &large_tuning, true);
    uint64_t files = 0;
    for (uint32_t window = 0; window < 40; window++) {
        for (uint32_t i = 0; i < 65536 / (SYNC_VALUE + 48); i++) {
            assert_int_equal(esker_put(db, esker_str("k"), esker_bytes(value, sizeof value), NULL), ESKER_OK);
        }
        promise_run_jobs();
        esker_stats stats;
        esker_stats_init(&stats);
        assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
        if (window >= 10) {
            assert_true(files == 0 || stats.log_files <= files);
            files = files == 0 ? stats.log_files : files;
        }
    }
    assert_true(files > 0 && files <= 8);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- The eventfd ------------------------------------------------------------------------- */

static void *
poll_main(void *arg)
{
    struct pollfd polled = {.fd = *(const int *)arg, .events = POLLIN};
    return poll(&polled, 1, 60000) == 1 ? arg : NULL;
}

/* Nobody reads, and each waiter has an epoll of its own: every move is an edge for each. */
static void
promise_check_edges(esker_db *db, int fd)
{
    int waiters[2];
    for (size_t i = 0; i < COUNTOF(waiters); i++) {
        struct epoll_event wanted = {.events = EPOLLIN | EPOLLET};
        waiters[i] = epoll_create1(EPOLL_CLOEXEC);
        assert_true(waiters[i] >= 0);
        assert_int_equal(epoll_ctl(waiters[i], EPOLL_CTL_ADD, fd, &wanted), 0);
    }
    for (int move = 0; move < 3; move++) {
        assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), NULL), ESKER_OK);
        assert_int_equal(esker_sync(db), ESKER_OK);
        for (size_t i = 0; i < COUNTOF(waiters); i++) {
            struct epoll_event seen;
            assert_int_equal(epoll_wait(waiters[i], &seen, 1, 60000), 1);
        }
    }
    for (size_t i = 0; i < COUNTOF(waiters); i++) {
        assert_int_equal(close(waiters[i]), 0);
    }
}

/* One move wakes all who wait; it stays readable until somebody reads it; a child may close its
 * copy; the database's close takes it away. */
static void
eventfd__serves_several_waiters_and_ends_with_the_database(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-promise-XXXXXX";
    pthread_t threads[3];
    esker_db *db = NULL;
    assert_non_null(mkdtemp(path));
    assert_int_equal(esker_open(path, NULL, &db), ESKER_OK);
    int fd = esker_durable_eventfd(db);
    assert_true(fd >= 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0 && (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    uint64_t moves = 0;
    (void)!read(fd, &moves, sizeof moves);
    pid_t child = fork();
    if (child == 0) {
        _exit(esker_durable_eventfd(db) == -1 && close(fd) == 0 && esker_close(db) == ESKER_FORKED ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    for (size_t i = 0; i < COUNTOF(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, poll_main, &fd), 0);
    }
    assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), NULL), ESKER_OK);
    assert_int_equal(esker_sync(db), ESKER_OK);
    for (size_t i = 0; i < COUNTOF(threads); i++) {
        void *woken = NULL;
        assert_int_equal(pthread_join(threads[i], &woken), 0);
        assert_non_null(woken);
    }
    promise_check_edges(db, fd);
    assert_int_equal(read(fd, &moves, sizeof moves), sizeof moves);
    assert_int_equal(read(fd, &moves, sizeof moves), -1); /* once is enough for all moves */
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

/* Whether 0 to 2 are free, or become so: a descriptor may be there for a moment before it is moved. */
static bool
stdio_is_free(void)
{
    bool is_free = false;
    for (int tries = 0; tries < 500 && !is_free; tries++) {
        is_free = true;
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
            is_free = is_free && fcntl(fd, F_GETFD) == -1;
        }
        if (!is_free) {
            usleep(1000);
        }
    }
    return is_free;
}

/* In a process that has closed 0 to 2. Returns the line of what went wrong, or 0. */
static int
stdio_child(const char *path, int backend)
{
    esker_db *db = NULL;
    esker_options options;
    esker_options_init(&options);
    options.io_backend = backend;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        (void)close(fd);
    }
    if (esker_open(path, &options, &db) != ESKER_OK) {
        return 1;
    }
    if (esker_durable_eventfd(db) <= STDERR_FILENO ||
        esker_put(db, esker_str("k"), esker_str("v"), NULL) != ESKER_OK || esker_flush(db) != ESKER_OK) {
        return 2;
    }
    char value[1];
    size_t size = 0;
    if (esker_get_copy(db, esker_str("k"), NULL, value, sizeof value, &size) != ESKER_OK) {
        return 3;
    }
    if (!stdio_is_free()) {
        return 4;
    }
    return esker_close(db) == ESKER_OK && stdio_is_free() ? 0 : 5;
}

/* What a program prints after it has closed its output must not land in a file of the database. */
static void
descriptors__are_none_of_the_standard_ones(void **state)
{
    (void)state;
    static const int backends[] = {ESKER_IO_AUTO, ESKER_IO_POSIX};
    for (size_t i = 0; i < COUNTOF(backends); i++) {
        char path[] = "/tmp/esker-promise-XXXXXX";
        assert_non_null(mkdtemp(path));
        pid_t child = fork();
        if (child == 0) {
            _exit(stdio_child(path, backends[i]));
        }
        int status = -1;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
        assert_int_equal(esker_destroy(path), ESKER_OK);
    }
}

/* ---- Snapshots ------------------------------------------------------------------------------ */

enum { COMMITS = 200 };

/* Commit i wrote i + 1 to the key. What a snapshot at `asked` sees, held or made now. */
static void
promise_check_at(esker_db *db, const esker_snapshot *snapshot, uint32_t commits)
{
    uint32_t value = 0;
    assert_int_equal(promise_has(db, "k", snapshot, &value), commits > 0);
    assert_int_equal(value, commits);
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_iter *it = NULL;
    assert_int_equal(esker_iter_create(db, &options, &it), ESKER_OK);
    assert_int_equal(esker_iter_seek(it, esker_str("k")), commits > 0 ? ESKER_OK : ESKER_END);
    esker_slice seen;
    if (commits > 0) {
        assert_int_equal(esker_iter_value(it, &seen), ESKER_OK);
        assert_memory_equal(seen.data, &commits, sizeof commits);
        assert_int_equal(esker_iter_refresh(it), ESKER_OK); /* the same state on the newest files */
        assert_int_equal(esker_iter_value(it, &seen), ESKER_OK);
        assert_memory_equal(seen.data, &commits, sizeof commits);
    }
    esker_iter_destroy(it);
}

/* Across rotations, flushes and merges: one LSN before the end of a commit it is not seen, at it
 * and behind it it is, and a snapshot that was taken there says the same for good. */
static void
snapshot__is_exact_around_every_commit(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(11);
    esker_db *db = promise_open(disk, ESKER_DURABLE_PROCESS, &promise_tuning, true);
    static esker_snapshot *held[COMMITS][2];
    static esker_lsn ends[COMMITS];
    esker_batch *batch = NULL;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    for (uint32_t i = 0; i < COMMITS; i++) {
        uint8_t value[200] = {0};
        uint32_t number = i + 1;
        memcpy(value, &number, sizeof number);
        esker_batch_clear(batch);
        assert_int_equal(esker_batch_put(batch, esker_str("a"), esker_bytes(value, i % sizeof value)),
                         ESKER_OK);
        assert_int_equal(esker_batch_put(batch, esker_str("k"), esker_bytes(value, sizeof number)), ESKER_OK);
        assert_int_equal(esker_write(db, batch, NULL, &ends[i]), ESKER_OK);
        esker_snapshot *beyond = NULL;
        assert_int_equal(esker_snapshot_create_at(db, ends[i] + 1, &beyond), ESKER_INVALID);
        assert_int_equal(esker_snapshot_create_at(db, ends[i] - 1, &held[i][0]), ESKER_OK);
        assert_int_equal(esker_snapshot_create_at(db, ends[i], &held[i][1]), ESKER_OK);
        assert_int_equal(esker_snapshot_lsn(held[i][1]), ends[i]);
        assert_true(i == 0 || esker_snapshot_lsn(held[i][0]) >= ends[i - 1]);
        if (i % 50 == 49) {
            assert_int_equal(i % 100 == 49 ? esker_flush(db) : esker_compact(db, NULL, NULL), ESKER_OK);
        }
    }
    esker_batch_destroy(batch);
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < COMMITS; i++) {
            promise_check_at(db, held[i][0], i);
            promise_check_at(db, held[i][1], i + 1);
            esker_snapshot *again = NULL; /* history that is held can be asked for */
            assert_int_equal(esker_snapshot_create_at(db, ends[i], &again), ESKER_OK);
            promise_check_at(db, again, i + 1);
            esker_snapshot_release(again);
        }
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    for (uint32_t i = 0; i < COMMITS; i++) {
        esker_snapshot_release(held[i][0]);
        esker_snapshot_release(held[i][1]);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Many keys ------------------------------------------------------------------------------ */

/* A key that could never be one is a mistake of the whole call. */
static void
multi_get__with_a_bad_key_touches_nothing(void **state)
{
    (void)state;
    static const uint8_t long_key[KEY_BYTES_MAX + 1];
    struct sim_disk *disk = sim_disk_create(13);
    esker_db *db = promise_open(disk, ESKER_DURABLE_PROCESS, &promise_tuning, true);
    assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), NULL), ESKER_OK);
    esker_slice keys[3] = {esker_str("k"), esker_str("k"), esker_bytes("", 0)};
    esker_value values[3] = {{.size = 77}, {.size = 77}, {.size = 77}};
    esker_status statuses[3] = {77, 77, 77};
    assert_int_equal(esker_multi_get(db, 3, keys, NULL, values, statuses), ESKER_INVALID);
    keys[2] = esker_bytes(long_key, sizeof long_key);
    assert_int_equal(esker_multi_get(db, 3, keys, NULL, values, statuses), ESKER_TOO_LARGE);
    for (int i = 0; i < 3; i++) {
        assert_true(values[i].size == 77 && values[i].data == NULL && values[i].pin == NULL);
        assert_int_equal(statuses[i], 77);
    }
    assert_int_equal(esker_close(db), ESKER_OK); /* nothing is pinned */
    sim_disk_destroy(disk);
}

enum { STARVED_KEYS = 5000, STARVED_BUDGET = 8 << 20 };

static uint64_t starved_after; /* so many requests from now one fails */
static size_t starved_most;    /* the largest request */

static void *
starved_alloc(void *ctx, size_t size)
{
    (void)ctx;
    starved_most = MAX(starved_most, size);
    return starved_after-- == 0 ? NULL : malloc(size);
}

static void *
starved_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    return starved_after-- == 0 ? NULL : aligned_alloc(alignment, align_up(size, alignment));
}

static void
starved_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

/* Goal: a call with many more keys than are under way together says NO_MEMORY before it touches an output,
 * or for the one key whose value has no room; its own memory does not grow with the keys. Method: the n-th
 * allocation of a call fails. The first is for the lookups, then there is one for each value. */
static void
multi_get__without_memory_says_so(void **state)
{
    (void)state;
    static esker_slice keys[STARVED_KEYS];
    static esker_value values[STARVED_KEYS];
    static esker_status statuses[STARVED_KEYS];
    static const uint64_t turns[] = {0, 1, 2, 300, 2600, STARVED_KEYS};
    struct sim_disk *disk = sim_disk_create(14);
    struct io *io = NULL;
    esker_db *db = NULL;
    esker_options options;
    static const esker_allocator allocator = {
        .alloc = starved_alloc, .aligned_alloc = starved_aligned_alloc, .free = starved_free};
    starved_after = UINT64_MAX;
    esker_options_init(&options);
    options.memory_budget_bytes = STARVED_BUDGET;
    options.allocator = &allocator;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &promise_tuning, true, &db), ESKER_OK);
    assert_int_equal(esker_put(db, esker_str("k"), esker_str("v"), NULL), ESKER_OK);
    starved_most = 0;
    for (size_t turn = 0; turn < COUNTOF(turns); turn++) {
        for (size_t i = 0; i < STARVED_KEYS; i++) {
            keys[i] = esker_str("k");
            values[i] = (esker_value){.size = 77};
            statuses[i] = 77;
        }
        starved_after = turns[turn];
        assert_int_equal(esker_multi_get(db, STARVED_KEYS, keys, NULL, values, statuses), ESKER_NO_MEMORY);
        starved_after = UINT64_MAX;
        for (size_t i = 0; i < STARVED_KEYS; i++) {
            if (turns[turn] == 0) {
                assert_true(values[i].size == 77 && values[i].pin == NULL);
                assert_int_equal(statuses[i], 77);
            } else if (i + 1 == turns[turn]) {
                assert_int_equal(statuses[i], ESKER_NO_MEMORY);
            } else {
                assert_int_equal(statuses[i], ESKER_OK);
                assert_int_equal(values[i].size, 1);
                esker_value_release(&values[i]);
            }
        }
    }
    assert_in_range(starved_most, 1, STARVED_BUDGET / 32);
    assert_int_equal(esker_close(db), ESKER_OK); /* nothing is pinned */
    sim_disk_destroy(disk);
}

/* ---- Late filters ---------------------------------------------------------------- */

enum { LATE_KEYS = 4000, LATE_ASKED = 64 };

static uint64_t
late_misses(esker_db *db)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    return stats.cache_misses;
}

/* A filter is late until somebody misses it; many keys that are not there do not read a block each first. */
static void
multi_get__of_absent_keys_reads_filters_first(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(5);
    esker_db *db = promise_open(disk, ESKER_DURABLE_PROCESS, &large_tuning, true);
    char text[LATE_ASKED][16];
    esker_slice keys[LATE_ASKED];
    esker_value values[LATE_ASKED];
    esker_status statuses[LATE_ASKED];
    uint8_t value[200] = {0};
    for (uint32_t i = 0; i < LATE_KEYS; i++) {
        snprintf(text[0], sizeof text[0], "key%06u", 2 * i);
        assert_int_equal(esker_put(db, esker_str(text[0]), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);
    db = promise_open(disk, ESKER_DURABLE_PROCESS, &large_tuning, true);
    for (uint32_t i = 0; i < LATE_ASKED; i++) {
        snprintf(text[i], sizeof text[i], "key%06u", 2 * i * (LATE_KEYS / LATE_ASKED) + 1);
        keys[i] = esker_str(text[i]);
    }
    uint64_t before = late_misses(db);
    assert_int_equal(esker_multi_get(db, LATE_ASKED, keys, NULL, values, statuses), ESKER_OK);
    for (uint32_t i = 0; i < LATE_ASKED; i++) {
        assert_int_equal(statuses[i], ESKER_NOT_FOUND);
    }
    print_message("%d absent keys: %llu blocks\n", LATE_ASKED,
                  (unsigned long long)(late_misses(db) - before));
    assert_true(late_misses(db) - before <= LATE_ASKED / 8);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(poison__keeps_its_first_cause),
        cmocka_unit_test(stall__gives_up_and_leaves_nothing),
        cmocka_unit_test(interval__lags_by_its_interval_at_most),
        cmocka_unit_test(sync__is_one_write_and_one_flush),
        cmocka_unit_test(log_files__are_used_again),
        cmocka_unit_test(eventfd__serves_several_waiters_and_ends_with_the_database),
        cmocka_unit_test(descriptors__are_none_of_the_standard_ones),
        cmocka_unit_test(snapshot__is_exact_around_every_commit),
        cmocka_unit_test(multi_get__with_a_bad_key_touches_nothing),
        cmocka_unit_test(multi_get__without_memory_says_so),
        cmocka_unit_test(multi_get__of_absent_keys_reads_filters_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
