/* SPDX-License-Identifier: MIT */
/*
 * The ordered view of a memtable: keys by the tree's cursor, the versions of a
 * key by its list, from the head (newest) to the first below the limit.
 *
 * Forwards a key's versions come in list order. Backwards they come oldest
 * first, against the links: the list is copied into an array once per key.
 *
 * Concurrency: wait-free, against any number of writers. What is inserted
 * meanwhile has LSN >= limit, or nothing was promised about it.
 */
#include "memtable/memtable_priv.h"

enum { MEMTABLE_ITER_INLINE_VERSIONS = 16, MEMTABLE_ITER_AHEAD = 16, MEMTABLE_ITER_AHEAD_ENTRY = 8 };

struct memtable_iter {
    struct iter iter;
    const struct memtable *table;
    const struct mem *mem;
    uint64_t limit;   /* granules below it are shown */
    uint32_t current; /* vnode of the row */
    /* The shown versions of the current key, newest first; count 0: not collected. */
    uint32_t version_count;
    uint32_t version_at;
    uint32_t version_cap;
    uint32_t *versions; /* inline_versions or owned */
    uint32_t inline_versions[MEMTABLE_ITER_INLINE_VERSIONS];
    /* Leaves that the cursor found already, the next one first. */
    bool forward;              /* their direction */
    esker_status ahead_status; /* why there are no more, if not OK */
    uint32_t leaf;             /* anchor of the row */
    uint32_t ahead_at;         /* in the ring */
    uint32_t ahead_count;
    uint32_t ahead_goal; /* grows with the length of the walk */
    uint32_t ahead[MEMTABLE_ITER_AHEAD];
    struct art_cursor cursor;
};

static struct memtable_iter *
memtable_iter_of(struct iter *it)
{
    return CONTAINER_OF(it, struct memtable_iter, iter);
}

/* The row of vnode `index`. */
static esker_status
memtable_iter_show(struct memtable_iter *self, uint32_t index)
{
    uint32_t granule = self->table->vnodes.array[index].entry;
    const uint8_t *entry = vnode_entry_at(&self->table->vnodes, granule);
    self->current = index;
    self->iter.op = entry[0];
    self->iter.lsn = self->table->base_lsn + granule;
    self->iter.key = entry_key_trusted(entry);
    self->iter.value = entry_value_trusted(entry);
    return ESKER_OK;
}

/* ---- Keys ------------------------------------------------------------------ */

/* `status` of a search. The walk starts at what was found. */
static esker_status
memtable_iter_found(struct memtable_iter *self, esker_status status)
{
    self->ahead_status = status;
    self->ahead_count = 0;
    self->ahead_goal = 0;
    self->leaf = self->cursor.leaf;
    return status;
}

/* Lets the cursor run ahead, and starts the cache misses of what it finds: the
 * anchor at once, its entry when the anchor should have come. */
static void
memtable_iter_look_ahead(struct memtable_iter *self)
{
    const struct vnodes *vnodes = &self->table->vnodes;
    self->ahead_goal = MIN(self->ahead_goal + 2, (uint32_t)MEMTABLE_ITER_AHEAD);
    while (self->ahead_count < self->ahead_goal && self->ahead_status == ESKER_OK) {
        self->ahead_status = self->forward ? art_cursor_next(&self->cursor) : art_cursor_prev(&self->cursor);
        if (self->ahead_status != ESKER_OK) {
            return;
        }
        PREFETCH_READ(&vnodes->array[self->cursor.leaf]);
        self->ahead[(self->ahead_at + self->ahead_count++) % MEMTABLE_ITER_AHEAD] = self->cursor.leaf;
        if (self->ahead_count > MEMTABLE_ITER_AHEAD_ENTRY) {
            uint32_t at = self->ahead_at + self->ahead_count - 1 - MEMTABLE_ITER_AHEAD_ENTRY;
            uint32_t leaf = self->ahead[at % MEMTABLE_ITER_AHEAD];
            PREFETCH_READ(vnode_entry_at(vnodes, vnodes->array[leaf].entry));
        }
    }
}

/* To the next key in this direction; the walk has one. */
static esker_status
memtable_iter_step(struct memtable_iter *self)
{
    memtable_iter_look_ahead(self);
    if (self->ahead_count == 0) {
        return self->ahead_status;
    }
    self->leaf = self->ahead[self->ahead_at];
    self->ahead_at = (self->ahead_at + 1) % MEMTABLE_ITER_AHEAD;
    self->ahead_count--;
    return ESKER_OK;
}

static esker_status
memtable_iter_next_key(struct memtable_iter *self)
{
    if (!self->forward) {
        self->forward = true;
        TRY(memtable_iter_found(self, art_cursor_seek(&self->cursor, self->iter.key)));
    }
    return memtable_iter_step(self);
}

static esker_status
memtable_iter_prev_key(struct memtable_iter *self)
{
    if (self->forward) {
        self->forward = false;
        TRY(memtable_iter_found(self, art_cursor_seek(&self->cursor, self->iter.key)));
    }
    return memtable_iter_step(self);
}

/* ---- Versions -------------------------------------------------------------- */

/* The newest shown version of the current key; 0 = none. */
static uint32_t
memtable_iter_newest(const struct memtable_iter *self)
{
    const struct vnodes *vnodes = &self->table->vnodes;
    uint32_t head = load_acquire(&vnodes->array[self->leaf].head); /* pairs: VNODE_HEAD */
    return vnode_older_than(vnodes, head, self->limit);
}

