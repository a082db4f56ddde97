/* SPDX-License-Identifier: MIT */
/*
 * What the tests of recovery share: a simulated disk, samples of logs on it, and
 * the two outcomes to expect.
 */
#ifndef ESKER_WAL_WAL_RECOVER_FIXTURE_H
#define ESKER_WAL_WAL_RECOVER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "wal/wal_sample.h"

static struct sim_disk *disk;
static struct io *io;
static struct sample_log logs[SAMPLE_LOGS_MAX];
static const uint64_t numbers[SAMPLE_LOGS_MAX] = {1, 2, 3, 4, 5, 6, 7, 8};
static struct wal_recover_input input;
static struct wal_recovered out;

static inline int
setup(void **state)
{
    (void)state;
    disk = sim_disk_create(7);
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    input = sample_input(io, numbers, 1);
    return 0;
}

static inline int
teardown(void **state)
{
    (void)state;
    assert_int_equal(sample_images, 0);
    io_close_dir(io);
    sim_disk_destroy(disk);
    return 0;
}

static inline struct io_machine_id
this_machine(void)
{
    struct io_machine_id id;
    io->ops->machine_id(io, &id);
    return id;
}

static inline void
own(struct sample_log *log, const struct io_machine_id *id)
{
    memcpy(log->header.boot_id, id->boot_id, sizeof id->boot_id);
    log->header.mount_id = id->mount_id;
}

/* Log number n + 1 of generation n + 1 behind logs[n - 1]. */
static inline struct sample_log *
next_log(size_t n)
{
    const struct log_header *before = n == 0 ? NULL : &logs[n - 1].header;
    uint64_t base_lsn = before == NULL ? 512 : before->base_lsn + before->cap_bytes / LSN_BYTES;
    sample_log_init(&logs[n], n + 1, n + 1, n, base_lsn, 4096);
    return &logs[n];
}

static inline void
write_logs(size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sample_write(disk, &logs[i]);
    }
    input.log_count = count;
}

/* Recovers and checks that log_count logs came back, byte for byte, up to end_lsn. */
static inline void
expect_end(size_t log_count, uint64_t end_lsn)
{
    esker_status status = wal_recover(&input, &out);
    if (status != ESKER_OK) {
        fail_msg("%s: %s", status_last()->file, status_last()->message);
    }
    assert_int_equal(out.log_count, log_count);
    assert_int_equal(out.log_count + out.spare_count, input.log_count);
    assert_int_equal(out.end_lsn, end_lsn);
    assert_int_equal(sample_images, (int)log_count);
    for (size_t i = 0; i < log_count; i++) {
        const struct log_header *header = &out.logs[i].log->header;
        const struct sample_log *sample = &logs[out.logs[i].log->number - 1];
        uint64_t used = (out.logs[i].end_lsn - header->base_lsn) * LSN_BYTES;
        assert_memory_equal(header, &sample->header, sizeof *header);
        for (size_t k = 0; k < sample->frame_count && sample->frames[k] < used; k++) {
            bool pad = sample->space[sample->frames[k] + 4] == FRAME_PAD;
            uint64_t len = pad ? FRAME_HEADER_BYTES : sample->frames[k + 1] - sample->frames[k];
            assert_memory_equal(out.logs[i].image + sample->frames[k], sample->space + sample->frames[k],
                                len);
        }
        for (uint64_t at = used; at < header->cap_bytes; at++) {
            assert_int_equal(out.logs[i].image[at], 0);
        }
    }
}

static inline void
expect_corrupt(const char *file, uint64_t offset)
{
    esker_status status = wal_recover(&input, &out);
    assert_int_equal(status, ESKER_CORRUPT);
    assert_string_equal(status_last()->file, file);
    assert_int_equal(status_last()->offset, offset);
    assert_int_equal(sample_images, 0);
}

static inline uint64_t
lsn_at(const struct sample_log *log, size_t frame)
{
    return log->header.base_lsn + log->frames[frame] / LSN_BYTES;
}

/* Makes a frame bad in more than one bit. */
static inline void
break_frame(struct sample_log *log, size_t frame)
{
    memset(log->space + log->frames[frame], 0xA7, 24);
}

static inline void
make_chain_of_three(void)
{
    for (size_t n = 0; n < 3; n++) {
        struct sample_log *log = next_log(n);
        sample_batch(log, (uint32_t)n, 20, 0);
        if (n < 2) {
            sample_pad(log);
        }
    }
    write_logs(3);
}

#define RECOVER_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
