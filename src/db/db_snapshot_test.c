/* SPDX-License-Identifier: MIT */
/*
 * Goal: the registry of snapshots is in LSN order on every height, whatever
 * comes and goes at whatever place; below the floor of history exactly the
 * LSNs of live snapshots can be had again; 100,000 are as good as one.
 * Method: seeded creations, creations at LSNs of live ones and beside them, and
 * releases, against a plain count per LSN; the lists are walked now and then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"

enum { COMMITS = 2000, MANY = 100000, STEPS = 20000 };

struct registry {
    char path[40];
    esker_db *db;
    esker_lsn lsns[COMMITS]; /* the end of each commit */
    uint32_t live[COMMITS];  /* snapshots there */
    esker_snapshot *snapshots[MANY];
    uint32_t at[MANY]; /* their commits */
    uint32_t count;
};

static int
registry_setup(void **state)
{
    struct registry *registry = calloc(1, sizeof *registry);
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    snprintf(registry->path, sizeof registry->path, "/tmp/esker-snapshot-XXXXXX");
    if (mkdtemp(registry->path) == NULL || esker_open(registry->path, &options, &registry->db) != ESKER_OK) {
        return -1;
    }
    *state = registry;
    return 0;
}

static int
registry_teardown(void **state)
{
    struct registry *registry = *state;
    int failed = esker_close(registry->db) != ESKER_OK || esker_destroy(registry->path) != ESKER_OK;
    free(registry);
    return failed;
}

/* Every height in order, linked both ways, and on height 0 as many as there are. */
static void
registry_check(struct registry *registry)
{
    const struct snapshot_list *list = &registry->db->snapshots;
    for (uint32_t height = 0; height < SNAPSHOT_HEIGHT_MAX; height++) {
        const struct esker_snapshot *older = NULL;
        uint32_t count = 0;
        for (const struct esker_snapshot *at = list->oldest[height]; at != NULL;
             at = at->links[height].newer) {
            assert_true(at->height > height && at->links[height].older == older);
            assert_true(older == NULL || older->lsn <= at->lsn);
            older = at;
            count++;
        }
        assert_ptr_equal(list->newest[height], older);
        assert_true(height > 0 || (count == registry->count && count == list->count));
    }
}

static void
registry_commit(struct registry *registry, uint32_t number)
{
    char value[16];
    snprintf(value, sizeof value, "%u", number);
    assert_int_equal(esker_put(registry->db, esker_str("key"), esker_str(value), NULL), ESKER_OK);
    registry->lsns[number] = esker_visible_lsn(registry->db);
}

static void
registry_keep(struct registry *registry, esker_snapshot *snapshot, uint32_t commit)
{
    assert_true(esker_snapshot_lsn(snapshot) == registry->lsns[commit]);
    registry->snapshots[registry->count] = snapshot;
    registry->at[registry->count++] = commit;
    registry->live[commit]++;
}

static void
registry_release(struct registry *registry, uint32_t number)
{
    registry->live[registry->at[number]]--;
    esker_snapshot_release(registry->snapshots[number]);
    registry->count--;
    registry->snapshots[number] = registry->snapshots[registry->count];
    registry->at[number] = registry->at[registry->count];
}

static void
registry_expect_value(struct registry *registry, uint32_t number)
{
    esker_read_options read;
    char expected[16];
    char value[16];
    size_t size = 0;
    esker_read_options_init(&read);
    read.snapshot = registry->snapshots[number];
    snprintf(expected, sizeof expected, "%u", registry->at[number]);
    assert_int_equal(esker_get_copy(registry->db, esker_str("key"), &read, value, sizeof value, &size),
                     ESKER_OK);
    assert_int_equal(size, strlen(expected));
    assert_memory_equal(value, expected, size);
}

/* All that was written goes below the floor; only what snapshots see is kept. */
static void
registry_forget(struct registry *registry)
{
    assert_int_equal(esker_flush(registry->db), ESKER_OK);
    assert_int_equal(esker_compact(registry->db, NULL, NULL), ESKER_OK);
}

static void
snapshot_at__finds_live_ones_below_the_floor(void **state)
{
    struct registry *registry = *state;
    struct rng rng = {11};
    for (uint32_t i = 0; i < COMMITS; i++) {
        esker_snapshot *snapshot = NULL;
        registry_commit(registry, i);
        if (rng_below(&rng, 3) == 0) {
            assert_int_equal(esker_snapshot_create(registry->db, &snapshot), ESKER_OK);
            registry_keep(registry, snapshot, i);
        }
    }
    registry_forget(registry);
    for (uint32_t step = 0; step < STEPS; step++) {
        uint32_t commit = (uint32_t)rng_below(&rng, COMMITS - 1); /* the last one may be at the floor */
        esker_snapshot *snapshot = NULL;
        bool beside = rng_below(&rng, 8) == 0;
        esker_lsn lsn = registry->lsns[commit] + (beside ? rng_below(&rng, 2) * 2 - 1 : 0);
        if (rng_below(&rng, 2) == 0) {
            bool found = registry->live[commit] > 0 && !beside;
            assert_int_equal(esker_snapshot_create_at(registry->db, lsn, &snapshot),
                             found ? ESKER_OK : ESKER_NOT_FOUND);
            if (found) {
                registry_keep(registry, snapshot, commit);
            }
        } else if (registry->count > 1) {
            uint32_t number = (uint32_t)rng_below(&rng, registry->count);
            registry_expect_value(registry, number);
            registry_release(registry, number);
        }
        if (step % 512 == 0) {
            registry_check(registry);
        }
    }
    while (registry->count > 0) {
        registry_release(registry, (uint32_t)rng_below(&rng, registry->count));
    }
    registry_check(registry);
}

/* Two of three are released, so that the shortcuts must not depend on the order of creation. */
static void
snapshot__any_number_in_any_order(void **state)
{
    struct registry *registry = *state;
    struct rng rng = {12};
    for (uint32_t i = 0; i < COMMITS; i++) {
        registry_commit(registry, i);
        for (uint32_t k = 0; k < MANY / COMMITS; k++) {
            esker_snapshot *snapshot = NULL;
            assert_int_equal(esker_snapshot_create(registry->db, &snapshot), ESKER_OK);
            registry_keep(registry, snapshot, i);
        }
    }
    registry_check(registry);
    registry_forget(registry);
    for (uint32_t step = 0; step < MANY; step++) { /* in the middle of all */
        esker_snapshot *snapshot = NULL;
        registry_release(registry, (uint32_t)rng_below(&rng, registry->count));
        uint32_t commit = registry->at[rng_below(&rng, registry->count)];
        assert_int_equal(esker_snapshot_create_at(registry->db, registry->lsns[commit], &snapshot), ESKER_OK);
        registry_keep(registry, snapshot, commit);
    }
    registry_check(registry);
    for (uint32_t i = 0; i < 100; i++) {
        registry_expect_value(registry, (uint32_t)rng_below(&rng, registry->count));
    }
    while (registry->count > 0) {
        registry_release(registry, registry->count % 3 == 0 ? 0 : registry->count - 1);
    }
    registry_check(registry);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(snapshot_at__finds_live_ones_below_the_floor, registry_setup,
                                        registry_teardown),
        cmocka_unit_test_setup_teardown(snapshot__any_number_in_any_order, registry_setup, registry_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
