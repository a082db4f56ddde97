/* SPDX-License-Identifier: MIT */
/* esker beside its peers: the same workloads as `esker bench`, more engines. */
#include "engines.h"

#include "tools/bench_command.h"

int
main(int argc, char **argv)
{
    static const struct bench_engine *const engines[] = {
        &bench_engine_esker,
#ifdef BENCH_WITH_ROCKSDB
        &bench_engine_rocksdb,
#endif
#ifdef BENCH_WITH_LEVELDB
        &bench_engine_leveldb,
#endif
#ifdef BENCH_WITH_LMDB
        &bench_engine_lmdb,
#endif
#ifdef BENCH_WITH_WIREDTIGER
        &bench_engine_wiredtiger,
#endif
#ifdef BENCH_WITH_SQLITE
        &bench_engine_sqlite,
#endif
    };
    return bench_command(argc, argv, engines, COUNTOF(engines));
}
