/* SPDX-License-Identifier: MIT */
/*
 * Changing which files make up the database: manifest first, memory second.
 *
 * Invariants
 *  I1 A version with a segment in it is published only after the edit that adds
 *     it is durable; a file is unlinked only after the edit that drops it is.
 *  I2 Everything that can fail for want of memory is done before the edit is
 *     written.
 *  I3 manifest_mu serialises all changes of levels; windows also change under
 *     mu alone (rotation), so they are read again when the version is published.
 *  I4 Bounds are cut to EDIT_KEY_BYTES_MAX bytes, so segments of one level may have the same. Then their
 *     place in the list says which comes first, in memory and in the manifest alike: what an edit drops
 *     leaves the list, what it adds comes behind. Whoever adds to a level sees to it that nothing stays
 *     there which comes behind it and has the same bounds (compaction_picker.c, I6).
 *
 * When an edit cannot be written, nobody knows whether it is on disk (but for a
 * full disk, mostly: manifest.h): a new manifest with the state before it is
 * written at once. If that fails too, the files of the edit stay where they are
 * until one could be written, or the next open.
 */
#include <stdlib.h>

#include "db/db.h"
#include "base/mutant.h"

uint64_t
db_next_file_id(void *ctx)
{
    esker_db *db = ctx;
    return add_relaxed(&db->next_file_id, 1); /* relaxed: only uniqueness matters */
}

static void
install_segment_gone(void *ctx, uint64_t id, bool obsolete)
{
    esker_db *db = ctx;
    if (!obsolete) {
        return;
    }
    mutex_lock(&db->mu);
    if (db->obsolete_count == db->obsolete_cap) {
        size_t cap = MAX(db->obsolete_cap * 2, (size_t)16);
        uint64_t *ids = mem_alloc_array(&db->mem, cap, sizeof *ids);
        if (ids != NULL) {
            if (db->obsolete_count > 0) {
                memcpy(ids, db->obsolete_ids, db->obsolete_count * sizeof *ids);
            }
            mem_free(&db->mem, db->obsolete_ids);
            db->obsolete_ids = ids;
            db->obsolete_cap = cap;
        }
    }
    if (db->obsolete_count < db->obsolete_cap) { /* else: an orphan, removed at the next open */
        db->obsolete_ids[db->obsolete_count++] = id;
        job_kick(&db->purge_job);
    }
    mutex_unlock(&db->mu);
}

esker_status
db_open_segment(esker_db *db, const struct segment_meta *meta, struct segment **out)
{
    struct segment_open_options options = {.io = db->io,
                                           .mem = &db->block_mem,
                                           .cache = db->cache,
                                           .gone = install_segment_gone,
                                           .gone_ctx = db};
    memcpy(options.uuid, db->uuid, sizeof options.uuid);
    return segment_create(&options, meta, out);
}

static struct version *
install_current_ref(esker_db *db)
{
    mutex_lock(&db->mu);
    struct version *version = load_acquire(&db->current); /* pairs: CURRENT — mu keeps it current */
    version_ref(version);
    mutex_unlock(&db->mu);
    return version;
}

/* ---- Levels --------------------------------------------------------------- */

struct install_place {
    struct segment *segment;
    size_t at; /* in the list: where nothing else decides (I4) */
};

static int
install_order_by_key(const void *a, const void *b)
{
    const struct install_place *left = a;
    const struct install_place *right = b;
    int order = bytes_compare(segment_meta(left->segment)->min_key, segment_meta(right->segment)->min_key);
    return order != 0 ? order : (left->at > right->at) - (left->at < right->at);
}

static int
install_order_by_tier(const void *a, const void *b)
{
    int order = segment_meta_compare_tiers(segment_meta(((const struct install_place *)a)->segment),
                                           segment_meta(((const struct install_place *)b)->segment));
    return order != 0 ? order : install_order_by_key(a, b);
}

static int
install_order_by_level(const void *a, const void *b)
{
    const struct install_place *left = a;
    const struct install_place *right = b;
    uint32_t one = segment_meta(left->segment)->level;
    uint32_t other = segment_meta(right->segment)->level;
    return one != other ? (one > other) - (one < other) : (left->at > right->at) - (left->at < right->at);
}

