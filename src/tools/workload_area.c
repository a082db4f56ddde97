/* SPDX-License-Identifier: MIT */
/* Keys, values, and the shared memory of a row. */
#include "tools/workload_area.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/endian.h"
#include "base/hash.h"
#include "base/rng.h"

/* ---- Keys ------------------------------------------------------------------- */

static const char *const area_key_names[] = {"head", "key", "merged", "pool"};

size_t
workload_key_text(uint32_t key, char out[WORKLOAD_KEY_TEXT])
{
    const char *name = area_key_names[workload_key_kind(key)];
    int len = workload_key_kind(key) == WORKLOAD_KEY_HEAD
                  ? snprintf(out, WORKLOAD_KEY_TEXT, "%s", name)
                  : snprintf(out, WORKLOAD_KEY_TEXT, "%s_%06u", name, workload_key_number(key));
    return (size_t)len;
}

bool
workload_key_parse(const void *text, size_t len, uint32_t *out)
{
    char copy[WORKLOAD_KEY_TEXT];
    char again[WORKLOAD_KEY_TEXT];
    uint32_t key = workload_key(WORKLOAD_KEY_HEAD, 0);
    if (len == 0 || len >= sizeof copy) {
        return false;
    }
    memcpy(copy, text, len);
    copy[len] = 0;
    const char *sign = strchr(copy, '_');
    if (sign != NULL) {
        uint64_t number = 0;
        for (const char *at = sign + 1; *at >= '0' && *at <= '9' && number < 1U << WORKLOAD_KEY_SHIFT; at++) {
            number = number * 10 + (uint64_t)(*at - '0');
        }
        enum workload_key_kind kind = copy[0] == 'k'   ? WORKLOAD_KEY_WRITTEN
                                      : copy[0] == 'm' ? WORKLOAD_KEY_MERGED
                                                       : WORKLOAD_KEY_POOL;
        if (number >= 1U << WORKLOAD_KEY_SHIFT) {
            return false;
        }
        key = workload_key(kind, (uint32_t)number);
    }
    /* Whatever was read above: it is this key if it is how this key is written. */
    if (workload_key_text(key, again) != len || memcmp(again, text, len) != 0) {
        return false;
    }
    *out = key;
    return true;
}

/* ---- Values ----------------------------------------------------------------- */

enum {
    AREA_CHECK_AT = 0,
    AREA_NONCE_AT = 8,
    AREA_TXN_AT = 16,
    AREA_KEYS_AT = 24,
    AREA_MERGED_AT = 28,
    AREA_KEY_AT = 32,
    AREA_FILL_AT = 40
};

/* Every second word is random, every other the same everywhere, as in the benchmark: about
 * half of it compresses. */
void
workload_value_fill(uint8_t *out, size_t size, uint32_t key, const struct workload_stamp *stamp)
{
    struct rng rng = {.state = hash_mix(stamp->nonce, key)};
    size_t at = AREA_FILL_AT;
    memset(out, 0, AREA_FILL_AT);
    le64_store(out + AREA_NONCE_AT, stamp->nonce);
    le64_store(out + AREA_TXN_AT, stamp->txn);
    le32_store(out + AREA_KEYS_AT, stamp->keys);
    le32_store(out + AREA_MERGED_AT, stamp->merged);
    le32_store(out + AREA_KEY_AT, key);
    for (; at + 8 <= size; at += 8) {
        le64_store(out + at, (at & 8) != 0 ? rng_next(&rng) : 0x6461657265747563ULL);
    }
    memset(out + at, '.', size - at);
    le64_store(out + AREA_CHECK_AT, hash64(out + AREA_NONCE_AT, size - AREA_NONCE_AT, size));
}

