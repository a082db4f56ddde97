/* SPDX-License-Identifier: MIT */
/*
 * Goal: the picker's choices can be read, and a change of them shows as a
 * difference of text.
 * Method: each testdata/picker_*.txt is a list of cases, separated by empty
 * lines: level tables, one question, a rule, the expected answer. `--rewrite`
 * puts the answers of today into the files; what is right is for a reader of
 * the difference to say.
 *
 *   # comment
 *   config trigger=4 base=100 fanout=8 segment=10 gc=0 inputs=0 eighths=0 bytes=0 tier=0 lazy=0 only=0
 *   level 0: a-c:10 b-d:10
 *   level 6: a-f:100#3!t60@50 g-*:100
 *   pick                           or: range LOWER UPPER, `-` = no bound
 *   ----
 *   0 -> 6 (1.00): b-d a-c | a-f   inputs | overlaps; `move` when trivial
 *
 * A segment is MIN-MAX:BYTES, MAX `*` = no upper bound; then in any order #ID
 * (else counted from 1), ! = claimed, x = damaged, sN = N steps lost, tN = N % deletes, @N = max_lsn,
 * TN = of tier N, as its neighbours in level 0, lN = with LSN N.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/rng.h"
#include "compaction/compaction.h"

enum { SEGMENTS_MAX = 64, WORD_MAX = 32 };

struct table {
    struct segment_meta metas[ESKER_LEVELS_MAX][SEGMENTS_MAX];
    char keys[ESKER_LEVELS_MAX][SEGMENTS_MAX][2][WORD_MAX];
    const struct segment_meta *segments[ESKER_LEVELS_MAX][SEGMENTS_MAX];
    bool claimed[ESKER_LEVELS_MAX][SEGMENTS_MAX];
    bool damaged[ESKER_LEVELS_MAX][SEGMENTS_MAX];
    uint64_t skipped[ESKER_LEVELS_MAX][SEGMENTS_MAX];
    struct level_table levels[ESKER_LEVELS_MAX];
    struct picker_config config;
    uint64_t next_id;
};

static bool rewrite;

static void
table_init(struct table *table)
{
    memset(table, 0, sizeof *table);
    table->config =
        (struct picker_config){.l0_trigger = 4, .base_bytes = 100, .fanout = 8, .segment_bytes = 10};
    for (size_t i = 0; i < ESKER_LEVELS_MAX; i++) {
        table->levels[i] = (struct level_table){.segments = table->segments[i],
                                                .claimed = table->claimed[i],
                                                .damaged = table->damaged[i],
                                                .skipped = table->skipped[i]};
    }
    table->next_id = 1;
}

static void
parse_segment(struct table *table, size_t level, const char *text)
{
    size_t at = table->levels[level].count++;
    assert_true(at < SEGMENTS_MAX);
    struct segment_meta *meta = &table->metas[level][at];
    char(*keys)[WORD_MAX] = table->keys[level][at];
    unsigned long size;
    int used;
    assert_int_equal(sscanf(text, "%31[^-]-%31[^:]:%lu%n", keys[0], keys[1], &size, &used), 3);
    *meta = (struct segment_meta){.id = table->next_id++,
                                  .size_bytes = size,
                                  .row_count = 100,
                                  .level = (uint32_t)level,
                                  .min_key = bytes_make(keys[0], strlen(keys[0])),
                                  .max_key =
                                      bytes_make(keys[1], strcmp(keys[1], "*") == 0 ? 0 : strlen(keys[1]))};
    for (text += used; *text != 0;) {
        char kind = *text++;
        char *end;
        bool plain = kind == '!' || kind == 'x';
        unsigned long number = plain ? 0 : strtoul(text, &end, 10);
        text = plain ? text : end;
        if (kind == '!') {
            table->claimed[level][at] = true;
        } else if (kind == 'x') {
            table->damaged[level][at] = true;
        } else if (kind == '#') {
            meta->id = number;
        } else if (kind == 's') {
            table->skipped[level][at] = number;
        } else if (kind == 't') {
            meta->tombstone_count = number;
        } else if (kind == 'e') { /* how many expire; "-" first and last time follow */
            meta->expiring_count = number;
            meta->expiry_first_ms = strtoul(text + 1, &end, 10);
            meta->expiry_last_ms = strtoul(end + 1, &end, 10);
            text = end;
        } else if (kind == 'T') {
            meta->tier_id = number;
        } else if (kind == 'l') {
            meta->tier_lsn = number;
        } else if (kind == '@') {
            meta->max_lsn = number;
        } else {
            fail_msg("what is '%c' of a segment?", kind);
        }
    }
    table->segments[level][at] = meta;
}

