/* SPDX-License-Identifier: MIT */
/*
 * Workloads on a simulated disk that records, step by step, with what each was
 * promised. What crashes make of them is crash_states.h.
 */
#ifndef ESKER_PROPTEST_CRASH_RUN_H
#define ESKER_PROPTEST_CRASH_RUN_H

#ifndef MODEL_KEYS
#define MODEL_KEYS 8
#endif

#include "base/hash.h"
#include "batch_model.h"
#include "crash_count.h"
#include "io/io_sim_states.h"
#include "sync/epoch.h"

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
    STEPS,
    STEP_FILL = STEPS, /* from here on: where the disk can be full */
    STEP_ERASE,
    STEP_ROOM,
    STEPS_ALL
};

static const char step_letters[] = "SpdbFCRnoNgfer";

/* Bases from BASES on: on a disk that is so small that a reserve is kept (crash_full.h). */
enum { STEPS_MAX = 64, MARKS_MAX = 1024, BASES = 3, BASES_FULL = 4, BASES_ALL = BASES + BASES_FULL };

enum { FILL_MOST = 32, FILL_LEAST = 10, ERASE_JOBS = 4, JOB_NS = 10000000, JOBS_MOST = 200 };

/* What was promised at a point of the log. */
struct mark {
    uint32_t submitted, acked, durable;
    uint32_t lost; /* of those submitted so many are known to be */
    esker_lsn lsn_seen;
};

struct workload {
    uint8_t steps[STEPS_MAX];
    uint32_t count;
    uint32_t base;
    int level;
    uint64_t seed;
    uint64_t capacity; /* of the disk; 0 = of any size, and no reserve is kept */
};

struct crash_run {
    struct workload workload;
    struct history history;
    struct mark marks[MARKS_MAX];
    uint32_t mark_count;
    uint32_t lost;
    bool no_space;
    bool reserve_kept, reserve_spent; /* at the last look */
    esker_snapshot *snapshot;
    struct image snapshot_image;
};

static struct sim_disk *bases[2][BASES_ALL];
static struct history base_histories[2][BASES_ALL];
static uint32_t run_keys = KEYS; /* of those that workloads write */

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
        (struct mark){history->submitted, history->acked, history->durable, run->lost, history->lsn_seen};
    sim_disk_mark(disk, run->mark_count++);
}

/* Rows of a killed log that cannot be flushed hold up all that wants to be durable: the reserve is there
 * for that flush, too. */
static void
run_check_given_up(struct sim_disk *disk)
{
    struct bytes reserve;
    if (sim_disk_get(disk, DB_RESERVE_NAME, &reserve) && reserve.len > DB_FILE_HEAD_BYTES) {
        fail("recovered rows are not flushed although a reserve is kept");
    }
}

/* False: there was no room for it, and nothing was written. */
static bool
run_submit(struct crash_run *run, struct sim_disk *disk, esker_db *db, bool sync)
{
    struct history *history = &run->history;
    const struct batch *batch = &history->batches[history->submitted++];
    history->lsn_seen = esker_visible_lsn(db);
    run_mark(run, disk);
    esker_status status = write_batch(db, batch, sync ? ESKER_DURABLE_SYNC : ESKER_DURABLE_DEFAULT);
    if (status == ESKER_NO_SPACE) {
        history->submitted--; /* nothing was written */
        return false;
    }
    if (status == ESKER_IO && run->no_space) {
        run_check_given_up(disk);
        return true; /* it is visible, and becomes durable when there is space */
    }
    if (status != ESKER_OK) {
        fail("a write failed on a disk that works");
    }
    history->acked = history->submitted;
    history->durable =
        sync || run->workload.level == ESKER_DURABLE_SYNC ? history->submitted : history->durable;
    run_mark(run, disk);
    return true;
}

static bool
run_batch(struct crash_run *run, struct sim_disk *disk, esker_db *db, struct rng *rng, uint32_t ops, int kind)
{
    struct history *history = &run->history;
    ASSERT(history->submitted < BATCHES_MAX);
    struct batch *batch = &history->batches[history->submitted];
    make_batch(rng, batch, history->submitted + 1);
    batch->op_count = ops;
    for (uint32_t i = 0; i < ops; i++) {
        batch->ops[i].is_delete = kind == STEP_DELETE || (kind == STEP_BATCH && i == 1);
        batch->ops[i].key = (uint32_t)rng_below(rng, run_keys);
        batch->ops[i].size = kind == STEP_ROTATE ? VALUE_MAX : 4 + (uint32_t)rng_below(rng, 40);
    }
    return run_submit(run, disk, db, kind == STEP_PUT_SYNC);
}

