/* SPDX-License-Identifier: MIT */
/*
 * Goal: the back-ends keep one contract (io.h).
 * Method: one suite, run once for every row of `backends`.
 */
#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "io/io_sim.h"
#include "io/test_dir.h"
#include "sync/mutex.h"

enum { KIND_SIM = -1 };

struct backend {
    const char *label;
    int kind; /* ESKER_IO_* or KIND_SIM */
};

static const struct backend backends[] = {
    {.label = "posix", .kind = ESKER_IO_POSIX},
    {.label = "uring", .kind = ESKER_IO_URING},
    {.label = "sim", .kind = KIND_SIM},
};

/* ---- Fixture ------------------------------------------------------------ */

struct fixture {
    const struct backend *backend;
    struct sim_disk *disk; /* sim only */
    struct io *io;
    char dir[64];
};

static struct io *
open_again(const struct fixture *f)
{
    struct io *io = NULL;
    if (f->disk != NULL) {
        assert_int_equal(io_sim_open(f->disk, &mem_default, &io), ESKER_OK);
    } else {
        assert_int_equal(io_open_dir(f->dir, false, f->backend->kind, &mem_default, &io), ESKER_OK);
    }
    return io;
}

static int
fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->backend = *state;
    if (f->backend->kind == KIND_SIM) {
        f->disk = sim_disk_create(1);
    } else {
        snprintf(f->dir, sizeof f->dir, "./io_test_XXXXXX");
        assert_non_null(mkdtemp(f->dir));
    }
    f->io = open_again(f);
    *state = f;
    return 0;
}

static int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    io_close_dir(f->io);
    if (f->disk != NULL) {
        sim_disk_destroy(f->disk);
    } else {
        test_dir_remove(f->dir);
    }
    free(f);
    return 0;
}

static struct io_file *
create_file(struct io *io, const char *name)
{
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    return file;
}

static void
put_file(struct io *io, const char *name, const char *text)
{
    struct io_file *file = create_file(io, name);
    assert_int_equal(io_truncate(io, file, 0), ESKER_OK);
    assert_int_equal(io_write_full(io, file, 0, text, strlen(text)), ESKER_OK);
    io_close_file(io, file);
}

static void
assert_content(struct io *io, const char *name, const char *text)
{
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(io_read_file(io, name, 1 << 20, &buf), ESKER_OK);
    assert_int_equal(buf.len, strlen(text));
    assert_memory_equal(buf.ptr, text, buf.len);
    buf_fini(&buf);
}

static bool
exists(struct io *io, const char *name)
{
    struct io_file *file = NULL;
    int failed = io->ops->open_file(io, name, IO_OPEN_READ, &file);
    assert_true(failed == 0 || failed == -ENOENT);
    if (failed == 0) {
        io->ops->close_file(io, file);
    }
    return failed == 0;
}

static void
fill(uint8_t *data, size_t len, uint32_t seed)
{
    for (size_t at = 0; at < len; at++) {
        seed = seed * 1664525u + 1013904223u;
        data[at] = (uint8_t)(seed >> 24);
    }
}

/* ---- Files -------------------------------------------------------------- */

static void
io__label_and_reason_are_told(void **state)
{
    struct fixture *f = *state;
    assert_string_equal(f->io->ops->label, f->backend->label);
    assert_true(strlen(f->io->reason) > 0);
}

static void
io__open_missing_is_enoent(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = NULL;
    assert_int_equal(f->io->ops->open_file(f->io, "none", IO_OPEN_READ, &file), -ENOENT);
    assert_int_equal(f->io->ops->open_file(f->io, "none", IO_OPEN_WRITE, &file), -ENOENT);
    assert_int_equal(io_open_file(f->io, "none", IO_OPEN_READ, &file), ESKER_NOT_FOUND);
    assert_string_equal(status_last()->file, "none");
    assert_null(file);
}

static void
io__open_create_and_exclusive(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = NULL;
    unsigned fresh = IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE;
    assert_int_equal(f->io->ops->open_file(f->io, "a", fresh, &file), 0);
    assert_string_equal(file->name, "a");
    io_close_file(f->io, file);
    file = NULL;
    assert_int_equal(f->io->ops->open_file(f->io, "a", fresh, &file), -EEXIST);
    assert_int_equal(f->io->ops->open_file(f->io, "a", IO_OPEN_CREATE, &file), -EINVAL);
    assert_null(file);
    file = create_file(f->io, "a");
    io_close_file(f->io, file);
    io_close_file(f->io, NULL);
}

