/* rows_avx512.c - rows.inc compiled for avx512. */
#include "kern/rows.inc"
