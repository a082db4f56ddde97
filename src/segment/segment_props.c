/* SPDX-License-Identifier: MIT */
/* Encodes and decodes the properties block; layout in segment_props.h. */
#include "segment/segment_props.h"

#include "base/cursor.h"
#include "base/endian.h"

/* On disk; never renumber. */
enum segment_props_tag {
    SEGMENT_PROPS_WRITER = 1,
    SEGMENT_PROPS_CREATED = 2,
    SEGMENT_PROPS_COMPRESSION = 3,
    SEGMENT_PROPS_KEY_BYTES = 4,
    SEGMENT_PROPS_VALUE_BYTES = 5,
    SEGMENT_PROPS_BLOCK_BYTES = 6
};

static esker_status
segment_props_put(struct buf *out, enum segment_props_tag tag, struct bytes value)
{
    TRY(buf_append_u16(out, (uint16_t)tag));
    TRY(buf_append_u16(out, 0));
    TRY(buf_append_u32(out, (uint32_t)value.len));
    TRY(buf_append_bytes(out, value));
    return buf_pad(out, 8);
}

static esker_status
segment_props_put_u32(struct buf *out, enum segment_props_tag tag, uint32_t value)
{
    uint8_t raw[4];
    le32_store(raw, value);
    return segment_props_put(out, tag, bytes_make(raw, sizeof raw));
}

static esker_status
segment_props_put_u64(struct buf *out, enum segment_props_tag tag, uint64_t value)
{
    uint8_t raw[8];
    le64_store(raw, value);
    return segment_props_put(out, tag, bytes_make(raw, sizeof raw));
}

esker_status
segment_props_encode(const struct segment_props *props, struct buf *out)
{
    buf_clear(out);
    TRY(segment_props_put(out, SEGMENT_PROPS_WRITER, props->writer));
    TRY(segment_props_put_u64(out, SEGMENT_PROPS_CREATED, props->created_ns));
    TRY(segment_props_put_u32(out, SEGMENT_PROPS_COMPRESSION, props->compression));
    TRY(segment_props_put_u64(out, SEGMENT_PROPS_KEY_BYTES, props->key_bytes));
    TRY(segment_props_put_u64(out, SEGMENT_PROPS_VALUE_BYTES, props->value_bytes));
    return segment_props_put_u32(out, SEGMENT_PROPS_BLOCK_BYTES, props->block_bytes);
}

/* False: the field's length is not that of a number. */
static bool
segment_props_number(struct bytes value, uint64_t *out64, uint32_t *out32)
{
    if (value.len != (out64 != NULL ? sizeof *out64 : sizeof *out32)) {
        return false;
    }
    if (out64 != NULL) {
        *out64 = le64_load(value.ptr);
    } else {
        *out32 = le32_load(value.ptr);
    }
    return true;
}

static bool
segment_props_field(struct segment_props *props, uint16_t tag, struct bytes value)
{
    switch (tag) {
    case SEGMENT_PROPS_WRITER:
        props->writer = value;
        return true;
    case SEGMENT_PROPS_CREATED:
        return segment_props_number(value, &props->created_ns, NULL);
    case SEGMENT_PROPS_COMPRESSION:
        return segment_props_number(value, NULL, &props->compression);
    case SEGMENT_PROPS_KEY_BYTES:
        return segment_props_number(value, &props->key_bytes, NULL);
    case SEGMENT_PROPS_VALUE_BYTES:
        return segment_props_number(value, &props->value_bytes, NULL);
    case SEGMENT_PROPS_BLOCK_BYTES:
        return segment_props_number(value, NULL, &props->block_bytes);
    default:
        return true;
    }
}

esker_status
segment_props_decode(struct bytes bytes, struct segment_props *out)
{
    struct segment_props props = {0};
    struct cursor cursor = cursor_make(bytes.ptr, bytes.len);
    while (cursor.ok && cursor_left(&cursor) > 0) {
        uint16_t tag = cursor_u16(&cursor);
        uint16_t zero = cursor_u16(&cursor);
        uint32_t len = cursor_u32(&cursor);
        struct bytes value = cursor_bytes(&cursor, len);
        cursor_align(&cursor, 8);
        if (!cursor.ok || zero != 0 || !segment_props_field(&props, tag, value)) {
            return ESKER_CORRUPT;
        }
    }
    *out = props;
    return ESKER_OK;
}
