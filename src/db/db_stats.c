/* SPDX-License-Identifier: MIT */
/* Statistics: counters summed over stripes, and three text forms of one table. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "db/db_pace.h"

static void
stats_sum_stripes(esker_db *db, esker_stats *stats)
{
    for (uint32_t i = 0; i < STRIPE_COUNT; i++) {
        struct stripe *stripe = &db->stripes[i];
        /* relaxed: statistics, all of them */
        stats->gets += load_relaxed(&stripe->gets);
        stats->gets_from_memtable += load_relaxed(&stripe->gets_from_memtable); /* relaxed: statistic */
        stats->gets_not_found += load_relaxed(&stripe->gets_not_found);         /* relaxed: statistic */
        stats->commits += load_relaxed(&stripe->commits);                       /* relaxed: statistic */
        stats->puts += load_relaxed(&stripe->puts);                             /* relaxed: statistic */
        stats->deletes += load_relaxed(&stripe->deletes);                       /* relaxed: statistic */
        stats->bytes_written += load_relaxed(&stripe->bytes_written);           /* relaxed: statistic */
        stats->log_bytes_written += load_relaxed(&stripe->log_bytes);           /* relaxed: statistic */
    }
}

static void
stats_of_version(const struct version *version, esker_stats *stats)
{
    stats->memtables = version->window_count;
    for (uint32_t i = 0; i < version->window_count; i++) {
        stats->memtable_bytes += window_used_bytes(version->windows[i]);
    }
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        if (run != NULL) {
            stats->level_segments[level] = run->count;
            stats->level_runs[level] = run->tier_count;
            stats->level_bytes[level] = run->size_bytes;
            stats->segments += run->count;
            stats->segment_bytes += run->size_bytes;
        }
    }
}

/* What somebody still reads that nobody would find any more. */
static esker_status
stats_of_oldest(esker_db *db, const struct version *current, esker_stats *stats)
{
    uint64_t replaced_ns = 0;
    struct version *oldest = version_list_oldest_ref(&db->versions, &replaced_ns);
    if (oldest == NULL) {
        return ESKER_OK;
    }
    uint64_t now_ns = io_monotonic_ns(db->io);
    stats->oldest_version_id = oldest->id;
    stats->oldest_version_age_ns = now_ns > replaced_ns ? now_ns - replaced_ns : 0;
    esker_status status = version_kept_bytes(oldest, current, &stats->oldest_version_bytes);
    version_unref(oldest);
    return status;
}

static void
stats_of_memory(const esker_db *db, esker_stats *stats)
{
    struct block_cache_stats cache;
    block_cache_get_stats(db->cache, &cache);
    stats->cache_bytes = cache.frame_bytes + cache.charged_bytes[MEMORY_INDEXES];
    stats->cache_capacity_bytes = cache.capacity_bytes;
    stats->cache_hits = cache.hits;
    stats->cache_misses = cache.misses;
    stats->cache_evictions = cache.evictions;
    stats->segments_open = cache.holders;
    stats->memory_budget_bytes = db->options.memory_budget_bytes;
    stats->memory_windows_bytes = cache.charged_bytes[MEMORY_WINDOWS];
    stats->memory_indexes_bytes = cache.charged_bytes[MEMORY_INDEXES];
    stats->memory_frames_bytes = cache.frame_bytes;
    stats->memory_iterators_bytes = cache.charged_bytes[MEMORY_ITERATORS];
    stats->memory_merges_bytes = cache.charged_bytes[MEMORY_MERGES];
    stats->memory_slack_bytes = cache.slack_bytes;
    stats->filter_pages_damaged = cache.filter_pages_damaged;
}

