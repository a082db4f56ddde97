/* SPDX-License-Identifier: MIT */
/*
 * `esker workload`: clients in roles drive a database at given rates, everything
 * they do is recorded, and afterwards the record is checked against what the
 * database promises.
 *
 * Roles. Each client is one thread that runs one transaction after another.
 *  monotonic   reads `head`, writes the next key_000000, key_000001, ... and head
 *  random      reads head and a pair of pool keys, writes or deletes both
 *  compactor   reads head and some keys, sleeps, writes merged_000000, ... and head
 *  reader      a snapshot; head and a random key, or a pair of pool keys
 * A transaction is a snapshot, reads at it, and a batch that requires what it
 * read to be unchanged since. `head` counts the transactions, so every write
 * meets every other there: one store, one HEAD, writers that race for it. A
 * conflict is counted and tried again after a back-off, some number of times.
 *
 * Rates are open-loop: when a transaction is due follows from the rate alone,
 * and its latency counts from then, so a stall is charged to all it delays.
 * Times of the plan are divided by `time_scale` and rates multiplied, so that
 * the number of transactions stays.
 *
 * Processes. Each row of a plan has a supervisor, which starts a child that
 * opens the database; it stops, kills and restarts that child as told. Plan,
 * clients and records are in memory that all of them share (workload_area.h),
 * so the record survives the child. The supervisor has no threads and never
 * opens a database: it may fork at any time.
 */
#ifndef ESKER_TOOLS_WORKLOAD_H
#define ESKER_TOOLS_WORKLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "esker/esker.h"
#include "tools/histogram.h"

enum workload_role {
    WORKLOAD_MONOTONIC,
    WORKLOAD_RANDOM,
    WORKLOAD_COMPACTOR,
    WORKLOAD_READER,
    WORKLOAD_ROLES
};

extern const char *const workload_role_names[WORKLOAD_ROLES];

/* ---- The plan ---------------------------------------------------------------- */

enum workload_shape {
    WORKLOAD_STEADY,
    WORKLOAD_RAMP, /* from a tenth of the rate, evenly up to the rate */
    WORKLOAD_BURST /* a fifth of each period at four times the rate, the rest at a quarter */
};

/* Mistakes made on purpose, to see that the checks find them. */
enum workload_inject {
    WORKLOAD_INJECT_NOTHING,
    WORKLOAD_INJECT_LOST_COMMIT,
    WORKLOAD_INJECT_TORN_BATCH,
    WORKLOAD_INJECT_STALE_SNAPSHOT,
    WORKLOAD_INJECT_READ_SKEW,
    WORKLOAD_INJECT_NON_MONOTONIC,
    WORKLOAD_INJECT_DIRTY_READ,
    WORKLOAD_INJECT_BLIND_WRITE,
    WORKLOAD_INJECTS
};

extern const char *const workload_inject_names[WORKLOAD_INJECTS];

/* Times in seconds of the plan. */
struct workload_chaos {
    uint32_t hogs, hog_percent; /* processes that burn that share of a processor each */
    uint32_t stops;             /* SIGSTOP for stop_seconds, so often */
    double stop_seconds;
    uint32_t kills;     /* SIGKILL and a new process, so often */
    double io_delay_ms; /* each transfer to the simulated disk takes that much longer */
    uint32_t io_fails;  /* writes or syncs of the simulated disk fail, so often; then a power cut */
};

enum { WORKLOAD_LABEL_BYTES = 64, WORKLOAD_CLIENTS_MAX = 4096, WORKLOAD_COMPACTOR_READS_MAX = 4 };

/* One row. */
struct workload_config {
    char label[WORKLOAD_LABEL_BYTES];
    uint32_t clients[WORKLOAD_ROLES];
    double rate[WORKLOAD_ROLES]; /* transactions per client and second; 0: as fast as it can */
    enum workload_shape shape;
    double seconds;
    double time_scale;
    uint32_t value_bytes;
    uint32_t retries_max;
    uint32_t compactor_reads;
    double compactor_sleep;
    uint32_t pool_keys;  /* of the random writers together */
    double overlap;      /* share of their picks from keys that all of them use */
    double delete_ratio; /* share of their transactions that delete */
    uint64_t ops_max;    /* of a client without a rate */
    uint64_t seed;
    struct workload_chaos chaos;
    enum workload_inject inject;
    bool verify;
};

