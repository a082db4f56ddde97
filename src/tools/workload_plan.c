/* SPDX-License-Identifier: MIT */
/* What a row is made of: defaults, labels, what is allowed, and when a transaction is due. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/workload_area.h"

const char *const workload_role_names[WORKLOAD_ROLES] = {
    [WORKLOAD_MONOTONIC] = "writer",
    [WORKLOAD_RANDOM] = "random-writer",
    [WORKLOAD_COMPACTOR] = "compactor",
    [WORKLOAD_READER] = "reader",
};

const char *const workload_inject_names[WORKLOAD_INJECTS] = {
    [WORKLOAD_INJECT_NOTHING] = "nothing",       [WORKLOAD_INJECT_LOST_COMMIT] = "lost-commit",
    [WORKLOAD_INJECT_TORN_BATCH] = "torn-batch", [WORKLOAD_INJECT_STALE_SNAPSHOT] = "stale-snapshot",
    [WORKLOAD_INJECT_READ_SKEW] = "read-skew",   [WORKLOAD_INJECT_NON_MONOTONIC] = "non-monotonic",
    [WORKLOAD_INJECT_DIRTY_READ] = "dirty-read", [WORKLOAD_INJECT_BLIND_WRITE] = "blind-write",
};

void
workload_config_init(struct workload_config *config)
{
    *config = (struct workload_config){
        .clients = {[WORKLOAD_MONOTONIC] = 1, [WORKLOAD_READER] = 2},
        .rate = {[WORKLOAD_MONOTONIC] = 0.1,
                 [WORKLOAD_RANDOM] = 1,
                 [WORKLOAD_COMPACTOR] = 0.05,
                 [WORKLOAD_READER] = 100},
        .seconds = 120,
        .time_scale = 1,
        .value_bytes = 256,
        .retries_max = 10,
        .compactor_reads = 2,
        .compactor_sleep = 5,
        .pool_keys = 0,
        .overlap = 0.5,
        .delete_ratio = 0.1,
        .ops_max = 1000000,
        .seed = 1,
        .verify = true,
    };
}

bool
workload_inject_parse(const char *text, enum workload_inject *out)
{
    for (enum workload_inject i = 0; i < WORKLOAD_INJECTS; i++) {
        if (strcmp(text, workload_inject_names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    return false;
}

/* ---- Chaos in words ----------------------------------------------------------- */

/* A decimal number of at most 1e9 at *at; what follows it is left there. */
static bool
plan_take_number(const char **at, double *out)
{
    char digits[32] = "";
    size_t len = strspn(*at, "0123456789.");
    char *end = NULL;
    if (len == 0 || len >= sizeof digits || **at == '.') {
        return false; /* strtod would take more than that */
    }
    memcpy(digits, *at, len);
    *out = strtod(digits, &end);
    *at += len;
    return *end == 0 && *out <= 1e9;
}

static bool
plan_take_count(const char **at, uint32_t *out)
{
    double number = 0;
    if (!plan_take_number(at, &number) || number != floor(number) || number < 1 || number > 1000) {
        return false;
    }
    *out = (uint32_t)number;
    return true;
}

static bool
plan_take_sign(const char **at, char sign)
{
    if (**at != sign) {
        return false;
    }
    (*at)++;
    return true;
}

static bool
plan_take_word(const char **at, const char *word)
{
    size_t len = strlen(word);
    if (strncmp(*at, word, len) != 0) {
        return false;
    }
    *at += len;
    return true;
}

static bool
plan_chaos_part(const char **at, struct workload_chaos *out)
{
    if (plan_take_word(at, "cpu=")) {
        return plan_take_count(at, &out->hogs) && plan_take_sign(at, '@') &&
               plan_take_count(at, &out->hog_percent) && out->hog_percent <= 100;
    }
    if (plan_take_word(at, "stop=")) {
        return plan_take_count(at, &out->stops) && plan_take_sign(at, 'x') &&
               plan_take_number(at, &out->stop_seconds);
    }
    if (plan_take_word(at, "kill=")) {
        return plan_take_count(at, &out->kills);
    }
    if (plan_take_word(at, "slow=")) {
        return plan_take_number(at, &out->io_delay_ms) && out->io_delay_ms > 0;
    }
    return plan_take_word(at, "fail=") && plan_take_count(at, &out->io_fails);
}

