/* SPDX-License-Identifier: MIT */
/*
 * Goal: sentences of the public contract that no other test reads aloud: which
 * status a caller sees when something outside is wrong, what destroy may
 * remove, what verify tells, where iterators, snapshots and requirements stand
 * at their edges, and which threads tell events.
 * Method: the public calls alone, on a real directory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "esker/esker.h"

struct contract_fixture {
    char dir[64];
    char path[128]; /* contract_at's result */
};

static const char *
contract_at(struct contract_fixture *f, const char *name)
{
    snprintf(f->path, sizeof f->path, "%s/%s", f->dir, name);
    return f->path;
}

static int
contract_setup(void **state)
{
    struct contract_fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "/tmp/esker-contract-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int
contract_teardown(void **state)
{
    struct contract_fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static esker_db *
contract_open(struct contract_fixture *f, const char *name)
{
    esker_options options;
    esker_db *db = NULL;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.compression = ESKER_COMPRESS_NONE;
    assert_int_equal(esker_open(contract_at(f, name), &options, &db), ESKER_OK);
    return db;
}

static void
contract_put(esker_db *db, const char *key, const char *value)
{
    assert_int_equal(esker_put(db, esker_str(key), esker_str(value), NULL), ESKER_OK);
}

static void
contract_file(struct contract_fixture *f, const char *name, const char *text)
{
    FILE *file = fopen(contract_at(f, name), "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static esker_error
contract_story(void)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    return error;
}

/* ---- Opening ---------------------------------------------------------------------- */

static void
open__says_what_is_wrong(void **state)
{
    struct contract_fixture *f = *state;
    esker_db *db = NULL;
    assert_int_equal(esker_open(contract_at(f, "no/parent"), NULL, &db), ESKER_IO);
    assert_int_equal(contract_story().os_errno, 2);
    assert_int_equal(symlink("/nonexistent/esker", contract_at(f, "dangling")), 0);
    assert_int_equal(esker_open(contract_at(f, "dangling"), NULL, &db), ESKER_IO);
    /* A database that lost its CURRENT is no missing one, whatever create_if_missing says. */
    db = contract_open(f, "lost");
    contract_put(db, "a", "1");
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(unlink(contract_at(f, "lost/CURRENT")), 0);
    esker_options options;
    esker_options_init(&options);
    options.create_if_missing = false;
    assert_int_equal(esker_open(contract_at(f, "lost"), &options, &db), ESKER_CORRUPT);
    assert_string_equal(contract_story().file, "CURRENT");
    assert_int_equal(mkdir(contract_at(f, "empty"), 0700), 0);
    assert_int_equal(esker_open(contract_at(f, "empty"), &options, &db), ESKER_INVALID);
}

/* Without permission it is IO, not BUSY. Needs a user to become. */
static void
open__without_permission_is_io(void **state)
{
    struct contract_fixture *f = *state;
    if (geteuid() != 0) {
        skip();
    }
    esker_db *db = contract_open(f, "db");
    contract_put(db, "a", "1");
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(contract_at(f, "db"), 0755), 0);
    pid_t child = fork();
    if (child == 0) {
        bool ok = setgid(65534) == 0 && setuid(65534) == 0;
        ok = ok && esker_open(contract_at(f, "db"), NULL, &db) == ESKER_IO;
        ok = ok && esker_verify(f->path, NULL, NULL) == ESKER_IO && esker_destroy(f->path) == ESKER_IO;
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(esker_verify(contract_at(f, "db"), NULL, NULL), ESKER_OK);
}

struct contract_heap {
    _Atomic long calls, fail_at; /* any thread allocates */
};

static bool
contract_heap_fails(struct contract_heap *heap)
{
    return ++heap->calls == heap->fail_at;
}

static void *
contract_alloc(void *ctx, size_t size)
{
    return contract_heap_fails(ctx) ? NULL : malloc(size);
}

static void *
contract_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    return contract_heap_fails(ctx)
               ? NULL
               : aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void
contract_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

/* Each allocation of an open of nothing, and of one of something, fails in turn. */
static void
open__without_memory_says_so(void **state)
{
    struct contract_fixture *f = *state;
    struct contract_heap heap = {0};
    esker_allocator allocator = {contract_alloc, contract_aligned_alloc, contract_free, &heap};
    esker_options options;
    esker_options_init(&options);
    options.allocator = &allocator;
    for (int life = 0; life < 2; life++) {
        esker_status status = ESKER_NO_MEMORY;
        for (long at = 1; status != ESKER_OK; at++) {
            esker_db *db = NULL;
            heap.calls = 0;
            heap.fail_at = at;
            status = esker_open(contract_at(f, "db"), &options, &db);
            assert_true(status == ESKER_OK || status == ESKER_NO_MEMORY);
            assert_true((status == ESKER_OK) == (db != NULL));
            heap.fail_at = 0;
            assert_int_equal(esker_close(db), ESKER_OK);
        }
    }
}

/* ---- Destroy ---------------------------------------------------------------------- */

/* Names of ours that hold what we never wrote stay. */
static void
destroy__leaves_what_is_not_ours(void **state)
{
    struct contract_fixture *f = *state;
    static const char *const names[] = {"LOCK", "CURRENT.tmp", "CURRENT"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char name[32];
        assert_int_equal(mkdir(contract_at(f, "user"), 0700), 0);
        snprintf(name, sizeof name, "user/%s", names[i]);
        contract_file(f, name, "somebody's notes, which are nobody else's business\n");
        assert_int_equal(esker_destroy(contract_at(f, "user")), ESKER_CORRUPT);
        assert_string_equal(contract_story().file, names[i]);
        assert_int_equal(access(contract_at(f, name), F_OK), 0);
        if (i > 0) {
            esker_db *db = NULL;
            assert_int_equal(esker_open(contract_at(f, "user"), NULL, &db), ESKER_CORRUPT);
            assert_int_equal(access(contract_at(f, name), F_OK), 0);
            (void)unlink(contract_at(f, "user/LOCK"));
        }
        assert_int_equal(unlink(contract_at(f, name)), 0);
        assert_int_equal(rmdir(contract_at(f, "user")), 0);
    }
    esker_db *db = contract_open(f, "db");
    assert_int_equal(esker_close(db), ESKER_OK);
    contract_file(f, "db/CURRENT.tmp", "ESKERC"); /* a crash in the middle of ours */
    assert_int_equal(esker_destroy(contract_at(f, "db")), ESKER_OK);
    assert_int_not_equal(access(contract_at(f, "db"), F_OK), 0);
}

/* ---- Verify ----------------------------------------------------------------------- */

static void
contract_flip(const char *path, off_t offset)
{
    uint8_t byte = 0;
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
    byte ^= 0x20;
    assert_int_equal(pwrite(fd, &byte, 1, offset), 1);
    assert_int_equal(close(fd), 0);
}

/* The path of the only segment. */
static void
contract_find_segment(struct contract_fixture *f, char path[static 512])
{
    DIR *dir = opendir(contract_at(f, "db"));
    assert_non_null(dir);
    path[0] = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (strstr(entry->d_name, ".seg") != NULL) {
            assert_int_equal(path[0], 0);
            snprintf(path, 512, "%s/%s", f->path, entry->d_name);
        }
    }
    closedir(dir);
    assert_int_not_equal(path[0], 0);
}

struct contract_findings {
    const char *path;
    int count, most;
    uint64_t last_offset;
};

static int
contract_each(void *ctx, const esker_error *finding)
{
    struct contract_findings *findings = ctx;
    assert_int_equal(finding->status, ESKER_CORRUPT);
    assert_true(findings->count == 0 || finding->offset > findings->last_offset);
    findings->last_offset = finding->offset;
    /* Calls of its own change nothing: neither one that fails nor another look. */
    assert_int_equal(esker_put(NULL, esker_str("k"), esker_str("v"), NULL), ESKER_INVALID);
    if (findings->count == 0 && findings->path != NULL) {
        assert_int_equal(esker_verify(findings->path, NULL, NULL), ESKER_CORRUPT);
        assert_int_equal(esker_put(NULL, esker_str("k"), esker_str("v"), NULL), ESKER_INVALID);
    }
    return ++findings->count == findings->most;
}

static void
verify__tells_each_damaged_block(void **state)
{
    struct contract_fixture *f = *state;
    char segment[512], value[200], db_path[128];
    esker_db *db = contract_open(f, "db");
    memset(value, 'v', sizeof value);
    for (int i = 0; i < 1000; i++) {
        char key[16];
        snprintf(key, sizeof key, "%06d", i);
        assert_int_equal(esker_put(db, esker_str(key), esker_bytes(value, sizeof value), NULL), ESKER_OK);
    }
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);
    contract_find_segment(f, segment);
    for (off_t offset = 20000; offset <= 180000; offset += 40000) {
        contract_flip(segment, offset);
    }
    snprintf(db_path, sizeof db_path, "%s", contract_at(f, "db"));
    struct contract_findings all = {.path = db_path};
    assert_int_equal(esker_verify(db_path, contract_each, &all), ESKER_CORRUPT);
    assert_int_equal(all.count, 5);
    assert_true(contract_story().offset < 40000); /* the first one's story */
    struct contract_findings two = {.most = 2};
    assert_int_equal(esker_verify(db_path, contract_each, &two), ESKER_CORRUPT);
    assert_int_equal(two.count, 2);
}

/* ---- Requirements ----------------------------------------------------------------- */

static esker_status
contract_put_if(esker_db *db, const char *key, esker_lsn unchanged_since)
{
    esker_batch *batch = NULL;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_require(batch, esker_str(key), unchanged_since), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("witness"), esker_str("1")), ESKER_OK);
    esker_status status = esker_write(db, batch, NULL, NULL);
    esker_batch_destroy(batch);
    return status;
}

