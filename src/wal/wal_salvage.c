/* SPDX-License-Identifier: MIT */
/*
 * What a damaged log still holds.
 *
 * An ordinary recovery refuses a log as soon as something proves that a bad frame
 * had been complete. Here the same question is asked at every bad frame, and the
 * same proofs answer it: what is proven to have been complete is passed over and
 * told as lost; what is not proven ends the log, as it always does, since nothing
 * behind such a frame was ever acknowledged.
 *
 * Invariants
 *  S1 An entry is handed out only from a frame whose checksum agrees.
 *  S2 Nothing is handed out that recovery would have discarded had no byte
 *     changed: the walk ends at the first bad frame without a proof, limits set by
 *     later logs count, and logs that nothing leads to are left out.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "wal/recovery.h"

struct salvage_run {
    struct recovery recovery;
    struct wal_recover_input input; /* our own image functions */
    const struct wal_salvage_calls *calls;
    const struct mem *mem;
};

/* ---- Files ---------------------------------------------------------------- */

static void
wal_salvage_tell(const struct salvage_run *run, const char *file, uint64_t offset, uint64_t from, uint64_t to,
                 const char *why)
{
    struct wal_loss loss = {.file = file, .offset = offset, .from_lsn = from, .to_lsn = to, .why = why};
    run->calls->loss(run->calls->ctx, &loss);
}

/* The newest valid header page; false if there is none of this database. */
static bool
wal_salvage_header(const struct salvage_run *run, const uint8_t *pages, uint64_t len, struct log_header *out)
{
    bool found = false;
    for (uint64_t at = 0; at + LOG_PAGE_BYTES <= len; at += LOG_PAGE_BYTES) {
        struct log_header header;
        bool unsupported;
        if (log_header_decode(bytes_make(pages + at, LOG_PAGE_BYTES), &header, &unsupported) &&
            memcmp(header.uuid, run->input.uuid, sizeof header.uuid) == 0 &&
            (!found || header.gen > out->gen)) {
            *out = header;
            found = true;
        }
    }
    return found;
}

/* Like log_file_open, but a file that is too short is taken as it is. guess: without a valid
 * header, when those of all others are known. */
static esker_status
wal_salvage_open(struct salvage_run *run, uint64_t number, bool guess, struct log_file **out)
{
    struct io *io = run->input.io;
    uint8_t pages[LOG_HEADER_BYTES] = {0};
    uint64_t size = 0;
    char name[40];
    struct log_file *log = mem_zalloc(run->mem, sizeof *log);
    if (log == NULL) {
        return FAIL_NO_MEMORY("salvaging a log");
    }
    log->io = io;
    log->mem = run->mem;
    log->number = number;
    log_file_name(number, name);
    esker_status status = io_open_file(io, name, IO_OPEN_READ, &log->file);
    if (status == ESKER_OK) {
        status = io_file_size(io, log->file, &size);
    }
    uint64_t len = MIN(size, (uint64_t)sizeof pages);
    if (status == ESKER_OK && len > 0) {
        status = io_read_full(io, log->file, 0, pages, len);
    }
    log->space_bytes = size > LOG_HEADER_BYTES ? size - LOG_HEADER_BYTES : 0;
    bool found = status == ESKER_OK && wal_salvage_header(run, pages, len, &log->header);
    if (status == ESKER_OK && !found && guess) {
        const struct recovery *recovery = &run->recovery;
        status = wal_salvage_guess(&run->input, recovery->files, recovery->file_count, pages, log, &found);
    }
    if (status == ESKER_OK && !found) {
        status = FAIL_AT(ESKER_CORRUPT, name, 0, "neither header page is valid");
    }
    if (status != ESKER_OK) {
        log_file_destroy(log);
        return status;
    }
    *out = log;
    return ESKER_OK;
}

static const char *
wal_salvage_why(esker_status status)
{
    return status == ESKER_NOT_FOUND || (status_last()->os_errno != 0) ? "is missing or cannot be read"
                                                                       : "has no valid header any more";
}

