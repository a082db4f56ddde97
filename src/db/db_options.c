/* SPDX-License-Identifier: MIT */
/* Options: defaults, checks, and their text form. */
#include <stdlib.h>

#include "db/db.h"

enum { BUDGET_MIN = 8 << 20, THREADS_MOST = 64 };

static void
options_defaults(esker_options *options)
{
    *options = (esker_options){.struct_size = sizeof *options,
                               .create_if_missing = true,
                               .memory_budget_bytes = (uint64_t)256 << 20,
                               .durability = ESKER_DURABLE_PROCESS,
                               .sync_interval_ms = 10,
                               .compression = ESKER_COMPRESS_AUTO,
                               .io_backend = ESKER_IO_AUTO};
}

/* An older caller's struct is shorter than ours, a newer one's longer. */
static void
options_copy_out(void *target, size_t size, void *defaults, size_t known)
{
    if (target == NULL || size < sizeof(size_t)) {
        return;
    }
    memset(target, 0, size);
    memcpy(target, defaults, MIN(size, known));
    memcpy(target, &size, sizeof size);
}

void
esker_options_init_sized(void *options, size_t size)
{
    esker_options defaults;
    options_defaults(&defaults);
    options_copy_out(options, size, &defaults, sizeof defaults);
}

void
esker_write_options_init_sized(void *options, size_t size)
{
    esker_write_options defaults = {.durability = ESKER_DURABLE_DEFAULT};
    options_copy_out(options, size, &defaults, sizeof defaults);
}

void
esker_read_options_init_sized(void *options, size_t size)
{
    esker_read_options defaults = {.fill_cache = true};
    options_copy_out(options, size, &defaults, sizeof defaults);
}

void
esker_stats_init_sized(void *stats, size_t size)
{
    esker_stats defaults = {0};
    options_copy_out(stats, size, &defaults, sizeof defaults);
}

void
esker_wait_init_sized(void *wait, size_t size)
{
    esker_wait defaults = {0};
    options_copy_out(wait, size, &defaults, sizeof defaults);
}

static esker_status
options_check(const esker_options *options)
{
    if (options->memory_budget_bytes < BUDGET_MIN) {
        return FAIL(ESKER_INVALID, "memory_budget_bytes is %llu; the least is 8 MiB",
                    (unsigned long long)options->memory_budget_bytes);
    }
    if (options->durability < ESKER_DURABLE_MEMORY || options->durability > ESKER_DURABLE_SYNC) {
        return FAIL(ESKER_INVALID, "durability %d is not a level", options->durability);
    }
    if (options->sync_interval_ms == 0) {
        return FAIL(ESKER_INVALID, "sync_interval_ms is 0");
    }
    if (options->compression < ESKER_COMPRESS_AUTO || options->compression > ESKER_COMPRESS_ZSTD) {
        return FAIL(ESKER_INVALID, "compression %d is unknown", options->compression);
    }
    if (options->io_backend < ESKER_IO_AUTO || options->io_backend > ESKER_IO_POSIX) {
        return FAIL(ESKER_INVALID, "io_backend %d is unknown", options->io_backend);
    }
    if (options->background_threads > THREADS_MOST) {
        return FAIL(ESKER_INVALID, "background_threads is %u; the most is %d", options->background_threads,
                    THREADS_MOST);
    }
    const esker_allocator *allocator = options->allocator;
    if (allocator != NULL &&
        (allocator->alloc == NULL || allocator->aligned_alloc == NULL || allocator->free == NULL)) {
        return FAIL(ESKER_INVALID, "the allocator lacks a function");
    }
    return ESKER_OK;
}

esker_status
db_options_resolve(const esker_options *given, esker_options *out)
{
    esker_options options;
    options_defaults(&options);
    if (given != NULL) {
        if (given->struct_size < offsetof(esker_options, allocator)) {
            return FAIL(ESKER_INVALID, "the options were not initialised with esker_options_init");
        }
        memcpy(&options, given, MIN(given->struct_size, sizeof options));
        options.struct_size = sizeof options;
    }
    TRY(options_check(&options));
    *out = options;
    return ESKER_OK;
}

/* ---- Text --------------------------------------------------------------------- */

static bool
options_word_is(struct bytes word, const char *text)
{
    return bytes_equal(word, bytes_make(text, strlen(text)));
}

/* Digits, then one of the units; the scale of a missing unit is that of the first. */
static bool
options_number(struct bytes word, const char *const units[], const uint64_t scales[], size_t unit_count,
               uint64_t *out)
{
    uint64_t value = 0;
    size_t at = 0;
    for (; at < word.len && word.ptr[at] >= '0' && word.ptr[at] <= '9'; at++) {
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(word.ptr[at] - '0'), &value)) {
            return false;
        }
    }
    if (at == 0) {
        return false;
    }
    struct bytes unit = bytes_make(word.ptr + at, word.len - at);
    for (size_t i = 0; i < unit_count; i++) {
        if (unit.len == 0 || options_word_is(unit, units[i])) {
            return !__builtin_mul_overflow(value, scales[i], out);
        }
    }
    return false;
}

