/* SPDX-License-Identifier: MIT */
/*
 * What the programs that enumerate crash states share: their arguments, and
 * what they say while they run and at the end.
 */
#ifndef ESKER_PROPTEST_CRASH_MAIN_H
#define ESKER_PROPTEST_CRASH_MAIN_H

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "crash_states.h"

static const double progress_seconds = 10;

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
    bool good = sscanf(text, ":%u:%d:%llu", &out->base, &out->level, &seed) == 3 && out->base < BASES_ALL;
    out->seed = seed;
    return good;
}

/* Of this process and those that it waited for. */
static double
cpu_seconds(void)
{
    double seconds = 0;
    static const int whose[] = {RUSAGE_SELF, RUSAGE_CHILDREN};
    for (size_t i = 0; i < COUNTOF(whose); i++) {
        struct rusage usage;
        (void)getrusage(whose[i], &usage);
        seconds += (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6;
        seconds += (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
    }
    return seconds;
}

/* A long run that is ended early still says what it saw. */
static volatile sig_atomic_t stopped;

static void
stop_early(int signal_number)
{
    stopped = signal_number;
}

static double
wall_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static bool
main_goes_on(void)
{
    if (stopped != 0) {
        store_relaxed(&shared->stop, true); /* relaxed: a hint to stop soon */
    }
    return count_goes_on();
}

/* After each workload, for whoever tells. */
static void
main_note(uint64_t part)
{
    shared->totals[part] = totals;
    memcpy(shared->edges[part], edges_checked, sizeof edges_checked);
}

/* The sum over all processes; crash_totals is all counts. */
static void
main_sum(uint64_t parts)
{
    uint64_t *sum = (uint64_t *)&totals;
    memset(&totals, 0, sizeof totals);
    memset(edges_checked, 0, sizeof edges_checked);
    for (uint64_t part = 0; part < parts; part++) {
        const uint64_t *one = (const uint64_t *)&shared->totals[part];
        for (size_t i = 0; i < sizeof totals / sizeof *sum; i++) {
            sum[i] += one[i];
        }
        for (size_t i = 0; i < COUNTOF(edges_checked); i++) {
            edges_checked[i] += shared->edges[part][i];
        }
    }
}

static void
main_tell(double began, unsigned failures)
{
    unsigned long long states = load_relaxed(&shared->states); /* relaxed: a number */
    fprintf(stderr, "%llu of %llu states, %.0f states/s, %u failures\n", states,
            (unsigned long long)limits.states, (double)states / (wall_seconds() - began), failures);
}

/* Waits for the processes, and says now and then how far they are. How many failed. */
static unsigned
main_wait(uint64_t parts)
{
    double began = wall_seconds(), told = began;
    unsigned failures = 0;
    for (uint64_t left = parts; left > 0;) {
        int status = 0;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        if (ended > 0) {
            bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
            failures += !good;
            stopped = good ? stopped : SIGABRT;
            left--;
        } else if (ended < 0 && errno != EINTR) {
            perror("waitpid");
            exit(1);
        }
        (void)main_goes_on(); /* tells the others to stop */
        if (wall_seconds() - told >= progress_seconds) {
            told = wall_seconds();
            main_tell(began, failures);
        }
        usleep(20000);
    }
    main_tell(began, failures);
    return failures;
}

/* Calls work(part, parts) in as many processes, or in this one; `totals` is the sum then. How many
 * failed. */
static unsigned
main_run(uint64_t parts, void (*work)(uint64_t part, uint64_t parts))
{
    (void)signal(SIGINT, stop_early);
    (void)signal(SIGTERM, stop_early);
    count_begin();
    if (parts <= 1) {
        work(0, 1);
        return 0;
    }
    parts = MIN(parts, (uint64_t)PROCESSES_MAX);
    for (uint64_t part = 0; part < parts; part++) {
        pid_t child = fork();
        if (child == 0) {
            (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
            work(part, parts);
            _exit(0);
        }
        if (child < 0) {
            perror("fork");
            exit(1);
        }
    }
    unsigned failures = main_wait(parts);
    main_sum(parts);
    return failures;
}

/* bounded: how many workloads there are of up to three steps. */
static void
report(uint64_t bounded)
{
    double seconds = cpu_seconds();
    static const char *const names[] = {"strict", "ordered", "passing"};
    printf("%llu distinct crash states of %llu workloads, %llu of all %llu bounded ones (%llu of them of "
           "recoveries, %llu kills; %llu met "
           "again), %llu operations; %llu verified, %llu leftovers that nothing proves; %.0f states per CPU "
           "second\n",
           (unsigned long long)totals.states, (unsigned long long)totals.workloads,
           (unsigned long long)totals.bounded, (unsigned long long)bounded,
           (unsigned long long)totals.deep_states, (unsigned long long)totals.kills,
           (unsigned long long)totals.repeated, (unsigned long long)totals.operations,
           (unsigned long long)totals.verified, (unsigned long long)totals.leftovers,
           (double)totals.states / MAX(seconds, 0.001));
    for (int deep = 0; deep < 2; deep++) {
        printf("%s:", deep ? "of recoveries and writes behind them" : "of workloads");
        for (int model = 0; model < SIM_MODELS; model++) {
            printf(" %s names %llu states (%llu choices),", names[model],
                   (unsigned long long)totals.kinds[deep][model],
                   (unsigned long long)totals.choices[deep][model]);
        }
        printf(" killed %llu; all subsets at %llu of %llu places\n",
               (unsigned long long)totals.kinds[deep][SIM_MODELS], (unsigned long long)totals.cuts[deep][1],
               (unsigned long long)(totals.cuts[deep][0] + totals.cuts[deep][1]));
    }
    edge_report();
    (void)fflush(stdout); /* what follows may abort */
}

#endif
