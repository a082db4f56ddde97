/* SPDX-License-Identifier: MIT */
/*
 * What the files of this room share: the handle, what it holds in memory once
 * it was used, and the walk over the two index levels.
 *
 * Index rows. Row i's key is a separator: >= every key of block i, < every key
 * of block i+1. A key whose versions go on in block i+1 is its own separator,
 * and then the row's LSN is that of block i's last row (so equal separators
 * are told apart and still descend); in every other row the LSN is 0. A root
 * row repeats key and LSN of the last row of the index block it points to.
 *
 * Layout, checked when a segment is loaded: the data blocks follow the header
 * without gaps up to data_end, then come the index blocks of level 1, the
 * root, the filter, the properties and the footer, without gaps. So every
 * byte of a file belongs to something that has a checksum.
 *
 * Whole or paged. Where the budget allows, all of index and filter are in
 * memory, checked against one another; below level 0 the filter comes later than the index, when a
 * lookup has looked into a block in vain. Else only the root is: the index blocks
 * below it and the pages of the filter are frames like data blocks, behind them in
 * the frame table, and each is checked by itself when it is loaded. So is what
 * remains where an index block is damaged: the others can still be read.
 */
#ifndef ESKER_SEGMENT_SEGMENT_INTERNAL_H
#define ESKER_SEGMENT_SEGMENT_INTERNAL_H

#include "format/block.h"
#include "format/segment_format.h"
#include "segment/frame_table.h"
#include "segment/segment.h"
#include "sync/atomic.h"

enum {
    SEGMENT_NAME_BYTES = 40,
    SEGMENT_INDEX_STORED_MAX = 1 << 30, /* all index blocks of a file together */
    SEGMENT_PIECE_BYTES = 256 << 10,    /* one request of a larger transfer */
    SEGMENT_PIECES = 4,                 /* requests in flight */
    SEGMENT_HEAD_LINES_MAX = 12         /* about as many misses as a core has under way at once */
};

/* One opened index block of the level that points at data blocks. */
struct segment_index_part {
    struct block block;
    uint32_t first_block; /* data block number of its row 0 */
};

/* What stays in memory. Immutable but for the frame table and what is
 * marked. The segment's pointer to it holds a reference, which eviction hands
 * to the reclaimer; it may outlive the segment's handle. */
struct segment_loaded {
    struct io *io;
    const struct mem *mem;
    struct io_file *file;
    struct segment_footer footer;
    struct block root;
    struct segment_index_part *parts; /* NULL: they are paged */
    uint32_t part_count;
    bool paged; /* the index blocks, the filter or both are */
    bool filter_paged;
    bool filter_late;     /* index first: the filter comes once a lookup misses it */
    uint32_t *part_first; /* where parts is NULL: first_block of each, and behind the last */
    uint8_t *root_raw;
    uint8_t *parts_raw;    /* depth 2 */
    uint8_t *filter_pages; /* 64-aligned; of a late filter the load mutex guards the pointer */
    _Atomic(const uint8_t *)
        filter; /* NULL: there is none, it is paged, or not here yet; pairs: SEGMENT_FILTER */
    struct frame_table frames;
    uint32_t head_lines; /* cache lines at the start of a data block that a lookup wants at once */
    uint64_t charged_bytes;
    uint64_t whole_bytes;       /* of what is paged: about what it would take in memory; UINT64_MAX: never */
    struct cache_holder holder; /* in the cache's ring while the segment points here */
    struct segment *segment;    /* only for evict, that is while in the ring */
    struct epoch_node node;     /* owned by whoever unlinked it */
    _Atomic uint32_t refs CACHE_ALIGNED; /* pairs: LOADED_REFS */
};

