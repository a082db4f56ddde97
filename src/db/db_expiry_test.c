/* SPDX-License-Identifier: MIT */
/*
 * Goal: a put with a time to live is there until its time is up and then reads as
 * deleted, by every way of reading, at every snapshot, in memory and in segments,
 * across merges, reopening and a clock that is set back; nothing older comes back;
 * merges give its space back.
 * Method: the simulated disk, whose wall clock the test sets, without threads; and a
 * model that keeps every version with its LSN and expiry.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/rng.h"
#include "base/test_digits.h"
#include "db/db.h"
#include "io/io_sim.h"

enum {
    START_MS = 1000000,
    STEP_MS = 1000, /* what the clock may go back by */
    MODEL_KEYS = 24,
    MODEL_VERSIONS = 4000,
    MODEL_SNAPSHOTS = 4,
    MODEL_STEPS = 2500
};

struct expiry {
    struct sim_disk *disk;
    esker_db *db;
    esker_options options;
    uint64_t now_ms; /* what the disk's clock shows, but for what calls take */
};

static const struct db_tuning expiry_tuning = {
    .window_bytes_first = 16 << 10, .window_bytes_max = 16 << 10, .segment_bytes = 8 << 10};

static void
expiry_set_clock(struct expiry *expiry, uint64_t now_ms)
{
    expiry->now_ms = now_ms;
    sim_disk_set_wall(expiry->disk, now_ms * 1000000);
}

static void
expiry_open_again(struct expiry *expiry)
{
    struct io *io = NULL;
    assert_int_equal(io_sim_open(expiry->disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &expiry->options, &expiry_tuning, true, &expiry->db), ESKER_OK);
}

static void
expiry_open(struct expiry *expiry, uint64_t default_ttl_ms)
{
    *expiry = (struct expiry){.disk = sim_disk_create(7)};
    esker_options_init(&expiry->options);
    expiry->options.default_ttl_ms = default_ttl_ms;
    expiry_set_clock(expiry, START_MS);
    expiry_open_again(expiry);
}

static void
expiry_reopen(struct expiry *expiry)
{
    assert_int_equal(esker_close(expiry->db), ESKER_OK);
    expiry_open_again(expiry);
}

static void
expiry_close(struct expiry *expiry)
{
    assert_int_equal(esker_close(expiry->db), ESKER_OK);
    sim_disk_destroy(expiry->disk);
}

static void
expiry_put(struct expiry *expiry, const char *key, const char *value, uint64_t ttl_ms)
{
    esker_write_options options;
    esker_write_options_init(&options);
    options.ttl_ms = ttl_ms;
    assert_int_equal(esker_put(expiry->db, esker_str(key), esker_str(value), &options), ESKER_OK);
}

static esker_iter *
expiry_iter(struct expiry *expiry, const esker_snapshot *snapshot)
{
    esker_iter *it = NULL;
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    assert_int_equal(esker_iter_create(expiry->db, &options, &it), ESKER_OK);
    return it;
}

