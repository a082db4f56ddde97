/* SPDX-License-Identifier: MIT */
/*
 * LMDB. It has no log: a write is a transaction of its own that reaches the
 * file, and without sync it promises less than a log does (after a loss of
 * power the file may be corrupt). Its cache is the page cache, which no budget
 * of ours limits.
 *
 * Reads: a session keeps one read transaction and renews it for each get and
 * for each iterator, so that each sees the newest state.
 */
#include "engines.h"

#include <stdio.h>
#include <stdlib.h>

#include <lmdb.h>

/* Address space only; the file grows as pages are used, and under old readers none is used again. */
#define LMDB_MAP_BYTES ((size_t)16 << 30)

struct lmdb_db {
    MDB_env *env;
    MDB_dbi dbi;
};

struct lmdb_session {
    struct lmdb_db *owner;
    MDB_txn *txn; /* reset between uses */
};

struct lmdb_iter {
    MDB_cursor *cursor;
    MDB_txn *renewed; /* nullable: to be reset */
};

static int
lmdb_result(const char *call, int error)
{
    return LIKELY(error == 0) ? BENCH_OK : bench_complain("%s: %s", call, mdb_strerror(error));
}

static MDB_val
lmdb_val(struct bytes bytes)
{
    /* LMDB reads through this pointer only, though it is not const. */
    return (MDB_val){.mv_size = bytes.len, .mv_data = (void *)(uintptr_t)bytes.ptr};
}

static void
lmdb_version(char *out, size_t cap)
{
    int major, minor, patch;
    (void)mdb_version(&major, &minor, &patch);
    (void)snprintf(out, cap, "%d.%d.%d", major, minor, patch);
}

static void
lmdb_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s%smap of 16 GiB, page cache without limit, no compression",
                   setup->level == BENCH_SYNC ? "synchronous commits, " : "MDB_NOSYNC, ",
                   setup->random_reads ? "MDB_NORDAHEAD, " : "");
}

static int
lmdb_open(const struct bench_setup *setup, void **db_out)
{
    struct lmdb_db *owner = calloc(1, sizeof *owner);
    if (owner == NULL) {
        return bench_complain("out of memory");
    }
    unsigned flags = MDB_NOTLS | (setup->level == BENCH_SYNC ? 0 : MDB_NOSYNC);
    /* Reading ahead is for data that fits in memory, as its manual says. */
    flags |= setup->random_reads ? MDB_NORDAHEAD : 0;
    MDB_txn *txn = NULL;
    int error = mdb_env_create(&owner->env);
    error = error != 0 ? error : mdb_env_set_mapsize(owner->env, LMDB_MAP_BYTES);
    error = error != 0 ? error
                       : mdb_env_set_maxreaders(owner->env, setup->sessions_max + setup->snapshots_max + 16);
    error = error != 0 ? error : mdb_env_open(owner->env, setup->dir, flags, 0600);
    error = error != 0 ? error : mdb_txn_begin(owner->env, NULL, 0, &txn);
    error = error != 0 ? error : mdb_dbi_open(txn, NULL, 0, &owner->dbi);
    error = error != 0 ? error : mdb_txn_commit(txn);
    if (error != 0) {
        if (owner->env != NULL) {
            mdb_env_close(owner->env);
        }
        free(owner);
        return lmdb_result("opening", error);
    }
    *db_out = owner;
    return BENCH_OK;
}

static int
lmdb_close(void *db)
{
    struct lmdb_db *owner = db;
    int error = mdb_env_sync(owner->env, 1);
    mdb_env_close(owner->env);
    free(owner);
    return lmdb_result("mdb_env_sync", error);
}

static int
lmdb_session_open(void *db, void **session_out)
{
    struct lmdb_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return bench_complain("out of memory");
    }
    session->owner = db;
    int error = mdb_txn_begin(session->owner->env, NULL, MDB_RDONLY, &session->txn);
    if (error != 0) {
        free(session);
        return lmdb_result("mdb_txn_begin", error);
    }
    mdb_txn_reset(session->txn);
    *session_out = session;
    return BENCH_OK;
}

static void
lmdb_session_close(void *handle)
{
    struct lmdb_session *session = handle;
    mdb_txn_abort(session->txn);
    free(session);
}

static int
lmdb_batch(void *handle, const struct bench_write *writes, size_t count)
{
    struct lmdb_db *owner = ((struct lmdb_session *)handle)->owner;
    MDB_txn *txn = NULL;
    int error = mdb_txn_begin(owner->env, NULL, 0, &txn);
    if (error != 0) {
        return lmdb_result("mdb_txn_begin", error);
    }
    for (size_t i = 0; error == 0 && i < count; i++) {
        MDB_val key = lmdb_val(writes[i].key);
        MDB_val value = lmdb_val(writes[i].value);
        if (writes[i].remove) {
            error = mdb_del(txn, owner->dbi, &key, NULL);
            error = error == MDB_NOTFOUND ? 0 : error;
        } else {
            error = mdb_put(txn, owner->dbi, &key, &value, 0);
        }
    }
    if (error != 0) {
        mdb_txn_abort(txn);
        return lmdb_result("mdb_put", error);
    }
    return lmdb_result("mdb_txn_commit", mdb_txn_commit(txn));
}

static int
lmdb_put(void *handle, struct bytes key, struct bytes value)
{
    const struct bench_write write = {.key = key, .value = value};
    return lmdb_batch(handle, &write, 1);
}

