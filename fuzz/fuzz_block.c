/* rooms: format */
/* SPDX-License-Identifier: MIT */
/*
 * Blocks: block_open with every accessor behind it, and block_stored_open with
 * the decompressors. The first byte chooses what the rest is:
 *   0 a raw block   1 one whose framing is made right first, so that more than
 *   noise gets in   2 a script of rows for the builder   3 a stored block whose
 *   checksum is made right first   4 one as it is
 * Oracles: what opens keeps the promises of block.h, gives a sorted array's
 * answers, and comes back equal when it is built anew.
 */
#include "base/cursor.h"
#include "base/hash.h"
#include "format/block_layout.h"
#include "format/test_rows.h"

enum { MODES = 5, SEGMENT_ID = 3, FILE_OFFSET = 64, PROBES_MAX = 6, SCRIPT_ROWS_MAX = 160 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A copy at an odd address, with nothing allocated behind it. */
static uint8_t *
fuzz_exact_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size + 1);
    ASSERT(copy != NULL);
    if (size > 0) {
        memcpy(copy + 1, data, size);
    }
    return copy;
}

/* ---- What opened ------------------------------------------------------------ */

static void
fuzz_rows_of(const struct block *block, struct test_rows *rows)
{
    size_t bytes = block->raw_len;
    for (uint32_t i = 0; i < block->row_count; i++) {
        bytes += block_key_len(block, i);
    }
    test_rows_init(rows, block->row_count, bytes);
    for (uint32_t i = 0; i < block->row_count; i++) {
        struct test_row *row = &rows->at[rows->count++];
        row->key = bytes_make(rows->bytes + rows->used, block_key(block, i, rows->bytes + rows->used));
        rows->used += row->key.len;
        row->lsn = block_lsn(block, i);
        row->op = block_op(block, i);
        row->value = block_value(block, i);
    }
}

/* Keys cut out of the input, and the rows' own neighbourhoods. */
static void
fuzz_probe(const struct test_rows *rows, const struct block *block, struct bytes salt)
{
    struct rng rng = {.state = hash64(salt.ptr, salt.len, 0)};
    for (uint32_t i = 0; i < PROBES_MAX; i++) {
        const struct test_row *row = &rows->at[rng_below(&rng, rows->count)];
        test_rows_probe_around(rows, block, row->key, row->lsn, &rng);
        size_t from = salt.len == 0 ? 0 : (size_t)rng_below(&rng, salt.len);
        size_t len = (size_t)rng_below(&rng, MIN((size_t)24, salt.len - from) + 1);
        test_rows_probe(rows, block, bytes_make(salt.ptr + from, len), rng_next(&rng));
    }
}

static void
fuzz_opened(const struct block *block, enum block_kind kind, struct bytes salt)
{
    struct test_rows rows;
    struct buf raw, again;
    struct block rebuilt;
    buf_init(&raw, &mem_default);
    buf_init(&again, &mem_default);
    test_block_sound(block);
    fuzz_rows_of(block, &rows);
    fuzz_probe(&rows, block, salt);
    for (uint32_t i = 0; i < block->row_count; i++) {
        struct block_handle handle;
        uint8_t encoded[BLOCK_HANDLE_BYTES];
        if (block_handle_decode(block_value(block, i), &handle)) {
            block_handle_encode(&handle, encoded);
            ASSERT(memcmp(encoded, block_value(block, i).ptr, sizeof encoded) == 0);
        }
    }
    test_rows_build(&rows, kind, &raw);
    ASSERT(block_open(buf_bytes(&raw), kind, &rebuilt) == ESKER_OK);
    test_rows_equal(&rows, &rebuilt);
    fuzz_probe(&rows, &rebuilt, salt);
    test_rows_build(&rows, kind, &again);
    ASSERT(bytes_equal(buf_bytes(&raw), buf_bytes(&again)));
    test_rows_fini(&rows);
    buf_fini(&raw);
    buf_fini(&again);
}

static void
fuzz_raw(const uint8_t *data, size_t size)
{
    uint8_t *copy = fuzz_exact_copy(data, size);
    struct block block;
    for (enum block_kind kind = BLOCK_DATA; kind <= BLOCK_INDEX; kind++) {
        if (block_open(bytes_make(copy + 1, size), kind, &block) == ESKER_OK) {
            fuzz_opened(&block, kind, bytes_make(data, size));
        }
    }
    free(copy);
}

