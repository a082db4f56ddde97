/* SPDX-License-Identifier: MIT */
/* explain config: what the engine makes of a memory budget and the other options. */
#include <stdio.h>
#include <unistd.h>

#include "base/status.h"
#include "db/db_explain.h"
#include "tools/text_out.h"
#include "tools/text_units.h"
#include "tools/tool.h"

static const char *
explain_durability(const esker_options *options, char *out, size_t size)
{
    switch (options->durability) {
    case ESKER_DURABLE_MEMORY:
        return "memory: nothing survives until the next flush or sync";
    case ESKER_DURABLE_INTERVAL:
        (void)snprintf(out, size, "interval: survives power loss, but for the last %u ms",
                       options->sync_interval_ms);
        return out;
    case ESKER_DURABLE_SYNC:
        return "sync: survives power loss";
    default:
        return "process: survives the death of the process (kill -9)";
    }
}

static const char *
explain_compression(const esker_options *options)
{
    static const char *const names[] = {"auto: none in level 0, lz4 below", "none", "lz4", "zstd"};
    return names[options->compression];
}

static const char *
explain_io(const esker_options *options)
{
    static const char *const names[] = {"auto: io_uring where it works, else posix",
                                        "io_uring, or posix where it does not work", "posix"};
    return names[options->io_backend];
}

static void
explain_sizes(struct text_out *out, const esker_options *options, const struct db_sizes *sizes)
{
    char text[3][TEXT_UNIT_BYTES];
    text_out_print(out, "memory budget        %s\n", text_memory(options->memory_budget_bytes, text[0]));
    text_out_print(
        out,
        "  counted            %s: blocks have what windows, indexes, filters, iterators and merges leave\n",
        text_memory(sizes->cache_bytes, text[0]));
    text_out_print(out, "  windows            up to %llu at once; each at most %s of it, index included\n",
                   (unsigned long long)sizes->windows_live, text_memory(sizes->window_memory_max, text[0]));
    text_out_print(out, "window               %s of log and memtable at first, doubling with use to %s\n",
                   text_memory(sizes->window_bytes_first, text[0]),
                   text_memory(sizes->window_bytes_max, text[1]));
    text_out_print(out, "segment              about %s\n", text_memory(sizes->segment_bytes, text[0]));
    text_out_print(out, "largest batch        %s\n", text_memory(sizes->batch_bytes_max, text[0]));
}

int
tool_explain(struct tool *tool)
{
    esker_options options;
    struct db_sizes sizes;
    struct text_out out;
    char text[96];
    int code = tool_parse(tool, NULL, 0, 1, 2);
    if (code != TOOL_OK) {
        return code;
    }
    if (strcmp(tool->words[0], "config") != 0) {
        return tool_usage(tool, "%s is nothing that can be explained", tool->words[0]);
    }
    esker_options_init(&options);
    code = tool_options(tool, &options);
    if (code != TOOL_OK) {
        return code;
    }
    if ((tool->word_count == 2 && esker_options_parse(&options, tool->words[1]) != ESKER_OK) ||
        db_explain(&options, &sizes) != ESKER_OK) {
        return tool_fail();
    }
    text_out_init(&out, STDOUT_FILENO);
    explain_sizes(&out, &options, &sizes);
    text_out_print(&out, "durability           %s\n", explain_durability(&options, text, sizeof text));
    text_out_print(&out, "compression          %s\n", explain_compression(&options));
    text_out_print(&out, "i/o                  %s\n", explain_io(&options));
    if (options.background_threads == 0) {
        text_out_print(&out, "background threads   from the machine\n");
    } else {
        text_out_print(&out, "background threads   %u\n", options.background_threads);
    }
    return text_out_finish(&out, TOOL_OK);
}
