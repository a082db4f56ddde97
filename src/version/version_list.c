/* SPDX-License-Identifier: MIT */
/* Which versions are alive, and what the oldest keeps from being freed. */
#include <stdlib.h>

#include "version/version.h"

uint64_t
version_list_count(struct version_list *list)
{
    mutex_lock(&list->mutex);
    uint64_t count = list->count;
    mutex_unlock(&list->mutex);
    return count;
}

/* Not in a section, so its last holder may let go at any moment: only what has a holder gets one more. */
static bool
version_try_ref(struct version *version)
{
    uint64_t refs = load_acquire(&version->refs); /* pairs: VERSION_REFS */
    while (refs > 0) {
        /* pairs: VERSION_REFS */
        if (cas_acq_rel(&version->refs, &refs, refs + 1)) {
            return true;
        }
    }
    return false;
}

struct version *
version_list_oldest_ref(struct version_list *list, uint64_t *replaced_ns_out)
{
    mutex_lock(&list->mutex);
    struct version *version = list->oldest;
    while (version != NULL && (version->replaced_ns == 0 || !version_try_ref(version))) {
        version = version->newer;
    }
    *replaced_ns_out = version != NULL ? version->replaced_ns : 0;
    mutex_unlock(&list->mutex);
    return version;
}

static int
version_compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t
version_kept_window_bytes(const struct version *version, const struct version *current)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < version->window_count; i++) {
        bool shared = false;
        for (uint32_t j = 0; j < current->window_count; j++) {
            shared = shared || current->windows[j] == version->windows[i];
        }
        bytes += shared ? 0 : window_used_bytes(version->windows[i]);
    }
    return bytes;
}

esker_status
version_kept_bytes(const struct version *version, const struct version *current, uint64_t *bytes_out)
{
    size_t count = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        count += current->levels[level] != NULL ? current->levels[level]->count : 0;
    }
    uint64_t *ids = mem_alloc_array(version->mem, count + 1, sizeof *ids);
    if (ids == NULL) {
        return FAIL_NO_MEMORY("a list of segments");
    }
    count = 0;
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = current->levels[level];
        for (uint32_t i = 0; run != NULL && i < run->count; i++) {
            ids[count++] = segment_meta(run->segments[i])->id;
        }
    }
    qsort(ids, count, sizeof *ids, version_compare_ids);
    uint64_t bytes = version_kept_window_bytes(version, current);
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        const struct level_run *run = version->levels[level];
        for (uint32_t i = 0; run != NULL && run != current->levels[level] && i < run->count; i++) {
            const struct segment_meta *meta = segment_meta(run->segments[i]);
            bool shared = bsearch(&meta->id, ids, count, sizeof *ids, version_compare_ids) != NULL;
            bytes += shared ? 0 : meta->size_bytes;
        }
    }
    mem_free(version->mem, ids);
    *bytes_out = bytes;
    return ESKER_OK;
}
