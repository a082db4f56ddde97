/* SPDX-License-Identifier: MIT */
/*
 * Goal: the worked example of docs/format.md is what this library reads and
 * writes: every byte in it decodes, and the files it shows are a database.
 * Method: the test reads the example's hex blocks, decodes them with the real
 * decoders, then puts the files on a simulated disk and opens that. Changed
 * bytes must be refused, else the check would prove nothing.
 *
 * Called with a directory, it writes the example's files there instead, for
 * when a change of the format asks for a new example. They come out the same
 * each time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "db/db.h"
#include "db/db_files.h"
#include "format/block.h"
#include "format/frame.h"
#include "format/segment_format.h"
#include "io/io_sim.h"

enum { EXAMPLE_FILES_MAX = 8, EXAMPLE_WINDOW_BYTES = 16384, EXAMPLE_SEED = 1 };

struct example_file {
    struct db_file file; /* name and what it says */
    uint8_t *bytes;      /* what the document does not list is zero */
    size_t size;
};

struct example {
    struct example_file files[EXAMPLE_FILES_MAX];
    size_t count;
    uint8_t uuid[16];
};

static struct example example;

/* ---- Making it -------------------------------------------------------------- */

static esker_db *
example_open(struct sim_disk *disk)
{
    struct io *io = NULL;
    esker_db *db = NULL;
    esker_options options;
    struct db_tuning tuning = {.window_bytes_first = EXAMPLE_WINDOW_BYTES,
                               .window_bytes_max = EXAMPLE_WINDOW_BYTES,
                               .segment_bytes = 4 * EXAMPLE_WINDOW_BYTES};
    esker_options_init(&options);
    options.durability = ESKER_DURABLE_SYNC;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    assert_int_equal(db_open_on(io, &options, &tuning, true, &db), ESKER_OK);
    return db;
}

static struct sim_disk *
example_make(void)
{
    struct sim_disk *disk = sim_disk_create(EXAMPLE_SEED);
    esker_batch *batch = NULL;
    sim_disk_set_wall(disk, 1700000000000000000);
    esker_db *db = example_open(disk);
    assert_int_equal(esker_put(db, esker_str("apple"), esker_str("red"), NULL), ESKER_OK);
    assert_int_equal(esker_put(db, esker_str("banana"), esker_str("yellow"), NULL), ESKER_OK);
    assert_int_equal(esker_flush(db), ESKER_OK);
    assert_int_equal(esker_batch_create(&batch), ESKER_OK);
    assert_int_equal(esker_batch_put(batch, esker_str("cherry"), esker_str("dark")), ESKER_OK);
    assert_int_equal(esker_batch_delete(batch, esker_str("apple")), ESKER_OK);
    assert_int_equal(esker_write(db, batch, NULL, NULL), ESKER_OK);
    esker_batch_destroy(batch);
    assert_int_equal(esker_close(db), ESKER_OK);
    return disk;
}

static int
example_write(const char *folder)
{
    struct sim_disk *disk = example_make();
    struct sim_file_info files[EXAMPLE_FILES_MAX];
    size_t count = MIN(sim_disk_files(disk, files, EXAMPLE_FILES_MAX), (size_t)EXAMPLE_FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        char path[512];
        struct bytes content;
        bool known = sim_disk_get(disk, files[i].name, &content);
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        FILE *file = fopen(path, "wb");
        bool written = known && file != NULL &&
                       (content.len == 0 || fwrite(content.ptr, 1, content.len, file) == content.len);
        if (!written || fclose(file) != 0) {
            fprintf(stderr, "cannot write %s\n", path);
            return 1;
        }
    }
    sim_disk_destroy(disk);
    return 0;
}

/* ---- Reading it out of the document ------------------------------------------ */

/* "```hex NAME SIZE" */
static void
example_begin_file(const char *line)
{
    struct example_file *file = &example.files[example.count];
    char name[40];
    assert_in_range(example.count, 0, EXAMPLE_FILES_MAX - 1);
    assert_int_equal(sscanf(line, "```hex %39s %zu", name, &file->size), 2);
    memcpy(file->file.name, name, sizeof name);
    file->file.kind = db_file_classify(name, &file->file.number);
    assert_int_not_equal(file->file.kind, DB_FILE_FOREIGN);
    file->bytes = calloc(1, file->size + 1);
    assert_non_null(file->bytes);
    example.count++;
}

/* "OFFSET  BYTE BYTE ... ; what they are", in hexadecimal. Lines follow one another or skip zeros. */
static size_t
example_read_line(const char *line, size_t end)
{
    struct example_file *file = &example.files[example.count - 1];
    char *at = NULL;
    size_t offset = strtoul(line, &at, 16);
    assert_true(at != line && offset >= end);
    for (;;) {
        char *next = NULL;
        unsigned long byte = strtoul(at, &next, 16);
        if (next == at) {
            break;
        }
        assert_true(next - at <= 4 && byte <= 0xff && offset < file->size);
        file->bytes[offset++] = (uint8_t)byte;
        at = next;
    }
    while (*at == ' ') {
        at++;
    }
    assert_true(*at == ';' || *at == '\n');
    return offset;
}