static esker_status
install_sort(esker_db *db, struct segment **segments, size_t count, int (*order)(const void *, const void *))
{
    struct install_place *places = mem_alloc_array(&db->mem, count, sizeof *places);
    if (places == NULL) {
        return FAIL_NO_MEMORY("a level");
    }
    for (size_t i = 0; i < count; i++) {
        places[i] = (struct install_place){segments[i], i};
    }
    qsort(places, count, sizeof *places, order);
    for (size_t i = 0; i < count; i++) {
        segments[i] = places[i].segment;
    }
    mem_free(&db->mem, places);
    return ESKER_OK;
}

/* A segment is where the version has it; the level of its meta is the one it
 * was opened in, and a move keeps the handle. */
static esker_status
install_fill_level(esker_db *db, struct version *version, uint32_t level, struct segment **segments,
                   size_t count)
{
    struct level_run *run = NULL;
    if (count == 0) {
        return ESKER_OK;
    }
    TRY(install_sort(db, segments, count, level == 0 ? install_order_by_tier : install_order_by_key));
    TRY(level_run_create(&db->mem, segments, (uint32_t)count, level == 0, &run));
    version_set_level(version, level, run);
    level_run_unref(run);
    return ESKER_OK;
}

esker_status
db_fill_levels(esker_db *db, struct version *version, struct segment **segments, size_t count)
{
    if (count > 1) {
        TRY(install_sort(db, segments, count, install_order_by_level));
    }
    size_t from = 0;
    while (from < count) {
        uint32_t level = segment_meta(segments[from])->level;
        size_t to = from;
        while (to < count && segment_meta(segments[to])->level == level) {
            to++;
        }
        TRY(install_fill_level(db, version, level, segments + from, to - from));
        from = to;
    }
    return ESKER_OK;
}

static bool
install_is_dropped(const struct edit *edit, uint64_t id)
{
    for (size_t i = 0; i < edit->drop_segment_count; i++) {
        if (edit->drop_segments[i] == id) {
            return true;
        }
    }
    return false;
}

static bool
install_touches(const struct version *from, const struct install *install, uint32_t level)
{
    for (size_t i = 0; i < install->edit.add_segment_count; i++) {
        if (install->edit.add_segments[i].level == level) {
            return true;
        }
    }
    const struct level_run *run = from->levels[level];
    for (uint32_t i = 0; run != NULL && i < run->count && install->edit.drop_segment_count > 0; i++) {
        if (install_is_dropped(&install->edit, segment_meta(run->segments[i])->id)) {
            return true;
        }
    }
    return false;
}

/* The levels that the edit touches are rebuilt, the others shared. */
static esker_status
install_levels(esker_db *db, const struct version *from, const struct install *install, struct version *to)
{
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        struct level_run *run = from->levels[level];
        if (!install_touches(from, install, level)) {
            version_set_level(to, level, run);
            continue;
        }
        size_t most = (run != NULL ? run->count : 0) + install->edit.add_segment_count;
        struct segment **segments = mem_alloc_array(&db->mem, most, sizeof *segments);
        if (segments == NULL) {
            return FAIL_NO_MEMORY("a level");
        }
        size_t count = 0;
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            if (!install_is_dropped(&install->edit, segment_meta(run->segments[i])->id)) {
                segments[count++] = run->segments[i];
            }
        }
        for (size_t i = 0; i < install->edit.add_segment_count; i++) {
            if (install->edit.add_segments[i].level == level) {
                segments[count++] = install->add[i];
            }
        }
        esker_status status = install_fill_level(db, to, level, segments, count);
        mem_free(&db->mem, segments);
        TRY(status);
    }
    return ESKER_OK;
}

/* ---- The manifest --------------------------------------------------------- */

