#!/bin/sh
# SPDX-License-Identifier: MIT
# smoke.sh PROGRAM: every workload on every engine in it, a few records each,
# all answers checked. No figure means anything. Then the instrument itself: a
# database that may lose acknowledged writes must be caught at it, a result must
# be readable, equal to itself, and unequal to a forged one.
set -eu
program=$1
dir=$(mktemp -d "${TMPDIR:-/tmp}/esker-smoke-XXXXXX")
trap 'rm -rf "$dir"' EXIT

fail() {
    printf 'smoke: %s\n' "$*" >&2
    exit 1
}

"$program" --smoke --out "$dir/all" --dir "$dir" || fail "a workload failed"
for file in results.json results.csv hgrm/fillrandom.esker.hgrm; do
    [ -s "$dir/all/$file" ] || fail "$file was not written"
done

# What is in memory alone is also written out now and then: on a busy machine the kill may come after that.
for try in 1 2 3 4 5 6; do
    code=0
    "$program" --smoke --engines esker --workloads recovery-64 --esker-options durability=memory \
        --dir "$dir" >"$dir/lost" 2>&1 || code=$?
    [ "$code" -ne 0 ] && break
done
[ "$code" -eq 1 ] && grep -q WRONG "$dir/lost" ||
    fail "lost writes were not noticed in $try tries (exit code $code)"

"$program" diff "$dir/all/results.json" "$dir/all/results.json" >"$dir/same" ||
    fail "a result differs from itself"
grep -q ' 0 worse, 0 better' "$dir/same" || fail "a result differs from itself"
sed '/"engine": "esker"/s/"rate": [0-9.e+]*/"rate": 1/g' "$dir/all/results.json" >"$dir/forged.json"
code=0
"$program" diff "$dir/all/results.json" "$dir/forged.json" >/dev/null || code=$?
[ "$code" -eq 1 ] || fail "diff did not notice a forged result (exit code $code)"
[ -z "$(find "$dir" -maxdepth 1 -name 'esker-bench-*')" ] || fail "a directory was left behind"
echo "smoke: all checks held"
