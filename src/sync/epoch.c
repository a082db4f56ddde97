/* SPDX-License-Identifier: MIT */
/*
 * The process's epoch, its thread states and its reclaimer. epoch.h has the
 * contract; here is how it is kept.
 *
 * Invariants (beyond those of epoch.h)
 *  I4 A node is freed only by a pass. A pass takes the whole retire stack,
 *     waits for a grace period, frees the nodes, and does the same with what
 *     those frees retired, until nothing is left of it. What other threads
 *     retire meanwhile is the next pass's, so a pass always ends.
 *  I5 At most one pass runs at a time (pass_mutex).
 *  I6 A thread state is listed once and never unlinked; `used` says whether a
 *     thread has it. Its section is ended before it is handed back, so an
 *     unused state never delays a grace period.
 *  I7 Drain tickets are taken, and the reclaimer is told to stop, under
 *     runtime.mutex: every ticket is older than the stop, and the reclaimer's
 *     last pass serves it.
 *
 * Concurrency by role
 *  Retirers: one CAS on retired_head, one load of reclaimer_state, and a wake
 *     only if the reclaimer sleeps. No lock: a retirer may be in a section.
 *  Reclaimer: sleeps on reclaimer_state. After a pass that freed something it
 *     naps, so that retirements collect and a grace period is shared.
 *  Drainers: with a reclaimer, take a ticket and wait on drain_done; without
 *     one, run the pass themselves.
 *
 * The stack is ck_stack's push and batch pop written with C11 atomics: the
 * race detector then sees its ordering, and a push releases the retirer's
 * earlier loads also where ck's store fence would not.
 *
 * fork: the child has one thread, and copies of states and locks of threads
 * that are gone. The child's first act is epoch_after_fork, which puts all
 * of it back to "nobody here"; fork_generation tells old handles apart.
 */
#include "sync/epoch.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>

#include "base/mem.h"
#include "sync/fork.h"
#include "sync/futex.h"
#include "sync/mutex.h"
#include "sync/thread.h"

#ifdef ESKER_TSAN
#include <sanitizer/tsan_interface.h>
#endif

enum {
    RECLAIMER_AWAKE = 0,
    RECLAIMER_ASLEEP = 1, /* any retirement wakes it */
    RECLAIMER_NAPPING = 2 /* only a drain or the stop wakes it */
};

enum { RECLAIMER_NAP_NS = 1000000 };

_Thread_local struct thread_state *thread_state_self;
_Atomic uint32_t fork_generation;

static ck_epoch_t process_epoch;

static pthread_once_t epoch_once = PTHREAD_ONCE_INIT;
static int epoch_once_errno; /* immutable after epoch_once */
static pthread_key_t thread_state_key;

static _Atomic(struct thread_state *) thread_states; /* push-only list */
static _Atomic uint32_t thread_stripes;

static _Atomic(ck_stack_entry_t *) retired_head;
static _Atomic uint32_t reclaimer_state;
static _Atomic uint32_t reclaimer_stopping;
static _Atomic uint32_t drain_wanted;
static _Atomic uint32_t drain_done;

/* What the frees of a running pass retire, oldest first. */
struct retire_list {
    ck_stack_entry_t *first;
    ck_stack_entry_t **end;
};

/* Not NULL in a thread that runs a pass. */
static _Thread_local struct retire_list *pass_children;
static struct mutex pass_mutex = MUTEX_INIT;

static struct {
    struct mutex mutex; /* before pass_mutex in the order */
    /* guarded by mutex */
    uint32_t holder_count;
    bool manual;
    bool has_thread;
    pthread_t thread;
} epoch_runtime = {.mutex = MUTEX_INIT};

/* ---- Thread states ------------------------------------------------------ */

/* The thread is in no call any more, wherever it ended. */
static void
thread_calls_forget(struct thread_state *state)
{
    state->call_depth = 0;
    /* pairs: CALL_CLOSE */
    store_seq(&state->in_call, NULL);
    for (uint32_t depth = 0; depth < COUNTOF(state->outer_calls); depth++) {
        store_release(&state->outer_calls[depth], NULL); /* pairs: CALL_CLOSE */
    }
}

/* The pthread key's destructor. Another key's destructor may call the library
 * after this one: it gets a new state, which sets the key again, and the
 * thread library then comes back here. It does so PTHREAD_DESTRUCTOR_ITERATIONS
 * times; who still calls the library after that leaves one idle state behind. */
static void
thread_state_hand_back(void *arg)
{
    struct thread_state *state = (struct thread_state *)arg;
    if (state->in_section) {
        epoch_exit(state);
    }
    thread_calls_forget(state);
    thread_state_self = NULL;
    /* pairs: THREAD_STATE - the section is ended before somebody else has the state. */
    store_release(&state->used, 0);
}

