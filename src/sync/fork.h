/* SPDX-License-Identifier: MIT */
/*
 * What has to happen around fork(): `prepare` before it, in the forking
 * thread, usually taking locks so that the child's copy is whole; `parent`
 * and `child` after it, giving them up. The child's handler runs before
 * fork() returns there, with one thread, and may make only calls that are
 * safe in a signal handler. Hooks stay for the life of the process: a caller
 * adds its own once.
 */
#ifndef ESKER_SYNC_FORK_H
#define ESKER_SYNC_FORK_H

#include <pthread.h>

/* Returns 0, or an errno (no memory) and nothing is added. */
static inline int
fork_hooks_add(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    return pthread_atfork(prepare, parent, child);
}

#endif
