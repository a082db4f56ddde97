/* SPDX-License-Identifier: MIT */
/*
 * Goal: recovery ends the log where the rules of log_file.h say, and names the
 * file and byte of damage.
 * Method: one hand-made situation per test on a simulated disk. Chains are
 * wal_chain_test.c's subject, damage of every single bit wal_damage_test.c's.
 */
#include "wal/wal_recover_fixture.h"

/* ---- One log --------------------------------------------------------------- */

static void
recover__a_fresh_log_is_empty(void **state)
{
    (void)state;
    next_log(0);
    write_logs(1);
    expect_end(1, 512);
    assert_false(out.sealed);
    assert_int_equal(out.durable_lsn, 0);
    assert_int_equal(out.gen_max, 1);
    assert_int_equal(out.next_base_lsn, 1024);
    sample_recovered_fini(&out);
}

static void
recover__rows_come_back(void **state)
{
    (void)state;
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 10, 0);
    sample_batch(log, 2, 1000, FRAME_BACK_NO_CLAIM);
    sample_mark(log, lsn_at(log, 1));
    sample_batch(log, 3, 0, 2);
    write_logs(1);
    expect_end(1, sample_lsn(log));
    assert_int_equal(out.durable_lsn, lsn_at(log, 1));
    assert_false(out.sealed);
    assert_int_equal(out.bytes_read, LOG_HEADER_BYTES + 4096 + 4096 - log->at - 16);
    sample_recovered_fini(&out);
}

static void
recover__a_full_log_ends_with_its_space(void **state)
{
    (void)state;
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 10, 0);
    sample_pad(log);
    write_logs(1);
    expect_end(1, 1024);
    assert_int_equal(out.next_base_lsn, 1536); /* above the end, though nothing is in the way */
    sample_recovered_fini(&out);
}

static void
recover__a_seal_may_be_continued(void **state)
{
    (void)state;
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 10, 0);
    sample_seal(log);
    write_logs(1);
    expect_end(1, sample_lsn(log));
    assert_true(out.sealed);
    assert_int_equal(out.durable_lsn, out.end_lsn);
    assert_int_equal(out.seal_lsn, lsn_at(log, 1));
    sample_recovered_fini(&out);

    struct io_machine_id id = this_machine();
    sample_reopen(log, &id);
    sample_batch(log, 2, 10, 0);
    write_logs(1);
    expect_end(1, sample_lsn(log));
    assert_false(out.sealed);
    assert_int_equal(out.durable_lsn, lsn_at(log, 1));
    sample_recovered_fini(&out);

    sample_seal(log);
    write_logs(1);
    expect_end(1, sample_lsn(log));
    assert_true(out.sealed);
    assert_int_equal(out.seal_lsn, lsn_at(log, 4));
    sample_recovered_fini(&out);
}

static void
recover__a_seal_with_frames_behind_is_not_continued(void **state)
{
    (void)state;
    struct sample_log *log = next_log(0);
    struct io_machine_id other = {.mount_id = 99};
    sample_batch(log, 1, 10, 0);
    sample_seal(log);
    uint64_t end = sample_lsn(log);
    sample_reopen(log, &other);
    sample_batch(log, 2, 10, 0);
    break_frame(log, 2);
    write_logs(1);
    expect_end(1, end);
    assert_false(out.sealed);
    sample_recovered_fini(&out);
}

static void
recover__stale_frames_of_a_recycled_file_do_not_count(void **state)
{
    (void)state;
    struct sample_log *old = next_log(0);
    old->header.gen = 1;
    for (uint32_t i = 0; i < 40; i++) {
        sample_batch(old, 1000 + i, 64, 0);
    }
    struct sample_log *log = &logs[1];
    sample_log_init(log, 2, 5, 0, 2048, 4096);
    memcpy(log->space, old->space, sizeof log->space);
    sample_batch(log, 1, 64, 0);
    sample_batch(log, 2, 64, 0);
    sample_write(disk, log);
    input.log_numbers = numbers + 1;
    input.wal_min_gen = 5;
    expect_end(1, sample_lsn(log));
    assert_int_equal(out.gen_max, 5);
    assert_int_equal(out.next_base_lsn, 2048 + 512);
    sample_recovered_fini(&out);

    /* The same file with only its generation, or only its place in the log, changed. */
    log->header.gen = 6;
    sample_write(disk, log);
    input.wal_min_gen = 6;
    wal_recover(&input, &out) == ESKER_OK ? (void)0 : fail();
    assert_int_equal(out.end_lsn, log->header.base_lsn);
    sample_recovered_fini(&out);
    log->header.gen = 5;
    log->header.base_lsn = 4096;
    sample_write(disk, log);
    input.wal_min_gen = 5;
    wal_recover(&input, &out) == ESKER_OK ? (void)0 : fail();
    assert_int_equal(out.end_lsn, log->header.base_lsn);
    sample_recovered_fini(&out);
}

