/* SPDX-License-Identifier: MIT */
/*
 * The state of the simulated disk: what a file and a directory are made of,
 * and how writes and syncs move bytes and names between cache and platter.
 * What a crash leaves of it is io_sim_crash.c; the calls are io_sim.c.
 */
#include "io/io_sim_disk.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"

enum { SIM_PAGE_BYTES = 4096 };

void *
sim_alloc(size_t size)
{
    void *ptr = mem_zalloc(&mem_default, size);
    ASSERT(ptr != NULL);
    return ptr;
}

void
sim_grow(void **items, size_t count, size_t *cap, size_t size)
{
    if (count < *cap) {
        return;
    }
    size_t more = MAX(*cap * 2, (size_t)8);
    void *larger = sim_alloc(more * size);
    if (count > 0) {
        memcpy(larger, *items, count * size);
    }
    mem_free(&mem_default, *items);
    *items = larger;
    *cap = more;
}

/* ---- Blobs and atoms ------------------------------------------------------ */

struct sim_blob *
sim_blob_create(uint64_t cap)
{
    struct sim_blob *blob = sim_alloc(sizeof *blob);
    store_relaxed(&blob->refs, 1); /* relaxed: not shared yet */
    blob->cap = cap;
    uint64_t alignment = cap >= SIM_PAGE_BYTES ? SIM_PAGE_BYTES : SIM_ATOM_BYTES;
    blob->bytes = mem_alloc_aligned(&mem_default, alignment, cap);
    ASSERT(blob->bytes != NULL);
    return blob;
}

struct sim_blob *
sim_blob_ref(struct sim_blob *blob)
{
    if (blob != NULL) {
        add_relaxed(&blob->refs, 1); /* relaxed: the caller has one already */
    }
    return blob;
}

void
sim_blob_unref(struct sim_blob *blob)
{
    /* pairs: SIM_BLOB — whoever finds itself alone writes to it, or frees it. */
    if (blob != NULL && sub_acq_rel(&blob->refs, 1) == 1) {
        mem_free(&mem_default, blob->bytes);
        mem_free(&mem_default, blob);
    }
}

uint8_t *
sim_image_edit(struct sim_blob **image, uint64_t cap)
{
    struct sim_blob *blob = *image;
    if (blob == NULL) {
        blob = sim_blob_create(cap);
        memset(blob->bytes, 0, cap);
        *image = blob;
    } else if (load_acquire(&blob->refs) > 1) { /* pairs: SIM_BLOB */
        *image = sim_blob_create(cap);
        memcpy((*image)->bytes, blob->bytes, cap);
        sim_blob_unref(blob);
    }
    return (*image)->bytes;
}

/* The device reads mapped memory while the engine's threads store into it, as
 * hardware does; no thread synchronises with a device, so the race detector
 * is told not to look, and the loads are ones that no compiler turns into a
 * call that it watches. */
#define SIM_DEVICE __attribute__((no_sanitize("thread")))

SIM_DEVICE static bool
sim_device_differs(const uint8_t *memory, const uint8_t *image)
{
    const volatile uint64_t *words = (const volatile uint64_t *)(const volatile void *)memory;
    uint64_t differs = 0;
    for (size_t at = 0; at < SIM_ATOM_BYTES / sizeof *words; at++) {
        uint64_t word = 0;
        if (image != NULL) {
            memcpy(&word, image + at * sizeof word, sizeof word);
        }
        differs |= words[at] ^ word;
    }
    return differs != 0;
}

SIM_DEVICE static void
sim_device_copy(uint8_t *image, const uint8_t *memory)
{
    const volatile uint64_t *words = (const volatile uint64_t *)(const volatile void *)memory;
    for (size_t at = 0; at < SIM_ATOM_BYTES / sizeof *words; at++) {
        uint64_t word = words[at];
        memcpy(image + at * sizeof word, &word, sizeof word);
    }
}

SIM_DEVICE bool
sim_device_differs_range(const uint8_t *memory, const uint8_t *image, uint64_t len)
{
    bool differs = false;
    for (uint64_t at = 0; at < len && !differs; at += SIM_ATOM_BYTES) {
        differs = sim_device_differs(memory + at, image != NULL ? image + at : NULL);
    }
    return differs;
}

SIM_DEVICE void
sim_device_copy_range(uint8_t *image, const uint8_t *memory, uint64_t len)
{
    for (uint64_t at = 0; at < len; at += SIM_ATOM_BYTES) {
        sim_device_copy(image + at, memory + at);
    }
}

