/* SPDX-License-Identifier: MIT */
/*
 * Goal: every public call does what its comment says, on real files, through
 * reopen, and refuses what it must refuse with the state unchanged.
 * Method: small databases in a fresh directory, both I/O back-ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "esker/esker.h"

struct fixture {
    char path[64];
    esker_options options;
    esker_db *db;
};

static void
fixture_open(struct fixture *f)
{
    assert_int_equal(esker_open(f->path, &f->options, &f->db), ESKER_OK);
}

static int
fixture_setup_with(void **state, int backend, int durability)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->path, sizeof f->path, "/tmp/esker-db-test-XXXXXX");
    if (mkdtemp(f->path) == NULL) {
        return -1;
    }
    esker_options_init(&f->options);
    f->options.memory_budget_bytes = 8 << 20;
    f->options.io_backend = backend;
    f->options.durability = durability;
    fixture_open(f);
    *state = f;
    return 0;
}

static int
fixture_setup(void **state)
{
    return fixture_setup_with(state, ESKER_IO_POSIX, ESKER_DURABLE_PROCESS);
}

static int
fixture_setup_uring(void **state)
{
    return fixture_setup_with(state, ESKER_IO_URING, ESKER_DURABLE_SYNC);
}

static int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(esker_close(f->db), ESKER_OK);
    assert_int_equal(esker_verify(f->path, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_destroy(f->path), ESKER_OK);
    struct stat st;
    assert_int_equal(stat(f->path, &st), -1);
    free(f);
    return 0;
}

static void
fixture_reopen(struct fixture *f)
{
    assert_int_equal(esker_close(f->db), ESKER_OK);
    f->db = NULL;
    fixture_open(f);
}

static void
put(struct fixture *f, const char *key, const char *value)
{
    assert_int_equal(esker_put(f->db, esker_str(key), esker_str(value), NULL), ESKER_OK);
}

static void
expect(struct fixture *f, const char *key, const char *value)
{
    char buf[256];
    size_t size = 999;
    esker_status status = esker_get_copy(f->db, esker_str(key), NULL, buf, sizeof buf, &size);
    if (value == NULL) {
        assert_int_equal(status, ESKER_NOT_FOUND);
        assert_int_equal(size, 999);
        return;
    }
    assert_int_equal(status, ESKER_OK);
    assert_int_equal(size, strlen(value));
    assert_memory_equal(buf, value, size);
    esker_value held;
    assert_int_equal(esker_get(f->db, esker_str(key), NULL, &held), ESKER_OK);
    assert_int_equal(held.size, size);
    assert_memory_equal(held.data, value, size);
    esker_value_release(&held);
}

/* Scans forward, writes "key=value " for each row. */
static void
scan(struct fixture *f, const esker_read_options *options, char *out)
{
    esker_iter *it;
    assert_int_equal(esker_iter_create(f->db, options, &it), ESKER_OK);
    *out = 0;
    esker_status status;
    for (status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        esker_slice key = esker_iter_key(it);
        esker_slice value;
        assert_int_equal(esker_iter_value(it, &value), ESKER_OK);
        assert_int_equal(esker_iter_value_size(it), value.size);
        snprintf(out + strlen(out), 256 - strlen(out), "%.*s=%.*s ", (int)key.size, (const char *)key.data,
                 (int)value.size, (const char *)value.data);
    }
    assert_int_equal(status, ESKER_END);
    esker_iter_destroy(it);
}

static void
put__is_read_back_through_flush_compact_and_reopen(void **state)
{
    struct fixture *f = *state;
    expect(f, "a", NULL);
    put(f, "a", "1");
    put(f, "b", "2");
    put(f, "a", "3");
    put(f, "empty", "");
    assert_int_equal(esker_delete(f->db, esker_str("b"), NULL), ESKER_OK);
    for (int round = 0; round < 4; round++) {
        expect(f, "a", "3");
        expect(f, "b", NULL);
        expect(f, "empty", "");
        char rows[256];
        scan(f, NULL, rows);
        assert_string_equal(rows, "a=3 empty= ");
        if (round == 0) {
            assert_int_equal(esker_flush(f->db), ESKER_OK);
        } else if (round == 1) {
            assert_int_equal(esker_compact(f->db, NULL, NULL), ESKER_OK);
        } else {
            fixture_reopen(f);
        }
    }
}

