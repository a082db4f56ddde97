/* SPDX-License-Identifier: MIT */
/*
 * What a reader at LSN S sees of a sorted source of versions.
 *
 * Forward the source delivers the versions of a key newest first: the first
 * one below S decides, a put is the entry, and the key's other rows are
 * passed over. Backward they come oldest first, and whether a version is the
 * newest one below S shows only at the row before it; so each candidate is
 * copied and the source goes one row further than the entry. A value too
 * large to copy is fetched by seeking its key once more instead.
 *
 * What has expired is a delete, by one time for all that one positioning (first, last or a seek)
 * and the steps after it meet, so that both directions judge a row alike.
 *
 * A run of more than VISIBLE_RUN_MAX rows of one key is left by a seek. So is a run
 * of deleted keys that is known to be one (struct visible_dead); one that was walked
 * is told to whom it may be of use.
 *
 * States, and where the source stands:
 *
 *   NOWHERE   anywhere. Before the first positioning, and after a failure.
 *   ON_ROW    on the row that is the entry; value points into it, and so does
 *             the key, unless has_key.
 *   BEHIND    on a row before the entry's row, or ended (source_ended); key
 *             and value are copies. Never on a visible row of a key that is
 *             neither the entry's nor before it.
 *   AT_END    anywhere; past the last entry.
 *   AT_START  anywhere; before the first entry.
 *
 *             next                            prev
 *   ON_ROW    source next, scan forward       source prev, scan backward
 *   BEHIND    source next, or seek of the     scan backward from where it
 *             key when ended; scan forward    stands; AT_START when ended
 *   AT_END    END                             as last
 *   AT_START  as first                        END
 *
 * A row that its source knows to be the only one left of its key is shown where
 * it stands, in both directions, and nothing is copied. (What a live memtable
 * takes in meanwhile has an LSN >= S: wherever it comes by, it is no entry.)
 *
 * Where the source can, the rows around an entry are walked as a run (iter/iter_run.h),
 * cut to the bounds; the state is ON_ROW, the source and has_key are brought up to date
 * when the run ends.
 *
 * Both scans start behind the entry's key: its remaining rows are passed over
 * (`passing`). seek and first end in AT_END, seek_before and last in AT_START,
 * when they find nothing; every step that fails ends in NOWHERE.
 *
 * Rows that a live memtable takes in meanwhile have LSNs >= S: they are
 * passed over like any other invisible row.
 *
 * Concurrency: one thread at a time.
 */
#include "iter/visible_iter.h"

#include "base/buf.h"
#include "format/log_format.h"

enum {
    VISIBLE_RUN_MAX = 16,          /* rows of one key passed one by one */
    VISIBLE_DEAD_LOOK = 4,         /* deleted keys in a row, then it is asked how far they reach */
    VISIBLE_DEAD_AGAIN = 128,      /* ... and after so many more */
    VISIBLE_DEAD_NOTE = 16,        /* a walk over so many is told */
    VISIBLE_COPY_BYTES_MAX = 16384 /* beyond it two seeks cost less than the copy */
};

enum visible_state { VISIBLE_NOWHERE, VISIBLE_ON_ROW, VISIBLE_BEHIND, VISIBLE_AT_END, VISIBLE_AT_START };

struct visible_iter {
    struct visible_rows rows; /* first: the iterator is this struct */
    struct iter *source;
    const struct mem *mem;
    uint64_t snapshot_lsn;
    struct buf lower, upper;
    uint64_t upper_prefix;
    enum visible_state state;
    bool source_ended; /* BEHIND: the source has no row before the entry's */
    bool has_key;      /* `key` is the entry's; else ON_ROW, and no other row has its key */
    struct buf key;    /* the entry's; inside a scan: the key whose rows are being passed or weighed */
    struct buf value;  /* BEHIND: the entry's */
    struct buf target; /* what is sought: the caller's key may lie in a row of ours */
    uint64_t skipped;
    const struct visible_dead *dead; /* nullable */
    uint64_t dead_run;               /* deleted keys that the step at hand has walked over in a row */
    struct buf dead_from;            /* the first of them, or where it jumped to before */
    visible_now_fn *now_fn;          /* nullable */
    void *now_ctx;
    uint64_t now_ms; /* since the last positioning; 0 = not asked yet */
};

