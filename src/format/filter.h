/* SPDX-License-Identifier: MIT */
/*
 * Split-block Bloom filter (Putze, Sanders, Singler, "Cache-, Hash- and
 * Space-Efficient Bloom Filters", 2007; the 256-bit blocks of Apache Parquet):
 * pages of 4096 bytes = 128 blocks of 32 bytes = eight 32-bit words, one bit of
 * each set per key. Hash bits: page from the high 32, block from the 7 above
 * the low 32, bits from the low 32 times eight odd constants:
 *   page  = (hash >> 32) * page_count >> 32         block = (hash >> 32) & 127
 *   bit i = ((uint32_t)hash * odd[i] mod 2^32) >> 27, of the little-endian word i
 *   odd   = 47b6137b 44974d91 8824ad5b a2b7289d 705495c7 2df1424b 9efc4947 5c6bfb31
 * A probe touches one cache line of one page. The AVX2 path is chosen at run
 * time and gives the same bits as the portable one.
 * Any bytes are a valid filter; only the size is checked. Fuzz: fuzz/fuzz_filter.c.
 */
#ifndef ESKER_FORMAT_FILTER_H
#define ESKER_FORMAT_FILTER_H

#include "base/bytes.h"

enum { FILTER_PAGE_BYTES = 4096, FILTER_BITS_PER_KEY = 10 };

/* The page that a probe looks into. */
static inline uint32_t
filter_page_of(uint32_t page_count, uint64_t hash)
{
    return (uint32_t)((hash >> 32) * page_count >> 32);
}

/* Pages for key_count keys; at least 1. */
uint32_t filter_page_count(uint64_t key_count);
/* pages: zeroed before the first add. */
void filter_add(uint8_t *pages, uint32_t page_count, uint64_t hash);
void filter_add_many(uint8_t *pages, uint32_t page_count, const uint64_t *hashes, size_t count);
bool filter_may_contain(const uint8_t *pages, uint32_t page_count, uint64_t hash);
/* The 32 bytes a probe will read, for prefetching. */
const uint8_t *filter_line(const uint8_t *pages, uint32_t page_count, uint64_t hash);
/* The portable paths, for tests of equality. */
void filter_add_many_portable(uint8_t *pages, uint32_t page_count, const uint64_t *hashes, size_t count);
bool filter_may_contain_portable(const uint8_t *pages, uint32_t page_count, uint64_t hash);

#endif
