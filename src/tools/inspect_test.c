/* SPDX-License-Identifier: MIT */
/*
 * Goal: inspect reads any file, however damaged, without harm, and tells every
 * damage that a checksum covers.
 * Method: a small database made through the public interface; each of its files
 * whole, with every byte changed, and cut at every length. Output goes to
 * /dev/null; what counts is the number of damages told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "format/log_format.h"
#include "tools/inspect.h"
#include "tools/tool.h"

struct fixture {
    char dir[64];
    char db[80];
    char file[100]; /* where changed copies go; the name is set by use_name */
    int null_fd;
};

static esker_db *
open_db(const struct fixture *fixture)
{
    esker_options options;
    esker_db *db = NULL;
    esker_options_init(&options);
    options.compression = ESKER_COMPRESS_ZSTD;
    assert_int_equal(esker_open(fixture->db, &options, &db), ESKER_OK);
    return db;
}

static void
put(esker_db *db, const char *key, size_t value_len)
{
    char value[4096];
    memset(value, 'v', sizeof value);
    assert_int_equal(esker_put(db, esker_str(key), esker_bytes(value, value_len), NULL), ESKER_OK);
}

static int
set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    assert_non_null(fixture);
    (void)snprintf(fixture->dir, sizeof fixture->dir, "/tmp/esker-inspect-XXXXXX");
    assert_non_null(mkdtemp(fixture->dir));
    (void)snprintf(fixture->db, sizeof fixture->db, "%s/db", fixture->dir);
    fixture->null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(fixture->null_fd >= 0);
    esker_db *db = open_db(fixture);
    put(db, "in the segment", 4000);
    put(db, "in the segment too", 10);
    assert_int_equal(esker_delete(db, esker_str("gone"), NULL), ESKER_OK);
    assert_int_equal(esker_flush(db), ESKER_OK);
    put(db, "in the log", 10);
    put(db, "in the log too", 100);
    assert_int_equal(esker_close(db), ESKER_OK);
    *state = fixture;
    return 0;
}

static int
tear_down(void **state)
{
    struct fixture *fixture = *state;
    (void)unlink(fixture->file);
    assert_int_equal(esker_destroy(fixture->db), ESKER_OK);
    assert_int_equal(rmdir(fixture->dir), 0);
    (void)close(fixture->null_fd);
    free(fixture);
    return 0;
}

