/* SPDX-License-Identifier: MIT */
/* `esker workload`: the plan from the command line, its rows in processes, the report. */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/tool.h"
#include "tools/workload.h"
#include "tools/workload_report.h"

enum { WORKLOAD_ROWS_MAX = 256, WORKLOAD_JOBS_MAX = 64, WORKLOAD_PATH_BYTES = 4096 };

struct workload_run {
    struct workload_config configs[WORKLOAD_ROWS_MAX];
    struct workload_result *results[WORKLOAD_ROWS_MAX]; /* shared with the rows' processes */
    pid_t pids[WORKLOAD_ROWS_MAX];
    uint32_t rows, started, ended, jobs;
    esker_options options;
    char base[WORKLOAD_PATH_BYTES];
    bool keep;
    FILE *csv, *series;
};

static volatile sig_atomic_t workload_interrupted;

static void
workload_on_signal(int number)
{
    (void)number;
    workload_interrupted = 1;
}

/* ---- The command line -------------------------------------------------------------- */

enum workload_flag {
    FLAG_LIST,
    FLAG_PRESET,
    FLAG_DURATION,
    FLAG_TIME_SCALE,
    FLAG_WRITERS,
    FLAG_WRITER_RATE,
    FLAG_READERS,
    FLAG_READER_RATE,
    FLAG_RANDOM_WRITERS,
    FLAG_RANDOM_RATE,
    FLAG_COMPACTORS,
    FLAG_COMPACTOR_RATE,
    FLAG_COMPACTOR_SLEEP,
    FLAG_COMPACTOR_READS,
    FLAG_POOL,
    FLAG_OVERLAP,
    FLAG_DELETE_RATIO,
    FLAG_SHAPE,
    FLAG_VALUE_BYTES,
    FLAG_RETRIES,
    FLAG_OPS,
    FLAG_SEED,
    FLAG_CHAOS,
    FLAG_INJECT,
    FLAG_NO_VERIFY,
    FLAG_CSV,
    FLAG_SERIES,
    FLAG_JOBS,
    FLAG_DIR,
    FLAG_KEEP,
    FLAGS
};

/* A flag that sets a number of the plan. */
struct workload_number {
    enum workload_flag flag;
    size_t offset;

    enum { NUMBER_DOUBLE, NUMBER_U32, NUMBER_U64 } kind;
};

#define PLAN_AT(member) offsetof(struct workload_config, member)

static const struct workload_number workload_numbers[] = {
    {FLAG_DURATION, PLAN_AT(seconds), NUMBER_DOUBLE},
    {FLAG_TIME_SCALE, PLAN_AT(time_scale), NUMBER_DOUBLE},
    {FLAG_WRITERS, PLAN_AT(clients[WORKLOAD_MONOTONIC]), NUMBER_U32},
    {FLAG_WRITER_RATE, PLAN_AT(rate[WORKLOAD_MONOTONIC]), NUMBER_DOUBLE},
    {FLAG_READERS, PLAN_AT(clients[WORKLOAD_READER]), NUMBER_U32},
    {FLAG_READER_RATE, PLAN_AT(rate[WORKLOAD_READER]), NUMBER_DOUBLE},
    {FLAG_RANDOM_WRITERS, PLAN_AT(clients[WORKLOAD_RANDOM]), NUMBER_U32},
    {FLAG_RANDOM_RATE, PLAN_AT(rate[WORKLOAD_RANDOM]), NUMBER_DOUBLE},
    {FLAG_COMPACTORS, PLAN_AT(clients[WORKLOAD_COMPACTOR]), NUMBER_U32},
    {FLAG_COMPACTOR_RATE, PLAN_AT(rate[WORKLOAD_COMPACTOR]), NUMBER_DOUBLE},
    {FLAG_COMPACTOR_SLEEP, PLAN_AT(compactor_sleep), NUMBER_DOUBLE},
    {FLAG_COMPACTOR_READS, PLAN_AT(compactor_reads), NUMBER_U32},
    {FLAG_POOL, PLAN_AT(pool_keys), NUMBER_U32},
    {FLAG_OVERLAP, PLAN_AT(overlap), NUMBER_DOUBLE},
    {FLAG_DELETE_RATIO, PLAN_AT(delete_ratio), NUMBER_DOUBLE},
    {FLAG_VALUE_BYTES, PLAN_AT(value_bytes), NUMBER_U32},
    {FLAG_RETRIES, PLAN_AT(retries_max), NUMBER_U32},
    {FLAG_OPS, PLAN_AT(ops_max), NUMBER_U64},
    {FLAG_SEED, PLAN_AT(seed), NUMBER_U64},
};

