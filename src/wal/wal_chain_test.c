/* SPDX-License-Identifier: MIT */
/*
 * Goal: of all listed logs the needed ones are taken; lost, old and foreign
 * files are noticed; failures of the machine leave nothing behind.
 * Method: chains of small logs on a simulated disk; faults at the n-th call for
 * all n.
 */
#include <errno.h>

#include "base/test_failing_mem.h"
#include "wal/wal_recover_fixture.h"

/* ---- Chains ------------------------------------------------------------------ */

static void
recover__a_chain_is_followed(void **state)
{
    (void)state;
    for (size_t n = 0; n < 3; n++) {
        struct sample_log *log = next_log(n);
        sample_batch(log, (uint32_t)n, 20, 0);
        if (n < 2) {
            sample_pad(log);
        }
    }
    next_log(3); /* prepared ahead */
    write_logs(4);
    expect_end(3, sample_lsn(&logs[2]));
    assert_int_equal(out.spare_count, 1);
    assert_int_equal(out.spare[0]->number, 4);
    assert_int_equal(out.gen_max, 4);
    assert_int_equal(out.next_base_lsn, 512 * 5);
    sample_recovered_fini(&out);

    input.wal_min_gen = 2;
    input.wal_min_lsn = logs[1].header.base_lsn;
    expect_end(2, sample_lsn(&logs[2]));
    assert_int_equal(out.spare_count, 2);
    sample_recovered_fini(&out);
    input.wal_min_gen = 4;
    expect_end(1, logs[3].header.base_lsn);
    assert_int_equal(out.spare_count, 3);
    sample_recovered_fini(&out);
}

static void
recover__a_full_log_with_nothing_behind_keeps_the_prepared_one_free(void **state)
{
    (void)state;
    struct sample_log *log = next_log(0);
    sample_pad(log);
    next_log(1);
    next_log(2);
    write_logs(3);
    expect_end(1, 1024);
    assert_int_equal(out.spare_count, 2);
    sample_recovered_fini(&out);
}

static void
recover__a_discarded_tail_stays_discarded(void **state)
{
    (void)state;
    struct io_machine_id here = this_machine();
    /* Log 1 ended at its third frame; what stands behind, and all of log 2, was given up then. */
    struct sample_log *first = next_log(0);
    own(first, &here);
    sample_batch(first, 1, 20, 0);
    sample_batch(first, 2, 20, 0);
    sample_batch(first, 3, 20, 0);
    sample_batch(first, 4, 20, 0);
    sample_mark(first, lsn_at(first, 3));
    sample_pad(first);
    struct sample_log *lost = next_log(1);
    own(lost, &here);
    sample_batch(lost, 5, 20, 0);
    sample_seal(lost);
    struct sample_log *next = next_log(2);
    own(next, &here);
    next->header.prev_gen = 1;
    next->header.prev_end_lsn = lsn_at(first, 2);
    sample_batch(next, 6, 20, 0);
    break_frame(first, 2);
    write_logs(3);
    expect_end(2, sample_lsn(next));
    assert_int_equal(out.logs[0].end_lsn, lsn_at(first, 2));
    assert_int_equal(out.logs[1].log->number, 3);
    assert_int_equal(out.spare[0]->number, 2);
    assert_false(out.sealed);
    sample_recovered_fini(&out);

    /* The successor's rows prove nothing about a tail, but all about what is before. */
    break_frame(first, 1);
    write_logs(3);
    expect_corrupt("log-000001", LOG_HEADER_BYTES + first->frames[1]);
}

static void
recover__a_tail_cut_behind_a_seal_is_not_continued(void **state)
{
    (void)state;
    struct sample_log *first = next_log(0);
    sample_batch(first, 1, 20, 0);
    sample_seal(first);
    struct sample_log *next = next_log(1);
    next->header.prev_end_lsn = sample_lsn(first);
    write_logs(2);
    expect_end(1, sample_lsn(first));
    assert_false(out.sealed);
    assert_int_equal(out.durable_lsn, lsn_at(first, 1));
    sample_recovered_fini(&out);
}

static void
recover__the_successor_begun_last_wins(void **state)
{
    (void)state;
    struct sample_log *first = next_log(0);
    sample_batch(first, 1, 20, 0);
    sample_pad(first);
    struct sample_log *lost = next_log(1);
    sample_batch(lost, 2, 20, 0);
    struct sample_log *next = next_log(2);
    next->header.prev_gen = 1;
    next->header.prev_end_lsn = lsn_at(first, 1);
    sample_batch(next, 3, 20, 0);
    write_logs(3);
    expect_end(2, sample_lsn(next));
    sample_recovered_fini(&out);
}

