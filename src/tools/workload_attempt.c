/* SPDX-License-Identifier: MIT */
/* One attempt of a transaction, by role. */
#include "base/status.h"
#include "tools/tool.h"
#include "tools/workload_client.h"

/* ---- Reading at the snapshot --------------------------------------------------- */

/* Reads a key and enters it; *stamp_out is zero when there is no such key. */
static esker_status
attempt_read(struct workload_worker *worker, struct workload_op *op, esker_snapshot *snapshot, uint32_t key,
             struct workload_stamp *stamp_out)
{
    struct workload_engine *engine = &worker->crew->engine;
    struct workload_touch *touch = &op->touches[op->touch_count];
    size_t size = 0;
    *stamp_out = (struct workload_stamp){0};
    esker_status status = workload_engine_get(engine, snapshot, op->touch_count, key, worker->buf, &size);
    if (status < 0) {
        return status;
    }
    *touch = (struct workload_touch){.key = key, .read = 1};
    if (status != ESKER_NOT_FOUND) {
        if (workload_value_read(worker->buf, size <= engine->value_bytes ? size : 0, key, stamp_out)) {
            touch->seen = stamp_out->nonce;
        } else {
            touch->damaged = 1;
        }
    }
    op->touch_count++;
    return ESKER_OK;
}

static void
attempt_writes(struct workload_op *op, uint32_t key, bool remove)
{
    uint8_t wrote = remove ? 2 : 1;
    for (uint32_t i = 0; i < op->touch_count; i++) {
        if (op->touches[i].key == key) {
            op->touches[i].wrote = wrote;
            return;
        }
    }
    op->touches[op->touch_count++] = (struct workload_touch){.key = key, .wrote = wrote};
}

/* ---- The roles ------------------------------------------------------------------ */

/* The writer's own mistake, when it is asked for. */
static bool
attempt_skips(const struct workload_worker *worker, const struct workload_op *op)
{
    return worker->crew->engine.inject == WORKLOAD_INJECT_NON_MONOTONIC && op->txn % 5 == 0;
}

static esker_status
attempt_monotonic(struct workload_worker *worker, struct workload_op *op, esker_snapshot *snapshot)
{
    (void)snapshot;
    uint32_t number = (uint32_t)op->keys + (attempt_skips(worker, op) ? 1 : 0);
    op->keys = number + 1;
    attempt_writes(op, workload_key(WORKLOAD_KEY_WRITTEN, number), false);
    return ESKER_OK;
}

/* Pool keys come in pairs. The first half of the pairs is for every writer, the second is
 * dealt out. */
static uint32_t
attempt_pick_pair(struct workload_worker *worker)
{
    const struct workload_config *config = &worker->crew->area->config;
    uint32_t writers = config->clients[WORKLOAD_RANDOM];
    uint32_t shared = config->pool_keys / 4;
    uint32_t own = MAX(shared / writers, 1U);
    bool overlaps = (double)rng_below(&worker->rng, 1000000) < config->overlap * 1e6;
    if (overlaps) {
        return (uint32_t)rng_below(&worker->rng, shared);
    }
    return shared + worker->client->role_index * own + (uint32_t)rng_below(&worker->rng, own);
}

static esker_status
attempt_random(struct workload_worker *worker, struct workload_op *op, esker_snapshot *snapshot)
{
    uint32_t pair = attempt_pick_pair(worker);
    double delete_ratio = worker->crew->area->config.delete_ratio;
    bool remove = (double)rng_below(&worker->rng, 1000000) < delete_ratio * 1e6;
    for (uint32_t i = 0; i < 2; i++) {
        struct workload_stamp stamp;
        uint32_t key = workload_key(WORKLOAD_KEY_POOL, pair * 2 + i);
        TRY(attempt_read(worker, op, snapshot, key, &stamp));
        attempt_writes(op, key, remove);
    }
    return ESKER_OK;
}

static esker_status
attempt_compactor(struct workload_worker *worker, struct workload_op *op, esker_snapshot *snapshot)
{
    const struct workload_config *config = &worker->crew->area->config;
    uint64_t keys = op->keys;
    for (uint32_t i = 0; i < config->compactor_reads && i < keys; i++) {
        /* Different keys: each from a stretch of its own. */
        uint64_t each = keys / MIN((uint64_t)config->compactor_reads, keys);
        struct workload_stamp stamp;
        uint32_t number = (uint32_t)(i * each + rng_below(&worker->rng, each));
        TRY(attempt_read(worker, op, snapshot, workload_key(WORKLOAD_KEY_WRITTEN, number), &stamp));
    }
    attempt_writes(op, workload_key(WORKLOAD_KEY_MERGED, (uint32_t)op->merged), false);
    op->merged++;
    return ESKER_OK;
}

