/* SPDX-License-Identifier: MIT */
/*
 * Every state that a crash at any point of a recorded workload may leave:
 * opened, compared with the prefixes of what was submitted, written on, crashed
 * again. Shared by the programs that enumerate them and the proof that they
 * find seeded faults.
 */
#ifndef ESKER_PROPTEST_CRASH_STATES_H
#define ESKER_PROPTEST_CRASH_STATES_H

#include "crash_run.h"

enum {
    STATE_TRIES = 50,
    ERASE_ALL_EACH = 8,           /* so many states are emptied */
    FULL_RESERVE_LEAST = 28 << 10 /* a whole one is larger */
};

/* ---- What is in the directory ------------------------------------------------------- */

static const struct segment_meta *
directory_find_segment(const struct version *version, uint64_t id)
{
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            if (segment_meta(run->segments[i])->id == id) {
                return segment_meta(run->segments[i]);
            }
        }
    }
    return NULL;
}

static bool
directory_lists_log(const esker_db *db, uint64_t number)
{
    for (size_t i = 0; i < db->log_number_count; i++) {
        if (db->log_numbers[i] == number) {
            return true;
        }
    }
    return false;
}

/* Just opened: each file is one that the database names, at the size that it
 * believes; what it names is there. A file of its kind that it does not name may
 * be left only if nothing in it proves that it is its own. */
static void
check_directory(struct sim_disk *disk, esker_db *db)
{
    static struct sim_file_info files[256];
    const struct version *version = load_acquire(&db->current);
    size_t count = sim_disk_files(disk, files, COUNTOF(files));
    uint64_t log_bytes = 0, logs = 0, segments = 0, listed = 0;
    ASSERT(count <= COUNTOF(files));
    for (size_t i = 0; i < count; i++) {
        struct db_file file = {0};
        memcpy(file.name, files[i].name, sizeof file.name);
        file.kind = db_file_classify(file.name, &file.number);
        const struct segment_meta *meta =
            file.kind == DB_FILE_SEGMENT ? directory_find_segment(version, file.number) : NULL;
        bool known = file.kind == DB_FILE_LOCK || file.kind == DB_FILE_CURRENT;
        bool ours = false;
        if (meta != NULL && meta->size_bytes == files[i].bytes) {
            segments++;
            known = true;
        } else if (file.kind == DB_FILE_LOG && directory_lists_log(db, file.number)) {
            logs++;
            log_bytes += files[i].bytes;
            known = true;
        } else if (file.kind == DB_FILE_MANIFEST) {
            known = file.number == manifest_number(db->manifest);
        } else if (file.kind == DB_FILE_RESERVE) {
            known = model_reserve && db->reserve_bytes == files[i].bytes;
            if (!known && files[i].bytes > DB_FILE_HEAD_BYTES) {
                fail("a reserve is not known for one");
            }
        }
        if (!known && (db_file_is_ours(db->io, &file, db->uuid, &ours) != ESKER_OK || ours)) {
            fprintf(stderr, "%s\n", file.name);
            fail("a file of the database that it does not name is left behind");
        }
        totals.leftovers += !known;
    }
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        listed += version->levels[level] != NULL ? version->levels[level]->count : 0;
    }
    if (segments != listed || logs != db->log_number_count || logs != db->log_file_count ||
        log_bytes != db->log_file_bytes) {
        fail("files that the database names are missing, or their sizes are not accounted for");
    }
}

static void
check_verify(struct sim_disk *disk, const char *when)
{
    struct io *io = NULL;
    if (io_sim_open(disk, &mem_default, &io) != ESKER_OK || db_verify_on(io, NULL, NULL) != ESKER_OK) {
        fail(when);
    }
    totals.verified++;
}

/* ---- A state ----------------------------------------------------------------------- */

/* Millions of states are opened one after the other: the C library's heap keeps what each gives
 * back, where the engine's own would map and unmap its pages each time. Workloads have that one. */
static void *
state_alloc(void *ctx, size_t size)
{
    (void)ctx;
    return malloc(size);
}

static void *
state_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    return aligned_alloc(alignment, align_up(size, alignment));
}

static void
state_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static const esker_allocator state_allocator = {state_alloc, state_aligned_alloc, state_free, NULL};

