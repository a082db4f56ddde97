/* SPDX-License-Identifier: MIT */
/* After the kill: open what is left, and look for every record by itself and by a scan. */
#include "base/status.h"
#include "tools/demo_run.h"
#include "tools/text_units.h"

static esker_status
prove_open(struct demo_run *run)
{
    esker_stats stats;
    char time[TEXT_UNIT_BYTES];
    char size[TEXT_UNIT_BYTES];
    uint64_t started = tool_now_ns();
    TRY(esker_open(run->dir, &run->options, &run->db));
    uint64_t elapsed = tool_now_ns() - started;
    esker_stats_init(&stats);
    TRY(esker_get_stats(run->db, &stats));
    demo_report("recovery", "%s, from %s of log", text_duration(elapsed, time),
                text_bytes(stats.recovery_bytes, size));
    demo_report("i/o", "%s: %s", stats.io_backend == ESKER_IO_URING ? "io_uring" : "posix", stats.io_reason);
    return ESKER_OK;
}

/* What was acknowledged is there; of the rest, a prefix made of whole batches may be. */
static esker_status
prove_survivors(struct demo_run *run)
{
    const struct demo_records *records = &run->records;
    uint64_t scanned = 0;
    uint64_t end = run->acked;
    bool found = true;
    for (uint64_t record = 0; record < run->acked; record++) {
        TRY(demo_check_present(run->db, records, record, NULL));
    }
    while (found && end < records->count) {
        TRY(demo_check_get(run->db, records, end, NULL, &found));
        end += found ? 1 : 0;
    }
    TRY(demo_check_scan(run->db, records, NULL, false, &scanned));
    if (scanned != end) {
        return FAIL(ESKER_CORRUPT, "gets find the first %llu records, a scan finds %llu",
                    (unsigned long long)end, (unsigned long long)scanned);
    }
    if (end % demo_batch_records(records) != 0 && end != records->count) {
        return FAIL(ESKER_CORRUPT, "a batch survived in part: %llu records are there",
                    (unsigned long long)end);
    }
    run->survived = end;
    return ESKER_OK;
}

esker_status
demo_prove_recovery(struct demo_run *run)
{
    char acked[TEXT_UNIT_BYTES];
    char more[TEXT_UNIT_BYTES];
    TRY(prove_open(run));
    TRY(prove_survivors(run));
    demo_report("acknowledged records", "%s, each there with its own bytes: 0 lost",
                text_count(run->acked, acked));
    demo_report("unacknowledged", "%s survived as well, in whole batches of %llu",
                text_count(run->survived - run->acked, more),
                (unsigned long long)demo_batch_records(&run->records));
    return ESKER_OK;
}