/* What never was has not changed, also when history is gone: since 0, and since a snapshot that lives. */
static void
require__an_absent_key_has_not_changed(void **state)
{
    struct contract_fixture *f = *state;
    esker_db *db = contract_open(f, "db");
    contract_put(db, "gone", "1");
    esker_snapshot *snapshot = NULL;
    assert_int_equal(esker_snapshot_create(db, &snapshot), ESKER_OK);
    esker_lsn before = esker_snapshot_lsn(snapshot);
    assert_int_equal(esker_delete(db, esker_str("gone"), NULL), ESKER_OK);
    contract_put(db, "other", "1");
    for (int life = 0; life < 2; life++) {
        assert_int_equal(contract_put_if(db, "never", 0), ESKER_OK);
        assert_int_equal(contract_put_if(db, "never", before), ESKER_OK);
        assert_int_equal(contract_put_if(db, "other", 0), ESKER_CONFLICT);
        assert_int_equal(contract_put_if(db, "gone", before), ESKER_CONFLICT);
        assert_int_equal(esker_flush(db), ESKER_OK);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    }
    /* Once nobody holds that history, nothing of the deleted key is left to be found: it is CONFLICT. */
    esker_snapshot_release(snapshot);
    contract_put(db, "gona", "1");
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(contract_put_if(db, "gone", before), ESKER_CONFLICT);
    assert_int_equal(esker_close(db), ESKER_OK);
}

