/* SPDX-License-Identifier: MIT */
/*
 * The manifest: reading, appending, rewriting.
 *
 * Invariants
 *  I1 At most the last edit of a file is not durable: an append starts only
 *     after the sync of the one before returned OK; otherwise the file is dead.
 *  I2 CURRENT names a manifest whose content and directory entry are durable;
 *     the manifest it named before is unlinked after the switch is durable.
 *  I3 A file number is tried once per handle, and a leftover of that name from
 *     an earlier process is unlinked first, so no stale frame of the same
 *     number can stand behind a new one.
 */
#include "manifest/manifest.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/hash.h"
#include "format/frame.h"

#define MANIFEST_BYTES_MAX ((uint64_t)4 << 30)

enum { MANIFEST_REWRITE_BYTES_MIN = 1 << 20, MANIFEST_REWRITE_FACTOR = 4, MANIFEST_SEARCH_FACTOR = 4 };

static const char manifest_current_name[] = "CURRENT";
static const char manifest_current_tmp_name[] = "CURRENT.tmp";

/* What is known about one manifest file. */
struct manifest_file {
    char name[40];
    uint64_t number;
    uint64_t snapshot_bytes; /* of the first frame */
    uint64_t last_off;       /* of the last valid frame */
    uint64_t last_hash;      /* of the last valid frame's bytes */
    uint64_t end_off;        /* where the next frame goes */
    uint64_t edit_no;        /* of the last valid edit */
};

struct manifest {
    struct io *io;
    const struct mem *mem;
    uint8_t uuid[16];
    struct manifest_file at;
    struct io_file *file;  /* open for writing, or NULL after manifest_open */
    uint64_t number_tried; /* the highest file number that this handle has used */
    uint64_t rewrite_bytes;
    bool dead;        /* nothing may be appended to `at` */
    bool torn;        /* dead because open found a torn last edit, not because a write failed */
    bool unconfirmed; /* what open read may not be durable yet */
};

void
manifest_file_name(uint64_t number, char out[40])
{
    snprintf(out, 40, "manifest-%08llx", (unsigned long long)number);
}

uint64_t
manifest_number(const struct manifest *manifest)
{
    return manifest->at.number;
}

uint64_t
manifest_edit_no(const struct manifest *manifest)
{
    return manifest->at.edit_no;
}

const uint8_t *
manifest_uuid(const struct manifest *manifest)
{
    return manifest->uuid;
}

static esker_status
manifest_alloc(struct io *io, const struct mem *mem, const uint8_t uuid[16], struct manifest **out)
{
    struct manifest *manifest = mem_zalloc(mem, sizeof *manifest);
    if (manifest == NULL) {
        return FAIL_NO_MEMORY("the manifest");
    }
    manifest->io = io;
    manifest->mem = mem;
    manifest->rewrite_bytes = MANIFEST_REWRITE_BYTES_MIN;
    memcpy(manifest->uuid, uuid, sizeof manifest->uuid);
    *out = manifest;
    return ESKER_OK;
}

void
manifest_destroy(struct manifest *manifest)
{
    if (manifest == NULL) {
        return;
    }
    io_close_file(manifest->io, manifest->file);
    mem_free(manifest->mem, manifest);
}

/* ---- Writing ------------------------------------------------------------- */

/* Appends one sealed frame to buf; `offset` is where it goes in file `number`. */
static esker_status
manifest_frame_append(struct buf *buf, const struct edit *edit, const uint8_t uuid[16], uint64_t number,
                      uint64_t offset)
{
    size_t start = buf->len;
    if (edit->edit_no > EDIT_NUMBER_MAX) {
        return FAIL(ESKER_TOO_LARGE, "the manifest's edit numbers have come to their end");
    }
    TRY(buf_append_zeros(buf, FRAME_HEADER_BYTES));
    TRY(edit_encode(edit, buf));
    TRY(buf_pad(buf, FRAME_GRANULE));
    uint64_t len = buf->len - start;
    if (offset + len > MANIFEST_BYTES_MAX) {
        return FAIL(ESKER_TOO_LARGE, "the manifest would be larger than 4 GiB");
    }
    frame_seal(buf->ptr + start, len, FRAME_EDIT, FRAME_BACK_NO_CLAIM, frame_file_seed(uuid, number), offset);
    return ESKER_OK;
}

/* Creates, fills and syncs a new manifest file, and syncs the directory. On
 * failure nothing is left open; a file may be left behind. */
