/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: what prop_crash_states.c demands holds on full disks, too, while a
 * reserve is made, given up for deletes and restored; and a crash leaves nobody
 * with a full disk and a reserve that lets nothing in: where the disk holds all
 * of it, the database opens, takes deletes, and when everything is deleted
 * takes writes again.
 * Method: all workloads of up to three steps on simulated disks of 107 to 136 KiB
 * (crash_full.h); every state is opened on a disk as small.
 *
 *   prop_crash_full [states [seed [processes]]]
 *   prop_crash_full STEPS:BASE:LEVEL:SEED     one workload, as a failure names it
 */
#define MODEL_KEYS 16

#include "crash_full.h"
#include "crash_main.h"

enum { COVERED_FROM = 10000 };

#ifdef __SANITIZE_ADDRESS__
enum { STATES_DEFAULT = 2000 }; /* ten times slower there */
#else
enum { STATES_DEFAULT = 28000 };
#endif

/* Deletes that nothing has room for, a close that says so, an open that shows what is lost, and then
 * room: what was lost stays lost, whatever is made durable now. */
static const char *const first_workload = "feor:6:4:1";

static void
work_named(const char *name)
{
    struct workload workload;
    ASSERT(parse_workload(name, &workload) && workload.base >= BASES);
    workload.capacity = full_capacities[workload.level == ESKER_DURABLE_PROCESS][workload.base];
    check_workload(&workload);
}

/* By a stride, so that few states already meet all kinds; and again with other seeds. */
static void
work(uint64_t part, uint64_t parts)
{
    full_make_bases();
    if (part == 0) {
        work_named(first_workload);
    }
    for (uint64_t i = part; main_goes_on(); i += parts) {
        struct workload workload = full_workload(i * FULL_STRIDE % FULL_WORKLOADS);
        workload.seed += (limits.budget.seed + i / FULL_WORKLOADS) << 20;
        totals.bounded += i < FULL_WORKLOADS;
        check_workload(&workload);
        main_note(part);
    }
    destroy_bases();
}

static const char *only;

static void
work_only(uint64_t part, uint64_t parts)
{
    full_make_bases();
    work_named(only);
    main_note(part);
    (void)parts;
    destroy_bases();
}

static void
full_report(void)
{
    printf(
        "reserve: made %llu times, given up %llu, restored %llu; %llu states with it, %llu of them with less "
        "of it than is kept; a delete was taken in %llu, all were in %llu; %llu did not open before there "
        "was room; %llu closes found no room, %llu of them lost what was not acknowledged\n",
        (unsigned long long)totals.reserve_made, (unsigned long long)totals.reserve_spent,
        (unsigned long long)totals.reserve_restored, (unsigned long long)totals.with_reserve,
        (unsigned long long)totals.with_less, (unsigned long long)totals.deleted,
        (unsigned long long)totals.emptied, (unsigned long long)totals.full,
        (unsigned long long)totals.closes_failed, (unsigned long long)totals.closes_lost);
}

/* The reserve's whole life was met, in a run long enough for that. */
static void
check_coverage(void)
{
    bool all = totals.verified > 0 && totals.reserve_made > 0 && totals.reserve_spent > 0 &&
               totals.reserve_restored > 0 && totals.with_less > 0 && totals.deep_states > 0 &&
               totals.emptied > 0 && totals.closes_lost > 0 && totals.with_reserve * 3 >= totals.states;
    if (!all || totals.states < limits.states) {
        fail("some kind of crash state was never met");
    }
}

int
main(int argc, char **argv)
{
    limits = (struct crash_limits){.budget = {.subsets = 6, .torn = 2, .seed = 1},
                                   .deep_every = 256,
                                   .verify_every = 16,
                                   .states = STATES_DEFAULT};
    if (argc == 2 && strchr(argv[1], ':') != NULL) {
        struct workload workload;
        only = argv[1];
        if (!parse_workload(only, &workload) || workload.base < BASES) {
            fprintf(stderr, "not a workload: %s\n", argv[1]);
            return 2;
        }
        limits.states = UINT64_MAX;
        (void)main_run(1, work_only);
        full_report();
        report(FULL_WORKLOADS);
        return 0;
    }
    limits.states = argc > 1 ? strtoull(argv[1], NULL, 10) : limits.states;
    limits.budget.seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    unsigned failures = main_run(argc > 3 ? strtoull(argv[3], NULL, 10) : 1, work);
    full_report();
    report(FULL_WORKLOADS);
    if (failures == 0 && limits.states >= COVERED_FROM && stopped == 0) {
        check_coverage();
    }
    return failures != 0;
}
