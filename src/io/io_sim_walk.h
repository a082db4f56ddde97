/* SPDX-License-Identifier: MIT */
/* Private to io_sim_states.c and io_sim_choose.c: where the walk over a log stands. */
#ifndef ESKER_IO_IO_SIM_WALK_H
#define ESKER_IO_IO_SIM_WALK_H

#include "io/io_sim_disk.h"
#include "io/io_sim_states.h"

enum { WALK_NAMES_MAX = 64, WALK_MEMOS = 64 };

struct walk_memo {
    uint64_t key[WALK_MEMOS], hash[WALK_MEMOS]; /* key 0: none */
};

struct walk_op {
    const struct sim_log_entry *entry;
    bool sure;     /* in every state */
    bool doubtful; /* a failed sync took it for written: no later sync makes it sure */
};

struct walk_file {
    uint64_t id;
    struct sim_blob *durable; /* NULL = zeros */
    uint64_t durable_len, durable_hash;
    bool hashed;
    struct walk_op *ops;
    size_t op_count, op_cap;
    uint32_t first_free;    /* number of its first free change */
    struct walk_memo *memo; /* hashes of contents that were built; void when the changes change */
    struct sim_inode *made; /* while a killed machine is made */
};

struct walk_image {
    struct sim_blob *blob;
    uint64_t len;
};

struct walk_name {
    char name[40];
    uint64_t file;
};

struct walk_names {
    struct walk_name items[WALK_NAMES_MAX];
    size_t count;
};

struct sim_states {
    struct sim_disk *base;
    const struct sim_log_entry *log;
    size_t log_count, cut;
    struct walk_file *files;
    size_t file_count, file_cap;
    struct walk_names names; /* durable */
    const struct sim_log_entry **changes;
    size_t change_count, change_cap;
    size_t names_forced; /* ORDERED: so many of the changes are durable through the sync of a file */
    uint32_t names_free; /* number of the first free change of names */
    uint32_t free_count;
};

void walk_change(struct walk_names *names, const struct sim_log_entry *entry, bool both);

#endif
