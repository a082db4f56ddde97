/* SPDX-License-Identifier: MIT */
/*
 * What becomes of the simulated disk: creation, copies, crashes, and the
 * direct access by which tests look at it and damage it.
 */
#include <malloc.h>

#include "base/assert.h"
#include "base/hash.h"
#include "io/io_sim_disk.h"

enum { SIM_BOOT_NS = 1000000000 /* what the monotonic clock says after a boot */ };

static const uint64_t sim_made_ns = 1767225600ULL * 1000000000u; /* the wall clock then: 2026-01-01 */

/* ---- Creation ------------------------------------------------------------- */

static struct mutex sim_malloc_guard = MUTEX_INIT;
static bool sim_malloc_tuned; /* guarded by sim_malloc_guard */

/* Tests make and clone disks by the thousand. Left alone, malloc gives the
 * images' pages back to the system each time, and faulting them in again was
 * 95 % of a clone's cost (264 KiB: 710 us, 31 us with this). */
static void
sim_tune_malloc(void)
{
    mutex_lock(&sim_malloc_guard);
    if (!sim_malloc_tuned) {
        sim_malloc_tuned = true;
        (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
        (void)mallopt(M_TRIM_THRESHOLD, 256 << 20);
    }
    mutex_unlock(&sim_malloc_guard);
}

struct sim_disk *
sim_disk_create(uint64_t seed)
{
    sim_tune_malloc();
    struct sim_disk *disk = sim_alloc(sizeof *disk);
    mutex_init(&disk->guard);
    disk->seed = seed;
    disk->rng.state = hash_mix(seed, 1);
    store_relaxed(&disk->now_ns, SIM_BOOT_NS);         /* relaxed: nobody else has it */
    store_relaxed(&disk->wall_offset_ns, sim_made_ns); /* relaxed: the same */
    disk->boot = 1;
    disk->life = 1;
    return disk;
}

static void
sim_names_clear(struct sim_disk *disk, struct sim_names *names)
{
    for (size_t at = 0; at < names->count; at++) {
        sim_inode_unref(disk, names->items[at].inode);
    }
    names->count = 0;
}

static void
sim_changes_clear(struct sim_disk *disk)
{
    for (size_t at = 0; at < disk->change_count; at++) {
        sim_inode_unref(disk, disk->changes[at].inode);
    }
    disk->change_count = 0;
}

void
sim_disk_destroy(struct sim_disk *disk)
{
    if (disk == NULL) {
        return;
    }
    ASSERT(disk->handles == 0 && disk->files == NULL && disk->maps == NULL);
    sim_changes_clear(disk);
    sim_names_clear(disk, &disk->names);
    sim_names_clear(disk, &disk->durable_names);
    ASSERT(disk->inodes == NULL);
    mem_free(&mem_default, disk->names.items);
    mem_free(&mem_default, disk->durable_names.items);
    mem_free(&mem_default, disk->changes);
    sim_record_clear(disk);
    mem_free(&mem_default, disk->log);
    mutex_fini(&disk->guard);
    mem_free(&mem_default, disk);
}

/* The clone's inode for one of the original; with a reference for the caller. */
static struct sim_inode *
sim_clone_inode(struct sim_disk *clone, struct sim_inode *inode)
{
    if (inode->twin != NULL) {
        return sim_inode_ref(inode->twin);
    }
    struct sim_inode *copy = sim_inode_create(clone);
    inode->twin = copy;
    copy->id = inode->id;
    if (inode->cache != NULL) {
        uint64_t cap = inode->cache->cap;
        sim_inode_scan(inode);
        if (inode->maps > 0) {
            copy->cache = sim_blob_create(cap);
            sim_inode_snapshot(inode, copy->cache->bytes);
        } else {
            copy->cache = sim_blob_ref(inode->cache);
        }
        copy->durable = sim_blob_ref(inode->durable);
        copy->clean = sim_blob_ref(inode->clean);
        copy->middle = sim_blob_ref(inode->middle);
        copy->flags = sim_alloc(cap / SIM_ATOM_BYTES);
        memcpy(copy->flags, inode->flags, cap / SIM_ATOM_BYTES);
    }
    copy->len = inode->len;
    copy->durable_len = inode->durable_len;
    copy->len_min = inode->len_min;
    copy->len_max = inode->len_max;
    copy->len_dirty = inode->len_dirty;
    copy->late_err = inode->late_err;
    return copy;
}

static void
sim_clone_names(struct sim_disk *clone, struct sim_names *to, const struct sim_names *from)
{
    for (size_t at = 0; at < from->count; at++) {
        struct sim_inode *inode = sim_clone_inode(clone, from->items[at].inode);
        sim_names_set(clone, to, from->items[at].name, inode);
        sim_inode_unref(clone, inode);
    }
}

struct sim_disk *
sim_disk_clone(struct sim_disk *disk)
{
    struct sim_disk *clone = sim_disk_create(disk->seed);
    mutex_lock(&disk->guard);
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        inode->twin = NULL;
    }
    sim_clone_names(clone, &clone->names, &disk->names);
    sim_clone_names(clone, &clone->durable_names, &disk->durable_names);
    for (size_t at = 0; at < disk->change_count; at++) {
        struct sim_change change = disk->changes[at];
        change.inode = change.inode != NULL ? sim_clone_inode(clone, change.inode) : NULL;
        sim_grow((void **)&clone->changes, clone->change_count, &clone->change_cap, sizeof change);
        clone->changes[clone->change_count++] = change;
    }
    clone->rng = disk->rng;
    clone->next_inode = disk->next_inode;
    clone->capacity = disk->capacity;
    clone->off = disk->off;
    /* relaxed: numbers */
    store_relaxed(&clone->now_ns, load_relaxed(&disk->now_ns));
    store_relaxed(&clone->boot_ns, load_relaxed(&disk->boot_ns));
    store_relaxed(&clone->wall_offset_ns, load_relaxed(&disk->wall_offset_ns));
    clone->boot = disk->boot;
    clone->sync_failure = disk->sync_failure;
    clone->lying = disk->lying;
    mutex_unlock(&disk->guard);
    return clone;
}

