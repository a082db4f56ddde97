/* SPDX-License-Identifier: MIT */
/* The peers; one file each, built when its -dev package is there. */
#ifndef ESKER_BENCH_ENGINES_H
#define ESKER_BENCH_ENGINES_H

#include "tools/bench_engine.h"

extern const struct bench_engine bench_engine_rocksdb;
extern const struct bench_engine bench_engine_leveldb;
extern const struct bench_engine bench_engine_lmdb;
extern const struct bench_engine bench_engine_wiredtiger;
extern const struct bench_engine bench_engine_sqlite;

#endif
