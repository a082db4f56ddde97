/* SPDX-License-Identifier: MIT */
/*
 * Goal: the tests of crashes, faults and damage can fail: each of 23
 * mistakes that storage engines have made, seeded into this one, is noticed.
 * Method: the engine is built once more with switches (base/mutant.h); for each
 * of them a child process runs a quick part of those tests with the switch on,
 * and must not end well. Without a switch it must. Those
 * that break an order of syncs are also noticed by the write-ahead oracle alone.
 *
 *   mutants_test [number [edges]]     one of them, in this process, with its story; or by the oracle alone
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/mutant.h"

#define MODEL_KEYS 16
#include "../crash_bases.h" /* without the write-ahead oracle: states alone must tell */
#include "../crash_full.h"

#include <errno.h>

int esker_mutant;

enum { MUTANTS = 23, STATES_PER_MUTANT = 2500, FAULTS_MOST = 40, FAULT_BATCHES = 14, ALLOC_MOST = 16 << 20 };

static const char *const mutant_stories[MUTANTS + 1] = {
    "the engine as it is",
    "a segment is not synced before the manifest names it",
    "the directory is not synced after a segment was made",
    "the directory is not synced after CURRENT was renamed",
    "CURRENT.tmp is not synced before its rename",
    "a log file is unlinked before the edit that drops it is durable",
    "a write is acknowledged before its sync",
    "a sync is asked for together with its write, and may come first",
    "hard link: a sync that succeeds vouches for a write whose result nobody reads",
    "a short write is taken for a whole one",
    "a sync that failed is asked for again",
    "the generation of a recycled log is not in its checksums, nor the LSN beyond the place in a page",
    "the end that a recovery found is not what later recoveries go by",
    "recovery goes on behind a bad frame",
    "of two logs that a group touches only the newer one is synced",
    "LSNs are given out again after a recovery",
    "a merge ignores live snapshots",
    "a batch becomes two frames",
    "an edit whose write failed is taken for durable",
    "memory is asked for before the length is checked",
    "the checksum leaves out the first bytes of what it covers",
    "merges take what others have taken already",
    "an open that finds no room keeps the reserve",
    "the flush of recovered rows, for which all that is synced waits, may not have the reserve",
};

/* ---- Crash states ------------------------------------------------------------------- */

static const char *const chosen_steps[] = {"SpS", "RRS",  "FpS",      "dnFC",     "pFC",          "nFCnC",
                                           "bS",  "RpgS", "FFFFFFoS", "bnbbFbFC", "bRRgFobRRgFoS"};

static struct workload
chosen_workload(size_t index)
{
    struct workload workload = {
        .base = (uint32_t)(index % BASES), .level = base_level(index / BASES % 2), .seed = index};
    const char *steps = chosen_steps[index / (2 * BASES) % COUNTOF(chosen_steps)];
    for (; steps[workload.count] != '\0'; workload.count++) {
        workload.steps[workload.count] =
            (uint8_t)(strchr(step_letters, steps[workload.count]) - step_letters);
    }
    return workload;
}

/* The write-ahead oracle alone: no crash, nothing read back. */
static void
suite_edges(void)
{
    static struct crash_run run;
    edge_oracle_on = true;
    make_bases();
    for (size_t i = 0; i < (size_t)2 * BASES * COUNTOF(chosen_steps); i++) {
        run.workload = chosen_workload(i);
        uint32_t tail = run.workload.level == ESKER_DURABLE_PROCESS;
        run.history = base_histories[tail][run.workload.base];
        run.snapshot = NULL;
        describe_workload(&run.workload);
        sim_disk_destroy(run_workload(&run, bases[tail][run.workload.base]));
    }
    destroy_bases();
    edge_report();
}

static void
suite_crashes(void)
{
    limits = (struct crash_limits){
        .budget = {.subsets = 24, .torn = 8, .seed = 1}, .deep_every = 40, .states = STATES_PER_MUTANT};
    make_bases();
    for (size_t i = 0; totals.states < limits.states; i++) {
        struct workload workload = chosen_workload(i);
        uint64_t most = limits.states;
        limits.states = MIN(most, totals.states + STATES_PER_MUTANT / 60 + 1);
        check_workload(&workload);
        limits.states = most;
    }
    destroy_bases();
}

/* ---- Faults ------------------------------------------------------------------------- */

