/* SPDX-License-Identifier: MIT */
/*
 * Goal: the page heap hands out memory that nobody else has, in every size and
 * alignment; takes little more than what was asked for; gives pages back; and says NULL
 * when the machine has none, and works again afterwards.
 * Method: random allocations against a plain list of what is out, each filled
 * with a pattern of its own; a back-end that counts and can refuse; the kernel's
 * own count of resident pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/rng.h"
#include "io/io_posix.h"
#include "io/page_runs.h"

enum { IDLE_MAX = 256 << 10, HUGE_IDLE_MAX = PAGE_HUGE_IDLE_LEAST };

struct fixture {
    struct io io;
    struct io_ops ops;
    struct page_heap *heap;
    struct mem mem;
    int maps_left; /* before the machine refuses */
    uint64_t mapped_bytes;
    uint64_t idle_most; /* I2 */
};

static int
counted_map(struct io *io, uint64_t len, uint64_t alignment, void **out)
{
    struct fixture *fixture = CONTAINER_OF(io, struct fixture, io);
    if (fixture->maps_left == 0) {
        return -ENOMEM;
    }
    fixture->maps_left--;
    int failed = io_posix_map_aligned(io, len, alignment, out);
    fixture->mapped_bytes += failed == 0 ? len : 0;
    return failed;
}

static void
counted_unmap(struct io *io, void *ptr, uint64_t len)
{
    struct fixture *fixture = CONTAINER_OF(io, struct fixture, io);
    fixture->mapped_bytes -= len;
    io_posix_unmap(io, ptr, len);
}

static void
fixture_init_as(struct fixture *fixture, bool huge)
{
    memset(fixture, 0, sizeof *fixture);
    fixture->maps_left = INT32_MAX;
    fixture->ops.map_aligned = counted_map;
    fixture->ops.unmap_aligned = counted_unmap;
    fixture->ops.discard = io_posix_discard;
    fixture->ops.allow_huge = io_posix_allow_huge;
    fixture->io.ops = &fixture->ops;
    fixture->io.mem = &mem_default;
    fixture->idle_most = huge ? HUGE_IDLE_MAX + IO_HUGE_BYTES : IDLE_MAX;
    assert_int_equal(page_heap_create(&fixture->io, huge ? HUGE_IDLE_MAX : IDLE_MAX, &fixture->heap),
                     ESKER_OK);
    page_heap_mem(fixture->heap, &fixture->mem);
}

static void
fixture_init(struct fixture *fixture)
{
    fixture_init_as(fixture, false);
}

static void
fixture_fini(struct fixture *fixture)
{
    struct page_heap_stats stats;
    page_heap_get_stats(fixture->heap, &stats);
    assert_int_equal(stats.used_bytes, 0);
    assert_int_equal(stats.alone, 0);
    page_heap_destroy(fixture->heap);
    assert_int_equal(fixture->mapped_bytes, 0);
}

static struct page_heap_stats
fixture_stats(const struct fixture *fixture)
{
    struct page_heap_stats stats;
    page_heap_get_stats(fixture->heap, &stats);
    return stats;
}

/* ---- Sizes ---------------------------------------------------------------------- */

static void
room__is_enough_and_not_much_more(void **state)
{
    (void)state;
    uint64_t before = 0;
    for (uint64_t size = 0; size <= 3 << 20; size += size < 40000 ? 1 : 997) {
        uint64_t room = page_heap_room(size);
        assert_true(room >= size && room >= before);
        if (size >= 1024 && size <= 32 << 10) {
            assert_true(room - size <= size / 16);
        } else {
            assert_true(room - size <= (size < 1024 ? 64 : 2 * PAGE_BYTES));
        }
        before = room;
    }
}

static void
alloc__takes_what_room_says(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    for (uint64_t size = 1; size <= 5 << 20; size += size / 9 + 1) {
        uint8_t *ptr = mem_alloc(&fixture.mem, size);
        assert_non_null(ptr);
        assert_int_equal((uintptr_t)ptr % 64, 0);
        memset(ptr, 7, size);
        assert_int_equal(fixture_stats(&fixture).used_bytes, page_heap_room(size));
        mem_free(&fixture.mem, ptr);
    }
    assert_null(mem_alloc(&fixture.mem, SIZE_MAX / 2));
    assert_null(mem_alloc(&fixture.mem, SIZE_MAX - 10));
    assert_null(fixture.mem.hooks.aligned_alloc(fixture.heap, 8192, 8192));
    fixture_fini(&fixture);
}

