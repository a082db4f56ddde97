/* SPDX-License-Identifier: MIT */
/*
 * Goal: the hash directory finds exactly what was linked, whatever collides,
 * and keeps each key's list in LSN order, whatever order versions come in.
 * Method: hashes are chosen by the test, not computed, so that buckets and
 * tags collide on purpose; lists are walked and compared with sorted granules.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "memtable/memtable_testing.h"

struct fixture {
    struct testing_window window;
    struct vnodes vnodes;
    struct hashdir dir;
    void *slots;
};

static struct fixture
fixture_make(uint32_t op_capacity, uint64_t window_bytes)
{
    struct fixture f = {.window = testing_window_make(window_bytes)};
    f.vnodes.array = calloc(op_capacity + 1, sizeof *f.vnodes.array);
    f.vnodes.data = f.window.data;
    f.vnodes.count_max = op_capacity;
    f.slots = aligned_alloc(64, hashdir_bytes(op_capacity));
    assert_non_null(f.vnodes.array);
    assert_non_null(f.slots);
    memset(f.slots, 0, hashdir_bytes(op_capacity));
    hashdir_init(&f.dir, f.slots, op_capacity);
    return f;
}

static void
fixture_free(struct fixture *f)
{
    free(f->window.data);
    free(f->vnodes.array);
    free(f->slots);
}

/* Links the entry at `offset`; returns its vnode. */
static uint32_t
fixture_link(struct fixture *f, uint64_t offset, uint64_t hash, uint32_t *anchor_out)
{
    uint32_t index = vnode_take(&f->vnodes, 1, 0);
    f->vnodes.array[index].entry = (uint32_t)(offset / LSN_BYTES);
    struct bytes key = vnode_key(&f->vnodes, index);
    *anchor_out = hashdir_link(&f->dir, &f->vnodes, key, hash, index);
    return index;
}

static struct bytes
number_key(uint32_t *room, uint32_t number)
{
    *room = number;
    return bytes_make(room, sizeof *room);
}

static const struct bytes no_value = {NULL, 0};

static void
hashdir__size_is_a_power_of_two_at_most_three_quarters_full(void **state)
{
    (void)state;
    for (uint32_t ops = 0; ops < 5000; ops++) {
        uint64_t slots = hashdir_bytes(ops) / 8;
        assert_true(slots >= 8 && (slots & (slots - 1)) == 0);
        assert_true((uint64_t)ops * 4 <= slots * 3);
        assert_true(slots == 8 || (uint64_t)ops * 4 > slots / 2 * 3);
    }
    assert_true((uint64_t)MEMTABLE_OPS_MAX * 4 <= hashdir_bytes(MEMTABLE_OPS_MAX) / 8 * 3);
}

static void
hashdir__colliding_keys_are_told_apart(void **state)
{
    (void)state;
    /* All hashes 0, all ones, or two buckets with equal tags; the last bucket wraps to the first. */
    static const uint64_t masks[] = {0, 0x1, 0x8000000000000000ULL, 0x3f, UINT64_MAX};

    enum { COUNT = 300 };

    for (size_t m = 0; m < COUNTOF(masks); m++) {
        for (uint64_t inverted = 0; inverted < 2; inverted++) {
            struct fixture f = fixture_make(COUNT, COUNT * 64);
            struct rng rng = {.state = 5};
            uint64_t hashes[COUNT];
            for (uint32_t i = 0; i < COUNT; i++) {
                uint32_t room;
                uint32_t anchor;
                hashes[i] = (rng_next(&rng) & masks[m]) ^ (inverted != 0 ? UINT64_MAX : 0);
                assert_int_equal(hashdir_find(&f.dir, &f.vnodes, number_key(&room, i), hashes[i]), 0);
                uint64_t offset = testing_window_add(&f.window, ENTRY_PUT, number_key(&room, i), no_value);
                uint32_t index = fixture_link(&f, offset, hashes[i], &anchor);
                assert_int_equal(index, i + 1);
                assert_int_equal(anchor, index);
            }
            for (uint32_t i = 0; i < COUNT; i++) {
                uint32_t room;
                uint64_t word = hashdir_find(&f.dir, &f.vnodes, number_key(&room, i), hashes[i]);
                assert_int_equal(hashdir_word_vnode(word), i + 1);
                assert_int_equal(hashdir_word_entry(&f.vnodes, word), f.vnodes.array[i + 1].entry);
                assert_int_equal(hashdir_find(&f.dir, &f.vnodes, number_key(&room, i + COUNT), hashes[i]), 0);
            }
            fixture_free(&f);
        }
    }
}

