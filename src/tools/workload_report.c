/* SPDX-License-Identifier: MIT */
#include "tools/workload_report.h"

#include <inttypes.h>
#include <string.h>

#include "tools/text_units.h"

/* ---- For people ------------------------------------------------------------------- */

static void
report_role(FILE *out, const struct workload_config *config, const struct workload_result *result,
            enum workload_role role)
{
    const struct workload_role_result *of = &result->roles[role];
    char texts[5][TEXT_UNIT_BYTES];

    static const struct {
        uint64_t part, whole;
    } quantiles[] = {{50, 100}, {95, 100}, {99, 100}, {999, 1000}, {1, 1}};

    for (size_t i = 0; i < COUNTOF(quantiles); i++) {
        (void)text_duration(histogram_quantile(&of->latency, quantiles[i].part, quantiles[i].whole),
                            texts[i]);
    }
    (void)fprintf(out, "  %4u %-13s %9" PRIu64 " done   p50 %s, p95 %s, p99 %s, p99.9 %s, max %s\n",
                  config->clients[role], workload_role_names[role], of->done, texts[0], texts[1], texts[2],
                  texts[3], texts[4]);
    if (role != WORKLOAD_READER || of->errors > 0) {
        (void)fprintf(out,
                      "                     %9" PRIu64 " conflicts, %" PRIu64 " retries, %" PRIu64
                      " given up, %" PRIu64 " errors\n",
                      of->conflicts, of->retries, of->retry_failures, of->errors);
    }
}

void
workload_report_row(FILE *out, const struct workload_config *config, const struct workload_result *result)
{
    char time[TEXT_UNIT_BYTES];
    char chaos[64];
    workload_chaos_print(&config->chaos, chaos, sizeof chaos);
    (void)fprintf(out, "%s  (%s", config->label, text_duration(result->wall_ns, time));
    if (strcmp(chaos, "none") != 0) {
        (void)fprintf(out, ", %s", chaos);
    }
    if (result->restarts > 0) {
        (void)fprintf(out, ", opened again %u times", result->restarts);
    }
    (void)fprintf(out, ")\n");
    for (enum workload_role role = 0; role < WORKLOAD_ROLES; role++) {
        if (config->clients[role] > 0) {
            report_role(out, config, result, role);
        }
    }
    if (!result->finished) {
        (void)fprintf(out, "  FAILED: %s\n", result->failure);
    }
    (void)fflush(out);
}

bool
workload_report_verdicts(FILE *out, const struct workload_config *configs,
                         const struct workload_result *const *results, uint32_t count)
{
    bool all = true;
    char number[TEXT_UNIT_BYTES];
    for (int i = 0; i < WORKLOAD_CHECKS; i++) {
        uint64_t looked_at = 0;
        uint64_t faults = 0;
        uint32_t worst = count;
        for (uint32_t row = 0; row < count; row++) {
            const struct workload_verdict *verdict = &results[row]->verdicts[i];
            looked_at += verdict->looked_at;
            faults += verdict->faults;
            if (worst == count && (verdict->faults > 0 || !verdict->done)) {
                worst = row;
            }
        }
        (void)fprintf(out, "%s  %s (%s looked at", worst == count ? "PASS" : "FAIL", workload_check_names[i],
                      text_count(looked_at, number));
        if (worst < count) {
            (void)fprintf(out, ", %s wrong; %s: %s", text_count(faults, number), configs[worst].label,
                          results[worst]->verdicts[i].story);
        }
        (void)fprintf(out, ")\n");
        all = all && worst == count;
    }
    return all;
}

/* ---- CSV ----------------------------------------------------------------------------- */

/* Writers of both kinds in one, as the plan counts them. */
static void
report_writers(const struct workload_result *result, struct workload_role_result *out)
{
    static const enum workload_role roles[] = {WORKLOAD_MONOTONIC, WORKLOAD_RANDOM};

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < COUNTOF(roles); i++) {
        const struct workload_role_result *of = &result->roles[roles[i]];
        out->done += of->done;
        out->attempts += of->attempts;
        out->conflicts += of->conflicts;
        out->retries += of->retries;
        out->retry_failures += of->retry_failures;
        out->errors += of->errors;
        histogram_merge(&out->latency, &of->latency);
        histogram_merge(&out->service, &of->service);
    }
}

static double
report_ms(const struct histogram *histogram, uint64_t part, uint64_t whole)
{
    return (double)histogram_quantile(histogram, part, whole) / 1e6;
}

void
workload_csv_header(FILE *out)
{
    (void)fprintf(out, "config_label,num_writers,num_readers,writer_rate,reader_rate,duration_secs,"
                       "total_writes,total_reads,write_tps,read_tps,"
                       "writer_p50_ms,writer_p95_ms,writer_p99_ms,read_p50_ms,read_p95_ms,read_p99_ms,"
                       "precondition_failure_rate");
    (void)fprintf(out, ",writer_p999_ms,writer_max_ms,read_p999_ms,read_max_ms,"
                       "writer_service_p50_ms,writer_service_p99_ms,read_service_p50_ms,read_service_p99_ms");
    for (enum workload_role role = 0; role < WORKLOAD_READER; role++) {
        const char *name = role == WORKLOAD_RANDOM ? "random" : workload_role_names[role];
        name = role == WORKLOAD_MONOTONIC ? "monotonic" : name;
        (void)fprintf(out,
                      ",%s_clients,%s_rate,%s_done,%s_conflicts,%s_retries,%s_retry_failures,%s_errors,"
                      "%s_p50_ms,%s_p95_ms,%s_p99_ms,%s_p999_ms,%s_max_ms",
                      name, name, name, name, name, name, name, name, name, name, name, name);
    }
    (void)fprintf(out, ",time_scale,wall_secs,value_bytes,chaos,restarts,keys_left,verification\n");
}

