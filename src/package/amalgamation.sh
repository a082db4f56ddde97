#!/bin/sh
# SPDX-License-Identifier: MIT
# amalgamation.sh SOURCE_DIR CC: all rooms compile as one translation unit, so
# no two files claim the same static name, tag or macro.
set -eu
cd "$1"
cc=$2
for room in base sync io format iter memtable wal segment manifest version compaction db; do
    for source in src/"$room"/*.c; do
        case $source in
        *_test.c | *'*'*) ;;
        *) printf '#include "%s"\n' "$source" ;;
        esac
    done
done | "$cc" -std=gnu17 -Wall -Wextra -Werror -D_GNU_SOURCE -I. -Iinclude -Isrc -fsyntax-only -x c -
