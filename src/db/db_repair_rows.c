/* SPDX-License-Identifier: MIT */
/* Repair: what is left of logs and segments becomes rows of new segments. Invariants: db_repair.h. */
#include <stdlib.h>

#include "db/db_closed.h"
#include "db/db_repair.h"
#include "iter/merge_iter.h"

enum { REPAIR_KEY_TEXT = 100, REPAIR_KEY_SHOWN = 24 };

/* ---- Saying it ----------------------------------------------------------------- */

/* A key for people: printable bytes as they are, others as \xHH, long ones cut. */
static const char *
repair_key_text(struct bytes key, char out[REPAIR_KEY_TEXT])
{
    static const char hex[] = "0123456789abcdef";
    size_t at = 0;
    out[at++] = '"';
    for (size_t i = 0; i < MIN(key.len, (size_t)REPAIR_KEY_SHOWN); i++) {
        uint8_t byte = key.ptr[i];
        if (byte >= 0x20 && byte < 0x7f && byte != '"' && byte != '\\') {
            out[at++] = (char)byte;
        } else {
            out[at++] = '\\';
            out[at++] = 'x';
            out[at++] = hex[byte >> 4];
            out[at++] = hex[byte & 15];
        }
    }
    out[at++] = '"';
    memcpy(out + at, key.len > REPAIR_KEY_SHOWN ? "..." : "", key.len > REPAIR_KEY_SHOWN ? 4 : 1);
    return out;
}

static void
repair_segment_loss(void *ctx, const struct segment_loss *loss)
{
    struct repair *repair = ctx;
    char after[REPAIR_KEY_TEXT];
    char before[REPAIR_KEY_TEXT];
    repair->losses++;
    repair_say(repair,
               "%s: bytes %llu to %llu are damaged: lost are rows with keys from %s to %s, LSNs %llu to %llu",
               repair->salvaging, (unsigned long long)loss->from, (unsigned long long)loss->to,
               loss->after.len > 0 ? repair_key_text(loss->after, after) : "its first",
               loss->before.len > 0 ? repair_key_text(loss->before, before) : "its last",
               (unsigned long long)repair->salvaging_min_lsn, (unsigned long long)repair->salvaging_max_lsn);
}

static void
repair_log_loss(void *ctx, const struct wal_loss *loss)
{
    struct repair *repair = ctx;
    repair->losses++;
    if (loss->from_lsn == loss->to_lsn) {
        repair_say(repair, "%s %s: whatever stood in it alone is lost", loss->file, loss->why);
        return;
    }
    repair_say(repair,
               "%s: byte %llu %s: lost is what was written with LSNs from %llu up to %llu, of whatever keys",
               loss->file, (unsigned long long)loss->offset, loss->why, (unsigned long long)loss->from_lsn,
               (unsigned long long)loss->to_lsn);
}

static void
repair_log_found(void *ctx, const char *file, uint64_t gen, uint64_t base_lsn)
{
    struct repair *repair = ctx;
    repair->losses++;
    repair_say(repair,
               "%s: neither header page is valid; its frames prove that it is generation %llu and begins "
               "with LSN %llu, and are kept",
               file, (unsigned long long)gen, (unsigned long long)base_lsn);
}

/* ---- Writing --------------------------------------------------------------------- */

static uint64_t
repair_next_id(void *ctx)
{
    struct repair *repair = ctx;
    return repair->next_id++;
}

/* In level 0 they stand where the segment stood of which they are left. */
static void
repair_keep_place(struct compaction_result *result, const struct segment_meta *tier)
{
    for (size_t i = 0; i < result->output_count; i++) {
        struct segment_meta *meta = &result->outputs[i]->meta;
        meta->tier_id = tier->tier_id != 0 ? tier->tier_id : tier->id;
        meta->tier_lsn = MAX(tier->tier_id != 0 ? tier->tier_lsn : tier->max_lsn, meta->max_lsn);
    }
}

/* Every row of the source that is the newest of its key, deletes included. tier (nullable): a segment of
 * level 0 that they take the place of. */
static esker_status
repair_write(struct repair *repair, struct iter *source, uint32_t level, const struct segment_meta *tier,
             uint64_t *rows_in_out)
{
    esker_db *db = repair->db;
    struct compaction_result result = {0};
    struct compaction_spec spec = {.io = db->io,
                                   .mem = &db->mem,
                                   .source = source,
                                   .output_level = level,
                                   .segment_bytes_max = SEGMENT_BYTES_MOST,
                                   .compression = db_compression(db),
                                   .next_id = repair_next_id,
                                   .ctx = repair};
    memcpy(spec.uuid, db->uuid, sizeof spec.uuid);
    TRY(compaction_run(&spec, &result));
    if (tier != NULL) {
        repair_keep_place(&result, tier);
    }
    *rows_in_out = result.rows_in;
    repair->rows_kept += result.rows_out;
    esker_status status = buf_append(&repair->results, &result, sizeof result);
    if (status != ESKER_OK) {
        compaction_result_fini(&result, &db->mem);
        return status;
    }
    for (size_t i = 0; i < result.output_count; i++) { /* they take the place of what they are made of */
        const struct segment_meta *meta = &result.outputs[i]->meta;
        TRY(buf_append(&repair->listed, meta, sizeof *meta));
    }
    return ESKER_OK;
}

