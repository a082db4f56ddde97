/* SPDX-License-Identifier: MIT */
/*
 * Goal: the simulated disk loses exactly what a machine may lose, fails when
 * told to, and does both the same way for the same seed.
 * Method: small files whose old and new bytes differ everywhere; crashes in
 * every mode over many seeds, with the set of outcomes checked both ways:
 * nothing illegal appears, and everything legal does.
 */
#include "io/io_sim.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { SEEDS = 400 };

struct fixture {
    struct sim_disk *disk;
    struct io *io;
};

static int
fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->disk = sim_disk_create(42);
    assert_int_equal(io_sim_open(f->disk, &mem_default, &f->io), ESKER_OK);
    *state = f;
    return 0;
}

static int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    io_close_dir(f->io);
    sim_disk_destroy(f->disk);
    free(f);
    return 0;
}

static struct io_file *
open_file(struct io *io, const char *name)
{
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    return file;
}

static void
write_letters(struct io *io, struct io_file *file, uint64_t offset, char letter, size_t len)
{
    char data[8192];
    assert_true(len <= sizeof data);
    memset(data, letter, len);
    assert_int_equal(io_write_full(io, file, offset, data, len), ESKER_OK);
}

/* A synced file of one letter, its name synced too. */
static struct io_file *
make_durable(struct io *io, const char *name, char letter, size_t len)
{
    struct io_file *file = open_file(io, name);
    write_letters(io, file, 0, letter, len);
    assert_int_equal(io_sync(io, file), ESKER_OK);
    assert_int_equal(io_sync_dir(io), ESKER_OK);
    return file;
}

static struct bytes
content_of(struct sim_disk *disk, const char *name)
{
    struct bytes content;
    assert_true(sim_disk_get(disk, name, &content));
    return content;
}

static void
assert_letters(struct sim_disk *disk, const char *name, char letter, size_t len)
{
    struct bytes content = content_of(disk, name);
    assert_int_equal(content.len, len);
    for (size_t i = 0; i < len; i++) {
        assert_int_equal(content.ptr[i], letter);
    }
}

/* A clone of the disk as a crash leaves it. */
static struct sim_disk *
crashed_clone(struct sim_disk *disk, enum sim_crash mode, uint64_t seed)
{
    struct sim_disk *clone = sim_disk_clone(disk);
    sim_disk_crash(clone, mode, seed);
    return clone;
}

/* ---- Crashes of data ---------------------------------------------------------- */

static void
io_sim__kill_keeps_what_was_written(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f->io, "a");
    write_letters(f->io, file, 0, 'x', 1000);
    sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    assert_letters(f->disk, "a", 'x', 1000);
    struct io *again = NULL;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &again), ESKER_OK);
    io_close_dir(again);
    /* The cache outlived the process but not the machine. */
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_false(sim_disk_exists(f->disk, "a"));
    io_close_file(f->io, file);
}

static void
io_sim__power_none_keeps_what_was_synced(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 1500);
    write_letters(f->io, file, 0, 'n', 100);
    write_letters(f->io, file, 1400, 'n', 2000);
    struct io_file *other = open_file(f->io, "b");
    write_letters(f->io, other, 0, 'b', 10);
    assert_int_equal(io_sync(f->io, other), ESKER_OK); /* its bytes, not its name */
    struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(clone, "a", 'o', 1500);
    assert_false(sim_disk_exists(clone, "b"));
    sim_disk_destroy(clone);
    clone = crashed_clone(f->disk, SIM_CRASH_POWER_ALL, 0);
    struct bytes content = content_of(clone, "a");
    assert_int_equal(content.len, 3400);
    assert_int_equal(content.ptr[0], 'n');
    assert_int_equal(content.ptr[100], 'o');
    assert_int_equal(content.ptr[3399], 'n');
    assert_letters(clone, "b", 'b', 10);
    sim_disk_destroy(clone);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_int_equal(content_of(clone, "a").len, 3400);
    sim_disk_destroy(clone);
    io_close_file(f->io, file);
    io_close_file(f->io, other);
}

