/* SPDX-License-Identifier: MIT */
/* rooms: tools */
/*
 * Goal: whatever threads do to a database at the same time, one order of whole
 * operations explains everything that they saw: batches, conditional batches,
 * some of either with a window of their own, deletes, gets, multi-gets,
 * snapshots new, held and of the past, scans and what they did not return,
 * refreshed iterators, closing and opening again.
 * Method: real threads on the real engine with windows so small that rotation,
 * flush and merges go on all the time; histories of it checked by version and
 * by LSN (tools/history.h, whose test shows what the checks see). Rounds take
 * turns at both log modes, both back-ends, the durability levels, few hot keys
 * and many, and at keys with one writer and with several.
 *
 *   stress_isolation [seconds [seed]]      2 seconds: as many operations as CI checks
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"
#include "stress_die.h"
#include "tools/history.h"

#if defined(__SANITIZE_ADDRESS__) || defined(ESKER_TSAN)
enum { OPS_LEAST = 60000, OPS_PER_ROUND = 6000 };
#else
enum { OPS_LEAST = 1000000, OPS_PER_ROUND = 100000 };
#endif

enum { ACTORS_MOST = 9, SESSIONS = ACTORS_MOST + 1, MAIN_SESSION = ACTORS_MOST };

enum { KEYS_MOST = 512, SPAN = 16, FILL_MOST = 200, VALUE_LEAST = 12, HELD = 6, OPS_PER_TURN = 32 };

enum {
    LARGE_BYTES = 20000,
    LARGE_ONE_IN = 400
}; /* windows have 64 KiB at most; from a quarter on it is large */

struct round {
    const char *label;
    int durability, backend;
    bool shared; /* several writers per key; every commit's LSN is recorded */
    uint32_t keys;
    uint32_t writers, readers;
};

static const struct round rounds[] = {
    {"tail, posix, one writer per key", ESKER_DURABLE_PROCESS, ESKER_IO_POSIX, false, 48, 2, 3},
    {"tail, uring, shared keys", ESKER_DURABLE_PROCESS, ESKER_IO_URING, true, 64, 2, 3},
    {"write, uring, many writers", ESKER_DURABLE_MEMORY, ESKER_IO_URING, true, 24, 8, 1},
    {"write, posix, one writer and many readers", ESKER_DURABLE_MEMORY, ESKER_IO_POSIX, false, 512, 1, 8},
    {"tail, interval, shared keys", ESKER_DURABLE_INTERVAL, ESKER_IO_POSIX, true, 512, 3, 2},
};

struct held {
    esker_snapshot *snapshot;
    uint64_t point; /* its tag in the history */
};

struct actor {
    pthread_t thread;
    uint32_t index;
    struct rng rng;
    struct history_session *log;
    esker_batch *batch;
    struct held held[HELD];
};

static const struct round *round_now;
static esker_db *db;
static struct history *history;
static _Atomic bool stop;
static _Atomic uint64_t ops_done;
static char path[] = "/tmp/esker-isolation-XXXXXX";

static esker_slice
key_name(uint32_t key, char out[16])
{
    int len = snprintf(out, 16, "key%05u", key);
    return esker_bytes(out, (size_t)len);
}

/* The tag in a value; also that it is a value of that key. */
static uint64_t
tag_of(const void *data, size_t size, uint32_t key)
{
    if (size < VALUE_LEAST || le32_load((const uint8_t *)data + 8) != key) {
        die("a value is not one of its key");
    }
    return le64_load(data);
}

static uint32_t
any_key(struct actor *actor)
{
    return (uint32_t)rng_below(&actor->rng, round_now->keys);
}

/* ---- Reading -------------------------------------------------------------------- */

