/* SPDX-License-Identifier: MIT */
/*
 * Goal: a log file is written in small pieces once, and its header pages change
 * so that at least one stays valid whatever fails.
 * Method: real files; a layer over the back-end records writes and syncs and
 * fails the n-th; header pages are flipped, torn and replaced.
 */
#include "wal/log_file.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/test_dir.h"

static const uint8_t uuid[16] = "log-file-test-id";

/* ---- Recording and failing layer ------------------------------------------ */

static struct {
    const struct io_ops *real;
    struct io_ops ops;
    char text[256]; /* header page writes, frame writes and syncs, one letter each */
    int calls, fail_at;
    int32_t result;
    uint64_t bytes;
    uint32_t longest;
    size_t batch_max;
    bool map_refused;
    int reserve_fails;
} layer;

/* False: this is the one to fail. */
static bool
layer_note(char letter)
{
    size_t used = strlen(layer.text);
    if (used + 1 < sizeof layer.text) {
        layer.text[used] = letter;
        layer.text[used + 1] = '\0';
    }
    return layer.calls++ != layer.fail_at;
}

/* A write with its sync counts as two. */
static void
layer_run(struct io *io, struct io_req *reqs, size_t count)
{
    layer.batch_max = MAX(layer.batch_max, count);
    for (size_t i = 0; i < count; i++) {
        bool good = true;
        if (reqs[i].op == IO_WRITE || reqs[i].op == IO_WRITE_SYNC) {
            good = layer_note(reqs[i].offset == 0 ? '0' : reqs[i].offset == LOG_PAGE_BYTES ? '1' : 'w');
            layer.bytes += reqs[i].len;
            layer.longest = MAX(layer.longest, reqs[i].len);
        }
        if (good && (reqs[i].op == IO_SYNC || reqs[i].op == IO_WRITE_SYNC)) {
            good = layer_note('s');
        }
        if (good) {
            layer.real->run(io, &reqs[i], 1);
        } else {
            reqs[i].result = layer.result;
        }
    }
}

static int
layer_reserve_file(struct io *inner, struct io_file *file, uint64_t size)
{
    if (layer.reserve_fails != 0) {
        return layer.reserve_fails;
    }
    return layer.real->reserve_file(inner, file, size);
}

static int
layer_map_file(struct io *io, struct io_file *file, uint64_t len, void **out)
{
    return layer.map_refused ? -EOPNOTSUPP : layer.real->map_file(io, file, len, out);
}

static void
layer_reset(int fail_at, int32_t result)
{
    const struct io_ops *real = layer.real;
    struct io_ops ops = layer.ops;
    memset(&layer, 0, sizeof layer);
    layer.real = real;
    layer.ops = ops;
    layer.fail_at = fail_at;
    layer.result = result;
}

/* ---- Fixture --------------------------------------------------------------- */

static char dir[64];
static struct io *io;

static int
setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "./log_file_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(io_open_dir(dir, false, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    layer.real = io->ops;
    layer.ops = *io->ops;
    layer.ops.run = layer_run;
    layer.ops.map_file = layer_map_file;
    layer.ops.reserve_file = layer_reserve_file;
    io->ops = &layer.ops;
    layer_reset(-1, 0);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    io_close_dir(io);
    test_dir_remove(dir);
    return 0;
}

static struct log_header
header_of(uint64_t gen)
{
    struct log_header header = {.gen = gen, .base_lsn = gen * 65536, .cap_bytes = 8192, .prev_gen = gen - 1};
    memcpy(header.uuid, uuid, sizeof uuid);
    return header;
}

static struct log_file *
create_log(uint64_t number, uint64_t gen)
{
    struct log_file *log = NULL;
    struct log_header header = header_of(gen);
    assert_int_equal(log_file_create(io, &mem_default, number, 16384, true, &log), ESKER_OK);
    assert_int_equal(log_file_begin(log, &header), ESKER_OK);
    return log;
}

static esker_status
open_log(uint64_t number, struct log_file **out)
{
    return log_file_open(io, &mem_default, number, uuid, IO_OPEN_WRITE, out);
}

