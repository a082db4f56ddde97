/* SPDX-License-Identifier: MIT */
/*
 * Goal: a full disk is told as NO_SPACE with nothing written and nothing lost;
 * once there is room again, writes, flushes and merges work on the same handle.
 * Method: simulated disks of many sizes, filled by tiny windows until writes are
 * refused, and then made larger; with and without threads. What was acknowledged
 * is kept in a list and looked up after every phase, and in the next life.
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

#include "base/hash.h"
#include "base/rng.h"
#include "db/db.h"
#include "db/db_files.h"
#include "io/io_sim.h"
#include "sync/epoch.h"

enum { SPACE_VALUE_BYTES = 800, SPACE_PUTS_MAX = 3000, SPACE_RETRIES = 3000, SPACE_RETRY_US = 10000 };

static const struct db_tuning space_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384};

static const struct db_tuning reserve_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384, .reserve = true};

/* The first call after the disk has room again. */
enum space_first { SPACE_PUT, SPACE_FLUSH, SPACE_COMPACT, SPACE_FIRSTS };

struct space_case {
    uint64_t capacity;
    uint32_t flush_every; /* puts; 0: full windows only */
    bool manual;
    enum space_first first;
};

struct space_fixture {
    const struct space_case *now;
    const struct db_tuning *tuning; /* NULL: without a reserve */
    struct sim_disk *disk;
    esker_db *db;
    uint32_t tried;
    bool present[SPACE_PUTS_MAX + SPACE_RETRIES];
};

static void
space_open(struct space_fixture *f)
{
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = ESKER_DURABLE_PROCESS;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(
        db_open_on(io, &options, f->tuning != NULL ? f->tuning : &space_tuning, f->now->manual, &f->db),
        ESKER_OK);
}

/* Keys in no order, so that all segments overlap. */
static void
space_key(uint32_t number, char key[20])
{
    snprintf(key, 20, "%016llx", (unsigned long long)hash_mix(number, 1));
}

/* Values that do not compress. */
static void
space_value(uint32_t number, uint8_t value[SPACE_VALUE_BYTES])
{
    for (size_t i = 0; i < SPACE_VALUE_BYTES; i += sizeof(uint64_t)) {
        uint64_t word = hash_mix(number, i + 2);
        memcpy(value + i, &word, sizeof word);
    }
}

/* Never the same key again: what was refused must stay absent. */
static esker_status
space_put(struct space_fixture *f)
{
    char key[20];
    uint8_t value[SPACE_VALUE_BYTES];
    assert_true(f->tried < COUNTOF(f->present));
    space_key(f->tried, key);
    space_value(f->tried, value);
    esker_status status = esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL);
    assert_true(status == ESKER_OK || status == ESKER_NO_SPACE);
    f->present[f->tried++] = status == ESKER_OK;
    return status;
}

static void
space_check(struct space_fixture *f)
{
    for (uint32_t i = 0; i < f->tried; i++) {
        char key[20];
        uint8_t expected[SPACE_VALUE_BYTES];
        uint8_t found[SPACE_VALUE_BYTES];
        size_t size = 0;
        space_key(i, key);
        space_value(i, expected);
        esker_status status = esker_get_copy(f->db, esker_str(key), NULL, found, sizeof found, &size);
        assert_int_equal(status, f->present[i] ? ESKER_OK : ESKER_NOT_FOUND);
        assert_true(!f->present[i] || (size == sizeof found && memcmp(found, expected, size) == 0));
    }
}

static void
space_run_jobs(const struct space_fixture *f, int most)
{
    while (f->now->manual && most-- > 0 && workers_run_one()) {
        epoch_drain(); /* without threads nobody else lets go of old versions */
    }
}

