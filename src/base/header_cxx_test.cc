// SPDX-License-Identifier: MIT
// Goal: a C++ program can use the public header as it stands.
// Method: includes it and nothing else before it, links against C, and calls
// every static inline it defines.
#include "esker/esker.h"

#include <cstdio>
#include <cstring>

static int failures;

static void
expect(bool held, const char *what)
{
    if (!held) {
        std::fprintf(stderr, "header_cxx_test: %s\n", what);
        failures++;
    }
}

int
main()
{
    esker_slice slice = esker_str("key");
    expect(slice.size == 3 && std::memcmp(slice.data, "key", 3) == 0, "esker_str covers the string");
    expect(esker_bytes(nullptr, 0).size == 0, "esker_bytes takes an empty run");

    esker_error error;
    std::memset(&error, 0xff, sizeof error);
    esker_error_init(&error);
    expect(error.struct_size == sizeof error && error.status == ESKER_OK, "esker_error_init clears it");
    error.struct_size = sizeof error;
    esker_last_error(&error);
    expect(error.status == ESKER_OK, "no failure yet in this thread");
    expect(std::strcmp(esker_status_name(ESKER_NOT_FOUND), "NOT_FOUND") == 0, "names have C linkage");
    return failures == 0 ? 0 : 1;
}
