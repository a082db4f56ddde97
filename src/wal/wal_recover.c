/* SPDX-License-Identifier: MIT */
/*
 * Recovery over all logs: walk them in order, judge the first bad frame, hand
 * over what is needed. The rules are in log_file.h; docs/format.md argues for
 * them.
 */
#include "wal/recovery.h"

#include "base/mutant.h"
#include "base/assert.h"

enum { RECOVER_BASE_ALIGN = 512 };

static esker_status
recover_damaged(const struct recovery_log *log, uint64_t proof_lsn, const char *proof)
{
    return RECOVERY_FAIL(ESKER_CORRUPT, log, log->end,
                         "a damaged frame at LSN %llu that %s up to LSN %llu proves to have been complete",
                         (unsigned long long)recovery_lsn(log, log->end), proof,
                         (unsigned long long)proof_lsn);
}

#ifdef ESKER_MUTANTS
/* What recovery must not do: goes on at the next valid frame. */
static bool
recover_skip(struct recovery *recovery, struct recovery_log *log)
{
    struct frame frame;
    if (recovery_load(recovery, log, log->limit) != ESKER_OK) {
        return false;
    }
    for (uint64_t at = log->end + FRAME_GRANULE; at < log->limit; at += FRAME_GRANULE) {
        struct bytes rest = bytes_make(log->image + at, (size_t)(log->limit - at));
        if (frame_decode(rest, log->seed, recovery_lsn(log, at), &frame)) {
            frame_seal(log->image + log->end, at - log->end, FRAME_PAD, FRAME_BACK_NO_CLAIM, log->seed,
                       recovery_lsn(log, log->end));
            return true;
        }
    }
    return false;
}
#else
#define recover_skip(recovery, log) false
#endif

/* The frame at chain[index].end is bad: damage, a frame to correct, or the end. */
static esker_status
recover_judge_end(struct recovery *recovery, size_t index)
{
    struct recovery_log *log = &recovery->chain[index];
    struct frame frame;
    bool corrected = false;
    if (MUTANT(13) && recover_skip(recovery, log)) {
        return recovery_walk(recovery, log);
    }
    if (recovery->durable > recovery_lsn(log, log->end)) {
        return recover_damaged(log, recovery->durable, "a durable point");
    }
    TRY(recovery_correct(recovery, log, &frame, &corrected));
    /* An earlier recovery that ended this log at its limit had corrected the same frame. */
    bool accepted = corrected && log->cut && log->end + frame.len_bytes == log->limit;
    if (!accepted) {
        if (corrected && frame.type == FRAME_REOPEN && frame.body.len == REOPEN_BODY_BYTES) {
            recovery_take_owner(log, frame.body); /* who wrote what stands behind it */
        }
        TRY(recovery_search(recovery, index));
        if (recovery->proven) {
            return recover_damaged(log, recovery->proof_lsn, "a later frame");
        }
        accepted = corrected && !recovery->valid_behind;
        recovery->ended = true;
    }
    if (accepted) {
        log->corrected_lsn = recovery_lsn(log, log->end);
        log->corrected = true;
        return recovery_walk(recovery, log);
    }
    return ESKER_OK;
}

/* Walks the chain until a log is not complete, or a frame at the end of all was
 * corrected: later logs have no valid frame then, and to correct one there too
 * would leave a log in the middle that a later recovery could not accept.
 * *last_out: the last log walked. */
static esker_status
recover_walk_chain(struct recovery *recovery, size_t *last_out)
{
    size_t index = 0;
    for (;; index++) {
        struct recovery_log *log = &recovery->chain[index];
        TRY(recovery_walk(recovery, log));
        if (!log->complete) {
            TRY(recover_judge_end(recovery, index));
        }
        if (!log->complete || recovery->ended || index + 1 == recovery->chain_count) {
            break;
        }
    }
    *last_out = index;
    return ESKER_OK;
}

/* The end as a whole: nothing that is known to exist may lie beyond it. */
static esker_status
recover_check_end(const struct recovery *recovery, size_t last)
{
    const struct recovery_log *log = &recovery->chain[last];
    uint64_t end_lsn = recovery_lsn(log, log->end);
    if (recovery->durable > end_lsn) {
        return recover_damaged(log, recovery->durable, "a durable point");
    }
    if (recovery->input->wal_min_lsn > end_lsn) {
        return RECOVERY_FAIL(ESKER_CORRUPT, log, log->end,
                             "the log ends here, below what the manifest calls its start");
    }
    return ESKER_OK;
}

/* ---- Handing over -------------------------------------------------------- */

static void
recover_release(struct recovery *recovery, struct recovery_log *log)
{
    const struct wal_recover_input *input = recovery->input;
    if (log->image == NULL) {
        return;
    }
    if (input->image_release != NULL) {
        input->image_release(input->image_ctx, &log->file->header, log->image);
    } else {
        input->io->ops->unmap_memory(input->io, log->image, log->file->header.cap_bytes);
    }
    log->image = NULL;
}

