/* SPDX-License-Identifier: MIT */
/*
 * A log both of whose header pages are damaged. What its frames need of the header
 * is the generation and the first LSN: both go into every frame's checksum. So they
 * are guessed, and a frame whose checksum agrees proves the guess. Guesses come from
 * the damaged pages (whose numbers may be whole), from the manifest, and from the
 * headers of the other logs: generations that they follow or leave free, and where
 * they begin and end.
 *
 * Invariants
 *  H1 A guess is believed only by a whole frame's checksum: 64 bits.
 *  H2 Generations of other logs, and those before the first one needed, are no
 *     guesses: frames of a recycled file's earlier life are not taken for its last.
 *  H3 Where the log before this one ended is taken from the pages only if they
 *     agree; else it is not known.
 */
#include "wal/recovery.h"

enum {
    GUESS_MOST = 256,       /* generations, and first LSNs */
    GUESS_BEHIND = 32,      /* generations behind the last one known */
    GUESS_PEEKS = 16 << 20, /* heads of frames looked at, all in all */
    GUESS_READ = 64 << 20,  /* of the file, at most */
    GUESS_PAGES = 2
};

struct header_guess {
    const struct wal_recover_input *input;
    struct log_file *const *files;
    size_t file_count;
    const struct log_file *log;           /* the one without a header */
    struct log_header pages[GUESS_PAGES]; /* their numbers as they are, checked by nothing */
    uint64_t gens[GUESS_MOST], bases[GUESS_MOST];
    size_t gen_count, base_count;
    uint8_t *image;
    uint64_t len;
};

static void
guess_add(uint64_t *list, size_t *count, uint64_t value)
{
    for (size_t i = 0; i < *count; i++) {
        if (list[i] == value) {
            return;
        }
    }
    if (*count < GUESS_MOST) {
        list[(*count)++] = value;
    }
}

static bool
guess_gen_is_known(const struct header_guess *guess, uint64_t gen)
{
    for (size_t i = 0; i < guess->file_count; i++) {
        if (guess->files[i]->header.gen == gen) {
            return true;
        }
    }
    return false;
}

/* H2 */
static void
guess_add_gen(struct header_guess *guess, uint64_t gen)
{
    if (gen != 0 && gen <= LSN_MAX && gen >= guess->input->wal_min_gen && !guess_gen_is_known(guess, gen)) {
        guess_add(guess->gens, &guess->gen_count, gen);
    }
}

static void
guess_add_base(struct header_guess *guess, uint64_t lsn)
{
    if (lsn % 2 == 0 && lsn <= LSN_MAX) {
        guess_add(guess->bases, &guess->base_count, lsn);
    }
}

/* The likeliest first: looking ends at the first that a frame proves. */
static void
guess_collect(struct header_guess *guess)
{
    uint64_t span = guess->log->space_bytes / LSN_BYTES;
    uint64_t last = guess->input->wal_min_gen;
    for (size_t i = 0; i < GUESS_PAGES; i++) {
        guess_add_gen(guess, guess->pages[i].gen);
        guess_add_base(guess, guess->pages[i].base_lsn);
    }
    guess_add_gen(guess, guess->input->wal_min_gen);
    guess_add_base(guess, guess->input->wal_min_lsn);
    for (size_t i = 0; i < guess->file_count; i++) {
        const struct log_header *header = &guess->files[i]->header;
        last = MAX(last, header->gen);
        guess_add_gen(guess, header->prev_gen);
        guess_add_base(guess, header->base_lsn + header->cap_bytes / LSN_BYTES);
        guess_add_base(guess, header->prev_end_lsn);
        guess_add_base(guess, header->base_lsn - MIN(header->base_lsn, span));
        guess_add_base(guess, header->prev_end_lsn - MIN(header->prev_end_lsn, span));
    }
    for (uint64_t gen = last + GUESS_BEHIND; gen > 0 && guess->gen_count < GUESS_MOST; gen--) {
        guess_add_gen(guess, gen);
    }
}

