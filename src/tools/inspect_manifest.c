/* SPDX-License-Identifier: MIT */
/* CURRENT and the manifest: which edits make up the database. */
#include <stdio.h>

#include "base/hash.h"
#include "base/status.h"
#include "format/edit.h"
#include "format/frame.h"
#include "tools/inspect.h"

typedef unsigned long long ull;

struct inspect_manifest_walk {
    struct inspect *inspect;
    struct file_head head;
    uint64_t seed;
    uint64_t offset;
    uint64_t last_hash, last_edit_no;
    uint64_t edits;
};

/* ---- CURRENT --------------------------------------------------------------- */

static esker_status
inspect_head(struct inspect *inspect, bool current, struct file_head *out)
{
    struct bytes bytes;
    TRY(inspect_view(inspect, 0, current ? CURRENT_BYTES : MANIFEST_HEADER_BYTES, &bytes));
    esker_status status = current ? current_decode(bytes, out) : manifest_header_decode(bytes, out);
    if (status == ESKER_UNSUPPORTED) {
        return FAIL_AT(status, inspect->name, 8,
                       "written in a format that this version of the library does not read");
    }
    return status == ESKER_OK ? ESKER_OK : FAIL_AT(status, inspect->name, 0, "the header is not valid");
}

bool
inspect_current(struct inspect *inspect)
{
    struct file_head head;
    char uuid[INSPECT_UUID_TEXT];
    if (inspect_head(inspect, true, &head) != ESKER_OK) {
        return inspect_story(inspect);
    }
    inspect_line(inspect, "database %s; the manifest in force is manifest-%08llx",
                 inspect_uuid(head.uuid, uuid), (ull)head.number);
    if (inspect->size != CURRENT_BYTES) {
        inspect_damage(inspect, CURRENT_BYTES, "the file has %llu bytes too many",
                       (ull)(inspect->size - CURRENT_BYTES));
    }
    return true;
}

/* ---- Edits ----------------------------------------------------------------- */

static void
inspect_edit_segment(struct inspect *inspect, const struct segment_meta *meta)
{
    char min_key[INSPECT_KEY_TEXT];
    char max_key[INSPECT_KEY_TEXT];
    inspect_line(inspect,
                 "  + segment %016llx, level %u, %llu bytes, %llu rows of which %llu deletes, LSN %llu to "
                 "%llu, %s to %s",
                 (ull)meta->id, meta->level, (ull)meta->size_bytes, (ull)meta->row_count,
                 (ull)meta->tombstone_count, (ull)meta->min_lsn, (ull)meta->max_lsn,
                 inspect_key(meta->min_key, min_key),
                 meta->max_key.len == 0 ? "no bound" : inspect_key(meta->max_key, max_key));
    if (meta->expiring_count > 0) {
        inspect_line(inspect, "    %llu of its rows expire, from %llu to %llu ms", (ull)meta->expiring_count,
                     (ull)meta->expiry_first_ms, (ull)meta->expiry_last_ms);
    }
    if (meta->tier_id > 0) {
        inspect_line(inspect, "    of tier %llu, LSN %llu", (ull)meta->tier_id, (ull)meta->tier_lsn);
    }
}

static void
inspect_edit(struct inspect *inspect, const struct edit *edit)
{
    if (edit->next_file_id != 0) {
        inspect_line(inspect, "  next file %llu", (ull)edit->next_file_id);
    }
    if (edit->wal_min_gen != 0) {
        inspect_line(inspect, "  logs needed from generation %llu, LSN %llu on", (ull)edit->wal_min_gen,
                     (ull)edit->wal_min_lsn);
    }
    if (edit->durable_lsn != 0) {
        inspect_line(inspect, "  durable below LSN %llu", (ull)edit->durable_lsn);
    }
    for (size_t i = 0; i < edit->add_segment_count; i++) {
        inspect_edit_segment(inspect, &edit->add_segments[i]);
    }
    for (size_t i = 0; i < edit->drop_segment_count; i++) {
        inspect_line(inspect, "  - segment %016llx", (ull)edit->drop_segments[i]);
    }
    for (size_t i = 0; i < edit->add_log_count; i++) {
        inspect_line(inspect, "  + log-%06llu", (ull)edit->add_logs[i]);
    }
    for (size_t i = 0; i < edit->drop_log_count; i++) {
        inspect_line(inspect, "  - log-%06llu", (ull)edit->drop_logs[i]);
    }
}

