/* SPDX-License-Identifier: MIT */
/*
 * Goal: whatever happens to io_uring (refused at open, failing later, too few
 * rings, a fork), the same requests give the same results, nothing stays in
 * flight, and the reason is told.
 * Method: children with seccomp filters that make the ring's system calls
 * fail; interval timers; more threads than rings. Reads are of uncached bytes
 * and syncs of several files, since only those go through a ring.
 */
#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/test_dir.h"
#include "sync/mutex.h"

enum { FILES = 6, PIECES = 200, PIECE = 4096 };

static char dir[64];

static int
make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "./io_uring_test_XXXXXX");
    return mkdtemp(dir) != NULL ? 0 : -1;
}

static int
remove_dir(void **state)
{
    (void)state;
    return test_dir_remove(dir);
}

static struct io *
open_dir(void)
{
    struct io *io = NULL;
    assert_int_equal(io_open_dir(dir, false, ESKER_IO_AUTO, &mem_default, &io), ESKER_OK);
    return io;
}

static struct io_file *
open_file(struct io *io, const char *name)
{
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    return file;
}

/* The tests run where their directory is: an ordinary file system drops clean pages on request. */
static void
drop_cache(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    close(fd);
}

/* Returns false instead of asserting, so that children can use it too. */
static bool
batch_works(struct io *io, const char *name)
{
    static uint8_t data[PIECES * PIECE], got[PIECES * PIECE];
    struct io_req reqs[PIECES + FILES];
    struct io_file *files[FILES] = {NULL};
    bool good = true;
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i / PIECE * 31 + i);
    }
    memset(got, 0, sizeof got);
    for (size_t i = 0; i < FILES; i++) {
        char other[32];
        snprintf(other, sizeof other, "%s-%zu", name, i);
        good = good && io_open_file(io, other, IO_OPEN_WRITE | IO_OPEN_CREATE, &files[i]) == ESKER_OK;
    }
    good = good && io_write_full(io, files[0], 0, data, sizeof data) == ESKER_OK;
    good = good && io_sync(io, files[0]) == ESKER_OK;
    if (good) {
        char other[32];
        snprintf(other, sizeof other, "%s-0", name);
        drop_cache(other);
    }
    for (size_t i = 0; i < PIECES + FILES; i++) {
        size_t place = (i * 67) % PIECES;
        reqs[i] = i < PIECES ? (struct io_req){.op = IO_READ,
                                               .file = files[0],
                                               .offset = place * PIECE,
                                               .data = got + place * PIECE,
                                               .len = PIECE}
                             : (struct io_req){.op = IO_SYNC, .file = files[i - PIECES]};
        reqs[i].result = 12345;
    }
    for (size_t i = 1; good && i < FILES; i++) {
        good = io_write_full(io, files[i], 0, data, 100) == ESKER_OK;
    }
    if (good) {
        io->ops->run(io, reqs, PIECES + FILES);
    }
    for (size_t i = 0; good && i < PIECES + FILES; i++) {
        good = reqs[i].result == (i < PIECES ? PIECE : 0);
    }
    for (size_t i = 0; i < FILES; i++) {
        io_close_file(io, files[i]);
    }
    return good && memcmp(data, got, sizeof data) == 0;
}

/* ---- Seccomp ------------------------------------------------------------------ */

/* From now on `call` fails with that errno in this process. */
static bool
forbid(long call, int with_errno)
{
    struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)with_errno),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = COUNTOF(steps), .filter = steps};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

typedef bool child_fn(int number);

/* Runs it in a child, where failing must not reach the test's framework. */
static bool
child_says_yes(child_fn *run, int number)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        _exit(run(number) ? 0 : 1);
    }
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool
refused_at_open(int with_errno)
{
    struct io *io = NULL;
    if (!forbid(SYS_io_uring_setup, with_errno) ||
        io_open_dir(dir, false, ESKER_IO_URING, &mem_default, &io) != ESKER_OK) {
        return false;
    }
    char told[96];
    snprintf(told, sizeof told, "io_uring refused: %s; using posix", strerror(with_errno));
    bool good = strcmp(io->ops->label, "posix") == 0 && strcmp(io->reason, told) == 0 && batch_works(io, "r");
    io_close_dir(io);
    return good;
}

static void
io_uring__refusal_at_open_falls_back_to_posix(void **state)
{
    (void)state;
    static const int errors[] = {EPERM, ENOSYS, ENOMEM, EMFILE, EACCES, EINVAL};
    for (size_t i = 0; i < COUNTOF(errors); i++) {
        assert_true(child_says_yes(refused_at_open, errors[i]));
    }
}

