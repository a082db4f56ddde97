/* SPDX-License-Identifier: MIT */
/*
 * One HTML page: every chart twice, for wide and for narrow windows, and the
 * figures as tables. It needs nothing from outside and no script.
 */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "tools/plot.h"
#include "tools/text_units.h"

static const char page_style[] =
    ":root{color-scheme:light dark;--paper:#fff;--ink:#1c2430;--soft:#5b6675;--line:#d5dae1;--grid:#dfe3e8;"
    "--good:#1d7a46;--bad:#b3261e}\n"
    "@media (prefers-color-scheme:dark){:root{--paper:#14181e;--ink:#e4e8ee;--soft:#9aa5b3;--line:#343c47;"
    "--grid:#2b323c;--good:#5ecb8d;--bad:#ff8a80}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:1160px;padding:1rem 1rem 3rem;background:var(--paper);color:var(--ink);"
    "font:16px/1.5 system-ui,sans-serif}\n"
    "h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}\n"
    "h2{font-size:1.25rem;margin:2.2rem 0 .3rem;padding-top:.8rem;border-top:1px solid var(--line);"
    "overflow-wrap:anywhere}\n"
    "h3{font-size:1.05rem;margin:1.4rem 0 .2rem}\n"
    "p{margin:.3rem 0;max-width:48rem}\n"
    ".soft,figcaption{color:var(--soft);font-size:.9rem}\n"
    "figure{margin:.8rem 0;break-inside:avoid}\n"
    "figure svg{display:block;width:100%;height:auto;overflow:visible}\n"
    ".narrow{display:none}\n"
    "svg [fill=\"black\"]{fill:var(--ink)}\n"
    "svg [stroke=\"black\"]{stroke:var(--ink)}\n"
    "svg [color=\"black\"]{color:var(--ink)}\n"
    "svg [stroke=\"rgb(204, 204, 204)\"]{stroke:var(--grid)}\n"
    ".scroll{overflow-x:auto;margin:.6rem 0}\n"
    "table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;min-width:100%}\n"
    "caption{text-align:left;color:var(--soft);padding:.2rem 0}\n"
    "th,td{padding:.28rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\n"
    "th{font-weight:600;color:var(--soft)}\n"
    "th:first-child,td:first-child{text-align:left;padding-left:0;position:sticky;left:0;"
    "background:var(--paper)}\n"
    ".pass{color:var(--good);font-weight:600}.fail{color:var(--bad);font-weight:600}\n"
    "@media (max-width:700px){.wide{display:none}.narrow{display:block}}\n"
    "@media print{:root{--paper:#fff;--ink:#000;--soft:#444;--line:#bbb;--grid:#ddd;--good:#060;--bad:#900}"
    "body{max-width:none;padding:0;font-size:11pt}.wide{display:block}.narrow{display:none}"
    ".scroll{overflow:visible}table{font-size:8pt}th,td{padding:.15rem .3rem}tr{break-inside:avoid}"
    "h2,h3{break-after:avoid}}\n";

static bool PRINTF_LIKE(2, 3) page_print(struct buf *out, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return len >= 0 && (size_t)len < sizeof text && buf_append(out, text, (size_t)len) == ESKER_OK;
}

static bool
page_add(struct buf *out, const char *text)
{
    return buf_append(out, text, strlen(text)) == ESKER_OK;
}

bool
plot_html_text(struct buf *out, const char *text)
{
    for (; *text != 0; text++) {
        char c = *text;
        const char *entity = c == '&'   ? "&amp;"
                             : c == '<' ? "&lt;"
                             : c == '>' ? "&gt;"
                             : c == '"' ? "&quot;"
                                        : NULL;
        bool control = (uint8_t)c < 0x20 || c == 0x7f;
        if (entity != NULL ? !page_add(out, entity)
                           : buf_append_u8(out, control ? '?' : (uint8_t)c) != ESKER_OK) {
            return false;
        }
    }
    return true;
}

/* ---- Charts ------------------------------------------------------------------------- */

