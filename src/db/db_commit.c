/* SPDX-License-Identifier: MIT */
/*
 * From a batch to a visible commit. One atomic add on the active window's tail
 * gives log space, order and version number together; frames are then copied
 * and indexed in parallel, and become visible in order (db_visible.c).
 *
 * Invariants
 *  I1 Nothing can fail between the reservation and the applied bit: space in
 *     the log file and in the index came with the reservation.
 *  I2 No wait of any kind inside an epoch section. A conditional batch, which
 *     must wait for its predecessors, holds a version reference instead.
 *  I3 `visible` moves over a frame only when its bit is set, so readers never
 *     see a hole; a writer that is preempted in between delays the visibility
 *     of later frames and nothing else.
 *
 * Conditional batches (docs/adr/0003): the frame is reserved first; when every
 * earlier frame is visible and this one is not, the requirements are checked
 * against exactly the state that the batch would follow, and the reserved
 * frame becomes the batch or a PAD. Plain writers pay nothing for it.
 */
#include "db/db.h"

enum { COMMIT_LARGE_WINDOW = 1 << 20, COMMIT_CLAIM_LSNS = (32 << 10) / LSN_BYTES, COMMIT_IN_PLACE_RUN = 8 };

struct reservation {
    struct window *window;
    struct version *version; /* the one the window was found in */
    struct memtable_way way; /* of a single entry, in that window */
    uint64_t offset;
    uint64_t frame_bytes;
};

void
db_write_frame(esker_db *db, struct window *window, uint64_t offset, uint64_t bytes, enum frame_type type,
               uint16_t back)
{
    uint8_t *start = window->data + offset;
    window_note_frame(window, offset, offset + bytes);
    frame_seal(start, bytes, type, back, window->file_seed, window_lsn(window, offset));
    if (window->map != NULL) {
        size_t copied = type == FRAME_PAD ? FRAME_HEADER_BYTES : bytes;
        memcpy(window->map + offset, start, copied);
        if (type != FRAME_BATCH) {                       /* those are counted by who commits them */
            add_relaxed(&db->log_bytes_written, copied); /* relaxed: statistic */
        }
    }
}

/* How full the window is when the next one is prepared. That takes two syncs,
 * which wait for whatever else the disk is writing: large windows, which are
 * only had while much is written, leave it the time of nearly a whole one. */
static uint64_t
commit_prepare_at(const struct window *window)
{
    return window->cap_bytes / (window->cap_bytes >= COMMIT_LARGE_WINDOW ? 16 : 2);
}

/* A frame took [offset, end): what it passed is done ahead of those that follow. */
static void
commit_look_ahead(esker_db *db, uint64_t offset, uint64_t end, uint64_t prepare_at)
{
    if (UNLIKELY(((offset ^ end) & ~((uint64_t)DB_POPULATE_STEP - 1)) != 0) && db->populate) {
        job_kick(&db->populate_job);
    }
    if (UNLIKELY(offset < prepare_at && end >= prepare_at)) {
        job_kick(&db->prepare_job);
    }
}

/* Fills [offset, cap) of a window that is full. Inside a section or with the window referenced. */
static void
commit_write_pad(esker_db *db, struct window *window, uint64_t offset)
{
    if (offset < window->cap_bytes) {
        db_write_frame(db, window, offset, window->cap_bytes - offset, FRAME_PAD, FRAME_BACK_NO_CLAIM);
        window_set_applied(window, offset);
    }
}

/* In tail mode what this thread saw visible last will do, if that is not long ago. The
 * word itself is just being written by other writers. */
static uint16_t
commit_back_claim(esker_db *db, const struct thread_state *self, uint64_t lsn)
{
    /* relaxed: a number for the log, which was true when it was stored, and stays true */
    uint64_t seen = db->tail_mode ? load_relaxed(&db_stripe(db, self)->visible_seen) : 0;
    uint64_t logged = seen != 0 && lsn >= seen && lsn - seen < COMMIT_CLAIM_LSNS ? seen : db_logged(db);
    uint64_t granules = lsn >= logged ? (lsn - logged) * LSN_BYTES / FRAME_GRANULE : 0;
    return granules < FRAME_BACK_NO_CLAIM ? (uint16_t)granules : (uint16_t)FRAME_BACK_NO_CLAIM;
}

