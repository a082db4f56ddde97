/* SPDX-License-Identifier: MIT */
/*
 * How fast writers may go, and what made them wait.
 *
 * Debt is what merges are behind with: tiers of level 0 beyond what a merge
 * takes at once, and bytes in a level beyond its target. With no debt writers
 * load one word and go on. With debt d in (0, 1] they share a rate: what merges
 * were measured to relieve level 0 of, times 1.5 - d; so the more there is to
 * catch up with, the more of it is caught up with. From 1 to 2, which is where
 * level 0 is full, it falls on with the cube of what is left: level 0 becomes full only if
 * merges take less out of it than the least that a writer does, who sleeps 4 ms at most for a
 * small write (db_pace_test.c).
 *
 * Memory is paced, too: once all windows but the active one wait for a flush,
 * what is left of the active one is spread over the time that the flush under
 * way should still take, so that writers seldom meet the end of it.
 *
 * Both measures are of what is taken away, windows' bytes that became a segment and
 * segments that went out of level 0, over the time in which that was worked on; old
 * ones count ever less. Sums are divided, not rates averaged: of two merges that end
 * together the second one seems to have taken no time. What is under way counts as soon as it takes
 * longer than was to be expected: a disk that becomes slow is seen at once.
 *
 * A writer takes its turn by one add on `pace_due_ns`, the time at which what
 * was written so far is paid for, and sleeps once that lies a millisecond ahead: a sleep costs
 * some 50 microseconds by itself, and beside busy threads a round of theirs. A small write sleeps for
 * a few milliseconds at most and leaves what is still due to the next ones. A large one sleeps for all of it;
 * when the rate becomes another one meanwhile, what it has slept so far has paid at the old one, and the rest
 * is due at the new one.
 *
 * Concurrency: the inputs are guarded by mu; what writers read are relaxed
 * words, since nothing depends on their being of one moment.
 */
#include "db/db_compact.h"
#include "db/db_pace.h"
#include "db/db_windows.h"

enum {
    PACE_SLICE_NS = 1000000,   /* a sleep; then the rate may be another */
    PACE_AHEAD_NS = 1000000,   /* not worth a sleep yet */
    PACE_SMALL_NS = 4000000,   /* a small write sleeps no longer, */
    PACE_SMALL_BYTES = 65536,  /* if it is no larger */
    PACE_OWED_NS = 50000000,   /* what is owed beyond this is forgiven */
    PACE_TELL_NS = 10000000,   /* waits are told together */
    PACE_BEHIND_NS = 20000000, /* turns that nobody took are lost after this: sleepers wake late */
    PACE_L0_UNIT_LEAST = 8,
    PACE_L0_UNIT_MOST = 16,
    PACE_L0_FULL = 4,    /* in units of the trigger, within these bounds: debt 1 */
    PACE_L0_FREE = 2,    /* debt 0 */
    PACE_LEVEL_FREE = 2, /* the same for levels, in units of their targets */
    PACE_LEVEL_FULL = 6,
    PACE_KEEP = 3,           /* of four parts of the old measure a new one leaves so many */
    PACE_DOING_SLACK = 2,    /* and what is under way may take so many times as long before it counts */
    PACE_FLUSH_SLACK = 8,    /* a flush is expected to take an eighth longer than the last ones */
    PACE_DEBT_SCALE = 1000,  /* debt 1 */
    PACE_MIB_MOST = 1 << 20, /* what a write beyond it costs is more than anybody waits for */
    PACE_BY_MEMORY = ESKER_LEVELS_MAX /* as pace_level: it is flushes that are behind */
};

/* This thread's last write that waited. */
static _Thread_local struct esker_wait pace_last;

/* ---- What made a write wait ------------------------------------------------------ */

void
db_pace_note(esker_db *db, int cause, uint32_t level, uint64_t waited_ns)
{
    ASSERT(cause > ESKER_WAIT_NONE && cause < ESKER_WAIT_CAUSES);
    pace_last = (struct esker_wait){.cause = cause, .level = level, .wait_ns = waited_ns};
    add_relaxed(&db->wait_count[cause], 1);      /* relaxed: statistic */
    add_relaxed(&db->wait_ns[cause], waited_ns); /* relaxed: statistic */
    add_relaxed(&db->stalls, 1);                 /* relaxed: statistic */
    add_relaxed(&db->stall_ns, waited_ns);       /* relaxed: statistic */
    /* relaxed: the purge job tells the sum; whoever adds to nothing sees to it */
    if (add_relaxed(&db->wait_untold_ns[cause], waited_ns) == 0 &&
        db->options.on_event != NULL) { /* relaxed: the same */
        job_kick_after(&db->purge_job, PACE_TELL_NS);
    }
}

