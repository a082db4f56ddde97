/* SPDX-License-Identifier: MIT */
/*
 * Frames, the tables that point to them, and the clock that evicts them.
 * Invariants and roles: frame_table.h.
 *
 * Eviction is the clock of Corbató ("A Paging Experiment with the Multics
 * System", 1968): one ring, one bit per frame. A new frame stands behind the
 * hand with its bit clear.
 *
 * Admission is by the second miss, as in 2Q (Johnson and Shasha, "2Q: A Low
 * Overhead High Performance Buffer Management Replacement Algorithm", 1994). The
 * queue of what was missed once is not kept: its entries are notes in the slots,
 * each with the reading of a clock that counts the bytes turned away, and a
 * note older than a cache's worth of bytes is as good as none.
 *
 * The budget counts linked frames and charges. Frames that were unlinked but
 * are pinned, or wait for the reclaimer, are memory too and show in
 * used_bytes, but evicting more would not bring them back sooner.
 */
#include "segment/block_cache_internal.h"

#include "base/assert.h"
#include "base/hash.h"

enum {
    BLOCK_CACHE_WARM_SHARE = 8, /* of the capacity: what frames without a slot may push out */
    BLOCK_CACHE_STEPS = 256     /* of the hand per insertion, while the overshoot is small */
};

/* ---- The cache ---------------------------------------------------------- */

esker_status
block_cache_create(const struct mem *mem, uint64_t capacity_bytes, struct block_cache **out)
{
    struct block_cache *cache = mem_alloc_aligned(mem, CACHE_LINE_BYTES, sizeof *cache);
    if (cache == NULL) {
        return FAIL_NO_MEMORY("the block cache");
    }
    memset(cache, 0, sizeof *cache);
    cache->mem = mem;
    cache->capacity_bytes = capacity_bytes;
    cache->holders_max = UINT64_MAX;
    mutex_init(&cache->ring_mutex);
    for (size_t at = 0; at < COUNTOF(cache->load_mutexes); at++) {
        mutex_init(&cache->load_mutexes[at]);
    }
    *out = cache;
    return ESKER_OK;
}

void
block_cache_use_heap(struct block_cache *cache, const struct page_heap *heap)
{
    cache->heap = heap;
}

void
block_cache_set_owner(struct block_cache *cache, void *owner)
{
    cache->owner = owner;
}

void
block_cache_destroy(struct block_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    ASSERT(cache->hand == NULL && cache->holder_hand == NULL && cache->warm_bytes == 0);
    /* relaxed: the owner is the last user; epoch_drain ordered the frees before. */
    ASSERT(load_relaxed(&cache->frame_bytes) == 0);
    for (size_t role = 0; role < MEMORY_ROLES; role++) {
        ASSERT(load_relaxed(&cache->charged_bytes[role]) == 0); /* relaxed: the same */
    }
    for (size_t at = 0; at < COUNTOF(cache->load_mutexes); at++) {
        mutex_fini(&cache->load_mutexes[at]);
    }
    mutex_fini(&cache->ring_mutex);
    mem_free(cache->mem, cache);
}

static struct block_cache_counters *
block_cache_stripe(struct block_cache *cache)
{
    const struct thread_state *self = thread_state_self;
    return &cache->counters[self == NULL ? 0 : self->stripe % BLOCK_CACHE_STRIPES];
}

void
block_cache_count_hit(struct block_cache *cache)
{
    /* relaxed: a statistic. */
    counter_bump(&block_cache_stripe(cache)->hits, 1);
}

void
block_cache_count_miss(struct block_cache *cache)
{
    /* relaxed: a statistic. */
    counter_bump(&block_cache_stripe(cache)->misses, 1);
}

void
block_cache_count_damaged(struct block_cache *cache)
{
    add_relaxed(&cache->filter_pages_damaged, 1); /* relaxed: a statistic. */
}

