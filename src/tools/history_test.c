/* SPDX-License-Identifier: MIT */
/*
 * Goal: the checks of histories flag what no order explains, and nothing else.
 * Method: small random histories against all orders tried one by one; larger
 * ones from a store that is right, or wrong once in a way that is known; and
 * the edges of the interface.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "tools/history.h"

/* ---- A store that remembers every version, and may be wrong once ------------------ */

enum fault {
    FAULT_NONE,
    FAULT_LOST_COMMIT,    /* acknowledged, never seen */
    FAULT_TORN_BATCH,     /* half of it is there before the other half */
    FAULT_STALE_SNAPSHOT, /* older than what was acknowledged before it */
    FAULT_READ_SKEW,      /* half of the keys as of now, half as of before */
    FAULT_BACKWARDS,      /* a session sees an older state than it has seen */
    FAULT_PHANTOM,        /* a scan misses a key that was there, or returns one that was not */
    FAULT_LOST_UPDATE,    /* a requirement is not checked */
    FAULT_COUNT
};

enum {
    SIM_SESSIONS = 5,
    SIM_KEYS = 20,
    SIM_VERSIONS = 4000,
    SIM_STEPS = 9000,
    SIM_READ_MAX = SIM_KEYS,
    SIM_LAG = 12
};

struct sim_version {
    uint64_t lsn, tag; /* tag 0: deleted */
};

struct sim_session {
    struct history_session *log;
    int step; /* 0: idle, 1: begun, 2: effective */
    int what;
    uint64_t began, tag, lsn, seen_lsn;
    uint32_t keys[SIM_READ_MAX];
    uint32_t key_count;
    bool deletes[SIM_READ_MAX];
    uint64_t base_lsn; /* a conditional commit: what it read before */
    uint64_t base_tags[SIM_READ_MAX];
    enum history_outcome outcome;
    uint64_t torn_at; /* when the rest of a torn batch comes; 0 = not torn */
};

struct sim {
    struct rng rng;
    struct history *history;
    bool with_lsns; /* several writers per key, every LSN known */
    enum fault fault;
    uint32_t fault_from; /* the first opportunity after this step */
    uint32_t faults_left;
    uint64_t now, lsn;
    struct sim_version versions[SIM_KEYS][SIM_VERSIONS];
    uint32_t version_count[SIM_KEYS];
    struct sim_session sessions[SIM_SESSIONS];
};

enum { SIM_GET, SIM_MULTI, SIM_SCAN, SIM_SNAPSHOT, SIM_COMMIT, SIM_UPDATE };

static uint64_t
sim_tag_at(const struct sim *sim, uint32_t key, uint64_t lsn)
{
    for (uint32_t i = sim->version_count[key]; i > 0; i--) {
        if (sim->versions[key][i - 1].lsn <= lsn) {
            return sim->versions[key][i - 1].tag;
        }
    }
    return 0;
}

static bool
sim_fault_due(struct sim *sim, enum fault fault)
{
    return sim->fault == fault && sim->faults_left > 0 && sim->now >= sim->fault_from;
}

static void
sim_store(struct sim *sim, uint32_t key, uint64_t lsn, uint64_t tag)
{
    assert_true(sim->version_count[key] < SIM_VERSIONS);
    sim->versions[key][sim->version_count[key]++] = (struct sim_version){.lsn = lsn, .tag = tag};
}

/* A few keys in ascending order; of a writer without LSNs its own alone. */
static void
sim_choose_keys(struct sim *sim, struct sim_session *session, uint32_t index, uint32_t most)
{
    bool own = !sim->with_lsns && session->what == SIM_COMMIT;
    uint32_t want = 1 + (uint32_t)rng_below(&sim->rng, most);
    uint32_t first = session->what == SIM_SCAN ? (uint32_t)rng_below(&sim->rng, SIM_KEYS - most) : 0;
    session->key_count = 0;
    for (uint32_t key = first; key < SIM_KEYS && session->key_count < most; key++) {
        bool chosen = session->what == SIM_SCAN || rng_below(&sim->rng, SIM_KEYS) < want * (own ? 3 : 1);
        if (chosen && (!own || key % SIM_SESSIONS == index)) {
            session->deletes[session->key_count] = rng_below(&sim->rng, 4) == 0;
            session->keys[session->key_count++] = key;
        }
    }
    if (session->key_count == 0) {
        session->deletes[0] = false;
        session->keys[session->key_count++] = index; /* its own, too */
    }
}

