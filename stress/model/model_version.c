/* rooms: version */
/* SPDX-License-Identifier: MIT */
/* Versions and what they hold (src/version/version.c, window.c): a writer publishes two more versions, the
 * first with the same window but no run, the second with neither; two readers take the current one, look at
 * it and let it go. What a reader holds is whole until then; in the end everything but the last is freed.
 * No mutant for the counts of window and run: the mutex of the versions' list orders these bytes, too. */
#define MODEL_MUTANTS(X)                                                                                     \
    X(CURRENT_RELAXED, TSAN)                                                                                 \
    X(VERSION_REFS_RELAXED, TSAN) X(NO_GRACE, ANY) X(NO_SECTION, BY_HAND) X(REFS_IN_TWO_STEPS, ANY)
#define MODEL_MEM
#define model_no_section() model_is(NO_SECTION)
#define model_no_grace() model_is(NO_GRACE)
#include "model.h"
#include "sections.h"
#include "version/version.h"
#define memtable_destroy(table) ((void)(table))
#define log_file_destroy(log) ((void)(log))
#include "version/version.c"
#include "version/window.c"

enum { WHOLE = 5, SPOILED = 9 };

static _Atomic(struct version *) current;
static struct version *next; /* made before the round */
static struct window *window;
static struct level_run *run;
static struct version_list list = {.mutex = MUTEX_INIT};

static int
model_order(uintptr_t word)
{
    bool is_current = word == (uintptr_t)&current;
    bool version_refs = !is_current && word != (uintptr_t)&window->refs && word != (uintptr_t)&run->refs;
    bool relax = model_is(CURRENT_RELAXED) ? is_current : model_is(VERSION_REFS_RELAXED) && version_refs;
    return relax ? RELAX : model_is(REFS_IN_TWO_STEPS) && version_refs ? SPLIT : KEEP;
}

static void
model_spoil(void *ptr)
{
    struct version *version = ptr;
    *(ptr == window ? &window->base_lsn : ptr == run ? &run->size_bytes : &version->id) = SPOILED;
}

static struct version *
make(uint32_t windows, struct level_run *holds)
{
    struct version *version = NULL;
    MODEL_CHECK(version_create(&model_mem, &list, &version) == ESKER_OK);
    version->id = WHOLE;
    version_set_windows(version, &window, windows);
    version_set_level(version, 1, holds);
    return version;
}

static void
publish_two(void)
{
    struct version *empty = make(0, NULL);
    version_publish(&current, next, 1);
    model_pause();
    version_publish(&current, empty, 2);
}

static void
read_one(void)
{
    struct version *version = version_current_ref(&current, thread_state_get());
    model_pause();
    MODEL_CHECK(version->window_count == 0 || version->windows[0]->base_lsn == WHOLE);
    MODEL_CHECK(version->levels[1] == NULL || version->levels[1]->size_bytes == WHOLE);
    MODEL_CHECK(version->id == WHOLE);
    version_unref(version);
}

static void
model_reset(void)
{
    model_epoch_start();
    model_pool_reset(&model_pool);
    window = mem_alloc(&model_mem, sizeof *window);
    window->base_lsn = WHOLE;
    store_relaxed(&window->refs, 1);
    MODEL_CHECK(level_run_create(&model_mem, NULL, 0, true, &run) == ESKER_OK);
    run->size_bytes = WHOLE;
    list.oldest = list.newest = NULL;
    list.count = 0;
    store_relaxed(&current, make(1, run));
    next = make(1, NULL);
    window_unref(window); /* the versions hold them now */
    level_run_unref(run);
}

static void
model_verify(void)
{
    epoch_drain();
    MODEL_CHECK(list.count == 1 && window->base_lsn == SPOILED && run->size_bytes == SPOILED);
}
MODEL_MAIN(publish_two, read_one, read_one)
