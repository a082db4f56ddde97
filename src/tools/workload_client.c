/* SPDX-License-Identifier: MIT */
/* A client's thread: when the next transaction is due, and its attempts. */
#include "tools/workload_client.h"

#include <errno.h>
#include <stdlib.h>

#include "base/status.h"
#include "tools/tool.h"

enum { CLIENT_BACKOFF_NS = 20000, CLIENT_BACKOFF_SHIFT_MAX = 9 };

esker_status
workload_worker_init(struct workload_worker *worker, struct workload_crew *crew,
                     struct workload_client *client)
{
    size_t size = crew->area->config.value_bytes;
    *worker = (struct workload_worker){.crew = crew, .client = client, .rng = {client->rng_state}};
    worker->value = malloc(size);
    worker->buf = malloc(size);
    if (worker->value == NULL || worker->buf == NULL) {
        return FAIL_NO_MEMORY("a client");
    }
    return esker_batch_create(&worker->batch);
}

void
workload_worker_fini(struct workload_worker *worker)
{
    if (worker->client != NULL) {
        worker->client->rng_state = worker->rng.state;
    }
    esker_batch_destroy(worker->batch);
    free(worker->value);
    free(worker->buf);
}

/* A new entry, or NULL when the log is full. */
static struct workload_op *
client_begin(struct workload_worker *worker, uint64_t due_ns, uint64_t began_ns, uint32_t attempt)
{
    struct workload_client *client = worker->client;
    uint64_t count = load_relaxed(&client->count); /* relaxed: this thread is its only writer */
    if (count == client->capacity) {
        client->log_full = true;
        return NULL;
    }
    struct workload_op *op = workload_op_at(worker->crew->area, client, count);
    op->due_ns = due_ns;
    op->began_ns = began_ns;
    op->attempt_ns = attempt == 0 ? began_ns : tool_now_ns();
    op->attempt = (uint8_t)attempt;
    store_release(&client->count, count + 1); /* pairs: WORKLOAD_LOG */
    return op;
}

/* Doubles with each attempt; a random half of it is left out, so that rivals part. */
static bool
client_back_off(struct workload_worker *worker, uint32_t attempt)
{
    uint64_t most = (uint64_t)CLIENT_BACKOFF_NS << MIN(attempt, (uint32_t)CLIENT_BACKOFF_SHIFT_MAX);
    uint64_t pause = most / 2 + rng_below(&worker->rng, most / 2);
    return workload_wait_until(worker->crew, tool_now_ns() + pause);
}

/* One transaction with its attempts. False: the crew is to stop. */
static bool
client_run_one(struct workload_worker *worker, uint64_t due_ns)
{
    uint32_t retries_max = worker->crew->area->config.retries_max;
    uint64_t began_ns = tool_now_ns();
    for (uint32_t attempt = 0;; attempt++) {
        struct workload_op *op = client_begin(worker, due_ns, began_ns, attempt);
        if (op == NULL) {
            workload_area_fail(worker->crew->area, "the log of a client is full; nothing more was recorded");
            return false;
        }
        esker_status status = workload_attempt(worker, op);
        op->last = status != ESKER_CONFLICT || attempt == retries_max;
        if (status == ESKER_OK || (status == ESKER_CONFLICT && op->last)) {
            return true;
        }
        if (status != ESKER_CONFLICT) {
            bool expected = worker->crew->area->config.chaos.io_fails > 0 || status == ESKER_TIMED_OUT;
            if (!expected) {
                workload_area_fail(worker->crew->area, "%s: %s", workload_role_names[worker->client->role],
                                   status_last()->message);
            }
            return false;
        }
        if (!client_back_off(worker, attempt)) {
            return false;
        }
    }
}

void *
workload_worker_main(void *arg)
{
    struct workload_worker *worker = arg;
    struct workload_crew *crew = worker->crew;
    struct workload_client *client = worker->client;
    const struct workload_config *config = &crew->area->config;
    bool paced = config->rate[client->role] > 0;
    uint64_t start_ns = crew->area->start_ns;
    uint64_t end_ns = start_ns + (uint64_t)(config->seconds / config->time_scale * 1e9);
    while (!workload_crew_stopped(crew)) {
        uint64_t due_ns = tool_now_ns();
        if (paced) {
            double due = workload_due(config, client->role, client->role_index, client->next);
            due_ns = start_ns + (uint64_t)(due / config->time_scale * 1e9);
            if (due >= config->seconds || !workload_wait_until(crew, due_ns)) {
                break;
            }
        } else if (due_ns >= end_ns || client->next >= config->ops_max) {
            break;
        }
        if (!client_run_one(worker, due_ns)) {
            store_release(&crew->broken, true); /* pairs: WORKLOAD_BROKEN */
            break;
        }
        client->next++;
    }
    (void)sub_acq_rel(&crew->running, 1); /* pairs: WORKLOAD_RUNNING */
    return NULL;
}