/* A frame whose checksum is good. */
static esker_status
inspect_manifest_frame(struct inspect_manifest_walk *walk, struct bytes bytes, const struct frame *frame)
{
    struct inspect *inspect = walk->inspect;
    struct edit edit;
    uint64_t body_at = 0;
    bool first = walk->offset == MANIFEST_HEADER_BYTES;
    if (frame->type != FRAME_EDIT || frame->codec != 0) {
        inspect_damage(inspect, walk->offset, "a frame of a kind that this build does not know");
        return ESKER_OK;
    }
    esker_status status = edit_decode(frame->body, &mem_default, &edit, &body_at);
    if (status == ESKER_NO_MEMORY) {
        return FAIL_NO_MEMORY("an edit");
    }
    if (status != ESKER_OK) {
        inspect_damage(inspect, walk->offset + FRAME_HEADER_BYTES + body_at, "an edit that cannot be read");
        return ESKER_OK;
    }
    inspect_line(inspect, "byte %llu: edit %llu, %llu bytes%s", (ull)walk->offset, (ull)edit.edit_no,
                 (ull)frame->len_bytes, edit.is_snapshot ? ", the whole state" : "");
    if (edit.is_snapshot != first || edit.prev_hash != walk->last_hash ||
        (!first && edit.edit_no != walk->last_edit_no + 1)) {
        inspect_damage(inspect, walk->offset, "the edit does not continue the one before it");
    }
    inspect_edit(inspect, &edit);
    walk->last_edit_no = edit.edit_no;
    walk->last_hash = hash64(bytes.ptr, (size_t)frame->len_bytes, 0);
    walk->edits++;
    edit_fini(&edit, &mem_default);
    return ESKER_OK;
}

/* The bytes of the valid frame at `offset`; none: *out is empty. */
static esker_status
inspect_manifest_frame_at(struct inspect_manifest_walk *walk, uint64_t offset, struct frame *frame,
                          struct bytes *out)
{
    struct inspect *inspect = walk->inspect;
    struct bytes head;
    *out = bytes_make(NULL, 0);
    if (inspect->size - offset < FRAME_HEADER_BYTES) {
        return ESKER_OK;
    }
    TRY(inspect_view(inspect, offset, FRAME_HEADER_BYTES, &head));
    uint64_t len = frame_peek(head.ptr, inspect->size - offset, walk->seed, offset);
    if (len != 0) {
        struct bytes bytes;
        TRY(inspect_view(inspect, offset, len, &bytes));
        *out = frame_decode(bytes, walk->seed, offset, frame) ? bytes : *out;
    }
    return ESKER_OK;
}

/* Nothing valid at walk->offset: the torn end, or a damaged edit before others. */
static esker_status
inspect_manifest_bad(struct inspect_manifest_walk *walk)
{
    uint64_t size = walk->inspect->size;
    uint64_t offset = walk->offset;
    struct frame frame;
    struct bytes bytes = {0};
    while (bytes.len == 0 && offset + FRAME_GRANULE < size) {
        offset += FRAME_GRANULE;
        TRY(inspect_manifest_frame_at(walk, offset, &frame, &bytes));
    }
    if (bytes.len != 0 || walk->edits == 0) {
        inspect_damage(walk->inspect, walk->offset, "an edit is not valid%s",
                       walk->edits == 0 ? ", and it is the first" : "; others follow it");
    } else {
        inspect_line(walk->inspect,
                     "byte %llu: the end; behind it %llu bytes of an edit that was never finished",
                     (ull)walk->offset, (ull)(size - walk->offset));
    }
    walk->offset = bytes.len != 0 ? offset : size;
    return ESKER_OK;
}

static esker_status
inspect_manifest_walk(struct inspect_manifest_walk *walk)
{
    struct inspect *inspect = walk->inspect;
    walk->offset = MANIFEST_HEADER_BYTES;
    while (walk->offset < inspect->size && text_out_alive(&inspect->out)) {
        struct frame frame;
        struct bytes bytes;
        TRY(inspect_manifest_frame_at(walk, walk->offset, &frame, &bytes));
        if (bytes.len == 0) {
            TRY(inspect_manifest_bad(walk));
            continue;
        }
        TRY(inspect_manifest_frame(walk, bytes, &frame));
        walk->offset += frame.len_bytes;
    }
    if (inspect->size == MANIFEST_HEADER_BYTES) {
        inspect_damage(inspect, inspect->size, "the first edit, which holds the whole state, is missing");
    }
    inspect_line(inspect, "%llu edits", (ull)walk->edits);
    return ESKER_OK;
}

bool
inspect_manifest(struct inspect *inspect)
{
    struct inspect_manifest_walk walk = {.inspect = inspect};
    char uuid[INSPECT_UUID_TEXT];
    if (inspect_head(inspect, false, &walk.head) != ESKER_OK) {
        return inspect_story(inspect);
    }
    inspect_line(inspect, "header: database %s, manifest %llu", inspect_uuid(walk.head.uuid, uuid),
                 (ull)walk.head.number);
    walk.seed = frame_file_seed(walk.head.uuid, walk.head.number);
    return inspect_manifest_walk(&walk) == ESKER_OK || inspect_story(inspect);
}

void
inspect_head_summary(struct inspect *inspect, bool current, char *out, size_t size)
{
    struct file_head head;
    if (inspect_head(inspect, current, &head) != ESKER_OK) {
        (void)snprintf(out, size, "no valid header");
    } else if (current) {
        (void)snprintf(out, size, "names manifest-%08llx", (ull)head.number);
    } else {
        (void)snprintf(out, size, "manifest %llu", (ull)head.number);
    }
}
