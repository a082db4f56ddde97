/* SPDX-License-Identifier: MIT */
/*
 * From the tree as it is to a claimed plan: tables for the picker, claims
 * (segment ids under mu), and what is left alone.
 */
#include <stdio.h>

#include "base/assert.h"
#include "base/mutant.h"

#include "db/db_compact.h"

enum {
    PLAN_TIERS = 12,       /* so many tiers has level 0 at most while writes come in */
    PLAN_TIERS_LAZY = 16,  /* ... and hardly anybody reads */
    PLAN_TIERS_LARGE = 32, /* ... and its rows are so large that each merge costs more than many gets */
    PLAN_LARGE_ROW_BYTES = 8 << 10,
    PLAN_EIGHTHS = 4,       /* it goes down when it is half as large as its base level */
    PLAN_EIGHTHS_REST = 1,  /* ... an eighth while writes rest */
    PLAN_EIGHTHS_LAZY = 16, /* ... twice as large as all below, if that is no more than the next; then less */
    PLAN_LAZY_WINDOWS = 64,
    PLAN_TIER_WINDOWS = 64, /* no tier is larger: index and filter of a segment are loaded whole */
    PLAN_WALK_COST = 8,     /* an iterator pays for a tier about as much as so many gets */
    PLAN_REST_SHARE = 16    /* less than this part of a window within DB_LOOK_NS is no writing */
};

/* Deletes below this LSN are nobody's evidence any more. */
static uint64_t
plan_gc_lsn(esker_db *db)
{
    mutex_lock(&db->snap_mu);
    const struct esker_snapshot *oldest = db->snapshots.oldest[0];
    uint64_t lsn = oldest != NULL ? oldest->lsn : load_acquire(&db->visible); /* pairs: VISIBLE */
    mutex_unlock(&db->snap_mu);
    return lsn;
}

/* ---- Level tables for the picker ------------------------------------------ */

struct plan_tables {
    struct level_table levels[ESKER_LEVELS_MAX];
    const struct segment_meta **metas;
    bool *claimed, *damaged, *stored_otherwise;
    uint64_t *skipped;
};

static bool
plan_has_id(const uint64_t *ids, size_t count, uint64_t id)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

static esker_status
plan_tables_init_locked(esker_db *db, const struct version *version, bool damaged_too,
                        struct plan_tables *tables)
{
    size_t total = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        total += version->levels[level] != NULL ? version->levels[level]->count : 0;
    }
    tables->metas = mem_alloc_array(&db->block_mem, total, sizeof *tables->metas);
    tables->claimed = mem_alloc_array(&db->block_mem, total, sizeof *tables->claimed);
    tables->damaged = mem_alloc_array(&db->block_mem, total, sizeof *tables->damaged);
    tables->skipped = mem_alloc_array(&db->block_mem, total, sizeof *tables->skipped);
    tables->stored_otherwise = mem_alloc_array(&db->block_mem, total, sizeof *tables->stored_otherwise);
    if (tables->metas == NULL || tables->claimed == NULL || tables->damaged == NULL ||
        tables->skipped == NULL || tables->stored_otherwise == NULL) {
        return FAIL_NO_MEMORY("level tables");
    }
    size_t at = 0;
    int below = db_compression(db);
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        tables->levels[level] = (struct level_table){.segments = tables->metas + at,
                                                     .claimed = tables->claimed + at,
                                                     .damaged = tables->damaged + at,
                                                     .skipped = tables->skipped + at,
                                                     .stored_otherwise = tables->stored_otherwise + at};
        for (uint32_t i = 0; run != NULL && i < run->count; i++, at++) {
            tables->metas[at] = segment_meta(run->segments[i]);
            uint64_t id = tables->metas[at]->id;
            tables->claimed[at] = !MUTANT(21) && plan_has_id(db->claimed_ids, db->claimed_count, id);
            tables->skipped[at] = segment_skipped(run->segments[i]);
            /* What is not known is taken to be as it is mostly written. */
            int compression = segment_compression(run->segments[i]);
            tables->stored_otherwise[at] = compression != ESKER_COMPRESS_AUTO && compression != below;
            tables->damaged[at] = !damaged_too && plan_has_id(db->damaged_ids, db->damaged_count, id);
        }
        tables->levels[level].count = run != NULL ? run->count : 0;
    }
    return ESKER_OK;
}

