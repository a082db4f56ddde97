/* rooms: version */
/* SPDX-License-Identifier: MIT */
/* Reserving log space, and the rotation that follows (src/version/window.h, I1). Two writers reserve two
 * frames each, a third thread an engine frame where it fits; whoever finds the window full makes the next one
 * active, as db_rotate does under its mutex. Every granule of the first window has one owner, its rest one
 * straddler, the last window nobody's bytes twice. Windows have 4 granules. */
#define MODEL_MUTANTS(X)                                                                                     \
    X(TAIL_ADD_IN_TWO_STEPS, ANY) X(TAIL_CAS_IN_TWO_STEPS, ANY) X(STRADDLER_NOT_ALONE, GENMC)
#define MODEL_ORDER(ptr) (model_is(TAIL_OF(model_self)) ? SPLIT : KEEP)
#define TAIL_OF(self) ((self) == 2 ? TAIL_CAS_IN_TWO_STEPS : TAIL_ADD_IN_TWO_STEPS) /* who uses which */
#include "model.h"
#include "version/window.h"

enum { GRANULES = 4, WINDOWS = 4 };

static struct window windows[WINDOWS] = {
    [0 ... WINDOWS - 1] = {.cap_bytes = GRANULES * WINDOW_GRANULE, .op_cap = 3}};
static uint8_t owners[WINDOWS][GRANULES], rests[WINDOWS]; /* plain: two owners race */
static _Atomic uint32_t current;
static pthread_mutex_t rotation = PTHREAD_MUTEX_INITIALIZER;

static void
own(uint32_t at, uint64_t from, uint64_t to)
{
    for (uint64_t granule = from / WINDOW_GRANULE; granule < to / WINDOW_GRANULE; granule++) {
        owners[at][granule]++;
    }
}

static void
rotate(void)
{
    pthread_mutex_lock(&rotation);
    uint32_t at = load_relaxed(&current);
    if (window_is_full(&windows[at])) {
        ASSERT(at + 1 < WINDOWS);
        store_release(&current, at + 1);
    }
    pthread_mutex_unlock(&rotation);
}

static void
reserve(uint64_t bytes)
{
    for (;;) {
        uint64_t offset = 0;
        uint32_t at = load_acquire(&current);
        enum window_room room = window_reserve(&windows[at], 1, bytes, &offset);
        if (room == WINDOW_TAKEN) {
            own(at, offset, offset + bytes);
            return;
        }
        if (room == WINDOW_STRADDLE || model_is(STRADDLER_NOT_ALONE)) {
            rests[at]++;
            own(at, offset, windows[at].cap_bytes);
        }
        model_pause();
        rotate();
    }
}

static void
write_frames(void)
{
    reserve(WINDOW_GRANULE);
    reserve(2 * WINDOW_GRANULE);
}

static void
append_frame(void)
{
    uint64_t offset = 0;
    uint32_t at = load_acquire(&current);
    if (window_reserve_if_fits(&windows[at], WINDOW_GRANULE, &offset)) {
        own(at, offset, offset + WINDOW_GRANULE);
    }
}

static void
model_reset(void)
{
    store_relaxed(&current, 0);
    for (uint32_t at = 0; at < WINDOWS; at++) {
        store_relaxed(&windows[at].tail, 0);
    }
    memset(rests, 0, sizeof rests);
    memset(owners, 0, sizeof owners);
}

static void
model_verify(void)
{
    for (uint32_t at = 0, last = load_relaxed(&current); at <= last; at++) {
        MODEL_CHECK(rests[at] <= 1);
        for (uint32_t granule = 0; granule < GRANULES; granule++) {
            MODEL_CHECK(owners[at][granule] == 1 || (at == last && owners[at][granule] == 0));
        }
    }
}
MODEL_MAIN(write_frames, write_frames, append_frame)
