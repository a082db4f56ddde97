/* rooms: tools */
/* SPDX-License-Identifier: MIT */
/*
 * What `load` reads: tsv, jsonl and deb822. Input: a format byte, a byte for
 * the size of pieces in which the text arrives, the text. Oracles: records and
 * outcome do not hang on the pieces; each record, written as dump writes it,
 * is read back as the same bytes in both formats.
 */
#include <stdlib.h>

#include "base/assert.h"
#include "base/hash.h"
#include "base/status.h"
#include "tools/load_reader.h"
#include "tools/text_escape.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_load_text {
    const uint8_t *ptr;
    size_t len, at, piece;
};

static int64_t
fuzz_load_read(void *ctx, void *data, size_t len)
{
    struct fuzz_load_text *text = ctx;
    size_t left = text->len - text->at;
    size_t done = MIN(MIN(len, text->piece), left);
    if (done > 0) {
        memcpy(data, text->ptr + text->at, done);
    }
    text->at += done;
    return (int64_t)done;
}

static void
fuzz_load_same(const struct buf *buf, struct bytes bytes)
{
    ASSERT(bytes_equal(buf_bytes(buf), bytes));
}

/* Writes the record as a line and parses the line. */
static void
fuzz_load_round(const struct load_record *record, bool json)
{
    struct load_record back;
    struct load_fault fault;
    struct buf line;
    struct bytes key = buf_bytes(&record->key);
    struct bytes value = buf_bytes(&record->value);
    buf_init(&line, &mem_default);
    buf_init(&back.key, &mem_default);
    buf_init(&back.value, &mem_default);
    ASSERT((json ? text_json_record(&line, key, value, record->expires_ms)
                 : text_tsv_record(&line, key, &value)) == ESKER_OK);
    ASSERT(line.len > 0 && line.ptr[line.len - 1] == '\n' && memchr(line.ptr, '\n', line.len - 1) == NULL);
    struct bytes text = bytes_make(line.ptr, line.len - 1);
    ASSERT(text_is_utf8(text));
    ASSERT((json ? load_jsonl_parse(text, &back, &fault) : load_tsv_parse(text, &back, &fault)) == ESKER_OK);
    fuzz_load_same(&back.key, key);
    fuzz_load_same(&back.value, value);
    ASSERT(!json || back.expires_ms == record->expires_ms);
    buf_fini(&line);
    buf_fini(&back.key);
    buf_fini(&back.value);
}

static uint64_t
fuzz_load_all(enum load_format format, struct fuzz_load_text text, bool check)
{
    struct load_reader reader;
    const struct load_record *record = NULL;
    uint64_t hash = 0;
    esker_status status;
    load_reader_init(&reader, format, "fuzz", fuzz_load_read, &text);
    while ((status = load_reader_next(&reader, &record)) == ESKER_OK) {
        ASSERT(record->key.len >= 1 && record->key.len <= LOAD_KEY_BYTES_MAX);
        hash = hash64(record->key.ptr, record->key.len, hash + record->value.len);
        hash = hash64(record->value.ptr, record->value.len, hash + record->key.len) + record->expires_ms;
        if (check) {
            fuzz_load_round(record, false);
            fuzz_load_round(record, true);
        }
    }
    ASSERT(status == ESKER_END || status == ESKER_INVALID);
    ASSERT(status == ESKER_INVALID || reader.offset == text.len);
    ASSERT(status == ESKER_END || status_last()->offset <= text.len);
    hash += status == ESKER_INVALID ? status_last()->offset + 1 : 0;
    load_reader_fini(&reader);
    return hash;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    enum load_format format = (enum load_format)(data[0] % 3);
    struct fuzz_load_text text = {.ptr = data + 2, .len = size - 2, .piece = SIZE_MAX};
    uint64_t whole = fuzz_load_all(format, text, true);
    text.piece = 1 + data[1] % 64;
    ASSERT(fuzz_load_all(format, text, false) == whole);
    return 0;
}
