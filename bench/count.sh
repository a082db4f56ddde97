#!/bin/sh
# SPDX-License-Identifier: MIT
# count.sh PROGRAM [OPTIONS]: what single operations cost in things that can be
# counted, so that a noisy machine does not matter. See count.py.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for tool in valgrind objdump strace python3; do
    if ! command -v "$tool" >/dev/null 2>&1; then
        echo "count: $tool is not installed (Debian: valgrind binutils strace python3)" >&2
        exit 1
    fi
done
exec python3 "$here/count.py" "$@"
