/* SPDX-License-Identifier: MIT */
/*
 * Goal: keys are a permutation in a known order, values betray any change, the
 * zipfian choice has its shape, the reader of results takes no harm from any
 * text, and `diff` names regressions and only those.
 * Method: whole key spaces; each byte of values flipped; a small result cut at
 * each length and changed at each byte; made-up pairs of results.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/bench_command.h"
#include "tools/bench_hgrm.h"
#include "tools/bench_json.h"
#include "tools/bench_keys.h"
#include "tools/bench_score.h"

/* ---- Keys and values ------------------------------------------------------------- */

static void
keys__are_a_permutation(void **state)
{
    (void)state;
    for (uint64_t records = 1; records < 3000; records = records * 3 + 1) {
        struct bench_keys keys;
        bench_keys_init(&keys, records, records);
        assert_true(keys.capacity >= records * 2);
        uint8_t *seen = calloc(keys.capacity, 1);
        assert_non_null(seen);
        for (uint64_t i = 0; i < keys.capacity; i++) {
            uint64_t rank = bench_rank_of(&keys, i);
            assert_true(rank < keys.capacity);
            assert_int_equal(seen[rank], 0);
            seen[rank] = 1;
        }
        free(seen);
    }
}

static void
keys__are_ordered_by_rank_and_hit_by_index(void **state)
{
    (void)state;
    struct bench_keys keys;
    bench_keys_init(&keys, 1000, 3);
    uint8_t last[BENCH_KEY_BYTES], key[BENCH_KEY_BYTES];
    bench_key_at_rank(&keys, 0, last);
    for (uint64_t rank = 1; rank < keys.capacity; rank++) {
        bench_key_at_rank(&keys, rank, key);
        assert_true(memcmp(last, key, sizeof key) < 0);
        memcpy(last, key, sizeof key);
    }
    /* Absent keys are those of no loaded record. */
    for (uint64_t i = 0; i < keys.capacity - keys.records; i++) {
        bench_key_absent(&keys, i, key);
        for (uint64_t j = 0; j < keys.records; j += 7) {
            bench_key_of(&keys, j, last);
            assert_memory_not_equal(last, key, sizeof key);
        }
    }
}

static void
values__betray_every_changed_byte(void **state)
{
    static const size_t sizes[] = {BENCH_VALUE_BYTES_MIN, 100, 101, 1024, 1025, 5000, BENCH_VALUE_BYTES_MAX};
    (void)state;
    struct bench_keys keys;
    bench_keys_init(&keys, 100, 1);
    uint8_t *value = malloc(BENCH_VALUE_BYTES_MAX);
    assert_non_null(value);
    uint8_t key[BENCH_KEY_BYTES];
    bench_key_of(&keys, 5, key);
    struct bytes key_bytes = bytes_make(key, sizeof key);
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        size_t size = sizes[i];
        uint64_t version = 0;
        bench_value_fill(key, 77, value, size);
        assert_true(bench_value_check(key_bytes, bytes_make(value, size), size, &version));
        assert_int_equal(version, 77);
        for (size_t at = 0; at<size; at += size> 5000 && at + 97 < size - 8 ? 97 : 1) {
            value[at] ^= 0x10;
            assert_false(bench_value_check(key_bytes, bytes_make(value, size), size, &version));
            bool betrays_ends = at < 16 || at >= size - 8 || size <= 1024;
            assert_int_equal(bench_value_check_ends(key_bytes, bytes_make(value, size), size), !betrays_ends);
            value[at] ^= 0x10;
        }
        assert_false(bench_value_check(key_bytes, bytes_make(value, size - 1), size, &version));
        key[3] ^= 1;
        assert_false(bench_value_check(key_bytes, bytes_make(value, size), size, &version));
        key[3] ^= 1;
        assert_true(bench_value_check(key_bytes, bytes_make(value, size), size, &version));
    }
    free(value);
}

static void
zipf__has_its_shape(void **state)
{
    enum { ITEMS = 1000, DRAWS = 400000 };

    (void)state;
    struct bench_zipf zipf;
    bench_zipf_init(&zipf, ITEMS, 0.99);
    struct rng rng = {.state = 11};
    static uint32_t counts[ITEMS];
    for (uint32_t i = 0; i < DRAWS; i++) {
        uint64_t item = bench_zipf_next(&zipf, &rng);
        assert_true(item < ITEMS);
        counts[item]++;
    }
    /* The first two items come as often as the law says; the approximation is coarser further on. */
    for (uint32_t i = 0; i < 2; i++) {
        double expected = (double)DRAWS / pow(i + 1, 0.99) / zipf.zetan;
        assert_true(fabs(counts[i] - expected) < expected / 20);
    }
    assert_true(counts[10] > counts[100] && counts[100] > counts[900]);
}

/* ---- Histograms ------------------------------------------------------------------- */

