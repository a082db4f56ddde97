/* SPDX-License-Identifier: MIT */
/*
 * What is still whole of a damaged segment. The file is read into memory once.
 * Where the index can be believed it says where the data blocks are; else they
 * are found one behind the other by their trailers, whose checksums are bound to
 * the segment's id and to the place, so that nothing else passes for one.
 *
 * Invariants
 *  I1 A row is handed out only out of a block whose checksum and structure agree,
 *     in a file whose header or footer names the database and the segment.
 *  I2 Rows ascend: a block that does not continue the one before is left out.
 *  I3 The search looks at a bounded number of bytes, whatever they are.
 */
#include "base/assert.h"
#include "segment/segment_internal.h"

enum {
    SALVAGE_WORK_FACTOR = 64,       /* I3: bytes looked at or hashed, in file sizes */
    SALVAGE_PAYLOAD_MOST = 4 << 20, /* how far a compressed block's end is searched */
    SALVAGE_RESYNC_BYTES = 1 << 20, /* the same, from a start that is a guess */
    SALVAGE_TRAILER_FIELDS = 8      /* of the trailer, before its checksum */
};

struct salvage_place {
    uint64_t offset, stored_len;
};

struct segment_salvage {
    struct iter iter;
    struct segment *segment;
    segment_loss_fn *loss;
    void *ctx;
    uint8_t *bytes;
    uint64_t len;
    uint64_t work;     /* left, see I3 */
    struct buf places; /* struct salvage_place, ascending */
    size_t next_place;
    uint8_t *raw; /* of the present block, if it was compressed */
    struct block block;
    uint32_t row;
    uint8_t *key, *last; /* KEY_BYTES_MAX each: the present row's, the one's before */
    size_t last_len;
    uint64_t last_lsn;
    bool any_row;
    uint64_t loss_from; /* where the loss began that is not told yet; UINT64_MAX = none */
    uint64_t reached;   /* the end of the last whole block */
};

/* ---- Blocks --------------------------------------------------------------- */

static bool
salvage_is_block(struct segment_salvage *salvage, uint64_t from, uint64_t stored_len)
{
    struct block_stored stored;
    salvage->work -= MIN(salvage->work, stored_len);
    return block_stored_open(bytes_make(salvage->bytes + from, stored_len), BLOCK_DATA,
                             salvage->segment->meta.id, from, &stored) == ESKER_OK;
}

/* May a data block's trailer stand at `at`? *raw_len_out: what it says. */
static bool
salvage_is_trailer(const struct segment_salvage *salvage, uint64_t at, uint32_t *raw_len_out)
{
    const uint8_t *trailer = salvage->bytes + at;
    *raw_len_out = le32_load(trailer + 4);
    return trailer[0] <= BLOCK_CODEC_ZSTD && trailer[1] == BLOCK_DATA && le16_load(trailer + 2) == 0 &&
           *raw_len_out > BLOCK_HEADER_BYTES;
}

/* The length of the block that begins at `from`, trailer included; 0 if none does. */
static uint64_t
salvage_block_at(struct segment_salvage *salvage, uint64_t from, uint64_t reach)
{
    uint64_t left = salvage->len - from;
    if (left <= BLOCK_HEADER_BYTES + BLOCK_TRAILER_BYTES) {
        return 0;
    }
    /* One that is stored raw says its length itself. */
    uint64_t raw_len = le32_load(salvage->bytes + from + 4);
    if (raw_len <= left - BLOCK_TRAILER_BYTES && salvage->bytes[from] == BLOCK_DATA &&
        salvage_is_block(salvage, from, raw_len + BLOCK_TRAILER_BYTES)) {
        return raw_len + BLOCK_TRAILER_BYTES;
    }
    uint64_t most = MIN(left - BLOCK_TRAILER_BYTES, reach);
    for (uint64_t len = 1; len <= most && salvage->work > 0; len++) {
        uint32_t says;
        salvage->work--;
        if (salvage_is_trailer(salvage, from + len, &says) && says >= len &&
            salvage->bytes[from + len] != BLOCK_CODEC_NONE &&
            salvage_is_block(salvage, from, len + BLOCK_TRAILER_BYTES)) {
            return len + BLOCK_TRAILER_BYTES;
        }
    }
    return 0;
}

