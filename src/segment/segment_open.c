/* SPDX-License-Identifier: MIT */
/*
 * From a file to a struct segment_loaded: header, footer, index and filter are
 * read, checked against their checksums, against one another and against the
 * manifest's meta. After that every handle in the index points inside the data
 * and no arithmetic on it can go wrong. Where there is no room for all of it, the
 * root alone; what it points at is then checked when it is read (segment_index.c).
 *
 * A page of the filter that is damaged is replaced by one that lets every key pass.
 *
 * Two reads: header and footer; then the index, in level 0 the filter, too; elsewhere it
 * comes when a lookup misses it. Where these are expected to be wanted whole, the disk is
 * told before the first of them, so that a cold segment takes it about one read's time.
 * Memory is bounded by the file's size: what is stored raw is as long as it is stored, and
 * index blocks, should they be compressed, unpack to at most four times the file.
 */
#include "format/filter.h"
#include "segment/segment_internal.h"

enum segment_open_mode { SEGMENT_OPEN_STRICT, SEGMENT_OPEN_FIT, SEGMENT_OPEN_PAGED };

struct segment_opening {
    const struct segment *segment;
    struct segment_loaded *loaded;
    enum segment_open_mode mode;
    bool whole;
    uint8_t *index_stored; /* the file's bytes [index_at, index_at + index_len) */
    uint64_t index_at, index_len;
    uint64_t index_budget; /* raw bytes that index blocks may still take */
};

/* Overflow is impossible: offsets are below the file's size, lengths 32 bits. */
static uint64_t
segment_open_end_of(const struct segment_handle *handle)
{
    return handle->offset + handle->stored_len;
}

static bool
segment_open_is_absent(const struct segment_handle *handle)
{
    return handle->offset == 0 && handle->stored_len == 0 && handle->raw_len == 0;
}

/* ---- Header and footer -------------------------------------------------- */

static esker_status
segment_open_check_meta(const struct segment *segment, const struct segment_footer *footer)
{
    const struct segment_meta *meta = &segment->meta;
    uint64_t footer_at = meta->size_bytes - SEGMENT_FOOTER_BYTES;
    if (footer->row_count != meta->row_count || footer->tombstone_count != meta->tombstone_count ||
        footer->min_lsn != meta->min_lsn || footer->max_lsn != meta->max_lsn) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, footer_at,
                       "the footer's counts differ from the manifest");
    }
    return ESKER_OK;
}

/* One thing follows the other from the header to the footer, without gaps.
 * (That each lies inside the file was checked when the footer was decoded.) */
static esker_status
segment_open_check_layout(const struct segment *segment, const struct segment_footer *footer)
{
    uint64_t footer_at = segment->meta.size_bytes - SEGMENT_FOOTER_BYTES;
    uint64_t at = segment_open_end_of(&footer->root);
    bool ordered = footer->data_end > SEGMENT_HEADER_BYTES && footer->root.offset >= footer->data_end &&
                   at - footer->data_end <= SEGMENT_INDEX_STORED_MAX;
    if (footer->filter_kind != SEGMENT_FILTER_NONE) {
        ordered = ordered && footer->filter.offset == at;
        at = segment_open_end_of(&footer->filter);
    }
    if (!segment_open_is_absent(&footer->props)) {
        ordered = ordered && footer->props.offset == at;
        at = segment_open_end_of(&footer->props);
    }
    if (!ordered || at != footer_at) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, footer_at,
                       "the footer's parts do not follow one another");
    }
    return ESKER_OK;
}

