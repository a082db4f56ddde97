/* SPDX-License-Identifier: MIT */
/*
 * Iterators: a version reference, an LSN, and the visible rows of everything in
 * that version. They hold no epoch section, and what they keep alive is memory
 * and files, never the writers.
 *
 * All parts of an iterator stand in one piece of memory (base/slab.h), which goes
 * to its thread's next iterator: making and destroying one takes no lock. The piece
 * stays charged in between.
 */
#include "iter/visible_iter.h"

#include "base/slab.h"
#include "db/db.h"

enum {
    ITERATE_FIXED_BYTES = 1536, /* the handle, and what shows its rows */
    ITERATE_WINDOW_BYTES = 960,
    ITERATE_RUN_BYTES = 832,
    ITERATE_SLAB_MOST = 32 << 10,
    ITERATE_SPARE_SHARE = 64 /* of the budget, for pieces that wait for the next iterator */
};

/* Where it stands when it stands on no entry: nowhere yet (or an error), or beyond one of the ends. */
enum iterate_edge { EDGE_NONE, EDGE_START, EDGE_END };

struct esker_iter {
    uint32_t magic;
    esker_db *db;
    struct esker_snapshot *snapshot; /* referenced; nullable */
    struct version *version;
    uint64_t lsn;
    struct iter *rows;
    struct buf lower, upper;
    uint64_t charged_bytes; /* to the budget, beyond the slab and what iterators over segments charge */
    bool keys_only;
    bool positioned;
    enum iterate_edge edge;
    struct slab *slab; /* this struct stands in it */
    struct buf keep;   /* the key to return to, during refresh */
    struct visible_dead dead;
};

/* ---- Memory --------------------------------------------------------------------- */

/* What an iterator over the version takes, about, without what it reads ahead: its parts are of other
 * rooms. */
static uint64_t
iterate_bytes(const struct version *version)
{
    uint64_t runs = level_run_tiers(version->levels[0]) + (uint64_t)__builtin_popcount(version->levels_used);
    return ITERATE_FIXED_BYTES + version->window_count * (uint64_t)ITERATE_WINDOW_BYTES +
           runs * ITERATE_RUN_BYTES;
}

static uint64_t
iterate_slab_bytes(const struct slab *slab)
{
    return sizeof *slab + slab->size;
}

static void
iterate_slab_free(esker_db *db, struct slab *slab)
{
    if (slab != NULL) {
        block_cache_discharge(db->cache, MEMORY_ITERATORS, iterate_slab_bytes(slab));
        slab_destroy(slab);
    }
}

static _Atomic(struct slab *) *
iterate_spare(esker_db *db, const struct thread_state *self)
{
    return &db->stripes[self->stripe % db->iter_spares].iter_spare;
}

/* For an iterator of about so many bytes: a piece that is left over, or a new one. NULL: no memory. */
static struct slab *
iterate_slab_take(esker_db *db, const struct thread_state *self, uint64_t bytes)
{
    uint64_t wanted = MIN(align_up(bytes, 512), (uint64_t)ITERATE_SLAB_MOST);
    /* pairs: ITER_SPARE (both ends) — all that stood in it is gone before another thread uses it. */
    struct slab *slab = exchange_seq(iterate_spare(db, self), NULL);
    if (LIKELY(slab != NULL && iterate_slab_bytes(slab) >= wanted)) {
        return slab;
    }
    iterate_slab_free(db, slab);
    slab = slab_create(&db->block_mem, wanted);
    if (slab != NULL) {
        block_cache_charge(db->cache, MEMORY_ITERATORS, wanted);
    }
    return slab;
}

static void
iterate_slab_give(esker_db *db, const struct thread_state *self, struct slab *slab)
{
    /* pairs: ITER_SPARE (both ends) */
    iterate_slab_free(db, exchange_seq(iterate_spare(db, self), slab));
}

void
db_iterate_init(esker_db *db)
{
    uint64_t share = db->options.memory_budget_bytes / ITERATE_SPARE_SHARE / ITERATE_SLAB_MOST;
    db->iter_spares = (uint32_t)MIN(MAX(share, (uint64_t)1), (uint64_t)STRIPE_COUNT);
}

void
db_iterate_drop_spares(esker_db *db)
{
    for (uint32_t i = 0; i < db->iter_spares; i++) {
        /* pairs: ITER_SPARE (both ends) */
        iterate_slab_free(db, exchange_seq(&db->stripes[i].iter_spare, NULL));
    }
}

/* ---- Rows ------------------------------------------------------------------------- */

static bool
iterate_dead_find(void *ctx, struct bytes key, bool backward, struct buf *to)
{
    struct esker_iter *it = ctx;
    db_dead_settle(it->version, it->lsn);
    return window_dead_find(it->version->windows[0], key, it->lsn, backward, to);
}

