/* SPDX-License-Identifier: MIT */
/*
 * Goal: images of the simulated disk share their bytes across threads; whoever
 * finds himself alone with them changes or frees them after all others are done.
 * Method: rounds of two threads with one reference each to the same bytes. One
 * reads them and lets go, the other changes them; then the other way round. The
 * race detector tells if a change does not come after the reads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>

#include "io/io_sim_disk.h"

enum { ROUNDS = 2000, BYTES = 64 };

static struct sim_blob *images[2]; /* each thread's own */
static uint32_t sums[2];
static pthread_barrier_t barrier;

static void
blob_use(uint32_t self, uint32_t round)
{
    if ((round + self) % 2 == 0) {
        sums[self] += images[self]->bytes[round % BYTES];
        if (round % 3 != 0) {
            sim_blob_unref(images[self]);
            images[self] = NULL;
        }
    } else {
        for (uint32_t i = 0; i < round % 64; i++) {
            cpu_relax();
        }
        sim_image_edit(&images[self], BYTES)[round % BYTES] = 7;
    }
}

static void *
blob_follow(void *arg)
{
    for (uint32_t round = 0; round < ROUNDS; round++) {
        pthread_barrier_wait(&barrier);
        blob_use(1, round);
        pthread_barrier_wait(&barrier);
    }
    return arg;
}

static void
blob__is_changed_by_whoever_is_alone(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
    assert_int_equal(pthread_create(&thread, NULL, blob_follow, NULL), 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        images[0] = NULL;
        (void)sim_image_edit(&images[0], BYTES);
        images[1] = sim_blob_ref(images[0]);
        pthread_barrier_wait(&barrier);
        blob_use(0, round);
        pthread_barrier_wait(&barrier);
        sim_blob_unref(images[0]);
        sim_blob_unref(images[1]);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(pthread_barrier_destroy(&barrier), 0);
    assert_int_equal(sums[0] + sums[1], 0); /* nobody saw the other's change */
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blob__is_changed_by_whoever_is_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