static void
get_copy__truncates(void **state)
{
    struct fixture *f = *state;
    put(f, "k", "0123456789");
    char buf[4];
    size_t size = 0;
    assert_int_equal(esker_get_copy(f->db, esker_str("k"), NULL, buf, sizeof buf, &size), ESKER_TRUNCATED);
    assert_int_equal(size, 10);
    assert_memory_equal(buf, "0123", 4);
    assert_int_equal(esker_get_copy(f->db, esker_str("k"), NULL, NULL, 0, &size), ESKER_TRUNCATED);
}

static void
batch__is_atomic_and_later_entries_win(void **state)
{
    struct fixture *f = *state;
    esker_batch *batch;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("x"), esker_str("1")), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("y"), esker_str("2")), ESKER_OK);
    assert_int_equal(esker_batch_delete(batch, esker_str("x")), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("z"), esker_str("3")), ESKER_OK);
    assert_int_equal(esker_batch_count(batch), 4);
    esker_lsn before = esker_visible_lsn(f->db);
    esker_lsn lsn = 0;
    assert_int_equal(esker_write(f->db, batch, NULL, &lsn), ESKER_OK);
    assert_true(lsn > before);
    assert_int_equal(esker_visible_lsn(f->db), lsn);
    expect(f, "x", NULL);
    expect(f, "y", "2");
    assert_int_equal(esker_wait_durable(f->db, lsn, -1), ESKER_OK);
    assert_true(esker_durable_lsn(f->db) >= lsn);
    assert_int_equal(esker_wait_durable(f->db, lsn + 1000, -1), ESKER_INVALID);
    esker_batch_clear(batch);
    assert_int_equal(esker_batch_count(batch), 0);
    assert_int_equal(esker_write(f->db, batch, NULL, &lsn), ESKER_OK);
    esker_batch_destroy(batch);
    fixture_reopen(f);
    char rows[256];
    scan(f, NULL, rows);
    assert_string_equal(rows, "y=2 z=3 ");
}

static void
require__conflicts_whole(void **state)
{
    struct fixture *f = *state;
    put(f, "account", "100");
    esker_snapshot *snapshot;
    assert_int_equal(esker_snapshot_create(f->db, &snapshot), ESKER_OK);
    esker_lsn since = esker_snapshot_lsn(snapshot);
    esker_batch *batch;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("account"), esker_str("90")), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("log"), esker_str("-10")), ESKER_OK);
    assert_int_equal(esker_batch_require(batch, esker_str("account"), since), ESKER_OK);
    assert_int_equal(esker_batch_require(batch, esker_str("absent"), since), ESKER_OK);
    assert_int_equal(esker_write(f->db, batch, NULL, NULL), ESKER_OK);
    expect(f, "account", "90");
    assert_int_equal(esker_write(f->db, batch, NULL, NULL), ESKER_CONFLICT);
    expect(f, "log", "-10");
    /* A delete is a change too, also after it went through flush and merge. */
    since = esker_visible_lsn(f->db);
    esker_batch_clear(batch);
    assert_int_equal(esker_batch_put(batch, esker_str("log"), esker_str("x")), ESKER_OK);
    assert_int_equal(esker_batch_require(batch, esker_str("account"), since), ESKER_OK);
    esker_snapshot_release(snapshot);
    assert_int_equal(esker_delete(f->db, esker_str("account"), NULL), ESKER_OK);
    assert_int_equal(esker_compact(f->db, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_write(f->db, batch, NULL, NULL), ESKER_CONFLICT);
    expect(f, "log", "-10");
    esker_batch_destroy(batch);
}