struct segment {
    /* immutable */
    struct io *io;
    const struct mem *mem;
    struct block_cache *cache;
    uint8_t uuid[16];
    segment_gone_fn *gone;
    void *gone_ctx;
    uint64_t min_prefix, max_prefix; /* of meta's keys; UINT64_MAX: no bound */
    struct segment_meta meta;        /* keys point into bounds */
    char name[SEGMENT_NAME_BYTES];
    uint8_t bounds[2 * EDIT_KEY_BYTES_MAX];
    /* guarded by load_mutex: who loads */
    struct mutex load_mutex;
    /* atomic */
    _Atomic(struct segment_loaded *) loaded; /* pairs: SEGMENT_LOADED; NULL again when it was evicted */
    _Atomic uint32_t refs;                   /* pairs: SEGMENT_REFS */
    _Atomic bool obsolete;
    _Atomic uint64_t skipped; /* relaxed: a statistic */
    _Atomic int compression;  /* relaxed: a hint; ESKER_COMPRESS_AUTO: not known */
};

/* A place in the index: one data block. */
struct segment_at {
    uint32_t part, row;
};

/* ---- segment_open.c ----------------------------------------------------- */

/* What is loaded, loading it first if need be, with a reference for the caller.
 * A failure leaves the segment as it was; the next call tries again. */
NODISCARD esker_status segment_load(struct segment *segment, struct segment_loaded **out);
/* About what stands behind the data blocks, as far as it can be told before the footer is read. */
uint64_t segment_tail_bytes(const struct segment_meta *meta);
/* Whole if there is room, else paged. One reference. */
NODISCARD esker_status segment_loaded_create(const struct segment *segment, struct segment_loaded **out);
/* Reads the late filter of what is loaded. With the load mutex held. */
NODISCARD esker_status segment_loaded_add_filter(const struct segment *segment,
                                                 struct segment_loaded *loaded);
/* A private copy, whole, read from the file now, whatever the handle holds; any damage in it is a failure. */
NODISCARD esker_status segment_loaded_create_strict(const struct segment *segment,
                                                    struct segment_loaded **out);
/* A row of an index block as a handle that must start at *end and stay below `limit`; moves *end
 * behind it. */
NODISCARD esker_status segment_index_handle(const struct segment *segment, const struct block *index,
                                            uint32_t row, uint64_t index_at, uint64_t *end, uint64_t limit,
                                            struct block_handle *out);
/* The part's rows against the row of the root that points at it, and against the one before. */
bool segment_part_fits(const struct segment_loaded *loaded, uint32_t part_no, const struct block *part);
/* Without its last reference (segment_loaded_unref). */
void segment_loaded_destroy(struct segment_loaded *loaded);
/* Not inside a section. NULL is fine. */
void segment_loaded_unref(struct segment_loaded *loaded);
/* A block was looked into in vain: the filter is loaded, if it is late. What fails is tried again by the next
 * who misses it. Not inside a section. */
void segment_miss_filter(struct segment *segment, struct segment_loaded *loaded);

/* The filter if it is in memory. */
static inline const uint8_t *
segment_loaded_filter(const struct segment_loaded *loaded)
{
    return load_acquire(&loaded->filter); /* pairs: SEGMENT_FILTER */
}

static inline bool
segment_lacks_filter(const struct segment_loaded *loaded)
{
    return UNLIKELY(loaded->filter_late) && segment_loaded_filter(loaded) == NULL;
}

/* ---- segment_block.c ---------------------------------------------------- */

/* Tells the story of a failed check: which file, where. Passes NO_MEMORY on. */
NODISCARD esker_status segment_damaged(const struct segment *segment, esker_status status, uint64_t offset,
                                       const char *what);
/* Reads [offset, offset + len) in up to SEGMENT_PIECES requests at once. */
NODISCARD esker_status segment_read(const struct segment *segment, struct io_file *file, uint64_t offset,
                                    uint8_t *data, uint64_t len);
/* Checks stored bytes against checksum and handle. */
NODISCARD esker_status segment_stored_open(const struct segment *segment, struct bytes stored,
                                           const struct block_handle *handle, enum block_kind kind,
                                           struct block_stored *out);
