/* SPDX-License-Identifier: MIT */
/* esker behind the benchmark's interface, by its public header alone. */
#include "tools/bench_engine.h"

#include <stdio.h>
#include <stdlib.h>

#include "esker/esker.h"

const char *bench_engine_esker_options;

/* A session is the database with a batch to reuse. */
struct engine_session {
    esker_db *db;
    esker_batch *batch;
};

static int
engine_esker_say(const char *call)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    return bench_complain("%s: %s %s", call, esker_status_name(error.status), error.message);
}

static void
engine_esker_version(char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s", ESKER_VERSION_STRING);
}

static void
engine_esker_settings(const struct bench_setup *setup, char *out, size_t cap)
{
    (void)snprintf(out, cap, "memory=%.1f MiB; durability=%s; %s%sthe rest as shipped",
                   (double)setup->memory_bytes / 1048576.0, setup->level == BENCH_SYNC ? "sync" : "process",
                   bench_engine_esker_options != NULL ? bench_engine_esker_options : "",
                   bench_engine_esker_options != NULL ? "; " : "");
}

static int
engine_esker_open(const struct bench_setup *setup, void **db_out)
{
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = setup->memory_bytes;
    options.durability = setup->level == BENCH_SYNC ? ESKER_DURABLE_SYNC : ESKER_DURABLE_PROCESS;
    if (setup->codec != BENCH_CODEC_USUAL) {
        options.compression = setup->codec == BENCH_CODEC_NONE ? ESKER_COMPRESS_NONE : ESKER_COMPRESS_LZ4;
    }
    if (bench_engine_esker_options != NULL &&
        esker_options_parse(&options, bench_engine_esker_options) != ESKER_OK) {
        return engine_esker_say("options");
    }
    esker_db *db = NULL;
    if (esker_open(setup->dir, &options, &db) != ESKER_OK) {
        return engine_esker_say("esker_open");
    }
    *db_out = db;
    return BENCH_OK;
}

static int
engine_esker_close(void *db)
{
    return esker_close(db) == ESKER_OK ? BENCH_OK : engine_esker_say("esker_close");
}

static int
engine_esker_session_open(void *db, void **session_out)
{
    struct engine_session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return bench_complain("out of memory");
    }
    session->db = db;
    if (esker_batch_create(&session->batch) != ESKER_OK) {
        free(session);
        return engine_esker_say("esker_batch_create");
    }
    *session_out = session;
    return BENCH_OK;
}

static void
engine_esker_session_close(void *handle)
{
    struct engine_session *session = handle;
    esker_batch_destroy(session->batch);
    free(session);
}

static int
engine_esker_put(void *handle, struct bytes key, struct bytes value)
{
    struct engine_session *session = handle;
    esker_status status = esker_put(session->db, bytes_to_slice(key), bytes_to_slice(value), NULL);
    return status == ESKER_OK ? BENCH_OK : engine_esker_say("esker_put");
}

static int
engine_esker_remove(void *handle, struct bytes key)
{
    struct engine_session *session = handle;
    esker_status status = esker_delete(session->db, bytes_to_slice(key), NULL);
    return status == ESKER_OK ? BENCH_OK : engine_esker_say("esker_delete");
}

static int
engine_esker_batch(void *handle, const struct bench_write *writes, size_t count)
{
    struct engine_session *session = handle;
    esker_batch_clear(session->batch);
    for (size_t i = 0; i < count; i++) {
        esker_slice key = bytes_to_slice(writes[i].key);
        esker_status status = writes[i].remove
                                  ? esker_batch_delete(session->batch, key)
                                  : esker_batch_put(session->batch, key, bytes_to_slice(writes[i].value));
        if (status != ESKER_OK) {
            return engine_esker_say("esker_batch_put");
        }
    }
    esker_status status = esker_write(session->db, session->batch, NULL, NULL);
    return status == ESKER_OK ? BENCH_OK : engine_esker_say("esker_write");
}

static int
engine_esker_get(void *handle, void *snapshot, struct bytes key, void *buf, size_t cap, size_t *size_out)
{
    struct engine_session *session = handle;
    esker_status status;
    if (snapshot == NULL) {
        status = esker_get_copy(session->db, bytes_to_slice(key), NULL, buf, cap, size_out);
    } else {
        esker_read_options options;
        esker_read_options_init(&options);
        options.snapshot = snapshot;
        status = esker_get_copy(session->db, bytes_to_slice(key), &options, buf, cap, size_out);
    }
    if (LIKELY(status == ESKER_OK)) {
        return BENCH_OK;
    }
    return status == ESKER_NOT_FOUND ? BENCH_NONE : engine_esker_say("esker_get_copy");
}

static int
engine_esker_look(void *handle, struct bytes key, bench_look_fn *look, void *arg, bool *good_out)
{
    struct engine_session *session = handle;
    esker_value value;
    esker_status status = esker_get(session->db, bytes_to_slice(key), NULL, &value);
    if (status != ESKER_OK) {
        return status == ESKER_NOT_FOUND ? BENCH_NONE : engine_esker_say("esker_get");
    }
    *good_out = look(arg, bytes_make(value.data, value.size));
    esker_value_release(&value);
    return BENCH_OK;
}

