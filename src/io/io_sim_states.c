/* SPDX-License-Identifier: MIT */
/*
 * Walking a recorded log and building what a crash leaves; which states of a
 * cut are looked at is io_sim_choose.c.
 *
 * Invariants
 *  W1 A file's `durable` holds what every state of the cut has; `ops` are the
 *     other changes in their order. Of those, `sure` ones are in every state
 *     as well, but overlap an earlier one that is not.
 *  W2 Free changes are numbered file by file, then the names.
 */
#include "io/io_sim_states.h"

#include <stdio.h>

#include "base/assert.h"
#include "base/hash.h"
#include "io/io_sim_walk.h"

/* ---- Files ------------------------------------------------------------------- */

static struct walk_file *
walk_file(struct sim_states *states, uint64_t id)
{
    for (size_t at = states->file_count; at-- > 0;) {
        if (states->files[at].id == id) {
            return &states->files[at];
        }
    }
    sim_grow((void **)&states->files, states->file_count, &states->file_cap, sizeof *states->files);
    struct walk_file *file = &states->files[states->file_count++];
    *file = (struct walk_file){.id = id};
    return file;
}

static uint64_t
walk_op_end(const struct sim_log_entry *entry)
{
    return entry->kind == SIM_TRUNCATE ? entry->offset : entry->offset + (uint64_t)entry->result;
}

/* Room for every change of the file; then the same image serves all states of a cut. */
static uint64_t
walk_room(const struct walk_file *file)
{
    uint64_t most = file->durable_len;
    for (size_t at = 0; at < file->op_count; at++) {
        most = MAX(most, walk_op_end(file->ops[at].entry));
    }
    uint64_t have = file->durable != NULL ? file->durable->cap : 0;
    return MAX(have, align_up(MAX(most, (uint64_t)1), 4096));
}

static struct sim_blob *
walk_copy(const struct walk_file *file, uint64_t cap)
{
    struct sim_blob *copy = sim_blob_create(cap);
    uint64_t have = file->durable != NULL ? file->durable->cap : 0;
    if (have > 0) {
        memcpy(copy->bytes, file->durable->bytes, have);
    }
    memset(copy->bytes + have, 0, cap - have);
    return copy;
}

/* The atoms of the write that `atoms` names. */
static void
walk_apply_torn(uint8_t *bytes, const struct sim_log_entry *entry, uint64_t atoms)
{
    uint64_t end = walk_op_end(entry);
    unsigned index = 0;
    for (uint64_t from = entry->offset; from < end; index = MIN(index + 1, 63u)) {
        uint64_t to = MIN(end, (from / SIM_ATOM_BYTES + 1) * SIM_ATOM_BYTES);
        if ((atoms >> index & 1) != 0) {
            memcpy(bytes + from, entry->data + (from - entry->offset), to - from);
        }
        from = to;
    }
}

static void
walk_apply(struct walk_image *image, const struct sim_log_entry *entry, uint64_t atoms)
{
    uint8_t *bytes = image->blob->bytes;
    if (entry->kind == SIM_TRUNCATE) {
        if (entry->offset < image->len) {
            memset(bytes + entry->offset, 0, image->len - entry->offset);
        }
        image->len = entry->offset;
        return;
    }
    if (atoms == UINT64_MAX) {
        memcpy(bytes + entry->offset, entry->data, (size_t)entry->result);
    } else {
        walk_apply_torn(bytes, entry, atoms);
    }
    image->len = MAX(image->len, walk_op_end(entry));
}

static bool
walk_is_kept(const struct sim_choice *choice, uint32_t index)
{
    uint32_t bit = MIN(index, (uint32_t)SIM_FREE_MAX - 1);
    return (choice->kept[bit / 64] >> (bit % 64) & 1) != 0;
}