static void
read_get(struct actor *actor)
{
    char name[16];
    uint8_t buf[VALUE_LEAST + FILL_MOST];
    uint32_t key = any_key(actor);
    esker_status status;
    uint64_t tag = 0;
    (void)history_begin(actor->log, HISTORY_READ);
    if (rng_below(&actor->rng, 4) > 0) {
        size_t size = 0;
        status = esker_get_copy(db, key_name(key, name), NULL, buf, sizeof buf, &size);
        tag = status == ESKER_OK ? tag_of(buf, size, key) : 0;
    } else {
        esker_value value;
        status = esker_get(db, key_name(key, name), NULL, &value);
        if (status == ESKER_OK) {
            tag = tag_of(value.data, value.size, key);
            esker_value_release(&value);
        }
    }
    if (status != ESKER_OK && status != ESKER_NOT_FOUND) {
        die("a get failed");
    }
    history_read(actor->log, key, tag);
    history_end(actor->log, HISTORY_DONE, 0);
}

/* Some keys at one point: a snapshot's, or of its own. The operation has begun. */
static void
multi_get(struct actor *actor, const esker_snapshot *snapshot)
{
    char names[8][16];
    uint32_t numbers[8];
    esker_slice keys[8];
    esker_value values[8];
    esker_status statuses[8];
    size_t count = 2 + rng_below(&actor->rng, 7);
    esker_read_options options;
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    for (size_t i = 0; i < count; i++) {
        numbers[i] = any_key(actor);
        keys[i] = key_name(numbers[i], names[i]);
    }
    must(esker_multi_get(db, count, keys, &options, values, statuses), "a multi-get failed");
    for (size_t i = 0; i < count; i++) {
        bool found = statuses[i] == ESKER_OK;
        history_read(actor->log, numbers[i], found ? tag_of(values[i].data, values[i].size, numbers[i]) : 0);
        if (found) {
            esker_value_release(&values[i]);
        }
    }
}

/* Every key of [from, to): those that the iterator does not return are absent. */
static void
scan_range(struct actor *actor, esker_iter *it, uint32_t from, uint32_t to)
{
    bool reverse = rng_below(&actor->rng, 2) == 0;
    uint32_t next = reverse ? to : from; /* not yet told; in reverse: told from here on */
    esker_status status = reverse ? esker_iter_last(it) : esker_iter_first(it);
    while (status == ESKER_OK) {
        esker_slice name = esker_iter_key(it);
        esker_slice value;
        char digits[16] = {0};
        must(esker_iter_value(it, &value), "no value");
        if (name.size != 8) {
            die("a scan returned a key that nobody wrote");
        }
        memcpy(digits, (const char *)name.data + 3, 5);
        uint32_t key = (uint32_t)strtoul(digits, NULL, 10);
        if (key < from || key >= to || (reverse ? key >= next : key < next)) {
            die("a scan is out of order or out of bounds");
        }
        for (; reverse ? next > key + 1 : next < key; next += reverse ? -1U : 1U) {
            history_read(actor->log, reverse ? next - 1 : next, 0);
        }
        history_read(actor->log, key, tag_of(value.data, value.size, key));
        next = reverse ? key : key + 1;
        status = reverse ? esker_iter_prev(it) : esker_iter_next(it);
    }
    if (status != ESKER_END) {
        die("a scan failed");
    }
    for (; reverse ? next > from : next < to; next += reverse ? -1U : 1U) {
        history_read(actor->log, reverse ? next - 1 : next, 0);
    }
}

static esker_iter *
range_iter(struct actor *actor, const esker_snapshot *snapshot, uint32_t *from, uint32_t *to)
{
    char lower[16];
    char upper[16];
    esker_iter *it = NULL;
    esker_read_options options;
    esker_read_options_init(&options);
    *from = any_key(actor);
    *to = *from + 1 + (uint32_t)rng_below(&actor->rng, SPAN);
    *to = MIN(*to, round_now->keys);
    options.lower = key_name(*from, lower);
    options.upper = key_name(*to, upper);
    options.snapshot = snapshot;
    must(esker_iter_create(db, &options, &it), "no iterator");
    return it;
}

