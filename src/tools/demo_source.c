/* SPDX-License-Identifier: MIT */
/*
 * Real records that every Debian machine has: the package indexes that apt
 * keeps, or else the list of installed packages. Compressed ones are read
 * through apt's own helper, started without a shell.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/demo.h"
#include "tools/load_reader.h"
#include "tools/tool.h"

#define SOURCE_APT_LISTS "/var/lib/apt/lists"
#define SOURCE_DPKG_STATUS "/var/lib/dpkg/status"
#define SOURCE_APT_HELPER "/usr/lib/apt/apt-helper"

/* Enough for a report in seconds, also where many archives are configured. */
enum { SOURCE_RECORDS_MAX = 200000, SOURCE_BYTES_MAX = 160 << 20 };

struct source {
    struct demo_records_builder builder;
    uint64_t files;
    bool full;
};

/* Every stanza up to the end or the bounds. */
static esker_status
source_read_stanzas(struct source *source, const char *name, int fd)
{
    struct load_reader reader;
    const struct load_record *record = NULL;
    load_reader_init(&reader, LOAD_DEB822, name, load_read_fd, &fd);
    esker_status status = load_reader_next(&reader, &record);
    while (status == ESKER_OK && !source->full) {
        status = demo_builder_add(&source->builder, buf_bytes(&record->key), buf_bytes(&record->value));
        source->full = source->builder.data.len >= SOURCE_BYTES_MAX ||
                       source->builder.offsets.len / sizeof(uint64_t) >= SOURCE_RECORDS_MAX;
        if (status == ESKER_OK) {
            status = load_reader_next(&reader, &record);
        }
    }
    load_reader_fini(&reader);
    return status == ESKER_END ? ESKER_OK : status;
}

/* "apt-helper cat-file PATH" with its output in a pipe. Returns 0 or an errno. */
static int
source_spawn_helper(const char *path, pid_t *pid_out, int *fd_out)
{
    int ends[2];
    char *const argv[] = {(char *)(uintptr_t)SOURCE_APT_HELPER, (char *)(uintptr_t) "cat-file",
                          (char *)(uintptr_t)path, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t defaults;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return errno;
    }
    (void)posix_spawn_file_actions_init(&actions);
    (void)posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    (void)posix_spawnattr_init(&attributes);
    (void)sigemptyset(&defaults);
    (void)sigaddset(&defaults, SIGPIPE);
    (void)posix_spawnattr_setsigdefault(&attributes, &defaults);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    int failed = posix_spawn(pid_out, argv[0], &actions, &attributes, argv, environ);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)close(ends[1]);
    if (failed != 0) {
        (void)close(ends[0]);
        return failed;
    }
    *fd_out = ends[0];
    return 0;
}

static esker_status
source_read_compressed(struct source *source, const char *name, const char *path)
{
    pid_t pid = 0;
    int fd = -1;
    int failed = source_spawn_helper(path, &pid, &fd);
    if (failed != 0) {
        return FAIL_OS(failed, name, 0, "cannot start " SOURCE_APT_HELPER);
    }
    esker_status status = source_read_stanzas(source, name, fd);
    bool whole = status == ESKER_OK && !source->full;
    int ended = 0;
    (void)close(fd);
    while (waitpid(pid, &ended, 0) < 0 && errno == EINTR) {
    }
    if (whole && (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0)) {
        return FAIL_AT(ESKER_IO, name, 0, SOURCE_APT_HELPER " could not read the file");
    }
    return status;
}

static esker_status
source_read_file(struct source *source, const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    size_t len = strlen(name);
    bool plain = (len >= 9 && strcmp(name + len - 9, "_Packages") == 0) || strcmp(name, "status") == 0;
    if (!plain) {
        return source_read_compressed(source, name, path);
    }
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return FAIL_OS(errno, name, 0, "cannot open %s", path);
    }
    esker_status status = source_read_stanzas(source, name, fd);
    (void)close(fd);
    return status;
}

static int
source_is_index(const struct dirent *entry)
{
    static const char *const endings[] = {"_Packages",    "_Packages.lz4", "_Packages.gz",
                                          "_Packages.xz", "_Packages.zst", "_Packages.bz2"};
    size_t len = strlen(entry->d_name);
    for (size_t i = 0; i < COUNTOF(endings); i++) {
        size_t ending_len = strlen(endings[i]);
        if (len > ending_len && strcmp(entry->d_name + len - ending_len, endings[i]) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Sorted by name, so that every run sees the same records in the same order. */
static void
source_read_lists(struct source *source)
{
    struct dirent **entries = NULL;
    int count = scandir(SOURCE_APT_LISTS, &entries, source_is_index, alphasort);
    for (int i = 0; i < count; i++) {
        char path[sizeof SOURCE_APT_LISTS + sizeof entries[i]->d_name];
        (void)snprintf(path, sizeof path, SOURCE_APT_LISTS "/%s", entries[i]->d_name);
        if (!source->full) {
            if (source_read_file(source, path) == ESKER_OK) {
                source->files++;
            } else {
                tool_say_error(status_last()); /* and on with the next */
            }
        }
        free(entries[i]);
    }
    free(entries);
}

int
demo_source_read(struct demo_records *out, char *told, size_t told_size)
{
    struct source source = {.files = 0};
    int code = TOOL_OK;
    demo_builder_init(&source.builder);
    source_read_lists(&source);
    (void)snprintf(told, told_size, "%llu package index%s in " SOURCE_APT_LISTS,
                   (unsigned long long)source.files, source.files == 1 ? "" : "es");
    if (source.builder.offsets.len == 0) {
        (void)snprintf(told, told_size, SOURCE_DPKG_STATUS " (apt keeps no package index here)");
        code = source_read_file(&source, SOURCE_DPKG_STATUS) == ESKER_OK ? TOOL_OK : tool_fail();
    }
    if (code == TOOL_OK && source.builder.offsets.len == 0) {
        tool_say("there is no package in " SOURCE_APT_LISTS " nor in " SOURCE_DPKG_STATUS);
        code = TOOL_FAILED;
    }
    if (code == TOOL_OK && demo_records_create(&source.builder, out) != ESKER_OK) {
        code = tool_fail();
    }
    demo_builder_fini(&source.builder);
    return code;
}
