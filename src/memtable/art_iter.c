/* SPDX-License-Identifier: MIT */
/*
 * The cursor over the leaves: a path of (node, position) from the root.
 *
 * Concurrency: wait-free. Steps look only at nodes on the path, which are never
 * changed but by additions; when one was replaced by a larger copy the cursor
 * goes on in the old one, which has everything that was there when the cursor
 * came. So what was looked up early (a small node's children in key order, a
 * large node's next child) stays good. No recursion: a path can be as long as
 * the longest key.
 *
 * A walk is bound by cache misses and mispredicted branches: small nodes are
 * sorted once, without branches, when the path first moves in them, and nodes
 * that it will come to are fetched early.
 */
#include "memtable/art.h"

enum { ART_POS_BEFORE = -1, ART_POS_BEHIND = 257, ART_SMALL_LANES = 16 };

/* 16 signed bytes that the compiler may keep in one register. */
typedef int8_t art_lanes __attribute__((vector_size(ART_SMALL_LANES)));

void
art_cursor_init(struct art_cursor *cursor, const struct art *art, const struct mem *mem)
{
    cursor->art = art;
    cursor->mem = mem;
    cursor->leaf = 0;
    cursor->forward = true;
    cursor->depth = 0;
    cursor->cap = ART_CURSOR_INLINE_DEPTH;
    cursor->frames = cursor->inline_frames;
}

void
art_cursor_fini(struct art_cursor *cursor)
{
    if (cursor->frames != cursor->inline_frames) {
        mem_free(cursor->mem, cursor->frames);
    }
}

static esker_status
art_cursor_enter(struct art_cursor *cursor, uint32_t node, int16_t pos)
{
    if (UNLIKELY(cursor->depth == cursor->cap)) {
        uint32_t cap = cursor->cap * 2;
        struct art_frame *frames = mem_alloc_array(cursor->mem, cap, sizeof *frames);
        if (frames == NULL) {
            return FAIL_NO_MEMORY("an iterator's path");
        }
        memcpy(frames, cursor->frames, cursor->depth * sizeof *frames);
        art_cursor_fini(cursor);
        cursor->frames = frames;
        cursor->cap = cap;
    }
    struct art_frame *frame = &cursor->frames[cursor->depth++];
    frame->node = node;
    frame->pos = pos;
    frame->sorted = false;
    frame->ahead = 0;
    return ESKER_OK;
}

/* ---- Small nodes: node4 and node16 ------------------------------------------ */

static uint32_t
art_small_child(const struct art_node *node, uint32_t place)
{
    /* pairs: ART_CHILD */
    return node->type == ART_NODE4 ? load_acquire(&((const struct art_node4 *)node)->children[place])
                                   : load_acquire(&((const struct art_node16 *)node)->children[place]);
}

/* Key bytes in order of arrival; lanes beyond the node's count are rubbish. */
static art_lanes
art_small_bytes(const struct art_node *node)
{
    uint64_t words[2] = {0, 0};
    /* relaxed: the first `count` bytes never change and were released by count. */
    if (node->type == ART_NODE4) {
        words[0] = load_relaxed(&((const struct art_node4 *)node)->bytes); /* relaxed: as above */
    } else {
        words[0] = load_relaxed(&((const struct art_node16 *)node)->bytes[0]); /* relaxed: as above */
        words[1] = load_relaxed(&((const struct art_node16 *)node)->bytes[1]); /* relaxed: as above */
    }
    art_lanes lanes;
    memcpy(&lanes, words, sizeof lanes);
    return lanes;
}

/* Fills frame->order, and turns the position from key byte to place in it. The
 * path will move in the given direction; the position's child may be missing. */