static struct visible_iter *
visible_of(struct iter *it)
{
    return CONTAINER_OF(it, struct visible_iter, rows.base);
}

/* ---- Expiry ----------------------------------------------------------------- */

static NOINLINE bool
visible_has_expired(struct visible_iter *visible)
{
    if (visible->now_ms == 0 && visible->now_fn != NULL) {
        visible->now_ms = MAX(visible->now_fn(visible->now_ctx), (uint64_t)1);
    }
    return entry_expiry_ms(visible->source->value) <= visible->now_ms;
}

/* The source's row gives its key a value. */
static inline bool
visible_is_put(struct visible_iter *visible)
{
    unsigned op = visible->source->op;
    return LIKELY(op == ENTRY_PUT) || (op == ENTRY_PUT_EXPIRING && !visible_has_expired(visible));
}

/* That value, and in *expiry_ms_out how long. */
static inline struct bytes
visible_put_value(const struct iter *source, uint64_t *expiry_ms_out)
{
    if (LIKELY(source->op == ENTRY_PUT)) {
        *expiry_ms_out = 0;
        return source->value;
    }
    *expiry_ms_out = entry_expiry_ms(source->value);
    return entry_expiring_value(source->value);
}

/* A positioning begins. */
static inline void
visible_start(struct visible_iter *visible)
{
    visible->rows.run = (struct iter_run){0};
    visible->now_ms = 0;
}

/* ---- Bounds ----------------------------------------------------------------- */

static bool
visible_beyond_upper(const struct visible_iter *visible, struct bytes key)
{
    if (LIKELY(bytes_prefix64(key.ptr, key.len) < visible->upper_prefix)) {
        return false;
    }
    return visible->upper.len > 0 && bytes_compare(key, buf_bytes(&visible->upper)) >= 0;
}

static bool
visible_below_lower(const struct visible_iter *visible, struct bytes key)
{
    return visible->lower.len > 0 && bytes_compare(key, buf_bytes(&visible->lower)) < 0;
}

/* ---- Where a step ends --------------------------------------------------------- */

static esker_status
visible_fail(struct visible_iter *visible, esker_status status)
{
    visible->state = VISIBLE_NOWHERE;
    return status;
}

static esker_status
visible_edge(struct visible_iter *visible, enum visible_state edge)
{
    visible->state = edge;
    return ESKER_END;
}

static void
visible_publish(struct visible_iter *visible, enum visible_state state, struct bytes value, uint64_t lsn,
                uint64_t expiry_ms)
{
    visible->state = state;
    visible->has_key = true;
    visible->rows.base.key = buf_bytes(&visible->key);
    visible->rows.base.value = value;
    visible->rows.base.lsn = lsn;
    visible->rows.base.op = ENTRY_PUT;
    visible->rows.expiry_ms = expiry_ms;
}

/* The source's row is the entry. */
static void
visible_publish_row(struct visible_iter *visible)
{
    uint64_t expiry_ms;
    struct bytes value = visible_put_value(visible->source, &expiry_ms);
    visible_publish(visible, VISIBLE_ON_ROW, value, visible->source->lsn, expiry_ms);
}

/* ---- Rows that are walked without the source ------------------------------------- */

static void
visible_run_drop(struct visible_iter *visible)
{
    visible->rows.run = (struct iter_run){0};
}

