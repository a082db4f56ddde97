/* SPDX-License-Identifier: MIT */
/* See filter.h. Any thread may probe; building is for one thread. */
#include "format/filter.h"

#include "base/assert.h"
#include "base/endian.h"
#include "format/cpu.h"

#if CPU_MAY_HAVE_AVX2
#include <immintrin.h>
#endif

enum {
    FILTER_LINE_BYTES = 32,
    FILTER_LINE_WORDS = 8,
    FILTER_PAGE_LINES = FILTER_PAGE_BYTES / FILTER_LINE_BYTES,
    FILTER_KEYS_PER_PAGE = FILTER_PAGE_BYTES * 8 / FILTER_BITS_PER_KEY,
    FILTER_AHEAD = 16 /* hashes between a prefetch and its use */
};

/* Part of the format: the multipliers of Parquet's split-block filter. */
static const uint32_t filter_odd[FILTER_LINE_WORDS] = {
    0x47b6137b, 0x44974d91, 0x8824ad5b, 0xa2b7289d, 0x705495c7, 0x2df1424b, 0x9efc4947, 0x5c6bfb31,
};

uint32_t
filter_page_count(uint64_t key_count)
{
    uint64_t pages = key_count / FILTER_KEYS_PER_PAGE + (key_count % FILTER_KEYS_PER_PAGE != 0);
    return (uint32_t)MIN(MAX(pages, (uint64_t)1), (uint64_t)UINT32_MAX);
}

static inline size_t
filter_line_offset(uint32_t page_count, uint64_t hash)
{
    uint64_t line = (hash >> 32) & (FILTER_PAGE_LINES - 1);
    return (size_t)filter_page_of(page_count, hash) * FILTER_PAGE_BYTES + (size_t)(line * FILTER_LINE_BYTES);
}

const uint8_t *
filter_line(const uint8_t *pages, uint32_t page_count, uint64_t hash)
{
    return pages + filter_line_offset(page_count, hash);
}

static inline uint32_t
filter_bit(uint64_t hash, uint32_t word)
{
    return 1U << (((uint32_t)hash * filter_odd[word]) >> 27);
}

static inline void
filter_line_set_portable(uint8_t *line, uint64_t hash)
{
    for (uint32_t word = 0; word < FILTER_LINE_WORDS; word++) {
        le32_store(line + 4 * word, le32_load(line + 4 * word) | filter_bit(hash, word));
    }
}

void
filter_add_many_portable(uint8_t *pages, uint32_t page_count, const uint64_t *hashes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i + FILTER_AHEAD < count) {
            PREFETCH_WRITE(pages + filter_line_offset(page_count, hashes[i + FILTER_AHEAD]));
        }
        filter_line_set_portable(pages + filter_line_offset(page_count, hashes[i]), hashes[i]);
    }
}

bool
filter_may_contain_portable(const uint8_t *pages, uint32_t page_count, uint64_t hash)
{
    const uint8_t *line = filter_line(pages, page_count, hash);
    uint32_t missing = 0;
    for (uint32_t word = 0; word < FILTER_LINE_WORDS; word++) {
        missing |= filter_bit(hash, word) & ~le32_load(line + 4 * word);
    }
    return missing == 0;
}

#if CPU_MAY_HAVE_AVX2
CPU_TARGET_AVX2 static inline __m256i
filter_bits_avx2(uint64_t hash)
{
    const __m256i odd = _mm256_loadu_si256((const __m256i *)(const void *)filter_odd);
    __m256i product = _mm256_mullo_epi32(_mm256_set1_epi32((int)(uint32_t)hash), odd);
    return _mm256_sllv_epi32(_mm256_set1_epi32(1), _mm256_srli_epi32(product, 27));
}

CPU_TARGET_AVX2 static inline void
filter_line_set_avx2(uint8_t *line, uint64_t hash)
{
    __m256i *at = (__m256i *)(void *)line;
    _mm256_storeu_si256(at, _mm256_or_si256(_mm256_loadu_si256(at), filter_bits_avx2(hash)));
}

CPU_TARGET_AVX2 static bool
filter_may_contain_avx2(const uint8_t *pages, uint32_t page_count, uint64_t hash)
{
    const uint8_t *line = pages + filter_line_offset(page_count, hash);
    return _mm256_testc_si256(_mm256_loadu_si256((const __m256i *)(const void *)line),
                              filter_bits_avx2(hash)) != 0;
}

CPU_TARGET_AVX2 static void
filter_add_many_avx2(uint8_t *pages, uint32_t page_count, const uint64_t *hashes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (i + FILTER_AHEAD < count) {
            PREFETCH_WRITE(pages + filter_line_offset(page_count, hashes[i + FILTER_AHEAD]));
        }
        filter_line_set_avx2(pages + filter_line_offset(page_count, hashes[i]), hashes[i]);
    }
}
#endif

bool
filter_may_contain(const uint8_t *pages, uint32_t page_count, uint64_t hash)
{
#if CPU_MAY_HAVE_AVX2
    if (cpu_has_avx2()) {
        return filter_may_contain_avx2(pages, page_count, hash);
    }
#endif
    return filter_may_contain_portable(pages, page_count, hash);
}

void
filter_add_many(uint8_t *pages, uint32_t page_count, const uint64_t *hashes, size_t count)
{
    ASSERT(page_count > 0);
#if CPU_MAY_HAVE_AVX2
    if (cpu_has_avx2()) {
        filter_add_many_avx2(pages, page_count, hashes, count);
        return;
    }
#endif
    filter_add_many_portable(pages, page_count, hashes, count);
}

void
filter_add(uint8_t *pages, uint32_t page_count, uint64_t hash)
{
    filter_add_many(pages, page_count, &hash, 1);
}