/* Atoms are kept or lost singly; bytes beside the write inside an atom survive. */
static void
io_sim__power_random_tears_between_atoms(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 4 * SIM_ATOM_BYTES);
    write_letters(f->io, file, 100, 'n', 2 * SIM_ATOM_BYTES); /* atoms 0, 1, 2 */
    unsigned seen = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_RANDOM, seed);
        struct bytes content = content_of(clone, "a");
        assert_int_equal(content.len, 4 * SIM_ATOM_BYTES);
        unsigned kept = 0;
        for (size_t i = 0; i < content.len; i++) {
            bool written = i >= 100 && i < 100 + 2 * SIM_ATOM_BYTES;
            size_t atom = i / SIM_ATOM_BYTES;
            if (written && (i == 100 || i % SIM_ATOM_BYTES == 0)) {
                kept |= (content.ptr[i] == 'n' ? 1u : 0u) << atom;
            }
            bool is_new = written && (kept >> atom & 1) != 0;
            assert_int_equal(content.ptr[i], is_new ? 'n' : 'o');
        }
        seen |= 1u << kept;
        sim_disk_destroy(clone);
    }
    assert_int_equal(seen, 0xff); /* all eight subsets of three atoms */
    io_close_file(f->io, file);
}

/* An atom written twice may hold the content between the two writes. */
static void
io_sim__power_random_finds_contents_in_between(void **state)
{
    (void)state;
    unsigned seen = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim_disk *disk = sim_disk_create(seed);
        struct io *io = NULL;
        assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
        struct io_file *file = make_durable(io, "a", '0', SIM_ATOM_BYTES);
        write_letters(io, file, 0, '1', SIM_ATOM_BYTES);
        write_letters(io, file, 0, '2', SIM_ATOM_BYTES);
        sim_disk_crash(disk, SIM_CRASH_POWER_RANDOM, seed);
        struct bytes content = content_of(disk, "a");
        assert_in_range(content.ptr[0], '0', '2');
        assert_letters(disk, "a", (char)content.ptr[0], SIM_ATOM_BYTES);
        seen |= 1u << (content.ptr[0] - '0');
        io_close_file(io, file);
        io_close_dir(io);
        sim_disk_destroy(disk);
    }
    assert_int_equal(seen, 7);
}

/* A file that grew: old length, new length or one in between, and blocks that
 * were not written out read as zeros or as garbage, never as the old bytes of
 * this file. */
static void
io_sim__power_random_chooses_the_length(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 700);
    write_letters(f->io, file, 700, 'n', 2000);
    bool old_len = false, new_len = false, between = false, zeros = false, garbage = false;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_RANDOM, seed);
        struct bytes content = content_of(clone, "a");
        assert_in_range(content.len, 700, 2700);
        old_len |= content.len == 700;
        new_len |= content.len == 2700;
        between |= content.len > 700 && content.len < 2700;
        for (size_t i = 0; i < content.len; i++) {
            if (i < 700) {
                assert_int_equal(content.ptr[i], 'o');
            } else if (content.ptr[i] != 'n') {
                zeros |= content.ptr[i] == 0;
                garbage |= content.ptr[i] != 0;
            }
        }
        sim_disk_destroy(clone);
    }
    assert_true(old_len && new_len && between && zeros && garbage);
    io_close_file(f->io, file);
}

static void
io_sim__truncation_is_undone_or_done(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 3000);
    assert_int_equal(io_truncate(f->io, file, 100), ESKER_OK);
    struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(clone, "a", 'o', 3000);
    sim_disk_destroy(clone);
    clone = crashed_clone(f->disk, SIM_CRASH_POWER_ALL, 0);
    assert_letters(clone, "a", 'o', 100);
    sim_disk_destroy(clone);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(clone, "a", 'o', 100);
    sim_disk_destroy(clone);
    /* Growing again must not bring the cut bytes back. */
    assert_int_equal(io_truncate(f->io, file, 200), ESKER_OK);
    char got[200];
    assert_int_equal(io_read_full(f->io, file, 0, got, sizeof got), ESKER_OK);
    assert_int_equal(got[99], 'o');
    assert_int_equal(got[100], 0);
    io_close_file(f->io, file);
}

