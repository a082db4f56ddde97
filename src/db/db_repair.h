/* SPDX-License-Identifier: MIT */
/*
 * What the files of repair share; private to them.
 *   db_repair.c         what is here, what is damaged, what is kept: the plan
 *   db_repair_cut.c     what proves that a manifest has lost its end
 *   db_repair_rows.c    reads what is left of logs and segments into new segments
 *   db_repair_commit.c  sets the old files aside and makes the new state the database
 *   db_repair_say.c     what it says to whoever asked for it
 *
 * Invariants
 *  R1 Nothing that exists is changed before everything new is written and synced and
 *     every file that will go has a synced copy "NAME.lost".
 *  R2 CURRENT's rename is the one moment in which the database changes: a crash before
 *     leaves the damaged database as it was, one behind it the repaired one.
 *  R3 A row is kept only if its checksum proves it to be this database's.
 *  R4 Damage is what bytes that were read say, and a missing file. A file that
 *     cannot be read (now), a full disk, no memory, a later version's file: the
 *     repair fails with that, and R1 holds.
 */
#ifndef ESKER_DB_DB_REPAIR_H
#define ESKER_DB_DB_REPAIR_H

#include "db/db_files.h"
#include "db/db_recover.h"
#include "iter/array_iter.h"

enum { REPAIR_TEXT_BYTES = 512, REPAIR_BUDGET_BYTES = 32 << 20 };

struct repair {
    esker_db *db;
    esker_repair_fn *say;
    void *say_ctx;
    struct db_file_list files;
    struct recover_state state; /* what the manifest lists; nothing when it is lost */
    bool rebuild;               /* the manifest cannot be believed: the directory says what there is */
    bool current_bad;           /* CURRENT has to be written anew, whatever else is well */
    struct buf dropped;         /* uint64_t: segments that a lost manifest still says were dropped */
    uint64_t manifest_no_max, edit_no;
    uint64_t next_id;             /* of new files */
    uint64_t lsn_max;             /* no row has a higher LSN */
    struct buf rows;              /* struct array_row: what the logs hold, sorted once all are read */
    struct wal_salvaged salvaged; /* what `rows` points into */
    struct buf listed;            /* struct segment_meta of all segments of the new state, in their order */
    struct buf results;           /* struct compaction_result of new ones */
    struct buf gone;              /* struct db_file: set aside at the end */
    uint64_t losses, rows_kept;
    const char *salvaging; /* the file that losses are told of */
    uint64_t salvaging_min_lsn, salvaging_max_lsn;
};

/* R4 */
static inline bool
repair_is_damage(esker_status status)
{
    return status == ESKER_CORRUPT || status == ESKER_NOT_FOUND;
}

/* One sentence for whoever asked for the repair. */
void repair_say(struct repair *repair, const char *format, ...) PRINTF_LIKE(2, 3);

/* db_repair.c */
/* The first bytes of a file; *len_out: 0 for what is no file. */
NODISCARD esker_status repair_read_head(struct repair *repair, const struct db_file *file,
                                        uint8_t head[LOG_HEADER_BYTES], size_t *len_out);
/* A manifest_apply_fn: adds to `dropped` what the edit takes off the list for good. */
esker_status repair_note_drops(void *ctx, const struct edit *edit);

/* db_repair_cut.c */
/* The manifest was read and nothing in it is damaged: are edits missing at its end? */
NODISCARD esker_status repair_is_cut(struct repair *repair, bool *cut_out);

/* db_repair_rows.c */
NODISCARD esker_status repair_read_logs(struct repair *repair, uint64_t wal_min_gen, uint64_t wal_min_lsn);
/* One listed segment that is damaged: what is left of it, in its level. */
NODISCARD esker_status repair_salvage_segment(struct repair *repair, const struct segment_meta *meta);
/* The rows of the logs as segments of level 0. */
NODISCARD esker_status repair_write_logs(struct repair *repair);
/* Every row of every segment in the directory, and those of the logs, as one sorted run. */
NODISCARD esker_status repair_write_all(struct repair *repair);

/* db_repair_commit.c */
NODISCARD esker_status repair_commit(struct repair *repair);

static inline bool
repair_is_dropped(const struct repair *repair, uint64_t id)
{
    const uint64_t *ids = (const void *)repair->dropped.ptr;
    for (size_t i = 0; i < repair->dropped.len / sizeof *ids; i++) {
        if (ids[i] == id) {
            return true;
        }
    }
    return false;
}

#endif
