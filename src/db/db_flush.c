/* SPDX-License-Identifier: MIT */
/*
 * A full window becomes a level-0 segment: the same work as a merge, with the
 * memtable as its source. Windows are flushed oldest first, so edits install in
 * LSN order and the durable watermark may follow each of them.
 *
 * A flush is a job of many short runs, as merges are: what logs need comes between
 * two of its steps. Closing undoes one that is under way; its rows are in the log.
 */
#include "db/db.h"

enum { FLUSH_ROWS_PER_GET = 64 };

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

/* Does anybody read? Since the last flush at least one get for so many rows of this one. */
static bool
flush_is_read(esker_db *db, uint64_t row_count)
{
    uint64_t gets = 0;
    for (uint32_t i = 0; i < STRIPE_COUNT; i++) {
        gets += load_relaxed(&db->stripes[i].gets); /* relaxed: statistic */
    }
    uint64_t since = gets - db->flush_seen_gets;
    db->flush_seen_gets = gets;
    return since > row_count / FLUSH_ROWS_PER_GET;
}

/* Where the last batch ends. No version lies between it and the window's end, so the states there
 * are one: who asks for the LSN that the last write gave finds it after the flush too. */
static uint64_t
flush_floor_lsn(const struct window *window)
{
    uint64_t bytes = (window->end_lsn - window->base_lsn) * LSN_BYTES;
    return window_lsn(window, window_batches_end(window, bytes));
}

/* ---- One flush, in steps ------------------------------------------------------ */

static void
flush_fini(esker_db *db)
{
    struct db_flush *flush = &db->flush;
    esker_error story = *status_last();
    compaction_job_destroy(flush->job);
    db_remove_outputs(db, &flush->result); /* of one that was not installed */
    iter_destroy(flush->source);
    if (flush->merge != NULL) {
        mem_free(&db->block_mem, flush->merge->stripes);
        mem_free(&db->block_mem, flush->merge);
    }
    if (flush->version != NULL) {
        version_unref(flush->version);
    }
    window_unref(flush->window);
    *flush = (struct db_flush){.window = NULL};
    if (story.status != ESKER_OK) {
        IGNORE_STATUS(status_restore(&story), "keeps the first story");
    }
}

void
db_flush_stop(esker_db *db)
{
    if (db->flush.window != NULL) {
        flush_fini(db);
    }
}

/* flush->window is set. */
static esker_status
flush_begin(esker_db *db)
{
    struct db_flush *flush = &db->flush;
    struct window *window = flush->window;
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    flush->started_ns = io_monotonic_ns(db->io);
    flush->version = db_current_ref(db, self);
    db_dead_settle(flush->version, window->end_lsn);
    flush->merge = mem_zalloc(&db->block_mem, sizeof *flush->merge);
    if (flush->merge == NULL) {
        return FAIL_NO_MEMORY("a flush");
    }
    struct db_merge *merge = flush->merge;
    *merge = (struct db_merge){.db = db, .version = flush->version, .is_flush = true};
    merge->warm = flush_is_read(db, window_tail_ops(load_relaxed(&window->tail))); /* relaxed: it is full */
    TRY(db_collect_stripes(db, flush_floor_lsn(window), &merge->stripes, &merge->stripe_count));
    TRY(memtable_iter_create(window->table, UINT64_MAX, &db->block_mem, &flush->source));
    db_merge_spec(merge, flush->source, &flush->spec);
    return compaction_job_create(&flush->spec, &flush->job);
}

/* OK: there is more to do, since what readers want is handed to the cache a part at a time. END: the window
 * is a segment now. */
static esker_status
flush_install(esker_db *db)
{
    struct db_flush *flush = &db->flush;
    struct install install = {.flushed = flush->window};
    if (!flush->ended) {
        compaction_job_take(flush->job, &flush->result);
        flush->ended = true;
    }
    esker_status status = db_adopt_outputs(db, &flush->result);
    if (status != ESKER_END) {
        return status;
    }
    uint64_t bytes = flush->result.bytes_written;
    uint64_t expired = flush->result.rows_expired;
    status = db_sync_outputs(db, &flush->result);
    if (status == ESKER_OK) {
        status = db_install_outputs(db, &install, &flush->result);
    }
    compaction_result_fini(&flush->result, &db->block_mem);
    TRY(status);
    db_pace_flushed(db, flush->window->cap_bytes, flush->started_ns);
    add_relaxed(&db->flushes, 1);                 /* relaxed: statistic */
    add_relaxed(&db->flush_bytes_written, bytes); /* relaxed: statistic */
    add_relaxed(&db->rows_expired, expired);      /* relaxed: statistic */
    db_emit(db, ESKER_EVENT_FLUSH, bytes, io_monotonic_ns(db->io) - flush->started_ns, NULL);
    return ESKER_END;
}

/* OK: there is more to do. END: the window is a segment now. */
static esker_status
flush_step(esker_db *db)
{
    struct db_flush *flush = &db->flush;
    struct db_step begun = db_step_begin(db);
    int kind = flush->job == NULL ? ESKER_STEP_CHOOSE : ESKER_STEP_INSTALL;
    esker_status status = ESKER_END;
    if (flush->job == NULL) {
        status = flush_begin(db);
    } else if (!flush->ended) {
        kind = compaction_job_next(flush->job);
        status = compaction_job_step(flush->job);
    }
    if (status == ESKER_END) {
        kind = ESKER_STEP_INSTALL;
        status = flush_install(db);
    }
    db_step_end(db, &begun, kind);
    return status;
}

void
db_flush_job(struct job *job)
{
    esker_db *db = CONTAINER_OF(job, struct esker_db, flush_job);
    struct db_flush *flush = &db->flush;
    if (flush->window == NULL) {
        flush->attempt = db_background_begin(db);
        flush->window = flush_pick(db);
    }
    if (flush->window == NULL) {
        return;
    }
    esker_status status = flush_step(db);
    if (status == ESKER_OK) {
        job_kick(job);
        return;
    }
    uint64_t attempt = flush->attempt;
    flush_fini(db);
    if (status != ESKER_END) {
        db_background_failed(db, job, attempt);
        return;
    }
    db_background_ok(db, job);
    db_reserve_make_room(db);
    job_kick(job); /* the next one, if any */
    db_kick_compaction(db);
}

esker_status
db_flush_until(esker_db *db, uint64_t end_lsn)
{
    esker_status status = ESKER_OK;
    mutex_lock(&db->mu);
    db_try_again_locked(db);
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