struct workload_preset {
    const char *name, *summary;
    uint32_t rows;
    void (*fill)(struct workload_config *config, uint32_t row); /* config has the defaults */
};

extern const struct workload_preset workload_presets[];
extern const uint32_t workload_preset_count;

void workload_config_init(struct workload_config *config);
/* W1_WR0.10_RD2_RT100, and what else differs from the usual. */
void workload_config_label(struct workload_config *config);
/* NULL or what is wrong with it. */
const char *workload_config_fault(const struct workload_config *config);
/* "cpu=4@80,stop=3x10,kill=2,slow=200,fail=3" or "none". Returns false when it is something else. */
bool workload_chaos_parse(const char *text, struct workload_chaos *out);
/* The same form; "none". */
void workload_chaos_print(const struct workload_chaos *chaos, char *out, size_t size);
bool workload_inject_parse(const char *text, enum workload_inject *out);

/* When a client's nth transaction is due, in seconds of the plan from the start. */
double workload_due(const struct workload_config *config, enum workload_role role, uint32_t client,
                    uint64_t nth);
/* How many of a client's transactions are due before the end; 0 without a rate. */
uint64_t workload_due_count(const struct workload_config *config, enum workload_role role, uint32_t client);

/* ---- What comes of it -------------------------------------------------------- */

enum {
    WORKLOAD_CHECK_MONOTONIC,
    WORKLOAD_CHECK_DUPLICATES,
    WORKLOAD_CHECK_TXN_IDS,
    WORKLOAD_CHECK_LOST,
    WORKLOAD_CHECK_COMMITTED,
    WORKLOAD_CHECK_WHOLE,
    WORKLOAD_CHECK_BATCHES,
    WORKLOAD_CHECK_SNAPSHOTS,
    WORKLOAD_CHECK_SESSIONS,
    WORKLOAD_CHECK_ORDER,
    WORKLOAD_CHECK_SERIAL,
    WORKLOAD_CHECKS
};

extern const char *const workload_check_names[WORKLOAD_CHECKS];

enum { WORKLOAD_STORY_BYTES = 320 };

struct workload_verdict {
    bool done; /* was looked at */
    uint64_t looked_at, faults;
    char story[WORKLOAD_STORY_BYTES]; /* the first fault, or what could not be decided */
};

struct workload_role_result {
    uint64_t done;            /* transactions that came to their end */
    uint64_t attempts;        /* commits handed to the database, or reads */
    uint64_t conflicts;       /* commits refused because something had changed */
    uint64_t retries;         /* attempts after the first */
    uint64_t retry_failures;  /* transactions given up after retries_max */
    uint64_t errors;          /* attempts that ended with an I/O failure or a kill */
    struct histogram latency; /* from when it was due to its end */
    struct histogram service; /* from when it was begun */
};

/* A slice of time, for charts over time. */
struct workload_slice {
    uint64_t ops, p50_ns, p99_ns, max_ns;
};

enum { WORKLOAD_SLICES = 60 };

struct workload_result {
    bool finished; /* the row ran to its end */
    char failure[WORKLOAD_STORY_BYTES];
    uint64_t wall_ns;
    uint64_t span_ns;   /* what the slices divide: the plan's duration on the clock */
    uint32_t restarts;  /* openings after a kill or a power cut */
    uint64_t keys_left; /* in the database at the end */
    struct workload_role_result roles[WORKLOAD_ROLES];
    struct workload_slice slices[WORKLOAD_ROLES][WORKLOAD_SLICES];
    struct workload_verdict verdicts[WORKLOAD_CHECKS];
};

bool workload_result_good(const struct workload_result *result);

/* Runs one row in child processes, on a database in `dir`, which is made and, unless
 * `keep`, removed. `options` is for esker_open; durability is raised where the chaos asks
 * for it. The caller has no threads. *result is zeroed memory. Never fails otherwise than by
 * result->failure. */
void workload_run_row(const struct workload_config *config, const esker_options *options, const char *dir,
                      bool keep, struct workload_result *result);

#endif
