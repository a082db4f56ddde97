/* SPDX-License-Identifier: MIT */
/*
 * The demo's records in a memory file:
 *   u64 count, u64 bytes of keys and values, u64 offset of each record in the
 *   data, u32 record numbers sorted by key, zeros to 8, then the data: for each
 *   record u32 key length, u32 value length, key, value.
 * Written by one process and read by it and its child: not checked.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/endian.h"
#include "base/status.h"
#include "tools/demo.h"

enum { RECORDS_HEAD_BYTES = 16, RECORDS_BATCH_MOST = 16, RECORDS_BATCHES_WANTED = 64 };

void
demo_builder_init(struct demo_records_builder *builder)
{
    buf_init(&builder->data, &mem_default);
    buf_init(&builder->offsets, &mem_default);
}

void
demo_builder_fini(struct demo_records_builder *builder)
{
    buf_fini(&builder->data);
    buf_fini(&builder->offsets);
}

esker_status
demo_builder_add(struct demo_records_builder *builder, struct bytes key, struct bytes value)
{
    TRY(buf_append_u64(&builder->offsets, builder->data.len));
    TRY(buf_append_u32(&builder->data, (uint32_t)key.len));
    TRY(buf_append_u32(&builder->data, (uint32_t)value.len));
    TRY(buf_append_bytes(&builder->data, key));
    return buf_append_bytes(&builder->data, value);
}

static struct bytes
records_key_at(const uint8_t *entry)
{
    return bytes_make(entry + 8, le32_load(entry));
}

static size_t
records_entry_bytes(const uint8_t *entry)
{
    return (size_t)8 + le32_load(entry) + le32_load(entry + 4);
}

/* By key, then by the order of arrival: entries stand in one buffer, so that is the address. */
static int
records_compare(const void *a, const void *b)
{
    const uint8_t *left = *(const uint8_t *const *)a;
    const uint8_t *right = *(const uint8_t *const *)b;
    int order = bytes_compare(records_key_at(left), records_key_at(right));
    return order != 0 ? order : (left > right) - (left < right);
}

/* Sorts the entries and moves those with a new key to the front. */
static size_t
records_sort_unique(const uint8_t **entries, size_t count)
{
    qsort(entries, count, sizeof *entries, records_compare);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || !bytes_equal(records_key_at(entries[kept - 1]), records_key_at(entries[i]))) {
            entries[kept++] = entries[i];
        }
    }
    return kept;
}

static int
records_compare_arrival(const void *a, const void *b, void *entries)
{
    const uint8_t *const *by_key = entries;
    const uint8_t *left = by_key[*(const uint32_t *)a];
    const uint8_t *right = by_key[*(const uint32_t *)b];
    return (left > right) - (left < right);
}

/* The file's bytes; places: of each entry among the sorted ones, in the order of arrival. */
static esker_status
records_image(const uint8_t **entries, const uint32_t *places, size_t count, struct buf *image)
{
    size_t sorted_at = RECORDS_HEAD_BYTES + count * 8;
    size_t data_at = (size_t)align_up(sorted_at + count * 4, 8);
    uint64_t bytes = 0;
    TRY(buf_append_zeros(image, data_at));
    for (size_t record = 0; record < count; record++) {
        const uint8_t *entry = entries[places[record]];
        le64_store(image->ptr + RECORDS_HEAD_BYTES + record * 8, image->len - data_at);
        le32_store(image->ptr + sorted_at + (size_t)places[record] * 4, (uint32_t)record);
        TRY(buf_append(image, entry, records_entry_bytes(entry)));
        bytes += records_entry_bytes(entry) - 8;
    }
    le64_store(image->ptr, count);
    le64_store(image->ptr + 8, bytes);
    return ESKER_OK;
}

static esker_status
records_build(const struct demo_records_builder *builder, const uint8_t **entries, uint32_t *places,
              struct buf *image)
{
    size_t count = builder->offsets.len / 8;
    for (size_t i = 0; i < count; i++) {
        entries[i] = builder->data.ptr + le64_load(builder->offsets.ptr + i * 8);
    }
    count = records_sort_unique(entries, count);
    for (size_t i = 0; i < count; i++) {
        places[i] = (uint32_t)i;
    }
    qsort_r(places, count, sizeof *places, records_compare_arrival, entries);
    return records_image(entries, places, count, image);
}

static esker_status
records_write_file(const struct buf *image, int *fd_out)
{
    int fd = memfd_create("esker-demo", MFD_CLOEXEC);
    if (fd < 0) {
        return FAIL_OS(errno, NULL, 0, "cannot create a memory file");
    }
    for (size_t at = 0; at < image->len;) {
        ssize_t done = write(fd, image->ptr + at, image->len - at);
        if (done <= 0) {
            int failed = errno;
            (void)close(fd);
            return FAIL_OS(failed, NULL, 0, "cannot fill a memory file");
        }
        at += (size_t)done;
    }
    *fd_out = fd;
    return ESKER_OK;
}

esker_status
demo_records_create(const struct demo_records_builder *builder, struct demo_records *out)
{
    size_t count = builder->offsets.len / 8;
    int fd = -1;
    struct buf image;
    const uint8_t **entries = mem_alloc_array(&mem_default, count, sizeof *entries);
    uint32_t *places = mem_alloc_array(&mem_default, count, sizeof *places);
    esker_status status = ESKER_OK;
    buf_init(&image, &mem_default);
    if (entries == NULL || places == NULL) {
        status = FAIL_NO_MEMORY("the demo's records");
        goto out;
    }
    TRY_OUT(records_build(builder, entries, places, &image));
    TRY_OUT(records_write_file(&image, &fd));
    TRY_OUT(demo_records_attach(fd, out));
out:
    buf_fini(&image);
    mem_free(&mem_default, places);
    mem_free(&mem_default, entries);
    return status;
}

esker_status
demo_records_attach(int fd, struct demo_records *out)
{
    struct stat info;
    if (fstat(fd, &info) != 0) {
        return FAIL_OS(errno, NULL, 0, "the demo's records are not there");
    }
    size_t len = (size_t)info.st_size;
    void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return FAIL_OS(errno, NULL, 0, "cannot map the demo's records");
    }
    struct demo_records records = {.fd = fd, .map = map, .map_len = len};
    records.count = le64_load(records.map);
    records.bytes = le64_load(records.map + 8);
    records.offsets = (const uint64_t *)(const void *)(records.map + RECORDS_HEAD_BYTES);
    records.sorted = (const uint32_t *)(const void *)(records.offsets + records.count);
    records.data = records.map + align_up(RECORDS_HEAD_BYTES + records.count * 12, 8);
    *out = records;
    return ESKER_OK;
}

void
demo_records_fini(struct demo_records *records)
{
    if (records->map != NULL) {
        (void)munmap((void *)(uintptr_t)records->map, records->map_len);
        (void)close(records->fd);
    }
    *records = (struct demo_records){.fd = -1};
}

struct bytes
demo_record_key(const struct demo_records *records, uint64_t record)
{
    return records_key_at(records->data + records->offsets[record]);
}

struct bytes
demo_record_value(const struct demo_records *records, uint64_t record)
{
    const uint8_t *entry = records->data + records->offsets[record];
    return bytes_make(entry + 8 + le32_load(entry), le32_load(entry + 4));
}

uint64_t
demo_batch_records(const struct demo_records *records)
{
    uint64_t size = records->count / RECORDS_BATCHES_WANTED;
    return MIN(MAX(size, (uint64_t)1), (uint64_t)RECORDS_BATCH_MOST);
}