/* Is there a frame at `offset` that one of the guesses makes valid? */
static bool
guess_try(const struct header_guess *guess, uint64_t offset, struct log_header *out)
{
    struct bytes room = bytes_make(guess->image + offset, (size_t)(guess->len - offset));
    for (size_t g = 0; g < guess->gen_count; g++) {
        uint64_t seed = frame_file_seed(guess->input->uuid, guess->gens[g]);
        for (size_t b = 0; b < guess->base_count; b++) {
            uint64_t lsn = guess->bases[b] + offset / LSN_BYTES;
            struct frame frame;
            if (frame_peek(room.ptr, room.len, seed, lsn) != 0 && frame_decode(room, seed, lsn, &frame)) {
                out->gen = guess->gens[g];
                out->base_lsn = guess->bases[b];
                return true;
            }
        }
    }
    return false;
}

/* What else a header says, as far as it is known. */
static void
guess_fill(const struct header_guess *guess, struct log_header *out)
{
    const struct log_header *pages = guess->pages;
    uint64_t whole = guess->log->space_bytes / LOG_PAGE_BYTES * LOG_PAGE_BYTES;
    memcpy(out->uuid, guess->input->uuid, sizeof out->uuid);
    out->cap_bytes = whole;
    for (size_t i = 0; i < guess->file_count; i++) {
        uint64_t gen = guess->files[i]->header.gen;
        out->prev_gen = gen < out->gen ? MAX(out->prev_gen, gen) : out->prev_gen;
    }
    if (pages[0].cap_bytes == pages[1].cap_bytes && pages[0].cap_bytes % LOG_PAGE_BYTES == 0 &&
        pages[0].cap_bytes != 0 && pages[0].cap_bytes < whole) {
        out->cap_bytes = pages[0].cap_bytes;
    }
    if (pages[0].prev_gen == pages[1].prev_gen && guess_gen_is_known(guess, pages[0].prev_gen)) {
        out->prev_gen = pages[0].prev_gen < out->gen ? pages[0].prev_gen : out->prev_gen;
    }
    bool agree = pages[0].prev_end_lsn == pages[1].prev_end_lsn && pages[0].prev_end_lsn != 0 &&
                 pages[0].prev_end_lsn % 2 == 0 && pages[0].prev_end_lsn <= out->base_lsn; /* H3 */
    out->prev_end_lsn = agree ? pages[0].prev_end_lsn : 0;
}

static esker_status
guess_read(struct header_guess *guess, const uint8_t *pages)
{
    struct io *io = guess->input->io;
    for (size_t i = 0; i < GUESS_PAGES; i++) {
        log_header_numbers(pages + i * LOG_PAGE_BYTES, &guess->pages[i]);
    }
    guess->len = MIN(guess->log->space_bytes, (uint64_t)GUESS_READ) / FRAME_GRANULE * FRAME_GRANULE;
    guess->image = mem_alloc(guess->input->mem, MAX((size_t)guess->len, (size_t)1));
    if (guess->image == NULL) {
        return FAIL_NO_MEMORY("salvaging a log");
    }
    return guess->len == 0
               ? ESKER_OK
               : io_read_full(io, guess->log->file, LOG_HEADER_BYTES, guess->image, (size_t)guess->len);
}

esker_status
wal_salvage_guess(const struct wal_recover_input *input, struct log_file *const *files, size_t file_count,
                  const uint8_t *pages, struct log_file *log, bool *found_out)
{
    struct header_guess *guess = mem_zalloc(input->mem, sizeof *guess);
    struct log_header header = {0};
    *found_out = false;
    if (guess == NULL) {
        return FAIL_NO_MEMORY("salvaging a log");
    }
    *guess = (struct header_guess){.input = input, .files = files, .file_count = file_count, .log = log};
    esker_status status = guess_read(guess, pages);
    if (status == ESKER_OK) {
        guess_collect(guess);
        uint64_t each = MAX((uint64_t)guess->gen_count * guess->base_count, (uint64_t)1);
        uint64_t peeks = 0;
        for (uint64_t at = 0; at + FRAME_HEADER_BYTES <= guess->len && !*found_out && peeks <= GUESS_PEEKS;
             at += FRAME_GRANULE, peeks += each) {
            *found_out = guess_try(guess, at, &header);
        }
    }
    if (*found_out) {
        guess_fill(guess, &header);
        *found_out = log_header_is_sane(&header);
        log->header = header;
    }
    mem_free(input->mem, guess->image);
    mem_free(input->mem, guess);
    return status;
}