/* The one file whose name begins and ends so; the largest log. */
static void
read_file(struct fixture *fixture, const char *begins, const char *ends, struct buf *out)
{
    DIR *dir = opendir(fixture->db);
    struct dirent *entry;
    assert_non_null(dir);
    buf_init(out, &mem_default);
    while ((entry = readdir(dir)) != NULL) {
        size_t len = strlen(entry->d_name);
        size_t ends_len = strlen(ends);
        if (strncmp(entry->d_name, begins, strlen(begins)) != 0 || len < ends_len ||
            strcmp(entry->d_name + len - ends_len, ends) != 0) {
            continue;
        }
        char path[400];
        uint8_t chunk[4096];
        ssize_t done;
        (void)snprintf(path, sizeof path, "%s/%s", fixture->db, entry->d_name);
        (void)snprintf(fixture->file, sizeof fixture->file, "%s/%.30s", fixture->dir, entry->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        assert_true(fd >= 0);
        buf_clear(out);
        while ((done = read(fd, chunk, sizeof chunk)) > 0) {
            assert_int_equal(buf_append(out, chunk, (size_t)done), ESKER_OK);
        }
        (void)close(fd);
        break;
    }
    (void)closedir(dir);
    assert_true(out->len > 0);
}

/* The damages told about these bytes. */
static uint64_t
damages_of(const struct fixture *fixture, const uint8_t *ptr, size_t len, int *code_out)
{
    struct inspect inspect = {.fd = -1, .rows = true};
    int fd = open(fixture->file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    for (size_t at = 0; at < len;) {
        ssize_t done = write(fd, ptr + at, len - at);
        assert_true(done > 0);
        at += (size_t)done;
    }
    /* Not by O_TRUNC: some file systems then write the file out at every close. */
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    (void)close(fd);
    text_out_init(&inspect.out, fixture->null_fd);
    *code_out = inspect_file(&inspect, fixture->file);
    assert_int_equal(text_out_finish(&inspect.out, *code_out), *code_out);
    assert_true((inspect.damages > 0) == (*code_out == TOOL_FAILED));
    return inspect.damages;
}

static void
check_file(struct fixture *fixture, const char *begins, const char *ends)
{
    struct buf bytes;
    int code = 0;
    read_file(fixture, begins, ends, &bytes);
    assert_int_equal(damages_of(fixture, bytes.ptr, bytes.len, &code), 0);
    assert_int_equal(code, TOOL_OK);
    for (size_t at = 0; at < bytes.len; at++) {
        bytes.ptr[at] ^= (uint8_t)(1u << (at % 8));
        if (damages_of(fixture, bytes.ptr, bytes.len, &code) == 0) {
            fail_msg("%s: byte %zu was changed and no damage told", fixture->file, at);
        }
        bytes.ptr[at] ^= (uint8_t)(1u << (at % 8));
    }
    for (size_t len = 0; len < bytes.len; len++) {
        if (damages_of(fixture, bytes.ptr, len, &code) == 0) {
            fail_msg("%s: cut at %zu and no damage told", fixture->file, len);
        }
    }
    buf_fini(&bytes);
}

static void
inspect__tells_every_changed_byte_of_current(void **state)
{
    check_file(*state, "CURRENT", "");
}

static void
inspect__tells_every_changed_byte_of_a_segment(void **state)
{
    check_file(*state, "", ".seg");
}

/* A bad last edit is what a crash leaves behind and no damage; all before it is. */
static void
inspect__tells_changed_edits_but_the_last(void **state)
{
    struct fixture *fixture = *state;
    struct buf bytes;
    int code = 0;
    read_file(fixture, "manifest-", "", &bytes);
    assert_int_equal(damages_of(fixture, bytes.ptr, bytes.len, &code), 0);
    size_t last_at = 64;
    for (size_t at = 64; at < bytes.len; at += (size_t)le32_load(bytes.ptr + at) * 16) {
        last_at = at;
    }
    assert_true(last_at > 64 && last_at < bytes.len);
    for (size_t at = 0; at < bytes.len; at++) {
        bytes.ptr[at] ^= 0x10;
        uint64_t damages = damages_of(fixture, bytes.ptr, bytes.len, &code);
        assert_int_equal(damages > 0, at < last_at);
        bytes.ptr[at] ^= 0x10;
    }
    for (size_t len = 0; len < bytes.len; len++) {
        uint64_t damages = damages_of(fixture, bytes.ptr, len, &code);
        assert_true(damages > 0 || len > 64);
    }
    buf_fini(&bytes);
}

/* Behind the frames stands a seal: it proves every one of them. Header pages
 * vouch for each other, so one alone may be bad. */
static void
inspect__tells_changed_frames_of_a_sealed_log(void **state)
{
    struct fixture *fixture = *state;
    struct buf bytes;
    int code = 0;
    read_file(fixture, "log-", "", &bytes);
    assert_int_equal(damages_of(fixture, bytes.ptr, bytes.len, &code), 0);
    bytes.len = MIN(bytes.len, (size_t)LOG_HEADER_BYTES + 1024);
    size_t seal_at = 0;
    for (size_t at = LOG_HEADER_BYTES; at + 16 <= bytes.len && le32_load(bytes.ptr + at) != 0;
         at += (size_t)le32_load(bytes.ptr + at) * 16) {
        seal_at = bytes.ptr[at + 4] == FRAME_SEAL ? at : seal_at;
    }
    assert_true(seal_at > LOG_HEADER_BYTES);
    for (size_t at = 0; at < seal_at + 32; at++) {
        bytes.ptr[at] ^= 0x01;
        uint64_t damages = damages_of(fixture, bytes.ptr, bytes.len, &code);
        assert_int_equal(damages > 0, at >= LOG_HEADER_BYTES && at < seal_at);
        bytes.ptr[at] ^= 0x01;
    }
    bytes.ptr[0] ^= 1;
    bytes.ptr[LOG_PAGE_BYTES] ^= 1;
    assert_int_equal(damages_of(fixture, bytes.ptr, bytes.len, &code), 1);
    bytes.ptr[LOG_PAGE_BYTES] ^= 1;
    bytes.ptr[0] ^= 1;
    for (size_t len = 0; len < bytes.len; len += len < LOG_HEADER_BYTES ? 509 : 1) {
        (void)damages_of(fixture, bytes.ptr, len, &code);
    }
    buf_fini(&bytes);
}

static void
inspect__is_not_fooled_by_a_foreign_file(void **state)
{
    struct fixture *fixture = *state;
    static const char *const names[] = {"CURRENT", "manifest-00000001", "log-000001", "0000000000000001.seg"};
    uint8_t bytes[1024];
    int code = 0;
    for (size_t i = 0; i < COUNTOF(names); i++) {
        (void)unlink(fixture->file);
        (void)snprintf(fixture->file, sizeof fixture->file, "%s/%s", fixture->dir, names[i]);
        for (int fill = 0; fill < 256; fill += 51) {
            memset(bytes, fill, sizeof bytes);
            assert_true(damages_of(fixture, bytes, sizeof bytes, &code) > 0);
        }
        (void)unlink(fixture->file);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(inspect__tells_every_changed_byte_of_current, set_up, tear_down),
        cmocka_unit_test_setup_teardown(inspect__tells_every_changed_byte_of_a_segment, set_up, tear_down),
        cmocka_unit_test_setup_teardown(inspect__tells_changed_edits_but_the_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(inspect__tells_changed_frames_of_a_sealed_log, set_up, tear_down),
        cmocka_unit_test_setup_teardown(inspect__is_not_fooled_by_a_foreign_file, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