SIM_DEVICE static void
sim_device_read(uint8_t *data, const uint8_t *memory, uint64_t len)
{
    const volatile uint8_t *bytes = memory;
    for (uint64_t at = 0; at < len; at++) {
        data[at] = bytes[at];
    }
}

/* ---- Inodes --------------------------------------------------------------- */

struct sim_inode *
sim_inode_create(struct sim_disk *disk)
{
    struct sim_inode *inode = sim_alloc(sizeof *inode);
    inode->id = ++disk->next_inode;
    inode->refs = 1;
    inode->next = disk->inodes;
    disk->inodes = inode;
    return inode;
}

struct sim_inode *
sim_inode_ref(struct sim_inode *inode)
{
    ASSERT(inode->refs > 0);
    inode->refs++;
    return inode;
}

void
sim_inode_unref(struct sim_disk *disk, struct sim_inode *inode)
{
    if (inode == NULL || --inode->refs > 0) {
        return;
    }
    struct sim_inode **link = &disk->inodes;
    while (*link != inode) {
        ASSERT(*link != NULL);
        link = &(*link)->next;
    }
    *link = inode->next;
    sim_blob_unref(inode->cache);
    sim_blob_unref(inode->durable);
    sim_blob_unref(inode->clean);
    sim_blob_unref(inode->middle);
    sim_blob_unref(inode->seen);
    mem_free(&mem_default, inode->flags);
    mem_free(&mem_default, inode);
}

static void
sim_regrow(struct sim_blob **image, uint64_t from, uint64_t to)
{
    if (*image != NULL) {
        struct sim_blob *larger = sim_blob_create(to);
        memcpy(larger->bytes, (*image)->bytes, from);
        memset(larger->bytes + from, 0, to - from);
        sim_blob_unref(*image);
        *image = larger;
    }
}

int
sim_inode_reserve(struct sim_inode *inode, uint64_t bytes)
{
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    if (bytes <= cap) {
        return 0;
    }
    if (bytes > SIM_FILE_BYTES_MAX || inode->maps > 0) {
        return -EFBIG;
    }
    uint64_t more = MAX(cap * 2, align_up(bytes, SIM_ATOM_BYTES));
    uint8_t *flags = sim_alloc(more / SIM_ATOM_BYTES);
    if (cap > 0) {
        memcpy(flags, inode->flags, cap / SIM_ATOM_BYTES);
        sim_regrow(&inode->cache, cap, more);
        sim_regrow(&inode->durable, cap, more);
        sim_regrow(&inode->clean, cap, more);
        sim_regrow(&inode->middle, cap, more);
    } else {
        (void)sim_image_edit(&inode->cache, more);
    }
    mem_free(&mem_default, inode->flags);
    inode->flags = flags;
    return 0;
}

/* The cache image, to be written. What is mapped is nobody else's (D3). */
uint8_t *
sim_inode_edit(struct sim_inode *inode)
{
    return inode->maps > 0 ? inode->cache->bytes : sim_image_edit(&inode->cache, inode->cache->cap);
}

static void
sim_inode_set_len(struct sim_inode *inode, uint64_t len)
{
    if (!inode->len_dirty) {
        inode->len_dirty = true;
        inode->len_min = inode->len_max = inode->len;
    }
    inode->len = len;
    inode->len_min = MIN(inode->len_min, len);
    inode->len_max = MAX(inode->len_max, len);
}

/* The atoms of [from, to) are about to change. Of an atom that changes again
 * before a sync the old content is sometimes kept: a power cut may find it. */
static void
sim_inode_touch(struct sim_disk *disk, struct sim_inode *inode, uint64_t from, uint64_t to)
{
    for (uint64_t at = from / SIM_ATOM_BYTES; at * SIM_ATOM_BYTES < to; at++) {
        if ((inode->flags[at] & SIM_ATOM_DIRTY) != 0 && rng_below(&disk->rng, 2) == 0) {
            uint64_t place = at * SIM_ATOM_BYTES;
            uint8_t *middle = sim_image_edit(&inode->middle, inode->cache->cap);
            sim_device_copy(middle + place, inode->cache->bytes + place);
            inode->flags[at] |= SIM_ATOM_MIDDLE;
        }
        inode->flags[at] |= SIM_ATOM_DIRTY;
    }
}

