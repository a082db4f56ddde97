/* SPDX-License-Identifier: MIT */
/*
 * Goal: contexts are lent to one thread at a time, and more threads than seats
 * get their work done too.
 * Method: seats taken by hand; threads that pack and unpack blocks and compare,
 * which the race detector watches.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>

#include "base/rng.h"
#include "format/block.h"
#include "format/zstd_seat.h"

enum { THREADS = ZSTD_SEATS + 3, ROUNDS = 150, RAW_BYTES = 3000 };

static void
zstd_seat__is_lent_once(void **state)
{
    (void)state;
    struct zstd_lease leases[ZSTD_SEATS + 2];
    for (uint32_t i = 0; i < COUNTOF(leases); i++) {
        assert_true(zstd_seat_take(ZSTD_SEAT_UNPACK, &mem_default, &leases[i]));
        assert_int_equal(leases[i].seat != NULL, i < ZSTD_SEATS);
        for (uint32_t j = 0; j < i; j++) {
            assert_ptr_not_equal(leases[i].context, leases[j].context);
        }
    }
    zstd_seat_drain();
    void *kept = leases[1].context;
    for (uint32_t i = 0; i < COUNTOF(leases); i++) {
        zstd_seat_give(&leases[i], true);
        assert_null(leases[i].context);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(zstd_seat_take(ZSTD_SEAT_UNPACK, &mem_default, &leases[i]));
    }
    assert_ptr_equal(leases[1].context, kept);
    zstd_seat_give(&leases[0], false);
    zstd_seat_give(&leases[1], true);
    zstd_seat_drain();
}

static void *
pack_and_unpack(void *arg)
{
    struct rng rng = {.state = (uintptr_t)arg};
    struct buf out;
    uintptr_t wrong = 0;
    uint8_t raw[RAW_BYTES], back[RAW_BYTES];
    buf_init(&out, &mem_default);
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < RAW_BYTES; i++) {
            raw[i] = (uint8_t)rng_below(&rng, 3);
        }
        struct block_stored stored;
        buf_clear(&out);
        wrong |= block_store(bytes_make(raw, RAW_BYTES), BLOCK_PROPS, BLOCK_CODEC_ZSTD, 1, round, &out) !=
                     ESKER_OK ||
                 block_stored_open(buf_bytes(&out), BLOCK_PROPS, 1, round, &stored) != ESKER_OK ||
                 stored.codec != BLOCK_CODEC_ZSTD ||
                 block_stored_unpack(&stored, &mem_default, back) != ESKER_OK ||
                 memcmp(raw, back, RAW_BYTES) != 0;
        /* A seat that saw damage serves the next as well. */
        stored.payload.len--;
        wrong |= block_stored_unpack(&stored, &mem_default, back) != ESKER_CORRUPT;
        if (round % 50 == 49) {
            zstd_seat_drain();
        }
    }
    buf_fini(&out);
    return (void *)wrong;
}

static void
zstd_seat__serves_more_threads_than_there_are(void **state)
{
    (void)state;
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, pack_and_unpack, (void *)(i + 1)), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        void *wrong = NULL;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_null(wrong);
    }
    zstd_seat_drain();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zstd_seat__is_lent_once),
        cmocka_unit_test(zstd_seat__serves_more_threads_than_there_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
