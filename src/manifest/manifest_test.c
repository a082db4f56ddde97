/* SPDX-License-Identifier: MIT */
/*
 * Goal: what was appended is replayed; damage is reported, a torn last edit is
 * not; the order of writes, syncs and renames is the one that survives a crash;
 * any failed call leaves a handle and a directory that can go on.
 * Method: real files of a few hundred bytes; every flip and every cut; a layer
 * over the back-end that records each call and fails the n-th.
 */
#include "manifest/manifest.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "format/frame.h"
#include "io/test_dir.h"

static const uint8_t uuid[16] = "manifest-test-id";

/* ---- Recording and failing layer ------------------------------------------ */

static struct {
    const struct io_ops *real;
    struct io_ops ops;
    char text[1024]; /* one word per call */
    int fail_at;     /* this call fails, counted from 0; -1: none */
    int calls;
    bool full; /* it fails for want of room, half written */
} layer;

static bool
layer_step(const char *word, const char *name)
{
    size_t used = strlen(layer.text);
    snprintf(layer.text + used, sizeof layer.text - used, "%s%s:%s", used == 0 ? "" : " ", word, name);
    return layer.calls++ == layer.fail_at;
}

static void
layer_run(struct io *io, struct io_req *reqs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (reqs[i].op != IO_READ &&
            layer_step(reqs[i].op == IO_SYNC ? "sync" : "write", reqs[i].file->name)) {
            struct io_req half = reqs[i];
            half.len /= 2;
            if (layer.full && reqs[i].op == IO_WRITE) {
                layer.real->run(io, &half, 1);
            }
            reqs[i].result = layer.full ? -ENOSPC : -EIO;
            continue;
        }
        layer.real->run(io, &reqs[i], 1);
    }
}

static int
layer_sync_dir(struct io *io)
{
    return layer_step("syncdir", "") ? -EIO : layer.real->sync_dir(io);
}

static int
layer_rename(struct io *io, const char *from, const char *to)
{
    return layer_step("rename", to) ? -EIO : layer.real->rename_file(io, from, to);
}

static int
layer_unlink(struct io *io, const char *name)
{
    return layer_step("unlink", name) ? -EIO : layer.real->unlink_file(io, name);
}

static void
layer_reset(int fail_at)
{
    layer.text[0] = '\0';
    layer.calls = 0;
    layer.fail_at = fail_at;
    layer.full = false;
}

/* ---- Fixture --------------------------------------------------------------- */

static char dir[64];
static struct io *io;

static int
setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "./manifest_test_XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(io_open_dir(dir, false, ESKER_IO_POSIX, &mem_default, &io), ESKER_OK);
    layer.real = io->ops;
    layer.ops = *io->ops;
    layer.ops.run = layer_run;
    layer.ops.sync_dir = layer_sync_dir;
    layer.ops.rename_file = layer_rename;
    layer.ops.unlink_file = layer_unlink;
    io->ops = &layer.ops;
    layer_reset(-1);
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    io_close_dir(io);
    test_dir_remove(dir);
    return 0;
}

static void
put_file(const char *name, struct bytes content)
{
    struct io_file *file = NULL;
    assert_int_equal(io_open_file(io, name, IO_OPEN_WRITE | IO_OPEN_CREATE, &file), ESKER_OK);
    assert_int_equal(io_truncate(io, file, 0), ESKER_OK);
    assert_int_equal(io_write_full(io, file, 0, content.ptr, content.len), ESKER_OK);
    io_close_file(io, file);
}

static struct buf
get_file(const char *name)
{
    struct buf buf;
    buf_init(&buf, &mem_default);
    assert_int_equal(io_read_file(io, name, 1 << 24, &buf), ESKER_OK);
    return buf;
}

static bool
exists(const char *name)
{
    struct io_file *file = NULL;
    int failed = io->ops->open_file(io, name, IO_OPEN_READ, &file);
    if (failed == 0) {
        io->ops->close_file(io, file);
    }
    return failed == 0;
}