static esker_status
stats_fill(esker_db *db, struct thread_state *self, esker_stats *stats)
{
    stats->visible_lsn = load_acquire(&db->visible); /* pairs: VISIBLE */
    stats->durable_lsn = load_acquire(&db->durable); /* pairs: DURABLE */
    stats_sum_stripes(db, stats);
    /* relaxed: statistics, down to stall_ns */
    stats->log_bytes_written += load_relaxed(&db->log_bytes_written);              /* relaxed: statistic */
    stats->log_bytes_prepared = load_relaxed(&db->log_bytes_prepared);             /* relaxed: statistic */
    stats->log_syncs = load_relaxed(&db->log_syncs);                               /* relaxed: statistic */
    stats->flushes = load_relaxed(&db->flushes);                                   /* relaxed: statistic */
    stats->flush_bytes_written = load_relaxed(&db->flush_bytes_written);           /* relaxed: statistic */
    stats->compactions = load_relaxed(&db->compactions);                           /* relaxed: statistic */
    stats->compaction_bytes_read = load_relaxed(&db->compaction_bytes_read);       /* relaxed: statistic */
    stats->compaction_bytes_written = load_relaxed(&db->compaction_bytes_written); /* relaxed: statistic */
    stats->stalls = load_relaxed(&db->stalls);                                     /* relaxed: statistic */
    stats->stall_ns = load_relaxed(&db->stall_ns);                                 /* relaxed: statistic */
    for (int cause = 0; cause < ESKER_WAIT_CAUSES; cause++) {
        stats->wait_count[cause] = load_relaxed(&db->wait_count[cause]); /* relaxed: statistic */
        stats->wait_ns[cause] = load_relaxed(&db->wait_ns[cause]);       /* relaxed: statistic */
    }
    for (int kind = 0; kind < ESKER_STEPS; kind++) {
        stats->step_count[kind] = load_relaxed(&db->step_count[kind]);   /* relaxed: statistic */
        stats->step_cpu_ns[kind] = load_relaxed(&db->step_cpu_ns[kind]); /* relaxed: statistic */
        stats->step_cpu_longest_ns[kind] =
            load_relaxed(&db->step_cpu_longest_ns[kind]); /* relaxed: statistic */
    }
    for (int i = 0; i < ESKER_STEP_LENGTHS; i++) {
        stats->steps_by_cpu[i] = load_relaxed(&db->steps_by_cpu[i]);   /* relaxed: statistic */
        stats->steps_by_time[i] = load_relaxed(&db->steps_by_time[i]); /* relaxed: statistic */
    }
    stats->debt_bytes = load_relaxed(&db->debt_bytes);                   /* relaxed: statistic */
    stats->compactions_failed = load_relaxed(&db->compactions_failed);   /* relaxed: statistic */
    stats->compactions_damaged = load_relaxed(&db->compactions_damaged); /* relaxed: statistic */
    stats->rows_skipped = load_relaxed(&db->rows_skipped);               /* relaxed: statistic */
    stats->rows_expired = load_relaxed(&db->rows_expired);               /* relaxed: statistic */
    stats->segments_expired = load_relaxed(&db->segments_expired);       /* relaxed: statistic */
    stats->iterators_live = load_relaxed(&db->iterators_live);           /* relaxed: statistic */
    stats->values_live = load_relaxed(&db->values_live);                 /* relaxed: statistic */
    stats->versions_live = version_list_count(&db->versions);
    struct version *version = db_current_ref(db, self);
    stats_of_version(version, stats);
    esker_status status = stats_of_oldest(db, version, stats);
    version_unref(version);
    stats_of_memory(db, stats);
    mutex_lock(&db->mu);
    struct picker_config config = db_picker_config(db, load_acquire(&db->current)); /* pairs: CURRENT */
    compaction_targets(stats->level_bytes, &config, stats->level_target_bytes);
    stats->drain_bytes_per_s = db_drain_rate(&db->merge_drain);
    stats->log_files = db->log_file_count;
    stats->log_file_bytes = db->log_file_bytes;
    mutex_unlock(&db->mu);
    mutex_lock(&db->snap_mu);
    stats->snapshots_live = db->snapshots.count;
    stats->oldest_snapshot_lsn = db->snapshots.oldest[0] != NULL ? db->snapshots.oldest[0]->lsn : 0;
    mutex_unlock(&db->snap_mu);
    stats->recovery_ns = db->recovery_ns;
    stats->recovery_bytes = db->recovery_bytes;
    const char *label;
    io_describe(db->io, &label, stats->io_reason, sizeof stats->io_reason);
    stats->io_backend = strcmp(label, "uring") == 0 ? ESKER_IO_URING : ESKER_IO_POSIX;
    return status;
}