/* The entry is the row that the source stands on. */
static void
visible_run_begin(struct visible_iter *visible)
{
    struct iter_run *run = &visible->rows.run;
    struct iter *source = visible->source;
    if (source->ops->run == NULL || !source->ops->run(source, visible->snapshot_lsn, run)) {
        return;
    }
    if (visible->upper.len > 0 && block_key_compare(run->block, run->to, buf_bytes(&visible->upper)) >= 0) {
        run->to = block_seek(run->block, buf_bytes(&visible->upper)) - 1;
    }
    if (visible->lower.len > 0 && block_key_compare(run->block, run->from, buf_bytes(&visible->lower)) < 0) {
        run->from = block_seek(run->block, buf_bytes(&visible->lower));
    }
    visible->rows.base.key = source->key; /* where a step leaves the next one */
}

/* The source stands on the entry again. */
static esker_status
visible_run_end(struct visible_iter *visible)
{
    if (visible->rows.run.block == NULL) {
        return ESKER_OK;
    }
    struct iter *source = visible->source;
    source->ops->run_end(source, visible->rows.run.row);
    visible_run_drop(visible);
    visible->has_key = !source->only;
    return source->only ? ESKER_OK : buf_assign(&visible->key, source->key);
}

/* ---- Runs of deleted keys ------------------------------------------------------ */

/* One more deleted key: the one that the source stands on, or backward the one that
 * it has left for another. True: what is known says that from where the source
 * stands nothing follows up to visible->target. */
static bool
visible_dead_reached(struct visible_iter *visible, bool backward)
{
    struct bytes key = visible->source->key;
    visible->dead_run++;
    if (LIKELY(visible->dead_run != 1 && visible->dead_run % VISIBLE_DEAD_AGAIN != VISIBLE_DEAD_LOOK)) {
        return false;
    }
    if (visible->dead == NULL) {
        return false;
    }
    if (visible->dead_run == 1) {
        if (buf_assign(&visible->dead_from, key) != ESKER_OK) {
            visible->dead_run = 0; /* the run is not told, no more */
        }
        return false;
    }
    return visible->dead->find(visible->dead->ctx, key, backward, &visible->target);
}

/* The walk goes on at visible->target; nothing lies between. */
static esker_status
visible_dead_jump(struct visible_iter *visible, bool backward)
{
    visible->dead_run = 1;
    TRY(buf_assign(&visible->dead_from, buf_bytes(&visible->target)));
    return backward ? iter_seek_before(visible->source, buf_bytes(&visible->target))
                    : iter_seek(visible->source, buf_bytes(&visible->target));
}

/* The run ended. It reached up to `end` forward; backward down to behind `end`. */
static void
visible_dead_ended(struct visible_iter *visible, struct bytes end, bool backward)
{
    uint64_t deletes = visible->dead_run;
    visible->dead_run = 0;
    if (LIKELY(deletes < VISIBLE_DEAD_NOTE) || visible->dead == NULL) {
        return;
    }
    struct bytes from = buf_bytes(&visible->dead_from);
    if (!backward) {
        visible->dead->note(visible->dead->ctx, from, end, deletes);
        return;
    }
    /* From the smallest key after `end` to the smallest one after the first that was met. */
    if (buf_assign(&visible->target, end) == ESKER_OK && buf_append_u8(&visible->target, 0) == ESKER_OK &&
        buf_append_u8(&visible->dead_from, 0) == ESKER_OK) {
        visible->dead->note(visible->dead->ctx, buf_bytes(&visible->target), buf_bytes(&visible->dead_from),
                            deletes);
    }
}

/* The same where nothing more lies in the way: the bound, or behind the last key that was met. */
static void
visible_dead_ended_at_edge(struct visible_iter *visible)
{
    if (visible->dead_run < VISIBLE_DEAD_NOTE) {
        visible->dead_run = 0;
    } else if (visible->upper.len > 0) {
        visible_dead_ended(visible, buf_bytes(&visible->upper), false);
    } else if (buf_append_u8(&visible->key, 0) == ESKER_OK) {
        visible_dead_ended(visible, buf_bytes(&visible->key), false);
        visible->key.len--;
    }
}

