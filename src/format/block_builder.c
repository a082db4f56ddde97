/* SPDX-License-Identifier: MIT */
/*
 * Building columnar blocks. Rows collect in three growable runs: full keys one
 * after the other, values one after the other (their column as it will be),
 * and one small struct per row. block_builder_finish transposes them, because
 * only then the common prefix is known: what the first and the last key share.
 *
 * The size is known at any time without looking at the rows again: it depends
 * on counts, sums and extremes that each add keeps up to date.
 *
 * Concurrency: one thread at a time.
 */
#include "base/assert.h"
#include "format/block_layout.h"

/* Buffers that an oversize row made larger than this are not kept. */
enum { BUILDER_KEEP_BYTES = 1 << 20 };

struct builder_row {
    uint64_t lsn;
    uint32_t key_end; /* in keys */
    uint32_t value_end;
    uint32_t op;
};

/* What the size of a block follows from. */
struct builder_sums {
    uint32_t row_count;
    uint32_t common_len;
    size_t klen_min, klen_max;
    size_t vlen_min, vlen_max;
    uint64_t key_bytes, value_bytes;
    uint64_t lsn_min, lsn_max;
    bool has_types;
};

struct block_builder {
    const struct mem *mem;
    enum block_kind kind;
    struct builder_sums sums;
    size_t last_key_at; /* in keys */
    struct buf keys, values, rows;
};

esker_status
block_builder_create(const struct mem *mem, enum block_kind kind, struct block_builder **out)
{
    ASSERT(kind == BLOCK_DATA || kind == BLOCK_INDEX);
    struct block_builder *builder = mem_zalloc(mem, sizeof *builder);
    if (builder == NULL) {
        return FAIL_NO_MEMORY("a block builder");
    }
    builder->mem = mem;
    builder->kind = kind;
    buf_init(&builder->keys, mem);
    buf_init(&builder->values, mem);
    buf_init(&builder->rows, mem);
    *out = builder;
    return ESKER_OK;
}

void
block_builder_destroy(struct block_builder *builder)
{
    if (builder == NULL) {
        return;
    }
    buf_fini(&builder->keys);
    buf_fini(&builder->values);
    buf_fini(&builder->rows);
    mem_free(builder->mem, builder);
}

static void
builder_empty(struct buf *buf)
{
    if (buf->cap > BUILDER_KEEP_BYTES) {
        buf_fini(buf);
    }
    buf_clear(buf);
}

void
block_builder_reset(struct block_builder *builder)
{
    builder->sums = (struct builder_sums){0};
    builder->last_key_at = 0;
    builder_empty(&builder->keys);
    builder_empty(&builder->values);
    builder_empty(&builder->rows);
}

/* ---- Sizes ----------------------------------------------------------------- */

/* The length of all tails; of some shapes of keys no more than a bound. */
static uint64_t
builder_tails_bound(const struct builder_sums *sums)
{
    uint64_t not_tail = (uint64_t)sums->common_len + BLOCK_PFX_BYTES;
    if (sums->klen_max <= not_tail) {
        return 0;
    }
    if (sums->klen_min >= not_tail) {
        return sums->key_bytes - sums->row_count * not_tail;
    }
    /* Some keys end before a tail could start: the sum does not say how many. */
    return sums->key_bytes - (uint64_t)sums->row_count * sums->common_len;
}

static uint32_t
builder_lsn_bytes(const struct builder_sums *sums)
{
    uint64_t range = sums->lsn_max - sums->lsn_min;
    return range == 0 ? 0 : (uint32_t)(71 - __builtin_clzll(range)) / 8;
}

static struct block_shape
builder_shape(const struct builder_sums *sums, uint64_t tails_len)
{
    bool same_tails =
        sums->klen_min == sums->klen_max || sums->klen_max <= (size_t)sums->common_len + BLOCK_PFX_BYTES;
    return (struct block_shape){
        .row_count = sums->row_count,
        .common_len = sums->common_len,
        .lsn_bytes = builder_lsn_bytes(sums),
        .koff_bytes = same_tails ? 0 : block_offset_bytes(tails_len),
        .voff_bytes = sums->vlen_min == sums->vlen_max ? 0 : block_offset_bytes(sums->value_bytes),
        .has_plen = sums->klen_min < (size_t)sums->common_len + BLOCK_PFX_BYTES,
        .has_types = sums->has_types,
    };
}