static void
snapshot__sees_its_moment_through_everything(void **state)
{
    struct fixture *f = *state;
    esker_snapshot *snapshots[4];
    esker_lsn lsns[4];
    char value[16];
    for (int i = 0; i < 4; i++) {
        snprintf(value, sizeof value, "v%d", i);
        put(f, "k", value);
        lsns[i] = esker_visible_lsn(f->db);
        if (i == 2) {
            assert_int_equal(esker_delete(f->db, esker_str("k"), NULL), ESKER_OK);
            lsns[i] = esker_visible_lsn(f->db);
        }
        assert_int_equal(esker_snapshot_create(f->db, &snapshots[i]), ESKER_OK);
        assert_int_equal(esker_snapshot_lsn(snapshots[i]), lsns[i]);
    }
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            esker_read_options read;
            esker_read_options_init(&read);
            read.snapshot = snapshots[i];
            char buf[8];
            size_t size;
            esker_status status = esker_get_copy(f->db, esker_str("k"), &read, buf, sizeof buf, &size);
            if (i == 2) {
                assert_int_equal(status, ESKER_NOT_FOUND);
                continue;
            }
            assert_int_equal(status, ESKER_OK);
            assert_int_equal(buf[1], '0' + i);
        }
        assert_int_equal(round == 0 ? esker_flush(f->db) : esker_compact(f->db, NULL, NULL), ESKER_OK);
    }
    assert_int_equal(esker_close(f->db), ESKER_BUSY);
    /* A second snapshot at the same LSN works while the first one lives, a lost one does not come back. */
    esker_snapshot *again;
    assert_int_equal(esker_snapshot_create_at(f->db, lsns[1], &again), ESKER_OK);
    assert_int_equal(esker_snapshot_lsn(again), lsns[1]);
    esker_snapshot_release(again);
    assert_int_equal(esker_snapshot_create_at(f->db, lsns[1] - 1, &again), ESKER_NOT_FOUND);
    assert_int_equal(esker_snapshot_create_at(f->db, esker_visible_lsn(f->db) + 1, &again), ESKER_INVALID);
    for (int i = 0; i < 4; i++) {
        esker_snapshot_release(snapshots[i]);
    }
}

static void
snapshot_at__rounds_down_to_a_whole_commit(void **state)
{
    struct fixture *f = *state;
    esker_lsn before = esker_visible_lsn(f->db);
    put(f, "k", "a value long enough for several granules");
    esker_lsn after = esker_visible_lsn(f->db);
    for (esker_lsn lsn = before; lsn <= after; lsn++) {
        esker_snapshot *snapshot;
        assert_int_equal(esker_snapshot_create_at(f->db, lsn, &snapshot), ESKER_OK);
        assert_int_equal(esker_snapshot_lsn(snapshot), lsn < after ? before : after);
        esker_snapshot_release(snapshot);
    }
}

