/* SPDX-License-Identifier: MIT */
/*
 * Goal: what only a real file system can show: the lock across processes and
 * forks, links and fifos in a file's place, modes, limits of the process, and
 * mappings that a child must not have.
 * Method: a fresh directory per test, children for what changes a process.
 */
#include "io/io.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "io/test_dir.h"
#include "sync/atomic.h"
#include "sync/epoch.h"

struct fixture {
    struct io *io;
    char dir[64];
};

static struct io *
open_dir(const char *path)
{
    struct io *io = NULL;
    assert_int_equal(io_open_dir(path, false, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    return io;
}

static int
fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "./io_posix_test_XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->io = open_dir(f->dir);
    *state = f;
    return 0;
}

static int
fixture_teardown(void **state)
{
    struct fixture *f = *state;
    io_close_dir(f->io);
    test_dir_remove(f->dir);
    free(f);
    return 0;
}

static const char *
path_in(const struct fixture *f, const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    return path;
}

static void
put_file(struct io *io, const char *name, const char *text)
{
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    assert_int_equal(io_write_full(io, file, 0, text, strlen(text)), ESKER_OK);
    io_close_file(io, file);
}

static mode_t
mode_of(const char *path)
{
    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    return info.st_mode & 07777;
}

/* The child's exit status; its code is 0 for yes. */
static int
status_of(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static bool
said_yes(pid_t pid)
{
    int status = status_of(pid);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- The directory ----------------------------------------------------------- */

static void
io_posix__open_dir_tells_why_it_cannot(void **state)
{
    struct fixture *f = *state;
    struct io *io = NULL;
    esker_status missing = io_open_dir(path_in(f, "none"), false, ESKER_IO_AUTO, &mem_default, &io);
    assert_int_equal(missing, ESKER_NOT_FOUND);
    assert_int_equal(io_open_dir(path_in(f, "a/b"), true, ESKER_IO_AUTO, &mem_default, &io), ESKER_NOT_FOUND);
    put_file(f->io, "file", "x");
    assert_int_equal(io_open_dir(path_in(f, "file"), false, ESKER_IO_AUTO, &mem_default, &io), ESKER_IO);
    assert_int_equal(status_last()->os_errno, ENOTDIR);
    assert_int_equal(io_open_dir(path_in(f, "file"), true, ESKER_IO_AUTO, &mem_default, &io), ESKER_IO);
    assert_int_equal(io_open_dir("", true, ESKER_IO_AUTO, &mem_default, &io), ESKER_NOT_FOUND);
    assert_null(io);
}

static void
io_posix__made_directories_and_files_are_private(void **state)
{
    struct fixture *f = *state;
    mode_t before = umask(0);
    struct io *io = NULL;
    assert_int_equal(io_open_dir(path_in(f, "new"), true, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    put_file(io, "file", "x");
    assert_int_equal(io_lock(io, "LOCK"), ESKER_OK);
    umask(before);
    assert_int_equal(mode_of(path_in(f, "new")), 0700);
    assert_int_equal(mode_of(path_in(f, "new/file")), 0600);
    assert_int_equal(mode_of(path_in(f, "new/LOCK")), 0600);
    io_close_dir(io);
    assert_int_equal(io_open_dir(path_in(f, "new"), true, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    assert_string_equal(io->reason, "asked for posix");
    io_close_dir(io);
}

static void
io_posix__only_regular_files_are_opened(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "target", "secret");
    assert_int_equal(symlink("target", path_in(f, "link")), 0);
    assert_int_equal(symlink("/none", path_in(f, "dangling")), 0);
    assert_int_equal(mkfifo(path_in(f, "fifo"), 0600), 0);
    assert_int_equal(mkdir(path_in(f, "dir"), 0700), 0);
    static const char *const names[] = {"link", "dangling", "fifo", "dir"};
    static const unsigned flags[] = {IO_OPEN_READ, IO_OPEN_WRITE, IO_OPEN_WRITE | IO_OPEN_CREATE};
    for (size_t n = 0; n < COUNTOF(names); n++) {
        for (size_t i = 0; i < COUNTOF(flags); i++) {
            struct io_file *file = NULL;
            assert_int_equal(f->io->ops->open_file(f->io, names[n], flags[i], &file), -EINVAL);
            assert_int_equal(io_open_file(f->io, names[n], flags[i], &file), ESKER_CORRUPT);
            assert_null(file);
        }
        assert_int_equal(f->io->ops->lock(f->io, names[n]), -EINVAL);
    }
    assert_int_equal(access("/none", F_OK), -1);
}

/* ---- The lock ------------------------------------------------------------------ */

static void
io_posix__lock_excludes_another_process(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_OK);
    for (int round = 0; round < 2; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            struct io *io = NULL;
            bool opened = io_open_dir(f->dir, false, ESKER_IO_POSIX, &mem_default, &io) == ESKER_OK;
            int result = opened ? io->ops->lock(io, "LOCK") : -1;
            _exit(result == (round == 0 ? -EWOULDBLOCK : 0) ? 0 : 1);
        }
        assert_true(said_yes(pid));
        f->io->ops->unlock(f->io);
    }
}

/* The parent lets go while a child of it lives on: the lock must be free. The
 * child drops what it inherited: the parent must keep its lock. */
static void
io_posix__forked_child_does_not_hold_the_lock(void **state)
{
    struct fixture *f = *state;
    int to_child[2], to_parent[2];
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_OK);
    assert_int_equal(pipe(to_child), 0);
    assert_int_equal(pipe(to_parent), 0);
    pid_t pid = fork();
    char byte = 'x';
    if (pid == 0) {
        f->io->ops->unlock(f->io); /* as closing the inherited handle does */
        bool good = write(to_parent[1], &byte, 1) == 1 && read(to_child[0], &byte, 1) == 1;
        _exit(good ? 0 : 1);
    }
    assert_int_equal(read(to_parent[0], &byte, 1), 1);
    struct io *other = open_dir(f->dir);
    assert_int_equal(other->ops->lock(other, "LOCK"), -EWOULDBLOCK);
    f->io->ops->unlock(f->io);
    assert_int_equal(other->ops->lock(other, "LOCK"), 0);
    io_close_dir(other);
    assert_int_equal(write(to_child[1], &byte, 1), 1);
    assert_true(said_yes(pid));
    for (int end = 0; end < 2; end++) {
        close(to_child[end]);
        close(to_parent[end]);
    }
}

static void
io_posix__lock_dies_with_its_process(void **state)
{
    struct fixture *f = *state;
    int to_parent[2];
    char byte = 'x';
    assert_int_equal(pipe(to_parent), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct io *io = NULL;
        bool good = io_open_dir(f->dir, false, ESKER_IO_POSIX, &mem_default, &io) == ESKER_OK &&
                    io->ops->lock(io, "LOCK") == 0 && write(to_parent[1], &byte, 1) == 1;
        (void)good;
        pause();
        _exit(1);
    }
    assert_int_equal(read(to_parent[0], &byte, 1), 1);
    assert_int_equal(f->io->ops->lock(f->io, "LOCK"), -EWOULDBLOCK);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(WIFSIGNALED(status_of(pid)));
    assert_int_equal(f->io->ops->lock(f->io, "LOCK"), 0);
    close(to_parent[0]);
    close(to_parent[1]);
}

/* A holder that removes the file on its way out must not let two others in. */
static void
io_posix__removed_lock_file_is_not_a_lock(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(io_lock(f->io, "LOCK"), ESKER_OK);
    assert_int_equal(io_unlink(f->io, "LOCK"), ESKER_OK);
    struct io *second = open_dir(f->dir), *third = open_dir(f->dir);
    assert_int_equal(second->ops->lock(second, "LOCK"), 0); /* the first lock is on a file without a name */
    assert_int_equal(third->ops->lock(third, "LOCK"), -EWOULDBLOCK);
    io_close_dir(second);
    io_close_dir(third);
}

/* Takes and gives up the lock many times, removing its file each time.
 * Returns whether it was alone whenever it held it. */
static bool
lock_and_remove(const struct fixture *f, _Atomic int *inside)
{
    struct io *io = NULL;
    bool alone = io_open_dir(f->dir, false, ESKER_IO_POSIX, &mem_default, &io) == ESKER_OK;
    for (int round = 0; alone && round < 10000; round++) {
        if (io->ops->lock(io, "LOCK") == 0) {
            alone = add_seq(inside, 1) == 0;
            for (int pause = 0; pause < 1000; pause++) {
                cpu_relax();
            }
            alone = alone && load_seq(inside) == 1;
            add_seq(inside, -1);
            (void)io->ops->unlink_file(io, "LOCK");
            io->ops->unlock(io);
        }
    }
    io_close_dir(io);
    return alone;
}

static void
io_posix__removing_holders_exclude_each_other(void **state)
{
    struct fixture *f = *state;
    _Atomic int *inside = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(inside, MAP_FAILED);
    pid_t pids[2];
    for (int i = 0; i < 2; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            _exit(lock_and_remove(f, inside) ? 0 : 1);
        }
    }
    bool first = said_yes(pids[0]), second = said_yes(pids[1]);
    assert_true(first && second);
    munmap((void *)(uintptr_t)inside, 4096);
}

/* ---- Limits of the process -------------------------------------------------------- */

static void
io_posix__file_size_limit_is_a_status(void **state)
{
    struct fixture *f = *state;
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = 5000, .rlim_max = 5000};
        struct io_file *file = NULL;
        static char data[4096];
        signal(SIGXFSZ, SIG_IGN);
        bool good = setrlimit(RLIMIT_FSIZE, &limit) == 0 &&
                    io_open_file(f->io, "a", IO_OPEN_WRITE | IO_OPEN_CREATE, &file) == ESKER_OK;
        struct io_req req = {.op = IO_WRITE, .file = file, .offset = 4096, .data = data, .len = sizeof data};
        good = good && io_write_full(f->io, file, 0, data, sizeof data) == ESKER_OK;
        if (good) {
            f->io->ops->run(f->io, &req, 1); /* a real short write */
        }
        good = good && req.result == 5000 - 4096;
        good = good && io_write_full(f->io, file, 4096, data, sizeof data) == ESKER_NO_SPACE &&
               status_last()->offset == 5000 && status_last()->os_errno == EFBIG;
        _exit(good ? 0 : 1);
    }
    assert_true(said_yes(pid));
}

