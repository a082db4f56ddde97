/* SPDX-License-Identifier: MIT */
/*
 * Workloads on a simulated disk that records, and every state that a crash at
 * any point of them may leave: opened, compared with the prefixes of what was
 * submitted, written on, crashed again. Shared by prop_crash_states.c and the
 * proof that it finds seeded faults.
 */
#ifndef ESKER_PROPTEST_CRASH_STATES_H
#define ESKER_PROPTEST_CRASH_STATES_H

#define MODEL_KEYS 8

#include "base/hash.h"
#include "batch_model.h"
#include "io/io_sim_states.h"

enum step {
    STEP_PUT_SYNC,
    STEP_PUT,
    STEP_DELETE,
    STEP_BATCH,
    STEP_FLUSH,
    STEP_COMPACT,
    STEP_ROTATE,
    STEP_SNAPSHOT,
    STEP_REOPEN,
    STEP_NO_SPACE,
    STEP_BACKGROUND,
    STEPS
};

static const char step_letters[] = "SpdbFCRnoNg";

enum { STEPS_MAX = 64, MARKS_MAX = 1024, BASES = 3 };

/* What was promised at a point of the log. */
struct mark {
    uint32_t submitted, acked, durable;
    esker_lsn lsn_seen;
};

struct workload {
    uint8_t steps[STEPS_MAX];
    uint32_t count;
    uint32_t base;
    int level;
    uint64_t seed;
};

struct crash_run {
    struct workload workload;
    struct history history;
    struct mark marks[MARKS_MAX];
    uint32_t mark_count;
    bool no_space;
    esker_snapshot *snapshot;
    struct image snapshot_image;
};

struct crash_limits {
    struct sim_budget budget;
    uint32_t deep_every;   /* each so-manieth state's own recovery is taken apart, too */
    uint32_t verify_every; /* each so-manieth is verified before and after its recovery; 0 = none */
    uint64_t states;       /* stop after so many */
};

struct state_set {
    uint64_t *keys;
    uint64_t count, cap;
};

/* [0]: of a workload, [1]: of a recovery and what was written behind it. */
struct crash_totals {
    uint64_t workloads, bounded, states, repeated, deep_states, kills, operations;
    uint64_t kinds[2][SIM_MODELS + 1]; /* states by the model that led there first; the last: kills */
    uint64_t choices[2][SIM_MODELS];   /* states that were asked for, by model */
    uint64_t verified, leftovers;
};

static struct crash_limits limits;
static struct crash_totals totals;
static struct state_set seen_states;
static struct sim_disk *bases[2][BASES];
static struct history base_histories[2][BASES];

/* ---- The set of states that were checked ---------------------------------------- */

static bool
state_is_new(uint64_t key)
{
    struct state_set *set = &seen_states;
    key |= key == 0;
    if (set->count * 2 >= set->cap) {
        struct state_set larger = {.cap = MAX(set->cap * 2, (uint64_t)1 << 16)};
        larger.keys = mem_zalloc_array(&mem_default, larger.cap, sizeof *larger.keys);
        ASSERT(larger.keys != NULL);
        for (uint64_t i = 0; i < set->cap; i++) {
            if (set->keys[i] != 0) {
                uint64_t at = set->keys[i] & (larger.cap - 1);
                while (larger.keys[at] != 0) {
                    at = (at + 1) & (larger.cap - 1);
                }
                larger.keys[at] = set->keys[i];
            }
        }
        larger.count = set->count;
        mem_free(&mem_default, set->keys);
        *set = larger;
    }
    uint64_t at = key & (set->cap - 1);
    while (set->keys[at] != 0 && set->keys[at] != key) {
        at = (at + 1) & (set->cap - 1);
    }
    bool is_new = set->keys[at] == 0;
    set->keys[at] = key;
    set->count += is_new;
    return is_new;
}

/* ---- A workload ------------------------------------------------------------------ */

static char run_text[4096];

/* The crashes that led to the state at hand, outermost first: told when something fails. */
static struct {
    const struct sim_states *states;
    const struct sim_choice *choice; /* NULL: the process was killed */
} run_path[4];

static size_t run_path_len;

