/* SPDX-License-Identifier: MIT */
/* See zstd_seat.h. */
#include "format/zstd_seat.h"

#include "base/assert.h"
#include "sync/atomic.h"

#define ZSTD_STATIC_LINKING_ONLY /* custom memory; the same names since 1.4 */
#include <zstd.h>

struct zstd_seat {
    atomic_bool taken; /* pairs: ZSTD_SEAT */
    void *context;     /* whoever took the seat; NULL: not made yet */
};

static struct zstd_seat zstd_seats[2][ZSTD_SEATS];

static void *
zstd_seat_alloc(void *mem, size_t size)
{
    return mem_alloc((const struct mem *)mem, size);
}

static void
zstd_seat_free(void *mem, void *ptr)
{
    mem_free((const struct mem *)mem, ptr);
}

static void *
zstd_seat_make(enum zstd_seat_kind kind, const struct mem *mem)
{
    ZSTD_customMem hooks = {
        .customAlloc = zstd_seat_alloc,
        .customFree = zstd_seat_free,
        .opaque = (void *)(uintptr_t)mem,
    };
    return kind == ZSTD_SEAT_PACK ? (void *)ZSTD_createCCtx_advanced(hooks)
                                  : (void *)ZSTD_createDCtx_advanced(hooks);
}

static void
zstd_seat_unmake(enum zstd_seat_kind kind, void *context)
{
    size_t ignored = kind == ZSTD_SEAT_PACK ? ZSTD_freeCCtx(context) : ZSTD_freeDCtx(context);
    (void)ignored;
}

/* pairs: ZSTD_SEAT — what the seat's last user left in the context is seen. */
static bool
zstd_seat_try(struct zstd_seat *seat)
{
    bool expected = false;
    return cas_acq_rel(&seat->taken, &expected, true);
}

/* pairs: ZSTD_SEAT */
static void
zstd_seat_leave(struct zstd_seat *seat)
{
    store_release(&seat->taken, false);
}

bool
zstd_seat_take(enum zstd_seat_kind kind, const struct mem *mem, struct zstd_lease *out)
{
    struct zstd_lease lease = {.kind = kind};
    for (uint32_t i = 0; i < ZSTD_SEATS && lease.seat == NULL; i++) {
        if (zstd_seat_try(&zstd_seats[kind][i])) {
            lease.seat = &zstd_seats[kind][i];
        }
    }
    if (lease.seat == NULL) {
        lease.context = zstd_seat_make(kind, mem);
    } else {
        if (lease.seat->context == NULL) {
            lease.seat->context = zstd_seat_make(kind, &mem_default);
        }
        lease.context = lease.seat->context;
        if (lease.context == NULL) {
            zstd_seat_leave(lease.seat);
        }
    }
    if (lease.context == NULL) {
        return false;
    }
    *out = lease;
    return true;
}

void
zstd_seat_give(struct zstd_lease *lease, bool keep)
{
    ASSERT(lease->context != NULL);
    if (lease->seat == NULL || !keep) {
        zstd_seat_unmake(lease->kind, lease->context);
    }
    if (lease->seat != NULL) {
        lease->seat->context = keep ? lease->context : NULL;
        zstd_seat_leave(lease->seat);
    }
    *lease = (struct zstd_lease){.kind = lease->kind};
}

void
zstd_seat_drain(void)
{
    for (uint32_t kind = 0; kind < COUNTOF(zstd_seats); kind++) {
        for (uint32_t i = 0; i < ZSTD_SEATS; i++) {
            struct zstd_seat *seat = &zstd_seats[kind][i];
            if (zstd_seat_try(seat)) {
                if (seat->context != NULL) {
                    zstd_seat_unmake((enum zstd_seat_kind)kind, seat->context);
                    seat->context = NULL;
                }
                zstd_seat_leave(seat);
            }
        }
    }
}
