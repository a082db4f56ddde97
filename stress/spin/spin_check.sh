#!/bin/sh
# SPDX-License-Identifier: MIT
# spin_check.sh MODEL: explores every state of stress/spin/MODEL.pml, which must
# hold, and of each of its mutants, which must not.
#
# A mutant is a MUTANT_* macro that the model tests. One that cannot be refuted
# is a failure: the model would not have seen the same mistake in the code.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
model=$1
cc=${CC:-cc}
if ! command -v spin >/dev/null 2>&1; then
    echo "SKIPPED: spin is not installed"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# explore NAME [-DMUTANT]: prints the number of states, sets errors.
explore() {
    name=$1
    shift
    mkdir "$work/$name"
    (
        cd "$work/$name"
        spin "$@" -a "$here/$model.pml" >spin.log 2>&1 || { cat spin.log; exit 3; }
        "$cc" -O1 -w -DSAFETY -DCOLLAPSE -DMEMLIM=2048 -o pan pan.c
        ./pan -m1000000 >pan.log 2>&1 || { cat pan.log; exit 3; }
        if grep -q 'max search depth too small\|out of memory\|memory limit' pan.log; then
            cat pan.log
            exit 3
        fi
    )
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' "$work/$name/pan.log")
    states=$(sed -n 's/ *\([0-9]*\) states, stored.*/\1/p' "$work/$name/pan.log")
    why=$(sed -n 's/^pan:1: \(.*\) (at depth.*/\1/p' "$work/$name/pan.log")
    echo "$model $name: $states states, errors: $errors${why:+ ($why)}"
}

failed=0
explore whole
if [ "$errors" != 0 ]; then
    (cd "$work/whole" && spin -t -p -g "$here/$model.pml" | tail -60)
    failed=1
fi
for mutant in $(grep -o 'MUTANT_[A-Z_]*' "$here/$model.pml" | sort -u); do
    explore "$mutant" "-D$mutant"
    if [ "$errors" = 0 ]; then
        echo "$model: $mutant was not refuted"
        failed=1
    fi
done
exit $failed
