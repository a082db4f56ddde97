/* SPDX-License-Identifier: MIT */
/*
 * Random batches over a few keys, written to a database on the simulated disk,
 * and the oracle: is what is read back the state after some prefix of them?
 * Shared by the crash and the fault tests; each includes it once.
 */
#ifndef ESKER_PROPTEST_BATCH_MODEL_H
#define ESKER_PROPTEST_BATCH_MODEL_H

#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/rng.h"
#include "base/test_digits.h"
#include "db/db.h"
#include "edge_oracle.h"
#include "io/io_sim.h"

static uint64_t run_seed;
static const char *run_what = "";
static void (*run_explain)(void);  /* completes run_what when something failed; nullable */
static struct sim_disk *edge_disk; /* of the last open */
static bool model_reserve;         /* a reserve is kept, however small the database */
static bool edge_oracle_on = true; /* off where the disk lies, which no engine can know */

#ifndef MODEL_KEYS
#define MODEL_KEYS 24
#endif
enum { KEYS = MODEL_KEYS, BATCHES_MAX = 400, OPS_MAX = 6, VALUE_MAX = 900 };

struct op {
    uint32_t key;
    bool is_delete;
    uint32_t size;
};

struct batch {
    struct op ops[OPS_MAX];
    uint32_t op_count;
    uint32_t id;
    uint32_t lost_at; /* from this mark on it is known to be lost (crash_run.h); 0: it is not */
};

struct history {
    struct batch batches[BATCHES_MAX];
    uint32_t submitted;
    uint32_t acked;     /* prefix that survives the process */
    uint32_t durable;   /* prefix that survives power loss */
    esker_lsn lsn_seen; /* no LSN below it may ever be given to another commit */
};

/* What a prefix looks like: per key the batch id of its value, 0 = absent. */
struct image {
    uint32_t id[KEYS];
    uint32_t size[KEYS];
};

static void
fail(const char *what)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    if (run_explain != NULL) {
        run_explain();
    }
    fprintf(stderr, "seed %llu %s: %s (last error: %s %s)\n", (unsigned long long)run_seed, run_what, what,
            esker_status_name(error.status), error.message);
    abort();
}

static struct bytes
make_key(uint32_t key, char out[16])
{
    int len = snprintf(out, 16, "key%02u", key);
    return bytes_make(out, (size_t)len);
}

static void
make_value(uint32_t id, uint32_t size, uint8_t *out)
{
    for (uint32_t i = 0; i < size; i++) {
        out[i] = (uint8_t)(id * 31 + i);
    }
    if (size >= 4) {
        le32_store(out, id);
    }
}

static void
image_apply(struct image *image, const struct batch *batch)
{
    for (uint32_t i = 0; batch->lost_at == 0 && i < batch->op_count; i++) {
        const struct op *op = &batch->ops[i];
        image->id[op->key] = op->is_delete ? 0 : batch->id;
        image->size[op->key] = op->is_delete ? 0 : op->size;
    }
}

static bool
image_equal(const struct image *a, const struct image *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Gets, a forward and a reverse scan must agree; the result is the image. */
static void
image_read(esker_db *db, struct image *out)
{
    static uint8_t buf[VALUE_MAX], wanted[VALUE_MAX];
    char name[16];
    memset(out, 0, sizeof *out);
    uint32_t found = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        esker_status status =
            esker_get_copy(db, bytes_to_slice(make_key(key, name)), NULL, buf, sizeof buf, &size);
        if (status == ESKER_NOT_FOUND) {
            continue;
        }
        if (status != ESKER_OK || size < 4) {
            fail("a get failed");
        }
        out->id[key] = le32_load(buf);
        out->size[key] = (uint32_t)size;
        make_value(out->id[key], (uint32_t)size, wanted);
        if (memcmp(buf, wanted, size) != 0) {
            fail("a value is wrong");
        }
        found++;
    }
    esker_iter *it;
    if (esker_iter_create(db, NULL, &it) != ESKER_OK) {
        fail("no iterator");
    }
    for (int reverse = 0; reverse < 2; reverse++) {
        uint32_t rows = 0;
        esker_status status = reverse ? esker_iter_last(it) : esker_iter_first(it);
        while (status == ESKER_OK) {
            esker_slice key = esker_iter_key(it);
            esker_slice value;
            uint32_t index = test_digits(key.data, key.size, 3);
            if (key.size != 5 || index >= KEYS || esker_iter_value(it, &value) != ESKER_OK ||
                out->id[index] != le32_load(value.data) || out->size[index] != value.size) {
                fail("scan and get differ");
            }
            rows++;
            status = reverse ? esker_iter_prev(it) : esker_iter_next(it);
        }
        if (status != ESKER_END || rows != found) {
            fail("a scan misses rows");
        }
    }
    esker_iter_destroy(it);
}

