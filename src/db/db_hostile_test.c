/* SPDX-License-Identifier: MIT */
/*
 * Goal: a file of a database that was replaced by something hostile, foreign,
 * or nothing at all is named by CORRUPT or UNSUPPORTED; it makes nobody ask for
 * more than 1 MiB, read a wrong answer, or write anything; and when the good
 * file is put back, everything is there.
 * Method: each file of a small closed database in turn, on the simulated disk
 * with counted memory: noise, magic before noise, good checksums over nonsense,
 * files missing, doubled, or another database's. What is no regular file: in a
 * real directory.
 *
 *   db_hostile_test [seed]
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "base/test_digits.h"
#include "db/db.h"
#include "db/db_files.h"
#include "db/test_counted_mem.h"
#include "format/segment_format.h"
#include "io/io_sim.h"

static uint64_t hostile_seed = 11;

/* So small that a reserve is kept, and with room for what the trials write. */
enum { DISK_BYTES = 384 << 10 };

enum { FILES_MAX = 24, KEYS = 40, HOSTILE_BYTES = 1024, MEMORY_MOST = 1 << 20, NOISES = 12 };

/* ---- The database -------------------------------------------------------------------- */

static esker_status
hostile_open(struct sim_disk *disk, esker_db **out)
{
    static const struct db_tuning tuning = {
        .window_bytes_first = 4096, .window_bytes_max = 8192, .segment_bytes = 16384, .reserve = true};
    struct io *io = NULL;
    esker_options options;
    esker_options_init(&options);
    options.memory_budget_bytes = 8 << 20;
    options.allocator = &counted_allocator;
    assert_int_equal(io_sim_open(disk, &mem_default, &io), ESKER_OK);
    pages_real = io->ops;
    pages_ops = *io->ops;
    pages_ops.map_memory = counted_map_memory;
    pages_ops.unmap_memory = counted_unmap_memory;
    io->ops = &pages_ops;
    memory_most = memory_now;
    return db_open_on(io, &options, &tuning, true, out);
}

static esker_slice
key_of(uint32_t key, char out[16])
{
    return esker_bytes(out, (size_t)snprintf(out, 16, "key%02u", key));
}

/* Every third key was put twice, every fifth deleted in the end. */
static bool
value_of(uint32_t key, char out[32])
{
    snprintf(out, 32, "%s value of %u", key % 3 == 0 ? "second" : "first", key);
    return key % 5 != 0;
}

static void
database_write(esker_db *db, bool second)
{
    char name[16];
    char value[32];
    for (uint32_t key = 0; key < KEYS; key++) {
        (void)value_of(key, value);
        if (!second) {
            snprintf(value, sizeof value, "first value of %u", key);
        }
        if (!second || key % 3 == 0) {
            assert_int_equal(esker_put(db, key_of(key, name), esker_str(value), NULL), ESKER_OK);
        }
        if (second && key % 5 == 0) {
            assert_int_equal(esker_delete(db, key_of(key, name), NULL), ESKER_OK);
        }
    }
}

