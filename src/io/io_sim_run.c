/* SPDX-License-Identifier: MIT */
/* The simulated back-end's requests: reads, writes and syncs, and what faults make of them. */
#include <errno.h>

#include "base/assert.h"
#include "io/io_sim_call.h"

static void
sim_flip(struct sim_disk *disk, uint8_t *data, uint32_t len)
{
    if (len > 0) {
        uint64_t bit = rng_below(&disk->rng, (uint64_t)len * 8);
        data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
}

static int32_t
sim_read(struct io_sim *sim, const struct io_req *req)
{
    struct sim_hit hit = {.limit = MIN(req->len, (uint32_t)INT32_MAX)};
    int failed = sim_enter(sim, SIM_READ, req->file->name, false, &hit);
    if (failed != 0 || req->offset > INT64_MAX) {
        return failed != 0 ? failed : -EINVAL;
    }
    uint32_t done = sim_inode_read(sim_file_of(req->file)->inode, req->offset, req->data, hit.limit);
    if (hit.flip) {
        sim_flip(sim->disk, req->data, done);
    }
    return (int32_t)done;
}

static int32_t
sim_write_allowed(struct sim_disk *disk, const struct sim_file *file, const struct io_req *req,
                  uint32_t limit)
{
    if (!file->writable) {
        return -EBADF;
    }
    if (req->offset > INT64_MAX) {
        return -EINVAL;
    }
    uint64_t end = sim_room_up_to(disk, file->inode, req->offset + limit);
    if (end <= req->offset && limit > 0) {
        return -ENOSPC;
    }
    return (int32_t)(end - req->offset);
}

/* The first atom of the data lands one atom off. */
static int
sim_write_astray(struct sim_disk *disk, struct sim_inode *inode, uint64_t offset, const uint8_t *data,
                 uint32_t len)
{
    uint32_t astray = MIN(len, (uint32_t)SIM_ATOM_BYTES);
    uint64_t place = offset >= SIM_ATOM_BYTES ? offset - SIM_ATOM_BYTES : offset + SIM_ATOM_BYTES;
    int failed = sim_inode_write(disk, inode, offset + astray, data + astray, len - astray);
    return failed != 0 ? failed : sim_inode_write(disk, inode, place, data, astray);
}

/* Lands `len` bytes of the request, as the faults want it. */
static int
sim_write_some(struct sim_disk *disk, struct sim_inode *inode, const struct io_req *req, uint32_t len,
               const struct sim_hit *hit)
{
    const uint8_t *data = req->data;
    uint8_t *flipped = NULL;
    if (hit->flip) {
        flipped = sim_alloc(len);
        memcpy(flipped, data, len);
        sim_flip(disk, flipped, len);
        data = flipped;
    }
    int failed = hit->misdirect ? sim_write_astray(disk, inode, req->offset, data, len)
                                : sim_inode_write(disk, inode, req->offset, data, len);
    mem_free(&mem_default, flipped);
    return failed;
}

static int32_t
sim_write(struct io_sim *sim, const struct io_req *req)
{
    struct sim_disk *disk = sim->disk;
    const struct sim_file *file = sim_file_of(req->file);
    struct sim_hit hit = {.limit = MIN(req->len, (uint32_t)INT32_MAX)};
    int failed = sim_enter(sim, SIM_WRITE, req->file->name, true, &hit);
    if (sim->life != disk->life) {
        return failed;
    }
    struct sim_log_entry entry = sim_entry(SIM_WRITE, file->inode, req->file->name, "");
    entry.offset = req->offset;
    entry.len = req->len;
    sim_before(disk, &entry);
    int32_t done = failed != 0 ? failed : sim_write_allowed(disk, file, req, hit.limit);
    if (done > 0 && !hit.lie) {
        failed = sim_write_some(disk, file->inode, req, (uint32_t)done, &hit);
        done = failed != 0 ? failed : done;
    }
    sim_after(disk, &entry, done, hit.lie ? NULL : req->data);
    return hit.torn && done >= 0 ? -EIO : done;
}

/* What a sync of [from, to) that fails does is a property of the disk. */
static enum sim_effect
sim_sync_fails(struct sim_disk *disk, struct sim_inode *inode, uint64_t from, uint64_t to, int *failed)
{
    switch (disk->sync_failure) {
    case SIM_SYNC_STAYS_DIRTY:
        return SIM_EFFECT_NONE;
    case SIM_SYNC_LATE:
        inode->late_err = *failed;
        *failed = 0;
        sim_inode_mark_clean(inode, from, to);
        return SIM_EFFECT_DOUBTFUL;
    case SIM_SYNC_MARKS_CLEAN:
        sim_inode_mark_clean(inode, from, to);
        return SIM_EFFECT_DOUBTFUL;
    case SIM_SYNC_REVERTS:
        sim_inode_revert(inode, from, to);
        return SIM_EFFECT_REVERTED;
    }
    UNREACHABLE();
}

/* len 0: the whole file. */
static int32_t
sim_sync(struct io_sim *sim, const struct io_req *req, uint64_t offset, uint64_t len)
{
    struct sim_disk *disk = sim->disk;
    struct sim_hit hit = {0};
    uint64_t from = len == 0 ? 0 : offset;
    uint64_t to = len == 0 ? UINT64_MAX : offset + len;
    int failed = sim_enter(sim, SIM_SYNC, req->file->name, true, &hit);
    if (sim->life != disk->life) {
        return failed;
    }
    struct sim_inode *inode = sim_file_of(req->file)->inode;
    struct sim_log_entry entry = sim_entry(SIM_SYNC, inode, req->file->name, "");
    entry.offset = from;
    entry.len = len;
    sim_before(disk, &entry);
    entry.effect = SIM_EFFECT_NONE;
    if (failed == 0 && inode->late_err != 0) {
        failed = inode->late_err;
        inode->late_err = 0;
        sim_inode_mark_clean(inode, from, to);
        entry.effect = SIM_EFFECT_DOUBTFUL;
    } else if (failed == 0 && !disk->lying && !hit.lie) {
        sim_inode_sync(inode, from, to);
        entry.effect = SIM_EFFECT_DURABLE;
    } else if (failed != 0) {
        entry.effect = sim_sync_fails(disk, inode, from, to, &failed);
    }
    sim_after(disk, &entry, failed, NULL);
    return failed;
}

/* Two operations, one after the other, each with faults of its own. */
static int32_t
sim_write_sync(struct io_sim *sim, const struct io_req *req)
{
    struct sim_disk *disk = sim->disk;
    int32_t done = sim_write(sim, req);
    if (done <= 0) {
        return done;
    }
    uint64_t submit = disk->batch_submit;
    disk->batch_submit = ++disk->point; /* behind the write, so it covers it */
    int32_t failed = sim_sync(sim, req, req->offset, (uint64_t)done);
    disk->batch_submit = submit;
    return failed != 0 ? failed : done;
}

static int32_t
sim_run_one(struct io_sim *sim, const struct io_req *req)
{
    switch (req->op) {
    case IO_READ:
        return sim_read(sim, req);
    case IO_WRITE:
        return sim_write(sim, req);
    case IO_SYNC:
        return sim_sync(sim, req, 0, 0);
    case IO_WRITE_SYNC:
        return sim_write_sync(sim, req);
    }
    UNREACHABLE();
}

static void
sim_run_some(struct io_sim *sim, struct io_req *reqs, size_t count, size_t first, bool syncs)
{
    for (size_t at = 0; at < count; at++) {
        struct io_req *req = &reqs[(first + at) % count];
        if ((req->op == IO_SYNC) != syncs) {
            continue;
        }
        req->result = sim_run_one(sim, req);
    }
}

void
sim_run(struct io *io, struct io_req *reqs, size_t count)
{
    struct io_sim *sim = sim_of(io);
    mutex_lock(&sim->disk->guard);
    size_t first = count > 1 ? rng_below(&sim->disk->rng, count) : 0;
    sim_record_batch(sim->disk);
    sim_run_some(sim, reqs, count, first, true);
    sim_run_some(sim, reqs, count, first, false);
    sim->disk->batch_submit = 0;
    mutex_unlock(&sim->disk->guard);
}
