/* SPDX-License-Identifier: MIT */
/*
 * The records of the benchmark. Record i in [0, capacity) has a key of 16
 * bytes whose place in key order is a fixed permutation of i, so that counting
 * up visits the keys in random order without a table. The capacity is a power
 * of two of at least twice the loaded records: the upper records are keys
 * known to be absent (they lie between present ones), or room for inserts.
 *
 * A value tells whether it is right: it holds the version it was written with,
 * a check of key, version and size, and bytes that follow from the check. Half
 * of each value is random, half is the same text everywhere.
 */
#ifndef ESKER_TOOLS_BENCH_KEYS_H
#define ESKER_TOOLS_BENCH_KEYS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/rng.h"

enum { BENCH_KEY_BYTES = 16, BENCH_VALUE_BYTES_MIN = 24, BENCH_VALUE_BYTES_MAX = 64 * 1024 };

struct bench_keys {
    uint64_t records;
    uint64_t capacity;
    uint32_t bits; /* capacity == 1 << bits */
    uint64_t seed;
};

void bench_keys_init(struct bench_keys *keys, uint64_t records, uint64_t seed);

/* The key at a place in key order. */
static inline void
bench_key_at_rank(const struct bench_keys *keys, uint64_t rank, uint8_t out[BENCH_KEY_BYTES])
{
    uint64_t high = __builtin_bswap64(rank << (64 - keys->bits));
    uint64_t low = rank ^ keys->seed;
    low = (low ^ (low >> 30)) * 0xbf58476d1ce4e5b9ULL;
    low = (low ^ (low >> 27)) * 0x94d049bb133111ebULL;
    memcpy(out, &high, 8);
    memcpy(out + 8, &low, 8);
}

/* A bijection of [0, capacity): each step can be undone. */
static inline uint64_t
bench_rank_of(const struct bench_keys *keys, uint64_t index)
{
    uint64_t mask = keys->capacity - 1;
    uint32_t half = keys->bits / 2;
    uint64_t x = (index ^ keys->seed) & mask;
    x = (x * 0x9e3779b97f4a7c15ULL) & mask;
    x ^= x >> half;
    x = (x * 0xbf58476d1ce4e5b9ULL) & mask;
    x ^= x >> half;
    x = (x * 0x94d049bb133111ebULL) & mask;
    return x ^ (x >> half);
}

static inline void
bench_key_of(const struct bench_keys *keys, uint64_t index, uint8_t out[BENCH_KEY_BYTES])
{
    bench_key_at_rank(keys, bench_rank_of(keys, index), out);
}

/* Key i counted down from the end of the capacity: never written. */
static inline void
bench_key_absent(const struct bench_keys *keys, uint64_t i, uint8_t out[BENCH_KEY_BYTES])
{
    bench_key_of(keys, keys->capacity - 1 - i, out);
}

/* Writes size bytes, BENCH_VALUE_BYTES_MIN to BENCH_VALUE_BYTES_MAX. */
void bench_value_fill(const uint8_t key[BENCH_KEY_BYTES], uint64_t version, uint8_t *out, size_t size);

/* The check word of a value. */
static inline uint64_t
bench_value_word(const uint8_t *key, uint64_t version, size_t size)
{
    uint64_t words[2];
    memcpy(words, key, sizeof words);
    return hash_mix(hash_mix(words[0], words[1]), hash_mix(version, size));
}

/* The cheap half of the check: key, version and size belong together. */
static inline bool
bench_value_check_head(struct bytes key, struct bytes value, size_t size)
{
    if (UNLIKELY(key.len != BENCH_KEY_BYTES || value.len != size)) {
        return false;
    }
    uint64_t words[2];
    memcpy(words, value.ptr, sizeof words);
    return words[1] == bench_value_word(key.ptr, words[0], size);
}

/* Is this a value that was written for this key, whole? *version_out is what it was written with. */
bool bench_value_check(struct bytes key, struct bytes value, size_t size, uint64_t *version_out);
/* Head and last eight bytes of it, for values too long to be read each time. */
bool bench_value_check_ends(struct bytes key, struct bytes value, size_t size);

/* Zipfian numbers in [0, items), 0 the most frequent: Gray et al., "Quickly
 * generating billion-record synthetic databases", 1994, as YCSB uses it. */
struct bench_zipf {
    uint64_t items;
    double theta, alpha, zetan, eta;
};

void bench_zipf_init(struct bench_zipf *zipf, uint64_t items, double theta);
uint64_t bench_zipf_next(const struct bench_zipf *zipf, struct rng *rng);

#endif
