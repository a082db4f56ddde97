/* SPDX-License-Identifier: MIT */
#include "memtable/dead.h"

#include "base/assert.h"
#include "memtable/memtable_priv.h"

enum { DEAD_LOOKS = 64 }; /* of a writer at a span that changes meanwhile */

/* Keys of [lower, upper). */
struct dead_span {
    struct bytes lower, upper;
};

/* A copy of what writers read as well. */
struct dead_armed {
    struct dead_key lower, upper;
};

void
dead_init(struct dead_ranges *dead)
{
    mutex_init(&dead->mutex);
}

void
dead_fini(struct dead_ranges *dead)
{
    mutex_fini(&dead->mutex);
}

/* ---- Spans ------------------------------------------------------------------- */

static bool
dead_holds(struct dead_span span, struct bytes key)
{
    return bytes_compare(span.lower, key) <= 0 && bytes_compare(key, span.upper) < 0;
}

static struct bytes
dead_lesser(struct bytes a, struct bytes b)
{
    return bytes_compare(a, b) <= 0 ? a : b;
}

static struct bytes
dead_greater(struct bytes a, struct bytes b)
{
    return bytes_compare(a, b) >= 0 ? a : b;
}

/* The hull of two spans that touch. */
static struct dead_span
dead_union(struct dead_span a, struct dead_span b)
{
    return (struct dead_span){dead_lesser(a.lower, b.lower), dead_greater(a.upper, b.upper)};
}

static struct dead_span
dead_common(struct dead_span a, struct dead_span b)
{
    return (struct dead_span){dead_greater(a.lower, b.lower), dead_lesser(a.upper, b.upper)};
}

static bool
dead_touch(struct dead_span a, struct dead_span b)
{
    return bytes_compare(a.lower, b.upper) <= 0 && bytes_compare(b.lower, a.upper) <= 0;
}

static bool
dead_same(struct dead_span a, struct dead_span b)
{
    return bytes_equal(a.lower, b.lower) && bytes_equal(a.upper, b.upper);
}

static bool
dead_span_fits(struct dead_span span)
{
    return span.lower.len <= DEAD_KEY_BYTES_MAX && span.upper.len <= DEAD_KEY_BYTES_MAX;
}

static void
dead_key_set(struct dead_key *key, struct bytes bytes)
{
    struct dead_key copy = {.len = (uint32_t)bytes.len}; /* bytes may lie in the key */
    if (bytes.len > 0) {
        memcpy(copy.words, bytes.ptr, bytes.len);
    }
    *key = copy;
}

static struct bytes
dead_key_bytes(const struct dead_key *key)
{
    return bytes_make((const uint8_t *)key->words, key->len);
}

static struct dead_span
dead_proven(const struct dead_slot *slot)
{
    return (struct dead_span){dead_key_bytes(&slot->proven_lower), dead_key_bytes(&slot->proven_upper)};
}

/* ---- What writers read ---------------------------------------------------------- */

static void
dead_shared_store(struct dead_shared_key *shared, struct bytes key)
{
    struct dead_key copy;
    dead_key_set(&copy, key);
    store_release(&shared->len, copy.len); /* pairs: DEAD_RANGE -- after the odd number */
    for (size_t i = 0; i * sizeof(uint64_t) < copy.len; i++) {
        store_release(&shared->words[i], copy.words[i]); /* pairs: DEAD_RANGE -- the same */
    }
}

static void
dead_shared_load(const struct dead_shared_key *shared, struct dead_key *out)
{
    out->len = MIN(load_acquire(&shared->len), (uint32_t)DEAD_KEY_BYTES_MAX); /* pairs: DEAD_RANGE */
    for (size_t i = 0; i * sizeof(uint64_t) < out->len; i++) {
        out->words[i] = load_acquire(&shared->words[i]); /* pairs: DEAD_RANGE */
    }
}

static struct dead_span
dead_armed_load(const struct dead_slot *slot, struct dead_armed *out)
{
    dead_shared_load(&slot->armed_lower, &out->lower);
    dead_shared_load(&slot->armed_upper, &out->upper);
    return (struct dead_span){dead_key_bytes(&out->lower), dead_key_bytes(&out->upper)};
}