static bool
workload_decimal(const char *text, double *out)
{
    char *end = NULL;
    if (*text < '0' || *text > '9') {
        return false;
    }
    *out = strtod(text, &end);
    return *end == 0 && isfinite(*out);
}

static bool
workload_set_number(const struct workload_number *number, const char *text, struct workload_config *config)
{
    uint8_t *at = (uint8_t *)config + number->offset;
    uint64_t whole = 0;
    double real = 0;
    if (number->kind == NUMBER_DOUBLE) {
        if (!workload_decimal(text, &real)) {
            return false;
        }
        memcpy(at, &real, sizeof real);
    } else if (!tool_number(text, &whole) || (number->kind == NUMBER_U32 && whole > UINT32_MAX)) {
        return false;
    } else if (number->kind == NUMBER_U32) {
        uint32_t half = (uint32_t)whole;
        memcpy(at, &half, sizeof half);
    } else {
        memcpy(at, &whole, sizeof whole);
    }
    return true;
}

static bool
workload_set_shape(const char *text, struct workload_config *config)
{
    static const char *const names[] = {"steady", "ramp", "burst"};
    for (size_t i = 0; i < COUNTOF(names); i++) {
        if (strcmp(text, names[i]) == 0) {
            config->shape = (enum workload_shape)i;
            return true;
        }
    }
    return false;
}

/* A preset's row with what the command line says otherwise. */
static int
workload_set_row(struct tool *tool, const struct tool_flag *flags, struct workload_config *config)
{
    bool changed = config->label[0] == 0;
    for (size_t i = 0; i < COUNTOF(workload_numbers); i++) {
        const struct tool_flag *flag = &flags[workload_numbers[i].flag];
        if (flag->given && !workload_set_number(&workload_numbers[i], flag->value, config)) {
            return tool_usage(tool, "%s is no number for %s", flag->value, flag->name);
        }
    }
    if (flags[FLAG_SHAPE].given && !workload_set_shape(flags[FLAG_SHAPE].value, config)) {
        return tool_usage(tool, "--shape is steady, ramp or burst");
    }
    if (flags[FLAG_CHAOS].given) {
        changed = true;
        if (!workload_chaos_parse(flags[FLAG_CHAOS].value, &config->chaos)) {
            return tool_usage(tool, "--chaos is none, or some of cpu=4@80,stop=3x10,kill=2,slow=200,fail=3");
        }
    }
    if (flags[FLAG_INJECT].given && !workload_inject_parse(flags[FLAG_INJECT].value, &config->inject)) {
        return tool_usage(tool, "--inject is nothing, lost-commit, torn-batch, stale-snapshot, read-skew, "
                                "non-monotonic, dirty-read or blind-write");
    }
    if (config->clients[WORKLOAD_RANDOM] > 0 && config->pool_keys == 0) {
        config->pool_keys = 1000;
    }
    config->verify = !flags[FLAG_NO_VERIFY].given;
    const char *fault = workload_config_fault(config);
    if (fault != NULL) {
        return tool_usage(tool, "%s", fault);
    }
    if (changed) {
        workload_config_label(config);
    }
    return TOOL_OK;
}