static esker_status
repair_open_segment(struct repair *repair, const struct segment_meta *meta, struct segment **out)
{
    struct segment_open_options options = {
        .io = repair->db->io, .mem = &repair->db->mem, .cache = repair->db->cache};
    memcpy(options.uuid, repair->db->uuid, sizeof options.uuid);
    return segment_create(&options, meta, out);
}

esker_status
repair_salvage_segment(struct repair *repair, const struct segment_meta *meta)
{
    struct segment *segment = NULL;
    struct iter *rows = NULL;
    char name[40];
    uint64_t count = 0;
    segment_file_name(meta->id, name);
    repair->salvaging = name;
    repair->salvaging_min_lsn = meta->min_lsn;
    repair->salvaging_max_lsn = meta->max_lsn;
    TRY(repair_open_segment(repair, meta, &segment));
    esker_status status = segment_salvage(segment, repair_segment_loss, repair, &rows);
    if (status != ESKER_OK && !repair_is_damage(status)) {
        goto out;
    }
    status = status == ESKER_OK
                 ? repair_write(repair, rows, meta->level, meta->level == 0 ? meta : NULL, &count)
                 : ESKER_OK;
    if (status == ESKER_OK && count < meta->row_count) {
        char lower[REPAIR_KEY_TEXT];
        char upper[REPAIR_KEY_TEXT];
        repair->losses++;
        repair_say(repair,
                   "%s: %llu of its %llu rows are lost; its keys went from %s to %s, LSNs %llu to %llu", name,
                   (unsigned long long)(meta->row_count - count), (unsigned long long)meta->row_count,
                   repair_key_text(meta->min_key, lower),
                   meta->max_key.len > 0 ? repair_key_text(meta->max_key, upper) : "beyond all",
                   (unsigned long long)meta->min_lsn, (unsigned long long)meta->max_lsn);
    } else if (status == ESKER_OK) {
        repair_say(repair, "%s is damaged, but none of its %llu rows is lost", name,
                   (unsigned long long)meta->row_count);
    }
out:
    iter_destroy(rows);
    segment_unref(segment);
    repair->salvaging = NULL;
    return status;
}

/* ---- Logs -------------------------------------------------------------------------- */

static esker_status
repair_log_entry(void *ctx, const struct entry *entry, uint64_t lsn)
{
    struct repair *repair = ctx;
    struct array_row row = {.key = entry->key, .value = entry->value, .lsn = lsn, .op = entry->op};
    return buf_append(&repair->rows, &row, sizeof row);
}

static int
repair_row_order(const void *a, const void *b)
{
    return array_row_compare(a, b);
}

/* With the list of logs lost, all that are here. */
static esker_status
repair_log_numbers(struct repair *repair, struct buf *numbers)
{
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        if (file->kind == DB_FILE_LOG) {
            TRY(buf_append_u64(numbers, file->number));
        }
    }
    return ESKER_OK;
}

esker_status
repair_read_logs(struct repair *repair, uint64_t wal_min_gen, uint64_t wal_min_lsn)
{
    esker_db *db = repair->db;
    struct wal_recover_input input = {.io = db->io,
                                      .mem = &db->mem,
                                      .read_only = true,
                                      .log_numbers = db->log_numbers,
                                      .log_count = db->log_number_count,
                                      .wal_min_gen = wal_min_gen,
                                      .wal_min_lsn = wal_min_lsn,
                                      .durable_lsn = repair->state.durable_lsn};
    struct wal_salvage_calls calls = {repair_log_entry, repair_log_loss, repair_log_found, repair};
    struct buf numbers;
    memcpy(input.uuid, db->uuid, sizeof input.uuid);
    buf_init(&numbers, &db->mem);
    esker_status status = ESKER_OK;
    if (repair->rebuild) {
        TRY_OUT(repair_log_numbers(repair, &numbers));
        input.log_numbers = (const void *)numbers.ptr;
        input.log_count = numbers.len / sizeof(uint64_t);
    }
    TRY_OUT(wal_salvage(&input, &calls, &repair->salvaged));
    size_t count = repair->rows.len / sizeof(struct array_row);
    if (count > 0) {
        qsort(repair->rows.ptr, count, sizeof(struct array_row), repair_row_order);
    }
    if (repair->salvaged.end_lsn < input.durable_lsn) {
        repair->losses++;
        repair_say(repair, "the log ends at LSN %llu, although everything below %llu had been synced",
                   (unsigned long long)repair->salvaged.end_lsn, (unsigned long long)input.durable_lsn);
    }
    repair->lsn_max = MAX(repair->lsn_max, repair->salvaged.next_base_lsn);
    repair->lsn_max = MAX(repair->lsn_max, MAX(wal_min_lsn, input.durable_lsn));
out:
    buf_fini(&numbers);
    return status;
}

