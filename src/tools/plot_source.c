/* SPDX-License-Identifier: MIT */
/* Which file is what. */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/bench_json.h"
#include "tools/plot.h"
#include "tools/tool.h"

const char *
plot_word(const char *text, char out[PLOT_WORD_BYTES])
{
    static const char signs[] = " _.,:+-=/()<>*#";
    size_t len = 0;
    for (; *text != 0 && len + 1 < PLOT_WORD_BYTES; text++) {
        char c = *text;
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        out[len++] = plain || strchr(signs, c) != NULL ? c : '?';
    }
    out[len] = 0;
    return out;
}

/* ---- Bench results ------------------------------------------------------------------- */

static int
source_engine(struct plot_bars *bars, const char *name)
{
    char word[PLOT_WORD_BYTES];
    (void)plot_word(name, word);
    for (uint32_t i = 0; i < bars->engine_count; i++) {
        if (strcmp(bars->engines[i], word) == 0) {
            return (int)i;
        }
    }
    if (bars->engine_count == PLOT_ENGINES_MAX) {
        return -1;
    }
    memcpy(bars->engines[bars->engine_count], word, sizeof word);
    return (int)bars->engine_count++;
}

static struct plot_bar_line *
source_line(struct plot_bars *bars, const char *name, const char *unit)
{
    char word[PLOT_WORD_BYTES];
    char unit_word[PLOT_WORD_BYTES];
    (void)plot_word(name, word);
    for (uint32_t i = 0; i < bars->line_count; i++) {
        if (strcmp(bars->lines[i].name, word) == 0) {
            return &bars->lines[i];
        }
    }
    if (bars->line_count == PLOT_BARS_MAX) {
        return NULL;
    }
    struct plot_bar_line *line = &bars->lines[bars->line_count++];
    memcpy(line->name, word, sizeof word);
    (void)snprintf(line->unit, sizeof line->unit, "%.15s", plot_word(unit, unit_word));
    for (size_t i = 0; i < PLOT_ENGINES_MAX; i++) {
        line->values[i] = (double)NAN;
    }
    return line;
}

static int
source_compare_doubles(const void *a, const void *b)
{
    double left = *(const double *)a;
    double right = *(const double *)b;
    return (left > right) - (left < right);
}

/* The rounds of one line on one engine. */
struct source_columns {
    int workload, series, engine, status, unit, value;
};

static bool
source_same(const struct plot_csv *csv, const struct source_columns *at, uint32_t a, uint32_t b)
{
    const int columns[] = {at->workload, at->series, at->engine};
    for (size_t i = 0; i < COUNTOF(columns); i++) {
        if (strcmp(plot_csv_cell(csv, a, (uint32_t)columns[i]),
                   plot_csv_cell(csv, b, (uint32_t)columns[i])) != 0) {
            return false;
        }
    }
    return true;
}

/* The median over the rounds that look like row's; NAN unless row is the first of them. */
static double
source_median(const struct plot_csv *csv, const struct source_columns *at, uint32_t row)
{
    enum { ROUNDS_MAX = 64 };

    double values[ROUNDS_MAX];
    size_t count = 0;
    for (uint32_t other = 0; other < csv->rows && count < ROUNDS_MAX; other++) {
        double value = plot_csv_number(csv, other, at->value);
        if (!source_same(csv, at, row, other)) {
            continue;
        }
        if (other < row) {
            return (double)NAN;
        }
        if (strcmp(plot_csv_cell(csv, other, (uint32_t)at->status), "done") == 0 && !isnan(value)) {
            values[count++] = value;
        }
    }
    if (count == 0) {
        return (double)NAN;
    }
    qsort(values, count, sizeof *values, source_compare_doubles);
    return (values[(count - 1) / 2] + values[count / 2]) / 2;
}

bool
plot_bars_from_csv(struct plot_bars *bars, const struct plot_csv *csv)
{
    enum { ROWS_MAX = 10000 }; /* what follows compares each with each */
    const struct source_columns at = {plot_csv_column(csv, "workload"), plot_csv_column(csv, "series"),
                                      plot_csv_column(csv, "engine"),   plot_csv_column(csv, "status"),
                                      plot_csv_column(csv, "unit"),     plot_csv_column(csv, "value")};
    if (at.workload < 0 || at.series < 0 || at.engine < 0 || at.status < 0 || at.unit < 0 || at.value < 0 ||
        csv->rows > ROWS_MAX) {
        return false;
    }
    for (uint32_t row = 0; row < csv->rows; row++) {
        char name[2 * PLOT_WORD_BYTES];
        const char *series = plot_csv_cell(csv, row, (uint32_t)at.series);
        (void)snprintf(name, sizeof name, "%.60s%s%.60s", plot_csv_cell(csv, row, (uint32_t)at.workload),
                       *series != 0 ? " " : "", series);
        double median = source_median(csv, &at, row);
        int engine = source_engine(bars, plot_csv_cell(csv, row, (uint32_t)at.engine));
        struct plot_bar_line *line = source_line(bars, name, plot_csv_cell(csv, row, (uint32_t)at.unit));
        if (!isnan(median) && engine >= 0 && line != NULL) {
            line->values[engine] = median;
        }
    }
    return bars->line_count > 0;
}

struct source_json {
    struct plot_bars *bars;
    struct plot_bar_line *line;
    char name[PLOT_WORD_BYTES];
};