static void
iterate_dead_note(void *ctx, struct bytes from, struct bytes to, uint64_t deletes)
{
    struct esker_iter *it = ctx;
    db_dead_note(it->db, it->version, it->lsn, from, to, deletes);
}

static uint64_t
iterate_now_ms(void *ctx)
{
    return db_now_ms(ctx);
}

static void
iterate_drop_rows(struct esker_iter *it)
{
    if (it->rows != NULL) {
        uint64_t skipped = visible_iter_take_skipped(it->rows);
        if (skipped > 0) {
            add_relaxed(&it->db->rows_skipped, skipped); /* relaxed: statistic */
        }
        iter_destroy(it->rows);
        it->rows = NULL;
    }
}

/* The first key that does not start with prefix: empty if there is none. */
static esker_status
iterate_prefix_end(struct bytes prefix, struct buf *end)
{
    size_t len = prefix.len;
    while (len > 0 && prefix.ptr[len - 1] == 0xFF) {
        len--;
    }
    TRY(buf_assign(end, bytes_make(prefix.ptr, len)));
    if (len > 0) {
        end->ptr[len - 1]++;
    }
    return ESKER_OK;
}

static esker_status
iterate_set_bounds(struct esker_iter *it, const esker_read_options *options)
{
    struct bytes lower = bytes_of_slice(options->lower);
    struct bytes upper = bytes_of_slice(options->upper);
    struct bytes prefix = bytes_of_slice(options->prefix);
    if ((lower.ptr == NULL && lower.len > 0) || (upper.ptr == NULL && upper.len > 0) ||
        (prefix.ptr == NULL && prefix.len > 0)) {
        return FAIL(ESKER_INVALID, "a bound is NULL but its size is not 0");
    }
    TRY(buf_assign(&it->lower, lower));
    TRY(buf_assign(&it->upper, upper));
    if (prefix.len == 0) {
        return ESKER_OK;
    }
    if (bytes_compare(prefix, lower) > 0) {
        TRY(buf_assign(&it->lower, prefix));
    }
    struct buf end;
    buf_init(&end, &it->slab->mem);
    esker_status status = iterate_prefix_end(prefix, &end);
    if (status == ESKER_OK && end.len > 0 &&
        (it->upper.len == 0 || bytes_compare(buf_bytes(&end), buf_bytes(&it->upper)) < 0)) {
        status = buf_assign(&it->upper, buf_bytes(&end));
    }
    buf_fini(&end);
    return status;
}

static void
iterate_charge(struct esker_iter *it, uint64_t bytes)
{
    struct block_cache *cache = it->db->cache;
    if (bytes > it->charged_bytes) {
        block_cache_charge(cache, MEMORY_ITERATORS, bytes - it->charged_bytes);
    } else if (bytes < it->charged_bytes) {
        block_cache_discharge(cache, MEMORY_ITERATORS, it->charged_bytes - bytes);
    }
    it->charged_bytes = bytes;
}

/* Inside a section: what there is now. */
static struct version *
iterate_pin(esker_db *db, uint64_t *lsn_out)
{
    struct version *version = load_acquire(&db->current); /* pairs: CURRENT */
    version_ref(version);
    *lsn_out = MIN(load_acquire(&db->visible), version->end_lsn); /* pairs: VISIBLE */
    return version;
}

/* Rows of the version, whose reference it takes over, at `lsn` or the snapshot. On failure nothing changed,
 * and the reference is given back. */
static esker_status
iterate_attach(struct esker_iter *it, struct thread_state *self, struct version *version, uint64_t lsn)
{
    esker_db *db = it->db;
    const struct mem *mem = &it->slab->mem;
    if (it->snapshot != NULL) {
        lsn = it->snapshot->lsn;
    }
    struct iter *source = NULL;
    struct iter *rows = NULL;
    struct visible_bounds bounds = {.lower = buf_bytes(&it->lower), .upper = buf_bytes(&it->upper)};
    struct iter_bounds reach = {.lower = bounds.lower, .upper = bounds.upper};
    esker_status status = version_iter_create(version, lsn, reach, mem, &source);
    if (status == ESKER_OK) {
        status = visible_iter_create(source, lsn, bounds, mem, &rows);
    }
    if (status != ESKER_OK) {
        version_unref(version);
        return status;
    }
    iterate_drop_rows(it);
    if (it->version != NULL) {
        version_unref(it->version);
    }
    visible_iter_set_dead(rows, &it->dead);
    visible_iter_set_clock(rows, iterate_now_ms, db);
    it->rows = rows;
    it->version = version;
    it->lsn = lsn;
    it->positioned = false;
    it->edge = EDGE_NONE;
    uint64_t bytes = iterate_bytes(version) + 2 * (it->lower.cap + it->upper.cap);
    iterate_charge(it, bytes - MIN(bytes, iterate_slab_bytes(it->slab)));
    db_load_ahead(db);
    counter_bump(&db_stripe(db, self)->walks, 1); /* relaxed: statistic */
    return ESKER_OK;
}