static void
sim_begin(struct sim *sim, uint32_t index)
{
    static const int mix[] = {SIM_GET,  SIM_GET,      SIM_MULTI,  SIM_MULTI,  SIM_SCAN,   SIM_SCAN,
                              SIM_SCAN, SIM_SNAPSHOT, SIM_COMMIT, SIM_COMMIT, SIM_UPDATE, SIM_UPDATE};
    struct sim_session *session = &sim->sessions[index];
    session->what = mix[rng_below(&sim->rng, COUNTOF(mix))];
    if (session->what == SIM_UPDATE && !sim->with_lsns) {
        session->what = SIM_COMMIT;
    }
    session->began = sim->now;
    session->lsn = 0;
    session->outcome = HISTORY_DONE;
    session->torn_at = 0;
    sim_choose_keys(sim, session, index, session->what == SIM_GET ? 1 : session->what == SIM_SCAN ? 10 : 4);
    session->tag = history_begin(session->log, session->what == SIM_SNAPSHOT ? HISTORY_SNAPSHOT
                                               : session->what >= SIM_COMMIT ? HISTORY_COMMIT
                                                                             : HISTORY_READ);
    session->base_lsn = sim->lsn;
    for (uint32_t i = 0; i < session->key_count; i++) {
        session->base_tags[i] = sim_tag_at(sim, session->keys[i], sim->lsn);
    }
    session->step = 1;
}

/* The state that a read sees: the newest but for the faults. */
static uint64_t
sim_read_lsn(struct sim *sim, const struct sim_session *session)
{
    uint64_t lag = (SIM_LAG + rng_below(&sim->rng, SIM_LAG)) * 10;
    uint64_t old = sim->lsn > lag ? sim->lsn - lag : 0;
    bool stale = sim_fault_due(sim, FAULT_STALE_SNAPSHOT) && session->what == SIM_SNAPSHOT;
    bool backwards =
        sim_fault_due(sim, FAULT_BACKWARDS) && session->what <= SIM_SCAN && old < session->seen_lsn;
    bool differs = false;
    for (uint32_t i = 0; i < session->key_count; i++) {
        differs = differs || sim_tag_at(sim, session->keys[i], old) !=
                                 sim_tag_at(sim, session->keys[i], session->seen_lsn);
    }
    if ((stale || backwards) && differs) {
        sim->faults_left--;
        return old;
    }
    return sim->lsn;
}

static void
sim_read(struct sim *sim, struct sim_session *session)
{
    uint64_t lsn = sim_read_lsn(sim, session);
    uint64_t skewed = lsn > SIM_LAG * 10 ? lsn - SIM_LAG * 10 : 0;
    bool skew = sim_fault_due(sim, FAULT_READ_SKEW) && session->what == SIM_MULTI && session->key_count > 1;
    bool phantom = sim_fault_due(sim, FAULT_PHANTOM) && session->what == SIM_SCAN;
    session->lsn = session->what == SIM_SNAPSHOT ? lsn : 0;
    session->seen_lsn = lsn;
    for (uint32_t i = 0; i < session->key_count; i++) {
        uint64_t tag = sim_tag_at(sim, session->keys[i], lsn);
        uint64_t old = sim_tag_at(sim, session->keys[i], skewed);
        if (skew && i >= session->key_count / 2 && old != tag) {
            tag = old;
            sim->faults_left = 0;
        } else if (phantom && sim->faults_left > 0 && old == tag && tag != 0) {
            tag = 0;
            sim->faults_left--;
        } else if (phantom && sim->faults_left > 0 && old != tag && tag == 0) {
            tag = old;
            sim->faults_left--;
        }
        if (session->what == SIM_SNAPSHOT) {
            session->base_tags[i] = tag; /* said later, at the point */
        } else {
            history_read(session->log, session->keys[i], tag);
        }
    }
}

