/* SPDX-License-Identifier: MIT */
/* A line of tsv: key, tab, value. */
#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/text_escape.h"

static esker_status
tsv_field(struct buf *out, struct bytes line, size_t from, size_t to, struct load_fault *fault)
{
    size_t bad_at = 0;
    buf_clear(out);
    esker_status status = text_tsv_unescape(out, bytes_make(line.ptr + from, to - from), &bad_at);
    if (status == ESKER_INVALID) {
        *fault = (struct load_fault){"a backslash that is none of \\t \\n \\r \\\\ \\xHH", from + bad_at};
    }
    return status;
}

esker_status
load_tsv_parse(struct bytes line, struct load_record *record, struct load_fault *fault)
{
    const uint8_t *tab = line.len > 0 ? memchr(line.ptr, '\t', line.len) : NULL;
    if (tab == NULL) {
        *fault = (struct load_fault){"there is no tab between key and value", 0};
        return ESKER_INVALID;
    }
    size_t key_len = (size_t)(tab - line.ptr);
    TRY(tsv_field(&record->key, line, 0, key_len, fault));
    return tsv_field(&record->value, line, key_len + 1, line.len, fault);
}
