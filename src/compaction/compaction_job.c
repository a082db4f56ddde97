/* SPDX-License-Identifier: MIT */
/*
 * Runs one merge (or flush) step by step: every row of the source is judged
 * (compaction_gc.c), what survives is written to a sequence of segments.
 *
 * Invariants
 *  I1 All versions of a key go into one segment, so that two segments of one
 *     sorted level never share a key.
 *  I2 Until they are taken the outputs are nobody's: on any failure the
 *     finished ones are unlinked, the open one is removed by its writer.
 *  I3 What failed first is what the caller is told: damage in an input keeps
 *     its story (file, offset) whatever the clean-up meets.
 *  I4 Between steps the source stands on a row that was not judged yet, so a
 *     job resumes where it stopped, on whatever thread. The end of an output
 *     (index and filter) is a step of its own, and its sync is another.
 *
 * Durability: when the last step is done the contents of every output are
 * synced, the names are not; the caller syncs the directory before an edit
 * names them.
 *
 * Concurrency: one thread at a time; `cancel` may be set by any.
 */
#include "base/assert.h"
#include "compaction/compaction_gc.h"

enum {
    COMPACTION_OUTPUTS_MIN = 8,
    COMPACTION_BELOW_FACTOR =
        8 /* an output overlaps at most about so many full segments of the level below */
};

enum compaction_stage {
    COMPACTION_AT_BEGIN,
    COMPACTION_AT_ROWS,
    COMPACTION_AT_END,
    COMPACTION_AT_DONE,
    COMPACTION_AT_FAILED
};

struct compaction_job {
    const struct compaction_spec *spec;
    struct compaction_gc gc;
    struct compaction_result result;
    size_t output_cap;
    struct segment_writer *writer; /* NULL between outputs */
    enum compaction_stage stage;
    bool output_full;     /* the next step ends the open output */
    size_t below_at;      /* the first segment of the level below that does not end before the row */
    uint64_t below_bytes; /* of that level, passed since the output began */
};

void
compaction_result_fini(struct compaction_result *result, const struct mem *mem)
{
    for (size_t i = 0; i < result->output_count; i++) {
        segment_warm_destroy(result->outputs[i]->warm);
        if (result->outputs[i]->segment != NULL) {
            segment_unref(result->outputs[i]->segment);
        }
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
        .cache = spec->cache,
        .warm = spec->warm,
    };
    memcpy(options.uuid, spec->uuid, sizeof options.uuid);
    return segment_writer_create(spec->io, spec->mem, &options, &job->writer);
}

/* Syncs the open output, which is sealed, and takes it. */
static esker_status
compaction_job_end_output(struct compaction_job *job)
{
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
    output->warm = segment_writer_take_warm(job->writer);
    segment_writer_destroy(job->writer);
    job->writer = NULL;
    output->meta.level = job->spec->output_level;
    output->compression = job->spec->compression;
    result->outputs[result->output_count++] = output;
    result->bytes_written += output->meta.size_bytes;
    return ESKER_OK;
}

/* Moves past the segments below that end before `key`. True at the border of one. */
static bool
compaction_job_pass_below(struct compaction_job *job, struct bytes key)
{
    const struct compaction_spec *spec = job->spec;
    bool passed = false;
    while (job->below_at < spec->below_count) {
        const struct segment_meta *meta = spec->below[job->below_at];
        if (meta->max_key.len == 0 || bytes_compare(meta->max_key, key) >= 0) {
            break;
        }
        job->below_bytes += meta->size_bytes;
        job->below_at++;
        passed = true;
    }
    return passed;
}

/* Does the open output end before this row, the first of its key? Full ones do,
 * half full ones at a border of the level below, and those that overlap much of it. */
static bool
compaction_job_output_ends(struct compaction_job *job, struct bytes key)
{
    uint64_t bytes_max = job->spec->segment_bytes_max;
    bool border = job->spec->below_count > 0 && compaction_job_pass_below(job, key);
    if (job->writer == NULL) {
        return false;
    }
    uint64_t bytes = segment_writer_size_bytes(job->writer);
    return bytes >= bytes_max ||
           (border && (bytes >= bytes_max / 2 || job->below_bytes / COMPACTION_BELOW_FACTOR >= bytes_max));
}