void
db_pace_tell(esker_db *db)
{
    for (int cause = ESKER_WAIT_NONE + 1; cause < ESKER_WAIT_CAUSES; cause++) {
        uint64_t waited_ns = load_relaxed(&db->wait_untold_ns[cause]); /* relaxed: see db_pace_note */
        if (waited_ns > 0) {
            add_relaxed(&db->wait_untold_ns[cause], 0 - waited_ns); /* relaxed: the same */
            uint32_t level = load_relaxed(&db->pace_level);         /* relaxed: told */
            level = cause != ESKER_WAIT_DEBT || level == PACE_BY_MEMORY ? 0 : level;
            db_emit_wait(db, cause, level, waited_ns);
        }
    }
}

void
esker_last_wait(esker_wait *out)
{
    if (out == NULL || out->struct_size < sizeof(size_t)) {
        return;
    }
    size_t size = out->struct_size;
    memcpy(out, &pace_last, MIN(size, sizeof pace_last));
    out->struct_size = size;
}

/* ---- The rate ---------------------------------------------------------------------- */

struct pace_debt {
    uint64_t share; /* of PACE_DEBT_SCALE; may be more */
    uint32_t level;
};

void
db_drain_add(struct db_drain *drain, uint64_t bytes, uint64_t started_ns, uint64_t now_ns)
{
    uint64_t from = MAX(started_ns, drain->seen_ns);
    drain->bytes = drain->bytes / 4 * PACE_KEEP + bytes;
    drain->us = drain->us / 4 * PACE_KEEP + MAX((now_ns - MIN(from, now_ns)) / 1000, (uint64_t)1);
    drain->seen_ns = now_ns;
}

uint64_t
db_drain_rate(const struct db_drain *drain)
{
    if (drain->bytes == 0) {
        return 0;
    }
    double per_s = (double)drain->bytes * 1e6 / (double)MAX(drain->us, (uint64_t)1);
    return MAX((uint64_t)per_s, (uint64_t)1);
}

uint64_t
db_drain_rate_now(const struct db_drain *drain, uint64_t doing_bytes, uint64_t since_ns, uint64_t now_ns)
{
    uint64_t rate = db_drain_rate(drain);
    if (doing_bytes == 0) {
        return rate;
    }
    struct db_drain ended = *drain; /* as if it ended now */
    db_drain_add(&ended, doing_bytes, since_ns, now_ns);
    uint64_t most = PACE_DOING_SLACK * db_drain_rate(&ended);
    return rate == 0 ? most : MIN(rate, most);
}

/* Of PACE_DEBT_SCALE: 0 up to `none`, 1 at `all`, 2 from `full` on. */
static uint64_t
pace_share(uint64_t have, uint64_t none, uint64_t all, uint64_t full)
{
    if (have <= none || all <= none) {
        return 0;
    }
    if (have < all) {
        return (have - none) / MAX((all - none) / PACE_DEBT_SCALE, (uint64_t)1);
    }
    if (have >= full || full <= all) {
        return 2 * (uint64_t)PACE_DEBT_SCALE;
    }
    return PACE_DEBT_SCALE + (have - all) / MAX((full - all) / PACE_DEBT_SCALE, (uint64_t)1);
}

uint64_t
db_pace_level0_share(uint32_t count, uint32_t trigger, uint32_t stall)
{
    /* In thousandths of a segment, so that small counts have shades as well. */
    uint64_t unit = MIN(MAX(trigger, (uint32_t)PACE_L0_UNIT_LEAST), (uint32_t)PACE_L0_UNIT_MOST);
    uint64_t full = (uint64_t)stall * PACE_DEBT_SCALE;
    /* Where descriptors are few writers stop early, so they are slowed early; not before a merge is due. */
    uint64_t due = (uint64_t)trigger * PACE_DEBT_SCALE;
    uint64_t none = MAX(MIN(unit * PACE_L0_FREE * PACE_DEBT_SCALE, MAX(due, full / 2)), MIN(due, full));
    uint64_t all = MIN(unit * PACE_L0_FULL * PACE_DEBT_SCALE, full / 3 * 2);
    all = MAX(all, none + MIN((full - MIN(none, full)) / 2, unit * PACE_DEBT_SCALE));
    return pace_share((uint64_t)count * PACE_DEBT_SCALE, none, all, full);
}

