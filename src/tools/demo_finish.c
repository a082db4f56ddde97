/* SPDX-License-Identifier: MIT */
/* The second half of the load, put by put, and the database at rest: compacted, closed, verified, opened. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/rng.h"
#include "base/status.h"
#include "tools/demo_run.h"
#include "tools/text_units.h"

enum { FINISH_GETS = 200000 };

/* ---- The rest of the load -------------------------------------------------- */

static esker_status
finish_put_all(struct demo_run *run)
{
    struct demo_readers *readers = &run->readers;
    for (uint64_t record = run->survived; record < run->records.count; record++) {
        esker_slice key = bytes_to_slice(demo_record_key(&run->records, record));
        esker_slice value = bytes_to_slice(demo_record_value(&run->records, record));
        store_release(&readers->begun, record + 1); /* pairs: DEMO_BEGUN */
        uint64_t started = tool_now_ns();
        TRY(esker_put(run->db, key, value, NULL));
        histogram_add(&run->puts, tool_now_ns() - started);
        store_release(&readers->acked, record + 1); /* pairs: DEMO_ACKED */
    }
    return ESKER_OK;
}

static void
finish_report_readers(const struct demo_run *run, uint64_t elapsed_ns)
{
    static struct histogram gets; /* large, and made once */
    uint64_t snapshots = 0;
    uint64_t rows = 0;
    char count[TEXT_UNIT_BYTES];
    for (size_t i = 0; i < DEMO_READERS; i++) {
        const struct demo_reader *reader = &run->readers.each[i];
        histogram_merge(&gets, &reader->gets);
        snapshots += reader->snapshots;
        rows += reader->rows;
    }
    demo_report_latency("gets by 3 readers", &gets, elapsed_ns);
    demo_report("snapshots checked", "%llu, scanned forwards and backwards: %s rows, all consistent",
                (unsigned long long)snapshots, text_count(rows, count));
}

esker_status
demo_load_rest(struct demo_run *run)
{
    struct demo_readers *readers = &run->readers;
    readers->db = run->db;
    readers->records = &run->records;
    readers->batch_records = 1;
    store_relaxed(&readers->begun, run->survived); /* relaxed: the readers' threads start later */
    store_relaxed(&readers->acked, run->survived); /* relaxed: the same */
    uint64_t started = tool_now_ns();
    esker_status status = demo_readers_start(readers);
    if (status == ESKER_OK) {
        status = finish_put_all(run);
    }
    uint64_t elapsed = tool_now_ns() - started;
    esker_error story = *status_last();
    esker_status readers_status = demo_readers_stop(readers);
    TRY(readers_status);
    if (status != ESKER_OK) {
        return status_restore(&story);
    }
    demo_report_latency("puts", &run->puts, elapsed);
    finish_report_readers(run, tool_now_ns() - started);
    return ESKER_OK;
}

/* ---- At rest ---------------------------------------------------------------- */

static esker_status
finish_scan_all(struct demo_run *run, bool backwards, uint64_t *elapsed_ns_out)
{
    uint64_t rows = 0;
    uint64_t started = tool_now_ns();
    TRY(demo_check_scan(run->db, &run->records, NULL, backwards, &rows));
    *elapsed_ns_out = tool_now_ns() - started;
    return rows == run->records.count
               ? ESKER_OK
               : FAIL(ESKER_CORRUPT, "a scan has %llu of %llu records", (unsigned long long)rows,
                      (unsigned long long)run->records.count);
}

static esker_status
finish_read_all(struct demo_run *run)
{
    struct rng rng = {.state = 1};
    uint64_t there_ns = 0;
    uint64_t back_ns = 0;
    char there[TEXT_UNIT_BYTES];
    char back[TEXT_UNIT_BYTES];
    char rate[TEXT_UNIT_BYTES];
    TRY(finish_scan_all(run, false, &there_ns));
    TRY(finish_scan_all(run, true, &back_ns));
    demo_report(
        "full scan, checked", "%s forwards (%s/s), %s backwards", text_duration(there_ns, there),
        text_bytes((uint64_t)((double)run->records.bytes * 1e9 / (double)MAX(there_ns, (uint64_t)1)), rate),
        text_duration(back_ns, back));
    uint64_t started = tool_now_ns();
    for (int i = 0; i < FINISH_GETS; i++) {
        uint64_t record = rng_below(&rng, run->records.count);
        uint64_t before = tool_now_ns();
        TRY(demo_check_present(run->db, &run->records, record, NULL));
        histogram_add(&run->gets, tool_now_ns() - before);
    }
    demo_report_latency("gets, one thread", &run->gets, tool_now_ns() - started);
    return ESKER_OK;
}

