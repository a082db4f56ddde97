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
 *   prop_crash_states [states [seed [part parts]]]
 *   prop_crash_states STEPS:BASE:LEVEL:SEED     one workload, as a failure names it
 */
#include <time.h>

#include "crash_states.h"

enum { RANDOM_STEPS = 40 };

#ifdef __SANITIZE_ADDRESS__
enum { STATES_DEFAULT = 6000 }; /* ten times slower there */
#else
enum { STATES_DEFAULT = 100000 };
#endif

/* The i-th of all workloads of up to three steps; false: there are no more. */
static bool
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
            return true;
        }
        rest -= count;
    }
    return false;
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

static bool
parse_workload(const char *text, struct workload *out)
{
    *out = (struct workload){0};
    for (; *text != '\0' && *text != ':'; text++) {
        const char *letter = strchr(step_letters, *text);
        if (letter == NULL || out->count == STEPS_MAX) {
            return false;
        }
        out->steps[out->count++] = (uint8_t)(letter - step_letters);
    }
    unsigned long long seed;
    bool good = sscanf(text, ":%u:%d:%llu", &out->base, &out->level, &seed) == 3 && out->base < BASES;
    out->seed = seed;
    return good;
}

static double
cpu_seconds(void)
{
    return (double)clock() / CLOCKS_PER_SEC;
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

static void
report(double seconds)
{
    printf("%llu distinct crash states of %llu workloads (%llu of them of recoveries, %llu kills; %llu met "
           "again), %llu operations; %.0f states/s\n",
           (unsigned long long)totals.states, (unsigned long long)totals.workloads,
           (unsigned long long)totals.deep_states, (unsigned long long)totals.kills,
           (unsigned long long)totals.repeated, (unsigned long long)totals.operations,
           (double)totals.states / MAX(seconds, 0.001));
    edge_report();
}

int
main(int argc, char **argv)
{
    struct workload workload;
    limits = (struct crash_limits){
        .budget = {.subsets = 24, .torn = 8, .seed = 1}, .deep_every = 64, .states = STATES_DEFAULT};
    make_bases();
    if (argc == 2 && strchr(argv[1], ':') != NULL) {
        if (!parse_workload(argv[1], &workload)) {
            fprintf(stderr, "not a workload: %s\n", argv[1]);
            return 2;
        }
        limits.states = UINT64_MAX;
        check_workload(&workload);
        report(cpu_seconds());
        destroy_bases();
        return 0;
    }
    limits.states = argc > 1 ? strtoull(argv[1], NULL, 10) : limits.states;
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t part = argc > 4 ? strtoull(argv[3], NULL, 10) : 0;
    uint64_t parts = argc > 4 ? strtoull(argv[4], NULL, 10) : 1;
    limits.budget.seed = seed;
    check_determinism();
    for (uint64_t i = 0; totals.states < limits.states; i++) {
        /* Of the bounded ones a stride, so that few states already meet all kinds; then random ones. */
        uint64_t mixed = (i * parts + part) * 1009;
        if (i % 4 != 3 && mixed < UINT64_C(1009) * 2 * BASES * 1463 &&
            bounded_workload(mixed % (2 * BASES * 1463), &workload)) {
            workload.seed += seed << 20;
        } else {
            workload = random_workload((seed << 32) + i * parts + part);
        }
        check_workload(&workload);
    }
    report(cpu_seconds());
    destroy_bases();
    return 0;
}
