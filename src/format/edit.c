/* SPDX-License-Identifier: MIT */
/*
 * Edits, the manifest's header and CURRENT; the formats are described in
 * edit.h.
 *
 * Decoding makes two passes over the same bytes: the first believes nothing,
 * checks each field and counts; the second fills arrays of exactly the counted
 * sizes. So memory is in proportion to bytes that were there, and a failure
 * leaves nothing behind.
 */
#include "format/edit.h"

#include "base/assert.h"
#include "base/cursor.h"
#include "base/hash.h"

/* On disk; never renumber. */
enum edit_tag {
    EDIT_TAG_EDIT_NO = 1,
    EDIT_TAG_PREV_HASH = 2,
    EDIT_TAG_NEXT_FILE_ID = 3,
    EDIT_TAG_WAL_MIN = 4,
    EDIT_TAG_DURABLE_LSN = 5,
    EDIT_TAG_ADD_SEGMENT = 6,
    EDIT_TAG_DROP_SEGMENT = 7,
    EDIT_TAG_ADD_LOG = 8,
    EDIT_TAG_DROP_LOG = 9,
    EDIT_TAG_SNAPSHOT = 10,
    EDIT_TAG_SKIPPABLE = 0x8000,
    EDIT_TAG_SEGMENT_EXPIRY = 0x8001,
    EDIT_TAG_SEGMENT_TIER = 0x8002
};

enum {
    EDIT_FIELD_HEADER_BYTES = 8,
    EDIT_SEGMENT_FIXED_BYTES = 64,
    EDIT_TAIL_BYTES_MAX = 8,
    EDIT_EXPIRY_BYTES = 24,
    EDIT_TIER_BYTES = 16
};

static const char manifest_magic[8] = {'E', 'S', 'K', 'E', 'R', 'M', 'A', 'N'};
static const char current_magic[8] = {'E', 'S', 'K', 'E', 'R', 'C', 'U', 'R'};

/* ---- Bounds -------------------------------------------------------------- */

size_t
edit_bound_lower(struct bytes key, uint8_t *out)
{
    size_t len = MIN(key.len, (size_t)EDIT_KEY_BYTES_MAX);
    if (len > 0) {
        memcpy(out, key.ptr, len);
    }
    return len;
}

size_t
edit_bound_upper(struct bytes key, uint8_t *out)
{
    size_t len = edit_bound_lower(key, out);
    if (key.len <= EDIT_KEY_BYTES_MAX) {
        return len;
    }
    while (len > 0 && out[len - 1] == 0xFF) {
        len--;
    }
    if (len > 0) {
        out[len - 1]++;
    }
    return len;
}

/* ---- Encoding ------------------------------------------------------------ */

static esker_status
edit_put_head(struct buf *body, unsigned tag, uint64_t len)
{
    TRY(buf_append_u16(body, (uint16_t)tag));
    TRY(buf_append_u16(body, 0));
    return buf_append_u32(body, (uint32_t)len);
}

static esker_status
edit_put_u64(struct buf *body, enum edit_tag tag, uint64_t value)
{
    TRY(edit_put_head(body, tag, 8));
    return buf_append_u64(body, value);
}

static bool
edit_expiry_is_sane(const struct segment_meta *segment)
{
    return segment->expiring_count <= segment->row_count &&
           segment->expiry_first_ms <= segment->expiry_last_ms;
}

static bool
edit_tier_is_sane(const struct segment_meta *segment)
{
    if (segment->tier_id == 0) {
        return segment->tier_lsn == 0;
    }
    return segment->level == 0 && segment->tier_id <= EDIT_NUMBER_MAX &&
           segment->tier_lsn >= segment->max_lsn && segment->tier_lsn <= EDIT_NUMBER_MAX;
}