static void
io_posix__too_many_descriptors_is_a_status(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "a", "x");
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = 1, .rlim_max = 1};
        struct io_file *file = NULL;
        bool good = setrlimit(RLIMIT_NOFILE, &limit) == 0 &&
                    io_open_file(f->io, "a", IO_OPEN_READ, &file) == ESKER_IO &&
                    status_last()->os_errno == EMFILE && f->io->ops->lock(f->io, "LOCK") == -EMFILE;
        _exit(good ? 0 : 1);
    }
    assert_true(said_yes(pid));
}

/* ---- Memory ------------------------------------------------------------------------ */

static void
io_posix__mapping_is_not_inherited(void **state)
{
    struct fixture *f = *state;
    struct io_file *file = NULL;
    static const char data[4096] = "before";
    assert_int_equal(io_open_file(f->io, "a", IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    assert_int_equal(io_write_full(f->io, file, 0, data, sizeof data), ESKER_OK);
    void *map = NULL;
    int failed = f->io->ops->map_file(f->io, file, sizeof data, &map);
    if (failed == -EOPNOTSUPP) {
        io_close_file(f->io, file);
        skip();
    }
    assert_int_equal(failed, 0);
    pid_t pid = fork();
    if (pid == 0) {
        unsigned char resident;
        _exit(mincore(map, 4096, &resident) != 0 && errno == ENOMEM ? 0 : 1);
    }
    assert_true(said_yes(pid));
    memcpy(map, "stored", 6); /* and the process dies right after: the kernel has it */
    f->io->ops->unmap_file(f->io, map, sizeof data);
    io_close_file(f->io, file);
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(io_read_file(f->io, "a", 4096, &buf), ESKER_OK);
    assert_memory_equal(buf.ptr, "stored", 6);
    buf_fini(&buf);
}

static void
io_posix__machine_is_known_here(void **state)
{
    struct fixture *f = *state;
    static const uint8_t zeros[16];
    struct io_machine_id id;
    f->io->ops->machine_id(f->io, &id);
    if (access("/proc/sys/kernel/random/boot_id", R_OK) == 0) {
        assert_memory_not_equal(id.boot_id, zeros, sizeof zeros);
    }
}

#define CASE(fn)                                                                                             \
    {                                                                                                        \
        .name = #fn, .test_func = fn, .setup_func = fixture_setup, .teardown_func = fixture_teardown         \
    }

/* ---- Populating ------------------------------------------------------------ */

static uint64_t
faults_so_far(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_THREAD, &usage), 0);
    return (uint64_t)usage.ru_minflt;
}