static void
sim_commit(struct sim *sim, struct sim_session *session)
{
    /* A lost delete of what is absent, or a key that is written again before anybody looks, is no loss. */
    bool lost = sim_fault_due(sim, FAULT_LOST_COMMIT) && session->key_count > 1 && !session->deletes[0] &&
                !session->deletes[1];
    bool torn = sim_fault_due(sim, FAULT_TORN_BATCH) && session->key_count > 1;
    if (session->what == SIM_UPDATE) {
        bool changed = false;
        for (uint32_t i = 0; i < session->key_count; i++) {
            uint32_t count = sim->version_count[session->keys[i]];
            changed =
                changed || (count > 0 && sim->versions[session->keys[i]][count - 1].lsn > session->base_lsn);
        }
        if (changed && sim_fault_due(sim, FAULT_LOST_UPDATE)) {
            sim->faults_left--;
        } else if (changed) {
            session->outcome = HISTORY_VOID;
            return;
        }
        for (uint32_t i = 0; i < session->key_count; i++) {
            history_read(session->log, session->keys[i], session->base_tags[i]);
        }
    }
    sim->lsn += 10;
    session->lsn = sim->lsn;
    sim->faults_left -= lost || torn ? 1 : 0;
    session->torn_at = torn ? sim->now + 400 : 0;
    for (uint32_t i = 0; i < session->key_count; i++) {
        history_write(session->log, session->keys[i], session->deletes[i]);
        if (!lost && (!torn || i < session->key_count / 2)) {
            sim_store(sim, session->keys[i], session->lsn, session->deletes[i] ? 0 : session->tag);
        }
    }
}

/* The other half of a torn batch; whoever wrote meanwhile came later. */
static void
sim_mend(struct sim *sim, struct sim_session *session)
{
    for (uint32_t i = session->key_count / 2; i < session->key_count; i++) {
        uint32_t key = session->keys[i];
        uint32_t at = sim->version_count[key];
        sim_store(sim, key, 0, 0);
        for (; at > 0 && sim->versions[key][at - 1].lsn > session->lsn; at--) {
            sim->versions[key][at] = sim->versions[key][at - 1];
        }
        sim->versions[key][at] =
            (struct sim_version){.lsn = session->lsn, .tag = session->deletes[i] ? 0 : session->tag};
    }
    session->torn_at = 0;
}

static void
sim_end(struct sim *sim, struct sim_session *session)
{
    bool commit = session->what >= SIM_COMMIT;
    history_end(session->log, session->outcome, commit && !sim->with_lsns ? 0 : session->lsn);
    history_set_times(session->log, session->began, sim->now);
    if (session->what == SIM_SNAPSHOT) {
        history_begin_at(session->log, session->tag);
        for (uint32_t i = 0; i < session->key_count; i++) {
            history_read(session->log, session->keys[i], session->base_tags[i]);
        }
        history_end(session->log, HISTORY_DONE, 0);
        history_set_times(session->log, sim->now, sim->now);
    }
    session->step = 0;
}

