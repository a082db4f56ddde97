/* SPDX-License-Identifier: MIT */
/*
 * Runs one merge (or flush): every row of the source is judged
 * (compaction_gc.c), what survives is written to a sequence of segments.
 *
 * Invariants
 *  I1 All versions of a key go into one segment, so that two segments of one
 *     sorted level never share a key.
 *  I2 Until the function returns OK the outputs are nobody's: on any failure
 *     the finished ones are unlinked, the open one is removed by its writer.
 *  I3 What failed first is what the caller is told: damage in an input keeps
 *     its story (file, offset) whatever the clean-up meets.
 *
 * Durability: when it returns OK the contents of every output are synced, the
 * names are not; the caller syncs the directory before an edit names them.
 *
 * Concurrency: one thread per job; `cancel` may be set by any.
 */
#include "compaction/compaction_gc.h"

enum {
    COMPACTION_CHECK_WORK = 1024,       /* how much work passes between two looks at `cancel`: */
    COMPACTION_CHECK_WORK_BYTES = 1024, /* a row is 1 and so is each such piece of its value */
    COMPACTION_OUTPUTS_MIN = 8
};

struct compaction_job {
    const struct compaction_spec *spec;
    struct compaction_result result;
    size_t output_cap;
    struct segment_writer *writer; /* NULL between outputs */
};

void
compaction_result_fini(struct compaction_result *result, const struct mem *mem)
{
    for (size_t i = 0; i < result->output_count; i++) {
        mem_free(mem, result->outputs[i]);
    }
    mem_free(mem, result->outputs);
    *result = (struct compaction_result){0};
}

static esker_status
compaction_job_reserve_output(struct compaction_job *job)
{
    struct compaction_result *result = &job->result;
    if (result->output_count < job->output_cap) {
        return ESKER_OK;
    }
    const struct mem *mem = job->spec->mem;
    size_t cap = MAX(2 * job->output_cap, (size_t)COMPACTION_OUTPUTS_MIN);
    struct compaction_output **outputs = mem_alloc_array(mem, cap, sizeof *outputs);
    if (outputs == NULL) {
        return FAIL_NO_MEMORY("the outputs of a merge");
    }
    if (result->output_count > 0) {
        memcpy(outputs, result->outputs, result->output_count * sizeof *outputs);
    }
    mem_free(mem, result->outputs);
    result->outputs = outputs;
    job->output_cap = cap;
    return ESKER_OK;
}

static esker_status
compaction_job_begin_output(struct compaction_job *job)
{
    const struct compaction_spec *spec = job->spec;
    struct segment_writer_options options = {
        .id = spec->next_id(spec->ctx),
        .compression = spec->compression,
        .block_bytes = spec->block_bytes,
    };
    memcpy(options.uuid, spec->uuid, sizeof options.uuid);
    return segment_writer_create(spec->io, spec->mem, &options, &job->writer);
}

/* Finishes the open output, if there is one. */
static esker_status
compaction_job_end_output(struct compaction_job *job)
{
    if (job->writer == NULL) {
        return ESKER_OK;
    }
    TRY(compaction_job_reserve_output(job));
    struct compaction_result *result = &job->result;
    struct compaction_output *output = mem_zalloc(job->spec->mem, sizeof *output);
    if (output == NULL) {
        return FAIL_NO_MEMORY("the output of a merge");
    }
    esker_status status = segment_writer_finish(job->writer, &output->meta, output->keys);
    if (status != ESKER_OK) {
        mem_free(job->spec->mem, output);
        return status;
    }
    segment_writer_destroy(job->writer);
    job->writer = NULL;
    output->meta.level = job->spec->output_level;
    result->outputs[result->output_count++] = output;
    result->bytes_written += output->meta.size_bytes;
    return ESKER_OK;
}

static esker_status
compaction_job_write(struct compaction_job *job, const struct iter *row, bool new_key)
{
    uint64_t bytes_max = job->spec->segment_bytes_max;
    if (new_key && job->writer != NULL && segment_writer_size_bytes(job->writer) >= bytes_max) {
        TRY(compaction_job_end_output(job)); /* I1 */
    }
    if (job->writer == NULL) {
        TRY(compaction_job_begin_output(job));
    }
    job->result.rows_out++;
    return segment_writer_add(job->writer, row->key, row->lsn, (enum entry_op)row->op, row->value);
}

static esker_status
compaction_job_check_cancel(const struct compaction_job *job)
{
    const _Atomic bool *cancel = job->spec->cancel;
    /* relaxed: a request to stop, sooner or later; nothing is read on its strength. */
    if (cancel != NULL && load_relaxed(cancel)) {
        return FAIL(ESKER_BUSY, "the merge was cancelled");
    }
    return ESKER_OK;
}

static esker_status
compaction_job_rows(struct compaction_job *job, struct compaction_gc *gc)
{
    struct iter *source = job->spec->source;
    uint64_t work = 0;
    TRY(compaction_job_check_cancel(job));
    esker_status status = iter_first(source);
    while (status == ESKER_OK) {
        enum compaction_verdict verdict;
        TRY(compaction_gc_judge(gc, source, &verdict));
        job->result.rows_in++;
        if (verdict != COMPACTION_DROP) {
            TRY(compaction_job_write(job, source, verdict == COMPACTION_KEEP_NEW_KEY));
        }
        work += 1 + source->value.len / COMPACTION_CHECK_WORK_BYTES;
        if (work >= COMPACTION_CHECK_WORK) {
            work = 0;
            TRY(compaction_job_check_cancel(job));
        }
        status = iter_next(source);
    }
    return status == ESKER_END ? compaction_job_end_output(job) : status;
}

/* I2, I3. */
static void
compaction_job_undo(struct compaction_job *job)
{
    esker_error story = *status_last();
    segment_writer_destroy(job->writer);
    for (size_t i = 0; i < job->result.output_count; i++) {
        char name[40];
        segment_file_name(job->result.outputs[i]->meta.id, name);
        IGNORE_STATUS(io_unlink(job->spec->io, name), "no manifest lists it; the next open removes it");
    }
    compaction_result_fini(&job->result, job->spec->mem);
    IGNORE_STATUS(status_restore(&story), "the story of what failed first is kept");
}

esker_status
compaction_run(const struct compaction_spec *spec, struct compaction_result *out)
{
    struct compaction_job job = {.spec = spec};
    struct compaction_gc gc;
    compaction_gc_init(&gc, spec);
    esker_status status = compaction_job_rows(&job, &gc);
    compaction_gc_fini(&gc);
    if (status != ESKER_OK) {
        compaction_job_undo(&job);
        return status;
    }
    *out = job.result;
    return ESKER_OK;
}
