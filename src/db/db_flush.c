/* SPDX-License-Identifier: MIT */
/*
 * A full window becomes a level-0 segment: the same work as a merge, with the
 * memtable as its source. Windows are flushed oldest first, so edits install in
 * LSN order and the durable watermark may follow each of them.
 */
#include "db/db.h"

enum { BACKGROUND_RETRY_NS = 100000000 };

/* Merges apart: their failures are nothing to those who wait for a flush. */
static esker_error *
flush_background_of(esker_db *db, const struct job *job)
{
    return job->urgency == JOB_COMPACT ? &db->merge_failure : &db->background;
}

void
db_background_failed(esker_db *db, struct job *again)
{
    esker_error story = *status_last();
    mutex_lock(&db->mu);
    *flush_background_of(db, again) = story;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
    db_emit(db, ESKER_EVENT_BACKGROUND, 0, 0, &story);
    if (!db->manual) {
        job_kick_after(again, BACKGROUND_RETRY_NS);
    }
}

void
db_background_ok(esker_db *db, const struct job *job)
{
    mutex_lock(&db->mu);
    flush_background_of(db, job)->status = ESKER_OK;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
}

int
db_level_compression(const esker_db *db, uint32_t level)
{
    if (db->options.compression != ESKER_COMPRESS_AUTO) {
        return db->options.compression;
    }
    return level == 0 ? ESKER_COMPRESS_NONE : ESKER_COMPRESS_LZ4;
}

/* The oldest window that waits, with every frame visible; referenced. NULL if none. */
static struct window *
flush_pick(esker_db *db)
{
    struct window *window = NULL;
    mutex_lock(&db->mu);
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    if (version->window_count > 1) {
        struct window *oldest = version->windows[version->window_count - 1];
        /* pairs: VISIBLE */
        if (load_acquire(&db->visible) >= oldest->end_lsn) {
            window = oldest;
            window_ref(window);
        }
    }
    mutex_unlock(&db->mu);
    return window;
}

static bool
flush_any_deeper(void *ctx, struct bytes key)
{
    const struct version *version = ctx;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        if (run == NULL) {
            continue;
        }
        if (level == 0) {
            return true;
        }
        uint32_t index = level_run_seek(run, key);
        if (index < run->count && bytes_compare(segment_meta(run->segments[index])->min_key, key) <= 0) {
            return true;
        }
    }
    return false;
}

struct flush_ctx {
    esker_db *db;
    struct version *version;
};

static uint64_t
flush_ctx_next_id(void *ctx)
{
    return db_next_file_id(((struct flush_ctx *)ctx)->db);
}

static bool
flush_ctx_deeper(void *ctx, struct bytes key)
{
    return flush_any_deeper(((struct flush_ctx *)ctx)->version, key);
}

static esker_status
flush_build(esker_db *db, struct window *window, struct version *version, struct compaction_result *result)
{
    uint64_t *stripes = NULL;
    size_t stripe_count = 0;
    TRY(db_collect_stripes(db, window->end_lsn, &stripes, &stripe_count));
    struct iter *source = NULL;
    struct flush_ctx ctx = {.db = db, .version = version};
    esker_status status = ESKER_OK;
    TRY_OUT(memtable_iter_create(window->table, UINT64_MAX, &db->mem, &source));
    struct compaction_spec spec = {.io = db->io,
                                   .mem = &db->mem,
                                   .source = source,
                                   .stripes = stripes,
                                   .stripe_count = stripe_count,
                                   .output_level = 0,
                                   .deeper = flush_ctx_deeper,
                                   .segment_bytes_max = UINT64_MAX,
                                   .compression = db_level_compression(db, 0),
                                   .next_id = flush_ctx_next_id,
                                   .ctx = &ctx};
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

void
db_remove_outputs(esker_db *db, struct compaction_result *result)
{
    esker_error story = *status_last();
    for (size_t i = 0; i < result->output_count; i++) {
        char name[40];
        segment_file_name(result->outputs[i]->meta.id, name);
        IGNORE_STATUS(io_unlink(db->io, name), "an orphan is removed at the next open");
    }
    compaction_result_fini(result, &db->mem);
    if (story.status != ESKER_OK) {
        IGNORE_STATUS(status_restore(&story), "keeps the first story");
    }
}

esker_status
db_install_outputs(esker_db *db, struct install *install, struct compaction_result *result)
{
    size_t count = result->output_count;
    esker_status status = ESKER_OK;
    struct segment_meta *metas = mem_zalloc_array(&db->mem, count, sizeof *metas);
    struct segment **segments = mem_zalloc_array(&db->mem, count, sizeof *segments);
    if (metas == NULL || segments == NULL) {
        status = FAIL_NO_MEMORY("an edit");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        metas[i] = result->outputs[i]->meta;
        TRY_OUT(db_open_segment(db, &metas[i], &segments[i]));
    }
    install->edit.add_segments = metas;
    install->edit.add_segment_count = count;
    install->add = segments;
    status = db_install(db, install);
out:
    for (size_t i = 0; segments != NULL && i < count; i++) {
        if (segments[i] != NULL) {
            segment_unref(segments[i]);
        }
    }
    mem_free(&db->mem, segments);
    mem_free(&db->mem, metas);
    if (status != ESKER_OK && !install->unsure) {
        db_remove_outputs(db, result);
    }
    return status;
}

static esker_status
flush_one(esker_db *db, struct window *window)
{
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    uint64_t started_ns = io_monotonic_ns(db->io);
    struct compaction_result result = {0};
    struct version *version = db_current_ref(db, self);
    esker_status status = flush_build(db, window, version, &result);
    version_unref(version);
    TRY(status);
    struct install install = {.flushed = window};
    uint64_t bytes = result.bytes_written;
    status = db_install_outputs(db, &install, &result);
    compaction_result_fini(&result, &db->mem);
    TRY(status);
    add_relaxed(&db->flushes, 1);                 /* relaxed: statistic */
    add_relaxed(&db->flush_bytes_written, bytes); /* relaxed: statistic */
    db_emit(db, ESKER_EVENT_FLUSH, bytes, io_monotonic_ns(db->io) - started_ns, NULL);
    return ESKER_OK;
}

void
db_flush_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, flush_job);
    struct window *window = flush_pick(db);
    if (window == NULL) {
        return;
    }
    esker_status status = flush_one(db, window);
    window_unref(window);
    if (status != ESKER_OK) {
        db_background_failed(db, job);
        return;
    }
    db_background_ok(db, job);
    job_kick(job); /* the next one, if any */
    db_kick_compaction(db);
}

esker_status
db_flush_until(esker_db *db, uint64_t end_lsn)
{
    esker_status status = ESKER_OK;
    mutex_lock(&db->mu);
    db->background.status = ESKER_OK; /* an explicit call tries again */
    for (;;) {
        const struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
        if (version->windows[version->window_count - 1]->base_lsn >= end_lsn) {
            break;
        }
        if (db->background.status != ESKER_OK) {
            status = status_restore(&db->background);
            break;
        }
        job_kick(&db->flush_job);
        (void)workers_wait(&db->changed, &db->mu, 0);
    }
    mutex_unlock(&db->mu);
    return status;
}

esker_status
esker_flush(esker_db *db)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    uint64_t end_lsn = 0;
    esker_status status = db_seal_active(db, call.self, 0, &end_lsn);
    if (status == ESKER_OK) {
        status = db_flush_until(db, end_lsn);
    }
    db_call_exit(&call);
    return status;
}
