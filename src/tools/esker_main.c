/* SPDX-License-Identifier: MIT */
/* The command-line tool's front door: which word is which command, and help. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tools/text_out.h"
#include "tools/tool.h"

struct main_command {
    const char *name;
    int (*run)(struct tool *tool);
    const char *synopsis;
    const char *summary; /* one line; NULL: not for people */
    const char *details; /* further lines, each ended; nullable */
};

static const struct main_command main_commands[] = {
    {"put", tool_put, "put DB KEY [VALUE] [--ttl TIME]",
     "store a value; without VALUE it is read from standard input",
     "--ttl 1500ms, 90s, 15m, 12h or 7d: how long it lives. -o ttl=TIME is the same for every write.\n"},
    {"get", tool_get, "get DB KEY", "print a key's value as it is",
     "Exit code 1 when there is no such key.\n"},
    {"del", tool_del, "del DB KEY", "delete a key; one that is not there is no failure", NULL},
    {"scan", tool_scan, "scan DB [--from K] [--to K] [--prefix P] [--reverse] [--limit N] [--keys-only]",
     "print rows in key order, one line each",
     "A line is key, tab, value; tabs, newlines, backslashes, control bytes and\n"
     "bytes that are not UTF-8 are escaped as \\t \\n \\r \\\\ \\xHH. --to is exclusive.\n"},
    {"load", tool_load, "load DB [--format tsv|jsonl|deb822] [FILE]",
     "store the records of FILE or standard input",
     "tsv: key, tab, value, with the escapes of scan. jsonl: {\"key\": ..., \"value\": ...},\n"
     "or key_b64 and value_b64, and \"expires_ms\": N, milliseconds since 1970, where a row expires.\n"
     "deb822: Debian's Packages and status files; the key is\n"
     "Package/Version/Architecture and the value the stanza. Without --format the\n"
     "file's name decides (.jsonl, Packages), else tsv. At a bad record load stops;\n"
     "what came before it is stored.\n"},
    {"dump", tool_dump, "dump DB [--format tsv|jsonl]", "print every row so that load brings it back", NULL},
    {"stats", tool_stats, "stats DB [--json|--prometheus]", "print what the engine counts", NULL},
    {"verify", tool_verify, "verify DB", "read every byte of a closed database and name what is damaged",
     "Writes nothing. Exit code 3 when something is damaged.\n"},
    {"repair", tool_repair, "repair DB", "make a damaged database one that opens, and say what was lost",
     "Keeps every row that a checksum proves; whole segments stay as they are. Each file\n"
     "that is replaced is first copied to NAME.lost beside it; nothing removes those\n"
     "copies but you. A database that is not damaged is not touched.\n"},
    {"compact", tool_compact, "compact DB", "merge everything into the last level", NULL},
    {"inspect", tool_inspect, "inspect FILE|DIRECTORY [--rows]",
     "print what is in a file of a database, or list a directory",
     "Knows CURRENT, manifests, logs and segments, and says where they are damaged.\n"
     "--rows prints every entry and row too. Exit code 3 when something is damaged.\n"},
    {"explain", tool_explain, "explain config [OPTIONS]", "say what the engine derives from options",
     "OPTIONS as for -o, for example 'memory=64M'.\n"},
    {"demo", tool_demo, "demo [--dir DIR] [--keep]",
     "load this machine's package index, kill the loader, prove that nothing is lost",
     "The database is made in a new directory under $TMPDIR or /var/tmp, or in DIR, and\n"
     "removed at the end unless --keep is given. Exit code 0 only if every check held.\n"},
    {"bench", tool_bench, "bench [--quick|--smoke] [OPTIONS] | bench diff A.json B.json",
     "measure this machine with the engine's own workloads; compare two results",
     "`esker bench --list` names the workloads, an unknown option prints all options.\n"
     "diff: exit code 1 when B is slower than A somewhere, by more than --threshold 5 %.\n"},
    {"workload", tool_workload, "workload [--preset NAME] [OPTIONS] | workload --list",
     "drive a database with clients in roles at given rates and verify all they did",
     "Roles: --writers N, --random-writers N, --compactors N, --readers N, each with a rate:\n"
     "--writer-rate, --random-rate, --compactor-rate, --reader-rate (per client and second, 0:\n"
     "as fast as it can). --compactor-sleep S, --compactor-reads N, --pool KEYS, --overlap X,\n"
     "--delete-ratio X, --value-bytes N, --retries N, --ops N, --seed N, --shape\n"
     "steady|ramp|burst, --duration S, --time-scale X: the plan's times divided by X, its rates\n"
     "multiplied. Results: --csv FILE, --series FILE (latency over time), both for `esker plot`.\n"
     "--jobs N rows at a time; --dir DIR for the databases, --keep keeps them.\n"
     "--chaos cpu=4@80,stop=3x10,kill=2 or slow=200,fail=3 (a simulated disk, durability sync):\n"
     "hogs, SIGSTOP, SIGKILL and reopen, late and failing I/O. Exit code 1 when a property does\n"
     "not hold (--no-verify: none is looked at); --inject MISTAKE shows that they can fail.\n"},
    {"plot", tool_plot, "plot FILE... [--out FILE] [--title TEXT]",
     "draw the results of workload or bench: SVG, PNG or one HTML page",
     "FILE: what workload --csv or --series wrote, or results.csv of bench. --out chart.svg,\n"
     "chart.png or report.html; by default FILE with .svg, or report.html of several. An SVG or\n"
     "PNG holds the first chart of one file. Needs gnuplot (Debian: gnuplot-nox).\n"},
    {"demo-child", tool_demo_child, "demo-child DIR", NULL, NULL},
    {"help", NULL, "help [COMMAND]", "this text, or more about a command", NULL},
};