bool
workload_chaos_parse(const char *text, struct workload_chaos *out)
{
    struct workload_chaos chaos = {0};
    const char *at = text;
    if (strcmp(text, "none") != 0) {
        do {
            if (!plan_chaos_part(&at, &chaos)) {
                return false;
            }
        } while (plan_take_sign(&at, ','));
        if (*at != 0) {
            return false;
        }
    }
    *out = chaos;
    return true;
}

void
workload_chaos_print(const struct workload_chaos *chaos, char *out, size_t size)
{
    char parts[5][48] = {{0}};
    size_t len = 0;
    if (chaos->hogs > 0) {
        (void)snprintf(parts[0], sizeof parts[0], "cpu=%u@%u", chaos->hogs, chaos->hog_percent);
    }
    if (chaos->stops > 0) {
        (void)snprintf(parts[1], sizeof parts[1], "stop=%ux%g", chaos->stops, chaos->stop_seconds);
    }
    if (chaos->kills > 0) {
        (void)snprintf(parts[2], sizeof parts[2], "kill=%u", chaos->kills);
    }
    if (chaos->io_delay_ms > 0) {
        (void)snprintf(parts[3], sizeof parts[3], "slow=%g", chaos->io_delay_ms);
    }
    if (chaos->io_fails > 0) {
        (void)snprintf(parts[4], sizeof parts[4], "fail=%u", chaos->io_fails);
    }
    (void)snprintf(out, size, "none");
    for (size_t i = 0; i < COUNTOF(parts); i++) {
        if (parts[i][0] != 0 && len < size) {
            int more = snprintf(out + len, size - len, "%s%s", len > 0 ? "," : "", parts[i]);
            len += more > 0 ? (size_t)more : 0;
        }
    }
}

/* ---- Labels and limits ---------------------------------------------------------- */

static void PRINTF_LIKE(2, 3) plan_label_add(struct workload_config *config, const char *format, ...)
{
    size_t len = strlen(config->label);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(config->label + len, sizeof config->label - len, format, args);
    va_end(args);
}

void
workload_config_label(struct workload_config *config)
{
    char chaos[40];
    config->label[0] = 0;
    plan_label_add(config, "W%u_WR%.2f_RD%u_RT%.0f", config->clients[WORKLOAD_MONOTONIC],
                   config->rate[WORKLOAD_MONOTONIC], config->clients[WORKLOAD_READER],
                   config->rate[WORKLOAD_READER]);
    if (config->clients[WORKLOAD_COMPACTOR] > 0) {
        plan_label_add(config, "_C%u", config->clients[WORKLOAD_COMPACTOR]);
    }
    if (config->clients[WORKLOAD_RANDOM] > 0) {
        plan_label_add(config, "_X%u_XR%.2f", config->clients[WORKLOAD_RANDOM],
                       config->rate[WORKLOAD_RANDOM]);
    }
    workload_chaos_print(&config->chaos, chaos, sizeof chaos);
    if (strcmp(chaos, "none") != 0) {
        plan_label_add(config, "_%s", chaos);
    }
    for (char *at = config->label; *at != 0; at++) {
        *at = *at == ',' ? '+' : *at; /* it stands in a CSV */
    }
}

static const char *
plan_chaos_fault(const struct workload_config *config)
{
    const struct workload_chaos *chaos = &config->chaos;
    bool simulated = chaos->io_delay_ms > 0 || chaos->io_fails > 0;
    if (chaos->kills > 0 && simulated) {
        return "the simulated disk dies with its process: kill does not go with slow or fail";
    }
    if (chaos->hogs > 64) {
        return "at most 64 hogs";
    }
    if (chaos->stops * chaos->stop_seconds >= config->seconds) {
        return "it would be stopped for longer than it runs";
    }
    return NULL;
}

