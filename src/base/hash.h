/* SPDX-License-Identifier: MIT */
/* xxh3, the one hash of the project: checksums, filters and directories. */
#ifndef ESKER_BASE_HASH_H
#define ESKER_BASE_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/bytes.h"

static inline uint64_t
hash64(const void *ptr, size_t len, uint64_t seed)
{
    return (uint64_t)XXH3_64bits_withSeed(ptr, len, seed);
}

/* Mixes numbers into a seed: the finaliser of splitmix64 (Steele, Lea and
 * Flood, "Fast splittable pseudorandom number generators", 2014). */
static inline uint64_t
hash_mix(uint64_t a, uint64_t b)
{
    uint64_t z = a + 0x9e3779b97f4a7c15ULL * (b + 1);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

#endif