/* Until writes are refused; every call on the full disk ends, and says why. */
static void
space_fill(struct space_fixture *f)
{
    bool full = false;
    while (!full && f->tried < SPACE_PUTS_MAX) {
        full = space_put(f) != ESKER_OK;
        if (f->now->flush_every != 0 && f->tried % f->now->flush_every == 0) {
            esker_status status = esker_flush(f->db);
            assert_true(status == ESKER_OK || status == ESKER_NO_SPACE);
        }
        space_run_jobs(f, 3);
    }
    assert_true(full);
    for (int i = 0; i < 3; i++) {
        (void)space_put(f);
        esker_status status = esker_flush(f->db);
        assert_true(status == ESKER_OK || status == ESKER_NO_SPACE);
        status = esker_compact(f->db, NULL, NULL);
        assert_true(status == ESKER_OK || status == ESKER_NO_SPACE);
        space_run_jobs(f, 20);
    }
}

/* With threads a write is refused until the background has tried again. */
static void
space_put_again(struct space_fixture *f)
{
    int tries = 1;
    while (space_put(f) != ESKER_OK && !f->now->manual && tries < SPACE_RETRIES) {
        usleep(SPACE_RETRY_US);
        tries++;
    }
    assert_true(f->present[f->tried - 1]);
}

static void
space_run_case(const struct space_case *now)
{
    static struct space_fixture fixture;
    struct space_fixture *f = &fixture;
    *f = (struct space_fixture){.now = now, .disk = sim_disk_create(now->capacity)};
    space_open(f);
    sim_disk_set_capacity(f->disk, now->capacity);
    space_fill(f);
    space_check(f);
    sim_disk_set_capacity(f->disk, now->capacity * 4); /* a merge asks for as much as it reads */
    for (int i = 0; i < SPACE_FIRSTS; i++) {
        switch ((enum space_first)((now->first + (unsigned)i) % SPACE_FIRSTS)) {
        case SPACE_PUT:
            space_put_again(f);
            break;
        case SPACE_FLUSH:
            assert_int_equal(esker_flush(f->db), ESKER_OK);
            break;
        default:
            assert_int_equal(esker_compact(f->db, NULL, NULL), ESKER_OK);
            break;
        }
    }
    space_check(f);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    space_open(f);
    space_check(f);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    sim_disk_destroy(f->disk);
}

static void
space_sweep(bool manual, uint64_t step)
{
    static const uint32_t flush_every[] = {0, 1, 5};
    for (uint64_t capacity = 96 << 10; capacity <= 512 << 10; capacity += step) {
        for (uint32_t i = 0; i < COUNTOF(flush_every) * SPACE_FIRSTS; i++) {
            struct space_case now = {.capacity = capacity,
                                     .flush_every = flush_every[i / SPACE_FIRSTS],
                                     .manual = manual,
                                     .first = (enum space_first)(i % SPACE_FIRSTS)};
            space_run_case(&now);
        }
    }
}

static void
space__that_returns_is_used_without_threads(void **state)
{
    (void)state;
    space_sweep(true, 13 << 10);
}

static void
space__that_returns_is_used_with_threads(void **state)
{
    (void)state;
    space_sweep(false, 52 << 10);
}

/* ---- Recovered rows on a full disk ---------------------------------------------- */

enum { RECOVERED_KILLS = 3, RECOVERED_ROOM = 14 << 10 };

/* What needs the flush of recovered rows: nothing else is made durable before. */
enum recovered_first { RECOVERED_PUT, RECOVERED_DELETE, RECOVERED_SYNC, RECOVERED_CLOSE, RECOVERED_FIRSTS };

/* Killed so often, with a row each time, that rows of as many logs are recovered; then there is room
 * for the log of an open and the reserve is the only other room. */
static void
space_recover(struct space_fixture *f, const struct space_case *now, int kills)
{
    *f = (struct space_fixture){.now = now, .disk = sim_disk_create(3), .tuning = &reserve_tuning};
    sim_disk_set_capacity(f->disk, now->capacity);
    space_open(f);
    for (int i = 0; i < kills; i++) {
        for (int k = 0; k < 3; k++) {
            assert_int_equal(space_put(f), ESKER_OK);
        }
        space_run_jobs(f, i == 0 ? 100 : 0); /* one makes the reserve */
        sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
        (void)!esker_close(f->db);
        sim_disk_set_capacity(f->disk, i + 1 < kills ? 0 : sim_disk_used_bytes(f->disk) + RECOVERED_ROOM);
        assert_true(sim_disk_exists(f->disk, DB_RESERVE_NAME));
        space_open(f);
    }
    sim_disk_set_capacity(f->disk,
                          sim_disk_used_bytes(f->disk)); /* no room for the flush but the reserve's */
}

