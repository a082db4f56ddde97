/* SPDX-License-Identifier: MIT */
/*
 * The memtable's joints: one run of page memory cut into directory, vnodes and
 * tree arena; insertion; point reads. The iterator is memtable_iter.c, the
 * parts are hashdir.c and art.c; the contract and its invariants are memtable.h.
 *
 * The region is reserved as a whole and touched as it fills: the directory one
 * bucket per key, vnodes and arena from their start.
 */
#include "memtable/memtable_priv.h"

enum {
    MEMTABLE_PAGE_BYTES = 4096,
    MEMTABLE_GROUP = ART_WARM_MAX,
    MEMTABLE_SAMPLE = 1000,          /* entries that say what the tree takes per entry */
    MEMTABLE_ARENA_GUESS = 24,       /* bytes per entry before that */
    MEMTABLE_PAGE_KEYS = 8,          /* so many keys per page of the directory touch about every page */
    MEMTABLE_STRIPED_FROM = 64 << 10 /* entries; smaller ones shall stay small */
};

_Static_assert(MEMTABLE_OPS_MAX + SHARE_STRIPES * (VNODE_STRETCH - 1) < HASHDIR_VNODE_MASK, "24 bits");

/* ---- Life ------------------------------------------------------------------ */

static bool
memtable_is_striped(uint32_t op_count)
{
    return op_count >= MEMTABLE_STRIPED_FROM;
}

/* Those that may be left over in stretches included. */
static uint32_t
memtable_vnode_count(uint32_t op_count)
{
    return op_count + (memtable_is_striped(op_count) ? SHARE_STRIPES * (VNODE_STRETCH - 1) : 0);
}

static uint64_t
memtable_vnode_bytes(uint32_t op_count)
{
    uint64_t count = (uint64_t)memtable_vnode_count(op_count) + 1;
    return align_up(count * sizeof(struct vnode), CACHE_LINE_BYTES);
}

static uint64_t
memtable_arena_bytes(uint32_t op_count)
{
    uint64_t bytes = art_bytes_max(op_count);
    return memtable_is_striped(op_count) ? index_arena_striped_bytes(bytes) : bytes;
}

static uint64_t
memtable_shares_bytes(uint32_t op_count)
{
    return memtable_is_striped(op_count) ? SHARE_STRIPES * sizeof(struct shares) : 0;
}

/* Directory, vnodes and tree are each bounded by a proof of their own: at most
 * one vnode per entry, at most one directory slot and ART_KEY_BYTES_MAX arena
 * bytes (art.h, "Space") per distinct key. So their sum is an upper bound for
 * every set of op_count entries. */
uint64_t
memtable_index_bytes(uint32_t op_count)
{
    uint64_t bytes = hashdir_bytes(op_count) + memtable_vnode_bytes(op_count) +
                     memtable_shares_bytes(op_count) + memtable_arena_bytes(op_count);
    return align_up(bytes, MEMTABLE_PAGE_BYTES);
}