uint64_t
db_pace_rate(uint64_t drain_bytes_per_s, uint64_t share)
{
    uint64_t part = drain_bytes_per_s / PACE_DEBT_SCALE;
    if (share <= PACE_DEBT_SCALE) {
        return part * (3 * (uint64_t)PACE_DEBT_SCALE / 2 - share);
    }
    uint64_t left = 2 * (uint64_t)PACE_DEBT_SCALE - MIN(share, 2 * (uint64_t)PACE_DEBT_SCALE);
    uint64_t cube = left * left / PACE_DEBT_SCALE * left / PACE_DEBT_SCALE; /* 1 down to 0 */
    return part * MAX(cube / 2, (uint64_t)1);                               /* a thousandth at least */
}

static void
pace_worse(struct pace_debt *debt, uint32_t level, uint64_t share)
{
    if (share > debt->share) {
        *debt = (struct pace_debt){.share = share, .level = level};
    }
}

static struct pace_debt
pace_debt_of(const esker_db *db, const struct version *version, const struct picker_config *config,
             const uint64_t targets[ESKER_LEVELS_MAX])
{
    struct pace_debt debt = {0};
    uint32_t count = level_run_tiers(version->levels[0]);
    pace_worse(&debt, 0, db_pace_level0_share(count, config->l0_trigger, db->l0_stall));
    for (uint32_t level = 1; level + 1 < ESKER_LEVELS_MAX; level++) {
        uint64_t bytes = version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
        uint64_t unit = MAX(targets[level], config->base_bytes);
        uint64_t share = pace_share(bytes, unit * PACE_LEVEL_FREE, unit * PACE_LEVEL_FULL, UINT64_MAX);
        pace_worse(&debt, level, MIN(share, (uint64_t)PACE_DEBT_SCALE));
    }
    return debt;
}

/* Bytes that are not where they belong: what merges still have to move. */
static uint64_t
pace_debt_bytes(const struct version *version, const struct picker_config *config,
                const uint64_t targets[ESKER_LEVELS_MAX])
{
    uint64_t bytes = 0;
    const struct level_run *level0 = version->levels[0];
    if (level0 != NULL && level0->tier_count >= config->l0_trigger) {
        bytes = level0->size_bytes;
    }
    for (uint32_t level = 1; level + 1 < ESKER_LEVELS_MAX; level++) {
        uint64_t have = version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
        bytes += have > targets[level] ? have - targets[level] : 0;
    }
    return bytes;
}

/* Tiers are counted in windows' bytes. */
static uint64_t
pace_tier_bytes(const esker_db *db)
{
    return db->flush_window_bytes != 0 ? db->flush_window_bytes : db->window_bytes_max;
}

static uint64_t
pace_ns_per_mib(uint64_t bytes_per_s)
{
    return (uint64_t)1000000000 * 1024 / MAX(bytes_per_s / 1024, (uint64_t)1);
}

uint64_t
db_pace_memory_rate(uint64_t flush_bytes_per_s, uint64_t flush_bytes, uint64_t flushing_ns,
                    uint64_t room_bytes)
{
    double whole_ns = (double)flush_bytes * 1e9 / (double)MAX(flush_bytes_per_s, (uint64_t)1);
    whole_ns += whole_ns / (double)PACE_FLUSH_SLACK;
    /* One that is late may still take a while; and no room at all is said by waits of another kind. */
    double left_ns = MAX(whole_ns - (double)flushing_ns, whole_ns / (double)PACE_FLUSH_SLACK);
    double rate = (double)room_bytes * 1e9 / MAX(left_ns, 1.0);
    double least = (double)flush_bytes_per_s / (double)PACE_FLUSH_SLACK;
    return (uint64_t)MIN(MAX(rate, MAX(least, 1.0)), 1e15);
}

