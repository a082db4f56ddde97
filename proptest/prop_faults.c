/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: whatever call to the machine fails, once or from then on, the engine
 * reports it with the right kind of status, loses nothing that it acknowledged,
 * leaks nothing, and works again when the cause is gone.
 * Method: one scripted run (open, write, flush, merge, read, close, open again)
 * on the simulated disk; for n = 1, 2, ... the n-th call of a kind fails, until
 * no fault fires any more, in the manner of SQLite's loops. The same for every
 * allocation. Then the fault is healed, the database reopened and compared.
 *
 *   prop_faults [seed]
 */
#include <errno.h>

#include "batch_model.h"

enum { SCRIPT_BATCHES = 60, N_MAX = 100000 };

/* ---- An allocator that fails on demand and counts what is out ---------------- */

static uint64_t alloc_count, alloc_fail_at, alloc_out, alloc_fired;
static bool alloc_sticky;

static bool
alloc_fails(void)
{
    alloc_count++;
    bool fails =
        alloc_fail_at != 0 && (alloc_count == alloc_fail_at || (alloc_sticky && alloc_count > alloc_fail_at));
    alloc_fired += fails ? 1 : 0;
    return fails;
}

static void *
test_alloc(void *ctx, size_t size)
{
    (void)ctx;
    void *ptr = alloc_fails() ? NULL : malloc(size);
    alloc_out += ptr != NULL ? 1 : 0;
    return ptr;
}

static void *
test_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    void *ptr = alloc_fails() ? NULL : aligned_alloc(alignment, size);
    alloc_out += ptr != NULL ? 1 : 0;
    return ptr;
}

static void
test_free(void *ctx, void *ptr)
{
    (void)ctx;
    alloc_out--;
    free(ptr);
}

static const esker_allocator test_allocator = {test_alloc, test_aligned_alloc, test_free, NULL};

/* ---- The script --------------------------------------------------------------- */

static bool
status_is_fault(esker_status status)
{
    return status == ESKER_IO || status == ESKER_NO_SPACE || status == ESKER_NO_MEMORY ||
           status == ESKER_POISONED;
}

static void
expect_fault(esker_status status)
{
    if (status < 0 && !status_is_fault(status)) {
        fprintf(stderr, "status %s\n", esker_status_name(status));
        fail("a fault came back as another kind of failure");
    }
}

/* Reads what it can; a value that is read must be right, a failure must be a fault. */
static void
read_some(esker_db *db, const struct history *history)
{
    static uint8_t buf[VALUE_MAX], wanted[VALUE_MAX];
    char name[16];
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        esker_status status =
            esker_get_copy(db, bytes_to_slice(make_key(key, name)), NULL, buf, sizeof buf, &size);
        expect_fault(status);
        if (status == ESKER_OK) {
            uint32_t id = le32_load(buf);
            make_value(id, (uint32_t)size, wanted);
            if (id > history->submitted || memcmp(buf, wanted, size) != 0) {
                fail("a wrong value under a fault");
            }
        }
    }
    esker_iter *it;
    esker_status status = esker_iter_create(db, NULL, &it);
    expect_fault(status);
    if (status == ESKER_OK) {
        for (status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        }
        expect_fault(status);
        esker_iter_destroy(it);
    }
}

static void
script(struct sim_disk *disk, struct history *history, int level)
{
    esker_db *db = NULL;
    struct rng rng = {run_seed};
    for (int life = 0; life < 2; life++) {
        esker_status status = open_db(disk, level, &test_allocator, &db);
        expect_fault(status);
        if (status != ESKER_OK) {
            continue;
        }
        for (int i = 0; i < SCRIPT_BATCHES; i++) {
            struct batch *batch = &history->batches[history->submitted];
            make_batch(&rng, batch, history->submitted + 1);
            status = write_batch(db, batch, i % 7 == 0 ? ESKER_DURABLE_SYNC : ESKER_DURABLE_DEFAULT);
            expect_fault(status);
            if (status == ESKER_OK) {
                history->submitted++;
                history->acked = history->submitted;
            } else if (status == ESKER_IO || status == ESKER_POISONED) {
                history->submitted++; /* unknown outcome: it may be there, and ends the prefix */
                break;
            }
            if (i % 20 == 10) {
                expect_fault(esker_flush(db));
                read_some(db, history);
            }
            if (i % 30 == 25) {
                expect_fault(esker_compact(db, NULL, NULL));
                read_some(db, history);
            }
        }
        expect_fault(esker_close(db));
        if (history->submitted != history->acked) {
            return; /* what an unknown outcome became is for the reopen to say */
        }
    }
}