static bool
wal_salvage_is_open(const struct recovery *recovery, uint64_t number)
{
    for (size_t i = 0; i < recovery->file_count; i++) {
        if (recovery->files[i]->number == number) {
            return true;
        }
    }
    return false;
}

/* last: what is not found now is lost. */
static esker_status
wal_salvage_open_one(struct salvage_run *run, uint64_t number, bool last)
{
    struct recovery *recovery = &run->recovery;
    struct log_file *file = NULL;
    esker_status status = wal_salvage_open(run, number, last, &file);
    if (status != ESKER_OK && status != ESKER_CORRUPT && status != ESKER_NOT_FOUND) {
        return status; /* it cannot be read now: that is no damage */
    }
    if (status != ESKER_OK) {
        char name[40];
        log_file_name(number, name);
        if (last) {
            wal_salvage_tell(run, name, 0, 0, 0, wal_salvage_why(status));
        }
        return ESKER_OK;
    }
    const struct log_header *header = &file->header;
    recovery->files[recovery->file_count++] = file;
    recovery->durable = MAX(recovery->durable, header->durable_lsn);
    recovery->gen_max = MAX(recovery->gen_max, header->gen);
    recovery->next_base_lsn = MAX(recovery->next_base_lsn, header->base_lsn + header->cap_bytes / LSN_BYTES);
    if (last) {
        run->calls->found(run->calls->ctx, file->file->name, header->gen, header->base_lsn);
    }
    return ESKER_OK;
}

static esker_status
wal_salvage_open_all(struct salvage_run *run)
{
    struct recovery *recovery = &run->recovery;
    const struct wal_recover_input *input = &run->input;
    recovery->files = mem_zalloc_array(run->mem, MAX(input->log_count, (size_t)1), sizeof(*recovery->files));
    recovery->chain = mem_zalloc_array(run->mem, MAX(input->log_count, (size_t)1), sizeof(*recovery->chain));
    if (recovery->files == NULL || recovery->chain == NULL) {
        return FAIL_NO_MEMORY("salvaging the log");
    }
    recovery->durable = input->durable_lsn;
    /* First those with headers: what the others' were is guessed from them. */
    for (int guess = 0; guess < 2; guess++) {
        for (size_t i = 0; i < input->log_count; i++) {
            if (guess == 0 || !wal_salvage_is_open(recovery, input->log_numbers[i])) {
                TRY(wal_salvage_open_one(run, input->log_numbers[i], guess != 0));
            }
        }
    }
    return ESKER_OK;
}

/* ---- Chain ------------------------------------------------------------------ */

static struct log_file *
wal_salvage_find(const struct recovery *recovery, uint64_t gen)
{
    for (size_t i = 0; i < recovery->file_count; i++) {
        if (recovery->files[i]->header.gen == gen) {
            return recovery->files[i];
        }
    }
    return NULL;
}

static bool
wal_salvage_chained(const struct recovery *recovery, const struct log_file *file)
{
    for (size_t i = 0; i < recovery->chain_count; i++) {
        if (recovery->chain[i].file == file) {
            return true;
        }
    }
    return false;
}

/* Of those that follow `gen`, the one that was begun last. */
static struct log_file *
wal_salvage_successor(const struct recovery *recovery, uint64_t gen)
{
    struct log_file *best = NULL;
    for (size_t i = 0; i < recovery->file_count; i++) {
        struct log_file *file = recovery->files[i];
        if (file->header.prev_gen == gen && file->header.gen > gen &&
            (best == NULL || file->header.gen > best->header.gen)) {
            best = file;
        }
    }
    return best;
}

static int
wal_salvage_by_gen(const void *a, const void *b)
{
    const struct recovery_log *one = a;
    const struct recovery_log *two = b;
    return (one->file->header.gen > two->file->header.gen) - (one->file->header.gen < two->file->header.gen);
}

static void
wal_salvage_chain_add(struct recovery *recovery, struct log_file *file)
{
    if (!wal_salvage_chained(recovery, file)) {
        recovery->chain[recovery->chain_count++].file = file;
    }
}

