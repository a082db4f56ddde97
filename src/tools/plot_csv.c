/* SPDX-License-Identifier: MIT */
#include "tools/plot_csv.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"

/* The text is read at `at` and written at `put`, which never overtakes it: a cell is never
 * longer unquoted, and the zero behind it takes the place of its separator. */
struct plot_csv_reader {
    struct plot_csv *csv;
    uint8_t *at, *end, *put;
    uint64_t line;
    size_t cell_count;
    uint32_t in_line;
    const char *fault;
};

static bool
csv_refuse(struct plot_csv_reader *reader, const char *what)
{
    reader->fault = what;
    return false;
}

static esker_status
csv_add_cell(struct plot_csv_reader *reader, const uint8_t *start)
{
    struct plot_csv *csv = reader->csv;
    if (reader->cell_count == csv->cells_cap) {
        size_t cap = MAX(csv->cells_cap * 2, (size_t)256);
        const char **cells = realloc(csv->cells, cap * sizeof *cells);
        if (cells == NULL) {
            return FAIL_NO_MEMORY("the cells of a table");
        }
        csv->cells = cells;
        csv->cells_cap = cap;
    }
    csv->cells[reader->cell_count++] = (const char *)start;
    reader->in_line++;
    return ESKER_OK;
}

/* The opening quote is at `at`. */
static bool
csv_quoted(struct plot_csv_reader *reader)
{
    reader->at++;
    while (reader->at < reader->end) {
        uint8_t byte = *reader->at++;
        if (byte == '"') {
            if (reader->at == reader->end || *reader->at != '"') {
                return true;
            }
            reader->at++;
        }
        if (byte == 0) {
            return csv_refuse(reader, "a NUL byte");
        }
        reader->line += byte == '\n' ? 1 : 0;
        *reader->put++ = byte;
    }
    return csv_refuse(reader, "a quote that does not end");
}

static bool
csv_plain(struct plot_csv_reader *reader)
{
    while (reader->at < reader->end && *reader->at != ',' && *reader->at != '\n' && *reader->at != '\r') {
        if (*reader->at == '"' || *reader->at == 0) {
            return csv_refuse(reader, *reader->at == 0 ? "a NUL byte" : "a quote in the middle of a cell");
        }
        *reader->put++ = *reader->at++;
    }
    return true;
}

/* What is behind a cell: *more says whether the line goes on. */
static bool
csv_separator(struct plot_csv_reader *reader, bool *more)
{
    *more = false;
    if (reader->at == reader->end) {
        return true;
    }
    uint8_t byte = *reader->at++;
    if (byte == ',') {
        *more = true;
        return true;
    }
    if (byte == '\r' && reader->at < reader->end && *reader->at == '\n') {
        reader->at++;
        byte = '\n';
    }
    if (byte != '\n') {
        return csv_refuse(reader, "neither a comma nor the end of the line behind a cell");
    }
    reader->line++;
    return true;
}

/* Returns OK, INVALID with reader->fault, or NO_MEMORY. */
static esker_status
csv_line(struct plot_csv_reader *reader)
{
    bool more = true;
    reader->in_line = 0;
    while (more) {
        const uint8_t *start = reader->put;
        bool quoted = reader->at < reader->end && *reader->at == '"';
        if (reader->in_line == PLOT_CSV_COLUMNS_MAX || reader->cell_count == PLOT_CSV_CELLS_MAX) {
            reader->fault = "too many cells";
            return ESKER_INVALID;
        }
        if (!(quoted ? csv_quoted(reader) : csv_plain(reader)) || !csv_separator(reader, &more)) {
            return ESKER_INVALID;
        }
        *reader->put++ = 0;
        TRY(csv_add_cell(reader, start));
    }
    return ESKER_OK;
}

static bool
csv_skip_empty_line(struct plot_csv_reader *reader)
{
    if (*reader->at == '\n') {
        reader->at++;
    } else if (*reader->at == '\r' && reader->end - reader->at > 1 && reader->at[1] == '\n') {
        reader->at += 2;
    } else {
        return false;
    }
    reader->line++;
    return true;
}

static esker_status
csv_lines(struct plot_csv_reader *reader)
{
    struct plot_csv *csv = reader->csv;
    while (reader->at < reader->end) {
        uint64_t line = reader->line;
        if (csv_skip_empty_line(reader)) {
            continue;
        }
        TRY(csv_line(reader));
        if (csv->columns == 0) {
            csv->columns = reader->in_line;
        } else if (reader->in_line != csv->columns) {
            reader->line = line;
            reader->fault = "another number of cells than the first line has";
            return ESKER_INVALID;
        } else {
            csv->rows++;
        }
    }
    if (csv->columns == 0) {
        reader->fault = "no line of names";
        return ESKER_INVALID;
    }
    return ESKER_OK;
}

esker_status
plot_csv_parse(struct bytes text, struct plot_csv *csv, struct plot_csv_fault *fault)
{
    static const uint8_t mark[] = {0xef, 0xbb, 0xbf}; /* some programs begin UTF-8 with it */
    struct plot_csv_reader reader = {.csv = csv, .line = 1};
    *csv = (struct plot_csv){0};
    buf_init(&csv->text, &mem_default);
    if (text.len > PLOT_CSV_BYTES_MAX) {
        *fault = (struct plot_csv_fault){.what = "more than 64 MiB", .line = 1};
        return ESKER_INVALID;
    }
    TRY(buf_assign(&csv->text, text));
    esker_status status = buf_append_u8(&csv->text, 0); /* the zero of a last cell without a line end */
    if (status == ESKER_OK) {
        reader.at = csv->text.ptr;
        reader.put = csv->text.ptr;
        reader.end = csv->text.ptr + text.len;
        if (text.len >= sizeof mark && memcmp(reader.at, mark, sizeof mark) == 0) {
            reader.at += sizeof mark;
        }
        status = csv_lines(&reader);
    }
    if (status != ESKER_OK) {
        *fault = (struct plot_csv_fault){.what = reader.fault, .line = reader.line};
        plot_csv_fini(csv);
    }
    return status;
}

void
plot_csv_fini(struct plot_csv *csv)
{
    buf_fini(&csv->text);
    free(csv->cells);
    csv->cells = NULL;
}

int
plot_csv_column(const struct plot_csv *csv, const char *name)
{
    for (uint32_t i = 0; i < csv->columns; i++) {
        if (strcmp(csv->cells[i], name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

double
plot_csv_number(const struct plot_csv *csv, uint32_t row, int column)
{
    if (column < 0) {
        return NAN;
    }
    const char *text = plot_csv_cell(csv, row, (uint32_t)column);
    char *end = NULL;
    if (strspn(text, "0123456789+-.eE") != strlen(text) || *text == 0) {
        return NAN; /* strtod would take blanks, hexadecimal, inf and nan */
    }
    double value = strtod(text, &end);
    return *end == 0 && isfinite(value) ? value : NAN;
}