/* What replay saw: a sum over the added segments' ids, and the edits' count. */
struct seen {
    uint64_t id_sum, edits, last_edit_no;
    esker_status answer;
};

static esker_status
see_edit(void *ctx, const struct edit *edit)
{
    struct seen *seen = ctx;
    if (edit->is_snapshot) {
        seen->id_sum = 0;
    }
    for (size_t i = 0; i < edit->add_segment_count; i++) {
        seen->id_sum += edit->add_segments[i].id;
    }
    seen->edits++;
    seen->last_edit_no = edit->edit_no;
    return seen->answer;
}

static esker_status
open_manifest(struct seen *seen, struct manifest **out)
{
    *seen = (struct seen){0};
    return manifest_open(io, &mem_default, see_edit, seen, out);
}

static esker_status
append_segment(struct manifest *manifest, uint64_t id)
{
    struct segment_meta segment = {.id = id, .size_bytes = 1, .row_count = 1, .min_key = bytes_make("k", 1)};
    struct edit edit = {.add_segments = &segment, .add_segment_count = 1};
    return manifest_append(manifest, &edit);
}

static esker_status
rewrite_with(struct manifest *manifest, uint64_t id_sum)
{
    struct segment_meta segment = {.id = id_sum, .size_bytes = 1, .row_count = 1};
    struct edit edit = {
        .add_segments = &segment, .add_segment_count = id_sum == 0 ? 0 : 1, .next_file_id = 5};
    return manifest_rewrite(manifest, &edit);
}

/* Snapshot, segment 10, segment 200, segment 3000. Edits 1 to 4. */
static struct manifest *
make_sample(void)
{
    struct manifest *manifest = NULL;
    struct edit snapshot = {.next_file_id = 5, .wal_min_gen = 1};
    assert_int_equal(manifest_create(io, &mem_default, uuid, 1, &snapshot, &manifest), ESKER_OK);
    assert_int_equal(append_segment(manifest, 10), ESKER_OK);
    assert_int_equal(append_segment(manifest, 200), ESKER_OK);
    assert_int_equal(append_segment(manifest, 3000), ESKER_OK);
    return manifest;
}

/* Offsets of the sample's frames, the end included. */
static size_t
frame_offsets(const struct buf *file, size_t offsets[16])
{
    size_t count = 0;
    struct frame frame;
    uint64_t at = MANIFEST_HEADER_BYTES;
    offsets[count++] = at;
    while (frame_decode(bytes_make(file->ptr + at, file->len - at), frame_file_seed(uuid, 1), at, &frame)) {
        at += frame.len_bytes;
        offsets[count++] = at;
    }
    assert_int_equal(at, file->len);
    return count - 1;
}

/* ---- Tests ----------------------------------------------------------------- */

static void
manifest__appended_edits_are_replayed(void **state)
{
    (void)state;
    struct manifest *manifest = make_sample();
    assert_int_equal(manifest_edit_no(manifest), 4);
    assert_int_equal(manifest_number(manifest), 1);
    manifest_destroy(manifest);
    struct seen seen;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_int_equal(seen.id_sum, 3210);
    assert_int_equal(seen.edits, 4);
    assert_int_equal(seen.last_edit_no, 4);
    assert_int_equal(manifest_edit_no(manifest), 4);
    assert_memory_equal(manifest_uuid(manifest), uuid, 16);
    assert_false(manifest_wants_rewrite(manifest));
    assert_int_equal(append_segment(manifest, 40000), ESKER_OK);
    manifest_destroy(manifest);
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_int_equal(seen.id_sum, 43210);
    manifest_destroy(manifest);
}

static void
manifest__missing_files_are_named(void **state)
{
    (void)state;
    struct seen seen;
    struct manifest *manifest = NULL;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_NOT_FOUND);
    manifest_destroy(make_sample());
    assert_int_equal(io_unlink(io, "manifest-00000001"), ESKER_OK);
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    assert_string_equal(status_last()->file, "manifest-00000001");
    assert_null(manifest);
}

