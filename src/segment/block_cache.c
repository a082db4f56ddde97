/* SPDX-License-Identifier: MIT */
/*
 * Frames, the tables that point to them, and the clock that evicts them.
 * Invariants and roles: frame_table.h.
 *
 * Eviction is the clock of Corbató ("A Paging Experiment with the Multics
 * System", 1968): one ring, one bit per frame. A new frame stands behind the
 * hand with its bit clear, so a scan that touches each block once passes
 * through without pushing out what is used again and again.
 *
 * The budget counts linked frames and charges. Frames that were unlinked but
 * are pinned, or wait for the reclaimer, are memory too and show in
 * used_bytes, but evicting more would not bring them back sooner.
 */
#include "segment/block_cache.h"

#include "base/assert.h"
#include "base/hash.h"
#include "segment/frame_table.h"

enum {
    BLOCK_CACHE_STRIPES = 32,
    BLOCK_CACHE_LOAD_MUTEXES = 64,
    BLOCK_CACHE_STEPS = 256 /* of the hand per insertion, while the overshoot is small */
};

struct block_cache_counters {
    CACHE_ALIGNED _Atomic uint64_t hits;
    _Atomic uint64_t misses;
};

struct block_cache {
    /* immutable */
    const struct mem *mem;
    uint64_t capacity_bytes;
    /* guarded by ring_mutex */
    CACHE_ALIGNED struct mutex ring_mutex;
    struct frame_ref *hand; /* NULL: the ring is empty */
    uint64_t ring_count;
    uint64_t linked_bytes;
    uint64_t charged_bytes;
    /* atomic, statistics only */
    _Atomic uint64_t used_bytes; /* every living frame, and the charges */
    _Atomic uint64_t evictions;
    struct mutex load_mutexes[BLOCK_CACHE_LOAD_MUTEXES];
    struct block_cache_counters counters[BLOCK_CACHE_STRIPES];
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
    mutex_init(&cache->ring_mutex);
    for (size_t at = 0; at < COUNTOF(cache->load_mutexes); at++) {
        mutex_init(&cache->load_mutexes[at]);
    }
    *out = cache;
    return ESKER_OK;
}

void
block_cache_destroy(struct block_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    ASSERT(cache->hand == NULL && cache->charged_bytes == 0);
    /* relaxed: the owner is the last user; epoch_drain ordered the frees before. */
    ASSERT(load_relaxed(&cache->used_bytes) == 0);
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
block_cache_get_stats(const struct block_cache *cache, struct block_cache_stats *out)
{
    struct block_cache_stats stats = {.capacity_bytes = cache->capacity_bytes};
    /* relaxed: statistics, each number for itself. */
    stats.used_bytes = load_relaxed(&cache->used_bytes);
    stats.evictions = load_relaxed(&cache->evictions);
    for (size_t at = 0; at < BLOCK_CACHE_STRIPES; at++) {
        stats.hits += load_relaxed(&cache->counters[at].hits);
        stats.misses += load_relaxed(&cache->counters[at].misses);
    }
    *out = stats;
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
    frame->size_bytes = size;
    atomic_init(&frame->refs, 1);
    add_relaxed(&cache->used_bytes, size); /* relaxed: a statistic. */
    return frame;
}

static void
frame_free(struct frame_ref *frame)
{
    struct block_cache *cache = frame->cache;
    const struct mem *mem = cache->mem;
    uint64_t size = frame->size_bytes;
    mem_free(mem, frame);
    add_relaxed(&cache->used_bytes, -size); /* relaxed: a statistic; the last touch of the cache. */
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

static void
frame_retired(struct epoch_node *node)
{
    frame_unpin(CONTAINER_OF(node, struct frame_ref, node));
}

/* ---- The ring ----------------------------------------------------------- */

static void
block_cache_link_locked(struct block_cache *cache, struct frame_ref *frame, _Atomic(struct frame_ref *) *slot)
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
    cache->linked_bytes += frame->size_bytes;
}

static void
block_cache_unlink_locked(struct block_cache *cache, struct frame_ref *frame)
{
    /* pairs: FRAME_SLOT — seq_cst, so that a section that begins later cannot load it any more. */
    struct frame_ref *held = exchange_seq(frame->slot, NULL);
    ASSERT(held == frame);
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
    ASSERT(cache->ring_count > 0 && cache->linked_bytes >= frame->size_bytes);
    cache->ring_count--;
    cache->linked_bytes -= frame->size_bytes;
}

/* Unlinks frames until the budget holds. A frame is looked at twice at most:
 * once to clear its bit, once to take it; pinned ones would give nothing back. */
static void
block_cache_evict_locked(struct block_cache *cache)
{
    uint64_t budget = cache->capacity_bytes - MIN(cache->capacity_bytes, cache->charged_bytes);
    if (cache->linked_bytes <= budget) {
        return;
    }
    uint64_t steps = 2 * cache->ring_count;
    if (cache->linked_bytes - budget <= budget / 8) {
        steps = MIN(steps, (uint64_t)BLOCK_CACHE_STEPS);
    }
    for (; steps > 0 && cache->linked_bytes > budget; steps--) {
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
        epoch_retire(&frame->node, frame_retired);
        add_relaxed(&cache->evictions, 1); /* relaxed: a statistic. */
    }
}

void
block_cache_charge(struct block_cache *cache, uint64_t bytes)
{
    mutex_lock(&cache->ring_mutex);
    cache->charged_bytes += bytes;
    block_cache_evict_locked(cache);
    mutex_unlock(&cache->ring_mutex);
    add_relaxed(&cache->used_bytes, bytes); /* relaxed: a statistic. */
}

void
block_cache_discharge(struct block_cache *cache, uint64_t bytes)
{
    mutex_lock(&cache->ring_mutex);
    ASSERT(cache->charged_bytes >= bytes);
    cache->charged_bytes -= bytes;
    mutex_unlock(&cache->ring_mutex);
    add_relaxed(&cache->used_bytes, -bytes); /* relaxed: a statistic. */
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
    block_cache_charge(cache, chunk_count * sizeof *chunks);
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
        /* relaxed: slots change under the mutex, which is held. */
        struct frame_ref *frame = load_relaxed(&chunk->slots[at]);
        if (frame != NULL) {
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
    block_cache_discharge(cache, chunk->size_bytes);
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
    block_cache_discharge(table->cache, table->chunk_count * sizeof *table->chunks);
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
    block_cache_charge(cache, size);
    return made;
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

struct frame_ref *
frame_table_link(struct frame_table *table, uint32_t block_no, struct frame_ref *frame)
{
    ASSERT(block_no < table->block_count);
    struct block_cache *cache = table->cache;
    struct frame_chunk *chunk = frame_table_chunk(table, block_no / FRAME_CHUNK_SLOTS);
    if (chunk == NULL) {
        return frame;
    }
    _Atomic(struct frame_ref *) *slot = &chunk->slots[block_no % FRAME_CHUNK_SLOTS];
    struct frame_ref *present = NULL;
    mutex_lock(&cache->ring_mutex);
    frame_pin(frame); /* the table's reference; taken before anybody can see the frame */
    /* pairs: FRAME_SLOT — publishes the frame's block and bytes. */
    if (cas_seq(slot, &present, frame)) {
        block_cache_link_locked(cache, frame, slot);
        block_cache_evict_locked(cache);
        present = frame;
    } else {
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