static void
put_bytes(const char *name, uint64_t offset, const void *bytes, size_t len)
{
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE, &file), ESKER_OK);
    assert_int_equal(io_write_full(io, file, offset, bytes, len), ESKER_OK);
    io_close_file(io, file);
}

static void
put_page(uint64_t number, uint32_t page_idx, const struct log_header *header)
{
    char name[40];
    uint8_t page[LOG_PAGE_BYTES];
    log_file_name(number, name);
    log_header_encode(header, page);
    put_bytes(name, (uint64_t)page_idx * LOG_PAGE_BYTES, page, sizeof page);
}

/* ---- Tests ----------------------------------------------------------------- */

static void
log_file__name(void **state)
{
    (void)state;
    char name[40];
    log_file_name(7, name);
    assert_string_equal(name, "log-000007");
    log_file_name(UINT64_MAX, name);
    assert_string_equal(name, "log-18446744073709551615");
}

static void
log_file__is_prewritten_in_small_pieces(void **state)
{
    (void)state;
    struct log_file *log = NULL;
    uint64_t size = 0;
    assert_int_equal(log_file_create(io, &mem_default, 3, 1 << 20, true, &log), ESKER_OK);
    assert_int_equal(layer.longest, 4096);
    assert_int_equal(layer.batch_max, 64);
    assert_int_equal(layer.bytes, LOG_HEADER_BYTES + (1 << 20));
    assert_int_equal(layer.calls, layer.bytes / 4096);
    assert_int_equal(io_file_size(io, log->file, &size), ESKER_OK);
    assert_int_equal(size, LOG_HEADER_BYTES + (1 << 20));
    assert_int_equal(log->space_bytes, 1 << 20);
    struct log_header header = header_of(5);
    layer_reset(-1, 0);
    assert_int_equal(log_file_begin(log, &header), ESKER_OK);
    assert_string_equal(layer.text, "01s"); /* one sync, of the whole file, and it is the last */
    log_file_destroy(log);
    assert_int_equal(log_file_create(io, &mem_default, 5, 16384, true, &log), ESKER_OK);
    layer_reset(-1, 0);
    assert_int_equal(log_file_settle(log), ESKER_OK);
    assert_int_equal(log_file_begin(log, &header), ESKER_OK);
    assert_string_equal(layer.text, "s0s1s");
    log_file_destroy(log);
    layer_reset(257, -EIO);
    log = NULL;
    assert_int_equal(log_file_create(io, &mem_default, 4, 1 << 20, true, &log), ESKER_IO);
    assert_null(log);
}

/* Where no syncs are expected nothing is written but the header pages, and the disk has room all the same. */
static void
log_file__is_reserved_instead(void **state)
{
    (void)state;
    struct log_file *log = NULL;
    uint64_t size = 0;
    uint8_t got[4096];
    static const uint8_t zeros[4096];
    struct log_header header = header_of(5);
    assert_int_equal(log_file_create(io, &mem_default, 3, 1 << 20, false, &log), ESKER_OK);
    assert_int_equal(layer.calls, 0);
    assert_int_equal(log->prewritten_bytes, 0);
    assert_int_equal(log_file_begin(log, &header), ESKER_OK);
    assert_string_equal(layer.text, "01s");
    assert_int_equal(io_file_size(io, log->file, &size), ESKER_OK);
    assert_int_equal(size, LOG_HEADER_BYTES + (1 << 20));
    assert_int_equal(io_read_full(io, log->file, size - sizeof got, got, sizeof got), ESKER_OK);
    assert_memory_equal(got, zeros, sizeof got);
    struct stat info;
    char path[128];
    snprintf(path, sizeof path, "%s/log-000003", dir);
    assert_int_equal(stat(path, &info), 0);
    assert_true((uint64_t)info.st_blocks * 512 >= size);
    log_file_destroy(log);

    layer_reset(-1, 0);
    layer.reserve_fails = -EOPNOTSUPP; /* then it is filled as ever */
    assert_int_equal(log_file_create(io, &mem_default, 4, 1 << 20, false, &log), ESKER_OK);
    assert_int_equal(layer.bytes, LOG_HEADER_BYTES + (1 << 20));
    assert_int_equal(log->prewritten_bytes, layer.bytes);
    log_file_destroy(log);

    layer.reserve_fails = -ENOSPC;
    log = NULL;
    assert_int_equal(log_file_create(io, &mem_default, 5, 1 << 20, false, &log), ESKER_NO_SPACE);
    assert_null(log);
    assert_int_equal(open_log(5, &log), ESKER_CORRUPT);
    assert_string_equal(status_last()->message, "a log file that the manifest lists is missing");
}

