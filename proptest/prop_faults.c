/* SPDX-License-Identifier: MIT */
/* rooms: db */
/*
 * Goal: whatever call to the machine fails, once or from then on, the engine
 * reports it with the right kind of status, loses nothing that it acknowledged,
 * leaks nothing, and works again when the cause is gone.
 * Method: one scripted run (open, write, flush, merge, read, close, open again)
 * on the simulated disk; for n = 1, 2, ... the n-th call of a kind fails, until
 * no fault fires any more, in the manner of SQLite's loops. The same for every
 * allocation, and the same during the recovery from a crash. Failed syncs behave in each of the four
 * ways that systems are known for, and a power cut follows. Then the fault is
 * healed, the database reopened and compared.
 *
 *   prop_faults [seed]
 */
#include <errno.h>

#include "batch_model.h"

#ifdef __SANITIZE_ADDRESS__
enum { N_STEP = 9 }; /* every ninth fault: ten times slower there */
#else
enum { N_STEP = 1 };
#endif

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

static bool damage_is_possible; /* a sync that had returned OK had done nothing */

static bool
status_is_fault(esker_status status)
{
    return status == ESKER_IO || status == ESKER_NO_SPACE || status == ESKER_NO_MEMORY ||
           status == ESKER_POISONED || (status == ESKER_CORRUPT && damage_is_possible);
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
                if (i % 7 == 0 || level == ESKER_DURABLE_SYNC) {
                    history->durable = history->submitted;
                }
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
    enum sim_sync_failure how;
    bool power_cut; /* what only seemed to be on the disk is lost before the check */
};

struct sweep_case {
    const struct sweep *sweep;
    uint64_t nth;
    bool sticky, memory, recovering;
    int level;
};

static void
arm(struct sim_disk *disk, const struct sweep_case *one)
{
    alloc_count = 0;
    alloc_fired = 0;
    alloc_sticky = one->sticky;
    alloc_fail_at = one->memory ? one->nth : 0;
    sim_disk_set_sync_failure(disk, one->sweep->how);
    if (!one->memory) {
        sim_disk_fail(disk, one->sweep->kind, one->nth, one->sweep->err, one->sticky);
    }
}

/* A first life without faults that ends in a crash, so that the script begins with a recovery. */
static void
live_and_crash(struct sim_disk *disk, struct history *history, int level)
{
    esker_db *db = NULL;
    struct rng rng = {run_seed + 7};
    if (open_db(disk, level, &test_allocator, &db) != ESKER_OK) {
        fail("does not open without a fault");
    }
    for (int i = 0; i < 25; i++) {
        struct batch *batch = &history->batches[history->submitted++];
        make_batch(&rng, batch, history->submitted);
        if (write_batch(db, batch, i % 5 == 0 ? ESKER_DURABLE_SYNC : ESKER_DURABLE_DEFAULT) != ESKER_OK ||
            (i == 9 && esker_flush(db) != ESKER_OK)) {
            fail("does not work without a fault");
        }
        history->acked = history->submitted;
    }
    history->durable = level == ESKER_DURABLE_SYNC ? history->acked : 21;
    sim_disk_crash(disk, SIM_CRASH_KILL, 0);
    (void)!esker_close(db);
}

/* The disk said that a sync had worked: then a database that says what is missing has done its part. */
static bool
refuses_what_is_missing(struct sim_disk *disk)
{
    esker_db *db = NULL;
    esker_status status = open_db(disk, ESKER_DURABLE_PROCESS, &test_allocator, &db);
    if (status == ESKER_OK) {
        struct image seen;
        image_read(db, &seen);
        sim_disk_crash(disk, SIM_CRASH_KILL, 0);
        (void)!esker_close(db);
    } else if (status != ESKER_CORRUPT) {
        fail("neither opens nor says what is missing");
    }
    return status != ESKER_OK;
}

/* What a sync that returned OK has lost is told, at the open or when it is met; what is read is right. */
static void
look_for_lies(struct sim_disk *disk, const struct history *history)
{
    esker_db *db = NULL;
    damage_is_possible = true;
    esker_status status = open_db(disk, ESKER_DURABLE_PROCESS, &test_allocator, &db);
    expect_fault(status);
    if (status == ESKER_OK) {
        read_some(db, history);
        sim_disk_crash(disk, SIM_CRASH_KILL, 0);
        (void)!esker_close(db);
    }
    damage_is_possible = false;
}