static void
manifest__every_damage_of_current_is_reported(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct buf good = get_file("CURRENT");
    struct seen seen;
    struct manifest *manifest = NULL;
    for (size_t bit = 0; bit < good.len * 8; bit++) {
        good.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        put_file("CURRENT", buf_bytes(&good));
        assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
        assert_string_equal(status_last()->file, "CURRENT");
        good.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    for (size_t len = 0; len < good.len; len++) {
        put_file("CURRENT", bytes_make(good.ptr, len));
        assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    }
    assert_int_equal(buf_append_u8(&good, 0), ESKER_OK);
    put_file("CURRENT", buf_bytes(&good));
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    buf_fini(&good);
}

/* Opens, expects the state before the last edit and a file that must be rewritten first. */
static void
check_torn(uint64_t id_sum, uint64_t edits)
{
    struct seen seen;
    struct manifest *manifest = NULL;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_int_equal(seen.id_sum, id_sum);
    assert_int_equal(seen.edits, edits);
    assert_int_equal(manifest_edit_no(manifest), edits);
    assert_true(manifest_wants_rewrite(manifest));
    assert_int_equal(append_segment(manifest, 7), ESKER_POISONED);
    assert_int_equal(manifest_confirm(manifest), ESKER_OK);
    assert_int_equal(append_segment(manifest, 7), ESKER_POISONED);
    manifest_destroy(manifest);
}

static void
manifest__every_flip_is_reported_or_tears_the_last_edit(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct buf good = get_file("manifest-00000001");
    size_t offsets[16];
    assert_int_equal(frame_offsets(&good, offsets), 4);
    for (size_t bit = 0; bit < good.len * 8; bit++) {
        good.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
        put_file("manifest-00000001", buf_bytes(&good));
        if (bit / 8 >= offsets[3]) {
            check_torn(210, 3);
        } else {
            struct seen seen;
            struct manifest *manifest = NULL;
            assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
            assert_string_equal(status_last()->file, "manifest-00000001");
            assert_true(status_last()->offset <= bit / 8);
        }
        good.ptr[bit / 8] ^= (uint8_t)(1U << (bit % 8));
    }
    buf_fini(&good);
}

static void
manifest__every_cut_is_reported_or_drops_whole_edits(void **state)
{
    (void)state;
    static const uint64_t sums[] = {0, 0, 10, 210, 3210};
    manifest_destroy(make_sample());
    struct buf good = get_file("manifest-00000001");
    size_t offsets[16];
    assert_int_equal(frame_offsets(&good, offsets), 4);
    for (size_t len = 0; len <= good.len; len++) {
        put_file("manifest-00000001", bytes_make(good.ptr, len));
        size_t whole = 0;
        while (whole < 4 && offsets[whole + 1] <= len) {
            whole++;
        }
        struct seen seen;
        struct manifest *manifest = NULL;
        if (whole == 0) {
            assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
        } else if (offsets[whole] == len) {
            assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
            assert_int_equal(seen.id_sum, sums[whole]);
            assert_false(manifest_wants_rewrite(manifest));
            manifest_destroy(manifest);
        } else {
            check_torn(sums[whole], whole);
        }
    }
    buf_fini(&good);
}

static void
manifest__a_torn_edit_is_cut_by_a_rewrite(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct buf good = get_file("manifest-00000001");
    put_file("manifest-00000001", bytes_make(good.ptr, good.len - 5));
    buf_fini(&good);
    struct seen seen;
    struct manifest *manifest = NULL;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_int_equal(rewrite_with(manifest, seen.id_sum), ESKER_OK);
    assert_false(manifest_wants_rewrite(manifest));
    assert_int_equal(manifest_number(manifest), 2);
    assert_int_equal(manifest_edit_no(manifest), 4);
    assert_int_equal(append_segment(manifest, 7000), ESKER_OK);
    manifest_destroy(manifest);
    assert_false(exists("manifest-00000001"));
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_int_equal(seen.id_sum, 7210);
    assert_int_equal(seen.last_edit_no, 5);
    manifest_destroy(manifest);
}

static void
manifest__a_bad_edit_with_a_good_one_behind_it_is_damage(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct buf good = get_file("manifest-00000001");
    size_t offsets[16];
    assert_int_equal(frame_offsets(&good, offsets), 4);
    memset(good.ptr + offsets[2], 0, offsets[3] - offsets[2]);
    put_file("manifest-00000001", buf_bytes(&good));
    struct seen seen;
    struct manifest *manifest = NULL;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    assert_int_equal(status_last()->offset, offsets[2]);
    buf_fini(&good);
}

static void
manifest__swapped_edits_are_damage(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct buf good = get_file("manifest-00000001");
    size_t offsets[16];
    uint8_t kept[256];
    assert_int_equal(frame_offsets(&good, offsets), 4);
    size_t len = offsets[2] - offsets[1];
    assert_int_equal(len, offsets[3] - offsets[2]);
    memcpy(kept, good.ptr + offsets[1], len);
    memmove(good.ptr + offsets[1], good.ptr + offsets[2], len);
    memcpy(good.ptr + offsets[2], kept, len);
    put_file("manifest-00000001", buf_bytes(&good));
    struct seen seen;
    struct manifest *manifest = NULL;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    buf_fini(&good);
}

/* A manifest of hand-made edits with good checksums. */
struct chain_case {
    const char *name;
    enum frame_type types[2];
    uint8_t codec;
    bool snapshots[2];
    uint64_t edit_nos[2];
    uint64_t hash_xor; /* over the second edit's right prev_hash */
    esker_status status;
};

static void
manifest__the_chain_is_checked(void **state)
{
    (void)state;
    static const struct chain_case cases[] = {
        {"good", {FRAME_EDIT, FRAME_EDIT}, 0, {true, false}, {5, 6}, 0, ESKER_OK},
        {"first is no snapshot", {FRAME_EDIT, FRAME_EDIT}, 0, {false, false}, {5, 6}, 0, ESKER_CORRUPT},
        {"second snapshot", {FRAME_EDIT, FRAME_EDIT}, 0, {true, true}, {5, 6}, 0, ESKER_CORRUPT},
        {"number repeated", {FRAME_EDIT, FRAME_EDIT}, 0, {true, false}, {5, 5}, 0, ESKER_CORRUPT},
        {"number skipped", {FRAME_EDIT, FRAME_EDIT}, 0, {true, false}, {5, 7}, 0, ESKER_CORRUPT},
        {"hash differs", {FRAME_EDIT, FRAME_EDIT}, 0, {true, false}, {5, 6}, 1, ESKER_CORRUPT},
        {"log frame", {FRAME_EDIT, FRAME_BATCH}, 0, {true, false}, {5, 6}, 0, ESKER_UNSUPPORTED},
        {"unknown frame", {FRAME_EDIT, 77}, 0, {true, false}, {5, 6}, 0, ESKER_UNSUPPORTED},
    };
    for (size_t c = 0; c < COUNTOF(cases); c++) {
        struct buf file;
        struct file_head head = {.number = 3};
        uint8_t current[CURRENT_BYTES];
        memcpy(head.uuid, uuid, sizeof uuid);
        buf_init(&file, &mem_default);
        assert_int_equal(buf_append_zeros(&file, MANIFEST_HEADER_BYTES), ESKER_OK);
        manifest_header_encode(&head, file.ptr);
        uint64_t hash = 0;
        for (size_t i = 0; i < 2; i++) {
            struct edit edit = {.edit_no = cases[c].edit_nos[i],
                                .is_snapshot = cases[c].snapshots[i],
                                .prev_hash = hash ^ (i == 1 ? cases[c].hash_xor : 0)};
            size_t start = file.len;
            assert_int_equal(buf_append_zeros(&file, FRAME_HEADER_BYTES), ESKER_OK);
            assert_int_equal(edit_encode(&edit, &file), ESKER_OK);
            assert_int_equal(buf_pad(&file, FRAME_GRANULE), ESKER_OK);
            frame_seal(file.ptr + start, file.len - start, cases[c].types[i], FRAME_BACK_NO_CLAIM,
                       frame_file_seed(uuid, 3), start);
            hash = hash64(file.ptr + start, file.len - start, 0);
        }
        current_encode(&head, current);
        put_file("CURRENT", bytes_make(current, sizeof current));
        put_file("manifest-00000003", buf_bytes(&file));
        struct seen seen;
        struct manifest *manifest = NULL;
        esker_status status = open_manifest(&seen, &manifest);
        if (status != cases[c].status) {
            fail_msg("%s: %s", cases[c].name, esker_status_name(status));
        }
        manifest_destroy(manifest);
        buf_fini(&file);
    }
}

static void
manifest__another_databases_or_an_older_manifest_is_refused(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct seen seen;
    struct manifest *manifest = NULL;
    struct buf good = get_file("manifest-00000001");
    struct file_head head = {.number = 2};
    uint8_t current[CURRENT_BYTES];
    memcpy(head.uuid, uuid, sizeof uuid);
    current_encode(&head, current);
    put_file("CURRENT", bytes_make(current, sizeof current));
    put_file("manifest-00000002", buf_bytes(&good));
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    assert_string_equal(status_last()->file, "manifest-00000002");
    assert_int_equal(status_last()->offset, 0);
    head.number = 1;
    head.uuid[0] ^= 1;
    current_encode(&head, current);
    put_file("CURRENT", bytes_make(current, sizeof current));
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_CORRUPT);
    assert_string_equal(status_last()->file, "manifest-00000001");
    assert_int_equal(status_last()->offset, 0);
    buf_fini(&good);
}

