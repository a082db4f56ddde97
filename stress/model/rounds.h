/* SPDX-License-Identifier: MIT */
/* How model.h's rounds are played by real threads. */
#ifndef ESKER_STRESS_MODEL_ROUNDS_H
#define ESKER_STRESS_MODEL_ROUNDS_H

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/rng.h"

enum { MODEL_ROUNDS = 60000, MODEL_SECONDS = 2, MODEL_SECONDS_MUTANT = 120, MODEL_SPINS = 300 };

static _Noreturn void
model_caught(const char *file, int line, const char *text)
{
    fprintf(stderr, "caught: %s:%d: %s\n", file, line, text);
    _exit(3);
}

#define MODEL_CHECK(condition) ((condition) ? (void)0 : model_caught(__FILE__, __LINE__, #condition))

_Noreturn void
assert_failed(const char *file, int line, const char *text)
{
    model_caught(file, line, text);
}

static _Thread_local struct rng model_chance;

static void
model_spin(uint64_t spins)
{
    while (spins-- > 0) {
        cpu_relax();
    }
}

/* Between two steps. */
static inline void
model_pause(void)
{
    uint64_t draw = rng_below(&model_chance, 256);
    if (draw < 2) {
        (void)sched_yield();
    } else if (draw < 128) {
        model_spin(draw / 8);
    }
}

/* ---- The store buffer (SPLIT) ------------------------------------------------ */

static _Thread_local struct {
    uintptr_t word; /* 0: nothing is in it */
    size_t size;
    uint64_t value;
} model_late;

static void
model_store_now(void)
{
    uintptr_t word = model_late.word;
    model_late.word = 0;
    if (word == 0) {
        return;
    }
    if (model_late.size == sizeof(uint64_t)) {
        atomic_store_explicit((_Atomic uint64_t *)word, model_late.value, memory_order_release);
    } else if (model_late.size == sizeof(uint32_t)) {
        atomic_store_explicit((_Atomic uint32_t *)word, (uint32_t)model_late.value, memory_order_release);
    } else {
        atomic_store_explicit((_Atomic uint8_t *)word, (uint8_t)model_late.value, memory_order_release);
    }
}

static inline void
model_store_perhaps(void)
{
    if (model_late.word != 0 && rng_below(&model_chance, 2) == 0) {
        model_store_now();
    }
}

static void
model_store_late(uintptr_t word, size_t size, uint64_t value)
{
    model_store_now();
    model_late.word = word;
    model_late.size = size;
    model_late.value = value;
}

/* ---- Rounds ------------------------------------------------------------------ */

#define model_kernel_barrier() ((void)0) /* model_kernel is one, here; the race detector knows no other */

#define model_wait_until(condition)                                                                          \
    do {                                                                                                     \
        (void)sched_yield();                                                                                 \
    } while (!(condition))

static _Atomic uint32_t model_arrived;
static _Atomic uint32_t model_phase;
static _Atomic bool model_over;

static void
model_meet(uint32_t count)
{
    uint32_t phase = atomic_load(&model_phase);
    if (atomic_fetch_add(&model_arrived, 1) + 1 == count) {
        atomic_store(&model_arrived, 0);
        atomic_fetch_add(&model_phase, 1);
        return;
    }
    for (uint32_t spins = 0; atomic_load(&model_phase) == phase; spins++) {
        if (spins < MODEL_SPINS) {
            cpu_relax();
        } else {
            (void)sched_yield();
        }
    }
}

static void
model_play(void (*run)(void))
{
    model_pause();
    run();
    model_store_now();
    pthread_mutex_lock(&model_kernel);
    model_idle_count++;
    pthread_mutex_unlock(&model_kernel);
}

