/* SPDX-License-Identifier: MIT */
/*
 * The memory of handles. A closed handle is kept for a while (the last
 * CLOSED_KEPT of them), so that a late call finds DB_MAGIC_CLOSED and not freed
 * memory. Handles therefore come from malloc and not from the caller's
 * allocator, whose life ends with the database.
 */
#ifndef ESKER_DB_DB_HANDLE_H
#define ESKER_DB_DB_HANDLE_H

#include "db/db.h"

/* Zeroed, locks made, options copied, magic not set yet. */
NODISCARD esker_status db_handle_alloc(const esker_options *options, esker_db **out);
/* A handle that never opened. */
void db_handle_free(esker_db *db);
/* A handle that was closed: kept, and the oldest kept one freed. */
void db_handle_retire(esker_db *db);

/* +1 when a database starts up, -1 when it was taken apart: the last one lets
 * go of what databases share. */
void db_count_open(int change);

/* Stops background work and frees everything but the handle; any state of open. */
void db_teardown(esker_db *db);

#endif
