/* SPDX-License-Identifier: MIT */
/* results.json, results.csv and one .hgrm file per line and engine. */
#include "tools/bench_score.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "tools/bench_hgrm.h"
#include "tools/bench_work.h"

static const char *const save_statuses[] = {"pending", "done", "skipped", "failed", "wrong"};

static void
save_string(FILE *out, const char *text)
{
    (void)fputc('"', out);
    for (; *text != 0; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\') {
            fprintf(out, "\\%c", byte);
        } else if (byte < 0x20 || byte >= 0x7f) {
            fprintf(out, "\\u%04x", byte);
        } else {
            (void)fputc(byte, out);
        }
    }
    (void)fputc('"', out);
}

static void
save_number(FILE *out, double value)
{
    if (isfinite(value)) {
        fprintf(out, "%.15g", value);
    } else {
        fprintf(out, "null");
    }
}

static void
save_named_string(FILE *out, const char *name, const char *text, const char *after)
{
    fprintf(out, "\"%s\": ", name);
    save_string(out, text);
    (void)fputs(after, out);
}

static void
save_named_number(FILE *out, const char *name, double value, const char *after)
{
    fprintf(out, "\"%s\": ", name);
    save_number(out, value);
    (void)fputs(after, out);
}

static void
save_machine(const struct bench_machine *machine, FILE *out)
{
    fprintf(out, "  \"machine\": {");
    save_named_string(out, "cpu", machine->cpu, ", ");
    save_named_number(out, "cores", machine->cores, ", ");
    save_named_number(out, "memory_bytes", (double)machine->memory_bytes, ", ");
    save_named_string(out, "kernel", machine->kernel, ", ");
    save_named_string(out, "file_system", machine->file_system, ", ");
    save_named_string(out, "virtualisation", machine->virtualisation, ", ");
    save_named_string(out, "compiler", machine->compiler, ", ");
    save_named_number(out, "load_before", machine->load_before, ", ");
    save_named_number(out, "instrument_ns", machine->instrument_ns, "},\n");
}

static void
save_parameters(const struct bench_board *board, FILE *out)
{
    const struct bench_config *config = &board->cells->config;
    fprintf(out, "  \"parameters\": {");
    save_named_number(out, "records", (double)config->records, ", ");
    save_named_number(out, "key_bytes", BENCH_KEY_BYTES, ", ");
    save_named_number(out, "value_bytes", config->value_bytes, ", ");
    save_named_number(out, "phase_seconds", (double)config->phase_ns / 1e9, ", ");
    save_named_number(out, "seed", (double)config->seed, ", ");
    save_named_number(out, "threads", config->threads, ", ");
    save_named_number(out, "cold_percent", config->cold_percent, ", ");
    save_named_string(out, "cgroup", board->cells->cgroup[0] == 0 ? "" : "given", ", ");
    fprintf(out, "\"drop_caches\": %s},\n", config->drop_caches ? "true" : "false");
}

/* Settings follow from the budget, so they are shown for one writing and one reading workload. */
static void
save_engines(const struct bench_board *board, FILE *out)
{
    static const char *const shown[] = {"fillrandom", "fillsync-1", "readrandom", "readcold"};
    fprintf(out, "  \"engines\": [\n");
    for (uint32_t i = 0; i < board->cells->engine_count; i++) {
        const struct bench_engine *engine = board->cells->engines[i];
        char text[512];
        engine->version(text, sizeof text);
        fprintf(out, "    {");
        save_named_string(out, "name", engine->name, ", ");
        save_named_string(out, "version", text, ", \"settings\": {");
        const char *between = "";
        for (uint32_t j = 0; j < bench_workload_count; j++) {
            for (uint32_t k = 0; k < COUNTOF(shown); k++) {
                if (strcmp(bench_workloads[j].name, shown[k]) == 0) {
                    struct bench_setup setup;
                    struct bench_config config;
                    bench_cell_setup(&board->cells->config, &bench_workloads[j], &setup, &config);
                    engine->settings(&setup, text, sizeof text);
                    (void)fputs(between, out);
                    save_named_string(out, shown[k], text, "");
                    between = ", ";
                }
            }
        }
        fprintf(out, "}}%s\n", i + 1 < board->cells->engine_count ? "," : "");
    }
    fprintf(out, "  ],\n");
}

