/* SPDX-License-Identifier: MIT */
/*
 * WiredTiger: one cache of the whole budget, in which half may be dirty (as
 * much as the others have for write buffers), snappy where the extension is
 * installed. transaction_sync method "none" hands each commit to the kernel.
 *
 * A session keeps one cursor. An iterator and a snapshot are transactions with
 * snapshot isolation; a snapshot has a WiredTiger session of its own.
 */
#include "engines.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <wiredtiger.h>

#ifndef BENCH_WIREDTIGER_SNAPPY
#define BENCH_WIREDTIGER_SNAPPY ""
#endif

struct wired_db {
    WT_CONNECTION *connection;
};

struct wired_session {
    struct wired_db *owner;
    WT_SESSION *session;
    WT_CURSOR *cursor;
};

struct wired_iter {
    WT_SESSION *session; /* nullable: its transaction ends with the iterator */
    WT_CURSOR *cursor;
};

static int
wired_result(const char *call, int error)
{
    return LIKELY(error == 0) ? BENCH_OK : bench_complain("%s: %s", call, wiredtiger_strerror(error));
}

static bool
wired_has_snappy(void)
{
    return BENCH_WIREDTIGER_SNAPPY[0] != 0 && access(BENCH_WIREDTIGER_SNAPPY, R_OK) == 0;
}

static void
wired_version(char *out, size_t cap)
{
    int major, minor, patch;
    (void)wiredtiger_version(&major, &minor, &patch);
    (void)snprintf(out, cap, "%d.%d.%d", major, minor, patch);
}

static void
wired_config(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap,
                   "create,cache_size=%llu,log=(enabled),transaction_sync=(enabled,method=%s),"
                   "checkpoint=(wait=60),session_max=%u,eviction=(threads_max=2),"
                   "eviction_dirty_target=40,eviction_dirty_trigger=50",
                   (unsigned long long)setup->memory_bytes, setup->level == BENCH_SYNC ? "fsync" : "none",
                   setup->sessions_max + setup->snapshots_max + 64);
}

static void
wired_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    char config[384];
    wired_config(setup, config, sizeof config);
    (void)snprintf(out, cap, "%s; block_compressor=%s", config, wired_has_snappy() ? "snappy" : "none");
}

static int
wired_open(const struct bench_setup *setup, void **db_out)
{
    struct wired_db *owner = calloc(1, sizeof *owner);
    if (owner == NULL) {
        return bench_complain("out of memory");
    }
    char config[1024], ours[384];
    wired_config(setup, ours, sizeof ours);
    (void)snprintf(config, sizeof config, "%s%s%s%s", ours, wired_has_snappy() ? ",extensions=[" : "",
                   wired_has_snappy() ? BENCH_WIREDTIGER_SNAPPY : "", wired_has_snappy() ? "]" : "");
    int error = wiredtiger_open(setup->dir, NULL, config, &owner->connection);
    if (error != 0) {
        free(owner);
        return wired_result("wiredtiger_open", error);
    }
    WT_SESSION *session = NULL;
    error = owner->connection->open_session(owner->connection, NULL, NULL, &session);
    if (error == 0) {
        error = session->create(session, "table:bench",
                                wired_has_snappy() ? "key_format=u,value_format=u,block_compressor=snappy"
                                                   : "key_format=u,value_format=u");
        (void)session->close(session, NULL);
    }
    if (error != 0) {
        (void)owner->connection->close(owner->connection, NULL);
        free(owner);
        return wired_result("create", error);
    }
    *db_out = owner;
    return BENCH_OK;
}

static int
wired_close(void *db)
{
    struct wired_db *owner = db;
    int error = owner->connection->close(owner->connection, NULL);
    free(owner);
    return wired_result("close", error);
}

static int
wired_session_make(struct wired_db *owner, struct wired_session **out)
{
    struct wired_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return bench_complain("out of memory");
    }
    session->owner = owner;
    int error = owner->connection->open_session(owner->connection, NULL, NULL, &session->session);
    if (error == 0) {
        error = session->session->open_cursor(session->session, "table:bench", NULL, NULL, &session->cursor);
        if (error != 0) {
            (void)session->session->close(session->session, NULL);
        }
    }
    if (error != 0) {
        free(session);
        return wired_result("open_session", error);
    }
    *out = session;
    return BENCH_OK;
}