static void
art_frame_sort(const struct art_node *node, struct art_frame *frame, bool forward)
{
    uint32_t count = load_acquire(&node->count); /* pairs: ART_COUNT */
    art_lanes bytes = art_small_bytes(node);
    art_lanes sortable = bytes ^ INT8_MIN; /* unsigned order as signed order */
    art_lanes rank = {0};
    for (uint32_t i = 0; i < count; i++) {
        rank -= sortable > sortable[i]; /* a true lane is -1 */
    }
    for (uint32_t i = 0; i < count; i++) {
        frame->order[rank[i]] = (uint8_t)i;
    }
    frame->count = (uint8_t)count;
    frame->sorted = true;
    if (frame->pos == ART_POS_BEHIND) {
        frame->pos = (int16_t)(count + 1);
    } else if (frame->pos > 0) {
        int32_t until = forward ? frame->pos : frame->pos - 1;
        int32_t below = 0;
        for (uint32_t i = 0; i < count; i++) {
            below += (uint8_t)bytes[i] < until;
        }
        frame->pos = (int16_t)(forward ? below : below + 1);
    }
}

static void
art_prefetch_node(const struct art *art, uint32_t ref)
{
    if ((ref & ART_LEAF) == 0) {
        const uint8_t *node = index_arena_at(art->arena, ref);
        PREFETCH_READ(node);
        PREFETCH_READ(node + CACHE_LINE_BYTES);
    }
    __asm__ volatile(""); /* gcc takes a function of prefetches for one without effect and drops its calls */
}

static uint32_t
art_small_step(const struct art *art, const struct art_node *node, struct art_frame *frame, bool forward)
{
    int32_t step = forward ? 1 : -1;
    if (!frame->sorted) {
        art_frame_sort(node, frame, forward);
        for (uint32_t i = 0; i < frame->count; i++) {
            art_prefetch_node(art, art_small_child(node, i)); /* the path comes to all of them */
        }
    }
    frame->pos = (int16_t)(frame->pos + step);
    if (frame->pos == 0) {
        uint32_t term = load_acquire(&node->term); /* pairs: ART_TERM */
        if (term != 0 || !forward) {
            return term;
        }
        frame->pos = 1;
    }
    if (frame->pos < 0 || frame->pos > frame->count) {
        return 0;
    }
    return art_small_child(node, frame->order[frame->pos - 1]);
}

/* ---- Large nodes: node48 and node256. Each returns a child's reference, 0 = none --- */

static uint32_t
art_48_after(const struct art_node48 *node, uint32_t from, int16_t *pos_out)
{
    uint64_t mask = ~(uint64_t)0 << from % 8 * 8;
    for (uint32_t at = from / 8; at < COUNTOF(node->index); at++) {
        uint64_t word = load_acquire(&node->index[at]) & mask; /* pairs: ART_INDEX */
        if (word != 0) {
            uint32_t lane = (uint32_t)__builtin_ctzll(word) / 8;
            *pos_out = (int16_t)(at * 8 + lane + 1);
            return load_acquire(&node->children[((word >> lane * 8) & 0xff) - 1]); /* pairs: ART_CHILD */
        }
        mask = ~(uint64_t)0;
    }
    return 0;
}

/* Bytes < until; until >= 1. */
static uint32_t
art_48_before(const struct art_node48 *node, uint32_t until, int16_t *pos_out)
{
    uint64_t mask = ~(uint64_t)0 >> (7 - (until - 1) % 8) * 8;
    for (int32_t at = (int32_t)(until - 1) / 8; at >= 0; at--) {
        uint64_t word = load_acquire(&node->index[at]) & mask; /* pairs: ART_INDEX */
        if (word != 0) {
            uint32_t lane = (uint32_t)(63 - __builtin_clzll(word)) / 8;
            *pos_out = (int16_t)(at * 8 + (int32_t)lane + 1);
            return load_acquire(&node->children[((word >> lane * 8) & 0xff) - 1]); /* pairs: ART_CHILD */
        }
        mask = ~(uint64_t)0;
    }
    return 0;
}