/* ---- Holes and proofs ------------------------------------------------------- */

/* Five batches with the given claim on the last; batch 2 is a hole. */
static struct sample_log *
log_with_hole(uint16_t back, const struct io_machine_id *owner)
{
    struct sample_log *log = next_log(0);
    own(log, owner);
    for (uint32_t i = 0; i < 5; i++) {
        sample_batch(log, i, 20, i == 4 ? back : FRAME_BACK_NO_CLAIM);
    }
    break_frame(log, 2);
    return log;
}

static void
recover__a_hole_with_unacknowledged_frames_behind_ends_the_log(void **state)
{
    (void)state;
    struct io_machine_id here = this_machine();
    struct io_machine_id elsewhere = here;
    elsewhere.boot_id[3] ^= 1;
    struct io_machine_id remounted = here;
    remounted.mount_id++;
    struct io_machine_id unknown = here;
    unknown.mount_id = 0;

    /* Each frame is 3 granules: the last one starts 6 granules behind the hole. */
    const struct {
        const struct io_machine_id *owner;
        uint16_t back;
        bool damage;
    } cases[] = {
        {&here, FRAME_BACK_NO_CLAIM, false},
        {&here, 7, false},
        {&here, 6, false},
        {&here, 5, true},
        {&here, 0, true},
        {&here, 60000, false},
        {&elsewhere, 0, false},
        {&remounted, 0, false},
        {&unknown, 0, false},
    };

    for (size_t i = 0; i < COUNTOF(cases); i++) {
        struct sample_log *log = log_with_hole(cases[i].back, cases[i].owner);
        assert_int_equal(log->frames[1], 48);
        write_logs(1);
        if (cases[i].damage) {
            expect_corrupt("log-000001", LOG_HEADER_BYTES + log->frames[2]);
        } else {
            expect_end(1, lsn_at(log, 2));
            sample_recovered_fini(&out);
        }
    }
}

static void
unknown_machine_id(struct io *asked, struct io_machine_id *id_out)
{
    (void)asked;
    memset(id_out, 0, sizeof *id_out);
}

static void
recover__an_unknown_mount_proves_nothing(void **state)
{
    (void)state;
    /* Both sides say 0: not known, which is not the same as equal. */
    struct io_machine_id unknown = {.mount_id = 0};
    const struct io_ops *real = io->ops;
    struct io_ops ops = *real;
    ops.machine_id = unknown_machine_id;
    io->ops = &ops;
    struct sample_log *log = log_with_hole(0, &unknown);
    write_logs(1);
    expect_end(1, lsn_at(log, 2));
    sample_recovered_fini(&out);
    io->ops = real;
}

static void
recover__what_a_frame_contains_is_not_searched(void **state)
{
    (void)state;
    /* A value holds, at the right place, the bytes of a SEAL frame. */
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 20, 0);
    sample_batch(log, 2, 20, 0);
    uint64_t frame = log->at;
    sample_batch(log, 3, 100, FRAME_BACK_NO_CLAIM);
    log->at = frame + 48;
    uint64_t lsn = sample_lsn(log);
    le64_store(log->space + log->at + 16, lsn);
    frame_seal(log->space + log->at, 32, FRAME_SEAL, 0, log_file_seed(&log->header), lsn);
    frame_seal(log->space + frame, log->frames[3] - frame, FRAME_BATCH, FRAME_BACK_NO_CLAIM,
               log_file_seed(&log->header), log->header.base_lsn + frame / LSN_BYTES);
    log->at = log->frames[3];
    break_frame(log, 1);
    write_logs(1);
    expect_end(1, lsn_at(log, 1));
    sample_recovered_fini(&out);
}

