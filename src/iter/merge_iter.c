/* SPDX-License-Identifier: MIT */
/*
 * k sorted sources as one: a tournament of losers (Knuth, TAOCP vol. 3,
 * 5.4.1). Leaf i is child i, inner node n keeps whoever lost the match there,
 * and the overall winner is the current row. After the winner has stepped it
 * replays only the matches between its leaf and the root: log2(k) comparisons.
 *
 * A match compares `code` first: eight bytes of the key from offset `skip` on
 * as a number, complemented when walking backwards, so that the smaller code
 * always wins and an exhausted child (all ones) never beats a live one. Equal
 * codes are settled by the whole row: key, then LSN descending, then child
 * index. That order is total: no two rows of a merge are equal in it.
 *
 * skip: keys that agree in their first eight bytes would settle every match
 * the slow way. When that has happened often enough the codes move behind the
 * prefix that all current keys share; `shared` remembers it, and a key that
 * does not begin with it moves them back. An answer never depends on it.
 *
 * Invariants, while positioned, for the current row R of child `winner`:
 *  I1 forward: every other live child stands on its first row after R; a dead
 *     one has no row after R.
 *  I2 backward: the same with "last row before R".
 *  I3 every live child's key starts with shared[0, skip), and codes[] agree
 *     with the keys.
 *  I4 if runner_up is not NONE it is the best of all children but the winner.
 *
 * Turning round follows from I1: one step back takes a child that stands on
 * its first row after R to its last row before R. A source may have taken in
 * newer rows in between (a live memtable does), so the step is repeated until
 * the row really lies on the other side of R.
 *
 * A run of wins of one child ends the tournament: the runner-up is looked up
 * once, and as long as the winner's next row precedes it nothing is replayed.
 *
 * The same is said once for the rows of a block, as a run (iter/iter_run.h): those of
 * the winner's that precede the runner-up's key, in the direction of travel. While it is
 * walked nothing changes here, and I1 to I4 hold again when the winner is told where
 * it ended.
 *
 * After a failed step the iterator is unpositioned; first, last, seek and
 * seek_before position it anew. Concurrency: one thread at a time.
 */
#include "iter/merge_iter.h"

#include "base/assert.h"
#include "iter/iter_run.h"

enum {
    MERGE_SKIP_MAX = 64, /* bytes of prefix remembered */
    MERGE_STREAK = 3,    /* wins in a row before the runner-up is looked up */
    MERGE_TIES_MIN = 32, /* slow matches before a better skip is tried */
    MERGE_TIES_MAX = 1 << 20
};

#define MERGE_NONE UINT32_MAX

struct merge_player {
    uint64_t code;
    uint32_t child;
};

struct merge_iter {
    struct iter base;            /* first: the iterator is this struct */
    struct merge_player *losers; /* [1, count): inner nodes; [0] unused */
    struct iter **children;
    uint32_t count;
    bool positioned;
    bool backward;
    uint32_t winner;
    uint32_t streak;
    struct merge_player runner_up; /* I4 */
    uint32_t skip;
    uint32_t ties, ties_limit; /* slow matches that key bytes decided, since the last change of skip */
    bool *live;
    const struct mem *mem;
    uint8_t shared[MERGE_SKIP_MAX];
};

static struct merge_iter *
merge_of(struct iter *it)
{
    return CONTAINER_OF(it, struct merge_iter, base);
}

/* ---- Matches -------------------------------------------------------------- */

static uint64_t
merge_code(const struct merge_iter *merge, uint32_t child)
{
    if (!merge->live[child]) {
        return UINT64_MAX;
    }
    struct bytes key = merge->children[child]->key;
    uint64_t code = bytes_prefix64(key.ptr + merge->skip, key.len - merge->skip);
    return merge->backward ? ~code : code;
}

/* Row order of two live children's current rows: key, LSN descending, index. */
static int
merge_row_order(struct merge_iter *merge, uint32_t a, uint32_t b)
{
    const struct iter *left = merge->children[a];
    const struct iter *right = merge->children[b];
    int order = bytes_compare(left->key, right->key);
    if (order != 0) {
        merge->ties++;
        return order;
    }
    if (left->lsn != right->lsn) {
        return left->lsn > right->lsn ? -1 : 1;
    }
    return a < b ? -1 : 1;
}

static NOINLINE bool
merge_beats_slow(struct merge_iter *merge, uint32_t a, uint32_t b)
{
    if (!merge->live[a] || !merge->live[b]) {
        return merge->live[a];
    }
    int order = merge_row_order(merge, a, b);
    return merge->backward ? order > 0 : order < 0;
}