static void
io__names_stay_inside_the_directory(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {"", ".", "..", "a/b", "/a", "../a"};
    put_file(f->io, "ok", "x");
    for (size_t i = 0; i < COUNTOF(bad); i++) {
        struct io_file *file = NULL;
        unsigned flags = IO_OPEN_WRITE | IO_OPEN_CREATE;
        assert_int_equal(f->io->ops->open_file(f->io, bad[i], flags, &file), -EINVAL);
        assert_null(file);
        assert_int_equal(f->io->ops->rename_file(f->io, "ok", bad[i]), -EINVAL);
        assert_int_equal(f->io->ops->rename_file(f->io, bad[i], "ok"), -EINVAL);
        assert_int_equal(f->io->ops->unlink_file(f->io, bad[i]), -EINVAL);
    }
    struct io_file *file = NULL;
    const char *name = "0123456789012345678901234567890123456789"; /* 40: one too many */
    unsigned fresh = IO_OPEN_WRITE | IO_OPEN_CREATE;
    assert_int_equal(f->io->ops->open_file(f->io, name, fresh, &file), -ENAMETOOLONG);
    assert_int_equal(f->io->ops->open_file(f->io, name + 1, fresh, &file), 0);
    assert_string_equal(file->name, name + 1);
    io_close_file(f->io, file);
}

static void
io__write_then_read_back(void **state)
{
    struct fixture *f = *state;
    uint8_t data[10000], got[10000];
    fill(data, sizeof data, 1);
    struct io_file *file = create_file(f->io, "a");
    assert_int_equal(io_write_full(f->io, file, 3, data, sizeof data), ESKER_OK);
    uint64_t size = 0;
    assert_int_equal(io_file_size(f->io, file, &size), ESKER_OK);
    assert_int_equal(size, 3 + sizeof data);
    assert_int_equal(io_read_full(f->io, file, 3, got, sizeof got), ESKER_OK);
    assert_memory_equal(data, got, sizeof data);
    assert_int_equal(io_read_full(f->io, file, 0, got, 4), ESKER_OK);
    assert_memory_equal(got, "\0\0\0", 3);
    assert_int_equal(got[3], data[0]);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    io_close_file(f->io, file);
}

static void
io__read_at_the_end_is_short_then_zero(void **state)
{
    struct fixture *f = *state;
    char got[16];
    put_file(f->io, "a", "hello");
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_READ, &file), ESKER_OK);
    struct io_req reqs[3] = {
        {.op = IO_READ, .file = file, .offset = 3, .data = got, .len = 10},
        {.op = IO_READ, .file = file, .offset = 5, .data = got, .len = 10},
        {.op = IO_READ, .file = file, .offset = 500, .data = got, .len = 10},
    };
    f->io->ops->run(f->io, reqs, 3);
    assert_int_equal(reqs[0].result, 2);
    assert_int_equal(reqs[1].result, 0);
    assert_int_equal(reqs[2].result, 0);
    assert_int_equal(io_read_full(f->io, file, 2, got, 4), ESKER_CORRUPT);
    assert_int_equal(status_last()->offset, 5);
    assert_string_equal(status_last()->file, "a");
    io_close_file(f->io, file);
}

static void
io__impossible_offset_is_einval(void **state)
{
    struct fixture *f = *state;
    char byte = 0;
    struct io_file *file = create_file(f->io, "a");
    struct io_req reqs[2] = {
        {.op = IO_READ, .file = file, .offset = UINT64_MAX, .data = &byte, .len = 1},
        {.op = IO_WRITE, .file = file, .offset = 1ULL << 63, .data = &byte, .len = 1},
    };
    f->io->ops->run(f->io, reqs, 2);
    assert_int_equal(reqs[0].result, -EINVAL);
    assert_int_equal(reqs[1].result, -EINVAL);
    io_close_file(f->io, file);
}