/* ---- Rows that are alone ------------------------------------------------------- */

/* The source's row, which is of another key than those before it, is the entry, whatever follows. */
ALWAYS_INLINE bool
visible_is_alone(const struct visible_iter *visible)
{
    const struct iter *source = visible->source;
    return source->only && source->lsn < visible->snapshot_lsn && source->op == ENTRY_PUT;
}

static inline esker_status
visible_publish_alone(struct visible_iter *visible, bool backward)
{
    const struct iter *source = visible->source;
    if (UNLIKELY(visible->dead_run != 0)) {
        visible_dead_ended(visible, source->key, backward);
    }
    visible->state = VISIBLE_ON_ROW;
    visible->has_key = false;
    visible->rows.base.key = source->key;
    visible->rows.base.value = source->value;
    visible->rows.base.lsn = source->lsn;
    visible->rows.base.op = ENTRY_PUT;
    visible->rows.expiry_ms = 0;
    visible_run_begin(visible);
    return ESKER_OK;
}

/* ---- Forward ------------------------------------------------------------------- */

static esker_status
visible_seek_past_key(struct visible_iter *visible)
{
    TRY(buf_append_u8(&visible->key, 0)); /* the smallest key after it */
    esker_status status = iter_seek(visible->source, buf_bytes(&visible->key));
    visible->key.len--;
    return status;
}

/* status: of the step that brought the source to where it is. passing: rows
 * of visible->key are done with. */
static esker_status
visible_scan_forward(struct visible_iter *visible, esker_status status, bool passing)
{
    struct iter *source = visible->source;
    unsigned run = 0;
    visible->dead_run = 0;
    while (status == ESKER_OK && !visible_beyond_upper(visible, source->key)) {
        if (passing && bytes_equal(source->key, buf_bytes(&visible->key))) {
            visible->skipped++;
            if (++run > VISIBLE_RUN_MAX) {
                run = 0;
                status = visible_seek_past_key(visible);
            } else {
                status = iter_next(source);
            }
            continue;
        }
        if (visible_is_alone(visible)) {
            return visible_publish_alone(visible, false);
        }
        if (source->lsn < visible->snapshot_lsn) {
            status = buf_assign(&visible->key, source->key);
            if (UNLIKELY(status != ESKER_OK)) {
                break;
            }
            if (visible_is_put(visible)) {
                if (UNLIKELY(visible->dead_run != 0)) {
                    visible_dead_ended(visible, source->key, false);
                }
                visible_publish_row(visible);
                if (LIKELY(source->op == ENTRY_PUT)) { /* the rows of a run do not expire */
                    visible_run_begin(visible);
                }
                return ESKER_OK;
            }
            passing = true; /* a delete hides the older rows */
            run = 0;
            if (visible_dead_reached(visible, false)) {
                passing = false;
                status = visible_dead_jump(visible, false);
                continue;
            }
        }
        visible->skipped++;
        status = iter_next(source);
    }
    if (status == ESKER_OK || status == ESKER_END) {
        visible_dead_ended_at_edge(visible);
        return visible_edge(visible, VISIBLE_AT_END);
    }
    return visible_fail(visible, status);
}

/* ---- Backward ------------------------------------------------------------------ */

/* What is known of visible->key while its rows come by, oldest first. */
struct visible_weighing {
    enum { WEIGHING_NOTHING, WEIGHING_PUT, WEIGHING_DONE } verdict; /* DONE: no row of it is of interest */

    bool is_copied; /* the put's value lies in visible->value */
    uint64_t lsn, expiry_ms;
    unsigned run;
};

/* Stands on the newest version of visible->key below S, found from the front.
 * OK: the entry, published; END: it is deleted, the source stands on that row. */
