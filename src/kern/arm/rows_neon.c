/* rows_neon.c - rows.inc compiled for 64-bit ARM. */
#include "kern/rows.inc"
