/* SPDX-License-Identifier: MIT */
/*
 * Goal: the states that a recorded log is said to allow are those that its
 * models allow, all of them where they are few, and no other; faults in words
 * do what the words say.
 * Method: logs of a few operations, whose states are counted by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>

#include "io/io_sim_states.h"

struct found {
    struct sim_states *states;
    char all[4096]; /* each state's picture once: "| a=12 b=1." */
    size_t count;
    enum sim_model model;
};

/* Names in order, with the first letter of each of up to three atoms, '-' for zeros. */
static void
picture(struct sim_disk *disk, char *out, size_t size)
{
    struct sim_file_info files[8];
    size_t count = sim_disk_files(disk, files, 8);
    size_t len = 0;
    len += (size_t)snprintf(out, size, "|");
    for (size_t i = 0; i < count; i++) {
        struct bytes content;
        assert_true(sim_disk_get(disk, files[i].name, &content));
        len += (size_t)snprintf(out + len, size - len, " %s=", files[i].name);
        for (uint64_t at = 0; at < content.len && at < 1536; at += SIM_ATOM_BYTES) {
            char letter = content.ptr[at] == 0 ? '-' : (char)content.ptr[at];
            len += (size_t)snprintf(out + len, size - len, "%c", letter);
        }
    }
    (void)snprintf(out + len, size - len, ".");
}

static bool
found_one(void *ctx, const struct sim_choice *choice)
{
    struct found *found = ctx;
    char one[256];
    if (choice->model != found->model || choice->filler != SIM_FILL_CUT || choice->both_names) {
        return true;
    }
    struct sim_disk *disk = sim_states_disk(found->states, choice);
    picture(disk, one, sizeof one);
    sim_disk_destroy(disk);
    if (strstr(found->all, one) == NULL) {
        size_t len = strlen(found->all);
        snprintf(found->all + len, sizeof found->all - len, "%s", one);
        found->count++;
    }
    return true;
}

struct fixture {
    struct sim_disk *base, *disk;
    struct io *io;
    struct io_file *file;
};

/* File "a" of one atom 'o', durable. */
static int
fixture_setup(void **state)
{
    struct fixture *f = mem_zalloc(&mem_default, sizeof *f);
    f->disk = sim_disk_create(1);
    uint8_t old[SIM_ATOM_BYTES];
    memset(old, 'o', sizeof old);
    sim_disk_put(f->disk, "a", bytes_make(old, sizeof old));
    f->base = sim_disk_clone(f->disk);
    sim_disk_record(f->disk);
    assert_int_equal(io_sim_open(f->disk, &mem_default, &f->io), ESKER_OK);
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_WRITE, &f->file), ESKER_OK);
    *state = f;
    return 0;
}

static int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    io_close_file(f->io, f->file);
    io_close_dir(f->io);
    sim_disk_destroy(f->disk);
    sim_disk_destroy(f->base);
    mem_free(&mem_default, f);
    return 0;
}

static void
write_atoms(struct fixture *f, struct io_file *file, uint64_t atom, char letter, size_t count)
{
    uint8_t data[4 * SIM_ATOM_BYTES];
    memset(data, letter, sizeof data);
    assert_int_equal(io_write_full(f->io, file, atom * SIM_ATOM_BYTES, data, count * SIM_ATOM_BYTES),
                     ESKER_OK);
}

/* The states at the end of the log. */
static struct found
states_at_end(struct fixture *f, enum sim_model model)
{
    static const struct sim_budget budget = {.subsets = 64, .torn = 64};
    struct found found = {.states = sim_states_create(f->base, f->disk), .model = model};
    while (sim_states_next(found.states) != NULL) {
    }
    sim_states_each(found.states, &budget, found_one, &found);
    sim_states_destroy(found.states);
    return found;
}

static void
states__of_two_writes_are_all_subsets_and_their_parts(void **state)
{
    struct fixture *f = *state;
    write_atoms(f, f->file, 0, '1', 1);
    write_atoms(f, f->file, 0, '2', 2);
    struct found found = states_at_end(f, SIM_MODEL_STRICT);
    assert_non_null(strstr(found.all, "| a=o."));
    assert_non_null(strstr(found.all, "| a=1."));
    assert_non_null(strstr(found.all, "| a=22."));
    assert_non_null(strstr(found.all, "| a=2-.")); /* torn: its first atom */
    assert_non_null(strstr(found.all, "| a=12.")); /* and its second */
    assert_null(strstr(found.all, "| a=21."));
    assert_int_equal(io_sync(f->io, f->file), ESKER_OK);
    found = states_at_end(f, SIM_MODEL_STRICT);
    assert_string_equal(found.all, "| a=22.");
}