static void
log_file__a_full_disk_leaves_no_file(void **state)
{
    (void)state;
    struct log_file *log = NULL;
    for (int n = 0; n < 6; n++) {
        layer_reset(n, -ENOSPC);
        assert_int_equal(log_file_create(io, &mem_default, 3, 16384, true, &log), ESKER_NO_SPACE);
        assert_null(log);
        assert_string_equal(status_last()->file, "log-000003");
        layer_reset(-1, 0);
        assert_int_equal(open_log(3, &log), ESKER_CORRUPT);
        assert_string_equal(status_last()->message, "a log file that the manifest lists is missing");
    }
}

static void
log_file__an_existing_file_is_left_alone(void **state)
{
    (void)state;
    log_file_destroy(create_log(3, 5));
    struct log_file *log = NULL;
    assert_int_equal(log_file_create(io, &mem_default, 3, 16384, true, &log), ESKER_BUSY);
    assert_int_equal(open_log(3, &log), ESKER_OK);
    assert_int_equal(log->header.gen, 5);
    log_file_destroy(log);
}

static void
log_file__header_reads_back(void **state)
{
    (void)state;
    log_file_destroy(create_log(3, 5));
    struct log_file *log = NULL;
    struct log_header expected = header_of(5);
    assert_int_equal(open_log(3, &log), ESKER_OK);
    assert_memory_equal(&log->header, &expected, sizeof expected);
    assert_int_equal(log->space_bytes, 16384);
    assert_int_equal(log->number, 3);
    log_file_destroy(log);
}

static void
log_file__one_good_page_is_enough(void **state)
{
    (void)state;
    log_file_destroy(create_log(3, 5));
    struct log_file *log = NULL;
    for (uint32_t page_idx = 0; page_idx < 2; page_idx++) {
        for (size_t bit = 0; bit < (size_t)LOG_HEADER_FIELDS_BYTES * 8; bit++) {
            struct log_header header = header_of(5);
            uint8_t page[LOG_PAGE_BYTES];
            log_header_encode(&header, page);
            page[bit / 8] ^= (uint8_t)(1U << (bit % 8));
            put_bytes("log-000003", (uint64_t)page_idx * LOG_PAGE_BYTES, page, LOG_HEADER_FIELDS_BYTES);
            assert_int_equal(open_log(3, &log), ESKER_OK);
            assert_int_equal(log->header.gen, 5);
            assert_int_equal(log->begin_page, page_idx);
            log_file_destroy(log);
        }
        struct log_header header = header_of(5);
        put_page(3, page_idx, &header);
    }
}

static void
log_file__two_bad_pages_or_another_database_are_damage(void **state)
{
    (void)state;
    static const uint8_t zeros[LOG_HEADER_BYTES];
    struct log_file *log = NULL;
    struct log_header header = header_of(5);
    log_file_destroy(create_log(3, 5));
    header.uuid[0] ^= 1;
    put_page(3, 1, &header);
    assert_int_equal(open_log(3, &log), ESKER_CORRUPT);
    header = header_of(5);
    header.edit_no = 9;
    put_page(3, 1, &header); /* the same generation must have the same content */
    assert_int_equal(open_log(3, &log), ESKER_CORRUPT);
    put_bytes("log-000003", 0, zeros, sizeof zeros);
    assert_int_equal(open_log(3, &log), ESKER_CORRUPT);
    assert_string_equal(status_last()->file, "log-000003");
    assert_null(log);
}