/* ---- Making noise look like a block ----------------------------------------- */

/* A width of 0, 2 or 4 bytes. */
static uint32_t
fuzz_mended_width(uint8_t byte)
{
    return byte % 3U * 2U;
}

static struct block_shape
fuzz_mended_shape(const uint8_t *raw, size_t size)
{
    struct block_shape shape = block_shape_of(raw);
    shape.row_count = 1U + shape.row_count % 40U;
    shape.common_len %= 60U;
    shape.lsn_bytes %= 9U;
    shape.koff_bytes = fuzz_mended_width((uint8_t)shape.koff_bytes);
    shape.voff_bytes = fuzz_mended_width((uint8_t)shape.voff_bytes);
    while (shape.row_count > 1 && block_layout_of(&shape).tails > size) {
        shape.row_count--;
    }
    return shape;
}

/* What the shape leaves open: how long equal tails and values are. */
static uint32_t
fuzz_mended_tail_len(const uint8_t *raw, size_t size, const struct block_shape *shape,
                     const struct block_layout *at)
{
    if (shape->koff_bytes != 0 || shape->has_plen) {
        return 0;
    }
    return MIN(le16_load(raw + BLOCK_AT_TAIL_LEN) % 12U,
               (uint32_t)((size - at->tails) / 2 / shape->row_count));
}

static void
fuzz_mend_header(uint8_t *raw, size_t size, const struct block_shape *shape, uint32_t tail_len,
                 uint32_t value_len)
{
    raw[BLOCK_AT_KIND] = (uint8_t)(BLOCK_DATA + (raw[BLOCK_AT_KIND] & 1));
    raw[BLOCK_AT_VERSION] = BLOCK_VERSION;
    le16_store(raw + BLOCK_AT_ROWS, (uint16_t)shape->row_count);
    le32_store(raw + BLOCK_AT_RAW_LEN, (uint32_t)size);
    le16_store(raw + BLOCK_AT_COMMON_LEN, (uint16_t)shape->common_len);
    raw[BLOCK_AT_FLAGS] &= BLOCK_FLAG_PLEN | BLOCK_FLAG_TYPES;
    raw[BLOCK_AT_LSN_BYTES] = (uint8_t)shape->lsn_bytes;
    raw[BLOCK_AT_KOFF_BYTES] = (uint8_t)shape->koff_bytes;
    raw[BLOCK_AT_VOFF_BYTES] = (uint8_t)shape->voff_bytes;
    le16_store(raw + BLOCK_AT_TAIL_LEN, (uint16_t)tail_len);
    le32_store(raw + BLOCK_AT_VALUE_LEN, value_len);
    le32_store(raw + BLOCK_AT_RESERVED, 0);
    if (shape->lsn_bytes == 8) {
        le64_store(raw + BLOCK_AT_LSN_BASE, 0);
    }
}

static void
fuzz_zero(uint8_t *raw, uint64_t from, uint64_t to)
{
    memset(raw + from, 0, to - from);
}

static void
fuzz_mend_gaps(uint8_t *raw, const struct block_shape *shape, const struct block_layout *at,
               uint64_t tails_end, uint64_t values)
{
    uint64_t n = shape->row_count;
    fuzz_zero(raw, BLOCK_HEADER_BYTES + shape->common_len, at->fp);
    fuzz_zero(raw, at->fp + n, at->pfx);
    fuzz_zero(raw, at->plen + (shape->has_plen ? n : 0), at->koff);
    fuzz_zero(raw, at->koff + (shape->koff_bytes != 0 ? shape->koff_bytes * (n + 1) : 0), at->voff);
    fuzz_zero(raw, at->voff + (shape->voff_bytes != 0 ? shape->voff_bytes * (n + 1) : 0), at->lsns);
    fuzz_zero(raw, at->lsns + shape->lsn_bytes * n, at->types);
    fuzz_zero(raw, at->types + (shape->has_types ? n : 0), at->tails);
    fuzz_zero(raw, tails_end, values);
}

/* Offsets ascend by small steps, prefixes never descend, fingerprints agree:
 * the order of equal prefixes and the LSNs stay the input's. Returns the end of the tails. */
