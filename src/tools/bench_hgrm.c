/* SPDX-License-Identifier: MIT */
#include "tools/bench_hgrm.h"

#include <math.h>

#include "base/compiler.h"

double
bench_histogram_mean(const struct histogram *histogram)
{
    double sum = 0.0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        sum += (double)histogram->buckets[i] * (double)histogram_value(i);
    }
    return histogram->count == 0 ? 0.0 : sum / (double)histogram->count;
}

static double
hgrm_deviation(const struct histogram *histogram)
{
    double mean = bench_histogram_mean(histogram);
    double squares = 0.0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        double off = (double)histogram_value(i) - mean;
        squares += off * off * (double)histogram->buckets[i];
    }
    return histogram->count == 0 ? 0.0 : sqrt(squares / (double)histogram->count);
}

void
bench_hgrm_print(const struct histogram *histogram, FILE *out)
{
    fprintf(out, "       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        if (histogram->buckets[i] == 0) {
            continue;
        }
        seen += histogram->buckets[i];
        double share = (double)seen / (double)histogram->count;
        double value = (double)MIN(histogram_value(i), histogram->max) / 1e3;
        fprintf(out, "%12.3f %.12f %10llu", value, share, (unsigned long long)seen);
        if (seen < histogram->count) {
            fprintf(out, " %14.2f", 1.0 / (1.0 - share));
        }
        fprintf(out, "\n");
    }
    fprintf(out, "#[Mean    = %12.3f, StdDeviation   = %12.3f]\n", bench_histogram_mean(histogram) / 1e3,
            hgrm_deviation(histogram) / 1e3);
    fprintf(out, "#[Max     = %12.3f, Total count    = %12llu]\n", (double)histogram->max / 1e3,
            (unsigned long long)histogram->count);
    fprintf(out, "#[Buckets = %12d, SubBuckets     = %12d]\n", HISTOGRAM_BUCKETS / HISTOGRAM_SUB,
            HISTOGRAM_SUB);
}
