/* SPDX-License-Identifier: MIT */
#include "tools/workload_chain.h"

#include <stdlib.h>

enum { CHAIN_CLIENT_SHIFT = 40 };

const struct workload_op *
workload_chain_find(const struct workload_chain *chain, uint64_t nonce)
{
    const struct workload_area *area = chain->area;
    uint64_t client = (nonce >> CHAIN_CLIENT_SHIFT) - 1;
    uint64_t number = nonce & (((uint64_t)1 << CHAIN_CLIENT_SHIFT) - 1);
    if (client >= area->client_count || number > area->clients[client].nonces) {
        return NULL;
    }
    uint32_t at = chain->by_nonce[client][number];
    return at == 0 ? NULL : workload_op_at(area, &area->clients[client], at - 1);
}

static bool
chain_index(struct workload_chain *chain)
{
    const struct workload_area *area = chain->area;
    uint64_t ops = 0;
    chain->by_nonce = calloc(area->client_count, sizeof *chain->by_nonce);
    for (uint32_t i = 0; chain->by_nonce != NULL && i < area->client_count; i++) {
        const struct workload_client *client = &area->clients[i];
        uint64_t count = workload_log_count(client);
        ops = client->first + client->capacity;
        chain->by_nonce[i] = calloc(client->nonces + 1, sizeof **chain->by_nonce);
        if (chain->by_nonce[i] == NULL) {
            return false;
        }
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(area, client, j);
            uint64_t number = op->nonce & (((uint64_t)1 << CHAIN_CLIENT_SHIFT) - 1);
            if (op->nonce != 0 && number <= client->nonces) {
                chain->by_nonce[i][number] = (uint32_t)j + 1;
            }
        }
    }
    chain->positions = calloc(ops + 1, sizeof *chain->positions);
    return chain->by_nonce != NULL && chain->positions != NULL;
}

/* The head in the final state; 0: there is none. */
static uint64_t
chain_last(const struct workload_area *area)
{
    for (uint64_t i = 0; i < area->final_count; i++) {
        if (workload_key_kind(area->final[i].key) == WORKLOAD_KEY_HEAD) {
            return area->final[i].nonce;
        }
    }
    return 0;
}

/* What a commit read as head: its first touch. */
static uint64_t
chain_before(const struct workload_op *op)
{
    return op->touch_count > 0 ? op->touches[0].seen : 0;
}

/* Twice backwards: to count, and to fill. */
static bool
chain_walk(struct workload_chain *chain)
{
    uint64_t most = 1;
    for (uint32_t i = 0; i < chain->area->client_count; i++) {
        most += chain->area->clients[i].nonces;
    }
    uint32_t count = 0;
    uint64_t nonce = chain_last(chain->area);
    for (; nonce != 0 && count < most; count++) {
        const struct workload_op *op = workload_chain_find(chain, nonce);
        if (op == NULL) {
            break;
        }
        nonce = chain_before(op);
    }
    chain->broken = nonce != 0;
    chain->count = chain->broken && count == most ? 0 : count;
    chain->ops = calloc((size_t)chain->count + 1, sizeof *chain->ops);
    if (chain->ops == NULL) {
        return false;
    }
    nonce = chain_last(chain->area);
    for (uint32_t place = chain->count; place > 0; place--) {
        const struct workload_op *op = workload_chain_find(chain, nonce);
        chain->ops[place] = op;
        chain->positions[op - chain->area->ops] = place;
        nonce = chain_before(op);
    }
    return true;
}

static int
chain_compare_versions(const void *a, const void *b)
{
    const struct workload_version *left = a;
    const struct workload_version *right = b;
    if (left->key != right->key) {
        return left->key < right->key ? -1 : 1;
    }
    return (left->position > right->position) - (left->position < right->position);
}

static bool
chain_list_versions(struct workload_chain *chain)
{
    uint64_t most = (uint64_t)chain->count * WORKLOAD_TOUCHES_MAX;
    chain->versions = malloc((most + 1) * sizeof *chain->versions);
    if (chain->versions == NULL) {
        return false;
    }
    for (uint32_t place = 1; place <= chain->count; place++) {
        const struct workload_op *op = chain->ops[place];
        for (uint32_t i = 0; i < op->touch_count; i++) {
            if (op->touches[i].wrote != 0) {
                chain->versions[chain->version_count++] =
                    (struct workload_version){.key = op->touches[i].key,
                                              .position = place,
                                              .nonce = op->touches[i].wrote == 1 ? op->nonce : 0};
            }
        }
    }
    qsort(chain->versions, chain->version_count, sizeof *chain->versions, chain_compare_versions);
    return true;
}