static esker_status
manifest_write_file(struct manifest *manifest, uint64_t number, struct edit *snapshot,
                    struct manifest_file *at_out, struct io_file **file_out)
{
    struct file_head head = {.number = number};
    struct manifest_file at = {.number = number, .edit_no = snapshot->edit_no};
    struct io_file *file = NULL;
    struct buf buf;
    esker_status status;
    memcpy(head.uuid, manifest->uuid, sizeof head.uuid);
    manifest_file_name(number, at.name);
    snapshot->is_snapshot = true;
    snapshot->prev_hash = 0;
    buf_init(&buf, manifest->mem);
    TRY_OUT(buf_append_zeros(&buf, MANIFEST_HEADER_BYTES));
    manifest_header_encode(&head, buf.ptr);
    TRY_OUT(manifest_frame_append(&buf, snapshot, manifest->uuid, number, MANIFEST_HEADER_BYTES));
    TRY_OUT(io_unlink(manifest->io, at.name));
    TRY_OUT(io_open_file(manifest->io, at.name, IO_OPEN_WRITE | IO_OPEN_CREATE | IO_OPEN_EXCLUSIVE, &file));
    TRY_OUT(io_write_full(manifest->io, file, 0, buf.ptr, buf.len));
    TRY_OUT(io_sync(manifest->io, file));
    /* CURRENT's rename may become durable on its own; its target must be there first (I2). */
    TRY_OUT(io_sync_dir(manifest->io));
    at.last_off = MANIFEST_HEADER_BYTES;
    at.end_off = buf.len;
    at.snapshot_bytes = at.end_off - at.last_off;
    at.last_hash = hash64(buf.ptr + at.last_off, at.snapshot_bytes, 0);
    *at_out = at;
    *file_out = file;
    file = NULL;
out:
    io_close_file(manifest->io, file);
    buf_fini(&buf);
    return status;
}

static esker_status
manifest_point_current(struct manifest *manifest, uint64_t number)
{
    struct file_head head = {.number = number};
    uint8_t bytes[CURRENT_BYTES];
    memcpy(head.uuid, manifest->uuid, sizeof head.uuid);
    current_encode(&head, bytes);
    return io_replace_file(manifest->io, manifest_current_name, manifest_current_tmp_name,
                           bytes_make(bytes, sizeof bytes));
}

esker_status
manifest_create(struct io *io, const struct mem *mem, const uint8_t uuid[16], uint64_t number,
                const struct edit *snapshot, struct manifest **out)
{
    struct manifest *manifest = NULL;
    struct edit first = *snapshot; /* borrows its arrays */
    TRY(manifest_alloc(io, mem, uuid, &manifest));
    first.edit_no = MAX(first.edit_no, (uint64_t)1);
    esker_status status = manifest_write_file(manifest, number, &first, &manifest->at, &manifest->file);
    if (status == ESKER_OK) {
        status = manifest_point_current(manifest, number);
    }
    if (status != ESKER_OK) {
        manifest_destroy(manifest);
        return status;
    }
    manifest->number_tried = number;
    *out = manifest;
    return ESKER_OK;
}

esker_status
manifest_rewrite(struct manifest *manifest, struct edit *snapshot)
{
    struct manifest_file next;
    struct io_file *file = NULL;
    uint64_t number = MAX(manifest->at.number, manifest->number_tried) + 1;
    if (number > UINT32_MAX) {
        return FAIL_AT(ESKER_TOO_LARGE, manifest->at.name, 0, "no manifest number is left");
    }
    manifest->number_tried = number;
    snapshot->edit_no = manifest->at.edit_no + 1;
    esker_status status = manifest_write_file(manifest, number, snapshot, &next, &file);
    if (status != ESKER_OK) {
        esker_error first = *status_last();
        char name[40];
        manifest_file_name(number, name);
        IGNORE_STATUS(io_unlink(manifest->io, name), "nothing names it; the next open removes it");
        return status_restore(&first);
    }
    status = manifest_point_current(manifest, number);
    if (status != ESKER_OK) {
        /* Either file may be the one that the next open finds: keep both, append to neither. */
        manifest->dead = true;
        io_close_file(manifest->io, file);
        return status;
    }
    char old_name[40];
    memcpy(old_name, manifest->at.name, sizeof old_name);
    io_close_file(manifest->io, manifest->file);
    manifest->file = file;
    manifest->at = next;
    manifest->dead = false;
    manifest->torn = false;
    manifest->unconfirmed = false;
    IGNORE_STATUS(io_unlink(manifest->io, old_name), "nothing names it; the next open removes it");
    return ESKER_OK;
}

static esker_status
manifest_refuse(const struct manifest *manifest)
{
    return FAIL_AT(ESKER_POISONED, manifest->at.name, manifest->at.end_off,
                   "the manifest may not be appended to before it is rewritten");
}

