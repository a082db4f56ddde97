/* SPDX-License-Identifier: MIT */
/*
 * Goal: no key is ever missed, few others pass, and every CPU makes and reads
 * the same bits.
 * Method: seeded hashes of random and of counting keys; the portable and the
 * chosen path on the same filters; filters of exact size for ASan.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/rng.h"
#include "format/filter.h"

static uint64_t *
counting_hashes(uint64_t from, size_t count)
{
    uint64_t *hashes = malloc(count * sizeof *hashes);
    assert_non_null(hashes);
    for (size_t i = 0; i < count; i++) {
        char key[24];
        int len = snprintf(key, sizeof key, "key%016llu", (unsigned long long)(from + i));
        hashes[i] = hash64(key, (size_t)len, 0);
    }
    return hashes;
}

static void
filter__passes_every_key_and_few_others(void **state)
{
    (void)state;
    static const size_t counts[] = {1, 100, 3276, 3277, 100000, 500000};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        uint32_t page_count = filter_page_count(counts[c]);
        uint8_t *pages = calloc(page_count, FILTER_PAGE_BYTES);
        uint64_t *hashes = counting_hashes(0, counts[c]);
        assert_non_null(pages);
        filter_add_many(pages, page_count, hashes, counts[c]);
        for (size_t i = 0; i < counts[c]; i++) {
            assert_true(filter_may_contain(pages, page_count, hashes[i]));
            assert_true(filter_may_contain_portable(pages, page_count, hashes[i]));
        }
        size_t others = 400000, passed = 0;
        uint64_t *absent = counting_hashes(1ULL << 40, others);
        for (size_t i = 0; i < others; i++) {
            bool may = filter_may_contain(pages, page_count, absent[i]);
            assert_int_equal(may, filter_may_contain_portable(pages, page_count, absent[i]));
            passed += may;
        }
        double rate = 100.0 * (double)passed / (double)others;
        print_message("%zu keys, %u pages: %.2f %% false positives\n", counts[c], page_count, rate);
        assert_true(rate < 2.0);
        free(absent);
        free(hashes);
        free(pages);
    }
}

static void
filter__is_the_same_on_every_cpu(void **state)
{
    (void)state;
    struct rng rng = {.state = 21};
    for (uint32_t page_count = 1; page_count <= 40; page_count += 13) {
        uint8_t *chosen = calloc(page_count, FILTER_PAGE_BYTES),
                *portable = calloc(page_count, FILTER_PAGE_BYTES);
        uint8_t *single = calloc(page_count, FILTER_PAGE_BYTES);
        assert_true(chosen != NULL && portable != NULL && single != NULL);
        for (size_t count = 0; count < 200; count += 7) {
            uint64_t hashes[200];
            for (size_t i = 0; i < count; i++) {
                hashes[i] = rng_next(&rng);
                filter_add(single, page_count, hashes[i]);
            }
            filter_add_many(chosen, page_count, hashes, count);
            filter_add_many_portable(portable, page_count, hashes, count);
            assert_memory_equal(chosen, portable, page_count * (size_t)FILTER_PAGE_BYTES);
            assert_memory_equal(chosen, single, page_count * (size_t)FILTER_PAGE_BYTES);
        }
        free(chosen);
        free(portable);
        free(single);
    }
}

static void
filter__stays_inside_its_pages(void **state)
{
    (void)state;
    static const uint64_t extremes[] = {0,           1, UINT32_MAX, 1ULL << 32, UINT64_MAX, UINT64_MAX << 32,
                                        127ULL << 32};
    for (uint32_t page_count = 1; page_count <= 64; page_count *= 4) {
        uint8_t *pages = calloc(page_count, FILTER_PAGE_BYTES);
        assert_non_null(pages);
        for (size_t i = 0; i < sizeof extremes / sizeof extremes[0]; i++) {
            filter_add(pages, page_count, extremes[i]);
            assert_true(filter_may_contain(pages, page_count, extremes[i]));
            const uint8_t *line = filter_line(pages, page_count, extremes[i]);
            assert_true(line >= pages && line + 32 <= pages + (size_t)page_count * FILTER_PAGE_BYTES);
            assert_int_equal((line - pages) % 32, 0);
        }
        free(pages);
    }
    assert_int_equal(filter_page_count(0), 1);
    assert_int_equal(filter_page_count(3276), 1);
    assert_int_equal(filter_page_count(3277), 2);
    assert_int_equal(filter_page_count(1000000), 306);
    assert_int_equal(filter_page_count(UINT64_MAX), UINT32_MAX);
}

static void
filter__format_is_what_the_header_says(void **state)
{
    (void)state;
    /* (hash >> 32) * 3 >> 32 = 2 and (hash >> 32) & 127 = 0x21. */
    uint64_t hash = 0xc0de002100000001ULL;
    uint8_t pages[3 * FILTER_PAGE_BYTES] = {0}, expected[3 * FILTER_PAGE_BYTES] = {0};
    /* Times 1, the odd constants themselves; their top five bits: 8 8 17 20 14 5 19 11. */
    static const uint8_t bits[8] = {8, 8, 17, 20, 14, 5, 19, 11};
    for (size_t word = 0; word < 8; word++) {
        expected[2 * FILTER_PAGE_BYTES + 0x21 * 32 + 4 * word + bits[word] / 8] =
            (uint8_t)(1U << (bits[word] % 8));
    }
    filter_add(pages, 3, hash);
    assert_memory_equal(pages, expected, sizeof pages);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filter__passes_every_key_and_few_others),
        cmocka_unit_test(filter__is_the_same_on_every_cpu),
        cmocka_unit_test(filter__stays_inside_its_pages),
        cmocka_unit_test(filter__format_is_what_the_header_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
