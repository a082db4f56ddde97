/* SPDX-License-Identifier: MIT */
/*
 * Goal: after any damage to one file, repair makes a database that opens and that verify
 * passes; what the damage did not touch is all there, nothing is there that was never
 * written, the damaged file is kept as it was, and a second repair finds nothing to
 * do. An undamaged database is not touched. A crash anywhere on the way can be repaired.
 * Method: a small database (a merged level, two segments of level 0, rows in the log) on the
 * simulated disk; bits flipped and lengths cut at every n-th byte of every file, files
 * missing, files of another database; each on a clone.
 *
 *   db_repair_test [n]      n: the stride; 97 without, 5 with ESKER_LONG_TESTS. Under the race
 *                           detector 485: one thread does it all, in the other builds all of it
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "db/db.h"
#include "io/io_sim.h"

enum { KEYS = 60, ROUNDS = 5, VALUE_BYTES = 200, FILES_MAX = 32 };

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define REPAIR_UNDER_TSAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__) || defined(REPAIR_UNDER_TSAN)
enum { STRIDE_DEFAULT = 485, FAULTS_APART = 29, FAULTS_OF_CALLS_APART = 5 };
#else
enum { STRIDE_DEFAULT = 97, FAULTS_APART = 7, FAULTS_OF_CALLS_APART = 1 };
#endif

static uint32_t stride = STRIDE_DEFAULT;
static const esker_allocator *repair_allocator; /* NULL: the usual one */

/* ---- The database ---------------------------------------------------------------------- */

static esker_status
repair_open(struct sim_disk *disk, esker_db **out)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 16384, .window_bytes_max = 16384, .segment_bytes = 1 << 20};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.compression = ESKER_COMPRESS_LZ4;
    options.create_if_missing = sim_disk_files(disk, NULL, 0) == 0;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return db_open_on(io, &options, &tuning, true, out);
}

static esker_slice
key_of(uint32_t key, char out[16])
{
    return esker_bytes(out, (size_t)snprintf(out, 16, "key%04u", key));
}

/* In which rounds a key is written, and whether that is a delete. Round 4 stands in the log alone. */
static bool
is_written(uint32_t key, uint32_t round)
{
    return round == 0 || (key * 7 + round) % 3 == 0;
}

static bool
is_deleted(uint32_t key, uint32_t round)
{
    return round > 0 && (key + round) % 5 == 0;
}

/* Half of the bytes pack, half do not. */
static esker_slice
value_of(uint32_t key, uint32_t round, uint8_t out[VALUE_BYTES])
{
    memset(out, (int)('a' + round), VALUE_BYTES);
    for (uint32_t i = 0; i < VALUE_BYTES / 2; i++) {
        out[i] = (uint8_t)hash_mix(key << 8 | round, i);
    }
    return esker_bytes(out, VALUE_BYTES);
}

static uint32_t
last_round(uint32_t key, uint32_t below)
{
    uint32_t round = below - 1;
    while (!is_written(key, round)) {
        round--;
    }
    return round;
}

static void
write_round(esker_db *db, uint32_t round)
{
    char name[16];
    uint8_t value[VALUE_BYTES];
    for (uint32_t key = 0; key < KEYS; key++) {
        if (is_written(key, round)) {
            esker_slice slice = key_of(key, name);
            assert_int_equal(is_deleted(key, round) ? esker_delete(db, slice, NULL)
                                                    : esker_put(db, slice, value_of(key, round, value), NULL),
                             ESKER_OK);
        }
    }
}

/* closed: all of it is synced; else the process was killed, and this boot is proof of the log. */
static struct sim_disk *
repair_create(uint64_t seed, bool closed)
{
    struct sim_disk *disk = sim_disk_create(seed);
    esker_db *db = NULL;
    assert_int_equal(repair_open(disk, &db), ESKER_OK);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        write_round(db, round);
        if (round == 1) {
            assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
        } else if (round == 2 || round == 3) {
            assert_int_equal(esker_flush(db), ESKER_OK);
        }
    }
    if (!closed) {
        sim_disk_crash(disk, SIM_CRASH_KILL, seed);
    }
    (void)esker_close(db);
    return disk;
}