static const struct workload_preset *
workload_find_preset(const char *name)
{
    for (uint32_t i = 0; i < workload_preset_count; i++) {
        if (strcmp(workload_presets[i].name, name) == 0) {
            return &workload_presets[i];
        }
    }
    return NULL;
}

static int
workload_set_rows(struct tool *tool, const struct tool_flag *flags, struct workload_run *run)
{
    const struct workload_preset *preset = &workload_presets[0];
    if (flags[FLAG_PRESET].given) {
        preset = workload_find_preset(flags[FLAG_PRESET].value);
    }
    if (preset == NULL) {
        return tool_usage(tool, "there is no preset %s; --list names them", flags[FLAG_PRESET].value);
    }
    run->rows = preset->rows;
    for (uint32_t row = 0; row < preset->rows; row++) {
        struct workload_config *config = &run->configs[row];
        workload_config_init(config);
        preset->fill(config, row);
        config->seed = row + 1;
        int code = workload_set_row(tool, flags, config);
        if (code != TOOL_OK) {
            return code;
        }
    }
    return TOOL_OK;
}

static int
workload_list(void)
{
    for (uint32_t i = 0; i < workload_preset_count; i++) {
        (void)printf("%-18s %s\n", workload_presets[i].name, workload_presets[i].summary);
    }
    return fflush(stdout) == 0 ? TOOL_OK : TOOL_FAILED;
}

/* ---- Running the rows ---------------------------------------------------------------- */

static void
workload_row_dir(const struct workload_run *run, uint32_t row, char *out, size_t size)
{
    (void)snprintf(out, size, "%s/row-%03u", run->base, row + 1);
}

static bool
workload_start_row(struct workload_run *run, uint32_t row)
{
    void *memory = mmap(NULL, sizeof(struct workload_result), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        tool_say("out of memory");
        return false;
    }
    run->results[row] = memory;
    (void)fflush(NULL);
    run->pids[row] = fork();
    if (run->pids[row] == 0) {
        char dir[WORKLOAD_PATH_BYTES + 16];
        (void)signal(SIGINT, SIG_DFL);
        (void)signal(SIGTERM, SIG_DFL);
        workload_row_dir(run, row, dir, sizeof dir);
        workload_run_row(&run->configs[row], &run->options, dir, run->keep, run->results[row]);
        _exit(0);
    }
    if (run->pids[row] < 0) {
        tool_say("no process can be started: %s", strerrordesc_np(errno));
        return false;
    }
    return true;
}

/* Waits for any row. */
static void
workload_wait_row(struct workload_run *run)
{
    int how = 0;
    pid_t pid = waitpid(-1, &how, 0);
    for (uint32_t row = 0; row < run->rows; row++) {
        if (pid > 0 && run->pids[row] == pid) {
            struct workload_result *result = run->results[row];
            run->pids[row] = 0;
            run->ended++;
            if (!WIFEXITED(how) || WEXITSTATUS(how) != 0) {
                result->finished = false;
                (void)snprintf(result->failure, sizeof result->failure,
                               "the row's process ended by signal %d", WIFSIGNALED(how) ? WTERMSIG(how) : 0);
            }
        }
    }
    if (isatty(STDERR_FILENO) == 1 && run->rows > 1) {
        (void)fprintf(stderr, "\r\033[K%u of %u rows", run->ended, run->rows);
        (void)fflush(stderr);
    }
}

