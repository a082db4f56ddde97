/* SPDX-License-Identifier: MIT */
#include "tools/workload_engine.h"

#include <time.h>

#include "base/status.h"

/* Which calls go wrong, where any do. */
enum { ENGINE_COMMITS_WRONG = 5, ENGINE_SNAPSHOTS_WRONG = 7, ENGINE_GETS_WRONG = 29 };

static bool
engine_turn(_Atomic uint64_t *calls, uint64_t every)
{
    return (add_relaxed(calls, 1) + 1) % every == 0; /* relaxed: only counts */
}

esker_status
workload_engine_begin(struct workload_engine *engine)
{
    engine->stale = NULL;
    if (engine->inject == WORKLOAD_INJECT_STALE_SNAPSHOT) {
        return esker_snapshot_create(engine->db, &engine->stale);
    }
    return ESKER_OK;
}

void
workload_engine_end(struct workload_engine *engine)
{
    esker_snapshot_release(engine->stale);
    engine->stale = NULL;
}

esker_status
workload_engine_snapshot(struct workload_engine *engine, esker_snapshot **out)
{
    if (engine->stale != NULL && engine_turn(&engine->snapshots, ENGINE_SNAPSHOTS_WRONG)) {
        return esker_snapshot_create_at(engine->db, esker_snapshot_lsn(engine->stale), out);
    }
    return esker_snapshot_create(engine->db, out);
}

/* Until something newer than the snapshot is visible, but not for long. */
static void
engine_wait_for_news(struct workload_engine *engine, const esker_snapshot *snapshot)
{
    for (int i = 0; i < 20 && esker_visible_lsn(engine->db) <= esker_snapshot_lsn(snapshot); i++) {
        struct timespec pause = {.tv_nsec = 1000000};
        (void)nanosleep(&pause, NULL);
    }
}

esker_status
workload_engine_get(struct workload_engine *engine, esker_snapshot *snapshot, uint32_t nth, uint32_t key,
                    uint8_t *buf, size_t *size_out)
{
    char text[WORKLOAD_KEY_TEXT];
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    if (engine->inject == WORKLOAD_INJECT_READ_SKEW && nth > 0 &&
        engine_turn(&engine->gets, ENGINE_GETS_WRONG)) {
        engine_wait_for_news(engine, snapshot);
        options.snapshot = NULL;
    }
    size_t len = workload_key_text(key, text);
    return esker_get_copy(engine->db, esker_bytes(text, len), &options, buf, engine->value_bytes, size_out);
}

/* The batch of the touches up to `count`. */
static esker_status
engine_encode(const struct workload_engine *engine, esker_batch *batch, uint8_t *value,
              const struct workload_op *op, uint32_t count)
{
    const struct workload_stamp stamp = {
        .nonce = op->nonce, .txn = op->txn, .keys = (uint32_t)op->keys, .merged = (uint32_t)op->merged};
    esker_batch_clear(batch);
    for (uint32_t i = 0; i < count; i++) {
        const struct workload_touch *touch = &op->touches[i];
        char text[WORKLOAD_KEY_TEXT];
        size_t len = workload_key_text(touch->key, text);
        esker_slice key = esker_bytes(text, len);
        if (touch->read != 0 && engine->inject != WORKLOAD_INJECT_BLIND_WRITE) {
            TRY(esker_batch_require(batch, key, op->snapshot_lsn));
        }
        if (touch->wrote == 1) {
            workload_value_fill(value, engine->value_bytes, touch->key, &stamp);
            TRY(esker_batch_put(batch, key, esker_bytes(value, engine->value_bytes)));
        } else if (touch->wrote == 2) {
            TRY(esker_batch_delete(batch, key));
        }
    }
    return ESKER_OK;
}

esker_status
workload_engine_commit(struct workload_engine *engine, esker_batch *batch, uint8_t *value,
                       const struct workload_op *op, esker_lsn *lsn_out)
{
    bool wrong =
        engine->inject != WORKLOAD_INJECT_NOTHING && engine_turn(&engine->commits, ENGINE_COMMITS_WRONG);
    if (wrong && engine->inject == WORKLOAD_INJECT_LOST_COMMIT) {
        *lsn_out = esker_visible_lsn(engine->db);
        return ESKER_OK;
    }
    uint32_t count = op->touch_count;
    if (wrong && engine->inject == WORKLOAD_INJECT_TORN_BATCH) {
        count--; /* what is written comes last */
    }
    TRY(engine_encode(engine, batch, value, op, count));
    TRY(esker_write(engine->db, batch, NULL, lsn_out));
    if (wrong && engine->inject == WORKLOAD_INJECT_DIRTY_READ) {
        return FAIL(ESKER_CONFLICT, "a conflict that is none");
    }
    return ESKER_OK;
}
