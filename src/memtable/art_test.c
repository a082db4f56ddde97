/* SPDX-License-Identifier: MIT */
/*
 * Goal: the radix tree orders any set of keys like memcmp does, its cursor
 * finds every edge, and it never takes more than the proven bytes per key.
 * Method: nasty key sets against a sorted array, the arena no larger than the
 * bound (running out asserts), key sets made to spend as much as possible.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "memtable/memtable_testing.h"

struct fixture {
    struct testing_window window;
    struct vnodes vnodes;
    struct index_arena arena;
    struct art art;
    uint8_t *arena_bytes;
    struct bytes *keys; /* sorted after fixture_sort */
    uint32_t count;
};

static struct fixture *
fixture_make(uint32_t capacity, uint64_t window_bytes)
{
    struct fixture *f = aligned_alloc(64, align_up(sizeof *f, 64));
    assert_non_null(f);
    memset(f, 0, sizeof *f);
    f->window = testing_window_make(window_bytes);
    f->vnodes.array = calloc(capacity + 1, sizeof *f->vnodes.array);
    f->vnodes.data = f->window.data;
    f->vnodes.count_max = capacity;
    f->keys = calloc(capacity + 1, sizeof *f->keys);
    f->arena_bytes = calloc(1, art_bytes_max(capacity));
    assert_true(f->vnodes.array != NULL && f->keys != NULL && f->arena_bytes != NULL);
    index_arena_init(&f->arena, f->arena_bytes, art_bytes_max(capacity));
    art_init(&f->art, &f->vnodes, &f->arena);
    return f;
}

static void
fixture_free(struct fixture *f)
{
    free(f->window.data);
    free(f->vnodes.array);
    free(f->keys);
    free(f->arena_bytes);
    free(f);
}

/* The key must be new. */
static uint32_t
fixture_insert(struct fixture *f, struct bytes key)
{
    uint64_t offset = testing_window_add(&f->window, ENTRY_PUT, key, bytes_make(NULL, 0));
    uint32_t index = vnode_take(&f->vnodes, 1, 0);
    f->vnodes.array[index].entry = (uint32_t)(offset / LSN_BYTES);
    art_insert(&f->art, index, 0);
    f->keys[f->count++] = vnode_key(&f->vnodes, index);
    return index;
}

/* Spent bytes, the reserved start not counted. */
static uint64_t
fixture_spent(const struct fixture *f)
{
    return index_arena_used_bytes(&f->arena) - INDEX_ARENA_UNUSED_BYTES;
}

static int
key_order(const void *a, const void *b)
{
    return bytes_compare(*(const struct bytes *)a, *(const struct bytes *)b);
}

static struct bytes
cursor_key(const struct art_cursor *cursor)
{
    return vnode_key(cursor->art->vnodes, cursor->leaf);
}

static bool
same_place(struct bytes a, struct bytes b)
{
    return a.ptr == b.ptr;
}

/* Both directions, whole. */
static void
check_walks(struct fixture *f)
{
    struct art_cursor cursor;
    art_cursor_init(&cursor, &f->art, &mem_default);
    esker_status status = art_cursor_first(&cursor);
    for (uint32_t i = 0; i < f->count; i++) {
        assert_int_equal(status, ESKER_OK);
        assert_true(same_place(cursor_key(&cursor), f->keys[i]));
        status = art_cursor_next(&cursor);
    }
    assert_int_equal(status, ESKER_END);
    status = art_cursor_last(&cursor);
    for (uint32_t i = f->count; i-- > 0;) {
        assert_int_equal(status, ESKER_OK);
        assert_true(same_place(cursor_key(&cursor), f->keys[i]));
        status = art_cursor_prev(&cursor);
    }
    assert_int_equal(status, ESKER_END);
    art_cursor_fini(&cursor);
}

