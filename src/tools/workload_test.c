/* SPDX-License-Identifier: MIT */
/*
 * Goal: the plans have the rows, rates and counts that are theirs; every preset
 * runs and passes its own verification, also stopped, killed and on a failing
 * disk; each mistake that can be made on purpose is found by the property
 * whose business it is; the CSV has the plan's columns in the plan's order.
 * Method: rows of presets at a high time scale, in the processes that the tool
 * would start (they call esker_open() and start threads, so this runs under
 * the race detector too). No figure that depends on a clock is looked at.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/compiler.h"
#include "tools/plot_csv.h"
#include "tools/workload_area.h"
#include "tools/workload_report.h"

static const struct workload_preset *
preset_named(const char *name)
{
    for (uint32_t i = 0; i < workload_preset_count; i++) {
        if (strcmp(workload_presets[i].name, name) == 0) {
            return &workload_presets[i];
        }
    }
    fail_msg("no preset %s", name);
    return NULL;
}

static struct workload_config
preset_row(const char *name, uint32_t row)
{
    struct workload_config config;
    workload_config_init(&config);
    preset_named(name)->fill(&config, row);
    assert_null(workload_config_fault(&config));
    if (config.label[0] == 0) {
        workload_config_label(&config);
    }
    return config;
}

static struct workload_result *
run_row(const struct workload_config *config)
{
    /* In memory where that is possible: a hundred databases are made, and syncs are not the subject. */
    bool in_memory = access("/dev/shm", W_OK) == 0;
    char base[64];
    char dir[80];
    esker_options options;
    struct workload_result *result = calloc(1, sizeof *result);
    assert_non_null(result);
    (void)snprintf(base, sizeof base, "%s/esker-workload-test-XXXXXX", in_memory ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(base));
    (void)snprintf(dir, sizeof dir, "%s/db", base);
    esker_options_init(&options);
    options.memory_budget_bytes = 16 << 20;
    workload_run_row(config, &options, dir, false, result);
    assert_int_equal(rmdir(base), 0); /* it removed what it made */
    return result;
}

static void
assert_good(const struct workload_config *config, const struct workload_result *result)
{
    for (int i = 0; i < WORKLOAD_CHECKS; i++) {
        if (result->verdicts[i].faults > 0 || !result->verdicts[i].done) {
            fail_msg("%s: %s: %s (%s)", config->label, workload_check_names[i], result->verdicts[i].story,
                     result->failure);
        }
    }
    if (!workload_result_good(result)) {
        fail_msg("%s: %s", config->label, result->failure);
    }
}

/* ---- Keys, values, plans ---------------------------------------------------------- */

static void
keys__are_read_as_they_are_written(void **state)
{
    (void)state;
    const uint32_t numbers[] = {0, 1, 42, 999999, 1000000, (1U << WORKLOAD_KEY_SHIFT) - 1};
    char text[WORKLOAD_KEY_TEXT];
    uint32_t key = 0;
    for (enum workload_key_kind kind = WORKLOAD_KEY_WRITTEN; kind <= WORKLOAD_KEY_POOL; kind++) {
        for (size_t i = 0; i < COUNTOF(numbers); i++) {
            uint32_t wanted = workload_key(kind, numbers[i]);
            size_t len = workload_key_text(wanted, text);
            assert_true(workload_key_parse(text, len, &key));
            assert_int_equal(key, wanted);
        }
    }
    assert_int_equal(workload_key_text(workload_key(WORKLOAD_KEY_WRITTEN, 7), text), 10);
    assert_string_equal(text, "key_000007");
    const char *const wrong[] = {"",
                                 "key",
                                 "key_",
                                 "key_00007",
                                 "key_0000007",
                                 "head_",
                                 "headx",
                                 "key_536870912",
                                 "key_-00007",
                                 "pool_00000x",
                                 "kez_000007",
                                 "key_000007 ",
                                 "key_99999999999999999999"};
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        assert_false(workload_key_parse(wrong[i], strlen(wrong[i]), &key));
    }
}

static void
values__tell_when_a_byte_is_not_theirs(void **state)
{
    (void)state;
    uint8_t value[100];
    struct workload_stamp stamp = {.nonce = 77, .txn = 5, .keys = 3, .merged = 2};
    struct workload_stamp seen;
    uint32_t key = workload_key(WORKLOAD_KEY_WRITTEN, 9);
    workload_value_fill(value, sizeof value, key, &stamp);
    assert_true(workload_value_read(value, sizeof value, key, &seen));
    assert_int_equal(seen.nonce, 77);
    assert_int_equal(seen.txn, 5);
    assert_int_equal(seen.keys, 3);
    assert_int_equal(seen.merged, 2);
    assert_false(workload_value_read(value, sizeof value, key + 1, &seen));
    for (size_t size = 0; size < sizeof value; size++) {
        assert_false(workload_value_read(value, size, key, &seen));
    }
    for (size_t i = 0; i < sizeof value; i++) {
        value[i] ^= 1;
        assert_false(workload_value_read(value, sizeof value, key, &seen));
        value[i] ^= 1;
    }
}