static bool
options_choice(struct bytes word, const char *const names[], int first, size_t count, int *out)
{
    for (size_t i = 0; i < count; i++) {
        if (options_word_is(word, names[i])) {
            *out = first + (int)i;
            return true;
        }
    }
    return false;
}

static bool
options_durability(struct bytes word, esker_options *options)
{
    static const char *const levels[] = {"memory", "process", "interval", "sync"};
    static const char *const units[] = {"ms", "s"};
    static const uint64_t scales[] = {1, 1000};
    struct bytes interval = bytes_make("interval:", 9);
    if (bytes_start_with(word, interval)) {
        uint64_t ms = 0;
        struct bytes rest = bytes_make(word.ptr + interval.len, word.len - interval.len);
        if (!options_number(rest, units, scales, COUNTOF(units), &ms) || ms == 0 || ms > UINT32_MAX) {
            return false;
        }
        options->sync_interval_ms = (uint32_t)ms;
        options->durability = ESKER_DURABLE_INTERVAL;
        return true;
    }
    return options_choice(word, levels, ESKER_DURABLE_MEMORY, COUNTOF(levels), &options->durability);
}

static bool
options_bool(struct bytes word, bool *out)
{
    static const char *const names[] = {"no", "yes"};
    int value = 0;
    bool known = options_choice(word, names, 0, COUNTOF(names), &value);
    *out = known ? value == 1 : *out;
    return known;
}

static bool
options_apply(struct bytes name, struct bytes word, esker_options *options)
{
    static const char *const sizes[] = {"B", "K", "M", "G"};
    static const uint64_t size_scales[] = {1, 1 << 10, 1 << 20, 1 << 30};
    static const char *const times[] = {"ms", "s", "m", "h", "d"};
    static const uint64_t time_scales[] = {1, 1000, 60000, 3600000, 86400000};
    static const char *const codecs[] = {"auto", "none", "lz4", "zstd"};
    static const char *const backends[] = {"auto", "uring", "posix"};
    if (options_word_is(name, "memory")) {
        return options_number(word, sizes, size_scales, COUNTOF(sizes), &options->memory_budget_bytes);
    }
    if (options_word_is(name, "durability")) {
        return options_durability(word, options);
    }
    if (options_word_is(name, "compression")) {
        return options_choice(word, codecs, ESKER_COMPRESS_AUTO, COUNTOF(codecs), &options->compression);
    }
    if (options_word_is(name, "io")) {
        return options_choice(word, backends, ESKER_IO_AUTO, COUNTOF(backends), &options->io_backend);
    }
    if (options_word_is(name, "threads")) {
        uint64_t threads = 0;
        bool known = options_number(word, sizes, size_scales, 1, &threads) && threads <= THREADS_MOST;
        options->background_threads = known ? (uint32_t)threads : 0;
        return known;
    }
    if (options_word_is(name, "ttl")) {
        return options_number(word, times, time_scales, COUNTOF(times), &options->default_ttl_ms);
    }
    if (options_word_is(name, "create")) {
        return options_bool(word, &options->create_if_missing);
    }
    if (options_word_is(name, "exclusive")) {
        return options_bool(word, &options->error_if_exists);
    }
    return false;
}

static struct bytes
options_trim(struct bytes word)
{
    while (word.len > 0 && (word.ptr[0] == ' ' || word.ptr[0] == '\n' || word.ptr[0] == '\t')) {
        word = bytes_make(word.ptr + 1, word.len - 1);
    }
    while (word.len > 0 && (word.ptr[word.len - 1] == ' ' || word.ptr[word.len - 1] == '\n' ||
                            word.ptr[word.len - 1] == '\t')) {
        word.len--;
    }
    return word;
}

esker_status
esker_options_parse(esker_options *options, const char *text)
{
    if (options == NULL || text == NULL || options->struct_size < offsetof(esker_options, allocator)) {
        return FAIL(ESKER_INVALID, "the options were not initialised, or the text is NULL");
    }
    esker_options parsed;
    memset(&parsed, 0, sizeof parsed);
    memcpy(&parsed, options, MIN(options->struct_size, sizeof parsed));
    const char *at = text;
    while (*at != 0) {
        const char *end = strchr(at, ';');
        end = end != NULL ? end : at + strlen(at);
        struct bytes field = options_trim(bytes_make(at, (size_t)(end - at)));
        const uint8_t *equals = field.len > 0 ? memchr(field.ptr, '=', field.len) : NULL;
        if (field.len > 0) {
            size_t name_len = equals != NULL ? (size_t)(equals - field.ptr) : field.len;
            struct bytes name = options_trim(bytes_make(field.ptr, name_len));
            struct bytes word = {0};
            if (equals != NULL) {
                word = options_trim(bytes_make(equals + 1, field.len - name_len - 1));
            }
            if (equals == NULL || !options_apply(name, word, &parsed)) {
                return FAIL(ESKER_INVALID, "the option \"%.*s\" is not understood",
                            (int)MIN(field.len, (size_t)80), (const char *)field.ptr);
            }
        }
        at = *end == ';' ? end + 1 : end;
    }
    size_t size = options->struct_size;
    memcpy(options, &parsed, MIN(size, sizeof parsed));
    options->struct_size = size;
    return ESKER_OK;
}
