/* SPDX-License-Identifier: MIT */
/*
 * Behind a bad frame: is there proof that it had once been complete?
 *
 * Killed writers leave holes with complete frames behind them, so a valid frame
 * behind x says nothing by itself. It is damage only when a valid frame says
 * that everything below some LSN > x was synced, or had reached the page cache
 * of this very boot. Frames are looked for at every granule; the head check of
 * frame.h keeps stored values and stale frames from costing more than a few
 * nanoseconds each. What a valid frame contains is not searched.
 */
#include "base/assert.h"
#include "wal/recovery.h"

enum { SEARCH_CHUNK = 256 * 1024, SEARCH_FACTOR = 4, CORRECT_BYTES_MAX = 4096 };

struct search {
    struct recovery *recovery;
    uint64_t bad_lsn; /* x */
    uint8_t *chunk;
    uint64_t chunk_bytes;
    struct buf frame; /* a frame that reaches beyond the chunk */
};

/* ---- Proofs -------------------------------------------------------------- */

static bool
search_same_boot(const struct recovery *recovery, const struct io_machine_id *owner)
{
    const struct io_machine_id *machine = &recovery->machine;
    return machine->mount_id != 0 && machine->mount_id == owner->mount_id &&
           memcmp(machine->boot_id, owner->boot_id, sizeof machine->boot_id) == 0;
}

static bool
search_frame_proves(const struct search *search, const struct recovery_log *log, const struct frame *frame,
                    uint64_t lsn)
{
    if (frame->type == FRAME_SEAL) {
        return true;
    }
    if (frame->type == FRAME_SYNCMARK && frame->body.len >= 8 &&
        le64_load(frame->body.ptr) > search->bad_lsn) {
        return true;
    }
    uint64_t below = (uint64_t)frame->back * (FRAME_GRANULE / LSN_BYTES);
    return frame->back != FRAME_BACK_NO_CLAIM && below <= lsn && lsn - below > search->bad_lsn &&
           search_same_boot(search->recovery, &log->owner);
}

static void
search_found(struct search *search, struct recovery_log *log, const struct frame *frame, uint64_t lsn)
{
    search->recovery->valid_behind = true;
    if (frame->type == FRAME_REOPEN && frame->body.len >= REOPEN_BODY_BYTES) {
        recovery_take_owner(log, frame->body);
    }
    if (!search->recovery->proven && search_frame_proves(search, log, frame, lsn)) {
        search->recovery->proven = true;
        search->recovery->proof_lsn = lsn;
    }
}

/* ---- Scan ---------------------------------------------------------------- */

/* The candidate at `offset` of the log, of which the chunk has `have` bytes at
 * `start`, claims `len` bytes. *len_out: its length when it is valid, else 0. */
static esker_status
search_candidate(struct search *search, struct recovery_log *log, const uint8_t *start, uint64_t have,
                 uint64_t offset, uint64_t len, uint64_t *len_out)
{
    struct recovery *recovery = search->recovery;
    uint64_t lsn = recovery_lsn(log, offset);
    struct frame frame;
    *len_out = 0;
    if (len > recovery->search_budget) {
        return RECOVERY_FAIL(ESKER_CORRUPT, log, offset, "too much here looks like frames and is none");
    }
    recovery->search_budget -= len;
    if (len > have && start[4] != FRAME_PAD) {
        buf_clear(&search->frame);
        TRY(buf_append_zeros(&search->frame, (size_t)len));
        TRY(recovery_read(recovery, log, offset, search->frame.ptr, len));
        start = search->frame.ptr;
    }
    if (frame_decode(bytes_make(start, (size_t)len), log->seed, lsn, &frame)) {
        *len_out = len;
        search_found(search, log, &frame, lsn);
    }
    return ESKER_OK;
}

