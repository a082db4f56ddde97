/* SPDX-License-Identifier: MIT */
/* For tests whose keys end with a number. Keys of iterators are no C strings: what stands behind them may
 * be digits, too. */
#ifndef ESKER_BASE_TEST_DIGITS_H
#define ESKER_BASE_TEST_DIGITS_H

#include <stddef.h>
#include <stdint.h>

/* The number that [data + from, data + size) spells; UINT32_MAX: it spells none. */
static inline uint32_t
test_digits(const void *data, size_t size, size_t from)
{
    const char *text = data;
    uint32_t number = 0;
    if (from >= size || size - from > 9) {
        return UINT32_MAX;
    }
    for (size_t at = from; at < size; at++) {
        if (text[at] < '0' || text[at] > '9') {
            return UINT32_MAX;
        }
        number = number * 10 + (uint32_t)(text[at] - '0');
    }
    return number;
}

#endif
