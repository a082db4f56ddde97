/* SPDX-License-Identifier: MIT */
/*
 * An immutable sorted file: built once by segment_writer, then read through
 * the block cache. Byte layout: format/block.h, format/segment_format.h.
 *
 * Concurrency
 *  - Readers call segment_get inside an epoch section: one load for the frame,
 *    no pin, no lock, no I/O. What is not in memory is SEGMENT_NEEDS_IO; the
 *    caller then takes a version reference, leaves its section and calls
 *    segment_get_slow, which loads what is missing and pins the frame it used.
 *  - A segment is referenced by versions. segment_unref to 0 (reclaimer or
 *    opener) drops its frames and closes the file; if it was marked obsolete,
 *    the owner's callback is told so that the file can be unlinked.
 *
 * Trust: a block is checked (checksum, then structure) when it is loaded;
 * after that get and seek do no bounds checks.
 */
#ifndef ESKER_SEGMENT_SEGMENT_H
#define ESKER_SEGMENT_SEGMENT_H

#include "base/bytes.h"
#include "format/block.h"
#include "format/edit.h"
#include "format/log_format.h"
#include "io/io.h"
#include "iter/iter.h"
#include "segment/block_cache.h"
#include "sync/atomic.h"

/* ---- Writing ------------------------------------------------------------ */

struct segment_writer_options {
    uint8_t uuid[16];
    uint64_t id;
    int compression;           /* ESKER_COMPRESS_NONE, _LZ4, _ZSTD (AUTO is resolved by the caller) */
    uint32_t block_bytes;      /* raw target; 16 KiB when 0 */
    uint64_t expected_rows;    /* sizes buffers; 0 = unknown */
    struct block_cache *cache; /* nullable: where the writer's memory is charged */
    bool warm;                 /* blocks of rows that readers want are kept for the cache; needs one */
};

struct segment_writer;
struct segment_warm; /* blocks on their way into the cache: segment_warm.c */

NODISCARD esker_status segment_writer_create(struct io *io, const struct mem *mem,
                                             const struct segment_writer_options *options,
                                             struct segment_writer **out);
/* Rows in iterator order (key ascending, LSN descending), strictly; else
 * CORRUPT, since rows of a merge come from disk. A writer that failed once
 * fails for good; destroy it. */
NODISCARD esker_status segment_writer_add(struct segment_writer *writer, struct bytes key, uint64_t lsn,
                                          enum entry_op op, struct bytes value);
uint64_t segment_writer_size_bytes(const struct segment_writer *writer); /* written so far, estimate */
uint64_t segment_writer_row_count(const struct segment_writer *writer);
/* What has gone to the file so far, by a mebibyte or so at a time. */
uint64_t segment_writer_written_bytes(const struct segment_writer *writer);
/* All of segment_writer_finish but the sync, which takes a disk's time, in pieces of about a millisecond at
 * most: for callers that have something else to do in between. Not needed before it. OK: there is more to
 * do. END: sealed. */
NODISCARD esker_status segment_writer_seal_step(struct segment_writer *writer);
bool segment_writer_is_sealed(const struct segment_writer *writer);
/* At least one row, else INVALID. Writes index, filter and footer, syncs the file (not the directory) and
 * fills *meta_out; its keys are copied into keys_out (at most 2 x 256 B). */
NODISCARD esker_status segment_writer_finish(struct segment_writer *writer, struct segment_meta *meta_out,
                                             uint8_t keys_out[2 * EDIT_KEY_BYTES_MAX]);
/* Frees the writer; unless it was finished, removes the file. NULL is fine. */
void segment_writer_destroy(struct segment_writer *writer);

/* How much readers want the row that was added last. */
void segment_writer_note_heat(struct segment_writer *writer, enum iter_heat heat);
/* The blocks that were kept, after finish; the caller's. NULL: none. */
struct segment_warm *segment_writer_take_warm(struct segment_writer *writer);
void segment_warm_destroy(struct segment_warm *warm); /* NULL is fine */

/* "%016x.seg" */
void segment_file_name(uint64_t id, char out[40]);

