/* SPDX-License-Identifier: MIT */
/*
 * Goal: what threads may do to one another in a database, at moments that
 * random stress rarely meets: a window is prepared while an oversize batch makes
 * its own, a writer stands still between reserving and applying.
 * Method: the simulated disk with real background threads; calls to the disk are
 * held at a gate, or the test plays the slow writer itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "db/db.h"
#include "io/io_sim.h"

enum { PATIENCE_MS = 20000 };

static const struct db_tuning race_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384};

/* ---- A gate in front of the disk --------------------------------------------- */

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
    const char *prefix; /* creations of such files by other threads wait; NULL = open */
    uint32_t waiting;
};

static struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, 0};
static const struct io_ops *gate_real;
static struct io_ops gate_ops;
static _Thread_local bool gate_passes; /* this thread does not wait */

static int
gate_open_file(struct io *io, const char *name, unsigned flags, struct io_file **out)
{
    pthread_mutex_lock(&gate.mutex);
    if ((flags & IO_OPEN_CREATE) != 0 && !gate_passes) {
        gate.waiting++;
        pthread_cond_broadcast(&gate.cond);
        while (gate.prefix != NULL && strncmp(name, gate.prefix, strlen(gate.prefix)) == 0) {
            pthread_cond_wait(&gate.cond, &gate.mutex);
        }
        gate.waiting--;
    }
    pthread_mutex_unlock(&gate.mutex);
    return gate_real->open_file(io, name, flags, out);
}

/* Somebody writes a SYNCMARK: between its decision to and the frame. */
static uint64_t
gate_wall_ns(struct io *io)
{
    pthread_mutex_lock(&gate.mutex);
    if (!gate_passes) {
        gate.waiting++;
        pthread_cond_broadcast(&gate.cond);
        while (gate.prefix != NULL && strcmp(gate.prefix, "mark") == 0) {
            pthread_cond_wait(&gate.cond, &gate.mutex);
        }
        gate.waiting--;
    }
    pthread_mutex_unlock(&gate.mutex);
    return gate_real->wall_ns(io);
}

static void
gate_set(const char *prefix)
{
    pthread_mutex_lock(&gate.mutex);
    gate.prefix = prefix;
    pthread_cond_broadcast(&gate.cond);
    pthread_mutex_unlock(&gate.mutex);
}

static void
gate_wait_for_company(void)
{
    pthread_mutex_lock(&gate.mutex);
    while (gate.waiting == 0) {
        pthread_cond_wait(&gate.cond, &gate.mutex);
    }
    pthread_mutex_unlock(&gate.mutex);
}

/* ---- A database on the simulated disk ----------------------------------------- */

static esker_db *
race_open(struct sim_disk *disk, int durability, bool gated)
{
    struct io *io = NULL;
    esker_db *db = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = durability;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    if (gated) {
        gate_passes = true;
        gate_real = io->ops;
        gate_ops = *io->ops;
        gate_ops.open_file = gate_open_file;
        gate_ops.wall_ns = gate_wall_ns;
        io->ops = &gate_ops;
    }
    assert_int_equal(db_open_on(io, &options, &race_tuning, false, &db), ESKER_OK);
    return db;
}

static void
race_put(esker_db *db, const char *key, size_t size)
{
    static const uint8_t zeros[8192];
    assert_int_equal(esker_put(db, esker_str(key), esker_bytes(zeros, size), NULL), ESKER_OK);
}

static bool
race_has(esker_db *db, const char *key)
{
    size_t size = 0;
    esker_status status = esker_get_copy(db, esker_str(key), NULL, NULL, 0, &size);
    assert_true(status == ESKER_OK || status == ESKER_TRUNCATED || status == ESKER_NOT_FOUND);
    return status != ESKER_NOT_FOUND;
}

static void
race_nap(void)
{
    usleep(1000);
}

/* ---- Two windows in the making --------------------------------------------------- */

struct putter {
    pthread_t thread;
    struct sim_disk *disk;
    esker_db *db;
    bool acknowledged;
    _Atomic bool done;
};

