/* SPDX-License-Identifier: MIT */
/*
 * The commits of a row in the one order there is. Every commit replaces `head`
 * and says which head it read, so the head that is left at the end leads back
 * through all of them: which unknown ones happened, and at what place.
 */
#ifndef ESKER_TOOLS_WORKLOAD_CHAIN_H
#define ESKER_TOOLS_WORKLOAD_CHAIN_H

#include "tools/workload_area.h"

struct workload_version {
    uint32_t key, position;
    uint64_t nonce; /* 0: deleted */
};

struct workload_ack {
    uint64_t ended_ns;
    uint32_t newest; /* place of the newest commit acknowledged until then */
};

struct workload_chain {
    const struct workload_area *area;
    uint32_t **by_nonce;               /* per client: 1 + index of the op with that nonce, in its log */
    uint32_t *positions;               /* per op of the area: its place, from 1; 0: not in the chain */
    const struct workload_op **ops;    /* by place; [0] is NULL, the empty database */
    uint32_t count;                    /* commits in the chain */
    bool broken;                       /* leads to something that is no commit, or in a circle */
    struct workload_version *versions; /* by key, then by place */
    uint64_t version_count;
    struct workload_ack *acks; /* by time */
    uint64_t ack_count;
};

/* Returns false for want of memory; to be ended in any case. */
bool workload_chain_build(struct workload_chain *chain, const struct workload_area *area);
void workload_chain_fini(struct workload_chain *chain);

/* Who wrote a value with this nonce; NULL: nobody. */
const struct workload_op *workload_chain_find(const struct workload_chain *chain, uint64_t nonce);

static inline uint32_t
workload_chain_position(const struct workload_chain *chain, const struct workload_op *op)
{
    return op == NULL ? 0 : chain->positions[op - chain->area->ops];
}

/* A commit whose outcome is unknown may be seen until the crash that undoes it: visible is not
 * durable. Is `seen` such a one, and `reader` not from a time after that crash? */
bool workload_chain_undone(const struct workload_chain *chain, const struct workload_op *seen,
                           const struct workload_op *reader);
/* Did it read anything of one? */
bool workload_chain_read_undone(const struct workload_chain *chain, const struct workload_op *reader);
/* The last place of the chain before a commit that may be outside of it. */
uint32_t workload_chain_base(const struct workload_chain *chain, const struct workload_op *op);

/* The nonce that a key has after the commit at `position`; 0: there is no such key. */
uint64_t workload_chain_value(const struct workload_chain *chain, uint32_t key, uint32_t position);
/* The newest commit that had been acknowledged at that time. */
uint32_t workload_chain_acked(const struct workload_chain *chain, uint64_t time_ns);

#endif
