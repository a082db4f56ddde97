/* SPDX-License-Identifier: MIT */
#include "version/version.h"

#include "iter/merge_iter.h"

static esker_status
version_alloc(const struct mem *mem, struct version **out)
{
    struct version *version = mem_zalloc(mem, sizeof *version);
    if (version == NULL) {
        return FAIL_NO_MEMORY("a version");
    }
    version->mem = mem;
    version->id = 1;                  /* that of the first; whoever replaces one counts on */
    store_relaxed(&version->refs, 1); /* relaxed: not shared yet */
    *out = version;
    return ESKER_OK;
}

esker_status
version_create(const struct mem *mem, struct version_list *list, struct version **out)
{
    struct version *version = NULL;
    TRY(version_alloc(mem, &version));
    version->list = list;
    mutex_lock(&list->mutex);
    version->older = list->newest;
    *(list->newest != NULL ? &list->newest->newer : &list->oldest) = version;
    list->newest = version;
    list->count++;
    mutex_unlock(&list->mutex);
    *out = version;
    return ESKER_OK;
}

esker_status
version_create_levels(const struct version *of, struct version **out)
{
    TRY(version_alloc(of->mem, out));
    (*out)->id = of->id;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        version_set_level(*out, level, of->levels[level]);
    }
    return ESKER_OK;
}

void
version_ref(struct version *version)
{
    /* relaxed: inside a section `current` still holds one, elsewhere the caller does. */
    uint64_t before = add_relaxed(&version->refs, 1);
    ASSERT(before > 0);
}

struct version *
version_current_ref(_Atomic(struct version *) *current, struct thread_state *self)
{
    epoch_enter(self);
    struct version *version = load_acquire(current); /* pairs: CURRENT */
    version_ref(version);
    epoch_exit(self);
    return version;
}

/* Before anything of it goes: whoever walks the list may look at all of it. */
static void
version_unlist(struct version *version)
{
    struct version_list *list = version->list;
    if (list == NULL) {
        return;
    }
    mutex_lock(&list->mutex);
    *(version->older != NULL ? &version->older->newer : &list->oldest) = version->newer;
    *(version->newer != NULL ? &version->newer->older : &list->newest) = version->older;
    ASSERT(list->count > 0);
    list->count--;
    mutex_unlock(&list->mutex);
}

void
version_unref(struct version *version)
{
    /* pairs: VERSION_REFS — every holder's reads happen before the free. */
    if (sub_acq_rel(&version->refs, 1) != 1) {
        return;
    }
    version_unlist(version);
    for (uint32_t i = 0; i < version->window_count; i++) {
        window_unref(version->windows[i]);
    }
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        level_run_unref(version->levels[level]);
    }
    mem_free(version->mem, version);
}

void
version_set_windows(struct version *version, struct window *const *windows, uint32_t count)
{
    ASSERT(count <= WINDOWS_MAX && version->window_count == 0);
    for (uint32_t i = 0; i < count; i++) {
        window_ref(windows[i]);
        version->windows[i] = windows[i];
    }
    version->window_count = count;
    version->end_lsn = count > 0 ? windows[0]->end_lsn : 0;
}

void
version_set_level(struct version *version, uint32_t level, struct level_run *run)
{
    ASSERT(level < ESKER_LEVELS_MAX && version->levels[level] == NULL);
    if (run != NULL) {
        level_run_ref(run);
        version->levels_used |= 1U << level;
    }
    version->levels[level] = run;
}

static void
version_grace_passed(struct epoch_node *node)
{
    version_unref(CONTAINER_OF(node, struct version, node));
}

void
version_publish(_Atomic(struct version *) *current, struct version *next, uint64_t now_ns)
{
    /* pairs: CURRENT — the version is complete before anyone can load it. */
    struct version *before = exchange_seq(current, next);
    if (before != NULL) {
        mutex_lock(&before->list->mutex);
        before->replaced_ns = now_ns;
        mutex_unlock(&before->list->mutex);
        epoch_retire(&before->node, version_grace_passed);
    }
}

/* Is segment i of the same tier as the one before it? */
static bool
level_run_goes_on(const struct level_run *run, uint32_t i, bool is_level0)
{
    return !is_level0 ||
           segment_meta_goes_on(segment_meta(run->segments[i - 1]), segment_meta(run->segments[i]));
}

static void
level_run_set_tiers(struct level_run *run, bool is_level0)
{
    bool touching = false;
    uint32_t begin = 0;
    for (uint32_t i = 1; i <= run->count; i++) {
        if (i < run->count && level_run_goes_on(run, i, is_level0)) {
            struct bytes before = segment_meta(run->segments[i - 1])->max_key;
            touching |=
                before.len == 0 || bytes_compare(before, segment_meta(run->segments[i])->min_key) >= 0;
            continue;
        }
        run->tier_count++;
        while (begin < i) {
            run->tier_end[begin++] = i;
        }
    }
    run->by_next = is_level0 ? run->tier_count < run->count : touching;
}

