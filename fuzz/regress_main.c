/* SPDX-License-Identifier: MIT */
/*
 * Replays a fuzz target's corpus without libFuzzer, so that every test run,
 * with any compiler, checks what fuzzing once found.
 *
 *   fuzz_regress_x [--mutations N] FILE|DIRECTORY...
 *
 * Each input runs as it is, then at a spread of truncations, then N times
 * with a few bytes changed; those that libFuzzer kept for what they reach, named
 * found-*, are changed already and run as they are. All of it follows from the file's bytes, so a
 * failure comes back on every run. When the target crashes, or spends more than
 * ten seconds of CPU time on one input, the input that did it is left in
 * regress-crash.bin and named on stderr.
 */
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>

#include "base/rng.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Present only in sanitized builds, whose runtimes end the process without a signal. */
void __sanitizer_set_death_callback(void (*callback)(void)) __attribute__((weak));

enum { INPUT_BYTES_MAX = 64 << 20, NAME_BYTES_MAX = 4096, TRUNCATIONS_MAX = 256, INPUT_SECONDS_MAX = 10 };

static const char *current_name = "";
static const char *current_how = "as it is";
static const uint8_t *current_data;
static size_t current_size;
static size_t runs;

/* The process is about to end; stdio is the best that is left. */
static void
regress_tell_last_words(void)
{
    fprintf(stderr, "fuzz_regress: crashed or hung on %s (%s, %zu bytes), kept in regress-crash.bin\n",
            current_name, current_how, current_size);
    FILE *file = fopen("regress-crash.bin", "wb");
    if (file != NULL) {
        (void)fwrite(current_data, 1, current_size, file);
        (void)fclose(file);
    }
}

static void
regress_on_signal(int signal_no)
{
    signal(signal_no, SIG_DFL);
    regress_tell_last_words();
    raise(signal_no);
}

/* A copy of exactly `size` bytes, so that a read past the end is seen. */
static void
regress_run(const char *how, const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    if (copy == NULL) {
        fprintf(stderr, "fuzz_regress: no memory\n");
        exit(2);
    }
    if (size > 0) {
        memcpy(copy, data, size);
    }
    current_how = how;
    current_data = copy;
    current_size = size;
    static const struct itimerval limit = {.it_value = {.tv_sec = INPUT_SECONDS_MAX}};
    setitimer(ITIMER_VIRTUAL, &limit, NULL);
    (void)LLVMFuzzerTestOneInput(copy, size);
    runs++;
    free(copy);
}

static void
regress_mutate(uint8_t *data, size_t size, struct rng *rng)
{
    uint64_t edits = 1 + rng_below(rng, 4);
    for (uint64_t i = 0; i < edits; i++) {
        size_t at = (size_t)rng_below(rng, size);
        switch (rng_below(rng, 4)) {
        case 0:
            data[at] ^= (uint8_t)(1u << rng_below(rng, 8));
            break;
        case 1:
            data[at] = (uint8_t)rng_next(rng);
            break;
        case 2:
            data[at] = rng_below(rng, 2) == 0 ? 0x00 : 0xff;
            break;
        default:
            data[at] = data[rng_below(rng, size)];
            break;
        }
    }
}

static void
regress_input(uint8_t *data, size_t size, size_t mutations)
{
    regress_run("as it is", data, size);
    if (mutations == 0 || size == 0) {
        return;
    }
    size_t step = size / TRUNCATIONS_MAX + 1;
    for (size_t len = 0; len < size; len += step) {
        regress_run("cut short", data, len);
    }
    uint8_t *work = malloc(size);
    if (work == NULL) {
        fprintf(stderr, "fuzz_regress: no memory\n");
        exit(2);
    }
    struct rng rng = {.state = size};
    for (size_t i = 0; i < mutations; i++) {
        memcpy(work, data, size);
        regress_mutate(work, size, &rng);
        regress_run("with bytes changed", work, size);
    }
    free(work);
}

static bool
regress_file(const char *name, size_t mutations)
{
    FILE *file = fopen(name, "rb");
    if (file == NULL) {
        fprintf(stderr, "fuzz_regress: %s: %s\n", name, strerror(errno));
        return false;
    }
    bool done = false;
    uint8_t *data = NULL;
    struct stat info;
    if (fstat(fileno(file), &info) != 0 || info.st_size > INPUT_BYTES_MAX) {
        fprintf(stderr, "fuzz_regress: %s: unreadable or too large\n", name);
        goto out;
    }
    size_t size = (size_t)info.st_size;
    data = malloc(size == 0 ? 1 : size);
    if (data == NULL || fread(data, 1, size, file) != size) {
        fprintf(stderr, "fuzz_regress: %s: cannot be read whole\n", name);
        goto out;
    }
    current_name = name;
    regress_input(data, size, mutations);
    done = true;
out:
    free(data);
    (void)fclose(file);
    return done;
}

static bool
regress_path(const char *path, size_t mutations)
{
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return regress_file(path, mutations);
    }
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0) {
        fprintf(stderr, "fuzz_regress: %s: %s\n", path, strerror(errno));
        return false;
    }
    bool done = true;
    for (int i = 0; i < count; i++) {
        char name[NAME_BYTES_MAX];
        int used = snprintf(name, sizeof name, "%s/%s", path, entries[i]->d_name);
        bool found = strncmp(entries[i]->d_name, "found-", strlen("found-")) == 0;
        if (entries[i]->d_name[0] != '.' && used > 0 && (size_t)used < sizeof name) {
            done = regress_file(name, found ? 0 : mutations) && done;
        }
        free(entries[i]);
    }
    free(entries);
    return done;
}

int
main(int argc, char **argv)
{
    size_t mutations = 0;
    int at = 1;
    if (argc > 2 && strcmp(argv[1], "--mutations") == 0) {
        mutations = strtoul(argv[2], NULL, 10);
        at = 3;
    }
    if (at >= argc) {
        fprintf(stderr, "usage: fuzz_regress_x [--mutations N] FILE|DIRECTORY...\n");
        return 2;
    }
    signal(SIGABRT, regress_on_signal);
    signal(SIGVTALRM, regress_on_signal);
    if (__sanitizer_set_death_callback != NULL) {
        __sanitizer_set_death_callback(regress_tell_last_words);
    } else {
        signal(SIGSEGV, regress_on_signal);
    }
    bool done = true;
    for (; at < argc; at++) {
        done = regress_path(argv[at], mutations) && done;
    }
    printf("%zu runs\n", runs);
    return done && runs > 0 ? 0 : 1;
}