static esker_status
visible_seek_version(struct visible_iter *visible)
{
    struct iter *source = visible->source;
    struct bytes key = buf_bytes(&visible->key);
    esker_status status = iter_seek(source, key);
    while (status == ESKER_OK && source->lsn >= visible->snapshot_lsn && bytes_equal(source->key, key)) {
        visible->skipped++;
        status = iter_next(source);
    }
    if (status != ESKER_OK && status != ESKER_END) {
        return status;
    }
    if (status == ESKER_END || !bytes_equal(source->key, key)) {
        return FAIL(ESKER_CORRUPT, "rows are out of order: a version seen backward is not found forward");
    }
    if (!visible_is_put(visible)) {
        visible->skipped++;
        return ESKER_END;
    }
    visible_publish_row(visible);
    return ESKER_OK;
}

/* All rows of visible->key have come by, or those left are not visible. */
static esker_status
visible_finish_put(struct visible_iter *visible, const struct visible_weighing *weighing, bool source_ended)
{
    visible->skipped--; /* one of the rows that came by is the entry */
    if (!weighing->is_copied) {
        esker_status status = visible_seek_version(visible);
        if (status == ESKER_END) {
            status = FAIL(ESKER_CORRUPT, "rows are out of order: a put seen backward is a delete forward");
        }
        return status == ESKER_OK ? status : visible_fail(visible, status);
    }
    visible->source_ended = source_ended;
    visible_publish(visible, VISIBLE_BEHIND, buf_bytes(&visible->value), weighing->lsn, weighing->expiry_ms);
    return ESKER_OK;
}

/* The source's row is one more version of visible->key. */
static esker_status
visible_weigh_row(struct visible_iter *visible, struct visible_weighing *weighing)
{
    const struct iter *source = visible->source;
    visible->skipped++;
    if (weighing->verdict == WEIGHING_DONE) {
        return ESKER_OK;
    }
    if (source->lsn >= visible->snapshot_lsn) {
        weighing->verdict = WEIGHING_DONE; /* and so are all newer ones */
        return ESKER_OK;
    }
    weighing->lsn = source->lsn;
    weighing->is_copied = source->value.len <= VISIBLE_COPY_BYTES_MAX;
    weighing->verdict = visible_is_put(visible) ? WEIGHING_PUT : WEIGHING_NOTHING;
    if (weighing->verdict == WEIGHING_PUT && weighing->is_copied) {
        return buf_assign(&visible->value, visible_put_value(source, &weighing->expiry_ms));
    }
    return ESKER_OK;
}

/* Out of a long run of rows of one key. OK or END: the source stands before
 * the key; *found: it holds the entry after all, which is published. */
static esker_status
visible_leave_run(struct visible_iter *visible, struct visible_weighing *weighing, bool *found)
{
    *found = false;
    if (weighing->verdict != WEIGHING_DONE) {
        if (weighing->verdict == WEIGHING_PUT) {
            visible->skipped--;
        }
        esker_status status = visible_seek_version(visible);
        if (status != ESKER_END) {
            *found = status == ESKER_OK;
            return status;
        }
        weighing->verdict = WEIGHING_DONE;
    }
    weighing->run = 0;
    return iter_seek_before(visible->source, buf_bytes(&visible->key));
}