ALWAYS_INLINE bool
merge_beats(struct merge_iter *merge, struct merge_player a, struct merge_player b)
{
    if (LIKELY(a.code != b.code)) {
        return a.code < b.code;
    }
    return merge_beats_slow(merge, a.child, b.child);
}

/* Plays `player` from its leaf to the root and makes the last one standing the winner. */
ALWAYS_INLINE void
merge_replay(struct merge_iter *merge, struct merge_player player)
{
    struct merge_player *losers = merge->losers;
    for (uint32_t node = (player.child + merge->count) / 2; node > 0; node /= 2) {
        struct merge_player other = losers[node];
        /* Who wins cannot be predicted, so the two change places by mask, not by branch. */
        uint64_t lost = 0 - (uint64_t)merge_beats(merge, other, player);
        __asm__("" : "+r"(lost)); /* or the compiler finds the branch again */
        uint64_t code = (player.code ^ other.code) & lost;
        uint32_t child = (player.child ^ other.child) & (uint32_t)lost;
        losers[node].code = other.code ^ code;
        losers[node].child = other.child ^ child;
        player.code ^= code;
        player.child ^= child;
    }
    merge->winner = player.child;
}

/* All matches from the leaves up. The first to reach a node waits there for the other. */
static void
merge_play_all(struct merge_iter *merge)
{
    struct merge_player *losers = merge->losers;
    for (uint32_t node = 0; node < merge->count; node++) {
        losers[node].child = MERGE_NONE;
    }
    for (uint32_t child = 0; child < merge->count; child++) {
        struct merge_player player = {.code = merge_code(merge, child), .child = child};
        uint32_t node = (child + merge->count) / 2;
        while (node > 0 && losers[node].child != MERGE_NONE) {
            if (merge_beats(merge, losers[node], player)) {
                struct merge_player winner = losers[node];
                losers[node] = player;
                player = winner;
            }
            node /= 2;
        }
        if (node > 0) {
            losers[node] = player;
        } else {
            merge->winner = player.child;
        }
    }
    merge->runner_up.child = MERGE_NONE;
    merge->streak = 0;
}

/* The best of all others lost its match against the winner: it is on the path. */
static void
merge_find_runner_up(struct merge_iter *merge)
{
    uint32_t node = (merge->winner + merge->count) / 2;
    struct merge_player best = merge->losers[node];
    for (node /= 2; node > 0; node /= 2) {
        if (merge_beats(merge, merge->losers[node], best)) {
            best = merge->losers[node];
        }
    }
    merge->runner_up = best;
}

/* ---- The shared prefix ------------------------------------------------------ */

static bool
merge_starts_with_shared(const struct merge_iter *merge, struct bytes key)
{
    return key.len >= merge->skip && memcmp(key.ptr, merge->shared, merge->skip) == 0;
}

/* Moves the codes behind what the live children's keys have in common now. */
static void
merge_choose_skip(struct merge_iter *merge)
{
    uint32_t skip = 0;
    bool have_first = false;
    size_t live_count = 0;
    for (uint32_t child = 0; child < merge->count; child++) {
        if (!merge->live[child]) {
            continue;
        }
        struct bytes key = merge->children[child]->key;
        live_count++;
        if (!have_first) {
            have_first = true;
            skip = (uint32_t)MIN(key.len, (size_t)MERGE_SKIP_MAX);
            if (skip > 0) {
                memcpy(merge->shared, key.ptr, skip);
            }
            continue;
        }
        uint32_t agree = 0;
        uint32_t most = (uint32_t)MIN(key.len, (size_t)skip);
        while (agree < most && key.ptr[agree] == merge->shared[agree]) {
            agree++;
        }
        skip = agree;
    }
    if (live_count < 2) {
        skip = 0; /* nobody to compare with, and the next key would leave the prefix at once */
    }
    /* Where skipping does not help, ask less and less often. */
    bool helped = skip > merge->skip;
    merge->ties_limit = helped ? MERGE_TIES_MIN : MIN(2 * merge->ties_limit, (uint32_t)MERGE_TIES_MAX);
    merge->ties = 0;
    merge->skip = skip;
    merge_play_all(merge);
}

/* ---- Steps ------------------------------------------------------------------ */

/* alone: every other child stands on another key, or on none. */
static esker_status
merge_publish(struct merge_iter *merge, bool alone)
{
    if (!merge->live[merge->winner]) {
        merge->positioned = false;
        return ESKER_END;
    }
    const struct iter *source = merge->children[merge->winner];
    merge->base.key = source->key;
    merge->base.value = source->value;
    merge->base.lsn = source->lsn;
    merge->base.op = source->op;
    merge->base.heat = source->heat;
    merge->base.only = alone && source->only;
    return ESKER_OK;
}