esker_status
memtable_create(struct io *io, const uint8_t *data, uint64_t data_bytes, uint64_t base_lsn,
                uint32_t op_capacity, uint64_t hash_seed, struct memtable **out)
{
    ASSERT(op_capacity <= MEMTABLE_OPS_MAX && data_bytes / LSN_BYTES <= UINT32_MAX);
    ASSERT(((uintptr_t)data & (LSN_BYTES - 1)) == 0);
    struct memtable *table = mem_alloc_aligned(io->mem, CACHE_LINE_BYTES, sizeof *table);
    if (table == NULL) {
        return FAIL_NO_MEMORY("a memtable");
    }
    void *region = NULL;
    uint64_t region_bytes = memtable_index_bytes(op_capacity);
    int failed = io->ops->map_memory(io, region_bytes, &region);
    if (failed < 0) {
        mem_free(io->mem, table);
        return FAIL_OS(-failed, NULL, 0, "no page memory for a memtable's index of %llu bytes",
                       (unsigned long long)region_bytes);
    }
    memset(table, 0, sizeof *table);
    table->io = io;
    table->region = region;
    table->region_bytes = region_bytes;
    table->data_bytes = data_bytes;
    table->base_lsn = base_lsn;
    table->hash_seed = hash_seed;
    table->dir_bytes = hashdir_bytes(op_capacity);
    hashdir_init(&table->dir, region, op_capacity);
    uint8_t *rest = (uint8_t *)region + table->dir_bytes;
    table->vnodes.array = (struct vnode *)rest;
    table->vnodes.data = data;
    table->vnodes.count_max = memtable_vnode_count(op_capacity);
    rest += memtable_vnode_bytes(op_capacity);
    struct shares *shares = memtable_is_striped(op_capacity) ? (struct shares *)(void *)rest : NULL;
    rest += memtable_shares_bytes(op_capacity);
    table->arena_bytes = memtable_arena_bytes(op_capacity);
    index_arena_init(&table->arena, rest, table->arena_bytes);
    table->arena.shares = shares;
    table->vnodes.shares = shares;
    art_init(&table->art, &table->vnodes, &table->arena);
    dead_init(&table->dead);
    *out = table;
    return ESKER_OK;
}

void
memtable_destroy(struct memtable *table)
{
    if (table != NULL) {
        struct io *io = table->io;
        dead_fini(&table->dead);
        io->ops->unmap_memory(io, table->region, table->region_bytes);
        mem_free(io->mem, table);
    }
}

/* ---- Insertion --------------------------------------------------------------- */

/* Links the version `index` of `key`. Returns the anchor to put into the tree; 0 = none. */
static uint32_t
memtable_link(struct memtable *table, uint32_t index, uint32_t entry, struct bytes key, uint64_t hash)
{
    table->vnodes.array[index].entry = entry;
    if (vnode_entry_at(&table->vnodes, entry)[0] != ENTRY_DELETE) {
        dead_put(&table->dead, key);
    }
    uint32_t anchor = hashdir_link(&table->dir, &table->vnodes, key, hash, index);
    ESKER_RACE_POINT("memtable_linked");
    /* I3: the writer of an anchor with a later LSN may not have put it into the
     * tree yet, and this version may become visible before it does. */
    return table->vnodes.array[anchor].entry >= entry ? anchor : 0;
}

/* A group of a batch: all links, then all paths in the tree side by side. */
static void
memtable_insert_group(struct memtable *table, const uint32_t *entries, const uint64_t *hashes, uint32_t count,
                      uint32_t stripe)
{
    uint32_t anchors[MEMTABLE_GROUP];
    uint32_t anchor_count = 0;
    uint32_t first = vnode_take(&table->vnodes, count, stripe);
    for (uint32_t i = 0; i < count; i++) {
        struct bytes key = entry_key_trusted(vnode_entry_at(&table->vnodes, entries[i]));
        uint32_t anchor = memtable_link(table, first + i, entries[i], key, hashes[i]);
        anchors[anchor_count] = anchor;
        anchor_count += anchor != 0 ? 1 : 0;
    }
    art_warm(&table->art, anchors, anchor_count);
    for (uint32_t i = 0; i < anchor_count; i++) {
        art_insert(&table->art, anchors[i], stripe);
    }
}

struct memtable_way
memtable_approach(const struct memtable *table, struct bytes key, bool may_be_new)
{
    uint64_t hash = memtable_hash(key, table->hash_seed);
    prefetch_own(hashdir_bucket(&table->dir, hash));
    struct art_place place = may_be_new ? art_approach(&table->art, key) : art_root_place(&table->art);
    return (struct memtable_way){.hash = hash, .lock = place.lock, .slot = place.slot, .depth = place.depth};
}

