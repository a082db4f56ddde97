/* SPDX-License-Identifier: MIT */
/*
 * SQLite as a key-value store: one table without rowid, a write-ahead log, a
 * connection per session, prepared statements. The page cache of each
 * connection has half of the budget. There is no snapshot that outlives a
 * statement without holding back the log, so it offers none.
 */
#include "engines.h"

#include <stdio.h>
#include <stdlib.h>

#include <sqlite3.h>

enum { LITE_BUSY_MS = 60000 };

enum lite_statement {
    LITE_PUT,
    LITE_DELETE,
    LITE_GET,
    LITE_UP,
    LITE_DOWN,
    LITE_BEGIN,
    LITE_COMMIT,
    LITE_COUNT
};

struct lite_db {
    char path[512];
    char pragmas[256];
    sqlite3 *keeper; /* the last connection to close writes the log back */
};

struct lite_session {
    sqlite3 *db;
    sqlite3_stmt *statements[LITE_COUNT];
    sqlite3_stmt *walk; /* the iterator's; nullable */
};

static int
lite_result(sqlite3 *db, const char *call, int error)
{
    if (LIKELY(error == SQLITE_OK || error == SQLITE_DONE || error == SQLITE_ROW)) {
        return BENCH_OK;
    }
    return bench_complain("%s: %.180s", call, db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(error));
}

static void
lite_version(char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s", sqlite3_libversion());
}

static void
lite_pragmas(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap, "PRAGMA journal_mode=WAL; PRAGMA synchronous=%s; PRAGMA cache_size=-%llu;",
                   setup->level == BENCH_SYNC ? "FULL" : "OFF",
                   (unsigned long long)(setup->memory_bytes / 2048));
}

static void
lite_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    char pragmas[256];
    lite_pragmas(setup, pragmas, sizeof pragmas);
    (void)snprintf(out, cap, "%s one table WITHOUT ROWID, a connection per thread", pragmas);
}

static int
lite_connect(const struct lite_db *owner, sqlite3 **out)
{
    sqlite3 *db = NULL;
    int error = sqlite3_open_v2(owner->path, &db,
                                SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
    error = error != 0 ? error : sqlite3_busy_timeout(db, LITE_BUSY_MS);
    error = error != 0 ? error : sqlite3_exec(db, owner->pragmas, NULL, NULL, NULL);
    error = error != 0 ? error
                       : sqlite3_exec(db,
                                      "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB NOT NULL) "
                                      "WITHOUT ROWID",
                                      NULL, NULL, NULL);
    if (error != 0) {
        (void)lite_result(db, "opening", error);
        (void)sqlite3_close(db);
        return BENCH_FAILED;
    }
    *out = db;
    return BENCH_OK;
}

static int
lite_open(const struct bench_setup *setup, void **db_out)
{
    struct lite_db *owner = calloc(1, sizeof *owner);
    if (owner == NULL) {
        return bench_complain("out of memory");
    }
    (void)snprintf(owner->path, sizeof owner->path, "%s/bench.sqlite", setup->dir);
    lite_pragmas(setup, owner->pragmas, sizeof owner->pragmas);
    if (lite_connect(owner, &owner->keeper) != BENCH_OK) {
        free(owner);
        return BENCH_FAILED;
    }
    *db_out = owner;
    return BENCH_OK;
}

static int
lite_close(void *db)
{
    struct lite_db *owner = db;
    int error = sqlite3_close(owner->keeper);
    free(owner);
    return lite_result(NULL, "sqlite3_close", error);
}

static void
lite_session_close(void *handle)
{
    struct lite_session *session = handle;
    for (uint32_t i = 0; i < LITE_COUNT; i++) {
        (void)sqlite3_finalize(session->statements[i]);
    }
    (void)sqlite3_close(session->db);
    free(session);
}

static int
lite_session_open(void *db, void **session_out)
{
    static const char *const texts[LITE_COUNT] = {
        [LITE_PUT] = "INSERT INTO kv (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = ?2",
        [LITE_DELETE] = "DELETE FROM kv WHERE k = ?1",
        [LITE_GET] = "SELECT v FROM kv WHERE k = ?1",
        [LITE_UP] = "SELECT k, v FROM kv WHERE k >= ?1 ORDER BY k",
        [LITE_DOWN] = "SELECT k, v FROM kv ORDER BY k DESC",
        [LITE_BEGIN] = "BEGIN IMMEDIATE",
        [LITE_COMMIT] = "COMMIT",
    };
    struct lite_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return bench_complain("out of memory");
    }
    int result = lite_connect(db, &session->db);
    for (uint32_t i = 0; result == BENCH_OK && i < LITE_COUNT; i++) {
        int error = sqlite3_prepare_v3(session->db, texts[i], -1, SQLITE_PREPARE_PERSISTENT,
                                       &session->statements[i], NULL);
        result = lite_result(session->db, "prepare", error);
    }
    if (result != BENCH_OK) {
        lite_session_close(session);
        return BENCH_FAILED;
    }
    *session_out = session;
    return BENCH_OK;
}

/* Runs a statement that gives no rows. */
static int
lite_run(struct lite_session *session, enum lite_statement which, struct bytes key, struct bytes value)
{
    sqlite3_stmt *statement = session->statements[which];
    if (key.len > 0) {
        (void)sqlite3_bind_blob(statement, 1, key.ptr, (int)key.len, SQLITE_STATIC);
    }
    if (value.len > 0) {
        (void)sqlite3_bind_blob(statement, 2, value.ptr, (int)value.len, SQLITE_STATIC);
    }
    (void)sqlite3_step(statement);
    return lite_result(session->db, "sqlite3_step", sqlite3_reset(statement));
}

