/* SPDX-License-Identifier: MIT */
/* Reads the words, runs rounds of interleaved cells, shows and saves what came out. */
#include "tools/bench_command.h"

#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "tools/bench_score.h"
#include "tools/bench_work.h"

enum { COMMAND_OK = 0, COMMAND_BAD_ANSWERS = 1, COMMAND_USAGE = 2, COMMAND_FAILED = 3 };

enum { COMMAND_WORKLOADS_MAX = 128 };

struct command {
    struct bench_cells cells;
    struct bench_board board;
    const struct bench_engine *engines[BENCH_ENGINES_MAX];
    uint32_t chosen[COMMAND_WORKLOADS_MAX];
    uint32_t chosen_count;
    const char *engine_words, *workload_words; /* nullable: as the suite says */
    const char *parent, *out;                  /* out nullable: nothing is saved */
    uint32_t cost_max;
    uint32_t rounds;
    double minutes; /* 0: no limit */
    bool keep, quiet;
    double group_seconds[COMMAND_WORKLOADS_MAX]; /* how long each workload took last time */
};

static void
command_usage(const char *name)
{
    fprintf(stderr,
            "usage: %s [--quick | --smoke] [OPTIONS]\n"
            "       %s --list\n"
            "       %s diff A.json B.json [--threshold PERCENT]\n"
            "  --workloads A,B-*    only these (shell patterns)\n"
            "  --engines A,B        only these\n"
            "  --records N          loaded records (1000000)\n"
            "  --value-size N       bytes per value (100)\n"
            "  --seconds S          of workloads that run for a time (1.5)\n"
            "  --ops N              the same for so many operations instead\n"
            "  --rounds N           (3)\n"
            "  --minutes M          begin no group of cells that would end later than that\n"
            "  --threads N          of ycsb (2)\n"
            "  --cold PERCENT       budget of the cold workloads, of the data (5)\n"
            "  --keep-caches        cold workloads do not drop the page cache\n"
            "  --cgroup DIR         each cell joins this cgroup\n"
            "  --esker-options TEXT as for esker -o\n"
            "  --seed N             (1)\n"
            "  --dir DIR            where databases are made ($TMPDIR or /tmp)\n"
            "  --out DIR            writes results.json, results.csv and hgrm/ there\n"
            "  --no-fork            one cell in this process, for profilers\n"
            "  --keep               leave the databases\n"
            "--quick: 100,000 records, the chief workloads, under two minutes.\n"
            "--smoke: a few records, every workload, answers checked; no figure means anything.\n",
            name, name, name);
}

/* ---- Words ------------------------------------------------------------------------ */

static bool
command_number(const char *text, double most, double *out)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (errno != 0 || end == text || *end != 0 || !(value >= 0.0) || value > most) {
        return false;
    }
    *out = value;
    return true;
}

static void
command_suite(struct command *command, const char *word)
{
    struct bench_config *config = &command->cells.config;
    if (strcmp(word, "--quick") == 0) {
        config->records = 100000;
        config->phase_ns = 150000000;
        config->recovery_scale = 1 << 17;
        command->rounds = 2;
        command->cost_max = 0;
        command->minutes = 1.8;
    } else {
        config->records = 2000;
        config->phase_ns = 10000000;
        config->recovery_scale = 1 << 12;
        config->snapshot_scale = 50;
        config->settle = false;
        command->rounds = 1;
        command->cost_max = 1;
    }
}

/* A word that takes a number. Returns false when there is no such word. */
static bool
command_apply_number(struct command *command, const char *word, double value)
{
    struct bench_config *config = &command->cells.config;
    if (strcmp(word, "--records") == 0) {
        config->records = MAX((uint64_t)value, 100u);
    } else if (strcmp(word, "--value-size") == 0) {
        uint32_t size = (uint32_t)MIN(value, (double)BENCH_VALUE_BYTES_MAX);
        config->value_bytes = MAX(size, (uint32_t)BENCH_VALUE_BYTES_MIN);
    } else if (strcmp(word, "--seconds") == 0) {
        config->phase_ns = (uint64_t)(value * 1e9);
    } else if (strcmp(word, "--ops") == 0) {
        config->ops = (uint64_t)value;
    } else if (strcmp(word, "--rounds") == 0) {
        command->rounds = MIN(MAX((uint32_t)value, 1u), (uint32_t)BENCH_ROUNDS_MAX);
    } else if (strcmp(word, "--minutes") == 0) {
        command->minutes = value;
    } else if (strcmp(word, "--threads") == 0) {
        config->threads = MIN(MAX((uint32_t)value, 1u), 32u);
    } else if (strcmp(word, "--cold") == 0) {
        config->cold_percent = MIN(MAX((uint32_t)value, 1u), 100u);
    } else if (strcmp(word, "--seed") == 0) {
        config->seed = (uint64_t)value;
    } else {
        return false;
    }
    return true;
}