/* The next place behind a damaged block where one begins: behind some trailer. */
static uint64_t
salvage_resync(struct segment_salvage *salvage, uint64_t from)
{
    for (uint64_t at = from + 1; at + BLOCK_TRAILER_BYTES < salvage->len && salvage->work > 0; at++) {
        uint32_t says;
        salvage->work--;
        if (salvage_is_trailer(salvage, at, &says) &&
            salvage_block_at(salvage, at + BLOCK_TRAILER_BYTES, SALVAGE_RESYNC_BYTES) != 0) {
            return at + BLOCK_TRAILER_BYTES;
        }
    }
    return salvage->len;
}

static esker_status
salvage_add_place(struct segment_salvage *salvage, uint64_t offset, uint64_t stored_len)
{
    struct salvage_place place = {offset, stored_len};
    return buf_append(&salvage->places, &place, sizeof place);
}

/* Without an index. */
static esker_status
salvage_find_blocks(struct segment_salvage *salvage)
{
    uint64_t at = SEGMENT_HEADER_BYTES;
    while (at < salvage->len && salvage->work > 0) {
        uint64_t stored_len = salvage_block_at(salvage, at, SALVAGE_PAYLOAD_MOST);
        if (stored_len != 0) {
            TRY(salvage_add_place(salvage, at, stored_len));
            at += stored_len;
        } else {
            at = salvage_resync(salvage, at);
        }
    }
    return ESKER_OK;
}

static esker_status
salvage_list_blocks(struct segment_salvage *salvage)
{
    struct segment_loaded *loaded = NULL;
    esker_status status = segment_loaded_create_strict(salvage->segment, &loaded);
    if (status != ESKER_OK && status != ESKER_CORRUPT) {
        return status;
    }
    if (status != ESKER_OK) {
        return salvage_find_blocks(salvage);
    }
    struct segment_at at = segment_at_first();
    status = ESKER_OK;
    for (bool more = true; more && status == ESKER_OK; more = segment_at_next(loaded, &at)) {
        struct block_handle handle = segment_at_handle(loaded, at);
        status = salvage_add_place(salvage, handle.offset, handle.stored_len);
    }
    segment_loaded_unref(loaded);
    return status;
}

/* I2 */
static bool
salvage_continues(const struct segment_salvage *salvage, const struct block *block)
{
    if (!salvage->any_row) {
        return true;
    }
    int order = block_key_compare(block, 0, bytes_make(salvage->last, salvage->last_len));
    return order > 0 || (order == 0 && block_lsn(block, 0) < salvage->last_lsn);
}

/* False: damaged. *status_out: NO_MEMORY, else OK. */
static bool
salvage_open_block(struct segment_salvage *salvage, const struct salvage_place *place,
                   esker_status *status_out)
{
    const struct mem *mem = salvage->segment->mem;
    struct bytes bytes = bytes_make(salvage->bytes + place->offset, place->stored_len);
    struct block_stored stored;
    struct block block;
    *status_out = ESKER_OK;
    if (place->offset + place->stored_len > salvage->len ||
        block_stored_open(bytes, BLOCK_DATA, salvage->segment->meta.id, place->offset, &stored) != ESKER_OK) {
        return false;
    }
    uint8_t *raw = mem_alloc_aligned(mem, CACHE_LINE_BYTES, stored.raw_len);
    if (raw == NULL) {
        *status_out = FAIL_NO_MEMORY("salvaging a block");
        return false;
    }
    esker_status status = block_stored_unpack(&stored, mem, raw);
    if (status == ESKER_OK) {
        status = block_open(bytes_make(raw, stored.raw_len), BLOCK_DATA, &block);
    }
    if (status == ESKER_NO_MEMORY) {
        *status_out = FAIL_NO_MEMORY("salvaging a block");
    }
    if (status != ESKER_OK || !salvage_continues(salvage, &block)) {
        mem_free(mem, raw);
        return false;
    }
    mem_free(mem, salvage->raw);
    salvage->raw = raw;
    salvage->block = block;
    return true;
}

/* ---- The iterator ----------------------------------------------------------- */