bool
memtable_insert(struct memtable *table, uint64_t offset, const struct memtable_way *way, uint32_t stripe)
{
    ASSERT(offset % LSN_BYTES == 0 && offset < table->data_bytes);
    ESKER_RACE_POINT("memtable_approached");
    uint32_t entry = (uint32_t)(offset / LSN_BYTES);
    struct bytes key = entry_key_trusted(vnode_entry_at(&table->vnodes, entry));
    uint32_t index = vnode_take(&table->vnodes, 1, stripe);
    uint32_t anchor = memtable_link(table, index, entry, key, way->hash);
    if (anchor != 0) {
        struct art_place place = {.lock = way->lock, .slot = way->slot, .depth = way->depth};
        art_insert_from(&table->art, anchor, &place, stripe);
    }
    return anchor != 0;
}

void
memtable_insert_batch(struct memtable *table, uint64_t body_offset, uint64_t body_bytes, uint32_t stripe)
{
    ASSERT(body_offset % LSN_BYTES == 0 && body_offset <= table->data_bytes);
    ASSERT(body_bytes <= table->data_bytes - body_offset);
    uint64_t at = body_offset;
    uint64_t end = body_offset + body_bytes;
    for (;;) {
        uint64_t hashes[MEMTABLE_GROUP];
        uint32_t entries[MEMTABLE_GROUP];
        uint32_t count = 0;
        while (count < MEMTABLE_GROUP && at + ENTRY_HEADER_BYTES <= end &&
               table->vnodes.data[at] != ENTRY_END) {
            const uint8_t *entry = table->vnodes.data + at;
            struct bytes key = entry_key_trusted(entry);
            hashes[count] = memtable_hash(key, table->hash_seed);
            entries[count] = (uint32_t)(at / LSN_BYTES);
            hashdir_prefetch(&table->dir, hashes[count]);
            at += entry_size_bytes(key.len, entry_value_trusted(entry).len);
            count++;
        }
        memtable_insert_group(table, entries, hashes, count, stripe);
        if (count < MEMTABLE_GROUP) {
            break;
        }
    }
    ASSERT(at <= end);
}

/* Populates [*done, upto) of a part. */
static void
memtable_populate_part(struct memtable *table, uint8_t *part, _Atomic uint64_t *done, uint64_t upto)
{
    uint64_t from = load_relaxed(done); /* relaxed: this thread's own */
    if (upto > from) {
        table->io->ops->populate(table->io, part + from, upto - from);
        store_relaxed(done, upto); /* relaxed: others read an estimate */
    }
}

void
memtable_populate(struct memtable *table, uint64_t op_count, uint64_t most)
{
    if (table->io->ops->populate == NULL) {
        return;
    }
    uint64_t count = load_relaxed(&table->vnodes.used); /* relaxed: an estimate */
    uint64_t arena_used = index_arena_used_bytes(&table->arena);
    uint64_t arena =
        count >= MEMTABLE_SAMPLE ? arena_used * op_count / count : op_count * MEMTABLE_ARENA_GUESS;
    uint64_t arena_cap = table->arena_bytes;
    uint64_t vnodes_cap = ((uint64_t)table->vnodes.count_max + 1) * sizeof(struct vnode);
    /* Keys go anywhere in the directory: all of it, or where keys are few, nothing. */
    if (most >= table->dir_bytes / MEMTABLE_PAGE_BYTES * MEMTABLE_PAGE_KEYS) {
        memtable_populate_part(table, table->region, &table->populated_dir, table->dir_bytes);
    }
    memtable_populate_part(table, (uint8_t *)table->vnodes.array, &table->populated_vnodes,
                           MIN((op_count + 1) * sizeof(struct vnode), vnodes_cap));
    memtable_populate_part(table, table->arena.base, &table->populated_arena, MIN(arena, arena_cap));
}

/* ---- Point reads --------------------------------------------------------------- */