/* Both searches for `key`, and one step on either side of what they find. */
static void
check_seek(struct fixture *f, struct bytes key)
{
    uint32_t at = 0;
    uint32_t high = f->count;
    while (at < high) {
        uint32_t middle = (at + high) / 2;
        if (bytes_compare(f->keys[middle], key) < 0) {
            at = middle + 1;
        } else {
            high = middle;
        }
    }
    struct art_cursor cursor;
    art_cursor_init(&cursor, &f->art, &mem_default);
    esker_status status = art_cursor_seek(&cursor, key);
    assert_int_equal(status, at < f->count ? ESKER_OK : ESKER_END);
    if (status == ESKER_OK) {
        assert_true(same_place(cursor_key(&cursor), f->keys[at]));
        status = art_cursor_prev(&cursor);
        assert_int_equal(status, at > 0 ? ESKER_OK : ESKER_END);
        assert_true(status != ESKER_OK || same_place(cursor_key(&cursor), f->keys[at - 1]));
    }
    status = art_cursor_seek_before(&cursor, key);
    assert_int_equal(status, at > 0 ? ESKER_OK : ESKER_END);
    if (status == ESKER_OK) {
        assert_true(same_place(cursor_key(&cursor), f->keys[at - 1]));
        status = art_cursor_next(&cursor);
        assert_int_equal(status, at < f->count ? ESKER_OK : ESKER_END);
        assert_true(status != ESKER_OK || same_place(cursor_key(&cursor), f->keys[at]));
    }
    art_cursor_fini(&cursor);
}

/* Searches for each key, its neighbours by one byte, its prefixes and extensions. */
static void
check_all(struct fixture *f)
{
    qsort(f->keys, f->count, sizeof *f->keys, key_order);
    check_walks(f);
    uint8_t *room = malloc(KEY_BYTES_MAX + 1);
    assert_non_null(room);
    struct rng rng = {.state = f->count};
    for (uint32_t i = 0; i < f->count; i++) {
        struct bytes key = f->keys[i];
        check_seek(f, key);
        memcpy(room, key.ptr, key.len);
        room[key.len] = (uint8_t)(rng_below(&rng, 3) * 127);
        check_seek(f, bytes_make(room, key.len + 1));
        check_seek(f, bytes_make(room, rng_below(&rng, key.len + 1)));
        size_t at = rng_below(&rng, key.len);
        room[at] = (uint8_t)(room[at] + 1);
        check_seek(f, bytes_make(room, key.len));
        room[at] = (uint8_t)(room[at] - 2);
        check_seek(f, bytes_make(room, key.len));
    }
    check_seek(f, bytes_make(NULL, 0));
    free(room);
}

static bool
known(const struct fixture *f, struct bytes key)
{
    for (uint32_t i = 0; i < f->count; i++) {
        if (bytes_equal(f->keys[i], key)) {
            return true;
        }
    }
    return false;
}

static void
art__empty_tree_has_no_leaves(void **state)
{
    (void)state;
    struct fixture *f = fixture_make(1, 4096);
    check_all(f);
    assert_int_equal(fixture_spent(f), 0);
    fixture_insert(f, bytes_make("k", 1));
    check_all(f);
    assert_int_equal(fixture_spent(f), 0);
    fixture_free(f);
}

static void
art__nasty_keys_keep_memcmp_order(void **state)
{
    (void)state;

    enum { COUNT = 700 };

    for (uint32_t sort = 0; sort <= TESTING_KEY_SORTS; sort++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            struct fixture *f = fixture_make(COUNT, 1 << 20);
            struct rng rng = {.state = seed * 31 + sort};
            uint8_t room[TESTING_KEY_BYTES];
            for (uint32_t i = 0; i < COUNT; i++) {
                uint32_t mixed = sort == TESTING_KEY_SORTS ? (uint32_t)rng_next(&rng) : sort;
                struct bytes key = testing_key(&rng, mixed, 4096, room);
                if (!known(f, key)) {
                    fixture_insert(f, key);
                }
            }
            check_all(f);
            assert_true(fixture_spent(f) <= (uint64_t)f->count * ART_KEY_BYTES_MAX);
            fixture_free(f);
        }
    }
}