static void
iterate_free(struct esker_iter *it, const struct thread_state *self)
{
    esker_db *db = it->db;
    struct slab *slab = it->slab;
    iterate_drop_rows(it);
    iterate_charge(it, 0);
    if (it->version != NULL) {
        version_unref(it->version);
    }
    if (it->snapshot != NULL) {
        db_snapshot_unref(it->snapshot);
    }
    buf_fini(&it->lower);
    buf_fini(&it->upper);
    buf_fini(&it->keep);
    it->magic = 0;
    mem_free(&slab->mem, it);
    iterate_slab_give(db, self, slab);
}

static esker_status
iterate_options(struct esker_iter *it, const esker_read_options *options)
{
    it->keys_only = options->keys_only;
    if (options->snapshot != NULL) {
        /* The cast drops const: a reference count is not part of what the caller sees. */
        it->snapshot = (struct esker_snapshot *)(uintptr_t)options->snapshot;
        db_snapshot_ref(it->snapshot);
    }
    return iterate_set_bounds(it, options);
}

/* An iterator without rows. */
static struct esker_iter *
iterate_make(esker_db *db, const struct thread_state *self, const struct version *version)
{
    struct slab *slab = iterate_slab_take(db, self, iterate_bytes(version));
    struct esker_iter *it = slab != NULL ? mem_zalloc(&slab->mem, sizeof *it) : NULL;
    if (it == NULL) {
        iterate_slab_free(db, slab);
        return NULL;
    }
    it->magic = ITER_MAGIC;
    it->db = db;
    it->slab = slab;
    it->dead = (struct visible_dead){.find = iterate_dead_find, .note = iterate_dead_note, .ctx = it};
    buf_init(&it->lower, &slab->mem);
    buf_init(&it->upper, &slab->mem);
    buf_init(&it->keep, &slab->mem);
    return it;
}

/* Takes over the version's reference. */
static esker_status
iterate_create(esker_db *db, struct thread_state *self, const esker_read_options *options,
               struct version *version, uint64_t lsn, esker_iter **out)
{
    struct esker_iter *it = NULL;
    esker_status status = out == NULL       ? FAIL(ESKER_INVALID, "an output pointer is NULL")
                          : options != NULL ? db_check_read_options(db, options)
                                            : ESKER_OK;
    if (status == ESKER_OK) {
        it = iterate_make(db, self, version);
        status = it == NULL ? FAIL_NO_MEMORY("an iterator") : ESKER_OK;
    }
    if (status == ESKER_OK && options != NULL) {
        status = iterate_options(it, options);
    }
    if (status != ESKER_OK) {
        version_unref(version);
    } else {
        status = iterate_attach(it, self, version, lsn);
    }
    if (status != ESKER_OK) {
        if (it != NULL) {
            iterate_free(it, self);
        }
        return status;
    }
    db_handle_made(&db->iterators_live);
    *out = it;
    return ESKER_OK;
}

esker_status
esker_iter_create(esker_db *db, const esker_read_options *options, esker_iter **out)
{
    struct db_call call;
    uint64_t lsn;
    TRY(db_call_enter_section(db, &call));
    struct version *version = iterate_pin(db, &lsn);
    epoch_exit(call.self);
    esker_status status = iterate_create(db, call.self, options, version, lsn, out);
    db_call_exit(&call);
    return status;
}

/* Iterator calls need not announce themselves to close: a live iterator makes it BUSY. */
static inline esker_status
iterate_check_handle(const struct esker_iter *it)
{
    if (it == NULL || it->magic != ITER_MAGIC) {
        return FAIL(ESKER_INVALID, "the iterator handle is not valid");
    }
    /* relaxed: set in the child before fork returns there. */
    if (load_relaxed(&fork_generation) != it->db->fork_generation) {
        return FAIL(ESKER_FORKED, "the iterator belongs to the parent process");
    }
    return ESKER_OK;
}

/* For calls that go on to the rows. */
static esker_status
iterate_check(const struct esker_iter *it)
{
    TRY(iterate_check_handle(it));
    if (thread_state_get() == NULL) {
        return FAIL_NO_MEMORY("this thread's state");
    }
    return ESKER_OK;
}

