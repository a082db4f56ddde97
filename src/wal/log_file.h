/* SPDX-License-Identifier: MIT */
/*
 * One file of the log pool, "log-%06llu", and recovery over all of them.
 *
 * A file is created once (every byte written in 4 KiB writes, so that later
 * syncs commit no file-system journal and no large folio is dirtied; or, where no
 * syncs are expected, with room for every byte reserved), listed
 * in the manifest, and from then on recycled: a new life begins with a new
 * header (next generation) in both pages, one after the other with a sync
 * between, before its window may take writes.
 */
#ifndef ESKER_WAL_LOG_FILE_H
#define ESKER_WAL_LOG_FILE_H

#include "format/log_format.h"
#include "io/io.h"
#include "sync/atomic.h"

/* bytes: touched_bytes of the mapping that went. */
typedef void log_unmapped_fn(void *ctx, uint64_t bytes);

struct log_file {
    struct io *io;
    const struct mem *mem;
    struct io_file *file;
    uint64_t number;
    uint64_t space_bytes;      /* frame space on disk: file size - LOG_HEADER_BYTES */
    uint64_t prewritten_bytes; /* when it was created */
    struct log_header header;  /* of the current life */
    uint8_t *map;              /* frame space as mapped memory, or NULL */
    uint64_t map_bytes;        /* = space_bytes while mapped */
    /* The owner's: how much of the mapping is present, about, and whom to tell when it goes (nullable). */
    _Atomic uint64_t touched_bytes;
    log_unmapped_fn *unmapped;
    void *unmapped_ctx;
    uint32_t begin_page; /* private: the header page that the next life writes first */
    bool unsure;         /* private: opened; which of its pages reached the disk is not known */
    bool fresh;          /* private: created, and nothing of it synced yet */
};

void log_file_name(uint64_t number, char out[40]);

/* Creates the file, which log_file_begin syncs; nobody the directory. prewrite: writes every byte of it;
 * else its room is reserved, where that can be had, which takes a hundredth of the time.
 * Fails with NO_SPACE and no file left behind when the disk is full; with BUSY, touching
 * nothing, when a file of that name exists (one that a crash left before the
 * manifest listed it: remove it first, or take the next number).
 * space_bytes: a multiple of LOG_PAGE_BYTES. The header is all zero until log_file_begin. */
NODISCARD esker_status log_file_create(struct io *io, const struct mem *mem, uint64_t number,
                                       uint64_t space_bytes, bool prewrite, struct log_file **out);
/* Syncs what was created, so that the first begin goes page by page like any other: of a log
 * that is found before any manifest lists it, the pages tell how far its creator came. */
NODISCARD esker_status log_file_settle(struct log_file *log);
/* Opens an existing file and reads its headers. CORRUPT when it is missing, when
 * neither page is valid, when uuid differs and when the file is shorter than its
 * header says: a listed log was once whole. io_flags: IO_OPEN_READ or IO_OPEN_WRITE. */
NODISCARD esker_status log_file_open(struct io *io, const struct mem *mem, uint64_t number,
                                     const uint8_t uuid[16], unsigned io_flags, struct log_file **out);
/* Unmaps and closes; NULL is fine. The file stays. */
void log_file_destroy(struct log_file *log);

/* Begins a new life: both header pages, each followed by a sync; first the page
 * that is not the newest valid one, so that a crash at any moment leaves one
 * valid. A file that was just created, and not settled, is synced once, as a whole: nobody knows
 * it yet. After log_file_open the newest header is first written again: its page
 * may never have reached the disk if an earlier process saw its sync fail.
 * cap_bytes <= space_bytes; gen above every gen used before: a gen is used up even
 * by a begin that failed. log->header changes on success only. TOO_LARGE when a
 * number is beyond what log_format.h allows (a hostile file may have brought the
 * numbers near their end). A log is listed in the manifest after its first begin:
 * a listed file without a valid header is damage. */
NODISCARD esker_status log_file_begin(struct log_file *log, const struct log_header *header);

/* Maps the frame space for the `tail` mode. UNSUPPORTED where the back-end does not offer it. */
NODISCARD esker_status log_file_map(struct log_file *log);
void log_file_unmap(struct log_file *log);

/* Writes frame bytes [from, to) (byte offsets of the frame space) out of `data`,
 * the window's bytes; in requests of at most 256 KiB, at full length. */
NODISCARD esker_status log_file_write(struct log_file *log, const uint8_t *data, uint64_t from, uint64_t to);
NODISCARD esker_status log_file_sync(struct log_file *log);

static inline uint64_t
log_file_seed(const struct log_header *header)
{
    return frame_file_seed(header->uuid, header->gen);
}

/* ---- Recovery ----------------------------------------------------------- */

/* Page memory for one log's frame space (cap_bytes), zeroed. */
typedef esker_status wal_image_fn(void *ctx, const struct log_header *header, uint8_t **image_out);
/* Takes it back: a log turned out not to be needed, or wal_recover fails. */
typedef void wal_image_release_fn(void *ctx, const struct log_header *header, uint8_t *image);

struct wal_recover_input {
    struct io *io;
    const struct mem *mem;
    uint8_t uuid[16];
    bool read_only;              /* open the files for reading only */
    const uint64_t *log_numbers; /* every log file the manifest lists */
    size_t log_count;
    uint64_t wal_min_gen;          /* 0: no log was ever needed, and none may be listed */
    uint64_t wal_min_lsn;          /* the log must reach it; rows below it are the caller's to skip */
    uint64_t manifest_no, edit_no; /* the last valid edit; a log header that proves a later one: CORRUPT */
    uint64_t durable_lsn;          /* from the manifest; never above the end of a written frame */
    uint64_t correct_bytes;        /* the largest last frame to be corrected; 0 = as usual */
    wal_image_fn *image;
    wal_image_release_fn *image_release; /* NULL: io->ops->unmap_memory(cap_bytes) */
    void *image_ctx;
};