static void
recover__a_synced_hole_is_damage(void **state)
{
    (void)state;
    struct io_machine_id nobody = {.mount_id = 0};
    struct sample_log *log = log_with_hole(FRAME_BACK_NO_CLAIM, &nobody);
    uint64_t hole = LOG_HEADER_BYTES + log->frames[2];
    input.durable_lsn = lsn_at(log, 2);
    write_logs(1);
    expect_end(1, lsn_at(log, 2));
    sample_recovered_fini(&out);
    input.durable_lsn = lsn_at(log, 2) + 1;
    expect_corrupt("log-000001", hole);
    input.durable_lsn = 0;

    sample_mark(log, lsn_at(log, 2)); /* says only that the frames before the hole were synced */
    write_logs(1);
    expect_end(1, lsn_at(log, 2));
    sample_recovered_fini(&out);
    sample_mark(log, lsn_at(log, 2) + 2);
    write_logs(1);
    expect_corrupt("log-000001", hole);

    log = log_with_hole(FRAME_BACK_NO_CLAIM, &nobody);
    sample_seal(log);
    write_logs(1);
    expect_corrupt("log-000001", hole);
}

static void
recover__a_lost_end_below_the_durable_point_is_damage(void **state)
{
    (void)state;
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 20, 0);
    write_logs(1);
    input.durable_lsn = sample_lsn(log);
    expect_end(1, sample_lsn(log));
    assert_int_equal(out.durable_lsn, out.end_lsn);
    sample_recovered_fini(&out);
    input.durable_lsn = sample_lsn(log) + 2;
    expect_corrupt("log-000001", LOG_HEADER_BYTES + log->at);
    sample_pad(log);
    write_logs(1);
    input.durable_lsn = sample_lsn(log) + 2; /* the log is full, so another one is lost */
    expect_corrupt("log-000001", LOG_HEADER_BYTES + 4096);
    input.durable_lsn = 0;
    input.wal_min_lsn = sample_lsn(log) + 2;
    expect_corrupt("log-000001", LOG_HEADER_BYTES + 4096);
}

static void
recover__proofs_in_later_logs_count(void **state)
{
    (void)state;
    struct io_machine_id here = this_machine();
    for (int proof = 0; proof < 6; proof++) {
        struct sample_log *first = next_log(0);
        sample_batch(first, 1, 20, 0);
        sample_batch(first, 2, 20, 0);
        sample_pad(first);
        struct sample_log *second = next_log(1);
        second->header.durable_lsn = proof == 1 ? lsn_at(first, 1) + 2 : lsn_at(first, 1);
        if (proof == 4) {
            own(second, &here);
        }
        sample_batch(second, 3, 20, proof == 4 || proof == 5 ? 0 : FRAME_BACK_NO_CLAIM);
        if (proof == 2) {
            sample_mark(second, lsn_at(first, 1) + 2);
        } else if (proof == 3) {
            sample_seal(second);
        }
        break_frame(first, 1);
        write_logs(2);
        if (proof >= 1 && proof <= 4) {
            expect_corrupt("log-000001", LOG_HEADER_BYTES + first->frames[1]);
        } else {
            expect_end(1, lsn_at(first, 1)); /* the second log's rows were never acknowledged */
            assert_int_equal(out.spare_count, 1);
            assert_int_equal(out.next_base_lsn, 512 + 1024);
            sample_recovered_fini(&out);
        }
    }
}

static void
recover__reopen_says_who_wrote_the_rest(void **state)
{
    (void)state;
    struct io_machine_id here = this_machine();
    struct io_machine_id before = {.mount_id = 77};
    for (int now = 0; now < 2; now++) {
        struct sample_log *log = next_log(0);
        own(log, now != 0 ? &before : &here);
        sample_seal(log);
        sample_reopen(log, now != 0 ? &here : &before);
        sample_batch(log, 1, 20, 0);
        sample_batch(log, 2, 20, 0);
        sample_batch(log, 3, 20, 0);
        break_frame(log, 3);
        write_logs(1);
        if (now != 0) {
            expect_corrupt("log-000001", LOG_HEADER_BYTES + log->frames[3]);
        } else {
            expect_end(1, lsn_at(log, 3));
            sample_recovered_fini(&out);
        }
    }
}

static void
recover__a_reopen_found_behind_the_hole_counts_too(void **state)
{
    (void)state;
    struct io_machine_id here = this_machine();
    struct io_machine_id before = {.mount_id = 77};
    struct sample_log *log = next_log(0);
    own(log, &before);
    sample_batch(log, 1, 20, 0);
    sample_batch(log, 2, 20, 0);
    sample_reopen(log, &here);
    sample_batch(log, 3, 20, 0);
    break_frame(log, 1);
    write_logs(1);
    expect_corrupt("log-000001", LOG_HEADER_BYTES + log->frames[1]);
}

/* ---- Nonsense under a good checksum --------------------------------------------- */