void
esker_iter_destroy(esker_iter *it)
{
    if (it == NULL || iterate_check(it) != ESKER_OK) {
        return;
    }
    esker_db *db = it->db;
    iterate_free(it, thread_state_get());
    db_handle_gone(&db->iterators_live);
}

/* edge: where the step would have led beyond. */
static esker_status
iterate_settle(struct esker_iter *it, enum iterate_edge edge, esker_status status)
{
    it->positioned = status == ESKER_OK;
    it->edge = status == ESKER_END ? edge : EDGE_NONE;
    return status;
}

esker_status
esker_iter_first(esker_iter *it)
{
    TRY(iterate_check(it));
    return iterate_settle(it, EDGE_END, iter_first(it->rows));
}

esker_status
esker_iter_last(esker_iter *it)
{
    TRY(iterate_check(it));
    return iterate_settle(it, EDGE_START, iter_last(it->rows));
}

esker_status
esker_iter_next(esker_iter *it)
{
    if (LIKELY(iterate_check_handle(it) == ESKER_OK) && visible_iter_run_next(it->rows)) {
        return ESKER_OK; /* from an entry to the next: nothing else of the handle changes */
    }
    TRY(iterate_check(it));
    return iterate_settle(it, EDGE_END, iter_next(it->rows));
}

esker_status
esker_iter_prev(esker_iter *it)
{
    if (LIKELY(iterate_check_handle(it) == ESKER_OK) && visible_iter_run_prev(it->rows)) {
        return ESKER_OK;
    }
    TRY(iterate_check(it));
    return iterate_settle(it, EDGE_START, iter_prev(it->rows));
}

static esker_status
iterate_check_target(esker_slice key)
{
    if (key.data == NULL && key.size > 0) {
        return FAIL(ESKER_INVALID, "the key is NULL but its size is not 0");
    }
    return ESKER_OK;
}

esker_status
esker_iter_seek(esker_iter *it, esker_slice key)
{
    TRY(iterate_check(it));
    TRY(iterate_check_target(key));
    return iterate_settle(it, EDGE_END,
                          key.size == 0 ? iter_first(it->rows) : iter_seek(it->rows, bytes_of_slice(key)));
}

esker_status
esker_iter_seek_for_prev(esker_iter *it, esker_slice key)
{
    TRY(iterate_check(it));
    TRY(iterate_check_target(key));
    /* The immediate successor of key is key and a zero byte. */
    TRY(buf_assign(&it->keep, bytes_of_slice(key)));
    if (key.size > 0) {
        TRY(buf_append_u8(&it->keep, 0));
    }
    return iterate_settle(it, EDGE_START, iter_seek_before(it->rows, buf_bytes(&it->keep)));
}

esker_slice
esker_iter_key(const esker_iter *it)
{
    if (it == NULL || it->magic != ITER_MAGIC || !it->positioned) {
        return (esker_slice){0};
    }
    return bytes_to_slice(it->rows->key);
}

esker_status
esker_iter_value(esker_iter *it, esker_slice *out)
{
    TRY(iterate_check_handle(it));
    if (out == NULL || !it->positioned || it->keys_only) {
        return FAIL(ESKER_INVALID, "the iterator %s",
                    it->keys_only ? "reads keys only" : "is not positioned, or the output pointer is NULL");
    }
    *out = bytes_to_slice(it->rows->value);
    return ESKER_OK;
}

size_t
esker_iter_value_size(const esker_iter *it)
{
    return it != NULL && it->magic == ITER_MAGIC && it->positioned ? it->rows->value.len : 0;
}

uint64_t
esker_iter_expires_ms(const esker_iter *it)
{
    if (it == NULL || it->magic != ITER_MAGIC || !it->positioned) {
        return 0;
    }
    uint64_t expiry_ms = visible_iter_expiry_ms(it->rows);
    return expiry_ms == UINT64_MAX ? 0 : expiry_ms; /* the format has it; nothing writes it */
}

esker_status
esker_iter_refresh(esker_iter *it)
{
    TRY(iterate_check(it));
    bool positioned = it->positioned;
    enum iterate_edge edge = it->edge;
    if (positioned) {
        TRY(buf_assign(&it->keep, it->rows->key));
    }
    struct thread_state *self = thread_state_get();
    uint64_t lsn;
    epoch_enter(self);
    struct version *version = iterate_pin(it->db, &lsn);
    epoch_exit(self);
    TRY(iterate_attach(it, self, version, lsn));
    if (edge != EDGE_NONE) {
        visible_iter_stand(it->rows, edge == EDGE_END);
        it->edge = edge;
    }
    if (!positioned) {
        return ESKER_OK;
    }
    return iterate_settle(it, EDGE_END, iter_seek(it->rows, buf_bytes(&it->keep)));
}
