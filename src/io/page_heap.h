/* SPDX-License-Identifier: MIT */
/*
 * A heap over page memory, for what comes and goes in quantity and in all sizes:
 * cached blocks, indexes and filters, buffers of flushes and merges. What is
 * resident is known at any time, bounded, and given back; a C library keeps what
 * was freed, in pieces, and can come to hold several times what is in use.
 *
 * Shape: regions of 4 MiB, cut into runs of pages. Up to 32 KiB an allocation is
 * a slot in a run that holds slots of one size class (sixteen classes per
 * doubling, so a slot is at most a sixteenth larger than what was asked for; at
 * least eight slots in a run, so that little is left at its end). Above that it
 * is a run, and beyond half a region a mapping of its own.
 *
 * Invariants
 *  I1 The runs of each half of a region tile it, the first behind the region's head. Two
 *     free neighbours of a half in the same state are one.
 *  I2 A free run is idle (its pages may be resident) or clean (they are not). At most
 *     `idle_max` bytes are idle, and where there are huge pages one of them more: beyond
 *     that the largest are discarded.
 *  I3 resident_bytes counts every page that was handed out or may be resident
 *     otherwise, heads of regions included: the real thing is never more.
 *  I4 Where idle_max allows, a half is a huge page: from the first byte that is handed out of it
 *     nothing in it is clean. When a part of it is discarded it takes small pages again,
 *     until all of it is clean. The first region has small pages always: an idle database
 *     needs a few of them.
 *
 * Failure: NULL when the machine gives no page memory. Freed memory is poisoned
 * for the address sanitizer, and so is the rest of a slot behind what was asked.
 *
 * Concurrency: any thread; one mutex, held for a few list operations and, while
 * pages are given back, for that call.
 */
#ifndef ESKER_IO_PAGE_HEAP_H
#define ESKER_IO_PAGE_HEAP_H

#include "io/io.h"

struct page_heap;

struct page_heap_stats {
    uint64_t resident_bytes; /* I3 */
    uint64_t used_bytes;     /* slots and runs that are handed out */
    uint64_t idle_bytes;     /* free runs that may be resident */
    uint64_t huge_bytes;     /* halves that may be huge pages, free or not */
    uint64_t regions, alone; /* mappings */
};

/* idle_max: what may stay resident in free runs. */
NODISCARD esker_status page_heap_create(struct io *io, uint64_t idle_max, struct page_heap **out);
/* Everything of it was freed. NULL is fine. */
void page_heap_destroy(struct page_heap *heap);
/* Allocation through it; valid as long as the heap. Alignments up to a page. */
void page_heap_mem(struct page_heap *heap, struct mem *out);

/* What an allocation of so many bytes takes: its slot, or its pages. */
uint64_t page_heap_room(uint64_t size);
/* I3, without the lock. */
uint64_t page_heap_resident_bytes(const struct page_heap *heap);
void page_heap_get_stats(struct page_heap *heap, struct page_heap_stats *out);
/* Gives back every idle page. */
void page_heap_trim(struct page_heap *heap);

#endif