static uint64_t
fuzz_mend_rows(uint8_t *raw, size_t size, const struct block_shape *shape, const struct block_layout *at,
               uint32_t tail_len)
{
    uint64_t tail_at = 0, pfx_last = 0, room = size - at->tails;
    for (uint32_t i = 0; i < shape->row_count; i++) {
        uint64_t step = tail_len;
        if (shape->koff_bytes != 0) {
            step = MIN(block_offset(raw + at->koff, shape->koff_bytes, i + 1) % 12U,
                       room / 2 - MIN(tail_at, room / 2));
        }
        uint32_t plen = 8;
        if (shape->has_plen) {
            plen = step != 0 ? 8 : raw[at->plen + i] % 9U;
            raw[at->plen + i] = (uint8_t)plen;
        }
        uint64_t pfx = MAX(le64_load(raw + at->pfx + 8 * i), pfx_last);
        pfx_last = pfx;
        pfx &= plen == 8 ? UINT64_MAX : ~(UINT64_MAX >> (8 * plen));
        le64_store(raw + at->pfx + 8 * i, pfx);
        raw[at->fp + i] = block_fingerprint(pfx, plen, raw + at->tails + tail_at, step);
        if (shape->has_types) {
            static const uint8_t kinds[4] = {ENTRY_PUT, ENTRY_DELETE, ENTRY_PUT, ENTRY_PUT_EXPIRING};
            raw[at->types + i] = kinds[raw[at->types + i] & 3];
        }
        tail_at += step;
        if (shape->koff_bytes != 0) {
            block_offset_store(raw + at->koff, shape->koff_bytes, i, (uint32_t)(tail_at - step));
            block_offset_store(raw + at->koff, shape->koff_bytes, i + 1, (uint32_t)tail_at);
        }
    }
    return at->tails + tail_at;
}

/* Values fill what is left; equal ones as far as that goes. Returns the block's size. */
static size_t
fuzz_mend_values(uint8_t *raw, size_t size, const struct block_shape *shape, const struct block_layout *at,
                 uint64_t values)
{
    uint64_t value_at = 0, left = size - values;
    if (shape->voff_bytes == 0) {
        return values + left / shape->row_count * shape->row_count;
    }
    left = shape->voff_bytes == 2 ? MIN(left, (uint64_t)UINT16_MAX) : left;
    block_offset_store(raw + at->voff, shape->voff_bytes, 0, 0);
    for (uint32_t i = 0; i < shape->row_count; i++) {
        uint64_t step = block_offset(raw + at->voff, shape->voff_bytes, i + 1) % 40U;
        value_at = i + 1 == shape->row_count ? left : MIN(value_at + step, left);
        block_offset_store(raw + at->voff, shape->voff_bytes, i + 1, (uint32_t)value_at);
    }
    return values + left;
}

static void
fuzz_mended(const uint8_t *data, size_t size)
{
    if (size < BLOCK_HEADER_BYTES) {
        return;
    }
    struct block_shape shape = fuzz_mended_shape(data, size);
    struct block_layout at = block_layout_of(&shape);
    if (at.tails + 16 > size) {
        return;
    }
    uint8_t *copy = fuzz_exact_copy(data, size);
    uint8_t *raw = copy + 1;
    uint32_t tail_len = fuzz_mended_tail_len(raw, size, &shape, &at);
    uint64_t tails_end = fuzz_mend_rows(raw, size, &shape, &at, tail_len);
    uint64_t values = align_up(tails_end, 8);
    size_t mended = fuzz_mend_values(raw, size, &shape, &at, values);
    uint32_t value_len = shape.voff_bytes == 0 ? (uint32_t)((mended - values) / shape.row_count) : 0;
    fuzz_mend_header(raw, mended, &shape, tail_len, value_len);
    fuzz_mend_gaps(raw, &shape, &at, tails_end, values);
    fuzz_raw(raw, mended);
    free(copy);
}

/* ---- Rows from a script ------------------------------------------------------ */

