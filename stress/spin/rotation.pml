/* SPDX-License-Identifier: MIT */
/*
 * Rotation (src/db/db_rotate.c, commit_reserve in src/db/db_commit.c): writers
 * reserve in the active window, the straddler pads it, whoever finds it full
 * makes the prepared one active, a job prepares the next, another flushes what
 * is full and visible. What is done under db->mu is one step here. README.md
 * maps names to functions and lists the mutants.
 *
 * Claims: frames tile every window, pad included; a window becomes active
 * exactly where its predecessor ends; a flushed window was visible to its end;
 * every writer gets its place and nobody waits for ever.
 */
#define WRITERS 3
#define COMMITS 1 /* per writer */
#define CAP 3     /* granules per window; frames take 1 or 2 */
#define LIVE 2    /* WINDOWS_LIVE_MAX */
#define WINDOWS 12
#define FULL(w) (tail[w] > CAP)

byte newest = 0;        /* the window that versions->windows[0] is: the newest */
byte oldest = 0;        /* the oldest that is not flushed */
bool prepared = false;  /* db->prepared; its base is the newest window's end by then */
byte tail[WINDOWS];     /* reserved granules, also beyond CAP */
byte applied[WINDOWS];  /* bit per granule at which an applied frame starts */
byte covered[WINDOWS];  /* granules that applied frames cover */
byte length[WINDOWS * CAP]; /* of the frame that starts there */
byte visible = 0;       /* granules over all windows: LSN */
byte straddlers[WINDOWS];
bool asleep[WRITERS];   /* on db->changed, until the next broadcast */
bool prepare_kicked = false, flush_kicked = false;

inline broadcast() {
    asleep[0] = false;
    asleep[1] = false;
    asleep[2] = false
}

/* One frame: bytes, index, applied bit; one step, since the ratchet's races are visible.pml's. */
inline apply(w, at, size) {
    atomic {
        assert((applied[w] & (1 << at)) == 0);
        assert(at + size <= CAP);
        length[w * CAP + at] = size;
        applied[w] = applied[w] | (1 << at);
        covered[w] = covered[w] + size;
        assert(covered[w] <= CAP)
    }
}

/* db_ratchet; kicks the flush when a window has become visible to its end. */
inline ratchet() {
    do
    :: atomic {
        visible / CAP <= newest && (applied[visible / CAP] & (1 << (visible % CAP))) != 0 ->
        visible = visible + length[visible];
#ifndef MUTANT_NO_FLUSH_KICK
        if
        :: visible % CAP == 0 -> flush_kicked = true
        :: else -> skip
        fi
#endif
      }
    :: atomic {
        !(visible / CAP <= newest && (applied[visible / CAP] & (1 << (visible % CAP))) != 0) -> break
      }
    od
}

/* db_rotate */
inline rotate() {
    do
    :: atomic {
        !FULL(newest) -> break
      }
    :: atomic {
        FULL(newest) && prepared && newest + 1 - oldest < LIVE ->
        /* rotate_install_locked: base of the next = end of this; nothing of it may be visible yet. */
        assert(tail[newest + 1] == 0 && visible <= (newest + 1) * CAP);
        newest++;
        prepared = false;
        broadcast();
        flush_kicked = true;
        break
      }
    :: atomic {
        FULL(newest) && !(prepared && newest + 1 - oldest < LIVE) ->
        /* rotate_wait_locked: kicks, then waits on `changed` in the step that let go of mu. */
        if
        :: !prepared -> prepare_kicked = true
        :: else -> skip
        fi;
        flush_kicked = true;
        asleep[me] = true
      }
      !asleep[me]
    od
}

proctype writer(byte me)
{
    byte done, w, at, size;
    do
    :: done < COMMITS ->
        if
        :: size = 1
        :: size = 2
        fi;
        do
        :: w = newest; /* load_acquire(&db->current) */
           if
           :: FULL(w) -> rotate()
           :: else ->
               atomic { at = tail[w]; tail[w] = tail[w] + size } /* window_reserve */
               if
               :: at + size <= CAP -> break
               :: else -> skip
               fi;
               if
#ifdef MUTANT_EVERYBODY_PADS
               :: at < CAP || tail[w] > CAP ->
#else
               :: at <= CAP -> /* the tail was not full before: the one straddler */
#endif
                   straddlers[w]++;
                   assert(straddlers[w] == 1);
#ifndef MUTANT_NO_PAD
                   if
                   :: at < CAP -> apply(w, at, CAP - at)
                   :: else -> skip
                   fi
#endif
               :: else -> skip
               fi;
               at = 0;
               ratchet();
               rotate()
           fi
        od;
        apply(w, at, size);
        ratchet();
        visible >= w * CAP + at + size; /* db_wait_visible; its wake-up is visible.pml's */
        atomic { done++; w = 0; at = 0; size = 0 } /* fewer states that differ in nothing */
    :: else -> break
    od
}

/* db_prepare_job: outside of mu a window is made, for the end of what is active then. */
proctype preparer()
{
    byte base;
end:
    do
    :: atomic { prepare_kicked -> prepare_kicked = false; base = newest }
       if
       :: !prepared ->
           atomic {
               if
               :: base == newest && !prepared -> prepared = true
               :: else -> prepare_kicked = true /* does not fit any more: discarded, once more */
               fi;
#ifndef MUTANT_SILENT_PREPARE
               broadcast()
#endif
           }
       :: else -> skip
       fi
    od
}

/* db_flush_job: the oldest full window, when all of it is visible. */
proctype flusher()
{
end:
    do
    :: atomic { flush_kicked -> flush_kicked = false }
       do
       :: oldest < newest && visible >= (oldest + 1) * CAP ->
           assert(covered[oldest] == CAP && straddlers[oldest] <= 1);
           atomic { oldest++; broadcast() } /* db_install */
       :: else -> break
       od
    od
}

init {
    byte n;
    atomic {
        n = 0;
        do
        :: n < WRITERS -> run writer(n); n++
        :: else -> break
        od;
        run preparer();
        run flusher()
    }
}
