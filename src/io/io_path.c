/* SPDX-License-Identifier: MIT */
#include "io/io_path.h"

#include <errno.h>
#include <unistd.h>

esker_status
io_remove_empty_dir(const char *path)
{
    if (rmdir(path) == 0 || errno == ENOTEMPTY || errno == EEXIST || errno == ENOENT) {
        return ESKER_OK;
    }
    return FAIL_OS(errno, NULL, 0, "cannot remove the directory %.120s", path);
}
