/* SPDX-License-Identifier: MIT */
/*
 * Regions, and best fit over their free runs: idle ones first, since their
 * pages are there already, then clean ones, then a new region.
 */
#include "io/page_runs.h"

enum { PAGE_BINS_EXACT = 64 };

/* ---- Bins ----------------------------------------------------------------- */

/* The bin that a run of so many pages is kept in: bins above 64 pages cover a range. */
static uint32_t
page_bin_of(uint32_t pages)
{
    if (pages <= PAGE_BINS_EXACT) {
        return pages - 1;
    }
    uint32_t log = 31 - (uint32_t)__builtin_clz(pages); /* 6 to 10 */
    return MIN(PAGE_BINS_EXACT + (log - 6) * 8 + (pages >> (log - 3) & 7), (uint32_t)PAGE_BINS - 1);
}

static void
page_bins_add(struct page_bins *bins, struct page_run *run)
{
    uint32_t bin = page_bin_of(run->pages);
    run->prev = NULL;
    run->next = bins->heads[bin];
    if (run->next != NULL) {
        run->next->prev = run;
    }
    bins->heads[bin] = run;
    bins->set[bin / 64] |= (uint64_t)1 << (bin % 64);
}

static void
page_bins_remove(struct page_bins *bins, struct page_run *run)
{
    uint32_t bin = page_bin_of(run->pages);
    if (run->prev != NULL) {
        run->prev->next = run->next;
    } else {
        bins->heads[bin] = run->next;
    }
    if (run->next != NULL) {
        run->next->prev = run->prev;
    }
    if (bins->heads[bin] == NULL) {
        bins->set[bin / 64] &= ~((uint64_t)1 << (bin % 64));
    }
    run->next = NULL;
    run->prev = NULL;
}

/* The first bin from `bin` on that is not empty, or PAGE_BINS. */
static uint32_t
page_bins_next(const struct page_bins *bins, uint32_t bin)
{
    for (; bin < PAGE_BINS; bin = (bin / 64 + 1) * 64) {
        uint64_t left = bins->set[bin / 64] >> (bin % 64);
        if (left != 0) {
            return bin + (uint32_t)__builtin_ctzll(left);
        }
    }
    return PAGE_BINS;
}

/* Not removed. NULL: none is long enough. */
static struct page_run *
page_bins_fit(const struct page_bins *bins, uint32_t pages)
{
    uint32_t bin = page_bins_next(bins, page_bin_of(pages));
    while (bin < PAGE_BINS) {
        for (struct page_run *run = bins->heads[bin]; run != NULL; run = run->next) {
            if (run->pages >= pages) {
                return run;
            }
        }
        bin = page_bins_next(bins, bin + 1);
    }
    return NULL;
}

/* ---- Halves --------------------------------------------------------------- */

/* The first page of the half that a page lies in, but for the region's head. */
static uint32_t
page_half_first(uint32_t page)
{
    return page < PAGE_HALF_PAGES ? PAGE_REGION_HEAD_PAGES : PAGE_HALF_PAGES;
}

static uint32_t
page_half_end(uint32_t page)
{
    return page < PAGE_HALF_PAGES ? PAGE_HALF_PAGES : PAGE_REGION_PAGES;
}

static bool
page_run_is_half(const struct page_run *run)
{
    uint32_t at = page_run_index(run);
    return at == page_half_first(at) && at + run->pages == page_half_end(at);
}

static void
page_half_allow_huge(const struct page_runs *runs, struct page_region *region, uint32_t half, bool allow)
{
    uint8_t *start = (uint8_t *)region + (uint64_t)half * IO_HUGE_BYTES;
    region->huge[half] = allow;
    runs->io->ops->allow_huge(runs->io, start, IO_HUGE_BYTES, allow);
}

/* ---- Free runs ------------------------------------------------------------ */

static struct page_bins *
page_runs_bins(struct page_runs *runs, uint8_t state)
{
    return state == PAGE_RUN_IDLE ? &runs->idle : &runs->clean;
}

static void
page_runs_resident(struct page_runs *runs, uint64_t change_bytes)
{
    /* relaxed: under the mutex; others read it for itself */
    uint64_t bytes = load_relaxed(&runs->resident_bytes) + change_bytes;
    store_relaxed(&runs->resident_bytes, bytes); /* relaxed: the same */
}

