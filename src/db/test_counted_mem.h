/* SPDX-License-Identifier: MIT */
/* For tests that ask how much memory was held at most: an allocator and page memory that count. */
#ifndef ESKER_DB_TEST_COUNTED_MEM_H
#define ESKER_DB_TEST_COUNTED_MEM_H

#include <stdlib.h>
#include <string.h>

#include "esker/esker.h"
#include "io/io.h"

static uint64_t memory_now, memory_most;

static void
memory_add(uint64_t bytes)
{
    memory_now += bytes;
    memory_most = MAX(memory_most, memory_now);
}

/* The size stands in front of what is handed out. */
static void *
counted_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    size_t front = MAX(alignment, (size_t)16);
    uint8_t *whole = aligned_alloc(front, (front + size + front - 1) / front * front);
    if (whole == NULL) {
        return NULL;
    }
    memcpy(whole + front - 16, &size, sizeof size);
    memcpy(whole + front - 8, &front, sizeof front);
    memory_add(size);
    return whole + front;
}

static void *
counted_alloc(void *ctx, size_t size)
{
    return counted_aligned_alloc(ctx, 16, size);
}

static void
counted_free(void *ctx, void *ptr)
{
    (void)ctx;
    size_t size;
    size_t front;
    memcpy(&size, (uint8_t *)ptr - 16, sizeof size);
    memcpy(&front, (uint8_t *)ptr - 8, sizeof front);
    memory_now -= size;
    free((uint8_t *)ptr - front);
}

static const esker_allocator counted_allocator = {counted_alloc, counted_aligned_alloc, counted_free, NULL};
static const struct io_ops *pages_real;
static struct io_ops pages_ops;

static int
counted_map_memory(struct io *io, uint64_t len, void **out)
{
    int failed = pages_real->map_memory(io, len, out);
    memory_add(failed == 0 ? len : 0);
    return failed;
}

static void
counted_unmap_memory(struct io *io, void *ptr, uint64_t len)
{
    memory_now -= len;
    pages_real->unmap_memory(io, ptr, len);
}

#endif
