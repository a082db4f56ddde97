/* SPDX-License-Identifier: MIT */
/*
 * Goal: the helpers of io.h complete short transfers, bound their retries,
 * never repeat a failed sync, and tell file, offset and cause.
 * Method: the simulated disk makes chosen calls short or fail.
 */
#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/test_failing_mem.h"
#include "io/io_sim.h"

struct fixture {
    struct sim_disk *disk;
    struct io *io;
    struct io_file *file;
};

static int
fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->disk = sim_disk_create(1);
    assert_int_equal(io_sim_open(f->disk, &mem_default, &f->io), ESKER_OK);
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_WRITE | IO_OPEN_CREATE, &f->file), ESKER_OK);
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
    free(f);
    return 0;
}

static void
add_short(struct fixture *f, enum sim_kind kind, uint64_t nth, uint32_t bytes)
{
    sim_disk_add_fault(f->disk, &(struct sim_fault){.kind = kind, .nth = nth, .bytes = bytes});
}

static void
io_helper__short_transfers_are_completed(void **state)
{
    struct fixture *f = *state;

    static const enum sim_kind kinds[] = {SIM_WRITE, SIM_READ};

    uint8_t data[5000], got[5000] = {0};
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7 + i / 256);
    }
    for (size_t i = 0; i < 2; i++) {
        add_short(f, kinds[i], 1, 1000);
        sim_disk_fail(f->disk, kinds[i], 2, EINTR, false);
        add_short(f, kinds[i], 3, 1);
        sim_disk_fail(f->disk, kinds[i], 4, EAGAIN, false);
        add_short(f, kinds[i], 5, 3000);
    }
    assert_int_equal(io_write_full(f->io, f->file, 10, data, sizeof data), ESKER_OK);
    assert_int_equal(sim_disk_count(f->disk, SIM_WRITE), 6);
    struct io_req req = {.op = IO_READ, .file = f->file, .offset = 10, .data = got, .len = sizeof got};
    assert_int_equal(io_run_full(f->io, &req, 1), ESKER_OK);
    assert_int_equal(req.result, sizeof got);
    assert_int_equal(sim_disk_count(f->disk, SIM_READ), 6);
    assert_memory_equal(data, got, sizeof data);
}

static void
io_helper__one_short_request_of_a_batch_is_completed(void **state)
{
    struct fixture *f = *state;
    uint8_t data[3000];
    memset(data, 'x', sizeof data);
    struct io_req reqs[3];
    for (size_t i = 0; i < 3; i++) {
        reqs[i] = (struct io_req){
            .op = IO_WRITE, .file = f->file, .offset = i * 1000, .data = data + i * 1000, .len = 1000};
    }
    add_short(f, SIM_WRITE, 2, 17);
    assert_int_equal(io_run_full(f->io, reqs, 3), ESKER_OK);
    assert_int_equal(sim_disk_count(f->disk, SIM_WRITE), 4);
    struct bytes content;
    assert_true(sim_disk_get(f->disk, "a", &content));
    assert_int_equal(content.len, sizeof data);
    assert_memory_equal(content.ptr, data, sizeof data);
}

static void
io_helper__retries_are_bounded(void **state)
{
    struct fixture *f = *state;
    static const int passing[] = {EAGAIN, EINTR};
    for (size_t i = 0; i < 2; i++) {
        uint64_t before = sim_disk_count(f->disk, SIM_WRITE);
        sim_disk_fail(f->disk, SIM_WRITE, 1, passing[i], true);
        assert_int_equal(io_write_full(f->io, f->file, 0, "x", 1), ESKER_IO);
        assert_int_equal(status_last()->os_errno, passing[i]);
        assert_in_range(sim_disk_count(f->disk, SIM_WRITE) - before, 2, 100);
        sim_disk_heal(f->disk);
    }
    sim_disk_fail(f->disk, SIM_SYNC, 1, EINTR, true);
    assert_int_equal(io_sync(f->io, f->file), ESKER_IO);
    sim_disk_fail(f->disk, SIM_SYNC_DIR, 1, EINTR, true);
    assert_int_equal(io_sync_dir(f->io), ESKER_IO);
    sim_disk_heal(f->disk);
    /* Progress, however slow, is not counted against the bound. */
    uint8_t data[500] = {0};
    sim_disk_add_fault(f->disk, &(struct sim_fault){.kind = SIM_WRITE, .nth = 1, .bytes = 1, .sticky = true});
    assert_int_equal(io_write_full(f->io, f->file, 0, data, sizeof data), ESKER_OK);
}