/* The ring can be made but not used: the probe finds out. */
static bool
refused_at_probe(int with_errno)
{
    struct io *io = NULL;
    if (!forbid(SYS_io_uring_enter, with_errno) ||
        io_open_dir(dir, false, ESKER_IO_AUTO, &mem_default, &io) != ESKER_OK) {
        return false;
    }
    bool good = strcmp(io->ops->label, "posix") == 0 && batch_works(io, "p");
    io_close_dir(io);
    return good;
}

static void
io_uring__refusal_at_probe_falls_back_to_posix(void **state)
{
    (void)state;
    static const int errors[] = {EPERM, ENOSYS, ENOMEM, EAGAIN, EINTR};
    for (size_t i = 0; i < COUNTOF(errors); i++) {
        assert_true(child_says_yes(refused_at_probe, errors[i]));
    }
}

/* It worked at open and stops working later. */
static bool
refused_later(int with_errno)
{
    struct io *io = NULL;
    if (io_open_dir(dir, false, ESKER_IO_URING, &mem_default, &io) != ESKER_OK ||
        strcmp(io->ops->label, "uring") != 0 || !batch_works(io, "l") ||
        !forbid(SYS_io_uring_enter, with_errno)) {
        return false;
    }
    bool good = batch_works(io, "l") && batch_works(io, "l");
    io_close_dir(io);
    return good;
}

static void
io_uring__later_failure_is_done_by_plain_calls(void **state)
{
    (void)state;
    static const int errors[] = {EPERM, ENOSYS, ENOMEM, EAGAIN, EINTR, EBUSY, EBADR};
    for (size_t i = 0; i < COUNTOF(errors); i++) {
        assert_true(child_says_yes(refused_later, errors[i]));
    }
}

static bool
locked_memory_is_scarce(int bytes)
{
    struct rlimit limit = {.rlim_cur = (rlim_t)bytes, .rlim_max = (rlim_t)bytes};
    struct io *io = NULL;
    /* Root may lock what it likes; the directory must then belong to nobody too. */
    bool nobody =
        geteuid() != 0 || (chown(dir, 65534, 65534) == 0 && setgid(65534) == 0 && setuid(65534) == 0);
    if (!nobody || setrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
        return false;
    }
    esker_status status = io_open_dir(dir, false, ESKER_IO_AUTO, &mem_default, &io);
    if (status != ESKER_OK) {
        return access(dir, R_OK | W_OK | X_OK) != 0; /* a parent that only root may pass */
    }
    bool good = batch_works(io, "m");
    io_close_dir(io);
    return good;
}

static void
io_uring__locked_memory_limits_are_survived(void **state)
{
    (void)state;
    static const int limits[] = {0, 4096, 65536};
    for (size_t i = 0; i < COUNTOF(limits); i++) {
        assert_true(child_says_yes(locked_memory_is_scarce, limits[i]));
    }
    assert_true(geteuid() != 0 || chown(dir, 0, 0) == 0);
}

/* ---- Fork ---------------------------------------------------------------------- */

static int
count_rings(void)
{
    DIR *open_fds = opendir("/proc/self/fd");
    assert_non_null(open_fds);
    int rings = 0;
    for (struct dirent *entry = readdir(open_fds); entry != NULL; entry = readdir(open_fds)) {
        char target[64] = "";
        ssize_t len = readlinkat(dirfd(open_fds), entry->d_name, target, sizeof target - 1);
        rings += len > 0 && strcmp(target, "anon_inode:[io_uring]") == 0;
    }
    closedir(open_fds);
    return rings;
}

static struct io *inherited;

static bool
child_uses_parents_handle(int opens_its_own)
{
    if (opens_its_own != 0) {
        struct io *io = NULL;
        bool good = io_open_dir(dir, false, ESKER_IO_URING, &mem_default, &io) == ESKER_OK &&
                    strcmp(io->ops->label, "uring") == 0 && batch_works(io, "c");
        io_close_dir(io);
        if (!good) {
            return false;
        }
    }
    bool good = batch_works(inherited, "f") && count_rings() == 0;
    io_close_dir(inherited);
    return good;
}

static void
io_uring__child_does_not_touch_the_parents_ring(void **state)
{
    (void)state;
    inherited = open_dir();
    assert_string_equal(inherited->ops->label, "uring");
    assert_true(batch_works(inherited, "f"));
    for (int round = 0; round < 4; round++) {
        assert_true(child_says_yes(child_uses_parents_handle, round % 2));
        assert_true(batch_works(inherited, "f"));
    }
    io_close_dir(inherited);
}

static bool
child_has_no_ring(int number)
{
    (void)number;
    return count_rings() == 0;
}

/* ---- Many ------------------------------------------------------------------------ */