esker_status
esker_get_stats(esker_db *db, esker_stats *out)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    esker_stats stats = {0};
    esker_status status = ESKER_OK;
    if (out == NULL || out->struct_size < sizeof(size_t)) {
        status = FAIL(ESKER_INVALID, "the statistics were not initialised with esker_stats_init");
    } else {
        status = stats_fill(db, call.self, &stats);
    }
    if (status == ESKER_OK) {
        size_t size = out->struct_size;
        memcpy(out, &stats, MIN(size, sizeof stats));
        out->struct_size = size;
    }
    db_call_exit(&call);
    return status;
}

/* ---- Text --------------------------------------------------------------------- */

struct stats_field {
    const char *name;
    size_t offset;
    const char *help;
};

#define STATS_FIELD(name, help)                                                                              \
    {                                                                                                        \
#name, offsetof(esker_stats, name), help                                                             \
    }

static const struct stats_field stats_fields[] = {
    STATS_FIELD(visible_lsn, "first LSN that readers do not see yet"),
    STATS_FIELD(durable_lsn, "first LSN that a power loss may lose"),
    STATS_FIELD(commits, "batches and single writes committed"),
    STATS_FIELD(puts, "keys put"),
    STATS_FIELD(deletes, "keys deleted"),
    STATS_FIELD(bytes_written, "bytes of keys and values written"),
    STATS_FIELD(gets, "point reads"),
    STATS_FIELD(gets_from_memtable, "point reads served by a memtable"),
    STATS_FIELD(gets_not_found, "point reads of absent keys"),
    STATS_FIELD(log_bytes_written, "bytes of frames written to logs"),
    STATS_FIELD(log_bytes_prepared, "bytes with which new log files were filled"),
    STATS_FIELD(log_syncs, "log syncs"),
    STATS_FIELD(log_files, "log files"),
    STATS_FIELD(log_file_bytes, "bytes of log files on disk"),
    STATS_FIELD(flushes, "memtables flushed"),
    STATS_FIELD(flush_bytes_written, "bytes written by flushes"),
    STATS_FIELD(compactions, "merges"),
    STATS_FIELD(compaction_bytes_read, "bytes read by merges"),
    STATS_FIELD(compaction_bytes_written, "bytes written by merges"),
    STATS_FIELD(memtables, "memtables in memory"),
    STATS_FIELD(memtable_bytes, "bytes of memtables, index included"),
    STATS_FIELD(memory_budget_bytes, "memory budget"),
    STATS_FIELD(memory_windows_bytes, "of it: memtables with index, and mapped logs"),
    STATS_FIELD(memory_indexes_bytes, "of it: indexes and filters of open segments"),
    STATS_FIELD(memory_frames_bytes, "of it: cached blocks"),
    STATS_FIELD(memory_iterators_bytes, "of it: iterators and what they read ahead"),
    STATS_FIELD(memory_merges_bytes, "of it: buffers of flushes and merges"),
    STATS_FIELD(memory_slack_bytes, "of it: pages that are free between them, or not told apart"),
    STATS_FIELD(cache_bytes, "bytes in the block cache, indexes and filters included"),
    STATS_FIELD(cache_capacity_bytes, "what everything that is counted may take"),
    STATS_FIELD(cache_evictions, "blocks that left the cache for others"),
    STATS_FIELD(segments_open, "segments with a file open"),
    STATS_FIELD(cache_hits, "block cache hits"),
    STATS_FIELD(cache_misses, "block cache misses"),
    STATS_FIELD(segments, "segments"),
    STATS_FIELD(segment_bytes, "bytes of segments on disk"),
    STATS_FIELD(snapshots_live, "live snapshots"),
    STATS_FIELD(iterators_live, "live iterators"),
    STATS_FIELD(values_live, "values not released yet"),
    STATS_FIELD(versions_live, "versions that somebody reads"),
    STATS_FIELD(oldest_version_id, "the oldest of them that was replaced, 0 if none"),
    STATS_FIELD(oldest_version_age_ns, "nanoseconds since it was"),
    STATS_FIELD(oldest_version_bytes, "bytes of memtables and segments that it keeps from being freed"),
    STATS_FIELD(oldest_snapshot_lsn, "LSN of the oldest snapshot, 0 if none"),
    STATS_FIELD(stalls, "writes that waited for memory"),
    STATS_FIELD(stall_ns, "nanoseconds they waited"),
    STATS_FIELD(debt_bytes, "bytes that merges have still to move"),
    STATS_FIELD(drain_bytes_per_s, "what merges take out of level 0 per second"),
    STATS_FIELD(compactions_failed, "merges that failed and kept their inputs"),
    STATS_FIELD(filter_pages_damaged, "damaged pages of filters, done without"),
    STATS_FIELD(compactions_damaged, "those of them that met damage"),
    STATS_FIELD(rows_skipped, "deleted and old versions that iterators stepped over"),
    STATS_FIELD(rows_expired, "puts whose time was up when a flush or merge met them"),
    STATS_FIELD(segments_expired, "segments dropped unread, since nothing in them was alive"),
    STATS_FIELD(recovery_ns, "nanoseconds that opening took to recover"),
    STATS_FIELD(recovery_bytes, "log bytes read by recovery"),
};