/* Makes [at, at + pages) of a region one run. */
static struct page_run *
page_run_set(struct page_region *region, uint32_t at, uint32_t pages, uint8_t state)
{
    struct page_run *run = &region->runs[at];
    struct page_run *last = &region->runs[at + pages - 1];
    *last = (struct page_run){.pages = (uint16_t)pages, .state = state};
    *run = *last;
    return run;
}

/* Forgets the borders of a run that becomes part of another. */
static void
page_run_forget(struct page_run *run)
{
    run[run->pages - 1].state = PAGE_RUN_INSIDE;
    run->state = PAGE_RUN_INSIDE;
}

static void
page_runs_add_free(struct page_runs *runs, struct page_run *run)
{
    if (run->state == PAGE_RUN_IDLE) {
        runs->idle_pages += run->pages;
    }
    page_bins_add(page_runs_bins(runs, run->state), run);
}

static void
page_runs_remove_free(struct page_runs *runs, struct page_run *run)
{
    if (run->state == PAGE_RUN_IDLE) {
        runs->idle_pages -= run->pages;
    }
    page_bins_remove(page_runs_bins(runs, run->state), run);
}

/* Makes a run that is in no bin free, as one with its neighbours (I1). */
static struct page_run *
page_runs_make_free(struct page_runs *runs, struct page_run *run, uint8_t state)
{
    struct page_region *region = page_region_of(run);
    uint32_t at = page_run_index(run);
    uint32_t pages = run->pages;
    uint32_t first = page_half_first(at);
    uint32_t end = page_half_end(at);
    page_run_forget(run);
    if (at > first && region->runs[at - 1].state == state) {
        struct page_run *before = &region->runs[at - region->runs[at - 1].pages];
        page_runs_remove_free(runs, before);
        pages += before->pages;
        at -= before->pages;
        page_run_forget(before);
    }
    if (at + pages < end && region->runs[at + pages].state == state) {
        struct page_run *after = &region->runs[at + pages];
        page_runs_remove_free(runs, after);
        pages += after->pages;
        page_run_forget(after);
    }
    struct page_run *joined = page_run_set(region, at, pages, state);
    page_runs_add_free(runs, joined);
    return joined;
}

/* ---- Regions -------------------------------------------------------------- */

/* A mapping that begins with a page_region. */
static struct page_region *
page_runs_map(struct page_runs *runs, uint64_t bytes)
{
    void *memory = NULL;
    if (runs->io->ops->map_aligned(runs->io, bytes, PAGE_REGION_BYTES, &memory) != 0) {
        return NULL;
    }
    return memory;
}

static struct page_run *
page_runs_add_half(struct page_runs *runs, struct page_region *region, uint32_t page)
{
    uint32_t first = page_half_first(page);
    struct page_run *run = page_run_set(region, first, page_half_end(page) - first, PAGE_RUN_CLEAN);
    page_runs_add_free(runs, run);
    poison_set(page_run_start(run), (uint64_t)run->pages * PAGE_BYTES);
    return run;
}

/* All of a half that is clean becomes idle: whoever touches a byte of it may have all of it. */
static void
page_runs_open_half(struct page_runs *runs, struct page_run *run)
{
    struct page_region *region = page_region_of(run);
    uint32_t half = page_run_index(run) / PAGE_HALF_PAGES;
    page_runs_remove_free(runs, run);
    if (!region->huge[half]) {
        page_half_allow_huge(runs, region, half, true);
    }
    page_runs_resident(runs, (uint64_t)run->pages * PAGE_BYTES);
    page_runs_add_free(runs, page_run_set(region, page_run_index(run), run->pages, PAGE_RUN_IDLE));
}

