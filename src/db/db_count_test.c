/* SPDX-License-Identifier: MIT */
/*
 * Goal: what the fast paths do not do, by counting. esker_get_copy of what is
 * in memory: no locked instruction beyond the epoch section's, no system call,
 * no allocation. An iterator over what is cached, made, placed and destroyed: no
 * allocation, no system call, ten locked instructions. A put at PROCESS level in
 * steady state: no system call in tail mode, at most one per group in write mode.
 * Method: a child runs a script of stretches, each between two breakpoint
 * instructions; its parent steps it through them one instruction at a time and
 * looks at each: a lock prefix, an exchange with memory, a system call. The
 * allocators, the database's and the process's, count on their own. Stretches
 * with one thing too many show that each is seen.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "db/db.h"

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(ESKER_TSAN)

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

enum { PUTS = 16, KEYS = 200, VALUE_BYTES = 100, CODE_CACHE = 1 << 14, CODE_BYTES = 16 };

/* In the order in which the child goes through them. */
enum stretch {
    STRETCH_NOTHING,
    STRETCH_SECTION,    /* an epoch section, empty */
    STRETCH_SEEDED_RMW, /* a section and one locked instruction */
    STRETCH_SEEDED_XCHG,
    STRETCH_SEEDED_SYSCALL,
    STRETCH_SEEDED_ALLOC,
    STRETCH_GET_MEMTABLE,
    STRETCH_GET_ABSENT,
    STRETCH_GET_AT_SNAPSHOT,
    STRETCH_GET_SEGMENT,
    STRETCH_GET_SEGMENT_ABSENT,
    STRETCH_LOOK, /* a pinned value, released */
    STRETCH_ITER_SEGMENT,
    STRETCH_ITER_BOTH, /* rows in the window, too */
    STRETCH_PUT_TAIL,  /* PUTS of them */
    STRETCH_PUT_WRITE,
    STRETCH_COUNT
};

struct counts {
    uint64_t steps, locked, syscalls;
};

struct shared {
    uint64_t allocations[STRETCH_COUNT]; /* written by the child */
    bool tail_mode[2];
    bool failed;
    char why[160];
};

static struct shared *shared;
static struct counts counted[STRETCH_COUNT];
static bool traced;

/* ---- The child ------------------------------------------------------------------ */

static volatile bool allocations_count;
static volatile uint64_t allocations;

/* glibc's own, below the names that we take. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *ptr, size_t size);

static _Thread_local bool count_me; /* background threads may allocate as they like */

static void
count_allocation(void)
{
    if (allocations_count && count_me) {
        allocations++;
    }
}

void *
malloc(size_t size)
{
    count_allocation();
    return __libc_malloc(size);
}

void *
calloc(size_t count, size_t size)
{
    count_allocation();
    return __libc_calloc(count, size);
}

void *
realloc(void *ptr, size_t size)
{
    count_allocation();
    return __libc_realloc(ptr, size);
}

static void *
hook_alloc(void *ctx, size_t size)
{
    (void)ctx;
    count_allocation();
    return __libc_malloc(size);
}

static void *
hook_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    count_allocation();
    return aligned_alloc(alignment, align_up(size, alignment));
}

static void
hook_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static void
child_must(bool right, const char *what)
{
    if (!right) {
        esker_error error;
        esker_error_init(&error);
        esker_last_error(&error);
        shared->failed = true;
        (void)snprintf(shared->why, sizeof shared->why, "%s (%.100s)", what, error.message);
        _exit(1);
    }
}

/* Nothing between a mark and what it marks; the parent takes both as its word. */
#define STRETCH(which, ...)                                                                                  \
    do {                                                                                                     \
        allocations = 0;                                                                                     \
        allocations_count = true;                                                                            \
        __asm__ volatile("int3" ::: "memory");                                                               \
        __VA_ARGS__;                                                                                         \
        __asm__ volatile("int3" ::: "memory");                                                               \
        allocations_count = false;                                                                           \
        shared->allocations[which] = allocations;                                                            \
    } while (0)