static esker_status
manifest_open_for_writing(struct manifest *manifest)
{
    if (manifest->file != NULL) {
        return ESKER_OK;
    }
    return io_open_file(manifest->io, manifest->at.name, IO_OPEN_WRITE, &manifest->file);
}

/* The last frame's bytes once more, then the sync: a page that a failed sync
 * left clean in the cache would not be written by a sync alone. */
static esker_status
manifest_write_last_again(struct manifest *manifest)
{
    struct manifest_file *at = &manifest->at;
    struct buf buf;
    esker_status status;
    buf_init(&buf, manifest->mem);
    TRY_OUT(buf_append_zeros(&buf, (size_t)(at->end_off - at->last_off)));
    TRY_OUT(io_read_full(manifest->io, manifest->file, at->last_off, buf.ptr, buf.len));
    if (hash64(buf.ptr, buf.len, 0) != at->last_hash) {
        status =
            FAIL_AT(ESKER_CORRUPT, at->name, at->last_off, "the last edit has changed since it was read");
        goto out;
    }
    TRY_OUT(io_write_full(manifest->io, manifest->file, at->last_off, buf.ptr, buf.len));
    TRY_OUT(io_sync(manifest->io, manifest->file));
out:
    buf_fini(&buf);
    return status;
}

esker_status
manifest_confirm(struct manifest *manifest)
{
    if (!manifest->unconfirmed) {
        return ESKER_OK;
    }
    if (manifest->dead && !manifest->torn) {
        return manifest_refuse(manifest);
    }
    /* A snapshot was durable before CURRENT named it; a torn edit proves that
     * the one before it was synced. */
    if (!manifest->torn && manifest->at.last_off != MANIFEST_HEADER_BYTES) {
        TRY(manifest_open_for_writing(manifest));
        esker_status status = manifest_write_last_again(manifest);
        if (status != ESKER_OK) {
            manifest->dead = status != ESKER_NO_MEMORY;
            return status;
        }
    }
    TRY(io_sync_dir(manifest->io));
    manifest->unconfirmed = false;
    return ESKER_OK;
}

/* The disk had no room for an edit: what there is of it is cut off again, and the file goes on as
 * before. A sync that fails leaves it dead; a write that fails of anything else does too, for
 * nobody knows what became of it. Keeps the story. */
static void
manifest_take_back(struct manifest *manifest)
{
    esker_error story = *status_last();
    esker_status status = io_truncate(manifest->io, manifest->file, manifest->at.end_off);
    if (status == ESKER_OK) {
        status = io_sync(manifest->io, manifest->file);
    }
    manifest->dead = status != ESKER_OK;
    IGNORE_STATUS(status_restore(&story), "keeps the first story");
}

esker_status
manifest_append(struct manifest *manifest, struct edit *edit)
{
    struct manifest_file *at = &manifest->at;
    if (manifest->dead) {
        return manifest_refuse(manifest);
    }
    TRY(manifest_confirm(manifest));
    TRY(manifest_open_for_writing(manifest));
    struct buf buf;
    esker_status status;
    ASSERT(!edit->is_snapshot);
    edit->edit_no = at->edit_no + 1;
    edit->prev_hash = at->last_hash;
    buf_init(&buf, manifest->mem);
    TRY_OUT(manifest_frame_append(&buf, edit, manifest->uuid, at->number, at->end_off));
    manifest->dead = true; /* until the write and its sync are known to have worked */
    status = io_write_full(manifest->io, manifest->file, at->end_off, buf.ptr, buf.len);
    if (status == ESKER_NO_SPACE) {
        manifest_take_back(manifest);
    }
    TRY_OUT(status);
    TRY_OUT(io_sync(manifest->io, manifest->file));
    manifest->dead = false;
    at->last_off = at->end_off;
    at->end_off += buf.len;
    at->last_hash = hash64(buf.ptr, buf.len, 0);
    at->edit_no = edit->edit_no;
out:
    buf_fini(&buf);
    return status;
}

void
manifest_set_rewrite_bytes(struct manifest *manifest, uint64_t bytes)
{
    manifest->rewrite_bytes = bytes;
}

bool
manifest_is_dead(const struct manifest *manifest)
{
    return manifest->dead;
}

bool
manifest_is_unsure(const struct manifest *manifest)
{
    return manifest->dead && !manifest->torn;
}

bool
manifest_wants_rewrite(const struct manifest *manifest)
{
    const struct manifest_file *at = &manifest->at;
    uint64_t limit = MAX(MANIFEST_REWRITE_FACTOR * at->snapshot_bytes, manifest->rewrite_bytes);
    return manifest->dead || at->end_off > limit;
}