/* An iterator's point lies between the beginning and the end of its creation, whenever it is walked. */
static void
read_scan(struct actor *actor)
{
    uint32_t from = 0;
    uint32_t to = 0;
    uint64_t point = history_begin(actor->log, HISTORY_READ);
    esker_iter *it = range_iter(actor, NULL, &from, &to);
    history_end(actor->log, HISTORY_DONE, 0);
    uint64_t refreshes = rng_below(&actor->rng, 3);
    for (uint64_t i = 0;; i++) {
        (void)history_begin_at(actor->log, point);
        scan_range(actor, it, from, to);
        history_end(actor->log, HISTORY_DONE, 0);
        if (i == refreshes) {
            break;
        }
        point = history_begin(actor->log, HISTORY_READ);
        must(esker_iter_refresh(it), "an iterator is not refreshed");
        history_end(actor->log, HISTORY_DONE, 0);
    }
    esker_iter_destroy(it);
}

static void
read_at(struct actor *actor, const struct held *held)
{
    (void)history_begin_at(actor->log, held->point);
    if (rng_below(&actor->rng, 2) == 0) {
        multi_get(actor, held->snapshot);
    } else {
        uint32_t from = 0;
        uint32_t to = 0;
        esker_iter *it = range_iter(actor, held->snapshot, &from, &to);
        scan_range(actor, it, from, to);
        if (rng_below(&actor->rng, 2) == 0) { /* newest files, the same state */
            must(esker_iter_refresh(it), "an iterator is not refreshed");
            scan_range(actor, it, from, to);
        }
        esker_iter_destroy(it);
    }
    history_end(actor->log, HISTORY_DONE, 0);
}

/* One LSN before, at or behind a commit, or anywhere not long ago. */
static esker_lsn
past_lsn(struct actor *actor)
{
    esker_lsn lsn = esker_visible_lsn(db);
    uint64_t back = rng_below(&actor->rng, 3) == 0 ? rng_below(&actor->rng, 4000) : rng_below(&actor->rng, 3);
    return lsn > back ? lsn - back : 1;
}

static void
take_snapshot(struct actor *actor, struct held *held)
{
    if (rng_below(&actor->rng, 3) > 0) {
        held->point = history_begin(actor->log, HISTORY_SNAPSHOT);
        must(esker_snapshot_create(db, &held->snapshot), "no snapshot");
        history_end(actor->log, HISTORY_DONE, esker_snapshot_lsn(held->snapshot));
        return;
    }
    esker_lsn asked = past_lsn(actor);
    held->point = history_begin(actor->log, HISTORY_PAST);
    history_asked(actor->log, asked);
    esker_status status = esker_snapshot_create_at(db, asked, &held->snapshot);
    if (status != ESKER_OK && status != ESKER_NOT_FOUND) {
        die("a snapshot of the past failed");
    }
    history_end(actor->log, status == ESKER_OK ? HISTORY_DONE : HISTORY_VOID,
                status == ESKER_OK ? esker_snapshot_lsn(held->snapshot) : 0);
}

/* Takes one, or reads at one that may have been held for long, or lets one go. */
static void
read_snapshots(struct actor *actor)
{
    struct held *held = &actor->held[rng_below(&actor->rng, HELD)];
    if (held->snapshot == NULL) {
        take_snapshot(actor, held);
    }
    if (held->snapshot != NULL) {
        read_at(actor, held);
        if (rng_below(&actor->rng, 4) == 0) {
            esker_snapshot_release(held->snapshot);
            held->snapshot = NULL;
        }
    }
}

/* ---- Writing ------------------------------------------------------------------------ */

static size_t
make_value(struct actor *actor, uint64_t tag, uint32_t key, uint8_t out[VALUE_LEAST + FILL_MOST])
{
    size_t fill = rng_below(&actor->rng, 4) == 0 ? rng_below(&actor->rng, FILL_MOST) : 8;
    memset(out, 0, VALUE_LEAST + fill);
    le64_store(out, tag);
    le32_store(out + 8, key);
    return VALUE_LEAST + fill;
}

