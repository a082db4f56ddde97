/* rooms: wal */
/* SPDX-License-Identifier: MIT */
/*
 * Up to three whole log files through recovery. Input: a byte of choices, a byte
 * for the durable point, then logs of {header fields, u16 length, frames}. Bit 0:
 * headers are made to fit; bit 1: frames are sealed one after the other; bit 2:
 * the logs were written by this boot of this machine. What is sealed
 * may afterwards be damaged by the bytes that the frames' first granule names. Bit 3: at
 * last the first log loses both header pages, with bit 4 all that stood in them, and what
 * is left is salvaged.
 *
 * Oracles: recovery refuses, or hands over only valid frames; twice it says the
 * same; and after it began what the engine would begin next, a log or a REOPEN,
 * it says the same again: what was accepted once is never refused later. Salvage hands
 * over entries of the LSNs asked for and above, and headers only of sane numbers.
 */
#include "base/cursor.h"
#include "wal/wal_sample.h"

enum {
    FUZZ_HEADERS = 1,
    FUZZ_SEAL = 2,
    FUZZ_HERE = 4,
    FUZZ_LOST = 8,
    FUZZ_BLANK = 16,
    FUZZ_LOGS_MAX = 3,
    FUZZ_CAP = 8192
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_result {
    esker_status status;
    uint64_t end_lsn, durable_lsn, hash;
    uint64_t gen_max, next_base_lsn, last_gen, last_number;
    bool sealed;
};

static void
fuzz_fix_header(uint8_t *page, const struct io_machine_id *here, uint8_t mode)
{
    memcpy(page, "ESKERLOG", 8);
    le32_store(page + 8, LOG_FORMAT);
    le32_store(page + 12, 0);
    memcpy(page + 16, sample_uuid, sizeof sample_uuid);
    le64_store(page + 32, le64_load(page + 32) % 8);
    le64_store(page + 40, le64_load(page + 40) % (1 << 16) & ~(uint64_t)1);
    le64_store(page + 48, (le64_load(page + 48) % 2 + 1) * LOG_PAGE_BYTES);
    le64_store(page + 56, le64_load(page + 56) % 8);
    le64_store(page + 64, le64_load(page + 64) % (1 << 16) & ~(uint64_t)1);
    le64_store(page + 72, le64_load(page + 72) % (1 << 16));
    le64_store(page + 80, 1);
    le64_store(page + 88, 1);
    if ((mode & FUZZ_HERE) != 0) {
        memcpy(page + 96, here->boot_id, sizeof here->boot_id);
        le64_store(page + 112, here->mount_id);
    }
    le64_store(page + 120, hash64(page, 120, 0));
}

/* Seals frames over whatever stands there, with the lengths that stand there. */
static void
fuzz_seal_frames(uint8_t *space, size_t len, const struct log_header *header)
{
    for (uint64_t at = 0; at + FRAME_HEADER_BYTES <= len;) {
        uint64_t lsn = header->base_lsn + at / LSN_BYTES;
        uint64_t room = (header->cap_bytes - at) / FRAME_GRANULE;
        uint64_t frame_len = MIN((uint64_t)le32_load(space + at) % 64 + 1, room) * FRAME_GRANULE;
        uint8_t type = space[at + 4] % 16;
        if (type == FRAME_SEAL && frame_len >= 32) {
            le64_store(space + at + 16, lsn);
        }
        uint8_t spoil = space[at + 8];
        frame_seal(space + at, frame_len, type, le16_load(space + at + 6), log_file_seed(header), lsn);
        if (spoil % 8 == 7) {
            space[at + spoil / 8 % frame_len] ^= space[at + 5] | 1;
        }
        at += frame_len;
    }
}

static void
fuzz_put_log(struct sim_disk *disk, struct cursor *cursor, uint64_t number, uint8_t mode,
             const struct io_machine_id *here)
{
    static uint8_t file[LOG_HEADER_BYTES + FUZZ_CAP];
    char name[40];
    struct log_header header;
    bool unsupported;
    memset(file, 0, sizeof file);
    struct bytes fields = cursor_bytes(cursor, MIN((size_t)LOG_HEADER_FIELDS_BYTES, cursor_left(cursor)));
    uint64_t len = cursor_u16(cursor) % (FUZZ_CAP + 1);
    struct bytes frames = cursor_bytes(cursor, MIN(len, cursor_left(cursor)));
    if (fields.len > 0) {
        memcpy(file, fields.ptr, fields.len);
    }
    if (frames.len > 0) {
        memcpy(file + LOG_HEADER_BYTES, frames.ptr, frames.len);
    }
    if ((mode & FUZZ_HEADERS) != 0) {
        fuzz_fix_header(file, here, mode);
    }
    if ((mode & FUZZ_SEAL) != 0 &&
        log_header_decode(bytes_make(file, LOG_PAGE_BYTES), &header, &unsupported)) {
        fuzz_seal_frames(file + LOG_HEADER_BYTES, MIN(frames.len, header.cap_bytes), &header);
    }
    memcpy(file + LOG_PAGE_BYTES, file, LOG_PAGE_BYTES);
    log_file_name(number, name);
    sim_disk_put(disk, name, bytes_make(file, sizeof file));
}

/* Every frame of [base, end) is valid, and nothing is behind. */
static void
fuzz_check_log(const struct wal_recovered_log *log, uint64_t *hash)
{
    const struct log_header *header = &log->log->header;
    uint64_t used = (log->end_lsn - header->base_lsn) * LSN_BYTES;
    ASSERT(log->end_lsn >= header->base_lsn && used <= header->cap_bytes);
    for (uint64_t at = 0; at < used;) {
        struct frame frame;
        struct bytes rest = bytes_make(log->image + at, used - at);
        ASSERT(frame_decode(rest, log_file_seed(header), header->base_lsn + at / LSN_BYTES, &frame));
        *hash = hash64(log->image + at, FRAME_HEADER_BYTES, *hash);
        at += frame.len_bytes;
    }
    for (uint64_t at = used; at < header->cap_bytes; at++) {
        ASSERT(log->image[at] == 0);
    }
}

static struct fuzz_result
fuzz_recover(const struct wal_recover_input *input)
{
    struct wal_recovered out;
    struct fuzz_result result;
    memset(&result, 0, sizeof result); /* padding too: results are compared whole */
    result.status = wal_recover(input, &out);
    if (result.status != ESKER_OK) {
        ASSERT(result.status == ESKER_CORRUPT || result.status == ESKER_UNSUPPORTED);
        ASSERT(status_last()->file[0] != '\0' && sample_images == 0);
        return result;
    }
    ASSERT(out.log_count >= 1 && out.log_count + out.spare_count == input->log_count);
    for (size_t i = 0; i < out.log_count; i++) {
        ASSERT(i == 0 || out.logs[i].log->header.base_lsn >= out.logs[i - 1].end_lsn);
        fuzz_check_log(&out.logs[i], &result.hash);
    }
    const struct wal_recovered_log *last = &out.logs[out.log_count - 1];
    ASSERT(out.end_lsn == last->end_lsn && out.durable_lsn <= out.end_lsn);
    ASSERT(out.next_base_lsn > out.end_lsn && out.next_base_lsn % 512 == 0);
    ASSERT(!out.sealed || (out.seal_lsn < out.end_lsn && out.durable_lsn == out.end_lsn));
    result.end_lsn = out.end_lsn;
    result.durable_lsn = out.durable_lsn;
    result.gen_max = out.gen_max;
    result.next_base_lsn = out.next_base_lsn;
    result.last_gen = last->log->header.gen;
    result.last_number = last->log->number;
    result.sealed = out.sealed;
    sample_recovered_fini(&out);
    return result;
}

/* Begins the next log, as the engine does behind a log that was not sealed. */
static void
fuzz_begin_next(struct sim_disk *disk, struct wal_recover_input *input, const struct fuzz_result *before)
{
    static struct sample_log next;
    static const uint64_t numbers[] = {1, 2, 3, 4};
    static const uint64_t with_two[] = {1, 2, 4};
    static const uint64_t with_one[] = {1, 4};
    sample_log_init(&next, 4, before->gen_max + 1, before->last_gen, before->next_base_lsn, FUZZ_CAP);
    next.header.prev_end_lsn = before->end_lsn;
    next.header.durable_lsn = before->durable_lsn;
    if (!log_header_is_sane(&next.header)) {
        return; /* numbers at their end */
    }
    sample_write(disk, &next);
    input->log_numbers = input->log_count == 3 ? numbers : input->log_count == 2 ? with_two : with_one;
    input->log_count++;
    struct fuzz_result after = fuzz_recover(input);
    ASSERT(after.status == ESKER_OK && after.end_lsn == before->end_lsn && after.hash == before->hash);
    ASSERT(!after.sealed);
    sample_batch(&next, 1, 20, 0);
    sample_write(disk, &next);
    after = fuzz_recover(input);
    ASSERT(after.status == ESKER_OK && after.end_lsn == sample_lsn(&next));
}

/* Continues a sealed log in place. */
static void
fuzz_reopen(struct sim_disk *disk, const struct wal_recover_input *input, const struct fuzz_result *before)
{
    static struct sample_log log;
    char name[40];
    struct bytes content;
    bool unsupported;
    struct io_machine_id here;
    log_file_name(before->last_number, name);
    ASSERT(sim_disk_get(disk, name, &content));
    ASSERT(log_header_decode(bytes_make(content.ptr, LOG_PAGE_BYTES), &log.header, &unsupported));
    memcpy(log.space, content.ptr + LOG_HEADER_BYTES, log.header.cap_bytes);
    log.number = before->last_number;
    log.frame_count = 0;
    log.at = (before->end_lsn - log.header.base_lsn) * LSN_BYTES;
    if (log.at + 96 > log.header.cap_bytes) {
        return;
    }
    input->io->ops->machine_id(input->io, &here);
    memset(log.space + log.at, 0, 96);
    sample_reopen(&log, &here);
    sample_batch(&log, 1, 8, 0);
    sample_write(disk, &log);
    struct fuzz_result after = fuzz_recover(input);
    ASSERT(after.status == ESKER_OK && after.end_lsn == sample_lsn(&log));
}

static esker_status
fuzz_salvaged_entry(void *ctx, const struct entry *entry, uint64_t lsn)
{
    const struct wal_recover_input *input = ctx;
    ASSERT(lsn >= input->wal_min_lsn && entry->key.len <= FUZZ_CAP && entry->value.len <= FUZZ_CAP);
    return ESKER_OK;
}

static void
fuzz_salvaged_loss(void *ctx, const struct wal_loss *loss)
{
    (void)ctx;
    ASSERT(loss->file != NULL && loss->why != NULL && loss->from_lsn <= LSN_MAX);
}

static void
fuzz_salvaged_found(void *ctx, const char *file, uint64_t gen, uint64_t base_lsn)
{
    (void)ctx;
    ASSERT(file != NULL && gen != 0 && gen <= LSN_MAX && base_lsn % 2 == 0 && base_lsn <= LSN_MAX);
}

/* The first log's header pages are lost; the rest is as it was. */
static void
fuzz_salvage(struct sim_disk *disk, struct wal_recover_input *input, uint8_t mode)
{
    static uint8_t file[LOG_HEADER_BYTES + FUZZ_CAP];
    const struct wal_salvage_calls calls = {
        .entry = fuzz_salvaged_entry, .loss = fuzz_salvaged_loss, .found = fuzz_salvaged_found, .ctx = input};
    struct wal_salvaged salvaged = {0};
    struct bytes content;
    char name[40];
    log_file_name(1, name);
    ASSERT(sim_disk_get(disk, name, &content) && content.len <= sizeof file);
    size_t len = content.len;
    memcpy(file, content.ptr, len);
    for (size_t page = 0; page < LOG_HEADER_BYTES; page += LOG_PAGE_BYTES) {
        memset(file + page, 0, (mode & FUZZ_BLANK) != 0 ? LOG_PAGE_BYTES : 8);
    }
    sim_disk_put(disk, name, bytes_make(file, len));
    esker_status status = wal_salvage(input, &calls, &salvaged);
    ASSERT(status == ESKER_OK || status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
    wal_salvaged_fini(&salvaged);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t numbers[] = {1, 2, 3};
    struct cursor cursor = cursor_make(data, size);
    struct sim_disk *disk = sim_disk_create(1);
    struct io *io = NULL;
    struct io_machine_id here;
    ASSERT(io_sim_open(disk, &mem_default, &io) == ESKER_OK);
    io->ops->machine_id(io, &here);
    uint8_t mode = cursor_u8(&cursor);
    uint64_t durable = cursor_u8(&cursor);
    size_t count = 0;
    do {
        fuzz_put_log(disk, &cursor, numbers[count], mode, &here);
        count++;
    } while (count < FUZZ_LOGS_MAX && cursor_left(&cursor) >= LOG_HEADER_FIELDS_BYTES);
    struct wal_recover_input input = sample_input(io, numbers, count);
    input.durable_lsn = durable;
    struct fuzz_result first = fuzz_recover(&input);
    struct fuzz_result second = fuzz_recover(&input);
    ASSERT(memcmp(&first, &second, sizeof first) == 0);
    if (first.status == ESKER_OK && first.sealed) {
        fuzz_reopen(disk, &input, &first);
    } else if (first.status == ESKER_OK) {
        fuzz_begin_next(disk, &input, &first);
    }
    if ((mode & FUZZ_LOST) != 0) {
        fuzz_salvage(disk, &input, mode);
    }
    io_close_dir(io);
    sim_disk_destroy(disk);
    return 0;
}
