/* rooms: tools */
/* SPDX-License-Identifier: MIT */
/*
 * The reader of benchmark results. Oracles: paths and strings keep their
 * bounds; the same text is read the same way twice, also with blanks around it;
 * a visitor that stops makes the whole text refused.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "tools/bench_json.h"

struct note {
    uint64_t digest;
    uint64_t visits, visits_max;
};

static bool
note_visit(void *ctx, const char *path, const struct bench_json_value *value)
{
    struct note *note = ctx;
    size_t len = strlen(path);
    ASSERT(len < 256);
    note->digest = hash64(path, len, note->digest + (uint64_t)value->kind);
    if (value->kind == BENCH_JSON_STRING) {
        size_t text_len = strlen(value->text);
        ASSERT(text_len < BENCH_JSON_STRING_MAX);
        note->digest = hash64(value->text, text_len, note->digest);
    } else if (value->kind == BENCH_JSON_NUMBER) {
        note->digest = hash64(&value->number, sizeof value->number, note->digest);
    }
    note->visits++;
    return note->visits < note->visits_max;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 2);
    if (text == NULL) {
        return 0;
    }
    struct note note = {.visits_max = UINT64_MAX}, again = {.visits_max = UINT64_MAX};
    memcpy(text, data, size);
    bool good = bench_json_read(text, size, note_visit, &note);
    ASSERT(note.visits <= size);
    text[0] = ' ';
    memcpy(text + 1, data, size);
    text[size + 1] = '\n';
    ASSERT(bench_json_read(text, size + 2, note_visit, &again) == good);
    ASSERT(again.digest == note.digest && again.visits == note.visits);
    if (note.visits > 0) {
        struct note stopped = {.visits_max = note.visits};
        ASSERT(!bench_json_read(text, size + 2, note_visit, &stopped));
        ASSERT(stopped.visits == note.visits);
    }
    free(text);
    return 0;
}