static int
engine_esker_get_many(void *handle, const struct bytes *keys, size_t count, bench_each_fn *each, void *arg,
                      bool *good_out)
{
    struct engine_session *session = handle;
    esker_slice slices[BENCH_MANY_MAX] = {0};
    esker_value values[BENCH_MANY_MAX];
    esker_status statuses[BENCH_MANY_MAX];
    int answer = BENCH_OK;
    if (count == 0 || count > BENCH_MANY_MAX) {
        return bench_complain("%zu keys at once", count);
    }
    for (size_t i = 0; i < count; i++) {
        slices[i] = bytes_to_slice(keys[i]);
    }
    if (esker_multi_get(session->db, count, slices, NULL, values, statuses) != ESKER_OK) {
        answer = engine_esker_say("esker_multi_get");
    }
    *good_out = true;
    for (size_t i = 0; i < count; i++) {
        if (statuses[i] == ESKER_OK) {
            *good_out = each(arg, i, bytes_make(values[i].data, values[i].size)) && *good_out;
            esker_value_release(&values[i]);
        } else if (answer == BENCH_OK) {
            answer = BENCH_NONE;
        }
    }
    return answer;
}

static int
engine_esker_snapshot_open(void *handle, void **snapshot_out)
{
    struct engine_session *session = handle;
    esker_snapshot *snapshot = NULL;
    if (esker_snapshot_create(session->db, &snapshot) != ESKER_OK) {
        return engine_esker_say("esker_snapshot_create");
    }
    *snapshot_out = snapshot;
    return BENCH_OK;
}

static void
engine_esker_snapshot_close(void *session, void *snapshot)
{
    (void)session;
    esker_snapshot_release(snapshot);
}

static int
engine_esker_iter_open(void *handle, void *snapshot, void **iter_out)
{
    struct engine_session *session = handle;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_iter *iter = NULL;
    if (esker_iter_create(session->db, &options, &iter) != ESKER_OK) {
        return engine_esker_say("esker_iter_create");
    }
    *iter_out = iter;
    return BENCH_OK;
}

static int
engine_esker_iter_step(void *iter, enum bench_step step, struct bytes key, struct bench_row *row_out)
{
    esker_status status = ESKER_INVALID;
    switch (step) {
    case BENCH_NEXT:
        status = esker_iter_next(iter);
        break;
    case BENCH_PREV:
        status = esker_iter_prev(iter);
        break;
    case BENCH_SEEK:
        status = esker_iter_seek(iter, bytes_to_slice(key));
        break;
    case BENCH_FIRST:
        status = esker_iter_first(iter);
        break;
    case BENCH_LAST:
        status = esker_iter_last(iter);
        break;
    }
    if (UNLIKELY(status != ESKER_OK)) {
        return status == ESKER_END ? BENCH_NONE : engine_esker_say("esker_iter");
    }
    esker_slice value;
    if (UNLIKELY(esker_iter_value(iter, &value) != ESKER_OK)) {
        return engine_esker_say("esker_iter_value");
    }
    row_out->key = bytes_of_slice(esker_iter_key(iter));
    row_out->value = bytes_of_slice(value);
    return BENCH_OK;
}

static void
engine_esker_iter_close(void *iter)
{
    esker_iter_destroy(iter);
}

static int
engine_esker_flush(void *db)
{
    return esker_flush(db) == ESKER_OK ? BENCH_OK : engine_esker_say("esker_flush");
}

static int
engine_esker_compact(void *db)
{
    return esker_compact(db, NULL, NULL) == ESKER_OK ? BENCH_OK : engine_esker_say("esker_compact");
}

static void
engine_esker_tell(void *db, bench_tell_fn *tell, void *arg)
{
    esker_stats stats;
    esker_stats_init(&stats);
    if (esker_get_stats(db, &stats) != ESKER_OK) {
        return;
    }
    static const char *const names[ESKER_STEPS] = {"step_us_choose", "step_us_open", "step_us_rows",
                                                   "step_us_end",    "step_us_sync", "step_us_install"};
    uint64_t steps = 0;
    uint64_t cpu_ns = 0;
    uint64_t longest_ns = 0;
    for (int i = 0; i < ESKER_STEPS; i++) {
        steps += stats.step_count[i];
        cpu_ns += stats.step_cpu_ns[i];
        longest_ns = MAX(longest_ns, stats.step_cpu_longest_ns[i]);
        tell(arg, names[i], (double)stats.step_cpu_longest_ns[i] / 1e3); /* the longest */
    }
    uint64_t short_ones = 0; /* less than 2 ms */
    for (int i = 0; i < 6; i++) {
        short_ones += stats.steps_by_cpu[i];
    }
    tell(arg, "steps", (double)steps);
    tell(arg, "steps_over_2ms", (double)(steps - MIN(short_ones, steps)));
    tell(arg, "step_us_mean", (double)cpu_ns / 1e3 / (double)MAX(steps, 1u));
    tell(arg, "step_us_longest", (double)longest_ns / 1e3);
    tell(arg, "merge_debt_bytes", (double)stats.debt_bytes);
}

const struct bench_engine bench_engine_esker = {
    .name = "esker",
    .snapshots_max = UINT32_MAX,
    .version = engine_esker_version,
    .settings = engine_esker_settings,
    .open = engine_esker_open,
    .close = engine_esker_close,
    .session_open = engine_esker_session_open,
    .session_close = engine_esker_session_close,
    .put = engine_esker_put,
    .remove = engine_esker_remove,
    .batch = engine_esker_batch,
    .get = engine_esker_get,
    .look = engine_esker_look,
    .get_many = engine_esker_get_many,
    .snapshot_open = engine_esker_snapshot_open,
    .snapshot_close = engine_esker_snapshot_close,
    .iter_open = engine_esker_iter_open,
    .iter_step = engine_esker_iter_step,
    .iter_close = engine_esker_iter_close,
    .flush = engine_esker_flush,
    .compact = engine_esker_compact,
    .merges_runs = true,
    .tell = engine_esker_tell,
};