static void
recover__one_flipped_bit_is_corrected_only_at_the_end_of_all(void **state)
{
    (void)state;
    /* In the last frame of a full log and in the first of the next: the second one was never acknowledged
     * by anything, and a log that ends in the middle of the chain could not be told from a hole later. */
    struct sample_log *first = next_log(0);
    sample_batch(first, 1, 20, 0);
    sample_pad(first);
    struct sample_log *second = next_log(1);
    sample_batch(second, 2, 20, 0);
    first->space[first->frames[1] + 4] ^= 8;
    second->space[20] ^= 1;
    write_logs(2);
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.log_count, 1);
    assert_int_equal(out.end_lsn, 1024);
    assert_int_equal(out.corrected_frames, 1);
    assert_int_equal(out.corrected_lsn, lsn_at(first, 1));
    uint64_t base_lsn = out.next_base_lsn;
    sample_recovered_fini(&out);

    /* What the engine begins then, and writes, is not lost by the next recovery. */
    struct sample_log *next = &logs[2];
    sample_log_init(next, 3, 3, 1, base_lsn, 4096);
    next->header.prev_end_lsn = 1024;
    sample_batch(next, 3, 20, 0);
    write_logs(3);
    assert_int_equal(wal_recover(&input, &out), ESKER_OK);
    assert_int_equal(out.log_count, 2);
    assert_int_equal(out.end_lsn, sample_lsn(next));
    sample_recovered_fini(&out);
}

static void
recover__good_checksums_do_not_excuse_nonsense(void **state)
{
    (void)state;
    for (int n = 0; n < 10; n++) {
        struct io_machine_id id = {.mount_id = 1};
        struct sample_log *log = next_log(0);
        esker_status expected = ESKER_CORRUPT;
        sample_batch(log, 1, 20, 0);
        uint8_t *body = log->space + log->at + FRAME_HEADER_BYTES;
        switch (n) {
        case 0:
            sample_mark(log, sample_lsn(log) + 2);
            break;
        case 1:
            sample_words(log, FRAME_SEAL, sample_lsn(log) - 2, 0);
            break;
        case 2:
            sample_reopen(log, &id);
            break;
        case 3:
            sample_frame(log, FRAME_SYNCMARK, 0, 32);
            break;
        case 4:
            sample_frame(log, FRAME_SEAL, 0, 0);
            break;
        case 5:
            sample_frame(log, FRAME_LARGE, 0, 16);
            expected = ESKER_UNSUPPORTED;
            break;
        case 6:
            body[0] = ENTRY_PUT; /* an empty key */
            sample_frame(log, FRAME_BATCH, 0, 32);
            break;
        case 7:
            body[0] = ENTRY_MERGE;
            body[2] = 1;
            sample_frame(log, FRAME_BATCH, 0, 32);
            expected = ESKER_UNSUPPORTED;
            break;
        case 8:
            sample_frame(log, FRAME_EDIT, 0, 32);
            expected = ESKER_UNSUPPORTED;
            break;
        default:
            sample_seal(log);
            sample_batch(log, 2, 20, 0); /* without a REOPEN */
            break;
        }
        write_logs(1);
        assert_int_equal(wal_recover(&input, &out), expected);
        assert_string_equal(status_last()->file, "log-000001");
        assert_in_range(status_last()->offset, LOG_HEADER_BYTES + log->frames[1],
                        LOG_HEADER_BYTES + log->frames[2] + 32);
        assert_int_equal(sample_images, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RECOVER_TEST(recover__a_fresh_log_is_empty),
        RECOVER_TEST(recover__rows_come_back),
        RECOVER_TEST(recover__a_full_log_ends_with_its_space),
        RECOVER_TEST(recover__a_seal_may_be_continued),
        RECOVER_TEST(recover__a_seal_with_frames_behind_is_not_continued),
        RECOVER_TEST(recover__stale_frames_of_a_recycled_file_do_not_count),
        RECOVER_TEST(recover__a_hole_with_unacknowledged_frames_behind_ends_the_log),
        RECOVER_TEST(recover__an_unknown_mount_proves_nothing),
        RECOVER_TEST(recover__what_a_frame_contains_is_not_searched),
        RECOVER_TEST(recover__a_synced_hole_is_damage),
        RECOVER_TEST(recover__a_lost_end_below_the_durable_point_is_damage),
        RECOVER_TEST(recover__proofs_in_later_logs_count),
        RECOVER_TEST(recover__reopen_says_who_wrote_the_rest),
        RECOVER_TEST(recover__a_reopen_found_behind_the_hole_counts_too),
        RECOVER_TEST(recover__one_flipped_bit_is_corrected_only_at_the_end_of_all),
        RECOVER_TEST(recover__good_checksums_do_not_excuse_nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