bool
memtable_get(const struct memtable *table, struct bytes key, uint64_t hash, uint64_t snapshot_lsn,
             struct memtable_hit *hit_out)
{
    uint64_t word = hashdir_find(&table->dir, &table->vnodes, key, hash);
    if (word == 0) {
        return false;
    }
    uint64_t limit = memtable_granule_limit(table, snapshot_lsn);
    uint32_t entry = hashdir_word_entry(&table->vnodes, word);
    if (UNLIKELY(entry >= limit)) {
        uint32_t index = vnode_older_than(&table->vnodes, hashdir_word_vnode(word), limit);
        if (index == 0) {
            return false;
        }
        entry = table->vnodes.array[index].entry;
    }
    hit_out->entry = vnode_entry_at(&table->vnodes, entry);
    hit_out->lsn = table->base_lsn + entry;
    return true;
}

void
memtable_prefetch(const struct memtable *table, uint64_t hash)
{
    hashdir_prefetch(&table->dir, hash);
}

/* ---- Memory ---------------------------------------------------------------------- */

/* What a part of the region takes when its first `bytes` are touched. */
static uint64_t
memtable_touched(const struct memtable *table, uint64_t bytes)
{
    bool huge = table->region_bytes >= IO_HUGE_FROM;
    return align_up(bytes, huge ? (uint64_t)IO_HUGE_BYTES : (uint64_t)MEMTABLE_PAGE_BYTES);
}

/* Keys go anywhere in the directory. */
static uint64_t
memtable_dir_touched(const struct memtable *table, uint64_t op_count)
{
    return MIN(memtable_touched(table, MIN(op_count * MEMTABLE_PAGE_BYTES, table->dir_bytes)),
               table->dir_bytes);
}

uint64_t
memtable_resident_bytes(const struct memtable *table)
{
    uint64_t count = load_relaxed(&table->vnodes.used);                 /* relaxed: an estimate */
    uint64_t dir_populated = load_relaxed(&table->populated_dir);       /* relaxed: the same */
    uint64_t vnodes_populated = load_relaxed(&table->populated_vnodes); /* relaxed: the same */
    uint64_t arena_populated = load_relaxed(&table->populated_arena);   /* relaxed: the same */
    uint64_t arena_used = index_arena_used_bytes(&table->arena);
    uint64_t dir = MAX(memtable_dir_touched(table, count), dir_populated);
    uint64_t vnodes = MAX((count + 1) * sizeof(struct vnode), vnodes_populated);
    uint64_t arena = MAX(arena_used, arena_populated);
    return MIN(dir + memtable_touched(table, vnodes) + memtable_touched(table, arena), table->region_bytes);
}

uint64_t
memtable_expected_bytes(const struct memtable *table, uint64_t op_count)
{
    uint64_t count = load_relaxed(&table->vnodes.used); /* relaxed: an estimate */
    uint64_t ops = MIN(MAX(op_count, count), (uint64_t)table->vnodes.count_max);
    uint64_t vnodes = (ops + 1) * sizeof(struct vnode);
    uint64_t arena_used = index_arena_used_bytes(&table->arena);
    uint64_t arena = MAX(ops * MEMTABLE_ARENA_GUESS, arena_used);
    uint64_t expected = memtable_dir_touched(table, ops) + memtable_touched(table, vnodes) +
                        memtable_touched(table, MIN(arena, table->arena_bytes));
    uint64_t now = memtable_resident_bytes(table);
    return MIN(MAX(expected, now), table->region_bytes);
}

/* ---- Statistics ------------------------------------------------------------------ */

uint64_t
memtable_used_bytes(const struct memtable *table)
{
    uint64_t count = load_relaxed(&table->vnodes.used); /* relaxed: statistics */
    uint64_t dir = MIN(count * MEMTABLE_PAGE_BYTES, table->dir_bytes);
    uint64_t vnodes = (count + 1) * sizeof(struct vnode);
    uint64_t arena = index_arena_used_bytes(&table->arena);
    return align_up(dir, MEMTABLE_PAGE_BYTES) + align_up(vnodes, MEMTABLE_PAGE_BYTES) +
           align_up(arena, MEMTABLE_PAGE_BYTES);
}
