/* SPDX-License-Identifier: MIT */
/* The one type of ck's stack that src/sync/ uses; for the model checker. */
#ifndef ESKER_STRESS_MODEL_GENMC_CK_STACK_H
#define ESKER_STRESS_MODEL_GENMC_CK_STACK_H

struct ck_stack_entry {
    struct ck_stack_entry *next;
};

typedef struct ck_stack_entry ck_stack_entry_t;

#endif
