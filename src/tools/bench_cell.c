/* SPDX-License-Identifier: MIT */
/* Prepares a directory, starts the process, waits for it, cleans up. */
#include "tools/bench_cell.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/bench_work.h"

enum {
    CELL_BUDGET_MIN = 8 << 20,
    CELL_WRITE_BUFFER_MOST = 64 << 20, /* RocksDB's default, and esker's largest window */
    CELL_TIMEOUT_FACTOR = 120,         /* a cell may take so many phases ... */
    CELL_TIMEOUT_MS_MIN = 60000,
    CELL_COPY_BYTES = 1 << 20,
    CELL_MERGE_RECORDS_MOST = 1000000 /* a third of them fits esker's largest window */
};

volatile sig_atomic_t bench_interrupted;

/* ---- Files ------------------------------------------------------------------------ */

static int
cell_remove_one(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)walk;
    return kind == FTW_DP ? rmdir(path) : unlink(path);
}

static void
cell_remove(const char *dir)
{
    (void)nftw(dir, cell_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* What an earlier cell left to write must not be written during the next one. */
static void
cell_settle_disk(const struct bench_cells *cells)
{
    int fd = cells->config.settle ? open(cells->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd >= 0) {
        (void)syncfs(fd);
        (void)close(fd);
    }
}

static int
cell_copy_file(int from_dir, int to_dir, const char *name)
{
    int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC);
    int to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    struct stat info;
    bool good = from >= 0 && to >= 0 && fstat(from, &info) == 0;
    off_t left = good ? info.st_size : 0;
    while (good && left > 0) {
        ssize_t moved = copy_file_range(from, NULL, to, NULL, (size_t)MIN(left, (off_t)CELL_COPY_BYTES), 0);
        good = moved > 0;
        left -= moved > 0 ? moved : 0;
    }
    good = good && fdatasync(to) == 0;
    if (from >= 0) {
        (void)close(from);
    }
    if (to >= 0) {
        (void)close(to);
    }
    return good ? BENCH_OK : BENCH_FAILED;
}

/* A database directory is flat. */
static int
cell_copy_dir(const char *from, const char *to)
{
    DIR *listing = opendir(from);
    int to_dir = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int status = listing != NULL && to_dir >= 0 ? BENCH_OK : BENCH_FAILED;
    while (status == BENCH_OK) {
        struct dirent *entry = readdir(listing);
        if (entry == NULL) {
            break;
        }
        if (entry->d_name[0] != '.') {
            status = cell_copy_file(dirfd(listing), to_dir, entry->d_name);
        }
    }
    if (listing != NULL) {
        (void)closedir(listing);
    }
    if (to_dir >= 0) {
        (void)close(to_dir);
    }
    return status;
}

/* Takes the directory's files out of the page cache. Nothing maps them yet. */
static void
cell_drop_cache(const char *dir)
{
    DIR *listing = opendir(dir);
    if (listing == NULL) {
        return;
    }
    for (struct dirent *entry = readdir(listing); entry != NULL; entry = readdir(listing)) {
        int fd = openat(dirfd(listing), entry->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0) {
            (void)fdatasync(fd);
            (void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
            (void)close(fd);
        }
    }
    (void)closedir(listing);
}

/* ---- Setup ------------------------------------------------------------------------- */

void
bench_cell_setup(const struct bench_config *config, const struct bench_workload *workload,
                 struct bench_setup *setup_out, struct bench_config *config_out)
{
    *config_out = *config;
    uint64_t data = config->records * (BENCH_KEY_BYTES + config->value_bytes);
    if (workload->run == bench_work_large_fill || workload->run == bench_work_large_read) {
        config_out->value_bytes = BENCH_LARGE_BYTES;
        config_out->records = MAX(data / BENCH_LARGE_BYTES, 16u);
        data = config_out->records * (BENCH_KEY_BYTES + BENCH_LARGE_BYTES);
    } else if (workload->run == bench_work_snapshots || workload->run == bench_work_snapshot_read) {
        config_out->records = MAX(config->records / 10, 100u);
    } else if (workload->run == bench_work_churn || workload->run == bench_work_compact) {
        config_out->records = MAX(config->records / 2, 100u);
    } else if (workload->run == bench_work_merge) {
        config_out->records = MIN(config->records, (uint64_t)CELL_MERGE_RECORDS_MOST);
        data = config_out->records * (BENCH_KEY_BYTES + config->value_bytes);
    }
    uint32_t percent = workload->memory_percent == 0 ? config->cold_percent : workload->memory_percent;
    uint64_t budget = MAX(data / 100 * percent, (uint64_t)CELL_BUDGET_MIN);
    /* Skip lists take more room than the bytes put, and no buffer may fill here. */
    bool unflushed = workload->run == bench_work_mem_fill || workload->run == bench_work_mem_read ||
                     workload->run == bench_work_merge;
    *setup_out = (struct bench_setup){
        .memory_bytes = budget,
        .write_buffer_bytes = unflushed ? budget / 4 : MIN(budget / 4, (uint64_t)CELL_WRITE_BUFFER_MOST),
        .data_bytes = data,
        .level = workload->level,
        .bounded = workload->memory_percent == 0,
        .random_reads = workload->memory_percent == 0 && workload->run != bench_work_scan,
        .sessions_max = 80,
        .snapshots_max = 16,
    };
}

static int
cell_prepare_dir(struct bench_run *run, const struct bench_cells *cells, const char *base, const char *work)
{
    if (run->workload->base == BENCH_BASE) {
        run->setup.dir = base;
        if (bench_is_cold(run)) {
            cell_drop_cache(base);
        }
        return BENCH_OK;
    }
    run->setup.dir = work;
    if (mkdir(work, 0700) != 0) {
        return bench_fail(run, "cannot make %s", work);
    }
    if (run->workload->base == BENCH_BASE_COPY && cell_copy_dir(base, work) != BENCH_OK) {
        return bench_fail(run, "cannot copy the loaded database");
    }
    cell_settle_disk(cells);
    return BENCH_OK;
}

/* ---- The process ---------------------------------------------------------------------- */

static void
cell_join_cgroup(struct bench_run *run, const char *cgroup)
{
    char path[BENCH_PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
    FILE *file = fopen(path, "w");
    if (file == NULL || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0) {
        (void)bench_fail(run, "cannot join the cgroup %s", cgroup);
    }
}

static void
cell_body(struct bench_cells *cells, uint32_t engine, const struct bench_workload *workload, uint64_t round)
{
    char base[BENCH_PATH_MAX + 64], work[BENCH_PATH_MAX + 64];
    (void)snprintf(base, sizeof base, "%s/base-%s", cells->dir, cells->engines[engine]->name);
    (void)snprintf(work, sizeof work, "%s/work", cells->dir);
    struct bench_config config;
    struct bench_run run = {.config = &config,
                            .engine = cells->engines[engine],
                            .workload = workload,
                            .result = cells->result,
                            .round = round};
    (void)pthread_mutex_init(&run.lock, NULL);
    bench_cell_setup(&cells->config, workload, &run.setup, &config);
    bench_keys_init(&run.keys, config.records, config.seed);
    if (cells->cgroup[0] != 0) {
        cell_join_cgroup(&run, cells->cgroup);
    }
    if (run.result->status == BENCH_CELL_PENDING && cell_prepare_dir(&run, cells, base, work) == BENCH_OK &&
        workload->run(&run) == BENCH_OK && run.result->status == BENCH_CELL_PENDING) {
        run.result->status = BENCH_CELL_DONE;
    }
}

/* Waits for the process; kills it after timeout_ms. Returns its wait status. */
static int
cell_wait(pid_t pid, int timeout_ms, bool *timed_out)
{
    int status = 0;
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd >= 0) {
        struct pollfd wait_for = {.fd = fd, .events = POLLIN};
        int ready = poll(&wait_for, 1, timeout_ms);
        while (ready < 0 && errno == EINTR && bench_interrupted == 0) {
            ready = poll(&wait_for, 1, timeout_ms);
        }
        if (ready <= 0) {
            *timed_out = true;
            (void)kill(pid, SIGKILL);
        }
        (void)close(fd);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

static void
cell_fork(struct bench_cells *cells, uint32_t engine, const struct bench_workload *workload, uint64_t round)
{
    struct bench_result *result = cells->result;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGTERM, SIG_DFL);
        cell_body(cells, engine, workload, round);
        _exit(0);
    }
    if (pid < 0) {
        result->status = BENCH_CELL_FAILED;
        (void)snprintf(result->reason, sizeof result->reason, "cannot start a process");
        return;
    }
    uint64_t most_ms = cells->config.phase_ns / 1000000 * CELL_TIMEOUT_FACTOR;
    bool timed_out = false;
    int status = cell_wait(pid, (int)MAX(most_ms, (uint64_t)CELL_TIMEOUT_MS_MIN), &timed_out);
    if (timed_out) {
        result->status = BENCH_CELL_FAILED;
        (void)snprintf(result->reason, sizeof result->reason, "took too long and was stopped");
    } else if (WIFSIGNALED(status)) {
        result->status = BENCH_CELL_FAILED;
        (void)snprintf(result->reason, sizeof result->reason, "died by signal %d", WTERMSIG(status));
    } else if (result->status == BENCH_CELL_PENDING) {
        result->status = BENCH_CELL_FAILED;
        (void)snprintf(result->reason, sizeof result->reason, "ended early with code %d",
                       WEXITSTATUS(status));
    }
}

/* Loads the database that BENCH_BASE and BENCH_BASE_COPY start from: random
 * order, batches of 1,000, then everything merged. */
static int
cell_base_load(struct bench_run *run)
{
    if (bench_open(run) != BENCH_OK || bench_load(run) != BENCH_OK) {
        return BENCH_FAILED;
    }
    if (run->engine->flush(run->db) == BENCH_FAILED) {
        return bench_fail_call(run, "flush");
    }
    uint64_t began = bench_now_ns();
    if (run->engine->compact(run->db) == BENCH_FAILED) {
        return bench_fail_call(run, "compact");
    }
    bench_set_metric(run, "compact_seconds", (double)(bench_now_ns() - began) / 1e9);
    return bench_close(run);
}

static void
cell_build_base(struct bench_cells *cells, uint32_t engine)
{
    static const struct bench_workload load = {
        .name = "load", .run = cell_base_load, .base = BENCH_FRESH, .memory_percent = 100};
    char base[BENCH_PATH_MAX + 64], work[BENCH_PATH_MAX + 64];
    (void)snprintf(base, sizeof base, "%s/base-%s", cells->dir, cells->engines[engine]->name);
    (void)snprintf(work, sizeof work, "%s/work", cells->dir);
    memset(cells->result, 0, sizeof *cells->result);
    struct bench_config keep = cells->config;
    cells->config.phase_ns = MAX(keep.phase_ns, keep.records * 20000);
    cell_fork(cells, engine, &load, 0);
    cells->config = keep;
    bool built = cells->result->status == BENCH_CELL_DONE && rename(work, base) == 0;
    cells->base_state[engine] = built ? 1 : -1;
    (void)snprintf(cells->base_reason[engine], sizeof cells->base_reason[engine], "%.100s",
                   cells->result->reason);
    cell_remove(work);
}

void
bench_cell_run(struct bench_cells *cells, uint32_t engine, const struct bench_workload *workload,
               uint64_t round)
{
    if (workload->base != BENCH_FRESH && cells->base_state[engine] == 0) {
        cell_build_base(cells, engine);
    }
    memset(cells->result, 0, sizeof *cells->result);
    if (workload->base != BENCH_FRESH && cells->base_state[engine] < 0) {
        cells->result->status = BENCH_CELL_FAILED;
        (void)snprintf(cells->result->reason, sizeof cells->result->reason, "loading failed: %s",
                       cells->base_reason[engine]);
        return;
    }
    cell_settle_disk(cells);
    uint64_t began = bench_now_ns();
    if (cells->no_fork) {
        cell_body(cells, engine, workload, round);
    } else {
        cell_fork(cells, engine, workload, round);
    }
    struct bench_result *result = cells->result;
    if (result->metric_count < BENCH_METRICS_MAX) {
        /* With all that was not measured; says where the time of a run goes. */
        struct bench_metric *metric = &result->metrics[result->metric_count++];
        (void)snprintf(metric->name, sizeof metric->name, "cell_seconds");
        metric->value = (double)(bench_now_ns() - began) / 1e9;
    }
    char work[BENCH_PATH_MAX + 64];
    (void)snprintf(work, sizeof work, "%s/work", cells->dir);
    cell_remove(work);
}

int
bench_cells_open(struct bench_cells *cells, const char *parent)
{
    (void)snprintf(cells->dir, sizeof cells->dir, "%s/esker-bench-XXXXXX", parent);
    if (mkdtemp(cells->dir) == NULL) {
        fprintf(stderr, "esker: cannot make a directory in %s: %s\n", parent, strerror(errno));
        return BENCH_FAILED;
    }
    cells->result =
        mmap(NULL, sizeof *cells->result, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (cells->result == MAP_FAILED) {
        cells->result = NULL;
        fprintf(stderr, "esker: out of memory\n");
        return BENCH_FAILED;
    }
    return BENCH_OK;
}

void
bench_cells_close(struct bench_cells *cells, bool keep)
{
    if (cells->result != NULL) {
        (void)munmap(cells->result, sizeof *cells->result);
        cells->result = NULL;
    }
    if (keep) {
        fprintf(stderr, "esker: databases are left in %s\n", cells->dir);
    } else {
        cell_remove(cells->dir);
    }
}