void
block_cache_get_stats(const struct block_cache *cache, struct block_cache_stats *out)
{
    struct block_cache_stats stats = {.capacity_bytes = cache->capacity_bytes};
    stats.frame_bytes = load_relaxed(&cache->frame_bytes);                   /* relaxed: statistic */
    stats.evictions = load_relaxed(&cache->evictions);                       /* relaxed: statistic */
    stats.holders = load_relaxed(&cache->holder_count);                      /* relaxed: statistic */
    stats.holder_evictions = load_relaxed(&cache->holder_evictions);         /* relaxed: statistic */
    stats.filter_pages_damaged = load_relaxed(&cache->filter_pages_damaged); /* relaxed: statistic */
    stats.used_bytes = stats.frame_bytes;
    for (size_t role = 0; role < MEMORY_ROLES; role++) {
        stats.charged_bytes[role] = load_relaxed(&cache->charged_bytes[role]); /* relaxed: statistic */
        stats.used_bytes += stats.charged_bytes[role];
    }
    if (cache->heap != NULL) {
        uint64_t named = stats.used_bytes - stats.charged_bytes[MEMORY_WINDOWS];
        uint64_t resident = page_heap_resident_bytes(cache->heap);
        stats.slack_bytes = resident - MIN(resident, named);
        stats.used_bytes += stats.slack_bytes;
    }
    for (size_t at = 0; at < BLOCK_CACHE_STRIPES; at++) {
        /* relaxed: statistics */
        stats.hits += load_relaxed(&cache->counters[at].hits);
        stats.misses += load_relaxed(&cache->counters[at].misses);
    }
    *out = stats;
}

uint64_t
block_cache_room(const struct block_cache *cache)
{
    struct block_cache_stats stats;
    block_cache_get_stats(cache, &stats);
    return stats.capacity_bytes - MIN(stats.used_bytes, stats.capacity_bytes);
}

/* ---- Frames ------------------------------------------------------------- */

struct frame_ref *
frame_create(struct block_cache *cache, size_t data_bytes)
{
    size_t size = (size_t)align_up(sizeof(struct frame_ref), CACHE_LINE_BYTES);
    if (__builtin_add_overflow(size, data_bytes, &size)) {
        return NULL;
    }
    struct frame_ref *frame = mem_alloc_aligned(cache->mem, CACHE_LINE_BYTES, size);
    if (frame == NULL) {
        return NULL;
    }
    memset(frame, 0, sizeof *frame);
    frame->cache = cache;
    size = cache->heap != NULL ? page_heap_room(size) : size;
    frame->size_bytes = size;
    atomic_init(&frame->refs, 1);
    add_relaxed(&cache->frame_bytes, size); /* relaxed: a statistic. */
    return frame;
}

static void
frame_free(struct frame_ref *frame)
{
    struct block_cache *cache = frame->cache;
    const struct mem *mem = cache->mem;
    uint64_t size = frame->size_bytes;
    mem_free(mem, frame);
    add_relaxed(&cache->frame_bytes, -size); /* relaxed: a statistic; the last touch of the cache. */
}

void
frame_pin(struct frame_ref *frame)
{
    /* relaxed: the caller's section or pin keeps the count above 0 meanwhile. */
    uint32_t before = add_relaxed(&frame->refs, 1);
    ASSERT(before != 0 && before != UINT32_MAX);
}

void
frame_unpin(struct frame_ref *frame)
{
    /* pairs: FRAME_REFS — every use of the frame comes before its free. */
    uint32_t before = sub_acq_rel(&frame->refs, 1);
    ASSERT(before != 0);
    if (before == 1) {
        frame_free(frame);
    }
}

void *
frame_owner(const struct frame_ref *frame)
{
    return frame->cache->owner;
}

static void
frame_retired(struct epoch_node *node)
{
    struct frame_ref *frame = CONTAINER_OF(node, struct frame_ref, node);
    add_relaxed(&frame->cache->retired_bytes, -frame->size_bytes); /* relaxed: a hint */
    frame_unpin(frame);
}

/* ---- The ring ----------------------------------------------------------- */

/* What frames may take. */
static uint64_t
block_cache_budget(const struct block_cache *cache)
{
    return block_cache_left(cache, true);
}

