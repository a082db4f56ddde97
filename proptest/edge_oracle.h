/* SPDX-License-Identifier: MIT */
/*
 * The write-ahead oracle: watches a simulated disk and aborts when something is
 * begun before what it relies on is durable. The edges are those of
 * docs/durability.md, "What is synced before what", by their numbers there.
 */
#ifndef ESKER_PROPTEST_EDGE_ORACLE_H
#define ESKER_PROPTEST_EDGE_ORACLE_H

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "db/db_files.h"
#include "format/edit.h"
#include "format/frame.h"
#include "format/log_format.h"
#include "io/io_sim.h"
#include "manifest/manifest.h"
#include "segment/segment.h"
#include "wal/log_file.h"

enum { EDGE_LISTED_MAX = 512 };

/* What a manifest lists. */
struct edge_state {
    uint64_t manifest; /* 0 = none */
    uint64_t wal_min_gen;
    uint64_t segments[EDGE_LISTED_MAX], logs[EDGE_LISTED_MAX];
    size_t segment_count, log_count;
};

/* How often each edge was looked at; [0] is not used. */
static uint64_t edges_checked[8];
static void (*edge_failed)(const char *what); /* prints and aborts */

static void
edge_check(unsigned edge, bool holds, const char *name)
{
    char what[128];
    edges_checked[edge]++;
    if (!holds) {
        snprintf(what, sizeof what, "edge W%u is broken at %s", edge, name);
        edge_failed(what);
    }
}

static void
edge_set(uint64_t *numbers, size_t *count, uint64_t number, bool listed)
{
    for (size_t at = 0; at < *count; at++) {
        if (numbers[at] == number) {
            numbers[at] = listed ? number : numbers[--*count];
            return;
        }
    }
    if (listed) {
        ASSERT(*count < EDGE_LISTED_MAX);
        numbers[(*count)++] = number;
    }
}

static void
edge_apply(struct edge_state *state, const struct edit *edit)
{
    state->wal_min_gen = edit->wal_min_gen != 0 ? edit->wal_min_gen : state->wal_min_gen;
    for (size_t i = 0; i < edit->drop_segment_count; i++) {
        edge_set(state->segments, &state->segment_count, edit->drop_segments[i], false);
    }
    for (size_t i = 0; i < edit->add_segment_count; i++) {
        edge_set(state->segments, &state->segment_count, edit->add_segments[i].id, true);
    }
    for (size_t i = 0; i < edit->add_log_count; i++) {
        edge_set(state->logs, &state->log_count, edit->add_logs[i], true);
    }
    for (size_t i = 0; i < edit->drop_log_count; i++) {
        edge_set(state->logs, &state->log_count, edit->drop_logs[i], false);
    }
}

static void
edge_decode_manifest(struct bytes bytes, struct edge_state *out)
{
    struct file_head head;
    out->manifest = out->wal_min_gen = 0;
    out->segment_count = out->log_count = 0; /* the lists are long */
    if (bytes.ptr == NULL || manifest_header_decode(bytes, &head) != ESKER_OK) {
        return;
    }
    out->manifest = head.number;
    struct frame frame;
    uint64_t seed = frame_file_seed(head.uuid, head.number);
    for (uint64_t offset = MANIFEST_HEADER_BYTES; offset < bytes.len; offset += frame.len_bytes) {
        struct edit edit;
        uint64_t at = 0;
        if (!frame_decode(bytes_make(bytes.ptr + offset, bytes.len - offset), seed, offset, &frame) ||
            edit_decode(frame.body, &mem_default, &edit, &at) != ESKER_OK) {
            return;
        }
        edge_apply(out, &edit);
        edit_fini(&edit, &mem_default);
    }
}

/* All whole edits of a manifest file. Many states have the same one, so what was
 * decoded is kept for a while; good until the next call. */
static const struct edge_state *
edge_read_manifest(struct sim_disk *disk, const char *name, bool durable)
{
    enum { KEPT = 64 };
    static struct edge_state kept[KEPT];
    static uint64_t keys[KEPT];
    struct bytes bytes;
    if (!sim_watch_get(disk, name, durable, &bytes)) {
        bytes = bytes_make(NULL, 0);
    }
    uint64_t key = hash64(bytes.ptr, bytes.ptr != NULL ? bytes.len : 0, bytes.len) | 1;
    size_t slot = key >> 1 & (KEPT - 1);
    if (keys[slot] != key) {
        edge_decode_manifest(bytes, &kept[slot]);
        keys[slot] = key;
    }
    return &kept[slot];
}

