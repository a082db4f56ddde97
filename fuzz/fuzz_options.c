/* rooms: db */
/* SPDX-License-Identifier: MIT */
/*
 * The text form of options. Oracles: what is refused leaves the options as they were;
 * what is taken is taken again with the same result, and adds nothing to itself.
 */
#include <stdlib.h>
#include <string.h>

#include <esker/esker.h>

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    esker_options options;
    esker_options before;
    char *text = malloc(2 * size + 2);
    ASSERT(text != NULL);
    memcpy(text, data, size);
    text[size] = 0;
    esker_options_init(&options);
    before = options;
    esker_status status = esker_options_parse(&options, text);
    ASSERT(status == ESKER_OK || status == ESKER_INVALID);
    if (status != ESKER_OK) {
        ASSERT(memcmp(&options, &before, sizeof options) == 0);
    } else {
        /* Twice the same, with an empty field between. */
        size_t len = strlen(text);
        memmove(text + len + 1, text, len + 1);
        text[len] = ';';
        esker_options again = before;
        status = esker_options_parse(&again, text);
        ASSERT(status == ESKER_OK && memcmp(&again, &options, sizeof options) == 0);
    }
    free(text);
    return 0;
}