static int
wired_session_open(void *db, void **session_out)
{
    struct wired_session *session = NULL;
    int result = wired_session_make(db, &session);
    if (result == BENCH_OK) {
        *session_out = session;
    }
    return result;
}

static void
wired_session_close(void *handle)
{
    struct wired_session *session = handle;
    (void)session->session->close(session->session, NULL);
    free(session);
}

static int
wired_put(void *handle, struct bytes key, struct bytes value)
{
    WT_CURSOR *cursor = ((struct wired_session *)handle)->cursor;
    WT_ITEM key_item = {.data = key.ptr, .size = key.len};
    WT_ITEM value_item = {.data = value.ptr, .size = value.len};
    int error;
    do {
        cursor->set_key(cursor, &key_item);
        cursor->set_value(cursor, &value_item);
        error = cursor->insert(cursor);
    } while (error == WT_ROLLBACK);
    return wired_result("insert", error);
}

static int
wired_remove(void *handle, struct bytes key)
{
    WT_CURSOR *cursor = ((struct wired_session *)handle)->cursor;
    WT_ITEM item = {.data = key.ptr, .size = key.len};
    int error;
    do {
        cursor->set_key(cursor, &item);
        error = cursor->remove(cursor);
    } while (error == WT_ROLLBACK);
    /* A remove leaves the cursor where the row was, which pins its page. */
    (void)cursor->reset(cursor);
    return wired_result("remove", error == WT_NOTFOUND ? 0 : error);
}

static int
wired_batch_once(struct wired_session *session, const struct bench_write *writes, size_t count)
{
    WT_CURSOR *cursor = session->cursor;
    int error = session->session->begin_transaction(session->session, NULL);
    for (size_t i = 0; error == 0 && i < count; i++) {
        WT_ITEM key = {.data = writes[i].key.ptr, .size = writes[i].key.len};
        WT_ITEM value = {.data = writes[i].value.ptr, .size = writes[i].value.len};
        cursor->set_key(cursor, &key);
        if (writes[i].remove) {
            error = cursor->remove(cursor);
            error = error == WT_NOTFOUND ? 0 : error;
        } else {
            cursor->set_value(cursor, &value);
            error = cursor->insert(cursor);
        }
    }
    if (error == 0) {
        return session->session->commit_transaction(session->session, NULL);
    }
    (void)session->session->rollback_transaction(session->session, NULL);
    return error;
}

static int
wired_batch(void *handle, const struct bench_write *writes, size_t count)
{
    int error;
    do {
        error = wired_batch_once(handle, writes, count);
    } while (error == WT_ROLLBACK);
    return wired_result("commit_transaction", error);
}

static int
wired_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    WT_CURSOR *cursor = ((struct wired_session *)(snapshot != NULL ? snapshot : handle))->cursor;
    WT_ITEM item = {.data = key.ptr, .size = key.len};
    cursor->set_key(cursor, &item);
    int error = cursor->search(cursor);
    if (error == 0) {
        error = cursor->get_value(cursor, &item);
    }
    if (error == 0) {
        memcpy(buf, item.data, MIN(item.size, cap));
        *size_out = item.size;
        error = cursor->reset(cursor);
    }
    return error == WT_NOTFOUND ? BENCH_NONE : wired_result("search", error);
}

static int
wired_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    WT_CURSOR *cursor = ((struct wired_session *)handle)->cursor;
    WT_ITEM item = {.data = key.ptr, .size = key.len};
    cursor->set_key(cursor, &item);
    int error = cursor->search(cursor);
    if (error == 0) {
        error = cursor->get_value(cursor, &item);
    }
    if (error == 0) {
        *good_out = look(arg, bytes_make(item.data, item.size));
        error = cursor->reset(cursor);
    }
    return error == WT_NOTFOUND ? BENCH_NONE : wired_result("search", error);
}

