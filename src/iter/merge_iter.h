/* SPDX-License-Identifier: MIT */
/* k sorted sources as one, by a loser tree over cached 8-byte key prefixes. */
#ifndef ESKER_ITER_MERGE_ITER_H
#define ESKER_ITER_MERGE_ITER_H

#include "base/mem.h"
#include "iter/iter.h"

/* Takes over the children (destroys them with itself, also when it fails).
 * Of equal (key, lsn) rows the one of the lower child index comes first.
 * count may be 0 (always at END) or 1 (returned as is). The key given to seek
 * and seek_before must not lie in a row of the iterator itself. */
NODISCARD esker_status merge_iter_create(struct iter **children, size_t count, const struct mem *mem,
                                         struct iter **out);

#endif
