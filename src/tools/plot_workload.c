/* SPDX-License-Identifier: MIT */
/* Charts of the workload: configurations side by side, one configuration, time. */
#include <math.h>
#include <string.h>

#include "tools/plot.h"

/* Colours that hold on white and on black; shapes and dashes say the same again. */
struct workload_look {
    const char *column, *name, *colour;
    int point;
};

static const struct workload_look workload_looks[] = {
    {"writer", "writer", "#2f7fc1", 7},
    {"read", "reader", "#2f9e5f", 5},
    {"compactor", "compactor", "#d9822b", 9},
};

static int
workload_column(const struct plot_csv *csv, const char *role, const char *what)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%s_%s", role, what);
    return plot_csv_column(csv, name);
}

/* Is there anything above 0? */
static bool
workload_any(const struct plot_csv *csv, int column)
{
    for (uint32_t row = 0; row < csv->rows; row++) {
        if (plot_csv_number(csv, row, column) > 0) {
            return true;
        }
    }
    return false;
}

/* A number for a data block; "NaN" is what gnuplot leaves out, and 0 has no place on a log scale. */
static void
workload_print_positive(struct plot_script *script, double value)
{
    if (value > 0) {
        plot_script_print(script, " %.9g", value);
    } else {
        plot_script_print(script, " NaN");
    }
}

/* ---- Labels ------------------------------------------------------------------------- */

/* The nth part of a label between underscores. */
static struct bytes
workload_part(const char *label, uint32_t nth)
{
    const char *at = label;
    for (; nth > 0; nth--) {
        at = strchr(at, '_');
        if (at == NULL) {
            return bytes_make("", 0);
        }
        at++;
    }
    return bytes_make(at, strcspn(at, "_"));
}

static bool
workload_part_differs(const struct plot_csv *csv, uint32_t column, uint32_t nth)
{
    struct bytes first = workload_part(plot_csv_cell(csv, 0, column), nth);
    for (uint32_t row = 1; row < csv->rows; row++) {
        struct bytes other = workload_part(plot_csv_cell(csv, row, column), nth);
        if (other.len != first.len || memcmp(other.ptr, first.ptr, first.len) != 0) {
            return true;
        }
    }
    return false;
}

/* A label without the parts that all rows have. */
static void
workload_label(const struct plot_csv *csv, uint32_t row, char out[PLOT_WORD_BYTES])
{
    enum { PARTS_MAX = 12 };

    char text[PLOT_WORD_BYTES] = "";
    size_t len = 0;
    uint32_t column = (uint32_t)plot_csv_column(csv, "config_label");
    for (uint32_t nth = 0; nth < PARTS_MAX; nth++) {
        struct bytes part = workload_part(plot_csv_cell(csv, row, column), nth);
        if (part.len > 0 && part.len + len + 2 < sizeof text && workload_part_differs(csv, column, nth)) {
            text[len] = ' ';
            len += len > 0 ? 1 : 0;
            memcpy(text + len, part.ptr, part.len);
            len += part.len;
            text[len] = 0;
        }
    }
    (void)plot_word(len > 0 ? text : plot_csv_cell(csv, row, column), out);
}

/* set xtics or ytics with the rows' labels. */
static void
workload_print_labels(struct plot_script *script, const struct plot_csv *csv, const char *axis,
                      const char *style)
{
    char label[PLOT_WORD_BYTES];
    plot_script_print(script, "set %stics (", axis);
    for (uint32_t row = 0; row < csv->rows; row++) {
        workload_label(csv, row, label);
        plot_script_print(script, "%s\"%s\" %u", row > 0 ? ", " : "", label, row);
    }
    plot_script_print(script, ") %s\n", style);
}

/* ---- Configurations side by side ------------------------------------------------------- */

enum { WORKLOAD_CROWD = 20 };

