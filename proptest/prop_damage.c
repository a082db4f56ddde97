/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: one flipped bit or one cut anywhere in any file of a database is told, or
 * does no harm: never a crash, never a wrong answer, never a key that is
 * silently missing; and merging does not make a wrong answer of it later. verify
 * names the file and an offset of whatever open or a read tells, and what it
 * passes is all there.
 * Method: a small database in three states (closed; its process killed; its
 * power lost after everything was written out), every file, bits of every n-th
 * byte and cuts at every n-th length, each on a clone of the disk; and the reserve
 * of one that was closed on a nearly full disk, where every damage does no harm. What is read
 * afterwards must be the state after all commits or, where the power was lost,
 * after some that include what was durable and is recorded to have been: what
 * is gone then is counted as a tail that cannot be told from a torn one.
 *
 *   prop_damage [seed [n [state]]]    n = 1: a bit of every byte; n = 0: every bit
 *                                     and every length, as with ESKER_LONG_TESTS set;
 *                                     state: 0 to 3 for one of the four
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/rng.h"
#include "base/test_digits.h"
#include "db/db.h"
#include "db/db_files.h"
#include "io/io_sim.h"

enum { KEYS = 24, COMMITS = 60, FILES_MAX = 32, VALUE_MAX = 300 };

static const struct db_tuning tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384};

/* On a disk of so many bytes a reserve is kept. */
enum { FULL_BYTES = 256 << 10 };

static const struct db_tuning full_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384, .reserve = true};

static bool run_full;

/* value[c][k]: the commit that wrote what key k has after commit c; 0 = absent. */
static uint8_t value[COMMITS + 1][KEYS];
static uint32_t commits, durable;
static uint32_t proven; /* what the disk itself says was durable: a sync is recorded by the next one */

static uint64_t run_seed;
static char run_what[128];

static void
wrong(const char *what)
{
    const esker_error *error = status_last();
    fprintf(stderr, "seed %llu, %s: %s (last error: %s %s %s)\n", (unsigned long long)run_seed, run_what,
            what, esker_status_name(error->status), error->file, error->message);
    abort();
}

static void
check(bool holds, const char *what)
{
    if (!holds) {
        wrong(what);
    }
}

static esker_status
open_db(struct sim_disk *disk, esker_db **out)
{
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.compression = (int)(run_seed % 4);
    check(io_sim_open(disk, &mem_default, &io) == ESKER_OK, "no handle");
    return db_open_on(io, &options, run_full ? &full_tuning : &tuning, true, out);
}

static esker_slice
key_of(uint32_t key, char out[16])
{
    return esker_bytes(out, (size_t)snprintf(out, 16, "key%02u", key));
}

static size_t
value_of(uint32_t key, uint32_t commit, uint8_t *out)
{
    struct rng rng = {(uint64_t)key << 32 | commit};
    size_t size = 2 + rng_below(&rng, commit % 5 == 0 ? VALUE_MAX - 2 : 40);
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)rng_next(&rng);
    }
    return size;
}

/* ---- The database -------------------------------------------------------------- */

static void
commit_one(esker_db *db, struct rng *rng, bool sync)
{
    esker_batch *batch = NULL;
    uint8_t bytes[VALUE_MAX];
    char name[16];
    esker_write_options options;
    esker_write_options_init(&options);
    options.durability = sync ? ESKER_DURABLE_SYNC : ESKER_DURABLE_PROCESS;
    check(esker_batch_create(&batch) == ESKER_OK, "no batch");
    commits++;
    memcpy(value[commits], value[commits - 1], KEYS);
    for (uint64_t ops = 1 + rng_below(rng, 4); ops > 0; ops--) {
        uint32_t key = (uint32_t)rng_below(rng, KEYS);
        bool is_delete = rng_below(rng, 4) == 0;
        value[commits][key] = is_delete ? 0 : (uint8_t)commits;
        size_t size = value_of(key, commits, bytes);
        check((is_delete ? esker_batch_delete(batch, key_of(key, name))
                         : esker_batch_put(batch, key_of(key, name), esker_bytes(bytes, size))) == ESKER_OK,
              "a batch does not grow");
    }
    check(esker_write(db, batch, &options, NULL) == ESKER_OK, "a write failed");
    proven = sync ? durable : proven;
    durable = sync ? commits : durable;
    esker_batch_destroy(batch);
}