/* ---- Crashes -------------------------------------------------------------- */

void
sim_disk_freeze(struct sim_disk *disk)
{
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        sim_inode_detach(inode);
    }
    disk->life++;
    disk->off = true;
    disk->cut_at = 0;
    disk->lock_owner = NULL;
    for (struct sim_map *map = disk->maps; map != NULL; map = map->next) {
        sim_inode_unref(disk, map->inode);
        map->inode = NULL;
    }
    while (disk->files != NULL) {
        struct sim_file *file = disk->files;
        disk->files = file->next;
        sim_inode_unref(disk, file->inode);
        file->inode = NULL;
    }
}

/* How a power cut treats one file: of 8 dirty atoms about `kept` survive; the
 * others, where the file had grown, read as `filler`. */
struct sim_fate {
    enum sim_crash mode;
    struct rng rng;
    uint64_t kept;
    uint8_t filler;
};

static uint64_t
sim_survive_len(const struct sim_inode *inode, struct sim_fate *fate)
{
    if (!inode->len_dirty || fate->mode == SIM_CRASH_POWER_NONE) {
        return inode->durable_len;
    }
    if (fate->mode == SIM_CRASH_POWER_ALL) {
        return inode->len;
    }
    uint64_t low = MIN(inode->len_min, inode->durable_len);
    uint64_t high = MAX(inode->len_max, inode->durable_len);
    switch (rng_below(&fate->rng, 3)) {
    case 0:
        return inode->durable_len;
    case 1:
        return inode->len;
    default:
        return low + rng_below(&fate->rng, high - low + 1);
    }
}

static void
sim_survive_atom(struct sim_inode *inode, uint64_t place, struct sim_fate *fate)
{
    uint8_t *atom = sim_image_edit(&inode->durable, inode->cache->cap) + place;
    bool all = fate->mode == SIM_CRASH_POWER_ALL;
    if (all || (fate->mode == SIM_CRASH_POWER_RANDOM && rng_below(&fate->rng, 8) < fate->kept)) {
        bool middle = (inode->flags[place / SIM_ATOM_BYTES] & SIM_ATOM_MIDDLE) != 0;
        bool older = !all && middle && rng_below(&fate->rng, 4) == 0;
        memcpy(atom, (older ? inode->middle : inode->cache)->bytes + place, SIM_ATOM_BYTES);
    } else if (place >= inode->durable_len) {
        memset(atom, fate->filler, SIM_ATOM_BYTES);
    }
}

