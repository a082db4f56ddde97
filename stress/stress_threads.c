/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: threads may come and go without a word: 100,000 of them, each for a
 * call or two, some ending inside a call or while they hold what others
 * release. Nothing leaks, reclamation goes on, and close finds nobody.
 * Method: waves of threads on one small database. Each does one of: put, get,
 * scan, snapshot, write; leaves an iterator, a snapshot or a value behind for
 * the main thread; ends inside the allocator, in a call that never returns.
 * Events start threads of their own. After each wave what was left behind is
 * released; then everything retired must be freed by a drain, and the process
 * must not have grown since the first waves.
 *
 *   stress_threads [seconds [seed]]      2 seconds: as many threads as CI starts
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/rng.h"
#include "db/db.h"
#include "stress_die.h"

#if defined(__SANITIZE_ADDRESS__) || defined(ESKER_TSAN)
enum { THREADS_LEAST = 3000, GROWN_BYTES_MOST = 0 }; /* a detector's own memory hides ours */
#else
enum { THREADS_LEAST = 100000, GROWN_BYTES_MOST = 4 << 20 };
#endif

enum { WAVE = 16, KEYS = 64, VALUE_BYTES = 100 };

enum visit { VISIT_PUT, VISIT_GET, VISIT_SCAN, VISIT_SNAPSHOT, VISIT_LEAVE, VISIT_DIE, VISIT_KINDS };

struct visitor {
    pthread_t thread;
    uint64_t number;
    /* left behind */
    esker_iter *it;
    esker_snapshot *snapshot;
    esker_value value;
};

static esker_db *db;
static _Thread_local bool dies_in_allocator;
static _Atomic uint64_t deaths;
static _Atomic uint32_t events_running; /* pairs: THREADS_EVENT */
static _Atomic bool events_over;        /* pairs: THREADS_EVENT — their calls would be refused */

static void *
visit_alloc(void *ctx, size_t size)
{
    (void)ctx;
    if (dies_in_allocator) {      /* in the middle of a public call, which never ends */
        add_relaxed(&deaths, 1U); /* relaxed: read after joins */
        pthread_exit(NULL);
    }
    return malloc(size);
}

static void *
visit_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    return aligned_alloc(alignment, align_up(size, alignment));
}

static void
visit_free(void *ctx, void *ptr)
{
    (void)ctx;
    free(ptr);
}

static esker_slice
key_name(uint64_t number, char out[16])
{
    int len = snprintf(out, 16, "key%03llu", (unsigned long long)(number % KEYS));
    return esker_bytes(out, (size_t)len);
}

static void
visit_scan(void)
{
    esker_iter *it = NULL;
    must(esker_iter_create(db, NULL, &it), "no iterator");
    esker_status status = esker_iter_first(it);
    while (status == ESKER_OK) {
        status = esker_iter_next(it);
    }
    if (status != ESKER_END) {
        die("a scan failed");
    }
    esker_iter_destroy(it);
}

/* Whoever gets something else than what it asked for says so. */
static void
visit_get(uint64_t number)
{
    char name[16];
    uint8_t buf[VALUE_BYTES];
    size_t size = 0;
    must(esker_get_copy(db, key_name(number, name), NULL, buf, sizeof buf, &size), "a get failed");
    if (size != VALUE_BYTES || le64_load(buf) % KEYS != number % KEYS) {
        die("a get returned another key's value");
    }
}

static void
visit_put(uint64_t number)
{
    char name[16];
    uint8_t value[VALUE_BYTES] = {0};
    le64_store(value, number);
    must(esker_put(db, key_name(number, name), esker_bytes(value, sizeof value), NULL), "a put failed");
}

static void *
visitor_main(void *arg)
{
    struct visitor *visitor = arg;
    char name[16];
    struct rng rng = {seed * 1000003 + visitor->number};
    esker_snapshot *snapshot = NULL;
    switch ((enum visit)rng_below(&rng, VISIT_KINDS)) {
    case VISIT_PUT:
        visit_put(visitor->number);
        break;
    case VISIT_SCAN:
        visit_scan();
        break;
    case VISIT_SNAPSHOT:
        must(esker_snapshot_create(db, &snapshot), "no snapshot");
        visit_get(visitor->number);
        esker_snapshot_release(snapshot);
        break;
    case VISIT_LEAVE:
        must(esker_iter_create(db, NULL, &visitor->it), "no iterator");
        must(esker_iter_first(visitor->it), "no row");
        must(esker_snapshot_create(db, &visitor->snapshot), "no snapshot");
        must(esker_get(db, key_name(visitor->number, name), NULL, &visitor->value), "a get failed");
        break;
    case VISIT_DIE:
        visit_put(visitor->number);
        dies_in_allocator = true;
        must(esker_snapshot_create(db, &snapshot), "no snapshot");
        die("a thread came back from its end");
        break;
    default:
        visit_get(visitor->number);
        break;
    }
    return NULL;
}