static void
wal_salvage_set_owner(struct recovery_log *log)
{
    memcpy(log->owner.boot_id, log->file->header.boot_id, sizeof log->owner.boot_id);
    log->owner.mount_id = log->file->header.mount_id;
}

/* The needed logs that are here: forward from the first one needed, and backward from the last. */
static void
wal_salvage_chain(struct salvage_run *run)
{
    struct recovery *recovery = &run->recovery;
    uint64_t first_gen = run->input.wal_min_gen;
    struct log_file *file = wal_salvage_find(recovery, first_gen);
    while (file != NULL) {
        wal_salvage_chain_add(recovery, file);
        file = wal_salvage_successor(recovery, file->header.gen);
    }
    file = wal_salvage_find(recovery, recovery->gen_max);
    while (file != NULL && file->header.gen >= first_gen && !wal_salvage_chained(recovery, file)) {
        wal_salvage_chain_add(recovery, file);
        file = wal_salvage_find(recovery, file->header.prev_gen);
    }
    qsort(recovery->chain, recovery->chain_count, sizeof *recovery->chain, wal_salvage_by_gen);
    for (size_t i = 0; i < recovery->chain_count; i++) {
        struct recovery_log *log = &recovery->chain[i];
        const struct log_header *header = &log->file->header;
        const struct log_file *next = wal_salvage_successor(recovery, header->gen);
        uint64_t end = header->base_lsn + header->cap_bytes / LSN_BYTES;
        log->limit = header->cap_bytes;
        if (next != NULL && next->header.prev_end_lsn >= header->base_lsn &&
            next->header.prev_end_lsn <= end) {
            log->limit = (next->header.prev_end_lsn - header->base_lsn) * LSN_BYTES;
        }
        log->end_unknown = next != NULL && next->header.prev_end_lsn == 0;
        uint64_t space = log->file->space_bytes / FRAME_GRANULE * FRAME_GRANULE;
        if (log->limit > space) {
            wal_salvage_tell(run, log->file->file->name, LOG_HEADER_BYTES + space, recovery_lsn(log, space),
                             recovery_lsn(log, log->limit), "is where the file was cut short");
            log->limit = space;
        }
        log->seed = log_file_seed(header);
        wal_salvage_set_owner(log);
    }
}

/* ---- Frames ------------------------------------------------------------------ */

/* All entries of a batch, or none. */
static bool
wal_salvage_is_sane(const struct frame *frame)
{
    struct entry entry;
    uint64_t at = 0;
    esker_status status = ESKER_OK;
    while (frame->type == FRAME_BATCH && status == ESKER_OK) {
        status = entry_decode(frame->body, &at, &entry);
    }
    bool known = frame->type == FRAME_BATCH || frame->type == FRAME_PAD || frame->type == FRAME_SYNCMARK ||
                 frame->type == FRAME_SEAL || frame->type == FRAME_REOPEN;
    return known && frame->codec == 0 && (frame->type != FRAME_BATCH || status == ESKER_END);
}

/* What a mark says of durability and of who writes. */
static void
wal_salvage_note(struct salvage_run *run, struct recovery_log *log, const struct frame *frame, uint64_t lsn)
{
    if (frame->type == FRAME_SYNCMARK && frame->body.len >= 8 && le64_load(frame->body.ptr) <= lsn) {
        run->recovery.durable = MAX(run->recovery.durable, le64_load(frame->body.ptr));
    } else if (frame->type == FRAME_SEAL) {
        run->recovery.durable = MAX(run->recovery.durable, lsn);
    } else if (frame->type == FRAME_REOPEN && frame->body.len == REOPEN_BODY_BYTES) {
        recovery_take_owner(log, frame->body);
    }
}