/* Length and what fills the gaps: as if lost writes had at least made the file long. */
static void
walk_fill(const struct walk_file *file, const struct sim_choice *choice, struct walk_image *image)
{
    static const uint8_t fillers[] = {0, 0, 0xff, 0xa7};
    uint64_t most = image->len;
    for (size_t at = 0; at < file->op_count; at++) {
        most = MAX(most, walk_op_end(file->ops[at].entry));
    }
    if (choice->filler == SIM_FILL_CUT || most <= file->durable_len) {
        return;
    }
    uint64_t len = most - file->durable_len;
    uint8_t *written = sim_alloc(len);
    uint32_t index = file->first_free;
    for (size_t at = 0; at < file->op_count; at++) {
        const struct walk_op *op = &file->ops[at];
        bool kept = op->sure || walk_is_kept(choice, index);
        if (kept && op->entry->kind != SIM_TRUNCATE) {
            for (uint64_t place = MAX(op->entry->offset, file->durable_len); place < walk_op_end(op->entry);
                 place++) {
                written[place - file->durable_len] = 1;
            }
        }
        index += op->sure ? 0 : 1;
    }
    for (uint64_t place = 0; place < len; place++) {
        if (written[place] == 0) {
            image->blob->bytes[file->durable_len + place] = fillers[choice->filler];
        }
    }
    mem_free(&mem_default, written);
    image->len = most;
}

/* The content that a choice makes of a file; the blob is the caller's. */
static struct walk_image
walk_build(const struct walk_file *file, const struct sim_choice *choice)
{
    struct walk_image image = {.len = file->durable_len};
    if (file->op_count == 0) {
        image.blob = sim_blob_ref(file->durable);
        return image;
    }
    image.blob = walk_copy(file, walk_room(file));
    uint32_t index = file->first_free;
    for (size_t at = 0; at < file->op_count; at++) {
        const struct walk_op *op = &file->ops[at];
        bool torn = !op->sure && choice != NULL && choice->torn == (int32_t)index;
        if (torn && op->entry->kind != SIM_TRUNCATE) {
            walk_apply(&image, op->entry, choice->torn_atoms & ~(UINT64_C(1) << 63));
        } else if (op->sure || choice == NULL || walk_is_kept(choice, index)) {
            walk_apply(&image, op->entry, UINT64_MAX);
        }
        index += op->sure ? 0 : 1;
    }
    if (choice != NULL) {
        walk_fill(file, choice, &image);
    }
    return image;
}

static uint64_t
walk_image_hash(const struct walk_image *image)
{
    return hash64(image->blob != NULL ? image->blob->bytes : NULL, image->blob != NULL ? image->len : 0,
                  image->len);
}

/* What a choice says about one file, as a number; 0: too much for one. */
static uint64_t
walk_memo_key(const struct walk_file *file, const struct sim_choice *choice)
{
    uint64_t kept = 0;
    uint32_t free = 0;
    int64_t torn = -1;
    for (size_t at = 0; at < file->op_count; at++) {
        if (!file->ops[at].sure) {
            uint32_t index = file->first_free + free;
            torn = choice->torn == (int32_t)index ? free : torn;
            kept |= (uint64_t)walk_is_kept(choice, index) << (free % 64);
            free++;
        }
    }
    uint64_t key = hash_mix(kept, choice->filler);
    key = torn < 0 ? key : hash_mix(key, hash_mix(choice->torn_atoms, (uint64_t)torn));
    return free > 64 ? 0 : key | 1;
}

static uint64_t
walk_content_hash(struct walk_file *file, const struct sim_choice *choice)
{
    uint64_t key = walk_memo_key(file, choice);
    size_t slot = key >> 1 & (WALK_MEMOS - 1);
    if (file->memo == NULL) {
        file->memo = sim_alloc(sizeof *file->memo);
    }
    if (key != 0 && file->memo->key[slot] == key) {
        return file->memo->hash[slot];
    }
    struct walk_image image = walk_build(file, choice);
    uint64_t hash = walk_image_hash(&image);
    sim_blob_unref(image.blob);
    file->memo->key[slot] = key;
    file->memo->hash[slot] = hash;
    return hash;
}

static void
walk_memo_clear(struct walk_file *file)
{
    if (file->memo != NULL) {
        memset(file->memo->key, 0, sizeof file->memo->key);
    }
}

/* ---- Syncs ------------------------------------------------------------------- */

static bool
walk_overlaps(const struct sim_log_entry *a, const struct sim_log_entry *b)
{
    bool cuts = a->kind == SIM_TRUNCATE || b->kind == SIM_TRUNCATE;
    return cuts || (a->offset < walk_op_end(b) && b->offset < walk_op_end(a));
}

