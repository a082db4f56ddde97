/* SPDX-License-Identifier: MIT */
/* LevelDB through its C interface. Of the budget, what two write buffers leave is
 * the block cache. It has one background thread and knows no compression but
 * snappy. */
#include "engines.h"

#include <stdio.h>
#include <stdlib.h>

#include <leveldb/c.h>

struct level_db {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_writeoptions_t *write_options;
    leveldb_readoptions_t *read_options;
    leveldb_cache_t *cache;
    leveldb_filterpolicy_t *filter;
};

struct level_session {
    struct level_db *owner;
    leveldb_writebatch_t *batch;
};

struct level_snapshot {
    const leveldb_snapshot_t *snapshot;
    leveldb_readoptions_t *options;
};

/* Releases the sentence; returns BENCH_OK when there is none. */
static int
level_result(const char *call, char *sentence)
{
    if (LIKELY(sentence == NULL)) {
        return BENCH_OK;
    }
    int result = bench_complain("%s: %.180s", call, sentence);
    leveldb_free(sentence);
    return result;
}

static void
level_version(char *out, size_t cap)
{
    (void)snprintf(out, cap, "%d.%d", leveldb_major_version(), leveldb_minor_version());
}

static void
level_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap,
                   "write buffer %.1f MiB (up to 2), block cache %.1f MiB, bloom 10 bits, %s, sync=%d; "
                   "the rest as shipped",
                   (double)setup->write_buffer_bytes / 1048576.0,
                   (double)(setup->memory_bytes - 2 * setup->write_buffer_bytes) / 1048576.0,
                   setup->codec == BENCH_CODEC_NONE ? "no compression" : "snappy",
                   setup->level == BENCH_SYNC);
}

static void
level_free(struct level_db *owner)
{
    leveldb_options_destroy(owner->options);
    leveldb_writeoptions_destroy(owner->write_options);
    leveldb_readoptions_destroy(owner->read_options);
    leveldb_cache_destroy(owner->cache);
    leveldb_filterpolicy_destroy(owner->filter);
    free(owner);
}

static int
level_open(const struct bench_setup *setup, void **db_out)
{
    struct level_db *owner = calloc(1, sizeof *owner);
    if (owner == NULL) {
        return bench_complain("out of memory");
    }
    owner->cache = leveldb_cache_create_lru(setup->memory_bytes - 2 * setup->write_buffer_bytes);
    owner->filter = leveldb_filterpolicy_create_bloom(10);
    owner->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(owner->options, 1);
    leveldb_options_set_cache(owner->options, owner->cache);
    leveldb_options_set_filter_policy(owner->options, owner->filter);
    leveldb_options_set_write_buffer_size(owner->options, setup->write_buffer_bytes);
    leveldb_options_set_compression(owner->options, setup->codec == BENCH_CODEC_NONE
                                                        ? leveldb_no_compression
                                                        : leveldb_snappy_compression);
    owner->write_options = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(owner->write_options, setup->level == BENCH_SYNC);
    owner->read_options = leveldb_readoptions_create();
    char *sentence = NULL;
    owner->db = leveldb_open(owner->options, setup->dir, &sentence);
    if (sentence != NULL) {
        level_free(owner);
        return level_result("leveldb_open", sentence);
    }
    *db_out = owner;
    return BENCH_OK;
}

static int
level_close(void *db)
{
    struct level_db *owner = db;
    leveldb_close(owner->db);
    level_free(owner);
    return BENCH_OK;
}

static int
level_session_open(void *db, void **session_out)
{
    struct level_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return bench_complain("out of memory");
    }
    session->owner = db;
    session->batch = leveldb_writebatch_create();
    *session_out = session;
    return BENCH_OK;
}

static void
level_session_close(void *handle)
{
    struct level_session *session = handle;
    leveldb_writebatch_destroy(session->batch);
    free(session);
}

static int
level_put(void *handle, struct bytes key, struct bytes value)
{
    struct level_db *owner = ((struct level_session *)handle)->owner;
    char *sentence = NULL;
    leveldb_put(owner->db, owner->write_options, (const char *)key.ptr, key.len, (const char *)value.ptr,
                value.len, &sentence);
    return level_result("leveldb_put", sentence);
}

static int
level_remove(void *handle, struct bytes key)
{
    struct level_db *owner = ((struct level_session *)handle)->owner;
    char *sentence = NULL;
    leveldb_delete(owner->db, owner->write_options, (const char *)key.ptr, key.len, &sentence);
    return level_result("leveldb_delete", sentence);
}

static int
level_batch(void *handle, const struct bench_write *writes, size_t count)
{
    struct level_session *session = handle;
    leveldb_writebatch_clear(session->batch);
    for (size_t i = 0; i < count; i++) {
        const char *key = (const char *)writes[i].key.ptr;
        if (writes[i].remove) {
            leveldb_writebatch_delete(session->batch, key, writes[i].key.len);
        } else {
            leveldb_writebatch_put(session->batch, key, writes[i].key.len, (const char *)writes[i].value.ptr,
                                   writes[i].value.len);
        }
    }
    char *sentence = NULL;
    leveldb_write(session->owner->db, session->owner->write_options, session->batch, &sentence);
    return level_result("leveldb_write", sentence);
}

