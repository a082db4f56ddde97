/* SPDX-License-Identifier: MIT */
/* Latency over time, a chart per configuration. */
#include <string.h>

#include "tools/plot.h"

static const char *const series_roles[] = {"writer", "random-writer", "compactor", "reader"};
static const char *const series_colours[] = {"#2f7fc1", "#8e63b8", "#d9822b", "#2f9e5f"};

static const char *
series_label(const struct plot_csv *csv, uint32_t row)
{
    return plot_csv_cell(csv, row, (uint32_t)plot_csv_column(csv, "config_label"));
}

/* One data block per role: second, p50, p99. Returns whether it has a row. */
static bool
series_print_role(const struct plot_chart *chart, struct plot_script *script, uint32_t role)
{
    const struct plot_csv *csv = &chart->source->csv;
    const char *label = series_label(csv, chart->part);
    uint32_t role_column = (uint32_t)plot_csv_column(csv, "role");
    bool any = false;
    plot_script_print(script, "$role%u << EOD\n", role);
    for (uint32_t row = 0; row < csv->rows; row++) {
        double second = plot_csv_number(csv, row, plot_csv_column(csv, "second"));
        double p50 = plot_csv_number(csv, row, plot_csv_column(csv, "p50_ms"));
        double p99 = plot_csv_number(csv, row, plot_csv_column(csv, "p99_ms"));
        if (strcmp(series_label(csv, row), label) == 0 && second >= 0 && p50 > 0 && p99 > 0 &&
            strcmp(plot_csv_cell(csv, row, role_column), series_roles[role]) == 0) {
            plot_script_print(script, "%.9g %.9g %.9g\n", second, p50, p99);
            any = true;
        }
    }
    plot_script_print(script, "EOD\n");
    return any;
}

static void
series_draw(const struct plot_chart *chart, enum plot_form form, struct plot_script *script)
{
    bool there[COUNTOF(series_roles)];
    bool any = false;
    for (uint32_t role = 0; role < COUNTOF(series_roles); role++) {
        there[role] = series_print_role(chart, script, role);
    }
    plot_script_print(script,
                      "set logscale y\nset format y \"%%g\"\nset ylabel \"Latency (ms, log scale)\"\n"
                      "set xlabel \"Time (s of the plan)\"\nset xrange [0:*]\n"
                      "set key outside @keys center horizontal samplen 3%s\nplot ",
                      form == PLOT_NARROW ? " maxcols 2" : "");
    for (uint32_t role = 0; role < COUNTOF(series_roles); role++) {
        for (uint32_t high = 0; high < 2 && there[role]; high++) {
            plot_script_print(script,
                              "%s$role%u using 1:%u with linespoints lc rgb \"%s\" dt %s lw %s pt %d ps 0.35 "
                              "title \"%s %s\"",
                              any ? ", " : "", role, 2 + high, series_colours[role],
                              high != 0 ? "(6,4)" : "1", high != 0 ? "1.5" : "2", high != 0 ? 6 : 7,
                              series_roles[role], high != 0 ? "p99" : "p50");
            any = true;
        }
    }
    plot_script_print(script, any ? "\n" : "NaN notitle\n");
}

uint32_t
plot_series_charts(const struct plot_source *source, struct plot_chart *charts)
{
    const struct plot_csv *csv = &source->csv;
    uint32_t count = 0;
    for (uint32_t row = 0; row < csv->rows && count < PLOT_CHARTS_MAX; row++) {
        char word[PLOT_WORD_BYTES];
        if (row > 0 && strcmp(series_label(csv, row), series_label(csv, row - 1)) == 0) {
            continue;
        }
        struct plot_chart *chart = &charts[count++];
        *chart = (struct plot_chart){.source = source,
                                     .draw = series_draw,
                                     .part = row,
                                     .width = {[PLOT_WIDE] = 960, [PLOT_NARROW] = 400},
                                     .height = {[PLOT_WIDE] = 480, [PLOT_NARROW] = 400}};
        (void)snprintf(chart->title, sizeof chart->title, "Latency over time, %s",
                       plot_word(series_label(csv, row), word));
        (void)snprintf(
            chart->note, sizeof chart->note,
            "Each point stands for a sixtieth of the duration; milliseconds on a logarithmic scale.");
    }
    return count;
}
