/* SPDX-License-Identifier: MIT */
/* The sentences of a repair. */
#include <stdarg.h>
#include <stdio.h>

#include "db/db_repair.h"

void
repair_say(struct repair *repair, const char *format, ...)
{
    char text[REPAIR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (repair->say != NULL) {
        repair->say(repair->say_ctx, text);
    }
}