/* What a slot holds when its block is missed or evicted: checksum half, clock, 1.
 * The clock counts KiB and wraps after 2 TiB; a note that old may look new, and
 * a block is then admitted one miss early. */
static uint32_t
block_cache_clock(const struct block_cache *cache)
{
    /* relaxed: a clock that may be a little off. */
    return (uint32_t)(load_relaxed(&cache->turned_away_bytes) >> 10) & (UINT32_MAX >> 1);
}

static uintptr_t
block_cache_note(const struct block_cache *cache, uint32_t checked)
{
    _Static_assert(sizeof(uintptr_t) == 8, "a note has 64 bits");
    return (uintptr_t)checked << 32 | (uintptr_t)block_cache_clock(cache) << 1 | 1;
}

static uint32_t
block_cache_note_checked(uintptr_t held)
{
    return (held & 1) != 0 ? (uint32_t)(held >> 32) : 0;
}

/* How long ago, in bytes turned away. */
static uint64_t
block_cache_note_age(const struct block_cache *cache, uintptr_t held)
{
    uint32_t then = (uint32_t)held >> 1;
    return (uint64_t)((block_cache_clock(cache) - then) & (UINT32_MAX >> 1)) << 10;
}

static void
block_cache_link_locked(struct block_cache *cache, struct frame_ref *frame, _Atomic uintptr_t *slot)
{
    frame->slot = slot;
    struct frame_ref *hand = cache->hand;
    if (hand == NULL) {
        frame->ring_next = frame;
        frame->ring_prev = frame;
        cache->hand = frame;
    } else {
        frame->ring_next = hand;
        frame->ring_prev = hand->ring_prev;
        hand->ring_prev->ring_next = frame;
        hand->ring_prev = frame;
    }
    cache->ring_count++;
    block_cache_count_locked(&cache->linked_bytes, frame->size_bytes);
}

static void
block_cache_unlink_locked(struct block_cache *cache, struct frame_ref *frame)
{
    /* pairs: FRAME_SLOT — seq_cst, so that a section that begins later cannot load it any more. */
    uintptr_t held = exchange_seq(frame->slot, block_cache_note(cache, frame->checked));
    ASSERT(held == (uintptr_t)frame);
    frame->slot = NULL;
    if (frame->ring_next == frame) {
        cache->hand = NULL;
    } else {
        frame->ring_next->ring_prev = frame->ring_prev;
        frame->ring_prev->ring_next = frame->ring_next;
        if (cache->hand == frame) {
            cache->hand = frame->ring_next;
        }
    }
    frame->ring_next = NULL;
    frame->ring_prev = NULL;
    ASSERT(cache->ring_count > 0);
    cache->ring_count--;
    block_cache_count_locked(&cache->linked_bytes, -frame->size_bytes);
}

/* Unlinks frames until the budget holds. A frame is looked at twice at most:
 * once to clear its bit, once to take it; pinned ones would give nothing back. */
static void
block_cache_evict_locked(struct block_cache *cache)
{
    uint64_t budget = block_cache_budget(cache);
    uint64_t linked = load_relaxed(&cache->linked_bytes); /* relaxed: under the mutex */
    if (linked <= budget) {
        return;
    }
    uint64_t steps = 2 * cache->ring_count;
    if (linked - budget <= budget / 8) {
        steps = MIN(steps, (uint64_t)BLOCK_CACHE_STEPS);
    }
    /* relaxed: under the mutex */
    for (; steps > 0 && load_relaxed(&cache->linked_bytes) > budget && cache->hand != NULL; steps--) {
        struct frame_ref *frame = cache->hand;
        cache->hand = frame->ring_next;
        /* relaxed: hints; a reader that pins it now keeps its reference, only the table's goes. */
        if (load_relaxed(&frame->recent) != 0) {
            store_relaxed(&frame->recent, 0);
            continue;
        }
        if (load_relaxed(&frame->refs) > 1) {
            continue;
        }
        block_cache_unlink_locked(cache, frame);
        add_relaxed(&cache->retired_bytes, frame->size_bytes); /* relaxed: a hint */
        epoch_retire(&frame->node, frame_retired);
        add_relaxed(&cache->evictions, 1); /* relaxed: a statistic. */
    }
}

