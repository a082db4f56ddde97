/* SPDX-License-Identifier: MIT */
/* A log file: two header pages, then frames and their entries. */
#include <stdio.h>

#include "base/status.h"
#include "format/log_format.h"
#include "tools/inspect.h"

typedef unsigned long long ull;

struct inspect_log_walk {
    struct inspect *inspect;
    struct log_header header;
    uint64_t seed;
    uint64_t end;         /* of the frame space, in the file */
    uint64_t hash_budget; /* bytes of would-be frames that may still be hashed */
    uint64_t gap_at;      /* 0: none since the last frame that proved something */
    uint64_t frames;
};

static void
inspect_log_header(struct inspect *inspect, uint64_t offset, const struct log_header *header)
{
    char uuid[INSPECT_UUID_TEXT];
    inspect_line(inspect,
                 "header at byte %llu: database %s, generation %llu, base LSN %llu, %llu bytes for frames",
                 (ull)offset, inspect_uuid(header->uuid, uuid), (ull)header->gen, (ull)header->base_lsn,
                 (ull)header->cap_bytes);
    inspect_line(
        inspect,
        "  behind generation %llu, which ends at LSN %llu; durable below LSN %llu; manifest %llu, edit %llu",
        (ull)header->prev_gen, (ull)header->prev_end_lsn, (ull)header->durable_lsn, (ull)header->manifest_no,
        (ull)header->edit_no);
}

/* The valid copy of the higher generation. */
static bool
inspect_log_take_header(struct inspect *inspect, bool told, struct log_header *out)
{
    bool any = false;
    for (uint64_t offset = 0; offset < LOG_HEADER_BYTES; offset += LOG_PAGE_BYTES) {
        struct bytes page;
        struct log_header header;
        bool unsupported = false;
        if (inspect_view(inspect, offset, LOG_PAGE_BYTES, &page) != ESKER_OK ||
            !log_header_decode(page, &header, &unsupported)) {
            if (told) {
                inspect_line(inspect, "header at byte %llu: not valid (one of the two is enough)%s",
                             (ull)offset, unsupported ? ": written by a newer version" : "");
            }
            continue;
        }
        if (told) {
            inspect_log_header(inspect, offset, &header);
        }
        if (!any || header.gen > out->gen) {
            *out = header;
            any = true;
        }
    }
    return any;
}

/* ---- Frames ---------------------------------------------------------------- */

static uint64_t
inspect_log_lsn(const struct inspect_log_walk *walk, uint64_t offset)
{
    return walk->header.base_lsn + (offset - LOG_HEADER_BYTES) / LSN_BYTES;
}

static void
inspect_log_entries(struct inspect_log_walk *walk, const struct frame *frame, uint64_t offset)
{
    struct inspect *inspect = walk->inspect;
    struct entry entry;
    char key[INSPECT_KEY_TEXT];
    uint64_t at = 0;
    uint64_t start = 0;
    esker_status status;
    while ((status = entry_decode(frame->body, &at, &entry)) == ESKER_OK) {
        uint64_t lsn = inspect_log_lsn(walk, offset + FRAME_HEADER_BYTES + start);
        if (entry.op == ENTRY_PUT) {
            inspect_line(inspect, "    LSN %llu put %s, %zu bytes", (ull)lsn, inspect_key(entry.key, key),
                         entry.value.len);
        } else if (entry.op == ENTRY_PUT_EXPIRING) {
            inspect_line(inspect, "    LSN %llu put %s, %zu bytes, expires at %llu ms", (ull)lsn,
                         inspect_key(entry.key, key), entry_expiring_value(entry.value).len,
                         (ull)entry_expiry_ms(entry.value));
        } else {
            inspect_line(inspect, "    LSN %llu delete %s", (ull)lsn, inspect_key(entry.key, key));
        }
        start = at;
    }
    if (status != ESKER_END) {
        inspect_damage(inspect, offset + FRAME_HEADER_BYTES + at, "an entry that cannot be read");
    }
}

