/* SPDX-License-Identifier: MIT */
/*
 * The check by version: build the graph of what must come before what, take
 * away whatever has nothing before it until nothing is left; what is left
 * holds a cycle.
 *
 * Time would be a quadratic number of edges. Instead the ends of all
 * operations, in their order, are a chain of nodes: an operation leads to its
 * end, an end leads to the next end, and the last end before an operation
 * began leads to it.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tools/history_book.h"

enum graph_reason { REASON_WR, REASON_RW, REASON_WW, REASON_SESSION, REASON_TIME };

enum { GRAPH_NONE = UINT32_MAX, REASON_BITS = 3, CYCLE_TRIES = 64, CYCLE_OPS_MAX = 40 };

struct graph_edge {
    uint32_t from, to;
    uint32_t why; /* key << REASON_BITS | reason */
};

struct graph {
    struct history_book *book;
    uint32_t node_count; /* operations, then ends */
    uint32_t end_count;
    uint64_t *ends; /* times, ascending */
    struct graph_edge *edges;
    uint64_t edge_count, edge_cap;
    bool no_memory;
    uint32_t *first;       /* node_count + 1, into out */
    uint32_t *out;         /* edges by `from` */
    uint32_t *entry_count; /* edges that come from what is left */
    uint32_t *work;        /* a queue of nodes, then a path */
};

static void
graph_add(struct graph *graph, uint32_t from, uint32_t to, enum graph_reason reason, uint32_t key)
{
    if (from == to || graph->no_memory) {
        return;
    }
    ASSERT(graph->edge_count < UINT32_MAX - 1);
    if (graph->edge_count == graph->edge_cap) {
        uint64_t want = graph->edge_cap == 0 ? 65536 : graph->edge_cap * 2;
        struct graph_edge *grown = realloc(graph->edges, want * sizeof *grown);
        if (grown == NULL) {
            graph->no_memory = true;
            return;
        }
        graph->edges = grown;
        graph->edge_cap = want;
    }
    graph->edges[graph->edge_count++] =
        (struct graph_edge){.from = from, .to = to, .why = key << REASON_BITS | (uint32_t)reason};
}

/* ---- Edges of versions --------------------------------------------------------------- */

/* The reader saw something between version `from` and version `to`, or one of these. */
static void
graph_add_read(struct graph *graph, uint32_t reader, uint32_t key, uint64_t from, uint64_t to)
{
    const struct history_book *book = graph->book;
    if (from > 0 && history_version_at(book, key, from)->sure) {
        graph_add(graph, history_version_at(book, key, from)->op, reader, REASON_WR, key);
    }
    for (uint64_t i = to + 1; i <= history_version_count(book, key); i++) {
        if (history_version_at(book, key, i)->sure) {
            graph_add(graph, reader, history_version_at(book, key, i)->op, REASON_RW, key);
            break;
        }
    }
}

/* The last version that began by then, or ended before then. */
static uint64_t
graph_last_version(const struct history_book *book, uint32_t key, uint64_t time_ns, bool ended)
{
    uint64_t from = 0;
    uint64_t to = history_version_count(book, key);
    while (from < to) {
        uint64_t half = from + (to - from) / 2;
        const struct history_version *version = history_version_at(book, key, half + 1);
        if (ended ? version->ended_least_ns < time_ns : version->began_least_ns <= time_ns) {
            from = half + 1;
        } else {
            to = half;
        }
    }
    return from;
}

/* Absent: which of its versions could the reader have met? All deletes between the
 * last version that was there when it began and the last that began before it ended. */
