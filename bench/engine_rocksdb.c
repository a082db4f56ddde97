/* SPDX-License-Identifier: MIT */
/* RocksDB through its C interface. Of the budget, what two write buffers leave is
 * the block cache; where the budget must hold, filters and indexes live in the
 * block cache too. */
#include "engines.h"

#include <stdio.h>
#include <stdlib.h>

#include <rocksdb/c.h>

struct rocks_db {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_writeoptions_t *write_options;
    rocksdb_readoptions_t *read_options;
    rocksdb_cache_t *cache;
};

struct rocks_session {
    struct rocks_db *owner;
    rocksdb_writebatch_t *batch;
};

struct rocks_snapshot {
    const rocksdb_snapshot_t *snapshot;
    rocksdb_readoptions_t *options;
};

/* Releases the sentence; returns BENCH_OK when there is none. */
static int
rocks_result(const char *call, char *sentence)
{
    if (LIKELY(sentence == NULL)) {
        return BENCH_OK;
    }
    int result = bench_complain("%s: %.180s", call, sentence);
    rocksdb_free(sentence);
    return result;
}

static void
rocks_version(char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s", BENCH_ROCKSDB_VERSION);
}

static void
rocks_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap,
                   "2 write buffers of %.1f MiB, block cache %.1f MiB, bloom 10 bits, %s, "
                   "max_background_jobs 2, sync=%d; the rest as shipped",
                   (double)setup->write_buffer_bytes / 1048576.0,
                   (double)(setup->memory_bytes - 2 * setup->write_buffer_bytes) / 1048576.0,
                   setup->codec == BENCH_CODEC_NONE ? "no compression" : "lz4", setup->level == BENCH_SYNC);
}

static rocksdb_options_t *
rocks_options(const struct bench_setup *setup, rocksdb_cache_t *cache)
{
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(table, cache);
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(options, table);
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_write_buffer_size(options, setup->write_buffer_bytes);
    rocksdb_options_set_max_write_buffer_number(options, 2);
    rocksdb_options_set_compression(options, setup->codec == BENCH_CODEC_NONE ? rocksdb_no_compression
                                                                              : rocksdb_lz4_compression);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_info_log_level(options, 3);
    return options;
}

static void
rocks_free(struct rocks_db *owner)
{
    rocksdb_options_destroy(owner->options);
    rocksdb_writeoptions_destroy(owner->write_options);
    rocksdb_readoptions_destroy(owner->read_options);
    rocksdb_cache_destroy(owner->cache);
    free(owner);
}

static int
rocks_open(const struct bench_setup *setup, void **db_out)
{
    struct rocks_db *owner = calloc(1, sizeof *owner);
    if (owner == NULL) {
        return bench_complain("out of memory");
    }
    owner->cache = rocksdb_cache_create_lru(setup->memory_bytes - 2 * setup->write_buffer_bytes);
    owner->options = rocks_options(setup, owner->cache);
    owner->write_options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(owner->write_options, setup->level == BENCH_SYNC);
    owner->read_options = rocksdb_readoptions_create();
    char *sentence = NULL;
    owner->db = rocksdb_open(owner->options, setup->dir, &sentence);
    if (sentence != NULL) {
        rocks_free(owner);
        return rocks_result("rocksdb_open", sentence);
    }
    *db_out = owner;
    return BENCH_OK;
}

static int
rocks_close(void *db)
{
    struct rocks_db *owner = db;
    rocksdb_close(owner->db);
    rocks_free(owner);
    return BENCH_OK;
}

static int
rocks_session_open(void *db, void **session_out)
{
    struct rocks_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return bench_complain("out of memory");
    }
    session->owner = db;
    session->batch = rocksdb_writebatch_create();
    *session_out = session;
    return BENCH_OK;
}

static void
rocks_session_close(void *handle)
{
    struct rocks_session *session = handle;
    rocksdb_writebatch_destroy(session->batch);
    free(session);
}

static int
rocks_put(void *handle, struct bytes key, struct bytes value)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    char *sentence = NULL;
    rocksdb_put(owner->db, owner->write_options, (const char *)key.ptr, key.len, (const char *)value.ptr,
                value.len, &sentence);
    return rocks_result("rocksdb_put", sentence);
}

static int
rocks_remove(void *handle, struct bytes key)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    char *sentence = NULL;
    rocksdb_delete(owner->db, owner->write_options, (const char *)key.ptr, key.len, &sentence);
    return rocks_result("rocksdb_delete", sentence);
}

static int
rocks_batch(void *handle, const struct bench_write *writes, size_t count)
{
    struct rocks_session *session = handle;
    rocksdb_writebatch_clear(session->batch);
    for (size_t i = 0; i < count; i++) {
        const char *key = (const char *)writes[i].key.ptr;
        if (writes[i].remove) {
            rocksdb_writebatch_delete(session->batch, key, writes[i].key.len);
        } else {
            rocksdb_writebatch_put(session->batch, key, writes[i].key.len, (const char *)writes[i].value.ptr,
                                   writes[i].value.len);
        }
    }
    char *sentence = NULL;
    rocksdb_write(session->owner->db, session->owner->write_options, session->batch, &sentence);
    return rocks_result("rocksdb_write", sentence);
}

static int
rocks_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    const rocksdb_readoptions_t *options =
        snapshot == NULL ? owner->read_options : ((struct rocks_snapshot *)snapshot)->options;
    char *sentence = NULL;
    /* A pinned slice saves RocksDB the allocation that rocksdb_get would make. */
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned(owner->db, options, (const char *)key.ptr, key.len, &sentence);
    if (sentence != NULL) {
        return rocks_result("rocksdb_get_pinned", sentence);
    }
    if (slice == NULL) {
        return BENCH_NONE;
    }
    size_t size = 0;
    const char *value = rocksdb_pinnableslice_value(slice, &size);
    memcpy(buf, value, MIN(size, cap));
    *size_out = size;
    rocksdb_pinnableslice_destroy(slice);
    return BENCH_OK;
}