static void
save_series(const struct bench_series_summary *series, FILE *out)
{
    fprintf(out, "{");
    save_named_string(out, "name", series->name, ", ");
    save_named_number(out, "ops", (double)series->ops, ", ");
    save_named_number(out, "rate", series->rate, ", ");
    save_named_number(out, "own_cpu_ns_per_op", series->cpu_ns_per_op, ", ");
    save_named_number(out, "mean_us", series->mean_us, ", ");
    save_named_number(out, "p50_us", series->p50_us, ", ");
    save_named_number(out, "p90_us", series->p90_us, ", ");
    save_named_number(out, "p99_us", series->p99_us, ", ");
    save_named_number(out, "p999_us", series->p999_us, ", ");
    save_named_number(out, "max_us", series->max_us, "}");
}

static void
save_cell(const struct bench_board *board, const struct bench_cell_record *record, FILE *out)
{
    const struct bench_workload *workload = &bench_workloads[record->workload];
    fprintf(out, "    {");
    save_named_string(out, "workload", workload->name, ", ");
    save_named_string(out, "engine", board->cells->engines[record->engine]->name, ", ");
    save_named_number(out, "round", record->round, ", ");
    save_named_string(out, "status", save_statuses[record->status], ", ");
    save_named_string(out, "reason", record->reason, ", ");
    save_named_string(out, "unit", workload->unit, ", ");
    save_named_string(out, "better", workload->lower_is_better ? "lower" : "higher", ", ");
    save_named_number(out, "value", record->value, ", ");
    save_named_number(out, "wrong", (double)record->wrong, ", ");
    save_named_number(out, "ops", (double)record->ops, ", ");
    save_named_number(out, "wall_ns_per_op", (double)record->wall_ns / (double)MAX(record->ops, 1u), ", ");
    save_named_number(out, "cpu_ns_per_op", (double)record->cpu_ns / (double)MAX(record->ops, 1u), ", ");
    fprintf(out, "\"series\": [");
    for (uint32_t i = 0; i < record->series_count; i++) {
        (void)fputs(i == 0 ? "" : ", ", out);
        save_series(&record->series[i], out);
    }
    fprintf(out, "], \"metrics\": {");
    for (uint32_t i = 0; i < record->metric_count; i++) {
        save_named_number(out, record->metrics[i].name, record->metrics[i].value,
                          i + 1 < record->metric_count ? ", " : "");
    }
    fprintf(out, "}}");
}

static void
save_line(const struct bench_board *board, const struct bench_line *line, FILE *out)
{
    fprintf(out, "    {");
    save_named_string(out, "line", line->name, ", ");
    save_named_string(out, "workload", bench_workloads[line->workload].name, ", ");
    save_named_string(out, "what", bench_workloads[line->workload].what, ", ");
    save_named_string(out, "unit", bench_workloads[line->workload].unit, ", ");
    save_named_string(out, "better", line->lower_is_better ? "lower" : "higher", ", \"engines\": {");
    for (uint32_t i = 0; i < board->cells->engine_count; i++) {
        const struct bench_score *score = &line->scores[i];
        fprintf(out, "%s\"%s\": {", i == 0 ? "" : ", ", board->cells->engines[i]->name);
        save_named_string(out, "status", save_statuses[bench_line_status(board, line, i)], ", ");
        save_named_number(out, "rounds", score->rounds, ", ");
        save_named_number(out, "median", bench_median(score->values, BENCH_ROUNDS_MAX), ", ");
        save_named_number(out, "esker_times_better", bench_line_ratio(line, i), ", ");
        save_named_number(out, "cpu_ns_per_op", bench_median(score->cpu_ns_per_op, BENCH_ROUNDS_MAX), ", ");
        save_named_number(out, "own_cpu_ns_per_op", bench_median(score->own_cpu_ns_per_op, BENCH_ROUNDS_MAX),
                          ", ");
        bool timed = score->latency != NULL && score->latency->count > 0;
        double nan = (double)NAN;
        save_named_number(out, "p50_us",
                          timed ? (double)histogram_quantile(score->latency, 50, 100) / 1e3 : nan, ", ");
        save_named_number(out, "p99_us",
                          timed ? (double)histogram_quantile(score->latency, 99, 100) / 1e3 : nan, ", ");
        save_named_number(out, "p999_us",
                          timed ? (double)histogram_quantile(score->latency, 999, 1000) / 1e3 : nan, ", ");
        save_named_number(out, "max_us", timed ? (double)score->latency->max / 1e3 : nan, "}");
    }
    fprintf(out, "}}");
}

