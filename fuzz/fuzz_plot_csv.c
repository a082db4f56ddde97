/* rooms: tools */
/* SPDX-License-Identifier: MIT */
/*
 * The reader of CSV results and what is drawn from them. Oracles: a table that
 * was read is the same after it was written with every cell in quotes and read
 * again; scripts of its charts hold nothing that gnuplot would run.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "tools/plot.h"

static void
quote_all(const struct plot_csv *csv, struct buf *out)
{
    for (size_t i = 0; i < (size_t)(csv->rows + 1) * csv->columns; i++) {
        ASSERT(buf_append(out, i % csv->columns > 0 ? ",\"" : "\"", i % csv->columns > 0 ? 2 : 1) ==
               ESKER_OK);
        for (const char *at = csv->cells[i]; *at != 0; at++) {
            ASSERT(buf_append(out, "\"\"", *at == '"' ? 1 : 0) == ESKER_OK);
            ASSERT(buf_append(out, at, 1) == ESKER_OK);
        }
        ASSERT(buf_append(out, "\"\n", (i + 1) % csv->columns == 0 ? 2 : 1) == ESKER_OK);
    }
}

static void
read_again(const struct plot_csv *csv)
{
    struct plot_csv again;
    struct plot_csv_fault fault = {0};
    struct buf text;
    buf_init(&text, &mem_default);
    quote_all(csv, &text);
    ASSERT(plot_csv_parse(buf_bytes(&text), &again, &fault) == ESKER_OK);
    ASSERT(again.columns == csv->columns && again.rows == csv->rows);
    for (size_t i = 0; i < (size_t)(csv->rows + 1) * csv->columns; i++) {
        ASSERT(strcmp(again.cells[i], csv->cells[i]) == 0);
    }
    plot_csv_fini(&again);
    buf_fini(&text);
}

static void
draw_all(const struct plot_source *source)
{
    struct plot_chart *charts = calloc(PLOT_CHARTS_MAX, sizeof *charts);
    uint32_t count = charts != NULL ? plot_charts(source, charts) : 0;
    for (uint32_t i = 0; i < MIN(count, 4U); i++) {
        struct plot_script script;
        plot_script_init(&script);
        charts[i].draw(&charts[i], i % 2 == 0 ? PLOT_WIDE : PLOT_NARROW, &script);
        for (size_t at = 0; at < script.buf.len; at++) {
            ASSERT(strchr("`\\!|", script.buf.ptr[at]) == NULL);
        }
        buf_fini(&script.buf);
    }
    free(charts);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct plot_csv csv;
    struct plot_csv_fault fault = {0};
    esker_status status = plot_csv_parse(bytes_make(data, size), &csv, &fault);
    if (status == ESKER_OK) {
        read_again(&csv);
        plot_csv_fini(&csv);
    } else {
        ASSERT(status != ESKER_INVALID || (fault.what != NULL && fault.line > 0));
    }
    struct plot_source source;
    char what[256];
    if (plot_source_parse(&source, "x.csv", bytes_make(data, size), what, sizeof what)) {
        draw_all(&source);
        plot_source_close(&source);
    }
    if (plot_source_parse(&source, "x.json", bytes_make(data, size), what, sizeof what)) {
        draw_all(&source);
        plot_source_close(&source);
    }
    return 0;
}
