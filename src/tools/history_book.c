/* SPDX-License-Identifier: MIT */
/* A history laid out for checking, and what no order at all could explain: values that nobody wrote. */
#include "tools/history_book.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

enum { TAG_OP_BITS = 40, STORY_KEYS_MAX = 12 };

/* ---- Stories ------------------------------------------------------------------ */

void
history_say(struct history_report *report, const char *format, ...)
{
    size_t len = strlen(report->story);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(report->story + len, sizeof report->story - len, format, args);
    va_end(args);
}

static void
book_say_keys(const struct history_book *book, uint32_t op, enum history_access_kind kind, const char *verb)
{
    static const char *const more = " ...";
    const struct history_access *accesses = history_accesses(book, op);
    uint32_t said = 0;
    for (uint32_t i = 0; i < book->ops[op]->access_count && said <= STORY_KEYS_MAX; i++) {
        if (accesses[i].kind != (uint32_t)kind) {
            continue;
        }
        if (said == 0) {
            history_say(book->report, "%s", verb);
        }
        said++;
        if (said > STORY_KEYS_MAX) {
            history_say(book->report, "%s", more);
        } else {
            history_say(book->report, " %" PRIu32, accesses[i].key);
        }
    }
}

void
history_say_op(const struct history_book *book, uint32_t op)
{
    static const char *const kinds[] = {"commit", "read", "snapshot", "snapshot of the past", "read at"};
    const struct history_op *what = book->ops[op];
    uint32_t session = book->session_of[op];
    history_say(book->report, "session %" PRIu32 ", operation %" PRIu32 ", %s", session,
                op - book->session_first[session] + 1, kinds[what->kind]);
    if (what->lsn != 0) {
        history_say(book->report, ", LSN %" PRIu64, what->lsn);
    }
    if (what->kind == HISTORY_AT) {
        uint32_t point = book->node_of[op];
        history_say(book->report, " session %" PRIu32 "'s operation %" PRIu32, book->session_of[point],
                    point - book->session_first[book->session_of[point]] + 1);
    } else if (what->outcome == HISTORY_UNKNOWN) {
        history_say(book->report, ", from %" PRIu64 " ns, outcome unknown", what->began_ns);
    } else {
        history_say(book->report, ", %" PRIu64 " to %" PRIu64 " ns", what->began_ns, what->ended_ns);
    }
    book_say_keys(book, op, ACCESS_PUT, "; puts");
    book_say_keys(book, op, ACCESS_DELETE, "; deletes");
    book_say_keys(book, op, ACCESS_READ, "; reads");
}

/* ---- Looking things up ----------------------------------------------------------- */

bool
history_op_of_tag(const struct history_book *book, uint64_t tag, uint32_t *op_out)
{
    uint64_t session = (tag >> TAG_OP_BITS) - 1;
    uint64_t index = (tag & (((uint64_t)1 << TAG_OP_BITS) - 1)) - 1;
    if (tag >> TAG_OP_BITS == 0 || session >= book->history->session_count ||
        index >= book->history->sessions[session].op_count) {
        return false;
    }
    *op_out = book->session_first[session] + (uint32_t)index;
    return true;
}

uint64_t
history_version_below(const struct history_book *book, uint32_t key, uint64_t order)
{
    uint64_t from = 0;
    uint64_t to = history_version_count(book, key);
    while (from < to) {
        uint64_t half = from + (to - from) / 2;
        if (history_version_at(book, key, half + 1)->order <= order) {
            from = half + 1;
        } else {
            to = half;
        }
    }
    return from;
}

uint64_t
history_version_of(const struct history_book *book, uint32_t key, uint32_t op)
{
    uint64_t i = history_version_below(book, key, book->by_lsn[key] ? book->ops[op]->lsn : op);
    return i > 0 && history_version_at(book, key, i)->op == op ? i : 0;
}

/* ---- Laying out ------------------------------------------------------------------- */