static void
epoch_after_fork(void)
{
    /* relaxed: the child has one thread. */
    add_relaxed(&fork_generation, 1);
    /* relaxed: the child has one thread, and fork copied what was listed. */
    for (struct thread_state *state = load_relaxed(&thread_states); state != NULL; state = state->next) {
        if (state == thread_state_self) {
            continue;
        }
        /* The owner may have vanished between ck's word and in_section. */
        while (state->record.active > 0) {
            (void)ck_epoch_end(&state->record, NULL);
        }
        state->in_section = false;
        thread_calls_forget(state);
        store_relaxed(&state->used, 0); /* relaxed: one thread */
    }
    /* What is retired is the parent's: to free it here would take locks that its threads held. */
    store_relaxed(&retired_head, NULL); /* relaxed: one thread */
    pass_mutex = (struct mutex)MUTEX_INIT;
    epoch_runtime.mutex = (struct mutex)MUTEX_INIT;
    epoch_runtime.holder_count = 0;
    epoch_runtime.has_thread = false;
    epoch_runtime.manual = false;
    store_relaxed(&reclaimer_state, RECLAIMER_AWAKE);        /* relaxed: one thread */
    store_relaxed(&drain_done, load_relaxed(&drain_wanted)); /* relaxed: one thread */
}

static void
epoch_start(void)
{
    ck_epoch_init(&process_epoch);
    epoch_once_errno = pthread_key_create(&thread_state_key, thread_state_hand_back);
    if (epoch_once_errno == 0) {
        epoch_once_errno = fork_hooks_add(NULL, NULL, epoch_after_fork);
    }
}

int
epoch_prepare(void)
{
    int failed = pthread_once(&epoch_once, epoch_start);
    ASSERT(failed == 0);
    return epoch_once_errno;
}

/* A state whose thread has gone, or NULL. */
static struct thread_state *
thread_state_recycle(void)
{
    /* pairs: THREAD_LIST */
    for (struct thread_state *state = load_acquire(&thread_states); state != NULL; state = state->next) {
        uint32_t expected = 0;
        /* relaxed: only skips states that look taken; the CAS decides. */
        if (load_relaxed(&state->used) != 0) {
            continue;
        }
        /* pairs: THREAD_STATE */
        if (cas_acq_rel(&state->used, &expected, 1)) {
            return state;
        }
    }
    return NULL;
}

static struct thread_state *
thread_state_make(void)
{
    struct thread_state *state = mem_alloc_aligned(&mem_default, CACHE_LINE_BYTES, sizeof *state);
    if (state == NULL) {
        return NULL;
    }
    *state = (struct thread_state){.in_section = false};
    /* relaxed: hands out numbers. */
    state->stripe = add_relaxed(&thread_stripes, 1);
    atomic_init(&state->in_call, NULL);
    for (uint32_t depth = 0; depth < COUNTOF(state->outer_calls); depth++) {
        atomic_init(&state->outer_calls[depth], NULL);
    }
    atomic_init(&state->used, 1);
    ck_epoch_register(&process_epoch, &state->record, NULL);
    /* relaxed: the CAS below checks it. */
    struct thread_state *head = load_relaxed(&thread_states);
    do {
        state->next = head;
        /* pairs: THREAD_LIST - a listed state is complete. */
    } while (!cas_release(&thread_states, &head, state));
    return state;
}

NOINLINE struct thread_state *
thread_state_create(void)
{
    if (epoch_prepare() != 0) {
        return NULL;
    }
    struct thread_state *state = thread_state_recycle();
    if (state == NULL) {
        state = thread_state_make();
    }
    if (state == NULL) {
        return NULL;
    }
    ASSERT(!state->in_section && state->record.active == 0);
    if (pthread_setspecific(thread_state_key, state) != 0) {
        /* No memory for the key's slot; without it the state would be lost at the thread's exit. */
        store_release(&state->used, 0); /* pairs: THREAD_STATE */
        return NULL;
    }
    thread_state_self = state;
    return state;
}

/* in_call first: a call that another hides was put among the outer ones before. */
static bool
thread_state_is_in(struct thread_state *state, const void *db)
{
    /* pairs: CALL_CLOSE */
    if (load_seq(&state->in_call) == db) {
        return true;
    }
    for (uint32_t depth = 0; depth < COUNTOF(state->outer_calls); depth++) {
        if (load_acquire(&state->outer_calls[depth]) == db) { /* pairs: CALL_CLOSE */
            return true;
        }
    }
    return false;
}

