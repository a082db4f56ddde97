/* SPDX-License-Identifier: MIT */
/*
 * The properties, one function each, over the logs, the chain of commits and
 * the final state. Each counts what it looked at and what was wrong, and keeps
 * the story of the first fault.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/workload_chain.h"
#include "tools/workload_serial.h"

const char *const workload_check_names[WORKLOAD_CHECKS] = {
    [WORKLOAD_CHECK_MONOTONIC] = "written keys have no gap",
    [WORKLOAD_CHECK_DUPLICATES] = "no key and no transaction id twice",
    [WORKLOAD_CHECK_TXN_IDS] = "transaction ids and LSNs grow together",
    [WORKLOAD_CHECK_LOST] = "every acknowledged write is there",
    [WORKLOAD_CHECK_COMMITTED] = "only committed data was seen",
    [WORKLOAD_CHECK_WHOLE] = "every value is whole",
    [WORKLOAD_CHECK_BATCHES] = "batches are seen whole",
    [WORKLOAD_CHECK_SNAPSHOTS] = "snapshots show one state, no older than acknowledged",
    [WORKLOAD_CHECK_SESSIONS] = "no session goes back in time",
    [WORKLOAD_CHECK_ORDER] = "reads come before the write they lead to",
    [WORKLOAD_CHECK_SERIAL] = "the history is strictly serialisable",
};

struct check {
    const struct workload_area *area;
    const struct workload_chain *chain;
    struct workload_verdict *verdict; /* of the property at hand */
};

static void PRINTF_LIKE(2, 3) check_fault(const struct check *check, const char *format, ...)
{
    if (check->verdict->faults++ == 0) {
        va_list args;
        va_start(args, format);
        (void)vsnprintf(check->verdict->story, sizeof check->verdict->story, format, args);
        va_end(args);
    }
}

typedef void check_op_fn(const struct check *check, const struct workload_client *client,
                         const struct workload_op *op);

/* Every entry whose reads are complete. */
static void
check_each_op(const struct check *check, check_op_fn *each)
{
    for (uint32_t i = 0; i < check->area->client_count; i++) {
        const struct workload_client *client = &check->area->clients[i];
        uint64_t count = workload_log_count(client);
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(check->area, client, j);
            if (op->read_ns != 0 && op->touch_count > 0) {
                each(check, client, op);
            }
        }
    }
}

static const char *
check_key_text(uint32_t key)
{
    static char text[WORKLOAD_KEY_TEXT]; /* the supervisor has one thread */
    (void)workload_key_text(key, text);
    return text;
}

/* ---- Written keys ------------------------------------------------------------------ */

static const struct workload_touch *
check_own_key(const struct workload_op *op)
{
    for (uint32_t i = 1; i < op->touch_count; i++) {
        if (op->touches[i].wrote != 0 && workload_key_kind(op->touches[i].key) != WORKLOAD_KEY_POOL) {
            return &op->touches[i];
        }
    }
    return NULL;
}

/* key_000000 and merged_000000 are each counted up by the commits, in their order. */
static void
check_monotonic(const struct check *check)
{
    uint32_t next[4] = {0};
    for (uint32_t place = 1; place <= check->chain->count; place++) {
        const struct workload_touch *touch = check_own_key(check->chain->ops[place]);
        if (touch == NULL) {
            continue;
        }
        uint32_t *expected = &next[workload_key_kind(touch->key)];
        check->verdict->looked_at++;
        if (workload_key_number(touch->key) != *expected) {
            check_fault(check, "transaction %u wrote %s where number %u was next", place,
                        check_key_text(touch->key), *expected);
        }
        *expected = workload_key_number(touch->key) + 1;
    }
    uint32_t left[4] = {0};
    for (uint64_t i = 0; i < check->area->final_count; i++) {
        left[workload_key_kind(check->area->final[i].key)]++;
    }
    if (left[WORKLOAD_KEY_WRITTEN] != next[WORKLOAD_KEY_WRITTEN] ||
        left[WORKLOAD_KEY_MERGED] != next[WORKLOAD_KEY_MERGED]) {
        check_fault(check, "%u written and %u merged keys are left of %u and %u", left[WORKLOAD_KEY_WRITTEN],
                    left[WORKLOAD_KEY_MERGED], next[WORKLOAD_KEY_WRITTEN], next[WORKLOAD_KEY_MERGED]);
    }
}