/* Scans what the chunk has of offsets [from, from + have); *next_out: where to go on. */
static esker_status
search_chunk(struct search *search, struct recovery_log *log, uint64_t from, uint64_t have,
             uint64_t *next_out)
{
    uint64_t at = 0;
    while (at < have) {
        const uint8_t *start = search->chunk + at;
        uint64_t offset = from + at;
        uint64_t len = frame_peek(start, log->limit - offset, log->seed, recovery_lsn(log, offset));
        uint64_t skip = 0;
        if (UNLIKELY(len != 0)) {
            TRY(search_candidate(search, log, start, have - at, offset, len, &skip));
            if (search->recovery->proven) {
                break;
            }
        }
        at += MAX(skip, (uint64_t)FRAME_GRANULE);
    }
    *next_out = from + at;
    return ESKER_OK;
}

static esker_status
search_log(struct search *search, struct recovery_log *log, uint64_t from)
{
    while (from < log->limit && !search->recovery->proven) {
        uint64_t have = MIN(log->limit - from, search->chunk_bytes);
        TRY(recovery_read(search->recovery, log, from, search->chunk, have));
        TRY(search_chunk(search, log, from, have, &from));
    }
    return ESKER_OK;
}

esker_status
recovery_search(struct recovery *recovery, size_t index)
{
    struct recovery_log *bad = &recovery->chain[index];
    struct search search = {.recovery = recovery, .bad_lsn = recovery_lsn(bad, bad->end)};
    esker_status status = ESKER_OK;
    recovery->valid_behind = false;
    recovery->search_budget = 0;
    for (size_t i = index; i < recovery->chain_count; i++) {
        uint64_t cap_bytes = recovery->chain[i].file->header.cap_bytes;
        recovery->search_budget += SEARCH_FACTOR * cap_bytes;
        search.chunk_bytes = MAX(search.chunk_bytes, MIN(cap_bytes, (uint64_t)SEARCH_CHUNK));
    }
    buf_init(&search.frame, recovery->input->mem);
    search.chunk = mem_alloc(recovery->input->mem, (size_t)search.chunk_bytes);
    if (search.chunk == NULL) {
        return FAIL_NO_MEMORY("log recovery");
    }
    TRY_OUT(search_log(&search, bad, bad->end + FRAME_GRANULE));
    for (size_t i = index + 1; i < recovery->chain_count; i++) {
        TRY_OUT(search_log(&search, &recovery->chain[i], 0));
    }
out:
    buf_fini(&search.frame);
    mem_free(recovery->input->mem, search.chunk);
    return status;
}

/* ---- One flipped bit ----------------------------------------------------- */

static void
correct_flip(uint8_t *start, uint64_t bit)
{
    start[bit / 8] ^= (uint8_t)(1U << (bit % 8));
}

/* Flips bits [from, to) one by one until the frame at start is valid. The flip stays when true. */
static bool
correct_try(struct bytes room, uint8_t *start, uint64_t from, uint64_t to, uint64_t seed, uint64_t lsn,
            struct frame *frame)
{
    for (uint64_t bit = from; bit < to; bit++) {
        correct_flip(start, bit);
        if (frame_decode(room, seed, lsn, frame)) {
            return true;
        }
        correct_flip(start, bit);
    }
    return false;
}

esker_status
recovery_correct(struct recovery *recovery, struct recovery_log *log, struct frame *frame,
                 bool *corrected_out)
{
    static const uint8_t zeros[FRAME_HEADER_BYTES];
    uint64_t most = recovery->input->correct_bytes;
    uint64_t room_len = MIN(log->limit - log->end, most != 0 ? most : (uint64_t)CORRECT_BYTES_MAX);
    uint64_t lsn = recovery_lsn(log, log->end);
    uint64_t head_bits = (uint64_t)FRAME_HEADER_BYTES * 8;
    *corrected_out = false;
    TRY(recovery_load(recovery, log, log->end + room_len));
    uint8_t *start = log->image + log->end;
    struct bytes room = bytes_make(start, (size_t)room_len);
    if (memcmp(start, zeros, sizeof zeros) == 0) {
        return ESKER_OK;
    }
    bool found = correct_try(room, start, 0, head_bits, log->seed, lsn, frame);
    if (!found) {
        /* The body's bits are worth trying only behind a good head. */
        uint64_t claimed = frame_peek(start, room_len, log->seed, lsn);
        found = correct_try(room, start, head_bits, claimed * 8, log->seed, lsn, frame);
    }
    *corrected_out = found;
    return ESKER_OK;
}
