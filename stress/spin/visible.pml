/* SPDX-License-Identifier: MIT */
/*
 * The visibility ratchet (src/db/db_visible.c): frames are applied in any order
 * and become visible in the order of their LSNs; whoever applied a frame and
 * whoever waits for one move `visible`. Stores wait in a buffer per processor
 * (x86-TSO); locked instructions drain it. README.md maps names to functions
 * and lists the mutants.
 *
 * Claims: `visible` never passes a frame that is not applied; a reader at
 * `visible` finds every frame below it indexed; nobody sleeps for ever (a sleep
 * ends after 5 ms in the code; here it does not, so that it is not needed).
 */
#ifndef WRITERS
#define WRITERS 3
#endif

#define INDEXED 0
#define APPLIED 1

byte tail = 0;    /* window->tail: the next frame */
byte visible = 0; /* frames below are visible */
byte waiters = 0; /* visible_waiters */
byte seq = 0;     /* visible_seq, the futex word */

typedef frame_t {
    bool word[2]
}
frame_t frame[WRITERS];

/* Per writer: stores of its own frame that nobody else sees yet, oldest first. */
chan buffer[WRITERS] = [2] of { byte, byte };

proctype drain(byte me)
{
    byte which, what;
end:
    do
    :: atomic { buffer[me] ? which, what -> frame[which].word[what] = true }
    od
}

/* What this processor sees: its own buffer first. */
#define IS_APPLIED(which) (frame[which].word[APPLIED] || buffer[me] ?? [eval(which), APPLIED])

/* visible_go_on, then visible_wake */
inline go_on(by_turn) {
    moved = by_turn;
#ifdef MUTANT_WAKE_FIRST
    woken = waiters != 0;
#endif
    at = visible;
    do
    :: at < WRITERS ->
        if
        :: atomic { IS_APPLIED(at) -> skip }
        :: atomic { !IS_APPLIED(at) -> break }
        fi;
        /* cas_seq(&db->visible, &lsn, next): locked, so the buffer is empty. */
        atomic {
            empty(buffer[me]);
            if
            :: visible == at ->
                assert(frame[at].word[APPLIED]);
                visible = at + 1;
                at = at + 1;
                moved = true
            :: else -> at = visible
            fi
        }
    :: else -> break
    od;
    if
    :: moved ->
#ifndef MUTANT_WAKE_FIRST
        woken = waiters != 0;
#endif
        if
        :: woken -> seq++ /* add_seq and futex_wake_all: a sleeper's condition is seq != value */
        :: else -> skip
        fi
    :: else -> skip
    fi
}

proctype writer(byte me)
{
    byte mine, at, value;
    bool moved, woken;
    atomic { mine = tail; tail++ } /* window_reserve */

    /* commit_fill: bytes and index links, then the bit. */
#ifdef MUTANT_APPLIED_EARLY
    atomic { empty(buffer[me]) -> frame[mine].word[APPLIED] = true };
    buffer[me] ! mine, INDEXED;
#else
    buffer[me] ! mine, INDEXED;
    if
    :: visible == mine ->
        /* visible_take_turn: locked, so the buffer is empty. */
        atomic { empty(buffer[me]); assert(visible == mine); visible = mine + 1 };
#ifndef MUTANT_TURN_AND_GONE
        go_on(true)
#endif
    :: true -> /* not his turn, as long as he looked */
#ifdef MUTANT_APPLIED_PLAIN
        buffer[me] ! mine, APPLIED
#else
        atomic { empty(buffer[me]) -> frame[mine].word[APPLIED] = true } /* or_seq in window_set_applied */
#endif
    fi;
#endif

    /* db_wait_visible */
    do
    :: visible > mine -> break
    :: else ->
        go_on(false); /* db_ratchet */
        if
        :: visible > mine -> break
        :: else ->
#ifdef MUTANT_LOOK_FIRST
            value = seq;
            if
            :: visible > mine -> break
            :: else -> skip
            fi;
            atomic { empty(buffer[me]) -> waiters++ };
            seq != value; /* futex_wait */
#else
            atomic { empty(buffer[me]) -> waiters++ }; /* add_seq */
            value = seq;
            if
            :: visible <= mine -> seq != value /* futex_wait */
            :: else -> skip
            fi;
#endif
            atomic { empty(buffer[me]) -> waiters-- }
        fi
    od;
    assert(visible > mine)
}

/* read_begin, and a look at every frame below S */
proctype reader()
{
    byte snapshot, i;
    snapshot = visible;
    do
    :: i < snapshot -> assert(frame[i].word[INDEXED]); i++
    :: else -> break
    od
}

init {
    byte n;
    atomic {
        n = 0;
        do
        :: n < WRITERS -> run writer(n); run drain(n); n++
        :: else -> break
        od;
        run reader()
    }
}
