/* SPDX-License-Identifier: MIT */
/*
 * Point reads. A get is one short epoch section: load the version, then the
 * LSN, look through the windows newest first, then the runs newest first, and
 * copy what was found. No lock, no shared-memory write but the section's entry.
 *
 * What is not in memory costs a version reference: taken inside the section,
 * after which the section ends and the blocks are loaded outside of it.
 */
#include "db/db_read_internal.h"

/* What esker_value.pin is, told by its low bits: a copy of the value, or what holds its bytes. */
enum pin_kind { PIN_COPY = 0, PIN_FRAME = 1, PIN_VERSION = 2, PIN_KINDS = 3 };

struct value_pin {
    esker_db *db;
    uint8_t bytes[];
};

/* The runs, newest first, from the lookup's place on. NEEDS_IO only when not
 * slow; the place then is the segment that has to be read. */
static enum segment_result
read_levels(struct lookup *lookup, bool slow, enum entry_op *op_out)
{
    struct segment_hit *hit = &lookup->hit;
    struct segment *segment;
    while ((segment = read_segment_at(lookup)) != NULL) {
        enum segment_result result =
            slow ? segment_get_slow(segment, lookup->key, lookup->filter_hash, lookup->snapshot_lsn,
                                    lookup->fill_cache, hit)
                 : segment_get(segment, lookup->key, lookup->filter_hash, lookup->snapshot_lsn, hit);
        if (result == SEGMENT_FOUND) {
            *op_out = hit->op;
            lookup->value = hit->value;
            lookup->frame = slow ? hit->frame : NULL;
        }
        if (result != SEGMENT_ABSENT) {
            return result;
        }
        read_next_segment(lookup);
    }
    return SEGMENT_ABSENT;
}

bool
read_windows(struct lookup *lookup, enum entry_op *op_out)
{
    const struct version *version = lookup->version;
    uint64_t snapshot_lsn = lookup->snapshot_lsn;
    uint32_t i = 0;
    /* Nothing in such a window is visible: often it is the only one, and empty. */
    while (i < version->window_count && snapshot_lsn <= version->windows[i]->rows_lsn) {
        i++;
    }
    if (i == version->window_count) {
        return false;
    }
    uint64_t hash = memtable_hash(lookup->key, lookup->db->hash_seed);
    for (uint32_t next = i + 1; next < version->window_count; next++) { /* all misses at once */
        memtable_prefetch(version->windows[next]->table, hash);
    }
    for (; i < version->window_count; i++) {
        struct memtable_hit hit;
        if (memtable_get(version->windows[i]->table, lookup->key, hash, snapshot_lsn, &hit)) {
            *op_out = (enum entry_op)hit.entry[0];
            lookup->value = entry_value_trusted(hit.entry);
            lookup->from_memtable = true;
            return true;
        }
    }
    return false;
}

void
read_begin(struct lookup *lookup, const struct esker_snapshot *snapshot)
{
    lookup->version = load_acquire(&lookup->db->current); /* pairs: CURRENT */
    if (snapshot != NULL) {
        lookup->snapshot_lsn = snapshot->lsn;
    } else {
        /* pairs: VISIBLE — everything below is indexed. */
        uint64_t visible = load_acquire(&lookup->db->visible);
        lookup->snapshot_lsn = MIN(visible, lookup->version->end_lsn);
    }
}

/* Starts the misses of all filters of level 0 at once: each of them is asked. */
static void
read_prefetch_level0(const struct lookup *lookup)
{
    const struct level_run *run = lookup->version->levels[0];
    for (uint32_t i = 0; run != NULL; i++) {
        i = UNLIKELY(run->by_next) ? level_run_next(run, lookup->key, i) : i;
        if (i == run->count) {
            break;
        }
        segment_prefetch(run->segments[i], lookup->filter_hash);
    }
}

static enum segment_result
read_memory(struct lookup *lookup, enum entry_op *op_out)
{
    lookup->filter_hash = segment_filter_hash(lookup->key);
    read_prefetch_level0(lookup);
    if (read_windows(lookup, op_out)) {
        return SEGMENT_FOUND;
    }
    lookup->past_windows = true;
    return read_levels(lookup, false, op_out);
}

/* Where not even an index is in memory others will be asked for soon. */
static void
read_slow_load_ahead(const struct lookup *lookup)
{
    if (lookup->hit.place.stage == SEGMENT_STAGE_NONE) { /* or a filter is late: the index is there */
        struct lookup at = *lookup;
        const struct segment *segment = lookup->past_windows ? read_segment_at(&at) : NULL;
        if (segment == NULL || !segment_is_loaded(segment)) {
            db_load_ahead(lookup->db);
        }
    }
}