/* The state that the last write made can be had by its LSN, also after a flush. */
/* 3 MB: the windows that 8 MiB of budget have are a sixteenth of that. */
static esker_status
contract_large_batch(esker_db *db, esker_lsn since, char fill, esker_lsn *end_out)
{
    static char value[3000];
    char key[16];
    esker_batch *batch = NULL;
    memset(value, fill, sizeof value);
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "large%04d", i);
        assert_int_equal(esker_batch_put(batch, esker_str(key), esker_bytes(value, sizeof value)), ESKER_OK);
    }
    assert_int_equal(esker_batch_require(batch, esker_str("guard"), since), ESKER_OK);
    esker_status status = esker_write(db, batch, NULL, end_out);
    esker_batch_destroy(batch);
    return status;
}

static void
contract_expect_large(esker_db *db, char fill)
{
    char key[16];
    char value[3000];
    size_t size = 0;
    for (int i = 0; i < 1000; i++) {
        snprintf(key, sizeof key, "large%04d", i);
        assert_int_equal(esker_get_copy(db, esker_str(key), NULL, value, sizeof value, &size), ESKER_OK);
        assert_int_equal(size, sizeof value);
        assert_int_equal(value[0], fill);
        assert_int_equal(value[size - 1], fill);
    }
}

static void
require__holds_for_a_batch_of_any_size(void **state)
{
    struct contract_fixture *f = *state;
    esker_db *db = contract_open(f, "large");
    esker_snapshot *at;
    esker_lsn end = 0;
    contract_put(db, "guard", "1");
    assert_int_equal(esker_snapshot_create(db, &at), ESKER_OK);
    assert_int_equal(contract_large_batch(db, esker_snapshot_lsn(at), 'a', &end), ESKER_OK);
    assert_true(end > esker_snapshot_lsn(at));
    contract_put(db, "guard", "2");
    end = 4711;
    assert_int_equal(contract_large_batch(db, esker_snapshot_lsn(at), 'b', &end), ESKER_CONFLICT);
    assert_int_equal(end, 4711);
    contract_put(db, "after", "1");
    contract_expect_large(db, 'a');
    esker_snapshot_release(at);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(esker_close(db), ESKER_OK);
        db = contract_open(f, "large");
        contract_expect_large(db, 'a');
        assert_int_equal(esker_snapshot_create(db, &at), ESKER_OK);
        assert_int_equal(contract_large_batch(db, esker_snapshot_lsn(at), 'a', &end), ESKER_OK);
        esker_snapshot_release(at);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
}