bool
block_cache_warm_admits(struct block_cache *cache, size_t data_bytes, bool used, uint64_t *counted_out)
{
    uint64_t bytes = align_up(sizeof(struct frame_ref), CACHE_LINE_BYTES) + data_bytes;
    mutex_lock(&cache->ring_mutex);
    uint64_t budget = block_cache_budget(cache);
    uint64_t linked = load_relaxed(&cache->linked_bytes); /* relaxed: under the mutex */
    bool fits = linked <= budget && bytes <= budget - linked;
    bool may_push = used && cache->warm_bytes + bytes <= cache->capacity_bytes / BLOCK_CACHE_WARM_SHARE;
    if (fits || may_push) {
        cache->warm_bytes += bytes;
        block_cache_count_locked(&cache->linked_bytes, bytes);
        block_cache_evict_locked(cache);
    }
    mutex_unlock(&cache->ring_mutex);
    *counted_out = bytes;
    return fits || may_push;
}

void
block_cache_warm_release(struct block_cache *cache, uint64_t counted)
{
    mutex_lock(&cache->ring_mutex);
    ASSERT(cache->warm_bytes >= counted);
    cache->warm_bytes -= counted;
    block_cache_count_locked(&cache->linked_bytes, -counted);
    mutex_unlock(&cache->ring_mutex);
}

void
block_cache_charge(struct block_cache *cache, enum memory_role role, uint64_t bytes)
{
    /* relaxed: a sum; the frames that have to go for it go now, or with the next that is linked. */
    add_relaxed(&cache->charged_bytes[role], bytes);
    if (load_relaxed(&cache->linked_bytes) > block_cache_budget(cache)) { /* relaxed: a hint */
        mutex_lock(&cache->ring_mutex);
        block_cache_evict_locked(cache);
        mutex_unlock(&cache->ring_mutex);
    }
}

void
block_cache_discharge(struct block_cache *cache, enum memory_role role, uint64_t bytes)
{
    uint64_t before = add_relaxed(&cache->charged_bytes[role], -bytes); /* relaxed: a sum */
    ASSERT(before >= bytes);
}

uint64_t
block_cache_buffer_bytes(const struct block_cache *cache, enum memory_role role, uint64_t wanted)
{
    enum { BUFFER_SHARE = 64, BUFFER_ROLE_SHARE = 8, BUFFER_LEAST = 32 << 10 };

    /* relaxed: a sum that may be a little off */
    uint64_t taken = load_relaxed(&cache->charged_bytes[role]);
    uint64_t share = cache->capacity_bytes / BUFFER_ROLE_SHARE;
    uint64_t most = MIN(cache->capacity_bytes / BUFFER_SHARE, (share - MIN(share, taken)) / 4);
    return MIN(wanted, MAX(most, (uint64_t)BUFFER_LEAST));
}

/* ---- Tables ------------------------------------------------------------- */

esker_status
frame_table_init(struct frame_table *table, struct block_cache *cache, uint32_t block_count)
{
    uint32_t chunk_count = block_count / FRAME_CHUNK_SLOTS + (block_count % FRAME_CHUNK_SLOTS != 0);
    _Atomic(struct frame_chunk *) *chunks = mem_zalloc_array(cache->mem, chunk_count, sizeof *chunks);
    if (chunks == NULL) {
        return FAIL_NO_MEMORY("a frame table");
    }
    *table = (struct frame_table){
        .cache = cache, .block_count = block_count, .chunk_count = chunk_count, .chunks = chunks};
    block_cache_charge(cache, MEMORY_INDEXES, chunk_count * sizeof *chunks);
    return ESKER_OK;
}

static uint32_t
frame_table_chunk_slots(const struct frame_table *table, uint32_t chunk_no)
{
    return MIN(table->block_count - chunk_no * FRAME_CHUNK_SLOTS, (uint32_t)FRAME_CHUNK_SLOTS);
}