/* Outside a section, the version referenced: from where the fast path ended, or
 * from the start. OK, NOT_FOUND or a failure. */
static esker_status
read_slow(struct lookup *lookup)
{
    enum entry_op op = ENTRY_DELETE;
    read_slow_load_ahead(lookup);
    if (!lookup->past_windows) {
        if (read_windows(lookup, &op)) {
            return read_is_put(lookup, op) ? ESKER_OK : ESKER_NOT_FOUND;
        }
        lookup->filter_hash = segment_filter_hash(lookup->key);
    }
    switch (read_levels(lookup, true, &op)) {
    case SEGMENT_FOUND:
        if (read_is_put(lookup, op)) {
            return ESKER_OK;
        }
        frame_unpin(lookup->frame);
        lookup->frame = NULL;
        return ESKER_NOT_FOUND;
    case SEGMENT_ABSENT:
        return ESKER_NOT_FOUND;
    default:
        return status_last()->status;
    }
}

void
read_count(esker_db *db, const struct thread_state *self, bool found, bool from_memtable)
{
    struct stripe *stripe = db_stripe(db, self);
    counter_bump(&stripe->gets, 1); /* relaxed: statistic */
    if (from_memtable) {
        counter_bump(&stripe->gets_from_memtable, 1); /* relaxed: statistic */
    }
    if (!found) {
        counter_bump(&stripe->gets_not_found, 1); /* relaxed: statistic */
    }
}

esker_status
read_check(const esker_db *db, esker_slice key, const esker_read_options *options,
           const struct esker_snapshot **snapshot_out, bool *fill_out)
{
    *snapshot_out = NULL;
    *fill_out = true;
    if (UNLIKELY(key.data == NULL || key.size == 0)) {
        return FAIL(ESKER_INVALID, "the key is empty");
    }
    if (UNLIKELY(key.size > KEY_BYTES_MAX)) {
        return FAIL(ESKER_TOO_LARGE, "the key has %zu bytes; the limit is %d", key.size, KEY_BYTES_MAX);
    }
    if (options != NULL) {
        TRY(db_check_read_options(db, options));
        *snapshot_out = options->snapshot;
        *fill_out = options->fill_cache;
    }
    return ESKER_OK;
}

esker_status
db_check_read_options(const esker_db *db, const esker_read_options *options)
{
    if (options->struct_size < sizeof *options) {
        return FAIL(ESKER_INVALID, "the read options were not initialised");
    }
    if (options->snapshot != NULL &&
        (options->snapshot->magic != SNAPSHOT_MAGIC || options->snapshot->db != db)) {
        return FAIL(ESKER_INVALID, "the snapshot is not one of this database");
    }
    return ESKER_OK;
}

/* What a get at the newest state found had expired by a time later than that state, and may have been
 * put anew between the two. So it looks again, once, by the same time, at a state that is later: what has
 * expired there was gone at one moment of the call. Begins the section again. */
static bool
read_again(struct lookup *lookup, struct thread_state *self, const struct esker_snapshot *snapshot,
           esker_status status)
{
    if (LIKELY(status != ESKER_NOT_FOUND || lookup->now_ms == 0) || lookup->again || snapshot != NULL) {
        return false;
    }
    struct lookup before = *lookup;
    read_lookup_init(lookup, before.db, before.key);
    lookup->fill_cache = before.fill_cache;
    lookup->now_ms = before.now_ms;
    lookup->again = true;
    epoch_enter(self);
    return true;
}

/* ---- Copying get ------------------------------------------------------------ */

static esker_status
read_copy_out(const struct lookup *lookup, void *buf, size_t cap, size_t *size_out)
{
    size_t copied = MIN(cap, lookup->value.len);
    if (copied > 0) {
        memcpy(buf, lookup->value.ptr, copied);
    }
    *size_out = lookup->value.len;
    return copied < lookup->value.len ? ESKER_TRUNCATED : ESKER_OK;
}