/* Is the key new to the window? Mostly it is as with the last ones; puts over few keys need not go down
 * the tree. */
static bool
commit_may_be_new(esker_db *db, const struct thread_state *self)
{
    /* relaxed: a guess */
    return load_relaxed(&db_stripe(db, self)->puts_in_place) < COMMIT_IN_PLACE_RUN;
}

static void
commit_note_new(esker_db *db, const struct thread_state *self, bool is_new)
{
    _Atomic uint64_t *count = &db_stripe(db, self)->puts_in_place;
    uint64_t before = load_relaxed(count); /* relaxed: a guess */
    if (is_new ? before != 0 : before < COMMIT_IN_PLACE_RUN) {
        store_relaxed(count, is_new ? 0 : before + 1); /* relaxed: the same */
    }
}

/* As window_reserve, but without a look at the tail, which other writers are just writing, where this
 * thread has seen lately that the window is not full. Should it be by now, the thread rotates, sees
 * all of the window visible, and comes here with another; so useless adds are few. */
static enum window_room
commit_take(esker_db *db, const struct thread_state *self, struct window *window, const struct commit *commit,
            uint64_t frame_bytes, uint64_t *offset_out)
{
    uint64_t seen = load_relaxed(&db_stripe(db, self)->visible_seen); /* relaxed: a guess */
    if (LIKELY(seen >= window->base_lsn && seen < window->end_lsn)) {
        return window_take(window, commit->op_count, frame_bytes, offset_out);
    }
    return window_reserve(window, commit->op_count, frame_bytes, offset_out);
}

/* On OK the caller is inside an epoch section and owns [offset, offset + frame_bytes). */
static esker_status
commit_reserve(esker_db *db, struct thread_state *self, const struct commit *commit, struct reservation *out)
{
    for (;;) {
        TRY(db_poison_status(db));
        epoch_enter(self);
        /* pairs: CURRENT */
        struct version *version = load_acquire(&db->current);
        struct window *window = version->windows[0];
        prefetch_own(&window->tail);
        if (commit->single) {
            out->way = memtable_approach(window->table, commit->key, commit_may_be_new(db, self));
        }
        uint64_t offset = 0;
        bool barred = UNLIKELY(window->deletes_only) && !commit->deletes;
        enum window_room room =
            barred ? WINDOW_FULL : commit_take(db, self, window, commit, out->frame_bytes, &offset);
        if (LIKELY(room == WINDOW_TAKEN)) {
            window_prefetch(window, offset, out->frame_bytes);
            out->window = window;
            out->version = version;
            out->offset = offset;
            if (commit->any_delete && !load_relaxed(&window->deletes)) { /* relaxed: a hint */
                store_relaxed(&window->deletes, true);                   /* relaxed: a hint */
            }
            return ESKER_OK;
        }
        if (room == WINDOW_STRADDLE) {
            commit_write_pad(db, window, offset);
        }
        epoch_exit(self);
        db_ratchet(db, self);
        TRY(db_rotate(db, self, out->frame_bytes, commit->op_count,
                      commit->deletes ? ROTATE_FOR_DELETES : ROTATE_FOR_WRITE, commit->deadline_ns));
    }
}

/* Bytes into the frame, entries into the index. */
static void
commit_fill(esker_db *db, const struct thread_state *self, const struct commit *commit,
            const struct reservation *place)
{
    struct window *window = place->window;
    uint64_t body = place->offset + FRAME_HEADER_BYTES;
    /* Entries end at multiples of 8, frames at those of 16, and the memory may be an earlier window's. */
    le64_store(window->data + place->offset + place->frame_bytes - LSN_BYTES, 0);
    uint16_t back = commit_back_claim(db, self, window_lsn(window, place->offset));
    if (commit->single) {
        entry_encode(window->data + body, commit->op, commit->key, commit->value);
        db_write_frame(db, window, place->offset, place->frame_bytes, FRAME_BATCH, back);
        prefetch_own(&db->visible);
        commit_note_new(db, self, memtable_insert(window->table, body, &place->way, self->stripe));
    } else {
        memcpy(window->data + body, commit->body.ptr, commit->body.len);
        db_write_frame(db, window, place->offset, place->frame_bytes, FRAME_BATCH, back);
        memtable_insert_batch(window->table, body, place->frame_bytes - FRAME_HEADER_BYTES, self->stripe);
    }
}