static esker_db *
child_open(const char *path, int durability, bool *tail_mode_out)
{
    esker_allocator allocator = {.alloc = hook_alloc, .aligned_alloc = hook_aligned_alloc, .free = hook_free};
    esker_db *db = NULL;
    esker_options options;
    esker_options_init(&options);
    options.durability = durability;
    options.io_backend = ESKER_IO_POSIX;
    options.allocator = &allocator;
    child_must(esker_open(path, &options, &db) == ESKER_OK, "open");
    *tail_mode_out = db->tail_mode;
    return db;
}

static esker_slice
child_key(int number, char out[16])
{
    int len = snprintf(out, 16, "key%05d", number);
    return esker_bytes(out, (size_t)len);
}

static void
child_puts(esker_db *db, const esker_write_options *options, int from, int count)
{
    static const uint8_t zeros[VALUE_BYTES];
    for (int i = from; i < from + count; i++) {
        char name[16];
        child_must(esker_put(db, child_key(i, name), esker_bytes(zeros, sizeof zeros), options) == ESKER_OK,
                   "put");
    }
}

/* Calibration: what the counting must see. */
static void
child_seeded(void)
{
    static _Atomic uint64_t word;
    struct thread_state *self = thread_state_get();
    STRETCH(STRETCH_NOTHING, (void)0);
    STRETCH(STRETCH_SECTION, epoch_enter(self); epoch_exit(self));
    /* relaxed: a locked instruction all the same */
    STRETCH(STRETCH_SEEDED_RMW, epoch_enter(self); add_relaxed(&word, 1U); epoch_exit(self));
    STRETCH(STRETCH_SEEDED_XCHG, epoch_enter(self); (void)exchange_seq(&word, 5U); epoch_exit(self));
    STRETCH(STRETCH_SEEDED_SYSCALL, (void)syscall(SYS_getppid));
    void *volatile block = NULL;
    STRETCH(STRETCH_SEEDED_ALLOC, block = malloc(10));
    free(block);
}

static void
child_gets(esker_db *db)
{
    uint8_t buf[VALUE_BYTES];
    char name[16];
    size_t size = 0;
    esker_snapshot *snapshot = NULL;
    esker_read_options at;
    esker_read_options_init(&at);
    esker_slice present = child_key(7, name);
    esker_slice absent = esker_str("nobody");
    esker_status hit = ESKER_NOT_FOUND;
    esker_status miss = ESKER_OK;
    child_must(esker_snapshot_create(db, &snapshot) == ESKER_OK, "snapshot");
    at.snapshot = snapshot;
    for (int i = 0; i < 3; i++) { /* the loader resolves names at their first use */
        child_must(esker_get_copy(db, present, &at, buf, sizeof buf, &size) == ESKER_OK, "get");
        child_must(esker_get_copy(db, absent, NULL, buf, sizeof buf, &size) == ESKER_NOT_FOUND, "get");
    }
    STRETCH(STRETCH_GET_MEMTABLE, hit = esker_get_copy(db, present, NULL, buf, sizeof buf, &size));
    STRETCH(STRETCH_GET_ABSENT, miss = esker_get_copy(db, absent, NULL, buf, sizeof buf, &size));
    child_must(hit == ESKER_OK && miss == ESKER_NOT_FOUND, "gets from the memtable");
    STRETCH(STRETCH_GET_AT_SNAPSHOT, hit = esker_get_copy(db, present, &at, buf, sizeof buf, &size));
    child_must(hit == ESKER_OK, "a get at a snapshot");
    esker_snapshot_release(snapshot);

    child_must(esker_flush(db) == ESKER_OK, "flush");
    esker_slice between = esker_str("key00007x");
    for (int i = 0; i < 3; i++) { /* into the cache */
        child_must(esker_get_copy(db, present, NULL, buf, sizeof buf, &size) == ESKER_OK, "get");
        child_must(esker_get_copy(db, between, NULL, buf, sizeof buf, &size) == ESKER_NOT_FOUND, "get");
    }
    hit = ESKER_NOT_FOUND;
    STRETCH(STRETCH_GET_SEGMENT, hit = esker_get_copy(db, present, NULL, buf, sizeof buf, &size));
    STRETCH(STRETCH_GET_SEGMENT_ABSENT, miss = esker_get_copy(db, between, NULL, buf, sizeof buf, &size));
    child_must(hit == ESKER_OK && miss == ESKER_NOT_FOUND, "gets from the segment");
}