/* 0: memory is in nobody's way. mu held. */
static uint64_t
pace_memory_rate_locked(const esker_db *db, const struct version *version)
{
    uint64_t rate = db_drain_rate(&db->flush_drain);
    if (version->window_count < db_windows_live_locked(db, version) || rate == 0) {
        return 0;
    }
    const struct window *active = version->windows[0];
    const struct window *oldest = version->windows[version->window_count - 1];
    if (oldest->cap_bytes != db->flush_window_bytes) {
        return 0; /* windows still grow: half of what a small one took were syncs, and says nothing of it */
    }
    /* relaxed: how far writers are, about */
    uint64_t used = MIN(window_tail_bytes(load_relaxed(&active->tail)), active->cap_bytes);
    uint64_t now = io_monotonic_ns(db->io);
    uint64_t began = MIN(MAX(db->flush_drain.seen_ns, db->flush_since_ns), now);
    return db_pace_memory_rate(rate, oldest->cap_bytes, now - began, active->cap_bytes - used);
}

/* How fast merges take tiers out of level 0, those under way included. mu held. */
static uint64_t
pace_merge_rate_locked(const esker_db *db)
{
    uint64_t tiers = 0;
    uint64_t since_ns = UINT64_MAX;
    for (const struct compact_run *run = db->compact_runs; run != NULL; run = run->next) {
        if (run->level0_tiers > 0) {
            tiers += run->level0_tiers - (run->plan->output_level == 0 ? 1 : 0);
            since_ns = MIN(since_ns, run->started_ns);
        }
    }
    return db_drain_rate_now(&db->merge_drain, tiers * pace_tier_bytes(db), since_ns,
                             io_monotonic_ns(db->io));
}

void
db_pace_update_locked(esker_db *db)
{
    const struct version *version = load_acquire(&db->current); /* pairs: CURRENT — mu keeps it current */
    struct picker_config config = db_picker_config(db, version);
    uint64_t sizes[ESKER_LEVELS_MAX];
    uint64_t targets[ESKER_LEVELS_MAX];
    for (uint32_t level = 0; level < ESKER_LEVELS_MAX; level++) {
        sizes[level] = version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
    }
    compaction_targets(sizes, &config, targets);
    struct pace_debt debt = pace_debt_of(db, version, &config, targets);
    uint64_t drain = debt.share > 0 ? pace_merge_rate_locked(db) : 0;
    uint64_t rate = debt.share > 0 && drain > 0 ? db_pace_rate(drain, debt.share) : UINT64_MAX;
    uint64_t memory_rate = pace_memory_rate_locked(db, version);
    bool by_memory = memory_rate != 0 && memory_rate < rate;
    rate = by_memory ? memory_rate : rate;
    bool l0_behind = level_run_tiers(version->levels[0]) > config.l0_trigger;
    uint32_t live = db_windows_live_locked(db, version);
    bool waiting = version->window_count + 1 >= live;
    bool flush_behind = version->window_count >= live; /* and writers about to wait for it */
    uint64_t bytes = pace_debt_bytes(version, &config, targets);
    /* relaxed, all of them: hints for writers and jobs, and statistics. */
    store_relaxed(&db->pace_level, by_memory ? PACE_BY_MEMORY : debt.level); /* relaxed: told only */
    store_relaxed(&db->pace_ns_per_mib, rate == UINT64_MAX ? 0 : pace_ns_per_mib(rate)); /* relaxed: a hint */
    store_relaxed(&db->debt_bytes, bytes); /* relaxed: statistic */
    bool little = !l0_behind && !waiting && bytes < config.base_bytes;
    /* relaxed: a hint */
    store_relaxed(&db->tiers_wait, compact_tiers_wait_locked(db, version, config.l0_trigger));
    store_relaxed(&db->merges_are_idle, debt.share == 0 && (little || flush_behind)); /* relaxed: a hint */
    store_relaxed(&db->merges_press, debt.share > 0);                                 /* relaxed: a hint */
}

void
db_pace_merged(esker_db *db, uint64_t tiers_gone, uint64_t started_ns)
{
    if (tiers_gone == 0) {
        return;
    }
    uint64_t now = io_monotonic_ns(db->io);
    mutex_lock(&db->mu);
    db_drain_add(&db->merge_drain, tiers_gone * pace_tier_bytes(db), started_ns, now);
    db_pace_update_locked(db);
    mutex_unlock(&db->mu);
}