/* What is sure, and does not stand on what is not, becomes part of every state (W1). */
static void
walk_fold(struct walk_file *file)
{
    struct walk_image image = {.len = file->durable_len, .blob = walk_copy(file, walk_room(file))};
    size_t left = 0;
    for (size_t at = 0; at < file->op_count; at++) {
        struct walk_op op = file->ops[at];
        bool folds = op.sure;
        for (size_t before = 0; before < left && folds; before++) {
            folds = !walk_overlaps(file->ops[before].entry, op.entry);
        }
        if (folds) {
            walk_apply(&image, op.entry, UINT64_MAX);
        } else {
            file->ops[left++] = op;
        }
    }
    if (left == file->op_count) {
        sim_blob_unref(image.blob);
        return;
    }
    sim_blob_unref(file->durable);
    file->durable = image.blob;
    file->durable_len = image.len;
    file->hashed = false;
    file->op_count = left;
}

/* Whether the sync covers the change; one of a range (len > 0) those that lie in it. */
static bool
walk_sync_covers(const struct sim_log_entry *sync, const struct sim_log_entry *change)
{
    bool before = change->complete <= sync->submit;
    bool within = change->kind != SIM_TRUNCATE && change->offset >= sync->offset &&
                  walk_op_end(change) - sync->offset <= sync->len;
    return before && (sync->len == 0 || within);
}

static void
walk_revert(struct walk_file *file, const struct sim_log_entry *entry)
{
    size_t kept = 0;
    for (size_t at = 0; at < file->op_count; at++) {
        if (entry->len != 0 && !walk_sync_covers(entry, file->ops[at].entry)) {
            file->ops[kept++] = file->ops[at];
        }
    }
    file->op_count = kept;
}

static void
walk_sync(struct sim_states *states, const struct sim_log_entry *entry)
{
    struct walk_file *file = walk_file(states, entry->inode);
    walk_memo_clear(file);
    if (entry->effect == SIM_EFFECT_REVERTED) {
        walk_revert(file, entry);
        return;
    }
    for (size_t at = 0; at < file->op_count; at++) {
        struct walk_op *op = &file->ops[at];
        if (!walk_sync_covers(entry, op->entry)) {
            continue;
        }
        op->doubtful = op->doubtful || (entry->effect == SIM_EFFECT_DOUBTFUL && !op->sure);
        op->sure = op->sure || (entry->effect == SIM_EFFECT_DURABLE && !op->doubtful);
    }
    if (entry->effect == SIM_EFFECT_DURABLE) {
        walk_fold(file);
        /* Whether the journal was written for a few bytes is up to the file system. */
        states->names_forced = entry->len == 0 ? states->change_count : states->names_forced;
    }
}

static void
walk_sync_dir(struct sim_states *states)
{
    for (size_t at = 0; at < states->change_count; at++) {
        walk_change(&states->names, states->changes[at], false);
    }
    states->change_count = 0;
    states->names_forced = 0;
}

/* ---- Names ------------------------------------------------------------------- */

static void
walk_names_set(struct walk_names *names, const char *name, uint64_t file)
{
    for (size_t at = 0; at < names->count; at++) {
        if (strcmp(names->items[at].name, name) == 0) {
            if (file == 0) {
                names->items[at] = names->items[--names->count];
            } else {
                names->items[at].file = file;
            }
            return;
        }
    }
    if (file != 0) {
        ASSERT(names->count < WALK_NAMES_MAX);
        struct walk_name *item = &names->items[names->count++];
        sim_name_copy(item->name, name);
        item->file = file;
    }
}

void
walk_change(struct walk_names *names, const struct sim_log_entry *entry, bool both)
{
    switch (entry->kind) {
    case SIM_OPEN:
        walk_names_set(names, entry->name, entry->inode);
        return;
    case SIM_RENAME:
        walk_names_set(names, entry->other, entry->inode);
        if (!both) {
            walk_names_set(names, entry->name, 0);
        }
        return;
    default:
        walk_names_set(names, entry->name, 0);
    }
}