struct contract_rival {
    esker_db *db;
    _Atomic bool stop;
};

static void *
contract_rival_main(void *arg)
{
    struct contract_rival *rival = arg;
    while (!rival->stop) {
        contract_put(rival->db, "guard", "x");
    }
    return NULL;
}

/* The key changes all the time: mostly between the first look, before the window is made, and the last. */
static void
require__refuses_a_large_batch_at_its_turn(void **state)
{
    struct contract_fixture *f = *state;
    struct contract_rival rival = {.db = contract_open(f, "rival")};
    esker_lsn end = 0;
    contract_put(rival.db, "guard", "1");
    assert_int_equal(contract_large_batch(rival.db, 1 << 30, 'a', &end), ESKER_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, contract_rival_main, &rival), 0);
    int conflicts = 0;
    char fill = 'a';
    for (int i = 0; i < 30; i++) {
        esker_snapshot *at;
        assert_int_equal(esker_snapshot_create(rival.db, &at), ESKER_OK);
        char wanted = (char)('b' + i % 20);
        esker_status status = contract_large_batch(rival.db, esker_snapshot_lsn(at), wanted, &end);
        esker_snapshot_release(at);
        assert_true(status == ESKER_OK || status == ESKER_CONFLICT);
        fill = status == ESKER_OK ? wanted : fill;
        conflicts += status == ESKER_CONFLICT;
        contract_expect_large(rival.db, fill);
    }
    rival.stop = true;
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(conflicts > 0);
    for (int life = 0; life < 2; life++) {
        assert_int_equal(esker_close(rival.db), ESKER_OK);
        rival.db = contract_open(f, "rival");
        contract_expect_large(rival.db, fill);
    }
    assert_int_equal(esker_close(rival.db), ESKER_OK);
}

static void
snapshot_at__the_present_commit_outlives_a_flush(void **state)
{
    struct contract_fixture *f = *state;
    esker_db *db = contract_open(f, "db");
    esker_batch *batch = NULL;
    esker_lsn end = 0;
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(esker_batch_put(batch, esker_str("k"), esker_str("v")), ESKER_OK);
        assert_int_equal(esker_write(db, batch, NULL, &end), ESKER_OK);
    }
    esker_batch_destroy(batch);
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    for (esker_lsn lsn = end - 1; lsn <= esker_visible_lsn(db); lsn++) {
        esker_snapshot *snapshot = NULL;
        assert_int_equal(esker_snapshot_create_at(db, lsn, &snapshot),
                         lsn < end ? ESKER_NOT_FOUND : ESKER_OK);
        if (snapshot != NULL) {
            esker_read_options then;
            size_t size = 0;
            esker_read_options_init(&then);
            then.snapshot = snapshot;
            assert_true(esker_snapshot_lsn(snapshot) <= lsn);
            assert_int_equal(esker_get_copy(db, esker_str("k"), &then, NULL, 0, &size), ESKER_TRUNCATED);
            esker_snapshot_release(snapshot);
        }
    }
    assert_int_equal(esker_close(db), ESKER_OK);
}

/* ---- Iterators -------------------------------------------------------------------- */

static void
contract_is_at(const esker_iter *it, const char *key)
{
    esker_slice at = esker_iter_key(it);
    assert_int_equal(at.size, strlen(key));
    assert_memory_equal(at.data, key, at.size);
}

