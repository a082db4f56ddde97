/* SPDX-License-Identifier: MIT */
/*
 * Which states of a cut are looked at: all of them where that is few; else
 * none and all, each change missing alone and present alone, the prefixes of
 * each file, names without data and data without names, and some at random.
 * Then the last two writes of each file in parts.
 */
#include "base/assert.h"
#include "base/hash.h"
#include "io/io_sim_walk.h"

struct choosing {
    struct sim_states *states;
    const struct sim_budget *budget;
    sim_each_fn *each;
    void *ctx;
    struct rng rng;
    uint32_t left;
    bool stopped;
};

static void
choose_set(struct sim_choice *choice, uint32_t index, bool kept)
{
    uint32_t bit = MIN(index, (uint32_t)SIM_FREE_MAX - 1);
    choice->kept[bit / 64] &= ~(UINT64_C(1) << (bit % 64));
    choice->kept[bit / 64] |= (uint64_t)kept << (bit % 64);
}

static void
choose_range(struct sim_choice *choice, uint32_t from, uint32_t to, bool kept)
{
    for (uint32_t at = from; at < to; at++) {
        choose_set(choice, at, kept);
    }
}

static struct sim_choice
choose_all(const struct choosing *choosing, enum sim_model model, bool kept)
{
    struct sim_choice choice = {.model = (uint8_t)model, .torn = -1};
    choose_range(&choice, 0, choosing->states->free_count, kept);
    return choice;
}

static void
choose_emit(struct choosing *choosing, const struct sim_choice *choice)
{
    if (choosing->left > 0 && !choosing->stopped) {
        choosing->left--;
        choosing->stopped = !choosing->each(choosing->ctx, choice);
    }
}

/* What the picture above leaves open: bytes that files grew by, and renames that leave both names. */
static void
choose_emit_filled(struct choosing *choosing, struct sim_choice choice)
{
    choose_emit(choosing, &choice);
    choice.filler = (uint8_t)(1 + rng_below(&choosing->rng, 3));
    choose_emit(choosing, &choice);
    choice.both_names = choice.model == SIM_MODEL_STRICT && choosing->states->change_count > 0;
    if (choice.both_names) {
        choice.filler = SIM_FILL_CUT;
        choose_emit(choosing, &choice);
    }
}

static void
choose_every_subset(struct choosing *choosing, enum sim_model model)
{
    uint32_t free = choosing->states->free_count;
    for (uint64_t subset = 0; subset < UINT64_C(1) << free; subset++) {
        struct sim_choice choice = {.model = (uint8_t)model, .torn = -1, .kept = {subset}};
        choose_emit(choosing, &choice);
    }
}

static void
choose_prefixes(struct choosing *choosing, enum sim_model model)
{
    const struct sim_states *states = choosing->states;
    for (size_t at = 0; at < states->file_count; at++) {
        uint32_t first = states->files[at].first_free;
        uint32_t end = at + 1 < states->file_count ? states->files[at + 1].first_free : states->names_free;
        for (uint32_t kept = first; kept < end; kept++) {
            for (int others = 0; others < 2; others++) {
                struct sim_choice choice = choose_all(choosing, model, others != 0);
                choose_range(&choice, first, end, false);
                choose_range(&choice, first, kept, true);
                choose_emit(choosing, &choice);
            }
        }
    }
}

static void
choose_some_subsets(struct choosing *choosing, enum sim_model model)
{
    const struct sim_states *states = choosing->states;
    uint32_t free = states->free_count;
    for (int all = 0; all < 2; all++) {
        choose_emit_filled(choosing, choose_all(choosing, model, all != 0));
        struct sim_choice split = choose_all(choosing, model, all == 0);
        choose_range(&split, states->names_free, free, all != 0);
        choose_emit_filled(choosing, split); /* names without data, data without names */
    }
    for (uint32_t at = 0; at < free; at++) {
        for (int all = 0; all < 2; all++) {
            struct sim_choice choice = choose_all(choosing, model, all != 0);
            choose_set(&choice, at, all == 0);
            choose_emit(choosing, &choice);
        }
    }
    choose_prefixes(choosing, model);
    while (choosing->left > 0 && !choosing->stopped) {
        struct sim_choice choice = {.model = (uint8_t)model, .torn = -1};
        uint64_t odds = 1 + rng_below(&choosing->rng, 7);
        for (uint32_t at = 0; at < free; at++) {
            choose_set(&choice, at, rng_below(&choosing->rng, 8) < odds);
        }
        choice.filler = (uint8_t)rng_below(&choosing->rng, 4);
        choose_emit(choosing, &choice);
    }
}