/* As visible_scan_forward, towards the start. */
static esker_status
visible_scan_backward(struct visible_iter *visible, esker_status status, bool passing)
{
    struct iter *source = visible->source;
    struct visible_weighing weighing = {.verdict = passing ? WEIGHING_DONE : WEIGHING_NOTHING};
    bool have_key = passing;
    visible->dead_run = 0;
    for (;;) {
        if (UNLIKELY(status != ESKER_OK && status != ESKER_END)) {
            return visible_fail(visible, status);
        }
        bool ended = status == ESKER_END || visible_below_lower(visible, source->key);
        bool same = !ended && have_key && bytes_equal(source->key, buf_bytes(&visible->key));
        if (weighing.verdict == WEIGHING_PUT && (!same || source->lsn >= visible->snapshot_lsn)) {
            visible_dead_ended(visible, buf_bytes(&visible->key), true);
            return visible_finish_put(visible, &weighing, status == ESKER_END);
        }
        if (ended) {
            return visible_edge(visible, VISIBLE_AT_START);
        }
        if (!same) {
            bool was_deleted = have_key && weighing.verdict == WEIGHING_NOTHING;
            if (was_deleted && visible_dead_reached(visible, true)) {
                status = visible_dead_jump(visible, true);
                have_key = false;
                continue;
            }
            if (visible_is_alone(visible)) {
                return visible_publish_alone(visible, true);
            }
            status = buf_assign(&visible->key, source->key);
            if (UNLIKELY(status != ESKER_OK)) {
                continue;
            }
            have_key = true;
            weighing = (struct visible_weighing){.verdict = WEIGHING_NOTHING};
        } else if (++weighing.run > VISIBLE_RUN_MAX) {
            bool found;
            status = visible_leave_run(visible, &weighing, &found);
            if (found) {
                return ESKER_OK;
            }
            continue;
        }
        status = visible_weigh_row(visible, &weighing);
        if (LIKELY(status == ESKER_OK)) {
            status = iter_prev(source);
        }
    }
}

/* ---- Operations ------------------------------------------------------------------ */

static esker_status
visible_first(struct iter *it)
{
    struct visible_iter *visible = visible_of(it);
    visible_start(visible);
    struct iter *source = visible->source;
    bool bounded = visible->lower.len > 0;
    esker_status status = bounded ? iter_seek(source, buf_bytes(&visible->lower)) : iter_first(source);
    return visible_scan_forward(visible, status, false);
}

static esker_status
visible_last(struct iter *it)
{
    struct visible_iter *visible = visible_of(it);
    visible_start(visible);
    struct iter *source = visible->source;
    bool bounded = visible->upper.len > 0;
    esker_status status = bounded ? iter_seek_before(source, buf_bytes(&visible->upper)) : iter_last(source);
    return visible_scan_backward(visible, status, false);
}

static esker_status
visible_seek(struct iter *it, struct bytes key)
{
    struct visible_iter *visible = visible_of(it);
    visible_start(visible);
    if (visible_beyond_upper(visible, key)) {
        return visible_edge(visible, VISIBLE_AT_END);
    }
    if (visible_below_lower(visible, key)) {
        return visible_first(it);
    }
    esker_status status = buf_assign(&visible->target, key);
    if (status == ESKER_OK) {
        status = iter_seek(visible->source, buf_bytes(&visible->target));
    }
    return visible_scan_forward(visible, status, false);
}

static esker_status
visible_seek_before(struct iter *it, struct bytes key)
{
    struct visible_iter *visible = visible_of(it);
    visible_start(visible);
    if (visible_below_lower(visible, key)) {
        return visible_edge(visible, VISIBLE_AT_START);
    }
    if (visible_beyond_upper(visible, key)) {
        return visible_last(it);
    }
    esker_status status = buf_assign(&visible->target, key);
    if (status == ESKER_OK) {
        status = iter_seek_before(visible->source, buf_bytes(&visible->target));
    }
    return visible_scan_backward(visible, status, false);
}

static esker_status
visible_next(struct iter *it)
{
    struct visible_iter *visible = visible_of(it);
    struct iter *source = visible->source;
    esker_status ended = visible_run_end(visible);
    if (UNLIKELY(ended != ESKER_OK)) {
        return visible_fail(visible, ended);
    }
    switch (visible->state) {
    case VISIBLE_ON_ROW:
        return visible_scan_forward(visible, iter_next(source), visible->has_key);
    case VISIBLE_BEHIND:
        return visible_scan_forward(
            visible, visible->source_ended ? iter_seek(source, buf_bytes(&visible->key)) : iter_next(source),
            true);
    case VISIBLE_AT_END:
        return ESKER_END;
    case VISIBLE_AT_START:
        return visible_first(it);
    case VISIBLE_NOWHERE:
        break;
    }
    return FAIL(ESKER_INVALID, "the iterator is not positioned");
}