struct stats_text {
    struct buf buf;
    esker_status status;
};

static void PRINTF_LIKE(2, 3) stats_print(struct stats_text *text, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (text->status == ESKER_OK && len > 0) {
        text->status = buf_append(&text->buf, line, MIN((size_t)len, sizeof line - 1));
    }
}

static uint64_t
stats_value(const esker_stats *stats, const struct stats_field *field)
{
    uint64_t value;
    memcpy(&value, (const char *)stats + field->offset, sizeof value);
    return value;
}

static const char *const stats_wait_names[ESKER_WAIT_CAUSES] = {"none", "memory", "log", "level0", "debt"};

/* Bytes written to segments and logs per byte that was put; 0 = nothing was put in this life. What a
 * sync cuts in the middle of a page, and so is written twice, is the kernel's to count. */
static double
stats_write_amplification(const esker_stats *stats)
{
    uint64_t logged = stats->log_bytes_written + stats->log_bytes_prepared;
    uint64_t written = logged + stats->flush_bytes_written + stats->compaction_bytes_written;
    return stats->bytes_written == 0 ? 0.0 : (double)written / (double)stats->bytes_written;
}

/* Bytes of all segments per byte of the largest level, which is what a full merge would about leave. */
static double
stats_space_amplification(const esker_stats *stats)
{
    uint64_t largest = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        largest = MAX(largest, stats->level_bytes[level]);
    }
    return largest == 0 ? 0.0 : (double)stats->segment_bytes / (double)largest;
}

static void
stats_draw_tree(const esker_stats *stats, struct stats_text *text)
{
    enum { STATS_BAR = 30 };

    static const char bar[STATS_BAR + 1] = "##############################";
    stats_print(text, "level  runs  segments          bytes         target\n");
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        uint64_t segments = stats->level_segments[level];
        uint64_t bytes = stats->level_bytes[level];
        double share = stats->segment_bytes == 0 ? 0.0 : (double)bytes / (double)stats->segment_bytes;
        int width = (int)(share * (double)STATS_BAR + (bytes > 0 ? 0.999 : 0.0));
        stats_print(text, "%5" PRIu32 " %5" PRIu64 " %9" PRIu64 " %14" PRIu64 " %14" PRIu64 "  %.*s\n", level,
                    stats->level_runs[level], segments, bytes, stats->level_target_bytes[level],
                    MIN(width, (int)STATS_BAR), bar);
    }
    stats_print(text, "debt %" PRIu64 " bytes; write amplification %.2f, space amplification %.2f\n",
                stats->debt_bytes, stats_write_amplification(stats), stats_space_amplification(stats));
    stats_print(text, "writes waited for     times   milliseconds\n");
    for (int cause = ESKER_WAIT_NONE + 1; cause < ESKER_WAIT_CAUSES; cause++) {
        stats_print(text, "  %-14s %10" PRIu64 " %14.1f\n", stats_wait_names[cause], stats->wait_count[cause],
                    (double)stats->wait_ns[cause] / 1e6);
    }
}