static void
io_helper__write_of_nothing_is_an_error(void **state)
{
    struct fixture *f = *state;
    add_short(f, SIM_WRITE, 1, 2);
    add_short(f, SIM_WRITE, 2, 0);
    assert_int_equal(io_write_full(f->io, f->file, 100, "hello", 5), ESKER_IO);
    assert_int_equal(status_last()->offset, 102);
    assert_string_equal(status_last()->file, "a");
}

static void
io_helper__end_of_file_is_damage_at_that_offset(void **state)
{
    struct fixture *f = *state;
    char got[10];
    assert_int_equal(io_write_full(f->io, f->file, 0, "hello", 5), ESKER_OK);
    assert_int_equal(io_read_full(f->io, f->file, 1, got, sizeof got), ESKER_CORRUPT);
    assert_int_equal(status_last()->offset, 5);
    assert_string_equal(status_last()->file, "a");
}

static void
io_helper__failed_sync_is_not_tried_again(void **state)
{
    struct fixture *f = *state;
    static const int failures[] = {EIO, ENOSPC, EAGAIN};
    static const esker_status statuses[] = {ESKER_IO, ESKER_NO_SPACE, ESKER_IO};
    for (size_t i = 0; i < 3; i++) {
        uint64_t before = sim_disk_count(f->disk, SIM_SYNC);
        sim_disk_fail(f->disk, SIM_SYNC, 1, EINTR, false);
        sim_disk_fail(f->disk, SIM_SYNC, 2, failures[i], false);
        assert_int_equal(io_sync(f->io, f->file), statuses[i]);
        assert_int_equal(sim_disk_count(f->disk, SIM_SYNC) - before, 2);
        assert_int_equal(status_last()->os_errno, failures[i]);
        assert_string_equal(status_last()->file, "a");
        sim_disk_heal(f->disk);
    }
}

static void
io_helper__no_space_is_told_apart(void **state)
{
    struct fixture *f = *state;
    sim_disk_set_capacity(f->disk, 2);
    assert_int_equal(io_write_full(f->io, f->file, 0, "hello", 5), ESKER_NO_SPACE);
    assert_int_equal(status_last()->offset, 2);
    assert_int_equal(io_truncate(f->io, f->file, 3), ESKER_NO_SPACE);
    sim_disk_set_capacity(f->disk, 0);
    assert_int_equal(io_write_full(f->io, f->file, 0, "hello", 5), ESKER_OK);
}

static void
io_helper__each_failure_names_its_file(void **state)
{
    struct fixture *f = *state;
    uint64_t size = 77;
    struct io_file *file = NULL;
    struct buf buf;
    buf_init(&buf, &mem_default);
    sim_disk_fail(f->disk, SIM_OPEN, 1, EMFILE, true);
    sim_disk_fail(f->disk, SIM_RENAME, 1, EIO, true);
    sim_disk_fail(f->disk, SIM_UNLINK, 1, EIO, true);
    sim_disk_fail(f->disk, SIM_SIZE, 1, EIO, true);
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_READ, &file), ESKER_IO);
    assert_null(file);
    assert_int_equal(status_last()->os_errno, EMFILE);
    assert_string_equal(status_last()->file, "a");
    assert_int_equal(io_rename(f->io, "a", "b"), ESKER_IO);
    assert_string_equal(status_last()->file, "a");
    assert_int_equal(io_unlink(f->io, "a"), ESKER_IO);
    assert_string_equal(status_last()->file, "a");
    assert_int_equal(io_file_size(f->io, f->file, &size), ESKER_IO);
    assert_int_equal(size, 77);
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_IO);
    assert_int_equal(io_read_file(f->io, "a", 100, &buf), ESKER_IO);
    buf_fini(&buf);
}

/* Replacing a file, with every call failing in turn and the power cut at every
 * change: the name always means the old content or the new, whole. */