/* Sums over the clients of a role. */
static uint64_t
due_of(const struct workload_config *config, enum workload_role role)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < config->clients[role]; i++) {
        sum += workload_due_count(config, role, i);
    }
    return sum;
}

static void
plans__have_their_rows_and_counts(void **state)
{
    (void)state;
    struct workload_config config = preset_row("baseline", 0);
    assert_string_equal(config.label, "W1_WR0.10_RD2_RT100");
    assert_int_equal(due_of(&config, WORKLOAD_MONOTONIC), 12);
    assert_int_equal(due_of(&config, WORKLOAD_READER), 24000);
    assert_int_equal(preset_named("sweep")->rows, 15);
    config = preset_row("sweep", 14);
    assert_string_equal(config.label, "W3_WR0.20_RD2_RT100");
    assert_int_equal(due_of(&config, WORKLOAD_MONOTONIC), 36);
    assert_int_equal(preset_named("sweep-original")->rows, 60);
    config = preset_row("sweep-original", 59);
    assert_string_equal(config.label, "W1_WR0.08_RD5_RT300_C1");
    assert_int_equal(due_of(&config, WORKLOAD_READER), 90000);
    /* 20 seconds between compactions, and 5 of sleep. */
    config = preset_row("baseline-original", 0);
    assert_int_equal(due_of(&config, WORKLOAD_COMPACTOR), 5);
    config = preset_row("readers-1000", 0);
    assert_int_equal(config.clients[WORKLOAD_READER], 1000);
    assert_int_equal(due_of(&config, WORKLOAD_READER), 600000);
}

static void
plans__differ_in_every_row(void **state)
{
    (void)state;
    const char *const names[] = {"sweep", "sweep-original", "chaos"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        uint32_t rows = preset_named(names[i])->rows;
        for (uint32_t a = 0; a < rows; a++) {
            for (uint32_t b = a + 1; b < rows; b++) {
                assert_string_not_equal(preset_row(names[i], a).label, preset_row(names[i], b).label);
            }
        }
    }
}

static void
dues__only_go_forward_and_keep_the_rate(void **state)
{
    (void)state;

    const enum workload_shape shapes[] = {WORKLOAD_STEADY, WORKLOAD_RAMP, WORKLOAD_BURST};

    const uint64_t wanted[] = {6000, 3300, 6000}; /* a ramp has 55 % of its peak on average */
    for (size_t i = 0; i < COUNTOF(shapes); i++) {
        struct workload_config config = preset_row("baseline", 0);
        config.shape = shapes[i];
        config.clients[WORKLOAD_READER] = 3;
        config.seconds = 20;
        double last = 0;
        for (uint64_t n = 0; n < 3000; n++) {
            double due = workload_due(&config, WORKLOAD_READER, 1, n);
            assert_true(due > last);
            last = due;
        }
        assert_int_equal(due_of(&config, WORKLOAD_READER), wanted[i]);
    }
}