/* ---- What is read ------------------------------------------------------------------------- */

struct tally {
    uint32_t exact, older; /* keys with their newest value, and with an older one or none */
};

static bool
is_version(uint32_t key, uint32_t round, esker_status status, const uint8_t *bytes, size_t size)
{
    uint8_t value[VALUE_BYTES];
    if (is_deleted(key, round)) {
        return status == ESKER_NOT_FOUND;
    }
    return status == ESKER_OK && size == VALUE_BYTES &&
           memcmp(bytes, value_of(key, round, value).data, VALUE_BYTES) == 0;
}

/* Each key has one of the values that it had; a key may be gone with all of them. */
static struct tally
read_all(esker_db *db)
{
    struct tally tally = {0};
    char name[16];
    uint8_t buf[VALUE_BYTES];
    uint32_t present = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        esker_status status = esker_get_copy(db, key_of(key, name), NULL, buf, sizeof buf, &size);
        bool known = status == ESKER_NOT_FOUND;
        for (uint32_t round = 0; round < ROUNDS; round++) {
            known = known || (is_written(key, round) && is_version(key, round, status, buf, size));
        }
        assert_true(known);
        present += status == ESKER_OK ? 1 : 0;
        bool exact = is_version(key, last_round(key, ROUNDS), status, buf, size);
        tally.exact += exact ? 1 : 0;
        tally.older += exact ? 0 : 1;
    }
    esker_iter *it = NULL;
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    esker_status status;
    for (status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        present--;
    }
    assert_int_equal(status, ESKER_END);
    assert_int_equal(present, 0);
    esker_iter_destroy(it);
    return tally;
}

/* ---- One repair ----------------------------------------------------------------------------- */

struct report {
    uint32_t sentences, lost, headers_found;
    bool nothing;
};

static void
each_sentence(void *ctx, const char *sentence)
{
    struct report *report = ctx;
    report->sentences++;
    if (getenv("REPAIR_SHOW") != NULL) {
        print_message("    %s\n", sentence);
    }
    report->lost += strstr(sentence, " lost") != NULL && strstr(sentence, ".lost") == NULL &&
                            strstr(sentence, "none of its") == NULL
                        ? 1
                        : 0;
    report->headers_found += strstr(sentence, "its frames prove that it is generation") != NULL ? 1 : 0;
    report->nothing = report->nothing || strstr(sentence, "nothing is damaged") != NULL;
}

static esker_status
repair_run(struct sim_disk *disk, struct report *report)
{
    struct io *io = NULL;
    *report = (struct report){0};
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return db_repair_on(io, repair_allocator, each_sentence, report);
}

static esker_status
verify_run(struct sim_disk *disk)
{
    struct io *io = NULL;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    return db_verify_on(io, NULL, NULL);
}

static uint64_t
disk_hash(struct sim_disk *disk)
{
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(disk, files, FILES_MAX);
    uint64_t hash = count;
    assert_true(count <= FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct bytes content = {0};
        assert_true(sim_disk_get(disk, files[i].name, &content));
        hash = hash64(files[i].name, strlen(files[i].name), hash);
        hash = content.len > 0 ? hash64(content.ptr, content.len, hash) : hash;
    }
    return hash;
}

/* Opens, reads, writes, closes, verifies. */
static struct tally
use(struct sim_disk *disk)
{
    esker_db *db = NULL;
    assert_int_equal(repair_open(disk, &db), ESKER_OK);
    struct tally tally = read_all(db);
    assert_int_equal(esker_put(db, esker_str("zz"), esker_str("new"), NULL), ESKER_OK);
    assert_int_equal(esker_delete(db, esker_str("zz"), NULL), ESKER_OK);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    struct tally again = read_all(db);
    assert_int_equal(tally.exact, again.exact);
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(verify_run(disk), ESKER_OK);
    return tally;
}