static bool
command_apply_text(struct command *command, const char *word, const char *text)
{
    if (strcmp(word, "--workloads") == 0) {
        command->workload_words = text;
        command->cost_max = UINT32_MAX;
    } else if (strcmp(word, "--engines") == 0) {
        command->engine_words = text;
    } else if (strcmp(word, "--dir") == 0) {
        command->parent = text;
    } else if (strcmp(word, "--out") == 0) {
        command->out = text;
    } else if (strcmp(word, "--esker-options") == 0) {
        bench_engine_esker_options = text;
    } else if (strcmp(word, "--cgroup") == 0) {
        (void)snprintf(command->cells.cgroup, sizeof command->cells.cgroup, "%s", text);
    } else {
        return false;
    }
    return true;
}

static bool
command_apply_flag(struct command *command, const char *word)
{
    if (strcmp(word, "--quick") == 0 || strcmp(word, "--smoke") == 0) {
        return true; /* before all others: see command_parse */
    }
    if (strcmp(word, "--keep-caches") == 0) {
        command->cells.config.drop_caches = false;
    } else if (strcmp(word, "--no-fork") == 0) {
        command->cells.no_fork = true;
    } else if (strcmp(word, "--keep") == 0) {
        command->keep = true;
    } else {
        return false;
    }
    return true;
}

static int
command_parse(struct command *command, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--quick") == 0 || strcmp(argv[i], "--smoke") == 0) {
            command_suite(command, argv[i]);
        }
    }
    for (int i = 1; i < argc; i++) {
        double value;
        if (command_apply_flag(command, argv[i])) {
            continue;
        }
        if (i + 1 < argc && command_apply_text(command, argv[i], argv[i + 1])) {
            i++;
            continue;
        }
        if (i + 1 < argc && command_number(argv[i + 1], 1e15, &value) &&
            command_apply_number(command, argv[i], value)) {
            i++;
            continue;
        }
        fprintf(stderr, "esker: '%s' is not understood here\n", argv[i]);
        command_usage(argv[0]);
        return COMMAND_USAGE;
    }
    return COMMAND_OK;
}

/* Is name one of the patterns between commas? */
static bool
command_listed(const char *words, const char *name)
{
    while (*words != 0) {
        char word[64];
        size_t len = strcspn(words, ",");
        (void)snprintf(word, sizeof word, "%.*s", (int)MIN(len, sizeof word - 1), words);
        if (fnmatch(word, name, 0) == 0) {
            return true;
        }
        words += len + (words[len] == ',' ? 1 : 0);
    }
    return false;
}

static int
command_choose(struct command *command, const struct bench_engine *const *engines, uint32_t engine_count)
{
    for (uint32_t i = 0; i < engine_count && command->cells.engine_count < BENCH_ENGINES_MAX; i++) {
        if (command->engine_words == NULL || command_listed(command->engine_words, engines[i]->name)) {
            command->engines[command->cells.engine_count++] = engines[i];
        }
    }
    for (uint32_t i = 0; i < bench_workload_count; i++) {
        const struct bench_workload *workload = &bench_workloads[i];
        if (command->workload_words == NULL ? workload->cost <= command->cost_max
                                            : command_listed(command->workload_words, workload->name)) {
            command->chosen[command->chosen_count++] = i;
        }
    }
    if (command->cells.engine_count == 0 || command->chosen_count == 0) {
        fprintf(stderr, "esker: no such %s; --list shows them\n",
                command->cells.engine_count == 0 ? "engine" : "workload");
        return COMMAND_USAGE;
    }
    if (command->cells.no_fork && (command->cells.engine_count > 1 || command->chosen_count > 1)) {
        fprintf(stderr, "esker: --no-fork runs one workload on one engine\n");
        return COMMAND_USAGE;
    }
    command->cells.engines = command->engines;
    return COMMAND_OK;
}

static int
command_list(const struct bench_engine *const *engines, uint32_t engine_count)
{
    for (uint32_t i = 0; i < engine_count; i++) {
        char version[64];
        engines[i]->version(version, sizeof version);
        printf("engine %-12s %s\n", engines[i]->name, version);
    }
    for (uint32_t i = 0; i < bench_workload_count; i++) {
        printf("%-18s %s\n", bench_workloads[i].name, bench_workloads[i].what);
    }
    return COMMAND_OK;
}

/* ---- Rounds ------------------------------------------------------------------------- */

static void
command_on_signal(int number)
{
    (void)number;
    bench_interrupted = 1;
}

/* One workload on every engine. Each round begins with another engine, so that
 * none is always the first. */