/* Ten rows from a key on. */
static uint64_t
child_walk(esker_db *db, esker_slice from)
{
    esker_iter *it = NULL;
    esker_status status = esker_iter_create(db, NULL, &it);
    status = status == ESKER_OK ? esker_iter_seek(it, from) : status;
    uint64_t rows = 0;
    for (; status == ESKER_OK && rows < 10; rows++) {
        status = esker_iter_next(it);
    }
    esker_iter_destroy(it);
    return rows;
}

static esker_status
child_look_once(esker_db *db, esker_slice key, size_t size)
{
    esker_value value = {0};
    esker_status status = esker_get(db, key, NULL, &value);
    status = status == ESKER_OK && value.size != size ? ESKER_CORRUPT : status;
    esker_value_release(&value);
    return status;
}

/* Behind child_gets: a value too large to be copied, in a block. */
static void
child_look(esker_db *db)
{
    static const uint8_t large[4 * VALUE_COPY_BYTES_MAX];
    esker_slice key = esker_str("large");
    esker_status found = ESKER_NOT_FOUND;
    child_must(esker_put(db, key, esker_bytes(large, sizeof large), NULL) == ESKER_OK, "put");
    child_must(esker_flush(db) == ESKER_OK, "flush");
    for (int i = 0; i < 3; i++) {
        child_must(child_look_once(db, key, sizeof large) == ESKER_OK, "look");
    }
    STRETCH(STRETCH_LOOK, found = child_look_once(db, key, sizeof large));
    child_must(found == ESKER_OK, "a look at a large value");
    child_must(esker_compact(db, NULL, NULL) == ESKER_OK, "compact");
}

/* The same: one segment, and nothing in the window. */
static void
child_walks(esker_db *db)
{
    char name[16];
    uint64_t rows = 0;
    esker_slice from = child_key(7, name);
    for (int i = 0; i < 3; i++) {
        child_must(child_walk(db, from) == 10, "walk");
    }
    STRETCH(STRETCH_ITER_SEGMENT, rows = child_walk(db, from));
    child_must(rows == 10, "a walk over a segment");
    child_puts(db, NULL, 10, 2);
    for (int i = 0; i < 3; i++) {
        child_must(child_walk(db, from) == 10, "walk");
    }
    STRETCH(STRETCH_ITER_BOTH, rows = child_walk(db, from));
    child_must(rows == 10, "a walk over a segment and a window");
}

static void
child_main(const char *path_tail, const char *path_write)
{
    esker_write_options process;
    esker_write_options_init(&process);
    process.durability = ESKER_DURABLE_PROCESS;
    count_me = true;
    esker_db *db = child_open(path_tail, ESKER_DURABLE_PROCESS, &shared->tail_mode[0]);
    child_puts(db, NULL, 0, KEYS);
    child_seeded();
    child_gets(db);
    child_look(db);
    child_walks(db);
    child_puts(db, NULL, 0, KEYS);
    STRETCH(STRETCH_PUT_TAIL, child_puts(db, NULL, KEYS, PUTS));
    child_must(esker_close(db) == ESKER_OK, "close");
    db = child_open(path_write, ESKER_DURABLE_MEMORY, &shared->tail_mode[1]);
    child_puts(db, &process, 0, KEYS);
    STRETCH(STRETCH_PUT_WRITE, child_puts(db, &process, KEYS, PUTS));
    child_must(esker_close(db) == ESKER_OK, "close");
}

