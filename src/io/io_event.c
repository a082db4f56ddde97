/* SPDX-License-Identifier: MIT */
#include "io/io_event.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/status.h"
#include "io/io_posix.h"
#include "sync/thread.h"

int
io_event_create(void)
{
    int fd = io_posix_above_stdio(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (fd < 0) {
        IGNORE_STATUS(FAIL_OS(errno, NULL, 0, "cannot make an eventfd"), "the caller returns -1");
    }
    return fd;
}

void
io_event_signal(int fd)
{
    THREAD_UNCANCELLED;
    uint64_t one = 1;
    ssize_t written = write(fd, &one, sizeof one);
    (void)written; /* a full counter is readable already */
}

void
io_event_close(int fd)
{
    THREAD_UNCANCELLED;
    if (fd >= 0) {
        (void)close(fd);
    }
}