/* How many changes of names survive where they survive in order. */
static size_t
walk_names_prefix(const struct sim_states *states, const struct sim_choice *choice)
{
    size_t kept = 0;
    for (size_t at = 0; at < states->change_count; at++) {
        kept += walk_is_kept(choice, states->names_free + (uint32_t)at);
    }
    return MAX(kept, states->names_forced);
}

static bool
walk_may_pass(const struct sim_log_entry *removal, const struct sim_log_entry *rename)
{
    return removal->kind == SIM_UNLINK && rename->kind == SIM_RENAME &&
           strcmp(removal->name, rename->name) != 0 && strcmp(removal->name, rename->other) != 0;
}

/* The names that a choice leaves; NULL: all changes. */
static void
walk_names_build(const struct sim_states *states, const struct sim_choice *choice, struct walk_names *out)
{
    *out = states->names;
    size_t prefix = states->change_count;
    bool strict = choice != NULL && choice->model == SIM_MODEL_STRICT;
    if (choice != NULL && !strict) {
        prefix = walk_names_prefix(states, choice);
    }
    for (size_t at = 0; at < prefix; at++) {
        if (!strict || walk_is_kept(choice, states->names_free + (uint32_t)at)) {
            walk_change(out, states->changes[at], strict && choice->both_names);
        }
    }
    bool passing = choice != NULL && choice->model == SIM_MODEL_PASSING && prefix + 1 < states->change_count;
    if (passing && walk_may_pass(states->changes[prefix], states->changes[prefix + 1])) {
        walk_change(out, states->changes[prefix + 1], false);
    }
}

/* ---- The walk ---------------------------------------------------------------- */

static void
walk_begin_file(struct sim_states *states, struct sim_inode *inode)
{
    struct walk_file *file = walk_file(states, inode->id);
    ASSERT(!inode->len_dirty);
    file->durable = sim_blob_ref(inode->durable);
    file->durable_len = inode->durable_len;
}

struct sim_states *
sim_states_create(struct sim_disk *base, struct sim_disk *recorded)
{
    struct sim_states *states = sim_alloc(sizeof *states);
    ASSERT(base->change_count == 0);
    states->base = base;
    states->log = sim_disk_log(recorded, &states->log_count);
    for (size_t at = 0; at < base->names.count; at++) {
        walk_begin_file(states, base->names.items[at].inode);
        walk_names_set(&states->names, base->names.items[at].name, base->names.items[at].inode->id);
    }
    return states;
}

void
sim_states_destroy(struct sim_states *states)
{
    for (size_t at = 0; at < states->file_count; at++) {
        sim_blob_unref(states->files[at].durable);
        mem_free(&mem_default, states->files[at].ops);
        mem_free(&mem_default, states->files[at].memo);
    }
    mem_free(&mem_default, states->files);
    mem_free(&mem_default, states->changes);
    mem_free(&mem_default, states);
}

static void
walk_add_op(struct sim_states *states, const struct sim_log_entry *entry)
{
    struct walk_file *file = walk_file(states, entry->inode);
    walk_memo_clear(file);
    sim_grow((void **)&file->ops, file->op_count, &file->op_cap, sizeof *file->ops);
    file->ops[file->op_count++] = (struct walk_op){.entry = entry};
}

static void
walk_number(struct sim_states *states)
{
    uint32_t next = 0;
    for (size_t at = 0; at < states->file_count; at++) {
        struct walk_file *file = &states->files[at];
        file->first_free = next;
        for (size_t op = 0; op < file->op_count; op++) {
            next += file->ops[op].sure ? 0 : 1;
        }
    }
    states->names_free = next;
    states->free_count = next + (uint32_t)states->change_count;
}

const struct sim_log_entry *
sim_states_next(struct sim_states *states)
{
    if (states->cut == states->log_count) {
        return NULL;
    }
    const struct sim_log_entry *entry = &states->log[states->cut++];
    switch (entry->kind) {
    case SIM_WRITE:
    case SIM_LOG_STORE:
        if (entry->result > 0 && entry->data != NULL) {
            walk_add_op(states, entry);
        }
        break;
    case SIM_TRUNCATE:
        if (entry->result == 0) {
            walk_add_op(states, entry);
        }
        break;
    case SIM_SYNC:
        walk_sync(states, entry);
        break;
    case SIM_SYNC_DIR:
        if (entry->effect == SIM_EFFECT_DURABLE) {
            walk_sync_dir(states);
        }
        break;
    case SIM_OPEN:
    case SIM_RENAME:
    case SIM_UNLINK:
        if (entry->result == 0) {
            sim_grow((void **)&states->changes, states->change_count, &states->change_cap,
                     sizeof(const struct sim_log_entry *));
            states->changes[states->change_count++] = entry;
        }
        break;
    default:
        break;
    }
    walk_number(states);
    return entry;
}

