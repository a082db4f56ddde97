/* SPDX-License-Identifier: MIT */
/*
 * The check by LSN. Commits in LSN order are the one order there is; state i is
 * what the first i of them make. Each point of reading must be at one state
 *  - at which every key that it read has the version that it saw,
 *  - which is its LSN's, if it has one,
 *  - and not before any state that was used by what had ended when it began.
 * Points are placed in the order in which they began, each at the earliest
 * state that fits. An earlier place for one never hinders another, so if one
 * finds no place, no other choice would have given it one. A commit's place is
 * given; it must not be before what had been seen when it began.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tools/history_book.h"

enum { ORDER_NOBODY = UINT32_MAX };

struct order_commit {
    uint64_t lsn;
    uint32_t op;
};

struct order_event {
    uint64_t time_ns;
    uint32_t op;
    bool is_end;
};

/* A state that somebody must not be before, and who says so. */
struct order_bound {
    uint64_t state;
    uint32_t op;  /* ORDER_NOBODY: the beginning */
    uint32_t key; /* UINT32_MAX: op had ended; else it saw op's version of this key */
};

struct order {
    struct history_book *book;
    struct order_commit *commits; /* by LSN */
    uint64_t commit_count;
    uint64_t *state;   /* per operation: where it was placed */
    uint32_t *next_at; /* further operations that read at the same point; ORDER_NOBODY = end */
    struct order_event *events;
    uint64_t event_count;
    struct order_bound past;      /* of all that ended */
    struct order_bound *sessions; /* of what each session has begun */
};

/* ---- Setting up ------------------------------------------------------------------ */

static int
order_compare_commits(const void *a, const void *b)
{
    uint64_t x = ((const struct order_commit *)a)->lsn;
    uint64_t y = ((const struct order_commit *)b)->lsn;
    return x < y ? -1 : x > y;
}

static int
order_compare_events(const void *a, const void *b)
{
    const struct order_event *x = (const struct order_event *)a;
    const struct order_event *y = (const struct order_event *)b;
    if (x->time_ns != y->time_ns) {
        return x->time_ns < y->time_ns ? -1 : 1;
    }
    return (int)x->is_end - (int)y->is_end;
}

static void
order_fill(struct order *order)
{
    struct history_book *book = order->book;
    for (uint32_t op = 0; op < book->op_count; op++) {
        const struct history_op *what = book->ops[op];
        order->next_at[op] = ORDER_NOBODY;
        if (what->outcome != HISTORY_DONE) {
            continue;
        }
        if (what->kind == HISTORY_AT) {
            continue;
        }
        if (what->kind == HISTORY_COMMIT) {
            order->commits[order->commit_count++] = (struct order_commit){.lsn = what->lsn, .op = op};
        }
        order->events[order->event_count++] = (struct order_event){.time_ns = what->began_ns, .op = op};
        order->events[order->event_count++] =
            (struct order_event){.time_ns = what->ended_ns, .op = op, .is_end = true};
    }
    for (uint32_t op = 0; op < book->op_count; op++) {
        if (book->ops[op]->kind == HISTORY_AT && book->ops[op]->outcome == HISTORY_DONE) {
            order->next_at[op] = order->next_at[book->node_of[op]];
            order->next_at[book->node_of[op]] = op;
        }
    }
    qsort(order->commits, order->commit_count, sizeof *order->commits, order_compare_commits);
    qsort(order->events, order->event_count, sizeof *order->events, order_compare_events);
}

static enum history_verdict
order_init(struct order *order, struct history_book *book)
{
    size_t count = (size_t)book->op_count + 1;
    *order = (struct order){.book = book, .past = {.op = ORDER_NOBODY, .key = UINT32_MAX}};
    order->commits = malloc(count * sizeof *order->commits);
    order->state = calloc(count, sizeof *order->state);
    order->next_at = malloc(count * sizeof *order->next_at);
    order->events = malloc(count * 2 * sizeof *order->events);
    order->sessions = malloc(((size_t)book->history->session_count + 1) * sizeof *order->sessions);
    if (order->commits == NULL || order->state == NULL || order->next_at == NULL || order->events == NULL ||
        order->sessions == NULL) {
        return HISTORY_NO_MEMORY;
    }
    for (uint32_t i = 0; i < book->history->session_count; i++) {
        order->sessions[i] = order->past;
    }
    order_fill(order);
    for (uint64_t i = 0; i < order->commit_count; i++) {
        if (order->commits[i].lsn == 0 || (i > 0 && order->commits[i].lsn == order->commits[i - 1].lsn)) {
            history_say(book->report, "a commit has %s LSN\n  ",
                        order->commits[i].lsn == 0 ? "no" : "another one's");
            history_say_op(book, order->commits[i].op);
            history_say(book->report, "\n");
            return order->commits[i].lsn == 0 ? HISTORY_UNUSABLE : HISTORY_BAD;
        }
    }
    return HISTORY_GOOD;
}

