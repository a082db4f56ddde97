/* SPDX-License-Identifier: MIT */
#include "tools/histogram.h"

#include "base/assert.h"

/* Below HISTOGRAM_SUB the value is its own bucket. Above, the bits below the
 * top 8 are dropped: 7 bits behind the leading one choose within the power. */
static size_t
histogram_bucket(uint64_t value)
{
    if (value < HISTOGRAM_SUB) {
        return (size_t)value;
    }
    unsigned power = 63 - (unsigned)__builtin_clzll(value);
    unsigned shift = power - HISTOGRAM_SUB_BITS;
    return (size_t)(shift + 1) * HISTOGRAM_SUB + (size_t)((value >> shift) - HISTOGRAM_SUB);
}

uint64_t
histogram_value(size_t bucket)
{
    if (bucket < HISTOGRAM_SUB) {
        return bucket;
    }
    unsigned shift = (unsigned)(bucket / HISTOGRAM_SUB) - 1;
    uint64_t low = (uint64_t)(bucket % HISTOGRAM_SUB + HISTOGRAM_SUB) << shift;
    return low + (((uint64_t)1 << shift) - 1) / 2;
}

void
histogram_add(struct histogram *histogram, uint64_t value)
{
    histogram->buckets[histogram_bucket(value)]++;
    histogram->count++;
    histogram->max = MAX(histogram->max, value);
}

void
histogram_merge(struct histogram *into, const struct histogram *from)
{
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        into->buckets[i] += from->buckets[i];
    }
    into->count += from->count;
    into->max = MAX(into->max, from->max);
}

uint64_t
histogram_quantile(const struct histogram *histogram, uint64_t part, uint64_t whole)
{
    ASSERT(whole > 0 && part <= whole);
    unsigned __int128 product = (unsigned __int128)histogram->count * part;
    uint64_t rank = (uint64_t)((product + whole - 1) / whole); /* how many values it must cover */
    uint64_t seen = 0;
    for (size_t i = 0; i < HISTOGRAM_BUCKETS; i++) {
        seen += histogram->buckets[i];
        if (seen > 0 && seen >= rank) {
            uint64_t value = histogram_value(i);
            return MIN(value, histogram->max);
        }
    }
    return 0;
}