/* The damaged file is there as it was: under its own name, or as a copy. */
static void
expect_evidence(struct sim_disk *disk, const char *name, uint64_t hash)
{
    static const char *const endings[] = {"", ".lost", ".lost2", ".lost3"};
    bool found = false;
    for (size_t i = 0; i < COUNTOF(endings); i++) {
        char copy[64];
        struct bytes content = {0};
        snprintf(copy, sizeof copy, "%s%s", name, endings[i]);
        found = found || (sim_disk_get(disk, copy, &content) && hash64(content.ptr, content.len, 1) == hash);
    }
    assert_true(found);
}

/* Of a damaged disk: what verify says decides what repair must do. Returns the keys that are not exact. */
static uint32_t
repair_and_use(struct sim_disk *disk, const char *name)
{
    struct report report;
    struct bytes content = {0};
    bool exists = sim_disk_get(disk, name, &content);
    uint64_t evidence = exists ? hash64(content.ptr, content.len, 1) : 0;
    uint64_t before = disk_hash(disk);
    bool damaged = verify_run(disk) != ESKER_OK;
    assert_int_equal(repair_run(disk, &report), ESKER_OK);
    assert_true(report.sentences > 0);
    assert_true(damaged || report.nothing);
    assert_true(!report.nothing || disk_hash(disk) == before);
    assert_int_equal(verify_run(disk), ESKER_OK);
    if (exists) {
        expect_evidence(disk, name, evidence);
    }
    before = disk_hash(disk);
    struct report second;
    assert_int_equal(repair_run(disk, &second), ESKER_OK);
    assert_true(second.nothing);
    assert_int_equal(disk_hash(disk), before);
    struct tally tally = use(disk);
    if (tally.older > 0 && report.lost == 0) {
        fail_msg("%s: %u keys are not exact, and nothing was said", name, tally.older);
    }
    return tally.older;
}

/* ---- Tests ------------------------------------------------------------------------------------ */

static void
whole_database__is_not_touched(void **state)
{
    (void)state;
    struct report report;
    struct sim_disk *disk = repair_create(1, false);
    uint64_t before = disk_hash(disk);
    assert_int_equal(repair_run(disk, &report), ESKER_OK);
    assert_true(report.nothing);
    assert_int_equal(report.sentences, 1);
    assert_int_equal(disk_hash(disk), before);
    assert_int_equal(use(disk).exact, KEYS);
    sim_disk_destroy(disk);
}

/* What one damage may cost, by the file that it is in. */
static uint32_t
worst_of(const char *name)
{
    if (strncmp(name, "CURRENT", 7) == 0 || strcmp(name, "LOCK") == 0) {
        return 0;
    }
    return KEYS;
}

static void
flipped__bits_cost_no_more_than_their_block(void **state)
{
    (void)state;
    struct sim_disk *good = repair_create(1, false);
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(good, files, FILES_MAX);
    uint32_t trials = 0;
    uint32_t lossy = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t costs = 0;
        for (uint64_t at = i % stride; at < files[i].bytes; at += stride) {
            struct sim_disk *disk = sim_disk_clone(good);
            sim_disk_flip(disk, files[i].name, at * 8 + at % 8);
            uint32_t cost = repair_and_use(disk, files[i].name);
            assert_true(cost <= worst_of(files[i].name));
            /* A frame is small enough to be corrected. */
            assert_true(cost == 0 || strncmp(files[i].name, "log", 3) != 0);
            costs += cost;
            lossy += cost > 0 ? 1 : 0;
            trials++;
            sim_disk_destroy(disk);
        }
        print_message("%s: %u keys not exact\n", files[i].name, costs);
    }
    print_message("%u flips, %u of them cost something\n", trials, lossy);
    assert_true(lossy > 0 && lossy < trials / 2);
    sim_disk_destroy(good);
}

static void
cut__files_give_what_is_left(void **state)
{
    (void)state;
    struct sim_disk *good = repair_create(2, false);
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(good, files, FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        for (uint64_t bytes = i % stride; bytes < files[i].bytes; bytes += (uint64_t)stride * 4) {
            struct sim_disk *disk = sim_disk_clone(good);
            sim_disk_resize(disk, files[i].name, bytes);
            assert_true(repair_and_use(disk, files[i].name) <= worst_of(files[i].name));
            sim_disk_destroy(disk);
        }
    }
    sim_disk_destroy(good);
}

