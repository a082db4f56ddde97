/* SPDX-License-Identifier: MIT */
/*
 * Latencies, counted in log-linear buckets: 128 of equal width in each power
 * of two, so that what is read back is off by less than 1 % (half a bucket:
 * 0.4 %) at any size, and exact below 128. Recording is an increment.
 * One thread writes one histogram; merge them afterwards.
 */
#ifndef ESKER_TOOLS_HISTOGRAM_H
#define ESKER_TOOLS_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_SUB_BITS = 7, HISTOGRAM_SUB = 1 << HISTOGRAM_SUB_BITS };

enum { HISTOGRAM_BUCKETS = (64 - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB };

/* All zero: empty. */
struct histogram {
    uint64_t count, max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);
/* The middle of what falls into a bucket. */
uint64_t histogram_value(size_t bucket);
void histogram_merge(struct histogram *into, const struct histogram *from);
/* The value that `part` of `whole` of all values do not exceed (99 of 100: the
 * 99th percentile); 0 when empty. Never above the largest value. */
uint64_t histogram_quantile(const struct histogram *histogram, uint64_t part, uint64_t whole);

#endif
