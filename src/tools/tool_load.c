/* SPDX-License-Identifier: MIT */
/* load: records from text, in batches. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/progress.h"
#include "tools/tool.h"

/* A batch is as large as this at most, unless one record alone is larger. */
enum { LOAD_BATCH_RECORDS = 1000, LOAD_BATCH_BYTES = 1 << 20 };

struct load_run {
    esker_db *db;
    esker_batch *batch;
    struct load_reader reader;
    struct progress progress;
    uint64_t records_written; /* acknowledged */
};

static esker_status
load_flush(struct load_run *run)
{
    size_t count = esker_batch_count(run->batch);
    if (count > 0) {
        TRY(esker_write(run->db, run->batch, NULL, NULL));
        run->records_written += count;
        esker_batch_clear(run->batch);
        progress_step(&run->progress, run->records_written, run->reader.offset);
    }
    return ESKER_OK;
}

static esker_status
load_add(struct load_run *run, const struct load_record *record)
{
    esker_slice key = esker_bytes(record->key.ptr, record->key.len);
    esker_slice value = esker_bytes(record->value.ptr, record->value.len);
    if (esker_batch_size_bytes(run->batch) + key.size + value.size > LOAD_BATCH_BYTES) {
        TRY(load_flush(run));
    }
    TRY(record->expires_ms == 0 ? esker_batch_put(run->batch, key, value)
                                : esker_batch_put_until(run->batch, key, value, record->expires_ms));
    return esker_batch_count(run->batch) >= LOAD_BATCH_RECORDS ? load_flush(run) : ESKER_OK;
}

/* What comes before a bad record is loaded, and the message says how many. */
static int
load_stopped(struct load_run *run)
{
    esker_error story = *status_last();
    if (story.status == ESKER_INVALID && load_flush(run) != ESKER_OK) {
        return tool_fail();
    }
    char message[sizeof story.message];
    memcpy(message, story.message, sizeof message);
    IGNORE_STATUS(FAIL_AT(story.status, story.file, story.offset, "%.150s; %llu records before it are loaded",
                          message, (unsigned long long)run->records_written),
                  "told below");
    (void)tool_fail();
    return TOOL_FAILED;
}

static int
load_records(struct load_run *run)
{
    for (;;) {
        const struct load_record *record = NULL;
        esker_status status = load_reader_next(&run->reader, &record);
        if (status == ESKER_END) {
            return load_flush(run) == ESKER_OK ? TOOL_OK : tool_fail();
        }
        if (status != ESKER_OK) {
            return load_stopped(run);
        }
        if (load_add(run, record) != ESKER_OK) {
            return tool_fail();
        }
    }
}

static int
load_into(const struct tool *tool, enum load_format format, const char *name, int fd)
{
    struct load_run run = {0};
    struct stat info;
    int code = tool_open(tool, true, &run.db);
    if (code != TOOL_OK) {
        return code;
    }
    load_reader_init(&run.reader, format, name, load_read_fd, &fd);
    bool sized = fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
    progress_begin(&run.progress, sized ? (uint64_t)info.st_size : 0);
    code = esker_batch_create(&run.batch) == ESKER_OK ? load_records(&run) : tool_fail();
    if (code == TOOL_OK) {
        progress_end(&run.progress, "loaded", run.records_written, run.reader.offset);
    }
    esker_batch_destroy(run.batch);
    load_reader_fini(&run.reader);
    return tool_close(run.db, code);
}

int
tool_load(struct tool *tool)
{
    struct tool_flag flags[] = {{.name = "--format", .takes_value = true}};
    int code = tool_parse(tool, flags, COUNTOF(flags), 1, 2);
    if (code != TOOL_OK) {
        return code;
    }
    const char *path = tool->word_count == 2 ? tool->words[1] : "-";
    enum load_format format = load_format_guess(path);
    if (flags[0].given && !load_format_parse(flags[0].value, &format)) {
        return tool_usage(tool, "--format %s is none of tsv, jsonl, deb822", flags[0].value);
    }
    if (strcmp(path, "-") == 0) {
        return load_into(tool, format, "standard input", STDIN_FILENO);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        tool_say("cannot read %s: %s", path, strerrordesc_np(errno));
        return TOOL_FAILED;
    }
    const char *slash = strrchr(path, '/');
    code = load_into(tool, format, slash != NULL ? slash + 1 : path, fd);
    (void)close(fd);
    return code;
}