static bool
edit_segment_is_sane(const struct segment_meta *segment)
{
    return segment->id != 0 && segment->id <= EDIT_NUMBER_MAX && segment->size_bytes != 0 &&
           segment->size_bytes <= EDIT_NUMBER_MAX && segment->row_count != 0 &&
           segment->row_count <= EDIT_NUMBER_MAX && segment->tombstone_count <= segment->row_count &&
           segment->min_lsn <= segment->max_lsn && segment->max_lsn <= EDIT_NUMBER_MAX &&
           segment->level < EDIT_LEVEL_COUNT && segment->min_key.len <= EDIT_KEY_BYTES_MAX &&
           segment->max_key.len <= EDIT_KEY_BYTES_MAX && edit_expiry_is_sane(segment) &&
           edit_tier_is_sane(segment) &&
           (segment->max_key.len == 0 || bytes_compare(segment->min_key, segment->max_key) <= 0);
}

static esker_status
edit_put_segment(struct buf *body, const struct segment_meta *segment)
{
    ASSERT(edit_segment_is_sane(segment));
    TRY(edit_put_head(body, EDIT_TAG_ADD_SEGMENT,
                      EDIT_SEGMENT_FIXED_BYTES + segment->min_key.len + segment->max_key.len));
    TRY(buf_append_u64(body, segment->id));
    TRY(buf_append_u64(body, segment->size_bytes));
    TRY(buf_append_u64(body, segment->row_count));
    TRY(buf_append_u64(body, segment->tombstone_count));
    TRY(buf_append_u64(body, segment->min_lsn));
    TRY(buf_append_u64(body, segment->max_lsn));
    TRY(buf_append_u32(body, segment->level));
    TRY(buf_append_u32(body, 0));
    TRY(buf_append_u16(body, (uint16_t)segment->min_key.len));
    TRY(buf_append_u16(body, (uint16_t)segment->max_key.len));
    TRY(buf_append_u32(body, 0));
    TRY(buf_append_bytes(body, segment->min_key));
    TRY(buf_append_bytes(body, segment->max_key));
    TRY(buf_pad(body, 8));
    if (segment->expiring_count != 0) {
        TRY(edit_put_head(body, EDIT_TAG_SEGMENT_EXPIRY, EDIT_EXPIRY_BYTES));
        TRY(buf_append_u64(body, segment->expiring_count));
        TRY(buf_append_u64(body, segment->expiry_first_ms));
        TRY(buf_append_u64(body, segment->expiry_last_ms));
    }
    if (segment->tier_id != 0) {
        TRY(edit_put_head(body, EDIT_TAG_SEGMENT_TIER, EDIT_TIER_BYTES));
        TRY(buf_append_u64(body, segment->tier_lsn));
        TRY(buf_append_u64(body, segment->tier_id));
    }
    return ESKER_OK;
}

static esker_status
edit_put_ids(struct buf *body, enum edit_tag tag, const uint64_t *ids, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ASSERT(ids[i] != 0 && ids[i] <= EDIT_NUMBER_MAX);
        TRY(edit_put_u64(body, tag, ids[i]));
    }
    return ESKER_OK;
}

static esker_status
edit_put_singles(const struct edit *edit, struct buf *body)
{
    if (edit->is_snapshot) {
        TRY(edit_put_head(body, EDIT_TAG_SNAPSHOT, 0));
    }
    TRY(edit_put_u64(body, EDIT_TAG_EDIT_NO, edit->edit_no));
    TRY(edit_put_u64(body, EDIT_TAG_PREV_HASH, edit->prev_hash));
    if (edit->next_file_id != 0) {
        TRY(edit_put_u64(body, EDIT_TAG_NEXT_FILE_ID, edit->next_file_id));
    }
    if (edit->wal_min_gen != 0) {
        TRY(edit_put_head(body, EDIT_TAG_WAL_MIN, 16));
        TRY(buf_append_u64(body, edit->wal_min_gen));
        TRY(buf_append_u64(body, edit->wal_min_lsn));
    }
    if (edit->durable_lsn != 0) {
        TRY(edit_put_u64(body, EDIT_TAG_DURABLE_LSN, edit->durable_lsn));
    }
    return ESKER_OK;
}