static void
alloc__keeps_alignments(void **state)
{
    (void)state;
    struct fixture fixture;
    fixture_init(&fixture);
    for (size_t alignment = 1; alignment <= PAGE_BYTES; alignment *= 2) {
        for (size_t size = 1; size <= 3 << 20; size = size * 3 + 5) {
            void *ptr = mem_alloc_aligned(&fixture.mem, alignment, size);
            assert_non_null(ptr);
            assert_int_equal((uintptr_t)ptr % alignment, 0);
            memset(ptr, 1, size);
            mem_free(&fixture.mem, ptr);
        }
    }
    fixture_fini(&fixture);
}

/* ---- Churn ---------------------------------------------------------------------- */

enum { CHURN_LIVE = 600, CHURN_STEPS = 60000 };

struct piece {
    uint8_t *ptr;
    size_t size;
    uint8_t pattern;
};

static void
piece_free(struct fixture *fixture, struct piece *piece)
{
    for (size_t at = 0; at < piece->size; at += at + 64 < piece->size ? 61 : 1) {
        assert_int_equal(piece->ptr[at], piece->pattern);
    }
    mem_free(&fixture->mem, piece->ptr);
    *piece = (struct piece){0};
}

static size_t
churn_size(struct rng *rng, int phase)
{
    switch (rng_below(rng, 8)) {
    case 0:
        return 1 + rng_below(rng, 300);
    case 1:
        return 1 + rng_below(rng, 200000);
    case 2:
        return rng_below(rng, 50) == 0 ? 1 + rng_below(rng, 5 << 20) : 1 + rng_below(rng, 9000);
    default: /* what most blocks take changes from phase to phase */
        return (size_t)(4000 << phase % 3) + rng_below(rng, 400);
    }
}

/* What the kernel says is resident of the heap's regions. */
static uint64_t
heap_resident(const struct fixture *fixture)
{
    uint64_t pages = 0;
    for (struct page_region *region =
             fixture->heap == NULL ? NULL : ((struct page_runs *)(void *)fixture->heap)->regions;
         region != NULL; region = region->next) {
        static unsigned char present[PAGE_REGION_PAGES];
        assert_int_equal(mincore(region, PAGE_REGION_BYTES, present), 0);
        for (size_t page = 0; page < PAGE_REGION_PAGES; page++) {
            pages += present[page] & 1;
        }
    }
    return pages * PAGE_BYTES;
}

static void
churn_check(bool huge)
{
    static struct piece pieces[CHURN_LIVE];
    struct fixture fixture;
    struct rng rng = {77};
    fixture_init_as(&fixture, huge);
    for (int step = 0; step < CHURN_STEPS; step++) {
        struct piece *piece = &pieces[rng_below(&rng, CHURN_LIVE)];
        if (piece->ptr != NULL) {
            piece_free(&fixture, piece);
            continue;
        }
        piece->size = churn_size(&rng, step / (CHURN_STEPS / 6));
        piece->pattern = (uint8_t)rng_next(&rng);
        piece->ptr = mem_alloc(&fixture.mem, piece->size);
        assert_non_null(piece->ptr);
        memset(piece->ptr, piece->pattern, piece->size);
        if (step % 1000 == 0) {
            struct page_heap_stats stats = fixture_stats(&fixture);
            assert_true(stats.idle_bytes <= fixture.idle_most);
            assert_true(stats.resident_bytes >= stats.used_bytes + stats.idle_bytes);
            if (stats.alone == 0) {
                assert_true(heap_resident(&fixture) <= stats.resident_bytes);
            }
        }
    }
    for (size_t i = 0; i < CHURN_LIVE; i++) {
        if (pieces[i].ptr != NULL) {
            piece_free(&fixture, &pieces[i]);
        }
    }
    assert_true(fixture_stats(&fixture).idle_bytes <= fixture.idle_most);
    page_heap_trim(fixture.heap);
    struct page_heap_stats stats = fixture_stats(&fixture);
    assert_int_equal(stats.idle_bytes, 0);
    assert_int_equal(stats.regions, 1);
    assert_int_equal(stats.resident_bytes, PAGE_REGION_HEAD_PAGES * PAGE_BYTES);
    assert_true(heap_resident(&fixture) <= stats.resident_bytes);
    fixture_fini(&fixture);
}

