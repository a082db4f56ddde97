/* SPDX-License-Identifier: MIT */
/*
 * A stanza of a Debian control file (deb822(5)): "Name: value" lines, each with
 * any number of continuation lines that begin with a space or a tab. Only the
 * three fields that make the key are looked at; the value is the stanza itself.
 */
#include <stdbool.h>
#include <strings.h>

#include "base/status.h"
#include "tools/load_reader.h"

enum deb822_field { DEB822_PACKAGE, DEB822_VERSION, DEB822_ARCHITECTURE, DEB822_FIELDS };

static enum deb822_field
deb822_field_named(struct bytes name)
{
    static const char *const names[] = {"Package", "Version", "Architecture"};
    int field = 0;
    while (field < DEB822_FIELDS && (strlen(names[field]) != name.len ||
                                     strncasecmp(names[field], (const char *)name.ptr, name.len) != 0)) {
        field++;
    }
    return (enum deb822_field)field;
}

static bool
deb822_is_space(uint8_t byte)
{
    return byte == ' ' || byte == '\t' || byte == '\r';
}

static struct bytes
deb822_trim(struct bytes text)
{
    while (text.len > 0 && deb822_is_space(text.ptr[0])) {
        text = bytes_make(text.ptr + 1, text.len - 1);
    }
    while (text.len > 0 && deb822_is_space(text.ptr[text.len - 1])) {
        text.len--;
    }
    return text;
}

/* A line that begins a field goes into fields[] if it is one of ours. */
static esker_status
deb822_take_line(struct bytes line, size_t at, struct bytes fields[DEB822_FIELDS], struct load_fault *fault)
{
    if (line.len == 0 || deb822_is_space(line.ptr[0]) || line.ptr[0] == '#') {
        return ESKER_OK; /* a continuation or a comment */
    }
    const uint8_t *colon = memchr(line.ptr, ':', line.len);
    if (colon == NULL || colon == line.ptr) {
        *fault = (struct load_fault){"a line that is neither \"Name: value\" nor indented", at};
        return ESKER_INVALID;
    }
    size_t name_len = (size_t)(colon - line.ptr);
    enum deb822_field field = deb822_field_named(bytes_make(line.ptr, name_len));
    if (field == DEB822_FIELDS) {
        return ESKER_OK;
    }
    if (fields[field].len > 0) {
        *fault = (struct load_fault){"a field that the stanza has already", at};
        return ESKER_INVALID;
    }
    fields[field] = deb822_trim(bytes_make(colon + 1, line.len - name_len - 1));
    return ESKER_OK;
}

static esker_status
deb822_key(const struct bytes fields[DEB822_FIELDS], struct buf *key)
{
    buf_clear(key);
    TRY(buf_append_bytes(key, fields[DEB822_PACKAGE]));
    for (int field = DEB822_VERSION; field < DEB822_FIELDS; field++) {
        if (fields[field].len > 0) {
            TRY(buf_append_u8(key, '/'));
            TRY(buf_append_bytes(key, fields[field]));
        }
    }
    return ESKER_OK;
}

esker_status
load_deb822_parse(struct bytes stanza, struct load_record *record, struct load_fault *fault)
{
    struct bytes fields[DEB822_FIELDS] = {{0}};
    for (size_t at = 0; at < stanza.len;) {
        const uint8_t *newline = memchr(stanza.ptr + at, '\n', stanza.len - at);
        size_t len = newline != NULL ? (size_t)(newline - (stanza.ptr + at)) : stanza.len - at;
        TRY(deb822_take_line(bytes_make(stanza.ptr + at, len), at, fields, fault));
        at += len + 1;
    }
    if (fields[DEB822_PACKAGE].len == 0) {
        *fault = (struct load_fault){"the stanza has no Package field", 0};
        return ESKER_INVALID;
    }
    TRY(deb822_key(fields, &record->key));
    return buf_assign(&record->value, stanza);
}