esker_status
db_note_logs(esker_db *db, const struct edit *edit)
{
    size_t most = db->log_number_count + edit->add_log_count;
    if (most > db->log_number_cap) {
        size_t cap = MAX(most, db->log_number_cap * 2);
        uint64_t *numbers = mem_alloc_array(&db->mem, cap, sizeof *numbers);
        if (numbers == NULL) {
            return FAIL_NO_MEMORY("the list of log files");
        }
        if (db->log_number_count > 0) {
            memcpy(numbers, db->log_numbers, db->log_number_count * sizeof *numbers);
        }
        mem_free(&db->mem, db->log_numbers);
        db->log_numbers = numbers;
        db->log_number_cap = cap;
    }
    for (size_t i = 0; i < edit->add_log_count; i++) {
        db->log_numbers[db->log_number_count++] = edit->add_logs[i];
    }
    for (size_t i = 0; i < edit->drop_log_count; i++) {
        for (size_t at = 0; at < db->log_number_count; at++) {
            if (db->log_numbers[at] == edit->drop_logs[i]) {
                db->log_numbers[at] = db->log_numbers[--db->log_number_count];
                break;
            }
        }
    }
    return ESKER_OK;
}

/* The whole state as one edit. Keys point into the version's segments. manifest_mu held. */
static esker_status
install_snapshot(esker_db *db, const struct version *version, struct edit *out)
{
    *out = (struct edit){.is_snapshot = true,
                         .next_file_id = load_relaxed(&db->next_file_id), /* relaxed: monotone */
                         .wal_min_gen = db->wal_min_gen,
                         .wal_min_lsn = db->wal_min_lsn,
                         .durable_lsn = db_durable_proof(db),
                         .add_logs = db->log_numbers,
                         .add_log_count = db->log_number_count};
    size_t count = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        count += version->levels[level] != NULL ? version->levels[level]->count : 0;
    }
    out->add_segments = mem_alloc_array(&db->mem, count, sizeof *out->add_segments);
    if (out->add_segments == NULL) {
        return FAIL_NO_MEMORY("a manifest snapshot");
    }
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            struct segment_meta *meta = &out->add_segments[out->add_segment_count++];
            *meta = *segment_meta(run->segments[i]);
            if (level > 0) {
                meta->level = level; /* it may have moved */
                meta->tier_lsn = 0;
                meta->tier_id = 0;
            }
        }
    }
    return ESKER_OK;
}

/* Nothing on the disk names the files of edits that failed any more. manifest_mu held. */
static void
install_settle_unsure(esker_db *db)
{
    while (db->unsure_count > 0) {
        install_segment_gone(db, db->unsure_ids[--db->unsure_count], true);
    }
}

void
db_note_unsure(esker_db *db, uint64_t id)
{
    mutex_lock(&db->manifest_mu);
    if (!manifest_is_dead(db->manifest)) { /* somebody has rewritten it meanwhile */
        install_segment_gone(db, id, true);
    } else if (db->unsure_count < COUNTOF(db->unsure_ids)) { /* else: an orphan, removed at the next open */
        db->unsure_ids[db->unsure_count++] = id;
    }
    mutex_unlock(&db->manifest_mu);
}

static esker_status
install_rewrite(esker_db *db)
{
    struct version *version = install_current_ref(db);
    struct edit snapshot;
    esker_status status = install_snapshot(db, version, &snapshot);
    if (status == ESKER_OK) {
        status = manifest_rewrite(db->manifest, &snapshot);
        mem_free(&db->mem, snapshot.add_segments);
    }
    version_unref(version);
    if (status == ESKER_OK) {
        install_settle_unsure(db);
    }
    return status;
}

/* manifest_mu held. *unsure_out: after a failure, the edit may be on disk all the same. */
static esker_status
install_append(esker_db *db, struct edit *edit, bool *unsure_out)
{
    *unsure_out = false;
    if (manifest_wants_rewrite(db->manifest)) {
        esker_status rewritten = install_rewrite(db);
        if (manifest_is_dead(db->manifest)) {
            return rewritten;
        }
        IGNORE_STATUS(rewritten, "a long manifest is as good, and there may be room for an edit");
    }
    edit->next_file_id = load_relaxed(&db->next_file_id); /* relaxed: monotone */
    esker_status status = manifest_append(db->manifest, edit);
    if (status != ESKER_OK) {
        esker_error story = *status_last();
        if (MUTANT(18)) {
            return ESKER_OK;
        }
        if (manifest_is_dead(db->manifest)) {
            *unsure_out = install_rewrite(db) != ESKER_OK; /* tried again before the next edit */
        }
        return status_restore(&story);
    }
    return ESKER_OK;
}