static esker_status
repair_log_iter(struct repair *repair, struct iter **out)
{
    return array_iter_create((const void *)repair->rows.ptr, repair->rows.len / sizeof(struct array_row),
                             &repair->db->mem, out);
}

esker_status
repair_write_logs(struct repair *repair)
{
    struct iter *rows = NULL;
    uint64_t count = 0;
    if (repair->rows.len == 0) {
        return ESKER_OK;
    }
    TRY(repair_log_iter(repair, &rows));
    esker_status status = repair_write(repair, rows, 0, NULL, &count);
    iter_destroy(rows);
    repair_say(repair, "of the logs %llu rows are kept", (unsigned long long)count);
    return status;
}

/* ---- Without a list of files ---------------------------------------------------------- */

struct repair_sources {
    struct repair *repair;
    struct buf segments; /* struct segment * */
    struct buf iters;    /* struct iter * */
};

static void
repair_merge_loss(void *ctx, const struct segment_loss *loss)
{
    struct repair *repair = ctx;
    repair->salvaging = "a segment";
    repair_segment_loss(repair, loss);
}

/* What is left of one file of the directory as a source; nothing if it is not ours. */
static esker_status
repair_add_source(struct repair_sources *sources, const struct db_file *file)
{
    struct repair *repair = sources->repair;
    struct segment_open_options options = {.io = repair->db->io, .mem = &repair->db->mem};
    struct segment_meta meta;
    struct segment *segment = NULL;
    struct iter *iter = NULL;
    memcpy(options.uuid, repair->db->uuid, sizeof options.uuid);
    esker_status status = segment_describe(&options, file->number, &meta);
    if (status == ESKER_OK) {
        TRY(repair_open_segment(repair, &meta, &segment));
        status = buf_append(&sources->segments, &segment, sizeof segment);
        if (status != ESKER_OK) {
            segment_unref(segment);
            return status;
        }
        status = db_verify_segment(repair->db, &meta);
        if (status == ESKER_OK) {
            status = segment_iter_create(segment, false, &iter);
            repair->state.wal_min_lsn = MAX(repair->state.wal_min_lsn, meta.max_lsn + 1);
        } else if (repair_is_damage(status)) {
            repair_say(repair, "%s is damaged; what is left of it is taken", file->name);
            repair->salvaging_max_lsn = LSN_MAX;
            status = segment_salvage(segment, repair_merge_loss, repair, &iter);
        }
    }
    if (status != ESKER_OK && !repair_is_damage(status)) {
        return status;
    }
    if (status != ESKER_OK) {
        repair->losses++;
        repair_say(repair, "%s gives nothing: %s", file->name, status_last()->message);
        return ESKER_OK;
    }
    status = buf_append(&sources->iters, &iter, sizeof iter);
    if (status != ESKER_OK) {
        iter_destroy(iter);
    }
    return status;
}

static esker_status
repair_add_sources(struct repair_sources *sources)
{
    struct repair *repair = sources->repair;
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        if (file->kind == DB_FILE_SEGMENT && !repair_is_dropped(repair, file->number)) {
            TRY(repair_add_source(sources, file));
        }
    }
    return ESKER_OK;
}

esker_status
repair_write_all(struct repair *repair)
{
    struct repair_sources sources = {.repair = repair};
    struct iter *logs = NULL;
    struct iter *merged = NULL;
    uint64_t count = 0;
    buf_init(&sources.segments, &repair->db->mem);
    buf_init(&sources.iters, &repair->db->mem);
    esker_status status = repair_add_sources(&sources);
    if (status != ESKER_OK) {
        goto out;
    }
    TRY_OUT(repair_read_logs(repair, 0, repair->state.wal_min_lsn));
    TRY_OUT(repair_log_iter(repair, &logs));
    status = buf_append(&sources.iters, &logs, sizeof logs);
    if (status != ESKER_OK) {
        iter_destroy(logs);
        goto out;
    }
    size_t children = sources.iters.len / sizeof(struct iter *);
    buf_clear(&repair->dropped); /* not needed any more */
    status = merge_iter_create((void *)sources.iters.ptr, children, &repair->db->mem, &merged);
    buf_clear(&sources.iters);
    TRY_OUT(status);
    TRY_OUT(repair_write(repair, merged, ESKER_LEVELS_MAX - 1, NULL, &count));
    repair_say(repair, "%llu rows were found, versions that others have replaced included",
               (unsigned long long)count);
out:
    for (size_t i = 0; i < sources.iters.len / sizeof(struct iter *); i++) {
        iter_destroy(((struct iter **)(void *)sources.iters.ptr)[i]);
    }
    iter_destroy(merged);
    for (size_t i = 0; i < sources.segments.len / sizeof(struct segment *); i++) {
        segment_unref(((struct segment **)(void *)sources.segments.ptr)[i]);
    }
    buf_fini(&sources.iters);
    buf_fini(&sources.segments);
    return status;
}