/* ---- Reading ------------------------------------------------------------- */

struct manifest_reader {
    struct manifest *manifest;
    struct bytes bytes; /* the whole file */
    uint64_t file_seed;
    manifest_apply_fn *apply;
    void *ctx;
};

static esker_status
manifest_read_current(struct io *io, const struct mem *mem, struct file_head *out)
{
    struct buf buf;
    buf_init(&buf, mem);
    esker_status status = io_read_file(io, manifest_current_name, CURRENT_BYTES, &buf);
    if (status == ESKER_OK) {
        status = current_decode(buf_bytes(&buf), out);
        if (status == ESKER_UNSUPPORTED) {
            status = FAIL_AT(status, manifest_current_name, 8,
                             "written in a format that this version of the library does not read");
        } else if (status != ESKER_OK) {
            status = FAIL_AT(status, manifest_current_name, 0, "the pointer to the manifest is damaged");
        }
    }
    buf_fini(&buf);
    return status;
}

static esker_status
manifest_check_header(const struct manifest_reader *reader)
{
    const struct manifest_file *at = &reader->manifest->at;
    struct file_head head;
    esker_status status = manifest_header_decode(reader->bytes, &head);
    if (status == ESKER_UNSUPPORTED) {
        return FAIL_AT(status, at->name, 8,
                       "written in a format that this version of the library does not read");
    }
    if (status != ESKER_OK) {
        return FAIL_AT(status, at->name, 0, "the manifest's header is damaged");
    }
    if (head.number != at->number || memcmp(head.uuid, reader->manifest->uuid, sizeof head.uuid) != 0) {
        return FAIL_AT(ESKER_CORRUPT, at->name, 0, "this is not the manifest that CURRENT names");
    }
    return ESKER_OK;
}

/* One frame whose checksum is good. */
static esker_status
manifest_read_edit(const struct manifest_reader *reader, const struct frame *frame, uint64_t offset)
{
    struct manifest_file *at = &reader->manifest->at;
    const struct mem *mem = reader->manifest->mem;
    bool first = offset == MANIFEST_HEADER_BYTES;
    if (frame->type != FRAME_EDIT || frame->codec != 0) {
        return FAIL_AT(ESKER_UNSUPPORTED, at->name, offset,
                       "a frame of a kind that this build does not know");
    }
    struct edit edit;
    uint64_t body_off = 0;
    esker_status status = edit_decode(frame->body, mem, &edit, &body_off);
    if (status == ESKER_NO_MEMORY) {
        return status;
    }
    if (status != ESKER_OK) {
        return FAIL_AT(status, at->name, offset + FRAME_HEADER_BYTES + body_off,
                       "an edit that cannot be read");
    }
    if (edit.is_snapshot != first || edit.prev_hash != at->last_hash ||
        (!first && edit.edit_no != at->edit_no + 1)) {
        status = FAIL_AT(ESKER_CORRUPT, at->name, offset, "an edit that does not continue the one before it");
    } else {
        status = reader->apply(reader->ctx, &edit);
    }
    at->edit_no = edit.edit_no;
    at->last_off = offset;
    at->last_hash = hash64(reader->bytes.ptr + offset, (size_t)frame->len_bytes, 0);
    edit_fini(&edit, mem);
    return status;
}

/* The frame at end_off is bad. Torn, if nothing valid stands behind it: an
 * append is synced before the next one starts (I1). */
static esker_status
manifest_judge_end(const struct manifest_reader *reader)
{
    struct manifest_file *at = &reader->manifest->at;
    uint64_t budget = (uint64_t)MANIFEST_SEARCH_FACTOR * reader->bytes.len;
    if (at->end_off == MANIFEST_HEADER_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, at->name, at->end_off, "the manifest's snapshot is damaged");
    }
    for (uint64_t offset = at->end_off + FRAME_GRANULE; offset + FRAME_HEADER_BYTES <= reader->bytes.len;
         offset += FRAME_GRANULE) {
        struct bytes rest = bytes_make(reader->bytes.ptr + offset, reader->bytes.len - (size_t)offset);
        struct frame frame;
        uint64_t claimed = frame_peek(rest.ptr, rest.len, reader->file_seed, offset);
        if (claimed > budget || frame_decode(rest, reader->file_seed, offset, &frame)) {
            return FAIL_AT(ESKER_CORRUPT, at->name, at->end_off,
                           "an edit in the middle of the manifest is damaged");
        }
        budget -= claimed;
    }
    reader->manifest->dead = true;
    reader->manifest->torn = true;
    return ESKER_OK;
}

