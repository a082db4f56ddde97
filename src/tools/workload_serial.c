/* SPDX-License-Identifier: MIT */
/*
 * Replays the logs into a history: commits first, in the order in which they
 * were handed over, so that whoever saw a value finds its writer; then every
 * snapshot's reads. An unknown commit that is in the chain gets an LSN between
 * its neighbours'; one that is not has not happened.
 */
#include "tools/workload_serial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/history.h"

struct serial {
    const struct workload_chain *chain;
    struct history *history;
    const struct workload_op **commits; /* by handed_ns */
    uint64_t commit_count;
    uint64_t *tags;   /* per op of the area */
    uint64_t *lsns;   /* per place of the chain */
    bool unknown;     /* some commit's outcome is not known, though it happened */
    uint32_t base[5]; /* first number of each kind of key; [4]: how many there are */
};

/* The keys of all kinds, numbered without gaps. */
static uint32_t
serial_key(const struct serial *serial, uint32_t key)
{
    return serial->base[workload_key_kind(key)] + workload_key_number(key);
}

static void
serial_number_keys(struct serial *serial)
{
    const struct workload_area *area = serial->chain->area;
    uint32_t counts[4] = {1, 1, 1, 1};
    for (uint32_t i = 0; i < area->client_count; i++) {
        uint64_t count = workload_log_count(&area->clients[i]);
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(area, &area->clients[i], j);
            for (uint32_t k = 0; k < op->touch_count; k++) {
                uint32_t *most = &counts[workload_key_kind(op->touches[k].key)];
                *most = MAX(*most, workload_key_number(op->touches[k].key) + 1);
            }
        }
    }
    for (uint32_t kind = 0; kind < 4; kind++) {
        serial->base[kind + 1] = serial->base[kind] + counts[kind];
    }
}

static int
serial_compare_handed(const void *a, const void *b)
{
    const struct workload_op *left = *(const struct workload_op *const *)a;
    const struct workload_op *right = *(const struct workload_op *const *)b;
    return (left->handed_ns > right->handed_ns) - (left->handed_ns < right->handed_ns);
}

/* Which client's log an entry is in: its nonce says. */
static uint32_t
serial_client(const struct workload_op *op)
{
    return (uint32_t)(op->nonce >> 40) - 1;
}

static bool
serial_collect(struct serial *serial)
{
    const struct workload_area *area = serial->chain->area;
    uint64_t most = 1;
    for (uint32_t i = 0; i < area->client_count; i++) {
        most += area->clients[i].nonces;
    }
    const struct workload_client *last = &area->clients[area->client_count - 1];
    serial->commits = calloc(most, sizeof *serial->commits);
    serial->tags = calloc(last->first + last->capacity + 1, sizeof *serial->tags);
    serial->lsns = calloc((size_t)serial->chain->count + 1, sizeof *serial->lsns);
    if (serial->commits == NULL || serial->tags == NULL || serial->lsns == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < area->client_count; i++) {
        uint64_t count = workload_log_count(&area->clients[i]);
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(area, &area->clients[i], j);
            if (op->handed_ns != 0 && serial->commit_count < most) {
                serial->commits[serial->commit_count++] = op;
            }
        }
    }
    qsort(serial->commits, serial->commit_count, sizeof *serial->commits, serial_compare_handed);
    for (uint32_t place = 1; place <= serial->chain->count; place++) {
        /* A process may be killed between noting the LSN and noting the outcome. */
        const struct workload_op *op = serial->chain->ops[place];
        uint64_t lsn = op->commit_lsn;
        serial->unknown = serial->unknown || lsn == 0 || workload_op_outcome(op) != WORKLOAD_DONE;
        serial->lsns[place] = lsn != 0 ? lsn : serial->lsns[place - 1] + 1;
    }
    return true;
}

/* What an entry read. A value that nobody wrote is another property's business. */
static void
serial_reads(const struct serial *serial, struct history_session *session, const struct workload_op *op)
{
    for (uint32_t i = 0; i < op->touch_count; i++) {
        const struct workload_touch *touch = &op->touches[i];
        const struct workload_op *writer = workload_chain_find(serial->chain, touch->seen);
        if (touch->read != 0 && touch->damaged == 0 && (touch->seen == 0 || writer != NULL)) {
            uint64_t tag = touch->seen == 0 ? 0 : serial->tags[writer - serial->chain->area->ops];
            history_read(session, serial_key(serial, touch->key), tag);
        }
    }
}