static void
manifest__apply_may_refuse(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct seen seen = {.answer = ESKER_NO_MEMORY};
    struct manifest *manifest = NULL;
    assert_int_equal(manifest_open(io, &mem_default, see_edit, &seen, &manifest), ESKER_NO_MEMORY);
    assert_int_equal(seen.edits, 1);
    assert_null(manifest);
}

static void
manifest__order_of_create_append_and_rewrite(void **state)
{
    (void)state;
    struct manifest *manifest = NULL;
    struct edit snapshot = {.next_file_id = 5};
    assert_int_equal(manifest_create(io, &mem_default, uuid, 1, &snapshot, &manifest), ESKER_OK);
    assert_string_equal(layer.text,
                        "unlink:manifest-00000001 write:manifest-00000001 sync:manifest-00000001 syncdir: "
                        "write:CURRENT.tmp sync:CURRENT.tmp rename:CURRENT syncdir:");
    layer_reset(-1);
    assert_int_equal(append_segment(manifest, 10), ESKER_OK);
    assert_string_equal(layer.text, "write:manifest-00000001 sync:manifest-00000001");
    layer_reset(-1);
    assert_int_equal(rewrite_with(manifest, 10), ESKER_OK);
    assert_string_equal(layer.text,
                        "unlink:manifest-00000002 write:manifest-00000002 sync:manifest-00000002 syncdir: "
                        "write:CURRENT.tmp sync:CURRENT.tmp rename:CURRENT syncdir: "
                        "unlink:manifest-00000001");
    manifest_destroy(manifest);
}

