/* SPDX-License-Identifier: MIT */
/*
 * ck's epoch for the model checker, which cannot read ck's assembly: the part
 * that src/sync/ uses, with the same barriers, and a grace period in its
 * shortest form. That ck itself keeps this contract is not shown here.
 */
#ifndef ESKER_STRESS_MODEL_GENMC_CK_EPOCH_H
#define ESKER_STRESS_MODEL_GENMC_CK_EPOCH_H

#include <stdatomic.h>
#include <stdbool.h>

#include <ck_stack.h>

struct ck_epoch_record {
    struct ck_epoch_record *next;
    _Atomic unsigned int active;
};

struct ck_epoch {
    _Atomic(struct ck_epoch_record *) records;
};

typedef struct ck_epoch_record ck_epoch_record_t;
typedef struct ck_epoch ck_epoch_t;
typedef struct ck_epoch_section ck_epoch_section_t;
typedef void ck_epoch_wait_cb_t(ck_epoch_t *, ck_epoch_record_t *, void *);

#define ck_pr_fence_load() ((void)0)

static inline void
ck_epoch_begin(ck_epoch_record_t *record, ck_epoch_section_t *section)
{
    (void)section;
    atomic_store_explicit(&record->active, 1, memory_order_relaxed);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static inline bool
ck_epoch_end(ck_epoch_record_t *record, ck_epoch_section_t *section)
{
    (void)section;
    atomic_store_explicit(&record->active, 0, memory_order_release);
    return true;
}

static inline void
ck_epoch_init(ck_epoch_t *epoch)
{
    atomic_store_explicit(&epoch->records, (ck_epoch_record_t *)0, memory_order_relaxed);
}

static inline void
ck_epoch_register(ck_epoch_t *epoch, ck_epoch_record_t *record, void *ctx)
{
    (void)ctx;
    record->next = atomic_load_explicit(&epoch->records, memory_order_relaxed);
    while (!atomic_compare_exchange_strong(&epoch->records, &record->next, record)) {
    }
}

static inline void
ck_epoch_synchronize_wait(ck_epoch_t *epoch, ck_epoch_wait_cb_t *callback, void *ctx)
{
    (void)callback, (void)ctx;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ck_epoch_record_t *record = atomic_load(&epoch->records);
    for (; record != (ck_epoch_record_t *)0; record = record->next) {
        __VERIFIER_assume(atomic_load(&record->active) == 0);
    }
}

#endif