/* ---- Duplicates -------------------------------------------------------------------- */

static int
check_compare_u64(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* What every acknowledged commit claims for itself: its transaction id and its key. */
static uint64_t
check_collect_claims(const struct check *check, uint64_t *out)
{
    uint64_t count = 0;
    for (uint32_t i = 0; i < check->area->client_count; i++) {
        const struct workload_client *client = &check->area->clients[i];
        uint64_t entries = workload_log_count(client);
        for (uint64_t j = 0; j < entries; j++) {
            const struct workload_op *op = workload_op_at(check->area, client, j);
            if (op->nonce != 0 && workload_op_outcome(op) == WORKLOAD_DONE) {
                const struct workload_touch *touch = check_own_key(op);
                out[count++] = op->txn;
                if (touch != NULL) {
                    out[count++] = (uint64_t)1 << 63 | touch->key;
                }
            }
        }
    }
    return count;
}

static void
check_duplicates(const struct check *check)
{
    uint64_t most = 2;
    for (uint32_t i = 0; i < check->area->client_count; i++) {
        most += 2 * check->area->clients[i].nonces;
    }
    uint64_t *claims = malloc(most * sizeof *claims);
    if (claims == NULL) {
        check_fault(check, "no memory to look");
        return;
    }
    uint64_t count = check_collect_claims(check, claims);
    qsort(claims, count, sizeof *claims, check_compare_u64);
    for (uint64_t i = 1; i < count; i++) {
        if (claims[i] == claims[i - 1] && claims[i] >> 63 == 0) {
            check_fault(check, "transaction id %" PRIu64 " was acknowledged twice", claims[i]);
        } else if (claims[i] == claims[i - 1]) {
            check_fault(check, "%s was written twice", check_key_text((uint32_t)claims[i]));
        }
    }
    if (!check->area->scan_order) {
        check_fault(check, "the final scan does not go up from key to key");
    }
    check->verdict->looked_at = count + check->area->final_count;
    free(claims);
}

/* ---- Transaction ids --------------------------------------------------------------- */

static void
check_txn_ids(const struct check *check)
{
    uint64_t lsn = 0;
    if (check->chain->broken) {
        check_fault(check, "head leads to something that no transaction wrote");
    }
    for (uint32_t place = 1; place <= check->chain->count; place++) {
        const struct workload_op *op = check->chain->ops[place];
        check->verdict->looked_at++;
        if (op->txn != place) {
            check_fault(check, "the commit at place %u has transaction id %" PRIu64, place, op->txn);
        }
        if (op->commit_lsn != 0) {
            if (op->commit_lsn <= lsn) {
                check_fault(check, "transaction %u has LSN %" PRIu64 ", one before it %" PRIu64, place,
                            op->commit_lsn, lsn);
            }
            lsn = op->commit_lsn;
        }
    }
}

/* ---- Lost writes ------------------------------------------------------------------- */

static void
check_lost_op(const struct check *check, const struct workload_client *client, const struct workload_op *op)
{
    if (op->nonce == 0 || workload_op_outcome(op) != WORKLOAD_DONE) {
        return;
    }
    check->verdict->looked_at++;
    if (workload_chain_position(check->chain, op) == 0) {
        check_fault(check,
                    "transaction %" PRIu64 " of %s %u was acknowledged and is not in the order of commits",
                    op->txn, workload_role_names[client->role], client->role_index + 1);
    }
}

/* The last version of every key is what the final scan found. */
static void
check_lost(const struct check *check)
{
    const struct workload_chain *chain = check->chain;
    uint64_t expected = 0;
    check_each_op(check, check_lost_op);
    for (uint64_t i = 0; i < check->area->final_count; i++) {
        const struct workload_final *final = &check->area->final[i];
        if (workload_chain_value(chain, final->key, chain->count) != final->nonce) {
            check_fault(check, "%s is left with a value that is not its last", check_key_text(final->key));
        }
    }
    for (uint64_t i = 0; i < chain->version_count; i++) {
        bool is_last = i + 1 == chain->version_count || chain->versions[i + 1].key != chain->versions[i].key;
        expected += is_last && chain->versions[i].nonce != 0 ? 1 : 0;
    }
    if (expected != check->area->final_count) {
        check_fault(check, "%" PRIu64 " keys are left, %" PRIu64 " should be", check->area->final_count,
                    expected);
    }
}

/* ---- Committed, whole --------------------------------------------------------------- */

static bool
check_wrote(const struct workload_op *writer, uint32_t key)
{
    for (uint32_t i = 0; i < writer->touch_count; i++) {
        if (writer->touches[i].key == key) {
            return writer->touches[i].wrote == 1;
        }
    }
    return false;
}

static void
check_committed_op(const struct check *check, const struct workload_client *client,
                   const struct workload_op *op)
{
    for (uint32_t i = 0; i < op->touch_count; i++) {
        const struct workload_touch *touch = &op->touches[i];
        if (touch->read == 0 || touch->seen == 0) {
            continue;
        }
        const struct workload_op *writer = workload_chain_find(check->chain, touch->seen);
        enum workload_outcome outcome = writer != NULL ? workload_op_outcome(writer) : WORKLOAD_FAILED;
        check->verdict->looked_at++;
        if (writer == NULL || !check_wrote(writer, touch->key)) {
            check_fault(check, "%s %u saw a value of %s that nobody wrote", workload_role_names[client->role],
                        client->role_index + 1, check_key_text(touch->key));
        } else if (outcome != WORKLOAD_DONE && outcome != WORKLOAD_UNKNOWN) {
            check_fault(check, "%s %u saw a value of %s whose transaction was refused",
                        workload_role_names[client->role], client->role_index + 1,
                        check_key_text(touch->key));
        } else if (writer->handed_ns > op->read_ns) {
            check_fault(check, "%s was seen before it was written", check_key_text(touch->key));
        }
    }
}

static void
check_whole_op(const struct check *check, const struct workload_client *client, const struct workload_op *op)
{
    for (uint32_t i = 0; i < op->touch_count; i++) {
        check->verdict->looked_at += op->touches[i].read;
        if (op->touches[i].damaged != 0) {
            check_fault(check, "%s %u read bytes of %s that nobody wrote", workload_role_names[client->role],
                        client->role_index + 1, check_key_text(op->touches[i].key));
        }
    }
}

static void
check_whole(const struct check *check)
{
    check_each_op(check, check_whole_op);
    for (uint64_t i = 0; i < check->area->final_count; i++) {
        check->verdict->looked_at++;
        if (check->area->final[i].damaged) {
            check_fault(check, "%s is left with bytes that nobody wrote",
                        check_key_text(check->area->final[i].key));
        }
    }
}

/* ---- Batches ----------------------------------------------------------------------- */

/* head and the keys that it counts came in one batch, and so did the two keys of a pair. */
static void
check_batches_op(const struct check *check, const struct workload_client *client,
                 const struct workload_op *op)
{
    (void)client;
    for (uint32_t i = 1; i < op->touch_count; i++) {
        const struct workload_touch *touch = &op->touches[i];
        uint32_t number = workload_key_number(touch->key);
        if (touch->read == 0) {
            continue;
        }
        check->verdict->looked_at++;
        if (workload_key_kind(touch->key) == WORKLOAD_KEY_WRITTEN &&
            (touch->seen != 0 || touch->damaged != 0) != (number < op->head_keys)) {
            check_fault(check, "head counts %" PRIu64 " keys, and %s is%s there", op->head_keys,
                        check_key_text(touch->key), touch->seen != 0 ? "" : " not");
        }
        if (workload_key_kind(touch->key) == WORKLOAD_KEY_POOL && number % 2 == 1 &&
            touch->seen != op->touches[i - 1].seen) {
            check_fault(check, "%s was not seen as the same batch left the other of its pair",
                        check_key_text(touch->key));
        }
    }
}

/* ---- Snapshots ----------------------------------------------------------------------- */

static void
check_snapshots_op(const struct check *check, const struct workload_client *client,
                   const struct workload_op *op)
{
    const struct workload_chain *chain = check->chain;
    const struct workload_op *head = workload_chain_find(chain, op->touches[0].seen);
    uint32_t place = workload_chain_base(chain, head);
    uint32_t acked = workload_chain_acked(chain, op->attempt_ns);
    const char *role = workload_role_names[client->role];
    check->verdict->looked_at++;
    if (place < acked) {
        check_fault(check, "%s %u: a snapshot shows %u transactions, %u had been acknowledged before", role,
                    client->role_index + 1, place, acked);
    }
    if (workload_chain_read_undone(chain, op)) {
        return; /* the rest of what it saw is gone */
    }
    if (op->touches[0].seen != 0 && workload_chain_position(chain, head) == 0) {
        check_fault(check, "%s %u: a snapshot shows a head that is in no order of commits", role,
                    client->role_index + 1);
        return;
    }
    uint64_t before = place > 0 ? chain->ops[place]->commit_lsn : 0;
    uint64_t after = place < chain->count ? chain->ops[place + 1]->commit_lsn : 0;
    if (before > op->snapshot_lsn || (after != 0 && after <= op->snapshot_lsn)) {
        check_fault(check,
                    "%s %u: a snapshot at LSN %" PRIu64 " shows %u transactions, which is another state",
                    role, client->role_index + 1, op->snapshot_lsn, place);
    }
    for (uint32_t i = 1; i < op->touch_count; i++) {
        const struct workload_touch *touch = &op->touches[i];
        if (touch->read != 0 && touch->seen != workload_chain_value(chain, touch->key, place)) {
            check_fault(check, "%s %u: %s is not as transaction %u left it, whose head was read with it",
                        role, client->role_index + 1, check_key_text(touch->key), place);
        }
    }
}

/* ---- Sessions ------------------------------------------------------------------------ */

static void
check_sessions(const struct check *check)
{
    for (uint32_t i = 0; i < check->area->client_count; i++) {
        const struct workload_client *client = &check->area->clients[i];
        uint64_t count = workload_log_count(client);
        uint64_t lsn = 0;
        uint64_t txn = 0;
        uint32_t opening = 0;
        for (uint64_t j = 0; j < count; j++) {
            const struct workload_op *op = workload_op_at(check->area, client, j);
            if (op->read_ns == 0 || op->touch_count == 0) {
                continue;
            }
            if (workload_opening_at(check->area, op->attempt_ns) != opening) {
                opening = workload_opening_at(check->area, op->attempt_ns);
                lsn = 0; /* a session ends with its process */
                txn = 0;
            }
            bool wrote = op->nonce != 0;
            uint64_t seen = op->txn - (wrote ? 1 : 0);
            check->verdict->looked_at++;
            if (op->snapshot_lsn < lsn || seen < txn) {
                check_fault(check,
                            "%s %u saw %" PRIu64 " transactions after %" PRIu64 " (LSN %" PRIu64
                            " after %" PRIu64 ")",
                            workload_role_names[client->role], client->role_index + 1, seen, txn,
                            op->snapshot_lsn, lsn);
            }
            lsn = MAX(op->snapshot_lsn, op->commit_lsn); /* it reads what it wrote */
            txn = wrote && workload_op_outcome(op) == WORKLOAD_DONE ? op->txn : seen;
        }
    }
}

/* ---- Order of reads and write --------------------------------------------------------- */

static void
check_order_op(const struct check *check, const struct workload_client *client, const struct workload_op *op)
{
    const struct workload_config *config = &check->area->config;
    if (op->handed_ns == 0) {
        return;
    }
    check->verdict->looked_at++;
    bool forward = op->began_ns <= op->attempt_ns && op->attempt_ns <= op->snapshot_ns &&
                   op->snapshot_ns <= op->read_ns && op->read_ns <= op->handed_ns;
    bool ended = workload_op_outcome(op) == WORKLOAD_UNKNOWN || op->handed_ns <= op->ended_ns;
    if (!forward || !ended) {
        check_fault(check, "%s %u wrote before it had read", workload_role_names[client->role],
                    client->role_index + 1);
    }
    if (client->role == WORKLOAD_COMPACTOR) {
        uint64_t sleep_ns = (uint64_t)(config->compactor_sleep / config->time_scale * 1e9);
        uint64_t reads = 0;
        for (uint32_t i = 1; i < op->touch_count; i++) {
            reads += op->touches[i].read;
        }
        if (reads != MIN((uint64_t)config->compactor_reads, op->head_keys) ||
            op->handed_ns < op->read_ns + sleep_ns) {
            check_fault(check, "compactor %u wrote after %" PRIu64 " reads and %" PRIu64 " ns of sleep",
                        client->role_index + 1, reads, op->handed_ns - op->read_ns);
        }
    }
}

/* ---- All of them ----------------------------------------------------------------------- */

static void
check_each_property(struct check *check, struct workload_verdict *verdicts)
{
    static void (*const whole[WORKLOAD_CHECKS])(const struct check *) = {
        [WORKLOAD_CHECK_MONOTONIC] = check_monotonic, [WORKLOAD_CHECK_DUPLICATES] = check_duplicates,
        [WORKLOAD_CHECK_TXN_IDS] = check_txn_ids,     [WORKLOAD_CHECK_LOST] = check_lost,
        [WORKLOAD_CHECK_WHOLE] = check_whole,         [WORKLOAD_CHECK_SESSIONS] = check_sessions,
    };
    static check_op_fn *const by_op[WORKLOAD_CHECKS] = {
        [WORKLOAD_CHECK_COMMITTED] = check_committed_op,
        [WORKLOAD_CHECK_BATCHES] = check_batches_op,
        [WORKLOAD_CHECK_SNAPSHOTS] = check_snapshots_op,
        [WORKLOAD_CHECK_ORDER] = check_order_op,
    };
    for (int i = 0; i < WORKLOAD_CHECKS; i++) {
        check->verdict = &verdicts[i];
        if (whole[i] != NULL) {
            whole[i](check);
        } else if (by_op[i] != NULL) {
            check_each_op(check, by_op[i]);
        } else {
            workload_serial_check(check->chain, &verdicts[i]);
        }
        verdicts[i].done = true;
    }
}

void
workload_check(const struct workload_area *area, struct workload_result *result)
{
    struct workload_chain chain;
    struct check check = {.area = area, .chain = &chain};
    bool built = area->scanned && workload_chain_build(&chain, area);
    if (built) {
        check_each_property(&check, result->verdicts);
    }
    for (int i = 0; i < WORKLOAD_CHECKS && !built; i++) {
        (void)snprintf(result->verdicts[i].story, sizeof result->verdicts[i].story, "%s",
                       area->scanned ? "no memory to look" : "the final state could not be read");
    }
    if (area->scanned) {
        workload_chain_fini(&chain);
    }
}

bool
workload_result_good(const struct workload_result *result)
{
    bool looked = false;
    for (int i = 0; i < WORKLOAD_CHECKS; i++) {
        looked = looked || result->verdicts[i].done || result->verdicts[i].story[0] != 0;
    }
    for (int i = 0; looked && i < WORKLOAD_CHECKS; i++) {
        if (!result->verdicts[i].done || result->verdicts[i].faults > 0) {
            return false;
        }
    }
    return result->finished;
}