/* By every way of reading; NULL: absent. */
static void
expiry_expect(struct expiry *expiry, const esker_snapshot *snapshot, const char *key, const char *want)
{
    char copy[64];
    size_t size = 0;
    esker_value values[2] = {0};
    esker_value value = {0};
    esker_status statuses[2];
    esker_slice keys[2] = {esker_str(key), esker_str(key)};
    esker_slice found;
    esker_read_options options;
    esker_status status = want != NULL ? ESKER_OK : ESKER_NOT_FOUND;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    assert_int_equal(esker_get_copy(expiry->db, keys[0], &options, copy, sizeof copy, &size), status);
    assert_int_equal(esker_get(expiry->db, keys[0], &options, &value), status);
    assert_int_equal(esker_multi_get(expiry->db, 2, keys, &options, values, statuses), ESKER_OK);
    assert_int_equal(statuses[0], status);
    assert_int_equal(statuses[1], status);
    esker_iter *it = expiry_iter(expiry, snapshot);
    bool there = esker_iter_seek(it, keys[0]) == ESKER_OK && esker_iter_key(it).size == strlen(key) &&
                 memcmp(esker_iter_key(it).data, key, strlen(key)) == 0;
    assert_int_equal(there, want != NULL);
    if (want != NULL) {
        size_t len = strlen(want);
        assert_int_equal(size, len);
        assert_memory_equal(copy, want, len);
        assert_int_equal(value.size, len);
        assert_memory_equal(value.data, want, len);
        assert_int_equal(values[1].size, len);
        assert_memory_equal(values[1].data, want, len);
        assert_int_equal(esker_iter_value_size(it), len);
        assert_int_equal(esker_iter_value(it, &found), ESKER_OK);
        assert_int_equal(found.size, len);
        assert_memory_equal(found.data, want, len);
    }
    esker_iter_destroy(it);
    esker_value_release(&value);
    esker_value_release(&values[0]);
    esker_value_release(&values[1]);
}

static esker_stats
expiry_stats(struct expiry *expiry)
{
    esker_stats stats;
    esker_stats_init(&stats);
    assert_int_equal(esker_get_stats(expiry->db, &stats), ESKER_OK);
    return stats;
}

/* ---- One put ------------------------------------------------------------------------- */

static void
ttl__a_put_is_gone_when_its_time_is_up(void **state)
{
    (void)state;
    for (int place = 0; place < 4; place++) { /* memtable, segment, reopened log, and after a merge */
        struct expiry expiry;
        expiry_open(&expiry, 0);
        expiry_put(&expiry, "a", "older", 0);
        expiry_put(&expiry, "a", "brief", 5000);
        expiry_put(&expiry, "b", "stays", 0);
        if (place == 1 || place == 3) {
            assert_int_equal(esker_flush(expiry.db), ESKER_OK);
        }
        if (place == 2) {
            expiry_reopen(&expiry);
        }
        expiry_set_clock(&expiry, START_MS + 4000);
        expiry_expect(&expiry, NULL, "a", "brief");
        if (place == 3) {
            assert_int_equal(esker_compact(expiry.db, NULL, NULL), ESKER_OK);
            expiry_expect(&expiry, NULL, "a", "brief");
        }
        expiry_set_clock(&expiry, START_MS + 6000);
        expiry_expect(&expiry, NULL, "a", NULL);
        expiry_expect(&expiry, NULL, "b", "stays");
        assert_int_equal(esker_compact(expiry.db, NULL, NULL), ESKER_OK);
        expiry_expect(&expiry, NULL, "a", NULL); /* nor does "older" come back */
        expiry_reopen(&expiry);
        expiry_expect(&expiry, NULL, "a", NULL);
        expiry_expect(&expiry, NULL, "b", "stays");
        expiry_put(&expiry, "a", "again", 0);
        expiry_expect(&expiry, NULL, "a", "again");
        expiry_close(&expiry);
    }
}

static void
ttl__iterators_judge_all_steps_by_one_time(void **state)
{
    (void)state;
    struct expiry expiry;
    expiry_open(&expiry, 0);
    expiry_put(&expiry, "a", "1", 5000);
    expiry_put(&expiry, "b", "2", 0);
    expiry_put(&expiry, "c", "3", 5000);
    esker_iter *it = expiry_iter(&expiry, NULL);
    assert_int_equal(esker_iter_first(it), ESKER_OK);
    uint64_t expires = esker_iter_expires_ms(it);
    assert_true(expires >= START_MS + 5000 && expires < START_MS + 6000);
    expiry_set_clock(&expiry, START_MS + 9000);
    assert_int_equal(esker_iter_next(it), ESKER_OK);
    assert_int_equal(esker_iter_expires_ms(it), 0);
    assert_int_equal(esker_iter_next(it), ESKER_OK); /* "c", as when the walk began */
    assert_int_equal(esker_iter_prev(it), ESKER_OK);
    assert_int_equal(esker_iter_prev(it), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "a", 1);
    assert_int_equal(esker_iter_last(it), ESKER_OK);
    assert_memory_equal(esker_iter_key(it).data, "b", 1);
    assert_int_equal(esker_iter_prev(it), ESKER_END);
    esker_iter_destroy(it);
    expiry_close(&expiry);
}

