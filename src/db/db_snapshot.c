/* SPDX-License-Identifier: MIT */
/*
 * Snapshots are LSNs in a registry. They pin neither a version nor an epoch:
 * merges look at the registry and keep what some snapshot can see.
 *
 * Invariant: a snapshot's LSN is read under snap_mu, where merges also copy the
 * registry. So a merge either knows of the snapshot, or the snapshot's LSN is
 * not below anything the merge reads.
 *
 * The registry is a skip list (Pugh, "Skip Lists: A Probabilistic Alternative to
 * Balanced Trees", 1990), linked both ways: at the end, where snapshots almost
 * always begin, and at any place, one comes and goes in a few steps, however
 * many there are.
 */
#include "base/rng.h"
#include "db/db.h"

/* On each height the newest snapshot at or below the LSN, or NULL. snap_mu held. */
static void
snapshot_find_locked(esker_db *db, uint64_t lsn, struct esker_snapshot *found[SNAPSHOT_HEIGHT_MAX])
{
    struct esker_snapshot *newer = NULL; /* the oldest that is known to be behind it */
    for (uint32_t height = SNAPSHOT_HEIGHT_MAX; height-- > 0;) {
        struct esker_snapshot *at = newer != NULL ? newer->links[height].older : db->snapshots.newest[height];
        while (at != NULL && at->lsn > lsn) {
            newer = at;
            at = at->links[height].older;
        }
        found[height] = at;
    }
}

/* Behind those with the same LSN. snap_mu held. */
static void
snapshot_link_locked(esker_db *db, struct esker_snapshot *snapshot)
{
    struct snapshot_list *list = &db->snapshots;
    struct esker_snapshot *found[SNAPSHOT_HEIGHT_MAX];
    snapshot_find_locked(db, snapshot->lsn, found);
    for (uint32_t height = 0; height < snapshot->height; height++) {
        struct esker_snapshot *older = found[height];
        struct esker_snapshot **after = older != NULL ? &older->links[height].newer : &list->oldest[height];
        struct esker_snapshot *newer = *after;
        snapshot->links[height] = (struct snapshot_links){older, newer};
        *after = snapshot;
        *(newer != NULL ? &newer->links[height].older : &list->newest[height]) = snapshot;
    }
    list->count++;
}

static void
snapshot_unlink_locked(esker_db *db, struct esker_snapshot *snapshot)
{
    struct snapshot_list *list = &db->snapshots;
    for (uint32_t height = 0; height < snapshot->height; height++) {
        struct esker_snapshot *older = snapshot->links[height].older;
        struct esker_snapshot *newer = snapshot->links[height].newer;
        *(older != NULL ? &older->links[height].newer : &list->oldest[height]) = newer;
        *(newer != NULL ? &newer->links[height].older : &list->newest[height]) = older;
    }
    list->count--;
}

static struct esker_snapshot *
snapshot_alloc(esker_db *db)
{
    struct rng rng = {add_relaxed(&db->next_snapshot, 1)}; /* relaxed: any number will do */
    uint32_t height =
        1 + (uint32_t)__builtin_ctzll(rng_next(&rng) | 1ULL << (2 * SNAPSHOT_HEIGHT_MAX - 1)) / 2;
    struct esker_snapshot *snapshot =
        mem_zalloc(&db->mem, sizeof *snapshot + height * sizeof snapshot->links[0]);
    if (snapshot != NULL) {
        snapshot->magic = SNAPSHOT_MAGIC;
        snapshot->db = db;
        snapshot->refs = 1;
        snapshot->height = height;
        snapshot->created_ns = io_monotonic_ns(db->io);
    }
    return snapshot;
}

esker_status
esker_snapshot_create(esker_db *db, esker_snapshot **out)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    esker_status status = ESKER_OK;
    struct esker_snapshot *snapshot = NULL;
    if (out == NULL) {
        status = FAIL(ESKER_INVALID, "an output pointer is NULL");
    } else if ((snapshot = snapshot_alloc(db)) == NULL) {
        status = FAIL_NO_MEMORY("a snapshot");
    } else {
        mutex_lock(&db->snap_mu);
        snapshot->lsn = load_acquire(&db->visible); /* pairs: VISIBLE */
        snapshot_link_locked(db, snapshot);
        mutex_unlock(&db->snap_mu);
        db_handle_made(&db->snapshots_live);
        *out = snapshot;
    }
    db_call_exit(&call);
    return status;
}

/* The greatest commit boundary <= lsn, for lsn <= visible. */
static uint64_t
snapshot_round_down(esker_db *db, struct thread_state *self, uint64_t lsn)
{
    struct version *version = db_current_ref(db, self);
    uint64_t rounded = lsn;
    for (uint32_t i = 0; i < version->window_count; i++) {
        const struct window *window = version->windows[i];
        if (lsn <= window->base_lsn || lsn >= window->end_lsn) {
            continue;
        }
        rounded = window_lsn(window, window_boundary(window, (lsn - window->base_lsn) * LSN_BYTES));
        break;
    }
    version_unref(version);
    return rounded;
}

