#!/bin/sh
# SPDX-License-Identifier: MIT
# install_test.sh BUILD_DIR CC: an installed esker serves a program outside the
# tree, found through pkg-config and through find_package, shared and static,
# also after the prefix was moved. The program has a wal_append of its own.
set -eu
# The example of docs/simulation.md is built against the installed libesker-sim, and runs.
build=$1
cc=$2
simulation=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/prefix"
pc_dir=$(dirname "$(find "$work/prefix" -name esker.pc)")
lib_dir=$(dirname "$pc_dir")
export PKG_CONFIG_PATH="$pc_dir"

mkdir "$work/program"
cat >"$work/program/main.c" <<'END'
#include <esker/esker.h>
#include <stdio.h>

int wal_append(void);

int
wal_append(void)
{
    return 7;
}

int
main(int argc, char **argv)
{
    esker_db *db;
    esker_value value;
    if (argc != 2 || esker_open(argv[1], NULL, &db) != ESKER_OK) {
        return 1;
    }
    if (esker_put(db, esker_str("key"), esker_str("value"), NULL) != ESKER_OK ||
        esker_get(db, esker_str("key"), NULL, &value) != ESKER_OK) {
        return 2;
    }
    printf("%.*s %d\n", (int)value.size, (const char *)value.data, wal_append());
    esker_value_release(&value);
    return esker_close(db) == ESKER_OK ? 0 : 3;
}
END
cat >"$work/program/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(outside C)
find_package(esker 0.1 REQUIRED)
add_executable(with_shared main.c)
target_link_libraries(with_shared PRIVATE esker::esker)
add_executable(with_static main.c)
target_link_libraries(with_static PRIVATE esker::esker_static)
END

# check PROGRAM WHAT
check() {
    out=$(LD_LIBRARY_PATH="$lib_dir" "$1" "$work/db-$2")
    if [ "$out" != "value 7" ]; then
        echo "install_test: $2: printed '$out'" >&2
        exit 1
    fi
}

# The archive stands alone in a folder, else the linker would take the shared library beside it.
mkdir "$work/static_only"
cp "$lib_dir/libesker.a" "$lib_dir/libesker-sim.a" "$work/static_only/"
shared_flags=$(pkg-config --cflags --libs esker)
static_flags=$(pkg-config --cflags --libs --static esker | sed "s|-L[^ ]*/prefix/[^ ]*||g")
compile="$cc -std=c17 -Wall -Wextra -Werror $work/program/main.c"
# shellcheck disable=SC2086 # lists of words
{
    $compile -o "$work/shared" $shared_flags
    $compile -o "$work/static" "-L$work/static_only" $static_flags
}
check "$work/shared" pkg-config-shared
check "$work/static" pkg-config-static
if ! ldd "$work/shared" | grep -q 'libesker\.so\.0'; then
    echo "install_test: the soname is not libesker.so.0" >&2
    exit 1
fi
if ldd "$work/static" | grep -q libesker; then
    echo "install_test: the static program still needs libesker.so" >&2
    exit 1
fi

cmake -S "$work/program" -B "$work/program/build" -DCMAKE_C_COMPILER="$cc" \
    -DCMAKE_PREFIX_PATH="$work/prefix" >/dev/null
cmake --build "$work/program/build" >/dev/null
check "$work/program/build/with_shared" find_package-shared
check "$work/program/build/with_static" find_package-static
sed -n '/^```c$/,/^```$/p' "$simulation" | sed '/^```/d' >"$work/program/simulation.c"
# shellcheck disable=SC2046 # lists of words
"$cc" -std=c17 -Wall -Wextra -Werror "$work/program/simulation.c" -o "$work/simulation" \
    $(pkg-config --cflags --libs esker-sim)
# shellcheck disable=SC2046 # lists of words
"$cc" -std=c17 -Wall -Wextra -Werror "$work/program/simulation.c" -o "$work/simulation_static" \
    "-L$work/static_only" $(pkg-config --cflags --libs --static esker-sim | sed "s|-L[^ ]*/prefix/[^ ]*||g")
if ldd "$work/simulation_static" | grep -q libesker ||
    [ "$("$work/simulation_static")" != "cut short in every way: the sum held" ]; then
    echo "install_test: the example of simulation.md failed with libesker-sim.a" >&2
    exit 1
fi
if [ "$(LD_LIBRARY_PATH="$lib_dir" "$work/simulation")" != "cut short in every way: the sum held" ]; then
    echo "install_test: the example of simulation.md failed" >&2
    exit 1
fi
echo "a program outside the tree builds and runs in four ways"
