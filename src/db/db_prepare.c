/* SPDX-License-Identifier: MIT */
/*
 * The windows that come next, made in the background: how many, how large, and
 * when. A window takes its log file two small syncs to begin, and those wait
 * for whatever else the disk is writing: segments, above all. So once windows
 * have grown, which they only do while much is written, two are kept ready:
 * writers then wait only if a whole window fills during one slow sync.
 *
 * Invariants
 *  I1 Prepared windows follow the active one and each other without a gap:
 *     each begins where the one before it ends, and its log names that one's
 *     generation. So the first cannot go without the second.
 *  I2 One is in the making at a time (db_rotate.c, I5).
 *
 * Concurrency: `prepared` is guarded by mu; making happens without it, and what
 * was made is discarded if it does not fit any more.
 */
#include "db/db.h"
#include "db/db_windows.h"

enum {
    PREPARE_BURST_NS = 50000000,    /* half a window in less time is a burst */
    PREPARE_LARGE_OP_BYTES = 2048,  /* entries of this size need little index, */
    PREPARE_LARGE_OP_SHARE = 512,   /* room in it for one per so many bytes, */
    PREPARE_LARGE_WINDOW = 1 << 20, /* where windows are at least so large */
    PREPARE_LARGE_STEPS = 4         /* in a window's size */
};

void
db_prepared_shift_locked(esker_db *db)
{
    for (uint32_t i = 0; i + 1 < PREPARED_MAX; i++) {
        db->prepared[i] = db->prepared[i + 1];
    }
    db->prepared[PREPARED_MAX - 1] = NULL;
}

void
db_discard_prepared_locked(esker_db *db, uint32_t keep)
{
    for (uint32_t i = PREPARED_MAX; i-- > keep;) {
        if (db->prepared[i] != NULL) {
            db_discard_window_locked(db, db->prepared[i]);
            db->prepared[i] = NULL;
        }
    }
}

/* The last window so far, behind which the next one comes; *count_out: how many are prepared. */
static struct window *
prepare_last_locked(esker_db *db, uint32_t *count_out)
{
    /* pairs: CURRENT — installers hold mu, so this is the newest. */
    struct window *last = load_acquire(&db->current)->windows[0];
    *count_out = 0;
    while (*count_out < PREPARED_MAX && db->prepared[*count_out] != NULL) {
        last = db->prepared[(*count_out)++];
    }
    return last;
}

/* mu held. */
static bool
prepare_wants_more_locked(esker_db *db, uint32_t count)
{
    /* pairs: CURRENT — as above. */
    const struct window *active = load_acquire(&db->current)->windows[0];
    bool two = active->cap_bytes > db->window_bytes_first && !db->reserve_spent;
    uint32_t want = two ? PREPARED_MAX : 1;
    return count < want && !db->rotating && load_relaxed(&db->poisoned) == 0; /* relaxed: set under mu */
}

uint32_t
db_windows_live_locked(const esker_db *db, const struct version *version)
{
    const struct window *active = version->windows[0];
    if (active->cap_bytes < WINDOWS_LIVE_BYTES) {
        return WINDOWS_LIVE_MAX;
    }
    uint64_t each = window_expected_bytes(active, window_bytes_per_op(active));
    each += active->map != NULL ? active->cap_bytes : 0;
    uint64_t more = block_cache_room(db->cache) / each;
    uint64_t count = MIN(version->window_count + more, (uint64_t)WINDOWS_LIVE_MOST);
    return (uint32_t)MAX(count, (uint64_t)WINDOWS_LIVE_MAX);
}

/* By how much windows grow now that the active one is half full: a burst should
 * not end in many small segments. */
static uint64_t
prepare_growth_locked(esker_db *db)
{
    return io_monotonic_ns(db->io) - db->window_began_ns < PREPARE_BURST_NS ? 4 : 2;
}

/* What the job saw when it began. */
struct prepare_plan {
    bool needed;
    bool spent;          /* the reserve is: for deletes only */
    uint32_t place;      /* in `prepared` */
    struct window *next; /* the one prepared first, referenced; nullable */
    uint64_t base_lsn, prev_gen, want_bytes, bytes_per_op, attempt;
    uint64_t cap_bytes; /* want_bytes, or more */
    uint32_t op_cap;
};

/* Memory of a window, its mapped log included. */
static uint64_t
prepare_memory(uint64_t cap_bytes, uint32_t op_cap)
{
    return window_bytes_max(cap_bytes, op_cap) + cap_bytes;
}

/* A window's memory is reckoned for the smallest entries, of which half is index.
 * Where entries are large that half serves better as room for more of them: each
 * window costs some syncs to begin and to flush, however little is in it. */
