/* SPDX-License-Identifier: MIT */
/* The simulated disk's switches: faults, the power cut to come, clocks and counters. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/assert.h"
#include "io/io_sim_disk.h"

enum { SIM_SCRIPT_BYTES_MAX = 1024 };

void
sim_disk_crash_at(struct sim_disk *disk, uint64_t nth)
{
    mutex_lock(&disk->guard);
    disk->cut_at = nth == 0 ? 0 : disk->mutations + nth;
    mutex_unlock(&disk->guard);
}

bool
sim_disk_is_off(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    bool off = disk->off;
    mutex_unlock(&disk->guard);
    return off;
}

uint64_t
sim_disk_mutations(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    uint64_t mutations = disk->mutations;
    mutex_unlock(&disk->guard);
    return mutations;
}

void
sim_disk_add_fault(struct sim_disk *disk, const struct sim_fault *fault)
{
    ASSERT(fault->nth > 0 && fault->kind < SIM_KINDS && fault->err >= 0);
    mutex_lock(&disk->guard);
    ASSERT(disk->fault_count < SIM_FAULTS_MAX);
    struct sim_fault *slot = &disk->faults[disk->fault_count];
    *slot = *fault;
    if (fault->prefix != NULL) {
        char *prefix = disk->fault_prefixes[disk->fault_count];
        snprintf(prefix, sizeof disk->fault_prefixes[0], "%s", fault->prefix);
        slot->prefix = prefix;
    }
    disk->fault_count++;
    mutex_unlock(&disk->guard);
}

/* ---- Faults as text ---------------------------------------------------------- */

struct sim_word {
    const char *text;
    int value;
};

static const struct sim_word sim_ops_named[] = {
    {"open", SIM_OPEN},        {"read", SIM_READ},     {"write", SIM_WRITE},   {"sync", SIM_SYNC},
    {"syncdir", SIM_SYNC_DIR}, {"rename", SIM_RENAME}, {"unlink", SIM_UNLINK}, {"truncate", SIM_TRUNCATE},
    {"size", SIM_SIZE},        {"list", SIM_LIST},     {"map", SIM_MAP},       {"memory", SIM_MEMORY},
};

static const struct sim_word sim_errnos_named[] = {
    {"EIO", EIO},     {"ENOSPC", ENOSPC}, {"EMFILE", EMFILE}, {"ENOMEM", ENOMEM},
    {"EINTR", EINTR}, {"EAGAIN", EAGAIN}, {"EACCES", EACCES},
};

static bool
sim_word_find(const struct sim_word *words, size_t count, const char *text, int *out)
{
    for (size_t at = 0; at < count; at++) {
        if (strcmp(words[at].text, text) == 0) {
            *out = words[at].value;
            return true;
        }
    }
    return false;
}

/* A whole decimal number. */
static bool
sim_script_number(const char *text, uint64_t limit, uint64_t *out)
{
    char *end;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && *out <= limit;
}

static bool
sim_script_action(char *text, struct sim_fault *fault)
{
    uint64_t number = 0;
    char *argument = strchr(text, '=');
    if (argument == NULL) {
        static const struct sim_word plain[] = {
            {"flip", SIM_ACT_FLIP}, {"misdirect", SIM_ACT_MISDIRECT}, {"lie", SIM_ACT_LIE}};
        int action = SIM_ACT_FAIL;
        bool known = sim_word_find(plain, COUNTOF(plain), text, &action);
        fault->action = (enum sim_action)action;
        return known || sim_word_find(sim_errnos_named, COUNTOF(sim_errnos_named), text, &fault->err);
    }
    *argument++ = '\0';
    if (!sim_script_number(argument, UINT32_MAX, &number)) {
        return false;
    }
    fault->bytes = (uint32_t)number;
    if (strcmp(text, "delay") == 0) {
        fault->action = SIM_ACT_DELAY;
        fault->delay_ns = number * 1000000;
        return true;
    }
    fault->action = strcmp(text, "torn") == 0 ? SIM_ACT_TORN : SIM_ACT_FAIL;
    return fault->action == SIM_ACT_TORN || strcmp(text, "short") == 0;
}