static bool
may_write(const struct actor *actor, uint32_t key)
{
    return round_now->shared || key % round_now->writers == actor->index;
}

static void
write_single(struct actor *actor)
{
    char name[16];
    uint8_t value[VALUE_LEAST + FILL_MOST];
    uint32_t key = any_key(actor) / round_now->writers * round_now->writers + actor->index;
    key = key < round_now->keys ? key : actor->index;
    bool is_delete = rng_below(&actor->rng, 4) == 0;
    uint64_t tag = history_begin(actor->log, HISTORY_COMMIT);
    size_t size = make_value(actor, tag, key, value);
    history_write(actor->log, key, is_delete);
    esker_status status = is_delete ? esker_delete(db, key_name(key, name), NULL)
                                    : esker_put(db, key_name(key, name), esker_bytes(value, size), NULL);
    must(status, "a write failed");
    history_end(actor->log, HISTORY_DONE, 0);
}

/* Puts and deletes of some keys, each once; the operation has begun. */
static void
fill_batch(struct actor *actor, uint64_t tag, uint32_t from, uint64_t stride, uint64_t count)
{
    for (uint64_t i = 0, at = from; i < count && at < round_now->keys; i++, at += stride) {
        char name[16];
        uint8_t value[VALUE_LEAST + FILL_MOST];
        uint32_t key = (uint32_t)at;
        bool is_delete = rng_below(&actor->rng, 5) == 0;
        if (!may_write(actor, key)) {
            continue;
        }
        size_t size = make_value(actor, tag, key, value);
        must(is_delete ? esker_batch_delete(actor->batch, key_name(key, name))
                       : esker_batch_put(actor->batch, key_name(key, name), esker_bytes(value, size)),
             "a batch does not grow");
        history_write(actor->log, key, is_delete);
    }
}

/* Now and then one more row, so large that the batch gets a window of its own. No history has it. */
static void
make_large(struct actor *actor)
{
    static const uint8_t large[LARGE_BYTES];
    if (rng_below(&actor->rng, LARGE_ONE_IN) == 0) {
        must(esker_batch_put(actor->batch, esker_str("filler"), esker_bytes(large, sizeof large)),
             "a batch does not grow");
    }
}

static void
write_options_any(struct actor *actor, esker_write_options *options)
{
    static const int levels[] = {ESKER_DURABLE_MEMORY, ESKER_DURABLE_PROCESS, ESKER_DURABLE_INTERVAL};
    esker_write_options_init(options);
    if (rng_below(&actor->rng, 2000) == 0) {
        options->durability = ESKER_DURABLE_SYNC;
    } else if (rng_below(&actor->rng, 8) == 0) {
        options->durability = levels[rng_below(&actor->rng, COUNTOF(levels))];
    }
}

static void
write_batch(struct actor *actor)
{
    esker_write_options options;
    esker_lsn lsn = 0;
    write_options_any(actor, &options);
    esker_batch_clear(actor->batch);
    uint64_t tag = history_begin(actor->log, HISTORY_COMMIT);
    uint64_t count = rng_below(&actor->rng, 10) == 0 ? 2 + rng_below(&actor->rng, 48) : 4;
    fill_batch(actor, tag, any_key(actor), 1 + rng_below(&actor->rng, 5), count);
    if (esker_batch_count(actor->batch) == 0) {
        history_end(actor->log, HISTORY_VOID, 0);
        return;
    }
    make_large(actor);
    must(esker_write(db, actor->batch, &options, &lsn), "a batch failed");
    history_end(actor->log, HISTORY_DONE, lsn);
}