/* One write in parts, the other changes all there or all lost. */
static void
choose_tear(struct choosing *choosing, uint32_t index, const struct sim_log_entry *entry)
{
    uint64_t first = entry->offset / SIM_ATOM_BYTES;
    uint64_t last = (entry->offset + (uint64_t)entry->result - 1) / SIM_ATOM_BYTES;
    uint64_t atoms = MIN(last - first + 1, (uint64_t)63);
    for (int others = 0; others < 2; others++) {
        struct sim_choice choice = choose_all(choosing, SIM_MODEL_STRICT, others != 0);
        choice.torn = (int32_t)index;
        for (uint64_t kept = 1; kept < atoms; kept++) {
            choice.torn_atoms = (UINT64_C(1) << kept) - 1;
            choose_emit(choosing, &choice);
            choice.torn_atoms = ((UINT64_C(1) << atoms) - 1) & ~choice.torn_atoms; /* backwards */
            choose_emit(choosing, &choice);
        }
        for (int scattered = 0; scattered < 3 && atoms > 1; scattered++) {
            choice.torn_atoms = rng_next(&choosing->rng) & ((UINT64_C(1) << atoms) - 1);
            choice.filler = (uint8_t)(1 + scattered);
            choose_emit(choosing, &choice);
        }
    }
}

static void
choose_torn(struct choosing *choosing)
{
    const struct sim_states *states = choosing->states;
    for (size_t at = 0; at < states->file_count && choosing->left > 0; at++) {
        const struct walk_file *file = &states->files[at];
        uint32_t index = file->first_free;
        for (size_t op = 0; op < file->op_count; op++) {
            const struct sim_log_entry *entry = file->ops[op].entry;
            bool recent = op + 2 >= file->op_count && !file->ops[op].sure;
            if (recent && entry->kind != SIM_TRUNCATE && entry->result > SIM_ATOM_BYTES) {
                choose_tear(choosing, index, entry);
            }
            index += file->ops[op].sure ? 0 : 1;
        }
    }
}

uint32_t
sim_budget_all(const struct sim_budget *budget)
{
    uint32_t all = MIN(budget->all, (uint32_t)SIM_ALL_MAX);
    while (all < SIM_ALL_MAX && UINT32_C(2) << all <= budget->subsets) {
        all++;
    }
    return all;
}

void
sim_states_each(struct sim_states *states, const struct sim_budget *budget, sim_each_fn *each, void *ctx)
{
    struct choosing choosing = {.states = states, .budget = budget, .each = each, .ctx = ctx};
    choosing.rng.state = hash_mix(budget->seed, states->cut);
    uint32_t models = states->change_count > 0 ? SIM_MODELS : 1; /* they differ in names alone */
    bool few = states->free_count <= sim_budget_all(budget);
    for (uint32_t model = 0; model < models && !choosing.stopped; model++) {
        choosing.left = few ? UINT32_C(1) << states->free_count : budget->subsets;
        if (few) {
            choose_every_subset(&choosing, (enum sim_model)model);
            choosing.left = 6;
            choose_emit_filled(&choosing, choose_all(&choosing, (enum sim_model)model, true));
            choose_emit_filled(&choosing, choose_all(&choosing, (enum sim_model)model, false));
        } else {
            choose_some_subsets(&choosing, (enum sim_model)model);
        }
    }
    choosing.left = budget->torn;
    if (!choosing.stopped) {
        choose_torn(&choosing);
    }
}
