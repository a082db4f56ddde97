/* SPDX-License-Identifier: MIT */
/*
 * Time to live. A put that expires carries the time at which it does, in front of its
 * value; what reads it compares that with the clock, and merges make it a delete.
 *
 * Time never goes back, for one database while it is open, by more than a step: else
 * what readers have found gone could come back, and what merges dropped could not. The
 * latest time is kept by steps, so that reading the clock writes nothing shared but
 * once a second.
 */
#include "db/db.h"

enum { EXPIRY_STEP_MS = 1000, EXPIRY_LOOK_MS = 3600000, NS_PER_MS = 1000000 };

uint64_t
db_now_ms(esker_db *db)
{
    uint64_t now = db->io->ops->wall_ns(db->io) / NS_PER_MS;
    uint64_t seen = load_relaxed(&db->time_seen_ms); /* relaxed: a number that only grows */
    while (UNLIKELY(now >= seen + EXPIRY_STEP_MS)) {
        if (cas_relaxed(&db->time_seen_ms, &seen, now)) { /* relaxed: the same */
            return now;
        }
    }
    return MAX(now, seen);
}

uint64_t
db_expiry_next_ns(esker_db *db, const struct version *version)
{
    uint64_t next_ms = UINT64_MAX;
    uint64_t now_ms = db->manual ? 0 : db_now_ms(db); /* without threads nothing waits for a time */
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX && !db->manual; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            const struct segment_meta *meta = segment_meta(run->segments[i]);
            bool whole =
                meta->expiring_count > 0 && meta->expiring_count + meta->tombstone_count == meta->row_count;
            if (whole && meta->expiry_last_ms > now_ms) {
                next_ms = MIN(next_ms, meta->expiry_last_ms);
            }
        }
    }
    if (next_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    return MAX(MIN(next_ms - now_ms, (uint64_t)EXPIRY_LOOK_MS) * NS_PER_MS, (uint64_t)DB_LOOK_NS);
}

bool
db_expiring_lives(esker_db *db, struct bytes *value, uint64_t *now_ms)
{
    if (*now_ms == 0) {
        *now_ms = MAX(db_now_ms(db), (uint64_t)1);
    }
    if (entry_expiry_ms(*value) <= *now_ms) {
        return false;
    }
    *value = entry_expiring_value(*value);
    return true;
}

/* life: as in a batch. The end of time is none. */
static uint64_t
expiry_of(uint64_t now_ms, uint64_t life)
{
    if (life >= BATCH_UNTIL) {
        return life == ESKER_TTL_NONE ? ESKER_TTL_NONE : life - BATCH_UNTIL;
    }
    return now_ms + life;
}

bool
db_expiry_applies(const struct commit *commit, uint32_t put_count)
{
    return put_count > 0 && (commit->ttl_ms != 0 || (commit->batch != NULL && commit->batch->ttl_count > 0));
}

static esker_status
expiry_append(struct buf *room, struct bytes key, uint64_t expiry_ms, struct bytes value)
{
    if (expiry_ms == ESKER_TTL_NONE) {
        uint64_t plain_size = entry_size_bytes(key.len, value.len);
        TRY(buf_reserve(room, plain_size));
        entry_encode(room->ptr + room->len, ENTRY_PUT, key, value);
        room->len += plain_size;
        return ESKER_OK;
    }
    if (value.len > VALUE_BYTES_MAX - EXPIRY_BYTES) {
        return FAIL(ESKER_TOO_LARGE, "the value has %zu bytes; the limit is %d where it expires", value.len,
                    VALUE_BYTES_MAX - EXPIRY_BYTES);
    }
    uint64_t size = entry_size_bytes(key.len, EXPIRY_BYTES + value.len);
    TRY(buf_reserve(room, size));
    entry_encode_expiring(room->ptr + room->len, key, expiry_ms, value);
    room->len += size;
    return ESKER_OK;
}

static esker_status
expiry_append_entry(const struct commit *commit, uint64_t now_ms, const struct entry *entry,
                    const uint8_t *at, struct buf *room)
{
    if (entry->op == ENTRY_PUT_EXPIRING) {
        return expiry_append(room, entry->key, expiry_of(now_ms, entry_expiry_ms(entry->value)),
                             entry_expiring_value(entry->value));
    }
    if (entry->op == ENTRY_PUT && commit->ttl_ms != 0) {
        return expiry_append(room, entry->key, expiry_of(now_ms, commit->ttl_ms), entry->value);
    }
    return buf_append(room, at, entry->size_bytes);
}

esker_status
db_expiry_resolve(esker_db *db, struct commit *commit, struct buf *room)
{
    uint64_t now_ms = db_now_ms(db);
    if (commit->single) {
        TRY(expiry_append(room, commit->key, expiry_of(now_ms, commit->ttl_ms), commit->value));
    } else {
        struct entry entry;
        uint64_t offset = 0;
        TRY(buf_reserve(room, commit->body.len));
        for (uint64_t from = 0; entry_decode(commit->body, &offset, &entry) == ESKER_OK; from = offset) {
            TRY(expiry_append_entry(commit, now_ms, &entry, commit->body.ptr + from, room));
        }
        ASSERT(offset == commit->body.len); /* encoded by batch_add */
    }
    commit->single = false;
    commit->body = buf_bytes(room);
    return ESKER_OK;
}