static void
plan_tables_fini(esker_db *db, struct plan_tables *tables)
{
    mem_free(&db->block_mem, tables->metas);
    mem_free(&db->block_mem, tables->claimed);
    mem_free(&db->block_mem, tables->damaged);
    mem_free(&db->block_mem, tables->skipped);
    mem_free(&db->block_mem, tables->stored_otherwise);
}

/* ---- The policy ----------------------------------------------------------------
 *
 * What a tier more costs readers and a merge more costs writers is weighed by what is
 * going on, looked at every DB_LOOK_NS:
 *  - Writes rest: few tiers, and so little in level 0 that the space it may waste is small.
 *  - Writes come in and somebody reads: leveled. Level 0 goes down when it is worth
 *    rewriting what it meets there.
 *  - Writes come in and fewer rows are read than written: lazy. More and larger tiers over
 *    one level at the bottom. So it is while level 0 is twice as tall as leveled merges would have
 *    it, too: writers are about to be slowed down, and readers gain most by what takes most tiers away.
 * A tree that was made under one policy is right under each other one: they differ in when
 * and how much, and each plan is one that any of them might have made. */

struct plan_counts {
    uint64_t rows, reads;
};

static struct plan_counts
plan_count(esker_db *db)
{
    struct plan_counts counts = {0};
    for (uint32_t i = 0; i < STRIPE_COUNT; i++) {
        const struct stripe *stripe = &db->stripes[i];
        counts.rows += load_relaxed(&stripe->puts) + load_relaxed(&stripe->deletes); /* relaxed: statistics */
        counts.reads += load_relaxed(&stripe->gets);                                 /* relaxed: statistic */
        counts.reads += PLAN_WALK_COST * load_relaxed(&stripe->walks);               /* relaxed: statistic */
    }
    return counts;
}

/* mu held. */
static void
plan_look_locked(esker_db *db, const struct version *version)
{
    uint64_t now = io_monotonic_ns(db->io);
    if (now - db->rest_look_ns < DB_LOOK_NS) {
        return;
    }
    uint64_t visible = load_acquire(&db->visible); /* pairs: VISIBLE */
    uint64_t written = (visible - db->rest_look_lsn) * LSN_BYTES;
    struct plan_counts counts = plan_count(db);
    /* Who waits for a flush does not rest. */
    bool few = written < db->window_bytes_max / PLAN_REST_SHARE && version->window_count <= 1;
    db->writes_rest = db->rest_look_ns == 0 ? db->writes_rest : few;
    db->merges_lazy = counts.reads - db->look_reads < counts.rows - db->look_rows;
    db->rest_look_ns = now;
    db->rest_look_lsn = visible;
    db->look_rows = counts.rows;
    db->look_reads = counts.reads;
}

void
db_plan_note_filled_locked(esker_db *db, uint64_t took_ns)
{
    if (took_ns < DB_LOOK_NS * PLAN_REST_SHARE) {
        db->writes_rest = false; /* until the next look */
    }
}

/* A get pays for a tier more whatever its row's size; a merge pays for the bytes. */
static uint32_t
plan_tiers_most(const struct version *version, uint32_t usual)
{
    const struct level_run *level0 = version->levels[0];
    uint64_t rows = 0;
    for (uint32_t i = 0; level0 != NULL && i < level0->count; i++) {
        rows += segment_meta(level0->segments[i])->row_count;
    }
    bool large = level0 != NULL && level0->size_bytes / MAX(rows, (uint64_t)1) >= PLAN_LARGE_ROW_BYTES;
    return large ? PLAN_TIERS_LARGE : usual;
}

static bool
plan_has_debt(const struct version *version)
{
    return level_run_tiers(version->levels[0]) > 2 * PLAN_TIERS;
}

