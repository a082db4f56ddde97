/* SPDX-License-Identifier: MIT */
#include "tools/text_units.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"

const char *
text_count(uint64_t count, char out[TEXT_UNIT_BYTES])
{
    char digits[24];
    int len = snprintf(digits, sizeof digits, "%" PRIu64, count);
    size_t at = 0;
    for (int i = 0; i < len; i++) {
        if (i > 0 && (len - i) % 3 == 0) {
            out[at++] = ',';
        }
        out[at++] = digits[i];
    }
    out[at] = 0;
    return out;
}

/* Scaled by steps of `step`, with three digits; whole numbers without decimals if they are exact. */
static const char *
units_scaled(double value, double step, const char *const units[], size_t count, char out[TEXT_UNIT_BYTES])
{
    size_t unit = 0;
    while (value >= step - 0.5 && unit + 1 < count) {
        value /= step;
        unit++;
    }
    int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
    if (step > 1000 && value == (double)(uint64_t)value) {
        decimals = 0;
    }
    (void)snprintf(out, TEXT_UNIT_BYTES, "%.*f %s", decimals, value, units[unit]);
    return out;
}

const char *
text_bytes(uint64_t bytes, char out[TEXT_UNIT_BYTES])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    return units_scaled((double)bytes, 1000, units, COUNTOF(units), out);
}

const char *
text_memory(uint64_t bytes, char out[TEXT_UNIT_BYTES])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    return units_scaled((double)bytes, 1024, units, COUNTOF(units), out);
}

const char *
text_duration(uint64_t ns, char out[TEXT_UNIT_BYTES])
{
    static const char *const units[] = {"ns", "us", "ms", "s"};
    return units_scaled((double)ns, 1000, units, COUNTOF(units), out);
}
