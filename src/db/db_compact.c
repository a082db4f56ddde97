/* SPDX-License-Identifier: MIT */
/*
 * Merges: pick, claim, run, install. Claims (segment ids under mu) keep two
 * jobs off the same files; an explicit esker_compact lets running jobs finish,
 * holds new ones back, and merges in the calling thread.
 *
 * A merge that meets damage stops and keeps its inputs; the failure is told
 * and tried again later, writes go on until level 0 is full.
 */
#include "iter/merge_iter.h"

#include "db/db.h"

enum { COMPACT_FANOUT = 8 };

/* Deletes below this LSN are nobody's evidence any more. */
static uint64_t
compact_gc_lsn(esker_db *db)
{
    mutex_lock(&db->snap_mu);
    const struct esker_snapshot *oldest = db->snapshots.oldest;
    uint64_t lsn = oldest != NULL ? oldest->lsn : load_acquire(&db->visible); /* pairs: VISIBLE */
    mutex_unlock(&db->snap_mu);
    return lsn;
}

static struct picker_config
compact_config(esker_db *db)
{
    return (struct picker_config){.l0_trigger = L0_TRIGGER,
                                  .base_bytes = db->window_bytes_max * 4,
                                  .fanout = COMPACT_FANOUT,
                                  .segment_bytes = db->segment_bytes,
                                  .gc_lsn = compact_gc_lsn(db)};
}

/* ---- Level tables for the picker ------------------------------------------ */

struct compact_tables {
    struct level_table levels[ESKER_LEVELS_MAX];
    const struct segment_meta **metas;
    bool *claimed;
};

static bool
compact_is_claimed_locked(const esker_db *db, uint64_t id)
{
    for (size_t i = 0; i < db->claimed_count; i++) {
        if (db->claimed_ids[i] == id) {
            return true;
        }
    }
    return false;
}

static esker_status
compact_tables_init_locked(esker_db *db, const struct version *version, struct compact_tables *tables)
{
    size_t total = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        total += version->levels[level] != NULL ? version->levels[level]->count : 0;
    }
    tables->metas = mem_alloc_array(&db->mem, total, sizeof *tables->metas);
    tables->claimed = mem_alloc_array(&db->mem, total, sizeof *tables->claimed);
    if (tables->metas == NULL || tables->claimed == NULL) {
        return FAIL_NO_MEMORY("level tables");
    }
    size_t at = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        tables->levels[level] =
            (struct level_table){.segments = tables->metas + at, .claimed = tables->claimed + at};
        for (uint32_t i = 0; run != NULL && i < run->count; i++, at++) {
            tables->metas[at] = segment_meta(run->segments[i]);
            tables->claimed[at] = compact_is_claimed_locked(db, tables->metas[at]->id);
        }
        tables->levels[level].count = run != NULL ? run->count : 0;
    }
    return ESKER_OK;
}

static void
compact_tables_fini(esker_db *db, struct compact_tables *tables)
{
    mem_free(&db->mem, tables->metas);
    mem_free(&db->mem, tables->claimed);
}

/* ---- Claims --------------------------------------------------------------- */

struct compact_run {
    esker_db *db;
    struct version *version;
    const struct compaction_plan *plan;
    struct level_run *inputs, *overlaps;
    uint64_t *drop_ids; /* everything claimed: inputs and overlaps */
    size_t drop_count;
    uint64_t max_lsn, bytes_in;
};

static esker_status
compact_claim_locked(esker_db *db, const struct version *version, const struct compaction_plan *plan,
                     struct compact_run *run)
{
    size_t needed = db->claimed_count + plan->input_count + plan->overlap_count;
    if (needed > db->claimed_cap) {
        size_t cap = MAX(needed, db->claimed_cap * 2);
        uint64_t *ids = mem_alloc_array(&db->mem, cap, sizeof *ids);
        if (ids == NULL) {
            return FAIL_NO_MEMORY("merge claims");
        }
        if (db->claimed_count > 0) {
            memcpy(ids, db->claimed_ids, db->claimed_count * sizeof *ids);
        }
        mem_free(&db->mem, db->claimed_ids);
        db->claimed_ids = ids;
        db->claimed_cap = cap;
    }
    for (size_t i = 0; i < plan->input_count; i++) {
        struct segment *segment = version->levels[plan->input_level]->segments[plan->inputs[i]];
        run->drop_ids[run->drop_count++] = segment_meta(segment)->id;
    }
    for (size_t i = 0; i < plan->overlap_count; i++) {
        struct segment *segment = version->levels[plan->output_level]->segments[plan->overlaps[i]];
        run->drop_ids[run->drop_count++] = segment_meta(segment)->id;
    }
    memcpy(db->claimed_ids + db->claimed_count, run->drop_ids, run->drop_count * sizeof *run->drop_ids);
    db->claimed_count += run->drop_count;
    return ESKER_OK;
}

