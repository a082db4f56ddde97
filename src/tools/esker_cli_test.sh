#!/bin/sh
# SPDX-License-Identifier: MIT
# The command-line tool as a user meets it.
# Goal: every command, its exit code and its one line on stderr are what the help says; any bytes survive a
# dump and a load; a killed load leaves a clean prefix; a damaged file is named.
# Method: the built binary ($ESKER_BIN) in a directory of its own.
set -u
NAME=cli
# shellcheck source=src/tools/tool_testing.sh
. "${ESKER_SOURCE_DIR:?the tree}/src/tools/tool_testing.sh"

# As answers. A failure is one line on stderr, anything else none.
expect() {
    answers "$@"
    shift
    if [ "$code" -ge 2 ]; then
        # Findings of these two are their output.
        [ "$(wc -l <err)" -eq 1 ] || [ "$1" = verify ] || [ "$1" = inspect ] ||
            fail "esker $*: not one line on stderr"
    elif [ -s err ]; then
        fail "esker $*: something on stderr"
    fi
}

prints() {
    printf -- "$1" >want
    cmp -s want out || fail "printed something else than '$1'"
}

says() {
    grep -q -- "$1" err || fail "stderr does not say '$1'"
}

shows() {
    grep -q -- "$1" out || fail "stdout does not show '$1'"
}

part() {
    echo "== $*"
}

part usage
expect 2
says "no command"
expect 2 nonsense
says "there is no command nonsense"
expect 0 --version
shows '^esker [0-9]'
expect 0 help
for command in put get del scan load dump stats verify repair compact inspect explain demo; do
    shows "^  $command "
    expect 0 help $command
    shows "^usage: esker $command"
    expect 0 $command --help
    shows "^usage: esker $command"
    expect 0 help
done
expect 2 help nonsense
expect 2 put
expect 2 put d
expect 2 put d k v --ttl soon
says "no time such as"
expect 2 put d k v --ttl 0
expect 2 put d k v more
says "one word too many"
expect 2 get d
expect 2 scan
expect 2 scan d --limit
says "needs a value"
expect 2 scan d --limit 1x
expect 2 scan d --limit -1
expect 2 scan d --limit=99999999999999999999
expect 2 scan d --nonsense
expect 2 scan d --reverse=yes
expect 2 scan d --reverse --reverse
expect 2 dump d --format deb822
expect 2 load d --format xml
expect 2 stats d --json --prometheus
expect 2 -o
expect 2 -o nonsense=1 put d k v
says "nonsense=1"
expect 2 -o memory=1K put d k v
expect 2 explain nonsense
[ ! -e d ] || fail "a wrong command line left a database"

part "no database"
for command in get del scan dump stats compact verify repair; do
    words=
    case $command in get | del) words=k ;; esac
    expect 3 $command missing $words
    says "there is no database in"
    [ ! -e missing ] || fail "$command made a database"
done
mkdir empty
expect 3 get empty k
says "there is no database in empty"
[ -z "$(ls -A empty)" ] || fail "get wrote into an empty directory"
echo file >plain
expect 3 put plain k v
expect 3 get plain/below k
expect 3 -o create=no put missing k v

part "put, get, del"
expect 0 put d k v
expect 0 get d k
prints v
expect 1 get d other
prints ''
expect 0 put d k 'second value'
expect 0 get d k
prints 'second value'
expect 0 put d -- -dash --value
expect 0 get d -- -dash
prints '--value'
expect 0 del d -- -dash
expect 1 get d -- -dash
expect 0 del d never-there
expect 0 put d empty ''
expect 0 get d empty
prints ''
printf 'a\000b\n\377' >value
"$E" put d binary <value || fail "put from standard input"
"$E" get d binary >out || fail "get of a binary value"
cmp -s value out || fail "a binary value changed"
expect 2 put d '' v
says "key is empty"
key=$(printf '%040000d' 1)
expect 2 put d "$key" v
says "key"
expect 0 -o durability=sync put d synced yes
expect 0 put d -o durability=memory synced no
expect 0 -o io=posix -o compression=zstd get d synced
prints no