static void
serial_commit(struct serial *serial, const struct workload_op *op)
{
    const struct workload_area *area = serial->chain->area;
    struct history_session *session =
        history_session(serial->history, area->client_count + serial_client(op));
    uint32_t place = workload_chain_position(serial->chain, op);
    uint64_t lsn = place > 0 ? serial->lsns[place] : op->commit_lsn;
    enum workload_outcome told = workload_op_outcome(op);
    enum history_outcome outcome = told == WORKLOAD_DONE                   ? HISTORY_DONE
                                   : told == WORKLOAD_UNKNOWN && place > 0 ? HISTORY_UNKNOWN
                                                                           : HISTORY_VOID;
    serial->tags[op - area->ops] = history_begin(session, HISTORY_COMMIT);
    serial_reads(serial, session, op);
    for (uint32_t i = 0; i < op->touch_count; i++) {
        if (op->touches[i].wrote != 0) {
            history_write(session, serial_key(serial, op->touches[i].key), op->touches[i].wrote == 2);
        }
    }
    history_end(session, outcome, outcome == HISTORY_VOID ? 0 : lsn);
    history_set_times(session, op->handed_ns, MAX(op->ended_ns, op->handed_ns));
}

/* The reads of one snapshot: a point between its being asked for and its being there. */
static void
serial_point(const struct serial *serial, uint32_t client, const struct workload_op *op)
{
    struct history_session *session = history_session(serial->history, client);
    (void)history_begin(session, HISTORY_READ);
    serial_reads(serial, session, op);
    history_end(session, HISTORY_DONE, op->snapshot_lsn);
    history_set_times(session, op->attempt_ns, op->snapshot_ns);
}

static void
serial_replay(struct serial *serial)
{
    const struct workload_area *area = serial->chain->area;
    for (uint64_t i = 0; i < serial->commit_count; i++) {
        serial_commit(serial, serial->commits[i]);
    }
    for (uint32_t i = 0; i < area->client_count; i++) {
        uint64_t count = workload_log_count(&area->clients[i]);
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(area, &area->clients[i], j);
            bool undone = workload_chain_read_undone(serial->chain, op);
            if (op->read_ns != 0 && op->touch_count > 0 && !undone) {
                serial_point(serial, i, op);
            }
        }
    }
}

/* The checker tells its story in lines; here it is one. */
static void
serial_tell(struct workload_verdict *verdict, const char *story)
{
    (void)snprintf(verdict->story, sizeof verdict->story, "%.*s", (int)sizeof verdict->story - 1, story);
    for (char *at = verdict->story; *at != 0; at++) {
        *at = *at == '\n' ? ' ' : *at;
    }
}

static void
serial_run(struct serial *serial, struct workload_verdict *verdict)
{
    static struct history_report report; /* large; the supervisor has one thread */
    serial_number_keys(serial);
    serial->history = history_create(2 * serial->chain->area->client_count, serial->base[4]);
    if (serial->history == NULL || !serial_collect(serial)) {
        verdict->faults = 1;
        serial_tell(verdict, "no memory to look");
        return;
    }
    serial_replay(serial);
    /* The check by LSN wants every outcome to be known. */
    enum history_verdict found =
        history_check(serial->history, serial->unknown ? HISTORY_BY_VERSION : HISTORY_BY_LSN, &report);
    verdict->looked_at = report.ops;
    if (found != HISTORY_GOOD) {
        verdict->faults = 1;
        serial_tell(verdict, found == HISTORY_NO_MEMORY ? "no memory to look" : report.story);
    }
}

void
workload_serial_check(const struct workload_chain *chain, struct workload_verdict *verdict)
{
    struct serial serial = {.chain = chain};
    serial_run(&serial, verdict);
    history_destroy(serial.history);
    free(serial.commits);
    free(serial.tags);
    free(serial.lsns);
}