static void
main_help(struct text_out *out)
{
    text_out_print(
        out, "esker %s: an embedded, ordered key-value store\n\nusage: esker [-o OPTIONS] COMMAND ...\n\n",
        ESKER_VERSION_STRING);
    for (size_t i = 0; i < COUNTOF(main_commands); i++) {
        if (main_commands[i].summary != NULL) {
            text_out_print(out, "  %s\n        %s\n", main_commands[i].synopsis, main_commands[i].summary);
        }
    }
    text_out_print(out,
                   "\n-o OPTIONS goes to the database, for example"
                   " -o 'memory=64M;durability=sync;compression=zstd;io=posix'.\n"
                   "Exit codes: 0 done, 1 no such key, 2 wrong command line, 3 I/O failure or damage.\n");
}

static const struct main_command *
main_find(const char *name)
{
    for (size_t i = 0; i < COUNTOF(main_commands); i++) {
        if (strcmp(main_commands[i].name, name) == 0) {
            return &main_commands[i];
        }
    }
    return NULL;
}

static int
main_run_help(const char *name)
{
    struct text_out out;
    text_out_init(&out, 1);
    const struct main_command *command = name != NULL ? main_find(name) : NULL;
    if (command != NULL && command->summary != NULL) {
        text_out_print(&out, "usage: esker %s\n\n%s.\n%s", command->synopsis, command->summary,
                       command->details != NULL ? command->details : "");
    } else if (name == NULL) {
        main_help(&out);
    } else {
        tool_say("there is no command %s", name);
        return text_out_finish(&out, TOOL_USAGE);
    }
    return text_out_finish(&out, TOOL_OK);
}

static int
main_version(void)
{
    struct text_out out;
    text_out_init(&out, 1);
    text_out_print(&out, "esker %s\n", ESKER_VERSION_STRING);
    return text_out_finish(&out, TOOL_OK);
}

static int
main_run(struct tool *tool, const struct main_command *command)
{
    for (int i = 0; i < tool->rest_count && strcmp(tool->rest[i], "--") != 0; i++) {
        if (strcmp(tool->rest[i], "--help") == 0) {
            return main_run_help(command->name);
        }
    }
    tool->command = command->name;
    tool->synopsis = command->synopsis;
    return command->run(tool);
}

int
main(int argc, char **argv)
{
    struct tool tool = {0};
    int at = 1;
    /* A reader that went away is met as EPIPE, so that the database is closed in order. */
    (void)signal(SIGPIPE, SIG_IGN);
    while (at < argc && strcmp(argv[at], "-o") == 0) {
        if (at + 1 >= argc || tool.option_text_count == TOOL_OPTION_TEXTS_MAX) {
            return tool_usage(&tool, "-o needs OPTIONS, and at most %d of them", TOOL_OPTION_TEXTS_MAX);
        }
        tool.option_texts[tool.option_text_count++] = argv[at + 1];
        at += 2;
    }
    if (at >= argc) {
        return tool_usage(&tool, "no command was given");
    }
    const char *name = argv[at];
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) {
        return main_run_help(at + 1 < argc ? argv[at + 1] : NULL);
    }
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0) {
        return main_version();
    }
    const struct main_command *command = main_find(name);
    if (command == NULL) {
        return tool_usage(&tool, "there is no command %s", name);
    }
    tool.rest = argv + at + 1;
    tool.rest_count = argc - at - 1;
    return main_run(&tool, command);
}