static uint64_t
builder_raw_bytes(const struct builder_sums *sums)
{
    uint64_t tails = builder_tails_bound(sums);
    struct block_shape shape = builder_shape(sums, tails);
    struct block_layout at = block_layout_of(&shape);
    return align_up(at.tails + tails, 8) + sums->value_bytes;
}

/* The length of what two runs share at their start. */
static inline size_t
builder_shared_len(const uint8_t *a, const uint8_t *b, size_t len)
{
    size_t at = 0;
    for (; at + 8 <= len; at += 8) {
        uint64_t differ = le64_load(a + at) ^ le64_load(b + at);
        if (differ != 0) {
            return at + (size_t)__builtin_ctzll(differ) / 8;
        }
    }
    while (at < len && a[at] == b[at]) {
        at++;
    }
    return at;
}

/* The sums with one more row; shared_len: what its key shares with an earlier key. */
static struct builder_sums
builder_sums_with(const struct builder_sums *sums, size_t klen, size_t shared_len, uint64_t lsn, bool is_put,
                  size_t vlen)
{
    struct builder_sums next = *sums;
    if (sums->row_count == 0) {
        next.common_len = (uint32_t)klen;
        next.klen_min = klen;
        next.vlen_min = vlen;
        next.lsn_min = lsn;
    }
    next.common_len = MIN(next.common_len, (uint32_t)shared_len);
    next.klen_min = MIN(next.klen_min, klen);
    next.klen_max = MAX(next.klen_max, klen);
    next.vlen_min = MIN(next.vlen_min, vlen);
    next.vlen_max = MAX(next.vlen_max, vlen);
    next.lsn_min = MIN(next.lsn_min, lsn);
    next.lsn_max = MAX(next.lsn_max, lsn);
    next.key_bytes += klen;
    next.value_bytes += vlen;
    next.has_types |= !is_put;
    next.row_count++;
    return next;
}

static inline bool
builder_sums_allowed(const struct builder_sums *sums)
{
    return sums->row_count == 1 || builder_raw_bytes(sums) <= BLOCK_RAW_MAX;
}

bool
block_builder_fits(const struct block_builder *builder, struct bytes key, uint64_t lsn, enum entry_op op,
                   size_t value_len, size_t raw_limit)
{
    const struct builder_sums *sums = &builder->sums;
    if (sums->row_count == 0) {
        return true;
    }
    if (sums->row_count == BLOCK_ROWS_MAX) {
        return false;
    }
    size_t shared_len =
        builder_shared_len(builder->keys.ptr, key.ptr, MIN(key.len, (size_t)sums->common_len));
    struct builder_sums next = builder_sums_with(sums, key.len, shared_len, lsn, op == ENTRY_PUT, value_len);
    return builder_raw_bytes(&next) <= MIN(raw_limit, (size_t)BLOCK_RAW_MAX);
}

uint32_t
block_builder_row_count(const struct block_builder *builder)
{
    return builder->sums.row_count;
}

size_t
block_builder_raw_bytes(const struct block_builder *builder)
{
    return builder->sums.row_count == 0 ? 0 : (size_t)builder_raw_bytes(&builder->sums);
}

/* ---- Adding ---------------------------------------------------------------- */

/* The row comes strictly behind the last one; *shared_out: what their keys share. */
static inline bool
builder_ascends(const struct block_builder *builder, struct bytes key, uint64_t lsn, size_t *shared_out)
{
    const uint8_t *last = builder->keys.ptr + builder->last_key_at;
    size_t last_len = builder->keys.len - builder->last_key_at;
    size_t both = MIN(last_len, key.len);
    size_t shared = builder_shared_len(last, key.ptr, both);
    *shared_out = shared;
    if (shared < both) {
        return last[shared] < key.ptr[shared];
    }
    if (last_len != key.len) {
        return last_len < key.len;
    }
    const struct builder_row *row =
        (const struct builder_row *)(const void *)(builder->rows.ptr + builder->rows.len) - 1;
    return row->lsn > lsn;
}