static void
compact_unclaim(esker_db *db, const uint64_t *ids, size_t count)
{
    mutex_lock(&db->mu);
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0; at < db->claimed_count; at++) {
            if (db->claimed_ids[at] == ids[i]) {
                db->claimed_ids[at] = db->claimed_ids[--db->claimed_count];
                break;
            }
        }
    }
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
}

/* ---- Running one plan ------------------------------------------------------ */

static uint64_t
compact_next_id(void *ctx)
{
    return db_next_file_id(((struct compact_run *)ctx)->db);
}

static bool
compact_deeper(void *ctx, struct bytes key)
{
    const struct compact_run *run = ctx;
    for (uint32_t level = run->plan->output_level + 1; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *deeper = run->version->levels[level];
        if (deeper == NULL) {
            continue;
        }
        uint32_t index = level_run_seek(deeper, key);
        if (index < deeper->count &&
            bytes_compare(segment_meta(deeper->segments[index])->min_key, key) <= 0) {
            return true;
        }
    }
    return false;
}

static esker_status
compact_pick_run(struct compact_run *run, uint32_t level, const uint32_t *indexes, size_t count,
                 struct level_run **out)
{
    esker_db *db = run->db;
    struct segment **segments = mem_alloc_array(&db->mem, count, sizeof *segments);
    if (segments == NULL) {
        return FAIL_NO_MEMORY("merge inputs");
    }
    for (size_t i = 0; i < count; i++) {
        segments[i] = run->version->levels[level]->segments[indexes[i]];
        const struct segment_meta *meta = segment_meta(segments[i]);
        run->max_lsn = MAX(run->max_lsn, meta->max_lsn);
        run->bytes_in += meta->size_bytes;
    }
    esker_status status = level_run_create(&db->mem, segments, (uint32_t)count, out);
    mem_free(&db->mem, segments);
    return status;
}

static esker_status
compact_source(struct compact_run *run, struct iter **out)
{
    const struct mem *mem = &run->db->mem;
    size_t most = run->inputs->count + 1;
    struct iter **children = mem_alloc_array(mem, most, sizeof *children);
    if (children == NULL) {
        return FAIL_NO_MEMORY("merge inputs");
    }
    size_t count = 0;
    esker_status status = ESKER_OK;
    if (run->plan->input_level == 0) {
        for (uint32_t i = 0; i < run->inputs->count; i++) {
            TRY_OUT(segment_iter_create(run->inputs->segments[i], false, &children[count]));
            count++;
        }
    } else {
        TRY_OUT(level_iter_create(run->inputs, false, mem, &children[count]));
        count++;
    }
    if (run->overlaps->count > 0) {
        TRY_OUT(level_iter_create(run->overlaps, false, mem, &children[count]));
        count++;
    }
    status = merge_iter_create(children, count, mem, out);
    count = 0;
out:
    for (size_t i = 0; i < count; i++) {
        iter_destroy(children[i]);
    }
    mem_free(mem, children);
    return status;
}

static esker_status
compact_merge(struct compact_run *run, struct compaction_result *result)
{
    esker_db *db = run->db;
    uint64_t *stripes = NULL;
    size_t stripe_count = 0;
    struct iter *source = NULL;
    esker_status status = ESKER_OK;
    TRY_OUT(db_collect_stripes(db, run->max_lsn + 1, &stripes, &stripe_count));
    TRY_OUT(compact_source(run, &source));
    struct compaction_spec spec = {.io = db->io,
                                   .mem = &db->mem,
                                   .source = source,
                                   .stripes = stripes,
                                   .stripe_count = stripe_count,
                                   .output_level = run->plan->output_level,
                                   .deeper = compact_deeper,
                                   .segment_bytes_max = db->segment_bytes,
                                   .compression = db_level_compression(db, run->plan->output_level),
                                   .next_id = compact_next_id,
                                   .ctx = run,
                                   .cancel = &db->cancel};
    memcpy(spec.uuid, db->uuid, sizeof spec.uuid);
    TRY_OUT(compaction_run(&spec, result));
    if (result->output_count > 0) {
        status = io_sync_dir(db->io);
        if (status != ESKER_OK) {
            db_remove_outputs(db, result);
        }
    }
out:
    iter_destroy(source);
    mem_free(&db->mem, stripes);
    return status;
}