static void
log_file__a_newer_format_is_unsupported(void **state)
{
    (void)state;
    struct log_file *log = NULL;
    struct log_header header = header_of(5);
    uint8_t page[LOG_PAGE_BYTES];
    log_file_destroy(create_log(3, 5));
    log_header_encode(&header, page);
    page[8] = 2;
    le64_store(page + 120, hash64(page, 120, 0));
    put_bytes("log-000003", LOG_PAGE_BYTES, page, sizeof page);
    assert_int_equal(open_log(3, &log), ESKER_UNSUPPORTED);
}

static void
log_file__every_cut_is_damage(void **state)
{
    (void)state;
    struct log_file *log = create_log(3, 5);
    struct log_file *cut = NULL;
    for (uint64_t size = 0; size < LOG_HEADER_BYTES + 8192; size += 512) {
        assert_int_equal(io_truncate(io, log->file, size), ESKER_OK);
        assert_int_equal(open_log(3, &cut), ESKER_CORRUPT);
        struct log_header header = header_of(5);
        put_page(3, 0, &header);
        put_page(3, 1, &header);
    }
    assert_int_equal(io_truncate(io, log->file, LOG_HEADER_BYTES + 8192), ESKER_OK);
    assert_int_equal(open_log(3, &cut), ESKER_OK); /* cap_bytes is what must be there */
    assert_int_equal(cut->space_bytes, 8192);
    log_file_destroy(cut);
    log_file_destroy(log);
}

static void
log_file__begin_keeps_one_page_valid(void **state)
{
    (void)state;
    struct log_file *log = NULL;
    struct log_header header = header_of(6);
    log = create_log(3, 5);
    layer_reset(-1, 0);
    assert_int_equal(log_file_begin(log, &header), ESKER_OK);
    assert_string_equal(layer.text, "0s1s");
    log_file_destroy(log);

    /* After an open the newest page is written again first: it may never have reached the disk. */
    static const struct {
        uint64_t gens[2]; /* 0: torn */
        const char *order;
    } cases[] = {
        {{6, 6}, "1s0s1s"}, {{6, 5}, "0s1s0s"}, {{6, 0}, "0s1s0s"}, {{5, 6}, "1s0s1s"}, {{0, 6}, "1s0s1s"},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        for (uint32_t page_idx = 0; page_idx < 2; page_idx++) {
            static const uint8_t torn[64] = {1, 2, 3};
            struct log_header old = header_of(MAX(cases[i].gens[page_idx], (uint64_t)1));
            put_page(3, page_idx, &old);
            if (cases[i].gens[page_idx] == 0) {
                put_bytes("log-000003", (uint64_t)page_idx * LOG_PAGE_BYTES, torn, sizeof torn);
            }
        }
        header = header_of(7);
        assert_int_equal(open_log(3, &log), ESKER_OK);
        assert_int_equal(log->header.gen, 6);
        layer_reset(-1, 0);
        assert_int_equal(log_file_begin(log, &header), ESKER_OK);
        assert_string_equal(layer.text, cases[i].order);
        assert_int_equal(log->header.gen, 7);
        log_file_destroy(log);
    }
}

static void
log_file__begin_failing_anywhere_leaves_a_valid_page(void **state)
{
    (void)state;
    /* What fails may have been written in any part: the page is filled with garbage. */
    static const uint8_t garbage[LOG_PAGE_BYTES] = {1};
    for (int n = 0; n < 4; n++) {
        struct log_file *log = create_log((uint64_t)n, 5);
        for (uint64_t gen = 6; gen < 9; gen++) {
            struct log_header header = header_of(gen);
            uint32_t first = log->begin_page;
            layer_reset(n, -EIO);
            assert_int_equal(log_file_begin(log, &header), ESKER_IO);
            layer_reset(-1, 0);
            char name[40];
            log_file_name((uint64_t)n, name);
            put_bytes(name, (uint64_t)(n < 2 ? first : 1 - first) * LOG_PAGE_BYTES, garbage, sizeof garbage);
            struct log_file *again = NULL;
            assert_int_equal(open_log((uint64_t)n, &again), ESKER_OK);
            log_file_destroy(again);
        }
        struct log_header header = header_of(9);
        assert_int_equal(log_file_begin(log, &header), ESKER_OK);
        log_file_destroy(log);
        assert_int_equal(open_log((uint64_t)n, &log), ESKER_OK);
        assert_int_equal(log->header.gen, 9);
        log_file_destroy(log);
    }
}