static void
iterator__honours_bounds_and_edges(void **state)
{
    struct fixture *f = *state;
    static const char *const keys[] = {"a", "b", "ba", "bb", "bc", "c", "d"};
    for (size_t i = 0; i < 7; i++) {
        put(f, keys[i], keys[i]);
        if (i == 3) {
            assert_int_equal(esker_flush(f->db), ESKER_OK);
        }
    }
    char rows[256];
    esker_read_options read;
    esker_read_options_init(&read);
    read.lower = esker_str("b");
    read.upper = esker_str("c");
    scan(f, &read, rows);
    assert_string_equal(rows, "b=b ba=ba bb=bb bc=bc ");
    esker_read_options_init(&read);
    read.prefix = esker_str("b");
    read.lower = esker_str("bb");
    scan(f, &read, rows);
    assert_string_equal(rows, "bb=bb bc=bc ");

    esker_iter *it;
    esker_read_options_init(&read);
    read.keys_only = true;
    assert_int_equal(esker_iter_create(f->db, &read, &it), ESKER_OK);
    esker_slice value;
    assert_int_equal(esker_iter_key(it).size, 0);
    assert_int_equal(esker_iter_last(it), ESKER_OK);
    assert_int_equal(esker_iter_value(it, &value), ESKER_INVALID);
    assert_int_equal(esker_iter_next(it), ESKER_END);
    assert_int_equal(esker_iter_next(it), ESKER_END);
    assert_int_equal(esker_iter_prev(it), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "d", 1);
    assert_int_equal(esker_iter_seek(it, esker_str("bbb")), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "bc", 2);
    assert_int_equal(esker_iter_seek_for_prev(it, esker_str("bbb")), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "bb", 2);
    assert_int_equal(esker_iter_seek_for_prev(it, esker_str("bb")), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "bb", 2);
    assert_int_equal(esker_iter_seek(it, esker_str("e")), ESKER_END);
    /* Refresh: same position, new data. */
    assert_int_equal(esker_iter_seek(it, esker_str("c")), ESKER_OK);
    put(f, "cc", "new");
    assert_int_equal(esker_iter_refresh(it), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "c", 1);
    assert_int_equal(esker_iter_next(it), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "cc", 2);
    assert_int_equal(esker_close(f->db), ESKER_BUSY);
    esker_iter_destroy(it);
}

static void
multi_get__answers_each_key(void **state)
{
    struct fixture *f = *state;
    char big[10000];
    memset(big, 'B', sizeof big);
    put(f, "a", "1");
    assert_int_equal(esker_put(f->db, esker_str("big"), esker_bytes(big, sizeof big), NULL), ESKER_OK);
    for (int round = 0; round < 2; round++) {
        esker_slice keys[3] = {esker_str("a"), esker_str("none"), esker_str("big")};
        esker_value values[3];
        esker_status statuses[3];
        assert_int_equal(esker_multi_get(f->db, 3, keys, NULL, values, statuses), ESKER_OK);
        assert_int_equal(statuses[0], ESKER_OK);
        assert_int_equal(statuses[1], ESKER_NOT_FOUND);
        assert_int_equal(statuses[2], ESKER_OK);
        assert_int_equal(values[2].size, sizeof big);
        assert_memory_equal(values[2].data, big, sizeof big);
        assert_int_equal(esker_close(f->db), ESKER_BUSY);
        /* A held value survives overwrite, flush and merge. */
        assert_int_equal(esker_put(f->db, esker_str("big"), esker_bytes(big, 5000), NULL), ESKER_OK);
        assert_int_equal(esker_compact(f->db, NULL, NULL), ESKER_OK);
        assert_memory_equal(values[2].data, big, sizeof big);
        esker_value_release(&values[0]);
        esker_value_release(&values[2]);
        esker_value_release(&values[2]);
        assert_int_equal(esker_put(f->db, esker_str("big"), esker_bytes(big, sizeof big), NULL), ESKER_OK);
        assert_int_equal(esker_flush(f->db), ESKER_OK);
    }
}

