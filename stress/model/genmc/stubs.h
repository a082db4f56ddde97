/* SPDX-License-Identifier: MIT */
/*
 * Functions of the tree and of the C library that harnesses reach under the
 * model checker, in the shortest form that it understands.
 */
#ifndef ESKER_STRESS_MODEL_GENMC_STUBS_H
#define ESKER_STRESS_MODEL_GENMC_STUBS_H

#include <stdio.h>

#include "base/status.h"
#include "sync/mutex.h"

#define snprintf(...) ((void)0)
/* The reason of a failure is not looked at. */
#undef STATUS_FAIL
#define STATUS_FAIL(status, ...) (status)

const esker_error *
status_last(void)
{
    static const esker_error none;
    return &none;
}

void
mutex_init(struct mutex *mutex)
{
    (void)mutex; /* all zeros, as the memory is */
}

void
mutex_fini(struct mutex *mutex)
{
    (void)mutex;
}

int
pthread_once(pthread_once_t *once, void (*run)(void))
{
    (void)once;
    run();
    return 0;
}

int
pthread_key_create(pthread_key_t *key, void (*destructor)(void *))
{
    (void)key, (void)destructor;
    return 0;
}

int
pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare, (void)parent, (void)child;
    return 0;
}

/* What the compiler makes of objects that are cleared as bytes (genmc.sh). Static memory is
 * fresh, so zero; the model checker gives it the upper half of all addresses. */
void
model_clear(char *to, char value, uint64_t bytes, bool is_volatile)
{
    (void)is_volatile;
    assert(value == 0 && ((intptr_t)to < 0 || bytes % 8 == 0));
    for (uint64_t at = 0; (intptr_t)to > 0 && at < bytes / 8; at++) {
        ((uint64_t *)(void *)to)[at] = 0;
    }
}

/* The same for arrays that are copied; nobody looks at parts of these words. */
void
model_copy(char *to, const char *from, uint64_t bytes, bool is_volatile)
{
    (void)is_volatile;
    assert(bytes % 8 == 0);
    for (uint64_t at = 0; at < bytes / 8; at++) {
        ((uint64_t *)(void *)to)[at] = ((const uint64_t *)(const void *)from)[at];
    }
}

#endif