enum state { STATE_CLOSED, STATE_KILLED, STATE_POWER, STATE_FULL };

/* Merged and unmerged segments, more than one log, some of it synced. */
static struct sim_disk *
make_database(enum state state)
{
    struct sim_disk *disk = sim_disk_create(run_seed);
    struct rng rng = {run_seed};
    esker_db *db = NULL;
    commits = 0;
    durable = proven = 0;
    run_full = state == STATE_FULL;
    sim_disk_set_capacity(disk, run_full ? FULL_BYTES : 0);
    check(open_db(disk, &db) == ESKER_OK, "the database does not open");
    while (commits < COMMITS) {
        commit_one(db, &rng, commits % 17 == 9);
        if (commits == 14 || commits == 24 || commits == 33) {
            check(esker_flush(db) == ESKER_OK, "a flush failed");
            durable = proven = commits;
        }
        if (commits == 20) {
            check(esker_compact(db, NULL, NULL) == ESKER_OK, "a merge failed");
            durable = proven = commits;
        }
        if (commits == 40) {
            check(esker_close(db) == ESKER_OK && open_db(disk, &db) == ESKER_OK, "no second life");
            durable = proven = commits;
        }
    }
    if (state == STATE_CLOSED || state == STATE_FULL) {
        check(esker_close(db) == ESKER_OK, "a close failed");
        proven = commits;
        return disk;
    }
    sim_disk_crash(disk, state == STATE_KILLED ? SIM_CRASH_KILL : SIM_CRASH_POWER_ALL, run_seed);
    (void)esker_close(db);
    proven = state == STATE_KILLED ? commits : proven; /* the same boot: the page cache is proof */
    return disk;
}

/* ---- What is read from a damaged one --------------------------------------------- */

struct answers {
    bool can_be[COMMITS + 1]; /* the state after that many commits */
    bool told;                /* something said CORRUPT */
    bool found;               /* verify did, before */
};

static void
answers_init(struct answers *answers)
{
    *answers = (struct answers){.told = false};
    for (uint32_t c = proven; c <= commits; c++) {
        answers->can_be[c] = true;
    }
}

static bool
is_told(struct answers *answers, esker_status status)
{
    if (status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED) {
        check(status_last()->file[0] != 0 && status_last()->message[0] != 0, "damage without a file");
        check(answers->found, "verify has passed what is damaged");
        answers->told = true;
        return true;
    }
    return false;
}

/* Key k has these bytes (or nothing); which states say so? */
static void
answers_take(struct answers *answers, uint32_t key, const void *bytes, size_t size)
{
    uint8_t expected[VALUE_MAX];
    bool any = false;
    for (uint32_t c = 0; c <= commits; c++) {
        uint32_t writer = value[c][key];
        bool same = writer == 0 ? bytes == NULL
                                : bytes != NULL && value_of(key, writer, expected) == size &&
                                      memcmp(expected, bytes, size) == 0;
        answers->can_be[c] = answers->can_be[c] && same;
        any = any || answers->can_be[c];
    }
    check(any, "a wrong answer");
}

static void
read_by_gets(esker_db *db, struct answers *answers)
{
    uint8_t buf[VALUE_MAX];
    char name[16];
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        esker_status status = esker_get_copy(db, key_of(key, name), NULL, buf, sizeof buf, &size);
        if (!is_told(answers, status)) {
            check(status == ESKER_OK || status == ESKER_NOT_FOUND, "a get failed otherwise");
            answers_take(answers, key, status == ESKER_OK ? buf : NULL, size);
        }
    }
}