#define MODEL_MAIN(...)                                                                                      \
    static void (*const model_threads[])(void) = {__VA_ARGS__};                                              \
    static void *model_follow(void *arg)                                                                     \
    {                                                                                                        \
        model_self = (uint32_t)(uintptr_t)arg;                                                               \
        model_chance.state = model_self * 77;                                                                \
        for (;;) {                                                                                           \
            model_meet(COUNTOF(model_threads));                                                              \
            if (atomic_load(&model_over)) {                                                                  \
                return NULL;                                                                                 \
            }                                                                                                \
            model_play(model_threads[model_self]);                                                           \
            model_meet(COUNTOF(model_threads));                                                              \
        }                                                                                                    \
    }                                                                                                        \
    int main(int argc, char **argv)                                                                          \
    {                                                                                                        \
        return model_main(argc, argv, model_threads, COUNTOF(model_threads), model_follow);                  \
    }

/* Who can see a mutant. BY_HAND: real threads can, but it may take long; no test demands it. */
enum { GENMC = 0, BY_HAND = 0, BARE = 1, ASAN = 2, TSAN = 4, ANY = BARE | ASAN | TSAN };

/* The number of a mutant; -1: there is none of that name. `name` NULL: lists what this build can see. */
static int
model_find(const char *name)
{
#define MODEL_NAME_OF(name, who) {#name, who},

    static const struct {
        const char *name;
        int who;
    } all[] = {MODEL_MUTANTS(MODEL_NAME_OF){NULL, 0}};
#if defined(__SANITIZE_ADDRESS__)
    const int seer = ASAN;
#elif defined(__SANITIZE_THREAD__)
    const int seer = TSAN;
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
    const int seer = TSAN;
#elif __has_feature(address_sanitizer)
    const int seer = ASAN;
#else
    const int seer = BARE;
#endif
#else
    const int seer = BARE;
#endif
    for (int i = 0; all[i].name != NULL; i++) {
        if (name == NULL && (all[i].who & seer) != 0) {
            puts(all[i].name);
        } else if (name != NULL && strcmp(name, all[i].name) == 0) {
            return i + 1;
        }
    }
    return -1;
}

static int
model_main(int argc, char **argv, void (*const threads[])(void), uint32_t count, void *(*follow)(void *))
{
    if (argc > 1 && strcmp(argv[1], "--mutants") == 0) {
        (void)model_find(NULL);
        return 0;
    }
    int mutant = argc > 1 ? model_find(argv[1]) : 0;
    if (mutant < 0) {
        fprintf(stderr, "no mutant is called %s\n", argv[1]);
        return 2;
    }
    model_mutant = (enum model_name)mutant;
    pthread_t started[MODEL_THREADS_MAX];
    for (uint32_t i = 1; i < count; i++) {
        if (pthread_create(&started[i], NULL, follow, (void *)(uintptr_t)i) != 0) {
            return 2;
        }
    }
    clock_t cpu = mutant != 0 ? 2 * MODEL_SECONDS_MUTANT : 1; /* of all threads together */
    time_t end = time(NULL) + (mutant != 0 ? MODEL_SECONDS_MUTANT : MODEL_SECONDS);
    uint64_t rounds = 0;
    for (; (mutant != 0 || rounds < MODEL_ROUNDS) &&
           (rounds % 64 != 0 || (time(NULL) < end && clock() < cpu * CLOCKS_PER_SEC));
         rounds++) {
        model_idle_count = 0;
        model_reset();
        model_meet(count);
        model_play(threads[0]);
        model_meet(count);
        model_verify();
    }
    atomic_store(&model_over, true);
    model_meet(count);
    for (uint32_t i = 1; i < count; i++) {
        pthread_join(started[i], NULL);
    }
    printf("%llu rounds, nothing seen\n", (unsigned long long)rounds);
    return 0;
}

#ifdef MODEL_FUTEX
/* Naps end at once, sleeps only by a wake: what a timeout would repair is to be seen. */
#ifndef model_times_out
#define model_times_out(timeout_ns) ((void)(timeout_ns), false)
#endif

/* model_kernel held. */
static void
model_sleep(void (*all_idle)(void))
{
    while (model_asleep[model_self]) {
        if (model_idle_count == MODEL_THREADS_MAX) {
            all_idle();
        }
        pthread_mutex_unlock(&model_kernel);
        (void)sched_yield();
        pthread_mutex_lock(&model_kernel);
    }
}
#endif

#endif
