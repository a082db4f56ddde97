# SPDX-License-Identifier: MIT
# For tests of the command-line tool; sourced, with the test's name in $NAME.
# They run the built binary ($ESKER_BIN) in a directory of their own, $T, which goes with them.
set -u
E=${ESKER_BIN:?the built tool}
# Exit code 99 is a sanitizer's.
ASAN_OPTIONS="${ASAN_OPTIONS:-}:exitcode=99"
LSAN_OPTIONS="exitcode=99"
export ASAN_OPTIONS LSAN_OPTIONS
LC_ALL=C
export LC_ALL
T=$(mktemp -d "${TMPDIR:-/tmp}/esker-${NAME:?of the test}-XXXXXX")
trap 'rm -rf "$T"' EXIT
cd "$T" || exit 1

fail() {
    echo "FAILED: $*"
    echo "--- stdout"; head -c 3000 out
    echo "--- stderr"; head -c 2000 err
    exit 1
}

# answers CODE WORDS...: runs the tool; its output goes to ./out and ./err.
answers() {
    code=$1
    shift
    "$E" "$@" >out 2>err </dev/null
    got=$?
    [ "$got" -eq "$code" ] || fail "esker $*: exit $got, not $code"
}