static void
chaos__is_read_as_it_is_printed(void **state)
{
    (void)state;
    const char *const good[] = {"none",
                                "cpu=4@80",
                                "stop=3x10",
                                "kill=2",
                                "slow=200",
                                "fail=3",
                                "cpu=4@80,stop=3x0.5,kill=2",
                                "slow=0.25,fail=3"};
    const char *const wrong[] = {"",           "cpu",        "cpu=4",   "cpu=4@101",    "stop=3",
                                 "kill=0",     "kill=-1",    "slow=0",  "slow=1e99",    "fail=1.5",
                                 "kill=2,",    ",kill=2",    "kill=2 ", "kill=2kill=2", "slow=nan",
                                 "cpu=0x4@80", "none,kill=1"};
    char text[64];
    struct workload_chaos chaos;
    for (size_t i = 0; i < COUNTOF(good); i++) {
        assert_true(workload_chaos_parse(good[i], &chaos));
        workload_chaos_print(&chaos, text, sizeof text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < COUNTOF(wrong); i++) {
        if (workload_chaos_parse(wrong[i], &chaos)) {
            fail_msg("'%s' was taken", wrong[i]);
        }
    }
}

/* ---- Rows that run ------------------------------------------------------------------ */

static void
baseline__writes_12_reads_24000_and_never_conflicts(void **state)
{
    (void)state;
    struct workload_config config = preset_row("baseline", 0);
    config.time_scale = 120;
    struct workload_result *result = run_row(&config);
    assert_good(&config, result);
    assert_int_equal(result->roles[WORKLOAD_MONOTONIC].done, 12);
    assert_int_equal(result->roles[WORKLOAD_READER].done, 24000);
    assert_int_equal(result->roles[WORKLOAD_MONOTONIC].conflicts, 0);
    assert_int_equal(result->keys_left, 13); /* and head */
    free(result);
}

/* A few seconds of each plan. Of a plan with many rows one in seven, unless there is time. */
static void
presets__pass_their_verification(void **state)
{
    (void)state;
    bool all = getenv("ESKER_LONG_TESTS") != NULL;
    for (uint32_t i = 0; i < workload_preset_count; i++) {
        uint32_t step = workload_presets[i].rows > 9 && !all ? 7 : 1;
        for (uint32_t row = 0; row < workload_presets[i].rows; row += step) {
            struct workload_config config = preset_row(workload_presets[i].name, row);
            double seconds = config.clients[WORKLOAD_READER] > 100 ? 2 : 6;
            config.chaos.stop_seconds *= seconds / config.seconds;
            config.seconds = seconds;
            config.time_scale = 120;
            config.ops_max = 5000;
            struct workload_result *result = run_row(&config);
            assert_good(&config, result);
            uint64_t wanted = due_of(&config, WORKLOAD_READER);
            assert_int_equal(result->roles[WORKLOAD_READER].done, wanted);
            free(result);
        }
    }
}

/* Enough goes on that something is under way when it happens. */
static struct workload_config
busy_row(void)
{
    struct workload_config config = preset_row("soak", 0);
    config.seconds = 10;
    config.time_scale = 40;
    config.rate[WORKLOAD_MONOTONIC] = 50;
    config.rate[WORKLOAD_RANDOM] = 50;
    config.value_bytes = 512;
    return config;
}

static void
chaos__kills_and_power_cuts_lose_nothing(void **state)
{
    (void)state;
    const char *const kinds[] = {"kill=3", "fail=4", "stop=2x1", "slow=20"};
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        struct workload_config config = busy_row();
        assert_true(workload_chaos_parse(kinds[i], &config.chaos));
        workload_config_label(&config);
        struct workload_result *result = run_row(&config);
        assert_good(&config, result);
        uint64_t due = due_of(&config, WORKLOAD_MONOTONIC);
        const struct workload_role_result *writer = &result->roles[WORKLOAD_MONOTONIC];
        assert_int_equal(writer->done + writer->retry_failures, due);
        if (config.chaos.kills > 0) {
            assert_int_equal(result->restarts, config.chaos.kills);
        }
        assert_int_equal(result->restarts > 0, config.chaos.kills > 0 || config.chaos.io_fails > 0);
        free(result);
    }
}

static void
writers__conflict_retry_and_give_up(void **state)
{
    (void)state;
    struct workload_config config = preset_row("writers-10", 0);
    config.rate[WORKLOAD_MONOTONIC] = 0;
    config.ops_max = 300;
    config.retries_max = 1;
    config.clients[WORKLOAD_READER] = 0;
    struct workload_result *result = run_row(&config);
    assert_good(&config, result);
    const struct workload_role_result *writer = &result->roles[WORKLOAD_MONOTONIC];
    assert_true(writer->conflicts > 0);
    assert_int_equal(writer->done + writer->retry_failures, 3000);
    assert_int_equal(writer->attempts, writer->done + writer->conflicts);
    assert_int_equal(writer->retries, writer->conflicts - writer->retry_failures);
    assert_int_equal(result->keys_left, writer->done + 1);
    free(result);
}

/* ---- Negative controls ---------------------------------------------------------------- */

