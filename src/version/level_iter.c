/* SPDX-License-Identifier: MIT */
/*
 * A sorted level, or a tier of level 0, as one iterator: its segments follow one another, and only
 * the one that the position is in is open. Segment bounds are conservative, so
 * a segment may turn out to hold nothing on the wanted side; the walk goes on
 * to its neighbour, in which the key may lie as well.
 */
#include "base/assert.h"
#include "base/mem.h"
#include "version/version.h"

struct level_iter {
    struct iter base;
    const struct mem *mem;
    const struct level_run *run;
    uint32_t begin, end; /* of its segments */
    bool through_cache;
    struct iter_bounds bounds;
    uint32_t index; /* which segment `child` belongs to */
    struct iter *child;
};

static struct level_iter *
level_iter_of(struct iter *it)
{
    return CONTAINER_OF(it, struct level_iter, base);
}

static esker_status
level_iter_open(struct level_iter *level, uint32_t index)
{
    if (level->child != NULL && level->index == index) {
        return ESKER_OK;
    }
    iter_destroy(level->child);
    level->child = NULL;
    level->index = index;
    TRY(segment_iter_create_in(level->mem, level->run->segments[index], level->through_cache, &level->child));
    segment_iter_set_bounds(level->child, level->bounds);
    return ESKER_OK;
}

static esker_status
level_iter_settle(struct level_iter *level, esker_status status)
{
    if (status == ESKER_OK) {
        level->base.key = level->child->key;
        level->base.value = level->child->value;
        level->base.lsn = level->child->lsn;
        level->base.op = level->child->op;
        level->base.only = level->child->only;
        level->base.heat = level->child->heat;
    }
    return status;
}

/* The first row of segments [index, end). */
static esker_status
level_iter_first_from(struct level_iter *level, uint32_t index)
{
    for (; index < level->end; index++) {
        TRY(level_iter_open(level, index));
        esker_status status = iter_first(level->child);
        if (status != ESKER_END) {
            return level_iter_settle(level, status);
        }
    }
    return ESKER_END;
}

/* The last row of segments [begin, end). */
static esker_status
level_iter_last_before(struct level_iter *level, uint32_t end)
{
    while (end > level->begin) {
        end--;
        TRY(level_iter_open(level, end));
        esker_status status = iter_last(level->child);
        if (status != ESKER_END) {
            return level_iter_settle(level, status);
        }
    }
    return ESKER_END;
}

static esker_status
level_iter_do_first(struct iter *it)
{
    struct level_iter *level = level_iter_of(it);
    return level_iter_first_from(level, level->begin);
}

static esker_status
level_iter_do_last(struct iter *it)
{
    struct level_iter *level = level_iter_of(it);
    return level_iter_last_before(level, level->end);
}

static esker_status
level_iter_do_seek(struct iter *it, struct bytes key)
{
    struct level_iter *level = level_iter_of(it);
    uint32_t index = level_run_seek_tier(level->run, key, level->begin, level->end);
    for (; index < level->end; index++) {
        TRY(level_iter_open(level, index));
        esker_status status = iter_seek(level->child, key);
        if (status != ESKER_END) {
            return level_iter_settle(level, status);
        }
    }
    return ESKER_END;
}

static esker_status
level_iter_do_seek_before(struct iter *it, struct bytes key)
{
    struct level_iter *level = level_iter_of(it);
    uint32_t first = level_run_seek_tier(level->run, key, level->begin, level->end);
    uint32_t end = first; /* behind the last one that may have something before the key */
    while (end < level->end &&
           (end == first || bytes_compare(segment_meta(level->run->segments[end])->min_key, key) < 0)) {
        end++;
    }
    while (end > first) {
        end--;
        TRY(level_iter_open(level, end));
        esker_status status = iter_seek_before(level->child, key);
        if (status != ESKER_END) {
            return level_iter_settle(level, status);
        }
    }
    return level_iter_last_before(level, first);
}

static esker_status
level_iter_do_next(struct iter *it)
{
    struct level_iter *level = level_iter_of(it);
    esker_status status = iter_next(level->child);
    if (status == ESKER_END) {
        return level_iter_first_from(level, level->index + 1);
    }
    return level_iter_settle(level, status);
}

static esker_status
level_iter_do_prev(struct iter *it)
{
    struct level_iter *level = level_iter_of(it);
    esker_status status = iter_prev(level->child);
    if (status == ESKER_END) {
        return level_iter_last_before(level, level->index);
    }
    return level_iter_settle(level, status);
}

static bool
level_iter_do_run(struct iter *it, uint64_t snapshot_lsn, struct iter_run *out)
{
    struct iter *child = level_iter_of(it)->child;
    return child->ops->run(child, snapshot_lsn, out);
}

static void
level_iter_do_run_end(struct iter *it, uint32_t row)
{
    struct level_iter *level = level_iter_of(it);
    level->child->ops->run_end(level->child, row);
    (void)level_iter_settle(level, ESKER_OK);
}

static void
level_iter_do_destroy(struct iter *it)
{
    struct level_iter *level = level_iter_of(it);
    iter_destroy(level->child);
    mem_free(level->mem, level);
}

static const struct iter_ops level_iter_ops = {
    .first = level_iter_do_first,
    .last = level_iter_do_last,
    .seek = level_iter_do_seek,
    .seek_before = level_iter_do_seek_before,
    .next = level_iter_do_next,
    .prev = level_iter_do_prev,
    .destroy = level_iter_do_destroy,
    .run = level_iter_do_run,
    .run_end = level_iter_do_run_end,
};

esker_status
level_iter_create(const struct level_run *run, uint32_t begin, uint32_t end, bool through_cache,
                  const struct mem *mem, struct iter **out)
{
    ASSERT(begin <= end && end <= run->count);
    struct level_iter *level = mem_zalloc(mem, sizeof *level);
    if (level == NULL) {
        return FAIL_NO_MEMORY("an iterator");
    }
    level->base.ops = &level_iter_ops;
    level->mem = mem;
    level->run = run;
    level->begin = begin;
    level->end = end;
    level->through_cache = through_cache;
    *out = &level->base;
    return ESKER_OK;
}

void
level_iter_set_bounds(struct iter *it, struct iter_bounds bounds)
{
    level_iter_of(it)->bounds = bounds;
}

esker_status
level_iter_create_tier(const struct level_run *run, uint32_t *at, bool through_cache,
                       struct iter_bounds bounds, const struct mem *mem, struct iter **out)
{
    uint32_t begin = *at;
    uint32_t end = run->tier_end[begin];
    if (end - begin > 1) {
        TRY(level_iter_create(run, begin, end, through_cache, mem, out));
        level_iter_set_bounds(*out, bounds);
    } else {
        TRY(segment_iter_create_in(mem, run->segments[begin], through_cache, out));
        segment_iter_set_bounds(*out, bounds);
    }
    *at = end;
    return ESKER_OK;
}