enum { SLICE_KEYS = 1000 };

/* With blocks that come slowly, so that their time is up while the call goes on. */
static void
ttl__many_keys_are_judged_by_one_time(void **state)
{
    (void)state;
    static char names[SLICE_KEYS][8];
    static esker_slice keys[SLICE_KEYS];
    static esker_value values[SLICE_KEYS];
    static esker_status statuses[SLICE_KEYS];
    struct expiry expiry;
    esker_batch *batch = NULL;
    uint32_t gone = 0;
    expiry_open(&expiry, 0);
    expiry.options.memory_budget_bytes = 8 << 20; /* so that the keys are of several slices */
    expiry_reopen(&expiry);
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    for (uint32_t i = 0; i < SLICE_KEYS; i++) {
        (void)snprintf(names[i], sizeof names[i], "%04u", i);
        keys[i] = esker_str(names[i]);
        assert_int_equal(esker_batch_put_ttl(batch, keys[i], keys[i], 500000), ESKER_OK);
    }
    assert_int_equal(esker_write(expiry.db, batch, NULL, NULL), ESKER_OK);
    esker_batch_destroy(batch);
    assert_int_equal(esker_flush(expiry.db), ESKER_OK);
    for (uint32_t seconds = 0; seconds < 20; seconds += 1) {
        expiry_set_clock(&expiry, START_MS + 490000);
        expiry_reopen(&expiry);
        expiry_set_clock(&expiry, START_MS + 500000 - 1000 * seconds);
        assert_true(sim_disk_script(expiry.disk, "read:1:delay=1000:sticky"));
        assert_int_equal(esker_multi_get(expiry.db, SLICE_KEYS, keys, NULL, values, statuses), ESKER_OK);
        sim_disk_heal(expiry.disk);
        for (uint32_t i = 0; i < SLICE_KEYS; i++) {
            assert_int_equal(statuses[i], statuses[0]);
            if (statuses[i] == ESKER_OK) {
                esker_value_release(&values[i]);
            }
        }
        gone += statuses[0] == ESKER_NOT_FOUND ? 1 : 0;
    }
    assert_true(gone > 0 && gone < 20);
    expiry_close(&expiry);
}

/* ---- Leases ----------------------------------------------------------------------------- */

/* A clock that is asked for the nth time from now on: before it answers, the lease is renewed, a
 * moment before its time would have been up; and when it answers, that moment has passed. */
static struct {
    struct io_ops ops;
    const struct io_ops *below;
    struct expiry *expiry;
    uint32_t nth; /* 0: it does nothing */
    uint64_t expires_ms;
} lease;

static void *
lease_renew(void *arg)
{
    expiry_put(lease.expiry, "lease", "renewed", 5000);
    return arg;
}

static uint64_t
lease_wall_ns(struct io *io)
{
    if (lease.nth > 0 && --lease.nth == 0) {
        pthread_t other; /* who asks may be in a section, and those do not nest */
        expiry_set_clock(lease.expiry, lease.expires_ms - 10);
        assert_int_equal(pthread_create(&other, NULL, lease_renew, NULL), 0);
        assert_int_equal(pthread_join(other, NULL), 0);
        expiry_set_clock(lease.expiry, lease.expires_ms + 10);
    }
    return lease.below->wall_ns(io);
}