/* Inserting byte strings in all orders of arrival shows every node size at
 * every edge: 4|5, 16|17, 48|49 children, with and without a term. */
static void
art__all_branch_bytes_at_every_node_size(void **state)
{
    (void)state;
    for (uint32_t fan = 1; fan <= 256; fan = fan < 60 ? fan + 1 : fan + 49) {
        for (uint32_t order = 0; order < 3; order++) {
            for (uint32_t prefix = 0; prefix <= 20; prefix += 4) {
                struct fixture *f = fixture_make(fan + 1, 1 << 16);
                uint8_t room[32];
                memset(room, 'q', sizeof room);
                if (prefix > 0) {
                    fixture_insert(f, bytes_make(room, prefix)); /* the term */
                }
                for (uint32_t i = 0; i < fan; i++) {
                    uint32_t step = i * 255 / fan;
                    room[prefix] = (uint8_t)(order == 0 ? i : order == 1 ? 255 - i : step * 171);
                    if (!known(f, bytes_make(room, prefix + 1))) {
                        fixture_insert(f, bytes_make(room, prefix + 1));
                    }
                }
                check_all(f);
                fixture_free(f);
            }
        }
    }
}

static void
art__path_may_be_as_long_as_a_key(void **state)
{
    (void)state;

    /* Every prefix of one key: a path of COUNT nodes, longer than the cursor's own room. */
    enum { COUNT = 3000 };
    struct fixture *f = fixture_make(COUNT, (uint64_t)COUNT * COUNT);
    uint8_t *room = malloc(COUNT);
    assert_non_null(room);
    memset(room, 0, COUNT);
    struct rng rng = {.state = 3};
    uint32_t lens[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        lens[i] = i + 1;
    }
    for (uint32_t i = COUNT; i > 0; i--) {
        uint32_t pick = (uint32_t)rng_below(&rng, i);
        fixture_insert(f, bytes_make(room, lens[pick]));
        lens[pick] = lens[i - 1];
    }
    check_all(f);
    free(room);
    fixture_free(f);
}

static void
art__keys_of_the_greatest_length(void **state)
{
    (void)state;

    enum { COUNT = 200 };
    struct fixture *f = fixture_make(COUNT, (uint64_t)COUNT * (KEY_BYTES_MAX + 16));
    uint8_t *room = malloc(KEY_BYTES_MAX);
    assert_non_null(room);
    struct rng rng = {.state = 8};
    for (uint32_t i = 0; i < COUNT; i++) {
        memset(room, 'L', KEY_BYTES_MAX);
        size_t len = i % 3 == 0 ? KEY_BYTES_MAX : KEY_BYTES_MAX - rng_below(&rng, 4);
        size_t at = i % 2 == 0 ? len - 1 : rng_below(&rng, len);
        room[at] = (uint8_t)rng_next(&rng);
        if (!known(f, bytes_make(room, len))) {
            fixture_insert(f, bytes_make(room, len));
        }
    }
    check_all(f);
    free(room);
    fixture_free(f);
}

static void
art__inserting_a_leaf_again_changes_nothing(void **state)
{
    (void)state;

    enum { COUNT = 600 };
    struct fixture *f = fixture_make(COUNT, 1 << 20);
    struct rng rng = {.state = 12};
    uint8_t room[TESTING_KEY_BYTES];
    while (f->count < COUNT) {
        struct bytes key = testing_key(&rng, (uint32_t)rng_next(&rng), 4096, room);
        if (!known(f, key)) {
            fixture_insert(f, key);
        }
    }
    uint64_t spent = fixture_spent(f);
    for (uint32_t index = 1; index <= COUNT; index++) {
        art_insert(&f->art, index, 0);
    }
    assert_int_equal(fixture_spent(f), spent);
    check_all(f);
    fixture_free(f);
}

/* Fan-outs just past each growth, in many sibling nodes: the most that one
 * insertion can cost. The arena is exactly the bound, so taking more asserts. */