static void
recover__gaps_are_legal_where_a_header_says_so(void **state)
{
    (void)state;
    struct sample_log *first = next_log(0);
    sample_batch(first, 1, 20, 0);
    struct sample_log *next = &logs[1];
    sample_log_init(next, 2, 2, 1, 1 << 20, 4096);
    next->header.prev_end_lsn = sample_lsn(first);
    next->header.durable_lsn = 1 << 20;
    write_logs(2);
    expect_end(1, sample_lsn(first));
    assert_int_equal(out.durable_lsn, out.end_lsn);
    assert_int_equal(out.next_base_lsn, (1 << 20) + 512);
    sample_recovered_fini(&out);
    sample_batch(next, 2, 20, 0);
    write_logs(2);
    expect_end(2, sample_lsn(next));
    sample_recovered_fini(&out);
}

/* ---- What proves that a file is lost or foreign ------------------------------- */

static void
recover__each_missing_log_is_named(void **state)
{
    (void)state;
    static const char *const names[] = {"log-000001", "log-000002", "log-000003"};
    for (size_t n = 0; n < 3; n++) {
        make_chain_of_three();
        sim_disk_delete(disk, names[n]);
        expect_corrupt(names[n], 0);
    }
}

static void
recover__each_log_is_missed_when_it_is_not_even_listed(void **state)
{
    (void)state;
    static const uint64_t without[3][2] = {{2, 3}, {1, 3}, {1, 2}};
    static const char *const blamed[] = {"manifest-00000001", "log-000003"};
    make_chain_of_three();
    for (size_t n = 0; n < 2; n++) {
        input.log_numbers = without[n];
        input.log_count = 2;
        expect_corrupt(blamed[n], n == 0 ? 0 : 56);
    }
    /* The last one is missed only by a durable point beyond. */
    input.log_numbers = without[2];
    expect_end(2, logs[2].header.base_lsn);
    sample_recovered_fini(&out);
    input.durable_lsn = logs[2].header.base_lsn + 2;
    expect_corrupt("log-000002", LOG_HEADER_BYTES + 4096);
}

static void
recover__an_older_life_of_a_file_is_noticed(void **state)
{
    (void)state;
    make_chain_of_three();
    logs[1].header.gen = 7; /* what log 2 was, had it not been recycled */
    logs[1].header.prev_gen = 6;
    write_logs(3);
    expect_corrupt("log-000002", 56);
    logs[1].header.gen = 1;
    logs[1].header.prev_gen = 0;
    write_logs(3);
    expect_corrupt("log-000002", 0); /* generation 1 twice */
}

static void
recover__foreign_and_contradicting_headers_are_damage(void **state)
{
    (void)state;
    make_chain_of_three();
    logs[1].header.uuid[5] ^= 4;
    write_logs(3);
    expect_corrupt("log-000002", 0);

    make_chain_of_three();
    logs[2].header.edit_no = 2;
    write_logs(3);
    expect_corrupt("manifest-00000001", 0);
    input.edit_no = 2;
    expect_end(3, sample_lsn(&logs[2]));
    sample_recovered_fini(&out);

    make_chain_of_three();
    logs[2].header.prev_end_lsn = logs[1].header.base_lsn - 2;
    write_logs(3);
    expect_corrupt("log-000003", 64);
    make_chain_of_three();
    logs[2].header.base_lsn += 1024;
    logs[2].header.prev_end_lsn = logs[2].header.base_lsn;
    write_logs(3);
    expect_corrupt("log-000003", 64);

    make_chain_of_three();
    sim_disk_copy(disk, "log-000002", disk, "log-000003");
    expect_corrupt("log-000003", 0);
}

static void
recover__the_first_log_must_be_there(void **state)
{
    (void)state;
    input.log_count = 0;
    input.wal_min_gen = 0;
    input.wal_min_lsn = 88;
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.end_lsn, 88);
    assert_int_equal(out.next_base_lsn, 512);
    sample_recovered_fini(&out);
    input.wal_min_gen = 3;
    expect_corrupt("manifest-00000001", 0);
    make_chain_of_three();
    input.wal_min_gen = 0;
    expect_corrupt("manifest-00000001", 0);
    input.wal_min_gen = 9;
    expect_corrupt("manifest-00000001", 0);
}

static void
recover__a_file_that_never_had_a_life_is_spare(void **state)
{
    (void)state;
    make_chain_of_three();
    sample_log_init(&logs[3], 4, 9, 0, 8192, 4096);
    write_logs(4);
    expect_end(3, sample_lsn(&logs[2]));
    assert_int_equal(out.spare[0]->number, 4);
    sample_recovered_fini(&out);
}

/* ---- Large frames, hostile files, failures ---------------------------------------- */

enum { BIG_SPACE = 4 << 20 };