static esker_status
lease_get(uint32_t how)
{
    char copy[16];
    size_t size = 0;
    esker_value values[2] = {0};
    esker_status statuses[2];
    esker_slice keys[2] = {esker_str("lease"), esker_str("lease")};
    esker_status status;
    if (how == 0) {
        return esker_get_copy(lease.expiry->db, keys[0], NULL, copy, sizeof copy, &size);
    }
    if (how == 1) {
        status = esker_get(lease.expiry->db, keys[0], NULL, &values[0]);
        esker_value_release(&values[0]);
        return status;
    }
    assert_int_equal(esker_multi_get(lease.expiry->db, 2, keys, NULL, values, statuses), ESKER_OK);
    assert_int_equal(statuses[0], statuses[1]);
    esker_value_release(&values[0]);
    esker_value_release(&values[1]);
    return statuses[0];
}

static void
ttl__a_lease_that_is_renewed_in_time_is_never_gone(void **state)
{
    (void)state;
    for (uint32_t at = 0; at < 3 * 4 * 3;
         at++) { /* the way to read, which look at the clock, and the place */
        struct expiry expiry;
        expiry_open(&expiry, 0);
        expiry_put(&expiry, "lease", "first", 5000);
        if (at / 12 > 0) {
            assert_int_equal(esker_flush(expiry.db), ESKER_OK);
        }
        if (at / 12 > 1) {
            expiry_reopen(&expiry);
        }
        lease.expiry = &expiry;
        lease.expires_ms = expiry.now_ms + 5000;
        lease.below = expiry.db->io->ops;
        lease.ops = *lease.below;
        lease.ops.wall_ns = lease_wall_ns;
        lease.nth = at / 3 % 4 + 1;
        expiry.db->io->ops = &lease.ops;
        assert_int_equal(lease_get(at % 3), ESKER_OK);
        expiry.db->io->ops = lease.below;
        expiry_close(&expiry);
    }
}

/* ---- The clock -------------------------------------------------------------------------- */

/* A clock that says nothing yet is a time like any other. */
static void
ttl__many_keys_are_judged_where_the_clock_is_at_zero(void **state)
{
    (void)state;
    struct expiry expiry = {.disk = sim_disk_create(7)};
    esker_options_init(&expiry.options);
    expiry_set_clock(&expiry, 0);
    expiry_open_again(&expiry);
    expiry_put(&expiry, "stays", "value", 0);
    expiry_put(&expiry, "leaves", "value", 1000);
    const esker_slice keys[3] = {esker_str("stays"), esker_str("leaves"), esker_str("absent")};
    esker_value values[3];
    esker_status statuses[3];
    expiry_set_clock(&expiry, 0);
    assert_int_equal(esker_multi_get(expiry.db, 3, keys, NULL, values, statuses), ESKER_OK);
    assert_true(statuses[0] == ESKER_OK && statuses[1] == ESKER_OK && statuses[2] == ESKER_NOT_FOUND);
    esker_value_release(&values[0]);
    esker_value_release(&values[1]);
    expiry_close(&expiry);
}

static void
ttl__what_is_gone_stays_gone_when_the_clock_is_set_back(void **state)
{
    (void)state;
    struct expiry expiry;
    expiry_open(&expiry, 0);
    expiry_put(&expiry, "a", "1", 5000);
    expiry_set_clock(&expiry, START_MS + 5000 + STEP_MS);
    expiry_expect(&expiry, NULL, "a", NULL);
    expiry_set_clock(&expiry, START_MS);
    expiry_expect(&expiry, NULL, "a", NULL);
    expiry_close(&expiry);
}

/* ---- Who says how long --------------------------------------------------------------- */