static void
read_by_scan(esker_db *db, struct answers *answers, bool reverse)
{
    esker_iter *it = NULL;
    check(esker_iter_create(db, NULL, &it) == ESKER_OK, "no iterator");
    uint32_t next = reverse ? KEYS : 0; /* keys from here on have not been seen */
    esker_status status = reverse ? esker_iter_last(it) : esker_iter_first(it);
    for (; status == ESKER_OK; status = reverse ? esker_iter_prev(it) : esker_iter_next(it)) {
        esker_slice bytes;
        esker_slice found = esker_iter_key(it);
        uint32_t key = test_digits(found.data, found.size, 3);
        check(esker_iter_value(it, &bytes) == ESKER_OK, "no value");
        check(key < KEYS && (reverse ? key < next : key >= next), "a scan goes astray");
        for (; reverse ? next > key + 1 : next < key; next += reverse ? (uint32_t)-1 : 1) {
            answers_take(answers, reverse ? next - 1 : next, NULL, 0);
        }
        answers_take(answers, key, bytes.data, bytes.size);
        next = reverse ? key : key + 1;
    }
    if (!is_told(answers, status)) {
        check(status == ESKER_END, "a scan failed otherwise");
        for (; reverse ? next > 0 : next < KEYS; next += reverse ? (uint32_t)-1 : 1) {
            answers_take(answers, reverse ? next - 1 : next, NULL, 0);
        }
    }
    esker_iter_destroy(it);
}

static void
read_all(esker_db *db, struct answers *answers)
{
    read_by_gets(db, answers);
    read_by_scan(db, answers, false);
    read_by_scan(db, answers, true);
}

struct counts {
    uint64_t refused, told, found, harmless, shorter;
};

struct damaged {
    const char *name;
    uint64_t bytes; /* the file's length now */
    bool named;
};

/* What verify finds names the damaged file, at an offset in it or at its end. But a manifest that was
 * cut may show in a file that it should not list any more. */
static int
each_finding(void *ctx, const esker_error *finding)
{
    struct damaged *damaged = ctx;
    check(finding->file[0] != 0 && finding->message[0] != 0, "a finding without a file");
    if (strcmp(finding->file, damaged->name) == 0) {
        check(finding->offset <= damaged->bytes, "a finding outside the file");
        damaged->named = true;
    }
    return 0;
}

static void
verify_damaged(struct sim_disk *disk, const char *name, struct answers *answers)
{
    struct io *io = NULL;
    struct bytes content = {0};
    check(sim_disk_get(disk, name, &content), "no file");
    struct damaged damaged = {.name = name, .bytes = content.len};
    check(io_sim_open(disk, &mem_default, &io) == ESKER_OK, "no handle");
    esker_status status = db_verify_on(io, each_finding, &damaged);
    answers->found = status != ESKER_OK;
    check(status == ESKER_OK || status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED,
          "verify failed otherwise");
    check(status == ESKER_OK || damaged.named || strncmp(name, "manifest", 8) == 0,
          "verify names another file");
}

/* merge: go on with it, as somebody who does not know would. */
static void
try_damaged(struct sim_disk *disk, const char *name, bool merge, struct counts *counts)
{
    struct answers answers;
    esker_db *db = NULL;
    answers_init(&answers);
    verify_damaged(disk, name, &answers);
    counts->found += answers.found ? 1 : 0;
    esker_status status = open_db(disk, &db);
    if (status != ESKER_OK) {
        check(is_told(&answers, status), "open failed otherwise");
        counts->refused++;
        return;
    }
    read_all(db, &answers);
    if (merge) {
        status = esker_compact(db, NULL, NULL);
        check(status == ESKER_OK || is_told(&answers, status), "a merge failed otherwise");
        read_all(db, &answers);
        (void)esker_close(db);
        status = open_db(disk, &db);
        if (status != ESKER_OK) {
            check(is_told(&answers, status), "the second open failed otherwise");
            counts->refused++;
            return;
        }
        read_all(db, &answers);
    }
    counts->told += answers.told ? 1 : 0;
    counts->harmless += answers.told || !answers.can_be[commits] ? 0 : 1;
    counts->shorter += answers.told || answers.can_be[commits] ? 0 : 1;
    (void)esker_close(db);
}

/* ---- Sweeps ----------------------------------------------------------------------- */

static void
flip_one(struct sim_disk *good, const char *state, const char *name, uint64_t bit, bool merge,
         struct counts *counts)
{
    snprintf(run_what, sizeof run_what, "%.40s, %.39s, bit %llu", state, name, (unsigned long long)bit);
    struct sim_disk *disk = sim_disk_clone(good);
    sim_disk_flip(disk, name, bit);
    try_damaged(disk, name, merge, counts);
    sim_disk_destroy(disk);
}

