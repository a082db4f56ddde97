/* SPDX-License-Identifier: MIT */
/* The supervisor of one row: children, and what is done to them. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/tool.h"
#include "tools/workload_area.h"

/* After the end of the plan a row gets as long again, and a minute, for what it is late with. */
enum { RUN_HOGS_MAX = 64, RUN_GRACE_SECONDS = 60, RUN_POLL_NS = 500000 };

struct run {
    struct workload_area *area;
    const esker_options *options;
    const char *dir;
    pid_t child;
    pid_t hogs[RUN_HOGS_MAX];
    uint32_t stops_done, kills_done;
};

static void
run_pause(uint64_t ns)
{
    struct timespec pause = {.tv_sec = (time_t)(ns / 1000000000U), .tv_nsec = (long)(ns % 1000000000U)};
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
}

/* ---- Hogs ------------------------------------------------------------------------ */

/* Burns its share of each tenth of a second until it is killed. */
static void
run_hog(uint32_t percent)
{
    for (;;) {
        uint64_t until = tool_now_ns() + (uint64_t)percent * 1000000;
        while (tool_now_ns() < until) {
        }
        run_pause((uint64_t)(100 - percent) * 1000000 + 1);
    }
}

/* A child of this process that ends with it. 0 in the child. */
static pid_t
run_fork(void)
{
    (void)fflush(NULL); /* or the child would print it again */
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    }
    return pid;
}

static void
run_start_hogs(struct run *run)
{
    const struct workload_chaos *chaos = &run->area->config.chaos;
    for (uint32_t i = 0; i < MIN(chaos->hogs, (uint32_t)RUN_HOGS_MAX); i++) {
        run->hogs[i] = run_fork();
        if (run->hogs[i] == 0) {
            run_hog(chaos->hog_percent);
        }
    }
}

static void
run_end_hogs(struct run *run)
{
    for (size_t i = 0; i < RUN_HOGS_MAX; i++) {
        if (run->hogs[i] > 0) {
            (void)kill(run->hogs[i], SIGKILL);
            (void)waitpid(run->hogs[i], NULL, 0);
        }
    }
}

/* ---- The child ------------------------------------------------------------------- */

static bool
run_start_child(struct run *run)
{
    run->child = run_fork();
    if (run->child == 0) {
        workload_stage(run->area, run->options, run->dir);
        (void)fflush(NULL);
        _exit(0);
    }
    if (run->child < 0) {
        workload_area_fail(run->area, "no process can be started: %s", strerrordesc_np(errno));
    }
    return run->child > 0;
}

/* True once the child is gone; whether as it should is said. */
static bool
run_child_ended(struct run *run)
{
    int how = 0;
    pid_t pid = waitpid(run->child, &how, WNOHANG);
    if (pid == 0 || (pid < 0 && errno == EINTR)) {
        return false;
    }
    if (WIFSIGNALED(how)) {
        workload_area_fail(run->area, "the process with the database was ended by signal %d", WTERMSIG(how));
    } else if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
        workload_area_fail(run->area, "the process with the database ended with code %d", WEXITSTATUS(how));
    }
    run->child = -1;
    return true;
}

static void
run_kill_child(struct run *run)
{
    if (run->child > 0) {
        (void)kill(run->child, SIGKILL);
        while (waitpid(run->child, NULL, 0) < 0 && errno == EINTR) {
        }
        run->child = -1;
    }
}

/* When the nth of `count` happens, evenly spread. */
static uint64_t
run_moment(const struct run *run, uint32_t nth, uint32_t count)
{
    const struct workload_config *config = &run->area->config;
    double wall_ns = config->seconds / config->time_scale * 1e9;
    return run->area->start_ns + (uint64_t)(wall_ns * (nth + 0.5) / count);
}

/* What is due now is done. */
static bool
run_disturb(struct run *run, uint64_t now)
{
    const struct workload_config *config = &run->area->config;
    const struct workload_chaos *chaos = &config->chaos;
    if (run->stops_done < chaos->stops && now >= run_moment(run, run->stops_done, chaos->stops)) {
        run->stops_done++;
        (void)kill(run->child, SIGSTOP);
        run_pause((uint64_t)(chaos->stop_seconds / config->time_scale * 1e9));
        (void)kill(run->child, SIGCONT);
    }
    if (run->kills_done < chaos->kills && now >= run_moment(run, run->kills_done, chaos->kills)) {
        run->kills_done++;
        run_kill_child(run);
        return run_start_child(run);
    }
    return true;
}

static void
run_watch(struct run *run)
{
    const struct workload_config *config = &run->area->config;
    double most = 2 * config->seconds / config->time_scale + (double)RUN_GRACE_SECONDS;
    uint64_t last_ns = run->area->start_ns + (uint64_t)(most * 1e9);
    while (run->child > 0 && !run_child_ended(run)) {
        uint64_t now = tool_now_ns();
        if (now > last_ns) {
            workload_area_fail(run->area, "the row did not come to its end in %.0f s", most);
            run_kill_child(run);
        } else if (run_disturb(run, now)) {
            run_pause(RUN_POLL_NS);
        }
    }
}

/* ---- The row --------------------------------------------------------------------- */

static void
run_remove(struct run *run)
{
    /* In a process of its own: this one never touches the library. */
    pid_t pid = run_fork();
    if (pid == 0) {
        IGNORE_STATUS(esker_destroy(run->dir), "what is left shows by itself");
        (void)rmdir(run->dir);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

static void
run_fill_result(struct run *run, struct workload_result *result)
{
    struct workload_area *area = run->area;
    workload_measure(area, result);
    result->restarts = run->kills_done + area->cuts;
    if (area->failed) { /* the writers are gone */
        (void)snprintf(result->failure, sizeof result->failure, "%s", area->failure);
    } else {
        result->finished = area->ended && area->scanned;
        if (!result->finished) {
            (void)snprintf(result->failure, sizeof result->failure, "the row did not come to its end");
        }
    }
    if (area->config.verify) {
        workload_check(area, result);
    }
}

void
workload_run_row(const struct workload_config *config, const esker_options *options, const char *dir,
                 bool keep, struct workload_result *result)
{
    esker_options own = *options;
    bool simulated = config->chaos.io_delay_ms > 0 || config->chaos.io_fails > 0;
    if (simulated) {
        own.durability = ESKER_DURABLE_SYNC; /* or its delays and failures would meet nobody */
    }
    struct run run = {.options = &own, .dir = dir, .child = -1};
    run.area = workload_area_create(config);
    if (run.area == NULL || (mkdir(dir, 0700) != 0 && errno != EEXIST)) {
        (void)snprintf(result->failure, sizeof result->failure, "no memory or no directory: %s",
                       strerrordesc_np(errno));
        workload_area_destroy(run.area);
        return;
    }
    run.area->start_ns = tool_now_ns();
    run_start_hogs(&run);
    if (run_start_child(&run)) {
        run_watch(&run);
    }
    run_kill_child(&run);
    run_end_hogs(&run);
    result->wall_ns = tool_now_ns() - run.area->start_ns;
    run_fill_result(&run, result);
    if (!keep) {
        run_remove(&run);
    }
    workload_area_destroy(run.area);
}