static void
missing_and_foreign__files_are_survived(void **state)
{
    (void)state;
    struct sim_disk *good = repair_create(3, false);
    struct sim_disk *other = repair_create(4, false);
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(good, files, FILES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct sim_disk *disk = sim_disk_clone(good);
        sim_disk_delete(disk, files[i].name);
        assert_true(repair_and_use(disk, files[i].name) <= worst_of(files[i].name));
        sim_disk_destroy(disk);
        disk = sim_disk_clone(good);
        sim_disk_copy(other, files[i].name, disk, files[i].name);
        assert_true(repair_and_use(disk, files[i].name) <= worst_of(files[i].name));
        sim_disk_destroy(disk);
    }
    sim_disk_destroy(other);
    sim_disk_destroy(good);
}

/* Two flipped bits are beyond correction: that batch is lost, what stands behind it is not. */
static void
broken_frame__costs_its_own_batch_only(void **state)
{
    (void)state;
    for (int closed = 0; closed < 2; closed++) {
        struct sim_disk *good = repair_create(6, closed == 1);
        struct sim_file_info files[FILES_MAX];
        size_t count = sim_disk_files(good, files, FILES_MAX);
        uint32_t costs = 0;
        for (size_t i = 0; i < count; i++) {
            for (uint64_t at = 8192 + 50; strncmp(files[i].name, "log", 3) == 0 && at < 8192 + 3000;
                 at += 112) {
                struct sim_disk *disk = sim_disk_clone(good);
                sim_disk_flip(disk, files[i].name, at * 8);
                sim_disk_flip(disk, files[i].name, at * 8 + 9);
                uint32_t cost = repair_and_use(disk, files[i].name);
                assert_in_range(cost, 0, 1);
                costs += cost;
                sim_disk_destroy(disk);
            }
        }
        assert_in_range(costs, 5, 100);
        sim_disk_destroy(good);
    }
}

static uint64_t
content_hash(struct sim_disk *disk)
{
    esker_db *db = NULL;
    esker_iter *it = NULL;
    uint64_t hash = 0;
    assert_int_equal(repair_open(disk, &db), ESKER_OK);
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    esker_status status;
    for (status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        esker_slice value;
        assert_int_equal(esker_iter_value(it, &value), ESKER_OK);
        hash = hash64(esker_iter_key(it).data, esker_iter_key(it).size, hash);
        hash = hash64(value.data, value.size, hash);
    }
    assert_int_equal(status, ESKER_END);
    esker_iter_destroy(it);
    assert_int_equal(esker_close(db), ESKER_OK);
    return hash;
}

/* A bad frame that nothing proves ends the log for repair as it does for open, whatever stands behind. */
static void
unproven__frames_end_the_log(void **state)
{
    (void)state;
    struct sim_disk *good = repair_create(7, false);
    struct sim_file_info files[FILES_MAX];
    sim_disk_crash(good, SIM_CRASH_POWER_ALL, 7); /* another boot: no proof but what was synced */
    size_t count = sim_disk_files(good, files, FILES_MAX);
    uint32_t differ = 0;
    uint64_t whole = 0;
    for (size_t i = 0; i < count; i++) {
        for (uint64_t at = 8192 + 50; strncmp(files[i].name, "log", 3) == 0 && at < 8192 + 3000; at += 448) {
            struct sim_disk *opened = sim_disk_clone(good);
            struct sim_disk *repaired = sim_disk_clone(good);
            struct report report;
            whole = content_hash(opened);
            sim_disk_destroy(opened);
            opened = sim_disk_clone(good);
            for (uint64_t bit = at * 8; bit < at * 8 + 18; bit += 9) {
                sim_disk_flip(opened, files[i].name, bit);
                sim_disk_flip(repaired, files[i].name, bit);
            }
            sim_disk_delete(repaired, "CURRENT");
            if (verify_run(opened) == ESKER_OK) {
                assert_int_equal(repair_run(repaired, &report), ESKER_OK);
                uint64_t hash = content_hash(opened);
                assert_true(content_hash(repaired) == hash);
                differ += hash != whole ? 1 : 0;
            }
            sim_disk_destroy(opened);
            sim_disk_destroy(repaired);
        }
    }
    assert_true(differ > 2);
    sim_disk_destroy(good);
}

