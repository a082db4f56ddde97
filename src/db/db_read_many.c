/* SPDX-License-Identifier: MIT */
/*
 * Many keys at one point in time. All of them are looked up in memory first,
 * with the cache misses of neighbours overlapped; the blocks that are missing
 * are then read together, each once, and the lookups that waited go on. A key
 * whose block turns out not to hold it waits for a block of an older segment in
 * the next round, so there are at most as many rounds as runs.
 *
 * However many the keys are, they are taken a slice at a time, all slices at the
 * same version and LSN. A lookup that has its answer pins the block it stands in
 * until the slice ends: more of them would leave the cache no room, and each block
 * would be read and decompressed again for almost every key.
 *
 * All of them are judged by one time, too: a time at which the LSN was the newest, so
 * that what is seen was there together at one moment of the call.
 *
 * The version is referenced throughout; epoch sections are entered only while
 * frames and indexes are looked at, for a few keys each.
 */
#include "db/db_read_internal.h"

enum {
    MANY_GROUP = 16,    /* keys whose misses are overlapped */
    MANY_FETCH = 128,   /* blocks that are asked for together */
    MANY_SLICE = 4096,  /* keys that are under way together; fewer on a small budget, */
    MANY_PIN_SHARE = 2, /* of which blocks that they pin take at most this share */
    MANY_CLOCK_TRIES = 8
};

enum many_state { MANY_OPEN = 0, MANY_FOUND, MANY_ABSENT, MANY_FAILED, MANY_WAITING };

struct many_key {
    struct lookup lookup;
    uint64_t hash; /* memtable_hash */
    enum many_state state;
    enum entry_op op;
    bool warmed;         /* index and filter of the segment at hand were loaded for it, once */
    esker_status status; /* FAILED */
};

struct many {
    esker_db *db;
    struct thread_state *self;
    struct version *version;
    struct many_key *keys; /* the slice that is under way */
    size_t count;
};

/* The segment at hand does not hold it. */
static void
many_next_segment(struct many_key *key)
{
    read_next_segment(&key->lookup);
    key->warmed = false;
}

static void
many_failed(struct many_key *key, esker_status status)
{
    key->state = MANY_FAILED;
    key->status = status;
}

/* ---- In memory --------------------------------------------------------------- */

static void
many_prefetch_windows(const struct many *many, struct many_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        keys[i].hash = memtable_hash(keys[i].lookup.key, many->db->hash_seed);
        for (uint32_t window = 0; window < many->version->window_count; window++) {
            memtable_prefetch(many->version->windows[window]->table, keys[i].hash);
        }
    }
}

/* Inside a section. The filter lines of all the segments that a key may be in. */
static void
many_prefetch_filters(struct many_key *key)
{
    struct lookup at = key->lookup;
    struct segment *segment;
    while ((segment = read_segment_at(&at)) != NULL) {
        segment_prefetch(segment, at.filter_hash);
        read_next_segment(&at);
    }
}

/* Inside a section: as far as memory goes. What is found in a frame is pinned. */
static void
many_walk(struct many_key *key)
{
    struct lookup *lookup = &key->lookup;
    struct segment *segment;
    while ((segment = read_segment_at(lookup)) != NULL) {
        struct segment_hit *hit = &lookup->hit;
        switch (segment_get(segment, lookup->key, lookup->filter_hash, lookup->snapshot_lsn, hit)) {
        case SEGMENT_FOUND:
            frame_pin(hit->frame);
            lookup->frame = hit->frame;
            lookup->value = hit->value;
            key->op = hit->op;
            key->state = MANY_FOUND;
            return;
        case SEGMENT_NEEDS_IO:
            key->state = MANY_WAITING;
            return;
        default:
            many_next_segment(key);
        }
    }
    key->state = MANY_ABSENT;
}

static void
many_look_in_windows(const struct many *many, struct many_key *keys, size_t count)
{
    many_prefetch_windows(many, keys, count);
    for (size_t i = 0; i < count; i++) {
        if (read_windows(&keys[i].lookup, &keys[i].op)) {
            keys[i].state = MANY_FOUND;
        } else {
            keys[i].lookup.past_windows = true;
            keys[i].lookup.filter_hash = segment_filter_hash(keys[i].lookup.key);
        }
    }
}

