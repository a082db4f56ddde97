/* SPDX-License-Identifier: MIT */
/*
 * Goal: the ground floor keeps its promises at its edges: failures tell their
 * story, buffers survive a lack of memory, no length wraps, no read passes the
 * end.
 * Method: examples at every edge; an allocator that fails on the nth call and
 * counts what is live; seeded random operations against plain arrays.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/cursor.h"
#include "base/endian.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/slab.h"
#include "base/status.h"

#include <cmocka.h>

enum { SEED = 20240607 };

static struct bytes
text(const char *string)
{
    return bytes_make(string, strlen(string));
}

/* ---- An allocator to watch --------------------------------------------------- */

struct watch {
    size_t live;
    size_t calls;
    size_t fail_at; /* this call and all later ones return NULL; 0 = none */
    size_t last_size;
    size_t last_alignment;
};

static void *
watch_alloc(void *ctx, size_t size)
{
    struct watch *watch = ctx;
    watch->calls++;
    watch->last_size = size;
    if (watch->fail_at != 0 && watch->calls >= watch->fail_at) {
        return NULL;
    }
    void *ptr = malloc(size);
    assert_non_null(ptr);
    memset(ptr, 0xa5, size);
    watch->live++;
    return ptr;
}

static void *
watch_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    struct watch *watch = ctx;
    watch->last_size = size;
    watch->last_alignment = alignment;
    watch->live++;
    return aligned_alloc(alignment, size);
}

static void
watch_free(void *ctx, void *ptr)
{
    struct watch *watch = ctx;
    assert_non_null(ptr);
    assert_true(watch->live > 0);
    watch->live--;
    free(ptr);
}

static struct mem
watch_mem(struct watch *watch)
{
    *watch = (struct watch){0};
    esker_allocator hooks = {watch_alloc, watch_aligned_alloc, watch_free, watch};
    struct mem mem;
    mem_init(&mem, &hooks);
    return mem;
}

/* ---- status ------------------------------------------------------------------- */

static void
status__fail_tells_file_offset_and_sentence(void **state)
{
    (void)state;
    esker_status status = FAIL_AT(ESKER_CORRUPT, "log-000001", 4096, "frame %d is damaged", 7);
    assert_int_equal(status, ESKER_CORRUPT);
    esker_error error;
    esker_error_init(&error);
    esker_last_error(&error);
    assert_int_equal(error.status, ESKER_CORRUPT);
    assert_int_equal(error.os_errno, 0);
    assert_int_equal(error.offset, 4096);
    assert_string_equal(error.file, "log-000001");
    assert_string_equal(error.message, "frame 7 is damaged");
}

static void
status__fail_without_words_uses_the_status_sentence(void **state)
{
    (void)state;
    const char *none = "";
    assert_int_equal(FAIL(ESKER_BUSY, "%s", none), ESKER_BUSY);
    assert_string_equal(status_last()->message, "in use elsewhere");
    assert_string_equal(status_last()->file, "");
    assert_int_equal(status_last()->offset, 0);
}

static void
status__fail_os_names_errno_and_reason(void **state)
{
    (void)state;
    assert_int_equal(FAIL_OS(EACCES, "CURRENT", 12, "cannot open"), ESKER_IO);
    assert_int_equal(status_last()->os_errno, EACCES);
    assert_string_equal(status_last()->message, "cannot open: Permission denied");
    assert_int_equal(FAIL_OS(ENOSPC, "CURRENT", 0, "cannot grow"), ESKER_NO_SPACE);
    assert_int_equal(FAIL_OS(EDQUOT, "CURRENT", 0, "cannot grow"), ESKER_NO_SPACE);
    assert_int_equal(FAIL_OS(ENOMEM, "CURRENT", 0, "cannot map"), ESKER_NO_MEMORY);
}

