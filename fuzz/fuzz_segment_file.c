/* rooms: segment */
/* SPDX-License-Identifier: MIT */
/*
 * A whole segment file. The first input byte chooses: even, the file is taken
 * as it is; odd, all checksums and the manifest's counts are made to fit it,
 * so that what stands behind them is reached. With bit 1 there is no room for
 * its index and filter, which are then read part by part.
 *
 * Oracles: whatever verify accepts reads the same forwards, backwards, by
 * lookup, and after being written anew; what it refuses is never more than
 * refused by any other call; memory is bounded by the input's size.
 */
#include "segment/segment_internal.h"
#include "segment/test_forge.h"
#include "segment/test_mem_io.h"
#include "segment/test_segments.h"

enum {
    FUZZ_ID = 0x21,
    FUZZ_ROWS_LOOKED_UP = 200,
    FUZZ_CACHE_BYTES = 1 << 18,
    FUZZ_CACHE_LEFT_BYTES = 1 << 10,
    FUZZ_MEMORY_FREE_BYTES = 8 << 20, /* what any file may cost */
    FUZZ_MEMORY_RATIO = 600           /* 256 by the format, for a block and for its neighbours */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
    struct mem_io mio;
    struct test_mem mem;
    struct block_cache *cache;
    struct segment *segment;
    bool trusted; /* verify found nothing */
};

struct fuzz_sum {
    uint64_t rows, hash;
};

static void
fuzz_add(struct fuzz_sum *sum, const struct iter *it)
{
    uint64_t hash =
        hash_mix(hash64(it->key.ptr, it->key.len, it->lsn), hash64(it->value.ptr, it->value.len, it->op));
    sum->hash += hash; /* the same in both directions */
    sum->rows++;
}

static struct fuzz_sum
fuzz_scan(const struct fuzz *fuzz, struct segment *segment, bool through_cache, bool backwards)
{
    struct fuzz_sum sum = {0};
    struct iter *it = NULL;
    esker_status status = segment_iter_create(segment, through_cache, &it);
    ASSERT(status == ESKER_OK);
    for (status = backwards ? iter_last(it) : iter_first(it); status == ESKER_OK;
         status = backwards ? iter_prev(it) : iter_next(it)) {
        fuzz_add(&sum, it);
    }
    ASSERT(status == ESKER_END ||
           (!fuzz->trusted && (status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED)));
    iter_destroy(it);
    return sum;
}

/* Looks the present row up by both paths, and seeks around it with another iterator. */
static void
fuzz_look_up(const struct fuzz *fuzz, const struct iter *it, struct iter *other)
{
    struct segment_hit hit = {0};
    uint64_t hash = segment_filter_hash(it->key);
    bool lookable = fuzz->trusted && it->lsn != UINT64_MAX;
    enum segment_result result =
        segment_get_slow(fuzz->segment, it->key, hash, it->lsn + 1, it->lsn % 2 == 0, &hit);
    ASSERT(!lookable || (result == SEGMENT_FOUND && hit.lsn == it->lsn && bytes_equal(hit.value, it->value)));
    if (result == SEGMENT_FOUND) {
        frame_unpin(hit.frame);
    }
    result = test_segment_get(fuzz->segment, it->key, it->lsn + 1, &hit, NULL);
    ASSERT(!lookable || result == SEGMENT_NEEDS_IO || (result == SEGMENT_FOUND && hit.lsn == it->lsn));
    esker_status status = iter_seek(other, it->key);
    ASSERT(!fuzz->trusted ||
           (status == ESKER_OK && bytes_equal(other->key, it->key) && other->lsn >= it->lsn));
    status = iter_seek_before(other, it->key);
    ASSERT(!fuzz->trusted || status == ESKER_END ||
           (status == ESKER_OK && bytes_compare(other->key, it->key) < 0));
}

static void
fuzz_look_up_all(const struct fuzz *fuzz)
{
    struct iter *it = NULL;
    struct iter *other = NULL;
    esker_status status = segment_iter_create(fuzz->segment, false, &it);
    ASSERT(status == ESKER_OK);
    status = segment_iter_create(fuzz->segment, true, &other);
    ASSERT(status == ESKER_OK);
    status = iter_first(it);
    for (uint32_t rows = 0; status == ESKER_OK && rows < FUZZ_ROWS_LOOKED_UP; rows++) {
        fuzz_look_up(fuzz, it, other);
        status = iter_next(it);
    }
    iter_destroy(other);
    iter_destroy(it);
}