static void
sim_run(struct sim *sim)
{
    for (uint32_t i = 0; i < SIM_SESSIONS; i++) {
        sim->sessions[i] = (struct sim_session){.log = history_session(sim->history, i)};
    }
    for (sim->now = 1; sim->now <= SIM_STEPS; sim->now++) {
        uint32_t index = (uint32_t)rng_below(&sim->rng, SIM_SESSIONS);
        struct sim_session *session = &sim->sessions[index];
        if (session->step == 0) {
            sim_begin(sim, index);
        } else if (session->step == 1) {
            session->step = 2;
            if (session->what >= SIM_COMMIT) {
                sim_commit(sim, session);
            } else {
                sim_read(sim, session);
            }
        } else if (session->torn_at == 0) {
            sim_end(sim, session);
        } else if (sim->now >= session->torn_at) {
            sim_mend(sim, session);
        }
    }
    for (uint32_t i = 0; i < SIM_SESSIONS; i++) {
        if (sim->sessions[i].step == 1) { /* nothing happened yet */
            history_end(sim->sessions[i].log, HISTORY_VOID, 0);
        } else if (sim->sessions[i].step == 2) {
            sim_end(sim, &sim->sessions[i]);
        }
    }
}

static struct sim sim_world;

/* How many of 60 histories with that fault are flagged; applied_out: in how many it came about. */
static uint32_t
sim_flagged(enum fault fault, bool with_lsns, enum history_check check, uint32_t *applied_out)
{
    static struct history_report report;
    uint32_t flagged = 0;
    *applied_out = 0;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        struct sim *sim = &sim_world;
        memset(sim->version_count, 0, sizeof sim->version_count);
        sim->lsn = 0;
        sim->rng.state = seed * 1000 + (uint64_t)fault;
        sim->history = history_create(SIM_SESSIONS, SIM_KEYS);
        assert_non_null(sim->history);
        sim->with_lsns = with_lsns;
        sim->fault = fault;
        sim->faults_left = fault == FAULT_NONE ? 0 : 1;
        sim->fault_from = SIM_STEPS / 4 + (uint32_t)rng_below(&sim->rng, SIM_STEPS / 2);
        sim_run(sim);
        *applied_out += fault != FAULT_NONE && sim->faults_left == 0 ? 1 : 0;
        enum history_verdict verdict = history_check(sim->history, check, &report);
        assert_true(verdict == HISTORY_GOOD || verdict == HISTORY_BAD);
        assert_true((verdict == HISTORY_BAD) == (report.story[0] != 0));
        if (verdict == HISTORY_BAD) {
            flagged++;
        } else {
            assert_true(report.ops > 1000 && report.commits > 100 && report.reads > 1000);
        }
        if (verdict == HISTORY_BAD && fault == FAULT_NONE) {
            print_message("%s", report.story);
        }
        history_destroy(sim->history);
    }
    return flagged;
}

static void
history__flags_wrong_stores_and_no_right_one(void **state)
{
    (void)state;
    static const char *const names[FAULT_COUNT] = {"none",      "lost commit", "torn batch", "stale snapshot",
                                                   "read skew", "backwards",   "phantom",    "lost update"};
    for (int fault = FAULT_NONE; fault < FAULT_COUNT; fault++) {
        for (int way = 0; way < 3; way++) {
            bool with_lsns = way > 0;
            enum history_check check = way == 2 ? HISTORY_BY_LSN : HISTORY_BY_VERSION;
            uint32_t applied = 0;
            if (fault == FAULT_LOST_UPDATE && !with_lsns) {
                continue; /* one writer per key: nobody to lose an update to */
            }
            uint32_t flagged = sim_flagged((enum fault)fault, with_lsns, check, &applied);
            print_message("%-14s %s, %s: applied in %2u of 60, flagged %2u\n", names[fault],
                          with_lsns ? "several writers" : "one writer     ",
                          check == HISTORY_BY_LSN ? "by LSN    " : "by version", applied, flagged);
            if (fault == FAULT_NONE) {
                assert_int_equal(flagged, 0);
            } else {
                assert_true(applied >= 58);
                assert_true(flagged >= 56);
            }
        }
    }
}

/* ---- All orders ------------------------------------------------------------------------ */

enum { TINY_OPS = 7, TINY_SESSIONS = 3, TINY_KEYS = 2 };

struct tiny_op {
    uint64_t began, ended, tag, lsn;
    bool commit;
    bool touches[TINY_KEYS];
    bool deletes[TINY_KEYS];
    uint64_t saw[TINY_KEYS];
    uint32_t session;
};