static esker_status
segment_open_ends(const struct segment *segment, struct io_file *file, struct segment_footer *out)
{
    uint64_t size;
    TRY(io_file_size(segment->io, file, &size));
    if (size != segment->meta.size_bytes || size < SEGMENT_HEADER_BYTES + SEGMENT_FOOTER_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, MIN(size, segment->meta.size_bytes),
                       "the file's size differs from the manifest");
    }
    uint8_t header[SEGMENT_HEADER_BYTES];
    uint8_t footer[SEGMENT_FOOTER_BYTES];
    uint64_t footer_at = size - sizeof footer;
    struct io_req reqs[] = {
        {.op = IO_READ, .file = file, .offset = 0, .data = header, .len = sizeof header},
        {.op = IO_READ, .file = file, .offset = footer_at, .data = footer, .len = sizeof footer},
    };
    TRY(io_run_full(segment->io, reqs, COUNTOF(reqs)));
    esker_status status =
        segment_header_decode(bytes_make(header, sizeof header), segment->uuid, segment->meta.id);
    if (status != ESKER_OK) {
        return segment_damaged(segment, status, 0, "the header is not valid");
    }
    struct segment_footer decoded;
    status = segment_footer_decode(bytes_make(footer, sizeof footer), size, segment->uuid, segment->meta.id,
                                   &decoded);
    if (status != ESKER_OK) {
        return segment_damaged(segment, status, footer_at, "the footer is not valid");
    }
    TRY(segment_open_check_meta(segment, &decoded));
    TRY(segment_open_check_layout(segment, &decoded));
    *out = decoded;
    return ESKER_OK;
}

/* ---- Index -------------------------------------------------------------- */

/* Takes what the block will unpack to from the budget. */
static bool
segment_open_afford(struct segment_opening *opening, const struct block_handle *handle)
{
    if (handle->raw_len < BLOCK_HEADER_BYTES || handle->raw_len > opening->index_budget) {
        return false;
    }
    opening->index_budget -= handle->raw_len;
    return true;
}

/* Unpacks one stored index block into raw (room for handle->raw_len) and opens it. */
static esker_status
segment_open_index_block(const struct segment_opening *opening, const struct block_handle *handle,
                         uint8_t *raw, struct block *out)
{
    const struct segment *segment = opening->segment;
    uint64_t at = handle->offset - opening->index_at;
    struct bytes bytes = bytes_make(opening->index_stored + at, handle->stored_len);
    struct block_stored stored;
    TRY(segment_stored_open(segment, bytes, handle, BLOCK_INDEX, &stored));
    esker_status status = block_stored_unpack(&stored, segment->mem, raw);
    if (status != ESKER_OK) {
        return segment_damaged(segment, status, handle->offset, "an index block does not decompress");
    }
    return segment_raw_open(segment, bytes_make(raw, handle->raw_len), handle, BLOCK_INDEX, out);
}

static esker_status
segment_open_root(struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    struct segment_loaded *loaded = opening->loaded;
    const struct segment_handle *root = &loaded->footer.root;
    struct block_handle handle = {
        .offset = root->offset, .stored_len = root->stored_len, .raw_len = root->raw_len};
    if (!segment_open_afford(opening, &handle)) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, handle.offset, "the size of the index is impossible");
    }
    loaded->root_raw = mem_alloc_aligned(segment->mem, CACHE_LINE_BYTES, handle.raw_len);
    if (loaded->root_raw == NULL) {
        return FAIL_NO_MEMORY("a segment's index");
    }
    TRY(segment_open_index_block(opening, &handle, loaded->root_raw, &loaded->root));
    loaded->charged_bytes += handle.raw_len;
    return ESKER_OK;
}

/* The root's handles: index blocks one after the other up to the root. */
static esker_status
segment_open_check_root(struct segment_opening *opening, uint64_t *raw_bytes_out)
{
    const struct segment *segment = opening->segment;
    const struct segment_loaded *loaded = opening->loaded;
    uint64_t root_at = loaded->footer.root.offset;
    uint64_t end = loaded->footer.data_end;
    struct block_handle handle;
    for (uint32_t row = 0; row < loaded->root.row_count; row++) {
        TRY(segment_index_handle(segment, &loaded->root, row, root_at, &end, root_at, &handle));
        if (!segment_open_afford(opening, &handle)) {
            return FAIL_AT(ESKER_CORRUPT, segment->name, handle.offset,
                           "the size of the index is impossible");
        }
        *raw_bytes_out += align_up(handle.raw_len, CACHE_LINE_BYTES);
    }
    if (end != root_at) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, end, "the index has a gap");
    }
    return ESKER_OK;
}