/* Is there all of a reserve on the disk, and no more than the disk can hold? */
static bool
state_has_reserve(struct sim_disk *disk, uint64_t capacity)
{
    static struct sim_file_info files[256];
    struct bytes reserve;
    uint64_t sum = 0;
    bool zeros = true;
    if (capacity == 0 || !sim_disk_get(disk, DB_RESERVE_NAME, &reserve)) {
        return false;
    }
    for (size_t i = 0; i < MIN(reserve.len, (size_t)DB_FILE_HEAD_BYTES); i++) {
        zeros = zeros && reserve.ptr[i] == 0;
    }
    for (size_t i = sim_disk_files(disk, files, COUNTOF(files)); i-- > 0;) {
        sum += files[i].bytes;
    }
    bool whole = zeros && reserve.len >= FULL_RESERVE_LEAST;
    totals.with_reserve++;
    totals.with_less += !whole;
    return whole && sum <= capacity;
}

/* What is on a full disk may be too much to open it, unless there is a reserve; never when there is
 * room again. */
static esker_status
state_open(struct sim_disk *disk, const struct crash_run *run, bool reserve, esker_db **db)
{
    sim_disk_set_capacity(disk, run->workload.capacity);
    esker_status status = open_db(disk, run->workload.level, &state_allocator, db);
    if (status == ESKER_NO_SPACE && run->workload.capacity != 0 && !reserve) {
        totals.full++;
        sim_disk_set_capacity(disk, 0);
        status = open_db(disk, run->workload.level, &state_allocator, db);
    }
    return status;
}

/* A write that is refused at first, while jobs make room. */
static bool
state_put(struct sim_disk *disk, struct crash_run *run, esker_db *db, struct rng *rng, uint32_t ops, int kind)
{
    bool taken = run_batch(run, disk, db, rng, ops, kind);
    for (int tries = 0; run->workload.capacity != 0 && !taken && tries < STATE_TRIES; tries++) {
        run_jobs(disk, JOBS_MOST);
        taken = run_batch(run, disk, db, rng, ops, kind);
    }
    return taken;
}

/* On a full disk: deletes are taken, out of the reserve if there is one; all of them make room. */
static void
state_erase(struct sim_disk *disk, struct crash_run *run, esker_db *db, struct rng *rng, bool reserve)
{
    uint32_t first = (uint32_t)rng_below(rng, run_keys);
    uint32_t most = rng_below(rng, ERASE_ALL_EACH) == 0 ? run_keys : 1;
    uint32_t taken = 0;
    for (uint32_t i = 0; i < most; i++) {
        bool good = run_delete(run, disk, db, (first + i) % run_keys);
        for (int tries = 0; !good && tries < STATE_TRIES; tries++) {
            run_jobs(disk, JOBS_MOST);
            good = run_delete(run, disk, db, (first + i) % run_keys);
        }
        if (!good && reserve) {
            fail("a delete is refused where there is a reserve");
        }
        taken += good;
        run_jobs(disk, rng_below(rng, ERASE_JOBS));
    }
    totals.deleted += taken > 0;
    if (most == run_keys && taken == most) {
        run_jobs(disk, JOBS_MOST);
        if (!state_put(disk, run, db, rng, 1, STEP_PUT)) {
            fail("a put is refused where everything was deleted");
        }
        totals.emptied++;
    }
}

/* Two writes; on a full disk deletes before them, then there is room again. */
static void
state_write_on(struct sim_disk *disk, struct crash_run *run, esker_db *db, struct rng *rng, bool reserve)
{
    run->no_space = run->workload.capacity != 0;
    if (run->no_space) {
        state_erase(disk, run, db, rng, reserve);
        sim_disk_set_capacity(disk, 0);
    }
    for (uint32_t i = 0; i < 2; i++) {
        if (!state_put(disk, run, db, rng, 1 + i, i == 0 ? STEP_PUT : STEP_PUT_SYNC)) {
            fail("a write is refused where there is room");
        }
    }
}

/* Opens it and compares; then writes on, loses power and compares again.
 * `history` is changed to what the database then holds. Records if asked to. */
