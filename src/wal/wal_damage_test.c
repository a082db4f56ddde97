/* SPDX-License-Identifier: MIT */
/*
 * Goal: whatever happens to the bytes of a log, recovery reports damage below a
 * proof, ends the log otherwise, and never hands over a row that was not written.
 * Method: five samples; every bit flipped, every tail zeroed, granules and
 * sectors overwritten, frames swapped, random pairs of flips. What must come out
 * is said by a second, naive reading of the rules that knows where the frames
 * are: `expect`.
 */
#include "base/rng.h"

#include "wal/wal_recover_fixture.h"

/* ---- Samples ----------------------------------------------------------------- */

static struct sample_log broken[SAMPLE_LOGS_MAX]; /* logs, as damaged */
static size_t log_total;
static size_t chain[SAMPLE_LOGS_MAX]; /* indices of the needed logs */
static size_t chain_len;

static void
take_chain(size_t count, const size_t *indices)
{
    chain_len = count;
    memcpy(chain, indices, count * sizeof *indices);
}

/* Batches and marks; nobody's machine. */
static void
make_marked(void)
{
    static const size_t only[] = {0};
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 30, 0);
    sample_batch(log, 2, 5, 0);
    sample_mark(log, lsn_at(log, 1));
    sample_batch(log, 3, 0, 0);
    sample_batch(log, 4, 100, 0);
    sample_mark(log, lsn_at(log, 4));
    sample_batch(log, 5, 40, 0);
    sample_batch(log, 6, 41, 0);
    sample_batch(log, 7, 42, 0);
    log_total = 1;
    take_chain(1, only);
}

/* Claims of this machine, of 0 to 9 granules, some without. */
static void
make_claimed(void)
{
    struct io_machine_id here = this_machine();
    make_marked();
    struct sample_log *log = next_log(0);
    own(log, &here);
    for (uint32_t i = 0; i < 12; i++) {
        sample_batch(log, i, i * 5, i % 4 == 3 ? FRAME_BACK_NO_CLAIM : (uint16_t)(i * 7 % 10));
    }
}

/* Sealed elsewhere, continued here, sealed again. */
static void
make_sealed(void)
{
    struct io_machine_id here = this_machine();
    make_marked();
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 30, 0);
    sample_seal(log);
    sample_reopen(log, &here);
    sample_batch(log, 2, 30, 3);
    sample_batch(log, 3, 9, 0);
    sample_batch(log, 4, 9, 2);
    sample_mark(log, lsn_at(log, 4));
    sample_seal(log);
}

/* The last close, without its end: what a killed process leaves. */
static void
make_reopened(void)
{
    struct io_machine_id here = this_machine();
    make_marked();
    struct sample_log *log = next_log(0);
    sample_batch(log, 1, 30, 0);
    sample_seal(log);
    sample_reopen(log, &here);
    sample_batch(log, 2, 30, 3);
    sample_batch(log, 3, 9, 0);
}

/* A full log, another, one prepared ahead; a mark and claims in the second. */
static void
make_chained(void)
{
    static const size_t all[] = {0, 1, 2};
    struct io_machine_id here = this_machine();
    struct sample_log *first = next_log(0);
    own(first, &here);
    sample_batch(first, 1, 30, 0);
    sample_batch(first, 2, 30, 2);
    sample_batch(first, 3, 30, 2);
    sample_pad(first);
    struct sample_log *second = next_log(1);
    own(second, &here);
    second->header.durable_lsn = lsn_at(first, 1);
    sample_batch(second, 4, 3, FRAME_BACK_NO_CLAIM);
    sample_mark(second, lsn_at(first, 2));
    sample_batch(second, 5, 3, 1);
    sample_batch(second, 6, 3, 7);
    next_log(2);
    log_total = 3;
    take_chain(3, all);
}

/* As a recovery left it: a tail and a log given up, a new log begun. */
static void
make_cut(void)
{
    static const size_t needed[] = {0, 2};
    struct io_machine_id here = this_machine();
    make_chained();
    struct sample_log *next = next_log(2);
    own(next, &here);
    next->header.prev_gen = 1;
    next->header.prev_end_lsn = lsn_at(&logs[0], 2);
    sample_batch(next, 7, 30, FRAME_BACK_NO_CLAIM);
    sample_batch(next, 8, 30, 3);
    take_chain(2, needed);
}

/* The same, but the log that was ended had been full. */
static void
make_cut_full(void)
{
    static const size_t needed[] = {0, 2};
    make_cut();
    logs[2].header.prev_end_lsn = 1024;
    take_chain(2, needed);
}

/* ---- The naive reading ---------------------------------------------------------- */