static void
dead_armed_store(struct dead_slot *slot, struct dead_span armed)
{
    uint32_t seq = load_relaxed(&slot->seq); /* relaxed: written under the mutex, which is held */
    store_relaxed(&slot->seq, seq + 1);      /* relaxed: what is stored next carries it along */
    dead_shared_store(&slot->armed_lower, armed.lower);
    dead_shared_store(&slot->armed_upper, armed.upper);
    store_release(&slot->seq, seq + 2); /* pairs: DEAD_RANGE */
}

/* Is the key in the armed span? *changing: no answer, look again. */
static bool
dead_is_armed_at(const struct dead_slot *slot, struct bytes key, bool *changing)
{
    uint32_t seq = load_acquire(&slot->seq); /* pairs: DEAD_RANGE */
    if (seq == 0) {
        return false;
    }
    struct dead_armed copy;
    struct dead_span armed = dead_armed_load(slot, &copy);
    *changing = seq % 2 != 0 || load_relaxed(&slot->seq) != seq; /* relaxed: after the acquires above */
    return dead_holds(armed, key);
}

static bool
dead_is_killed(const struct dead_slot *slot)
{
    return load_relaxed(&slot->killed); /* relaxed: see there */
}

/* In an epoch section, so without waiting: a span that keeps changing counts as hit. That is never
 * wrong, since a kill too many only costs later readers two walks. */
void
dead_kill(struct dead_ranges *dead, struct bytes key)
{
    for (size_t i = 0; i < DEAD_SLOTS; i++) {
        struct dead_slot *slot = &dead->slots[i];
        bool changing = false;
        bool hit = dead_is_armed_at(slot, key, &changing);
        for (int look = 1; UNLIKELY(changing) && look < DEAD_LOOKS; look++) {
            cpu_relax();
            changing = false;
            hit = dead_is_armed_at(slot, key, &changing);
        }
        if ((hit || changing) && !dead_is_killed(slot)) {
            store_relaxed(&slot->killed, true); /* relaxed: see there */
        }
    }
}

/* ---- Looking ----------------------------------------------------------------- */

bool
memtable_dead_find(struct memtable *table, struct bytes key, uint64_t lsn, bool backward, struct buf *to)
{
    struct dead_ranges *dead = &table->dead;
    bool found = false;
    if (!load_relaxed(&dead->any)) { /* relaxed: missing one costs a walk */
        return false;
    }
    mutex_lock(&dead->mutex);
    for (size_t i = 0; i < DEAD_SLOTS && !found; i++) {
        const struct dead_slot *slot = &dead->slots[i];
        /* relaxed: written under the mutex */
        if (load_relaxed(&slot->seq) != 0 && lsn >= slot->since && !dead_is_killed(slot) &&
            dead_holds(dead_proven(slot), key)) {
            struct dead_span proven = dead_proven(slot);
            found = buf_assign(to, backward ? proven.lower : proven.upper) == ESKER_OK;
        }
    }
    mutex_unlock(&dead->mutex);
    return found;
}

/* ---- Arming ------------------------------------------------------------------- */

/* The slot of a range that the walk touches; NULL: none. */
static struct dead_slot *
dead_slot_for(struct dead_ranges *dead, struct dead_span walk)
{
    for (size_t i = 0; i < DEAD_SLOTS; i++) {
        struct dead_slot *slot = &dead->slots[i];
        if (load_relaxed(&slot->seq) == 0 || dead_is_killed(slot)) { /* relaxed: written under the mutex */
            continue;
        }
        struct dead_armed copy;
        if (dead_touch(walk, slot->since == UINT64_MAX ? dead_armed_load(slot, &copy) : dead_proven(slot))) {
            return slot;
        }
    }
    return NULL;
}

/* An empty slot, one whose range is no good any more, or the one that came first. */
static struct dead_slot *
dead_slot_free(struct dead_ranges *dead)
{
    for (size_t i = 0; i < DEAD_SLOTS; i++) {
        struct dead_slot *slot = &dead->slots[i];
        if (load_relaxed(&slot->seq) == 0 || dead_is_killed(slot)) { /* relaxed: written under the mutex */
            return slot;
        }
    }
    return &dead->slots[dead->next_slot++ % DEAD_SLOTS];
}

static void
dead_publish(struct dead_ranges *dead, struct dead_slot *slot, struct dead_span armed, memtable_tail_fn *tail,
             void *ctx)
{
    dead_armed_store(slot, armed);
    store_relaxed(&dead->any, true); /* relaxed: ordered by the tail, as the slot is */
    slot->armed_lsn = tail(ctx);     /* DEAD_TAIL: who reserves from here on finds the range */
}

