/* SPDX-License-Identifier: MIT */
/*
 * What both checks of a history (history.h) start from: its operations as one
 * array, the versions of each key in their order, and words for a story.
 */
#ifndef ESKER_TOOLS_HISTORY_BOOK_H
#define ESKER_TOOLS_HISTORY_BOOK_H

#include "base/compiler.h"
#include "tools/history.h"

enum history_access_kind { ACCESS_READ, ACCESS_PUT, ACCESS_DELETE };

struct history_access {
    uint64_t tag; /* of a read: what was seen */
    uint32_t key;
    uint32_t kind;
};

struct history_op {
    uint64_t began_ns, ended_ns;
    uint64_t lsn;
    uint64_t point; /* AT: the tag that it refers to. PAST: the LSN that was asked for, 0 = not told */
    uint64_t first_access;
    uint32_t access_count;
    uint8_t kind, outcome;
};

struct history_session {
    uint32_t index;
    bool failed; /* out of memory: nothing more is recorded, the check says so */
    struct history_op *ops;
    size_t op_count, op_cap;
    struct history_access *accesses;
    size_t access_count, access_cap;
} CACHE_ALIGNED;

struct history {
    uint32_t session_count, key_count;
    struct history_session *sessions;
};

/* One version of a key. Absent from the start counts as the version before the first. */
struct history_version {
    uint64_t order; /* LSN, or the writer's operation: increases along the list */
    /* Least of this and all later versions; so the searches below are exact. */
    uint64_t began_least_ns, ended_least_ns;
    uint32_t op;
    bool is_delete;
    bool sure; /* false: its commit's outcome is unknown, and nobody saw it */
};

struct history_book {
    const struct history *history;
    enum history_check check;
    struct history_report *report;
    uint32_t op_count;
    const struct history_op **ops; /* sessions one after the other */
    uint32_t *session_of;
    uint32_t *session_first; /* session_count + 1 */
    bool *seen;              /* of commits: some read saw it */
    uint32_t *node_of;       /* the operation whose point it reads at: itself, but for AT */
    uint64_t *version_first; /* key_count + 1, into versions */
    struct history_version *versions;
    uint8_t *by_lsn; /* per key: `order` is the LSN */
};

/* GOOD, or why the check ends here. Owns: book until history_book_fini, also on failure. */
enum history_verdict history_book_init(struct history_book *book, struct history *history,
                                       enum history_check check, struct history_report *report);
void history_book_fini(struct history_book *book);

static inline const struct history_access *
history_accesses(const struct history_book *book, uint32_t op)
{
    return book->history->sessions[book->session_of[op]].accesses + book->ops[op]->first_access;
}

static inline uint64_t
history_version_count(const struct history_book *book, uint32_t key)
{
    return book->version_first[key + 1] - book->version_first[key];
}

/* The i-th version of a key, from 1. */
static inline struct history_version *
history_version_at(const struct history_book *book, uint32_t key, uint64_t i)
{
    return &book->versions[book->version_first[key] + i - 1];
}

/* The operation that a tag names; false if there is none. */
bool history_op_of_tag(const struct history_book *book, uint64_t tag, uint32_t *op_out);
/* Which version of the key that commit wrote, from 1; 0 = none. */
uint64_t history_version_of(const struct history_book *book, uint32_t key, uint32_t op);
/* The last version whose order is at most that, from 1; 0 = none. */
uint64_t history_version_below(const struct history_book *book, uint32_t key, uint64_t order);

/* Does it take part: did it happen, or may it have? */
static inline bool
history_happened(const struct history_op *op)
{
    return op->outcome == HISTORY_DONE || (op->outcome == HISTORY_UNKNOWN && op->kind == HISTORY_COMMIT);
}

/* ---- Stories ------------------------------------------------------------------ */

void history_say(struct history_report *report, const char *format, ...) PRINTF_LIKE(2, 3);
/* "session 3, operation 17, commit, LSN 120, 1.234 to 1.235 ms: puts 4 7, deletes 9". */
void history_say_op(const struct history_book *book, uint32_t op);

/* ---- The checks ----------------------------------------------------------------- */

enum history_verdict history_check_graph(struct history_book *book);
enum history_verdict history_check_order(struct history_book *book);

#endif