struct expected {
    bool corrupt;
    size_t log;  /* of the end or the damage: an index into logs */
    uint64_t at; /* offset there */
    bool sealed;
    uint32_t corrected; /* frames; at most one per log */
    size_t kept;        /* logs of the chain */
};

struct view {
    const struct sample_log *good, *bad;
    uint64_t limit;
    bool cut;
};

static struct view
view_of(size_t position)
{
    struct view view = {.good = &logs[chain[position]], .bad = &broken[chain[position]]};
    view.limit = view.good->header.cap_bytes;
    if (position + 1 < chain_len) {
        view.limit = (logs[chain[position + 1]].header.prev_end_lsn - view.good->header.base_lsn) * LSN_BYTES;
    }
    view.cut = view.limit < view.good->header.cap_bytes;
    if (position + 1 < chain_len) {
        const struct log_header *next = &logs[chain[position + 1]].header;
        view.cut = view.cut || next->base_lsn > next->prev_end_lsn;
    }
    return view;
}

/* How many bits of frame k differ; of a PAD only its header counts. */
static unsigned
frame_differs(const struct view *view, size_t k)
{
    uint64_t from = view->good->frames[k];
    bool pad = view->good->space[from + 4] == FRAME_PAD;
    uint64_t to = pad ? from + FRAME_HEADER_BYTES : view->good->frames[k + 1];
    unsigned bits = 0;
    for (uint64_t at = from; at < to; at++) {
        bits += (unsigned)__builtin_popcount(view->good->space[at] ^ view->bad->space[at]);
    }
    return bits;
}

static struct io_machine_id
owner_of(const struct view *view, size_t k, struct io_machine_id before)
{
    const uint8_t *frame = view->good->space + view->good->frames[k];
    if (frame[4] == FRAME_REOPEN) {
        memcpy(before.boot_id, frame + 16, 16);
        before.mount_id = le64_load(frame + 32);
    }
    return before;
}

static struct io_machine_id
owner_of_header(const struct view *view)
{
    struct io_machine_id id = {.mount_id = view->good->header.mount_id};
    memcpy(id.boot_id, view->good->header.boot_id, sizeof id.boot_id);
    return id;
}

static bool
proves(const struct view *view, size_t k, const struct io_machine_id *owner, uint64_t bad_lsn)
{
    const uint8_t *frame = view->good->space + view->good->frames[k];
    struct io_machine_id here = this_machine();
    uint16_t back = le16_load(frame + 6);
    if (frame[4] == FRAME_SEAL) {
        return true;
    }
    if (frame[4] == FRAME_SYNCMARK && le64_load(frame + 16) > bad_lsn) {
        return true;
    }
    return back != FRAME_BACK_NO_CLAIM && memcmp(owner, &here, sizeof here) == 0 && here.mount_id != 0 &&
           lsn_at(view->good, k) - 2U * back > bad_lsn;
}

/* Intact frames behind frame k (or the end) of the log at `position`. */
static void
look_behind(size_t position, size_t k, struct io_machine_id owner, uint64_t bad_lsn, bool *any, bool *proof)
{
    *any = false;
    *proof = false;
    for (size_t p = position; p < chain_len; p++) {
        struct view view = view_of(p);
        size_t from = p == position ? k + 1 : 0;
        owner = p == position ? owner : owner_of_header(&view);
        for (size_t i = from; i < view.good->frame_count && view.good->frames[i] < view.limit; i++) {
            if (frame_differs(&view, i) == 0) {
                owner = owner_of(&view, i, owner);
                *any = true;
                *proof = *proof || proves(&view, i, &owner, bad_lsn);
            }
        }
    }
}

static uint64_t
headers_durable(void)
{
    uint64_t durable = input.durable_lsn;
    for (size_t i = 0; i < log_total; i++) {
        durable = MAX(durable, logs[i].header.durable_lsn);
    }
    return durable;
}

