/* SPDX-License-Identifier: MIT */
/*
 * Which logs hold what is needed: opening all listed files, judging their
 * headers together, following prev_gen links.
 */
#include <stdio.h>

#include "wal/recovery.h"
#include "base/mutant.h"

static void
chain_manifest_name(const struct recovery *recovery, char out[40])
{
    snprintf(out, 40, "manifest-%08llx", (unsigned long long)recovery->input->manifest_no);
}

static esker_status
chain_open_files(struct recovery *recovery)
{
    const struct wal_recover_input *input = recovery->input;
    unsigned flags = input->read_only ? IO_OPEN_READ : IO_OPEN_WRITE;
    recovery->files = mem_zalloc_array(input->mem, input->log_count, sizeof(*recovery->files));
    recovery->chain = mem_zalloc_array(input->mem, input->log_count, sizeof(*recovery->chain));
    if (recovery->files == NULL || recovery->chain == NULL) {
        return FAIL_NO_MEMORY("log recovery");
    }
    for (; recovery->file_count < input->log_count; recovery->file_count++) {
        TRY(log_file_open(input->io, input->mem, input->log_numbers[recovery->file_count], input->uuid, flags,
                          &recovery->files[recovery->file_count]));
        recovery->bytes_read += LOG_HEADER_BYTES;
    }
    return ESKER_OK;
}

static struct log_file *
chain_find(const struct recovery *recovery, uint64_t gen)
{
    for (size_t i = 0; i < recovery->file_count; i++) {
        if (recovery->files[i]->header.gen == gen) {
            return recovery->files[i];
        }
    }
    return NULL;
}

/* Of the logs that follow `gen`, the one that was begun last; NULL if none does. */
static struct log_file *
chain_successor(const struct recovery *recovery, uint64_t gen)
{
    struct log_file *best = NULL;
    for (size_t i = 0; i < recovery->file_count; i++) {
        struct log_file *file = recovery->files[i];
        if (file->header.prev_gen == gen && (best == NULL || file->header.gen > best->header.gen)) {
            best = file;
        }
    }
    return best;
}

/* Takes from every header what it proves, needed or not. */
static esker_status
chain_judge_headers(struct recovery *recovery)
{
    const struct wal_recover_input *input = recovery->input;
    recovery->durable = input->durable_lsn;
    for (size_t i = 0; i < recovery->file_count; i++) {
        const struct log_file *file = recovery->files[i];
        const struct log_header *header = &file->header;
        if (header->edit_no > input->edit_no) {
            char name[40];
            chain_manifest_name(recovery, name);
            return FAIL_AT(
                ESKER_CORRUPT, name, 0, "%s proves that edit %llu was durable, the last one here is %llu",
                file->file->name, (unsigned long long)header->edit_no, (unsigned long long)input->edit_no);
        }
        if (chain_find(recovery, header->gen) != file) {
            return FAIL_AT(ESKER_CORRUPT, file->file->name, 0, "two log files of generation %llu",
                           (unsigned long long)header->gen);
        }
        recovery->durable = MAX(recovery->durable, header->durable_lsn);
        recovery->gen_max = MAX(recovery->gen_max, header->gen);
        recovery->next_base_lsn =
            MAX(recovery->next_base_lsn, header->base_lsn + header->cap_bytes / LSN_BYTES);
    }
    return ESKER_OK;
}

/* How much of `log` counts, given its successor (NULL: all). */
static esker_status
chain_set_range(struct recovery_log *log, const struct log_file *successor)
{
    const struct log_header *header = &log->file->header;
    log->limit = header->cap_bytes;
    if (successor != NULL && !MUTANT(12)) {
        uint64_t prev_end = successor->header.prev_end_lsn;
        if (prev_end < header->base_lsn || prev_end > header->base_lsn + header->cap_bytes / LSN_BYTES) {
            return FAIL_AT(ESKER_CORRUPT, successor->file->name, 64,
                           "its predecessor %s cannot have ended at LSN %llu", log->file->file->name,
                           (unsigned long long)prev_end);
        }
        log->limit = (prev_end - header->base_lsn) * LSN_BYTES;
        log->cut = log->limit < header->cap_bytes || successor->header.base_lsn > prev_end;
    }
    log->seed = log_file_seed(header);
    memcpy(log->owner.boot_id, header->boot_id, sizeof log->owner.boot_id);
    log->owner.mount_id = header->mount_id;
    return ESKER_OK;
}

/* The last log that was begun must be reached; see log_file.h. */
static esker_status
chain_check_reach(const struct recovery *recovery)
{
    const struct log_file *newest = chain_find(recovery, recovery->gen_max);
    uint64_t last_gen = recovery->chain[recovery->chain_count - 1].file->header.gen;
    if (recovery->gen_max > last_gen && newest->header.prev_gen != 0) {
        return FAIL_AT(ESKER_CORRUPT, newest->file->name, 56,
                       "the log before it, of generation %llu, or one before that is lost",
                       (unsigned long long)newest->header.prev_gen);
    }
    return ESKER_OK;
}

esker_status
recovery_open_chain(struct recovery *recovery)
{
    uint64_t wal_min_gen = recovery->input->wal_min_gen;
    TRY(chain_open_files(recovery));
    TRY(chain_judge_headers(recovery));
    if (wal_min_gen == 0 && recovery->file_count == 0) {
        return ESKER_OK;
    }
    struct log_file *file = chain_find(recovery, wal_min_gen);
    if (file == NULL) {
        char name[40];
        chain_manifest_name(recovery, name);
        return FAIL_AT(ESKER_CORRUPT, name, 0, "the log of generation %llu, the first one needed, is lost",
                       (unsigned long long)wal_min_gen);
    }
    /* Ends: a successor has a higher gen (log_header_is_sane), and no gen comes twice. */
    while (file != NULL) {
        struct recovery_log *log = &recovery->chain[recovery->chain_count++];
        struct log_file *successor = chain_successor(recovery, file->header.gen);
        log->file = file;
        TRY(chain_set_range(log, successor));
        file = successor;
    }
    return chain_check_reach(recovery);
}