static void
check_state(struct sim_disk *disk, struct crash_run *run, uint32_t least, bool record)
{
    struct history *history = &run->history;
    struct rng rng = {run->workload.seed + history->submitted};
    esker_db *db = NULL;
    struct image seen;
    bool verify = limits.verify_every != 0 && totals.states % limits.verify_every == 0;
    if (verify && sim_disk_exists(disk, DB_CURRENT_NAME)) {
        check_verify(disk, "verify finds damage in a legal crash state");
    }
    history->acked = history->durable = least; /* the crash took the rest */
    if (record) {
        sim_disk_record(disk);
        run->mark_count = run->lost = 0;
        run_mark(run, disk);
    }
    bool reserve = state_has_reserve(disk, run->workload.capacity);
    if (state_open(disk, run, reserve, &db) != ESKER_OK) {
        fail("open refuses a legal crash state");
    }
    if (esker_visible_lsn(db) < history->lsn_seen) {
        fprintf(stderr, "visible %llu, seen before %llu\n", (unsigned long long)esker_visible_lsn(db),
                (unsigned long long)history->lsn_seen);
        fail("an LSN that was seen before the crash would be used again");
    }
    check_directory(disk, db);
    image_read(db, &seen);
    history->submitted = check_prefix(history, least, &seen, "the contents are no legal prefix");
    history->acked = history->submitted;
    if (record) {
        run_mark(run, disk);
    }
    state_write_on(disk, run, db, &rng, reserve);
    if (record) {
        sim_disk_set_log(disk, false);
    }
    sim_disk_crash(disk, SIM_CRASH_POWER_NONE, 0);
    (void)!esker_close(db);
    if (open_db(disk, run->workload.level, &state_allocator, &db) != ESKER_OK) {
        fail("open refuses the state after a recovery and two writes");
    }
    check_directory(disk, db);
    image_read(db, &seen);
    (void)check_prefix(history, history->submitted, &seen, "what was synced after a recovery is lost");
    sim_disk_crash(disk, SIM_CRASH_POWER_NONE, 0);
    (void)!esker_close(db);
    if (verify) {
        check_verify(disk, "verify finds damage after a recovery");
    }
}

struct enumeration {
    struct crash_run *run;   /* what led to the log; marks */
    const struct mark *mark; /* of the last one before the cut */
    struct sim_states *states;
    uint64_t key;    /* of the state at hand */
    uint32_t deeper; /* how many crashes may follow */
};

static void enumerate(struct sim_disk *base, struct sim_disk *recorded, struct crash_run *run,
                      const struct sim_budget *budget, uint32_t deeper);

/* The run as far as a crash after `mark` can tell. */
static void
run_copy(struct crash_run *to, const struct crash_run *from, const struct mark *mark)
{
    uint32_t number = (uint32_t)(mark - from->marks);
    to->workload = from->workload;
    memcpy(to->history.batches, from->history.batches, mark->submitted * sizeof from->history.batches[0]);
    for (uint32_t i = 0; i < mark->submitted; i++) {
        struct batch *batch = &to->history.batches[i];
        batch->op_count = batch->lost_at != 0 && batch->lost_at <= number ? 0 : batch->op_count;
        batch->lost_at = 0;
    }
    to->history.submitted = mark->submitted;
    to->history.acked = mark->acked;
    to->history.durable = mark->durable;
    to->history.lsn_seen = mark->lsn_seen;
    to->mark_count = to->lost = 0;
    to->snapshot = NULL;
}

/* One more state, unless it was met before. choice: NULL = only the process died. */
static void
enumerate_one(struct enumeration *enumeration, const struct sim_choice *choice)
{
    static struct crash_run after[3];
    const struct mark *mark = enumeration->mark;
    struct crash_run *run = &after[enumeration->deeper];
    bool logged = run->workload.level != ESKER_DURABLE_MEMORY;
    bool picked = enumeration->key % limits.deep_every == 0; /* the same ones in every run */
    bool deep = choice != NULL && enumeration->deeper > 0 && picked;
    struct sim_disk *disk = choice != NULL ? sim_states_disk(enumeration->states, choice)
                                           : sim_states_killed(enumeration->states);
    struct sim_disk *base = deep ? sim_disk_clone(disk) : NULL;
    run_path[run_path_len].states = enumeration->states;
    run_path[run_path_len++].choice = choice;
    run_copy(run, enumeration->run, mark);
    check_state(disk, run, choice == NULL && logged ? mark->acked : mark->durable, deep);
    count_state();
    totals.kinds[enumeration->deeper == 0][choice != NULL ? choice->model : SIM_MODELS]++;
    if (deep) {
        uint64_t before = totals.states;
        static const struct sim_budget few = {.subsets = 12, .torn = 2, .seed = 1};
        enumerate(base, disk, run, &few, enumeration->deeper - 1);
        totals.deep_states += totals.states - before;
        sim_disk_destroy(base);
    }
    run_path_len--;
    sim_disk_destroy(disk);
}