/* The cache starts again from the platter. */
static void
sim_survive_rest(struct sim_inode *inode, uint64_t len)
{
    uint64_t cap = inode->cache->cap;
    memset(inode->flags, 0, cap / SIM_ATOM_BYTES);
    sim_blob_unref(inode->cache);
    if (len < cap) {
        memset(sim_image_edit(&inode->durable, cap) + len, 0, cap - len);
    } else {
        (void)sim_image_edit(&inode->durable, cap);
    }
    inode->cache = sim_blob_ref(inode->durable);
}

static void
sim_survive(struct sim_inode *inode, enum sim_crash mode, uint64_t seed)
{
    /* Drawn per file, so that it does not matter in which order they come. */
    struct sim_fate whole = {.mode = mode, .rng = {.state = hash_mix(seed, inode->id)}};
    struct sim_fate *fate = &whole;
    static const uint8_t kept[] = {0, 1, 4, 4, 7, 8};
    fate->kept = kept[rng_below(&fate->rng, sizeof kept)];
    bool garbage = fate->mode == SIM_CRASH_POWER_RANDOM && rng_below(&fate->rng, 4) == 0;
    fate->filler = garbage ? (uint8_t)rng_next(&fate->rng) : 0;
    uint64_t len = sim_survive_len(inode, fate);
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    bool differs = inode->clean != NULL || len != inode->len || len != inode->durable_len;
    for (uint64_t place = 0; place < cap; place += SIM_ATOM_BYTES) {
        if ((inode->flags[place / SIM_ATOM_BYTES] & SIM_ATOM_DIRTY) != 0) {
            sim_survive_atom(inode, place, fate);
            differs = true;
        }
    }
    if (differs && cap > 0) {
        sim_survive_rest(inode, len);
    }
    sim_blob_unref(inode->clean);
    sim_blob_unref(inode->middle);
    sim_blob_unref(inode->seen);
    inode->clean = inode->middle = inode->seen = NULL;
    inode->len = inode->durable_len = len;
    inode->len_dirty = false;
    inode->late_err = 0; /* nobody remembers */
}

static void
sim_lose_power(struct sim_disk *disk, enum sim_crash mode, uint64_t seed)
{
    struct rng rng = {.state = hash_mix(seed, 0)};
    size_t kept = 0;
    if (mode == SIM_CRASH_POWER_ALL) {
        kept = disk->change_count;
    } else if (mode == SIM_CRASH_POWER_RANDOM) {
        kept = rng_below(&rng, disk->change_count + 1);
    }
    sim_disk_sync_names(disk, kept);
    sim_changes_clear(disk);
    sim_names_clear(disk, &disk->names);
    for (size_t at = 0; at < disk->durable_names.count; at++) {
        const struct sim_name *name = &disk->durable_names.items[at];
        sim_names_set(disk, &disk->names, name->name, name->inode);
    }
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        sim_survive(inode, mode, seed);
    }
    disk->boot++;
    store_relaxed(&disk->boot_ns, load_relaxed(&disk->now_ns) - SIM_BOOT_NS); /* relaxed: a number */
}

void
sim_disk_crash(struct sim_disk *disk, enum sim_crash mode, uint64_t seed)
{
    mutex_lock(&disk->guard);
    if (!disk->off) {
        sim_disk_freeze(disk);
    }
    if (mode != SIM_CRASH_KILL) {
        sim_lose_power(disk, mode, seed);
    }
    disk->off = false;
    mutex_unlock(&disk->guard);
}

void
sim_disk_reboot(struct sim_disk *disk)
{
    sim_disk_crash(disk, SIM_CRASH_POWER_ALL, 0);
}

/* ---- Direct access -------------------------------------------------------- */

size_t
sim_disk_files(struct sim_disk *disk, struct sim_file_info *out, size_t capacity)
{
    mutex_lock(&disk->guard);
    size_t count = disk->names.count;
    for (size_t at = 0; at < MIN(count, capacity); at++) {
        const struct sim_name *name = &disk->names.items[at];
        bool named = sim_names_find(&disk->durable_names, name->name) == name->inode;
        memcpy(out[at].name, name->name, sizeof out[at].name);
        out[at].bytes = name->inode->len;
        out[at].durable_bytes = named ? name->inode->durable_len : 0;
    }
    mutex_unlock(&disk->guard);
    return count;
}