/* The child at the first position behind `pos`. */
static uint32_t
art_large_after(const struct art_node *node, int32_t pos, int16_t *pos_out)
{
    if (pos == ART_POS_BEFORE) {
        uint32_t term = load_acquire(&node->term); /* pairs: ART_TERM */
        if (term != 0) {
            *pos_out = 0;
            return term;
        }
        pos = 0;
    }
    uint32_t from = (uint32_t)pos; /* position p is byte p - 1 */
    if (node->type == ART_NODE48) {
        return art_48_after((const struct art_node48 *)node, from, pos_out);
    }
    const struct art_node256 *node256 = (const struct art_node256 *)node;
    for (; from < 256; from++) {
        uint32_t child = load_acquire(&node256->children[from]); /* pairs: ART_CHILD */
        if (child != 0) {
            *pos_out = (int16_t)(from + 1);
            return child;
        }
    }
    return 0;
}

/* The child at the last position before `pos`. */
static uint32_t
art_large_before(const struct art_node *node, int32_t pos, int16_t *pos_out)
{
    int32_t until = pos - 1; /* position p is byte p - 1 */
    uint32_t child = 0;
    if (until > 0 && node->type == ART_NODE48) {
        child = art_48_before((const struct art_node48 *)node, (uint32_t)until, pos_out);
    } else if (until > 0) {
        const struct art_node256 *node256 = (const struct art_node256 *)node;
        for (int32_t byte = until - 1; byte >= 0 && child == 0; byte--) {
            child = load_acquire(&node256->children[byte]); /* pairs: ART_CHILD */
            *pos_out = (int16_t)(byte + 1);
        }
    }
    if (child == 0 && pos > 0) {
        child = load_acquire(&node->term); /* pairs: ART_TERM */
        *pos_out = 0;
    }
    return child;
}

static uint32_t
art_large_beside(const struct art_node *node, int32_t pos, bool forward, int16_t *pos_out)
{
    return forward ? art_large_after(node, pos, pos_out) : art_large_before(node, pos, pos_out);
}

static uint32_t
art_large_step(const struct art *art, const struct art_node *node, struct art_frame *frame, bool forward)
{
    uint32_t child = frame->ahead;
    if (child != 0) {
        frame->pos = frame->ahead_pos;
    } else {
        child = art_large_beside(node, frame->pos, forward, &frame->pos);
    }
    frame->ahead = 0;
    if (child != 0 && (child & ART_LEAF) == 0) {
        frame->ahead = art_large_beside(node, frame->pos, forward, &frame->ahead_pos);
        art_prefetch_node(art, frame->ahead);
    }
    return child;
}

/* ---- Steps over the tree --------------------------------------------------- */

/* Moves the frame by one child. 0: there is none, the frame is used up. */
static uint32_t
art_frame_step(const struct art *art, struct art_frame *frame, bool forward)
{
    const struct art_node *node = art_node_at(art, frame->node);
    return node->type <= ART_NODE16 ? art_small_step(art, node, frame, forward)
                                    : art_large_step(art, node, frame, forward);
}

/* Goes down from `ref` to its first or last leaf. */
static esker_status
art_cursor_descend(struct art_cursor *cursor, uint32_t ref, bool forward)
{
    while ((ref & ART_LEAF) == 0) {
        TRY(art_cursor_enter(cursor, ref, forward ? ART_POS_BEFORE : ART_POS_BEHIND));
        ref = art_frame_step(cursor->art, &cursor->frames[cursor->depth - 1], forward);
        ASSERT(ref != 0); /* no node is empty */
    }
    cursor->leaf = ref & ~ART_LEAF;
    return ESKER_OK;
}

/* What large nodes found ahead was for the other direction. */
static void
art_cursor_turn(struct art_cursor *cursor, bool forward)
{
    if (cursor->forward != forward) {
        cursor->forward = forward;
        for (uint32_t i = 0; i < cursor->depth; i++) {
            if (!cursor->frames[i].sorted) {
                cursor->frames[i].ahead = 0;
            }
        }
    }
}