/* Page faults of one store to each of the pages. */
static uint64_t
faults_of_stores(uint8_t *pages, uint64_t count)
{
    uint64_t before = faults_so_far();
    for (uint64_t i = 0; i < count; i++) {
        *(volatile uint8_t *)(pages + i * 4096) = 1;
    }
    return faults_so_far() - before;
}

static void
io_posix__populate_spares_stores_their_page_faults(void **state)
{
    struct fixture *f = *state;

    enum { PAGES = 64, BYTES = PAGES * 4096 };

    assert_non_null(f->io->ops->populate);
    void *plain = NULL;
    void *ready = NULL;
    assert_int_equal(f->io->ops->map_memory(f->io, BYTES, &plain), 0);
    assert_int_equal(f->io->ops->map_memory(f->io, BYTES, &ready), 0);
    /* From the middle of one page to the middle of another: both belong to it. */
    f->io->ops->populate(f->io, (uint8_t *)ready + 100, BYTES - 200);
    assert_int_equal(((uint8_t *)ready)[0], 0);
    if (madvise(ready, 4096, MADV_POPULATE_WRITE) == 0) { /* Linux 5.14 and later */
        assert_true(faults_of_stores(plain, PAGES) >= 1);
        assert_true(faults_of_stores(ready, PAGES) <= PAGES / 4); /* a sanitizer's shadow has faults, too */
    }
    f->io->ops->unmap_memory(f->io, plain, BYTES);
    f->io->ops->unmap_memory(f->io, ready, BYTES);
    f->io->ops->populate(f->io, NULL, 0);
}

