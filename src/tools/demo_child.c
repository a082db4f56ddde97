/* SPDX-License-Identifier: MIT */
/*
 * The process that is going to be killed: loads records in batches, with
 * readers beside it, and writes into a pipe, after each acknowledged batch, how
 * many records are in. It never gets to the end: past nine tenths it waits.
 */
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/demo.h"
#include "tools/tool.h"

/* False: the parent is gone. */
static bool
child_tell(uint64_t acked)
{
    ssize_t done;
    do {
        done = write(DEMO_ACK_FD, &acked, sizeof acked);
    } while (done < 0 && errno == EINTR);
    return done == (ssize_t)sizeof acked;
}

static esker_status
child_write_batch(struct demo_readers *readers, esker_batch *batch, uint64_t from, uint64_t to)
{
    esker_batch_clear(batch);
    for (uint64_t record = from; record < to; record++) {
        TRY(esker_batch_put(batch, bytes_to_slice(demo_record_key(readers->records, record)),
                            bytes_to_slice(demo_record_value(readers->records, record))));
    }
    store_release(&readers->begun, to); /* pairs: DEMO_BEGUN */
    TRY(esker_write(readers->db, batch, NULL, NULL));
    store_release(&readers->acked, to); /* pairs: DEMO_ACKED */
    return ESKER_OK;
}

static esker_status
child_load(struct demo_readers *readers, esker_batch *batch)
{
    uint64_t count = readers->records->count;
    uint64_t most = MAX(count - count / 10, (uint64_t)1);
    for (uint64_t from = 0; from < most;) {
        uint64_t left = count - from;
        uint64_t to = from + MIN(readers->batch_records, left);
        TRY(child_write_batch(readers, batch, from, to));
        if (load_acquire(&readers->failed)) { /* pairs: DEMO_FAILED */
            return ESKER_OK;                  /* told by demo_readers_stop */
        }
        if (!child_tell(to)) {
            return FAIL(ESKER_IO, "nobody reads the child's pipe");
        }
        from = to;
    }
    while (!load_acquire(&readers->failed)) { /* pairs: DEMO_FAILED */
        (void)usleep(1000);
    }
    return ESKER_OK;
}

static esker_status
child_run(struct demo_readers *readers)
{
    esker_batch *batch = NULL;
    TRY(esker_batch_create(&batch));
    esker_status status = demo_readers_start(readers);
    if (status == ESKER_OK) {
        status = child_load(readers, batch);
    }
    esker_error story = *status_last();
    esker_status readers_status = demo_readers_stop(readers);
    esker_batch_destroy(batch);
    return readers_status != ESKER_OK || status == ESKER_OK ? readers_status : status_restore(&story);
}

/* argv[1] is the directory; records and pipe come as descriptors. */
int
tool_demo_child(struct tool *tool)
{
    static struct demo_readers readers; /* large; the process has one */
    struct demo_records records = {.fd = -1};
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the parent goes first */
    int code = tool_parse(tool, NULL, 0, 1, 1);
    if (code == TOOL_OK && demo_records_attach(DEMO_RECORDS_FD, &records) != ESKER_OK) {
        code = tool_fail();
    }
    if (code == TOOL_OK) {
        code = tool_open(tool, true, &readers.db);
    }
    if (code == TOOL_OK) {
        readers.records = &records;
        readers.batch_records = demo_batch_records(&records);
        readers.batched_until = records.count;
        code = child_run(&readers) == ESKER_OK ? TOOL_OK : tool_fail();
        code = tool_close(readers.db, code);
    }
    demo_records_fini(&records);
    (void)child_tell(DEMO_CHILD_FAILED);
    return code == TOOL_OK ? TOOL_FAILED : code; /* it was to be killed, not to end */
}
