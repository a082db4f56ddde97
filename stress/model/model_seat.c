/* rooms: format */
/* SPDX-License-Identifier: MIT */
/* Seats with a zstd context each (src/format/zstd_seat.c): three threads take a seat, use its context and
 * give it back; one does not trust the context any more, another empties free seats (not under the model
 * checker: it would not end). A context has one user at a time, who sees what the last one left in it, and
 * none is lost. In a round: 3 threads, one use each. */
#define MODEL_MUTANTS(X) X(ZSTD_SEAT_RELAXED, TSAN) X(SEAT_IN_TWO_STEPS, ANY)
#define MODEL_ORDER(ptr) (model_is(ZSTD_SEAT_RELAXED) ? RELAX : model_is(SEAT_IN_TWO_STEPS) ? SPLIT : KEEP)
#include "model.h"
#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>
#define ZSTD_createCCtx_advanced(hooks) context_make(hooks)
#define ZSTD_createDCtx_advanced(hooks) context_make(hooks)
#define ZSTD_freeCCtx(context) context_free(context)
#define ZSTD_freeDCtx(context) context_free(context)

enum { CONTEXTS = 16 };

struct context {
    uint32_t uses; /* plain: two users race */
    bool freed;
};

static struct context contexts[CONTEXTS];
static _Atomic uint32_t made;

static void *
context_make(ZSTD_customMem hooks)
{
    (void)hooks;
    return &contexts[atomic_fetch_add_explicit(&made, 1, memory_order_relaxed)];
}

static size_t
context_free(void *ptr)
{
    struct context *context = ptr;
    MODEL_CHECK(!context->freed);
    context->freed = true;
    return 0;
}

#include "format/zstd_seat.c"

static void
use(void)
{
    struct zstd_lease lease;
    MODEL_CHECK(zstd_seat_take(ZSTD_SEAT_PACK, NULL, &lease));
    struct context *context = lease.context;
    uint32_t uses = context->uses;
    MODEL_CHECK(!context->freed);
    model_pause();
    context->uses = uses + 1;
    zstd_seat_give(&lease, model_self != 1);
}

static void
use_and_drain(void)
{
    use();
    MODEL_BOUND(zstd_seat_drain(), (void)0);
}

static void
model_reset(void)
{
    memset(contexts, 0, sizeof contexts);
    memset(zstd_seats, 0, sizeof zstd_seats);
    store_relaxed(&made, 0);
}

static void
model_verify(void)
{
    uint32_t uses = 0, free_count = 0, kept = 0;
    for (uint32_t i = 0; i < CONTEXTS; i++) {
        uses += contexts[i].uses;
        free_count += contexts[i].freed ? 1 : 0;
    }
    for (uint32_t i = 0; i < ZSTD_SEATS; i++) {
        kept += zstd_seats[ZSTD_SEAT_PACK][i].context != NULL ? 1 : 0;
    }
    MODEL_CHECK(uses == 3 && kept + free_count == load_relaxed(&made));
}
MODEL_MAIN(use, use, use_and_drain)