/* Rows to the right, or downwards. */
static void
workload_draw_axes(const struct plot_chart *chart, enum plot_form form, struct plot_script *script,
                   const char *what)
{
    const struct plot_csv *csv = &chart->source->csv;
    bool crowd = csv->rows > WORKLOAD_CROWD;
    plot_script_print(script, "set key outside @keys center horizontal samplen 3\n");
    if (form == PLOT_WIDE) {
        workload_print_labels(script, csv, "x",
                              crowd ? "rotate by 90 right font \",10\"" : "rotate by 45 right");
        plot_script_print(script, "set xrange [-0.5:%u.5]\nset xlabel \"Configuration\"\nset ylabel \"%s\"\n",
                          csv->rows - 1, what);
    } else {
        workload_print_labels(script, csv, "y", "font \",12\"");
        plot_script_print(script, "set yrange [%u.5:-0.5]\nset xlabel \"%s\"\n", csv->rows - 1, what);
    }
}

/* Lines of dots, solid for p50 and dashed for p99, of the given columns; columns 2, 3, ... of
 * the data block $rows. */
static void
workload_plot_pairs(struct plot_script *script, enum plot_form form,
                    const struct workload_look *const looks[], uint32_t count)
{
    plot_script_print(script, "plot ");
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t high = 0; high < 2; high++) {
            char columns[16];
            uint32_t column = 2 + 2 * i + high;
            (void)snprintf(columns, sizeof columns, form == PLOT_WIDE ? "1:%u" : "%u:1", column);
            plot_script_print(
                script,
                "%s$rows using %s with linespoints lc rgb \"%s\" dt %s lw %s pt %d ps 0.6 title \"%s %s\"",
                i + high > 0 ? ", " : "", columns, looks[i]->colour, high != 0 ? "(6,4)" : "1",
                high != 0 ? "1.5" : "2", looks[i]->point, looks[i]->name, high != 0 ? "p99" : "p50");
        }
    }
    plot_script_print(script, "\n");
}

static void
workload_print_rows(struct plot_script *script, const struct plot_csv *csv,
                    const struct workload_look *const looks[], uint32_t count)
{
    plot_script_print(script, "$rows << EOD\n");
    for (uint32_t row = 0; row < csv->rows; row++) {
        plot_script_print(script, "%u", row);
        for (uint32_t i = 0; i < count; i++) {
            workload_print_positive(
                script, plot_csv_number(csv, row, workload_column(csv, looks[i]->column, "p50_ms")));
            workload_print_positive(
                script, plot_csv_number(csv, row, workload_column(csv, looks[i]->column, "p99_ms")));
        }
        plot_script_print(script, "\n");
    }
    plot_script_print(script, "EOD\n");
}

static void
workload_draw_latency(const struct plot_chart *chart, enum plot_form form, struct plot_script *script)
{
    const struct plot_csv *csv = &chart->source->csv;
    const struct workload_look *const both[] = {&workload_looks[0], &workload_looks[1]};
    const struct workload_look *const third[] = {&workload_looks[2]};
    bool compactor = chart->part == 1;
    workload_draw_axes(chart, form, script, "Latency (ms, log scale)");
    plot_script_print(script, "set logscale %s\nset format %s \"%%g\"\n", form == PLOT_WIDE ? "y" : "x",
                      form == PLOT_WIDE ? "y" : "x");
    workload_print_rows(script, csv, compactor ? third : both, compactor ? 1 : 2);
    workload_plot_pairs(script, form, compactor ? third : both, compactor ? 1 : 2);
}

static void
workload_draw_conflicts(const struct plot_chart *chart, enum plot_form form, struct plot_script *script)
{
    const struct plot_csv *csv = &chart->source->csv;
    int column = plot_csv_column(csv, "precondition_failure_rate");
    workload_draw_axes(chart, form, script, "Commits refused (% of attempts)");
    plot_script_print(script, "unset key\nset %srange [0:*]\n$rows << EOD\n", form == PLOT_WIDE ? "y" : "x");
    for (uint32_t row = 0; row < csv->rows; row++) {
        double rate = plot_csv_number(csv, row, column);
        plot_script_print(script, "%u %.9g\n", row, isnan(rate) ? 0 : 100 * rate);
    }
    plot_script_print(script, "EOD\nplot $rows using %s with boxxyerror lc rgb \"#b5483a\"\n",
                      form == PLOT_WIDE ? "1:2:($1-0.35):($1+0.35):(0):2" : "2:1:(0):2:($1-0.35):($1+0.35)");
}

