/* SPDX-License-Identifier: MIT */
/*
 * Goal: opening a database touches no segment, however many there are, and what it
 * does per segment does not grow with their number; readers have more of them loaded the
 * more they meet. What the manifest lists is what
 * was there, after drops, moves and many merges. Where keys are longer than the bounds of
 * segments, and these meet, each key is found all the same.
 * Method: segments of one or two rows, so that there are many; counted: calls to the
 * simulated disk and allocations. ESKER_LONG_TESTS makes ten thousand of them in a
 * real directory and says how long opening takes.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/hash.h"
#include "db/db.h"
#include "io/io_sim.h"

enum { SEGMENTS_VALUE_BYTES = 4000 };

static void
segments_open(struct io *io, esker_db **db)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 1 << 20, .window_bytes_max = 1 << 20, .segment_bytes = 4096};
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 64 << 20;
    options.compression = ESKER_COMPRESS_NONE;
    assert_int_equal(db_open_on(io, &options, &tuning, true, db), ESKER_OK);
}

static void
segments_put(esker_db *db, uint32_t from, uint32_t count)
{
    for (uint32_t i = from; i < from + count; i++) {
        char key[20];
        uint8_t value[SEGMENTS_VALUE_BYTES];
        memset(value, (int)(i % 251), sizeof value);
        snprintf(key, sizeof key, "%016llx", (unsigned long long)hash_mix(i, 3));
        assert_int_equal(esker_put(db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
}

static void
segments_expect(esker_db *db, uint32_t count)
{
    for (uint32_t i = 0; i < count; i += count / 50) {
        char key[20];
        uint8_t value[SEGMENTS_VALUE_BYTES];
        size_t size = 0;
        snprintf(key, sizeof key, "%016llx", (unsigned long long)hash_mix(i, 3));
        assert_int_equal(esker_get_copy(db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
        assert_int_equal(size, SEGMENTS_VALUE_BYTES);
        assert_int_equal(value[size - 1], i % 251);
    }
}

static uint64_t
segments_count(esker_db *db)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    return stats.segments;
}

static struct io *
segments_sim(struct sim_disk *disk)
{
    struct io *io = NULL;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return io;
}

/* Rows in so many portions, each merged: segments come and go. Returns the calls of opening anew. */
static uint64_t
segments_calls_of_open(uint32_t rows, uint32_t portions)
{
    static const enum sim_kind kinds[] = {SIM_OPEN, SIM_READ, SIM_SIZE};
    struct sim_disk *disk = sim_disk_create(rows);
    esker_db *db = NULL;
    segments_open(segments_sim(disk), &db);
    for (uint32_t i = 0; i < portions; i++) {
        segments_put(db, i * (rows / portions), rows / portions);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    uint64_t segments = segments_count(db);
    assert_true(segments >= rows / 2);
    assert_int_equal(esker_close(db), ESKER_OK);
    uint64_t before = 0;
    uint64_t after = 0;
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        before += sim_disk_count(disk, kinds[i]);
    }
    segments_open(segments_sim(disk), &db);
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        after += sim_disk_count(disk, kinds[i]);
    }
    assert_int_equal(segments_count(db), segments);
    segments_expect(db, rows);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
    return after - before;
}

static void
open__touches_no_segment(void **state)
{
    (void)state;
    uint64_t few = segments_calls_of_open(100, 4);
    uint64_t many = segments_calls_of_open(2000, 4);
    assert_in_range(many, few, few + 20); /* the manifest is longer */
}

static uint64_t
segments_loaded(esker_db *db)
{
    while (workers_run_one()) {
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(db, &stats), ESKER_OK);
    return stats.segments_open;
}

