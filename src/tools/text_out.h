/* SPDX-License-Identifier: MIT */
/*
 * Standard output with a large buffer. Writers append to `buf` and call
 * text_out_drain after each line. The first failure sticks: later drains drop
 * what they get, and text_out_alive tells a long loop to stop. A reader that
 * went away (EPIPE: `esker scan DB | head`) is a quiet end, not a failure.
 */
#ifndef ESKER_TOOLS_TEXT_OUT_H
#define ESKER_TOOLS_TEXT_OUT_H

#include <stdbool.h>

#include "base/buf.h"

struct text_out {
    struct buf buf;
    int fd;
    int os_errno;   /* of the first failed write; 0 = none */
    bool no_memory; /* a line was lost for want of memory */
};

void text_out_init(struct text_out *out, int fd);
/* Remembers that a line could not be built. */
void text_out_note(struct text_out *out, esker_status status);
void text_out_print(struct text_out *out, const char *format, ...) PRINTF_LIKE(2, 3);
/* Large buffers straight to the descriptor. */
void text_out_bytes(struct text_out *out, const void *data, size_t len);
void text_out_drain(struct text_out *out);
bool text_out_alive(const struct text_out *out);
/* Writes what is left, frees, and says what went wrong, if anything did.
 * Returns `code`, or TOOL_FAILED instead of TOOL_OK. */
int text_out_finish(struct text_out *out, int code);

#endif