static int
example_read(void **state)
{
    (void)state;
    char path[512];
    char line[512];
    const char *root = getenv("ESKER_SOURCE_DIR");
    snprintf(path, sizeof path, "%s/docs/format.md", root != NULL ? root : ".");
    FILE *document = fopen(path, "r");
    assert_non_null(document);
    size_t end = 0;
    for (bool inside = false; fgets(line, sizeof line, document) != NULL;) {
        if (inside && strncmp(line, "```", 3) == 0) {
            inside = false;
        } else if (inside) {
            end = example_read_line(line, end);
        } else if (strncmp(line, "```hex", 6) == 0) {
            example_begin_file(line);
            inside = true;
            end = 0;
        }
    }
    assert_int_equal(fclose(document), 0);
    return 0;
}

static int
example_forget(void **state)
{
    (void)state;
    for (size_t i = 0; i < example.count; i++) {
        free(example.files[i].bytes);
    }
    return 0;
}

static struct example_file *
example_find(enum db_file_kind kind, size_t skip)
{
    for (size_t i = 0; i < example.count; i++) {
        if (example.files[i].file.kind == kind && skip-- == 0) {
            return &example.files[i];
        }
    }
    fail_msg("the document shows no file of kind %d", (int)kind);
    return NULL;
}

static struct bytes
example_bytes(const struct example_file *file, uint64_t offset, uint64_t len)
{
    assert_true(offset <= file->size && len <= file->size - offset);
    return bytes_make(file->bytes + offset, (size_t)len);
}

/* ---- Tests -------------------------------------------------------------------- */

static void
docs_format__current_names_the_manifest(void **state)
{
    (void)state;
    const struct example_file *current = example_find(DB_FILE_CURRENT, 0);
    const struct example_file *manifest = example_find(DB_FILE_MANIFEST, 0);
    struct file_head head;
    assert_int_equal(current_decode(example_bytes(current, 0, current->size), &head), ESKER_OK);
    assert_int_equal(head.number, manifest->file.number);
    memcpy(example.uuid, head.uuid, sizeof example.uuid);
    assert_int_equal(manifest_header_decode(example_bytes(manifest, 0, MANIFEST_HEADER_BYTES), &head),
                     ESKER_OK);
    assert_int_equal(head.number, manifest->file.number);
    assert_memory_equal(head.uuid, example.uuid, sizeof example.uuid);
    for (size_t i = 0; i < current->size; i++) {
        current->bytes[i] ^= 1;
        assert_int_not_equal(current_decode(example_bytes(current, 0, current->size), &head), ESKER_OK);
        current->bytes[i] ^= 1;
    }
}

static void
docs_format__edits_follow_one_another(void **state)
{
    (void)state;
    const struct example_file *manifest = example_find(DB_FILE_MANIFEST, 0);
    uint64_t seed = frame_file_seed(example.uuid, manifest->file.number);
    uint64_t hash = 0;
    uint64_t edit_no = 0;
    size_t segments = 0;
    for (uint64_t offset = MANIFEST_HEADER_BYTES; offset < manifest->size;) {
        struct frame frame;
        struct edit edit;
        uint64_t bad = 0;
        struct bytes rest = example_bytes(manifest, offset, manifest->size - offset);
        assert_true(frame_decode(rest, seed, offset, &frame));
        assert_int_equal(frame.type, FRAME_EDIT);
        assert_int_equal(edit_decode(frame.body, &mem_default, &edit, &bad), ESKER_OK);
        assert_int_equal(edit.edit_no, edit_no + 1);
        assert_true(edit.is_snapshot == (edit_no == 0) && edit.prev_hash == hash);
        segments += edit.add_segment_count;
        edit_no = edit.edit_no;
        hash = hash64(rest.ptr, (size_t)frame.len_bytes, 0);
        offset += frame.len_bytes;
        edit_fini(&edit, &mem_default);
    }
    assert_true(edit_no >= 3 && segments == 1);
}

