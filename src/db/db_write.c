/* SPDX-License-Identifier: MIT */
/* put, delete, write, and batches: what a caller hands in, checked and encoded. */
#include "db/db.h"
#include "base/mutant.h"

static esker_status
write_check_key(esker_slice key)
{
    if (key.data == NULL || key.size == 0) {
        return FAIL(ESKER_INVALID, "the key is empty");
    }
    if (key.size > KEY_BYTES_MAX) {
        return FAIL(ESKER_TOO_LARGE, "the key has %zu bytes; the limit is %d", key.size, KEY_BYTES_MAX);
    }
    return ESKER_OK;
}

static esker_status
write_check_value(esker_slice value)
{
    if (value.data == NULL && value.size > 0) {
        return FAIL(ESKER_INVALID, "the value is NULL but its size is not 0");
    }
    if (value.size > VALUE_BYTES_MAX) {
        return FAIL(ESKER_TOO_LARGE, "the value has %zu bytes; the limit is %d", value.size, VALUE_BYTES_MAX);
    }
    return ESKER_OK;
}

static esker_status
write_options(esker_db *db, const esker_write_options *options, struct commit *commit)
{
    commit->level = db->options.durability;
    commit->ttl_ms = db->options.default_ttl_ms >= BATCH_UNTIL ? 0 : db->options.default_ttl_ms;
    if (options == NULL) {
        return ESKER_OK;
    }
    if (options->struct_size < offsetof(esker_write_options, ttl_ms)) {
        return FAIL(ESKER_INVALID, "the write options were not initialised");
    }
    if (options->durability < ESKER_DURABLE_DEFAULT || options->durability > ESKER_DURABLE_SYNC) {
        return FAIL(ESKER_INVALID, "durability %d is not a level", options->durability);
    }
    if (options->durability != ESKER_DURABLE_DEFAULT) {
        commit->level = options->durability;
    }
    if (options->stall_timeout_ms != 0) {
        commit->deadline_ns = io_monotonic_ns(db->io) + (uint64_t)options->stall_timeout_ms * 1000000;
    }
    if (options->struct_size >= sizeof *options && options->ttl_ms != 0) {
        commit->ttl_ms = options->ttl_ms >= BATCH_UNTIL ? 0 : options->ttl_ms;
    }
    return ESKER_OK;
}

/* What the level asks for beyond visibility. */
static esker_status
write_wait_level(esker_db *db, struct thread_state *self, const struct commit *commit, uint64_t end_lsn)
{
    switch (commit->level) {
    case ESKER_DURABLE_MEMORY:
        db_push_on(db, end_lsn, PUSH_SOON);
        return ESKER_OK;
    case ESKER_DURABLE_INTERVAL:
        db_push_on(db, end_lsn, PUSH_SOON | PUSH_SYNC);
        return db->tail_mode ? ESKER_OK : db_wait_logged(db, self, end_lsn);
    case ESKER_DURABLE_SYNC:
        return db_wait_durable(db, self, end_lsn, 0);
    default:
        return db->tail_mode ? ESKER_OK : db_wait_logged(db, self, end_lsn);
    }
}

#ifdef ESKER_MUTANTS
/* What a batch must not become: two frames. */
static esker_status
write_in_two(esker_db *db, struct thread_state *self, const struct commit *commit, uint64_t *end_lsn_out)
{
    struct commit part = *commit;
    struct entry entry;
    uint64_t at = 0;
    TRY(entry_decode(commit->body, &at, &entry));
    part.body.len = at;
    part.op_count = 1;
    TRY(db_commit(db, self, &part, end_lsn_out));
    part.body = bytes_make(commit->body.ptr + at, commit->body.len - at);
    part.op_count = commit->op_count - 1;
    return db_commit(db, self, &part, end_lsn_out);
}
#else
#define write_in_two db_commit
#endif

static esker_status
write_commit(esker_db *db, struct thread_state *self, const struct commit *commit, uint32_t put_count,
             esker_lsn *lsn_out)
{
    uint64_t end_lsn = 0;
    size_t bytes = commit->single ? commit->key.len + commit->value.len : commit->body.len;
    if (bytes > db->options.memory_budget_bytes / 2) {
        return FAIL(ESKER_TOO_LARGE, "the batch has %zu bytes; the limit is half the memory budget", bytes);
    }
    TRY(MUTANT(17) && commit->op_count > 1 ? write_in_two(db, self, commit, &end_lsn)
                                           : db_commit(db, self, commit, &end_lsn));
    struct stripe *stripe = db_stripe(db, self);
    counter_bump(&stripe->commits, 1);                            /* relaxed: statistic */
    counter_bump(&stripe->puts, put_count);                       /* relaxed: statistic */
    counter_bump(&stripe->deletes, commit->op_count - put_count); /* relaxed: statistic */
    counter_bump(&stripe->bytes_written, bytes);                  /* relaxed: statistic */
    TRY(write_wait_level(db, self, commit, end_lsn));
    if (lsn_out != NULL) {
        *lsn_out = end_lsn;
    }
    return ESKER_OK;
}

