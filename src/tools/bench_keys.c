/* SPDX-License-Identifier: MIT */
/* Values that prove themselves, and skewed choice. */
#include "tools/bench_keys.h"

#include <math.h>

#include "base/assert.h"

/* Of each 100 bytes, the second half is this text, 50 bytes long. */
#define KEYS_TEXT "esker benchmark value, the part that compresses. ."

enum {
    KEYS_HEADER_BYTES = 16, /* version, check */
    KEYS_PERIOD = 100,
    KEYS_HALF = 50,
    KEYS_SMALL_MAX = 1024 /* larger values take their bytes from the pool */
};

/* Same content rule as small values, made once: so that writing and checking
 * 64 KiB is a copy and a comparison. */
static uint8_t keys_pool[BENCH_VALUE_BYTES_MAX * 2];

/* Period by period: random bytes, then text. Writes up to 7 bytes beyond a
 * random half, which the text then covers, so out has room for whole periods. */
static void
keys_pattern(uint64_t seed, uint8_t *out, size_t size)
{
    struct rng rng = {.state = seed};
    for (size_t at = 0; at < size; at += KEYS_PERIOD) {
        for (size_t i = 0; i < KEYS_HALF; i += 8) {
            uint64_t word = rng_next(&rng);
            memcpy(out + at + i, &word, 8);
        }
        memcpy(out + at + KEYS_HALF, KEYS_TEXT, KEYS_HALF);
    }
}

static void
keys_pool_init(void)
{
    enum { WHOLE = sizeof keys_pool / KEYS_PERIOD * KEYS_PERIOD };

    keys_pattern(1, keys_pool, WHOLE);
    memset(keys_pool + WHOLE, '.', sizeof keys_pool - WHOLE);
}

void
bench_keys_init(struct bench_keys *keys, uint64_t records, uint64_t seed)
{
    keys->records = records;
    keys->seed = hash_mix(seed, 1);
    keys->bits = 4;
    while ((1ULL << keys->bits) < records * 2) {
        keys->bits++;
    }
    keys->capacity = 1ULL << keys->bits;
    keys_pool_init();
}

static const uint8_t *
keys_pool_slice(uint64_t check)
{
    return keys_pool + (check % BENCH_VALUE_BYTES_MAX);
}

void
bench_value_fill(const uint8_t key[BENCH_KEY_BYTES], uint64_t version, uint8_t *out, size_t size)
{
    uint64_t check = bench_value_word(key, version, size);
    memcpy(out, &version, 8);
    memcpy(out + 8, &check, 8);
    size_t rest = size - KEYS_HEADER_BYTES;
    if (size > KEYS_SMALL_MAX) {
        memcpy(out + KEYS_HEADER_BYTES, keys_pool_slice(check), rest);
        return;
    }
    uint8_t pattern[KEYS_SMALL_MAX + KEYS_PERIOD];
    /* The header counts as random bytes: the pattern starts that much later. */
    keys_pattern(check, pattern, size);
    memcpy(out + KEYS_HEADER_BYTES, pattern + KEYS_HEADER_BYTES, rest);
}

bool
bench_value_check(struct bytes key, struct bytes value, size_t size, uint64_t *version_out)
{
    if (!bench_value_check_head(key, value, size)) {
        return false;
    }
    uint64_t version, check;
    memcpy(&version, value.ptr, 8);
    memcpy(&check, value.ptr + 8, 8);
    *version_out = version;
    size_t rest = size - KEYS_HEADER_BYTES;
    if (size > KEYS_SMALL_MAX) {
        return memcmp(value.ptr + KEYS_HEADER_BYTES, keys_pool_slice(check), rest) == 0;
    }
    uint8_t pattern[KEYS_SMALL_MAX + KEYS_PERIOD];
    keys_pattern(check, pattern, size);
    return memcmp(value.ptr + KEYS_HEADER_BYTES, pattern + KEYS_HEADER_BYTES, rest) == 0;
}

bool
bench_value_check_ends(struct bytes key, struct bytes value, size_t size)
{
    uint64_t version;
    if (size <= KEYS_SMALL_MAX) {
        return bench_value_check(key, value, size, &version);
    }
    if (!bench_value_check_head(key, value, size)) {
        return false;
    }
    uint64_t check;
    memcpy(&check, value.ptr + 8, 8);
    size_t rest = size - KEYS_HEADER_BYTES;
    return memcmp(value.ptr + size - 8, keys_pool_slice(check) + rest - 8, 8) == 0;
}

void
bench_zipf_init(struct bench_zipf *zipf, uint64_t items, double theta)
{
    ASSERT(items > 0);
    double zetan = 0.0;
    double zeta2 = 0.0;
    for (uint64_t i = 1; i <= items; i++) {
        zetan += 1.0 / pow((double)i, theta);
        if (i == 2) {
            zeta2 = zetan;
        }
    }
    zipf->items = items;
    zipf->theta = theta;
    zipf->alpha = 1.0 / (1.0 - theta);
    zipf->zetan = zetan;
    zipf->eta = (1.0 - pow(2.0 / (double)items, 1.0 - theta)) / (1.0 - zeta2 / zetan);
}

uint64_t
bench_zipf_next(const struct bench_zipf *zipf, struct rng *rng)
{
    double u = (double)(rng_next(rng) >> 11) * 0x1p-53;
    double uz = u * zipf->zetan;
    if (uz < 1.0) {
        return 0;
    }
    if (uz < 1.0 + pow(0.5, zipf->theta)) {
        return MIN(1u, zipf->items - 1);
    }
    double place = (double)zipf->items * pow(zipf->eta * u - zipf->eta + 1.0, zipf->alpha);
    return MIN((uint64_t)place, zipf->items - 1);
}
