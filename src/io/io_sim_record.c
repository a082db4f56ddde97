/* SPDX-License-Identifier: MIT */
/*
 * The log of operations. With the data, it says all that later analysis needs
 * (io_sim_states.h): what was changed, and between which two points of time
 * the change was under way.
 *
 * Stores into mapped files are no calls. They are found by comparing with what
 * the log knows, before each call that changes something, so their place in
 * the log is exact to a call.
 */
#include <stdio.h>

#include "base/assert.h"
#include "base/hash.h"
#include "io/io_sim_disk.h"

static void
sim_record_append(struct sim_disk *disk, struct sim_log_entry *entry, const uint8_t *data)
{
    bool has_data = data != NULL && entry->result > 0;
    if (has_data) {
        entry->hash = hash64(data, (size_t)entry->result, 0);
    }
    if (has_data && disk->recording) {
        uint8_t *copy = mem_alloc(&mem_default, (size_t)entry->result);
        ASSERT(copy != NULL);
        memcpy(copy, data, (size_t)entry->result);
        entry->data = copy;
    }
    entry->complete = ++disk->point;
    sim_grow((void **)&disk->log, disk->log_count, &disk->log_cap, sizeof *entry);
    disk->log[disk->log_count++] = *entry;
    disk->log_hash = hash64(entry, offsetof(struct sim_log_entry, effect), disk->log_hash);
}

void
sim_record_mapped(const struct sim_disk *disk, struct sim_inode *inode)
{
    if (disk->recording && inode->maps == 0) {
        sim_blob_unref(inode->seen);
        inode->seen = sim_blob_create(inode->cache->cap);
        memcpy(inode->seen->bytes, inode->cache->bytes, inode->cache->cap);
    }
}

/* One entry per stretch of atoms that differ from what the log knows. */
static void
sim_record_inode_stores(struct sim_disk *disk, struct sim_inode *inode)
{
    uint64_t cap = inode->cache->cap;
    ASSERT(inode->seen != NULL && inode->seen->cap == cap);
    uint8_t *seen = inode->seen->bytes;
    const uint8_t *now = inode->cache->bytes;
    for (uint64_t at = 0; at < inode->len; at += SIM_ATOM_BYTES) {
        uint64_t from = at;
        while (at < inode->len && sim_device_differs_range(now + at, seen + at, SIM_ATOM_BYTES)) {
            at += SIM_ATOM_BYTES;
        }
        if (at > from) {
            uint64_t to = MIN(at, inode->len);
            sim_device_copy_range(seen + from, now + from, at - from);
            struct sim_log_entry entry = {.kind = SIM_LOG_STORE,
                                          .inode = inode->id,
                                          .offset = from,
                                          .len = to - from,
                                          .result = (int32_t)(to - from),
                                          .submit = ++disk->point};
            sim_record_append(disk, &entry, seen + from);
        }
    }
}

static void
sim_record_stores(struct sim_disk *disk)
{
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        if (inode->maps > 0) {
            sim_record_inode_stores(disk, inode);
        } else if (inode->seen != NULL) {
            sim_record_inode_stores(disk, inode); /* what was stored before the mapping went */
            sim_blob_unref(inode->seen);
            inode->seen = NULL;
        }
    }
}

void
sim_record_batch(struct sim_disk *disk)
{
    if (disk->recording) {
        sim_record_stores(disk); /* they came before it, so its syncs cover them */
    }
    disk->batch_submit = ++disk->point;
}

void
sim_record_before(struct sim_disk *disk, const struct sim_log_entry *entry)
{
    if (disk->recording) {
        sim_record_stores(disk);
    }
    if (disk->watch != NULL) {
        disk->watch(disk->watch_ctx, disk, entry, false);
    }
}

void
sim_record(struct sim_disk *disk, struct sim_log_entry *entry, const uint8_t *data)
{
    if (disk->logging) {
        entry->submit = disk->batch_submit != 0 ? disk->batch_submit : ++disk->point;
        sim_record_append(disk, entry, data);
    }
    if (disk->watch != NULL) {
        disk->watch(disk->watch_ctx, disk, entry, true);
    }
}

void
sim_record_clear(struct sim_disk *disk)
{
    for (size_t at = 0; at < disk->log_count; at++) {
        mem_free(&mem_default, (void *)(uintptr_t)disk->log[at].data);
    }
    disk->log_count = 0;
}