static enum history_verdict
book_allocate(struct history_book *book)
{
    const struct history *history = book->history;
    uint64_t count = 0;
    book->session_first = calloc((size_t)history->session_count + 1, sizeof *book->session_first);
    if (book->session_first == NULL) {
        return HISTORY_NO_MEMORY;
    }
    for (uint32_t i = 0; i < history->session_count; i++) {
        if (history->sessions[i].failed) {
            return HISTORY_NO_MEMORY;
        }
        count += history->sessions[i].op_count;
        ASSERT(count < UINT32_MAX / 2); /* nodes and barriers are numbered in 32 bits */
        book->session_first[i + 1] = (uint32_t)count;
    }
    book->op_count = (uint32_t)count;
    book->ops = calloc(count + 1, sizeof *book->ops);
    book->session_of = calloc(count + 1, sizeof *book->session_of);
    book->seen = calloc(count + 1, sizeof *book->seen);
    book->node_of = calloc(count + 1, sizeof *book->node_of);
    book->version_first = calloc((size_t)history->key_count + 1, sizeof *book->version_first);
    book->by_lsn = calloc((size_t)history->key_count + 1, sizeof *book->by_lsn);
    if (book->ops == NULL || book->session_of == NULL || book->seen == NULL || book->node_of == NULL ||
        book->version_first == NULL || book->by_lsn == NULL) {
        return HISTORY_NO_MEMORY;
    }
    for (uint32_t i = 0; i < history->session_count; i++) {
        for (size_t j = 0; j < history->sessions[i].op_count; j++) {
            book->ops[book->session_first[i] + j] = &history->sessions[i].ops[j];
            book->session_of[book->session_first[i] + j] = i;
        }
    }
    return HISTORY_GOOD;
}

static enum history_verdict
book_find_points(struct history_book *book)
{
    for (uint32_t op = 0; op < book->op_count; op++) {
        uint32_t point = op;
        if (book->ops[op]->kind == HISTORY_AT &&
            (!history_op_of_tag(book, book->ops[op]->point, &point) || book->ops[point]->kind == HISTORY_AT ||
             book->ops[point]->outcome != HISTORY_DONE)) {
            history_say(book->report, "session %" PRIu32 " reads at a point that is none\n",
                        book->session_of[op]);
            return HISTORY_UNUSABLE;
        }
        book->node_of[op] = point;
    }
    return HISTORY_GOOD;
}

/* What a read saw must be a put of that key, by a commit that did not fail. */
static enum history_verdict
book_check_seen(struct history_book *book, uint32_t op, const struct history_access *read)
{
    uint32_t writer = 0;
    const char *wrong = NULL;
    if (!history_op_of_tag(book, read->tag, &writer) || book->ops[writer]->kind != HISTORY_COMMIT) {
        wrong = "has a value that nobody wrote";
    } else if (!history_happened(book->ops[writer])) {
        wrong = "has the value of a commit that failed";
    } else {
        const struct history_access *accesses = history_accesses(book, writer);
        wrong = "has a value that was written to another key";
        for (uint32_t i = 0; i < book->ops[writer]->access_count; i++) {
            if (accesses[i].key == read->key && accesses[i].kind != ACCESS_READ) {
                wrong = accesses[i].kind == ACCESS_PUT ? NULL : "has the value of a commit that deleted it";
            }
        }
        book->seen[writer] = true;
    }
    if (wrong == NULL) {
        return HISTORY_GOOD;
    }
    history_say(book->report, "key %" PRIu32 " %s (tag %" PRIx64 "). Seen by\n  ", read->key, wrong,
                read->tag);
    history_say_op(book, op);
    if (book->seen[writer]) {
        history_say(book->report, "\nits commit is\n  ");
        history_say_op(book, writer);
    }
    history_say(book->report, "\n");
    return HISTORY_BAD;
}

static enum history_verdict
book_check_reads(struct history_book *book)
{
    for (uint32_t op = 0; op < book->op_count; op++) {
        const struct history_access *accesses = history_accesses(book, op);
        if (book->ops[op]->outcome != HISTORY_DONE) {
            continue;
        }
        book->report->ops++;
        for (uint32_t i = 0; i < book->ops[op]->access_count; i++) {
            ASSERT(accesses[i].key < book->history->key_count);
            if (accesses[i].kind == ACCESS_READ) {
                book->report->reads++;
                enum history_verdict verdict =
                    accesses[i].tag == 0 ? HISTORY_GOOD : book_check_seen(book, op, &accesses[i]);
                if (verdict != HISTORY_GOOD) {
                    return verdict;
                }
            }
        }
        book->report->commits += book->ops[op]->kind == HISTORY_COMMIT ? 1 : 0;
    }
    return HISTORY_GOOD;
}