/* ---- Sections ----------------------------------------------------------------------- */

/* Goal: debug builds refuse I/O inside an epoch section. Method: a child opens or reads in one: it aborts;
 * without the section it must not. */
static void
io_posix__is_not_called_inside_a_section(void **state)
{
    struct fixture *f = *state;
    put_file(f->io, "a", "x");
#ifdef ESKER_DEBUG
    for (int turn = 0; turn < 4; turn++) {
        bool opens = turn % 2 == 0, inside = turn >= 2;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct io_file *file = NULL, *other = NULL;
            char data[1];
            (void)alarm(30);
            (void)freopen("/dev/null", "w", stderr);
            (void)signal(SIGABRT, SIG_DFL); /* the test framework catches it */
            bool good = io_open_file(f->io, "a", IO_OPEN_READ, &file) == ESKER_OK;
            if (inside) {
                epoch_enter(thread_state_get());
            }
            good = good && (opens ? io_open_file(f->io, "a", IO_OPEN_READ, &other)
                                  : io_read_full(f->io, file, 0, data, sizeof data)) == ESKER_OK;
            _exit(good ? 0 : 1);
        }
        int how = 0;
        assert_int_equal(waitpid(pid, &how, 0), pid);
        assert_true(inside ? WIFSIGNALED(how) && WTERMSIG(how) == SIGABRT
                           : WIFEXITED(how) && WEXITSTATUS(how) == 0);
    }
#endif
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(io_posix__open_dir_tells_why_it_cannot),
        CASE(io_posix__made_directories_and_files_are_private),
        CASE(io_posix__only_regular_files_are_opened),
        CASE(io_posix__lock_excludes_another_process),
        CASE(io_posix__forked_child_does_not_hold_the_lock),
        CASE(io_posix__lock_dies_with_its_process),
        CASE(io_posix__removed_lock_file_is_not_a_lock),
        CASE(io_posix__removing_holders_exclude_each_other),
        CASE(io_posix__file_size_limit_is_a_status),
        CASE(io_posix__too_many_descriptors_is_a_status),
        CASE(io_posix__mapping_is_not_inherited),
        CASE(io_posix__machine_is_known_here),
        CASE(io_posix__populate_spares_stores_their_page_faults),
        CASE(io_posix__is_not_called_inside_a_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