static void
manifest__what_open_read_is_made_durable_before_it_is_built_on(void **state)
{
    (void)state;
    manifest_destroy(make_sample());
    struct seen seen;
    struct manifest *manifest = NULL;
    layer_reset(-1);
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_string_equal(layer.text, "");
    assert_int_equal(append_segment(manifest, 7), ESKER_OK);
    assert_string_equal(layer.text, "write:manifest-00000001 sync:manifest-00000001 syncdir: "
                                    "write:manifest-00000001 sync:manifest-00000001");
    assert_int_equal(rewrite_with(manifest, 7), ESKER_OK);
    manifest_destroy(manifest);
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    layer_reset(-1);
    assert_int_equal(manifest_confirm(manifest), ESKER_OK);
    assert_int_equal(manifest_confirm(manifest), ESKER_OK);
    assert_string_equal(layer.text, "syncdir:");
    manifest_destroy(manifest);
}

static void
manifest__a_failed_confirm_is_not_forgotten(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        manifest_destroy(make_sample());
        struct seen seen;
        struct manifest *manifest = NULL;
        assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
        layer_reset(n);
        assert_int_equal(manifest_confirm(manifest), ESKER_IO);
        layer_reset(-1);
        assert_int_equal(manifest_confirm(manifest), ESKER_POISONED);
        assert_int_equal(append_segment(manifest, 7), ESKER_POISONED);
        assert_int_equal(rewrite_with(manifest, seen.id_sum), ESKER_OK);
        assert_int_equal(append_segment(manifest, 7), ESKER_OK);
        manifest_destroy(manifest);
    }
}