/* Equal states of equal promises are one; a machine that was not rebooted is another one. */
static bool
enumerate_is_new(struct enumeration *enumeration, const struct sim_choice *choice, bool killed)
{
    const struct mark *mark = enumeration->mark;
    uint64_t promised =
        hash_mix((uint64_t)(killed ? mark->acked : mark->durable) << 32 | mark->submitted,
                 hash_mix(mark->lsn_seen, (uint64_t)mark->lost << 32 |
                                              (uint64_t)enumeration->run->workload.level << 1 | killed));
    enumeration->key = hash_mix(sim_states_hash(enumeration->states, choice), promised);
    bool is_new = state_is_new(enumeration->key);
    totals.repeated += !is_new;
    return is_new;
}

static bool
enumerate_choice(void *ctx, const struct sim_choice *choice)
{
    struct enumeration *enumeration = ctx;
    totals.choices[enumeration->deeper == 0][choice->model]++;
    if (enumerate_is_new(enumeration, choice, false)) {
        enumerate_one(enumeration, choice);
    }
    return count_goes_on();
}

/* A process that dies here: everything that was written is in the cache. Not
 * between stores, which the log has in no order of time. */
static void
enumerate_kill(struct enumeration *enumeration)
{
    const struct sim_log_entry *next = sim_states_peek(enumeration->states);
    if (next != NULL && next->kind == SIM_LOG_STORE) {
        return;
    }
    struct sim_choice all = {.model = SIM_MODEL_STRICT, .torn = -1};
    memset(all.kept, 0xff, sizeof all.kept);
    if (enumerate_is_new(enumeration, &all, true)) {
        totals.kills++;
        enumerate_one(enumeration, NULL);
    }
}

/* While all subsets are looked at, those of a cut are among those of the next one if all of that one
 * are looked at, too, and nothing in between takes freedom away or promises more. */
static bool
enumerate_is_due(const struct sim_states *states, const struct sim_budget *budget)
{
    const struct sim_log_entry *next = sim_states_peek(states);
    bool all = sim_states_free(states) + 1 <= sim_budget_all(budget);
    return !all || next == NULL || next->kind == SIM_SYNC || next->kind == SIM_SYNC_DIR ||
           next->kind == SIM_LOG_MARK;
}

/* Every cut of a recorded log. */
static void
enumerate(struct sim_disk *base, struct sim_disk *recorded, struct crash_run *run,
          const struct sim_budget *budget, uint32_t deeper)
{
    struct sim_states *states = sim_states_create(base, recorded);
    struct enumeration enumeration = {.run = run, .mark = &run->marks[0], .states = states, .deeper = deeper};
    const struct sim_log_entry *entry;
    while (count_goes_on() && (entry = sim_states_next(states)) != NULL) {
        if (entry->kind == SIM_LOG_MARK) {
            enumeration.mark = &run->marks[entry->offset];
        }
        if (enumerate_is_due(states, budget)) {
            totals.cuts[deeper == 0][sim_states_free(states) <= sim_budget_all(budget)]++;
            sim_states_each(states, budget, enumerate_choice, &enumeration);
        }
        enumerate_kill(&enumeration);
    }
    sim_states_destroy(states);
}

/* ---- Where workloads begin ----------------------------------------------------------- */

static int
base_level(uint32_t tail)
{
    return tail != 0 ? ESKER_DURABLE_PROCESS : ESKER_DURABLE_SYNC;
}

static void
destroy_bases(void)
{
    for (uint32_t tail = 0; tail < 2; tail++) {
        for (uint32_t base = 0; base < BASES_ALL; base++) {
            if (bases[tail][base] != NULL) {
                sim_disk_destroy(bases[tail][base]);
                bases[tail][base] = NULL;
            }
        }
    }
}

static void
check_workload(const struct workload *workload)
{
    static struct crash_run run;
    uint32_t tail = workload->level == ESKER_DURABLE_PROCESS;
    run_seed = workload->seed;
    run.workload = *workload;
    run.history = base_histories[tail][workload->base];
    run.snapshot = NULL;
    model_reserve = workload->capacity != 0;
    describe_workload(workload);
    struct sim_disk *disk = run_workload(&run, bases[tail][workload->base]);
    enumerate(bases[tail][workload->base], disk, &run, &limits.budget, 1);
    totals.workloads++;
    sim_disk_destroy(disk);
}

#endif
