/* SPDX-License-Identifier: MIT */
/*
 * Goal: a damaged block of a segment costs the keys in it and nothing else: every
 * other key is read by get and by scans from either side, writes, flushes and
 * merges elsewhere go on, the damage is told with file and offset each time it is
 * met, and verify tells all damaged blocks' file. A merge that meets it keeps its
 * inputs. Repair loses the same keys and no others, also where the index is gone as well.
 * Method: a database with a segment of many small blocks on the simulated disk; one
 * bit of each block flipped in turn, on a clone. Which keys a block holds is asked
 * of the good segment.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "db/db.h"
#include "io/io_sim.h"
#include "segment/segment_internal.h"

enum { KEYS = 120, VALUE_BYTES = 1500 };

static int damage_compression = ESKER_COMPRESS_NONE;

static esker_status
damage_open(struct sim_disk *disk, esker_db **out)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 65536, .window_bytes_max = 65536, .segment_bytes = 1 << 20};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.compression = damage_compression;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return db_open_on(io, &options, &tuning, true, out);
}

static esker_slice
key_of(uint32_t key, char out[16])
{
    return esker_bytes(out, (size_t)snprintf(out, 16, "key%04u", key));
}

static esker_slice
value_of(uint32_t key, uint8_t out[VALUE_BYTES])
{
    memset(out, (int)('a' + key % 26), VALUE_BYTES);
    return esker_bytes(out, VALUE_BYTES);
}

static struct sim_disk *
damage_create(void)
{
    struct sim_disk *disk = sim_disk_create(3);
    esker_db *db = NULL;
    char name[16];
    uint8_t value[VALUE_BYTES];
    assert_int_equal(damage_open(disk, &db), ESKER_OK);
    for (uint32_t key = 0; key < KEYS; key++) {
        assert_int_equal(esker_put(db, key_of(key, name), value_of(key, value), NULL), ESKER_OK);
    }
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    assert_int_equal(esker_close(db), ESKER_OK);
    return disk;
}

struct damage_block {
    struct block_handle handle;
    uint32_t first_key, end_key; /* the keys in it */
};

/* The blocks of the database's one segment; its name. */
static size_t
damage_blocks(struct sim_disk *disk, struct damage_block *out, size_t capacity, char segment_name[40])
{
    esker_db *db = NULL;
    struct segment_loaded *loaded = NULL;
    size_t count = 0;
    uint32_t key = 0;
    assert_int_equal(damage_open(disk, &db), ESKER_OK);
    struct segment *segment = NULL;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = load_acquire(&db->current)->levels[level]; /* pairs: CURRENT */
        if (run != NULL) {
            assert_null(segment);
            assert_int_equal(run->count, 1);
            segment = run->segments[0];
        }
    }
    assert_non_null(segment);
    segment_file_name(segment_meta(segment)->id, segment_name);
    assert_int_equal(segment_load(segment, &loaded), ESKER_OK);
    struct segment_at at = segment_at_first();
    for (bool more = true; more; more = segment_at_next(loaded, &at)) {
        assert_true(count < capacity);
        out[count].handle = segment_at_handle(loaded, at);
        out[count].first_key = key;
        key += out[count].handle.row_count;
        out[count++].end_key = key;
    }
    segment_loaded_unref(loaded);
    assert_int_equal(key, KEYS);
    assert_int_equal(esker_close(db), ESKER_OK);
    return count;
}

static void
expect_told(esker_status status, const char *segment_name, const struct damage_block *block)
{
    assert_int_equal(status, ESKER_CORRUPT);
    assert_string_equal(status_last()->file, segment_name);
    assert_in_range(status_last()->offset, block->handle.offset,
                    block->handle.offset + block->handle.stored_len - 1);
}

static void
read_by_gets(esker_db *db, const char *segment_name, const struct damage_block *block)
{
    char name[16];
    uint8_t value[VALUE_BYTES];
    uint8_t buf[VALUE_BYTES];
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        esker_status status = esker_get_copy(db, key_of(key, name), NULL, buf, sizeof buf, &size);
        if (key >= block->first_key && key < block->end_key) {
            expect_told(status, segment_name, block);
        } else {
            assert_int_equal(status, ESKER_OK);
            assert_memory_equal(buf, value_of(key, value).data, VALUE_BYTES);
        }
    }
}

/* From the first key on up to the damage, and from behind it to the end. */
static void
read_by_scan(esker_db *db, const char *segment_name, const struct damage_block *block)
{
    esker_iter *it = NULL;
    char name[16];
    uint32_t key = 0;
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    esker_status status = esker_iter_first(it);
    for (; status == ESKER_OK; status = esker_iter_next(it)) {
        assert_memory_equal(esker_iter_key(it).data, key_of(key, name).data, 7);
        key++;
    }
    expect_told(status, segment_name, block);
    assert_int_equal(key, block->first_key);
    if (block->end_key < KEYS) {
        key = block->end_key;
        status = esker_iter_seek(it, key_of(key, name));
        for (; status == ESKER_OK; status = esker_iter_next(it)) {
            assert_memory_equal(esker_iter_key(it).data, key_of(key, name).data, 7);
            key++;
        }
        assert_int_equal(status, ESKER_END);
        assert_int_equal(key, KEYS);
    }
    esker_iter_destroy(it);
}

