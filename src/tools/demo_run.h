/* SPDX-License-Identifier: MIT */
/* What the two halves of the demo's main process share: before and after the reopening. */
#ifndef ESKER_TOOLS_DEMO_RUN_H
#define ESKER_TOOLS_DEMO_RUN_H

#include "tools/demo.h"
#include "tools/tool.h"

struct demo_run {
    struct tool *tool;
    const char *dir; /* the database */
    struct demo_records records;
    esker_options options;
    esker_db *db;      /* NULL: closed */
    uint64_t acked;    /* records that the child had acknowledged when it died */
    uint64_t survived; /* records found after the reopening */
    struct demo_readers readers;
    struct histogram puts, gets;
};

/* demo_kill.c: the child's life. */
NODISCARD esker_status demo_kill_child(struct demo_run *run);
/* demo_prove.c: reopen and look for every record. */
NODISCARD esker_status demo_prove_recovery(struct demo_run *run);
/* demo_finish.c: the rest of the load, then everything once more at rest. */
NODISCARD esker_status demo_load_rest(struct demo_run *run);
NODISCARD esker_status demo_settle(struct demo_run *run);

/* One line of the report: a name, padded, and what there is to say. */
void demo_report(const char *name, const char *format, ...) PRINTF_LIKE(2, 3);
void demo_report_heading(const char *text);
void demo_report_latency(const char *name, const struct histogram *histogram, uint64_t elapsed_ns);

#endif