/* Batches under one fault, then a power cut: what was acknowledged is there. */
static void
fault_once(const char *script, int level)
{
    static struct history history;
    struct sim_disk *disk = sim_disk_create(5);
    struct rng rng = {11};
    struct image seen;
    esker_db *db = NULL;
    snprintf(run_text, sizeof run_text, "fault %s level %d", script, level);
    run_what = run_text;
    memset(&history, 0, sizeof history);
    sim_disk_set_sync_failure(disk, SIM_SYNC_MARKS_CLEAN);
    if (open_db(disk, level, NULL, &db) != ESKER_OK || !sim_disk_script(disk, script)) {
        fail("no database to begin with");
    }
    for (uint32_t i = 0; i < FAULT_BATCHES; i++) {
        struct batch *batch = &history.batches[history.submitted++];
        make_batch(&rng, batch, history.submitted);
        if (write_batch(db, batch, ESKER_DURABLE_SYNC) != ESKER_OK) {
            break;
        }
        history.durable = history.submitted;
        if (i % 4 == 3 && esker_flush(db) == ESKER_OK && i % 8 == 7) {
            (void)!esker_compact(db, NULL, NULL);
        }
    }
    sim_disk_heal(disk);
    sim_disk_crash(disk, SIM_CRASH_POWER_NONE, 0);
    (void)!esker_close(db);
    if (open_db(disk, level, NULL, &db) != ESKER_OK) {
        fail("open fails after a fault and a power cut");
    }
    image_read(db, &seen);
    (void)check_prefix(&history, history.durable, &seen, "something acknowledged is gone");
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    (void)!esker_close(db);
    sim_disk_destroy(disk);
}

static void
suite_faults(void)
{
    static const char *const faults[] = {"write@log-:%u:short=40", "sync@log-:%u:EIO",
                                         "write@manifest:%u:EIO", "sync@manifest:%u:EIO", "sync@0:%u:EIO"};
    for (unsigned nth = 1; nth <= FAULTS_MOST; nth++) {
        for (size_t i = 0; i < COUNTOF(faults); i++) {
            char script[64];
            snprintf(script, sizeof script, faults[i], nth);
            fault_once(script, nth % 2 == 0 ? ESKER_DURABLE_SYNC : ESKER_DURABLE_PROCESS);
        }
    }
}

/* ---- Damage ------------------------------------------------------------------------- */

static void *
limited_alloc(void *ctx, size_t size)
{
    (void)ctx;
    if (size >= ALLOC_MOST) {
        fail("a file's length was believed before it was checked");
    }
    return malloc(size);
}

static void *
limited_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    return aligned_alloc(alignment, size);
}

static void
limited_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static const esker_allocator limited_allocator = {limited_alloc, limited_aligned_alloc, limited_free, NULL};

/* Any bit of a synced frame: reported, or harmless. */
static void
damage_bit(struct sim_disk *disk, const char *log, uint64_t bit, const struct history *history)
{
    struct sim_disk *clone = sim_disk_clone(disk);
    struct image seen;
    esker_db *db = NULL;
    snprintf(run_text, sizeof run_text, "bit %llu of %s", (unsigned long long)bit, log);
    sim_disk_flip(clone, log, bit);
    if (open_db(clone, ESKER_DURABLE_SYNC, NULL, &db) == ESKER_OK) {
        image_read(db, &seen);
        (void)check_prefix(history, history->durable, &seen, "a flipped bit changed what is read");
        sim_disk_crash(clone, SIM_CRASH_KILL, 0);
        (void)!esker_close(db);
    }
    sim_disk_destroy(clone);
}

static void
suite_damage(void)
{
    static struct history history;
    struct sim_disk *disk = sim_disk_create(3);
    struct rng rng = {3};
    esker_db *db = NULL;
    run_what = run_text;
    memset(&history, 0, sizeof history);
    if (open_db(disk, ESKER_DURABLE_SYNC, NULL, &db) != ESKER_OK) {
        fail("no database to begin with");
    }
    for (uint32_t i = 0; i < 5; i++) {
        struct batch *batch = &history.batches[history.submitted++];
        make_batch(&rng, batch, history.submitted);
        if (write_batch(db, batch, ESKER_DURABLE_SYNC) != ESKER_OK) {
            fail("a write failed on a disk that works");
        }
    }
    history.durable = history.submitted - 1; /* of the last group there is no proof yet */
    sim_disk_crash(disk, SIM_CRASH_POWER_NONE, 0);
    (void)!esker_close(db);
    for (uint64_t bit = 8192 * 8; bit < (8192 + 600) * 8; bit++) {
        damage_bit(disk, "log-000001", bit, &history);
    }
    sim_disk_resize(disk, "CURRENT", 2 * ALLOC_MOST);
    if (open_db(disk, ESKER_DURABLE_SYNC, &limited_allocator, &db) != ESKER_CORRUPT) {
        fail("a CURRENT of 32 MiB was believed");
    }
    sim_disk_destroy(disk);
}