esker_status
edit_encode(const struct edit *edit, struct buf *body)
{
    ASSERT(edit->edit_no != 0 && edit->edit_no <= EDIT_NUMBER_MAX && body->len % 8 == 0);
    ASSERT(edit->next_file_id <= EDIT_NUMBER_MAX && edit->durable_lsn <= EDIT_NUMBER_MAX);
    ASSERT(edit->wal_min_gen <= EDIT_NUMBER_MAX && edit->wal_min_lsn <= EDIT_NUMBER_MAX);
    TRY(edit_put_singles(edit, body));
    for (size_t i = 0; i < edit->add_segment_count; i++) {
        TRY(edit_put_segment(body, &edit->add_segments[i]));
    }
    TRY(edit_put_ids(body, EDIT_TAG_DROP_SEGMENT, edit->drop_segments, edit->drop_segment_count));
    TRY(edit_put_ids(body, EDIT_TAG_ADD_LOG, edit->add_logs, edit->add_log_count));
    return edit_put_ids(body, EDIT_TAG_DROP_LOG, edit->drop_logs, edit->drop_log_count);
}

/* ---- Decoding ------------------------------------------------------------ */

struct edit_field {
    uint16_t tag;
    struct bytes value;
};

/* The next field. OK, END (only padding is left), CORRUPT. */
static esker_status
edit_next_field(struct cursor *cursor, struct edit_field *out)
{
    size_t left = cursor_left(cursor);
    if (left == 0) {
        return ESKER_END;
    }
    if (left <= EDIT_TAIL_BYTES_MAX) {
        /* A field of 8 bytes is an empty one: SNAPSHOT, or one to skip. */
        struct cursor ahead = *cursor;
        uint64_t word = cursor_u64(&ahead);
        if (ahead.ok && word == 0) {
            *cursor = ahead;
            return ESKER_END;
        }
    }
    struct cursor at = *cursor;
    uint16_t tag = cursor_u16(&at);
    uint16_t zero = cursor_u16(&at);
    uint32_t len = cursor_u32(&at);
    struct bytes value = cursor_bytes(&at, len);
    size_t pad_from = cursor_offset(&at);
    cursor_align(&at, 8);
    if (!at.ok || tag == 0 || zero != 0) {
        return ESKER_CORRUPT;
    }
    for (const uint8_t *pad = at.start + pad_from; pad < at.at; pad++) {
        if (*pad != 0) {
            return ESKER_CORRUPT;
        }
    }
    *cursor = at;
    *out = (struct edit_field){.tag = tag, .value = value};
    return ESKER_OK;
}

static esker_status
edit_read_segment(struct bytes value, struct segment_meta *out)
{
    struct cursor cursor = cursor_make(value.ptr, value.len);
    struct segment_meta segment = {0};
    segment.id = cursor_u64(&cursor);
    segment.size_bytes = cursor_u64(&cursor);
    segment.row_count = cursor_u64(&cursor);
    segment.tombstone_count = cursor_u64(&cursor);
    segment.min_lsn = cursor_u64(&cursor);
    segment.max_lsn = cursor_u64(&cursor);
    segment.level = cursor_u32(&cursor);
    uint32_t flags = cursor_u32(&cursor);
    uint16_t klen_min = cursor_u16(&cursor);
    uint16_t klen_max = cursor_u16(&cursor);
    uint32_t zero = cursor_u32(&cursor);
    segment.min_key = cursor_bytes(&cursor, klen_min);
    segment.max_key = cursor_bytes(&cursor, klen_max);
    if (!cursor.ok || cursor_left(&cursor) != 0 || zero != 0) {
        return ESKER_CORRUPT;
    }
    if (flags != 0) {
        return ESKER_UNSUPPORTED;
    }
    if (!edit_segment_is_sane(&segment)) {
        return ESKER_CORRUPT;
    }
    *out = segment;
    return ESKER_OK;
}