/* Power is lost at the n-th change, in any legal state; then repair is run again. */
static void
crash__on_the_way_can_be_repaired(void **state)
{
    (void)state;
    static const char *const damaged[] = {"CURRENT", ".seg", "log-"};
    struct sim_disk *good = repair_create(5, true);
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(good, files, FILES_MAX);
    for (size_t d = 0; d < COUNTOF(damaged); d++) {
        const char *name = NULL;
        for (size_t i = 0; i < count; i++) {
            name = strstr(files[i].name, damaged[d]) != NULL ? files[i].name : name;
        }
        assert_non_null(name);
        bool done = false;
        for (uint64_t nth = 1; !done; nth++) {
            struct sim_disk *disk = sim_disk_clone(good);
            struct report report;
            struct bytes content = {0};
            uint64_t bit = d == 2 ? (8192 + 40) * 8 : 9 * 8; /* a frame; a head */
            sim_disk_flip(disk, name, bit);
            assert_true(sim_disk_get(disk, name, &content));
            uint64_t evidence = hash64(content.ptr, content.len, 1);
            sim_disk_crash_at(disk, nth);
            esker_status status = repair_run(disk, &report);
            done = !sim_disk_is_off(disk);
            assert_int_equal(status, done ? ESKER_OK : status);
            sim_disk_crash(disk, SIM_CRASH_POWER_RANDOM, nth);
            assert_int_equal(repair_run(disk, &report), ESKER_OK);
            expect_evidence(disk, name, evidence);
            assert_int_equal(use(disk).exact, KEYS);
            expect_evidence(disk, name, evidence);
            sim_disk_destroy(disk);
            assert_true(nth < 1000);
        }
    }
    sim_disk_destroy(good);
}

/* ---- Headers --------------------------------------------------------------------------------- */

/* Both header pages of a log: bits of two fields, the same in both pages or one in each; all of
 * them nothing; or noise. */
enum { HEADER_FIELDS = 16, HEADER_NOTHING = HEADER_FIELDS * HEADER_FIELDS, HEADER_NOISE, HEADER_DAMAGES };

static void
header_damage(struct sim_disk *disk, const char *name, uint32_t damage)
{
    if (damage < HEADER_NOTHING) {
        sim_disk_flip(disk, name, damage / HEADER_FIELDS * 64 + damage % 11);
        sim_disk_flip(disk, name, LOG_PAGE_BYTES * 8 + damage % HEADER_FIELDS * 64 + damage % 7);
        return;
    }
    struct bytes content = {0};
    assert_true(sim_disk_get(disk, name, &content));
    uint8_t *changed = malloc(content.len);
    assert_non_null(changed);
    memcpy(changed, content.ptr, content.len);
    for (uint32_t at = 0; at < LOG_HEADER_BYTES; at++) {
        changed[at] = damage == HEADER_NOTHING ? 0 : (uint8_t)hash_mix(at, damage);
    }
    sim_disk_put(disk, name, bytes_make(changed, content.len));
    free(changed);
}