struct tiny {
    struct tiny_op ops[TINY_OPS];
    uint32_t count;
    bool by_lsn;
};

/* Can the operations not yet in `done` follow a state? */
static bool
tiny_search(const struct tiny *tiny, uint32_t done, const uint64_t state[TINY_KEYS], uint64_t lsn)
{
    if (done == (1U << tiny->count) - 1) {
        return true;
    }
    for (uint32_t i = 0; i < tiny->count; i++) {
        const struct tiny_op *op = &tiny->ops[i];
        uint64_t next[TINY_KEYS];
        bool fits = (done & (1U << i)) == 0 && (!op->commit || !tiny->by_lsn || op->lsn > lsn);
        for (uint32_t j = 0; j < tiny->count && fits; j++) {
            bool before = tiny->ops[j].ended < op->began || (tiny->ops[j].session == op->session && j < i);
            fits = (done & (1U << j)) != 0 || !before;
        }
        for (uint32_t key = 0; key < TINY_KEYS; key++) {
            next[key] = !op->commit || !op->touches[key] ? state[key] : op->deletes[key] ? 0 : op->tag;
            fits = fits && (op->commit || !op->touches[key] || op->saw[key] == state[key]);
        }
        if (fits && tiny_search(tiny, done | 1U << i, next, op->commit ? op->lsn : lsn)) {
            return true;
        }
    }
    return false;
}

static void
tiny_record(struct tiny *tiny, struct history *history)
{
    for (uint32_t i = 0; i < tiny->count; i++) {
        struct tiny_op *op = &tiny->ops[i];
        struct history_session *session = history_session(history, op->session);
        uint64_t tag = history_begin(session, op->commit ? HISTORY_COMMIT : HISTORY_READ);
        for (uint32_t j = 0; j < tiny->count && op->commit; j++) { /* what was drawn as its number */
            for (uint32_t key = 0; key < TINY_KEYS; key++) {
                tiny->ops[j].saw[key] = tiny->ops[j].saw[key] == i + 1 ? tag : tiny->ops[j].saw[key];
            }
        }
        op->tag = tag;
        for (uint32_t key = 0; key < TINY_KEYS; key++) {
            if (op->touches[key] && op->commit) {
                history_write(session, key, op->deletes[key]);
            } else if (op->touches[key]) {
                history_read(session, key, op->saw[key]);
            }
        }
        history_end(session, HISTORY_DONE, op->commit && tiny->by_lsn ? op->lsn : 0);
        history_set_times(session, op->began, op->ended);
    }
}

/* Commits are recorded first, so that reads may have seen any of them: in sessions of their own. */
static void
tiny_draw(struct tiny *tiny, struct rng *rng, bool by_lsn)
{
    uint64_t clock[TINY_SESSIONS * 2] = {0};
    uint32_t commits = 2 + (uint32_t)rng_below(rng, 3);
    *tiny = (struct tiny){.count = commits + 2 + (uint32_t)rng_below(rng, 2), .by_lsn = by_lsn};
    for (uint32_t i = 0; i < tiny->count; i++) {
        struct tiny_op *op = &tiny->ops[i];
        op->commit = i < commits;
        op->session = (uint32_t)rng_below(rng, TINY_SESSIONS) + (op->commit ? 0 : TINY_SESSIONS);
        op->began = clock[op->session] + 1 + rng_below(rng, 6);
        op->ended = op->began + rng_below(rng, 8);
        clock[op->session] = op->ended;
        op->lsn = 10 * (op->began + rng_below(rng, op->ended - op->began + 1)) + i; /* mostly as in time */
        for (uint32_t key = 0; key < TINY_KEYS; key++) {
            /* By version each key has one writer. */
            bool may = !op->commit || by_lsn || op->session == key;
            op->touches[key] = may && rng_below(rng, 4) > 0;
            op->deletes[key] = by_lsn && rng_below(rng, 5) == 0;
            if (!op->commit && op->touches[key]) {
                uint32_t of = (uint32_t)rng_below(rng, commits + 1);
                bool put = of > 0 && tiny->ops[of - 1].touches[key] && !tiny->ops[of - 1].deletes[key];
                op->saw[key] = put ? of : 0;
            }
        }
    }
}

