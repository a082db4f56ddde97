/* SPDX-License-Identifier: MIT */
/* Waiting, as long as the crew is at work. */
#include <time.h>

#include "tools/tool.h"
#include "tools/workload_client.h"

enum { CREW_NAP_NS = 20000000 /* between looks at whether to stop */ };

bool
workload_crew_stopped(struct workload_crew *crew)
{
    return load_acquire(&crew->broken); /* pairs: WORKLOAD_BROKEN */
}

bool
workload_wait_until(struct workload_crew *crew, uint64_t then_ns)
{
    for (uint64_t now = tool_now_ns(); now < then_ns; now = tool_now_ns()) {
        uint64_t until = MIN(then_ns, now + CREW_NAP_NS);
        struct timespec at = {.tv_sec = (time_t)(until / 1000000000U),
                              .tv_nsec = (long)(until % 1000000000U)};
        if (workload_crew_stopped(crew)) {
            return false;
        }
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
    }
    return !workload_crew_stopped(crew);
}