/* Takes the result of a child's step: END makes it dead, a failure unpositions the merge. */
static esker_status
merge_take(struct merge_iter *merge, uint32_t child, esker_status status)
{
    merge->live[child] = status == ESKER_OK;
    if (LIKELY(status == ESKER_OK || status == ESKER_END)) {
        return ESKER_OK;
    }
    merge->positioned = false;
    return status;
}

static esker_status
merge_step_child(struct merge_iter *merge, uint32_t child)
{
    struct iter *source = merge->children[child];
    return merge_take(merge, child, merge->backward ? iter_prev(source) : iter_next(source));
}

/* The winner goes one row on in the current direction, and a new one is found. */
ALWAYS_INLINE esker_status
merge_advance(struct merge_iter *merge)
{
    uint32_t child = merge->winner;
    TRY(merge_step_child(merge, child));
    if (merge->skip > 0 && merge->live[child] &&
        !merge_starts_with_shared(merge, merge->children[child]->key)) {
        merge_choose_skip(merge);
        return merge_publish(merge, false);
    }
    struct merge_player player = {.code = merge_code(merge, child), .child = child};
    if (merge->runner_up.child != MERGE_NONE) {
        if (LIKELY(merge_beats(merge, player, merge->runner_up))) {
            return merge_publish(merge, player.code != merge->runner_up.code);
        }
        merge->runner_up.child = MERGE_NONE;
        merge->streak = 0;
    }
    merge_replay(merge, player);
    merge->streak = merge->winner == child ? merge->streak + 1 : 0;
    if (merge->streak == MERGE_STREAK) {
        merge_find_runner_up(merge);
    }
    if (UNLIKELY(merge->ties > merge->ties_limit)) {
        merge_choose_skip(merge);
    }
    return merge_publish(merge, false);
}

/* Brings one child over to the other side of the current row; merge->backward
 * already says which way it goes now. */
static esker_status
merge_turn_child(struct merge_iter *merge, uint32_t child)
{
    struct iter *source = merge->children[child];
    bool backward = merge->backward;
    if (merge->live[child]) {
        TRY(merge_step_child(merge, child));
    } else {
        TRY(merge_take(merge, child, backward ? iter_last(source) : iter_first(source)));
    }
    while (merge->live[child] && (merge_row_order(merge, child, merge->winner) > 0) == backward) {
        TRY(merge_step_child(merge, child));
    }
    return ESKER_OK;
}

static esker_status
merge_turn(struct merge_iter *merge)
{
    merge->backward = !merge->backward;
    for (uint32_t child = 0; child < merge->count; child++) {
        if (child != merge->winner) {
            TRY(merge_turn_child(merge, child));
        }
    }
    TRY(merge_step_child(merge, merge->winner));
    merge->skip = 0;
    merge_play_all(merge);
    return merge_publish(merge, false);
}

static esker_status
merge_next(struct iter *it)
{
    struct merge_iter *merge = merge_of(it);
    ASSERT(merge->positioned);
    return UNLIKELY(merge->backward) ? merge_turn(merge) : merge_advance(merge);
}

static esker_status
merge_prev(struct iter *it)
{
    struct merge_iter *merge = merge_of(it);
    ASSERT(merge->positioned);
    return UNLIKELY(!merge->backward) ? merge_turn(merge) : merge_advance(merge);
}

/* ---- Positioning -------------------------------------------------------------- */

static void
merge_begin(struct merge_iter *merge, bool backward)
{
    merge->positioned = true;
    merge->backward = backward;
    merge->skip = 0;
    merge->ties = 0;
    merge->ties_limit = MERGE_TIES_MIN;
}

static esker_status
merge_first(struct iter *it)
{
    struct merge_iter *merge = merge_of(it);
    merge_begin(merge, false);
    for (uint32_t child = 0; child < merge->count; child++) {
        TRY(merge_take(merge, child, iter_first(merge->children[child])));
    }
    merge_play_all(merge);
    return merge_publish(merge, false);
}

static esker_status
merge_last(struct iter *it)
{
    struct merge_iter *merge = merge_of(it);
    merge_begin(merge, true);
    for (uint32_t child = 0; child < merge->count; child++) {
        TRY(merge_take(merge, child, iter_last(merge->children[child])));
    }
    merge_play_all(merge);
    return merge_publish(merge, false);
}

static esker_status
merge_seek(struct iter *it, struct bytes key)
{
    struct merge_iter *merge = merge_of(it);
    merge_begin(merge, false);
    for (uint32_t child = 0; child < merge->count; child++) {
        TRY(merge_take(merge, child, iter_seek(merge->children[child], key)));
    }
    merge_play_all(merge);
    return merge_publish(merge, false);
}

