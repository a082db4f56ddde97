/* SPDX-License-Identifier: MIT */
/*
 * zstd contexts that outlive the call that made them. Making one asks CPUID
 * twice, which traps in a virtual machine: 8 us, where a 16 KiB block takes 15
 * to unpack and 43 to pack. So the process keeps a few seats with a context
 * each, made on first use and of mem_default, since they belong to no
 * database. Whoever finds no seat free makes a context of its own allocator.
 *
 * Concurrency: any thread; no waiting. A seat is one thread's from take to
 * give; a fork in between costs the child that seat and nothing else.
 */
#ifndef ESKER_FORMAT_ZSTD_SEAT_H
#define ESKER_FORMAT_ZSTD_SEAT_H

#include <stdbool.h>

#include "base/mem.h"

enum { ZSTD_SEATS = 4 }; /* of each kind: at most 0.6 MiB (pack) and 0.1 MiB (unpack) a seat */

enum zstd_seat_kind { ZSTD_SEAT_PACK, ZSTD_SEAT_UNPACK };

struct zstd_seat;

/* What a take lends. */
struct zstd_lease {
    enum zstd_seat_kind kind;
    void *context;          /* a ZSTD_CCtx or ZSTD_DCtx */
    struct zstd_seat *seat; /* nullable: the context is the lease's own */
};

/* False: no memory. mem: for the case that every seat is taken. */
bool zstd_seat_take(enum zstd_seat_kind kind, const struct mem *mem, struct zstd_lease *out);
/* keep: false when the context failed in a way that it may not recover from. */
void zstd_seat_give(struct zstd_lease *lease, bool keep);
/* Frees the contexts of all free seats: for when the last database closes. */
void zstd_seat_drain(void);

#endif
