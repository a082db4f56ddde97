/* SPDX-License-Identifier: MIT */
/*
 * The manifest: a chain of edits that says which segments and log files make
 * up the database. Bytes: format/edit.h. One thread at a time.
 *
 * A manifest file is: the header, one EDIT frame with SNAPSHOT, EDIT frames
 * without. Edit numbers rise by 1 from frame to frame; each edit has the hash
 * of the frame before it; a rewrite continues the numbers in a new file and
 * starts a new chain of hashes.
 *
 * Durability: an edit is part of the database when manifest_append returned
 * OK (written and synced). A manifest file is *dead* when nothing may be
 * appended to it: after a failed append (but not one that found no room and could
 * be taken back: then the file is as before), confirm or CURRENT switch, and when
 * manifest_open found a torn last edit. Then manifest_append returns
 * ESKER_POISONED and writes nothing, and manifest_wants_rewrite is true, until
 * manifest_rewrite succeeded with the state as it is known (without the edits
 * whose append failed). What a failed append wrote may be found by the next
 * open: its outcome is unknown until a rewrite or that open decides it.
 */
#ifndef ESKER_MANIFEST_MANIFEST_H
#define ESKER_MANIFEST_MANIFEST_H

#include "format/edit.h"
#include "io/io.h"

struct manifest;

typedef esker_status manifest_apply_fn(void *ctx, const struct edit *edit);

void manifest_file_name(uint64_t number, char out[40]);

/* Writes manifest `number` (a file of that name is replaced) with `snapshot` as
 * its first edit, syncs it and the directory, and points CURRENT at it (tmp,
 * sync, rename, directory sync). Its edit_no is the snapshot's, or 1 when that is
 * 0; prev_hash and is_snapshot are set here. */
NODISCARD esker_status manifest_create(struct io *io, const struct mem *mem, const uint8_t uuid[16],
                                       uint64_t number, const struct edit *snapshot, struct manifest **out);

/* Reads CURRENT and replays the manifest it names into `apply`; writes nothing.
 * A bad last edit is taken for a torn one and ignored (only a log header can
 * prove that it had been durable, see wal_recover); anything else that is bad is
 * CORRUPT with file and offset. What apply was given before a failure is void;
 * apply's own failure is passed on. Keys in an edit are valid during the call.
 * Returns OK; NOT_FOUND (no CURRENT); CORRUPT; UNSUPPORTED; IO; NO_MEMORY. */
NODISCARD esker_status manifest_open(struct io *io, const struct mem *mem, manifest_apply_fn *apply,
                                     void *ctx, struct manifest **out);
/* The same for the manifest that `head` names, whatever CURRENT says. For repair. */
NODISCARD esker_status manifest_open_at(struct io *io, const struct mem *mem, const struct file_head *head,
                                        manifest_apply_fn *apply, void *ctx, struct manifest **out);
/* What CURRENT says: OK, NOT_FOUND, CORRUPT... */
NODISCARD esker_status manifest_current(struct io *io, const struct mem *mem, struct file_head *out);
/* Every edit of a damaged manifest whose own checksum holds, in order: between two of them others
 * may be missing. Its header is not looked at. For repair. */
NODISCARD esker_status manifest_scan(struct io *io, const struct mem *mem, const struct file_head *head,
                                     manifest_apply_fn *apply, void *ctx);
void manifest_destroy(struct manifest *manifest);

/* Makes durable what manifest_open read: the last edit and CURRENT's switch may
 * have been seen in the page cache alone (a process killed before its sync, or
 * one whose sync failed). To be called after an open for writing, before anything
 * is done that relies on the manifest's state: a file removed, a log recycled, a
 * log header with its edit_no. manifest_append and manifest_rewrite imply it;
 * a second call costs nothing. */
NODISCARD esker_status manifest_confirm(struct manifest *manifest);

/* Writes and syncs one edit; fills in its edit_no and prev_hash. */
NODISCARD esker_status manifest_append(struct manifest *manifest, struct edit *edit);
/* Must be rewritten before the next append: what the last one wrote may be on the disk. */
bool manifest_is_dead(const struct manifest *manifest);
/* Dead, and not because its last edit was read torn: that edit counts for the next open or does not,
 * and nobody knows which. */
bool manifest_is_unsure(const struct manifest *manifest);
/* True when the file is dead (must be rewritten before the next append), or has
 * grown beyond max(1 MiB, 4 x its snapshot): the caller should call
 * manifest_rewrite with a snapshot edit soon. */
bool manifest_wants_rewrite(const struct manifest *manifest);
/* Another size than 1 MiB, for tests. */
void manifest_set_rewrite_bytes(struct manifest *manifest, uint64_t bytes);
/* A new manifest file with the next number, which CURRENT is then pointed at;
 * the old one is unlinked last. edit_no continues and is filled in. On failure before CURRENT was
 * touched the old file goes on as before; later, it is dead. May be tried again. */
NODISCARD esker_status manifest_rewrite(struct manifest *manifest, struct edit *snapshot);

uint64_t manifest_number(const struct manifest *manifest);
uint64_t manifest_edit_no(const struct manifest *manifest); /* the last durable one */
const uint8_t *manifest_uuid(const struct manifest *manifest);

#endif
