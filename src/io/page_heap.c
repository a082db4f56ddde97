/* SPDX-License-Identifier: MIT */
/* Slots, mappings of their own, and the door. Runs of pages: page_runs.c. */
#include "io/page_runs.h"

enum {
    PAGE_HEAP_SLOT_UNIT = 64,
    PAGE_HEAP_SLOT_MAX = 32 << 10,
    PAGE_HEAP_CLASSES = 96, /* 16 up to 1 KiB, 16 for each of the five doublings after it */
    PAGE_HEAP_SLOTS_MIN = 8,
    PAGE_HEAP_SPAN_PAGES = 8 /* small slots may have so many for little to be left over */
};

struct page_class {
    struct page_run *partial; /* spans with a free slot; the one that was full last is first */
    uint16_t span_pages;
    uint16_t slots;
};

struct page_heap {
    struct page_runs runs; /* first: the mutex is there, and guards what follows */
    struct page_class classes[PAGE_HEAP_CLASSES];
    uint64_t used_bytes;
};

/* ---- Classes -------------------------------------------------------------- */

static uint32_t
page_class_of(uint64_t size)
{
    uint64_t last = MAX(size, (uint64_t)1) - 1;
    if (last < 1024) {
        return (uint32_t)(last / PAGE_HEAP_SLOT_UNIT);
    }
    uint32_t log = 63 - (uint32_t)__builtin_clzll(last);
    return 16 + (log - 10) * 16 + (uint32_t)(last >> (log - 4) & 15);
}

static uint64_t
page_class_bytes(uint32_t class_no)
{
    if (class_no < 16) {
        return (uint64_t)(class_no + 1) * PAGE_HEAP_SLOT_UNIT;
    }
    uint32_t log = 10 + (class_no - 16) / 16;
    return (uint64_t)(16 + (class_no - 16) % 16 + 1) << (log - 4);
}

/* The shortest run with at least eight slots and little left over. */
static void
page_class_shape(uint32_t class_no, struct page_class *out)
{
    uint64_t slot = page_class_bytes(class_no);
    uint64_t least = align_up(slot * PAGE_HEAP_SLOTS_MIN, PAGE_BYTES) / PAGE_BYTES;
    uint64_t best = least;
    uint64_t most = MAX(least + least / 2, (uint64_t)PAGE_HEAP_SPAN_PAGES);
    for (uint64_t pages = least; pages <= most; pages++) {
        uint64_t left = pages * PAGE_BYTES % slot;
        if (left * best < best * PAGE_BYTES % slot * pages) {
            best = pages;
        }
        if (left * 64 <= pages * PAGE_BYTES) {
            break;
        }
    }
    *out = (struct page_class){.span_pages = (uint16_t)best, .slots = (uint16_t)(best * PAGE_BYTES / slot)};
}

uint64_t
page_heap_room(uint64_t size)
{
    if (size <= PAGE_HEAP_SLOT_MAX) {
        return page_class_bytes(page_class_of(size));
    }
    uint64_t pages = align_up(size, PAGE_BYTES);
    return pages <= PAGE_RUN_MAX_BYTES ? pages : pages + PAGE_BYTES;
}

/* ---- Slots ---------------------------------------------------------------- */

static void
page_span_unlink(struct page_class *class, struct page_run *span)
{
    if (span->prev != NULL) {
        span->prev->next = span->next;
    } else {
        class->partial = span->next;
    }
    if (span->next != NULL) {
        span->next->prev = span->prev;
    }
    span->next = NULL;
    span->prev = NULL;
}

static void
page_span_push(struct page_class *class, struct page_run *span)
{
    span->prev = NULL;
    span->next = class->partial;
    if (span->next != NULL) {
        span->next->prev = span;
    }
    class->partial = span;
}

/* The number of the next free slot stands in a free slot's first bytes. */
static uint16_t
page_slot_link(uint8_t *slot)
{
    uint16_t next;
    poison_clear(slot, sizeof next);
    memcpy(&next, slot, sizeof next);
    poison_set(slot, sizeof next);
    return next;
}

static void
page_slot_set_link(uint8_t *slot, uint16_t next)
{
    memcpy(slot, &next, sizeof next);
}

static uint8_t *
page_slot_take(struct page_heap *heap, uint32_t class_no)
{
    struct page_class *class = &heap->classes[class_no];
    uint64_t bytes = page_class_bytes(class_no);
    struct page_run *span = class->partial;
    if (span == NULL) {
        span = page_runs_take(&heap->runs, class->span_pages);
        if (span == NULL) {
            return NULL;
        }
        page_run_make_span(span, (uint8_t)class_no);
        page_span_push(class, span);
    }
    uint8_t *start = page_run_start(span);
    uint8_t *slot;
    if (span->free_slot != 0) {
        slot = start + (span->free_slot - 1) * bytes;
        span->free_slot = page_slot_link(slot);
    } else {
        slot = start + span->fresh * bytes;
        span->fresh++;
    }
    span->used++;
    if (span->used == class->slots) {
        page_span_unlink(class, span);
    }
    heap->used_bytes += bytes;
    return slot;
}