/* Tells of what lies between the last whole block and `to`. next: the first key behind; NULL = none. */
static void
salvage_tell(struct segment_salvage *salvage, uint64_t to, const struct bytes *next)
{
    if (salvage->loss_from == UINT64_MAX) {
        return;
    }
    struct segment_loss loss = {.from = salvage->loss_from, .to = to};
    if (salvage->any_row) {
        loss.after = bytes_make(salvage->last, salvage->last_len);
    }
    if (next != NULL) {
        loss.before = *next;
    }
    salvage->loss_from = UINT64_MAX;
    salvage->loss(salvage->ctx, &loss);
}

static void
salvage_set_row(struct segment_salvage *salvage)
{
    size_t len = block_key(&salvage->block, salvage->row, salvage->key);
    salvage->iter.key = bytes_make(salvage->key, len);
    salvage->iter.lsn = block_lsn(&salvage->block, salvage->row);
    salvage->iter.op = (uint8_t)block_op(&salvage->block, salvage->row);
    salvage->iter.value = block_value(&salvage->block, salvage->row);
}

static esker_status
salvage_next_block(struct segment_salvage *salvage)
{
    const struct salvage_place *places = (const void *)salvage->places.ptr;
    size_t count = salvage->places.len / sizeof *places;
    while (salvage->next_place < count) {
        const struct salvage_place *place = &places[salvage->next_place++];
        esker_status status;
        if (place->offset > salvage->reached) {
            salvage->loss_from = MIN(salvage->loss_from, salvage->reached);
        }
        if (salvage_open_block(salvage, place, &status)) {
            salvage->row = 0;
            salvage_set_row(salvage);
            salvage_tell(salvage, place->offset, &salvage->iter.key);
            salvage->reached = place->offset + place->stored_len;
            return ESKER_OK;
        }
        TRY(status);
        salvage->loss_from = MIN(salvage->loss_from, place->offset);
        salvage->reached = MIN(place->offset + place->stored_len, salvage->len);
    }
    salvage_tell(salvage, salvage->reached, NULL);
    return ESKER_END;
}

static esker_status
salvage_next(struct iter *it)
{
    struct segment_salvage *salvage = (struct segment_salvage *)it;
    uint8_t *spare = salvage->last;
    salvage->last = salvage->key;
    salvage->last_len = it->key.len;
    salvage->last_lsn = it->lsn;
    salvage->any_row = true;
    salvage->key = spare;
    if (salvage->row + 1 < salvage->block.row_count) {
        salvage->row++;
        salvage_set_row(salvage);
        return ESKER_OK;
    }
    return salvage_next_block(salvage);
}

static esker_status
salvage_first(struct iter *it)
{
    struct segment_salvage *salvage = (struct segment_salvage *)it;
    ASSERT(salvage->next_place == 0 && !salvage->any_row); /* one pass */
    return salvage_next_block(salvage);
}

static esker_status
salvage_no_step(struct iter *it)
{
    (void)it;
    return FAIL(ESKER_UNSUPPORTED, "what is salvaged is read forward, once");
}

static esker_status
salvage_no_seek(struct iter *it, struct bytes key)
{
    (void)key;
    return salvage_no_step(it);
}

static void
salvage_destroy(struct iter *it)
{
    struct segment_salvage *salvage = (struct segment_salvage *)it;
    const struct mem *mem = salvage->segment->mem;
    buf_fini(&salvage->places);
    mem_free(mem, salvage->raw);
    mem_free(mem, salvage->bytes);
    mem_free(mem, MIN(salvage->key, salvage->last)); /* one allocation for both */
    segment_unref(salvage->segment);
    mem_free(mem, salvage);
}

static const struct iter_ops salvage_ops = {.first = salvage_first,
                                            .last = salvage_no_step,
                                            .seek = salvage_no_seek,
                                            .seek_before = salvage_no_seek,
                                            .next = salvage_next,
                                            .prev = salvage_no_step,
                                            .destroy = salvage_destroy};

/* ---- The file ---------------------------------------------------------------- */