static bool
page_picture(const struct plot_chart *chart, enum plot_form form, uint32_t number, struct buf *out)
{
    char id[32];
    struct buf svg;
    buf_init(&svg, &mem_default);
    (void)snprintf(id, sizeof id, "c%u%c", number, form == PLOT_WIDE ? 'w' : 'n');
    bool good = plot_picture(chart, form, PLOT_SVG, NULL, &svg) &&
                page_print(out, "<div class=\"%s\" role=\"img\" aria-label=\"",
                           form == PLOT_WIDE ? "wide" : "narrow") &&
                plot_html_text(out, chart->title) && page_add(out, "\">\n") &&
                plot_svg_inline(buf_bytes(&svg), id, out) && page_add(out, "</div>\n");
    buf_fini(&svg);
    return good;
}

static bool
page_chart(const struct plot_chart *chart, uint32_t number, struct buf *out)
{
    return page_add(out, "<h3>") && plot_html_text(out, chart->title) && page_add(out, "</h3>\n<figure>\n") &&
           page_picture(chart, PLOT_WIDE, number, out) && page_picture(chart, PLOT_NARROW, number, out) &&
           page_add(out, "<figcaption>") && plot_html_text(out, chart->note) &&
           page_add(out, "</figcaption>\n</figure>\n");
}

/* ---- Tables ------------------------------------------------------------------------- */

/* A sum of what a file said: 0 when that was no count. */
static uint64_t
page_count(double value)
{
    return value >= 0 && value < 1e18 ? (uint64_t)value : 0;
}

/* Four significant digits, or a dash. */
static bool
page_number(struct buf *out, double value)
{
    char count[TEXT_UNIT_BYTES];
    return isnan(value)    ? page_add(out, "<td>\xe2\x80\x93</td>")
           : value >= 1000 ? page_print(out, "<td>%s</td>", text_count(page_count(value), count))
                           : page_print(out, "<td>%.4g</td>", value);
}

static const char *const page_columns[][2] = {
    {"total_writes", "writes"}, {"total_reads", "reads"}, {"writer_p50_ms", "writer p50"},
    {"writer_p99_ms", "p99"},   {"writer_max_ms", "max"}, {"read_p50_ms", "reader p50"},
    {"read_p99_ms", "p99"},     {"read_max_ms", "max"},   {"precondition_failure_rate", "conflicts/attempt"},
    {"restarts", "reopened"},
};

static bool
page_verdict(struct buf *out, const struct plot_csv *csv, uint32_t row)
{
    int column = plot_csv_column(csv, "verification");
    const char *text = column >= 0 ? plot_csv_cell(csv, row, (uint32_t)column) : "unknown";
    const char *look = strcmp(text, "PASS") == 0 ? "pass" : strcmp(text, "FAIL") == 0 ? "fail" : "soft";
    return page_print(out, "<td class=\"%s\">", look) && plot_html_text(out, text) &&
           page_add(out, "</td></tr>\n");
}

static bool
page_workload_table(const struct plot_csv *csv, struct buf *out)
{
    bool good = page_add(out, "<div class=\"scroll\"><table><caption>Latencies in milliseconds</caption>\n"
                              "<thead><tr><th>configuration</th>");
    for (size_t i = 0; good && i < COUNTOF(page_columns); i++) {
        good = page_print(out, "<th>%s</th>", page_columns[i][1]);
    }
    good = good && page_add(out, "<th>verification</th></tr></thead>\n<tbody>\n");
    for (uint32_t row = 0; good && row < csv->rows; row++) {
        good = page_add(out, "<tr><td>") &&
               plot_html_text(out, plot_csv_cell(csv, row, (uint32_t)plot_csv_column(csv, "config_label"))) &&
               page_add(out, "</td>");
        for (size_t i = 0; good && i < COUNTOF(page_columns); i++) {
            good = page_number(out, plot_csv_number(csv, row, plot_csv_column(csv, page_columns[i][0])));
        }
        good = good && page_verdict(out, csv, row);
    }
    return good && page_add(out, "</tbody></table></div>\n");
}