static bool
page_runs_add_region(struct page_runs *runs)
{
    struct page_region *region = page_runs_map(runs, PAGE_REGION_BYTES);
    if (region == NULL) {
        return false;
    }
    bool huge = runs->huge && runs->region_count > 0; /* an idle database touches a few pages of the first */
    if (huge) {                                       /* before the head is touched */
        runs->io->ops->allow_huge(runs->io, region, PAGE_REGION_BYTES, true);
        region->huge[0] = true;
        region->huge[1] = true;
    }
    region->small = !huge;
    region->next = runs->regions;
    if (region->next != NULL) {
        region->next->prev = region;
    }
    runs->regions = region;
    runs->region_count++;
    page_runs_resident(runs, (uint64_t)PAGE_REGION_HEAD_PAGES * PAGE_BYTES);
    struct page_run *run = page_runs_add_half(runs, region, 0);
    (void)page_runs_add_half(runs, region, PAGE_HALF_PAGES);
    if (huge) {
        page_runs_open_half(runs, run);
    }
    return true;
}

static void
page_runs_drop_region(struct page_runs *runs, struct page_region *region)
{
    if (region->prev != NULL) {
        region->prev->next = region->next;
    } else {
        runs->regions = region->next;
    }
    if (region->next != NULL) {
        region->next->prev = region->prev;
    }
    runs->region_count--;
    page_runs_resident(runs, -((uint64_t)PAGE_REGION_HEAD_PAGES * PAGE_BYTES));
    poison_clear(region, PAGE_REGION_BYTES);
    runs->io->ops->unmap_aligned(runs->io, region, PAGE_REGION_BYTES);
}

/* The memory of an idle run goes back; a region that has nothing else goes, too, unless it is the last. */
static void
page_runs_discard_run(struct page_runs *runs, struct page_run *run)
{
    struct page_region *region = page_region_of(run);
    uint32_t half = page_run_index(run) / PAGE_HALF_PAGES;
    page_runs_remove_free(runs, run);
    uint64_t bytes = (uint64_t)run->pages * PAGE_BYTES;
    if (region->huge[half] && run->pages < PAGE_HALF_PAGES) {
        page_half_allow_huge(runs, region, half, false); /* or the kernel would fill it up again */
    }
    runs->io->ops->discard(runs->io, page_run_start(run), bytes);
    page_runs_resident(runs, -bytes);
    (void)page_runs_make_free(runs, run, PAGE_RUN_CLEAN);
    const struct page_run *low = &region->runs[PAGE_REGION_HEAD_PAGES];
    const struct page_run *high = &region->runs[PAGE_HALF_PAGES];
    if (low->state == PAGE_RUN_CLEAN && page_run_is_half(low) && high->state == PAGE_RUN_CLEAN &&
        page_run_is_half(high) && runs->region_count > 1) {
        page_runs_remove_free(runs, &region->runs[PAGE_REGION_HEAD_PAGES]);
        page_runs_remove_free(runs, &region->runs[PAGE_HALF_PAGES]);
        page_runs_drop_region(runs, region);
    }
}

void
page_runs_discard(struct page_runs *runs, uint64_t most_pages)
{
    while (runs->idle_pages > most_pages) {
        uint32_t word = runs->idle.set[1] != 0 ? 1 : 0;
        uint32_t bin = word * 64 + 63 - (uint32_t)__builtin_clzll(runs->idle.set[word]);
        page_runs_discard_run(runs, runs->idle.heads[bin]);
    }
}

/* ---- Taking and giving ------------------------------------------------------ */

void
page_runs_init(struct page_runs *runs, struct io *io, uint64_t idle_max)
{
    *runs = (struct page_runs){.io = io, .idle_max_pages = idle_max / PAGE_BYTES};
    if (idle_max >= PAGE_HUGE_IDLE_LEAST && io->ops->allow_huge != NULL) {
        runs->huge = true;
        runs->idle_max_pages += PAGE_HALF_PAGES;
    }
    mutex_init(&runs->mutex);
}

void
page_runs_fini(struct page_runs *runs)
{
    ASSERT(runs->alone_count == 0);
    while (runs->regions != NULL) {
        page_runs_drop_region(runs, runs->regions);
    }
    mutex_fini(&runs->mutex);
}