static void
history__agrees_with_all_orders_tried(void **state)
{
    (void)state;
    static struct history_report report;
    struct rng rng = {7};
    uint32_t good = 0;
    uint32_t bad = 0;
    for (uint32_t round = 0; round < 30000; round++) {
        struct tiny tiny;
        uint64_t absent[TINY_KEYS] = {0};
        bool by_lsn = round % 2 == 1;
        struct history *history = history_create(TINY_SESSIONS * 2, TINY_KEYS);
        assert_non_null(history);
        tiny_draw(&tiny, &rng, by_lsn);
        tiny_record(&tiny, history);
        bool possible = tiny_search(&tiny, 0, absent, 0);
        enum history_verdict verdict =
            history_check(history, by_lsn ? HISTORY_BY_LSN : HISTORY_BY_VERSION, &report);
        if ((verdict == HISTORY_GOOD) != possible) {
            print_message("round %u: possible %d, verdict %d\n%s\n", round, possible, (int)verdict,
                          report.story);
        }
        assert_int_equal(verdict, possible ? HISTORY_GOOD : HISTORY_BAD);
        good += possible ? 1 : 0;
        bad += possible ? 0 : 1;
        history_destroy(history);
    }
    print_message("%u possible, %u not\n", good, bad);
    assert_true(good > 1000 && bad > 1000);
}

/* ---- Edges of the interface --------------------------------------------------------------- */

static void
edge_commit(struct history *history, uint32_t session, uint32_t key, enum history_outcome outcome,
            uint64_t began, uint64_t ended, uint64_t lsn)
{
    (void)history_begin(history_session(history, session), HISTORY_COMMIT);
    history_write(history_session(history, session), key, false);
    history_end(history_session(history, session), outcome, lsn);
    history_set_times(history_session(history, session), began, ended);
}

static void
edge_read(struct history *history, uint32_t session, uint32_t key, uint64_t tag, uint64_t began,
          uint64_t ended)
{
    (void)history_begin(history_session(history, session), HISTORY_READ);
    history_read(history_session(history, session), key, tag);
    history_end(history_session(history, session), HISTORY_DONE, 0);
    history_set_times(history_session(history, session), began, ended);
}

static uint64_t
edge_tag(uint32_t session, uint64_t index)
{
    return ((uint64_t)session + 1) << 40 | index;
}

static enum history_verdict
edge_verdict(struct history *history, enum history_check check, const char *story)
{
    static struct history_report report;
    enum history_verdict verdict = history_check(history, check, &report);
    if (story != NULL && strstr(report.story, story) == NULL) {
        print_message("not told: %s\n%s\n", story, report.story);
    }
    assert_true(story == NULL || strstr(report.story, story) != NULL);
    history_clear(history);
    return verdict;
}

static void
history__names_values_that_nobody_can_have_seen(void **state)
{
    (void)state;
    struct history *history = history_create(2, 4);
    assert_non_null(history);
    edge_read(history, 1, 0, edge_tag(0, 5), 10, 11);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, "nobody wrote"), HISTORY_BAD);
    edge_commit(history, 0, 0, HISTORY_VOID, 1, 2, 0);
    edge_read(history, 1, 0, edge_tag(0, 1), 10, 11);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, "commit that failed"), HISTORY_BAD);
    edge_commit(history, 0, 0, HISTORY_DONE, 1, 2, 0);
    edge_read(history, 1, 1, edge_tag(0, 1), 10, 11);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, "another key"), HISTORY_BAD);
    edge_commit(history, 0, 0, HISTORY_DONE, 20, 21, 0);
    edge_read(history, 1, 0, edge_tag(0, 1), 10, 11);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, "its value of key 0 was seen by"),
                     HISTORY_BAD);
    edge_commit(history, 0, 0, HISTORY_DONE, 1, 2, 10);
    edge_read(history, 1, 0, 0, 10, 11);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, "found key 0 absent"), HISTORY_BAD);
    history_destroy(history);
}

