/* SPDX-License-Identifier: MIT */
/* Objects to retire, which notice a second free, and a thread that stays in its section; for tests. */
#ifndef ESKER_SYNC_EPOCH_TESTING_H
#define ESKER_SYNC_EPOCH_TESTING_H

#include <stdlib.h>
#include <unistd.h>

#include "sync/epoch.h"

struct epoch_test_object {
    struct epoch_node node;
    uint64_t value;
    uint64_t check; /* ~value while alive */
    struct epoch_test_object *child;
};

static _Atomic uint32_t epoch_test_freed;
static _Atomic uint32_t epoch_test_made;

static inline struct epoch_test_object *
epoch_test_make(uint64_t value)
{
    struct epoch_test_object *object = (struct epoch_test_object *)calloc(1, sizeof *object);
    if (object == NULL) {
        abort();
    }
    object->value = value;
    object->check = ~value;
    add_relaxed(&epoch_test_made, 1); /* relaxed: read after joins */
    return object;
}

static inline void
epoch_test_free(struct epoch_node *node)
{
    struct epoch_test_object *object = CONTAINER_OF(node, struct epoch_test_object, node);
    if (object->value != ~object->check) {
        abort(); /* freed twice */
    }
    if (object->child != NULL) {
        epoch_retire(&object->child->node, epoch_test_free);
    }
    /* volatile: or the compiler leaves out what it sees freed. */
    *(volatile uint64_t *)&object->value = 0xdddddddddddddddd;
    *(volatile uint64_t *)&object->check = 0xdddddddddddddddd;
    free(object);
    add_relaxed(&epoch_test_freed, 1); /* relaxed: read after a drain */
}

static inline uint32_t
epoch_test_freed_count(void)
{
    return load_relaxed(&epoch_test_freed); /* relaxed: read after a drain */
}

/* Words, not a lock: no section may take one, not even this. */
struct epoch_test_gate {
    _Atomic uint32_t entered;
    _Atomic uint32_t leave;
};

static inline void *
epoch_test_stay(void *arg)
{
    struct epoch_test_gate *gate = (struct epoch_test_gate *)arg;
    struct thread_state *self = thread_state_get();
    epoch_enter(self);
    store_seq(&gate->entered, 1);             /* pairs: EPOCH_TEST_GATE - the section has begun */
    while (load_acquire(&gate->leave) == 0) { /* pairs: EPOCH_TEST_GATE */
        usleep(100);
    }
    epoch_exit(self);
    return NULL;
}

/* Returns when the section of epoch_test_stay has begun. */
static inline void
epoch_test_gate_await(struct epoch_test_gate *gate)
{
    while (load_seq(&gate->entered) == 0) { /* pairs: EPOCH_TEST_GATE */
        usleep(100);
    }
}

static inline void
epoch_test_gate_open(struct epoch_test_gate *gate)
{
    store_release(&gate->leave, 1); /* pairs: EPOCH_TEST_GATE */
}

#endif