esker_status
db_manifest_append(esker_db *db, struct edit *edit)
{
    mutex_lock(&db->manifest_mu);
    bool unsure;
    esker_status status = install_append(db, edit, &unsure);
    if (status == ESKER_OK) {
        status = db_note_logs(db, edit);
    }
    mutex_unlock(&db->manifest_mu);
    return status;
}

esker_status
db_manifest_settle(esker_db *db, uint64_t *number_out, uint64_t *edit_no_out)
{
    mutex_lock(&db->manifest_mu);
    bool unsure = manifest_is_unsure(db->manifest);
    esker_status status = unsure ? install_rewrite(db) : manifest_confirm(db->manifest);
    *number_out = manifest_number(db->manifest);
    *edit_no_out = manifest_edit_no(db->manifest);
    mutex_unlock(&db->manifest_mu);
    return status;
}

/* ---- Publishing ----------------------------------------------------------- */

esker_status
db_publish_windows_locked(esker_db *db, struct window *const *windows, uint32_t count)
{
    if (count > WINDOWS_MAX) {
        return FAIL(ESKER_NO_MEMORY, "too many memtables wait to be flushed");
    }
    const struct version *from = load_acquire(&db->current); /* pairs: CURRENT — mu keeps it current */
    struct version *version = NULL;
    TRY(version_create(&db->mem, &db->versions, &version));
    version->id = from->id + 1;
    version_set_windows(version, windows, count);
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        version_set_level(version, level, from->levels[level]);
    }
    version_publish(&db->current, version, io_monotonic_ns(db->io));
    return ESKER_OK;
}

static void
install_mark_obsolete(const struct version *from, const struct edit *edit)
{
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX && edit->drop_segment_count > 0; level++) {
        const struct level_run *run = from->levels[level];
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            uint64_t id = segment_meta(run->segments[i])->id;
            bool added_again = false; /* a trivial move keeps the file */
            for (size_t k = 0; k < edit->add_segment_count; k++) {
                added_again = added_again || edit->add_segments[k].id == id;
            }
            if (install_is_dropped(edit, id) && !added_again) {
                segment_mark_obsolete(run->segments[i]);
            }
        }
    }
}

/* I3: windows as they are now, without the flushed one. */
static void
install_publish(esker_db *db, const struct version *from, struct install *install, struct version *version)
{
    install_mark_obsolete(from, &install->edit);
    mutex_lock(&db->mu);
    const struct version *now = load_acquire(&db->current); /* pairs: CURRENT */
    uint32_t count = now->window_count;
    if (install->flushed != NULL) {
        ASSERT(count >= 2 && now->windows[count - 1] == install->flushed);
        count--;
    }
    version->id = now->id + 1;
    version_set_windows(version, now->windows, count);
    version_publish(&db->current, version, io_monotonic_ns(db->io));
    if (install->flushed != NULL) {
        db_release_log_locked(db, install->flushed);
        bool last_recovered = install->flushed->recovered && count > 0 && !now->windows[count - 1]->recovered;
        db_flush_proved(db, install->flushed, last_recovered);
    }
    db_damage_forget_locked(db, &install->edit);
    db->installs++;
    db_pace_update_locked(db);
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
}

esker_status
db_install(esker_db *db, struct install *install)
{
    mutex_lock(&db->manifest_mu);
    struct version *from = install_current_ref(db);
    struct version *version = NULL;
    esker_status status = ESKER_OK;
    TRY_OUT(version_create(&db->mem, &db->versions, &version));
    TRY_OUT(install_levels(db, from, install, version));
    if (install->flushed != NULL) {
        const struct window *next = from->windows[from->window_count - 2];
        install->edit.wal_min_gen = next->gen;
        install->edit.wal_min_lsn = install->flushed->end_lsn;
        install->edit.durable_lsn = MAX(db_durable_proof(db), install->flushed->end_lsn);
    }
    TRY_OUT(install_append(db, &install->edit, &install->unsure));
    if (install->flushed != NULL) {
        db->wal_min_gen = install->edit.wal_min_gen;
        db->wal_min_lsn = install->edit.wal_min_lsn;
    }
    install_publish(db, from, install, version);
    version = NULL;
out:
    if (version != NULL) {
        version_unref(version);
    }
    version_unref(from);
    mutex_unlock(&db->manifest_mu);
    return status;
}