int
sim_inode_write(struct sim_disk *disk, struct sim_inode *inode, uint64_t offset, const void *data,
                uint32_t len)
{
    uint64_t end;
    if (__builtin_add_overflow(offset, len, &end)) {
        return -EFBIG;
    }
    if (len == 0) {
        return 0;
    }
    int failed = sim_inode_reserve(inode, end);
    if (failed != 0) {
        return failed;
    }
    sim_inode_touch(disk, inode, offset, end);
    memcpy(sim_inode_edit(inode) + offset, data, len);
    if (inode->seen != NULL) {
        memcpy(inode->seen->bytes + offset, data, len);
    }
    if (end > inode->len) {
        sim_inode_set_len(inode, end);
    }
    return 0;
}

uint32_t
sim_inode_read(const struct sim_inode *inode, uint64_t offset, void *data, uint32_t len)
{
    if (offset >= inode->len) {
        return 0;
    }
    uint32_t done = (uint32_t)MIN((uint64_t)len, inode->len - offset);
    if (inode->maps > 0) {
        sim_device_read(data, inode->cache->bytes + offset, done);
    } else if (done > 0) {
        memcpy(data, inode->cache->bytes + offset, done);
    }
    return done;
}

int
sim_inode_truncate(struct sim_disk *disk, struct sim_inode *inode, uint64_t size)
{
    int failed = sim_inode_reserve(inode, size);
    if (failed != 0) {
        return failed;
    }
    if (size < inode->len) {
        sim_inode_touch(disk, inode, size, inode->len);
        memset(sim_inode_edit(inode) + size, 0, inode->len - size);
    }
    if (size != inode->len) {
        sim_inode_set_len(inode, size);
    }
    return 0;
}

void
sim_inode_scan(struct sim_inode *inode)
{
    if (inode->maps == 0) {
        return;
    }
    const struct sim_blob *blob = inode->clean != NULL ? inode->clean : inode->durable;
    const uint8_t *image = blob != NULL ? blob->bytes : NULL;
    for (uint64_t at = 0; at * SIM_ATOM_BYTES < inode->len; at++) {
        uint64_t place = at * SIM_ATOM_BYTES;
        if ((inode->flags[at] & SIM_ATOM_DIRTY) == 0 &&
            sim_device_differs(inode->cache->bytes + place, image != NULL ? image + place : NULL)) {
            inode->flags[at] |= SIM_ATOM_DIRTY;
        }
    }
}

/* The next dirty atom at or after *at that reaches into the bytes before `to`; false: none. */
static bool
sim_next_dirty(const struct sim_inode *inode, uint64_t to, uint64_t *at)
{
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    uint64_t count = MIN(cap, align_up(MIN(to, cap), SIM_ATOM_BYTES)) / SIM_ATOM_BYTES;
    while (*at < count && (inode->flags[*at] & SIM_ATOM_DIRTY) == 0) {
        (*at)++;
    }
    return *at < count;
}

void
sim_inode_sync(struct sim_inode *inode, uint64_t from, uint64_t to)
{
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    sim_inode_scan(inode);
    for (uint64_t at = from / SIM_ATOM_BYTES; sim_next_dirty(inode, to, &at); at++) {
        uint64_t place = at * SIM_ATOM_BYTES;
        uint8_t *durable = sim_image_edit(&inode->durable, cap);
        sim_device_copy(durable + place, inode->cache->bytes + place);
        if (inode->clean != NULL) {
            memcpy(sim_image_edit(&inode->clean, cap) + place, durable + place, SIM_ATOM_BYTES);
        }
        inode->flags[at] = 0;
    }
    if (inode->len_dirty && to >= inode->len) {
        inode->durable_len = inode->len;
        inode->len_dirty = false;
    } else if (inode->len_dirty && to > inode->durable_len) {
        inode->durable_len = to;
        inode->len_min = MAX(inode->len_min, to);
    }
}

void
sim_inode_mark_clean(struct sim_inode *inode, uint64_t from, uint64_t to)
{
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    sim_inode_scan(inode);
    for (uint64_t at = from / SIM_ATOM_BYTES; sim_next_dirty(inode, to, &at); at++) {
        if (inode->clean == NULL && inode->durable != NULL) {
            inode->clean = sim_blob_ref(inode->durable);
        }
        uint8_t *clean = sim_image_edit(&inode->clean, cap);
        sim_device_copy(clean + at * SIM_ATOM_BYTES, inode->cache->bytes + at * SIM_ATOM_BYTES);
        inode->flags[at] = 0;
    }
    inode->len_dirty = inode->len_dirty && to < inode->len;
}