static void
cut_one(struct sim_disk *good, const char *state, const char *name, uint64_t bytes, bool merge,
        struct counts *counts)
{
    snprintf(run_what, sizeof run_what, "%.40s, %.39s cut at %llu", state, name, (unsigned long long)bytes);
    struct sim_disk *disk = sim_disk_clone(good);
    sim_disk_resize(disk, name, bytes);
    try_damaged(disk, name, merge, counts);
    sim_disk_destroy(disk);
}

/* stride 0: every bit, every length. */
static void
sweep_file(struct sim_disk *good, const char *state, const struct sim_file_info *file, uint32_t stride,
           struct counts *counts)
{
    struct rng rng = {run_seed + file->bytes};
    uint64_t round = 0;
    uint64_t step = MAX(stride, 1U);
    if (stride == 0) { /* takes minutes: on standard error is how far it is */
        fprintf(stderr, "%s: %s, %llu bytes\n", state, file->name, (unsigned long long)file->bytes);
    }
    for (uint64_t at = rng_below(&rng, step); at < file->bytes; at += step) {
        for (uint64_t bit = 0; bit < (stride == 0 ? 8 : 1); bit++) {
            uint64_t which = stride == 0 ? bit : rng_below(&rng, 8);
            flip_one(good, state, file->name, at * 8 + which, round++ % 8 == 0, counts);
        }
    }
    step = stride == 0 ? 1 : (uint64_t)stride * 4;
    for (uint64_t bytes = rng_below(&rng, MAX(stride, 1U)); bytes < file->bytes; bytes += step) {
        cut_one(good, state, file->name, bytes, round++ % 8 == 0, counts);
    }
}

/* Every file; of a full disk the reserve, which the others do not have. */
static void
sweep_state(enum state state, const char *name, uint32_t stride, struct counts *counts)
{
    struct sim_file_info files[FILES_MAX];
    struct sim_disk *good = make_database(state);
    size_t count = sim_disk_files(good, files, FILES_MAX);
    uint32_t swept = 0;
    check(count <= FILES_MAX, "more files than expected");
    for (size_t k = 0; k < count; k++) {
        if (state != STATE_FULL || strcmp(files[k].name, DB_RESERVE_NAME) == 0) {
            sweep_file(good, name, &files[k], stride, counts);
            swept++;
        }
    }
    check(swept > 0, "a full disk without a reserve");
    sim_disk_destroy(good);
    check(counts->shorter == 0 || state == STATE_POWER, "a tail is gone that was proven");
    check(state != STATE_FULL || counts->found + counts->refused + counts->told == 0,
          "a damaged reserve is told as damage");
}

int
main(int argc, char **argv)
{
    static const char *const states[] = {"closed", "killed", "power lost", "reserve"};
    run_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint32_t stride = argc > 2                             ? (uint32_t)strtoul(argv[2], NULL, 10)
                      : getenv("ESKER_LONG_TESTS") != NULL ? 0
                                                           : 16;
    uint32_t first = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) % COUNTOF(states) : 0;
    uint32_t end = argc > 3 ? first + 1 : COUNTOF(states);
    struct counts sum = {0};
    for (uint32_t i = first; i < end; i++) {
        struct counts counts = {0};
        sweep_state((enum state)i, states[i], stride, &counts);
        printf(
            "seed %llu, %s: %llu found by verify; %llu refused at open, %llu told when read, %llu harmless,"
            " %llu a shorter tail, none wrong\n",
            (unsigned long long)run_seed, states[i], (unsigned long long)counts.found,
            (unsigned long long)counts.refused, (unsigned long long)counts.told,
            (unsigned long long)counts.harmless, (unsigned long long)counts.shorter);
        sum.refused += counts.refused;
        sum.told += counts.told;
        sum.harmless += counts.harmless;
    }
    check(first == STATE_FULL || (sum.refused > 100 && sum.told > 20 && sum.harmless > 100),
          "a sweep that shows nothing");
    return 0;
}