/* Of the segment that was added right before; NULL: there is none. */
static esker_status
edit_read_expiry(struct bytes value, struct segment_meta *segment)
{
    if (segment == NULL || segment->expiring_count != 0 || segment->tier_id != 0 ||
        value.len != EDIT_EXPIRY_BYTES || le64_load(value.ptr) == 0) {
        return ESKER_CORRUPT;
    }
    segment->expiring_count = le64_load(value.ptr);
    segment->expiry_first_ms = le64_load(value.ptr + 8);
    segment->expiry_last_ms = le64_load(value.ptr + 16);
    return edit_expiry_is_sane(segment) ? ESKER_OK : ESKER_CORRUPT;
}

/* The same, or behind its SEGMENT_EXPIRY. */
static esker_status
edit_read_tier(struct bytes value, struct segment_meta *segment)
{
    if (segment == NULL || segment->tier_id != 0 || value.len != EDIT_TIER_BYTES ||
        le64_load(value.ptr + 8) == 0) {
        return ESKER_CORRUPT;
    }
    segment->tier_lsn = le64_load(value.ptr);
    segment->tier_id = le64_load(value.ptr + 8);
    return edit_tier_is_sane(segment) ? ESKER_OK : ESKER_CORRUPT;
}

/* One number of exactly 8 bytes in [1, EDIT_NUMBER_MAX]. */
static esker_status
edit_read_number(struct bytes value, uint64_t *out)
{
    if (value.len != 8) {
        return ESKER_CORRUPT;
    }
    uint64_t number = le64_load(value.ptr);
    if (number == 0 || number > EDIT_NUMBER_MAX) {
        return ESKER_CORRUPT;
    }
    *out = number;
    return ESKER_OK;
}

static esker_status
edit_read_hash(struct bytes value, uint64_t *out)
{
    if (value.len != 8) {
        return ESKER_CORRUPT;
    }
    *out = le64_load(value.ptr);
    return ESKER_OK;
}

static esker_status
edit_read_wal_min(struct bytes value, struct edit *edit)
{
    if (value.len != 16) {
        return ESKER_CORRUPT;
    }
    edit->wal_min_gen = le64_load(value.ptr);
    edit->wal_min_lsn = le64_load(value.ptr + 8);
    bool sane = edit->wal_min_gen != 0 && edit->wal_min_gen <= EDIT_NUMBER_MAX &&
                edit->wal_min_lsn <= EDIT_NUMBER_MAX;
    return sane ? ESKER_OK : ESKER_CORRUPT;
}

/* Reads one field into *edit; array elements only when `fill`, else they are checked and counted.
 * *segment_at: the segment that the field before added, or says more of, in *segment unless it is
 * filled in; NULL: none. */
static esker_status
edit_read_field(const struct edit_field *field, bool fill, struct edit *edit, struct segment_meta *segment,
                struct segment_meta **segment_at)
{
    struct segment_meta *before = *segment_at;
    uint64_t id = 0;
    *segment_at = NULL;
    switch (field->tag) {
    case EDIT_TAG_EDIT_NO:
        return edit_read_number(field->value, &edit->edit_no);
    case EDIT_TAG_PREV_HASH:
        return edit_read_hash(field->value, &edit->prev_hash);
    case EDIT_TAG_NEXT_FILE_ID:
        return edit_read_number(field->value, &edit->next_file_id);
    case EDIT_TAG_WAL_MIN:
        return edit_read_wal_min(field->value, edit);
    case EDIT_TAG_DURABLE_LSN:
        return edit_read_number(field->value, &edit->durable_lsn);
    case EDIT_TAG_SNAPSHOT:
        edit->is_snapshot = true;
        return field->value.len == 0 ? ESKER_OK : ESKER_CORRUPT;
    case EDIT_TAG_ADD_SEGMENT:
        *segment_at = fill ? &edit->add_segments[edit->add_segment_count] : segment;
        edit->add_segment_count++;
        return edit_read_segment(field->value, *segment_at);
    case EDIT_TAG_SEGMENT_EXPIRY:
        *segment_at = before;
        return edit_read_expiry(field->value, before);
    case EDIT_TAG_SEGMENT_TIER:
        return edit_read_tier(field->value, before);
    case EDIT_TAG_DROP_SEGMENT:
        TRY(edit_read_number(field->value, fill ? &edit->drop_segments[edit->drop_segment_count] : &id));
        edit->drop_segment_count++;
        return ESKER_OK;
    case EDIT_TAG_ADD_LOG:
        TRY(edit_read_number(field->value, fill ? &edit->add_logs[edit->add_log_count] : &id));
        edit->add_log_count++;
        return ESKER_OK;
    case EDIT_TAG_DROP_LOG:
        TRY(edit_read_number(field->value, fill ? &edit->drop_logs[edit->drop_log_count] : &id));
        edit->drop_log_count++;
        return ESKER_OK;
    default:
        return (field->tag & EDIT_TAG_SKIPPABLE) != 0 ? ESKER_OK : ESKER_UNSUPPORTED;
    }
}

