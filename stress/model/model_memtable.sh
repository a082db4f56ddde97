#!/bin/sh
# SPDX-License-Identifier: MIT
# model_memtable.sh SCENARIO [MODEL]: one scenario of model_memtable.c under GenMC
# (0.10, built with LLVM 14; $GENMC or from PATH). MODEL: --rc11 (default), --tso, --sc.
#
# The code goes to GenMC flat and without the vectors of what is not called: its
# own inliner and annotations do not end on code like this.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
genmc=$(command -v "${GENMC:-genmc}")
headers=${GENMC_INCLUDE:-$(dirname -- "$genmc")/include}
llvm=${LLVM_BIN:-/usr/lib/llvm-14/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$llvm/clang" -O0 -g0 -w -std=gnu17 -D_GNU_SOURCE -Xclang -disable-O0-optnone -fno-discard-value-names \
    -fno-builtin-memcmp -D__CONFIG_GENMC_INODE_DATA_SIZE=64 -DSCENARIO="$1" -I"$here/src" -I"$here/include" \
    -I"$headers" -S -emit-llvm -o "$work/model.ll" "$here/stress/model/model_memtable.c"
sed -i 's/ noinline / /' "$work/model.ll"
"$llvm/opt" -S -enable-new-pm=0 -internalize -internalize-public-api-list=main -globaldce -inline \
    -inline-threshold=10000000 -sroa -inline -sroa -early-cse -simplifycfg -adce -globaldce \
    -o "$work/flat.ll" "$work/model.ll"
"$genmc" "${2:---rc11}" --disable-estimation --disable-function-inliner --disable-loop-jump-threading \
    --disable-load-annotation --disable-assume-propagation --disable-spin-assume \
    --disable-confirmation-annotation --input-from-bitcode-file "$work/flat.ll"