/* OK, or CONFLICT: a required key has a version in [max(unchanged_since, since), limit). */
static esker_status
commit_check_requires(esker_db *db, struct version *version, const struct esker_batch *batch, uint64_t since,
                      uint64_t limit)
{
    const struct batch_require *requires = (const struct batch_require *)(const void *)batch->requires.ptr;
    size_t count = batch->requires.len / sizeof *requires;
    for (size_t i = 0; i < count; i++) {
        struct bytes key = bytes_make(batch->require_keys.ptr + requires[i].key_offset, requires[i].key_len);
        bool changed = false;
        uint64_t asked = requires[i].unchanged_since;
        TRY(db_changed_since(db, version, key, asked, MAX(asked, since), limit, &changed));
        if (changed) {
            return FAIL(ESKER_CONFLICT, "a required key has changed since LSN %llu",
                        (unsigned long long) requires[i].unchanged_since);
        }
    }
    return ESKER_OK;
}

/* Fails early, without taking space. *seen_out: what was looked at. */
static esker_status
commit_look_first(esker_db *db, struct thread_state *self, const struct commit *commit, uint64_t *seen_out)
{
    struct version *version = db_current_ref(db, self);
    /* pairs: VISIBLE */
    *seen_out = MIN(load_acquire(&db->visible), version->end_lsn);
    esker_status status = commit_check_requires(db, version, commit->batch, 0, *seen_out);
    version_unref(version);
    return status;
}

/* The reserved frame becomes the batch or a PAD. The window is referenced. */
static esker_status
commit_judge(esker_db *db, struct thread_state *self, const struct commit *commit,
             const struct reservation *place, uint64_t seen)
{
    uint64_t lsn = window_lsn(place->window, place->offset);
    db_wait_visible(db, self, lsn);
    struct version *now = db_current_ref(db, self);
    esker_status status = commit_check_requires(db, now, commit->batch, seen, lsn);
    version_unref(now);
    if (status == ESKER_OK) {
        commit_fill(db, self, commit, place);
    } else {
        db_write_frame(db, place->window, place->offset, place->frame_bytes, FRAME_PAD, FRAME_BACK_NO_CLAIM);
    }
    window_set_applied(place->window, place->offset);
    db_ratchet(db, self);
    return status;
}

static esker_status
commit_conditional(esker_db *db, struct thread_state *self, const struct commit *commit,
                   struct reservation *place, uint64_t *end_lsn_out)
{
    uint64_t seen = 0;
    TRY(commit_look_first(db, self, commit, &seen));
    TRY(commit_reserve(db, self, commit, place));
    struct version *version = place->version;
    version_ref(version);
    epoch_exit(self);
    commit_look_ahead(db, place->offset, place->offset + place->frame_bytes,
                      commit_prepare_at(place->window));
    esker_status status = commit_judge(db, self, commit, place, seen);
    if (status == ESKER_OK) {
        *end_lsn_out = window_lsn(place->window, place->offset) + place->frame_bytes / LSN_BYTES;
    }
    version_unref(version);
    return status;
}

/* A window of its own, all of it reserved for this frame; its place in the order is fixed with that. */
static esker_status
commit_oversize(esker_db *db, struct thread_state *self, const struct commit *commit,
                struct reservation *place, uint64_t *end_lsn_out)
{
    bool conditional = commit->batch != NULL && commit->batch->requires.len > 0;
    uint64_t seen = 0;
    TRY(db_poison_status(db));
    if (conditional) {
        TRY(commit_look_first(db, self, commit, &seen));
    }
    struct window *window = NULL; /* referenced */
    TRY(db_rotate_oversize(db, self, place->frame_bytes, commit->op_count, commit->deadline_ns, &window));
    place->window = window;
    place->offset = 0;
    if (commit->single) {
        place->way = memtable_approach(window->table, commit->key, true);
    }
    esker_status status = ESKER_OK;
    if (conditional) {
        status = commit_judge(db, self, commit, place, seen);
    } else {
        commit_fill(db, self, commit, place);
        window_set_applied(window, 0);
    }
    commit_write_pad(db, window, place->frame_bytes);
    db_ratchet(db, self); /* over the PAD, too: else nobody may flush the window, and writers wait for it */
    if (status == ESKER_OK) {
        *end_lsn_out = window_lsn(window, 0) + place->frame_bytes / LSN_BYTES;
    }
    window_unref(window);
    return status;
}

