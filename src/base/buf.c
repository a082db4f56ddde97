/* SPDX-License-Identifier: MIT */
#include "base/buf.h"

#include "base/assert.h"
#include "base/endian.h"
#include "base/status.h"

enum { BUF_CAP_MIN = 64 };

void
buf_init(struct buf *buf, const struct mem *mem)
{
    *buf = (struct buf){.mem = mem};
}

void
buf_fini(struct buf *buf)
{
    if (buf->mem != NULL) {
        mem_free(buf->mem, buf->ptr);
    }
    *buf = (struct buf){.mem = buf->mem};
}

void
buf_clear(struct buf *buf)
{
    buf->len = 0;
}

esker_status
buf_reserve(struct buf *buf, size_t extra)
{
    size_t needed;
    if (__builtin_add_overflow(buf->len, extra, &needed)) {
        return FAIL_NO_MEMORY("a buffer");
    }
    if (needed <= buf->cap) {
        return ESKER_OK;
    }
    size_t cap = MAX(buf->cap + buf->cap / 2, (size_t)BUF_CAP_MIN);
    cap = MAX(cap, needed);
    uint8_t *ptr = mem_alloc(buf->mem, cap);
    if (ptr == NULL) {
        return FAIL_NO_MEMORY("a buffer");
    }
    if (buf->len > 0) {
        memcpy(ptr, buf->ptr, buf->len);
    }
    mem_free(buf->mem, buf->ptr);
    buf->ptr = ptr;
    buf->cap = cap;
    return ESKER_OK;
}

esker_status
buf_append(struct buf *buf, const void *ptr, size_t len)
{
    TRY(buf_reserve(buf, len));
    if (len > 0) {
        memcpy(buf->ptr + buf->len, ptr, len);
    }
    buf->len += len;
    return ESKER_OK;
}

esker_status
buf_append_bytes(struct buf *buf, struct bytes bytes)
{
    return buf_append(buf, bytes.ptr, bytes.len);
}

esker_status
buf_append_u8(struct buf *buf, uint8_t value)
{
    return buf_append(buf, &value, sizeof value);
}

esker_status
buf_append_u16(struct buf *buf, uint16_t value)
{
    uint8_t raw[2];
    le16_store(raw, value);
    return buf_append(buf, raw, sizeof raw);
}

esker_status
buf_append_u32(struct buf *buf, uint32_t value)
{
    uint8_t raw[4];
    le32_store(raw, value);
    return buf_append(buf, raw, sizeof raw);
}

esker_status
buf_append_u64(struct buf *buf, uint64_t value)
{
    uint8_t raw[8];
    le64_store(raw, value);
    return buf_append(buf, raw, sizeof raw);
}

esker_status
buf_append_zeros(struct buf *buf, size_t len)
{
    TRY(buf_reserve(buf, len));
    if (len > 0) {
        memset(buf->ptr + buf->len, 0, len);
    }
    buf->len += len;
    return ESKER_OK;
}

esker_status
buf_pad(struct buf *buf, size_t power)
{
    size_t past = buf->len & (power - 1);
    return past == 0 ? ESKER_OK : buf_append_zeros(buf, power - past);
}

esker_status
buf_assign(struct buf *buf, struct bytes bytes)
{
    buf->len = 0;
    return buf_append_bytes(buf, bytes);
}
