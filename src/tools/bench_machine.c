/* SPDX-License-Identifier: MIT */
/* Reads the machine's facts, and measures what the instrument itself costs. */
#include "tools/bench_machine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tools/bench_clock.h"
#include "tools/bench_keys.h"

/* The text after "NAME : " in /proc/cpuinfo. */
static void
machine_cpuinfo(const char *name, char *out, size_t cap)
{
    out[0] = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL) {
        return;
    }
    char line[4096];
    while (fgets(line, sizeof line, file) != NULL) {
        char *colon = strchr(line, ':');
        if (strncmp(line, name, strlen(name)) == 0 && colon != NULL) {
            colon += strspn(colon, ": ");
            colon[strcspn(colon, "\n")] = 0;
            (void)snprintf(out, cap, "%s", colon);
            break;
        }
    }
    (void)fclose(file);
}

static void
machine_virtualisation(char *out, size_t cap)
{
    char text[4096];
    out[0] = 0;
    machine_cpuinfo("flags", text, sizeof text);
    if (strstr(text, " hypervisor") != NULL) {
        (void)snprintf(out, cap, "virtual machine");
    }
}

/* The type of the mount that holds dir, by its device number. */
static void
machine_file_system(const char *dir, char *out, size_t cap)
{
    struct stat info;
    (void)snprintf(out, cap, "unknown");
    FILE *file = fopen("/proc/self/mountinfo", "r");
    if (file == NULL || stat(dir, &info) != 0) {
        if (file != NULL) {
            (void)fclose(file);
        }
        return;
    }
    char wanted[32];
    (void)snprintf(wanted, sizeof wanted, " %u:%u ", major(info.st_dev), minor(info.st_dev));
    char line[4096];
    while (fgets(line, sizeof line, file) != NULL) {
        char *type = strstr(line, " - ");
        if (strstr(line, wanted) != NULL && type != NULL) {
            type += 3;
            type[strcspn(type, " \n")] = 0;
            (void)snprintf(out, cap, "%s", type);
            break;
        }
    }
    (void)fclose(file);
}

/* The part of each timed read that is not the engine's. */
static double
machine_instrument_ns(void)
{
    enum { ROUNDS = 200000, SIZE = 100 };
    struct bench_keys keys;
    bench_keys_init(&keys, ROUNDS, 1);
    uint8_t key[BENCH_KEY_BYTES], value[SIZE];
    bench_key_of(&keys, 0, key);
    bench_value_fill(key, 1, value, SIZE);
    uint64_t began = bench_now_ns();
    uint64_t good = 0;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint8_t other[BENCH_KEY_BYTES];
        uint64_t version;
        bench_key_of(&keys, i, other);
        good += bench_ticks() & 1;
        good += bench_value_check(bytes_make(key, sizeof key), bytes_make(value, SIZE), SIZE, &version);
        good += bench_ticks() + other[0];
    }
    uint64_t took = bench_now_ns() - began;
    /* The sum is used, so that the loop is not removed. */
    return (double)(took + (good == 0)) / (double)ROUNDS;
}

void
bench_machine_read(struct bench_machine *machine, const char *dir)
{
    memset(machine, 0, sizeof *machine);
    machine_cpuinfo("model name", machine->cpu, sizeof machine->cpu);
    machine->cores = (uint32_t)sysconf(_SC_NPROCESSORS_ONLN);
    machine->memory_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
    struct utsname name;
    if (uname(&name) == 0) {
        (void)snprintf(machine->kernel, sizeof machine->kernel, "%.16s %.40s %.16s", name.sysname,
                       name.release, name.machine);
    }
    machine_file_system(dir, machine->file_system, sizeof machine->file_system);
    (void)snprintf(machine->compiler, sizeof machine->compiler, "%s",
#ifdef __clang__
                   __VERSION__
#else
                   "gcc " __VERSION__
#endif
    );
    machine_virtualisation(machine->virtualisation, sizeof machine->virtualisation);
    if (getloadavg(&machine->load_before, 1) != 1) {
        machine->load_before = 0.0;
    }
    machine->instrument_ns = machine_instrument_ns();
}