static void
mistakes__are_each_found(void **state)
{
    (void)state;

    static const struct {
        enum workload_inject inject;
        int found_by[3]; /* -1: no more */
    } cases[] = {
        {WORKLOAD_INJECT_NOTHING, {-1, -1, -1}},
        {WORKLOAD_INJECT_LOST_COMMIT,
         {WORKLOAD_CHECK_LOST, WORKLOAD_CHECK_DUPLICATES, WORKLOAD_CHECK_SERIAL}},
        {WORKLOAD_INJECT_TORN_BATCH, {WORKLOAD_CHECK_BATCHES, WORKLOAD_CHECK_LOST, WORKLOAD_CHECK_SERIAL}},
        {WORKLOAD_INJECT_STALE_SNAPSHOT,
         {WORKLOAD_CHECK_SNAPSHOTS, WORKLOAD_CHECK_SESSIONS, WORKLOAD_CHECK_SERIAL}},
        {WORKLOAD_INJECT_READ_SKEW, {WORKLOAD_CHECK_SNAPSHOTS, WORKLOAD_CHECK_SERIAL, -1}},
        {WORKLOAD_INJECT_NON_MONOTONIC, {WORKLOAD_CHECK_MONOTONIC, -1, -1}},
        {WORKLOAD_INJECT_DIRTY_READ, {WORKLOAD_CHECK_COMMITTED, WORKLOAD_CHECK_SERIAL, -1}},
        {WORKLOAD_INJECT_BLIND_WRITE, {WORKLOAD_CHECK_DUPLICATES, WORKLOAD_CHECK_LOST, -1}},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct workload_config config = busy_row();
        config.inject = cases[i].inject;
        if (config.inject == WORKLOAD_INJECT_READ_SKEW) {
            config.pool_keys = 40; /* few, so that what is read out of turn has changed */
        }
        if (config.inject == WORKLOAD_INJECT_BLIND_WRITE) {
            config.clients[WORKLOAD_MONOTONIC] = 4; /* who must meet */
            config.rate[WORKLOAD_MONOTONIC] = 0;
            config.ops_max = 3000;
        }
        struct workload_result *result = run_row(&config);
        for (size_t j = 0; j < COUNTOF(cases[i].found_by) && cases[i].found_by[j] >= 0; j++) {
            const struct workload_verdict *verdict = &result->verdicts[cases[i].found_by[j]];
            if (!verdict->done || verdict->faults == 0) {
                fail_msg("%s was not found by: %s", workload_inject_names[cases[i].inject],
                         workload_check_names[cases[i].found_by[j]]);
            }
        }
        assert_int_equal(workload_result_good(result), cases[i].inject == WORKLOAD_INJECT_NOTHING);
        free(result);
    }
}

/* ---- CSV -------------------------------------------------------------------------------- */

static void
csv__begins_with_the_columns_of_the_plan(void **state)
{
    (void)state;
    static const char *const columns[] = {"config_label",
                                          "num_writers",
                                          "num_readers",
                                          "writer_rate",
                                          "reader_rate",
                                          "duration_secs",
                                          "total_writes",
                                          "total_reads",
                                          "write_tps",
                                          "read_tps",
                                          "writer_p50_ms",
                                          "writer_p95_ms",
                                          "writer_p99_ms",
                                          "read_p50_ms",
                                          "read_p95_ms",
                                          "read_p99_ms",
                                          "precondition_failure_rate"};
    struct workload_config config = preset_row("sweep-original", 7);
    struct workload_result *result = calloc(1, sizeof *result);
    char *text = NULL;
    size_t size = 0;
    struct plot_csv csv;
    struct plot_csv_fault fault;
    FILE *out = open_memstream(&text, &size);
    assert_non_null(result);
    assert_non_null(out);
    result->span_ns = 1000000000;
    workload_csv_header(out);
    workload_csv_row(out, &config, result);
    assert_int_equal(fclose(out), 0);
    assert_int_equal(plot_csv_parse(bytes_make(text, size), &csv, &fault), ESKER_OK);
    assert_int_equal(csv.rows, 1);
    for (size_t i = 0; i < COUNTOF(columns); i++) {
        assert_string_equal(csv.cells[i], columns[i]);
    }
    assert_string_equal(plot_csv_cell(&csv, 0, 0), "W1_WR0.08_RD1_RT200_C1");
    assert_true(plot_csv_column(&csv, "compactor_p999_ms") > 0);
    plot_csv_fini(&csv);
    free(text);
    free(result);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys__are_read_as_they_are_written),
        cmocka_unit_test(values__tell_when_a_byte_is_not_theirs),
        cmocka_unit_test(plans__have_their_rows_and_counts),
        cmocka_unit_test(plans__differ_in_every_row),
        cmocka_unit_test(dues__only_go_forward_and_keep_the_rate),
        cmocka_unit_test(chaos__is_read_as_it_is_printed),
        cmocka_unit_test(baseline__writes_12_reads_24000_and_never_conflicts),
        cmocka_unit_test(presets__pass_their_verification),
        cmocka_unit_test(chaos__kills_and_power_cuts_lose_nothing),
        cmocka_unit_test(writers__conflict_retry_and_give_up),
        cmocka_unit_test(mistakes__are_each_found),
        cmocka_unit_test(csv__begins_with_the_columns_of_the_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
