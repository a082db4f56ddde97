/* rooms: db */
/* SPDX-License-Identifier: MIT */
/* The snapshot registry against a merge (src/db/db_snapshot.c). Two versions of one key, at LSN 10 and 20;
 * the second becomes visible while one thread takes a snapshot, and a merge of what is visible asks which
 * boundaries there are. A snapshot between the two versions keeps the older one.
 * In a round: one commit, one snapshot, one merge. */
#define MODEL_MUTANTS(X) X(LSN_BEFORE_LIST, ANY) X(STRIPES_BEFORE_ROWS, ANY)
#define MODEL_MEM
#define MODEL_ORDER(ptr) KEEP
#include "model.h"
#include "db/db.h"
#define db_call_enter(db, call) ((void)(db), (call)->self = NULL, ESKER_OK)
#define db_call_exit(call) ((void)(call))
#define io_monotonic_ns(io) ((void)(io), 0)
#include "db/db_snapshot.c"

enum { BETWEEN = 15, BEHIND = 25 };

static esker_db db;
static esker_snapshot *snapshot;
static bool older_dropped; /* plain: the merge's */

static void
model_spoil(void *ptr)
{
    (void)ptr;
}

static void
commit(void)
{
    atomic_store(&db.visible, BEHIND);
}

static void
take(void)
{
    uint64_t early = load_acquire(&db.visible);
    model_pause();
    if (model_is(LSN_BEFORE_LIST)) {
        snapshot = snapshot_alloc(&db);
        snapshot->lsn = early;
        for (uint32_t i = 0; i < 30; i++) {
            model_pause();
        }
        mutex_lock(&db.snap_mu);
        snapshot_link_locked(&db, snapshot);
        mutex_unlock(&db.snap_mu);
    } else {
        MODEL_CHECK(esker_snapshot_create(&db, &snapshot) == ESKER_OK);
    }
}

static void
merge(void)
{
    uint64_t *stripes = NULL;
    size_t count = 0;
    if (model_is(STRIPES_BEFORE_ROWS)) {
        MODEL_CHECK(db_collect_stripes(&db, BEHIND, &stripes, &count) == ESKER_OK);
        model_pause();
    }
    if (load_acquire(&db.visible) < BEHIND) {
        return;
    }
    if (!model_is(STRIPES_BEFORE_ROWS)) {
        MODEL_CHECK(db_collect_stripes(&db, BEHIND, &stripes, &count) == ESKER_OK);
    }
    bool kept = false;
    for (size_t i = 0; i < count; i++) {
        kept = kept || (stripes[i] > 10 && stripes[i] <= 20);
    }
    older_dropped = !kept;
}

static void
model_reset(void)
{
    model_pool_reset(&model_pool);
    for (uint32_t height = 0; height < SNAPSHOT_HEIGHT_MAX; height++) {
        db.snapshots.oldest[height] = db.snapshots.newest[height] = NULL;
    }
    db.snapshots.count = 0;
    db.history_floor = 0;
    store_relaxed(&db.visible, BETWEEN);
    older_dropped = false;
    snapshot = NULL;
}

static void
model_verify(void)
{
    MODEL_CHECK(snapshot->lsn == BETWEEN || snapshot->lsn == BEHIND);
    MODEL_CHECK(snapshot->lsn == BEHIND || !older_dropped);
}
MODEL_MAIN(commit, take, merge)
