/* SPDX-License-Identifier: MIT */
#include "base/assert.h"

#include <stdio.h>
#include <stdlib.h>

NOINLINE _Noreturn void
assert_failed(const char *file, int line, const char *text)
{
    fprintf(stderr, "esker: %s:%d: broken invariant: %s\n", file, line, text);
    abort();
}
