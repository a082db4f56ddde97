/* SPDX-License-Identifier: MIT */
/*
 * The memory of one row, shared by the supervisor and the processes that it
 * starts and kills: plan, clients, and each client's log of what it did.
 *
 * A log has one writer at a time, its client's thread. An entry is published
 * (count) before its commit is handed to the database and closed (outcome)
 * after it: an entry that a kill left open tells whether anything was handed
 * over. Who reads logs does so after the writers' process has ended.
 */
#ifndef ESKER_TOOLS_WORKLOAD_AREA_H
#define ESKER_TOOLS_WORKLOAD_AREA_H

#include "sync/atomic.h"
#include "tools/workload.h"

/* ---- Keys ------------------------------------------------------------------- */

/* A key is a kind and a number below 2^29. */
enum workload_key_kind { WORKLOAD_KEY_HEAD, WORKLOAD_KEY_WRITTEN, WORKLOAD_KEY_MERGED, WORKLOAD_KEY_POOL };

enum { WORKLOAD_KEY_SHIFT = 29, WORKLOAD_KEY_TEXT = 32, WORKLOAD_VALUE_BYTES_MIN = 64 };

static inline uint32_t
workload_key(enum workload_key_kind kind, uint32_t number)
{
    return (uint32_t)kind << WORKLOAD_KEY_SHIFT | number;
}

static inline enum workload_key_kind
workload_key_kind(uint32_t key)
{
    return (enum workload_key_kind)(key >> WORKLOAD_KEY_SHIFT);
}

static inline uint32_t
workload_key_number(uint32_t key)
{
    return key & ((1U << WORKLOAD_KEY_SHIFT) - 1);
}

/* head, key_000000, merged_000000, pool_000000. Returns the length. */
size_t workload_key_text(uint32_t key, char out[WORKLOAD_KEY_TEXT]);
/* Returns false for what workload_key_text does not write. */
bool workload_key_parse(const void *text, size_t len, uint32_t *out);

/* ---- Values ----------------------------------------------------------------- */

/* What every value says about itself. */
struct workload_stamp {
    uint64_t nonce;        /* of the attempt that wrote it */
    uint64_t txn;          /* how many transactions there were with it */
    uint32_t keys, merged; /* how many of those keys there are with it */
};

/* size: at least WORKLOAD_VALUE_BYTES_MIN. */
void workload_value_fill(uint8_t *out, size_t size, uint32_t key, const struct workload_stamp *stamp);
/* Returns false when these are not the whole bytes that were written for this key. */
bool workload_value_read(const void *value, size_t size, uint32_t key, struct workload_stamp *out);

/* ---- The log ---------------------------------------------------------------- */

enum workload_outcome {
    WORKLOAD_OPEN, /* begun; or the process died in it */
    WORKLOAD_DONE,
    WORKLOAD_CONFLICT, /* wrote nothing */
    WORKLOAD_FAILED,   /* wrote nothing */
    WORKLOAD_UNKNOWN   /* handed over; whether it happened is not known */
};

enum { WORKLOAD_TOUCHES_MAX = 6 };

struct workload_touch {
    uint64_t seen; /* the nonce in the value that was read; 0: no such key */
    uint32_t key;
    uint8_t read;  /* 1: read at the snapshot */
    uint8_t wrote; /* 1: put, 2: deleted */
    uint8_t damaged;
};

/* One attempt of one transaction. Times are CLOCK_MONOTONIC. */
struct workload_op {
    uint64_t due_ns;      /* when it should have begun */
    uint64_t began_ns;    /* when its first attempt did */
    uint64_t attempt_ns;  /* when this attempt did */
    uint64_t snapshot_ns; /* its snapshot was there */
    uint64_t read_ns;     /* its reads were done */
    uint64_t handed_ns;   /* before esker_write; 0: nothing was written */
    uint64_t ended_ns;
    uint64_t snapshot_lsn, commit_lsn;
    uint64_t nonce;             /* 0: a reader */
    uint64_t txn, keys, merged; /* as its commit leaves them, or as head said */
    uint64_t head_keys;         /* as head said */
    _Atomic uint8_t outcome;
    uint8_t attempt;
    bool last; /* no further attempt follows */
    uint8_t touch_count;
    struct workload_touch touches[WORKLOAD_TOUCHES_MAX];
};

struct workload_client {
    enum workload_role role;
    uint32_t index, role_index; /* among all, among its role */
    uint64_t next;              /* which transaction comes next */
    uint64_t rng_state;
    uint64_t nonces; /* handed out */
    bool log_full;
    uint64_t capacity;
    _Atomic uint64_t count;
    uint64_t first; /* its log in area->ops */
};

struct workload_final {
    uint64_t nonce, txn, keys, merged;
    uint32_t key;
    bool damaged;
};

enum { WORKLOAD_OPENINGS_MAX = 2100 };

struct workload_area {
    struct workload_config config;
    uint64_t bytes;
    uint64_t start_ns;
    uint32_t client_count;
    uint32_t openings, cuts;
    uint32_t incidents;                        /* of chaos.io_fails, that have been */
    uint64_t opened_ns[WORKLOAD_OPENINGS_MAX]; /* when each opening was done */
    bool ended;                                /* every client has come to its end */
    bool scanned;                              /* the final state is complete */
    bool scan_order;                           /* its keys came in order, each once */
    _Atomic bool failed;
    char failure[WORKLOAD_STORY_BYTES]; /* of the first */
    uint64_t final_count, final_capacity;
    struct workload_final *final;
    struct workload_client *clients;
    struct workload_op *ops;
};

/* NULL: no memory. */
struct workload_area *workload_area_create(const struct workload_config *config);
void workload_area_destroy(struct workload_area *area);

/* Which opening a time belongs to, from 1; 0: before the first. */
uint32_t workload_opening_at(const struct workload_area *area, uint64_t time_ns);

/* The text of the first failure stays. */
void workload_area_fail(struct workload_area *area, const char *format, ...) PRINTF_LIKE(2, 3);

static inline struct workload_op *
workload_op_at(const struct workload_area *area, const struct workload_client *client, uint64_t index)
{
    return &area->ops[client->first + index];
}

static inline uint64_t
workload_log_count(const struct workload_client *client)
{
    return load_acquire(&client->count); /* pairs: WORKLOAD_LOG */
}

/* What a kill leaves open is decided here: nothing was handed over, or nobody knows. */
static inline enum workload_outcome
workload_op_outcome(const struct workload_op *op)
{
    enum workload_outcome outcome =
        (enum workload_outcome)load_acquire(&op->outcome); /* pairs: WORKLOAD_LOG */
    if (outcome == WORKLOAD_OPEN) {
        return op->handed_ns != 0 ? WORKLOAD_UNKNOWN : WORKLOAD_FAILED;
    }
    return outcome;
}

/* ---- The stages ------------------------------------------------------------- */

/* Runs in the child: opens, lets the clients work until the end, closes, reads the final
 * state. What goes wrong is in area->failure. */
void workload_stage(struct workload_area *area, const esker_options *options, const char *dir);

/* ---- Afterwards, in the supervisor -------------------------------------------- */

void workload_measure(const struct workload_area *area, struct workload_result *result);
void workload_check(const struct workload_area *area, struct workload_result *result);

#endif
