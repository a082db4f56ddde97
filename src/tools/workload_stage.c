/* SPDX-License-Identifier: MIT */
/*
 * What the child does: open, clients, close, read the final state. With a disk
 * of the simulator the power may be cut in between, and the same process goes on.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/status.h"
#include "tools/tool.h"
#include "tools/workload_client.h"
#include "tools/workload_disk.h"

/* A thousand threads fit. The sanitizers' frames are larger. */
enum { STAGE_STACK_BYTES = 512 << 10, STAGE_POLL_NS = 1000000 };

struct stage {
    struct workload_area *area;
    const esker_options *options;
    const char *dir;
    struct workload_disk *disk; /* NULL: a real directory */
    esker_db *db;
    struct workload_crew crew;
    struct workload_worker *workers;
};

static bool
stage_failed(struct stage *stage, const char *what)
{
    workload_area_fail(stage->area, "%s: %s", what, status_last()->message);
    return false;
}

static bool
stage_open(struct stage *stage)
{
    esker_status status = stage->disk != NULL ? workload_disk_open(stage->disk, stage->options, &stage->db)
                                              : esker_open(stage->dir, stage->options, &stage->db);
    if (status != ESKER_OK) {
        return stage_failed(stage, "the database does not open");
    }
    stage->crew.engine.db = stage->db;
    return true;
}

/* ---- The clients ---------------------------------------------------------------- */

static bool
stage_start_clients(struct stage *stage)
{
    pthread_attr_t attr;
    bool good = pthread_attr_init(&attr) == 0 && pthread_attr_setstacksize(&attr, STAGE_STACK_BYTES) == 0;
    struct workload_crew *crew = &stage->crew;
    store_release(&crew->running, stage->area->client_count); /* pairs: WORKLOAD_RUNNING */
    for (uint32_t i = 0; i < stage->area->client_count; i++) {
        struct workload_worker *worker = &stage->workers[i];
        good = good && workload_worker_init(worker, crew, &stage->area->clients[i]) == ESKER_OK &&
               pthread_create(&worker->thread, &attr, workload_worker_main, worker) == 0;
        worker->started = good;
        if (!good) {
            (void)sub_acq_rel(&crew->running, 1); /* pairs: WORKLOAD_RUNNING */
            store_release(&crew->broken, true);   /* pairs: WORKLOAD_BROKEN */
            workload_area_fail(stage->area, "client %u of %u cannot be started", i + 1,
                               stage->area->client_count);
        }
    }
    (void)pthread_attr_destroy(&attr);
    return good;
}

/* Until all clients have come to an end; breaks the disk when it is time to. */
static void
stage_watch_clients(struct stage *stage)
{
    struct workload_area *area = stage->area;
    const struct workload_config *config = &area->config;
    double wall_ns = config->seconds / config->time_scale * 1e9;
    uint32_t fails = config->chaos.io_fails;
    while (load_acquire(&stage->crew.running) > 0) { /* pairs: WORKLOAD_RUNNING */
        double share = (double)(area->incidents + 1) / (double)(fails + 1);
        bool last_fired = stage->disk == NULL || workload_disk_fired(stage->disk) >= area->incidents;
        if (area->incidents < fails && last_fired &&
            tool_now_ns() >= area->start_ns + (uint64_t)(share * wall_ns)) {
            workload_disk_break(stage->disk, area->incidents);
            area->incidents++;
        }
        struct timespec pause = {.tv_nsec = STAGE_POLL_NS};
        (void)nanosleep(&pause, NULL);
    }
}

static void
stage_join_clients(struct stage *stage)
{
    for (uint32_t i = 0; i < stage->area->client_count; i++) {
        struct workload_worker *worker = &stage->workers[i];
        if (worker->started) {
            (void)pthread_join(worker->thread, NULL);
        }
        workload_worker_fini(worker);
        memset(worker, 0, sizeof *worker);
    }
}

/* One opening. True: all clients came to their end, or something failed for good. */
static bool
stage_run_clients(struct stage *stage)
{
    struct workload_area *area = stage->area;
    store_release(&stage->crew.broken, false); /* pairs: WORKLOAD_BROKEN */
    area->opened_ns[area->openings % WORKLOAD_OPENINGS_MAX] = tool_now_ns();
    area->openings++;
    if (workload_engine_begin(&stage->crew.engine) != ESKER_OK) {
        return !stage_failed(stage, "no snapshot");
    }
    (void)stage_start_clients(stage);
    stage_watch_clients(stage);
    stage_join_clients(stage);
    workload_engine_end(&stage->crew.engine);
    bool broken = load_acquire(&stage->crew.broken);                     /* pairs: WORKLOAD_BROKEN */
    if (broken && stage->disk != NULL && !load_acquire(&area->failed)) { /* pairs: WORKLOAD_FAILED */
        workload_disk_cut(stage->disk, stage->db, area->config.seed + area->openings);
        stage->db = NULL;
        area->cuts++;
        return !stage_open(stage);
    }
    area->ended = !broken;
    return true;
}