esker_status
level_run_create(const struct mem *mem, struct segment *const *segments, uint32_t count, bool is_level0,
                 struct level_run **out)
{
    size_t pointers = sizeof(struct segment *) * (size_t)count;
    size_t each = sizeof(uint64_t) + sizeof(uint32_t);
    struct level_run *run = mem_alloc(mem, sizeof *run + pointers + each * (size_t)count);
    if (run == NULL) {
        return FAIL_NO_MEMORY("a level");
    }
    *run = (struct level_run){.count = count, .mem = mem};
    run->upper_prefix = (uint64_t *)(void *)((char *)run->segments + pointers);
    run->tier_end = (uint32_t *)(void *)(run->upper_prefix + count);
    store_relaxed(&run->refs, 1); /* relaxed: not shared yet */
    for (uint32_t i = 0; i < count; i++) {
        segment_ref(segments[i]);
        run->segments[i] = segments[i];
        const struct segment_meta *meta = segment_meta(segments[i]);
        run->size_bytes += meta->size_bytes;
        run->upper_prefix[i] =
            meta->max_key.len == 0 ? UINT64_MAX : bytes_prefix64(meta->max_key.ptr, meta->max_key.len);
    }
    level_run_set_tiers(run, is_level0);
    *out = run;
    return ESKER_OK;
}

void
level_run_ref(struct level_run *run)
{
    uint32_t before = add_relaxed(&run->refs, 1); /* relaxed: the caller holds one already */
    ASSERT(before > 0);
}

void
level_run_unref(struct level_run *run)
{
    /* pairs: RUN_REFS — uses by other versions happen before the segments are let go. */
    if (run == NULL || sub_acq_rel(&run->refs, 1) != 1) {
        return;
    }
    for (uint32_t i = 0; i < run->count; i++) {
        segment_unref(run->segments[i]);
    }
    mem_free(run->mem, run);
}

/* Of segments [from, end), which are in order of keys. */
static inline uint32_t
level_run_seek_in(const struct level_run *run, struct bytes key, uint32_t from, uint32_t end)
{
    uint64_t prefix = bytes_prefix64(key.ptr, key.len);
    uint32_t left = end - from;
    while (left > 0) { /* the first segment whose bound's prefix is not below the key's */
        uint32_t half = left / 2;
        bool below = run->upper_prefix[from + half] < prefix;
        from = below ? from + half + 1 : from;
        left = below ? left - half - 1 : half;
    }
    while (from < end && run->upper_prefix[from] == prefix) {
        struct bytes max_key = segment_meta(run->segments[from])->max_key;
        if (max_key.len == 0 || bytes_compare(max_key, key) >= 0) {
            break;
        }
        from++;
    }
    return from;
}

uint32_t
level_run_seek(const struct level_run *run, struct bytes key)
{
    return level_run_seek_in(run, key, 0, run->count);
}

uint32_t
level_run_seek_tier(const struct level_run *run, struct bytes key, uint32_t begin, uint32_t end)
{
    return level_run_seek_in(run, key, begin, end);
}

uint32_t
level_run_next(const struct level_run *run, struct bytes key, uint32_t from)
{
    while (from < run->count) {
        uint32_t end = run->tier_end[from];
        bool begins = from == 0 || run->tier_end[from - 1] == from;
        uint32_t index = begins ? level_run_seek_in(run, key, from, end) : from;
        if (index < end && bytes_compare(segment_meta(run->segments[index])->min_key, key) <= 0) {
            return index;
        }
        from = end;
    }
    return run->count;
}

uint32_t
level_run_tiers(const struct level_run *run)
{
    return run != NULL ? run->tier_count : 0;
}

esker_status
version_iter_create(const struct version *version, uint64_t limit_lsn, struct iter_bounds bounds,
                    const struct mem *mem, struct iter **out)
{
    const struct level_run *level0 = version->levels[0];
    size_t most = (size_t)version->window_count + level_run_tiers(level0) + ESKER_LEVELS_MAX;
    struct iter **children = mem_alloc_array(mem, most, sizeof *children);
    if (children == NULL) {
        return FAIL_NO_MEMORY("an iterator");
    }
    size_t count = 0;
    esker_status status = ESKER_OK;
    for (uint32_t i = 0; i < version->window_count; i++) {
        if (limit_lsn <= version->windows[i]->rows_lsn) {
            continue; /* nothing in it is visible: often it is the only one, and empty */
        }
        TRY_OUT(memtable_iter_create(version->windows[i]->table, limit_lsn, mem, &children[count]));
        count++;
    }
    for (uint32_t i = 0; level0 != NULL && i < level0->count;) {
        TRY_OUT(level_iter_create_tier(level0, &i, true, bounds, mem, &children[count]));
        count++;
    }
    for (uint32_t level = 1; level < ESKER_LEVELS_MAX; level++) {
        if (version->levels[level] != NULL) {
            const struct level_run *run = version->levels[level];
            TRY_OUT(level_iter_create(run, 0, run->count, true, mem, &children[count]));
            level_iter_set_bounds(children[count], bounds);
            count++;
        }
    }
    status = merge_iter_create(children, count, mem, out);
    count = 0; /* taken over, also on failure */
out:
    for (size_t i = 0; i < count; i++) {
        iter_destroy(children[i]);
    }
    mem_free(mem, children);
    return status;
}
