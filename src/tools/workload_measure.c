/* SPDX-License-Identifier: MIT */
/* Counts and latencies, from the logs. */
#include <stdlib.h>

#include "tools/workload_area.h"

/* Where on the axis of time an end lies. */
static uint32_t
measure_slice(const struct workload_area *area, uint64_t span_ns, uint64_t ended_ns)
{
    uint64_t since = ended_ns > area->start_ns ? ended_ns - area->start_ns : 0;
    uint64_t slice = (uint64_t)((double)since / (double)span_ns * (double)WORKLOAD_SLICES);
    return (uint32_t)MIN(slice, (uint64_t)WORKLOAD_SLICES - 1);
}

static uint64_t
measure_since(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? to_ns - from_ns : 0;
}

static void
measure_op(const struct workload_op *op, enum workload_role role, struct workload_role_result *result)
{
    enum workload_outcome outcome = workload_op_outcome(op);
    bool handed = role == WORKLOAD_READER ? outcome == WORKLOAD_DONE : op->handed_ns != 0;
    result->attempts += handed ? 1 : 0;
    result->conflicts += outcome == WORKLOAD_CONFLICT ? 1 : 0;
    result->retries += op->attempt > 0 ? 1 : 0;
    result->retry_failures += op->last && outcome == WORKLOAD_CONFLICT ? 1 : 0;
    result->errors += outcome == WORKLOAD_FAILED || outcome == WORKLOAD_UNKNOWN ? 1 : 0;
    if (op->last && outcome == WORKLOAD_DONE) {
        result->done++;
        histogram_add(&result->latency, measure_since(op->due_ns, op->ended_ns));
        histogram_add(&result->service, measure_since(op->began_ns, op->ended_ns));
    }
}

/* Visits a role's finished transactions once; slices may be NULL. */
static void
measure_role(const struct workload_area *area, enum workload_role role, struct workload_role_result *result,
             struct histogram *slices, uint64_t span_ns)
{
    for (uint32_t i = 0; i < area->client_count; i++) {
        const struct workload_client *client = &area->clients[i];
        uint64_t count = client->role == role ? workload_log_count(client) : 0;
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(area, client, j);
            measure_op(op, role, result);
            if (slices != NULL && op->last && workload_op_outcome(op) == WORKLOAD_DONE) {
                histogram_add(&slices[measure_slice(area, span_ns, op->ended_ns)],
                              measure_since(op->due_ns, op->ended_ns));
            }
        }
    }
}

void
workload_measure(const struct workload_area *area, struct workload_result *result)
{
    double plan_ns = area->config.seconds / area->config.time_scale * 1e9;
    uint64_t span_ns = (uint64_t)plan_ns + 1;
    result->keys_left = area->final_count;
    result->span_ns = span_ns;
    for (enum workload_role role = 0; role < WORKLOAD_ROLES; role++) {
        struct histogram *slices = calloc(WORKLOAD_SLICES, sizeof *slices);
        measure_role(area, role, &result->roles[role], slices, span_ns);
        for (uint32_t i = 0; slices != NULL && i < WORKLOAD_SLICES; i++) {
            result->slices[role][i] =
                (struct workload_slice){.ops = slices[i].count,
                                        .p50_ns = histogram_quantile(&slices[i], 50, 100),
                                        .p99_ns = histogram_quantile(&slices[i], 99, 100),
                                        .max_ns = slices[i].max};
        }
        free(slices);
    }
}