bool
thread_state_any(const void *db)
{
    /* pairs: THREAD_LIST */
    for (struct thread_state *state = load_acquire(&thread_states); state != NULL; state = state->next) {
        if (thread_state_is_in(state, db)) {
            return true;
        }
    }
    return false;
}

uint32_t
thread_state_count(void)
{
    /* relaxed: a count for tests and statistics. */
    return load_relaxed(&thread_stripes);
}

/* ---- Sections under the race detector ----------------------------------- */

#ifdef ESKER_TSAN
/* ck's words are changed by assembly that the detector cannot see, so the one
 * edge that a grace period makes is told to it: end of section -> synchronized. */
NOINLINE void
epoch_enter_tsan(struct thread_state *self)
{
    ck_epoch_begin(&self->record, NULL);
}

NOINLINE void
epoch_exit_tsan(struct thread_state *self)
{
    __tsan_release(&process_epoch);
    (void)ck_epoch_end(&self->record, NULL);
}
#endif

/* ---- Passes ------------------------------------------------------------- */

static struct epoch_node *
epoch_node_of(ck_stack_entry_t *entry)
{
    return CONTAINER_OF(entry, struct epoch_node, entry);
}

/* Called while a section of `record` delays the grace period. A reader that
 * was preempted inside its section needs the processor more than we do. */
static void
epoch_back_off(ck_epoch_t *epoch, ck_epoch_record_t *record, void *ctx)
{
    (void)epoch;
    (void)record;
    uint32_t *round_count = (uint32_t *)ctx;
    *round_count += 1;
    if (*round_count < 64) {
        cpu_relax();
    } else if (*round_count < 128) {
        sched_yield();
    } else {
        struct timespec pause = {.tv_sec = 0, .tv_nsec = 50000};
        (void)nanosleep(&pause, NULL);
    }
}

static void
epoch_wait_for_grace(void)
{
    ASSERT(thread_state_self == NULL || !thread_state_self->in_section);
    uint32_t round_count = 0;
    ck_epoch_synchronize_wait(&process_epoch, epoch_back_off, &round_count);
#ifdef ESKER_TSAN
    __tsan_acquire(&process_epoch);
#endif
}

static ck_stack_entry_t *
epoch_oldest_first(ck_stack_entry_t *newest)
{
    ck_stack_entry_t *oldest = NULL;
    while (newest != NULL) {
        ck_stack_entry_t *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    return oldest;
}

/* One pass (I4). Returns whether anything was freed. */
static bool
epoch_pass(void)
{
    ASSERT(pass_children == NULL);
    mutex_lock(&pass_mutex);
    /* pairs: EPOCH_RETIRE */
    ck_stack_entry_t *batch = epoch_oldest_first(exchange_seq(&retired_head, NULL));
    bool worked = batch != NULL;
    while (batch != NULL) {
        epoch_wait_for_grace();
        struct retire_list children = {.first = NULL};
        children.end = &children.first;
        pass_children = &children;
        while (batch != NULL) {
            struct epoch_node *node = epoch_node_of(batch);
            batch = batch->next;
            node->free_fn(node);
        }
        pass_children = NULL;
        batch = children.first;
    }
    mutex_unlock(&pass_mutex);
    return worked;
}

void
epoch_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *node))
{
    node->free_fn = free_fn;
    struct retire_list *children = pass_children;
    if (children != NULL) {
        node->entry.next = NULL;
        *children->end = &node->entry;
        children->end = &node->entry.next;
        return;
    }
    /* relaxed: the CAS below checks it. */
    ck_stack_entry_t *head = load_relaxed(&retired_head);
    do {
        node->entry.next = head;
        /* pairs: EPOCH_RETIRE, RECLAIMER_SLEEP - the node is complete before it is
         * popped; and either the reclaimer sees it before it sleeps or we see it asleep. */
    } while (!cas_seq(&retired_head, &head, &node->entry));
    uint32_t asleep = RECLAIMER_ASLEEP;
    /* pairs: RECLAIMER_SLEEP */
    if (load_seq(&reclaimer_state) == RECLAIMER_ASLEEP &&
        cas_seq(&reclaimer_state, &asleep, RECLAIMER_AWAKE)) {
        futex_wake_all(&reclaimer_state);
    }
}

/* ---- The reclaimer ------------------------------------------------------ */

/* After drain_wanted or reclaimer_stopping changed. */
static void
reclaimer_wake(void)
{
    /* pairs: RECLAIMER_SLEEP */
    if (exchange_seq(&reclaimer_state, RECLAIMER_AWAKE) != RECLAIMER_AWAKE) {
        futex_wake_all(&reclaimer_state);
    }
}

