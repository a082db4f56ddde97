/* SPDX-License-Identifier: MIT */
/* Recording: each session appends to arrays of its own; nothing is shared while threads run. */
#include "tools/history.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "sync/atomic.h"
#include "tools/history_book.h"

enum { SESSION_BITS = 40, GROW_FIRST = 64 };

struct history *
history_create(uint32_t session_count, uint32_t key_count)
{
    struct history *history = calloc(1, sizeof *history);
    if (history == NULL) {
        return NULL;
    }
    history->session_count = session_count;
    history->key_count = key_count;
    history->sessions =
        aligned_alloc(CACHE_LINE_BYTES, (session_count + (size_t)1) * sizeof *history->sessions);
    if (history->sessions == NULL) {
        free(history);
        return NULL;
    }
    for (uint32_t i = 0; i < session_count; i++) {
        history->sessions[i] = (struct history_session){.index = i};
    }
    return history;
}

void
history_destroy(struct history *history)
{
    if (history == NULL) {
        return;
    }
    for (uint32_t i = 0; i < history->session_count; i++) {
        free(history->sessions[i].ops);
        free(history->sessions[i].accesses);
    }
    free(history->sessions);
    free(history);
}

void
history_clear(struct history *history)
{
    for (uint32_t i = 0; i < history->session_count; i++) {
        struct history_session *session = &history->sessions[i];
        session->op_count = 0;
        session->access_count = 0;
        session->failed = false;
    }
}

struct history_session *
history_session(struct history *history, uint32_t index)
{
    ASSERT(index < history->session_count);
    return &history->sessions[index];
}

uint64_t
history_now(void)
{
    static _Thread_local _Atomic uint32_t order;
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    /* relaxed: an exchange for what it does to the processor: no later load passes it on x86-64. */
    (void)add_relaxed(&order, 1);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Room for one more; false and the session marked if there is no memory. */
static bool
session_grow(struct history_session *session, void **array, size_t count, size_t *cap, size_t size)
{
    if (session->failed) {
        return false;
    }
    if (count < *cap) {
        return true;
    }
    size_t want = *cap == 0 ? GROW_FIRST : *cap * 2;
    void *grown = realloc(*array, want * size);
    if (grown == NULL) {
        session->failed = true;
        return false;
    }
    *array = grown;
    *cap = want;
    return true;
}

static uint64_t
session_begin(struct history_session *session, enum history_kind kind, uint64_t point)
{
    void *ops = session->ops;
    bool grown = session_grow(session, &ops, session->op_count, &session->op_cap, sizeof *session->ops);
    session->ops = ops;
    uint64_t tag = ((uint64_t)session->index + 1) << SESSION_BITS | (session->op_count + 1);
    if (grown) {
        session->ops[session->op_count++] = (struct history_op){.kind = (uint8_t)kind,
                                                                .outcome = HISTORY_VOID,
                                                                .point = point,
                                                                .first_access = session->access_count};
    }
    return tag;
}

uint64_t
history_begin(struct history_session *session, enum history_kind kind)
{
    ASSERT(kind != HISTORY_AT);
    uint64_t tag = session_begin(session, kind, 0);
    if (!session->failed) {
        session->ops[session->op_count - 1].began_ns = history_now();
    }
    return tag;
}

uint64_t
history_begin_at(struct history_session *session, uint64_t point)
{
    return session_begin(session, HISTORY_AT, point);
}

static void
session_access(struct history_session *session, uint32_t key, enum history_access_kind kind, uint64_t tag)
{
    void *accesses = session->accesses;
    bool grown = session_grow(session, &accesses, session->access_count, &session->access_cap,
                              sizeof *session->accesses);
    session->accesses = accesses;
    if (grown) {
        session->accesses[session->access_count++] =
            (struct history_access){.tag = tag, .key = key, .kind = kind};
        session->ops[session->op_count - 1].access_count++;
    }
}

void
history_read(struct history_session *session, uint32_t key, uint64_t tag)
{
    session_access(session, key, ACCESS_READ, tag);
}

void
history_write(struct history_session *session, uint32_t key, bool is_delete)
{
    session_access(session, key, is_delete ? ACCESS_DELETE : ACCESS_PUT, 0);
}

void
history_asked(struct history_session *session, uint64_t lsn)
{
    if (!session->failed) {
        session->ops[session->op_count - 1].point = lsn;
    }
}

void
history_end(struct history_session *session, enum history_outcome outcome, uint64_t lsn)
{
    if (session->failed) {
        return;
    }
    struct history_op *op = &session->ops[session->op_count - 1];
    op->ended_ns = outcome == HISTORY_UNKNOWN ? UINT64_MAX : history_now();
    op->outcome = (uint8_t)outcome;
    op->lsn = lsn;
}

void
history_set_times(struct history_session *session, uint64_t began_ns, uint64_t ended_ns)
{
    if (!session->failed) {
        struct history_op *op = &session->ops[session->op_count - 1];
        op->began_ns = began_ns;
        op->ended_ns = op->outcome == HISTORY_UNKNOWN ? UINT64_MAX : ended_ns;
    }
}

enum history_verdict
history_check(struct history *history, enum history_check check, struct history_report *report)
{
    struct history_book book;
    *report = (struct history_report){0};
    enum history_verdict verdict = history_book_init(&book, history, check, report);
    if (verdict == HISTORY_GOOD) {
        verdict = check == HISTORY_BY_LSN ? history_check_order(&book) : history_check_graph(&book);
    }
    history_book_fini(&book);
    return verdict;
}
