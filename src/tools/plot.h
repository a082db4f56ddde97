/* SPDX-License-Identifier: MIT */
/*
 * Charts of results: a source (a file that was read) offers charts, a chart is
 * a gnuplot script, a script becomes SVG or PNG, and all charts with their
 * figures become one HTML page.
 *
 * Nothing from a file reaches a script as it is: numbers are parsed and printed
 * again, words keep letters, digits and a few signs (plot_word).
 */
#ifndef ESKER_TOOLS_PLOT_H
#define ESKER_TOOLS_PLOT_H

#include <stdbool.h>
#include <stdio.h>

#include "tools/plot_csv.h"

enum { PLOT_WORD_BYTES = 64, PLOT_ENGINES_MAX = 8, PLOT_BARS_MAX = 256, PLOT_CHARTS_MAX = 64 };

/* ---- Sources ------------------------------------------------------------------- */

enum plot_kind {
    PLOT_WORKLOAD, /* one row per configuration */
    PLOT_SERIES,   /* latencies over time */
    PLOT_BENCH     /* one line per workload, a value per engine */
};

struct plot_bar_line {
    char name[PLOT_WORD_BYTES], unit[16];
    double values[PLOT_ENGINES_MAX]; /* NAN: none */
};

/* What a bench's results come down to. */
struct plot_bars {
    char engines[PLOT_ENGINES_MAX][PLOT_WORD_BYTES];
    uint32_t engine_count, line_count;
    struct plot_bar_line lines[PLOT_BARS_MAX];
};

struct plot_source {
    const char *path, *name; /* name: its last component */
    enum plot_kind kind;
    struct plot_csv csv;    /* of WORKLOAD and SERIES */
    struct plot_bars *bars; /* of BENCH */
};

/* Reads and recognises a file; says what is wrong on stderr and returns false. */
bool plot_source_open(struct plot_source *source, const char *path);
void plot_source_close(struct plot_source *source);
/* From the text of a file called `path`; *what is the complaint. A path that ends in .json is JSON. */
bool plot_source_parse(struct plot_source *source, const char *path, struct bytes text, char *what,
                       size_t what_size);

/* Medians of results.csv, or the lines of results.json. Return false when there is nothing to draw. */
bool plot_bars_from_csv(struct plot_bars *bars, const struct plot_csv *csv);
bool plot_bars_from_json(struct plot_bars *bars, struct bytes text);

/* Letters, digits and signs that mean nothing to gnuplot; all else becomes '?'. */
const char *plot_word(const char *text, char out[PLOT_WORD_BYTES]);

/* ---- Scripts ------------------------------------------------------------------- */

enum plot_form {
    PLOT_WIDE,  /* a desktop, paper */
    PLOT_NARROW /* a phone: rows downwards */
};

enum plot_format { PLOT_SVG, PLOT_PNG };

struct plot_script {
    struct buf buf;
    bool failed; /* for want of memory */
};

void plot_script_init(struct plot_script *script);
void plot_script_print(struct plot_script *script, const char *format, ...) PRINTF_LIKE(2, 3);

struct plot_chart;
typedef void plot_draw_fn(const struct plot_chart *chart, enum plot_form form, struct plot_script *script);

struct plot_chart {
    const struct plot_source *source;
    plot_draw_fn *draw;           /* everything but terminal and output */
    uint32_t part;                /* which configuration, where a chart shows one */
    uint32_t width[2], height[2]; /* by form */
    char title[96], note[256];
};

/* The charts that a source offers; at most PLOT_CHARTS_MAX. */
uint32_t plot_charts(const struct plot_source *source, struct plot_chart *charts);
uint32_t plot_workload_charts(const struct plot_source *source, struct plot_chart *charts);
uint32_t plot_series_charts(const struct plot_source *source, struct plot_chart *charts);
uint32_t plot_bench_charts(const struct plot_source *source, struct plot_chart *charts);

/* ---- Pictures ------------------------------------------------------------------ */

/* Runs gnuplot. `out` is an initialised buffer that gets the picture; SVG without program names
 * and tooltips. title NULL: none inside the picture. Says what is wrong and returns false. */
bool plot_picture(const struct plot_chart *chart, enum plot_form form, enum plot_format format,
                  const char *title, struct buf *out);

/* An SVG's inside for a page: ids begin with `id`, no prolog. */
bool plot_svg_inline(struct bytes svg, const char *id, struct buf *out);

/* ---- The page ------------------------------------------------------------------- */

/* Writes the whole page. */
bool plot_page(const struct plot_source *sources, uint32_t count, const char *title, struct buf *out);
/* Text with & < > " as entities and control bytes as '?'. */
bool plot_html_text(struct buf *out, const char *text);

#endif