static bool
page_bench_table(const struct plot_bars *bars, struct buf *out)
{
    bool good = page_add(out, "<div class=\"scroll\"><table><caption>Medians of the rounds</caption>\n"
                              "<thead><tr><th>line</th><th>unit</th>");
    for (uint32_t i = 0; good && i < bars->engine_count; i++) {
        good = page_add(out, "<th>") && plot_html_text(out, bars->engines[i]) && page_add(out, "</th>");
    }
    good = good && page_add(out, "</tr></thead>\n<tbody>\n");
    for (uint32_t row = 0; good && row < bars->line_count; row++) {
        const struct plot_bar_line *line = &bars->lines[row];
        good = page_add(out, "<tr><td>") && plot_html_text(out, line->name) && page_add(out, "</td><td>") &&
               plot_html_text(out, line->unit) && page_add(out, "</td>");
        for (uint32_t i = 0; good && i < bars->engine_count; i++) {
            good = page_number(out, line->values[i]);
        }
        good = good && page_add(out, "</tr>\n");
    }
    return good && page_add(out, "</tbody></table></div>\n");
}

/* ---- Sections -------------------------------------------------------------------------- */

/* What a workload came to, in a sentence. */
static bool
page_summary(const struct plot_csv *csv, struct buf *out)
{
    char texts[2][TEXT_UNIT_BYTES];
    double writes = 0;
    double reads = 0;
    uint32_t passed = 0;
    int verdicts = plot_csv_column(csv, "verification");
    double scale = plot_csv_number(csv, 0, plot_csv_column(csv, "time_scale"));
    for (uint32_t row = 0; row < csv->rows; row++) {
        writes += plot_csv_number(csv, row, plot_csv_column(csv, "total_writes"));
        reads += plot_csv_number(csv, row, plot_csv_column(csv, "total_reads"));
        passed += verdicts >= 0 && strcmp(plot_csv_cell(csv, row, (uint32_t)verdicts), "PASS") == 0 ? 1 : 0;
    }
    bool good =
        page_print(out, "<p>%u configuration%s, %s writes, %s reads.", csv->rows, csv->rows == 1 ? "" : "s",
                   text_count(page_count(writes), texts[0]), text_count(page_count(reads), texts[1]));
    if (verdicts >= 0) {
        good = good && page_print(out, " Verified: <span class=\"%s\">%u of %u passed</span>.",
                                  passed == csv->rows ? "pass" : "fail", passed, csv->rows);
    }
    if (scale > 0 && (scale < 1 || scale > 1)) {
        good = good && page_print(out, " The plan ran at %.4g times its speed.", scale);
    }
    return good && page_add(out, "</p>\n");
}

static bool
page_section(const struct plot_source *source, uint32_t *number, struct buf *out)
{
    struct plot_chart *charts = calloc(PLOT_CHARTS_MAX, sizeof *charts);
    if (charts == NULL) {
        return false;
    }
    uint32_t count = plot_charts(source, charts);
    bool good = page_add(out, "<section>\n<h2>") && plot_html_text(out, source->name) &&
                page_add(out, "</h2>\n") &&
                (source->kind != PLOT_WORKLOAD || page_summary(&source->csv, out));
    for (uint32_t i = 0; good && i < count; i++) {
        good = page_chart(&charts[i], (*number)++, out);
    }
    free(charts);
    good = good && (source->kind != PLOT_WORKLOAD || page_workload_table(&source->csv, out)) &&
           (source->kind != PLOT_BENCH || page_bench_table(source->bars, out));
    return good && page_add(out, "</section>\n");
}

bool
plot_page(const struct plot_source *sources, uint32_t count, const char *title, struct buf *out)
{
    uint32_t number = 1;
    bool good =
        page_add(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
                      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>") &&
        plot_html_text(out, title) && page_add(out, "</title>\n<style>\n") && page_add(out, page_style) &&
        page_add(out, "</style>\n</head>\n<body>\n<h1>") && plot_html_text(out, title) &&
        page_add(out, "</h1>\n<p class=\"soft\">Written by esker " ESKER_VERSION_STRING ".</p>\n");
    for (uint32_t i = 0; good && i < count; i++) {
        good = page_section(&sources[i], &number, out);
    }
    return good && page_add(out, "</body>\n</html>\n");
}