/* The state that a power cut now could not take away; NULL: none yet. */
static const struct edge_state *
edge_read_durable(struct sim_disk *disk)
{
    struct bytes bytes;
    struct file_head head;
    char name[40];
    if (!sim_watch_get(disk, "CURRENT", true, &bytes) || bytes.ptr == NULL || bytes.len != CURRENT_BYTES ||
        current_decode(bytes, &head) != ESKER_OK) {
        return NULL;
    }
    manifest_file_name(head.number, name);
    const struct edge_state *state = edge_read_manifest(disk, name, true);
    return state->manifest != 0 ? state : NULL;
}

static bool
edge_lists(const uint64_t *numbers, size_t count, uint64_t number)
{
    for (size_t at = 0; at < count; at++) {
        if (numbers[at] == number) {
            return true;
        }
    }
    return false;
}

/* The newest header on the platter, or that of a certain page; false: not valid. */
static bool
edge_log_header(struct sim_disk *disk, const char *name, int only_page, struct log_header *out)
{
    struct bytes bytes;
    bool found = false;
    if (!sim_watch_get(disk, name, true, &bytes) || bytes.ptr == NULL || bytes.len < LOG_HEADER_BYTES) {
        return false;
    }
    for (int page = 0; page < 2; page++) {
        struct log_header header;
        bool unsupported;
        struct bytes part = bytes_make(bytes.ptr + (size_t)page * LOG_PAGE_BYTES, LOG_PAGE_BYTES);
        if ((only_page < 0 || only_page == page) && log_header_decode(part, &header, &unsupported) &&
            (!found || header.gen > out->gen)) {
            *out = header;
            found = true;
        }
    }
    return found;
}

static bool
edge_log_is_valid(struct sim_disk *disk, const char *name, int only_page)
{
    struct log_header header;
    return edge_log_header(disk, name, only_page, &header);
}

/* W1, W2: what an edit names is there before the edit is written. */
static void
edge_manifest_written(struct sim_disk *disk, const char *name)
{
    const struct edge_state *state = edge_read_manifest(disk, name, false);
    char file[40];
    for (size_t i = 0; i < state->segment_count; i++) {
        segment_file_name(state->segments[i], file);
        edge_check(1, sim_watch_is_durable(disk, file), file);
    }
    for (size_t i = 0; i < state->log_count; i++) {
        log_file_name(state->logs[i], file);
        edge_check(2, state->manifest == 1 || edge_log_is_valid(disk, file, -1), file);
    }
}

/* W3: nothing goes that the durable state names. */
static void
edge_unlinked(struct sim_disk *disk, const char *name)
{
    const struct edge_state *state = edge_read_durable(disk);
    uint64_t number = 0;
    enum db_file_kind kind = db_file_classify(name, &number);
    if (state == NULL) {
        return;
    }
    bool named = (kind == DB_FILE_SEGMENT && edge_lists(state->segments, state->segment_count, number)) ||
                 (kind == DB_FILE_LOG && edge_lists(state->logs, state->log_count, number)) ||
                 (kind == DB_FILE_MANIFEST && state->manifest == number) || kind == DB_FILE_CURRENT;
    edge_check(3, !named, name);
}

/* W4: what CURRENT is about to name is there, and so is the name's own content. */
static void
edge_renamed(struct sim_disk *disk, const struct sim_log_entry *entry)
{
    struct bytes cached, durable;
    struct file_head head;
    char manifest[40];
    bool good = sim_watch_get(disk, entry->name, false, &cached) && cached.len == CURRENT_BYTES &&
                current_decode(cached, &head) == ESKER_OK && sim_watch_is_clean(disk, entry->name, &durable);
    edge_check(4, good, entry->name);
    manifest_file_name(head.number, manifest);
    edge_check(4, sim_watch_is_durable(disk, manifest), manifest);
}

