/* SPDX-License-Identifier: MIT */
/*
 * Goal: where frames begin is found from any offset, and where the last batch ends,
 * whatever the frames' sizes: many in a stretch, and one over many stretches.
 * Method: a window filled with frames of random sizes, noted in random order, and
 * compared at every granule with a plain list of them.
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window__finds_where_frames_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
