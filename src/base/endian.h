/* SPDX-License-Identifier: MIT */
/* Little-endian loads and stores at any alignment. Formats only. */
#ifndef ESKER_BASE_ENDIAN_H
#define ESKER_BASE_ENDIAN_H

#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "esker's formats are little endian and this port has not been written"
#endif

static inline uint16_t
le16_load(const void *ptr)
{
    uint16_t value;
    memcpy(&value, ptr, sizeof value);
    return value;
}

static inline uint32_t
le32_load(const void *ptr)
{
    uint32_t value;
    memcpy(&value, ptr, sizeof value);
    return value;
}

static inline uint64_t
le64_load(const void *ptr)
{
    uint64_t value;
    memcpy(&value, ptr, sizeof value);
    return value;
}

static inline void
le16_store(void *ptr, uint16_t value)
{
    memcpy(ptr, &value, sizeof value);
}

static inline void
le32_store(void *ptr, uint32_t value)
{
    memcpy(ptr, &value, sizeof value);
}

static inline void
le64_store(void *ptr, uint64_t value)
{
    memcpy(ptr, &value, sizeof value);
}

#endif
