/* SPDX-License-Identifier: MIT */
/*
 * Goal: the next windows stand ready, one while windows are small and two once
 * they have grown; what was made ready and never used can go, in an order that
 * leaves a directory that opens; conditional batches have windows made ready, too;
 * where entries are large, windows take more of them in the same memory.
 * Method: a simulated disk without threads, so that background work is done when
 * the test says so.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "db/db.h"
#include "db/db_windows.h"
#include "io/io_sim.h"

enum { PREPARE_VALUE_BYTES = 500, PREPARE_FIRST_BYTES = 4096 };

struct fixture {
    struct sim_disk *disk;
    esker_db *db;
    uint32_t puts;
};

static const struct db_tuning prepare_small = {
    .window_bytes_first = PREPARE_FIRST_BYTES, .window_bytes_max = 32768, .segment_bytes = 65536};

static const struct db_tuning prepare_large = {
    .window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20, .segment_bytes = 4 << 20};

static void
prepare_open_budget(struct fixture *f, const struct db_tuning *tuning, uint64_t budget_bytes)
{
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = budget_bytes;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, tuning, true, &f->db), ESKER_OK);
}

static void
prepare_open_with(struct fixture *f, const struct db_tuning *tuning)
{
    prepare_open_budget(f, tuning, 8 << 20);
}

static void
prepare_open(struct fixture *f)
{
    prepare_open_with(f, &prepare_small);
}

static int
fixture_setup(void **state)
{
    struct fixture *f = mem_zalloc(&mem_default, sizeof *f);
    assert_non_null(f);
    f->disk = sim_disk_create(1);
    prepare_open(f);
    *state = f;
    return 0;
}

static int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    if (f->db != NULL) {
        assert_int_equal(esker_close(f->db), ESKER_OK);
    }
    sim_disk_destroy(f->disk);
    mem_free(&mem_default, f);
    return 0;
}

static void
prepare_put(struct fixture *f, bool conditional)
{
    char key[16];
    static const uint8_t value[PREPARE_VALUE_BYTES] = {1, 2, 3};
    snprintf(key, sizeof key, "key-%06u", f->puts++);
    if (!conditional) {
        assert_int_equal(esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
        return;
    }
    esker_batch *batch = NULL;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str(key), esker_bytes(value, sizeof value)), ESKER_OK);
    assert_int_equal(esker_batch_require(batch, esker_str(key), 0), ESKER_OK);
    assert_int_equal(esker_write(f->db, batch, NULL, NULL), ESKER_OK);
    esker_batch_destroy(batch);
}

static struct window *
prepare_active(struct fixture *f)
{
    return load_acquire(&f->db->current)->windows[0]; /* pairs: CURRENT — no other thread */
}

/* Until the prepare job has nothing to do; others may have it without an end. */
static void
prepare_run_jobs(struct fixture *f)
{
    while (!job_idle(&f->db->prepare_job) && workers_run_one()) {
    }
}

/* Writes until the active window has grown; two are ready behind it. */
static void
prepare_grow(struct fixture *f)
{
    while (prepare_active(f)->cap_bytes == PREPARE_FIRST_BYTES || f->db->prepared[1] == NULL) {
        prepare_put(f, false);
        prepare_run_jobs(f);
        assert_true(f->puts < 1000);
    }
}

static void
prepare__one_is_ready_while_windows_are_small(void **state)
{
    struct fixture *f = *state;
    assert_null(f->db->prepared[0]);
    while (prepare_active(f)->cap_bytes == PREPARE_FIRST_BYTES) {
        assert_null(f->db->prepared[1]);
        prepare_put(f, false);
    }
}

static void
prepare__two_are_ready_once_windows_have_grown(void **state)
{
    struct fixture *f = *state;
    prepare_grow(f);
    const struct window *before = prepare_active(f);
    for (uint32_t i = 0; i < PREPARED_MAX; i++) {
        const struct window *next = f->db->prepared[i];
        assert_true(next->base_lsn == before->end_lsn);
        assert_true(next->log->header.prev_gen == before->gen);
        assert_true(next->log->header.base_lsn == next->base_lsn);
        before = next;
    }
    /* A whole window fits between two runs of the job, and nobody waits. */
    uint64_t base_lsn = f->db->prepared[1]->base_lsn;
    while (prepare_active(f)->base_lsn < base_lsn) {
        prepare_put(f, false);
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(f->db, &stats), ESKER_OK);
    assert_true(stats.wait_count[ESKER_WAIT_LOG] <= 2); /* at the start, while they were small */
}