static int
command_group(struct command *command, uint32_t place, uint32_t round)
{
    uint32_t workload = command->chosen[place];
    uint32_t count = command->cells.engine_count;
    uint64_t began = bench_now_ns();
    for (uint32_t i = 0; i < count; i++) {
        uint32_t engine = (i + round) % count;
        if (!command->quiet) {
            fprintf(stderr, "\r\033[Kround %u of %u: %s, %s", round + 1, command->rounds,
                    bench_workloads[workload].name, command->engines[engine]->name);
        }
        bench_cell_run(&command->cells, engine, &bench_workloads[workload], round);
        if (bench_interrupted != 0) {
            fprintf(stderr, "\nesker: interrupted; nothing is saved\n");
            return COMMAND_FAILED;
        }
        const struct bench_result *result = command->cells.result;
        if (result->status == BENCH_CELL_WRONG || result->status == BENCH_CELL_FAILED) {
            fprintf(stderr, "%sesker: %s on %s: %s\n", command->quiet ? "" : "\r\033[K",
                    bench_workloads[workload].name, command->engines[engine]->name, result->reason);
        }
        if (bench_board_add(&command->board, workload, engine, round) != BENCH_OK) {
            fprintf(stderr, "esker: out of memory\n");
            return COMMAND_FAILED;
        }
    }
    command->group_seconds[place] = (double)(bench_now_ns() - began) / 1e9;
    return COMMAND_OK;
}

static int
command_rounds(struct command *command)
{
    uint64_t began = bench_now_ns();
    int code = COMMAND_OK;
    for (uint32_t round = 0; code == COMMAND_OK && round < command->rounds; round++) {
        for (uint32_t i = 0; code == COMMAND_OK && i < command->chosen_count; i++) {
            if (round > 0 && bench_workloads[command->chosen[i]].once && command->workload_words == NULL) {
                continue;
            }
            double passed = (double)(bench_now_ns() - began) / 60e9;
            if (command->minutes > 0.0 && passed + command->group_seconds[i] / 60.0 > command->minutes) {
                continue;
            }
            code = command_group(command, i, round);
        }
    }
    if (!command->quiet) {
        fprintf(stderr, "\r\033[K");
    }
    command->board.wall_seconds = (double)(bench_now_ns() - began) / 1e9;
    return code;
}

static int
command_run(struct command *command, int argc, char **argv)
{
    if (bench_cells_open(&command->cells, command->parent) != BENCH_OK) {
        return COMMAND_FAILED;
    }
    struct bench_board *board = &command->board;
    board->cells = &command->cells;
    board->argc = argc;
    board->argv = argv;
    time_t now = time(NULL);
    struct tm utc;
    (void)strftime(board->started, sizeof board->started, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    bench_machine_read(&board->machine, command->cells.dir);
    /* So that the databases are removed. */
    (void)signal(SIGINT, command_on_signal);
    (void)signal(SIGTERM, command_on_signal);
    int code = command_rounds(command);
    if (code == COMMAND_OK) {
        bench_board_print(board, stdout);
        if (command->out != NULL && bench_board_save(board, command->out) != BENCH_OK) {
            code = COMMAND_FAILED;
        }
    }
    if (code == COMMAND_OK && (board->wrong > 0 || board->failed > 0)) {
        code = COMMAND_BAD_ANSWERS;
    }
    bench_cells_close(&command->cells, command->keep);
    bench_board_fini(board);
    return code;
}

int
bench_command(int argc, char **argv, const struct bench_engine *const *engines, uint32_t engine_count)
{
    if (argc > 1 && strcmp(argv[1], "diff") == 0) {
        return bench_diff_command(argc - 1, argv + 1);
    }
    if (argc > 1 && (strcmp(argv[1], "--list") == 0 || strcmp(argv[1], "--help") == 0)) {
        if (strcmp(argv[1], "--help") == 0) {
            command_usage(argv[0]);
            return COMMAND_OK;
        }
        return command_list(engines, engine_count);
    }
    struct command *command = calloc(1, sizeof *command);
    if (command == NULL) {
        fprintf(stderr, "esker: out of memory\n");
        return COMMAND_FAILED;
    }
    command->cells.config = (struct bench_config){.records = 1000000,
                                                  .value_bytes = 100,
                                                  .phase_ns = 1500000000,
                                                  .seed = 1,
                                                  .threads = 2,
                                                  .cold_percent = 5,
                                                  .recovery_scale = 1 << 20,
                                                  .snapshot_scale = 1,
                                                  .drop_caches = true,
                                                  .settle = true};
    const char *temporary = getenv("TMPDIR");
    command->parent = temporary != NULL && temporary[0] != 0 ? temporary : "/tmp";
    command->rounds = 3;
    command->cost_max = 1;
    command->quiet = isatty(STDERR_FILENO) == 0;
    bench_clock_init();
    int code = command_parse(command, argc, argv);
    if (code == COMMAND_OK) {
        code = command_choose(command, engines, engine_count);
    }
    if (code == COMMAND_OK) {
        code = command_run(command, argc, argv);
    }
    free(command);
    return code;
}
