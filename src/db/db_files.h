/* SPDX-License-Identifier: MIT */
/* Which file in a directory is what, and which are provably esker's own. */
#ifndef ESKER_DB_DB_FILES_H
#define ESKER_DB_DB_FILES_H

#include "base/buf.h"
#include "io/io.h"

enum db_file_kind {
    DB_FILE_FOREIGN,
    DB_FILE_CURRENT,
    DB_FILE_CURRENT_TMP,
    DB_FILE_LOCK,
    DB_FILE_RESERVE,
    DB_FILE_LOG,
    DB_FILE_MANIFEST,
    DB_FILE_SEGMENT
};

enum { DB_FILE_HEAD_BYTES = 8192 /* what db_file_is_ours looks at */ };

#define DB_LOCK_NAME "LOCK"
#define DB_CURRENT_NAME "CURRENT"
#define DB_CURRENT_TMP_NAME "CURRENT.tmp"
#define DB_RESERVE_NAME "RESERVE"

struct db_file {
    enum db_file_kind kind;
    uint64_t number;
    char name[40];
};

struct db_file_list {
    struct buf buf; /* of struct db_file */
};

static inline size_t
db_file_count(const struct db_file_list *list)
{
    return list->buf.len / sizeof(struct db_file);
}

static inline const struct db_file *
db_file_at(const struct db_file_list *list, size_t index)
{
    return (const struct db_file *)(const void *)list->buf.ptr + index;
}

/* By name alone; exactly the names that esker writes. */
enum db_file_kind db_file_classify(const char *name, uint64_t *number_out);

/* Everything in the directory that classifies as ours by name. */
NODISCARD esker_status db_file_list(struct io *io, const struct mem *mem, struct db_file_list *out);
void db_file_list_fini(struct db_file_list *list);

/* Is it proven by its own bytes (header with our uuid and its own number) or
 * has nothing been written into it yet (a creation that was cut short)?
 * uuid NULL: any database's header will do; *uuid_out gets it when not NULL. */
NODISCARD esker_status db_file_is_ours(struct io *io, const struct db_file *file, const uint8_t *uuid,
                                       bool *ours_out);

/* A log or manifest that an unfinished creation may have left: no commit in it.
 * has_manifest: is there any manifest in the directory? */
NODISCARD esker_status db_file_is_unborn(struct io *io, const struct db_file *file, bool has_manifest,
                                         bool *unborn_out);

#endif
