/* SPDX-License-Identifier: MIT */
/* How many windows are live before writers wait for a flush (docs/adr/0035). */
#ifndef ESKER_DB_DB_WINDOWS_H
#define ESKER_DB_DB_WINDOWS_H

#include "db/db.h"

enum {
    WINDOWS_LIVE_MOST = 6,       /* where memory has room that nothing takes, */
    WINDOWS_LIVE_BYTES = 1 << 20 /* for windows of this size and more */
};

/* WINDOWS_LIVE_MAX, and more as far as that room reaches. version: the current one. mu held. */
uint32_t db_windows_live_locked(const esker_db *db, const struct version *version);

#endif
