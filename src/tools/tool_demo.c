/* SPDX-License-Identifier: MIT */
/* demo: the directory, the four parts in order, the verdict. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/demo_run.h"
#include "tools/text_units.h"

static int
demo_make_dir(const char *wanted, char *made, size_t size)
{
    const char *parent = getenv("TMPDIR");
    if (wanted != NULL) {
        /* Made here, or empty: what the demo removes at the end is its own. */
        bool there = mkdir(wanted, 0700) != 0;
        if (there && (errno != EEXIST || rmdir(wanted) != 0 || mkdir(wanted, 0700) != 0)) {
            tool_say("%s cannot be used: %s", wanted, strerrordesc_np(errno));
            return TOOL_FAILED;
        }
        (void)snprintf(made, size, "%s", wanted);
        return strlen(wanted) < size ? TOOL_OK : TOOL_USAGE;
    }
    /* Not /tmp, which is memory on many machines. */
    (void)snprintf(made, size, "%s/esker-demo-XXXXXX", parent != NULL && *parent != 0 ? parent : "/var/tmp");
    if (mkdtemp(made) == NULL) {
        tool_say("cannot create %s: %s", made, strerrordesc_np(errno));
        return TOOL_FAILED;
    }
    return TOOL_OK;
}

static esker_status
demo_parts(struct demo_run *run)
{
    demo_report_heading(
        "1. A child process loads in batches, 3 readers check beside it; it is killed in the middle");
    TRY(demo_kill_child(run));
    demo_report_heading("2. This process opens what is left");
    TRY(demo_prove_recovery(run));
    demo_report_heading("3. It loads the rest put by put, 3 readers beside it");
    TRY(demo_load_rest(run));
    demo_report_heading("4. At rest");
    return demo_settle(run);
}

static int
demo_run_in(struct demo_run *run, const char *told)
{
    char count[TEXT_UNIT_BYTES];
    char size[TEXT_UNIT_BYTES];
    char time[TEXT_UNIT_BYTES];
    uint64_t started = tool_now_ns();
    (void)printf("esker %s demo\n\n", ESKER_VERSION_STRING);
    demo_report("records", "%s, %s, from %s", text_count(run->records.count, count),
                text_bytes(run->records.bytes, size), told);
    demo_report("database", "%s", run->dir);
    if (demo_parts(run) != ESKER_OK) {
        (void)tool_fail();
        return TOOL_FAILED;
    }
    (void)printf("\nAll checks held, 0 lost (%s).\n", text_duration(tool_now_ns() - started, time));
    (void)fflush(stdout);
    return TOOL_OK;
}

static void
demo_clean_up(struct demo_run *run, bool keep)
{
    if (run->db != NULL) {
        IGNORE_STATUS(esker_close(run->db), "the demo has failed already and said why");
    }
    if (keep) {
        demo_report("kept", "%s", run->dir);
    } else if (esker_destroy(run->dir) < 0) {
        (void)tool_fail();
    }
    if (!keep) {
        (void)rmdir(run->dir); /* when it never became a database */
    }
}

int
tool_demo(struct tool *tool)
{
    static struct demo_run run; /* large; the process has one */

    enum { DIR, KEEP };
    struct tool_flag flags[] = {[DIR] = {.name = "--dir", .takes_value = true}, [KEEP] = {.name = "--keep"}};
    char dir[4096];
    char told[256];
    int code = tool_parse(tool, flags, COUNTOF(flags), 0, 0);
    run.tool = tool;
    esker_options_init(&run.options);
    if (code == TOOL_OK) {
        code = tool_options(tool, &run.options);
    }
    if (code == TOOL_OK) {
        code = demo_source_read(&run.records, told, sizeof told);
    }
    if (code == TOOL_OK) {
        code = demo_make_dir(flags[DIR].value, dir, sizeof dir);
    }
    if (code == TOOL_OK) {
        run.dir = dir;
        code = demo_run_in(&run, told);
        demo_clean_up(&run, flags[KEEP].given);
    }
    demo_records_fini(&run.records);
    return code;
}
