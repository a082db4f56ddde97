/* SPDX-License-Identifier: MIT */
/*
 * Many short-lived allocations out of one piece: whatever an object with many parts
 * needs while it lives. Taking is an addition, giving back mostly nothing: the piece is
 * empty again when the last one is back, and of the others only the one taken last makes
 * room at once. What does not fit comes from where the piece came from.
 *
 * Owned by one thread at a time; not safe for sharing.
 */
#ifndef ESKER_BASE_SLAB_H
#define ESKER_BASE_SLAB_H

#include "base/mem.h"

enum { SLAB_ALIGN = 16 }; /* what malloc gives */

struct slab {
    struct mem mem; /* allocates from it */
    const struct mem *parent;
    size_t size;  /* of bytes */
    size_t used;  /* from the start; all behind it is free */
    size_t last;  /* where the one taken last begins, if it is not back */
    size_t count; /* of those that are not back */
    _Alignas(SLAB_ALIGN) unsigned char bytes[];
};

/* size: with the head. NULL: no memory. */
struct slab *slab_create(const struct mem *parent, size_t size);
/* Everything is back. NULL is fine. */
void slab_destroy(struct slab *slab);

#endif
