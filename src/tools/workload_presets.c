/* SPDX-License-Identifier: MIT */
/* The plans that have a name. */
#include <stdio.h>

#include "tools/workload.h"

static void
presets_baseline(struct workload_config *config, uint32_t row)
{
    (void)config;
    (void)row;
}

/* 1 to 3 writers, each at five rates, beside 2 readers at 100/s. */
static void
presets_sweep(struct workload_config *config, uint32_t row)
{
    static const double rates[] = {0.02, 0.05, 0.1, 0.15, 0.2};
    config->seconds = 60;
    config->clients[WORKLOAD_MONOTONIC] = 1 + row / 5;
    config->rate[WORKLOAD_MONOTONIC] = rates[row % 5];
}

static void
presets_original(struct workload_config *config, uint32_t row)
{
    (void)row;
    config->clients[WORKLOAD_COMPACTOR] = 1;
}

/* 1 to 5 readers at three rates, a writer at four, a compactor. */
static void
presets_sweep_original(struct workload_config *config, uint32_t row)
{
    static const double writer_rates[] = {0.02, 0.04, 0.06, 0.08};
    static const double reader_rates[] = {100, 200, 300};
    config->seconds = 60;
    config->clients[WORKLOAD_COMPACTOR] = 1;
    config->clients[WORKLOAD_READER] = 1 + row / 12;
    config->rate[WORKLOAD_READER] = reader_rates[row / 4 % 3];
    config->rate[WORKLOAD_MONOTONIC] = writer_rates[row % 4];
}

/* Writers of every kind and readers, all at moderate rates. */
static void
presets_mixed(struct workload_config *config)
{
    config->clients[WORKLOAD_MONOTONIC] = 1;
    config->rate[WORKLOAD_MONOTONIC] = 10;
    config->clients[WORKLOAD_RANDOM] = 2;
    config->rate[WORKLOAD_RANDOM] = 10;
    config->pool_keys = 1000;
    config->clients[WORKLOAD_COMPACTOR] = 1;
    config->compactor_sleep = 0.001;
    config->clients[WORKLOAD_READER] = 2;
}

static void
presets_soak(struct workload_config *config, uint32_t row)
{
    (void)row;
    presets_mixed(config);
    config->seconds = 3600;
}

static void
presets_ramp(struct workload_config *config, uint32_t row)
{
    (void)row;
    presets_mixed(config);
    config->shape = WORKLOAD_RAMP;
    config->rate[WORKLOAD_MONOTONIC] = 50;
    config->rate[WORKLOAD_RANDOM] = 50;
    config->rate[WORKLOAD_READER] = 2000;
    config->seconds = 60;
}

static void
presets_burst(struct workload_config *config, uint32_t row)
{
    presets_ramp(config, row);
    config->shape = WORKLOAD_BURST;
}

static void
presets_readers(struct workload_config *config, uint32_t row)
{
    (void)row;
    config->rate[WORKLOAD_MONOTONIC] = 10;
    config->clients[WORKLOAD_READER] = 1000;
    config->rate[WORKLOAD_READER] = 10;
    config->seconds = 60;
}

static void
presets_writers(struct workload_config *config, uint32_t row)
{
    (void)row;
    config->clients[WORKLOAD_MONOTONIC] = 10;
    config->rate[WORKLOAD_MONOTONIC] = 20;
    config->seconds = 60;
}

static void
presets_fill(struct workload_config *config, uint32_t row)
{
    (void)row;
    config->rate[WORKLOAD_MONOTONIC] = 0;
    config->ops_max = 500000;
    config->seconds = 20;
}

struct presets_scenario {
    const char *label;
    struct workload_chaos chaos;
};

/* The first seven are the plan's, at its rates; where it has a network there is a disk. */
static const struct presets_scenario presets_scenarios[] = {
    {"baseline", {0}},
    {"io-delay-100ms", {.io_delay_ms = 100}},
    {"io-delay-200ms", {.io_delay_ms = 200}},
    {"io-delay-500ms", {.io_delay_ms = 500}},
    {"stopped-10s-3x", {.stops = 3, .stop_seconds = 10}},
    {"cpu-4-80pct", {.hogs = 4, .hog_percent = 80}},
    {"combined-200ms-4-80pct", {.io_delay_ms = 200, .hogs = 4, .hog_percent = 80}},
    {"killed-3x", {.kills = 3}},
    {"io-fails-4x", {.io_fails = 4}},
};

static void
presets_chaos(struct workload_config *config, uint32_t row)
{
    const struct workload_chaos *chaos = &presets_scenarios[row].chaos;
    if (chaos->kills > 0 || chaos->io_fails > 0) {
        presets_mixed(config); /* so that something is under way when it happens */
    } else {
        config->clients[WORKLOAD_COMPACTOR] = 1;
    }
    config->chaos = *chaos;
    (void)snprintf(config->label, sizeof config->label, "%s", presets_scenarios[row].label);
}

const struct workload_preset workload_presets[] = {
    {"baseline", "1 writer at 0.1/s, 2 readers at 100/s each, 120 s", 1, presets_baseline},
    {"sweep", "writers 1 to 3, rates 0.02 to 0.2, 60 s each: 15 rows", 15, presets_sweep},
    {"baseline-original", "the baseline with a compactor at 0.05/s that sleeps for 5 s", 1, presets_original},
    {"sweep-original", "readers 1 to 5 at 100 to 300/s, writer 0.02 to 0.08/s, compactor: 60 rows", 60,
     presets_sweep_original},
    {"soak", "every role at moderate rates for an hour", 1, presets_soak},
    {"ramp", "every role, rates growing from a tenth, 60 s", 1, presets_ramp},
    {"burst", "every role, six bursts of four times the rate, 60 s", 1, presets_burst},
    {"readers-1000", "1,000 readers at 10/s each beside a writer at 10/s, 60 s", 1, presets_readers},
    {"writers-10", "10 writers at 20/s each, which conflict, 60 s", 1, presets_writers},
    {"fill", "one writer as fast as it can, up to 500,000 keys or 20 s; for --series", 1, presets_fill},
    {"chaos", "every role under 8 disturbances and none, 120 s each: 9 rows", COUNTOF(presets_scenarios),
     presets_chaos},
};

const uint32_t workload_preset_count = COUNTOF(workload_presets);