const char *
workload_config_fault(const struct workload_config *config)
{
    uint64_t clients = 0;
    for (enum workload_role role = 0; role < WORKLOAD_ROLES; role++) {
        clients += config->clients[role];
        if (!(config->rate[role] >= 0 && config->rate[role] <= 1e6)) {
            return "a rate is from 0 (as fast as it can) to 1000000 per second";
        }
    }
    if (clients == 0 || clients > WORKLOAD_CLIENTS_MAX) {
        return "there must be 1 to 4096 clients";
    }
    if (!(config->seconds > 0 && config->seconds <= 864000) ||
        !(config->time_scale >= 0.001 && config->time_scale <= 100000)) {
        return "a duration is up to 864000 seconds, a time scale from 0.001 to 100000";
    }
    if (config->value_bytes < WORKLOAD_VALUE_BYTES_MIN || config->value_bytes > 1 << 20) {
        return "values have 64 to 1048576 bytes";
    }
    if (!(config->overlap >= 0 && config->overlap <= 1) ||
        !(config->delete_ratio >= 0 && config->delete_ratio <= 1)) {
        return "ratios are from 0 to 1";
    }
    if (config->compactor_reads > WORKLOAD_COMPACTOR_READS_MAX || !(config->compactor_sleep >= 0)) {
        return "a compactor reads at most 4 keys";
    }
    if (config->clients[WORKLOAD_RANDOM] > 0 &&
        (config->pool_keys < 4 * config->clients[WORKLOAD_RANDOM] || config->pool_keys > 10000000)) {
        return "random writers need a pool of at least 4 keys each, at most 10000000";
    }
    if (config->retries_max > 250 || config->ops_max > 100000000) {
        return "at most 250 retries, 100000000 transactions";
    }
    return plan_chaos_fault(config);
}

/* ---- When a transaction is due --------------------------------------------------- */

/* How often one client begins, steadily. */
static double
plan_rate(const struct workload_config *config, enum workload_role role)
{
    double rate = config->rate[role];
    if (role == WORKLOAD_COMPACTOR && rate > 0) {
        return 1 / (1 / rate + config->compactor_sleep); /* its rate leaves out its sleep */
    }
    return rate;
}

/* The inverse of N(t) = rate * (0.1 t + 0.45 t^2 / T), beyond its end too. */
static double
plan_due_ramp(double n, double rate, double seconds)
{
    double square = 0.45 * rate / seconds;
    double line = 0.1 * rate;
    return (sqrt(line * line + 4 * square * n) - line) / (2 * square);
}

static double
plan_due_burst(double n, double rate, double seconds)
{
    double period = seconds / 6;
    double each = rate * period;
    double whole = floor(n / each);
    double rest = n - whole * each;
    double in_burst = 0.8 * each; /* a fifth of the period at four times the rate */
    double within = rest < in_burst ? rest / (4 * rate) : 0.2 * period + (rest - in_burst) / (0.25 * rate);
    return whole * period + within;
}

double
workload_due(const struct workload_config *config, enum workload_role role, uint32_t client, uint64_t nth)
{
    double rate = plan_rate(config, role);
    if (rate == 0) {
        return 0;
    }
    /* The clients of a role take turns. */
    double n = (double)nth + ((double)client + 0.5) / (double)config->clients[role];
    switch (config->shape) {
    case WORKLOAD_RAMP:
        return plan_due_ramp(n, rate, config->seconds);
    case WORKLOAD_BURST:
        return plan_due_burst(n, rate, config->seconds);
    default:
        return n / rate;
    }
}

uint64_t
workload_due_count(const struct workload_config *config, enum workload_role role, uint32_t client)
{
    if (config->rate[role] == 0) {
        return 0;
    }
    uint64_t low = 0;
    uint64_t high = 1;
    while (workload_due(config, role, client, high - 1) < config->seconds) {
        high *= 2;
    }
    while (low < high) { /* the first that is not due */
        uint64_t middle = low + (high - low) / 2;
        if (workload_due(config, role, client, middle) < config->seconds) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}
