/* SPDX-License-Identifier: MIT */
/* A closed database in hand: what verify, repair and destroy share. */
#ifndef ESKER_DB_DB_CLOSED_H
#define ESKER_DB_DB_CLOSED_H

#include "db/db.h"

/* A handle with io and lock but nothing loaded, default options. NOT_FOUND, BUSY, IO...
 * shared: nothing will be written, others may look too. */
NODISCARD esker_status db_closed_open(const char *path, bool shared, esker_db **out);
/* The same over a given seam, which it takes over, also on failure; allocator: nullable. */
NODISCARD esker_status db_closed_open_on(struct io *io, bool shared, const esker_allocator *allocator,
                                         esker_db **out);
void db_closed_free(esker_db *db);

/* Every byte of one segment; db->uuid and db->cache are set. */
NODISCARD esker_status db_verify_segment(esker_db *db, const struct segment_meta *meta);

#endif
