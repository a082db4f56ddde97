/* SPDX-License-Identifier: MIT */
/*
 * Reads a JSON text of any origin and calls a visitor for each scalar and for
 * each end of an object, with the place as a path: object keys and, for each
 * array, a star: "cells/ * /series/ * /rate" without the blanks. No recursion;
 * nesting, paths and strings are bounded, and what is longer is refused
 * (strings: cut), so that no input can hurt.
 */
#ifndef ESKER_TOOLS_BENCH_JSON_H
#define ESKER_TOOLS_BENCH_JSON_H

#include <stdbool.h>
#include <stddef.h>

enum { BENCH_JSON_STRING_MAX = 512 };

struct bench_json_value {
    enum { BENCH_JSON_STRING, BENCH_JSON_NUMBER, BENCH_JSON_WORD, BENCH_JSON_OBJECT_END } kind;

    const char *text; /* of a string, unescaped; of a word: true, false, null */
    double number;
};

/* Returns false to stop. */
typedef bool bench_json_visitor(void *ctx, const char *path, const struct bench_json_value *value);

/* Returns true when the whole text is one JSON value and the visitor wanted all of it. */
bool bench_json_read(const char *text, size_t len, bench_json_visitor *visitor, void *ctx);

#endif
