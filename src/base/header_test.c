/* SPDX-License-Identifier: MIT */
/*
 * Goal: the public header stands alone in C17 and its inline functions agree
 * with the library that is linked.
 * Method: it is the first include; every static inline runs; the numbers that
 * programs were compiled with are written out once more, so that a change of
 * one shows here.
 */
#include "esker/esker.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void
header__slices_borrow_their_bytes(void **state)
{
    (void)state;
    static const char text[] = "a\0b";
    esker_slice slice = esker_bytes(text, 3);
    assert_ptr_equal(slice.data, text);
    assert_int_equal(slice.size, 3);
    assert_int_equal(esker_str(text).size, 1);
    assert_int_equal(esker_str("").size, 0);
    assert_null(esker_bytes(NULL, 0).data);
}

static void
header__error_init_clears_all_and_keeps_the_size(void **state)
{
    (void)state;
    esker_error error;
    memset(&error, 0xff, sizeof error);
    esker_error_init(&error);
    esker_error expected;
    memset(&expected, 0, sizeof expected);
    expected.struct_size = sizeof expected;
    assert_memory_equal(&error, &expected, sizeof error);
}

static void
header__status_numbers_are_stable(void **state)
{
    (void)state;
    assert_int_equal(ESKER_OK, 0);
    assert_int_equal(ESKER_NOT_FOUND, 1);
    assert_int_equal(ESKER_END, 2);
    assert_int_equal(ESKER_TRUNCATED, 3);
    assert_int_equal(ESKER_INVALID, -10);
    assert_int_equal(ESKER_UNSUPPORTED, -11);
    assert_int_equal(ESKER_TOO_LARGE, -12);
    assert_int_equal(ESKER_BUSY, -20);
    assert_int_equal(ESKER_CONFLICT, -21);
    assert_int_equal(ESKER_READ_ONLY, -22);
    assert_int_equal(ESKER_FORKED, -23);
    assert_int_equal(ESKER_POISONED, -24);
    assert_int_equal(ESKER_TIMED_OUT, -25);
    assert_int_equal(ESKER_IO, -40);
    assert_int_equal(ESKER_NO_SPACE, -41);
    assert_int_equal(ESKER_CORRUPT, -50);
    assert_int_equal(ESKER_NO_MEMORY, -60);
}

static void
header__option_numbers_are_stable(void **state)
{
    (void)state;
    assert_int_equal(ESKER_DURABLE_DEFAULT, 0);
    assert_int_equal(ESKER_DURABLE_MEMORY, 1);
    assert_int_equal(ESKER_DURABLE_PROCESS, 2);
    assert_int_equal(ESKER_DURABLE_INTERVAL, 3);
    assert_int_equal(ESKER_DURABLE_SYNC, 4);
    assert_int_equal(ESKER_COMPRESS_ZSTD, 3);
    assert_int_equal(ESKER_IO_URING, 1);
    assert_int_equal(ESKER_IO_POSIX, 2);
    assert_int_equal(ESKER_EVENT_BACKGROUND, 5);
    assert_int_equal(ESKER_EVENT_PROGRESS, 6);
}

static void
header__version_string_agrees_with_its_numbers(void **state)
{
    (void)state;
#define TEXT_OF(x)                      #x
#define VERSION_OF(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)
    assert_string_equal(ESKER_VERSION_STRING,
                        VERSION_OF(ESKER_VERSION_MAJOR, ESKER_VERSION_MINOR, ESKER_VERSION_PATCH));
#undef VERSION_OF
#undef TEXT_OF
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header__slices_borrow_their_bytes),
        cmocka_unit_test(header__error_init_clears_all_and_keeps_the_size),
        cmocka_unit_test(header__status_numbers_are_stable),
        cmocka_unit_test(header__option_numbers_are_stable),
        cmocka_unit_test(header__version_string_agrees_with_its_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
