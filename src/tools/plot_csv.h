/* SPDX-License-Identifier: MIT */
/*
 * A CSV text of any origin as a table of strings: RFC 4180, LF or CRLF, a first
 * line of names, as many cells in every line as there are names.
 *
 * The text is not trusted: size, columns and cells have bounds, memory is asked
 * for as cells arrive, every pass is linear. NUL bytes, quotes in the middle of
 * a cell and quotes that do not end are refused. Fuzz target: fuzz/fuzz_plot_csv.c.
 */
#ifndef ESKER_TOOLS_PLOT_CSV_H
#define ESKER_TOOLS_PLOT_CSV_H

#include <stdbool.h>

#include "base/buf.h"

enum { PLOT_CSV_BYTES_MAX = 64 << 20, PLOT_CSV_COLUMNS_MAX = 256, PLOT_CSV_CELLS_MAX = 4 << 20 };

/* All strings end with a zero and live in `text`. */
struct plot_csv {
    struct buf text;
    uint32_t columns, rows; /* rows without the names */
    const char **cells;     /* names, then row by row */
    size_t cells_cap;
};

/* What is wrong, and in which line, from 1. */
struct plot_csv_fault {
    const char *what;
    uint64_t line;
};

/* Returns OK; INVALID with *fault set; NO_MEMORY. *csv is to be ended only after OK. */
NODISCARD esker_status plot_csv_parse(struct bytes text, struct plot_csv *csv, struct plot_csv_fault *fault);
void plot_csv_fini(struct plot_csv *csv);

/* The column of that name, or -1. */
int plot_csv_column(const struct plot_csv *csv, const char *name);

static inline const char *
plot_csv_cell(const struct plot_csv *csv, uint32_t row, uint32_t column)
{
    return csv->cells[(size_t)(row + 1) * csv->columns + column];
}

/* A finite decimal number, or NAN; also NAN for column -1. */
double plot_csv_number(const struct plot_csv *csv, uint32_t row, int column);

#endif
