/* SPDX-License-Identifier: MIT */
/*
 * Which versions survive a merge.
 *
 * The live snapshots s1 <= s2 <= ... cut the LSNs into stripes: the stripe of
 * a version v is the number of boundaries <= v. A reader at s sees v iff v < s.
 *
 *   LSN        0 ....... s1 ....... s2 ....... s3 .......
 *   stripe         0          1          2          3
 *
 * Rule. Of each key
 *   R1  the newest version of each stripe is kept, the others are dropped;
 *   R2  but a delete of stripe 0 is dropped where no deeper level can hold the
 *       key (and R1 drops what is older in stripe 0 all the same).
 *
 * Why no reader can tell.
 *  R1: let u < v be versions of one key in one stripe. No boundary lies in
 *      (u, v], so every snapshot that sees u sees v too, and so does every
 *      later reader; u is never the newest version that somebody sees.
 *  R2: let d be the newest version of stripe 0, a delete. A reader whose newest
 *      visible version is d finds the key absent. Without d he finds nothing
 *      here, since whatever is older lies in stripe 0 too and goes by R1;
 *      nothing deeper, by assumption; and nothing in shallower levels, since
 *      there all versions of the key are newer than all versions here, and he
 *      does not see any newer than d. So he finds the key absent.
 *      Any delete that is the oldest kept version of its key could go by the
 *      same reasoning. Those of stripe >= 1 stay because they are evidence: a
 *      batch that requires a key to be unchanged since a live snapshot must
 *      see that the key was touched, even if it was put and deleted in between.
 *
 * A put that has expired by spec->now_ms is a delete, here and in what is written:
 * readers find the key absent by the same clock, which never goes back by more
 * than it takes them to notice (db_expiry.c).
 *
 * Streaming: versions come newest first, so stripes only fall, and comparing
 * with the stripe kept last decides R1; a delete of stripe 0 needs no look
 * ahead. The same row twice (two sources that hold one version) is one stripe,
 * so one of them goes.
 *
 * Rows may come from damaged files whose checksums hold. Order is checked, and
 * its violation is CORRUPT: judging on would drop the wrong versions.
 */
#include "compaction/compaction_gc.h"
#include "base/mutant.h"

void
compaction_gc_init(struct compaction_gc *gc, const struct compaction_spec *spec)
{
    *gc = (struct compaction_gc){.spec = spec};
    buf_init(&gc->key, spec->mem);
}

void
compaction_gc_fini(struct compaction_gc *gc)
{
    buf_fini(&gc->key);
}

/* How many boundaries are <= lsn. */
static size_t
compaction_gc_stripe(const struct compaction_spec *spec, uint64_t lsn)
{
    size_t low = 0;
    size_t high = MUTANT(16) ? 0 : spec->stripe_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (spec->stripes[middle] <= lsn) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static bool
compaction_gc_nothing_deeper(const struct compaction_spec *spec, struct bytes key)
{
    return spec->drop_deletes || (spec->deeper != NULL && !spec->deeper(spec->ctx, key));
}

esker_status
compaction_gc_judge(struct compaction_gc *gc, const struct iter *row, enum compaction_verdict *verdict_out)
{
    const struct compaction_spec *spec = gc->spec;
    int order = gc->started ? bytes_compare(buf_bytes(&gc->key), row->key) : -1;
    if (UNLIKELY(order > 0 || (order == 0 && gc->lsn < row->lsn))) {
        return FAIL(ESKER_CORRUPT, "the rows to be merged are out of order");
    }
    bool new_key = order < 0;
    if (new_key) {
        TRY(buf_assign(&gc->key, row->key));
        gc->started = true;
    }
    gc->lsn = row->lsn;
    gc->expired = row->op == ENTRY_PUT_EXPIRING && entry_expiry_ms(row->value) <= spec->now_ms;
    size_t stripe = compaction_gc_stripe(spec, row->lsn);
    if (!new_key && stripe == gc->kept_stripe) {
        *verdict_out = COMPACTION_DROP; /* R1 */
        return ESKER_OK;
    }
    gc->kept_stripe = stripe;
    if ((row->op == ENTRY_DELETE || gc->expired) && stripe == 0 &&
        compaction_gc_nothing_deeper(spec, row->key)) {
        *verdict_out = COMPACTION_DROP; /* R2 */
        return ESKER_OK;
    }
    *verdict_out = new_key ? COMPACTION_KEEP_NEW_KEY : COMPACTION_KEEP;
    return ESKER_OK;
}