static bool
run_delete(struct crash_run *run, struct sim_disk *disk, esker_db *db, uint32_t key)
{
    struct history *history = &run->history;
    ASSERT(history->submitted < BATCHES_MAX);
    history->batches[history->submitted] =
        (struct batch){.ops = {{.key = key, .is_delete = true}}, .op_count = 1, .id = history->submitted + 1};
    return run_submit(run, disk, db, false);
}

static void
run_made_durable(struct crash_run *run, struct sim_disk *disk, esker_status status)
{
    bool full = status == ESKER_NO_SPACE ||
                (status == ESKER_IO && run->no_space); /* IO: visible rows wait for room */
    if (status != ESKER_OK && !full) {
        fail("a call failed on a disk that works");
    }
    if (status == ESKER_OK) {
        run->history.durable = run->history.submitted;
        run_mark(run, disk);
    } else if (status == ESKER_IO) {
        run_check_given_up(disk);
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

/* Where the reserve is given up and nothing is free there may be no room for the log of an open. */
static void
run_open(struct crash_run *run, struct sim_disk *disk, esker_db **db)
{
    esker_status status = open_db(disk, run->workload.level, NULL, db);
    if (status == ESKER_NO_SPACE && run->no_space && !sim_disk_exists(disk, DB_RESERVE_NAME)) {
        sim_disk_set_capacity(disk, 0);
        status = open_db(disk, run->workload.level, NULL, db);
        sim_disk_set_capacity(disk, run->workload.capacity);
    }
    if (status != ESKER_OK) {
        fail("open failed on a disk that works");
    }
    run->history.lsn_seen = MAX(run->history.lsn_seen, esker_visible_lsn(*db));
    run_mark(run, disk);
}

/* False: what was written last could not be made durable. */
static bool
run_close(struct crash_run *run, struct sim_disk *disk, esker_db *db)
{
    run_check_snapshot(run, db);
    run->history.lsn_seen = MAX(run->history.lsn_seen, esker_visible_lsn(db));
    esker_status status = esker_close(db);
    run_made_durable(run, disk, status);
    return status == ESKER_OK;
}

/* Opened behind a close that failed: what had not been acknowledged may be there or not, and that is
 * decided now. What is not there is lost from here on, whatever is made durable later; a crash before
 * this point may still show it. */
static void
run_note_lost(struct crash_run *run, struct sim_disk *disk, esker_db *db)
{
    struct history *history = &run->history;
    struct image seen;
    image_read(db, &seen);
    uint32_t there =
        check_prefix(history, history->acked, &seen, "a close that failed lost what was acknowledged");
    totals.closes_failed++;
    for (uint32_t i = there; i < history->submitted; i++) {
        run->lost += history->batches[i].lost_at == 0;
        history->batches[i].lost_at =
            history->batches[i].lost_at == 0 ? run->mark_count : history->batches[i].lost_at;
    }
    totals.closes_lost += there < history->submitted;
    run_mark(run, disk);
}

static void
run_reopen(struct crash_run *run, struct sim_disk *disk, esker_db **db)
{
    bool durable = run_close(run, disk, *db);
    run_open(run, disk, db);
    if (!durable) {
        run_note_lost(run, disk, *db);
    }
}

/* At most so many: merges that wait for writes to rest, or for a flush that fails, look again and
 * again. Time goes by meanwhile. */
static void
run_jobs(struct sim_disk *disk, uint64_t most)
{
    while (most-- > 0 && workers_run_one()) {
        sim_disk_advance(disk, JOB_NS);
        epoch_drain(); /* else files that merges replaced stay until the close */
    }
}

/* What became of the reserve since the last look. */
static void
run_note_reserve(struct crash_run *run, const esker_db *db)
{
    bool kept = db->reserve_bytes > 0;
    totals.reserve_made += kept && !run->reserve_kept && !run->reserve_spent;
    totals.reserve_spent += db->reserve_spent && !run->reserve_spent;
    totals.reserve_restored += kept && run->reserve_spent && !db->reserve_spent;
    run->reserve_kept = kept;
    run->reserve_spent = db->reserve_spent;
}

/* At most so many batches, ever smaller ones, until not even a few bytes are taken. */
static void
run_fill(struct crash_run *run, struct sim_disk *disk, esker_db *db, struct rng *rng, uint32_t most)
{
    uint32_t size = VALUE_MAX;
    for (uint32_t i = 0; i < most && size >= FILL_LEAST && run->history.submitted + 64 < BATCHES_MAX; i++) {
        struct batch *batch = &run->history.batches[run->history.submitted];
        make_batch(rng, batch, run->history.submitted + 1);
        batch->op_count = size == VALUE_MAX ? 3 : 1;
        for (uint32_t op = 0; op < batch->op_count; op++) {
            batch->ops[op] = (struct op){.key = (uint32_t)rng_below(rng, run_keys), .size = size};
        }
        size = run_submit(run, disk, db, false) ? size : size / 3;
        run_jobs(disk, rng_below(rng, 2));
        run_note_reserve(run, db);
    }
}

/* Every key, in some order. */
static void
run_erase(struct crash_run *run, struct sim_disk *disk, esker_db *db, struct rng *rng)
{
    uint32_t first = (uint32_t)rng_below(rng, run_keys);
    for (uint32_t i = 0; i < run_keys && run->history.submitted + 64 < BATCHES_MAX; i++) {
        (void)run_delete(run, disk, db, (first + i) % run_keys);
        run_note_reserve(run, db);
        run_jobs(disk, rng_below(rng, ERASE_JOBS));
        run_note_reserve(run, db);
    }
}

static void
run_step(struct crash_run *run, struct sim_disk *disk, esker_db **db, struct rng *rng, enum step step)
{
    switch (step) {
    case STEP_PUT_SYNC:
    case STEP_PUT:
    case STEP_DELETE:
        (void)run_batch(run, disk, *db, rng, 1, (int)step);
        break;
    case STEP_BATCH:
        (void)run_batch(run, disk, *db, rng, 3, STEP_BATCH);
        break;
    case STEP_FLUSH:
        run_made_durable(run, disk, esker_flush(*db));
        break;
    case STEP_COMPACT:
        run_made_durable(run, disk, esker_compact(*db, NULL, NULL));
        break;
    case STEP_ROTATE:
        for (int i = 0; i < 2; i++) {
            (void)run_batch(run, disk, *db, rng, 3, STEP_ROTATE);
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
        run_reopen(run, disk, db);
        break;
    case STEP_NO_SPACE:
        sim_disk_set_capacity(disk, 1);
        run->no_space = true;
        (void)run_batch(run, disk, *db, rng, 2, STEP_ROTATE);
        (void)run_batch(run, disk, *db, rng, 2, STEP_ROTATE);
        sim_disk_set_capacity(disk, run->workload.capacity);
        run->no_space = run->workload.capacity != 0;
        break;
    case STEP_BACKGROUND:
        run_jobs(disk, JOBS_MOST);
        break;
    case STEP_FILL:
        run_fill(run, disk, *db, rng, FILL_MOST);
        break;
    case STEP_ERASE:
        run_erase(run, disk, *db, rng);
        break;
    case STEP_ROOM: /* for a moment: then others have taken it */
        sim_disk_set_capacity(disk, 0);
        run_made_durable(run, disk, esker_flush(*db));
        sim_disk_set_capacity(disk, run->workload.capacity);
        break;
    case STEPS_ALL:
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
    sim_disk_set_capacity(disk, run->workload.capacity);
    run->no_space = run->workload.capacity != 0;
    run->reserve_kept = run->reserve_spent = false;
    run->mark_count = run->lost = 0;
    run_mark(run, disk);
    run_open(run, disk, &db);
    run_note_reserve(run, db);
    for (uint32_t i = 0; i < run->workload.count; i++) {
        run_step(run, disk, &db, &rng, (enum step)run->workload.steps[i]);
        run_note_reserve(run, db);
    }
    run_check_snapshot(run, db);
    run_mark(run, disk);
    totals.operations += sim_disk_mutations(disk);
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    (void)!esker_close(db);
    return disk;
}

#endif