static void
misuse__is_refused_with_the_state_unchanged(void **state)
{
    struct fixture *f = *state;
    char *long_key = malloc(32769);
    memset(long_key, 'k', 32769);
    size_t size = 7;
    esker_lsn lsn = esker_visible_lsn(f->db);
    assert_int_equal(esker_put(NULL, esker_str("k"), esker_str("v"), NULL), ESKER_INVALID);
    assert_int_equal(esker_put(f->db, esker_str(""), esker_str("v"), NULL), ESKER_INVALID);
    assert_int_equal(esker_put(f->db, esker_bytes(NULL, 3), esker_str("v"), NULL), ESKER_INVALID);
    assert_int_equal(esker_put(f->db, esker_str("k"), esker_bytes(NULL, 3), NULL), ESKER_INVALID);
    assert_int_equal(esker_put(f->db, esker_bytes(long_key, 32769), esker_str("v"), NULL), ESKER_TOO_LARGE);
    assert_int_equal(esker_put(f->db, esker_str("k"), esker_bytes(long_key, (size_t)300 << 20), NULL),
                     ESKER_TOO_LARGE);
    assert_int_equal(esker_put(f->db, esker_str("k"), esker_bytes(long_key, (size_t)5 << 20), NULL),
                     ESKER_TOO_LARGE); /* beyond half of 8 MiB */
    assert_int_equal(esker_get_copy(f->db, esker_str("k"), NULL, NULL, 1, &size), ESKER_INVALID);
    assert_int_equal(esker_get_copy(f->db, esker_str("k"), NULL, NULL, 0, NULL), ESKER_INVALID);
    assert_int_equal(esker_write(f->db, NULL, NULL, NULL), ESKER_INVALID);
    assert_int_equal(esker_iter_create(f->db, NULL, NULL), ESKER_INVALID);
    assert_int_equal(esker_snapshot_create(f->db, NULL), ESKER_INVALID);
    assert_int_equal(size, 7);
    assert_int_equal(esker_visible_lsn(f->db), lsn);
    esker_error error;
    esker_error_init(&error);
    assert_int_equal(esker_put(f->db, esker_str(""), esker_str("v"), NULL), ESKER_INVALID);
    esker_last_error(&error);
    assert_int_equal(error.status, ESKER_INVALID);
    assert_string_equal(error.message, "the key is empty");
    assert_int_equal(esker_put(f->db, esker_bytes(long_key, 32768), esker_str("v"), NULL), ESKER_OK);
    free(long_key);
    esker_write_options write = {0};
    assert_int_equal(esker_put(f->db, esker_str("k"), esker_str("v"), &write), ESKER_INVALID);
    /* A closed handle. */
    esker_db *closed = f->db;
    fixture_reopen(f);
    assert_int_equal(esker_put(closed, esker_str("k"), esker_str("v"), NULL), ESKER_INVALID);
    assert_int_equal(esker_close(closed), ESKER_INVALID);
}

static void
open__is_exclusive_and_checks_its_options(void **state)
{
    struct fixture *f = *state;
    esker_db *other = NULL;
    assert_int_equal(esker_open(f->path, &f->options, &other), ESKER_BUSY);
    assert_null(other);
    esker_options options = f->options;
    options.error_if_exists = true;
    assert_int_equal(esker_close(f->db), ESKER_OK);
    assert_int_equal(esker_open(f->path, &options, &other), ESKER_INVALID);
    options = f->options;
    options.create_if_missing = false;
    assert_int_equal(esker_open("/tmp/esker-db-test-none/x", &options, &other), ESKER_INVALID);
    options.memory_budget_bytes = 1 << 20;
    assert_int_equal(esker_open(f->path, &options, &other), ESKER_INVALID);
    assert_int_equal(esker_open("/dev/null", &f->options, &other), ESKER_IO);
    fixture_open(f);
}

static void
options_parse__reads_text(void **state)
{
    (void)state;
    esker_options options;
    esker_options_init(&options);
    assert_int_equal(
        esker_options_parse(&options, "memory=64M; durability=interval:25ms;compression=zstd;io=posix"),
        ESKER_OK);
    assert_int_equal(options.memory_budget_bytes, 64 << 20);
    assert_int_equal(options.durability, ESKER_DURABLE_INTERVAL);
    assert_int_equal(options.sync_interval_ms, 25);
    assert_int_equal(options.compression, ESKER_COMPRESS_ZSTD);
    assert_int_equal(options.io_backend, ESKER_IO_POSIX);
    assert_int_equal(esker_options_parse(&options, "memory=1G;durability=eventually"), ESKER_INVALID);
    assert_int_equal(options.memory_budget_bytes, 64 << 20);
    assert_int_equal(esker_options_parse(&options, "memory=99999999999999999999G"), ESKER_INVALID);
    assert_int_equal(esker_options_parse(&options, "nonsense"), ESKER_INVALID);
}