static void
report_quantiles(FILE *out, const struct histogram *histogram)
{
    (void)fprintf(out, ",%.6g,%.6g,%.6g", report_ms(histogram, 50, 100), report_ms(histogram, 95, 100),
                  report_ms(histogram, 99, 100));
}

static void
report_tail(FILE *out, const struct histogram *histogram)
{
    (void)fprintf(out, ",%.6g,%.6g", report_ms(histogram, 999, 1000), (double)histogram->max / 1e6);
}

static void
report_plan_columns(FILE *out, const struct workload_config *config, const struct workload_result *result,
                    const struct workload_role_result *writers)
{
    const struct workload_role_result *readers = &result->roles[WORKLOAD_READER];
    /* Rates of the plan: as if the clock ran time_scale times as fast. */
    double seconds = (double)MAX(result->span_ns, (uint64_t)1) / 1e9 * config->time_scale;
    uint64_t attempts = writers->attempts + result->roles[WORKLOAD_COMPACTOR].attempts;
    uint64_t conflicts = writers->conflicts + result->roles[WORKLOAD_COMPACTOR].conflicts;
    (void)fprintf(out, "%s,%u,%u,%g,%.1f,%g,%" PRIu64 ",%" PRIu64 ",%.6g,%.6g", config->label,
                  config->clients[WORKLOAD_MONOTONIC] + config->clients[WORKLOAD_RANDOM],
                  config->clients[WORKLOAD_READER], config->rate[WORKLOAD_MONOTONIC],
                  config->rate[WORKLOAD_READER], config->seconds, writers->done, readers->done,
                  (double)writers->done / seconds, (double)readers->done / seconds);
    report_quantiles(out, &writers->latency);
    report_quantiles(out, &readers->latency);
    (void)fprintf(out, ",%.4f", attempts > 0 ? (double)conflicts / (double)attempts : 0);
}

void
workload_csv_row(FILE *out, const struct workload_config *config, const struct workload_result *result)
{
    static struct workload_role_result writers; /* large */
    const struct workload_role_result *readers = &result->roles[WORKLOAD_READER];
    char chaos[64];
    report_writers(result, &writers);
    report_plan_columns(out, config, result, &writers);
    report_tail(out, &writers.latency);
    report_tail(out, &readers->latency);
    (void)fprintf(out, ",%.6g,%.6g,%.6g,%.6g", report_ms(&writers.service, 50, 100),
                  report_ms(&writers.service, 99, 100), report_ms(&readers->service, 50, 100),
                  report_ms(&readers->service, 99, 100));
    for (enum workload_role role = 0; role < WORKLOAD_READER; role++) {
        const struct workload_role_result *of = &result->roles[role];
        (void)fprintf(out, ",%u,%g,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64,
                      config->clients[role], config->clients[role] > 0 ? config->rate[role] : 0, of->done,
                      of->conflicts, of->retries, of->retry_failures, of->errors);
        report_quantiles(out, &of->latency);
        report_tail(out, &of->latency);
    }
    workload_chaos_print(&config->chaos, chaos, sizeof chaos);
    for (char *at = chaos; *at != 0; at++) {
        *at = *at == ',' ? '+' : *at;
    }
    (void)fprintf(out, ",%g,%.3f,%u,%s,%u,%" PRIu64 ",%s\n", config->time_scale,
                  (double)result->wall_ns / 1e9, config->value_bytes, chaos, result->restarts,
                  result->keys_left,
                  !config->verify                ? "not asked for"
                  : workload_result_good(result) ? "PASS"
                                                 : "FAIL");
}

void
workload_series_header(FILE *out)
{
    (void)fprintf(out, "config_label,role,second,ops,p50_ms,p99_ms,max_ms\n");
}

void
workload_series_rows(FILE *out, const struct workload_config *config, const struct workload_result *result)
{
    for (enum workload_role role = 0; role < WORKLOAD_ROLES; role++) {
        for (uint32_t i = 0; i < WORKLOAD_SLICES && config->clients[role] > 0; i++) {
            const struct workload_slice *slice = &result->slices[role][i];
            if (slice->ops > 0) {
                (void)fprintf(
                    out, "%s,%s,%.6g,%" PRIu64 ",%.6g,%.6g,%.6g\n", config->label, workload_role_names[role],
                    config->seconds * (i + 0.5) / (double)WORKLOAD_SLICES, slice->ops,
                    (double)slice->p50_ns / 1e6, (double)slice->p99_ns / 1e6, (double)slice->max_ns / 1e6);
            }
        }
    }
}