/* What it read at a snapshot, or at the newest state, must still be so when it writes. */
static void
write_update(struct actor *actor)
{
    uint32_t first = any_key(actor);
    uint32_t count = 1 + (uint32_t)rng_below(&actor->rng, 3);
    count = MIN(count, round_now->keys - first);
    esker_snapshot *snapshot = NULL;
    esker_write_options options;
    esker_read_options read;
    esker_lsn lsn = 0;
    write_options_any(actor, &options);
    esker_read_options_init(&read);
    must(esker_snapshot_create(db, &snapshot), "no snapshot");
    read.snapshot = snapshot;
    esker_batch_clear(actor->batch);
    uint64_t tag = history_begin(actor->log, HISTORY_COMMIT);
    for (uint32_t key = first; key < first + count; key++) {
        char name[16];
        uint8_t buf[VALUE_LEAST + FILL_MOST];
        size_t size = 0;
        esker_status status = esker_get_copy(db, key_name(key, name), &read, buf, sizeof buf, &size);
        if (status != ESKER_OK && status != ESKER_NOT_FOUND) {
            die("a get failed");
        }
        history_read(actor->log, key, status == ESKER_OK ? tag_of(buf, size, key) : 0);
        must(esker_batch_require(actor->batch, key_name(key, name), esker_snapshot_lsn(snapshot)),
             "a requirement is refused");
    }
    fill_batch(actor, tag, first, 1, count);
    make_large(actor);
    esker_status status = esker_write(db, actor->batch, &options, &lsn);
    esker_snapshot_release(snapshot);
    if (status != ESKER_OK && status != ESKER_CONFLICT) {
        die("a conditional batch failed");
    }
    history_end(actor->log, status == ESKER_OK ? HISTORY_DONE : HISTORY_VOID, lsn);
}

/* ---- Threads ------------------------------------------------------------------------- */

static bool
turn_over(struct actor *actor, uint32_t *turn)
{
    (void)actor;
    if (++*turn % OPS_PER_TURN != 0) {
        return false;
    }
    /* relaxed: only ends the round */
    return add_relaxed(&ops_done, OPS_PER_TURN) + OPS_PER_TURN >= OPS_PER_ROUND ||
           load_relaxed(&stop); /* relaxed: the same */
}

static void *
writer_main(void *arg)
{
    struct actor *actor = arg;
    for (uint32_t turn = 0; !turn_over(actor, &turn);) {
        uint64_t what = rng_below(&actor->rng, 8);
        if (!round_now->shared && what < 4) {
            write_single(actor);
        } else if (what < 6) {
            write_batch(actor);
        } else if (what < 7 && round_now->shared) {
            write_update(actor);
        } else {
            read_get(actor); /* its own writes, too */
        }
    }
    store_relaxed(&stop, true); /* relaxed: ends the round */
    return NULL;
}

static void *
reader_main(void *arg)
{
    struct actor *actor = arg;
    for (uint32_t turn = 0; !turn_over(actor, &turn);) {
        uint64_t what = rng_below(&actor->rng, 16);
        if (what < 8) {
            read_get(actor);
        } else if (what < 11) {
            (void)history_begin(actor->log, HISTORY_READ);
            multi_get(actor, NULL);
            history_end(actor->log, HISTORY_DONE, 0);
        } else if (what < 13) {
            read_scan(actor);
        } else {
            read_snapshots(actor);
        }
    }
    store_relaxed(&stop, true); /* relaxed: ends the round */
    return NULL;
}

static void *
churn_main(void *arg)
{
    struct actor *actor = arg;
    while (!load_relaxed(&stop)) { /* relaxed: only ends the loop */
        usleep(20000);
        must(rng_below(&actor->rng, 2) == 0 ? esker_compact(db, NULL, NULL) : esker_flush(db),
             "flush or merge failed");
    }
    return NULL;
}

static void *
idle_main(void *arg)
{
    return arg;
}

/* ---- Rounds ----------------------------------------------------------------------------- */

