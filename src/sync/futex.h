/* SPDX-License-Identifier: MIT */
/* Waiting for a word to change, in one process. */
#ifndef ESKER_SYNC_FUTEX_H
#define ESKER_SYNC_FUTEX_H

#include "sync/atomic.h"

/* Sleeps while *word == expected; may return early. timeout_ns: relative, 0 = no limit. */
void futex_wait(_Atomic uint32_t *word, uint32_t expected, uint64_t timeout_ns);
void futex_wake_all(_Atomic uint32_t *word);

#endif
