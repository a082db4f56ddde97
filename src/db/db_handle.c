/* SPDX-License-Identifier: MIT */
#include "db/db_handle.h"

#include "format/zstd_seat.h"

static uint32_t handle_open_count; /* guarded by handle_mu */
static struct mutex handle_mu = MUTEX_INIT;
static esker_db *handle_closed[CLOSED_KEPT]; /* guarded by handle_mu */
static uint32_t handle_next;                 /* guarded by handle_mu */

esker_status
db_handle_alloc(const esker_options *options, esker_db **out)
{
    esker_db *db = mem_alloc_aligned(&mem_default, CACHE_LINE_BYTES, sizeof *db);
    if (db == NULL) {
        return FAIL_NO_MEMORY("a database handle");
    }
    memset(db, 0, sizeof *db);
    mem_init(&db->mem, options->allocator);
    db->block_mem = db->mem;
    db->writes_rest = true;
    db->options = *options;
    db->fork_generation = load_relaxed(&fork_generation); /* relaxed: changes only in a forked child */
    store_relaxed(&db->event_fd, -1);                     /* relaxed: not shared yet */
    mutex_init(&db->drop_mu);
    mutex_init(&db->manifest_mu);
    mutex_init(&db->mu);
    mutex_init(&db->populate_mu);
    window_spare_init(&db->spare_memory);
    mutex_init(&db->snap_mu);
    mutex_init(&db->versions.mutex);
    cond_init(&db->changed);
    *out = db;
    return ESKER_OK;
}

static void
handle_destroy(esker_db *db)
{
    mutex_fini(&db->manifest_mu);
    mutex_fini(&db->drop_mu);
    mutex_fini(&db->mu);
    mutex_fini(&db->snap_mu);
    window_spare_fini(&db->spare_memory);
    mutex_fini(&db->versions.mutex);
    cond_fini(&db->changed);
    mem_free(&mem_default, db);
}

void
db_handle_free(esker_db *db)
{
    handle_destroy(db);
}

void
db_handle_retire(esker_db *db)
{
    store_relaxed(&db->magic, DB_MAGIC_CLOSED); /* relaxed: calls that begin beside it look at `closing` */
    mutex_lock(&handle_mu);
    esker_db *oldest = handle_closed[handle_next];
    handle_closed[handle_next] = db;
    handle_next = (handle_next + 1) % CLOSED_KEPT;
    mutex_unlock(&handle_mu);
    if (oldest != NULL) {
        handle_destroy(oldest);
    }
}

void
db_count_open(int change)
{
    mutex_lock(&handle_mu);
    handle_open_count += (uint32_t)change;
    if (handle_open_count == 0) {
        zstd_seat_drain(); /* an idle process keeps no compression contexts */
    }
    mutex_unlock(&handle_mu);
}