const struct sim_log_entry *
sim_states_peek(const struct sim_states *states)
{
    return states->cut < states->log_count ? &states->log[states->cut] : NULL;
}

size_t
sim_states_cut(const struct sim_states *states)
{
    return states->cut;
}

uint32_t
sim_states_free(const struct sim_states *states)
{
    return states->free_count;
}

/* ---- States ------------------------------------------------------------------ */

uint64_t
sim_states_hash(struct sim_states *states, const struct sim_choice *choice)
{
    struct walk_names names;
    uint64_t sum = 0;
    walk_names_build(states, choice, &names);
    for (size_t at = 0; at < names.count; at++) {
        struct walk_file *file = walk_file(states, names.items[at].file);
        uint64_t content = file->durable_hash;
        if (file->op_count > 0) {
            content = walk_content_hash(file, choice);
        } else if (!file->hashed) {
            struct walk_image image = {.blob = file->durable, .len = file->durable_len};
            content = file->durable_hash = walk_image_hash(&image);
            file->hashed = true;
        }
        /* A sum: the order of names does not matter. */
        sum += hash64(names.items[at].name, strlen(names.items[at].name), content);
    }
    return hash_mix(sum, names.count);
}

/* An inode of the new disk for each file, at most one. */
static struct sim_inode *
walk_make_inode(struct sim_disk *disk, const struct walk_file *file, const struct sim_choice *choice)
{
    struct walk_image image = walk_build(file, choice);
    struct sim_inode *inode = sim_inode_create(disk);
    inode->id = file->id;
    inode->len = inode->durable_len = image.len;
    if (image.blob != NULL) {
        memset(image.blob->bytes + image.len, 0, file->op_count > 0 ? image.blob->cap - image.len : 0);
        inode->cache = image.blob;
        inode->durable = sim_blob_ref(image.blob);
        inode->flags = sim_alloc(image.blob->cap / SIM_ATOM_BYTES);
    }
    return inode;
}

static struct sim_disk *
walk_make_machine(const struct sim_states *states)
{
    struct sim_disk *disk = sim_disk_create(states->base->seed);
    disk->rng.state = hash_mix(states->base->rng.state, states->cut);
    disk->boot = states->base->boot;
    /* relaxed: numbers */
    store_relaxed(&disk->now_ns, load_relaxed(&states->base->now_ns) + 1000 * states->cut);
    store_relaxed(&disk->boot_ns, load_relaxed(&states->base->boot_ns));
    disk->sync_failure = states->base->sync_failure;
    for (size_t at = 0; at < states->file_count; at++) {
        disk->next_inode = MAX(disk->next_inode, states->files[at].id);
    }
    return disk;
}

struct sim_disk *
sim_states_disk(struct sim_states *states, const struct sim_choice *choice)
{
    struct walk_names names;
    struct sim_inode *made[WALK_NAMES_MAX];
    struct sim_disk *disk = walk_make_machine(states);
    uint64_t next_inode = disk->next_inode;
    walk_names_build(states, choice, &names);
    for (size_t at = 0; at < names.count; at++) {
        made[at] = NULL;
        for (size_t other = 0; other < at && made[at] == NULL; other++) {
            made[at] = names.items[other].file == names.items[at].file ? sim_inode_ref(made[other]) : NULL;
        }
        if (made[at] == NULL) {
            made[at] = walk_make_inode(disk, walk_file(states, names.items[at].file), choice);
        }
        sim_names_set(disk, &disk->names, names.items[at].name, made[at]);
        sim_names_set(disk, &disk->durable_names, names.items[at].name, made[at]);
    }
    for (size_t at = 0; at < names.count; at++) {
        sim_inode_unref(disk, made[at]);
    }
    disk->next_inode = next_inode;
    disk->boot++;
    store_relaxed(&disk->boot_ns, load_relaxed(&disk->now_ns)); /* relaxed: a number */
    return disk;
}

