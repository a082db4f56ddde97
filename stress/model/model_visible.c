/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * Two writers apply one frame each and move `visible` (src/db/db_visible.c, src/version/window.c); one of
 * them then sleeps until both are visible. A reader takes `visible` and looks at what is below. No hole is
 * exposed, no frame is left behind when both writers have gone, no sleeper is.
 * In a round: 3 threads, one frame or one read each. Frames are 1 KiB, so that their bits stand in two
 * words.
 */
#define MODEL_MUTANTS(X)                                                                                     \
    X(APPLIED_RELAXED, TSAN)                                                                                 \
    X(VISIBLE_RELAXED, TSAN)                                                                                 \
    X(APPLIED_THEN_LOOK, ANY)                                                                                \
    X(VISIBLE_THEN_LOOK, ANY)                                                                                \
    X(CURRENT_RELAXED, GENMC)                                                                                \
    X(WAITER_THEN_LOOK, ANY) X(VISIBLE_WAIT_RELAXED, GENMC) X(BIT_BEFORE_BYTES, ANY)
#define MODEL_THREADS 3
#define MODEL_FUTEX
/* a section begins with a barrier, which would do in place of the bit's */
#define model_no_section() model_is(APPLIED_THEN_LOOK)
#include "model.h"
#include "sections.h"
#define job_kick model_job_kick
#include "db/db_visible.c"
#define mem_free(mem, ptr) ((void)(mem), (void)(ptr))
#include "version/window.c"

enum { FRAME_BYTES = 1024, BASE_LSN = 64, FRAME_LSNS = FRAME_BYTES / LSN_BYTES };

static struct window window;
static CACHE_ALIGNED uint8_t data[2 * FRAME_BYTES];
static _Atomic uint64_t bits[2];
static struct version version;
static esker_db db;

static int
model_order(uintptr_t word)
{
    bool is_bit = word == (uintptr_t)&bits[0] || word == (uintptr_t)&bits[1];
    bool is_visible = word == (uintptr_t)&db.visible;
    bool is_waiters = word == (uintptr_t)&db.visible_waiters;
    bool is_wait = is_waiters || word == (uintptr_t)&db.visible_seq;
    if ((model_is(APPLIED_RELAXED) && is_bit) || (model_is(VISIBLE_RELAXED) && is_visible) ||
        (model_is(VISIBLE_WAIT_RELAXED) && is_wait) ||
        (model_is(CURRENT_RELAXED) && word == (uintptr_t)&db.current)) {
        return RELAX;
    }
    bool split = (model_is(APPLIED_THEN_LOOK) && is_bit) || (model_is(VISIBLE_THEN_LOOK) && is_visible) ||
                 (model_is(WAITER_THEN_LOOK) && is_waiters);
    return split ? SPLIT : KEEP;
}

void
model_job_kick(struct job *job)
{
    (void)job;
}

static void
apply(uint64_t frame)
{
    uint64_t offset = frame * FRAME_BYTES;
    le32_store(data + offset, FRAME_BYTES / FRAME_GRANULE);
    if (model_is(BIT_BEFORE_BYTES)) {
        window_set_applied(&window, offset);
        db_ratchet(&db, thread_state_get());
        model_pause();
    }
    data[offset + FRAME_HEADER_BYTES] = 7;
    model_pause();
    if (!model_is(BIT_BEFORE_BYTES)) {
        window_set_applied(&window, offset);
    }
    db_ratchet(&db, thread_state_get());
}

static void
write_first(void)
{
    apply(0);
}

static void
write_second(void)
{
    apply(1);
    visible_sleep(&db, BASE_LSN + 2 * FRAME_LSNS);
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
    window.data = data;
    window.applied = bits;
    window.cap_bytes = sizeof data;
    window.base_lsn = BASE_LSN;
    window.end_lsn = BASE_LSN + 2 * FRAME_LSNS;
    version.windows[0] = &window;
    version.window_count = 1;
    store_relaxed(&db.current, &version);
    store_relaxed(&db.visible, BASE_LSN);
    store_relaxed(&db.visible_waiters, 0);
}

static void
model_verify(void)
{
    MODEL_CHECK(!model_asleep[1]);
    MODEL_CHECK(load_relaxed(&db.visible) == window.end_lsn);
}

MODEL_MAIN(write_first, write_second, look)
