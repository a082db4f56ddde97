/* SPDX-License-Identifier: MIT */
/*
 * What segments keep in memory beside their blocks: a clock of its own decides
 * which of them stays.
 *
 * Holders have three quarters of what windows, iterators and merges leave. They
 * are worth more than blocks: without its index a segment costs several reads
 * for each row. One that is evicted takes its frames along. A segment that is opened
 * while indexes take half of it or more is paged instead: its index and filter
 * then are frames. Who asks for nothing in four cache's worth of bytes turned
 * away gives up what could be paged, so that what is in use gets the room.
 */
#include "base/assert.h"
#include "segment/block_cache_internal.h"

enum { CACHE_HOLDER_LAPS = 4 /* capacities turned away while the hand goes round all holders */ };

static void
cache_holder_remove_locked(struct block_cache *cache, struct cache_holder *holder)
{
    if (holder->next == holder) {
        cache->holder_hand = NULL;
    } else {
        holder->next->prev = holder->prev;
        holder->prev->next = holder->next;
        if (cache->holder_hand == holder) {
            cache->holder_hand = holder->next;
        }
    }
    holder->next = NULL;
    holder->prev = NULL;
    block_cache_count_locked(&cache->holder_count, -(uint64_t)1);
}

/* What indexes and filters may take. */
static uint64_t
cache_holders_share(const struct block_cache *cache)
{
    return block_cache_left(cache, false) / 4 * 3;
}

bool
block_cache_index_fits(struct block_cache *cache, uint64_t bytes)
{
    uint64_t share = block_cache_left(cache, false) / 2;
    uint64_t charged = load_relaxed(&cache->charged_bytes[MEMORY_INDEXES]); /* relaxed: a hint */
    return charged <= share && bytes <= share - charged;
}

bool
block_cache_holder_fits(const struct block_cache *cache)
{
    return load_relaxed(&cache->holder_count) < cache->holders_max / 2; /* relaxed: a hint */
}

static bool
cache_holders_exceed_locked(const struct block_cache *cache, uint64_t evicted_bytes)
{
    /* relaxed: counts under the mutex, and a sum that may be a little off */
    uint64_t bytes = load_relaxed(&cache->charged_bytes[MEMORY_INDEXES]);
    uint64_t share = cache_holders_share(cache);
    return load_relaxed(&cache->holder_count) > cache->holders_max ||
           (bytes > share && bytes - share > evicted_bytes);
}

static void
cache_holder_evict_locked(struct block_cache *cache, struct cache_holder *holder)
{
    uint64_t bytes = holder->bytes; /* evicted it may be gone at once */
    cache_holder_remove_locked(cache, holder);
    add_relaxed(&cache->retired_holders, 1);   /* relaxed: a hint */
    add_relaxed(&cache->retired_bytes, bytes); /* relaxed: a hint */
    if (!holder->evict(holder)) {
        cache_holder_retired(cache, bytes);
    }
    add_relaxed(&cache->holder_evictions, 1); /* relaxed: a statistic */
}

/* The clock over holders; `spared` is new and stays. What is in use stays as long as only
 * memory is short: it would not give any back, and the next who wants it would
 * load it a second time. What an evicted one takes comes back only after a
 * grace period, so it is taken off here. */
static void
cache_holders_evict_locked(struct block_cache *cache, const struct cache_holder *spared)
{
    /* relaxed: under the mutex */
    uint64_t count = load_relaxed(&cache->holder_count);
    uint64_t evicted_bytes = 0;
    for (uint64_t steps = 3 * count; steps > 0 && cache_holders_exceed_locked(cache, evicted_bytes);
         steps--) {
        struct cache_holder *holder = cache->holder_hand;
        cache->holder_hand = holder->next;
        if (holder == spared) {
            continue;
        }
        if (load_relaxed(&holder->recent) != 0) { /* relaxed: a hint */
            store_relaxed(&holder->recent, 0);
            continue;
        }
        bool too_many =
            load_relaxed(&cache->holder_count) > cache->holders_max; /* relaxed: under the mutex */
        /* What is paged already gives little back, so that it is looked at last. */
        if (!too_many && (holder->in_use(holder) || (!holder->can_page && steps > count))) {
            continue;
        }
        evicted_bytes += holder->bytes;
        cache_holder_evict_locked(cache, holder);
    }
}

void
cache_holders_step(struct block_cache *cache)
{
    /* relaxed: hints; two threads that step at once do no harm. */
    uint64_t now = load_relaxed(&cache->turned_away_bytes);
    uint64_t count = load_relaxed(&cache->holder_count); /* relaxed: the same */
    if (count == 0 || now < load_relaxed(&cache->holder_step_at)) {
        return;
    }
    mutex_lock(&cache->ring_mutex);
    store_relaxed(&cache->holder_step_at, now + CACHE_HOLDER_LAPS * cache->capacity_bytes / count);
    struct cache_holder *holder = cache->holder_hand;
    if (holder != NULL) {
        cache->holder_hand = holder->next;
        if (load_relaxed(&holder->recent) != 0) { /* relaxed: a hint */
            store_relaxed(&holder->recent, 0);
        } else if (holder->can_page && !holder->in_use(holder)) {
            cache_holder_evict_locked(cache, holder);
        }
    }
    mutex_unlock(&cache->ring_mutex);
}

void
cache_holder_add(struct block_cache *cache, struct cache_holder *holder)
{
    mutex_lock(&cache->ring_mutex);
    struct cache_holder *hand = cache->holder_hand;
    if (hand == NULL) {
        holder->next = holder;
        holder->prev = holder;
        cache->holder_hand = holder;
    } else {
        holder->next = hand;
        holder->prev = hand->prev;
        hand->prev->next = holder;
        hand->prev = holder;
    }
    block_cache_count_locked(&cache->holder_count, 1);
    cache_holders_evict_locked(cache, holder);
    mutex_unlock(&cache->ring_mutex);
}

void
cache_holder_remove(struct block_cache *cache, struct cache_holder *holder)
{
    mutex_lock(&cache->ring_mutex);
    if (holder->next != NULL) {
        cache_holder_remove_locked(cache, holder);
    }
    mutex_unlock(&cache->ring_mutex);
}

void
cache_holder_retired(struct block_cache *cache, uint64_t bytes)
{
    add_relaxed(&cache->retired_holders, -(uint64_t)1); /* relaxed: a hint */
    add_relaxed(&cache->retired_bytes, -bytes);         /* relaxed: a hint */
}

void
block_cache_settle(struct block_cache *cache)
{
    uint64_t holders_max = cache->holders_max;
    /* relaxed: hints */
    if (load_relaxed(&cache->retired_bytes) > cache->capacity_bytes / BLOCK_CACHE_RETIRED_SHARE ||
        load_relaxed(&cache->retired_holders) > MAX(holders_max / 4, (uint64_t)2)) {
        epoch_drain();
    }
}

void
block_cache_limit_holders(struct block_cache *cache, uint64_t count)
{
    mutex_lock(&cache->ring_mutex);
    cache->holders_max = count;
    cache_holders_evict_locked(cache, NULL);
    mutex_unlock(&cache->ring_mutex);
}

void
block_cache_shed_holders(struct block_cache *cache)
{
    mutex_lock(&cache->ring_mutex);
    while (cache->holder_hand != NULL) {
        cache_holder_evict_locked(cache, cache->holder_hand);
    }
    mutex_unlock(&cache->ring_mutex);
    epoch_drain();
}