/* The same where what is put expires, if it does. */
static esker_status
write_commit_timed(esker_db *db, struct thread_state *self, struct commit *commit, uint32_t put_count,
                   esker_lsn *lsn_out)
{
    if (LIKELY(!db_expiry_applies(commit, put_count))) {
        return write_commit(db, self, commit, put_count, lsn_out);
    }
    struct buf room;
    buf_init(&room, &db->mem);
    esker_status status = db_expiry_resolve(db, commit, &room);
    if (status == ESKER_OK) {
        status = write_commit(db, self, commit, put_count, lsn_out);
    }
    buf_fini(&room);
    return status;
}

static esker_status
write_single(esker_db *db, enum entry_op op, esker_slice key, esker_slice value,
             const esker_write_options *options)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    struct commit commit = {.single = true,
                            .op = op,
                            .key = bytes_of_slice(key),
                            .value = bytes_of_slice(value),
                            .op_count = 1,
                            .deletes = op == ENTRY_DELETE,
                            .any_delete = op == ENTRY_DELETE};
    esker_status status = write_check_key(key);
    if (status == ESKER_OK) {
        status = write_check_value(value);
    }
    if (status == ESKER_OK) {
        status = write_options(db, options, &commit);
    }
    if (status == ESKER_OK) {
        status = write_commit_timed(db, call.self, &commit, op == ENTRY_PUT ? 1 : 0, NULL);
    }
    db_call_exit(&call);
    return status;
}

esker_status
esker_put(esker_db *db, esker_slice key, esker_slice value, const esker_write_options *options)
{
    return write_single(db, ENTRY_PUT, key, value, options);
}

esker_status
esker_delete(esker_db *db, esker_slice key, const esker_write_options *options)
{
    return write_single(db, ENTRY_DELETE, key, (esker_slice){0}, options);
}

static esker_status
write_check_batch(const esker_batch *batch)
{
    if (batch == NULL || batch->magic != BATCH_MAGIC) {
        return FAIL(ESKER_INVALID, "the batch handle is not valid");
    }
    return ESKER_OK;
}

/* An empty batch writes nothing; its requirements are still checked, at the present. */
static esker_status
write_empty(esker_db *db, struct thread_state *self, const esker_batch *batch, esker_lsn *lsn_out)
{
    struct version *version = db_current_ref(db, self);
    uint64_t lsn = MIN(load_acquire(&db->visible), version->end_lsn); /* pairs: VISIBLE */
    const struct batch_require *requires = (const struct batch_require *)(const void *)batch->requires.ptr;
    size_t count = batch->requires.len / sizeof *requires;
    esker_status status = ESKER_OK;
    for (size_t i = 0; i < count && status == ESKER_OK; i++) {
        struct bytes key = bytes_make(batch->require_keys.ptr + requires[i].key_offset, requires[i].key_len);
        bool changed = false;
        uint64_t asked = requires[i].unchanged_since;
        status = db_changed_since(db, version, key, asked, asked, lsn, &changed);
        if (status == ESKER_OK && changed) {
            status = FAIL(ESKER_CONFLICT, "a required key has changed since LSN %llu",
                          (unsigned long long) requires[i].unchanged_since);
        }
    }
    version_unref(version);
    if (status == ESKER_OK && lsn_out != NULL) {
        *lsn_out = lsn;
    }
    return status;
}

esker_status
esker_write(esker_db *db, const esker_batch *batch, const esker_write_options *options, esker_lsn *lsn_out)
{
    struct db_call call;
    TRY(db_call_enter(db, &call));
    struct commit commit = {0};
    esker_status status = write_check_batch(batch);
    if (status == ESKER_OK) {
        status = write_options(db, options, &commit);
    }
    if (status == ESKER_OK && batch->count == 0) {
        status = write_empty(db, call.self, batch, lsn_out);
    } else if (status == ESKER_OK) {
        commit.body = buf_bytes(&batch->body);
        commit.op_count = batch->count;
        commit.deletes = batch->put_count == 0;
        commit.any_delete = batch->put_count < batch->count;
        commit.batch = batch;
        status = write_commit_timed(db, call.self, &commit, batch->put_count, lsn_out);
    }
    db_call_exit(&call);
    return status;
}

/* ---- Batches ------------------------------------------------------------------ */

esker_status
esker_batch_create(esker_batch **out)
{
    if (out == NULL) {
        return FAIL(ESKER_INVALID, "an output pointer is NULL");
    }
    esker_batch *batch = mem_zalloc(&mem_default, sizeof *batch);
    if (batch == NULL) {
        return FAIL_NO_MEMORY("a batch");
    }
    batch->magic = BATCH_MAGIC;
    buf_init(&batch->body, &mem_default);
    buf_init(&batch->require_keys, &mem_default);
    buf_init(&batch->requires, &mem_default);
    *out = batch;
    return ESKER_OK;
}