static void
manifest__a_failed_append_is_dead_until_rewritten(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        struct manifest *manifest = make_sample();
        layer_reset(n);
        assert_int_equal(append_segment(manifest, 40000), ESKER_IO);
        layer_reset(-1);
        assert_true(manifest_wants_rewrite(manifest));
        assert_int_equal(manifest_edit_no(manifest), 4);
        assert_int_equal(append_segment(manifest, 40000), ESKER_POISONED);
        assert_string_equal(layer.text, "");
        assert_int_equal(rewrite_with(manifest, 3210), ESKER_OK);
        assert_int_equal(append_segment(manifest, 500000), ESKER_OK);
        manifest_destroy(manifest);
        struct seen seen;
        assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
        assert_int_equal(seen.id_sum, 503210);
        assert_int_equal(seen.last_edit_no, 6);
        manifest_destroy(manifest);
    }
}

static void
manifest__an_edit_without_room_is_taken_back(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) { /* the write finds no room; or only the sync does, and nobody knows */
        struct manifest *manifest = make_sample();
        layer_reset(n);
        layer.full = true;
        assert_int_equal(append_segment(manifest, 40000), ESKER_NO_SPACE);
        layer_reset(-1);
        assert_int_equal(manifest_is_dead(manifest), n == 1);
        assert_int_equal(append_segment(manifest, 500000), n == 1 ? ESKER_POISONED : ESKER_OK);
        assert_int_equal(manifest_edit_no(manifest), n == 1 ? 4 : 5);
        manifest_destroy(manifest);
        struct seen seen;
        assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
        assert_true(n == 1 || seen.last_edit_no == 5);
        manifest_destroy(manifest);
    }
}

static void
manifest__a_rewrite_that_fails_anywhere_loses_nothing(void **state)
{
    (void)state;
    int n = 0;
    for (bool failed = true; failed; n++) {
        struct manifest *manifest = make_sample();
        layer_reset(n);
        esker_status status = rewrite_with(manifest, 3210);
        failed = layer.calls > n;
        assert_true(status == ESKER_OK || status == ESKER_IO);
        layer_reset(-1);

        struct seen seen;
        struct manifest *other = NULL;
        assert_int_equal(open_manifest(&seen, &other), ESKER_OK);
        assert_int_equal(seen.id_sum, 3210);
        manifest_destroy(other);

        esker_status appended = append_segment(manifest, 40000);
        assert_true(appended == ESKER_OK || appended == ESKER_POISONED);
        assert_int_equal(appended == ESKER_POISONED, manifest_wants_rewrite(manifest));
        assert_int_equal(open_manifest(&seen, &other), ESKER_OK); /* what append said is what is found */
        assert_int_equal(seen.id_sum, appended == ESKER_OK ? 43210 : 3210);
        manifest_destroy(other);
        assert_int_equal(rewrite_with(manifest, appended == ESKER_OK ? 43210 : 3210), ESKER_OK);
        assert_int_equal(manifest_number(manifest), 3); /* a number is tried once */
        assert_int_equal(append_segment(manifest, 500000), ESKER_OK);
        manifest_destroy(manifest);
        assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
        assert_int_equal(seen.id_sum, appended == ESKER_OK ? 543210 : 503210);
        manifest_destroy(manifest);
    }
    assert_int_equal(n, 10); /* nine calls, and the round in which none failed */
}

