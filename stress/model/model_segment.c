/* rooms: segment */
/* SPDX-License-Identifier: MIT */
/* What a segment holds in memory (src/segment/segment_handle.c): two threads load and use it, the cache's
 * clock evicts it. What a user has is whole and stays until he lets go; all of it goes once. */
#define MODEL_MUTANTS(X)                                                                                     \
    X(SEGMENT_LOADED_RELAXED, TSAN)                                                                          \
    X(LOADED_REFS_RELAXED, TSAN) X(SEGMENT_REFS_RELAXED, TSAN) X(REFS_IN_TWO_STEPS, ANY) X(NO_GRACE, ANY)
#define MODEL_MEM
#define model_no_grace() model_is(NO_GRACE)
#include "model.h"
#include "sections.h"
#include "segment/segment_internal.h"
#define segment_loaded_create(segment, out) (*(out) = model_load(segment), ESKER_OK)
#define segment_loaded_destroy(loaded) (MODEL_CHECK((loaded)->part_count-- == 1))
#define cache_holder_add(cache, holder) model_ring_set((cache), NULL, holder)
#define cache_holder_remove(cache, holder) model_ring_set((cache), holder, NULL)
#define cache_holder_retired(cache, bytes) ((void)(cache), (void)(bytes))
#define block_cache_settle(cache) ((void)(cache))

static struct segment *subject;
static struct segment_loaded made[2]; /* one eviction, so at most two loads */
static uint32_t loads, gone;          /* plain: guarded by load_mutex; the last reference's */
static struct cache_holder *ring;     /* guarded by model_kernel */

static struct segment_loaded *
model_load(const struct segment *of)
{
    made[loads].part_count = (uint32_t)of->meta.id; /* plain, like all that is loaded */
    store_relaxed(&made[loads].refs, 1);
    return &made[loads++];
}

static void
model_ring_set(struct block_cache *cache, const struct cache_holder *from, struct cache_holder *to)
{
    pthread_mutex_lock(&model_kernel);
    ring = cache != NULL && (from == NULL || ring == from) ? to : ring;
    pthread_mutex_unlock(&model_kernel);
}

#include "segment/segment_handle.c"

static int
model_order(uintptr_t word)
{
    bool refs = word == (uintptr_t)&made[0].refs || word == (uintptr_t)&made[1].refs;
    bool relax = (model_is(SEGMENT_LOADED_RELAXED) && word == (uintptr_t)&subject->loaded) ||
                 (model_is(LOADED_REFS_RELAXED) && refs) ||
                 (model_is(SEGMENT_REFS_RELAXED) && word == (uintptr_t)&subject->refs);
    return relax ? RELAX : model_is(REFS_IN_TWO_STEPS) && refs ? SPLIT : KEEP;
}

static void
model_spoil(void *ptr)
{
    MODEL_CHECK(ptr == subject && gone++ == 0 && load_relaxed(&subject->obsolete));
}

static void
use(void)
{
    struct segment_loaded *loaded = NULL;
    MODEL_CHECK(segment_load(subject, &loaded) == ESKER_OK && loaded->part_count == 1);
    model_pause();
    MODEL_CHECK(loaded->part_count == 1);
    segment_loaded_unref(loaded);
    segment_unref(subject);
}

static void
evict(void)
{
    pthread_mutex_lock(&model_kernel);
    ring = ring != NULL && ring->evict(ring) ? NULL : ring;
    pthread_mutex_unlock(&model_kernel);
    segment_mark_obsolete(subject);
    segment_unref(subject);
}

static void
model_reset(void)
{
    static const struct segment_open_options options = {.mem = &model_mem, .cache = (void *)made};
    static const struct segment_meta meta = {.id = 1};
    model_epoch_start();
    model_pool_reset(&model_pool);
    MODEL_CHECK(segment_create(&options, &meta, &subject) == ESKER_OK);
    store_relaxed(&subject->refs, 3);
    loads = gone = 0;
}

static void
model_verify(void)
{
    epoch_drain();
    MODEL_CHECK(gone == 1 && ring == NULL && made[0].part_count + made[1].part_count == 0);
}

MODEL_MAIN(use, use, evict)