static void
segments_expect_one(esker_db *db, uint32_t row)
{
    char key[20];
    uint8_t value[SEGMENTS_VALUE_BYTES];
    size_t size = 0;
    snprintf(key, sizeof key, "%016llx", (unsigned long long)hash_mix(row, 3));
    assert_int_equal(esker_get_copy(db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
}

/* The more often readers meet segments whose index is not in memory, the more of the others are loaded
 * before they come to them; none where nobody reads. */
static void
get__has_other_segments_loaded_ahead(void **state)
{
    (void)state;

    enum { ROWS = 200 };

    struct sim_disk *disk = sim_disk_create(5);
    esker_db *db = NULL;
    segments_open(segments_sim(disk), &db);
    for (uint32_t from = 0; from < ROWS; from += ROWS / 4) { /* merged, so that there are many */
        segments_put(db, from, ROWS / 4);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    segments_open(segments_sim(disk), &db);
    uint64_t all = segments_count(db);
    assert_true(all > 50);
    assert_int_equal(segments_loaded(db), 0);
    segments_expect_one(db, 0);
    assert_in_range(segments_loaded(db), 4, 5);
    /* The next reader that meets one has more of them loaded. */
    uint64_t before = segments_loaded(db);
    uint32_t met = 1;
    for (uint32_t row = 1; row < ROWS && met < 3; row++) {
        uint64_t here = segments_loaded(db);
        segments_expect_one(db, row);
        uint64_t now = segments_loaded(db);
        if (now > here) {
            met++;
            assert_in_range(now - here, 2 << met, (2 << met) + 1);
        }
    }
    assert_true(segments_loaded(db) >= before + 8 + 16);
    segments_expect(db, ROWS);
    assert_int_equal(segments_loaded(db), all);
    assert_int_equal(esker_close(db), ESKER_OK);
    /* What fails on the way is told to nobody but who needs it. */
    segments_open(segments_sim(disk), &db);
    segments_expect_one(db, 0);
    sim_disk_fail(disk, SIM_OPEN, 1, EIO, true);
    assert_int_equal(segments_loaded(db), 1);
    sim_disk_heal(disk);
    segments_expect(db, ROWS);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* The process has taken every descriptor that is left; those of segments that nobody reads are
 * given back for the one that is read. */
static void
get__makes_do_with_the_descriptors_it_has(void **state)
{
    (void)state;

    enum { ROWS = 200, TAKEN_MAX = 256 };

    char path[] = "./db_segments_test_XXXXXX";
    struct rlimit before;
    struct io *io = NULL;
    esker_db *db = NULL;
    int taken[TAKEN_MAX];
    size_t count = 0;
    assert_non_null(mkdtemp(path));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit few = {.rlim_cur = TAKEN_MAX, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    assert_int_equal(io_open_dir(path, true, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    segments_open(io, &db);
    for (uint32_t from = 0; from < ROWS; from += ROWS / 4) {
        segments_put(db, from, ROWS / 4);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(io_open_dir(path, true, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    segments_open(io, &db);
    assert_true(segments_count(db) > 20);
    segments_expect(db, 50); /* some are open now */
    for (int fd = dup(STDIN_FILENO); fd >= 0 && count < TAKEN_MAX; fd = dup(STDIN_FILENO)) {
        taken[count++] = fd;
    }
    assert_true(count > 0);
    segments_expect(db, ROWS);
    while (count > 0) {
        close(taken[--count]);
    }
    segments_expect(db, ROWS);
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(esker_destroy(path), ESKER_OK);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

/* An iterator's, too; and where none can be given back it is told, for as long as that lasts. */
static void
iterator__tries_again_without_descriptors(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(4);
    esker_db *db = NULL;
    for (int sticky = 0; sticky < 2; sticky++) {
        segments_open(segments_sim(disk), &db);
        segments_put(db, 0, 100);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
        assert_int_equal(esker_close(db), ESKER_OK);
        segments_open(segments_sim(disk), &db);
        esker_iter *it = NULL;
        assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
        sim_disk_fail(disk, SIM_OPEN, 1, EMFILE, sticky != 0);
        assert_int_equal(esker_iter_first(it), sticky != 0 ? ESKER_IO : ESKER_OK);
        assert_true(sticky == 0 || status_last()->os_errno == EMFILE);
        sim_disk_heal(disk);
        assert_int_equal(esker_iter_first(it), ESKER_OK);
        esker_iter_destroy(it);
        segments_expect(db, 100);
        assert_int_equal(esker_close(db), ESKER_OK);
    }
    sim_disk_destroy(disk);
}

/* ---- Keys that begin alike ------------------------------------------------------- */

enum { ALIKE_KEYS = 60, ALIKE_LEN = EDIT_KEY_BYTES_MAX + 40 };

/* They differ behind what bounds keep of them. */
static esker_slice
alike_key(uint32_t number, char key[ALIKE_LEN + 1])
{
    memset(key, 'a', ALIKE_LEN);
    snprintf(key + ALIKE_LEN - 5, 6, "%05u", number);
    return esker_bytes(key, ALIKE_LEN);
}

/* Every second key, some of them twice so that a merge writes them. Returns where they end; history from
 * there on is not kept. */
static esker_lsn
alike_fill(esker_db *db)
{
    char key[ALIKE_LEN + 1];
    uint8_t value[SEGMENTS_VALUE_BYTES] = {0};
    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < ALIKE_KEYS; i += 2 + 2 * round) {
            esker_slice slice = alike_key(i, key);
            assert_int_equal(esker_put(db, slice, esker_bytes(value, sizeof value), NULL), ESKER_OK);
        }
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    esker_lsn end = esker_visible_lsn(db);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(esker_put(db, esker_str("other"), esker_str("value"), NULL), ESKER_OK);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    /* pairs: CURRENT — one thread */
    const struct level_run *run = load_acquire(&db->current)->levels[ESKER_LEVELS_MAX - 1];
    assert_true(run->count > 5 && run->by_next);
    return end;
}

static void
alike_expect_position(esker_iter *it, esker_status status, uint32_t number)
{
    char key[ALIKE_LEN + 1];
    assert_int_equal(status, ESKER_OK);
    esker_slice found = esker_iter_key(it);
    assert_int_equal(found.size, ALIKE_LEN);
    assert_memory_equal(found.data, alike_key(number, key).data, ALIKE_LEN);
}

static void
segments__meet_where_keys_begin_alike(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(8);
    struct io *io = NULL;
    esker_db *db = NULL;
    esker_iter *it = NULL;
    char keys[ALIKE_KEYS][ALIKE_LEN + 1];
    esker_slice slices[ALIKE_KEYS];
    esker_value values[ALIKE_KEYS];
    esker_status statuses[ALIKE_KEYS];
    esker_batch *batch = NULL;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    segments_open(io, &db);
    esker_lsn end = alike_fill(db);
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    for (uint32_t i = 0; i < ALIKE_KEYS; i++) {
        size_t size = 0;
        bool last = i + 1 == ALIKE_KEYS; /* behind it is "other" */
        slices[i] = alike_key(i, keys[i]);
        esker_status status = esker_get_copy(db, slices[i], NULL, NULL, 0, &size);
        assert_int_equal(status, i % 2 == 0 ? ESKER_TRUNCATED : ESKER_NOT_FOUND);
        assert_int_equal(esker_iter_seek(it, slices[i]), ESKER_OK);
        alike_expect_position(it, last ? esker_iter_prev(it) : ESKER_OK, last ? i - 1 : i + i % 2);
        alike_expect_position(it, esker_iter_seek_for_prev(it, slices[i]), i - i % 2);
        assert_int_equal(esker_batch_create(&batch), ESKER_OK);
        assert_int_equal(esker_batch_require(batch, slices[i], end), ESKER_OK);
        assert_int_equal(esker_batch_put(batch, esker_str("other"), esker_str("value")), ESKER_OK);
        status = esker_write(db, batch, NULL, NULL);
        assert_int_equal(status,
                         i % 2 == 0 ? ESKER_OK : ESKER_CONFLICT); /* who finds no version does not know */
        esker_batch_destroy(batch);
    }
    esker_iter_destroy(it);
    assert_int_equal(esker_multi_get(db, ALIKE_KEYS, slices, NULL, values, statuses), ESKER_OK);
    for (uint32_t i = 0; i < ALIKE_KEYS; i++) {
        assert_int_equal(statuses[i], i % 2 == 0 ? ESKER_OK : ESKER_NOT_FOUND);
        if (i % 2 == 0) {
            esker_value_release(&values[i]);
        }
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* ---- Their order ------------------------------------------------------------------ */

static void
alike_put(esker_db *db, esker_slice key, size_t value_bytes)
{
    static const uint8_t value[SEGMENTS_VALUE_BYTES] = {0};
    assert_int_equal(esker_put(db, key, esker_bytes(value, value_bytes), NULL), ESKER_OK);
}

/* So many keys, each behind the one before, and each is found. */
static void
alike_expect_order(esker_db *db, uint32_t count)
{
    esker_iter *it = NULL;
    struct buf last;
    buf_init(&last, &mem_default);
    uint32_t seen = 0;
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    for (esker_status status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        size_t size;
        esker_slice key = esker_iter_key(it);
        assert_true(bytes_compare(buf_bytes(&last), bytes_make(key.data, key.size)) < 0);
        assert_int_equal(buf_assign(&last, bytes_make(key.data, key.size)), ESKER_OK);
        assert_int_equal(esker_get_copy(db, key, NULL, NULL, 0, &size), ESKER_TRUNCATED);
        seen++;
    }
    assert_int_equal(seen, count);
    esker_iter_destroy(it);
    buf_fini(&last);
}

static esker_db *
alike_reopen(esker_db *db, struct sim_disk *disk)
{
    if (db != NULL) {
        assert_int_equal(esker_close(db), ESKER_OK);
    }
    segments_open(segments_sim(disk), &db);
    return db;
}

/* What stood before them in the manifest's list is dropped; then one of them is written anew. */
static void
segments__that_begin_alike_stay_in_order(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(9);
    esker_db *db = alike_reopen(NULL, disk);
    alike_put(db, esker_str("A"), 10);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    (void)alike_fill(db);
    assert_int_equal(esker_delete(db, esker_str("other"), NULL), ESKER_OK); /* the last one of the list */
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    alike_put(db, esker_str("A"), 10);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    alike_expect_order(db, ALIKE_KEYS / 2 + 1);
    db = alike_reopen(db, disk);
    alike_expect_order(db, ALIKE_KEYS / 2 + 1);
    /* pairs: CURRENT — one thread */
    const struct level_run *run = load_acquire(&db->current)->levels[ESKER_LEVELS_MAX - 1];
    char name[40];
    segment_file_name(segment_meta(run->segments[5])->id, name);
    assert_true(run->count > 10);
    assert_int_equal(esker_close(db), ESKER_OK);
    struct bytes content = {0};
    assert_true(sim_disk_get(disk, name, &content));
    sim_disk_flip(disk, name, content.len * 8 - 1); /* its end is rewritten without a loss */
    assert_int_equal(db_repair_on(segments_sim(disk), NULL, NULL, NULL), ESKER_OK);
    db = alike_reopen(NULL, disk);
    alike_expect_order(db, ALIKE_KEYS / 2 + 1);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

/* A segment's last key is as long as a bound, and the next one's, cut, begins with it. What is written to the
 * first alone makes it two; the second of them begins with that key, too. */
static void
segments__written_anew_stay_before_what_they_meet(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(10);
    esker_db *db = alike_reopen(NULL, disk);
    char key[ALIKE_LEN + 1];
    for (uint32_t round = 0; round < 2; round++) {
        (void)alike_key(0, key);
        alike_put(db, esker_bytes(key, EDIT_KEY_BYTES_MAX - 1), 10);
        alike_put(db, esker_bytes(key, EDIT_KEY_BYTES_MAX), SEGMENTS_VALUE_BYTES);
        for (uint32_t i = 0; i < 4; i++) {
            alike_put(db, alike_key(i, key), SEGMENTS_VALUE_BYTES);
        }
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    alike_expect_order(db, 6);
    alike_put(db, esker_bytes(key, EDIT_KEY_BYTES_MAX - 1), SEGMENTS_VALUE_BYTES);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    alike_expect_order(db, 6);
    db = alike_reopen(db, disk);
    alike_expect_order(db, 6);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

static void
open__of_ten_thousand_segments(void **state)
{
    (void)state;
    if (getenv("ESKER_LONG_TESTS") == NULL) {
        skip();
    }
    char path[] = "/tmp/esker-segments-XXXXXX";

    enum { ROWS = 10000 };

    esker_db *db = NULL;
    assert_non_null(mkdtemp(path));
    for (int life = 0; life < 3; life++) {
        struct io *io = NULL;
        assert_int_equal(io_open_dir(path, true, ESKER_IO_AUTO, &mem_default, &io), ESKER_OK);
        uint64_t began = io_monotonic_ns(io);
        segments_open(io, &db);
        uint64_t took = io_monotonic_ns(db->io) - began;
        if (life == 0) {
            segments_put(db, 0, ROWS);
            assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
        }
        print_message("%llu segments, opened in %.1f ms\n", (unsigned long long)segments_count(db),
                      (double)took / 1e6);
        assert_int_equal(esker_close(db), ESKER_OK);
    }
    assert_int_equal(esker_destroy(path), ESKER_OK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open__touches_no_segment),
        cmocka_unit_test(get__has_other_segments_loaded_ahead),
        cmocka_unit_test(get__makes_do_with_the_descriptors_it_has),
        cmocka_unit_test(iterator__tries_again_without_descriptors),
        cmocka_unit_test(segments__meet_where_keys_begin_alike),
        cmocka_unit_test(segments__that_begin_alike_stay_in_order),
        cmocka_unit_test(segments__written_anew_stay_before_what_they_meet),
        cmocka_unit_test(open__of_ten_thousand_segments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