/* The files stay as they are, only their level changes. */
static esker_status
compact_move(struct compact_run *run, struct install *install)
{
    const struct mem *mem = &run->db->mem;
    size_t count = run->inputs->count;
    struct segment_meta *metas = mem_alloc_array(mem, count, sizeof *metas);
    struct segment **segments = mem_zalloc_array(mem, count, sizeof *segments);
    esker_status status = ESKER_OK;
    if (metas == NULL || segments == NULL) {
        status = FAIL_NO_MEMORY("an edit");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        metas[i] = *segment_meta(run->inputs->segments[i]);
        metas[i].level = run->plan->output_level;
        TRY_OUT(db_open_segment(run->db, &metas[i], &segments[i]));
    }
    install->edit.add_segments = metas;
    install->edit.add_segment_count = count;
    install->add = segments;
    status = db_install(run->db, install);
out:
    for (size_t i = 0; segments != NULL && i < count; i++) {
        if (segments[i] != NULL) {
            segment_unref(segments[i]);
        }
    }
    mem_free(mem, segments);
    mem_free(mem, metas);
    return status;
}

/* The plan's segments are claimed; drop_ids outlives the call (for the claims). */
static esker_status
compact_execute(struct compact_run *run)
{
    esker_db *db = run->db;
    const struct compaction_plan *plan = run->plan;
    uint64_t started_ns = io_monotonic_ns(db->io);
    struct compaction_result result = {0};
    esker_status status = ESKER_OK;
    TRY_OUT(compact_pick_run(run, plan->input_level, plan->inputs, plan->input_count, &run->inputs));
    TRY_OUT(compact_pick_run(run, plan->output_level, plan->overlaps, plan->overlap_count, &run->overlaps));
    struct install install = {
        .edit = {.drop_segments = run->drop_ids, .drop_segment_count = run->drop_count}};
    if (plan->trivial_move) {
        status = compact_move(run, &install);
        goto out;
    }
    TRY_OUT(compact_merge(run, &result));
    uint64_t bytes_out = result.bytes_written;
    TRY_OUT(db_install_outputs(db, &install, &result));
    add_relaxed(&db->compactions, 1);                       /* relaxed: statistic */
    add_relaxed(&db->compaction_bytes_read, run->bytes_in); /* relaxed: statistic */
    add_relaxed(&db->compaction_bytes_written, bytes_out);  /* relaxed: statistic */
    db_emit(db, ESKER_EVENT_COMPACTION, bytes_out, io_monotonic_ns(db->io) - started_ns, NULL);
out:
    compaction_result_fini(&result, &db->mem);
    level_run_unref(run->inputs);
    level_run_unref(run->overlaps);
    run->inputs = NULL;
    run->overlaps = NULL;
    return status;
}

enum compact_picked { COMPACT_NOTHING, COMPACT_PLANNED };

/* What an explicit call merges: keys of [lower, upper) that were there when it began. */
struct compact_range {
    struct bytes lower, upper;
    uint64_t end_lsn;
};

/* What was flushed since the call began is not its business: else it would not
 * end as long as others write. Level 0 is newest first, and the rest stays in order. */
static bool
compact_pick_range(struct compact_tables *tables, const struct picker_config *config,
                   const struct compact_range *range, struct compaction_plan *plan)
{
    struct level_table *level0 = &tables->levels[0];
    uint32_t newer = 0;
    while (newer < level0->count && level0->segments[newer]->min_lsn >= range->end_lsn) {
        newer++;
    }
    level0->segments += newer;
    level0->claimed += newer;
    level0->count -= newer;
    bool found = compaction_pick_range(tables->levels, config, range->lower, range->upper, plan);
    for (size_t i = 0; found && plan->input_level == 0 && i < plan->input_count; i++) {
        plan->inputs[i] += newer;
    }
    return found;
}

/* range: NULL for the background's choice. The version in *run is referenced when planned. */
static esker_status
compact_plan(esker_db *db, const struct compact_range *range, struct compaction_plan *plan,
             struct compact_run *run, enum compact_picked *picked_out)
{
    struct picker_config config = compact_config(db);
    struct compact_tables tables = {0};
    *run = (struct compact_run){.db = db, .plan = plan};
    *picked_out = COMPACT_NOTHING;
    mutex_lock(&db->mu);
    struct version *version = load_acquire(&db->current); /* pairs: CURRENT — mu keeps it current */
    esker_status status = ESKER_OK;
    if (range == NULL && db->manual_compactions > 0) {
        goto out;
    }
    TRY_OUT(compact_tables_init_locked(db, version, &tables));
    bool found = range == NULL ? compaction_pick(tables.levels, &config, plan)
                               : compact_pick_range(&tables, &config, range, plan);
    if (!found) {
        goto out;
    }
    run->drop_ids = mem_alloc_array(&db->mem, plan->input_count + plan->overlap_count, sizeof *run->drop_ids);
    if (run->drop_ids == NULL) {
        status = FAIL_NO_MEMORY("merge inputs");
        goto out;
    }
    TRY_OUT(compact_claim_locked(db, version, plan, run));
    version_ref(version);
    run->version = version;
    *picked_out = COMPACT_PLANNED;
out:
    mutex_unlock(&db->mu);
    compact_tables_fini(db, &tables);
    if (status != ESKER_OK) {
        mem_free(&db->mem, run->drop_ids);
    }
    return status;
}