uint64_t
sim_disk_used_bytes(struct sim_disk *disk)
{
    uint64_t sum = 0;
    mutex_lock(&disk->guard);
    for (size_t at = 0; at < disk->names.count; at++) {
        sum += disk->names.items[at].inode->len;
    }
    mutex_unlock(&disk->guard);
    return sum;
}

bool
sim_disk_get(struct sim_disk *disk, const char *name, struct bytes *out)
{
    mutex_lock(&disk->guard);
    const struct sim_inode *inode = sim_names_find(&disk->names, name);
    if (inode != NULL) {
        *out = bytes_make(inode->cache != NULL ? inode->cache->bytes : NULL, inode->len);
    }
    mutex_unlock(&disk->guard);
    return inode != NULL;
}

bool
sim_disk_exists(struct sim_disk *disk, const char *name)
{
    struct bytes ignored;
    return sim_disk_get(disk, name, &ignored);
}

static struct sim_inode *
sim_disk_must_find(struct sim_disk *disk, const char *name)
{
    struct sim_inode *inode = sim_names_find(&disk->names, name);
    ASSERT(inode != NULL);
    return inode;
}

void
sim_disk_put(struct sim_disk *disk, const char *name, struct bytes content)
{
    ASSERT(content.len <= SIM_FILE_BYTES_MAX && strlen(name) < sizeof((struct sim_name *)NULL)->name);
    mutex_lock(&disk->guard);
    struct sim_inode *inode = sim_names_find(&disk->names, name);
    if (inode == NULL) {
        inode = sim_inode_create(disk);
        sim_disk_change_name(disk, name, "", inode);
        sim_inode_unref(disk, inode);
    }
    int failed = sim_inode_truncate(disk, inode, 0);
    ASSERT(failed == 0);
    failed = sim_inode_write(disk, inode, 0, content.ptr, (uint32_t)content.len);
    ASSERT(failed == 0);
    sim_inode_sync(inode, 0, UINT64_MAX);
    sim_disk_sync_names(disk, disk->change_count);
    mutex_unlock(&disk->guard);
}

void
sim_disk_flip(struct sim_disk *disk, const char *name, uint64_t bit)
{
    mutex_lock(&disk->guard);
    struct sim_inode *inode = sim_disk_must_find(disk, name);
    ASSERT(bit / 8 < inode->len);
    uint8_t flipped = (uint8_t)(1u << (bit % 8));
    struct sim_blob **images[] = {&inode->durable, &inode->clean, &inode->middle};
    for (size_t at = 0; at < COUNTOF(images); at++) {
        if (*images[at] != NULL) {
            sim_image_edit(images[at], inode->cache->cap)[bit / 8] ^= flipped;
        }
    }
    sim_inode_edit(inode)[bit / 8] ^= flipped;
    mutex_unlock(&disk->guard);
}

void
sim_disk_resize(struct sim_disk *disk, const char *name, uint64_t bytes)
{
    mutex_lock(&disk->guard);
    struct sim_inode *inode = sim_disk_must_find(disk, name);
    int failed = sim_inode_truncate(disk, inode, bytes);
    ASSERT(failed == 0);
    sim_inode_sync(inode, 0, UINT64_MAX);
    mutex_unlock(&disk->guard);
}

void
sim_disk_delete(struct sim_disk *disk, const char *name)
{
    mutex_lock(&disk->guard);
    (void)sim_disk_must_find(disk, name);
    sim_disk_change_name(disk, name, "", NULL);
    sim_disk_sync_names(disk, disk->change_count);
    mutex_unlock(&disk->guard);
}

void
sim_disk_copy(struct sim_disk *from_disk, const char *from, struct sim_disk *to_disk, const char *to)
{
    struct bytes content;
    bool found = sim_disk_get(from_disk, from, &content);
    ASSERT(found);
    uint8_t *copy = sim_alloc(content.len);
    if (content.len > 0) {
        memcpy(copy, content.ptr, content.len);
    }
    sim_disk_put(to_disk, to, bytes_make(copy, content.len));
    mem_free(&mem_default, copy);
}
