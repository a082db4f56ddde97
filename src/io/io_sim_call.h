/* SPDX-License-Identifier: MIT */
/* Private to the simulated back-end's calls: what stands before and behind every one of them. */
#ifndef ESKER_IO_IO_SIM_CALL_H
#define ESKER_IO_IO_SIM_CALL_H

#include "io/io_sim_disk.h"

struct io_sim {
    struct io base;
    struct sim_disk *disk;
    uint64_t life;
    size_t open_files, open_maps;
};

static inline struct io_sim *
sim_of(struct io *io)
{
    return (struct io_sim *)(void *)io;
}

static inline struct sim_file *
sim_file_of(struct io_file *file)
{
    return (struct sim_file *)(void *)file;
}

/* What faults do to one call, besides its failure. */
struct sim_hit {
    uint32_t limit; /* bytes of a transfer, in and out */
    bool torn, flip, misdirect, lie;
};

/* Counts the call and decides whether it may happen: 0 or a negated errno. hit: nullable. */
int sim_enter(struct io_sim *sim, enum sim_kind kind, const char *name, bool mutates, struct sim_hit *hit);
/* The entry for a change; then sim_before, the change, sim_after. */
struct sim_log_entry sim_entry(enum sim_kind kind, const struct sim_inode *inode, const char *name,
                               const char *other);
void sim_before(struct sim_disk *disk, const struct sim_log_entry *entry);
void sim_after(struct sim_disk *disk, struct sim_log_entry *entry, int result, const uint8_t *data);
/* How far towards `size` the file may grow. */
uint64_t sim_room_up_to(struct sim_disk *disk, const struct sim_inode *inode, uint64_t size);
/* The table's `run`. */
void sim_run(struct io *io, struct io_req *reqs, size_t count);

#endif
