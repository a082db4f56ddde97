/* SPDX-License-Identifier: MIT */
/*
 * Goal: a merge changes no reader's view, keeps nothing that it may drop, and
 * leaves nothing behind when it fails.
 * Method: random histories and snapshots, judged row by row and merged through
 * real segments, compared with a reader of the full history; failures of the
 * source, of every I/O and of every allocation, after which the directory must
 * be empty.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/rng.h"
#include "compaction/compaction_gc.h"
#include "io/io.h"
#include "iter/array_iter.h"
#include "segment/segment.h"

enum { ROWS_MAX = 300, KEYS = 12, PLAIN_KEYS = 4, SNAPSHOTS_MAX = 8 };

struct history {
    struct rng rng;
    struct array_row rows[ROWS_MAX]; /* what is merged */
    size_t row_count;
    struct array_row deeper[KEYS]; /* at most one older version per key, in deeper levels */
    size_t deeper_count;
    bool maybe_deeper[KEYS]; /* what `deeper` answers; never false for a key that is there */
    uint8_t keys[KEYS][3];
    uint64_t stripes[SNAPSHOTS_MAX];
    size_t stripe_count;
    uint64_t lsn_end;
};

static int
compare_rows(const void *a, const void *b)
{
    return array_row_compare(a, b);
}

static int
compare_lsns(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

static size_t
key_index(struct bytes key)
{
    return (size_t)(key.ptr[1] - 'a');
}

static bool
history_deeper(void *ctx, struct bytes key)
{
    return ((const struct history *)ctx)->maybe_deeper[key_index(key)];
}

static void
history_fill(struct history *history, uint64_t seed)
{
    memset(history, 0, sizeof *history);
    history->rng.state = seed;
    struct rng *rng = &history->rng;
    size_t key_count = 1 + rng_below(rng, KEYS);
    uint64_t lsn = 1;
    for (size_t i = 0; i < KEYS; i++) {
        memcpy(history->keys[i], (uint8_t[]){'k', (uint8_t)('a' + i), 0}, 3);
        struct bytes key = bytes_make(history->keys[i], 2 + i % 2);
        if (rng_below(rng, 3) == 0) {
            history->deeper[history->deeper_count++] = (struct array_row){
                .key = key, .lsn = lsn++, .op = rng_below(rng, 4) == 0 ? ENTRY_DELETE : ENTRY_PUT};
            history->maybe_deeper[i] = true;
        } else {
            history->maybe_deeper[i] = rng_below(rng, 4) == 0; /* it may be wrong on this side */
        }
    }
    size_t wanted = rng_below(rng, seed % 2 ? 20 : ROWS_MAX);
    unsigned delete_in = 1 + (unsigned)rng_below(rng, 4);
    for (size_t i = 0; i < wanted; i++) {
        size_t k = rng_below(rng, key_count);
        lsn += rng_below(rng, 3) + (i == 0);
        history->rows[history->row_count++] = (struct array_row){
            .key = bytes_make(history->keys[k], 2 + k % 2),
            .value = bytes_make("some value", rng_below(rng, 10)),
            .lsn = lsn++,
            .op = ENTRY_PUT,
        };
        if (rng_below(rng, delete_in) == 0) {
            history->rows[history->row_count - 1].op = ENTRY_DELETE;
            history->rows[history->row_count - 1].value.len = 0;
        }
    }
    history->lsn_end = lsn;
    history->stripe_count = rng_below(rng, SNAPSHOTS_MAX + 1);
    for (size_t i = 0; i < history->stripe_count; i++) {
        history->stripes[i] = rng_below(rng, lsn + 2);
    }
    qsort(history->stripes, history->stripe_count, sizeof(uint64_t), compare_lsns);
    qsort(history->rows, history->row_count, sizeof(struct array_row), compare_rows);
}

/* The newest version below `snapshot_lsn`: of rows, else of deeper. NULL: absent. */
static const struct array_row *
reader_sees(const struct history *history, const struct array_row *rows, size_t count, struct bytes key,
            uint64_t snapshot_lsn)
{
    const struct array_row *found = NULL;
    for (size_t i = 0; i < count && found == NULL; i++) {
        if (bytes_equal(rows[i].key, key) && rows[i].lsn < snapshot_lsn) {
            found = &rows[i];
        }
    }
    for (size_t i = 0; i < history->deeper_count && found == NULL; i++) {
        if (bytes_equal(history->deeper[i].key, key) && history->deeper[i].lsn < snapshot_lsn) {
            found = &history->deeper[i];
        }
    }
    return found != NULL && found->op == ENTRY_DELETE ? NULL : found;
}

static bool
touched_since(const struct array_row *rows, size_t count, struct bytes key, uint64_t since)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes_equal(rows[i].key, key) && rows[i].lsn >= since) {
            return true;
        }
    }
    return false;
}

