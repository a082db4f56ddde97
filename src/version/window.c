/* SPDX-License-Identifier: MIT */
#include "version/window.h"

#include "base/assert.h"

enum { WINDOW_OPS_SAMPLE = 1000, WINDOW_BYTES_SAMPLE = 64 << 10 }; /* so much says what an entry takes */

enum { WINDOW_FRAME_TYPE = 4 }; /* format/frame.h */

uint32_t
window_op_capacity(uint64_t cap_bytes)
{
    uint64_t ops = cap_bytes / 48;
    return (uint32_t)MIN(MAX(ops, (uint64_t)64), (uint64_t)MEMTABLE_OPS_MAX);
}

static uint64_t
window_bitmap_bytes(uint64_t cap_bytes)
{
    return align_up(cap_bytes / WINDOW_GRANULE + 1, 64) / 8;
}

/* The bitmap, and the starts behind it. */
static uint64_t
window_notes_bytes(uint64_t cap_bytes)
{
    return window_bitmap_bytes(cap_bytes) + (cap_bytes / WINDOW_STRETCH_BYTES + 1) * sizeof(uint32_t);
}

uint64_t
window_bytes_max(uint64_t cap_bytes, uint32_t op_cap)
{
    return cap_bytes + memtable_index_bytes(op_cap) + window_notes_bytes(cap_bytes);
}

/* ---- Memory that is used again --------------------------------------------------- */

void
window_spare_init(struct window_spare *spare)
{
    *spare = (struct window_spare){0};
    mutex_init(&spare->mutex);
}

/* False: the window's memory is not wanted. *kept_out: what stays charged for it. */
static bool
window_spare_give(struct window *window, uint64_t *kept_out)
{
    struct window_spare *spare = window->spare;
    if (spare == NULL || window->data == NULL) {
        return false;
    }
    mutex_lock(&spare->mutex);
    bool wanted = spare->wanted_bytes == window->cap_bytes && spare->data == NULL;
    if (wanted) {
        spare->data = window->data;
        spare->bytes = window->cap_bytes;
        /* relaxed: nobody else is left */
        spare->charged_bytes = MIN(load_relaxed(&window->charged_bytes), window->cap_bytes);
        *kept_out = spare->charged_bytes;
    }
    mutex_unlock(&spare->mutex);
    return wanted;
}

/* The memory, if it is of that size, or NULL; another size is given back. */
static uint8_t *
window_spare_take(struct window_spare *spare, struct io *io, struct block_cache *budget, uint64_t cap_bytes,
                  uint64_t *charged_out)
{
    mutex_lock(&spare->mutex);
    uint8_t *data = spare->data;
    uint64_t bytes = spare->bytes;
    uint64_t charged = spare->charged_bytes;
    spare->data = NULL;
    spare->wanted_bytes = cap_bytes;
    mutex_unlock(&spare->mutex);
    if (data == NULL || bytes == cap_bytes) {
        *charged_out = data != NULL ? charged : 0;
        return data;
    }
    io->ops->unmap_memory(io, data, bytes);
    if (budget != NULL) {
        block_cache_discharge(budget, MEMORY_WINDOWS, charged);
    }
    *charged_out = 0;
    return NULL;
}

void
window_spare_drop(struct window_spare *spare, struct io *io, struct block_cache *budget)
{
    uint64_t charged;
    uint8_t *data = window_spare_take(spare, io, budget, 0, &charged);
    ASSERT(data == NULL);
}

void
window_spare_fini(struct window_spare *spare)
{
    ASSERT(spare->data == NULL);
    mutex_fini(&spare->mutex);
}

/* ---- Life ------------------------------------------------------------------------ */

static void
window_free(struct window *window)
{
    uint64_t kept = 0;
    memtable_destroy(window->table);
    log_file_destroy(window->log);
    if (window_spare_give(window, &kept)) {
        window->data = NULL;
    }
    if (window->budget != NULL) {
        /* relaxed: nobody else is left */
        block_cache_discharge(window->budget, MEMORY_WINDOWS, load_relaxed(&window->charged_bytes) - kept);
    }
    if (window->data != NULL) {
        window->io->ops->unmap_memory(window->io, window->data, window->cap_bytes);
    }
    if (window->applied != NULL) {
        void *notes = (void *)(uintptr_t)window->applied; /* the cast drops _Atomic */
        window->io->ops->unmap_memory(window->io, notes, window_notes_bytes(window->cap_bytes));
    }
    mem_free(window->mem, window);
}