static void
io_helper__replace_file_is_all_or_nothing(void **state)
{
    (void)state;

    static const enum sim_kind kinds[] = {SIM_OPEN, SIM_TRUNCATE, SIM_WRITE,
                                          SIM_SYNC, SIM_RENAME,   SIM_SYNC_DIR};

    static const enum sim_crash crashes[] = {SIM_CRASH_KILL, SIM_CRASH_POWER_NONE, SIM_CRASH_POWER_ALL,
                                             SIM_CRASH_POWER_RANDOM};

    size_t outcomes[2] = {0, 0};
    for (uint64_t round = 0; round < 200; round++) {
        struct sim_disk *disk = sim_disk_create(round);
        struct io *io = NULL;
        assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
        assert_int_equal(io_replace_file(io, "name", "tmp", bytes_make("old", 3)), ESKER_OK);
        sim_disk_put(disk, "tmp", bytes_make("left over from before", 21));
        if (round % 2 == 0) {
            sim_disk_fail(disk, kinds[round / 2 % COUNTOF(kinds)], 1, EIO, false);
        } else {
            sim_disk_crash_at(disk, 1 + round / 2 % 7);
        }
        esker_status status = io_replace_file(io, "name", "tmp", bytes_make("new", 3));
        assert_true(status == ESKER_OK || status == ESKER_IO);
        sim_disk_crash(disk, crashes[round % COUNTOF(crashes)], round);
        io_close_dir(io);
        struct bytes content;
        assert_true(sim_disk_get(disk, "name", &content));
        assert_int_equal(content.len, 3);
        bool is_new = memcmp(content.ptr, "new", 3) == 0;
        assert_true(is_new || memcmp(content.ptr, "old", 3) == 0);
        assert_true(is_new || status != ESKER_OK);
        outcomes[is_new]++;
        sim_disk_destroy(disk);
    }
    assert_true(outcomes[0] > 10 && outcomes[1] > 10);
}

static void
io_helper__failed_replacement_leaves_no_file(void **state)
{
    struct fixture *f = *state;
    sim_disk_fail(f->disk, SIM_SYNC, 1, EIO, false);
    assert_int_equal(io_replace_file(f->io, "a", "tmp", bytes_make("new", 3)), ESKER_IO);
    assert_string_equal(status_last()->file, "tmp");
    assert_false(sim_disk_exists(f->disk, "tmp"));
    assert_true(sim_disk_exists(f->disk, "a"));
}

/* Every allocation of the helpers fails once: a status, and nothing leaks. */
static void
io_helper__no_memory_is_a_status(void **state)
{
    struct fixture *f = *state;
    struct failing failing;
    struct mem mem = failing_mem(&failing);
    sim_disk_put(f->disk, "b", bytes_make("hello", 5));
    size_t failures = 0;
    for (size_t nth = 0; nth < 9; nth++) {
        struct io *io = NULL;
        struct buf buf;
        buf_init(&buf, &mem);
        failing = (struct failing){.calls_left = nth};
        esker_status status = io_sim_open(f->disk, &mem, &io);
        if (status == ESKER_OK) {
            status = io_read_file(io, "b", 5, &buf);
        }
        assert_true(status == ESKER_OK ? buf.len == 5 : status == ESKER_NO_MEMORY);
        failures += status != ESKER_OK;
        buf_fini(&buf);
        io_close_dir(io);
    }
    assert_int_equal(failures, 3); /* the handle, the file, the buffer */
}

#define CASE(function)                                                                                       \
    {                                                                                                        \
        .name = #function, .test_func = function, .setup_func = fixture_setup,                               \
        .teardown_func = fixture_teardown                                                                    \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(io_helper__short_transfers_are_completed),
        CASE(io_helper__one_short_request_of_a_batch_is_completed),
        CASE(io_helper__retries_are_bounded),
        CASE(io_helper__write_of_nothing_is_an_error),
        CASE(io_helper__end_of_file_is_damage_at_that_offset),
        CASE(io_helper__failed_sync_is_not_tried_again),
        CASE(io_helper__no_space_is_told_apart),
        CASE(io_helper__each_failure_names_its_file),
        CASE(io_helper__replace_file_is_all_or_nothing),
        CASE(io_helper__failed_replacement_leaves_no_file),
        CASE(io_helper__no_memory_is_a_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
