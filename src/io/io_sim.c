/* SPDX-License-Identifier: MIT */
/*
 * The simulated back-end: the table's calls over the state of io_sim_disk.h,
 * with faults, counters, the power switch and the log of operations in front
 * of every one of them.
 *
 * Each call locks the disk, passes sim_enter (which may make it fail before it
 * does anything), and enters into the log what it did. Everything random comes
 * from the disk's seed, so a single-threaded program repeats itself exactly.
 */
#include "io/io_sim.h"

#include <errno.h>
#include <stdio.h>

#include "base/assert.h"
#include "base/hash.h"
#include "io/io_posix.h"
#include "io/io_sim_call.h"

enum { SIM_CALL_NS = 1000, SIM_MAP_ALIGNMENT = 4096 };

/* ---- Before every call ------------------------------------------------------ */

static bool
sim_fault_matches(const struct sim_fault *fault, enum sim_kind kind, const char *name)
{
    return fault->nth > 0 && fault->kind == kind &&
           (fault->prefix == NULL || strncmp(name, fault->prefix, strlen(fault->prefix)) == 0);
}

static int
sim_fault_apply(struct sim_disk *disk, const struct sim_fault *fault, struct sim_hit *hit)
{
    switch (fault->action) {
    case SIM_ACT_FAIL:
        if (fault->err != 0) {
            return -fault->err;
        }
        hit->limit = MIN(hit->limit, fault->bytes);
        return 0;
    case SIM_ACT_TORN:
        hit->torn = true;
        hit->limit = MIN(hit->limit, fault->bytes);
        return 0;
    case SIM_ACT_FLIP:
        hit->flip = true;
        return 0;
    case SIM_ACT_MISDIRECT:
        hit->misdirect = true;
        return 0;
    case SIM_ACT_LIE:
        hit->lie = true;
        return 0;
    case SIM_ACT_DELAY:
        (void)sim_clock_add(disk, fault->delay_ns);
        return 0;
    }
    UNREACHABLE();
}

/* 0, or the negated errno with which the call ends. */
static int
sim_faults_apply(struct sim_disk *disk, enum sim_kind kind, const char *name, struct sim_hit *hit)
{
    int failed = 0;
    for (size_t at = 0; at < disk->fault_count; at++) {
        struct sim_fault *fault = &disk->faults[at];
        if (!sim_fault_matches(fault, kind, name)) {
            continue;
        }
        if (fault->nth > 1) {
            fault->nth--;
            continue;
        }
        fault->nth = fault->sticky; /* still the next one, or never again */
        disk->fired++;
        int one = sim_fault_apply(disk, fault, hit);
        failed = one != 0 ? one : failed;
    }
    return failed;
}

int
sim_enter(struct io_sim *sim, enum sim_kind kind, const char *name, bool mutates, struct sim_hit *hit)
{
    struct sim_disk *disk = sim->disk;
    struct sim_hit ignored = {0};
    (void)sim_clock_add(disk, SIM_CALL_NS);
    if (sim->life != disk->life) {
        return -EIO;
    }
    disk->counts[kind]++;
    if (mutates) {
        disk->mutations++;
        if (disk->mutations == disk->cut_at) {
            sim_disk_freeze(disk);
            return -EIO;
        }
    }
    return sim_faults_apply(disk, kind, name, hit != NULL ? hit : &ignored);
}

struct sim_log_entry
sim_entry(enum sim_kind kind, const struct sim_inode *inode, const char *name, const char *other)
{
    struct sim_log_entry entry = {.kind = kind, .inode = inode != NULL ? inode->id : 0};
    sim_name_copy(entry.name, name);
    sim_name_copy(entry.other, other);
    entry.hash = hash64(name, strlen(name), hash64(other, strlen(other), 0));
    return entry;
}

void
sim_before(struct sim_disk *disk, const struct sim_log_entry *entry)
{
    if (disk->recording || disk->watch != NULL) {
        sim_record_before(disk, entry);
    }
}