/* ---- The parent ------------------------------------------------------------------- */

enum code { CODE_UNKNOWN, CODE_PLAIN, CODE_LOCKED, CODE_SYSCALL };

struct code_at {
    uint64_t at;
    enum code code;
};

static enum code
code_of_bytes(const uint8_t bytes[CODE_BYTES])
{
    static const uint8_t prefixes[] = {0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65};
    size_t i = 0;
    for (; i < CODE_BYTES - 3; i++) {
        if (bytes[i] == 0xF0) { /* lock */
            return CODE_LOCKED;
        }
        if (memchr(prefixes, bytes[i], sizeof prefixes) == NULL) {
            break;
        }
    }
    if ((bytes[i] & 0xF0) == 0x40) { /* REX */
        i++;
    }
    if ((bytes[i] == 0x86 || bytes[i] == 0x87) &&
        bytes[i + 1] >> 6 != 3) { /* xchg with memory locks unasked */
        return CODE_LOCKED;
    }
    bool call = bytes[i] == 0x0F && (bytes[i + 1] == 0x05 || bytes[i + 1] == 0x34); /* syscall, sysenter */
    return call || (bytes[i] == 0xCD && bytes[i + 1] == 0x80) ? CODE_SYSCALL : CODE_PLAIN;
}

static enum code
code_at(pid_t child, uint64_t at)
{
    static struct code_at cache[CODE_CACHE];
    struct code_at *slot = &cache[(at ^ at >> 14) % CODE_CACHE];
    if (slot->at != at || slot->code == CODE_UNKNOWN) {
        uint8_t bytes[CODE_BYTES] = {0};
        for (size_t i = 0; i < CODE_BYTES; i += sizeof(long)) {
            long word = ptrace(PTRACE_PEEKTEXT, child, (void *)(uintptr_t)(at + i), NULL);
            memcpy(bytes + i, &word, sizeof word);
        }
        *slot = (struct code_at){.at = at, .code = code_of_bytes(bytes)};
    }
    return slot->code;
}

/* Goes on until the child stops; false: it has ended. is_mark_out: at a breakpoint, not after a step. */
static bool
trace_on(pid_t child, enum __ptrace_request how, bool *is_mark_out)
{
    int signal_passed = 0;
    for (;;) {
        int status = 0;
        if (ptrace(how, child, NULL, (void *)(uintptr_t)signal_passed) != 0 ||
            waitpid(child, &status, __WALL) != child || !WIFSTOPPED(status)) {
            return false;
        }
        signal_passed = WSTOPSIG(status);
        siginfo_t info = {0};
        if (signal_passed == SIGTRAP && ptrace(PTRACE_GETSIGINFO, child, NULL, &info) == 0) {
            *is_mark_out = info.si_code == SI_KERNEL;
            return true;
        }
    }
}

static struct counts
trace_stretch(pid_t child)
{
    struct counts counts = {0};
    for (bool mark = false; !mark; counts.steps++) {
        uint64_t at =
            (uint64_t)ptrace(PTRACE_PEEKUSER, child, (void *)offsetof(struct user_regs_struct, rip), NULL);
        enum code code = code_at(child, at);
        counts.locked += code == CODE_LOCKED ? 1 : 0;
        counts.syscalls += code == CODE_SYSCALL ? 1 : 0;
        if (!trace_on(child, PTRACE_SINGLESTEP, &mark)) {
            break;
        }
    }
    return counts;
}