/* "lines", star, "engines", NAME, "median". */
static bool
source_visit(void *ctx, const char *path, const struct bench_json_value *value)
{
    static const char prefix[] = "lines/*/engines/";
    struct source_json *json = ctx;
    if (strcmp(path, "lines/*/line") == 0 && value->kind == BENCH_JSON_STRING) {
        (void)snprintf(json->name, sizeof json->name, "%.63s", value->text);
    } else if (strcmp(path, "lines/*/unit") == 0 && value->kind == BENCH_JSON_STRING) {
        json->line = source_line(json->bars, json->name, value->text);
    } else if (strncmp(path, prefix, sizeof prefix - 1) == 0 && value->kind == BENCH_JSON_NUMBER) {
        char engine[PLOT_WORD_BYTES] = "";
        const char *name = path + sizeof prefix - 1;
        const char *slash = strchr(name, '/');
        if (slash != NULL && strcmp(slash, "/median") == 0 && isfinite(value->number) && json->line != NULL) {
            (void)snprintf(engine, sizeof engine, "%.*s", (int)MIN(slash - name, 60), name);
            int index = source_engine(json->bars, engine);
            if (index >= 0) {
                json->line->values[index] = value->number;
            }
        }
    }
    return true;
}

bool
plot_bars_from_json(struct plot_bars *bars, struct bytes text)
{
    struct source_json json = {.bars = bars};
    return bench_json_read((const char *)text.ptr, text.len, source_visit, &json) && bars->line_count > 0 &&
           bars->engine_count > 0;
}

/* ---- Files --------------------------------------------------------------------------- */

static bool
source_has(const struct plot_csv *csv, const char *const names[], size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (plot_csv_column(csv, names[i]) < 0) {
            return false;
        }
    }
    return csv->rows > 0;
}

static bool
source_recognise(struct plot_source *source)
{
    static const char *const workload[] = {
        "config_label", "writer_p50_ms", "writer_p99_ms", "read_p50_ms",
        "read_p99_ms",  "total_writes",  "total_reads",   "precondition_failure_rate"};
    static const char *const series[] = {"config_label", "role", "second", "p50_ms", "p99_ms", "max_ms"};
    if (source_has(&source->csv, workload, COUNTOF(workload))) {
        source->kind = PLOT_WORKLOAD;
        return true;
    }
    if (source_has(&source->csv, series, COUNTOF(series))) {
        source->kind = PLOT_SERIES;
        return true;
    }
    source->kind = PLOT_BENCH;
    source->bars = calloc(1, sizeof *source->bars);
    return source->bars != NULL && plot_bars_from_csv(source->bars, &source->csv);
}

static bool
source_parse_csv(struct plot_source *source, struct bytes text, char *what, size_t what_size)
{
    struct plot_csv_fault fault = {.what = "out of memory"};
    if (plot_csv_parse(text, &source->csv, &fault) != ESKER_OK) {
        (void)snprintf(what, what_size, "line %llu: %s", (unsigned long long)fault.line, fault.what);
        return false;
    }
    if (!source_recognise(source)) {
        (void)snprintf(what, what_size, "neither results of workload nor of bench, or without a row");
        plot_source_close(source);
        return false;
    }
    return true;
}

bool
plot_source_parse(struct plot_source *source, const char *path, struct bytes text, char *what,
                  size_t what_size)
{
    const char *slash = strrchr(path, '/');
    const char *dot = strrchr(path, '.');
    *source = (struct plot_source){.path = path, .name = slash != NULL ? slash + 1 : path};
    if (dot == NULL || strcmp(dot, ".json") != 0) {
        return source_parse_csv(source, text, what, what_size);
    }
    source->kind = PLOT_BENCH;
    source->bars = calloc(1, sizeof *source->bars);
    if (source->bars == NULL || !plot_bars_from_json(source->bars, text)) {
        (void)snprintf(what, what_size, "no results.json of bench");
        plot_source_close(source);
        return false;
    }
    return true;
}

/* The whole file, or false after saying why not. */
static bool
source_read(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t done = fd < 0 ? -1 : 1;
    while (done > 0 && out->len <= PLOT_CSV_BYTES_MAX && buf_reserve(out, 65536) == ESKER_OK) {
        done = read(fd, out->ptr + out->len, 65536);
        if (done < 0 && errno == EINTR) {
            done = 1;
            continue;
        }
        out->len += done > 0 ? (size_t)done : 0;
    }
    if (done < 0) {
        tool_say("cannot read %s: %s", path, strerrordesc_np(errno));
    } else if (done > 0) {
        tool_say("%s is larger than 64 MiB, or memory ran out", path);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return done == 0;
}

bool
plot_source_open(struct plot_source *source, const char *path)
{
    char what[256] = "";
    struct buf text;
    buf_init(&text, &mem_default);
    bool read_whole = source_read(path, &text);
    bool good = read_whole && plot_source_parse(source, path, buf_bytes(&text), what, sizeof what);
    buf_fini(&text);
    if (read_whole && !good) {
        tool_say("%s: %s", path, what);
    }
    return good;
}

void
plot_source_close(struct plot_source *source)
{
    if (source->csv.cells != NULL) {
        plot_csv_fini(&source->csv);
    }
    free(source->bars);
    source->bars = NULL;
}
