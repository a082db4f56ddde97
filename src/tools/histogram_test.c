/* SPDX-License-Identifier: MIT */
/*
 * Goal: what a histogram gives back is off by less than 1 %, at every size.
 * Method: single values over the whole range of 64 bits; known distributions
 * against their exact quantiles; merged halves against the whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "tools/histogram.h"

static struct histogram *
fresh(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);
    assert_non_null(histogram);
    return histogram;
}

static void
assert_close(uint64_t got, uint64_t exact)
{
    uint64_t off = got > exact ? got - exact : exact - got;
    if (off > exact / 100) {
        fail_msg("%llu is not within 1 %% of %llu", (unsigned long long)got, (unsigned long long)exact);
    }
}

static void
histogram__gives_back_any_single_value(void **state)
{
    (void)state;
    struct rng rng = {.state = 7};
    struct histogram *histogram = fresh();
    for (unsigned bits = 0; bits < 64; bits++) {
        uint64_t values[] = {(uint64_t)1 << bits, ((uint64_t)1 << bits) - 1, ((uint64_t)2 << bits) - 1,
                             rng_next(&rng) >> bits};
        for (size_t i = 0; i < COUNTOF(values); i++) {
            memset(histogram, 0, sizeof *histogram);
            histogram_add(histogram, values[i]);
            histogram_add(histogram, UINT64_MAX); /* so that max does not bound the answer */
            assert_close(histogram_quantile(histogram, 1, 2), values[i]);
            assert_int_equal(histogram->max, UINT64_MAX);
        }
    }
    free(histogram);
}

static void
histogram__is_exact_below_128(void **state)
{
    (void)state;
    struct histogram *histogram = fresh();
    for (uint64_t value = 0; value < 128; value++) {
        histogram_add(histogram, value);
    }
    for (uint64_t rank = 1; rank <= 128; rank++) {
        assert_int_equal(histogram_quantile(histogram, rank, 128), rank - 1);
    }
    free(histogram);
}

static int
compare_values(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static void
histogram__quantiles_of_a_skewed_load_are_close(void **state)
{
    (void)state;

    enum { COUNT = 50000 };

    static const uint64_t parts[] = {1, 10, 250, 500, 900, 990, 999, 1000};
    struct rng rng = {.state = 11};
    struct histogram *whole = fresh();
    struct histogram *halves[2] = {fresh(), fresh()};
    uint64_t *values = malloc(COUNT * sizeof *values);
    assert_non_null(values);
    for (size_t i = 0; i < COUNT; i++) {
        values[i] = 200 + (rng_next(&rng) >> (24 + rng_below(&rng, 36)));
        histogram_add(whole, values[i]);
        histogram_add(halves[i % 2], values[i]);
    }
    qsort(values, COUNT, sizeof *values, compare_values);
    histogram_merge(halves[0], halves[1]);
    for (size_t i = 0; i < COUNTOF(parts); i++) {
        size_t rank = (COUNT * parts[i] + 999) / 1000;
        uint64_t got = histogram_quantile(whole, parts[i], 1000);
        assert_close(got, values[rank - 1]);
        assert_int_equal(histogram_quantile(halves[0], parts[i], 1000), got);
    }
    assert_int_equal(whole->max, values[COUNT - 1]);
    assert_int_equal(halves[0]->max, whole->max);
    assert_int_equal(halves[0]->count, COUNT);
    free(values);
    free(halves[0]);
    free(halves[1]);
    free(whole);
}

static void
histogram__empty_has_no_quantile(void **state)
{
    (void)state;
    struct histogram *histogram = fresh();
    assert_int_equal(histogram_quantile(histogram, 99, 100), 0);
    histogram_add(histogram, 0);
    assert_int_equal(histogram_quantile(histogram, 0, 100), 0);
    assert_int_equal(histogram_quantile(histogram, 100, 100), 0);
    free(histogram);
}

static void
histogram__never_answers_above_the_largest_value(void **state)
{
    (void)state;
    struct rng rng = {.state = 5};
    struct histogram *histogram = fresh();
    for (int i = 0; i < 2000; i++) {
        histogram_add(histogram, rng_next(&rng) >> rng_below(&rng, 64));
        assert_true(histogram_quantile(histogram, 100, 100) <= histogram->max);
    }
    free(histogram);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histogram__gives_back_any_single_value),
        cmocka_unit_test(histogram__is_exact_below_128),
        cmocka_unit_test(histogram__quantiles_of_a_skewed_load_are_close),
        cmocka_unit_test(histogram__empty_has_no_quantile),
        cmocka_unit_test(histogram__never_answers_above_the_largest_value),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
