/* SPDX-License-Identifier: MIT */
/*
 * Reading columnar blocks. block_open is the gate: it believes nothing, and
 * what it lets pass the rest of this file believes entirely.
 *
 * A get compares the fingerprint column, 32 rows a step, and looks at the few
 * rows that agree; a seek searches the prefix column. Both touch only the
 * columns that they need: PAX (Ailamaki, DeWitt, Hill and Skounakis, "Weaving
 * relations for cache performance", 2001).
 *
 * Concurrency: an opened block is immutable; any number of threads read it.
 */
#include "base/assert.h"
#include "format/block_layout.h"
#include "format/cpu.h"

#if CPU_MAY_HAVE_AVX2
#include <immintrin.h>
#endif

/* ---- Opening --------------------------------------------------------------- */

static bool
block_zero(const uint8_t *raw, uint64_t from, uint64_t to)
{
    uint8_t seen = 0;
    for (uint64_t at = from; at < to; at++) {
        seen |= raw[at];
    }
    return seen == 0;
}

/* The gaps behind the columns; all of them lie inside the block. */
static bool
block_gaps_valid(const uint8_t *raw, const struct block_shape *shape, const struct block_layout *at,
                 uint64_t tails_end, uint64_t values)
{
    uint64_t n = shape->row_count;
    return block_zero(raw, BLOCK_HEADER_BYTES + shape->common_len, at->fp) &&
           block_zero(raw, at->fp + n, at->pfx) &&
           (!shape->has_plen || block_zero(raw, at->plen + n, at->koff)) &&
           (shape->koff_bytes == 0 || block_zero(raw, at->koff + shape->koff_bytes * (n + 1), at->voff)) &&
           (shape->voff_bytes == 0 || block_zero(raw, at->voff + shape->voff_bytes * (n + 1), at->lsns)) &&
           block_zero(raw, at->lsns + shape->lsn_bytes * n, at->types) &&
           (!shape->has_types || block_zero(raw, at->types + n, at->tails)) &&
           block_zero(raw, tails_end, values);
}

/* The header alone: what it says is possible. */
static esker_status
block_header_check(struct bytes bytes, enum block_kind kind, struct block_shape *out)
{
    const uint8_t *raw = bytes.ptr;
    if (bytes.len < BLOCK_HEADER_BYTES || bytes.len > BLOCK_ONE_ROW_RAW_MAX || raw[BLOCK_AT_KIND] != kind) {
        return ESKER_CORRUPT;
    }
    if (raw[BLOCK_AT_VERSION] != BLOCK_VERSION ||
        (raw[BLOCK_AT_FLAGS] & ~(BLOCK_FLAG_PLEN | BLOCK_FLAG_TYPES)) != 0 ||
        le32_load(raw + BLOCK_AT_RESERVED) != 0) {
        return ESKER_UNSUPPORTED;
    }
    struct block_shape shape = block_shape_of(raw);
    bool widths_known = (shape.koff_bytes == 0 || shape.koff_bytes == 2 || shape.koff_bytes == 4) &&
                        (shape.voff_bytes == 0 || shape.voff_bytes == 2 || shape.voff_bytes == 4) &&
                        shape.lsn_bytes <= 8;
    bool one_way = (shape.koff_bytes == 0 || le16_load(raw + BLOCK_AT_TAIL_LEN) == 0) &&
                   (shape.voff_bytes == 0 || le32_load(raw + BLOCK_AT_VALUE_LEN) == 0) &&
                   (shape.lsn_bytes != 8 || le64_load(raw + BLOCK_AT_LSN_BASE) == 0);
    if (!widths_known || !one_way || shape.row_count == 0 || shape.row_count > BLOCK_ROWS_MAX ||
        le32_load(raw + BLOCK_AT_RAW_LEN) != bytes.len ||
        (bytes.len > BLOCK_RAW_MAX && shape.row_count > 1)) {
        return ESKER_CORRUPT;
    }
    *out = shape;
    return ESKER_OK;
}