void
sim_after(struct sim_disk *disk, struct sim_log_entry *entry, int result, const uint8_t *data)
{
    if (disk->logging || disk->watch != NULL) {
        entry->result = result;
        sim_record(disk, entry, data);
    }
}

/* ---- Files ------------------------------------------------------------------ */

static int
sim_check_name(const char *name)
{
    if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        return -EINVAL;
    }
    return strlen(name) < sizeof((struct io_file *)NULL)->name ? 0 : -ENAMETOOLONG;
}

/* Finds or makes the file; *out is borrowed. */
static int
sim_open_inode(struct io_sim *sim, const char *name, unsigned flags, struct sim_inode **out)
{
    struct sim_disk *disk = sim->disk;
    struct sim_inode *inode = sim_names_find(&disk->names, name);
    bool creates = inode == NULL && (flags & IO_OPEN_CREATE) != 0;
    int failed = sim_enter(sim, SIM_OPEN, name, creates, NULL);
    if (failed == 0 && inode == NULL && !creates) {
        failed = -ENOENT;
    }
    if (failed == 0 && inode != NULL && (flags & IO_OPEN_EXCLUSIVE) != 0) {
        failed = -EEXIST;
    }
    if (creates) {
        struct sim_log_entry entry = sim_entry(SIM_OPEN, NULL, name, "");
        sim_before(disk, &entry);
        if (failed == 0) {
            inode = sim_inode_create(disk);
            sim_disk_change_name(disk, name, "", inode);
            sim_inode_unref(disk, inode);
            entry.inode = inode->id;
        }
        sim_after(disk, &entry, failed, NULL);
    }
    *out = inode;
    return failed;
}

static int
sim_open_file(struct io *io, const char *name, unsigned flags, struct io_file **out)
{
    struct io_sim *sim = sim_of(io);
    int failed = sim_check_name(name);
    if (failed == 0 && (flags & IO_OPEN_CREATE) != 0 && (flags & IO_OPEN_WRITE) == 0) {
        failed = -EINVAL;
    }
    if (failed != 0) {
        return failed;
    }
    struct sim_file *file = mem_zalloc(io->mem, sizeof *file);
    if (file == NULL) {
        return -ENOMEM;
    }
    struct sim_inode *inode;
    mutex_lock(&sim->disk->guard);
    failed = sim_open_inode(sim, name, flags, &inode);
    if (failed == 0) {
        file->inode = sim_inode_ref(inode);
        file->writable = (flags & IO_OPEN_WRITE) != 0;
        file->next = sim->disk->files;
        sim->disk->files = file;
        sim->open_files++;
        snprintf(file->base.name, sizeof file->base.name, "%s", name);
    }
    mutex_unlock(&sim->disk->guard);
    if (failed != 0) {
        mem_free(io->mem, file);
        return failed;
    }
    *out = &file->base;
    return 0;
}

static void
sim_close_file(struct io *io, struct io_file *io_file)
{
    struct io_sim *sim = sim_of(io);
    struct sim_file *file = sim_file_of(io_file);
    if (file == NULL) {
        return;
    }
    mutex_lock(&sim->disk->guard);
    if (file->inode != NULL) {
        struct sim_file **link = &sim->disk->files;
        while (*link != file) {
            ASSERT(*link != NULL);
            link = &(*link)->next;
        }
        *link = file->next;
        sim_inode_unref(sim->disk, file->inode);
    }
    ASSERT(sim->open_files > 0);
    sim->open_files--;
    mutex_unlock(&sim->disk->guard);
    mem_free(io->mem, file);
}