/* Opening tells it; repair finds out from the frames what the header said, and loses no row. */
static void
broken_headers__of_a_log_cost_nothing(void **state)
{
    (void)state;
    uint32_t found = 0;
    for (uint64_t seed = 6; seed < 10; seed++) {
        struct sim_disk *good = repair_create(seed, seed % 2 == 0);
        struct sim_file_info files[FILES_MAX];
        size_t count = sim_disk_files(good, files, FILES_MAX);
        for (size_t i = 0; i < count; i++) {
            bool log = strncmp(files[i].name, "log-", 4) == 0;
            uint32_t step = stride > 50 ? 23 : 1;
            for (uint32_t damage = log ? 0 : HEADER_DAMAGES; damage < HEADER_DAMAGES;
                 damage += damage + step < HEADER_NOTHING ? step : 1) {
                struct sim_disk *disk = sim_disk_clone(good);
                struct report report;
                esker_db *db = NULL;
                struct bytes content = {0};
                header_damage(disk, files[i].name, damage);
                assert_int_equal(repair_open(disk, &db), ESKER_CORRUPT);
                assert_string_equal(status_last()->file, files[i].name);
                assert_int_equal(verify_run(disk), ESKER_CORRUPT);
                assert_true(sim_disk_get(disk, files[i].name, &content));
                uint64_t evidence = hash64(content.ptr, content.len, 1);
                assert_int_equal(repair_run(disk, &report), ESKER_OK);
                assert_true(report.headers_found + report.lost > 0);
                expect_evidence(disk, files[i].name, evidence);
                found += report.headers_found;
                assert_int_equal(use(disk).exact, KEYS);
                sim_disk_destroy(disk);
            }
        }
        sim_disk_destroy(good);
    }
    assert_true(found > 0);
    print_message("%u headers were found by their frames\n", found);
}

/* ---- Faults on the way -------------------------------------------------------------------- */

static uint64_t alloc_count, alloc_fail_at, alloc_out;
static bool alloc_sticky;

static bool
fault_alloc_fails(void)
{
    alloc_count++;
    return alloc_fail_at != 0 &&
           (alloc_count == alloc_fail_at || (alloc_sticky && alloc_count > alloc_fail_at));
}

static void *
fault_alloc(void *ctx, size_t size)
{
    (void)ctx;
    void *ptr = fault_alloc_fails() ? NULL : malloc(size);
    alloc_out += ptr != NULL;
    return ptr;
}

static void *
fault_aligned_alloc(void *ctx, size_t alignment, size_t size)
{
    (void)ctx;
    void *ptr = fault_alloc_fails() ? NULL : aligned_alloc(alignment, size);
    alloc_out += ptr != NULL;
    return ptr;
}

static void
fault_free(void *ctx, void *ptr)
{
    (void)ctx;
    alloc_out -= ptr != NULL;
    free(ptr);
}

static const esker_allocator fault_allocator = {fault_alloc, fault_aligned_alloc, fault_free, NULL};

/* One damage: of which file, where. */
struct fault_damage {
    const char *file; /* part of its name; the last one where it is damage */
    uint64_t bit;     /* UINT64_MAX: the file is missing */
};

static const struct fault_damage fault_damages[] = {
    {".seg", 100 * 8}, {"log-", (8192 + 40) * 8}, {"manifest", 100 * 8}, {"CURRENT", UINT64_MAX}};

static struct sim_disk *
fault_disk(struct sim_disk *good, const struct fault_damage *damage, char name[40])
{
    struct sim_disk *disk = sim_disk_clone(good);
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(disk, files, FILES_MAX);
    for (size_t i = count; i-- > 0;) {
        if (strstr(files[i].name, damage->file) == NULL) {
            continue;
        }
        memcpy(name, files[i].name, sizeof files[i].name);
        if (damage->bit == UINT64_MAX) {
            sim_disk_delete(disk, name);
        } else {
            sim_disk_flip(disk, name, damage->bit);
        }
        if (verify_run(disk) == ESKER_CORRUPT) {
            return disk;
        }
        sim_disk_flip(disk, name, damage->bit); /* a bit of no meaning: of a spare log */
    }
    fail();
    return disk;
}

/* A repair under one fault; then one without. What the second leaves is what a first would have.
 * op: as in sim_disk_script, or NULL for allocations. False: the fault was not met any more. */