/* Where the columns are; all of them are in bounds. */
static void
block_set_columns(struct bytes bytes, const struct block_shape *shape, const struct block_layout *at,
                  uint64_t values, struct block *out)
{
    const uint8_t *raw = bytes.ptr;
    uint32_t lsn_bits = 8 * shape->lsn_bytes;
    *out = (struct block){
        .raw = raw,
        .raw_len = (uint32_t)bytes.len,
        .row_count = shape->row_count,
        .common_len = (uint16_t)shape->common_len,
        .tail_len = le16_load(raw + BLOCK_AT_TAIL_LEN),
        .value_len = le32_load(raw + BLOCK_AT_VALUE_LEN),
        .lsn_bytes = (uint8_t)shape->lsn_bytes,
        .koff_wide = shape->koff_bytes == 4,
        .voff_wide = shape->voff_bytes == 4,
        .lsn_base = le64_load(raw + BLOCK_AT_LSN_BASE),
        .lsn_mask = lsn_bits == 0 ? 0 : UINT64_MAX >> (64 - lsn_bits),
        .fp = raw + at->fp,
        .pfx = raw + at->pfx,
        .plen = shape->has_plen ? raw + at->plen : NULL,
        .koff = shape->koff_bytes != 0 ? raw + at->koff : NULL,
        .voff = shape->voff_bytes != 0 ? raw + at->voff : NULL,
        .lsns = shape->lsn_bytes != 0 ? raw + at->lsns : NULL,
        .types = shape->has_types ? raw + at->types : NULL,
        .tails = raw + at->tails,
        .values = raw + values,
    };
}

/* The length of all that an offset column cuts up, or of n equal pieces. False: it does not start at 0. */
static bool
block_pieces_len(const uint8_t *offsets, uint32_t bytes, uint32_t row_count, uint64_t each, uint64_t *out)
{
    if (bytes == 0) {
        *out = row_count * each;
        return true;
    }
    *out = block_offset(offsets, bytes, row_count);
    return block_offset(offsets, bytes, 0) == 0;
}

/* Rules 1 and 2, and the ends of 3: afterwards every column is in bounds. */
static esker_status
block_open_columns(struct bytes bytes, enum block_kind kind, struct block *out)
{
    const uint8_t *raw = bytes.ptr;
    struct block_shape shape;
    esker_status status = block_header_check(bytes, kind, &shape);
    if (status != ESKER_OK) {
        return status;
    }
    struct block_layout at = block_layout_of(&shape);
    uint64_t tails_len, values_len;
    if (at.tails > bytes.len ||
        !block_pieces_len(raw + at.koff, shape.koff_bytes, shape.row_count,
                          le16_load(raw + BLOCK_AT_TAIL_LEN), &tails_len) ||
        !block_pieces_len(raw + at.voff, shape.voff_bytes, shape.row_count,
                          le32_load(raw + BLOCK_AT_VALUE_LEN), &values_len)) {
        return ESKER_CORRUPT;
    }
    uint64_t tails_end = at.tails + tails_len;
    uint64_t values = align_up(tails_end, 8);
    if (values + values_len != bytes.len || !block_gaps_valid(raw, &shape, &at, tails_end, values)) {
        return ESKER_CORRUPT;
    }
    block_set_columns(bytes, &shape, &at, values, out);
    return ESKER_OK;
}

static inline uint64_t
block_pfx(const struct block *block, uint32_t row)
{
    return le64_load(block->pfx + 8 * (size_t)row);
}

static inline uint32_t
block_plen(const struct block *block, uint32_t row)
{
    return block->plen == NULL ? BLOCK_PFX_BYTES : block->plen[row];
}

/* An offset column never descends: then every piece lies inside its column, whose end is in bounds. */
static bool
block_offsets_ascend(const uint8_t *offsets, bool wide, uint32_t row_count)
{
    uint32_t descents = 0;
    if (offsets == NULL) {
        return true;
    }
    if (wide) {
        for (size_t row = 0; row < row_count; row++) {
            descents |= le32_load(offsets + 4 * row + 4) < le32_load(offsets + 4 * row);
        }
    } else {
        for (size_t row = 0; row < row_count; row++) {
            descents |= le16_load(offsets + 2 * row + 2) < le16_load(offsets + 2 * row);
        }
    }
    return descents == 0;
}

/* Every row's kind is known, and those that expire say when. */
static esker_status
block_check_types(const struct block *block)
{
    uint32_t unknown = 0;
    uint32_t expiring = 0;
    for (uint32_t row = 0; row < block->row_count; row++) {
        uint32_t expires = block->types[row] == ENTRY_PUT_EXPIRING;
        expiring |= expires;
        unknown |= (uint32_t)(block->types[row] != ENTRY_PUT) &
                   (uint32_t)(block->types[row] != ENTRY_DELETE) & (expires ^ 1);
    }
    if (unknown != 0) {
        return ESKER_UNSUPPORTED;
    }
    for (uint32_t row = 0; expiring != 0 && row < block->row_count; row++) {
        if (block->types[row] == ENTRY_PUT_EXPIRING && block_value(block, row).len < EXPIRY_BYTES) {
            return ESKER_CORRUPT;
        }
    }
    return ESKER_OK;
}