/* What leaders write they count themselves. */
static inline void
commit_count_log(esker_db *db, const struct thread_state *self, uint64_t frame_bytes)
{
    if (db->tail_mode) {
        counter_bump(&db_stripe(db, self)->log_bytes, frame_bytes); /* relaxed: statistic */
    }
}

esker_status
db_commit(esker_db *db, struct thread_state *self, const struct commit *commit, uint64_t *end_lsn_out)
{
    size_t body_bytes =
        commit->single ? entry_size_bytes(commit->key.len, commit->value.len) : commit->body.len;
    struct reservation place = {.frame_bytes = align_up(FRAME_HEADER_BYTES + body_bytes, FRAME_GRANULE)};
    bool oversize = place.frame_bytes > db->window_bytes_max / 4 ||
                    commit->op_count > window_op_capacity(db->window_bytes_max) / 4;
    bool conditional = commit->batch != NULL && commit->batch->requires.len > 0;
    uint64_t end_lsn = 0;
    TRY(db_pace(db, place.frame_bytes, commit->deadline_ns));
    if (oversize) {
        TRY(commit_oversize(db, self, commit, &place, &end_lsn));
    } else if (conditional) {
        TRY(commit_conditional(db, self, commit, &place, &end_lsn));
    } else {
        TRY(commit_reserve(db, self, commit, &place));
        commit_fill(db, self, commit, &place);
        end_lsn = window_lsn(place.window, place.offset) + place.frame_bytes / LSN_BYTES;
        uint64_t prepare_at = commit_prepare_at(place.window);
        db_make_visible(db, self, place.version, place.window, place.offset, place.frame_bytes);
        commit_look_ahead(db, place.offset, place.offset + place.frame_bytes, prepare_at);
        commit_count_log(db, self, place.frame_bytes);
        *end_lsn_out = end_lsn;
        return ESKER_OK;
    }
    commit_count_log(db, self, place.frame_bytes);
    db_wait_visible(db, self, end_lsn);
    *end_lsn_out = end_lsn;
    return ESKER_OK;
}

bool
db_append_begin(esker_db *db)
{
    mutex_lock(&db->mu);
    bool allowed = !db->sealing;
    db->appending += allowed ? 1 : 0;
    mutex_unlock(&db->mu);
    return allowed;
}

void
db_append_end(esker_db *db)
{
    mutex_lock(&db->mu);
    db->appending--;
    cond_broadcast(&db->changed);
    mutex_unlock(&db->mu);
}

bool
db_append_frame(esker_db *db, struct thread_state *self, enum frame_type type, const uint8_t *body,
                size_t body_bytes)
{
    uint64_t bytes = FRAME_HEADER_BYTES + body_bytes;
    ASSERT(bytes % FRAME_GRANULE == 0);
    epoch_enter(self);
    /* pairs: CURRENT */
    struct window *window = load_acquire(&db->current)->windows[0];
    uint64_t offset = 0;
    uint64_t prepare_at = commit_prepare_at(window);
    bool taken = window_reserve_if_fits(window, bytes, &offset);
    if (taken) {
        memcpy(window->data + offset + FRAME_HEADER_BYTES, body, body_bytes);
        db_write_frame(db, window, offset, bytes, type,
                       commit_back_claim(db, self, window_lsn(window, offset)));
        window_set_applied(window, offset);
    }
    epoch_exit(self);
    if (taken) {
        commit_look_ahead(db, offset, offset + bytes, prepare_at);
        db_ratchet(db, self);
    }
    return taken;
}