static int
lite_put(void *handle, struct bytes key, struct bytes value)
{
    return lite_run(handle, LITE_PUT, key, value);
}

static int
lite_remove(void *handle, struct bytes key)
{
    return lite_run(handle, LITE_DELETE, key, bytes_make(NULL, 0));
}

static int
lite_batch(void *handle, const struct bench_write *writes, size_t count)
{
    struct lite_session *session = handle;
    struct bytes none = bytes_make(NULL, 0);
    int result = lite_run(session, LITE_BEGIN, none, none);
    for (size_t i = 0; result == BENCH_OK && i < count; i++) {
        result = writes[i].remove ? lite_run(session, LITE_DELETE, writes[i].key, none)
                                  : lite_run(session, LITE_PUT, writes[i].key, writes[i].value);
    }
    return result == BENCH_OK ? lite_run(session, LITE_COMMIT, none, none) : result;
}

static int
lite_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    (void)snapshot;
    struct lite_session *session = handle;
    sqlite3_stmt *statement = session->statements[LITE_GET];
    (void)sqlite3_bind_blob(statement, 1, key.ptr, (int)key.len, SQLITE_STATIC);
    int step = sqlite3_step(statement);
    if (step == SQLITE_ROW) {
        size_t size = (size_t)sqlite3_column_bytes(statement, 0);
        memcpy(buf, sqlite3_column_blob(statement, 0), MIN(size, cap));
        *size_out = size;
    }
    int error = sqlite3_reset(statement);
    return step == SQLITE_DONE ? BENCH_NONE : lite_result(session->db, "get", error);
}

static int
lite_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    struct lite_session *session = handle;
    sqlite3_stmt *statement = session->statements[LITE_GET];
    (void)sqlite3_bind_blob(statement, 1, key.ptr, (int)key.len, SQLITE_STATIC);
    int step = sqlite3_step(statement);
    if (step == SQLITE_ROW) {
        size_t size = (size_t)sqlite3_column_bytes(statement, 0);
        *good_out = look(arg, bytes_make(sqlite3_column_blob(statement, 0), size));
    }
    int error = sqlite3_reset(statement);
    return step == SQLITE_DONE ? BENCH_NONE : lite_result(session->db, "look", error);
}

static int
lite_snapshot_open(void *session, void **snapshot_out)
{
    (void)session;
    (void)snapshot_out;
    return bench_complain("no snapshots");
}

static void
lite_snapshot_close(void *session, void *snapshot)
{
    (void)session;
    (void)snapshot;
}

static int
lite_iter_open(void *handle, void *snapshot, void **iter_out)
{
    (void)snapshot;
    *iter_out = handle;
    return BENCH_OK;
}

static int
lite_iter_step(void *handle, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    struct lite_session *session = handle;
    if (step == BENCH_SEEK || step == BENCH_FIRST || step == BENCH_LAST) {
        if (session->walk != NULL) {
            (void)sqlite3_reset(session->walk);
        }
        session->walk = session->statements[step == BENCH_LAST ? LITE_DOWN : LITE_UP];
        if (step != BENCH_LAST) {
            struct bytes from = step == BENCH_SEEK ? key : bytes_make("", 0);
            (void)sqlite3_bind_blob(session->walk, 1, from.ptr, (int)from.len, SQLITE_TRANSIENT);
        }
    } else if (session->walk != session->statements[step == BENCH_PREV ? LITE_DOWN : LITE_UP]) {
        return bench_complain("an iterator goes one way here");
    }
    int error = sqlite3_step(session->walk);
    if (error != SQLITE_ROW) {
        return error == SQLITE_DONE ? BENCH_NONE : lite_result(session->db, "walk", error);
    }
    row_out->key =
        bytes_make(sqlite3_column_blob(session->walk, 0), (size_t)sqlite3_column_bytes(session->walk, 0));
    row_out->value =
        bytes_make(sqlite3_column_blob(session->walk, 1), (size_t)sqlite3_column_bytes(session->walk, 1));
    return BENCH_OK;
}

static void
lite_iter_close(void *handle)
{
    struct lite_session *session = handle;
    if (session->walk != NULL) {
        (void)sqlite3_reset(session->walk);
        session->walk = NULL;
    }
}

static int
lite_flush(void *db)
{
    struct lite_db *owner = db;
    int error = sqlite3_wal_checkpoint_v2(owner->keeper, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    return lite_result(owner->keeper, "checkpoint", error);
}

static int
lite_compact(void *db)
{
    struct lite_db *owner = db;
    return lite_result(owner->keeper, "VACUUM", sqlite3_exec(owner->keeper, "VACUUM", NULL, NULL, NULL));
}

const struct bench_engine bench_engine_sqlite = {
    .name = "sqlite",
    .snapshots_max = 0,
    .version = lite_version,
    .settings = lite_settings,
    .open = lite_open,
    .close = lite_close,
    .session_open = lite_session_open,
    .session_close = lite_session_close,
    .put = lite_put,
    .remove = lite_remove,
    .batch = lite_batch,
    .get = lite_get,
    .look = lite_look,
    .snapshot_open = lite_snapshot_open,
    .snapshot_close = lite_snapshot_close,
    .iter_open = lite_iter_open,
    .iter_step = lite_iter_step,
    .iter_close = lite_iter_close,
    .flush = lite_flush,
    .compact = lite_compact,
};