/* Of parts that are not loaded only where each begins is kept. */
static esker_status
segment_open_part_firsts(const struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    struct segment_loaded *loaded = opening->loaded;
    uint64_t blocks = 0;
    loaded->part_count = loaded->root.row_count;
    loaded->part_first =
        mem_alloc_array(segment->mem, (size_t)loaded->part_count + 1, sizeof *loaded->part_first);
    if (loaded->part_first == NULL) {
        return FAIL_NO_MEMORY("a segment's index");
    }
    loaded->charged_bytes += ((uint64_t)loaded->part_count + 1) * sizeof *loaded->part_first;
    for (uint32_t part = 0; part < loaded->part_count; part++) {
        struct block_handle handle;
        bool fits = block_handle_decode(block_value(&loaded->root, part), &handle);
        ASSERT(fits);
        loaded->part_first[part] = (uint32_t)blocks;
        blocks += handle.row_count;
    }
    if (blocks != loaded->footer.data_block_count) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, loaded->footer.root.offset,
                       "the index does not cover the data blocks");
    }
    loaded->part_first[loaded->part_count] = (uint32_t)blocks;
    return ESKER_OK;
}

static esker_status
segment_open_parts(struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    struct segment_loaded *loaded = opening->loaded;
    uint64_t raw_bytes = 0;
    struct block_handle handle;
    TRY(segment_open_check_root(opening, &raw_bytes));
    if (!opening->whole) {
        return segment_open_part_firsts(opening);
    }
    loaded->parts_raw = mem_alloc_aligned(segment->mem, CACHE_LINE_BYTES, raw_bytes);
    loaded->parts = mem_zalloc_array(segment->mem, loaded->root.row_count, sizeof *loaded->parts);
    if (loaded->parts_raw == NULL || loaded->parts == NULL) {
        return FAIL_NO_MEMORY("a segment's index");
    }
    loaded->charged_bytes += raw_bytes + loaded->root.row_count * sizeof *loaded->parts;
    uint8_t *raw = loaded->parts_raw;
    for (uint32_t row = 0; row < loaded->root.row_count; row++) {
        bool fits = block_handle_decode(block_value(&loaded->root, row), &handle);
        ASSERT(fits);
        TRY(segment_open_index_block(opening, &handle, raw, &loaded->parts[row].block));
        if (!segment_part_fits(loaded, row, &loaded->parts[row].block)) {
            return FAIL_AT(ESKER_CORRUPT, segment->name, handle.offset,
                           "an index block disagrees with the root");
        }
        raw += align_up(handle.raw_len, CACHE_LINE_BYTES);
    }
    loaded->part_count = loaded->root.row_count;
    return ESKER_OK;
}

/* Every data block's handle: one after the other from the header to data_end. */
static esker_status
segment_open_check_handles(const struct segment_opening *opening)
{
    struct segment_loaded *loaded = opening->loaded;
    const struct segment_footer *footer = &loaded->footer;
    const char *name = opening->segment->name;
    uint64_t end = SEGMENT_HEADER_BYTES;
    uint64_t rows = 0;
    uint64_t raw_bytes = 0;
    uint32_t blocks = 0;
    for (uint32_t at = 0; at < loaded->part_count; at++) {
        struct segment_index_part *part = &loaded->parts[at];
        part->first_block = blocks;
        for (uint32_t row = 0; row < part->block.row_count; row++) {
            struct block_handle handle;
            TRY(segment_index_handle(opening->segment, &part->block, row, footer->root.offset, &end,
                                     footer->data_end, &handle));
            rows += handle.row_count;
            raw_bytes += handle.raw_len;
        }
        blocks += part->block.row_count;
    }
    if (end != footer->data_end || blocks != footer->data_block_count) {
        return FAIL_AT(ESKER_CORRUPT, name, footer->root.offset, "the index does not cover the data blocks");
    }
    if (rows != footer->row_count || raw_bytes != footer->data_raw_bytes) {
        return FAIL_AT(ESKER_CORRUPT, name, footer->root.offset,
                       "the index disagrees with the footer's counts");
    }
    return ESKER_OK;
}