/* ---- Crashes of names --------------------------------------------------------- */

/* Changes of names survive as a prefix of the order in which they were made. */
static void
io_sim__names_survive_in_order(void **state)
{
    struct fixture *f = *state;
    io_close_file(f->io, make_durable(f->io, "old", 'o', 10));
    io_close_file(f->io, open_file(f->io, "one"));
    assert_int_equal(io_rename(f->io, "one", "two"), ESKER_OK);
    io_close_file(f->io, open_file(f->io, "three"));
    assert_int_equal(io_unlink(f->io, "old"), ESKER_OK);
    static const unsigned prefixes[] = {1, 1 | 2, 1 | 4, 1 | 4 | 8, 4 | 8};
    static const char *const names[] = {"old", "one", "two", "three"};
    unsigned seen = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_RANDOM, seed);
        unsigned left = 0;
        for (size_t i = 0; i < 4; i++) {
            left |= (sim_disk_exists(clone, names[i]) ? 1u : 0u) << i;
        }
        size_t at = 0;
        while (at < COUNTOF(prefixes) && prefixes[at] != left) {
            at++;
        }
        assert_true(at < COUNTOF(prefixes));
        seen |= 1u << at;
        sim_disk_destroy(clone);
    }
    assert_int_equal(seen, 0x1f);
    assert_int_equal(io_sync_dir(f->io), ESKER_OK);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_int_equal(sim_disk_files(f->disk, NULL, 0), 2);
}

static void
io_sim__lost_rename_brings_the_replaced_file_back(void **state)
{
    struct fixture *f = *state;
    io_close_file(f->io, make_durable(f->io, "name", 'o', 600));
    struct io_file *file = open_file(f->io, "tmp");
    write_letters(f->io, file, 0, 'n', 900);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    io_close_file(f->io, file);
    assert_int_equal(io_rename(f->io, "tmp", "name"), ESKER_OK);
    assert_letters(f->disk, "name", 'n', 900);
    struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(clone, "name", 'o', 600);
    sim_disk_destroy(clone);
    assert_int_equal(io_sync_dir(f->io), ESKER_OK);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(f->disk, "name", 'n', 900);
}

/* ---- Handles across a crash ----------------------------------------------------- */

static int
refuse_name(void *ctx, const char *name)
{
    (void)ctx;
    fail_msg("a dead handle listed %s", name);
    return 1;
}

static void
io_sim__dead_handles_answer_eio(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 100), *none = NULL;
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_OK);
    sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    const struct io_ops *ops = f->io->ops;
    char byte = 'x';
    uint64_t size;
    void *ptr = NULL;
    struct io_req reqs[3] = {{.op = IO_READ, .file = file, .data = &byte, .len = 1},
                             {.op = IO_WRITE, .file = file, .data = &byte, .len = 1},
                             {.op = IO_SYNC, .file = file}};
    ops->run(f->io, reqs, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(reqs[i].result, -EIO);
    }
    assert_int_equal(ops->open_file(f->io, "a", IO_OPEN_READ, &none), -EIO);
    assert_int_equal(ops->file_size(f->io, file, &size), -EIO);
    assert_int_equal(ops->truncate_file(f->io, file, 0), -EIO);
    assert_int_equal(ops->sync_dir(f->io), -EIO);
    assert_int_equal(ops->rename_file(f->io, "a", "b"), -EIO);
    assert_int_equal(ops->unlink_file(f->io, "a"), -EIO);
    assert_int_equal(ops->list(f->io, refuse_name, NULL), -EIO);
    assert_int_equal(ops->lock(f->io, "LOCK"), -EIO);
    assert_int_equal(ops->map_file(f->io, file, 100, &ptr), -EIO);
    assert_int_equal(ops->map_memory(f->io, 100, &ptr), -EIO);
    assert_letters(f->disk, "a", 'o', 100);
    struct io *again = NULL;
    assert_int_equal(io_sim_open(f->disk, &mem_default, &again), ESKER_OK);
    assert_int_equal(io_lock(again, "LOCK"), ESKER_OK); /* the dead process holds nothing */
    ops->unlock(f->io);
    assert_int_equal(again->ops->lock(again, "LOCK"), -EWOULDBLOCK);
    io_close_dir(again);
    io_close_file(f->io, file);
}