/* What is refused changes nothing; the text ends where it ends. */
static void
options_parse__survives_every_cut_and_change(void **state)
{
    static const char text[] = "memory=64M; durability=interval:25ms;io=posix;threads=3;create=no";

    (void)state;
    for (size_t at = 0; at < sizeof text - 1; at++) {
        for (int change = 0; change < 9; change++) {
            size_t len = change == 8 ? at : sizeof text - 1;
            char *copy = calloc(1, len + 1);
            assert_non_null(copy);
            memcpy(copy, text, len);
            if (change < 8) {
                copy[at] = (char)(copy[at] ^ 1 << change);
            }
            esker_options options;
            esker_options before;
            esker_options_init(&options);
            before = options;
            esker_status status = esker_options_parse(&options, copy);
            assert_true(status == ESKER_OK || status == ESKER_INVALID);
            assert_true(status == ESKER_OK || memcmp(&options, &before, sizeof options) == 0);
            free(copy);
        }
    }
}

static void
oversize__batch_gets_a_window_of_its_own(void **state)
{
    struct fixture *f = *state;
    size_t size = 3 << 20;
    char *value = malloc(size);
    for (size_t i = 0; i < size; i++) {
        value[i] = (char)(i * 7 + i / 1000);
    }
    for (int round = 0; round < 3; round++) {
        put(f, "small", "1");
        assert_int_equal(esker_put(f->db, esker_str("large"), esker_bytes(value, size), NULL), ESKER_OK);
        put(f, "small", "2");
        for (int again = 0; again < 2; again++) {
            esker_value held;
            assert_int_equal(esker_get(f->db, esker_str("large"), NULL, &held), ESKER_OK);
            assert_int_equal(held.size, size);
            assert_memory_equal(held.data, value, size);
            esker_value_release(&held);
            expect(f, "small", "2");
            fixture_reopen(f);
        }
    }
    free(value);
}

static void
many__windows_segments_and_merges(void **state)
{
    struct fixture *f = *state;
    char key[32];
    char value[120];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 60000; i++) {
            int id = (i * 7919) % 60000;
            snprintf(key, sizeof key, "key%08d", id);
            memset(value, 'a' + id % 26, sizeof value);
            snprintf(value, sizeof value, "%d:%d", round, id);
            assert_int_equal(esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL),
                             ESKER_OK);
        }
    }
    for (int pass = 0; pass < 2; pass++) {
        esker_iter *it;
        assert_int_equal(esker_iter_create(f->db, NULL, &it), ESKER_OK);
        int count = 0;
        for (esker_status s = esker_iter_first(it); s == ESKER_OK; s = esker_iter_next(it)) {
            snprintf(key, sizeof key, "key%08d", count);
            assert_memory_equal(esker_iter_key(it).data, key, 11);
            esker_slice got;
            assert_int_equal(esker_iter_value(it, &got), ESKER_OK);
            snprintf(value, sizeof value, "1:%d", count);
            assert_string_equal((const char *)got.data, value);
            count++;
        }
        assert_int_equal(count, 60000);
        for (esker_status s = esker_iter_last(it); s == ESKER_OK; s = esker_iter_prev(it)) {
            count--;
            snprintf(key, sizeof key, "key%08d", count);
            assert_memory_equal(esker_iter_key(it).data, key, 11);
        }
        assert_int_equal(count, 0);
        esker_iter_destroy(it);
        for (int i = 0; i < 60000; i += 7) {
            size_t size;
            snprintf(key, sizeof key, "key%08d", i);
            assert_int_equal(esker_get_copy(f->db, esker_str(key), NULL, value, sizeof value, &size),
                             ESKER_OK);
            assert_int_equal(atoi(value + 2), i);
        }
        fixture_reopen(f);
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(f->db, &stats), ESKER_OK);
    assert_true(stats.segments > 0);
    for (int format = 0; format < 3; format++) {
        char *text;
        assert_int_equal(esker_stats_text(f->db, format, &text), ESKER_OK);
        assert_non_null(strstr(text, "durable_lsn"));
        esker_free(text);
    }
}