static void
parse_config(struct picker_config *config, char *text)
{
    for (char *word = strtok(text, " "); word != NULL; word = strtok(NULL, " ")) {
        char name[WORD_MAX];
        unsigned long value;
        assert_int_equal(sscanf(word, "%31[^=]=%lu", name, &value), 2);
        if (strcmp(name, "trigger") == 0) {
            config->l0_trigger = (uint32_t)value;
        } else if (strcmp(name, "base") == 0) {
            config->base_bytes = value;
        } else if (strcmp(name, "fanout") == 0) {
            config->fanout = (uint32_t)value;
        } else if (strcmp(name, "segment") == 0) {
            config->segment_bytes = value;
        } else if (strcmp(name, "inputs") == 0) {
            config->l0_inputs_max = (uint32_t)value;
        } else if (strcmp(name, "eighths") == 0) {
            config->l0_eighths = (uint32_t)value;
        } else if (strcmp(name, "bytes") == 0) {
            config->l0_bytes = value;
        } else if (strcmp(name, "tier") == 0) {
            config->l0_tier_bytes = value;
        } else if (strcmp(name, "lazy") == 0) {
            config->lazy = value != 0;
        } else if (strcmp(name, "only") == 0) {
            config->tiers_only = value != 0;
        } else if (strcmp(name, "now") == 0) {
            config->now_ms = value;
        } else {
            assert_string_equal(name, "gc");
            config->gc_lsn = value;
        }
    }
}

static void
print_segments(FILE *out, const struct table *table, uint32_t level, const uint32_t *indexes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        assert_true(indexes[i] < table->levels[level].count);
        assert_true(i == 0 || indexes[i - 1] < indexes[i]);
        assert_false(table->claimed[level][indexes[i]]);
        fprintf(out, " %s-%s", table->keys[level][indexes[i]][0], table->keys[level][indexes[i]][1]);
    }
}

static void
answer(FILE *out, const struct table *table, char *question)
{
    static struct compaction_plan plan;
    bool found;
    if (strcmp(question, "pick") == 0) {
        found = compaction_pick(table->levels, &table->config, &plan);
    } else {
        char lower[WORD_MAX];
        char upper[WORD_MAX];
        assert_int_equal(sscanf(question, "range %31s %31s", lower, upper), 2);
        found = compaction_pick_range(table->levels, &table->config,
                                      bytes_make(lower, strcmp(lower, "-") == 0 ? 0 : strlen(lower)),
                                      bytes_make(upper, strcmp(upper, "-") == 0 ? 0 : strlen(upper)), &plan);
    }
    if (!found) {
        fprintf(out, "%s (%.2f)\n", plan.score >= 1.0 ? "wait" : "nothing", plan.score);
        return;
    }
    assert_true(plan.score >= 1.0);
    fprintf(out, "%u -> %u (%.2f):", plan.input_level, plan.output_level, plan.score);
    print_segments(out, table, plan.input_level, plan.inputs, plan.input_count);
    if (plan.overlap_count > 0) {
        fprintf(out, " |");
        print_segments(out, table, plan.output_level, plan.overlaps, plan.overlap_count);
    }
    fprintf(out, "%s\n", plan.trivial_move ? " move" : plan.drop ? " drop" : "");
}

/* One line of a case that is not an answer. */
static void
take_line(struct table *table, char *line, char *question, size_t question_size)
{
    unsigned level;
    int used = 0;
    if (line[0] == '#') {
        return;
    }
    if (strncmp(line, "config ", 7) == 0) {
        parse_config(&table->config, line + 7);
    } else if (sscanf(line, "level %u:%n", &level, &used) == 1 && used > 0) {
        assert_true(level < ESKER_LEVELS_MAX);
        for (char *word = strtok(line + used, " "); word != NULL; word = strtok(NULL, " ")) {
            parse_segment(table, level, word);
        }
    } else {
        snprintf(question, question_size, "%s", line);
    }
}

static void
read_all(const char *path, char **text_out)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    *text_out = calloc(1, 1 << 16);
    assert_true(fread(*text_out, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
}

static void
run_table_file(const char *name)
{
    char path[512];
    const char *slash = strrchr(__FILE__, '/');
    snprintf(path, sizeof path, "%.*s/testdata/%s", (int)(slash - __FILE__), __FILE__, name);
    char *text;
    read_all(path, &text);
    char *fresh = NULL;
    size_t fresh_size = 0;
    FILE *out = open_memstream(&fresh, &fresh_size);
    static struct table table;
    table_init(&table);
    char question[128] = "";
    bool answering = false;
    for (char *line = text; *line != 0;) {
        size_t length = strcspn(line, "\n");
        char *next = line + length + (line[length] == '\n');
        line[length] = 0;
        if (length == 0) {
            table_init(&table);
            answering = false;
        }
        if (!answering) {
            fprintf(out, "%s\n", line);
        }
        if (strcmp(line, "----") == 0) {
            answer(out, &table, question);
            answering = true;
        } else if (length > 0 && !answering) {
            take_line(&table, line, question, sizeof question);
        }
        line = next;
    }
    fclose(out);
    free(text);
    if (rewrite) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs(fresh, file);
        fclose(file);
    }
    read_all(path, &text);
    assert_string_equal(fresh, text);
    free(text);
    free(fresh);
}