static void
io_sim__boots_are_told_apart(void **state)
{
    struct fixture *f = *state;
    struct io_machine_id first, killed, cut, booted;
    f->io->ops->machine_id(f->io, &first);
    sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    f->io->ops->machine_id(f->io, &killed);
    assert_memory_equal(&first, &killed, sizeof first);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_ALL, 0);
    f->io->ops->machine_id(f->io, &cut);
    assert_memory_not_equal(first.boot_id, cut.boot_id, sizeof first.boot_id);
    assert_true(first.mount_id != cut.mount_id);
    sim_disk_reboot(f->disk);
    f->io->ops->machine_id(f->io, &booted);
    assert_memory_not_equal(cut.boot_id, booted.boot_id, sizeof cut.boot_id);
}

static void
io_sim__clocks_move_only_by_rule(void **state)
{
    struct fixture *f = *state;
    uint64_t first = io_monotonic_ns(f->io);
    uint64_t second = io_monotonic_ns(f->io);
    assert_int_equal(second - first, 1000);
    uint64_t wall = f->io->ops->wall_ns(f->io);
    sim_disk_advance(f->disk, 5000000);
    assert_int_equal(io_monotonic_ns(f->io) - second, 5000000 + 2000);
    assert_int_equal(f->io->ops->wall_ns(f->io) - wall, 5000000 + 2000);
    sim_disk_set_wall(f->disk, 1000);
    assert_int_equal(f->io->ops->wall_ns(f->io), 2000);
    sim_disk_advance(f->disk, 1ull << 50);
    sim_disk_reboot(f->disk);
    assert_in_range(io_monotonic_ns(f->io), 0, 1ull << 40); /* a boot starts it again */
}

/* ---- The power switch --------------------------------------------------------- */

static void
io_sim__crash_at_stops_everything_at_that_change(void **state)
{
    (void)state;
    uint64_t changes = 0;
    for (uint64_t nth = 1; nth == 1 || nth <= changes + 1; nth++) {
        struct sim_disk *disk = sim_disk_create(1);
        struct io *io = NULL;
        assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
        struct io_file *file = make_durable(io, "a", '0', 10);
        uint64_t before = sim_disk_mutations(disk);
        sim_disk_crash_at(disk, nth);
        size_t done = 0;
        for (char letter = '1'; letter <= '5'; letter++) {
            char data[10];
            memset(data, letter, sizeof data);
            done += io_write_full(io, file, 0, data, sizeof data) == ESKER_OK;
            done += io_sync(io, file) == ESKER_OK;
        }
        changes = 10;
        assert_int_equal(done, nth - 1);
        assert_int_equal(sim_disk_is_off(disk), nth <= changes);
        assert_int_equal(sim_disk_mutations(disk) - before, MIN(nth, changes));
        struct io *none = NULL;
        if (nth <= changes) {
            assert_int_equal(io_sim_open(disk, &mem_default, &none), ESKER_IO);
            assert_null(none);
        }
        struct sim_disk *clone = crashed_clone(disk, SIM_CRASH_POWER_NONE, 0);
        assert_letters(clone, "a", (char)('0' + (nth - 1) / 2), 10);
        sim_disk_destroy(clone);
        sim_disk_crash(disk, SIM_CRASH_KILL, 0);
        assert_letters(disk, "a", (char)('0' + nth / 2), 10);
        assert_false(sim_disk_is_off(disk));
        io_close_file(io, file);
        io_close_dir(io);
        sim_disk_destroy(disk);
    }
}

static void
io_sim__sync_covers_nothing_of_its_own_batch(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 100);
    char data[100];
    memset(data, 'n', sizeof data);
    struct io_req reqs[2] = {{.op = IO_WRITE, .file = file, .data = data, .len = sizeof data},
                             {.op = IO_SYNC, .file = file}};
    assert_int_equal(io_run_full(f->io, reqs, 2), ESKER_OK);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(f->disk, "a", 'o', 100);
    io_close_file(f->io, file);
}

