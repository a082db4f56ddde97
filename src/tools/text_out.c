/* SPDX-License-Identifier: MIT */
#include "tools/text_out.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include "tools/tool.h"

enum { OUT_BUFFER_BYTES = 256 << 10 };

void
text_out_init(struct text_out *out, int fd)
{
    *out = (struct text_out){.fd = fd};
    buf_init(&out->buf, &mem_default);
}

void
text_out_note(struct text_out *out, esker_status status)
{
    out->no_memory = out->no_memory || status != ESKER_OK;
}

bool
text_out_alive(const struct text_out *out)
{
    return out->os_errno == 0 && !out->no_memory;
}

static void
out_write(struct text_out *out, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (at < len && out->os_errno == 0) {
        ssize_t done = write(out->fd, data + at, len - at);
        if (done > 0) {
            at += (size_t)done;
        } else if (done < 0 && errno != EINTR) {
            out->os_errno = errno;
        }
    }
}

static void
out_flush(struct text_out *out)
{
    out_write(out, out->buf.ptr, out->buf.len);
    buf_clear(&out->buf);
}

void
text_out_drain(struct text_out *out)
{
    if (out->buf.len >= OUT_BUFFER_BYTES) {
        out_flush(out);
    }
}

void
text_out_bytes(struct text_out *out, const void *data, size_t len)
{
    if (len >= OUT_BUFFER_BYTES) {
        out_flush(out);
        out_write(out, data, len);
        return;
    }
    text_out_note(out, buf_append(&out->buf, data, len));
    text_out_drain(out);
}

void
text_out_print(struct text_out *out, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    text_out_bytes(out, line, len < 0 ? 0 : MIN((size_t)len, sizeof line - 1));
}

int
text_out_finish(struct text_out *out, int code)
{
    out_flush(out);
    buf_fini(&out->buf);
    if (out->no_memory) {
        tool_say("out of memory");
        return code == TOOL_OK ? TOOL_FAILED : code;
    }
    if (out->os_errno != 0 && out->os_errno != EPIPE) {
        tool_say("cannot write the output: %s", strerrordesc_np(out->os_errno));
        return code == TOOL_OK ? TOOL_FAILED : code;
    }
    return code;
}