/* how: ASLEEP or NAPPING. served: the drain ticket that the last pass served. */
static void
reclaimer_rest(uint32_t how, uint32_t served)
{
    /* pairs: RECLAIMER_SLEEP - first say that we sleep, then look for a reason not to. */
    store_seq(&reclaimer_state, how);
    /* pairs: RECLAIMER_SLEEP */
    bool needed = load_seq(&drain_wanted) != served || load_seq(&reclaimer_stopping) != 0;
    /* pairs: RECLAIMER_SLEEP */
    if (how == RECLAIMER_ASLEEP && load_seq(&retired_head) != NULL) {
        needed = true;
    }
    if (!needed) {
        futex_wait(&reclaimer_state, how, how == RECLAIMER_NAPPING ? RECLAIMER_NAP_NS : 0);
    }
    /* pairs: RECLAIMER_SLEEP */
    store_seq(&reclaimer_state, RECLAIMER_AWAKE);
}

static void *
reclaimer_run(void *arg)
{
    (void)arg;
    for (;;) {
        /* pairs: EPOCH_DRAIN - the stop and the tickets before the pass that serves them (I7). */
        bool stopping = load_seq(&reclaimer_stopping) != 0;
        uint32_t wanted = load_seq(&drain_wanted); /* pairs: EPOCH_DRAIN */
        bool worked = epoch_pass();
        /* relaxed: only this thread writes it. */
        if (load_relaxed(&drain_done) != wanted) {
            /* pairs: EPOCH_DRAIN - the frees happen before the drainer returns. */
            store_release(&drain_done, wanted);
            futex_wake_all(&drain_done);
        }
        if (stopping) {
            return NULL;
        }
        reclaimer_rest(worked ? RECLAIMER_NAPPING : RECLAIMER_ASLEEP, wanted);
    }
}

esker_status
epoch_runtime_acquire(bool manual)
{
    int failed = epoch_prepare();
    if (failed != 0) {
        return FAIL_OS(failed, NULL, 0, "cannot make the thread key");
    }
    esker_status status = ESKER_OK;
    mutex_lock(&epoch_runtime.mutex);
    if (epoch_runtime.holder_count > 0 && epoch_runtime.manual != manual) {
        status = FAIL(ESKER_INVALID, "databases with and without background threads in one process");
    } else if (epoch_runtime.holder_count == 0 && !manual) {
        store_seq(&reclaimer_stopping, 0); /* pairs: RECLAIMER_SLEEP */
        status = thread_start(&epoch_runtime.thread, "esker-reclaim", reclaimer_run, NULL);
        epoch_runtime.has_thread = status == ESKER_OK;
    }
    if (status == ESKER_OK) {
        epoch_runtime.manual = manual;
        epoch_runtime.holder_count++;
    }
    mutex_unlock(&epoch_runtime.mutex);
    return status;
}

void
epoch_runtime_release(void)
{
    ASSERT(pass_children == NULL);
    mutex_lock(&epoch_runtime.mutex);
    if (epoch_runtime.holder_count == 0) {
        /* A handle of the parent, closed in the child: its runtime stayed behind.
         * relaxed: changes only while the process has one thread. */
        ASSERT(load_relaxed(&fork_generation) != 0);
        mutex_unlock(&epoch_runtime.mutex);
        return;
    }
    epoch_runtime.holder_count--;
    if (epoch_runtime.holder_count == 0) {
        if (epoch_runtime.has_thread) {
            store_seq(&reclaimer_stopping, 1); /* pairs: RECLAIMER_SLEEP, EPOCH_DRAIN */
            reclaimer_wake();
            thread_join(epoch_runtime.thread);
            epoch_runtime.has_thread = false;
        } else {
            (void)epoch_pass();
        }
    }
    mutex_unlock(&epoch_runtime.mutex);
}

void
epoch_drain(void)
{
    /* A pass cannot wait for itself, nor a section for its own end. */
    ASSERT(pass_children == NULL);
    ASSERT(thread_state_self == NULL || !thread_state_self->in_section);
    mutex_lock(&epoch_runtime.mutex);
    bool has_thread = epoch_runtime.has_thread;
    uint32_t ticket = 0;
    if (has_thread) {
        /* pairs: EPOCH_DRAIN, RECLAIMER_SLEEP - the pass that serves us pops what was retired before. */
        ticket = add_seq(&drain_wanted, 1) + 1;
    }
    mutex_unlock(&epoch_runtime.mutex);
    if (!has_thread) {
        (void)epoch_pass();
        return;
    }
    reclaimer_wake();
    for (;;) {
        uint32_t done = load_acquire(&drain_done); /* pairs: EPOCH_DRAIN */
        if ((int32_t)(done - ticket) >= 0) {
            return;
        }
        futex_wait(&drain_done, done, 0);
    }
}
