/* SPDX-License-Identifier: MIT */
/* What must hold of a database that got the first so many of the demo's records. */
#include "base/status.h"
#include "tools/demo.h"

static esker_slice
check_key(const struct demo_records *records, uint64_t record)
{
    return bytes_to_slice(demo_record_key(records, record));
}

esker_status
demo_check_get(esker_db *db, const struct demo_records *records, uint64_t record,
               const esker_snapshot *snapshot, bool *found_out)
{
    esker_read_options options;
    esker_value value = {0};
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    esker_status status = esker_get(db, check_key(records, record), &options, &value);
    if (status == ESKER_NOT_FOUND) {
        *found_out = false;
        return ESKER_OK;
    }
    TRY(status);
    bool right = bytes_equal(bytes_make(value.data, value.size), demo_record_value(records, record));
    esker_value_release(&value);
    *found_out = true;
    return right ? ESKER_OK
                 : FAIL(ESKER_CORRUPT, "record %llu has another value than was written",
                        (unsigned long long)record);
}

esker_status
demo_check_present(esker_db *db, const struct demo_records *records, uint64_t record,
                   const esker_snapshot *snapshot)
{
    bool found = false;
    TRY(demo_check_get(db, records, record, snapshot, &found));
    return found ? ESKER_OK : FAIL(ESKER_CORRUPT, "record %llu is lost", (unsigned long long)record);
}

/* ---- A walk over everything ------------------------------------------------ */

/* Beside the iterator a finger moves over the sorted records; what it passes
 * over is absent from the database. */
struct check_walk {
    const struct demo_records *records;
    bool backwards;
    uint64_t passed; /* of the sorted records */
    uint64_t rows;
    uint64_t present_end;  /* the largest record number that is there, + 1 */
    uint64_t absent_least; /* the smallest that is not */
};

static uint64_t
check_next_record(struct check_walk *walk)
{
    uint64_t place = walk->backwards ? walk->records->count - 1 - walk->passed : walk->passed;
    walk->passed++;
    return walk->records->sorted[place];
}

static esker_status
check_row(struct check_walk *walk, struct bytes key, struct bytes value)
{
    while (walk->passed < walk->records->count) {
        uint64_t record = check_next_record(walk);
        if (!bytes_equal(key, demo_record_key(walk->records, record))) {
            walk->absent_least = MIN(walk->absent_least, record);
            continue;
        }
        if (!bytes_equal(value, demo_record_value(walk->records, record))) {
            return FAIL(ESKER_CORRUPT, "a scan gives record %llu another value than was written",
                        (unsigned long long)record);
        }
        walk->rows++;
        walk->present_end = MAX(walk->present_end, record + 1);
        return ESKER_OK;
    }
    return FAIL(ESKER_CORRUPT, "a scan gives a key that was never written, or out of order");
}

static esker_status
check_walk(esker_iter *iter, struct check_walk *walk)
{
    esker_status status = walk->backwards ? esker_iter_last(iter) : esker_iter_first(iter);
    while (status == ESKER_OK) {
        esker_slice value;
        TRY(esker_iter_value(iter, &value));
        TRY(check_row(walk, bytes_of_slice(esker_iter_key(iter)), bytes_of_slice(value)));
        status = walk->backwards ? esker_iter_prev(iter) : esker_iter_next(iter);
    }
    if (status != ESKER_END) {
        return status;
    }
    while (walk->passed < walk->records->count) {
        uint64_t record = check_next_record(walk);
        walk->absent_least = MIN(walk->absent_least, record);
    }
    return ESKER_OK;
}

esker_status
demo_check_scan(esker_db *db, const struct demo_records *records, const esker_snapshot *snapshot,
                bool backwards, uint64_t *prefix_out)
{
    esker_read_options options;
    esker_iter *iter = NULL;
    struct check_walk walk = {.records = records, .backwards = backwards, .absent_least = UINT64_MAX};
    esker_read_options_init(&options);
    options.snapshot = snapshot;
    options.fill_cache = false;
    TRY(esker_iter_create(db, &options, &iter));
    esker_status status = check_walk(iter, &walk);
    esker_iter_destroy(iter);
    TRY(status);
    if (walk.absent_least < walk.present_end) {
        return FAIL(ESKER_CORRUPT, "a scan misses record %llu but has record %llu, which was written later",
                    (unsigned long long)walk.absent_least, (unsigned long long)walk.present_end - 1);
    }
    *prefix_out = walk.rows;
    return ESKER_OK;
}
