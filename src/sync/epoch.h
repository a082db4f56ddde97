/* SPDX-License-Identifier: MIT */
/*
 * Epoch-based reclamation for the whole process, over ck_epoch (Fraser,
 * "Practical Lock-Freedom", 2004), and the per-thread state that goes with it.
 *
 * Invariants
 *  I1 A shared pointer is published and unlinked by atomic exchange or CAS,
 *     never by a plain store.
 *  I2 What was unlinked goes to epoch_retire and is freed by the one reclaimer,
 *     after ck_epoch_synchronize. ck_epoch_poll is never called: in ck 0.7.1 it
 *     can free too early.
 *  I3 No system call, wait, lock, allocation or user callback inside a section,
 *     and sections do not nest. Whoever needs longer takes a reference inside
 *     the section and leaves it.
 *
 * Concurrency by role
 *  Readers: epoch_enter, load the pointer (acquire), use it, epoch_exit.
 *  Writers: exchange, then epoch_retire; any thread, also inside a section.
 *  Reclaimer: one thread while the runtime is held; pops the whole retire
 *     stack, synchronizes once, then frees. In manual mode (simulator) there
 *     is no thread and epoch_drain does its work.
 *  Threads: a state is made at a thread's first call and recycled by a
 *     pthread key's destructor when the thread exits, also when it exits
 *     inside a section (the section is then ended for it).
 */
#ifndef ESKER_SYNC_EPOCH_H
#define ESKER_SYNC_EPOCH_H

#include <ck_epoch.h>
#include <ck_stack.h>

#include "base/assert.h"
#include "base/status.h"
#include "sync/atomic.h"

#if defined(__SANITIZE_THREAD__)
#define ESKER_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define ESKER_TSAN 1
#endif
#endif

enum {
    THREAD_COUNTERS = 16,
    THREAD_CALLS_MAX = 8 /* calls inside one another, by way of callbacks */
};

/* One per live thread, 64-aligned, never freed while the process lives. */
struct thread_state {
    ck_epoch_record_t record;
    bool in_section;
    uint32_t stripe; /* dense small number for striped counters; stable for the thread's life */
    /* The database whose call this thread is in, or NULL: of calls inside one another the
     * innermost. close looks at all of them (thread_state_any); pairs: CALL_CLOSE in db/. */
    _Atomic(const void *) in_call;
    /* By depth, the database of each call that another one has begun inside of; it stays
     * there until its own call ends, so that a look at in_call first and here then misses
     * none. pairs: CALL_CLOSE in db/. */
    _Atomic(const void *) outer_calls[THREAD_CALLS_MAX - 1];
    uint32_t call_depth;       /* owned by the thread; calls that others have begun inside of */
    struct thread_state *next; /* immutable once listed */
    _Atomic uint32_t used;     /* 1 while a thread owns it */
};

/* Embedded in whatever is retired. */
struct epoch_node {
    ck_stack_entry_t entry;
    void (*free_fn)(struct epoch_node *node);
};

/* initial-exec: one load also in a shared library; 8 bytes of static TLS. */
extern _Thread_local struct thread_state *thread_state_self __attribute__((tls_model("initial-exec")));

/* How often this process is a fork()ed child of a process that used the
 * library: bumped in the child before fork returns. A handle remembers the
 * value it was opened under; when it differs, the handle is the parent's, its
 * background threads do not exist here, and nothing may wait for them. */
extern _Atomic uint32_t fork_generation;

/* Makes the thread key and the fork handler, once; 0 or an errno. The calls
 * below do it themselves; for those who use only fork_generation. */
NODISCARD int epoch_prepare(void);

NODISCARD struct thread_state *thread_state_create(void);

/* This thread's state; NULL when there is no memory for one. */
static inline struct thread_state *
thread_state_get(void)
{
    struct thread_state *self = thread_state_self;
    return LIKELY(self != NULL) ? self : thread_state_create();
}

/* True if some thread is in a call of `db`, however deep. */
bool thread_state_any(const void *db);
/* How many states were ever made: the most threads that were inside the library at once. */
uint32_t thread_state_count(void);

#ifdef ESKER_TSAN
void epoch_enter_tsan(struct thread_state *self);
void epoch_exit_tsan(struct thread_state *self);
#endif

static inline void
epoch_enter(struct thread_state *self)
{
    ASSERT(!self->in_section);
    self->in_section = true;
#ifdef ESKER_TSAN
    epoch_enter_tsan(self);
#else
    ck_epoch_begin(&self->record, NULL);
#endif
    /* ck 0.7.1 does not order the reader's loads after its look at the epoch;
     * free where the hardware does it anyway. */
    ck_pr_fence_load();
}

static inline void
epoch_exit(struct thread_state *self)
{
    ASSERT_SLOW(self->in_section);
    self->in_section = false;
#ifdef ESKER_TSAN
    epoch_exit_tsan(self);
#else
    (void)ck_epoch_end(&self->record, NULL);
#endif
}

/* Frees `node` after every section that might see it has ended. Any thread;
 * never blocks, never allocates. free_fn runs on the reclaimer's thread (or a
 * drainer's), outside sections; it may retire more, but neither drain nor
 * acquire or release the runtime. */
void epoch_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *node));

/* Counted: the reclaimer thread runs while at least one holder exists.
 * manual: no thread; for the simulator, all holders must agree. Without a
 * holder, retired nodes wait for the next drain or holder.
 * A fork()ed child starts with no holders: releasing one that it inherited
 * does nothing, as long as it has none of its own. */
NODISCARD esker_status epoch_runtime_acquire(bool manual);
void epoch_runtime_release(void);

/* Returns when everything retired before the call has been freed, including
 * what those frees retired in turn. Not inside a section. */
void epoch_drain(void);

#endif
