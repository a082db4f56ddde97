#!/bin/sh
# SPDX-License-Identifier: MIT
# without_mutants.sh NM PROGRAM LIBRARY...: the switch of the seeded faults is in PROGRAM (or this check is
# blind) and in none of the libraries.
set -eu
nm=$1
"$nm" "$2" | grep -q ' esker_mutant$' || {
    echo "the program with mutants has no switch: this check looks for the wrong name"
    exit 1
}
shift 2
for library in "$@"; do
    if "$nm" -a "$library" | grep -q 'esker_mutant'; then
        echo "$library holds seeded faults"
        exit 1
    fi
done
