#!/bin/sh
# SPDX-License-Identifier: MIT
# Workload and charts as a user meets them.
# Goal: `esker workload` writes its CSV, one line per property and the exit codes that the help says;
# `esker plot` draws what it wrote, as SVG, PNG and a page that needs nothing from outside.
# Method: the built binary ($ESKER_BIN) in a directory of its own.
set -u
NAME=workload
# shellcheck source=src/tools/tool_testing.sh
. "${ESKER_SOURCE_DIR:?the tree}/src/tools/tool_testing.sh"

# The databases go beside the results; nothing may be left of them.
mkdir databases
run() {
    code=$1
    shift
    answers "$code" workload --dir databases "$@"
    [ -z "$(ls databases)" ] || fail "databases were left behind: $(ls databases)"
}

answers 0 workload --list
for preset in baseline sweep baseline-original sweep-original soak ramp burst readers-1000 fill chaos; do
    grep -q "^$preset " out || fail "--list does not name $preset"
done

run 0 --preset baseline --time-scale 100 --csv baseline.csv
[ "$(grep -c '^PASS  ' out)" -eq 11 ] || fail "not 11 properties passed"
grep -q FAIL out && fail "a property failed"
columns=config_label,num_writers,num_readers,writer_rate,reader_rate,duration_secs
columns=$columns,total_writes,total_reads,write_tps,read_tps,writer_p50_ms,writer_p95_ms,writer_p99_ms
columns=$columns,read_p50_ms,read_p95_ms,read_p99_ms,precondition_failure_rate
head -n 1 baseline.csv | grep -q "^$columns," || fail "the columns of the plan are not first"
tail -n 1 baseline.csv | grep -q '^W1_WR0.10_RD2_RT100,1,2,0.1,100.0,120,12,24000,0.1,200,.*,PASS$' ||
    fail "not 12 writes and 24000 reads: $(tail -n 1 baseline.csv)"

run 0 --preset sweep --duration 5 --time-scale 200 --jobs 4 --csv sweep.csv
[ "$(wc -l <sweep.csv)" -eq 16 ] || fail "the sweep has not 15 rows"
run 0 --preset fill --ops 3000 --duration 2 --series series.csv
grep -q ',writer,' series.csv || fail "the series has no writer"

# A mistake made on purpose is found, and said, and is the exit code.
run 1 --preset soak --duration 10 --time-scale 20 --writer-rate 50 --inject lost-commit
grep -q '^FAIL  every acknowledged write is there' out || fail "the lost commit is not named"
run 0 --preset soak --duration 5 --time-scale 20 --inject lost-commit --no-verify
grep -q 'PASS\|FAIL' out && fail "--no-verify verified"

run 2 --preset nothing
run 2 --writers x
run 2 --chaos cpu=4
run 2 --chaos kill=1,slow=10
run 2 --inject rain
run 2 --duration 0
run 2 --readers 5000
run 2 --jobs 0
answers 3 workload --dir /nowhere/at/all
answers 3 workload --dir databases --time-scale 100 --csv /nowhere/at/all.csv

# ---- Charts ------------------------------------------------------------------------

printf 'a,b\n1\n' >broken.csv
answers 3 plot broken.csv
grep -q 'broken.csv: line 2' err || fail "the line is not named"
answers 3 plot missing.csv
answers 2 plot baseline.csv --out chart.gif
answers 2 plot baseline.csv sweep.csv --out chart.svg
answers 2 plot

if ! command -v gnuplot >/dev/null 2>&1; then
    answers 3 plot sweep.csv
    grep -q 'gnuplot is not installed' err || fail "it does not say that gnuplot is missing"
    echo "gnuplot is not installed: charts were not drawn"
    exit 0
fi
answers 0 plot sweep.csv
[ "$(grep -c '<g id="gnuplot_plot_' sweep.svg)" -eq 4 ] || fail "the chart has not four series"
for word in 'writer p50' 'writer p99' 'reader p50' 'reader p99' 'Latency (ms' 'W3 WR0.20'; do
    grep -q "$word" sweep.svg || fail "the chart does not say $word"
done
answers 0 plot baseline.csv --out baseline.png --title 'The <baseline>'
[ "$(head -c 4 baseline.png | tail -c 3)" = PNG ] || fail "no PNG"
answers 0 plot baseline.csv sweep.csv series.csv --out page.html --title 'A <title> & more'
grep -q 'A &lt;title&gt; &amp; more' page.html || fail "the title is not escaped"
grep -qi '<script\|src=\|@import\|url(\|href="http' page.html && fail "the page needs something from outside"
# A sweep with conflicts, which a slow machine has, has a chart of them too (column 17: failures).
forms=6
if awk -F, 'NR > 1 && $17 > 0 { found = 1 } END { exit !found }' sweep.csv; then
    forms=8
fi
[ "$(grep -c '<svg' page.html)" -eq "$forms" ] || fail "the page has not its charts in two forms each"
ids=$(grep -o "id=[\"'][^\"']*" page.html | sort | uniq -d)
[ -z "$ids" ] || fail "ids occur twice: $ids"
cat >results.csv <<'END'
workload,series,engine,round,status,unit,value
fill,write,esker,0,done,ops/s,10
"`id`","$(id)","""; system ""id""",0,done,s,2
END
answers 0 plot results.csv --out results.html
echo "workload and charts: fine"