static esker_status
manifest_replay(const struct manifest_reader *reader)
{
    struct manifest_file *at = &reader->manifest->at;
    TRY(manifest_check_header(reader));
    at->end_off = MANIFEST_HEADER_BYTES;
    while (at->end_off < reader->bytes.len) {
        struct frame frame;
        struct bytes rest =
            bytes_make(reader->bytes.ptr + at->end_off, reader->bytes.len - (size_t)at->end_off);
        if (!frame_decode(rest, reader->file_seed, at->end_off, &frame)) {
            return manifest_judge_end(reader);
        }
        TRY(manifest_read_edit(reader, &frame, at->end_off));
        if (at->end_off == MANIFEST_HEADER_BYTES) {
            at->snapshot_bytes = frame.len_bytes;
        }
        at->end_off += frame.len_bytes;
    }
    if (at->end_off == MANIFEST_HEADER_BYTES) {
        return FAIL_AT(ESKER_CORRUPT, at->name, at->end_off, "the manifest has no snapshot");
    }
    return ESKER_OK;
}

esker_status
manifest_current(struct io *io, const struct mem *mem, struct file_head *out)
{
    return manifest_read_current(io, mem, out);
}

esker_status
manifest_open(struct io *io, const struct mem *mem, manifest_apply_fn *apply, void *ctx,
              struct manifest **out)
{
    struct file_head head;
    TRY(manifest_read_current(io, mem, &head));
    return manifest_open_at(io, mem, &head, apply, ctx, out);
}

esker_status
manifest_open_at(struct io *io, const struct mem *mem, const struct file_head *head, manifest_apply_fn *apply,
                 void *ctx, struct manifest **out)
{
    struct manifest *manifest = NULL;
    TRY(manifest_alloc(io, mem, head->uuid, &manifest));
    manifest->at.number = head->number;
    manifest->number_tried = head->number;
    manifest->unconfirmed = true;
    manifest_file_name(head->number, manifest->at.name);
    struct buf buf;
    buf_init(&buf, mem);
    esker_status status = io_read_file(io, manifest->at.name, MANIFEST_BYTES_MAX, &buf);
    if (status == ESKER_NOT_FOUND) {
        status = FAIL_AT(ESKER_CORRUPT, manifest->at.name, 0, "the manifest that CURRENT names is missing");
    }
    if (status == ESKER_OK) {
        struct manifest_reader reader = {
            .manifest = manifest,
            .bytes = buf_bytes(&buf),
            .file_seed = frame_file_seed(head->uuid, head->number),
            .apply = apply,
            .ctx = ctx,
        };
        status = manifest_replay(&reader);
    }
    buf_fini(&buf);
    if (status != ESKER_OK) {
        manifest_destroy(manifest);
        return status;
    }
    *out = manifest;
    return ESKER_OK;
}

esker_status
manifest_scan(struct io *io, const struct mem *mem, const struct file_head *head, manifest_apply_fn *apply,
              void *ctx)
{
    char name[40];
    struct buf buf;
    manifest_file_name(head->number, name);
    buf_init(&buf, mem);
    esker_status status = io_read_file(io, name, MANIFEST_BYTES_MAX, &buf);
    uint64_t budget = (uint64_t)MANIFEST_SEARCH_FACTOR * buf.len;
    uint64_t seed = frame_file_seed(head->uuid, head->number);
    uint64_t step;
    for (uint64_t at = MANIFEST_HEADER_BYTES; status == ESKER_OK && at + FRAME_HEADER_BYTES <= buf.len;
         at += step) {
        struct bytes rest = bytes_make(buf.ptr + at, buf.len - (size_t)at);
        struct frame frame;
        struct edit edit;
        uint64_t body_off = 0;
        uint64_t claimed = frame_peek(rest.ptr, rest.len, seed, at);
        step = FRAME_GRANULE;
        if (claimed > budget) {
            break;
        }
        budget -= claimed;
        if (claimed == 0 || !frame_decode(rest, seed, at, &frame)) {
            continue;
        }
        step = frame.len_bytes;
        if (frame.type == FRAME_EDIT && frame.codec == 0) {
            esker_status decoded = edit_decode(frame.body, mem, &edit, &body_off);
            status = decoded == ESKER_OK ? apply(ctx, &edit) : ESKER_OK;
            status = decoded == ESKER_NO_MEMORY ? FAIL_NO_MEMORY("an edit") : status;
            if (decoded == ESKER_OK) {
                edit_fini(&edit, mem);
            }
        }
    }
    buf_fini(&buf);
    return status;
}
