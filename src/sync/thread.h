/* SPDX-License-Identifier: MIT */
/* The engine's own threads: named, deaf to signals, with small stacks. */
#ifndef ESKER_SYNC_THREAD_H
#define ESKER_SYNC_THREAD_H

#include <pthread.h>

#include "base/status.h"

/* name: at most 15 bytes. The thread must be joined. */
NODISCARD esker_status thread_start(pthread_t *thread_out, const char *name, void *(*run)(void *arg),
                                    void *arg);
void thread_join(pthread_t thread);

#endif