static void
ttl__the_default_the_write_and_the_entry(void **state)
{
    (void)state;
    struct expiry expiry;
    esker_batch *batch = NULL;
    expiry_open(&expiry, 10000);
    assert_int_equal(esker_put(expiry.db, esker_str("default"), esker_str("x"), NULL), ESKER_OK);
    expiry_put(&expiry, "own", "x", 20000);
    expiry_put(&expiry, "ever", "x", ESKER_TTL_NONE);
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("b-write"), esker_str("x")), ESKER_OK);
    assert_int_equal(esker_batch_put_ttl(batch, esker_str("b-zero"), esker_str("x"), 0), ESKER_OK);
    assert_int_equal(esker_batch_put_ttl(batch, esker_str("b-own"), esker_str("x"), 5000), ESKER_OK);
    assert_int_equal(esker_batch_put_ttl(batch, esker_str("b-ever"), esker_str("x"), ESKER_TTL_NONE),
                     ESKER_OK);
    assert_int_equal(esker_batch_put_until(batch, esker_str("b-until"), esker_str("x"), START_MS + 8000),
                     ESKER_OK);
    assert_int_equal(esker_batch_put_until(batch, esker_str("b-past"), esker_str("x"), 1), ESKER_OK);
    assert_int_equal(esker_batch_put_until(batch, esker_str("b-ever2"), esker_str("x"), 0), ESKER_OK);
    assert_int_equal(esker_batch_delete(batch, esker_str("own")), ESKER_OK);
    assert_int_equal(esker_batch_count(batch), 8);
    esker_write_options options;
    esker_write_options_init(&options);
    options.ttl_ms = 15000;
    size_t bytes = esker_batch_size_bytes(batch);
    assert_int_equal(esker_write(expiry.db, batch, &options, NULL), ESKER_OK);
    assert_int_equal(esker_batch_size_bytes(batch), bytes);

    static const struct {
        const char *key;
        uint64_t until_ms;
    } rows[] = {{"default", 10000},   {"b-write", 15000},     {"b-zero", 15000}, {"b-own", 5000},
                {"ever", UINT64_MAX}, {"b-ever", UINT64_MAX}, {"own", 0},        {"b-until", 8000},
                {"b-past", 0},        {"b-ever2", UINT64_MAX}};

    for (uint64_t at_ms = 1000; at_ms < 30000; at_ms += 4500) {
        expiry_set_clock(&expiry, START_MS + at_ms);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            expiry_expect(&expiry, NULL, rows[i].key, at_ms < rows[i].until_ms ? "x" : NULL);
        }
    }
    /* Written once more it lives anew. */
    assert_int_equal(esker_write(expiry.db, batch, NULL, NULL), ESKER_OK);
    expiry_expect(&expiry, NULL, "b-own", "x");
    expiry_set_clock(&expiry, expiry.now_ms + 6000);
    expiry_expect(&expiry, NULL, "b-own", NULL);
    expiry_expect(&expiry, NULL, "b-write", "x"); /* by the default now */
    esker_batch_destroy(batch);
    expiry_close(&expiry);
}

static void
ttl__limits_and_older_callers(void **state)
{
    (void)state;
    struct expiry expiry;
    esker_batch *batch = NULL;
    expiry_open(&expiry, 0);
    expiry_put(&expiry, "long", "x", UINT64_MAX - 1); /* beyond the end of time */
    expiry_set_clock(&expiry, (uint64_t)1 << 43);
    expiry_expect(&expiry, NULL, "long", "x");
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    esker_slice huge = esker_bytes(batch, VALUE_BYTES_MAX - EXPIRY_BYTES + 1); /* not looked at */
    assert_int_equal(esker_batch_put_ttl(batch, esker_str("k"), huge, 1), ESKER_TOO_LARGE);
    assert_int_equal(esker_batch_put_ttl(NULL, esker_str("k"), esker_str("v"), 1), ESKER_INVALID);
    assert_int_equal(esker_batch_put_ttl(batch, esker_str(""), esker_str("v"), 1), ESKER_INVALID);
    assert_int_equal(esker_batch_count(batch), 0);
    esker_batch_destroy(batch);
    esker_write_options options;
    esker_write_options_init_sized(&options, offsetof(esker_write_options, ttl_ms));
    assert_int_equal(esker_put(expiry.db, esker_str("old"), esker_str("x"), &options), ESKER_OK);
    options.struct_size--;
    assert_int_equal(esker_put(expiry.db, esker_str("old"), esker_str("y"), &options), ESKER_INVALID);
    esker_options parsed;
    esker_options_init(&parsed);
    assert_int_equal(esker_options_parse(&parsed, "ttl=90m"), ESKER_OK);
    assert_int_equal(parsed.default_ttl_ms, 90 * 60 * 1000);
    assert_int_equal(esker_options_parse(&parsed, "ttl=2w"), ESKER_INVALID);
    expiry_close(&expiry);
}