part scan
for key in a aa ab b c; do
    expect 0 put s $key "value of $key"
done
expect 0 scan s
prints 'a\tvalue of a\naa\tvalue of aa\nab\tvalue of ab\nb\tvalue of b\nc\tvalue of c\n'
expect 0 scan s --keys-only
prints 'a\naa\nab\nb\nc\n'
expect 0 scan s --keys-only --reverse
prints 'c\nb\nab\naa\na\n'
expect 0 scan s --keys-only --from aa --to b
prints 'aa\nab\n'
expect 0 scan s --keys-only --reverse --from=aa --to=c --limit=2
prints 'b\nab\n'
expect 0 scan s --keys-only --prefix a
prints 'a\naa\nab\n'
expect 0 scan s --keys-only --limit 0
prints ''
expect 0 scan s --from d
prints ''
expect 0 dump s
prints 'a\tvalue of a\naa\tvalue of aa\nab\tvalue of ab\nb\tvalue of b\nc\tvalue of c\n'

part "stats, compact, explain"
expect 0 stats s
shows visible_lsn
expect 0 stats s --json
shows '^{.*"visible_lsn":'
expect 0 stats s --prometheus
shows 'visible_lsn'
expect 0 compact s
expect 0 scan s --keys-only
prints 'a\naa\nab\nb\nc\n'
expect 0 explain config
shows 'memory budget *256 MiB'
expect 0 explain config 'memory=64M;durability=interval:5ms'
shows 'memory budget *64 MiB'
shows 'last 5 ms'
expect 0 -o memory=8M explain config
shows 'memory budget *8 MiB'
expect 2 explain config memory=1M

part "any bytes, dumped and loaded"
# 600 records of pseudo-random bytes, as tsv in which everything is escaped.
awk 'BEGIN {
    seed = 12345
    for (record = 0; record < 600; record++) {
        line = ""
        for (field = 0; field < 2; field++) {
            seed = (seed * 1103515245 + 12345) % 2147483648
            len = field == 0 ? 1 + int(seed / 4096) % 12 : int(seed / 4096) % 90
            for (i = 0; i < len; i++) {
                seed = (seed * 1103515245 + 12345) % 2147483648
                line = line sprintf("\\x%02x", int(seed / 65536) % (record % 2 ? 256 : 128))
            }
            line = line (field == 0 ? "\t" : "")
        }
        print line
    }
}' >random.tsv
"$E" load r1 random.tsv 2>err || fail "load of random bytes"
[ ! -s err ] || fail "load into a pipe is not silent"
"$E" dump r1 >r1.tsv || fail "dump"
[ "$(wc -l <r1.tsv)" -gt 500 ] || fail "not one line per record"
"$E" load r2 - <r1.tsv || fail "load of a tsv dump"
"$E" dump r2 --format jsonl >r2.jsonl || fail "dump as jsonl"
"$E" load r3 r2.jsonl || fail "load of a jsonl dump"
"$E" dump r3 --format=tsv >r3.tsv || fail "dump"
cmp -s r1.tsv r3.tsv || fail "records changed on the way through both formats"
"$E" load r4 --format jsonl <r2.jsonl || fail "load of jsonl from standard input"
"$E" dump r4 | cmp -s - r1.tsv || fail "records changed on the way through jsonl"
expect 0 put ttl brief v --ttl 1ms
expect 0 put ttl long v --ttl 12h
expect 0 -o ttl=7d put ttl longer v
expect 0 put ttl ever v
expect 1 get ttl brief
"$E" dump ttl --format jsonl >ttl.jsonl || fail "dump of what expires"
[ "$(grep -c expires_ms ttl.jsonl)" -eq 2 ] || fail "a dump does not say what expires"
[ "$(wc -l <ttl.jsonl)" -eq 3 ] || fail "a dump of what expires"
"$E" load ttl2 ttl.jsonl || fail "load of what expires"
"$E" dump ttl2 --format jsonl | cmp -s - ttl.jsonl || fail "times changed on the way through jsonl"
"$E" dump ttl >ttl.tsv 2>err || fail "dump of what expires as tsv"
says "2 rows expire"
"$E" scan r4 | cmp -s - r1.tsv || fail "scan and dump differ"
if command -v python3 >/dev/null 2>&1; then
    python3 -c 'import json, sys
