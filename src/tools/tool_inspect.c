/* SPDX-License-Identifier: MIT */
/* inspect: one file, or a listing of a directory. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/inspect.h"
#include "tools/tool.h"

int
inspect_file(struct inspect *inspect, const char *path)
{
    bool done = true;
    int code = inspect_open(inspect, path);
    if (code == TOOL_OK) {
        switch (inspect_kind_of(inspect)) {
        case INSPECT_CURRENT:
            done = inspect_current(inspect);
            break;
        case INSPECT_MANIFEST:
            done = inspect_manifest(inspect);
            break;
        case INSPECT_LOG:
            done = inspect_log(inspect);
            break;
        case INSPECT_SEGMENT:
            done = inspect_segment(inspect);
            break;
        default:
            if (strcmp(inspect->name, "LOCK") == 0 && inspect->size == 0) {
                inspect_line(inspect, "the lock file: empty, as it should be");
                break;
            }
            tool_say("%s is no file of esker's, by its first bytes or its name", path);
            code = TOOL_FAILED;
        }
    }
    if (!done) {
        (void)tool_fail();
        code = TOOL_FAILED;
    }
    inspect_close(inspect);
    return inspect->damages > 0 ? TOOL_FAILED : code;
}

/* ---- A directory ----------------------------------------------------------- */

static const char *
inspect_kind_name(enum inspect_kind kind)
{
    static const char *const names[] = {"not esker's", "CURRENT", "manifest", "log", "segment"};
    return names[kind];
}

static void
inspect_summary(struct inspect *inspect, enum inspect_kind kind, char *out, size_t size)
{
    switch (kind) {
    case INSPECT_CURRENT:
    case INSPECT_MANIFEST:
        inspect_head_summary(inspect, kind == INSPECT_CURRENT, out, size);
        break;
    case INSPECT_LOG:
        inspect_log_summary(inspect, out, size);
        break;
    case INSPECT_SEGMENT:
        inspect_segment_summary(inspect, out, size);
        break;
    default:
        break;
    }
}

static void
inspect_list_entry(struct inspect *listing, const char *dir, const char *name)
{
    struct inspect one = {.fd = -1};
    struct stat info;
    char path[4096];
    char summary[128] = "";
    int used = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (used < 0 || (size_t)used >= sizeof path || lstat(path, &info) != 0) {
        return;
    }
    enum inspect_kind kind = INSPECT_FOREIGN;
    bool lock = strcmp(name, "LOCK") == 0;
    if (S_ISREG(info.st_mode) && !lock && inspect_open(&one, path) == TOOL_OK) {
        kind = inspect_kind_of(&one);
        inspect_summary(&one, kind, summary, sizeof summary);
        inspect_close(&one);
    }
    inspect_line(listing, "%-24s %12llu bytes %12llu on disk  %-12s%s%s", name,
                 (unsigned long long)info.st_size, (unsigned long long)info.st_blocks * 512,
                 lock ? "lock" : inspect_kind_name(kind), summary[0] != 0 ? " " : "", summary);
}

static int
inspect_visible(const struct dirent *entry)
{
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

static int
inspect_directory(struct inspect *listing, const char *dir)
{
    struct dirent **entries = NULL;
    int count = scandir(dir, &entries, inspect_visible, alphasort);
    if (count < 0) {
        tool_say("cannot list %s", dir);
        return TOOL_FAILED;
    }
    for (int i = 0; i < count; i++) {
        inspect_list_entry(listing, dir, entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    return TOOL_OK;
}

int
tool_inspect(struct tool *tool)
{
    struct tool_flag flags[] = {{.name = "--rows"}};
    struct inspect inspect = {.fd = -1};
    struct stat info;
    int code = tool_parse(tool, flags, COUNTOF(flags), 1, 1);
    if (code != TOOL_OK) {
        return code;
    }
    text_out_init(&inspect.out, STDOUT_FILENO);
    inspect.rows = flags[0].given;
    if (stat(tool->words[0], &info) == 0 && S_ISDIR(info.st_mode)) {
        code = inspect_directory(&inspect, tool->words[0]);
    } else {
        code = inspect_file(&inspect, tool->words[0]);
    }
    return text_out_finish(&inspect.out, code);
}
