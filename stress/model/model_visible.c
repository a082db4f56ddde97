/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * Two writers have one frame each and move `visible` (src/db/db_visible.c, src/version/window.c), each by
 * his turn if it has come, else by his frame's bit; a reader takes it and looks at what is below. No hole
 * is exposed, no frame left behind. Frames are 1 KiB: their bits stand in two words. See model_sleeper.c.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(APPLIED_RELAXED, TSAN)                                                                                 \
    X(VISIBLE_RELAXED, TSAN) X(APPLIED_THEN_LOOK, ANY) X(VISIBLE_THEN_LOOK, ANY) X(BIT_BEFORE_BYTES, ANY)    \
        X(TURN_OF_ANOTHER, ANY) X(TURN_AND_GONE, ANY)
#define MODEL_FUTEX
/* a section begins with a barrier, which would do in place of the bit's */
#define model_no_section() model_is(APPLIED_THEN_LOOK)
#include "model.h"
#include "sections.h"
#include "db/db.h"
#define job_kick(job) ((void)(job))
#include "db/db_visible.c"
#define mem_free(mem, ptr) ((void)(mem), (void)(ptr))
#include "version/window.c"

enum { FRAME_BYTES = 1024, BASE_LSN = 64, FRAME_LSNS = FRAME_BYTES / LSN_BYTES };

static struct window window;
static CACHE_ALIGNED uint8_t data[2 * FRAME_BYTES];
static _Atomic uint64_t bits[2];
static struct version version;
static struct stripe stripes[STRIPE_COUNT];
static esker_db db = {.stripes = stripes};

static int
model_order(uintptr_t word)
{
    bool is_bit = model_at(word, bits[0]) || model_at(word, bits[1]);
    bool is_visible = model_at(word, db.visible);
    if ((model_is(APPLIED_RELAXED) && is_bit) || (model_is(VISIBLE_RELAXED) && is_visible)) {
        return RELAX;
    }
    return (model_is(APPLIED_THEN_LOOK) && is_bit) || (model_is(VISIBLE_THEN_LOOK) && is_visible) ? SPLIT
                                                                                                  : KEEP;
}

static void
apply(void)
{
    struct thread_state *self = thread_state_get();
    uint64_t offset = model_self * FRAME_BYTES, lsn = window_lsn(&window, offset), end = lsn + FRAME_LSNS;
    le32_store(data + offset, FRAME_BYTES / FRAME_GRANULE);
    if (model_is(BIT_BEFORE_BYTES)) {
        window_set_applied(&window, offset);
        db_ratchet(&db, self);
        model_pause();
    }
    data[offset + FRAME_HEADER_BYTES] = 7;
    model_pause();
    epoch_enter(self);
    bool turn = visible_take_turn(&db, model_is(TURN_OF_ANOTHER) ? lsn - FRAME_LSNS : lsn, end);
    if (turn && !model_is(TURN_AND_GONE)) {
        visible_go_on(&db, self, &version, end, (struct visible_move){.moved = true});
        return;
    }
    epoch_exit(self);
    if (!turn && !model_is(BIT_BEFORE_BYTES)) {
        window_set_applied(&window, offset);
        db_ratchet(&db, self);
    }
}

static void
look(void)
{
    uint64_t seen = load_acquire(&db.visible); /* pairs: VISIBLE */
    for (uint64_t frame = 0; BASE_LSN + (frame + 1) * FRAME_LSNS <= seen; frame++) {
        MODEL_CHECK(data[frame * FRAME_BYTES + FRAME_HEADER_BYTES] == 7);
    }
}

static void
model_reset(void)
{
    for (uint32_t frame = 0; frame < 2; frame++) {
        le32_store(data + frame * FRAME_BYTES, 0);
        data[frame * FRAME_BYTES + FRAME_HEADER_BYTES] = 0;
        store_relaxed(&bits[frame], 0);
    }
    window = (struct window){.data = data, .applied = bits, .cap_bytes = sizeof data, .base_lsn = BASE_LSN};
    window.end_lsn = BASE_LSN + 2 * FRAME_LSNS;
    version.windows[0] = &window;
    version.window_count = 1;
    store_relaxed(&db.current, &version);
    store_relaxed(&db.visible, BASE_LSN);
}

static void
model_verify(void)
{
    MODEL_CHECK(load_relaxed(&db.visible) == window.end_lsn);
}
MODEL_MAIN(apply, apply, look)