static struct expected
expect(void)
{
    struct expected result = {0};
    uint64_t durable = headers_durable();
    uint8_t last_type = 0;
    bool last_corrected = false;
    bool any = false;
    bool ended = false;
    for (size_t p = 0; p < chain_len && !ended; p++) {
        struct view view = view_of(p);
        struct io_machine_id owner = owner_of_header(&view);
        uint64_t at = 0;
        size_t k = 0;
        last_corrected = false;
        for (; at < view.limit; k++) {
            bool exists = k < view.good->frame_count;
            unsigned differs = exists ? frame_differs(&view, k) : 99;
            uint64_t lsn = view.good->header.base_lsn + at / LSN_BYTES;
            if (differs != 0) {
                bool proof;
                bool closes = differs == 1 && view.cut && view.good->frames[k + 1] == view.limit;
                if (differs == 1) {
                    owner = owner_of(&view, k, owner);
                }
                look_behind(p, exists ? k : k - 1, owner, lsn, &any, &proof);
                if (durable > lsn || (proof && !closes)) {
                    return (struct expected){.corrupt = true, .log = chain[p], .at = at};
                }
                if (differs != 1 || (any && !closes) || last_corrected) {
                    break;
                }
                result.corrected++;
                last_corrected = true;
                ended = !closes;
            }
            const uint8_t *frame = view.good->space + at;
            last_type = frame[4];
            durable = last_type == FRAME_SYNCMARK ? MAX(durable, le64_load(frame + 16)) : durable;
            owner = owner_of(&view, k, owner);
            at = view.good->frames[k + 1];
        }
        if (k > 0 || p == 0) {
            result.kept = p + 1;
            result.log = chain[p];
            result.at = at;
            result.sealed = last_type == FRAME_SEAL && !view.cut && !last_corrected && !any;
        }
        if (at < view.limit) {
            result.sealed = result.sealed && !any;
            break;
        }
    }
    return result;
}

/* ---- Comparing --------------------------------------------------------------- */

static void
check_rows(const struct wal_recovered_log *recovered)
{
    const struct sample_log *good = &logs[recovered->log->number - 1];
    uint64_t used = (recovered->end_lsn - good->header.base_lsn) * LSN_BYTES;
    for (size_t k = 0; k < good->frame_count && good->frames[k] < used; k++) {
        uint64_t from = good->frames[k];
        uint64_t to = good->space[from + 4] == FRAME_PAD ? from + FRAME_HEADER_BYTES : good->frames[k + 1];
        assert_memory_equal(recovered->image + from, good->space + from, to - from);
    }
    for (uint64_t at = used; at < good->header.cap_bytes; at++) {
        assert_int_equal(recovered->image[at], 0);
    }
}

static void
check(const char *what, uint64_t where)
{
    struct expected expected = expect();
    esker_status status = wal_recover(&input, &out);
    char name[40];
    log_file_name(logs[expected.log].number, name);
    if (expected.corrupt) {
        if (status != ESKER_CORRUPT || strcmp(status_last()->file, name) != 0 ||
            status_last()->offset != LOG_HEADER_BYTES + expected.at) {
            fail_msg("%s at %llu: expected damage at %llu of %s", what, (unsigned long long)where,
                     (unsigned long long)expected.at, name);
        }
        assert_int_equal(sample_images, 0);
        return;
    }
    uint64_t end_lsn = logs[expected.log].header.base_lsn + expected.at / LSN_BYTES;
    if (status != ESKER_OK || out.end_lsn != end_lsn || out.sealed != expected.sealed ||
        out.corrected_frames != expected.corrected || out.log_count != expected.kept) {
        fail_msg("%s at %llu: %s; ends at %llu, not %llu; sealed %d %d, corrected %u %u, logs %u %u", what,
                 (unsigned long long)where, status == ESKER_OK ? "OK" : status_last()->message,
                 (unsigned long long)out.end_lsn, (unsigned long long)end_lsn, out.sealed, expected.sealed,
                 out.corrected_frames, expected.corrected, (unsigned)out.log_count, (unsigned)expected.kept);
    }
    for (size_t i = 0; i < out.log_count; i++) {
        check_rows(&out.logs[i]);
    }
    assert_true(out.durable_lsn <= out.end_lsn);
    sample_recovered_fini(&out);
}

static void
damage_begin(void)
{
    for (size_t i = 0; i < log_total; i++) {
        broken[i] = logs[i];
    }
    write_logs(log_total);
}

static void
put_and_check(size_t log_idx, const char *what, uint64_t where)
{
    sample_write(disk, &broken[log_idx]);
    check(what, where);
}

static void
restore(size_t log_idx)
{
    broken[log_idx] = logs[log_idx];
    sample_write(disk, &broken[log_idx]);
}

/* ---- Kinds of damage ------------------------------------------------------------ */

static void
flip(struct sample_log *log, uint64_t bit)
{
    log->space[bit / 8] ^= (uint8_t)(1U << (bit % 8));
}

static uint64_t
used_bytes(size_t log_idx)
{
    return MIN(logs[log_idx].at + 64, logs[log_idx].header.cap_bytes);
}

static void
damage_every_bit(void)
{
    for (size_t i = 0; i < log_total; i++) {
        for (uint64_t bit = 0; bit < used_bytes(i) * 8; bit++) {
            flip(&broken[i], bit);
            put_and_check(i, "flipped bit", bit);
            flip(&broken[i], bit);
        }
        restore(i);
    }
}