/* A key that head speaks of, once in sixteen the one after the last, or a pair. */
static esker_status
attempt_reader(struct workload_worker *worker, struct workload_op *op, esker_snapshot *snapshot)
{
    const struct workload_config *config = &worker->crew->area->config;
    struct workload_stamp stamp;
    if (config->clients[WORKLOAD_RANDOM] > 0 && rng_below(&worker->rng, 2) == 0) {
        uint32_t pair = (uint32_t)rng_below(&worker->rng, config->pool_keys / 2);
        TRY(attempt_read(worker, op, snapshot, workload_key(WORKLOAD_KEY_POOL, pair * 2), &stamp));
        return attempt_read(worker, op, snapshot, workload_key(WORKLOAD_KEY_POOL, pair * 2 + 1), &stamp);
    }
    uint64_t number = op->keys;
    if (number > 0 && rng_below(&worker->rng, 16) != 0) {
        number = rng_below(&worker->rng, number);
    }
    return attempt_read(worker, op, snapshot, workload_key(WORKLOAD_KEY_WRITTEN, (uint32_t)number), &stamp);
}

/* What the transaction reads, and what it is going to write. */
static esker_status
attempt_plan(struct workload_worker *worker, struct workload_op *op, esker_snapshot *snapshot)
{
    static esker_status (*const by_role[])(struct workload_worker *, struct workload_op *,
                                           esker_snapshot *) = {
        [WORKLOAD_MONOTONIC] = attempt_monotonic,
        [WORKLOAD_RANDOM] = attempt_random,
        [WORKLOAD_COMPACTOR] = attempt_compactor,
        [WORKLOAD_READER] = attempt_reader,
    };
    enum workload_role role = worker->client->role;
    struct workload_stamp head;
    uint32_t key = workload_key(WORKLOAD_KEY_HEAD, 0);
    TRY(attempt_read(worker, op, snapshot, key, &head));
    op->txn = head.txn;
    op->keys = head.keys;
    op->head_keys = head.keys;
    op->merged = head.merged;
    if (role != WORKLOAD_READER) {
        op->txn++;
        op->nonce = (uint64_t)(worker->client->index + 1) << 40 | ++worker->client->nonces;
        attempt_writes(op, key, false);
    }
    return by_role[role](worker, op, snapshot);
}

/* ---- The attempt ---------------------------------------------------------------- */

static esker_status
attempt_commit(struct workload_worker *worker, struct workload_op *op)
{
    esker_lsn lsn = 0;
    op->handed_ns = tool_now_ns();
    esker_status status =
        workload_engine_commit(&worker->crew->engine, worker->batch, worker->value, op, &lsn);
    uint64_t now = tool_now_ns();
    enum workload_outcome outcome = WORKLOAD_FAILED;
    if (status == ESKER_OK) {
        op->commit_lsn = lsn;
        outcome = WORKLOAD_DONE;
    } else if (status == ESKER_CONFLICT) {
        outcome = WORKLOAD_CONFLICT;
    } else if (status == ESKER_IO || status == ESKER_POISONED) {
        outcome = WORKLOAD_UNKNOWN;
    }
    workload_op_end(op, outcome, now);
    return status;
}

esker_status
workload_attempt(struct workload_worker *worker, struct workload_op *op)
{
    struct workload_crew *crew = worker->crew;
    const struct workload_config *config = &crew->area->config;
    esker_snapshot *snapshot = NULL;
    esker_status status = workload_engine_snapshot(&crew->engine, &snapshot);
    op->snapshot_ns = tool_now_ns();
    if (status == ESKER_OK) {
        op->snapshot_lsn = esker_snapshot_lsn(snapshot);
        status = attempt_plan(worker, op, snapshot);
    }
    esker_snapshot_release(snapshot);
    op->read_ns = tool_now_ns();
    if (status != ESKER_OK) {
        workload_op_end(op, WORKLOAD_FAILED, op->read_ns);
        return status;
    }
    if (worker->client->role == WORKLOAD_READER) {
        workload_op_end(op, WORKLOAD_DONE, op->read_ns);
        return ESKER_OK;
    }
    if (worker->client->role == WORKLOAD_COMPACTOR) {
        uint64_t pause_ns = (uint64_t)(config->compactor_sleep / config->time_scale * 1e9);
        if (!workload_wait_until(crew, op->read_ns + pause_ns)) {
            workload_op_end(op, WORKLOAD_FAILED, tool_now_ns());
            return ESKER_TIMED_OUT; /* somebody else told why */
        }
    }
    return attempt_commit(worker, op);
}