static esker_status
compaction_job_write(struct compaction_job *job, const struct iter *row)
{
    if (job->writer == NULL) {
        TRY(compaction_job_begin_output(job));
        job->below_bytes = 0;
    }
    job->result.rows_out++;
    bool is_delete = job->gc.expired;
    TRY(segment_writer_add(job->writer, row->key, row->lsn, is_delete ? ENTRY_DELETE : (enum entry_op)row->op,
                           is_delete ? bytes_make(NULL, 0) : row->value));
    segment_writer_note_heat(job->writer, (enum iter_heat)row->heat);
    return ESKER_OK;
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
compaction_job_first(struct compaction_job *job)
{
    const struct compaction_spec *spec = job->spec;
    job->stage = COMPACTION_AT_ROWS;
    return spec->lower.len > 0 ? iter_seek(spec->source, spec->lower) : iter_first(spec->source);
}

static uint64_t
compaction_job_written(const struct compaction_job *job)
{
    return job->writer != NULL ? segment_writer_written_bytes(job->writer) : 0;
}

/* Judges rows from the source's position on (I4): until the work is done, some of
 * the output went to the disk, which is as much work, an output is full (OK), or no
 * row is left (END). */
static esker_status
compaction_job_judge_rows(struct compaction_job *job)
{
    const struct compaction_spec *spec = job->spec;
    struct iter *source = spec->source;
    uint64_t work_max = spec->step_work != 0 ? spec->step_work : COMPACTION_STEP_WORK;
    uint64_t work = 0;
    uint64_t written = compaction_job_written(job);
    esker_status status = job->stage == COMPACTION_AT_BEGIN ? compaction_job_first(job) : ESKER_OK;
    while (status == ESKER_OK && work < work_max) {
        if (spec->upper.len > 0 && bytes_compare(source->key, spec->upper) >= 0) {
            return ESKER_END;
        }
        enum compaction_verdict verdict;
        if (job->output_full) {
            verdict = COMPACTION_KEEP; /* judged before the output was ended */
            job->output_full = false;
        } else {
            TRY(compaction_gc_judge(&job->gc, source, &verdict));
            job->result.rows_in++;
            job->result.rows_expired += job->gc.expired;
            if (verdict == COMPACTION_KEEP_NEW_KEY && compaction_job_output_ends(job, source->key)) {
                job->output_full = true; /* I1, I4 */
                return ESKER_OK;
            }
        }
        if (verdict != COMPACTION_DROP) {
            TRY(compaction_job_write(job, source));
        }
        work += COMPACTION_ROW_WORK + source->key.len + source->value.len;
        work = compaction_job_written(job) != written ? work_max : work;
        status = iter_next(source);
    }
    return status;
}

/* I2, I3. */
static void
compaction_job_undo(struct compaction_job *job)
{
    esker_error story = *status_last();
    segment_writer_destroy(job->writer);
    job->writer = NULL;
    for (size_t i = 0; i < job->result.output_count; i++) {
        char name[40];
        segment_file_name(job->result.outputs[i]->meta.id, name);
        IGNORE_STATUS(io_unlink(job->spec->io, name), "no manifest lists it; the next open removes it");
    }
    compaction_result_fini(&job->result, job->spec->mem);
    if (story.status != ESKER_OK) {
        IGNORE_STATUS(status_restore(&story), "the story of what failed first is kept");
    }
}

/* Is the open output to be ended, before a row that does not go into it, or because there are none left? */
static bool
compaction_job_ends(const struct compaction_job *job)
{
    return job->writer != NULL && (job->output_full || job->stage == COMPACTION_AT_END);
}

int
compaction_job_next(const struct compaction_job *job)
{
    if (!compaction_job_ends(job)) {
        return ESKER_STEP_ROWS;
    }
    return segment_writer_is_sealed(job->writer) ? ESKER_STEP_SYNC : ESKER_STEP_END;
}

uint64_t
compaction_job_rows(const struct compaction_job *job)
{
    return job->result.rows_in;
}

static esker_status
compaction_job_advance(struct compaction_job *job)
{
    TRY(compaction_job_check_cancel(job));
    if (compaction_job_ends(job)) { /* the row that did not go into it is still to be written */
        if (segment_writer_is_sealed(job->writer)) {
            return compaction_job_end_output(job);
        }
        esker_status status = segment_writer_seal_step(job->writer);
        return status == ESKER_END ? ESKER_OK : status;
    }
    if (job->stage == COMPACTION_AT_END) {
        job->stage = COMPACTION_AT_DONE;
        return ESKER_END;
    }
    esker_status status = compaction_job_judge_rows(job);
    if (status == ESKER_END) {
        job->stage = COMPACTION_AT_END;
        status = ESKER_OK;
    }
    return status;
}

esker_status
compaction_job_create(const struct compaction_spec *spec, struct compaction_job **out)
{
    struct compaction_job *job = mem_zalloc(spec->mem, sizeof *job);
    if (job == NULL) {
        return FAIL_NO_MEMORY("a merge");
    }
    job->spec = spec;
    compaction_gc_init(&job->gc, spec);
    *out = job;
    return ESKER_OK;
}

esker_status
compaction_job_step(struct compaction_job *job)
{
    ASSERT(job->stage != COMPACTION_AT_DONE && job->stage != COMPACTION_AT_FAILED);
    esker_status status = compaction_job_advance(job);
    if (status < ESKER_OK) {
        job->stage = COMPACTION_AT_FAILED;
        compaction_job_undo(job);
    }
    return status;
}

void
compaction_job_take(struct compaction_job *job, struct compaction_result *out)
{
    ASSERT(job->stage == COMPACTION_AT_DONE);
    *out = job->result;
    job->result = (struct compaction_result){0};
}

void
compaction_job_destroy(struct compaction_job *job)
{
    if (job == NULL) {
        return;
    }
    compaction_job_undo(job); /* nothing is left of a job that was taken */
    compaction_gc_fini(&job->gc);
    mem_free(job->spec->mem, job);
}

esker_status
compaction_run(const struct compaction_spec *spec, struct compaction_result *out)
{
    struct compaction_job *job = NULL;
    TRY(compaction_job_create(spec, &job));
    esker_status status;
    do {
        status = compaction_job_step(job);
    } while (status == ESKER_OK);
    if (status == ESKER_END) {
        compaction_job_take(job, out);
        status = ESKER_OK;
    }
    compaction_job_destroy(job);
    return status;
}