static esker_status
visible_prev(struct iter *it)
{
    struct visible_iter *visible = visible_of(it);
    esker_status ended = visible_run_end(visible);
    if (UNLIKELY(ended != ESKER_OK)) {
        return visible_fail(visible, ended);
    }
    switch (visible->state) {
    case VISIBLE_ON_ROW:
        return visible_scan_backward(visible, iter_prev(visible->source), visible->has_key);
    case VISIBLE_BEHIND:
        return visible_scan_backward(visible, visible->source_ended ? ESKER_END : ESKER_OK, true);
    case VISIBLE_AT_END:
        return visible_last(it);
    case VISIBLE_AT_START:
        return ESKER_END;
    case VISIBLE_NOWHERE:
        break;
    }
    return FAIL(ESKER_INVALID, "the iterator is not positioned");
}

/* ---- Life ------------------------------------------------------------------------ */

static void
visible_destroy(struct iter *it)
{
    struct visible_iter *visible = visible_of(it);
    iter_destroy(visible->source);
    buf_fini(&visible->lower);
    buf_fini(&visible->upper);
    buf_fini(&visible->key);
    buf_fini(&visible->value);
    buf_fini(&visible->target);
    buf_fini(&visible->dead_from);
    mem_free(visible->mem, visible);
}

static const struct iter_ops visible_ops = {
    .first = visible_first,
    .last = visible_last,
    .seek = visible_seek,
    .seek_before = visible_seek_before,
    .next = visible_next,
    .prev = visible_prev,
    .destroy = visible_destroy,
};

esker_status
visible_iter_create(struct iter *source, uint64_t snapshot_lsn, struct visible_bounds bounds,
                    const struct mem *mem, struct iter **out)
{
    struct visible_iter *visible = mem_zalloc(mem, sizeof *visible);
    if (visible == NULL) {
        iter_destroy(source);
        return FAIL_NO_MEMORY("an iterator");
    }
    visible->rows.base.ops = &visible_ops;
    visible->source = source;
    visible->mem = mem;
    visible->snapshot_lsn = snapshot_lsn;
    visible->state = VISIBLE_NOWHERE;
    buf_init(&visible->lower, mem);
    buf_init(&visible->upper, mem);
    buf_init(&visible->key, mem);
    buf_init(&visible->value, mem);
    buf_init(&visible->target, mem);
    buf_init(&visible->dead_from, mem);
    visible->upper_prefix =
        bounds.upper.len > 0 ? bytes_prefix64(bounds.upper.ptr, bounds.upper.len) : UINT64_MAX;
    esker_status status = buf_append_bytes(&visible->lower, bounds.lower);
    if (status == ESKER_OK) {
        status = buf_append_bytes(&visible->upper, bounds.upper);
    }
    if (status != ESKER_OK) {
        visible_destroy(&visible->rows.base);
        return status;
    }
    *out = &visible->rows.base;
    return ESKER_OK;
}

void
visible_iter_stand(struct iter *it, bool at_end)
{
    visible_run_drop(visible_of(it));
    visible_of(it)->state = at_end ? VISIBLE_AT_END : VISIBLE_AT_START;
}

uint64_t
visible_iter_take_skipped(struct iter *it)
{
    struct visible_iter *visible = visible_of(it);
    uint64_t skipped = visible->skipped;
    visible->skipped = 0;
    return skipped;
}

void
visible_iter_set_dead(struct iter *it, const struct visible_dead *dead)
{
    visible_of(it)->dead = dead;
}

void
visible_iter_set_clock(struct iter *it, visible_now_fn *now_ms, void *ctx)
{
    visible_of(it)->now_fn = now_ms;
    visible_of(it)->now_ctx = ctx;
}