/* One fault; `word` is changed and borrowed by it. */
static bool
sim_script_fault(char *word, struct sim_fault *fault)
{
    char *parts[4] = {word, NULL, NULL, NULL};
    size_t count = 1;
    for (char *at = word; *at != '\0'; at++) {
        if (*at == ':') {
            if (count == COUNTOF(parts)) {
                return false;
            }
            *at = '\0';
            parts[count++] = at + 1;
        }
    }
    *fault = (struct sim_fault){.nth = 1};
    char *prefix = strchr(word, '@');
    if (prefix != NULL) {
        *prefix++ = '\0';
        fault->prefix = prefix;
    }
    int kind;
    if (count < 3 || !sim_word_find(sim_ops_named, COUNTOF(sim_ops_named), word, &kind) ||
        !sim_script_number(parts[1], UINT32_MAX, &fault->nth) || fault->nth == 0 ||
        (prefix != NULL && strlen(prefix) >= sizeof((struct io_file *)NULL)->name)) {
        return false;
    }
    fault->kind = (enum sim_kind)kind;
    fault->sticky = count == 4 && strcmp(parts[3], "sticky") == 0;
    return (count == 3 || fault->sticky) && sim_script_action(parts[2], fault);
}

bool
sim_disk_script(struct sim_disk *disk, const char *text)
{
    struct sim_fault faults[SIM_FAULTS_MAX];
    size_t count = 0;
    char copy[SIM_SCRIPT_BYTES_MAX];
    char *rest = NULL;
    if (strlen(text) >= sizeof copy) {
        return false;
    }
    memcpy(copy, text, strlen(text) + 1);
    bool good = true;
    for (char *word = strtok_r(copy, " ", &rest); word != NULL && good; word = strtok_r(NULL, " ", &rest)) {
        good = disk->fault_count + count < SIM_FAULTS_MAX && sim_script_fault(word, &faults[count]);
        count++;
    }
    for (size_t at = 0; at < count && good; at++) {
        sim_disk_add_fault(disk, &faults[at]);
    }
    return good;
}

/* ---- Switches ------------------------------------------------------------------ */

void
sim_disk_fail(struct sim_disk *disk, enum sim_kind kind, uint64_t nth, int err, bool sticky)
{
    sim_disk_add_fault(disk, &(struct sim_fault){.kind = kind, .nth = nth, .err = err, .sticky = sticky});
}

void
sim_disk_heal(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    disk->fault_count = 0;
    mutex_unlock(&disk->guard);
}

uint64_t
sim_disk_fired(struct sim_disk *disk)
{
    mutex_lock(&disk->guard);
    uint64_t fired = disk->fired;
    mutex_unlock(&disk->guard);
    return fired;
}

uint64_t
sim_disk_count(struct sim_disk *disk, enum sim_kind kind)
{
    ASSERT(kind < SIM_KINDS);
    mutex_lock(&disk->guard);
    uint64_t count = disk->counts[kind];
    mutex_unlock(&disk->guard);
    return count;
}

void
sim_disk_set_sync_failure(struct sim_disk *disk, enum sim_sync_failure how)
{
    mutex_lock(&disk->guard);
    disk->sync_failure = how;
    mutex_unlock(&disk->guard);
}

void
sim_disk_set_lying(struct sim_disk *disk, bool lying)
{
    mutex_lock(&disk->guard);
    disk->lying = lying;
    mutex_unlock(&disk->guard);
}

void
sim_disk_set_capacity(struct sim_disk *disk, uint64_t bytes)
{
    mutex_lock(&disk->guard);
    disk->capacity = bytes;
    mutex_unlock(&disk->guard);
}

void
sim_disk_advance(struct sim_disk *disk, uint64_t ns)
{
    (void)sim_clock_add(disk, ns);
}

void
sim_disk_set_wall(struct sim_disk *disk, uint64_t ns)
{
    /* Modulo 2^64, so that the clock can also be set back. relaxed: numbers */
    store_relaxed(&disk->wall_offset_ns, ns - load_relaxed(&disk->now_ns));
}