static esker_status
segment_open_index(struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    struct segment_loaded *loaded = opening->loaded;
    TRY(segment_open_root(opening));
    if (loaded->footer.index_depth == 2) {
        TRY(segment_open_parts(opening));
    } else {
        if (loaded->footer.root.offset != loaded->footer.data_end) {
            return FAIL_AT(ESKER_CORRUPT, segment->name, loaded->footer.data_end, "the index has a gap");
        }
        loaded->parts = mem_zalloc_array(segment->mem, 1, sizeof *loaded->parts);
        if (loaded->parts == NULL) {
            return FAIL_NO_MEMORY("a segment's index");
        }
        loaded->charged_bytes += sizeof *loaded->parts;
        loaded->parts[0].block = loaded->root;
        loaded->part_count = 1;
    }
    return loaded->parts != NULL ? segment_open_check_handles(opening) : ESKER_OK;
}

/* ---- Filter ------------------------------------------------------------- */

/* Each page is a block of its own; without their trailers they stand one behind the other. */
static esker_status
segment_open_filter(const struct segment *segment, struct segment_loaded *loaded, bool strict)
{
    for (uint32_t page = 0; page < loaded->footer.filter_pages; page++) {
        uint64_t at = (uint64_t)page * SEGMENT_FILTER_PAGE_STORED;
        struct bytes stored = bytes_make(loaded->filter_pages + at, SEGMENT_FILTER_PAGE_STORED);
        uint8_t *to = loaded->filter_pages + (size_t)page * FILTER_PAGE_BYTES;
        struct bytes found;
        esker_status status =
            segment_filter_page_open(segment, loaded->footer.filter.offset + at, stored, &found);
        if (status != ESKER_OK && strict) {
            return status;
        }
        if (status == ESKER_OK) {
            memmove(to, found.ptr, FILTER_PAGE_BYTES);
        } else {
            memset(to, 0xff, FILTER_PAGE_BYTES);
            block_cache_count_damaged(segment->cache);
        }
    }
    store_release(&loaded->filter, loaded->filter_pages); /* pairs: SEGMENT_FILTER */
    return ESKER_OK;
}

static esker_status
segment_open_alloc_filter(const struct segment *segment, struct segment_loaded *loaded)
{
    loaded->filter_pages =
        mem_alloc_aligned(segment->mem, CACHE_LINE_BYTES, loaded->footer.filter.stored_len);
    return loaded->filter_pages != NULL ? ESKER_OK : FAIL_NO_MEMORY("a segment's filter");
}

esker_status
segment_loaded_add_filter(const struct segment *segment, struct segment_loaded *loaded)
{
    const struct segment_handle *filter = &loaded->footer.filter;
    TRY(segment_open_alloc_filter(segment, loaded));
    esker_status status =
        segment_read(segment, loaded->file, filter->offset, loaded->filter_pages, filter->stored_len);
    if (status == ESKER_OK) {
        status = segment_open_filter(segment, loaded, false);
    }
    if (status != ESKER_OK) {
        mem_free(segment->mem, loaded->filter_pages);
        loaded->filter_pages = NULL;
    }
    return status;
}

/* ---- All of it ---------------------------------------------------------- */

/* About what all of index and filter takes. What is compressed is half of it, more or less. */
static uint64_t
segment_open_whole_bytes(const struct segment_footer *footer)
{
    uint64_t parts = footer->root.offset - footer->data_end;
    return footer->root.raw_len + 2 * parts + footer->filter.stored_len;
}

/* Level 0 is asked for every key. */
static bool
segment_open_is_whole(const struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    const struct segment_footer *footer = &opening->loaded->footer;
    switch (opening->mode) {
    case SEGMENT_OPEN_STRICT:
        return true;
    case SEGMENT_OPEN_PAGED:
        return false;
    default:
        return segment->meta.level == 0 ||
               block_cache_index_fits(segment->cache, segment_open_whole_bytes(footer));
    }
}

/* Most gets of a lower level find their key there. Until one does not, the filter would be four fifths of
 * what the first reader waits for. */
static bool
segment_open_is_late(const struct segment_opening *opening)
{
    return opening->mode != SEGMENT_OPEN_STRICT && opening->segment->meta.level > 0;
}

