/* SPDX-License-Identifier: MIT */
/* What a flush and a merge have in common: which versions they may drop, how
 * their outputs are made, synced and named, and what deeper levels may hold. */
#include "db/db.h"
#include "base/mutant.h"

enum { MERGE_BLOCK_WORK = 512 }; /* of a step: what a block costs that is handed to the cache */

int
db_compression(const esker_db *db)
{
    return db->options.compression != ESKER_COMPRESS_AUTO ? db->options.compression : ESKER_COMPRESS_LZ4;
}

uint32_t
db_block_bytes(const esker_db *db, const struct version *version)
{
    uint64_t bytes = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        bytes += version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
    }
    return bytes > db->options.memory_budget_bytes / 2 ? BLOCK_BYTES_COLD : BLOCK_BYTES_WARM;
}

static uint64_t
merge_next_id(void *ctx)
{
    return db_next_file_id(((struct db_merge *)ctx)->db);
}

/* Could one of the segments of level 0 that are older than what is merged hold the key? */
static bool
merge_level0_spans(const struct level_run *level0, uint32_t older_from, struct bytes key)
{
    return older_from < level0->count && level_run_next(level0, key, older_from) < level0->count;
}

/* The output's own level counts where it is level 0. */
static bool
merge_deeper(void *ctx, struct bytes key)
{
    const struct db_merge *merge = ctx;
    const struct level_run *level0 = merge->version->levels[0];
    if (merge->output_level == 0 && level0 != NULL && merge_level0_spans(level0, merge->older_from, key)) {
        return true;
    }
    for (uint32_t level = merge->output_level + 1; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = merge->version->levels[level];
        if (run == NULL) {
            continue;
        }
        uint32_t index = level_run_seek(run, key);
        if (index < run->count && bytes_compare(segment_meta(run->segments[index])->min_key, key) <= 0) {
            return true;
        }
    }
    return false;
}

void
db_merge_spec(struct db_merge *merge, struct iter *source, struct compaction_spec *out)
{
    esker_db *db = merge->db;
    *out = (struct compaction_spec){.io = db->io,
                                    .mem = &db->block_mem,
                                    .source = source,
                                    .stripes = merge->stripes,
                                    .stripe_count = merge->stripe_count,
                                    .output_level = merge->output_level,
                                    .now_ms = db_now_ms(db),
                                    .deeper = merge_deeper,
                                    .segment_bytes_max = merge->is_flush ? UINT64_MAX : db->segment_bytes,
                                    .compression = db_compression(db),
                                    .block_bytes = db_block_bytes(db, merge->version),
                                    .cache = db->cache,
                                    .warm = merge->warm,
                                    .next_id = merge_next_id,
                                    .ctx = merge,
                                    .step_work = db->merge_step_work};
    memcpy(out->uuid, db->uuid, sizeof out->uuid);
}

void
db_remove_outputs(esker_db *db, struct compaction_result *result)
{
    esker_error story = *status_last();
    for (size_t i = 0; i < result->output_count; i++) {
        char name[40];
        segment_file_name(result->outputs[i]->meta.id, name);
        IGNORE_STATUS(io_unlink(db->io, name), "an orphan is removed at the next open");
    }
    compaction_result_fini(result, &db->block_mem);
    if (story.status != ESKER_OK) {
        IGNORE_STATUS(status_restore(&story), "keeps the first story");
    }
}

esker_status
db_sync_outputs(esker_db *db, struct compaction_result *result)
{
    if (result->output_count == 0) {
        return ESKER_OK;
    }
    esker_status status = MUTANT(2) ? ESKER_OK : io_sync_dir(db->io);
    if (status != ESKER_OK) {
        db_remove_outputs(db, result);
    }
    return status;
}

esker_status
db_adopt_outputs(esker_db *db, struct compaction_result *result)
{
    if (result->adopted == result->output_count) {
        return ESKER_END;
    }
    struct compaction_output *output = result->outputs[result->adopted];
    if (output->segment == NULL) {
        TRY(db_open_segment(db, &output->meta, &output->segment));
        segment_note_compression(output->segment, output->compression);
    }
    uint64_t work = db->merge_step_work != 0 ? db->merge_step_work : COMPACTION_STEP_WORK;
    size_t most = MAX((size_t)(work / MERGE_BLOCK_WORK), (size_t)1);
    bool wanted = output->warm != NULL || output->meta.level == 0; /* every get looks into level 0 */
    if (!wanted || segment_adopt(output->segment, output->warm, most)) {
        output->warm = NULL;
        result->adopted++;
    }
    return result->adopted == result->output_count ? ESKER_END : ESKER_OK;
}

esker_status
db_install_outputs(esker_db *db, struct install *install, struct compaction_result *result)
{
    size_t count = result->output_count;
    esker_status status = ESKER_OK;
    struct segment_meta *metas = mem_zalloc_array(&db->block_mem, count, sizeof *metas);
    struct segment **segments = mem_zalloc_array(&db->block_mem, count, sizeof *segments);
    ASSERT(result->adopted == count);
    if (metas == NULL || segments == NULL) {
        status = FAIL_NO_MEMORY("an edit");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        metas[i] = result->outputs[i]->meta;
        segments[i] = result->outputs[i]->segment;
    }
    install->edit.add_segments = metas;
    install->edit.add_segment_count = count;
    install->add = segments;
    status = db_install(db, install);
out:
    mem_free(&db->block_mem, segments);
    mem_free(&db->block_mem, metas);
    for (size_t i = 0; install->unsure && i < count; i++) {
        db_note_unsure(db, result->outputs[i]->meta.id);
    }
    if (status != ESKER_OK && !install->unsure) {
        db_remove_outputs(db, result);
    }
    return status;
}
