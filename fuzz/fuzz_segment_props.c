/* rooms: segment */
/* SPDX-License-Identifier: MIT */
/* The properties block of a segment. Oracle: what decodes, encodes and decodes to the same. */
#include "segment/segment_props.h"

#include <string.h>

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct segment_props first = {0};
    struct segment_props second = {0};
    struct buf buf;
    esker_status status = segment_props_decode(bytes_make(data, size), &first);
    ASSERT(status == ESKER_OK || status == ESKER_CORRUPT);
    if (status != ESKER_OK) {
        return 0;
    }
    buf_init(&buf, &mem_default);
    status = segment_props_encode(&first, &buf);
    ASSERT(status == ESKER_OK);
    status = segment_props_decode(buf_bytes(&buf), &second);
    ASSERT(status == ESKER_OK);
    ASSERT(bytes_equal(first.writer, second.writer) && first.created_ns == second.created_ns);
    ASSERT(first.compression == second.compression && first.block_bytes == second.block_bytes);
    ASSERT(first.key_bytes == second.key_bytes && first.value_bytes == second.value_bytes);
    buf_fini(&buf);
    return 0;
}
