/* SPDX-License-Identifier: MIT */
/* Reading a file piece by piece, and the lines that every kind of file needs. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/status.h"
#include "tools/inspect.h"
#include "tools/text_escape.h"
#include "tools/tool.h"

enum { INSPECT_CHUNK_BYTES = 256 << 10, INSPECT_KEY_SHOWN = 48 };

int
inspect_open(struct inspect *inspect, const char *path)
{
    struct stat info;
    const char *slash = strrchr(path, '/');
    inspect->path = path;
    inspect->name = slash != NULL ? slash + 1 : path;
    inspect->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (inspect->fd < 0 || fstat(inspect->fd, &info) != 0) {
        tool_say("cannot open %s: %s", path, strerrordesc_np(errno));
        return TOOL_FAILED;
    }
    if (!S_ISREG(info.st_mode)) {
        tool_say("%s is not a regular file", path);
        return TOOL_FAILED;
    }
    inspect->size = (uint64_t)info.st_size;
    buf_init(&inspect->window, &mem_default);
    return TOOL_OK;
}

void
inspect_close(struct inspect *inspect)
{
    buf_fini(&inspect->window);
    if (inspect->fd >= 0) {
        (void)close(inspect->fd);
    }
}

/* Reads [offset, offset + len), which lies in the file, and a chunk beyond. */
static esker_status
inspect_fill(struct inspect *inspect, uint64_t offset, uint64_t len)
{
    uint64_t left = inspect->size - offset;
    uint64_t want = MIN(MAX(len, (uint64_t)INSPECT_CHUNK_BYTES), left);
    buf_clear(&inspect->window);
    TRY(buf_reserve(&inspect->window, (size_t)want));
    inspect->window_at = offset;
    while (inspect->window.len < want) {
        ssize_t done = pread(inspect->fd, inspect->window.ptr + inspect->window.len,
                             (size_t)want - inspect->window.len, (off_t)(offset + inspect->window.len));
        if (done < 0 && errno != EINTR) {
            return FAIL_OS(errno, inspect->name, offset, "cannot read the file");
        }
        if (done == 0) {
            return FAIL_AT(ESKER_CORRUPT, inspect->name, offset + inspect->window.len,
                           "the file became shorter");
        }
        inspect->window.len += done > 0 ? (size_t)done : 0;
    }
    return ESKER_OK;
}

esker_status
inspect_view(struct inspect *inspect, uint64_t offset, uint64_t len, struct bytes *out)
{
    if (offset > inspect->size || len > inspect->size - offset) {
        return FAIL_AT(ESKER_CORRUPT, inspect->name, MIN(offset, inspect->size),
                       "%llu bytes were expected and the file ends", (unsigned long long)len);
    }
    uint64_t window_end = inspect->window_at + inspect->window.len;
    if (offset < inspect->window_at || offset + len > window_end) {
        TRY(inspect_fill(inspect, offset, len));
    }
    *out = bytes_make(inspect->window.ptr + (offset - inspect->window_at), (size_t)len);
    return ESKER_OK;
}

enum inspect_kind
inspect_kind_of(struct inspect *inspect)
{
    static const struct {
        const char *magic, *begins, *ends;
        enum inspect_kind kind;
    } kinds[] = {{"ESKERCUR", "CURRENT", "", INSPECT_CURRENT},
                 {"ESKERMAN", "manifest-", "", INSPECT_MANIFEST},
                 {"ESKERLOG", "log-", "", INSPECT_LOG},
                 {"ESKERSEG", "", ".seg", INSPECT_SEGMENT}};
    struct bytes head = {0};
    size_t len = strlen(inspect->name);
    if (inspect->size >= 8 && inspect_view(inspect, 0, 8, &head) != ESKER_OK) {
        head.len = 0;
    }
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        if (head.len == 8 && memcmp(head.ptr, kinds[i].magic, 8) == 0) {
            return kinds[i].kind;
        }
    }
    for (size_t i = 0; i < COUNTOF(kinds); i++) {
        size_t ends_len = strlen(kinds[i].ends);
        if (len > ends_len && strncmp(inspect->name, kinds[i].begins, strlen(kinds[i].begins)) == 0 &&
            strcmp(inspect->name + len - ends_len, kinds[i].ends) == 0) {
            return kinds[i].kind;
        }
    }
    return INSPECT_FOREIGN;
}

/* ---- Lines ----------------------------------------------------------------- */

void
inspect_line(struct inspect *inspect, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_out_print(&inspect->out, "%s\n", line);
}

void
inspect_damage(struct inspect *inspect, uint64_t offset, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    inspect->damages++;
    inspect_line(inspect, "DAMAGED at byte %llu: %s", (unsigned long long)offset, text);
}

bool
inspect_story(struct inspect *inspect)
{
    const esker_error *error = status_last();
    if (error->status != ESKER_CORRUPT && error->status != ESKER_UNSUPPORTED) {
        return false;
    }
    inspect_damage(inspect, error->offset, "%s", error->message);
    return true;
}

const char *
inspect_key(struct bytes key, char out[INSPECT_KEY_TEXT])
{
    struct bytes shown = bytes_make(key.ptr, MIN(key.len, (size_t)INSPECT_KEY_SHOWN));
    struct buf text;
    buf_init(&text, &mem_default);
    if (text_tsv_escape(&text, shown) != ESKER_OK) {
        text.len = 0;
    }
    int used = snprintf(out, INSPECT_KEY_TEXT, "\"%.*s\"", (int)text.len, (const char *)text.ptr);
    if (key.len > shown.len && used > 0 && used < INSPECT_KEY_TEXT) {
        (void)snprintf(out + used, (size_t)(INSPECT_KEY_TEXT - used), "... (%zu bytes)", key.len);
    }
    buf_fini(&text);
    return out;
}

const char *
inspect_uuid(const uint8_t uuid[16], char out[INSPECT_UUID_TEXT])
{
    for (int i = 0; i < 16; i++) {
        (void)snprintf(out + (size_t)i * 2, 3, "%02x", uuid[i]);
    }
    return out;
}