/* mu held. */
static void
plan_policy_locked(esker_db *db, const struct version *version, struct picker_config *config)
{
    uint64_t window = db->window_bytes_max;
    uint64_t below = 0;
    plan_look_locked(db, version);
    for (uint32_t level = 1; level < ESKER_LEVELS_MAX; level++) {
        below += version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
    }
    enum merge_policy policy = db->merge_policy;
    if (policy == MERGES_AS_MEASURED) {
        bool lazy = db->merges_lazy || plan_has_debt(version);
        policy = db->writes_rest ? MERGES_AT_REST : lazy ? MERGES_LAZY : MERGES_LEVELED;
    }
    uint32_t most = MAX(db->l0_stall * 3 / 4, (uint32_t)L0_TRIGGER); /* where descriptors are few */
    if (policy == MERGES_AT_REST) {
        config->l0_trigger = L0_TRIGGER;
        config->l0_eighths = PLAN_EIGHTHS_REST;
        config->l0_bytes = MAX(below / 8, window * L0_TRIGGER);
    } else if (policy == MERGES_LAZY) {
        uint64_t eighths = window * PLAN_LAZY_WINDOWS / MAX(below / 8, (uint64_t)1);
        config->l0_trigger = MIN(plan_tiers_most(version, PLAN_TIERS_LAZY), most);
        config->l0_eighths = (uint32_t)MIN(MAX(eighths, (uint64_t)PLAN_EIGHTHS), (uint64_t)PLAN_EIGHTHS_LAZY);
        config->lazy = true;
    } else {
        config->l0_trigger = MIN(plan_tiers_most(version, PLAN_TIERS), most);
        config->l0_eighths = PLAN_EIGHTHS;
    }
}

struct picker_config
db_picker_config(esker_db *db, const struct version *version)
{
    struct picker_config config = {
        .l0_inputs_max = db->l0_inputs_max,
        .base_bytes = db->window_bytes_max * 4,
        .fanout = COMPACT_FANOUT,
        .segment_bytes = db->segment_bytes,
        .l0_tier_bytes = db->tier_bytes != 0 ? db->tier_bytes : db->window_bytes_max * PLAN_TIER_WINDOWS,
        .gc_lsn = plan_gc_lsn(db),
        .now_ms = db_now_ms(db)};
    plan_policy_locked(db, version, &config);
    if (db->reserve_spent) { /* deletes make room when they are merged */
        config.l0_trigger = 1;
    }
    return config;
}

/* ---- Lists of ids ----------------------------------------------------------- */

/* Room for `more` ids. mu held. */
static esker_status
plan_reserve_ids(esker_db *db, uint64_t **ids, size_t count, size_t *cap, size_t more)
{
    size_t needed = count + more;
    if (needed <= *cap) {
        return ESKER_OK;
    }
    size_t room = MAX(needed, *cap * 2);
    uint64_t *larger = mem_alloc_array(&db->mem, room, sizeof *larger);
    if (larger == NULL) {
        return FAIL_NO_MEMORY("merge claims");
    }
    if (count > 0) {
        memcpy(larger, *ids, count * sizeof *larger);
    }
    mem_free(&db->mem, *ids);
    *ids = larger;
    *cap = room;
    return ESKER_OK;
}

/* They are ascending, and tiers are whole. */
static uint32_t
plan_input_tiers(const struct compaction_plan *plan, const struct level_run *level0)
{
    uint32_t tiers = 0;
    for (size_t i = 0; plan->input_level == 0 && i < plan->input_count; i++) {
        tiers += i == 0 || plan->inputs[i] >= level0->tier_end[plan->inputs[i - 1]] ? 1 : 0;
    }
    return tiers;
}