static void
damage_tails_and_holes(void)
{
    static const uint64_t lengths[] = {1, 48, 512, SAMPLE_SPACE_MAX};
    for (size_t i = 0; i < log_total; i++) {
        for (size_t k = 0; k < COUNTOF(lengths) * 2; k++) {
            for (uint64_t at = 0; at < used_bytes(i); at += k < 2 ? 1 : 5) {
                uint64_t len = MIN(lengths[k / 2], logs[i].header.cap_bytes - at);
                memset(broken[i].space + at, k % 2 == 0 ? 0 : 0xC3, len);
                put_and_check(i, k % 2 == 0 ? "zeros" : "garbage", at);
                restore(i);
            }
        }
    }
}

static void
damage_pairs(void)
{
    struct rng rng = {.state = 11};
    for (unsigned n = 0; n < 2000; n++) {
        size_t i = (size_t)rng_below(&rng, log_total);
        size_t k = (size_t)rng_below(&rng, log_total);
        uint64_t a = rng_below(&rng, used_bytes(i) * 8);
        uint64_t b = rng_below(&rng, used_bytes(k) * 8);
        flip(&broken[i], a);
        flip(&broken[k], b);
        sample_write(disk, &broken[k]);
        put_and_check(i, "pair of flips, the first", a);
        restore(i);
        restore(k);
    }
}

static void
damage_swapped_frames(void)
{
    for (size_t i = 0; i < log_total; i++) {
        const struct sample_log *log = &logs[i];
        for (size_t a = 0; a < log->frame_count; a++) {
            for (size_t b = a + 1; b < log->frame_count; b++) {
                uint64_t len = log->frames[a + 1] - log->frames[a];
                if (len == log->frames[b + 1] - log->frames[b]) {
                    memcpy(broken[i].space + log->frames[a], log->space + log->frames[b], len);
                    memcpy(broken[i].space + log->frames[b], log->space + log->frames[a], len);
                    put_and_check(i, "swapped frames, the first", a);
                    restore(i);
                }
            }
        }
    }
}

/* One header page is as good as two; cut files are damage, wherever cut. */
static void
damage_files(void)
{
    for (size_t i = 0; i < log_total; i++) {
        char name[40];
        log_file_name(logs[i].number, name);
        for (uint64_t bit = 0; bit < (uint64_t)LOG_HEADER_FIELDS_BYTES * 8; bit++) {
            for (uint64_t page = 0; page < 2; page++) {
                sim_disk_flip(disk, name, page * LOG_PAGE_BYTES * 8 + bit);
                check("header bit", bit);
                sim_disk_flip(disk, name, page * LOG_PAGE_BYTES * 8 + bit);
            }
            sim_disk_flip(disk, name, bit);
            sim_disk_flip(disk, name, (uint64_t)LOG_PAGE_BYTES * 8 + bit);
            assert_int_equal(wal_recover(&input, &out), ESKER_CORRUPT);
            assert_string_equal(status_last()->file, name);
            restore(i);
        }
        for (uint64_t len = 0; len < LOG_HEADER_BYTES + logs[i].header.cap_bytes; len += 33) {
            sim_disk_resize(disk, name, len);
            assert_int_equal(wal_recover(&input, &out), ESKER_CORRUPT);
            assert_string_equal(status_last()->file, name);
            restore(i);
        }
    }
}

typedef void make_fn(void);

static void
damage_all(make_fn *make)
{
    make();
    damage_begin();
    check("no damage", 0);
    damage_every_bit();
    damage_tails_and_holes();
    damage_pairs();
    damage_swapped_frames();
    damage_files();
    input.durable_lsn = lsn_at(&logs[chain[chain_len - 1]], 0) + 2;
    check("no damage, a durable point", 0);
    damage_pairs();
}

static void
damage__marked_log(void **state)
{
    (void)state;
    damage_all(make_marked);
}

static void
damage__claimed_log(void **state)
{
    (void)state;
    damage_all(make_claimed);
}

static void
damage__sealed_log(void **state)
{
    (void)state;
    damage_all(make_sealed);
}

static void
damage__reopened_log(void **state)
{
    (void)state;
    damage_all(make_reopened);
}

static void
damage__chain(void **state)
{
    (void)state;
    damage_all(make_chained);
}

static void
damage__chain_with_a_discarded_tail(void **state)
{
    (void)state;
    damage_all(make_cut);
}

static void
damage__chain_behind_a_full_log_that_a_recovery_ended(void **state)
{
    (void)state;
    damage_all(make_cut_full);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RECOVER_TEST(damage__marked_log),
        RECOVER_TEST(damage__claimed_log),
        RECOVER_TEST(damage__sealed_log),
        RECOVER_TEST(damage__reopened_log),
        RECOVER_TEST(damage__chain),
        RECOVER_TEST(damage__chain_with_a_discarded_tail),
        RECOVER_TEST(damage__chain_behind_a_full_log_that_a_recovery_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
