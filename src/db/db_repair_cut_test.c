/* SPDX-License-Identifier: MIT */
/*
 * Goal: a manifest that lost its end at any edit, which it does not show, costs no row: an open
 * refuses unless every key is as it was, and after a repair every key is. Where damage does cost
 * rows, that is said, and segments that no list names are set aside instead of being left to the
 * next open, which would remove them.
 * Method: a small database with flushes, deletes, partial and full merges, one of which leaves
 * nothing, on the simulated disk; its manifest is cut at and behind the end of every edit. Then
 * segments are brought back that a crash could have left behind: a merge's inputs, its output.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "db/db.h"
#include "format/frame.h"
#include "io/io_sim.h"

enum { KEYS = 40, ROUNDS = 12, ROUND_EMPTIED = 5, VALUE_BYTES = 200, FILES_MAX = 64, EDITS_MAX = 256 };

/* ---- The database ------------------------------------------------------------------------ */

static esker_status
cut_open(struct sim_disk *disk, bool grows, esker_db **out)
{
    const struct db_tuning tuning = {
        .window_bytes_first = 8192, .window_bytes_max = grows ? 65536 : 8192, .segment_bytes = 1 << 14};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.create_if_missing = sim_disk_files(disk, NULL, 0) == 0;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return db_open_on(io, &options, &tuning, true, out);
}

static esker_slice
cut_key(uint32_t key, char out[16])
{
    return esker_bytes(out, (size_t)snprintf(out, 16, "key%04u", key));
}

static bool
cut_is_written(uint32_t key, uint32_t round)
{
    return round == 0 || round == ROUND_EMPTIED || (key * 7 + round) % 3 == 0;
}

static bool
cut_is_deleted(uint32_t key, uint32_t round)
{
    return round == ROUND_EMPTIED || (round > 0 && (key + round) % 4 == 0);
}

static esker_slice
cut_value(uint32_t key, uint32_t round, uint8_t out[VALUE_BYTES])
{
    for (uint32_t i = 0; i < VALUE_BYTES; i++) {
        out[i] = (uint8_t)hash_mix(key << 8 | round, i);
    }
    return esker_bytes(out, VALUE_BYTES);
}

static void
cut_write_round(esker_db *db, uint32_t round)
{
    char name[16];
    uint8_t value[VALUE_BYTES];
    for (uint32_t key = 0; key < KEYS; key++) {
        if (cut_is_written(key, round)) {
            esker_slice slice = cut_key(key, name);
            assert_int_equal(cut_is_deleted(key, round)
                                 ? esker_delete(db, slice, NULL)
                                 : esker_put(db, slice, cut_value(key, round, value), NULL),
                             ESKER_OK);
        }
    }
}

/* What follows a round, so that each kind of edit stands in the manifest, some behind others. */
static void
cut_settle_round(esker_db *db, uint32_t round)
{
    char name[16];
    esker_slice half = cut_key(KEYS / 2, name);
    if (round % 4 == 3) {
        assert_int_equal(esker_compact(db, NULL, &half), ESKER_OK);
    } else if (round % 4 == 1) { /* with ROUND_EMPTIED: nothing is left */
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    } else if (round % 4 == 0) {
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
}

/* settled: flushed and merged between rounds, not only as windows fill. closed: all is synced;
 * else the process was killed. */
static struct sim_disk *
cut_create(uint64_t seed, uint32_t rounds, bool grows, bool settled, bool closed)
{
    struct sim_disk *disk = sim_disk_create(seed);
    esker_db *db = NULL;
    assert_int_equal(cut_open(disk, grows, &db), ESKER_OK);
    for (uint32_t round = 0; round < rounds; round++) {
        cut_write_round(db, round);
        if (settled) {
            cut_settle_round(db, round);
        }
    }
    if (!closed) {
        sim_disk_crash(disk, SIM_CRASH_KILL, seed);
    }
    (void)esker_close(db);
    return disk;
}

/* Keys that do not have the newest value, or are not gone as they should be. */
static uint32_t
cut_count_wrong(struct sim_disk *disk, uint32_t rounds, bool grows)
{
    esker_db *db = NULL;
    uint32_t wrong = 0;
    assert_int_equal(cut_open(disk, grows, &db), ESKER_OK);
    for (uint32_t key = 0; key < KEYS; key++) {
        char name[16];
        uint8_t value[VALUE_BYTES];
        uint8_t buf[VALUE_BYTES];
        size_t size = 0;
        uint32_t round = rounds - 1;
        while (!cut_is_written(key, round)) {
            round--;
        }
        esker_status status = esker_get_copy(db, cut_key(key, name), NULL, buf, sizeof buf, &size);
        bool right = cut_is_deleted(key, round)
                         ? status == ESKER_NOT_FOUND
                         : status == ESKER_OK && size == VALUE_BYTES &&
                               memcmp(buf, cut_value(key, round, value).data, VALUE_BYTES) == 0;
        wrong += right ? 0 : 1;
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    return wrong;
}

/* ---- One repair ---------------------------------------------------------------------------- */

struct cut_report {
    bool lost, nothing, rebuilt;
};

static void
cut_sentence(void *ctx, const char *sentence)
{
    struct cut_report *report = ctx;
    if (getenv("REPAIR_SHOW") != NULL) {
        print_message("    %s\n", sentence);
    }
    bool loss = strstr(sentence, " lost") != NULL && strstr(sentence, ".lost") == NULL;
    report->lost = report->lost || loss;
    report->nothing = report->nothing || strstr(sentence, "nothing is damaged") != NULL;
    report->rebuilt = report->rebuilt || strstr(sentence, "the list of files is lost") != NULL;
}

/* Twice: the second time there is nothing to do. */
static struct cut_report
cut_repair(struct sim_disk *disk)
{
    struct cut_report reports[2] = {0};
    struct io *io = NULL;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
        assert_int_equal(db_repair_on(io, NULL, cut_sentence, &reports[i]), ESKER_OK);
    }
    assert_true(reports[1].nothing);
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_verify_on(io, NULL, NULL), ESKER_OK);
    return reports[0];
}