static void
io_uring__many_handles_hold_one_ring(void **state)
{
    (void)state;
    struct io *ios[50];
    assert_int_equal(count_rings(), 0);
    for (size_t i = 0; i < COUNTOF(ios); i++) {
        ios[i] = open_dir();
        assert_string_equal(ios[i]->ops->label, "uring");
    }
    assert_int_equal(count_rings(), 1);
    assert_true(child_says_yes(child_has_no_ring, 0));
    for (size_t i = 0; i < COUNTOF(ios); i++) {
        io_close_dir(ios[i]);
    }
    assert_int_equal(count_rings(), 0);
}

struct worker {
    struct io *io;
    struct io_file *file;
    int failures;
};

static void *
worker_main(void *ctx)
{
    struct worker *worker = ctx;
    for (int round = 0; round < 60; round++) {
        uint8_t data[2] = {(uint8_t)round, (uint8_t)(round + 1)}, got[2] = {0, 0};
        struct io_req reqs[4] = {
            {.op = IO_WRITE, .file = worker->file, .offset = 0, .data = &data[0], .len = 1},
            {.op = IO_WRITE, .file = worker->file, .offset = 9, .data = &data[1], .len = 1},
            {.op = IO_SYNC, .file = worker->file},
            {.op = IO_SYNC, .file = worker->file},
        };
        worker->failures += io_run_full(worker->io, reqs, 4) != ESKER_OK;
        reqs[0].op = reqs[1].op = IO_READ;
        reqs[0].data = &got[0];
        reqs[1].data = &got[1];
        worker->failures += io_run_full(worker->io, reqs, 4) != ESKER_OK;
        worker->failures += memcmp(data, got, 2) != 0;
    }
    return NULL;
}

static void
io_uring__more_threads_than_rings(void **state)
{
    (void)state;
    struct io *io = open_dir();
    struct worker workers[5];
    pthread_t threads[5];
    for (size_t i = 0; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%zu", i);
        workers[i] = (struct worker){.io = io, .file = open_file(io, name)};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
    }
    int most = 0;
    for (int look = 0; look < 20; look++) {
        struct io *passing = open_dir(); /* attaching and detaching beside running batches */
        most = MAX(most, count_rings());
        io_close_dir(passing);
    }
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].failures, 0);
        io_close_file(io, workers[i].file);
    }
    assert_in_range(most, 1, 2);
    io_close_dir(io);
    assert_int_equal(count_rings(), 0);
}

static void
ignore_alarm(int number)
{
    (void)number;
}

static void
io_uring__signals_do_not_disturb_a_batch(void **state)
{
    (void)state;
    struct io *io = open_dir();
    struct sigaction before, storm = {.sa_handler = ignore_alarm}; /* without SA_RESTART */
    assert_int_equal(sigaction(SIGALRM, &storm, &before), 0);
    struct itimerval every = {.it_interval = {.tv_usec = 100}, .it_value = {.tv_usec = 100}};
    assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
    bool good = true;
    for (int round = 0; good && round < 20; round++) {
        good = batch_works(io, "s");
    }
    struct itimerval never = {.it_value = {.tv_usec = 0}};
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    assert_true(good);
    io_close_dir(io);
}

static void
io_uring__errors_of_the_file_are_the_files(void **state)
{
    (void)state;
    struct io *io = open_dir();
    struct io_file *file = open_file(io, "e"), *reader = NULL;
    assert_int_equal(io_open_file(io, "e", IO_OPEN_READ, &reader), ESKER_OK);
    char byte[4];
    struct io_req reqs[4] = {
        {.op = IO_READ, .file = file, .offset = 1ull << 63, .data = &byte[0], .len = 1},
        {.op = IO_READ, .file = file, .offset = 100, .data = &byte[1], .len = 1},
        {.op = IO_WRITE, .file = reader, .offset = 0, .data = &byte[2], .len = 1},
        {.op = IO_READ, .file = file, .offset = UINT64_MAX, .data = &byte[3], .len = 1},
    };
    io->ops->run(io, reqs, 4);
    assert_int_equal(reqs[0].result, -EINVAL);
    assert_int_equal(reqs[1].result, 0);
    assert_int_equal(reqs[2].result, -EBADF);
    assert_int_equal(reqs[3].result, -EINVAL);
    io_close_file(io, file);
    io_close_file(io, reader);
    io_close_dir(io);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(io_uring__refusal_at_open_falls_back_to_posix),
        cmocka_unit_test(io_uring__refusal_at_probe_falls_back_to_posix),
        cmocka_unit_test(io_uring__later_failure_is_done_by_plain_calls),
        cmocka_unit_test(io_uring__child_does_not_touch_the_parents_ring),
        cmocka_unit_test(io_uring__many_handles_hold_one_ring),
        cmocka_unit_test(io_uring__more_threads_than_rings),
        cmocka_unit_test(io_uring__signals_do_not_disturb_a_batch),
        cmocka_unit_test(io_uring__errors_of_the_file_are_the_files),
        cmocka_unit_test(io_uring__locked_memory_limits_are_survived),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