static void
space_need_flush(struct space_fixture *f, enum recovered_first first)
{
    esker_write_options write;
    esker_write_options_init(&write);
    write.durability = ESKER_DURABLE_SYNC;
    char key[20];
    uint8_t value[SPACE_VALUE_BYTES];
    space_key(f->tried, key);
    space_value(f->tried, value);
    switch (first) {
    case RECOVERED_PUT:
        assert_int_equal(esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), &write),
                         ESKER_OK);
        f->present[f->tried++] = true;
        break;
    case RECOVERED_DELETE:
        space_key(0, key);
        assert_int_equal(esker_delete(f->db, esker_str(key), &write), ESKER_OK);
        f->present[0] = false;
        break;
    case RECOVERED_SYNC:
        assert_int_equal(esker_sync(f->db), ESKER_OK);
        break;
    case RECOVERED_CLOSE:
    case RECOVERED_FIRSTS:
        break;
    }
}

/* Power is lost behind it: what needed the flush has it. */
static void
space__recovered_rows_have_the_reserve(void **state)
{
    (void)state;
    static struct space_fixture fixture;
    struct space_fixture *f = &fixture;
    const struct space_case now = {.capacity = 192 << 10, .manual = true};
    for (int first = 0; first < RECOVERED_FIRSTS; first++) {
        space_recover(f, &now, RECOVERED_KILLS);
        assert_true(load_relaxed(&f->db->recovered_end_lsn) != 0);
        space_need_flush(f, (enum recovered_first)first);
        if (first == RECOVERED_CLOSE) {
            assert_int_equal(esker_close(f->db), ESKER_OK);
            sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
        } else {
            sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
            (void)!esker_close(f->db);
        }
        sim_disk_set_capacity(f->disk, 0);
        space_open(f);
        space_check(f);
        assert_int_equal(esker_close(f->db), ESKER_OK);
        sim_disk_destroy(f->disk);
    }
}

/* Many logs are flushed before an open returns. */
static void
space__many_recovered_logs_have_the_reserve(void **state)
{
    (void)state;
    static struct space_fixture fixture;
    struct space_fixture *f = &fixture;
    const struct space_case now = {.capacity = 192 << 10, .manual = true};
    space_recover(f, &now, WINDOWS_RECOVERED_MAX + 1);
    assert_false(sim_disk_exists(f->disk, DB_RESERVE_NAME));
    space_check(f);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    sim_disk_destroy(f->disk);
}

/* ---- Deletes on a full disk --------------------------------------------------- */

static void
space_delete(struct space_fixture *f, uint32_t number)
{
    char key[20];
    space_key(number, key);
    esker_status status = esker_delete(f->db, esker_str(key), NULL);
    for (int tries = 0; !f->now->manual && status == ESKER_NO_SPACE && tries < SPACE_RETRIES; tries++) {
        usleep(SPACE_RETRY_US); /* a flush and a merge may be at it */
        status = esker_delete(f->db, esker_str(key), NULL);
    }
    assert_int_equal(status, ESKER_OK);
    f->present[number] = false;
}

