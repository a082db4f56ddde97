/* SPDX-License-Identifier: MIT */
/*
 * A growable, owned run of bytes. Appends fail only for want of memory, and
 * then leave the contents as they were. A zeroed struct with `mem` set is a
 * valid empty buffer; buf_fini is null-safe and leaves such a buffer.
 */
#ifndef ESKER_BASE_BUF_H
#define ESKER_BASE_BUF_H

#include "base/bytes.h"
#include "base/mem.h"

struct buf {
    uint8_t *ptr;
    size_t len;
    size_t cap;
    const struct mem *mem;
};

void buf_init(struct buf *buf, const struct mem *mem);
void buf_fini(struct buf *buf);
void buf_clear(struct buf *buf);
/* Room for `extra` more bytes. */
NODISCARD esker_status buf_reserve(struct buf *buf, size_t extra);
NODISCARD esker_status buf_append(struct buf *buf, const void *ptr, size_t len);
NODISCARD esker_status buf_append_bytes(struct buf *buf, struct bytes bytes);
NODISCARD esker_status buf_append_u8(struct buf *buf, uint8_t value);
NODISCARD esker_status buf_append_u16(struct buf *buf, uint16_t value);
NODISCARD esker_status buf_append_u32(struct buf *buf, uint32_t value);
NODISCARD esker_status buf_append_u64(struct buf *buf, uint64_t value);
NODISCARD esker_status buf_append_zeros(struct buf *buf, size_t len);
/* Zero bytes up to the next multiple of `power`, counted from the start. */
NODISCARD esker_status buf_pad(struct buf *buf, size_t power);
/* The contents replaced by a copy of `bytes`. */
NODISCARD esker_status buf_assign(struct buf *buf, struct bytes bytes);

static inline struct bytes
buf_bytes(const struct buf *buf)
{
    return bytes_make(buf->ptr, buf->len);
}

#endif
