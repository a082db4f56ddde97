/* SPDX-License-Identifier: MIT */
/* Tells the address sanitizer what of memory that is handed out in pieces belongs to nobody. */
#ifndef ESKER_BASE_POISON_H
#define ESKER_BASE_POISON_H

#include <stddef.h>

#if defined(__SANITIZE_ADDRESS__)
#define POISON_IS_SEEN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define POISON_IS_SEEN 1
#endif
#endif
#ifdef POISON_IS_SEEN
#include <sanitizer/asan_interface.h>
#endif

static inline void
poison_set(void *ptr, size_t bytes)
{
#ifdef POISON_IS_SEEN
    __asan_poison_memory_region(ptr, bytes);
#else
    (void)ptr;
    (void)bytes;
#endif
}

static inline void
poison_clear(void *ptr, size_t bytes)
{
#ifdef POISON_IS_SEEN
    __asan_unpoison_memory_region(ptr, bytes);
#else
    (void)ptr;
    (void)bytes;
#endif
}

#endif