static void
recover_hand_log(struct recovery_log *log, struct wal_recovered_log *out)
{
    if (log->loaded > log->end) {
        memset(log->image + log->end, 0, (size_t)(log->loaded - log->end));
    }
    out->log = log->file;
    out->image = log->image;
    out->end_lsn = recovery_lsn(log, log->end);
    log->image = NULL;
}

static bool
recover_is_handed(const struct wal_recovered *out, const struct log_file *file)
{
    for (size_t i = 0; i < out->log_count; i++) {
        if (out->logs[i].log == file) {
            return true;
        }
    }
    return false;
}

/* kept: how many logs of the chain are needed. */
static esker_status
recover_hand_over(struct recovery *recovery, size_t kept, struct wal_recovered *out)
{
    const struct mem *mem = recovery->input->mem;
    for (size_t i = 0; i < kept; i++) {
        TRY(recovery_need_image(recovery, &recovery->chain[i]));
    }
    out->logs = mem_zalloc_array(mem, kept, sizeof(*out->logs));
    out->spare = mem_zalloc_array(mem, recovery->file_count, sizeof(*out->spare));
    if (out->logs == NULL || out->spare == NULL) {
        wal_recovered_fini(out, mem);
        return FAIL_NO_MEMORY("log recovery");
    }
    for (size_t i = 0; i < kept; i++) {
        recover_hand_log(&recovery->chain[i], &out->logs[out->log_count++]);
    }
    for (size_t i = kept; i < recovery->chain_count; i++) {
        recover_release(recovery, &recovery->chain[i]);
    }
    for (size_t i = 0; i < recovery->file_count; i++) {
        if (!recover_is_handed(out, recovery->files[i])) {
            out->spare[out->spare_count++] = recovery->files[i];
        }
    }
    recovery->file_count = 0;
    return ESKER_OK;
}

static void
recover_describe_end(const struct recovery *recovery, size_t kept, struct wal_recovered *out)
{
    out->end_lsn = recovery->input->wal_min_lsn;
    out->durable_lsn = recovery->durable;
    if (kept > 0) {
        const struct recovery_log *log = &recovery->chain[kept - 1];
        out->end_lsn = recovery_lsn(log, log->end);
        out->sealed = log->last_type == FRAME_SEAL && !log->cut && !log->corrected && !recovery->valid_behind;
        if (out->sealed) {
            out->seal_lsn = recovery_lsn(log, log->last_off);
            out->durable_lsn = out->end_lsn;
        }
    }
    for (size_t i = 0; i < kept; i++) {
        const struct recovery_log *log = &recovery->chain[i];
        if (log->corrected) {
            out->corrected_frames++;
            out->corrected_lsn = log->corrected_lsn;
        }
    }
    out->durable_lsn = MIN(out->durable_lsn, out->end_lsn);
    out->gen_max = recovery->gen_max;
    /* Above end_lsn: a gap before a log tells later recoveries that one ended its predecessor. */
    if (MUTANT(15)) {
        out->next_base_lsn = align_up(out->end_lsn + 1, RECOVER_BASE_ALIGN);
        out->bytes_read = recovery->bytes_read;
        return;
    }
    out->next_base_lsn = align_up(MAX(recovery->next_base_lsn, out->end_lsn + 1), RECOVER_BASE_ALIGN);
    out->bytes_read = recovery->bytes_read;
}

static esker_status
recover_run(struct recovery *recovery, struct wal_recovered *out)
{
    size_t kept = 0;
    TRY(recovery_open_chain(recovery));
    if (recovery->chain_count > 0) {
        TRY(recover_walk_chain(recovery, &kept));
        TRY(recover_check_end(recovery, kept));
        kept++;
        /* Prepared ahead, no frame written: its file is free. The first log is what the manifest names. */
        while (kept > 1 && recovery->chain[kept - 1].last_type == 0) {
            kept--;
        }
    }
    recover_describe_end(recovery, kept, out);
    return recover_hand_over(recovery, kept, out);
}

esker_status
wal_recover(const struct wal_recover_input *input, struct wal_recovered *out)
{
    struct recovery recovery = {.input = input};
    struct wal_recovered result = {0};
    input->io->ops->machine_id(input->io, &recovery.machine);
    esker_status status = recover_run(&recovery, &result);
    if (status != ESKER_OK) {
        for (size_t i = 0; i < recovery.chain_count; i++) {
            recover_release(&recovery, &recovery.chain[i]);
        }
    }
    for (size_t i = 0; i < recovery.file_count; i++) {
        log_file_destroy(recovery.files[i]);
    }
    mem_free(input->mem, recovery.files);
    mem_free(input->mem, recovery.chain);
    if (status == ESKER_OK) {
        *out = result;
    }
    return status;
}

void
wal_recovered_fini(struct wal_recovered *recovered, const struct mem *mem)
{
    mem_free(mem, recovered->logs);
    mem_free(mem, recovered->spare);
    recovered->logs = NULL;
    recovered->spare = NULL;
    recovered->log_count = 0;
    recovered->spare_count = 0;
}