/* `status` of the last step: forwards to the first key with a shown version. */
static esker_status
memtable_iter_settle_forward(struct memtable_iter *self, esker_status status)
{
    self->version_count = 0;
    for (; status == ESKER_OK; status = memtable_iter_step(self)) {
        uint32_t newest = memtable_iter_newest(self);
        if (newest != 0) {
            return memtable_iter_show(self, newest);
        }
    }
    return status;
}

static esker_status
memtable_iter_versions_grow(struct memtable_iter *self)
{
    uint32_t cap = self->version_cap * 2;
    uint32_t *versions = mem_alloc_array(self->mem, cap, sizeof *versions);
    if (versions == NULL) {
        return FAIL_NO_MEMORY("an iterator's versions");
    }
    memcpy(versions, self->versions, self->version_count * sizeof *versions);
    if (self->versions != self->inline_versions) {
        mem_free(self->mem, self->versions);
    }
    self->versions = versions;
    self->version_cap = cap;
    return ESKER_OK;
}

/* Copies the list from `newest` on. */
static esker_status
memtable_iter_collect(struct memtable_iter *self, uint32_t newest)
{
    self->version_count = 0;
    for (uint32_t index = newest; index != 0;) {
        if (self->version_count == self->version_cap) {
            TRY(memtable_iter_versions_grow(self));
        }
        self->versions[self->version_count++] = index;
        index = load_acquire(&self->table->vnodes.array[index].prev); /* pairs: VNODE_PREV */
    }
    return ESKER_OK;
}

/* `status` of the last step: backwards to the first key with a shown
 * version, and to its oldest. */
static esker_status
memtable_iter_settle_backward(struct memtable_iter *self, esker_status status)
{
    for (; status == ESKER_OK; status = memtable_iter_step(self)) {
        TRY(memtable_iter_collect(self, memtable_iter_newest(self)));
        if (self->version_count > 0) {
            self->version_at = self->version_count - 1;
            return memtable_iter_show(self, self->versions[self->version_at]);
        }
    }
    return status;
}

static esker_status
memtable_iter_first(struct iter *it)
{
    struct memtable_iter *self = memtable_iter_of(it);
    self->forward = true;
    return memtable_iter_settle_forward(self, memtable_iter_found(self, art_cursor_first(&self->cursor)));
}

static esker_status
memtable_iter_last(struct iter *it)
{
    struct memtable_iter *self = memtable_iter_of(it);
    self->forward = false;
    return memtable_iter_settle_backward(self, memtable_iter_found(self, art_cursor_last(&self->cursor)));
}

static esker_status
memtable_iter_seek(struct iter *it, struct bytes key)
{
    struct memtable_iter *self = memtable_iter_of(it);
    self->forward = true;
    return memtable_iter_settle_forward(self, memtable_iter_found(self, art_cursor_seek(&self->cursor, key)));
}

static esker_status
memtable_iter_seek_before(struct iter *it, struct bytes key)
{
    struct memtable_iter *self = memtable_iter_of(it);
    self->forward = false;
    return memtable_iter_settle_backward(
        self, memtable_iter_found(self, art_cursor_seek_before(&self->cursor, key)));
}

static esker_status
memtable_iter_next(struct iter *it)
{
    struct memtable_iter *self = memtable_iter_of(it);
    uint32_t older = 0;
    if (self->version_count == 0) {
        older = load_acquire(&self->table->vnodes.array[self->current].prev); /* pairs: VNODE_PREV */
    } else if (self->version_at + 1 < self->version_count) {
        older = self->versions[++self->version_at];
    }
    if (older != 0) {
        return memtable_iter_show(self, older);
    }
    return memtable_iter_settle_forward(self, memtable_iter_next_key(self));
}

static esker_status
memtable_iter_prev(struct iter *it)
{
    struct memtable_iter *self = memtable_iter_of(it);
    if (self->version_count == 0) {
        TRY(memtable_iter_collect(self, memtable_iter_newest(self)));
        self->version_at = 0;
        while (self->versions[self->version_at] != self->current) {
            self->version_at++;
            ASSERT(self->version_at < self->version_count);
        }
    }
    if (self->version_at > 0) {
        return memtable_iter_show(self, self->versions[--self->version_at]);
    }
    return memtable_iter_settle_backward(self, memtable_iter_prev_key(self));
}

static void
memtable_iter_destroy(struct iter *it)
{
    struct memtable_iter *self = memtable_iter_of(it);
    art_cursor_fini(&self->cursor);
    if (self->versions != self->inline_versions) {
        mem_free(self->mem, self->versions);
    }
    mem_free(self->mem, self);
}

static const struct iter_ops memtable_iter_ops = {
    .first = memtable_iter_first,
    .last = memtable_iter_last,
    .seek = memtable_iter_seek,
    .seek_before = memtable_iter_seek_before,
    .next = memtable_iter_next,
    .prev = memtable_iter_prev,
    .destroy = memtable_iter_destroy,
};

esker_status
memtable_iter_create(const struct memtable *table, uint64_t limit_lsn, const struct mem *mem,
                     struct iter **out)
{
    struct memtable_iter *self = mem_zalloc(mem, sizeof *self);
    if (self == NULL) {
        return FAIL_NO_MEMORY("an iterator");
    }
    self->iter.ops = &memtable_iter_ops;
    self->iter.heat = ITER_FRESH;
    self->table = table;
    self->mem = mem;
    self->limit = memtable_granule_limit(table, limit_lsn);
    self->version_cap = MEMTABLE_ITER_INLINE_VERSIONS;
    self->versions = self->inline_versions;
    art_cursor_init(&self->cursor, &table->art, mem);
    *out = &self->iter;
    return ESKER_OK;
}