static void
states__of_names_depend_on_the_model(void **state)
{
    struct fixture *f = *state;
    struct io_file *made = NULL;
    assert_int_equal(io_open_file(f->io, "b", IO_OPEN_WRITE | IO_OPEN_CREATE, &made), ESKER_OK);
    io_close_file(f->io, made);
    assert_int_equal(io_unlink(f->io, "a"), ESKER_OK);
    assert_int_equal(io_rename(f->io, "b", "c"), ESKER_OK);
    struct found strict = states_at_end(f, SIM_MODEL_STRICT);
    struct found ordered = states_at_end(f, SIM_MODEL_ORDERED);
    struct found passing = states_at_end(f, SIM_MODEL_PASSING);
    assert_string_equal(ordered.all, "| a=o.| a=o b=.| b=.| c=.");
    assert_non_null(strstr(passing.all, "| a=o c="));
    assert_int_equal(passing.count, 4);
    assert_non_null(
        strstr(strict.all, "| a=o c=")); /* also without the creation: the rename names the file */
    assert_true(strict.count > ordered.count);
    assert_int_equal(io_sync_dir(f->io), ESKER_OK);
    assert_string_equal(states_at_end(f, SIM_MODEL_STRICT).all, "| c=.");
}

static void
states__file_sync_takes_names_along_where_they_are_ordered(void **state)
{
    struct fixture *f = *state;
    struct io_file *made = NULL;
    assert_int_equal(io_open_file(f->io, "b", IO_OPEN_WRITE | IO_OPEN_CREATE, &made), ESKER_OK);
    assert_int_equal(io_sync(f->io, made), ESKER_OK);
    io_close_file(f->io, made);
    assert_string_equal(states_at_end(f, SIM_MODEL_ORDERED).all, "| a=o b=.");
    assert_int_equal(states_at_end(f, SIM_MODEL_STRICT).count, 2);
}

static void
states__after_a_failed_sync_stay_open_for_good(void **state)
{
    struct fixture *f = *state;

    static const enum sim_sync_failure ways[] = {SIM_SYNC_STAYS_DIRTY, SIM_SYNC_MARKS_CLEAN, SIM_SYNC_REVERTS,
                                                 SIM_SYNC_LATE};

    static const char *const ends[] = {"| a=n.", "| a=o.| a=n.", "| a=o.", "| a=o.| a=n."};
    for (size_t i = 0; i < COUNTOF(ways); i++) {
        write_atoms(f, f->file, 0, 'o', 1);
        assert_int_equal(io_sync(f->io, f->file), ESKER_OK);
        sim_disk_set_sync_failure(f->disk, ways[i]);
        write_atoms(f, f->file, 0, 'n', 1);
        assert_true(sim_disk_script(f->disk, "sync@a:1:EIO"));
        assert_int_equal(io_sync(f->io, f->file), ways[i] == SIM_SYNC_LATE ? ESKER_OK : ESKER_IO);
        assert_int_equal(io_sync(f->io, f->file), ways[i] == SIM_SYNC_LATE ? ESKER_IO : ESKER_OK);
        assert_string_equal(states_at_end(f, SIM_MODEL_STRICT).all, ends[i]);
        struct bytes content;
        assert_true(sim_disk_get(f->disk, "a", &content));
        assert_int_equal(content.ptr[0], ways[i] == SIM_SYNC_REVERTS ? 'o' : 'n');
        sim_disk_heal(f->disk);
    }
}

static void
states__of_a_write_with_its_sync_leave_the_rest_open(void **state)
{
    struct fixture *f = *state;
    char data[SIM_ATOM_BYTES];
    memset(data, 'h', sizeof data);
    write_atoms(f, f->file, 0, 'o', 2);
    assert_int_equal(io_sync(f->io, f->file), ESKER_OK);
    write_atoms(f, f->file, 1, 'r', 1);
    assert_int_equal(io_write_sync(f->io, f->file, 0, data, sizeof data), ESKER_OK);
    assert_string_equal(states_at_end(f, SIM_MODEL_STRICT).all, "| a=ho.| a=hr.");
    memset(data, 'i', sizeof data);
    sim_disk_fail(f->disk, SIM_SYNC, 1, EIO, false);
    assert_int_equal(io_write_sync(f->io, f->file, 0, data, sizeof data), ESKER_IO);
    assert_int_equal(states_at_end(f, SIM_MODEL_STRICT).count, 4);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    struct bytes content;
    assert_true(sim_disk_get(f->disk, "a", &content));
    assert_int_equal(content.ptr[0], 'h');
    assert_int_equal(content.ptr[SIM_ATOM_BYTES], 'o');
}

