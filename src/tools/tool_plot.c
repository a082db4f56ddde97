/* SPDX-License-Identifier: MIT */
/* `esker plot`: files in, a picture or a page out. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tools/plot.h"
#include "tools/tool.h"

enum { PLOT_PATH_BYTES = 4096 };

static const char *
plot_extension(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(slash != NULL ? slash : path, '.');
    return dot != NULL ? dot : "";
}

/* results.csv -> results.svg */
static void
plot_default_out(const char *path, char out[PLOT_PATH_BYTES])
{
    size_t len = strlen(path) - strlen(plot_extension(path));
    (void)snprintf(out, PLOT_PATH_BYTES, "%.*s.svg", (int)len, path);
}

static int
plot_save(const char *path, const struct buf *content)
{
    FILE *file = fopen(path, "we");
    bool good = file != NULL && fwrite(content->ptr, 1, content->len, file) == content->len;
    int os_errno = errno;
    if (file != NULL && fclose(file) != 0) {
        os_errno = errno;
        good = false;
    }
    if (!good) {
        tool_say("cannot write %s: %s", path, strerrordesc_np(os_errno));
        return TOOL_FAILED;
    }
    return TOOL_OK;
}

/* The picture of a source's first chart. */
static bool
plot_first(const struct plot_source *source, enum plot_format format, const char *title, struct buf *out)
{
    struct plot_chart *charts = calloc(PLOT_CHARTS_MAX, sizeof *charts);
    bool good = charts != NULL && plot_charts(source, charts) > 0;
    if (!good) {
        tool_say("%s has nothing to draw", source->path);
    }
    good = good && plot_picture(&charts[0], PLOT_WIDE, format, title != NULL ? title : charts[0].title, out);
    free(charts);
    return good;
}

static int
plot_write(const struct tool *tool, const struct plot_source *sources, uint32_t count, const char *path,
           const char *title)
{
    const char *extension = plot_extension(path);
    bool page = strcmp(extension, ".html") == 0;
    bool png = strcmp(extension, ".png") == 0;
    struct buf content;
    if (!page && !png && strcmp(extension, ".svg") != 0) {
        return tool_usage(tool, "--out ends with .svg, .png or .html");
    }
    if (!page && count > 1) {
        return tool_usage(tool, "several files go to a page: --out FILE.html");
    }
    buf_init(&content, &mem_default);
    bool drawn = page ? plot_page(sources, count, title != NULL ? title : "esker results", &content)
                      : plot_first(&sources[0], png ? PLOT_PNG : PLOT_SVG, title, &content);
    int code = drawn ? plot_save(path, &content) : TOOL_FAILED;
    if (code == TOOL_OK) {
        (void)printf("%s\n", path);
    }
    buf_fini(&content);
    return code;
}

int
tool_plot(struct tool *tool)
{
    enum { OUT, TITLE };
    struct tool_flag flags[] = {
        [OUT] = {.name = "--out", .takes_value = true}, [TITLE] = {.name = "--title", .takes_value = true}};
    struct plot_source sources[TOOL_WORDS_MAX];
    char path[PLOT_PATH_BYTES] = "report.html";
    uint32_t count = 0;
    int code = tool_parse(tool, flags, COUNTOF(flags), 1, TOOL_WORDS_MAX);
    for (int i = 0; i < tool->word_count && code == TOOL_OK; i++) {
        if (plot_source_open(&sources[count], tool->words[i])) {
            count++;
        } else {
            code = TOOL_FAILED;
        }
    }
    if (code == TOOL_OK) {
        if (count == 1) {
            plot_default_out(tool->words[0], path);
        }
        code =
            plot_write(tool, sources, count, flags[OUT].given ? flags[OUT].value : path, flags[TITLE].value);
    }
    for (uint32_t i = 0; i < count; i++) {
        plot_source_close(&sources[i]);
    }
    return code;
}