lines = [json.loads(line) for line in open("r2.jsonl", encoding="utf-8")]
assert all(len(line) == 2 for line in lines) and len(lines) > 500
assert {name for line in lines for name in line} == {"key", "key_b64", "value", "value_b64"}' ||
        fail "jsonl that another reader does not understand"
fi

part "load: formats and bad input"
cat >Packages <<'END'
Package: one
Version: 1.0-1
Architecture: amd64
Description: first
 .
 with a second paragraph

Package: two
Architecture: all


Package: three
END
expect 0 load deb Packages
expect 0 scan deb --keys-only
prints 'one/1.0-1/amd64\nthree\ntwo/all\n'
expect 0 get deb two/all
prints 'Package: two\nArchitecture: all'
expect 0 load deb2 --format deb822 Packages
printf 'a\t1\nb\t2\nbad\nc\t3\n' >bad.tsv
expect 3 load bad bad.tsv
says 'line 3: .*; 2 records before it are loaded (bad.tsv at byte 8)'
expect 0 scan bad
prints 'a\t1\nb\t2\n'
printf '{"key": "k", "value": "v"}\n{"key": "k"}\n' >bad.jsonl
expect 3 load badj bad.jsonl
says 'line 2: the object has no value'
expect 3 load x no-such-file
says 'cannot read no-such-file'
[ ! -e x ] || fail "load of a missing file made a database"
: >none.tsv
expect 0 load nothing none.tsv
expect 0 scan nothing
prints ''

part "inspect"
expect 0 inspect s
for kind in CURRENT manifest log segment lock; do
    shows " $kind"
done
expect 0 inspect s/CURRENT
shows 'the manifest in force is manifest-'
for file in s/manifest-*; do
    expect 0 inspect "$file"
    shows 'the whole state'
    shows '+ segment'
