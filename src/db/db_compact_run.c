/* SPDX-License-Identifier: MIT */
/*
 * A planned merge: its sources, its parts, its end.
 *
 * Invariants
 *  I1 A run's parts cover all keys and share none, so the outputs of one part
 *     after the other are in key order.
 *  I2 A run is installed whole, by one edit, or not at all. When a part fails
 *     the others stop at their next step, and all outputs are removed.
 *  I3 Inputs stay claimed until the run is released; on a failure they stay in
 *     the tree as they were.
 */
#include "iter/merge_iter.h"

#include "db/db_compact.h"

/* ---- What is merged ----------------------------------------------------------- */

static esker_status
run_pick(struct compact_run *run, uint32_t level, const uint32_t *indexes, size_t count,
         struct level_run **out)
{
    esker_db *db = run->db;
    struct segment **segments = mem_alloc_array(&db->block_mem, count, sizeof *segments);
    if (segments == NULL) {
        return FAIL_NO_MEMORY("merge inputs");
    }
    for (size_t i = 0; i < count; i++) {
        segments[i] = run->version->levels[level]->segments[indexes[i]];
        const struct segment_meta *meta = segment_meta(segments[i]);
        run->max_lsn = MAX(run->max_lsn, meta->max_lsn);
        run->bytes_in += meta->size_bytes;
        run->rows_in += meta->row_count;
        run->input_rows += level == run->plan->input_level ? meta->row_count : 0;
        run->input_tombstones += level == run->plan->input_level ? meta->tombstone_count : 0;
    }
    esker_status status = level_run_create(&db->block_mem, segments, (uint32_t)count, level == 0, out);
    mem_free(&db->block_mem, segments);
    return status;
}