static void
fork__child_is_refused_and_holds_no_lock(void **state)
{
    struct fixture *f = *state;
    put(f, "k", "v");
    int release[2];
    assert_int_equal(pipe(release), 0);
    pid_t child = fork();
    if (child == 0) {
        size_t size;
        char buf[8];
        int bad = 0;
        bad |= esker_put(f->db, esker_str("k"), esker_str("child"), NULL) != ESKER_FORKED;
        bad |= esker_get_copy(f->db, esker_str("k"), NULL, buf, sizeof buf, &size) != ESKER_FORKED;
        bad |= esker_close(f->db) != ESKER_FORKED;
        close(release[1]);               /* the parent's death ends the read, too */
        (void)!read(release[0], buf, 1); /* stay alive while the parent reopens */
        _exit(bad);
    }
    fixture_reopen(f); /* BUSY if the child kept the lock */
    expect(f, "k", "v");
    assert_int_equal(write(release[1], "x", 1), 1);
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    close(release[0]);
    close(release[1]);
}

static void
eventfd__tells_that_the_durable_lsn_moved(void **state)
{
    struct fixture *f = *state;
    int fd = esker_durable_eventfd(f->db);
    assert_true(fd >= 0);
    assert_int_equal(esker_durable_eventfd(f->db), fd);
    put(f, "k", "v");
    assert_int_equal(esker_sync(f->db), ESKER_OK);
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&polled, 1, 5000), 1);
}

static void
kill__loses_nothing_acknowledged(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(esker_close(f->db), ESKER_OK);
    char key[32];
    int next = 0;
    for (int round = 0; round < 6; round++) {
        int acked[2];
        assert_int_equal(pipe(acked), 0);
        pid_t child = fork();
        if (child == 0) {
            esker_db *db;
            if (esker_open(f->path, &f->options, &db) != ESKER_OK) {
                _exit(1);
            }
            for (int i = next;; i++) {
                snprintf(key, sizeof key, "key%08d", i);
                if (esker_put(db, esker_str(key), esker_str(key), NULL) != ESKER_OK ||
                    write(acked[1], &i, sizeof i) != sizeof i) {
                    _exit(1);
                }
            }
        }
        close(acked[1]);
        int last = -1;
        for (int reads = 0; reads < 500 + round * 3000; reads++) {
            if (read(acked[0], &last, sizeof last) != sizeof last) {
                break;
            }
        }
        kill(child, SIGKILL);
        int status;
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status));
        while (read(acked[0], &last, sizeof last) == sizeof last) {
        }
        close(acked[0]);
        fixture_open(f);
        assert_true(last >= next);
        for (int i = 0; i <= last; i++) {
            snprintf(key, sizeof key, "key%08d", i);
            char buf[32];
            size_t size;
            assert_int_equal(esker_get_copy(f->db, esker_str(key), NULL, buf, sizeof buf, &size), ESKER_OK);
        }
        snprintf(key, sizeof key, "key%08d", last + 2); /* at most one unacknowledged put may be there */
        expect(f, key, NULL);
        next = last + 1;
        assert_int_equal(esker_close(f->db), ESKER_OK);
    }
    fixture_open(f);
}

static void
short_runs__leave_a_handful_of_files(void **state)
{
    struct fixture *f = *state;
    char key[16];
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%d", i);
        put(f, key, key);
        fixture_reopen(f);
    }
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "%d", i);
        expect(f, key, key);
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(f->db, &stats), ESKER_OK);
    assert_true(stats.log_files <= 2);
    assert_true(stats.log_file_bytes <= 768 << 10);
}

