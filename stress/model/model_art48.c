/* rooms: memtable */
/* SPDX-License-Identifier: MIT */
/* model_art.c with a node48: a reader finds a child by the node's index. */
#define ART_OLD 17
#include "model_art.c"