static void
hgrm__counts_everything_in_order(void **state)
{
    (void)state;
    struct histogram *histogram = calloc(1, sizeof *histogram);
    assert_non_null(histogram);
    for (uint64_t i = 1; i <= 100000; i++) {
        histogram_add(histogram, i);
    }
    assert_true(fabs(bench_histogram_mean(histogram) - 50000.5) < 500);
    FILE *file = tmpfile();
    assert_non_null(file);
    bench_hgrm_print(histogram, file);
    rewind(file);
    char line[256];
    double last_value = 0.0, last_share = 0.0;
    unsigned long long last_count = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        char *at = line;
        double value = strtod(at, &at);
        if (at == line) {
            continue; /* the header and the footer */
        }
        double share = strtod(at, &at);
        unsigned long long count = strtoull(at, &at, 10);
        assert_true(value >= last_value && share > last_share && count > last_count);
        /* A value in microseconds, within 1 % of the share of 100 us. */
        assert_true(fabs(value - share * 100.0) <= share + 0.002);
        last_value = value;
        last_share = share;
        last_count = count;
    }
    assert_int_equal(last_count, 100000);
    assert_true(last_share == 1.0);
    (void)fclose(file);
    free(histogram);
}

/* ---- The reader --------------------------------------------------------------------- */

static const char sample[] =
    "{\"format\": 1, \"command\": [\"a\", \"\\u0041\\n\\\"\"], \"empty\": {}, \"none\": [],\n"
    " \"cells\": [{\"workload\": \"w\", \"value\": -1.5e3, \"ok\": true, \"series\": [{\"rate\": 2}, {}]},\n"
    "  {\"workload\": null, \"deep\": [[[1]]]}]}";

struct visit_log {
    char text[4096];
    size_t len;
    uint32_t left; /* visits until the visitor says no */
};

static bool
visit_note(void *ctx, const char *path, const struct bench_json_value *value)
{
    struct visit_log *log = ctx;
    char number[32];
    (void)snprintf(number, sizeof number, "%g", value->number);
    const char *text = value->kind == BENCH_JSON_OBJECT_END ? "}"
                       : value->kind == BENCH_JSON_NUMBER   ? number
                                                            : value->text;
    size_t room = sizeof log->text - log->len;
    int len = snprintf(log->text + log->len, room, "%s=%s;", path, text);
    log->len = MIN(log->len + (size_t)len, sizeof log->text - 1);
    return log->left == 0 || --log->left > 0;
}

static void
json__calls_with_paths(void **state)
{
    (void)state;
    struct visit_log log = {.len = 0};
    assert_true(bench_json_read(sample, sizeof sample - 1, visit_note, &log));
    assert_string_equal(log.text, "format=1;command/*=a;command/*=A\n\";empty=};cells/*/workload=w;"
                                  "cells/*/value=-1500;cells/*/ok=true;cells/*/series/*/rate=2;"
                                  "cells/*/series/*=};cells/*/series/*=};cells/*=};"
                                  "cells/*/workload=null;cells/*/deep/*/*/*=1;cells/*=};=};");
}

static void
json__refuses_every_cut(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof sample - 1; len++) {
        char *exact = malloc(len + 1);
        assert_non_null(exact);
        memcpy(exact, sample, len);
        struct visit_log log = {.len = 0};
        assert_false(bench_json_read(exact, len, visit_note, &log));
        free(exact);
    }
}

static void
json__takes_no_harm_from_changed_bytes(void **state)
{
    (void)state;
    char changed[sizeof sample];
    for (size_t at = 0; at < sizeof sample - 1; at++) {
        for (int byte = 0; byte < 256; byte++) {
            memcpy(changed, sample, sizeof sample);
            changed[at] = (char)byte;
            struct visit_log log = {.len = 0};
            (void)bench_json_read(changed, sizeof sample - 1, visit_note, &log);
        }
    }
}

static void
json__bounds_depth_paths_and_strings(void **state)
{
    (void)state;
    static char text[8192];
    struct visit_log log = {.len = 0};
    memset(text, '[', sizeof text);
    assert_false(bench_json_read(text, sizeof text, visit_note, &log));
    /* A key longer than any path is refused; a value longer than the buffer is cut. */
    int len = snprintf(text, sizeof text, "{\"%0300d\": 1}", 0);
    assert_false(bench_json_read(text, (size_t)len, visit_note, &log));
    log.len = 0;
    len = snprintf(text, sizeof text, "{\"k\": \"%01000d\"}", 0);
    assert_true(bench_json_read(text, (size_t)len, visit_note, &log));
    assert_int_equal(strlen("k=;=};") + BENCH_JSON_STRING_MAX - 1, log.len);
    static const char *const bad[] = {
        "",   "{",   "}",   "{\"a\"}",  "{\"a\": }", "{\"a\": 1,}", "[1,]", "[1 2]",  "1 2",    "{} x",
        "+1", "--1", "nul", "\"a\nb\"", "\"\\x\"",   "\"\\u12g4\"", "[1}",  "{1: 2}", "1e400x", "\"open"};
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        if (bench_json_read(bad[i], strlen(bad[i]), visit_note, &log)) {
            fail_msg("accepted %s", bad[i]);
        }
    }
    log = (struct visit_log){.left = 1};
    assert_false(bench_json_read(sample, sizeof sample - 1, visit_note, &log));
}