static void
io__read_only_file_refuses_writes(void **state)
{
    struct fixture *f = *state;
    char byte = 'x';
    put_file(f->io, "a", "hello");
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_READ, &file), ESKER_OK);
    struct io_req req = {.op = IO_WRITE, .file = file, .data = &byte, .len = 1};
    f->io->ops->run(f->io, &req, 1);
    assert_int_equal(req.result, -EBADF);
    assert_int_equal(f->io->ops->truncate_file(f->io, file, 0), -EINVAL);
    assert_int_equal(io_write_full(f->io, file, 7, &byte, 1), ESKER_IO);
    assert_int_equal(status_last()->os_errno, EBADF);
    assert_int_equal(status_last()->offset, 7);
    io_close_file(f->io, file);
    assert_content(f->io, "a", "hello");
}

static void
io__truncate_cuts_and_extends_with_zeros(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "a", "hello");
    struct io_file *file = create_file(f->io, "a");
    assert_int_equal(io_truncate(f->io, file, 2), ESKER_OK);
    assert_int_equal(io_truncate(f->io, file, 1000), ESKER_OK);
    char got[1000];
    assert_int_equal(io_read_full(f->io, file, 0, got, sizeof got), ESKER_OK);
    assert_memory_equal(got, "he", 2);
    for (size_t i = 2; i < sizeof got; i++) {
        assert_int_equal(got[i], 0);
    }
    io_close_file(f->io, file);
}

static void
io__reserve_extends_with_zeros_and_never_cuts(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "a", "hello");
    struct io_file *file = create_file(f->io, "a");
    uint64_t size = 0;
    char got[100000];
    assert_int_equal(io_reserve(f->io, file, sizeof got), ESKER_OK);
    assert_int_equal(io_reserve(f->io, file, 10), ESKER_OK);
    assert_int_equal(io_file_size(f->io, file, &size), ESKER_OK);
    assert_int_equal(size, sizeof got);
    assert_int_equal(io_write_full(f->io, file, 70000, "there", 5), ESKER_OK);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    assert_int_equal(io_read_full(f->io, file, 0, got, sizeof got), ESKER_OK);
    assert_memory_equal(got, "hello", 5);
    assert_memory_equal(got + 70000, "there", 5);
    memset(got, 0, 5);
    memset(got + 70000, 0, 5);
    for (size_t i = 0; i < sizeof got; i++) {
        assert_int_equal(got[i], 0);
    }
    assert_int_equal(f->io->ops->reserve_file(f->io, file, UINT64_MAX), -EFBIG);
    if (strcmp(f->io->ops->label, "sim") != 0) { /* there EINVAL, which stands for all that say they cannot */
        assert_int_equal(f->io->ops->reserve_file(f->io, file, 0), -EOPNOTSUPP);
    }
    io_close_file(f->io, file);
}

static void
io__open_file_survives_rename_and_unlink(void **state)
{
    struct fixture *f = *state;
    char got[5];
    put_file(f->io, "a", "hello");
    put_file(f->io, "b", "other");
    struct io_file *a = create_file(f->io, "a");
    struct io_file *b = create_file(f->io, "b");
    assert_int_equal(io_rename(f->io, "a", "b"), ESKER_OK);
    assert_false(exists(f->io, "a"));
    assert_content(f->io, "b", "hello");
    assert_int_equal(io_read_full(f->io, b, 0, got, 5), ESKER_OK);
    assert_memory_equal(got, "other", 5);
    assert_int_equal(io_unlink(f->io, "b"), ESKER_OK);
    assert_false(exists(f->io, "b"));
    assert_int_equal(io_read_full(f->io, a, 0, got, 5), ESKER_OK);
    assert_memory_equal(got, "hello", 5);
    assert_int_equal(io_write_full(f->io, a, 0, "HE", 2), ESKER_OK);
    io_close_file(f->io, a);
    io_close_file(f->io, b);
}

static void
io__rename_and_unlink_of_missing_names(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->io->ops->rename_file(f->io, "none", "b"), -ENOENT);
    assert_int_equal(f->io->ops->unlink_file(f->io, "none"), -ENOENT);
    assert_int_equal(io_unlink(f->io, "none"), ESKER_OK);
    assert_int_equal(io_rename(f->io, "none", "b"), ESKER_IO);
    assert_string_equal(status_last()->file, "none");
    put_file(f->io, "a", "x");
    assert_int_equal(io_rename(f->io, "a", "a"), ESKER_OK);
    assert_content(f->io, "a", "x");
}

