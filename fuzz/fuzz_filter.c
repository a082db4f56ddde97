/* rooms: format */
/* SPDX-License-Identifier: MIT */
/*
 * Filters: any bytes are one, so every page count and hash must stay inside,
 * and the portable and the chosen path must agree. Input: a page count and a
 * seed byte, then hashes of 8 bytes. Oracles: what was added is contained, the
 * two paths set the same bits and give the same answers, also on noise.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "base/cursor.h"
#include "base/rng.h"
#include "format/filter.h"

enum { PAGES_MAX = 8, HASHES_MAX = 512, NOISE_PROBES = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
fuzz_filter_agrees(const uint8_t *pages, uint32_t page_count, uint64_t hash)
{
    const uint8_t *line = filter_line(pages, page_count, hash);
    ASSERT(line >= pages && line + 32 <= pages + (size_t)page_count * FILTER_PAGE_BYTES);
    ASSERT(filter_may_contain(pages, page_count, hash) ==
           filter_may_contain_portable(pages, page_count, hash));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cursor in = cursor_make(data, size);
    uint32_t page_count = 1 + cursor_u8(&in) % PAGES_MAX;
    struct rng rng = {.state = cursor_u8(&in)};
    size_t bytes = (size_t)page_count * FILTER_PAGE_BYTES, count = 0;
    uint64_t hashes[HASHES_MAX];
    while (cursor_left(&in) >= 8 && count < HASHES_MAX) {
        hashes[count++] = cursor_u64(&in);
    }
    uint8_t *chosen = malloc(bytes), *portable = malloc(bytes);
    ASSERT(chosen != NULL && portable != NULL);
    for (size_t i = 0; i < bytes; i++) {
        chosen[i] = portable[i] = (rng.state & 1) != 0 ? (uint8_t)(rng_next(&rng) & 0x11) : 0;
    }
    filter_add_many(chosen, page_count, hashes, count / 2);
    for (size_t i = count / 2; i < count; i++) {
        filter_add(chosen, page_count, hashes[i]);
    }
    filter_add_many_portable(portable, page_count, hashes, count);
    ASSERT(memcmp(chosen, portable, bytes) == 0);
    for (size_t i = 0; i < count; i++) {
        ASSERT(filter_may_contain(chosen, page_count, hashes[i]));
        fuzz_filter_agrees(chosen, page_count, ~hashes[i]);
    }
    for (size_t i = 0; i < NOISE_PROBES; i++) {
        fuzz_filter_agrees(chosen, page_count, rng_next(&rng));
    }
    ASSERT(filter_page_count(count) >= 1);
    free(chosen);
    free(portable);
    return 0;
}