/* ---- diff ------------------------------------------------------------------------------ */

/* A result with three rounds of esker and of one peer. */
static void
write_result(const char *path, const double own[3], const double peer[3], const char *better)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "{\"cells\": [");
    for (int i = 0; i < 6; i++) {
        double value = i < 3 ? own[i] : peer[i - 3];
        fprintf(file,
                "%s{\"workload\": \"w\", \"engine\": \"%s\", \"round\": %d, \"status\": \"done\", "
                "\"better\": \"%s\", \"value\": %g, \"series\": [{\"name\": \"x\", \"rate\": %g}]}",
                i == 0 ? "" : ", ", i < 3 ? "esker" : "other", i % 3, better, value, value);
    }
    fprintf(file, "]}\n");
    assert_int_equal(fclose(file), 0);
}

static int
diff_of(const double own_a[3], const double peer_a[3], const double own_b[3], const double peer_b[3],
        const char *better)
{
    char path_a[] = "/tmp/esker-bench-a-XXXXXX", path_b[] = "/tmp/esker-bench-b-XXXXXX";
    assert_true(close(mkstemp(path_a)) == 0 && close(mkstemp(path_b)) == 0);
    write_result(path_a, own_a, peer_a, better);
    write_result(path_b, own_b, peer_b, better);
    char name[] = "diff";
    char *argv[] = {name, path_a, path_b, NULL};
    int code = bench_diff_command(3, argv);
    (void)unlink(path_a);
    (void)unlink(path_b);
    return code;
}

static void
diff__names_what_got_worse(void **state)
{
    (void)state;
    static const double base[3] = {100, 110, 90}, slow[3] = {80, 88, 72}, fast[3] = {130, 140, 120};
    static const double mixed[3] = {80, 70, 95}; /* slower on the whole, but not in every round */
    assert_int_equal(diff_of(base, base, base, base, "higher"), 0);
    assert_int_equal(diff_of(base, base, slow, base, "higher"), 1);
    assert_int_equal(diff_of(base, base, fast, base, "higher"), 0);
    assert_int_equal(diff_of(base, base, mixed, base, "higher"), 0);
    /* The machine got slower, not the engine; or the engine kept pace with a faster machine only in part. */
    assert_int_equal(diff_of(base, base, slow, slow, "higher"), 0);
    assert_int_equal(diff_of(base, base, base, fast, "higher"), 1);
    /* Seconds: less is better. */
    assert_int_equal(diff_of(base, base, fast, base, "lower"), 1);
    assert_int_equal(diff_of(base, base, slow, base, "lower"), 0);
}

static void
diff__refuses_what_is_no_result(void **state)
{
    (void)state;
    char path[] = "/tmp/esker-bench-c-XXXXXX", name[] = "diff", missing[] = "/nowhere/x.json";
    char word[] = "--threshold", bad[] = "x";
    assert_int_equal(close(mkstemp(path)), 0);
    char *none[] = {name, path, missing, NULL};
    assert_int_equal(bench_diff_command(3, none), 3);
    assert_int_equal(bench_diff_command(2, none), 2);
    char *threshold[] = {name, path, path, word, bad, NULL};
    assert_int_equal(bench_diff_command(5, threshold), 2);
    (void)unlink(path);
}

static void
median__skips_what_is_missing(void **state)
{
    (void)state;
    double nan = (double)NAN;
    assert_true(bench_median((double[]){3, nan, 1, 2}, 4) == 2.0);
    assert_true(bench_median((double[]){4, 1, nan, nan}, 4) == 2.5);
    assert_true(isnan(bench_median((double[]){nan, nan}, 2)));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys__are_a_permutation),
        cmocka_unit_test(keys__are_ordered_by_rank_and_hit_by_index),
        cmocka_unit_test(values__betray_every_changed_byte),
        cmocka_unit_test(zipf__has_its_shape),
        cmocka_unit_test(hgrm__counts_everything_in_order),
        cmocka_unit_test(json__calls_with_paths),
        cmocka_unit_test(json__refuses_every_cut),
        cmocka_unit_test(json__takes_no_harm_from_changed_bytes),
        cmocka_unit_test(json__bounds_depth_paths_and_strings),
        cmocka_unit_test(diff__names_what_got_worse),
        cmocka_unit_test(diff__refuses_what_is_no_result),
        cmocka_unit_test(median__skips_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
