/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: whatever state a crash at any point may legally leave on the disk,
 * opening succeeds without a repair and the contents are the state after some
 * prefix of the commit order that holds everything that was promised to
 * survive; and that stays true when recovery itself is cut short, and when the
 * recovered database is written to and crashes again.
 * Method: all workloads of up to three steps, and random ones of forty, on a
 * simulated disk with tiny limits that records what is done to it; between any
 * two recorded operations the states that could be found there (io_sim_states.h)
 * are built in memory and opened. States are told apart by a hash, and checked
 * once.
 *
 *   prop_crash_states [states [seed [processes]]]
 *   prop_crash_states STEPS:BASE:LEVEL:SEED     one workload, as a failure names it
 */
#include "crash_bases.h"
#include "crash_main.h"

enum {
    RANDOM_STEPS = 40,
    BOUNDED = 2 * BASES * (STEPS + STEPS * STEPS + STEPS * STEPS * STEPS), /* workloads of 1 to 3 steps */
    BOUNDED_STRIDE = 1009,                                                 /* shares no factor with it */
    COVERED_FROM = 5000,
    PROGRESS_EACH = 1000000
};

#ifdef __SANITIZE_ADDRESS__
enum { STATES_DEFAULT = 6000 }; /* ten times slower there */
#else
enum { STATES_DEFAULT = 100000 };
#endif

/* The i-th of all workloads of up to three steps. */
static void
bounded_workload(uint64_t index, struct workload *out)
{
    uint64_t variants = 2 * BASES;
    uint64_t rest = index / variants;
    *out = (struct workload){
        .base = (uint32_t)(index % BASES), .level = base_level(index / BASES % 2), .seed = index};
    for (uint64_t count = STEPS; out->count < 3; count *= STEPS) {
        out->count++;
        if (rest < count) {
            for (uint32_t at = 0; at < out->count; at++, rest /= STEPS) {
                out->steps[at] = (uint8_t)(rest % STEPS);
            }
            return;
        }
        rest -= count;
    }
}

static struct workload
random_workload(uint64_t seed)
{
    struct rng rng = {seed};
    struct workload workload = {.count = RANDOM_STEPS, .seed = seed};
    workload.base = (uint32_t)rng_below(&rng, BASES);
    workload.level = base_level((uint32_t)rng_below(&rng, 2));
    for (uint32_t at = 0; at < workload.count; at++) {
        workload.steps[at] = (uint8_t)rng_below(&rng, STEPS);
    }
    return workload;
}

/* The same workload twice: the same operations, to the byte. */
static void
check_determinism(void)
{
    static struct crash_run run;
    uint64_t hashes[2];
    for (int i = 0; i < 2; i++) {
        run.workload = random_workload(99);
        run.workload.base = 1;
        run.history = base_histories[run.workload.level == ESKER_DURABLE_PROCESS][1];
        describe_workload(&run.workload);
        struct sim_disk *disk = run_workload(&run, bases[run.workload.level == ESKER_DURABLE_PROCESS][1]);
        hashes[i] = sim_disk_log_hash(disk);
        sim_disk_destroy(disk);
    }
    if (hashes[0] != hashes[1]) {
        fail("the same seed gave another history");
    }
}

/* Each model of names and each depth was really met, in a run long enough for that. */
static void
check_coverage(void)
{
    bool all = totals.verified > 0;
    for (int deep = 0; deep < 2; deep++) {
        for (int model = 0; model < SIM_MODELS; model++) {
            all = all && totals.choices[deep][model] > 0;
        }
        all = all && totals.kinds[deep][SIM_MODEL_STRICT] > 0 && totals.kinds[deep][SIM_MODELS] > 0;
    }
    for (size_t edge = 1; edge < COUNTOF(edges_checked); edge++) {
        all = all && edges_checked[edge] > 0;
    }
    if (!all || totals.states < limits.states) {
        fail("some kind of crash state was never met");
    }
}

static void
work(uint64_t part, uint64_t parts)
{
    struct workload workload;
    uint64_t bounded = part;
    make_bases();
    if (part == 0) {
        check_determinism();
    }
    for (uint64_t i = 0; main_goes_on(); i++) {
        /* The bounded ones by a stride, so that few states already meet all kinds, and in the end all
         * of them; after every third, and when there are no more, a random one. */
        bool more = bounded < BOUNDED;
        if (more && i % 4 != 3) {
            bounded_workload(bounded * BOUNDED_STRIDE % BOUNDED, &workload);
            workload.seed += limits.budget.seed << 20;
            bounded += parts;
            totals.bounded++;
        } else {
            workload = random_workload((limits.budget.seed << 32) + i * parts + part);
        }
        check_workload(&workload);
        main_note(part);
    }
    destroy_bases();
}

static struct workload only;

static void
work_only(uint64_t part, uint64_t parts)
{
    (void)part;
    (void)parts;
    make_bases();
    check_workload(&only);
    destroy_bases();
}

int
main(int argc, char **argv)
{
    limits = (struct crash_limits){.budget = {.subsets = 24, .torn = 8, .seed = 1},
                                   .deep_every = 64,
                                   .verify_every = 16,
                                   .states = STATES_DEFAULT};
    if (argc == 2 && strchr(argv[1], ':') != NULL) {
        if (!parse_workload(argv[1], &only) || only.base >= BASES) {
            fprintf(stderr, "not a workload: %s\n", argv[1]);
            return 2;
        }
        limits.states = UINT64_MAX;
        (void)main_run(1, work_only);
        report(BOUNDED);
        return 0;
    }
    limits.states = argc > 1 ? strtoull(argv[1], NULL, 10) : limits.states;
    limits.budget.seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    unsigned failures = main_run(argc > 3 ? strtoull(argv[3], NULL, 10) : 1, work);
    report(BOUNDED);
    if (failures == 0 && limits.states >= COVERED_FROM && stopped == 0) {
        check_coverage();
    }
    return failures != 0;
}