static void
assert_same_view(const struct history *history, const struct array_row *kept, size_t kept_count, uint64_t lsn,
                 bool is_stripe)
{
    for (size_t k = 0; k < KEYS; k++) {
        struct bytes key = bytes_make(history->keys[k], 2 + k % 2);
        const struct array_row *before = reader_sees(history, history->rows, history->row_count, key, lsn);
        const struct array_row *after = reader_sees(history, kept, kept_count, key, lsn);
        assert_int_equal(before == NULL, after == NULL);
        if (before != NULL) {
            assert_int_equal(before->lsn, after->lsn);
            assert_true(bytes_equal(before->value, after->value));
        }
        if (is_stripe) {
            assert_int_equal(touched_since(history->rows, history->row_count, key, lsn),
                             touched_since(kept, kept_count, key, lsn));
        }
    }
}

static size_t
stripe_of(const struct history *history, uint64_t lsn)
{
    size_t stripe = 0;
    for (size_t i = 0; i < history->stripe_count; i++) {
        stripe += history->stripes[i] <= lsn;
    }
    return stripe;
}

static void
assert_nothing_superfluous(const struct history *history, const struct array_row *kept, size_t count,
                           bool nothing_deeper)
{
    for (size_t i = 0; i < count; i++) {
        size_t stripe = stripe_of(history, kept[i].lsn);
        if (i > 0 && bytes_equal(kept[i - 1].key, kept[i].key)) {
            assert_true(stripe < stripe_of(history, kept[i - 1].lsn));
        }
        bool deeper = !nothing_deeper && history->maybe_deeper[key_index(kept[i].key)];
        assert_false(kept[i].op == ENTRY_DELETE && stripe == 0 && !deeper);
    }
}

static void
assert_merge_is_right(const struct history *history, const struct array_row *kept, size_t count,
                      bool drop_deletes)
{
    for (size_t i = 0; i < history->stripe_count; i++) {
        assert_same_view(history, kept, count, history->stripes[i], true);
    }
    assert_same_view(history, kept, count, history->lsn_end, false);
    assert_same_view(history, kept, count, UINT64_MAX, false);
    assert_nothing_superfluous(history, kept, count, drop_deletes);
}

static struct compaction_spec
history_spec(struct history *history, bool drop_deletes)
{
    if (drop_deletes) {
        history->deeper_count = 0;
    }
    return (struct compaction_spec){
        .mem = &mem_default,
        .stripes = history->stripes,
        .stripe_count = history->stripe_count,
        .drop_deletes = drop_deletes,
        .deeper = history_deeper,
        .segment_bytes_max = UINT64_MAX,
        .ctx = history,
    };
}

static void
compaction_gc__no_reader_can_tell(void **state)
{
    (void)state;
    struct history *history = malloc(sizeof *history);
    static struct array_row kept[ROWS_MAX];
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        history_fill(history, seed);
        bool drop_deletes = seed % 3 == 0;
        struct compaction_spec spec = history_spec(history, drop_deletes);
        struct compaction_gc gc;
        compaction_gc_init(&gc, &spec);
        size_t count = 0;
        for (size_t i = 0; i < history->row_count; i++) {
            const struct array_row *row = &history->rows[i];
            struct iter it = {.key = row->key, .value = row->value, .lsn = row->lsn, .op = row->op};
            enum compaction_verdict verdict;
            assert_int_equal(compaction_gc_judge(&gc, &it, &verdict), ESKER_OK);
            if (verdict == COMPACTION_DROP) {
                continue;
            }
            bool new_key = count == 0 || !bytes_equal(kept[count - 1].key, row->key);
            assert_int_equal(verdict == COMPACTION_KEEP_NEW_KEY, new_key);
            kept[count++] = *row;
        }
        compaction_gc_fini(&gc);
        assert_merge_is_right(history, kept, count, drop_deletes);
    }
    free(history);
}

