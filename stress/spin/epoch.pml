/* SPDX-License-Identifier: MIT */
/*
 * Epoch and retirement (src/sync/epoch.c over ck_epoch 0.7.1) on a machine whose
 * stores wait in a buffer per processor and become visible in order (x86-TSO).
 * README.md maps names to functions and lists the mutants.
 *
 * Claim: nobody uses an object that was freed; everything retired is freed.
 */
#define READERS 2
#define ROUNDS 2  /* sections per reader; the second may be that of another thread with a recycled state */
#define UPDATES 2 /* objects 1..UPDATES replace object 0 */

/* The variables that readers store to: record.active and record.epoch. */
#define ACTIVE 0
#define EPOCH 1

byte global_epoch = 1;
byte shared_ptr = 0; /* which object `current` points to */
bool freed[UPDATES + 1];
byte retired = 0; /* the retire stack, as a set: bit per object */
byte frees_done = 0;

typedef record_t {
    byte word[2]
}
record_t record[READERS];

/* Store buffers: one channel per reader, each message a variable and its value. */
chan buffer[READERS] = [3] of { byte, byte };

/* The processor of a reader lets its oldest store go, at any time. */
proctype drain(byte me)
{
    byte variable, value;
end:
    do
    :: atomic { buffer[me] ? variable, value -> record[me].word[variable] = value }
    od
}

/* A locked instruction: waits until the buffer is empty; the store is visible at once. */
inline locked_store(me, variable, value) {
    atomic { empty(buffer[me]) -> record[me].word[variable] = value }
}

inline plain_store(me, variable, value) {
    buffer[me] ! variable, value
}

/* epoch_enter, load of the pointer, use, epoch_exit */
proctype reader(byte me)
{
    byte round, seen, object;
    do
    :: round < ROUNDS ->
#ifdef MUTANT_PLAIN_ENTER
        plain_store(me, ACTIVE, 1);
#else
        locked_store(me, ACTIVE, 1); /* ck_pr_fas_uint in ck_epoch_begin */
#endif
        seen = global_epoch;
        plain_store(me, EPOCH, seen);
        object = shared_ptr; /* load_acquire(&db->current) */
        assert(!freed[object]); /* in use, any number of steps later */
        plain_store(me, ACTIVE, 0);
        round++
    :: else -> break
    od
}

/* version_publish: exchange, then epoch_retire (CAS). Both are locked. */
proctype updater()
{
    byte next = 1;
    do
    :: next <= UPDATES ->
#ifdef MUTANT_RETIRE_FIRST
        retired = retired | (1 << (next - 1));
        shared_ptr = next;
#else
        shared_ptr = next;
        retired = retired | (1 << (next - 1));
#endif
        next++
    :: else -> break
    od
}

/* ck_epoch_synchronize_wait; the load of each record is a step of its own. */
inline synchronize() {
    delta = global_epoch;
    ticks = 0;
    do
    :: ticks < 2 -> /* CK_EPOCH_GRACE - 1 */
        any = false;
        i = 0;
        do
        :: i < READERS ->
            busy = record[i].word[ACTIVE];
            any = any || busy != 0;
            if
            :: busy != 0 && record[i].word[EPOCH] != delta ->
                /* epoch_back_off, and look again from the first record: wait until something moves. */
                (record[i].word[ACTIVE] == 0 || record[i].word[EPOCH] == delta);
                i = 0
            :: else -> i++
            fi
        :: else -> break
        od;
        if
        :: !any -> break
        :: else ->
            global_epoch++; /* one reclaimer: the CAS cannot fail */
            delta++;
            ticks++
        fi
    :: else -> break
    od
}

/* epoch_pass, until everything was freed */
proctype reclaimer()
{
    byte batch, i, delta, ticks, busy;
    bool any;
    do
    :: frees_done < UPDATES ->
        atomic { retired != 0 -> batch = retired; retired = 0 } /* exchange_seq(&retired_head, NULL) */
#ifndef MUTANT_NO_GRACE
        synchronize();
#endif
        i = 0;
        do
        :: i < UPDATES ->
            if
            :: (batch & (1 << i)) != 0 -> freed[i] = true; frees_done++
            :: else -> skip
            fi;
            i++
        :: else -> break
        od
    :: else -> break
    od
}

init {
    byte n;
    atomic {
        n = 0;
        do
        :: n < READERS -> run reader(n); run drain(n); n++
        :: else -> break
        od;
        run updater();
        run reclaimer()
    }
}