static void
order_fini(struct order *order)
{
    free(order->commits);
    free(order->state);
    free(order->next_at);
    free(order->events);
    free(order->sessions);
}

/* How many commits have an LSN of at most `lsn`: the state that a snapshot there sees. */
static uint64_t
order_state_at(const struct order *order, uint64_t lsn)
{
    uint64_t from = 0;
    uint64_t to = order->commit_count;
    while (from < to) {
        uint64_t half = from + (to - from) / 2;
        if (order->commits[half].lsn <= lsn) {
            from = half + 1;
        } else {
            to = half;
        }
    }
    return from;
}

static uint64_t
order_lsn_of_state(const struct order *order, uint64_t state)
{
    return state == 0 ? 0 : order->commits[state - 1].lsn;
}

/* ---- Stories ----------------------------------------------------------------------- */

static void
order_say_bound(const struct order *order, const struct order_bound *bound)
{
    struct history_report *report = order->book->report;
    if (bound->op == ORDER_NOBODY) {
        return;
    }
    if (bound->key == UINT32_MAX) {
        history_say(report, "\nbefore it began this had ended, at LSN %" PRIu64 ":\n  ",
                    order_lsn_of_state(order, bound->state));
    } else {
        history_say(report, "\nit saw key %" PRIu32 " as this commit made it:\n  ", bound->key);
    }
    history_say_op(order->book, bound->op);
}

/* The key's version was replaced by `replaced_by` before the state that `bound` asks for. */
static enum history_verdict
order_say_stale(const struct order *order, uint32_t op, const struct order_bound *bound,
                const struct history_access *read, uint32_t replaced_by)
{
    struct history_report *report = order->book->report;
    history_say_op(order->book, op);
    order_say_bound(order, bound);
    if (read->tag == 0) {
        history_say(report, "\nbut found key %" PRIu32 " absent, which this commit had put:\n  ", read->key);
    } else {
        history_say(report, "\nbut saw key %" PRIu32 " as it was before this commit:\n  ", read->key);
    }
    history_say_op(order->book, replaced_by);
    history_say(report, "\n");
    return HISTORY_BAD;
}

/* ---- Placing a point ------------------------------------------------------------------ */

/* The state at which the i-th version of the key appears; 0 for the time before the first. */
static uint64_t
order_state_of_version(const struct order *order, uint32_t key, uint64_t i)
{
    return i == 0 ? 0 : order_state_at(order, history_version_at(order->book, key, i)->order);
}

static uint64_t
order_version_in_state(const struct order *order, uint32_t key, uint64_t state)
{
    return history_version_below(order->book, key, order_lsn_of_state(order, state));
}

/* The least state >= bound->state at which the key looks as it was seen; raises the bound. */
static enum history_verdict
order_fit_read(const struct order *order, uint32_t op, const struct history_access *read, bool fixed,
               struct order_bound *bound)
{
    const struct history_book *book = order->book;
    uint64_t count = history_version_count(book, read->key);
    uint64_t now = order_version_in_state(order, read->key, bound->state);
    uint64_t want = now;
    if (read->tag != 0) {
        uint32_t writer = 0;
        bool known = history_op_of_tag(book, read->tag, &writer);
        ASSERT(known); /* the book has checked it */
        want = history_version_of(book, read->key, writer);
    } else {
        while (want > 0 && want <= count && !history_version_at(book, read->key, want)->is_delete) {
            want++;
        }
    }
    if (want == now) {
        return HISTORY_GOOD;
    }
    if (want < now || want > count || (fixed && read->tag == 0)) {
        uint64_t by = read->tag == 0 ? now : want + 1;
        return order_say_stale(order, op, bound, read, history_version_at(book, read->key, by)->op);
    }
    uint32_t writer = history_version_at(book, read->key, want)->op;
    if (fixed) {
        history_say_op(book, op);
        history_say(book->report, "\nsaw key %" PRIu32 " as this later commit made it:\n  ", read->key);
        history_say_op(book, writer);
        history_say(book->report, "\n");
        return HISTORY_BAD;
    }
    *bound = (struct order_bound){
        .state = order_state_of_version(order, read->key, want), .op = writer, .key = read->key};
    return HISTORY_GOOD;
}

