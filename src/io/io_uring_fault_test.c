/* SPDX-License-Identifier: MIT */
/*
 * Goal: a ring that fails after it has worked, completions that are short or
 * say EINTR or EAGAIN, too little memory for a ring of full size, and a
 * submission queue that is full change no result, and are told.
 * Method: the back-end itself, with the library's calls replaced by ones that
 * fail on request. Every batch is also run by plain calls, on the same files.
 */
#include <errno.h>
#include <liburing.h>

/* What is to go wrong; all zero: nothing. */
static struct {
    unsigned most_entries; /* a larger ring finds no memory */
    int enter_errno;       /* what entering the kernel fails with, */
    int enters_left;       /* so many times; -1: always */
    int enters_good;       /* after so many that work */
    int cqe_result;        /* what completions say instead, negated errno; 1: half of what was done */
    int cqes_left;         /* so many of them */
    unsigned most_sqes;    /* the submission queue is full from so many on */
    unsigned fired;
} ring_fault;

static int
faulty_queue_init(unsigned entries, struct io_uring *ring, unsigned flags)
{
    if (ring_fault.most_entries != 0 && entries > ring_fault.most_entries) {
        ring_fault.fired++;
        return -ENOMEM;
    }
    return io_uring_queue_init(entries, ring, flags);
}

static struct io_uring_sqe *
faulty_get_sqe(struct io_uring *ring)
{
    if (ring_fault.most_sqes != 0 && io_uring_sq_ready(ring) >= ring_fault.most_sqes) {
        ring_fault.fired++;
        return NULL;
    }
    return io_uring_get_sqe(ring);
}

/* Completions are changed where the kernel has put them. */
static void
faulty_completions(struct io_uring *ring)
{
    struct io_uring_cqe *cqe;
    unsigned head;
    io_uring_for_each_cqe(ring, head, cqe)
    {
        bool shortens = ring_fault.cqe_result == 1;
        if (ring_fault.cqe_result != 0 && ring_fault.cqes_left > 0 && (!shortens || cqe->res > 1)) {
            cqe->res = shortens ? cqe->res / 2 : ring_fault.cqe_result;
            ring_fault.cqes_left--;
            ring_fault.fired++;
        }
    }
}

static int
faulty_submit_and_wait(struct io_uring *ring, unsigned wait)
{
    if (ring_fault.enter_errno != 0 && ring_fault.enters_good-- <= 0 && ring_fault.enters_left != 0) {
        ring_fault.enters_left -= ring_fault.enters_left > 0;
        ring_fault.fired++;
        return -ring_fault.enter_errno;
    }
    int result = io_uring_submit_and_wait(ring, wait);
    faulty_completions(ring);
    return result;
}

#define io_uring_queue_init faulty_queue_init
#define io_uring_get_sqe faulty_get_sqe
#define io_uring_submit_and_wait faulty_submit_and_wait
#include "io/io_uring.c"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/test_dir.h"

enum { FAULT_PIECES = 150, FAULT_PIECE = 4096, FAULT_SYNCS = 5 };

static char fault_dir[64];

static int
fault_setup(void **state)
{
    (void)state;
    snprintf(fault_dir, sizeof fault_dir, "./io_uring_fault_test_XXXXXX");
    return mkdtemp(fault_dir) != NULL ? 0 : -1;
}

static int
fault_teardown(void **state)
{
    (void)state;
    return test_dir_remove(fault_dir);
}