void
db_pace_flushed(esker_db *db, uint64_t window_bytes, uint64_t started_ns)
{
    uint64_t now = io_monotonic_ns(db->io);
    mutex_lock(&db->mu);
    if (window_bytes != db->flush_window_bytes) {
        db->flush_drain = (struct db_drain){.seen_ns = db->flush_drain.seen_ns};
    }
    db_drain_add(&db->flush_drain, window_bytes, started_ns, now);
    db->flush_window_bytes = window_bytes;
    db_pace_update_locked(db);
    mutex_unlock(&db->mu);
}

/* ---- A writer's turn ------------------------------------------------------------------ */

/* In two products, neither of which leaves 64 bits: a rate is 1 KiB/s at least. */
uint64_t
db_pace_cost(uint64_t bytes, uint64_t ns_per_mib)
{
    uint64_t mib = MIN(bytes >> 20, (uint64_t)PACE_MIB_MOST);
    uint64_t rest = bytes & ((1U << 20) - 1);
    return mib * ns_per_mib + (rest * ns_per_mib >> 20);
}

/* When what was written before, and this, is paid for. */
static uint64_t
pace_take_turn(esker_db *db, uint64_t bytes, uint64_t ns_per_mib, uint64_t now)
{
    uint64_t due = load_relaxed(&db->pace_due_ns); /* relaxed: turns are only about rates */
    if (due + PACE_BEHIND_NS < now || due > now + PACE_OWED_NS) {
        /* relaxed: the same; one of the writers wins */
        (void)cas_relaxed(&db->pace_due_ns, &due, MIN(MAX(due, now), now + PACE_OWED_NS));
    }
    uint64_t cost = db_pace_cost(bytes, ns_per_mib);
    return add_relaxed(&db->pace_due_ns, cost) + cost; /* relaxed: the same */
}

uint64_t
db_pace_until(uint64_t now, uint64_t due, uint64_t bytes)
{
    if (due <= now + PACE_AHEAD_NS) {
        return now;
    }
    return bytes <= PACE_SMALL_BYTES ? MIN(due, now + PACE_SMALL_NS) : due;
}

uint64_t
db_pace_left(uint64_t left_ns, uint64_t was_ns_per_mib, uint64_t is_ns_per_mib)
{
    double left = (double)left_ns * (double)is_ns_per_mib / (double)MAX(was_ns_per_mib, (uint64_t)1);
    return (uint64_t)MIN(left, 1e18);
}

esker_status
db_pace_wait(esker_db *db, uint64_t bytes, uint64_t deadline_ns)
{
    uint64_t ns_per_mib = load_relaxed(&db->pace_ns_per_mib); /* relaxed: a hint */
    if (ns_per_mib == 0 || db->manual) {
        return ESKER_OK;
    }
    uint64_t began = io_monotonic_ns(db->io);
    uint64_t now = began;
    uint64_t due = pace_take_turn(db, bytes, ns_per_mib, now);
    uint64_t until = db_pace_until(now, due, bytes);
    uint32_t level = load_relaxed(&db->pace_level); /* relaxed: told only */
    bool in_time = true;
    while (until > now) {
        uint64_t is_ns_per_mib = load_relaxed(&db->pace_ns_per_mib); /* relaxed: a hint */
        if (is_ns_per_mib == 0) {
            break; /* without debt nobody waits, whatever was due */
        }
        if (is_ns_per_mib != ns_per_mib) {
            due = now + db_pace_left(due - now, ns_per_mib, is_ns_per_mib);
            until = db_pace_until(began, due, bytes);
            ns_per_mib = is_ns_per_mib;
            continue;
        }
        if (deadline_ns != 0 && now >= deadline_ns) {
            in_time = false;
            break;
        }
        _Atomic uint32_t nobody_wakes = 0;
        futex_wait(&nobody_wakes, 0, MIN(until - now, (uint64_t)PACE_SLICE_NS));
        now = io_monotonic_ns(db->io);
    }
    if (now > began) {
        int cause = level == PACE_BY_MEMORY ? ESKER_WAIT_MEMORY : ESKER_WAIT_DEBT;
        db_pace_note(db, cause, level == PACE_BY_MEMORY ? 0 : level, now - began);
    }
    return in_time ? ESKER_OK : FAIL(ESKER_TIMED_OUT, "merges or flushes did not catch up in time");
}
