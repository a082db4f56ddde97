/* SPDX-License-Identifier: MIT */
/*
 * How long the steps of flushes and merges take, for esker_stats. What a step
 * takes of its thread's processor time is its own doing; the time by the clock
 * also holds what the disk and the scheduler took.
 *
 * Concurrency: any thread; statistics alone, so all words are relaxed.
 */
#include "sync/thread.h"

#include "db/db.h"

struct db_step
db_step_begin(esker_db *db)
{
    return (struct db_step){.cpu_ns = thread_cpu_ns(), .time_ns = io_monotonic_ns(db->io)};
}

static void
step_note_length(_Atomic uint64_t lengths[ESKER_STEP_LENGTHS], uint64_t ns)
{
    uint32_t at = 0;
    while (at + 1 < ESKER_STEP_LENGTHS && ns >= (uint64_t)ESKER_STEP_NS_FIRST << at) {
        at++;
    }
    add_relaxed(&lengths[at], 1); /* relaxed: statistic */
}

void
db_step_end(esker_db *db, const struct db_step *begun, int kind)
{
    struct db_step now = db_step_begin(db);
    uint64_t cpu_ns = now.cpu_ns - MIN(begun->cpu_ns, now.cpu_ns);
    step_note_length(db->steps_by_cpu, cpu_ns);
    step_note_length(db->steps_by_time, now.time_ns - MIN(begun->time_ns, now.time_ns));
    add_relaxed(&db->step_count[kind], 1);                           /* relaxed: statistic */
    add_relaxed(&db->step_cpu_ns[kind], cpu_ns);                     /* relaxed: statistic */
    uint64_t longest = load_relaxed(&db->step_cpu_longest_ns[kind]); /* relaxed: statistic */
    while (cpu_ns > longest &&
           !cas_relaxed(&db->step_cpu_longest_ns[kind], &longest, cpu_ns)) { /* relaxed: the same */
    }
}