/* Clean pages leave the cache, so that reads go through the ring. */
static void
fault_drop_cache(void)
{
    char path[128];
    snprintf(path, sizeof path, "%s/data", fault_dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
}

/* Reads in odd places, one beyond the end, and syncs. */
static void
fault_batch(struct io *io, uint8_t *got, esker_status *status_out, uint64_t *results_out)
{
    struct io_file *data = NULL, *others[FAULT_SYNCS] = {NULL};
    struct io_req reqs[FAULT_PIECES + FAULT_SYNCS];
    assert_int_equal(io_open_file(io, "data", IO_OPEN_READ, &data), ESKER_OK);
    fault_drop_cache();
    memset(got, 0, (size_t)FAULT_PIECES * FAULT_PIECE);
    for (size_t i = 0; i < FAULT_PIECES; i++) {
        size_t place = i * 67 % FAULT_PIECES;
        reqs[i] = (struct io_req){.op = IO_READ,
                                  .file = data,
                                  .offset = place * FAULT_PIECE,
                                  .data = got + place * FAULT_PIECE,
                                  .len = FAULT_PIECE};
    }
    for (size_t i = 0; i < FAULT_SYNCS; i++) {
        char name[16];
        snprintf(name, sizeof name, "other%zu", i);
        assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &others[i]), ESKER_OK);
        assert_int_equal(io_write_full(io, others[i], 0, name, sizeof name), ESKER_OK);
        reqs[FAULT_PIECES + i] = (struct io_req){.op = IO_SYNC, .file = others[i]};
    }
    *status_out = io_run_full(io, reqs, COUNTOF(reqs));
    *results_out = 0;
    for (size_t i = 0; i < COUNTOF(reqs); i++) {
        *results_out = *results_out * 31 + (uint64_t)(int64_t)reqs[i].result;
    }
    for (size_t i = 0; i < FAULT_SYNCS; i++) {
        io_close_file(io, others[i]);
    }
    io_close_file(io, data);
}

/* The same by the ring, with what is to go wrong, and by plain calls. */
static void
fault_compare(struct io *ring)
{
    static uint8_t by_ring[FAULT_PIECES * FAULT_PIECE], by_calls[FAULT_PIECES * FAULT_PIECE];
    struct io *posix = NULL;
    esker_status ring_status, posix_status;
    uint64_t ring_results, posix_results;
    assert_int_equal(io_open_dir(fault_dir, false, ESKER_IO_POSIX, &mem_default, &posix), ESKER_OK);
    fault_batch(ring, by_ring, &ring_status, &ring_results);
    fault_batch(posix, by_calls, &posix_status, &posix_results);
    io_close_dir(posix);
    assert_int_equal(ring_status, ESKER_OK);
    assert_int_equal(posix_status, ESKER_OK);
    assert_int_equal(ring_results, posix_results);
    assert_memory_equal(by_ring, by_calls, sizeof by_ring);
}