esker_status
window_create(struct io *io, const struct mem *mem, struct block_cache *budget, uint8_t *data,
              uint64_t cap_bytes, uint64_t base_lsn, uint32_t op_cap, uint64_t hash_seed, struct window **out)
{
    ASSERT(cap_bytes % WINDOW_GRANULE == 0 && base_lsn % 2 == 0);
    struct window *window = mem_alloc_aligned(mem, CACHE_LINE_BYTES, sizeof *window);
    if (window == NULL) {
        if (data != NULL) {
            io->ops->unmap_memory(io, data, cap_bytes);
        }
        return FAIL_NO_MEMORY("a memtable");
    }
    *window = (struct window){.io = io,
                              .mem = mem,
                              .budget = budget,
                              .data = data,
                              .cap_bytes = cap_bytes,
                              .base_lsn = base_lsn,
                              .rows_lsn = base_lsn,
                              .end_lsn = base_lsn + cap_bytes / LSN_BYTES,
                              .op_cap = op_cap};
    store_relaxed(&window->refs, 1); /* relaxed: not shared yet */
    void *memory = NULL;
    int failed = 0;
    if (window->data == NULL) {
        failed = io->ops->map_memory(io, cap_bytes, &memory);
        window->data = failed == 0 ? memory : NULL;
    }
    if (failed == 0) {
        failed = io->ops->map_memory(io, window_notes_bytes(cap_bytes), &memory);
        window->applied = failed == 0 ? memory : NULL;
    }
    if (failed == 0) {
        window->starts = (_Atomic uint32_t *)(void *)((uint8_t *)memory + window_bitmap_bytes(cap_bytes));
    }
    esker_status status = ESKER_OK;
    if (failed != 0) {
        status = FAIL_NO_MEMORY("a memtable");
    } else {
        status = memtable_create(io, window->data, cap_bytes, base_lsn, op_cap, hash_seed, &window->table);
    }
    if (status != ESKER_OK) {
        window_free(window);
        return status;
    }
    *out = window;
    return ESKER_OK;
}

esker_status
window_create_spare(struct io *io, const struct mem *mem, struct block_cache *budget,
                    struct window_spare *spare, uint64_t cap_bytes, uint64_t base_lsn, uint32_t op_cap,
                    uint64_t hash_seed, struct window **out)
{
    uint64_t charged = 0;
    uint8_t *data = window_spare_take(spare, io, budget, cap_bytes, &charged);
    esker_status status = window_create(io, mem, budget, data, cap_bytes, base_lsn, op_cap, hash_seed, out);
    if (status != ESKER_OK) {
        if (charged > 0) {
            block_cache_discharge(budget, MEMORY_WINDOWS, charged);
        }
        return status;
    }
    (*out)->spare = spare;
    (*out)->recycled_bytes = data != NULL ? cap_bytes : 0;
    store_relaxed(&(*out)->charged_bytes, charged); /* relaxed: not shared yet */
    return ESKER_OK;
}

/* Each caller settles its own difference, so the sum is right whoever is last. */
static void
window_charge_from(struct window *window, uint64_t before, uint64_t bytes)
{
    if (bytes > before) {
        block_cache_charge(window->budget, MEMORY_WINDOWS, bytes - before);
    } else if (bytes < before) {
        block_cache_discharge(window->budget, MEMORY_WINDOWS, before - bytes);
    }
}

void
window_charge(struct window *window, uint64_t bytes)
{
    uint64_t before = load_relaxed(&window->charged_bytes);        /* relaxed: the CAS decides */
    while (!cas_relaxed(&window->charged_bytes, &before, bytes)) { /* relaxed: a sum */
    }
    window_charge_from(window, before, bytes);
}

void
window_charge_more(struct window *window, uint64_t bytes)
{
    uint64_t before = load_relaxed(&window->charged_bytes); /* relaxed: the CAS decides */
    while (bytes > before && !cas_relaxed(&window->charged_bytes, &before, bytes)) { /* relaxed: a sum */
    }
    window_charge_from(window, before, MAX(bytes, before));
}

uint64_t
window_resident_bytes(const struct window *window, uint64_t bytes)
{
    /* relaxed: an estimate */
    uint64_t populated = MAX(load_relaxed(&window->populated_bytes), window->recycled_bytes);
    bool huge = window->cap_bytes >= IO_HUGE_FROM && !window->small_pages;
    uint64_t unit = huge ? (uint64_t)IO_HUGE_BYTES : (uint64_t)LOG_PAGE_BYTES;
    return MIN(align_up(MAX(bytes, populated), unit), window->cap_bytes) +
           memtable_resident_bytes(window->table) + window_notes_bytes(window->cap_bytes);
}

uint64_t
window_expected_bytes(const struct window *window, uint64_t bytes_per_op)
{
    uint64_t ops = bytes_per_op != 0 ? window->cap_bytes / bytes_per_op : window->op_cap;
    return window->cap_bytes + memtable_expected_bytes(window->table, ops) +
           window_notes_bytes(window->cap_bytes);
}

void
window_ref(struct window *window)
{
    uint32_t before = add_relaxed(&window->refs, 1); /* relaxed: the caller holds one already */
    ASSERT(before > 0);
}