static void *
putter_main(void *arg)
{
    static const uint8_t zeros[3000];
    struct putter *putter = arg;
    gate_passes = true;
    esker_status status = esker_put(putter->db, esker_str("large"), esker_bytes(zeros, sizeof zeros), NULL);
    putter->acknowledged = status == ESKER_OK && !sim_disk_is_off(putter->disk);
    store_seq(&putter->done, true);
    return NULL;
}

/* The background prepares a window behind the active one and is slow; an
 * oversize batch meanwhile wants a window at the same place. Then the disk stops
 * at the nth change that is still made. Returns whether it did. */
static bool
oversize_and_late_preparation(uint64_t nth)
{
    struct sim_disk *disk = sim_disk_create(nth);
    esker_db *db = race_open(disk, ESKER_DURABLE_PROCESS, true);
    struct putter putter = {.disk = disk, .db = db};
    gate_set("log-");
    race_put(db, "small", 1200);
    race_put(db, "small", 1200); /* crosses the middle of the window */
    gate_wait_for_company();
    assert_int_equal(pthread_create(&putter.thread, NULL, putter_main, &putter), 0);
    for (int ms = 0; ms < 20 && !load_seq(&putter.done); ms++) {
        race_nap();
    }
    sim_disk_crash_at(disk, nth);
    gate_set(NULL);
    pthread_join(putter.thread, NULL);
    bool prepared = false;
    for (int ms = 0; ms < PATIENCE_MS && !sim_disk_is_off(disk) && !prepared; ms++) {
        race_nap();
        job_kick(&db->prepare_job);
        mutex_lock(&db->mu);
        prepared = db->prepared[0] != NULL;
        mutex_unlock(&db->mu);
    }
    bool off = sim_disk_is_off(disk);
    assert_true(off || prepared);
    (void)esker_close(db);
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    db = race_open(disk, ESKER_DURABLE_PROCESS, false);
    assert_true(race_has(db, "small"));
    assert_true(race_has(db, "large") || !putter.acknowledged);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
    return off;
}

static void
oversize__is_not_lost_to_a_window_prepared_at_the_same_place(void **state)
{
    (void)state;
    uint64_t nth = 1;
    while (oversize_and_late_preparation(nth)) {
        nth++;
    }
    assert_in_range(nth, 5, 1000);
}

/* While a window is in the making behind another prepared one, that one is given
 * back and all spare files go. What is in the making follows it, and will be the
 * log that was begun last: the next life must find the way to it. */