/* How many versions each key has, and whether its order is that of LSNs. */
static enum history_verdict
book_count_versions(struct history_book *book)
{
    uint32_t key_count = book->history->key_count;
    uint32_t *writer = calloc((size_t)key_count + 1, sizeof *writer); /* session + 1; UINT32_MAX = several */
    bool *lacks_lsn = calloc((size_t)key_count + 1, sizeof *lacks_lsn);
    enum history_verdict verdict = writer != NULL && lacks_lsn != NULL ? HISTORY_GOOD : HISTORY_NO_MEMORY;
    for (uint32_t op = 0; op < book->op_count && verdict == HISTORY_GOOD; op++) {
        const struct history_access *accesses = history_accesses(book, op);
        uint32_t session = book->session_of[op] + 1;
        for (uint32_t i = 0; history_happened(book->ops[op]) && i < book->ops[op]->access_count; i++) {
            uint32_t key = accesses[i].key;
            if (accesses[i].kind != ACCESS_READ) {
                book->version_first[key + 1]++;
                writer[key] = writer[key] == 0 || writer[key] == session ? session : UINT32_MAX;
                lacks_lsn[key] = lacks_lsn[key] || book->ops[op]->lsn == 0 ||
                                 (book->check == HISTORY_BY_LSN && book->ops[op]->outcome != HISTORY_DONE);
            }
        }
    }
    for (uint32_t key = 0; key < key_count && verdict == HISTORY_GOOD; key++) {
        bool several = writer[key] == UINT32_MAX;
        book->by_lsn[key] = book->check == HISTORY_BY_LSN || several;
        if (book->by_lsn[key] && lacks_lsn[key]) {
            history_say(book->report, "commits of key %" PRIu32 " have no LSN%s\n", key,
                        several ? ", and several sessions wrote it" : "");
            verdict = HISTORY_UNUSABLE;
        }
        book->version_first[key + 1] += book->version_first[key];
    }
    free(writer);
    free(lacks_lsn);
    return verdict;
}

static int
book_compare_versions(const void *a, const void *b)
{
    uint64_t x = ((const struct history_version *)a)->order;
    uint64_t y = ((const struct history_version *)b)->order;
    return x < y ? -1 : x > y;
}

static void
book_sort_versions(struct history_book *book, uint32_t key)
{
    uint64_t count = history_version_count(book, key);
    struct history_version *versions = book->versions + book->version_first[key];
    if (book->by_lsn[key]) { /* by operation they came in order */
        qsort(versions, count, sizeof *versions, book_compare_versions);
    }
    uint64_t began = UINT64_MAX;
    uint64_t ended = UINT64_MAX;
    for (uint64_t i = count; i > 0; i--) {
        const struct history_op *op = book->ops[versions[i - 1].op];
        began = MIN(began, op->began_ns);
        ended = MIN(ended, op->ended_ns);
        versions[i - 1].began_least_ns = began;
        versions[i - 1].ended_least_ns = ended;
    }
}

static enum history_verdict
book_list_versions(struct history_book *book)
{
    uint32_t key_count = book->history->key_count;
    uint64_t *next = malloc(((size_t)key_count + 1) * sizeof *next);
    book->versions = calloc(book->version_first[key_count] + 1, sizeof *book->versions);
    if (next == NULL || book->versions == NULL) {
        free(next);
        return HISTORY_NO_MEMORY;
    }
    memcpy(next, book->version_first, ((size_t)key_count + 1) * sizeof *next);
    for (uint32_t op = 0; op < book->op_count; op++) {
        const struct history_access *accesses = history_accesses(book, op);
        const struct history_op *what = book->ops[op];
        for (uint32_t i = 0; history_happened(what) && i < what->access_count; i++) {
            if (accesses[i].kind != ACCESS_READ) {
                book->versions[next[accesses[i].key]++] =
                    (struct history_version){.order = book->by_lsn[accesses[i].key] ? what->lsn : op,
                                             .op = op,
                                             .is_delete = accesses[i].kind == ACCESS_DELETE,
                                             .sure = what->outcome == HISTORY_DONE || book->seen[op]};
            }
        }
    }
    free(next);
    for (uint32_t key = 0; key < key_count; key++) {
        book_sort_versions(book, key);
    }
    return HISTORY_GOOD;
}

enum history_verdict
history_book_init(struct history_book *book, struct history *history, enum history_check check,
                  struct history_report *report)
{
    *book = (struct history_book){.history = history, .check = check, .report = report};
    enum history_verdict verdict = book_allocate(book);
    if (verdict == HISTORY_GOOD) {
        verdict = book_find_points(book);
    }
    if (verdict == HISTORY_GOOD) {
        verdict = book_check_reads(book);
    }
    if (verdict == HISTORY_GOOD) {
        verdict = book_count_versions(book);
    }
    return verdict == HISTORY_GOOD ? book_list_versions(book) : verdict;
}

void
history_book_fini(struct history_book *book)
{
    free(book->session_first);
    free(book->ops);
    free(book->session_of);
    free(book->seen);
    free(book->node_of);
    free(book->version_first);
    free(book->by_lsn);
    free(book->versions);
}