void
esker_batch_destroy(esker_batch *batch)
{
    if (batch == NULL || batch->magic != BATCH_MAGIC) {
        return;
    }
    batch->magic = 0;
    buf_fini(&batch->body);
    buf_fini(&batch->require_keys);
    buf_fini(&batch->requires);
    mem_free(&mem_default, batch);
}

void
esker_batch_clear(esker_batch *batch)
{
    if (batch == NULL || batch->magic != BATCH_MAGIC) {
        return;
    }
    batch->count = 0;
    batch->put_count = 0;
    batch->ttl_count = 0;
    buf_clear(&batch->body);
    buf_clear(&batch->require_keys);
    buf_clear(&batch->requires);
}

static esker_status
batch_check(const esker_batch *batch, esker_slice key, esker_slice value)
{
    TRY(write_check_batch(batch));
    TRY(write_check_key(key));
    TRY(write_check_value(value));
    if (batch->count >= MEMTABLE_OPS_MAX) {
        return FAIL(ESKER_TOO_LARGE, "the batch has %u entries, the most there can be", batch->count);
    }
    return ESKER_OK;
}

static esker_status
batch_add(esker_batch *batch, enum entry_op op, esker_slice key, esker_slice value)
{
    TRY(batch_check(batch, key, value));
    uint64_t size = entry_size_bytes(key.size, value.size);
    TRY(buf_reserve(&batch->body, size));
    entry_encode(batch->body.ptr + batch->body.len, op, bytes_of_slice(key), bytes_of_slice(value));
    batch->body.len += size;
    batch->count++;
    batch->put_count += op == ENTRY_PUT ? 1 : 0;
    return ESKER_OK;
}

/* life: see struct esker_batch. */
static esker_status
batch_add_expiring(esker_batch *batch, esker_slice key, esker_slice value, uint64_t life)
{
    TRY(batch_check(batch, key, value));
    if (value.size > VALUE_BYTES_MAX - EXPIRY_BYTES) {
        return FAIL(ESKER_TOO_LARGE, "the value has %zu bytes; the limit is %d where it expires", value.size,
                    VALUE_BYTES_MAX - EXPIRY_BYTES);
    }
    uint64_t size = entry_size_bytes(key.size, EXPIRY_BYTES + value.size);
    TRY(buf_reserve(&batch->body, size));
    entry_encode_expiring(batch->body.ptr + batch->body.len, bytes_of_slice(key), life,
                          bytes_of_slice(value));
    batch->body.len += size;
    batch->count++;
    batch->put_count++;
    batch->ttl_count++;
    return ESKER_OK;
}

esker_status
esker_batch_put_ttl(esker_batch *batch, esker_slice key, esker_slice value, uint64_t ttl_ms)
{
    if (ttl_ms == 0) {
        return batch_add(batch, ENTRY_PUT, key, value);
    }
    return batch_add_expiring(batch, key, value, ttl_ms < BATCH_UNTIL ? ttl_ms : ESKER_TTL_NONE);
}

esker_status
esker_batch_put_until(esker_batch *batch, esker_slice key, esker_slice value, uint64_t expires_ms)
{
    bool ever = expires_ms == 0 || expires_ms >= BATCH_UNTIL;
    return batch_add_expiring(batch, key, value, ever ? ESKER_TTL_NONE : BATCH_UNTIL | expires_ms);
}

esker_status
esker_batch_put(esker_batch *batch, esker_slice key, esker_slice value)
{
    return batch_add(batch, ENTRY_PUT, key, value);
}

esker_status
esker_batch_delete(esker_batch *batch, esker_slice key)
{
    return batch_add(batch, ENTRY_DELETE, key, (esker_slice){0});
}

size_t
esker_batch_count(const esker_batch *batch)
{
    return batch != NULL && batch->magic == BATCH_MAGIC ? batch->count : 0;
}

size_t
esker_batch_size_bytes(const esker_batch *batch)
{
    return batch != NULL && batch->magic == BATCH_MAGIC ? batch->body.len : 0;
}

esker_status
esker_batch_require(esker_batch *batch, esker_slice key, esker_lsn unchanged_since)
{
    TRY(write_check_batch(batch));
    TRY(write_check_key(key));
    struct batch_require require = {.key_offset = batch->require_keys.len,
                                    .key_len = (uint32_t)key.size,
                                    .unchanged_since = unchanged_since};
    TRY(buf_reserve(&batch->requires, sizeof require));
    TRY(buf_append(&batch->require_keys, key.data, key.size));
    return buf_append(&batch->requires, &require, sizeof require);
}
