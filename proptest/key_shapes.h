/* SPDX-License-Identifier: MIT */
/*
 * Keys that lie at a border of something: of the eight bytes that are compared first, of
 * bounds in the manifest, of what a key may be; such that have no successor of their
 * length, and such that begin others. Borders in the code move such shapes, not others:
 * a test over tame keys says nothing of them.
 */
#ifndef ESKER_PROPTEST_KEY_SHAPES_H
#define ESKER_PROPTEST_KEY_SHAPES_H

#include <string.h>

#include "base/rng.h"
#include "format/edit.h"
#include "format/frame.h"

struct key {
    uint8_t bytes[KEY_BYTES_MAX];
    size_t len;
};

enum shape {
    SHAPE_PLAIN,   /* zero bytes, keys that continue others, long common beginnings, a few long ones */
    SHAPE_ALIKE,   /* they differ behind what the manifest keeps of a bound, or where it ends */
    SHAPE_HIGH,    /* nothing but ff for long: they have no successor of that length */
    SHAPE_LOW,     /* the same with 00: prefixes are padded with what stands in the key */
    SHAPE_CHAIN,   /* each the beginning of the next one */
    SHAPE_EIGHT,   /* they differ about where a word ends */
    SHAPE_PAIRS,   /* two and two have a long beginning in common, which no other one has */
    SHAPE_LONGEST, /* as long as a key may be, or nearly */
    SHAPES
};

static size_t
shape_fill(struct rng *rng, uint8_t *out, size_t len, const uint8_t *letters, size_t count)
{
    for (size_t at = 0; at < len; at++) {
        out[at] = letters[rng_below(rng, count)];
    }
    return len;
}

/* Lengths at which something ends, and one more or less. */
static size_t
shape_edge(struct rng *rng)
{
    static const uint16_t edges[] = {8, 16, 24, 32, 64, 128, EDIT_KEY_BYTES_MAX};
    return edges[rng_below(rng, COUNTOF(edges))] - 1 + rng_below(rng, 3);
}

static void
shape_make(struct rng *rng, enum shape shape, struct key *key)
{
    static const uint8_t letters[] = {0x00, 0x01, 'a', 'b', 0xFE, 0xFF};
    static const uint8_t ends[] = {0xFF, 0xFE, 0x00};
    uint8_t *at = key->bytes;
    size_t same = 0;
    switch (shape) {
    case SHAPE_PLAIN:
        same = rng_below(rng, 3) == 0 ? 40 : 0;
        memset(at, 'c', same);
        same +=
            rng_below(rng, 40) == 0 ? shape_fill(rng, at + same, 300 + rng_below(rng, 1200), letters, 6) : 0;
        key->len = same + shape_fill(rng, at + same, 1 + rng_below(rng, 7), letters, COUNTOF(letters));
        break;
    case SHAPE_ALIKE:
        same = EDIT_KEY_BYTES_MAX - 2 + rng_below(rng, 4) * (rng_below(rng, 4) == 0 ? 1 : 2);
        memset(at, 'd', same);
        key->len = same + shape_fill(rng, at + same, rng_below(rng, 4), letters, COUNTOF(letters));
        break;
    case SHAPE_HIGH:
    case SHAPE_LOW:
        same = rng_below(rng, 3) == 0 ? EDIT_KEY_BYTES_MAX + rng_below(rng, 40) : shape_edge(rng);
        memset(at, shape == SHAPE_HIGH ? 0xFF : 0x00, same);
        key->len = same + shape_fill(rng, at + same, rng_below(rng, 3), ends, COUNTOF(ends));
        break;
    case SHAPE_CHAIN:
        key->len = 1 + rng_below(rng, 2 * EDIT_KEY_BYTES_MAX);
        memset(at, 'k', key->len);
        break;
    case SHAPE_EIGHT:
        same = rng_below(rng, 2) == 0 ? shape_edge(rng) % 20 : shape_edge(rng);
        memset(at, 'e', same);
        key->len = same + 1 + shape_fill(rng, at + same + 1, rng_below(rng, 3), ends, COUNTOF(ends));
        at[same] = (uint8_t)('e' + rng_below(rng, 2));
        break;
    case SHAPE_PAIRS:
        same = 100 + rng_below(rng, 1500);
        memset(at, (int)('m' + rng_below(rng, 3)), same);
        at[0] = (uint8_t)('g' + rng_below(rng, 2));
        at[1] = (uint8_t)rng_below(rng, 12);
        same = 2 + (size_t)at[1] * 100;
        key->len = same + shape_fill(rng, at + same, 1, letters, COUNTOF(letters));
        break;
    case SHAPE_LONGEST:
    case SHAPES:
        key->len = KEY_BYTES_MAX - rng_below(rng, 2);
        memset(at, 'l', key->len);
        at[key->len - 1 - rng_below(rng, 2)] = ends[rng_below(rng, COUNTOF(ends))];
        break;
    }
}

#endif
