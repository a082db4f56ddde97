/* SPDX-License-Identifier: MIT */
/*
 * The naive versioned map that a database is held against, its keys and values.
 * prop_db_model.c includes it once.
 */
#ifndef ESKER_PROPTEST_DB_MAP_H
#define ESKER_PROPTEST_DB_MAP_H

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "db/db.h"
#include "key_shapes.h"

enum { KEYS_WANTED = 160, HUGE_KEYS = 6, VALUE_MAX = 40000, COMMITS_MAX = 20000, VERSIONS_MAX = 120000 };

static uint64_t run_seed;
static const char *run_where = "";
static uint64_t run_step;

static void
wrong(const char *what)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    fprintf(stderr, "seed %llu on %s, step %llu: %s (last error: %s %s %s)\n", (unsigned long long)run_seed,
            run_where, (unsigned long long)run_step, what, esker_status_name(error.status), error.file,
            error.message);
    abort();
}

static void
check(bool holds, const char *what)
{
    if (!holds) {
        wrong(what);
    }
}

/* ---- The map ------------------------------------------------------------------- */

struct version_of {
    uint32_t commit;
    uint32_t size;
    uint32_t older; /* index, 0 = none */
    bool is_delete; /* or expired from the start */
    uint64_t expires_ms;
};

static struct {
    struct key keys[KEYS_WANTED];
    uint32_t key_count;
    uint32_t newest[KEYS_WANTED];
    struct version_of versions[VERSIONS_MAX];
    uint32_t version_count;
    esker_lsn end[COMMITS_MAX];   /* of commit c, or somewhat behind it; 0: before the first one */
    esker_lsn begin[COMMITS_MAX]; /* its end is known to lie behind this: put and delete do not tell */
    uint32_t commits;
} map;

static int
key_compare(const void *a, const void *b)
{
    const struct key *left = a;
    const struct key *right = b;
    return bytes_compare(bytes_make(left->bytes, left->len), bytes_make(right->bytes, right->len));
}

/* Two or three shapes in one run. */
static void
map_make_keys(struct rng *rng)
{
    enum shape shapes[3] = {(enum shape)(run_seed % SHAPES), (enum shape)rng_below(rng, SHAPE_LONGEST),
                            (enum shape)rng_below(rng, SHAPE_LONGEST)};

    uint32_t huge = 0;
    memset(&map, 0, sizeof map);
    map.version_count = 1;
    for (uint32_t i = 0; i < KEYS_WANTED; i++) {
        uint64_t which = rng_below(rng, 5);
        enum shape shape = shapes[MIN(which, (uint64_t)2)];
        huge += shape == SHAPE_LONGEST ? 1 : 0;
        shape_make(rng, shape == SHAPE_LONGEST && huge > HUGE_KEYS ? shapes[1] : shape, &map.keys[i]);
    }
    qsort(map.keys, KEYS_WANTED, sizeof map.keys[0], key_compare);
    for (uint32_t i = 0; i < KEYS_WANTED; i++) {
        if (i == 0 || key_compare(&map.keys[map.key_count - 1], &map.keys[i]) != 0) {
            map.keys[map.key_count++] = map.keys[i];
        }
    }
}

static void
map_add(uint32_t key, bool is_delete, uint32_t size, uint64_t expires_ms)
{
    check(map.version_count < VERSIONS_MAX, "the test's own table is full");
    map.versions[map.version_count] = (struct version_of){.commit = map.commits,
                                                          .size = size,
                                                          .older = map.newest[key],
                                                          .is_delete = is_delete || expires_ms == 1,
                                                          .expires_ms = expires_ms};
    map.newest[key] = map.version_count++;
}

/* What a reader behind commit `at` finds; NULL = nothing. */
static const struct version_of *
map_find(uint32_t key, uint32_t at)
{
    uint32_t index = map.newest[key];
    while (index != 0 && map.versions[index].commit > at) {
        index = map.versions[index].older;
    }
    return index != 0 && !map.versions[index].is_delete ? &map.versions[index] : NULL;
}

static bool
map_changed_after(uint32_t key, uint32_t at)
{
    return map.newest[key] != 0 && map.versions[map.newest[key]].commit > at;
}

/* The newest commit that a reader at lsn sees whole. */
static uint32_t
map_commit_at(esker_lsn lsn)
{
    uint32_t commit = map.commits;
    while (commit > 0 && map.end[commit] > lsn) {
        commit--;
    }
    return commit;
}

/* May a reader at lsn see one commit more than map_commit_at says? */
static bool
map_is_unsure_at(esker_lsn lsn)
{
    uint32_t next = map_commit_at(lsn) + 1;
    return next <= map.commits && lsn > map.begin[next] && lsn < map.end[next];
}

static esker_slice
key_slice(uint32_t key)
{
    return esker_bytes(map.keys[key].bytes, map.keys[key].len);
}

static uint64_t
value_seed(uint32_t key, uint32_t commit)
{
    return (uint64_t)key << 32 | commit;
}

static void
value_make(uint32_t key, uint32_t commit, uint32_t size, uint8_t *out)
{
    struct rng rng = {value_seed(key, commit)};
    uint64_t word = rng_next(&rng);
    for (uint32_t i = 0; i < size; i++) {
        out[i] = (uint8_t)(word >> (i % 8 * 8)) ^ (uint8_t)(i / 64);
    }
}

static void
value_check(uint32_t key, const struct version_of *version, const void *data, size_t size)
{
    static uint8_t wanted[VALUE_MAX];
    check(size == version->size, "a value of another size");
    value_make(key, version->commit, version->size, wanted);
    check(size == 0 || memcmp(data, wanted, size) == 0, "another value");
}

#endif
