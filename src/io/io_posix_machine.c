/* SPDX-License-Identifier: MIT */
/* Which boot of which machine this is, and which mount: what a log's header remembers of its writer. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io_posix.h"
#include "sync/thread.h"

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif

/* Sixteen bytes from the text form with dashes; zeros (unknown) if it is not one. */
static void
posix_read_boot_id(uint8_t out[16])
{
    THREAD_UNCANCELLED;
    char text[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    ssize_t len = read(fd, text, sizeof text);
    close(fd);
    uint8_t id[16] = {0};
    size_t digits = 0;
    for (ssize_t at = 0; at < len && digits < 32; at++) {
        int c = text[at];
        int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (value >= 0) {
            id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | value);
            digits++;
        }
    }
    if (digits == 32) {
        memcpy(out, id, sizeof id);
    }
}

void
io_posix_read_machine(int dir_fd, struct io_machine_id *out)
{
    posix_read_boot_id(out->boot_id);
    struct statx info;
    if (statx(dir_fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &info) == 0 &&
        (info.stx_mask & STATX_MNT_ID_UNIQUE) != 0) {
        out->mount_id = info.stx_mnt_id;
    }
}
