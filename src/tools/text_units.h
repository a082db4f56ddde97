/* SPDX-License-Identifier: MIT */
/* Numbers for people. Each fills `out` and returns it. */
#ifndef ESKER_TOOLS_TEXT_UNITS_H
#define ESKER_TOOLS_TEXT_UNITS_H

#include <stdint.h>

enum { TEXT_UNIT_BYTES = 32 };

/* 1,234,567 */
const char *text_count(uint64_t count, char out[TEXT_UNIT_BYTES]);
/* 512 B, 1.50 MB: powers of 1000, three digits. */
const char *text_bytes(uint64_t bytes, char out[TEXT_UNIT_BYTES]);
/* 64 KiB, 1.50 MiB: powers of 1024. */
const char *text_memory(uint64_t bytes, char out[TEXT_UNIT_BYTES]);
/* 870 ns, 12.3 us, 4.56 ms, 1.20 s, 150 s */
const char *text_duration(uint64_t ns, char out[TEXT_UNIT_BYTES]);

#endif