static struct io *
fault_open(void)
{
    static uint8_t data[FAULT_PIECES * FAULT_PIECE];
    struct io *io = NULL;
    struct io_file *file = NULL;
    memset(&ring_fault, 0, sizeof ring_fault);
    assert_int_equal(io_open_dir(fault_dir, false, ESKER_IO_URING, &mem_default, &io), ESKER_OK);
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i / FAULT_PIECE * 31 + i);
    }
    assert_int_equal(io_open_file(io, "data", IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    assert_int_equal(io_write_full(io, file, 0, data, sizeof data), ESKER_OK);
    assert_int_equal(io_sync(io, file), ESKER_OK);
    io_close_file(io, file);
    return io;
}

static void
fault_expect(struct io *io, const char *label, const char *reason)
{
    const char *now = NULL;
    char why[96] = "";
    io_describe(io, &now, why, sizeof why);
    assert_string_equal(now, label);
    assert_string_equal(why, reason);
}

static void
ring__that_fails_later_is_told_and_replaced(void **state)
{
    (void)state;
    static const int errors[] = {ENOMEM, EPERM, EBADF, ENXIO, EOPNOTSUPP, EFAULT};
    for (size_t i = 0; i < 2 * COUNTOF(errors); i++) {
        char why[96];
        struct io *io = fault_open();
        fault_expect(io, "uring", "io_uring works (a probe was read)");
        fault_compare(io);
        ring_fault.enter_errno = errors[i / 2];
        ring_fault.enters_left = -1;
        ring_fault.enters_good = i % 2 == 0 ? 0 : 1; /* at submission; with some of them in flight */
        fault_compare(io);
        snprintf(why, sizeof why, "io_uring works, but a ring has failed: %s", strerror(errors[i / 2]));
        fault_expect(io, "uring", why);
        fault_compare(io); /* the other ring */
        snprintf(why, sizeof why, "io_uring worked and then failed: %s; using posix",
                 strerror(errors[i / 2]));
        fault_expect(io, "posix", why);
        unsigned fired = ring_fault.fired;
        assert_true(fired >= 2);
        fault_compare(io);
        assert_int_equal(ring_fault.fired, fired); /* a broken ring is not entered any more */
        io_close_dir(io);
        io = fault_open(); /* who opens anew gets a new ring */
        fault_expect(io, "uring", "io_uring works (a probe was read)");
        io_close_dir(io);
    }
}

static void
ring__that_fails_for_a_moment_goes_on(void **state)
{
    (void)state;
    static const int errors[] = {EINTR, EAGAIN, EBUSY, ENOMEM};
    for (size_t i = 0; i < COUNTOF(errors); i++) {
        struct io *io = fault_open();
        ring_fault.enter_errno = errors[i];
        ring_fault.enters_left = 5;
        fault_compare(io);
        assert_int_equal(ring_fault.fired, 5);
        fault_expect(io, "uring", "io_uring works (a probe was read)");
        io_close_dir(io);
    }
}

static void
completions__that_are_short_or_passing_errors_change_nothing(void **state)
{
    (void)state;
    static const int results[] = {1, -EINTR, -EAGAIN};
    static const int counts[] = {1, 7, 100};
    for (size_t i = 0; i < COUNTOF(results) * COUNTOF(counts); i++) {
        struct io *io = fault_open();
        ring_fault.cqe_result = results[i / COUNTOF(counts)];
        ring_fault.cqes_left = counts[i % COUNTOF(counts)];
        fault_compare(io);
        assert_true(ring_fault.fired > 0);
        fault_expect(io, "uring", "io_uring works (a probe was read)");
        io_close_dir(io);
    }
}

/* An error of the file is the file's, whoever meets it. */
static void
completions__that_fail_are_reported(void **state)
{
    (void)state;
    static uint8_t got[FAULT_PIECES * FAULT_PIECE];
    struct io *io = fault_open();
    esker_status status;
    uint64_t results;
    ring_fault.cqe_result = -EIO;
    ring_fault.cqes_left = 1;
    fault_batch(io, got, &status, &results);
    assert_int_equal(status, ESKER_IO);
    assert_int_equal(status_last()->os_errno, EIO);
    fault_compare(io);
    fault_expect(io, "uring", "io_uring works (a probe was read)");
    io_close_dir(io);
}

static void
memory__for_a_smaller_ring_is_enough(void **state)
{
    (void)state;
    for (unsigned most = URING_ENTRIES / 2; most >= URING_ENTRIES_MIN; most /= 2) {
        struct io *io = NULL;
        memset(&ring_fault, 0, sizeof ring_fault);
        ring_fault.most_entries = most;
        assert_int_equal(io_open_dir(fault_dir, false, ESKER_IO_URING, &mem_default, &io), ESKER_OK);
        assert_true(ring_fault.fired > 0);
        fault_expect(io, "uring", "io_uring works (a probe was read)");
        assert_int_equal(uring_pool.rings[0].entries, most);
        fault_compare(io);
        io_close_dir(io);
    }
    struct io *io = NULL;
    memset(&ring_fault, 0, sizeof ring_fault);
    ring_fault.most_entries = URING_ENTRIES_MIN - 1;
    assert_int_equal(io_open_dir(fault_dir, false, ESKER_IO_URING, &mem_default, &io), ESKER_OK);
    fault_expect(io, "posix", "io_uring refused: Cannot allocate memory; using posix");
    fault_compare(io);
    io_close_dir(io);
}

static void
queue__that_is_full_takes_the_rest_later(void **state)
{
    (void)state;
    static const unsigned most[] = {1, 2, 7, 63};
    for (size_t i = 0; i < COUNTOF(most); i++) {
        struct io *io = fault_open();
        ring_fault.most_sqes = most[i];
        fault_compare(io);
        assert_true(ring_fault.fired > 0);
        fault_expect(io, "uring", "io_uring works (a probe was read)");
        io_close_dir(io);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ring__that_fails_later_is_told_and_replaced),
        cmocka_unit_test(ring__that_fails_for_a_moment_goes_on),
        cmocka_unit_test(completions__that_are_short_or_passing_errors_change_nothing),
        cmocka_unit_test(completions__that_fail_are_reported),
        cmocka_unit_test(memory__for_a_smaller_ring_is_enough),
        cmocka_unit_test(queue__that_is_full_takes_the_rest_later),
    };
    return cmocka_run_group_tests(tests, fault_setup, fault_teardown);
}
