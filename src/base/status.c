/* SPDX-License-Identifier: MIT */
#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local esker_error last_error;

const char *
esker_status_name(esker_status status)
{
    switch (status) {
#define STATUS_NAME(name, number, sentence)                                                                  \
    case ESKER_##name:                                                                                       \
        return #name;
        ESKER_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
    }
    return "UNKNOWN";
}

static const char *
status_sentence(esker_status status)
{
    switch (status) {
#define STATUS_SENTENCE(name, number, sentence)                                                              \
    case ESKER_##name:                                                                                       \
        return sentence;
        ESKER_STATUS_LIST(STATUS_SENTENCE)
#undef STATUS_SENTENCE
    }
    return "unknown status";
}

esker_status
status_from_errno(int os_errno)
{
    switch (os_errno) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ESKER_NO_SPACE;
    case ENOMEM:
        return ESKER_NO_MEMORY;
    default:
        return ESKER_IO;
    }
}

esker_status
status_fail(esker_status status, int os_errno, const char *file, uint64_t offset, const char *format, ...)
{
    esker_error *error = &last_error;
    memset(error, 0, sizeof *error);
    error->struct_size = sizeof *error;
    error->status = status;
    error->os_errno = os_errno;
    error->offset = offset;
    if (file != NULL) {
        snprintf(error->file, sizeof error->file, "%s", file);
    }
    va_list args;
    va_start(args, format);
    int used = vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    size_t at = used < 0 ? 0 : MIN((size_t)used, sizeof error->message - 1);
    if (at == 0) {
        snprintf(error->message, sizeof error->message, "%s", status_sentence(status));
    } else if (os_errno != 0) {
        char text[96];
        const char *reason = strerror_r(os_errno, text, sizeof text);
        snprintf(error->message + at, sizeof error->message - at, ": %s", reason);
    }
    return status;
}

const esker_error *
status_last(void)
{
    return &last_error;
}

bool
status_lacks_files(const esker_error *error)
{
    return error->status == ESKER_IO && (error->os_errno == EMFILE || error->os_errno == ENFILE);
}

esker_status
status_restore(const esker_error *error)
{
    last_error = *error;
    last_error.struct_size = sizeof last_error;
    return error->status;
}

esker_status
status_because(esker_status status, const char *words, const esker_error *cause)
{
    esker_error error = *cause;
    error.status = status;
    snprintf(error.message, sizeof error.message, "%s: %.120s", words, cause->message);
    return status_restore(&error);
}

void
esker_error_init_sized(void *error, size_t size)
{
    if (error == NULL || size < sizeof(size_t)) {
        return;
    }
    memset(error, 0, size);
    memcpy(error, &size, sizeof size);
}

void
esker_last_error(esker_error *out)
{
    if (out == NULL) {
        return;
    }
    size_t size = out->struct_size;
    if (size < sizeof(size_t)) {
        return;
    }
    memcpy(out, &last_error, MIN(size, sizeof last_error));
    out->struct_size = size;
}