/* The name of the `nth` file (from 0) that has `part` in its name; false: there is none. */
static bool
cut_find(struct sim_disk *disk, const char *part, size_t nth, char out[40])
{
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(disk, files, FILES_MAX);
    assert_true(count <= FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        if (strstr(files[i].name, part) != NULL && nth-- == 0) {
            memcpy(out, files[i].name, 40);
            return true;
        }
    }
    return false;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

/* Where each edit ends. */
static size_t
cut_edit_ends(struct sim_disk *disk, const char *name, uint64_t ends[EDITS_MAX])
{
    struct bytes file = {0};
    struct file_head head;
    struct frame frame;
    size_t count = 0;
    assert_true(sim_disk_get(disk, name, &file));
    assert_int_equal(manifest_header_decode(bytes_make(file.ptr, MANIFEST_HEADER_BYTES), &head), ESKER_OK);
    uint64_t seed = frame_file_seed(head.uuid, head.number);
    for (uint64_t at = MANIFEST_HEADER_BYTES; at < file.len; at += frame.len_bytes) {
        assert_true(frame_decode(bytes_make(file.ptr + at, file.len - at), seed, at, &frame));
        assert_true(count < EDITS_MAX);
        ends[count++] = at + frame.len_bytes;
    }
    return count;
}

/* Before any repair: an open either refuses, as does verify, or every key is as it was. */
static bool
cut_open_refuses(struct sim_disk *cut, uint32_t rounds, bool grows)
{
    struct sim_disk *disk = sim_disk_clone(cut);
    esker_db *db = NULL;
    struct io *io = NULL;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    esker_status verified = db_verify_on(io, NULL, NULL);
    esker_status opened = cut_open(disk, grows, &db);
    assert_int_equal(opened, verified);
    if (opened == ESKER_OK) {
        assert_int_equal(esker_close(db), ESKER_OK);
        assert_int_equal(cut_count_wrong(disk, rounds, grows), 0);
    } else {
        assert_int_equal(opened, ESKER_CORRUPT);
    }
    sim_disk_destroy(disk);
    return opened != ESKER_OK;
}

static void
cut__manifests_cost_no_row(void **state)
{
    (void)state;
    uint32_t repairs = 0;
    uint32_t rebuilt = 0;
    uint32_t refused = 0;
    for (uint32_t kind = 0; kind < 12; kind++) {
        bool grows = (kind & 1) != 0;
        uint32_t rounds = ROUNDS - kind / 4 % 2; /* the last act: a merge, or rows in the log alone */
        struct sim_disk *good = cut_create(kind + 1, rounds, grows, kind < 8, (kind & 2) != 0);
        uint64_t ends[EDITS_MAX];
        char name[40];
        assert_true(cut_find(good, "manifest", 0, name));
        size_t count = cut_edit_ends(good, name, ends);
        assert_true(count > 1);
        for (size_t i = 0; i < 2 * (count - 1); i++) {
            struct sim_disk *disk = sim_disk_clone(good);
            sim_disk_resize(disk, name, ends[i / 2] + (i % 2 != 0 ? 24 : 0)); /* or some of the next */
            refused += cut_open_refuses(disk, rounds, grows) ? 1 : 0;
            struct cut_report report = cut_repair(disk);
            uint32_t wrong = cut_count_wrong(disk, rounds, grows);
            if (wrong > 0) {
                fail_msg("kind %u, %zu of %zu edits left: %u keys are wrong%s", kind, i / 2 + 1, count, wrong,
                         report.lost ? "" : ", and nothing was said");
            }
            assert_true(!report.rebuilt || report.lost);
            repairs++;
            rebuilt += report.rebuilt ? 1 : 0;
            sim_disk_destroy(disk);
        }
        sim_disk_destroy(good);
    }
    print_message("%u cuts, %u refused at open, %u made a new list\n", repairs, refused, rebuilt);
    assert_true(rebuilt > repairs / 2);
}

/* A closed database with two levels of inputs, and what one merge of all made of it. */
static void
cut_before_and_after(struct sim_disk **before_out, struct sim_disk **after_out)
{
    esker_db *db = NULL;
    *before_out = cut_create(9, 5, false, true, true);
    *after_out = sim_disk_clone(*before_out);
    assert_int_equal(cut_open(*after_out, false, &db), ESKER_OK);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);
}

