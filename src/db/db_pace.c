/* SPDX-License-Identifier: MIT */
/*
 * How fast writers may go, and what made them wait.
 *
 * Debt is what merges are behind with: tiers of level 0 beyond what a merge
 * takes at once, and bytes in a level beyond its target. With no debt writers
 * load one word and go on. With debt d in (0, 1] they share a rate: what merges
 * were measured to take out of level 0, times 1.5 - d; so the more there is to
 * catch up with, the more of it is caught up with. From 1 to 2, which is where
 * level 0 is full, it falls on to a twentieth: level 0 becomes full only if its
 * merges come to nothing at all, and nobody runs into that at full speed.
 *
 * A writer takes its turn by one add on `pace_due_ns`, the time at which what
 * was written so far is paid for, and sleeps while that lies ahead. Short times
 * are let add up, since a sleep costs about 50 microseconds by itself.
 *
 * Concurrency: the inputs are guarded by mu; what writers read are relaxed
 * words, since nothing depends on their being of one moment.
 */
#include "db/db.h"

enum {
    PACE_SLICE_NS = 1000000,  /* a sleep; then the rate may be another */
    PACE_AHEAD_NS = 100000,   /* not worth a sleep */
    PACE_TELL_NS = 10000000,  /* waits are told together */
    PACE_BEHIND_NS = 2000000, /* turns that nobody took are lost after this */
    PACE_L0_UNIT_LEAST = 8,
    PACE_L0_UNIT_MOST = 12,
    PACE_L0_FULL = 4,    /* in units of the trigger, within these bounds: debt 1 */
    PACE_L0_FREE = 2,    /* debt 0 */
    PACE_LEVEL_FREE = 2, /* the same for levels, in units of their targets */
    PACE_LEVEL_FULL = 6,
    PACE_EWMA = 4,
    PACE_DEBT_SCALE = 1000, /* debt 1 */
    PACE_LEAST = 20         /* debt 2: this part of what merges take out */
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
            uint32_t level =
                cause == ESKER_WAIT_LEVEL0 ? 0 : load_relaxed(&db->pace_level); /* relaxed: told */
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
    all = MAX(all, none + (full - MIN(none, full)) / 2);
    return pace_share((uint64_t)count * PACE_DEBT_SCALE, none, all, full);
}

uint64_t
db_pace_rate(uint64_t drain_bytes_per_s, uint64_t share)
{
    uint64_t part = drain_bytes_per_s / PACE_DEBT_SCALE;
    if (share <= PACE_DEBT_SCALE) {
        return part * (3 * (uint64_t)PACE_DEBT_SCALE / 2 - share);
    }
    uint64_t beyond = MIN(share, 2 * (uint64_t)PACE_DEBT_SCALE) - PACE_DEBT_SCALE;
    uint64_t half = PACE_DEBT_SCALE / 2;
    return part * (half - beyond * (half - PACE_DEBT_SCALE / PACE_LEAST) / PACE_DEBT_SCALE);
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
    const struct level_run *level0 = version->levels[0];
    uint32_t count = level0 != NULL ? level0->count : 0;
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
    if (level0 != NULL && level0->count >= config->l0_trigger) {
        bytes = level0->size_bytes;
    }
    for (uint32_t level = 1; level + 1 < ESKER_LEVELS_MAX; level++) {
        uint64_t have = version->levels[level] != NULL ? version->levels[level]->size_bytes : 0;
        bytes += have > targets[level] ? have - targets[level] : 0;
    }
    return bytes;
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
    uint64_t ns_per_mib = 0;
    if (debt.share > 0 && db->drain_bytes_per_s > 0) {
        uint64_t rate = db_pace_rate(db->drain_bytes_per_s, debt.share);
        ns_per_mib = (uint64_t)1000000000 * 1024 / MAX(rate / 1024, (uint64_t)1);
    }
    const struct level_run *level0 = version->levels[0];
    bool l0_behind = level0 != NULL && level0->count > config.l0_trigger;
    bool waiting = version->window_count + 1 >= WINDOWS_LIVE_MAX;
    bool flush_behind = version->window_count >= WINDOWS_LIVE_MAX; /* and writers about to wait for it */
    uint64_t bytes = pace_debt_bytes(version, &config, targets);
    /* relaxed, all of them: hints for writers and jobs, and statistics. */
    store_relaxed(&db->pace_level, debt.level);      /* relaxed: told only */
    store_relaxed(&db->pace_ns_per_mib, ns_per_mib); /* relaxed: a hint */
    store_relaxed(&db->debt_bytes, bytes);           /* relaxed: statistic */
    bool little = !l0_behind && !waiting && bytes < config.base_bytes;
    store_relaxed(&db->merges_are_idle, debt.share == 0 && (little || flush_behind)); /* relaxed: a hint */
}

void
db_pace_merged(esker_db *db, uint32_t input_level, uint64_t input_bytes, uint64_t started_ns)
{
    if (input_level != 0) {
        return;
    }
    uint64_t now = io_monotonic_ns(db->io);
    mutex_lock(&db->mu);
    uint64_t from = MAX(started_ns, db->drain_seen_ns);
    uint64_t took_us = MAX((now - MIN(from, now)) / 1000, (uint64_t)1);
    uint64_t rate = MAX(input_bytes * 1000 / took_us * 1000, (uint64_t)1);
    db->drain_bytes_per_s =
        db->drain_bytes_per_s == 0 ? rate : (db->drain_bytes_per_s * (PACE_EWMA - 1) + rate) / PACE_EWMA;
    db->drain_seen_ns = now;
    db_pace_update_locked(db);
    mutex_unlock(&db->mu);
}

/* ---- A writer's turn ------------------------------------------------------------------ */

/* When what was written before, and this, is paid for. */
static uint64_t
pace_take_turn(esker_db *db, uint64_t bytes, uint64_t ns_per_mib, uint64_t now)
{
    uint64_t due = load_relaxed(&db->pace_due_ns); /* relaxed: turns are only about rates */
    if (due + PACE_BEHIND_NS < now) {
        (void)cas_relaxed(&db->pace_due_ns, &due, now); /* relaxed: the same; one of the writers wins */
    }
    uint64_t cost = bytes * ns_per_mib >> 20;
    return add_relaxed(&db->pace_due_ns, cost) + cost; /* relaxed: the same */
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
    uint32_t level = load_relaxed(&db->pace_level); /* relaxed: told only */
    bool in_time = true;
    /* relaxed: without debt nobody waits, whatever was due */
    while (due > now + PACE_AHEAD_NS && load_relaxed(&db->pace_ns_per_mib) != 0) {
        if (deadline_ns != 0 && now >= deadline_ns) {
            in_time = false;
            break;
        }
        _Atomic uint32_t nobody_wakes = 0;
        futex_wait(&nobody_wakes, 0, MIN(due - now, (uint64_t)PACE_SLICE_NS));
        now = io_monotonic_ns(db->io);
    }
    if (now > began) {
        db_pace_note(db, ESKER_WAIT_DEBT, level, now - began);
    }
    return in_time ? ESKER_OK : FAIL(ESKER_TIMED_OUT, "merges did not catch up in time");
}