static esker_status
judge(struct compaction_gc *gc, const char *key, uint64_t lsn, uint8_t op, enum compaction_verdict *verdict)
{
    struct iter it = {.key = bytes_make(key, strlen(key)), .lsn = lsn, .op = op};
    return compaction_gc_judge(gc, &it, verdict);
}

/* Drawn out: the cases that the plaque of compaction_gc.c names. */
static void
compaction_gc__cases_by_hand(void **state)
{
    (void)state;
    const uint64_t stripes[] = {10, 20};
    struct compaction_spec spec = {
        .mem = &mem_default, .stripes = stripes, .stripe_count = 2, .drop_deletes = true};

    static const struct {
        const char *key;
        uint64_t lsn;
        uint8_t op;
        enum compaction_verdict verdict;
    } cases[] = {
        {"a", 25, ENTRY_PUT, COMPACTION_KEEP_NEW_KEY},
        {"a", 20, ENTRY_PUT,
         COMPACTION_DROP}, /* the snapshot at 20 does not see it, the newest does not need it */
        {"a", 19, ENTRY_PUT, COMPACTION_KEEP},
        {"a", 19, ENTRY_PUT, COMPACTION_DROP}, /* the same row from a second source */
        {"a", 9, ENTRY_DELETE, COMPACTION_DROP},
        {"a", 5, ENTRY_PUT, COMPACTION_DROP},             /* under that delete */
        {"b", 25, ENTRY_DELETE, COMPACTION_KEEP_NEW_KEY}, /* evidence for the snapshot at 20 */
        {"b", 15, ENTRY_DELETE, COMPACTION_KEEP},
        {"b", 3, ENTRY_PUT, COMPACTION_KEEP},
        {"c", 9, ENTRY_DELETE, COMPACTION_DROP},
        {"c", 8, ENTRY_DELETE, COMPACTION_DROP},
        {"d", 1, ENTRY_PUT, COMPACTION_KEEP_NEW_KEY},
    };
    struct compaction_gc gc;
    compaction_gc_init(&gc, &spec);
    for (size_t i = 0; i < COUNTOF(cases); i++) {
        enum compaction_verdict verdict;
        assert_int_equal(judge(&gc, cases[i].key, cases[i].lsn, cases[i].op, &verdict), ESKER_OK);
        assert_int_equal(verdict, cases[i].verdict);
    }
    compaction_gc_fini(&gc);
}

static void
compaction_gc__deletes_stay_when_nothing_is_known_of_deeper_levels(void **state)
{
    (void)state;
    struct compaction_spec spec = {.mem = &mem_default};
    struct compaction_gc gc;
    compaction_gc_init(&gc, &spec);
    enum compaction_verdict verdict;
    assert_int_equal(judge(&gc, "a", 5, ENTRY_DELETE, &verdict), ESKER_OK);
    assert_int_equal(verdict, COMPACTION_KEEP_NEW_KEY);
    compaction_gc_fini(&gc);
}

static void
compaction_gc__disorder_is_corrupt(void **state)
{
    (void)state;
    struct compaction_spec spec = {.mem = &mem_default};
    struct compaction_gc gc;
    compaction_gc_init(&gc, &spec);
    enum compaction_verdict verdict;
    assert_int_equal(judge(&gc, "b", 5, ENTRY_PUT, &verdict), ESKER_OK);
    assert_int_equal(judge(&gc, "b", 6, ENTRY_PUT, &verdict), ESKER_CORRUPT);
    assert_int_equal(judge(&gc, "a", 1, ENTRY_PUT, &verdict), ESKER_CORRUPT);
    compaction_gc_fini(&gc);
}