/* ---- Mapped files --------------------------------------------------------------- */

static void
io_sim__mapped_stores_are_shadow_memory(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 4 * SIM_ATOM_BYTES);
    void *map = NULL;
    assert_int_equal(f->io->ops->map_file(f->io, file, 4 * SIM_ATOM_BYTES, &map), 0);
    memset(map, '1', SIM_ATOM_BYTES);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    memset((char *)map + SIM_ATOM_BYTES, '2', 2 * SIM_ATOM_BYTES);
    struct sim_disk *none = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    struct bytes content = content_of(none, "a");
    assert_int_equal(content.ptr[0], '1');
    assert_int_equal(content.ptr[SIM_ATOM_BYTES], 'o');
    sim_disk_destroy(none);
    unsigned seen = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_RANDOM, seed);
        content = content_of(clone, "a");
        seen |= 1u << ((content.ptr[SIM_ATOM_BYTES] == '2') + 2 * (content.ptr[2 * SIM_ATOM_BYTES] == '2'));
        assert_int_equal(content.ptr[3 * SIM_ATOM_BYTES], 'o');
        sim_disk_destroy(clone);
    }
    assert_int_equal(seen, 0xf);
    /* The process dies: its stores are in the cache, later ones are nobody's. */
    sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    memset(map, 'z', 4 * SIM_ATOM_BYTES);
    content = content_of(f->disk, "a");
    assert_int_equal(content.ptr[0], '1');
    assert_int_equal(content.ptr[2 * SIM_ATOM_BYTES], '2');
    f->io->ops->unmap_file(f->io, map, 4 * SIM_ATOM_BYTES);
    io_close_file(f->io, file);
}

static void
io_sim__stores_after_the_cut_are_lost(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 100);
    void *map = NULL;
    assert_int_equal(f->io->ops->map_file(f->io, file, 100, &map), 0);
    memset(map, '1', 100);
    sim_disk_crash_at(f->disk, 1);
    assert_int_equal(io_sync(f->io, file), ESKER_IO);
    memset(map, '2', 100);
    sim_disk_crash(f->disk, SIM_CRASH_KILL, 0);
    assert_letters(f->disk, "a", '1', 100);
    f->io->ops->unmap_file(f->io, map, 100);
    io_close_file(f->io, file);
}

static void
io_sim__unmapped_stores_stay_dirty(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 100);
    void *map = NULL;
    assert_int_equal(f->io->ops->map_file(f->io, file, 100, &map), 0);
    memset(map, 'n', 100);
    f->io->ops->unmap_file(f->io, map, 100);
    struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(clone, "a", 'o', 100);
    sim_disk_destroy(clone);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    clone = crashed_clone(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_letters(clone, "a", 'n', 100);
    sim_disk_destroy(clone);
    io_close_file(f->io, file);
}

/* ---- Faults ----------------------------------------------------------------------- */

static void
io_sim__faults_hit_the_nth_call_once_or_for_ever(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f->io, "log-1"), *other = open_file(f->io, "seg-1");
    sim_disk_fail(f->disk, SIM_SYNC, 3, ENOSPC, false);
    for (int i = 1; i <= 5; i++) {
        struct io_req req = {.op = IO_SYNC, .file = file};
        f->io->ops->run(f->io, &req, 1);
        assert_int_equal(req.result, i == 3 ? -ENOSPC : 0);
    }
    assert_int_equal(sim_disk_fired(f->disk), 1);
    assert_int_equal(sim_disk_count(f->disk, SIM_SYNC), 5);
    struct sim_fault fault = {.kind = SIM_SYNC, .nth = 2, .err = EIO, .sticky = true, .prefix = "log-"};
    sim_disk_add_fault(f->disk, &fault);
    for (int i = 1; i <= 4; i++) {
        struct io_req reqs[2] = {{.op = IO_SYNC, .file = file}, {.op = IO_SYNC, .file = other}};
        f->io->ops->run(f->io, reqs, 2);
        assert_int_equal(reqs[0].result, i >= 2 ? -EIO : 0);
        assert_int_equal(reqs[1].result, 0);
    }
    assert_int_equal(sim_disk_fired(f->disk), 4);
    sim_disk_heal(f->disk);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    io_close_file(f->io, file);
    io_close_file(f->io, other);
}