/* The valid frame at log->end. */
static esker_status
wal_salvage_take(struct salvage_run *run, struct recovery_log *log, const struct frame *frame)
{
    uint64_t lsn = recovery_lsn(log, log->end);
    uint64_t at = 0;
    struct entry entry;
    bool sane = wal_salvage_is_sane(frame);
    wal_salvage_note(run, log, frame, lsn);
    for (uint64_t begin = 0; sane && frame->type == FRAME_BATCH; begin = at) {
        if (entry_decode(frame->body, &at, &entry) != ESKER_OK) {
            break;
        }
        uint64_t entry_lsn = lsn + (FRAME_HEADER_BYTES + begin) / LSN_BYTES;
        if (entry_lsn >= run->input.wal_min_lsn) {
            TRY(run->calls->entry(run->calls->ctx, &entry, entry_lsn));
        }
    }
    if (!sane) {
        wal_salvage_tell(run, log->file->file->name, LOG_HEADER_BYTES + log->end, lsn,
                         lsn + frame->len_bytes / LSN_BYTES, "holds what this build cannot read");
    }
    log->last_type = frame->type;
    log->end += frame->len_bytes;
    return ESKER_OK;
}

/* The next valid frame at or behind `from`; the limit if there is none. */
static uint64_t
wal_salvage_next_frame(const struct recovery_log *log, uint64_t from)
{
    uint64_t budget = 4 * log->limit;
    for (; from + FRAME_HEADER_BYTES <= log->limit; from += FRAME_GRANULE) {
        struct frame frame;
        struct bytes room = bytes_make(log->image + from, log->limit - from);
        uint64_t lsn = recovery_lsn(log, from);
        uint64_t claimed = frame_peek(room.ptr, room.len, log->seed, lsn);
        if (claimed > budget) {
            break;
        }
        budget -= claimed;
        if (claimed != 0 && frame_decode(room, log->seed, lsn, &frame)) {
            return from;
        }
    }
    return log->limit;
}

/* The frame at log->end is bad. False: nothing proves that it had been complete. */
static esker_status
wal_salvage_is_proven(struct salvage_run *run, size_t index, bool *proven_out)
{
    struct recovery *recovery = &run->recovery;
    struct recovery_log *log = &recovery->chain[index];
    *proven_out = recovery->durable > recovery_lsn(log, log->end);
    if (!*proven_out) {
        struct io_machine_id owner = log->owner;
        recovery->proven = false;
        esker_status status = recovery_search(recovery, index);
        log->owner = owner; /* the search goes ahead of the walk */
        for (size_t i = index + 1; i < recovery->chain_count; i++) {
            wal_salvage_set_owner(&recovery->chain[i]);
        }
        *proven_out = recovery->proven || status == ESKER_CORRUPT; /* so much like frames is no torn tail */
        return status == ESKER_CORRUPT ? ESKER_OK : status;
    }
    return ESKER_OK;
}

/* Passes over a bad frame that had been complete, or takes it corrected. */
static esker_status
wal_salvage_pass(struct salvage_run *run, struct recovery_log *log)
{
    struct frame frame;
    bool corrected = false;
    TRY(recovery_correct(&run->recovery, log, &frame, &corrected));
    if (corrected) {
        return wal_salvage_take(run, log, &frame);
    }
    uint64_t from = log->end;
    log->end = wal_salvage_next_frame(log, from + FRAME_GRANULE);
    uint64_t to_lsn = recovery_lsn(log, log->end);
    if (log->end == log->limit) {
        /* Of an end without frames only what is proven is known to have been there. */
        to_lsn = MAX(MIN(to_lsn, run->recovery.durable), recovery_lsn(log, from) + 2);
    }
    wal_salvage_tell(run, log->file->file->name, LOG_HEADER_BYTES + from, recovery_lsn(log, from), to_lsn,
                     "is damaged");
    return ESKER_OK;
}