/* ---- Through segments -------------------------------------------------------- */

struct place {
    char path[64];
    struct io *io;
    struct block_cache *cache;
    const struct io_ops *real_ops;
    struct io_ops ops; /* the real ones, with failures */
    uint64_t next_id;
    struct history *history;
};

static struct place *failing_place; /* the back-end's calls do not carry a context of ours */
static uint64_t io_calls, io_fail_at;

static bool
io_call_fails(void)
{
    return ++io_calls == io_fail_at;
}

static void
failing_run(struct io *io, struct io_req *reqs, size_t count)
{
    if (!io_call_fails()) {
        failing_place->real_ops->run(io, reqs, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        reqs[i].result = -28; /* ENOSPC */
    }
}

static int
failing_open_file(struct io *io, const char *name, unsigned flags, struct io_file **out)
{
    return io_call_fails() ? -28 : failing_place->real_ops->open_file(io, name, flags, out);
}

static struct place *
place_make(void)
{
    struct place *place = calloc(1, sizeof *place);
    snprintf(place->path, sizeof place->path, "/tmp/esker-compaction-XXXXXX");
    assert_non_null(mkdtemp(place->path));
    assert_int_equal(io_open_dir(place->path, true, ESKER_IO_POSIX, &mem_default, &place->io), ESKER_OK);
    assert_int_equal(block_cache_create(&mem_default, 1 << 20, &place->cache), ESKER_OK);
    place->real_ops = place->io->ops;
    place->ops = *place->io->ops;
    place->ops.run = failing_run;
    place->ops.open_file = failing_open_file;
    place->io->ops = &place->ops;
    failing_place = place;
    io_calls = 0;
    io_fail_at = 0;
    return place;
}

static int
count_segments(void *ctx, const char *name)
{
    *(size_t *)ctx += strstr(name, ".seg") != NULL;
    return 0;
}

static size_t
place_segment_count(struct place *place)
{
    size_t count = 0;
    assert_int_equal(place->io->ops->list(place->io, count_segments, &count), 0);
    return count;
}

static int
remove_file(void *ctx, const char *name)
{
    struct place *place = ctx;
    return place->io->ops->unlink_file(place->io, name);
}

static void
place_free(struct place *place)
{
    assert_int_equal(place->io->ops->list(place->io, remove_file, place), 0);
    place->io->ops = place->real_ops;
    block_cache_destroy(place->cache);
    io_close_dir(place->io);
    assert_int_equal(rmdir(place->path), 0);
    free(place);
}

static uint64_t
place_next_id(void *ctx)
{
    return ++((struct place *)ctx)->next_id;
}

static bool
place_deeper(void *ctx, struct bytes key)
{
    return history_deeper(((struct place *)ctx)->history, key);
}

static esker_status
place_merge(struct place *place, struct compaction_spec spec, const struct array_row *rows, size_t count,
            struct compaction_result *result)
{
    assert_int_equal(array_iter_create(rows, count, &mem_default, &spec.source), ESKER_OK);
    array_iter_hand_out_copies(spec.source);
    spec.io = place->io;
    spec.ctx = place;
    spec.next_id = place_next_id;
    if (spec.deeper != NULL) {
        spec.deeper = place_deeper;
    }
    memcpy(spec.uuid, "0123456789abcdef", sizeof spec.uuid);
    spec.compression = ESKER_COMPRESS_NONE;
    esker_status status = compaction_run(&spec, result);
    iter_destroy(spec.source);
    return status;
}

/* Appends the rows of one output to kept; their bytes stay in the history. */
static size_t
place_read(struct place *place, const struct compaction_output *output, struct array_row *kept, size_t count)
{
    struct segment_open_options options = {.io = place->io, .mem = &mem_default, .cache = place->cache};
    memcpy(options.uuid, "0123456789abcdef", sizeof options.uuid);
    struct segment *segment;
    struct iter *it;
    assert_int_equal(segment_create(&options, &output->meta, &segment), ESKER_OK);
    assert_int_equal(segment_iter_create(segment, false, &it), ESKER_OK);
    esker_status status = iter_first(it);
    uint64_t rows = 0;
    for (; status == ESKER_OK; status = iter_next(it)) {
        assert_true(bytes_compare(it->key, output->meta.min_key) >= 0);
        assert_true(bytes_compare(it->key, output->meta.max_key) <= 0);
        bool found = false;
        for (size_t i = 0; i < place->history->row_count && !found; i++) {
            const struct array_row *row = &place->history->rows[i];
            found = row->lsn == it->lsn && bytes_equal(row->key, it->key);
            if (found) {
                assert_true(bytes_equal(row->value, it->value));
                assert_int_equal(row->op, it->op);
                kept[count++] = *row;
            }
        }
        assert_true(found);
        rows++;
    }
    assert_int_equal(status, ESKER_END);
    assert_int_equal(rows, output->meta.row_count);
    iter_destroy(it);
    segment_unref(segment);
    return count;
}

static void
compaction_run__no_reader_can_tell(void **state)
{
    (void)state;
    struct place *place = place_make();
    struct history *history = malloc(sizeof *history);
    static struct array_row kept[ROWS_MAX];
    for (uint64_t seed = 1; seed <= 60; seed++) {
        history_fill(history, seed);
        place->history = history;
        bool drop_deletes = seed % 3 == 0;
        struct compaction_spec spec = history_spec(history, drop_deletes);
        spec.output_level = (uint32_t)(seed % 6 + 1);
        spec.segment_bytes_max = seed % 4 == 0 ? 1 : seed % 4 == 1 ? 700 : UINT64_MAX;
        struct compaction_result result;
        assert_int_equal(place_merge(place, spec, history->rows, history->row_count, &result), ESKER_OK);
        size_t count = 0;
        uint64_t bytes = 0;
        for (size_t i = 0; i < result.output_count; i++) {
            const struct segment_meta *meta = &result.outputs[i]->meta;
            size_t first = count;
            count = place_read(place, result.outputs[i], kept, count);
            assert_true(count > first);
            assert_true(first == 0 || !bytes_equal(kept[first - 1].key, kept[first].key));
            assert_int_equal(meta->level, spec.output_level);
            bytes += meta->size_bytes;
        }
        assert_int_equal(result.rows_in, history->row_count);
        assert_int_equal(result.rows_out, count);
        assert_int_equal(result.bytes_written, bytes);
        if (spec.segment_bytes_max == 1) {
            size_t keys = 0;
            for (size_t i = 0; i < count; i++) {
                keys += i == 0 || !bytes_equal(kept[i - 1].key, kept[i].key);
            }
            assert_int_equal(result.output_count, keys);
        }
        assert_merge_is_right(history, kept, count, drop_deletes);
        compaction_result_fini(&result, &mem_default);
        compaction_result_fini(&result, &mem_default);
    }
    free(history);
    place_free(place);
}

/* A merge of one put per key, one output per key. */
static struct compaction_spec
plain_history(struct place *place, struct history *history)
{
    memset(history, 0, sizeof *history);
    for (size_t i = 0; i < PLAIN_KEYS; i++) {
        memcpy(history->keys[i], (uint8_t[]){'k', (uint8_t)('a' + i), 0}, 3);
        history->rows[i] = (struct array_row){.key = bytes_make(history->keys[i], 2),
                                              .value = bytes_make("v", 1),
                                              .lsn = i + 1,
                                              .op = ENTRY_PUT};
    }
    history->row_count = PLAIN_KEYS;
    place->history = history;
    struct compaction_spec spec = history_spec(history, true);
    spec.segment_bytes_max = 1;
    return spec;
}

static void
compaction_run__damage_in_the_source_is_told_and_outputs_vanish(void **state)
{
    (void)state;
    struct place *place = place_make();
    struct history *history = malloc(sizeof *history);
    struct compaction_spec spec = plain_history(place, history);
    spec.io = place->io;
    spec.ctx = place;
    spec.next_id = place_next_id;
    for (uint64_t steps = 0; steps <= PLAIN_KEYS; steps++) {
        assert_int_equal(array_iter_create(history->rows, history->row_count, &mem_default, &spec.source),
                         ESKER_OK);
        array_iter_fail_after(spec.source, steps, ESKER_CORRUPT);
        struct compaction_result result = {.rows_in = 4711};
        assert_int_equal(compaction_run(&spec, &result), ESKER_CORRUPT);
        assert_int_equal(status_last()->status, ESKER_CORRUPT);
        assert_string_equal(status_last()->message, "a failure that was asked for");
        assert_int_equal(result.rows_in, 4711);
        assert_int_equal(place_segment_count(place), 0);
        iter_destroy(spec.source);
    }
    free(history);
    place_free(place);
}

static int
refusing_unlink_file(struct io *io, const char *name)
{
    (void)io;
    (void)name;
    return -5; /* EIO */
}

static void
compaction_run__the_first_failure_is_told_whatever_the_clean_up_meets(void **state)
{
    (void)state;
    struct place *place = place_make();
    struct history *history = malloc(sizeof *history);
    struct compaction_spec spec = plain_history(place, history);
    spec.io = place->io;
    spec.ctx = place;
    spec.next_id = place_next_id;
    place->ops.unlink_file = refusing_unlink_file;
    assert_int_equal(array_iter_create(history->rows, history->row_count, &mem_default, &spec.source),
                     ESKER_OK);
    array_iter_fail_after(spec.source, 3, ESKER_CORRUPT);
    struct compaction_result result;
    assert_int_equal(compaction_run(&spec, &result), ESKER_CORRUPT);
    assert_string_equal(status_last()->message, "a failure that was asked for");
    assert_true(place_segment_count(place) > 0);
    place->ops.unlink_file = place->real_ops->unlink_file;
    iter_destroy(spec.source);
    free(history);
    place_free(place);
}

static void
compaction_run__every_io_failure_leaves_no_file(void **state)
{
    (void)state;
    struct place *place = place_make();
    struct history *history = malloc(sizeof *history);
    struct compaction_spec spec = plain_history(place, history);
    struct compaction_result result;
    for (uint64_t at = 1;; at++) {
        io_calls = 0;
        io_fail_at = at;
        esker_status status = place_merge(place, spec, history->rows, history->row_count, &result);
        if (status == ESKER_OK) {
            assert_true(io_calls < at && at > 3 * PLAIN_KEYS); /* open, write, sync for each */
            break;
        }
        assert_int_equal(status, ESKER_NO_SPACE);
        assert_int_equal(status_last()->status, ESKER_NO_SPACE);
        io_fail_at = 0;
        assert_int_equal(place_segment_count(place), 0);
    }
    assert_int_equal(place_segment_count(place), PLAIN_KEYS);
    compaction_result_fini(&result, &mem_default);
    free(history);
    place_free(place);
}

static void
compaction_run__cancel_leaves_no_file(void **state)
{
    (void)state;
    struct place *place = place_make();
    struct history *history = malloc(sizeof *history);
    struct compaction_spec spec = plain_history(place, history);
    _Atomic bool cancel = true;
    spec.cancel = &cancel;
    struct compaction_result result;
    assert_int_equal(place_merge(place, spec, history->rows, history->row_count, &result), ESKER_BUSY);
    assert_int_equal(place_segment_count(place), 0);
    cancel = false;
    assert_int_equal(place_merge(place, spec, history->rows, history->row_count, &result), ESKER_OK);
    compaction_result_fini(&result, &mem_default);
    free(history);
    place_free(place);
}

/* Sets the flag when the rows are half through; the job must notice between rows. */
struct cancelling_iter {
    struct iter base;
    uint64_t rows, cancel_at;
    _Atomic bool *cancel;
    uint8_t key[8], value[4096];
};

static esker_status
cancelling_next(struct iter *it)
{
    struct cancelling_iter *cancelling = (struct cancelling_iter *)it;
    for (size_t i = 0; i < 8; i++) {
        cancelling->key[i] = (uint8_t)(cancelling->rows >> (8 * (7 - i)));
    }
    it->key = bytes_make(cancelling->key, sizeof cancelling->key);
    it->value = bytes_make(cancelling->value, sizeof cancelling->value);
    it->lsn = 1;
    it->op = ENTRY_PUT;
    if (++cancelling->rows == cancelling->cancel_at) {
        *cancelling->cancel = true;
    }
    return cancelling->rows > 100000 ? ESKER_END : ESKER_OK;
}

static void
compaction_run__cancel_is_noticed_between_rows(void **state)
{
    (void)state;
    struct place *place = place_make();
    static const struct iter_ops ops = {.first = cancelling_next, .next = cancelling_next};
    _Atomic bool cancel = false;
    struct cancelling_iter cancelling = {.base.ops = &ops, .cancel_at = 3000, .cancel = &cancel};
    struct compaction_spec spec = {.io = place->io,
                                   .mem = &mem_default,
                                   .source = &cancelling.base,
                                   .segment_bytes_max = 1 << 20,
                                   .next_id = place_next_id,
                                   .ctx = place,
                                   .cancel = &cancel};
    struct compaction_result result;
    assert_int_equal(compaction_run(&spec, &result), ESKER_BUSY);
    assert_true(cancelling.rows < 3000 + 1024);
    assert_true(place->next_id > 1);
    assert_int_equal(place_segment_count(place), 0);
    place_free(place);
}

struct scarce {
    unsigned left, live;
};

static void *
scarce_alloc(void *ctx, size_t size)
{
    struct scarce *scarce = ctx;
    if (scarce->left == 0) {
        return NULL;
    }
    scarce->left--;
    scarce->live++;
    return malloc(size);
}

static void *
scarce_aligned(void *ctx, size_t alignment, size_t size)
{
    struct scarce *scarce = ctx;
    if (scarce->left == 0) {
        return NULL;
    }
    scarce->left--;
    scarce->live++;
    return aligned_alloc(alignment, align_up(size, alignment));
}

static void
scarce_free(void *ctx, void *ptr)
{
    if (ptr != NULL) {
        ((struct scarce *)ctx)->live--;
    }
    free(ptr);
}

static void
compaction_run__no_memory_leaves_no_file(void **state)
{
    (void)state;
    struct place *place = place_make();
    struct history *history = malloc(sizeof *history);
    struct compaction_spec spec = plain_history(place, history);
    struct scarce scarce = {0};
    esker_allocator allocator = {scarce_alloc, scarce_aligned, scarce_free, &scarce};
    struct mem mem;
    mem_init(&mem, &allocator);
    spec.mem = &mem;
    struct compaction_result result;
    for (unsigned left = 0;; left++) {
        scarce.left = left;
        esker_status status = place_merge(place, spec, history->rows, history->row_count, &result);
        if (status == ESKER_OK) {
            assert_true(left > PLAIN_KEYS);
            break;
        }
        assert_int_equal(status, ESKER_NO_MEMORY);
        assert_int_equal(scarce.live, 0);
        assert_int_equal(place_segment_count(place), 0);
    }
    assert_int_equal(result.output_count, PLAIN_KEYS);
    compaction_result_fini(&result, &mem);
    assert_int_equal(scarce.live, 0);
    free(history);
    place_free(place);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compaction_gc__no_reader_can_tell),
        cmocka_unit_test(compaction_gc__cases_by_hand),
        cmocka_unit_test(compaction_gc__deletes_stay_when_nothing_is_known_of_deeper_levels),
        cmocka_unit_test(compaction_gc__disorder_is_corrupt),
        cmocka_unit_test(compaction_run__no_reader_can_tell),
        cmocka_unit_test(compaction_run__damage_in_the_source_is_told_and_outputs_vanish),
        cmocka_unit_test(compaction_run__the_first_failure_is_told_whatever_the_clean_up_meets),
        cmocka_unit_test(compaction_run__every_io_failure_leaves_no_file),
        cmocka_unit_test(compaction_run__cancel_leaves_no_file),
        cmocka_unit_test(compaction_run__cancel_is_noticed_between_rows),
        cmocka_unit_test(compaction_run__no_memory_leaves_no_file),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