/* What is in the cache and not surely on the platter. */
static void
walk_make_dirty(struct sim_disk *disk, struct sim_inode *inode, const struct walk_file *file)
{
    uint64_t cap = inode->cache != NULL ? inode->cache->cap : 0;
    if (file->op_count == 0 || cap == 0) {
        return;
    }
    sim_blob_unref(inode->durable);
    inode->durable = walk_copy(file, cap);
    inode->durable_len = file->durable_len;
    for (uint64_t at = 0; at < cap; at += SIM_ATOM_BYTES) {
        bool dirty = memcmp(inode->cache->bytes + at, inode->durable->bytes + at, SIM_ATOM_BYTES) != 0;
        inode->flags[at / SIM_ATOM_BYTES] = dirty ? SIM_ATOM_DIRTY : 0;
    }
    if (inode->len != inode->durable_len) {
        inode->len_dirty = true;
        inode->len_min = MIN(inode->len, inode->durable_len);
        inode->len_max = MAX(inode->len, inode->durable_len);
    }
    (void)disk;
}

struct sim_disk *
sim_states_killed(struct sim_states *states)
{
    struct sim_disk *disk = walk_make_machine(states);
    uint64_t next_inode = disk->next_inode;
    for (size_t at = 0; at < states->file_count; at++) {
        states->files[at].made = walk_make_inode(disk, &states->files[at], NULL);
        walk_make_dirty(disk, states->files[at].made, &states->files[at]);
    }
    for (size_t at = 0; at < states->names.count; at++) {
        const struct walk_name *name = &states->names.items[at];
        sim_names_set(disk, &disk->names, name->name, walk_file(states, name->file)->made);
        sim_names_set(disk, &disk->durable_names, name->name, walk_file(states, name->file)->made);
    }
    for (size_t at = 0; at < states->change_count; at++) {
        const struct sim_log_entry *entry = states->changes[at];
        bool removes = entry->kind == SIM_UNLINK;
        sim_disk_change_name(disk, entry->kind == SIM_RENAME ? entry->other : entry->name,
                             entry->kind == SIM_RENAME ? entry->name : "",
                             removes ? NULL : walk_file(states, entry->inode)->made);
    }
    for (size_t at = 0; at < states->file_count; at++) {
        sim_inode_unref(disk, states->files[at].made);
    }
    disk->next_inode = next_inode;
    return disk;
}

/* ---- For people ----------------------------------------------------------------- */

static const char *
walk_name_of(const struct sim_states *states, uint64_t id)
{
    for (size_t at = 0; at < states->cut; at++) {
        if (states->log[at].inode == id && states->log[at].name[0] != '\0') {
            return states->log[at].name;
        }
    }
    return "?";
}

void
sim_states_describe(const struct sim_states *states, const struct sim_choice *choice, char *out, size_t size)
{
    static const char *const models[] = {"strict", "ordered", "passing"};
    size_t len = (size_t)snprintf(out, size, "cut %zu, %s names, filler %u%s, lost:", states->cut,
                                  models[choice->model], choice->filler, choice->both_names ? ", both" : "");
    for (size_t at = 0; at < states->file_count && len < size; at++) {
        const struct walk_file *file = &states->files[at];
        uint32_t index = file->first_free;
        for (size_t op = 0; op < file->op_count && len < size; op++) {
            const struct sim_log_entry *entry = file->ops[op].entry;
            bool torn = choice->torn == (int32_t)index;
            if (!file->ops[op].sure && (torn || !walk_is_kept(choice, index))) {
                len +=
                    (size_t)snprintf(out + len, size - len, " %s[%llu+%d]%s", walk_name_of(states, file->id),
                                     (unsigned long long)entry->offset, entry->result, torn ? "(torn)" : "");
            }
            index += file->ops[op].sure ? 0 : 1;
        }
    }
    for (size_t at = 0; at < states->change_count && len < size; at++) {
        if (!walk_is_kept(choice, states->names_free + (uint32_t)at)) {
            len += (size_t)snprintf(out + len, size - len, " name:%s", states->changes[at]->name);
        }
    }
}