/* ---- Merges -------------------------------------------------------------------------- */

static void
ttl__merges_give_the_space_back(void **state)
{
    (void)state;
    struct expiry expiry;
    char key[16];
    char value[200];
    memset(value, 'v', sizeof value - 1);
    value[sizeof value - 1] = 0;
    expiry_open(&expiry, 0);
    for (uint32_t i = 0; i < 500; i++) {
        snprintf(key, sizeof key, "%04u", i);
        expiry_put(&expiry, key, value, i % 5 == 0 ? 0 : 60000);
    }
    assert_int_equal(esker_compact(expiry.db, NULL, NULL), ESKER_OK);
    uint64_t before = expiry_stats(&expiry).segment_bytes;
    assert_int_equal(expiry_stats(&expiry).rows_expired, 0);
    expiry_set_clock(&expiry, START_MS + 70000);
    expiry_put(&expiry, "0000", "x", 0); /* something to merge with */
    for (uint32_t i = 0; i < 500; i += 7) {
        snprintf(key, sizeof key, "%04u", i);
        assert_int_equal(esker_delete(expiry.db, esker_str(key), NULL), ESKER_OK);
    }
    assert_int_equal(esker_compact(expiry.db, NULL, NULL), ESKER_OK);
    assert_true(expiry_stats(&expiry).rows_expired > 300);
    assert_true(expiry_stats(&expiry).segment_bytes < before / 2);
    expiry_close(&expiry);
}

/* Everything that a segment holds is over: it goes without being read. */
static void
ttl__whole_segments_go_unread(void **state)
{
    (void)state;
    struct expiry expiry;
    char key[16];
    expiry_open(&expiry, 0);
    for (uint32_t i = 0; i < 2000; i++) {
        snprintf(key, sizeof key, "%04u", i);
        expiry_put(&expiry, key, "a value of some length", 60000);
    }
    assert_int_equal(esker_compact(expiry.db, NULL, NULL), ESKER_OK);
    expiry_put(&expiry, "zzzz", "stays", 0);
    assert_int_equal(esker_flush(expiry.db), ESKER_OK);
    uint64_t segments = expiry_stats(&expiry).segments;
    assert_true(segments >= 4);
    expiry_reopen(&expiry); /* the times are known from the manifest alone */
    expiry_set_clock(&expiry, START_MS + 70000);
    expiry_put(&expiry, "zzzy", "stays", 0);
    assert_int_equal(esker_flush(expiry.db), ESKER_OK);
    uint64_t read = expiry_stats(&expiry).compaction_bytes_read;
    while (workers_run_one()) {
    }
    esker_stats stats = expiry_stats(&expiry);
    assert_int_equal(stats.segments_expired, segments - 1);
    assert_int_equal(stats.compaction_bytes_read, read);
    assert_true(stats.segments <= 2);
    expiry_expect(&expiry, NULL, "0000", NULL);
    expiry_expect(&expiry, NULL, "zzzz", "stays");
    expiry_reopen(&expiry);
    expiry_expect(&expiry, NULL, "1999", NULL);
    expiry_expect(&expiry, NULL, "zzzy", "stays");
    expiry_close(&expiry);
}

/* ---- The model ----------------------------------------------------------------------- */

struct model_version {
    uint32_t key;
    uint32_t value; /* 0 = a delete */
    uint64_t lsn, until_ms;
};