static void
open_small(void)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 16384, .window_bytes_max = 65536, .segment_bytes = 65536};
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.durability = round_now->durability;
    struct io *io = NULL;
    must(io_open_dir(path, true, round_now->backend, &mem_default, &io), "no directory");
    must(db_open_on(io, &options, &tuning, false, &db), "open failed");
}

/* Everything that is there, as one read. */
static void
read_all(struct actor *actor)
{
    esker_iter *it = NULL;
    (void)history_begin(actor->log, HISTORY_READ);
    esker_read_options options;
    esker_read_options_init(&options);
    options.lower = esker_str("key");
    must(esker_iter_create(db, &options, &it), "no iterator");
    scan_range(actor, it, 0, round_now->keys);
    history_end(actor->log, HISTORY_DONE, 0);
    esker_iter_destroy(it);
}

static void
release_all(struct actor *actor)
{
    for (int i = 0; i < HELD; i++) {
        esker_snapshot_release(actor->held[i].snapshot);
        actor->held[i].snapshot = NULL;
    }
}

static void
check(enum history_check by, struct history_report *report)
{
    enum history_verdict verdict = history_check(history, by, report);
    if (verdict == HISTORY_BAD) {
        fprintf(stderr, "stress_isolation: seed %llu, %s, %s:\n%s", (unsigned long long)seed,
                round_now->label, by == HISTORY_BY_LSN ? "by LSN" : "by version", report->story);
        abort();
    }
    if (verdict != HISTORY_GOOD) {
        die(report->story[0] != 0 ? report->story : "no memory for the check");
    }
}

/* Returns how many operations were checked. */
static uint64_t
run_round(struct actor actors[SESSIONS])
{
    static struct history_report report;
    history_clear(history);
    store_relaxed(&stop, false);  /* relaxed: no other thread yet */
    store_relaxed(&ops_done, 0U); /* relaxed: the same */
    open_small();
    uint32_t count = round_now->writers + round_now->readers;
    for (uint32_t i = 0; i < SESSIONS; i++) {
        actors[i].log = history_session(history, i);
        void *(*run)(void *) = idle_main;
        if (i == MAIN_SESSION) {
            run = churn_main;
        } else if (i < count) {
            run = i < round_now->writers ? writer_main : reader_main;
        }
        if (pthread_create(&actors[i].thread, NULL, run, &actors[i]) != 0) {
            die("no thread");
        }
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        pthread_join(actors[i].thread, NULL);
        release_all(&actors[i]);
    }
    read_all(&actors[MAIN_SESSION]);
    must(esker_close(db), "close failed");
    open_small();
    read_all(&actors[MAIN_SESSION]);
    must(esker_close(db), "close failed");
    must(esker_destroy(path), "destroy failed");
    check(HISTORY_BY_VERSION, &report);
    if (round_now->shared) {
        check(HISTORY_BY_LSN, &report);
    }
    return report.ops;
}

int
main(int argc, char **argv)
{
    static struct actor actors[SESSIONS];
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 2;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    round_now = &rounds[0];
    stress_part = round_now->label;
    history = history_create(SESSIONS, KEYS_MOST);
    if (mkdtemp(path) == NULL || history == NULL) {
        return 1;
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        actors[i] = (struct actor){.index = i, .rng = {seed * 977 + i}};
        must(esker_batch_create(&actors[i].batch), "no batch");
    }
    uint64_t until = history_now() + (seconds > 2 ? seconds * 1000000000 : 0);
    uint64_t ops = 0;
    for (size_t i = 0; ops < OPS_LEAST || history_now() < until; i++) {
        round_now = &rounds[i % COUNTOF(rounds)];
        stress_part = round_now->label;
        ops += run_round(actors);
    }
    for (uint32_t i = 0; i < SESSIONS; i++) {
        esker_batch_destroy(actors[i].batch);
    }
    history_destroy(history);
    printf("%llu operations, strictly serialisable\n", (unsigned long long)ops);
    return 0;
}