/* Every key that is not settled, as far as memory goes. */
static void
many_look(const struct many *many, bool first)
{
    for (size_t from = 0; from < many->count; from += MANY_GROUP) {
        struct many_key *keys = many->keys + from;
        size_t count = MIN(many->count - from, (size_t)MANY_GROUP);
        if (first) {
            many_look_in_windows(many, keys, count);
        }
        epoch_enter(many->self);
        for (size_t i = 0; i < count && first; i++) {
            if (keys[i].state == MANY_OPEN) {
                many_prefetch_filters(&keys[i]);
            }
        }
        for (size_t i = 0; i < count; i++) {
            if (keys[i].state == MANY_OPEN) {
                many_walk(&keys[i]);
            }
        }
        epoch_exit(many->self);
    }
}

/* ---- From the disk ------------------------------------------------------------- */

static void
many_answered(struct many_key *key, enum segment_result result)
{
    struct lookup *lookup = &key->lookup;
    if (result == SEGMENT_FOUND) {
        lookup->frame = lookup->hit.frame;
        lookup->value = lookup->hit.value;
        key->op = lookup->hit.op;
        key->state = MANY_FOUND;
    } else if (result == SEGMENT_FAILED) {
        many_failed(key, lookup->hit.status);
    } else {
        many_next_segment(key);
        key->state = MANY_OPEN;
    }
}

/* The waiting key's block is here: found in it, or on to the next segment. */
static void
many_settle(struct many_key *key, const struct segment_fetch *fetch)
{
    struct lookup *lookup = &key->lookup;
    if (fetch->status != ESKER_OK) {
        many_failed(key, fetch->status);
        return;
    }
    enum segment_result result = segment_get_in_frame(
        fetch->segment, fetch->frame, lookup->key, lookup->filter_hash, lookup->snapshot_lsn, &lookup->hit);
    if (result != SEGMENT_NEEDS_IO) { /* else it waits for the next block of the same segment */
        many_answered(key, result);
    }
    if (result != SEGMENT_FOUND) {
        frame_unpin(fetch->frame);
    }
}

/* The index is not in memory, or the filter. Once they are, the key is looked up again; if they are
 * gone again by then, there is too little memory to wait for company. */
static void
many_warm(struct many_key *key, struct segment *segment)
{
    struct lookup *lookup = &key->lookup;
    if (key->warmed) {
        many_answered(key, segment_get_slow(segment, lookup->key, lookup->filter_hash, lookup->snapshot_lsn,
                                            lookup->fill_cache, &lookup->hit));
        return;
    }
    key->warmed = true;
    key->state = MANY_OPEN;
    if (!segment_is_loaded(segment)) {
        db_load_ahead(lookup->db);
    }
    esker_status status = segment_warm(segment);
    if (status != ESKER_OK) {
        many_failed(key, status);
        return;
    }
    segment_miss_filter_of(segment); /* for the keys that are behind it, too */
}

/* Blocks for up to MANY_FETCH of the waiting keys from *at on, which moves past them. */
static void
many_fetch(const struct many *many, size_t *at)
{
    struct segment_fetch fetches[MANY_FETCH];
    size_t count = 0;
    for (; *at < many->count && count < MANY_FETCH; (*at)++) {
        struct many_key *key = &many->keys[*at];
        if (key->state != MANY_WAITING) {
            continue;
        }
        struct segment *segment = read_segment_at(&key->lookup);
        if (key->lookup.hit.place.stage == SEGMENT_STAGE_NONE) {
            many_warm(key, segment);
            continue;
        }
        fetches[count++] =
            (struct segment_fetch){.segment = segment, .place = key->lookup.hit.place, .tag = (uint32_t)*at};
    }
    segment_fetch_many(fetches, count, &many->db->block_mem, many->keys[0].lookup.fill_cache);
    for (size_t i = 0; i < count; i++) {
        many_settle(&many->keys[fetches[i].tag], &fetches[i]);
    }
}

static bool
many_waits(const struct many *many)
{
    for (size_t i = 0; i < many->count; i++) {
        if (many->keys[i].state == MANY_WAITING) {
            return true;
        }
    }
    return false;
}

static void
many_find(const struct many *many)
{
    many_look(many, true);
    while (many_waits(many)) {
        for (size_t at = 0; at < many->count;) {
            many_fetch(many, &at);
        }
        many_look(many, false);
    }
}

/* ---- Values ------------------------------------------------------------------- */