struct listed {
    char names[8][40];
    size_t count, limit;
};

static int
list_name(void *ctx, const char *name)
{
    struct listed *listed = ctx;
    assert_true(listed->count < COUNTOF(listed->names));
    snprintf(listed->names[listed->count++], 40, "%s", name);
    return listed->count == listed->limit;
}

static void
io__list_names_each_file_once_and_stops(void **state)
{
    struct fixture *f = *state;
    struct listed listed = {.count = 0};
    assert_int_equal(f->io->ops->list(f->io, list_name, &listed), 0);
    assert_int_equal(listed.count, 0);
    put_file(f->io, "a", "");
    put_file(f->io, "b", "");
    put_file(f->io, "c", "");
    assert_int_equal(f->io->ops->list(f->io, list_name, &listed), 0);
    assert_int_equal(listed.count, 3);
    int seen = 0;
    for (size_t i = 0; i < 3; i++) {
        seen |= 1 << (listed.names[i][0] - 'a');
    }
    assert_int_equal(seen, 7);
    listed = (struct listed){.limit = 2};
    assert_int_equal(f->io->ops->list(f->io, list_name, &listed), 0);
    assert_int_equal(listed.count, 2);
}

static void
io__sync_dir_works(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "a", "x");
    assert_int_equal(io_sync_dir(f->io), ESKER_OK);
}

static void
io__lock_excludes_a_second_handle(void **state)
{
    struct fixture *f = *state;
    struct io *other = open_again(f);
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_OK);
    assert_int_equal(f->io->ops->lock(f->io, "LOCK"), -EWOULDBLOCK);
    assert_int_equal(other->ops->lock(other, "LOCK"), -EWOULDBLOCK);
    assert_int_equal(io_lock(other, "LOCK"), ESKER_BUSY);
    assert_true(exists(f->io, "LOCK")); /* opening and closing the file must not drop the lock */
    assert_int_equal(other->ops->lock(other, "LOCK"), -EWOULDBLOCK);
    f->io->ops->unlock(f->io);
    f->io->ops->unlock(f->io);
    assert_int_equal(io_lock(other, "LOCK"), ESKER_OK);
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_BUSY);
    io_close_dir(other);
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_OK);
}

/* ---- Batches ------------------------------------------------------------ */

static void
io__run_does_a_large_mixed_batch(void **state)
{
    enum { COUNT = 300, PIECE = 700 };
    struct fixture *f = *state;
    uint8_t *data = malloc((size_t)COUNT * PIECE), *got = calloc(COUNT, PIECE);
    struct io_req *reqs = calloc(COUNT + 2, sizeof *reqs);
    assert_true(data != NULL && got != NULL && reqs != NULL);
    fill(data, (size_t)COUNT * PIECE, 7);
    struct io_file *files[2] = {create_file(f->io, "a"), create_file(f->io, "b")};
    for (size_t i = 0; i < COUNT; i++) {
        size_t place = (i * 77) % COUNT; /* out of order: 77 and 300 share no factor */
        reqs[i] = (struct io_req){.op = IO_WRITE,
                                  .file = files[place % 2],
                                  .offset = place / 2 * PIECE,
                                  .data = data + place * PIECE,
                                  .len = PIECE};
    }
    assert_int_equal(io_run_full(f->io, reqs, COUNT), ESKER_OK);
    for (size_t i = 0; i < COUNT; i++) {
        reqs[i].op = IO_READ;
        reqs[i].data = got + ((uint8_t *)reqs[i].data - data);
        reqs[i].result = -1;
    }
    reqs[COUNT] = (struct io_req){.op = IO_SYNC, .file = files[0], .result = -1};
    reqs[COUNT + 1] = (struct io_req){.op = IO_SYNC, .file = files[1], .result = -1};
    f->io->ops->run(f->io, reqs, COUNT + 2);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(reqs[i].result, PIECE);
    }
    assert_int_equal(reqs[COUNT].result, 0);
    assert_int_equal(reqs[COUNT + 1].result, 0);
    assert_memory_equal(data, got, (size_t)COUNT * PIECE);
    f->io->ops->run(f->io, reqs, 0);
    io_close_file(f->io, files[0]);
    io_close_file(f->io, files[1]);
    free(reqs);
    free(got);
    free(data);
}