/* A walk by a reader at lsn has touched the range of the slot. */
static void
dead_extend(struct dead_ranges *dead, struct dead_slot *slot, struct dead_span walk, uint64_t lsn,
            memtable_tail_fn *tail, void *ctx)
{
    if (lsn < slot->armed_lsn) {
        return; /* nothing new is proven, and old readers should not arm again and again */
    }
    struct dead_armed copy;
    struct dead_span was_armed = dead_armed_load(slot, &copy);
    struct dead_span proven = dead_common(walk, was_armed);
    if (bytes_compare(proven.lower, proven.upper) < 0) {
        if (slot->since != UINT64_MAX) {
            proven = dead_union(dead_proven(slot), proven);
        }
        struct dead_key lower;
        dead_key_set(&lower, proven.lower);
        dead_key_set(&slot->proven_upper, proven.upper);
        slot->proven_lower = lower;
        slot->since = lsn;
        slot->old_life = 0; /* two readers have proven it again */
    }
    struct dead_span armed = dead_union(was_armed, walk);
    if (!dead_same(armed, was_armed)) {
        dead_publish(dead, slot, armed, tail, ctx);
    }
}

void
memtable_dead_note(struct memtable *table, struct bytes from, struct bytes to, uint64_t lsn,
                   memtable_tail_fn *tail, void *ctx)
{
    struct dead_ranges *dead = &table->dead;
    struct dead_span walk = {from, to};
    ASSERT(lsn >= table->base_lsn);
    if (bytes_compare(from, to) >= 0 || !dead_span_fits(walk)) {
        return; /* rows out of order, nothing in between, or too much to remember */
    }
    mutex_lock(&dead->mutex);
    struct dead_slot *slot = dead_slot_for(dead, walk);
    if (slot != NULL) {
        dead_extend(dead, slot, walk, lsn, tail, ctx);
    } else {
        slot = dead_slot_free(dead);
        slot->since = UINT64_MAX;
        slot->life++;
        slot->old_life = 0;
        store_relaxed(&slot->killed, false); /* relaxed: a late killer of the range before is no harm */
        dead_publish(dead, slot, walk, tail, ctx);
    }
    mutex_unlock(&dead->mutex);
}

/* ---- From one memtable to the next ------------------------------------------------- */

void
memtable_dead_inherit(struct memtable *table, struct memtable *older)
{
    struct dead_ranges *dead = &older->dead;
    if (!load_relaxed(&dead->any)) { /* relaxed: missing one costs a walk */
        return;
    }
    mutex_lock(&dead->mutex);
    for (size_t i = 0; i < DEAD_SLOTS; i++) {
        const struct dead_slot *from = &dead->slots[i];
        struct dead_slot *slot = &table->dead.slots[i];
        if (from->since == UINT64_MAX || from->life == 0 || dead_is_killed(from)) {
            continue;
        }
        slot->proven_lower = from->proven_lower;
        slot->proven_upper = from->proven_upper;
        slot->since = UINT64_MAX;
        slot->armed_lsn = table->base_lsn;
        slot->life = 1;
        slot->old_life = from->life;
        dead_armed_store(slot, dead_proven(slot));
        store_relaxed(&table->dead.any, true); /* relaxed: nobody has the table yet */
    }
    mutex_unlock(&dead->mutex);
}

void
memtable_dead_settle(struct memtable *table, struct memtable *older)
{
    struct dead_ranges *dead = &table->dead;
    if (!load_relaxed(&dead->any)) { /* relaxed: what was inherited was there before the table was */
        return;
    }
    mutex_lock(&older->dead.mutex);
    mutex_lock(&dead->mutex);
    for (size_t i = 0; i < DEAD_SLOTS; i++) {
        const struct dead_slot *from = &older->dead.slots[i];
        struct dead_slot *slot = &dead->slots[i];
        if (slot->old_life != 0) {
            bool lived = from->life == slot->old_life && !dead_is_killed(from);
            slot->since = lived ? table->base_lsn : UINT64_MAX;
            slot->old_life = 0;
        }
    }
    mutex_unlock(&dead->mutex);
    mutex_unlock(&older->dead.mutex);
}
