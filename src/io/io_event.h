/* SPDX-License-Identifier: MIT */
/* eventfds: how the durable watermark reaches a program's event loop. */
#ifndef ESKER_IO_IO_EVENT_H
#define ESKER_IO_IO_EVENT_H

/* A non-blocking, close-on-exec eventfd, or -1 with the failure recorded. */
int io_event_create(void);
/* Makes it readable. Never blocks. */
void io_event_signal(int fd);
void io_event_close(int fd);

#endif