static void
graph_add_absent(struct graph *graph, uint32_t reader, uint32_t key)
{
    const struct history_book *book = graph->book;
    const struct history_op *what = book->ops[reader];
    uint64_t least = what->kind == HISTORY_PAST ? 0 : graph_last_version(book, key, what->began_ns, true);
    uint64_t most = graph_last_version(book, key, what->ended_ns, false);
    uint64_t from = UINT64_MAX;
    uint64_t to = 0;
    for (uint64_t i = least; i <= most; i++) {
        const struct history_version *version = i > 0 ? history_version_at(book, key, i) : NULL;
        if (version == NULL || (version->is_delete && version->op != reader)) {
            from = MIN(from, i);
            to = i;
        }
    }
    if (from == UINT64_MAX) { /* none: it is behind its time, and the graph will say so */
        from = least;
        while (from > 0 && !history_version_at(book, key, from)->is_delete) {
            from--;
        }
        to = from;
    }
    graph_add_read(graph, reader, key, from, to);
}

static void
graph_add_reads(struct graph *graph)
{
    const struct history_book *book = graph->book;
    for (uint32_t op = 0; op < book->op_count; op++) {
        const struct history_access *accesses = history_accesses(book, op);
        uint32_t reader = book->node_of[op];
        for (uint32_t i = 0; book->ops[op]->outcome == HISTORY_DONE && i < book->ops[op]->access_count; i++) {
            uint32_t key = accesses[i].key;
            uint32_t writer = 0;
            if (accesses[i].kind != ACCESS_READ) {
                continue;
            }
            if (history_op_of_tag(book, accesses[i].tag, &writer)) {
                uint64_t version = history_version_of(book, key, writer);
                ASSERT(version > 0); /* the book has checked it */
                graph_add_read(graph, reader, key, version, version);
            } else {
                graph_add_absent(graph, reader, key);
            }
        }
    }
}

static void
graph_add_versions(struct graph *graph)
{
    const struct history_book *book = graph->book;
    for (uint32_t key = 0; key < book->history->key_count; key++) {
        uint32_t before = GRAPH_NONE;
        for (uint64_t i = 1; i <= history_version_count(book, key); i++) {
            const struct history_version *version = history_version_at(book, key, i);
            if (version->sure && before != GRAPH_NONE) {
                graph_add(graph, before, version->op, REASON_WW, key);
            }
            before = version->sure ? version->op : before;
        }
    }
}

/* ---- Edges of time --------------------------------------------------------------------- */