static esker_status
plan_claim_locked(struct compact_run *run)
{
    esker_db *db = run->db;
    const struct compaction_plan *plan = run->plan;
    TRY(plan_reserve_ids(db, &db->claimed_ids, db->claimed_count, &db->claimed_cap,
                         plan->input_count + plan->overlap_count));
    for (size_t i = 0; i < plan->input_count; i++) {
        struct segment *segment = run->version->levels[plan->input_level]->segments[plan->inputs[i]];
        run->drop_ids[run->drop_count++] = segment_meta(segment)->id;
    }
    for (size_t i = 0; i < plan->overlap_count; i++) {
        struct segment *segment = run->version->levels[plan->output_level]->segments[plan->overlaps[i]];
        run->drop_ids[run->drop_count++] = segment_meta(segment)->id;
    }
    memcpy(db->claimed_ids + db->claimed_count, run->drop_ids, run->drop_count * sizeof *run->drop_ids);
    db->claimed_count += run->drop_count;
    return ESKER_OK;
}

static void
plan_unclaim_locked(esker_db *db, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t at = 0; at < db->claimed_count; at++) {
            if (db->claimed_ids[at] == ids[i]) {
                db->claimed_ids[at] = db->claimed_ids[--db->claimed_count];
                break;
            }
        }
    }
}

/* ---- Damage ------------------------------------------------------------------- */

void
compact_mark_damaged(struct compact_run *run, const esker_error *story)
{
    esker_db *db = run->db;
    const uint64_t *ids = run->drop_ids;
    size_t count = run->drop_count;
    for (size_t i = 0; i < run->drop_count; i++) { /* the story names the file, if one is to blame */
        char name[40];
        segment_file_name(run->drop_ids[i], name);
        if (strncmp(story->file, name, sizeof story->file) == 0) {
            ids = &run->drop_ids[i];
            count = 1;
        }
    }
    mutex_lock(&db->mu);
    db_damage_note_locked(db, story);
    esker_status status = plan_reserve_ids(db, &db->damaged_ids, db->damaged_count, &db->damaged_cap, count);
    for (size_t i = 0; i < count && status == ESKER_OK; i++) {
        if (!plan_has_id(db->damaged_ids, db->damaged_count, ids[i])) {
            db->damaged_ids[db->damaged_count++] = ids[i];
        }
    }
    mutex_unlock(&db->mu);
}

/* ---- The plan ------------------------------------------------------------------- */

/* What was flushed since the call began is not its business: else it would not
 * end as long as others write. Level 0 is newest first, and the rest stays in order. */
static bool
plan_pick_range(struct plan_tables *tables, const struct picker_config *config,
                const struct compact_range *range, struct compaction_plan *plan)
{
    struct level_table *level0 = &tables->levels[0];
    uint32_t newer = 0;
    while (newer < level0->count && level0->segments[newer]->min_lsn >= range->end_lsn) {
        newer++;
    }
    level0->segments += newer;
    level0->claimed += newer;
    level0->damaged += newer;
    level0->skipped += newer;
    level0->stored_otherwise += newer;
    level0->count -= newer;
    bool found = compaction_pick_range(tables->levels, config, range->lower, range->upper, plan);
    for (size_t i = 0; found && plan->input_level == 0 && i < plan->input_count; i++) {
        plan->inputs[i] += newer;
    }
    return found;
}

/* Nothing is merged and nothing can be: who waits for level 0 to have room waits
 * in vain while what is damaged stays. mu held. */
static void
plan_note_stuck_locked(esker_db *db, const struct version *version)
{
    uint32_t tiers = level_run_tiers(version->levels[0]);
    if (db->damaged_count > 0 && db->claimed_count == 0 && tiers >= db->l0_stall) {
        db->level0_stuck = true;
        cond_broadcast(&db->changed);
    }
}

/* While the reserve is spent flushes come first, which bring the deletes, unless they
 * find no room; and merges come one by one. mu held. */
static bool
plan_must_wait_locked(const esker_db *db, const struct version *version)
{
    bool flushes = version->window_count > 1 && db->background.status != ESKER_NO_SPACE;
    return db->reserve_spent && (flushes || db->compact_runs != NULL);
}

