#!/bin/sh
# SPDX-License-Identifier: MIT
# headers_alone.sh SOURCE_DIR CC [CXX]: every internal header compiles with
# nothing before it, and the public one as strict C17 and as C++17.
# shellcheck disable=SC2086 # flags are lists of words
set -eu
cd "$1"
cc=$2
cxx=${3:-}
warnings="-Wall -Wextra -Wshadow -Wundef -Wcast-qual -Werror"
failed=0

# alone LANGUAGE COMPILER FLAG... < source
alone() {
    language=$1
    shift
    "$@" $warnings -Iinclude -fsyntax-only -x "$language" -
}

public='#include "esker/esker.h"'
for standard in c17 c11; do
    if ! echo "$public" | alone c "$cc" "-std=$standard" -pedantic-errors -Wstrict-prototypes; then
        echo "headers_alone: esker.h is not strict $standard" >&2
        failed=1
    fi
done
if [ -n "$cxx" ] && ! echo "$public" | alone c++ "$cxx" -std=c++17 -pedantic-errors; then
    echo "headers_alone: esker.h is not C++17" >&2
    failed=1
fi
for header in src/*/*.h; do
    name=${header#src/}
    twice=$(printf '#include "%s"\n#include "%s"\n' "$name" "$name")
    if ! echo "$twice" | alone c "$cc" -std=gnu17 -D_GNU_SOURCE -Isrc; then
        echo "headers_alone: $header does not compile alone; it must include what it uses" >&2
        failed=1
    fi
done
exit $failed