/* Walks one log's frames; returns a bit for each type that was met. */
static uint32_t
docs_walk_log(const struct example_file *log, size_t *entries_out)
{
    struct log_header header;
    struct log_header copy;
    bool unsupported = false;
    uint32_t types = 0;
    assert_true(log_header_decode(example_bytes(log, 0, LOG_PAGE_BYTES), &header, &unsupported));
    assert_true(log_header_decode(example_bytes(log, LOG_PAGE_BYTES, LOG_PAGE_BYTES), &copy, &unsupported));
    assert_memory_equal(&header, &copy, sizeof header);
    assert_memory_equal(header.uuid, example.uuid, sizeof example.uuid);
    uint64_t seed = frame_file_seed(header.uuid, header.gen);
    for (uint64_t offset = 0; offset < header.cap_bytes;) {
        struct frame frame;
        struct entry entry;
        uint64_t lsn = header.base_lsn + offset / LSN_BYTES;
        struct bytes rest = example_bytes(log, LOG_HEADER_BYTES + offset, header.cap_bytes - offset);
        if (!frame_decode(rest, seed, lsn, &frame)) {
            assert_int_equal(le64_load(rest.ptr), 0);
            break;
        }
        types |= 1U << frame.type;
        for (uint64_t at = 0; frame.type == FRAME_BATCH && at < frame.body.len;) {
            esker_status status = entry_decode(frame.body, &at, &entry);
            if (status == ESKER_END) {
                break;
            }
            assert_int_equal(status, ESKER_OK);
            (*entries_out)++;
        }
        offset += frame.len_bytes;
    }
    return types;
}

static void
docs_format__logs_end_with_a_seal(void **state)
{
    (void)state;
    size_t entries = 0;
    uint32_t types = docs_walk_log(example_find(DB_FILE_LOG, 0), &entries);
    types |= docs_walk_log(example_find(DB_FILE_LOG, 1), &entries);
    assert_int_equal(types, 1U << FRAME_BATCH | 1U << FRAME_SYNCMARK | 1U << FRAME_SEAL);
    assert_int_equal(entries, 4);
}

static void
docs_check_block(const struct example_file *file, const struct segment_handle *handle, enum block_kind kind,
                 struct block *out)
{
    struct block_stored stored;
    struct bytes bytes = example_bytes(file, handle->offset, handle->stored_len);
    assert_int_equal(block_stored_open(bytes, kind, file->file.number, handle->offset, &stored), ESKER_OK);
    assert_true(stored.codec == BLOCK_CODEC_NONE && stored.raw_len == handle->raw_len);
    if (out != NULL) {
        assert_int_equal(block_open(stored.payload, kind, out), ESKER_OK);
    }
}

static void
docs_format__segment_is_whole(void **state)
{
    (void)state;
    const struct example_file *file = example_find(DB_FILE_SEGMENT, 0);
    struct segment_footer footer;
    struct block index;
    struct block data;
    struct block_handle handle;
    bool last = false;
    assert_int_equal(
        segment_header_decode(example_bytes(file, 0, SEGMENT_HEADER_BYTES), example.uuid, file->file.number),
        ESKER_OK);
    assert_int_equal(
        segment_footer_decode(example_bytes(file, file->size - SEGMENT_FOOTER_BYTES, SEGMENT_FOOTER_BYTES),
                              file->size, example.uuid, file->file.number, &footer),
        ESKER_OK);
    docs_check_block(file, &footer.root, BLOCK_INDEX, &index);
    docs_check_block(file, &footer.props, BLOCK_PROPS, NULL);
    assert_true(block_handle_decode(block_value(&index, 0), &handle));
    struct segment_handle place = {handle.offset, handle.stored_len, handle.raw_len};
    docs_check_block(file, &place, BLOCK_DATA, &data);
    assert_true(data.row_count == 2 && handle.row_count == 2);
    uint32_t row = block_find(&data, bytes_make("banana", 6), UINT64_MAX, &last);
    assert_true(row == 1 && bytes_equal(block_value(&data, row), bytes_make("yellow", 6)));
}

static void
docs_expect(esker_db *db, const char *key, const char *value)
{
    char found[32];
    size_t size = 0;
    esker_status status = esker_get_copy(db, esker_str(key), NULL, found, sizeof found, &size);
    assert_int_equal(status, value != NULL ? ESKER_OK : ESKER_NOT_FOUND);
    if (value != NULL) {
        assert_true(size == strlen(value) && memcmp(found, value, size) == 0);
    }
}

static void
docs_format__the_files_are_a_database(void **state)
{
    (void)state;
    struct sim_disk *disk = sim_disk_create(EXAMPLE_SEED + 1);
    for (size_t i = 0; i < example.count; i++) {
        const struct example_file *file = &example.files[i];
        sim_disk_put(disk, file->file.name, bytes_make(file->bytes, file->size));
    }
    esker_db *db = example_open(disk);
    docs_expect(db, "apple", NULL);
    docs_expect(db, "banana", "yellow");
    docs_expect(db, "cherry", "dark");
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(docs_format__current_names_the_manifest),
        cmocka_unit_test(docs_format__edits_follow_one_another),
        cmocka_unit_test(docs_format__logs_end_with_a_seal),
        cmocka_unit_test(docs_format__segment_is_whole),
        cmocka_unit_test(docs_format__the_files_are_a_database),
    };
    if (argc == 2) {
        return example_write(argv[1]);
    }
    return cmocka_run_group_tests(tests, example_read, example_forget);
}