/* Decode, encode, decode. */
static void
fuzz_write_anew(struct fuzz *fuzz, struct fuzz_sum expected)
{
    struct segment_writer_options options = {
        .id = FUZZ_ID + 1, .compression = ESKER_COMPRESS_LZ4, .block_bytes = 512};
    struct segment_writer *writer = NULL;
    struct test_segment written;
    struct iter *it = NULL;
    memcpy(options.uuid, test_segment_uuid, sizeof options.uuid);
    esker_status status = segment_writer_create(&fuzz->mio.base, &fuzz->mem.base, &options, &writer);
    ASSERT(status == ESKER_OK);
    status = segment_iter_create(fuzz->segment, false, &it);
    ASSERT(status == ESKER_OK);
    for (status = iter_first(it); status == ESKER_OK; status = iter_next(it)) {
        status = segment_writer_add(writer, it->key, it->lsn, (enum entry_op)it->op, it->value);
        ASSERT(status == ESKER_OK);
    }
    ASSERT(status == ESKER_END);
    iter_destroy(it);
    status = segment_writer_finish(writer, &written.meta, written.keys);
    ASSERT(status == ESKER_OK);
    segment_writer_destroy(writer);
    struct segment *again = test_segment_handle(&fuzz->mio.base, &fuzz->mem.base, fuzz->cache, &written.meta);
    status = segment_verify(again);
    ASSERT(status == ESKER_OK);
    struct fuzz_sum sum = fuzz_scan(fuzz, again, false, false);
    ASSERT(sum.rows == expected.rows && sum.hash == expected.hash);
    segment_unref(again);
}

static void
fuzz_file(struct fuzz *fuzz)
{
    esker_status status = segment_verify(fuzz->segment);
    ASSERT(status == ESKER_OK || status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
    fuzz->trusted = status == ESKER_OK;
    struct fuzz_sum sum = fuzz_scan(fuzz, fuzz->segment, false, false);
    struct fuzz_sum cached = fuzz_scan(fuzz, fuzz->segment, true, false);
    struct fuzz_sum back = fuzz_scan(fuzz, fuzz->segment, false, true);
    struct fuzz_sum cached_back = fuzz_scan(fuzz, fuzz->segment, true, true);
    ASSERT(sum.rows == cached.rows && sum.hash == cached.hash);
    ASSERT(back.rows == cached_back.rows && back.hash == cached_back.hash);
    fuzz_look_up_all(fuzz);
    if (fuzz->trusted) {
        ASSERT(sum.rows == fuzz->segment->meta.row_count && sum.rows == back.rows && sum.hash == back.hash);
        fuzz_write_anew(fuzz, sum);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool started;
    struct fuzz fuzz = {0};
    /* No lower bound, no upper bound: only the file speaks. */
    struct segment_meta meta = {.id = FUZZ_ID};
    esker_status status;
    if (size == 0) {
        return 0;
    }
    if (!started) {
        status = epoch_runtime_acquire(true);
        ASSERT(status == ESKER_OK);
        started = true;
    }
    mem_io_init(&fuzz.mio);
    test_mem_init(&fuzz.mem);
    struct mem_io_file *file = mem_io_put(&fuzz.mio, "0000000000000021.seg", bytes_make(data + 1, size - 1));
    struct segment_meta claimed = meta;
    uint8_t *copy = malloc(size);
    ASSERT(copy != NULL);
    memcpy(copy, data + 1, size - 1);
    forge_segment(copy, size - 1, FUZZ_ID, &claimed); /* the counts, in either case */
    if (data[0] % 2 != 0 && size > 1) {
        memcpy(file->bytes, copy, size - 1);
    }
    free(copy);
    status = block_cache_create(&fuzz.mem.base, FUZZ_CACHE_BYTES, &fuzz.cache);
    ASSERT(status == ESKER_OK);
    uint64_t taken = (data[0] & 2) != 0 ? FUZZ_CACHE_BYTES - FUZZ_CACHE_LEFT_BYTES : 0;
    block_cache_charge(fuzz.cache, MEMORY_WINDOWS, taken);
    claimed.level = 1;
    fuzz.segment = test_segment_handle(&fuzz.mio.base, &fuzz.mem.base, fuzz.cache, &claimed);
    fuzz_file(&fuzz);
    segment_unref(fuzz.segment);
    epoch_drain();
    block_cache_discharge(fuzz.cache, MEMORY_WINDOWS, taken);
    block_cache_destroy(fuzz.cache);
    ASSERT(load_relaxed(&fuzz.mem.live_bytes) == 0); /* relaxed: one thread. */
    /* relaxed: one thread. */
    ASSERT(load_relaxed(&fuzz.mem.peak_bytes) <= FUZZ_MEMORY_FREE_BYTES + FUZZ_MEMORY_RATIO * size);
    mem_io_fini(&fuzz.mio);
    return 0;
}
