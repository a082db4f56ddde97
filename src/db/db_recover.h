/* SPDX-License-Identifier: MIT */
/* What opening and verifying share: the state that a manifest describes, and its logs. */
#ifndef ESKER_DB_DB_RECOVER_H
#define ESKER_DB_DB_RECOVER_H

#include "db/db.h"

struct recover_segment {
    struct segment_meta meta;
    uint8_t keys[2 * EDIT_KEY_BYTES_MAX];
};

struct recover_state {
    esker_db *db;
    struct recover_segment **segments;
    size_t segment_count, segment_cap;
    uint64_t next_file_id, wal_min_gen, wal_min_lsn, durable_lsn;
    uint64_t seen_file_id; /* highest number among the directory's files */
    bool read_only;        /* logs are only looked at */
};

/* A manifest_apply_fn over a struct recover_state. */
esker_status recover_apply(void *ctx, const struct edit *edit);
void recover_state_fini(struct recover_state *state);

/* Reads the logs that the state needs; db->manifest is open. */
NODISCARD esker_status recover_read_logs(struct recover_state *state, struct wal_recovered *out);
/* Images, files and arrays, whatever was not taken over. */
void recover_release_logs(esker_db *db, struct wal_recovered *recovered);

#endif
