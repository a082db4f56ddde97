/* SPDX-License-Identifier: MIT */
/*
 * Reading a log's frames into its image, as far as they go, and believing them
 * one by one: checksum first, then everything that a good checksum must cover.
 */
#include "wal/recovery.h"

enum { WALK_STEP_FIRST = 256 * 1024, WALK_STEP = 1024 * 1024 };

esker_status
recovery_read(struct recovery *recovery, struct recovery_log *log, uint64_t offset, uint8_t *into,
              uint64_t len)
{
    while (len > 0) {
        uint64_t piece = MIN(len, (uint64_t)WALK_STEP);
        TRY(io_read_full(recovery->input->io, log->file->file, LOG_HEADER_BYTES + offset, into,
                         (size_t)piece));
        recovery->bytes_read += piece;
        offset += piece;
        into += piece;
        len -= piece;
    }
    return ESKER_OK;
}

esker_status
recovery_need_image(struct recovery *recovery, struct recovery_log *log)
{
    if (log->image != NULL) {
        return ESKER_OK;
    }
    return recovery->input->image(recovery->input->image_ctx, &log->file->header, &log->image);
}

esker_status
recovery_load(struct recovery *recovery, struct recovery_log *log, uint64_t to)
{
    if (LIKELY(to <= log->loaded)) {
        return ESKER_OK;
    }
    TRY(recovery_need_image(recovery, log));
    uint64_t step = log->loaded < WALK_STEP ? WALK_STEP_FIRST : WALK_STEP;
    to = MIN(MAX(to, log->loaded + step), log->limit);
    TRY(recovery_read(recovery, log, log->loaded, log->image + log->loaded, to - log->loaded));
    log->loaded = to;
    return ESKER_OK;
}

void
recovery_take_owner(struct recovery_log *log, struct bytes reopen_body)
{
    memcpy(log->owner.boot_id, reopen_body.ptr, sizeof log->owner.boot_id);
    log->owner.mount_id = le64_load(reopen_body.ptr + sizeof log->owner.boot_id);
}

static esker_status
walk_batch(const struct recovery_log *log, struct bytes body)
{
    uint64_t at = 0;
    struct entry entry;
    esker_status status;
    while ((status = entry_decode(body, &at, &entry)) == ESKER_OK) {
    }
    if (status != ESKER_END) {
        return RECOVERY_FAIL(status, log, log->end + FRAME_HEADER_BYTES + at,
                             "an entry that this build cannot read, under a good checksum");
    }
    return ESKER_OK;
}

/* The frame at log->end has a good checksum. */
static esker_status
walk_take_frame(struct recovery *recovery, struct recovery_log *log, const struct frame *frame)
{
    uint64_t lsn = recovery_lsn(log, log->end);
    bool after_seal = log->last_type == FRAME_SEAL;
    bool sane = after_seal == (frame->type == FRAME_REOPEN);
    if (frame->codec != 0) {
        return RECOVERY_FAIL(ESKER_UNSUPPORTED, log, log->end, "a frame with codec %u",
                             (unsigned)frame->codec);
    }
    switch (frame->type) {
    case FRAME_BATCH:
        TRY(walk_batch(log, frame->body));
        break;
    case FRAME_PAD:
        break;
    case FRAME_SYNCMARK:
        sane = sane && frame->body.len == SYNCMARK_BODY_BYTES && le64_load(frame->body.ptr) <= lsn;
        recovery->durable = sane ? MAX(recovery->durable, le64_load(frame->body.ptr)) : recovery->durable;
        break;
    case FRAME_SEAL:
        sane = sane && frame->body.len == SEAL_BODY_BYTES && le64_load(frame->body.ptr) == lsn;
        recovery->durable = sane ? MAX(recovery->durable, lsn) : recovery->durable;
        break;
    case FRAME_REOPEN:
        sane = sane && frame->body.len == REOPEN_BODY_BYTES;
        if (sane) {
            recovery_take_owner(log, frame->body);
        }
        break;
    default:
        return RECOVERY_FAIL(ESKER_UNSUPPORTED, log, log->end, "a frame of type %u", (unsigned)frame->type);
    }
    if (!sane) {
        return RECOVERY_FAIL(ESKER_CORRUPT, log, log->end, "a frame of type %u that makes no sense here",
                             (unsigned)frame->type);
    }
    log->last_off = log->end;
    log->last_type = frame->type;
    log->end += frame->len_bytes;
    return ESKER_OK;
}

/* Loads and checks the frame at log->end; *len_out = 0 when it is bad. */
static esker_status
walk_next(struct recovery *recovery, struct recovery_log *log, struct frame *frame, bool *valid_out)
{
    *valid_out = false;
    TRY(recovery_load(recovery, log, log->end + FRAME_HEADER_BYTES));
    uint64_t lsn = recovery_lsn(log, log->end);
    const uint8_t *start = log->image + log->end;
    uint64_t len = frame_peek(start, log->limit - log->end, log->seed, lsn);
    if (len == 0) {
        return ESKER_OK;
    }
    if (start[4] != FRAME_PAD) {
        TRY(recovery_load(recovery, log, log->end + len));
    }
    *valid_out = frame_decode(bytes_make(start, (size_t)len), log->seed, lsn, frame);
    return ESKER_OK;
}

esker_status
recovery_walk(struct recovery *recovery, struct recovery_log *log)
{
    while (log->end < log->limit) {
        struct frame frame;
        bool valid;
        TRY(walk_next(recovery, log, &frame, &valid));
        if (!valid) {
            break;
        }
        TRY(walk_take_frame(recovery, log, &frame));
        /* What a PAD skips was never written; there is no use in reading it. */
        log->loaded = MAX(log->loaded, log->end);
    }
    log->complete = log->end == log->limit;
    return ESKER_OK;
}