/* Enters inside the section that the call began, returns outside of it. */
static esker_status
read_get_copy(struct thread_state *self, struct lookup *lookup, const struct esker_snapshot *snapshot,
              void *buf, size_t cap, size_t *size_out)
{
    enum entry_op op = ENTRY_DELETE;
    esker_status status = ESKER_NOT_FOUND;
    read_begin(lookup, snapshot);
    enum segment_result result = read_memory(lookup, &op);
    if (result == SEGMENT_NEEDS_IO) {
        struct version *version = lookup->version;
        version_ref(version);
        epoch_exit(self);
        status = read_slow(lookup);
        if (status == ESKER_OK) {
            status = read_copy_out(lookup, buf, cap, size_out);
            if (lookup->frame != NULL) {
                frame_unpin(lookup->frame);
            }
        }
        version_unref(version);
    } else {
        if (result == SEGMENT_FOUND && read_is_put(lookup, op)) {
            status = read_copy_out(lookup, buf, cap, size_out);
        }
        epoch_exit(self);
    }
    return status;
}

esker_status
esker_get_copy(esker_db *db, esker_slice key, const esker_read_options *options, void *buf, size_t cap,
               size_t *size_out)
{
    struct lookup lookup;
    const struct esker_snapshot *snapshot;
    struct db_call call;
    TRY(db_call_enter_section(db, &call));
    read_lookup_init(&lookup, db, bytes_of_slice(key));
    esker_status status = read_check(db, key, options, &snapshot, &lookup.fill_cache);
    if (status == ESKER_OK && (size_out == NULL || (buf == NULL && cap > 0))) {
        status = FAIL(ESKER_INVALID, "an output pointer is NULL");
    }
    if (LIKELY(status == ESKER_OK)) {
        do { /* one place that calls it: inlined */
            status = read_get_copy(call.self, &lookup, snapshot, buf, cap, size_out);
        } while (UNLIKELY(read_again(&lookup, call.self, snapshot, status)));
        read_count(db, call.self, status >= 0 && status != ESKER_NOT_FOUND, lookup.from_memtable);
    } else {
        epoch_exit(call.self);
    }
    db_call_exit(&call);
    return status;
}

/* ---- Pinning get ------------------------------------------------------------ */

static void *
read_pin(const void *held, enum pin_kind kind)
{
    ASSERT(((uintptr_t)held & PIN_KINDS) == 0);
    return (void *)((uintptr_t)held | kind);
}

static esker_status
read_pin_copy(esker_db *db, const void *bytes, size_t len, esker_value *value_out)
{
    struct value_pin *pin = mem_alloc(&db->mem, sizeof *pin + len);
    if (pin == NULL) {
        return FAIL_NO_MEMORY("a value");
    }
    pin->db = db;
    if (len > 0) {
        memcpy(pin->bytes, bytes, len);
    }
    db_handle_made(&db->values_live);
    *value_out = (esker_value){.data = pin->bytes, .size = len, .pin = read_pin(pin, PIN_COPY)};
    return ESKER_OK;
}

/* Takes over the frame's pin or, without a frame, the version's reference. */
static void
read_pin_held(const struct lookup *lookup, esker_value *value_out)
{
    void *pin =
        lookup->frame != NULL ? read_pin(lookup->frame, PIN_FRAME) : read_pin(lookup->version, PIN_VERSION);
    db_handle_made(&lookup->db->values_live);
    *value_out = (esker_value){.data = lookup->value.ptr, .size = lookup->value.len, .pin = pin};
}

/* Inside a section: takes hold of what the value lies in, its block or, in a window, the version. */
static void
read_hold(struct lookup *lookup)
{
    if (lookup->from_memtable) {
        version_ref(lookup->version);
        lookup->frame = NULL;
    } else {
        frame_pin(lookup->hit.frame);
        lookup->frame = lookup->hit.frame;
    }
}

esker_status
read_value_held(struct lookup *lookup, esker_value *value_out)
{
    if (lookup->value.len > VALUE_COPY_BYTES_MAX) {
        struct version *version = lookup->frame != NULL ? lookup->version : NULL;
        read_pin_held(lookup, value_out);
        if (version != NULL) {
            version_unref(version);
        }
        return ESKER_OK;
    }
    esker_status status = read_pin_copy(lookup->db, lookup->value.ptr, lookup->value.len, value_out);
    if (lookup->frame != NULL) {
        frame_unpin(lookup->frame);
    }
    version_unref(lookup->version);
    return status;
}

