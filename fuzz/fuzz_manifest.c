/* rooms: manifest */
/* SPDX-License-Identifier: MIT */
/*
 * A whole manifest file. The first byte chooses: 0, the rest is the file as it
 * is; else it is a list of {u16 length, edit body}, of which the readable ones
 * are chained into a file with good checksums; bit 1 cuts that file's end.
 *
 * Oracles: opening either refuses, or yields a manifest that says itself whether
 * it may be appended to, takes an edit after a rewrite at the latest, and on the
 * next open replays everything and one more.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "base/cursor.h"
#include "base/hash.h"
#include "format/frame.h"
#include "io/io_sim.h"
#include "manifest/manifest.h"

enum { FUZZ_CHAIN = 1, FUZZ_CUT = 2, FUZZ_NUMBER = 7 };

static const uint8_t fuzz_uuid[16] = "fuzz-manifest-id";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_seen {
    uint64_t edits, last_edit_no, dropped; /* dropped: sum of DROP_LOG numbers */
};

static esker_status
fuzz_apply(void *ctx, const struct edit *edit)
{
    struct fuzz_seen *seen = ctx;
    ASSERT(edit->is_snapshot == (seen->edits == 0));
    seen->edits++;
    seen->last_edit_no = edit->edit_no;
    for (size_t i = 0; i < edit->drop_log_count; i++) {
        seen->dropped += edit->drop_logs[i];
    }
    return ESKER_OK;
}

static void
fuzz_file_header(struct buf *file)
{
    struct file_head head = {.number = FUZZ_NUMBER};
    memcpy(head.uuid, fuzz_uuid, sizeof head.uuid);
    ASSERT(buf_append_zeros(file, MANIFEST_HEADER_BYTES) == ESKER_OK);
    manifest_header_encode(&head, file->ptr);
}

/* Appends the edit as the next link of the chain. */
static void
fuzz_chain(struct buf *file, struct edit *edit, uint64_t *edit_no, uint64_t *hash)
{
    size_t start = file->len;
    edit->is_snapshot = *edit_no == 0;
    *edit_no = *edit_no == 0 ? edit->edit_no % (EDIT_NUMBER_MAX / 2) + 1 : *edit_no + 1;
    edit->edit_no = *edit_no;
    edit->prev_hash = *hash;
    ASSERT(buf_append_zeros(file, FRAME_HEADER_BYTES) == ESKER_OK);
    ASSERT(edit_encode(edit, file) == ESKER_OK);
    ASSERT(buf_pad(file, FRAME_GRANULE) == ESKER_OK);
    frame_seal(file->ptr + start, file->len - start, FRAME_EDIT, FRAME_BACK_NO_CLAIM,
               frame_file_seed(fuzz_uuid, FUZZ_NUMBER), start);
    *hash = hash64(file->ptr + start, file->len - start, 0);
}

static void
fuzz_build(struct bytes input, uint8_t mode, struct buf *file)
{
    struct cursor cursor = cursor_make(input.ptr, input.len);
    uint64_t edit_no = 0, hash = 0, offset;
    fuzz_file_header(file);
    while (cursor_left(&cursor) > 2) {
        uint64_t len = cursor_u16(&cursor);
        struct bytes body = cursor_bytes(&cursor, MIN(len, cursor_left(&cursor)));
        struct edit edit;
        if (edit_decode(body, &mem_default, &edit, &offset) == ESKER_OK) {
            fuzz_chain(file, &edit, &edit_no, &hash);
            edit_fini(&edit, &mem_default);
        }
    }
    if ((mode & FUZZ_CUT) != 0) {
        file->len -= MIN(file->len, (size_t)(hash64(input.ptr, input.len, 0) % 64));
    }
}

static esker_status
fuzz_open(struct io *io, struct fuzz_seen *seen, struct manifest **out)
{
    *seen = (struct fuzz_seen){0};
    return manifest_open(io, &mem_default, fuzz_apply, seen, out);
}

/* One more edit can be added, and the next open sees it. */
static void
fuzz_go_on(struct io *io, struct manifest *manifest, struct fuzz_seen before)
{
    uint64_t number = 1000;
    struct edit more = {.drop_logs = &number, .drop_log_count = 1};
    struct edit snapshot = {.drop_logs = &before.dropped, .drop_log_count = 1};
    bool wants = manifest_wants_rewrite(manifest);
    ASSERT(manifest_edit_no(manifest) == before.last_edit_no);
    esker_status status = manifest_append(manifest, &more);
    if (status == ESKER_POISONED && before.dropped != 0 && before.dropped <= EDIT_NUMBER_MAX) {
        ASSERT(wants);
        ASSERT(manifest_rewrite(manifest, &snapshot) == ESKER_OK);
        status = manifest_append(manifest, &more);
    }
    uint64_t edit_no = manifest_edit_no(manifest);
    manifest_destroy(manifest);
    if (status != ESKER_OK) {
        ASSERT(status == ESKER_POISONED || status == ESKER_TOO_LARGE);
        return;
    }
    struct fuzz_seen after;
    ASSERT(fuzz_open(io, &after, &manifest) == ESKER_OK);
    ASSERT(after.last_edit_no == edit_no && edit_no > before.last_edit_no);
    ASSERT(after.dropped == before.dropped + number);
    manifest_destroy(manifest);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    struct sim_disk *disk = sim_disk_create(1);
    struct io *io = NULL;
    struct file_head head = {.number = FUZZ_NUMBER};
    uint8_t current[CURRENT_BYTES];
    struct buf file;
    struct fuzz_seen seen;
    struct manifest *manifest = NULL;
    ASSERT(io_sim_open(disk, &mem_default, &io) == ESKER_OK);
    memcpy(head.uuid, fuzz_uuid, sizeof head.uuid);
    current_encode(&head, current);
    buf_init(&file, &mem_default);
    if (data[0] == 0) {
        ASSERT(buf_append(&file, data + 1, size - 1) == ESKER_OK);
    } else {
        fuzz_build(bytes_make(data + 1, size - 1), data[0], &file);
    }
    sim_disk_put(disk, "CURRENT", bytes_make(current, sizeof current));
    sim_disk_put(disk, "manifest-00000007", buf_bytes(&file));
    uint64_t before = sim_disk_mutations(disk);
    esker_status status = fuzz_open(io, &seen, &manifest);
    ASSERT(sim_disk_mutations(disk) == before);
    if (status == ESKER_OK) {
        fuzz_go_on(io, manifest, seen);
    } else {
        ASSERT(status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
        ASSERT(strcmp(status_last()->file, "manifest-00000007") == 0);
    }
    buf_fini(&file);
    io_close_dir(io);
    sim_disk_destroy(disk);
    return 0;
}