struct page_run *
page_runs_take(struct page_runs *runs, uint32_t pages)
{
    ASSERT(pages > 0 && pages <= PAGE_RUN_MAX_BYTES / PAGE_BYTES);
    struct page_run *run = page_bins_fit(&runs->idle, pages);
    if (run == NULL) {
        run = page_bins_fit(&runs->clean, pages);
    }
    if (run == NULL) {
        if (!page_runs_add_region(runs)) {
            return NULL;
        }
        run = page_bins_fit(&runs->idle, pages);
        run = run != NULL ? run : page_bins_fit(&runs->clean, pages);
    }
    struct page_region *region = page_region_of(run);
    if (!region->small && run->state == PAGE_RUN_CLEAN && page_run_is_half(run)) {
        page_runs_open_half(runs, run);
    }
    uint32_t at = page_run_index(run);
    uint32_t rest = run->pages - pages;
    uint8_t state = run->state;
    page_runs_remove_free(runs, run);
    page_run_forget(run);
    if (rest > 0) {
        page_runs_add_free(runs, page_run_set(region, at + pages, rest, state));
    }
    if (state == PAGE_RUN_CLEAN) {
        page_runs_resident(runs, (uint64_t)pages * PAGE_BYTES);
    }
    return page_run_set(region, at, pages, PAGE_RUN_WHOLE);
}

void
page_runs_give(struct page_runs *runs, struct page_run *run)
{
    poison_set(page_run_start(run), (uint64_t)run->pages * PAGE_BYTES);
    page_runs_make_free(runs, run, PAGE_RUN_IDLE);
    if (runs->idle_pages > runs->idle_max_pages) {
        page_runs_discard(runs, runs->idle_max_pages - runs->idle_max_pages / 4);
    }
}

void *
page_runs_take_alone(struct page_runs *runs, uint64_t size)
{
    uint64_t bytes = align_up(size, PAGE_BYTES) + PAGE_BYTES;
    struct page_region *region = page_runs_map(runs, bytes);
    if (region == NULL) {
        return NULL;
    }
    region->alone_bytes = bytes;
    runs->alone_count++;
    page_runs_resident(runs, bytes);
    uint8_t *data = (uint8_t *)region + PAGE_BYTES;
    poison_set(data + size, bytes - PAGE_BYTES - size);
    return data;
}

uint64_t
page_runs_give_alone(struct page_runs *runs, void *ptr)
{
    struct page_region *region = page_region_of(ptr);
    uint64_t bytes = region->alone_bytes;
    ASSERT(bytes != 0 && ptr == (uint8_t *)region + PAGE_BYTES && runs->alone_count > 0);
    runs->alone_count--;
    page_runs_resident(runs, -bytes);
    poison_clear(region, bytes);
    runs->io->ops->unmap_aligned(runs->io, region, bytes);
    return bytes;
}

bool
page_runs_find(struct page_runs *runs, void *ptr, struct page_run **out)
{
    (void)runs;
    struct page_region *region = page_region_of(ptr);
    if (region->alone_bytes != 0) {
        return false;
    }
    uint32_t page = (uint32_t)((uint64_t)((uint8_t *)ptr - (uint8_t *)region) / PAGE_BYTES);
    struct page_run *run = &region->runs[page];
    if (run->state != PAGE_RUN_WHOLE || ptr != page_run_start(run)) {
        run = &region->runs[region->first[page]];
    }
    *out = run;
    return true;
}

void
page_run_make_span(struct page_run *run, uint8_t class_no)
{
    struct page_region *region = page_region_of(run);
    uint32_t first = page_run_index(run);
    run->state = PAGE_RUN_SPAN;
    run[run->pages - 1].state = PAGE_RUN_SPAN;
    run->class_no = class_no;
    for (uint32_t page = first; page < first + run->pages; page++) {
        region->first[page] = (uint16_t)first;
    }
}

uint64_t
page_runs_huge_bytes(const struct page_runs *runs)
{
    uint64_t bytes = 0;
    for (const struct page_region *region = runs->regions; region != NULL; region = region->next) {
        for (uint32_t half = 0; half < 2; half++) {
            uint32_t first = page_half_first(half * PAGE_HALF_PAGES);
            const struct page_run *run = &region->runs[first];
            bool clean = run->state == PAGE_RUN_CLEAN && page_run_is_half(run);
            bytes += region->huge[half] && !clean ? IO_HUGE_BYTES : 0;
        }
    }
    return bytes;
}
