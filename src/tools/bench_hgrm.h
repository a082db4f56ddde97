/* SPDX-License-Identifier: MIT */
/* Histograms as the benchmark reports them. */
#ifndef ESKER_TOOLS_BENCH_HGRM_H
#define ESKER_TOOLS_BENCH_HGRM_H

#include <stdio.h>

#include "tools/histogram.h"

/* Of the buckets' middles; 0 when empty. */
double bench_histogram_mean(const struct histogram *histogram);
/* The percentile text that HdrHistogram viewers read; nanoseconds shown as microseconds. */
void bench_hgrm_print(const struct histogram *histogram, FILE *out);

#endif