static esker_status
compact_finish(struct compact_run *run)
{
    esker_status status = compact_execute(run);
    esker_error story = *status_last();
    compact_unclaim(run->db, run->drop_ids, run->drop_count);
    version_unref(run->version);
    mem_free(&run->db->mem, run->drop_ids);
    return status == ESKER_OK ? ESKER_OK : status_restore(&story);
}

void
db_kick_compaction(esker_db *db)
{
    for (uint32_t i = 0; i < db->compact_job_count; i++) {
        job_kick(&db->compact_jobs[i].job);
    }
}

void
db_compact_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct compact_job, job)->db;
    struct compaction_plan *plan = mem_alloc(&db->mem, sizeof *plan);
    if (plan == NULL) {
        IGNORE_STATUS(FAIL_NO_MEMORY("a merge plan"), "told below");
        db_background_failed(db, job);
        return;
    }
    struct compact_run run;
    enum compact_picked picked = COMPACT_NOTHING;
    esker_status status = compact_plan(db, NULL, plan, &run, &picked);
    if (status == ESKER_OK && picked == COMPACT_PLANNED) {
        status = compact_finish(&run);
    }
    mem_free(&db->mem, plan);
    if (status != ESKER_OK) {
        if (!load_relaxed(&db->cancel)) { /* relaxed: what the merge saw, this sees */
            db_background_failed(db, job);
        }
        return;
    }
    if (picked == COMPACT_PLANNED) {
        db_background_ok(db, job);
        db_kick_compaction(db);
    }
}

void
db_purge_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, purge_job);
    mutex_lock(&db->mu);
    uint64_t stalled_ns = db->stall_report_ns;
    db->stall_report_ns = 0;
    mutex_unlock(&db->mu);
    if (stalled_ns > 0) {
        db_emit(db, ESKER_EVENT_STALL, 0, stalled_ns, NULL);
    }
    for (;;) {
        mutex_lock(&db->mu);
        bool any = db->obsolete_count > 0;
        uint64_t id = any ? db->obsolete_ids[--db->obsolete_count] : 0;
        mutex_unlock(&db->mu);
        if (!any) {
            return;
        }
        char name[40];
        segment_file_name(id, name);
        IGNORE_STATUS(io_unlink(db->io, name), "an orphan is removed at the next open");
    }
}

/* ---- The explicit call ------------------------------------------------------ */

static esker_status
compact_all_of(esker_db *db, const struct compact_range *range)
{
    struct compaction_plan *plan = mem_alloc(&db->mem, sizeof *plan);
    if (plan == NULL) {
        return FAIL_NO_MEMORY("a merge plan");
    }
    mutex_lock(&db->mu);
    while (db->manual_compactions > 0) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    db->manual_compactions = 1;
    while (db->claimed_count > 0) {
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    mutex_unlock(&db->mu);
    esker_status status = ESKER_OK;
    enum compact_picked picked = COMPACT_PLANNED;
    while (status == ESKER_OK && picked == COMPACT_PLANNED) {
        struct compact_run run;
        status = compact_plan(db, range, plan, &run, &picked);
        if (status == ESKER_OK && picked == COMPACT_PLANNED) {
            status = compact_finish(&run);
        }
    }
    mutex_lock(&db->mu);
    db->manual_compactions = 0;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    mem_free(&db->mem, plan);
    db_kick_compaction(db);
    return status;
}

esker_status
esker_compact(esker_db *db, const esker_slice *lower, const esker_slice *upper)
{
    struct compact_range range = {0};
    if (lower != NULL) {
        range.lower = bytes_of_slice(*lower);
    }
    if (upper != NULL) {
        range.upper = bytes_of_slice(*upper);
    }
    if ((range.lower.ptr == NULL && range.lower.len > 0) ||
        (range.upper.ptr == NULL && range.upper.len > 0)) {
        return FAIL(ESKER_INVALID, "a bound is NULL");
    }
    struct db_call call;
    TRY(db_call_enter(db, &call));
    esker_status status = db_seal_active(db, call.self, 0, &range.end_lsn);
    if (status == ESKER_OK) {
        status = db_flush_until(db, range.end_lsn);
    }
    if (status == ESKER_OK) {
        status = compact_all_of(db, &range);
    }
    db_call_exit(&call);
    return status;
}
