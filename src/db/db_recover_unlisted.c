/* SPDX-License-Identifier: MIT */
/*
 * Logs that the manifest does not list, before they are taken for orphans. A manifest that was
 * cut at the end of an edit reads as a whole one; what was logged after that edit would be
 * removed without a word. Either of these proves the cut, and no crash leaves one of them:
 *  U1 a log of ours names a later edit in its header: it was begun when that one was durable;
 *  U2 a log of ours is younger than all that are listed and begins with a frame: frames go into
 *     logs whose listing is durable, and a log that an edit takes off the list is older than
 *     one that stays.
 * (Of listed logs the first is looked at by wal_recover.)
 */
#include "db/db_recover.h"

static bool
unlisted_is_listed(const esker_db *db, uint64_t number)
{
    for (size_t i = 0; i < db->log_number_count; i++) {
        if (db->log_numbers[i] == number) {
            return true;
        }
    }
    return false;
}

static esker_status
unlisted_judge(esker_db *db, const struct db_file *file, uint64_t gen_max)
{
    struct log_look look;
    char manifest[40];
    TRY(recover_look_at_log(db, file, gen_max, &look));
    manifest_file_name(manifest_number(db->manifest), manifest);
    uint64_t edit_no = manifest_edit_no(db->manifest);
    if (look.header.gen != 0 && look.header.edit_no > edit_no) { /* U1 */
        return FAIL_AT(ESKER_CORRUPT, manifest, 0, "%s knows of edit %llu, the manifest ends with %llu",
                       file->name, (unsigned long long)look.header.edit_no, (unsigned long long)edit_no);
    }
    return look.used ? FAIL_AT(ESKER_CORRUPT, manifest, 0, /* U2 */
                               "%s was written to and is not listed: the manifest's end is lost", file->name)
                     : ESKER_OK;
}

esker_status
recover_check_unlisted(struct recover_state *state, uint64_t gen_max)
{
    esker_db *db = state->db;
    struct db_file_list files;
    esker_status status = db_file_list(db->io, &db->mem, &files);
    for (size_t i = 0; i < db_file_count(&files) && status == ESKER_OK; i++) {
        const struct db_file *file = db_file_at(&files, i);
        bool ours = false;
        if (file->kind != DB_FILE_LOG || unlisted_is_listed(db, file->number)) {
            continue;
        }
        status = db_file_is_ours(db->io, file, db->uuid, &ours);
        if (status != ESKER_OK && status != ESKER_NO_MEMORY && status != ESKER_IO) {
            status = ESKER_OK; /* something else of that name: it is left alone */
            continue;
        }
        if (status == ESKER_OK && ours) {
            status = unlisted_judge(db, file, gen_max);
        }
    }
    db_file_list_fini(&files);
    return status;
}
