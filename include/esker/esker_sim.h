/* SPDX-License-Identifier: MIT */
/*
 * libesker-sim: esker over a simulated disk, for tests of programs that embed
 * it. A disk is one directory in memory that can lose power, tear writes and
 * fail on demand, and does all of it the same way for the same seed. So a test
 * can ask what its program finds after a crash at any moment: cut the power at
 * the n-th change for n = 1, 2, ..., reopen, and check its own invariants.
 * docs/simulation.md has an example.
 *
 * Link it instead of libesker, not beside it: it contains all of it.
 *
 * Databases opened here have no threads: background work runs inside the calls
 * that wait for it, and in esker_sim_run_background. They cannot be open at the
 * same time as one that esker_open opened (ESKER_INVALID), and one thread at a
 * time may use a disk and its database.
 *
 * As in esker.h, a NULL where none is allowed is ESKER_INVALID from calls that return a status.
 */
#ifndef ESKER_ESKER_SIM_H
#define ESKER_ESKER_SIM_H

#include "esker/esker.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct esker_sim esker_sim;

enum {
    ESKER_SIM_KILL,         /* the process dies; what it wrote is in the page cache */
    ESKER_SIM_POWER_NONE,   /* power cut: only what was synced is left */
    ESKER_SIM_POWER_ALL,    /* power cut just after everything was written out */
    ESKER_SIM_POWER_RANDOM, /* power cut: one of the legal states, chosen by the seed */
    ESKER_SIM_CRASHES
};

/* An empty disk. Returns: OK; NO_MEMORY. */
ESKER_API esker_status esker_sim_create(uint64_t seed, esker_sim **out);
/* No database may be open on it. sim may be NULL. */
ESKER_API void esker_sim_destroy(esker_sim *sim);
/* A second disk in the same state, so that one moment can be crashed in many
 * ways; the original may have an open database. Cheap: images are shared. */
ESKER_API esker_status esker_sim_clone(esker_sim *sim, esker_sim **out);

/* As esker_open. io_backend is not looked at. Logs and segments are a few KiB,
 * so that few writes already rotate, flush and merge. */
ESKER_API esker_status esker_sim_open(esker_sim *sim, const esker_options *options, esker_db **db_out);
/* Runs one piece of background work; 0: there was none. */
ESKER_API int esker_sim_run_background(void);

/* The process dies, or the power goes. The open database is dead: nothing that
 * it does reaches the disk, its calls fail or answer from memory, and all that
 * is left to do is to end iterators and snapshots and to close it. Then the disk
 * can be opened again. Returns: OK; INVALID. */
ESKER_API esker_status esker_sim_crash(esker_sim *sim, int how, uint64_t seed);
/* From the nth change on (1 = the next; 0 = never) nothing changes any more and
 * every call to the disk fails, until esker_sim_crash says what is left. A write
 * that makes no call to the disk (MEMORY, PROCESS, INTERVAL) may still say OK:
 * a test that counts acknowledged writes asks esker_sim_is_off after each. */
ESKER_API void esker_sim_crash_at(esker_sim *sim, uint64_t nth);
/* Did that happen? */
ESKER_API int esker_sim_is_off(esker_sim *sim);
/* Writes, syncs, creations, renames, removals so far: how far n has to go. */
ESKER_API uint64_t esker_sim_changes(esker_sim *sim);

/* Faults in words, separated by blanks: OP[@PREFIX]:NTH:ACTION[:sticky]
 *   OP      open read write sync syncdir rename unlink truncate size list map memory
 *   ACTION  EIO ENOSPC EMFILE ENOMEM EINTR EAGAIN EACCES, short=BYTES, torn=BYTES,
 *           flip, misdirect, lie, delay=MILLISECONDS
 * "write@log-:3:torn=512": the third write to a log from now on is torn.
 * At most 16 at a time. Returns: OK; INVALID, with nothing changed. */
ESKER_API esker_status esker_sim_fault(esker_sim *sim, const char *script);
/* No fault is left. */
ESKER_API void esker_sim_heal(esker_sim *sim);
/* How many calls a fault has hit: a sweep over n ends when this stays 0. */
ESKER_API uint64_t esker_sim_faults_hit(esker_sim *sim);
/* Space for all files together; 0 = no limit. */
ESKER_API void esker_sim_set_capacity(esker_sim *sim, uint64_t bytes);
/* Both clocks of the disk's machine. */
ESKER_API void esker_sim_advance(esker_sim *sim, uint64_t ns);

#ifdef __cplusplus
}
#endif

#endif