/* ---- The final state -------------------------------------------------------------- */

static bool
stage_enter_row(struct workload_area *area, esker_iter *iter)
{
    esker_slice key = esker_iter_key(iter);
    esker_slice value;
    struct workload_stamp stamp = {0};
    struct workload_final *final = &area->final[area->final_count];
    if (area->final_count == area->final_capacity || !workload_key_parse(key.data, key.size, &final->key)) {
        workload_area_fail(area, "the database holds a key that nobody wrote");
        return false;
    }
    if (esker_iter_value(iter, &value) != ESKER_OK) {
        workload_area_fail(area, "a value cannot be read: %s", status_last()->message);
        return false;
    }
    final->damaged = !workload_value_read(value.data, value.size, final->key, &stamp);
    final->nonce = stamp.nonce;
    final->txn = stamp.txn;
    final->keys = stamp.keys;
    final->merged = stamp.merged;
    area->final_count++;
    return true;
}

/* Walks everything, and remembers whether keys only went up. */
static void
stage_walk(struct workload_area *area, esker_iter *iter)
{
    char last[WORKLOAD_KEY_TEXT] = "";
    size_t last_len = 0;
    area->final_count = 0;
    area->scan_order = true;
    esker_status status = esker_iter_first(iter);
    while (status == ESKER_OK && stage_enter_row(area, iter)) {
        esker_slice key = esker_iter_key(iter);
        size_t len = MIN(key.size, sizeof last);
        int order = memcmp(last, key.data, MIN(last_len, len));
        area->scan_order = area->scan_order && (order < 0 || (order == 0 && last_len < len));
        memcpy(last, key.data, len);
        last_len = len;
        status = esker_iter_next(iter);
    }
    area->scanned = status == ESKER_END;
    if (status < 0) {
        workload_area_fail(area, "the final scan failed: %s", status_last()->message);
    }
}

static void
stage_scan(struct stage *stage)
{
    esker_iter *iter = NULL;
    if (esker_iter_create(stage->db, NULL, &iter) != ESKER_OK) {
        (void)stage_failed(stage, "no iterator");
        return;
    }
    stage_walk(stage->area, iter);
    esker_iter_destroy(iter);
}

/* ---- The stage --------------------------------------------------------------------- */

/* A failure of the disk may come so late that only the close meets it: then the power is cut. */
static bool
stage_close(struct stage *stage)
{
    if (stage->disk != NULL) {
        workload_disk_heal(stage->disk);
    }
    if (esker_close(stage->db) == ESKER_OK) {
        return true;
    }
    if (stage->area->config.chaos.io_fails == 0) {
        return stage_failed(stage, "the database does not close");
    }
    /* The failed close has freed the handle. */
    workload_disk_cut(stage->disk, NULL, stage->area->config.seed);
    stage->area->cuts++;
    return true;
}

static void
stage_run(struct stage *stage)
{
    if (!stage_open(stage)) {
        return;
    }
    while (!stage_run_clients(stage)) {
    }
    if (stage->db == NULL) {
        return;
    }
    /* What is checked at the end is what a close and an open leave. */
    if (!stage_close(stage) || !stage_open(stage)) {
        return;
    }
    stage_scan(stage);
    if (esker_close(stage->db) != ESKER_OK) {
        (void)stage_failed(stage, "the database does not close again");
    }
}

void
workload_stage(struct workload_area *area, const esker_options *options, const char *dir)
{
    const struct workload_config *config = &area->config;
    struct stage stage = {.area = area, .options = options, .dir = dir};
    /* Threads wake when they are due, not up to 50 us later. Those started from here on inherit it. */
    (void)prctl(PR_SET_TIMERSLACK, 1UL);
    stage.crew.area = area;
    stage.crew.engine.inject = config->inject;
    stage.crew.engine.value_bytes = config->value_bytes;
    stage.workers = calloc(area->client_count, sizeof *stage.workers);
    if (config->chaos.io_delay_ms > 0 || config->chaos.io_fails > 0) {
        uint64_t delay_ns = (uint64_t)(config->chaos.io_delay_ms / config->time_scale * 1e6);
        stage.disk = workload_disk_create(config->seed, delay_ns);
    }
    if (stage.workers == NULL) {
        workload_area_fail(area, "no memory for the clients");
    } else {
        stage_run(&stage);
    }
    free(stage.workers);
    if (!area->failed || stage.disk == NULL) {
        workload_disk_destroy(stage.disk);
    }
}
