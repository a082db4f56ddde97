/* rooms: segment */
/* SPDX-License-Identifier: MIT */
/* Frames of the block cache (src/segment/block_cache.c, frame_table.h): two loaders link a block each into
 * a cache that has room for one, so either evicts the other's; a reader pins what it finds and reads it. A
 * frame that somebody has pinned keeps its bytes; in the end each frame was freed once.
 * In a round: one link or two pins each. */
#define MODEL_MUTANTS(X)                                                                                     \
    X(FRAME_CHUNK_RELAXED, TSAN)                                                                             \
    X(FRAME_SLOT_RELAXED, TSAN)                                                                              \
    X(FRAME_REFS_RELAXED, TSAN) X(NO_GRACE, ANY) X(NO_SECTION, BY_HAND) X(REFS_IN_TWO_STEPS, ANY)
#define MODEL_MEM
#define model_no_section() model_is(NO_SECTION)
#define model_no_grace() model_is(NO_GRACE)
#include "model.h"
#include "sections.h"
#include "segment/block_cache.c"

enum { BLOCKS = 2, BYTES = 64, CHARGES = 128 };

static struct block_cache *cache;
static struct frame_table table;
static struct frame_ref no_frame, *frames[BLOCKS] = {&no_frame, &no_frame};
static uint32_t freed[BLOCKS]; /* plain */
static uintptr_t chunk_word;   /* where the table names its chunk */

static int
model_order(uintptr_t word)
{
    bool refs = model_at(word, frames[0]->refs) || model_at(word, frames[1]->refs);
    bool chunk = word == chunk_word;
    bool slot = !refs && !chunk && (word < (uintptr_t)cache || word >= (uintptr_t)(cache + 1));
    bool relax = model_is(FRAME_CHUNK_RELAXED)  ? chunk
                 : model_is(FRAME_SLOT_RELAXED) ? slot
                                                : model_is(FRAME_REFS_RELAXED) && refs;
    return relax ? RELAX : model_is(REFS_IN_TWO_STEPS) && refs ? SPLIT : KEEP;
}

static void
model_spoil(void *ptr)
{
    for (uint32_t block = 0; block < BLOCKS; block++) {
        if (ptr == frames[block]) {
            MODEL_CHECK(freed[block] == 0);
            freed[block] = 1;
            *frame_data(frames[block]) = 0;
        }
    }
}

static void
load_own(void)
{
    uint32_t block = model_self;
    struct frame_ref *frame = frames[block];
    *frame_data(frame) = (uint8_t)(block + 5);
    model_pause();
    struct frame_ref *held = frame_table_link(&table, block, frame);
    MODEL_CHECK(held == frame && *frame_data(held) == block + 5);
    frame_unpin(held);
}

static void
read_both(void)
{
    for (uint32_t block = 0; block < BLOCKS; block++) {
        struct frame_ref *frame = frame_table_pin(&table, block);
        if (frame != NULL) {
            MODEL_CHECK(*frame_data(frame) == block + 5);
            model_pause();
            MODEL_CHECK(*frame_data(frame) == block + 5);
            frame_unpin(frame);
        }
    }
}

static void
model_reset(void)
{
    model_epoch_start();
    model_pool_reset(&model_pool);
    uint64_t frame_bytes = align_up(sizeof(struct frame_ref), CACHE_LINE_BYTES) + BYTES;
    MODEL_CHECK(block_cache_create(&model_mem, CHARGES + frame_bytes * 3 / 2, &cache) == ESKER_OK);
    MODEL_CHECK(frame_table_init(&table, cache, BLOCKS) == ESKER_OK);
    chunk_word = (uintptr_t)table.chunks;
    for (uint32_t block = 0; block < BLOCKS; block++) {
        frames[block] = frame_create(cache, BYTES);
        freed[block] = 0;
    }
}

static void
model_verify(void)
{
    frame_table_fini(&table);
    epoch_drain();
    MODEL_CHECK(freed[0] == 1 && freed[1] == 1);
    block_cache_destroy(cache);
}
MODEL_MAIN(load_own, load_own, read_both)