static void
refresh__keeps_either_end(void **state)
{
    struct contract_fixture *f = *state;
    esker_db *db = contract_open(f, "db");
    esker_iter *it = NULL;
    contract_put(db, "b", "1");
    contract_put(db, "c", "1");
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    assert_int_equal(esker_iter_next(it), ESKER_INVALID);
    assert_int_equal(esker_iter_refresh(it), ESKER_OK);
    assert_int_equal(esker_iter_prev(it), ESKER_INVALID);
    assert_int_equal(esker_iter_seek(it, esker_str("d")), ESKER_END);
    contract_put(db, "d", "1");
    assert_int_equal(esker_iter_refresh(it), ESKER_OK);
    assert_int_equal(esker_iter_next(it), ESKER_END);
    assert_int_equal(esker_iter_refresh(it), ESKER_OK);
    assert_int_equal(esker_iter_prev(it), ESKER_OK);
    contract_is_at(it, "d");
    assert_int_equal(esker_iter_seek_for_prev(it, esker_str("a")), ESKER_END);
    contract_put(db, "a", "1");
    assert_int_equal(esker_iter_refresh(it), ESKER_OK);
    assert_int_equal(esker_iter_prev(it), ESKER_END);
    assert_int_equal(esker_iter_refresh(it), ESKER_OK);
    assert_int_equal(esker_iter_next(it), ESKER_OK);
    contract_is_at(it, "a");
    esker_iter_destroy(it);
    assert_int_equal(esker_close(db), ESKER_OK);
}

/* ---- Events ----------------------------------------------------------------------- */

struct contract_events {
    pthread_mutex_t mutex; /* the program's own; held around its calls */
    pthread_t caller;
    int compactions, on_caller;
};

static void
contract_event(void *ctx, const esker_event *event)
{
    struct contract_events *events = ctx;
    if (event->kind != ESKER_EVENT_COMPACTION) {
        return;
    }
    bool on_caller = pthread_equal(pthread_self(), events->caller) != 0;
    if (!on_caller) {
        assert_int_equal(pthread_mutex_lock(&events->mutex), 0);
    }
    events->compactions++;
    events->on_caller += on_caller;
    if (!on_caller) {
        assert_int_equal(pthread_mutex_unlock(&events->mutex), 0);
    }
}

/* The caller may hold what the event function waits for; what its call did is told before close returns. */
static void
event__comes_from_an_engine_thread(void **state)
{
    struct contract_fixture *f = *state;
    struct contract_events events = {.mutex = PTHREAD_MUTEX_INITIALIZER, .caller = pthread_self()};
    esker_options options;
    esker_db *db = NULL;
    esker_options_init(&options);
    options.on_event = contract_event;
    options.event_ctx = &events;
    assert_int_equal(esker_open(contract_at(f, "db"), &options, &db), ESKER_OK);
    assert_int_equal(pthread_mutex_lock(&events.mutex), 0);
    for (int i = 0; i < 3; i++) {
        contract_put(db, "k", "v");
        assert_int_equal(esker_flush(db), ESKER_OK);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(pthread_mutex_unlock(&events.mutex), 0);
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_true(events.compactions > 0);
    assert_int_equal(events.on_caller, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(open__says_what_is_wrong, contract_setup, contract_teardown),
        cmocka_unit_test_setup_teardown(open__without_permission_is_io, contract_setup, contract_teardown),
        cmocka_unit_test_setup_teardown(open__without_memory_says_so, contract_setup, contract_teardown),
        cmocka_unit_test_setup_teardown(destroy__leaves_what_is_not_ours, contract_setup, contract_teardown),
        cmocka_unit_test_setup_teardown(verify__tells_each_damaged_block, contract_setup, contract_teardown),
        cmocka_unit_test_setup_teardown(require__an_absent_key_has_not_changed, contract_setup,
                                        contract_teardown),
        cmocka_unit_test_setup_teardown(require__holds_for_a_batch_of_any_size, contract_setup,
                                        contract_teardown),
        cmocka_unit_test_setup_teardown(require__refuses_a_large_batch_at_its_turn, contract_setup,
                                        contract_teardown),
        cmocka_unit_test_setup_teardown(snapshot_at__the_present_commit_outlives_a_flush, contract_setup,
                                        contract_teardown),
        cmocka_unit_test_setup_teardown(refresh__keeps_either_end, contract_setup, contract_teardown),
        cmocka_unit_test_setup_teardown(event__comes_from_an_engine_thread, contract_setup,
                                        contract_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
