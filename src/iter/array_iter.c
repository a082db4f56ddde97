/* SPDX-License-Identifier: MIT */
/*
 * See array_iter.h.
 *
 * Invariant: `at` < count iff the iterator is positioned; every other value
 * means END, a failure, or not positioned yet, which it does not tell apart
 * because nobody may step from any of them.
 *
 * Concurrency: one thread at a time.
 */
#include "iter/array_iter.h"

#include "base/assert.h"

struct array_iter {
    struct iter base; /* first: the iterator is this struct */
    const struct mem *mem;
    const struct array_row *rows;
    size_t count;
    size_t at; /* count = not positioned */
    bool failure_armed;
    uint64_t failure_in; /* calls that still succeed */
    esker_status failure;
    bool copies;
    uint8_t *copy; /* key and value of the current row, when `copies` */
};

static struct array_iter *
array_of(struct iter *it)
{
    return CONTAINER_OF(it, struct array_iter, base);
}

/* Drops what was handed out before; then true if this call is the one to fail. */
static bool
array_begin_step(struct array_iter *array)
{
    mem_free(array->mem, array->copy);
    array->copy = NULL;
    if (!array->failure_armed) {
        return false;
    }
    if (array->failure_in > 0) {
        array->failure_in--;
        return false;
    }
    array->failure_armed = false;
    array->at = array->count;
    return true;
}

static esker_status
array_copy_out(struct array_iter *array)
{
    struct iter *base = &array->base;
    /* One byte more, so that an empty row has an address to die, too. */
    uint8_t *copy = mem_alloc(array->mem, base->key.len + base->value.len + 1);
    if (copy == NULL) {
        array->at = array->count;
        return FAIL_NO_MEMORY("a copied row");
    }
    if (base->key.len > 0) {
        memcpy(copy, base->key.ptr, base->key.len);
    }
    if (base->value.len > 0) {
        memcpy(copy + base->key.len, base->value.ptr, base->value.len);
    }
    base->key.ptr = copy;
    base->value.ptr = copy + base->key.len;
    array->copy = copy;
    return ESKER_OK;
}

/* at >= count, a wrapped -1 included, is END. */
static esker_status
array_stand_at(struct array_iter *array, size_t at)
{
    if (at >= array->count) {
        array->at = array->count;
        return ESKER_END;
    }
    const struct array_row *row = &array->rows[at];
    array->at = at;
    array->base.key = row->key;
    array->base.value = row->value;
    array->base.lsn = row->lsn;
    array->base.op = row->op;
    array->base.only = (at == 0 || !bytes_equal(row[-1].key, row->key)) &&
                       (at + 1 == array->count || !bytes_equal(row[1].key, row->key));
    return UNLIKELY(array->copies) ? array_copy_out(array) : ESKER_OK;
}

/* How many rows have a key below `key`. */
static size_t
array_rank(const struct array_iter *array, struct bytes key)
{
    size_t low = 0;
    size_t high = array->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (bytes_compare(array->rows[middle].key, key) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static esker_status
array_first(struct iter *it)
{
    struct array_iter *array = array_of(it);
    if (array_begin_step(array)) {
        return FAIL(array->failure, "a failure that was asked for");
    }
    return array_stand_at(array, 0);
}

static esker_status
array_last(struct iter *it)
{
    struct array_iter *array = array_of(it);
    if (array_begin_step(array)) {
        return FAIL(array->failure, "a failure that was asked for");
    }
    return array_stand_at(array, array->count - 1);
}

static esker_status
array_seek(struct iter *it, struct bytes key)
{
    struct array_iter *array = array_of(it);
    size_t rank = array_rank(array, key); /* first: key may be the current row's copy */
    if (array_begin_step(array)) {
        return FAIL(array->failure, "a failure that was asked for");
    }
    return array_stand_at(array, rank);
}

static esker_status
array_seek_before(struct iter *it, struct bytes key)
{
    struct array_iter *array = array_of(it);
    size_t rank = array_rank(array, key);
    if (array_begin_step(array)) {
        return FAIL(array->failure, "a failure that was asked for");
    }
    return array_stand_at(array, rank - 1);
}

static esker_status
array_next(struct iter *it)
{
    struct array_iter *array = array_of(it);
    ASSERT(array->at < array->count);
    if (UNLIKELY(array_begin_step(array))) {
        return FAIL(array->failure, "a failure that was asked for");
    }
    return array_stand_at(array, array->at + 1);
}

static esker_status
array_prev(struct iter *it)
{
    struct array_iter *array = array_of(it);
    ASSERT(array->at < array->count);
    if (UNLIKELY(array_begin_step(array))) {
        return FAIL(array->failure, "a failure that was asked for");
    }
    return array_stand_at(array, array->at - 1);
}

static void
array_destroy(struct iter *it)
{
    struct array_iter *array = array_of(it);
    mem_free(array->mem, array->copy);
    mem_free(array->mem, array);
}

static const struct iter_ops array_ops = {
    .first = array_first,
    .last = array_last,
    .seek = array_seek,
    .seek_before = array_seek_before,
    .next = array_next,
    .prev = array_prev,
    .destroy = array_destroy,
};

esker_status
array_iter_create(const struct array_row *rows, size_t count, const struct mem *mem, struct iter **out)
{
    struct array_iter *array = mem_zalloc(mem, sizeof *array);
    if (array == NULL) {
        return FAIL_NO_MEMORY("an array iterator");
    }
    array->base.ops = &array_ops;
    array->mem = mem;
    array->rows = rows;
    array->count = count;
    array->at = count;
    *out = &array->base;
    return ESKER_OK;
}

void
array_iter_fail_after(struct iter *it, uint64_t steps, esker_status status)
{
    struct array_iter *array = array_of(it);
    array->failure_armed = true;
    array->failure_in = steps;
    array->failure = status;
}

void
array_iter_hand_out_copies(struct iter *it)
{
    array_of(it)->copies = true;
}