static void *
event_reader_main(void *arg)
{
    visit_scan();
    visit_get(*(uint64_t *)arg);
    return NULL;
}

/* A call from an engine's thread may read; so may threads that come and go within it. */
static void
event_main(void *ctx, const esker_event *event)
{
    pthread_t thread;
    (void)event;
    add_seq(&events_running, 1U);  /* pairs: THREADS_EVENT — main says that it closes, then looks at this */
    if (!load_seq(&events_over)) { /* pairs: THREADS_EVENT */
        if (pthread_create(&thread, NULL, event_reader_main, ctx) != 0) {
            die("no thread");
        }
        pthread_join(thread, NULL);
        visit_get(*(uint64_t *)ctx);
    }
    add_seq(&events_running, UINT32_MAX); /* pairs: THREADS_EVENT */
}

static uint64_t
resident_bytes(void)
{
    unsigned long pages = 0;
    char line[128] = {0};
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fgets(line, sizeof line, file) == NULL) {
        die("/proc/self/statm cannot be read");
    }
    (void)fclose(file);
    char *rest = NULL;
    (void)strtoul(line, &rest, 10);
    pages = strtoul(rest, NULL, 10);
    return (uint64_t)pages * 4096;
}

static void
open_small(const char *path, const esker_options *options)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 65536, .window_bytes_max = 65536, .segment_bytes = 131072};
    struct io *io = NULL;
    must(io_open_dir(path, true, ESKER_IO_AUTO, &mem_default, &io), "no directory");
    must(db_open_on(io, options, &tuning, false, &db), "open failed");
}

static void
run_wave(uint64_t first)
{
    static struct visitor visitors[WAVE];
    for (int i = 0; i < WAVE; i++) {
        visitors[i] = (struct visitor){.number = first + (uint64_t)i};
        if (pthread_create(&visitors[i].thread, NULL, visitor_main, &visitors[i]) != 0) {
            die("no thread");
        }
    }
    for (int i = 0; i < WAVE; i++) {
        pthread_join(visitors[i].thread, NULL);
        esker_iter_destroy(visitors[i].it);
        esker_snapshot_release(visitors[i].snapshot);
        esker_value_release(&visitors[i].value);
    }
}

/* Everything that was retired can be freed, and nobody counts what is gone. */
static void
check_reclaimed(void)
{
    esker_stats stats;
    esker_stats_init(&stats);
    must(esker_flush(db), "flush failed");
    for (int patience = 0; patience < 20000; patience++) { /* an event's threads may still be reading */
        epoch_drain();
        must(esker_get_stats(db, &stats), "no statistics");
        if (stats.iterators_live + stats.values_live + stats.snapshots_live == 0 &&
            stats.versions_live == 1) {
            return;
        }
        usleep(1000);
    }
    die("something that was released is still alive, or not freed");
}

int
main(int argc, char **argv)
{
    static uint64_t in_event = 7;
    uint64_t seconds = argc > 1 ? strtoull(argv[1], NULL, 10) : 2;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    uint64_t threads_wanted = seconds > 2 ? THREADS_LEAST / 2 * seconds : THREADS_LEAST;
    esker_allocator allocator = {
        .alloc = visit_alloc, .aligned_alloc = visit_aligned_alloc, .free = visit_free};
    char path[] = "/tmp/esker-threads-XXXXXX";
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.allocator = &allocator;
    options.on_event = event_main;
    options.event_ctx = &in_event;
    if (mkdtemp(path) == NULL) {
        return 1;
    }
    open_small(path, &options);
    for (uint64_t i = 0; i < KEYS; i++) {
        visit_put(i);
    }
    uint64_t resident = 0;
    for (uint64_t number = 0; number < threads_wanted; number += WAVE) {
        run_wave(number);
        if (number / WAVE % 256 == 255) {
            check_reclaimed();
        }
        if (number < threads_wanted / 4) {
            resident = resident_bytes(); /* by now windows and caches have their size */
        }
    }
    check_reclaimed();
    if (GROWN_BYTES_MOST > 0 && resident_bytes() > resident + GROWN_BYTES_MOST) {
        die("the process has grown");
    }
    if (thread_state_count() > 4 * WAVE) {
        die("thread states are not used again");
    }
    store_seq(&events_over, true);            /* pairs: THREADS_EVENT */
    while (load_seq(&events_running) != 0U) { /* pairs: THREADS_EVENT */
        usleep(1000);
    }
    must(esker_close(db), "close failed");
    must(esker_verify(path, NULL, NULL), "damage");
    must(esker_destroy(path), "destroy failed");
    printf("%llu threads came and went, %llu inside a call\n", (unsigned long long)threads_wanted,
           (unsigned long long)load_relaxed(&deaths)); /* relaxed: joined */
    return 0;
}
