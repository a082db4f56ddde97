/* SPDX-License-Identifier: MIT */
/*
 * What a crash may leave, enumerated: walks the recorded log of a simulated
 * disk (sim_disk_record) and says, between any two of its entries, which
 * states of the directory a power cut there could leave behind.
 *
 * At a cut the changes that no sync covers are free: each may be on the
 * platter or not, a write also in part. A state is a choice among them; here
 * it is described by a few words, hashed without being built, and made into a
 * disk of its own on demand. Images are shared, so that costs little.
 *
 * Three models of how names survive, strictest on the engine first:
 *   STRICT    POSIX: every change of a name is free by itself; a rename may
 *             leave both names
 *   ORDERED   ext4, xfs: up to some point in their order; the sync of a file
 *             takes along every change of names before it
 *   PASSING   Btrfs: like ORDERED, but a rename may come before a removal that
 *             has nothing to do with it
 * Contents are free in the same way in all three.
 */
#ifndef ESKER_IO_IO_SIM_STATES_H
#define ESKER_IO_IO_SIM_STATES_H

#include "base/rng.h"
#include "io/io_sim.h"

struct sim_states;

enum sim_model { SIM_MODEL_STRICT, SIM_MODEL_ORDERED, SIM_MODEL_PASSING, SIM_MODELS };

/* How the bytes read by which a file grew and that were not written. */
enum sim_filler {
    SIM_FILL_CUT /* the file ends where written bytes end */,
    SIM_FILL_ZEROS,
    SIM_FILL_ONES,
    SIM_FILL_STALE
};

enum {
    SIM_FREE_MAX = 256, /* free changes told apart; more share the last one's fate */
    SIM_ALL_MAX = 16
};

struct sim_choice {
    uint64_t kept[SIM_FREE_MAX / 64]; /* bit i: the i-th free change survived */
    uint64_t torn_atoms; /* of the torn one: which atoms did; the last bit speaks for all beyond */
    int32_t torn;        /* index of a write that survived in part; -1 = none */
    uint8_t model, filler;
    bool both_names; /* STRICT: renames that survive leave the old name, too */
};

struct sim_budget {
    uint32_t subsets; /* at most as many subsets per cut and model; all, if there are no more */
    uint32_t all;     /* of up to so many free changes all subsets, beyond `subsets`; at most SIM_ALL_MAX */
    uint32_t torn;    /* at most as many torn states per cut; 0 = none */
    uint64_t seed;    /* for the ones that are picked at random */
};

/* base: the disk as it was when the recording began (a clone); both are
 * borrowed until destroy, also the log, which must not grow meanwhile. */
struct sim_states *sim_states_create(struct sim_disk *base, struct sim_disk *recorded);
void sim_states_destroy(struct sim_states *states);
/* The cut moves behind the next entry; returns that entry, NULL at the end of the log. */
const struct sim_log_entry *sim_states_next(struct sim_states *states);
/* The entry behind the cut; NULL at the end. */
const struct sim_log_entry *sim_states_peek(const struct sim_states *states);
/* How many entries lie before the cut. */
size_t sim_states_cut(const struct sim_states *states);
/* How many changes are free here; one more at most behind the next entry. */
uint32_t sim_states_free(const struct sim_states *states);
/* Of up to so many free changes all subsets are taken. */
uint32_t sim_budget_all(const struct sim_budget *budget);

/* Calls `each` with states of this cut, a legal one each time, the same one
 * possibly more than once; stops when it returns false. */
typedef bool sim_each_fn(void *ctx, const struct sim_choice *choice);
void sim_states_each(struct sim_states *states, const struct sim_budget *budget, sim_each_fn *each,
                     void *ctx);
/* Names and contents, as one number. */
uint64_t sim_states_hash(struct sim_states *states, const struct sim_choice *choice);
/* A machine after its power came back; owned by the caller. */
struct sim_disk *sim_states_disk(struct sim_states *states, const struct sim_choice *choice);
/* The same after only the process died: everything is there, not everything on the platter. */
struct sim_disk *sim_states_killed(struct sim_states *states);
/* One line that says what was kept and lost, for people. */
void sim_states_describe(const struct sim_states *states, const struct sim_choice *choice, char *out,
                         size_t size);

#endif
