/* SPDX-License-Identifier: MIT */
/*
 * Goal: ESKER_CPU=scalar turns the wide paths off and nothing else does, and the
 * chosen path makes the same filter as the portable one.
 * Method: this program runs twice, with the variable and without (tests.cmake).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/rng.h"
#include "format/cpu.h"
#include "format/filter.h"

#define CPU_TEST_FILTER_HASH 0xa553338cb39104bcULL

static bool
test_wants_scalar(void)
{
    const char *wish = getenv("ESKER_CPU");
    return wish != NULL && strcmp(wish, "scalar") == 0;
}

static void
cpu__is_what_the_environment_says(void **state)
{
    (void)state;
    bool wide = false;
#if CPU_MAY_HAVE_AVX2
    __builtin_cpu_init();
    wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#endif
    assert_int_equal(cpu_has_avx2(), wide && !test_wants_scalar());
}

/* One number for both runs, so that they are compared with each other, too. */
static void
cpu__does_not_change_what_is_written(void **state)
{
    (void)state;

    enum { HASHES = 5000 };

    static uint64_t hashes[HASHES];
    struct rng rng = {1};
    for (size_t i = 0; i < HASHES; i++) {
        hashes[i] = rng_next(&rng);
    }
    uint32_t pages = filter_page_count(HASHES);
    uint8_t *filter = calloc(pages, FILTER_PAGE_BYTES);
    assert_non_null(filter);
    filter_add_many(filter, pages, hashes, HASHES);
    for (size_t i = 0; i < HASHES; i++) {
        assert_true(filter_may_contain(filter, pages, hashes[i]));
    }
    assert_int_equal(hash64(filter, (size_t)pages * FILTER_PAGE_BYTES, 0), CPU_TEST_FILTER_HASH);
    free(filter);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cpu__is_what_the_environment_says),
        cmocka_unit_test(cpu__does_not_change_what_is_written),
    };
    return cmocka_run_group_tests_name("cpu", tests, NULL, NULL);
}