/* Two segments, a merged one below them, rows in the log, a log to spare. */
static struct sim_disk *
database_create(uint64_t seed)
{
    struct sim_disk *disk = sim_disk_create(seed);
    esker_db *db = NULL;
    char name[16];
    sim_disk_set_capacity(disk, DISK_BYTES);
    assert_int_equal(hostile_open(disk, &db), ESKER_OK);
    database_write(db, false);
    assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
    database_write(db, false);
    assert_int_equal(esker_flush(db), ESKER_OK);
    database_write(db, true);
    assert_int_equal(esker_flush(db), ESKER_OK);
    for (uint32_t key = 0; key < KEYS; key += 5) { /* their deletes stand in the log alone */
        assert_int_equal(esker_put(db, key_of(key, name), esker_str("third"), NULL), ESKER_OK);
        assert_int_equal(esker_delete(db, key_of(key, name), NULL), ESKER_OK);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
    assert_int_equal(memory_now, 0);
    assert_true(sim_disk_exists(disk, DB_RESERVE_NAME));
    return disk;
}

/* Reads everything. hostile: the file that may be told of; NULL = all must be well.
 * Whatever is answered is right. */
static void
database_read(esker_db *db, const char *hostile)
{
    char name[16];
    char value[32];
    char buf[64];
    uint32_t present = 0;
    for (uint32_t key = 0; key < KEYS; key++) {
        size_t size = 0;
        bool there = value_of(key, value);
        present += there ? 1 : 0;
        esker_status status = esker_get_copy(db, key_of(key, name), NULL, buf, sizeof buf, &size);
        if (hostile != NULL && (status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED)) {
            assert_string_equal(status_last()->file, hostile);
            continue;
        }
        assert_int_equal(status, there ? ESKER_OK : ESKER_NOT_FOUND);
        assert_true(!there || (size == strlen(value) && memcmp(buf, value, size) == 0));
    }
    esker_iter *it = NULL;
    assert_int_equal(esker_iter_create(db, NULL, &it), ESKER_OK);
    esker_status status;
    for (status = esker_iter_first(it); status == ESKER_OK; status = esker_iter_next(it)) {
        esker_slice bytes;
        esker_slice found = esker_iter_key(it);
        uint32_t key = test_digits(found.data, found.size, 3);
        assert_int_equal(esker_iter_value(it, &bytes), ESKER_OK);
        assert_true(value_of(key, value));
        assert_true(bytes.size == strlen(value) && memcmp(bytes.data, value, bytes.size) == 0);
        present--;
    }
    if (status == ESKER_END) {
        assert_int_equal(present, 0);
    } else {
        assert_non_null(hostile);
        assert_true(status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
        assert_string_equal(status_last()->file, hostile);
    }
    esker_iter_destroy(it);
}

/* ---- One hostile file ------------------------------------------------------------------- */

struct trial {
    struct sim_disk *good;
    const char *name;
    bool any_name; /* the damage may show in another file: what this one speaks of */
    bool forged;   /* good checksums: what happens to be sane as well is another database, not damage */
    uint32_t refused, told_later, harmless;
};

static uint64_t
disk_hash(struct sim_disk *disk)
{
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(disk, files, COUNTOF(files));
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

static void
trial_expect_refusal(const struct trial *trial, esker_status status)
{
    assert_true(status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
    assert_true(status_last()->message[0] != 0 && status_last()->file[0] != 0);
    if (!trial->any_name) {
        assert_string_equal(status_last()->file, trial->name);
    }
}

/* A reserve is nothing but zeros: what is not is somebody else's, and stays as it is. */
static void
expect_foreign_reserve_kept(struct sim_disk *disk, const char *name, struct bytes put)
{
    struct bytes content = {0};
    bool zeros = true;
    for (size_t i = 0; i < MIN(put.len, (size_t)DB_FILE_HEAD_BYTES); i++) {
        zeros = zeros && put.ptr[i] == 0;
    }
    if (strcmp(name, DB_RESERVE_NAME) == 0 && !zeros) {
        assert_true(sim_disk_get(disk, name, &content));
        assert_true(content.len == put.len && memcmp(content.ptr, put.ptr, put.len) == 0);
    }
}

/* bytes NULL: the file is missing. */
static void
trial_run(struct trial *trial, const uint8_t *bytes, size_t len)
{
    struct sim_disk *disk = sim_disk_clone(trial->good);
    esker_db *db = NULL;
    if (bytes != NULL) {
        sim_disk_put(disk, trial->name, bytes_make(bytes, len));
    } else {
        sim_disk_delete(disk, trial->name);
    }
    uint64_t before = disk_hash(disk);
    esker_status status = hostile_open(disk, &db);
    if (status != ESKER_OK) {
        trial_expect_refusal(trial, status);
        assert_in_range(memory_most, 0, MEMORY_MOST);
        assert_int_equal(disk_hash(disk), before);
        trial->refused++;
    } else if (trial->forged) {
        trial->harmless++;
        (void)esker_close(db);
        sim_disk_destroy(disk);
        return;
    } else {
        database_read(db, trial->name);
        assert_in_range(memory_most, 0, MEMORY_MOST);
        bool segment = strstr(trial->name, ".seg") != NULL;
        trial->told_later += segment ? 1 : 0;
        trial->harmless += segment ? 0 : 1;
        assert_true(segment || strcmp(trial->name, "LOCK") == 0 || strcmp(trial->name, DB_RESERVE_NAME) == 0);
        assert_int_equal(esker_close(db), ESKER_OK);
        expect_foreign_reserve_kept(disk, trial->name, bytes_make(bytes, bytes != NULL ? len : 0));
    }
    assert_int_equal(memory_now, 0);
    sim_disk_copy(trial->good, trial->name, disk, trial->name);
    assert_int_equal(hostile_open(disk, &db), ESKER_OK);
    database_read(db, NULL);
    assert_int_equal(esker_close(db), ESKER_OK);
    sim_disk_destroy(disk);
}

typedef void trial_fn(struct trial *trial, struct rng *rng);

/* Each file of the database in turn. */
static void
for_each_file(trial_fn *each, uint32_t *refused_out)
{
    struct sim_disk *good = database_create(7);
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(good, files, COUNTOF(files));
    struct rng rng = {hostile_seed};
    assert_in_range(count, 8, FILES_MAX); /* CURRENT, LOCK, RESERVE, a manifest, logs, segments */
    for (size_t i = 0; i < count; i++) {
        struct trial trial = {.good = good, .name = files[i].name};
        each(&trial, &rng);
        *refused_out += trial.refused + trial.told_later;
    }
    sim_disk_destroy(good);
}

/* ---- Noise -------------------------------------------------------------------------------- */

static void
make_noise(struct rng *rng, uint8_t *out, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        out[i] = (uint8_t)rng_next(rng);
    }
}

static void
noise_trials(struct trial *trial, struct rng *rng)
{
    uint8_t bytes[HOSTILE_BYTES];
    struct bytes good = {0};
    assert_true(sim_disk_get(trial->good, trial->name, &good));
    for (int i = 0; i < NOISES; i++) {
        make_noise(rng, bytes, sizeof bytes);
        if (i % 3 != 0 && good.len > 0) { /* the magic, or the beginning, or the end as well */
            memcpy(bytes, good.ptr, MIN(good.len, (size_t)(i % 3 == 1 ? 8 : 64)));
        }
        if (i % 4 == 3 && good.len >= 8) {
            memcpy(bytes + sizeof bytes - 8, good.ptr + good.len - 8, 8);
        }
        trial_run(trial, bytes, i == 11 ? 0 : sizeof bytes);
    }
    memset(bytes, 0, sizeof bytes);
    trial_run(trial, bytes, sizeof bytes);
    memset(bytes, 0xFF, sizeof bytes);
    trial_run(trial, bytes, sizeof bytes);
}

static void
noise__is_told_from_files(void **state)
{
    (void)state;
    uint32_t told = 0;
    for_each_file(noise_trials, &told);
    assert_in_range(told, 6 * (NOISES + 2), 1000);
}

/* ---- Good checksums over nonsense ------------------------------------------------------------ */

static uint64_t
hostile_number(struct rng *rng)
{
    static const uint64_t numbers[] = {
        0, 1, 2, 3, 511, 512, 4096, UINT32_MAX, (uint64_t)1 << 40, EDIT_NUMBER_MAX, INT64_MAX, UINT64_MAX};
    uint64_t choice = rng_below(rng, COUNTOF(numbers) + 2);
    return choice < COUNTOF(numbers) ? numbers[choice] : rng_next(rng) >> rng_below(rng, 64);
}

static uint64_t
sane_number(struct rng *rng)
{
    uint64_t number = hostile_number(rng);
    return number == 0 || number > EDIT_NUMBER_MAX ? 1 + rng_below(rng, 20) : number;
}

static void
current_trials(struct trial *trial, struct rng *rng)
{
    for (int i = 0; i < 20; i++) {
        struct file_head head;
        uint8_t bytes[HOSTILE_BYTES] = {0};
        struct bytes good = {0};
        assert_true(sim_disk_get(trial->good, trial->name, &good));
        assert_int_equal(current_decode(good, &head), ESKER_OK);
        if (i < 10) {
            head.number = 2 + hostile_number(rng) % (UINT32_MAX - 1); /* there is only number 1 */
        } else {
            head.uuid[i - 10] ^= 1;
        }
        current_encode(&head, bytes);
        trial->any_name = true;
        trial_run(trial, bytes, CURRENT_BYTES);
    }
}

/* A snapshot of nonsense that the encoder lets through. */
static esker_status
nonsense_edit(struct rng *rng, struct buf *body)
{
    static const uint8_t keys[] = "abcdefgh";
    struct segment_meta metas[3];
    uint64_t logs[4];
    struct edit edit = {.edit_no = sane_number(rng), .is_snapshot = true};
    edit.add_segment_count = rng_below(rng, COUNTOF(metas) + 1);
    edit.add_segments = metas;
    edit.add_log_count = rng_below(rng, COUNTOF(logs) + 1);
    edit.add_logs = logs;
    for (size_t i = 0; i < edit.add_segment_count; i++) {
        uint64_t rows = sane_number(rng);
        uint64_t min_lsn = sane_number(rng);
        uint64_t max_lsn = min_lsn + rng_below(rng, 99);
        metas[i] = (struct segment_meta){.id = rng_below(rng, 2) ? 1 + rng_below(rng, 12) : sane_number(rng),
                                         .size_bytes = sane_number(rng),
                                         .row_count = rows,
                                         .tombstone_count = rows / (1 + rng_below(rng, 3)),
                                         .min_lsn = min_lsn,
                                         .max_lsn = MIN(max_lsn, EDIT_NUMBER_MAX),
                                         .level = (uint32_t)rng_below(rng, EDIT_LEVEL_COUNT),
                                         .min_key = bytes_make(keys, 1 + rng_below(rng, 3)),
                                         .max_key = bytes_make(keys + 4, 1 + rng_below(rng, 3))};
    }
    for (size_t i = 0; i < edit.add_log_count; i++) {
        logs[i] = rng_below(rng, 3) ? 1 + rng_below(rng, 6) : sane_number(rng);
    }
    edit.next_file_id = sane_number(rng);
    edit.wal_min_gen = rng_below(rng, 3) ? 1 + rng_below(rng, 6) : sane_number(rng);
    edit.wal_min_lsn = sane_number(rng);
    edit.durable_lsn = sane_number(rng);
    return edit_encode(&edit, body);
}

static void
manifest_trials(struct trial *trial, struct rng *rng)
{
    struct bytes good = {0};
    struct file_head head;
    struct buf body;
    assert_true(sim_disk_get(trial->good, trial->name, &good));
    assert_int_equal(manifest_header_decode(bytes_make(good.ptr, MANIFEST_HEADER_BYTES), &head), ESKER_OK);
    buf_init(&body, &mem_default);
    for (int i = 0; i < 400; i++) {
        uint8_t bytes[4096] = {0};
        uint64_t len = 16 * (2 + rng_below(rng, 55));
        memcpy(bytes, good.ptr, MANIFEST_HEADER_BYTES);
        uint8_t *frame = bytes + MANIFEST_HEADER_BYTES;
        if (i % 4 == 0) {
            make_noise(rng, frame, len);
        } else {
            buf_clear(&body);
            assert_int_equal(nonsense_edit(rng, &body), ESKER_OK);
            len = align_up(FRAME_HEADER_BYTES + body.len, FRAME_GRANULE);
            assert_true(len < 2048);
            memcpy(frame + FRAME_HEADER_BYTES, body.ptr, body.len);
        }
        if (i % 8 == 7) {
            frame[FRAME_HEADER_BYTES + rng_below(rng, len - FRAME_HEADER_BYTES)] ^= 1;
        }
        frame_seal(frame, len, FRAME_EDIT, FRAME_BACK_NO_CLAIM, frame_file_seed(head.uuid, head.number),
                   MANIFEST_HEADER_BYTES);
        trial->any_name = true;
        trial->forged = true;
        trial_run(trial, bytes, MANIFEST_HEADER_BYTES + (size_t)len);
    }
    buf_fini(&body);
}

static void
log_trials(struct trial *trial, struct rng *rng)
{
    struct bytes good = {0};
    struct log_header header;
    bool unsupported;
    assert_true(sim_disk_get(trial->good, trial->name, &good));
    assert_true(log_header_decode(bytes_make(good.ptr, LOG_PAGE_BYTES), &header, &unsupported));
    for (int i = 0; i < 60; i++) {
        static uint8_t bytes[LOG_HEADER_BYTES + HOSTILE_BYTES];
        struct log_header nonsense = header;
        uint64_t *fields[] = {&nonsense.gen,          &nonsense.base_lsn,    &nonsense.cap_bytes,
                              &nonsense.prev_gen,     &nonsense.durable_lsn, &nonsense.edit_no,
                              &nonsense.prev_end_lsn, &nonsense.manifest_no};
        for (int k = 0; k < 3; k++) {
            *fields[rng_below(rng, COUNTOF(fields))] = hostile_number(rng);
        }
        make_noise(rng, bytes, sizeof bytes);
        log_header_encode(&nonsense, bytes);
        log_header_encode(i % 2 == 0 ? &nonsense : &header, bytes + LOG_PAGE_BYTES);
        trial->any_name = true;
        trial->forged = true;
        trial_run(trial, bytes, i % 3 == 0 ? HOSTILE_BYTES : sizeof bytes);
    }
}

static void
segment_trials(struct trial *trial, struct rng *rng)
{
    struct bytes good = {0};
    uint64_t id = strtoull(trial->name, NULL, 16);
    assert_true(sim_disk_get(trial->good, trial->name, &good));
    for (int i = 0; i < 60; i++) {
        uint8_t bytes[HOSTILE_BYTES];
        make_noise(rng, bytes, sizeof bytes);
        struct segment_footer footer = {.row_count = sane_number(rng),
                                        .tombstone_count = rng_below(rng, 3),
                                        .min_lsn = 1,
                                        .max_lsn = sane_number(rng),
                                        .filter_pages = (uint32_t)hostile_number(rng),
                                        .filter_kind = (uint32_t)rng_below(rng, 2),
                                        .data_block_count = (uint32_t)rng_below(rng, 9),
                                        .index_depth = 1 + (uint32_t)rng_below(rng, 2),
                                        .data_raw_bytes = hostile_number(rng),
                                        .data_end = 64 + rng_below(rng, 600),
                                        .id = id};
        footer.root = (struct segment_handle){.offset = footer.data_end + rng_below(rng, 100),
                                              .stored_len = 17 + (uint32_t)rng_below(rng, 80),
                                              .raw_len = (uint32_t)hostile_number(rng)};
        memcpy(footer.uuid, good.ptr + 16, sizeof footer.uuid);
        segment_header_encode(footer.uuid, id, bytes);
        segment_footer_encode(&footer, bytes + sizeof bytes - SEGMENT_FOOTER_BYTES);
        trial_run(trial, bytes, sizeof bytes);
    }
}

static void
nonsense_trials(struct trial *trial, struct rng *rng)
{
    if (strcmp(trial->name, "CURRENT") == 0) {
        current_trials(trial, rng);
    } else if (strncmp(trial->name, "manifest", 8) == 0) {
        manifest_trials(trial, rng);
    } else if (strncmp(trial->name, "log", 3) == 0) {
        log_trials(trial, rng);
    } else if (strstr(trial->name, ".seg") != NULL) {
        segment_trials(trial, rng);
    }
}

static void
nonsense__under_good_checksums_is_refused(void **state)
{
    (void)state;
    uint32_t told = 0;
    for_each_file(nonsense_trials, &told);
    assert_in_range(told, 500, 5000);
}

/* ---- Missing, doubled, foreign ------------------------------------------------------------------ */

static void
missing_trials(struct trial *trial, struct rng *rng)
{
    (void)rng;
    if (strcmp(trial->name, "LOCK") != 0) {
        trial_run(trial, NULL, 0);
        assert_int_equal(trial->refused, strcmp(trial->name, DB_RESERVE_NAME) == 0 ? 0 : 1);
    }
}

static void
missing__files_are_named(void **state)
{
    (void)state;
    uint32_t told = 0;
    for_each_file(missing_trials, &told);
    assert_in_range(told, 6, FILES_MAX);
}

static void
foreign_trials(struct trial *trial, struct rng *rng)
{
    (void)rng;
    struct sim_disk *other = database_create(8);
    struct bytes content = {0};
    assert_true(sim_disk_get(other, trial->name, &content)); /* the same history, another uuid */
    trial->any_name = strcmp(trial->name, "CURRENT") == 0;
    trial_run(trial, content.ptr, content.len);
    sim_disk_destroy(other);
}

static void
foreign__files_of_the_same_name_are_refused(void **state)
{
    (void)state;
    uint32_t told = 0;
    for_each_file(foreign_trials, &told);
    assert_in_range(told, 6, FILES_MAX);
}

/* A copy under another name of ours is no part of the database, and does no harm. */
static void
doubled_trials(struct trial *trial, struct rng *rng)
{
    static const char *const names[] = {"0000000000000077.seg", "log-000077", "manifest-00000077",
                                        "CURRENT.tmp", DB_RESERVE_NAME};
    (void)rng;
    for (size_t i = 0; i < COUNTOF(names); i++) {
        struct sim_disk *disk = sim_disk_clone(trial->good);
        esker_db *db = NULL;
        struct bytes content = {0};
        assert_true(sim_disk_get(trial->good, trial->name, &content));
        sim_disk_copy(trial->good, trial->name, disk, names[i]);
        for (int life = 0; life < 2; life++) {
            assert_int_equal(hostile_open(disk, &db), ESKER_OK);
            database_read(db, NULL);
            database_write(db, false);
            assert_int_equal(esker_flush(db), ESKER_OK);
            database_write(db, true);
            assert_int_equal(esker_close(db), ESKER_OK);
            expect_foreign_reserve_kept(disk, names[i], content);
        }
        sim_disk_destroy(disk);
    }
}

/* One file's content in the place of another's of its kind. */
static void
swapped_trials(struct trial *trial, struct rng *rng)
{
    (void)rng;
    struct sim_file_info files[FILES_MAX];
    size_t count = sim_disk_files(trial->good, files, COUNTOF(files));
    for (size_t i = 0; i < count; i++) {
        bool same_kind = strncmp(files[i].name, trial->name, 3) == 0 || strstr(files[i].name, ".seg") != NULL;
        if (!same_kind || strcmp(files[i].name, trial->name) == 0 || strcmp(trial->name, "LOCK") == 0) {
            continue;
        }
        struct bytes content = {0};
        assert_true(sim_disk_get(trial->good, files[i].name, &content));
        trial->any_name = strncmp(trial->name, "log", 3) == 0; /* two of one gen: either may be named */
        trial_run(trial, content.ptr, content.len);
    }
}

static void
doubled__files_do_no_harm(void **state)
{
    (void)state;
    uint32_t told = 0;
    for_each_file(doubled_trials, &told);
    for_each_file(swapped_trials, &told);
    assert_in_range(told, 8, 1000);
}

/* ---- No regular file -------------------------------------------------------------------------------- */

/* moved: where the good file is now, outside the database. */
static void
replace_by(const char *path, int what, const char *moved)
{
    assert_int_equal(unlink(path), 0);
    if (what == 0) {
        assert_int_equal(mkfifo(path, 0600), 0);
    } else if (what == 1) {
        assert_int_equal(symlink("/dev/zero", path), 0);
    } else if (what == 2) {
        assert_int_equal(symlink("nowhere", path), 0);
    } else if (what == 4) {
        assert_int_equal(symlink(moved, path), 0); /* all would be well, if it were followed */
    } else {
        assert_int_equal(mkdir(path, 0700), 0);
    }
}

/* A database in a real directory; *name_out: its file of that kind. */
static void
irregular_create(char dir[64], const char *kind, char name_out[40])
{
    esker_db *db = NULL;
    snprintf(dir, 64, "/tmp/esker-hostile-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(esker_open(dir, NULL, &db), ESKER_OK);
    assert_int_equal(esker_put(db, esker_str("key"), esker_str("value"), NULL), ESKER_OK);
    assert_int_equal(esker_flush(db), ESKER_OK);
    snprintf(name_out, 40, "%s", kind);
    if (strcmp(kind, "segment") == 0) {
        segment_file_name(segment_meta(db->current->levels[0]->segments[0])->id, name_out);
    } else if (strcmp(kind, "log") == 0) {
        log_file_name(db->current->windows[0]->log->number, name_out);
    } else if (strcmp(kind, "manifest") == 0) {
        manifest_file_name(manifest_number(db->manifest), name_out);
    }
    assert_int_equal(esker_close(db), ESKER_OK);
}

static esker_status
irregular_open_and_read(const char *dir, const char *name)
{
    esker_db *db = NULL;
    char buf[8];
    size_t size = 0;
    esker_status status = esker_open(dir, NULL, &db);
    if (status == ESKER_OK) { /* a segment is first looked at when it is read */
        assert_non_null(strstr(name, ".seg"));
        status = esker_get_copy(db, esker_str("key"), NULL, buf, sizeof buf, &size);
        assert_string_equal(status_last()->file, name);
        assert_int_equal(esker_close(db), ESKER_OK);
    }
    return status;
}

static void
irregular__files_are_refused_without_waiting(void **state)
{
    (void)state;
    static const char *const kinds[] = {"CURRENT", "manifest", "log", "segment", "LOCK"};
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        for (int what = 0; what < 5; what++) {
            char dir[64];
            char name[40];
            char path[128];
            char moved[80];
            irregular_create(dir, kinds[i], name);
            snprintf(path, sizeof path, "%s/%s", dir, name);
            snprintf(moved, sizeof moved, "%s.good", dir);
            assert_int_equal(link(path, moved), 0);
            replace_by(path, what, moved);
            esker_status status = irregular_open_and_read(dir, name);
            assert_true(status == ESKER_CORRUPT || status == ESKER_IO);
            assert_true(strcmp(kinds[i], "LOCK") == 0 || esker_verify(dir, NULL, NULL) < 0);
            assert_int_equal(what == 3 ? rmdir(path) : unlink(path), 0);
            assert_int_equal(rename(moved, path), 0);
            assert_int_equal(esker_verify(dir, NULL, NULL), ESKER_OK);
            assert_int_equal(esker_destroy(dir), ESKER_OK);
        }
    }
}

/* What has the reserve's name is no part of the database: nobody waits for it, follows or removes it. */
static void
irregular__reserves_are_left_alone(void **state)
{
    (void)state;
    static const uint8_t zeros[DB_FILE_HEAD_BYTES];
    for (int what = 0; what < 5; what++) {
        char dir[64];
        char name[40];
        char path[128];
        char moved[80];
        struct stat before;
        struct stat after;
        esker_db *db = NULL;
        irregular_create(dir, DB_RESERVE_NAME, name);
        snprintf(path, sizeof path, "%s/%s", dir, name);
        snprintf(moved, sizeof moved, "%s.good", dir);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_int_equal(fwrite(zeros, 1, sizeof zeros, file), sizeof zeros);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(link(path, moved), 0);
        replace_by(path, what, moved);
        assert_int_equal(lstat(path, &before), 0);
        assert_int_equal(esker_verify(dir, NULL, NULL), ESKER_OK);
        assert_int_equal(esker_open(dir, NULL, &db), ESKER_OK);
        assert_int_equal(esker_put(db, esker_str("key"), esker_str("value"), NULL), ESKER_OK);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
        assert_int_equal(esker_close(db), ESKER_OK);
        assert_int_equal(lstat(path, &after), 0);
        assert_int_equal(after.st_ino, before.st_ino);
        assert_int_equal(stat(moved, &after), 0);
        assert_int_equal(after.st_size, sizeof zeros);
        assert_int_equal(what == 3 ? rmdir(path) : unlink(path), 0);
        assert_int_equal(unlink(moved), 0);
        assert_int_equal(esker_destroy(dir), ESKER_OK);
    }
}

/* ---- Strangers ---------------------------------------------------------------------------------------- */

/* Names like ours over what is not ours, and what is nobody's. */
static const char *const stranger_names[] = {"0000000000000099.seg", "log-000098",       "manifest-00000097",
                                             "CURRENT.old",          "notes.txt",        "log-98",
                                             "00000000000000AA.seg", "0000000000001.seg"};

static void
strangers_put(struct sim_disk *disk, struct sim_disk *other)
{
    static const uint8_t text[] = "somebody's own words";
    for (size_t i = 0; i < COUNTOF(stranger_names); i++) {
        sim_disk_put(disk, stranger_names[i], bytes_make(text, sizeof text));
    }
    /* Whole files of another database, under a number of its own. */
    sim_disk_copy(other, "log-000002", disk, "log-000096");
    sim_disk_copy(other, "manifest-00000001", disk, "manifest-00000096");
}

/* Their bytes, hashed. */
static uint64_t
strangers_hash(struct sim_disk *disk)
{
    uint64_t hash = 0;
    struct bytes content = {0};
    for (size_t i = 0; i < COUNTOF(stranger_names); i++) {
        assert_true(sim_disk_get(disk, stranger_names[i], &content));
        hash = hash64(content.ptr, content.len, hash);
    }
    assert_true(sim_disk_get(disk, "log-000096", &content));
    hash = hash64(content.ptr, content.len, hash);
    assert_true(sim_disk_get(disk, "manifest-00000096", &content));
    return hash64(content.ptr, content.len, hash);
}

static void
strangers__in_the_directory_are_left_alone(void **state)
{
    (void)state;
    struct sim_disk *disk = database_create(7);
    struct sim_disk *other = database_create(8);
    esker_db *db = NULL;
    strangers_put(disk, other);
    uint64_t before = strangers_hash(disk);
    for (int life = 0; life < 3; life++) {
        assert_int_equal(hostile_open(disk, &db), ESKER_OK);
        database_read(db, NULL);
        database_write(db, false);
        assert_int_equal(esker_compact(db, NULL, NULL), ESKER_OK);
        database_write(db, true);
        if (life == 1) {
            sim_disk_crash(disk, SIM_CRASH_KILL, 1); /* the next open recovers, and clears away orphans */
        }
        (void)esker_close(db);
        assert_int_equal(strangers_hash(disk), before);
    }
    sim_disk_destroy(other);
    sim_disk_destroy(disk);
}

int
main(int argc, char **argv)
{
    hostile_seed = argc > 1 ? strtoull(argv[1], NULL, 10) : hostile_seed;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(noise__is_told_from_files),
        cmocka_unit_test(nonsense__under_good_checksums_is_refused),
        cmocka_unit_test(missing__files_are_named),
        cmocka_unit_test(foreign__files_of_the_same_name_are_refused),
        cmocka_unit_test(doubled__files_do_no_harm),
        cmocka_unit_test(irregular__files_are_refused_without_waiting),
        cmocka_unit_test(irregular__reserves_are_left_alone),
        cmocka_unit_test(strangers__in_the_directory_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