/* ---- Merges beside each other ------------------------------------------------------- */

enum { MERGE_WRITERS = 3, MERGE_PUTS = 2500, MERGE_MUTANT = 21 };

static void *
merge_writer(void *ctx)
{
    esker_db *db = ctx;
    struct rng rng = {(uint64_t)(uintptr_t)&rng};
    for (uint32_t i = 0; i < MERGE_PUTS; i++) {
        char key[16];
        static const char value[48];
        int len = snprintf(key, sizeof key, "key%05u", (unsigned)rng_below(&rng, 20000));
        if (esker_put(db, (esker_slice){key, (size_t)len}, (esker_slice){value, sizeof value}, NULL) !=
            ESKER_OK) {
            fail("a put failed on a disk that works");
        }
    }
    return NULL;
}

/* Threads that write, threads that merge; every plan is looked at beside those that run
 * (db_compact_apart.c). */
static void
suite_merges(void)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 8192, .merge_step_work = 500};
    struct sim_disk *disk = sim_disk_create(9);
    struct io *io = NULL;
    esker_options options;
    esker_db *db = NULL;
    pthread_t writers[MERGE_WRITERS];
    run_what = "merges beside each other";
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.background_threads = 4;
    if (io_sim_open(disk, &mem_default, &io) != ESKER_OK ||
        db_open_on(io, &options, &tuning, false, &db) != ESKER_OK) {
        fail("no database to begin with");
    }
    for (int i = 0; i < MERGE_WRITERS; i++) {
        if (pthread_create(&writers[i], NULL, merge_writer, db) != 0) {
            fail("no thread");
        }
    }
    for (int i = 0; i < MERGE_WRITERS; i++) {
        (void)pthread_join(writers[i], NULL);
    }
    if (esker_close(db) != ESKER_OK) {
        fail("a close failed");
    }
    sim_disk_destroy(disk);
}

/* ---- Full disks --------------------------------------------------------------------- */

enum { FULL_STATES = 1200, FULL_STATES_EACH = 60, FULL_MUTANT = 22 };

static void
suite_full(void)
{
    limits = (struct crash_limits){
        .budget = {.subsets = 6, .torn = 2, .seed = 1}, .deep_every = 64, .states = FULL_STATES};
    full_make_bases();
    for (uint64_t i = 0; totals.states < FULL_STATES; i++) {
        struct workload workload = full_workload(i * FULL_STRIDE % FULL_WORKLOADS);
        limits.states = MIN((uint64_t)FULL_STATES, totals.states + FULL_STATES_EACH);
        check_workload(&workload);
    }
    destroy_bases();
}

/* ---- The table ---------------------------------------------------------------------- */

static void
run_suites(int number, bool edges_alone)
{
    esker_mutant = number;
    edge_oracle_on = false;
    limits.states = SET_LEAST;
    run_keys = 8; /* few, so that merges meet the same ones */
    count_begin();
    if (edges_alone) {
        suite_edges();
        return;
    }
    if (number == MERGE_MUTANT || number == 0) {
        suite_merges(); /* the other mutants have nothing to do with it */
    }
    if (number >= FULL_MUTANT) {
        suite_full();
    }
    suite_damage();
    suite_faults();
    suite_crashes();
    if (number == 0) {
        suite_full();
    }
}

/* Did the child end well? */
static bool
survives(int number, bool edges_alone)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(0);
        }
        alarm(120); /* a mutant may hang, which is noticed, too */
        run_suites(number, edges_alone);
        _exit(0);
    }
    if (child < 0 || waitpid(child, &status, 0) != child) {
        perror("fork");
        exit(1);
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int
main(int argc, char **argv)
{
    if (argc > 1) {
        run_suites(atoi(argv[1]), argc > 2);
        printf("survived: %s\n", mutant_stories[atoi(argv[1])]);
        return 1;
    }
    int failures = 0;
    for (int number = 0; number <= MUTANTS; number++) {
        bool good = survives(number, false) == (number == 0);
        printf("%s M%d: %s\n", good ? "ok  " : "FAIL", number, mutant_stories[number]);
        fflush(stdout);
        failures += !good;
    }
    printf("%d of %d mutants are noticed\n", MUTANTS - failures, MUTANTS);
    static const int orders[] = {0, 1, 2, 3, 4, 5, 6, 14};
    for (size_t i = 0; i < COUNTOF(orders); i++) {
        bool good = survives(orders[i], true) == (orders[i] == 0);
        printf("%s M%d by the write-ahead oracle alone\n", good ? "ok  " : "FAIL", orders[i]);
        failures += !good;
    }
    return failures != 0;
}