/* ---- Reading ------------------------------------------------------------ */

struct segment;

/* Called once when the last reference is dropped, on the thread that dropped
 * it (not inside an epoch section); the struct is freed afterwards. */
typedef void segment_gone_fn(void *ctx, uint64_t id, bool obsolete);

struct segment_open_options {
    struct io *io;
    const struct mem *mem;
    struct block_cache *cache;
    uint8_t uuid[16];
    segment_gone_fn *gone; /* nullable */
    void *gone_ctx;
};

/* A handle with one reference; touches no file yet: the footer is read and
 * checked against meta at first use. meta is copied, keys included. */
NODISCARD esker_status segment_create(const struct segment_open_options *options,
                                      const struct segment_meta *meta, struct segment **out);
/* Loads index and filter, so that no reader has to, and hands the cache the blocks
 * that the segment's writer kept, `most` at a time. True: that was all, and warm is
 * gone. Before the segment is shared. */
bool segment_adopt(struct segment *segment, struct segment_warm *warm /* nullable */, size_t most);
void segment_ref(struct segment *segment);
void segment_unref(struct segment *segment);
/* The file is to be unlinked once nobody uses it (see segment_gone_fn). */
void segment_mark_obsolete(struct segment *segment);
const struct segment_meta *segment_meta(const struct segment *segment);
/* Iterators have stepped over so many more of its deletes. True when that now makes
 * as many as it has rows: a merge would have cost no more. */
bool segment_note_skipped(struct segment *segment, uint64_t deletes);
uint64_t segment_skipped(const struct segment *segment);

/* What its writer was told; ESKER_COMPRESS_AUTO: written in an earlier life, and nobody has said. */
int segment_compression(const struct segment *segment);
void segment_note_compression(struct segment *segment, int compression);

enum segment_result {
    SEGMENT_FOUND,
    SEGMENT_ABSENT,
    SEGMENT_NEEDS_IO, /* fast path only */
    SEGMENT_FAILED    /* slow path only: hit->status says why */
};

/* How far a lookup in a segment has come: to what kind of block. */
enum segment_stage { SEGMENT_STAGE_NONE = 0, SEGMENT_STAGE_FILTER, SEGMENT_STAGE_INDEX, SEGMENT_STAGE_DATA };

/* The block that a lookup needs next: a page of the filter, a part of the index, or
 * rows. What it says of the file stays true as long as there is the file. */
struct segment_place {
    struct block_handle handle;
    uint32_t slot;  /* in the frame table */
    uint32_t stage; /* enum segment_stage; NONE: nothing is known yet */
};

struct segment_hit {
    /* Set where a lookup says NEEDS_IO; given the same hit, the next call goes on from
     * there. Its stage is NONE before a first look. */
    struct segment_place place;
    enum entry_op op;
    uint64_t lsn;
    struct bytes value; /* fast path: valid inside the section, or while a pin taken in it is held */
    /* Where the value stands. Slow path: pinned for the caller, who calls
     * frame_unpin. Fast path: not pinned; frame_pin it inside the section to keep the value. */
    struct frame_ref *frame;
    esker_status status;
};

/* One hash serves the filters of all segments. */
uint64_t segment_filter_hash(struct bytes key);
/* Starts the cache misses of a later segment_get (filter line). */
void segment_prefetch(const struct segment *segment, uint64_t filter_hash);
enum segment_result segment_get(struct segment *segment, struct bytes key, uint64_t filter_hash,
                                uint64_t snapshot_lsn, struct segment_hit *hit);
enum segment_result segment_get_slow(struct segment *segment, struct bytes key, uint64_t filter_hash,
                                     uint64_t snapshot_lsn, bool fill_cache, struct segment_hit *hit);

/* A block that many lookups together asked for. */
struct segment_fetch {
    struct segment *segment;
    struct segment_place place; /* as a lookup left it, not NONE */
    uint32_t tag;               /* the caller's */
    struct frame_ref *frame;    /* out, where status is OK: pinned for the caller */
    esker_status status;        /* out */
};