/* Per row: how much of the last key to keep, how many bytes to add, an LSN, a value's length. */
static void
fuzz_script(const uint8_t *data, size_t size)
{
    struct cursor in = cursor_make(data, size);
    struct test_rows rows;
    struct buf raw;
    struct block block;
    uint8_t key[KEY_BYTES_MAX];
    size_t key_len = 0;
    test_rows_init(&rows, SCRIPT_ROWS_MAX, (size_t)SCRIPT_ROWS_MAX * 320);
    while (cursor_left(&in) > 4 && rows.count < SCRIPT_ROWS_MAX) {
        size_t keep = cursor_u8(&in), add = cursor_u8(&in) % 32;
        struct bytes more = cursor_bytes(&in, MIN(add, cursor_left(&in)));
        key_len = MIN(key_len, keep);
        if (more.len > 0) {
            memcpy(key + key_len, more.ptr, more.len);
            key_len += more.len;
        }
        if (key_len == 0) {
            key[key_len++] = 0;
        }
        uint8_t lsn = cursor_u8(&in), value = cursor_u8(&in);
        struct test_row *row = &rows.at[rows.count++];
        row->key = test_rows_keep(&rows, key, key_len);
        row->lsn = (lsn & 0xf0) == 0xf0 ? UINT64_MAX - (lsn & 15) : lsn;
        row->op = value == 255 ? ENTRY_DELETE : ENTRY_PUT;
        row->value = bytes_make(data, MIN((size_t)value % 64, size));
        if (value >= 192 && value < 255 && row->value.len >= EXPIRY_BYTES) {
            row->op = ENTRY_PUT_EXPIRING;
        }
    }
    if (rows.count > 0) {
        buf_init(&raw, &mem_default);
        test_rows_settle(&rows);
        test_rows_build(&rows, BLOCK_DATA, &raw);
        uint8_t *copy = fuzz_exact_copy(raw.ptr, raw.len);
        ASSERT(block_open(bytes_make(copy + 1, raw.len), BLOCK_DATA, &block) == ESKER_OK);
        test_rows_equal(&rows, &block);
        fuzz_opened(&block, BLOCK_DATA, bytes_make(data, size));
        free(copy);
        buf_fini(&raw);
    }
    test_rows_fini(&rows);
}

/* ---- Stored blocks ----------------------------------------------------------- */

static void
fuzz_stored(const uint8_t *data, size_t size, bool forge)
{
    uint8_t *copy = fuzz_exact_copy(data, size);
    uint8_t *bytes = copy + 1;
    struct block_stored stored;
    if (forge && size >= BLOCK_TRAILER_BYTES) {
        uint8_t *trailer = bytes + size - BLOCK_TRAILER_BYTES;
        uint64_t seed = hash_mix(hash_mix(SEGMENT_ID, FILE_OFFSET), le64_load(trailer));
        le64_store(trailer + 8, hash64(bytes, size - BLOCK_TRAILER_BYTES, seed));
    }
    struct bytes whole = bytes_make(bytes, size);
    if (block_stored_open(whole, BLOCK_DATA, SEGMENT_ID, FILE_OFFSET, &stored) == ESKER_OK) {
        ASSERT(stored.raw_len <= MAX((size_t)1 << 20, 256 * size));
        uint8_t *raw = malloc(MAX(stored.raw_len, 1U));
        ASSERT(raw != NULL);
        if (block_stored_unpack(&stored, &mem_default, raw) == ESKER_OK) {
            struct buf again;
            struct block_stored opened;
            buf_init(&again, &mem_default);
            struct bytes raw_bytes = bytes_make(raw, stored.raw_len);
            ASSERT(block_store(raw_bytes, BLOCK_DATA, stored.codec, 5, 6, &again) == ESKER_OK);
            ASSERT(block_stored_open(buf_bytes(&again), BLOCK_DATA, 5, 6, &opened) == ESKER_OK);
            uint8_t *back = malloc(MAX(opened.raw_len, 1U));
            ASSERT(back != NULL && opened.raw_len == stored.raw_len);
            ASSERT(block_stored_unpack(&opened, &mem_default, back) == ESKER_OK);
            ASSERT(memcmp(back, raw, stored.raw_len) == 0);
            free(back);
            buf_fini(&again);
            fuzz_raw(raw, stored.raw_len);
        }
        free(raw);
    }
    free(copy);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    switch (data[0] % MODES) {
    case 0:
        fuzz_raw(data + 1, size - 1);
        break;
    case 1:
        fuzz_mended(data + 1, size - 1);
        break;
    case 2:
        fuzz_script(data + 1, size - 1);
        break;
    case 3:
        fuzz_stored(data + 1, size - 1, true);
        break;
    default:
        fuzz_stored(data + 1, size - 1, false);
        break;
    }
    return 0;
}
