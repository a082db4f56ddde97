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

#include <stdio.h>
#include <unistd.h>

#include "base/hash.h"
#include "db/db.h"
#include "io/io_sim.h"

enum { SPACE_VALUE_BYTES = 800, SPACE_PUTS_MAX = 3000, SPACE_RETRIES = 3000, SPACE_RETRY_US = 10000 };

static const struct db_tuning space_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384};

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
    assert_int_equal(db_open_on(io, &options, &space_tuning, f->now->manual, &f->db), ESKER_OK);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(space__that_returns_is_used_without_threads),
        cmocka_unit_test(space__that_returns_is_used_with_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