static void
compaction_pick__shape_of_the_tree(void **state)
{
    (void)state;
    run_table_file("picker_shape.txt");
}

static void
compaction_pick__choice_within_a_level(void **state)
{
    (void)state;
    run_table_file("picker_choice.txt");
}

static void
compaction_pick__claims(void **state)
{
    (void)state;
    run_table_file("picker_claims.txt");
}

static void
compaction_pick__deletes(void **state)
{
    (void)state;
    run_table_file("picker_deletes.txt");
}

static void
compaction_pick__expired(void **state)
{
    (void)state;
    run_table_file("picker_expired.txt");
}

static void
compaction_pick__tiers_of_level_0(void **state)
{
    (void)state;
    run_table_file("picker_tiers.txt");
}

static void
compaction_pick_range__steps_down(void **state)
{
    (void)state;
    run_table_file("picker_range.txt");
}

/* More than a plan can name: the oldest part of level 0 goes first. */
static void
compaction_pick__more_than_a_plan_can_name(void **state)
{
    (void)state;

    enum { COUNT = COMPACTION_INPUTS_MAX + 5 };
    static const struct segment_meta *segments[COUNT];
    static bool claimed[COUNT];
    static struct compaction_plan plan;
    struct segment_meta meta = {.size_bytes = 1, .row_count = 1, .min_key = bytes_make("a", 1)};
    for (size_t i = 0; i < COUNT; i++) {
        segments[i] = &meta;
    }
    struct picker_config config = {.l0_trigger = 4, .base_bytes = 100, .fanout = 8, .segment_bytes = 10};
    struct level_table levels[ESKER_LEVELS_MAX] = {{0}};
    levels[0] = (struct level_table){.segments = segments, .claimed = claimed, .count = COUNT};
    assert_true(compaction_pick(levels, &config, &plan));
    assert_int_equal(plan.input_count, COMPACTION_INPUTS_MAX);
    assert_int_equal(plan.inputs[0], COUNT - COMPACTION_INPUTS_MAX);
    assert_int_equal(plan.inputs[COMPACTION_INPUTS_MAX - 1], COUNT - 1);
    config.l0_inputs_max = 3; /* nor more than can be open together, asked for or not */
    assert_true(compaction_pick(levels, &config, &plan));
    assert_int_equal(plan.input_count, 3);
    assert_int_equal(plan.inputs[0], COUNT - 3);
    assert_true(compaction_pick_range(levels, &config, (struct bytes){0}, (struct bytes){0}, &plan));
    assert_int_equal(plan.input_count, 3);
    assert_int_equal(plan.inputs[2], COUNT - 1);
    config.l0_inputs_max = 0;
    levels[0] = (struct level_table){0};
    levels[5] = (struct level_table){.segments = segments, .claimed = claimed, .count = COUNT};
    levels[6] = (struct level_table){.segments = segments, .claimed = claimed, .count = 1};
    assert_true(compaction_pick_range(levels, &config, (struct bytes){0}, (struct bytes){0}, &plan));
    assert_int_equal(plan.input_count, COMPACTION_INPUTS_MAX);
    assert_int_equal(plan.inputs[0], 0);
    /* More overlaps than a plan can name: that segment stays where it is. */
    levels[5].count = 1;
    levels[6].count = COUNT;
    assert_false(compaction_pick_range(levels, &config, (struct bytes){0}, (struct bytes){0}, &plan));
    assert_true(plan.score >= 1.0);
    /* Nor do all of level 0 go, but its oldest half. */
    struct segment_meta low = {
        .size_bytes = 1, .row_count = 1, .min_key = bytes_make("0", 1), .max_key = bytes_make("1", 1)};
    const struct segment_meta *newest_first[] = {&meta, &low};
    segments[0] = &low;
    levels[5] = (struct level_table){0};
    levels[0] = (struct level_table){.segments = newest_first, .claimed = claimed, .count = 2};
    config.l0_trigger = 2;
    config.base_bytes = COUNT;
    assert_true(compaction_pick(levels, &config, &plan));
    assert_int_equal(plan.input_count, 1);
    assert_int_equal(plan.inputs[0], 1);
    assert_int_equal(plan.overlap_count, 1);
    assert_int_equal(plan.overlaps[0], 0);
}

