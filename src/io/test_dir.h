/* SPDX-License-Identifier: MIT */
/* For tests that work in a directory of their own. */
#ifndef ESKER_IO_TEST_DIR_H
#define ESKER_IO_TEST_DIR_H

#include <ftw.h>
#include <stdio.h>

static inline int
test_dir_remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

/* The directory and all that is in it; links are not followed. 0 if all is gone. */
static inline int
test_dir_remove(const char *path)
{
    return nftw(path, test_dir_remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