static esker_status
merge_seek_before(struct iter *it, struct bytes key)
{
    struct merge_iter *merge = merge_of(it);
    merge_begin(merge, true);
    for (uint32_t child = 0; child < merge->count; child++) {
        TRY(merge_take(merge, child, iter_seek_before(merge->children[child], key)));
    }
    merge_play_all(merge);
    return merge_publish(merge, false);
}

/* ---- Runs ---------------------------------------------------------------------- */

/* Cuts off what is not before `key`, the runner-up's, in the direction of travel. */
static void
merge_run_clip(const struct merge_iter *merge, struct bytes key, struct iter_run *run)
{
    const struct block *block = run->block;
    if (!merge->backward) {
        if (block_key_compare(block, run->to, key) >= 0) {
            uint32_t row = block_seek(block, key);
            run->to = row > run->row ? row - 1 : run->row;
        }
        return;
    }
    if (block_key_compare(block, run->from, key) <= 0) {
        uint32_t row = block_seek(block, key);
        while (row < run->row && block_key_compare(block, row, key) == 0) {
            row++;
        }
        run->from = MIN(row, run->row);
    }
}

static bool
merge_run(struct iter *it, uint64_t snapshot_lsn, struct iter_run *out)
{
    struct merge_iter *merge = merge_of(it);
    struct iter *source = merge->children[merge->winner];
    struct iter_run run;
    if (merge->runner_up.child == MERGE_NONE || source->ops->run == NULL ||
        !source->ops->run(source, snapshot_lsn, &run)) {
        return false;
    }
    /* Behind the row the others do not stand where a walk that way would need them. */
    *(merge->backward ? &run.to : &run.from) = run.row;
    if (merge->live[merge->runner_up.child]) {
        merge_run_clip(merge, merge->children[merge->runner_up.child]->key, &run);
    }
    if (run.from == run.to) {
        return false; /* the runner-up may even stand on the same key */
    }
    *out = run;
    return true;
}

static void
merge_run_end(struct iter *it, uint32_t row)
{
    struct merge_iter *merge = merge_of(it);
    struct iter *source = merge->children[merge->winner];
    source->ops->run_end(source, row);
    (void)merge_publish(merge, true);
}

/* ---- Life ---------------------------------------------------------------------- */

static void
merge_destroy(struct iter *it)
{
    struct merge_iter *merge = merge_of(it);
    for (uint32_t child = 0; child < merge->count; child++) {
        iter_destroy(merge->children[child]);
    }
    mem_free(merge->mem, merge->live);
    mem_free(merge->mem, merge->losers);
    mem_free(merge->mem, merge->children);
    mem_free(merge->mem, merge);
}

static const struct iter_ops merge_ops = {
    .first = merge_first,
    .last = merge_last,
    .seek = merge_seek,
    .seek_before = merge_seek_before,
    .next = merge_next,
    .prev = merge_prev,
    .destroy = merge_destroy,
    .run = merge_run,
    .run_end = merge_run_end,
};

/* With no source at all: every way of positioning ends at END. */
static esker_status
merge_none_edge(struct iter *it)
{
    (void)it;
    return ESKER_END;
}

static esker_status
merge_none_seek(struct iter *it, struct bytes key)
{
    (void)it;
    (void)key;
    return ESKER_END;
}

static const struct iter_ops merge_none_ops = {
    .first = merge_none_edge,
    .last = merge_none_edge,
    .seek = merge_none_seek,
    .seek_before = merge_none_seek,
    .next = merge_none_edge,
    .prev = merge_none_edge,
    .destroy = merge_destroy,
};

esker_status
merge_iter_create(struct iter **children, size_t count, const struct mem *mem, struct iter **out)
{
    ASSERT(count < MERGE_NONE / 2);
    if (count == 1) {
        *out = children[0];
        return ESKER_OK;
    }
    struct merge_iter *merge = mem_zalloc(mem, sizeof *merge);
    if (merge == NULL) {
        goto no_memory;
    }
    merge->base.ops = count == 0 ? &merge_none_ops : &merge_ops;
    merge->mem = mem;
    if (count > 0) {
        merge->children = mem_alloc_array(mem, count, sizeof *merge->children);
        merge->losers = mem_alloc_array(mem, count, sizeof *merge->losers);
        merge->live = mem_zalloc_array(mem, count, sizeof *merge->live);
        if (merge->children == NULL || merge->losers == NULL || merge->live == NULL) {
            goto no_memory;
        }
        memcpy(merge->children, children, count * sizeof *children);
        merge->count = (uint32_t)count;
    }
    *out = &merge->base;
    return ESKER_OK;

no_memory:
    if (merge != NULL) {
        merge_destroy(&merge->base); /* count is still 0: frees the arrays only */
    }
    for (size_t i = 0; i < count; i++) {
        iter_destroy(children[i]);
    }
    return FAIL_NO_MEMORY("a merging iterator");
}
