/* rooms: format */
/* SPDX-License-Identifier: MIT */
/*
 * CURRENT and the manifest's header, which share a layout. The first byte
 * chooses: bit 0, which one; bit 1, magic and checksum are made to fit. Oracle:
 * what is accepted encodes to the same bytes, and is not the other kind.
 */
#include "base/assert.h"
#include "base/endian.h"
#include "base/hash.h"
#include "format/edit.h"

enum { FUZZ_MANIFEST = 1, FUZZ_FIX = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[CURRENT_BYTES + 1] = {0}, again[CURRENT_BYTES];
    struct file_head head, other;
    if (size < 1) {
        return 0;
    }
    bool manifest = (data[0] & FUZZ_MANIFEST) != 0;
    size_t len = MIN(size - 1, sizeof bytes);
    memcpy(bytes, data + 1, len);
    if ((data[0] & FUZZ_FIX) != 0) {
        memcpy(bytes, manifest ? "ESKERMAN" : "ESKERCUR", 8);
        le64_store(bytes + 56, hash64(bytes, 56, 0));
    }
    struct bytes input = bytes_make(bytes, len);
    esker_status status = manifest ? manifest_header_decode(input, &head) : current_decode(input, &head);
    if (status != ESKER_OK) {
        ASSERT(status == ESKER_CORRUPT || status == ESKER_UNSUPPORTED);
        return 0;
    }
    if (manifest) {
        manifest_header_encode(&head, again);
        ASSERT(current_decode(bytes_make(bytes, CURRENT_BYTES), &other) == ESKER_CORRUPT);
    } else {
        current_encode(&head, again);
        ASSERT(manifest_header_decode(input, &other) == ESKER_CORRUPT);
    }
    ASSERT(memcmp(bytes, again, sizeof again) == 0);
    return 0;
}