static void
log_file__begin_refuses_numbers_at_their_end(void **state)
{
    (void)state;
    struct log_file *log = create_log(3, 5);
    struct log_header header = header_of(6);
    header.base_lsn = LSN_MAX;
    layer_reset(-1, 0);
    assert_int_equal(log_file_begin(log, &header), ESKER_TOO_LARGE);
    assert_string_equal(layer.text, "");
    log_file_destroy(log);
}

static void
log_file__writes_land_behind_the_header(void **state)
{
    (void)state;

    enum { SPACE = 6 << 20 };
    struct log_file *log = NULL;
    struct log_header header = header_of(5);
    uint8_t *data = test_malloc(SPACE);
    uint8_t *back = test_malloc(SPACE);
    for (size_t i = 0; i < SPACE; i++) {
        data[i] = (uint8_t)(i * 31 + (i >> 12));
    }
    header.cap_bytes = SPACE;
    assert_int_equal(log_file_create(io, &mem_default, 3, SPACE, true, &log), ESKER_OK);
    assert_int_equal(log_file_begin(log, &header), ESKER_OK);
    layer_reset(-1, 0);
    assert_int_equal(log_file_write(log, data, 0, 48), ESKER_OK);
    assert_int_equal(log_file_write(log, data, 48, 48), ESKER_OK);
    assert_int_equal(log_file_write(log, data, 48, SPACE), ESKER_OK);
    assert_int_equal(log_file_sync(log), ESKER_OK);
    assert_int_equal(layer.bytes, SPACE);
    assert_int_equal(layer.longest, 256 * 1024);
    assert_int_equal(io_read_full(io, log->file, LOG_HEADER_BYTES, back, SPACE), ESKER_OK);
    assert_memory_equal(data, back, SPACE);
    layer_reset(3, -EIO);
    assert_int_equal(log_file_write(log, data, 0, SPACE), ESKER_IO);
    log_file_destroy(log);
    test_free(data);
    test_free(back);
}

static void
log_file__map_shows_the_frame_space(void **state)
{
    (void)state;
    struct log_file *log = create_log(3, 5);
    layer.map_refused = true;
    assert_int_equal(log_file_map(log), ESKER_UNSUPPORTED);
    assert_null(log->map);
    layer.map_refused = false;
    esker_status status = log_file_map(log);
    if (status == ESKER_OK) { /* not every file system offers it */
        uint8_t byte = 0;
        assert_int_equal(log->map_bytes, 16384);
        log->map[5] = 77;
        log_file_unmap(log);
        assert_null(log->map);
        assert_int_equal(io_read_full(io, log->file, LOG_HEADER_BYTES + 5, &byte, 1), ESKER_OK);
        assert_int_equal(byte, 77);
        assert_int_equal(log_file_map(log), ESKER_OK);
    } else {
        assert_int_equal(status, ESKER_UNSUPPORTED);
    }
    log_file_destroy(log); /* unmaps */
    log_file_destroy(NULL);
}

#define LOG_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LOG_TEST(log_file__name),
        LOG_TEST(log_file__is_prewritten_in_small_pieces),
        LOG_TEST(log_file__is_reserved_instead),
        LOG_TEST(log_file__a_full_disk_leaves_no_file),
        LOG_TEST(log_file__an_existing_file_is_left_alone),
        LOG_TEST(log_file__header_reads_back),
        LOG_TEST(log_file__one_good_page_is_enough),
        LOG_TEST(log_file__two_bad_pages_or_another_database_are_damage),
        LOG_TEST(log_file__a_newer_format_is_unsupported),
        LOG_TEST(log_file__every_cut_is_damage),
        LOG_TEST(log_file__begin_keeps_one_page_valid),
        LOG_TEST(log_file__begin_failing_anywhere_leaves_a_valid_page),
        LOG_TEST(log_file__begin_refuses_numbers_at_their_end),
        LOG_TEST(log_file__writes_land_behind_the_header),
        LOG_TEST(log_file__map_shows_the_frame_space),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