static void
prepare__what_it_follows_stays_meanwhile(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = race_open(disk, ESKER_DURABLE_PROCESS, true);
    bool ready = false;
    for (int puts = 0; puts < PATIENCE_MS && !ready; puts++) {
        race_put(db, "small", 600);
        race_nap();
        mutex_lock(&db->mu);
        ready = db->prepared[1] != NULL && !db->preparing;
        if (ready) {
            gate_set("log-"); /* nothing new behind the first */
            db_discard_window_locked(db, db->prepared[1]);
            db->prepared[1] = NULL;
            db->rotating = true;
        }
        mutex_unlock(&db->mu);
    }
    assert_true(ready);
    assert_int_equal(db_drop_pool(db, 0, 0), ESKER_OK); /* so a file must be made */
    mutex_lock(&db->mu);
    db->rotating = false;
    mutex_unlock(&db->mu);
    job_kick(&db->prepare_job);
    gate_wait_for_company();
    mutex_lock(&db->mu);
    db->rotating = true; /* nor anything else, later */
    db_discard_prepared_locked(db, 0);
    mutex_unlock(&db->mu);
    assert_int_equal(db_drop_pool(db, 0, 0), ESKER_OK);
    gate_set(NULL);
    for (int ms = 0; ms < PATIENCE_MS && !job_idle(&db->prepare_job); ms++) {
        race_nap();
    }
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    mutex_lock(&db->mu);
    db->rotating = false;
    mutex_unlock(&db->mu);
    (void)esker_close(db);
    db = race_open(disk, ESKER_DURABLE_PROCESS, false);
    assert_true(race_has(db, "small"));
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- A writer that stands still ----------------------------------------------------- */

struct flusher {
    pthread_t thread;
    esker_db *db;
    _Atomic bool done;
};

static void *
flusher_main(void *arg)
{
    struct flusher *flusher = arg;
    assert_int_equal(esker_flush(flusher->db), ESKER_OK);
    store_seq(&flusher->done, true);
    return NULL;
}

static void
flush__ends_when_a_slow_writer_has_caught_up(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = race_open(disk, ESKER_DURABLE_PROCESS, false);
    struct flusher flusher = {.db = db};
    struct thread_state *self = thread_state_get();
    race_put(db, "key", 100);
    /* The slow writer: it has its place in the log and has not written there yet. */
    struct version *before = db_current_ref(db, self);
    struct window *window = before->windows[0];
    uint64_t offset = window_tail_bytes(add_acq_rel(&window->tail, window_tail(0, 32)));
    assert_int_equal(pthread_create(&flusher.thread, NULL, flusher_main, &flusher), 0);
    uint32_t windows = 1;
    while (windows == 1 || !job_idle(&db->flush_job)) { /* rotated, and the flush job has looked */
        struct version *version = db_current_ref(db, self);
        windows = version->window_count;
        version_unref(version);
        race_nap();
    }
    assert_false(load_seq(&flusher.done));
    db_write_frame(db, window, offset, 32, FRAME_PAD, FRAME_BACK_NO_CLAIM);
    window_set_applied(window, offset);
    db_ratchet(db, self);
    for (int ms = 0; ms < PATIENCE_MS && !load_seq(&flusher.done); ms++) {
        race_nap();
    }
    assert_true(load_seq(&flusher.done));
    pthread_join(flusher.thread, NULL);
    version_unref(before);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Readers beside a writer that stands still, and writers beside readers that do ------- */

static void *
behind_main(void *arg)
{
    race_put(arg, "behind", 10);
    return NULL;
}

/* Every kind of read answers at once, with what was before the writer's place. */
static void
race_check_before(esker_db *db)
{
    esker_slice keys[] = {esker_str("before"), esker_str("behind")};
    esker_value values[2];
    esker_status statuses[2];
    esker_iter *it = NULL;
    esker_snapshot *snapshot = NULL;
    assert_true(race_has(db, "before") && !race_has(db, "behind"));
    assert_int_equal(esker_multi_get(db, 2, keys, NULL, values, statuses), ESKER_OK);
    assert_true(statuses[0] == ESKER_OK && statuses[1] == ESKER_NOT_FOUND);
    esker_value_release(&values[0]);
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    assert_int_equal(esker_iter_last(it), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "before", 6);
    esker_iter_destroy(it);
    assert_int_equal(esker_snapshot_create(db, &snapshot), ESKER_OK);
    assert_int_equal(esker_snapshot_lsn(snapshot), esker_visible_lsn(db));
    esker_snapshot_release(snapshot);
}

/* The process dies while there is a hole in the log, and a whole frame behind it. */
static void
race_check_killed(struct sim_disk *disk)
{
    struct sim_disk *killed = sim_disk_clone(disk);
    sim_disk_crash(killed, SIM_CRASH_KILL, 0);
    esker_db *db = race_open(killed, ESKER_DURABLE_PROCESS, false);
    race_check_before(db);
    race_put(db, "behind", 10);
    assert_true(race_has(db, "behind"));
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(killed);
}

static void
reads__go_on_beside_a_writer_that_stands_still(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = race_open(disk, ESKER_DURABLE_PROCESS, false);
    struct thread_state *self = thread_state_get();
    race_put(db, "before", 10);
    struct version *version = db_current_ref(db, self);
    struct window *window = version->windows[0];
    uint64_t offset = window_tail_bytes(add_acq_rel(&window->tail, window_tail(0, 32)));
    race_check_before(db); /* it has its place, and nothing else */
    pthread_t behind;
    assert_int_equal(pthread_create(&behind, NULL, behind_main, db), 0);
    while (!window_is_applied(window, offset + 32) && esker_visible_lsn(db) == window_lsn(window, offset)) {
        race_nap();
    }
    race_check_before(db);
    race_check_killed(disk);
    db_write_frame(db, window, offset, 32, FRAME_PAD, FRAME_BACK_NO_CLAIM);
    race_check_before(db); /* its frame is there, and not applied */
    window_set_applied(window, offset);
    db_ratchet(db, self);
    pthread_join(behind, NULL);
    assert_true(race_has(db, "before") && race_has(db, "behind"));
    version_unref(version);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

enum { HELD = 24, PUTS_PER_HELD = 12 };

/* One thread puts and keeps iterators open meanwhile, so nobody else could end a wait for them. */
static void
writes__wait_for_no_reader(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = race_open(disk, ESKER_DURABLE_PROCESS, false);
    esker_iter *held[HELD];
    esker_value large;
    race_put(db, "large", 8000); /* pinned, not copied */
    assert_int_equal(esker_get(db, esker_str("large"), NULL, &large), ESKER_OK);
    for (uint32_t i = 0; i < HELD; i++) {
        assert_int_equal(esker_put(db, esker_str("a"), esker_bytes(&i, sizeof i), NULL), ESKER_OK);
        assert_int_equal(esker_iter_create(db, NULL, &held[i]), ESKER_OK);
        assert_int_equal(esker_iter_first(held[i]), ESKER_OK);
        for (uint32_t put = 0; put < PUTS_PER_HELD; put++) {
            race_put(db, "fill", 1000);
        }
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    assert_true(stats.flushes > HELD && stats.memtables <= WINDOWS_LIVE_MAX);
    assert_true(stats.oldest_version_id != 0 && stats.oldest_version_bytes > 0);
    for (uint32_t i = 0; i < HELD; i++) {
        esker_slice value;
        assert_int_equal(esker_iter_value(held[i], &value), ESKER_OK);
        assert_memory_equal(value.data, &i, sizeof i);
        esker_iter_destroy(held[i]);
    }
    esker_value_release(&large);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Closing while the background syncs ------------------------------------------------ */

static void *
closer_main(void *arg)
{
    assert_int_equal(esker_close(arg), ESKER_OK);
    return NULL;
}

static void
close__lets_no_frame_follow_the_seal(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = race_open(disk, ESKER_DURABLE_INTERVAL, true);
    race_put(db, "first", 10);
    while (esker_durable_lsn(db) < esker_visible_lsn(db)) {
        race_nap();
    }
    gate_set("mark");
    race_put(db, "second", 10); /* the sync job comes by and will mark what it synced before */
    gate_wait_for_company();
    pthread_t closer;
    assert_int_equal(pthread_create(&closer, NULL, closer_main, db), 0);
    usleep(50000);
    gate_set(NULL);
    pthread_join(closer, NULL);
    db = race_open(disk, ESKER_DURABLE_INTERVAL, false);
    assert_true(race_has(db, "first") && race_has(db, "second"));
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Many databases after a crash --------------------------------------------------------- */

enum { BLOCKERS_MAX = 8 };

static _Atomic uint32_t blockers_in;
static _Atomic bool blockers_go;

static void
blocker_run(struct job *job)
{
    (void)job;
    add_seq(&blockers_in, 1);
    while (!load_seq(&blockers_go)) {
        race_nap();
    }
}

/* Every worker is busy while the databases open, so that all jobs wait in line:
 * a sync job of each goes first, and needs that database's flush. */
static void
sync_jobs__of_many_databases_leave_workers_for_flushes(void **state)
{
    (void)state;
    struct sim_disk *disks[BLOCKERS_MAX];
    esker_db *dbs[BLOCKERS_MAX];
    struct job blockers[BLOCKERS_MAX];
    struct job_owner owner;
    assert_int_equal(workers_acquire(false), ESKER_OK);
    uint32_t count = workers_count();
    assert_in_range(count, 1, BLOCKERS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        disks[i] = sim_disk_create(i);
        dbs[i] = race_open(disks[i], ESKER_DURABLE_PROCESS, false);
        race_put(dbs[i], "old", 10);
        struct sim_disk *killed = sim_disk_clone(disks[i]);
        assert_int_equal(esker_close(dbs[i]), ESKER_OK);
        sim_disk_destroy(disks[i]);
        sim_disk_crash(killed, SIM_CRASH_KILL, 0);
        disks[i] = killed;
    }
    job_owner_init(&owner, 1);
    for (uint32_t i = 0; i < count; i++) {
        job_init(&blockers[i], &owner, JOB_LOG, blocker_run);
        job_kick(&blockers[i]);
    }
    while (load_seq(&blockers_in) < count) {
        race_nap();
    }
    for (uint32_t i = 0; i < count; i++) {
        dbs[i] = race_open(disks[i], ESKER_DURABLE_INTERVAL, false);
        race_put(dbs[i], "new", 10);
    }
    usleep(50000); /* beyond the interval: the sync jobs are due */
    store_seq(&blockers_go, true);
    for (uint32_t i = 0; i < count; i++) {
        bool durable = false;
        for (int ms = 0; ms < PATIENCE_MS && !durable; ms++) {
            durable = esker_durable_lsn(dbs[i]) == esker_visible_lsn(dbs[i]);
            race_nap();
        }
        assert_true(durable);
    }
    job_owner_stop(&owner);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(esker_close(dbs[i]), ESKER_OK);
        sim_disk_destroy(disks[i]);
    }
    workers_release();
}

/* ---- Compacting while others write ---------------------------------------------------------- */

enum { FEEDS_MAX = 30 };

/* After each merge somebody else has written and flushed before the next one is chosen. */
struct feeder {
    pthread_t thread;
    esker_db *db;
    _Atomic uint32_t wanted, done;
    _Atomic bool stop;
};

static void *
feeder_main(void *arg)
{
    struct feeder *feeder = arg;
    while (!load_seq(&feeder->stop)) {
        if (load_seq(&feeder->wanted) > load_seq(&feeder->done)) {
            race_put(feeder->db, "key", 100);
            assert_int_equal(esker_flush(feeder->db), ESKER_OK);
            add_seq(&feeder->done, 1);
        }
        race_nap();
    }
    return NULL;
}

static void
feeder_event(void *ctx, const esker_event *event)
{
    struct feeder *feeder = ctx;
    if (event->kind == ESKER_EVENT_COMPACTION && load_seq(&feeder->wanted) < FEEDS_MAX) {
        uint32_t wanted = add_seq(&feeder->wanted, 1) + 1;
        while (load_seq(&feeder->done) < wanted) {
            race_nap();
        }
    }
}

static void
compact__ends_although_others_write_on(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(1);
    esker_db *db = race_open(disk, ESKER_DURABLE_PROCESS, false);
    struct feeder feeder = {.db = db};
    db->options.on_event = feeder_event;
    db->events_at_once = true; /* between two merges of the call */
    db->options.event_ctx = &feeder;
    assert_int_equal(pthread_create(&feeder.thread, NULL, feeder_main, &feeder), 0);
    for (int i = 0; i < 3; i++) {
        race_put(db, "key", 100);
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_in_range(load_seq(&feeder.wanted), 1, FEEDS_MAX / 2);
    store_seq(&feeder.stop, true);
    pthread_join(feeder.thread, NULL);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(oversize__is_not_lost_to_a_window_prepared_at_the_same_place),
        cmocka_unit_test(prepare__what_it_follows_stays_meanwhile),
        cmocka_unit_test(flush__ends_when_a_slow_writer_has_caught_up),
        cmocka_unit_test(reads__go_on_beside_a_writer_that_stands_still),
        cmocka_unit_test(writes__wait_for_no_reader),
        cmocka_unit_test(close__lets_no_frame_follow_the_seal),
        cmocka_unit_test(sync_jobs__of_many_databases_leave_workers_for_flushes),
        cmocka_unit_test(compact__ends_although_others_write_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
