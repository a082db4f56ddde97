/* SPDX-License-Identifier: MIT */
/* Log header pages and batch entries; the formats are described in log_format.h. */
#include "format/log_format.h"

#include "base/assert.h"

static const char log_magic[8] = {'E', 'S', 'K', 'E', 'R', 'L', 'O', 'G'};

enum { LOG_HEADER_SUM_OFF = 120 };

void
log_header_encode(const struct log_header *header, uint8_t page[LOG_PAGE_BYTES])
{
    memset(page, 0, LOG_PAGE_BYTES);
    memcpy(page, log_magic, sizeof log_magic);
    le32_store(page + 8, LOG_FORMAT);
    le32_store(page + 12, 0);
    memcpy(page + 16, header->uuid, sizeof header->uuid);
    le64_store(page + 32, header->gen);
    le64_store(page + 40, header->base_lsn);
    le64_store(page + 48, header->cap_bytes);
    le64_store(page + 56, header->prev_gen);
    le64_store(page + 64, header->prev_end_lsn);
    le64_store(page + 72, header->durable_lsn);
    le64_store(page + 80, header->manifest_no);
    le64_store(page + 88, header->edit_no);
    memcpy(page + 96, header->boot_id, sizeof header->boot_id);
    le64_store(page + 112, header->mount_id);
    le64_store(page + LOG_HEADER_SUM_OFF, hash64(page, LOG_HEADER_SUM_OFF, 0));
}

bool
log_header_is_sane(const struct log_header *header)
{
    if (header->gen == 0 || header->gen > LSN_MAX || header->prev_gen >= header->gen) {
        return false;
    }
    if (header->cap_bytes == 0 || header->cap_bytes % LOG_PAGE_BYTES != 0) {
        return false;
    }
    if (header->base_lsn % 2 != 0 || header->base_lsn > LSN_MAX || header->cap_bytes / LSN_BYTES > LSN_MAX) {
        return false;
    }
    if (header->base_lsn + header->cap_bytes / LSN_BYTES > LSN_MAX) {
        return false;
    }
    return header->prev_end_lsn % 2 == 0 && header->prev_end_lsn <= header->base_lsn &&
           header->durable_lsn <= header->base_lsn;
}

bool
log_header_decode(struct bytes page, struct log_header *out, bool *unsupported)
{
    *unsupported = false;
    struct cursor cursor = cursor_make(page.ptr, page.len);
    struct bytes magic = cursor_bytes(&cursor, sizeof log_magic);
    uint32_t format = cursor_u32(&cursor);
    uint32_t features = cursor_u32(&cursor);
    struct bytes uuid = cursor_bytes(&cursor, sizeof out->uuid);
    struct log_header header = {0};
    header.gen = cursor_u64(&cursor);
    header.base_lsn = cursor_u64(&cursor);
    header.cap_bytes = cursor_u64(&cursor);
    header.prev_gen = cursor_u64(&cursor);
    header.prev_end_lsn = cursor_u64(&cursor);
    header.durable_lsn = cursor_u64(&cursor);
    header.manifest_no = cursor_u64(&cursor);
    header.edit_no = cursor_u64(&cursor);
    struct bytes boot_id = cursor_bytes(&cursor, sizeof out->boot_id);
    header.mount_id = cursor_u64(&cursor);
    uint64_t sum = cursor_u64(&cursor);
    if (!cursor.ok || memcmp(magic.ptr, log_magic, sizeof log_magic) != 0 ||
        sum != hash64(page.ptr, LOG_HEADER_SUM_OFF, 0)) {
        return false;
    }
    if (format != LOG_FORMAT || features != 0) {
        *unsupported = true;
        return false;
    }
    memcpy(header.uuid, uuid.ptr, sizeof header.uuid);
    memcpy(header.boot_id, boot_id.ptr, sizeof header.boot_id);
    if (!log_header_is_sane(&header)) {
        return false;
    }
    *out = header;
    return true;
}

