/* SPDX-License-Identifier: MIT */
/*
 * What a run has seen, in all of its processes: which states, so that none is
 * checked twice, and how many of what kind.
 */
#ifndef ESKER_PROPTEST_CRASH_COUNT_H
#define ESKER_PROPTEST_CRASH_COUNT_H

#include <sys/mman.h>

#include "base/assert.h"
#include "edge_oracle.h"
#include "io/io_sim_states.h"
#include "sync/atomic.h"

/* From so many states on all subsets are taken of up to eight changes. */
enum { LONG_FROM = 1000000, LONG_ALL = 8, LONG_TORN = 32 };

enum { PROCESSES_MAX = 64, SET_LEAST = 1 << 16, SET_MOST_STATES = 1 << 26 };

struct crash_limits {
    struct sim_budget budget;
    uint32_t deep_every;   /* each so-manieth state's own recovery is taken apart, too */
    uint32_t verify_every; /* each so-manieth is verified before and after its recovery; 0 = none */
    uint64_t states;       /* stop after so many */
};

/* [0]: of a workload, [1]: of a recovery and what was written behind it. */
struct crash_totals {
    uint64_t workloads, bounded, states, repeated, deep_states, kills, operations;
    uint64_t kinds[2][SIM_MODELS + 1]; /* states by the model that led there first; the last: kills */
    uint64_t choices[2][SIM_MODELS];   /* states that were asked for, by model */
    uint64_t cuts[2][2];               /* [1]: with all subsets, [0]: with some */
    uint64_t verified, leftovers;
    uint64_t reserve_made, reserve_spent, reserve_restored; /* by workloads */
    /* States with the file, with less of it than there should be, that did not open before there was room,
     * where a delete was taken at once, where all were and a put after them. */
    uint64_t with_reserve, with_less, full, deleted, emptied;
    uint64_t closes_failed,
        closes_lost; /* by workloads; behind the latter something unacknowledged is gone */
};

/* Shared by the processes. */
struct crash_shared {
    _Atomic uint64_t states;
    _Atomic bool stop; /* one of them failed, or somebody wants the run to end */
    struct crash_totals totals[PROCESSES_MAX];
    uint64_t edges[PROCESSES_MAX][COUNTOF(edges_checked)];
};

/* Hashes of states, 0 = free place; at most half of the places are taken. */
struct state_set {
    _Atomic uint64_t *keys;
    uint64_t cap;
};

static struct crash_limits limits;
static struct crash_totals totals; /* of this process */
static struct crash_shared *shared;
static struct state_set seen_states;

static void *
count_map(uint64_t bytes)
{
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(map != MAP_FAILED);
    return map;
}

/* Before processes are made; room for limits.states. */
static void
count_begin(void)
{
    if (limits.states >= LONG_FROM) {
        limits.budget.all = LONG_ALL;
        limits.budget.torn = LONG_TORN;
    }
    limits.states = MIN(limits.states, (uint64_t)SET_MOST_STATES);
    seen_states.cap = SET_LEAST;
    while (seen_states.cap < limits.states * 2 + SET_LEAST) {
        seen_states.cap *= 2;
    }
    seen_states.keys = count_map(seen_states.cap * sizeof *seen_states.keys);
    shared = count_map(sizeof *shared);
}

static bool
state_is_new(uint64_t key)
{
    struct state_set *set = &seen_states;
    key |= key == 0;
    for (uint64_t at = key & (set->cap - 1);; at = (at + 1) & (set->cap - 1)) {
        uint64_t found = load_relaxed(&set->keys[at]);                /* relaxed: a key stands for itself */
        if (found == 0 && cas_relaxed(&set->keys[at], &found, key)) { /* relaxed: the same */
            return true;
        }
        if (found == key) {
            return false;
        }
    }
}

/* One more was checked. */
static void
count_state(void)
{
    totals.states++;
    add_relaxed(&shared->states, 1); /* relaxed: a number */
}

static bool
count_goes_on(void)
{
    /* relaxed: both are hints to stop soon */
    return load_relaxed(&shared->states) < limits.states && !load_relaxed(&shared->stop);
}

#endif