esker_status
block_builder_add(struct block_builder *builder, struct bytes key, uint64_t lsn, enum entry_op op,
                  struct bytes value)
{
    ASSERT(key.len >= 1 && key.len <= KEY_BYTES_MAX && value.len <= VALUE_BYTES_MAX);
    ASSERT(entry_op_is_known(op));
    ASSERT(builder->sums.row_count < BLOCK_ROWS_MAX);
    size_t shared_len = key.len;
    if (builder->sums.row_count > 0 && UNLIKELY(!builder_ascends(builder, key, lsn, &shared_len))) {
        return FAIL(ESKER_CORRUPT, "rows reached a block out of order");
    }
    struct builder_sums next =
        builder_sums_with(&builder->sums, key.len, shared_len, lsn, op == ENTRY_PUT, value.len);
    ASSERT(builder_sums_allowed(&next));
    TRY(buf_reserve(&builder->keys, key.len));
    TRY(buf_reserve(&builder->values, value.len));
    TRY(buf_reserve(&builder->rows, sizeof(struct builder_row)));

    struct builder_row row = {
        .lsn = lsn,
        .key_end = (uint32_t)(builder->keys.len + key.len),
        .value_end = (uint32_t)(builder->values.len + value.len),
        .op = (uint32_t)op,
    };
    memcpy(builder->keys.ptr + builder->keys.len, key.ptr, key.len);
    if (value.len > 0) {
        memcpy(builder->values.ptr + builder->values.len, value.ptr, value.len);
    }
    memcpy(builder->rows.ptr + builder->rows.len, &row, sizeof row);
    builder->last_key_at = builder->keys.len;
    builder->keys.len += key.len;
    builder->values.len += value.len;
    builder->rows.len += sizeof row;
    builder->sums = next;
    return ESKER_OK;
}

/* ---- Finishing ------------------------------------------------------------- */

/* What the bound above does not say where only some keys have tails. */
static uint64_t
builder_tails_len(const struct block_builder *builder)
{
    const struct builder_sums *sums = &builder->sums;
    size_t not_tail = (size_t)sums->common_len + BLOCK_PFX_BYTES;
    if (sums->klen_max <= not_tail || sums->klen_min >= not_tail) {
        return builder_tails_bound(sums);
    }
    const struct builder_row *rows = (const struct builder_row *)(const void *)builder->rows.ptr;
    uint64_t tails_len = 0;
    for (uint32_t i = 0; i < sums->row_count; i++) {
        size_t klen = rows[i].key_end - (i > 0 ? rows[i - 1].key_end : 0);
        tails_len += klen > not_tail ? klen - not_tail : 0;
    }
    return tails_len;
}

static void
builder_write_header(const struct block_builder *builder, const struct block_shape *shape, uint64_t tails_len,
                     uint64_t raw_len, uint8_t *raw)
{
    const struct builder_sums *sums = &builder->sums;
    raw[BLOCK_AT_KIND] = (uint8_t)builder->kind;
    raw[BLOCK_AT_VERSION] = BLOCK_VERSION;
    le16_store(raw + BLOCK_AT_ROWS, (uint16_t)shape->row_count);
    le32_store(raw + BLOCK_AT_RAW_LEN, (uint32_t)raw_len);
    le16_store(raw + BLOCK_AT_COMMON_LEN, (uint16_t)shape->common_len);
    raw[BLOCK_AT_FLAGS] =
        (uint8_t)((shape->has_plen ? BLOCK_FLAG_PLEN : 0) | (shape->has_types ? BLOCK_FLAG_TYPES : 0));
    raw[BLOCK_AT_LSN_BYTES] = (uint8_t)shape->lsn_bytes;
    raw[BLOCK_AT_KOFF_BYTES] = (uint8_t)shape->koff_bytes;
    raw[BLOCK_AT_VOFF_BYTES] = (uint8_t)shape->voff_bytes;
    uint64_t tail_len = shape->koff_bytes == 0 ? tails_len / shape->row_count : 0;
    le16_store(raw + BLOCK_AT_TAIL_LEN, (uint16_t)tail_len);
    le32_store(raw + BLOCK_AT_VALUE_LEN, shape->voff_bytes == 0 ? (uint32_t)sums->vlen_max : 0);
    le64_store(raw + BLOCK_AT_LSN_BASE, shape->lsn_bytes == 8 ? 0 : sums->lsn_min);
}