/* What a failed check looked like: the keys' batches, and the prefixes that come close. */
static void
describe(const struct history *history, uint32_t least, const struct image *seen)
{
    struct image image = {{0}, {0}};
    fprintf(stderr, "submitted %u, acknowledged %u, durable %u, at least %u\n", history->submitted,
            history->acked, history->durable, least);
    for (uint32_t p = 0; p <= history->submitted; p++) {
        uint32_t differ = 0;
        uint32_t first = 0;
        if (p > 0) {
            image_apply(&image, &history->batches[p - 1]);
        }
        for (uint32_t key = 0; key < KEYS; key++) {
            if (image.id[key] != seen->id[key] || image.size[key] != seen->size[key]) {
                first = differ++ == 0 ? key : first;
            }
        }
        if (differ <= 2) {
            fprintf(stderr, "prefix %u: %u keys differ, key %u is of batch %u, wanted %u\n", p, differ, first,
                    seen->id[first], image.id[first]);
        }
    }
}

/* Is `seen` the state after p batches for some p in [least, submitted]? Returns the largest such p. */
static uint32_t
check_prefix(const struct history *history, uint32_t least, const struct image *seen, const char *when)
{
    struct image image = {{0}, {0}};
    uint32_t match = UINT32_MAX;
    for (uint32_t p = 0; p <= history->submitted; p++) {
        if (p > 0) {
            image_apply(&image, &history->batches[p - 1]);
        }
        if (p >= least && image_equal(&image, seen)) {
            match = p;
        }
    }
    if (match == UINT32_MAX) {
        describe(history, least, seen);
        fail(when);
    }
    return match;
}

static esker_status
open_db(struct sim_disk *disk, int durability, const esker_allocator *allocator, esker_db **out)
{
    const struct db_tuning tuning = {.window_bytes_first = 4096,
                                     .window_bytes_max = 8192,
                                     .segment_bytes = 16384,
                                     .manifest_bytes = 1024,
                                     .reserve = model_reserve,
                                     .correct_bytes = 512};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = durability;
    options.allocator = allocator;
    options.compression = model_reserve ? ESKER_COMPRESS_NONE : ESKER_COMPRESS_LZ4; /* fills sooner */
    esker_status status = io_sim_open(disk, &mem_default, &io);
    edge_failed = fail;
    edge_disk = disk;
    sim_disk_watch(disk, edge_oracle_on ? edge_watch : NULL, NULL);
    return status == ESKER_OK ? db_open_on(io, &options, &tuning, true, out) : status;
}

static void
make_batch(struct rng *rng, struct batch *batch, uint32_t id)
{
    *batch = (struct batch){.id = id, .op_count = 1 + (uint32_t)rng_below(rng, OPS_MAX)};
    for (uint32_t i = 0; i < batch->op_count; i++) {
        batch->ops[i] =
            (struct op){.key = (uint32_t)rng_below(rng, KEYS),
                        .is_delete = rng_below(rng, 4) == 0,
                        .size = 4 + (uint32_t)rng_below(rng, rng_below(rng, 8) == 0 ? VALUE_MAX - 4 : 60)};
    }
}

static esker_status
write_batch(esker_db *db, const struct batch *batch, int durability)
{
    static uint8_t value[VALUE_MAX];
    esker_batch *out;
    char name[16];
    esker_write_options write;
    esker_write_options_init(&write);
    write.durability = durability;
    if (esker_batch_create(&out) != ESKER_OK) {
        return ESKER_NO_MEMORY;
    }
    esker_status status = ESKER_OK;
    for (uint32_t i = 0; i < batch->op_count && status == ESKER_OK; i++) {
        esker_slice key = bytes_to_slice(make_key(batch->ops[i].key, name));
        make_value(batch->id, batch->ops[i].size, value);
        status = batch->ops[i].is_delete ? esker_batch_delete(out, key)
                                         : esker_batch_put(out, key, esker_bytes(value, batch->ops[i].size));
    }
    if (status == ESKER_OK) {
        status = esker_write(db, out, &write, NULL);
    }
    if (status == ESKER_OK && durability == ESKER_DURABLE_SYNC && edge_oracle_on) {
        edge_acknowledged(edge_disk, esker_visible_lsn(db));
    }
    esker_batch_destroy(out);
    return status;
}

#endif