/* All reads at the point of `op`, again and again until nothing moves. */
static enum history_verdict
order_fit_reads(const struct order *order, uint32_t op, bool fixed, struct order_bound *bound)
{
    uint64_t before = 0;
    do {
        before = bound->state;
        for (uint32_t at = op; at != ORDER_NOBODY; at = order->next_at[at]) {
            const struct history_access *accesses = history_accesses(order->book, at);
            for (uint32_t i = 0; i < order->book->ops[at]->access_count; i++) {
                enum history_verdict verdict = accesses[i].kind == ACCESS_READ
                                                   ? order_fit_read(order, at, &accesses[i], fixed, bound)
                                                   : HISTORY_GOOD;
                if (verdict != HISTORY_GOOD) {
                    return verdict;
                }
            }
        }
    } while (bound->state != before);
    return HISTORY_GOOD;
}

static enum history_verdict
order_say_late(const struct order *order, uint32_t op, const struct order_bound *bound, uint64_t state)
{
    struct history_report *report = order->book->report;
    history_say_op(order->book, op);
    history_say(report, "\nstands at LSN %" PRIu64 ", but", order_lsn_of_state(order, state));
    order_say_bound(order, bound);
    history_say(report, "\n");
    return HISTORY_BAD;
}

/* A snapshot of the past: rounded down to a whole commit, and not further. */
static enum history_verdict
order_check_asked(const struct order *order, uint32_t op)
{
    const struct history_op *what = order->book->ops[op];
    if (what->kind != HISTORY_PAST || what->point == 0) {
        return HISTORY_GOOD;
    }
    uint64_t state = order_state_at(order, what->lsn);
    if (what->lsn > what->point || state != order_state_at(order, what->point)) {
        history_say_op(order->book, op);
        history_say(order->book->report, "\nwas asked for at LSN %" PRIu64 "; the next commit is\n  ",
                    what->point);
        if (state < order->commit_count) {
            history_say_op(order->book, order->commits[state].op);
        }
        history_say(order->book->report, "\n");
        return HISTORY_BAD;
    }
    return HISTORY_GOOD;
}

static enum history_verdict
order_begin(struct order *order, uint32_t op)
{
    struct history_book *book = order->book;
    const struct history_op *what = book->ops[op];
    struct order_bound *session = &order->sessions[book->session_of[op]];
    struct order_bound bound = order->past.state >= session->state ? order->past : *session;
    bool fixed = what->lsn != 0 || what->kind == HISTORY_COMMIT;
    if (fixed) {
        uint64_t state = order_state_at(order, what->lsn);
        uint64_t seen = what->kind == HISTORY_COMMIT ? state - 1 : state; /* what its own reads saw */
        if (seen < bound.state && what->kind != HISTORY_PAST) {
            return order_say_late(order, op, &bound, state);
        }
        bound = (struct order_bound){.state = seen, .op = ORDER_NOBODY, .key = UINT32_MAX};
        order->state[op] = state;
    }
    enum history_verdict verdict = order_fit_reads(order, op, fixed, &bound);
    if (verdict == HISTORY_GOOD) {
        verdict = order_check_asked(order, op);
    }
    if (!fixed) {
        order->state[op] = bound.state;
    }
    if (what->kind != HISTORY_PAST && order->state[op] > session->state) {
        /* Already now: the session's next operation may begin in the nanosecond in which this one ends. */
        *session = (struct order_bound){.state = order->state[op], .op = op, .key = UINT32_MAX};
    }
    return verdict;
}

static void
order_end(struct order *order, uint32_t op)
{
    struct order_bound bound = {.state = order->state[op], .op = op, .key = UINT32_MAX};
    if (order->book->ops[op]->kind != HISTORY_PAST && bound.state > order->past.state) {
        order->past = bound;
    }
}

enum history_verdict
history_check_order(struct history_book *book)
{
    struct order order;
    enum history_verdict verdict = order_init(&order, book);
    for (uint64_t i = 0; i < order.event_count && verdict == HISTORY_GOOD; i++) {
        if (order.events[i].is_end) {
            order_end(&order, order.events[i].op);
        } else {
            verdict = order_begin(&order, order.events[i].op);
        }
    }
    order_fini(&order);
    return verdict;
}