void
window_unref(struct window *window)
{
    /* pairs: WINDOW_REFS — uses by other holders happen before the memory goes. */
    if (sub_acq_rel(&window->refs, 1) == 1) {
        window_free(window);
    }
}

uint64_t
window_bytes_per_op(const struct window *window)
{
    uint64_t tail = load_relaxed(&window->tail); /* relaxed: an estimate */
    uint64_t ops = window_tail_ops(tail);
    bool few = ops == 0 || (ops < WINDOW_OPS_SAMPLE && window_tail_bytes(tail) < WINDOW_BYTES_SAMPLE);
    return few ? 0 : MAX(window_tail_bytes(tail) / ops, 1U);
}

void
window_populate(struct window *window, uint64_t upto_bytes, uint64_t bytes_per_op, bool map)
{
    struct io *io = window->io;
    uint64_t upto = MIN(align_up(upto_bytes, LOG_PAGE_BYTES), window->cap_bytes);
    uint64_t done = load_relaxed(&window->populated_bytes); /* relaxed: this thread's own */
    if (io->ops->populate == NULL || upto <= done) {
        return;
    }
    uint64_t present = MAX(done, window->recycled_bytes);
    if (upto > present) {
        io->ops->populate(io, window->data + present, upto - present);
    }
    if (map && window->map != NULL) {
        io->ops->populate(io, window->map + done, upto - done);
    }
    uint64_t most = window->op_cap;
    memtable_populate(window->table, MIN(upto / bytes_per_op, most),
                      MIN(window->cap_bytes / bytes_per_op, most));
    store_relaxed(&window->populated_bytes, upto); /* relaxed: others read an estimate */
}

void
window_set_applied(struct window *window, uint64_t offset)
{
    uint64_t granule = offset / WINDOW_GRANULE;
    /* pairs: APPLIED — bytes, log copy and index links before the bit; sequentially
     * consistent because the writer looks at `visible` next while its predecessor
     * advances `visible` and then looks at this bit (a Dekker hand-off). */
    uint64_t before = or_seq(&window->applied[granule / 64], (uint64_t)1 << (granule % 64));
    ASSERT((before >> (granule % 64) & 1) == 0);
}

bool
window_is_applied(const struct window *window, uint64_t offset)
{
    uint64_t granule = offset / WINDOW_GRANULE;
    /* pairs: APPLIED — the other half of the hand-off. */
    return (load_seq(&window->applied[granule / 64]) >> (granule % 64) & 1) != 0;
}

/* ---- Where frames begin -------------------------------------------------------- */

/* The last noted start that is not behind `offset`. */
static uint64_t
window_known_start(const struct window *window, uint64_t offset)
{
    for (uint64_t i = offset / WINDOW_STRETCH_BYTES; i > 0; i--) {
        /* relaxed: noted before what is below `offset` became visible. */
        uint64_t start = (uint64_t)load_relaxed(&window->starts[i]) * WINDOW_GRANULE;
        if (start != 0 && start <= offset) {
            return start;
        }
    }
    return 0;
}

uint64_t
window_boundary(const struct window *window, uint64_t offset)
{
    uint64_t at = window_known_start(window, offset);
    while (at < offset) {
        uint64_t next = at + window_frame_bytes(window, at);
        if (next > offset) {
            break;
        }
        at = next;
    }
    return at;
}

uint64_t
window_batches_end(const struct window *window, uint64_t offset)
{
    uint64_t found = 0;
    for (uint64_t upto = offset; upto > 0 && found == 0;) {
        uint64_t from = window_known_start(window, upto - 1);
        for (uint64_t at = from; at < upto; at += window_frame_bytes(window, at)) {
            if (window->data[at + WINDOW_FRAME_TYPE] == FRAME_BATCH) {
                found = at + window_frame_bytes(window, at);
            }
        }
        upto = from;
    }
    return found;
}

/* ---- Dead ranges -------------------------------------------------------------- */

static uint64_t
window_tail_lsn(void *ctx)
{
    struct window *window = ctx;
    /* pairs: DEAD_TAIL (both ends) */
    uint64_t bytes = window_tail_bytes(add_acq_rel(&window->tail, 0));
    return window->base_lsn + MIN(bytes, window->cap_bytes) / LSN_BYTES;
}

bool
window_dead_find(struct window *window, struct bytes key, uint64_t lsn, bool backward, struct buf *to)
{
    return memtable_dead_find(window->table, key, lsn, backward, to);
}

void
window_dead_note(struct window *window, struct bytes from, struct bytes to, uint64_t lsn)
{
    if (lsn >= window->base_lsn && lsn <= window->end_lsn) { /* it saw all that is older */
        memtable_dead_note(window->table, from, to, lsn, window_tail_lsn, window);
    }
}