static int
lmdb_remove(void *handle, struct bytes key)
{
    const struct bench_write write = {.key = key, .remove = true};
    return lmdb_batch(handle, &write, 1);
}

static int
lmdb_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    struct lmdb_session *session = handle;
    MDB_txn *txn = snapshot != NULL ? snapshot : session->txn;
    if (snapshot == NULL) {
        int error = mdb_txn_renew(txn);
        if (error != 0) {
            return lmdb_result("mdb_txn_renew", error);
        }
    }
    MDB_val wanted = lmdb_val(key);
    MDB_val found;
    int error = mdb_get(txn, session->owner->dbi, &wanted, &found);
    if (error == 0) {
        memcpy(buf, found.mv_data, MIN(found.mv_size, cap));
        *size_out = found.mv_size;
    }
    if (snapshot == NULL) {
        mdb_txn_reset(txn);
    }
    return error == MDB_NOTFOUND ? BENCH_NONE : lmdb_result("mdb_get", error);
}

static int
lmdb_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    struct lmdb_session *session = handle;
    MDB_val wanted = lmdb_val(key);
    MDB_val found;
    int error = mdb_txn_renew(session->txn);
    if (error != 0) {
        return lmdb_result("mdb_txn_renew", error);
    }
    error = mdb_get(session->txn, session->owner->dbi, &wanted, &found);
    if (error == 0) {
        *good_out = look(arg, bytes_make(found.mv_data, found.mv_size));
    }
    mdb_txn_reset(session->txn);
    return error == MDB_NOTFOUND ? BENCH_NONE : lmdb_result("mdb_get", error);
}

static int
lmdb_snapshot_open(void *handle, void **snapshot_out)
{
    struct lmdb_session *session = handle;
    MDB_txn *txn = NULL;
    int error = mdb_txn_begin(session->owner->env, NULL, MDB_RDONLY, &txn);
    if (error == 0) {
        *snapshot_out = txn;
    }
    return lmdb_result("mdb_txn_begin", error);
}

static void
lmdb_snapshot_close(void *session, void *snapshot)
{
    (void)session;
    mdb_txn_abort(snapshot);
}

static int
lmdb_iter_open(void *handle, void *snapshot, void **iter_out)
{
    struct lmdb_session *session = handle;
    struct lmdb_iter *iter = calloc(1, sizeof *iter);
    if (iter == NULL) {
        return bench_complain("out of memory");
    }
    int error = 0;
    if (snapshot == NULL) {
        error = mdb_txn_renew(session->txn);
        iter->renewed = error == 0 ? session->txn : NULL;
    }
    if (error == 0) {
        error =
            mdb_cursor_open(snapshot != NULL ? snapshot : session->txn, session->owner->dbi, &iter->cursor);
    }
    if (error != 0) {
        if (iter->renewed != NULL) {
            mdb_txn_reset(iter->renewed);
        }
        free(iter);
        return lmdb_result("mdb_cursor_open", error);
    }
    *iter_out = iter;
    return BENCH_OK;
}

static int
lmdb_iter_step(void *handle, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    static const MDB_cursor_op steps[] = {[BENCH_FIRST] = MDB_FIRST,
                                          [BENCH_LAST] = MDB_LAST,
                                          [BENCH_SEEK] = MDB_SET_RANGE,
                                          [BENCH_NEXT] = MDB_NEXT,
                                          [BENCH_PREV] = MDB_PREV};
    struct lmdb_iter *iter = handle;
    MDB_val at = lmdb_val(key);
    MDB_val value;
    int error = mdb_cursor_get(iter->cursor, &at, &value, steps[step]);
    if (error != 0) {
        return error == MDB_NOTFOUND ? BENCH_NONE : lmdb_result("mdb_cursor_get", error);
    }
    row_out->key = bytes_make(at.mv_data, at.mv_size);
    row_out->value = bytes_make(value.mv_data, value.mv_size);
    return BENCH_OK;
}

static void
lmdb_iter_close(void *handle)
{
    struct lmdb_iter *iter = handle;
    mdb_cursor_close(iter->cursor);
    if (iter->renewed != NULL) {
        mdb_txn_reset(iter->renewed);
    }
    free(iter);
}

static int
lmdb_flush(void *db)
{
    return lmdb_result("mdb_env_sync", mdb_env_sync(((struct lmdb_db *)db)->env, 1));
}

static int
lmdb_compact(void *db)
{
    (void)db;
    return BENCH_NONE;
}

const struct bench_engine bench_engine_lmdb = {
    .name = "lmdb",
    .snapshots_max = 200000,
    .maps_files = true,
    .version = lmdb_version,
    .settings = lmdb_settings,
    .open = lmdb_open,
    .close = lmdb_close,
    .session_open = lmdb_session_open,
    .session_close = lmdb_session_close,
    .put = lmdb_put,
    .remove = lmdb_remove,
    .batch = lmdb_batch,
    .get = lmdb_get,
    .look = lmdb_look,
    .snapshot_open = lmdb_snapshot_open,
    .snapshot_close = lmdb_snapshot_close,
    .iter_open = lmdb_iter_open,
    .iter_step = lmdb_iter_step,
    .iter_close = lmdb_iter_close,
    .flush = lmdb_flush,
    .compact = lmdb_compact,
};