/* Checks a raw block against structure and handle (row_count 0: not known). */
NODISCARD esker_status segment_raw_open(const struct segment *segment, struct bytes raw,
                                        const struct block_handle *handle, enum block_kind kind,
                                        struct block *out);
/* A page of the filter as stored at `offset`; *out borrows from it. */
NODISCARD esker_status segment_filter_page_open(const struct segment *segment, uint64_t offset,
                                                struct bytes stored, struct bytes *out);
/* A new frame, pinned once, with the block that stands in `stored`. Where frame_table_checked says
 * that these bytes passed before, the rows are not looked at again. */
NODISCARD esker_status segment_place_open(const struct segment *segment, const struct segment_loaded *loaded,
                                          const struct segment_place *place, struct bytes stored,
                                          struct frame_ref **out);
/* The block at `place`, from the cache or else from disk, pinned. */
NODISCARD esker_status segment_pin_place(const struct segment *segment, struct segment_loaded *loaded,
                                         const struct segment_place *place, bool fill_cache,
                                         struct frame_ref **out);

struct segment_ahead;

/* The same with the cache filled, for a reader that goes from block to block:
 * what is missing is read ahead into `ahead`, which is the caller's alone. */
NODISCARD esker_status segment_pin_block_ahead(struct segment_ahead *ahead, struct segment_at at,
                                               bool backwards, struct frame_ref **out);

/* ---- segment_index.c: parts of the index, one at a time --------------------- */

/* The part that a walker stands in. */
struct segment_index {
    const struct segment *segment;
    struct segment_loaded *loaded;
    bool fill_cache;
    uint32_t part;
    const struct block *block; /* NULL: none yet */
    struct frame_ref *frame;   /* pinned, where parts are paged */
};

struct segment_index segment_index_make(const struct segment *segment, struct segment_loaded *loaded,
                                        bool fill_cache);
/* Zeros are fine. */
void segment_index_drop(struct segment_index *index);
/* index->block is then that part, until another is held. */
NODISCARD esker_status segment_index_hold(struct segment_index *index, uint32_t part);
/* The first block that may hold keys >= key, or END. */
NODISCARD esker_status segment_index_seek(struct segment_index *index, struct bytes key,
                                          struct segment_at *at);
NODISCARD esker_status segment_index_place(struct segment_index *index, struct segment_at at,
                                           struct segment_place *out);
/* The key of the block's last row goes on in the next block. The block's part is held, or it is
 * the last block of its part. */
bool segment_index_key_goes_on(const struct segment_index *index, struct segment_at at);
/* Row `row` of a part as the place of a data block. False: it is none. */
bool segment_part_data(const struct segment_loaded *loaded, const struct block *block, uint32_t part,
                       uint32_t row, struct segment_place *out);
struct segment_place segment_part_place(const struct segment_loaded *loaded, uint32_t part);
struct segment_place segment_filter_place(const struct segment_loaded *loaded, uint64_t filter_hash);
/* What a new frame of the part must agree with. */
NODISCARD esker_status segment_part_check(const struct segment *segment, const struct segment_loaded *loaded,
                                          const struct segment_place *place, const struct block *part);

/* ---- segment_ahead.c: consecutive data blocks, read ahead ------------------ */

/* The most that is read at once: by a merge or a check, and by a reader, who may
 * have many segments open at once. */
enum { SEGMENT_AHEAD_BYTES = 1 << 20, SEGMENT_AHEAD_CACHED_BYTES = 256 << 10 };

/* Beyond the buffer up to so many bytes are on their way from the disk into the machine's memory. */
enum { SEGMENT_AHEAD_BEGUN_BYTES = 1 << 20 };