/* Sealed frames of `len` bytes each at the given granule offsets of a big log. */
static void
write_big_log(const uint64_t *offsets, size_t count, uint64_t len, uint64_t broken)
{
    uint8_t *file = test_calloc(1, LOG_HEADER_BYTES + BIG_SPACE);
    uint8_t *space = file + LOG_HEADER_BYTES;
    struct log_header header = {.gen = 1, .base_lsn = 512, .cap_bytes = BIG_SPACE, .edit_no = 1};
    struct io_machine_id here = this_machine(); /* no frame has a claim: its owner proves nothing */
    memcpy(header.boot_id, here.boot_id, sizeof here.boot_id);
    header.mount_id = here.mount_id;
    memcpy(header.uuid, sample_uuid, sizeof sample_uuid);
    log_header_encode(&header, file);
    log_header_encode(&header, file + LOG_PAGE_BYTES);
    for (size_t i = 0; i < count; i++) {
        uint8_t *at = space + offsets[i];
        entry_encode(at + 16, ENTRY_PUT, bytes_make("key", 3), bytes_make(NULL, 0));
        le32_store(at + 16 + 4, (uint32_t)(len - 16 - 16));
        frame_seal(at, len, FRAME_BATCH, FRAME_BACK_NO_CLAIM, log_file_seed(&header),
                   512 + offsets[i] / LSN_BYTES);
    }
    space[broken] ^= 0x55;
    sim_disk_put(disk, "log-000001", bytes_make(file, LOG_HEADER_BYTES + BIG_SPACE));
    test_free(file);
}

static void
recover__frames_may_be_longer_than_a_read(void **state)
{
    (void)state;

    enum { LEN = 1200 << 10 };

    static const uint64_t offsets[] = {0, LEN, 2 * LEN};
    write_big_log(offsets, 3, LEN, BIG_SPACE - 1);
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.end_lsn, 512 + 3 * LEN / LSN_BYTES);
    for (size_t at = 3 * LEN; at < BIG_SPACE; at++) {
        assert_int_equal(out.logs[0].image[at], 0);
    }
    sample_recovered_fini(&out);

    /* The one in the middle is a hole; the one behind it is found, and proves nothing. */
    write_big_log(offsets, 3, LEN, LEN + 5000);
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.end_lsn, 512 + LEN / LSN_BYTES);
    sample_recovered_fini(&out);
}

static void
recover__what_a_pad_skips_is_not_read(void **state)
{
    (void)state;
    static const uint64_t none[] = {0};
    write_big_log(none, 1, 64, BIG_SPACE - 1);
    struct bytes content;
    assert_true(sim_disk_get(disk, "log-000001", &content));
    uint8_t *file = test_malloc(content.len);
    memcpy(file, content.ptr, content.len);
    uint8_t *space = file + LOG_HEADER_BYTES;
    struct log_header header;
    bool unsupported;
    assert_true(log_header_decode(bytes_make(file, LOG_PAGE_BYTES), &header, &unsupported));
    uint64_t pad = BIG_SPACE - 64 - 64;
    frame_seal(space + 64, pad, FRAME_PAD, FRAME_BACK_NO_CLAIM, log_file_seed(&header), 512 + 8);
    memcpy(space + 64 + pad, space, 64);
    frame_seal(space + 64 + pad, 64, FRAME_BATCH, FRAME_BACK_NO_CLAIM, log_file_seed(&header),
               512 + (64 + pad) / LSN_BYTES);
    sim_disk_put(disk, "log-000001", bytes_make(file, content.len));
    test_free(file);
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.end_lsn, 512 + BIG_SPACE / LSN_BYTES);
    assert_true(out.bytes_read < 1 << 20);
    sample_recovered_fini(&out);
}

static void
recover__a_hostile_file_is_given_up_in_bounded_time(void **state)
{
    (void)state;
    /* Every 16th granule starts a frame of 1 MiB whose head check is good and whose body is not. */
    static uint64_t offsets[8192];
    size_t count = 0;
    for (uint64_t at = 32; at + (1 << 20) < BIG_SPACE && count < COUNTOF(offsets); at += 256) {
        offsets[count++] = at;
    }
    write_big_log(offsets, count, 1 << 20, BIG_SPACE - 1);
    assert_int_equal(wal_recover(&input, &out), ESKER_CORRUPT);
    assert_string_equal(status_last()->message, "too much here looks like frames and is none");
    assert_int_equal(sample_images, 0);
}

static void
recover__writes_nothing(void **state)
{
    (void)state;
    make_chain_of_three();
    for (int read_only = 0; read_only < 2; read_only++) {
        uint64_t before = sim_disk_mutations(disk);
        input.read_only = read_only != 0;
        expect_end(3, sample_lsn(&logs[2]));
        sample_recovered_fini(&out);
        assert_int_equal(sim_disk_mutations(disk), before);
    }
}