static int
workload_run_rows(struct workload_run *run)
{
    struct sigaction action = {.sa_handler = workload_on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    while (run->ended < run->rows && workload_interrupted == 0) {
        if (run->started < run->rows && run->started - run->ended < run->jobs) {
            if (!workload_start_row(run, run->started)) {
                break;
            }
            run->started++;
        } else {
            workload_wait_row(run);
        }
    }
    for (uint32_t row = 0; row < run->started; row++) {
        if (run->pids[row] > 0) {
            (void)kill(run->pids[row], SIGTERM); /* its children follow it */
            (void)waitpid(run->pids[row], NULL, 0);
        }
    }
    if (isatty(STDERR_FILENO) == 1 && run->rows > 1) {
        (void)fprintf(stderr, "\r\033[K");
    }
    return run->ended == run->rows ? TOOL_OK : TOOL_FAILED;
}

/* ---- Files ----------------------------------------------------------------------------- */

static int
workload_make_base(struct workload_run *run, const char *parent)
{
    const char *temporary = getenv("TMPDIR");
    if (parent == NULL) {
        /* Not /tmp, which is memory on many machines. */
        parent = temporary != NULL && *temporary != 0 ? temporary : "/var/tmp";
    }
    int len = snprintf(run->base, sizeof run->base, "%s/esker-workload-XXXXXX", parent);
    if (len < 0 || (size_t)len >= sizeof run->base - 16 || mkdtemp(run->base) == NULL) {
        tool_say("cannot create a directory in %s: %s", parent, strerrordesc_np(errno));
        return TOOL_FAILED;
    }
    return TOOL_OK;
}

static int
workload_open_csv(const struct tool_flag *flag, FILE **out)
{
    if (!flag->given) {
        return TOOL_OK;
    }
    *out = fopen(flag->value, "we");
    if (*out == NULL) {
        tool_say("cannot write %s: %s", flag->value, strerrordesc_np(errno));
        return TOOL_FAILED;
    }
    return TOOL_OK;
}

static int
workload_close_csv(FILE *file, int code)
{
    if (file != NULL && (ferror(file) | fclose(file)) != 0) {
        tool_say("a CSV file could not be written whole");
        return TOOL_FAILED;
    }
    return code;
}

static int
workload_report(struct workload_run *run)
{
    bool good = true;
    if (run->csv != NULL) {
        workload_csv_header(run->csv);
    }
    if (run->series != NULL) {
        workload_series_header(run->series);
    }
    for (uint32_t row = 0; row < run->rows; row++) {
        workload_report_row(stdout, &run->configs[row], run->results[row]);
        if (run->csv != NULL) {
            workload_csv_row(run->csv, &run->configs[row], run->results[row]);
        }
        if (run->series != NULL) {
            workload_series_rows(run->series, &run->configs[row], run->results[row]);
        }
        good = good && run->results[row]->finished;
    }
    if (run->configs[0].verify) {
        good = workload_report_verdicts(stdout, run->configs,
                                        (const struct workload_result *const *)run->results, run->rows) &&
               good;
    }
    return fflush(stdout) != 0 ? TOOL_FAILED : good ? TOOL_OK : TOOL_NEGATIVE;
}

static void
workload_clean_up(struct workload_run *run)
{
    for (uint32_t row = 0; row < run->started && !run->keep; row++) {
        char dir[WORKLOAD_PATH_BYTES + 16];
        workload_row_dir(run, row, dir, sizeof dir);
        if (access(dir, F_OK) == 0) { /* the row was interrupted */
            IGNORE_STATUS(esker_destroy(dir), "what is left shows by itself");
            (void)rmdir(dir);
        }
    }
    if (run->keep) {
        (void)printf("kept: %s\n", run->base);
    } else {
        (void)rmdir(run->base);
    }
    for (uint32_t row = 0; row < run->rows; row++) {
        if (run->results[row] != NULL) {
            (void)munmap(run->results[row], sizeof *run->results[row]);
        }
    }
}

static int
workload_run_plan(struct workload_run *run, const struct tool_flag *flags)
{
    int code = workload_make_base(run, flags[FLAG_DIR].value);
    if (code != TOOL_OK) {
        return code;
    }
    code = workload_open_csv(&flags[FLAG_CSV], &run->csv);
    if (code == TOOL_OK) {
        code = workload_open_csv(&flags[FLAG_SERIES], &run->series);
    }
    if (code == TOOL_OK) {
        code = workload_run_rows(run);
        code = code == TOOL_OK ? workload_report(run) : code;
    }
    code = workload_close_csv(run->csv, code);
    code = workload_close_csv(run->series, code);
    workload_clean_up(run);
    return code;
}

int
tool_workload(struct tool *tool)
{
    static struct workload_run run; /* large; the process has one */
    struct tool_flag flags[FLAGS] = {
        [FLAG_LIST] = {.name = "--list"},
        [FLAG_PRESET] = {.name = "--preset", .takes_value = true},
        [FLAG_DURATION] = {.name = "--duration", .takes_value = true},
        [FLAG_TIME_SCALE] = {.name = "--time-scale", .takes_value = true},
        [FLAG_WRITERS] = {.name = "--writers", .takes_value = true},
        [FLAG_WRITER_RATE] = {.name = "--writer-rate", .takes_value = true},
        [FLAG_READERS] = {.name = "--readers", .takes_value = true},
        [FLAG_READER_RATE] = {.name = "--reader-rate", .takes_value = true},
        [FLAG_RANDOM_WRITERS] = {.name = "--random-writers", .takes_value = true},
        [FLAG_RANDOM_RATE] = {.name = "--random-rate", .takes_value = true},
        [FLAG_COMPACTORS] = {.name = "--compactors", .takes_value = true},
        [FLAG_COMPACTOR_RATE] = {.name = "--compactor-rate", .takes_value = true},
        [FLAG_COMPACTOR_SLEEP] = {.name = "--compactor-sleep", .takes_value = true},
        [FLAG_COMPACTOR_READS] = {.name = "--compactor-reads", .takes_value = true},
        [FLAG_POOL] = {.name = "--pool", .takes_value = true},
        [FLAG_OVERLAP] = {.name = "--overlap", .takes_value = true},
        [FLAG_DELETE_RATIO] = {.name = "--delete-ratio", .takes_value = true},
        [FLAG_SHAPE] = {.name = "--shape", .takes_value = true},
        [FLAG_VALUE_BYTES] = {.name = "--value-bytes", .takes_value = true},
        [FLAG_RETRIES] = {.name = "--retries", .takes_value = true},
        [FLAG_OPS] = {.name = "--ops", .takes_value = true},
        [FLAG_SEED] = {.name = "--seed", .takes_value = true},
        [FLAG_CHAOS] = {.name = "--chaos", .takes_value = true},
        [FLAG_INJECT] = {.name = "--inject", .takes_value = true},
        [FLAG_NO_VERIFY] = {.name = "--no-verify"},
        [FLAG_CSV] = {.name = "--csv", .takes_value = true},
        [FLAG_SERIES] = {.name = "--series", .takes_value = true},
        [FLAG_JOBS] = {.name = "--jobs", .takes_value = true},
        [FLAG_DIR] = {.name = "--dir", .takes_value = true},
        [FLAG_KEEP] = {.name = "--keep"},
    };
    uint64_t jobs = 1;
    int code = tool_parse(tool, flags, FLAGS, 0, 0);
    if (code == TOOL_OK && flags[FLAG_LIST].given) {
        return workload_list();
    }
    if (code == TOOL_OK && flags[FLAG_JOBS].given &&
        (!tool_number(flags[FLAG_JOBS].value, &jobs) || jobs == 0 || jobs > WORKLOAD_JOBS_MAX)) {
        code = tool_usage(tool, "--jobs is from 1 to %d", WORKLOAD_JOBS_MAX);
    }
    run.jobs = (uint32_t)jobs;
    run.keep = flags[FLAG_KEEP].given;
    esker_options_init(&run.options);
    if (code == TOOL_OK) {
        code = tool_options(tool, &run.options);
    }
    if (code == TOOL_OK) {
        code = workload_set_rows(tool, flags, &run);
    }
    return code == TOOL_OK ? workload_run_plan(&run, flags) : code;
}