static void
inspect_log_batch(struct inspect_log_walk *walk, const struct frame *frame, uint64_t offset)
{
    struct entry entry;
    char key[INSPECT_KEY_TEXT];
    uint64_t at = 0;
    uint64_t puts = 0;
    uint64_t deletes = 0;
    struct bytes first = {0};
    while (entry_decode(frame->body, &at, &entry) == ESKER_OK) {
        first = puts + deletes == 0 ? entry.key : first;
        puts += entry.op == ENTRY_DELETE ? 0 : 1;
        deletes += entry.op == ENTRY_DELETE ? 1 : 0;
    }
    inspect_line(walk->inspect, "byte %llu: LSN %llu, batch of %llu bytes: %llu puts, %llu deletes, first %s",
                 (ull)offset, (ull)inspect_log_lsn(walk, offset), (ull)frame->len_bytes, (ull)puts,
                 (ull)deletes, inspect_key(first, key));
    if (walk->inspect->rows) {
        inspect_log_entries(walk, frame, offset);
        return;
    }
    if (entry_decode(frame->body, &at, &entry) != ESKER_END) {
        inspect_damage(walk->inspect, offset + FRAME_HEADER_BYTES + at, "an entry that cannot be read");
    }
}

/* Says what it is; true if it proves that what lies below it was complete once. */
static bool
inspect_log_frame(struct inspect_log_walk *walk, const struct frame *frame, uint64_t offset)
{
    struct inspect *inspect = walk->inspect;
    ull lsn = inspect_log_lsn(walk, offset);
    struct cursor body = cursor_make(frame->body.ptr, frame->body.len);
    switch (frame->type) {
    case FRAME_BATCH:
        inspect_log_batch(walk, frame, offset);
        return false;
    case FRAME_PAD:
        inspect_line(inspect, "byte %llu: LSN %llu, %llu bytes skipped", (ull)offset, lsn,
                     (ull)frame->len_bytes);
        return false;
    case FRAME_SYNCMARK: {
        ull durable = cursor_u64(&body);
        inspect_line(inspect, "byte %llu: LSN %llu, sync mark: durable below LSN %llu", (ull)offset, lsn,
                     durable);
        return walk->gap_at != 0 && durable > inspect_log_lsn(walk, walk->gap_at);
    }
    case FRAME_SEAL: {
        ull sealed = cursor_u64(&body);
        inspect_line(inspect, "byte %llu: LSN %llu, seal: closed cleanly at LSN %llu", (ull)offset, lsn,
                     sealed);
        return true;
    }
    case FRAME_REOPEN:
        inspect_line(inspect, "byte %llu: LSN %llu, opened again and continued", (ull)offset, lsn);
        return false;
    default:
        inspect_damage(inspect, offset, "a frame of type %u, which this build does not know", frame->type);
        return false;
    }
}

/* The valid frame at `offset`, if there is one; *len_out = 0 if not. */
static esker_status
inspect_log_frame_at(struct inspect_log_walk *walk, uint64_t offset, struct frame *frame, uint64_t *len_out)
{
    struct bytes bytes;
    *len_out = 0;
    TRY(inspect_view(walk->inspect, offset, FRAME_HEADER_BYTES, &bytes));
    uint64_t lsn = inspect_log_lsn(walk, offset);
    uint64_t len = frame_peek(bytes.ptr, walk->end - offset, walk->seed, lsn);
    if (len == 0 || len > walk->hash_budget) {
        return ESKER_OK;
    }
    walk->hash_budget -= len;
    TRY(inspect_view(walk->inspect, offset, len, &bytes));
    *len_out = frame_decode(bytes, walk->seed, lsn, frame) ? len : 0;
    return ESKER_OK;
}

