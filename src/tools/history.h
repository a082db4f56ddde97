/* SPDX-License-Identifier: MIT */
/*
 * Histories of what threads did to a database, and the question whether one
 * order of whole operations explains all of it: strict serialisability.
 *
 * Every value that is written carries the tag of the commit that wrote it, so
 * a read says whose value it saw. For each key the order of its versions is
 * known: by LSN if every commit of the key has one, else because one session
 * wrote it. With that the question needs no search; both checks sort:
 *
 *  HISTORY_BY_VERSION  A graph. Nodes are commits and points of reading; edges
 *      lead from a version's writer to its readers (wr), from its readers to
 *      the next version's writer (rw), from one version's writer to the next's
 *      (ww), from what had ended to what then began (time). The history is
 *      strictly serialisable if and only if the graph has no cycle.
 *  HISTORY_BY_LSN  Commits in the order of their LSNs are the one order there
 *      is; every point of reading must fit between two of them, at its LSN
 *      where it has one, and nobody may see time go backwards. Needs the LSN
 *      of every commit.
 *
 * Both are exact but for one thing: by version, a read of an absent key may
 * have met any of several deletes that went on beside it, and is then held to
 * what they have in common.
 *
 * Recording, one session per thread, sessions may be used at the same time:
 *
 *      uint64_t tag = history_begin(session, HISTORY_COMMIT);   ... put tag into the values
 *      history_write(session, key, false);                      ... for each key of the batch
 *      history_end(session, esker_write(...) == OK ? HISTORY_DONE : ..., lsn);
 *
 *      history_begin(session, HISTORY_READ);
 *      history_read(session, key, tag in the value, or 0 if absent);
 *      history_end(session, HISTORY_DONE, 0);
 *
 * A scan reads every key of its range: those it did not return are absent.
 * An iterator without a snapshot is one HISTORY_READ, begun before
 * esker_iter_create (or esker_iter_refresh) and ended after it: history_end
 * first, then the reads of that point with history_begin_at.
 */
#ifndef ESKER_TOOLS_HISTORY_H
#define ESKER_TOOLS_HISTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum history_kind {
    HISTORY_COMMIT,   /* its writes, and what it required unchanged (reads), at one point */
    HISTORY_READ,     /* its reads, at one point between begin and end */
    HISTORY_SNAPSHOT, /* a point that HISTORY_AT reads refer to, between begin and end */
    HISTORY_PAST,     /* the same, but it may lie in the past: esker_snapshot_create_at */
    HISTORY_AT        /* more reads at the point of an earlier READ, SNAPSHOT or PAST of any session */
};

enum history_outcome {
    HISTORY_DONE,
    HISTORY_VOID,   /* failed, wrote nothing, saw nothing: a conflict, a timeout */
    HISTORY_UNKNOWN /* a commit that may or may not have happened: a crash, an I/O error */
};

enum history_check { HISTORY_BY_VERSION, HISTORY_BY_LSN };

enum history_verdict {
    HISTORY_GOOD,
    HISTORY_BAD,      /* the report has the story */
    HISTORY_UNUSABLE, /* the version order is not known, or LSNs are missing; the report says where */
    HISTORY_NO_MEMORY
};

enum { HISTORY_STORY_BYTES = 8192 };

struct history_report {
    uint64_t ops, commits, reads; /* checked: operations, those that wrote, single keys read */
    char story[HISTORY_STORY_BYTES];
};

struct history;
struct history_session;

/* Keys are numbers below key_count. NULL: no memory. */
struct history *history_create(uint32_t session_count, uint32_t key_count);
void history_destroy(struct history *history /* nullable */);
/* Forgets what was recorded; keeps the memory. Nobody records meanwhile. */
void history_clear(struct history *history);
struct history_session *history_session(struct history *history, uint32_t index);

/* Returns the operation's tag: not 0, unique in the history, increasing within its session. */
uint64_t history_begin(struct history_session *session, enum history_kind kind);
/* More reads at `point`, the tag of an earlier operation that was DONE. */
uint64_t history_begin_at(struct history_session *session, uint64_t point);
/* tag: of the commit whose value was seen; 0 = the key is absent. */
void history_read(struct history_session *session, uint32_t key, uint64_t tag);
/* At most once per key and operation. */
void history_write(struct history_session *session, uint32_t key, bool is_delete);
/* lsn: of a commit its end LSN, of a snapshot its LSN; 0 = not known. */
void history_end(struct history_session *session, enum history_outcome outcome, uint64_t lsn);
/* Of a PAST operation: the LSN that was asked for; it is to be rounded down to a whole commit, no further. */
void history_asked(struct history_session *session, uint64_t lsn);
/* Nanoseconds, monotonic across threads. Whatever comes after the call in the
 * program is done after it: what a thread read or wrote cannot slip before. */
uint64_t history_now(void);
/* For times that were taken elsewhere (another process): instead of those that
 * begin and end took of the session's last operation. */
void history_set_times(struct history_session *session, uint64_t began_ns, uint64_t ended_ns);

/* Nobody records meanwhile. May be called several times. */
enum history_verdict history_check(struct history *history, enum history_check check,
                                   struct history_report *report);

#endif