struct event_log {
    esker_db **db;
    _Atomic int flushes; /* set last */
    esker_status close_status;
    bool read_works;
};

static void
event_note(void *ctx, const esker_event *event)
{
    struct event_log *log = ctx;
    char buf[8];
    size_t size;
    if (event->kind == ESKER_EVENT_FLUSH) {
        log->close_status = esker_close(*log->db);
        log->read_works = esker_get_copy(*log->db, esker_str("k"), NULL, buf, sizeof buf, &size) == ESKER_OK;
        log->flushes++;
    }
}

static void
event__may_read_and_must_not_close(void **state)
{
    struct fixture *f = *state;
    struct event_log log = {.db = &f->db};
    assert_int_equal(esker_close(f->db), ESKER_OK);
    f->options.on_event = event_note;
    f->options.event_ctx = &log;
    fixture_open(f);
    put(f, "k", "v");
    assert_int_equal(esker_flush(f->db), ESKER_OK);
    for (int tries = 0; tries < 1000 && log.flushes == 0; tries++) {
        usleep(10000);
    }
    assert_int_equal(log.flushes, 1);
    assert_int_equal(log.close_status, ESKER_BUSY);
    assert_true(log.read_works);
}

static void
rest__an_idle_database_keeps_small_logs(void **state)
{
    struct fixture *f = *state;
    char key[32];
    char value[200] = {0};
    assert_int_equal(esker_close(f->db), ESKER_OK);
    f->options.memory_budget_bytes = 64 << 20;
    fixture_open(f);
    for (int i = 0; i < 12000; i++) {
        snprintf(key, sizeof key, "%d", i);
        assert_int_equal(esker_put(f->db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(f->db, &stats), ESKER_OK);
    assert_true(stats.log_file_bytes > 768 << 10); /* busy: windows have grown */
    for (int tries = 0; tries < 600; tries++) {
        assert_int_equal(esker_get_stats(f->db, &stats), ESKER_OK);
        if (stats.log_file_bytes <= 768 << 10) {
            break;
        }
        usleep(50000);
    }
    assert_true(stats.log_file_bytes <= 768 << 10);
    size_t size = 0;
    for (int i = 0; i < 12000; i += 97) {
        snprintf(key, sizeof key, "%d", i);
        assert_int_equal(esker_get_copy(f->db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
    }
}

#define ON_POSIX(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)
#define ON_URING(test) cmocka_unit_test_setup_teardown(test, fixture_setup_uring, fixture_teardown)
#define ON_BOTH(test) ON_POSIX(test), ON_URING(test)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(put__is_read_back_through_flush_compact_and_reopen),
        ON_BOTH(get_copy__truncates),
        ON_BOTH(batch__is_atomic_and_later_entries_win),
        ON_BOTH(require__conflicts_whole),
        ON_BOTH(snapshot__sees_its_moment_through_everything),
        ON_POSIX(snapshot_at__rounds_down_to_a_whole_commit),
        ON_BOTH(iterator__honours_bounds_and_edges),
        ON_BOTH(multi_get__answers_each_key),
        ON_POSIX(misuse__is_refused_with_the_state_unchanged),
        ON_POSIX(open__is_exclusive_and_checks_its_options),
        cmocka_unit_test(options_parse__reads_text),
        cmocka_unit_test(options_parse__survives_every_cut_and_change),
        ON_BOTH(oversize__batch_gets_a_window_of_its_own),
        ON_POSIX(many__windows_segments_and_merges),
        ON_BOTH(fork__child_is_refused_and_holds_no_lock),
        ON_BOTH(eventfd__tells_that_the_durable_lsn_moved),
        ON_BOTH(event__may_read_and_must_not_close),
        ON_POSIX(kill__loses_nothing_acknowledged),
        ON_BOTH(short_runs__leave_a_handful_of_files),
        ON_BOTH(rest__an_idle_database_keeps_small_logs),
    };
    return cmocka_run_group_tests_name("db", tests, NULL, NULL);
}