static void
save_json(const struct bench_board *board, FILE *out)
{
    fprintf(out, "{\n  \"format\": 1,\n  \"command\": [");
    for (int i = 0; i < board->argc; i++) {
        (void)fputs(i == 0 ? "" : ", ", out);
        save_string(out, board->argv[i]);
    }
    fprintf(out, "],\n  ");
    save_named_string(out, "started", board->started, ",\n  ");
    save_named_number(out, "wall_seconds", board->wall_seconds, ",\n  ");
    save_named_number(out, "rounds", board->rounds, ",\n  ");
    save_named_number(out, "wrong_answers", (double)board->wrong, ",\n  ");
    save_named_number(out, "failed_cells", (double)board->failed, ",\n");
    save_machine(&board->machine, out);
    save_parameters(board, out);
    save_engines(board, out);
    fprintf(out, "  \"lines\": [\n");
    for (uint32_t i = 0; i < board->line_count; i++) {
        save_line(board, &board->lines[i], out);
        (void)fputs(i + 1 < board->line_count ? ",\n" : "\n", out);
    }
    fprintf(out, "  ],\n  \"cells\": [\n");
    for (uint32_t i = 0; i < board->record_count; i++) {
        save_cell(board, &board->records[i], out);
        (void)fputs(i + 1 < board->record_count ? ",\n" : "\n", out);
    }
    fprintf(out, "  ]\n}\n");
}

static void
save_csv(const struct bench_board *board, FILE *out)
{
    fprintf(out, "workload,series,engine,round,status,unit,value,ops,wall_ns_per_op,cpu_ns_per_op,"
                 "p50_us,p99_us,p999_us,max_us,own_cpu_ns_per_op\n");
    for (uint32_t i = 0; i < board->record_count; i++) {
        const struct bench_cell_record *record = &board->records[i];
        const struct bench_workload *workload = &bench_workloads[record->workload];
        for (uint32_t j = 0; j < MAX(record->series_count, 1u); j++) {
            const struct bench_series_summary *series = &record->series[j];
            bool rate = record->series_count > 0 && !workload->lower_is_better;
            double ops = (double)MAX(record->ops, 1u);
            fprintf(out, "%s,%s,%s,%u,%s,%s,%.10g,%llu,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g\n", workload->name,
                    series->name, board->cells->engines[record->engine]->name, record->round,
                    save_statuses[record->status], workload->unit, rate ? series->rate : record->value,
                    (unsigned long long)record->ops, (double)record->wall_ns / ops,
                    (double)record->cpu_ns / ops, series->p50_us, series->p99_us, series->p999_us,
                    series->max_us, series->cpu_ns_per_op);
        }
    }
}

static void
save_hgrm_name(const struct bench_board *board, const struct bench_line *line, uint32_t engine,
               const char *dir, char *out, size_t cap)
{
    int len = snprintf(out, cap, "%s/hgrm/%s.%s.hgrm", dir, line->name, board->cells->engines[engine]->name);
    for (int i = (int)strlen(dir); i < len && i < (int)cap; i++) {
        out[i] = out[i] == ' ' ? '.' : out[i];
    }
}

static int
save_hgrm(const struct bench_board *board, const char *dir)
{
    char path[BENCH_PATH_MAX + 128];
    for (uint32_t i = 0; i < board->line_count; i++) {
        for (uint32_t j = 0; j < board->cells->engine_count; j++) {
            const struct histogram *latency = board->lines[i].scores[j].latency;
            if (latency == NULL || latency->count == 0) {
                continue;
            }
            save_hgrm_name(board, &board->lines[i], j, dir, path, sizeof path);
            FILE *out = fopen(path, "w");
            if (out == NULL) {
                return BENCH_FAILED;
            }
            bench_hgrm_print(latency, out);
            if (fclose(out) != 0) {
                return BENCH_FAILED;
            }
        }
    }
    return BENCH_OK;
}

static int
save_file(const struct bench_board *board, const char *dir, const char *name,
          void (*write_it)(const struct bench_board *, FILE *))
{
    char path[BENCH_PATH_MAX + 64];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *out = fopen(path, "w");
    if (out == NULL) {
        fprintf(stderr, "esker: cannot write %s: %s\n", path, strerror(errno));
        return BENCH_FAILED;
    }
    write_it(board, out);
    bool good = ferror(out) == 0;
    return fclose(out) == 0 && good ? BENCH_OK : BENCH_FAILED;
}

int
bench_board_save(const struct bench_board *board, const char *dir)
{
    char path[BENCH_PATH_MAX + 64];
    (void)snprintf(path, sizeof path, "%s/hgrm", dir);
    (void)mkdir(dir, 0777);
    (void)mkdir(path, 0777);
    if (save_file(board, dir, "results.json", save_json) != BENCH_OK ||
        save_file(board, dir, "results.csv", save_csv) != BENCH_OK) {
        return BENCH_FAILED;
    }
    return save_hgrm(board, dir);
}