struct model {
    struct expiry expiry;
    struct rng rng;
    struct model_version versions[MODEL_VERSIONS];
    uint32_t count;
    esker_snapshot *snapshots[MODEL_SNAPSHOTS];
};

static void
model_key(uint32_t number, char out[16])
{
    snprintf(out, 16, "key%02u", number);
}

/* 0: absent. */
static uint32_t
model_get(const struct model *model, uint32_t key, uint64_t lsn)
{
    for (uint32_t i = model->count; i-- > 0;) {
        const struct model_version *version = &model->versions[i];
        if (version->key == key && version->lsn < lsn) {
            return model->expiry.now_ms < version->until_ms ? version->value : 0;
        }
    }
    return 0;
}

static void
model_write(struct model *model)
{
    esker_batch *batch = NULL;
    esker_lsn lsn = 0;
    uint32_t from = model->count;
    uint32_t entries = 1 + (uint32_t)rng_below(&model->rng, 4);
    uint64_t before = esker_visible_lsn(model->expiry.db);
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    for (uint32_t i = 0; i < entries; i++) {
        char key[16];
        char value[16];
        uint64_t ttl_ms = rng_below(&model->rng, 3) == 0 ? 0 : 1000 + 2000 * rng_below(&model->rng, 40);
        struct model_version *version = &model->versions[model->count++];
        *version = (struct model_version){.key = (uint32_t)rng_below(&model->rng, MODEL_KEYS), .lsn = before};
        model_key(version->key, key);
        if (rng_below(&model->rng, 4) == 0) {
            assert_int_equal(esker_batch_delete(batch, esker_str(key)), ESKER_OK);
            continue;
        }
        version->value = model->count;
        version->until_ms = ttl_ms == 0 ? UINT64_MAX : model->expiry.now_ms + ttl_ms;
        snprintf(value, sizeof value, "%u", version->value);
        assert_int_equal(esker_batch_put_ttl(batch, esker_str(key), esker_str(value), ttl_ms), ESKER_OK);
    }
    assert_int_equal(esker_write(model->expiry.db, batch, NULL, &lsn), ESKER_OK);
    for (uint32_t i = from; i < model->count; i++) {
        model->versions[i].lsn = lsn - 1;
    }
    esker_batch_destroy(batch);
}

static uint32_t
model_key_at(const esker_iter *it)
{
    esker_slice key = esker_iter_key(it);
    return test_digits(key.data, key.size, 3);
}

static void
model_check_expiry(const struct model *model, const esker_iter *it, uint64_t lsn)
{
    uint32_t i = model->count - 1;
    while (model->versions[i].key != model_key_at(it) || model->versions[i].lsn >= lsn) {
        assert_true(i-- > 0);
    }
    uint64_t until_ms = model->versions[i].until_ms;
    uint64_t expires_ms = esker_iter_expires_ms(it);
    if (until_ms == UINT64_MAX) {
        assert_int_equal(expires_ms, 0);
    } else {
        assert_true(expires_ms >= until_ms && expires_ms < until_ms + STEP_MS);
    }
}

static void
model_check_walk(struct model *model, const esker_snapshot *snapshot, uint64_t lsn)
{
    esker_iter *it = expiry_iter(&model->expiry, snapshot);
    uint32_t shown = 0;
    uint32_t want = 0;
    for (uint32_t key = 0; key < MODEL_KEYS; key++) {
        want += model_get(model, key, lsn) != 0;
    }
    for (esker_status status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        model_check_expiry(model, it, lsn);
        shown++;
    }
    assert_int_equal(shown, want);
    for (esker_status status = esker_iter_last(it); status == ESKER_OK; status = esker_iter_prev(it)) {
        esker_slice value;
        char text[16];
        uint32_t number = model_key_at(it);
        model_check_expiry(model, it, lsn);
        assert_int_equal(esker_iter_value(it, &value), ESKER_OK);
        snprintf(text, sizeof text, "%u", model_get(model, number, lsn));
        assert_int_equal(value.size, strlen(text));
        assert_memory_equal(value.data, text, value.size);
        shown--;
    }
    assert_int_equal(shown, 0);
    esker_iter_destroy(it);
}