static void
trace_child(pid_t child)
{
    int status = 0;
    bool mark = false;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        return; /* may not be traced */
    }
    assert_true(WIFSTOPPED(status));
    for (int i = 0; i < STRETCH_COUNT; i++) {
        bool stopped = trace_on(child, PTRACE_CONT, &mark);
        if (!stopped) {
            print_message("the child ended: %s\n", shared->why);
        }
        assert_true(stopped && mark);
        counted[i] = trace_stretch(child);
    }
    assert_int_equal(ptrace(PTRACE_CONT, child, NULL, NULL), 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(shared->failed);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    traced = true;
}

/* One life of a child, counted. */
static bool
count_once(void)
{
    char tail[] = "/tmp/esker-count-XXXXXX";
    char write_mode[] = "/tmp/esker-count-XXXXXX";
    if (mkdtemp(tail) == NULL || mkdtemp(write_mode) == NULL) {
        return false;
    }
    pid_t child = fork();
    if (child == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0) {
            _exit(77);
        }
        raise(SIGSTOP);
        child_main(tail, write_mode);
        _exit(0);
    }
    trace_child(child);
    IGNORE_STATUS(esker_destroy(tail), "empty when it was not traced");
    IGNORE_STATUS(esker_destroy(write_mode), "empty when it was not traced");
    return true;
}

enum { LOOK_LOCKED_MAX = 5, ITERATOR_LOCKED_MAX = 10, COUNT_ATTEMPTS = 5 };

/* Nothing came in between that a stretch has no part in. */
static bool
count_was_quiet(void)
{
    return counted[STRETCH_PUT_TAIL].syscalls == 0 && counted[STRETCH_PUT_WRITE].syscalls <= PUTS &&
           counted[STRETCH_LOOK].locked <= LOOK_LOCKED_MAX && shared->allocations[STRETCH_LOOK] == 0 &&
           counted[STRETCH_ITER_SEGMENT].locked <= ITERATOR_LOCKED_MAX &&
           shared->allocations[STRETCH_ITER_SEGMENT] == 0 &&
           counted[STRETCH_ITER_BOTH].locked <= ITERATOR_LOCKED_MAX + 1 &&
           shared->allocations[STRETCH_ITER_BOTH] == 0;
}

/* A background thread that wants a mutex while the child is being stepped through it adds a wake-up to what
 * is counted, and a version that it publishes between two walks may want more memory for the next one. That
 * comes by chance; what the paths themselves do comes every time. So: the best of five. */
static int
count_setup(void **state)
{
    (void)state;
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) {
        return -1;
    }
    for (int attempt = 0; attempt < COUNT_ATTEMPTS; attempt++) {
        if (!count_once()) {
            return -1;
        }
        if (!traced || count_was_quiet()) {
            break;
        }
    }
    if (!traced) {
        print_message("SKIPPED: this process may not trace its child\n");
    }
    return 0;
}

/* ---- What must be ------------------------------------------------------------------- */

static void
say(const char *what, enum stretch which)
{
    print_message("%-32s %6llu instructions, %llu locked, %llu system calls, %llu allocations\n", what,
                  (unsigned long long)counted[which].steps, (unsigned long long)counted[which].locked,
                  (unsigned long long)counted[which].syscalls,
                  (unsigned long long)shared->allocations[which]);
}

static void
counting__sees_what_it_looks_for(void **state)
{
    (void)state;
    if (!traced) {
        return;
    }
    uint64_t section = counted[STRETCH_SECTION].locked;
    say("an epoch section", STRETCH_SECTION);
    assert_int_equal(counted[STRETCH_NOTHING].locked, 0);
    assert_int_equal(counted[STRETCH_NOTHING].syscalls, 0);
    assert_int_equal(shared->allocations[STRETCH_NOTHING], 0);
    assert_true(section <= 1);
    assert_int_equal(counted[STRETCH_SEEDED_RMW].locked, section + 1);
    assert_int_equal(counted[STRETCH_SEEDED_XCHG].locked, section + 1);
    assert_int_equal(counted[STRETCH_SEEDED_SYSCALL].syscalls, 1);
    assert_int_equal(shared->allocations[STRETCH_SEEDED_ALLOC], 1);
}