/* W5, W6: a header page is overwritten while the other one holds; frames go into listed logs only. */
static void
edge_log_written(struct sim_disk *disk, const struct sim_log_entry *entry)
{
    const struct edge_state *state = NULL;
    uint64_t number = 0;
    struct bytes bytes;
    if (db_file_classify(entry->name, &number) != DB_FILE_LOG || (state = edge_read_durable(disk)) == NULL) {
        return;
    }
    bool listed = edge_lists(state->logs, state->log_count, number);
    if (listed && entry->offset < LOG_HEADER_BYTES) {
        edge_check(5, edge_log_is_valid(disk, entry->name, entry->offset < LOG_PAGE_BYTES ? 1 : 0),
                   entry->name);
    } else if (!listed && entry->offset >= LOG_HEADER_BYTES && entry->result > 0 &&
               sim_watch_get(disk, entry->name, false, &bytes)) {
        bool zeros = true;
        for (uint64_t at = entry->offset; at < entry->offset + (uint64_t)entry->result; at++) {
            zeros = zeros && bytes.ptr[at] == 0;
        }
        edge_check(6, zeros, entry->name);
    }
}

static void
edge_watch(void *ctx, struct sim_disk *disk, const struct sim_log_entry *entry, bool done)
{
    (void)ctx;
    uint64_t number = 0;
    if (done && entry->kind == SIM_WRITE && entry->result > 0) {
        if (db_file_classify(entry->name, &number) == DB_FILE_MANIFEST) {
            edge_manifest_written(disk, entry->name);
        } else if (entry->offset >= LOG_HEADER_BYTES) {
            edge_log_written(disk, entry);
        }
    } else if (!done && entry->kind == SIM_WRITE && entry->offset < LOG_HEADER_BYTES) {
        edge_log_written(disk, entry);
    } else if (!done && entry->kind == SIM_UNLINK) {
        edge_unlinked(disk, entry->name);
    } else if (!done && entry->kind == SIM_RENAME) {
        edge_renamed(disk, entry);
    }
}

/* Where a log's frames end, as the cache has them. */
static uint64_t
edge_log_end(struct sim_disk *disk, const char *name, const struct log_header *header)
{
    struct bytes bytes;
    struct frame frame;
    uint64_t at = LOG_HEADER_BYTES;
    uint64_t seed = log_file_seed(header);
    if (!sim_watch_get(disk, name, false, &bytes) || bytes.ptr == NULL) {
        return UINT64_MAX;
    }
    while (at < bytes.len && frame_decode(bytes_make(bytes.ptr + at, bytes.len - at), seed,
                                          header->base_lsn + (at - LOG_HEADER_BYTES) / LSN_BYTES, &frame)) {
        at += frame.len_bytes;
    }
    return at;
}

/* W7: after a durable acknowledgement nothing of a log that recovery would need is
 * in the cache alone. Needed are those from the newest back to the manifest's
 * first; others were given up by an earlier recovery. A log that begins at or above
 * visible_lsn was begun ahead and holds nothing yet: a killed process may have left
 * it half begun again. */
static void
edge_acknowledged(struct sim_disk *disk, uint64_t visible_lsn)
{
    char name[40];
    sim_disk_lock_for_watch(disk, true);
    uint64_t want = 0;
    const struct edge_state *state = edge_read_durable(disk);
    for (bool more = state != NULL; more;) {
        struct log_header best = {0}, header;
        char best_name[40] = "";
        for (size_t i = 0; i < state->log_count; i++) {
            log_file_name(state->logs[i], name);
            if (edge_log_header(disk, name, -1, &header) && (want == 0 || header.gen == want) &&
                header.gen > best.gen && header.base_lsn < visible_lsn) {
                best = header;
                memcpy(best_name, name, sizeof best_name);
            }
        }
        /* Behind them stand frames of a recycled log's last life, which may never have been synced. */
        uint64_t end = best.gen != 0 ? edge_log_end(disk, best_name, &best) : 0;
        edge_check(7, end != 0 && sim_watch_is_clean_to(disk, best_name, end), best_name);
        want = best.prev_gen;
        more = best.gen > state->wal_min_gen && want >= state->wal_min_gen && want != 0;
    }
    sim_disk_lock_for_watch(disk, false);
}

static void
edge_report(void)
{
    printf("edges looked at:");
    for (unsigned edge = 1; edge < COUNTOF(edges_checked); edge++) {
        printf(" W%u %llu", edge, (unsigned long long)edges_checked[edge]);
    }
    printf("\n");
}

#endif