static void
io_sim__every_kind_can_fail(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 100), *none = NULL;
    const struct io_ops *ops = f->io->ops;
    char byte;
    uint64_t size, fired = sim_disk_fired(f->disk);
    void *ptr = NULL;
    for (enum sim_kind kind = 0; kind < SIM_KINDS; kind++) {
        sim_disk_fail(f->disk, kind, 1, EPERM, true);
        int results[] = {
            [SIM_OPEN] = ops->open_file(f->io, kind == SIM_OPEN ? "a" : "none", 0, &none),
            [SIM_SYNC_DIR] = ops->sync_dir(f->io),
            [SIM_RENAME] = ops->rename_file(f->io, "none", "b"),
            [SIM_UNLINK] = ops->unlink_file(f->io, "none"),
            [SIM_TRUNCATE] = ops->truncate_file(f->io, file, 100),
            [SIM_SIZE] = ops->file_size(f->io, file, &size),
            [SIM_LIST] = kind == SIM_LIST ? ops->list(f->io, refuse_name, NULL) : 0,
            [SIM_MAP] = kind == SIM_MAP ? ops->map_file(f->io, file, 100, &ptr) : 0,
            [SIM_AHEAD] = ops->start_read(f->io, file, 0, 1),
            [SIM_MEMORY] = kind == SIM_MEMORY ? ops->map_memory(f->io, 100, &ptr) : 0,
        };
        struct io_req reqs[3] = {{.op = IO_READ, .file = file, .data = &byte, .len = 1},
                                 {.op = IO_WRITE, .file = file, .data = &byte, .len = 1},
                                 {.op = IO_SYNC, .file = file}};
        ops->run(f->io, reqs, 3);
        results[SIM_READ] = reqs[0].result;
        results[SIM_WRITE] = reqs[1].result;
        results[SIM_SYNC] = reqs[2].result;
        for (enum sim_kind each = 0; each < SIM_KINDS; each++) {
            assert_true((results[each] == -EPERM) == (each == kind));
        }
        assert_int_equal(sim_disk_fired(f->disk), ++fired);
        sim_disk_heal(f->disk);
    }
    io_close_file(f->io, file);
}

static void
io_sim__failed_sync_leaves_pages_dirty_or_lost(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 600);
    write_letters(f->io, file, 0, 'n', 900);
    sim_disk_fail(f->disk, SIM_SYNC, 1, EIO, false);
    assert_int_equal(io_sync(f->io, file), ESKER_IO);
    struct sim_disk *clone = crashed_clone(f->disk, SIM_CRASH_POWER_ALL, 0);
    assert_letters(clone, "a", 'n', 900); /* still dirty: it may be written out */
    sim_disk_destroy(clone);
    sim_disk_set_sync_failure(f->disk, SIM_SYNC_MARKS_CLEAN);
    sim_disk_fail(f->disk, SIM_SYNC, 1, EIO, false);
    assert_int_equal(io_sync(f->io, file), ESKER_IO);
    assert_int_equal(io_sync(f->io, file), ESKER_OK); /* the trap */
    assert_letters(f->disk, "a", 'n', 900);
    clone = crashed_clone(f->disk, SIM_CRASH_POWER_ALL, 0);
    assert_letters(clone, "a", 'o', 600);
    sim_disk_destroy(clone);
    write_letters(f->io, file, 0, 'm', SIM_ATOM_BYTES); /* written again: dirty again */
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    struct bytes content = content_of(f->disk, "a");
    assert_int_equal(content.len, 600);
    assert_int_equal(content.ptr[0], 'm');
    assert_int_equal(content.ptr[SIM_ATOM_BYTES], 'o');
    io_close_file(f->io, file);
}