/* Brings all of them in with as few requests as can be, all under way at the same
 * time. Reorders the array. Not inside a section. */
void segment_fetch_many(struct segment_fetch *fetches, size_t count, const struct mem *mem, bool fill_cache);
/* The lookup's next step in the block that its place names: FOUND borrows from the frame, NEEDS_IO
 * says which block is the next. */
enum segment_result segment_get_in_frame(struct segment *segment, struct frame_ref *frame, struct bytes key,
                                         uint64_t filter_hash, uint64_t snapshot_lsn,
                                         struct segment_hit *hit);
/* The index, or what of it has its place in memory, is loaded if it is not; for lookups that need it. */
NODISCARD esker_status segment_warm(struct segment *segment);
/* Is there an index in memory, whole or in pages? A moment ago. */
bool segment_is_loaded(const struct segment *segment);
/* A block was looked into in vain, or many lookups are to come: a filter that is late is loaded now. What
 * fails is tried again by the next who misses it. Not inside a section. */
void segment_miss_filter_of(struct segment *segment);
/* The same before a lookup needs it, where all of index and filter fits and half of the files that may be
 * open are not. END: it does not, and nothing was done. */
NODISCARD esker_status segment_load_ahead(struct segment *segment);

/* Every row. The caller keeps a reference to the segment for the iterator's
 * life. through_cache: false for merges, which must not disturb the cache:
 * reads ahead in its own buffers. */
NODISCARD esker_status segment_iter_create(struct segment *segment, bool through_cache, struct iter **out);
/* The same in the caller's memory, which the caller has charged. What it reads ahead, and room for long
 * keys, is the segment's all the same, and charged here. */
NODISCARD esker_status segment_iter_create_in(const struct mem *mem, struct segment *segment,
                                              bool through_cache, struct iter **out);
/* Before it is first positioned: nothing is read ahead that lies outside; what rows it shows stays the
 * same. Borrowed for the iterator's life. */
void segment_iter_set_bounds(struct iter *it, struct iter_bounds bounds);

typedef esker_status segment_sample_fn(void *ctx, struct bytes key);

/* Calls each with keys, ascending, that cut the segment into up to `pieces`
 * pieces of about equal size. Not all of them need to be keys of rows. Reads
 * the index if it is not in memory. */
NODISCARD esker_status segment_sample(struct segment *segment, uint32_t pieces, segment_sample_fn *each,
                                      void *ctx);

/* Reads and checks every byte of the file, as it is now, whatever is cached.
 * Returns OK or the first damage. */
NODISCARD esker_status segment_verify(struct segment *segment);

/* status_last() has one block's damage. Returns: whether to go on with the next block. */
typedef bool segment_damage_fn(void *ctx);

/* As segment_verify, but goes on behind a damaged block, which `each` (nullable) is told.
 * Returns: OK also when every damage was told so; else what ended it. */
NODISCARD esker_status segment_verify_each(struct segment *segment, segment_damage_fn *each, void *ctx);

/* ---- Salvage ------------------------------------------------------------- */

/* Bytes [from, to) of the file hold no block that is whole. The rows that were there had keys
 * from `after` on (empty: from the beginning) up to `before` (empty: to the end), ends included. */
struct segment_loss {
    uint64_t from, to;
    struct bytes after, before; /* valid during the call */
};

typedef void segment_loss_fn(void *ctx, const struct segment_loss *loss);

/* The rows of every block that is whole, in order: an iterator with first and next, for one
 * pass, that tells of each loss as it passes it. Needs no index, nor a size that is
 * right. The file is in memory meanwhile. CORRUPT when nothing in the file proves that it
 * is this segment of this database. */
NODISCARD esker_status segment_salvage(struct segment *segment, segment_loss_fn *loss, void *ctx,
                                       struct iter **out);
/* What a file's own footer says of it, for a segment that no manifest describes: no bounds, and
 * no level. With a footer that is damaged only id and size are right. */
NODISCARD esker_status segment_describe(const struct segment_open_options *options, uint64_t id,
                                        struct segment_meta *out);

#endif