static void
history__unknown_commits_count_once_they_are_seen(void **state)
{
    (void)state;
    struct history *history = history_create(2, 4);
    assert_non_null(history);
    edge_commit(history, 0, 0, HISTORY_UNKNOWN, 1, 2, 0);
    edge_read(history, 1, 0, 0, 10, 11);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, NULL), HISTORY_GOOD);
    edge_commit(history, 0, 0, HISTORY_UNKNOWN, 1, 2, 0);
    edge_read(history, 1, 0, edge_tag(0, 1), 10, 11);
    edge_read(history, 1, 0, edge_tag(0, 1), 12, 13);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, NULL), HISTORY_GOOD);
    edge_commit(history, 0, 0, HISTORY_UNKNOWN, 1, 2, 0);
    edge_read(history, 1, 0, edge_tag(0, 1), 10, 11);
    edge_read(history, 1, 0, 0, 12, 13);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, "key 0"), HISTORY_BAD);
    history_destroy(history);
}

static void
history__says_when_the_order_is_not_known(void **state)
{
    (void)state;
    struct history *history = history_create(2, 4);
    assert_non_null(history);
    edge_commit(history, 0, 3, HISTORY_DONE, 1, 2, 0);
    edge_commit(history, 1, 3, HISTORY_DONE, 1, 2, 0);
    assert_int_equal(edge_verdict(history, HISTORY_BY_VERSION, "several sessions"), HISTORY_UNUSABLE);
    edge_commit(history, 0, 3, HISTORY_DONE, 1, 2, 0);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, "no LSN"), HISTORY_UNUSABLE);
    (void)history_begin_at(history_session(history, 0), edge_tag(1, 9));
    history_end(history_session(history, 0), HISTORY_DONE, 0);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, "a point that is none"), HISTORY_UNUSABLE);
    history_destroy(history);
}

static void
edge_past(struct history *history, uint64_t asked, uint64_t lsn)
{
    struct history_session *session = history_session(history, 1);
    edge_commit(history, 0, 0, HISTORY_DONE, 1, 2, 10);
    edge_commit(history, 0, 0, HISTORY_DONE, 3, 4, 20);
    (void)history_begin(session, HISTORY_PAST);
    history_asked(session, asked);
    history_end(session, HISTORY_DONE, lsn);
    history_set_times(session, 5, 6);
}

static void
history__snapshots_of_the_past_are_exact(void **state)
{
    (void)state;
    struct history *history = history_create(2, 4);
    assert_non_null(history);
    edge_past(history, 19, 10);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, NULL), HISTORY_GOOD);
    edge_past(history, 20, 10);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, "was asked for at LSN 20"), HISTORY_BAD);
    edge_past(history, 19, 20);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, "was asked for at LSN 19"), HISTORY_BAD);
    edge_past(history, 19, 10);
    (void)history_begin_at(history_session(history, 1), edge_tag(1, 1));
    history_read(history_session(history, 1), 0, edge_tag(0, 2));
    history_end(history_session(history, 1), HISTORY_DONE, 0);
    assert_int_equal(edge_verdict(history, HISTORY_BY_LSN, "this later commit"), HISTORY_BAD);
    history_destroy(history);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(history__flags_wrong_stores_and_no_right_one),
        cmocka_unit_test(history__agrees_with_all_orders_tried),
        cmocka_unit_test(history__names_values_that_nobody_can_have_seen),
        cmocka_unit_test(history__unknown_commits_count_once_they_are_seen),
        cmocka_unit_test(history__says_when_the_order_is_not_known),
        cmocka_unit_test(history__snapshots_of_the_past_are_exact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