void
sim_inode_revert(struct sim_inode *inode, uint64_t from, uint64_t to)
{
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    ASSERT(inode->maps == 0); /* a disk of this kind maps nothing */
    for (uint64_t at = from / SIM_ATOM_BYTES; sim_next_dirty(inode, to, &at); at++) {
        uint8_t *cache = sim_inode_edit(inode) + at * SIM_ATOM_BYTES;
        if (inode->durable != NULL) {
            memcpy(cache, inode->durable->bytes + at * SIM_ATOM_BYTES, SIM_ATOM_BYTES);
        } else {
            memset(cache, 0, SIM_ATOM_BYTES);
        }
        inode->flags[at] = 0;
    }
    if (inode->len_dirty && to >= inode->len) {
        inode->len = inode->durable_len;
        inode->len_dirty = false;
    }
    if (cap > inode->len) {
        memset(sim_inode_edit(inode) + inode->len, 0, cap - inode->len);
    }
}

void
sim_inode_snapshot(const struct sim_inode *inode, uint8_t *out)
{
    if (inode->maps == 0) {
        memcpy(out, inode->cache->bytes, inode->cache->cap);
        return;
    }
    for (uint64_t place = 0; place < inode->cache->cap; place += SIM_ATOM_BYTES) {
        sim_device_copy(out + place, inode->cache->bytes + place);
    }
}

void
sim_inode_detach(struct sim_inode *inode)
{
    if (inode->maps == 0) {
        return;
    }
    sim_inode_scan(inode);
    struct sim_blob *copy = sim_blob_create(inode->cache->cap);
    sim_inode_snapshot(inode, copy->bytes);
    sim_blob_unref(inode->cache);
    inode->cache = copy;
    inode->maps = 0;
}

/* ---- Names ---------------------------------------------------------------- */

/* Where the name is, or would be. */
static size_t
sim_names_place(const struct sim_names *names, const char *name, bool *found)
{
    size_t low = 0, high = names->count;
    *found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(names->items[middle].name, name);
        if (order == 0) {
            *found = true;
            return middle;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

struct sim_inode *
sim_names_find(const struct sim_names *names, const char *name)
{
    bool found;
    size_t at = sim_names_place(names, name, &found);
    return found ? names->items[at].inode : NULL;
}

void
sim_names_set(struct sim_disk *disk, struct sim_names *names, const char *name, struct sim_inode *inode)
{
    bool found;
    size_t at = sim_names_place(names, name, &found);
    struct sim_inode *before = found ? names->items[at].inode : NULL;
    if (inode != NULL) {
        sim_inode_ref(inode);
        if (!found) {
            sim_grow((void **)&names->items, names->count, &names->cap, sizeof *names->items);
            memmove(&names->items[at + 1], &names->items[at], (names->count - at) * sizeof *names->items);
            names->count++;
            sim_name_copy(names->items[at].name, name);
        }
        names->items[at].inode = inode;
    } else if (found) {
        names->count--;
        memmove(&names->items[at], &names->items[at + 1], (names->count - at) * sizeof *names->items);
    }
    sim_inode_unref(disk, before);
}

static void
sim_names_apply(struct sim_disk *disk, struct sim_names *names, const struct sim_change *change)
{
    sim_names_set(disk, names, change->name, change->inode);
    if (change->old[0] != '\0') {
        sim_names_set(disk, names, change->old, NULL);
    }
}

void
sim_disk_change_name(struct sim_disk *disk, const char *name, const char *old, struct sim_inode *inode)
{
    struct sim_change change = {.inode = inode != NULL ? sim_inode_ref(inode) : NULL};
    sim_name_copy(change.name, name);
    sim_name_copy(change.old, old);
    sim_names_apply(disk, &disk->names, &change);
    sim_grow((void **)&disk->changes, disk->change_count, &disk->change_cap, sizeof change);
    disk->changes[disk->change_count++] = change;
}

void
sim_disk_sync_names(struct sim_disk *disk, size_t count)
{
    ASSERT(count <= disk->change_count);
    for (size_t at = 0; at < count; at++) {
        sim_names_apply(disk, &disk->durable_names, &disk->changes[at]);
        sim_inode_unref(disk, disk->changes[at].inode);
    }
    disk->change_count -= count;
    if (disk->change_count > 0) {
        memmove(disk->changes, disk->changes + count, disk->change_count * sizeof *disk->changes);
    }
}
