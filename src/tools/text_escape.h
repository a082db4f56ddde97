/* SPDX-License-Identifier: MIT */
/*
 * Bytes as text and back, for lines that hold one record each.
 *
 * tsv: \t \n \r \\ for those four; \xHH for every other control byte (C1
 * controls as well, which some terminals obey) and every byte that is not part
 * of valid UTF-8. What is left is UTF-8 as it is.
 * JSON: a string's inside, for valid UTF-8; other bytes go as base64 (RFC 4648,
 * padded), which has no second spelling of the same bytes.
 * Both ways round: unescape(escape(x)) = x for any bytes x.
 */
#ifndef ESKER_TOOLS_TEXT_ESCAPE_H
#define ESKER_TOOLS_TEXT_ESCAPE_H

#include <stdbool.h>

#include "base/buf.h"

/* The length of the UTF-8 character at the start, its number in *code_out; 0 if
 * there is none (truncated, overlong, surrogate, beyond U+10FFFF). */
size_t text_utf8(struct bytes bytes, uint32_t *code_out);
bool text_is_utf8(struct bytes bytes);

/* Each appends to `out`. The decoders return INVALID, with *bad_at = where in
 * `text`, for what the encoders never write; no story. */
NODISCARD esker_status text_tsv_escape(struct buf *out, struct bytes raw);
NODISCARD esker_status text_tsv_unescape(struct buf *out, struct bytes text, size_t *bad_at);
NODISCARD esker_status text_json_escape(struct buf *out, struct bytes utf8);
NODISCARD esker_status text_utf8_append(struct buf *out, uint32_t code);
NODISCARD esker_status text_base64_encode(struct buf *out, struct bytes raw);
NODISCARD esker_status text_base64_decode(struct buf *out, struct bytes text, size_t *bad_at);

/* A record as one line, its end included, as load reads it. value NULL: the key alone. */
NODISCARD esker_status text_tsv_record(struct buf *out, struct bytes key, const struct bytes *value);
/* expires_ms: 0 = it does not. */
NODISCARD esker_status text_json_record(struct buf *out, struct bytes key, struct bytes value,
                                        uint64_t expires_ms);

/* The value of a hexadecimal digit of either case, or -1. */
int text_hex_digit(uint8_t byte);

#endif
