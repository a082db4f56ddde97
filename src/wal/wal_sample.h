/* SPDX-License-Identifier: MIT */
/*
 * Hand-made logs for the tests and fuzz targets of this room: frames are put
 * into a frame space in memory one by one, written out as a log file, recovered.
 */
#ifndef ESKER_WAL_WAL_SAMPLE_H
#define ESKER_WAL_WAL_SAMPLE_H

#include <stdlib.h>

#include "base/assert.h"
#include "io/io_sim.h"
#include "wal/log_file.h"

enum { SAMPLE_FRAMES_MAX = 64, SAMPLE_LOGS_MAX = 8, SAMPLE_SPACE_MAX = 16384 };

static const uint8_t sample_uuid[16] = "wal-samples-uuid";

struct sample_log {
    uint64_t number;
    struct log_header header;
    uint8_t space[SAMPLE_SPACE_MAX];
    uint64_t at;                            /* where the next frame goes */
    uint64_t frames[SAMPLE_FRAMES_MAX + 1]; /* offsets; one more than there are */
    size_t frame_count;
};

static inline void
sample_log_init(struct sample_log *log, uint64_t number, uint64_t gen, uint64_t prev_gen, uint64_t base_lsn,
                uint64_t cap_bytes)
{
    memset(log, 0, sizeof *log);
    log->number = number;
    log->header = (struct log_header){
        .gen = gen,
        .base_lsn = base_lsn,
        .cap_bytes = cap_bytes,
        .prev_gen = prev_gen,
        .prev_end_lsn = prev_gen == 0 ? 0 : base_lsn,
        .manifest_no = 1,
        .edit_no = 1,
    };
    memcpy(log->header.uuid, sample_uuid, sizeof sample_uuid);
}

static inline uint64_t
sample_lsn(const struct sample_log *log)
{
    return log->header.base_lsn + log->at / LSN_BYTES;
}

/* The body stands already at space + at + 16. */
static inline void
sample_frame(struct sample_log *log, enum frame_type type, uint16_t back, uint64_t body_bytes)
{
    uint64_t len = align_up(FRAME_HEADER_BYTES + body_bytes, FRAME_GRANULE);
    ASSERT(log->frame_count < SAMPLE_FRAMES_MAX && log->at + len <= log->header.cap_bytes);
    frame_seal(log->space + log->at, len, type, back, log_file_seed(&log->header), sample_lsn(log));
    log->frames[log->frame_count++] = log->at;
    log->at += len;
    log->frames[log->frame_count] = log->at;
}

/* One PUT whose key tells its number. */
static inline void
sample_batch(struct sample_log *log, uint32_t key_no, uint32_t value_len, uint16_t back)
{
    uint8_t value[4096];
    uint8_t key[4];
    ASSERT(value_len <= sizeof value);
    le32_store(key, key_no);
    for (uint32_t i = 0; i < value_len; i++) {
        value[i] = (uint8_t)(key_no * 17 + i * 29 + 1);
    }
    uint8_t *body = log->space + log->at + FRAME_HEADER_BYTES;
    entry_encode(body, ENTRY_PUT, bytes_make(key, sizeof key), bytes_make(value, value_len));
    sample_frame(log, FRAME_BATCH, back, entry_size_bytes(sizeof key, value_len));
}

static inline void
sample_words(struct sample_log *log, enum frame_type type, uint64_t a, uint64_t b)
{
    uint8_t *body = log->space + log->at + FRAME_HEADER_BYTES;
    le64_store(body, a);
    le64_store(body + 8, b);
    sample_frame(log, type, FRAME_BACK_NO_CLAIM, 16);
}

static inline void
sample_mark(struct sample_log *log, uint64_t durable_lsn)
{
    sample_words(log, FRAME_SYNCMARK, durable_lsn, 12345);
}

static inline void
sample_seal(struct sample_log *log)
{
    sample_words(log, FRAME_SEAL, sample_lsn(log), 0);
}

static inline void
sample_reopen(struct sample_log *log, const struct io_machine_id *machine)
{
    uint8_t *body = log->space + log->at + FRAME_HEADER_BYTES;
    memset(body, 0, REOPEN_BODY_BYTES);
    memcpy(body, machine->boot_id, sizeof machine->boot_id);
    le64_store(body + 16, machine->mount_id);
    sample_frame(log, FRAME_REOPEN, FRAME_BACK_NO_CLAIM, REOPEN_BODY_BYTES);
}

/* A PAD up to the end; what it skips is rubbish. */
static inline void
sample_pad(struct sample_log *log)
{
    uint64_t body = log->header.cap_bytes - log->at - FRAME_HEADER_BYTES;
    memset(log->space + log->at + FRAME_HEADER_BYTES, 0xDB, body);
    sample_frame(log, FRAME_PAD, FRAME_BACK_NO_CLAIM, body);
}

/* Both header pages and the frame space, as the file's whole content. */
static inline void
sample_write(struct sim_disk *disk, const struct sample_log *log)
{
    static uint8_t file[LOG_HEADER_BYTES + SAMPLE_SPACE_MAX];
    char name[40];
    log_file_name(log->number, name);
    log_header_encode(&log->header, file);
    log_header_encode(&log->header, file + LOG_PAGE_BYTES);
    memcpy(file + LOG_HEADER_BYTES, log->space, log->header.cap_bytes);
    sim_disk_put(disk, name, bytes_make(file, LOG_HEADER_BYTES + log->header.cap_bytes));
}

/* ---- Recovering ---------------------------------------------------------- */

/* Images that are out; 0 when all were given back. */
static int sample_images;

static inline esker_status
sample_image(void *ctx, const struct log_header *header, uint8_t **image_out)
{
    (void)ctx;
    uint8_t *image = calloc(1, header->cap_bytes);
    if (image == NULL) {
        return FAIL_NO_MEMORY("an image");
    }
    sample_images++;
    *image_out = image;
    return ESKER_OK;
}

static inline void
sample_image_release(void *ctx, const struct log_header *header, uint8_t *image)
{
    (void)ctx;
    (void)header;
    sample_images--;
    free(image);
}

static inline struct wal_recover_input
sample_input(struct io *io, const uint64_t *numbers, size_t count)
{
    struct wal_recover_input input = {
        .io = io,
        .mem = &mem_default,
        .log_numbers = numbers,
        .log_count = count,
        .wal_min_gen = 1,
        .manifest_no = 1,
        .edit_no = 1,
        .image = sample_image,
        .image_release = sample_image_release,
    };
    memcpy(input.uuid, sample_uuid, sizeof sample_uuid);
    return input;
}

/* Frees everything that a successful recovery handed over. */
static inline void
sample_recovered_fini(struct wal_recovered *recovered)
{
    for (size_t i = 0; i < recovered->log_count; i++) {
        if (recovered->logs[i].image != NULL) {
            sample_image_release(NULL, NULL, recovered->logs[i].image);
        }
        log_file_destroy(recovered->logs[i].log);
    }
    for (size_t i = 0; i < recovered->spare_count; i++) {
        log_file_destroy(recovered->spare[i]);
    }
    wal_recovered_fini(recovered, &mem_default);
}

#endif