static void
states__of_mapped_stores_are_found_call_by_call(void **state)
{
    struct fixture *f = *state;
    void *map = NULL;
    write_atoms(f, f->file, 0, 'o', 2);
    assert_int_equal(io_sync(f->io, f->file), ESKER_OK);
    assert_int_equal(f->io->ops->map_file(f->io, f->file, 2 * SIM_ATOM_BYTES, &map), 0);
    memset(map, '1', SIM_ATOM_BYTES);
    sim_disk_mark(f->disk, 1);
    memset((char *)map + SIM_ATOM_BYTES, '2', SIM_ATOM_BYTES);
    sim_disk_mark(f->disk, 2);
    struct found found = states_at_end(f, SIM_MODEL_STRICT);
    assert_int_equal(found.count, 4);
    assert_int_equal(io_sync(f->io, f->file), ESKER_OK);
    assert_string_equal(states_at_end(f, SIM_MODEL_STRICT).all, "| a=12.");
    f->io->ops->unmap_file(f->io, map, 2 * SIM_ATOM_BYTES);
}

static void
states__of_a_killed_process_have_everything_but_durability(void **state)
{
    struct fixture *f = *state;
    char seen[256];
    write_atoms(f, f->file, 0, 'n', 1);
    assert_int_equal(io_rename(f->io, "a", "b"), ESKER_OK);
    struct sim_states *states = sim_states_create(f->base, f->disk);
    while (sim_states_next(states) != NULL) {
    }
    struct sim_disk *killed = sim_states_killed(states);
    picture(killed, seen, sizeof seen);
    assert_string_equal(seen, "| b=n.");
    sim_disk_crash(killed, SIM_CRASH_POWER_NONE, 0);
    picture(killed, seen, sizeof seen);
    assert_string_equal(seen, "| a=o.");
    sim_disk_destroy(killed);
    sim_states_destroy(states);
}

static void
script__does_what_it_says_or_is_refused(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"",
                                      "write",
                                      "write:0:EIO",
                                      "write:1:EWHAT",
                                      "paint:1:EIO",
                                      "write:x:EIO",
                                      "write:1:torn=",
                                      "write:1:EIO:once"};
    for (size_t i = 1; i < COUNTOF(bad); i++) {
        assert_false(sim_disk_script(f->disk, bad[i]));
    }
    char data[2 * SIM_ATOM_BYTES], seen[256];
    memset(data, 'n', sizeof data);
    struct io_req write = {.op = IO_WRITE, .file = f->file, .data = data, .len = sizeof data};
    assert_true(sim_disk_script(f->disk, "write@b:1:EIO write@a:1:torn=512 write:2:lie write:3:short=7"));
    static const int results[] = {-EIO, sizeof data, 7, sizeof data};
    static const char *const pictures[] = {"| a=n.", "| a=n.", "| a=n.", "| a=nn."};
    for (size_t i = 0; i < COUNTOF(results); i++) {
        f->io->ops->run(f->io, &write, 1);
        assert_int_equal(write.result, results[i]);
        picture(f->disk, seen, sizeof seen);
        assert_string_equal(seen, pictures[i]);
    }
    memset(data, 'm', sizeof data);
    assert_true(sim_disk_script(f->disk, "write:1:misdirect"));
    f->io->ops->run(f->io, &write, 1);
    assert_int_equal(write.result, sizeof data);
    picture(f->disk, seen, sizeof seen);
    assert_string_equal(seen, "| a=nm.");
    assert_true(sim_disk_script(f->disk, "read:1:flip:sticky size:1:delay=5"));
    uint64_t before = io_monotonic_ns(f->io), size = 0;
    assert_int_equal(io_file_size(f->io, f->file, &size), ESKER_OK);
    assert_true(io_monotonic_ns(f->io) - before >= 5000000);
    uint8_t read[SIM_ATOM_BYTES];
    assert_int_equal(io_read_full(f->io, f->file, 0, read, sizeof read), ESKER_OK);
    int flipped = 0;
    for (size_t i = 0; i < sizeof read; i++) {
        flipped += __builtin_popcount((unsigned)(read[i] ^ 'n'));
    }
    assert_int_equal(flipped, 1);
}

#define CASE(fn)                                                                                             \
    {                                                                                                        \
        .name = #fn, .test_func = fn, .setup_func = fixture_setup, .teardown_func = fixture_teardown         \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(states__of_two_writes_are_all_subsets_and_their_parts),
        CASE(states__of_names_depend_on_the_model),
        CASE(states__file_sync_takes_names_along_where_they_are_ordered),
        CASE(states__after_a_failed_sync_stay_open_for_good),
        CASE(states__of_a_write_with_its_sync_leave_the_rest_open),
        CASE(states__of_mapped_stores_are_found_call_by_call),
        CASE(states__of_a_killed_process_have_everything_but_durability),
        CASE(script__does_what_it_says_or_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