static bool
fault_once(struct sim_disk *good, const struct fault_damage *damage, const char *op, uint64_t nth,
           bool sticky, uint32_t exact)
{
    char script[80];
    char name[40];
    struct report report;
    struct bytes content = {0};
    struct sim_disk *disk = fault_disk(good, damage, name);
    bool missing = damage->bit == UINT64_MAX;
    assert_true(missing || sim_disk_get(disk, name, &content));
    uint64_t evidence = missing ? 0 : hash64(content.ptr, content.len, 1);
    if (op != NULL) {
        char kind[16];
        char action[16];
        assert_int_equal(sscanf(op, "%15[^:]:%15s", kind, action), 2);
        snprintf(script, sizeof script, "%s:%llu:%s%s", kind, (unsigned long long)nth, action,
                 sticky ? ":sticky" : "");
        assert_true(sim_disk_script(disk, script));
    }
    alloc_count = alloc_out = 0;
    alloc_fail_at = op == NULL ? nth : 0;
    alloc_sticky = sticky;
    repair_allocator = &fault_allocator;
    esker_status status = repair_run(disk, &report);
    bool fired = op != NULL ? sim_disk_fired(disk) > 0 : alloc_count >= nth;
    alloc_fail_at = 0;
    repair_allocator = NULL;
    if (getenv("REPAIR_SHOW") != NULL) {
        print_message("%s %s:%llu:%d: %s\n", damage->file, op != NULL ? op : "memory",
                      (unsigned long long)nth, sticky, esker_status_name(status));
    }
    assert_int_equal(alloc_out, 0);
    assert_true(status != ESKER_CORRUPT && status != ESKER_NOT_FOUND); /* a fault is no damage */
    assert_true(fired || status == ESKER_OK);
    sim_disk_heal(disk);
    if (!missing) {
        expect_evidence(disk, name, evidence);
    }
    sim_disk_crash(disk, SIM_CRASH_POWER_RANDOM, nth);
    assert_int_equal(repair_run(disk, &report), ESKER_OK);
    assert_int_equal(use(disk).exact, exact);
    if (!missing) {
        expect_evidence(disk, name, evidence);
    }
    sim_disk_destroy(disk);
    return fired;
}

static void
fault__on_the_way_makes_nothing_worse(void **state)
{
    (void)state;
    static const char *const ops[] = {NULL,           "read:EIO", "open:EMFILE",  "open:EIO",   "write:EIO",
                                      "write:ENOSPC", "sync:EIO", "syncdir:EIO",  "rename:EIO", "unlink:EIO",
                                      "list:EIO",     "size:EIO", "memory:ENOMEM"};
    struct sim_disk *good = repair_create(5, true);
    for (size_t d = 0; d < COUNTOF(fault_damages); d++) {
        char name[40];
        struct report report;
        struct sim_disk *plain = fault_disk(good, &fault_damages[d], name);
        assert_int_equal(repair_run(plain, &report), ESKER_OK);
        uint32_t exact = use(plain).exact;
        sim_disk_destroy(plain);
        for (size_t i = 0; i < 2 * COUNTOF(ops); i++) {
            uint64_t nth = 1;
            while (fault_once(good, &fault_damages[d], ops[i / 2], nth, i % 2 != 0, exact)) {
                uint64_t step = ops[i / 2] == NULL ? FAULTS_APART : FAULTS_OF_CALLS_APART;
                nth += stride > 50 && nth > (ops[i / 2] == NULL ? 40 : 8) ? step : 1;
                assert_true(nth < 100000);
            }
        }
    }
    sim_disk_destroy(good);
}

int
main(int argc, char **argv)
{
    stride = getenv("ESKER_LONG_TESTS") != NULL ? 5 : stride;
    stride = argc > 1 ? (uint32_t)MAX(strtoul(argv[1], NULL, 10), 1UL) : stride;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_database__is_not_touched),
        cmocka_unit_test(flipped__bits_cost_no_more_than_their_block),
        cmocka_unit_test(cut__files_give_what_is_left),
        cmocka_unit_test(missing_and_foreign__files_are_survived),
        cmocka_unit_test(broken_frame__costs_its_own_batch_only),
        cmocka_unit_test(unproven__frames_end_the_log),
        cmocka_unit_test(crash__on_the_way_can_be_repaired),
        cmocka_unit_test(broken_headers__of_a_log_cost_nothing),
        cmocka_unit_test(fault__on_the_way_makes_nothing_worse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