/* So that a failure says which state it was. */
static void
describe_path(void)
{
    char state[768];
    for (size_t at = 0; at < run_path_len; at++) {
        size_t len = strlen(run_text);
        if (run_path[at].choice != NULL) {
            sim_states_describe(run_path[at].states, run_path[at].choice, state, sizeof state);
        } else {
            snprintf(state, sizeof state, "killed at %zu", sim_states_cut(run_path[at].states));
        }
        snprintf(run_text + len, sizeof run_text - len, " | %s", state);
    }
    run_path_len = 0;
}

static void
describe_workload(const struct workload *workload)
{
    char steps[STEPS_MAX + 1] = {0};
    for (uint32_t i = 0; i < workload->count; i++) {
        steps[i] = step_letters[workload->steps[i]];
    }
    snprintf(run_text, sizeof run_text, "workload %s:%u:%d:%llu", steps, workload->base, workload->level,
             (unsigned long long)workload->seed);
    run_what = run_text;
    run_path_len = 0;
    run_explain = describe_path;
}

static void
run_mark(struct crash_run *run, struct sim_disk *disk)
{
    const struct history *history = &run->history;
    ASSERT(run->mark_count < MARKS_MAX);
    run->marks[run->mark_count] =
        (struct mark){history->submitted, history->acked, history->durable, history->lsn_seen};
    sim_disk_mark(disk, run->mark_count++);
}

static void
run_batch(struct crash_run *run, struct sim_disk *disk, esker_db *db, struct rng *rng, uint32_t ops, int kind)
{
    struct history *history = &run->history;
    struct batch *batch = &history->batches[history->submitted];
    bool sync = kind == STEP_PUT_SYNC;
    make_batch(rng, batch, history->submitted + 1);
    batch->op_count = ops;
    for (uint32_t i = 0; i < ops; i++) {
        batch->ops[i].is_delete = kind == STEP_DELETE || (kind == STEP_BATCH && i == 1);
        batch->ops[i].key = (uint32_t)rng_below(rng, KEYS);
        batch->ops[i].size = kind == STEP_ROTATE ? VALUE_MAX : 4 + (uint32_t)rng_below(rng, 40);
    }
    history->submitted++;
    history->lsn_seen = esker_visible_lsn(db);
    run_mark(run, disk);
    esker_status status = write_batch(db, batch, sync ? ESKER_DURABLE_SYNC : ESKER_DURABLE_DEFAULT);
    if (status == ESKER_NO_SPACE) {
        history->submitted--; /* nothing was written */
        return;
    }
    if (status == ESKER_IO && run->no_space) {
        return; /* it is visible, and becomes durable when there is space */
    }
    if (status != ESKER_OK) {
        fail("a write failed on a disk that works");
    }
    history->acked = history->submitted;
    history->durable =
        sync || run->workload.level == ESKER_DURABLE_SYNC ? history->submitted : history->durable;
    run_mark(run, disk);
}

static void
run_made_durable(struct crash_run *run, struct sim_disk *disk, esker_status status)
{
    if (status != ESKER_OK && status != ESKER_NO_SPACE) {
        fail("a call failed on a disk that works");
    }
    if (status == ESKER_OK) {
        run->history.durable = run->history.submitted;
        run_mark(run, disk);
    }
}

/* A snapshot sees what it saw, whatever was flushed and merged since. */
static void
run_check_snapshot(struct crash_run *run, esker_db *db)
{
    static uint8_t buf[VALUE_MAX];
    if (run->snapshot == NULL) {
        return;
    }
    esker_read_options read;
    esker_read_options_init(&read);
    read.snapshot = run->snapshot;
    for (uint32_t key = 0; key < KEYS; key++) {
        char name[16];
        size_t size = 0;
        esker_status status =
            esker_get_copy(db, bytes_to_slice(make_key(key, name)), &read, buf, sizeof buf, &size);
        uint32_t id = status == ESKER_OK ? le32_load(buf) : 0;
        if ((status != ESKER_OK && status != ESKER_NOT_FOUND) || id != run->snapshot_image.id[key]) {
            fail("a snapshot changed");
        }
    }
    esker_snapshot_release(run->snapshot);
    run->snapshot = NULL;
}

