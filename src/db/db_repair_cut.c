/* SPDX-License-Identifier: MIT */
/*
 * Repair: has a manifest that reads well lost its end? Edits that are cut off leave no trace in
 * the file. Three things elsewhere prove that there were more (an ordinary crash leaves none of them):
 *  C1 a log of ours names a later edit in its header: it was begun when that one was durable;
 *  C2 a log that is not listed has frames, and is younger than all that are: frames go into
 *     listed logs only, and a log that an edit takes off the list is older than one that stays;
 *  C3 a listed file is missing, while a segment of ours is whole that no edit here ever listed:
 *     a merge or flush put it there, and what it replaced was removed behind a later edit. (An
 *     unfinished merge leaves such a segment too, but its inputs are still there.)
 */
#include "db/db_closed.h"
#include "db/db_repair.h"

/* ---- Logs (C1, C2) --------------------------------------------------------------- */

/* gen 0: what has that name is no log of ours. */
static esker_status
repair_look_at_log(struct repair *repair, const struct db_file *file, uint64_t above_gen,
                   struct log_look *out)
{
    esker_status status = recover_look_at_log(repair->db, file, above_gen, out);
    return repair_is_damage(status) ? ESKER_OK : status;
}

static bool
repair_lists_log(const struct repair *repair, uint64_t number)
{
    for (size_t i = 0; i < repair->db->log_number_count; i++) {
        if (repair->db->log_numbers[i] == number) {
            return true;
        }
    }
    return false;
}

/* UINT64_MAX: a listed log has no valid header, so nobody knows. */
static esker_status
repair_listed_gen_max(struct repair *repair, uint64_t *gen_out)
{
    *gen_out = 0;
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        struct log_look look;
        if (file->kind == DB_FILE_LOG && repair_lists_log(repair, file->number)) {
            TRY(repair_look_at_log(repair, file, UINT64_MAX, &look));
            *gen_out = MAX(*gen_out, look.header.gen != 0 ? look.header.gen : UINT64_MAX);
        }
    }
    return ESKER_OK;
}

static esker_status
repair_logs_know_more(struct repair *repair, bool *more_out)
{
    uint64_t edit_no = manifest_edit_no(repair->db->manifest);
    uint64_t listed_gen = 0;
    TRY(repair_listed_gen_max(repair, &listed_gen));
    for (size_t i = 0; i < db_file_count(&repair->files) && !*more_out; i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        struct log_look look;
        if (file->kind != DB_FILE_LOG) {
            continue;
        }
        TRY(repair_look_at_log(repair, file, listed_gen, &look));
        if (look.header.gen != 0 && look.header.edit_no > edit_no) {
            repair_say(repair, "%s knows of edit %llu, the manifest ends with %llu: its end is lost",
                       file->name, (unsigned long long)look.header.edit_no, (unsigned long long)edit_no);
            *more_out = true;
        } else if (look.begun && !repair_lists_log(repair, file->number)) {
            repair_say(repair, "%s was written to and is not listed: the manifest's end is lost", file->name);
            *more_out = true;
        }
    }
    return ESKER_OK;
}

/* ---- Missing files (C3) ------------------------------------------------------------ */

/* The name of a listed file that the directory does not have. */
static bool
repair_misses_file(struct repair *repair, char name[40])
{
    struct recover_state *state = &repair->state;
    size_t logs = 0;
    for (size_t i = 0; i < db_file_count(&repair->files); i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        struct recover_segment *segment =
            file->kind == DB_FILE_SEGMENT ? recover_find_segment(state, file->number) : NULL;
        if (segment != NULL) {
            segment->is_there = true;
        }
        logs += file->kind == DB_FILE_LOG && repair_lists_log(repair, file->number) ? 1 : 0;
    }
    for (size_t i = 0; i < state->segment_count; i++) {
        if (!state->segments[i]->is_there) {
            segment_file_name(state->segments[i]->meta.id, name);
            return true;
        }
    }
    memcpy(name, "a log", sizeof "a log");
    return logs < repair->db->log_number_count;
}

/* A whole segment of ours that no edit of the manifest lists or takes off the list. */
static esker_status
repair_is_unheard_of(struct repair *repair, const struct db_file *file, bool *unheard_out)
{
    struct segment_open_options options = {.io = repair->db->io, .mem = &repair->db->mem};
    struct segment_meta meta;
    *unheard_out = false;
    if (file->kind != DB_FILE_SEGMENT || recover_find_segment(&repair->state, file->number) != NULL ||
        repair_is_dropped(repair, file->number)) {
        return ESKER_OK;
    }
    memcpy(options.uuid, repair->db->uuid, sizeof options.uuid);
    esker_status status = segment_describe(&options, file->number, &meta);
    if (status == ESKER_OK) {
        status = db_verify_segment(repair->db, &meta);
    }
    *unheard_out = status == ESKER_OK;
    return repair_is_damage(status) ? ESKER_OK : status;
}

static esker_status
repair_was_replaced(struct repair *repair, bool *replaced_out)
{
    struct file_head head = {.number = manifest_number(repair->db->manifest)};
    char missing[40];
    if (!repair_misses_file(repair, missing)) {
        return ESKER_OK;
    }
    memcpy(head.uuid, repair->db->uuid, sizeof head.uuid);
    buf_clear(&repair->dropped);
    TRY(manifest_scan(repair->db->io, &repair->db->mem, &head, repair_note_drops, repair));
    for (size_t i = 0; i < db_file_count(&repair->files) && !*replaced_out; i++) {
        const struct db_file *file = db_file_at(&repair->files, i);
        TRY(repair_is_unheard_of(repair, file, replaced_out));
        if (*replaced_out) {
            repair_say(repair,
                       "%s is listed but missing, %s is whole but not listed: the manifest's end is lost",
                       missing, file->name);
        }
    }
    buf_clear(&repair->dropped);
    return ESKER_OK;
}

esker_status
repair_is_cut(struct repair *repair, bool *cut_out)
{
    *cut_out = false;
    TRY(repair_logs_know_more(repair, cut_out));
    return *cut_out ? ESKER_OK : repair_was_replaced(repair, cut_out);
}