static void
recover__each_failing_read_is_an_io_error(void **state)
{
    (void)state;
    make_chain_of_three();

    static const enum sim_kind kinds[] = {SIM_OPEN, SIM_READ, SIM_SIZE};

    for (size_t k = 0; k < COUNTOF(kinds); k++) {
        for (uint64_t n = 1;; n++) {
            uint64_t fired = sim_disk_fired(disk);
            sim_disk_fail(disk, kinds[k], n, EIO, false);
            esker_status status = wal_recover(&input, &out);
            bool hit = sim_disk_fired(disk) != fired;
            sim_disk_heal(disk);
            assert_int_equal(status, hit ? ESKER_IO : ESKER_OK);
            if (!hit) {
                sample_recovered_fini(&out);
                assert_true(n > 3);
                break;
            }
            assert_int_equal(sample_images, 0);
        }
    }
}

static esker_status
failing_image(void *ctx, const struct log_header *header, uint8_t **image_out)
{
    if (failing_now(ctx)) {
        return FAIL_NO_MEMORY("an image");
    }
    return sample_image(NULL, header, image_out);
}

static void
recover__each_failing_allocation_leaves_nothing(void **state)
{
    (void)state;
    make_chain_of_three();
    for (uint64_t n = 0;; n++) {
        struct failing failing = {.calls_left = n};
        struct mem mem = failing_mem(&failing);
        input.mem = &mem;
        input.image = failing_image;
        input.image_ctx = &failing;
        out.log_count = 4711;
        esker_status status = wal_recover(&input, &out);
        assert_int_equal(status, failing.failed ? ESKER_NO_MEMORY : ESKER_OK);
        if (status == ESKER_OK) {
            failing.calls_left = UINT64_MAX;
            for (size_t i = 0; i < out.log_count; i++) {
                sample_image_release(NULL, NULL, out.logs[i].image);
                log_file_destroy(out.logs[i].log);
            }
            wal_recovered_fini(&out, &mem);
            assert_true(n > 8);
            break;
        }
        assert_int_equal(out.log_count, 4711); /* untouched */
        assert_int_equal(sample_images, 0);
    }
}

static esker_status
page_image(void *ctx, const struct log_header *header, uint8_t **image_out)
{
    (void)ctx;
    void *memory = NULL;
    assert_int_equal(io->ops->map_memory(io, header->cap_bytes, &memory), 0);
    *image_out = memory;
    return ESKER_OK;
}

static void
recover__page_memory_is_given_back_without_a_release_call(void **state)
{
    (void)state;
    make_chain_of_three();
    break_frame(&logs[1], 0);
    write_logs(3);
    input.image = page_image;
    input.image_release = NULL;
    input.durable_lsn = logs[1].header.base_lsn + 2;
    assert_int_equal(wal_recover(&input, &out), ESKER_CORRUPT);
    input.durable_lsn = 0;
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.log_count, 1);
    io->ops->unmap_memory(io, out.logs[0].image, out.logs[0].log->header.cap_bytes);
    out.logs[0].image = NULL;
    sample_recovered_fini(&out);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RECOVER_TEST(recover__a_chain_is_followed),
        RECOVER_TEST(recover__a_full_log_with_nothing_behind_keeps_the_prepared_one_free),
        RECOVER_TEST(recover__a_discarded_tail_stays_discarded),
        RECOVER_TEST(recover__a_tail_cut_behind_a_seal_is_not_continued),
        RECOVER_TEST(recover__the_successor_begun_last_wins),
        RECOVER_TEST(recover__gaps_are_legal_where_a_header_says_so),
        RECOVER_TEST(recover__each_missing_log_is_named),
        RECOVER_TEST(recover__each_log_is_missed_when_it_is_not_even_listed),
        RECOVER_TEST(recover__an_older_life_of_a_file_is_noticed),
        RECOVER_TEST(recover__foreign_and_contradicting_headers_are_damage),
        RECOVER_TEST(recover__the_first_log_must_be_there),
        RECOVER_TEST(recover__a_file_that_never_had_a_life_is_spare),
        RECOVER_TEST(recover__frames_may_be_longer_than_a_read),
        RECOVER_TEST(recover__what_a_pad_skips_is_not_read),
        RECOVER_TEST(recover__a_hostile_file_is_given_up_in_bounded_time),
        RECOVER_TEST(recover__writes_nothing),
        RECOVER_TEST(recover__each_failing_read_is_an_io_error),
        RECOVER_TEST(recover__each_failing_allocation_leaves_nothing),
        RECOVER_TEST(recover__page_memory_is_given_back_without_a_release_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
