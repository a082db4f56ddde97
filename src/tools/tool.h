/* SPDX-License-Identifier: MIT */
/*
 * The command-line tool: what its commands share. One command is one function
 * from words to an exit code; it opens the database, does its work through the
 * public interface and closes it again. (`inspect` alone looks below that
 * interface, since what it is for is files that do not open.)
 *
 * Exit codes: 0 done; 1 no such key; 2 the command line is wrong; 3 the disk,
 * the input or the database is. For 2 and 3 there is one line on stderr.
 */
#ifndef ESKER_TOOLS_TOOL_H
#define ESKER_TOOLS_TOOL_H

#include <stdbool.h>

#include "base/buf.h"
#include "esker/esker.h"

enum tool_exit { TOOL_OK = 0, TOOL_NEGATIVE = 1, TOOL_USAGE = 2, TOOL_FAILED = 3 };

enum { TOOL_OPTION_TEXTS_MAX = 8, TOOL_WORDS_MAX = 4 };

/* One run of the tool. Owns: nothing; borrows argv. */
struct tool {
    const char *command;                             /* its name, for messages */
    const char *synopsis;                            /* its line of usage */
    const char *option_texts[TOOL_OPTION_TEXTS_MAX]; /* of each -o, in order */
    int option_text_count;
    char **rest; /* what follows the command's name */
    int rest_count;
    const char *words[TOOL_WORDS_MAX]; /* after tool_parse: what is no flag */
    int word_count;
    esker_event_fn *on_event; /* nullable; for tool_open */
    void *event_ctx;
};

struct tool_flag {
    const char *name; /* "--limit" */
    bool takes_value;
    bool given;
    const char *value;
};

/* Sorts tool->rest into flags and words; "--" ends the flags, "-" is a word.
 * Returns TOOL_OK or, after saying what is wrong, TOOL_USAGE. */
int tool_parse(struct tool *tool, struct tool_flag *flags, size_t flag_count, int words_min, int words_max);

/* Says one line and returns TOOL_USAGE. */
int tool_usage(const struct tool *tool, const char *format, ...) PRINTF_LIKE(2, 3);
/* Says esker_last_error() in one line and returns the exit code that fits. */
int tool_fail(void);
/* The same line, without an exit code. */
void tool_say_error(const esker_error *error);
/* Says one line of the tool's own. */
void tool_say(const char *format, ...) PRINTF_LIKE(1, 2);

/* Decimal digits, nothing else. */
bool tool_number(const char *text, uint64_t *out);
uint64_t tool_now_ns(void);

/* Defaults, then each -o. Returns an exit code. */
int tool_options(const struct tool *tool, esker_options *out);
/* A command that only looks must not leave a directory behind, and a wrong path
 * is not a wrong command line: so this is asked before the database is. Says
 * what is wrong and returns TOOL_FAILED when no database is there. */
int tool_say_missing(const char *path);
/* Opens words[0]. create: a missing database is made (unless -o says no);
 * otherwise it is a failure and nothing is written. Returns an exit code. */
int tool_open(const struct tool *tool, bool create, esker_db **out);
/* Closes; a failure to do so becomes the exit code if there was none before. */
int tool_close(esker_db *db, int code);

/* ---- The commands ---------------------------------------------------------- */

int tool_put(struct tool *tool);
int tool_get(struct tool *tool);
int tool_del(struct tool *tool);
int tool_scan(struct tool *tool);
int tool_dump(struct tool *tool);
int tool_load(struct tool *tool);
int tool_stats(struct tool *tool);
int tool_verify(struct tool *tool);
int tool_repair(struct tool *tool);
int tool_compact(struct tool *tool);
int tool_inspect(struct tool *tool);
int tool_explain(struct tool *tool);
int tool_demo(struct tool *tool);
int tool_bench(struct tool *tool);
int tool_workload(struct tool *tool);
int tool_plot(struct tool *tool);
/* What `demo` runs in a process of its own; not for people. */
int tool_demo_child(struct tool *tool);

#endif