/* The columns that keys go to. */
static void
builder_write_keys(const struct block_builder *builder, const struct block_shape *shape,
                   const struct block_layout *at, uint8_t *raw)
{
    const struct builder_row *rows = (const struct builder_row *)(const void *)builder->rows.ptr;
    uint32_t key_at = 0, tail_at = 0;
    for (uint32_t i = 0; i < shape->row_count; i++) {
        struct block_rest rest = block_rest_of(builder->keys.ptr + key_at + shape->common_len,
                                               rows[i].key_end - key_at - shape->common_len);
        key_at = rows[i].key_end;
        raw[at->fp + i] = block_fingerprint(rest.pfx, rest.plen, rest.tail.ptr, rest.tail.len);
        le64_store(raw + at->pfx + 8 * (size_t)i, rest.pfx);
        if (shape->has_plen) {
            raw[at->plen + i] = (uint8_t)rest.plen;
        }
        memcpy(raw + at->tails + tail_at, rest.tail.ptr, rest.tail.len);
        tail_at += (uint32_t)rest.tail.len;
        if (shape->koff_bytes != 0) {
            block_offset_store(raw + at->koff, shape->koff_bytes, i + 1, tail_at);
        }
    }
}

static void
builder_write_rest(const struct block_builder *builder, const struct block_shape *shape,
                   const struct block_layout *at, uint64_t values, uint8_t *raw)
{
    const struct builder_row *rows = (const struct builder_row *)(const void *)builder->rows.ptr;
    uint64_t lsn_base = shape->lsn_bytes == 8 ? 0 : builder->sums.lsn_min;
    for (uint32_t i = 0; i < shape->row_count; i++) {
        if (shape->voff_bytes != 0) {
            block_offset_store(raw + at->voff, shape->voff_bytes, i + 1, rows[i].value_end);
        }
        if (shape->lsn_bytes != 0) {
            /* The zero bytes above it are the next row's, or the zeros behind the column. */
            le64_store(raw + at->lsns + shape->lsn_bytes * (size_t)i, rows[i].lsn - lsn_base);
        }
        if (shape->has_types) {
            raw[at->types + i] = (uint8_t)rows[i].op;
        }
    }
    if (builder->values.len > 0) {
        memcpy(raw + values, builder->values.ptr, builder->values.len);
    }
}

esker_status
block_builder_finish(struct block_builder *builder, struct buf *raw)
{
    const struct builder_sums *sums = &builder->sums;
    ASSERT(sums->row_count > 0);
    uint64_t tails_len = builder_tails_len(builder);
    struct block_shape shape = builder_shape(sums, tails_len);
    struct block_layout at = block_layout_of(&shape);
    uint64_t tails_end = at.tails + tails_len;
    uint64_t values = align_up(tails_end, 8);
    uint64_t raw_len = values + sums->value_bytes;
    ASSERT(raw_len <= BLOCK_ONE_ROW_RAW_MAX);
    buf_clear(raw);
    TRY(buf_reserve(raw, raw_len));
    memset(raw->ptr, 0, at.tails);
    memcpy(raw->ptr + BLOCK_HEADER_BYTES, builder->keys.ptr, shape.common_len);
    builder_write_keys(builder, &shape, &at, raw->ptr);
    memset(raw->ptr + tails_end, 0, values - tails_end);
    builder_write_rest(builder, &shape, &at, values, raw->ptr);
    builder_write_header(builder, &shape, tails_len, raw_len, raw->ptr);
    raw->len = raw_len;
    return ESKER_OK;
}

/* ---- Separators ------------------------------------------------------------ */

/* left[0..at] with its last byte that can grow grown, if that is shorter than
 * left; else left. Bytes before `at` stay. */
static size_t
separator_after(struct bytes left, size_t at, uint8_t *out)
{
    memcpy(out, left.ptr, left.len);
    for (size_t i = at; i + 1 < left.len; i++) {
        if (left.ptr[i] != 0xff) {
            out[i]++;
            return i + 1;
        }
    }
    return left.len;
}

size_t
block_separator(struct bytes left, struct bytes right, uint8_t *out)
{
    if (right.len == 0) {
        return separator_after(left, 0, out);
    }
    size_t shared = builder_shared_len(left.ptr, right.ptr, MIN(left.len, right.len));
    /* One is a prefix of the other, they are out of order, or left is as short
     * as any key between them. */
    if (shared == left.len || shared == right.len || left.ptr[shared] > right.ptr[shared] ||
        shared + 1 == left.len) {
        memcpy(out, left.ptr, left.len);
        return left.len;
    }
    /* left and right differ first at `shared`: one byte more decides, unless
     * that would already be right. */
    if (left.ptr[shared] + 1 < right.ptr[shared] || shared + 1 < right.len) {
        memcpy(out, left.ptr, shared + 1);
        out[shared]++;
        return shared + 1;
    }
    return separator_after(left, shared + 1, out);
}