/* One n; false when no fault fired. */
static bool
sweep_one(const struct sweep_case *one)
{
    static struct history history;
    static char what[128];
    snprintf(what, sizeof what, "%s nth %llu%s level %d%s", one->sweep->name, (unsigned long long)one->nth,
             one->sticky ? " sticky" : "", one->level, one->recovering ? " recovering" : "");
    run_what = what;
    memset(&history, 0, sizeof history);
    bool lies = one->sweep->how == SIM_SYNC_LATE, takes_back = false;
    edge_oracle_on = !lies;
    struct sim_disk *disk = sim_disk_create(run_seed);
    alloc_fail_at = 0;
    sim_disk_set_sync_failure(disk, one->sweep->how);
    if (one->recovering) {
        live_and_crash(disk, &history, one->level);
    }
    arm(disk, one);
    script(disk, &history, one->level);
    bool fired = one->memory ? alloc_fired > 0 : sim_disk_fired(disk) > 0;
    alloc_fail_at = 0;
    sim_disk_heal(disk);
    if (one->sweep->power_cut) {
        sim_disk_crash(disk, SIM_CRASH_POWER_NONE, 0);
        history.acked = lies ? 0 : history.durable;
    } else if (one->sweep->how == SIM_SYNC_REVERTS) {
        /* The system took back what it had been given and what was acknowledged as logged. */
        takes_back = history.acked > history.durable;
        history.acked = history.durable;
    }
    if (lies) {
        look_for_lies(disk, &history);
    } else if (!takes_back || !refuses_what_is_missing(disk)) {
        check_healed(disk, &history);
    }
    sim_disk_destroy(disk);
    return fired;
}

int
main(int argc, char **argv)
{
    static const struct sweep sweeps[] = {
        {.name = "open EMFILE", .kind = SIM_OPEN, .err = EMFILE},
        {.name = "read EIO", .kind = SIM_READ, .err = EIO},
        {.name = "write EIO", .kind = SIM_WRITE, .err = EIO},
        {.name = "write EIO, power cut", .kind = SIM_WRITE, .err = EIO, .power_cut = true},
        {.name = "write ENOSPC", .kind = SIM_WRITE, .err = ENOSPC},
        {.name = "sync EIO", .kind = SIM_SYNC, .err = EIO},
        {.name = "sync EIO, pages stay dirty, power cut", .kind = SIM_SYNC, .err = EIO, .power_cut = true},
        {.name = "sync EIO, pages marked clean, power cut",
         .kind = SIM_SYNC,
         .err = EIO,
         .how = SIM_SYNC_MARKS_CLEAN,
         .power_cut = true},
        {.name = "sync EIO, content reverts", .kind = SIM_SYNC, .err = EIO, .how = SIM_SYNC_REVERTS},
        {.name = "sync EIO, content reverts, power cut",
         .kind = SIM_SYNC,
         .err = EIO,
         .how = SIM_SYNC_REVERTS,
         .power_cut = true},
        {.name = "sync EIO, told late, power cut",
         .kind = SIM_SYNC,
         .err = EIO,
         .how = SIM_SYNC_LATE,
         .power_cut = true},
        {.name = "sync_dir EIO", .kind = SIM_SYNC_DIR, .err = EIO},
        {.name = "rename EIO", .kind = SIM_RENAME, .err = EIO},
        {.name = "unlink EIO", .kind = SIM_UNLINK, .err = EIO},
        {.name = "size EIO", .kind = SIM_SIZE, .err = EIO},
        {.name = "list EIO", .kind = SIM_LIST, .err = EIO},
        {.name = "map ENOMEM", .kind = SIM_MAP, .err = ENOMEM},
        {.name = "read ahead EIO", .kind = SIM_AHEAD, .err = EIO},
        {.name = "page memory ENOMEM", .kind = SIM_MEMORY, .err = ENOMEM},
        {.name = "truncate EIO", .kind = SIM_TRUNCATE, .err = EIO},
        {.name = "allocation", .kind = SIM_KINDS},
    };
    run_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t total = 0;
    for (size_t i = 0; i < COUNTOF(sweeps); i++) {
        for (int variant = 0; variant < 8; variant++) {
            struct sweep_case one = {.sweep = &sweeps[i],
                                     .nth = 1,
                                     .sticky = variant % 2 == 1,
                                     .memory = sweeps[i].kind == SIM_KINDS,
                                     .recovering = variant >= 4,
                                     .level =
                                         variant / 2 % 2 == 0 ? ESKER_DURABLE_PROCESS : ESKER_DURABLE_SYNC};
            while (one.nth < N_MAX && sweep_one(&one)) {
                one.nth += N_STEP;
                total++;
            }
        }
    }
    printf("%llu faults, each handled\n", (unsigned long long)total);
    edge_report();
    return 0;
}