/* The cause is gone: everything acknowledged is there, and writing works. */
static void
check_healed(struct sim_disk *disk, struct history *history)
{
    struct image seen;
    esker_db *db = NULL;
    for (int life = 0; life < 2; life++) {
        if (open_db(disk, ESKER_DURABLE_PROCESS, &test_allocator, &db) != ESKER_OK) {
            fail("does not open after the fault is gone");
        }
        image_read(db, &seen);
        history->submitted = check_prefix(history, history->acked, &seen, "something acknowledged is gone");
        history->acked = history->submitted;
        struct rng rng = {run_seed + 1};
        for (int i = 0; i < 5; i++) {
            struct batch *batch = &history->batches[history->submitted];
            make_batch(&rng, batch, history->submitted + 1);
            if (write_batch(db, batch, ESKER_DURABLE_SYNC) != ESKER_OK) {
                fail("does not write after the fault is gone");
            }
            history->submitted++;
            history->acked = history->submitted;
        }
        if (esker_flush(db) != ESKER_OK || esker_compact(db, NULL, NULL) != ESKER_OK ||
            esker_close(db) != ESKER_OK) {
            fail("does not work after the fault is gone");
        }
    }
    if (alloc_out != 0) {
        fprintf(stderr, "%llu allocations are still out\n", (unsigned long long)alloc_out);
        fail("memory leaked");
    }
}

struct sweep {
    const char *name;
    enum sim_kind kind;
    int err;
};

/* One n; false when no fault fired. */
static bool
sweep_one(const struct sweep *sweep, uint64_t n, bool sticky, int level, bool memory)
{
    static struct history history;
    static char what[96];
    snprintf(what, sizeof what, "%s nth %llu%s level %d", sweep->name, (unsigned long long)n,
             sticky ? " sticky" : "", level);
    run_what = what;
    memset(&history, 0, sizeof history);
    struct sim_disk *disk = sim_disk_create(run_seed);
    alloc_count = 0;
    alloc_fired = 0;
    alloc_sticky = sticky;
    alloc_fail_at = memory ? n : 0;
    if (!memory) {
        sim_disk_fail(disk, sweep->kind, n, sweep->err, sticky);
    }
    script(disk, &history, level);
    bool fired = memory ? alloc_fired > 0 : sim_disk_fired(disk) > 0;
    alloc_fail_at = 0;
    sim_disk_heal(disk);
    check_healed(disk, &history);
    sim_disk_destroy(disk);
    return fired;
}

int
main(int argc, char **argv)
{
    static const struct sweep sweeps[] = {
        {"open EMFILE", SIM_OPEN, EMFILE},   {"read EIO", SIM_READ, EIO},
        {"write EIO", SIM_WRITE, EIO},       {"write ENOSPC", SIM_WRITE, ENOSPC},
        {"sync EIO", SIM_SYNC, EIO},         {"sync_dir EIO", SIM_SYNC_DIR, EIO},
        {"rename EIO", SIM_RENAME, EIO},     {"unlink EIO", SIM_UNLINK, EIO},
        {"size EIO", SIM_SIZE, EIO},         {"list EIO", SIM_LIST, EIO},
        {"map ENOMEM", SIM_MAP, ENOMEM},     {"page memory ENOMEM", SIM_MEMORY, ENOMEM},
        {"truncate EIO", SIM_TRUNCATE, EIO}, {"allocation", SIM_KINDS, 0},
    };
    run_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t total = 0;
    for (size_t i = 0; i < COUNTOF(sweeps); i++) {
        for (int variant = 0; variant < 4; variant++) {
            int level = variant < 2 ? ESKER_DURABLE_PROCESS : ESKER_DURABLE_SYNC;
            uint64_t n = 1;
            while (n < N_MAX &&
                   sweep_one(&sweeps[i], n, variant % 2 == 1, level, sweeps[i].kind == SIM_KINDS)) {
                n++;
            }
            total += n;
        }
    }
    printf("%llu faults, each handled\n", (unsigned long long)total);
    edge_report();
    return 0;
}