static void
io_sim__lying_syncs_make_nothing_durable(void **state)
{
    struct fixture *f = *state;
    sim_disk_set_lying(f->disk, true);
    io_close_file(f->io, make_durable(f->io, "a", 'x', 10));
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    assert_int_equal(sim_disk_files(f->disk, NULL, 0), 0);
}

static void
io_sim__full_disk_takes_a_part_then_nothing(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = open_file(f->io, "a"), *other = open_file(f->io, "b");
    char data[100] = {0};
    sim_disk_set_capacity(f->disk, 150);
    assert_int_equal(io_write_full(f->io, file, 0, data, 100), ESKER_OK);
    struct io_req req = {.op = IO_WRITE, .file = other, .data = data, .len = 100};
    f->io->ops->run(f->io, &req, 1);
    assert_int_equal(req.result, 50);
    req.offset = 50;
    f->io->ops->run(f->io, &req, 1);
    assert_int_equal(req.result, -ENOSPC);
    assert_int_equal(io_write_full(f->io, file, 0, data, 100), ESKER_OK); /* no new space */
    assert_int_equal(io_unlink(f->io, "b"), ESKER_OK);
    assert_int_equal(io_write_full(f->io, file, 100, data, 40), ESKER_NO_SPACE); /* still open */
    io_close_file(f->io, other);
    assert_int_equal(io_write_full(f->io, file, 100, data, 40), ESKER_OK);
    io_close_file(f->io, file);
}

/* ---- Seeds, clones and damage ------------------------------------------------------- */

static uint64_t
run_workload(uint64_t seed, uint64_t *random_out)
{
    struct sim_disk *disk = sim_disk_create(seed);
    struct io *io = NULL;
    sim_disk_set_log(disk, true);
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    struct io_file *file = make_durable(io, "a", 'o', 3000);
    for (int i = 0; i < 20; i++) {
        char data[64];
        memset(data, 'a' + i, sizeof data);
        struct io_req reqs[4];
        for (size_t r = 0; r < 4; r++) {
            uint64_t at = io->ops->random64(io) % 4000;
            reqs[r] = (struct io_req){.op = IO_WRITE, .file = file, .offset = at, .data = data, .len = 64};
        }
        assert_int_equal(io_run_full(io, reqs, 4), ESKER_OK);
    }
    assert_int_equal(io_rename(io, "a", "b"), ESKER_OK);
    size_t count;
    const struct sim_log_entry *log = sim_disk_log(disk, &count);
    assert_int_equal(count, 4 + 80 + 1); /* create, write, sync, sync_dir, ... */
    assert_int_equal(log[1].kind, SIM_WRITE);
    assert_int_equal(log[1].len, 3000);
    uint64_t hash = sim_disk_log_hash(disk);
    io_close_file(io, file);
    io_close_dir(io);
    sim_disk_crash(disk, SIM_CRASH_POWER_RANDOM, seed);
    struct bytes content;
    *random_out = sim_disk_get(disk, "a", &content) || sim_disk_get(disk, "b", &content)
                      ? content.len * 1000 + content.ptr[0]
                      : 0;
    sim_disk_destroy(disk);
    return hash;
}

static void
io_sim__same_seed_same_history(void **state)
{
    (void)state;
    uint64_t left[3];
    uint64_t first = run_workload(7, &left[0]);
    uint64_t second = run_workload(7, &left[1]);
    uint64_t other = run_workload(8, &left[2]);
    assert_true(first == second);
    assert_true(left[0] == left[1]);
    assert_true(first != other);
}