static esker_status
run_source(struct compact_run *run, struct iter **out)
{
    const struct mem *mem = &run->db->block_mem;
    size_t most = (size_t)run->inputs->tier_count + 1; /* the overlaps are one sorted run */
    struct iter **children = mem_alloc_array(mem, most, sizeof *children);
    if (children == NULL) {
        return FAIL_NO_MEMORY("merge inputs");
    }
    size_t count = 0;
    esker_status status = ESKER_OK;
    for (uint32_t i = 0; i < run->inputs->count;) { /* a level is one sorted run, level 0 is many */
        TRY_OUT(
            level_iter_create_tier(run->inputs, &i, false, (struct iter_bounds){0}, mem, &children[count]));
        count++;
    }
    for (uint32_t i = 0; i < run->overlaps->count;) {
        TRY_OUT(
            level_iter_create_tier(run->overlaps, &i, false, (struct iter_bounds){0}, mem, &children[count]));
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

/* The level below the output, by whose borders outputs are cut. */
static esker_status
run_collect_below(struct compact_run *run)
{
    uint32_t level = run->plan->output_level + 1;
    const struct level_run *below = level < ESKER_LEVELS_MAX ? run->version->levels[level] : NULL;
    if (below == NULL) {
        return ESKER_OK;
    }
    run->below = mem_alloc_array(&run->db->block_mem, below->count, sizeof *run->below);
    if (run->below == NULL) {
        return FAIL_NO_MEMORY("merge inputs");
    }
    for (uint32_t i = 0; i < below->count; i++) {
        run->below[run->below_count++] = segment_meta(below->segments[i]);
    }
    return ESKER_OK;
}

/* ---- Beginning ------------------------------------------------------------------ */

/* The space that the outputs can take at most is set aside, so that merges that
 * run at once do not fill the disk together, and the log keeps what it needs. */
static esker_status
run_reserve_space(struct compact_run *run)
{
    esker_db *db = run->db;
    uint64_t free_bytes = 0;
    TRY(io_free_bytes(db->io, &free_bytes));
    mutex_lock(&db->mu);
    uint64_t windows = load_acquire(&db->current)->window_count; /* pairs: CURRENT */
    windows = MAX(windows, (uint64_t)WINDOWS_LIVE_MAX);
    uint64_t kept = db->merge_reserved_bytes + db->window_bytes_max * windows;
    /* While the reserve is spent merges are tried: what deletes cover needs no room. */
    bool fits = db->reserve_spent || (free_bytes >= kept && free_bytes - kept >= run->bytes_in);
    if (fits) {
        run->reserved_bytes = run->bytes_in;
        db->merge_reserved_bytes += run->bytes_in;
    }
    mutex_unlock(&db->mu);
    if (!fits && !db_reserve_release_for_merge(db, run->input_tombstones, run->input_rows)) {
        return FAIL(ESKER_NO_SPACE, "a merge may need %llu bytes, and %llu are free",
                    (unsigned long long)run->bytes_in, (unsigned long long)free_bytes);
    }
    return ESKER_OK;
}

/* What one part has open: one segment of each tier or level, and its output. */
static uint64_t
run_files(const struct compact_run *run)
{
    return run->inputs->tier_count + (run->overlaps->count > 0) + 1;
}

/* So many parts that each is worth a thread's while, and twice as many as
 * threads, so that nobody waits long for the last one. Fewer where descriptors are few. */
static uint32_t
run_wanted_parts(const struct compact_run *run)
{
    uint64_t by_size = run->bytes_in / (2 * run->db->segment_bytes);
    uint64_t most = run->db->compact_job_count > 1 ? 2 * run->db->compact_job_count : 1;
    most = MIN(most, run->db->merge_files_max / run_files(run));
    return (uint32_t)MIN(MAX(by_size, (uint64_t)1), MAX(most, (uint64_t)1));
}

static void
run_init_parts(struct compact_run *run)
{
    for (uint32_t i = 0; i < run->part_count; i++) {
        run->parts[i].run = run;
    }
    mutex_lock(&run->db->mu);
    run->parts_left = run->part_count;
    for (uint32_t i = run->part_count; i > 0; i--) {
        run->parts[i - 1].next = run->db->compact_parts;
        run->db->compact_parts = &run->parts[i - 1];
    }
    mutex_unlock(&run->db->mu);
}

static esker_status
run_begin_pick(struct compact_run *run)
{
    const struct compaction_plan *plan = run->plan;
    TRY(run_pick(run, plan->input_level, plan->inputs, plan->input_count, &run->inputs));
    TRY(run_pick(run, plan->output_level, plan->overlaps, plan->overlap_count, &run->overlaps));
    return plan->trivial_move || plan->drop ? ESKER_END
                                            : ESKER_OK; /* no part: there is nothing but the end */
}

/* What every part, or the split, needs at once, one segment per step. NULL: that was all. */
static struct segment *
run_begin_opens(struct compact_run *run)
{
    bool split = run_wanted_parts(run) > 1 && compact_split_reads(run);
    bool all = split || run->inputs->tier_count == run->inputs->count;
    uint32_t inputs = all ? run->inputs->count : 0;
    uint32_t overlaps = split ? run->overlaps->count : 0;
    uint32_t at = run->opened++;
    if (at < inputs) {
        return run->inputs->segments[at];
    }
    return at - inputs < overlaps ? run->overlaps->segments[at - inputs] : NULL;
}

static esker_status
run_begin_parts(struct compact_run *run)
{
    esker_db *db = run->db;
    TRY(run_reserve_space(run));
    TRY(run_collect_below(run));
    run->merge = (struct db_merge){
        .db = db, .version = run->version, .output_level = run->plan->output_level, .warm = true};
    if (run->plan->input_level == 0) {
        run->merge.older_from = run->plan->inputs[run->plan->input_count - 1] + 1;
    }
    TRY(db_collect_stripes(db, run->max_lsn + 1, &run->merge.stripes, &run->merge.stripe_count));
    esker_status status = compact_split(run, run_wanted_parts(run));
    if (status != ESKER_OK && !status_lacks_files(status_last())) {
        return status; /* one part is as good where the indexes cannot be looked at */
    }
    bool shared = run->part_count > 1;
    run_init_parts(run); /* others may take the parts now, and have ended the run by the next line */
    if (shared) {
        db_kick_compaction(db);
    }
    return ESKER_END;
}

/* Before each step: a database that is being closed begins none. */
static esker_status
run_check_cancel(struct compact_run *run)
{
    if (load_relaxed(&run->db->cancel)) { /* relaxed: a request to stop, sooner or later */
        store_relaxed(&run->stop, true);  /* relaxed: the same */
        return FAIL(ESKER_BUSY, "the merge was cancelled");
    }
    return ESKER_OK;
}

static esker_status
run_begin_some(struct compact_run *run)
{
    if (run->inputs == NULL) {
        return run_begin_pick(run);
    }
    struct segment *segment = run_begin_opens(run);
    if (segment == NULL) {
        return run_begin_parts(run);
    }
    esker_status status = segment_warm(segment);
    if (status != ESKER_OK && status_lacks_files(status_last())) {
        return ESKER_OK; /* the merge itself tells whether there are enough */
    }
    return status;
}

esker_status
compact_begin_step(struct compact_run *run)
{
    esker_db *db = run->db; /* when the run has begun, others may end it */
    TRY(run_check_cancel(run));
    struct db_step begun = db_step_begin(db);
    esker_status status = run_begin_some(run);
    db_step_end(db, &begun, ESKER_STEP_OPEN);
    return status;
}

/* ---- Parts ------------------------------------------------------------------------ */

struct compact_part *
compact_take_part(esker_db *db, const struct compact_run *run)
{
    mutex_lock(&db->mu);
    struct compact_part **at = &db->compact_parts;
    while (*at != NULL && run != NULL && (*at)->run != run) {
        at = &(*at)->next;
    }
    struct compact_part *part = *at;
    if (part != NULL) {
        *at = part->next;
        part->next = NULL;
    }
    mutex_unlock(&db->mu);
    return part;
}

void
compact_put_part_back(esker_db *db, struct compact_part *part)
{
    mutex_lock(&db->mu);
    part->next = db->compact_parts;
    db->compact_parts = part;
    mutex_unlock(&db->mu);
    db_kick_compaction(db); /* somebody else may have nothing to do */
}

static esker_status
part_start(struct compact_part *part)
{
    struct compact_run *run = part->run;
    TRY(run_source(run, &part->source));
    db_merge_spec(&run->merge, part->source, &part->spec);
    part->spec.cancel = &run->stop;
    part->spec.lower = part->lower;
    part->spec.upper = part->upper;
    part->spec.below = run->below;
    part->spec.below_count = run->below_count;
    return compaction_job_create(&part->spec, &part->job);
}

static void
part_fini(struct compact_part *part)
{
    compaction_job_destroy(part->job);
    part->job = NULL;
    iter_destroy(part->source);
    part->source = NULL;
}

/* Tells how far the run is when it has passed another sixteenth. The end is told by itself. */
static void
part_tell_progress(struct compact_part *part)
{
    struct compact_run *run = part->run;
    uint64_t rows = compaction_job_rows(part->job);
    uint64_t more = rows - part->rows_told;
    part->rows_told = rows;
    if (more == 0 || run->rows_in == 0) {
        return;
    }
    uint64_t done = add_relaxed(&run->rows_done, more) + more; /* relaxed: told only */
    done = MIN(done, run->rows_in);
    double shares = (double)COMPACT_PROGRESS_SHARES;
    uint32_t share = (uint32_t)((double)done / (double)run->rows_in * shares);
    uint32_t told = load_relaxed(&run->shares_told); /* relaxed: one of the parts wins */
    if (share > told && share < COMPACT_PROGRESS_SHARES &&
        cas_relaxed(&run->shares_told, &told, share)) { /* relaxed: the same */
        db_emit_progress(run->db, run->bytes_in / COMPACT_PROGRESS_SHARES * share, run->bytes_in);
    }
}

esker_status
compact_part_step(struct compact_part *part)
{
    TRY(run_check_cancel(part->run));
    struct db_step begun = db_step_begin(part->run->db);
    int kind = part->job == NULL ? ESKER_STEP_OPEN : compaction_job_next(part->job);
    esker_status status = part->job == NULL ? part_start(part) : compaction_job_step(part->job);
    db_step_end(part->run->db, &begun, kind);
    if (status == ESKER_OK) {
        part_tell_progress(part);
    }
    return status;
}

bool
compact_part_ended(struct compact_part *part, esker_status status)
{
    struct compact_run *run = part->run;
    esker_db *db = run->db;
    esker_error story = *status_last();
    if (status == ESKER_END) {
        compaction_job_take(part->job, &part->result);
    }
    part_fini(part);
    mutex_lock(&db->mu);
    if (status < ESKER_OK && run->failure.status == ESKER_OK) {
        run->failure = story;            /* the parts that stop for its sake come later */
        store_relaxed(&run->stop, true); /* relaxed: a request to stop, sooner or later */
    }
    bool last = --run->parts_left == 0;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    return last;
}

/* ---- The end ------------------------------------------------------------------------ */

/* The files stay as they are, only their level changes; so do their handles,
 * with every block of them that is in the cache. */
static esker_status
run_move(struct compact_run *run, struct install *install)
{
    const struct mem *mem = &run->db->block_mem;
    size_t count = run->inputs->count;
    struct segment_meta *metas = mem_alloc_array(mem, count, sizeof *metas);
    if (metas == NULL) {
        return FAIL_NO_MEMORY("an edit");
    }
    for (size_t i = 0; i < count; i++) {
        metas[i] = *segment_meta(run->inputs->segments[i]);
        metas[i].level = run->plan->output_level;
        metas[i].tier_lsn = 0;
        metas[i].tier_id = 0;
    }
    install->edit.add_segments = metas;
    install->edit.add_segment_count = count;
    install->add = run->inputs->segments;
    esker_status status = db_install(run->db, install);
    mem_free(mem, metas);
    return status;
}

/* All parts' outputs in one list, in key order (I1). */
static esker_status
run_gather(struct compact_run *run)
{
    struct compaction_result *out = &run->result;
    size_t count = 0;
    for (uint32_t i = 0; i < run->part_count; i++) {
        count += run->parts[i].result.output_count;
    }
    out->outputs = mem_alloc_array(&run->db->block_mem, count, sizeof *out->outputs);
    if (out->outputs == NULL) {
        return FAIL_NO_MEMORY("the outputs of a merge");
    }
    for (uint32_t i = 0; i < run->part_count; i++) {
        struct compaction_result *part = &run->parts[i].result;
        for (size_t k = 0; k < part->output_count; k++) {
            out->outputs[out->output_count++] = part->outputs[k];
        }
        out->rows_in += part->rows_in;
        out->rows_out += part->rows_out;
        out->bytes_written += part->bytes_written;
        out->rows_expired += part->rows_expired;
        part->output_count = 0; /* they are in the list now */
        compaction_result_fini(part, &run->db->block_mem);
    }
    return ESKER_OK;
}

/* Outputs in level 0 are one tier, in the place of the newest that was merged. */
static void
run_name_tier(const struct compact_run *run, struct compaction_result *result)
{
    if (run->plan->output_level > 0 || result->output_count <= 1) {
        return; /* one segment is a tier by itself */
    }
    const struct segment_meta *newest = segment_meta(run->inputs->segments[0]);
    for (size_t i = 0; i < result->output_count; i++) {
        struct segment_meta *meta = &result->outputs[i]->meta;
        meta->tier_lsn = newest->tier_id != 0 ? newest->tier_lsn : newest->max_lsn;
        meta->tier_id = result->outputs[0]->meta.id;
    }
}

static esker_status
run_hand_over_some(struct compact_run *run)
{
    if (!run->gathered) {
        TRY(run_gather(run));
        run_name_tier(run, &run->result); /* before they get their handles */
        run->gathered = true;
    }
    return db_adopt_outputs(run->db, &run->result);
}

esker_status
compact_hand_over(struct compact_run *run)
{
    if (run->plan->trivial_move || run->plan->drop || run->failure.status != ESKER_OK) {
        return ESKER_END; /* of outputs there are none, or they go */
    }
    struct db_step begun = db_step_begin(run->db);
    esker_status status = run_hand_over_some(run);
    if (status < ESKER_OK) {
        run->failure = *status_last();
        status = ESKER_END;
    }
    db_step_end(run->db, &begun, ESKER_STEP_INSTALL);
    return status;
}

static esker_status
run_install(struct compact_run *run)
{
    esker_db *db = run->db;
    struct install install = {
        .edit = {.drop_segments = run->drop_ids, .drop_segment_count = run->drop_count}};
    if (run->plan->trivial_move) {
        return run_move(run, &install);
    }
    if (run->plan->drop) {
        TRY(db_install(db, &install));
        add_relaxed(&db->segments_expired, run->drop_count); /* relaxed: statistic */
        return ESKER_OK;
    }
    struct compaction_result *result = &run->result;
    esker_status status = run->failure.status;
    if (status != ESKER_OK) {
        return status_restore(&run->failure);
    }
    TRY_OUT(db_sync_outputs(db, result));
    uint64_t bytes_out = result->bytes_written;
    uint64_t expired = result->rows_expired;
    bool makes_tier = run->plan->output_level == 0 && result->output_count > 0;
    TRY_OUT(db_install_outputs(db, &install, result));
    add_relaxed(&db->compactions, 1);                       /* relaxed: statistic */
    add_relaxed(&db->compaction_bytes_read, run->bytes_in); /* relaxed: statistic */
    add_relaxed(&db->compaction_bytes_written, bytes_out);  /* relaxed: statistic */
    add_relaxed(&db->rows_expired, expired);                /* relaxed: statistic */
    uint64_t tiers_gone = run->plan->input_level == 0 ? run->inputs->tier_count : 0;
    db_pace_merged(db, tiers_gone - (makes_tier ? 1 : 0), run->started_ns);
    db_emit(db, ESKER_EVENT_COMPACTION, bytes_out, io_monotonic_ns(db->io) - run->started_ns, NULL);
out:
    compaction_result_fini(result, &db->block_mem);
    return status;
}

/* Descriptors or the disk's room were short: level 0 is merged by fewer segments at a
 * time, for nobody knows how much others will leave. (All of them again, if not even
 * one could be merged for want of room: deletes among them may cover the most.) Of
 * descriptors, those of segments that nobody reads just now are given back. True: it
 * is worth another try. */
static bool
run_shrinks(struct compact_run *run, const esker_error *story)
{
    esker_db *db = run->db;
    bool files = status_lacks_files(story);
    if (!files && story->status != ESKER_NO_SPACE) {
        return false;
    }
    if (files) {
        block_cache_shed_holders(db->cache);
    }
    mutex_lock(&db->mu);
    bool level0 = run->plan->input_level == 0;
    uint32_t tiers = run->inputs != NULL ? run->inputs->tier_count : (uint32_t)run->plan->input_count;
    bool smaller = level0 && tiers > 1;
    bool again = smaller || (files && !db->merge_files_shed);
    db->merge_files_shed |= files;
    db->merge_space_short |= !files && level0;
    if (smaller) {
        db->l0_inputs_max = MIN(db->l0_inputs_max, tiers / 2);
    } else if (!files && level0) {
        db->l0_inputs_max = db->merge_files_max;
    }
    mutex_unlock(&db->mu);
    return again;
}

/* A merge went well: the next may be a little larger, if they were made smaller. */
static void
run_grows(struct compact_run *run)
{
    esker_db *db = run->db;
    mutex_lock(&db->mu);
    db->merge_files_shed = false;
    if (run->plan->input_level == 0 && run->inputs->tier_count >= db->l0_inputs_max) {
        uint32_t more = db->merge_space_short ? db->l0_inputs_max : 1;
        db->l0_inputs_max = MIN(db->l0_inputs_max + more, db->merge_files_max);
        db->merge_space_short = db->merge_space_short && db->l0_inputs_max < db->merge_files_max;
    }
    mutex_unlock(&db->mu);
}

static void
run_count_failure(struct compact_run *run, const esker_error *story)
{
    if (load_relaxed(&run->db->cancel)) { /* relaxed: what the merge saw, this sees */
        return;
    }
    add_relaxed(&run->db->compactions_failed, 1); /* relaxed: statistic */
    if (story->status == ESKER_CORRUPT) {
        add_relaxed(&run->db->compactions_damaged, 1); /* relaxed: statistic */
        compact_mark_damaged(run, story);
    }
}

esker_status
compact_finish(struct compact_run *run)
{
    esker_db *db = run->db;
    struct db_step begun = db_step_begin(db);
    esker_status status = run_install(run);
    esker_error story = *status_last();
    for (uint32_t i = 0; i < run->part_count; i++) { /* I2; there are none after an installation */
        db_remove_outputs(db, &run->parts[i].result);
    }
    db_remove_outputs(db, &run->result);
    if (status == ESKER_OK) {
        run_grows(run);
    } else if (run_shrinks(run, &story)) {
        status = ESKER_OK;
    } else {
        run_count_failure(run, &story);
    }
    compact_release(run);
    db_step_end(db, &begun, ESKER_STEP_INSTALL);
    return status == ESKER_OK ? ESKER_OK : status_restore(&story);
}

esker_status
compact_give_up(struct compact_run *run)
{
    esker_error story = *status_last();
    bool again = run_shrinks(run, &story);
    compact_abandon(run, again ? NULL : &story);
    return again ? ESKER_OK : status_restore(&story);
}

void
compact_abandon(struct compact_run *run, const esker_error *story)
{
    for (uint32_t i = 0; i < run->part_count; i++) {
        part_fini(&run->parts[i]);
        db_remove_outputs(run->db, &run->parts[i].result);
    }
    db_remove_outputs(run->db, &run->result);
    if (story != NULL) {
        run_count_failure(run, story);
    }
    compact_release(run);
}
