/* SPDX-License-Identifier: MIT */
/* Starts the child, listens to what it acknowledges, and kills it in the middle. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/demo_run.h"
#include "tools/text_units.h"

enum { KILL_ARGS_MAX = 4 + 2 * TOOL_OPTION_TEXTS_MAX, KILL_FD_LEAST = 10 };

/* Above the numbers that the child gets them under, so that no dup2 there overwrites another. */
static int
kill_move_fd(int fd)
{
    int moved = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, KILL_FD_LEAST);
    return moved;
}

/* The same program, from its own image, so that the child starts without any thread. */
static int
kill_spawn(const struct demo_run *run, int records_fd, int ack_fd, pid_t *pid_out)
{
    const char *argv[KILL_ARGS_MAX];
    int argc = 0;
    argv[argc++] = "esker";
    argv[argc++] = "demo-child";
    for (int i = 0; i < run->tool->option_text_count; i++) {
        argv[argc++] = "-o";
        argv[argc++] = run->tool->option_texts[i];
    }
    argv[argc++] = run->dir;
    argv[argc] = NULL;
    posix_spawn_file_actions_t actions;
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_adddup2(&actions, records_fd, DEMO_RECORDS_FD);
    (void)posix_spawn_file_actions_adddup2(&actions, ack_fd, DEMO_ACK_FD);
    int failed =
        posix_spawn(pid_out, "/proc/self/exe", &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* The next number from the pipe. False: the child and its pipe are gone. */
static bool
kill_listen(int fd, uint64_t *acked)
{
    uint64_t told = 0;
    size_t have = 0;
    while (have < sizeof told) {
        ssize_t done = read(fd, (uint8_t *)&told + have, sizeof told - have);
        if (done == 0 || (done < 0 && errno != EINTR)) {
            return false;
        }
        have += done > 0 ? (size_t)done : 0;
    }
    *acked = told;
    return true;
}

/* Kills at the half, then reads what else was acknowledged before the signal came. */
static esker_status
kill_in_the_middle(struct demo_run *run, pid_t pid, int fd, uint64_t *elapsed_ns_out)
{
    uint64_t half = MAX(run->records.count / 2, (uint64_t)1);
    uint64_t acked = 0;
    uint64_t told = 0;
    bool killed = false;
    uint64_t started = 0;
    while (kill_listen(fd, &told) && told != DEMO_CHILD_FAILED) {
        acked = told;
        started = started == 0 ? tool_now_ns() : started; /* the child's start is not its load */
        if (acked >= half && !killed) {
            killed = kill(pid, SIGKILL) == 0;
            *elapsed_ns_out = tool_now_ns() - started;
        }
    }
    if (told == DEMO_CHILD_FAILED) {
        (void)kill(pid, SIGKILL);
    }
    int ended = 0;
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR) {
    }
    if (!killed || told == DEMO_CHILD_FAILED || !WIFSIGNALED(ended) || WTERMSIG(ended) != SIGKILL) {
        return FAIL(ESKER_IO, "the child that loads failed before it was killed");
    }
    run->acked = acked;
    return ESKER_OK;
}

static esker_status
kill_start_and_end(struct demo_run *run, int records_fd, int ends[2], uint64_t *elapsed_ns_out)
{
    pid_t pid = 0;
    if (records_fd < 0 || ends[0] < 0 || ends[1] < 0) {
        return FAIL_OS(errno, NULL, 0, "cannot duplicate a descriptor");
    }
    int failed = kill_spawn(run, records_fd, ends[1], &pid);
    if (failed != 0) {
        return FAIL_OS(failed, NULL, 0, "cannot start the child that loads");
    }
    (void)close(ends[1]); /* or the pipe would never end */
    ends[1] = -1;
    return kill_in_the_middle(run, pid, ends[0], elapsed_ns_out);
}

esker_status
demo_kill_child(struct demo_run *run)
{
    int ends[2];
    uint64_t elapsed_ns = 0;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return FAIL_OS(errno, NULL, 0, "cannot create a pipe");
    }
    int moved[2] = {kill_move_fd(ends[0]), kill_move_fd(ends[1])};
    int records_fd = kill_move_fd(run->records.fd);
    (void)close(ends[0]);
    (void)close(ends[1]);
    esker_status status = kill_start_and_end(run, records_fd, moved, &elapsed_ns);
    int fds[] = {moved[0], moved[1], records_fd};
    for (size_t i = 0; i < COUNTOF(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
    TRY(status);
    char count[TEXT_UNIT_BYTES];
    char rate[TEXT_UNIT_BYTES];
    char time[TEXT_UNIT_BYTES];
    demo_report(
        "killed (SIGKILL)", "after %s records were acknowledged, %s (%s records/s)",
        text_count(run->acked, count), text_duration(elapsed_ns, time),
        text_count((uint64_t)((double)run->acked * 1e9 / (double)MAX(elapsed_ns, (uint64_t)1)), rate));
    return ESKER_OK;
}