static void
io__write_sync_writes_like_a_write(void **state)
{
    struct fixture *f = *state;
    struct io_file *reader = NULL;
    struct io_file *file = create_file(f->io, "a");
    assert_int_equal(io_write_sync(f->io, file, 0, "hello", 5), ESKER_OK);
    assert_int_equal(io_write_sync(f->io, file, 3, "p me", 4), ESKER_OK);
    char first = 'H', last = '!';
    struct io_req reqs[2] = {{.op = IO_WRITE_SYNC, .file = file, .offset = 0, .data = &first, .len = 1},
                             {.op = IO_WRITE_SYNC, .file = file, .offset = 7, .data = &last, .len = 1}};
    assert_int_equal(io_run_full(f->io, reqs, 2), ESKER_OK);
    assert_int_equal(reqs[1].result, 1);
    assert_content(f->io, "a", "Help me!");
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_READ, &reader), ESKER_OK);
    assert_int_equal(io_write_sync(f->io, reader, 0, "x", 1), ESKER_IO);
    assert_content(f->io, "a", "Help me!");
    io_close_file(f->io, reader);
    io_close_file(f->io, file);
}

static void
io__run_reports_each_request_alone(void **state)
{
    struct fixture *f = *state;
    char byte[5] = {0};
    put_file(f->io, "a", "hello");
    struct io_file *reader = NULL;
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_READ, &reader), ESKER_OK);
    struct io_req reqs[5];
    for (size_t i = 0; i < 5; i++) {
        enum io_op op = i % 2 == 0 ? IO_READ : IO_WRITE;
        reqs[i] = (struct io_req){.op = op, .file = reader, .offset = i, .data = &byte[i], .len = 1};
    }
    f->io->ops->run(f->io, reqs, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(reqs[i].result, i % 2 == 0 ? 1 : -EBADF);
    }
    assert_int_equal(byte[0], 'h');
    assert_int_equal(byte[4], 'o');
    assert_int_equal(io_run_full(f->io, reqs, 5), ESKER_IO);
    assert_int_equal(status_last()->offset, 1);
    io_close_file(f->io, reader);
}

struct hammer {
    struct io *io;
    struct io_file *file;
    uint8_t seed;
};

static void
hammer_main(void *ctx)
{
    enum { PIECES = 40, PIECE = 512 };
    struct hammer *hammer = ctx;
    uint8_t data[PIECES * PIECE], got[PIECES * PIECE];
    for (int round = 0; round < 20; round++) {
        struct io_req reqs[PIECES];
        fill(data, sizeof data, (uint32_t)hammer->seed * 1000u + (uint32_t)round);
        memset(got, 0, sizeof got);
        for (int pass = 0; pass < 2; pass++) {
            for (size_t i = 0; i < PIECES; i++) {
                reqs[i] = (struct io_req){.op = pass == 0 ? IO_WRITE : IO_READ,
                                          .file = hammer->file,
                                          .offset = hammer->seed * sizeof data + i * PIECE,
                                          .data = (pass == 0 ? data : got) + i * PIECE,
                                          .len = PIECE};
            }
            assert_int_equal(io_run_full(hammer->io, reqs, PIECES), ESKER_OK);
        }
        assert_memory_equal(data, got, sizeof data);
    }
}

static void *
hammer_thread(void *ctx)
{
    hammer_main(ctx);
    return NULL;
}