static void
frame_table_drop_chunk(struct frame_table *table, struct frame_chunk *chunk, uint32_t slots)
{
    struct block_cache *cache = table->cache;
    struct frame_ref *dropped = NULL;
    mutex_lock(&cache->ring_mutex);
    for (uint32_t at = 0; at < slots; at++) {
        /* relaxed: frames come and go under the mutex, which is held. */
        uintptr_t held = load_relaxed(&chunk->slots[at]);
        if (held != 0 && (held & 1) == 0) {
            struct frame_ref *frame = (struct frame_ref *)held;
            block_cache_unlink_locked(cache, frame);
            frame->ring_next = dropped;
            dropped = frame;
        }
    }
    mutex_unlock(&cache->ring_mutex);
    while (dropped != NULL) {
        struct frame_ref *frame = dropped;
        dropped = frame->ring_next;
        frame_unpin(frame);
    }
    block_cache_discharge(cache, MEMORY_INDEXES, chunk->size_bytes);
    mem_free(cache->mem, chunk);
}

void
frame_table_fini(struct frame_table *table)
{
    if (table->cache == NULL) {
        return;
    }
    for (uint32_t at = 0; at < table->chunk_count; at++) {
        /* relaxed: nobody else is inside the table any more. */
        struct frame_chunk *chunk = load_relaxed(&table->chunks[at]);
        if (chunk != NULL) {
            frame_table_drop_chunk(table, chunk, frame_table_chunk_slots(table, at));
        }
    }
    block_cache_discharge(table->cache, MEMORY_INDEXES, table->chunk_count * sizeof *table->chunks);
    mem_free(table->cache->mem, table->chunks);
    *table = (struct frame_table){0};
}

/* The slot's chunk, made if missing; NULL: no memory. */
static struct frame_chunk *
frame_table_chunk(struct frame_table *table, uint32_t chunk_no)
{
    /* pairs: FRAME_CHUNK */
    struct frame_chunk *chunk = load_acquire(&table->chunks[chunk_no]);
    if (chunk != NULL) {
        return chunk;
    }
    struct block_cache *cache = table->cache;
    size_t size = sizeof *chunk + frame_table_chunk_slots(table, chunk_no) * sizeof chunk->slots[0];
    struct frame_chunk *made = mem_zalloc(cache->mem, size);
    if (made == NULL) {
        return NULL;
    }
    made->size_bytes = size;
    /* pairs: FRAME_CHUNK — the zeroed slots are published with the chunk. */
    if (!cas_acq_rel(&table->chunks[chunk_no], &chunk, made)) {
        mem_free(cache->mem, made);
        return chunk;
    }
    block_cache_charge(cache, MEMORY_INDEXES, size);
    return made;
}

bool
frame_table_is_used(const struct frame_table *table, uint32_t block_no)
{
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return false;
    }
    epoch_enter(self);
    const struct frame_ref *frame = frame_table_get(table, block_no);
    bool used = frame != NULL && load_relaxed(&frame->recent) != 0; /* relaxed: a hint */
    epoch_exit(self);
    return used;
}

struct frame_ref *
frame_table_pin(const struct frame_table *table, uint32_t block_no)
{
    struct thread_state *self = thread_state_get();
    if (self == NULL) {
        return NULL; /* no memory for a section; the caller reads the disk instead */
    }
    epoch_enter(self);
    struct frame_ref *frame = frame_table_get(table, block_no);
    if (frame != NULL) {
        frame_pin(frame);
    }
    epoch_exit(self);
    return frame;
}