bool
workload_value_read(const void *value, size_t size, uint32_t key, struct workload_stamp *out)
{
    const uint8_t *bytes = value;
    if (size < WORKLOAD_VALUE_BYTES_MIN || le32_load(bytes + AREA_KEY_AT) != key ||
        le64_load(bytes + AREA_CHECK_AT) != hash64(bytes + AREA_NONCE_AT, size - AREA_NONCE_AT, size)) {
        return false;
    }
    *out = (struct workload_stamp){.nonce = le64_load(bytes + AREA_NONCE_AT),
                                   .txn = le64_load(bytes + AREA_TXN_AT),
                                   .keys = le32_load(bytes + AREA_KEYS_AT),
                                   .merged = le32_load(bytes + AREA_MERGED_AT)};
    return true;
}

/* ---- The memory of a row ------------------------------------------------------ */

/* Room for every attempt of each transaction, and for those that a kill cuts off. What is not
 * used costs addresses and nothing else. */
static uint64_t
area_capacity(const struct workload_config *config, enum workload_role role, uint32_t client)
{
    uint64_t most = config->rate[role] == 0 ? config->ops_max : workload_due_count(config, role, client);
    uint64_t attempts = role == WORKLOAD_READER ? 1 : 1 + (uint64_t)config->retries_max;
    return most * attempts + 64 + config->chaos.kills + config->chaos.io_fails;
}

static uint64_t
area_bytes(const struct workload_config *config, uint32_t *client_count, uint64_t *op_count,
           uint64_t *final_count)
{
    *client_count = 0;
    *op_count = 0;
    *final_count = 1 + config->pool_keys;
    for (enum workload_role role = 0; role < WORKLOAD_ROLES; role++) {
        for (uint32_t i = 0; i < config->clients[role]; i++) {
            uint64_t capacity = area_capacity(config, role, i);
            *op_count += capacity;
            *final_count += role != WORKLOAD_READER ? capacity : 0;
        }
        *client_count += config->clients[role];
    }
    return sizeof(struct workload_area) + *client_count * sizeof(struct workload_client) +
           *op_count * sizeof(struct workload_op) + *final_count * sizeof(struct workload_final);
}

static void
area_fill(struct workload_area *area)
{
    uint32_t at = 0;
    uint64_t first = 0;
    for (enum workload_role role = 0; role < WORKLOAD_ROLES; role++) {
        for (uint32_t i = 0; i < area->config.clients[role]; i++) {
            struct workload_client *client = &area->clients[at];
            client->role = role;
            client->index = at;
            client->role_index = i;
            client->rng_state = hash_mix(area->config.seed, at + 1);
            client->capacity = area_capacity(&area->config, role, i);
            client->first = first;
            first += client->capacity;
            at++;
        }
    }
}

struct workload_area *
workload_area_create(const struct workload_config *config)
{
    uint32_t client_count = 0;
    uint64_t op_count = 0;
    uint64_t final_count = 0;
    uint64_t bytes = area_bytes(config, &client_count, &op_count, &final_count);
    /* Zeroed, shared with children, and only what is used is taken. */
    uint8_t *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    struct workload_area *area = (struct workload_area *)(void *)memory;
    area->config = *config;
    area->bytes = bytes;
    area->client_count = client_count;
    area->final_capacity = final_count;
    uint8_t *at = memory + sizeof *area;
    area->ops = (struct workload_op *)(void *)at;
    at += op_count * sizeof(struct workload_op);
    area->final = (struct workload_final *)(void *)at;
    at += final_count * sizeof(struct workload_final);
    area->clients = (struct workload_client *)(void *)at;
    area_fill(area);
    return area;
}

void
workload_area_destroy(struct workload_area *area)
{
    if (area != NULL) {
        (void)munmap(area, area->bytes);
    }
}

uint32_t
workload_opening_at(const struct workload_area *area, uint64_t time_ns)
{
    uint32_t opening = 0;
    while (opening < area->openings && area->opened_ns[opening] <= time_ns) {
        opening++;
    }
    return opening;
}

void
workload_area_fail(struct workload_area *area, const char *format, ...)
{
    if (exchange_seq(&area->failed, true)) { /* pairs: WORKLOAD_FAILED (both ends) */
        return;
    }
    va_list args;
    va_start(args, format);
    (void)vsnprintf(area->failure, sizeof area->failure, format, args);
    va_end(args);
}
