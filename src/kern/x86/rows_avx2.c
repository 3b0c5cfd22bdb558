/* rows_avx2.c - rows.inc compiled for avx2. */
#include "kern/rows.inc"