static void
churn__never_shares_and_stays_compact(void **state)
{
    (void)state;
    churn_check(false);
}

static void
churn__is_the_same_with_huge_pages(void **state)
{
    (void)state;
    churn_check(true);
}

/* A half is counted as a whole when it is begun, and page by page once a part was given back. Not so in the
 * first region: who needs little is charged little. */
static void
huge__halves_come_whole_and_go_in_parts(void **state)
{
    (void)state;

    enum { BLOCK = 66000, BLOCK_PAGES = 17, COUNT = 180 };

    static void *ptrs[COUNT];
    struct fixture fixture;
    uint64_t small_bytes = 0;
    fixture_init_as(&fixture, true);
    void *first = mem_alloc(&fixture.mem, 4000);
    assert_non_null(first);
    assert_true(fixture_stats(&fixture).resident_bytes <= (PAGE_REGION_HEAD_PAGES + 8) * PAGE_BYTES);
    for (size_t i = 0; i < COUNT; i++) {
        ptrs[i] = mem_alloc(&fixture.mem, BLOCK);
        assert_non_null(ptrs[i]);
        memset(ptrs[i], 1, BLOCK);
        struct page_heap_stats stats = fixture_stats(&fixture);
        small_bytes = stats.huge_bytes == 0 ? stats.resident_bytes : small_bytes;
        assert_int_equal(stats.huge_bytes % IO_HUGE_BYTES, 0);
        assert_int_equal(stats.huge_bytes + small_bytes, stats.resident_bytes);
        assert_true(heap_resident(&fixture) <= stats.resident_bytes);
    }
    assert_true(small_bytes <= PAGE_REGION_BYTES);
    assert_true(fixture_stats(&fixture).huge_bytes > 3 * (uint64_t)IO_HUGE_BYTES);
    /* Every second one goes: what is free has to be given back in parts. */
    for (size_t i = 0; i < COUNT; i += 2) {
        mem_free(&fixture.mem, ptrs[i]);
    }
    page_heap_trim(fixture.heap);
    struct page_heap_stats stats = fixture_stats(&fixture);
    assert_int_equal(stats.huge_bytes, 0);
    assert_int_equal(stats.idle_bytes, 0);
    assert_true(stats.resident_bytes < COUNT / 2 * BLOCK_PAGES * PAGE_BYTES + IO_HUGE_BYTES / 4);
    assert_true(heap_resident(&fixture) <= stats.resident_bytes);
    for (size_t i = 1; i < COUNT; i += 2) {
        mem_free(&fixture.mem, ptrs[i]);
    }
    /* What is whole again may be huge again. */
    page_heap_trim(fixture.heap);
    void *again[2]; /* one may lie in the first region */
    for (size_t i = 0; i < COUNTOF(again); i++) {
        again[i] = mem_alloc(&fixture.mem, PAGE_RUN_MAX_BYTES);
        assert_non_null(again[i]);
    }
    assert_true(fixture_stats(&fixture).huge_bytes > 0);
    mem_free(&fixture.mem, again[0]);
    mem_free(&fixture.mem, again[1]);
    mem_free(&fixture.mem, first);
    fixture_fini(&fixture);
}

static void
slots__of_one_size_waste_little(void **state)
{
    (void)state;
    static void *ptrs[4000];
    static const size_t sizes[] = {900, 4300, 8500, 16600, 31000, 66000};
    for (size_t s = 0; s < COUNTOF(sizes); s++) {
        struct fixture fixture;
        fixture_init(&fixture);
        for (size_t i = 0; i < COUNTOF(ptrs); i++) {
            ptrs[i] = mem_alloc(&fixture.mem, sizes[s]);
            assert_non_null(ptrs[i]);
        }
        uint64_t asked = sizes[s] * COUNTOF(ptrs);
        assert_true(fixture_stats(&fixture).resident_bytes <= asked + asked / 8 + (64 << 10));
        for (size_t i = 0; i < COUNTOF(ptrs); i++) {
            mem_free(&fixture.mem, ptrs[i]);
        }
        fixture_fini(&fixture);
    }
}

/* ---- Refusals ------------------------------------------------------------------- */

