#!/bin/sh
# SPDX-License-Identifier: MIT
# mutants.sh MODEL: plays the program with each seeded fault that its build must see,
# and demands that each is seen: exit status 3, or 66 and a report from the race detector.
set -u
missed=0
for mutant in $("$1" --mutants); do
    story=$("$1" "$mutant" 2>&1)
    code=$?
    seen=$(printf '%s\n' "$story" | grep -m 1 -E '^caught|WARNING: Thr')
    if [ -n "$seen" ] && { [ "$code" -eq 3 ] || [ "$code" -eq 66 ]; }; then
        echo "$mutant: $seen"
    else
        echo "$mutant: MISSED, exit status $code"
        printf '%s\n' "$story" | tail -n 20
        missed=1
    fi
done
exit $missed
