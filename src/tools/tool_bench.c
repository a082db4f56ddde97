/* SPDX-License-Identifier: MIT */
/* `esker bench`: the benchmark with no engine but this one. */
#include "tools/bench_command.h"
#include "tools/tool.h"

#include <stdlib.h>

int
tool_bench(struct tool *tool)
{
    static const struct bench_engine *const engines[] = {&bench_engine_esker};
    if (tool->option_text_count > 1) {
        return tool_usage(tool, "bench takes one -o");
    }
    if (tool->option_text_count == 1) {
        bench_engine_esker_options = tool->option_texts[0];
    }
    /* The benchmark reads its words as a program of its own would. */
    char **argv = calloc((size_t)tool->rest_count + 2, sizeof *argv);
    if (argv == NULL) {
        tool_say("out of memory");
        return TOOL_FAILED;
    }
    char name[] = "esker bench";
    argv[0] = name;
    memcpy(argv + 1, tool->rest, (size_t)tool->rest_count * sizeof *argv);
    int code = bench_command(tool->rest_count + 1, argv, engines, COUNTOF(engines));
    free(argv);
    return code;
}