/* The columns beside the keys: offsets, types, the LSNs' sum. */
static esker_status
block_check_values(const struct block *block)
{
    uint64_t delta_max = 0;
    uint32_t n = block->row_count;
    if (!block_offsets_ascend(block->koff, block->koff_wide, n) ||
        !block_offsets_ascend(block->voff, block->voff_wide, n) ||
        (n == 1 && block_value(block, 0).len > VALUE_BYTES_MAX)) {
        return ESKER_CORRUPT;
    }
    if (block->lsns != NULL && block->lsn_bytes != 8) {
        for (uint32_t row = 0; row < n; row++) {
            delta_max = MAX(delta_max, block_lsn(block, row) - block->lsn_base);
        }
        if (block->lsn_base > UINT64_MAX - delta_max) {
            return ESKER_CORRUPT;
        }
    }
    return block->types == NULL ? ESKER_OK : block_check_types(block);
}

/* Row - 1 comes before row, given that their pfx are equal. */
static NOINLINE bool
block_tie_ascends(const struct block *block, uint32_t row)
{
    uint32_t left = block_plen(block, row - 1), right = block_plen(block, row);
    if (left != right) {
        return left < right;
    }
    int order = bytes_compare(block_tail(block, row - 1), block_tail(block, row));
    return order < 0 || (order == 0 && block_lsn(block, row - 1) > block_lsn(block, row));
}

/* Each key's pieces fit and agree, and the rows are in order. */
static bool
block_keys_valid(const struct block *block)
{
    uint32_t n = block->row_count;
    uint64_t previous = 0;
    for (uint32_t row = 0; row < n; row++) {
        uint64_t pfx = block_pfx(block, row);
        uint32_t plen = block_plen(block, row);
        struct bytes tail = block_tail(block, row);
        uint64_t key_len = (uint64_t)block->common_len + plen + tail.len;
        if (UNLIKELY(key_len == 0 || key_len > KEY_BYTES_MAX)) {
            return false;
        }
        if (plen != BLOCK_PFX_BYTES &&
            (plen > BLOCK_PFX_BYTES || tail.len != 0 || (pfx & (UINT64_MAX >> (8 * plen))) != 0)) {
            return false;
        }
        if (UNLIKELY(block->fp[row] != block_fingerprint(pfx, plen, tail.ptr, tail.len))) {
            return false;
        }
        if (UNLIKELY(pfx <= previous) && row > 0 && (pfx < previous || !block_tie_ascends(block, row))) {
            return false;
        }
        previous = pfx;
    }
    return true;
}

esker_status
block_open(struct bytes raw, enum block_kind kind, struct block *out)
{
    ASSERT(kind == BLOCK_DATA || kind == BLOCK_INDEX);
    struct block block;
    esker_status status = block_open_columns(raw, kind, &block);
    if (status == ESKER_OK) {
        status = block_check_values(&block);
    }
    if (status == ESKER_OK && !block_keys_valid(&block)) {
        status = ESKER_CORRUPT;
    }
    if (status == ESKER_OK) {
        *out = block;
    }
    return status;
}

esker_status
block_open_again(struct bytes raw, enum block_kind kind, struct block *out)
{
    return block_open_columns(raw, kind, out);
}

/* ---- Keys ------------------------------------------------------------------ */

size_t
block_key_len(const struct block *block, uint32_t row)
{
    return (size_t)block->common_len + block_plen(block, row) + block_tail(block, row).len;
}

size_t
block_key(const struct block *block, uint32_t row, uint8_t *out)
{
    uint8_t *at = out;
    uint64_t word = __builtin_bswap64(block_pfx(block, row));
    uint32_t plen = block_plen(block, row);
    struct bytes tail = block_tail(block, row);
    memcpy(at, block_common(block), block->common_len);
    at += block->common_len;
    memcpy(at, &word, plen);
    at += plen;
    memcpy(at, tail.ptr, tail.len);
    return (size_t)(at - out) + tail.len;
}

static inline int
block_rest_compare(const struct block *block, uint32_t row, const struct block_rest *rest)
{
    uint64_t pfx = block_pfx(block, row);
    if (pfx != rest->pfx) {
        return pfx < rest->pfx ? -1 : 1;
    }
    uint32_t plen = block_plen(block, row);
    if (plen != rest->plen) {
        return plen < rest->plen ? -1 : 1;
    }
    return bytes_compare(block_tail(block, row), rest->tail);
}

