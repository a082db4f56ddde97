/* SPDX-License-Identifier: MIT */
/* stats, verify, repair and compact. */
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/text_out.h"
#include "tools/text_units.h"
#include "tools/tool.h"

int
tool_stats(struct tool *tool)
{
    struct tool_flag flags[] = {{.name = "--json"}, {.name = "--prometheus"}};
    esker_db *db = NULL;
    char *text = NULL;
    int code = tool_parse(tool, flags, COUNTOF(flags), 1, 1);
    if (code != TOOL_OK) {
        return code;
    }
    if (flags[0].given && flags[1].given) {
        return tool_usage(tool, "--json and --prometheus exclude each other");
    }
    int format = flags[0].given   ? ESKER_STATS_JSON
                 : flags[1].given ? ESKER_STATS_PROMETHEUS
                                  : ESKER_STATS_TEXT;
    code = tool_open(tool, false, &db);
    if (code != TOOL_OK) {
        return code;
    }
    if (esker_stats_text(db, format, &text) == ESKER_OK) {
        struct text_out out;
        size_t len = strlen(text);
        text_out_init(&out, STDOUT_FILENO);
        text_out_bytes(&out, text, len);
        if (len > 0 && text[len - 1] != '\n') {
            text_out_bytes(&out, "\n", 1);
        }
        code = text_out_finish(&out, TOOL_OK);
        esker_free(text);
    } else {
        code = tool_fail();
    }
    return tool_close(db, code);
}

/* ---- verify ---------------------------------------------------------------- */

struct upkeep_verify {
    struct text_out out;
    uint64_t findings;
};

static int
upkeep_finding(void *ctx, const esker_error *finding)
{
    struct upkeep_verify *verify = ctx;
    verify->findings++;
    text_out_print(&verify->out, "%s at byte %llu: %s\n", finding->file[0] != 0 ? finding->file : "?",
                   (unsigned long long)finding->offset, finding->message);
    return text_out_alive(&verify->out) ? 0 : 1;
}

int
tool_verify(struct tool *tool)
{
    struct upkeep_verify verify = {0};
    int code = tool_parse(tool, NULL, 0, 1, 1);
    if (code != TOOL_OK) {
        return code;
    }
    struct stat info;
    if (stat(tool->words[0], &info) != 0) {
        return tool_say_missing(tool->words[0]);
    }
    text_out_init(&verify.out, STDOUT_FILENO);
    uint64_t started = tool_now_ns();
    esker_status status = esker_verify(tool->words[0], upkeep_finding, &verify);
    if (status == ESKER_OK) {
        char time[TEXT_UNIT_BYTES];
        text_out_print(&verify.out, "%s: every byte was read, nothing is damaged (%s)\n", tool->words[0],
                       text_duration(tool_now_ns() - started, time));
    } else if (verify.findings > 0) {
        text_out_print(&verify.out, "%s: %llu finding%s\n", tool->words[0],
                       (unsigned long long)verify.findings, verify.findings == 1 ? "" : "s");
        code = TOOL_FAILED;
    } else {
        (void)tool_fail();
        code = TOOL_FAILED;
    }
    return text_out_finish(&verify.out, code);
}

/* ---- repair ---------------------------------------------------------------- */

static void
upkeep_sentence(void *ctx, const char *sentence)
{
    text_out_print(ctx, "%s\n", sentence);
}

int
tool_repair(struct tool *tool)
{
    struct text_out out;
    struct stat info;
    int code = tool_parse(tool, NULL, 0, 1, 1);
    if (code != TOOL_OK) {
        return code;
    }
    if (stat(tool->words[0], &info) != 0) {
        return tool_say_missing(tool->words[0]);
    }
    text_out_init(&out, STDOUT_FILENO);
    if (esker_repair(tool->words[0], upkeep_sentence, &out) != ESKER_OK) {
        code = tool_fail();
    }
    return text_out_finish(&out, code);
}

/* ---- compact --------------------------------------------------------------- */

static void
upkeep_say_segments(esker_db *db, const char *when)
{
    esker_stats stats;
    char size[TEXT_UNIT_BYTES];
    esker_stats_init(&stats);
    if (isatty(STDERR_FILENO) == 1 && esker_get_stats(db, &stats) == ESKER_OK) {
        (void)fprintf(stderr, "%s: %llu segments, %s\n", when, (unsigned long long)stats.segments,
                      text_bytes(stats.segment_bytes, size));
    }
}

/* On an engine thread; one line that keeps up. */
static void
upkeep_merge_event(void *ctx, const esker_event *event)
{
    (void)ctx;
    if (event->kind == ESKER_EVENT_PROGRESS && event->bytes_total > 0) {
        (void)fprintf(stderr, "\r\033[Kmerging: %llu %%",
                      (unsigned long long)(event->bytes * 100 / event->bytes_total));
        (void)fflush(stderr);
    } else if (event->kind == ESKER_EVENT_COMPACTION) {
        (void)fprintf(stderr, "\r\033[K");
        (void)fflush(stderr);
    }
}

int
tool_compact(struct tool *tool)
{
    esker_db *db = NULL;
    int code = tool_parse(tool, NULL, 0, 1, 1);
    if (isatty(STDERR_FILENO) == 1) {
        tool->on_event = upkeep_merge_event;
    }
    if (code == TOOL_OK) {
        code = tool_open(tool, false, &db);
    }
    if (code != TOOL_OK) {
        return code;
    }
    upkeep_say_segments(db, "before");
    code = esker_compact(db, NULL, NULL) == ESKER_OK ? TOOL_OK : tool_fail();
    upkeep_say_segments(db, "after");
    return tool_close(db, code);
}
