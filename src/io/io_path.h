/* SPDX-License-Identifier: MIT */
/* The one thing done to a database's directory from outside of it. */
#ifndef ESKER_IO_IO_PATH_H
#define ESKER_IO_IO_PATH_H

#include "base/status.h"

/* Removes the directory if it is empty; OK also when it is not, or is gone. */
NODISCARD esker_status io_remove_empty_dir(const char *path);

#endif
