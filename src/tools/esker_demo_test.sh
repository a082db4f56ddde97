#!/bin/sh
# SPDX-License-Identifier: MIT
# Goal: the demo does its job on this machine's own package list, and cleans up.
# Method: runs it in a directory of its own, once as it is and once with --keep; then verifies what it kept.
# Machines without a package list have nothing to show.
set -u
E=${ESKER_BIN:?the built tool}
T=$(mktemp -d "${TMPDIR:-/tmp}/esker-demo-test-XXXXXX")
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1
if [ ! -r /var/lib/dpkg/status ]; then
    echo "no package list here"
    exit 0
fi

fail() {
    echo "FAILED: $*"
    cat out
    exit 1
}

"$E" demo --dir here --keep >out 2>&1 || fail "the demo: exit $?"
grep -q '^All checks held, 0 lost' out || fail "no verdict"
"$E" verify here >>out 2>&1 || fail "what it kept is damaged"
rows=$("$E" scan here | wc -l)
[ "$rows" -gt 0 ] || fail "what it kept is empty"
"$E" demo --dir here >out 2>&1 && fail "it took a directory that is not empty"
[ "$("$E" scan here | wc -l)" -eq "$rows" ] || fail "it changed a directory that is not empty"
rm -rf here

mkdir tmp
TMPDIR=$T/tmp "$E" -o 'durability=interval;io=posix' demo >out 2>&1 || fail "the demo with options: exit $?"
[ -z "$(ls -A tmp)" ] || fail "it left something behind"
echo "the demo held"