/* Everything acknowledged is there after the process was killed. */
static void
prepare_kill(struct fixture *f)
{
    sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    assert_int_equal(esker_close(f->db), ESKER_IO); /* the disk is gone */
    f->db = NULL;
    sim_disk_heal(f->disk);
    prepare_open(f);
    for (uint32_t i = 0; i < f->puts; i++) {
        char key[16];
        uint8_t value[PREPARE_VALUE_BYTES];
        size_t size = 0;
        snprintf(key, sizeof key, "key-%06u", i);
        assert_int_equal(esker_get_copy(f->db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
    }
}

/* Those that are ready, from this one on, go back to the pool. */
static void
prepare_give_back(struct fixture *f, uint32_t from)
{
    mutex_lock(&f->db->mu);
    db_discard_prepared_locked(f->db, from);
    mutex_unlock(&f->db->mu);
}

/* A window behind the active one, as the next one would be. */
static esker_status
prepare_make(struct fixture *f, uint64_t cap_bytes, struct window **out)
{
    const struct window *active = prepare_active(f);
    return db_make_window(f->db, cap_bytes, window_op_capacity(cap_bytes), active->end_lsn, active->gen,
                          active->end_lsn, out);
}

static void
prepare_discard(struct fixture *f, struct window *window)
{
    mutex_lock(&f->db->mu);
    db_discard_window_locked(f->db, window);
    mutex_unlock(&f->db->mu);
}

static void
prepare__what_was_never_used_goes_last_first(void **state)
{
    struct fixture *f = *state;
    prepare_grow(f);
    uint64_t small = f->db->prepared[0]->cap_bytes;
    uint64_t large = f->db->prepared[1]->cap_bytes;
    assert_true(small < large); /* by size alone the first would go, and the last stay */
    prepare_give_back(f, 0);
    size_t count = f->db->pool.count;
    assert_int_equal(db_drop_pool(f->db, UINT64_MAX, large), ESKER_OK);
    assert_true(f->db->pool.count <= count - 2);
    prepare_kill(f);
}

/* Two are prepared and given back, the first one's file is begun anew, and that one goes too: what is left is
 * the log of the second, behind one that is no more. */
static void
prepare__what_nothing_leads_to_goes_first(void **state)
{
    struct fixture *f = *state;
    struct window *window = NULL;
    prepare_grow(f);
    uint64_t small = f->db->prepared[0]->cap_bytes;
    uint64_t large = f->db->prepared[1]->cap_bytes;
    uint64_t number = f->db->prepared[0]->log->number;
    uint64_t astray = f->db->prepared[1]->log->number;
    assert_true(small < large);
    prepare_give_back(f, 0);
    assert_int_equal(prepare_make(f, small, &window), ESKER_OK);
    assert_int_equal(window->log->number, number);
    prepare_discard(f, window);
    assert_int_equal(db_drop_pool(f->db, UINT64_MAX, large), ESKER_OK);
    for (size_t i = 0; i < f->db->pool.count; i++) {
        assert_true(f->db->pool.files[i]->number != number && f->db->pool.files[i]->number != astray);
    }
    prepare_kill(f);
}

/* All is flushed, and the pool is empty; two are ready, the first smaller than the second. */
static void
prepare_two_alone(struct fixture *f)
{
    prepare_grow(f);
    assert_true(f->db->prepared[0]->cap_bytes < f->db->prepared[1]->cap_bytes);
    assert_int_equal(db_drop_pool(f->db, 0, 0), ESKER_OK);
    assert_int_equal(f->db->pool.count, 0);
}

/* The edit that drops a log fails and is on the disk all the same, as far as anybody knows; and no manifest
 * can be written. Then nothing is written into that log. */
static void
prepare__a_log_that_may_be_off_the_list_is_not_used(void **state)
{
    struct fixture *f = *state;
    static const uint8_t value[PREPARE_VALUE_BYTES] = {1};
    esker_status status = ESKER_OK;
    prepare_two_alone(f);
    uint64_t number = f->db->prepared[0]->log->number;
    uint64_t cap_bytes = f->db->prepared[0]->cap_bytes;
    mutex_lock(&f->db->mu);
    db_discard_prepared_locked(f->db, 0);
    f->db->window_bytes_want = cap_bytes;
    mutex_unlock(&f->db->mu);
    assert_true(sim_disk_script(f->disk, "sync@manifest-:2:EIO open@manifest-:1:EIO:sticky"));
    assert_int_equal(db_drop_pool(f->db, 0, 0), ESKER_IO); /* the second of them */
    assert_int_equal(f->db->pool.count, 1);
    assert_int_equal(f->db->pool.files[0]->number, number);
    while (status == ESKER_OK && prepare_active(f)->log->number != number) {
        char key[16];
        snprintf(key, sizeof key, "key-%06u", f->puts);
        status = esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL);
        f->puts += status == ESKER_OK;
        assert_true(f->puts < 1000);
    }
    if (status == ESKER_OK) {
        prepare_put(f, false);
    }
    prepare_kill(f);
    assert_int_equal(status, ESKER_IO);
    prepare_grow(f);
}

/* It is listed again as soon as a manifest can be written, and then it is used. */
static void
prepare__a_log_is_used_again_once_the_list_is_sure(void **state)
{
    struct fixture *f = *state;
    struct window *window = NULL;
    prepare_two_alone(f);
    uint64_t number = f->db->prepared[1]->log->number;
    uint64_t large = f->db->prepared[1]->cap_bytes;
    prepare_give_back(f, 0);
    assert_true(sim_disk_script(f->disk, "sync@manifest-:1:EIO open@manifest-:1:EIO:sticky"));
    assert_int_equal(db_drop_pool(f->db, 0, 0), ESKER_IO);
    assert_int_equal(prepare_make(f, large, &window), ESKER_IO);
    sim_disk_heal(f->disk);
    assert_int_equal(prepare_make(f, large, &window), ESKER_OK);
    assert_int_equal(window->log->number, number);
    prepare_discard(f, window);
    prepare_kill(f);
}

static struct fixture *prepare_meanwhile; /* whose pool is dropped while a log is about to be begun */
static const struct io_ops *prepare_real_ops;

static void
prepare_drop_meanwhile(struct io *io, struct io_machine_id *out)
{
    struct fixture *f = prepare_meanwhile;
    prepare_meanwhile = NULL;
    if (f != NULL) {
        assert_int_equal(db_drop_pool(f->db, 0, 0), ESKER_OK);
        sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    }
    prepare_real_ops->machine_id(io, out);
}

/* The second of two is taken to be begun anew, and the pool is dropped before it is: on the disk it is still
 * behind the first. */
static void
prepare__what_a_taken_log_followed_stays_until_it_is_begun(void **state)
{
    struct fixture *f = *state;
    struct window *window = NULL;
    prepare_two_alone(f);
    uint64_t large = f->db->prepared[1]->cap_bytes;
    prepare_give_back(f, 0);
    prepare_real_ops = f->db->io->ops;
    struct io_ops ops = *prepare_real_ops;
    ops.machine_id = prepare_drop_meanwhile;
    f->db->io->ops = &ops;
    prepare_meanwhile = f;
    assert_int_equal(prepare_make(f, large, &window), ESKER_IO);
    assert_null(prepare_meanwhile);
    f->db->io->ops = prepare_real_ops;
    prepare_kill(f);
}

static void *
prepare_no_memory(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return NULL;
}

/* There is no memory to keep the second in the pool: it stays listed, and so must the first. */
static void
prepare__what_a_lost_log_follows_stays(void **state)
{
    struct fixture *f = *state;
    prepare_two_alone(f);
    mutex_lock(&f->db->mu);
    void *(*alloc)(void *ctx, size_t size) = f->db->mem.hooks.alloc;
    f->db->mem.hooks.alloc = prepare_no_memory;
    f->db->pool.cap = 0;
    db_discard_prepared_locked(f->db, 1);
    assert_int_equal(f->db->pool.count, 0);
    f->db->mem.hooks.alloc = alloc;
    db_discard_prepared_locked(f->db, 0);
    mutex_unlock(&f->db->mu);
    assert_int_equal(db_drop_pool(f->db, 0, 0), ESKER_OK);
    prepare_kill(f);
}

static void
prepare__conditional_batches_look_ahead(void **state)
{
    struct fixture *f = *state;
    assert_null(f->db->prepared[0]);
    const struct window *first = prepare_active(f);
    while (prepare_active(f) == first && window_tail_bytes(load_relaxed(&first->tail)) /* relaxed: own */
                                             < PREPARE_FIRST_BYTES * 3 / 4) {
        prepare_put(f, true);
    }
    assert_ptr_equal(prepare_active(f), first);
    prepare_run_jobs(f);
    assert_non_null(f->db->prepared[0]);
}

static void
prepare_put_sized(struct fixture *f, size_t size)
{
    static const uint8_t value[64 << 10] = {1};
    char key[16];
    snprintf(key, sizeof key, "key-%06u", f->puts++);
    assert_int_equal(esker_put(f->db, esker_str(key), esker_bytes(value, size), NULL), ESKER_OK);
}

static void
prepare__windows_take_more_of_large_entries_in_the_same_memory(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(esker_close(f->db), ESKER_OK);
    prepare_open_with(f, &prepare_large);
    uint64_t most = window_bytes_max(1 << 20, window_op_capacity(1 << 20)) + (1 << 20);
    most = MAX(most, (uint64_t)(8 << 20) / 2 / WINDOWS_LIVE_MAX);
    for (int i = 0; i < 100; i++) {
        prepare_put_sized(f, 64 << 10);
        if (i % 8 == 0) {
            prepare_run_jobs(f);
        }
        const struct window *active = prepare_active(f);
        assert_true(window_bytes_max(active->cap_bytes, active->op_cap) + active->cap_bytes <= most);
    }
    assert_true(prepare_active(f)->cap_bytes > 1 << 20);
    for (int i = 0; i < 40000 && prepare_active(f)->cap_bytes > 1 << 20; i++) {
        prepare_put_sized(f, 40); /* small again: room for them, too */
    }
    assert_int_equal(prepare_active(f)->cap_bytes, 1 << 20);
    assert_int_equal(prepare_active(f)->op_cap, window_op_capacity(1 << 20));
}

/* Nothing is flushed before a writer waits for it. How many windows are live then, at most? */
static uint32_t
prepare_live_most(struct fixture *f, uint64_t window_bytes, uint64_t budget_bytes)
{
    const struct db_tuning tuning = {.window_bytes_first = window_bytes, .window_bytes_max = window_bytes};
    uint32_t most = 0;
    assert_int_equal(esker_close(f->db), ESKER_OK);
    prepare_open_budget(f, &tuning, budget_bytes);
    for (uint32_t i = 0; i < 20000; i++) {
        prepare_put(f, false);
        if (i % 100 == 0) {
            prepare_run_jobs(f);
        }
        const struct version *version = load_acquire(&f->db->current); /* pairs: CURRENT — no other thread */
        most = MAX(most, version->window_count);
    }
    assert_true(load_relaxed(&f->db->wait_count[ESKER_WAIT_MEMORY]) > 0);
    return most;
}

static void
prepare__more_windows_are_live_where_memory_has_room(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(prepare_live_most(f, 1 << 18, 64 << 20),
                     WINDOWS_LIVE_MAX); /* small ones are flushed soon */
    assert_int_equal(prepare_live_most(f, 1 << 20, 64 << 20), WINDOWS_LIVE_MOST);
    assert_int_equal(prepare_live_most(f, 2 << 20, 8 << 20), WINDOWS_LIVE_MAX);
}

#define CASE(fn)                                                                                             \
    {                                                                                                        \
        .name = #fn, .test_func = fn, .setup_func = fixture_setup, .teardown_func = fixture_teardown         \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(prepare__one_is_ready_while_windows_are_small),
        CASE(prepare__two_are_ready_once_windows_have_grown),
        CASE(prepare__what_was_never_used_goes_last_first),
        CASE(prepare__what_nothing_leads_to_goes_first),
        CASE(prepare__a_log_that_may_be_off_the_list_is_not_used),
        CASE(prepare__a_log_is_used_again_once_the_list_is_sure),
        CASE(prepare__what_a_taken_log_followed_stays_until_it_is_begun),
        CASE(prepare__what_a_lost_log_follows_stays),
        CASE(prepare__conditional_batches_look_ahead),
        CASE(prepare__windows_take_more_of_large_entries_in_the_same_memory),
        CASE(prepare__more_windows_are_live_where_memory_has_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
