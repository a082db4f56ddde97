/* SPDX-License-Identifier: MIT */
/* libesker-sim's calls: the simulated disk for embedders' own tests. */
#include "esker/esker_sim.h"

#include "db/db.h"
#include "io/io_sim.h"

struct esker_sim {
    struct sim_disk *disk;
};

static const struct db_tuning sim_tuning = {
    .window_bytes_first = 4096, .window_bytes_max = 16384, .segment_bytes = 32768, .manifest_bytes = 4096};

static esker_status
sim_wrap(struct sim_disk *disk, esker_sim **out)
{
    esker_sim *sim = mem_zalloc(&mem_default, sizeof *sim);
    if (sim == NULL) {
        sim_disk_destroy(disk);
        return FAIL_NO_MEMORY("a simulated disk");
    }
    sim->disk = disk;
    *out = sim;
    return ESKER_OK;
}

esker_status
esker_sim_create(uint64_t seed, esker_sim **out)
{
    return out != NULL ? sim_wrap(sim_disk_create(seed), out)
                       : FAIL(ESKER_INVALID, "an output pointer is NULL");
}

void
esker_sim_destroy(esker_sim *sim)
{
    if (sim != NULL) {
        sim_disk_destroy(sim->disk);
        mem_free(&mem_default, sim);
    }
}

esker_status
esker_sim_clone(esker_sim *sim, esker_sim **out)
{
    if (sim == NULL || out == NULL) {
        return FAIL(ESKER_INVALID, "the disk or an output pointer is NULL");
    }
    return sim_wrap(sim_disk_clone(sim->disk), out);
}

esker_status
esker_sim_open(esker_sim *sim, const esker_options *options, esker_db **db_out)
{
    struct io *io = NULL;
    if (sim == NULL || db_out == NULL) {
        return FAIL(ESKER_INVALID, "the disk or an output pointer is NULL");
    }
    TRY(io_sim_open(sim->disk, &mem_default, &io));
    return db_open_on(io, options, &sim_tuning, true, db_out);
}

int
esker_sim_run_background(void)
{
    if (!workers_manual()) {
        return 0;
    }
    epoch_drain(); /* nobody else lets go of what merges replaced */
    return workers_run_one();
}

esker_status
esker_sim_crash(esker_sim *sim, int how, uint64_t seed)
{
    static const enum sim_crash modes[ESKER_SIM_CRASHES] = {
        [ESKER_SIM_KILL] = SIM_CRASH_KILL,
        [ESKER_SIM_POWER_NONE] = SIM_CRASH_POWER_NONE,
        [ESKER_SIM_POWER_ALL] = SIM_CRASH_POWER_ALL,
        [ESKER_SIM_POWER_RANDOM] = SIM_CRASH_POWER_RANDOM,
    };

    if (sim == NULL) {
        return FAIL(ESKER_INVALID, "the disk is NULL");
    }
    if (how < 0 || how >= ESKER_SIM_CRASHES) {
        return FAIL(ESKER_INVALID, "%d is no kind of crash", how);
    }
    sim_disk_crash(sim->disk, modes[how], seed);
    return ESKER_OK;
}

void
esker_sim_crash_at(esker_sim *sim, uint64_t nth)
{
    sim_disk_crash_at(sim->disk, nth);
}

int
esker_sim_is_off(esker_sim *sim)
{
    return sim_disk_is_off(sim->disk);
}

uint64_t
esker_sim_changes(esker_sim *sim)
{
    return sim_disk_mutations(sim->disk);
}

esker_status
esker_sim_fault(esker_sim *sim, const char *script)
{
    if (sim == NULL || script == NULL) {
        return FAIL(ESKER_INVALID, "the disk or the script is NULL");
    }
    if (!sim_disk_script(sim->disk, script)) {
        return FAIL(ESKER_INVALID, "not a fault, or too many: %.100s", script);
    }
    return ESKER_OK;
}

void
esker_sim_heal(esker_sim *sim)
{
    sim_disk_heal(sim->disk);
}

uint64_t
esker_sim_faults_hit(esker_sim *sim)
{
    return sim_disk_fired(sim->disk);
}

void
esker_sim_set_capacity(esker_sim *sim, uint64_t bytes)
{
    sim_disk_set_capacity(sim->disk, bytes);
}

void
esker_sim_advance(esker_sim *sim, uint64_t ns)
{
    sim_disk_advance(sim->disk, ns);
}