static void
art__adversarial_keys_stay_within_the_proven_bytes(void **state)
{
    (void)state;
    static const uint32_t fans[] = {2, 3, 4, 5, 16, 17, 18, 48, 49, 50, 256};

    enum { NODES = 64 };

    for (size_t i = 0; i < COUNTOF(fans); i++) {
        uint32_t count = fans[i] * NODES;
        struct fixture *f = fixture_make(count, (uint64_t)count * 64 + 4096);
        for (uint32_t n = 0; n < count; n++) {
            /* Siblings first or node after node; long shared parts that prefix splits cut again and again. */
            uint8_t room[40];
            memset(room, 'z', sizeof room);
            room[n % NODES % 30] = (uint8_t)(n % NODES);
            room[31] = (uint8_t)(n % NODES);
            room[32] = (uint8_t)(n / NODES);
            fixture_insert(f, bytes_make(room, 33));
        }
        check_walks((qsort(f->keys, f->count, sizeof *f->keys, key_order), f));
        assert_true(fixture_spent(f) <= (uint64_t)count * ART_KEY_BYTES_MAX);
        fixture_free(f);
    }
    /* The bound is tight: a path of node4s with one new key each. */
    struct fixture *f = fixture_make(1000, 1 << 20);
    uint8_t room[1000];
    memset(room, 'x', sizeof room);
    for (size_t len = 1; len <= sizeof room; len++) {
        fixture_insert(f, bytes_make(room, len));
    }
    assert_int_equal(fixture_spent(f), 999 * ART_KEY_BYTES_MAX);
    fixture_free(f);
}

static void *
failing_alloc(void *ctx, size_t size)
{
    (void)ctx;
    (void)size;
    return NULL;
}

static void *
failing_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    (void)alignment;
    (void)size;
    return NULL;
}

static void
failing_free(void *ctx, void *ptr)
{
    (void)ctx;
    (void)ptr;
}

static void
art__no_memory_for_a_long_path_is_a_status(void **state)
{
    (void)state;
    const struct mem failing = {.hooks = {failing_alloc, failing_aligned_alloc, failing_free, NULL}};
    struct fixture *f = fixture_make(100, 1 << 16);
    uint8_t room[100];
    memset(room, 'x', sizeof room);
    for (size_t len = 1; len <= sizeof room; len++) {
        fixture_insert(f, bytes_make(room, len));
    }
    struct art_cursor cursor;
    art_cursor_init(&cursor, &f->art, &failing);
    esker_status status = art_cursor_first(&cursor);
    uint32_t steps = 0;
    for (; status == ESKER_OK; steps++) {
        status = art_cursor_next(&cursor);
    }
    assert_int_equal(status, ESKER_NO_MEMORY);
    assert_int_equal(steps, ART_CURSOR_INLINE_DEPTH);
    assert_int_equal(art_cursor_last(&cursor), ESKER_NO_MEMORY);
    assert_int_equal(art_cursor_seek(&cursor, bytes_make(room, 90)), ESKER_NO_MEMORY);
    assert_int_equal(art_cursor_seek_before(&cursor, bytes_make(room, 90)), ESKER_NO_MEMORY);
    assert_int_equal(art_cursor_first(&cursor), ESKER_OK);
    art_cursor_fini(&cursor);
    fixture_free(f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(art__empty_tree_has_no_leaves),
        cmocka_unit_test(art__nasty_keys_keep_memcmp_order),
        cmocka_unit_test(art__all_branch_bytes_at_every_node_size),
        cmocka_unit_test(art__path_may_be_as_long_as_a_key),
        cmocka_unit_test(art__keys_of_the_greatest_length),
        cmocka_unit_test(art__inserting_a_leaf_again_changes_nothing),
        cmocka_unit_test(art__adversarial_keys_stay_within_the_proven_bytes),
        cmocka_unit_test(art__no_memory_for_a_long_path_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