static void
manifest__a_leftover_of_the_next_number_does_not_matter(void **state)
{
    (void)state;
    struct manifest *manifest = make_sample();
    struct buf old = get_file("manifest-00000001");
    assert_int_equal(buf_append_zeros(&old, 100000), ESKER_OK);
    put_file("manifest-00000002", buf_bytes(&old));
    put_file("CURRENT.tmp", buf_bytes(&old));
    buf_fini(&old);
    assert_int_equal(rewrite_with(manifest, 3210), ESKER_OK);
    manifest_destroy(manifest);
    struct seen seen;
    assert_int_equal(open_manifest(&seen, &manifest), ESKER_OK);
    assert_int_equal(seen.id_sum, 3210);
    assert_false(manifest_wants_rewrite(manifest));
    manifest_destroy(manifest);
}

static void
manifest__growth_asks_for_a_rewrite(void **state)
{
    (void)state;
    struct manifest *manifest = make_sample();
    uint64_t logs[4096];
    for (size_t i = 0; i < COUNTOF(logs); i++) {
        logs[i] = i + 1;
    }
    struct edit edit = {.add_logs = logs, .add_log_count = COUNTOF(logs)};
    unsigned appended = 0;
    for (; !manifest_wants_rewrite(manifest); appended++) {
        assert_int_equal(manifest_append(manifest, &edit), ESKER_OK);
    }
    assert_int_equal(appended, 16); /* 64 KiB each */
    assert_int_equal(append_segment(manifest, 1), ESKER_OK);
    assert_int_equal(manifest_rewrite(manifest, &edit), ESKER_OK);
    assert_false(manifest_wants_rewrite(manifest));
    manifest_destroy(manifest);
}

#define MANIFEST_TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        MANIFEST_TEST(manifest__appended_edits_are_replayed),
        MANIFEST_TEST(manifest__missing_files_are_named),
        MANIFEST_TEST(manifest__every_damage_of_current_is_reported),
        MANIFEST_TEST(manifest__every_flip_is_reported_or_tears_the_last_edit),
        MANIFEST_TEST(manifest__every_cut_is_reported_or_drops_whole_edits),
        MANIFEST_TEST(manifest__a_torn_edit_is_cut_by_a_rewrite),
        MANIFEST_TEST(manifest__a_bad_edit_with_a_good_one_behind_it_is_damage),
        MANIFEST_TEST(manifest__swapped_edits_are_damage),
        MANIFEST_TEST(manifest__the_chain_is_checked),
        MANIFEST_TEST(manifest__another_databases_or_an_older_manifest_is_refused),
        MANIFEST_TEST(manifest__apply_may_refuse),
        MANIFEST_TEST(manifest__order_of_create_append_and_rewrite),
        MANIFEST_TEST(manifest__what_open_read_is_made_durable_before_it_is_built_on),
        MANIFEST_TEST(manifest__a_failed_confirm_is_not_forgotten),
        MANIFEST_TEST(manifest__a_failed_append_is_dead_until_rewritten),
        MANIFEST_TEST(manifest__an_edit_without_room_is_taken_back),
        MANIFEST_TEST(manifest__a_rewrite_that_fails_anywhere_loses_nothing),
        MANIFEST_TEST(manifest__a_leftover_of_the_next_number_does_not_matter),
        MANIFEST_TEST(manifest__growth_asks_for_a_rewrite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
