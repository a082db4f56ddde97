/* SPDX-License-Identifier: MIT */
/*
 * What the files of recovery share; private to them. Steps, in order:
 *   wal_chain.c    opens all logs, checks headers, orders the needed ones
 *   wal_walk.c     reads frames into images and believes them one by one
 *   wal_search.c   looks behind a bad frame for proofs; corrects one flipped bit
 *   wal_recover.c  puts it together
 *
 * Offsets are bytes of a log's frame space; LSN = base_lsn + offset / 8.
 */
#ifndef ESKER_WAL_RECOVERY_H
#define ESKER_WAL_RECOVERY_H

#include "wal/log_file.h"

struct recovery_log {
    struct log_file *file;
    uint64_t seed;
    uint64_t limit;    /* offset where the content that counts ends: cap, or the successor's prev_end_lsn */
    bool cut;          /* an earlier recovery ended it there: what lies beyond was discarded for good */
    uint64_t end;      /* offset behind the last believed frame */
    bool complete;     /* end == limit */
    uint8_t *image;    /* or NULL */
    uint64_t loaded;   /* image bytes [0, loaded) are what the file has */
    uint64_t last_off; /* of the last believed frame, when there is one */
    uint8_t last_type; /* its type; 0 = no frame */
    uint64_t corrected_lsn;
    bool corrected;             /* the last frame was made valid by one flipped bit */
    struct io_machine_id owner; /* who wrote the frames at this point of the walk or search */
    bool end_unknown;           /* salvage: where an earlier recovery may have ended it */
};

struct recovery {
    const struct wal_recover_input *input;
    struct io_machine_id machine; /* who reads */
    struct log_file **files;      /* all that are listed; ownership leaves with the result */
    size_t file_count;
    struct recovery_log *chain;
    size_t chain_count;
    uint64_t durable; /* the highest LSN that something proves to be durable */
    uint64_t gen_max, next_base_lsn;
    uint64_t bytes_read;
    /* Of the search behind the first bad frame: */
    uint64_t search_budget; /* bytes that may still be hashed */
    bool valid_behind;      /* a valid frame was found */
    bool proven;            /* and one that proves damage */
    uint64_t proof_lsn;
    bool ended; /* the search was done: the log ends before, or with, that frame */
};

static inline uint64_t
recovery_lsn(const struct recovery_log *log, uint64_t offset)
{
    return log->file->header.base_lsn + offset / LSN_BYTES;
}

/* Damage or refusal at an offset of the frame space. */
#define RECOVERY_FAIL(status, log, offset, ...)                                                              \
    FAIL_AT((status), (log)->file->file->name, LOG_HEADER_BYTES + (offset), __VA_ARGS__)

/* wal_chain.c: fills files, file_count, chain, chain_count, durable, gen_max, next_base_lsn. */
NODISCARD esker_status recovery_open_chain(struct recovery *recovery);

/* wal_walk.c */
NODISCARD esker_status recovery_need_image(struct recovery *recovery, struct recovery_log *log);
/* Makes sure that the image has bytes up to offset `to` <= limit. */
NODISCARD esker_status recovery_load(struct recovery *recovery, struct recovery_log *log, uint64_t to);
NODISCARD esker_status recovery_read(struct recovery *recovery, struct recovery_log *log, uint64_t offset,
                                     uint8_t *into, uint64_t len);
/* Believes frames from log->end on; stops at the first bad one, or at the limit. */
NODISCARD esker_status recovery_walk(struct recovery *recovery, struct recovery_log *log);
/* What a REOPEN frame says about who writes from here on. */
void recovery_take_owner(struct recovery_log *log, struct bytes reopen_body);

/* wal_search.c */
/* Looks behind the bad frame at chain[index].end; sets valid_behind and proven. */
NODISCARD esker_status recovery_search(struct recovery *recovery, size_t index);
/* Tries to make the frame at log->end valid by flipping one bit; then it is in
 * *frame, and the flip stays in the image. */
NODISCARD esker_status recovery_correct(struct recovery *recovery, struct recovery_log *log,
                                        struct frame *frame, bool *corrected_out);

/* wal_salvage_header.c */
/* For a log without a valid header: *found_out, and then log->header, whose prev_end_lsn is 0 when
 * it is not known. pages: LOG_HEADER_BYTES; log: its file and space_bytes are set. */
NODISCARD esker_status wal_salvage_guess(const struct wal_recover_input *input, struct log_file *const *files,
                                         size_t file_count, const uint8_t *pages, struct log_file *log,
                                         bool *found_out);

#endif