void
sim_disk_set_log(struct sim_disk *disk, bool on)
{
    mutex_lock(&disk->guard);
    disk->logging = on;
    disk->recording = disk->recording && on;
    mutex_unlock(&disk->guard);
}

void
sim_disk_record(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    ASSERT(disk->change_count == 0 && disk->maps == NULL);
    sim_record_clear(disk);
    disk->logging = disk->recording = true;
    mutex_unlock(&disk->guard);
}

void
sim_disk_mark(struct sim_disk *disk, uint64_t value)
{
    mutex_lock(&disk->guard);
    struct sim_log_entry entry = {.kind = SIM_LOG_MARK, .offset = value};
    if (disk->recording && !disk->off) {
        sim_record_before(disk, &entry);
    }
    sim_record(disk, &entry, NULL);
    mutex_unlock(&disk->guard);
}

uint64_t
sim_disk_log_hash(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    uint64_t hash = disk->log_hash;
    mutex_unlock(&disk->guard);
    return hash;
}

const struct sim_log_entry *
sim_disk_log(struct sim_disk *disk, size_t *count_out)
{
    mutex_lock(&disk->guard);
    const struct sim_log_entry *log = disk->log;
    *count_out = disk->log_count;
    mutex_unlock(&disk->guard);
    return log;
}

/* ---- Watching -------------------------------------------------------------- */

void
sim_disk_watch(struct sim_disk *disk, sim_watch_fn *watch, void *ctx)
{
    mutex_lock(&disk->guard);
    disk->watch = watch;
    disk->watch_ctx = ctx;
    mutex_unlock(&disk->guard);
}

void
sim_disk_lock_for_watch(struct sim_disk *disk, bool locked)
{
    if (locked) {
        mutex_lock(&disk->guard);
    } else {
        mutex_unlock(&disk->guard);
    }
}

bool
sim_watch_is_clean(struct sim_disk *disk, const char *name, struct bytes *out)
{
    struct sim_inode *inode = sim_names_find(&disk->names, name);
    if (inode == NULL) {
        return false;
    }
    sim_inode_scan(inode);
    bool clean = !inode->len_dirty;
    for (uint64_t at = 0; clean && at * SIM_ATOM_BYTES < inode->len; at++) {
        clean = (inode->flags[at] & SIM_ATOM_DIRTY) == 0;
    }
    *out = bytes_make(inode->durable != NULL ? inode->durable->bytes : NULL, inode->durable_len);
    return clean;
}

bool
sim_watch_is_clean_to(struct sim_disk *disk, const char *name, uint64_t to)
{
    struct sim_inode *inode = sim_names_find(&disk->names, name);
    if (inode == NULL || (inode->len_dirty && to > inode->durable_len)) {
        return false;
    }
    sim_inode_scan(inode);
    bool clean = true;
    for (uint64_t at = 0; clean && at * SIM_ATOM_BYTES < MIN(to, inode->len); at++) {
        clean = (inode->flags[at] & SIM_ATOM_DIRTY) == 0;
    }
    return clean;
}

bool
sim_watch_is_durable(struct sim_disk *disk, const char *name)
{
    struct bytes durable;
    const struct sim_inode *inode = sim_names_find(&disk->names, name);
    if (inode == NULL || sim_names_find(&disk->durable_names, name) != inode ||
        !sim_watch_is_clean(disk, name, &durable)) {
        return false;
    }
    /* Marked clean by a sync that failed is not on the platter. */
    return inode->clean == NULL ||
           (durable.ptr != NULL && durable.len == inode->len &&
            !sim_device_differs_range(inode->cache->bytes, durable.ptr, inode->cache->cap));
}

bool
sim_watch_get(struct sim_disk *disk, const char *name, bool durable, struct bytes *out)
{
    const struct sim_inode *inode = sim_names_find(durable ? &disk->durable_names : &disk->names, name);
    if (inode == NULL) {
        return false;
    }
    const struct sim_blob *image = durable ? inode->durable : inode->cache;
    *out = bytes_make(image != NULL ? image->bytes : NULL, image == NULL ? 0
                                                           : durable     ? inode->durable_len
                                                                         : inode->len);
    return true;
}