/* Also into the damaged range: what is newer needs no old block. */
static void
write_over(esker_db *db, const struct damage_block *block)
{
    char name[16];
    uint8_t buf[16];
    size_t size = 0;
    for (uint32_t key = 0; key < KEYS; key += 7) {
        assert_int_equal(esker_put(db, key_of(key, name), esker_str("new"), NULL), ESKER_OK);
    }
    assert_int_equal(esker_put(db, key_of(block->first_key, name), esker_str("new"), NULL), ESKER_OK);
    assert_int_equal(esker_flush(db), ESKER_OK);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(esker_get_copy(db, key_of(block->first_key, name), NULL, buf, sizeof buf, &size),
                         ESKER_OK);
        assert_int_equal(size, 3);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_CORRUPT); /* and its inputs stay */
    }
    assert_int_equal(esker_put(db, esker_str("later"), esker_str("still"), NULL), ESKER_OK);
}

struct findings {
    const char *file;
    uint64_t count;
};

static int
each_finding(void *ctx, const esker_error *finding)
{
    struct findings *findings = ctx;
    assert_string_equal(finding->file, findings->file);
    findings->count++;
    return 0;
}

static void
damaged_block__costs_its_own_keys_only(void **state)
{
    (void)state;
    struct damage_block blocks[64];
    char segment_name[40];
    struct sim_disk *good = damage_create();
    size_t count = damage_blocks(good, blocks, COUNTOF(blocks), segment_name);
    assert_in_range(count, 8, COUNTOF(blocks));
    for (size_t i = 0; i < count; i++) {
        struct sim_disk *disk = sim_disk_clone(good);
        struct findings findings = {.file = segment_name};
        struct io *io = NULL;
        esker_db *db = NULL;
        uint64_t at = blocks[i].handle.offset + (i * 977) % blocks[i].handle.stored_len;
        sim_disk_flip(disk, segment_name, at * 8 + i % 8);
        assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
        assert_int_equal(db_verify_on(io, each_finding, &findings), ESKER_CORRUPT);
        assert_int_equal(findings.count, 1);
        assert_int_equal(damage_open(disk, &db), ESKER_OK);
        read_by_gets(db, segment_name, &blocks[i]);
        read_by_scan(db, segment_name, &blocks[i]);
        write_over(db, &blocks[i]);
        assert_int_equal(esker_close(db), ESKER_OK);
        sim_disk_destroy(disk);
    }
    sim_disk_destroy(good);
}

/* ---- Repair ------------------------------------------------------------------ */

struct sentences {
    bool range_told; /* a sentence that names the keys on both sides */
    char after[24], before[24];
};

static void
each_sentence(void *ctx, const char *sentence)
{
    struct sentences *sentences = ctx;
    sentences->range_told = sentences->range_told || (strstr(sentence, sentences->after) != NULL &&
                                                      strstr(sentence, sentences->before) != NULL);
}

/* Flips one bit of the block, and with index one of the root; repairs; reads. */
static void
repair_block(struct sim_disk *good, const char *segment_name, const struct damage_block *block, bool index)
{
    struct sim_disk *disk = sim_disk_clone(good);
    struct sentences sentences = {0};
    struct bytes content = {0};
    struct io *io = NULL;
    esker_db *db = NULL;
    char name[16];
    uint8_t buf[VALUE_BYTES];
    snprintf(sentences.after, sizeof sentences.after,
             block->first_key == 0 ? "from its first" : "\"key%04u\"", block->first_key - 1);
    snprintf(sentences.before, sizeof sentences.before,
             block->end_key == KEYS ? "to its last" : "\"key%04u\"", block->end_key);
    assert_true(sim_disk_get(disk, segment_name, &content));
    sim_disk_flip(disk, segment_name, (block->handle.offset + 100) * 8);
    if (index) {
        sim_disk_flip(disk, segment_name,
                      (content.len - SEGMENT_FOOTER_BYTES) * 8 + 3); /* where the root is */
    }
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_repair_on(io, NULL, each_sentence, &sentences), ESKER_OK);
    /* Without an index nothing says that something followed the last whole block. */
    assert_true(sentences.range_told || (index && block->end_key == KEYS));
    assert_int_equal(damage_open(disk, &db), ESKER_OK);
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        bool lost = key >= block->first_key && key < block->end_key;
        assert_int_equal(esker_get_copy(db, key_of(key, name), NULL, buf, sizeof buf, &size),
                         lost ? ESKER_NOT_FOUND : ESKER_OK);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

static void
repaired_block__costs_its_own_keys_only(void **state)
{
    (void)state;
    static const int codecs[] = {ESKER_COMPRESS_NONE, ESKER_COMPRESS_LZ4, ESKER_COMPRESS_ZSTD};
    for (size_t c = 0; c < COUNTOF(codecs); c++) {
        struct damage_block blocks[64];
        char segment_name[40];
        damage_compression = codecs[c];
        struct sim_disk *good = damage_create();
        size_t count = damage_blocks(good, blocks, COUNTOF(blocks), segment_name);
        for (size_t i = 0; i < count; i++) {
            repair_block(good, segment_name, &blocks[i], false);
            repair_block(good, segment_name, &blocks[i], true);
        }
        sim_disk_destroy(good);
    }
    damage_compression = ESKER_COMPRESS_NONE;
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_block__costs_its_own_keys_only),
        cmocka_unit_test(repaired_block__costs_its_own_keys_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