/* Fills the disk, deletes all but every keep-th row, and writes again on the same handle. */
static void
space_run_deletes(const struct space_case *now, uint32_t keep)
{
    static struct space_fixture fixture;
    struct space_fixture *f = &fixture;
    *f =
        (struct space_fixture){.now = now, .disk = sim_disk_create(now->capacity), .tuning = &reserve_tuning};
    space_open(f);
    sim_disk_set_capacity(f->disk, now->capacity);
    space_fill(f);
    uint32_t filled = f->tried;
    assert_true(sim_disk_exists(f->disk, DB_RESERVE_NAME));
    for (uint32_t i = 0; i < filled; i++) {
        if (i % keep != 0) {
            space_delete(f, i);
        }
        space_run_jobs(f, 3);
    }
    space_check(f);
    if (now->first == SPACE_COMPACT) {
        (void)!esker_compact(f->db, NULL, NULL);
    }
    space_run_jobs(f, 1000);
    for (int i = 0; i < 20; i++) {
        for (int tries = 0; now->manual && tries < 50 && space_put(f) != ESKER_OK; tries++) {
            space_run_jobs(f, 1000);
        }
        space_put_again(f);
    }
    space_check(f);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    sim_disk_set_capacity(f->disk, 0);
    struct io *io = NULL;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_verify_on(io, NULL, NULL), ESKER_OK);
    space_open(f);
    space_check(f);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    sim_disk_destroy(f->disk);
}

static void
space_delete_sweep(bool manual, uint64_t step)
{
    for (uint64_t capacity = 192 << 10; capacity <= 768 << 10; capacity += step) {
        for (uint32_t i = 0; i < SPACE_FIRSTS; i++) {
            struct space_case now = {.capacity = capacity, .manual = manual, .first = (enum space_first)i};
            space_run_deletes(&now, i == 0 || !manual ? UINT32_MAX : 25);
        }
    }
}

static void
space__deletes_make_room_without_threads(void **state)
{
    (void)state;
    space_delete_sweep(true, 37 << 10);
}

static void
space__deletes_make_room_with_threads(void **state)
{
    (void)state;
    space_delete_sweep(false, 288 << 10);
}

/* ---- Many threads -------------------------------------------------------------- */

enum { RACE_THREADS = 3, RACE_KEYS = 120, RACE_STEPS = 600 };

struct race_writer {
    pthread_t thread;
    esker_db *db;
    uint32_t number;
    uint64_t seed;
    uint32_t versions[RACE_KEYS]; /* 0: not there */
    uint32_t refused;
};

static void
race_key(const struct race_writer *writer, uint32_t key, char out[20])
{
    space_key(writer->number * RACE_KEYS + key, out);
}

static esker_status
race_put(struct race_writer *writer, uint32_t key, uint32_t version)
{
    char name[20];
    uint8_t value[SPACE_VALUE_BYTES];
    race_key(writer, key, name);
    space_value(version * RACE_THREADS + writer->number, value);
    return esker_put(writer->db, esker_str(name), esker_bytes(value, sizeof value), NULL);
}

static esker_status
race_delete(struct race_writer *writer, uint32_t key)
{
    char name[20];
    race_key(writer, key, name);
    return esker_delete(writer->db, esker_str(name), NULL);
}

/* Puts and deletes in spells, flushes and merges now and then: each call ends, with OK or NO_SPACE. */
static void *
race_run(void *arg)
{
    struct race_writer *writer = arg;
    struct rng rng = {writer->seed};
    uint32_t deletes_of_8 = 1;
    for (uint32_t step = 1; step <= RACE_STEPS; step++) {
        uint32_t key = (uint32_t)rng_below(&rng, RACE_KEYS);
        esker_status status = ESKER_OK;
        if (step % 50 == 0) {
            deletes_of_8 = (uint32_t)rng_below(&rng, 9);
            status = rng_below(&rng, 8) == 0   ? esker_compact(writer->db, NULL, NULL)
                     : rng_below(&rng, 4) == 0 ? esker_flush(writer->db)
                                               : ESKER_OK;
        } else if (rng_below(&rng, 8) < deletes_of_8) {
            status = race_delete(writer, key);
            writer->versions[key] = status == ESKER_OK ? 0 : writer->versions[key];
        } else {
            status = race_put(writer, key, step);
            writer->versions[key] = status == ESKER_OK ? step : writer->versions[key];
        }
        ASSERT(status == ESKER_OK || status == ESKER_NO_SPACE);
        writer->refused += status == ESKER_NO_SPACE;
    }
    return NULL;
}