static const char *const stats_step_names[ESKER_STEPS] = {"choose", "open", "rows", "end", "sync", "install"};

/* The right end of a length of steps; the last has none. */
static uint64_t
stats_step_most_ns(int length)
{
    return (uint64_t)ESKER_STEP_NS_FIRST << length;
}

static void
stats_draw_steps(const esker_stats *stats, struct stats_text *text)
{
    stats_print(text, "steps of merges       count  processor ms  longest us\n");
    for (int kind = 0; kind < ESKER_STEPS; kind++) {
        stats_print(text, "  %-14s %10" PRIu64 " %13.1f %11.1f\n", stats_step_names[kind],
                    stats->step_count[kind], (double)stats->step_cpu_ns[kind] / 1e6,
                    (double)stats->step_cpu_longest_ns[kind] / 1e3);
    }
    stats_print(text, "steps up to ms    by processor      by clock\n");
    for (int i = 0; i < ESKER_STEP_LENGTHS; i++) {
        if (i + 1 < ESKER_STEP_LENGTHS) {
            stats_print(text, "  %-14.4g", (double)stats_step_most_ns(i) / 1e6);
        } else {
            stats_print(text, "  %-14s", "longer");
        }
        stats_print(text, " %13" PRIu64 " %13" PRIu64 "\n", stats->steps_by_cpu[i], stats->steps_by_time[i]);
    }
}

static void
stats_as_text(const esker_stats *stats, struct stats_text *text)
{
    for (size_t i = 0; i < COUNTOF(stats_fields); i++) {
        stats_print(text, "%-26s %20" PRIu64 "  %s\n", stats_fields[i].name,
                    stats_value(stats, &stats_fields[i]), stats_fields[i].help);
    }
    stats_print(text, "%-26s %20s  %s\n", "io_backend",
                stats->io_backend == ESKER_IO_URING ? "uring" : "posix", stats->io_reason);
    stats_draw_tree(stats, text);
    stats_draw_steps(stats, text);
}

static void
stats_steps_as_json(const esker_stats *stats, struct stats_text *text)
{
    stats_print(text, "\"steps\":{");
    for (int kind = 0; kind < ESKER_STEPS; kind++) {
        stats_print(text, "\"%s\":{\"count\":%" PRIu64 ",\"cpu_ns\":%" PRIu64 ",\"longest_ns\":%" PRIu64 "},",
                    stats_step_names[kind], stats->step_count[kind], stats->step_cpu_ns[kind],
                    stats->step_cpu_longest_ns[kind]);
    }
    stats_print(text, "\"by_length\":[");
    for (int i = 0; i < ESKER_STEP_LENGTHS; i++) {
        stats_print(text, "%s{\"cpu\":%" PRIu64 ",\"time\":%" PRIu64 "}", i > 0 ? "," : "",
                    stats->steps_by_cpu[i], stats->steps_by_time[i]);
    }
    stats_print(text, "]},");
}

static void
stats_as_json(const esker_stats *stats, struct stats_text *text)
{
    stats_print(text, "{");
    for (size_t i = 0; i < COUNTOF(stats_fields); i++) {
        stats_print(text, "\"%s\":%" PRIu64 ",", stats_fields[i].name, stats_value(stats, &stats_fields[i]));
    }
    stats_print(text, "\"levels\":[");
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        stats_print(text, "%s{\"segments\":%" PRIu64 ",\"bytes\":%" PRIu64 ",\"target_bytes\":%" PRIu64 "}",
                    level > 0 ? "," : "", stats->level_segments[level], stats->level_bytes[level],
                    stats->level_target_bytes[level]);
    }
    stats_print(text, "],\"waits\":{");
    for (int cause = ESKER_WAIT_NONE + 1; cause < ESKER_WAIT_CAUSES; cause++) {
        stats_print(text, "%s\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}",
                    cause > ESKER_WAIT_NONE + 1 ? "," : "", stats_wait_names[cause], stats->wait_count[cause],
                    stats->wait_ns[cause]);
    }
    stats_print(text, "},");
    stats_steps_as_json(stats, text);
    stats_print(
        text,
        "\"write_amplification\":%.3f,\"space_amplification\":%.3f,\"io_backend\":\"%s\",\"io_reason\":\"",
        stats_write_amplification(stats), stats_space_amplification(stats),
        stats->io_backend == ESKER_IO_URING ? "uring" : "posix");
    for (const char *at = stats->io_reason; *at != 0; at++) {
        stats_print(text, *at == '"' || *at == '\\' ? "\\%c" : "%c", *at);
    }
    stats_print(text, "\"}\n");
}

