#!/bin/sh
# SPDX-License-Identifier: MIT
# run.sh PROGRAM [--quick | --beyond | --tenfold | --settled | --paced | --count | OPTIONS]: the
# benchmark as it is meant to be run. Results land in bench/ beside the program.
#
#   (nothing)   every workload, 1,000,000 records, up to 3 rounds, at most 20
#               minutes; then docs/benchmarks.md is written from the results
#   --quick     100,000 records, the chief workloads, under 2 minutes
#   --beyond    20,000,000 records, budgets of 5 %, page cache dropped
#   --tenfold   10,000,000 records, reads in memory and with a small cache
#   --settled   10,000,000 records, random order, until merges have caught up
#   --paced     ten minutes of puts at 90 % of the rate kept up
#   --count     instructions, system calls and the like per operation
#   else        passed on to PROGRAM (--list, diff A B, --workloads ...)
set -eu
program=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$(dirname "$program")" && pwd)/bench
# SQLite is no peer in the same trade; --engines names it.
peers=esker,rocksdb,leveldb,lmdb,wiredtiger

# Databases go beside the results, not to a /tmp that may be in memory.
mkdir -p "$out/databases"

# Exit code 1: a cell failed or an answer was wrong. The report says so too.
code=0
mode=${1:-}
case $mode in
'')
    "$program" --engines "$peers" --seconds 0.8 --rounds 3 --minutes 18 \
        --dir "$out/databases" --out "$out/full" || code=$?
    ;;
--quick)
    shift
    exec "$program" --quick --engines "$peers" --dir "$out/databases" --out "$out/quick" "$@"
    ;;
--beyond)
    shift
    "$program" --records 20000000 --cold 5 --seconds 10 --rounds 1 --engines "$peers" \
        --workloads 'fillrandom,readcold,readcold-8,multiget-cold,seek10-cold,scan-cold' \
        --dir "$out/databases" --out "$out/beyond" "$@" || code=$?
    ;;
--tenfold)
    shift
    "$program" --records 10000000 --seconds 3 --rounds 1 --engines "$peers" \
        --workloads 'readrandom,readmissing,seek10,seek100,scan,scanrev,readsmall,readcold,multiget-cold' \
        --dir "$out/databases" --out "$out/tenfold" "$@" || code=$?
    ;;
--settled)
    shift
    exec "$program" --records 10000000 --seconds 60 --rounds 1 --engines esker,rocksdb,leveldb \
        --workloads fillrandom-settled --dir "$out/databases" --out "$out/settled" "$@"
    ;;
--paced)
    shift
    exec "$program" --seconds 150 --rounds 1 --engines esker,rocksdb \
        --workloads fill-paced --dir "$out/databases" --out "$out/paced" "$@"
    ;;
--count)
    shift
    sh "$here/count.sh" "$program" --engines "$peers" --dir "$out/databases" --out "$out/counts.json" "$@"
    ;;
*)
    exec "$program" "$@"
    ;;
esac

if [ "$code" -gt 1 ]; then
    exit "$code"
fi
if [ -f "$out/full/results.json" ] && command -v python3 >/dev/null 2>&1; then
    python3 "$here/report.py" "$out" >"$out/benchmarks.md"
    cp "$out/benchmarks.md" "$here/../docs/benchmarks.md"
    echo "docs/benchmarks.md is written from $out"
fi
exit "$code"