/* Enters inside the section that the call began, returns outside of it. */
static esker_status
read_get(esker_db *db, struct thread_state *self, struct lookup *lookup,
         const struct esker_snapshot *snapshot, esker_value *value_out)
{
    enum entry_op op = ENTRY_DELETE;
    uint8_t copy[VALUE_COPY_BYTES_MAX];
    esker_status status = ESKER_NOT_FOUND;
    read_begin(lookup, snapshot);
    enum segment_result result = read_memory(lookup, &op);
    bool found = result == SEGMENT_FOUND && read_is_put(lookup, op);
    if (found && lookup->value.len <= sizeof copy) {
        size_t len = lookup->value.len;
        memcpy(copy, lookup->value.ptr, len);
        epoch_exit(self);
        status = read_pin_copy(db, copy, len, value_out);
    } else if (found) {
        read_hold(lookup);
        epoch_exit(self);
        read_pin_held(lookup, value_out);
        status = ESKER_OK;
    } else if (result == SEGMENT_NEEDS_IO) {
        version_ref(lookup->version);
        epoch_exit(self);
        status = read_slow(lookup);
        if (status == ESKER_OK) {
            status = read_value_held(lookup, value_out);
        } else {
            version_unref(lookup->version);
        }
    } else {
        epoch_exit(self);
    }
    return status;
}

esker_status
esker_get(esker_db *db, esker_slice key, const esker_read_options *options, esker_value *value_out)
{
    struct lookup lookup;
    const struct esker_snapshot *snapshot;
    struct db_call call;
    TRY(db_call_enter_section(db, &call));
    read_lookup_init(&lookup, db, bytes_of_slice(key));
    esker_status status = read_check(db, key, options, &snapshot, &lookup.fill_cache);
    if (status == ESKER_OK && value_out == NULL) {
        status = FAIL(ESKER_INVALID, "an output pointer is NULL");
    }
    if (LIKELY(status == ESKER_OK)) {
        do {
            status = read_get(db, call.self, &lookup, snapshot, value_out);
        } while (UNLIKELY(read_again(&lookup, call.self, snapshot, status)));
        read_count(db, call.self, status == ESKER_OK, lookup.from_memtable);
    } else {
        epoch_exit(call.self);
    }
    db_call_exit(&call);
    return status;
}

void
esker_value_release(esker_value *value)
{
    if (value == NULL || value->pin == NULL) {
        return;
    }
    uintptr_t pin = (uintptr_t)value->pin;
    void *held = (void *)(pin & ~(uintptr_t)PIN_KINDS);
    esker_db *db;
    *value = (esker_value){0};
    switch ((enum pin_kind)(pin & PIN_KINDS)) {
    case PIN_FRAME:
        db = frame_owner(held);
        frame_unpin(held);
        break;
    case PIN_VERSION:
        db = CONTAINER_OF(((struct version *)held)->list, esker_db, versions);
        version_unref(held);
        break;
    default:
        db = ((struct value_pin *)held)->db;
        mem_free(&db->mem, held);
    }
    db_handle_gone(&db->values_live);
}

/* ---- For conditional batches -------------------------------------------------- */

static esker_status
read_changed_in_segments(esker_db *db, struct version *version, struct bytes key, uint64_t since,
                         uint64_t limit, bool *seen_out, bool *changed_out)
{
    uint64_t filter_hash = segment_filter_hash(key);
    (void)db;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 0; run != NULL; i++) {
            i = level_run_next(run, key, i);
            if (i == run->count) {
                break;
            }
            struct segment_hit hit = {0};
            switch (segment_get_slow(run->segments[i], key, filter_hash, limit, true, &hit)) {
            case SEGMENT_FOUND:
                frame_unpin(hit.frame);
                *seen_out = true;
                *changed_out = hit.lsn >= since;
                return ESKER_OK;
            case SEGMENT_ABSENT:
                break;
            default:
                return status_last()->status;
            }
        }
    }
    return ESKER_OK;
}

esker_status
db_changed_since(esker_db *db, struct version *version, struct bytes key, uint64_t asked, uint64_t since,
                 uint64_t limit, bool *changed_out)
{
    uint64_t hash = memtable_hash(key, db->hash_seed);
    for (uint32_t i = 0; i < version->window_count; i++) {
        const struct window *window = version->windows[i];
        struct memtable_hit hit;
        if (memtable_get(window->table, key, hash, limit, &hit)) {
            *changed_out = hit.lsn >= since;
            return ESKER_OK;
        }
        if (window->base_lsn <= since) {
            *changed_out = false; /* whatever is older is older than `since` */
            return ESKER_OK;
        }
    }
    bool seen = false;
    *changed_out = false;
    TRY(read_changed_in_segments(db, version, key, since, limit, &seen, changed_out));
    if (!seen && asked != 0) {
        /* Nothing at all: unless history since either is complete, what was there then may have
         * been deleted, and both merged away. Asked 0 means that there be nothing. A merge may
         * have ended since `since` was taken, which no snapshot keeps; one at `asked` may. */
        *changed_out = !db_history_is_exact(db, asked) && !db_history_is_exact(db, since);
    }
    return ESKER_OK;
}