static void
hashdir__a_key_is_not_its_prefix(void **state)
{
    (void)state;
    struct fixture f = fixture_make(64, 1 << 16);
    uint8_t long_key[40];
    memset(long_key, 0, sizeof long_key);
    uint32_t anchor;
    for (size_t len = 1; len <= sizeof long_key; len++) {
        uint64_t offset = testing_window_add(&f.window, ENTRY_PUT, bytes_make(long_key, len), no_value);
        uint32_t index = fixture_link(&f, offset, 77, &anchor);
        assert_int_equal(index, len);
        assert_int_equal(anchor, len);
    }
    for (size_t len = 1; len <= sizeof long_key; len++) {
        uint64_t word = hashdir_find(&f.dir, &f.vnodes, bytes_make(long_key, len), 77);
        assert_int_equal(hashdir_word_vnode(word), len);
    }
    fixture_free(&f);
}

static void
hashdir__versions_are_linked_in_lsn_order_from_any_order(void **state)
{
    (void)state;

    enum { VERSIONS = 6, ORDERS = 720 };

    for (uint32_t order = 0; order < ORDERS; order++) {
        struct fixture f = fixture_make(VERSIONS, 1 << 12);
        uint64_t offsets[VERSIONS];
        for (uint32_t i = 0; i < VERSIONS; i++) {
            offsets[i] = testing_window_add(&f.window, ENTRY_PUT, bytes_make("key", 3), no_value);
        }
        uint32_t first = 0;
        uint32_t rest = order;
        uint64_t newest = 0;
        for (uint32_t left = VERSIONS; left > 0; left--) {
            uint32_t pick = rest % left;
            rest /= left;
            uint32_t anchor;
            uint32_t index = fixture_link(&f, offsets[pick], 1, &anchor);
            first = first == 0 ? index : first;
            assert_int_equal(anchor, first);
            assert_int_equal(f.vnodes.array[index].anchor, first);
            newest = MAX(newest, offsets[pick] / LSN_BYTES);
            offsets[pick] = offsets[left - 1];
            uint64_t word = hashdir_find(&f.dir, &f.vnodes, bytes_make("key", 3), 1);
            assert_int_equal(hashdir_word_entry(&f.vnodes, word), newest);
            uint32_t head = load_acquire(&f.vnodes.array[first].head);
            assert_int_equal(head, hashdir_word_vnode(word));
            uint32_t length = 0;
            uint64_t last = UINT64_MAX;
            for (uint32_t at = head; at != 0; at = load_acquire(&f.vnodes.array[at].prev)) {
                assert_true(f.vnodes.array[at].entry < last);
                last = f.vnodes.array[at].entry;
                length++;
            }
            assert_int_equal(length, VERSIONS - left + 1);
        }
        fixture_free(&f);
    }
}

static void
hashdir__entries_beyond_24_bits_come_from_the_vnode(void **state)
{
    (void)state;
    struct fixture f = fixture_make(16, (uint64_t)136 << 20);
    uint64_t last_plain = ((uint64_t)HASHDIR_ENTRY_SATURATED - 1) * LSN_BYTES;
    uint64_t offsets[] = {64, last_plain - 32, last_plain, last_plain + 32, f.window.cap - 64};
    uint32_t anchor;
    for (size_t i = 0; i < COUNTOF(offsets); i++) {
        f.window.end = offsets[i];
        assert_int_equal(testing_window_add(&f.window, ENTRY_PUT, bytes_make("k", 1), no_value), offsets[i]);
        uint32_t index = fixture_link(&f, offsets[i], 9, &anchor);
        uint64_t word = hashdir_find(&f.dir, &f.vnodes, bytes_make("k", 1), 9);
        assert_int_equal(hashdir_word_vnode(word), index);
        assert_int_equal(hashdir_word_entry(&f.vnodes, word), offsets[i] / LSN_BYTES);
    }
    /* A version that comes late finds its place between entries that both do not fit. */
    f.window.end = last_plain + 64;
    uint64_t late = testing_window_add(&f.window, ENTRY_PUT, bytes_make("k", 1), no_value);
    (void)fixture_link(&f, late, 9, &anchor);
    uint32_t head = load_acquire(&f.vnodes.array[anchor].head);
    assert_int_equal(f.vnodes.array[head].entry, offsets[4] / LSN_BYTES);
    uint32_t second = load_acquire(&f.vnodes.array[head].prev);
    assert_int_equal(f.vnodes.array[second].entry, late / LSN_BYTES);
    fixture_free(&f);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashdir__size_is_a_power_of_two_at_most_three_quarters_full),
        cmocka_unit_test(hashdir__colliding_keys_are_told_apart),
        cmocka_unit_test(hashdir__a_key_is_not_its_prefix),
        cmocka_unit_test(hashdir__versions_are_linked_in_lsn_order_from_any_order),
        cmocka_unit_test(hashdir__entries_beyond_24_bits_come_from_the_vnode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