static void
prepare_shape(const esker_db *db, struct prepare_plan *plan)
{
    uint64_t want = plan->want_bytes;
    plan->cap_bytes = want;
    plan->op_cap = window_op_capacity(want);
    if (want < db->window_bytes_max || want < PREPARE_LARGE_WINDOW ||
        plan->bytes_per_op < PREPARE_LARGE_OP_BYTES) {
        return;
    }
    uint64_t share = db->options.memory_budget_bytes / 2 / (WINDOWS_LIVE_MAX + PREPARED_MAX);
    uint64_t most = MAX(prepare_memory(want, plan->op_cap), share);
    uint64_t step = want / PREPARE_LARGE_STEPS;
    for (uint64_t cap = want + step; cap <= want * 4 && cap <= WINDOW_BYTES_MOST; cap += step) {
        uint32_t ops = (uint32_t)(cap / PREPARE_LARGE_OP_SHARE);
        if (prepare_memory(cap, ops) <= most) {
            plan->cap_bytes = cap;
            plan->op_cap = ops;
        }
    }
}

static struct prepare_plan
prepare_begin(esker_db *db)
{
    mutex_lock(&db->mu);
    struct prepare_plan plan = {.next = db->prepared[0], .attempt = db->attempt};
    const struct window *last = prepare_last_locked(db, &plan.place);
    plan.needed = prepare_wants_more_locked(db, plan.place);
    plan.base_lsn = last->end_lsn;
    plan.prev_gen = last->gen;
    plan.want_bytes = db->window_bytes_want;
    plan.spent = db->reserve_spent;
    plan.bytes_per_op = window_bytes_per_op(load_acquire(&db->current)->windows[0]); /* pairs: CURRENT */
    db->preparing = plan.needed;
    db->preparing_behind = plan.needed ? plan.prev_gen : 0;
    if (plan.next != NULL) {
        window_ref(plan.next);
    }
    mutex_unlock(&db->mu);
    prepare_shape(db, &plan);
    return plan;
}

/* False: it does not fit any more, and is given back. */
static bool
prepare_end(esker_db *db, const struct prepare_plan *plan, struct window *window)
{
    mutex_lock(&db->mu);
    db->preparing = false;
    db->preparing_behind = 0;
    uint32_t count = 0;
    const struct window *last = prepare_last_locked(db, &count);
    bool fits = count < PREPARED_MAX && last->end_lsn == plan->base_lsn && last->gen == plan->prev_gen &&
                !db->rotating && db->window_bytes_want <= plan->cap_bytes && db->reserve_spent == plan->spent;
    if (fits) {
        db->prepared[count] = window;
        uint64_t growth = plan->spent ? 1 : prepare_growth_locked(db);
        db->window_bytes_want = MIN(plan->want_bytes * growth, db->window_bytes_max);
    } else {
        db_discard_window_locked(db, window);
    }
    if (!fits || prepare_wants_more_locked(db, count + 1)) {
        job_kick(&db->prepare_job);
    }
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    return fits;
}

static esker_status
prepare_one(esker_db *db, const struct prepare_plan *plan)
{
    struct window *window = NULL;
    esker_status status = db_make_window(db, plan->cap_bytes, plan->op_cap, plan->base_lsn, plan->prev_gen,
                                         plan->base_lsn, &window);
    if (status != ESKER_OK) {
        mutex_lock(&db->mu);
        db->preparing = false;
        db->preparing_behind = 0;
        mutex_unlock(&db->mu);
        return status;
    }
    window->deletes_only = plan->spent;
    if (plan->place == 0) {
        db_populate_window(db, window, plan->bytes_per_op);
    }
    (void)prepare_end(db, plan, window);
    return ESKER_OK;
}

/* Where there is no room to keep space for the flush of larger windows, they stay small. */
static void
prepare_keep_reserve(esker_db *db, uint64_t cap_bytes)
{
    mutex_lock(&db->mu);
    uint64_t want = db->window_bytes_want;
    mutex_unlock(&db->mu);
    if (!db_reserve_keep(db, MAX(want, cap_bytes))) {
        mutex_lock(&db->mu);
        db->window_bytes_want = MIN(db->window_bytes_want, db_reserve_supports_locked(db));
        mutex_unlock(&db->mu);
    }
}

void
db_prepare_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, prepare_job);
    db_reserve_restore(db);
    struct prepare_plan plan = prepare_begin(db);
    if (plan.next != NULL) {
        db_populate_window(db, plan.next, plan.bytes_per_op);
        window_unref(plan.next);
    }
    if (!plan.needed) {
        return;
    }
    if (prepare_one(db, &plan) != ESKER_OK) {
        db_background_failed(db, job, plan.attempt); /* wakes those who wait, too */
        return;
    }
    db_background_ok(db, job);
    prepare_keep_reserve(db, plan.cap_bytes);
    /* Windows only grow while there is work: smaller files are of no use any more. */
    IGNORE_STATUS(db_drop_pool(db, UINT64_MAX, plan.want_bytes), "a file too many is dropped another time");
}