/* May this tag come now? Single fields once, SNAPSHOT only at the start. */
static bool
edit_tag_may_come(uint16_t tag, uint32_t *seen, bool is_first)
{
    bool single = (tag >= EDIT_TAG_EDIT_NO && tag <= EDIT_TAG_DURABLE_LSN) || tag == EDIT_TAG_SNAPSHOT;
    if (!single) {
        return true;
    }
    if ((*seen & (1U << tag)) != 0 || (tag == EDIT_TAG_SNAPSHOT && !is_first)) {
        return false;
    }
    *seen |= 1U << tag;
    return true;
}

static esker_status
edit_read_all(struct bytes body, bool fill, struct edit *edit, uint64_t *offset_out)
{
    struct cursor cursor = cursor_make(body.ptr, body.len);
    uint32_t seen = 0;
    struct segment_meta segment;
    struct segment_meta *segment_at = NULL;
    for (bool is_first = true;; is_first = false) {
        struct edit_field field;
        uint64_t offset = cursor_offset(&cursor);
        esker_status status = edit_next_field(&cursor, &field);
        if (status == ESKER_OK && !edit_tag_may_come(field.tag, &seen, is_first)) {
            status = ESKER_CORRUPT;
        }
        if (status == ESKER_OK) {
            status = edit_read_field(&field, fill, edit, &segment, &segment_at);
        }
        if (status == ESKER_END) {
            uint32_t needed = (1U << EDIT_TAG_EDIT_NO) | (1U << EDIT_TAG_PREV_HASH);
            status = (seen & needed) == needed ? ESKER_OK : ESKER_CORRUPT;
            *offset_out = offset;
            return status;
        }
        if (status != ESKER_OK) {
            *offset_out = offset;
            return status;
        }
    }
}

esker_status
edit_decode(struct bytes body, const struct mem *mem, struct edit *out, uint64_t *offset_out)
{
    struct edit counted = {0};
    uint64_t offset = 0;
    if (body.len == 0) {
        *offset_out = 0;
        return ESKER_CORRUPT;
    }
    esker_status status = edit_read_all(body, false, &counted, &offset);
    if (status != ESKER_OK) {
        *offset_out = offset;
        return status;
    }
    struct edit edit = {
        .add_segments = mem_zalloc_array(mem, counted.add_segment_count, sizeof *edit.add_segments),
        .drop_segments = mem_zalloc_array(mem, counted.drop_segment_count, sizeof *edit.drop_segments),
        .add_logs = mem_zalloc_array(mem, counted.add_log_count, sizeof *edit.add_logs),
        .drop_logs = mem_zalloc_array(mem, counted.drop_log_count, sizeof *edit.drop_logs),
    };
    if (edit.add_segments == NULL || edit.drop_segments == NULL || edit.add_logs == NULL ||
        edit.drop_logs == NULL) {
        edit_fini(&edit, mem);
        *offset_out = 0;
        return FAIL_NO_MEMORY("a manifest edit");
    }
    status = edit_read_all(body, true, &edit, &offset);
    ASSERT(status == ESKER_OK); /* the same bytes passed the same checks above */
    *out = edit;
    return ESKER_OK;
}