static esker_status
segment_open_read(struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    struct segment_loaded *loaded = opening->loaded;
    const struct segment_footer *footer = &loaded->footer;
    bool filter = opening->whole && footer->filter_pages > 0;
    if (filter) {
        loaded->charged_bytes += footer->filter.stored_len; /* also of one that comes later */
        loaded->filter_late = segment_open_is_late(opening);
        filter = !loaded->filter_late;
    }
    opening->index_at = opening->whole ? footer->data_end : footer->root.offset;
    opening->index_len = segment_open_end_of(&footer->root) - opening->index_at;
    opening->index_stored = mem_alloc(segment->mem, opening->index_len);
    if (opening->index_stored == NULL) {
        return FAIL_NO_MEMORY("a segment's index");
    }
    if (filter) {
        TRY(segment_open_alloc_filter(segment, loaded));
    }
    struct io_req reqs[] = {
        {.op = IO_READ,
         .file = loaded->file,
         .offset = opening->index_at,
         .data = opening->index_stored,
         .len = (uint32_t)opening->index_len},
        {.op = IO_READ,
         .file = loaded->file,
         .offset = footer->filter.offset,
         .data = loaded->filter_pages,
         .len = footer->filter.stored_len},
    };
    return io_run_full(segment->io, reqs, filter ? 2 : 1);
}

/* Header, fingerprints, key prefixes and tails of an average block, where these are few
 * lines: then one miss brings what would be three, one after the other. Else the
 * fingerprints, which say where to go on. */
static uint32_t
segment_open_head_lines(const struct segment_footer *footer)
{
    uint64_t rows = footer->row_count / MAX(footer->data_block_count, 1U) + 1;
    uint64_t fingerprints = BLOCK_HEADER_BYTES + align_up(rows, 32);
    uint64_t lines = (fingerprints + 2 * sizeof(uint64_t) * rows) / CACHE_LINE_BYTES + 1;
    if (lines > SEGMENT_HEAD_LINES_MAX) {
        lines = MIN(fingerprints / CACHE_LINE_BYTES + 1, (uint64_t)SEGMENT_HEAD_LINES_MAX);
    }
    return (uint32_t)lines;
}

/* As much filter as its rows take. */
static uint64_t
segment_tail_filter(const struct segment_meta *meta)
{
    uint64_t rows = MIN(meta->row_count, meta->size_bytes);
    return MIN((uint64_t)filter_page_count(rows) * SEGMENT_FILTER_PAGE_STORED, meta->size_bytes);
}

/* Short rows for blocks of a common size. Too little costs a read more, too much some of the data blocks. */
static uint64_t
segment_tail_index(const struct segment_meta *meta)
{
    enum { TAIL_BLOCK_BYTES = 2 << 10, TAIL_INDEX_ROW_BYTES = 20 };

    uint64_t blocks = MIN(meta->row_count, meta->size_bytes / TAIL_BLOCK_BYTES);
    return blocks * TAIL_INDEX_ROW_BYTES;
}

enum { TAIL_END_BYTES = 4 << 10 }; /* footer and properties */

uint64_t
segment_tail_bytes(const struct segment_meta *meta)
{
    uint64_t bytes = segment_tail_filter(meta) + segment_tail_index(meta) + TAIL_END_BYTES;
    return MIN(bytes, meta->size_bytes);
}

/* Where all of the index will be wanted, the disk may begin with it now. */
static void
segment_open_begin(const struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    const struct segment_meta *meta = &segment->meta;
    struct io_file *file = opening->loaded->file;
    uint64_t tail = segment_tail_bytes(meta);
    if (opening->mode == SEGMENT_OPEN_PAGED ||
        (meta->level > 0 && !block_cache_index_fits(segment->cache, tail))) {
        return;
    }
    uint64_t end = MIN((uint64_t)TAIL_END_BYTES, tail);
    uint64_t from = meta->size_bytes - tail;
    uint64_t first =
        segment_open_is_late(opening) ? MIN(segment_tail_index(meta) + end, tail - end) : tail - end;
    io_start_read(segment->io, file, from, first);
    io_start_read(segment->io, file, from + tail - end, end);
    io_start_read(segment->io, file, 0, SEGMENT_HEADER_BYTES);
}