static void
io_sim__clone_goes_its_own_way(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = make_durable(f->io, "a", 'o', 2000);
    write_letters(f->io, file, 0, 'n', 1000);
    io_close_file(f->io, open_file(f->io, "b"));
    struct sim_disk *clone = sim_disk_clone(f->disk);
    write_letters(f->io, file, 0, 'x', 2000);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    struct io *io = NULL;
    assert_int_equal(io_sim_open(clone, &mem_default, &io), ESKER_OK);
    assert_int_equal(io_unlink(io, "b"), ESKER_OK);
    io_close_dir(io);
    assert_true(sim_disk_exists(f->disk, "b"));
    /* The same crash of either gives the same bytes. */
    struct sim_disk *twin = sim_disk_clone(clone);
    sim_disk_crash(clone, SIM_CRASH_POWER_RANDOM, 5);
    sim_disk_crash(twin, SIM_CRASH_POWER_RANDOM, 5);
    struct bytes one = content_of(clone, "a"), two = content_of(twin, "a");
    assert_int_equal(one.len, 2000);
    assert_int_equal(two.len, 2000);
    assert_memory_equal(one.ptr, two.ptr, one.len);
    sim_disk_destroy(twin);
    sim_disk_destroy(clone);
    assert_letters(f->disk, "a", 'x', 2000);
    io_close_file(f->io, file);
}

static void
io_sim__files_can_be_damaged(void **state)
{
    struct fixture *f = *state;
    struct sim_disk *other = sim_disk_create(3);
    sim_disk_put(f->disk, "b", bytes_make("hello", 5));
    sim_disk_put(f->disk, "a", bytes_make("", 0));
    sim_disk_put(f->disk, "b", bytes_make("HELLO!", 6));
    sim_disk_flip(f->disk, "b", 8 + 5); /* bit 5 of byte 1: 'E' -> 'e' */
    sim_disk_copy(f->disk, "b", other, "c");
    sim_disk_copy(f->disk, "a", other, "d");
    sim_disk_resize(f->disk, "b", 2);
    struct sim_file_info files[3];
    assert_int_equal(sim_disk_files(f->disk, files, 3), 2);
    assert_string_equal(files[0].name, "a");
    assert_int_equal(files[0].bytes, 0);
    assert_string_equal(files[1].name, "b");
    assert_int_equal(files[1].bytes, 2);
    assert_int_equal(files[1].durable_bytes, 2);
    sim_disk_crash(f->disk, SIM_CRASH_POWER_NONE, 0);
    sim_disk_crash(other, SIM_CRASH_POWER_NONE, 0);
    assert_memory_equal(content_of(f->disk, "b").ptr, "He", 2);
    assert_memory_equal(content_of(other, "c").ptr, "HeLLO!", 6);
    assert_int_equal(content_of(other, "d").len, 0);
    sim_disk_delete(f->disk, "b");
    assert_int_equal(sim_disk_files(f->disk, files, 0), 1);
    sim_disk_destroy(other);
}

#define CASE(fn)                                                                                   \
    {.name = #fn, .test_func = fn, .setup_func = fixture_setup, .teardown_func = fixture_teardown}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(io_sim__kill_keeps_what_was_written),
        CASE(io_sim__power_none_keeps_what_was_synced),
        CASE(io_sim__power_random_tears_between_atoms),
        CASE(io_sim__power_random_finds_contents_in_between),
        CASE(io_sim__power_random_chooses_the_length),
        CASE(io_sim__truncation_is_undone_or_done),
        CASE(io_sim__names_survive_in_order),
        CASE(io_sim__lost_rename_brings_the_replaced_file_back),
        CASE(io_sim__dead_handles_answer_eio),
        CASE(io_sim__boots_are_told_apart),
        CASE(io_sim__clocks_move_only_by_rule),
        CASE(io_sim__crash_at_stops_everything_at_that_change),
        CASE(io_sim__sync_covers_nothing_of_its_own_batch),
        CASE(io_sim__mapped_stores_are_shadow_memory),
        CASE(io_sim__stores_after_the_cut_are_lost),
        CASE(io_sim__unmapped_stores_stay_dirty),
        CASE(io_sim__faults_hit_the_nth_call_once_or_for_ever),
        CASE(io_sim__every_kind_can_fail),
        CASE(io_sim__failed_sync_leaves_pages_dirty_or_lost),
        CASE(io_sim__lying_syncs_make_nothing_durable),
        CASE(io_sim__full_disk_takes_a_part_then_nothing),
        CASE(io_sim__same_seed_same_history),
        CASE(io_sim__clone_goes_its_own_way),
        CASE(io_sim__files_can_be_damaged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