void
log_header_numbers(const uint8_t page[LOG_PAGE_BYTES], struct log_header *out)
{
    *out = (struct log_header){.gen = le64_load(page + 32),
                               .base_lsn = le64_load(page + 40),
                               .cap_bytes = le64_load(page + 48),
                               .prev_gen = le64_load(page + 56),
                               .prev_end_lsn = le64_load(page + 64)};
}

void
entry_encode(uint8_t *at, enum entry_op op, struct bytes key, struct bytes value)
{
    ASSERT(key.len >= 1 && key.len <= KEY_BYTES_MAX && value.len <= VALUE_BYTES_MAX);
    ASSERT(entry_op_fits(op, value.len));
    at[0] = (uint8_t)op;
    at[1] = 0;
    le16_store(at + 2, (uint16_t)key.len);
    le32_store(at + 4, (uint32_t)value.len);
    memcpy(at + ENTRY_HEADER_BYTES, key.ptr, key.len);
    uint8_t *rest = at + ENTRY_HEADER_BYTES + key.len;
    if (value.len > 0) {
        memcpy(rest, value.ptr, value.len);
        rest += value.len;
    }
    uint64_t used = ENTRY_HEADER_BYTES + key.len + value.len;
    memset(rest, 0, (size_t)(align_up(used, 8) - used));
}

void
entry_encode_expiring(uint8_t *at, struct bytes key, uint64_t expiry_ms, struct bytes value)
{
    ASSERT(key.len >= 1 && key.len <= KEY_BYTES_MAX && value.len <= VALUE_BYTES_MAX - EXPIRY_BYTES);
    size_t vlen = EXPIRY_BYTES + value.len;
    at[0] = ENTRY_PUT_EXPIRING;
    at[1] = 0;
    le16_store(at + 2, (uint16_t)key.len);
    le32_store(at + 4, (uint32_t)vlen);
    memcpy(at + ENTRY_HEADER_BYTES, key.ptr, key.len);
    uint8_t *rest = at + ENTRY_HEADER_BYTES + key.len;
    le64_store(rest, expiry_ms);
    if (value.len > 0) {
        memcpy(rest + EXPIRY_BYTES, value.ptr, value.len);
    }
    uint64_t used = ENTRY_HEADER_BYTES + key.len + vlen;
    memset(rest + vlen, 0, (size_t)(align_up(used, 8) - used));
}

esker_status
entry_decode(struct bytes body, uint64_t *offset, struct entry *out)
{
    if (*offset > body.len) {
        return ESKER_CORRUPT;
    }
    if (*offset == body.len) {
        return ESKER_END;
    }
    struct cursor cursor = cursor_make(body.ptr + *offset, body.len - (size_t)*offset);
    struct entry entry = {0};
    entry.op = cursor_u8(&cursor);
    entry.flags = cursor_u8(&cursor);
    uint32_t klen = cursor_u16(&cursor);
    uint32_t vlen = cursor_u32(&cursor);
    if (!cursor.ok) {
        return ESKER_CORRUPT;
    }
    if (entry.op == ENTRY_END) {
        return ESKER_END;
    }
    if (!entry_op_is_known(entry.op) || entry.flags != 0) {
        return ESKER_UNSUPPORTED;
    }
    if (klen == 0 || klen > KEY_BYTES_MAX || vlen > VALUE_BYTES_MAX || !entry_op_fits(entry.op, vlen)) {
        return ESKER_CORRUPT;
    }
    entry.key = cursor_bytes(&cursor, klen);
    entry.value = cursor_bytes(&cursor, vlen);
    cursor_align(&cursor, 8);
    if (!cursor.ok) {
        return ESKER_CORRUPT;
    }
    entry.size_bytes = cursor_offset(&cursor);
    *offset += entry.size_bytes;
    *out = entry;
    return ESKER_OK;
}