struct segment_ahead {
    const struct segment *segment;
    struct segment_loaded *loaded;
    struct segment_index index; /* of the reader's own block */
    uint64_t limit_bytes;
    enum memory_role role;
    uint8_t *stored; /* the file's bytes [from, to) */
    uint64_t stored_cap;
    uint64_t from, to;
    uint64_t last_bytes;           /* what the last read aimed at */
    struct iter_bounds bounds;     /* until reach is found from them */
    uint64_t reach_from, reach_to; /* of the file, whole blocks: nothing else is read ahead */
    uint64_t begun_from, begun_to; /* of reads that were begun: behind the buffer, in the walk's direction */
    uint64_t begun_bytes;          /* how far beyond the buffer, last time; 0: not yet */
    bool begun_here;               /* done for the present buffer */
    uint8_t *raw;                  /* the current block, if it was compressed */
    uint64_t raw_cap;
};

void segment_ahead_init(struct segment_ahead *ahead, const struct segment *segment,
                        struct segment_loaded *loaded, uint64_t limit_bytes, enum memory_role role);
/* Reads ahead go no further than the blocks that may hold keys in there. */
void segment_ahead_set_bounds(struct segment_ahead *ahead, struct iter_bounds bounds);
/* The walk goes on elsewhere: buffers are given back. What was opened in them is gone. */
void segment_ahead_leave(struct segment_ahead *ahead);
void segment_ahead_fini(struct segment_ahead *ahead);
/* The block as it is stored, its checksum checked; *out borrows from `ahead` until the next call. */
NODISCARD esker_status segment_ahead_stored(struct segment_ahead *ahead, struct segment_at at, bool backwards,
                                            struct block_stored *out);
/* The block opened; *out borrows from `ahead` until the next call. */
NODISCARD esker_status segment_ahead_block(struct segment_ahead *ahead, struct segment_at at, bool backwards,
                                           struct block *out);

/* ---- The index ---------------------------------------------------------- */

static inline uint32_t
segment_at_block_no(const struct segment_loaded *loaded, struct segment_at at)
{
    return (loaded->parts != NULL ? loaded->parts[at.part].first_block : loaded->part_first[at.part]) +
           at.row;
}

static inline uint32_t
segment_part_rows(const struct segment_loaded *loaded, uint32_t part)
{
    return loaded->parts != NULL ? loaded->parts[part].block.row_count
                                 : loaded->part_first[part + 1] - loaded->part_first[part];
}

/* Of what is whole. */
static inline struct block_handle
segment_at_handle(const struct segment_loaded *loaded, struct segment_at at)
{
    struct block_handle handle;
    bool fits = block_handle_decode(block_value(&loaded->parts[at.part].block, at.row), &handle);
    ASSERT(fits); /* checked when the index was loaded */
    return handle;
}

/* The first block that may hold keys >= key, of what is whole. False: none. */
static inline bool
segment_at_seek(const struct segment_loaded *loaded, struct bytes key, struct segment_at *at)
{
    at->part = loaded->part_count == 1 ? 0 : block_seek(&loaded->root, key);
    if (at->part == loaded->part_count) {
        return false;
    }
    const struct block *part = &loaded->parts[at->part].block;
    at->row = block_seek(part, key);
    return at->row < part->row_count;
}

static inline struct segment_at
segment_at_first(void)
{
    return (struct segment_at){0, 0};
}

static inline struct segment_at
segment_at_last(const struct segment_loaded *loaded)
{
    uint32_t part = loaded->part_count - 1;
    return (struct segment_at){part, segment_part_rows(loaded, part) - 1};
}

/* False: there is none, *at untouched. */
static inline bool
segment_at_next(const struct segment_loaded *loaded, struct segment_at *at)
{
    if (at->row + 1 < segment_part_rows(loaded, at->part)) {
        at->row++;
        return true;
    }
    if (at->part + 1 < loaded->part_count) {
        *at = (struct segment_at){at->part + 1, 0};
        return true;
    }
    return false;
}

static inline bool
segment_at_prev(const struct segment_loaded *loaded, struct segment_at *at)
{
    if (at->row > 0) {
        at->row--;
        return true;
    }
    if (at->part > 0) {
        *at = (struct segment_at){at->part - 1, segment_part_rows(loaded, at->part - 1) - 1};
        return true;
    }
    return false;
}

#endif