static int
level_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    struct level_db *owner = ((struct level_session *)handle)->owner;
    const leveldb_readoptions_t *options =
        snapshot == NULL ? owner->read_options : ((struct level_snapshot *)snapshot)->options;
    char *sentence = NULL;
    size_t size = 0;
    char *value = leveldb_get(owner->db, options, (const char *)key.ptr, key.len, &size, &sentence);
    if (sentence != NULL) {
        return level_result("leveldb_get", sentence);
    }
    if (value == NULL) {
        return BENCH_NONE;
    }
    memcpy(buf, value, MIN(size, cap));
    *size_out = size;
    leveldb_free(value);
    return BENCH_OK;
}

/* There is nothing without a copy: leveldb_get makes one of its own. */
static int
level_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    struct level_db *owner = ((struct level_session *)handle)->owner;
    char *sentence = NULL;
    size_t size = 0;
    char *value =
        leveldb_get(owner->db, owner->read_options, (const char *)key.ptr, key.len, &size, &sentence);
    if (sentence != NULL) {
        return level_result("leveldb_get", sentence);
    }
    if (value == NULL) {
        return BENCH_NONE;
    }
    *good_out = look(arg, bytes_make(value, size));
    leveldb_free(value);
    return BENCH_OK;
}

static int
level_snapshot_open(void *handle, void **snapshot_out)
{
    struct level_db *owner = ((struct level_session *)handle)->owner;
    struct level_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (snapshot == NULL) {
        return bench_complain("out of memory");
    }
    snapshot->snapshot = leveldb_create_snapshot(owner->db);
    snapshot->options = leveldb_readoptions_create();
    leveldb_readoptions_set_snapshot(snapshot->options, snapshot->snapshot);
    *snapshot_out = snapshot;
    return BENCH_OK;
}

static void
level_snapshot_close(void *handle, void *snapshot)
{
    struct level_snapshot *held = snapshot;
    leveldb_readoptions_destroy(held->options);
    leveldb_release_snapshot(((struct level_session *)handle)->owner->db, held->snapshot);
    free(held);
}

static int
level_iter_open(void *handle, void *snapshot, void **iter_out)
{
    struct level_db *owner = ((struct level_session *)handle)->owner;
    const leveldb_readoptions_t *options =
        snapshot == NULL ? owner->read_options : ((struct level_snapshot *)snapshot)->options;
    *iter_out = leveldb_create_iterator(owner->db, options);
    return BENCH_OK;
}

static int
level_iter_step(void *iter, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    switch (step) {
    case BENCH_NEXT:
        leveldb_iter_next(iter);
        break;
    case BENCH_PREV:
        leveldb_iter_prev(iter);
        break;
    case BENCH_SEEK:
        leveldb_iter_seek(iter, (const char *)key.ptr, key.len);
        break;
    case BENCH_FIRST:
        leveldb_iter_seek_to_first(iter);
        break;
    case BENCH_LAST:
        leveldb_iter_seek_to_last(iter);
        break;
    }
    if (!leveldb_iter_valid(iter)) {
        char *sentence = NULL;
        leveldb_iter_get_error(iter, &sentence);
        return sentence == NULL ? BENCH_NONE : level_result("leveldb_iter", sentence);
    }
    row_out->key.ptr = (const uint8_t *)leveldb_iter_key(iter, &row_out->key.len);
    row_out->value.ptr = (const uint8_t *)leveldb_iter_value(iter, &row_out->value.len);
    return BENCH_OK;
}

static void
level_iter_close(void *iter)
{
    leveldb_iter_destroy(iter);
}

/* There is no call for it; a compaction of an empty range begins with one. */
static int
level_flush(void *db)
{
    struct level_db *owner = db;
    leveldb_compact_range(owner->db, "", 0, "", 0);
    return BENCH_OK;
}

static int
level_compact(void *db)
{
    struct level_db *owner = db;
    leveldb_compact_range(owner->db, NULL, 0, NULL, 0);
    return BENCH_OK;
}

const struct bench_engine bench_engine_leveldb = {
    .name = "leveldb",
    .snapshots_max = UINT32_MAX,
    .version = level_version,
    .settings = level_settings,
    .open = level_open,
    .close = level_close,
    .session_open = level_session_open,
    .session_close = level_session_close,
    .put = level_put,
    .remove = level_remove,
    .batch = level_batch,
    .get = level_get,
    .look = level_look,
    .snapshot_open = level_snapshot_open,
    .snapshot_close = level_snapshot_close,
    .iter_open = level_iter_open,
    .iter_step = level_iter_step,
    .iter_close = level_iter_close,
    .flush = level_flush,
    .compact = level_compact,
    .merges_runs = true,
};