/* How every key of the block stands to `key` by the common prefix alone;
 * 0: key has the prefix, the rest decides. */
static inline int
block_common_compare(const struct block *block, struct bytes key)
{
    int order = memcmp(block_common(block), key.ptr, MIN(key.len, (size_t)block->common_len));
    if (order != 0) {
        return order;
    }
    return key.len < block->common_len ? 1 : 0;
}

int
block_key_compare(const struct block *block, uint32_t row, struct bytes key)
{
    int order = key.len == 0 ? 1 : block_common_compare(block, key);
    if (order != 0) {
        return order;
    }
    struct block_rest rest = block_rest_of(key.ptr + block->common_len, key.len - block->common_len);
    return block_rest_compare(block, row, &rest);
}

/* ---- Seeking --------------------------------------------------------------- */

/* The first row of [from, row_count) whose pfx is >= the given one. The loop's
 * only branch is its count; what depends on data are conditional moves. */
static inline uint32_t
block_pfx_lower_bound(const struct block *block, uint32_t from, uint64_t pfx)
{
    uint32_t base = from;
    uint32_t len = block->row_count - from;
    if (len == 0) {
        return from;
    }
    while (len > 1) {
        uint32_t half = len / 2;
        base += block_pfx(block, base + half - 1) < pfx ? half : 0;
        len -= half;
    }
    return base + (block_pfx(block, base) < pfx ? 1 : 0);
}

/* Rows with the same pfx and a smaller key come first: skip them. */
static NOINLINE uint32_t
block_seek_ties(const struct block *block, uint32_t from, const struct block_rest *rest)
{
    uint32_t base = from;
    uint32_t end =
        rest->pfx == UINT64_MAX ? block->row_count : block_pfx_lower_bound(block, from, rest->pfx + 1);
    while (base < end) {
        uint32_t middle = base + (end - base) / 2;
        if (block_rest_compare(block, middle, rest) < 0) {
            base = middle + 1;
        } else {
            end = middle;
        }
    }
    return base;
}

uint32_t
block_seek(const struct block *block, struct bytes key)
{
    int order = key.len == 0 ? 1 : block_common_compare(block, key);
    if (order != 0) {
        return order > 0 ? 0 : block->row_count;
    }
    struct block_rest rest = block_rest_of(key.ptr + block->common_len, key.len - block->common_len);
    uint32_t row = block_pfx_lower_bound(block, 0, rest.pfx);
    if (row == block->row_count || block_rest_compare(block, row, &rest) >= 0) {
        return row;
    }
    return block_seek_ties(block, row + 1, &rest);
}

/* ---- Finding --------------------------------------------------------------- */

/* memcmp's answer without the call for what is short, as most tails and common
 * prefixes are: overlapping loads that stay inside both runs. */
ALWAYS_INLINE bool
block_same(const uint8_t *a, const uint8_t *b, size_t len)
{
    if (LIKELY(len >= 8 && len <= 16)) {
        return ((le64_load(a) ^ le64_load(b)) | (le64_load(a + len - 8) ^ le64_load(b + len - 8))) == 0;
    }
    if (len > 16) {
        return memcmp(a, b, len) == 0;
    }
    if (len >= 4) {
        return ((le32_load(a) ^ le32_load(b)) | (le32_load(a + len - 4) ^ le32_load(b + len - 4))) == 0;
    }
    return len == 0 || ((a[0] ^ b[0]) | (a[len / 2] ^ b[len / 2]) | (a[len - 1] ^ b[len - 1])) == 0;
}

ALWAYS_INLINE bool
block_row_is(const struct block *block, uint32_t row, const struct block_rest *rest)
{
    if (block_pfx(block, row) != rest->pfx || block_plen(block, row) != rest->plen) {
        return false;
    }
    struct bytes tail = block_tail(block, row);
    return tail.len == rest->tail.len && block_same(tail.ptr, rest->tail.ptr, tail.len);
}

/* `row` is the newest of its key: the newest visible one, older ones follow. */
static inline uint32_t
block_pick_visible(const struct block *block, uint32_t row, const struct block_rest *rest,
                   uint64_t snapshot_lsn, bool *last_row_out)
{
    do {
        if (LIKELY(block_lsn(block, row) < snapshot_lsn)) {
            return row;
        }
        row++;
    } while (row < block->row_count && block_row_is(block, row, rest));
    *last_row_out = row == block->row_count;
    return block->row_count;
}

/* The first row of the key, or row_count; rows that share a fingerprint are
 * looked at in ascending order. The zeros behind the column may look like
 * rows, so candidates are bounded by row_count. */
