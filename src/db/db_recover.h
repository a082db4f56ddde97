/* SPDX-License-Identifier: MIT */
/* What opening and verifying share: the state that a manifest describes, and its logs. */
#ifndef ESKER_DB_DB_RECOVER_H
#define ESKER_DB_DB_RECOVER_H

#include "db/db.h"
#include "db/db_files.h"

struct recover_segment {
    struct segment_meta meta;
    uint8_t keys[2 * EDIT_KEY_BYTES_MAX];
    uint64_t added; /* in the order in which the edits do */
    bool is_there;  /* the directory has its file */
};

struct recover_place {
    uint64_t id;
    size_t place; /* in the list, and one; 0: it was dropped */
    bool is_used;
};

struct recover_state {
    esker_db *db;
    struct recover_segment **segments;
    size_t segment_count, segment_cap;
    struct recover_place *index; /* db_recover_list.c */
    size_t index_cap, index_used;
    uint64_t added; /* segments so far */
    uint64_t next_file_id, wal_min_gen, wal_min_lsn, durable_lsn;
    uint64_t seen_file_id; /* highest number among the directory's files */
    bool read_only;        /* logs are only looked at */
};

/* ---- db_recover_list.c ---- */
NODISCARD esker_status recover_add_segment(struct recover_state *state, const struct segment_meta *meta);
void recover_drop_segment(struct recover_state *state, uint64_t id);
/* Brings the list into the order in which the edits named what is left of it: of segments whose bounds do
 * not tell which comes first (db_install.c, I4) that does. */
void recover_order_segments(struct recover_state *state);
/* NULL: it is not in the list. */
struct recover_segment *recover_find_segment(const struct recover_state *state, uint64_t id);

/* A manifest_apply_fn over a struct recover_state. */
esker_status recover_apply(void *ctx, const struct edit *edit);
void recover_state_fini(struct recover_state *state);

/* db_recover_unlisted.c: CORRUPT when logs that are not listed prove that the manifest lost its end.
 * gen_max: of those that are. */
NODISCARD esker_status recover_check_unlisted(struct recover_state *state, uint64_t gen_max);

struct log_look {
    struct log_header header; /* gen 0: neither page is valid and this database's */
    bool begun;               /* a frame's head is where the first frame goes */
    bool used;                /* and so is all of that frame */
};

/* db_log_look.c: what the log says of itself; frames are looked at in lives of a higher gen only.
 * Nothing but a file that cannot be read is a failure. */
NODISCARD esker_status recover_look_at_log(esker_db *db, const struct db_file *file, uint64_t above_gen,
                                           struct log_look *out);

/* Reads the logs that the state needs; db->manifest is open. */
NODISCARD esker_status recover_read_logs(struct recover_state *state, struct wal_recovered *out);
/* Images, files and arrays, whatever was not taken over. */
void recover_release_logs(esker_db *db, struct wal_recovered *recovered);

#endif