/* What the files take on the disk; segments alone, and everything. */
static void
finish_disk_bytes(const char *dir, uint64_t *segments_out, uint64_t *all_out)
{
    DIR *handle = opendir(dir);
    struct dirent *entry = NULL;
    while (handle != NULL && (entry = readdir(handle)) != NULL) {
        char path[4096];
        struct stat info;
        int used = snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (used > 0 && (size_t)used < sizeof path && lstat(path, &info) == 0 && S_ISREG(info.st_mode)) {
            const char *dot = strrchr(entry->d_name, '.');
            uint64_t bytes = (uint64_t)info.st_blocks * 512;
            *segments_out += dot != NULL && strcmp(dot, ".seg") == 0 ? bytes : 0;
            *all_out += bytes;
        }
    }
    if (handle != NULL) {
        (void)closedir(handle);
    }
}

static esker_status
finish_compact(struct demo_run *run)
{
    esker_stats stats;
    char time[TEXT_UNIT_BYTES];
    char size[TEXT_UNIT_BYTES];
    uint64_t started = tool_now_ns();
    TRY(esker_compact(run->db, NULL, NULL));
    uint64_t elapsed = tool_now_ns() - started;
    esker_stats_init(&stats);
    TRY(esker_get_stats(run->db, &stats));
    demo_report("compaction", "%s, %s in %llu segment%s", text_duration(elapsed, time),
                text_bytes(stats.segment_bytes, size), (unsigned long long)stats.segments,
                stats.segments == 1 ? "" : "s");
    return ESKER_OK;
}

static esker_status
finish_close(struct demo_run *run, uint64_t *elapsed_ns_out)
{
    uint64_t started = tool_now_ns();
    esker_status status = esker_close(run->db);
    run->db = status == ESKER_BUSY ? run->db : NULL;
    *elapsed_ns_out = tool_now_ns() - started;
    return status;
}

esker_status
demo_settle(struct demo_run *run)
{
    uint64_t close_ns = 0;
    uint64_t rows = 0;
    char times[3][TEXT_UNIT_BYTES];
    uint64_t segment_bytes = 0;
    uint64_t disk_bytes = 0;
    char sizes[3][TEXT_UNIT_BYTES];
    TRY(finish_compact(run));
    TRY(finish_read_all(run));
    TRY(finish_close(run, &close_ns));
    finish_disk_bytes(run->dir, &segment_bytes, &disk_bytes);
    demo_report("on disk", "%s of segments for %s of records, and %s of logs for the next writes",
                text_bytes(segment_bytes, sizes[0]), text_bytes(run->records.bytes, sizes[1]),
                text_bytes(disk_bytes - segment_bytes, sizes[2]));
    uint64_t started = tool_now_ns();
    TRY(esker_verify(run->dir, NULL, NULL));
    uint64_t verify_ns = tool_now_ns() - started;
    started = tool_now_ns();
    TRY(esker_open(run->dir, &run->options, &run->db));
    uint64_t open_ns = tool_now_ns() - started;
    demo_report("close, verify, open", "%s, %s (nothing damaged), %s", text_duration(close_ns, times[0]),
                text_duration(verify_ns, times[1]), text_duration(open_ns, times[2]));
    TRY(demo_check_scan(run->db, &run->records, NULL, false, &rows));
    if (rows != run->records.count) {
        return FAIL(ESKER_CORRUPT, "after the reopening a scan has %llu records", (unsigned long long)rows);
    }
    return finish_close(run, &close_ns);
}