static esker_status
many_value(struct many_key *key, esker_value *value_out)
{
    struct lookup *lookup = &key->lookup;
    switch (key->state) {
    case MANY_FOUND:
        if (read_is_put(lookup, key->op)) {
            version_ref(lookup->version); /* read_value_held gives one back */
            return read_value_held(lookup, value_out);
        }
        if (lookup->frame != NULL) {
            frame_unpin(lookup->frame);
        }
        return ESKER_NOT_FOUND;
    case MANY_FAILED:
        return key->status;
    default:
        return ESKER_NOT_FOUND;
    }
}

static esker_status
many_values(const struct many *many, esker_value values_out[], esker_status statuses_out[])
{
    esker_status first = ESKER_OK;
    for (size_t i = 0; i < many->count; i++) {
        struct many_key *key = &many->keys[i];
        esker_status status = many_value(key, &values_out[i]);
        read_count(many->db, many->self, status == ESKER_OK, key->lookup.from_memtable);
        statuses_out[i] = status;
        if (status < 0 && first == ESKER_OK) {
            first = status;
        }
    }
    return first;
}

/* The most keys of a slice. */
static size_t
many_slice_keys(const esker_db *db)
{
    uint64_t keys = db->options.memory_budget_bytes / MANY_PIN_SHARE / BLOCK_BYTES_WARM;
    return (size_t)MIN(MAX(keys, (uint64_t)MANY_FETCH), (uint64_t)MANY_SLICE);
}

static esker_status
many_get_slice(struct many *many, const struct lookup *base, const esker_slice keys[], size_t count,
               esker_value values_out[], esker_status statuses_out[])
{
    many->count = count;
    for (size_t i = 0; i < count; i++) {
        many->keys[i] = (struct many_key){.lookup = *base};
        many->keys[i].lookup.key = bytes_of_slice(keys[i]);
    }
    many_find(many);
    return many_values(many, values_out, statuses_out);
}

/* 0 would say that nobody has read the clock. */
static uint64_t
many_now_ms(esker_db *db)
{
    return MAX(db_now_ms(db), (uint64_t)1);
}

/* Inside a section: version, LSN and time. The clock is read before and after the LSN, until both
 * say the same millisecond; a snapshot's LSN is of no moment. */
static void
many_begin(struct lookup *base, const struct esker_snapshot *snapshot)
{
    uint64_t now_ms = many_now_ms(base->db);
    for (uint32_t tries = 0; tries < MANY_CLOCK_TRIES && base->now_ms != now_ms; tries++) {
        base->now_ms = now_ms;
        read_begin(base, snapshot);
        now_ms = snapshot == NULL ? many_now_ms(base->db) : now_ms;
    }
}

static esker_status
many_get(struct many *many, size_t n, const esker_slice keys[], const esker_read_options *options,
         esker_value values_out[], esker_status statuses_out[])
{
    size_t slice = MIN(n, many_slice_keys(many->db));
    many->keys = mem_alloc_array(&many->db->block_mem, slice, sizeof *many->keys);
    if (many->keys == NULL) {
        return FAIL_NO_MEMORY("many lookups");
    }
    struct lookup base = {.db = many->db, .fill_cache = options == NULL || options->fill_cache};
    epoch_enter(many->self);
    many_begin(&base, options != NULL ? options->snapshot : NULL);
    version_ref(base.version);
    epoch_exit(many->self);
    many->version = base.version;
    esker_status first = ESKER_OK;
    for (size_t from = 0; from < n; from += slice) {
        esker_status status = many_get_slice(many, &base, keys + from, MIN(n - from, slice),
                                             values_out + from, statuses_out + from);
        first = first == ESKER_OK ? status : first;
    }
    version_unref(many->version);
    mem_free(&many->db->block_mem, many->keys);
    return first;
}

esker_status
esker_multi_get(esker_db *db, size_t n, const esker_slice keys[], const esker_read_options *options,
                esker_value values_out[], esker_status statuses_out[])
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    esker_status status = ESKER_OK;
    if (n > 0 && (keys == NULL || values_out == NULL || statuses_out == NULL)) {
        status = FAIL(ESKER_INVALID, "an array is NULL");
    } else if (n > UINT32_MAX) {
        status = FAIL(ESKER_TOO_LARGE, "%zu keys at once", n);
    }
    for (size_t i = 0; i < n && status == ESKER_OK; i++) {
        const struct esker_snapshot *snapshot;
        bool fill;
        status = read_check(db, keys[i], options, &snapshot, &fill);
    }
    if (status == ESKER_OK && n > 0) {
        struct many many = {.db = db, .self = call.self};
        status = many_get(&many, n, keys, options, values_out, statuses_out);
    }
    db_call_exit(&call);
    return status;
}