static void
model_check(struct model *model, const esker_snapshot *snapshot)
{
    uint64_t lsn = snapshot != NULL ? esker_snapshot_lsn(snapshot) : UINT64_MAX;
    for (uint32_t number = 0; number < MODEL_KEYS; number++) {
        char key[16];
        char value[16];
        uint32_t want = model_get(model, number, lsn);
        model_key(number, key);
        snprintf(value, sizeof value, "%u", want);
        expiry_expect(&model->expiry, snapshot, key, want != 0 ? value : NULL);
    }
    model_check_walk(model, snapshot, lsn);
}

static void
model_drop_snapshots(struct model *model)
{
    for (uint32_t i = 0; i < MODEL_SNAPSHOTS; i++) {
        esker_snapshot_release(model->snapshots[i]);
        model->snapshots[i] = NULL;
    }
}

static void
model_step(struct model *model)
{
    uint32_t slot = (uint32_t)rng_below(&model->rng, MODEL_SNAPSHOTS);
    switch (rng_below(&model->rng, 24)) {
    case 0:
        assert_int_equal(esker_flush(model->expiry.db), ESKER_OK);
        break;
    case 1:
        assert_int_equal(esker_compact(model->expiry.db, NULL, NULL), ESKER_OK);
        break;
    case 2:
        esker_snapshot_release(model->snapshots[slot]);
        model->snapshots[slot] = NULL;
        assert_int_equal(esker_snapshot_create(model->expiry.db, &model->snapshots[slot]), ESKER_OK);
        break;
    case 3:
        if (rng_below(&model->rng, 4) == 0) {
            model_drop_snapshots(model);
            expiry_reopen(&model->expiry);
        }
        break;
    case 4:
    case 5: /* never within a step of what may expire then: calls take time, too */
        expiry_set_clock(&model->expiry, model->expiry.now_ms + 2000 * rng_below(&model->rng, 12));
        break;
    case 6:
        model_check(model, model->snapshots[slot]);
        break;
    default:
        model_write(model);
    }
}

static void
ttl__any_history_reads_as_the_model_says(void **state)
{
    static struct model model;
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        model = (struct model){.rng = {seed}};
        expiry_open(&model.expiry, 0);
        expiry_set_clock(&model.expiry,
                         START_MS + 1000); /* expiries are at even seconds, the clock at odd ones */
        for (uint32_t i = 0; i < MODEL_STEPS && model.count + 4 < MODEL_VERSIONS; i++) {
            expiry_set_clock(&model.expiry, model.expiry.now_ms); /* what calls took is not counted */
            model_step(&model);
        }
        model_check(&model, NULL);
        model_drop_snapshots(&model);
        expiry_close(&model.expiry);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ttl__a_put_is_gone_when_its_time_is_up),
        cmocka_unit_test(ttl__iterators_judge_all_steps_by_one_time),
        cmocka_unit_test(ttl__many_keys_are_judged_by_one_time),
        cmocka_unit_test(ttl__many_keys_are_judged_where_the_clock_is_at_zero),
        cmocka_unit_test(ttl__a_lease_that_is_renewed_in_time_is_never_gone),
        cmocka_unit_test(ttl__what_is_gone_stays_gone_when_the_clock_is_set_back),
        cmocka_unit_test(ttl__the_default_the_write_and_the_entry),
        cmocka_unit_test(ttl__limits_and_older_callers),
        cmocka_unit_test(ttl__merges_give_the_space_back),
        cmocka_unit_test(ttl__whole_segments_go_unread),
        cmocka_unit_test(ttl__any_history_reads_as_the_model_says),
    };
    return cmocka_run_group_tests_name("expiry", tests, NULL, NULL);
}
