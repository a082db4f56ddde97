/* SPDX-License-Identifier: MIT */
/*
 * Goal: where frames begin is found from any offset, and where the last batch ends,
 * whatever the frames' sizes: many in a stretch, and one over many stretches.
 * Method: a window filled with frames of random sizes, noted in random order, and
 * compared at every granule with a plain list of them.
 * Goal: memory of a freed window serves the next of its size and no other, and what is
 * charged for windows is what there is of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

#include "base/rng.h"
#include "version/window.h"

enum { WINDOW_BYTES = 1 << 20, BASE_LSN = 4096, SEED = 7 };

static int
test_map_memory(struct io *io, uint64_t len, void **out)
{
    *out = mem_alloc_aligned(io->mem, LOG_PAGE_BYTES, len);
    assert_non_null(*out);
    memset(*out, 0, len);
    return 0;
}

static void
test_unmap_memory(struct io *io, void *ptr, uint64_t len)
{
    (void)len;
    mem_free(io->mem, ptr);
}

static const struct io_ops test_ops = {
    .label = "testing", .map_memory = test_map_memory, .unmap_memory = test_unmap_memory};

struct list {
    uint64_t ends[WINDOW_BYTES / FRAME_GRANULE];
    enum frame_type types[WINDOW_BYTES / FRAME_GRANULE];
    uint32_t count;
};

/* Frames up to about `upto`; percent of them are batches. */
static struct list *
fill(struct window *window, struct rng *rng, uint64_t most, uint32_t percent, uint64_t upto)
{
    struct list *list = calloc(1, sizeof *list);
    assert_non_null(list);
    uint64_t at = 0;
    while (at < upto) {
        uint64_t bytes = (1 + rng_below(rng, most / FRAME_GRANULE)) * FRAME_GRANULE;
        bytes = MIN(bytes, (uint64_t)WINDOW_BYTES - at);
        enum frame_type type = rng_below(rng, 100) < percent ? FRAME_BATCH : FRAME_SYNCMARK;
        frame_seal(window->data + at, bytes, bytes == FRAME_GRANULE ? FRAME_PAD : type, FRAME_BACK_NO_CLAIM,
                   1, window_lsn(window, at));
        list->types[list->count] = (enum frame_type)window->data[at + 4];
        at += bytes;
        list->ends[list->count++] = at;
    }
    for (uint32_t i = list->count; i-- > 0;) { /* writers note them in any order */
        window_note_frame(window, i > 0 ? list->ends[i - 1] : 0, list->ends[i]);
    }
    return list;
}

static void
check(const struct window *window, const struct list *list)
{
    uint64_t boundary = 0;
    uint64_t batch = 0;
    uint32_t next = 0;
    uint64_t end = list->ends[list->count - 1];
    for (uint64_t offset = 0; offset <= end; offset += LSN_BYTES) {
        if (next < list->count && list->ends[next] == offset) {
            boundary = offset;
            batch = list->types[next] == FRAME_BATCH ? offset : batch;
            assert_int_equal(window_batches_end(window, offset), batch);
            next++;
        }
        assert_int_equal(window_boundary(window, offset), boundary);
    }
}

static void
window__finds_where_frames_begin(void **state)
{
    (void)state;
    static const uint64_t most[] = {32, 200, 4096, 3 * WINDOW_STRETCH_BYTES, WINDOW_BYTES};
    struct io io = {.ops = &test_ops, .mem = &mem_default};
    struct rng rng = {.state = 3};
    for (uint32_t round = 0; round < 4 * COUNTOF(most); round++) {
        struct window *window = NULL;
        assert_int_equal(
            window_create(&io, &mem_default, NULL, NULL, WINDOW_BYTES, BASE_LSN, 64, SEED, &window),
            ESKER_OK);
        uint64_t upto = round % 2 == 0 ? WINDOW_BYTES : 1 + rng_below(&rng, WINDOW_BYTES / 2);
        struct list *list = fill(window, &rng, most[round % COUNTOF(most)], round % 3 == 0 ? 1 : 60, upto);
        check(window, list);
        free(list);
        window_unref(window);
    }
}

static uint64_t
charged(const struct block_cache *budget)
{
    struct block_cache_stats stats;
    block_cache_get_stats(budget, &stats);
    return stats.charged_bytes[MEMORY_WINDOWS];
}

static struct window *
make(struct io *io, struct block_cache *budget, struct window_spare *spare, uint64_t bytes)
{
    struct window *window = NULL;
    assert_int_equal(window_create_spare(io, &mem_default, budget, spare, bytes, BASE_LSN, 64, SEED, &window),
                     ESKER_OK);
    return window;
}

static void
window__memory_of_a_freed_one_is_used_again(void **state)
{
    (void)state;
    struct io io = {.ops = &test_ops, .mem = &mem_default};
    struct window_spare spare;
    struct block_cache *budget = NULL;
    assert_int_equal(block_cache_create(&mem_default, 64 << 20, &budget), ESKER_OK);
    window_spare_init(&spare);

    struct window *window = make(&io, budget, &spare, WINDOW_BYTES);
    uint8_t *data = window->data;
    assert_int_equal(window->recycled_bytes, 0);
    window_charge(window, WINDOW_BYTES + 5000);
    memset(window->data, 0xa5, WINDOW_BYTES);
    window_unref(window);
    assert_int_equal(charged(budget), WINDOW_BYTES); /* the index went, the memory stays */

    window = make(&io, budget, &spare, WINDOW_BYTES);
    assert_ptr_equal(window->data, data);
    assert_int_equal(window->recycled_bytes, WINDOW_BYTES);
    assert_true(window_resident_bytes(window, 0) >= WINDOW_BYTES);
    assert_false(window_is_applied(window, 0));
    assert_int_equal(charged(budget), WINDOW_BYTES);
    window_unref(window);

    window = make(&io, budget, &spare, WINDOW_BYTES * 2); /* of another size: given back */
    assert_int_equal(window->recycled_bytes, 0);
    assert_int_equal(charged(budget), 0);
    struct window *second = make(&io, budget, &spare, WINDOW_BYTES * 2);
    window_charge(window, WINDOW_BYTES * 2);
    window_charge(second, WINDOW_BYTES * 2);
    window_unref(window);
    window_unref(second); /* one is enough */
    assert_int_equal(charged(budget), WINDOW_BYTES * 2);

    window_spare_drop(&spare, &io, budget);
    assert_int_equal(charged(budget), 0);
    window_spare_fini(&spare);
    block_cache_destroy(budget);
}

static void
window__memory_is_not_kept_after_it_was_dropped(void **state)
{
    (void)state;
    struct io io = {.ops = &test_ops, .mem = &mem_default};
    struct window_spare spare;
    struct block_cache *budget = NULL;
    assert_int_equal(block_cache_create(&mem_default, 64 << 20, &budget), ESKER_OK);
    window_spare_init(&spare);
    struct window *window = make(&io, budget, &spare, WINDOW_BYTES);
    window_charge(window, WINDOW_BYTES);
    window_spare_drop(&spare, &io, budget);
    window_unref(window);
    assert_int_equal(charged(budget), 0);
    window_spare_fini(&spare); /* asserts that nothing is left */
    block_cache_destroy(budget);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window__finds_where_frames_begin),
        cmocka_unit_test(window__memory_of_a_freed_one_is_used_again),
        cmocka_unit_test(window__memory_is_not_kept_after_it_was_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