static int
graph_compare_times(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* How many ends are before `time_ns`. */
static uint32_t
graph_ends_before(const struct graph *graph, uint64_t time_ns)
{
    uint32_t from = 0;
    uint32_t to = graph->end_count;
    while (from < to) {
        uint32_t half = from + (to - from) / 2;
        if (graph->ends[half] < time_ns) {
            from = half + 1;
        } else {
            to = half;
        }
    }
    return from;
}

/* Past points lie at no time; AT reads none of their own. */
static bool
graph_has_time(const struct history_op *op)
{
    return history_happened(op) && op->kind != HISTORY_AT && op->kind != HISTORY_PAST;
}

static void
graph_add_times(struct graph *graph)
{
    const struct history_book *book = graph->book;
    for (uint32_t op = 0; op < book->op_count; op++) {
        if (graph_has_time(book->ops[op]) && book->ops[op]->outcome == HISTORY_DONE) {
            graph->ends[graph->end_count++] = book->ops[op]->ended_ns;
        }
    }
    qsort(graph->ends, graph->end_count, sizeof *graph->ends, graph_compare_times);
    uint32_t before = GRAPH_NONE; /* of the same session: clocks may not tell the two apart */
    for (uint32_t op = 0; op < book->op_count; op++) {
        const struct history_op *what = book->ops[op];
        bool same = op > 0 && book->session_of[op] == book->session_of[op - 1];
        before = same ? before : GRAPH_NONE;
        if (!graph_has_time(what)) {
            continue;
        }
        uint32_t ended = graph_ends_before(graph, what->began_ns);
        if (ended > 0) {
            graph_add(graph, book->op_count + ended - 1, op, REASON_TIME, 0);
        }
        if (before != GRAPH_NONE) {
            graph_add(graph, before, op, REASON_SESSION, 0);
        }
        if (what->outcome == HISTORY_DONE) {
            uint32_t end = graph_ends_before(graph, what->ended_ns); /* the first of equal ends */
            graph_add(graph, op, book->op_count + end, REASON_TIME, 0);
            before = op;
        }
    }
    for (uint32_t i = 0; i + 1 < graph->end_count; i++) {
        graph_add(graph, book->op_count + i, book->op_count + i + 1, REASON_TIME, 0);
    }
    graph->node_count = book->op_count + graph->end_count;
}

/* ---- Taking away --------------------------------------------------------------------------- */

static enum history_verdict
graph_link(struct graph *graph)
{
    size_t count = (size_t)graph->node_count + 1;
    graph->first = calloc(count, sizeof *graph->first);
    graph->out = malloc((graph->edge_count + 1) * sizeof *graph->out);
    graph->entry_count = calloc(count, sizeof *graph->entry_count);
    graph->work = malloc(count * 2 * sizeof *graph->work);
    if (graph->no_memory || graph->first == NULL || graph->out == NULL || graph->entry_count == NULL ||
        graph->work == NULL) {
        return HISTORY_NO_MEMORY;
    }
    for (uint64_t i = 0; i < graph->edge_count; i++) {
        graph->first[graph->edges[i].from + 1]++;
        graph->entry_count[graph->edges[i].to]++;
    }
    for (uint32_t node = 0; node < graph->node_count; node++) {
        graph->first[node + 1] += graph->first[node];
    }
    uint32_t *next = graph->work;
    memcpy(next, graph->first, (count - 1) * sizeof *next);
    for (uint64_t i = 0; i < graph->edge_count; i++) {
        graph->out[next[graph->edges[i].from]++] = (uint32_t)i;
    }
    return HISTORY_GOOD;
}

/* How many nodes are left when all that have nothing before them are gone. */
static uint32_t
graph_take_away(struct graph *graph)
{
    uint32_t taken = 0;
    uint32_t found = 0;
    for (uint32_t node = 0; node < graph->node_count; node++) {
        if (graph->entry_count[node] == 0) {
            graph->work[found++] = node;
        }
    }
    while (taken < found) {
        uint32_t node = graph->work[taken++];
        for (uint32_t i = graph->first[node]; i < graph->first[node + 1]; i++) {
            uint32_t to = graph->edges[graph->out[i]].to;
            if (--graph->entry_count[to] == 0) {
                graph->work[found++] = to;
            }
        }
    }
    return graph->node_count - taken;
}

/* ---- The story of a cycle --------------------------------------------------------------------- */

/* Some node on a cycle: backwards from any that is left, as often as there are nodes. */
static uint32_t
graph_node_on_cycle(struct graph *graph)
{
    uint32_t *before = graph->work; /* a predecessor that is left, too */
    uint32_t node = GRAPH_NONE;
    for (uint64_t i = 0; i < graph->edge_count; i++) {
        if (graph->entry_count[graph->edges[i].from] > 0 && graph->entry_count[graph->edges[i].to] > 0) {
            before[graph->edges[i].to] = graph->edges[i].from;
            node = graph->edges[i].to;
        }
    }
    ASSERT(node != GRAPH_NONE);
    for (uint32_t i = 0; i < graph->node_count; i++) {
        node = before[node];
    }
    return node;
}

/* The shortest way from a node back to itself, as edges in reverse into path; its length, 0 = none. */
static uint32_t
graph_shortest_cycle(struct graph *graph, uint32_t start, uint32_t *came_by, uint32_t *queue)
{
    uint32_t head = 0;
    uint32_t tail = 0;
    memset(came_by, 0xFF, (size_t)graph->node_count * sizeof *came_by);
    queue[tail++] = start;
    while (head < tail && came_by[start] == GRAPH_NONE) {
        uint32_t node = queue[head++];
        for (uint32_t i = graph->first[node]; i < graph->first[node + 1]; i++) {
            uint32_t to = graph->edges[graph->out[i]].to;
            if (graph->entry_count[to] > 0 && came_by[to] == GRAPH_NONE) {
                came_by[to] = graph->out[i];
                queue[tail++] = to;
            }
        }
    }
    if (came_by[start] == GRAPH_NONE) {
        return 0;
    }
    uint32_t length = 0;
    uint32_t node = start;
    do {
        uint32_t edge = came_by[node];
        queue[length++] = edge;
        node = graph->edges[edge].from;
    } while (node != start);
    return length;
}

static void
graph_say_step(const struct graph *graph, uint32_t why)
{
    struct history_report *report = graph->book->report;
    uint32_t key = why >> REASON_BITS;
    switch (why & ((1U << REASON_BITS) - 1)) {
    case REASON_WR:
        history_say(report, "     its value of key %" PRIu32 " was seen by\n", key);
        break;
    case REASON_RW:
        history_say(report, "     it saw key %" PRIu32 " as it was before\n", key);
        break;
    case REASON_WW:
        history_say(report, "     its version of key %" PRIu32 " was followed by that of\n", key);
        break;
    case REASON_SESSION:
        history_say(report, "     its session went on with\n");
        break;
    default:
        history_say(report, "     it had ended before this began:\n");
        break;
    }
}

/* path: edges of the cycle, last one first. */
static void
graph_say_cycle(const struct graph *graph, const uint32_t *path, uint32_t length)
{
    const struct history_book *book = graph->book;
    uint32_t start = length; /* at an operation, not at an end */
    while (graph->edges[path[start - 1]].from >= book->op_count) {
        start--;
    }
    history_say(book->report, "no order of whole operations explains this circle:\n");
    uint32_t said = 0;
    for (uint32_t i = 0; i < length && said < CYCLE_OPS_MAX; i++) {
        const struct graph_edge *edge = &graph->edges[path[(start - 1 + length - i) % length]];
        if (edge->from < book->op_count) {
            history_say(book->report, "  %" PRIu32 ". ", ++said);
            history_say_op(book, edge->from);
            history_say(book->report, "\n");
            graph_say_step(graph, edge->why);
        }
    }
    history_say(book->report, "  1. again\n");
}

/* Some operations on one cycle. */
static uint32_t
graph_starts(struct graph *graph, uint32_t starts[CYCLE_TRIES])
{
    uint32_t first = graph_node_on_cycle(graph);
    uint32_t node = first;
    uint32_t count = 0;
    do {
        if (node < graph->book->op_count && count < CYCLE_TRIES) {
            starts[count++] = node;
        }
        node = graph->work[node];
    } while (node != first);
    return count;
}

static void
graph_tell(struct graph *graph)
{
    uint32_t starts[CYCLE_TRIES];
    uint32_t count = graph_starts(graph, starts);
    uint32_t *came_by = graph->work;
    uint32_t *queue = graph->work + graph->node_count;
    uint32_t best = 0;
    uint32_t best_length = UINT32_MAX;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t length = graph_shortest_cycle(graph, starts[i], came_by, queue);
        if (length > 0 && length < best_length) {
            best = starts[i];
            best_length = length;
        }
    }
    ASSERT(best_length != UINT32_MAX);
    uint32_t length = graph_shortest_cycle(graph, best, came_by, queue);
    graph_say_cycle(graph, queue, length);
}

enum history_verdict
history_check_graph(struct history_book *book)
{
    struct graph graph = {.book = book};
    ASSERT(book->history->key_count < UINT32_MAX >> REASON_BITS);
    graph.ends = malloc(((size_t)book->op_count + 1) * sizeof *graph.ends);
    enum history_verdict verdict = HISTORY_NO_MEMORY;
    if (graph.ends != NULL) {
        graph_add_versions(&graph);
        graph_add_reads(&graph);
        graph_add_times(&graph);
        verdict = graph_link(&graph);
    }
    if (verdict == HISTORY_GOOD && graph_take_away(&graph) > 0) {
        graph_tell(&graph);
        verdict = HISTORY_BAD;
    }
    free(graph.ends);
    free(graph.edges);
    free(graph.first);
    free(graph.out);
    free(graph.entry_count);
    free(graph.work);
    return verdict;
}
