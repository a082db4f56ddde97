/* SPDX-License-Identifier: MIT */
/*
 * Where to cut a merge into parts: keys are sampled from the indexes of what is
 * merged, each standing for so many bytes, and the cuts are where the bytes
 * below reach even shares. A cut is a key: its versions all lie on one side.
 */
#include <stdlib.h>

#include "db/db_compact.h"

enum {
    SPLIT_PIECES = 16,       /* samples of one segment, and one */
    SPLIT_SAMPLED_MOST = 64, /* of more segments than these only the bounds are looked at */
};

struct split_sample {
    uint64_t key_offset; /* in the keys */
    uint32_t key_len;
    uint64_t bytes;
};

struct split {
    const struct mem *mem;
    struct buf keys;
    struct buf samples;  /* struct split_sample */
    uint64_t bytes_each; /* of the segment that is being sampled */
    uint64_t bytes;
};

/* What qsort's order reads; a merge is split by one thread. */
struct split_key {
    struct bytes key;
    uint64_t bytes;
};

static esker_status
split_add(void *ctx, struct bytes key)
{
    struct split *split = ctx;
    struct split_sample sample = {
        .key_offset = split->keys.len, .key_len = (uint32_t)key.len, .bytes = split->bytes_each};
    split->bytes += split->bytes_each;
    TRY(buf_append_bytes(&split->keys, key));
    return buf_append(&split->samples, &sample, sizeof sample);
}

static esker_status
split_sample_run(struct split *split, const struct level_run *run, bool by_index)
{
    for (uint32_t i = 0; i < run->count; i++) {
        const struct segment_meta *meta = segment_meta(run->segments[i]);
        size_t before = split->samples.len;
        if (by_index) {
            split->bytes_each = meta->size_bytes / SPLIT_PIECES;
            TRY(segment_sample(run->segments[i], SPLIT_PIECES, split_add, split));
        }
        if (split->samples.len == before && meta->min_key.len > 0) { /* also: a segment of one block */
            split->bytes_each = meta->size_bytes;
            TRY(split_add(split, meta->min_key));
        }
    }
    return ESKER_OK;
}

static int
split_order(const void *a, const void *b)
{
    return bytes_compare(((const struct split_key *)a)->key, ((const struct split_key *)b)->key);
}

/* Chooses up to wanted - 1 of the sorted keys as borders. */
static esker_status
split_choose(const struct split *split, const struct split_key *keys, size_t count, uint32_t wanted,
             struct compact_run *run)
{
    size_t offsets[COMPACT_PARTS_MAX + 1];
    uint32_t parts = 1;
    uint64_t below = 0;
    struct bytes last = {0};
    for (size_t i = 0; i < count && parts < wanted; i++) {
        bool reached = below >= split->bytes / wanted * parts;
        if (reached && below > 0 && keys[i].key.len > 0 && bytes_compare(last, keys[i].key) < 0) {
            offsets[parts - 1] = run->borders.len;
            TRY(buf_append_bytes(&run->borders, keys[i].key));
            last = keys[i].key;
            parts++;
        }
        below += keys[i].bytes;
    }
    offsets[parts - 1] = run->borders.len;
    for (uint32_t i = 0; i + 1 < parts; i++) { /* the buffer stays where it is from here on */
        struct bytes border = bytes_make(run->borders.ptr + offsets[i], offsets[i + 1] - offsets[i]);
        run->parts[i].upper = border;
        run->parts[i + 1].lower = border;
    }
    run->part_count = parts;
    return ESKER_OK;
}

static esker_status
split_sorted(const struct split *split, uint32_t wanted, struct compact_run *run)
{
    size_t count = split->samples.len / sizeof(struct split_sample);
    const struct split_sample *samples = (const struct split_sample *)(const void *)split->samples.ptr;
    struct split_key *keys = mem_alloc_array(split->mem, count, sizeof *keys);
    if (keys == NULL) {
        return FAIL_NO_MEMORY("the parts of a merge");
    }
    for (size_t i = 0; i < count; i++) {
        keys[i].key = bytes_make(split->keys.ptr + samples[i].key_offset, samples[i].key_len);
        keys[i].bytes = samples[i].bytes;
    }
    qsort(keys, count, sizeof *keys, split_order);
    esker_status status = split_choose(split, keys, count, wanted, run);
    mem_free(split->mem, keys);
    return status;
}

bool
compact_split_reads(const struct compact_run *run)
{
    return run->inputs->count + run->overlaps->count <= SPLIT_SAMPLED_MOST;
}

esker_status
compact_split(struct compact_run *run, uint32_t part_count)
{
    run->part_count = 1;
    if (part_count <= 1) {
        return ESKER_OK;
    }
    struct split split = {.mem = &run->db->block_mem};
    buf_init(&split.keys, split.mem);
    buf_init(&split.samples, split.mem);
    bool by_index = compact_split_reads(run);
    esker_status status = split_sample_run(&split, run->inputs, by_index);
    if (status == ESKER_OK) {
        status = split_sample_run(&split, run->overlaps, by_index);
    }
    if (status == ESKER_OK && split.samples.len > 0) {
        status = split_sorted(&split, MIN(part_count, (uint32_t)COMPACT_PARTS_MAX), run);
    }
    buf_fini(&split.samples);
    buf_fini(&split.keys);
    return status;
}
