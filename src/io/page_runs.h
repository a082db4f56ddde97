/* SPDX-License-Identifier: MIT */
/*
 * Runs of pages out of aligned regions, for page_heap.c; its header has the
 * invariants. Every call is made with the mutex held.
 */
#ifndef ESKER_IO_PAGE_RUNS_H
#define ESKER_IO_PAGE_RUNS_H

#include "base/assert.h"
#include "base/poison.h"
#include "io/page_heap.h"
#include "sync/atomic.h"
#include "sync/mutex.h"

enum {
    PAGE_BYTES = 4096,
    PAGE_REGION_BYTES = 4 << 20,
    PAGE_REGION_PAGES = PAGE_REGION_BYTES / PAGE_BYTES,
    PAGE_HALF_PAGES = PAGE_REGION_PAGES / 2, /* one huge page */
    PAGE_RUN_MAX_BYTES = PAGE_REGION_BYTES / 2,
    PAGE_HUGE_IDLE_LEAST = 1 << 20, /* a heap that may not keep so much is too small for huge pages */
    PAGE_BINS = 96                  /* run lengths: each of its own up to 64 pages, then eight per doubling */
};

enum page_run_state {
    PAGE_RUN_INSIDE, /* no first or last page of a run */
    PAGE_RUN_IDLE,   /* free, may be resident */
    PAGE_RUN_CLEAN,  /* free, not resident */
    PAGE_RUN_SPAN,   /* slots */
    PAGE_RUN_WHOLE   /* one allocation */
};

/* A run's first page has all of it; its last page has pages and state. */
struct page_run {
    struct page_run *next, *prev; /* of a bin, or of a class's spans */
    uint16_t pages;
    uint8_t state;
    uint8_t class_no;
    uint16_t used, fresh, free_slot; /* of a span: slots in use, slots ever used, first free one + 1 */
};

/* At an aligned address, so that the region of any pointer into it is found. */
struct page_region {
    struct page_region *next, *prev;
    uint64_t alone_bytes;              /* of a mapping of its own; 0 = a region with runs */
    bool small;                        /* never huge: the heap's first region, or heaps without */
    bool huge[2];                      /* of a half: it may be a huge page (I4) */
    uint16_t first[PAGE_REGION_PAGES]; /* of a page of a span: the span's first page */
    struct page_run runs[PAGE_REGION_PAGES];
};

_Static_assert(PAGE_HALF_PAGES *PAGE_BYTES == IO_HUGE_BYTES, "a half is a huge page");

enum { PAGE_REGION_HEAD_PAGES = (sizeof(struct page_region) + PAGE_BYTES - 1) / PAGE_BYTES };

struct page_bins {
    uint64_t set[2]; /* bit per bin that is not empty */
    struct page_run *heads[PAGE_BINS];
};

struct page_runs {
    struct io *io;
    uint64_t idle_max_pages;
    bool huge;
    struct mutex mutex;
    /* guarded by the mutex */
    struct page_region *regions; /* with runs */
    uint64_t region_count, alone_count, idle_pages;
    struct page_bins idle, clean;
    /* written under the mutex */
    _Atomic uint64_t resident_bytes;
};

void page_runs_init(struct page_runs *runs, struct io *io, uint64_t idle_max);
void page_runs_fini(struct page_runs *runs);
/* At most PAGE_RUN_MAX_BYTES of pages, in state WHOLE. NULL: no memory. */
struct page_run *page_runs_take(struct page_runs *runs, uint32_t pages);
void page_runs_give(struct page_runs *runs, struct page_run *run);
/* A mapping of its own. */
void *page_runs_take_alone(struct page_runs *runs, uint64_t size);
/* Returns what it took, with its head. */
uint64_t page_runs_give_alone(struct page_runs *runs, void *ptr);
/* The run that ptr lies in: any slot of a span, or the start. False: a mapping of its own. */
bool page_runs_find(struct page_runs *runs, void *ptr, struct page_run **out);
void page_run_make_span(struct page_run *run, uint8_t class_no);
/* Halves that may be huge pages and are not clean. */
uint64_t page_runs_huge_bytes(const struct page_runs *runs);
/* Discards idle runs, the largest first, until at most that many pages are left. */
void page_runs_discard(struct page_runs *runs, uint64_t most_pages);

static inline struct page_region *
page_region_of(const void *ptr)
{
    uintptr_t at = (uintptr_t)ptr;
    return (struct page_region *)(at - at % PAGE_REGION_BYTES);
}

static inline uint32_t
page_run_index(const struct page_run *run)
{
    return (uint32_t)(run - page_region_of(run)->runs);
}

static inline uint8_t *
page_run_start(const struct page_run *run)
{
    return (uint8_t *)page_region_of(run) + (uint64_t)page_run_index(run) * PAGE_BYTES;
}

#endif