static esker_status
segment_open_all(struct segment_opening *opening)
{
    const struct segment *segment = opening->segment;
    struct segment_loaded *loaded = opening->loaded;
    esker_status status = io_open_file(segment->io, segment->name, IO_OPEN_READ, &loaded->file);
    if (status == ESKER_NOT_FOUND) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, 0, "a segment that the manifest lists is missing");
    }
    TRY(status);
    segment_open_begin(opening);
    TRY(segment_open_ends(segment, loaded->file, &loaded->footer));
    loaded->head_lines = segment_open_head_lines(&loaded->footer);
    opening->index_budget = MAX(4 * segment->meta.size_bytes, (uint64_t)1 << 20);
    opening->whole = segment_open_is_whole(opening);
    loaded->whole_bytes =
        opening->mode == SEGMENT_OPEN_PAGED ? UINT64_MAX : segment_open_whole_bytes(&loaded->footer);
    TRY(segment_open_read(opening));
    TRY(segment_open_index(opening));
    if (loaded->filter_pages != NULL) {
        TRY(segment_open_filter(segment, loaded, opening->mode == SEGMENT_OPEN_STRICT));
    }
    loaded->filter_paged = !opening->whole && loaded->footer.filter_pages > 0;
    loaded->paged = loaded->parts == NULL || loaded->filter_paged;
    uint64_t slots =
        (uint64_t)loaded->footer.data_block_count + loaded->part_count + loaded->footer.filter_pages;
    if (slots > UINT32_MAX) {
        return FAIL_AT(ESKER_CORRUPT, segment->name, loaded->footer.root.offset, "too many blocks");
    }
    return frame_table_init(&loaded->frames, segment->cache, (uint32_t)slots);
}

static esker_status
segment_loaded_make(const struct segment *segment, enum segment_open_mode mode, struct segment_loaded **out)
{
    struct segment_loaded *loaded = mem_alloc_aligned(segment->mem, CACHE_LINE_BYTES, sizeof *loaded);
    if (loaded == NULL) {
        return FAIL_NO_MEMORY("a segment");
    }
    memset(loaded, 0, sizeof *loaded);
    loaded->io = segment->io;
    loaded->mem = segment->mem;
    atomic_init(&loaded->refs, 1);
    struct segment_opening opening = {.segment = segment, .loaded = loaded, .mode = mode};
    esker_status status = segment_open_all(&opening);
    mem_free(segment->mem, opening.index_stored);
    if (status != ESKER_OK) {
        loaded->charged_bytes = 0;
        segment_loaded_unref(loaded);
        return status;
    }
    loaded->charged_bytes += sizeof *loaded;
    block_cache_charge(segment->cache, MEMORY_INDEXES, loaded->charged_bytes);
    *out = loaded;
    return ESKER_OK;
}

esker_status
segment_loaded_create(const struct segment *segment, struct segment_loaded **out)
{
    esker_status status = segment_loaded_make(segment, SEGMENT_OPEN_FIT, out);
    /* Where a part of the index is damaged, the others serve. */
    return status == ESKER_CORRUPT ? segment_loaded_make(segment, SEGMENT_OPEN_PAGED, out) : status;
}

esker_status
segment_loaded_create_strict(const struct segment *segment, struct segment_loaded **out)
{
    return segment_loaded_make(segment, SEGMENT_OPEN_STRICT, out);
}

void
segment_loaded_destroy(struct segment_loaded *loaded)
{
    struct block_cache *cache = loaded->frames.cache; /* NULL where opening failed */
    frame_table_fini(&loaded->frames);
    if (loaded->charged_bytes > 0) {
        block_cache_discharge(cache, MEMORY_INDEXES, loaded->charged_bytes);
    }
    io_close_file(loaded->io, loaded->file);
    mem_free(loaded->mem, loaded->filter_pages);
    mem_free(loaded->mem, loaded->part_first);
    mem_free(loaded->mem, loaded->parts_raw);
    mem_free(loaded->mem, loaded->parts);
    mem_free(loaded->mem, loaded->root_raw);
    mem_free(loaded->mem, loaded);
}