static esker_status
salvage_read_file(struct segment_salvage *salvage)
{
    const struct segment *segment = salvage->segment;
    struct io_file *file = NULL;
    TRY(io_open_file(segment->io, segment->name, IO_OPEN_READ, &file));
    esker_status status = io_file_size(segment->io, file, &salvage->len);
    if (status == ESKER_OK && salvage->len < SEGMENT_HEADER_BYTES) {
        status = FAIL_AT(ESKER_CORRUPT, segment->name, salvage->len, "too short for a segment");
    }
    if (status == ESKER_OK) {
        salvage->bytes = mem_alloc(segment->mem, salvage->len);
        status = salvage->bytes != NULL ? segment_read(segment, file, 0, salvage->bytes, salvage->len)
                                        : FAIL_NO_MEMORY("salvaging a segment");
    }
    io_close_file(segment->io, file);
    return status;
}

/* I1 */
static esker_status
salvage_check_owner(const struct segment_salvage *salvage)
{
    const struct segment *segment = salvage->segment;
    struct bytes head = bytes_make(salvage->bytes, SEGMENT_HEADER_BYTES);
    if (segment_header_decode(head, segment->uuid, segment->meta.id) == ESKER_OK) {
        return ESKER_OK;
    }
    struct segment_footer footer;
    if (salvage->len >= SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES &&
        segment_footer_decode(
            bytes_make(salvage->bytes + salvage->len - SEGMENT_FOOTER_BYTES, SEGMENT_FOOTER_BYTES),
            salvage->len, segment->uuid, segment->meta.id, &footer) == ESKER_OK) {
        return ESKER_OK;
    }
    return FAIL_AT(ESKER_CORRUPT, segment->name, 0, "nothing in the file proves that it is this segment");
}

esker_status
segment_salvage(struct segment *segment, segment_loss_fn *loss, void *ctx, struct iter **out)
{
    struct segment_salvage *salvage = mem_zalloc(segment->mem, sizeof *salvage);
    if (salvage == NULL) {
        return FAIL_NO_MEMORY("salvaging a segment");
    }
    segment_ref(segment);
    salvage->iter.ops = &salvage_ops;
    salvage->segment = segment;
    salvage->loss = loss;
    salvage->ctx = ctx;
    salvage->loss_from = UINT64_MAX;
    salvage->reached = SEGMENT_HEADER_BYTES;
    buf_init(&salvage->places, segment->mem);
    salvage->key = mem_alloc_array(segment->mem, 2, KEY_BYTES_MAX);
    esker_status status = salvage->key != NULL ? ESKER_OK : FAIL_NO_MEMORY("salvaging a segment");
    if (status == ESKER_OK) {
        salvage->last = salvage->key + KEY_BYTES_MAX;
        status = salvage_read_file(salvage);
    }
    if (status == ESKER_OK) {
        salvage->work = SALVAGE_WORK_FACTOR * salvage->len;
        status = salvage_check_owner(salvage);
    }
    if (status == ESKER_OK) {
        status = salvage_list_blocks(salvage);
    }
    if (status != ESKER_OK) {
        salvage_destroy(&salvage->iter);
        return status;
    }
    *out = &salvage->iter;
    return ESKER_OK;
}

esker_status
segment_describe(const struct segment_open_options *options, uint64_t id, struct segment_meta *out)
{
    char name[SEGMENT_NAME_BYTES];
    uint8_t bytes[SEGMENT_FOOTER_BYTES];
    struct segment_footer footer;
    struct io_file *file = NULL;
    uint64_t size = 0;
    segment_file_name(id, name);
    TRY(io_open_file(options->io, name, IO_OPEN_READ, &file));
    esker_status status = io_file_size(options->io, file, &size);
    if (status == ESKER_OK && size < SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) {
        status = FAIL_AT(ESKER_CORRUPT, name, size, "too short for a segment");
    }
    if (status == ESKER_OK) {
        status = io_read_full(options->io, file, size - sizeof bytes, bytes, sizeof bytes);
    }
    io_close_file(options->io, file);
    TRY(status);
    status = segment_footer_decode(bytes_make(bytes, sizeof bytes), size, options->uuid, id, &footer);
    *out = (struct segment_meta){.id = id, .size_bytes = size, .row_count = 1};
    if (status == ESKER_OK) {
        out->row_count = footer.row_count;
        out->tombstone_count = footer.tombstone_count;
        out->min_lsn = footer.min_lsn;
        out->max_lsn = footer.max_lsn;
    }
    return ESKER_OK;
}