static int
wired_snapshot_open(void *handle, void **snapshot_out)
{
    struct wired_session *snapshot = NULL;
    if (wired_session_make(((struct wired_session *)handle)->owner, &snapshot) != BENCH_OK) {
        return BENCH_FAILED;
    }
    int error = snapshot->session->begin_transaction(snapshot->session, "isolation=snapshot");
    if (error != 0) {
        wired_session_close(snapshot);
        return wired_result("begin_transaction", error);
    }
    *snapshot_out = snapshot;
    return BENCH_OK;
}

static void
wired_snapshot_close(void *session, void *snapshot)
{
    (void)session;
    wired_session_close(snapshot);
}

static int
wired_iter_open(void *handle, void *snapshot, void **iter_out)
{
    struct wired_session *session = snapshot != NULL ? snapshot : handle;
    struct wired_iter *iter = calloc(1, sizeof *iter);
    if (iter == NULL) {
        return bench_complain("out of memory");
    }
    iter->cursor = session->cursor;
    if (snapshot == NULL) {
        iter->session = session->session;
        int error = iter->session->begin_transaction(iter->session, "isolation=snapshot");
        if (error != 0) {
            free(iter);
            return wired_result("begin_transaction", error);
        }
    }
    *iter_out = iter;
    return BENCH_OK;
}

static int
wired_iter_seek(WT_CURSOR *cursor, struct bytes key)
{
    WT_ITEM item = {.data = key.ptr, .size = key.len};
    int order = 0;
    cursor->set_key(cursor, &item);
    int error = cursor->search_near(cursor, &order);
    return error == 0 && order < 0 ? cursor->next(cursor) : error;
}

static int
wired_iter_step(void *handle, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    WT_CURSOR *cursor = ((struct wired_iter *)handle)->cursor;
    int error = 0;
    if (step == BENCH_FIRST || step == BENCH_LAST) {
        error = cursor->reset(cursor);
    }
    if (error == 0 && step == BENCH_SEEK) {
        error = wired_iter_seek(cursor, key);
    } else if (error == 0) {
        error = step == BENCH_NEXT || step == BENCH_FIRST ? cursor->next(cursor) : cursor->prev(cursor);
    }
    if (error != 0) {
        return error == WT_NOTFOUND ? BENCH_NONE : wired_result("cursor", error);
    }
    WT_ITEM key_item, value_item;
    error = cursor->get_key(cursor, &key_item);
    error = error != 0 ? error : cursor->get_value(cursor, &value_item);
    if (error != 0) {
        return wired_result("get_key", error);
    }
    row_out->key = bytes_make(key_item.data, key_item.size);
    row_out->value = bytes_make(value_item.data, value_item.size);
    return BENCH_OK;
}

static void
wired_iter_close(void *handle)
{
    struct wired_iter *iter = handle;
    (void)iter->cursor->reset(iter->cursor);
    if (iter->session != NULL) {
        (void)iter->session->rollback_transaction(iter->session, NULL);
    }
    free(iter);
}

static int
wired_maintain(struct wired_db *owner, bool compact)
{
    WT_SESSION *session = NULL;
    int error = owner->connection->open_session(owner->connection, NULL, NULL, &session);
    if (error != 0) {
        return wired_result("open_session", error);
    }
    error = session->checkpoint(session, NULL);
    if (error == 0 && compact) {
        error = session->compact(session, "table:bench", "timeout=0");
    }
    (void)session->close(session, NULL);
    return wired_result(compact ? "compact" : "checkpoint", error);
}

static int
wired_flush(void *db)
{
    return wired_maintain(db, false);
}

static int
wired_compact(void *db)
{
    return wired_maintain(db, true);
}

const struct bench_engine bench_engine_wiredtiger = {
    .name = "wiredtiger",
    .snapshots_max = 2000,
    .version = wired_version,
    .settings = wired_settings,
    .open = wired_open,
    .close = wired_close,
    .session_open = wired_session_open,
    .session_close = wired_session_close,
    .put = wired_put,
    .remove = wired_remove,
    .batch = wired_batch,
    .get = wired_get,
    .look = wired_look,
    .snapshot_open = wired_snapshot_open,
    .snapshot_close = wired_snapshot_close,
    .iter_open = wired_iter_open,
    .iter_step = wired_iter_step,
    .iter_close = wired_iter_close,
    .flush = wired_flush,
    .compact = wired_compact,
};