static void
get_copy__from_memory_shares_nothing_and_asks_nobody(void **state)
{
    (void)state;

    static const struct {
        const char *what;
        enum stretch which;
    } gets[] = {{"get_copy, memtable", STRETCH_GET_MEMTABLE},
                {"get_copy, absent", STRETCH_GET_ABSENT},
                {"get_copy, memtable, snapshot", STRETCH_GET_AT_SNAPSHOT},
                {"get_copy, cached segment", STRETCH_GET_SEGMENT},
                {"get_copy, absent in a segment", STRETCH_GET_SEGMENT_ABSENT}};

    for (size_t i = 0; traced && i < COUNTOF(gets); i++) {
        say(gets[i].what, gets[i].which);
        assert_true(counted[gets[i].which].steps > 50);
        assert_int_equal(counted[gets[i].which].locked, counted[STRETCH_SECTION].locked);
        assert_int_equal(counted[gets[i].which].syscalls, 0);
        assert_int_equal(shared->allocations[gets[i].which], 0);
    }
}

/* The section, the block's pin (2), the values' count (2). */
static void
look__at_a_large_value_takes_no_memory(void **state)
{
    (void)state;

    if (!traced) {
        return;
    }
    say("get and release, cached 16 KiB", STRETCH_LOOK);
    assert_true(counted[STRETCH_LOOK].steps > 100);
    assert_true(counted[STRETCH_LOOK].locked <= LOOK_LOCKED_MAX);
    assert_int_equal(counted[STRETCH_LOOK].syscalls, 0);
    assert_int_equal(shared->allocations[STRETCH_LOOK], 0);
}

/* The section of the call, the version's count (2), the handles' (2), the memory's place (2), the section
 * in which the block is found, its pin (2); and where rows were passed over, their count. */
static void
iterator__takes_no_lock_and_no_memory(void **state)
{
    (void)state;

    static const enum stretch walks[] = {STRETCH_ITER_SEGMENT, STRETCH_ITER_BOTH};

    for (size_t i = 0; traced && i < COUNTOF(walks); i++) {
        say(i == 0 ? "iterator, 10 rows, a segment" : "the same and a window", walks[i]);
        assert_true(counted[walks[i]].steps > 500);
        assert_true(counted[walks[i]].locked <= ITERATOR_LOCKED_MAX + i);
        assert_int_equal(counted[walks[i]].syscalls, 0);
        assert_int_equal(shared->allocations[walks[i]], 0);
    }
}

static void
put__at_process_level_asks_the_system_at_most_once(void **state)
{
    (void)state;
    if (!traced) {
        return;
    }
    say("16 puts, tail mode", STRETCH_PUT_TAIL);
    say("16 puts, write mode", STRETCH_PUT_WRITE);
    assert_int_equal(shared->allocations[STRETCH_PUT_TAIL], 0);
    if (shared->tail_mode[0]) {
        assert_int_equal(counted[STRETCH_PUT_TAIL].syscalls, 0);
    } else {
        print_message("SKIPPED: no tail mode on this file system\n");
    }
    assert_false(shared->tail_mode[1]);
    assert_true(counted[STRETCH_PUT_WRITE].syscalls <= PUTS); /* alone, each put is its own group */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counting__sees_what_it_looks_for),
        cmocka_unit_test(get_copy__from_memory_shares_nothing_and_asks_nobody),
        cmocka_unit_test(look__at_a_large_value_takes_no_memory),
        cmocka_unit_test(iterator__takes_no_lock_and_no_memory),
        cmocka_unit_test(put__at_process_level_asks_the_system_at_most_once),
    };
    return cmocka_run_group_tests(tests, count_setup, NULL);
}

#else

int
main(void)
{
    printf("SKIPPED: instructions are counted on x86-64, in builds without a sanitizer\n");
    return 0;
}

#endif