void
edit_fini(struct edit *edit, const struct mem *mem)
{
    mem_free(mem, edit->add_segments);
    mem_free(mem, edit->drop_segments);
    mem_free(mem, edit->add_logs);
    mem_free(mem, edit->drop_logs);
    *edit = (struct edit){0};
}

/* ---- The two headers of 64 bytes ----------------------------------------- */

enum { FILE_HEAD_BYTES = 64, FILE_HEAD_SUM_OFF = 56 };

_Static_assert((int)MANIFEST_HEADER_BYTES == (int)FILE_HEAD_BYTES &&
                   (int)CURRENT_BYTES == (int)FILE_HEAD_BYTES,
               "the manifest's header and CURRENT share one layout");

static void
file_head_encode(const char magic[8], const struct file_head *head, uint8_t out[FILE_HEAD_BYTES])
{
    ASSERT(head->number >= 1 && head->number <= UINT32_MAX);
    memset(out, 0, FILE_HEAD_BYTES);
    memcpy(out, magic, 8);
    le32_store(out + 8, MANIFEST_FORMAT);
    memcpy(out + 16, head->uuid, sizeof head->uuid);
    le64_store(out + 32, head->number);
    le64_store(out + FILE_HEAD_SUM_OFF, hash64(out, FILE_HEAD_SUM_OFF, 0));
}

static esker_status
file_head_decode(const char magic[8], struct bytes bytes, struct file_head *out)
{
    if (bytes.len < FILE_HEAD_BYTES) {
        return ESKER_CORRUPT;
    }
    struct cursor cursor = cursor_make(bytes.ptr, bytes.len);
    struct bytes found = cursor_bytes(&cursor, 8);
    uint32_t format = cursor_u32(&cursor);
    uint32_t features = cursor_u32(&cursor);
    struct bytes uuid = cursor_bytes(&cursor, sizeof out->uuid);
    uint64_t number = cursor_u64(&cursor);
    uint64_t zeros = cursor_u64(&cursor);
    zeros |= cursor_u64(&cursor);
    uint64_t sum = cursor_u64(&cursor);
    if (!cursor.ok || memcmp(found.ptr, magic, 8) != 0 || sum != hash64(bytes.ptr, FILE_HEAD_SUM_OFF, 0)) {
        return ESKER_CORRUPT;
    }
    if (format != MANIFEST_FORMAT || features != 0) {
        return ESKER_UNSUPPORTED;
    }
    if (zeros != 0 || number == 0 || number > UINT32_MAX) {
        return ESKER_CORRUPT;
    }
    memcpy(out->uuid, uuid.ptr, sizeof out->uuid);
    out->number = number;
    return ESKER_OK;
}

void
manifest_header_encode(const struct file_head *head, uint8_t out[MANIFEST_HEADER_BYTES])
{
    file_head_encode(manifest_magic, head, out);
}

esker_status
manifest_header_decode(struct bytes bytes, struct file_head *out)
{
    return file_head_decode(manifest_magic, bytes, out);
}

bool
current_begins(const uint8_t *bytes, size_t len)
{
    return memcmp(bytes, current_magic, MIN(len, sizeof current_magic)) == 0;
}

void
current_encode(const struct file_head *head, uint8_t out[CURRENT_BYTES])
{
    file_head_encode(current_magic, head, out);
}

esker_status
current_decode(struct bytes bytes, struct file_head *out)
{
    if (bytes.len != CURRENT_BYTES) {
        return ESKER_CORRUPT;
    }
    return file_head_decode(current_magic, bytes, out);
}