/* Whether merges have kept exactly what was visible at `lsn`. snap_mu held. */
static bool
snapshot_is_exact_locked(esker_db *db, uint64_t lsn)
{
    struct esker_snapshot *found[SNAPSHOT_HEIGHT_MAX];
    snapshot_find_locked(db, lsn, found);
    return lsn >= db->history_floor || (found[0] != NULL && found[0]->lsn == lsn);
}

bool
db_history_is_exact(esker_db *db, uint64_t lsn)
{
    mutex_lock(&db->snap_mu);
    bool exact = snapshot_is_exact_locked(db, lsn);
    mutex_unlock(&db->snap_mu);
    return exact;
}

/* Links it unless history below has been merged away. */
static esker_status
snapshot_link_at(esker_db *db, struct esker_snapshot *snapshot)
{
    esker_status status = ESKER_OK;
    mutex_lock(&db->snap_mu);
    if (snapshot_is_exact_locked(db, snapshot->lsn)) {
        snapshot_link_locked(db, snapshot);
    } else {
        status = ESKER_NOT_FOUND;
    }
    mutex_unlock(&db->snap_mu);
    return status;
}

static esker_status
snapshot_create_at(esker_db *db, struct thread_state *self, esker_lsn lsn, esker_snapshot **out)
{
    if (lsn > load_acquire(&db->visible)) { /* pairs: VISIBLE */
        return FAIL(ESKER_INVALID, "LSN %llu is beyond what was written", (unsigned long long)lsn);
    }
    struct esker_snapshot *snapshot = snapshot_alloc(db);
    if (snapshot == NULL) {
        return FAIL_NO_MEMORY("a snapshot");
    }
    snapshot->lsn = snapshot_round_down(db, self, lsn);
    esker_status status = snapshot_link_at(db, snapshot);
    if (status != ESKER_OK) {
        mem_free(&db->mem, snapshot);
        return status;
    }
    db_handle_made(&db->snapshots_live);
    *out = snapshot;
    return ESKER_OK;
}

esker_status
esker_snapshot_create_at(esker_db *db, esker_lsn lsn, esker_snapshot **out)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    esker_status status = out == NULL ? FAIL(ESKER_INVALID, "an output pointer is NULL")
                                      : snapshot_create_at(db, call.self, lsn, out);
    db_call_exit(&call);
    return status;
}

void
db_snapshot_ref(struct esker_snapshot *snapshot)
{
    esker_db *db = snapshot->db;
    mutex_lock(&db->snap_mu);
    snapshot->refs++;
    mutex_unlock(&db->snap_mu);
}

void
db_snapshot_unref(struct esker_snapshot *snapshot)
{
    esker_db *db = snapshot->db;
    mutex_lock(&db->snap_mu);
    bool last = --snapshot->refs == 0;
    if (last) {
        snapshot_unlink_locked(db, snapshot);
    }
    mutex_unlock(&db->snap_mu);
    if (last) {
        snapshot->magic = 0;
        mem_free(&db->mem, snapshot);
        db_handle_gone(&db->snapshots_live);
    }
}

void
esker_snapshot_release(esker_snapshot *snapshot)
{
    if (snapshot == NULL || snapshot->magic != SNAPSHOT_MAGIC) {
        return;
    }
    /* relaxed: set in the child before fork returns there. */
    if (load_relaxed(&fork_generation) != snapshot->db->fork_generation) {
        return;
    }
    db_snapshot_unref(snapshot);
}

esker_lsn
esker_snapshot_lsn(const esker_snapshot *snapshot)
{
    return snapshot != NULL && snapshot->magic == SNAPSHOT_MAGIC ? snapshot->lsn : 0;
}

esker_status
db_collect_stripes(esker_db *db, uint64_t floor_lsn, uint64_t **stripes_out, size_t *count_out)
{
    mutex_lock(&db->snap_mu);
    uint64_t *stripes = mem_alloc_array(&db->block_mem, db->snapshots.count, sizeof *stripes);
    size_t count = 0;
    if (stripes != NULL) {
        for (const struct esker_snapshot *snapshot = db->snapshots.oldest[0]; snapshot != NULL;
             snapshot = snapshot->links[0].newer) {
            if (count == 0 || stripes[count - 1] != snapshot->lsn) {
                stripes[count++] = snapshot->lsn;
            }
        }
        db->history_floor = MAX(db->history_floor, floor_lsn);
    }
    mutex_unlock(&db->snap_mu);
    if (stripes == NULL) {
        return FAIL_NO_MEMORY("a list of snapshots");
    }
    *stripes_out = stripes;
    *count_out = count;
    return ESKER_OK;
}