static int
chain_compare_acks(const void *a, const void *b)
{
    const struct workload_ack *left = a;
    const struct workload_ack *right = b;
    return (left->ended_ns > right->ended_ns) - (left->ended_ns < right->ended_ns);
}

static bool
chain_list_acks(struct workload_chain *chain)
{
    chain->acks = malloc(((size_t)chain->count + 1) * sizeof *chain->acks);
    if (chain->acks == NULL) {
        return false;
    }
    for (uint32_t place = 1; place <= chain->count; place++) {
        const struct workload_op *op = chain->ops[place];
        if (workload_op_outcome(op) == WORKLOAD_DONE) {
            chain->acks[chain->ack_count++] =
                (struct workload_ack){.ended_ns = op->ended_ns, .newest = place};
        }
    }
    qsort(chain->acks, chain->ack_count, sizeof *chain->acks, chain_compare_acks);
    for (uint64_t i = 1; i < chain->ack_count; i++) {
        chain->acks[i].newest = MAX(chain->acks[i].newest, chain->acks[i - 1].newest);
    }
    return true;
}

bool
workload_chain_build(struct workload_chain *chain, const struct workload_area *area)
{
    *chain = (struct workload_chain){.area = area};
    return chain_index(chain) && chain_walk(chain) && chain_list_versions(chain) && chain_list_acks(chain);
}

void
workload_chain_fini(struct workload_chain *chain)
{
    for (uint32_t i = 0; chain->by_nonce != NULL && i < chain->area->client_count; i++) {
        free(chain->by_nonce[i]);
    }
    free(chain->by_nonce);
    free(chain->positions);
    free(chain->ops);
    free(chain->versions);
    free(chain->acks);
}

bool
workload_chain_undone(const struct workload_chain *chain, const struct workload_op *seen,
                      const struct workload_op *reader)
{
    return seen != NULL && workload_chain_position(chain, seen) == 0 &&
           workload_op_outcome(seen) == WORKLOAD_UNKNOWN &&
           workload_opening_at(chain->area, seen->handed_ns) ==
               workload_opening_at(chain->area, reader->read_ns);
}

bool
workload_chain_read_undone(const struct workload_chain *chain, const struct workload_op *reader)
{
    for (uint32_t i = 0; i < reader->touch_count; i++) {
        const struct workload_touch *touch = &reader->touches[i];
        if (touch->read != 0 &&
            workload_chain_undone(chain, workload_chain_find(chain, touch->seen), reader)) {
            return true;
        }
    }
    return false;
}

uint32_t
workload_chain_base(const struct workload_chain *chain, const struct workload_op *op)
{
    /* Each step leads to a commit that was there before: no longer than there are clients. */
    for (uint32_t i = 0; op != NULL && i <= chain->area->client_count; i++) {
        uint32_t place = workload_chain_position(chain, op);
        if (place > 0) {
            return place;
        }
        op = workload_chain_find(chain, chain_before(op));
    }
    return 0;
}

uint64_t
workload_chain_value(const struct workload_chain *chain, uint32_t key, uint32_t position)
{
    const struct workload_version wanted = {.key = key, .position = position};
    uint64_t low = 0;
    uint64_t high = chain->version_count;
    while (low < high) { /* the first that comes after the wanted one */
        uint64_t middle = low + (high - low) / 2;
        if (chain_compare_versions(&chain->versions[middle], &wanted) <= 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 && chain->versions[low - 1].key == key ? chain->versions[low - 1].nonce : 0;
}

uint32_t
workload_chain_acked(const struct workload_chain *chain, uint64_t time_ns)
{
    uint64_t low = 0;
    uint64_t high = chain->ack_count;
    while (low < high) { /* the first that ended at that time or later */
        uint64_t middle = low + (high - low) / 2;
        if (chain->acks[middle].ended_ns < time_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low > 0 ? chain->acks[low - 1].newest : 0;
}