/* *ended_out: the log as a whole ends in this file. */
static esker_status
wal_salvage_walk(struct salvage_run *run, size_t index, bool *ended_out)
{
    struct recovery_log *log = &run->recovery.chain[index];
    TRY(recovery_load(&run->recovery, log, log->limit));
    *ended_out = false;
    while (log->end < log->limit) {
        struct frame frame;
        struct bytes room = bytes_make(log->image + log->end, log->limit - log->end);
        bool proven = true;
        if (frame_decode(room, log->seed, recovery_lsn(log, log->end), &frame)) {
            TRY(wal_salvage_take(run, log, &frame));
            continue;
        }
        if (log->end_unknown) { /* an earlier recovery may have ended it here */
            uint64_t next_lsn = run->recovery.chain[index + 1].file->header.base_lsn;
            wal_salvage_tell(run, log->file->file->name, LOG_HEADER_BYTES + log->end,
                             recovery_lsn(log, log->end), next_lsn, "is where it ends, or is damaged");
            break;
        }
        TRY(wal_salvage_is_proven(run, index, &proven));
        if (!proven) {
            *ended_out = true;
            break;
        }
        TRY(wal_salvage_pass(run, log));
    }
    return ESKER_OK;
}

/* ---- All of it ------------------------------------------------------------------ */

static esker_status
wal_salvage_image(void *ctx, const struct log_header *header, uint8_t **image_out)
{
    struct salvage_run *run = ctx;
    void *memory = NULL;
    if (run->input.io->ops->map_memory(run->input.io, header->cap_bytes, &memory) != 0) {
        return FAIL_NO_MEMORY("salvaging a log");
    }
    *image_out = memory;
    return ESKER_OK;
}

/* Between two logs of the chain one is missing. */
static void
wal_salvage_tell_gap(const struct salvage_run *run, const struct recovery_log *log,
                     const struct recovery_log *next)
{
    const struct log_header *header = &next->file->header;
    uint64_t end = log->file->header.base_lsn + log->file->header.cap_bytes / LSN_BYTES;
    if (header->prev_gen != log->file->header.gen && header->base_lsn > end) {
        wal_salvage_tell(run, next->file->file->name, 56, end, header->base_lsn,
                         "follows a log that is not here any more");
    }
}

void
wal_salvaged_fini(struct wal_salvaged *salvaged)
{
    struct salvage_run *run = salvaged->state;
    if (run == NULL) {
        return;
    }
    struct recovery *recovery = &run->recovery;
    for (size_t i = 0; i < recovery->chain_count; i++) {
        struct recovery_log *log = &recovery->chain[i];
        if (log->image != NULL) {
            run->input.io->ops->unmap_memory(run->input.io, log->image, log->file->header.cap_bytes);
        }
    }
    for (size_t i = 0; i < recovery->file_count; i++) {
        log_file_destroy(recovery->files[i]);
    }
    mem_free(run->mem, recovery->files);
    mem_free(run->mem, recovery->chain);
    mem_free(run->mem, run);
    salvaged->state = NULL;
}

esker_status
wal_salvage(const struct wal_recover_input *input, const struct wal_salvage_calls *calls,
            struct wal_salvaged *out)
{
    struct salvage_run *run = mem_zalloc(input->mem, sizeof *run);
    if (run == NULL) {
        return FAIL_NO_MEMORY("salvaging the log");
    }
    *out = (struct wal_salvaged){.state = run, .end_lsn = input->wal_min_lsn};
    run->input = *input;
    run->input.image = wal_salvage_image;
    run->input.image_ctx = run;
    run->calls = calls;
    run->mem = input->mem;
    run->recovery.input = &run->input;
    input->io->ops->machine_id(input->io, &run->recovery.machine);
    esker_status status = ESKER_OK;
    TRY_OUT(wal_salvage_open_all(run));
    wal_salvage_chain(run);
    bool ended = false;
    for (size_t i = 0; i < run->recovery.chain_count && !ended; i++) {
        struct recovery_log *log = &run->recovery.chain[i];
        if (i > 0) {
            wal_salvage_tell_gap(run, log - 1, log);
        }
        TRY_OUT(wal_salvage_walk(run, i, &ended));
        out->end_lsn = MAX(out->end_lsn, recovery_lsn(log, log->end));
    }
    out->gen_max = run->recovery.gen_max;
    out->next_base_lsn = MAX(run->recovery.next_base_lsn, out->end_lsn);
out:
    if (status != ESKER_OK) {
        wal_salvaged_fini(out);
    }
    return status;
}