static int
sim_file_size(struct io *io, struct io_file *io_file, uint64_t *out)
{
    struct io_sim *sim = sim_of(io);
    struct sim_file *file = sim_file_of(io_file);
    mutex_lock(&sim->disk->guard);
    int failed = sim_enter(sim, SIM_SIZE, io_file->name, false, NULL);
    if (failed == 0) {
        *out = file->inode->len;
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

/* Files with a name or an open handle. A removed file gives its space back at
 * once, as a journal that is short of space commits. */
static uint64_t
sim_used_bytes(struct sim_disk *disk)
{
    uint64_t used = 0;
    for (struct sim_inode *inode = disk->inodes; inode != NULL; inode = inode->next) {
        inode->counted = false;
    }
    for (size_t at = 0; at < disk->names.count; at++) {
        struct sim_inode *inode = disk->names.items[at].inode;
        used += inode->counted ? 0 : inode->len;
        inode->counted = true;
    }
    for (struct sim_file *file = disk->files; file != NULL; file = file->next) {
        used += file->inode->counted ? 0 : file->inode->len;
        file->inode->counted = true;
    }
    return used;
}

uint64_t
sim_room_up_to(struct sim_disk *disk, const struct sim_inode *inode, uint64_t size)
{
    if (disk->capacity == 0 || size <= inode->len) {
        return size;
    }
    uint64_t used = sim_used_bytes(disk);
    uint64_t left = disk->capacity > used ? disk->capacity - used : 0;
    return MIN(size, inode->len + left);
}

static int
sim_set_size(struct io *io, struct io_file *io_file, uint64_t size, bool shrink)
{
    struct io_sim *sim = sim_of(io);
    struct sim_file *file = sim_file_of(io_file);
    mutex_lock(&sim->disk->guard);
    size = shrink ? size : MAX(size, file->inode->len);
    int failed = sim_enter(sim, SIM_TRUNCATE, io_file->name, true, NULL);
    if (failed == 0 && !file->writable) {
        failed = -EINVAL;
    }
    if (failed == 0 && sim_room_up_to(sim->disk, file->inode, size) < size) {
        failed = -ENOSPC;
    }
    if (failed == 0) {
        struct sim_log_entry entry = sim_entry(SIM_TRUNCATE, file->inode, io_file->name, "");
        entry.offset = size;
        sim_before(sim->disk, &entry);
        failed = sim_inode_truncate(sim->disk, file->inode, size);
        sim_after(sim->disk, &entry, failed, NULL);
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

static int
sim_truncate_file(struct io *io, struct io_file *file, uint64_t size)
{
    return sim_set_size(io, file, size, true);
}

/* A size is all that it takes: here no file has holes. */
static int
sim_reserve_file(struct io *io, struct io_file *file, uint64_t size)
{
    return sim_set_size(io, file, size, false);
}

/* ---- The directory -------------------------------------------------------------- */

static int
sim_sync_dir(struct io *io)
{
    struct io_sim *sim = sim_of(io);
    mutex_lock(&sim->disk->guard);
    struct sim_hit hit = {0};
    int failed = sim_enter(sim, SIM_SYNC_DIR, "", true, &hit);
    if (sim->life == sim->disk->life) {
        struct sim_log_entry entry = sim_entry(SIM_SYNC_DIR, NULL, "", "");
        sim_before(sim->disk, &entry);
        if (failed == 0 && !sim->disk->lying && !hit.lie) {
            sim_disk_sync_names(sim->disk, sim->disk->change_count);
            entry.effect = SIM_EFFECT_DURABLE;
        }
        sim_after(sim->disk, &entry, failed, NULL);
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

static int
sim_rename_file(struct io *io, const char *from, const char *to)
{
    struct io_sim *sim = sim_of(io);
    int failed = sim_check_name(from);
    failed = failed != 0 ? failed : sim_check_name(to);
    if (failed != 0) {
        return failed;
    }
    mutex_lock(&sim->disk->guard);
    struct sim_hit hit = {0};
    failed = sim_enter(sim, SIM_RENAME, from, true, &hit);
    struct sim_inode *inode = sim_names_find(&sim->disk->names, from);
    if (failed == 0 && inode == NULL) {
        failed = -ENOENT;
    }
    if (sim->life == sim->disk->life && !hit.lie) {
        struct sim_log_entry entry = sim_entry(SIM_RENAME, inode, from, to);
        sim_before(sim->disk, &entry);
        if (failed == 0 && strcmp(from, to) != 0) {
            sim_disk_change_name(sim->disk, to, from, inode);
        }
        sim_after(sim->disk, &entry, failed, NULL);
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

static int
sim_unlink_file(struct io *io, const char *name)
{
    struct io_sim *sim = sim_of(io);
    int failed = sim_check_name(name);
    if (failed != 0) {
        return failed;
    }
    mutex_lock(&sim->disk->guard);
    struct sim_hit hit = {0};
    failed = sim_enter(sim, SIM_UNLINK, name, true, &hit);
    const struct sim_inode *inode = sim_names_find(&sim->disk->names, name);
    if (failed == 0 && inode == NULL) {
        failed = -ENOENT;
    }
    if (sim->life == sim->disk->life && !hit.lie) {
        struct sim_log_entry entry = sim_entry(SIM_UNLINK, inode, name, "");
        sim_before(sim->disk, &entry);
        if (failed == 0) {
            sim_disk_change_name(sim->disk, name, "", NULL);
        }
        sim_after(sim->disk, &entry, failed, NULL);
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

/* Over a copy of the names, in an order that no caller can rely on. */
static int
sim_list(struct io *io, io_list_fn *each, void *ctx)
{
    struct io_sim *sim = sim_of(io);
    struct sim_disk *disk = sim->disk;
    mutex_lock(&disk->guard);
    int failed = sim_enter(sim, SIM_LIST, "", false, NULL);
    size_t count = failed == 0 ? disk->names.count : 0;
    size_t first = count > 1 ? rng_below(&disk->rng, count) : 0;
    char(*names)[40] = sim_alloc((count + 1) * sizeof *names);
    for (size_t at = 0; at < count; at++) {
        memcpy(names[at], disk->names.items[(first + at) % count].name, sizeof *names);
    }
    mutex_unlock(&disk->guard);
    for (size_t at = 0; at < count && each(ctx, names[at]) == 0; at++) {
    }
    mem_free(&mem_default, names);
    return failed;
}

static int
sim_lock(struct io *io, const char *name)
{
    struct io_sim *sim = sim_of(io);
    struct sim_inode *inode;
    int failed = sim_check_name(name);
    if (failed != 0) {
        return failed;
    }
    mutex_lock(&sim->disk->guard);
    failed = sim_open_inode(sim, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &inode);
    if (failed == 0 && sim->disk->lock_owner != NULL) {
        failed = -EWOULDBLOCK;
    }
    if (failed == 0) {
        sim->disk->lock_owner = io;
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

static void
sim_unlock(struct io *io)
{
    struct io_sim *sim = sim_of(io);
    mutex_lock(&sim->disk->guard);
    if (sim->disk->lock_owner == io) {
        sim->disk->lock_owner = NULL;
    }
    mutex_unlock(&sim->disk->guard);
}

/* ---- Memory ------------------------------------------------------------------ */

static int
sim_map_inode(struct io_sim *sim, struct sim_inode *inode, uint64_t len, void **out)
{
    if (len == 0 || len > inode->len) {
        return -EINVAL;
    }
    if (inode->cache->cap < SIM_MAP_ALIGNMENT) {
        int failed = sim_inode_reserve(inode, SIM_MAP_ALIGNMENT);
        if (failed != 0) {
            return failed;
        }
    }
    if (inode->maps == 0) {
        (void)sim_image_edit(&inode->cache, inode->cache->cap);
    }
    sim_record_mapped(sim->disk, inode);
    struct sim_map *map = sim_alloc(sizeof *map);
    map->io = &sim->base;
    map->blob = sim_blob_ref(inode->cache);
    map->inode = sim_inode_ref(inode);
    map->next = sim->disk->maps;
    sim->disk->maps = map;
    inode->maps++;
    sim->open_maps++;
    *out = map->blob->bytes;
    return 0;
}

static int
sim_map_file(struct io *io, struct io_file *io_file, uint64_t len, void **out)
{
    struct io_sim *sim = sim_of(io);
    struct sim_file *file = sim_file_of(io_file);
    mutex_lock(&sim->disk->guard);
    int failed = sim_enter(sim, SIM_MAP, io_file->name, false, NULL);
    if (failed == 0 && !file->writable) {
        failed = -EACCES;
    }
    if (failed == 0 && sim->disk->sync_failure == SIM_SYNC_REVERTS) {
        failed = -EOPNOTSUPP;
    }
    if (failed == 0) {
        failed = sim_map_inode(sim, file->inode, len, out);
    }
    mutex_unlock(&sim->disk->guard);
    return failed;
}

static void
sim_unmap_file(struct io *io, void *ptr, uint64_t len)
{
    (void)len;
    struct io_sim *sim = sim_of(io);
    if (ptr == NULL) {
        return;
    }
    mutex_lock(&sim->disk->guard);
    struct sim_map **link = &sim->disk->maps;
    while (*link != NULL && ((*link)->io != io || (*link)->blob->bytes != ptr)) {
        link = &(*link)->next;
    }
    struct sim_map *map = *link;
    ASSERT(map != NULL);
    *link = map->next;
    if (map->inode != NULL) {
        sim_inode_scan(map->inode); /* what was stored stays */
        map->inode->maps--;
        sim_inode_unref(sim->disk, map->inode);
    }
    sim_blob_unref(map->blob);
    mem_free(&mem_default, map);
    sim->open_maps--;
    mutex_unlock(&sim->disk->guard);
}

static int
sim_map_memory(struct io *io, uint64_t len, void **out)
{
    struct io_sim *sim = sim_of(io);
    mutex_lock(&sim->disk->guard);
    int failed = sim_enter(sim, SIM_MEMORY, "", false, NULL);
    mutex_unlock(&sim->disk->guard);
    if (failed != 0 || len == 0) {
        return failed != 0 ? failed : -EINVAL;
    }
    if (len >= IO_HUGE_FROM) {
        return io_posix_map_memory(io, len, out);
    }
    void *ptr = mem_alloc_aligned(io->mem, SIM_MAP_ALIGNMENT, (size_t)len);
    if (ptr == NULL) {
        return -ENOMEM;
    }
    memset(ptr, 0, (size_t)len);
    *out = ptr;
    return 0;
}

static void
sim_unmap_memory(struct io *io, void *ptr, uint64_t len)
{
    if (len >= IO_HUGE_FROM) {
        io_posix_unmap(io, ptr, len);
    } else {
        mem_free(io->mem, ptr);
    }
}

/* Of the machine, whose pages cost nothing until they are touched. */
static int
sim_map_aligned(struct io *io, uint64_t len, uint64_t alignment, void **out)
{
    struct io_sim *sim = sim_of(io);
    mutex_lock(&sim->disk->guard);
    int failed = sim_enter(sim, SIM_MEMORY, "", false, NULL);
    mutex_unlock(&sim->disk->guard);
    return failed != 0 ? failed : io_posix_map_aligned(io, len, alignment, out);
}

/* Reads of the simulated disk wait for nothing: only what fails, or takes its time, is seen. */
static int
sim_start_read(struct io *io, struct io_file *file, uint64_t offset, uint64_t len)
{
    struct io_sim *sim = sim_of(io);
    (void)offset;
    (void)len;
    mutex_lock(&sim->disk->guard);
    int failed = sim_enter(sim, SIM_AHEAD, file->name, false, NULL);
    mutex_unlock(&sim->disk->guard);
    return failed;
}

/* ---- The machine --------------------------------------------------------------- */

static uint64_t
sim_monotonic_ns(struct io *io)
{
    struct sim_disk *disk = sim_of(io)->disk;
    return sim_clock_add(disk, SIM_CALL_NS) - load_relaxed(&disk->boot_ns); /* relaxed: a number */
}

static uint64_t
sim_wall_ns(struct io *io)
{
    struct sim_disk *disk = sim_of(io)->disk;
    return sim_clock_add(disk, SIM_CALL_NS) + load_relaxed(&disk->wall_offset_ns); /* relaxed: a number */
}

static uint64_t
sim_random64(struct io *io)
{
    struct sim_disk *disk = sim_of(io)->disk;
    mutex_lock(&disk->guard);
    uint64_t value = rng_next(&disk->rng);
    mutex_unlock(&disk->guard);
    return value;
}

static int
sim_free_bytes(struct io *io, uint64_t *out)
{
    struct sim_disk *disk = sim_of(io)->disk;
    mutex_lock(&disk->guard);
    if (disk->capacity != 0) {
        uint64_t used = sim_used_bytes(disk);
        *out = disk->capacity > used ? disk->capacity - used : 0;
    }
    mutex_unlock(&disk->guard);
    return 0;
}

static void
sim_machine_id(struct io *io, struct io_machine_id *out)
{
    struct sim_disk *disk = sim_of(io)->disk;
    mutex_lock(&disk->guard);
    uint64_t halves[2] = {hash_mix(disk->seed, disk->boot), hash_mix(disk->boot, disk->seed)};
    memcpy(out->boot_id, halves, sizeof out->boot_id);
    out->mount_id = disk->boot;
    mutex_unlock(&disk->guard);
}

/* ---- Open and close -------------------------------------------------------------- */

static void
sim_destroy(struct io *io)
{
    struct io_sim *sim = sim_of(io);
    /* On a real machine these would be leaked descriptors and mappings. */
    ASSERT(sim->open_files == 0 && sim->open_maps == 0);
    sim_unlock(io);
    mutex_lock(&sim->disk->guard);
    sim->disk->handles--;
    mutex_unlock(&sim->disk->guard);
    mem_free(io->mem, sim);
}

static const struct io_ops sim_ops = {
    .label = "sim",
    .open_file = sim_open_file,
    .close_file = sim_close_file,
    .file_size = sim_file_size,
    .truncate_file = sim_truncate_file,
    .reserve_file = sim_reserve_file,
    .run = sim_run,
    .sync_dir = sim_sync_dir,
    .rename_file = sim_rename_file,
    .unlink_file = sim_unlink_file,
    .list = sim_list,
    .lock = sim_lock,
    .lock_shared = sim_lock,
    .unlock = sim_unlock,
    .map_file = sim_map_file,
    .unmap_file = sim_unmap_file,
    .map_memory = sim_map_memory,
    .unmap_memory = sim_unmap_memory,
    .map_aligned = sim_map_aligned,
    .allow_huge = io_posix_allow_huge,
    .unmap_aligned = io_posix_unmap,
    .discard = io_posix_discard,
    .monotonic_ns = sim_monotonic_ns,
    .wall_ns = sim_wall_ns,
    .random64 = sim_random64,
    .machine_id = sim_machine_id,
    .free_bytes = sim_free_bytes,
    .start_read = sim_start_read,
    .destroy = sim_destroy,
};

esker_status
io_sim_open(struct sim_disk *disk, const struct mem *mem, struct io **out)
{
    struct io_sim *sim = mem_zalloc(mem, sizeof *sim);
    if (sim == NULL) {
        return FAIL_NO_MEMORY("a directory handle");
    }
    mutex_lock(&disk->guard);
    bool off = disk->off;
    disk->handles += !off;
    sim->life = disk->life;
    mutex_unlock(&disk->guard);
    if (off) {
        mem_free(mem, sim);
        return FAIL(ESKER_IO, "the simulated disk is off");
    }
    sim->base.ops = &sim_ops;
    sim->base.mem = mem;
    sim->disk = disk;
    snprintf(sim->base.reason, sizeof sim->base.reason, "asked for the simulated disk");
    *out = &sim->base;
    return ESKER_OK;
}