static void
status__long_texts_are_cut_and_terminated(void **state)
{
    (void)state;
    char long_text[1000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = '\0';
    assert_int_equal(FAIL_AT(ESKER_IO, long_text, 0, "%s", long_text), ESKER_IO);
    const esker_error *error = status_last();
    assert_int_equal(strlen(error->file), sizeof error->file - 1);
    assert_int_equal(strlen(error->message), sizeof error->message - 1);
    assert_int_equal(FAIL_OS(EIO, long_text, 0, "%s", long_text), ESKER_IO);
    assert_int_equal(strlen(error->message), sizeof error->message - 1);
}

static void
status__short_error_struct_is_filled_up_to_its_size(void **state)
{
    (void)state;
    assert_int_equal(FAIL_AT(ESKER_IO, "name", 3, "story"), ESKER_IO);
    esker_error error;
    memset(&error, 0x7e, sizeof error);
    error.struct_size = offsetof(esker_error, file);
    esker_last_error(&error);
    assert_int_equal(error.struct_size, offsetof(esker_error, file));
    assert_int_equal(error.status, ESKER_IO);
    assert_int_equal(error.offset, 3);
    assert_int_equal(error.file[0], 0x7e);
    assert_int_equal(error.message[0], 0x7e);

    error.struct_size = 0;
    error.status = ESKER_END;
    esker_last_error(&error);
    assert_int_equal(error.status, ESKER_END);
    esker_last_error(NULL);
    esker_error_init_sized(NULL, sizeof error);
}

static void
status__restore_puts_a_story_back(void **state)
{
    (void)state;
    assert_int_equal(FAIL_AT(ESKER_POISONED, "log-000002", 8, "first"), ESKER_POISONED);
    esker_error kept = *status_last();
    assert_int_equal(FAIL(ESKER_INVALID, "second"), ESKER_INVALID);
    assert_int_equal(status_restore(&kept), ESKER_POISONED);
    assert_string_equal(status_last()->message, "first");
    assert_int_equal(status_last()->struct_size, sizeof(esker_error));
}

static void
status__a_cause_is_told_once(void **state)
{
    (void)state;
    (void)FAIL_OS(ENOSPC, "log-000001", 77, "cannot write");
    esker_error cause = *status_last();
    assert_int_equal(status_because(ESKER_POISONED, "refused", &cause), ESKER_POISONED);
    assert_string_equal(status_last()->message, "refused: cannot write: No space left on device");
    assert_int_equal(status_last()->status, ESKER_POISONED);
    assert_int_equal(status_last()->os_errno, ENOSPC);
    assert_int_equal(status_last()->offset, 77);
    assert_string_equal(status_last()->file, "log-000001");
}

static void
status__every_name_is_known(void **state)
{
    (void)state;
#define CHECK_NAME(name, number, sentence)                                                                   \
    assert_string_equal(esker_status_name(ESKER_##name), #name);                                             \
    assert_true(strlen(sentence) > 0);
    ESKER_STATUS_LIST(CHECK_NAME)
#undef CHECK_NAME
    assert_string_equal(esker_status_name((esker_status)-99), "UNKNOWN");
}

static esker_status
try_twice(esker_status first, esker_status second, int *steps)
{
    TRY(first);
    *steps += 1;
    TRY(second);
    *steps += 1;
    return ESKER_OK;
}

static void
status__try_lets_only_ok_pass(void **state)
{
    (void)state;
    int steps = 0;
    assert_int_equal(try_twice(ESKER_OK, ESKER_OK, &steps), ESKER_OK);
    assert_int_equal(steps, 2);
    assert_int_equal(try_twice(ESKER_OK, ESKER_END, &steps), ESKER_END);
    assert_int_equal(steps, 3);
    assert_int_equal(try_twice(ESKER_IO, ESKER_OK, &steps), ESKER_IO);
    assert_int_equal(steps, 3);
}

/* ---- mem ---------------------------------------------------------------------- */

static void
mem__arrays_that_do_not_fit_are_null(void **state)
{
    (void)state;
    struct watch watch;
    struct mem mem = watch_mem(&watch);
    assert_null(mem_alloc_array(&mem, SIZE_MAX / 2, 3));
    assert_null(mem_zalloc_array(&mem, SIZE_MAX, SIZE_MAX));
    assert_null(mem_alloc_aligned(&mem, 4096, SIZE_MAX - 100));
    assert_int_equal(watch.calls, 0);
    assert_int_equal(watch.live, 0);
}

static void
mem__zero_bytes_are_a_pointer_to_free(void **state)
{
    (void)state;
    struct watch watch;
    struct mem mem = watch_mem(&watch);
    void *ptr = mem_alloc(&mem, 0);
    assert_non_null(ptr);
    assert_int_equal(watch.last_size, 1);
    mem_free(&mem, ptr);
    ptr = mem_zalloc_array(&mem, 0, 8);
    assert_non_null(ptr);
    mem_free(&mem, ptr);
    mem_free(&mem, NULL);
    assert_int_equal(watch.live, 0);
}

static void
mem__zalloc_zeroes(void **state)
{
    (void)state;
    struct watch watch;
    struct mem mem = watch_mem(&watch);
    static const uint8_t zeros[24];
    uint8_t *ptr = mem_zalloc_array(&mem, 3, 8);
    assert_non_null(ptr);
    assert_memory_equal(ptr, zeros, sizeof zeros);
    mem_free(&mem, ptr);
    watch.fail_at = 1;
    assert_null(mem_zalloc(&mem, 8));
}

static void
mem__aligned_sizes_are_rounded_up(void **state)
{
    (void)state;
    struct watch watch;
    struct mem mem = watch_mem(&watch);
    void *ptr = mem_alloc_aligned(&mem, 64, 1);
    assert_non_null(ptr);
    assert_int_equal((uintptr_t)ptr % 64, 0);
    assert_int_equal(watch.last_alignment, 64);
    assert_int_equal(watch.last_size, 64);
    mem_free(&mem, ptr);
    ptr = mem_alloc_aligned(&mem, 64, 0);
    assert_int_equal(watch.last_size, 64);
    mem_free(&mem, ptr);
    ptr = mem_alloc_aligned(&mem_default, 4096, 5000);
    assert_int_equal((uintptr_t)ptr % 4096, 0);
    mem_free(&mem_default, ptr);
    assert_int_equal(watch.live, 0);
}

static void
mem__init_without_hooks_is_the_default(void **state)
{
    (void)state;
    struct mem mem;
    mem_init(&mem, NULL);
    assert_memory_equal(&mem, &mem_default, sizeof mem);
}

/* ---- buf ---------------------------------------------------------------------- */

static void
buf__appends_are_little_endian_and_in_order(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(buf_append_u8(&buf, 0x01), ESKER_OK);
    assert_int_equal(buf_append_u16(&buf, 0x0302), ESKER_OK);
    assert_int_equal(buf_append_u32(&buf, 0x07060504), ESKER_OK);
    assert_int_equal(buf_append_u64(&buf, 0x0f0e0d0c0b0a0908), ESKER_OK);
    assert_int_equal(buf_append(&buf, "\x10\x11", 2), ESKER_OK);
    assert_int_equal(buf_append_bytes(&buf, bytes_make(NULL, 0)), ESKER_OK);
    assert_int_equal(buf.len, 17);
    for (size_t i = 0; i < buf.len; i++) {
        assert_int_equal(buf.ptr[i], i + 1);
    }
    buf_fini(&buf);
    assert_null(buf.ptr);
    assert_int_equal(buf.len, 0);
    assert_ptr_equal(buf.mem, &mem_default);
}

static void
buf__pad_fills_with_zeros_to_the_power(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(buf_pad(&buf, 16), ESKER_OK);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf_append_u8(&buf, 0xff), ESKER_OK);
    assert_int_equal(buf_pad(&buf, 16), ESKER_OK);
    assert_int_equal(buf.len, 16);
    static const uint8_t zeros[15];
    assert_memory_equal(buf.ptr + 1, zeros, sizeof zeros);
    assert_int_equal(buf_pad(&buf, 16), ESKER_OK);
    assert_int_equal(buf.len, 16);
    buf_fini(&buf);
}

static void
buf__assign_replaces_and_clear_keeps_the_room(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(buf_assign(&buf, text("a longer first text")), ESKER_OK);
    size_t cap = buf.cap;
    assert_int_equal(buf_assign(&buf, text("short")), ESKER_OK);
    assert_true(bytes_equal(buf_bytes(&buf), text("short")));
    buf_clear(&buf);
    assert_int_equal(buf.len, 0);
    assert_int_equal(buf.cap, cap);
    buf_fini(&buf);
    buf_fini(&buf);
}

static void
buf__without_memory_the_contents_stay(void **state)
{
    (void)state;
    struct watch watch;
    struct mem mem = watch_mem(&watch);
    struct buf buf;
    buf_init(&buf, &mem);
    assert_int_equal(buf_append_bytes(&buf, text("kept")), ESKER_OK);
    watch.fail_at = watch.calls + 1;
    size_t room = buf.cap - buf.len;
    assert_int_equal(buf_append_zeros(&buf, room + 1), ESKER_NO_MEMORY);
    assert_true(bytes_equal(buf_bytes(&buf), text("kept")));
    assert_string_equal(status_last()->message, "no memory for a buffer");
    assert_int_equal(buf_append_zeros(&buf, room), ESKER_OK);
    buf_fini(&buf);
    assert_int_equal(watch.live, 0);
}

static void
buf__lengths_that_wrap_are_refused(void **state)
{
    (void)state;
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(buf_append_u8(&buf, 1), ESKER_OK);
    assert_int_equal(buf_reserve(&buf, SIZE_MAX), ESKER_NO_MEMORY);
    assert_int_equal(buf_append_zeros(&buf, SIZE_MAX), ESKER_NO_MEMORY);
    assert_int_equal(buf.len, 1);
    buf_fini(&buf);
}

static void
buf__random_appends_equal_an_array(void **state)
{
    (void)state;
    static uint8_t model[1 << 16];
    size_t model_len = 0;
    struct rng rng = {.state = SEED};
    struct buf buf;
    buf_init(&buf, &mem_default);
    while (model_len < sizeof model - 1024) {
        uint8_t chunk[1024];
        size_t len = (size_t)rng_below(&rng, sizeof chunk);
        for (size_t i = 0; i < len; i++) {
            chunk[i] = (uint8_t)rng_next(&rng);
        }
        memcpy(model + model_len, chunk, len);
        model_len += len;
        assert_int_equal(buf_append(&buf, chunk, len), ESKER_OK);
        assert_int_equal(buf.len, model_len);
        assert_true(buf.cap >= buf.len);
    }
    assert_memory_equal(buf.ptr, model, model_len);
    buf_fini(&buf);
}

/* ---- cursor -------------------------------------------------------------------- */

static void
cursor__reads_fields_in_order(void **state)
{
    (void)state;
    uint8_t raw[15];
    for (size_t i = 0; i < sizeof raw; i++) {
        raw[i] = (uint8_t)(i + 1);
    }
    struct cursor cursor = cursor_make(raw, sizeof raw);
    assert_int_equal(cursor_u8(&cursor), 0x01);
    assert_int_equal(cursor_u16(&cursor), 0x0302);
    assert_int_equal(cursor_u32(&cursor), 0x07060504);
    assert_int_equal(cursor_offset(&cursor), 7);
    assert_int_equal(cursor_left(&cursor), 8);
    assert_true(cursor_u64(&cursor) == 0x0f0e0d0c0b0a0908);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_true(cursor.ok);
    assert_int_equal(cursor_u8(&cursor), 0);
    assert_false(cursor.ok);
}

static void
cursor__a_failure_sticks(void **state)
{
    (void)state;
    static const uint8_t raw[8] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
    struct cursor cursor = cursor_make(raw, sizeof raw);
    (void)cursor_u32(&cursor);
    struct bytes none = cursor_bytes(&cursor, 5);
    assert_null(none.ptr);
    assert_int_equal(none.len, 0);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(cursor_u8(&cursor), 0);
    assert_int_equal(cursor_u16(&cursor), 0);
    assert_int_equal(cursor_u32(&cursor), 0);
    assert_true(cursor_u64(&cursor) == 0);
    assert_int_equal(cursor_bytes(&cursor, 0).len, 0);
    assert_false(cursor.ok);
    assert_int_equal(cursor_offset(&cursor), 4);
}

static void
cursor__hostile_lengths_do_not_wrap(void **state)
{
    (void)state;
    static const uint8_t raw[16];
    static const uint64_t hostile[] = {17, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 15, 1ULL << 63};
    for (size_t i = 0; i < COUNTOF(hostile); i++) {
        struct cursor cursor = cursor_make(raw, sizeof raw);
        cursor_skip(&cursor, hostile[i]);
        assert_false(cursor.ok);
        assert_ptr_equal(cursor.at, raw);
    }
}

static void
cursor__align_counts_from_the_start(void **state)
{
    (void)state;
    static const uint8_t raw[20];
    struct cursor cursor = cursor_make(raw + 1, 17);
    cursor_align(&cursor, 8);
    assert_int_equal(cursor_offset(&cursor), 0);
    cursor_skip(&cursor, 3);
    cursor_align(&cursor, 8);
    assert_int_equal(cursor_offset(&cursor), 8);
    cursor_skip(&cursor, 9);
    assert_true(cursor.ok);
    cursor_align(&cursor, 8);
    assert_false(cursor.ok);
}

static void
cursor__empty_input_is_fine_until_read(void **state)
{
    (void)state;
    uint8_t nothing = 0;
    struct cursor cursor = cursor_make(&nothing, 0);
    assert_int_equal(cursor_left(&cursor), 0);
    assert_int_equal(cursor_bytes(&cursor, 0).len, 0);
    assert_true(cursor.ok);
    (void)cursor_u8(&cursor);
    assert_false(cursor.ok);
}

/* ---- bytes, endian, hash, rng, compiler ---------------------------------------- */

static int
sign(int number)
{
    return (number > 0) - (number < 0);
}

static void
bytes__order_is_memcmp_then_length(void **state)
{
    (void)state;
    static const char *const sorted[] = {"",  "\x01", "a",    "a\x01", "aa",      "ab",
                                         "b", "\x7f", "\x80", "\xff",  "\xff\xff"};
    for (size_t i = 0; i < COUNTOF(sorted); i++) {
        for (size_t j = 0; j < COUNTOF(sorted); j++) {
            int expected = (i > j) - (i < j);
            assert_int_equal(sign(bytes_compare(text(sorted[i]), text(sorted[j]))), expected);
            assert_int_equal(bytes_equal(text(sorted[i]), text(sorted[j])), i == j);
        }
    }
    assert_int_equal(bytes_compare(bytes_make(NULL, 0), bytes_make(NULL, 0)), 0);
    assert_true(bytes_equal(bytes_make(NULL, 0), text("")));
    assert_true(bytes_compare(bytes_make("a", 1), bytes_make("a\0", 2)) < 0);
}

static void
bytes__start_with_itself_and_nothing(void **state)
{
    (void)state;
    assert_true(bytes_start_with(text("abc"), text("abc")));
    assert_true(bytes_start_with(text("abc"), text("ab")));
    assert_true(bytes_start_with(text("abc"), bytes_make(NULL, 0)));
    assert_false(bytes_start_with(text("ab"), text("abc")));
    assert_false(bytes_start_with(bytes_make("abc", 2), text("abc")));
    assert_false(bytes_start_with(text("abc"), text("b")));
}

static void
bytes__prefix64_orders_like_the_bytes(void **state)
{
    (void)state;
    struct rng rng = {.state = SEED};
    for (int round = 0; round < 20000; round++) {
        uint8_t a[12], b[12];
        size_t a_len = (size_t)rng_below(&rng, sizeof a + 1);
        size_t b_len = (size_t)rng_below(&rng, sizeof b + 1);
        for (size_t i = 0; i < sizeof a; i++) {
            a[i] = (uint8_t)rng_below(&rng, 3);
            b[i] = (uint8_t)rng_below(&rng, 3);
        }
        uint64_t a_word = bytes_prefix64(a, a_len), b_word = bytes_prefix64(b, b_len);
        if (a_word != b_word) {
            assert_int_equal((a_word > b_word) - (a_word < b_word),
                             sign(bytes_compare(bytes_make(a, a_len), bytes_make(b, b_len))));
        }
    }
    assert_true(bytes_prefix64((const uint8_t *)"\x01\x02", 2) == 0x0102000000000000);
    assert_true(bytes_prefix64(NULL, 0) == 0);
}

static void
bytes__prefix64_reads_no_further_than_len(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 9; len++) {
        uint8_t *exact = malloc(len);
        assert_non_null(exact);
        memset(exact, 0xff, len);
        uint64_t expected = len >= 8 ? UINT64_MAX : ~(UINT64_MAX >> (8 * len));
        assert_true(bytes_prefix64(exact, len) == expected);
        free(exact);
    }
}

static void
bytes__slices_convert_both_ways(void **state)
{
    (void)state;
    struct bytes bytes = text("key");
    esker_slice slice = bytes_to_slice(bytes);
    assert_ptr_equal(slice.data, bytes.ptr);
    assert_int_equal(slice.size, 3);
    assert_true(bytes_equal(bytes_of_slice(slice), bytes));
}

static void
endian__stores_and_loads_at_any_alignment(void **state)
{
    (void)state;
    uint8_t raw[32] = {0};
    for (size_t at = 0; at < 8; at++) {
        le16_store(raw + at, 0x1122);
        assert_int_equal(le16_load(raw + at), 0x1122);
        assert_int_equal(raw[at], 0x22);
        le32_store(raw + at, 0x11223344);
        assert_int_equal(le32_load(raw + at), 0x11223344);
        assert_int_equal(raw[at], 0x44);
        le64_store(raw + at, 0x1122334455667788);
        assert_true(le64_load(raw + at) == 0x1122334455667788);
        assert_int_equal(raw[at], 0x88);
    }
}

/* The formats depend on these numbers: they may never change. */
static void
hash__numbers_are_stable(void **state)
{
    (void)state;
    assert_true(hash64("", 0, 0) == 0x2d06800538d394c2);
    assert_true(hash64("esker", 5, 0) == 0x5ac206f23e90768f);
    assert_true(hash_mix(0, 0) == 0xe220a8397b1dcdaf);
    assert_true(hash_mix(1, 2) != hash_mix(2, 1));
}

static void
rng__is_reproducible_and_bounded(void **state)
{
    (void)state;
    struct rng first = {.state = 0}, again = {.state = 0};
    assert_true(rng_next(&first) == 0xe220a8397b1dcdaf);
    assert_true(rng_next(&first) == 0x6e789e6aa1b965f4);
    assert_true(rng_next(&again) == 0xe220a8397b1dcdaf);
    size_t seen[7] = {0};
    for (int i = 0; i < 7000; i++) {
        seen[rng_below(&first, COUNTOF(seen))]++;
    }
    for (size_t i = 0; i < COUNTOF(seen); i++) {
        assert_true(seen[i] > 800);
    }
    assert_int_equal(rng_below(&first, 1), 0);
}

static void
compiler__align_up_reaches_the_next_multiple(void **state)
{
    (void)state;
    assert_int_equal(align_up(0, 16), 0);
    assert_int_equal(align_up(1, 16), 16);
    assert_int_equal(align_up(16, 16), 16);
    assert_int_equal(align_up(4097, 4096), 8192);
}

/* ---- Slabs ---------------------------------------------------------------------- */

enum { SLAB_PIECES = 64, SLAB_BYTES = 4096 };

struct slab_piece {
    uint8_t *ptr;
    size_t size;
    uint8_t fill;
};

static bool
slab_piece_is_whole(const struct slab_piece *piece)
{
    for (size_t at = 0; at < piece->size; at++) {
        if (piece->ptr[at] != piece->fill) {
            return false;
        }
    }
    return true;
}

static void
slab__pieces_of_any_sizes_stay_apart(void **state)
{
    (void)state;
    struct watch watch = {0};
    struct mem mem = watch_mem(&watch);
    struct slab *slab = slab_create(&mem, SLAB_BYTES);
    assert_non_null(slab);
    assert_int_equal(watch.live, 1);
    struct slab_piece pieces[SLAB_PIECES] = {0};
    struct rng rng = {.state = SEED};
    for (int step = 0; step < 20000; step++) {
        struct slab_piece *piece = &pieces[rng_below(&rng, COUNTOF(pieces))];
        if (piece->ptr != NULL) {
            assert_true(slab_piece_is_whole(piece));
            mem_free(&slab->mem, piece->ptr);
            piece->ptr = NULL;
            continue;
        }
        bool lines = rng_below(&rng, 4) == 0;
        piece->size = 1 + rng_below(&rng, step % 1000 == 0 ? 2 * (uint64_t)SLAB_BYTES : 200);
        piece->fill = (uint8_t)step;
        piece->ptr = lines ? mem_alloc_aligned(&slab->mem, CACHE_LINE_BYTES, piece->size)
                           : mem_alloc(&slab->mem, piece->size);
        assert_non_null(piece->ptr);
        assert_int_equal((uintptr_t)piece->ptr % (lines ? CACHE_LINE_BYTES : SLAB_ALIGN), 0);
        memset(piece->ptr, piece->fill, piece->size);
    }
    for (size_t i = 0; i < COUNTOF(pieces); i++) {
        assert_true(pieces[i].ptr == NULL || slab_piece_is_whole(&pieces[i]));
        mem_free(&slab->mem, pieces[i].ptr);
    }
    assert_int_equal(watch.live, 1);
    slab_destroy(slab);
    assert_int_equal(watch.live, 0);
    slab_destroy(NULL);
}

static void
slab__asks_its_parent_only_when_it_is_full(void **state)
{
    (void)state;
    struct watch watch = {0};
    struct mem mem = watch_mem(&watch);
    struct slab *slab = slab_create(&mem, SLAB_BYTES);
    size_t calls = watch.calls;
    for (int round = 0; round < 100; round++) { /* empty again: all of it is there again */
        void *first = mem_zalloc(&slab->mem, slab->size / 2);
        void *second = mem_alloc(&slab->mem, slab->size / 4);
        mem_free(&slab->mem, second); /* the last one taken makes room at once */
        second = mem_alloc(&slab->mem, slab->size / 2 - SLAB_ALIGN);
        mem_free(&slab->mem, first);
        mem_free(&slab->mem, second);
    }
    assert_int_equal(watch.calls, calls);
    void *all = mem_alloc(&slab->mem, slab->size);
    void *more = mem_alloc(&slab->mem, 1);
    assert_int_equal(watch.calls, calls + 1);
    watch.fail_at = 1;
    assert_null(mem_alloc(&slab->mem, 1));
    assert_null(mem_alloc(&slab->mem, SIZE_MAX));
    assert_null(slab_create(&mem, SLAB_BYTES));
    mem_free(&slab->mem, more);
    mem_free(&slab->mem, all);
    slab_destroy(slab);
    assert_int_equal(watch.live, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(status__fail_tells_file_offset_and_sentence),
        cmocka_unit_test(status__fail_without_words_uses_the_status_sentence),
        cmocka_unit_test(status__fail_os_names_errno_and_reason),
        cmocka_unit_test(status__long_texts_are_cut_and_terminated),
        cmocka_unit_test(status__short_error_struct_is_filled_up_to_its_size),
        cmocka_unit_test(status__restore_puts_a_story_back),
        cmocka_unit_test(status__a_cause_is_told_once),
        cmocka_unit_test(status__every_name_is_known),
        cmocka_unit_test(status__try_lets_only_ok_pass),
        cmocka_unit_test(mem__arrays_that_do_not_fit_are_null),
        cmocka_unit_test(mem__zero_bytes_are_a_pointer_to_free),
        cmocka_unit_test(mem__zalloc_zeroes),
        cmocka_unit_test(mem__aligned_sizes_are_rounded_up),
        cmocka_unit_test(mem__init_without_hooks_is_the_default),
        cmocka_unit_test(buf__appends_are_little_endian_and_in_order),
        cmocka_unit_test(buf__pad_fills_with_zeros_to_the_power),
        cmocka_unit_test(buf__assign_replaces_and_clear_keeps_the_room),
        cmocka_unit_test(buf__without_memory_the_contents_stay),
        cmocka_unit_test(buf__lengths_that_wrap_are_refused),
        cmocka_unit_test(buf__random_appends_equal_an_array),
        cmocka_unit_test(cursor__reads_fields_in_order),
        cmocka_unit_test(cursor__a_failure_sticks),
        cmocka_unit_test(cursor__hostile_lengths_do_not_wrap),
        cmocka_unit_test(cursor__align_counts_from_the_start),
        cmocka_unit_test(cursor__empty_input_is_fine_until_read),
        cmocka_unit_test(bytes__order_is_memcmp_then_length),
        cmocka_unit_test(bytes__start_with_itself_and_nothing),
        cmocka_unit_test(bytes__prefix64_orders_like_the_bytes),
        cmocka_unit_test(bytes__prefix64_reads_no_further_than_len),
        cmocka_unit_test(bytes__slices_convert_both_ways),
        cmocka_unit_test(endian__stores_and_loads_at_any_alignment),
        cmocka_unit_test(hash__numbers_are_stable),
        cmocka_unit_test(rng__is_reproducible_and_bounded),
        cmocka_unit_test(compiler__align_up_reaches_the_next_multiple),
        cmocka_unit_test(slab__pieces_of_any_sizes_stay_apart),
        cmocka_unit_test(slab__asks_its_parent_only_when_it_is_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