static void
run_open(struct crash_run *run, struct sim_disk *disk, esker_db **db)
{
    if (open_db(disk, run->workload.level, NULL, db) != ESKER_OK) {
        fail("open failed on a disk that works");
    }
    run->history.lsn_seen = MAX(run->history.lsn_seen, esker_visible_lsn(*db));
    run_mark(run, disk);
}

static void
run_close(struct crash_run *run, struct sim_disk *disk, esker_db *db)
{
    run_check_snapshot(run, db);
    run->history.lsn_seen = MAX(run->history.lsn_seen, esker_visible_lsn(db));
    run_made_durable(run, disk, esker_close(db));
}

static void
run_step(struct crash_run *run, struct sim_disk *disk, esker_db **db, struct rng *rng, enum step step)
{
    switch (step) {
    case STEP_PUT_SYNC:
    case STEP_PUT:
    case STEP_DELETE:
        run_batch(run, disk, *db, rng, 1, (int)step);
        break;
    case STEP_BATCH:
        run_batch(run, disk, *db, rng, 3, STEP_BATCH);
        break;
    case STEP_FLUSH:
        run_made_durable(run, disk, esker_flush(*db));
        break;
    case STEP_COMPACT:
        run_made_durable(run, disk, esker_compact(*db, NULL, NULL));
        break;
    case STEP_ROTATE:
        for (int i = 0; i < 2; i++) {
            run_batch(run, disk, *db, rng, 3, STEP_ROTATE);
        }
        break;
    case STEP_SNAPSHOT:
        run_check_snapshot(run, *db);
        memset(&run->snapshot_image, 0, sizeof run->snapshot_image);
        for (uint32_t i = 0; i < run->history.submitted; i++) {
            image_apply(&run->snapshot_image, &run->history.batches[i]);
        }
        if (esker_snapshot_create(*db, &run->snapshot) != ESKER_OK) {
            fail("no snapshot");
        }
        break;
    case STEP_REOPEN:
        run_close(run, disk, *db);
        run_open(run, disk, db);
        break;
    case STEP_NO_SPACE:
        sim_disk_set_capacity(disk, 1);
        run->no_space = true;
        run_batch(run, disk, *db, rng, 2, STEP_ROTATE);
        run_batch(run, disk, *db, rng, 2, STEP_ROTATE);
        sim_disk_set_capacity(disk, 0);
        run->no_space = false;
        break;
    case STEP_BACKGROUND:
        while (workers_run_one()) {
            epoch_drain(); /* else files that merges replaced stay until the close */
        }
        break;
    case STEPS:
        break;
    }
}

/* Runs it, recorded, on a copy of its base; the process dies at the end. */
static struct sim_disk *
run_workload(struct crash_run *run, struct sim_disk *base)
{
    struct sim_disk *disk = sim_disk_clone(base);
    struct rng rng = {run->workload.seed};
    esker_db *db = NULL;
    sim_disk_record(disk);
    run->mark_count = 0;
    run_mark(run, disk);
    run_open(run, disk, &db);
    for (uint32_t i = 0; i < run->workload.count; i++) {
        run_step(run, disk, &db, &rng, (enum step)run->workload.steps[i]);
    }
    run_check_snapshot(run, db);
    run_mark(run, disk);
    totals.operations += sim_disk_mutations(disk);
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    (void)!esker_close(db);
    return disk;
}

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
        run->mark_count = 0;
        run_mark(run, disk);
    }
    if (open_db(disk, run->workload.level, &state_allocator, &db) != ESKER_OK) {
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
    for (int i = 0; i < 2; i++) {
        run_batch(run, disk, db, &rng, 1 + (uint32_t)i, i == 0 ? STEP_PUT : STEP_PUT_SYNC);
    }
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
    uint32_t deeper; /* how many crashes may follow */
};

static void enumerate(struct sim_disk *base, struct sim_disk *recorded, struct crash_run *run,
                      const struct sim_budget *budget, uint32_t deeper);