bool
compact_tiers_wait_locked(const esker_db *db, const struct version *version, uint32_t trigger)
{
    const struct level_run *level0 = version->levels[0];
    uint32_t tiers = 0;
    if (db->claimed_count == 0 || level_run_tiers(level0) < trigger) {
        return false; /* whoever looks for work finds it */
    }
    for (uint32_t i = 0; tiers < trigger && i < level0->count; i = level0->tier_end[i]) {
        if (plan_has_id(db->claimed_ids, db->claimed_count, segment_meta(level0->segments[i])->id)) {
            return false;
        }
        tiers++;
    }
    return tiers >= trigger;
}

/* mu held. */
static esker_status
plan_pick_locked(struct compact_run *run, const struct compact_range *range, bool tiers_only, bool *found_out)
{
    esker_db *db = run->db;
    struct plan_tables tables = {0};
    struct version *version = load_acquire(&db->current); /* pairs: CURRENT — mu keeps it current */
    struct picker_config config = db_picker_config(db, version);
    esker_status status = ESKER_OK;
    config.tiers_only = tiers_only;
    *found_out = false;
    if (range == NULL && plan_must_wait_locked(db, version)) {
        goto out;
    }
    TRY_OUT(plan_tables_init_locked(db, version, range != NULL, &tables));
    bool found = range == NULL ? compaction_pick(tables.levels, &config, run->plan)
                               : plan_pick_range(&tables, &config, range, run->plan);
    if (!found) {
        plan_note_stuck_locked(db, version);
        goto out;
    }
    run->drop_ids = mem_alloc_array(&db->block_mem, run->plan->input_count + run->plan->overlap_count,
                                    sizeof *run->drop_ids);
    if (run->drop_ids == NULL) {
        status = FAIL_NO_MEMORY("merge inputs");
        goto out;
    }
    TRY_OUT(version_create_levels(version, &run->version));
    run->level0_tiers = plan_input_tiers(run->plan, version->levels[0]);
    TRY_OUT(plan_claim_locked(run));
    ASSERT_SLOW(compact_is_apart_locked(run)); /* not yet on the list */
    run->next = db->compact_runs;
    db->compact_runs = run;
    db_pace_update_locked(db); /* debt depends on whether writes rest; then nothing else may tell of it */
    *found_out = true;
out:
    plan_tables_fini(db, &tables);
    return status;
}

static void
plan_free(struct compact_run *run)
{
    const struct mem *mem = &run->db->block_mem;
    buf_fini(&run->borders);
    level_run_unref(run->inputs);
    level_run_unref(run->overlaps);
    if (run->version != NULL) {
        version_unref(run->version);
    }
    mem_free(mem, run->below);
    mem_free(mem, run->merge.stripes);
    mem_free(mem, run->drop_ids);
    mem_free(mem, run->plan);
    mem_free(mem, run);
}

esker_status
compact_plan(esker_db *db, const struct compact_range *range, bool tiers_only, struct compact_run **out)
{
    struct compact_run *run = mem_zalloc(&db->block_mem, sizeof *run);
    if (run == NULL) {
        return FAIL_NO_MEMORY("a merge");
    }
    run->db = db;
    run->awaited = range != NULL;
    run->started_ns = io_monotonic_ns(db->io);
    buf_init(&run->borders, &db->block_mem);
    run->plan = mem_alloc(&db->block_mem, sizeof *run->plan);
    esker_status status = run->plan != NULL ? ESKER_OK : FAIL_NO_MEMORY("a merge plan");
    bool found = false;
    mutex_lock(&db->mu);
    if (status == ESKER_OK && (range != NULL || db->manual_compactions == 0)) {
        status = plan_pick_locked(run, range, tiers_only, &found);
    }
    mutex_unlock(&db->mu);
    if (status == ESKER_OK && found) {
        *out = run;
        return ESKER_OK;
    }
    plan_free(run);
    *out = NULL;
    return status;
}

void
compact_release(struct compact_run *run)
{
    esker_db *db = run->db;
    mutex_lock(&db->mu);
    struct compact_run **at = &db->compact_runs;
    while (*at != run) {
        at = &(*at)->next;
    }
    *at = run->next;
    plan_unclaim_locked(db, run->drop_ids, run->drop_count);
    db->merge_reserved_bytes -= run->reserved_bytes;
    db->merges_ended++;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    plan_free(run);
}
