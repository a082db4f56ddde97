/* SPDX-License-Identifier: MIT */
/* What the model checker's pthread.h lacks and the headers of the tree name. */
#ifndef ESKER_STRESS_MODEL_GENMC_LACKING_H
#define ESKER_STRESS_MODEL_GENMC_LACKING_H

typedef struct {
    int unused;
} pthread_cond_t;

typedef int pthread_key_t;
typedef int pthread_once_t;

enum { PTHREAD_CANCEL_ENABLE, PTHREAD_CANCEL_DISABLE };

int pthread_setcancelstate(int state, int *before);
int pthread_once(pthread_once_t *once, void (*run)(void));
int pthread_key_create(pthread_key_t *key, void (*destructor)(void *));
int pthread_setspecific(pthread_key_t key, const void *value);
int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));

#endif