bool
frame_table_admits(struct frame_table *table, uint32_t block_no, uint64_t bytes, bool walk)
{
    ASSERT(block_no < table->block_count);
    struct block_cache *cache = table->cache;
    uint64_t budget = block_cache_budget(cache);
    /* relaxed: a hint; who is wrong by a frame evicts one. */
    uint64_t linked = load_relaxed(&cache->linked_bytes);
    if (linked <= budget && bytes <= budget - linked) {
        return true;
    }
    struct frame_chunk *chunk = walk ? NULL : frame_table_chunk(table, block_no / FRAME_CHUNK_SLOTS);
    if (chunk == NULL) {
        return false;
    }
    _Atomic uintptr_t *slot = &chunk->slots[block_no % FRAME_CHUNK_SLOTS];
    add_relaxed(&cache->turned_away_bytes, bytes); /* relaxed: the clock */
    cache_holders_step(cache);
    /* relaxed: a hint; a frame is only told from a note. */
    uintptr_t held = load_relaxed(slot);
    bool noted = (held & 1) != 0;
    if (noted && block_cache_note_age(cache, held) <= budget) {
        return true;
    }
    if (noted || held == 0) {
        /* Fails where a frame was linked meanwhile, and then there is nothing to note. pairs: FRAME_SLOT */
        (void)cas_seq(slot, &held, block_cache_note(cache, block_cache_note_checked(held)));
    }
    return false;
}

uint32_t
frame_table_checked(const struct frame_table *table, uint32_t block_no)
{
    /* pairs: FRAME_CHUNK */
    struct frame_chunk *chunk = load_acquire(&table->chunks[block_no / FRAME_CHUNK_SLOTS]);
    /* relaxed: a number that means nothing but itself. */
    return chunk == NULL
               ? 0
               : block_cache_note_checked(load_relaxed(&chunk->slots[block_no % FRAME_CHUNK_SLOTS]));
}

void
frame_table_set_checked(struct frame_table *table, uint32_t block_no, uint32_t checked)
{
    /* pairs: FRAME_CHUNK */
    struct frame_chunk *chunk = load_acquire(&table->chunks[block_no / FRAME_CHUNK_SLOTS]);
    if (chunk == NULL) {
        return;
    }
    _Atomic uintptr_t *slot = &chunk->slots[block_no % FRAME_CHUNK_SLOTS];
    uintptr_t held = load_relaxed(slot); /* relaxed: the CAS below checks it */
    uintptr_t wanted = (uintptr_t)checked << 32 | (uint32_t)held;
    if ((held & 1) != 0 && held != wanted) {
        /* A frame that came meanwhile knows it itself. pairs: FRAME_SLOT */
        (void)cas_seq(slot, &held, wanted);
    }
}

struct frame_ref *
frame_table_link(struct frame_table *table, uint32_t block_no, struct frame_ref *frame)
{
    ASSERT(block_no < table->block_count);
    struct block_cache *cache = table->cache;
    struct frame_chunk *chunk = frame_table_chunk(table, block_no / FRAME_CHUNK_SLOTS);
    if (chunk == NULL) {
        return frame;
    }
    _Atomic uintptr_t *slot = &chunk->slots[block_no % FRAME_CHUNK_SLOTS];
    struct frame_ref *present = NULL;
    mutex_lock(&cache->ring_mutex);
    frame_pin(frame);                    /* the table's reference; taken before anybody can see the frame */
    uintptr_t held = load_relaxed(slot); /* relaxed: the CAS below checks it */
    while ((held == 0 || (held & 1) != 0) && present == NULL) {
        /* pairs: FRAME_SLOT — publishes the frame's block and bytes. Fails where a note is left just now. */
        if (cas_seq(slot, &held, (uintptr_t)frame)) {
            block_cache_link_locked(cache, frame, slot);
            block_cache_evict_locked(cache);
            present = frame;
        }
    }
    if (present == NULL) {
        present = (struct frame_ref *)held;
        frame_pin(present); /* it cannot be unlinked while the mutex is held */
    }
    mutex_unlock(&cache->ring_mutex);
    if (present != frame) {
        frame_unpin(frame);
        frame_unpin(frame);
    }
    return present;
}

struct mutex *
frame_table_load_mutex(const struct frame_table *table, uint32_t block_no)
{
    uint64_t hash = hash_mix((uint64_t)(uintptr_t)table, block_no);
    return &table->cache->load_mutexes[hash % BLOCK_CACHE_LOAD_MUTEXES];
}