static void
no_memory__is_null_and_passes(void **state)
{
    (void)state;
    static void *ptrs[2000];
    struct fixture fixture;
    fixture_init(&fixture);
    fixture.maps_left = 0;
    assert_null(mem_alloc(&fixture.mem, 10));
    assert_null(mem_alloc(&fixture.mem, 100000));
    assert_null(mem_alloc(&fixture.mem, 10 << 20));
    fixture.maps_left = 1;
    size_t count = 0;
    while (count < COUNTOF(ptrs) && (ptrs[count] = mem_alloc(&fixture.mem, 5000)) != NULL) {
        memset(ptrs[count], 3, 5000);
        count++;
    }
    assert_true(count > 700 && count < COUNTOF(ptrs)); /* of one region */
    assert_null(mem_alloc(&fixture.mem, 3 << 20));
    fixture.maps_left = 1;
    void *one = mem_alloc(&fixture.mem, 5000);
    assert_non_null(one);
    mem_free(&fixture.mem, one);
    while (count > 0) {
        mem_free(&fixture.mem, ptrs[--count]);
    }
    fixture_fini(&fixture);
}

/* ---- Threads -------------------------------------------------------------------- */

enum { THREADS = 4, THREAD_STEPS = 4000, THREAD_LIVE = 40 };

static void *
thread_churn(void *arg)
{
    struct fixture *fixture = arg;
    struct piece pieces[THREAD_LIVE] = {{0}};
    struct rng rng = {(uint64_t)(uintptr_t)&pieces};
    for (int step = 0; step < THREAD_STEPS; step++) {
        struct piece *piece = &pieces[rng_below(&rng, THREAD_LIVE)];
        if (piece->ptr != NULL) {
            piece_free(fixture, piece);
            continue;
        }
        piece->size = churn_size(&rng, 0);
        piece->pattern = (uint8_t)step;
        piece->ptr = mem_alloc(&fixture->mem, piece->size);
        assert_non_null(piece->ptr);
        memset(piece->ptr, piece->pattern, piece->size);
    }
    for (size_t i = 0; i < THREAD_LIVE; i++) {
        if (pieces[i].ptr != NULL) {
            piece_free(fixture, &pieces[i]);
        }
    }
    return NULL;
}

static void
threads__share_it(void **state)
{
    (void)state;
    struct fixture fixture;
    pthread_t threads[THREADS];
    fixture_init(&fixture);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, thread_churn, &fixture), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    fixture_fini(&fixture);
}

/* ---- Poison --------------------------------------------------------------------- */

static void
poison__covers_what_is_free(void **state)
{
    (void)state;
#ifdef POISON_IS_SEEN
    static const size_t sizes[] = {100, 5000, 100000, (5 << 20) - 100};
    struct fixture fixture;
    fixture_init(&fixture);
    for (size_t s = 0; s < COUNTOF(sizes); s++) {
        uint8_t *ptr = mem_alloc(&fixture.mem, sizes[s]);
        uint8_t *other = mem_alloc(&fixture.mem, sizes[s]); /* keeps the mapping */
        assert_non_null(ptr);
        assert_non_null(other);
        assert_null(__asan_region_is_poisoned(ptr, sizes[s]));
        assert_true(__asan_address_is_poisoned(ptr + sizes[s]));
        mem_free(&fixture.mem, ptr);
        if (sizes[s] < PAGE_RUN_MAX_BYTES) {
            assert_true(__asan_address_is_poisoned(ptr));
            assert_true(__asan_address_is_poisoned(ptr + sizes[s] / 2));
            assert_true(__asan_address_is_poisoned(ptr + sizes[s] - 1));
        }
        mem_free(&fixture.mem, other);
    }
    fixture_fini(&fixture);
#endif
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(room__is_enough_and_not_much_more),
        cmocka_unit_test(alloc__takes_what_room_says),
        cmocka_unit_test(alloc__keeps_alignments),
        cmocka_unit_test(churn__never_shares_and_stays_compact),
        cmocka_unit_test(churn__is_the_same_with_huge_pages),
        cmocka_unit_test(huge__halves_come_whole_and_go_in_parts),
        cmocka_unit_test(slots__of_one_size_waste_little),
        cmocka_unit_test(no_memory__is_null_and_passes),
        cmocka_unit_test(threads__share_it),
        cmocka_unit_test(poison__covers_what_is_free),
    };
    return cmocka_run_group_tests_name("page heap", tests, NULL, NULL);
}