done
for file in s/*.seg; do
    expect 0 inspect "$file"
    shows 'rows, "a" to "c"'
    expect 0 inspect "$file" --rows
    shows '"ab" LSN [0-9]* put, 11 bytes'
done
for file in s/log-*; do
    expect 0 inspect "$file"
    shows 'generation'
done
expect 0 inspect s/LOCK
expect 3 inspect plain
expect 3 inspect no-such-file
expect 2 inspect
expect 0 put l logged 'in the log'
cp l/log-* some-log
expect 0 inspect some-log --rows
shows 'batch of .*: 1 puts, 0 deletes, first "logged"'
shows 'put "logged", 10 bytes'
shows 'closed cleanly'

# smash FILE OFFSET: one byte becomes another.
smash() {
    byte=$(dd if="$1" bs=1 skip="$2" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
    printf "\\$(printf '%03o' $(((byte + 85) % 256)))" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

part "verify and damage"
expect 0 verify s
shows 'nothing is damaged'
for file in s/CURRENT s/manifest-* s/*.seg; do
    rm -rf broken
    cp -r s broken
    name=broken/${file#s/}
    smash "$name" 40
    expect 3 verify broken
    shows "${file#s/} at byte"
    expect 3 inspect "$name"
    shows 'DAMAGED at byte'
    expect 3 get broken a
    rm -rf before
    cp -r s before
    smash before/"${file#s/}" 40
    diff -r broken before >/dev/null || fail "reading a damaged database changed it"
    expect 0 repair broken
    shows 'whole again'
    expect 0 verify broken
    cmp -s "before/${file#s/}" "broken/${file#s/}.lost" || cmp -s "before/${file#s/}" "broken/${file#s/}" ||
        fail "repair has not kept ${file#s/} as it was"
    # A head is no row: nothing of this is lost.
    expect 0 dump s
    cp out want
    expect 0 dump broken
    cmp -s want out || fail "repair after damage of ${file#s/} has lost rows"
    expect 0 repair broken
    shows 'nothing was changed'
done
segment=$(ls s/*.seg)
rm -rf broken
cp -r s broken
smash broken/"${segment#s/}" 100
expect 3 verify broken
shows 'finding'
expect 3 inspect broken/"${segment#s/}"
shows 'DAMAGED at byte 64: the block'
head -c 1024 r1.tsv >hostile
for name in CURRENT "$(basename s/manifest-*)" "$(basename "$segment")"; do
    rm -rf broken
    cp -r s broken
    cp hostile broken/"$name"
    expect 3 verify broken
    expect 3 inspect broken/"$name"
    shows 'DAMAGED at byte 0'
    expect 3 get broken a
done
rm -rf broken
cp -r s broken
rm broken/CURRENT
expect 3 get broken a
says 'CURRENT is missing'
expect 3 put broken a b

part "many runs leave a handful of files"
i=0
while [ $i -lt 150 ]; do
    "$E" put many "key$i" "value$i" || fail "put number $i"
    i=$((i + 1))
done
[ "$(ls many | wc -l)" -le 12 ] || fail "150 runs left $(ls many | wc -l) files"
[ "$("$E" scan many | wc -l)" -eq 150 ] || fail "not all keys of 150 runs are there"

part "a reader that goes away"
awk 'BEGIN { for (i = 0; i < 20000; i++) printf "%08d\tvalue%d\n", i, i }' >rows.tsv
expect 0 load rows rows.tsv
"$E" scan rows 2>err | head -n 1 >out
prints '00000000\tvalue0\n'
[ ! -s err ] || fail "a closed pipe is not quiet"
[ "$("$E" scan rows | wc -l)" -eq 20000 ] || fail "a row per line"
if [ -w /dev/full ]; then
    "$E" scan rows >/dev/full 2>err
    [ $? -eq 3 ] || fail "a full disk under stdout"
    says 'cannot write the output'
fi

part "kill -9 during load"
mkfifo pipe
"$E" load killed --format tsv pipe &
loader=$!
exec 7>pipe
head -n 5500 rows.tsv >&7
# Until three batches are in the log, which inspect reads without a lock.
tries=0
while :; do
    batches=0
    for file in killed/log-*; do
        if [ -f "$file" ]; then
            more=$("$E" inspect "$file" 2>/dev/null | grep -c ': 1000 puts')
            batches=$((batches + more))
        fi
    done
    [ "$batches" -lt 3 ] || break
    tries=$((tries + 1))
    [ $tries -lt 600 ] || fail "the loader wrote no three batches"
    sleep 0.1
done
kill -0 $loader || fail "the loader has ended before it was killed"
expect 3 get killed 00000000
says 'open in this process or another'
kill -9 $loader
wait $loader 2>/dev/null
exec 7>&-
expect 0 verify killed
"$E" scan killed >out || fail "scan after the kill"
rows=$(wc -l <out)
[ "$rows" -ge 3000 ] || fail "$rows rows survived"
[ $((rows % 1000)) -eq 0 ] || fail "a batch survived in part: $rows rows"
head -n "$rows" rows.tsv | cmp -s - out || fail "what survived is no prefix of what was loaded"
expect 0 load killed rows.tsv
"$E" dump killed | cmp -s - rows.tsv || fail "the second load is not whole"
expect 0 verify killed

echo "all parts passed"