static void
page_slot_give(struct page_heap *heap, struct page_run *span, uint8_t *slot)
{
    struct page_class *class = &heap->classes[span->class_no];
    uint64_t bytes = page_class_bytes(span->class_no);
    uint64_t offset = (uint64_t)(slot - page_run_start(span));
    ASSERT(offset % bytes == 0 && offset / bytes < span->fresh && span->used > 0);
    if (span->used == class->slots) {
        page_span_push(class, span);
    }
    poison_clear(slot, sizeof(uint16_t)); /* the user may have asked for less */
    page_slot_set_link(slot, span->free_slot);
    poison_set(slot, bytes);
    span->free_slot = (uint16_t)(offset / bytes + 1);
    span->used--;
    heap->used_bytes -= bytes;
    if (span->used == 0) {
        page_span_unlink(class, span);
        page_runs_give(&heap->runs, span);
    }
}

/* ---- The door ------------------------------------------------------------- */

static void *
page_heap_alloc_locked(struct page_heap *heap, uint64_t size)
{
    if (size > PAGE_RUN_MAX_BYTES) {
        void *ptr = page_runs_take_alone(&heap->runs, size);
        heap->used_bytes += ptr != NULL ? page_heap_room(size) : 0;
        return ptr;
    }
    struct page_run *run = page_runs_take(&heap->runs, (uint32_t)(align_up(size, PAGE_BYTES) / PAGE_BYTES));
    if (run == NULL) {
        return NULL;
    }
    heap->used_bytes += (uint64_t)run->pages * PAGE_BYTES;
    return page_run_start(run);
}

/* Requests that want more than a cache line's alignment get whole pages. */
static void *
page_heap_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    struct page_heap *heap = ctx;
    if (alignment > PAGE_BYTES || size > INT64_MAX) {
        return NULL;
    }
    mutex_lock(&heap->runs.mutex);
    void *ptr = size <= PAGE_HEAP_SLOT_MAX && alignment <= PAGE_HEAP_SLOT_UNIT
                    ? page_slot_take(heap, page_class_of(size))
                    : page_heap_alloc_locked(heap, size);
    mutex_unlock(&heap->runs.mutex);
    if (ptr != NULL) {
        poison_clear(ptr, size);
    }
    return ptr;
}

static void *
page_heap_alloc(void *ctx, size_t size)
{
    return page_heap_aligned_alloc(ctx, 1, size);
}

static void
page_heap_free(void *ctx, void *ptr)
{
    struct page_heap *heap = ctx;
    struct page_run *run;
    if (ptr == NULL) {
        return;
    }
    mutex_lock(&heap->runs.mutex);
    if (page_runs_find(&heap->runs, ptr, &run)) {
        if (run->state == PAGE_RUN_SPAN) {
            page_slot_give(heap, run, ptr);
        } else {
            ASSERT(run->state == PAGE_RUN_WHOLE && ptr == page_run_start(run));
            heap->used_bytes -= (uint64_t)run->pages * PAGE_BYTES;
            page_runs_give(&heap->runs, run);
        }
    } else {
        heap->used_bytes -= page_runs_give_alone(&heap->runs, ptr);
    }
    mutex_unlock(&heap->runs.mutex);
}

esker_status
page_heap_create(struct io *io, uint64_t idle_max, struct page_heap **out)
{
    struct page_heap *heap = mem_zalloc(io->mem, sizeof *heap);
    if (heap == NULL) {
        return FAIL_NO_MEMORY("a heap");
    }
    page_runs_init(&heap->runs, io, idle_max);
    for (uint32_t class_no = 0; class_no < PAGE_HEAP_CLASSES; class_no++) {
        page_class_shape(class_no, &heap->classes[class_no]);
    }
    *out = heap;
    return ESKER_OK;
}

void
page_heap_destroy(struct page_heap *heap)
{
    if (heap == NULL) {
        return;
    }
    ASSERT(heap->used_bytes == 0);
    page_runs_fini(&heap->runs);
    mem_free(heap->runs.io->mem, heap);
}

void
page_heap_mem(struct page_heap *heap, struct mem *out)
{
    esker_allocator hooks = {.alloc = page_heap_alloc,
                             .aligned_alloc = page_heap_aligned_alloc,
                             .free = page_heap_free,
                             .ctx = heap};
    mem_init(out, &hooks);
}

uint64_t
page_heap_resident_bytes(const struct page_heap *heap)
{
    return load_relaxed(&heap->runs.resident_bytes); /* relaxed: a number for itself */
}

void
page_heap_get_stats(struct page_heap *heap, struct page_heap_stats *out)
{
    mutex_lock(&heap->runs.mutex);
    *out = (struct page_heap_stats){.resident_bytes = page_heap_resident_bytes(heap),
                                    .used_bytes = heap->used_bytes,
                                    .idle_bytes = heap->runs.idle_pages * PAGE_BYTES,
                                    .huge_bytes = page_runs_huge_bytes(&heap->runs),
                                    .regions = heap->runs.region_count,
                                    .alone = heap->runs.alone_count};
    mutex_unlock(&heap->runs.mutex);
}

void
page_heap_trim(struct page_heap *heap)
{
    mutex_lock(&heap->runs.mutex);
    page_runs_discard(&heap->runs, 0);
    mutex_unlock(&heap->runs.mutex);
}