/* Where the next valid frame behind `offset` starts, or the end. */
static esker_status
inspect_log_find(struct inspect_log_walk *walk, uint64_t offset, uint64_t *next_out, bool *zero_out)
{
    struct frame frame;
    *zero_out = true;
    for (; offset + FRAME_HEADER_BYTES <= walk->end; offset += FRAME_GRANULE) {
        struct bytes bytes;
        uint64_t len = 0;
        TRY(inspect_view(walk->inspect, offset, FRAME_GRANULE, &bytes));
        if ((le64_load(bytes.ptr) | le64_load(bytes.ptr + 8)) == 0) {
            continue;
        }
        *zero_out = false;
        TRY(inspect_log_frame_at(walk, offset, &frame, &len));
        if (len != 0) {
            break;
        }
    }
    *next_out = MIN(offset, walk->end);
    return ESKER_OK;
}

static esker_status
inspect_log_gap(struct inspect_log_walk *walk, uint64_t offset, uint64_t *next_out)
{
    bool zero = true;
    TRY(inspect_log_find(walk, offset, next_out, &zero));
    ull len = *next_out - offset;
    if (*next_out + FRAME_HEADER_BYTES > walk->end) {
        inspect_line(walk->inspect, "byte %llu: the end; behind it %llu bytes, %s", (ull)offset, len,
                     zero ? "all zero" : "none of them a valid frame of this generation");
        *next_out = walk->end;
        return ESKER_OK;
    }
    walk->gap_at = walk->gap_at == 0 ? offset : walk->gap_at;
    inspect_line(walk->inspect,
                 "byte %llu: a hole of %llu bytes%s (a killed writer may leave one; `esker verify` decides)",
                 (ull)offset, len, zero ? ", all zero" : "");
    return ESKER_OK;
}

static esker_status
inspect_log_walk(struct inspect_log_walk *walk)
{
    uint64_t offset = LOG_HEADER_BYTES;
    while (offset + FRAME_HEADER_BYTES <= walk->end && text_out_alive(&walk->inspect->out)) {
        struct frame frame;
        uint64_t len = 0;
        TRY(inspect_log_frame_at(walk, offset, &frame, &len));
        if (len == 0) {
            TRY(inspect_log_gap(walk, offset, &offset));
            continue;
        }
        if (inspect_log_frame(walk, &frame, offset) && walk->gap_at != 0) {
            inspect_damage(walk->inspect, walk->gap_at, "byte %llu proves that there was a frame here",
                           (ull)offset);
            walk->gap_at = 0;
        }
        walk->frames++;
        offset += len;
    }
    inspect_line(walk->inspect, "%llu frames", (ull)walk->frames);
    return ESKER_OK;
}

bool
inspect_log(struct inspect *inspect)
{
    struct inspect_log_walk walk = {.inspect = inspect};
    if (!inspect_log_take_header(inspect, true, &walk.header)) {
        inspect_damage(inspect, 0, "neither of the two headers is valid");
        return true;
    }
    uint64_t frames_end =
        LOG_HEADER_BYTES + walk.header.cap_bytes; /* both below 2^60: checked by the decoder */
    walk.end = MIN(frames_end, inspect->size);
    if (walk.end < frames_end) {
        inspect_line(inspect, "the file ends at byte %llu, before the space for frames does",
                     (ull)inspect->size);
    }
    walk.seed = frame_file_seed(walk.header.uuid, walk.header.gen);
    walk.hash_budget = 16 * inspect->size;
    return inspect_log_walk(&walk) == ESKER_OK || inspect_story(inspect);
}

void
inspect_log_summary(struct inspect *inspect, char *out, size_t size)
{
    struct log_header header;
    if (inspect_log_take_header(inspect, false, &header)) {
        (void)snprintf(out, size, "generation %llu, from LSN %llu", (ull)header.gen, (ull)header.base_lsn);
    } else {
        (void)snprintf(out, size, "no valid header");
    }
}