static void
race_check(struct race_writer *writers, esker_db *db)
{
    for (uint32_t i = 0; i < RACE_THREADS * RACE_KEYS; i++) {
        struct race_writer *writer = &writers[i / RACE_KEYS];
        uint32_t version = writer->versions[i % RACE_KEYS];
        char name[20];
        uint8_t expected[SPACE_VALUE_BYTES];
        uint8_t found[SPACE_VALUE_BYTES];
        size_t size = 0;
        race_key(writer, i % RACE_KEYS, name);
        space_value(version * RACE_THREADS + writer->number, expected);
        esker_status status = esker_get_copy(db, esker_str(name), NULL, found, sizeof found, &size);
        assert_int_equal(status, version != 0 ? ESKER_OK : ESKER_NOT_FOUND);
        assert_true(version == 0 || (size == sizeof found && memcmp(found, expected, size) == 0));
    }
}

/* Deletes make room sooner or later: first all rows, then a put. */
static void
race_settle(struct race_writer *writers)
{
    for (uint32_t i = 0; i <= RACE_THREADS * RACE_KEYS; i++) {
        struct race_writer *writer = &writers[i % RACE_THREADS];
        uint32_t key = i / RACE_THREADS % RACE_KEYS;
        bool put = i == RACE_THREADS * RACE_KEYS;
        esker_status status = ESKER_NO_SPACE;
        for (int tries = 0; status == ESKER_NO_SPACE && tries < SPACE_RETRIES; tries++) {
            if (tries > 0) {
                usleep(SPACE_RETRY_US);
            }
            status = put ? race_put(writer, key, 1) : race_delete(writer, key);
        }
        assert_int_equal(status, ESKER_OK);
        writer->versions[key] = put;
    }
}

static uint32_t
race_once(uint64_t seed)
{
    static struct space_fixture fixture;
    struct space_fixture *f = &fixture;
    struct rng rng = {seed};
    struct space_case now = {.capacity = (160 << 10) + rng_below(&rng, 320 << 10)};
    struct race_writer writers[RACE_THREADS] = {0};
    uint32_t refused = 0;
    *f = (struct space_fixture){.now = &now, .disk = sim_disk_create(seed), .tuning = &reserve_tuning};
    space_open(f);
    sim_disk_set_capacity(f->disk, now.capacity);
    for (uint32_t i = 0; i < RACE_THREADS; i++) {
        writers[i].db = f->db;
        writers[i].number = i;
        writers[i].seed = rng_next(&rng);
        assert_int_equal(pthread_create(&writers[i].thread, NULL, race_run, &writers[i]), 0);
    }
    for (uint32_t i = 0; i < RACE_THREADS; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
        refused += writers[i].refused;
    }
    race_check(writers, f->db);
    race_settle(writers);
    race_check(writers, f->db);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    struct io *io = NULL;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_verify_on(io, NULL, NULL), ESKER_OK);
    space_open(f);
    race_check(writers, f->db);
    assert_int_equal(esker_close(f->db), ESKER_OK);
    sim_disk_destroy(f->disk);
    return refused;
}

static void
space__many_threads_never_stick(void **state)
{
    (void)state;
    const char *from = getenv("SPACE_SEED");
    const char *rounds = getenv("SPACE_ROUNDS");
    uint64_t seed = from != NULL ? strtoull(from, NULL, 10) : 1;
    uint64_t end = seed + (rounds != NULL ? strtoull(rounds, NULL, 10) : 4);
    uint32_t refused = 0;
    for (; seed < end; seed++) {
        refused += race_once(seed);
    }
    assert_true(refused > 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space__that_returns_is_used_without_threads),
        cmocka_unit_test(space__that_returns_is_used_with_threads),
        cmocka_unit_test(space__recovered_rows_have_the_reserve),
        cmocka_unit_test(space__many_recovered_logs_have_the_reserve),
        cmocka_unit_test(space__deletes_make_room_without_threads),
        cmocka_unit_test(space__deletes_make_room_with_threads),
        cmocka_unit_test(space__many_threads_never_stick),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
