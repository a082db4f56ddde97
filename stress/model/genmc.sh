#!/bin/sh
# SPDX-License-Identifier: MIT
# genmc.sh MODEL [MUTANT [MEMORY]]: every execution of one harness under GenMC
# (0.10, built with LLVM 14; $GENMC or from PATH). MODEL: visible, tail, ...
# MEMORY: --rc11 (default), --tso, --sc. $CASE: which case of a harness that has several.
# Without a mutant, or with NO_MUTANT, no error may be found; with one, an error should be.
#
# The code goes to GenMC flat: its own inliner does not end on code like this. Structs
# that are copied it takes apart itself; arrays that are copied, and what is cleared,
# become calls that it understands.
set -eu
here=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
genmc=$(command -v "${GENMC:-genmc}")
headers=${GENMC_INCLUDE:-$(dirname -- "$genmc")/include}
llvm=${LLVM_BIN:-/usr/lib/llvm-14/bin}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$llvm/clang" -O0 -g0 -w -std=gnu17 -D_GNU_SOURCE -fno-builtin-memcmp \
    -DMODEL_GENMC -DMODEL_MUTANT="${2:-NO_MUTANT}" -DMODEL_CASE="${CASE:-0}" \
    -Xclang -disable-O0-optnone -fno-discard-value-names -D__CONFIG_GENMC_INODE_DATA_SIZE=64 \
    -I"$here/stress/model/genmc" -I"$here/stress/model" -I"$here/src" -I"$here/include" -I"$headers" \
    -S -emit-llvm -o "$work/model.ll" "$here/stress/model/model_$1.c"
sed -i 's/ noinline / /' "$work/model.ll"
"$llvm/opt" -S -enable-new-pm=0 -internalize -internalize-public-api-list=main,model_clear,model_copy \
    -globaldce -inline -inline-threshold=10000000 -sroa -inline -sroa -early-cse -simplifycfg -adce \
    -memcpyopt -dse -globaldce -o "$work/flat.ll" "$work/model.ll"
sed -i -e '/^declare void @llvm.memset/d' -e 's/@llvm.memset.p0i8.i64/@model_clear/' \
    -e '/%arraydecay/s/@llvm.memcpy.p0i8.p0i8.i64/@model_copy/' "$work/flat.ll"
"$genmc" "${3:---rc11}" --disable-estimation --disable-function-inliner --disable-loop-jump-threading \
    --disable-load-annotation --disable-assume-propagation --disable-spin-assume \
    --disable-confirmation-annotation --input-from-bitcode-file "$work/flat.ll"