static inline uint32_t
block_first_row_portable(const struct block *block, uint8_t fp, const struct block_rest *rest)
{
    const uint64_t low7 = 0x7f7f7f7f7f7f7f7fULL;
    uint64_t pattern = 0x0101010101010101ULL * fp;
    for (uint32_t start = 0; start < block->row_count; start += 8) {
        uint64_t word = le64_load(block->fp + start) ^ pattern;
        uint64_t equal = ~(((word & low7) + low7) | word | low7);
        for (; equal != 0; equal &= equal - 1) {
            uint32_t row = start + (uint32_t)__builtin_ctzll(equal) / 8;
            if (row < block->row_count && block_row_is(block, row, rest)) {
                return row;
            }
        }
    }
    return block->row_count;
}

#if CPU_MAY_HAVE_AVX2
CPU_TARGET_AVX2 static inline uint32_t
block_fp_equal_avx2(const struct block *block, uint32_t start, __m256i pattern)
{
    __m256i line = _mm256_loadu_si256((const __m256i *)(const void *)(block->fp + start));
    return (uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(line, pattern));
}

/* Two strides a step: half as many loop exits for the branch predictor to miss. */
CPU_TARGET_AVX2 static inline uint32_t
block_first_row_avx2(const struct block *block, uint8_t fp, const struct block_rest *rest)
{
    const __m256i pattern = _mm256_set1_epi8((char)fp);
    uint32_t n = block->row_count;
    for (uint32_t start = 0; start < n; start += 2 * BLOCK_FP_STRIDE) {
        uint32_t second = start + BLOCK_FP_STRIDE;
        uint64_t equal = block_fp_equal_avx2(block, start, pattern);
        if (LIKELY(second < n)) {
            equal |= (uint64_t)block_fp_equal_avx2(block, second, pattern) << BLOCK_FP_STRIDE;
        }
        for (; equal != 0; equal &= equal - 1) {
            uint32_t row = start + (uint32_t)__builtin_ctzll(equal);
            if (row < n && block_row_is(block, row, rest)) {
                return row;
            }
        }
    }
    return n;
}
#endif

ALWAYS_INLINE uint32_t
block_find_by(const struct block *block, struct bytes key, uint64_t snapshot_lsn, bool *last_row_out,
              bool portable)
{
    bool ignored;
    bool *last_row = last_row_out != NULL ? last_row_out : &ignored;
    *last_row = false;
    if (key.len == 0 || key.len < block->common_len ||
        !block_same(block_common(block), key.ptr, block->common_len)) {
        return block->row_count;
    }
    struct block_rest rest = block_rest_of(key.ptr + block->common_len, key.len - block->common_len);
    uint8_t fp = block_fingerprint(rest.pfx, rest.plen, rest.tail.ptr, rest.tail.len);
    uint32_t row;
#if CPU_MAY_HAVE_AVX2
    row = portable ? block_first_row_portable(block, fp, &rest) : block_first_row_avx2(block, fp, &rest);
#else
    (void)portable;
    row = block_first_row_portable(block, fp, &rest);
#endif
    if (row == block->row_count) {
        return row;
    }
    return block_pick_visible(block, row, &rest, snapshot_lsn, last_row);
}

uint32_t
block_find_portable(const struct block *block, struct bytes key, uint64_t snapshot_lsn, bool *last_row_out)
{
    return block_find_by(block, key, snapshot_lsn, last_row_out, true);
}

uint32_t
block_find(const struct block *block, struct bytes key, uint64_t snapshot_lsn, bool *last_row_out)
{
    return cpu_has_avx2() ? block_find_by(block, key, snapshot_lsn, last_row_out, false)
                          : block_find_by(block, key, snapshot_lsn, last_row_out, true);
}

/* ---- Handles --------------------------------------------------------------- */

void
block_handle_encode(const struct block_handle *handle, uint8_t out[BLOCK_HANDLE_BYTES])
{
    le64_store(out, handle->offset);
    le32_store(out + 8, handle->stored_len);
    le32_store(out + 12, handle->row_count);
    le32_store(out + 16, handle->raw_len);
    le32_store(out + 20, 0);
}

bool
block_handle_decode(struct bytes value, struct block_handle *out)
{
    if (value.len != BLOCK_HANDLE_BYTES || le32_load(value.ptr + 20) != 0) {
        return false;
    }
    out->offset = le64_load(value.ptr);
    out->stored_len = le32_load(value.ptr + 8);
    out->row_count = le32_load(value.ptr + 12);
    out->raw_len = le32_load(value.ptr + 16);
    return true;
}
