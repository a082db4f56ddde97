/* SPDX-License-Identifier: MIT */
/* What pacing is made of, apart from any database. Time is what the caller says. */
#ifndef ESKER_DB_DB_PACE_H
#define ESKER_DB_DB_PACE_H

#include "db/db.h"

/* Debt of level 0 in thousandths, 2,000 where writers stop; and how fast they may go with it. */
uint64_t db_pace_level0_share(uint32_t count, uint32_t trigger, uint32_t stall);
uint64_t db_pace_rate(uint64_t drain_bytes_per_s, uint64_t share);
/* With a whole window of flush_bytes being flushed for flushing_ns, and room for so many bytes beside. */
uint64_t db_pace_memory_rate(uint64_t flush_bytes_per_s, uint64_t flush_bytes, uint64_t flushing_ns,
                             uint64_t room_bytes);
/* Until when a write of so many bytes sleeps that is paid for at `due`. */
uint64_t db_pace_until(uint64_t now, uint64_t due, uint64_t bytes);
/* What bytes cost; and what is left of that when the rate becomes another one. */
uint64_t db_pace_cost(uint64_t bytes, uint64_t ns_per_mib);
uint64_t db_pace_left(uint64_t left_ns, uint64_t was_ns_per_mib, uint64_t is_ns_per_mib);
void db_drain_add(struct db_drain *drain, uint64_t bytes, uint64_t started_ns, uint64_t now_ns);
uint64_t db_drain_rate(const struct db_drain *drain); /* bytes per second; 0 = not known yet */
/* The same beside work that has been going on since since_ns, and will have taken doing_bytes away: the
 * longer it takes, the less the old measure counts. */
uint64_t db_drain_rate_now(const struct db_drain *drain, uint64_t doing_bytes, uint64_t since_ns,
                           uint64_t now_ns);

#endif