/* ---- One configuration ------------------------------------------------------------------ */

static void
workload_draw_quantiles(const struct plot_chart *chart, enum plot_form form, struct plot_script *script)
{
    static const char *const quantiles[] = {"p50_ms", "p95_ms", "p99_ms", "p999_ms", "max_ms"};
    const struct plot_csv *csv = &chart->source->csv;
    (void)form;
    plot_script_print(script, "set xtics (\"p50\" 0, \"p95\" 1, \"p99\" 2, \"p99.9\" 3, \"max\" 4)\n"
                              "set xrange [-0.3:4.3]\nset xlabel \"Quantile\"\nset logscale y\n"
                              "set format y \"%%g\"\nset ylabel \"Latency (ms, log scale)\"\n"
                              "set key outside @keys center horizontal samplen 3\n$rows << EOD\n");
    for (uint32_t i = 0; i < COUNTOF(quantiles); i++) {
        plot_script_print(script, "%u", i);
        for (uint32_t role = 0; role < COUNTOF(workload_looks); role++) {
            int column = workload_column(csv, workload_looks[role].column, quantiles[i]);
            workload_print_positive(script, plot_csv_number(csv, 0, column));
        }
        plot_script_print(script, "\n");
    }
    plot_script_print(script, "EOD\nplot ");
    bool first = true;
    for (uint32_t role = 0; role < COUNTOF(workload_looks); role++) {
        const struct workload_look *look = &workload_looks[role];
        if (workload_any(csv, workload_column(csv, look->column, "p50_ms"))) {
            plot_script_print(
                script, "%s$rows using 1:%u with linespoints lc rgb \"%s\" lw 2 pt %d ps 0.8 title \"%s\"",
                first ? "" : ", ", role + 2, look->colour, look->point, look->name);
            first = false;
        }
    }
    plot_script_print(script, first ? "NaN notitle\n" : "\n");
}

/* ---- The list ---------------------------------------------------------------------------- */

static struct plot_chart *
workload_add_chart(const struct plot_source *source, struct plot_chart *chart, plot_draw_fn *draw,
                   const char *title, const char *note)
{
    uint32_t rows = source->csv.rows;
    *chart = (struct plot_chart){.source = source, .draw = draw};
    chart->width[PLOT_WIDE] = rows > WORKLOAD_CROWD ? 1200 : 960;
    chart->height[PLOT_WIDE] = 540;
    chart->width[PLOT_NARROW] = 400;
    chart->height[PLOT_NARROW] = rows == 1 ? 360 : 130 + MIN(rows, 500U) * 20;
    (void)snprintf(chart->title, sizeof chart->title, "%s", title);
    (void)snprintf(chart->note, sizeof chart->note, "%s", note);
    return chart;
}

uint32_t
plot_workload_charts(const struct plot_source *source, struct plot_chart *charts)
{
    static const char due[] = "Latency counts from when an operation was due to its end, retries included; "
                              "milliseconds on a logarithmic scale.";
    const struct plot_csv *csv = &source->csv;
    uint32_t count = 0;
    if (csv->rows == 1) {
        (void)workload_add_chart(source, &charts[count++], workload_draw_quantiles, "Latency by quantile",
                                 due);
        return count;
    }
    (void)workload_add_chart(source, &charts[count++], workload_draw_latency, "Latency by configuration",
                             due);
    if (workload_any(csv, workload_column(csv, "compactor", "p50_ms"))) {
        workload_add_chart(source, &charts[count++], workload_draw_latency, "Compactor by configuration",
                           "The compactor's latency includes its sleep between reading and writing.")
            ->part = 1;
    }
    if (workload_any(csv, plot_csv_column(csv, "precondition_failure_rate"))) {
        (void)workload_add_chart(
            source, &charts[count++], workload_draw_conflicts, "Conflicts by configuration",
            "Commits that were refused because something they had read had changed; they "
            "were tried again.");
    }
    return count;
}