struct wal_recovered_log {
    struct log_file *log; /* owned by the caller afterwards */
    uint8_t *image;       /* cap_bytes of it; zero beyond end_lsn */
    uint64_t end_lsn;     /* frames [header.base_lsn, end_lsn) and their entries are valid, PADs included */
};

struct wal_recovered {
    struct wal_recovered_log *logs; /* needed ones, in LSN order; a gap only where a header says so */
    size_t log_count;
    struct log_file **spare; /* listed files whose content is not needed any more */
    size_t spare_count;
    uint64_t end_lsn;     /* where the log ends: `visible` after recovery */
    uint64_t durable_lsn; /* proven, <= end_lsn; = end_lsn when sealed */
    bool sealed;          /* the last log ends with SEAL, end_lsn is behind it, nothing valid follows in the
                             file: it may be continued in place with REOPEN if there is space */
    uint64_t seal_lsn;    /* the SEAL frame itself: it may be in the page cache alone, so whoever continues
                             writes it again (log_file_write from here on) with the first group */
    uint64_t gen_max;     /* over all valid headers */
    /* >= base + cap of every valid header, > end_lsn; a multiple of 512. A log begun there has a gap
     * before it, which shows that a recovery ended its predecessor. */
    uint64_t next_base_lsn;
    uint64_t bytes_read;
    uint32_t corrected_frames; /* made valid by flipping one bit, in the image only; at most one per log */
    uint64_t corrected_lsn;    /* the last of them */
};

/* Follows prev_gen links from wal_min_gen, reads every needed log and decides
 * by proofs where the log ends. Writes nothing.
 *
 * Which logs. The successor of a generation is the log with that prev_gen and
 * the highest own gen. Every listed log must be there, whole, and ours, no two of
 * one gen. The log with the highest gen of all must be reached (or have prev_gen
 * 0), else one between is lost: a tail that an earlier recovery discarded has a
 * lower gen than what that recovery began. Logs not reached, and logs at the end
 * of the chain without a valid frame (prepared ahead), are spare; the first one
 * is always returned.
 *
 * Where it ends. A log's frames count up to its successor's prev_end_lsn. At the
 * first bad frame, at LSN x, the log ends, unless it is shown that x had been
 * complete; then it is damage:
 *  - durable proof: the manifest, any valid log header, or a valid SYNCMARK behind
 *    x says that everything below some LSN > x was synced; or there is a valid SEAL;
 *  - same-boot proof: the log of a valid frame at L > x with a claim, or the last
 *    REOPEN before that frame, has this machine's boot_id and mount_id, and
 *    L - 2 * back > x.
 * Behind x means at any granule of that log or of a later one of the chain; the
 * search hashes at most 4 x the size of these files, then calls it damage. A frame
 * of <= 4 KiB that one flipped bit makes valid is accepted corrected when it is the
 * last of all (nothing valid behind it), and later, when a log that was begun by
 * that recovery, with a gap before its base_lsn, says that its predecessor ended
 * just there.
 *
 * Returns OK; CORRUPT (missing or damaged listed file, a bad frame below a
 * proof, a header proving a later manifest edit, a good checksum over nonsense),
 * UNSUPPORTED, IO, NO_MEMORY. On failure every image was released. */
NODISCARD esker_status wal_recover(const struct wal_recover_input *input, struct wal_recovered *out);
/* Frees the arrays, not the logs and images. */
void wal_recovered_fini(struct wal_recovered *recovered, const struct mem *mem);

/* ---- Salvage ------------------------------------------------------------- */

/* Batches of LSNs [from_lsn, to_lsn) are lost. file: where; offset: a byte of it. from = to: not known. */
struct wal_loss {
    const char *file;
    uint64_t offset, from_lsn, to_lsn;
    const char *why; /* a sentence's predicate: "is damaged" */
};

struct wal_salvage_calls {
    /* One entry at or above wal_min_lsn; key and value stay valid until wal_salvaged_fini. */
    esker_status (*entry)(void *ctx, const struct entry *entry, uint64_t lsn);
    void (*loss)(void *ctx, const struct wal_loss *loss);
    /* A file whose header is lost and whose frames prove what it said; not a loss by itself. */
    void (*found)(void *ctx, const char *file, uint64_t gen, uint64_t base_lsn);
    void *ctx;
};

struct wal_salvaged {
    uint64_t end_lsn, gen_max, next_base_lsn;
    void *state; /* private: what the entries point into */
};

/* wal_recover for a log of which something proven is damaged: goes on behind it.
 * Takes every batch of a valid frame up to where an ordinary recovery of an undamaged
 * log would have ended: at the first bad frame that nothing proves to have been
 * complete. A proven frame that one flipped bit makes valid is taken corrected. Listed files that
 * are missing or short are losses, and those without a valid header of which no frame proves
 * what it said. wal_min_gen 0: not known,
 * every file is needed that the newest one leads back to. Writes nothing. */
NODISCARD esker_status wal_salvage(const struct wal_recover_input *input,
                                   const struct wal_salvage_calls *calls, struct wal_salvaged *out);
void wal_salvaged_fini(struct wal_salvaged *salvaged);

#endif
