/* SPDX-License-Identifier: MIT */
/* Engines side by side, a small panel of bars per line of the benchmark. */
#include <math.h>
#include <string.h>

#include "tools/plot.h"

enum { BENCH_COLUMNS = 3, BENCH_ROW_HEIGHT = 24, BENCH_PANEL_EXTRA = 46, BENCH_HEIGHT_MAX = 30000 };

/* 791k, 1.23M, 0.041: without blanks, for a data block. */
static void
bench_figure(double value, char out[32])
{
    double size = fabs(value);
    if (size >= 999500) {
        (void)snprintf(out, 32, "%.3gM", value / 1e6);
    } else if (size >= 999.5) {
        (void)snprintf(out, 32, "%.3gk", value / 1e3);
    } else {
        (void)snprintf(out, 32, "%.3g", value);
    }
}

static double
bench_most(const struct plot_bars *bars, const struct plot_bar_line *line)
{
    double most = 0;
    for (uint32_t i = 0; i < bars->engine_count; i++) {
        most = line->values[i] > most ? line->values[i] : most;
    }
    return most;
}

static void
bench_draw_panel(const struct plot_bars *bars, const struct plot_bar_line *line, struct plot_script *script)
{
    double most = bench_most(bars, line);
    bool less = strcmp(line->unit, "s") == 0;
    char figure[32];
    plot_script_print(script, "set title \"%s (%s%s)\" offset 0,-0.6\n", line->name, line->unit,
                      less ? ", less is better" : "");
    plot_script_print(script, "set xrange [0:%.9g]\n$bars << EOD\n", most > 0 ? most * 1.3 : 1);
    for (uint32_t i = 0; i < bars->engine_count; i++) {
        if (line->values[i] >= 0) {
            bench_figure(line->values[i], figure);
            plot_script_print(script, "%u %.9g %s\n", i, line->values[i], figure);
        } else {
            plot_script_print(script, "%u 0 none\n", i);
        }
    }
    plot_script_print(script,
                      "EOD\nplot $bars using 2:1:(0):2:($1-0.36):($1+0.36):($1 < 0.5 ? 0x2f7fc1 : 0x9aa5b1) "
                      "with boxxyerror lc rgb variable notitle, "
                      "$bars using 2:1:3 with labels left offset 0.5,0 font \",11\" notitle\n");
}

static void
bench_draw(const struct plot_chart *chart, enum plot_form form, struct plot_script *script)
{
    const struct plot_bars *bars = chart->source->bars;
    uint32_t columns = form == PLOT_WIDE ? BENCH_COLUMNS : 1;
    plot_script_print(script, "unset title\nset multiplot layout %u,%u\n",
                      (bars->line_count + columns - 1) / columns, columns);
    plot_script_print(script, "set border 2\nunset grid\nset tics scale 0\nset lmargin 11\n"
                              "set rmargin 1\nset tmargin 1.6\nset bmargin 0.6\nset ytics (");
    for (uint32_t i = 0; i < bars->engine_count; i++) {
        plot_script_print(script, "%s\"%s\" %u", i > 0 ? ", " : "", bars->engines[i], i);
    }
    plot_script_print(script, ") font \",11\"\nunset xtics\nset yrange [%u.6:-0.6]\n",
                      bars->engine_count - 1);
    for (uint32_t i = 0; i < bars->line_count; i++) {
        bench_draw_panel(bars, &bars->lines[i], script);
    }
    plot_script_print(script, "unset multiplot\n");
}

uint32_t
plot_bench_charts(const struct plot_source *source, struct plot_chart *charts)
{
    const struct plot_bars *bars = source->bars;
    if (bars->line_count == 0 || bars->engine_count == 0) {
        return 0;
    }
    uint32_t panel = BENCH_PANEL_EXTRA + BENCH_ROW_HEIGHT * bars->engine_count;
    uint32_t rows = (bars->line_count + BENCH_COLUMNS - 1) / BENCH_COLUMNS;
    charts[0] = (struct plot_chart){.source = source, .draw = bench_draw};
    charts[0].width[PLOT_WIDE] = 1080;
    charts[0].height[PLOT_WIDE] = MIN(rows * panel, (uint32_t)BENCH_HEIGHT_MAX);
    charts[0].width[PLOT_NARROW] = 400;
    charts[0].height[PLOT_NARROW] = MIN(bars->line_count * panel, (uint32_t)BENCH_HEIGHT_MAX);
    (void)snprintf(charts[0].title, sizeof charts[0].title, "Engines side by side");
    (void)snprintf(
        charts[0].note, sizeof charts[0].note,
        "Medians of the rounds. Each panel has its own scale, from 0; more is better where it does not "
        "say less.");
    return 1;
}

uint32_t
plot_charts(const struct plot_source *source, struct plot_chart *charts)
{
    switch (source->kind) {
    case PLOT_WORKLOAD:
        return plot_workload_charts(source, charts);
    case PLOT_SERIES:
        return plot_series_charts(source, charts);
    default:
        return plot_bench_charts(source, charts);
    }
}