/* The nearest leaf beside the subtree that the path's end stands on. */
static esker_status
art_cursor_step(struct art_cursor *cursor, bool forward)
{
    art_cursor_turn(cursor, forward);
    while (cursor->depth > 0) {
        uint32_t child = art_frame_step(cursor->art, &cursor->frames[cursor->depth - 1], forward);
        if (child != 0) {
            return art_cursor_descend(cursor, child, forward);
        }
        cursor->depth--;
    }
    return ESKER_END;
}

static esker_status
art_cursor_edge(struct art_cursor *cursor, bool forward)
{
    cursor->depth = 0;
    cursor->forward = forward;
    uint32_t root = load_acquire(&cursor->art->root); /* pairs: ART_CHILD */
    return root == 0 ? ESKER_END : art_cursor_descend(cursor, root, forward);
}

esker_status
art_cursor_first(struct art_cursor *cursor)
{
    return art_cursor_edge(cursor, true);
}

esker_status
art_cursor_last(struct art_cursor *cursor)
{
    return art_cursor_edge(cursor, false);
}

esker_status
art_cursor_next(struct art_cursor *cursor)
{
    return art_cursor_step(cursor, true);
}

esker_status
art_cursor_prev(struct art_cursor *cursor)
{
    return art_cursor_step(cursor, false);
}

/* Goes down towards `key`. *ref_out: the subtree in which the search ended (its
 * path is entered); *below_out: it lies below key as a whole, else not below. */
static esker_status
art_cursor_approach(struct art_cursor *cursor, struct bytes key, uint32_t *ref_out, bool *below_out)
{
    const struct art *art = cursor->art;
    size_t depth = 0;
    cursor->depth = 0;
    uint32_t ref = load_acquire(&art->root); /* pairs: ART_CHILD */
    while (ref != 0 && (ref & ART_LEAF) == 0) {
        struct art_node *node = art_node_at(art, ref);
        size_t matched = art_match(art, node, key, depth);
        if (matched < node->level) {
            /* A key that ends inside the skipped part is before everything here. */
            struct bytes other = vnode_key(art->vnodes, node->anyleaf);
            *below_out = matched < key.len && other.ptr[matched] < key.ptr[matched];
            *ref_out = ref;
            return ESKER_OK;
        }
        if (key.len == matched) {
            *below_out = false;
            *ref_out = ref;
            return ESKER_OK;
        }
        uint8_t byte = key.ptr[matched];
        TRY(art_cursor_enter(cursor, ref, (int16_t)(byte + 1)));
        _Atomic uint32_t *slot = art_child(node, byte);
        /* pairs: ART_CHILD */
        ref = slot != NULL ? load_acquire(slot) : 0;
        depth = matched + 1;
    }
    if (ref != 0) {
        *below_out = bytes_compare(vnode_key(art->vnodes, ref & ~ART_LEAF), key) < 0;
    }
    *ref_out = ref;
    return ESKER_OK;
}

esker_status
art_cursor_seek(struct art_cursor *cursor, struct bytes key)
{
    uint32_t ref = 0;
    bool below = false;
    TRY(art_cursor_approach(cursor, key, &ref, &below));
    if (ref != 0 && !below) {
        cursor->forward = true;
        return art_cursor_descend(cursor, ref, true);
    }
    return art_cursor_step(cursor, true);
}

esker_status
art_cursor_seek_before(struct art_cursor *cursor, struct bytes key)
{
    uint32_t ref = 0;
    bool below = false;
    TRY(art_cursor_approach(cursor, key, &ref, &below));
    if (ref != 0 && below) {
        cursor->forward = false;
        return art_cursor_descend(cursor, ref, false);
    }
    return art_cursor_step(cursor, false);
}