/* The run as far as a crash after `mark` can tell. */
static void
run_copy(struct crash_run *to, const struct crash_run *from, const struct mark *mark)
{
    to->workload = from->workload;
    memcpy(to->history.batches, from->history.batches, mark->submitted * sizeof from->history.batches[0]);
    to->history.submitted = mark->submitted;
    to->history.acked = mark->acked;
    to->history.durable = mark->durable;
    to->history.lsn_seen = mark->lsn_seen;
    to->mark_count = 0;
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
    bool deep = choice != NULL && enumeration->deeper > 0 && totals.states % limits.deep_every == 0;
    struct sim_disk *disk = choice != NULL ? sim_states_disk(enumeration->states, choice)
                                           : sim_states_killed(enumeration->states);
    struct sim_disk *base = deep ? sim_disk_clone(disk) : NULL;
    run_path[run_path_len].states = enumeration->states;
    run_path[run_path_len++].choice = choice;
    run_copy(run, enumeration->run, mark);
    check_state(disk, run, choice == NULL && logged ? mark->acked : mark->durable, deep);
    totals.states++;
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
enumerate_is_new(const struct enumeration *enumeration, const struct sim_choice *choice, bool killed)
{
    const struct mark *mark = enumeration->mark;
    uint64_t promised =
        hash_mix((uint64_t)(killed ? mark->acked : mark->durable) << 32 | mark->submitted,
                 hash_mix(mark->lsn_seen, (uint64_t)enumeration->run->workload.level << 1 | killed));
    bool is_new = state_is_new(hash_mix(sim_states_hash(enumeration->states, choice), promised));
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
    return totals.states < limits.states;
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

/* While all subsets are looked at, those of a cut are among those of the next
 * one, as long as nothing in between takes freedom away or promises more. */
static bool
enumerate_is_due(const struct sim_states *states, const struct sim_budget *budget)
{
    const struct sim_log_entry *next = sim_states_peek(states);
    uint32_t free = sim_states_free(states);
    bool all = free < 31 && UINT32_C(1) << free <= budget->subsets;
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
    while (totals.states < limits.states && (entry = sim_states_next(states)) != NULL) {
        if (entry->kind == SIM_LOG_MARK) {
            enumeration.mark = &run->marks[entry->offset];
        }
        if (enumerate_is_due(states, budget)) {
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

/* 0: nothing there. 1: closed, with segments and rows in the log. 2: killed with rows in two logs. */
static void
make_base(uint32_t tail, uint32_t base)
{
    static struct crash_run run;
    static const uint8_t closed[] = {STEP_BATCH,   STEP_ROTATE, STEP_FLUSH, STEP_BATCH,  STEP_DELETE,
                                     STEP_COMPACT, STEP_PUT,    STEP_BATCH, STEP_REOPEN, STEP_PUT};
    static const uint8_t killed[] = {STEP_BATCH,  STEP_FLUSH, STEP_ROTATE,
                                     STEP_ROTATE, STEP_BATCH, STEP_PUT_SYNC};
    struct sim_disk *disk = sim_disk_create(7 + base);
    memset(&run, 0, sizeof run);
    run.workload.level = base_level(tail);
    run.workload.seed = base;
    if (base > 0) {
        const uint8_t *steps = base == 1 ? closed : killed;
        esker_db *db = NULL;
        struct rng rng = {base};
        run_open(&run, disk, &db);
        for (size_t i = 0; i < (base == 1 ? sizeof closed : sizeof killed); i++) {
            run_step(&run, disk, &db, &rng, (enum step)steps[i]);
        }
        if (base == 1) {
            run_close(&run, disk, db);
        } else {
            sim_disk_crash(disk, SIM_CRASH_KILL, 0);
            (void)!esker_close(db);
            run.history.durable = run.history.acked;
        }
    }
    sim_disk_reboot(disk);
    bases[tail][base] = disk;
    base_histories[tail][base] = run.history;
}

static void
make_bases(void)
{
    for (uint32_t tail = 0; tail < 2; tail++) {
        for (uint32_t base = 0; base < BASES; base++) {
            make_base(tail, base);
        }
    }
}

static void
destroy_bases(void)
{
    for (uint32_t tail = 0; tail < 2; tail++) {
        for (uint32_t base = 0; base < BASES; base++) {
            sim_disk_destroy(bases[tail][base]);
        }
    }
    mem_free(&mem_default, seen_states.keys);
    seen_states = (struct state_set){0};
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
    describe_workload(workload);
    struct sim_disk *disk = run_workload(&run, bases[tail][workload->base]);
    enumerate(bases[tail][workload->base], disk, &run, &limits.budget, 1);
    totals.workloads++;
    sim_disk_destroy(disk);
}

#endif