static void
io__threads_share_one_file(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = create_file(f->io, "a");
    struct hammer hammers[4];
    pthread_t threads[4];
    for (uint8_t i = 0; i < 4; i++) {
        hammers[i] = (struct hammer){.io = f->io, .file = file, .seed = i};
        assert_int_equal(pthread_create(&threads[i], NULL, hammer_thread, &hammers[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    io_close_file(f->io, file);
}

/* ---- Memory ------------------------------------------------------------- */

static void
io__mapped_file_is_the_file(void **state)
{
    struct fixture *f = *state;
    uint8_t data[8192], got[8192];
    fill(data, sizeof data, 3);
    struct io_file *file = create_file(f->io, "a");
    assert_int_equal(io_write_full(f->io, file, 0, data, sizeof data), ESKER_OK);
    void *map = NULL;
    assert_int_equal(f->io->ops->map_file(f->io, file, sizeof data + 1, &map), -EINVAL);
    assert_null(map);
    int failed = f->io->ops->map_file(f->io, file, sizeof data, &map);
    if (failed == -EOPNOTSUPP) {
        io_close_file(f->io, file);
        skip(); /* a file system where the promise is not made */
    }
    assert_int_equal(failed, 0);
    assert_memory_equal(map, data, sizeof data);
    memcpy((uint8_t *)map + 4000, "stored", 6);
    assert_int_equal(io_sync(f->io, file), ESKER_OK);
    memcpy((uint8_t *)map + 100, "again", 5);
    assert_int_equal(io_read_full(f->io, file, 0, got, sizeof got), ESKER_OK);
    assert_memory_equal(got + 4000, "stored", 6);
    assert_memory_equal(got + 100, "again", 5);
    assert_int_equal(io_write_full(f->io, file, 8000, "written", 7), ESKER_OK);
    assert_memory_equal((uint8_t *)map + 8000, "written", 7);
    f->io->ops->unmap_file(f->io, map, sizeof data);
    assert_int_equal(io_read_full(f->io, file, 0, got, sizeof got), ESKER_OK);
    assert_memory_equal(got + 4000, "stored", 6);
    io_close_file(f->io, file);
}

static void
io__page_memory_is_zeroed_and_aligned(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = {1, 4096, 70000, (4 << 20) - 1, 4 << 20, (6 << 20) + 5};
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        void *ptr = NULL;
        assert_int_equal(f->io->ops->map_memory(f->io, sizes[i], &ptr), 0);
        uint64_t alignment = sizes[i] >= 4 << 20 ? 2 << 20 : 4096;
        assert_int_equal((uintptr_t)ptr % alignment, 0);
        uint8_t *bytes = ptr;
        assert_int_equal(bytes[0] | bytes[sizes[i] / 2] | bytes[sizes[i] - 1], 0);
        bytes[0] = bytes[sizes[i] - 1] = 1;
        f->io->ops->unmap_memory(f->io, ptr, sizes[i]);
    }
    void *ptr = NULL;
    assert_int_equal(f->io->ops->map_memory(f->io, UINT64_MAX - 5, &ptr), -ENOMEM);
    assert_int_equal(f->io->ops->map_memory(f->io, 0, &ptr), -EINVAL);
    assert_null(ptr);
    f->io->ops->unmap_memory(f->io, NULL, 0);
}

static void
io__aligned_memory_can_be_discarded(void **state)
{
    struct fixture *f = *state;
    static const uint64_t sizes[] = {1, 4096, 70000, (4 << 20) + 4096};
    for (size_t i = 0; i < COUNTOF(sizes); i++) {
        void *ptr = NULL;
        assert_int_equal(f->io->ops->map_aligned(f->io, sizes[i], 1 << 20, &ptr), 0);
        assert_int_equal((uintptr_t)ptr % (1 << 20), 0);
        uint8_t *bytes = ptr;
        assert_int_equal(bytes[0] | bytes[sizes[i] / 2] | bytes[sizes[i] - 1], 0);
        memset(bytes, 7, sizes[i]);
        f->io->ops->discard(f->io, bytes, align_up(sizes[i], 4096));
        assert_true(bytes[0] == 0 || bytes[0] == 7);
        memset(bytes, 8, sizes[i]);
        assert_int_equal(bytes[sizes[i] - 1], 8);
        f->io->ops->unmap_aligned(f->io, ptr, sizes[i]);
    }
    void *ptr = NULL;
    assert_int_equal(f->io->ops->map_aligned(f->io, UINT64_MAX - 5, 4096, &ptr), -ENOMEM);
    assert_int_equal(f->io->ops->map_aligned(f->io, 0, 4096, &ptr), -EINVAL);
    assert_null(ptr);
}

/* ---- Clocks and names of the machine -------------------------------------- */

static void
io__clocks_random_and_machine(void **state)
{
    struct fixture *f = *state;
    uint64_t first = io_monotonic_ns(f->io);
    uint64_t second = io_monotonic_ns(f->io);
    assert_true(second >= first);
    assert_true(f->io->ops->wall_ns(f->io) > 1600000000ull * 1000000000ull);
    assert_true(f->io->ops->random64(f->io) != f->io->ops->random64(f->io));
    struct io_machine_id one, two;
    memset(&one, 1, sizeof one);
    memset(&two, 2, sizeof two);
    f->io->ops->machine_id(f->io, &one);
    struct io *other = open_again(f);
    other->ops->machine_id(other, &two);
    io_close_dir(other);
    assert_memory_equal(one.boot_id, two.boot_id, sizeof one.boot_id);
    assert_int_equal(one.mount_id, two.mount_id);
}

/* ---- Helpers ------------------------------------------------------------ */

static void
io__read_file_has_a_limit(void **state)
{
    struct fixture *f = *state;
    struct buf buf;
    buf_init(&buf, &mem_default);
    put_file(f->io, "a", "hello");
    put_file(f->io, "empty", "");
    assert_int_equal(buf_append(&buf, "keep", 4), ESKER_OK);
    assert_int_equal(io_read_file(f->io, "a", 4, &buf), ESKER_CORRUPT);
    assert_int_equal(io_read_file(f->io, "none", 4, &buf), ESKER_NOT_FOUND);
    assert_memory_equal(buf.ptr, "keep", 4);
    assert_int_equal(io_read_file(f->io, "a", 5, &buf), ESKER_OK);
    assert_int_equal(buf.len, 5);
    assert_memory_equal(buf.ptr, "hello", 5);
    assert_int_equal(io_read_file(f->io, "empty", 0, &buf), ESKER_OK);
    assert_int_equal(buf.len, 0);
    buf_fini(&buf);
}

static void
io__replace_file_takes_the_name_over(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "tmp", "left by an interrupted replacement");
    assert_int_equal(io_replace_file(f->io, "name", "tmp", bytes_make("one", 3)), ESKER_OK);
    assert_content(f->io, "name", "one");
    assert_false(exists(f->io, "tmp"));
    assert_int_equal(io_replace_file(f->io, "name", "tmp", bytes_make(NULL, 0)), ESKER_OK);
    assert_content(f->io, "name", "");
}

#define CASE(function)                                                                                       \
    {                                                                                                        \
        .name = #function, .test_func = function, .setup_func = fixture_setup,                               \
        .teardown_func = fixture_teardown                                                                    \
    }

int
main(void)
{
    int failures = 0;
    for (size_t i = 0; i < COUNTOF(backends); i++) {
        struct CMUnitTest tests[] = {
            CASE(io__label_and_reason_are_told),
            CASE(io__open_missing_is_enoent),
            CASE(io__open_create_and_exclusive),
            CASE(io__names_stay_inside_the_directory),
            CASE(io__write_then_read_back),
            CASE(io__read_at_the_end_is_short_then_zero),
            CASE(io__impossible_offset_is_einval),
            CASE(io__read_only_file_refuses_writes),
            CASE(io__truncate_cuts_and_extends_with_zeros),
            CASE(io__reserve_extends_with_zeros_and_never_cuts),
            CASE(io__open_file_survives_rename_and_unlink),
            CASE(io__rename_and_unlink_of_missing_names),
            CASE(io__list_names_each_file_once_and_stops),
            CASE(io__sync_dir_works),
            CASE(io__lock_excludes_a_second_handle),
            CASE(io__run_does_a_large_mixed_batch),
            CASE(io__write_sync_writes_like_a_write),
            CASE(io__run_reports_each_request_alone),
            CASE(io__threads_share_one_file),
            CASE(io__mapped_file_is_the_file),
            CASE(io__page_memory_is_zeroed_and_aligned),
            CASE(io__aligned_memory_can_be_discarded),
            CASE(io__clocks_random_and_machine),
            CASE(io__read_file_has_a_limit),
            CASE(io__replace_file_takes_the_name_over),
        };
        for (size_t t = 0; t < COUNTOF(tests); t++) {
            tests[t].initial_state = (void *)(uintptr_t)&backends[i];
        }
        failures += cmocka_run_group_tests_name(backends[i].label, tests, NULL, NULL);
    }
    return failures;
}