static int
rocks_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    char *sentence = NULL;
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned(owner->db, owner->read_options, (const char *)key.ptr, key.len, &sentence);
    if (sentence != NULL) {
        return rocks_result("rocksdb_get_pinned", sentence);
    }
    if (slice == NULL) {
        return BENCH_NONE;
    }
    size_t size = 0;
    const char *value = rocksdb_pinnableslice_value(slice, &size);
    *good_out = look(arg, bytes_make(value, size));
    rocksdb_pinnableslice_destroy(slice);
    return BENCH_OK;
}

static int
rocks_get_many(void *handle, const struct bytes *keys, size_t count, bench_each_fn *each, void *arg,
               bool *good_out)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    const char *names[BENCH_MANY_MAX] = {0};
    char *values[BENCH_MANY_MAX];
    size_t sizes[BENCH_MANY_MAX] = {0};
    size_t lengths[BENCH_MANY_MAX];
    char *sentences[BENCH_MANY_MAX];
    int answer = BENCH_OK;
    if (count == 0 || count > BENCH_MANY_MAX) {
        return bench_complain("%zu keys at once", count);
    }
    for (size_t i = 0; i < count; i++) {
        names[i] = (const char *)keys[i].ptr;
        sizes[i] = keys[i].len;
    }
    rocksdb_multi_get(owner->db, owner->read_options, count, names, sizes, values, lengths, sentences);
    *good_out = true;
    for (size_t i = 0; i < count; i++) {
        if (sentences[i] != NULL) {
            answer = rocks_result("rocksdb_multi_get", sentences[i]);
        } else if (values[i] != NULL) {
            *good_out = each(arg, i, bytes_make((const uint8_t *)values[i], lengths[i])) && *good_out;
            rocksdb_free(values[i]);
        } else if (answer == BENCH_OK) {
            answer = BENCH_NONE;
        }
    }
    return answer;
}

static int
rocks_snapshot_open(void *handle, void **snapshot_out)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    struct rocks_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (snapshot == NULL) {
        return bench_complain("out of memory");
    }
    snapshot->snapshot = rocksdb_create_snapshot(owner->db);
    snapshot->options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_snapshot(snapshot->options, snapshot->snapshot);
    *snapshot_out = snapshot;
    return BENCH_OK;
}

static void
rocks_snapshot_close(void *handle, void *snapshot)
{
    struct rocks_snapshot *held = snapshot;
    rocksdb_readoptions_destroy(held->options);
    rocksdb_release_snapshot(((struct rocks_session *)handle)->owner->db, held->snapshot);
    free(held);
}

static int
rocks_iter_open(void *handle, void *snapshot, void **iter_out)
{
    struct rocks_db *owner = ((struct rocks_session *)handle)->owner;
    const rocksdb_readoptions_t *options =
        snapshot == NULL ? owner->read_options : ((struct rocks_snapshot *)snapshot)->options;
    *iter_out = rocksdb_create_iterator(owner->db, options);
    return BENCH_OK;
}

static int
rocks_iter_step(void *iter, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    switch (step) {
    case BENCH_NEXT:
        rocksdb_iter_next(iter);
        break;
    case BENCH_PREV:
        rocksdb_iter_prev(iter);
        break;
    case BENCH_SEEK:
        rocksdb_iter_seek(iter, (const char *)key.ptr, key.len);
        break;
    case BENCH_FIRST:
        rocksdb_iter_seek_to_first(iter);
        break;
    case BENCH_LAST:
        rocksdb_iter_seek_to_last(iter);
        break;
    }
    if (!rocksdb_iter_valid(iter)) {
        char *sentence = NULL;
        rocksdb_iter_get_error(iter, &sentence);
        return sentence == NULL ? BENCH_NONE : rocks_result("rocksdb_iter", sentence);
    }
    row_out->key.ptr = (const uint8_t *)rocksdb_iter_key(iter, &row_out->key.len);
    row_out->value.ptr = (const uint8_t *)rocksdb_iter_value(iter, &row_out->value.len);
    return BENCH_OK;
}

static void
rocks_iter_close(void *iter)
{
    rocksdb_iter_destroy(iter);
}

static int
rocks_flush(void *db)
{
    struct rocks_db *owner = db;
    char *sentence = NULL;
    rocksdb_flushoptions_t *options = rocksdb_flushoptions_create();
    rocksdb_flush(owner->db, options, &sentence);
    rocksdb_flushoptions_destroy(options);
    return rocks_result("rocksdb_flush", sentence);
}

static int
rocks_compact(void *db)
{
    struct rocks_db *owner = db;
    rocksdb_compact_range(owner->db, NULL, 0, NULL, 0);
    return BENCH_OK;
}

const struct bench_engine bench_engine_rocksdb = {
    .name = "rocksdb",
    .snapshots_max = UINT32_MAX,
    .version = rocks_version,
    .settings = rocks_settings,
    .open = rocks_open,
    .close = rocks_close,
    .session_open = rocks_session_open,
    .session_close = rocks_session_close,
    .put = rocks_put,
    .remove = rocks_remove,
    .batch = rocks_batch,
    .get = rocks_get,
    .look = rocks_look,
    .get_many = rocks_get_many,
    .snapshot_open = rocks_snapshot_open,
    .snapshot_close = rocks_snapshot_close,
    .iter_open = rocks_iter_open,
    .iter_step = rocks_iter_step,
    .iter_close = rocks_iter_close,
    .flush = rocks_flush,
    .compact = rocks_compact,
    .merges_runs = true,
};