/* Every file of `from` with `part` in its name that `to` does not have. Returns how many. */
static uint32_t
cut_copy_more(struct sim_disk *from, struct sim_disk *to, const char *part)
{
    char name[40];
    uint32_t copied = 0;
    for (size_t nth = 0; cut_find(from, part, nth, name); nth++) {
        if (!sim_disk_exists(to, name)) {
            sim_disk_copy(from, name, to, name);
            copied++;
        }
    }
    return copied;
}

/* The outputs of a merge that a crash cut short: they are not listed, the inputs are. */
static void
output__beside_its_inputs_changes_nothing(void **state)
{
    (void)state;
    struct sim_disk *before = NULL;
    struct sim_disk *after = NULL;
    char name[40];
    uint32_t again = 0;
    cut_before_and_after(&before, &after);
    struct sim_disk *crashed = sim_disk_clone(before);
    assert_true(cut_copy_more(after, crashed, ".seg") > 0);
    struct sim_disk *disk = sim_disk_clone(crashed);
    assert_true(cut_repair(disk).nothing);
    assert_int_equal(cut_count_wrong(disk, 5, false), 0);
    sim_disk_destroy(disk);
    for (size_t nth = 0; cut_find(before, ".seg", nth, name); nth++) { /* an input is gone besides */
        disk = sim_disk_clone(crashed);
        sim_disk_delete(disk, name);
        struct cut_report report = cut_repair(disk);
        uint32_t wrong = cut_count_wrong(disk, 5, false);
        assert_true(report.rebuilt && report.lost);
        again += wrong; /* keys whose deletes were in the input alone */
        sim_disk_destroy(disk);
    }
    assert_in_range(again, 1, KEYS);
    sim_disk_destroy(crashed);
    sim_disk_destroy(before);
    sim_disk_destroy(after);
}

/* The inputs of a merge that nobody removed yet: an edit says that they are off the list. When the
 * output is damaged they are not mixed with it, but kept beside it. */
static void
inputs__beside_their_output_are_set_aside(void **state)
{
    (void)state;
    struct sim_disk *before = NULL;
    struct sim_disk *disk = NULL;
    char output[40];
    char input[40];
    char copy[64];
    cut_before_and_after(&before, &disk);
    assert_true(cut_find(disk, ".seg", 0, output));
    assert_true(cut_copy_more(before, disk, ".seg") > 0);
    struct sim_disk *whole = sim_disk_clone(disk);
    assert_true(cut_repair(whole).nothing);
    assert_int_equal(cut_count_wrong(whole, 5, false), 0);
    sim_disk_destroy(whole);
    for (int missing = 0; missing < 2; missing++) {
        struct sim_disk *damaged = sim_disk_clone(disk);
        if (missing != 0) {
            sim_disk_delete(damaged, output);
        } else {
            sim_disk_flip(damaged, output, 100 * 8);
        }
        struct cut_report report = cut_repair(damaged);
        assert_true(report.lost && !report.rebuilt);
        assert_true(cut_count_wrong(damaged, 5, false) > 0);
        for (size_t nth = 0; cut_find(before, ".seg", nth, input); nth++) {
            struct bytes kept = {0};
            struct bytes was = {0};
            snprintf(copy, sizeof copy, "%s.lost", input);
            assert_true(sim_disk_get(damaged, copy, &kept));
            assert_true(sim_disk_get(before, input, &was));
            assert_int_equal(kept.len, was.len);
            assert_memory_equal(kept.ptr, was.ptr, was.len);
        }
        sim_disk_destroy(damaged);
    }
    sim_disk_destroy(disk);
    sim_disk_destroy(before);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut__manifests_cost_no_row),
        cmocka_unit_test(output__beside_its_inputs_changes_nothing),
        cmocka_unit_test(inputs__beside_their_output_are_set_aside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
