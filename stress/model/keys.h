/* SPDX-License-Identifier: MIT */
/*
 * Keys in a window as the memtable's writers leave them, for the harnesses of
 * its parts: entry i at [i + 1], of 16 bytes, a key of 7 bytes at most. The
 * hash is the model's own: GenMC does not know vector code.
 */
#ifndef ESKER_STRESS_MODEL_KEYS_H
#define ESKER_STRESS_MODEL_KEYS_H

#define ESKER_BASE_HASH_H
#define hash64(ptr, len, seed) ((uint64_t)(uintptr_t)(ptr) + (len) + (seed))
#define hash_mix(a, b) ((a) ^ (b))
#define ESKER_RACE_POINT(name) model_pause()
#ifndef ESKER_RACE_POINT_HELD
#define ESKER_RACE_POINT_HELD(name) model_pause()
#endif

#include "base/bytes.h"

enum { MODEL_KEYS = 24, MODEL_UNITS = 2 }; /* granules of an entry */

static struct {
    uint8_t op, flags;
    uint16_t klen;
    uint32_t vlen;
    char key[8];
} model_entries[MODEL_KEYS + 1];

static inline void
model_key_set(uint32_t entry, const char *key)
{
    model_entries[entry + 1].op = 1; /* ENTRY_PUT */
    model_entries[entry + 1].klen = 0;
    for (; *key != 0; key++) {
        model_entries[entry + 1].key[model_entries[entry + 1].klen++] = *key;
    }
}

/* ---- `visible` in its shortest form: how many entries are, in order ----------- */

static _Atomic uint32_t model_visible;
static _Atomic uint32_t model_applied[2];

static inline void
model_visible_reset(uint32_t old)
{
    store_relaxed(&model_visible, old);
    store_relaxed(&model_applied[0], 0);
    store_relaxed(&model_applied[1], 0);
}

/* Entry old + model_self is complete. */
static inline void
model_publish(uint32_t old)
{
    atomic_exchange(&model_applied[model_self], 1);
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t found = old + i;
        if (atomic_load(&model_applied[i]) != 0) {
            atomic_compare_exchange_strong(&model_visible, &found, old + i + 1);
        }
    }
}

/* Of so many cases one after the other; the model checker is told which. */
static inline uint32_t
model_next_case(uint32_t count)
{
    static uint32_t next;
    return MODEL_BOUND(next++ % count, MODEL_CASE % count);
}

#ifdef MODEL_GENMC
/* Whoever finds a node locked waits: only executions in which it is free then go on. A restart goes on. */
#undef cpu_relax
#define cpu_relax() __VERIFIER_assume(__func__[4] != 'l')

#ifndef memcmp
int
memcmp(const void *a, const void *b, size_t len)
{
    const uint8_t *left = a;
    const uint8_t *right = b;
    for (size_t i = 0; i < len; i++) {
        if (left[i] != right[i]) {
            return left[i] - right[i];
        }
    }
    return 0;
}
#endif
#endif

#endif