static void
stats_steps_as_prometheus(const esker_stats *stats, struct stats_text *text)
{
    uint64_t count = 0;
    uint64_t cpu_ns = 0;
    stats_print(text, "# HELP esker_step_seconds processor time of the steps of flushes and merges\n"
                      "# TYPE esker_step_seconds histogram\n");
    for (int i = 0; i + 1 < ESKER_STEP_LENGTHS; i++) {
        count += stats->steps_by_cpu[i];
        stats_print(text, "esker_step_seconds_bucket{le=\"%.7g\"} %" PRIu64 "\n",
                    (double)stats_step_most_ns(i) / 1e9, count);
    }
    count += stats->steps_by_cpu[ESKER_STEP_LENGTHS - 1];
    for (int kind = 0; kind < ESKER_STEPS; kind++) {
        cpu_ns += stats->step_cpu_ns[kind];
    }
    stats_print(text,
                "esker_step_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\nesker_step_seconds_sum %.9f\n"
                "esker_step_seconds_count %" PRIu64 "\n",
                count, (double)cpu_ns / 1e9, count);
}

static void
stats_as_prometheus(const esker_stats *stats, struct stats_text *text)
{
    for (size_t i = 0; i < COUNTOF(stats_fields); i++) {
        stats_print(text, "# HELP esker_%s %s\n# TYPE esker_%s untyped\nesker_%s %" PRIu64 "\n",
                    stats_fields[i].name, stats_fields[i].help, stats_fields[i].name, stats_fields[i].name,
                    stats_value(stats, &stats_fields[i]));
    }
    stats_print(text,
                "# HELP esker_level_bytes bytes of segments by level\n# TYPE esker_level_bytes gauge\n");
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        stats_print(text, "esker_level_bytes{level=\"%" PRIu32 "\"} %" PRIu64 "\n", level,
                    stats->level_bytes[level]);
    }
    stats_print(text, "# HELP esker_wait_ns writes that waited, by cause\n# TYPE esker_wait_ns counter\n");
    for (int cause = ESKER_WAIT_NONE + 1; cause < ESKER_WAIT_CAUSES; cause++) {
        stats_print(text, "esker_wait_ns{cause=\"%s\"} %" PRIu64 "\n", stats_wait_names[cause],
                    stats->wait_ns[cause]);
    }
    stats_steps_as_prometheus(stats, text);
    stats_print(text,
                "# HELP esker_io_backend the I/O back-end in use\n# TYPE esker_io_backend gauge\n"
                "esker_io_backend{backend=\"%s\"} 1\n",
                stats->io_backend == ESKER_IO_URING ? "uring" : "posix");
}

esker_status
esker_stats_text(esker_db *db, int format, char **out)
{
    if (out == NULL || format < ESKER_STATS_TEXT || format > ESKER_STATS_PROMETHEUS) {
        return FAIL(ESKER_INVALID, "the format is unknown or the output pointer is NULL");
    }
    esker_stats stats;
    esker_stats_init(&stats);
    TRY(esker_get_stats(db, &stats));
    struct stats_text text = {.status = ESKER_OK};
    buf_init(&text.buf, &mem_default);
    if (format == ESKER_STATS_JSON) {
        stats_as_json(&stats, &text);
    } else if (format == ESKER_STATS_PROMETHEUS) {
        stats_as_prometheus(&stats, &text);
    } else {
        stats_as_text(&stats, &text);
    }
    if (text.status == ESKER_OK) {
        text.status = buf_append_u8(&text.buf, 0);
    }
    if (text.status != ESKER_OK) {
        buf_fini(&text.buf);
        return text.status;
    }
    *out = (char *)text.buf.ptr;
    return ESKER_OK;
}

void
esker_free(void *ptr)
{
    mem_free(&mem_default, ptr);
}
