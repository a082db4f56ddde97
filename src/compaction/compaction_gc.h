/* SPDX-License-Identifier: MIT */
/*
 * Which versions survive a merge: one question per row, in iterator order.
 * Rule and proof: compaction_gc.c.
 */
#ifndef ESKER_COMPACTION_COMPACTION_GC_H
#define ESKER_COMPACTION_COMPACTION_GC_H

#include "base/buf.h"
#include "compaction/compaction.h"

struct compaction_gc {
    const struct compaction_spec *spec;
    struct buf key;     /* of the last row that was judged */
    uint64_t lsn;       /* of the last row that was judged */
    size_t kept_stripe; /* of the last row of this key that was kept or stands for a dropped delete */
    bool started;
    bool expired; /* the last row that was judged is a put that has become a delete */
};

enum compaction_verdict {
    COMPACTION_DROP,
    COMPACTION_KEEP,
    COMPACTION_KEEP_NEW_KEY /* keep; no earlier row of this key was kept, so an output may end before it */
};

void compaction_gc_init(struct compaction_gc *gc, const struct compaction_spec *spec);
void compaction_gc_fini(struct compaction_gc *gc);
/* Returns: OK; CORRUPT when the row is not in order; NO_MEMORY. */
NODISCARD esker_status compaction_gc_judge(struct compaction_gc *gc, const struct iter *row,
                                           enum compaction_verdict *verdict_out);

#endif