static void
assert_plan_is_inside(const struct level_table *levels, const struct compaction_plan *plan)
{
    assert_true(plan->output_level < ESKER_LEVELS_MAX && plan->input_level <= plan->output_level);
    assert_true(plan->input_count > 0 && plan->input_count <= COMPACTION_INPUTS_MAX);
    assert_true(plan->overlap_count <= COMPACTION_INPUTS_MAX);
    for (size_t i = 0; i < plan->input_count; i++) {
        assert_true(plan->inputs[i] < levels[plan->input_level].count);
    }
    for (size_t i = 0; i < plan->overlap_count; i++) {
        assert_true(plan->overlaps[i] < levels[plan->output_level].count);
    }
}

/* Tables whose order, sizes and counts are a hostile manifest's. */
static void
compaction_pick__nonsense_stays_inside_the_tables(void **state)
{
    (void)state;
    static struct table table;
    static struct compaction_plan plan;
    struct rng rng = {.state = 1};
    unsigned plans = 0;
    for (unsigned round = 0; round < 20000; round++) {
        table_init(&table);
        table.config.gc_lsn = rng_below(&rng, 2) * UINT64_MAX;
        table.config.segment_bytes = rng_below(&rng, 4) == 0 ? UINT64_MAX : rng_below(&rng, 20);
        table.config.base_bytes = rng_below(&rng, 100);
        table.config.fanout = (uint32_t)rng_below(&rng, 9);
        table.config.l0_trigger = (uint32_t)rng_below(&rng, 5);
        table.config.l0_inputs_max = (uint32_t)rng_below(&rng, 4);
        table.config.l0_eighths = (uint32_t)rng_below(&rng, 17);
        table.config.l0_bytes = rng_below(&rng, 2) * rng_below(&rng, 100);
        table.config.l0_tier_bytes = rng_below(&rng, 2) * rng_below(&rng, 100);
        table.config.lazy = rng_below(&rng, 2) == 0;
        for (size_t level = 0; level < ESKER_LEVELS_MAX; level++) {
            size_t count = rng_below(&rng, 3) == 0 ? rng_below(&rng, 8) : 0;
            table.levels[level].count = count;
            for (size_t i = 0; i < count; i++) {
                static const uint8_t letters[] = "azbycxdw";
                uint64_t huge = rng_below(&rng, 8) == 0 ? UINT64_MAX : 50;
                table.metas[level][i] = (struct segment_meta){
                    .id = rng_below(&rng, huge),
                    .size_bytes = rng_below(&rng, huge),
                    .row_count = rng_below(&rng, huge),
                    .tombstone_count = rng_below(&rng, huge),
                    .max_lsn = rng_below(&rng, huge),
                    .min_key = bytes_make(letters + rng_below(&rng, 6), rng_below(&rng, 3)),
                    .max_key = bytes_make(letters + rng_below(&rng, 6), rng_below(&rng, 3)),
                };
                table.segments[level][i] = &table.metas[level][i];
                table.claimed[level][i] = rng_below(&rng, 6) == 0;
            }
        }
        if (compaction_pick(table.levels, &table.config, &plan)) {
            assert_plan_is_inside(table.levels, &plan);
            plans++;
        }
        struct bytes lower = bytes_make(&"bcd"[rng_below(&rng, 2)], rng_below(&rng, 2));
        struct bytes upper = bytes_make(&"xyz"[rng_below(&rng, 2)], rng_below(&rng, 2));
        if (compaction_pick_range(table.levels, &table.config, lower, upper, &plan)) {
            assert_plan_is_inside(table.levels, &plan);
            plans++;
        }
    }
    assert_true(plans > 5000);
}

int
main(int argc, char **argv)
{
    rewrite = argc > 1 && strcmp(argv[1], "--rewrite") == 0;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compaction_pick__shape_of_the_tree),
        cmocka_unit_test(compaction_pick__choice_within_a_level),
        cmocka_unit_test(compaction_pick__claims),
        cmocka_unit_test(compaction_pick__deletes),
        cmocka_unit_test(compaction_pick__expired),
        cmocka_unit_test(compaction_pick__tiers_of_level_0),
        cmocka_unit_test(compaction_pick_range__steps_down),
        cmocka_unit_test(compaction_pick__more_than_a_plan_can_name),
        cmocka_unit_test(compaction_pick__nonsense_stays_inside_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
