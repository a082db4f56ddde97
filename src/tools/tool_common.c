/* SPDX-License-Identifier: MIT */
/* What every command does: read its words, open, close, and say what went wrong. */
#include "tools/tool.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "base/status.h"

/* ---- Saying things --------------------------------------------------------- */

/* One write per line, so that lines of several processes do not mix. Control
 * bytes (a hostile file name or key in a message) do not reach the terminal. */
static void
common_say_line(char *line, size_t cap)
{
    size_t len = strnlen(line, cap - 2);
    for (size_t i = 0; i < len; i++) {
        if ((uint8_t)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[len] = '\n';
    (void)fwrite(line, 1, len + 1, stderr);
}

void
tool_say(const char *format, ...)
{
    char line[1024] = "esker: ";
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line + 7, sizeof line - 7, format, args);
    va_end(args);
    common_say_line(line, sizeof line);
}

void
tool_say_error(const esker_error *error)
{
    if (error->file[0] == 0) {
        tool_say("%s", error->message);
    } else if (error->offset == 0 && (error->os_errno != 0 || error->status == ESKER_NOT_FOUND)) {
        tool_say("%s (%s)", error->message, error->file);
    } else {
        tool_say("%s (%s at byte %llu)", error->message, error->file, (unsigned long long)error->offset);
    }
}

int
tool_fail(void)
{
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    tool_say_error(&error);
    bool callers = error.status == ESKER_INVALID || error.status == ESKER_TOO_LARGE;
    return callers ? TOOL_USAGE : TOOL_FAILED;
}

int
tool_usage(const struct tool *tool, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (tool->synopsis != NULL) {
        tool_say("%s; usage: esker %s", text, tool->synopsis);
    } else {
        tool_say("%s; `esker help` lists the commands", text);
    }
    return TOOL_USAGE;
}

/* ---- Words and flags ------------------------------------------------------- */

bool
tool_number(const char *text, uint64_t *out)
{
    if (*text < '0' || *text > '9') {
        return false; /* strtoull would take a sign or spaces */
    }
    char *end = NULL;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *end != 0) {
        return false;
    }
    *out = value;
    return true;
}

uint64_t
tool_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

/* "--name" or "--name=value"; *value_out is what follows the sign. */
static struct tool_flag *
common_find_flag(struct tool_flag *flags, size_t count, const char *word, const char **value_out)
{
    const char *equals = strchr(word, '=');
    size_t len = equals != NULL ? (size_t)(equals - word) : strlen(word);
    *value_out = equals != NULL ? equals + 1 : NULL;
    for (size_t i = 0; i < count; i++) {
        if (strlen(flags[i].name) == len && memcmp(flags[i].name, word, len) == 0) {
            return &flags[i];
        }
    }
    return NULL;
}

/* The value of the flag at *at: behind its sign, or the next word. */
static bool
common_take_value(const struct tool *tool, int *at, const char **value)
{
    if (*value != NULL) {
        return true;
    }
    if (*at + 1 >= tool->rest_count) {
        return false;
    }
    *value = tool->rest[++*at];
    return true;
}

static int
common_take_flag(struct tool *tool, struct tool_flag *flags, size_t flag_count, int *at)
{
    const char *word = tool->rest[*at];
    const char *value = NULL;
    if (strcmp(word, "-o") == 0) {
        if (!common_take_value(tool, at, &value)) {
            return tool_usage(tool, "-o needs its OPTIONS");
        }
        if (tool->option_text_count == TOOL_OPTION_TEXTS_MAX) {
            return tool_usage(tool, "-o was given more than %d times", TOOL_OPTION_TEXTS_MAX);
        }
        tool->option_texts[tool->option_text_count++] = value;
        return TOOL_OK;
    }
    struct tool_flag *flag = common_find_flag(flags, flag_count, word, &value);
    if (flag == NULL) {
        return tool_usage(tool, "%s is not understood (a word that begins with - goes behind --)", word);
    }
    if (flag->given) {
        return tool_usage(tool, "%s was given twice", flag->name);
    }
    if (!flag->takes_value && value != NULL) {
        return tool_usage(tool, "%s takes no value", flag->name);
    }
    if (flag->takes_value && !common_take_value(tool, at, &value)) {
        return tool_usage(tool, "%s needs a value", flag->name);
    }
    flag->given = true;
    flag->value = value;
    return TOOL_OK;
}

int
tool_parse(struct tool *tool, struct tool_flag *flags, size_t flag_count, int words_min, int words_max)
{
    bool flags_ended = false;
    for (int at = 0; at < tool->rest_count; at++) {
        const char *word = tool->rest[at];
        if (!flags_ended && strcmp(word, "--") == 0) {
            flags_ended = true;
        } else if (!flags_ended && word[0] == '-' && word[1] != 0) {
            int code = common_take_flag(tool, flags, flag_count, &at);
            if (code != TOOL_OK) {
                return code;
            }
        } else if (tool->word_count < words_max) {
            tool->words[tool->word_count++] = word;
        } else {
            return tool_usage(tool, "%s is one word too many", word);
        }
    }
    if (tool->word_count < words_min) {
        return tool_usage(tool, "%s needs more words", tool->command);
    }
    return TOOL_OK;
}

/* ---- Open and close -------------------------------------------------------- */

int
tool_options(const struct tool *tool, esker_options *out)
{
    for (int i = 0; i < tool->option_text_count; i++) {
        if (esker_options_parse(out, tool->option_texts[i]) != ESKER_OK) {
            (void)tool_fail();
            return TOOL_USAGE;
        }
    }
    return TOOL_OK;
}

/* The first finding is the story. */
static int
common_keep_finding(void *ctx, const esker_error *finding)
{
    *(esker_error *)ctx = *finding;
    return 1;
}

int
tool_say_missing(const char *path)
{
    char current[4096];
    struct stat info;
    int used = snprintf(current, sizeof current, "%s/CURRENT", path);
    if (used < 0 || (size_t)used >= sizeof current ||
        (stat(path, &info) != 0 && errno != ENOENT && errno != ENOTDIR)) {
        tool_say("%s: %s", path, strerrordesc_np((size_t)used >= sizeof current ? ENAMETOOLONG : errno));
        return TOOL_FAILED;
    }
    if (stat(current, &info) == 0 || errno != ENOENT) {
        return TOOL_OK;
    }
    esker_error finding = {0};
    if (esker_verify(path, common_keep_finding, &finding) == ESKER_CORRUPT) {
        tool_say_error(&finding); /* its files are there without CURRENT */
    } else {
        tool_say("there is no database in %s", path);
    }
    return TOOL_FAILED;
}

int
tool_open(const struct tool *tool, bool create, esker_db **out)
{
    const char *path = tool->words[0];
    esker_options options;
    esker_options_init(&options);
    options.create_if_missing = create;
    options.on_event = tool->on_event;
    options.event_ctx = tool->event_ctx;
    int code = tool_options(tool, &options);
    if (code != TOOL_OK) {
        return code;
    }
    if (!options.create_if_missing && *path != 0) {
        code = tool_say_missing(path);
        if (code != TOOL_OK) {
            return code;
        }
    }
    return esker_open(path, &options, out) == ESKER_OK ? TOOL_OK : tool_fail();
}

int
tool_close(esker_db *db, int code)
{
    if (esker_close(db) != ESKER_OK) {
        int close_code = tool_fail();
        return code == TOOL_OK ? close_code : code;
    }
    return code;
}
